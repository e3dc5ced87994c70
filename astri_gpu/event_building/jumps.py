"""Jumps of clocks: where between two offsets, and where an interval has no offset of its own."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from astri_gpu.event_building.clock import Clock, Node
from astri_gpu.event_building.lags import nearest_distance, once, search

__all__ = ["repair", "set_jumps"]

Ints = NDArray[np.int64]

IMPROBABLE = 1e-9  # that so many hits after each other have no partner
MIN_STRETCH = 20  # hits
MOST_REPAIRS = 50  # stretches without partners that are looked at, of a telescope


def _corrected(
    clocks: Sequence[Clock], times: Sequence[Ints], without: int, low: int, high: int
) -> Ints:
    """Return the corrected hits of all other telescopes that have a clock, sorted."""
    parts = [np.empty(0, np.int64)]
    for slot, (clock, time) in enumerate(zip(clocks, times, strict=True)):
        if slot != without and clock.nodes:
            corrected = time - clock.offsets(time)
            parts.append(corrected[(corrected >= low) & (corrected <= high)])
    return np.sort(np.concatenate(parts))


def set_jumps(
    slot: int,
    clocks: Sequence[Clock],
    times: Sequence[Ints],
    edges: Ints,
    window: int,
) -> None:
    """Find the jumps between the nodes of a clock, and the hits at which they happen.

    Parameters
    ----------
    slot
        Number of the clock, which is changed.
    clocks, times
        Of all telescopes; times are in the order of the files.
    edges
        Of the intervals that the nodes are of, ns.
    window
        Half width of the window, ns.
    """
    clock = clocks[slot]
    steps = np.diff([node.offset_ns for node in clock.nodes])
    spans = np.diff([node.time_ns for node in clock.nodes])
    if not len(steps):
        return
    slopes = steps / np.maximum(spans, 1.0)
    few = len(slopes) < 3
    clock.slope = float(slopes[np.argmin(np.abs(slopes))] if few else np.median(slopes))
    if len(slopes) == 1 and abs(steps[0]) > window:
        clock.slope = 0.0
    odd = steps - clock.slope * spans
    error = np.array([node.error_ns for node in clock.nodes])
    limit = np.maximum(window if few else window / 3, 5 * np.hypot(error[1:], error[:-1]))
    jumped = np.abs(odd) > limit
    keep = np.ones(len(clock.nodes), bool)
    for k in range(1, len(steps)):
        # The peak of an interval with a small jump is a mixture of both.
        small = max(abs(odd[k - 1]), abs(odd[k])) < 4 * window
        if jumped[k - 1] and jumped[k] and keep[k - 1] and small and odd[k - 1] * odd[k] > 0:
            keep[k] = False
    nodes = [node for node, use in zip(clock.nodes, keep, strict=True) if use]
    starts = [sum(keep[: k + 1]) for k in range(len(steps)) if jumped[k] and keep[k + 1]]
    clock.nodes = nodes
    for cut in starts:
        before = nodes[clock.cuts[-1] if clock.cuts else 0 : cut]
        later = [other for other in starts if other > cut]
        after = nodes[cut : later[0] if later else None]
        low = int(edges[before[-1].interval])
        high = int(edges[after[0].interval + 1])
        reach = round(abs(after[0].offset_ns - before[-1].offset_ns)) + window
        others = _corrected(clocks, times, slot, low - reach, high + reach)
        time = times[slot]
        (rows,) = np.nonzero((time >= low - reach) & (time < high + reach))
        if clock.jumps:
            rows = rows[rows >= clock.jumps[-1]]
        if not len(rows):
            continue
        held, came = (
            nearest_distance(time[rows] - np.rint(clock.line(side, time[rows])).astype(int), others)
            <= window
            for side in (before, after)
        )
        clock.jumps.append(_parting(held, came, rows))
        clock.cuts.append(cut)


def _parting(held: NDArray[np.bool_], came: NDArray[np.bool_], rows: Ints) -> int:
    """Return the first hit after the jump, of `rows`, from which hits fit before and after it."""
    total = np.concatenate([[0], np.cumsum(held.astype(int) - came)])
    return int(rows[min(int(np.argmax(total)), len(rows) - 1)])


def repair(
    clocks: Sequence[Clock], times: Sequence[Ints], *, range_ns: int, wide_ns: int, window_ns: int
) -> None:
    """Look for other offsets where too many hits in a row have no partner; clocks are changed.

    So jumps are found for which an interval has no node of its own: near the ends of the run, and
    forth and back within an interval. Parameters are those of `find_offsets`.
    """
    for slot, matched in enumerate(_matched(clocks, times, window_ns)):
        _repair_one(slot, clocks, times, matched, range_ns, wide_ns, window_ns)


def _matched(
    clocks: Sequence[Clock], times: Sequence[Ints], window: int
) -> list[NDArray[np.bool_]]:
    """Return for each hit whether the hit before or behind it is another telescope's, and near."""
    parts = [time - clock.offsets(time) for clock, time in zip(clocks, times, strict=True)]
    time = np.concatenate(parts)
    slot = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(time, kind="stable")
    known = np.array([bool(clock.nodes) for clock in clocks])
    order = order[known[slot[order]]]
    ordered, slots = time[order], slot[order]
    near = (np.diff(ordered) <= window) & (np.diff(slots) != 0)
    matched = np.zeros(len(time), bool)
    matched[order[1:][near]] = True
    matched[order[:-1][near]] = True
    return np.split(matched, np.cumsum([len(part) for part in parts])[:-1])


