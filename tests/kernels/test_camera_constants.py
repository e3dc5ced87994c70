"""Camera constants from events that NumPy makes of known constants; noise, gains and bias as real.

Pulls are (found - true) / error. Over 2368 pixels their mean is known to 0.021 and their width to
0.015, so 4 standard deviations are 0.08 and 0.06.
"""

from typing import NamedTuple

import numpy as np
import pytest

from astri_gpu.kernels import camera_constants as constants

N_PIXELS, N_EVENTS = 2368, 1000
CROSSTALK, GAIN_SPREAD = 0.10, 0.06
BASELINE, GAIN, ADC_MAX = (971.0, 961.0), (62.5, 1.5625), 4095
NOISE, LOW_GAIN_NOISE = 1.5, 1.0  # avalanches, counts
LEVELS = (20.0, 40.0)
PULL_MEAN, PULL_WIDTH = 4 / np.sqrt(N_PIXELS), 4 / np.sqrt(2 * N_PIXELS)
PHYSICS = {"crosstalk": CROSSTALK, "gain_spread": GAIN_SPREAD}


class Truth(NamedTuple):
    gain: np.ndarray  # (gain, pixel), counts per avalanche
    efficiency: np.ndarray
    noise: np.ndarray  # avalanches


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(3)
    gain = np.array(GAIN)[:, None] * rng.normal(1, 0.02, (2, N_PIXELS))
    efficiency = rng.normal(1, 0.03, N_PIXELS)
    noise = np.full(N_PIXELS, NOISE)
    efficiency[7] = gain[:, 8] = 0
    noise[9] *= 3
    return Truth(gain, efficiency / efficiency.mean(), noise)


def counts(rng, truth, peak):
    """Return what two gains read of the peak (avalanches), (gain, event, pixel)."""
    other = LOW_GAIN_NOISE * rng.normal(size=peak.shape)
    levels = [b + g * peak for b, g in zip(BASELINE, truth.gain, strict=True)]
    levels[1] = levels[1] + np.where(truth.gain[1] > 0, other, 0)
    return np.clip(np.rint(levels), 0, ADC_MAX).astype(np.uint16)


def flashes(rng, truth, mean_pe, n_events=N_EVENTS):
    shape = (n_events, N_PIXELS)
    electrons = rng.poisson(mean_pe * truth.efficiency, shape)
    more = rng.negative_binomial(np.maximum(electrons, 1), 1 - CROSSTALK) * (electrons > 0)
    avalanches = electrons + more
    charge = avalanches + GAIN_SPREAD * np.sqrt(avalanches) * rng.normal(size=shape)
    charge += truth.noise * rng.normal(size=shape)
    return counts(rng, truth, np.maximum(charge, 2 * truth.noise))


def pedestals(rng, truth, n_events=N_EVENTS):
    """Return the largest of four independent values of the noise: skewed and biased upwards."""
    noise = truth.noise * rng.normal(size=(4, n_events, N_PIXELS)).max(axis=0)
    return counts(rng, truth, noise)


@pytest.fixture(scope="module")
def events(truth):
    rng = np.random.default_rng(4)
    return pedestals(rng, truth), [flashes(rng, truth, level) for level in LEVELS]


def moments_of(adc):
    origin = adc[0].astype(float)
    use = np.ones(len(adc), dtype=bool)
    return constants.moments(constants.power_sums(adc, origin, use), origin)


def stacked(levels):
    return constants.Moments(*(np.stack(parts) for parts in zip(*levels, strict=True)))


@pytest.fixture(scope="module")
def valid(events):
    pedestal, levels = events
    std = constants.pedestal(moments_of(pedestal[0]), np.ones(N_PIXELS, dtype=bool)).std
    faint, bright = (moments_of(adc[1]).mean for adc in levels)
    return constants.good_pixels(std, faint, bright, noisy_factor=2.0, response_min=0.3)


def check_pulls(found, error, true, width=1.0):
    pulls = (found - true) / error
    assert abs(pulls.mean()) < PULL_MEAN
    assert abs(pulls.std() - width) < PULL_WIDTH


def test_dead_and_noisy_pixels_are_found(valid):
    assert np.flatnonzero(~valid).tolist() == [7, 8, 9]


def test_pedestal(truth, valid):
    rng = np.random.default_rng(5)
    adc = pedestals(rng, truth)
    exact = moments_of(pedestals(rng, truth, 4 * N_EVENTS)[0])
    found = constants.pedestal(moments_of(adc[0]), valid)
    # The reference has errors of its own, half of ours.
    width = np.sqrt(1 + 1 / 4)
    check_pulls(found.mean[valid], found.mean_error[valid], exact.mean[valid], width)
    check_pulls(found.std[valid], found.std_error[valid], np.sqrt(exact.variance)[valid], width)
    assert np.all(found.mean[valid] > BASELINE[0] + GAIN[0])  # the peak detector's bias


