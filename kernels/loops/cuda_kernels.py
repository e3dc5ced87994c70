"""The kernels of the CUDA launch; importing this module needs numba-cuda or its simulator."""

from typing import Any

import numpy as np
from numba import cuda as numba_cuda
from numba import uint32

from ._compile import compiled
from .image import (
    finish_sum_image,
    process_charge_image,
    process_sum_image,
    process_waveform_image,
    worker_scratch,
)
from .signal import calibrate_candidates

__all__ = [
    "MARK_PIXELS",
    "WORD_PIXELS",
    "cuda",
    "run_charges",
    "run_sums",
    "run_sums_together",
    "run_waveforms",
]

cuda: Any = numba_cuda  # its annotations are those of functions that compile kernels
WORD_PIXELS = 4  # counts of 16 bits that are read and compared as one word of 64
MARK_PIXELS = 32  # pixels that share a word of marks
MARK_WORDS = MARK_PIXELS // WORD_PIXELS
HIGH, LOW = np.uint64(0x8000_8000_8000_8000), np.uint64(0x7FFF_7FFF_7FFF_7FFF)
FIRST, SECOND, THIRD, NIBBLE = np.uint64(15), np.uint64(30), np.uint64(45), np.uint64(15)


@cuda.jit
def run_sums(
    adc, calibration_index, is_shower, camera, calibration, tables, settings, scratch, columns,
    charge, peak_time, mask,
):  # fmt: skip
    """Write the outputs of images with one count per gain and pixel, one thread an image."""
    worker = cuda.grid(1)
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
    worker = cuda.grid(1)
    n_workers = scratch.charge.shape[0]
    if worker < n_workers:
        own = worker_scratch(scratch, worker)
        for image in range(worker, adc.shape[0], n_workers):
            process_waveform_image(
                image, adc[image], calibration_index[image], is_shower[image], camera, calibration,
                tables, settings, own, columns, charge, peak_time, mask,
            )  # fmt: skip


@cuda.jit
def run_charges(
    given, calibration_index, is_shower, camera, calibration, tables, settings, scratch, columns,
    charge, peak_time, mask,
):  # fmt: skip
    """Write the outputs of images whose charges are known, one thread an image."""
    worker = cuda.grid(1)
    n_workers = scratch.charge.shape[0]
    if worker < n_workers:
        own = worker_scratch(scratch, worker)
        for image in range(worker, given.shape[0], n_workers):
            process_charge_image(
                image, given[image], is_shower[image], camera, calibration, tables, settings, own,
                columns, charge, peak_time, mask,
            )  # fmt: skip


@compiled
def _reaching(counts, limits):
    """Return the highest bit of each of four 16-bit counts where it reaches its limit."""
    # With its highest bit set, no count borrows from the one beside it.
    difference = (counts | HIGH) - (limits & LOW)
    return ((counts & ~limits) | (~(counts ^ limits) & difference)) & HIGH


@compiled
def _mark(reaching, word, slot, marks):
    """Add the marks of the pixels of a word to those of the image of a thread."""
    if reaching:
        low = reaching >> FIRST
        bits = (low | (low >> FIRST) | (low >> SECOND) | (low >> THIRD)) & NIBBLE
        place = word // MARK_WORDS * cuda.blockDim.x + slot
        shifted = np.int64(bits) << np.int64(WORD_PIXELS * (word % MARK_WORDS))
        cuda.atomic.or_(marks, place, np.uint32(shifted))


@compiled
def _mark_image(counts, limits, slot, marks):
    """Mark the pixels of one image that reach their limits, by all threads of a block."""
    n_threads, last = cuda.blockDim.x, counts.shape[0] - 1
    for first in range(cuda.threadIdx.x, last + 1, 4 * n_threads):
        # Eight loads before the first use keep the memory busy. A word past the end is the last
        # one again, which sets no new mark.
        second = min(first + n_threads, last)
        third = min(first + 2 * n_threads, last)
        fourth = min(first + 3 * n_threads, last)
        count_1, count_2, count_3, count_4 = (
            counts[first], counts[second], counts[third], counts[fourth],
        )  # fmt: skip
        limit_1, limit_2, limit_3, limit_4 = (
            limits[first], limits[second], limits[third], limits[fourth],
        )  # fmt: skip
        _mark(_reaching(count_1, limit_1), first, slot, marks)
        _mark(_reaching(count_2, limit_2), second, slot, marks)
        _mark(_reaching(count_3, limit_3), third, slot, marks)
        _mark(_reaching(count_4, limit_4), fourth, slot, marks)


@compiled
def _list_marked(marks, n_marks, listed):
    """List the marked pixels of this thread's image, ascending, and clear them; return how many."""
    n, start = 0, 0
    for place in range(cuda.threadIdx.x, n_marks, cuda.blockDim.x):
        bits = np.int64(marks[place])
        marks[place] = 0
        while bits:
            listed[n] = start + cuda.ffs(bits) - 1
            n += 1
            bits &= bits - 1
        start += MARK_PIXELS
    return n


@cuda.jit
def run_sums_together(
    counts, limits, adc, calibration_index, is_shower, camera, calibration, tables, settings,
    scratch, columns, charge, peak_time, mask,
):  # fmt: skip
    """Write the outputs of images with one count per gain and pixel, reading them in step.

    A block has as many images as threads at a time. All of its threads together read one image
    after the other, neighbouring threads neighbouring words, and mark in shared memory the pixels
    that may survive; then every thread finishes one image. Only the high gain is read in full.
    Same results as `run_sums`, which leaves the reading to one thread for each image.

    Parameters
    ----------
    counts, limits : uint64 (image, gain, word), (calibration, word), `adc` and
        ``tables.threshold`` in words of four counts
    others : as for `run_sums`; ``settings.dense`` is False, and the workers of `scratch` are the
        threads of the grid at least. Dynamic shared memory: one uint32 for each thread and 32
        pixels
    """
    thread, n_threads = cuda.threadIdx.x, cuda.blockDim.x
    n_images = adc.shape[0]
    n_marks = -(-counts.shape[2] // MARK_WORDS) * n_threads
    marks = cuda.shared.array(0, uint32)
    for place in range(thread, n_marks, n_threads):
        marks[place] = 0
    own = worker_scratch(scratch, cuda.grid(1))
    for first in range(cuda.blockIdx.x * n_threads, n_images, cuda.gridDim.x * n_threads):
        n_here = min(n_threads, n_images - first)
        cuda.syncthreads()  # every thread has cleared its marks
        for slot in range(n_here):
            if is_shower[first + slot]:
                row = calibration_index[first + slot]
                _mark_image(counts[first + slot, 0], limits[row], slot, marks)
        cuda.syncthreads()  # and all images are marked
        if thread < n_here:
            image = first + thread
            table = calibration_index[image]
            n_above = _list_marked(marks, n_marks, own.listed)
            n_listed = calibrate_candidates(
                n_above, adc[image], table, tables, calibration, camera.neighbours, settings,
                own.charge, own.peak_time, own.channel, own.listed,
            )  # fmt: skip
            finish_sum_image(
                image, n_listed, adc[image], table, is_shower[image], camera, calibration,
                settings, own, columns, charge, peak_time, mask,
            )  # fmt: skip
