"""A single output file that appears under its name only when it is complete, and one run at a time.

What `store_writer` does for stores: everything goes into the folder ``<path>.partial``, which is
locked; a clean exit syncs and renames the file, an error removes the folder, and a killed run
leaves it for the next run to clear away.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from astri_gpu.errors import AstriError, OutputBusy, UsageError
from astri_gpu.store_disk import disk_errors, sync

__all__ = ["whole_file", "write_json"]

logger = logging.getLogger(__name__)


@contextmanager
def whole_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give the path of a file to fill, which becomes `path` at the end.

    Parameters
    ----------
    path
        Where the finished file will be.
    overwrite
        Replace a file that is there already (at the very end).

    Raises
    ------
    UsageError
        When `path` exists and may not be replaced, or is a folder.
    OutputBusy
        When another run is writing it.
    AstriError
        When the place cannot be written, or the disk takes no more.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"The output {path} is a folder, not a file: choose another output.")
    if path.exists() and not overwrite:
        raise UsageError(
            f"The output {path} exists already: choose another output or set overwrite=true."
        )
    partial = path.with_name(path.name + ".partial")
    lock = -1
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _take(partial, path)
            unfinished = partial / path.name
            yield unfinished
            sync(unfinished)
            os.replace(unfinished, path)
            sync(path.parent)
    except OSError as error:
        raise AstriError(
            f"The output {path} cannot be written ({error.strerror or error}): choose another "
            "place or change its permissions."
        ) from error
    finally:
        if lock >= 0:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(lock)


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write or replace a small JSON file, whole or not at all; several processes may at once."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(contents, indent=1, default=str) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _take(partial: Path, path: Path) -> int:
    """Make the folder, lock it, clear it of what a killed run left; return the descriptor."""
    existed = partial.exists()
    partial.mkdir(exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), os.stat(partial)):
            raise BlockingIOError  # the other run has just ended and removed its folder
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        raise OutputBusy(
            f"Another run is writing {path} at this moment: wait for it or choose another output."
        ) from None
    if existed:
        logger.warning("Removing what a run that was killed left in %s", partial)
        for entry in partial.iterdir():
            entry.unlink()
    return lock
