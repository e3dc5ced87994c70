"""The whole grid of cuts in bins of energy: thresholds, and what passes them.

Events are rows of an energy bin, (bin, event), padded with `used` False. All points of the grid are
counted at once: weights, passed gammaness cuts and passed theta cuts make a product of two
matrices. `loops/cuts.py` is a second text of the same, which looks at every event once.
"""

import math
from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ._types import Array, array_namespace

__all__ = [
    "MIN_EVENTS",
    "BinnedEvents",
    "CutLimits",
    "GridCounts",
    "count_grid",
    "percentile_cuts",
]

MIN_EVENTS = 10
"""Fewer events have no percentile, as in `pyirf.cuts.calculate_percentile_cut`."""


class BinnedEvents(NamedTuple):
    """Events by energy bin."""

    gammaness: Float[Array, "bin event"]
    theta: Float[Array, "bin event"]  # deg from the source; of background, from the pointing
    n_tels: Int[Array, "bin event"]
    quality: Int[Array, "bin event"]
    weight: Float[Array, "bin event"]
    used: Bool[Array, "bin event"]  # False = padding


class CutLimits(NamedTuple):
    """What is the same for all events, arrays without axes: no value of them compiles anew."""

    gammaness_fill: Float[Array, ""]  # cut of bins with few gammas
    min_theta: Float[Array, ""]  # deg, smallest theta cut
    max_theta: Float[Array, ""]  # deg, largest one, and that of bins with few gammas
    ring_min: Float[Array, ""]  # deg, offsets between which background is counted
    ring_max: Float[Array, ""]  # deg, not included
    n_tels: Int[Array, ""]  # fewest telescopes
    quality: Int[Array, ""]  # worst event type


class GridCounts(NamedTuple):
    """Thresholds and counts of a grid; i numbers gammaness cuts, j theta cuts."""

    gammaness_cuts: Float[Array, "bin i"]
    theta_cuts: Float[Array, "bin j"]  # deg
    n_signal: Float[Array, "bin i j"]  # sums of weights
    n_signal_events: Float[Array, "bin i j"]  # whole numbers
    n_ring: Float[Array, "bin i"]
    n_ring_squares: Float[Array, "bin i"]  # sums of squared weights
    n_ring_events: Float[Array, "bin i"]


def percentile_cuts(
    values: Float[Array, "bin event"],
    used: Bool[Array, "bin event"],
    shares: Float[Array, " cut"],
    fill: Float[Array, ""],
) -> Float[Array, "bin cut"]:
    """Return the values below which shares of the events lie, as `numpy.nanpercentile`.

    Linear between neighbours, by the same operations as NumPy, so that thresholds are the same to
    the last digit. NaN does not count.

    Parameters
    ----------
    values : (bin, event), at least one event, used or not
    used : (bin, event)
    shares : (cut,), 0 to 1
    fill : the result of bins with fewer than `MIN_EVENTS` events
    """
    xp = array_namespace(values, used, shares)
    counted = used & ~xp.isnan(values)
    number = xp.sum(xp.astype(counted, xp.int64), axis=1)
    infinite = xp.asarray(math.inf, dtype=values.dtype)
    ordered = xp.sort(xp.where(counted, values, infinite), axis=1)
    enough = (number >= MIN_EVENTS)[:, None]
    # A bin of few events is all padding where it is read, and inf - inf would be an error.
    ordered = xp.where(enough, ordered, xp.zeros_like(ordered))
    last = xp.where(number > 0, number - 1, xp.zeros_like(number))[:, None]
    place = xp.astype(last, values.dtype) * shares[None, :]
    below = xp.floor(place)
    part = place - below
    below = xp.astype(below, xp.int64)
    above = xp.where(below < last, below + 1, last)
    low = xp.take_along_axis(ordered, below, axis=1)
    high = xp.take_along_axis(ordered, above, axis=1)
    step = high - low
    cut = xp.where(part >= 0.5, high - step * (1 - part), low + step * part)
    return xp.where(enough, cut, fill)


def count_grid(
    signal: BinnedEvents,
    background: BinnedEvents,
    gammaness_shares: Float[Array, " i"],
    theta_shares: Float[Array, " j"],
    limits: CutLimits,
) -> GridCounts:
    """Return thresholds and counts at every point of the grid.

    An event passes gammaness >= cut and theta <= cut, of its energy bin; NaN passes nothing. The
    thresholds are percentiles of the signal among the events that have the telescopes and the type.

    Parameters
    ----------
    signal, background : of the same energy bins, with any numbers of events
    gammaness_shares : (i,), shares of gammas below the gammaness cuts
    theta_shares : (j,), shares of gammas inside the theta cuts
    limits : see `CutLimits`
    """
    xp = array_namespace(signal.gammaness, background.gammaness)
    kind = signal.gammaness.dtype
    zero = xp.asarray(0.0, dtype=kind)

    kept = signal.used & (signal.n_tels >= limits.n_tels) & (signal.quality <= limits.quality)
    gammaness_cut = percentile_cuts(signal.gammaness, kept, gammaness_shares, limits.gammaness_fill)
    theta_cut = percentile_cuts(signal.theta, kept, theta_shares, limits.max_theta)
    theta_cut = xp.where(theta_cut < limits.min_theta, limits.min_theta, theta_cut)
    theta_cut = xp.where(theta_cut > limits.max_theta, limits.max_theta, theta_cut)
    passed = (signal.gammaness[:, None, :] >= gammaness_cut[:, :, None]) & kept[:, None, :]
    inside = xp.astype(signal.theta[:, :, None] <= theta_cut[:, None, :], kind)
    weighted = xp.where(passed, signal.weight[:, None, :], zero)

    kept = background.used & (background.n_tels >= limits.n_tels)
    kept = kept & (background.quality <= limits.quality)
    kept = kept & (background.theta >= limits.ring_min) & (background.theta < limits.ring_max)
    stayed = (background.gammaness[:, None, :] >= gammaness_cut[:, :, None]) & kept[:, None, :]
    return GridCounts(
        gammaness_cuts=gammaness_cut,
        theta_cuts=theta_cut,
        n_signal=weighted @ inside,
        n_signal_events=xp.astype(passed, kind) @ inside,
        n_ring=xp.sum(xp.where(stayed, background.weight[:, None, :], zero), axis=2),
        n_ring_squares=xp.sum(xp.where(stayed, background.weight[:, None, :] ** 2, zero), axis=2),
        n_ring_events=xp.sum(xp.astype(stayed, kind), axis=2),
    )