@pytest.mark.parametrize(("gain", "pe"), [(0, (12.0, 24.0)), (1, LEVELS), (1, (20.0, 40.0, 90.0))])
def test_photon_transfer(gain, pe, truth, valid, events):
    rng = np.random.default_rng(6)
    levels = stacked([moments_of(flashes(rng, truth, level)[gain]) for level in pe])
    variance = moments_of(events[0][gain]).variance
    found = constants.photon_transfer(levels, variance, valid, **PHYSICS)
    per_electron = truth.gain[gain] / (1 - CROSSTALK)
    check_pulls(found.gain[valid], found.gain_error[valid], per_electron[valid])
    expected = truth.gain[gain] * truth.efficiency
    expected = expected / expected[valid].mean()
    check_pulls(found.response[valid], found.response_error[valid], expected[valid])
    mean_efficiency = truth.efficiency[valid].mean()
    scale = found.camera_gain / per_electron[valid].mean() - 1
    assert abs(scale) < 4 * found.scale_error
    assert found.scale_error < 0.01
    true = mean_efficiency / (per_electron * truth.efficiency)[valid]
    # What is common to the camera is taken out: its error is `scale_error`.
    check_pulls(found.dc_to_pe[valid] * (1 + scale), found.dc_to_pe_error[valid], true)


def test_noisy_pixels_have_larger_errors(truth, valid, events):
    pedestal, levels = events
    found = constants.photon_transfer(
        stacked([moments_of(adc[1]) for adc in levels]),
        moments_of(pedestal[1]).variance,
        valid,
        **PHYSICS,
    )
    assert found.gain_error[9] > 1.1 * np.median(found.gain_error)


def test_intercalibration(truth, valid, events):
    parts = []
    for high, low in events[1]:
        origins = np.full(N_PIXELS, 2000.0), np.full(N_PIXELS, 990.0)
        use = np.ones(len(high), dtype=bool)
        # In blocks, as a store is read; the brighter level saturates the high gain at times.
        for half in (slice(0, 300), slice(300, None)):
            parts.append(
                constants.pair_sums(
                    high[half], low[half], *origins, use[half], high_below=float(ADC_MAX - 50)
                )
            )
    assert (events[1][1][0] == ADC_MAX).mean() > 0.05
    found = constants.intercalibration(constants.PairSums(*map(sum, zip(*parts, strict=True))))
    true = (truth.gain[1] / np.where(truth.gain[0] == 0, 1, truth.gain[0]))[valid]
    check_pulls(found.ratio[valid], found.ratio_error[valid], true)
    assert np.median((found.ratio_error / found.ratio)[valid]) < 0.002


def test_faint_flashes_are_not_above_the_noise(truth, valid, events):
    dark = moments_of(events[0][0])
    rng = np.random.default_rng(7)
    levels = [moments_of(flashes(rng, truth, pe, 200)[0]) for pe in (5.0, 20.0, 30.0)]
    found = constants.above_noise(stacked(levels), dark, valid)
    assert found.tolist() == [False, False, True]


def test_excess_noise_factor():
    rng = np.random.default_rng(8)
    avalanches = rng.geometric(1 - CROSSTALK, 2_000_000)
    charge = avalanches + GAIN_SPREAD * np.sqrt(avalanches) * rng.normal(size=avalanches.size)
    measured = np.mean(charge**2) / np.mean(charge) ** 2
    assert constants.excess_noise_factor(CROSSTALK, GAIN_SPREAD) == pytest.approx(
        measured, rel=3e-3
    )
    assert constants.excess_noise_factor(0.0, 0.0) == 1.0


def test_namespaces_agree(call, assert_same, events):
    # A dead pixel's differences are rounding errors, which differ.
    pedestal, levels = (np.asarray(part)[..., 10:] for part in events)
    few = slice(0, 40)
    use = np.arange(40) < 37
    origin = pedestal[0, 0].astype(float)
    for adc in (pedestal[0], levels[0][0]):
        arguments = (adc[few].astype(np.int64), origin, use)
        sums = constants.power_sums(*arguments)
        assert_same(call(constants.power_sums, *arguments), sums)
        assert_same(call(constants.moments, sums, origin), constants.moments(sums, origin))
    dark = constants.moments(constants.power_sums(pedestal[1][few], origin, use), origin)
    flat = stacked(
        [
            constants.moments(constants.power_sums(adc[1][few], origin, use), origin)
            for adc in levels
        ]
    )
    valid = np.arange(len(origin)) > 10
    assert_same(call(constants.pedestal, dark, valid), constants.pedestal(dark, valid))
    assert_same(call(constants.above_noise, flat, dark, valid), np.array([False, True]))
    limits = {"noisy_factor": 2.0, "response_min": 0.3}
    arguments = (np.sqrt(dark.variance), flat.mean[0], flat.mean[1])
    assert_same(
        call(constants.good_pixels, *arguments, **limits),
        constants.good_pixels(*arguments, **limits),
    )
    arguments = (flat, dark.variance, valid)
    assert_same(
        call(constants.photon_transfer, *arguments, **PHYSICS),
        constants.photon_transfer(*arguments, **PHYSICS),
        scale=1e3,  # differences of nearly equal variances
    )
    high, low = (part[few].astype(np.int64) for part in levels[0])
    arguments = (high, low, origin, origin, use)
    sums = constants.pair_sums(*arguments, high_below=4000.0)
    assert_same(call(constants.pair_sums, *arguments, high_below=4000.0), sums)
    assert_same(call(constants.intercalibration, sums), constants.intercalibration(sums), scale=1e3)
