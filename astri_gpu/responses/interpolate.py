"""Responses between the zenith angles that were simulated.

The coordinate is the cosine of the zenith angle, in which A-SciSoft bins its responses. Of several
azimuth angles at one zenith angle the nearest is taken. At a simulated zenith angle the response is
that of the simulation, unchanged; beyond the outermost ones it is that of the nearest within a
distance that the caller allows, and nothing is ever extrapolated.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.responses.irf import Irf
from astri_gpu.selection.sample import solid_angle

__all__ = ["Bracket", "between", "between_quantiles", "bracket"]

Floats = NDArray[np.float64]

SAME_DEG = 1e-6  # zenith angles closer than this are one


class Bracket(NamedTuple):
    """One or two simulated pointings around a direction, and their shares, which add up to 1."""

    nodes: tuple[int, ...]
    shares: tuple[float, ...]


def bracket(
    pointings: Sequence[tuple[float, float]],
    zenith_deg: float,
    azimuth_deg: float,
    *,
    max_zenith_distance_deg: float,
) -> Bracket:
    """Return which of the simulated pointings stand for a direction.

    Parameters
    ----------
    pointings
        Zenith and azimuth angles in deg.
    zenith_deg, azimuth_deg
        The direction.
    max_zenith_distance_deg
        How far outside of the simulated zenith angles the nearest one may stand for it.

    Raises
    ------
    AstriError
        When it is farther outside.
    """
    nearest: dict[float, int] = {}
    for number, (zenith, azimuth) in enumerate(pointings):
        same = next((known for known in nearest if abs(known - zenith) < SAME_DEG), None)
        if same is None:
            nearest[zenith] = number
        elif _apart(azimuth, azimuth_deg) < _apart(pointings[nearest[same]][1], azimuth_deg):
            nearest[same] = number
    zeniths = sorted(nearest)
    closest = min(zeniths, key=lambda known: abs(known - zenith_deg))
    inside = zeniths[0] < zenith_deg < zeniths[-1]
    if abs(closest - zenith_deg) < SAME_DEG:
        return Bracket((nearest[closest],), (1.0,))
    if not inside:
        # The comparison is so written that NaN is refused.
        if not abs(closest - zenith_deg) <= max_zenith_distance_deg:
            raise AstriError(
                f"The pointing has a zenith angle of {zenith_deg:.1f} deg, the nearest of the "
                f"response is {closest:.1f} deg, more than {max_zenith_distance_deg:g} deg away: "
                "simulate that zenith angle, or raise max_zenith_distance_deg."
            )
        return Bracket((nearest[closest],), (1.0,))
    above = next(number for number, known in enumerate(zeniths) if known > zenith_deg)
    low, high = zeniths[above - 1], zeniths[above]
    cosines = np.cos(np.radians([low, zenith_deg, high]))
    share = float((cosines[0] - cosines[1]) / (cosines[0] - cosines[2]))
    return Bracket((nearest[low], nearest[high]), (1 - share, share))


def _apart(first_deg: float, second_deg: float) -> float:
    return abs((first_deg - second_deg + 180) % 360 - 180)


def between(low: Irf, high: Irf, share: float, zenith_deg: float) -> Irf:
    """Return the response between those of two zenith angles.

    The effective area is interpolated in its logarithm (`pyirf.interpolation
    .EffectiveAreaEstimator`), energy dispersion and point spread function by their quantiles (see
    `between_quantiles`), the background and RAD_MAX linearly. Where only one of both has events,
    its distributions stand for the other's. Errors add up as those of independent terms of a sum.

    Parameters
    ----------
    low, high
        In the same bins.
    share
        Of `high`, above 0 and below 1.
    zenith_deg
        Of the result.
    """
    both = (low, high)
    shares = np.array([1 - share, share])

    def mixed(name: str) -> Floats:
        first, second = (getattr(irf, name) for irf in both)
        return np.asarray(shares[0] * first + shares[1] * second)

    def spread(name: str) -> Floats:
        first, second = (getattr(irf, name) for irf in both)
        return np.hypot(shares[0] * first, shares[1] * second)

    return replace(
        low,
        zenith_deg=zenith_deg,
        effective_area=_areas(both, share),
        effective_area_error=spread("effective_area_error"),
        energy_dispersion=_dispersions(both, share),
        energy_dispersion_error=spread("energy_dispersion_error"),
        psf=_spreads(both, share),
        psf_error=spread("psf_error"),
        background_2d=mixed("background_2d"),
        background_2d_error=spread("background_2d_error"),
        background_3d=mixed("background_3d"),
        background_3d_error=spread("background_3d_error"),
        rad_max=None if low.rad_max is None or high.rad_max is None else mixed("rad_max"),
        n_events=mixed("n_events"),
        valid_tev=(
            max(low.valid_tev[0], high.valid_tev[0]),
            min(low.valid_tev[1], high.valid_tev[1]),
        ),
    )


GRID = np.array([[0.0], [1.0]])  # the interpolation is linear in the share, whatever it stands for


def _areas(irfs: tuple[Irf, Irf], share: float) -> Floats:
    from astropy import units
    from pyirf.interpolation import EffectiveAreaEstimator

    # The estimator writes into what it is given: it gets a new array.
    areas = np.stack([irf.effective_area for irf in irfs]) * units.m**2
    estimate = EffectiveAreaEstimator(grid_points=GRID, effective_area=areas)
    found = np.asarray(estimate(np.array([[share]])).to_value(units.m**2)[0])
    # Where only one has gammas, the estimator goes from it to 1 m2; a threshold goes by the sum.
    empty = (irfs[0].effective_area <= 0) | (irfs[1].effective_area <= 0)
    linear = (1 - share) * irfs[0].effective_area + share * irfs[1].effective_area
    return np.where(empty, linear, found)


def _dispersions(irfs: tuple[Irf, Irf], share: float) -> Floats:
    migra = irfs[0].edges.migra
    return _densities([irf.energy_dispersion for irf in irfs], share, migra, np.diff(migra))


def _spreads(irfs: tuple[Irf, Irf], share: float) -> Floats:
    rad = irfs[0].edges.rad
    solid = np.asarray(solid_angle(rad[:-1], rad[1:]))
    return _densities([irf.psf for irf in irfs], share, rad, solid)


def _densities(tables: Sequence[Floats], share: float, edges: Floats, size: Floats) -> Floats:
    """Return densities (E, bin, O) between two; of one table alone where the other is empty."""
    first, second = (table * size[:, None] for table in tables)
    found = np.where(first.sum(axis=1, keepdims=True) > 0, first, second)
    for energy, offset in np.argwhere((first.sum(axis=1) > 0) & (second.sum(axis=1) > 0)):
        pair = first[energy, :, offset], second[energy, :, offset]
        found[energy, :, offset] = between_quantiles(*pair, share, edges)
    return found / size[:, None]


def between_quantiles(first: Floats, second: Floats, share: float, edges: Floats) -> Floats:
    """Return the histogram whose quantiles are the means of those of two.

    That is the quantile interpolation of Hollister & Pang (2013), as pyirf's `QuantileInterpolator`
    has it, without a raster of quantiles: a histogram has a distribution function of straight
    pieces, and so has the mean of two, which is exact. (pyirf's result is wider by about a bin, and
    is not the histogram itself at share 0 or 1.)

    Parameters
    ----------
    first, second
        Contents of bins, (bin,), not all 0.
    share
        Of `second`.
    edges
        (bin + 1,)

    Returns
    -------
    Contents of bins that add up to 1, (bin,).
    """
    below = []
    for content in (first, second):
        total = np.concatenate([[0.0], np.cumsum(content)])
        below.append(total / total[-1])
    levels = np.unique(np.concatenate(below))
    # Empty bins between filled ones make a quantile jump: it has a value on either side.
    sides = []
    for line in below:
        right = np.interp(levels, line, edges)
        left = -np.interp(-levels, -line[::-1], -edges[::-1])
        sides.append(np.stack([left, right], axis=1).ravel())
    place = (1 - share) * sides[0] + share * sides[1]
    return np.diff(np.interp(edges, place, np.repeat(levels, 2)))
