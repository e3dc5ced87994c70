"""Compaction: the survivors of a mask in a fixed number of slots, and nothing lost unseen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import compaction as co


def random_mask(camera, n_images=6, share=0.15, seed=1):
    return np.random.default_rng(seed).random((n_images, len(camera.lon))) < share


def slow_slots(mask, neighbours, n_slots):
    """For every survivor of one image, the slots of the neighbours that survived."""
    pixels = [int(p) for p in np.nonzero(mask)[0]][:n_slots]
    return pixels, [[pixels.index(n) if n in pixels else -1 for n in neighbours[p]] for p in pixels]


@pytest.mark.parametrize("n_slots", [1, 8, 40, 1000])
def test_slots_hold_the_first_survivors_in_order(call, camera, n_slots):
    mask = random_mask(camera)
    mask[0], mask[1] = False, True
    mask[2] = np.arange(mask.shape[1]) == 7
    values = np.random.default_rng(2).normal(size=mask.shape).astype(np.float32)
    survivors = call(co.compact, mask, n_slots=n_slots)
    slots = call(co.neighbour_slots, mask, survivors, camera.edge)
    gathered = call(co.gather, values, survivors)
    longitude = call(co.gather, camera.lon, survivors)
    assert survivors.used.shape == (len(mask), min(n_slots, mask.shape[1]))
    assert survivors.pixel.dtype == slots.dtype == np.int32
    assert gathered.dtype == np.float32
    for image in range(len(mask)):
        pixels, around = slow_slots(mask[image], camera.edge, n_slots)
        n = len(pixels)
        np.testing.assert_array_equal(survivors.used[image], np.arange(slots.shape[1]) < n)
        np.testing.assert_array_equal(survivors.pixel[image, :n], pixels)
        assert not survivors.pixel[image, n:].any()
        assert survivors.overflow[image] == (mask[image].sum() > n_slots)
        np.testing.assert_array_equal(gathered[image, :n], values[image, pixels])
        np.testing.assert_array_equal(longitude[image, :n], camera.lon[pixels])
        np.testing.assert_array_equal(
            slots[image, :n], np.reshape(around, (n, camera.edge.shape[1]))
        )
        assert (slots[image, n:] == -1).all()


def test_more_slots_and_more_pixels_change_nothing(call, camera):
    mask = random_mask(camera)
    few, many = (call(co.compact, mask, n_slots=n) for n in (30, 60))
    np.testing.assert_array_equal(many.pixel[:, :30], few.pixel)
    np.testing.assert_array_equal(many.used[:, :30], few.used)
    assert not many.used[:, 30:].any()
    padded = np.concatenate([mask, np.zeros((len(mask), 5), dtype=bool)], axis=1)
    again = call(co.compact, padded, n_slots=30)
    np.testing.assert_array_equal(again.pixel, few.pixel)
    np.testing.assert_array_equal(again.used, few.used)
    table = np.full((mask.shape[1] + 5, camera.edge.shape[1] + 1), -1, dtype=np.int32)
    table[:-5, :-1] = camera.edge
    slots = call(co.neighbour_slots, mask, few, camera.edge)
    np.testing.assert_array_equal(call(co.neighbour_slots, padded, again, table)[:, :, :-1], slots)


def test_nan_of_other_pixels_is_not_gathered(call, squares):
    mask = random_mask(squares)
    values = np.where(mask, 1.0, np.nan)
    survivors = call(co.compact, mask, n_slots=40)
    assert (call(co.gather, values, survivors)[survivors.used] == 1).all()


def test_no_image(call, squares):
    mask = random_mask(squares)[:0]
    survivors = call(co.compact, mask, n_slots=8)
    assert survivors.pixel.shape == (0, 8)
    assert call(co.neighbour_slots, mask, survivors, squares.edge).shape[:2] == (0, 8)


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 10**6), n_slots=st.integers(1, 120))
def test_survivors_scattered_back_are_the_mask(hexagons, share, seed, n_slots):
    mask = random_mask(hexagons, 3, share, seed)
    survivors = co.compact(mask, n_slots=n_slots)
    again = np.zeros_like(mask)
    for image in range(3):
        again[image, survivors.pixel[image][survivors.used[image]]] = True
    full = survivors.overflow
    np.testing.assert_array_equal(again[~full], mask[~full])
    assert (again <= mask).all()
    assert (again[full].sum(axis=1) == n_slots).all()


def test_one_trace_for_two_batches(one_trace, squares):
    batches = [(random_mask(squares, seed=seed),) for seed in (3, 4)]
    one_trace(co.compact, *batches, n_slots=20)
    survivors = [(*batch, co.compact(*batch, n_slots=20), squares.corner) for batch in batches]
    one_trace(co.neighbour_slots, *survivors)
    one_trace(co.gather, *[(squares.lon, batch[1]) for batch in survivors])
