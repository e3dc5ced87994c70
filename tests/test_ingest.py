"""Ingest of real sim_telarray files, judged against ctapipe's own reader where it is installed."""

import os
import warnings

import numpy as np
import pytest

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.io.simtel import IngestOptions, ingest_file
from astri_gpu.store import open_store
from astri_gpu.store_layout import read_layout

CALIBRATION = "calib_events.simtel.gz"
MUONS = "gct_checs_muons.simtel.zst"
TWO_CAMERAS = "history_meta_75.simtel.zst"
SINGLE = "prod4_pixelsettings_v3.gz"
TRUNCATED = "test_lasercal_v3.simtel.gz"
FILES = {CALIBRATION: (1, 7), MUONS: (20, 20), TWO_CAMERAS: (1, 15), SINGLE: (10, 10)}
FILES[TRUNCATED] = (3, 10)


@pytest.fixture(scope="module", params=list(FILES))
def ingested(request, simtel, tmp_path_factory):
    """Return (input file, its store, the summary) for each real file."""
    path = simtel(request.param)
    output = tmp_path_factory.mktemp("store") / "run.zarr"
    summary = ingest_file(path, output, IngestOptions(on_error="keep"))
    return path, open_store(output), summary


def test_counts(ingested):
    path, store, summary = ingested
    assert (summary.n_events, summary.n_images) == FILES[path.name]
    assert (store.attrs["n_events"], store.attrs["n_images"]) == FILES[path.name]
    assert summary.truncated is store.attrs["truncated"] is (path.name == TRUNCATED)
    assert bool(summary.warnings) is (path.name == TRUNCATED)
    assert store.n_rows("dl0/event") == store.n_rows("simulation/event") == summary.n_events
    n_images = [store.n_rows(f"dl0/image/{camera}") for camera in store.cameras()]
    assert sum(n_images) == summary.n_images


def test_tables_fit_together(ingested):
    _, store, _ = ingested
    tel_id = store.read("instrument/telescope/tel_id")
    tel_mask = store.read("dl0/event/tel_mask")
    for camera in store.cameras():
        image = store.read_table(
            f"dl0/image/{camera}", ["event_index", "tel_id", "calibration_index"]
        )
        truth = store.read_table(f"simulation/image/{camera}", ["event_index", "tel_id"])
        assert (np.diff(image["event_index"]) >= 0).all()
        np.testing.assert_array_equal(image["event_index"], truth["event_index"])
        np.testing.assert_array_equal(image["tel_id"], truth["tel_id"])
        place = np.searchsorted(tel_id, image["tel_id"])
        assert tel_mask[image["event_index"], place].all()
        constants_of = store.read(f"monitoring/camera/{camera}/tel_id")
        np.testing.assert_array_equal(constants_of[image["calibration_index"]], image["tel_id"])


def test_root_attributes(ingested):
    path, store, _ = ingested
    kinds = {CALIBRATION: "calibration", MUONS: "muon"}
    assert store.attrs["data_level"] == "DL0"
    assert store.attrs["source"] == path.name
    assert store.attrs["kind"] == kinds.get(path.name, "gamma")
    made = store.attrs["provenance"]
    assert made["stage"] == "ingest"
    assert made["inputs"][0]["checksum"].startswith("sha256:")
    assert made["started"] <= made["stopped"]
    assert made["config"]["on_error"] == "keep"


def test_thrown_showers(ingested):
    path, store, _ = ingested
    header = store.group_attrs("simulation")
    assert header["partial"] is (path.name == TRUNCATED)
    if path.name == TRUNCATED:
        assert "simulation/thrown" not in store
        return
    thrown = store.read_table("simulation/thrown")
    shape = (len(thrown["core_distance_edges"]) - 1, len(thrown["energy_edges"]) - 1)
    assert thrown["histogram"].shape == shape
    n_entries = store.group_attrs("simulation/thrown")["n_entries"]
    # The histogram counts every use of a shower; energies below its range (1e-12 TeV) are outside.
    assert n_entries == header["n_showers"] * header["shower_reuse"]
    if path.name == MUONS:
        assert thrown["histogram"].sum() == n_entries
        row, column = np.nonzero(thrown["histogram"])
        assert thrown["core_distance_edges"][row].max() < 100
        assert (thrown["energy_edges"][column] <= 0.1).all()
        assert (thrown["energy_edges"][column + 1] >= 0.1).all()


