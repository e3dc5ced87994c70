"""One decorator for the loop text: plain Python functions, compiled by Numba on first use.

The same functions are called from the CPU launch (threads) and from the CUDA launch, which
compiles them again for the device. Compiled code is kept between runs.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

__all__ = ["compiled"]


def _cache_folder() -> str | None:
    """Return a folder for compiled code, one per state of the sources; None if not writable.

    Numba looks only at the file of the outermost function to decide whether its cache is stale;
    a digest of all kernels makes a change in any of them count.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "astri_gpu" / f"loops-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


_FOLDER = _cache_folder()


def compiled(
    function: Callable | None = None, *, parallel: bool = False, counted: bool = False
) -> Any:
    """Return `function` compiled without the GIL; division by zero gives inf or NaN.

    Parameters
    ----------
    parallel : its loops over `numba.prange` are shared out over threads
    counted : it creates or returns arrays. All other functions borrow theirs from the caller, so
        that counting references, which took longer than the work itself, is left out

    Notes
    -----
    All but the parallel functions are pasted into their callers: Numba passes a tuple of arrays as
    hundreds of numbers.
    """
    untyped: Any = numba  # options and settings that its annotations leave out

    def decorate(f: Callable) -> Any:
        before = untyped.config.CACHE_DIR
        try:
            untyped.config.CACHE_DIR = _FOLDER or before
            return untyped.njit(
                f,
                nogil=True,
                error_model="numpy",
                parallel=parallel,
                forceinline=not parallel,
                _nrt=counted,
                cache=_FOLDER is not None,
            )
        finally:
            untyped.config.CACHE_DIR = before

    return decorate if function is None else decorate(function)
