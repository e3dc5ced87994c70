"""Reconstructed showers in exported files: every number of the store, and ctapipe's readers."""

import numpy as np
import pytest

from astri_gpu.io import ctapipe_model as model
from astri_gpu.io import ctapipe_model_dl2 as dl2
from astri_gpu.io.ctapipe_export import export_store
from astri_gpu.io.ctapipe_export_dl2 import image_results
from astri_gpu.schema import TABLES
from astri_gpu.store import open_store

tables = pytest.importorskip("tables")
CAMERA = "ASTRICam"
REPACKED = {"tel_disp", "tel_disp_sign", "tel_disp_fov_lon", "tel_disp_fov_lat"}
# These follow from others: the number of telescopes, and the place in the field of view.
DERIVED = {"stereo_n_tels", "reco_n_tels", "reco_is_valid", "reco_fov_lon", "reco_fov_lat"}


@pytest.fixture(scope="module")
def file(reconstructed):
    with tables.open_file(reconstructed.file) as opened:
        yield opened


@pytest.fixture(scope="module")
def store(reconstructed):
    return open_store(reconstructed.dl2)


@pytest.fixture(scope="module")
def kept(store):
    """Which events have a place in the file."""
    return store.read("dl0/event/event_id") >= 0


@pytest.fixture(scope="module")
def images(store, kept):
    """Columns of the images that have a place in the file, and their event numbers."""
    event = store.read(f"dl0/image/{CAMERA}/event_index")
    rows = {}
    for level in ("dl0", "dl1", "dl2"):
        rows |= store.read_table(f"{level}/image/{CAMERA}")
    rows["event_id"] = store.read("dl0/event/event_id")[event]
    return {name: values[kept[event]] for name, values in rows.items()}


def test_events_have_the_results_of_the_store(store, file, kept):
    rows, n_compared = store.read_table("dl2/event"), 0
    for table in dl2.OF_EVENTS:
        found = file.get_node(table.path)[:]
        assert found.dtype.names == tuple(field.column for field in table.columns)
        for field in table.columns:
            if field.ours is None:
                continue
            want = rows[field.ours][kept]
            if field.ours == "event_quality":  # 0 = none
                want = np.where(want > 0, want, np.nan)
            np.testing.assert_array_equal(found[field.column], want, err_msg=field.column)
            n_compared += field not in model.EVENT_KEYS
        if table.algorithm != dl2.ALGORITHM:
            finite = np.isfinite(rows[table.key][kept])
            assert 0 < finite.sum() < len(finite)
            np.testing.assert_array_equal(found[f"{table.algorithm}_is_valid"], finite)
            n_tels = found[f"{table.algorithm}_telescopes"].sum(axis=1)
            np.testing.assert_array_equal(n_tels, rows["reco_n_tels"][kept])
    assert n_compared == len(TABLES["dl2/event"]) - len(DERIVED | set(model.EVENT_KEYS)) + 1


def test_the_geometry_still_knows_its_telescopes(reconstructed, exported, store, file, kept):
    """The options of `process` are found behind those of the stage that came last."""
    with tables.open_file(exported["gamma"].file) as before:
        want = before.get_node(dl2.OF_EVENTS[0].path)[:]
    found = file.get_node(dl2.OF_EVENTS[0].path)[:]
    for name in want.dtype.names:
        np.testing.assert_array_equal(found[name], want[name], err_msg=name)
    assert not any("which telescopes" in text for text in reconstructed.warnings)
    n_tels = found[f"{dl2.ALGORITHM}_telescopes"].sum(axis=1)
    valid = store.read("dl2/event/stereo_is_valid")[kept]
    assert (n_tels > 0).any()
    np.testing.assert_array_equal(n_tels > 0, valid)


def test_images_have_the_results_of_the_store(file, images):
    n_compared = 0
    for tel_id in np.unique(images["tel_id"]):
        own = {name: values[images["tel_id"] == tel_id] for name, values in images.items()}
        for table in dl2.OF_TELESCOPES:
            found = file.get_node(model.telescope_table(table.group, int(tel_id)))[:]
            for field in table.columns:
                if field.ours is not None and field.ours != "obs_id":
                    want = own[field.ours]
                    np.testing.assert_array_equal(found[field.column], want, err_msg=field.column)
                    n_compared += len(want)
    assert n_compared > 1000


