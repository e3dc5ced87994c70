"""Every column of an ingested file is the one that ctapipe's own reader gives."""

import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.errors import UsageError
from astri_gpu.io import ctapipe_import_events, ctapipe_import_rows
from astri_gpu.kernels.image_types import COLUMNS, COUNT_COLUMNS
from astri_gpu.stages import process
from astri_gpu.store import Store, open_store

pytest.importorskip("tables", reason="PyTables (the extra `exchange`) is not installed")

STEREO = "test_lasercal_v3.simtel.gz"  # 4 telescopes, 3 events; the file is truncated
ARRAY = "history_meta_75.simtel.zst"  # 19 telescopes with two cameras
MUONS = "gct_checs_muons.simtel.zst"  # 1 telescope, 20 events
FILES = (STEREO, ARRAY, MUONS)


def reading(path):
    """Return ctapipe's own reader of a file."""
    from ctapipe.io import TableLoader

    return TableLoader(path, focal_length_choice="EQUIVALENT")


def ours_of(store: Store, table: str, camera: str | None = None):
    """Return all columns of a table by name."""
    return store.read_table(table if camera is None else f"{table}/{camera}")


def assert_column(found, expected, unit="", name=""):
    values = expected.quantity.to_value(unit) if expected.unit is not None else expected.data
    values = np.ma.filled(values, np.nan) if np.ma.isMaskedArray(values) else np.asarray(values)
    exact = found.dtype.kind in "iub" or found.dtype == values.dtype
    if exact and unit in ("", str(expected.unit)):
        np.testing.assert_array_equal(found, values, err_msg=name)
    else:
        np.testing.assert_allclose(found, values, rtol=3e-7, atol=1e-12, err_msg=name)


GEOMETRY_COLUMNS = {
    "alt": "deg",
    "az": "deg",
    "core_x": "m",
    "core_y": "m",
    "core_tilted_x": "m",
    "core_tilted_y": "m",
    "h_max": "m",
    "average_intensity": "",
    "is_valid": "",
}
SHOWER_COLUMNS = {
    "true_energy": "TeV",
    "true_alt": "deg",
    "true_az": "deg",
    "true_core_x": "m",
    "true_core_y": "m",
    "true_h_first_int": "m",
    "true_x_max": "g / cm2",
    "true_starting_grammage": "g / cm2",
}


@pytest.mark.peers
@pytest.mark.parametrize("name", FILES)
def test_events_are_those_of_the_table_loader(name, made, stored):
    from astropy.time import Time

    path = made(name)
    store = stored(path)
    assert store.attrs["data_level"] == "DL2a"
    with reading(path) as loader:
        want = loader.read_subarray_events()
        subarray = loader.subarray
    events, showers = ours_of(store, "dl0/event"), ours_of(store, "simulation/event")
    stereo = ours_of(store, "dl2/event")
    for column in ("obs_id", "event_id", "event_type"):
        assert_column(events[column], want[column], name=column)
    np.testing.assert_array_equal(events["tel_mask"], want["tels_with_trigger"])
    found = Time(events["time_s"], 1e-9 * events["time_ns"], format="unix")
    assert np.abs((found - want["time"]).to_value("ns")).max() < 1
    for column, unit in SHOWER_COLUMNS.items():
        assert_column(showers[column], want[column], unit, column)
    assert_column(showers["true_primary_id"], want["true_shower_primary_id"])
    for column, unit in GEOMETRY_COLUMNS.items():
        theirs = want[f"HillasReconstructor_{column}"]
        assert_column(stereo[f"stereo_{column}"], theirs, unit, column)
    assert_column(
        stereo["stereo_ang_distance_uncert"], want["HillasReconstructor_alt_uncert"], "deg"
    )
    used = want["HillasReconstructor_telescopes"].sum(axis=1)
    np.testing.assert_array_equal(stereo["stereo_n_tels"], used)
    telescopes = ours_of(store, "instrument/telescope")
    np.testing.assert_array_equal(telescopes["tel_id"], subarray.tel_ids)
    position = subarray.tel_coords.cartesian.xyz.to_value("m")
    for axis, values in zip("xyz", position, strict=True):
        np.testing.assert_array_equal(telescopes[axis], values)


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


