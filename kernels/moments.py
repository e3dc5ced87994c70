"""Hillas parameters: the moments of the light distribution of an image.

Positions are in the telescope frame in degrees. They may be given once for all images, (pixel,), or
per image, (image, pixel), as they come out of `compaction.gather`: after cleaning only the
surviving pixels need to be looked at, and both ways give the same numbers.
"""

import math
from typing import NamedTuple

from jaxtyping import Bool, Float

from ._types import Array, array_namespace, masked, per_image, safe_divide

__all__ = ["Ellipse", "Hillas", "ellipse_coordinates", "hillas"]

# A variance (deg^2) below this is the rounding of pixels on one line; ctapipe has the same limit.
NO_VARIANCE = 2.220446049250313e-16
# An axis this close (rad) to -90 deg is called +90 deg: the sign of a covariance that is zero but
# for rounding would otherwise turn the axis, and with it every signed parameter, by chance.
VERTICAL = 1e-9


class Hillas(NamedTuple):
    """Hillas parameters, one per image; NaN where there is no charge. Angles and lengths in deg.

    An image of one pixel has a position and zero length; everything that needs an axis is NaN.
    """

    intensity: Float[Array, " image"]  # p.e.
    skewness: Float[Array, " image"]  # along the major axis
    kurtosis: Float[Array, " image"]  # along the major axis, 3 for a Gaussian
    fov_lon: Float[Array, " image"]  # centre of gravity
    fov_lat: Float[Array, " image"]
    r: Float[Array, " image"]  # polar coordinates of the centre of gravity
    phi: Float[Array, " image"]  # -180 to 180
    length: Float[Array, " image"]  # rms along the major axis
    length_uncertainty: Float[Array, " image"]
    width: Float[Array, " image"]  # rms across the major axis
    width_uncertainty: Float[Array, " image"]
    psi: Float[Array, " image"]  # direction of the major axis, -90 to 90
    psi_uncertainty: Float[Array, " image"]
    transverse_cog_uncertainty: Float[Array, " image"]


class Ellipse(NamedTuple):
    """Where each pixel lies relative to the centre and the axes of its image."""

    longitudinal: Float[Array, "image pixel"]  # deg
    transverse: Float[Array, "image pixel"]  # deg


def ellipse_coordinates(fov_lon: Array, fov_lat: Array, parameters: Hillas) -> Ellipse:
    """Return pixel positions along and across the major axis, deg, from the centre of gravity.

    Parameters
    ----------
    fov_lon, fov_lat : (pixel,) or (image, pixel), deg
    parameters : of the same images; NaN positions where an image has no axis
    """
    xp = array_namespace(fov_lon, fov_lat, parameters.psi)
    delta_lon = per_image(xp, fov_lon) - parameters.fov_lon[:, None]
    delta_lat = per_image(xp, fov_lat) - parameters.fov_lat[:, None]
    psi = parameters.psi[:, None] * (math.pi / 180)
    cos_psi, sin_psi = xp.cos(psi), xp.sin(psi)
    return Ellipse(
        longitudinal=delta_lon * cos_psi + delta_lat * sin_psi,
        transverse=delta_lat * cos_psi - delta_lon * sin_psi,
    )


