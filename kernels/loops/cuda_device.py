"""What the CUDA launches share: devices, streams, libraries, or a sentence when one is missing."""

import importlib

import numpy as np

__all__ = ["device_view", "load_cupy", "load_kernels", "stream"]


def device_view(cuda, array):
    """Return a CuPy array as Numba takes it, without a copy; the simulator's NumPy array as is."""
    if hasattr(array, "__cuda_array_interface__"):
        return cuda.as_cuda_array(array, sync=False)
    return array


def stream(cuda, xp):
    """Return CuPy's current stream; 0, the default stream, in the simulator."""
    if xp is np:
        return 0
    return cuda.external_stream(xp.cuda.get_current_stream().ptr)


def load_cupy():
    """Return CuPy.

    Raises
    ------
    RuntimeError
        When it is not installed; one sentence that says what to do.
    """
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(
            f"The compiled GPU kernels need CuPy, which cannot be imported ({error}): "
            "install the extra cuda12 or cuda13, or choose the CPU."
        ) from error
    return cupy


def load_kernels(name: str):
    """Return a module of kernels of this package.

    Raises
    ------
    RuntimeError
        Without numba-cuda or a usable GPU; one sentence that says what to do.
    """
    try:
        kernels = importlib.import_module(f"{__package__}.{name}")
    except ImportError as error:
        raise RuntimeError(
            f"The compiled GPU kernels need numba-cuda, which cannot be imported ({error}): "
            "install the extra cuda12 or cuda13, or choose the CPU."
        ) from error
    if not kernels.cuda.is_available():
        raise RuntimeError(
            "The compiled GPU kernels find no usable GPU (no device, no driver, or no CUDA "
            "compiler library): check nvidia-smi, or choose the CPU."
        )
    return kernels
