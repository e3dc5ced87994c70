"""Numbers of performance curves, from events that count several times or not at all.

Every function takes how often each event counts, (replica, event), and answers for all replicas,
so that one text gives both the value (all ones) and the samples of its error (Poisson numbers that
belong to showers: all uses of a shower come and go together).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import UsageError
from astri_gpu.responses.curve_points import Estimate
from astri_gpu.selection.sample import EventTable

__all__ = ["ONE_SIGMA", "Counted", "Ordered", "binned_sums", "bootstrap", "draw", "place_in"]

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
Measured = Callable[[Sequence[Integers]], dict[str, Floats]]

ONE_SIGMA = (0.15865525393145707, 0.8413447460685429)
"""The central 68.27 % lie between these shares."""
MOST_NUMBERS = 1 << 30
MEASURED_TOGETHER = 4_000_000  # numbers at a time, so that sums stay in some 100 MB


def place_in(edges: Floats, values: Floats) -> NDArray[np.int64]:
    """Return the bin of each value, -1 outside; upper edges belong to the next bin."""
    place = np.searchsorted(edges, values, side="right") - 1
    return np.where((values >= edges[0]) & (values < edges[-1]), place, -1)


def binned_sums(place: NDArray[np.int64], weight: Floats, times: Integers, n_bins: int) -> Floats:
    """Return the sum of weights in each bin, (replica, bin).

    Parameters
    ----------
    place
        Bin of each event, (event,), none negative.
    weight
        (event,)
    times
        How often each event counts, (replica, event).
    n_bins
        Number of bins.
    """
    # Of no events bincount makes integers, which hold no NaN.
    sums = [np.bincount(place, weight * row, minlength=n_bins) for row in times]
    return np.stack(sums).astype(np.float64)


class Ordered:
    """Values sorted within bins, for quantiles of many replicas.

    Parameters
    ----------
    place
        Bin of each value, (event,), none negative.
    values
        (event,)
    n_bins
        Number of bins.
    """

    def __init__(self, place: NDArray[np.int64], values: Floats, n_bins: int) -> None:
        self._order = np.lexsort((values, place))
        self._values = values[self._order]
        self._edges = np.searchsorted(place[self._order], np.arange(n_bins + 1))

    def quantiles(self, times: Integers, shares: Sequence[float]) -> Floats:
        """Return the quantiles of the values of each bin, (replica, share, bin).

        They are those of `numpy.quantile` (linear) of a list in which each value is repeated
        `times` (replica, event) times; NaN where nothing is left.
        """
        n_bins = len(self._edges) - 1
        found = np.full((len(times), len(shares), n_bins), np.nan)
        wanted = np.asarray(shares)[:, None]
        if not len(self._values):
            return found
        for row, line in enumerate(times):
            # 0 in front, so that `upto[k]` is the number of entries before value k.
            upto = np.concatenate([[0], np.cumsum(line[self._order], dtype=np.int64)])
            before = upto[self._edges[:-1]]
            total = upto[self._edges[1:]] - before
            place = np.maximum(total - 1, 0) * wanted
            first = np.floor(place).astype(np.int64)
            second = np.minimum(first + 1, np.maximum(total - 1, 0))
            low, high = (
                self._values[
                    np.minimum(
                        np.searchsorted(upto, before + entry, side="right") - 1,
                        len(self._values) - 1,
                    )
                ]
                for entry in (first, second)
            )
            found[row] = np.where(total > 0, low + (place - first) * (high - low), np.nan)
        return found


@dataclass(frozen=True)
class Counted:
    """Events, and how often each of them counts in every replica.

    Attributes
    ----------
    table
        The events.
    times
        (replica, event) uint8.
    """

    table: EventTable
    times: NDArray[np.uint8]

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of the events."""
        return self.table.columns

    def rows(self, chosen: NDArray[np.bool_]) -> "Counted":
        """Return the events that a mask chooses."""
        return Counted(self.table.rows(chosen), self.times[:, chosen])


def draw(table: EventTable, *, n_replicas: int, seed: int) -> Counted:
    """Return events with Poisson numbers that belong to their showers; see `kernels.bootstrap`.

    Raises
    ------
    UsageError
        When the numbers would not fit into memory.
    """
    from astri_gpu.kernels.bootstrap import poisson_weights

    if n_replicas * len(table) > MOST_NUMBERS:
        raise UsageError(
            f"n_bootstrap is {n_replicas}, which is {n_replicas * len(table) / 2**30:.1f} GiB of "
            f"random numbers for the {len(table)} events of {', '.join(table.paths)}: give at most "
            f"{MOST_NUMBERS // len(table)}."
        )
    times = np.empty((n_replicas, len(table)), dtype=np.uint8)
    for replica in range(n_replicas):
        times[replica] = poisson_weights(table.columns["shower_key"], replica, seed=seed)
    return Counted(table, times)


def bootstrap(measure: Measured, events: Sequence[Counted]) -> dict[str, Estimate]:
    """Return what `measure` says of events, with the spread of what it says of the replicas.

    Parameters
    ----------
    measure
        Takes how often the events of each entry count, (replica, event) each, and returns named
        numbers, (replica, ...).
    events
        With the same number of replicas; with none there are no errors (NaN).

    Returns
    -------
    Estimates whose intervals hold the central 68.27 % of the replicas. Replicas that give NaN are
    left out; infinite ones are larger than all others.
    """
    value = {
        name: values[0]
        for name, values in measure(
            [np.ones((1, len(entry.table)), dtype=np.uint8) for entry in events]
        ).items()
    }
    n_replicas = min(len(entry.times) for entry in events)
    if not n_replicas:
        nothing = {name: np.full_like(part, np.nan) for name, part in value.items()}
        return {name: Estimate(value[name], nothing[name], nothing[name]) for name in value}
    together = max(1, MEASURED_TOGETHER // max(1, sum(len(entry.table) for entry in events)))
    parts = [
        measure([entry.times[start : start + together] for entry in events])
        for start in range(0, n_replicas, together)
    ]
    return {
        name: Estimate(
            value[name], *_interval(np.concatenate([part[name] for part in parts]), whole)
        )
        for name, whole in value.items()
    }


def _interval(replicas: Floats, value: Floats) -> tuple[Floats, Floats]:
    """Return the ends of the one-sigma interval of replicas (replica, ...), NaN as the value."""
    ordered = np.sort(replicas, axis=0)  # NaN last
    known = np.isfinite(ordered).sum(axis=0) + np.isposinf(ordered).sum(axis=0)
    ends = []
    for share in ONE_SIGMA:
        # An entry and no mean of two: one of them may be infinite.
        place = np.maximum(np.rint(share * (known - 1)).astype(int), 0)
        end = np.take_along_axis(ordered, place[None], axis=0)[0]
        ends.append(np.where((known > 0) & ~np.isnan(value), end, np.nan))
    return ends[0], ends[1]