def hillas(
    charge: Float[Array, "image pixel"],
    mask: Bool[Array, "image pixel"],
    fov_lon: Array,
    fov_lat: Array,
    pixel_area: Array,
) -> Hillas:
    """Return the moments of each image about its centre of gravity, float64.

    Parameters
    ----------
    charge : (image, pixel), p.e.
    mask : (image, pixel), pixels that survived cleaning; padding is False
    fov_lon, fov_lat : (pixel,) or (image, pixel), deg, float64
    pixel_area : (pixel,) or (image, pixel), deg^2

    Notes
    -----
    Definitions and uncertainties are those of ctapipe's ``hillas_parameters``: `psi_uncertainty`
    and `transverse_cog_uncertainty` from the weighted line fit along the axis, `length_uncertainty`
    and `width_uncertainty` from the propagated charge fluctuations. The width is the rms of the
    transverse coordinate itself, because the smaller eigenvalue of the covariance cancels.
    """
    xp = array_namespace(charge, mask, fov_lon, fov_lat)
    weight = masked(xp, mask, xp.astype(charge, xp.float64))
    intensity = xp.sum(weight, axis=-1)
    has_charge = intensity > 0
    safe_intensity = xp.where(has_charge, intensity, 1.0)
    nan = xp.asarray(float("nan"), dtype=xp.float64)

    def mean(q):
        return xp.sum(weight * q, axis=-1) / safe_intensity

    def root(q):  # negative charges may make a variance negative: that is no number
        return xp.sqrt(xp.where(q >= 0, q, nan))

    lon, lat = per_image(xp, fov_lon), per_image(xp, fov_lat)
    area = per_image(xp, pixel_area)
    cog_lon, cog_lat = mean(lon), mean(lat)
    # Centre before squaring: E[x^2] - E[x]^2 cancels.
    delta_lon, delta_lat = lon - cog_lon[:, None], lat - cog_lat[:, None]
    var_lon, var_lat = mean(delta_lon**2), mean(delta_lat**2)
    covariance = mean(delta_lon * delta_lat)

    psi = 0.5 * xp.atan2(2 * covariance, var_lon - var_lat)
    psi = xp.where(psi < VERTICAL - math.pi / 2, psi + math.pi, psi)
    cos_psi, sin_psi = xp.cos(psi), xp.sin(psi)
    longitudinal = delta_lon * cos_psi[:, None] + delta_lat * sin_psi[:, None]
    transverse = delta_lat * cos_psi[:, None] - delta_lon * sin_psi[:, None]
    length_squared, width_squared = mean(longitudinal**2), mean(transverse**2)
    length = xp.sqrt(xp.where(length_squared < NO_VARIANCE, 0.0, length_squared))
    width = xp.sqrt(xp.where(width_squared < NO_VARIANCE, 0.0, width_squared))

    # Straight line through the pixels in the rotated frame, weighted with the charge density.
    density = weight / area
    s_0 = xp.sum(density, axis=-1)
    s_l = xp.sum(density * longitudinal, axis=-1)
    s_ll = xp.sum(density * longitudinal**2, axis=-1)
    s_t = xp.sum(density * transverse, axis=-1)
    s_lt = xp.sum(density * longitudinal * transverse, axis=-1)
    determinant = s_0 * s_ll - s_l * s_l
    slope_variance = safe_divide(xp, s_0, determinant)
    offset_variance = safe_divide(xp, s_ll, determinant)
    slope = safe_divide(xp, s_0 * s_lt - s_l * s_t, determinant)
    elongation = safe_divide(xp, width, length)
    psi_uncertainty = root(slope_variance + slope**2) * (
        1 + xp.tan(elongation * (math.pi / 2)) ** 2
    )
    transverse_uncertainty = root(offset_variance * (1 + xp.sin(slope) ** 2))

    # Charge fluctuations: projections of the centred second moments on the two axes.
    cos_2psi, sin_2psi = xp.cos(2 * psi)[:, None], xp.sin(2 * psi)[:, None]
    along, across = (1 + cos_2psi) / 2, (1 - cos_2psi) / 2
    excess_lon = (delta_lon**2 - var_lon[:, None]) / safe_intensity[:, None]
    excess_lat = (delta_lat**2 - var_lat[:, None]) / safe_intensity[:, None]
    excess_mix = (delta_lon * delta_lat - covariance[:, None]) / safe_intensity[:, None]
    long_term = along * excess_lon + across * excess_lat + sin_2psi * excess_mix
    trans_term = across * excess_lon + along * excess_lat - sin_2psi * excess_mix
    length_error = root(xp.sum(weight * long_term**2, axis=-1))
    width_error = root(xp.sum(weight * trans_term**2, axis=-1))
    length_uncertainty = safe_divide(xp, length_error, 2 * length)
    width_uncertainty = safe_divide(xp, width_error, 2 * width)

    degree = 180 / math.pi
    has_axis = has_charge & (length > 0)

    def if_charge(q):
        return xp.where(has_charge, q, nan)

    def if_axis(q):
        return xp.where(has_axis, q, nan)

    return Hillas(
        intensity=if_charge(intensity),
        skewness=if_axis(safe_divide(xp, mean(longitudinal**3), length**3)),
        kurtosis=if_axis(safe_divide(xp, mean(longitudinal**4), length**4)),
        fov_lon=if_charge(cog_lon),
        fov_lat=if_charge(cog_lat),
        r=if_charge(xp.hypot(cog_lon, cog_lat)),
        phi=if_charge(xp.atan2(cog_lat, cog_lon) * degree),
        length=if_charge(length),
        length_uncertainty=if_axis(length_uncertainty),
        width=if_charge(width),
        width_uncertainty=if_axis(width_uncertainty),
        psi=if_axis(psi * degree),
        psi_uncertainty=if_axis(psi_uncertainty * degree),
        transverse_cog_uncertainty=if_axis(transverse_uncertainty),
    )
