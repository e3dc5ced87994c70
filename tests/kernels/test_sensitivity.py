"""Significance and sensitivity against pyirf, closed forms, and their own definition."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyirf.sensitivity import relative_sensitivity as pyirf_sensitivity
from pyirf.statistics import li_ma_significance as pyirf_significance

from astri_gpu.kernels.sensitivity import (
    excess_at_significance,
    li_ma_significance,
    relative_sensitivity,
)

DETECTION = {"min_significance": 5.0, "min_signal_events": 10.0, "min_excess": 0.05}
ALPHAS = (0.2, 1.0, 0.03)


def sensitivity(n_on, n_off, alpha, **changed):
    """Return the kernel's result for numbers."""
    arrays = np.array([n_on], dtype=float), np.array([n_off], dtype=float)
    return float(relative_sensitivity(*arrays, alpha, **(DETECTION | changed))[0])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_significance_is_that_of_pyirf(call, alpha):
    n_on, n_off = np.meshgrid([0.0, 0.3, 1, 7, 40, 2500], [0.0, 0.2, 3, 60, 5000])
    found = call(li_ma_significance, n_on, n_off, alpha)
    np.testing.assert_allclose(found, pyirf_significance(n_on, n_off, alpha), rtol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_sensitivity_is_that_of_pyirf(call, alpha):
    rng = np.random.default_rng(1)
    n_off = 10 ** rng.uniform(0.05, 5, (20, 15))
    n_on = alpha * n_off + 10 ** rng.uniform(0.5, 4, n_off.shape)
    found = call(relative_sensitivity, n_on, n_off, alpha, **DETECTION)
    expected = pyirf_sensitivity(n_on, n_off, alpha)
    assert np.isfinite(expected).all()
    # pyirf looks for the root to 2e-12 of the flux, and subtracts numbers that are nearly equal.
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=4e-12)


def test_pyirf_gives_up_where_the_kernel_does_not(caplog):
    with caplog.at_level(logging.CRITICAL):  # it says so in a warning
        assert np.isnan(pyirf_sensitivity(0.05, 0.0, 0.2))
    assert sensitivity(0.05, 0.0, 0.2) == pytest.approx(10 / 0.05, rel=1e-14)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_without_background_the_excess_is_known(call, alpha):
    found = call(excess_at_significance, np.zeros(3), alpha, min_significance=5.0)
    np.testing.assert_allclose(found, 12.5 / np.log1p(1 / alpha), rtol=1e-14)


@given(
    n_off=st.one_of(st.sampled_from([0.0, 5e-324]), st.floats(-300, 12).map(lambda e: 10**e)),
    alpha=st.floats(0.01, 5),
    sigma=st.floats(0.1, 30),
)
@settings(deadline=None)
def test_the_excess_found_has_the_significance(n_off, alpha, sigma):
    n_off = np.array([n_off])
    excess = excess_at_significance(n_off, alpha, min_significance=sigma)
    # Two more steps of Newton would not move it: it is the root as far as digits go.
    found = li_ma_significance(excess + alpha * n_off, n_off, alpha)
    # One digit of n_on is this share of the excess.
    lost = 1e-15 * float(excess[0] + alpha * n_off[0]) / float(excess[0])
    assert found[0] == pytest.approx(sigma, rel=1e-12 + 4 * lost)


@given(
    signal=st.floats(1e-6, 1e9),
    n_off=st.floats(0, 1e9),
    factor=st.floats(1.0001, 100),
    alpha=st.floats(0.05, 2),
)
@settings(deadline=None)
def test_more_background_is_never_better_and_more_signal_always(signal, n_off, factor, alpha):
    here = sensitivity(signal + alpha * n_off, n_off, alpha)
    brighter = sensitivity(factor * signal + alpha * n_off, n_off, alpha)
    darker = sensitivity(signal + alpha * n_off * factor, n_off * factor, alpha)
    # n_on - alpha n_off has lost these digits of the signal.
    lost = 1 + 1e-12 + 1e-15 * factor * (signal + alpha * n_off) / signal
    assert brighter <= here * lost
    assert darker >= here / lost


def test_no_signal_is_infinite_and_only_nan_is_nan(call):
    n_on = np.array([0.0, 2.0, 1.0, np.nan, 5.0, 5.0])
    n_off = np.array([0.0, 10.0, 10.0, 1.0, np.nan, 0.0])
    found = call(relative_sensitivity, n_on, n_off, 0.2, **DETECTION)
    np.testing.assert_array_equal(found, [np.inf, np.inf, np.inf, np.nan, np.nan, 2.0])


def test_each_condition_limits_where_it_should():
    assert sensitivity(100.0, 0.0, 0.2) == pytest.approx(0.1)  # 10 events
    faint = sensitivity(100.0, 0.0, 0.2, min_signal_events=0.0)  # 5 sigma
    assert faint == pytest.approx(12.5 / np.log(6) / 100)
    assert sensitivity(3e5, 1e6, 0.2) == pytest.approx(0.05 * 2e5 / 1e5)  # 5 % of background
    assert sensitivity(3e5, 1e6, 0.2, min_excess=0.0) < 0.03


def test_shapes_and_types_are_kept_and_compiled_once(one_trace):
    rng = np.random.default_rng(2)
    batches = [(rng.uniform(5, 50, (2, 3)), rng.uniform(0, 9, (2, 3)), 0.2) for _ in range(2)]
    one_trace(relative_sensitivity, *batches, **DETECTION)
