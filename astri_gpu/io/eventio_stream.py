"""Top-level objects of an EventIO file, one after the other in memory.

The bytes are unpacked in large pieces into one buffer that is used again and again, so that memory
stays flat. What is asked for beyond the end, or beyond the first damaged byte, gives what reading
the file itself would give there: nothing, or the error of the library that unpacks it.
"""

import struct
from collections.abc import Container
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from eventio.base import KNOWN_OBJECTS, EventIOObject, read_header, read_sync_marker

__all__ = ["Head", "ObjectStream"]

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SYNC = 0xD41F8A37  # written as the machine's own number; the other order is not read by eventio
HEAD = struct.Struct("<IIiI")  # sync marker, type and version, ident, length
EXTENSION = struct.Struct("<I")

PIECE = 128 << 10  # the largest block of zstd; what follows an error inside a piece is lost
CAREFUL_PIECE = 16
BUFFER = 4 << 20


class Head(NamedTuple):
    """Header of an object whose content is ``data[start:stop]`` of its stream."""

    type: int
    version: int
    ident: int
    container: bool
    start: int
    stop: int


class _Source(Protocol):
    def readinto(self, target: memoryview, /) -> int | None: ...

    def close(self) -> None: ...


class ObjectStream:
    """The objects of one file, an iterator; plain or packed with gzip or zstd (several frames too).

    As an iterator it gives objects of eventio, which read from it by `seek` and `read` as from a
    file. `peek` and `skip` are for those who decode the bytes of `data` themselves. All places are
    counted in bytes of the unpacked file, but those of a `Head`.

    Attributes
    ----------
    data : uint8 (byte,)
        The buffer; it and the places of a `Head` hold until the next `peek`, `skip` or ``next``.
    view : memoryview
        The same bytes.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._source = _opened(self._path)
        self._piece = PIECE
        self._error: Exception | None = None
        self._ended = False
        self._allocate(BUFFER)
        self._base = self._filled = 0  # place of the first byte in the buffer, and their number
        self._next = 0  # place of the next object
        self._keep = 0  # place of the object at hand, from where on bytes may still be asked for
        self._position = 0  # of `read`

    def __iter__(self) -> "ObjectStream":
        return self

    def __next__(self) -> Any:
        """Return the next object as eventio makes it.

        Raises
        ------
        StopIteration
            At the end of the file.
        EOFError
            Where the file ends within a header.
        """
        self._begin()
        self._position = self._next
        read_sync_marker(self)
        header = read_header(self, toplevel=True, offset=self._next)
        self._next += header.total_size
        return KNOWN_OBJECTS.get(header.type, EventIOObject)(header, filehandle=self)

    def peek(self, types: Container[int]) -> Head | None:
        """Return the header of the next object, whose content is then complete in `data`.

        None stands for everything else: another type than `types`, the end, an object that is cut
        off or anything unusual about its header; ``next`` then finds out.
        """
        self._begin()
        start = self._next + HEAD.size
        if not self._reach(start):
            return None
        sync, word, ident, length = HEAD.unpack_from(self.view, self._next - self._base)
        kind = word & 0xFFFF
        if sync != SYNC or kind not in types:
            return None
        size = length & 0x3FFFFFFF
        if word & 0x20000:
            if not self._reach(start + EXTENSION.size):
                return None
            size |= (EXTENSION.unpack_from(self.view, start - self._base)[0] & 0xFFF) << 30
            start += EXTENSION.size
        if not self._reach(start + size):
            return None
        start -= self._base
        return Head(kind, word >> 20, ident, bool(length & 0x40000000), start, start + size)

    def skip(self, head: Head) -> None:
        """Go on behind an object that `peek` gave."""
        self._next = self._base + head.stop

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the place of `read`, not before the object at hand, and return it."""
        position = self._position + offset if whence == 1 else offset
        if whence == 2 or position < self._keep:
            raise OSError("an EventIO file is read forwards, object by object")
        self._position = position
        return position

    def tell(self) -> int:
        """Return the place of `read`."""
        return self._position

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer where the file ends.

        Raises
        ------
        Exception
            Of the library that unpacks the file, where it is damaged or cut off.
        """
        if not self._reach(self._position + size) and self._error is not None:
            raise self._error
        start = self._position - self._base
        data = bytes(self.view[start : min(start + size, self._filled)]) if size > 0 else b""
        self._position += len(data)
        return data

    def drain(self) -> int:
        """Return the number of bytes behind the last object, read to have their checksums tested.

        Raises
        ------
        Exception
            Of the library that unpacks the file, where it is damaged.
        """
        self._begin()
        total = 0
        while self._reach(self._next + 1):
            total += self._base + self._filled - self._next
            self._next = self._base + self._filled
            self._begin()
        if self._error is not None:
            raise self._error
        return total

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _begin(self) -> None:
        """Make the next object the one at hand, reading on to its place."""
        self._keep = self._next
        while self._base + self._filled < self._keep:  # the object before was not read, only passed
            self._base, self._filled = self._base + self._filled, 0
            if self._ended:
                self._base = self._keep  # behind the end, where there is nothing
                return
            self._fill()

    def _reach(self, position: int) -> bool:
        """Return whether all bytes before a place are in the buffer, reading on where needed."""
        while self._base + self._filled < position:
            if self._ended:
                return False
            if self._filled == len(self.data):
                self._make_room()
            self._fill()
        return True

    def _make_room(self) -> None:
        """Move the object at hand to the start of the buffer, enlarged where it takes up half."""
        old, used = self.data, self._keep - self._base
        rest = self._filled - used
        if rest > len(old) // 2:
            self._allocate(2 * len(old))
        self.data[:rest] = old[used : self._filled]  # NumPy allows for overlapping ranges
        self._base, self._filled = self._keep, rest

    def _allocate(self, size: int) -> None:
        self.data = np.empty(size, dtype=np.uint8)
        self.view = self.data.data

    def _fill(self) -> None:
        """Read one more piece; at the end or at an error, note it.

        A piece that fails is lost as a whole, so the file is then read again up to its start and
        on in small pieces: every object before the damage is found.
        """
        try:
            n = self._source.readinto(self.view[self._filled : self._filled + self._piece])
        except Exception as error:  # zlib, gzip, isal and zstd have no common error class
            try:
                if self._piece == CAREFUL_PIECE:
                    raise
                self._piece = CAREFUL_PIECE
                self._open_again(self._base + self._filled)
            except Exception:
                self._ended, self._error = True, error
            return
        if n:
            self._filled += n
        else:
            self._ended = True

    def _open_again(self, position: int) -> None:
        self._source.close()
        self._source = _opened(self._path)
        waste = memoryview(bytearray(PIECE))
        while position > 0:
            n = self._source.readinto(waste[:position])
            if not n:
                raise EOFError("the file has become shorter while it was read")
            position -= n


def _opened(path: Path) -> _Source:
    """Return the unpacked bytes of a file."""
    with path.open("rb") as stream:
        start = stream.read(len(ZSTD))
    if start.startswith(GZIP):
        source: _Source = _gzip_file()(path)
        return source
    raw = path.open("rb", buffering=0)
    if start == ZSTD:
        import zstandard

        packed: _Source = zstandard.ZstdDecompressor().stream_reader(
            raw, read_size=1 << 20, read_across_frames=True
        )
        return packed
    return raw


def _gzip_file() -> Any:
    """Return the class that reads gzip files: isal's, 2.2 times as fast as zlib, or Python's."""
    try:
        return import_module("isal.igzip").IGzipFile
    except ImportError:
        return import_module("gzip").GzipFile