def test_layout_round_trip(ingested):
    path, store, _ = ingested
    layout = read_layout(store)
    assert layout.n_telescopes >= 1
    if path.name == CALIBRATION:
        assert [camera.name for camera in layout.cameras] == [
            "LSTCam",
            "NectarCam",
            "FlashCam",
            "ASTRICam",
            "CHEC",
            "DigiCam",
            "SCTCam",
        ]
        astri = layout.cameras[3]
        assert astri.geometry.n_pixels == 2368
        assert astri.readout.n_samples == 1
        assert astri.optics.n_mirrors == 2
        assert astri.optics.effective_focal_length_m is None
        assert len(np.unique(astri.geometry.module)) == 37
    for camera in layout.cameras:
        counts = (camera.geometry.neighbours >= 0).sum(axis=1)
        assert counts.max() == (4 if camera.geometry.shape == "square" else 6)


def test_saturation_level_is_the_largest_count(simtel, tmp_path):
    ingest_file(simtel(TWO_CAMERAS), tmp_path / "a.zarr")
    store = open_store(tmp_path / "a.zarr")
    levels = {camera.name: camera.readout.saturation_adc for camera in read_layout(store).cameras}
    assert levels == {"LSTCam": 4249, "NectarCam": 4095}
    for name, level in levels.items():  # both have saturated pixels in this bright event
        assert store.read(f"dl0/image/{name}/waveform")[:, 0].max() == level


def test_single_sample_cameras_have_adc(simtel, tmp_path):
    ingest_file(simtel(CALIBRATION), tmp_path / "a.zarr", IngestOptions(allowed_telescopes=(4,)))
    store = open_store(tmp_path / "a.zarr")
    assert store.cameras() == ["ASTRICam"]
    adc = store.array("dl0/image/ASTRICam/adc")
    assert adc.shape == (1, 2, 2368)
    assert adc.dtype == np.uint16
    np.testing.assert_array_equal(store.read("instrument/telescope/tel_id"), [4])
    assert store.read("dl0/event/tel_mask").tolist() == [[True]]


def read_with_ctapipe(path):
    from ctapipe.io import SimTelEventSource

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a truncated file, and ctapipe's own dependencies
        with SimTelEventSource(
            path, focal_length_choice="EQUIVALENT", skip_calibration_events=False, select_gain=False
        ) as source:
            events = list(source)  # containers are made afresh for every event
            return source.subarray, source.simulation_config, events


@pytest.fixture(scope="module")
def theirs(ingested):
    pytest.importorskip("ctapipe")
    return read_with_ctapipe(ingested[0])


@pytest.mark.peers
def test_instrument_equals_ctapipe(ingested, theirs):
    _, store, _ = ingested
    subarray = theirs[0]
    layout = read_layout(store)
    np.testing.assert_array_equal(layout.tel_id, subarray.tel_ids)
    for index, (number, telescope) in enumerate(subarray.tel.items()):
        x, y, z = subarray.positions[number].to_value("m")
        assert (layout.x[index], layout.y[index], layout.z[index]) == (x, y, z)
        ours, camera = layout.camera(number), telescope.camera
        assert ours.name == camera.name
        assert ours.geometry.shape == camera.geometry.pix_type.value
        assert ours.optics.n_mirrors == telescope.optics.n_mirrors
        assert ours.optics.name == telescope.optics.name
        focal_length = telescope.optics.equivalent_focal_length.to_value("m")
        assert ours.optics.focal_length_m == focal_length
        effective = telescope.optics.effective_focal_length.to_value("m")
        found = ours.optics.effective_focal_length_m
        assert found == effective or (found is None and np.isnan(effective))
        np.testing.assert_allclose(
            ours.geometry.pix_x, camera.geometry.pix_x.to_value("m"), rtol=0, atol=1e-12
        )
        np.testing.assert_allclose(
            ours.geometry.pix_y, camera.geometry.pix_y.to_value("m"), rtol=0, atol=1e-12
        )
        np.testing.assert_array_equal(ours.geometry.pix_area, camera.geometry.pix_area.value)
        np.testing.assert_array_equal(
            ours.readout.reference_pulse, camera.readout.reference_pulse_shape
        )
        assert ours.readout.sampling_rate_ghz == camera.readout.sampling_rate.to_value("GHz")
        assert ours.readout.n_samples == camera.readout.n_samples
        for diagonal in (False, True):
            table = ours.geometry.neighbours_diagonal if diagonal else ours.geometry.neighbours
            row, column = camera.geometry.calc_pixel_neighbors(diagonal).nonzero()
            pixel, place = np.nonzero(table >= 0)
            assert set(zip(pixel, table[pixel, place], strict=True)) == set(
                zip(row, column, strict=True)
            )


