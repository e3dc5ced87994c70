"""A simulated store: `process` takes it like any other, and what is in it is true."""

import numpy as np
import pytest

from astri_gpu.config import ProcessConfig
from astri_gpu.config_sections import BackendConfig
from astri_gpu.config_simulation import CalibrationEventsConfig
from astri_gpu.kernels.coordinates import angular_separation
from astri_gpu.schema import TABLES, column, table_key
from astri_gpu.simulation import production
from astri_gpu.simulation.calibration import DARK_PEDESTAL, FLATFIELD, SKY_PEDESTAL
from astri_gpu.stages import process
from astri_gpu.store import open_store
from astri_gpu.store_layout import read_layout
from astri_gpu.store_summary import tables

IMAGES = "dl0/image/ASTRICam"
NOT_WRITTEN = {"waveform", "true_image"}
FLASHES = [15.0, 30.0]  # of `store`


class TestStore:
    def test_columns_are_those_of_ingest(self, store):
        for table in tables(store):
            expected = set(TABLES[table_key(table)]) - NOT_WRITTEN
            assert set(store.columns(table)) - NOT_WRITTEN == expected, table
            for name in store.columns(table):
                array, entry = store.array(f"{table}/{name}"), column(table, name)
                assert array.dtype == np.dtype(entry.dtype)
                assert array.metadata.dimension_names == entry.dims
        assert f"{IMAGES}/adc" in store
        assert "simulation/image/ASTRICam/true_image" in store

    def test_root_attributes(self, store):
        attrs = store.attrs
        assert (attrs["data_level"], attrs["kind"], attrs["source"]) == (
            "DL0",
            "gamma",
            "simulation",
        )
        assert attrs["obs_id"] == 10
        assert attrs["truncated"] is False
        assert attrs["n_events"] == store.n_rows("dl0/event")
        assert attrs["n_images"] == store.n_rows(IMAGES)
        assert "no substitute for CORSIKA" in attrs["simulation_model"]
        assert attrs["provenance"]["stage"] == "simulate"
        assert attrs["provenance"]["backend"] == "cpu"
        assert attrs["config"]["spectrum"]["energy_max_tev"] == 30

    def test_run_header_and_thrown_showers(self, store):
        header = store.group_attrs("simulation")
        assert (header["n_showers"], header["shower_reuse"], header["spectral_index"]) == (
            300, 1, -1.7,
        )  # fmt: skip
        assert (header["energy_range_min"], header["energy_range_max"]) == (1, 30)
        assert (header["max_scatter_range"], header["max_alt"]) == (250, 70)
        assert header["partial"] is False
        thrown = store.read_table("simulation/thrown")
        assert thrown["histogram"].sum() == 300
        assert store.group_attrs("simulation/thrown")["n_entries"] == 300
        energies = thrown["energy_edges"][np.nonzero(thrown["histogram"].sum(axis=0))[0]]
        assert 0.9 < energies.min() < energies.max() < 30
        assert thrown["core_distance_edges"].max() == 250

    def test_tables_fit_together(self, store):
        image = store.read_table(IMAGES, ["event_index", "tel_id", "calibration_index"])
        truth = store.read_table("simulation/image/ASTRICam")
        assert (np.diff(image["event_index"]) >= 0).all()
        for name in ("event_index", "tel_id"):
            np.testing.assert_array_equal(image[name], truth[name])
        tel_id = store.read("instrument/telescope/tel_id")
        place = np.searchsorted(tel_id, image["tel_id"])
        mask = store.read("dl0/event/tel_mask")
        assert mask[image["event_index"], place].all()
        assert mask.sum() == len(place)
        assert mask.any(axis=1).all()
        constants = store.read("monitoring/camera/ASTRICam/tel_id")
        np.testing.assert_array_equal(constants[image["calibration_index"]], image["tel_id"])
        keys = store.read_table("dl0/event", ["obs_id", "event_id"])
        assert len(np.unique(keys["event_id"])) == len(keys["event_id"])
        for name, values in keys.items():
            np.testing.assert_array_equal(values, store.read(f"simulation/event/{name}"))

    def test_times_rise(self, store):
        event = store.read_table("dl0/event", ["time_s", "time_ns", "event_type"])
        time = (event["time_s"] - production.START_S) * 1_000_000_000 + event["time_ns"]
        assert (np.diff(time) > 0).all()
        shower = event["event_type"] == 32
        assert (time[shower] > 0).all()
        assert (time[~shower] < 0).all()
        assert time.max() < 0.3e9  # 300 showers at 1000 Hz

    def test_truth_belongs_to_the_images(self, store):
        event = store.read_table("simulation/event")
        shower = event["shower_id"] >= 0
        assert (store.read("dl0/event/event_type")[shower] == 32).all()
        assert ((event["event_id"] > 0) == shower).all()
        assert np.isnan(event["true_energy"][~shower]).all()
        assert (event["true_primary_id"][shower] == 0).all()
        np.testing.assert_allclose(event["true_alt"][shower], 70, atol=1e-9)
        x_max = event["true_x_max"][shower]
        assert 280 < np.median(x_max) < 480
        # Above it, by the depth of the shower, lies the first interaction.
        assert (event["true_h_first_int"][shower] > 8000).all()
        image = store.read_table("simulation/image/ASTRICam")
        # Photo-electrons of the brightest images have weights, so that pixels are rounded.
        np.testing.assert_allclose(
            image["true_image"].sum(axis=1), image["true_image_sum"], rtol=0.01
        )
        layout = read_layout(store)
        distance = image["true_impact_distance"]
        of_shower = shower[image["event_index"]]
        assert np.isnan(distance[~of_shower]).all()
        assert distance[of_shower].max() < 250 + np.hypot(layout.x, layout.y).max()
        # Light falls with the distance, more than anything else makes it vary.
        near, far = distance < 130, distance > 300
        size = image["true_image_sum"] / event["true_energy"][image["event_index"]]
        assert np.median(size[near & of_shower]) > 3 * np.median(size[far & of_shower])

    def test_triggers(self, store):
        image = store.read_table(IMAGES)
        forced = store.read("dl0/event/event_type")[image["event_index"]] != 32
        assert (image["n_trigger_pixels"][forced] == 0).all()
        assert (image["n_trigger_pixels"][~forced] >= 5).all()
        np.testing.assert_array_equal(image["trigger_pixel"].sum(axis=1), image["n_trigger_pixels"])
        assert (np.abs(image["trigger_time_ns"]) < 3000).all()


