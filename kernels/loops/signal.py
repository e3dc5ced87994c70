"""Loop text of the calibration: which pixels of an image are worth a closer look, and their charge.

Of an image without waveforms only the pixels that can pass the lowest cleaning threshold are
calibrated: the threshold is turned into ADC counts once per calibration (`candidate_threshold`), so
that the rest of the image is compared in blocks and never leaves its 16-bit form.
"""

import math

import numpy as np

from ._compile import compiled

__all__ = [
    "calibrate_candidates",
    "candidate_threshold",
    "charge_candidates",
    "sum_candidates",
    "waveform_candidates",
]

BLOCK = 64  # pixels compared at once; the size of an ASTRI module
ROUNDING = 1e-6  # relative; more than float32 arithmetic can be off
FULL_SUM, FIXED_WINDOW, GLOBAL_PEAK, LOCAL_PEAK, NEIGHBOUR_PEAK = range(5)


def candidate_threshold(pedestal, dc_to_pe, pixel_valid, lowest_pe, gain_threshold_adc, dtype):
    """Return the high-gain ADC count from which a pixel may reach `lowest_pe`, on the host.

    Parameters
    ----------
    pedestal, dc_to_pe, pixel_valid : (calibration, gain, pixel) NumPy arrays
    lowest_pe, gain_threshold_adc : p.e., ADC counts
    dtype : unsigned integer type of the ADC counts

    Returns
    -------
    (calibration, pixel) array of `dtype`; a little low, because the exact comparison follows.
    """
    top = np.iinfo(dtype).max
    factor = dc_to_pe[:, 0].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        threshold = pedestal[:, 0] + lowest_pe / factor
        threshold = np.floor(threshold - ROUNDING * np.abs(threshold)) - 1
    threshold = np.where((factor > 0) & ~np.isnan(threshold), threshold, 0)
    if pedestal.shape[1] > 1:
        threshold = np.minimum(threshold, np.floor(gain_threshold_adc))
    # Pixels to be interpolated are looked at on their own.
    threshold = np.where(pixel_valid.any(axis=1), threshold, top)
    return np.clip(threshold, 0, top).astype(dtype)


@compiled
def _sum_charge(adc, pixel, table, calibration, settings, channel):
    """Return the charge of one pixel, and note its gain channel."""
    gain = 0
    if adc.shape[0] > 1 and np.float32(adc[0, pixel]) > settings.gain_threshold_adc:
        gain = 1
    channel[pixel] = gain
    offset = calibration.pedestal[table, gain, pixel]
    return (np.float32(adc[gain, pixel]) - offset) * calibration.dc_to_pe[table, gain, pixel]


@compiled
def _interpolate(charge, peak_time, pixel, table, calibration, neighbours, channel):
    """Replace a pixel, if invalid, by the mean of its valid neighbours, which are calibrated."""
    if calibration.pixel_valid[table, channel[pixel], pixel]:
        return  # invalid in the other gain only
    total_charge, total_time, n = np.float32(0), np.float32(0), 0
    for k in range(neighbours.shape[1]):
        other = neighbours[pixel, k]
        if other >= 0 and calibration.pixel_valid[table, channel[other], other]:
            total_charge += charge[other]
            total_time += peak_time[other]
            n += 1
    charge[pixel] = total_charge / np.float32(n) if n > 0 else np.float32(0)
    peak_time[pixel] = total_time / np.float32(n) if n > 0 else np.float32(0)


@compiled
def _list_above(counts, threshold, listed):
    """List the pixels whose count reaches the threshold, ascending; return how many."""
    n_pixels, n = counts.shape[0], 0
    n_in_blocks = n_pixels - n_pixels % BLOCK
    for start in range(0, n_in_blocks, BLOCK):
        # Slices of a fixed length: their comparison becomes a few vector instructions.
        block, limit = counts[start : start + BLOCK], threshold[start : start + BLOCK]
        above = np.uint16(0)
        for k in range(BLOCK):
            above |= np.uint16(block[k] >= limit[k])
        if above:
            for k in range(BLOCK):  # without a branch: a pixel below is written over by the next
                listed[n] = start + k
                n += block[k] >= limit[k]
    for pixel in range(n_in_blocks, n_pixels):
        listed[n] = pixel
        n += counts[pixel] >= threshold[pixel]
    return n


