"""Crosstalk, noise and the peak detector: both texts, and both beside their formulas."""

import math

import numpy as np
import pytest
from scipy.stats import nbinom

from astri_gpu.config_simulation import CameraConfig, OpticsConfig
from astri_gpu.instrument.astri import astri_camera
from astri_gpu.kernels.camera import PixelSums, avalanches, respond
from astri_gpu.kernels.camera_noise import (
    N_KINDS,
    NOISE_SLOW,
    SIGNAL_LEVELS,
    byte_normal,
    noise_quantile,
    peak_excess,
)
from astri_gpu.kernels.flash import negative_binomial
from astri_gpu.kernels.loops import camera as loops
from astri_gpu.kernels.loops.camera_noise import byte_normal as loop_byte_normal
from astri_gpu.kernels.loops.camera_noise import noise_quantile as loop_noise_quantile
from astri_gpu.kernels.loops.camera_noise import peak_excess as loop_peak_excess
from astri_gpu.kernels.random import key_of, philox
from astri_gpu.kernels.simulation_types import Stream
from astri_gpu.simulation.camera_model import camera_model, camera_settings
from astri_gpu.simulation.electronics import QUANTILE_STEP, noise_rate

KEY = key_of(20_260)
SETTINGS = camera_settings(CameraConfig())


@pytest.fixture(scope="module")
def camera():
    """The ASTRI camera with noisy pixels."""
    config = CameraConfig(noisy_fraction=0.02)
    return camera_model(config, OpticsConfig(), astri_camera(), np.array([3]), 5)


def counters(n_images):
    number = np.arange(n_images)
    return number.astype(np.uint32), np.zeros(n_images, np.uint32), 0 * number


def words_of(n, stream, seed=0):
    return philox(np.arange(n, dtype=np.uint32), int(stream) << 24, np.uint32(seed), 0, key=KEY)


