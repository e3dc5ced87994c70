"""What the store needs from the system: disk errors as sentences, syncing, codecs, plain JSON."""

import contextlib
import errno
import importlib.util
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.errors import AstriError

__all__ = ["codec_pipeline", "disk_errors", "json_ready", "sync", "sync_tree"]

SYNC_THREADS = 16

PLAIN_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"
# Zarr keeps the choice of codecs in one place for all threads.
_PIPELINE_LOCK = threading.RLock()

_FULL = (
    "The disk holding {path} is full ({reason}): free space or choose another output; nothing was "
    "left behind."
)
_READ_ONLY = (
    "The disk holding {path} is read-only ({reason}): choose another output; nothing was left "
    "behind."
)
_FORBIDDEN = (
    "{path} must not be written ({reason}): change the permissions of its folder or choose another "
    "output."
)
_GONE = (
    "What was written for {path} has gone ({reason}): its folder was removed or renamed, or its "
    "disk taken away, while this run was writing it; run again."
)
_BROKEN = (
    "The disk holding {path} does not answer as it should ({reason}): look at the disk or the "
    "network, then run again."
)
WRITING_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What to say for a number of the system.
DISK_STATES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    errno.EROFS: _READ_ONLY,
    **dict.fromkeys((errno.EACCES, errno.EPERM), _FORBIDDEN),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.ESTALE), _GONE),
    **dict.fromkeys(
        (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.EHOSTDOWN), _BROKEN
    ),
}


@contextlib.contextmanager
def codec_pipeline() -> Iterator[None]:
    """Give a context in which arrays are opened with the `zarrs` codecs, where installed.

    They decode a shard on all cores; without them zarr-python's own pipeline reads the same files.
    """
    import zarr

    fast = importlib.util.find_spec("zarrs") is not None
    pipeline = "zarrs.ZarrsCodecPipeline" if fast else PLAIN_PIPELINE
    with _PIPELINE_LOCK, zarr.config.set({"codec_pipeline.path": pipeline}):
        yield


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


def _errno(error: BaseException | None, path: Path) -> int | None:
    """Return the number of the system error behind `error`; the Rust codecs have it as text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_STATES:
            # A full disk names no file; a missing one may be a file that was to be read.
            own = error.filename is None or str(error.filename).startswith(str(path))
            return error.errno if own or error.errno in WRITING_ONLY else None
        found = re.search(r"os error (\d+)", str(error))
        if found and int(found.group(1)) in DISK_STATES:
            return int(found.group(1))
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a disk that is full, read-only or gone while `path` is written into a sentence.

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
        number = _errno(error, path)
        if number is None:
            raise
        raise AstriError(
            DISK_STATES[number].format(path=path, reason=os.strerror(number))
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
