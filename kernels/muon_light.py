"""Cherenkov light of single muons: rings, and arcs of muons that miss the mirror.

A muon flies straight and radiates on a cone, so the light that reaches a mirror comes from a short
piece of its track and from a narrow range of azimuth. Simple bounds of both are used, wider than
what the mirror sees: the means are of *proposed* photo-electrons, and what samples them drops those
that miss the mirror (thinning of a Poisson process, which is exact). `loops/muon_light.py` is the
same text for single muons.

Left out: scattering, bending and energy loss along the piece of track, and delta electrons.
"""

from math import pi
from typing import NamedTuple

from jaxtyping import Float

from ._types import Array, array_namespace
from .shower import place, stretch
from .simulation_types import MuonRows, OpticsModel, StepGrid

__all__ = ["MUON_MASS_GEV", "MuonLight", "muon_light"]

MUON_MASS_GEV = 0.1056583755
ANGLE_ROUNDS = 6
"""Rounds of the search for the height of emission. Each divides the error by about twice the scale
height of air over that height, by 2 or more where a muon gives more than a few photo-electrons."""


class MuonLight(NamedTuple):
    """Light of muons at telescopes, one per pair; all zero where none can arrive."""

    mean: Float[Array, " pair"]  # expected number of proposed photo-electrons
    theta: Float[Array, " pair"]  # rad, Cherenkov angle where the light comes from
    height_low: Float[Array, " pair"]  # m, H of emission above that of the telescope
    height_high: Float[Array, " pair"]
    azimuth: Float[Array, " pair"]  # rad, of the telescope from the muon, from lon towards lat
    azimuth_half: Float[Array, " pair"]  # rad, half the width of the window about it


def muon_light(
    muon: MuonRows,
    x: Float[Array, " pair"],
    y: Float[Array, " pair"],
    tel_x: Float[Array, " pair"],
    tel_y: Float[Array, " pair"],
    tel_z: Float[Array, " pair"],
    grid: StepGrid,
    optics: OpticsModel,
) -> MuonLight:
    """Return the light of muons at telescopes.

    The Cherenkov angle is theta^2 = 2 (n - 1) - 1 / gamma^2. Light emitted at a height h above the
    telescope lands at theta h from the muon, so that a mirror of radius a at a distance R sees the
    heights (R - a) / theta to (R + a) / theta, and azimuths within asin(a / R) of its own. The mean
    is (path length) x (light yield) x theta^2 x (mirror area / pi a^2) x (share of azimuths), with
    angle and yield those of the middle of the heights.

    Parameters
    ----------
    muon : (pair,), rows gathered; their x and y are not looked at
    x, y : (pair,), m, where the line of the muon crosses H = 0
    tel_x, tel_y, tel_z : (pair,), m, position of the telescope
    """
    xp = array_namespace(muon.energy, x, tel_x, grid.refractivity)
    length, gain = stretch(muon.q_lon, muon.q_lat, grid)
    d_x = tel_x - (x + muon.q_lon * tel_z)
    d_y = tel_y - (y + muon.q_lat * tel_z)
    distance = xp.sqrt(d_x * d_x + d_y * d_y)
    produced = muon.height - tel_z
    # Height of the telescope over the ground of the grid, as the length along the axis down to it.
    level = tel_z + tel_y * (grid.sin_zenith / grid.cos_zenith)
    radius = optics.mirror_radius_m
    nearest = xp.where(distance > radius, distance - radius, 0.0)
    farthest = distance + radius

    inverse_gamma = MUON_MASS_GEV / muon.energy
    missing = inverse_gamma * inverse_gamma
    # Heights fall along the grid; `place` wants a rising axis.
    fall = -0.5 * (grid.height_edge[:-1] + grid.height_edge[1:])

    def at(values, middle):
        index, fraction = place(fall, -(level + middle * gain))
        lower = xp.take(values, index)
        return lower + fraction * (xp.take(values, index + 1) - lower)

    middle = xp.zeros_like(distance)
    theta = low = high = middle
    for _ in range(ANGLE_ROUNDS):
        square = 2.0 * at(grid.refractivity, middle) - missing
        radiates = square > 0.0
        theta = xp.sqrt(xp.where(radiates, square, 1.0))
        low, high = nearest / theta, farthest / theta
        high = xp.where(high < produced, high, produced)
        middle = xp.where(radiates & (low < high), 0.5 * (low + high), middle)

    reaches = radiates & (low < high)
    is_outside = distance >= radius
    sine = radius / xp.where(is_outside, distance, radius)
    half = xp.where(is_outside, xp.asin(sine), pi)
    area_share = optics.mirror_area_m2 / (pi * radius * radius)
    track = (high - low) * length
    mean = track * at(grid.light_yield, middle) * square * area_share * (half / pi)

    def kept(value):
        return xp.where(reaches, value, 0.0)

    return MuonLight(*(kept(value) for value in (mean, theta, low, high, xp.atan2(d_y, d_x), half)))
