"""Products of stages that sweeps use again: stores and files under a key of all they depend on."""

import functools
import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astri_gpu import __version__
from astri_gpu.errors import AstriError
from astri_gpu.output_file import write_json
from astri_gpu.store import fingerprint
from astri_gpu.sweeps.waiting import held

__all__ = ["REUSED", "RUN", "Cache", "checksum", "digest"]

logger = logging.getLogger(__name__)

RUN: Counter[str] = Counter()
REUSED: Counter[str] = Counter()
"""Products of stages that this process has made, and taken from a cache, jobs that failed too."""
_VERIFIED: set[tuple[str, str]] = set()  # entries and checksums that this process has compared
KEY_LENGTH = 32  # hexadecimal digits of SHA-256 in names: 128 bits


def checksum(path: Path) -> str:
    """Return the fingerprint of a store or file, remembered by this process while it is unchanged.

    Whether it has changed is told by time and size: of the file, or of the metadata of a store,
    which every writer replaces.

    Raises
    ------
    AstriError
        When `path` cannot be read.
    """
    root = path / "zarr.json" if path.is_dir() else path
    try:
        status = root.stat()
    except OSError:
        return fingerprint(path)
    state = (status.st_mtime_ns, status.st_size, status.st_ino)
    return _remembered(os.path.abspath(path), state)


@functools.lru_cache(maxsize=4096)
def _remembered(path: str, state: tuple[int, ...]) -> str:
    return fingerprint(path)


def digest(parts: Any) -> str:
    """Return the key of anything that JSON can hold: the first 128 bits of SHA-256, hexadecimal."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


@dataclass
class Cache:
    """A folder of products, ``<stage>/<key><suffix>``, each with what it was made of beside it.

    Parameters
    ----------
    folder
        Made when the first entry is.

    Attributes
    ----------
    n_run, n_reused
        Entries made and found since this object exists, by stage.
    """

    folder: Path

    def __post_init__(self) -> None:
        self.n_run: dict[str, int] = {}
        self.n_reused: dict[str, int] = {}

    def get(
        self,
        stage: str,
        options: Mapping[str, Any],
        inputs: Sequence[Path],
        suffix: str,
        make: Callable[[Path], Any],
    ) -> Path:
        """Return the product of a stage, made now if it is not there yet.

        Jobs that want the same product at the same time wait for the one that makes it. An entry
        that is not as it was written is removed and made again.

        Parameters
        ----------
        stage
            Name of the stage.
        options
            Those that decide what comes out.
        inputs
            What it is made of; their checksums are part of the key.
        suffix
            Of the name, ".zarr" or ".skops".
        make
            Function that writes the product, whole or not at all, under the path it is given.

        Raises
        ------
        AstriError
            From `make`, or when an input cannot be read or the folder not be written.
        """
        checksums = [checksum(path) for path in inputs]
        parts = {
            "stage": stage,
            "version": __version__,
            "options": options,
            "inputs": checksums,
        }
        key = digest(parts)
        entry = self.folder / stage / (key + suffix)
        with held(self.folder / "locks" / f"{stage}-{key}"):
            if _is_whole(entry):
                self.n_reused[stage] = self.n_reused.get(stage, 0) + 1
                REUSED[stage] += 1
                return entry
            _remove(entry)
            entry.parent.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            make(entry)
            written = {
                **parts,
                "sources": [str(path) for path in inputs],
                "checksum": checksum(entry),
                "bytes": _size(entry),
                "seconds": round(time.perf_counter() - started, 3),
            }
            write_json(_note(entry), written)
            self.n_run[stage] = self.n_run.get(stage, 0) + 1
            RUN[stage] += 1
        return entry

    @property
    def n_bytes(self) -> int:
        """Return the size of all entries, as noted when they were written."""
        notes = (_read_json(path) for path in self.folder.glob("*/*.json"))
        return sum(int(note.get("bytes", 0)) for note in notes)


def _note(entry: Path) -> Path:
    return entry.with_name(entry.name + ".json")


def _is_whole(entry: Path) -> bool:
    """Return whether an entry is there as it was written."""
    if not entry.exists():
        return False
    note = _read_json(_note(entry))
    wanted = note.get("checksum")
    known = str(entry.absolute()), str(wanted)
    if known in _VERIFIED and _size(entry) == note.get("bytes"):
        return True  # every job of a sweep asks: the whole store is read once in a process
    try:
        # Not `checksum`: pieces of a store may be gone while its metadata is unchanged.
        whole = (
            wanted is not None
            and (checksum(entry) if entry.is_file() else fingerprint(entry)) == wanted
        )
    except AstriError:
        whole = False
    if whole:
        _VERIFIED.add(known)
    elif wanted is not None:
        logger.warning("%s is not as it was written: it is made again", entry)
    return whole


def _remove(entry: Path) -> None:
    """Remove an entry; what is left of it after a kill is never taken for one."""
    _note(entry).unlink(missing_ok=True)
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _size(entry: Path) -> int:
    if entry.is_file():
        return entry.stat().st_size
    return sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())


def _read_json(path: Path) -> dict[str, Any]:
    """Return the contents of a note; nothing where there is none or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
