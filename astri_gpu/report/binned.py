"""Histograms that grow block by block, and what is read off them: quantiles, shares, rates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONTAINMENT",
    "FEWEST",
    "Axis",
    "Quantile",
    "Spread",
    "group_starts",
    "quantile_of_counts",
    "share_interval",
    "spread_of_counts",
]

Floats = NDArray[np.float64]
CONTAINMENT = 0.68
FEWEST = 10  # events that a containment needs
ONE_SIGMA = 1.0
BELOW_ONE_SIGMA = 0.15865525393145707  # of a normal distribution


@dataclass(frozen=True)
class Axis:
    """Bins of equal width in a quantity or in its logarithm; `label` and `unit` are for people.

    Values outside go into the first or the last bin, so that containments count them.
    """

    label: str
    unit: str
    low: float
    high: float
    n_bins: int
    log: bool = False

    @property
    def edges(self) -> Floats:
        """Return the bin edges, (n_bins + 1,)."""
        if self.log:
            return np.geomspace(self.low, self.high, self.n_bins + 1)
        return np.linspace(self.low, self.high, self.n_bins + 1)

    def index(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the bin of each (finite) value."""
        scaled = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        if self.log:
            scaled = np.log10(np.maximum(scaled, low))
            low, high = np.log10(low), np.log10(high)
        place = (scaled - low) * (self.n_bins / (high - low))
        return np.clip(np.floor(place), 0, self.n_bins - 1).astype(np.int64)

    def count(self, values: NDArray[np.floating]) -> Floats:
        """Return the histogram of the values, (n_bins,)."""
        return np.bincount(self.index(values), minlength=self.n_bins).astype(np.float64)


@dataclass(frozen=True)
class Quantile:
    """A quantile with its statistical interval; NaN where there are too few entries."""

    value: float
    low: float
    high: float
    entries: int


def quantile_of_counts(counts: Floats, axis: Axis, share: float, fewest: int = 1) -> Quantile:
    """Return the value below which a share of the entries of a histogram lies.

    It is interpolated inside its bin. The interval ends at the quantiles of
    share +- sqrt(share (1 - share) / n), the binomial deviation of the number of entries below.

    Parameters
    ----------
    counts
        Entries of each bin of `axis`.
    axis
        The bins.
    share
        0 to 1.
    fewest
        Fewer entries than this give NaN.
    """
    total = float(counts.sum())
    if total < max(fewest, 1):
        return Quantile(np.nan, np.nan, np.nan, int(total))
    above = np.cumsum(counts) / total
    edges = np.log(axis.edges) if axis.log else axis.edges
    deviation = ONE_SIGMA * np.sqrt(share * (1 - share) / total)
    shares = np.clip([share, share - deviation, share + deviation], 0, 1)
    # The first bin that reaches the share has entries, so the division below is safe.
    bins = np.minimum(np.searchsorted(above, np.maximum(shares, 1e-12)), axis.n_bins - 1)
    bins = np.where(counts[bins] > 0, bins, np.flatnonzero(counts)[-1])  # rounding of the sum
    inside = 1 - (above[bins] - shares) * total / counts[bins]
    found = edges[bins] + np.clip(inside, 0, 1) * np.diff(edges)[bins]
    value, low, high = np.exp(found) if axis.log else found
    return Quantile(float(value), float(low), float(high), int(total))


@dataclass(frozen=True)
class Spread:
    """Median and half of the central 68.27 % of a distribution, with standard errors."""

    median: float
    median_error: float
    half_width: float
    half_width_error: float
    entries: int


def spread_of_counts(counts: Floats, axis: Axis, fewest: int = 1) -> Spread:
    """Return the median and half the distance of the quantiles at -1 and +1 sigma of a normal.

    Of a normal distribution they are mean and standard deviation. The errors follow from those of
    the quantiles p < q, whose correlation is sqrt(p (1 - q) / (q (1 - p))).

    Parameters
    ----------
    counts
        Entries of each bin of `axis`.
    axis
        The bins.
    fewest
        Fewer entries than this give NaN.
    """
    low, middle, high = (
        quantile_of_counts(counts, axis, share, fewest)
        for share in (BELOW_ONE_SIGMA, 0.5, 1 - BELOW_ONE_SIGMA)
    )
    errors = [(entry.high - entry.low) / 2 for entry in (low, middle, high)]
    correlation = BELOW_ONE_SIGMA / (1 - BELOW_ONE_SIGMA)
    variance = errors[0] ** 2 + errors[2] ** 2 - 2 * correlation * errors[0] * errors[2]
    return Spread(
        middle.value,
        errors[1],
        (high.value - low.value) / 2,
        float(np.sqrt(variance) / 2),
        middle.entries,
    )


def group_starts(edges: Floats, per_decade: int) -> NDArray[np.int64]:
    """Return the first bin of each group of bins, about `per_decade` groups to a factor of ten.

    Groups are made of whole bins, so sums over them are exact (`numpy.add.reduceat`).

    Parameters
    ----------
    edges
        (bin + 1,), equal steps of the logarithm
    per_decade
        Groups to a factor of ten.
    """
    step = float(np.log10(edges[-1] / edges[0])) / (len(edges) - 1)
    size = max(1, round(1 / (per_decade * step)))
    return np.arange(0, len(edges) - 1, size)


def share_interval(passed: Floats, thrown: Floats) -> tuple[Floats, Floats, Floats]:
    """Return passed / thrown and the ends of its one-sigma interval (Wilson 1927).

    The interval is [p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)] / (1 + z^2/n), which stays
    inside 0 to 1 and is not empty for p = 0. NaN where nothing was thrown.
    """
    n = np.where(thrown > 0, thrown, np.nan)
    p = np.clip(passed / n, 0, 1)
    z2 = ONE_SIGMA**2
    centre = p + z2 / (2 * n)
    half = ONE_SIGMA * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    return p, (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
