"""Image parameters beside the moments: leakage, concentration, morphology and statistics.

Definitions are ctapipe's (``ctapipe.image``), so that the columns can be compared one to one.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ._types import Array, array_namespace, masked, per_image, safe_divide
from .islands import Islands
from .moments import Hillas, ellipse_coordinates

__all__ = [
    "Concentration",
    "Leakage",
    "Morphology",
    "Statistics",
    "concentration",
    "leakage",
    "morphology",
    "statistics",
]


class Leakage(NamedTuple):
    """How much of an image lies in the outermost one and two rows of the camera, 0 to 1."""

    pixels_width_1: Float[Array, " image"]
    pixels_width_2: Float[Array, " image"]
    intensity_width_1: Float[Array, " image"]
    intensity_width_2: Float[Array, " image"]


class Concentration(NamedTuple):
    """Share of the charge near the centre, within the ellipse, and in the brightest pixel."""

    cog: Float[Array, " image"]
    core: Float[Array, " image"]
    pixel: Float[Array, " image"]


class Morphology(NamedTuple):
    """Number of surviving pixels, and of islands by size."""

    n_pixels: Int[Array, " image"]
    n_islands: Int[Array, " image"]
    n_small_islands: Int[Array, " image"]
    n_medium_islands: Int[Array, " image"]
    n_large_islands: Int[Array, " image"]


class Statistics(NamedTuple):
    """Descriptive statistics of the surviving pixels, unweighted; kurtosis is 0 for a Gaussian."""

    max: Float[Array, " image"]
    min: Float[Array, " image"]
    mean: Float[Array, " image"]
    std: Float[Array, " image"]
    skewness: Float[Array, " image"]
    kurtosis: Float[Array, " image"]


def _count(xp, mask):
    return xp.sum(xp.astype(mask, xp.int32), axis=-1, dtype=xp.int32)


def leakage(
    charge: Float[Array, "image pixel"],
    mask: Bool[Array, "image pixel"],
    border_1: Array,
    border_2: Array,
) -> Leakage:
    """Return the shares of pixels and of charge in the camera's border; NaN for empty images.

    Parameters
    ----------
    charge, mask : (image, pixel)
    border_1, border_2 : (pixel,) or (image, pixel), True in the outermost one, two rows
    """
    xp = array_namespace(charge, mask, border_1, border_2)
    weight = masked(xp, mask, xp.astype(charge, xp.float64))
    intensity = xp.sum(weight, axis=-1)
    n_pixels = xp.astype(_count(xp, mask), xp.float64)
    shares = []
    for border in (border_1, border_2):
        inside = mask & per_image(xp, border)
        n_inside = xp.astype(_count(xp, inside), xp.float64)
        shares.append(
            (
                safe_divide(xp, n_inside, n_pixels),
                safe_divide(xp, xp.sum(masked(xp, inside, weight), axis=-1), intensity),
            )
        )
    (pixels_1, intensity_1), (pixels_2, intensity_2) = shares
    return Leakage(pixels_1, pixels_2, intensity_1, intensity_2)


def concentration(
    charge: Float[Array, "image pixel"],
    mask: Bool[Array, "image pixel"],
    fov_lon: Array,
    fov_lat: Array,
    pixel_width: Array,
    parameters: Hillas,
) -> Concentration:
    """Return how concentrated the light is; NaN for empty images.

    Parameters
    ----------
    charge, mask : (image, pixel)
    fov_lon, fov_lat, pixel_width : (pixel,) or (image, pixel), deg
    parameters : Hillas parameters of the same images
    """
    xp = array_namespace(charge, mask, fov_lon, fov_lat)
    weight = masked(xp, mask, xp.astype(charge, xp.float64))
    delta_lon = per_image(xp, fov_lon) - parameters.fov_lon[:, None]
    delta_lat = per_image(xp, fov_lat) - parameters.fov_lat[:, None]
    near_cog = delta_lon**2 + delta_lat**2 < per_image(xp, pixel_width) ** 2

    ellipse = ellipse_coordinates(fov_lon, fov_lat, parameters)
    # A line of pixels has no ellipse: NaN compares False, so that its core share becomes 0.
    scaled_long = safe_divide(xp, ellipse.longitudinal, parameters.length[:, None])
    scaled_trans = safe_divide(xp, ellipse.transverse, parameters.width[:, None])
    within = scaled_long**2 + scaled_trans**2 <= 1

    def share(selected):
        return safe_divide(xp, xp.sum(masked(xp, selected, weight), axis=-1), parameters.intensity)

    return Concentration(
        cog=share(near_cog),
        core=share(within),
        pixel=safe_divide(xp, xp.max(weight, axis=-1), parameters.intensity),
    )


def morphology(mask: Bool[Array, "image pixel"], islands: Islands) -> Morphology:
    """Return the number of pixels in `mask` together with the numbers of islands."""
    xp = array_namespace(mask)
    return Morphology(_count(xp, mask), *islands)


def statistics(values: Float[Array, "image pixel"], mask: Bool[Array, "image pixel"]) -> Statistics:
    """Return maximum, minimum, mean, standard deviation, skewness and kurtosis, float64.

    Parameters
    ----------
    values, mask : (image, pixel); an empty image gives NaN
    """
    xp = array_namespace(values, mask)
    values = xp.astype(values, xp.float64)
    n = xp.astype(_count(xp, mask), xp.float64)
    empty = n == 0
    nan = xp.asarray(float("nan"), dtype=xp.float64)

    def mean(q):
        return safe_divide(xp, xp.sum(masked(xp, mask, q), axis=-1), n)

    average = mean(values)
    centred = values - average[:, None]
    std = xp.sqrt(mean(centred**2))
    scaled = safe_divide(xp, centred, std[:, None])
    return Statistics(
        max=xp.where(empty, nan, xp.max(masked(xp, mask, values, float("-inf")), axis=-1)),
        min=xp.where(empty, nan, xp.min(masked(xp, mask, values, float("inf")), axis=-1)),
        mean=average,
        std=std,
        skewness=mean(scaled**3),
        kurtosis=mean(scaled**4) - 3,
    )