@pytest.fixture(scope="module")
def adc(store):
    """Return a function from an event type to the counts (event, tel, gain, pixel)."""
    event = store.read(f"{IMAGES}/event_index")
    kind = store.read("dl0/event/event_type")[event]
    counts = store.read(f"{IMAGES}/adc")
    return lambda number: counts[kind == number].reshape(-1, 9, *counts.shape[1:]).astype(float)


class TestCalibrationEvents:
    def test_every_telescope_is_in_each(self, store):
        kind = store.read("dl0/event/event_type")
        assert kind[:35].tolist() == 20 * [SKY_PEDESTAL] + 10 * [FLATFIELD] + 5 * [DARK_PEDESTAL]
        assert store.read("dl0/event/tel_mask")[:35].all()
        assert store.read("dl0/event/event_id")[:35].tolist() == list(range(-1, -36, -1))

    def test_pedestals_have_the_true_mean_and_width(self, store, adc):
        true = store.read_table("monitoring/camera/ASTRICam")
        found = adc(SKY_PEDESTAL)
        # One pull per telescope, gain and pixel: 42 000 of them.
        pull = (found.mean(axis=0) - true["pedestal"]) / true["pedestal_std"] * np.sqrt(20)
        assert abs(pull.mean()) < 0.03
        assert abs(pull.std() - 1) < 0.03
        ratio = found.std(axis=0, ddof=1) / true["pedestal_std"]
        assert np.sqrt((ratio**2).mean()) == pytest.approx(1, abs=0.03)
        assert adc(DARK_PEDESTAL).mean() < found.mean()

    def test_flashes_have_their_light(self, store, adc):
        true = store.read_table("monitoring/camera/ASTRICam")
        efficiency = store.read("simulation/camera/ASTRICam/true_efficiency")
        baseline = store.read("simulation/camera/ASTRICam/true_baseline")
        # The peak detector finds more than the light, at most about as much as without light.
        bias = ((true["pedestal"] - baseline) * true["dc_to_pe"])[:, 0].mean()
        charge = (adc(FLATFIELD) - baseline) * true["dc_to_pe"]
        for level, light in enumerate(FLASHES):
            assert 0 < charge[level::2, :, 0].mean() - light < bias + 1
        between = (charge[1::2] - charge[::2]).mean(axis=0) / (FLASHES[1] - FLASHES[0])
        per_pixel = np.polyfit(efficiency.ravel(), (between[:, 0] * efficiency).ravel(), 1)
        assert per_pixel[0] == pytest.approx(1, abs=0.1)

    def test_variances_follow_the_night_sky(self, store):
        table = store.read_table("monitoring/variance/ASTRICam")
        assert table["tel_id"].tolist() == 3 * list(range(1, 10))
        assert np.unique(table["time_s"]).size == 3
        variance = table["variance"].reshape(3, 9, -1)
        scatter = variance.std(axis=0, ddof=1).mean() / variance.mean()
        assert scatter == pytest.approx(np.sqrt(2 / 9999) * 0.886, rel=0.05)
        gain = store.read("simulation/camera/ASTRICam/true_gain")[:, 0]
        rate = store.read("simulation/camera/ASTRICam/true_night_sky")
        power = (variance.mean(axis=0) / gain**2).ravel()
        assert np.corrcoef(power, rate.ravel())[0, 1] > 0.9

    def test_parts_have_calibration_events_of_their_own(self, made, store, tmp_path, adc):
        part = made(
            tmp_path / "part.zarr",
            n_showers=1,
            first_shower=100,
            calibration_events=CalibrationEventsConfig(n_pedestal=2),
        )
        assert part.read("dl0/event/event_id")[:2].tolist() == [-101, -102]
        counts = part.read(f"{IMAGES}/adc")[:18].reshape(2, 9, 2, -1)
        assert not np.array_equal(counts[0], adc(SKY_PEDESTAL)[0])


