"""Reading sim_telarray files event by event, with damage reported instead of guessed around."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astri_gpu.errors import AstriError

__all__ = ["EventReader", "check_format"]

Event = dict[str, Any]

SYNC_MARKERS = (b"\x37\x8a\x1f\xd4", b"\xd4\x1f\x8a\x37")
GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
OTHER_COMPRESSIONS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x1f\x9d": "compress",
}


def check_format(path: Path) -> None:
    """Raise an `AstriError` unless `path` is an EventIO file, plain or packed with gzip or zstd."""
    if path.is_dir():
        raise AstriError(f"{path} is a directory, not a sim_telarray file.")
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise AstriError(f"The file {path} cannot be read ({error.strerror}).") from error
    if not start:
        raise AstriError(f"The file {path} is empty: copy it again.")
    for magic, name in OTHER_COMPRESSIONS.items():
        if start.startswith(magic):
            raise AstriError(
                f"The file {path} is compressed with {name}, which cannot be read here: unpack it "
                "or pack it with gzip or zstd."
            )
    if start.startswith((GZIP, ZSTD)):
        try:
            start = _unpacked_start(path, start)
        except Exception as error:  # zlib, gzip and zstd have no common error class
            raise AstriError(
                f"The file {path} cannot be unpacked ({error}): copy it again."
            ) from error
    if not start.startswith(SYNC_MARKERS):
        raise AstriError(
            f"The file {path} is not an EventIO file (no sync marker at its start): "
            "sim_telarray output is needed."
        )


def _unpacked_start(path: Path, start: bytes) -> bytes:
    if start.startswith(GZIP):
        import gzip

        with gzip.open(path) as stream:
            return stream.read(4)
    import zstandard

    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as unpacked:
        return bytes(unpacked.read(4))


class EventReader:
    """Triggered events of one sim_telarray file, in order; a context manager.

    After the last event `damage` says how the file ends too early (None = it is complete) and
    `notes` lists what was met and left alone.
    """

    def __init__(
        self, path: Path, allowed_telescopes: tuple[int, ...], calibration_events: bool
    ) -> None:
        check_format(path)
        from astri_gpu.io.eventio_file import EventFile

        self.path = path
        self.damage: str | None = None
        self.notes: list[str] = []
        self.n_events = 0
        self._last: int | None = None
        self._unknown = 0
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.file = EventFile(
                    path,
                    allowed_telescopes=allowed_telescopes or None,
                    skip_calibration=not calibration_events,
                )
            self._sort(caught)
        except (EOFError, StopIteration) as error:
            raise AstriError(
                f"The file {path} is truncated before its first event: copy it again."
            ) from error
        except Exception as error:  # eventio raises many kinds on damaged bytes
            raise AstriError(
                f"The file {path} is damaged before its first event "
                f"({_short(error)}): copy it again."
            ) from error

    def __enter__(self) -> "EventReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def place(self) -> str:
        """Return where in the file we are, in words."""
        return "before its first event" if self._last is None else f"after event {self._last}"

    def __iter__(self) -> Iterator[Event]:
        for event in self._events():
            self.n_events += 1
            self._last = int(event.get("event_id", 0))
            yield event

    def _events(self) -> Iterator[Event]:
        while True:
            caught: list[warnings.WarningMessage] = []
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    event = next(self.file)
            except StopIteration:
                break
            except Exception as error:  # eventio raises many kinds on damaged bytes
                self._set_damage(f"is damaged ({_short(error)})")
                pending = self.file.current_event
                self.file.current_event = None
                if pending and pending.get("telescope_events") and "laser_calibrations" in pending:
                    yield pending  # it was complete, only the start of the next one was awaited
                return
            finally:
                self._sort(caught)  # eventio only warns about the end of a truncated file
            yield event
        self._finish()

    def _finish(self) -> None:
        if self.damage is None and self.file.histograms is None:
            self._set_damage("ends without the closing histograms, so it is truncated")
        if self.damage is None:
            try:
                n_left = self.file.drain()
            except Exception as error:  # a checksum that does not fit, known only at the end
                self._set_damage(f"is damaged ({_short(error)})")
            else:
                if n_left:
                    self.notes.append(
                        f"{self.path}: {n_left} bytes after the closing histograms were not read; "
                        "were several files concatenated?"
                    )
        if self._unknown:
            self.notes.append(f"{self.path}: {self._unknown} objects of unknown type were skipped.")

    def _sort(self, caught: list[warnings.WarningMessage]) -> None:
        for warning in caught:
            if warning.category.__name__ == "UnknownObjectWarning":
                self._unknown += 1
            elif issubclass(warning.category, (ResourceWarning, DeprecationWarning)):
                continue  # about the code of libraries, not about this file
            else:
                text = str(warning.message)
                known = "truncated" in text or "end-of-stream" in text
                self._set_damage("is truncated" if known else f"is damaged ({text})")

    def _set_damage(self, text: str) -> None:
        if self.damage is None:
            self.damage = text


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".")[:120] if text else type(error).__name__
