"""CUDA launch of the image loops, on CuPy arrays where they are.

Two forms, with the same results:

* ``thread``: one thread reads and finishes an image. For waveforms, and where all charges are
  wanted.
* ``block``: the threads of a block read images together, word beside word, and finish one each
  (`cuda_kernels.run_sums_together`). A thread that reads an image alone moves through memory that
  no other thread is interested in, so that every load of a warp touches 32 lines; together they
  touch two. The low gain is read only where a pixel needs it: an ASTRI image costs 4736 bytes and
  the 228 bytes of its parameters, which at 4.3 TB/s (copy rate measured on an H200) bounds the
  chain at 8.7e8 images/s; one read of both gains would bound it at 4.5e8.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from ..image_types import (
    CalibrationArrays,
    CameraArrays,
    ImageResult,
    ImageSettings,
)
from .cuda_device import device_view, load_cupy, load_kernels, stream
from .launch import LoopInputs, columns_of, loop_inputs, make_outputs, make_scratch, scratch_bytes
from .settings import Scratch

__all__ = ["FORMS", "CudaImageLoops", "prepare"]

FORMS = ("thread", "block")
THREADS = {"thread": 64, "block": 32}
"""Threads of a block: few, because a thread that finishes an image needs many registers, and one
warp where its threads wait for each other."""
WORKERS_PER_PROCESSOR = 256
SCRATCH_SHARE = 0.25  # of the free memory at most


class CudaImageLoops(NamedTuple):
    """The chain of one camera, ready to run on a GPU; made by `prepare`."""

    inputs: LoopInputs
    scratch: Scratch
    xp: Any
    kernels: Any
    form: str  # of `FORMS`
    n_threads: int  # of a block
    limits: Any  # uint64 (calibration, word), thresholds in words; None in the thread form

    def __call__(self, adc, calibration_index, is_shower) -> ImageResult:
        """Return the parameters of a batch; arguments as in `image_chain`, of CuPy or NumPy.

        The kernel is queued on CuPy's current stream and not waited for. Charges, times and masks
        are filled if the loops were prepared for it; `retry` is zero, because loops need no fixed
        number of slots.
        """
        columns, charge, peak_time, mask = self.queue(adc, calibration_index, is_shower)
        n_images = adc.shape[0]
        retry = self.xp.zeros(n_images, dtype=self.xp.int32)
        return ImageResult(columns_of(columns, n_images), charge, peak_time, mask, retry)

    def queue(self, adc, calibration_index, is_shower) -> tuple[Any, Any, Any, Any]:
        """Queue a batch on CuPy's current stream; return what `launch.make_outputs` made."""
        xp = self.xp
        n_images, n_pixels = adc.shape[0], adc.shape[2]
        outputs = make_outputs(n_images, n_pixels, self.inputs.settings.dense, xp.empty)
        if n_images == 0:
            return outputs
        batch = [xp.ascontiguousarray(xp.asarray(a)) for a in (adc, calibration_index, is_shower)]
        shared_bytes = 0
        if self.form == "block":
            run = self.kernels.run_sums_together
            marks = -(-n_pixels // self.kernels.MARK_PIXELS)
            shared_bytes = 4 * marks * self.n_threads
            words = batch[0].view(np.uint64)
            batch = [words, self.limits, *batch]
        elif adc.dtype.kind == "f":
            run = self.kernels.run_charges
        else:
            run = self.kernels.run_sums if adc.ndim == 3 else self.kernels.run_waveforms
        n_workers = min(n_images, self.scratch.charge.shape[0])
        n_threads = self.n_threads if self.form == "block" else min(n_workers, self.n_threads)
        launch = (
            -(-n_workers // n_threads),
            n_threads,
            stream(self.kernels.cuda, xp),
            shared_bytes,
        )
        with warnings.catch_warnings():  # the last batch of a run may be small
            warnings.filterwarnings("ignore", message="Grid size .* under-utilization")
            configured = run[launch]
        views = [device_view(self.kernels.cuda, array) for array in (*batch, *outputs)]
        configured(*views[: len(batch)], *self.inputs, self.scratch, *views[len(batch) :])
        return outputs


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
    form: str | None = None,
    n_threads: int | None = None,
    n_workers: int | None = None,
    xp: Any = None,
) -> CudaImageLoops:
    """Return the compiled chain of one camera for the current CUDA device.

    Parameters
    ----------
    camera, calibration : NumPy arrays
    n_samples : of the waveforms; 0 for cameras with one count per pixel
    adc_dtype : unsigned integer type of the ADC counts; float32 where charges are given instead
    dense : also fill charges, times and masks
    form : of `FORMS`; None: block where it can be, that is for one 16-bit count per pixel, a
        number of pixels that four divide, and no charges of all pixels wanted (``dense``, or
        masks that grow by rows)
    n_threads : of a block; None: what suits the form
    n_workers : images worked on at a time; None: as many as suit the device and its free memory
    xp : array namespace of the device, CuPy if None; NumPy for numba-cuda's simulator

    Raises
    ------
    RuntimeError
        Without numba-cuda, CuPy or a GPU; one sentence that says what to do.
    ValueError
        For an unknown extractor, cleaning method or form, or a form that cannot be.
    """
    inputs = loop_inputs(camera, calibration, settings, adc_dtype=adc_dtype, dense=dense)
    kernels = load_kernels("cuda_kernels")
    xp = load_cupy() if xp is None else xp
    n_pixels = len(camera.fov_lon)
    together = (
        n_samples == 0
        and np.dtype(adc_dtype) == np.uint16
        and n_pixels % kernels.WORD_PIXELS == 0
        and not inputs.settings.dense
    )
    if form is None:
        form = "block" if together else "thread"
    if form not in FORMS:
        raise ValueError(f"form is {form!r}: expected one of {', '.join(FORMS)}")
    if form == "block" and not together:
        raise ValueError(
            "form is 'block': it needs one 16-bit count per gain and pixel, a number of pixels "
            f"that four divide (there are {n_pixels}), and no charges of all pixels wanted"
        )
    n_threads = n_threads or THREADS[form]
    if n_workers is None:
        n_workers = _number_of_workers(xp, n_pixels, n_samples)
    if form == "block":  # whole blocks
        n_workers = -(-n_workers // n_threads) * n_threads
    scratch = make_scratch(n_workers, n_pixels, n_samples, xp.empty, xp.zeros, interleaved=True)

    def on_device(arrays):
        return type(arrays)(*(device_view(kernels.cuda, xp.asarray(a)) for a in arrays))

    limits = None
    if form == "block":
        limits = device_view(kernels.cuda, xp.asarray(inputs.tables.threshold.view(np.uint64)))
    inputs = inputs._replace(
        camera=on_device(inputs.camera),
        calibration=on_device(inputs.calibration),
        tables=on_device(inputs.tables),
    )
    return CudaImageLoops(inputs, on_device(scratch), xp, kernels, form, n_threads, limits)
