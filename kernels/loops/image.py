"""Loop text of the chain: one telescope image from counts or charges to its row of parameters."""

import numpy as np

from ..image_types import (
    COLUMNS,
    FLAG_EMPTY,
    FLAG_NO_SHOWER,
    FLAG_SATURATED,
    FLAG_TOO_SMALL,
)
from ._compile import compiled
from .cleaning import MASK, clean, clear, keep_one_island, label_islands
from .parameters import N_SATURATED, write_missing, write_parameters
from .settings import Scratch
from .signal import charge_candidates, sum_candidates, waveform_candidates

__all__ = [
    "finish_sum_image",
    "process_charge_image",
    "process_sum_image",
    "process_waveform_image",
    "worker_scratch",
]

IMAGE_FLAGS = COLUMNS.index("image_flags")
UNKNOWN = -1  # number of saturated pixels, where only charges are known


@compiled(counted=True)
def worker_scratch(scratch, worker):
    """Return the work space of one worker."""
    return Scratch(
        scratch.charge[worker],
        scratch.peak_time[worker],
        scratch.state[worker],
        scratch.channel[worker],
        scratch.waveform[worker],
        scratch.samples[worker],
        scratch.listed[worker],
        scratch.stack[worker],
        scratch.label[worker],
        scratch.island[worker],
        scratch.survivors[worker],
        scratch.values[worker],
        scratch.row[worker],
    )


@compiled
def _finish(n_listed, table, is_shower, has_time, camera, calibration, settings, scratch):
    """Clean and parametrise an image whose candidates are listed; return the survivors."""
    charge, peak_time, state, row = scratch.charge, scratch.peak_time, scratch.state, scratch.row
    survivors, label, island = scratch.survivors, scratch.label, scratch.island
    neighbours = camera.cleaning_neighbours

    write_missing(row)
    n = 0
    flags = 0 if is_shower else FLAG_NO_SHOWER
    if is_shower:
        n_listed, n = clean(
            scratch.listed, n_listed, charge, peak_time, scratch.channel, table, calibration,
            neighbours, settings, state, scratch.stack, label, island, survivors,
        )  # fmt: skip
    n_islands = 0
    if n > 0:
        n_islands = label_islands(
            state, survivors, n, MASK, charge, neighbours, scratch.stack, label, island
        )
    if settings.largest_island_only and n_islands > 1:
        kept = 1
        for k in range(2, n_islands + 1):
            if island[k, 0] > island[kept, 0]:
                kept = k
        n = keep_one_island(survivors, n, label, kept, state)
        n_islands = label_islands(
            state, survivors, n, MASK, charge, neighbours, scratch.stack, label, island
        )
    total = 0.0
    for i in range(n):
        total += charge[survivors[i]]
    if n == 0:
        flags |= FLAG_EMPTY
    if n > 0 and n >= settings.min_pixels and total > 0:
        write_parameters(
            row, survivors, n, charge, peak_time, has_time, camera, settings, state, island,
            n_islands, scratch.values,
        )  # fmt: skip
    else:
        flags |= FLAG_TOO_SMALL
    if is_shower:
        clear(state, scratch.listed, n_listed)
    row[IMAGE_FLAGS] = flags
    return n


@compiled
def _write_output(image, n, n_saturated, settings, scratch, columns, charge, peak_time, mask):
    """Copy what is known of an image from the work space to the outputs."""
    row = scratch.row
    flags = int(row[IMAGE_FLAGS])
    if not flags & FLAG_TOO_SMALL:
        row[N_SATURATED] = n_saturated
        if n_saturated > 0:
            row[IMAGE_FLAGS] = flags | FLAG_SATURATED
    for k in range(row.shape[0]):
        columns[k, image] = row[k]
    if settings.dense:
        for pixel in range(mask.shape[1]):
            charge[image, pixel] = scratch.charge[pixel]
            peak_time[image, pixel] = scratch.peak_time[pixel]
            mask[image, pixel] = False
        for i in range(n):
            mask[image, scratch.survivors[i]] = True


@compiled
def process_sum_image(
    image, adc, table, is_shower, camera, calibration, tables, settings, scratch, columns, charge,
    peak_time, mask,
):  # fmt: skip
    """Write the parameters of an image with one ADC count per gain and pixel.

    Parameters
    ----------
    image : its place in the outputs
    adc : (gain, pixel)
    table : row of the calibration tables
    scratch : of this worker
    columns : (column, image), output
    charge, peak_time, mask : (image, pixel), outputs, filled only if ``settings.dense``
    """
    n_listed = sum_candidates(
        adc, table, tables, calibration, camera.neighbours, settings, scratch.charge,
        scratch.peak_time, scratch.channel, scratch.listed,
    )  # fmt: skip
    finish_sum_image(
        image, n_listed, adc, table, is_shower, camera, calibration, settings, scratch, columns,
        charge, peak_time, mask,
    )  # fmt: skip


@compiled
def finish_sum_image(
    image, n_listed, adc, table, is_shower, camera, calibration, settings, scratch, columns, charge,
    peak_time, mask,
):  # fmt: skip
    """As `process_sum_image`, when the candidates are listed and calibrated in `scratch`."""
    n = _finish(n_listed, table, is_shower, False, camera, calibration, settings, scratch)
    n_saturated = 0
    for i in range(n):
        pixel = scratch.survivors[i]
        if np.float32(adc[scratch.channel[pixel], pixel]) >= settings.saturation_adc:
            n_saturated += 1
    _write_output(image, n, n_saturated, settings, scratch, columns, charge, peak_time, mask)


@compiled
def process_waveform_image(
    image, adc, table, is_shower, camera, calibration, tables, settings, scratch, columns, charge,
    peak_time, mask,
):  # fmt: skip
    """Write the parameters of an image with waveforms, adc (gain, pixel, sample)."""
    n_listed = waveform_candidates(
        adc, table, tables, calibration, camera.neighbours, settings, scratch.charge,
        scratch.peak_time, scratch.channel, scratch.waveform, scratch.samples, scratch.listed,
    )  # fmt: skip
    n = _finish(n_listed, table, is_shower, True, camera, calibration, settings, scratch)
    n_saturated = 0
    for i in range(n):
        pixel = scratch.survivors[i]
        for s in range(adc.shape[2]):
            if np.float32(adc[scratch.channel[pixel], pixel, s]) >= settings.saturation_adc:
                n_saturated += 1
                break
    _write_output(image, n, n_saturated, settings, scratch, columns, charge, peak_time, mask)


@compiled
def process_charge_image(
    image, given, is_shower, camera, calibration, tables, settings, scratch, columns, charge,
    peak_time, mask,
):  # fmt: skip
    """Write the parameters of an image whose charges are known, given (part, pixel) float32.

    Part 0 are charges, part 1 peak times; without it the image has no times. `calibration` and
    `tables` have one row, which nothing but the type of the arguments needs.
    """
    n_listed = charge_candidates(
        given, tables.threshold[0], settings, scratch.charge, scratch.peak_time, scratch.channel,
        scratch.listed,
    )  # fmt: skip
    has_time = given.shape[0] > 1
    n = _finish(n_listed, 0, is_shower, has_time, camera, calibration, settings, scratch)
    _write_output(image, n, UNKNOWN, settings, scratch, columns, charge, peak_time, mask)
