"""Constants of a camera from its calibration events: pedestal, photo-electrons per count, gain.

A pedestal event gives every pixel the maximum of its noise within the gate of the peak detector, a
flat-field event the maximum of the noise and the pulse of a flash: a flash has to be so bright that
the maximum is its light and the noise N at its peak (`above_noise`). With mu photo-electrons on
average, the counts of such flashes have

    mean     b + G mu
    variance F^2 G^2 mu + noise^2,

G being the counts per photo-electron and F^2 the excess noise factor. Between flashes of different
light b and the noise cancel, so the variance rises with the mean by **F^2 G** whatever the peak
detector does to the pedestal: the photon transfer (Janesick 2007, ISBN 978-0-8194-6722-5) between
levels of light instead of above zero.

The excess noise factor of `excess_noise_factor`: each avalanche starts another one with the
probability p, so a photo-electron makes k avalanches with (1 - p) p^(k - 1) (Vinogradov et al.
2009, IEEE Nuclear Science Symposium conference record): mean 1/(1 - p), second moment
(1 + p)/(1 - p)^2. The charge of each one spreads by a factor s, which adds s^2/(1 - p) to the
second moment. The sum over a Poisson number mu of photo-electrons has the variance mu E[q^2], hence
F^2 = E[q^2]/E[q]^2 = 1 + p + s^2 (1 - p).

The error of a constant is built from moments that are averaged over the camera, scaled by the
response of the pixel, and not from the variance that the pixel itself happened to show: an error
that follows the fluctuation of its value makes low values look precise and biases every mean.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Integer

from ._types import Array, array_namespace, masked, safe_divide

__all__ = [
    "Intercalibration",
    "Moments",
    "PairSums",
    "Pedestal",
    "PowerSums",
    "Transfer",
    "above_noise",
    "excess_noise_factor",
    "good_pixels",
    "intercalibration",
    "moments",
    "pair_sums",
    "pedestal",
    "photon_transfer",
    "power_sums",
]

GAUSSIAN_KURTOSIS = 3.0
ABOVE_NOISE = 4.5
"""Standard deviations between the mean of a flash and the pedestal."""
SMALLEST_VARIANCE = 0.1
"""Part of the camera's variance that a pixel has at least (estimates by difference may be < 0)."""


class PowerSums(NamedTuple):
    """Sums over events of powers of counts minus an origin; sums of blocks add up."""

    n: Float[Array, "..."]
    first: Float[Array, "..."]
    second: Float[Array, "..."]
    third: Float[Array, "..."]
    fourth: Float[Array, "..."]


class Moments(NamedTuple):
    """Mean, unbiased variance, third and fourth central moment over n events, in counts."""

    n: Float[Array, "*level pixel"]
    mean: Float[Array, "*level pixel"]
    variance: Float[Array, "*level pixel"]
    third: Float[Array, "*level pixel"]
    fourth: Float[Array, "*level pixel"]


class PairSums(NamedTuple):
    """Sums over events of the counts of two gains minus their origins; sums of blocks add up."""

    n: Float[Array, " pixel"]
    high: Float[Array, " pixel"]
    low: Float[Array, " pixel"]
    high_high: Float[Array, " pixel"]
    high_low: Float[Array, " pixel"]
    low_low: Float[Array, " pixel"]


class Pedestal(NamedTuple):
    """Counts of a pixel without signal, with statistical errors."""

    mean: Float[Array, " pixel"]
    mean_error: Float[Array, " pixel"]
    std: Float[Array, " pixel"]
    std_error: Float[Array, " pixel"]


class Transfer(NamedTuple):
    """Result of `photon_transfer`, with statistical errors (1 standard deviation)."""

    gain: Float[Array, " pixel"]  # counts per photo-electron
    gain_error: Float[Array, " pixel"]
    response: Float[Array, " pixel"]  # counts for the same light, relative to the camera mean
    response_error: Float[Array, " pixel"]
    dc_to_pe: Float[Array, " pixel"]  # photo-electrons per count, see `photon_transfer`
    dc_to_pe_error: Float[Array, " pixel"]  # of this pixel against the camera
    scale_error: Float[Array, ""]  # relative, common to all pixels
    camera_gain: Float[Array, ""]  # counts per photo-electron, mean of the camera


