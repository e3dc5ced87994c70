"""Showers as groups that are never divided: identities, choice of some of them, and folds."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose_groups", "fold_numbers", "group_keys", "random_order"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Step of SplitMix64."""


def group_keys(
    obs_id: NDArray[np.integer], shower_id: NDArray[np.integer], event_id: NDArray[np.integer]
) -> NDArray[np.uint64]:
    """Return a number for each event that is the same for all uses of one shower.

    Parameters
    ----------
    obs_id, shower_id, event_id
        (event,); events with a `shower_id` of -1 are showers of their own.

    Returns
    -------
    (event,), hashed (SplitMix64) so that they do not depend on the order of the events, nor on
    what else there is.
    """
    shower_id, event_id = shower_id.astype(np.int64), event_id.astype(np.int64)
    alone = shower_id < 0
    name = np.where(alone, event_id, shower_id).view(np.uint64)
    return _mixed(_mixed(_mixed(obs_id.astype(np.int64).view(np.uint64)) ^ name) ^ _bits(alone))


def random_order(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return numbers that sort `keys` at random, the same for the same key and seed."""
    return _mixed(keys ^ _mixed(np.full(1, seed, dtype=np.uint64)))


def choose_groups(
    keys: NDArray[np.uint64], n_images: NDArray[np.integer], most: int | None, seed: int
) -> NDArray[np.bool_]:
    """Return which events to keep so that whole groups have at most so many images.

    Parameters
    ----------
    keys
        (event,), from `group_keys`.
    n_images
        (event,), images of each event.
    most
        Images in all; None keeps everything. One group is always kept.
    seed
        Of the random choice.
    """
    if most is None or n_images.sum() <= most:
        return np.ones(len(keys), dtype=bool)
    groups, place = np.unique(keys, return_inverse=True)
    size = np.bincount(place, weights=n_images)
    order = np.argsort(random_order(groups, seed))
    n_kept = max(1, int(np.searchsorted(np.cumsum(size[order]), most, side="right")))
    kept = np.zeros(len(groups), dtype=bool)
    kept[order[:n_kept]] = True
    return kept[place]


def fold_numbers(keys: NDArray[np.uint64], n_folds: int, seed: int) -> NDArray[np.int8]:
    """Return the fold of each event, 0 to `n_folds` - 1; folds have equally many groups (+-1).

    Parameters
    ----------
    keys
        (event,), from `group_keys`; equal keys get equal folds.
    n_folds, seed
        Number of folds, and what the random division depends on.
    """
    groups, place = np.unique(keys, return_inverse=True)
    fold = np.empty(len(groups), dtype=np.int8)
    fold[np.argsort(random_order(groups, seed))] = np.arange(len(groups)) % n_folds
    return fold[place]


def _bits(values: NDArray[np.bool_]) -> NDArray[np.uint64]:
    return values.astype(np.uint64) << np.uint64(63)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the next number of SplitMix64 for each state."""
    values = values + GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
