"""Exported files: every number of the store, whole or not at all, and nothing else needed."""

import functools
import json
import shutil
import warnings

import numpy as np
import pytest
from astropy.time import Time

from astri_gpu.config import compose
from astri_gpu.errors import AstriError
from astri_gpu.io import ctapipe_export_events, ctapipe_export_images
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io import ctapipe_model_dl2 as dl2
from astri_gpu.io import ctapipe_model_run as model_run
from astri_gpu.io.ctapipe_export import export_store
from astri_gpu.io.ctapipe_time import from_high_res, to_high_res
from astri_gpu.schema import TABLES
from astri_gpu.store import open_store
from astri_gpu.store_layout import read_layout

tables = pytest.importorskip("tables")

GEOMETRY = f"{dl2.DL2_GEOMETRY}/{dl2.ALGORITHM}"
IMPACT = f"{dl2.DL2_IMPACT}/{dl2.ALGORITHM}"
TRIGGER_EDGES = [-1, 0, 1, 2, 10**9]  # of telescopes in an event


@pytest.fixture(scope="module")
def file(exported):
    """Return the exported gammas (with calibration events in the store), opened."""
    with tables.open_file(exported["gamma"].file) as opened:
        yield opened


@pytest.fixture(scope="module")
def store(exported):
    return open_store(exported["gamma"].dl2)


@pytest.fixture(scope="module")
def kept(store):
    """Which events have a place in the file."""
    return store.read("dl0/event/event_id") >= 0


def rows_of(store, file, group):
    """Yield (rows of dl0/image, the table) for each telescope."""
    event_id = store.read("dl0/event/event_id")
    for camera in store.cameras():
        path = f"dl0/image/{camera}"
        kept = event_id[store.read(f"{path}/event_index")] >= 0
        tel_id = store.read(f"{path}/tel_id")
        for tel in np.unique(tel_id[kept]):
            rows = np.nonzero(kept & (tel_id == tel))[0]
            yield camera, rows, file.get_node(model.telescope_table(group, int(tel)))[:]


@functools.cache
def read_once(path, table):
    """Return all columns of a table of a store."""
    return open_store(path).read_table(table)


def check_columns(fields, table, store, path, rows):
    """Compare every column that our store has; return how many there were."""
    n_compared = 0
    for field in fields:
        if field.ours not in read_once(store.path, path):
            continue
        want = read_once(store.path, path)[field.ours][rows]
        np.testing.assert_array_equal(table[field.column], want, err_msg=field.column)
        assert len(want)
        n_compared += 1
    return n_compared


def test_events_are_those_of_the_store_without_calibration(store, file, kept):
    assert 0 < kept.sum() < len(kept)
    trigger = file.get_node(model.TRIGGER)[:]
    for name in ("obs_id", "event_id", "event_type"):
        np.testing.assert_array_equal(trigger[name], store.read(f"dl0/event/{name}")[kept])
    np.testing.assert_array_equal(
        trigger["tels_with_trigger"], store.read("dl0/event/tel_mask")[kept]
    )
    shower = file.get_node(model.SIMULATION_SHOWER)[:]
    assert check_columns(model.SHOWER_COLUMNS, shower, store, "simulation/event", kept) == 11
    geometry = file.get_node(GEOMETRY)[:]
    assert check_columns(dl2.GEOMETRY_COLUMNS, geometry, store, "dl2/event", kept) == 13
    assert geometry[f"{dl2.ALGORITHM}_is_valid"].sum() > 0


def test_times_are_tai(store, file, kept):
    got = file.get_node(model.TRIGGER).col("time")
    time_s, time_ns = (store.read(f"dl0/event/{name}")[kept] for name in ("time_s", "time_ns"))
    want = Time(time_s, time_ns * 1e-9, format="unix").unix_tai
    np.testing.assert_allclose(got[:, 0] + got[:, 1] * 0.25e-9, want, rtol=0, atol=1e-6)
    assert (got[:, 1] == 4 * time_ns).all()


