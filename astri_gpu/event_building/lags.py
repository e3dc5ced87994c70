"""Time differences (lags) between the hits of telescopes: pairs, peaks, correlograms, accidentals.

All times are integer nanoseconds.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Peak",
    "Spectrum",
    "correlogram",
    "find_peak",
    "lags_between",
    "nearest_distance",
    "once",
    "pairs_within",
    "search",
]

Ints = NDArray[np.int64]

MIN_PAIRS = 6
CHANCE = 1e-6  # of a peak where there is none, with all its places
MOST_LAGS = 20_000_000  # that are compared at once; more hits are not used
TIMING_NS = 1.0  # the error of a peak is not smaller


class Peak(NamedTuple):
    """Where two telescopes, or one and the others, see the same showers."""

    lag_ns: float
    error_ns: float
    n_pairs: int


class Spectrum(NamedTuple):
    """Correlogram of all pairs of slots, with the accidental pairs beside its peak."""

    edges_ns: Ints
    """(bin + 1,)"""
    counts: Ints
    """(slot, slot, bin): time of the second slot minus time of the first; the first is lower."""


def pairs_within(time: Ints, reach: int) -> tuple[Ints, Ints]:
    """Return the indices of all pairs of sorted times that are no more than `reach` apart."""
    first = np.arange(len(time))
    left, right = [], []
    step = 1
    while True:
        first = first[: np.searchsorted(first, len(time) - step)]
        second = first + step
        close = time[second] - time[first] <= reach
        first = first[close]
        if not len(first):
            break
        left.append(first)
        right.append(first + step)
        step += 1
    if not left:
        empty = np.empty(0, np.int64)
        return empty, empty
    return np.concatenate(left), np.concatenate(right)


def lags_between(time: Ints, others: Ints, centre: float, reach: int) -> Ints:
    """Return time - others - centre where it is within `reach`, sorted.

    `others` are sorted. Of very many lags those of the first hits are returned.
    """
    moved = np.asarray(time) - round(centre)
    low = np.searchsorted(others, moved - reach, "left")
    high = np.searchsorted(others, moved + reach, "right")
    number = high - low
    total = np.cumsum(number)
    if len(total) and total[-1] > MOST_LAGS:
        n_used = max(1, int(np.searchsorted(total, MOST_LAGS)))
        moved, low, number = moved[:n_used], low[:n_used], number[:n_used]
        total = total[:n_used]
    hit = np.repeat(np.arange(len(moved)), number)
    index = np.arange(len(hit)) - (total - number)[hit] + low[hit]
    return np.sort(moved[hit] - others[index])


def find_peak(lags: Ints, reach: int, width: int) -> Peak | None:
    """Return the peak of sorted lags between -reach and reach; None where chance makes as much.

    The densest stretch of `width` is compared with what the rest of the lags lets expect: by
    Chernoff's bound P(N >= n) <= exp(n - mu - n ln(n / mu)), for 2 reach / width independent
    places. Its lag is the mean within `width` to both sides, so no step limits it.
    """
    if len(lags) < MIN_PAIRS:
        return None
    count = np.searchsorted(lags, lags + width, "right") - np.arange(len(lags))
    best = int(np.argmax(count))
    n = int(count[best])
    places = max(2.0 * reach / width, 1.0)
    mean = max((len(lags) - n) / max(places - 1.0, 1.0), 1e-6)
    if n < MIN_PAIRS or n <= mean:
        return None
    if n * math.log(n / mean) - n + mean < math.log(places / CHANCE):
        return None
    low, high = best, best + n
    centre = float(lags[low:high].mean())
    for _ in range(4):
        low, high = (int(edge) for edge in np.searchsorted(lags, (centre - width, centre + width)))
        if high <= low:
            return None
        centre = float(lags[low:high].mean())
    spread = float(lags[low:high].std())
    return Peak(centre, max(spread / math.sqrt(high - low), TIMING_NS), high - low)


def search(
    part: Ints, others: Ints, centre: float, reach: int, wide: int, width: int
) -> tuple[Peak, bool] | None:
    """Return the offset of hits against those of the others, near a guess or far from it."""
    for far in (False, True):
        limit = wide if far else reach
        if far and wide <= reach:
            break
        peak = find_peak(lags_between(part, others, centre, limit), limit, width)
        if peak is not None:
            return peak._replace(lag_ns=peak.lag_ns + round(centre)), far
    return None


def once(time: Ints, window: int) -> Ints:
    """Return one time, the mean, for hits that are close to each other, as those of a shower are.

    A hit that is near a shower by chance would count as often as telescopes saw that shower.
    """
    if not len(time):
        return time
    (start,) = np.nonzero(np.diff(time, prepend=time[0] - window - 1) > window)
    number = np.diff(np.append(start, len(time)))
    since = time - np.repeat(time[start], number)
    return time[start] + np.add.reduceat(since, start) // number


def nearest_distance(time: Ints, others: Ints) -> Ints:
    """Return the distance of each time from the nearest of sorted others, ns."""
    if not len(others):
        return np.full(len(time), np.iinfo(np.int64).max)
    after = np.searchsorted(others, time)
    low = others[np.maximum(after - 1, 0)]
    high = others[np.minimum(after, len(others) - 1)]
    return np.minimum(np.abs(time - low), np.abs(high - time))


def correlogram(time: Ints, slot: Ints, *, n_slots: int, reach: int, step: int) -> Spectrum:
    """Return the numbers of pairs of hits by slots and lag.

    Parameters
    ----------
    time
        Sorted and corrected, ns.
    slot
        Telescope of each, 0 to n_slots - 1; pairs of one telescope are not counted.
    n_slots
        Number of telescopes.
    reach, step
        Largest lag and width of the bins, ns; an odd number of bins, with one round 0.
    """
    half = max(reach // step, 1)
    n_bins = 2 * half + 1
    edges = (2 * np.arange(-half, half + 2) - 1) * step // 2
    left, right = pairs_within(time, int(edges[-1]))
    a, b = slot[left], slot[right]
    lag = time[right] - time[left]
    swap = a > b
    lag = np.where(swap, -lag, lag)
    a, b = np.minimum(a, b), np.maximum(a, b)
    place = np.searchsorted(edges, lag, "right") - 1
    use = (a != b) & (place >= 0) & (place < n_bins)
    cell = ((a * n_slots + b) * n_bins + place)[use]
    counts = np.bincount(cell, minlength=n_slots * n_slots * n_bins)
    return Spectrum(edges, counts.reshape(n_slots, n_slots, n_bins).astype(np.int64))
