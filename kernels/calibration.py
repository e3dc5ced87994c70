"""From ADC counts to photo-electrons and arrival times.

All cameras go the same way: one gain per pixel is selected, the pedestal is subtracted, the
conversion factor applied, and what is then a waveform in p.e. per sample is integrated. A camera
that reads one value per pixel (ASTRI: the CITIROC peak detector) ends after the conversion.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ._types import Array, array_namespace, masked

__all__ = [
    "Extracted",
    "calibrate",
    "extract",
    "extract_around_peak",
    "global_peak_index",
    "interpolate_invalid",
    "local_peak_index",
    "neighbour_peak_index",
    "select_gain",
    "take_gain",
]

EXTRACTORS = ("full_sum", "fixed_window", "global_peak", "local_peak", "neighbour_peak")


class Extracted(NamedTuple):
    """Charge and arrival time of every pixel."""

    charge: Float[Array, "image pixel"]  # p.e.
    peak_time: Float[Array, "image pixel"]  # ns after the first sample


def select_gain(
    adc: Array,
    *,
    threshold_adc: float,
) -> Int[Array, "image pixel"]:
    """Return the gain channel to use for each pixel: 0 (high), or 1 (low) where high saturates.

    Parameters
    ----------
    adc : (image, gain, pixel) or (image, gain, pixel, sample), ADC counts
    threshold_adc : ADC counts; a sample of the high gain above it selects the low gain

    Notes
    -----
    ctapipe's ``ThresholdGainSelector``; A-SciSoft's rule (FACTS 5) is the same with another number.
    """
    xp = array_namespace(adc)
    high = adc[:, 0, ...]
    saturated = xp.astype(high, xp.float32) > threshold_adc
    if saturated.ndim == 3:
        saturated = xp.any(saturated, axis=-1)
    if adc.shape[1] == 1:
        saturated = xp.zeros_like(saturated)
    return xp.astype(saturated, xp.int8)


def take_gain(values: Array, channel: Int[Array, "image pixel"]) -> Array:
    """Return `values` (image, gain, pixel, ...) in the selected channel, as (image, pixel, ...)."""
    xp = array_namespace(values, channel)
    if values.shape[1] == 1:
        return values[:, 0, ...]
    low = channel == 1
    if values.ndim == 4:
        low = low[:, :, None]
    return xp.where(low, values[:, 1, ...], values[:, 0, ...])


def calibrate(
    adc: Array,
    channel: Int[Array, "image pixel"],
    pedestal: Float[Array, "image gain pixel"],
    dc_to_pe: Float[Array, "image gain pixel"],
) -> Array:
    """Return (adc - pedestal) * dc_to_pe of the selected gain, float32, p.e. (per sample).

    Parameters
    ----------
    adc : (image, gain, pixel) or (image, gain, pixel, sample), ADC counts
    channel : (image, pixel), see `select_gain`
    pedestal : (image, gain, pixel), ADC counts per sample
    dc_to_pe : (image, gain, pixel), p.e. per ADC count
    """
    xp = array_namespace(adc, channel, pedestal, dc_to_pe)
    counts = xp.astype(take_gain(adc, channel), xp.float32)
    offset = take_gain(pedestal, channel)
    factor = take_gain(dc_to_pe, channel)
    if counts.ndim == 3:
        offset, factor = offset[:, :, None], factor[:, :, None]
    return (counts - offset) * factor


def global_peak_index(
    waveform: Float[Array, "image pixel sample"], valid: Bool[Array, "image pixel"]
) -> Int[Array, "image pixel"]:
    """Return, for every pixel, the sample at which the mean waveform of its image is highest."""
    xp = array_namespace(waveform, valid)
    total = xp.sum(masked(xp, valid[:, :, None], waveform), axis=1, dtype=xp.float64)
    peak = xp.argmax(total, axis=-1)
    return xp.broadcast_to(peak[:, None], valid.shape)


def local_peak_index(waveform: Float[Array, "image pixel sample"]) -> Int[Array, "image pixel"]:
    """Return the sample at which each pixel's own waveform is highest."""
    return array_namespace(waveform).argmax(waveform, axis=-1)


def neighbour_peak_index(
    waveform: Float[Array, "image pixel sample"],
    valid: Bool[Array, "image pixel"],
    neighbours: Int[Array, "pixel neighbour"],
    *,
    local_weight: int,
) -> Int[Array, "image pixel"]:
    """Return the sample at which the sum of the neighbours' waveforms is highest.

    Parameters
    ----------
    waveform : (image, pixel, sample), p.e. per sample
    valid : (image, pixel); other pixels do not count as neighbours
    neighbours : (pixel, neighbour), pixel indices, -1 = none
    local_weight : weight of the pixel itself (0: neighbours only)
    """
    xp = array_namespace(waveform, valid, neighbours)
    total = waveform * local_weight
    usable = masked(xp, valid[:, :, None], waveform)
    # Neighbour by neighbour, in ascending order: the (image, pixel, neighbour, sample) array would
    # not fit a cache, and the order of the float32 sum decides between equal (saturated) samples.
    for n in range(neighbours.shape[1]):
        index = neighbours[:, n]
        exists = (index >= 0)[None, :, None]
        total = total + masked(xp, exists, xp.take(usable, xp.where(index >= 0, index, 0), axis=1))
    return xp.argmax(total, axis=-1)