@pytest.mark.peers
def test_events_equal_ctapipe(ingested, theirs):
    _, store, _ = ingested
    event = store.read_table("dl0/event")
    tel_id = store.read("instrument/telescope/tel_id")
    assert len(event["event_id"]) == len(theirs[2])
    for index, other in enumerate(theirs[2]):
        assert event["event_id"][index] == other.index.event_id
        assert event["obs_id"][index] == other.index.obs_id
        assert event["event_type"][index] == other.trigger.event_type.value
        np.testing.assert_array_equal(
            tel_id[event["tel_mask"][index]], other.trigger.tels_with_trigger
        )
        unix = event["time_s"][index] + 1e-9 * event["time_ns"][index]
        assert unix == pytest.approx(other.trigger.time.unix, abs=1e-6)
        pointing = other.monitoring.pointing
        assert event["array_alt"][index] == pytest.approx(pointing.array_altitude.to_value("deg"))
        assert event["array_az"][index] == pytest.approx(pointing.array_azimuth.to_value("deg"))


@pytest.mark.peers
def test_truth_equals_ctapipe(ingested, theirs):
    path, store, _ = ingested
    truth = store.read_table("simulation/event")
    units = {"energy": "TeV", "alt": "deg", "az": "deg", "core_x": "m", "core_y": "m"}
    units |= {"h_first_int": "m", "x_max": "g cm-2", "starting_grammage": "g cm-2"}
    for index, other in enumerate(theirs[2]):
        shower = other.simulation.shower
        if shower is None:
            assert truth["true_primary_id"][index] == truth["shower_id"][index] == -1
            assert np.isnan(truth["true_energy"][index])
            continue
        assert truth["true_primary_id"][index] == shower.shower_primary_id
        for name, unit in units.items():
            expected = shower[name].to_value(unit)
            assert truth[f"true_{name}"][index] == pytest.approx(expected, rel=1e-7, nan_ok=True)
    header = store.group_attrs("simulation")
    config = next(iter(theirs[1].values()))
    for name in ("energy_range_min", "spectral_index", "n_showers", "shower_reuse", "run_number"):
        assert header[name] == pytest.approx(getattr(config[name], "value", config[name]))
    for name in ("min_alt", "max_az", "max_viewcone_radius", "prod_site_B_inclination"):
        assert header[name] == pytest.approx(config[name].to_value("deg"), abs=1e-12)
    assert set(config.keys()) <= header.keys(), path


