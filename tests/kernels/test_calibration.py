"""Calibration: gain, pedestal, conversion, the five extractors, and broken pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import calibration as cal

WINDOW = {"width": 7, "shift": 3, "sampling_rate_ghz": 0.5}
EXTRACT = {**WINDOW, "peak_index": 9, "local_weight": 1}


def waveforms(camera, n_images=3, n_samples=20, seed=1):
    """Return pulses with noise, float32, and which pixels are not broken."""
    rng = np.random.default_rng(seed)
    n_pixels = len(camera.lon)
    peak = rng.normal(n_samples / 2, 3, (n_images, n_pixels, 1))
    size = rng.exponential(10, (n_images, n_pixels, 1))
    pulse = size * np.exp(-((np.arange(n_samples) - peak) ** 2) / 6)
    waveform = (pulse + rng.normal(0, 1, pulse.shape)).astype(np.float32)
    return waveform, rng.random((n_images, n_pixels)) > 0.1


def adc_counts(n_gains, n_samples=None, seed=2):
    rng = np.random.default_rng(seed)
    shape = (4, n_gains, 11) + (() if n_samples is None else (n_samples,))
    return rng.integers(0, 4096, shape).astype(np.uint16)


def slow_extract(waveform, peak, width, shift, sampling_rate_ghz):
    """Charge and time of one pixel: a loop over the samples of its window."""
    charge = weight = moment = 0.0
    for k in range(max(0, peak - shift), min(len(waveform), peak - shift + width)):
        sample = float(waveform[k])
        charge += sample
        if sample > 0:
            weight += sample
            moment += sample * k
    return charge, (moment / weight if weight > 0 else peak) / sampling_rate_ghz


def slow_peak(waveform, valid, neighbours, extractor, pixel, *, peak_index, local_weight):
    n_samples = waveform.shape[1]
    if extractor == "fixed_window":
        return peak_index
    if extractor == "global_peak":
        pixels = [p for p in range(len(valid)) if valid[p]]
    elif extractor == "local_peak":
        pixels = [pixel]
    else:
        pixels = [p for p in neighbours[pixel] if p >= 0 and valid[p]] + [pixel] * local_weight
    total = [sum(float(waveform[p, k]) for p in pixels) for k in range(n_samples)]
    return max(range(n_samples), key=total.__getitem__)


@pytest.mark.parametrize("n_samples", [None, 6])
@pytest.mark.parametrize("n_gains", [1, 2])
def test_gain_pedestal_and_conversion_equal_the_loop(call, assert_same, n_gains, n_samples):
    adc = adc_counts(n_gains, n_samples)
    rng = np.random.default_rng(3)
    pedestal = rng.normal(200, 5, (4, n_gains, 11)).astype(np.float32)
    factor = rng.uniform(0.05, 0.1, (4, n_gains, 11)).astype(np.float32)
    channel = call(cal.select_gain, adc, threshold_adc=3000.0)
    found = call(cal.calibrate, adc, channel, pedestal, factor)

    expected = np.empty((*adc.shape[:1], *adc.shape[2:]))
    for image in range(4):
        for pixel in range(11):
            low = n_gains == 2 and np.max(adc[image, 0, pixel]) > 3000
            assert channel[image, pixel] == low
            counts = adc[image, int(low), pixel].astype(float)
            expected[image, pixel] = (counts - pedestal[image, int(low), pixel]) * factor[
                image, int(low), pixel
            ]
    assert found.dtype == np.float32
    assert channel.dtype == np.int8
    assert_same(found, expected.astype(np.float32), atol=1e-5)
    assert_same(
        call(cal.take_gain, pedestal, channel),
        np.take_along_axis(pedestal, channel[:, None].astype(int), axis=1)[:, 0],
    )


def test_gain_switches_above_the_threshold_only(call):
    adc = np.array([[[2999, 3000, 3001], [1, 1, 1]]], dtype=np.uint16)
    np.testing.assert_array_equal(call(cal.select_gain, adc, threshold_adc=3000.0), [[0, 0, 1]])


@pytest.mark.parametrize("extractor", cal.EXTRACTORS)
def test_extractors_equal_the_loop(call, assert_same, camera, extractor):
    waveform, valid = waveforms(camera, n_images=2)
    found = call(cal.extract, waveform, valid, camera.edge, extractor=extractor, **EXTRACT)
    charge, time = np.empty(valid.shape), np.empty(valid.shape)
    for image, pixel in np.ndindex(valid.shape):
        if extractor == "full_sum":
            window = (waveform[image, pixel], 0, waveform.shape[2], 0, 0.5)
        else:
            peak = slow_peak(
                waveform[image], valid[image], camera.edge, extractor, pixel,
                peak_index=9, local_weight=1,
            )  # fmt: skip
            window = (waveform[image, pixel], peak, 7, 3, 0.5)
        charge[image, pixel], time[image, pixel] = slow_extract(*window)
    assert found.charge.dtype == found.peak_time.dtype == np.float32
    expected = cal.Extracted(charge.astype(np.float32), time.astype(np.float32))
    assert_same(found, expected, atol=1e-5)


@pytest.mark.parametrize("extractor", cal.EXTRACTORS)
def test_broken_pixels_do_not_move_the_peaks_of_others(call, camera, extractor):
    waveform, valid = waveforms(camera)
    spoilt = np.where(valid[:, :, None], waveform, np.float32(np.nan))
    clean = call(cal.extract, waveform, valid, camera.edge, extractor=extractor, **EXTRACT)
    found = call(cal.extract, spoilt, valid, camera.edge, extractor=extractor, **EXTRACT)
    np.testing.assert_array_equal(found.charge[valid], clean.charge[valid])
    np.testing.assert_array_equal(found.peak_time[valid], clean.peak_time[valid])


def test_padding_is_inert(call, assert_same, camera):
    waveform, valid = waveforms(camera)
    neighbours = camera.edge
    found = call(cal.extract, waveform, valid, neighbours, extractor="neighbour_peak", **EXTRACT)
    # One more image, one more pixel that is not valid, one more column of no neighbours.
    n_images, n_pixels, n_samples = waveform.shape
    more = np.full((n_images + 1, n_pixels + 1, n_samples), 1e6, dtype=np.float32)
    more[:-1, :-1] = waveform
    usable = np.zeros(more.shape[:2], dtype=bool)
    usable[:-1, :-1] = valid
    table = np.full((n_pixels + 1, neighbours.shape[1] + 1), -1, dtype=np.int32)
    table[:-1, :-1] = neighbours
    padded = call(cal.extract, more, usable, table, extractor="neighbour_peak", **EXTRACT)
    assert_same(tuple(padded[i][:-1, :-1] for i in range(2)), tuple(found))


def test_window_is_cut_at_both_ends(call):
    waveform = np.ones((1, 2, 5), dtype=np.float32)
    peak = np.array([[0, 4]])
    found = call(cal.extract_around_peak, waveform, peak, **WINDOW)
    np.testing.assert_array_equal(found.charge, [[4, 4]])
    np.testing.assert_allclose(found.peak_time, [[1.5 / 0.5, 2.5 / 0.5]])


def test_waveform_without_signal_has_the_time_of_its_peak(call):
    waveform = np.full((1, 1, 10), -1, dtype=np.float32)
    found = call(cal.extract_around_peak, waveform, np.array([[4]]), **WINDOW)
    assert found.charge[0, 0] == -7
    assert found.peak_time[0, 0] == 4 / 0.5


def test_no_valid_pixel_and_no_image(call, camera):
    waveform, valid = waveforms(camera)
    none = np.zeros_like(valid)
    for extractor in cal.EXTRACTORS:
        found = call(cal.extract, waveform, none, camera.edge, extractor=extractor, **EXTRACT)
        assert np.isfinite(found.charge).all()
        found = call(
            cal.extract, waveform[:0], none[:0], camera.edge, extractor=extractor, **EXTRACT
        )
        assert found.charge.shape == (0, len(camera.lon))


def test_unknown_extractor_is_an_error(camera):
    with pytest.raises(ValueError, match=r"extractor is 'sliding': expected one of full_sum, "):
        cal.extract(*waveforms(camera), camera.edge, extractor="sliding", **EXTRACT)


def test_broken_pixels_take_the_mean_of_their_neighbours(call, assert_same, camera):
    rng = np.random.default_rng(4)
    values = rng.normal(10, 3, (3, len(camera.lon))).astype(np.float32)
    valid = rng.random(values.shape) > 0.4
    valid[2] = False
    spoilt = np.where(valid, values, np.float32(np.nan))
    expected = values.astype(float)
    for image, pixel in zip(*np.nonzero(~valid), strict=True):
        around = [n for n in camera.edge[pixel] if n >= 0 and valid[image, n]]
        expected[image, pixel] = np.mean(values[image, around]) if around else 0
    found = call(cal.interpolate_invalid, spoilt, valid, camera.edge)
    assert found.dtype == np.float32
    assert_same(found, expected.astype(np.float32), atol=1e-6)
    assert not found[2].any()


@settings(max_examples=40, deadline=None)
@given(scale=st.sampled_from([0.25, 0.5, 2.0, 16.0]), seed=st.integers(0, 1000))
def test_charge_scales_and_time_stays(squares, scale, seed):
    """Scaling by a power of two is exact, so that every peak and every bit stays."""
    waveform, valid = waveforms(squares, n_images=1, seed=seed)
    for extractor in cal.EXTRACTORS:
        arguments = (valid, squares.edge)
        one = cal.extract(waveform, *arguments, extractor=extractor, **EXTRACT)
        other = cal.extract(
            waveform * np.float32(scale), *arguments, extractor=extractor, **EXTRACT
        )
        np.testing.assert_array_equal(other.charge, one.charge * scale)
        np.testing.assert_array_equal(other.peak_time, one.peak_time)


@settings(max_examples=40, deadline=None)
@given(shift=st.integers(1, 5), seed=st.integers(0, 1000))
def test_later_pulses_give_later_times(squares, shift, seed):
    waveform, valid = waveforms(squares, n_images=1, seed=seed)
    quiet = np.full((*valid.shape, 10), np.float32(-1))
    early = np.concatenate([quiet, waveform, quiet], axis=-1)
    late = np.roll(early, shift, axis=-1)
    one = cal.extract(early, valid, squares.edge, extractor="local_peak", **EXTRACT)
    other = cal.extract(late, valid, squares.edge, extractor="local_peak", **EXTRACT)
    np.testing.assert_allclose(other.charge, one.charge, rtol=1e-6)
    np.testing.assert_allclose(other.peak_time, one.peak_time + shift / 0.5, rtol=1e-5)


def test_one_trace_for_two_batches(one_trace, hexagons):
    batches = [(*waveforms(hexagons, seed=seed), hexagons.edge) for seed in (5, 6)]
    one_trace(cal.extract, *batches, extractor="neighbour_peak", atol=1e-5, **EXTRACT)
    one_trace(cal.extract, *batches, extractor="global_peak", atol=1e-5, **EXTRACT)
    one_trace(
        cal.interpolate_invalid,
        *[(waveform[:, :, 0], valid, edge) for waveform, valid, edge in batches],
        atol=1e-6,
    )
    adc = [(adc_counts(2, 6, seed),) for seed in (7, 8)]
    one_trace(cal.select_gain, *adc, threshold_adc=3000.0)
