"""Loop text of `kernels/photons.py`: one photo-electron at a time."""

import math

import numpy as np

from ..photons import HALF_MASK, HALF_WORD
from ..simulation_types import SPEED_OF_LIGHT, Stream
from ._compile import compiled
from .random import philox, poisson, uniform
from .shower import place, stretch

__all__ = [
    "N_LINE",
    "arrival_words",
    "count",
    "em_photon",
    "find_cell",
    "front_of",
    "guide_cells",
    "muon_photon",
    "photon_words",
    "write_line",
]

_COUNT, _PHOTON, _ARRIVAL = Stream.COUNT << 24, Stream.PHOTON << 24, Stream.ARRIVAL << 24
_HALF_MASK, _HALF_WORD = np.uint64(HALF_MASK), np.uint64(HALF_WORD)
_SIGN_BIT = np.uint64(31)

# Entries of `line`, what is the same for all light of one row at one telescope.
Q_LON, Q_LAT, RADIUS, R_LON, R_LAT, STRETCH, RING, RISE = range(8)
N_LINE = 8


@compiled
def front_of(q_lon, q_lat):
    """Return the way of a particle per height H, from its slope."""
    return math.sqrt(1.0 + (q_lon * q_lon + q_lat * q_lat))


@compiled
def count(mean, shower, number, k0, k1, max_image_pe):
    """Return how many photo-electrons to draw for an image, and the weight of each."""
    w0, w1, _, _ = philox(shower, _COUNT, number, 0, k0, k1)
    n = poisson(mean, w0, w1)
    drawn = min(n, np.int64(max_image_pe))
    weight = np.float64(n) / np.float64(drawn) if drawn > 0 else 1.0
    return drawn, weight


@compiled
def photon_words(shower, photon, number, k0, k1):
    """Return the words that say where a photo-electron of an image was emitted."""
    return philox(shower, _PHOTON, photon, number, k0, k1)


@compiled
def arrival_words(shower, photon, number, k0, k1):
    """Return the words that optics and camera use for a photo-electron of an image."""
    return philox(shower, _ARRIVAL, photon, number, k0, k1)


@compiled
def guide_cells(running, n_cells, guide, n_guide):
    """Fill a guide to a running sum: where the search for a share of the total may start.

    Parameters
    ----------
    running : (cell,), running sum of the light of `n_cells` cells
    guide : (cell,) int32; entry b of `n_guide` is the first cell whose sum exceeds the share
        b / n_guide (Chen and Asau 1974, doi:10.1080/05695557408974949)
    """
    cell = 0
    portion = running[n_cells - 1] / n_guide
    for b in range(n_guide):
        reach = portion * b
        while cell < n_cells - 1 and not running[cell] > reach:
            cell += 1
        guide[b] = cell


@compiled
def find_cell(share, running, n_cells, guide, n_guide):
    """Return the first cell whose running sum exceeds `share` of the total, 0 < share < 1.

    The same as a binary search, but found in one or two steps whatever the number of cells.
    """
    target = share * running[n_cells - 1]
    cell = np.int64(guide[np.int64(share * n_guide)])
    while cell > 0 and running[cell - 1] > target:
        cell -= 1
    while cell < n_cells - 1 and not running[cell] > target:
        cell += 1
    return cell


@compiled
def _between(value, low, high):
    return min(max(value, low), high)


@compiled
def _rise(y, grid):
    return y * (grid.sin_zenith / grid.cos_zenith)


@compiled
def write_line(line, x, y, q_lon, q_lat, tel_x, tel_y, tel_z, grid, tables):
    """Write what all light of a line has in common at a telescope; return its table radius.

    Parameters
    ----------
    line : (N_LINE,), output, for `em_photon`
    x, y : m, the line at H = 0
    q_lon, q_lat : its slope
    tel_x, tel_y, tel_z : m

    Returns
    -------
    radius_g : m, distance of the telescope from the line times the stretch of the line
    """
    _, gain = stretch(q_lon, q_lat, grid)
    d_x = tel_x - (x + q_lon * tel_z)
    d_y = tel_y - (y + q_lat * tel_z)
    radius = math.sqrt(d_x * d_x + d_y * d_y)
    line[Q_LON], line[Q_LAT] = q_lon, q_lat
    line[RADIUS], line[STRETCH], line[RISE] = radius, gain, _rise(y, grid)
    line[R_LON], line[R_LAT] = 1.0, 0.0
    if radius > 0.0:
        line[R_LON], line[R_LAT] = d_x / radius, d_y / radius
    line[RING], _ = place(tables.radius_edge, radius * gain)
    return radius * gain


