"""Formulas of the cascade of hadrons in air, one particle at a time; `hadrons.py` strings them.

A toy of hadronic physics, whose numbers without a source are choices: a leading particle, the rest
shared out piece by piece, transverse momenta. It has nucleons, pions and muons only: no kaons, no
baryons but the leading one, no fragments of nuclei, no charm, no particles from the target. Good
enough for distributions of images, no basis for the systematics of hadronic models.

Energies are in GeV, depths in g/cm2, lengths in m.
"""

from math import pi, sqrt
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ._types import Array, array_namespace
from .random import exponential, uniform
from .simulation_types import RADIATION_LENGTH, StepGrid

__all__ = [
    "Air",
    "air_of",
    "axis_depth",
    "axis_height",
    "decay_muon",
    "em_start",
    "interaction_length",
    "is_followed",
    "kick",
    "own_line",
    "survival_weight",
    "transverse_momentum",
]

CONVERSION_LENGTH = 9 / 7 * RADIATION_LENGTH
"""Mean depth in which a photon makes a pair: 9/7 radiation lengths (Rossi 1952)."""
ELECTRON_LENGTH = 0.49 * RADIATION_LENGTH
"""Mean depth by which the centroid of a shower that one electron begins lies behind that of a
photon that converts at the same place; cascades as in `loops/cascade.py`, 10 GeV to 1 TeV."""
SHIFT = 0.82 * RADIATION_LENGTH
"""Fluctuation of the centroid of a shower after its first conversion, standard deviation. Cascades
of `loops/cascade.py` have 0.79 radiation lengths at 1 GeV and 0.82 for 3 GeV to 1 TeV, and follow
the distribution of Gumbel (1935), with a tail to late showers, to 0.02 of all showers."""
SHIFT_SCALE, SHIFT_MEAN = SHIFT * sqrt(6.0) / pi, 0.5772156649015329
"""Scale of that distribution, and its mean in the scale (Euler's constant)."""

FIRST_EDGE = 1.0
"""Upper edge of a single step, g/cm2."""

PION_MASS, PION_CTAU = 0.13957, 7.804
NEUTRAL_PION_MASS = 0.13498
MUON_MASS, MUON_CTAU = 0.10566, 658.65
MUON_LOSS = 0.002
"""GeV per g/cm2, close to the minimum of ionisation."""
MUON_LEAST_SHARE = (MUON_MASS / PION_MASS) ** 2
"""Energy of the muon over that of the pion: uniform from here to 1 (decay into two bodies)."""
MUON_PRIMARY_HEIGHT = 12_000.0
"""H where muons thrown on their own are produced, a free choice: far above what a telescope sees,
since its light comes from the last few hundred metres."""

MASS_OF_AIR_NUCLEUS = 24160.0
"""g/cm2 mb: of a mean air nucleus (A = 14.55), so that lambda = MASS_OF_AIR_NUCLEUS / sigma."""
PION_CROSS_SECTION = 0.78
"""Cross-section of a pion over that of a nucleon."""
NUCLEON_LEADING = (0.05, 0.80)
PION_LEADING, PION_LEADING_POWER = 0.85, 0.9
PION_EXCHANGE = 0.27
"""Share of interactions of a charged pion whose leading particle is a neutral pion."""
NEUTRAL_SHARE = 0.345
"""Share of neutral pions among the other pieces."""
LOST_SHARE = NEUTRAL_SHARE + 0.08 * (1 - NEUTRAL_SHARE)
"""Upper end of the range of the kind that is neither: 8 % of the charged go to other channels."""
TRANSVERSE_SCALE = 0.18
"""Transverse momenta follow p exp(-p / scale), mean 0.36 GeV."""

MIN_PIECE = 1.5
"""What remains of an interaction is shared out until this little is left."""
MAX_PIECES = 256
"""Pieces of an interaction besides the leading particle. Their number is a Poisson number of mean
4 ln(E / MIN_PIECE), below 63 for all energies of the model: more than 256 do not happen."""
MIN_HADRON = 6.0
MIN_MUON = 4.0
"""On the ground; the Cherenkov threshold of muons at 2 km is 5 GeV."""
MIN_GAMMA = 0.1
"""Photons below make next to no electrons above the Cherenkov threshold."""
MIN_THIN = 2.0
MAX_SLOPE = 0.5
"""Particles farther from the pointing axis (27 degrees) are not followed: their light passes by."""
MIN_GROWTH = 0.1
"""The same for those that hardly come down (see `own_line`)."""
MAX_ENERGY = 1e7
"""Nuclei of more than 10 PeV are beyond the model; no rows are made of them."""

