"""What the launches of the image loops share: preparation on the host, work space and result."""

from typing import NamedTuple

import numpy as np

from .._types import Array
from ..image_types import (
    COLUMNS,
    COUNT_COLUMNS,
    CalibrationArrays,
    CameraArrays,
    ImageSettings,
)
from .parameters import N_VALUES
from .settings import CandidateTables, LoopSettings, Scratch, loop_settings
from .signal import candidate_threshold

__all__ = [
    "LoopInputs",
    "columns_of",
    "loop_inputs",
    "make_outputs",
    "make_scratch",
    "scratch_bytes",
]

PADDING = 16  # images; columns a power of two apart would fall on each other in the cache


class LoopInputs(NamedTuple):
    """What all images of one camera share, in the form that compiled code takes."""

    camera: CameraArrays
    calibration: CalibrationArrays
    tables: CandidateTables
    settings: LoopSettings


def loop_inputs(
    camera: CameraArrays,
    calibration: CalibrationArrays,
    settings: ImageSettings,
    *,
    adc_dtype,
    dense: bool,
) -> LoopInputs:
    """Return the inputs of the loops, NumPy arrays on the host.

    Parameters
    ----------
    camera, calibration : NumPy arrays
    adc_dtype : unsigned integer type of the ADC counts; float32 where charges are given instead
    dense : charges, times and masks of all pixels are wanted

    Raises
    ------
    ValueError
        For an unknown extractor or cleaning method.
    """
    # A narrow table of neighbours stays in the innermost cache.
    index = np.int16 if len(camera.fov_lon) <= np.iinfo(np.int16).max else np.int32
    camera = CameraArrays(
        *(np.ascontiguousarray(a, dtype=np.float64) for a in camera[:4]),
        *(np.ascontiguousarray(a, dtype=np.bool_) for a in camera[4:6]),
        *(np.ascontiguousarray(a, dtype=index) for a in camera[6:]),
    )
    types = (np.float32, np.float32, np.float32, np.float32, np.bool_, np.float64)
    calibration = CalibrationArrays(
        *(np.ascontiguousarray(a, dtype=t) for a, t in zip(calibration, types, strict=True))
    )
    numeric = loop_settings(settings, dense=dense)
    tables = _candidate_tables(calibration, numeric, np.dtype(adc_dtype))
    return LoopInputs(camera, calibration, tables, numeric)


def _candidate_tables(calibration, settings, dtype):
    invalid = ~calibration.pixel_valid.all(axis=1)
    n_invalid = invalid.sum(axis=1).astype(np.int32)
    pixels = np.zeros((len(invalid), max(1, int(n_invalid.max(initial=0)))), dtype=np.int32)
    for row, mask in enumerate(invalid):
        pixels[row, : n_invalid[row]] = np.nonzero(mask)[0]
    if dtype.kind == "f":  # charges are compared as they are
        shape = (len(invalid), invalid.shape[1])
        threshold = np.full(shape, settings.lowest_pe, dtype=dtype)
        return CandidateTables(threshold, pixels, n_invalid)
    threshold = candidate_threshold(
        calibration.pedestal,
        calibration.dc_to_pe,
        calibration.pixel_valid,
        settings.lowest_pe,
        settings.gain_threshold_adc,
        dtype,
    )
    return CandidateTables(threshold, pixels, n_invalid)


def make_scratch(
    n_workers: int, n_pixels: int, n_samples: int, empty, zeros, *, interleaved: bool = False
) -> Scratch:
    """Return work space for `n_workers` images at a time.

    Parameters
    ----------
    n_samples : of the waveforms; 0 for cameras with one count per pixel
    empty, zeros : allocators (shape, dtype) of an array namespace
    interleaved : lists are laid out with the worker last: threads of a GPU that go through their
        lists together then touch neighbouring addresses
    """

    def array(shape, dtype):
        return empty((n_workers, *shape), dtype)

    def ordered(shape, dtype):
        if not interleaved:
            return array(shape, dtype)
        last = empty((*shape, n_workers), dtype)
        return last.transpose(len(shape), *range(len(shape)))

    pixel = (n_pixels,)
    return Scratch(
        charge=array(pixel, np.float32),
        peak_time=zeros((n_workers, n_pixels), np.float32),
        state=zeros((n_workers, n_pixels + 1), np.uint8),
        channel=array(pixel, np.uint8),
        waveform=array((n_pixels if n_samples else 1, max(n_samples, 1)), np.float32),
        samples=ordered((max(n_samples, 1),), np.float32),
        listed=ordered(pixel, np.int32),
        stack=ordered(pixel, np.int32),
        label=array(pixel, np.int32),
        island=ordered((n_pixels + 1, 2), np.float64),
        survivors=ordered(pixel, np.int32),
        values=ordered((N_VALUES, n_pixels), np.float64),
        row=ordered((len(COLUMNS),), np.float32),
    )


def scratch_bytes(n_pixels: int, n_samples: int) -> int:
    """Return the size of the work space of one worker, bytes."""
    arrays = make_scratch(1, n_pixels, n_samples, np.empty, np.empty)
    return sum(array.nbytes for array in arrays)


def make_outputs(n_images: int, n_pixels: int, dense: bool, empty):
    """Return uninitialised columns, see `columns_of`, charge, peak time and mask (image, pixel)."""
    shape = (n_images, n_pixels) if dense else (1, 0)
    return (
        empty((len(COLUMNS), n_images + PADDING), np.float32),
        empty(shape, np.float32),
        empty(shape, np.float32),
        empty(shape, np.bool_),
    )


def columns_of(matrix: Array, n_images: int) -> dict[str, Array]:
    """Return the columns of a matrix (column, image and padding) by name, counts as int32."""
    columns = dict(zip(COLUMNS, matrix[:, :n_images], strict=True))
    return {
        name: values.astype(np.int32) if name in COUNT_COLUMNS else values
        for name, values in columns.items()
    }