@pytest.mark.peers
@pytest.mark.parametrize("name", FILES)
def test_images_are_those_of_the_table_loader(name, made, stored):
    from astropy.time import Time

    from astri_gpu.io.ctapipe_model import PARAMETER_COLUMNS

    path = made(name)
    store = stored(path)
    event_id, seconds, ns = (
        store.read(f"dl0/event/{column}") for column in ("event_id", "time_s", "time_ns")
    )
    n_images = 0
    with reading(path) as loader:
        for camera in store.cameras("dl1"):
            rows, dl1 = ours_of(store, "dl0/image", camera), ours_of(store, "dl1/image", camera)
            truth, dl2 = (
                ours_of(store, "simulation/image", camera),
                ours_of(store, "dl2/image", camera),
            )
            for other in (dl1, truth, dl2):
                for key in ("event_index", "tel_id"):
                    np.testing.assert_array_equal(other[key], rows[key])
            at = rows["event_index"]
            assert np.all(np.diff(at) >= 0)
            # Cameras of several kinds have images of several lengths.
            telescopes = sorted(set(rows["tel_id"].tolist()))
            want = loader.read_telescope_events(
                telescopes, dl1_images=True, true_images=True, true_parameters=False
            )
            want = by_key(want, event_id[at], rows["tel_id"])
            n_images += len(want)
            assert_column(dl1["charge"], want["image"], name="charge")
            assert_column(dl1["peak_time"], want["peak_time"], name="peak_time")
            assert_column(dl1["mask"], want["image_mask"], name="mask")
            for field in PARAMETER_COLUMNS[3:]:
                if field.ours is not None:
                    assert_column(dl1[field.ours], want[field.column], field.unit, field.ours)
            assert_column(truth["true_image_sum"], want["true_image_sum"])
            if "true_image" in want.colnames:
                assert_column(truth["true_image"], want["true_image"])
            assert_column(truth["true_impact_distance"], want["true_impact_distance"], "m")
            assert_column(
                dl2["stereo_impact_distance"], want["HillasReconstructor_tel_impact_distance"], "m"
            )
            pointing = (
                ("pointing_alt", "telescope_pointing_altitude"),
                ("pointing_az", "telescope_pointing_azimuth"),
            )
            for mine, theirs in pointing:
                np.testing.assert_allclose(rows[mine], np.rad2deg(want[theirs]), rtol=1e-6)
            triggers = loader.read_telescope_events(
                telescopes, dl1_parameters=False, dl2=False, simulated=False
            )
            triggers = by_key(triggers, event_id[at], rows["tel_id"])
            fraction = 1e-9 * ns[at] + 1e-9 * rows["trigger_time_ns"].astype(np.float64)
            moment = Time(seconds[at], fraction, format="unix")
            assert np.abs((moment - triggers["time_mono"]).to_value("ns")).max() < 1
            assert_column(rows["n_trigger_pixels"], triggers["n_trigger_pixels"])
    assert n_images == store.attrs["n_images"]


@pytest.mark.peers
@pytest.mark.parametrize("name", FILES)
def test_both_roads_from_a_simulation_lead_to_the_same_store(name, made, simtel, stored, tmp_path):
    """ctapipe-process then ingest against ingest of the simulation itself."""
    from astri_gpu.io.simtel import IngestOptions, ingest_file

    through = stored(made(name))
    options = IngestOptions(calibration_events=False, on_error="keep")
    ingest_file(simtel(name), tmp_path / "direct.zarr", options)
    direct = open_store(tmp_path / "direct.zarr")
    for column in ("obs_id", "event_id", "time_s", "event_type", "array_alt", "array_az"):
        found, want = (store.read(f"dl0/event/{column}") for store in (through, direct))
        np.testing.assert_allclose(found, want, rtol=1e-6, err_msg=column)
    for camera in direct.cameras():
        for column in ("event_index", "tel_id", "pointing_alt", "pointing_az"):
            found, want = (
                store.read(f"dl0/image/{camera}/{column}") for store in (through, direct)
            )
            np.testing.assert_allclose(found, want, rtol=1e-6, err_msg=column)
        for column in ("pix_x", "pix_y", "pix_area", "neighbours", "neighbours_diagonal"):
            found, want = (
                store.read(f"instrument/camera/{camera}/{column}") for store in (through, direct)
            )
            np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12, err_msg=column)
    found, want = (store.group_attrs("simulation") for store in (through, direct))
    for key in ("energy_range_max", "n_showers", "max_scatter_range", "max_alt", "spectral_index"):
        assert found[key] == pytest.approx(want[key], rel=1e-6), key
    if "simulation/thrown" in direct and "simulation/thrown" in through:
        for column in direct.columns("simulation/thrown"):
            found, want = (store.read(f"simulation/thrown/{column}") for store in (through, direct))
            np.testing.assert_allclose(found, want, rtol=1e-6, err_msg=column)
    assert through.attrs["kind"] == direct.attrs["kind"]


