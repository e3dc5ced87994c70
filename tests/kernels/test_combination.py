"""Means over the images of an event, against NumPy's on one event at a time."""

import numpy as np
import pytest

from astri_gpu.kernels import combination


@pytest.fixture
def slots():
    """Return values, errors and used slots of events with none to four images."""
    rng = np.random.default_rng(1)
    used = np.arange(4) < np.arange(5).repeat(6)[:, None]
    used = rng.permuted(used, axis=1)
    return rng.normal(2, 3, used.shape), rng.uniform(0.1, 2, used.shape), used


def test_weighted_mean(call, slots):
    values, error, used = slots
    found = call(combination.weighted_mean, values, error, used)
    alone = call(combination.expected_error, error, used)
    for k, row in enumerate(used):
        got = [found.mean[k], found.spread[k], found.error[k], alone[k]]
        if not row.any():
            assert np.isnan(got).all()
            continue
        weight = error[k, row] ** -2
        mean = np.average(values[k, row], weights=weight)
        spread = np.sqrt(np.average((values[k, row] - mean) ** 2, weights=weight))
        np.testing.assert_allclose(got, [mean, spread, *[weight.sum() ** -0.5] * 2], atol=1e-12)


def test_count_total_and_highest(call, slots):
    values, _, used = slots
    n_images = call(combination.count, used)
    assert n_images.dtype == np.int32
    np.testing.assert_array_equal(n_images, used.sum(axis=1))
    np.testing.assert_allclose(
        call(combination.total, values, used), np.sum(values, axis=1, where=used)
    )
    highest = call(combination.highest, values, used)
    filled = np.where(used, values, -np.inf).max(axis=1)
    np.testing.assert_array_equal(highest, np.where(used.any(axis=1), filled, np.nan))


def test_unused_slots_may_hold_anything(slots):
    values, error, used = slots
    found = combination.weighted_mean(values, error, used)
    nan, zero = np.where(used, values, np.nan), np.where(used, error, 0.0)
    for left, right in zip(found, combination.weighted_mean(nan, zero, used), strict=True):
        np.testing.assert_array_equal(left, right)


def test_directions_are_weighted_by_their_errors(call):
    first = np.array([0.0, 1.0, 5.0]), np.array([0.0, -2.0, 6.0])
    second = np.array([1.0, 3.0, np.nan]), np.array([2.0, 2.0, np.nan])
    has_second = np.array([True, True, False])
    lon, lat = call(
        combination.combine_directions,
        first,
        second,
        np.array([0.1, 0.3, 0.2]),
        np.array([0.1, 0.1, np.nan]),
        has_second,
    )
    np.testing.assert_allclose(lon, [0.5, 2.8, 5.0])
    np.testing.assert_allclose(lat, [1.0, 1.6, 6.0])
