"""Between the shower frame of the kernels and the horizon and ground frames of the store.

The shower frame (`astri_gpu.kernels.simulation_types`) has its axes e_lon and e_lat perpendicular
to the pointing direction n, towards growing azimuth and altitude, and H along n from the array
reference point. The ground frame has x North, y West, z up. A line of the shower frame is
r(H) = (x + q_lon H) e_lon + (y + q_lat H) e_lat + H n: its direction is n + q_lon e_lon +
q_lat e_lat exactly, no small angles are assumed.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.instrument import ArrayLayout
from astri_gpu.kernels.coordinates import altaz_to_cartesian, cartesian_to_altaz
from astri_gpu.kernels.simulation_types import Telescopes
from astri_gpu.kernels.stereo import impact_distance

__all__ = ["GroundLine", "ShowerFrame", "axes_of", "line_of", "tangent_of"]

Floats = NDArray[np.float64]


class GroundLine(NamedTuple):
    """Shower axes as the store has them."""

    alt: Floats  # deg, direction that the particle comes from
    az: Floats  # deg, North over East, 0 to 360
    core_x: Floats  # m, where the axis meets the ground (z = 0), towards North
    core_y: Floats  # m, towards West


def axes_of(alt: Floats | float, az: Floats | float) -> Floats:
    """Return e_lon, e_lat and n of pointings (deg) in the ground frame, (axis, component, ...)."""
    alt, az = np.asarray(alt, np.float64), np.asarray(az, np.float64)
    n = altaz_to_cartesian(alt, az)
    # Altitude 90 deg higher: the derivative of n by the altitude. Azimuth too: the other one.
    e_lat = altaz_to_cartesian(alt + 90.0, az)
    e_lon = altaz_to_cartesian(np.zeros_like(alt), az + 90.0)
    return np.array([e_lon, e_lat, n], dtype=np.float64)


def tangent_of(axes: Floats, alt: Floats, az: Floats) -> tuple[Floats, Floats]:
    """Return tangent-plane directions (lon, lat) of horizontal ones (deg), (line,).

    `axes` are those of `axes_of`, (axis, component, 1 or line).
    """
    direction = np.stack(altaz_to_cartesian(np.asarray(alt, float), np.asarray(az, float)))
    lon, lat, along = ((axis * direction).sum(axis=0) for axis in axes)
    return lon / along, lat / along


def line_of(axes: Floats, x: Floats, y: Floats, q_lon: Floats, q_lat: Floats) -> GroundLine:
    """Return direction and core of lines, each in the shower frame of its own pointing.

    Parameters
    ----------
    axes
        Of `axes_of`, (axis, component, 1 or line).
    x, y
        Position at H = 0 along e_lon and e_lat, m, (line,).
    q_lon, q_lat
        Slopes, (line,).
    """
    e_lon, e_lat, n = axes
    direction = n + q_lon * e_lon + q_lat * e_lat
    at_zero = x * e_lon + y * e_lat
    # Down (or up) the line to z = 0; e_lon is horizontal.
    core = at_zero - at_zero[2] / direction[2] * direction
    alt, az = cartesian_to_altaz(*direction)
    return GroundLine(alt=alt, az=az, core_x=core[0], core_y=core[1])


@dataclass(frozen=True)
class ShowerFrame:
    """The shower frame of one pointing direction; `alt` and `az` in deg."""

    alt: float
    az: float

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """Return e_lon, e_lat and n in the ground frame as rows, (3, 3)."""
        return axes_of(self.alt, self.az)

    def telescopes(self, layout: ArrayLayout) -> Telescopes:
        """Return the positions of the telescopes in the shower frame, m."""
        position = np.stack([layout.x, layout.y, layout.z], axis=-1).astype(np.float64)
        return Telescopes(*(np.ascontiguousarray(position @ axis) for axis in self.axes))

    def sky(self, q_lon: Floats, q_lat: Floats) -> tuple[Floats, Floats]:
        """Return altitude and azimuth in deg of tangent-plane directions, (...,) each."""
        e_lon, e_lat, n = (axis[:, None] for axis in self.axes)
        alt, az = cartesian_to_altaz(*(n + q_lon * e_lon + q_lat * e_lat))
        return alt, az

    def tangent(self, alt: Floats, az: Floats) -> tuple[Floats, Floats]:
        """Return tangent-plane directions (lon, lat) of horizontal ones in deg; inverse of `sky`.

        Meaningful less than 90 deg from the pointing.
        """
        return tangent_of(self.axes[:, :, None], alt, az)

    def line(self, x: Floats, y: Floats, q_lon: Floats, q_lat: Floats) -> GroundLine:
        """Return direction and core of lines of the shower frame.

        Parameters
        ----------
        x, y
            Position at H = 0 along e_lon and e_lat, m, (line,).
        q_lon, q_lat
            Slopes, (line,).
        """
        return line_of(self.axes[:, :, None], x, y, q_lon, q_lat)

    def place(self, core_x: Floats, core_y: Floats, q_lon: Floats, q_lat: Floats) -> tuple:
        """Return x, y at H = 0 of lines that meet the ground at a core; inverse of `line`."""
        e_lon, e_lat, n = self.axes
        core = np.stack([core_x, core_y, np.zeros_like(core_x)])
        lon, lat, height = (np.tensordot(axis, core, axes=1) for axis in (e_lon, e_lat, n))
        return lon - q_lon * height, lat - q_lat * height

    def impact(self, line: GroundLine, layout: ArrayLayout) -> NDArray[np.float64]:
        """Return the distance of every telescope from every axis, m, (line, tel)."""
        shape = (len(line.alt), layout.n_telescopes)
        position = (np.broadcast_to(axis, shape) for axis in (layout.x, layout.y, layout.z))
        return impact_distance(line.core_x, line.core_y, line.alt, line.az, *position)
