"""Bytes of a packet file that are no good packets: kept in a file of their own, with their places.

``<stem>.quarantine`` holds the bytes one after the other, ``<stem>.quarantine.json`` says of each
piece where it was in the packet file (`offset`), where it is in this one (`at`), how long it is
(`length`), why it is here (`reason`) and of which kind of packet it seems (`kind`).
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from astri_gpu.output_file import whole_file, write_json
from astri_gpu.packets.reader import Bad

__all__ = ["QUARANTINE_ENDING", "Quarantine", "quarantine_files"]

QUARANTINE_ENDING = ".quarantine"


def quarantine_files(folder: Path, raw_name: str) -> tuple[Path, Path]:
    """Return where bytes of a packet file are kept, and where their places are."""
    stem = folder / Path(raw_name).stem
    data = stem.with_name(stem.name + QUARANTINE_ENDING)
    return data, data.with_name(data.name + ".json")


class Quarantine:
    """Quarantine of one packet file, a context manager; no file appears if nothing is added.

    Parameters
    ----------
    folder
        Where its files will be; those of an earlier run are replaced or removed.
    raw_name
        Name of the packet file.
    """

    def __init__(self, folder: Path, raw_name: str) -> None:
        self._raw_name = raw_name
        self._path, self._places = quarantine_files(folder, raw_name)
        self._pieces: list[dict[str, Any]] = []
        self._n_bytes = 0
        self._stream: BinaryIO | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Quarantine":
        return self

    def add(self, bad: Sequence[Bad]) -> None:
        """Write further pieces, in the order of the file."""
        for piece in bad:
            if self._stream is None:
                unfinished = self._stack.enter_context(whole_file(self._path, overwrite=True))
                self._stream = self._stack.enter_context(unfinished.open("wb"))
            self._stream.write(piece.data)
            if piece.joined:
                self._pieces[-1]["length"] += len(piece.data)
            else:
                self._pieces.append(
                    {
                        "offset": piece.place,
                        "at": self._n_bytes,
                        "length": len(piece.data),
                        "reason": piece.reason,
                        "kind": piece.kind or None,
                    }
                )
            self._n_bytes += len(piece.data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        self._places.unlink(missing_ok=True)  # never one that belongs to other bytes
        self._stack.close()
        if self._stream is None:
            self._path.unlink(missing_ok=True)
            return
        write_json(
            self._places,
            {
                "file": self._raw_name,
                "pieces": self._pieces,
            },
        )
