"""Noise of a pixel: Campbell's theorem, pulses one by one, and the moments of the tables."""

import math

import numpy as np
import pytest

from astri_gpu.kernels.camera_noise import (
    N_KINDS,
    NOISE_FAST,
    NOISE_MAXIMUM,
    NOISE_SLOW,
    SIGNAL_LEVELS,
    noise_quantile,
    peak_excess,
)
from astri_gpu.simulation import electronics as module
from astri_gpu.simulation.electronics import (
    NOISE_RATES_MHZ,
    QUANTILE_STEP,
    Electronics,
    cut_moments,
    mean_level,
    noise_levels,
    noise_moments,
    noise_place,
    noise_quantiles,
    noise_rate,
    shot_noise_variance,
)

ELECTRONICS = Electronics(37.5, 15.0, 40.0, 0.1, 0.06, 0.192)
# Words whose probabilities divide 0 to 1 equally: means over them have no error of chance.
WORDS = np.arange(2**14, dtype=np.uint32) * 2**18 + 2**17


def moments(rate_mhz, kind, electronics=ELECTRONICS):
    table = noise_quantiles(rate_mhz, electronics, 1)[None]
    mean, variance = noise_moments(table, kind, np.zeros(1, int), np.zeros(1))
    return mean[0], variance[0]


def excesses(signal, rate_mhz, electronics=ELECTRONICS):
    """Return equally probable readings beyond a signal."""
    table = noise_quantiles(rate_mhz, electronics, 1)[None]
    node, signal = np.zeros(len(WORDS), int), np.full(len(WORDS), float(signal))
    return peak_excess(table, node, np.zeros(len(WORDS)), signal, WORDS, step=QUANTILE_STEP)


@pytest.mark.parametrize("rate_mhz", [1.0, 10.0, 45.0, 1000.0])
@pytest.mark.parametrize("crosstalk", [0.0, 0.1, 0.4])
def test_noise_at_one_time_obeys_campbell(rate_mhz, crosstalk):
    electronics = ELECTRONICS._replace(crosstalk=crosstalk)
    # Integrals of the pulse and of its square, by the midpoint rule.
    x = np.arange(0.005, 20, 0.01)
    pulse = x**2 * np.exp(2 * (1 - x))
    rate, charge = rate_mhz * 1e-3, 1 / (1 - crosstalk)
    square = charge**2 * (1 + crosstalk) + 0.06**2 * charge
    for kind, tau in ((NOISE_SLOW, 37.5), (NOISE_FAST, 15.0)):
        mean, variance = moments(rate_mhz, kind, electronics)
        expected = rate * square * tau * 0.01 * np.sum(pulse**2) + 0.192**2
        assert shot_noise_variance(rate_mhz, tau, electronics) == pytest.approx(expected, rel=1e-6)
        # The steps of the table cost 1 % where the noise is nearly all the electronics'.
        assert variance == pytest.approx(expected, rel=0.012)
        level = rate * charge * tau * 0.01 * np.sum(pulse) if kind == NOISE_SLOW else 0.0
        assert mean == pytest.approx(level, abs=4e-3 * math.sqrt(expected))


@pytest.mark.parametrize("rate_mhz", [0.0, 2.0, 45.0, 1000.0])
def test_simulated_noise_obeys_campbell(monkeypatch, rate_mhz):
    """Beyond an endless signal, the maximum that is simulated is the noise at one time."""
    monkeypatch.setattr(module, "SIGNAL_LEVELS", (*SIGNAL_LEVELS[:-1], 1e7))
    table = noise_quantiles.__wrapped__(rate_mhz, ELECTRONICS, 1)[None]
    kind = len(SIGNAL_LEVELS) - 1
    mean, variance = (a[0] for a in noise_moments(table, kind, np.zeros(1, int), np.zeros(1)))
    expected = shot_noise_variance(rate_mhz, 37.5, ELECTRONICS)
    level = mean_level(rate_mhz, ELECTRONICS)
    assert mean == pytest.approx(level, abs=4e-3 * math.sqrt(expected))
    assert variance == pytest.approx(expected, rel=0.012)


def test_coupling():
    """AC coupling takes the mean from the slow shaper; that of the fast one never has it."""
    direct = noise_quantiles(45.0, ELECTRONICS, 1)
    coupled = noise_quantiles(45.0, ELECTRONICS._replace(ac_coupling=True), 1)
    level = np.full(N_KINDS, mean_level(45.0, ELECTRONICS))
    level[NOISE_FAST] = 0
    np.testing.assert_allclose(direct - coupled, np.tile(level[:, None], coupled.shape[1]))


