"""Parts of files, older and scaled ones, several algorithms: what a file of ctapipe may be."""

import warnings

import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.kernels.image_types import FLAG_NO_SHOWER
from astri_gpu.stages import ingest
from astri_gpu.store import Store, open_store

tables = pytest.importorskip("tables", reason="PyTables (the extra `exchange`) is not installed")

STEREO = "test_lasercal_v3.simtel.gz"  # 4 telescopes, 3 events; the file is truncated
TRIGGER = "/dl1/event/subarray/trigger"
IMAGES = "/dl1/event/telescope/images"
GEOMETRY = "/dl2/event/subarray/geometry"


def set_root(file, name, value):
    """Set an attribute of the file whose name is no Python name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=tables.NaturalNameWarning)
        file.root._v_attrs[name] = value


def ours_of(store: Store, table: str, camera: str | None = None):
    """Return all columns of a table by name."""
    return store.read_table(table if camera is None else f"{table}/{camera}")


def by_key(table, event_id, tel_id):
    """Return the rows of ctapipe's table in our order."""
    places = {
        key: row
        for row, key in enumerate(
            zip(table["event_id"].tolist(), table["tel_id"].tolist(), strict=True)
        )
    }
    assert len(places) == len(table)
    return table[[places[key] for key in zip(event_id.tolist(), tel_id.tolist(), strict=True)]]


def reading(path):
    """Return ctapipe's own reader of a file."""
    from ctapipe.io import TableLoader

    return TableLoader(path, focal_length_choice="EQUIVALENT")


@pytest.mark.peers
def test_scaled_integers(made, stored):
    """Images that ctapipe kept as fixed-point numbers come back as it reads them itself."""
    options = ("--DataWriter.transform_image=True", "--DataWriter.transform_peak_time=True")
    path = made(STEREO, *options)
    with tables.open_file(str(path)) as file:
        assert file.get_node(f"{IMAGES}/tel_001").dtype["image"].base.kind in "iu"
    store = stored(path)
    camera = store.cameras("dl1")[0]
    rows = ours_of(store, "dl1/image", camera)
    with reading(path) as loader:
        want = loader.read_telescope_events(dl1_images=True)
    want = by_key(want, store.read("dl0/event/event_id")[rows["event_index"]], rows["tel_id"])
    np.testing.assert_allclose(rows["charge"], want["image"], rtol=1e-6)
    np.testing.assert_allclose(rows["peak_time"], want["peak_time"], rtol=1e-6)


@pytest.mark.peers
def test_levels_follow_what_is_in_the_file(copied, stored):
    def images_only(file):
        for group in ("/dl2", "/dl1/event/telescope/parameters", "/simulation"):
            file.remove_node(group, recursive=True)
        file.remove_node("/dl1/event/telescope/trigger")
        file.remove_node("/configuration/simulation", recursive=True)

    store = stored(copied(images_only))
    camera = store.cameras("dl1")[0]
    assert store.attrs["data_level"] == "DL1a"
    assert store.attrs["kind"] == "observation"
    assert set(store.columns(f"dl1/image/{camera}")) == {
        *("event_index", "tel_id", "charge", "peak_time", "mask")
    }
    assert "dl2" not in store
    assert "simulation" not in store
    assert np.isnan(store.read(f"dl0/image/{camera}/trigger_time_ns")).all()

    def parameters_only(file):
        file.remove_node("/dl2", recursive=True)
        file.remove_node(IMAGES, recursive=True)

    store = stored(copied(parameters_only))
    assert store.attrs["data_level"] == "DL1b"
    assert "charge" not in store.columns(f"dl1/image/{camera}")
    assert np.isfinite(store.read(f"dl1/image/{camera}/hillas_length")).any()

    def neither(file):
        parameters_only(file)
        file.remove_node("/dl1/event/telescope/parameters", recursive=True)

    with pytest.raises(AstriError, match="neither DL1 images nor image parameters"):
        stored(copied(neither))


def retyped(file, path, column, dtype, values, **attrs):
    """Write a table again with another type of one column."""
    node = file.get_node(path)
    rows, names = node.read(), node.dtype.names
    kept = {name: node._v_attrs[name] for name in node._v_attrs._f_list("user")}
    fields = [(name, dtype if name == column else rows.dtype[name]) for name in names]
    new = np.empty(len(rows), dtype=fields)
    for name in names:
        new[name] = values if name == column else rows[name]
    file.remove_node(path)
    parent, _, name = path.rpartition("/")
    table = file.create_table(parent, name, obj=new)
    position = names.index(column)
    for key, value in kept.items():
        table._v_attrs[key] = value
    for key, value in attrs.items():
        table._v_attrs[f"CTAFIELD_{position}_{key}"] = value


