"""Backends: where arrays live and which text of a kernel runs.

The only module that imports jax or cupy, and only when they are asked for.

| backend | arrays | image chain | role |
|---|---|---|---|
| numpy | NumPy | array text, eager | the reference, readable in a debugger |
| cpu | NumPy | loop text, compiled, all cores | production without a GPU |
| jax | JAX | array text through XLA | any XLA device |
| cupy | CuPy | loop text on CUDA | production on NVIDIA GPUs |
"""

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend_arrays import ArrayChain, HostChain
from astri_gpu.backend_cuda import StagedChain
from astri_gpu.backend_forest import ArrayForest, ForestCall, cpu_forest, cuda_forest
from astri_gpu.errors import AstriError
from astri_gpu.kernels.image_types import (
    CalibrationArrays,
    CameraArrays,
    ImageResult,
    ImageSettings,
)

if TYPE_CHECKING:
    from astri_gpu.reconstruction.flatten import FlatForest

__all__ = ["BACKENDS", "Backend", "ImageChain", "make_backend", "visible_devices"]

BACKENDS = ("numpy", "cpu", "jax", "cupy")
MEMORY_SHARE = 0.5  # of the free memory of a device that batches in flight may take


class ImageChain(Protocol):
    """DL0 -> DL1b of one camera; arguments and results are NumPy arrays."""

    def __call__(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> ImageResult:
        """Return the parameters of a batch of images (see `image_chain`)."""

    def start(
        self, adc: NDArray[Any], calibration_index: NDArray[Any], is_shower: NDArray[Any]
    ) -> Callable[[], ImageResult]:
        """Queue a batch and return at once a function that waits for its result.

        The arguments must stay as they are until that function has returned, because a batch may
        have to run again. Results are to be asked for in the order of the batches. An
        out-of-memory (`Backend.is_out_of_memory`) may come from here or from the function.
        """


class Backend:
    """The reference backend; the others replace what they do differently."""

    name = "numpy"
    fixed_shape = False
    """Whether batches are padded to one size, so that nothing is compiled twice."""
    batch_limit: int | None = 256
    """Largest sensible batch: the array text holds several images x pixels arrays at a time."""
    pipeline_depth = 1
    """Batches that should be in flight: started, and their results not yet asked for."""
    device_copies = 1
    """Bytes on the device for every byte of counts, with charges of all pixels."""

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or _cores()

    def asarray(self, values: NDArray[Any]) -> Any:
        """Return `values` where this backend computes."""
        return values

    def asbatch(self, *arrays: NDArray[Any]) -> tuple[Any, ...]:
        """Return arrays whose first axis is the image where this backend computes.

        Images of zeros may follow, so that all devices get the same number.
        """
        return tuple(map(self.asarray, arrays))

    def asconstant(self, values: NDArray[Any]) -> Any:
        """Return an array that all images of a batch share where this backend computes."""
        return self.asarray(values)

    def fetch(self, values: tuple[Any, ...]) -> None:
        """Begin to copy results to the host, without waiting for them."""

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

    def batch_for(self, bytes_per_image: int) -> int | None:
        """Return the largest batch that the free memory of the device suggests.

        Parameters
        ----------
        bytes_per_image
            Of the counts (or charges) of one image, as they come from the store.

        Returns
        -------
        Images, at least 1; None where no limit is known.
        """
        free = self._free_bytes()
        if free is None:
            return None
        needed = self.pipeline_depth * self.device_copies * bytes_per_image
        return max(1, int(MEMORY_SHARE * free / needed))

    def _free_bytes(self) -> int | None:
        """Return the free memory of the device, None where nobody knows."""
        return None

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether `error` says that the device, or the host, has too little memory."""
        return isinstance(error, MemoryError)

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
        del n_samples, adc_dtype
        return ArrayChain(self, camera, calibration, settings, dense=dense)

    def forest(self, flat: "FlatForest") -> ForestCall:
        """Return an ensemble of trees as a function of (row, feature) float32; NumPy in and out."""
        return ArrayForest(self, flat)


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

        loops = prepare(
            camera,
            calibration,
            settings,
            n_samples=n_samples,
            adc_dtype=adc_dtype,
            dense=dense,
            n_threads=self.threads,
        )
        return HostChain(loops)

    def forest(self, flat: "FlatForest") -> ForestCall:
        return cpu_forest(flat, self.threads)


class _Jax(Backend):
    name = "jax"
    fixed_shape = True
    batch_limit = None
    pipeline_depth = 2
    device_copies = 32  # XLA plans 27 for ASTRI images

    def __init__(self, threads: int = 0, devices: int = 1) -> None:
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
        found = jax.local_devices()
        if devices > len(found):
            raise AstriError(
                f"backend.devices={devices}, and JAX finds {len(found)} ({found[0].platform}): "
                "ask for fewer, or for all of them with backend.devices=0."
            )
        self._devices = found[: devices or len(found)]
        mesh = jax.sharding.Mesh(np.asarray(self._devices), ("image",))
        self._by_image = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("image"))
        self._shared = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def asarray(self, values: NDArray[Any]) -> Any:
        return self._jax.device_put(values)

    def asbatch(self, *arrays: NDArray[Any]) -> tuple[Any, ...]:
        if len(self._devices) == 1:
            return super().asbatch(*arrays)
        missing = -len(arrays[0]) % len(self._devices)
        if missing:
            arrays = tuple(
                np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]) for a in arrays
            )
        return tuple(self._jax.device_put(a, self._by_image) for a in arrays)

    def asconstant(self, values: NDArray[Any]) -> Any:
        if len(self._devices) == 1:
            return self.asarray(values)
        return self._jax.device_put(values, self._shared)

    def fetch(self, values: tuple[Any, ...]) -> None:
        for array in values:
            array.copy_to_host_async()

    def synchronize(self, values: Any) -> Any:
        return self._jax.block_until_ready(values)

    def compile(self, function: Callable[..., Any], static: tuple[str, ...] = ()) -> Any:
        return _jit(function, static)

    def _free_bytes(self) -> int | None:
        free: list[int] = []
        for device in self._devices:
            statistics = device.memory_stats()
            if not statistics or "bytes_limit" not in statistics:  # the CPU has none
                return None
            free.append(statistics["bytes_limit"] - statistics["bytes_in_use"])
        return len(free) * min(free)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return super().is_out_of_memory(error) or (
            isinstance(error, self._jax.errors.JaxRuntimeError)
            and "RESOURCE_EXHAUSTED" in str(error)
        )


@functools.cache
def _jit(function: Callable[..., Any], static: tuple[str, ...]) -> Any:
    """Return one compiled function per function, so that cameras of one shape share the code."""
    import jax

    return jax.jit(function, static_argnames=static)


class _Cupy(Backend):
    name = "cupy"
    batch_limit = None
    pipeline_depth = 3
    device_copies = 4  # counts, charges, times and masks

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

        self.cupy = cupy

    def asarray(self, values: NDArray[Any]) -> Any:
        return self.cupy.asarray(values)

    def to_host(self, values: Any) -> NDArray[Any]:
        return self.cupy.asnumpy(values)

    def synchronize(self, values: Any) -> Any:
        self.cupy.cuda.get_current_stream().synchronize()
        return values

    def _free_bytes(self) -> int | None:
        free: int = self.cupy.cuda.runtime.memGetInfo()[0]
        return free + int(self.cupy.get_default_memory_pool().free_bytes())

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, (MemoryError, self.cupy.cuda.memory.OutOfMemoryError)):
            return True
        return "CUDA_ERROR_OUT_OF_MEMORY" in str(error) or "MemoryAllocation" in str(error)

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
            loops = prepare(
                camera,
                calibration,
                settings,
                n_samples=n_samples,
                adc_dtype=adc_dtype,
                dense=dense,
            )
        except RuntimeError as error:  # numba-cuda or a driver is missing: the text says which
            raise AstriError(f"backend=cupy: {error}") from error
        return StagedChain(self.cupy, loops, self.pipeline_depth, min(4, self.threads))

    def forest(self, flat: "FlatForest") -> ForestCall:
        return cuda_forest(flat)


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


def visible_devices() -> list[str]:
    """Return the NVIDIA GPUs of this process, as CUDA_VISIBLE_DEVICES names them.

    The driver is asked without starting anything on a device, so that a process may ask before it
    starts one process for each of them.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return named[: count.value] if named != [""] else [str(k) for k in range(count.value)]


_CLASSES = {"numpy": Backend, "cpu": _Cpu, "jax": _Jax, "cupy": _Cupy}


def make_backend(name: str = "auto", threads: int = 0, devices: int = 1) -> Backend:
    """Return a backend; ``auto`` is cupy where a GPU and CuPy are found, otherwise cpu.

    Parameters
    ----------
    name
        One of `BACKENDS`, or ``auto``.
    threads
        Threads of the cpu backend, 0 = all cores of this process.
    devices
        Devices that share the images of a batch, 0 = all (jax).

    Raises
    ------
    AstriError
        When the backend cannot be used on this machine, or there is none of this name.
    """
    if name == "auto":
        name = "cpu" if _cupy_problem() else "cupy"
    if name not in _CLASSES:
        raise AstriError(f"There is no backend {name!r}: choose auto or {', '.join(BACKENDS)}.")
    if name == "jax":
        return _Jax(threads, devices)
    if devices != 1:
        raise AstriError(
            f"backend.devices={devices} is for backend=jax: with backend={name}, several GPUs get "
            "one process each (execution=local or execution=cuda)."
        )
    return _CLASSES[name](threads)
