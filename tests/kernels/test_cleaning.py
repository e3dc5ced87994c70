"""Cleaning: every method against a loop over pixels written from its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import cleaning as cl
from astri_gpu.kernels import compaction as co
from astri_gpu.kernels import islands as isl

TAILCUTS = {"min_picture_neighbours": 2, "keep_isolated": False}
TIME = {
    "min_picture_neighbours": 1, "limit_core_ns": 4.5, "limit_boundary_ns": 1.5,
    "n_slots": 60, "island_steps": 9,
}  # fmt: skip


def images(camera, n_images=8, seed=1):
    """Return showers over noise: charge and peak time, float32."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-0.6, 0.6, (2, n_images, 1))
    r2 = (camera.lon - centre[0]) ** 2 + 3 * (camera.lat - centre[1]) ** 2
    charge = 25 * np.exp(-r2 / 0.15) + rng.normal(1, 2, r2.shape)
    time = 10 + 8 * camera.lon + rng.normal(0, 1.5, r2.shape)
    return charge.astype(np.float32), time.astype(np.float32)


def around(pixel, neighbours):
    return [int(n) for n in neighbours[pixel] if n >= 0]


def slow_tailcuts(charge, picture, boundary, neighbours, needed, keep_isolated):
    pixels = range(len(charge))
    above = {p for p in pixels if charge[p] >= picture[p]}
    core = {
        p for p in above
        if keep_isolated or len(above & set(around(p, neighbours))) >= needed
    }  # fmt: skip
    low = {p for p in pixels if charge[p] >= boundary[p]}
    mask = {p for p in low if core & set(around(p, neighbours))}
    if not keep_isolated:
        core = {p for p in core if low & set(around(p, neighbours))}
    return mask | core, core


def slow_islands(pixels, neighbours):
    left, found = set(pixels), []
    while left:
        front = [min(left)]
        island = set(front)
        while front:
            new = (set(around(front.pop(), neighbours)) & left) - island
            island |= new
            front += new
        left -= island
        found.append(island)
    return found


def slow_time_constrained(charge, time, picture, boundary, neighbours, options):
    pixels = range(len(charge))
    needed = options["min_picture_neighbours"]
    above = {p for p in pixels if charge[p] >= picture}
    core = {p for p in above if len(above & set(around(p, neighbours))) >= needed}
    if not core:
        return set(), set()
    main = max(slow_islands(core, neighbours), key=lambda i: sum(float(charge[p]) for p in i))
    weight = {p: float(charge[p]) ** 2 for p in main}
    mean = sum(weight[p] * float(time[p]) for p in main) / sum(weight.values())
    limit = options["limit_core_ns"]
    core = {
        p for p in core if abs(time[p] - mean) < (limit if charge[p] < 2 * picture else 2 * limit)
    }
    mask = set(core)
    for p in set(pixels) - core:
        beside = [n for n in around(p, neighbours) if n in core]
        close = [n for n in beside if abs(time[n] - time[p]) < options["limit_boundary_ns"]]
        if charge[p] >= boundary and beside and len(close) >= needed:
            mask.add(p)
    return mask, core


def as_mask(sets, n_pixels):
    return np.array([[p in pixels for p in range(n_pixels)] for pixels in sets])


@pytest.mark.parametrize("keep_isolated", [False, True])
@pytest.mark.parametrize("needed", [0, 1, 3])
def test_tailcuts_equals_the_loop(call, camera, needed, keep_isolated):
    charge, _ = images(camera)
    rng = np.random.default_rng(2)
    picture = rng.uniform(5, 8, charge.shape).astype(np.float32)
    boundary = (picture / 2).astype(np.float32)
    found = call(
        cl.tailcuts_clean, charge, picture, boundary, camera.corner,
        min_picture_neighbours=needed, keep_isolated=keep_isolated,
    )  # fmt: skip
    expected = [
        slow_tailcuts(c, p, b, camera.corner, needed, keep_isolated)
        for c, p, b in zip(charge, picture, boundary, strict=True)
    ]
    for mask, sets in zip(found, zip(*expected, strict=True), strict=True):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, as_mask(sets, charge.shape[1]))
    assert found.mask.any()
    assert not found.mask.all()


def test_mars_adds_a_row_above_the_second_boundary(call, camera):
    charge, _ = images(camera)
    found = call(cl.mars_clean, charge, 8.0, 5.0, 3.0, camera.edge, **TAILCUTS)
    for image, charges in enumerate(charge):
        flat = np.full(len(charges), 1.0)
        mask, core = slow_tailcuts(charges, 8 * flat, 5 * flat, camera.edge, 2, False)
        mask |= {
            p for p in range(len(charges))
            if charges[p] >= 3 and mask & set(around(p, camera.edge))
        }  # fmt: skip
        np.testing.assert_array_equal(np.nonzero(found.mask[image])[0], sorted(mask))
        np.testing.assert_array_equal(np.nonzero(found.core[image])[0], sorted(core))


