"""Loop text of `kernels/hadron_physics.py`: the same formulas for single particles."""

import math

from .. import hadron_physics as model
from ._compile import compiled
from .random import exponential, uniform

__all__ = [
    "axis_depth",
    "axis_height",
    "em_start",
    "interaction_length",
    "is_followed",
    "kick",
    "own_line",
    "survival_weight",
]

TWO_PI = 2.0 * math.pi


@compiled
def _between(nodes, values, at):
    low, high = 0, nodes.shape[0] - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if nodes[middle] <= at:
            low = middle
        else:
            high = middle
    return values[low] + (values[low + 1] - values[low]) * (
        (at - nodes[low]) / (nodes[low + 1] - nodes[low])
    )


@compiled
def axis_depth(height, air):
    """Return the depth along the pointing axis, g/cm2, at a height H."""
    return math.exp(_between(air.fall, air.log_depth, -height))


@compiled
def axis_height(depth, air):
    """Return the height H at a depth along the pointing axis, g/cm2."""
    return -_between(air.log_depth, air.fall, math.log(depth))


@compiled
def own_line(q_lon, q_lat, air):
    """Return length along a line and vertical height, both per H and relative to the axis."""
    return math.sqrt(1.0 + q_lon * q_lon + q_lat * q_lat), 1.0 + q_lat * air.tan_zenith


@compiled
def is_followed(q_lon, q_lat, air):
    """Return whether a particle stays close enough to the axis to be followed."""
    slope = q_lon * q_lon + q_lat * q_lat
    growth = 1.0 + q_lat * air.tan_zenith
    return slope <= model.MAX_SLOPE * model.MAX_SLOPE and growth >= model.MIN_GROWTH


@compiled
def kick(q_lon, q_lat, energy, w0, w1, w2):
    """Return the direction of a particle that leaves its parent with transverse momentum."""
    slope = -model.TRANSVERSE_SCALE * math.log(uniform(w0) * uniform(w1)) / energy
    azimuth = TWO_PI * uniform(w2)
    return q_lon - slope * math.cos(azimuth), q_lat - slope * math.sin(azimuth)


@compiled
def interaction_length(energy, is_pion):
    """Return the mean free path in air, g/cm2."""
    level = math.log10(energy / 100.0)
    sigma = 280.0 + 30.0 * level + 4.0 * level * level
    return model.MASS_OF_AIR_NUCLEUS / (sigma * (model.PION_CROSS_SECTION if is_pion else 1.0))


@compiled
def survival_weight(energy, thin_energy, word):
    """Return the weight of a photon after thinning, 0 if it is left out."""
    if not energy >= model.MIN_GAMMA:
        return 0.0
    if energy >= thin_energy:
        return 1.0
    return thin_energy / energy if uniform(word) * thin_energy < energy else 0.0


@compiled
def em_start(depth, length, w0, w1):
    """Return where an electromagnetic shower starts, g/cm2, of a particle made at `depth`."""
    shift = -model.SHIFT_SCALE * (math.log(exponential(w1)) + model.SHIFT_MEAN)
    return depth + length * exponential(w0) + shift
