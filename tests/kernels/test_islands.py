"""Islands: labels as a flood fill finds them, in a fixed number of rounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.instrument.astri import astri_geometry
from astri_gpu.kernels import compaction as co
from astri_gpu.kernels import islands as isl
from astri_gpu.kernels.image_types import (
    ImageSettings,
)

STEPS = ImageSettings().island_steps


def flood_fill(mask, neighbours):
    """Return the lists of pixels of the islands of one image, in order of the first pixel."""
    left, islands = {int(p) for p in np.nonzero(mask)[0]}, []
    while left:
        stack, island = [min(left)], set()
        left.remove(stack[0])
        while stack:
            pixel = stack.pop()
            island.add(pixel)
            found = {int(n) for n in neighbours[pixel]} & left
            left -= found
            stack.extend(found)
        islands.append(sorted(island))
    return islands


def random_mask(camera, n_images=12, seed=1):
    rng = np.random.default_rng(seed)
    share = np.linspace(0, 1, n_images)[:, None]
    return rng.random((n_images, len(camera.lon))) < share


def slots_of(mask, neighbours, n_slots=None):
    survivors = co.compact(mask, n_slots=n_slots or mask.shape[1])
    return survivors, co.neighbour_slots(mask, survivors, neighbours)


def all_islands(call, used, around, values):
    label, resolved = call(isl.label_islands, used, around, steps=STEPS)
    size = call(isl.island_sum, np.ones(used.shape, dtype=np.float32), used, label)
    total = call(isl.island_sum, values, used, label)
    return label, resolved, size, total, call(isl.count_islands, used, label, size)


@pytest.mark.parametrize("table", ["edge", "corner"])
def test_labels_sums_and_counts_equal_the_flood_fill(call, camera, table):
    neighbours = getattr(camera, table)
    mask = random_mask(camera)
    charge = np.random.default_rng(2).normal(5, 3, mask.shape).astype(np.float32)
    survivors, around = slots_of(mask, neighbours)
    values = co.gather(charge, survivors)
    values = np.where(survivors.used, values, np.float32(np.nan))
    label, resolved, size, total, counts = all_islands(call, survivors.used, around, values)
    assert resolved.all()
    assert size.dtype == total.dtype == np.float32
    assert label.dtype == counts.n_islands.dtype == np.int32
    for image in range(len(mask)):
        islands = flood_fill(mask[image], neighbours)
        slot_of = {p: s for s, p in enumerate(np.nonzero(mask[image])[0])}
        for island in islands:
            slots = [slot_of[p] for p in island]
            assert set(label[image, slots]) == {slots[0]}
            assert set(size[image, slots]) == {len(slots)}
            expected = sum(float(charge[image, p]) for p in island)
            np.testing.assert_allclose(total[image, slots], expected, rtol=2e-5, atol=1e-4)
        lengths = [len(island) for island in islands]
        assert counts.n_islands[image] == len(lengths)
        assert counts.n_small_islands[image] == sum(n <= 2 for n in lengths)
        assert counts.n_medium_islands[image] == sum(2 < n <= 50 for n in lengths)
        assert counts.n_large_islands[image] == sum(n > 50 for n in lengths)


def test_empty_slots_and_images_are_inert(call, camera, assert_same):
    mask = random_mask(camera)[:6]
    survivors, around = slots_of(mask, camera.edge, 70)
    values = co.gather(np.ones(mask.shape, dtype=np.float32), survivors)
    few = all_islands(call, survivors.used, around, values)
    padded = np.concatenate([mask, np.zeros_like(mask[:2])])
    survivors, around = slots_of(padded, camera.edge, 90)
    values = co.gather(np.ones(padded.shape, dtype=np.float32), survivors)
    many = all_islands(call, survivors.used, around, values)
    used = survivors.used[:6, :70]
    for one, other in zip(few[:4], many[:4], strict=True):
        other = other[:6, :70] if other.ndim == 2 else other[:6]
        keep = used if one.ndim == 2 else slice(None)
        assert_same(other[keep], one[keep])
    assert_same(isl.Islands(*(column[:6] for column in many[4])), few[4])
    assert not any(column[6:].any() for column in many[4])


def test_no_image(call, squares):
    survivors, around = slots_of(random_mask(squares)[:0], squares.edge, 8)
    values = np.ones(survivors.used.shape, dtype=np.float32)
    assert all_islands(call, survivors.used, around, values)[4].n_islands.shape == (0,)


def test_unfinished_search_is_reported(call):
    """A chain whose slots are numbered against the grain needs many rounds."""
    n = 64
    order = np.random.default_rng(3).permutation(n)
    around = np.full((1, n, 2), -1, dtype=np.int32)
    around[0, order[1:], 0] = order[:-1]
    around[0, order[:-1], 1] = order[1:]
    used = np.ones((1, n), dtype=bool)
    label, resolved = call(isl.label_islands, used, around, steps=2)
    assert not resolved[0]
    assert label.any()
    label, resolved = call(isl.label_islands, used, around, steps=STEPS)
    assert resolved[0]
    assert not label.any()


def blobs(rng, neighbours, n_images):
    """Grow winding blobs of 10 to 200 pixels: each neighbour joins with a random chance."""
    mask = np.zeros((n_images, len(neighbours)), dtype=bool)
    for image in range(n_images):
        size, chance = int(10 ** rng.uniform(1, 2.3)), rng.uniform(0.3, 1)
        start = int(rng.integers(len(neighbours)))
        seen, front = {start}, [start]
        mask[image, start] = True
        while front and mask[image].sum() < size:
            for n in neighbours[front.pop(int(rng.integers(len(front))))]:
                if n >= 0 and n not in seen:
                    seen.add(n)
                    if rng.random() < chance:
                        mask[image, n] = True
                        front.append(n)
    return mask


@pytest.mark.parametrize("table", ["neighbours", "neighbours_diagonal"])
def test_default_steps_finish_images_of_the_astri_camera(table):
    neighbours = getattr(astri_geometry(), table)
    mask = blobs(np.random.default_rng(4), neighbours, 300)
    survivors, around = slots_of(mask, neighbours, 200)
    _, resolved = isl.label_islands(survivors.used, around, steps=STEPS)
    assert resolved[~survivors.overflow].all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_numbering_of_pixels_does_not_matter(hexagons, seed, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((1, len(hexagons.lon))) < share
    order = rng.permutation(mask.shape[1])  # new number -> old number
    new = np.argsort(order)
    table = np.where(hexagons.edge >= 0, new[hexagons.edge], -1)[order].astype(np.int32)
    counts = []
    for pixels, neighbours in ((mask, hexagons.edge), (mask[:, order], table)):
        survivors, around = slots_of(pixels, neighbours)
        label, resolved = isl.label_islands(survivors.used, around, steps=2 * STEPS)
        assert resolved.all()
        size = isl.island_sum(np.ones(label.shape, dtype=np.float32), survivors.used, label)
        counts.append(isl.count_islands(survivors.used, label, size))
        np.testing.assert_array_equal(label <= np.arange(label.shape[1]), True)
    np.testing.assert_array_equal(*counts)


def test_one_trace_for_two_batches(one_trace, squares):
    batches = []
    for seed in (5, 6):
        survivors, around = slots_of(random_mask(squares, seed=seed), squares.edge)
        batches.append((survivors.used, around))
    one_trace(isl.label_islands, *batches, steps=STEPS)
    labelled = [(used, isl.label_islands(used, a, steps=STEPS)[0]) for used, a in batches]
    sizes = [(np.ones(used.shape, dtype=np.float32), used, label) for used, label in labelled]
    one_trace(isl.island_sum, *sizes)
    one_trace(
        isl.count_islands, *[(*b, isl.island_sum(*s)) for b, s in zip(labelled, sizes, strict=True)]
    )