class Intercalibration(NamedTuple):
    """Counts of the low gain per count of the high gain."""

    ratio: Float[Array, " pixel"]
    ratio_error: Float[Array, " pixel"]


def excess_noise_factor(crosstalk: float, gain_spread: float) -> float:
    """Return F^2 = 1 + p + s^2 (1 - p): see the module.

    Parameters
    ----------
    crosstalk
        Probability p that an avalanche starts another one.
    gain_spread
        Relative standard deviation s of the charge of one avalanche.
    """
    return 1.0 + crosstalk + gain_spread**2 * (1.0 - crosstalk)


def power_sums(
    counts: Integer[Array, "event pixel"],
    origin: Float[Array, " pixel"],
    use: Bool[Array, " event"],
) -> PowerSums:
    """Return the power sums of a block of events about `origin`, float64.

    `origin` lies near the mean (the first event will do): powers of small numbers keep all digits.
    """
    xp = array_namespace(counts, origin)
    weight = xp.astype(use, xp.float64)[:, None]
    delta = xp.astype(counts, xp.float64) - origin[None, :]
    square = delta * delta
    n = xp.sum(weight + xp.zeros_like(delta), axis=0)
    terms = (delta, square, square * delta, square * square)
    return PowerSums(n, *(xp.sum(weight * term, axis=0) for term in terms))


def moments(sums: PowerSums, origin: Float[Array, "..."]) -> Moments:
    """Return the central moments of what went into `sums` (NaN where there are too few events)."""
    xp = array_namespace(sums.n)
    m1, m2, m3, m4 = (safe_divide(xp, total, sums.n) for total in sums[1:])
    central = m2 - m1 * m1
    return Moments(
        n=sums.n,
        mean=origin + m1,
        variance=safe_divide(xp, central * sums.n, sums.n - 1.0),
        third=m3 - 3.0 * m1 * m2 + 2.0 * m1**3,
        fourth=m4 - 4.0 * m1 * m3 + 6.0 * m1**2 * m2 - 3.0 * m1**4,
    )


def pair_sums(
    high: Integer[Array, "event pixel"],
    low: Integer[Array, "event pixel"],
    origin_high: Float[Array, " pixel"],
    origin_low: Float[Array, " pixel"],
    use: Bool[Array, " event"],
    *,
    high_below: float,
) -> PairSums:
    """Return the sums of a block of events for `intercalibration`, float64.

    Only counts below `high_below` in the high gain enter. A selection by the independent variable
    leaves a regression unbiased.
    """
    xp = array_namespace(high, low)
    h = xp.astype(high, xp.float64)
    weight = xp.astype(use[:, None] & (h < high_below), xp.float64)
    h, low_counts = h - origin_high[None, :], xp.astype(low, xp.float64) - origin_low[None, :]
    terms = (xp.ones_like(h), h, low_counts, h * h, h * low_counts, low_counts * low_counts)
    return PairSums(*(xp.sum(weight * term, axis=0) for term in terms))


def above_noise(
    levels: Moments, dark: Moments, valid: Bool[Array, " pixel"]
) -> Bool[Array, " level"]:
    """Return whether flashes are bright enough for `photon_transfer`.

    The mean of the camera minus 4.5 standard deviations exceeds the pedestal. Simulated flashes
    that miss this give gains that are too high, because the peak detector cuts off the lower tail
    of their distribution: by 1.2 % at 20 p.e. on a pedestal of 4.4, by 0.2 % at 30 p.e.
    """
    xp = array_namespace(levels.mean)
    mean, variance, floor = (
        _mean_over(xp, values, valid)[..., 0]
        for values in (levels.mean, levels.variance, dark.mean)
    )
    return mean - ABOVE_NOISE * xp.sqrt(variance) > floor