@pytest.mark.peers
def test_a_part_of_a_file(made, stored):
    path = made(STEREO)
    whole, part = stored(path), stored(path, "max_events=2", "obs_id=7")
    camera = whole.cameras("dl1")[0]
    assert part.attrs["n_events"] == 2
    assert part.attrs["obs_id"] == 7
    n_images = part.attrs["n_images"]
    np.testing.assert_array_equal(
        part.read(f"dl1/image/{camera}/charge"), whole.read(f"dl1/image/{camera}/charge")[:n_images]
    )
    assert (part.read("dl0/event/obs_id") == 7).all()
    assert part.group_attrs("simulation")["partial"] is True
    wanted = whole.read("instrument/telescope/tel_id")[[0, 2]].tolist()
    some = stored(path, f"allowed_telescopes={wanted}", "true_images=false")
    assert set(some.read(f"dl0/image/{camera}/tel_id")) <= set(wanted)
    assert some.read("dl0/event/tel_mask").shape == (3, 2)
    assert "true_image" not in some.columns(f"simulation/image/{camera}")
    with pytest.raises(UsageError, match=r"allowed_telescopes asks for \[99\]"):
        stored(path, "allowed_telescopes=[99]")


@pytest.mark.peers
@pytest.mark.parametrize("name", [STEREO, MUONS])
def test_the_size_of_blocks_changes_nothing(name, made, stored, monkeypatch):
    path = made(name)
    whole = stored(path)
    monkeypatch.setattr(ctapipe_import_events, "IMAGES_PER_BLOCK", 3)
    monkeypatch.setattr(ctapipe_import_events, "EVENTS_PER_READ", 2)
    monkeypatch.setattr(ctapipe_import_rows, "NARROW_ROWS", 2)
    parts = stored(path)
    camera = whole.cameras()[0]
    for group in ("dl0/event", "simulation/event", "dl2/event"):
        for column, values in ours_of(whole, group).items():
            np.testing.assert_array_equal(parts.read(f"{group}/{column}"), values)
    for group in ("dl0/image", "dl1/image", "dl2/image", "simulation/image"):
        for column, values in ours_of(whole, group, camera).items():
            found = parts.read(f"{group}/{camera}/{column}")
            np.testing.assert_array_equal(found, values, err_msg=column)


@pytest.mark.peers
@pytest.mark.parametrize("name", FILES)
def test_process_goes_on_from_the_charges_as_ctapipe_did(name, made, stored, tmp_path):
    """Images with times, of one or two cameras: the parameters that the file brings along."""

    source = stored(made(name))
    options = [f"input='{source.path}'", f"output='{tmp_path / 'dl2.zarr'}'", "progress=false"]
    options += ["experiment=ctapipe", "calibration.focal_length=equivalent", "backend=cpu"]
    process.run(compose("process", options))
    found = open_store(tmp_path / "dl2.zarr")
    assert found.attrs["data_level"] == "DL2a"
    assert "stereo_algorithm" not in found.attrs
    for camera in source.cameras():
        left, right = (ours_of(store, "dl1/image", camera) for store in (found, source))
        known = np.isfinite(right["hillas_psi"])
        assert known.any()
        # An axis at 90 deg has no sign, and the skewness turns with it.
        flipped = np.abs(np.abs(right["hillas_psi"]) - 90) < 1e-2
        for column in COLUMNS:
            if column.startswith(("astri_", "timing_")):  # ctapipe's fit starts at random
                continue
            if column in ("hillas_psi", "hillas_skewness"):
                left[column], right[column] = left[column][~flipped], right[column][~flipped]
            if column in COUNT_COLUMNS:
                np.testing.assert_array_equal(left[column], right[column], err_msg=column)
            else:
                np.testing.assert_allclose(
                    left[column], right[column], rtol=1e-3, atol=1e-3, err_msg=column
                )
        timing = np.isfinite(left["timing_slope"])
        np.testing.assert_array_equal(timing, np.isfinite(right["timing_slope"]))
    left, right = (ours_of(store, "dl2/event") for store in (found, source))
    np.testing.assert_array_equal(left["stereo_is_valid"], right["stereo_is_valid"])
    for column in ("stereo_alt", "stereo_core_x", "stereo_core_y"):
        np.testing.assert_allclose(left[column], right[column], rtol=1e-3, err_msg=column)