@compiled
def sum_candidates(
    adc, table, tables, calibration, neighbours, settings, charge, peak_time, channel, listed
):
    """List the pixels of one image that may survive, with their charge; return how many.

    Parameters
    ----------
    adc : (gain, pixel)
    table : row of the calibration tables
    tables : `settings.CandidateTables`
    charge, peak_time, channel, listed : work space, filled for the listed pixels, or for all of
        them if ``settings.dense``; the peak time is and stays zero
    """
    if not settings.dense:
        n_above = _list_above(adc[0], tables.threshold[table], listed)
        return calibrate_candidates(
            n_above, adc, table, tables, calibration, neighbours, settings, charge, peak_time,
            channel, listed,
        )  # fmt: skip

    n_invalid = tables.n_invalid[table]
    for pixel in range(adc.shape[1]):
        charge[pixel] = _sum_charge(adc, pixel, table, calibration, settings, channel)
    if settings.interpolate_invalid:
        for i in range(n_invalid):
            _interpolate(
                charge, peak_time, tables.invalid_pixels[table, i], table, calibration, neighbours,
                channel,
            )  # fmt: skip
    return _list_candidates(charge, settings, listed)


@compiled
def calibrate_candidates(
    n_above, adc, table, tables, calibration, neighbours, settings, charge, peak_time, channel,
    listed,
):  # fmt: skip
    """Keep those of the listed pixels that may survive, with their charge; return how many.

    Parameters
    ----------
    n_above : number of pixels in `listed`, ascending: all that reach ``tables.threshold``
    others : as in `sum_candidates`
    """
    n_listed = 0
    for i in range(n_above):
        pixel = listed[i]
        charge[pixel] = _sum_charge(adc, pixel, table, calibration, settings, channel)
        listed[n_listed] = pixel
        n_listed += charge[pixel] >= settings.lowest_pe
    for i in range(tables.n_invalid[table]):
        n_listed = _add_invalid(
            adc, tables.invalid_pixels[table, i], table, calibration, neighbours, settings,
            charge, peak_time, channel, listed, n_listed,
        )  # fmt: skip
    return n_listed


@compiled
def _list_candidates(charge, settings, listed):
    """List all pixels with enough charge; return how many."""
    n = 0
    for pixel in range(charge.shape[0]):
        listed[n] = pixel
        n += charge[pixel] >= settings.lowest_pe
    return n


@compiled
def _add_invalid(
    adc, pixel, table, calibration, neighbours, settings, charge, peak_time, channel, listed,
    n_listed,
):  # fmt: skip
    """Interpolate an invalid pixel, insert it in its place or remove it; return the new number."""
    charge[pixel] = _sum_charge(adc, pixel, table, calibration, settings, channel)
    if calibration.pixel_valid[table, channel[pixel], pixel]:
        return n_listed  # invalid in the other gain only
    if settings.interpolate_invalid:
        for k in range(neighbours.shape[1]):
            other = neighbours[pixel, k]
            if other >= 0:
                value = _sum_charge(adc, other, table, calibration, settings, channel)
                if calibration.pixel_valid[table, channel[other], other]:
                    charge[other] = value
        _interpolate(charge, peak_time, pixel, table, calibration, neighbours, channel)
    position = 0
    while position < n_listed and listed[position] < pixel:
        position += 1
    present = position < n_listed and listed[position] == pixel
    wanted = charge[pixel] >= settings.lowest_pe
    if wanted and not present:
        for j in range(n_listed, position, -1):
            listed[j] = listed[j - 1]
        listed[position] = pixel
        n_listed += 1
    elif present and not wanted:
        for j in range(position, n_listed - 1):
            listed[j] = listed[j + 1]
        n_listed -= 1
    return n_listed


@compiled
def charge_candidates(given, threshold, settings, charge, peak_time, channel, listed):
    """List the pixels of one image that may survive, where charges are given; return how many.

    Parameters
    ----------
    given : (part, pixel) float32, charges and, where the camera has samples, peak times
    threshold : (pixel,) float32, the lowest threshold of the cleaning for every pixel
    charge, peak_time, channel, listed : work space, filled for the listed pixels, or for all of
        them if ``settings.dense``
    """
    n_listed = _list_above(given[0], threshold, listed)
    for i in range(n_listed):
        pixel = listed[i]
        charge[pixel] = given[0, pixel]
        channel[pixel] = 0
        if given.shape[0] > 1:
            peak_time[pixel] = given[1, pixel]
    if settings.dense:
        for pixel in range(given.shape[1]):
            charge[pixel] = given[0, pixel]
            channel[pixel] = 0
            if given.shape[0] > 1:
                peak_time[pixel] = given[1, pixel]
    return n_listed


