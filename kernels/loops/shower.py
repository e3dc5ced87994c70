"""Loop text of `kernels/shower.py`: the same formulas, one shower and one telescope at a time."""

import math

import numpy as np

from .._electron_share import (
    FIRST_DEPTH,
    GREISEN_NORM,
    LAST_AGE,
    LOWEST_SHARE_Y,
    LOWEST_Y,
    SHARE_AGE,
    SHARE_LEVEL,
    SHARE_SLOPE,
)
from ..shower import CANDIDATE_PE_PER_GEV, CANDIDATE_RADIUS_M, CANDIDATE_SLOPE
from ..simulation_types import CRITICAL_ENERGY_GEV, MUON, RADIATION_LENGTH, Stream
from ._compile import compiled
from .random import philox, uniform

__all__ = [
    "core",
    "is_candidate",
    "light",
    "place",
    "primary",
    "profile",
    "radius_place",
    "stretch",
]

_SHARE_AGE = np.array(SHARE_AGE)
_SHARE_LEVEL, _SHARE_SLOPE = np.array(SHARE_LEVEL), np.array(SHARE_SLOPE)
_PRIMARY, _CORE = Stream.PRIMARY << 24, Stream.CORE << 24


@compiled
def _versine(angle):
    half = math.sin(0.5 * angle)
    return 2.0 * half * half


@compiled
def primary(shower, k0, k1, settings):
    """Return energy (GeV), q_lon and q_lat of a primary; `settings` are ProductionSettings."""
    w0, w1, w2, _ = philox(shower, _PRIMARY, 0, 0, k0, k1)
    power = settings.spectral_index + 1.0
    span = math.log(settings.energy_max_gev / settings.energy_min_gev)
    if power == 0.0:
        rise = span * uniform(w0)
    else:
        rise = math.log1p(uniform(w0) * math.expm1(power * span)) / power
    energy = settings.energy_min_gev * math.exp(rise)
    low = _versine(settings.cone_min_rad)
    versine = low + uniform(w1) * (_versine(settings.cone_max_rad) - low)
    slope = math.sqrt(versine * (2.0 - versine)) / (1.0 - versine)
    angle = (2.0 * math.pi) * uniform(w2)
    return energy, slope * math.cos(angle), slope * math.sin(angle)


@compiled
def core(shower, use, telescopes, k0, k1, settings):
    """Return where the axis of a primary crosses H = 0, m."""
    w0, w1, w2, _ = philox(shower, _CORE, use, 0, k0, k1)
    radius = settings.scatter_radius_m * math.sqrt(uniform(w0))
    angle = (2.0 * math.pi) * uniform(w1)
    x, y = radius * math.cos(angle), radius * math.sin(angle)
    if settings.primary == MUON:
        _, q_lon, q_lat = primary(shower, k0, k1, settings)
        tel = int(uniform(w2) * telescopes.x.shape[0])
        x = x + (telescopes.x[tel] - q_lon * telescopes.z[tel])
        y = y + (telescopes.y[tel] - q_lat * telescopes.z[tel])
    return x, y


@compiled
def is_candidate(energy, q_lon, q_lat, x, y, telescopes, settings, light_factor):
    """Return whether a telescope may see a shower at all."""
    if settings.primary == MUON:
        return True
    nearest = math.inf
    for tel in range(telescopes.x.shape[0]):
        d_x = telescopes.x[tel] - (x + q_lon * telescopes.z[tel])
        d_y = telescopes.y[tel] - (y + q_lat * telescopes.z[tel])
        nearest = min(nearest, d_x * d_x + d_y * d_y)
    ratio = CANDIDATE_RADIUS_M / max(math.sqrt(nearest), CANDIDATE_RADIUS_M)
    bound = CANDIDATE_PE_PER_GEV * energy * ratio**CANDIDATE_SLOPE * light_factor
    return bound >= settings.reject_pe


@compiled
def stretch(q_lon, q_lat, grid):
    """Return (p, g) of a line: its length, and the height that it gains, per metre of H."""
    length = math.sqrt(1.0 + (q_lon * q_lon + q_lat * q_lat))
    gain = (grid.cos_zenith + q_lat * grid.sin_zenith) / grid.cos_zenith
    return length, gain


