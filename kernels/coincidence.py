"""Coincidences of telescope events (hits) in time: which of them belong to one shower.

Times are integer nanoseconds (int64) throughout: float64 seconds since 2020 are 30 ns apart, and
telescopes have to be compared within a few.

Hits are sorted by time. A gap of more than the window begins a new group, and a group that lasts
longer than the span, which only a chain of accidental hits does, is cut every span from its first
hit. So no two hits of a group are farther apart than the span. A telescope has one hit in an event:
of several in a group, which are rare, the one closest to the mean of the other telescopes' hits;
the rest is left over, to be events of their own.
"""

from typing import NamedTuple

from jaxtyping import Bool, Int

from ._types import Array, array_namespace

__all__ = ["Events", "Groups", "group_hits", "nearest_hits", "summarise"]


class Groups(NamedTuple):
    """Hits ordered by group, telescope and time."""

    index: Int[Array, " hit"]  # of the hit among those given
    group: Int[Array, " hit"]  # from 0, in order of time; hits that are not valid come last, as -1
    first: Bool[Array, " hit"]  # of its telescope in the group; False for hits that are not valid


class Events(NamedTuple):
    """What the hits of each event say together; an event without hits has zeros."""

    time_ns: Int[Array, " event"]  # mean, rounded down
    n_tels: Int[Array, " event"]
    telescopes: Int[Array, " event"]  # bit k is set for slot k
    first: Int[Array, " event"]  # where its hits begin


def group_hits(
    time_ns: Int[Array, " hit"],
    slot: Int[Array, " hit"],
    valid: Bool[Array, " hit"],
    *,
    window_ns: int,
    span_ns: int,
    n_slots: int,
) -> Groups:
    """Return the groups of hits that belong together.

    Parameters
    ----------
    time_ns
        int64, corrected for clocks and the way of light; from any time on.
    slot
        Telescope, 0 to n_slots - 1.
    valid
        Hits that may be in a group.
    window_ns
        Hits of a group follow each other by no more than this.
    span_ns
        And the last one follows the first by no more than this.
    n_slots
        Number of telescopes.
    """
    xp = array_namespace(time_ns, slot, valid)
    n_hits = time_ns.shape[0]
    slot = xp.astype(slot, xp.int64)
    if n_hits == 0:
        return Groups(slot, slot, valid)
    # Stable sorting finds the sorted lists of the telescopes again and merges them.
    largest = xp.asarray(2**63 - 1, dtype=xp.int64)
    order = xp.argsort(xp.where(valid, time_ns, largest), stable=True)
    time, slot, valid = (xp.take(values, order) for values in (time_ns, slot, valid))
    group = _groups(xp, time, valid, window_ns, span_ns)
    place = xp.where(valid, group, n_hits) * n_slots + slot
    inner = xp.argsort(place, stable=True)
    place, group, valid = (xp.take(values, inner) for values in (place, group, valid))
    first = xp.concat([xp.ones((1,), dtype=xp.bool), place[1:] != place[:-1]])
    return Groups(
        index=xp.take(order, inner),
        group=xp.where(valid, group, -1),
        first=first & valid,
    )