@pytest.fixture(scope="module")
def reconstructed(store, tmp_path_factory):
    output = tmp_path_factory.mktemp("dl2") / "dl2.zarr"
    options = ProcessConfig(
        input=str(store.path),
        output=str(output),
        progress=False,
        backend=BackendConfig(name="cpu"),
    )
    assert process.run(options).n_stereo > 200
    return open_store(output)


class TestProcess:
    def test_directions_and_cores_are_not_biased(self, reconstructed):
        event, truth = (
            reconstructed.read_table(name) for name in ("dl2/event", "simulation/event")
        )
        good = event["stereo_is_valid"] & (event["stereo_n_tels"] >= 4)
        assert good.sum() > 150
        error = 60 * angular_separation(
            *(event[f"stereo_{name}"][good] for name in ("az", "alt")),
            *(truth[f"true_{name}"][good] for name in ("az", "alt")),
        )
        assert np.median(error) < 4
        alt = 60 * (event["stereo_alt"] - truth["true_alt"])[good]
        az = (event["stereo_az"] - truth["true_az"] + 180)[good] % 360 - 180
        az *= 60 * np.cos(np.deg2rad(truth["true_alt"][good]))
        # Five standard errors of a median, for a spread of the median error.
        limit = 5 * 1.25 * np.median(error) / np.sqrt(good.sum())
        assert abs(np.median(alt)) < limit
        assert abs(np.median(az)) < limit
        for name in ("x", "y"):
            off = (event[f"stereo_core_{name}"] - truth[f"true_core_{name}"])[good]
            assert np.median(np.abs(off)) < 15
            assert abs(np.median(off)) < 5 * 1.25 * np.median(np.abs(off)) / np.sqrt(good.sum()) + 1

    def test_heights_of_the_maximum_fit_the_depth(self, reconstructed):
        height = reconstructed.read("dl2/event/stereo_h_max")
        depth = reconstructed.read("simulation/event/true_x_max")
        known = np.isfinite(height) & np.isfinite(depth)
        assert 7000 < np.median(height[known]) < 12_000
        assert np.corrcoef(height[known], depth[known])[0, 1] < -0.5

    def test_charges_are_the_true_ones(self, reconstructed):
        image = reconstructed.read_table("dl1/image/ASTRICam", ["hillas_intensity", "event_index"])
        true = reconstructed.read("simulation/image/ASTRICam/true_image_sum")
        shower = reconstructed.read("dl0/event/event_type")[image["event_index"]] == 32
        bright = shower & (true > 1000) & np.isfinite(image["hillas_intensity"])
        ratio = image["hillas_intensity"][bright] / true[bright]
        assert bright.sum() > 100
        assert 0.75 < np.median(ratio) < 1.05
