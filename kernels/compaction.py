"""From dense images to the few pixels that survived cleaning.

After cleaning one pixel in a hundred is left. Gathering the survivors into a fixed number of slots
keeps shapes static and makes everything that follows a hundred times cheaper. An image with more
survivors than slots sets `overflow`; the caller then runs the batch again with more slots, so that
nothing is lost.
"""

from typing import NamedTuple

from jaxtyping import Bool, Int

from ._types import Array, array_namespace

__all__ = ["Survivors", "compact", "gather", "neighbour_slots"]


class Survivors(NamedTuple):
    """Pixels of each image that are in a mask, in ascending order; `slot` of them fit."""

    pixel: Int[Array, "image slot"]  # pixel number, 0 in an empty slot
    used: Bool[Array, "image slot"]  # False in an empty slot
    overflow: Bool[Array, " image"]  # more survivors than slots: the rest is missing


def compact(mask: Bool[Array, "image pixel"], *, n_slots: int) -> Survivors:
    """Return the first `n_slots` pixels of each image that are in `mask`."""
    xp = array_namespace(mask)
    n_pixels = mask.shape[-1]
    n_slots = min(n_slots, n_pixels)
    number = xp.arange(n_pixels, dtype=xp.int32)[None, :]
    ordered = xp.sort(xp.where(mask, number, xp.asarray(n_pixels, dtype=xp.int32)), axis=-1)
    pixel = ordered[:, :n_slots]
    used = pixel < n_pixels
    return Survivors(
        pixel=xp.where(used, pixel, xp.asarray(0, dtype=xp.int32)),
        used=used,
        overflow=xp.sum(xp.astype(mask, xp.int32), axis=-1) > n_slots,
    )


def gather(values: Array, survivors: Survivors) -> Array:
    """Return `values` of the surviving pixels, (image, slot).

    Parameters
    ----------
    values : (image, pixel), or (pixel,) for what is the same in every image
    """
    xp = array_namespace(values, survivors.pixel)
    if values.ndim == 2:
        return xp.take_along_axis(values, survivors.pixel, axis=1)
    flat = xp.take(values, xp.reshape(survivors.pixel, (-1,)), axis=0)
    return xp.reshape(flat, survivors.pixel.shape)


def neighbour_slots(
    mask: Bool[Array, "image pixel"],
    survivors: Survivors,
    neighbours: Int[Array, "pixel neighbour"],
) -> Int[Array, "image slot neighbour"]:
    """Return in which slots the surviving neighbours of each survivor are; -1 = none."""
    xp = array_namespace(mask, neighbours)
    n_images, n_slots = survivors.pixel.shape
    n_neighbours = neighbours.shape[1]
    rank = xp.cumulative_sum(xp.astype(mask, xp.int32), axis=1, dtype=xp.int32) - 1
    slot_of_pixel = xp.where(mask & (rank < n_slots), rank, xp.asarray(-1, dtype=xp.int32))
    pixel = xp.take(neighbours, xp.reshape(survivors.pixel, (-1,)), axis=0)
    pixel = xp.reshape(pixel, (n_images, n_slots * n_neighbours))
    slot = xp.take_along_axis(slot_of_pixel, xp.where(pixel >= 0, pixel, 0), axis=1)
    slot = xp.where(pixel >= 0, slot, xp.asarray(-1, dtype=slot.dtype))
    slot = xp.reshape(slot, (n_images, n_slots, n_neighbours))
    return xp.where(survivors.used[:, :, None], slot, xp.asarray(-1, dtype=slot.dtype))
