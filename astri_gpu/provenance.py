"""Who made a store: stage, configuration, inputs by checksum, versions and times."""

import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from astri_gpu import __version__
from astri_gpu.store import fingerprint

__all__ = ["now", "provenance"]

LIBRARIES = (
    "numpy",
    "zarr",
    "zarrs",
    "eventio",
    "numba",
    "jax",
    "cupy",
    "astropy",
    "pyirf",
    "gammapy",
)


def now() -> str:
    """Return the current UTC time as text, such as "2026-11-20T21:42:11+00:00"."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance(
    stage: str, config: Mapping[str, Any], inputs: Iterable[str | Path], started: str
) -> dict[str, Any]:
    """Return the attribute `provenance` of an output store; the time of the call ends the step.

    Parameters
    ----------
    stage
        Name of the stage, such as "ingest".
    config
        The resolved configuration.
    inputs
        Input files and stores, recorded with their checksums (see `astri_gpu.store.fingerprint`).
    started
        Time at which the step began, from `now`.

    Raises
    ------
    AstriError
        When an input cannot be read.
    """
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # an optional library that is not installed has no part in the result
    return {
        "stage": stage,
        "software": "astri_gpu",
        "version": __version__,
        "config": dict(config),
        "inputs": [{"path": str(path), "checksum": fingerprint(path)} for path in inputs],
        "started": started,
        "stopped": now(),
        "python": platform.python_version(),
        "libraries": versions,
    }
