"""Flashes of calibration light: photo-electrons without a shower.

`loops/camera.py` has the same text for one image at a time.
"""

from jaxtyping import Float, Integer

from ._types import Array, array_namespace
from .camera import PixelSums
from .camera_noise import words_of_pixels
from .random import normal_pair, poisson, uniform
from .simulation_types import EFFICIENCY_HEADROOM, CameraModel, CameraSettings, Stream

__all__ = ["flash", "negative_binomial"]

SEARCH_BELOW = 32.0
SEARCH_STEPS = 96
"""The inversion of `negative_binomial` serves means below 32 and ends after 96 steps."""


def negative_binomial(n: Array, word_0: Array, word_1: Array, *, crosstalk: float) -> Array:
    """Return the extra avalanches of n photo-electrons, a sum of n geometric numbers, as float64.

    It has the negative binomial distribution with mean n p / (1 - p). Below a mean of 32 by
    inversion of `word_0`, above it from a normal number with the skewness term of Cornish and
    Fisher, as in `random.poisson`.

    Parameters
    ----------
    n : float64, whole numbers >= 0
    word_0, word_1 : uint32, shape of `n`
    crosstalk : p, 0 <= p < 1
    """
    xp = array_namespace(n, word_0)
    mean = n * (crosstalk / (1.0 - crosstalk))
    u = uniform(word_0)
    few = xp.where(mean < SEARCH_BELOW, n, xp.zeros_like(n))
    term = xp.exp(few * xp.log(xp.full_like(n, 1.0 - crosstalk)))
    below, k = term, xp.zeros_like(u)
    for step in range(1, SEARCH_STEPS + 1):
        k = xp.where(u > below, xp.full_like(u, float(step)), k)
        term = term * (crosstalk * (few + (step - 1)) / step)
        below = below + term
    z, _ = normal_pair(word_0, word_1)
    sigma = xp.sqrt(mean / (1.0 - crosstalk))
    skew = (z * z - 1.0) / 6.0 * ((1.0 + crosstalk) / (1.0 - crosstalk))
    wide = xp.floor(mean + z * sigma + skew + 0.5)
    wide = xp.where(wide > 0.0, wide, xp.zeros_like(wide))
    return xp.where(mean < SEARCH_BELOW, k, wide)


def flash(
    mean_pe: Float[Array, "image pixel"],
    shower: Integer[Array, " image"],
    image: Integer[Array, " image"],
    tel: Integer[Array, " image"],
    camera: CameraModel,
    *,
    settings: CameraSettings,
    key: tuple[int, int],
) -> PixelSums:
    """Return the light in every pixel of flashes of calibration light at time 0.

    Parameters
    ----------
    mean_pe : (image, pixel) photo-electrons expected in a pixel of relative efficiency 1
    shower, image : (image,) words of the counters (`Stream.LIGHT`)
    tel : (image,) row of the telescope
    camera, settings : see `simulation_types`
    key : of the random numbers
    """
    xp = array_namespace(mean_pe, shower, image)
    number = xp.arange(mean_pe.shape[1], dtype=xp.int64)
    w0, w1, w2, w3 = words_of_pixels(shower, Stream.LIGHT, number, image, key=key)
    efficiency = xp.take(camera.efficiency, xp.astype(tel, xp.int64), axis=0)
    mean = mean_pe * efficiency * EFFICIENCY_HEADROOM
    count = xp.astype(poisson(mean, w0, w1), xp.float64)
    more = negative_binomial(count, w2, w3, crosstalk=settings.crosstalk)
    return PixelSums(count, count + more, xp.zeros_like(count))