def pulse_by_pulse(rate_mhz, electronics, n_windows, seed):
    """Return times around the middle of the gate, and the slow shaper there (window, time)."""
    rng = np.random.default_rng(seed)
    tau, gate, p = electronics.peaking_time_ns, electronics.gate_ns, electronics.crosstalk
    t = np.linspace(-gate / 2, gate / 2, 2 * math.ceil(gate / 2) + 1)
    n = rng.poisson(rate_mhz * 1e-3 * (8 * tau + gate), n_windows)
    start = rng.uniform(-gate / 2 - 8 * tau, gate / 2, n.sum())
    count = rng.geometric(1 - p, len(start))
    charge = count + electronics.gain_spread * np.sqrt(count) * rng.standard_normal(len(count))
    x = np.maximum(t - start[:, None], 0) / tau
    running = np.zeros((len(start) + 1, len(t)))
    np.cumsum(charge[:, None] * x**2 * np.exp(2 * (1 - x)), axis=0, out=running[1:])
    end = np.cumsum(n)
    wave = running[end] - running[end - n]
    # The electronics' own noise: a Gaussian process with the autocorrelation of the shaper.
    u = np.arange(0, 400, 1.0) / tau
    f = u**2 * np.exp(2 * (1 - u))
    lag = np.abs(t[:, None] - t)
    correlation = np.array([np.sum(f * np.interp(u + k / tau, u, f, right=0)) for k in lag[0]])
    covariance = np.interp(lag, lag[0], correlation) / np.sum(f**2) + 1e-6 * np.eye(len(t))
    root = np.linalg.cholesky(covariance)
    return t, wave + electronics.noise * rng.standard_normal(wave.shape) @ root.T


