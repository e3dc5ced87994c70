"""Loop text of the chain: one telescope image from ADC counts to its row of parameters."""

from typing import NamedTuple

import numpy as np

from .._types import Array
from ..image_chain import (
    COLUMNS,
    FLAG_EMPTY,
    FLAG_NO_SHOWER,
    FLAG_SATURATED,
    FLAG_TOO_SMALL,
)
from ._compile import compiled
from .cleaning import MASK, clean, clear, keep_one_island, label_islands
from .parameters import N_SATURATED, write_missing, write_parameters
from .signal import candidate_threshold, sum_candidates, waveform_candidates

__all__ = ["CandidateTables", "candidate_tables", "process_sum_image", "process_waveform_image"]

IMAGE_FLAGS = COLUMNS.index("image_flags")


class CandidateTables(NamedTuple):
    """What the loop text prepares once per calibration."""

    threshold: Array  # (calibration, pixel), ADC counts, see `signal.candidate_threshold`
    invalid_pixels: Array  # int32 (calibration, invalid pixel), padded
    n_invalid: Array  # int32 (calibration,)


def candidate_tables(calibration, settings, dtype) -> CandidateTables:
    """Return the tables for a `CalibrationArrays` of NumPy arrays, on the host."""
    invalid = ~calibration.pixel_valid.all(axis=1)
    n_invalid = invalid.sum(axis=1).astype(np.int32)
    pixels = np.zeros((len(invalid), max(1, int(n_invalid.max(initial=0)))), dtype=np.int32)
    for row, mask in enumerate(invalid):
        pixels[row, : n_invalid[row]] = np.nonzero(mask)[0]
    threshold = candidate_threshold(
        calibration.pedestal,
        calibration.dc_to_pe,
        calibration.pixel_valid,
        settings.lowest_pe,
        settings.gain_threshold_adc,
        dtype,
    )
    return CandidateTables(threshold, pixels, n_invalid)


@compiled
def _finish(
    row, n_listed, table, is_shower, has_time, camera, calibration, settings, scratch, worker, mask
):
    """Clean and parametrise an image whose candidates are listed; return the survivors."""
    charge, peak_time = scratch.charge[worker], scratch.peak_time[worker]
    state, listed = scratch.state[worker], scratch.listed[worker]
    survivors, label = scratch.survivors[worker], scratch.label[worker]
    island, stack = scratch.island[worker], scratch.stack[worker]
    neighbours = camera.cleaning_neighbours

    write_missing(row)
    n = 0
    flags = 0 if is_shower else FLAG_NO_SHOWER
    if is_shower:
        n_listed, n = clean(
            listed, n_listed, charge, peak_time, scratch.channel[worker], table, calibration,
            neighbours, settings, state, stack, label, island, survivors,
        )  # fmt: skip
    n_islands = 0
    if n > 0:
        n_islands = label_islands(
            state, survivors, n, MASK, charge, neighbours, stack, label, island
        )
    if settings.largest_island_only and n_islands > 1:
        kept = 1
        for k in range(2, n_islands + 1):
            if island[k, 0] > island[kept, 0]:
                kept = k
        n = keep_one_island(survivors, n, label, kept, state)
        n_islands = label_islands(
            state, survivors, n, MASK, charge, neighbours, stack, label, island
        )
    total = 0.0
    for i in range(n):
        total += charge[survivors[i]]
    if n == 0:
        flags |= FLAG_EMPTY
    if n > 0 and n >= settings.min_pixels and total > 0:
        write_parameters(
            row, survivors, n, charge, peak_time, has_time, camera, settings, state, island,
            n_islands, scratch.values[worker],
        )  # fmt: skip
    else:
        flags |= FLAG_TOO_SMALL
    if settings.dense:
        for pixel in range(mask.shape[0]):
            mask[pixel] = False
        for i in range(n):
            mask[survivors[i]] = True
    if is_shower:
        clear(state, listed, n_listed)
    row[IMAGE_FLAGS] = flags
    return n


@compiled
def _finish_saturated(row, n_saturated):
    """Write the number of saturated pixels and its flag, for an image with parameters."""
    flags = int(row[IMAGE_FLAGS])
    if not flags & FLAG_TOO_SMALL:
        row[N_SATURATED] = n_saturated
        if n_saturated > 0:
            row[IMAGE_FLAGS] = flags | FLAG_SATURATED


@compiled
def process_sum_image(
    adc, table, is_shower, camera, calibration, tables, settings, scratch, worker, row, charge,
    peak_time, mask,
):  # fmt: skip
    """Write the parameters of an image with one ADC count per gain and pixel.

    Parameters
    ----------
    adc : (gain, pixel)
    table : row of the calibration tables
    row : (column,), output
    charge, peak_time, mask : (pixel,), outputs, filled only if ``settings.dense``
    """
    n_listed = sum_candidates(
        adc, table, tables.threshold[table], tables.invalid_pixels[table],
        tables.n_invalid[table], calibration, camera.neighbours, settings,
        scratch.charge[worker], scratch.peak_time[worker], scratch.channel[worker],
        scratch.listed[worker],
    )  # fmt: skip
    n = _finish(
        row, n_listed, table, is_shower, False, camera, calibration, settings, scratch, worker, mask
    )
    n_saturated = 0
    for i in range(n):
        pixel = scratch.survivors[worker, i]
        if adc[scratch.channel[worker, pixel], pixel] >= settings.saturation_adc:
            n_saturated += 1
    _finish_saturated(row, n_saturated)
    if settings.dense and charge.shape[0] > 0:
        for pixel in range(charge.shape[0]):
            charge[pixel] = scratch.charge[worker, pixel]
            peak_time[pixel] = scratch.peak_time[worker, pixel]


@compiled
def process_waveform_image(
    adc, table, is_shower, camera, calibration, tables, settings, scratch, worker, row, charge,
    peak_time, mask,
):  # fmt: skip
    """Write the parameters of an image with waveforms, adc (gain, pixel, sample)."""
    n_listed = waveform_candidates(
        adc, table, tables.invalid_pixels[table], tables.n_invalid[table], calibration,
        camera.neighbours, settings, scratch.charge[worker], scratch.peak_time[worker],
        scratch.channel[worker], scratch.waveform[worker], scratch.samples[worker],
        scratch.listed[worker],
    )  # fmt: skip
    n = _finish(
        row, n_listed, table, is_shower, True, camera, calibration, settings, scratch, worker, mask
    )
    n_saturated = 0
    for i in range(n):
        pixel = scratch.survivors[worker, i]
        for s in range(adc.shape[2]):
            if adc[scratch.channel[worker, pixel], pixel, s] >= settings.saturation_adc:
                n_saturated += 1
                break
    _finish_saturated(row, n_saturated)
    if settings.dense and charge.shape[0] > 0:
        for pixel in range(charge.shape[0]):
            charge[pixel] = scratch.charge[worker, pixel]
            peak_time[pixel] = scratch.peak_time[worker, pixel]