NUCLEON, CHARGED_PION, NEUTRAL_PION, NOTHING = 0, 1, 2, 3
"""Kinds of particles of a cascade."""

# Draws of a particle, by the index in the counter (stream HADRON, its own name).
DRAW_KICK = 0
"""Words: two of the transverse momentum, azimuth, decay length of a charged pion."""
DRAW_FATE = 1
"""Words of a hadron: depth of interaction; share of the leading particle or of the muon; kind of
the leading particle or survival of the muon. Of a neutral pion: share of the first photon, survival
of the first and of the second, azimuth of the decay."""
DRAW_PIECES = 2
"""And the following, of a hadron, words for two pieces each: share, kind; share, kind."""
DRAW_START = 2
"""And the following, of a neutral pion, one photon each: conversion, shift."""


class Air(NamedTuple):
    """Depth of the air along the pointing axis against height, at the edges of the steps.

    In between, and above the first edge, the logarithm of the depth is linear in height.
    """

    fall: Float[Array, " step_edge"]  # minus H, m, rising
    log_depth: Float[Array, " step_edge"]  # ln of g/cm2, rising
    tan_zenith: float
    ground: float  # depth at the last edge, g/cm2


def air_of(grid: StepGrid) -> Air:
    """Return the air of a grid; NumPy arrays."""
    depth = np.asarray(grid.depth, dtype=np.float64)
    # All steps but the last are equal, so the first edge follows from the first two centres.
    first = depth[0] - (depth[1] - depth[0]) / 2 if len(depth) > 2 else FIRST_EDGE
    edge = np.empty(len(depth) + 1)
    edge[0] = first
    # Edge k + 1 is 2 depth[k] - edge[k]; with alternating signs that is a running sum.
    sign = np.where(np.arange(len(edge)) % 2 == 0, 1.0, -1.0)
    edge[1:] = sign[1:] * (first - np.cumsum(2 * depth * sign[:-1]))
    fall = -np.ascontiguousarray(grid.height_edge, dtype=np.float64)
    tan_zenith = float(grid.sin_zenith) / float(grid.cos_zenith)
    return Air(fall, np.log(edge), tan_zenith, float(edge[-1]))


def _between(xp, nodes, values, at):
    """Return the value at `at` of a line through nodes, with its end segments extended."""
    segment = xp.searchsorted(nodes, at, side="right") - 1
    segment = xp.clip(segment, 0, nodes.shape[0] - 2)
    lower, upper = xp.take(nodes, segment), xp.take(nodes, segment + 1)
    start, end = xp.take(values, segment), xp.take(values, segment + 1)
    return start + (end - start) * ((at - lower) / (upper - lower))


def axis_depth(height: Float[Array, " n"], air: Air) -> Float[Array, " n"]:
    """Return the depth along the pointing axis, g/cm2, at heights H, m."""
    xp = array_namespace(height)
    return xp.exp(_between(xp, air.fall, air.log_depth, -height))


def axis_height(depth: Float[Array, " n"], air: Air) -> Float[Array, " n"]:
    """Return the height H, m, at depths along the pointing axis, g/cm2 (above 0)."""
    xp = array_namespace(depth)
    return -_between(xp, air.log_depth, air.fall, xp.log(depth))


