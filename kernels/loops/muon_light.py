"""Loop text of `kernels/muon_light.py`: one muon and one telescope at a time."""

import math

from ..muon_light import ANGLE_ROUNDS, MUON_MASS_GEV
from ._compile import compiled
from .shower import stretch

__all__ = ["muon_light"]


@compiled
def _at(values, height_edge, height):
    """Return a quantity of the step centres at a height H on the axis."""
    low, high = 0, values.shape[0] - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if -height >= -0.5 * (height_edge[middle] + height_edge[middle + 1]):
            low = middle
        else:
            high = middle
    upper = -0.5 * (height_edge[low] + height_edge[low + 1])
    lower = -0.5 * (height_edge[low + 1] + height_edge[low + 2])
    fraction = min(max((-height - upper) / (lower - upper), 0.0), 1.0)
    return values[low] + fraction * (values[low + 1] - values[low])


@compiled
def muon_light(energy, x, y, q_lon, q_lat, height, tel_x, tel_y, tel_z, grid, optics):
    """Return the light of a muon at a telescope; all zero where none can arrive.

    Parameters
    ----------
    energy, q_lon, q_lat, height : as in MuonRows
    x, y : m, where the line of the muon crosses H = 0

    Returns
    -------
    mean : expected number of proposed photo-electrons
    theta : rad, Cherenkov angle
    low, high : m, range of heights of emission above the telescope
    azimuth, half : rad, centre and half width of the window of azimuths
    """
    nothing = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    d_x = tel_x - (x + q_lon * tel_z)
    d_y = tel_y - (y + q_lat * tel_z)
    distance = math.sqrt(d_x * d_x + d_y * d_y)
    produced = height - tel_z
    radius = optics.mirror_radius_m
    nearest = max(distance - radius, 0.0)
    farthest = distance + radius
    # Most muons are too far for any light: the angle is largest at the ground.
    largest = 2.0 * grid.refractivity[grid.refractivity.shape[0] - 1]
    if not (produced > 0.0 and nearest * nearest < largest * produced * produced):
        return nothing
    inverse_gamma = MUON_MASS_GEV / energy
    missing = inverse_gamma * inverse_gamma
    length, gain = stretch(q_lon, q_lat, grid)
    level = tel_z + tel_y * (grid.sin_zenith / grid.cos_zenith)

    middle, theta, square, low, high = 0.0, 0.0, 0.0, 0.0, 0.0
    for _ in range(ANGLE_ROUNDS):
        height_on_axis = level + middle * gain
        square = 2.0 * _at(grid.refractivity, grid.height_edge, height_on_axis) - missing
        # The angle only shrinks on the way up: what cannot arrive now never will.
        if not square > 0.0:
            return nothing
        theta = math.sqrt(square)
        low, high = nearest / theta, min(farthest / theta, produced)
        if not low < high:
            return nothing
        middle = 0.5 * (low + high)

    half = math.pi
    if distance >= radius:
        half = math.asin(radius / distance)
    area_share = optics.mirror_area_m2 / (math.pi * radius * radius)
    track = (high - low) * length
    light_yield = _at(grid.light_yield, grid.height_edge, level + middle * gain)
    mean = track * light_yield * square * area_share * (half / math.pi)
    return mean, theta, low, high, math.atan2(d_y, d_x), half
