"""CPU launch of the loops over cuts: pairs of energy bin and selection shared out over threads."""

from typing import NamedTuple

import numba
import numpy as np

from .._types import Array
from ..cuts import GridCounts
from ._compile import compiled
from .cuts import (
    BUCKETS,
    PIECE,
    compress,
    count_background,
    count_passed,
    count_signal,
    percentiles,
)

__all__ = ["CutLoops", "LoopEvents"]


class LoopEvents(NamedTuple):
    """Events brought together by energy bin, (event,), in their order within a bin."""

    gammaness: Array  # float64
    theta: Array  # float64
    weight: Array  # float64
    n_tels: Array  # int32
    quality: Array  # int32


@compiled(parallel=True, counted=True)
def _bin_numbers(energy, edges, n_workers, place, counts):
    """Fill the bin of each event, -1 outside, and how many each worker found in each bin."""
    n = len(energy)
    n_bins = len(edges) - 1
    for worker in numba.prange(n_workers):
        passed = np.empty(PIECE, np.int64)
        stop = (worker + 1) * n // n_workers
        for start in range(worker * n // n_workers, stop, PIECE):
            size = min(PIECE, stop - start)
            count_passed(energy, start, size, edges, False, passed)
            for e in range(size):
                b = passed[e] - 1
                if 0 <= b < n_bins:
                    place[start + e] = b
                    counts[worker, b] += 1
                else:
                    place[start + e] = -1


@compiled
def _copy(given, row, events, to):
    """Copy one event."""
    events.gammaness[to] = given.gammaness[row]
    events.theta[to] = given.theta[row]
    events.weight[to] = given.weight[row]
    events.n_tels[to] = given.n_tels[row]
    events.quality[to] = given.quality[row]


@compiled(parallel=True, counted=True)
def _bring_together(given, place, n_workers, starts, events):
    """Copy the events of each bin to where the worker may write them."""
    n = len(place)
    for worker in numba.prange(n_workers):
        for row in range(worker * n // n_workers, (worker + 1) * n // n_workers):
            b = place[row]
            if b >= 0:
                # A function of its own: Numba takes a loop that writes only to members of a
                # tuple for one without effect, and drops it.
                _copy(given, row, events, starts[worker, b])
                starts[worker, b] += 1


@compiled(parallel=True, counted=True)
def _run(signal, signal_bound, background, background_bound, tasks, cuts, results, n_workers):
    """Fill the results of all tasks (worker, bin, selection)."""
    shares, other_shares, quality, n_tels, fill, theta_range, ring = cuts
    everywhere = (0.0, np.inf)
    most = 1
    for b in range(len(signal_bound) - 1):
        most = max(most, signal_bound[b + 1] - signal_bound[b])
        most = max(most, background_bound[b + 1] - background_bound[b])
    for worker in numba.prange(n_workers):
        # One more: what is not selected is written behind the last one that is.
        values, others, weights = np.empty(most + 1), np.empty(most + 1), np.empty(most + 1)
        kept = np.empty(most + 1)
        bucket = np.empty(most + 1, np.uint16)
        count, first = np.empty(BUCKETS + 1, np.int64), np.empty(BUCKETS + 1, np.int64)
        passed, inside = np.empty(PIECE, np.int64), np.empty(PIECE, np.int64)
        for t in range(len(tasks)):
            if tasks[t, 0] != worker:
                continue
            b, s = tasks[t, 1], tasks[t, 2]
            own, other = results.gammaness_cuts[s, b], results.theta_cuts[s, b]
            n = compress(
                signal, signal_bound[b], signal_bound[b + 1], quality[s], n_tels[s], everywhere,
                values, others, weights,
            )  # fmt: skip
            for angle in (False, True):  # in a loop, so that it is compiled once
                percentiles(
                    others if angle else values, n, theta_range[1] if angle else np.inf,
                    other_shares if angle else shares, theta_range[1] if angle else fill,
                    count, first, bucket, kept, other if angle else own,
                )  # fmt: skip
            for j in range(len(other)):
                other[j] = min(max(other[j], theta_range[0]), theta_range[1])
            count_signal(
                values, others, weights, n, own, other, passed, inside,
                results.n_signal[s, b], results.n_signal_events[s, b],
            )  # fmt: skip
            n = compress(
                background, background_bound[b], background_bound[b + 1], quality[s], n_tels[s],
                ring, values, others, weights,
            )  # fmt: skip
            count_background(
                values, weights, n, own, passed, results.n_ring[s, b],
                results.n_ring_squares[s, b], results.n_ring_events[s, b],
            )  # fmt: skip


class CutLoops:
    """Events of a sample by energy bin, ready for grids of cuts on the CPU.

    Parameters
    ----------
    signal, background : with energy, and the columns of `LoopEvents`; NumPy arrays
    energy_edges : (bin + 1,), rising
    n_threads : that share the work
    """

    def __init__(self, signal, background, energy_edges, *, n_threads: int) -> None:
        limit: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        self._n_threads = max(1, min(n_threads, limit))
        numba.set_num_threads(self._n_threads)
        self._signal = self._by_bin(signal, energy_edges)
        self._background = self._by_bin(background, energy_edges)

    def _by_bin(self, columns, edges) -> tuple[LoopEvents, Array]:
        """Return the events brought together, and where each bin begins, (bin + 1,)."""
        energy, n_bins = columns.energy, len(edges) - 1
        place = np.empty(len(energy), np.int16)
        counts = np.zeros((self._n_threads, n_bins), np.int64)
        _bin_numbers(energy, edges, self._n_threads, place, counts)
        bound = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
        starts = bound[:-1] + np.cumsum(counts, axis=0) - counts
        events = LoopEvents(
            *(np.empty(bound[-1], getattr(columns, name).dtype) for name in LoopEvents._fields)
        )
        given = LoopEvents(*(getattr(columns, name) for name in LoopEvents._fields))
        _bring_together(given, place, self._n_threads, starts, events)
        return events, bound

    def __call__(self, cuts) -> GridCounts:
        """Return thresholds and counts of a grid, NumPy arrays (selection, bin, ...).

        Parameters
        ----------
        cuts : gammaness_shares, theta_shares, selections, theta_range, ring, gammaness_fill
        """
        (signal, signal_bound), (background, background_bound) = self._signal, self._background
        quality, n_tels = np.array(cuts.selections, dtype=np.int32).T
        n_bins, n_selections = len(signal_bound) - 1, len(quality)
        shape = (n_selections, n_bins, len(cuts.gammaness_shares), len(cuts.theta_shares))
        results = GridCounts(
            np.empty(shape[:3]), np.empty((*shape[:2], shape[3])),
            np.empty(shape), np.empty(shape), np.empty(shape[:3]), np.empty(shape[:3]),
            np.empty(shape[:3]),
        )  # fmt: skip
        tasks = self._shared_out(np.diff(signal_bound) + np.diff(background_bound), n_selections)
        given = (
            cuts.gammaness_shares, cuts.theta_shares,
            np.ascontiguousarray(quality), np.ascontiguousarray(n_tels),
            cuts.gammaness_fill, cuts.theta_range, cuts.ring,
        )  # fmt: skip
        # Numba keeps one number for all: it is set where it is used.
        numba.set_num_threads(self._n_threads)
        _run(
            signal, signal_bound, background, background_bound, tasks, given, results,
            self._n_threads,
        )  # fmt: skip
        return results

    def _shared_out(self, sizes, n_selections: int) -> Array:
        """Return (task, 3) worker, bin and selection: largest first, to who has least to do."""
        load = np.zeros(self._n_threads)
        tasks = []
        for b in np.argsort(-sizes, kind="stable"):
            for s in range(n_selections):
                worker = int(np.argmin(load))
                load[worker] += sizes[b] + BUCKETS
                tasks.append((worker, b, s))
        return np.array(tasks, dtype=np.int64)
