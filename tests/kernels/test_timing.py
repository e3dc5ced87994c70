"""Time gradient: least trimmed squares against a search over all subsets of the pixels."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import timing as tim

OPTIONS = {"n_starts": 20, "n_steps": 10}
THOROUGH = {"n_starts": 100, "n_steps": 10}


def images(n_images=12, n_slots=10, seed=1, dtype=np.float32):
    """Return times on a line with outliers, which slots are used, and positions."""
    rng = np.random.default_rng(seed)
    along = rng.uniform(-0.8, 0.8, (n_images, n_slots))
    slope = rng.uniform(-20, 20, (n_images, 1))
    time = 12 + slope * along + rng.normal(0, 0.7, along.shape)
    time += 25 * (rng.random(along.shape) < 0.1)
    n = rng.integers(4, n_slots + 1, (n_images, 1))
    return time.astype(dtype), np.arange(n_slots) < n, along


def slow_lts(time, along):
    """Return (sum of squares, slope, intercept) of the best line through 85 % of the pixels."""
    n = len(time)
    kept = math.floor(0.85 * n)
    kept = n if kept < 3 else kept
    best = (math.inf, math.nan, math.nan)
    for subset in map(list, itertools.combinations(range(n), kept)):
        slope, intercept = np.polyfit(along[subset], time[subset].astype(float), 1)
        residual = time[subset] - slope * along[subset] - intercept
        best = min(best, (float(residual @ residual), slope, intercept))
    return best


def trimmed_error(time, along, slope, intercept):
    residual = np.sort((time - slope * along - intercept) ** 2)
    kept = math.floor(0.85 * len(time))
    return residual[: len(time) if kept < 3 else kept].sum()


@pytest.mark.parametrize("options", [OPTIONS, THOROUGH], ids=["default", "thorough"])
def test_timing_equals_the_best_of_all_subsets(call, options):
    time, used, along = images(n_images=40)
    found = call(tim.timing, time, used, along, **options)
    missed = 0
    for image, mask in enumerate(used):
        t, x = time[image, mask], along[image, mask]
        error, slope, intercept = slow_lts(t, x)
        values = [column[image] for column in found]
        reached = trimmed_error(t, x, *values[:2])
        assert reached >= error * (1 - 1e-9) - 1e-9
        rms = math.sqrt(np.mean((t - values[0] * x - values[1]) ** 2))
        np.testing.assert_allclose(values[2], rms, rtol=1e-9)
        if reached > error * (1 + 1e-6) + 1e-9:
            missed += 1
            continue
        np.testing.assert_allclose(values[:2], [slope, intercept], rtol=1e-5, atol=1e-6)
    # Twenty starts need not find the best of all lines, a hundred do.
    assert missed <= (1 if options is OPTIONS else 0)


def test_exact_lines_are_found_through_outliers(call):
    _, used, along = images(n_slots=40)
    used[:] = True
    slope = np.linspace(-30, 30, len(used))[:, None]
    time = 5 + slope * along
    time[:, ::8] += 50  # 5 of 40 pixels: within the 15 % that are left out
    found = call(tim.timing, time, used, along, **OPTIONS)
    np.testing.assert_allclose(found.slope, slope[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.intercept, 5, rtol=1e-9)
    np.testing.assert_allclose(found.deviation, math.sqrt(5 / 40) * 50, rtol=1e-9)
    assert all(column.dtype == np.float64 for column in found)


def test_empty_slots_and_images_are_inert(call, assert_same):
    time, used, along = images()
    found = call(tim.timing, time, used, along, **OPTIONS)
    pad = ((0, 2), (0, 6))
    padded = call(
        tim.timing, np.pad(time, pad, constant_values=np.nan), np.pad(used, pad),
        np.pad(along, pad, constant_values=np.nan), **OPTIONS,
    )  # fmt: skip
    assert_same(tim.Timing(*(column[:-2] for column in padded)), found)
    assert all(np.isnan(column[-2:]).all() for column in padded)
    n = used[0].sum()
    alone = call(tim.timing, time[:1, :n], used[:1, :n], along[:1, :n], **OPTIONS)
    assert_same(alone, tim.Timing(*(column[:1] for column in found)))


def test_rounding_of_the_compiler_does_not_choose_the_pixels(assert_same):
    """Without optimisation XLA rounds residuals that it computes twice in two ways."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    arguments = images(n_images=40)
    compiled = jax.jit(
        partial(tim.timing, **OPTIONS),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    found = compiled(*map(jax.numpy.asarray, arguments))
    assert_same(tim.Timing(*map(np.asarray, found)), tim.timing(*arguments, **OPTIONS))


def test_few_pixels_and_pixels_at_one_place(call):
    time, _, along = images(n_images=5)
    used = np.arange(10) < np.array([0, 1, 2, 3, 8])[:, None]
    along[4] = 0.3
    found = call(tim.timing, time, used, along, **OPTIONS)
    for column in found:
        assert np.isnan(column[[0, 1, 2, 4]]).all()
    # Three pixels: the ordinary fit.
    line = np.polyfit(along[3, :3], time[3, :3].astype(float), 1)
    np.testing.assert_allclose([found.slope[3], found.intercept[3]], line, rtol=1e-9)
    assert call(tim.timing, time[:0], used[:0], along[:0], **OPTIONS).slope.shape == (0,)


def test_starting_pairs_differ_and_are_in_range():
    start = np.arange(200.0)
    for n in range(2, 130):
        first, second = tim.start_pair(np, start, float(n))
        assert ((first >= 0) & (first < n) & (second >= 0) & (second < n)).all()
        assert (first != second).all()
        if n <= 8:
            assert len(set(zip(first, second, strict=True))) == n * (n - 1)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shift=st.floats(-100, 100),
    stretch=st.floats(0.1, 10),
    tilt=st.floats(-30, 30),
)
def test_shift_stretch_and_tilt(seed, shift, stretch, tilt):
    """Adding a line to the times adds it to the fit; the axis may be stretched and reversed."""
    time, used, along = images(6, seed=seed, dtype=np.float64)
    one = tim.timing(time, used, along, **OPTIONS)
    tilted = tim.timing(time + shift + tilt * along, used, along, **OPTIONS)
    np.testing.assert_allclose(tilted.slope, one.slope + tilt, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(tilted.intercept, one.intercept + shift, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(tilted.deviation, one.deviation, rtol=1e-6, atol=1e-6)
    reversed_axis = tim.timing(time, used, -stretch * along, **OPTIONS)
    np.testing.assert_allclose(reversed_axis.slope, -one.slope / stretch, rtol=1e-6)
    np.testing.assert_allclose(reversed_axis.intercept, one.intercept, rtol=1e-6, atol=1e-6)


def test_one_trace_for_two_batches(one_trace):
    one_trace(tim.timing, images(seed=2), images(seed=3), **OPTIONS)
