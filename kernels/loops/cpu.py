"""CPU launch of the image loops: images shared out over threads."""

from typing import NamedTuple

import numba
import numpy as np

from ..image_chain import (
    COLUMNS,
    COUNT_COLUMNS,
    CalibrationArrays,
    CameraArrays,
    ImageResult,
    ImageSettings,
)
from ._compile import compiled
from .image import candidate_tables, process_sum_image, process_waveform_image
from .parameters import N_VALUES
from .settings import LoopSettings, Scratch, loop_settings

__all__ = ["ImageLoops", "columns_of", "make_scratch", "prepare"]


def make_scratch(n_workers: int, n_pixels: int, n_samples: int, empty=np.empty, zeros=np.zeros):
    """Return work space for `n_workers` images at a time, from the given allocators."""
    pixel = (n_workers, n_pixels)
    return Scratch(
        charge=zeros(pixel, dtype=np.float32),
        peak_time=zeros(pixel, dtype=np.float32),
        state=zeros(pixel, dtype=np.uint8),
        channel=zeros(pixel, dtype=np.uint8),
        waveform=empty((n_workers, n_pixels if n_samples else 1, max(n_samples, 1)), np.float32),
        samples=empty((n_workers, max(n_samples, 1)), dtype=np.float32),
        listed=empty(pixel, dtype=np.int32),
        stack=empty(pixel, dtype=np.int32),
        label=empty(pixel, dtype=np.int32),
        island=empty((n_workers, n_pixels + 1, 2), dtype=np.float64),
        survivors=empty(pixel, dtype=np.int32),
        values=empty((n_workers, N_VALUES, n_pixels), dtype=np.float64),
    )


@compiled(parallel=True)
def _run_sums(
    adc, calibration_index, is_shower, camera, calibration, tables, settings, scratch,
    rows, charge, peak_time, mask,
):  # fmt: skip
    n_workers = scratch.charge.shape[0]
    n_images = adc.shape[0]
    for worker in numba.prange(n_workers):
        for image in range(
            worker * n_images // n_workers, (worker + 1) * n_images // n_workers
        ):
            output = image if settings.dense else 0
            process_sum_image(
                adc[image], calibration_index[image], is_shower[image], camera, calibration,
                tables, settings, scratch, worker, rows[image], charge[output],
                peak_time[output], mask[output],
            )  # fmt: skip


@compiled(parallel=True)
def _run_waveforms(
    adc, calibration_index, is_shower, camera, calibration, tables, settings, scratch,
    rows, charge, peak_time, mask,
):  # fmt: skip
    n_workers = scratch.charge.shape[0]
    n_images = adc.shape[0]
    for worker in numba.prange(n_workers):
        for image in range(
            worker * n_images // n_workers, (worker + 1) * n_images // n_workers
        ):
            output = image if settings.dense else 0
            process_waveform_image(
                adc[image], calibration_index[image], is_shower[image], camera, calibration,
                tables, settings, scratch, worker, rows[image], charge[output],
                peak_time[output], mask[output],
            )  # fmt: skip


class ImageLoops(NamedTuple):
    """The chain of one camera, ready to run; made by `prepare`."""

    camera: CameraArrays
    calibration: CalibrationArrays
    tables: tuple
    settings: LoopSettings
    scratch: Scratch

    def __call__(self, adc, calibration_index, is_shower) -> ImageResult:
        """Return the parameters of a batch; arguments as in `image_chain`, NumPy arrays.

        Charges, times and masks are filled if the loops were prepared for it; `retry` is zero,
        because loops need no fixed number of slots.
        """
        n_images, n_pixels = adc.shape[0], adc.shape[2]
        dense = self.settings.dense
        shape = (n_images, n_pixels) if dense else (1, 0)
        rows = np.empty((n_images, len(COLUMNS)), dtype=np.float32)
        charge, peak_time = np.empty(shape, np.float32), np.empty(shape, np.float32)
        mask = np.empty(shape, dtype=np.bool_)
        run = _run_sums if adc.ndim == 3 else _run_waveforms
        run(
            adc, calibration_index, is_shower, self.camera, self.calibration, self.tables,
            self.settings, self.scratch, rows, charge, peak_time, mask,
        )  # fmt: skip
        retry = np.zeros(n_images, dtype=np.int32)
        return ImageResult(columns_of(rows), charge, peak_time, mask, retry)


def columns_of(rows) -> dict:
    """Return the columns of an output matrix (image, column), counts as int32."""
    columns = {name: rows[:, k] for k, name in enumerate(COLUMNS)}
    return {
        name: values.astype(np.int32 if name in COUNT_COLUMNS else np.float32)
        for name, values in columns.items()
    }


def prepare(
    camera: CameraArrays,
    calibration: CalibrationArrays,
    settings: ImageSettings,
    *,
    n_samples: int,
    adc_dtype,
    dense: bool,
    n_threads: int,
) -> ImageLoops:
    """Return the compiled chain of one camera.

    Parameters
    ----------
    camera, calibration : NumPy arrays
    n_samples : of the waveforms; 0 for cameras with one count per pixel
    adc_dtype : unsigned integer type of the ADC counts
    dense : also fill charges, times and masks
    n_threads : threads to share the images of a batch over
    """
    camera = CameraArrays(*(np.ascontiguousarray(a) for a in camera))._replace(
        neighbours=np.ascontiguousarray(camera.neighbours, dtype=np.int32),
        cleaning_neighbours=np.ascontiguousarray(camera.cleaning_neighbours, dtype=np.int32),
    )
    correction = np.asarray(calibration.charge_correction, dtype=np.float64)
    calibration = CalibrationArrays(
        *(np.ascontiguousarray(a, dtype=np.float32) for a in calibration[:4]),
        np.ascontiguousarray(calibration.pixel_valid, dtype=np.bool_),
        correction,
    )
    numeric = loop_settings(settings, dense=dense)
    n_threads = max(1, min(n_threads, numba.config.NUMBA_NUM_THREADS))
    numba.set_num_threads(n_threads)
    return ImageLoops(
        camera=camera,
        calibration=calibration,
        tables=candidate_tables(calibration, numeric, np.dtype(adc_dtype)),
        settings=numeric,
        scratch=make_scratch(n_threads, len(camera.fov_lon), n_samples),
    )
