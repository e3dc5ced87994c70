"""What the events were made with: offsets by telescope and time, correlograms, accidental rates."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astri_gpu.event_building.clock import INTERPOLATED, JUMP, NEVER, WIDE, Clock
from astri_gpu.event_building.hits import Track
from astri_gpu.event_building.lags import Spectrum, correlogram
from astri_gpu.event_building.seb0_file import Offsets, Profile

__all__ = ["Accidentals", "accidentals", "offsets_table", "profile_of", "profile_table"]

Ints = NDArray[np.int64]

REACH_NS = 10_000
REACH_WINDOWS = 20  # the correlogram goes to the larger of both
PEAK_WINDOWS = 5  # beyond so many half widths nothing is of one shower


@dataclass(frozen=True)
class Accidentals:
    """Rates of pairs that chance makes within the window, Hz."""

    expected: float
    """2 w R_a R_b, summed over pairs of telescopes."""
    measured: float
    """From the correlogram beside the peak; NaN where there is nothing beside it."""
    error: float
    pair_rate: float
    """All pairs within the window."""


def profile_of(
    times: Sequence[Ints], alone: Sequence[bool], *, window_ns: int, step_ns: int
) -> Spectrum:
    """Return the correlogram of corrected times, ns, of telescopes that are not alone."""
    parts = [time for time, single in zip(times, alone, strict=True) if not single]
    slots = [slot for slot, single in enumerate(alone) if not single]
    time = np.concatenate([np.empty(0, np.int64), *parts])
    slot = np.repeat(np.array(slots, np.int64), [len(part) for part in parts])
    order = np.argsort(time, kind="stable")
    return correlogram(
        time[order],
        slot[order],
        n_slots=len(times),
        reach=max(REACH_NS, REACH_WINDOWS * window_ns),
        step=step_ns,
    )


def profile_table(spectrum: Spectrum, tel_ids: Sequence[int]) -> Profile:
    """Return the correlograms of all pairs as a table."""
    middle = (spectrum.edges_ns[1:] + spectrum.edges_ns[:-1]) / 2
    pairs = list(itertools.combinations(range(len(tel_ids)), 2))
    number = np.array(tel_ids, np.int64)
    a, b = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
    return Profile(
        tel_a=np.repeat(number[a], len(middle)),
        tel_b=np.repeat(number[b], len(middle)),
        lag_ns=np.tile(middle, len(pairs)),
        counts=spectrum.counts[a, b].ravel(),
    )


def accidentals(
    spectrum: Spectrum, n_hits: Sequence[int], duration_s: float, *, window_ns: int
) -> Accidentals:
    """Return the rates of accidental pairs, as calculated and as the correlogram has them.

    The calculation takes hits as independent. Those of a shower that many telescopes saw are
    followed by their dead times, in which there is nothing to pair with, so less is measured.

    Parameters
    ----------
    spectrum
        Of corrected times.
    n_hits
        Of each telescope that takes part.
    duration_s
        Of the run.
    window_ns
        Half width of the window.
    """
    rates = np.array(n_hits, float) / duration_s
    width_s = 2e-9 * window_ns
    expected = width_s * (rates.sum() ** 2 - (rates**2).sum()) / 2
    counts = spectrum.counts.sum(axis=(0, 1))
    low, high = spectrum.edges_ns[:-1], spectrum.edges_ns[1:]
    outside = (high <= -PEAK_WINDOWS * window_ns) | (low >= PEAK_WINDOWS * window_ns)
    breadth_s = 1e-9 * float((high - low)[outside].sum())
    n = int(counts[outside].sum())
    factor = width_s / breadth_s / duration_s if breadth_s else float("nan")
    inside = (low >= -window_ns) & (high <= window_ns)
    return Accidentals(
        expected=float(expected),
        measured=n * factor,
        error=float(np.sqrt(max(n, 1))) * factor,
        pair_rate=float(counts[inside].sum()) / duration_s,
    )


def offsets_table(
    clocks: Sequence[Clock],
    times: Sequence[Ints],
    tel_ids: Sequence[int],
    edges: Ints,
    track: Track,
) -> Offsets:
    """Return the offsets by telescope and interval; an interval is divided where a clock jumped.

    Parameters
    ----------
    clocks
        Of the telescopes.
    times
        Their hits by their clocks, in the order of the file.
    tel_ids
        Their numbers.
    edges
        Of the intervals, ns since the origin.
    track
        Of the run.
    """
    rows = []
    for clock, time, tel_id in zip(clocks, times, tel_ids, strict=True):
        pieces = clock.pieces(len(time))
        starts = [float(edges[0])] + [float(time[first]) for first, *_ in pieces[1:]]
        stops = [*starts[1:], float(edges[-1])]
        for k, (_, _, nodes) in enumerate(pieces):
            cuts = [float(edge) for edge in edges if starts[k] < edge < stops[k]]
            for low, high in itertools.pairwise([starts[k], *cuts, max(starts[k], stops[k])]):
                flag = JUMP if k and low == starts[k] else 0
                own = [node for node in nodes if low <= node.time_ns < high]
                if not clock.nodes:
                    rows.append((tel_id, low, high, np.nan, np.nan, 0, NEVER))
                    continue
                flag |= WIDE if any(node.wide for node in own) else 0
                flag |= 0 if own else INTERPOLATED
                offset = float(clock.line(nodes, np.array([(low + high) / 2]))[0])
                error = min((node.error_ns for node in own), default=np.nan)
                rows.append(
                    (tel_id, low, high, offset, error, sum(node.n_pairs for node in own), flag)
                )
    columns = list(zip(*rows, strict=True)) or [()] * len(Offsets._fields)
    start, stop = (track.origin_s + 1e-9 * np.array(columns[k], float) for k in (1, 2))
    whole = (np.array(columns[k], np.int64) for k in (0, 5, 6))
    tel, n_pairs, flags = whole
    return Offsets(
        tel, start, stop, np.array(columns[3], float), np.array(columns[4], float), n_pairs, flags
    )
