"""Directions from the displacement between an image and its source (DISP).

The source lies on the long axis of an image, on one of its two sides. A displacement is a vector in
the telescope frame, deg; its components are along the oriented axis (cos psi, sin psi) in
(lon, lat), and across it, along (-sin psi, cos psi).
"""

from typing import NamedTuple

from jaxtyping import Bool, Float

from ._spherical import DEG
from ._types import Array, array_namespace, masked, safe_divide
from .combination import sum_slots

__all__ = [
    "DispComponents",
    "DispDirection",
    "DispVector",
    "disp_target",
    "disp_vector",
    "resolve_head_tail",
]

NEVER = 1e9  # what a side costs that has no probability
REFINEMENTS = 2


class DispComponents(NamedTuple):
    """Displacements by components, deg."""

    along: Float[Array, " image"]
    across: Float[Array, " image"]


class DispVector(NamedTuple):
    """Displacements in the telescope frame, deg."""

    lon: Float[Array, " image"]
    lat: Float[Array, " image"]


class DispDirection(NamedTuple):
    """The direction on which the images of each event agree; NaN where none is used."""

    fov_lon: Float[Array, " event"]  # deg, weighted mean
    fov_lat: Float[Array, " event"]
    spread: Float[Array, " event"]  # deg, weighted standard deviation of the points, 0 for one
    is_plus: Bool[Array, "event slot"]  # the side of each image: c + d, not c - d


def disp_target(
    fov_lon: Float[Array, " image"],
    fov_lat: Float[Array, " image"],
    psi: Float[Array, " image"],
    source_lon: Float[Array, " image"],
    source_lat: Float[Array, " image"],
) -> DispComponents:
    """Return the displacement from image centroids to their sources, by components.

    Parameters
    ----------
    fov_lon, fov_lat : (image,), centroid in the telescope frame, deg
    psi : (image,), orientation of the axis, deg
    source_lon, source_lat : (image,), source in the telescope frame of the same image, deg
    """
    xp = array_namespace(fov_lon, psi, source_lon)
    cos, sin = xp.cos(psi * DEG), xp.sin(psi * DEG)
    lon, lat = source_lon - fov_lon, source_lat - fov_lat
    return DispComponents(along=lon * cos + lat * sin, across=lat * cos - lon * sin)


def disp_vector(
    along: Float[Array, " image"], across: Float[Array, " image"], psi: Float[Array, " image"]
) -> DispVector:
    """Return displacements as vectors in the telescope frame; inverse of `disp_target`.

    Parameters
    ----------
    along, across : (image,), deg
    psi : (image,), orientation of the axis, deg
    """
    xp = array_namespace(along, across, psi)
    cos, sin = xp.cos(psi * DEG), xp.sin(psi * DEG)
    return DispVector(lon=along * cos - across * sin, lat=along * sin + across * cos)