@pytest.mark.parametrize(
    ("rate_mhz", "gate_ns", "n", "interpolated"),
    [(2.0, 40.0, 20_000, 0.005), (47.0, 40.0, 20_000, 0.015), (47.0, 100.0, 8000, 0.04),
     (450.0, 40.0, 2000, 0.045)],
)  # fmt: skip
def test_readings_against_pulses_one_by_one(rate_mhz, gate_ns, n, interpolated):
    """The excess beyond signals; `interpolated` is the error allowed between two levels."""
    electronics = ELECTRONICS._replace(gate_ns=gate_ns)
    t, wave = pulse_by_pulse(rate_mhz, electronics, n, 3)
    level = mean_level(rate_mhz, electronics)
    at_peak = wave[:, len(t) // 2]
    assert at_peak.mean() == pytest.approx(level, abs=5 * at_peak.std() / math.sqrt(n))
    x = np.maximum(1 + t / electronics.peaking_time_ns, 0)
    below_peak = x**2 * np.exp(2 * (1 - x)) - 1
    for signal in (0.0, 1.0, 3.0, 8.0, 20.0, 50.0):
        found = (wave + signal * below_peak).max(axis=1)
        table = np.sort(excesses(signal, rate_mhz, electronics))
        between = 0.0 if signal in SIGNAL_LEVELS else interpolated
        # The noise at the peak is in both, and its mean is known: what is left has small errors.
        more = found - at_peak
        error = 5 * more.std() / math.sqrt(n)
        assert table.mean() - level == pytest.approx(more.mean(), abs=error + between + 3e-3)
        kurtosis = np.mean((found - found.mean()) ** 4) / found.var() ** 2
        # 1 % for the steps of the table, as above, and 1 % for its tail.
        error = 5 * math.sqrt((kurtosis + 2) / n)
        assert table.var() == pytest.approx(found.var(), rel=error + 0.02)
        for u in (0.05, 0.3, 0.6, 0.9, 0.99, 0.997):
            share = (found <= np.quantile(table, u)).mean()
            error = 5 * math.sqrt(u * (1 - u) / n)
            # Moved by `between`, a distribution 0.4 avalanches wide or more changes by as much.
            assert share == pytest.approx(u, abs=error + between + 2e-3)


def test_excess_falls_with_the_signal():
    signals = [0, 0.3, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 31.99, 32, 40, 64, 100, 1000, 1e6]
    for rate_mhz in (0.0, 2.0, 47.0, 1000.0):
        means = [excesses(signal, rate_mhz).mean() for signal in signals]
        assert np.all(np.diff(means) < 0)
        mean, variance = moments(rate_mhz, NOISE_SLOW)
        assert means[-1] == pytest.approx(mean, abs=1e-4 * math.sqrt(variance))
        assert means[0] == pytest.approx(moments(rate_mhz, NOISE_MAXIMUM)[0], rel=1e-4)


def test_error_of_interpolation_between_signals(monkeypatch):
    """Of the chords of a falling, curved line: at most 0.02 avalanches, noise being 1.8."""
    between = (0.5, 1.5, 3.0, 6.0, 12.0, 23.0, 64.0)
    found = [excesses(signal, 47.0) for signal in between]
    monkeypatch.setattr(module, "SIGNAL_LEVELS", between)
    own = noise_quantiles.__wrapped__(47.0, ELECTRONICS, 1)
    for kind, readings in enumerate(found):
        mean, variance = (
            a[0] for a in noise_moments(own[None], kind, np.zeros(1, int), np.zeros(1))
        )
        assert -2e-3 < readings.mean() - mean < 0.02
        assert readings.std() == pytest.approx(math.sqrt(variance), rel=5e-3)


def test_noise_tables_are_ordered():
    for rate_mhz in (0.0, 3.0, 45.0, 2000.0):
        table = noise_quantiles(rate_mhz, ELECTRONICS, 1)
        assert np.all(np.diff(table, axis=1) >= 0)
        # The same noise beside stronger signals, up to where the tails are matched.
        body = table[: len(SIGNAL_LEVELS), 1 : round(4 / QUANTILE_STEP)]
        assert np.all(np.diff(body, axis=0) <= 0)
        assert np.all(table[NOISE_MAXIMUM, 32:] >= table[NOISE_SLOW, 32:])
    assert np.array_equal(table, noise_quantiles.__wrapped__(rate_mhz, ELECTRONICS, 1))


def test_short_and_long_gates():
    """Without a gate the maximum is the noise at the peak; it rises with the length of the gate."""
    mean, variance = moments(45.0, NOISE_SLOW)
    found = [
        moments(45.0, NOISE_MAXIMUM, ELECTRONICS._replace(gate_ns=gate))[0] - mean
        for gate in (0.01, 3.0, 40.0, 41.0, 120.0)
    ]
    assert np.all(np.diff(found) > 0)
    assert found[0] == pytest.approx(0, abs=3e-3)
    # A slope of the noise, on average sqrt(2 / pi) of its rms, over half the gate; its rms is that
    # of the noise times sqrt(4 / 3) / tau.
    slope = math.sqrt(4 / 3 * 2 / math.pi * variance) / 37.5
    assert found[1] == pytest.approx(1.5 * slope, rel=0.1)


def test_moments_are_those_of_the_draws():
    node, fraction = noise_place(np.array([45.0, 45.0, 450.0]))
    table = noise_levels(node, 2.0, ELECTRONICS)
    node[1], fraction[1] = len(NOISE_RATES_MHZ), 0.0  # the lid is closed
    highest = np.array([6.0, np.inf, 40.0])
    n = 100_000
    word = np.random.default_rng(1).integers(0, 2**32, (n, 3), dtype=np.uint32)
    for kind in range(N_KINDS):
        draws = noise_quantile(
            table, np.broadcast_to(node, word.shape), fraction, word, kind=kind, step=QUANTILE_STEP
        )
        for values, found in (
            (draws, noise_moments(table, kind, node, fraction)),
            (np.minimum(draws, highest), cut_moments(table, kind, node, fraction, highest)),
        ):
            mean, variance = found
            assert np.all(np.abs(values.mean(axis=0) - mean) < 5 * np.sqrt(variance / n))
            np.testing.assert_allclose(values.var(axis=0), variance, rtol=0.03)


def test_places_in_the_noise_table():
    rates = np.array([0.0, 0.3, 1.0, 47.0, 999.0, 1e5])
    node, fraction = noise_place(rates)
    np.testing.assert_allclose(noise_rate(node, fraction), rates, rtol=1e-12)
    assert noise_rate(*noise_place(np.array([1e9])))[0] == pytest.approx(NOISE_RATES_MHZ[-1])
    table = noise_levels(node[3:4], 2.0, ELECTRONICS)
    assert np.isfinite(table).all(axis=(1, 2)).sum() == 3
    # Between two levels the interpolation is as good as a level of its own.
    for kind in (NOISE_MAXIMUM, NOISE_SLOW):
        mean, variance = noise_moments(table, kind, node[3:4], fraction[3:4])
        own_mean, own_variance = moments(47.0, kind)
        assert mean[0] == pytest.approx(own_mean, abs=0.03)
        assert math.sqrt(variance[0]) == pytest.approx(math.sqrt(own_variance), rel=0.02)
    # The mean level goes with the rate, and places with its root.
    rates = np.geomspace(1, 9e4, 1000)
    node, fraction = noise_place(rates)
    level = (1 - fraction) * NOISE_RATES_MHZ[node] + fraction * NOISE_RATES_MHZ[node + 1]
    assert np.all(level >= rates * (1 - 1e-12))
    assert np.all(level <= rates * 1.006)