@pytest.mark.peers
def test_times_and_pointing_of_older_files(made, copied, stored):
    """Modified Julian dates, and the pointing as a table over time (before v7.0.0)."""
    from astropy.time import Time

    new = stored(made(STEREO))

    def older(file):
        rows = file.get_node(TRIGGER).read()
        moments = Time(rows["time"][:, 0], 0.25e-9 * rows["time"][:, 1], format="unix_tai")
        mjd = moments.tai.mjd
        for path in (TRIGGER,):
            retyped(file, path, "time", "f8", mjd, TIME_FORMAT="mjd", TIME_SCALE="tai")
        telescope = "/dl1/event/telescope/trigger"
        rows = file.get_node(telescope).read()
        own = Time(rows["time"][:, 0], 0.25e-9 * rows["time"][:, 1], format="unix_tai").tai.mjd
        retyped(file, telescope, "time", "f8", own, TIME_FORMAT="mjd", TIME_SCALE="tai")
        set_root(file, "CTA PRODUCT DATA MODEL VERSION", "v5.0.0")
        group = file.create_group("/dl1/monitoring/telescope", "pointing", createparents=True)
        for node in file.iter_nodes("/configuration/telescope/pointing"):
            alt, az = node.read()[["telescope_pointing_altitude", "telescope_pointing_azimuth"]][0]
            track = np.zeros(2, dtype=[("time", "f8"), ("azimuth", "f8"), ("altitude", "f8")])
            track["time"] = mjd[0] - 1, mjd[0] + 1
            track["azimuth"] = az - 0.02, az + 0.02  # over the north
            track["altitude"] = alt - 0.01, alt + 0.01
            table = file.create_table(group, node.name, obj=track)
            for position, form in ((1, "rad"), (2, "rad")):
                table._v_attrs[f"CTAFIELD_{position}_UNIT"] = form
            table._v_attrs["CTAFIELD_0_TIME_FORMAT"] = "mjd"
            table._v_attrs["CTAFIELD_0_TIME_SCALE"] = "tai"
        file.remove_node("/configuration/telescope", recursive=True)

    old = stored(copied(older))
    np.testing.assert_array_equal(old.read("dl0/event/time_s"), new.read("dl0/event/time_s"))
    np.testing.assert_allclose(
        old.read("dl0/event/time_ns"), new.read("dl0/event/time_ns"), atol=1000
    )
    camera = new.cameras("dl1")[0]
    for column in ("pointing_alt", "pointing_az"):
        found, want = (store.read(f"dl0/image/{camera}/{column}") for store in (old, new))
        np.testing.assert_allclose(found, want, atol=1e-3, err_msg=column)
        assert np.ptp(found) > 0

    def without(file):
        older(file)
        file.remove_node("/dl1/monitoring", recursive=True)
        node = file.get_node("/configuration/observation/observation_block")
        rows = node.read()
        rows["subarray_pointing_frame"] = 1  # a place on the sky
        node.modify_rows(0, len(rows), rows=rows)
        node.flush()

    with pytest.raises(AstriError, match=r"does not say where telescope . or the array looked"):
        stored(copied(without))


@pytest.mark.peers
def test_several_stereo_algorithms(copied, stored):
    def second(file):
        for group, name in ((GEOMETRY, None), ("/dl2/event/telescope/impact", None)):
            file.copy_node(f"{group}/HillasReconstructor", group, "Other", recursive=True)
            del name
        node = file.get_node(f"{GEOMETRY}/Other")
        rows = node.read()
        names = [name.replace("HillasReconstructor", "Other") for name in rows.dtype.names]
        rows.dtype.names = names
        rows["Other_alt"] += 1
        file.remove_node(f"{GEOMETRY}/Other")
        file.create_table(GEOMETRY, "Other", obj=rows)

    path = copied(second)
    default, other = stored(path), stored(path, "geometry=Other")
    assert default.attrs["stereo_algorithm"] == "HillasReconstructor"
    difference = other.read("dl2/event/stereo_alt") - default.read("dl2/event/stereo_alt")
    np.testing.assert_allclose(difference, 1)
    with pytest.raises(UsageError, match=r"geometry=Third is not in .* it has Hillas.*, Other"):
        stored(path, "geometry=Third")
    with tables.open_file(str(path), "a") as file:
        for group in (GEOMETRY, "/dl2/event/telescope/impact"):
            file.rename_node(f"{group}/HillasReconstructor", "Another")
    with pytest.raises(UsageError, match="choose one with geometry=Another"):
        stored(path)


@pytest.mark.peers
def test_results_called_valid_without_numbers(copied, tmp_path):
    """What ctapipe before 0.24 made of files whose pointing it did not read."""

    def empty(file):
        node = file.get_node(f"{GEOMETRY}/HillasReconstructor")
        rows = node.read()
        rows["HillasReconstructor_alt"][1] = np.nan
        assert rows["HillasReconstructor_is_valid"][1]
        node.modify_rows(0, len(rows), rows=rows)
        node.flush()

    arguments = [f"input='{copied(empty)}'", f"output='{tmp_path / 'o.zarr'}'", "progress=false"]
    summary = ingest.run(compose("ingest", arguments))
    assert any("1 events called valid have no direction" in text for text in summary.warnings)
    valid = open_store(tmp_path / "o.zarr").read("dl2/event/stereo_is_valid")
    assert valid.tolist() == [True, False, True]


@pytest.mark.peers
def test_images_of_calibration_events_can_be_left_out(copied, stored, tmp_path):
    from astri_gpu.io.ctapipe_import import ingest_ctapipe
    from astri_gpu.io.simtel import IngestOptions

    def mixed(file):
        node = file.get_node(TRIGGER)
        rows = node.read()
        rows["event_type"][1] = 0
        node.modify_rows(0, len(rows), rows=rows)
        node.flush()

    path = copied(mixed)
    whole = stored(path)
    ingest_ctapipe(path, tmp_path / "part.zarr", IngestOptions(calibration_events=False))
    part = open_store(tmp_path / "part.zarr")
    camera = whole.cameras()[0]
    event = whole.read(f"dl0/image/{camera}/event_index")
    assert part.read("dl0/event/event_id").tolist() == [100, 104]
    np.testing.assert_array_equal(
        part.read(f"dl1/image/{camera}/charge"),
        whole.read(f"dl1/image/{camera}/charge")[event != 1],
    )
    np.testing.assert_array_equal(
        part.read(f"dl0/image/{camera}/event_index"), event[event != 1] // 2
    )
    flags = whole.read(f"dl1/image/{camera}/image_flags")
    np.testing.assert_array_equal((flags & FLAG_NO_SHOWER) > 0, event == 1)
