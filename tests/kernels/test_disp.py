"""Displacements and their sides, against one image at a time and against all 2^n choices."""

import itertools

import numpy as np
import pytest

from astri_gpu.kernels.disp import disp_target, disp_vector, resolve_head_tail

WEIGHT = 2.0


def events(n_slots, n_events=60, seed=1, noise=1.0):
    """Return centroids, displacements, weights, probabilities and used slots of random events.

    `noise` scales how far the displacements are off against what their weights say.
    """
    rng = np.random.default_rng(seed)
    shape = (n_events, n_slots)
    source = rng.normal(0, 2, (n_events, 1, 2))
    length, angle = rng.uniform(0.3, 3, shape), rng.uniform(0, 2 * np.pi, shape)
    axis = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    error = rng.uniform(0.05, 0.5, shape)
    side = np.where(rng.random(shape) < 0.5, 1, -1)
    centroid = source - length[..., None] * axis
    disp = (side * (length + rng.normal(0, noise * error)))[..., None] * axis
    probability = np.clip(0.5 + side * rng.normal(0.2, 0.3, shape), 0.01, 0.99)
    used = rng.random(shape) < 0.8
    return (*np.moveaxis(centroid, -1, 0), *np.moveaxis(disp, -1, 0), error**-2, probability, used)


def cost(columns, sign):
    """Return what one choice of sides costs, the mean and the spread; for one event."""
    lon, lat, dlon, dlat, weight, probability = columns
    lon, lat = lon + sign * dlon, lat + sign * dlat
    mean = np.average(lon, weights=weight), np.average(lat, weights=weight)
    squares = weight @ ((lon - mean[0]) ** 2 + (lat - mean[1]) ** 2)
    chance = np.where(sign > 0, probability, 1 - probability)
    return squares - WEIGHT * np.sum(np.log(chance)), *mean, np.sqrt(squares / weight.sum())


def exhaustive(columns):
    """Return the lowest cost of all choices."""
    n_images = len(columns[0])
    return min(cost(columns, np.array(s))[0] for s in itertools.product((1, -1), repeat=n_images))


@pytest.mark.parametrize("n_slots", [1, 2])
def test_head_tail_finds_the_best_of_all_choices(call, n_slots):
    columns = events(n_slots)
    check_best(columns, call(resolve_head_tail, *columns, sign_weight=WEIGHT))


def test_head_tail_finds_the_best_of_all_choices_of_many():
    for n_slots in (3, 5, 7):
        columns = events(n_slots)
        check_best(columns, resolve_head_tail(*columns, sign_weight=WEIGHT))


def check_best(columns, found):
    """Compare a result with all choices of every event."""
    used = columns[-1]
    assert not found.is_plus[~used].any()
    for k in range(len(used)):
        rows = used[k]
        if not rows.any():
            assert np.isnan([found.fov_lon[k], found.fov_lat[k], found.spread[k]]).all()
            continue
        own = [values[k, rows] for values in columns[:-1]]
        sign = np.where(found.is_plus[k, rows], 1, -1)
        now, lon, lat, spread = cost(own, sign)
        np.testing.assert_allclose(
            [found.fov_lon[k], found.fov_lat[k], found.spread[k]], [lon, lat, spread], atol=1e-9
        )
        assert now == pytest.approx(exhaustive(own), abs=1e-9)


def test_head_tail_stays_close_to_the_best_where_errors_are_not_as_expected():
    columns = events(6, n_events=200, noise=6.0)
    found = resolve_head_tail(*columns, sign_weight=WEIGHT)
    excess = []
    for k in range(200):
        rows = columns[-1][k]
        if rows.sum() < 2:
            continue
        own = [values[k, rows] for values in columns[:-1]]
        now = cost(own, np.where(found.is_plus[k, rows], 1, -1))[0]
        excess.append(now / exhaustive(own) - 1)
    assert np.mean(np.array(excess) > 1e-9) < 0.05
    assert np.mean(excess) < 0.01


def test_two_images_are_exact_whatever_their_errors():
    columns = events(2, n_events=300, noise=10.0, seed=3)
    found = resolve_head_tail(*columns, sign_weight=WEIGHT)
    for k in np.flatnonzero(columns[-1].all(axis=1)):
        own = [values[k] for values in columns[:-1]]
        now = cost(own, np.where(found.is_plus[k], 1, -1))[0]
        assert now == pytest.approx(exhaustive(own), abs=1e-9)


def test_a_certain_side_is_never_changed(call):
    columns = list(events(2, noise=10.0))
    columns[5] = np.broadcast_to([1.0, 0.0], columns[5].shape).copy()
    found = call(resolve_head_tail, *columns, sign_weight=WEIGHT)
    used = columns[-1]
    assert found.is_plus[:, 0][used[:, 0]].all()
    assert not found.is_plus[:, 1].any()
    assert used.all(axis=1).sum() > 10


def test_one_image_takes_its_more_probable_side():
    one = np.ones((2, 1))
    found = resolve_head_tail(
        one, 0 * one, one, one, one, np.array([[0.51], [0.49]]), one > 0, sign_weight=WEIGHT
    )
    np.testing.assert_allclose(found.fov_lon, [2, 0])
    np.testing.assert_allclose(found.fov_lat, [1, -1])
    np.testing.assert_array_equal(found.spread, 0)


def test_unused_slots_do_not_matter_whatever_they_hold():
    columns = events(4)
    used = columns[-1]
    found = resolve_head_tail(*columns, sign_weight=WEIGHT)
    spoilt = [np.where(used, values, np.nan) for values in columns[:-1]]
    for left, right in zip(
        found, resolve_head_tail(*spoilt, used, sign_weight=WEIGHT), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_head_tail_is_compiled_once(one_trace):
    one_trace(resolve_head_tail, events(2), events(2, seed=2), sign_weight=WEIGHT, atol=1e-12)


def test_target_and_vector_are_inverse(call):
    rng = np.random.default_rng(4)
    lon, lat, source_lon, source_lat = rng.normal(0, 3, (4, 50))
    psi = rng.uniform(-180, 180, 50)
    target = call(disp_target, lon, lat, psi, source_lon, source_lat)
    vector = call(disp_vector, *target, psi)
    np.testing.assert_allclose(vector.lon, source_lon - lon, atol=1e-12)
    np.testing.assert_allclose(vector.lat, source_lat - lat, atol=1e-12)


def test_target_by_hand():
    # An axis at 90 deg points along latitude; across it is then against longitude.
    zero, one = np.zeros(1), np.ones(1)
    target = disp_target(zero, zero, 90 * one, -0.5 * one, 2 * one)
    np.testing.assert_allclose([target.along, target.across], [[2.0], [0.5]], atol=1e-12)
