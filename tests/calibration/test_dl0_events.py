"""Constants from DL0 files of calibration events, of a camera whose truth is drawn here."""

import numpy as np
import pytest

from astri_gpu.calibration.dl0_events import measure_file
from astri_gpu.calibration.measure import MeasureSettings
from astri_gpu.dl0.files import read_dl0
from astri_gpu.errors import AstriError
from tests.calibration.made_dl0 import (
    BASELINE,
    GAIN,
    NOISE,
    SMALL,
    START,
    calibration_columns,
    description,
    efficiency,
    write_dl0,
)

SETTINGS = MeasureSettings(
    limits=np.array([4000.0]),
    crosstalk=0.0,
    gain_spread=0.0,
    needed_by="calibrate",
    remedy="take more",
)


def measured(folder, columns, **options):
    path = write_dl0(folder, description(), 1, "CAL", columns)
    with read_dl0(path) as file:
        return measure_file(file, SETTINGS._replace(**options.pop("settings", {})), **options)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    result = measured(tmp_path_factory.mktemp("cal"), calibration_columns(2000, 4000))
    assert result.warnings == ()
    (only,) = result.sets
    return only


def test_bad_pixels_are_the_dead_and_the_noisy_one(found):
    for gain in range(2):
        assert np.flatnonzero(~found.pixel_valid[gain]).tolist() == [3, 5]
    assert not found.dc_to_pe[:, [3, 5]].any()
    assert (found.n_pedestal, found.n_flatfield) == (2000, 4000)
    assert (found.start_s, found.stop_s) == (START, START + 600)


def test_pedestals_are_those_drawn(found):
    valid = found.pixel_valid[0]
    pulls = ((found.pedestal - BASELINE) / found.pedestal_error)[:, valid]
    assert np.abs(pulls.mean(axis=1)).max() < 4 / np.sqrt(valid.sum())
    assert np.abs(pulls.std(axis=1) - 1).max() < 4 / np.sqrt(2 * valid.sum())
    # Counts are rounded, which adds 1/12 to the variance.
    assert found.pedestal_std[0, valid].mean() == pytest.approx(np.hypot(NOISE, 0.29), rel=0.005)


def test_photo_electrons_per_count_are_those_drawn(found):
    valid = found.pixel_valid[0]
    light = efficiency()[valid]
    true = 1 / (GAIN[:, None] * light / light.mean())
    ratio = found.dc_to_pe[:, valid] / true
    scale = ratio.mean(axis=1)
    assert found.scale_error < 0.008
    assert np.abs(scale - 1).max() < 4 * found.scale_error
    pulls = (ratio / scale[:, None] - 1) * true / found.dc_to_pe_error[:, valid]
    assert np.abs(pulls.std(axis=1) - 1).max() < 4 / np.sqrt(2 * valid.sum())
    gain = found.gain[:, valid].mean(axis=1)
    np.testing.assert_allclose(gain, GAIN, rtol=4 * found.scale_error)


def test_parts_of_the_run_have_constants_of_their_own(tmp_path):
    columns = calibration_columns(400, 800)
    late = columns["time_s"] >= START + 300
    columns["adc"][late] += 20
    result = measured(tmp_path, columns, interval_s=310.0)
    assert result.warnings == ()
    first, second = result.sets
    assert (first.start_s, first.stop_s, second.stop_s) == (START, START + 300, START + 600)
    assert first.n_pedestal + second.n_pedestal == 400
    assert np.median(second.pedestal - first.pedestal) == pytest.approx(20, abs=0.5)


def test_parts_with_too_few_events_are_joined(tmp_path):
    result = measured(tmp_path, calibration_columns(150, 300), interval_s=60.0)
    edges = [(each.start_s, each.stop_s) for each in result.sets]
    assert len(edges) in (2, 3)
    assert edges[0][0] == START
    assert edges[-1][1] == START + 600
    assert [stop for _, stop in edges[:-1]] == [start for start, _ in edges[1:]]
    assert sum(each.n_pedestal for each in result.sets) == 150
    assert all(each.n_pedestal >= 50 for each in result.sets)
    assert "10 of 10 parts of the run have fewer than 50 pedestals" in result.warnings[0]


def test_events_of_other_types_and_outside_the_run_do_no_harm(tmp_path, found):
    columns = calibration_columns(2000, 4000)
    strange = {name: values[:7].copy() for name, values in columns.items()}
    strange["event_type"][:] = 32
    strange["adc"][:] = 4095
    columns["time_s"][:3] -= 100_000
    columns["time_ns"][5] = 4_000_000_000
    both = {name: np.concatenate([columns[name], strange[name]]) for name in columns}
    result = measured(tmp_path, both)
    np.testing.assert_array_equal(result.sets[0].dc_to_pe, found.dc_to_pe)
    (warning,) = result.warnings
    assert "7 of its calibration events are of other types (32)" in warning


def test_saturated_flashes_are_measured_in_the_low_gain(tmp_path):
    (both,) = measured(tmp_path, calibration_columns(600, 1800, (80.0, 250.0, 500.0))).sets
    valid = both.pixel_valid[0]
    assert valid.sum() == SMALL - 2
    np.testing.assert_allclose(both.gain[1, valid].mean(), GAIN[1], rtol=0.05)
    ratio = both.dc_to_pe[1, valid] / both.dc_to_pe[0, valid]
    np.testing.assert_allclose(ratio, GAIN[0] / GAIN[1], rtol=0.05)


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ((20, 400), "has 20 pedestal events of telescope 1, and calibrate needs 50: take more"),
        ((400, 20), "has 20 flat-field events of telescope 1"),
        ((100, 200, (60.0,)), r"of 1 levels of light for telescope 1 \(200 events\)"),
        ((100, 200, (2700.0, 3300.0)), "below saturation, which calibrate needs"),
        ((300, 900, (250.0, 500.0)), "above the saturation of the high gain"),
    ],
)
def test_what_cannot_be_measured_is_told(tmp_path, numbers, match):
    with pytest.raises(AstriError, match=match) as caught:
        measured(tmp_path, calibration_columns(*numbers))
    assert "_0101.lv0.fits" in str(caught.value)
