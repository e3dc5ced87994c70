"""Coincidences: against a loop over hits, by hand, and on hostile times."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels.coincidence import group_hits, nearest_hits, summarise

WINDOW, SPAN = 300, 600


class Coincidences(NamedTuple):
    index: np.ndarray
    group: np.ndarray
    kept: np.ndarray


def coincidences(
    time, slot, valid, *, run=lambda kernel, *args, **static: kernel(*args, **static), **static
):
    """Return the hits by group and telescope, with those that are kept."""
    groups = run(group_hits, time, slot, valid, **static)
    static.pop("window_ns")
    use = groups.group >= 0
    index = groups.index[use]
    kept = np.zeros(len(use), bool)
    kept[use] = run(nearest_hits, time[index], slot[index], groups.group[use], **static)
    return Coincidences(groups.index, groups.group, kept)


def reference(time, slot, valid, window=WINDOW, span=SPAN):
    """Return groups and left-over hits as sets of hits, by a loop over hits in order of time."""
    order = sorted((i for i in range(len(time)) if valid[i]), key=lambda i: time[i])
    chains, last = [], None
    for i in order:
        if last is None or time[i] - last > window:
            chains.append([])
        chains[-1].append(i)
        last = time[i]
    groups = []
    for chain in chains:
        pieces = {}
        for i in chain:
            pieces.setdefault((time[i] - time[chain[0]]) // (span + 1), []).append(i)
        groups += pieces.values()
    kept, left = [], []
    for group in groups:
        chosen = []
        for tel in sorted({slot[i] for i in group}):
            own = [i for i in group if slot[i] == tel]
            others = [int(time[i]) for i in group if slot[i] != tel]
            n, total = len(others), sum(others)
            far = [abs(int(time[i]) * n - total) // n if n else i for i in own]
            best = own[int(np.argmin(far))] if n else own[0]
            chosen.append(best)
            left += [i for i in own if i != best]
        kept.append(chosen)
    return kept, sorted(left)


def found(groups):
    """Return the same from the kernel's result."""
    kept = {}
    for index, group, is_kept in zip(*(part.tolist() for part in groups), strict=True):
        if is_kept:
            kept.setdefault(group, []).append(index)
    used = groups.index[~groups.kept & (groups.group >= 0)]
    return [kept[group] for group in sorted(kept)], sorted(used.tolist())