def _repair_one(
    slot: int,
    clocks: Sequence[Clock],
    times: Sequence[Ints],
    matched: NDArray[np.bool_],
    reach: int,
    wide: int,
    window: int,
) -> None:
    """Look for other offsets of one clock."""
    clock, time = clocks[slot], times[slot]
    share = float(matched.mean()) if len(time) else 0.0
    if not (clock.nodes and 0 < share < 1):
        return
    needed = max(MIN_STRETCH, int(np.log(IMPROBABLE) / np.log1p(-share)) + 1)
    bounds = np.concatenate([[-1], np.flatnonzero(matched), [len(time)]])
    (long,) = np.nonzero(np.diff(bounds) - 1 >= needed)
    for k in long[:MOST_REPAIRS]:
        first, last = int(bounds[k]) + 1, int(bounds[k + 1])
        part = time[first:last]
        low, high = _around(part, clock, wide + reach)
        others = once(_corrected(clocks, times, slot, low, high), window)
        (nodes,) = (
            nodes for start, stop, nodes in clock.pieces(len(time)) if start <= first < stop
        )
        centre = float(clock.line(nodes, part[:1])[0])
        found = search(part, others, centre, reach, wide, 2 * window)
        if found is None:
            continue
        peak, far = found
        if abs(peak.lag_ns - centre) <= window:
            continue
        _insert(clock, first, last, len(time), Node(float(part.mean()), *peak, -1, far))


def _around(part: Ints, clock: Clock, reach: int) -> tuple[int, int]:
    largest = max(abs(node.offset_ns) for node in clock.nodes)
    more = reach + round(largest) + 1
    return int(part.min()) - more, int(part.max()) + more


def _insert(clock: Clock, first: int, last: int, n_hits: int, node: Node) -> None:
    """Let a node of its own hold for the hits from `first` to `last`."""
    pieces: list[tuple[int, list[Node]]] = []
    for start, stop, nodes in clock.pieces(n_hits):
        if not start <= first < stop:
            pieces.append((start, nodes))
            continue
        left = [item for item in nodes if item.time_ns <= node.time_ns] or nodes
        right = [item for item in nodes if item.time_ns > node.time_ns] or nodes
        if first > start:
            pieces.append((start, left))
        pieces.append((first, [node]))
        if last < stop:
            pieces.append((last, right))
    clock.nodes = [item for _, nodes in pieces for item in nodes]
    clock.jumps = [start for start, _ in pieces[1:]]
    clock.cuts = [int(n) for n in np.cumsum([len(nodes) for _, nodes in pieces])[:-1]]
