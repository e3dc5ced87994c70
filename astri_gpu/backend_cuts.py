"""Grids of cuts and bootstrap on the backends: events on the host in, results on the host out."""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.bootstrap import replica_histograms, replica_numbers
from astri_gpu.kernels.cuts import BinnedEvents, CutLimits, GridCounts, count_grid

if TYPE_CHECKING:
    from astri_gpu.backend import Backend

__all__ = [
    "ArrayGrid",
    "EventColumns",
    "GridCuts",
    "bootstrap_histograms",
    "bootstrap_numbers",
    "cut_grid",
]

Floats = NDArray[np.float64]
FEWEST_EVENTS = 1024
"""Smallest size that events of a bin are padded to where sizes are compiled."""


class EventColumns(NamedTuple):
    """Columns that cuts look at, NumPy arrays (event,)."""

    energy: Floats  # TeV, reconstructed
    gammaness: Floats
    theta: Floats  # deg from the source; of background, from the pointing
    n_tels: NDArray[np.int32]
    quality: NDArray[np.int32]
    weight: Floats  # 1/s


class GridCuts(NamedTuple):
    """The cuts of a grid."""

    gammaness_shares: Floats  # of gammas below the cut, falling
    theta_shares: Floats  # of gammas inside the cut, rising
    selections: tuple[tuple[int, int], ...]  # worst event type, fewest telescopes
    theta_range: tuple[float, float]  # deg
    ring: tuple[float, float]  # deg
    gammaness_fill: float  # cut of bins with few gammas


GridCall = Callable[[GridCuts], GridCounts]
"""Counts of a grid; every array of them has a leading axis for the selections."""


def cut_grid(
    backend: "Backend", signal: EventColumns, background: EventColumns, energy_edges: Floats
) -> GridCall:
    """Return a function that evaluates grids on the same events, which it keeps where it computes.

    Parameters
    ----------
    backend
        Where; the cpu backend runs the compiled loops, all others the array text.
    signal, background
        Events of any energy; those outside of the edges are left out.
    energy_edges
        TeV, (bin + 1,), rising; the last one is outside.
    """
    if backend.name == "cpu":
        from astri_gpu.kernels.loops.cuts_cpu import CutLoops

        return CutLoops(signal, background, energy_edges, n_threads=backend.threads)
    return ArrayGrid(backend, signal, background, energy_edges)


class ArrayGrid:
    """The array text on the arrays of a backend, one energy bin and selection after the other."""

    def __init__(
        self,
        backend: "Backend",
        signal: EventColumns,
        background: EventColumns,
        energy_edges: Floats,
    ) -> None:
        self._backend = backend
        self._count = backend.compile(count_grid)
        n_bins = len(energy_edges) - 1
        rows = [_rows(columns.energy, energy_edges) for columns in (signal, background)]
        self._bins = []
        for place in range(n_bins):
            sizes = [max(1, len(part[place])) for part in rows]
            if backend.fixed_shape:
                # Few different sizes, the same for both, so that little is compiled.
                size = FEWEST_EVENTS
                while size < max(sizes):
                    size *= 2
                sizes = [size, size]
            self._bins.append(
                tuple(
                    self._placed(columns, part[place], size)
                    for columns, part, size in zip((signal, background), rows, sizes, strict=True)
                )
            )

    def _placed(self, columns: EventColumns, rows: NDArray[np.intp], size: int) -> BinnedEvents:
        """Return chosen rows where the backend computes, (1, size), padded."""

        def padded(values: NDArray[Any]) -> Any:
            whole = np.zeros((1, size), dtype=values.dtype)
            whole[0, : len(rows)] = values[rows]
            return self._backend.asarray(whole)

        used = np.arange(size)[None, :] < len(rows)
        return BinnedEvents(
            padded(columns.gammaness),
            padded(columns.theta),
            padded(columns.n_tels),
            padded(columns.quality),
            padded(columns.weight),
            self._backend.asarray(used),
        )

    def __call__(self, cuts: GridCuts) -> GridCounts:
        """Return thresholds and counts of a grid, NumPy arrays (selection, bin, ...)."""
        there = self._backend.asarray
        shares = there(cuts.gammaness_shares), there(cuts.theta_shares)
        floats = (cuts.gammaness_fill, *cuts.theta_range, *cuts.ring)
        found = []
        for quality, n_tels in cuts.selections:
            whole = (np.asarray(value, dtype=np.int32) for value in (n_tels, quality))
            limits = CutLimits(*map(there, (*map(np.asarray, floats), *whole)))
            found.append([self._count(*events, *shares, limits) for events in self._bins])
        # Asked for only now, so that a device has all of its work queued.
        host = [[tuple(map(self._backend.to_host, part)) for part in bins] for bins in found]
        by_selection = [
            [np.concatenate(column) for column in zip(*bins, strict=True)] for bins in host
        ]
        return GridCounts(*(np.stack(column) for column in zip(*by_selection, strict=True)))


def _rows(energy: Floats, edges: Floats) -> list[NDArray[np.intp]]:
    """Return the rows of the events of each bin."""
    place = np.searchsorted(edges, energy, side="right") - 1
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(len(edges)))
    return [order[a:b] for a, b in pairwise(bounds)]


def bootstrap_histograms(
    backend: "Backend",
    cell: NDArray[Any],
    weight: NDArray[Any],
    shower_key: NDArray[Any],
    *,
    n_cells: int,
    n_replicas: int,
    seed: int,
) -> Floats:
    """Return the weighted histogram of a sample in each replica of the Poisson bootstrap.

    Parameters
    ----------
    backend
        Where to compute.
    cell
        (event,), 0 to n_cells - 1; events elsewhere are not counted.
    weight
        (event,)
    shower_key
        (event,), the same for all uses of a shower.
    n_cells, n_replicas
        Of the result.
    seed
        Names the draw: the same seed and shower draw the same numbers in every histogram.

    Returns
    -------
    (replica, cell)
    """
    cell = np.ascontiguousarray(cell, dtype=np.int64)
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    shower_key = np.ascontiguousarray(shower_key, dtype=np.int64)
    options = {"n_cells": n_cells, "n_replicas": n_replicas, "seed": seed}
    if backend.name == "cpu":
        from astri_gpu.kernels.loops import bootstrap

        found: Floats = bootstrap.replica_histograms(
            cell, weight, shower_key, **options, n_threads=backend.threads
        )
        return found
    call = backend.compile(replica_histograms, static=tuple(options))
    there = map(backend.asarray, (cell, weight, shower_key))
    return backend.to_host(call(*there, **options))


def bootstrap_numbers(
    backend: "Backend", shower_key: NDArray[Any], *, n_replicas: int, seed: int
) -> NDArray[np.uint8]:
    """Return how often each event counts in each replica, (replica, event); see above."""
    shower_key = np.ascontiguousarray(shower_key, dtype=np.int64)
    options = {"n_replicas": n_replicas, "seed": seed}
    if backend.name == "cpu":
        from astri_gpu.kernels.loops import bootstrap

        found: NDArray[np.uint8] = bootstrap.replica_numbers(
            shower_key, **options, n_threads=backend.threads
        )
        return found
    call = backend.compile(replica_numbers, static=tuple(options))
    return backend.to_host(call(backend.asarray(shower_key), **options))