@compiled
def _arrival_time(above, height, sky_lon, sky_lat, front, axis_height, step, grid):
    """Return the arrival time of a photon, ns; the formula is that of the array text."""
    off_centre = axis_height - 0.5 * (grid.height_edge[step] + grid.height_edge[step + 1])
    delay = grid.delay[step] + grid.refractivity[step] * off_centre
    way = above * math.sqrt(1.0 + (sky_lon * sky_lon + sky_lat * sky_lat))
    return (way + delay - height * front) / SPEED_OF_LIGHT


@compiled
def em_photon(w1, w2, w3, step, age_index, age_fraction, line, tel_z, front, grid, tables):
    """Return (sky_lon, sky_lat, time, landed) of a photo-electron of an electromagnetic row.

    Parameters
    ----------
    w1, w2, w3 : random words
    step : of the grid
    age_index, age_fraction : age of the row at the centre of the step
    line : (N_LINE,), geometry of row and telescope
    tel_z : m, level of the telescope
    front : see `front_of`, of the primary
    """
    upper, lower = grid.height_edge[step], grid.height_edge[step + 1]
    axis_height = upper + uniform(w1) * (lower - upper)
    height = (axis_height - line[RISE]) / line[STRETCH]
    above = height - tel_z
    landed = above > 0.0
    if not landed:
        above = 1.0

    n_nodes, n_ages, _, n_samples = tables.radial.shape
    low_half = (np.float64(w2 & _HALF_MASK) + 0.5) * 2.0**-HALF_WORD
    high_half = (np.float64(w2 >> _HALF_WORD) + 0.5) * 2.0**-HALF_WORD
    node = np.int64(grid.node[step]) + np.int64(low_half < grid.node_fraction[step])
    age = np.int64(age_index) + np.int64(high_half < age_fraction)
    node = _between(node, 0, n_nodes - 1)
    age = _between(age, 0, n_ages - 1)
    ring = np.int64(line[RING])
    sample = np.int64(w3 % np.uint64(n_samples))
    radial = np.float64(tables.radial[node, age, ring, sample])
    tangential = np.float64(tables.tangential[node, age, ring, sample])
    if w3 >> _SIGN_BIT:
        tangential = -tangential

    inwards = radial - line[RADIUS]
    r_lon, r_lat = line[R_LON], line[R_LAT]
    sky_lon = line[Q_LON] + (inwards * r_lon - tangential * r_lat) / above
    sky_lat = line[Q_LAT] + (inwards * r_lat + tangential * r_lon) / above
    time = _arrival_time(above, height, sky_lon, sky_lat, front, axis_height, step, grid)
    return sky_lon, sky_lat, time, landed


@compiled
def _step_of(axis_height, height_edge):
    """Return the step that holds a height H; above and below the grid the nearest."""
    low, high = 0, height_edge.shape[0] - 2
    while low < high:
        middle = (low + high + 1) // 2
        if height_edge[middle] < axis_height:
            high = middle - 1
        else:
            low = middle
    return low


@compiled
def muon_photon(
    w1, w2, x, y, q_lon, q_lat, theta, height_low, height_high, azimuth, azimuth_half, tel_x, tel_y,
    tel_z, front, grid, mirror_radius,
):  # fmt: skip
    """Return (sky_lon, sky_lat, time, landed) of a photo-electron of a muon.

    Parameters
    ----------
    w1, w2 : random words
    x, y : m, the muon at H = 0
    q_lon, q_lat : its slope
    theta, height_low, height_high, azimuth, azimuth_half : see `muon_light`
    tel_x, tel_y, tel_z : m
    front : see `front_of`, of the primary
    mirror_radius : m
    """
    above = height_low + uniform(w1) * (height_high - height_low)
    angle = azimuth + (2.0 * uniform(w2) - 1.0) * azimuth_half
    turn_lon, turn_lat = theta * math.cos(angle), theta * math.sin(angle)
    d_x = x + q_lon * tel_z + turn_lon * above - tel_x
    d_y = y + q_lat * tel_z + turn_lat * above - tel_y
    landed = d_x * d_x + d_y * d_y <= mirror_radius * mirror_radius
    sky_lon, sky_lat = q_lon - turn_lon, q_lat - turn_lat
    _, gain = stretch(q_lon, q_lat, grid)
    height = tel_z + above
    axis_height = height * gain + _rise(y, grid)
    step = _step_of(axis_height, grid.height_edge)
    time = _arrival_time(above, height, sky_lon, sky_lat, front, axis_height, step, grid)
    return sky_lon, sky_lat, time, landed
