"""Fixtures shared by all tests: real data, and one `xp` parameter per array backend."""

import os
from pathlib import Path

import numba  # noqa: F401  before a test changes how many threads it would have
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = Path(os.environ.get("ASTRI_GPU_SHARED_DATA", ROOT.parent / "shared" / "data"))
REQUIRED = set(os.environ.get("ASTRI_GPU_REQUIRE", "").replace(",", " ").split())


def missing(what: str, reason: str) -> None:
    """Skip, or fail where the environment says that `what` has to be there."""
    if what in REQUIRED:
        pytest.fail(f"{reason} (ASTRI_GPU_REQUIRE asks for '{what}')", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real files; they are not part of the repository."""
    if not SHARED_DATA.is_dir():
        missing("data", "real data files are not on this machine (set ASTRI_GPU_SHARED_DATA)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def simtel(shared_data):
    """Return a function from a file name to the path of a real sim_telarray file."""

    def path(name: str) -> Path:
        file = shared_data / "simtel" / name
        if not file.is_file():
            missing("data", f"the sim_telarray file {name} is not on this machine")
        return file

    return path


@pytest.fixture
def peers():
    """Import ctapipe, or skip (the extra `peers` installs it)."""
    try:
        import ctapipe
    except ImportError:
        missing("peers", "ctapipe is not installed (pip install 'astri_gpu[peers]')")
    return ctapipe


def _namespaces():
    yield pytest.param("numpy", id="numpy")
    yield pytest.param("strict", id="strict")
    yield pytest.param("jax", id="jax")
    yield pytest.param("cupy", id="cupy", marks=pytest.mark.gpu)


@pytest.fixture(params=list(_namespaces()))
def xp(request):
    """Array namespaces that every kernel has to run on.

    `strict` is array-api-strict without boolean indexing and data-dependent shapes, which catches
    on a CPU most code that could not be compiled for a device.
    """
    if request.param == "numpy":
        yield np
    elif request.param == "strict":
        strict = pytest.importorskip("array_api_strict")
        with strict.ArrayAPIStrictFlags(
            api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False
        ):
            yield strict
    elif request.param == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
        yield jax.numpy
    else:
        try:
            import cupy

            cupy.cuda.runtime.getDeviceCount()
        except Exception as error:  # no library, no driver and no device all mean: no GPU here
            missing("cupy", f"no GPU to run CuPy on ({type(error).__name__})")
        yield cupy
