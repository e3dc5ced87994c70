"""Backends: where arrays live and which text of a kernel runs.

The only module that imports jax or cupy, and only when they are asked for.

| backend | arrays | image chain | role |
|---|---|---|---|
| numpy | NumPy | array text, eager | the reference, readable in a debugger |
| cpu | NumPy | loop text, compiled, all cores | production without a GPU |
| jax | JAX | array text through XLA | any XLA device |
| cupy | CuPy | loop text on CUDA | production on NVIDIA GPUs |
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.kernels.image_chain import image_chain
from astri_gpu.kernels.image_types import (
    RETRY_ISLANDS,
    RETRY_SLOTS,
    CalibrationArrays,
    CameraArrays,
    ImageResult,
    ImageSettings,
)

__all__ = ["BACKENDS", "Backend", "ImageChain", "make_backend"]

BACKENDS = ("numpy", "cpu", "jax", "cupy")
MAX_ISLAND_STEPS = 4096


class ImageChain(Protocol):
    """DL0 -> DL1b of one camera; arguments are NumPy arrays, results belong to the backend."""

    def __call__(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> ImageResult:
        """Return the parameters of a batch of images (see `image_chain`)."""


class Backend:
    """The reference backend; the others replace what they do differently."""

    name = "numpy"
    fixed_shape = False
    """Whether batches are padded to one size, so that nothing is compiled twice."""
    batch_limit: int | None = 256
    """Largest sensible batch: the array text holds several images x pixels arrays at a time."""

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or _cores()

    def asarray(self, values: NDArray[Any]) -> Any:
        """Return `values` where this backend computes."""
        return values

    def to_host(self, values: Any) -> NDArray[Any]:
        """Return `values` as a NumPy array, when they are ready."""
        return np.asarray(values)

    def synchronize(self, values: Any) -> Any:
        """Return `values` (arrays in any nesting of tuples and dicts) once they are computed."""
        return values

    def compile(self, function: Callable[..., Any], static: tuple[str, ...] = ()) -> Any:
        """Return `function` compiled; the arguments named in `static` are not arrays."""
        del static
        return function

    def image_chain(
        self,
        camera: CameraArrays,
        calibration: CalibrationArrays,
        settings: ImageSettings,
        *,
        n_samples: int,
        adc_dtype: Any,
        dense: bool,
    ) -> ImageChain:
        """Return the chain of one camera.

        Parameters
        ----------
        camera, calibration
            NumPy arrays.
        settings
            What the chain does.
        n_samples
            Samples of a waveform; 0 for cameras with one count per pixel.
        adc_dtype
            Unsigned integer type of the counts.
        dense
            Whether charge, peak time and mask of every pixel are wanted.
        """
        del n_samples, adc_dtype, dense
        return _ArrayChain(self, camera, calibration, settings)


class _ArrayChain:
    """The array text with a number of slots that grows when an image does not fit."""

    def __init__(
        self,
        backend: Backend,
        camera: CameraArrays,
        calibration: CalibrationArrays,
        settings: ImageSettings,
    ) -> None:
        self._backend = backend
        self._camera = CameraArrays(*map(backend.asarray, camera))
        self._calibration = CalibrationArrays(*map(backend.asarray, calibration))
        self._settings = settings
        self._run = backend.compile(image_chain, static=("settings",))

    def __call__(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> ImageResult:
        arrays = [self._backend.asarray(a) for a in (adc, calibration_index, is_shower)]
        while True:
            result = self._run(*arrays, self._camera, self._calibration, settings=self._settings)
            retry = int(np.bitwise_or.reduce(self._backend.to_host(result.retry), initial=0))
            if not retry:
                return result
            # The wider settings stay: images like this one will come again.
            if retry & RETRY_SLOTS:
                self._settings = self._settings._replace(n_slots=2 * self._settings.n_slots)
            if retry & RETRY_ISLANDS:
                steps = 2 * self._settings.island_steps
                if steps > MAX_ISLAND_STEPS:
                    raise AssertionError("islands cannot wind longer than a camera has pixels")
                self._settings = self._settings._replace(island_steps=steps)


class _Cpu(Backend):
    name = "cpu"
    batch_limit = None

    def __init__(self, threads: int = 0) -> None:
        super().__init__(threads)
        # Loop threads that wait for the next batch must sleep: spinning, OpenMP's default, takes
        # the cores from the threads that read and write. It is looked at when OpenMP is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    def image_chain(
        self,
        camera: CameraArrays,
        calibration: CalibrationArrays,
        settings: ImageSettings,
        *,
        n_samples: int,
        adc_dtype: Any,
        dense: bool,
    ) -> ImageChain:
        from astri_gpu.kernels.loops.cpu import prepare

        return prepare(
            camera,
            calibration,
            settings,
            n_samples=n_samples,
            adc_dtype=adc_dtype,
            dense=dense,
            n_threads=self.threads,
        )


class _Jax(Backend):
    name = "jax"
    fixed_shape = True
    batch_limit = None

    def __init__(self, threads: int = 0) -> None:
        super().__init__(threads)
        import jax

        # Sky angles, times and sums that cancel are float64; kernels say float32 where they mean
        # it. Products of matrices keep float32 instead of TF32.
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_default_matmul_precision", "float32")
        # JAX itself takes the folder from JAX_COMPILATION_CACHE_DIR.
        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            jax.config.update("jax_compilation_cache_dir", str(base / "astri_gpu" / "xla"))
        self._jax = jax

    def asarray(self, values: NDArray[Any]) -> Any:
        return self._jax.device_put(values)

    def synchronize(self, values: Any) -> Any:
        return self._jax.block_until_ready(values)

    def compile(self, function: Callable[..., Any], static: tuple[str, ...] = ()) -> Any:
        return _jit(function, static)


@functools.cache
def _jit(function: Callable[..., Any], static: tuple[str, ...]) -> Any:
    """Return one compiled function per function, so that cameras of one shape share the code."""
    import jax

    return jax.jit(function, static_argnames=static)


class _Cupy(Backend):
    name = "cupy"
    batch_limit = None

    def __init__(self, threads: int = 0) -> None:
        super().__init__(threads)
        problem = _cupy_problem()
        if problem:
            raise AstriError(
                f"backend=cupy needs an NVIDIA GPU with CuPy, and {problem}: install "
                "astri_gpu[cuda12] or astri_gpu[cuda13] on a machine with a GPU, or use "
                "backend=cpu."
            )
        import cupy

        self._cupy = cupy

    def asarray(self, values: NDArray[Any]) -> Any:
        return self._cupy.asarray(values)

    def to_host(self, values: Any) -> NDArray[Any]:
        return self._cupy.asnumpy(values)

    def synchronize(self, values: Any) -> Any:
        self._cupy.cuda.get_current_stream().synchronize()
        return values

    def image_chain(
        self,
        camera: CameraArrays,
        calibration: CalibrationArrays,
        settings: ImageSettings,
        *,
        n_samples: int,
        adc_dtype: Any,
        dense: bool,
    ) -> ImageChain:
        from astri_gpu.kernels.loops.cuda import prepare

        try:
            return prepare(
                camera,
                calibration,
                settings,
                n_samples=n_samples,
                adc_dtype=adc_dtype,
                dense=dense,
            )
        except RuntimeError as error:  # numba-cuda or a driver is missing: the text says which
            raise AstriError(f"backend=cupy: {error}") from error


def _cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cupy_problem() -> str:
    """Return why CuPy cannot be used here, empty if it can."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CUDA does not start ({error})"
    return "" if n_devices else "there is no GPU"


_CLASSES = {"numpy": Backend, "cpu": _Cpu, "jax": _Jax, "cupy": _Cupy}


def make_backend(name: str = "auto", threads: int = 0) -> Backend:
    """Return a backend; ``auto`` is cupy where a GPU and CuPy are found, otherwise cpu.

    Parameters
    ----------
    name
        One of `BACKENDS`, or ``auto``.
    threads
        Threads of the cpu backend, 0 = all cores of this process.

    Raises
    ------
    AstriError
        When the backend cannot be used on this machine, or there is none of this name.
    """
    if name == "auto":
        name = "cpu" if _cupy_problem() else "cupy"
    if name not in _CLASSES:
        raise AstriError(f"There is no backend {name!r}: choose auto or {', '.join(BACKENDS)}.")
    return _CLASSES[name](threads)
