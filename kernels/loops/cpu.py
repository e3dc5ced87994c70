"""CPU launch of the image loops: images shared out over threads."""

from typing import NamedTuple

import numba
import numpy as np

from ..image_types import (
    CalibrationArrays,
    CameraArrays,
    ImageResult,
    ImageSettings,
)
from ._compile import compiled
from .image import (
    process_charge_image,
    process_sum_image,
    process_waveform_image,
    worker_scratch,
)
from .launch import LoopInputs, columns_of, loop_inputs, make_outputs, make_scratch
from .settings import Scratch

__all__ = ["ImageLoops", "prepare"]


@compiled(parallel=True, counted=True)
def _run_sums(
    adc, calibration_index, is_shower, camera, calibration, tables, settings, scratch, columns,
    charge, peak_time, mask,
):  # fmt: skip
    n_workers = scratch.charge.shape[0]
    n_images = adc.shape[0]
    for worker in numba.prange(n_workers):
        own = worker_scratch(scratch, worker)
        for image in range(worker * n_images // n_workers, (worker + 1) * n_images // n_workers):
            process_sum_image(
                image, adc[image], calibration_index[image], is_shower[image], camera, calibration,
                tables, settings, own, columns, charge, peak_time, mask,
            )  # fmt: skip


@compiled(parallel=True, counted=True)
def _run_waveforms(
    adc, calibration_index, is_shower, camera, calibration, tables, settings, scratch, columns,
    charge, peak_time, mask,
):  # fmt: skip
    n_workers = scratch.charge.shape[0]
    n_images = adc.shape[0]
    for worker in numba.prange(n_workers):
        own = worker_scratch(scratch, worker)
        for image in range(worker * n_images // n_workers, (worker + 1) * n_images // n_workers):
            process_waveform_image(
                image, adc[image], calibration_index[image], is_shower[image], camera, calibration,
                tables, settings, own, columns, charge, peak_time, mask,
            )  # fmt: skip


@compiled(parallel=True, counted=True)
def _run_charges(
    given, calibration_index, is_shower, camera, calibration, tables, settings, scratch, columns,
    charge, peak_time, mask,
):  # fmt: skip
    n_workers = scratch.charge.shape[0]
    n_images = given.shape[0]
    for worker in numba.prange(n_workers):
        own = worker_scratch(scratch, worker)
        for image in range(worker * n_images // n_workers, (worker + 1) * n_images // n_workers):
            process_charge_image(
                image, given[image], is_shower[image], camera, calibration, tables, settings, own,
                columns, charge, peak_time, mask,
            )  # fmt: skip


class ImageLoops(NamedTuple):
    """The chain of one camera, ready to run on the CPU; made by `prepare`."""

    inputs: LoopInputs
    scratch: Scratch

    def __call__(self, adc, calibration_index, is_shower) -> ImageResult:
        """Return the parameters of a batch; arguments as in `image_chain`, NumPy arrays.

        Charges, times and masks are filled if the loops were prepared for it; `retry` is zero,
        because loops need no fixed number of slots.
        """
        n_images, n_pixels = adc.shape[0], adc.shape[2]
        outputs = make_outputs(n_images, n_pixels, self.inputs.settings.dense, np.empty)
        if adc.dtype.kind == "f":
            run = _run_charges
        else:
            run = _run_sums if adc.ndim == 3 else _run_waveforms
        # Numba keeps one number for all: it is set where it is used.
        numba.set_num_threads(len(self.scratch.charge))
        run(adc, calibration_index, is_shower, *self.inputs, self.scratch, *outputs)
        columns, charge, peak_time, mask = outputs
        retry = np.zeros(n_images, dtype=np.int32)
        return ImageResult(columns_of(columns, n_images), charge, peak_time, mask, retry)


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
    adc_dtype : unsigned integer type of the ADC counts; float32 where charges are given instead
    dense : also fill charges, times and masks
    n_threads : threads to share the images of a batch over

    Raises
    ------
    ValueError
        For an unknown extractor or cleaning method.
    """
    inputs = loop_inputs(camera, calibration, settings, adc_dtype=adc_dtype, dense=dense)
    limit: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    n_threads = max(1, min(n_threads, limit))
    scratch = make_scratch(n_threads, len(camera.fov_lon), n_samples, np.empty, np.zeros)
    return ImageLoops(inputs, scratch)
