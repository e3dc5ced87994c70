"""Reconstructed showers from a store to ctapipe's file and back; files of ctapipe's own making."""

import shutil

import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io import ctapipe_model_dl2 as dl2
from astri_gpu.kernels.coordinates import altaz_to_telescope
from astri_gpu.schema import TABLES
from astri_gpu.stages import ingest
from astri_gpu.store import open_store

tables = pytest.importorskip("tables")
CAMERA = "ASTRICam"
SUBARRAY, TELESCOPE = model.DL2_SUBARRAY, model.DL2_TELESCOPE


@pytest.fixture
def back(reconstructed, tmp_path):
    """Return a function that changes a copy of the file and ingests it."""

    def get(change=None, *options):
        path = tmp_path / "changed.h5"
        shutil.copyfile(reconstructed.file, path)
        if change is not None:
            with tables.open_file(str(path), "a") as file:
                change(file)
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        words = [f"input='{path}'", f"output='{output}'", "progress=false", *options]
        get.warnings = ingest.run(compose("ingest", words)).warnings
        return open_store(output)

    return get


@pytest.fixture(scope="module")
def wanted(reconstructed):
    """Columns of dl2/event and dl2/image of what has a place in the file."""
    store = open_store(reconstructed.dl2)
    kept = store.read("dl0/event/event_id") >= 0
    of_images = kept[store.read(f"dl0/image/{CAMERA}/event_index")]
    events, images = store.read_table("dl2/event"), store.read_table(f"dl2/image/{CAMERA}")
    images.pop("event_index")
    return (
        {name: values[kept] for name, values in events.items()},
        {name: values[of_images] for name, values in images.items()},
    )


def check_same(store, wanted):
    """Compare all columns of both tables; the place in the field of view is computed again."""
    for group, columns in zip(("dl2/event", f"dl2/image/{CAMERA}"), wanted, strict=True):
        found = store.read_table(group)
        assert set(found) - {"event_index"} == set(columns)
        assert len(columns) == len(TABLES[group.removesuffix(f"/{CAMERA}")]) - ("image" in group)
        for name, want in columns.items():
            if name == "stereo_n_tels":  # the file has no telescopes of failed events
                want = np.where(columns["stereo_is_valid"], want, 0)
            rtol = 3e-7 if "_fov_" in name else 0
            np.testing.assert_allclose(found[name], want, rtol=rtol, atol=rtol, err_msg=name)
            assert found[name].dtype == want.dtype


def test_everything_comes_back(back, wanted):
    store = back()
    check_same(store, wanted)
    assert store.attrs["data_level"] == "DL2b"
    assert store.attrs["stereo_algorithm"] == dl2.ALGORITHM
    assert store.attrs["ctapipe"]["algorithms"]["reco_energy"] == dl2.ENERGY
    assert not any("not taken over" in text for text in back.warnings)


def test_the_other_name_of_the_scores(back, wanted):
    """As ctapipe-apply-models and newer versions write them."""

    def renamed(file):
        for group in (SUBARRAY, TELESCOPE):
            file.rename_node(f"{group}/classification", "particle_type")

    check_same(back(renamed), wanted)


def remove(file, *names):
    """Remove the tables of some algorithms, of events and of telescopes."""
    for group in (SUBARRAY, TELESCOPE):
        for kind in list(file.get_node(group)._v_children):
            for name in names:
                if name in file.get_node(f"{group}/{kind}"):
                    file.remove_node(f"{group}/{kind}/{name}", recursive=True)


def test_a_file_without_our_direction(back, wanted):
    """The direction of the geometry, or where it failed of the displacements."""

    def change(file):
        remove(file, dl2.MERGED, dl2.IMAGE_MEAN)
        node = file.get_node(dl2.OF_EVENTS[0].path)
        rows = node[:]
        rows[f"{dl2.ALGORITHM}_is_valid"][::3] = False
        node[:] = rows

    store = back(change)
    events = store.read_table("dl2/event")
    valid, energy = events["stereo_is_valid"], wanted[0]["reco_energy"]
    assert 0 < valid.sum() < len(valid)
    for name in ("alt", "az"):
        want = np.where(valid, wanted[0][f"stereo_{name}"], wanted[0][f"disp_{name}"])
        np.testing.assert_array_equal(events[f"reco_{name}"], want)
    place = altaz_to_telescope(
        *(events[f"reco_{name}"] for name in ("alt", "az")),
        *(store.read(f"dl0/event/array_{name}") for name in ("alt", "az")),
    )
    np.testing.assert_allclose(events["reco_fov_lat"], place.fov_lat, atol=1e-6)
    good = np.isfinite(energy) & np.isfinite(events["reco_alt"])
    np.testing.assert_array_equal(events["reco_is_valid"], good)
    assert not events["event_quality"].any()
    assert "mean_energy" not in events