def test_displacements_are_told_in_the_way_of_ctapipe(file, images):
    """Length and sign along the axis, certainty, and the place on the sky."""
    group = {table.kind: table.group for table in dl2.OF_TELESCOPES if table.algorithm == dl2.DISP}
    own = {name: values[images["tel_id"] == 1] for name, values in images.items()}
    found = file.get_node(model.telescope_table(group["disp"], 1))[:]
    good = own["tel_is_valid"]
    assert 0 < good.sum() < len(good)
    plus, norm = own["tel_disp_sign"][good], own["tel_disp"][good]
    parameter, score = (found[f"disp_tel_{name}"] for name in ("parameter", "sign_score"))
    np.testing.assert_array_equal(parameter[good] > 0, plus >= 0.5)
    np.testing.assert_allclose(np.abs(parameter[good]), norm, rtol=1e-6)
    np.testing.assert_allclose(score[good], np.abs(plus - (1 - plus)), atol=1e-6)
    assert np.isnan(parameter[~good]).all()
    assert np.isnan(score[~good]).all()
    place = file.get_node(model.telescope_table(group["geometry"], 1))[:]
    np.testing.assert_array_equal(place["disp_tel_is_valid"], good)
    assert np.isnan(place["disp_tel_alt"][~good]).all()


def test_places_of_images_are_where_ctapipe_would_put_them(peers, file, images):
    del peers
    from astropy import units as u
    from ctapipe.reco.sklearn import telescope_to_horizontal

    own = {name: values[images["tel_id"] == 1] for name, values in images.items()}
    alt, az = telescope_to_horizontal(
        lon=own["tel_disp_fov_lon"].astype(float) * u.deg,
        lat=own["tel_disp_fov_lat"].astype(float) * u.deg,
        pointing_alt=own["pointing_alt"] * u.deg,
        pointing_az=own["pointing_az"] * u.deg,
    )
    found = file.get_node(model.telescope_table(dl2.OF_TELESCOPES[-1].group, 1))[:]
    np.testing.assert_allclose(found["disp_tel_alt"], alt.to_value("deg"), atol=1e-9)
    turned = (found["disp_tel_az"] - az.to_value("deg") + 180) % 360 - 180
    np.testing.assert_allclose(turned, 0 * turned, atol=1e-8)