@pytest.mark.peers
def test_images_equal_ctapipe(ingested, theirs):
    _, store, summary = ingested
    n_compared = 0
    for camera in store.cameras():
        image = store.read_table(f"dl0/image/{camera}")
        truth = store.read_table(f"simulation/image/{camera}")
        constants = store.read_table(f"monitoring/camera/{camera}")
        for row, (index, number) in enumerate(
            zip(image["event_index"], image["tel_id"], strict=True)
        ):
            other, number = theirs[2][index], int(number)
            counts = image["waveform"][row] if "waveform" in image else image["adc"][row][..., None]
            np.testing.assert_array_equal(counts, other.r0.tel[number].waveform)
            place = image["calibration_index"][row]
            pedestal = constants["pedestal"][place][..., None]
            charge = (counts - pedestal) * constants["dc_to_pe"][place][..., None]
            np.testing.assert_allclose(charge, other.r1.tel[number].waveform, rtol=1e-6, atol=1e-6)
            theirs_now = other.monitoring.tel[number]
            coefficients = theirs_now.camera.coefficients
            np.testing.assert_array_equal(constants["time_shift"][place], coefficients.time_shift)
            np.testing.assert_array_equal(
                ~constants["pixel_valid"][place], coefficients.outlier_mask
            )
            pointing = theirs_now.pointing
            assert image["pointing_alt"][row] == pytest.approx(pointing.altitude.to_value("deg"))
            assert image["pointing_az"][row] == pytest.approx(pointing.azimuth.to_value("deg"))
            trigger = other.trigger.tel[number]
            delay = (trigger.time - other.trigger.time).to_value("ns")
            assert image["trigger_time_ns"][row] == pytest.approx(delay, abs=0.01)
            assert image["n_trigger_pixels"][row] == trigger.n_trigger_pixels
            fired = [] if trigger.trigger_pixels is None else trigger.trigger_pixels
            np.testing.assert_array_equal(
                np.nonzero(image["trigger_pixel"][row])[0], np.sort(fired)
            )
            simulated = other.simulation.tel[number]
            expected = simulated.true_image_sum
            assert truth["true_image_sum"][row] == (-1 if np.isnan(expected) else expected)
            if simulated.true_image is not None:
                np.testing.assert_array_equal(truth["true_image"][row], simulated.true_image)
            np.testing.assert_allclose(
                truth["true_impact_distance"][row],
                simulated.impact.distance.to_value("m"),
                rtol=1e-6,
                atol=1e-5,
            )
            n_compared += 1
    assert n_compared == summary.n_images == sum(len(other.r0.tel) for other in theirs[2])


def test_pedestal_noise_is_per_sample(simtel, tmp_path):
    from eventio import SimTelFile

    ingest_file(simtel(MUONS), tmp_path / "a.zarr")
    with SimTelFile(simtel(MUONS)) as file:
        monitoring = next(iter(file))["camera_monitorings"][1]
    found = open_store(tmp_path / "a.zarr").read("monitoring/camera/CHEC/pedestal_std")
    expected = monitoring["noise"] / np.sqrt(monitoring["n_ped_slices"])
    assert found.shape == (1, *expected.shape)  # one row: the constants never change
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_options(simtel, tmp_path):
    options = IngestOptions(max_events=3, true_images=False, obs_id=12, images_per_chunk=2)
    summary = ingest_file(simtel(MUONS), tmp_path / "a.zarr", options)
    store = open_store(tmp_path / "a.zarr")
    assert summary.n_events == 3
    assert set(store.read("dl0/event/obs_id")) == {12}
    assert store.attrs["obs_id"] == 12
    assert store.group_attrs("simulation")["partial"] is True
    assert "true_image" not in store.columns("simulation/image/CHEC")
    assert store.array("dl0/image/CHEC/waveform").chunks[0] == 2
    with pytest.raises(UsageError, match=r"asks for \[5\], but .* has the telescopes \[1\]"):
        ingest_file(simtel(MUONS), tmp_path / "b.zarr", IngestOptions(allowed_telescopes=(1, 5)))
    with pytest.raises(AstriError, match="holds no triggered event"):
        ingest_file(
            simtel(CALIBRATION), tmp_path / "b.zarr", IngestOptions(calibration_events=False)
        )
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_progress_counts_images(simtel, tmp_path):
    class Shown:
        n = 0

        def advance(self, n=1):
            self.n += n

    shown = Shown()
    ingest_file(simtel(TWO_CAMERAS), tmp_path / "a.zarr", progress=shown)
    assert shown.n == 15


def test_xarray_opens_it(ingested):
    xarray = pytest.importorskip("xarray")
    _, store, summary = ingested
    with xarray.open_datatree(store.path, engine="zarr") as tree:
        assert tree["dl0/event"].sizes["event"] == summary.n_events
        camera = store.cameras()[0]
        assert tree[f"dl0/image/{camera}"]["pointing_alt"].attrs["units"] == "deg"
