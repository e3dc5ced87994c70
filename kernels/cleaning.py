"""Image cleaning: which pixels belong to the shower.

All functions return masks that are True for surviving pixels. Neighbours are (pixel, neighbour)
indices with -1 for none; whether corners touch is decided by the table that is passed.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ._types import Array, array_namespace, masked
from .compaction import compact, gather, neighbour_slots
from .islands import island_sum, label_islands

__all__ = [
    "Cleaned",
    "brightest_island",
    "count_neighbours",
    "dilate",
    "largest_island",
    "mars_clean",
    "tailcuts_clean",
    "time_constrained_clean",
    "time_delta_clean",
]


class Cleaned(NamedTuple):
    """Result of a cleaning; `core` pixels are those above the higher threshold."""

    mask: Bool[Array, "image pixel"]
    core: Bool[Array, "image pixel"]


def _neighbour_columns(xp, neighbours):
    """Yield, per neighbour column, safe indices and whether the neighbour exists."""
    for n in range(neighbours.shape[1]):
        index = neighbours[:, n]
        yield xp.where(index >= 0, index, 0), (index >= 0)[None, :]


def count_neighbours(
    mask: Bool[Array, "image pixel"], neighbours: Int[Array, "pixel neighbour"]
) -> Int[Array, "image pixel"]:
    """Return how many neighbours of each pixel are in `mask`, int8."""
    xp = array_namespace(mask, neighbours)
    beside = [
        xp.take(mask, index, axis=1) & exists
        for index, exists in _neighbour_columns(xp, neighbours)
    ]
    # A sum of an axis, and not of eight arrays: XLA would put the latter into whatever gathers the
    # result next and compute it anew for each neighbour, ten times slower on a CPU.
    return xp.sum(xp.astype(xp.stack(beside), xp.int8), axis=0, dtype=xp.int8)


def dilate(
    mask: Bool[Array, "image pixel"], neighbours: Int[Array, "pixel neighbour"]
) -> Bool[Array, "image pixel"]:
    """Return `mask` with one more row of neighbours around every pixel in it."""
    return mask | (count_neighbours(mask, neighbours) > 0)


def tailcuts_clean(
    charge: Float[Array, "image pixel"],
    picture: Array,
    boundary: Array,
    neighbours: Int[Array, "pixel neighbour"],
    *,
    min_picture_neighbours: int,
    keep_isolated: bool,
) -> Cleaned:
    """Return the two-threshold tail-cuts mask.

    Core pixels reach `picture` and have at least `min_picture_neighbours` such neighbours; boundary
    pixels reach `boundary` beside a core pixel. Unless `keep_isolated`, a core pixel needs a
    neighbour that reaches `boundary`. Same result as ctapipe's ``tailcuts_clean``.

    Parameters
    ----------
    charge : (image, pixel), p.e.; a NaN survives nothing
    picture, boundary : p.e., scalars or arrays that broadcast against `charge`
    neighbours : (pixel, neighbour), -1 = none
    """
    above_picture = charge >= picture
    above_boundary = charge >= boundary
    core = above_picture
    if min_picture_neighbours > 0 and not keep_isolated:
        core = core & (count_neighbours(above_picture, neighbours) >= min_picture_neighbours)
    beside_core = above_boundary & (count_neighbours(core, neighbours) > 0)
    if keep_isolated:
        return Cleaned(mask=beside_core | core, core=core)
    core = core & (count_neighbours(above_boundary, neighbours) > 0)
    return Cleaned(mask=beside_core | core, core=core)


def mars_clean(
    charge: Float[Array, "image pixel"],
    picture: Array,
    boundary: Array,
    second_boundary: Array,
    neighbours: Int[Array, "pixel neighbour"],
    *,
    min_picture_neighbours: int,
    keep_isolated: bool,
) -> Cleaned:
    """Return the three-threshold mask of MARS: tail-cuts, then one more row of boundary pixels.

    Pixels that reach `second_boundary` beside a pixel of the tail-cuts mask are added. With
    ``second_boundary = boundary`` it equals ctapipe's ``mars_cleaning_1st_pass``.
    """
    first = tailcuts_clean(
        charge,
        picture,
        boundary,
        neighbours,
        min_picture_neighbours=min_picture_neighbours,
        keep_isolated=keep_isolated,
    )
    added = (charge >= second_boundary) & (count_neighbours(first.mask, neighbours) > 0)
    return Cleaned(mask=first.mask | added, core=first.core)


def _close_in_time(xp, mask, peak_time, reference, neighbours, limit_ns):
    """Count neighbours in `reference` whose time is within `limit_ns` of each pixel in `mask`."""
    count = xp.zeros(mask.shape, dtype=xp.int8)
    for index, exists in _neighbour_columns(xp, neighbours):
        close = xp.abs(xp.take(peak_time, index, axis=1) - peak_time) < limit_ns
        count = count + xp.astype(
            mask & xp.take(reference, index, axis=1) & close & exists, xp.int8
        )
    return count


def time_delta_clean(
    mask: Bool[Array, "image pixel"],
    peak_time: Float[Array, "image pixel"],
    neighbours: Int[Array, "pixel neighbour"],
    *,
    limit_ns: float,
    min_neighbours: int,
) -> Bool[Array, "image pixel"]:
    """Return the pixels of `mask` with enough neighbours in `mask` within `limit_ns` in time."""
    xp = array_namespace(mask, peak_time, neighbours)
    close = _close_in_time(xp, mask, peak_time, mask, neighbours, limit_ns)
    return mask & (close >= min_neighbours)


def brightest_island(
    charge: Float[Array, "image slot"],
    used: Bool[Array, "image slot"],
    label: Int[Array, "image slot"],
) -> Bool[Array, "image slot"]:
    """Return the island with the highest summed charge (see `label_islands` for `label`)."""
    xp = array_namespace(charge, used, label)
    brightness = masked(xp, used, island_sum(charge, used, label), float("-inf"))
    return used & (brightness == xp.max(brightness, axis=-1)[:, None])


def largest_island(
    used: Bool[Array, "image slot"], label: Int[Array, "image slot"]
) -> Bool[Array, "image slot"]:
    """Return the island of most pixels; of equals the one with the lowest pixel number."""
    xp = array_namespace(used, label)
    ones = xp.ones(used.shape, dtype=xp.float32)
    size = masked(xp, used, island_sum(ones, used, label))
    largest = used & (size == xp.max(size, axis=-1)[:, None])
    none = xp.asarray(used.shape[-1], dtype=label.dtype)
    return largest & (label == xp.min(xp.where(largest, label, none), axis=-1)[:, None])


def time_constrained_clean(
    charge: Float[Array, "image pixel"],
    peak_time: Float[Array, "image pixel"],
    picture: Array,
    boundary: Array,
    neighbours: Int[Array, "pixel neighbour"],
    *,
    min_picture_neighbours: int,
    limit_core_ns: float,
    limit_boundary_ns: float,
    n_slots: int,
    island_steps: int,
) -> tuple[Cleaned, Bool[Array, " image"], Bool[Array, " image"]]:
    """Return the time-constrained mask of MAGIC, and the flags `overflow` and `resolved`.

    Core pixels must arrive within `limit_core_ns` (twice that above ``2 * picture``) of the mean
    time of the brightest core island, weighted with the squared charge; boundary pixels within
    `limit_boundary_ns` of core neighbours. Same result as ctapipe's ``time_constrained_clean``.

    Parameters
    ----------
    charge : (image, pixel), p.e.
    peak_time : (image, pixel), ns
    picture, boundary : p.e., scalars or arrays that broadcast against `charge`
    neighbours : (pixel, neighbour), -1 = none
    n_slots, island_steps : see `compact` and `label_islands`
    """
    xp = array_namespace(charge, peak_time, neighbours)
    above_picture = charge >= picture
    enough = count_neighbours(above_picture, neighbours) >= min_picture_neighbours
    core = above_picture & enough

    survivors = compact(core, n_slots=n_slots)
    label, resolved = label_islands(
        survivors.used, neighbour_slots(core, survivors, neighbours), steps=island_steps
    )
    core_charge = gather(charge, survivors)
    main = brightest_island(core_charge, survivors.used, label)
    weight = masked(xp, main, xp.astype(core_charge, xp.float64) ** 2)
    time = masked(xp, main, xp.astype(gather(peak_time, survivors), xp.float64))
    total = xp.sum(weight, axis=-1)
    mean = xp.sum(weight * time, axis=-1) / xp.where(total > 0, total, 1.0)

    limit = xp.asarray(limit_core_ns, dtype=xp.float64)
    limit = xp.where(charge < 2 * picture, limit, 2 * limit)
    core = core & (xp.abs(peak_time - mean[:, None]) < limit)
    beside_core = (charge >= boundary) & (count_neighbours(core, neighbours) > 0) & ~core
    close = _close_in_time(xp, beside_core, peak_time, core, neighbours, limit_boundary_ns)
    beside_core = beside_core & (close >= min_picture_neighbours)
    return Cleaned(mask=core | beside_core, core=core), survivors.overflow, resolved