def test_telescope_triggers_go_event_by_event(store, file, kept):
    trigger = file.get_node(model.TRIGGER)[:]
    telescopes = file.get_node(model.TELESCOPE_TRIGGER)[:]
    event, index = np.nonzero(trigger["tels_with_trigger"])
    tel_id = read_layout(store).tel_id
    np.testing.assert_array_equal(telescopes["event_id"], trigger["event_id"][event])
    np.testing.assert_array_equal(telescopes["tel_id"], tel_id[index])
    np.testing.assert_array_equal(telescopes["event_type"], trigger["event_type"][event])
    for camera, rows, _ in rows_of(store, file, model.DL1_PARAMETERS):
        tel = store.read(f"dl0/image/{camera}/tel_id")[rows[0]]
        of_tel = telescopes[telescopes["tel_id"] == tel]
        want = store.read(f"dl0/image/{camera}/n_trigger_pixels")[rows]
        np.testing.assert_array_equal(of_tel["n_trigger_pixels"], want)
        delay = store.read(f"dl0/image/{camera}/trigger_time_ns")[rows]
        of_event = trigger[np.isin(trigger["event_id"], of_tel["event_id"])]["time"]
        ours, theirs = of_tel["time"].astype(np.int64), of_event.astype(np.int64)
        got = (ours[:, 0] - theirs[:, 0]) * 1e9 + (ours[:, 1] - theirs[:, 1]) / 4
        np.testing.assert_allclose(got, delay, rtol=0, atol=0.13)


def test_images_and_parameters_are_those_of_the_store(store, file):
    for camera, rows, table in rows_of(store, file, model.DL1_PARAMETERS):
        path = f"dl1/image/{camera}"
        assert check_columns(model.PARAMETER_COLUMNS, table, store, path, rows) >= 41
        assert np.isnan(table["core_psi"]).all()
    for camera, rows, table in rows_of(store, file, model.DL1_IMAGES):
        assert check_columns(model.IMAGE_COLUMNS, table, store, f"dl1/image/{camera}", rows) == 4
        assert table["is_valid"].all()
    for camera, rows, table in rows_of(store, file, IMPACT):
        assert check_columns(dl2.IMPACT_COLUMNS, table, store, f"dl2/image/{camera}", rows) == 2
    for group, fields in (
        (model.SIMULATION_IMAGES, model.TRUE_IMAGE_COLUMNS),
        (model.SIMULATION_IMPACT, model.TRUE_IMPACT_COLUMNS),
    ):
        for camera, rows, table in rows_of(store, file, group):
            assert check_columns(fields, table, store, f"simulation/image/{camera}", rows) >= 2


def test_telescopes_of_the_reconstruction_are_counted_as_in_the_store(store, file, kept):
    geometry = file.get_node(GEOMETRY)[:]
    used = geometry[f"{dl2.ALGORITHM}_telescopes"]
    valid = geometry[f"{dl2.ALGORITHM}_is_valid"]
    want = np.where(valid, store.read("dl2/event/stereo_n_tels")[kept], 0)
    np.testing.assert_array_equal(used.sum(axis=1), want)
    assert not (used & ~file.get_node(model.TRIGGER).col("tels_with_trigger")).any()


def test_run_header_and_thrown_showers(store, file):
    run = file.get_node(model.SIMULATION_RUN)[0]
    attrs = store.group_attrs("simulation")
    for name in ("energy_range_min", "spectral_index", "n_showers", "max_scatter_range"):
        assert run[name] == attrs[name]
    assert np.rad2deg(run["max_alt"]) == pytest.approx(attrs["max_alt"])
    assert np.isnan(run["prod_site_B_inclination"])
    assert run["corsika_version"] == -1
    thrown = file.get_node(model.SHOWER_DISTRIBUTION)[0]
    np.testing.assert_array_equal(thrown["histogram"], store.read("simulation/thrown/histogram").T)
    assert thrown["histogram"].sum() == thrown["n_entries"] == attrs["n_showers"]
    np.testing.assert_array_equal(
        thrown["bins_core_dist"], store.read("simulation/thrown/core_distance_edges")
    )