def test_events_without_geometry(back, wanted):
    """One telescope, or displacements alone: no geometry, but a direction."""
    store = back(lambda file: remove(file, dl2.ALGORITHM, dl2.MERGED))
    events = store.read_table("dl2/event")
    assert store.attrs["data_level"] == "DL2b"
    assert store.attrs["stereo_algorithm"] is None
    assert not events["stereo_is_valid"].any()
    assert np.isnan(events["stereo_alt"]).all()
    np.testing.assert_array_equal(events["reco_alt"], wanted[0]["disp_alt"])
    np.testing.assert_array_equal(events["reco_is_valid"], wanted[0]["reco_is_valid"])
    assert "stereo_impact_distance" not in store.columns(f"dl2/image/{CAMERA}")


def test_energies_alone(back, wanted):
    """They are kept, but a direction with energy and score it is not."""
    store = back(lambda file: remove(file, dl2.CLASSIFIER))
    events = store.read_table("dl2/event")
    assert store.attrs["data_level"] == "DL2a"
    np.testing.assert_array_equal(events["reco_energy"], wanted[0]["reco_energy"])
    assert not {"gammaness", "reco_alt", "reco_is_valid"} & set(events)
    assert any(f"not taken over: geometry of {dl2.MERGED}" in text for text in back.warnings)


def rename(file, table, name):
    """Give a table of events another algorithm, with its columns."""
    rows = file.get_node(table.path)[:]
    rows.dtype.names = [column.replace(table.algorithm, name) for column in rows.dtype.names]
    file.create_table(table.path.rpartition("/")[0], name, obj=rows)


def test_of_several_algorithms_the_usual_ones_are_taken(back, wanted):
    energy = dl2.OF_EVENTS[3]

    def second(file):
        rename(file, energy, "ExtraTreesRegressor")

    store = back(second)
    check_same(store, wanted)
    assert any("energy of ExtraTreesRegressor" in text for text in back.warnings)

    def only(file):
        rename(file, energy, "ExtraTreesRegressor")
        file.remove_node(energy.path)

    store = back(only)
    check_same(store, wanted)
    assert store.attrs["ctapipe"]["algorithms"]["reco_energy"] == "ExtraTreesRegressor"


def test_displacements_are_no_stereo_geometry(back):
    with pytest.raises(UsageError, match=r"geometry=disp is not in .* it has HillasReconstructor"):
        back(None, "geometry=disp")


def test_results_that_do_not_fit(back):
    def invalid(file):
        node = file.get_node(dl2.OF_EVENTS[3].path)
        rows = node[:]
        rows[f"{dl2.ENERGY}_is_valid"] = False
        node[:] = rows

    events = back(invalid).read_table("dl2/event")
    assert np.isnan(events["reco_energy"]).all()
    assert not events["reco_is_valid"].any()

    def lacking(file):
        rows = file.get_node(dl2.OF_EVENTS[3].path)[:]
        file.remove_node(dl2.OF_EVENTS[3].path)
        kept = [name for name in rows.dtype.names if not name.endswith("is_valid")]
        file.create_table(f"{SUBARRAY}/energy", dl2.ENERGY, obj=rows[kept].copy())

    with pytest.raises(AstriError, match="has no column RandomForestRegressor_is_valid"):
        back(lacking)

    def text(file, value=b"much"):
        rows = file.get_node(dl2.OF_EVENTS[3].path)[:]
        file.remove_node(dl2.OF_EVENTS[3].path)
        name = f"{dl2.ENERGY}_energy"
        of = np.asarray(value)
        dtype = [
            (each, of.dtype, of.shape) if each == name else (each, rows.dtype[each])
            for each in rows.dtype.names
        ]
        changed = np.zeros(len(rows), dtype=dtype)
        for each in rows.dtype.names:
            changed[each] = value if each == name else rows[each]
        file.create_table(f"{SUBARRAY}/energy", dl2.ENERGY, obj=changed)

    with pytest.raises(AstriError, match=r"_energy of .* holds \|S4, not numbers"):
        back(text)
    with pytest.raises(AstriError, match=r"_energy of .* holds \(2,\) values for an event"):
        back(lambda file: text(file, np.array([1.0, 2.0])))

    def strange(file):
        node = file.get_node(dl2.OF_EVENTS[4].path)
        rows = node[:]
        rows["event_id"][-1] += 1_000_000
        node[:] = rows

    with pytest.raises(AstriError, match="of no event of the trigger table"):
        back(strange)