def _mean_over(xp, values: Array, valid: Array) -> Array:
    """Return the mean over valid pixels, the pixel axis kept with length 1."""
    used = xp.broadcast_to(valid, values.shape)
    n = xp.sum(xp.astype(used, values.dtype), axis=-1, keepdims=True)
    total = xp.sum(masked(xp, used, values), axis=-1, keepdims=True)
    return safe_divide(xp, total, n)


def _middle(xp, values: Array) -> Array:
    """Return the median along the last axis, length 1; NaN counts as infinity."""
    infinity = xp.asarray(float("inf"), dtype=values.dtype)
    order = xp.sort(xp.where(xp.isnan(values), infinity, values), axis=-1)
    half = values.shape[-1] // 2
    return order[..., half : half + 1]


def _excess_kurtosis(xp, values: Moments, valid: Array) -> Array:
    square = _mean_over(xp, values.variance**2, valid)
    return safe_divide(xp, _mean_over(xp, values.fourth, valid), square) - GAUSSIAN_KURTOSIS


def pedestal(values: Moments, valid: Bool[Array, " pixel"]) -> Pedestal:
    """Return mean and standard deviation of the counts without signal.

    The variance of a standard deviation is sigma^2 (kappa + 2) / (4 n) with the excess kurtosis
    kappa, taken from the camera (Kendall and Stuart, vol. 1, 10.5).
    """
    xp = array_namespace(values.mean)
    std = xp.sqrt(values.variance)
    kurtosis = _excess_kurtosis(xp, values, valid)
    return Pedestal(
        mean=values.mean,
        mean_error=xp.sqrt(safe_divide(xp, values.variance, values.n)),
        std=std,
        std_error=std * xp.sqrt(safe_divide(xp, kurtosis + 2.0, 4.0 * values.n)),
    )


def good_pixels(
    pedestal_std: Float[Array, " pixel"],
    faint: Float[Array, " pixel"],
    bright: Float[Array, " pixel"],
    *,
    noisy_factor: float,
    response_min: float,
) -> Bool[Array, " pixel"]:
    """Return True for pixels that are neither dead nor noisy.

    A dead pixel answers more light (mean counts from `faint` to `bright` flashes) with less than
    `response_min` of the median pixel, or never changes; a noisy one has a pedestal that spreads
    `noisy_factor` times as much as that of the median pixel.
    """
    xp = array_namespace(pedestal_std)
    answer = bright - faint
    alive = (answer > response_min * _middle(xp, answer)) & (pedestal_std > 0.0)
    return alive & (pedestal_std < noisy_factor * _middle(xp, pedestal_std))


