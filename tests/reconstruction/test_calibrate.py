"""Expected errors hold what they promise, on numbers whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astri_gpu.reconstruction.calibrate import calibrate, contained, energy_score, quarters


def test_two_thirds_of_the_errors_are_below_the_expected_one():
    rng = np.random.default_rng(5)
    spread = rng.uniform(0.1, 1.0, 20_000)
    error = np.abs(rng.normal(0, 2 * spread))
    expected = calibrate(spread, error)
    np.testing.assert_allclose(expected(spread) / (2 * spread), 0.9945, rtol=0.25)  # 68 % in sigma
    fresh = rng.uniform(0.2, 0.9, 20_000)
    inside = np.abs(rng.normal(0, 2 * fresh)) < expected(fresh)
    assert inside.mean() == pytest.approx(0.68, abs=0.02)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=500))
def test_an_expected_error_never_falls_with_the_spread(pairs):
    spread, error = np.array(pairs).T
    for rms in (False, True):
        found = calibrate(spread, error, rms=rms)
        assert np.all(np.diff(found.spread) > 0)
        assert np.all(np.diff(found.error) >= -1e-12)
        assert found.error.min() >= error.min() - 1e-12
        assert found.error.max() <= error.max() + 1e-12


def test_without_a_spread_there_is_one_error():
    found = calibrate(np.zeros(1000), np.linspace(0, 1, 1000))
    assert found.error == pytest.approx([0.68], abs=0.002)
    chance = calibrate(np.zeros(4), np.array([0.0, 1.0, 0.0, 1.0]), rms=True)
    assert chance.error == pytest.approx([0.5**0.5])


def test_quarters_divide_every_energy_bin_evenly():
    rng = np.random.default_rng(2)
    log_energy = rng.normal(0.7, 0.6, 30_000)
    error = rng.exponential(10**-log_energy)
    edges, limits = quarters(log_energy, error)
    assert np.all(np.diff(edges) > 0)
    assert np.all(np.diff(limits, axis=1) >= 0)
    place = np.digitize(10**log_energy, edges[1:-1])
    for k in range(len(limits)):
        inside = place == k
        assert inside.sum() >= 100
        shares = np.bincount(np.sum(error[inside, None] > limits[k], axis=1), minlength=4)
        np.testing.assert_allclose(shares / inside.sum(), 0.25, atol=0.02)


@given(st.lists(st.floats(-3, 4), max_size=300))
def test_quarters_cover_any_energies(energies):
    log_energy = np.array(energies)
    edges, limits = quarters(log_energy, np.ones(len(energies)))
    if not energies:
        assert edges.shape == (0,)
        assert limits.shape == (0, 3)
        return
    assert limits.shape == (len(edges) - 1, 3)
    assert np.isfinite(limits).all()
    assert edges[0] <= 10 ** log_energy.min() * (1 + 1e-9)
    assert edges[-1] >= 10 ** log_energy.max() * (1 - 1e-9)


def test_scores_of_energies():
    true = np.linspace(-1, 2, 1000)
    score = energy_score(true + np.log10(1.1), true)
    assert score == pytest.approx({"bias": 0.1, "resolution": 0.0}, abs=1e-9)
    assert np.isnan(energy_score(true[:0], true[:0])["bias"])
    assert np.isnan(contained(true[:0]))