def resolve_head_tail(
    fov_lon: Float[Array, "event slot"],
    fov_lat: Float[Array, "event slot"],
    disp_lon: Float[Array, "event slot"],
    disp_lat: Float[Array, "event slot"],
    weight: Float[Array, "event slot"],
    probability: Float[Array, "event slot"],
    used: Bool[Array, "event slot"],
    *,
    sign_weight: float,
) -> DispDirection:
    """Return the direction on which the images of each event agree best.

    Every image points to c + d or to c - d. With weights 1/error^2 the sides are chosen that make
    sum w |p - mean|^2 - `sign_weight` * sum log P(side) smallest, which is twice the negative
    logarithm of their likelihood for `sign_weight` = 2. Instead of all 2^n choices, each of the
    2 n points is a reference once, from which the others take the side that fits better; the best
    of these, improved by the same choice about its mean, is exact for two images. A single image
    takes its more probable side.

    Parameters
    ----------
    fov_lon, fov_lat : (event, slot), centroid c, deg
    disp_lon, disp_lat : (event, slot), displacement d, deg
    weight : (event, slot), 1/error^2 of the displacement, deg-2, positive
    probability : (event, slot), of the side c + d; 1 (or 0) forbids the other one
    used : (event, slot), images that take part
    sign_weight : how much probabilities count against distances
    """
    xp = array_namespace(fov_lon, disp_lon, weight, used)
    weight = masked(xp, used, weight)
    total = sum_slots(weight)
    # About the weighted mean of the centroids the sum of squares of the points c + s d becomes
    # constant + sum s_j gain_j - |sum s_j w_j d_j|^2 / sum w: what follows needs only these sums.
    centre_lon = safe_divide(xp, sum_slots(masked(xp, used, weight * fov_lon)), total)
    centre_lat = safe_divide(xp, sum_slots(masked(xp, used, weight * fov_lat)), total)
    c_lon = masked(xp, used, fov_lon - centre_lon[:, None])
    c_lat = masked(xp, used, fov_lat - centre_lat[:, None])
    d_lon, d_lat = masked(xp, used, disp_lon), masked(xp, used, disp_lat)
    chance = masked(xp, used, probability, 0.5)
    bias = sign_weight * (_log(xp, chance) - _log(xp, 1.0 - chance))
    inner = c_lon * d_lon + c_lat * d_lat
    gain = 2.0 * weight * inner - 0.5 * bias
    pull_lon, pull_lat = weight * d_lon, weight * d_lat
    inverse_total = 1.0 / xp.where(total > 0, total, 1.0)
    variance = 1.0 / xp.where(weight > 0, weight, 1.0)

    def cost(sign):
        mean_lon, mean_lat = sum_slots(sign * pull_lon), sum_slots(sign * pull_lat)
        return sum_slots(sign * gain) - inverse_total * (mean_lon * mean_lon + mean_lat * mean_lat)

    plus = xp.ones_like(bias)
    best_sign = xp.where(bias >= 0, plus, -plus)
    best_cost = cost(best_sign)
    n_slots = used.shape[-1]
    for reference in range(n_slots if n_slots > 1 else 0):
        pair_weight = 4.0 / (variance + variance[:, reference, None])
        for side in (1.0, -1.0):
            lon = c_lon[:, reference] + side * d_lon[:, reference]
            lat = c_lat[:, reference] + side * d_lat[:, reference]
            beyond = inner - d_lon * lon[:, None] - d_lat * lat[:, None]
            sign = xp.where(pair_weight * beyond <= bias, plus, -plus)
            own = xp.arange(n_slots)[None, :] == reference
            sign = xp.where(own, side, sign)
            now = cost(sign)
            better = (now < best_cost) & used[:, reference]
            best_cost = xp.where(better, now, best_cost)
            best_sign = xp.where(better[:, None], sign, best_sign)
    for _ in range(REFINEMENTS if n_slots > 2 else 0):
        lon = inverse_total * sum_slots(best_sign * pull_lon)
        lat = inverse_total * sum_slots(best_sign * pull_lat)
        beyond = inner - d_lon * lon[:, None] - d_lat * lat[:, None]
        best_sign = xp.where(4.0 * weight * beyond <= bias, plus, -plus)

    lon, lat = c_lon + best_sign * d_lon, c_lat + best_sign * d_lat
    mean_lon = safe_divide(xp, sum_slots(weight * lon), total)
    mean_lat = safe_divide(xp, sum_slots(weight * lat), total)
    distance_2 = (lon - mean_lon[:, None]) ** 2 + (lat - mean_lat[:, None]) ** 2
    return DispDirection(
        fov_lon=centre_lon + mean_lon,
        fov_lat=centre_lat + mean_lat,
        spread=xp.sqrt(safe_divide(xp, sum_slots(weight * distance_2), total)),
        is_plus=used & (best_sign > 0),
    )


def _log(xp, chance: Array) -> Array:
    """Return the logarithm of probabilities, -`NEVER` for 0."""
    possible = chance > 0
    return masked(xp, possible, xp.log(masked(xp, possible, chance, 1.0)), -NEVER)
