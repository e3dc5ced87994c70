"""What the store needs from the system: disk errors as sentences, syncing, codecs, plain JSON."""

import contextlib
import errno
import importlib.util
import math
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.errors import AstriError

__all__ = ["codec_pipeline", "disk_errors", "json_ready", "sync", "sync_tree"]

SYNC_THREADS = 16

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def codec_pipeline() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which arrays are opened with the `zarrs` codecs, where installed.

    They decode a shard on all cores; without them zarr-python's own pipeline reads the same files.
    """
    import zarr

    if importlib.util.find_spec("zarrs") is None:
        return contextlib.nullcontext()
    return zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


def json_ready(value: Any) -> Any:
    """Return `value` as plain JSON: NumPy scalars, paths, bytes, tuples; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return json_ready(value.tolist())
    if isinstance(value, (list, tuple, set)):
        return [json_ready(item) for item in value]
    if isinstance(value, np.generic):
        return json_ready(value.item())
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def _disk_errno(error: BaseException | None) -> int | None:
    """Return the number of the disk error behind `error`; the Rust codecs only have it as text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return error.errno
        found = re.search(r"os error (\d+)", str(error))
        if found and int(found.group(1)) in DISK_ERRORS:
            return int(found.group(1))
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full, read-only or limited disk into one sentence.

    Raises
    ------
    AstriError
        When the disk that holds `path` takes no more data.
    """
    try:
        yield
    except AstriError:
        raise
    except Exception as error:
        number = _disk_errno(error)
        if number is None:
            raise
        state = "is read-only" if number == errno.EROFS else "is full"
        raise AstriError(
            f"The disk holding {path} {state} ({os.strerror(number)}): free space or choose "
            "another output; nothing was left behind."
        ) from error


def sync(path: str | Path) -> None:
    """Wait until a file or folder has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder has reached the disk.

    A store has hundreds of small files, and every sync waits for the disk; from several threads
    they wait together.
    """
    paths = [
        os.path.join(where, name) for where, _, files in os.walk(folder) for name in (*files, ".")
    ]
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        for _ in pool.map(sync, paths):  # raises what a sync raises
            pass
