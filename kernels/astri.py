"""The image parameters of A-SciSoft, the ASTRI reconstruction software.

Source: columns of real lv1b files, with the formulae of DIST, MISS, ALPHA and COSDELTAALPHA
checked on their rows; CONC, M3LONG, ASYM and MDIST after their MARS definitions. The number of
border rows in LEAKAGE is not public: one row is our choice.
"""

import math
from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ._types import Array, array_namespace, masked, per_image, safe_divide
from .cleaning import brightest_island
from .moments import Hillas, ellipse_coordinates

__all__ = ["AstriParameters", "astri_parameters"]


class AstriParameters(NamedTuple):
    """ASTRI parameters, one per image; NaN where the image has no charge or no axis."""

    conc: Float[Array, " image"]  # share of the two brightest pixels
    asym: Float[Array, " image"]  # MDIST projected on the major axis, signed, deg
    mdist: Float[Array, " image"]  # brightest pixel to centre of gravity, deg
    m3long: Float[Array, " image"]  # signed cube root of the third longitudinal moment, deg
    leakage: Float[Array, " image"]  # share of charge in the outermost row
    delta: Float[Array, " image"]  # direction of the major axis, rad
    dist: Float[Array, " image"]  # centre of gravity to source position, deg
    miss: Float[Array, " image"]  # source position to major axis, signed, deg
    alpha: Float[Array, " image"]  # angle between axis and direction of the source, signed, deg
    cos_delta_alpha: Float[Array, " image"]
    num_island: Int[Array, " image"]
    size_main_island: Float[Array, " image"]  # p.e.
    num_core: Int[Array, " image"]
    num_boundary: Int[Array, " image"]


def astri_parameters(
    charge: Float[Array, "image slot"],
    used: Bool[Array, "image slot"],
    core: Bool[Array, "image slot"],
    fov_lon: Array,
    fov_lat: Array,
    border: Array,
    label: Int[Array, "image slot"],
    n_islands: Int[Array, " image"],
    parameters: Hillas,
    *,
    source_fov_lon: float,
    source_fov_lat: float,
) -> AstriParameters:
    """Return the ASTRI parameters of cleaned images.

    Parameters
    ----------
    charge : (image, slot), p.e.
    used, core : (image, slot), pixels after cleaning, and those above the core threshold
    fov_lon, fov_lat : (slot,) or (image, slot), deg
    border : (slot,) or (image, slot), True in the outermost row of pixels
    label, n_islands : see `islands`
    parameters : Hillas parameters of the same images
    source_fov_lon, source_fov_lat : assumed source position, deg
    """
    xp = array_namespace(charge, used, fov_lon, fov_lat)
    weight = masked(xp, used, xp.astype(charge, xp.float64))
    intensity = parameters.intensity
    nan = xp.asarray(float("nan"), dtype=xp.float64)
    slot = xp.arange(charge.shape[-1])[None, :]

    brightest = xp.argmax(weight, axis=-1)
    is_brightest = slot == brightest[:, None]
    highest = xp.max(weight, axis=-1)
    second = xp.max(masked(xp, ~is_brightest, weight), axis=-1)

    ellipse = ellipse_coordinates(fov_lon, fov_lat, parameters)
    delta_lon = per_image(xp, fov_lon) - parameters.fov_lon[:, None]
    delta_lat = per_image(xp, fov_lat) - parameters.fov_lat[:, None]

    def at_brightest(q):
        return xp.sum(masked(xp, is_brightest, q), axis=-1)

    along = masked(xp, used, ellipse.longitudinal)
    third = safe_divide(xp, xp.sum(weight * along**3, axis=-1), intensity)
    m3long = xp.sign(third) * xp.abs(third) ** (1 / 3)

    psi = parameters.psi * (math.pi / 180)
    axis_lon, axis_lat = xp.cos(psi), xp.sin(psi)
    d_lon, d_lat = parameters.fov_lon - source_fov_lon, parameters.fov_lat - source_fov_lat
    dist = xp.hypot(d_lon, d_lat)
    miss = axis_lon * d_lat - axis_lat * d_lon
    sine = xp.clip(safe_divide(xp, miss, dist), -1.0, 1.0)

    main = brightest_island(xp.astype(charge, xp.float64), used, label)
    size_main = xp.sum(masked(xp, main, weight), axis=-1)
    n_used = xp.sum(xp.astype(used, xp.int32), axis=-1, dtype=xp.int32)
    n_core = xp.sum(xp.astype(core & used, xp.int32), axis=-1, dtype=xp.int32)
    leaked = xp.sum(masked(xp, used & per_image(xp, border), weight), axis=-1)
    has_charge = intensity > 0
    return AstriParameters(
        conc=safe_divide(xp, highest + second, intensity),
        asym=xp.where(has_charge, at_brightest(ellipse.longitudinal), nan),
        mdist=xp.where(has_charge, at_brightest(xp.hypot(delta_lon, delta_lat)), nan),
        m3long=m3long,
        leakage=safe_divide(xp, leaked, intensity),
        delta=parameters.psi * (math.pi / 180),
        dist=dist,
        miss=miss,
        alpha=xp.asin(sine) * (180 / math.pi),
        cos_delta_alpha=safe_divide(xp, axis_lon * d_lon + axis_lat * d_lat, dist),
        num_island=n_islands,
        size_main_island=xp.where(has_charge, size_main, nan),
        num_core=n_core,
        num_boundary=n_used - n_core,
    )
