"""The kernels of the CUDA launch; importing this module needs numba-cuda or its simulator."""

from numba import cuda

from .image import process_sum_image, process_waveform_image, worker_scratch

__all__ = ["cuda", "run_sums", "run_waveforms"]


@cuda.jit
def run_sums(
    adc, calibration_index, is_shower, camera, calibration, tables, settings, scratch, columns,
    charge, peak_time, mask,
):  # fmt: skip
    """Write the outputs of images with one count per gain and pixel, one thread an image."""
    worker: int = cuda.grid(1)  # type: ignore[call-arg]
    n_workers = scratch.charge.shape[0]
    if worker < n_workers:
        own = worker_scratch(scratch, worker)
        for image in range(worker, adc.shape[0], n_workers):
            process_sum_image(
                image, adc[image], calibration_index[image], is_shower[image], camera, calibration,
                tables, settings, own, columns, charge, peak_time, mask,
            )  # fmt: skip


@cuda.jit
def run_waveforms(
    adc, calibration_index, is_shower, camera, calibration, tables, settings, scratch, columns,
    charge, peak_time, mask,
):  # fmt: skip
    """Write the outputs of images with waveforms, one thread an image."""
    worker: int = cuda.grid(1)  # type: ignore[call-arg]
    n_workers = scratch.charge.shape[0]
    if worker < n_workers:
        own = worker_scratch(scratch, worker)
        for image in range(worker, adc.shape[0], n_workers):
            process_waveform_image(
                image, adc[image], calibration_index[image], is_shower[image], camera, calibration,
                tables, settings, own, columns, charge, peak_time, mask,
            )  # fmt: skip
