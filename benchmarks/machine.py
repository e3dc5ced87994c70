"""What a result has to say about the machine, without its name."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["describe", "slug"]

LIBRARIES = (
    "astri_gpu",
    "numpy",
    "numba",
    "jax",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "zarr",
    "zarrs",
    "ctapipe",
    "eventio",
    "astropy",
)


def describe() -> dict[str, Any]:
    """Return processor, memory, system, versions, revision, load and time, ready for JSON."""
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "gpu": _gpu(),
        "python": platform.python_version(),
        "libraries": libraries,
        "revision": _revision(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def slug(machine: dict[str, Any]) -> str:
    """Return a name for result files: date, processor or GPU, cores."""
    device = machine["gpu"] or machine["processor"]
    words = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return f"{machine['date'][:10]}-{words}-{machine['cores']}-cores"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    from astri_gpu.backend import make_backend
    from astri_gpu.errors import AstriError

    try:
        make_backend("cupy")
    except AstriError:
        return None
    import cupy

    runtime = cupy.cuda.runtime
    name = runtime.getDeviceProperties(0)["name"].decode()
    return f"{name} (driver {runtime.driverGetVersion()}, CUDA {runtime.runtimeGetVersion()})"


def _revision() -> str:
    """Return the git revision, with "+" where files differ from it; "unknown" outside git."""
    folder = Path(__file__).parent
    try:
        revision = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return revision + ("+" if changed else "")


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