@compiled
def _argmax(values):
    """Return the index of the highest value, the first of equals.

    Each comparison waits for the one before: four quarters at a time keep the processor busy.
    """
    quarter = values.shape[0] // 4
    i_0, i_1, i_2, i_3 = 0, quarter, 2 * quarter, 3 * quarter
    best_0, best_1, best_2, best_3 = i_0, i_1, i_2, i_3
    top_0, top_1, top_2, top_3 = values[i_0], values[i_1], values[i_2], values[i_3]
    for i in range(1, quarter):
        if values[i] > top_0:
            best_0, top_0 = i, values[i]
        if values[i_1 + i] > top_1:
            best_1, top_1 = i_1 + i, values[i_1 + i]
        if values[i_2 + i] > top_2:
            best_2, top_2 = i_2 + i, values[i_2 + i]
        if values[i_3 + i] > top_3:
            best_3, top_3 = i_3 + i, values[i_3 + i]
    if top_1 > top_0:
        best_0, top_0 = best_1, top_1
    if top_2 > top_0:
        best_0, top_0 = best_2, top_2
    if top_3 > top_0:
        best_0, top_0 = best_3, top_3
    for i in range(4 * quarter, values.shape[0]):
        if values[i] > top_0:
            best_0, top_0 = i, values[i]
    return best_0


@compiled
def _neighbour_peak(waveform, pixel, table, calibration, neighbours, settings, channel, samples):
    for s in range(samples.shape[0]):
        samples[s] = waveform[pixel, s] * settings.local_weight
    for k in range(neighbours.shape[1]):
        other = neighbours[pixel, k]
        if other >= 0 and calibration.pixel_valid[table, channel[other], other]:
            for s in range(samples.shape[0]):
                samples[s] += waveform[other, s]
    return _argmax(samples)


@compiled
def _global_peak(waveform, table, calibration, channel):
    best, highest = 0, -math.inf
    for s in range(waveform.shape[1]):
        total = 0.0
        for pixel in range(waveform.shape[0]):
            if calibration.pixel_valid[table, channel[pixel], pixel]:
                total += waveform[pixel, s]
        if total > highest:
            best, highest = s, total
    return best


@compiled
def waveform_candidates(
    adc, table, tables, calibration, neighbours, settings, charge, peak_time, channel, waveform,
    samples, listed,
):  # fmt: skip
    """List the pixels of one image that may survive; fill charge and peak time of all pixels.

    Parameters
    ----------
    adc : (gain, pixel, sample)
    waveform, samples : work space (pixel, sample), (sample,)
    others : as in `sum_candidates`
    """
    n_gains, n_pixels, n_samples = adc.shape
    for pixel in range(n_pixels):
        gain = 0
        if n_gains > 1:
            for s in range(n_samples):
                if np.float32(adc[0, pixel, s]) > settings.gain_threshold_adc:
                    gain = 1
        channel[pixel] = gain
        offset = calibration.pedestal[table, gain, pixel]
        factor = calibration.dc_to_pe[table, gain, pixel]
        for s in range(n_samples):
            waveform[pixel, s] = (np.float32(adc[gain, pixel, s]) - offset) * factor

    global_peak = 0
    if settings.extractor == GLOBAL_PEAK:
        global_peak = _global_peak(waveform, table, calibration, channel)
    for pixel in range(n_pixels):
        start, width = 0, settings.window_width
        peak = 0
        if settings.extractor == FULL_SUM:
            width = n_samples
        else:
            if settings.extractor == FIXED_WINDOW:
                peak = settings.peak_index
            elif settings.extractor == GLOBAL_PEAK:
                peak = global_peak
            elif settings.extractor == LOCAL_PEAK:
                peak = _argmax(waveform[pixel])
            else:
                peak = _neighbour_peak(
                    waveform, pixel, table, calibration, neighbours, settings, channel, samples
                )
            start = peak - settings.window_shift
        total, weight, moment = 0.0, 0.0, 0.0
        for s in range(max(0, start), min(start + width, n_samples)):
            value = float(waveform[pixel, s])
            total += value
            if value > 0:
                weight += value
                moment += value * s
        time = moment / weight if weight > 0 else float(peak)
        gain = channel[pixel]
        charge[pixel] = np.float32(total) * calibration.charge_correction[gain]
        peak_time[pixel] = (
            np.float32(time / settings.sampling_rate_ghz)
            - calibration.time_shift[table, gain, pixel]
        )
    if settings.interpolate_invalid:
        for i in range(tables.n_invalid[table]):
            _interpolate(
                charge, peak_time, tables.invalid_pixels[table, i], table, calibration, neighbours,
                channel,
            )  # fmt: skip
    return _list_candidates(charge, settings, listed)
