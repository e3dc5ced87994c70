"""Connected components of masks, on arrays of fixed shape."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ._types import Array, array_namespace, masked

__all__ = ["Islands", "count_islands", "island_sum", "label_islands"]

SMALL_ISLAND = 2  # pixels at most; ctapipe's classes of island sizes
MEDIUM_ISLAND = 50  # pixels at most
SHARING = 3  # rounds of `label_islands`


class Islands(NamedTuple):
    """How many islands of which size an image has."""

    n_islands: Int[Array, " image"]
    n_small_islands: Int[Array, " image"]  # 1-2 pixels
    n_medium_islands: Int[Array, " image"]  # 3-50 pixels
    n_large_islands: Int[Array, " image"]  # more than 50 pixels


def label_islands(
    used: Bool[Array, "image slot"],
    neighbours: Int[Array, "image slot neighbour"],
    *,
    steps: int,
) -> tuple[Int[Array, "image slot"], Bool[Array, " image"]]:
    """Return for each slot the lowest slot of its island, and whether the search was finished.

    In each round every slot takes the lowest label around it, then the label of that label. In
    every `SHARING`-th round all slots of one label first share the lowest that any of them found,
    so that trees of labels merge as a whole, however far their border is from their root; it
    costs (image, slot, slot), hence not every round. The second return value is False where
    labels were still changing; the caller then runs again with more steps.

    Parameters
    ----------
    used : (image, slot)
    neighbours : (image, slot, neighbour), slots of the neighbours in use, -1 = none
    steps : number of rounds; the default of the chain left none of 20 000 simulated images of 10
        to 200 pixels unfinished
    """
    xp = array_namespace(used, neighbours)
    n_images, n_slots, n_neighbours = neighbours.shape
    number = xp.arange(n_slots, dtype=xp.int32)
    own = xp.broadcast_to(number[None, :], used.shape)
    none = xp.asarray(n_slots, dtype=xp.int32)
    # A missing neighbour points back at the slot itself, which changes no minimum.
    around = xp.where(neighbours >= 0, neighbours, own[:, :, None])
    around = xp.reshape(around, (n_images, n_slots * n_neighbours))

    def lowest_around(label):
        values = xp.reshape(xp.take_along_axis(label, around, axis=1), neighbours.shape)
        return xp.minimum(label, xp.min(values, axis=-1))

    label = own
    for step in range(1, steps + 1):
        found = lowest_around(label)
        if step % SHARING == 0:
            bearers = label[:, None, :] == number[None, :, None]  # (image, label, slot)
            lowest = xp.min(xp.where(bearers, found[:, None, :], none), axis=-1)
            found = xp.take_along_axis(lowest, label, axis=1)
        label = xp.take_along_axis(found, found, axis=1)
    return label, xp.all(lowest_around(label) == label, axis=-1)


def island_sum(
    values: Float[Array, "image slot"],
    used: Bool[Array, "image slot"],
    label: Int[Array, "image slot"],
) -> Float[Array, "image slot"]:
    """Return for each slot the sum of `values` over its island."""
    xp = array_namespace(values, used, label)
    same = (label[:, :, None] == label[:, None, :]) & used[:, None, :]
    return xp.sum(masked(xp, same, values[:, None, :]), axis=-1)


def count_islands(
    used: Bool[Array, "image slot"],
    label: Int[Array, "image slot"],
    size: Float[Array, "image slot"],
) -> Islands:
    """Return the numbers of islands by size.

    Parameters
    ----------
    used, label : (image, slot), see `label_islands`
    size : (image, slot), pixels in the island of each slot (`island_sum` of ones)
    """
    xp = array_namespace(used, label, size)
    # Each island is counted once, at its lowest slot.
    root = used & (label == xp.arange(label.shape[-1], dtype=label.dtype)[None, :])

    def count(selected):
        return xp.sum(xp.astype(selected, xp.int32), axis=-1, dtype=xp.int32)

    small, large = size <= SMALL_ISLAND, size > MEDIUM_ISLAND
    return Islands(
        n_islands=count(root),
        n_small_islands=count(root & small),
        n_medium_islands=count(root & ~small & ~large),
        n_large_islands=count(root & large),
    )
