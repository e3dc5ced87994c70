"""Gaussians fitted to events in rings: known mixtures come back, on every array backend."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels.gaussians import fit_radial_gaussians, fit_shares

EDGES = np.linspace(0.0, 1.0, 101)
SHARE = np.array([[0.6, 0.3, 0.1], [0.8, 0.15, 0.05]])
SIGMA = np.array([[0.03, 0.07, 0.2], [0.02, 0.05, 0.15]])


def in_rings(share, sigma, edges=EDGES):
    """Return the share of events in each ring, (cell, ring)."""
    beyond = np.exp(-(edges**2) / (2 * sigma[:, :, None] ** 2))
    return (share[:, :, None] * (beyond[:, :, :-1] - beyond[:, :, 1:])).sum(axis=1)


def test_known_mixtures_come_back(xp):
    counts = 1e5 * in_rings(SHARE, SIGMA)
    # Compiled text would be long for JAX: few steps, from which the rings are already met.
    n_steps = 400 if xp is np else 12
    found = fit_radial_gaussians(xp.asarray(counts), xp.asarray(EDGES), n_steps=n_steps)
    share, sigma = np.asarray(found.share), np.asarray(found.sigma)
    np.testing.assert_allclose(share.sum(axis=1), 1, rtol=1e-12)
    assert (np.diff(sigma, axis=1) > 0).all()
    cumulated = np.cumsum(in_rings(share, sigma), axis=1)
    np.testing.assert_allclose(
        cumulated, np.cumsum(counts, axis=1) / 1e5, atol=2e-3 if xp is np else 3e-2
    )
    if xp is np:
        np.testing.assert_allclose(share, SHARE, atol=0.03)
        np.testing.assert_allclose(sigma, SIGMA, rtol=0.05)


def test_backends_agree(xp):
    rng = np.random.default_rng(1)
    counts = rng.poisson(50 * in_rings(SHARE, SIGMA)).astype(float)
    wanted = fit_radial_gaussians(counts, EDGES, n_steps=10)
    found = fit_radial_gaussians(xp.asarray(counts), xp.asarray(EDGES), n_steps=10)
    np.testing.assert_allclose(np.asarray(found.sigma), wanted.sigma, rtol=1e-9)
    np.testing.assert_allclose(np.asarray(found.share), wanted.share, rtol=1e-9)


def test_likelihood_rises_with_every_step():
    rng = np.random.default_rng(2)
    counts = rng.poisson(300 * in_rings(SHARE, SIGMA)).astype(float)
    last = -np.inf
    for n_steps in (1, 2, 5, 20, 100):
        found = fit_radial_gaussians(counts, EDGES, n_steps=n_steps)
        likelihood = (counts * np.log(in_rings(found.share, found.sigma))).sum()
        assert likelihood >= last - 1e-9
        last = likelihood


def test_one_gaussian_is_found_as_its_width():
    counts = 1e4 * in_rings(np.ones((1, 1)), np.full((1, 1), 0.05))
    found = fit_radial_gaussians(counts, EDGES, n_steps=100)
    mean = np.sqrt((found.share * found.sigma**2).sum())
    assert mean == pytest.approx(0.05, rel=1e-3)


def test_empty_cells_are_not_valid():
    counts = np.zeros((2, 100))
    counts[1, 3] = 5.0
    found = fit_radial_gaussians(counts, EDGES, n_steps=5)
    assert found.valid.tolist() == [False, True]
    assert np.isnan(found.sigma[0]).all()
    # All events in one ring: widths near its radius (r = s sqrt(2 ln 2) at the median).
    assert np.isfinite(found.sigma[1]).all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=30),
    st.floats(1e-6, 1e6),
)
def test_any_events_give_finite_gaussians(rings, weight):
    counts = weight * np.bincount(rings, minlength=100).astype(float)[None]
    found = fit_radial_gaussians(counts, EDGES, n_steps=30)
    assert np.isfinite(found.sigma).all()
    assert (found.sigma > 0).all()
    assert (found.share >= 0).all()
    assert found.share.sum() == pytest.approx(1)


def test_known_shares_come_back(xp):
    counts = 1e4 * in_rings(SHARE, SIGMA)
    n_steps = 1000 if xp is np else 30
    found = np.asarray(
        fit_shares(xp.asarray(counts), xp.asarray(EDGES), xp.asarray(SIGMA), n_steps=n_steps)
    )
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(found, SHARE, atol=1e-4 if xp is np else 0.1)


def test_shares_are_those_of_any_optimiser():
    """The likelihood of no other shares is higher: SciPy climbs to the same place."""
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(3)
    counts = rng.poisson(200 * in_rings(SHARE[:1], SIGMA[:1])).astype(float)
    found = fit_shares(counts, EDGES, SIGMA[:1], n_steps=3000)[0]

    def loss(values):
        share = np.exp(values - np.logaddexp.reduce(values))
        return -(counts * np.log(in_rings(share[None], SIGMA[:1]))).sum()

    wanted = optimize.minimize(loss, np.log([0.4, 0.4, 0.2]), tol=1e-10).x
    share = np.exp(wanted - np.logaddexp.reduce(wanted))
    np.testing.assert_allclose(found, share, atol=2e-3)


def test_shares_of_nothing_are_nan_and_far_events_harm_nothing():
    counts = np.zeros((3, 100))
    counts[1, 99] = 3.0  # hundreds of widths away
    counts[2, 0] = 1.0
    found = fit_shares(counts, EDGES, np.full((3, 3), [0.001, 0.002, 0.003]), n_steps=5)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:].sum(axis=1), 1)