@compiled
def _profile_y(energy):
    return max(math.log(energy * (1.0 / CRITICAL_ENERGY_GEV)), LOWEST_Y)


@compiled
def _first_step(start, slant, grid):
    """Return the first step at or behind a depth along a line."""
    k = 0
    while k < grid.depth.shape[0] and grid.depth[k] * slant < start:
        k += 1
    return k


@compiled
def _climb(nodes, index, value):
    """Return the lower node of a value that only grows, from the node found before."""
    while index < nodes.shape[0] - 2 and value >= nodes[index + 1]:
        index += 1
    return index


@compiled
def _fraction(nodes, index, value):
    fraction = (value - nodes[index]) / (nodes[index + 1] - nodes[index])
    return min(max(fraction, 0.0), 1.0)


@compiled
def _number(y, t, age, share_index):
    fraction = _fraction(_SHARE_AGE, share_index, age)
    level, slope = _SHARE_LEVEL[share_index], _SHARE_SLOPE[share_index]
    level = level + fraction * (_SHARE_LEVEL[share_index + 1] - level)
    slope = slope + fraction * (_SHARE_SLOPE[share_index + 1] - slope)
    share = level + slope / max(y, LOWEST_SHARE_Y)
    return GREISEN_NORM / math.sqrt(y) * math.exp(t * (1.0 - 1.5 * math.log(age)) + share)


@compiled
def profile(energy, start, q_lon, q_lat, weight, grid, tables, amount, age_index, age_fraction):
    """Fill the light and the age of an electromagnetic shower along the steps.

    Parameters
    ----------
    energy, start, q_lon, q_lat, weight : as in EmRows
    amount, age_index, age_fraction : (step,) or longer, float64, int32, float64: written to at the
        steps that give light, left alone elsewhere

    Returns
    -------
    first, last : steps first <= k < last give light
    """
    length, gain = stretch(q_lon, q_lat, grid)
    slant = length / gain
    factor = weight * (length * gain)
    y = _profile_y(energy)
    first = _first_step(start, slant, grid)
    last = first
    share, node = 0, 0
    for k in range(first, grid.depth.shape[0]):
        t = (grid.depth[k] * slant - start) * (1.0 / RADIATION_LENGTH) + FIRST_DEPTH
        age = 3.0 * t / (t + 2.0 * y)
        if age > LAST_AGE:
            break
        share = _climb(_SHARE_AGE, share, age)
        node = _climb(tables.age, node, age)
        amount[k] = _number(y, t, age, share) * factor * grid.light[k]
        age_index[k] = node
        age_fraction[k] = _fraction(tables.age, node, age)
        last = k + 1
    return first, last


@compiled
def place(nodes, value):
    """Return the lower node of a value on a rising axis and the linear weight of the next."""
    low, high = 0, nodes.shape[0] - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if value >= nodes[middle]:
            low = middle
        else:
            high = middle
    return low, _fraction(nodes, low, value)


@compiled
def radius_place(radius_g, tables):
    """Return the lower radius node (-1 beyond the table) and the linear weight of the next."""
    index, fraction = place(tables.radius, radius_g)
    if not radius_g < tables.radius_edge[tables.radius_edge.shape[0] - 1]:
        index = -1
    return index, fraction


@compiled
def light(amount, age_index, age_fraction, first, last, radius_index, radius_fraction, tables, out):
    """Fill the expected photo-electrons of a telescope from each step; return their sum.

    Parameters
    ----------
    amount, age_index, age_fraction, first, last : see `profile`
    radius_index, radius_fraction : see `radius_place`; the index is not negative
    out : (step,) or longer, written to from `first` to `last`
    """
    density = tables.density
    near, far = np.uint64(radius_index), np.uint64(radius_index) + np.uint64(1)
    total = 0.0
    for k in range(first, last):
        young = np.uint64(age_index[k])
        old = young + np.uint64(1)
        value = np.float64(density[k, young, near])
        low = value + radius_fraction * (np.float64(density[k, young, far]) - value)
        value = np.float64(density[k, old, near])
        high = value + radius_fraction * (np.float64(density[k, old, far]) - value)
        value = amount[k] * (low + age_fraction[k] * (high - low))
        out[k] = value
        total += value
    return total