@pytest.mark.parametrize("crosstalk", [0.0, 0.1, 0.5])
def test_crosstalk(call, crosstalk):
    n = 20_000
    w0, w1, w2, _ = words_of(n, Stream.ARRIVAL, 4)
    found = call(avalanches, w0, crosstalk=crosstalk)
    looped = [loops.avalanches(int(w), crosstalk) for w in w0[:500]]
    np.testing.assert_array_equal(found[:500], looped)
    mean, variance = 1 / (1 - crosstalk), crosstalk / (1 - crosstalk) ** 2
    assert found.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / n) + 1e-12)
    assert found.var() == pytest.approx(variance, rel=0.15)

    number = np.tile([0.0, 1, 5, 60, 500], n // 5)
    more = call(negative_binomial, number, w1, w2, crosstalk=crosstalk)
    looped = [loops.negative_binomial(*a, int(b), int(c)) for a, b, c in zip(
        [(k, crosstalk) for k in number[:500]], w1, w2, strict=False)]  # fmt: skip
    np.testing.assert_array_equal(more[:500], looped)
    for k in np.unique(number):
        some = more[number == k]
        error = math.sqrt(k * variance / len(some))
        assert some.mean() == pytest.approx(k * (mean - 1), abs=4 * error + 2e-3)
        assert some.var() == pytest.approx(k * variance, rel=0.2)


def test_negative_binomial_against_scipy():
    n = 200_000
    w0, w1, _, _ = words_of(n, Stream.LIGHT)
    for k, crosstalk in ((3, 0.1), (100, 0.1), (20, 0.5), (1000, 0.2)):
        more = negative_binomial(np.full(n, float(k)), w0, w1, crosstalk=crosstalk)
        points = np.unique(np.quantile(more, [0.05, 0.3, 0.5, 0.8, 0.98, 0.999]))
        found = [(more <= point).mean() for point in points]
        expected = nbinom.cdf(points, k, 1 - crosstalk)
        # Statistics of 2e5 draws, and 1e-3 of the expansion.
        np.testing.assert_allclose(found, expected, atol=5e-3)


def test_noise_draws(call, camera):
    n = 5000
    words = words_of(n, Stream.NOISE)[0]
    words[:2] = [0, 2**32 - 1]
    node, fraction = (a[0, :n] for a in (camera.noise_node, camera.noise_fraction))
    node, fraction = np.resize(node, n), np.resize(fraction, n)
    node[-1], fraction[-1] = camera.noise.shape[0] - 1, 0.0  # the lid is closed
    for kind in range(N_KINDS):
        found = call(
            noise_quantile, camera.noise, node, fraction, words, kind=kind, step=QUANTILE_STEP
        )
        looped = [
            loop_noise_quantile(camera.noise, int(a), float(b), kind, int(c), QUANTILE_STEP)
            for a, b, c in zip(node, fraction, words, strict=True)
        ]
        np.testing.assert_allclose(found, looped, rtol=1e-12, atol=1e-12)
        assert np.all(np.isfinite(found))
        assert found[0] == found[:-1][fraction[:-1] == fraction[0]].max()
    mixed = np.arange(n) % N_KINDS  # one kind for each word
    found = noise_quantile(camera.noise, node, fraction, words, kind=mixed, step=QUANTILE_STEP)
    own = noise_quantile(camera.noise, node, fraction, words, kind=2, step=QUANTILE_STEP)
    np.testing.assert_array_equal(found[mixed == 2], own[mixed == 2])
    np.testing.assert_array_equal(
        call(byte_normal, words), [loop_byte_normal(int(w)) for w in words]
    )


def test_readings_beyond_a_signal(call, camera):
    signals = np.array(
        [*SIGNAL_LEVELS, 0.4, 1.5, 3.0, 7.99, 8.01, 20.0, 32.01, 50.0, 64.0, 1e3, 1e6]
    )
    n_words = 100
    signal = np.repeat(signals, n_words).reshape(len(signals), n_words)
    word = np.broadcast_to(words_of(n_words, Stream.SIGNAL)[0], signal.shape).copy()
    pixel = np.resize(np.arange(2000), signal.shape)
    node, fraction = camera.noise_node[0, pixel], camera.noise_fraction[0, pixel]
    node[:, -1], fraction[:, -1] = camera.noise.shape[0] - 1, 0.0  # the lid is closed
    found = call(peak_excess, camera.noise, node, fraction, signal, word, step=QUANTILE_STEP)
    looped = [
        loop_peak_excess(camera.noise, *(a.item() for a in row), QUANTILE_STEP)
        for row in zip(node.flat, fraction.flat, signal.flat, word.flat, strict=True)
    ]
    np.testing.assert_allclose(found.ravel(), looped, rtol=1e-12, atol=1e-12)

    def of(kind, row):
        place = node[row], fraction[row]
        return noise_quantile(camera.noise, *place, word[row], kind=kind, step=QUANTILE_STEP)

    rows = {signal: row for row, signal in enumerate(signals)}
    for kind, level in enumerate(SIGNAL_LEVELS):
        np.testing.assert_allclose(found[rows[level]], of(kind, rows[level]), rtol=1e-12)
    middle = 0.5 * (of(2, rows[3.0]) + of(3, rows[3.0]))
    np.testing.assert_allclose(found[rows[3.0]], middle, rtol=1e-12)
    # Beyond the last level, half way to the noise at the peak where the signal is twice as strong.
    middle = 0.5 * (of(NOISE_SLOW - 1, rows[64.0]) + of(NOISE_SLOW, rows[64.0]))
    np.testing.assert_allclose(found[rows[64.0]], middle, rtol=1e-12)
    np.testing.assert_allclose(found[rows[1e6]], of(NOISE_SLOW, rows[1e6]), atol=1e-4)


def test_pulses_and_the_gate(camera):
    """A silent camera of equal pixels: what a pulse gives, by its time relative to the gate."""
    settings = SETTINGS._replace(gain_spread=0.0, low_gain_noise_adu=0.0, adc_max=65535)
    camera = camera._replace(
        noise=np.zeros_like(camera.noise),
        gain=np.ones_like(camera.gain) * np.array([50.0, 2.0])[:, None],
        baseline=np.full_like(camera.baseline, 1000.0),
    )
    tau, gate = settings.peaking_time_ns, settings.gate_ns
    late, early = gate / 2, -gate / 2  # light whose peak is at the end or beginning of the gate
    times = [0.0, early, late, late + tau, late + tau / 2, early - tau, early - tau / 2, late + 99]
    half = 0.25 * math.e
    expected = [1.0, 1.0, 1.0, 0.0, half, 4 * math.exp(-2), 2.25 * math.exp(-1), 0.0]
    amplitude = np.zeros((1, len(camera.module)))
    amplitude[0, : len(times)] = 400.0
    time = np.zeros_like(amplitude)
    time[0, : len(times)] = times
    found = respond(
        PixelSums(amplitude, amplitude, amplitude * time), *counters(1), camera, settings=settings,
        key=KEY, forced=True,
    ).adc[0].astype(float)  # fmt: skip
    np.testing.assert_allclose(found[0, : len(times)], 1000 + 20_000 * np.array(expected), atol=0.5)
    np.testing.assert_allclose(found[1, : len(times)], 1000 + 800 * np.array(expected), atol=0.5)
    assert np.all(found[:, len(times) :] == 1000)


def test_saturation_and_linearity(camera):
    amplitude = np.broadcast_to(np.array([20.0, 200, 1500])[:, None], (3, len(camera.module)))
    sums = PixelSums(amplitude, amplitude, 0 * amplitude)
    adc = respond(
        sums, *counters(3), camera, settings=SETTINGS, key=KEY, forced=True
    ).adc.astype(float)  # fmt: skip
    rate = noise_rate(camera.noise_node, camera.noise_fraction)[0]
    alive = (camera.gain[0, 0] > 0) & (rate < 100)
    # The scale ends at 45 avalanches in the high gain and near 2000 in the low one.
    assert np.all(adc[1:, 0, alive] == SETTINGS.adc_max)
    reading = (adc[:, 1] - camera.baseline[0, 1])[:, alive] / camera.gain[0, 1][alive]
    # Beyond the signal is the mean level of the noise, 1.11 avalanches of an area of e^2 tau / 4,
    # and for 20 avalanches the 4 / 3 variance / (4 S) that the best place in the gate gives.
    level = rate[alive].mean() * 1e-3 / 0.9 * 37.5 * math.e**2 / 4
    beyond = level + 1.77**2 / 3 / np.array([20, 200, 1500])
    error = math.sqrt((1.8**2 + 0.06**2 * 1500) / alive.sum())
    np.testing.assert_allclose(
        reading.mean(axis=1), np.array([20, 200, 1500]) + beyond, atol=5 * error
    )


def test_byte_normal_is_standard():
    one = np.arange(256) - 127.5
    scale = byte_normal(np.array([2**32 - 1], np.uint32))[0] / (4 * 127.5)
    assert 4 * np.mean(one**2) * scale**2 == pytest.approx(1)
    assert byte_normal(np.array([0], np.uint32))[0] == -byte_normal(np.array([2**32 - 1]))[0]