def _slope(xp, x: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    """Return the weighted slope of y against x over levels (axis 0), and its coefficients.

    slope = sum(coefficient * y); the error follows from them.
    """
    total = xp.sum(weight, axis=0, keepdims=True)
    centre = safe_divide(xp, xp.sum(weight * x, axis=0, keepdims=True), total)
    lever = weight * (x - centre)
    spread = xp.sum(lever * (x - centre), axis=0, keepdims=True)
    coefficient = safe_divide(xp, lever, spread)
    return xp.sum(coefficient * y, axis=0, keepdims=True), coefficient


def photon_transfer(
    levels: Moments,
    pedestal_variance: Float[Array, " pixel"],
    valid: Bool[Array, " pixel"],
    *,
    crosstalk: float,
    gain_spread: float,
) -> Transfer:
    """Return gain and response of each pixel from flashes of two or more levels of light.

    Parameters
    ----------
    levels
        Moments [level, pixel] of flat-field events; the light of a level is the same in all of
        its flashes and all over the camera.
    pedestal_variance
        Of pedestal events, counts^2; it enters the errors only.
    valid
        Pixels that make up the camera mean.
    crosstalk, gain_spread
        Of `excess_noise_factor`.

    Returns
    -------
    transfer
        `gain` is the slope of variance against mean over F^2. `response` is the slope of the mean
        counts against the mean of the camera: with two levels the ratio of the differences.
        `dc_to_pe` makes charges that are equal for equal light: the camera mean of p.e. over the
        counts of the pixel, 1 / (response x mean gain). It contains the efficiency of the pixel
        relative to the camera mean, which is 1 by definition.
    """
    xp = array_namespace(levels.mean)
    factor = excess_noise_factor(crosstalk, gain_spread)
    n = levels.n

    # Camera means [level, 1]: weights from them do not follow the fluctuations of a pixel.
    mean = _mean_over(xp, levels.mean, valid)
    variance = _mean_over(xp, levels.variance, valid)
    third = _mean_over(xp, levels.third, valid)
    kurtosis = _excess_kurtosis(xp, levels, valid)

    response, coefficient = _slope(xp, mean, levels.mean, safe_divide(xp, n, variance))
    share = response**2 * variance
    noise = pedestal_variance[None, :]
    # What a pixel has more in noise than the camera it has in every level.
    expected = share + noise - response**2 * _mean_over(xp, noise, valid)
    least = SMALLEST_VARIANCE * share
    expected = xp.where(expected > least, expected, least)
    response_error = xp.sqrt(xp.sum(coefficient**2 * safe_divide(xp, expected, n), axis=0))

    # Errors of both axes and their covariance mu_3 / n: the variance of V - slope m.
    def scatter(slope, spread, skew):
        of_variance = spread**2 * (safe_divide(xp, xp.full_like(n, 2.0), n - 1.0) + kurtosis / n)
        return of_variance + slope**2 * spread / n - 2.0 * slope * skew / n

    rough, _ = _slope(xp, mean, variance, safe_divide(xp, n, variance**2))
    weight = 1.0 / scatter(rough, variance, third)
    slope, coefficient = _slope(xp, levels.mean, levels.variance, weight)
    pixel_scatter = scatter(rough * response, expected, third * response**3)
    slope_error = xp.sqrt(xp.sum(coefficient**2 * pixel_scatter, axis=0))
    slope, response = slope[0, :], response[0, :]

    camera_gain = _mean_over(xp, slope, valid)[0] / factor
    n_valid = xp.sum(xp.astype(valid, n.dtype))
    summed = xp.sqrt(xp.sum(masked(xp, valid, slope_error**2)))
    scale_error = safe_divide(xp, summed, n_valid * factor * camera_gain)
    relative = safe_divide(xp, response_error, response)
    # 1/x of a number with the relative error e lies e^2 too high on average.
    dc_to_pe = safe_divide(xp, 1.0 - relative**2, response * camera_gain)
    return Transfer(
        gain=slope / factor,
        gain_error=slope_error / factor,
        response=response,
        response_error=response_error,
        dc_to_pe=dc_to_pe,
        dc_to_pe_error=xp.abs(dc_to_pe * relative),
        scale_error=scale_error,
        camera_gain=camera_gain,
    )


def intercalibration(sums: PairSums) -> Intercalibration:
    """Return the slope of low-gain against high-gain counts, by least squares.

    Both gains see the same light, so the high gain carries no error but its rounding (1/12
    count^2 against the 1e5 of the light): ordinary regression is unbiased to 1e-6.
    """
    xp = array_namespace(sums.n)
    n = sums.n
    high, low = safe_divide(xp, sums.high, n), safe_divide(xp, sums.low, n)
    spread = sums.high_high - n * high * high
    common = sums.high_low - n * high * low
    ratio = safe_divide(xp, common, spread)
    left = sums.low_low - n * low * low - ratio * common
    residual = safe_divide(xp, left, n - 2.0)
    residual = xp.where(residual > 0.0, residual, xp.zeros_like(residual))
    return Intercalibration(ratio, xp.sqrt(safe_divide(xp, residual, spread)))
