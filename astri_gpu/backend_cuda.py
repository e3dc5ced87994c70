"""The image loops on a GPU, fed so that copies run beside kernels.

CuPy is handed in: `backend` alone imports it.

Three streams share the work: one copies counts to the device, one runs the kernels, one copies
results back; events keep the order of each batch. Host memory for copies is pinned, because the
driver copies any other memory piece by piece and waits. Counts are decoded on the CPU: Zarr (3.1.6
as 3.4.2) with ``zarr.config.enable_gpu()`` decodes there as well and copies every chunk to the
device from pageable memory, and nvCOMP cannot read the blosc container of the store.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.image_types import ImageResult
from astri_gpu.kernels.loops.launch import columns_of

__all__ = ["Loops", "StagedChain"]

PIECE = 8 << 20
"""Bytes that one thread copies into pinned memory at a time: one thread fills a fifth of PCIe 5."""


class Loops(Protocol):
    """What is launched; see `kernels.loops.cuda.CudaImageLoops`."""

    def queue(self, adc: Any, calibration_index: Any, is_shower: Any) -> tuple[Any, ...]:
        """Queue a batch on the current stream; return columns, charge, peak time and mask."""


class StagedChain:
    """The chain of one camera on a GPU, with several batches in flight.

    Parameters
    ----------
    cupy
        The CuPy module.
    loops
        Prepared for the current device.
    depth
        Batches in flight. Each has its own pinned and device memory, of the size of the largest
        batch that it has seen, so that memory is bounded by batch size and depth.
    threads
        That copy counts into pinned memory.
    """

    def __init__(self, cupy: Any, loops: Loops, depth: int, threads: int) -> None:
        self._cupy, self._loops = cupy, loops
        self._copy_in, self._compute, self._copy_out = (
            cupy.cuda.Stream(non_blocking=True) for _ in range(3)
        )
        self._lanes = [_Lane(cupy) for _ in range(depth)]
        self._next = 0
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="to-pinned")
        # What was prepared on the default stream has to be there before other streams use it.
        cupy.cuda.get_current_stream().synchronize()

    def __call__(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> ImageResult:
        """Return the parameters of a batch, NumPy arrays."""
        return self.start(adc, calibration_index, is_shower)()

    def start(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> Callable[[], ImageResult]:
        """Queue a batch and return a function that waits for it; see `backend.ImageChain`."""
        lane = self._lanes[self._next]
        if lane.flight:  # more batches than lanes: the oldest result is fetched before its turn
            lane.flight()
        self._next = (self._next + 1) % len(self._lanes)
        try:
            lane.flight = self._fly(lane, (adc, calibration_index, is_shower))
        except BaseException:
            self._copy_in.synchronize()  # nothing may use memory that is given back
            self._compute.synchronize()
            self._copy_out.synchronize()
            lane.clear()
            self._cupy.get_default_memory_pool().free_all_blocks()
            raise
        return lane.flight

    def _fly(self, lane: "_Lane", batch: tuple[NDArray[Any], ...]) -> "_Flight":
        cupy, n_images = self._cupy, len(batch[0])
        pinned = [lane.pinned(k, a.shape, a.dtype) for k, a in enumerate(batch)]
        device = [lane.device(k, a.shape, a.dtype) for k, a in enumerate(batch)]
        self._fill(pinned, batch)
        for there, here in zip(device, pinned, strict=True):
            there.set(here, stream=self._copy_in)
        copied = self._copy_in.record()
        self._compute.wait_event(copied)
        with self._compute:
            outputs = self._loops.queue(*device)
        computed = self._compute.record()
        self._copy_out.wait_event(computed)
        host = []
        for k, values in enumerate(outputs):
            here = lane.pinned(len(batch) + k, values.shape, values.dtype)
            if values.size:
                values.get(stream=self._copy_out, out=here, blocking=False)
            host.append(here)
        done = cupy.cuda.Event(disable_timing=True)
        done.record(self._copy_out)
        # The device memory of the outputs is in use until they have been copied.
        return _Flight(lane, done, host, outputs, n_images)

    def _fill(self, pinned: list[NDArray[Any]], batch: tuple[NDArray[Any], ...]) -> None:
        """Copy a batch into pinned memory by several threads."""
        waiting = []
        for here, values in zip(pinned, batch, strict=True):
            rows = max(1, PIECE // max(1, values.nbytes // max(1, len(values))))
            for first in range(0, len(values), rows):
                part = slice(first, first + rows)
                waiting.append(self._pool.submit(np.copyto, here[part], values[part]))
        for copied in waiting:
            copied.result()


class _Flight:
    """A batch on its way; calling it waits for its result, which is fetched once."""

    def __init__(
        self, lane: "_Lane", done: Any, host: list[NDArray[Any]], outputs: Any, n_images: int
    ) -> None:
        self._lane, self._done, self._host = lane, done, host
        self._outputs, self._n_images = outputs, n_images
        self._result: ImageResult | None = None

    def __call__(self) -> ImageResult:
        if self._result is None:
            self._done.synchronize()
            # The pinned memory is used again by the next batch of this lane.
            columns, charge, peak_time, mask = (part.copy() for part in self._host)
            self._result = ImageResult(
                columns_of(columns, self._n_images),
                charge,
                peak_time,
                mask,
                np.zeros(self._n_images, dtype=np.int32),
            )
            self._outputs, self._host = None, []
            if self._lane.flight is self:
                self._lane.flight = None
        return self._result


class _Lane:
    """Pinned and device memory of one batch in flight, which grows to the largest that it sees."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self.flight: _Flight | None = None
        self._pinned: dict[int, NDArray[Any]] = {}
        self._device: dict[int, Any] = {}

    def clear(self) -> None:
        """Give all memory back."""
        self.flight = None
        self._pinned.clear()
        self._device.clear()

    def pinned(self, place: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return pinned host memory as an array."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if place not in self._pinned or self._pinned[place].nbytes < n_bytes:
            self._pinned.pop(place, None)
            memory = self._cupy.cuda.alloc_pinned_memory(max(n_bytes, 1))
            self._pinned[place] = np.frombuffer(memory, dtype=np.uint8, count=max(n_bytes, 1))
        return self._pinned[place][:n_bytes].view(dtype).reshape(shape)

    def device(self, place: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return device memory as an array."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if place not in self._device or self._device[place].nbytes < n_bytes:
            self._device.pop(place, None)
            self._device[place] = self._cupy.empty(max(n_bytes, 1), dtype=np.uint8)
        return self._device[place][:n_bytes].view(dtype).reshape(shape)
