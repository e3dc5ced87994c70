"""Loop text of `kernels/bootstrap.py`, and its CPU launch: draws shared out over threads."""

import numba
import numpy as np

from ..bootstrap import PER_DRAW, PURPOSE, THRESHOLDS
from ..random import LOW, key_of
from ._compile import compiled
from .random import philox

__all__ = ["replica_histograms", "replica_numbers"]

_LIMITS = np.array([*THRESHOLDS, 1 << 32], dtype=np.uint64)
_SHIFT = np.uint64(24)
_FIRST = np.searchsorted(_LIMITS, np.arange(256, dtype=np.uint64) << _SHIFT, side="right")
"""The number that belongs to the smallest word with these upper eight bits."""


@compiled
def _number(word, limits, first):
    """Return the Poisson number of a random word."""
    n = first[np.int64(word >> _SHIFT)]
    while word >= limits[n]:
        n += 1
    return n


@compiled
def _words(shower_key, draw, k0, k1):
    """Return the four words of a shower."""
    key = np.uint64(shower_key)
    return philox(key & np.uint64(LOW), key >> np.uint64(32), draw, PURPOSE, k0, k1)


@compiled(parallel=True, counted=True)
def _histograms(cell, weight, shower_key, key, limits, first, n_workers, out):
    n_replicas, n_cells = out.shape
    n_draws = (n_replicas + PER_DRAW - 1) // PER_DRAW
    for worker in numba.prange(n_workers):
        for draw in range(worker * n_draws // n_workers, (worker + 1) * n_draws // n_workers):
            rows = np.zeros((PER_DRAW, n_cells))
            for e in range(len(cell)):
                c = cell[e]
                if 0 <= c < n_cells:
                    w0, w1, w2, w3 = _words(shower_key[e], draw, key[0], key[1])
                    rows[0, c] += weight[e] * _number(w0, limits, first)
                    rows[1, c] += weight[e] * _number(w1, limits, first)
                    rows[2, c] += weight[e] * _number(w2, limits, first)
                    rows[3, c] += weight[e] * _number(w3, limits, first)
            for k in range(min(PER_DRAW, n_replicas - draw * PER_DRAW)):
                for c in range(n_cells):
                    out[draw * PER_DRAW + k, c] = rows[k, c]


@compiled(parallel=True, counted=True)
def _numbers(shower_key, key, limits, first, n_workers, out):
    n_replicas, n_events = out.shape
    n_draws = (n_replicas + PER_DRAW - 1) // PER_DRAW
    for worker in numba.prange(n_workers):
        for draw in range(worker * n_draws // n_workers, (worker + 1) * n_draws // n_workers):
            r = draw * PER_DRAW
            for e in range(n_events):
                w0, w1, w2, w3 = _words(shower_key[e], draw, key[0], key[1])
                out[r, e] = _number(w0, limits, first)
                if r + 1 < n_replicas:
                    out[r + 1, e] = _number(w1, limits, first)
                if r + 2 < n_replicas:
                    out[r + 2, e] = _number(w2, limits, first)
                if r + 3 < n_replicas:
                    out[r + 3, e] = _number(w3, limits, first)


def _prepare(seed: int, n_threads: int):
    """Return the key, the tables of the inversion and the number of threads, which is set."""
    limit: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    n_workers = max(1, min(n_threads, limit))
    # Numba keeps one number for all: it is set where it is used.
    numba.set_num_threads(n_workers)
    return np.array(key_of(seed), dtype=np.uint64), _LIMITS, _FIRST, n_workers


def replica_histograms(
    cell, weight, shower_key, *, n_cells: int, n_replicas: int, seed: int, n_threads: int
):
    """Return what `kernels.bootstrap.replica_histograms` does, NumPy in and out.

    cell int64, weight float64, shower_key int64.
    """
    out = np.zeros((n_replicas, n_cells))
    _histograms(cell, weight, shower_key, *_prepare(seed, n_threads), out)
    return out


def replica_numbers(shower_key, *, n_replicas: int, seed: int, n_threads: int):
    """Return how often each event counts in each replica, (replica, event) uint8."""
    out = np.empty((n_replicas, len(shower_key)), np.uint8)
    _numbers(shower_key, *_prepare(seed, n_threads), out)
    return out
