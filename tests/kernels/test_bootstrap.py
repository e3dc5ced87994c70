"""Poisson numbers by the name of a shower: their distribution, and histograms made with them."""

import numpy as np
import pytest
from scipy import stats

from astri_gpu.backend import make_backend
from astri_gpu.backend_cuts import bootstrap_histograms, bootstrap_numbers
from astri_gpu.kernels.bootstrap import (
    poisson_weights,
    replica_histograms,
    replica_numbers,
    sum_by_cell,
)
from astri_gpu.kernels.loops import bootstrap as loops

SMALLEST_P = 1e-3
"""The numbers are fixed: a test that passes once passes always."""


@pytest.fixture(scope="module")
def sample():
    """Return cells (some outside), weights and keys of events, three to a shower."""
    rng = np.random.default_rng(1)
    keys = np.repeat(rng.integers(-(2**63), 2**63, 500), 3)
    return rng.integers(-2, 14, 1500), 10 ** rng.uniform(-6, 0, 1500), keys


def test_numbers_are_poisson_of_mean_one():
    numbers = replica_numbers(np.arange(25_000) << 20, n_replicas=12, seed=4)
    for one in numbers:
        assert np.mean(one) == pytest.approx(1, abs=4 / np.sqrt(one.size))
        assert np.var(one) == pytest.approx(1, abs=4 * np.sqrt(3 / one.size))
    seen = np.bincount(numbers.ravel(), minlength=7)
    expected = numbers.size * stats.poisson.pmf(np.arange(6), 1)
    expected = np.append(expected, numbers.size - expected.sum())
    observed = np.append(seen[:6], seen[6:].sum())
    assert stats.chisquare(observed, expected).pvalue > SMALLEST_P
    drawn = np.bincount(np.random.default_rng(1).poisson(1, numbers.size), minlength=7)
    table = np.array([observed, np.append(drawn[:6], drawn[6:].sum())])
    assert stats.chi2_contingency(table).pvalue > SMALLEST_P
    # Neither replicas nor neighbouring showers know of each other.
    correlation = np.corrcoef(numbers[:, :-1].reshape(12, -1))
    assert np.abs(correlation - np.eye(12)).max() < 5 / np.sqrt(25_000)
    assert abs(np.corrcoef(numbers[:, 1:].ravel(), numbers[:, :-1].ravel())[0, 1]) < 0.01


def test_every_text_draws_the_same(call, sample):
    keys = sample[2]
    expected = np.array([poisson_weights(keys, replica, seed=2**40 + 7) for replica in range(6)])
    assert expected.dtype == np.float64
    found = call(replica_numbers, keys, n_replicas=6, seed=2**40 + 7)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    again = loops.replica_numbers(keys, n_replicas=6, seed=2**40 + 7, n_threads=2)
    np.testing.assert_array_equal(again, expected)
    assert call(replica_numbers, keys, n_replicas=0, seed=1).shape == (0, len(keys))


def test_a_number_belongs_to_shower_replica_and_seed(sample):
    keys = sample[2]
    numbers = poisson_weights(keys, 5, seed=1)
    np.testing.assert_array_equal(numbers[::3], numbers[1::3])  # uses of one shower
    np.testing.assert_array_equal(poisson_weights(keys[::-1][:50], 5, seed=1), numbers[::-1][:50])
    for other in ({"replica": 6, "seed": 1}, {"replica": 5, "seed": 2}):
        assert np.mean(poisson_weights(keys, **other) == numbers) < 0.5
    # Both words of the key count.
    assert np.mean(poisson_weights(keys ^ (1 << 40), 5, seed=1) == numbers) < 0.5


def test_histograms_are_weighted_sums(call, sample):
    cell, weight, keys = sample
    found = call(replica_histograms, cell, weight, keys, n_cells=12, n_replicas=6, seed=3)
    expected = np.zeros((6, 12))
    inside = (cell >= 0) & (cell < 12)
    for replica in range(6):
        number = poisson_weights(keys, replica, seed=3)
        np.add.at(expected[replica], cell[inside], (weight * number)[inside])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    options = {"n_cells": 12, "n_replicas": 6, "seed": 3}
    again = loops.replica_histograms(cell, weight, keys, **options, n_threads=2)
    np.testing.assert_allclose(again, expected, rtol=1e-12)
    assert call(replica_histograms, cell, weight, keys, **(options | {"n_replicas": 0})).size == 0


def test_the_spread_of_replicas_is_the_poisson_error():
    rng = np.random.default_rng(3)
    cell, weight = rng.integers(0, 5, 2000), rng.exponential(1, 2000)
    options = {"n_cells": 5, "n_replicas": 1000, "seed": 8, "n_threads": 2}
    found = loops.replica_histograms(cell, weight, np.arange(2000), **options)
    variance = np.bincount(cell, weight**2)
    np.testing.assert_allclose(found.var(axis=0), variance, rtol=5 * np.sqrt(2 / 1000))
    mean = np.bincount(cell, weight)
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - mean), 4 * np.sqrt(variance / 1000))
    # Ten uses of a shower are one event of ten times the weight.
    found = loops.replica_histograms(cell, weight, np.arange(2000) // 10, **options)
    whole = np.zeros((200, 5))
    np.add.at(whole, (np.arange(2000) // 10, cell), weight)
    np.testing.assert_allclose(found.var(axis=0), (whole**2).sum(0), rtol=5 * np.sqrt(2 / 1000))


def test_sums_by_cell_span_many_pieces(call):
    rng = np.random.default_rng(4)
    cell, values = rng.integers(0, 7, 9000), rng.normal(size=9000)
    found = call(sum_by_cell, cell, values, n_cells=8)
    np.testing.assert_allclose(found, np.bincount(cell, values, minlength=8), rtol=1e-11)


@pytest.mark.parametrize("name", ["numpy", "cpu", "jax"])
def test_backends_take_any_integers(sample, name):
    cell, weight, keys = sample
    backend = make_backend(name, threads=1)
    numbers = bootstrap_numbers(backend, keys, n_replicas=5, seed=9)
    found = bootstrap_histograms(
        backend, cell.astype(np.int16), weight, keys, n_cells=14, n_replicas=5, seed=9
    )
    used = cell >= 0
    expected = [np.bincount(cell[used], (weight * row)[used], minlength=14) for row in numbers]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
