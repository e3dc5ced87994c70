"""The image chain on arrays of NumPy and JAX: the array text, and the loops of the CPU.

On a device batches are queued and looked at later: nothing waits for it between two batches.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels._types import array_namespace
from astri_gpu.kernels.image_chain import image_chain
from astri_gpu.kernels.image_types import (
    COLUMNS,
    COUNT_COLUMNS,
    RETRY_ISLANDS,
    RETRY_SLOTS,
    CalibrationArrays,
    CameraArrays,
    ImageResult,
    ImageSettings,
)

if TYPE_CHECKING:
    from astri_gpu.backend import Backend

__all__ = ["ArrayChain", "HostChain", "packed_chain"]

MAX_ISLAND_STEPS = 4096
FLOATS = tuple(name for name in COLUMNS if name not in COUNT_COLUMNS)
COUNTS = tuple(name for name in COLUMNS if name in COUNT_COLUMNS)


class HostChain:
    """Loops on the CPU: a batch is computed when it is started, by all threads."""

    def __init__(self, loops: Any) -> None:
        self._loops = loops

    def __call__(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> ImageResult:
        """Return the parameters of a batch, NumPy arrays."""
        result: ImageResult = self._loops(adc, calibration_index, is_shower)
        return result

    def start(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> Callable[[], ImageResult]:
        """Compute a batch and return a function that returns its result."""
        result = self(adc, calibration_index, is_shower)
        return lambda: result


def packed_chain(
    adc: Any,
    calibration_index: Any,
    is_shower: Any,
    camera: CameraArrays,
    calibration: CalibrationArrays,
    *,
    settings: ImageSettings,
    dense: bool,
) -> tuple[Any, ...]:
    """Return `image_chain` in few arrays, because every array of a result is a transfer.

    Returns
    -------
    floats : float32 (column of `FLOATS`, image)
    counts : int32 (column of `COUNTS` and, last, the retry bits, image)
    charge, peak_time, mask : (image, pixel), only if `dense`
    """
    result = image_chain(adc, calibration_index, is_shower, camera, calibration, settings=settings)
    xp = array_namespace(result.retry)
    floats = xp.stack([result.columns[name] for name in FLOATS])
    counts = xp.stack([*(result.columns[name] for name in COUNTS), result.retry])
    pixels = (result.charge, result.peak_time, result.mask) if dense else ()
    return floats, counts, *pixels


class ArrayChain:
    """The array text with a number of slots that grows when an image does not fit.

    Nothing holds a batch on the device but the computation that was queued for it, so that its
    memory is free once that has run. (XLA takes the memory of an input that is given away only for
    a result of the same shape and type, and counts have none.)

    The wider settings stay, because images like that one will come again; batches that were queued
    before with narrow ones are looked at on their own, and run again only where they have to.
    """

    def __init__(
        self,
        backend: "Backend",
        camera: CameraArrays,
        calibration: CalibrationArrays,
        settings: ImageSettings,
        *,
        dense: bool,
    ) -> None:
        self._backend = backend
        self._camera = CameraArrays(*map(backend.asconstant, camera))
        self._calibration = CalibrationArrays(*map(backend.asconstant, calibration))
        self._settings = settings
        self._dense = dense
        self._run = backend.compile(packed_chain, static=("settings", "dense"))

    def __call__(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> ImageResult:
        """Return the parameters of a batch, NumPy arrays."""
        return self.start(adc, calibration_index, is_shower)()

    def start(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> Callable[[], ImageResult]:
        """Queue a batch and return a function that waits for it; see `backend.ImageChain`."""
        batch = adc, calibration_index, is_shower
        settings, packed = self._queue(batch)

        def finish() -> ImageResult:
            used, host = settings, [self._backend.to_host(part) for part in packed]
            while retry := int(np.bitwise_or.reduce(host[1][-1], initial=0)):
                self._widen(retry, used)
                used, again = self._queue(batch)
                host = [self._backend.to_host(part) for part in again]
            return _unpacked(host, len(adc))

        return finish

    def _queue(self, batch: tuple[NDArray[Any], ...]) -> tuple[ImageSettings, tuple[Any, ...]]:
        settings = self._settings
        packed = self.run(*self._backend.asbatch(*batch))
        self._backend.fetch(packed)
        return settings, packed

    def run(self, adc: Any, calibration_index: Any, is_shower: Any) -> tuple[Any, ...]:
        """Queue arrays that are where the backend computes; return what `packed_chain` does."""
        packed: tuple[Any, ...] = self._run(
            adc,
            calibration_index,
            is_shower,
            self._camera,
            self._calibration,
            settings=self._settings,
            dense=self._dense,
        )
        return packed

    def _widen(self, retry: int, used: ImageSettings) -> None:
        """Widen what was too narrow in the `used` settings, unless another batch has done it."""
        if retry & RETRY_SLOTS and self._settings.n_slots <= used.n_slots:
            self._settings = self._settings._replace(n_slots=2 * used.n_slots)
        if retry & RETRY_ISLANDS and self._settings.island_steps <= used.island_steps:
            steps = 2 * used.island_steps
            if steps > MAX_ISLAND_STEPS:
                raise AssertionError("islands cannot wind longer than a camera has pixels")
            self._settings = self._settings._replace(island_steps=steps)


def _unpacked(host: list[NDArray[Any]], n_images: int) -> ImageResult:
    """Return the result of `packed_chain` by name, without padded images."""
    floats, counts = host[0][:, :n_images], host[1][:, :n_images]
    columns = dict(zip(FLOATS, floats, strict=True)) | dict(zip(COUNTS, counts[:-1], strict=True))
    empty = np.empty((n_images, 0), dtype=np.float32)
    charge, peak_time, mask = host[2:] or (empty, empty, empty.astype(np.bool_))
    return ImageResult(
        {name: columns[name] for name in COLUMNS},
        charge[:n_images],
        peak_time[:n_images],
        mask[:n_images],
        counts[-1],
    )
