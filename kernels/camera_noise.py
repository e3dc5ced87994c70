"""Noise of a pixel: draws from tables of quantiles, for each image and pixel.

`CameraModel.noise` holds the quantiles of several kinds of noise, in avalanches: with the mean
level of night sky and dark counts for the slow shaper, unless the coupling is AC, and without it
for the fast one. The quantile of probability u stands at -ln(1 - u). `loops/camera_noise.py` is the
same text for single numbers.
"""

from jaxtyping import Float

from ._types import Array, array_namespace
from .random import exponential, philox
from .simulation_types import Stream

__all__ = ["byte_normal", "noise_quantile", "peak_excess", "words_of_pixels"]

SIGNAL_LEVELS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Signals in avalanches, for each of which there is a kind of noise: what the peak detector reads
beyond the signal, the maximum within the gate of signal and noise less the signal. The kind after
them, `NOISE_SLOW`, is their limit for endless signals: the noise at the time of the peak."""
NOISE_MAXIMUM, NOISE_SLOW, NOISE_FAST = 0, len(SIGNAL_LEVELS), len(SIGNAL_LEVELS) + 1
"""Kinds of noise: the maximum without a signal, and the slow and fast shapers at one time."""
N_KINDS = len(SIGNAL_LEVELS) + 2

BYTES_MEAN = 4 * 127.5
BYTES_SCALE = (4 * (256**2 - 1) / 12) ** -0.5
"""Mean, and one over the standard deviation, of the sum of the four bytes of a random word."""


def words_of_pixels(
    shower: Array, stream: Stream, number: Array, image: Array, *, key: tuple[int, int]
) -> tuple:
    """Return four random words for each (image, number).

    Parameters
    ----------
    shower, image : (image,) words of the counters
    stream : what the numbers are for
    number : (number,) pixel or pair of pixels
    key : of the random numbers
    """
    return philox(shower[:, None], int(stream) << 24, number[None, :], image[:, None], key=key)


def noise_quantile(
    noise: Float[Array, "node kind quantile"],
    node: Array,
    fraction: Array,
    word: Array,
    *,
    kind: int | Array,
    step: float,
) -> Array:
    """Return noise in avalanches, linear between quantiles and between levels of night sky.

    Parameters
    ----------
    noise : `CameraModel.noise`
    node, fraction : lower level and the weight of the next one, shape of `word`
    word : uint32; the highest noise comes from the lowest words
    kind : `NOISE_MAXIMUM` + number of a signal level, `NOISE_SLOW` or `NOISE_FAST`, or one for each
        word (int64)
    step : `CameraSettings.noise_step`
    """
    xp = array_namespace(noise, word)
    n_nodes, n_kinds, n_quantiles = noise.shape
    place = exponential(word) / step
    k = xp.astype(xp.floor(place), xp.int64)
    last = xp.full_like(k, n_quantiles - 2)
    k = xp.where(k < last, k, last)
    f = place - xp.astype(k, xp.float64)
    f = xp.where(f < 1.0, f, xp.ones_like(f))
    flat = xp.reshape(noise, (-1,))
    node = xp.astype(node, xp.int64)
    top = xp.full_like(node, n_nodes - 1)
    above = xp.where(node < top, node + 1, top)

    def at(row):
        index = xp.reshape((row * n_kinds + kind) * n_quantiles + k, (-1,))
        value, after = xp.take(flat, index), xp.take(flat, index + 1)
        value, after = xp.reshape(value, k.shape), xp.reshape(after, k.shape)
        return value + f * (after - value)

    lower = at(node)
    return lower + fraction * (at(above) - lower)


def peak_excess(
    noise: Float[Array, "node kind quantile"],
    node: Array,
    fraction: Array,
    signal: Array,
    word: Array,
    *,
    step: float,
) -> Array:
    """Return what the peak detector reads beyond a signal: maximum of both together less signal.

    A weak signal is helped by the highest fluctuation within the gate, a strong one by what happens
    to be there at its peak: the excess falls with the signal. It is linear between `SIGNAL_LEVELS`.
    Beyond the last one its distance from `NOISE_SLOW` falls with 1 / S, since the peak, a parabola
    of height S, is moved by a slope s of the noise in proportion to s / S, and raised by s^2 / S.

    Parameters
    ----------
    noise, node, fraction, word, step : see `noise_quantile`
    signal : float64 >= 0, avalanches, shape of `word`
    """
    xp = array_namespace(noise, word)
    levels = xp.asarray(SIGNAL_LEVELS, dtype=xp.float64, device=getattr(noise, "device", None))
    level = xp.astype(xp.searchsorted(levels, signal, side="right"), xp.int64) - 1
    level = xp.where(level > 0, level, xp.zeros_like(level))
    top = xp.full_like(level, len(SIGNAL_LEVELS) - 1)
    after = xp.where(level < top, level + 1, top)
    low = xp.reshape(xp.take(levels, xp.reshape(level, (-1,))), signal.shape)
    high = xp.reshape(xp.take(levels, xp.reshape(after, (-1,))), signal.shape)
    one = xp.ones_like(signal)
    share = (signal - low) / xp.where(level < top, high - low, one)
    share = xp.where(level < top, share, 1.0 - low / xp.where(level < top, one, signal))
    lower = noise_quantile(noise, node, fraction, word, kind=level, step=step)
    upper = noise_quantile(noise, node, fraction, word, kind=level + 1, step=step)
    return lower + share * (upper - lower)


def byte_normal(word: Array) -> Array:
    """Return nearly normal numbers, mean 0 and variance 1: standardised sums of four bytes.

    They end at 3.5 and have a kurtosis of -0.3, which does not matter for noise of about one count
    that is then rounded; and they need neither a table nor a second word.
    """
    xp = array_namespace(word)
    wide, byte = xp.astype(word, xp.int64), xp.asarray(255, dtype=xp.int64)
    total = wide & byte
    for shift in (8, 16, 24):
        total = total + ((wide >> xp.asarray(shift, dtype=xp.int64)) & byte)
    return (xp.astype(total, xp.float64) - BYTES_MEAN) * BYTES_SCALE