def nearest_hits(
    time_ns: Int[Array, " hit"],
    slot: Int[Array, " hit"],
    group: Int[Array, " hit"],
    *,
    span_ns: int,
    n_slots: int,
) -> Bool[Array, " hit"]:
    """Return the hit to keep of each telescope in each group: the nearest to the others' mean.

    The distance from the mean of the hits of all other telescopes counts in whole ns; of hits at
    the same distance, and where there are no others, the earlier one is kept.

    Parameters
    ----------
    time_ns, slot, group
        Ordered by group, slot and time, as `group_hits` orders them; groups count from 0.
    span_ns
        No two hits of a group are farther apart.
    n_slots
        Number of telescopes. hits x (2 span_ns + 1) has to stay below 2**63.
    """
    xp = array_namespace(time_ns, slot, group)
    if time_ns.shape[0] == 0:
        return group == 0
    place = group * n_slots + xp.astype(slot, xp.int64)
    run = _count(xp, place[1:] != place[:-1])
    since = xp.clip(time_ns - xp.take(time_ns, _first_of(xp, group)), -span_ns, span_ns)
    total, n_total = _sums(xp, group, since)
    same, n_same = _sums(xp, run, since)
    n_others = n_total - n_same
    safe = xp.where(n_others == 0, 1, n_others)
    far = xp.abs(since * safe - (total - same)) // safe
    far = xp.clip(xp.where(n_others == 0, since + span_ns, far), 0, 2 * span_ns)
    order = xp.argsort(run * (2 * span_ns + 1) + far, stable=True)
    # The hit of a run that comes first in this order is kept: its place there is the run's start.
    start = _first_of(xp, run)
    number = xp.arange(time_ns.shape[0], dtype=xp.int64)
    return xp.take(order, start) == number


def _groups(xp, time, valid, window_ns, span_ns):
    """Return the number of the group of each hit, by time."""
    gap = time[1:] - time[:-1]
    begins = (gap > window_ns) | ~valid[1:]
    start = _first_of(xp, _count(xp, begins))
    since = time - xp.take(time, start)
    part = xp.where(valid, since // (span_ns + 1), 0)
    return _count(xp, begins | (part[1:] != part[:-1]))


def _count(xp, begins):
    """Return the number of the run of each hit; `begins` says of all but the first hit."""
    zero = xp.zeros((1,), dtype=xp.int64)
    return xp.concat([zero, xp.cumulative_sum(xp.astype(begins, xp.int64))])


def _first_of(xp, group):
    """Return for each hit where its group begins; groups are in order."""
    number = xp.arange(group.shape[0], dtype=xp.int64)
    return xp.take(xp.astype(xp.searchsorted(group, number), xp.int64), group)


def _sums(xp, group, values):
    """Return the sum of the values of each hit's group and the number of its hits."""
    number = xp.arange(group.shape[0] + 1, dtype=xp.int64)
    edges = xp.astype(xp.searchsorted(group, number), xp.int64)
    running = xp.concat([xp.zeros((1,), dtype=xp.int64), xp.cumulative_sum(values)])
    begin, end = xp.take(edges, group), xp.take(edges, group + 1)
    return xp.take(running, end) - xp.take(running, begin), end - begin


def summarise(
    event: Int[Array, " hit"],
    time_ns: Int[Array, " hit"],
    slot: Int[Array, " hit"],
    *,
    n_events: int,
) -> Events:
    """Return mean time, telescopes and place of each event.

    Parameters
    ----------
    event
        Number of the event of each hit, from 0, not falling.
    time_ns
        int64
    slot
        Telescope, 0 to 31, no two of an event alike.
    n_events
        Number of events.
    """
    xp = array_namespace(event, time_ns, slot)
    zero = xp.zeros((1,), dtype=xp.int64)
    number = xp.arange(n_events + 1, dtype=xp.int64)
    edges = xp.astype(xp.searchsorted(event, number), xp.int64)
    n_tels = edges[1:] - edges[:-1]
    if event.shape[0] == 0:
        return Events(n_tels, n_tels, n_tels, edges[:-1])

    def per_event(values):
        running = xp.concat([zero, xp.cumulative_sum(values)])
        return xp.take(running, edges[1:]) - xp.take(running, edges[:-1])

    first = xp.take(time_ns, xp.clip(edges[:-1], 0, event.shape[0] - 1))
    since = per_event(time_ns - xp.take(first, event))
    bit = xp.bitwise_left_shift(xp.asarray(1, dtype=xp.int64), xp.astype(slot, xp.int64))
    safe = xp.where(n_tels == 0, 1, n_tels)
    return Events(
        time_ns=xp.where(n_tels == 0, 0, first + since // safe),
        n_tels=n_tels,
        telescopes=per_event(bit),
        first=edges[:-1],
    )