def test_components_tell_the_side_by_the_place():
    rows = {
        "hillas_fov_lon": np.array([1.0, 1.0, np.nan]),
        "hillas_fov_lat": np.array([0.5, 0.5, np.nan]),
        "hillas_psi": np.array([90.0, 90.0, np.nan]),
        "tel_disp": np.array([0.3, 0.3, np.nan]),
        "tel_disp_sign": np.array([1.0, 1.0, np.nan]),
        "tel_disp_fov_lon": np.array([1.0, 1.0, np.nan]),
        "tel_disp_fov_lat": np.array([0.8, 0.2, np.nan]),
        "pointing_alt": np.full(3, 70.0),
        "pointing_az": np.zeros(3),
    }
    found = image_results(rows, components=True)
    np.testing.assert_array_equal(found["disp_tel_parameter"], [0.3, -0.3, np.nan])
    np.testing.assert_array_equal(found["disp_tel_sign_score"], [1, 1, np.nan])
    np.testing.assert_array_equal(image_results(rows)["disp_tel_parameter"], [0.3, 0.3, np.nan])


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_ctapipe_reads_the_results(peers, reconstructed, store, kept, images):
    del peers
    from ctapipe.io import EventSource, TableLoader

    with TableLoader(reconstructed.file) as loader:
        events = loader.read_subarray_events()
        telescopes = loader.read_telescope_events(dl1_images=False)
    for theirs, ours in (
        ("RandomForestRegressor_energy", "reco_energy"),
        ("RandomForestRegressor_energy_uncert", "reco_energy_uncert"),
        ("RandomForestClassifier_prediction", "gammaness"),
        ("AstriReconstructor_alt", "reco_alt"),
        ("AstriReconstructor_ang_distance_uncert", "reco_direction_uncert"),
        ("disp_az", "disp_az"),
        ("ImageMean_prediction", "mean_gammaness"),
    ):
        want = store.read(f"dl2/event/{ours}")[kept]
        np.testing.assert_array_equal(np.asarray(events[theirs]), want, err_msg=theirs)
    assert events["RandomForestRegressor_energy"].unit == "TeV"
    keys = zip(images["event_id"].tolist(), images["tel_id"].tolist(), strict=True)
    row = {key: k for k, key in enumerate(keys)}
    order = [row[key] for key in zip(telescopes["event_id"], telescopes["tel_id"], strict=True)]
    for theirs, ours in (
        ("RandomForestRegressor_tel_energy", "tel_energy"),
        ("RandomForestClassifier_tel_prediction", "tel_gammaness"),
        ("disp_tel_ang_distance_uncert", "tel_disp_uncert"),
        ("disp_tel_is_valid", "tel_is_valid"),
    ):
        want = images[ours][order]
        np.testing.assert_array_equal(np.asarray(telescopes[theirs]), want, err_msg=theirs)

    wanted = store.read("dl2/event/gammaness")[kept]
    with EventSource(reconstructed.file, max_events=30) as source:
        n_images = 0
        for event in source:
            stereo = event.dl2.stereo
            assert set(stereo.geometry) == {dl2.ALGORITHM, dl2.MERGED, dl2.DISP}
            score = stereo.classification[dl2.CLASSIFIER].prediction
            np.testing.assert_array_equal(score, wanted[event.count])
            for tel_id, tel in event.dl2.tel.items():
                mine = (images["event_id"] == event.index.event_id) & (images["tel_id"] == tel_id)
                energy = tel.energy[dl2.ENERGY].energy.to_value("TeV")
                np.testing.assert_array_equal(energy, images["tel_energy"][mine][0])
                score = tel.classification[dl2.CLASSIFIER].prediction
                np.testing.assert_array_equal(score, images["tel_gammaness"][mine][0])
                disp = abs(tel.disp[dl2.DISP].parameter.to_value("deg"))
                np.testing.assert_array_equal(disp, images["tel_disp"][mine][0])
                n_images += 1
        assert n_images > 50


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_ctapipe_merges_the_results(peers, reconstructed, exported, tmp_path, monkeypatch):
    """Files that have the same kinds of results; another obs_id stands for another run."""
    del peers
    from ctapipe.core import run_tool
    from ctapipe.tools.merge import MergeTool

    monkeypatch.chdir(tmp_path)
    import shutil

    second = tmp_path / "second.h5"
    shutil.copyfile(reconstructed.file, second)
    with tables.open_file(str(second), "a") as changed:
        for table in changed.walk_nodes("/", "Table"):
            if "obs_id" in table.colnames:
                table.modify_column(colname="obs_id", column=table.col("obs_id") + 1)
    merged = tmp_path / "merged.h5"
    arguments = [str(reconstructed.file), str(second), f"--output={merged}", "--quiet"]
    assert run_tool(MergeTool(), arguments, cwd=tmp_path, raises=True) == 0
    with tables.open_file(str(merged)) as found, tables.open_file(reconstructed.file) as one:
        for table in dl2.OF_EVENTS:
            rows, part = found.get_node(table.path)[:], one.get_node(table.path)[:]
            assert len(rows) == 2 * len(part)
            name = next(field.column for field in table.columns if field.ours == table.key)
            np.testing.assert_array_equal(rows[name], np.concatenate([part[name]] * 2))


def test_stores_without_some_results_leave_their_tables_out(reconstructed, tmp_path):
    import shutil

    copy = tmp_path / "part.zarr"
    shutil.copytree(reconstructed.dl2, copy)
    for name in ("disp_alt", "disp_az", "mean_energy"):
        shutil.rmtree(copy / "dl2" / "event" / name)
    shutil.rmtree(copy / "dl2" / "image" / CAMERA / "tel_is_valid")
    export_store(copy, tmp_path / "part.h5", images=False)
    with tables.open_file(tmp_path / "part.h5") as found:
        assert "/dl2/event/subarray/geometry/disp" not in found
        assert "/dl2/event/subarray/energy/ImageMean" not in found
        assert "/dl2/event/subarray/classification/ImageMean" in found
        energies = found.get_node("/dl2/event/subarray/energy/RandomForestRegressor")[:]
    # Nobody knows which images took part.
    assert not energies["RandomForestRegressor_telescopes"].any()
    assert energies["RandomForestRegressor_is_valid"].any()