def own_line(
    q_lon: Float[Array, " n"], q_lat: Float[Array, " n"], tan_zenith: Any
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return how a line of slope q = (lon, lat) differs from the pointing axis.

    Returns
    -------
    path : length along the line per unit of H, sqrt(1 + q^2)
    growth : vertical height gained per unit of H over that of the axis, 1 + q_lat tan(zenith)

    Notes
    -----
    A line meets at H the air that the axis meets at H growth; its own depth there is that of the
    axis times path / growth.
    """
    xp = array_namespace(q_lon, q_lat)
    return xp.sqrt(1.0 + q_lon * q_lon + q_lat * q_lat), 1.0 + q_lat * tan_zenith


def interaction_length(
    energy: Float[Array, " n"], is_pion: Bool[Array, " n"]
) -> Float[Array, " n"]:
    """Return the mean free path in air, g/cm2.

    The cross-section of protons is 280 + 30 l + 4 l^2 mb with l = log10(E / 100 GeV), a choice that
    rises faster than the measured one above 100 TeV: 485 mb at 2 PeV, where EAS-TOP finds 338 +- 28
    (Aglietta et al. 2009, Phys. Rev. D 79, 032004). That of pions is 0.78 of it.
    """
    xp = array_namespace(energy)
    level = xp.log10(energy / 100.0)
    sigma = 280.0 + 30.0 * level + 4.0 * level * level
    return MASS_OF_AIR_NUCLEUS / xp.where(is_pion, PION_CROSS_SECTION * sigma, sigma)


def transverse_momentum(word_0: Array, word_1: Array) -> Array:
    """Return transverse momenta, GeV, of a Gamma distribution of shape 2."""
    xp = array_namespace(word_0)
    return -TRANSVERSE_SCALE * xp.log(uniform(word_0) * uniform(word_1))


def kick(q_lon: Array, q_lat: Array, slope: Array, azimuth: Array) -> tuple[Array, Array]:
    """Return the direction q of a particle that leaves its parent by a slope at an azimuth (rad).

    A particle flying with the additional slope d comes from q - d.
    """
    xp = array_namespace(slope)
    return q_lon - slope * xp.cos(azimuth), q_lat - slope * xp.sin(azimuth)


def em_start(depth: Array, length: float, word_0: Array, word_1: Array) -> Array:
    """Return where an electromagnetic shower starts, g/cm2 along its line, float64.

    Parameters
    ----------
    depth : at which its photon or electron was made, g/cm2
    length : mean depth to the first conversion, g/cm2
    word_0 : of the conversion
    word_1 : of the shift, of mean 0, which stands for all fluctuations after the conversion; for
        this reason the start may lie above `depth`, and above all air: there is nothing to shine
    """
    xp = array_namespace(word_0)
    shift = -SHIFT_SCALE * (xp.log(exponential(word_1)) + SHIFT_MEAN)
    return depth + length * exponential(word_0) + shift


def is_followed(q_lon: Array, q_lat: Array, tan_zenith: Any) -> Array:
    """Return whether a particle stays close enough to the axis to be followed."""
    _, growth = own_line(q_lon, q_lat, tan_zenith)
    return (q_lon * q_lon + q_lat * q_lat <= MAX_SLOPE * MAX_SLOPE) & (growth >= MIN_GROWTH)


def survival_weight(energy: Array, thin_energy: Array, word: Array) -> Array:
    """Return the weight of a photon after thinning, 0 if it is left out.

    Below `thin_energy` a photon is kept with the probability energy / thin_energy and stands for
    1 / probability (Hillas 1997, Nucl. Phys. B Proc. Suppl. 52, 29).
    """
    xp = array_namespace(energy, thin_energy)
    is_kept = (energy >= thin_energy) | (uniform(word) * thin_energy < energy)
    weight = xp.where(energy >= thin_energy, 1.0, thin_energy / energy)
    return xp.where(is_kept & (energy >= MIN_GAMMA), weight, 0.0)


def decay_muon(
    energy: Float[Array, " n"],
    height: Float[Array, " n"],
    q_lon: Float[Array, " n"],
    q_lat: Float[Array, " n"],
    share_word: Array,
    survival_word: Array,
    air: Air,
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    """Return the muons of charged pions that decay at heights H.

    The muon flies on along the line of the pion (the angle of the decay is below 40 MeV / E), loses
    2 MeV per g/cm2, and may decay on its way, with the lifetime of its energy half-way.

    Returns
    -------
    energy : GeV, half-way to the ground
    is_seen : whether it reaches the ground with at least `MIN_MUON`
    """
    xp = array_namespace(energy)
    path, growth = own_line(q_lon, q_lat, air.tan_zenith)
    start = energy * (MUON_LEAST_SHARE + (1.0 - MUON_LEAST_SHARE) * uniform(share_word))
    loss = MUON_LOSS * (air.ground - axis_depth(height * growth, air)) * (path / growth)
    half_way = start - 0.5 * loss
    is_seen = start - loss >= MIN_MUON
    safe = xp.where(is_seen, half_way, 1.0)
    survival = xp.exp(-height * path * MUON_MASS / (safe * MUON_CTAU))
    return half_way, is_seen & (uniform(survival_word) < survival)