def extract_around_peak(
    waveform: Float[Array, "image pixel sample"],
    peak_index: Int[Array, "image pixel"],
    *,
    width: int,
    shift: int,
    sampling_rate_ghz: float,
) -> Extracted:
    """Return the sum of `width` samples from ``peak_index - shift`` on, and their mean time.

    The window is cut at the ends of the waveform. The time is the average of the sample positions
    weighted with the positive samples of the window, and the peak position where there is none
    (ctapipe's ``extract_around_peak``). Sums are taken in float64.

    Parameters
    ----------
    waveform : (image, pixel, sample), p.e. per sample
    peak_index : (image, pixel)
    width, shift : samples
    sampling_rate_ghz : samples per ns
    """
    xp = array_namespace(waveform, peak_index)
    n_samples = waveform.shape[-1]
    sample = xp.arange(n_samples)[None, None, :]
    start = (peak_index - shift)[:, :, None]
    inside = (sample >= start) & (sample < start + width)
    window = xp.where(inside, xp.astype(waveform, xp.float64), 0.0)
    positive = xp.where(window > 0, window, 0.0)
    weight = xp.sum(positive, axis=-1)
    moment = xp.sum(positive * xp.astype(sample, xp.float64), axis=-1)
    has_signal = weight > 0
    mean = moment / xp.where(has_signal, weight, 1.0)
    time = xp.where(has_signal, mean, xp.astype(peak_index, xp.float64)) / sampling_rate_ghz
    return Extracted(
        charge=xp.astype(xp.sum(window, axis=-1), waveform.dtype),
        peak_time=xp.astype(time, waveform.dtype),
    )


def extract(
    waveform: Float[Array, "image pixel sample"],
    valid: Bool[Array, "image pixel"],
    neighbours: Int[Array, "pixel neighbour"],
    *,
    extractor: str,
    width: int,
    shift: int,
    peak_index: int,
    local_weight: int,
    sampling_rate_ghz: float,
) -> Extracted:
    """Return charge and peak time by one of the `EXTRACTORS`, before any correction.

    Parameters
    ----------
    waveform : (image, pixel, sample), p.e. per sample
    valid : (image, pixel); invalid pixels do not help to find a peak
    neighbours : (pixel, neighbour), -1 = none
    extractor : ``full_sum``, ``fixed_window`` (at `peak_index`), ``global_peak``, ``local_peak`` or
        ``neighbour_peak``
    width, shift, peak_index : samples
    local_weight : see `neighbour_peak_index`
    sampling_rate_ghz : samples per ns

    Raises
    ------
    ValueError
        For an unknown `extractor`.
    """
    xp = array_namespace(waveform, valid, neighbours)
    if extractor == "full_sum":
        peak, width, shift = xp.zeros(valid.shape, dtype=xp.int64), waveform.shape[-1], 0
    elif extractor == "fixed_window":
        peak = xp.full(valid.shape, peak_index, dtype=xp.int64)
    elif extractor == "global_peak":
        peak = global_peak_index(waveform, valid)
    elif extractor == "local_peak":
        peak = local_peak_index(waveform)
    elif extractor == "neighbour_peak":
        peak = neighbour_peak_index(waveform, valid, neighbours, local_weight=local_weight)
    else:
        raise ValueError(f"extractor is {extractor!r}: expected one of {', '.join(EXTRACTORS)}")
    return extract_around_peak(
        waveform, peak, width=width, shift=shift, sampling_rate_ghz=sampling_rate_ghz
    )


def interpolate_invalid(
    values: Float[Array, "image pixel"],
    valid: Bool[Array, "image pixel"],
    neighbours: Int[Array, "pixel neighbour"],
) -> Float[Array, "image pixel"]:
    """Return `values` with each invalid pixel replaced by the mean of its valid neighbours.

    A pixel without a valid neighbour becomes 0 (ctapipe's ``NeighborAverage``).
    """
    xp = array_namespace(values, valid, neighbours)
    total = xp.zeros_like(values)
    count = xp.zeros_like(values)
    usable = masked(xp, valid, values)
    weight = xp.astype(valid, values.dtype)
    for n in range(neighbours.shape[1]):
        index = neighbours[:, n]
        exists = (index >= 0)[None, :]
        index = xp.where(index >= 0, index, 0)
        total = total + masked(xp, exists, xp.take(usable, index, axis=1))
        count = count + masked(xp, exists, xp.take(weight, index, axis=1))
    mean = total / xp.where(count > 0, count, xp.asarray(1.0, dtype=values.dtype))
    return xp.where(valid, values, mean)
