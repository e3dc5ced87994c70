"""Clock offsets of the telescopes, from the showers that they see together.

For each interval of the run the lags between all pairs of telescopes are collected; the peak of a
pair is the difference of their offsets, because showers from all over the field come to both at the
same time but for ~0.1 us (after the correction for the way of light). Least squares over the pairs
give the offsets but for a constant, which is chosen so that the median telescope keeps its clock.
A telescope without a peak is looked for over a wider range, by itself.

Between the intervals offsets are interpolated. Where they do not follow each other, the clock
jumped: the hit at which it did is the one that parts hits that have partners with the offset
before from those with the offset after, in the order of the file, since a clock may jump back.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from astri_gpu.event_building.clock import Clock, Node
from astri_gpu.event_building.jumps import repair, set_jumps
from astri_gpu.event_building.lags import Peak, find_peak, once, pairs_within, search

__all__ = ["find_offsets"]

Ints = NDArray[np.int64]

FEW_HITS = 500  # of a telescope in an interval, where a short run is divided
MIN_INTERVALS = 4  # of a short run, if there are enough hits
TIMING_NS = 3.0  # what is added to the statistical errors of lags
EVER = 2**62


def find_offsets(
    times: Sequence[Ints],
    *,
    duration_ns: int,
    interval_ns: int,
    range_ns: int,
    wide_ns: int,
    window_ns: int,
) -> tuple[list[Clock], Ints]:
    """Return the clocks of telescopes, and the edges of the intervals (ns since the start).

    Parameters
    ----------
    times
        For each telescope the times of its hits, corrected for the way of light, in the order of
        the file; ns since the start of the run.
    duration_ns
        Of the run.
    interval_ns
        Offsets are found for such parts; a short run is divided into four where hits suffice.
    range_ns
        Largest difference between clocks that is looked for; 0 takes all clocks as right.
    wide_ns
        Largest difference that is looked for where none is found within `range_ns`.
    window_ns
        Half width of the window of coincidences.
    """
    clocks = [Clock() for _ in times]
    n_hits = max((len(time) for time in times), default=0)
    n = max(round(duration_ns / interval_ns), min(MIN_INTERVALS, n_hits // FEW_HITS), 1)
    shown = np.arange(n + 1) * (duration_ns / n)
    if range_ns == 0:
        for clock in clocks:
            clock.nodes.append(Node(0.0, 0.0, 0.0, 0, -1))
        return clocks, np.rint(shown).astype(np.int64)
    ordered = [np.sort(time, kind="stable") for time in times]
    edges = np.rint(shown).astype(np.int64)
    # Clocks may put hits before or behind the run.
    edges[0], edges[-1] = -EVER, EVER
    last: dict[int, float] = {}
    for k in range(len(edges) - 1):
        parts = [_between(time, edges[k], edges[k + 1]) for time in ordered]
        found = _solve(parts, last, range_ns, wide_ns, 2 * window_ns)
        both = [slot for slot in found if slot in last]
        shift = (
            np.median([found[slot][0].lag_ns - last[slot] for slot in both])
            if both
            else np.median([peak.lag_ns for peak, _ in found.values()] or [0.0])
        )
        for slot, (peak, wide) in found.items():
            offset = peak.lag_ns - float(shift)
            middle = float(parts[slot].mean())
            node = Node(middle, offset, peak.error_ns, peak.n_pairs, k, wide)
            clocks[slot].nodes.append(node)
            last[slot] = offset
    for slot in range(len(times)):
        set_jumps(slot, clocks, times, edges, window_ns)
    repair(clocks, times, range_ns=range_ns, wide_ns=wide_ns, window_ns=window_ns)
    return clocks, np.rint(shown).astype(np.int64)


def _between(ordered: Ints, low: int, high: int) -> Ints:
    start, stop = np.searchsorted(ordered, (low, high))
    return ordered[start:stop]


def _solve(
    parts: Sequence[Ints], last: dict[int, float], reach: int, wide: int, width: int
) -> dict[int, tuple[Peak, bool]]:
    """Return slot -> (offset of the clock, whether the wide search found it) for an interval."""
    guess = {slot: last.get(slot, 0.0) for slot in range(len(parts))}
    moved = [part - round(guess[slot]) for slot, part in enumerate(parts)]
    pairs = _pair_peaks(moved, reach, width)
    found = _least_squares(pairs, len(parts))
    result = {
        slot: (peak._replace(lag_ns=peak.lag_ns + guess[slot]), False)
        for slot, peak in found.items()
    }
    if not result:
        # Every clock may be far from every other: start with the telescope of most hits.
        most = max(range(len(parts)), key=lambda slot: len(parts[slot]))
        result[most] = (Peak(guess[most], TIMING_NS, 0), False)
    while True:
        others = once(
            np.sort(
                np.concatenate(
                    [parts[slot] - round(peak.lag_ns) for slot, (peak, _) in result.items()]
                )
            ),
            width // 2,
        )
        added = {}
        for slot, part in enumerate(parts):
            if slot in result or not len(part):
                continue
            found_one = search(part, others, guess[slot], reach, wide, width)
            if found_one is not None:
                added[slot] = found_one
        if not added:
            break
        result |= added
        if wide == 0:
            break
    return result if len(result) > 1 else {}


def _pair_peaks(moved: Sequence[Ints], reach: int, width: int) -> dict[tuple[int, int], Peak]:
    time = np.concatenate(moved)
    slot = np.repeat(np.arange(len(moved)), [len(part) for part in moved])
    order = np.argsort(time, kind="stable")
    time, slot = time[order], slot[order]
    left, right = pairs_within(time, reach)
    a, b = slot[left], slot[right]
    lag = time[right] - time[left]
    lag = np.where(a > b, -lag, lag)
    pair = np.minimum(a, b) * len(moved) + np.maximum(a, b)
    key = np.sort((pair * (2 * reach + 1) + lag + reach)[a != b])
    pair, lag = np.divmod(key, 2 * reach + 1)
    edges = np.searchsorted(pair, np.arange(len(moved) ** 2 + 1))
    peaks = {}
    for number in range(len(moved) ** 2):
        low, high = edges[number], edges[number + 1]
        if high > low:
            peak = find_peak(lag[low:high] - reach, reach, width)
            if peak is not None:
                peaks[number // len(moved), number % len(moved)] = peak
    return peaks


def _least_squares(pairs: dict[tuple[int, int], Peak], n_slots: int) -> dict[int, Peak]:
    """Return the offsets of the largest set of telescopes that pairs connect; their mean is 0."""
    group = list(range(n_slots))
    for a, b in pairs:
        group = [group[a] if number == group[b] else number for number in group]
    largest = max(range(n_slots), key=lambda number: (group.count(number), -number))
    slots = [slot for slot in range(n_slots) if group[slot] == largest]
    if len(slots) < 2:
        return {}
    place = {slot: k for k, slot in enumerate(slots)}
    matrix, right = np.zeros((len(slots), len(slots))), np.zeros(len(slots))
    n_pairs = dict.fromkeys(slots, 0)
    for (a, b), peak in pairs.items():
        if a not in place or b not in place:
            continue
        i, j = place[a], place[b]
        weight = 1.0 / (peak.error_ns**2 + TIMING_NS**2)
        matrix[[i, j], [i, j]] += weight
        matrix[[i, j], [j, i]] -= weight
        right[j] += weight * peak.lag_ns
        right[i] -= weight * peak.lag_ns
        n_pairs[a] += peak.n_pairs
        n_pairs[b] += peak.n_pairs
    covariance = np.linalg.pinv(matrix, hermitian=True)
    offset, error = covariance @ right, np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return {
        slot: Peak(float(offset[k]), float(error[k]), n_pairs[slot]) for slot, k in place.items()
    }