def test_the_file_says_who_made_it_and_that_the_simulation_is_a_fast_model(store, file):
    attrs = file.root._v_attrs
    assert len([name for name in attrs._v_attrnamesuser if name.startswith("CTA ")]) == 30
    assert attrs["CTA PRODUCT DATA LEVELS"] == "DL1_IMAGES,DL1_PARAMETERS,DL2"
    assert str(attrs[model.VERSION_ATTR]) == "v7.1.0"
    assert store.attrs["simulation_model"] in attrs["CTA PRODUCT DESCRIPTION"]
    record = json.loads(str(attrs["CONTEXT ASTRI_GPU PROVENANCE"]))
    assert record["stage"] == "export"
    assert record["previous"]["stage"] == "process"
    assert record["inputs"][0]["checksum"].startswith("sha256:")


def test_small_blocks_give_the_same_file(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(ctapipe_export_events, "EVENTS_PER_STEP", 40)
    monkeypatch.setattr(ctapipe_export_images, "IMAGES_PER_STEP", 101)
    files = []
    for name, images in (("small.h5", False), ("whole.h5", False)):
        export_store(exported["gamma"].dl2, tmp_path / name, images=images)
        monkeypatch.undo()
        files.append(tmp_path / name)
    with tables.open_file(files[0]) as small, tables.open_file(files[1]) as whole:
        assert model.DL1_IMAGES not in small
        paths = [node._v_pathname for node in whole.walk_nodes("/", "Table")]
        assert paths == [node._v_pathname for node in small.walk_nodes("/", "Table")]
        for path in paths:
            assert small.get_node(path)[:].tobytes() == whole.get_node(path)[:].tobytes(), path


def test_several_cameras(simtel, tmp_path):
    """Each camera has its own pixels; telescopes of an event come together in the triggers."""
    from astri_gpu.stages import ingest, process

    source = simtel("history_meta_75.simtel.zst")
    ingest.run(compose("ingest", [f"input='{source}'", f"output='{tmp_path}/dl0.zarr'"]))
    process.run(
        compose(
            "process",
            [
                f"input='{tmp_path}/dl0.zarr'",
                f"output='{tmp_path}/dl2.zarr'",
                "backend=numpy",
                "images=true",
            ],
        )
    )
    store = open_store(tmp_path / "dl2.zarr")
    summary = export_store(store.path, tmp_path / "a.h5")
    assert summary.n_images == 15
    with tables.open_file(tmp_path / "a.h5") as file:
        tel_id = file.get_node(model.TELESCOPE_TRIGGER).col("tel_id")
        assert (np.diff(tel_id.astype(int)) > 0).all()
        layout = read_layout(store)
        seen = layout.tel_id[file.get_node(model.TRIGGER).col("tels_with_trigger")[0]]
        np.testing.assert_array_equal(seen, tel_id)
        for camera, rows, table in rows_of(store, file, model.DL1_IMAGES):
            assert check_columns(model.IMAGE_COLUMNS, table, store, f"dl1/image/{camera}", rows)


def edited(store, folder, **columns):
    """Return a copy of a store in which some columns of dl0 were changed by functions."""
    import zarr

    shutil.copytree(store, folder)
    root = zarr.open_group(folder, mode="r+", use_consolidated=False)
    for name, change in columns.items():
        table = "dl0/event" if name in ("obs_id", "tel_mask") else "dl0/image/ASTRICam"
        root[f"{table}/{name}"][...] = change(root[f"{table}/{name}"][...])
    return folder


def test_what_the_file_cannot_say_is_said(exported, tmp_path):
    """Telescopes that move, triggers without image, and no histogram of thrown showers."""
    copy = edited(
        exported["bare"].dl2,
        tmp_path / "edited.zarr",
        pointing_alt=lambda alt: alt + np.linspace(0, 0.02, len(alt)),
        tel_mask=lambda mask: np.ones_like(mask),
    )
    shutil.rmtree(copy / "simulation" / "thrown")
    notes = " ".join(export_store(copy, tmp_path / "a.h5").warnings)
    n_images = open_store(copy).n_rows("dl0/image/ASTRICam")
    assert "telescopes moved by up to 0.0" in notes
    assert f"{9 * 10 - n_images} telescope triggers have no image" in notes
    with tables.open_file(tmp_path / "a.h5") as file:
        thrown = file.get_node(model.SHOWER_DISTRIBUTION)[0]
        assert thrown["n_entries"] == thrown["histogram"].sum() == 10
        assert thrown["bins_core_dist"].tolist() == [0, 300]
        assert file.get_node(model.TRIGGER).col("tels_with_trigger").sum() == n_images


def test_several_runs_in_one_store(exported, tmp_path):
    copy = edited(
        exported["bare"].dl2,
        tmp_path / "edited.zarr",
        obs_id=lambda obs: np.arange(len(obs)) % 2 + 5,
    )
    export_store(copy, tmp_path / "a.h5")
    with tables.open_file(tmp_path / "a.h5") as file:
        for path in (model.SIMULATION_RUN, model.OBSERVATION_BLOCK, model.SHOWER_DISTRIBUTION):
            assert file.get_node(path).col("obs_id").tolist() == [5, 6]
        assert file.get_node(model.SHOWER_DISTRIBUTION).col("n_entries").tolist() == [10, 0]
        trigger = file.get_node(model.TELESCOPE_TRIGGER)[:]
        for tel_id in np.unique(trigger["tel_id"]):
            table = file.get_node(model.telescope_table(model.DL1_PARAMETERS, int(tel_id)))[:]
            of_tel = trigger[trigger["tel_id"] == tel_id]
            np.testing.assert_array_equal(table["obs_id"], of_tel["obs_id"])
            pointing = file.get_node(model.telescope_table(model.POINTING, int(tel_id)))
            assert set(pointing.col("obs_id")) == set(of_tel["obs_id"])


@pytest.mark.parametrize(
    "utc", ["1970-01-01", "1985-06-30", "2016-12-31", "2017-01-01", "2040-05-05"]
)
def test_times_there_and_back(utc):
    """Against astropy, on days around leap seconds; and the nanosecond survives."""
    day = int(np.datetime64(utc, "s").astype(np.int64))
    time_s = np.array([day, day + 1, day + 86398, day + 86399], dtype=np.int64)
    time_ns = np.array([0, 1, 999_999_999, 123_456_789])
    high = to_high_res(time_s, time_ns)
    text = [f"{np.datetime64(int(s), 's')}.{ns:09}" for s, ns in zip(time_s, time_ns, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ERFA: nobody knows the leap seconds of the future
        want = Time(text, scale="utc").unix_tai
    # Before 1972 UTC and TAI drift apart, which our table does in steps of a day.
    tolerance = 5e-7 if day else 3e-3
    np.testing.assert_allclose(high[:, 0] + high[:, 1] * 0.25e-9, want, rtol=0, atol=tolerance)
    seconds, ns = from_high_res(high)
    np.testing.assert_array_equal(seconds, time_s)
    np.testing.assert_array_equal(ns, time_ns)


def test_times_outside_the_format():
    with pytest.raises(AstriError, match="broken time stamps"):
        to_high_res([-86400], [0])
    with pytest.raises(AstriError, match="broken time stamps"):
        to_high_res([2**32], [0])


def test_every_column_of_ours_in_the_model_is_in_the_schema():
    known = {name for table in TABLES.values() for name in table}
    for fields in (
        model.TRIGGER_COLUMNS,
        model.TELESCOPE_TRIGGER_COLUMNS,
        model.SHOWER_COLUMNS,
        model.TRUE_IMPACT_COLUMNS,
        model.TRUE_IMAGE_COLUMNS,
        model.IMAGE_COLUMNS,
        model.PARAMETER_COLUMNS,
        *(table.columns for table in (*dl2.OF_EVENTS, *dl2.OF_TELESCOPES)),
        model_run.POINTING_COLUMNS,
        model_run.OBSERVATION_COLUMNS,
        model_run.DISTRIBUTION_COLUMNS,
    ):
        assert {field.ours for field in fields if field.ours} <= known
