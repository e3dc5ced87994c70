"""From corrected hits of all telescopes to the events of the array."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astri_gpu.event_building.hits import NS, Hits
from astri_gpu.event_building.seb0_file import Events, Members
from astri_gpu.kernels.coincidence import Events as Summary
from astri_gpu.kernels.coincidence import Groups, group_hits, nearest_hits, summarise

__all__ = ["SPAN", "Matched", "match"]

Ints = NDArray[np.int64]

SPAN = 2
"""An event lasts no longer than this many half widths of the window."""


BLOCK = 1 << 20
"""Hits that are matched at once: their arrays stay small, and the time linear."""


@dataclass(frozen=True)
class Matched:
    """Events and their members; `n_left_over` hits lost their place to one of the same telescope.

    `time_ns` are the events' times since the origin.
    """

    events: Events
    members: Members
    time_ns: Ints
    n_left_over: int


def match(
    hits: Sequence[Hits],
    times: Sequence[Ints],
    alone: Sequence[bool],
    *,
    window_ns: int,
    origin_s: int,
) -> Matched:
    """Return the events of the array; every hit is in one of them.

    Parameters
    ----------
    hits
        Of each telescope.
    times
        Their corrected times, ns since the origin.
    alone
        Telescopes whose clocks are not known: each of their hits is an event of its own.
    window_ns
        Half width of the window.
    origin_s
        UTC s since 2020-01-01.
    """
    time = np.concatenate([np.empty(0, np.int64), *times])
    slot = np.repeat(np.arange(len(hits)), [len(part) for part in times])
    valid = ~np.asarray(alone, bool)
    order = np.argsort(time, kind="stable")
    tel_id = np.array([hit.tel_id for hit in hits], np.int64)
    blocks = []
    for rows in _blocks(time, order, window_ns):
        own = slot[rows]
        event, inner, found, n_left = _match_block(
            time[rows], own, valid[own], tel_id, window_ns=window_ns
        )
        dt_ns = time[rows][inner] - found.time_ns[event]
        blocks.append((event, rows[inner], dt_ns, found, n_left))
    empty = np.empty(0, np.int64)
    index, dt_ns = (np.concatenate([empty, *(block[k] for block in blocks)]) for k in (1, 2))
    time_ns, n_tels, telescopes = (
        np.concatenate([empty, *(block[3][k] for block in blocks)]) for k in (0, 1, 2)
    )
    number = np.arange(len(n_tels))
    counter = np.concatenate([empty, *(hit.counter for hit in hits)])
    row = np.concatenate([empty, *(hit.row for hit in hits)])
    seconds, nanoseconds = np.divmod(time_ns, NS)
    return Matched(
        events=Events(
            number=number,
            time_s=seconds + origin_s,
            time_ns=nanoseconds,
            n_tels=n_tels,
            telescopes=telescopes,
            first=np.cumsum(n_tels) - n_tels,
        ),
        members=Members(
            event=np.repeat(number, n_tels),
            tel_id=tel_id[slot[index]],
            event_counter=counter[index],
            row=row[index],
            dt_ns=dt_ns,
        ),
        time_ns=time_ns,
        n_left_over=sum(block[4] for block in blocks),
    )


def _blocks(time: Ints, order: Ints, window: int) -> Iterator[Ints]:
    """Yield the hits in order of time, in parts that end at gaps, where no event can be cut."""
    start, n_hits = 0, len(order)
    while start < n_hits:
        stop = start + BLOCK
        while stop < n_hits and time[order[stop]] - time[order[stop - 1]] <= window:
            stop += 1
        yield order[start:stop]
        start = stop


def _match_block(
    time: Ints,
    slot: Ints,
    valid: NDArray[np.bool_],
    tel_id: Ints,
    *,
    window_ns: int,
) -> tuple[Ints, Ints, Summary, int]:
    """Return events of hits: numbers from 0, the hits in their order, and what they say together.

    The last is the number of hits that were left over.
    """
    span_ns = SPAN * window_ns
    groups = group_hits(
        time, slot, valid, window_ns=window_ns, span_ns=span_ns, n_slots=len(tel_id)
    )
    kept = _resolve(groups, time, slot, span_ns=span_ns, n_slots=len(tel_id))
    index = groups.index[kept]
    begins = np.concatenate([np.ones(1, bool), np.diff(groups.group[kept]) != 0])[: len(index)]
    event = np.cumsum(begins) - 1
    n_events = int(begins.sum())
    single = groups.index[~kept]
    if len(single):
        index = np.concatenate([index, single])
        event = np.concatenate([event, n_events + np.arange(len(single))])
        n_events += len(single)
    found = summarise(event, time[index], tel_id[slot[index]] - 1, n_events=n_events)
    n_left = int(np.count_nonzero(valid)) - int(np.count_nonzero(kept))
    if len(single):
        event, index, found = _by_time(event, index, found)
    return event, index, found, n_left


def _resolve(
    groups: Groups, time: Ints, slot: Ints, *, span_ns: int, n_slots: int
) -> NDArray[np.bool_]:
    """Return the hits to keep: groups with several hits of a telescope are looked at again."""
    kept = np.array(groups.first)
    double = ~kept & (groups.group >= 0)
    if double.any():
        affected = np.zeros(len(kept) + 1, bool)
        affected[groups.group[double]] = True
        (rows,) = np.nonzero(affected[groups.group])
        index, group = groups.index[rows], groups.group[rows]
        _, number = np.unique(group, return_inverse=True)
        kept[rows] = nearest_hits(
            time[index], slot[index], number, span_ns=span_ns, n_slots=n_slots
        )
    return kept


def _by_time(event: Ints, index: Ints, found: Summary) -> tuple[Ints, Ints, Summary]:
    """Put events of hits that were left over into their places in time."""
    order = np.argsort(found.time_ns, kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    event = number[event]
    inner = np.argsort(event, kind="stable")
    n_tels = found.n_tels[order]
    found = found._replace(
        time_ns=found.time_ns[order],
        n_tels=n_tels,
        telescopes=found.telescopes[order],
        first=np.cumsum(n_tels) - n_tels,
    )
    return event[inner], index[inner], found