def test_neighbour_counts_dilation_and_time_delta_equal_the_loop(call, camera):
    charge, time = images(camera)
    mask = charge > 4
    count = call(cl.count_neighbours, mask, camera.edge)
    grown = call(cl.dilate, mask, camera.edge)
    kept = call(cl.time_delta_clean, mask, time, camera.edge, limit_ns=2.0, min_neighbours=2)
    assert count.dtype == np.int8
    for image, pixel in np.ndindex(mask.shape):
        near = [n for n in around(pixel, camera.edge) if mask[image, n]]
        assert count[image, pixel] == len(near)
        assert grown[image, pixel] == (mask[image, pixel] or bool(near))
        close = [n for n in near if abs(time[image, n] - time[image, pixel]) < 2]
        assert kept[image, pixel] == (mask[image, pixel] and len(close) >= 2)


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_time_constrained_equals_the_loop(call, camera, needed):
    charge, time = images(camera, n_images=12)
    options = {**TIME, "min_picture_neighbours": needed}
    found, overflow, resolved = call(
        cl.time_constrained_clean, charge, time, 6.0, 3.0, camera.edge, **options
    )
    assert resolved.all()
    assert not overflow.any()
    expected = [
        slow_time_constrained(c, t, 6, 3, camera.edge, options)
        for c, t in zip(charge, time, strict=True)
    ]
    for mask, sets in zip(found, zip(*expected, strict=True), strict=True):
        np.testing.assert_array_equal(mask, as_mask(sets, charge.shape[1]))


def test_time_constrained_reports_more_core_pixels_than_slots(call, camera):
    charge, time = images(camera)
    core = cl.count_neighbours(charge >= 6, camera.edge) * (charge >= 6) > 0
    _, overflow, _ = call(
        cl.time_constrained_clean, charge, time, 6.0, 3.0, camera.edge, **{**TIME, "n_slots": 9}
    )
    np.testing.assert_array_equal(overflow, core.sum(axis=1) > 9)
    assert overflow.any()


def labelled(camera, mask, n_slots=90):
    survivors = co.compact(mask, n_slots=n_slots)
    table = co.neighbour_slots(mask, survivors, camera.edge)
    return survivors, isl.label_islands(survivors.used, table, steps=9)[0]


def test_brightest_and_largest_island_equal_the_loop(call, camera):
    charge, _ = images(camera)
    mask = charge > 3
    mask[0], mask[1] = False, np.arange(mask.shape[1]) == 5
    survivors, label = labelled(camera, mask)
    values = co.gather(charge, survivors)
    values = np.where(survivors.used, values, np.float32(np.nan))
    brightest = call(cl.brightest_island, values, survivors.used, label)
    largest = call(cl.largest_island, survivors.used, label)
    for image in range(len(mask)):
        islands = slow_islands(np.nonzero(mask[image])[0].tolist(), camera.edge)
        pixel = survivors.pixel[image]
        if not islands:
            assert not brightest[image].any()
            assert not largest[image].any()
            continue
        light = max(islands, key=lambda i: sum(float(charge[image, p]) for p in i))
        # Of equally large islands `max` takes the first: the one with the lowest pixel.
        size = max(islands, key=len)
        assert set(pixel[brightest[image]]) == light
        assert set(pixel[largest[image]]) == size


def test_padding_is_inert(call, camera):
    charge, time = images(camera)
    n_pixels = charge.shape[1]
    table = np.full((n_pixels + 3, camera.edge.shape[1] + 1), -1, dtype=np.int32)
    table[:-3, :-1] = camera.edge
    # NaN and huge charges of pixels that no one neighbours, and an empty image.
    more = np.zeros((len(charge) + 1, n_pixels + 3), dtype=np.float32)
    more[:-1, :-3], more[:, -1], more[:, -2] = charge, np.nan, 1e6
    later = np.full(more.shape, np.nan, dtype=np.float32)
    later[:-1, :-3] = time
    mask = call(cl.tailcuts_clean, charge, 6.0, 3.0, camera.edge, **TAILCUTS).mask
    padded = call(cl.tailcuts_clean, more, 6.0, 3.0, table, **TAILCUTS).mask
    np.testing.assert_array_equal(padded[:-1, :-3], mask)
    assert not padded[-1].any()
    assert not padded[:, -3:].any()
    timed = call(cl.time_constrained_clean, charge, time, 6.0, 3.0, camera.edge, **TIME)[0]
    padded = call(cl.time_constrained_clean, more, later, 6.0, 3.0, table, **TIME)[0]
    np.testing.assert_array_equal(padded.mask[:-1, :-3], timed.mask)
    assert not padded.mask[-1].any()


