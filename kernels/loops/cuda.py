"""CUDA launch of the image loops: one thread an image, on CuPy arrays where they are."""

import warnings
from typing import Any, NamedTuple

from ..image_types import (
    CalibrationArrays,
    CameraArrays,
    ImageResult,
    ImageSettings,
)
from .cuda_device import device_view, load_cupy, load_kernels, stream
from .launch import LoopInputs, columns_of, loop_inputs, make_outputs, make_scratch, scratch_bytes
from .settings import Scratch

__all__ = ["CudaImageLoops", "prepare"]

BLOCK = 64  # threads; small, because a thread that loops over an image needs many registers
WORKERS_PER_PROCESSOR = 256
SCRATCH_SHARE = 0.25  # of the free memory at most


class CudaImageLoops(NamedTuple):
    """The chain of one camera, ready to run on a GPU; made by `prepare`."""

    inputs: LoopInputs
    scratch: Scratch
    xp: Any
    kernels: Any

    def __call__(self, adc, calibration_index, is_shower) -> ImageResult:
        """Return the parameters of a batch; arguments as in `image_chain`, of CuPy or NumPy.

        The kernel is queued on CuPy's current stream and not waited for. Charges, times and masks
        are filled if the loops were prepared for it; `retry` is zero, because loops need no fixed
        number of slots.
        """
        xp = self.xp
        n_images, n_pixels = adc.shape[0], adc.shape[2]
        outputs = make_outputs(n_images, n_pixels, self.inputs.settings.dense, xp.empty)
        n_workers = min(n_images, self.scratch.charge.shape[0])
        if n_images > 0:
            run = self.kernels.run_sums if adc.ndim == 3 else self.kernels.run_waveforms
            batch = [
                device_view(self.kernels.cuda, xp.asarray(array))
                for array in (adc, calibration_index, is_shower)
            ]
            results = [device_view(self.kernels.cuda, array) for array in outputs]
            launch = -(-n_workers // BLOCK), min(n_workers, BLOCK), stream(self.kernels.cuda, xp)
            with warnings.catch_warnings():  # the last batch of a run may be small
                warnings.filterwarnings("ignore", message="Grid size .* under-utilization")
                configured = run[launch]
            configured(*batch, *self.inputs, self.scratch, *results)
        columns, charge, peak_time, mask = outputs
        retry = xp.zeros(n_images, dtype=xp.int32)
        return ImageResult(columns_of(columns, n_images), charge, peak_time, mask, retry)


def _number_of_workers(xp, n_pixels: int, n_samples: int) -> int:
    """Return how many images this device works on at a time."""
    device = xp.cuda.Device()
    wanted = device.attributes["MultiProcessorCount"] * WORKERS_PER_PROCESSOR
    free = xp.cuda.runtime.memGetInfo()[0] * SCRATCH_SHARE
    return max(1, min(wanted, int(free / scratch_bytes(n_pixels, n_samples))))


def prepare(
    camera: CameraArrays,
    calibration: CalibrationArrays,
    settings: ImageSettings,
    *,
    n_samples: int,
    adc_dtype,
    dense: bool,
    n_workers: int | None = None,
    xp: Any = None,
) -> CudaImageLoops:
    """Return the compiled chain of one camera for the current CUDA device.

    Parameters
    ----------
    camera, calibration : NumPy arrays
    n_samples : of the waveforms; 0 for cameras with one count per pixel
    adc_dtype : unsigned integer type of the ADC counts
    dense : also fill charges, times and masks
    n_workers : images worked on at a time; None: as many as suit the device and its free memory
    xp : array namespace of the device, CuPy if None; NumPy for numba-cuda's simulator

    Raises
    ------
    RuntimeError
        Without numba-cuda, CuPy or a GPU; one sentence that says what to do.
    ValueError
        For an unknown extractor or cleaning method.
    """
    inputs = loop_inputs(camera, calibration, settings, adc_dtype=adc_dtype, dense=dense)
    kernels = load_kernels("cuda_kernels")
    xp = load_cupy() if xp is None else xp
    n_pixels = len(camera.fov_lon)
    if n_workers is None:
        n_workers = _number_of_workers(xp, n_pixels, n_samples)
    scratch = make_scratch(n_workers, n_pixels, n_samples, xp.empty, xp.zeros, interleaved=True)

    def on_device(arrays):
        return type(arrays)(*(device_view(kernels.cuda, xp.asarray(a)) for a in arrays))

    inputs = inputs._replace(
        camera=on_device(inputs.camera),
        calibration=on_device(inputs.calibration),
        tables=on_device(inputs.tables),
    )
    return CudaImageLoops(inputs, on_device(scratch), xp, kernels)
