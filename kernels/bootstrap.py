"""Poisson bootstrap: replicas of a sample in which every shower counts 0, 1, 2, ... times.

The number of times is drawn from the name of the shower (random.py), so that all uses of a shower
come and go together, and neither order nor batches of events matter. The mean of a weighted
histogram over replicas is the histogram, its variance the sum of squared weights (Poisson errors),
correlations by shared showers included.
"""

import math

from array_api_compat import is_jax_namespace
from jaxtyping import Float, Int, UInt8

from ._types import Array, array_namespace
from .random import LOW, key_of, philox

__all__ = [
    "PER_DRAW",
    "THRESHOLDS",
    "poisson_weights",
    "replica_histograms",
    "replica_numbers",
    "sum_by_cell",
]

PURPOSE = 0x626F6F74
"""Fourth counter word, so that no other use of the seed draws the same numbers."""

PER_DRAW = 4
"""Replicas that share the four words of a counter."""

ONE_HOT = 4096
"""Events at a time where sums by cell are products with a matrix of zeros and ones."""


def _thresholds() -> tuple[int, ...]:
    """Return the 32-bit words from which on a number drawn is above 0, 1, 2, ..."""
    below, term, k = 0.0, math.exp(-1.0), 0
    found: list[int] = []
    while True:
        below += term
        word = round(below * 2.0**32)
        if word > LOW:
            return tuple(found)
        found.append(word)
        k += 1
        term /= k


THRESHOLDS = _thresholds()
"""Poisson numbers of mean 1 by inversion: how many of these are not above a random word."""


def _draws(shower_key, draw, seed):
    """Return Poisson numbers of four replicas, a list of uint8 (event,)."""
    xp = array_namespace(shower_key)
    half = xp.asarray(32, dtype=xp.int64)
    low_mask = xp.asarray(LOW, dtype=xp.int64)
    low, high = shower_key & low_mask, (shower_key >> half) & low_mask
    numbers = []
    for word in philox(low, high, draw, PURPOSE, key=key_of(seed)):
        number = xp.zeros(word.shape, dtype=xp.uint8)
        for threshold in THRESHOLDS:
            reached = word >= xp.asarray(threshold, dtype=xp.uint32)
            number = number + xp.astype(reached, xp.uint8)
        numbers.append(number)
    return numbers


def poisson_weights(
    shower_key: Int[Array, " event"], replica: int, *, seed: int
) -> Float[Array, " event"]:
    """Return how often each event counts in a replica: Poisson numbers of mean 1, as float64.

    Parameters
    ----------
    shower_key : (event,) int64, the same for all uses of a shower
    replica : number of the replica, >= 0
    seed : 0 <= seed < 2**64

    Notes
    -----
    Inversion of a 32-bit word; probabilities are right to 2**-32.
    """
    xp = array_namespace(shower_key)
    draw, place = divmod(replica, PER_DRAW)
    return xp.astype(_draws(shower_key, draw, seed)[place], xp.float64)


def replica_numbers(
    shower_key: Int[Array, " event"], *, n_replicas: int, seed: int
) -> UInt8[Array, "replica event"]:
    """Return the numbers of `poisson_weights` in all replicas, (replica, event) uint8."""
    xp = array_namespace(shower_key)
    rows: list[Array] = []
    for draw in range(-(-n_replicas // PER_DRAW)):
        rows.extend(_draws(shower_key, draw, seed))
    if not rows:
        return xp.zeros((0, shower_key.shape[0]), dtype=xp.uint8)
    return xp.stack(rows[:n_replicas])


def sum_by_cell(
    cell: Int[Array, " event"], values: Float[Array, " event"], *, n_cells: int
) -> Float[Array, " cell"]:
    """Return the sums of `values` by cell number, which has to be 0 to n_cells - 1."""
    xp = array_namespace(cell, values)
    if is_jax_namespace(xp):  # its bincount has a length that the compiler knows
        return xp.bincount(cell, values, length=n_cells)
    if hasattr(xp, "bincount"):
        return xp.bincount(cell, weights=values, minlength=n_cells)
    # The standard has neither bincount nor a scatter that adds.
    numbers = xp.arange(n_cells, dtype=cell.dtype)
    total = xp.zeros(n_cells, dtype=values.dtype)
    for start in range(0, cell.shape[0], ONE_HOT):
        part = slice(start, min(start + ONE_HOT, cell.shape[0]))
        hot = xp.astype(cell[part][:, None] == numbers[None, :], values.dtype)
        total = total + values[part] @ hot
    return total


def replica_histograms(
    cell: Int[Array, " event"],
    weight: Float[Array, " event"],
    shower_key: Int[Array, " event"],
    *,
    n_cells: int,
    n_replicas: int,
    seed: int,
) -> Float[Array, "replica cell"]:
    """Return the weighted histogram of a sample in each replica.

    Parameters
    ----------
    cell : (event,), 0 to n_cells - 1; events elsewhere are not counted
    weight : (event,) float64
    shower_key : (event,) int64, see `poisson_weights`
    n_cells, n_replicas, seed : static

    Returns
    -------
    (replica, cell) float64
    """
    xp = array_namespace(cell, weight, shower_key)
    inside = (cell >= 0) & (cell < n_cells)
    cell = xp.where(inside, cell, xp.zeros_like(cell))
    weight = xp.where(inside, weight, xp.zeros_like(weight))
    rows: list[Array] = []
    for draw in range(-(-n_replicas // PER_DRAW)):
        for number in _draws(shower_key, draw, seed):
            if len(rows) < n_replicas:
                value = weight * xp.astype(number, weight.dtype)
                rows.append(sum_by_cell(cell, value, n_cells=n_cells))
    if not rows:
        return xp.zeros((0, n_cells), dtype=weight.dtype)
    return xp.stack(rows)