def test_nan_and_empty_batches_survive_nothing(call, camera):
    charge, time = images(camera)
    nan = np.full_like(charge, np.nan)
    for charges in (nan, charge[:0]):
        times = time[: len(charges)]
        mask = call(cl.tailcuts_clean, charges, 6.0, 3.0, camera.edge, **TAILCUTS).mask
        assert mask.shape == charges.shape
        assert not mask.any()
        found, overflow, resolved = call(
            cl.time_constrained_clean, charges, times, 6.0, 3.0, camera.edge, **TIME
        )
        assert not found.mask.any()
        assert not overflow.any()
        assert resolved.all()


def test_nan_time_of_a_pixel_outside_the_mask_is_inert(call, camera):
    charge, time = images(camera)
    mask = charge > 4
    options = {"limit_ns": 2.0, "min_neighbours": 1}
    spoilt = np.where(mask, time, np.float32(np.nan))
    np.testing.assert_array_equal(
        call(cl.time_delta_clean, mask, spoilt, camera.edge, **options),
        call(cl.time_delta_clean, mask, time, camera.edge, **options),
    )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.5, 2.0, 8.0]))
def test_scaling_charge_and_shifting_time_changes_nothing(hexagons, seed, scale):
    charge, time = images(hexagons, 4, seed)
    found = cl.tailcuts_clean(charge, 6.0, 3.0, hexagons.edge, **TAILCUTS)
    scaled = cl.tailcuts_clean(
        charge * np.float32(scale), 6.0 * scale, 3.0 * scale, hexagons.edge, **TAILCUTS
    )
    np.testing.assert_array_equal(found, scaled)
    # Times on a grid of 1/8 ns, so that shifting them by whole ns is exact.
    time = np.round(time * 8) / np.float32(8)
    early, late = (
        cl.time_delta_clean(
            found.mask, time + np.float32(shift), hexagons.edge, limit_ns=2.0, min_neighbours=1
        )
        for shift in (0, 64)
    )
    np.testing.assert_array_equal(early, late)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_mirrored_images_give_mirrored_masks(squares, seed):
    mirror = np.arange(100).reshape(10, 10)[:, ::-1].ravel()
    charge, time = images(squares, 4, seed)
    for table in (squares.edge, squares.corner):
        one = cl.mars_clean(charge, 8.0, 5.0, 3.0, table, **TAILCUTS)
        other = cl.mars_clean(charge[:, mirror], 8.0, 5.0, 3.0, table, **TAILCUTS)
        np.testing.assert_array_equal(other.mask, one.mask[:, mirror])
        np.testing.assert_array_equal(other.core, one.core[:, mirror])
        one, other = (
            cl.time_constrained_clean(c, t, 6.0, 3.0, table, **TIME)[0].mask
            for c, t in ((charge, time), (charge[:, mirror], time[:, mirror]))
        )
        np.testing.assert_array_equal(other, one[:, mirror])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), picture=st.floats(3, 12), share=st.floats(0.1, 1))
def test_masks_nest(squares, seed, picture, share):
    """Core within mask; lower thresholds keep more; MARS keeps more than tail-cuts."""
    charge, _ = images(squares, 4, seed)
    boundary = share * picture
    found = cl.tailcuts_clean(charge, picture, boundary, squares.edge, **TAILCUTS)
    lower = cl.tailcuts_clean(charge, 0.8 * picture, 0.8 * boundary, squares.edge, **TAILCUTS)
    mars = cl.mars_clean(charge, picture, boundary, boundary, squares.edge, **TAILCUTS)
    assert (found.core <= found.mask).all()
    assert (found.mask <= lower.mask).all()
    assert (found.mask <= mars.mask).all()
    assert (found.mask <= cl.dilate(found.mask, squares.edge)).all()


def test_one_trace_for_two_batches(one_trace, squares):
    batches = [images(squares, seed=seed) for seed in (3, 4)]
    charges = [(charge, 6.0, 3.0, squares.corner) for charge, _ in batches]
    one_trace(cl.tailcuts_clean, *charges, **TAILCUTS)
    one_trace(cl.time_constrained_clean, *[(*b, 6.0, 3.0, squares.edge) for b in batches], **TIME)
    marked = [(charge > 3, time, squares.edge) for charge, time in batches]
    one_trace(cl.time_delta_clean, *marked, limit_ns=2.0, min_neighbours=1)
    islands = []
    for charge, _ in batches:
        survivors, label = labelled(squares, charge > 3)
        islands.append((co.gather(charge, survivors), survivors.used, label))
    one_trace(cl.brightest_island, *islands)
    one_trace(cl.largest_island, *[batch[1:] for batch in islands])
