"""Camera constants from the calibration events of a simulated store, beside the true ones.

Pulls over some 2350 good pixels: 4 standard deviations are 0.083 for their mean and 0.058 for their
width.
"""

import numpy as np
import pytest

from astri_gpu.calibration.cal1_file import read_cal1
from astri_gpu.calibration.measure import FLATFIELD, PEDESTALS
from astri_gpu.config import compose
from astri_gpu.errors import AstriError
from astri_gpu.stages import calibrate, ingest, process, simulate
from astri_gpu.stages.constants import measure_constants
from astri_gpu.store import open_store
from astri_gpu.store_layout import read_layout
from tests.calibration.made_dl0 import description, times, write_dl0

CAMERA = "ASTRICam"
CROSSTALK = 0.10
EVENTS = ("calibration.constants=events",)


def production(output, *overrides):
    simulate.run(
        compose(
            "simulate",
            [
                f"output='{output}'",
                "n_showers=20",
                "array=single",
                "shower=draft",
                "backend=cpu",
                "progress=false",
                *overrides,
            ],
        )
    )
    return output


def config(path, output, *overrides):
    return compose("process", [f"input='{path}'", f"output='{output}'", "backend=cpu", *overrides])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return a store with pedestals and flashes, 1 % dead and 0.5 % noisy pixels."""
    return production(
        tmp_path_factory.mktemp("constants") / "gamma.zarr",
        "calibration_events.n_pedestal=600",
        "calibration_events.n_flatfield=1600",
        "calibration_events.flatfield_pe=[40,80]",
        "camera=worn",
    )


@pytest.fixture(scope="module")
def measured(path):
    store = open_store(path)
    (camera,) = read_layout(store).cameras
    (found,) = measure_constants(store, CAMERA, camera, config("x", "y", *EVENTS), [1])
    return found


@pytest.fixture(scope="module")
def truth(path):
    """Return the true constants of the telescope."""
    store = open_store(path)
    paths = (f"monitoring/camera/{CAMERA}", f"simulation/camera/{CAMERA}")
    return {name: values[0] for path in paths for name, values in store.read_table(path).items()}


def check_pulls(found, error, true, valid):
    pulls = ((found - true) / np.where(error > 0, error, 1))[..., valid]
    assert np.abs(pulls.mean(axis=-1)).max() < 4 / np.sqrt(valid.sum())
    assert np.abs(pulls.std(axis=-1) - 1).max() < 4 / np.sqrt(2 * valid.sum())


def test_dead_and_noisy_pixels_are_found_and_no_others(measured, truth):
    noisy = truth["true_night_sky"] > 3 * np.median(truth["true_night_sky"])
    dead = truth["true_efficiency"] == 0
    assert dead.sum() > 10
    assert noisy.sum() > 5
    for gain in range(2):
        np.testing.assert_array_equal(measured.pixel_valid[gain], ~(dead | noisy))


def test_pedestals_equal_the_true_ones(measured, truth):
    valid = measured.pixel_valid[0]
    pedestal = measured.pedestal
    check_pulls(pedestal.mean, pedestal.mean_error, truth["pedestal"], valid)
    check_pulls(pedestal.std, pedestal.std_error, truth["pedestal_std"], valid)
    assert np.median(pedestal.mean_error[0]) < 6  # counts


def test_gains_equal_the_true_ones(measured, truth):
    valid = measured.pixel_valid[0]
    check_pulls(measured.gain, measured.gain_error, truth["true_gain"] / (1 - CROSSTALK), valid)


def test_photo_electrons_per_count_equal_the_true_ones(measured, truth):
    valid = measured.pixel_valid[0]
    true, error = truth["dc_to_pe"], measured.dc_to_pe_error
    scale = (measured.dc_to_pe[:, valid] / true[:, valid]).mean(axis=1)
    # The mean efficiency of these pixels is 1 only as well as 2350 of them with 3 % spread say.
    common = np.hypot(measured.scale_error, 0.03 / np.sqrt(valid.sum()))
    assert np.abs(scale - 1).max() < 4 * common
    assert measured.scale_error < 0.004
    check_pulls(measured.dc_to_pe / scale[:, None], error, true, valid)
    assert np.median(error[:, valid] / true[:, valid]) < 0.015


def test_the_same_events_in_a_dl0_file_give_the_same_constants(path, measured, tmp_path):
    store = open_store(path)
    event = store.read(f"dl0/image/{CAMERA}/event_index")
    kind = store.read("dl0/event/event_type")[event]
    rows = np.flatnonzero(np.isin(kind, (FLATFIELD, *PEDESTALS)))
    columns = {
        **times(np.linspace(0, 599, len(rows))),
        "event_type": kind[rows],
        "adc": store.read(f"dl0/image/{CAMERA}/adc")[rows],
    }
    write_dl0(tmp_path, description(1), 1, "CAL", columns, small=False)
    output = tmp_path / "cal1.fits"
    summary = calibrate.run(compose("calibrate", [f"input='{tmp_path}'", f"output='{output}'"]))
    (found,) = read_cal1(output)
    np.testing.assert_array_equal(found.pixel_valid, measured.pixel_valid)
    np.testing.assert_allclose(found.pedestal, measured.pedestal.mean, rtol=1e-6)
    np.testing.assert_allclose(found.pedestal_std, measured.pedestal.std, rtol=1e-6)
    np.testing.assert_allclose(found.dc_to_pe, measured.dc_to_pe, rtol=1e-6)
    np.testing.assert_allclose(found.dc_to_pe_error, measured.dc_to_pe_error, rtol=1e-6)
    np.testing.assert_allclose(found.gain, measured.gain, rtol=1e-6)
    assert summary.n_pedestal + summary.n_flatfield == len(rows)


def test_process_calibrates_with_them(path, measured, tmp_path):
    output = tmp_path / "out.zarr"
    process.run(config(path, output, *EVENTS, "images=true"))
    store, source = open_store(output), open_store(path)
    table = store.read_table(f"monitoring/camera/{CAMERA}")
    assert table["tel_id"].tolist() == [1]
    np.testing.assert_allclose(table["pedestal"][0], measured.pedestal.mean, rtol=1e-6)
    np.testing.assert_allclose(table["dc_to_pe"][0], measured.dc_to_pe, rtol=1e-6)
    np.testing.assert_array_equal(table["pixel_valid"][0], measured.pixel_valid)
    assert store.attrs["config"]["calibration"]["constants"] == "events"
    adc = source.read(f"dl0/image/{CAMERA}/adc")[0, 0]
    charge = store.read(f"dl1/image/{CAMERA}/charge")[0]
    valid = measured.pixel_valid[0]
    expected = (adc - measured.pedestal.mean[0]) * measured.dc_to_pe[0]
    np.testing.assert_allclose(charge[valid], expected[valid], rtol=1e-3, atol=1e-3)


def test_constants_of_the_store_stay_the_default(path, tmp_path):
    output = tmp_path / "out.zarr"
    process.run(config(path, output))
    for name in ("pedestal", "dc_to_pe", "pixel_valid"):
        column = f"monitoring/camera/{CAMERA}/{name}"
        np.testing.assert_array_equal(
            open_store(output).read(column), open_store(path).read(column)
        )


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ((), "has 0 pedestal events of telescope 1, .* needs 50"),
        (("calibration_events.n_pedestal=60",), "has 0 flat-field events"),
        (
            ("calibration_events.n_pedestal=60", "calibration_events.n_flatfield=60"),
            r"levels of light for telescope 1 \(30, 30 events\)",
        ),
        (
            (
                "calibration_events.n_pedestal=60",
                "calibration_events.n_flatfield=120",
                "calibration_events.flatfield_pe=[5,10]",
            ),
            "fewer than two lie well above the noise",
        ),
        (
            (
                "calibration_events.n_pedestal=60",
                "calibration_events.n_flatfield=120",
                "calibration_events.flatfield_pe=[1600,2400]",
            ),
            "fewer than two lie well above the noise and below saturation",
        ),
    ],
)
def test_too_few_events_give_one_sentence(overrides, match, tmp_path):
    path = production(tmp_path / "few.zarr", *overrides)
    output = tmp_path / "out.zarr"
    with pytest.raises(AstriError, match=match) as caught:
        process.run(config(path, output, *EVENTS))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not output.exists()


def test_waveforms_are_refused(simtel, tmp_path):
    source = simtel("gct_checs_muons.simtel.zst")
    path = tmp_path / "dl0.zarr"
    ingest.run(compose("ingest", [f"input='{source}'", f"output='{path}'"]))
    with pytest.raises(AstriError, match="has waveforms of"):
        process.run(config(path, tmp_path / "out.zarr", *EVENTS))
