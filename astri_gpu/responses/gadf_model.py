"""Tables of response files in memory: values on axes, interpolated by the rules of gammapy.

Values belong to the centres of bins (of energies the geometric ones, of all else, migrations too,
the arithmetic ones) and are interpolated linearly between centres: energies by their logarithm,
background rates in the logarithm of the value. Between the outermost centres and the outermost
edges they are extrapolated, never below zero; outside the edges they are 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Axis", "GaussPsf", "KingPsf", "Psf", "Table", "TablePsf", "quantiles"]

Floats = NDArray[np.float64]

FINE_RAD_DEG = 0.66 / 1320  # gammapy looks up radii of analytic functions on this raster


@dataclass(frozen=True)
class Axis:
    """An axis of a response table.

    Attributes
    ----------
    name
        As in GADF, without _LO and _HI: ENERG, THETA, MIGRA, RAD, DETX, DETY.
    low, high
        Edges of the bins, TeV or deg, (bin,). Equal ones are nodes without a width.
    """

    name: str
    low: Floats
    high: Floats

    @property
    def is_nodes(self) -> bool:
        """Return whether values belong to points and not to bins."""
        return bool(np.allclose(self.low, self.high))

    @property
    def edges(self) -> Floats:
        """Return the edges, (bin + 1,); for nodes the middles between them, as gammapy does."""
        if not self.is_nodes:
            return np.append(self.low, self.high[-1])
        nodes = self.scaled(self.low)
        if len(nodes) == 1:
            return self.unscaled(np.array([nodes[0] - 0.5, nodes[0] + 0.5]))
        middles = (nodes[1:] + nodes[:-1]) / 2
        first, last = nodes[0] - (middles[0] - nodes[0]), nodes[-1] + (nodes[-1] - middles[-1])
        return self.unscaled(np.concatenate([[first], middles, [last]]))

    @property
    def centres(self) -> Floats:
        """Return the points to which values belong, (bin,)."""
        return self.unscaled((self.scaled(self.low) + self.scaled(self.high)) / 2)

    def scaled(self, values: ArrayLike) -> Floats:
        """Return coordinates as they are interpolated in."""
        values = np.asarray(values, dtype=float)
        if self.name != "ENERG":
            return values
        return np.log(np.maximum(values, np.finfo(np.float32).tiny))

    def unscaled(self, values: Floats) -> Floats:
        """Return coordinates from what `scaled` made of them."""
        return np.exp(values) if self.name == "ENERG" else values


@dataclass(frozen=True)
class Table:
    """Values on axes.

    Attributes
    ----------
    axes
        In the order of the values' dimensions.
    values
        In the unit of GADF (see `gadf_read`).
    log
        Whether the logarithm of the values is interpolated.
    tiny
        What stands for zero there.
    bounded
        Whether there is nothing outside the edges; parameters of functions continue instead.
    """

    axes: tuple[Axis, ...]
    values: Floats
    log: bool = False
    tiny: float = float(np.finfo(np.float32).tiny)
    bounded: bool = True

    def axis(self, name: str) -> Axis:
        """Return an axis by its name."""
        return next(axis for axis in self.axes if axis.name == name)

    @cached_property
    def _interpolator(self) -> Callable[[Any], Any]:
        from scipy.interpolate import RegularGridInterpolator

        long = [i for i, axis in enumerate(self.axes) if len(axis.low) > 1]
        values = np.squeeze(self.values)
        if self.log:
            values = np.log(np.maximum(values, self.tiny))
        if not long:
            return lambda points: np.full(points.shape[:-1], float(values))
        nodes = tuple(self.axes[i].scaled(self.axes[i].centres) for i in long)
        function = RegularGridInterpolator(nodes, values, bounds_error=False, fill_value=None)
        return lambda points: function(points[..., long])

    def evaluate(self, *coordinates: ArrayLike) -> Floats:
        """Return values at coordinates in TeV and deg, one array per axis, broadcast together.

        Outside the edges and at NaN the value is 0, or continued if the table is not `bounded`.
        """
        given = [np.asarray(part, dtype=float) for part in coordinates]
        arrays = np.broadcast_arrays(*given)
        inside = np.ones(arrays[0].shape, dtype=bool)
        for axis, array in zip(self.axes, arrays, strict=True):
            edges = axis.edges
            inside &= (array >= edges[0]) & (array <= edges[-1])
        scaled = [axis.scaled(array) for axis, array in zip(self.axes, arrays, strict=True)]
        found = np.asarray(self._interpolator(np.stack(scaled, axis=-1)))
        if self.log:
            found = np.exp(found)
            found = np.where(found <= 2 * self.tiny, 0.0, found)
        found = np.maximum(found, 0.0)
        if not self.bounded:
            return found
        return np.where(inside & np.isfinite(found), found, 0.0)


def quantiles(density: Floats, edges: Floats, shares: ArrayLike) -> Floats:
    """Return where the integral of a density reaches shares of its whole.

    Parameters
    ----------
    density
        (..., bin), constant within each bin.
    edges
        (bin + 1,)
    shares
        (share,) between 0 and 1.

    Returns
    -------
    (share, ...), NaN where the density is zero everywhere.
    """
    content = density * np.diff(edges)
    below = np.concatenate([np.zeros((*content.shape[:-1], 1)), np.cumsum(content, axis=-1)], -1)
    total = below[..., -1:]
    shares = np.atleast_1d(np.asarray(shares, dtype=float))
    with np.errstate(invalid="ignore", divide="ignore"):
        below = below / total
    flat = below.reshape(-1, below.shape[-1])
    found = np.full((len(shares), len(flat)), np.nan)
    for row, line in enumerate(flat):
        if np.isfinite(line[-1]):
            # Of a stretch without content the near end counts, so that a quantile is inside.
            found[:, row] = np.interp(shares, line, edges)
    return found.reshape(len(shares), *below.shape[:-1])


class Psf:
    """A point spread function; the three kinds answer `density` and `containment`."""

    name = ""
    axes: tuple[Axis, ...] = ()

    def density(self, rad: ArrayLike, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the probability per solid angle, sr-1, at angles `rad` (deg) from the source."""
        raise NotImplementedError

    def containment(self, rad: ArrayLike, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the share of events within angles `rad` (deg)."""
        raise NotImplementedError

    def containment_radius(self, share: float, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the angle in deg that holds a share of events, NaN where none does.

        Energies (TeV) and offsets (deg) are broadcast together. The containment is solved on the
        raster of radii and refined linearly, where gammapy takes the nearest point of its raster.
        """
        energy, offset = np.broadcast_arrays(
            np.asarray(energy, dtype=float), np.asarray(offset, dtype=float)
        )
        raster = self._raster()
        held = self.containment(raster, energy[..., None], offset[..., None])
        found = np.full(energy.shape, np.nan)
        for place in np.ndindex(energy.shape):
            line = held[place]
            if np.isfinite(line).all() and line[-1] >= share:
                found[place] = np.interp(share, np.maximum.accumulate(line), raster)
        return found

    def _raster(self) -> Floats:
        return np.arange(0.0, 4.0, FINE_RAD_DEG)


@dataclass(frozen=True)
class TablePsf(Psf):
    """PSF_TABLE: values by angle."""

    table: Table
    name = "PSF_TABLE"

    @property
    def axes(self) -> tuple[Axis, ...]:  # type: ignore[override]
        """Return the axes ENERG, THETA, RAD."""
        return self.table.axes

    @cached_property
    def _held(self) -> Table:
        rad = self.table.axis("RAD")
        edges = rad.edges
        ring = 2 * np.pi * np.radians(rad.centres) * np.radians(np.diff(edges))
        below = np.cumsum(self.table.values * ring, axis=-1)
        # The integral belongs to the upper edges; that it is 0 at the middle is ours, gammapy
        # continues the first two values.
        below = np.concatenate([np.zeros((*below.shape[:-1], 1)), below], axis=-1)
        return Table((*self.table.axes[:-1], Axis("RAD", edges, edges)), below)

    def density(self, rad: ArrayLike, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the probability per solid angle, sr-1, at angles `rad` (deg) from the source."""
        return self.table.evaluate(energy, offset, rad)

    def containment(self, rad: ArrayLike, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the share of events within angles `rad` (deg), as integrated over the rings."""
        limit = self.table.axis("RAD").edges[-1]
        return self._held.evaluate(energy, offset, np.minimum(rad, limit))

    def _raster(self) -> Floats:
        edges = self.table.axis("RAD").edges
        return np.unique(np.concatenate([edges, np.arange(0.0, edges[-1], FINE_RAD_DEG)]))


@dataclass(frozen=True)
class GaussPsf(Psf):
    """PSF_3GAUSS: a sum of three two-dimensional Gaussians, normalised when it is evaluated."""

    scale: Table
    sigmas: tuple[Table, Table, Table]
    amplitudes: tuple[Table, Table]
    name = "PSF_3GAUSS"

    @property
    def axes(self) -> tuple[Axis, ...]:  # type: ignore[override]
        """Return the axes ENERG, THETA."""
        return self.scale.axes

    def _parts(self, energy: ArrayLike, offset: ArrayLike) -> list[tuple[Floats, Floats]]:
        """Return the share and the width in deg of each Gaussian; NaN where there is none."""
        scale = self.scale.evaluate(energy, offset)
        sigmas = [table.evaluate(energy, offset) for table in self.sigmas]
        heights = [np.ones_like(scale), *(t.evaluate(energy, offset) for t in self.amplitudes)]
        volumes = [scale * height * width**2 for height, width in zip(heights, sigmas, strict=True)]
        total = np.asarray(sum(volumes))
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = [np.where(total > 0, volume / total, np.nan) for volume in volumes]
        return list(zip(shares, sigmas, strict=True))

    def density(self, rad: ArrayLike, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the probability per solid angle, sr-1, at angles `rad` (deg) from the source."""
        square = np.asarray(rad, dtype=float) ** 2
        found: Any = 0.0
        for share, width in self._parts(energy, offset):
            safe = np.where(width > 0, width, 1.0)
            peak = share / (2 * np.pi * np.radians(safe) ** 2)
            found = found + peak * np.exp(-square / (2 * safe**2))
        return np.asarray(found)

    def containment(self, rad: ArrayLike, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the share of events within angles `rad` (deg)."""
        square = np.asarray(rad, dtype=float) ** 2
        found: Any = 0.0
        for share, width in self._parts(energy, offset):
            safe = np.where(width > 0, width, 1.0)
            found = found + share * -np.expm1(-square / (2 * safe**2))
        return np.asarray(found)


@dataclass(frozen=True)
class KingPsf(Psf):
    """PSF_KING: a King function."""

    gamma: Table
    sigma: Table
    name = "PSF_KING"

    @property
    def axes(self) -> tuple[Axis, ...]:  # type: ignore[override]
        """Return the axes ENERG, THETA."""
        return self.gamma.axes

    def _base(
        self, rad: ArrayLike, energy: ArrayLike, offset: ArrayLike
    ) -> tuple[Floats, Floats, Floats]:
        gamma = self.gamma.evaluate(energy, offset)
        width = self.sigma.evaluate(energy, offset)
        known = (gamma > 1) & (width > 0)
        gamma, width = np.where(known, gamma, np.nan), np.where(known, width, np.nan)
        return 1 + np.asarray(rad, dtype=float) ** 2 / (2 * gamma * width**2), gamma, width

    def density(self, rad: ArrayLike, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the probability per solid angle, sr-1, at angles `rad` (deg) from the source."""
        base, gamma, width = self._base(rad, energy, offset)
        return (1 - 1 / gamma) / (2 * np.pi * np.radians(width) ** 2) * base**-gamma

    def containment(self, rad: ArrayLike, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the share of events within angles `rad` (deg)."""
        base, gamma, _ = self._base(rad, energy, offset)
        return 1 - base ** (1 - gamma)