def some_hits(n=400, seed=1):
    """Return hits of showers and others, several of one telescope among them; some not valid."""
    rng = np.random.default_rng(seed)
    shower = rng.integers(0, 200_000, n // 5)
    time = np.concatenate(
        [rng.choice(shower, n // 2) + rng.integers(-150, 150, n // 2), rng.integers(0, 200_000, n)]
    )
    return time, rng.integers(0, 5, len(time)), rng.random(len(time)) < 0.97


def test_same_as_a_loop_on_every_backend(call):
    time, slot, valid = some_hits()
    kept, left = found(
        coincidences(time, slot, valid, run=call, window_ns=WINDOW, span_ns=SPAN, n_slots=5)
    )
    wanted, wanted_left = reference(time, slot, valid)
    assert kept == wanted
    assert left == wanted_left
    assert len(left) > 5  # multi-matches were there
    assert max(map(len, wanted)) > 3


def test_times_of_a_year_in_nanoseconds_are_exact():
    start = 6 * 365 * 86400 * 10**9  # float64 would round to 32 ns
    time = start + np.array([0, 300, 601, 1000], np.int64)
    groups = coincidences(
        time, np.array([0, 1, 2, 3]), np.ones(4, bool),
        window_ns=300, span_ns=600, n_slots=4,
    )  # fmt: skip
    assert groups.group.tolist() == [0, 0, 1, 2]  # 301 and 399 ns later


def test_of_two_hits_of_a_telescope_the_nearer_one_to_the_others_is_kept():
    #                 tel 0  tel 1  tel 0  tel 2 (mean of 1 and 2: 150)
    time = np.array([0, 100, 160, 200])
    groups = coincidences(
        time, np.array([0, 1, 0, 2]), np.ones(4, bool),
        window_ns=WINDOW, span_ns=SPAN, n_slots=3,
    )  # fmt: skip
    assert groups.index.tolist() == [0, 2, 1, 3]
    assert groups.kept.tolist() == [False, True, True, True]
    assert groups.group.tolist() == [0, 0, 0, 0]


def test_a_telescope_by_itself_keeps_its_first_hit():
    time, slot = np.array([200, 0, 100]), np.zeros(3, np.int64)
    groups = coincidences(time, slot, np.ones(3, bool), window_ns=WINDOW, span_ns=SPAN, n_slots=1)
    assert groups.index.tolist() == [1, 2, 0]
    assert groups.kept.tolist() == [True, False, False]


def test_a_chain_is_cut_at_the_span():
    time = 250 * np.arange(40)
    groups = coincidences(
        time, np.arange(40) % 9, np.ones(40, bool),
        window_ns=WINDOW, span_ns=SPAN, n_slots=9,
    )  # fmt: skip
    for _, rows in itertools.groupby(range(40), key=lambda i: groups.group[i]):
        inside = time[groups.index[list(rows)]]
        assert np.ptp(inside) <= SPAN
    assert groups.kept.all()


def test_summary_of_events(call):
    event = np.array([0, 0, 1, 3, 3, 3])
    time = 10**18 + np.array([5, 8, 100, -7, 0, 1])
    slot = np.array([4, 0, 2, 1, 3, 31])
    events = call(summarise, event, time, slot, n_events=4)
    assert (events.time_ns - 10**18).tolist() == [6, 100, -(10**18), -2]
    assert events.n_tels.tolist() == [2, 1, 0, 3]
    assert events.telescopes.tolist() == [0b10001, 0b100, 0, 0b1010 + 2**31]
    assert events.first.tolist() == [0, 2, 3, 3]


def test_without_hits():
    none = np.empty(0, np.int64)
    groups = coincidences(none, none, none > 0, window_ns=WINDOW, span_ns=SPAN, n_slots=2)
    assert [len(part) for part in groups] == [0, 0, 0]
    events = summarise(none, none, none, n_events=0)
    assert [len(part) for part in events] == [0, 0, 0, 0]


hits = st.lists(
    st.tuples(st.integers(-5_000, 5_000), st.integers(0, 3), st.booleans()), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(hits, st.integers(1, 700), st.randoms(use_true_random=False))
def test_any_hits(rows, window, random):
    """Every hit is in one group, no telescope twice, none too far, whatever the order."""
    time, slot, valid = (np.array(part) for part in zip(*rows, strict=True)) if rows else (
        np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool)
    )  # fmt: skip
    static = {"window_ns": window, "span_ns": 2 * window, "n_slots": 4}
    groups = coincidences(time, slot, valid, **static)
    assert sorted(groups.index.tolist()) == list(range(len(rows)))
    assert np.array_equal(groups.group < 0, ~valid[groups.index])
    kept, left = found(groups)
    for event in kept:
        assert len(set(slot[event].tolist())) == len(event)
        assert np.ptp(time[event]) <= 2 * window
    assert (kept, left) == reference(time, slot, valid, window, 2 * window)
    order = list(range(len(rows)))
    random.shuffle(order)
    again, _ = found(coincidences(time[order], slot[order], valid[order], **static))
    as_times = [[(int(time[i]), int(slot[i])) for i in event] for event in kept]
    assert as_times == [[(int(time[order[i]]), int(slot[order[i]])) for i in e] for e in again]


@pytest.mark.parametrize("cut", [1, 50, 333])
def test_blocks_that_end_at_gaps_give_the_same(cut):
    time, slot, valid = some_hits()
    order = np.argsort(time, kind="stable")
    time, slot, valid = time[order], slot[order], valid[order]
    gaps = np.nonzero(np.diff(time) > WINDOW)[0] + 1
    at = gaps[min(cut, len(gaps) - 1)]
    static = {"window_ns": WINDOW, "span_ns": SPAN, "n_slots": 5}
    whole, whole_left = found(coincidences(time, slot, valid, **static))
    parts, lefts = [], []
    for use in (slice(0, at), slice(at, None)):
        kept, left = found(coincidences(time[use], slot[use], valid[use], **static))
        parts += [[i + (use.start or 0) for i in event] for event in kept]
        lefts += [i + (use.start or 0) for i in left]
    assert (parts, lefts) == (whole, whole_left)
