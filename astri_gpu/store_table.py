"""Growing tables of a store: rows are collected until a whole shard can be written at once."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.schema import Column

__all__ = ["ROWS_PER_CHUNK", "ColumnWriter", "Growing", "TableWriter"]

ROWS_PER_CHUNK = 1024
"""Images in a chunk, the batch of one device call."""

NARROW_CHUNK_ROWS = 65_536
"""Columns without pixels: few large chunks, no shards."""

MAX_CHUNK_BYTES = 12 << 20
MAX_SHARD_BYTES = 64 << 20
MAX_CHUNKS_PER_SHARD = 8

MakeArray = Callable[[int, int | None], "Growing"]
Guard = Callable[[], AbstractContextManager[None]]


class Growing(Protocol):
    """An array that takes rows at its end, in whole blocks but for the last."""

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows of shape (row, ...)."""

    def close(self) -> None:
        """Finish the array; no rows come any more."""


def _layout(row_bytes: int, rows_per_chunk: int) -> tuple[int, int]:
    """Return (rows per chunk, rows per shard) for image-like columns."""
    chunk = max(1, min(rows_per_chunk, MAX_CHUNK_BYTES // max(1, row_bytes)))
    if chunk < rows_per_chunk:
        chunk = 1 << (chunk.bit_length() - 1)  # whole chunks then still tile a device batch
    n_chunks = max(1, min(MAX_CHUNKS_PER_SHARD, MAX_SHARD_BYTES // (chunk * max(1, row_bytes))))
    return chunk, chunk << (n_chunks.bit_length() - 1)


class ColumnWriter:
    """One growing array, written in whole shards (or whole chunks where it has no shards).

    `make` makes the array of (chunk, shard or None) rows at the first write.
    """

    def __init__(
        self,
        make: MakeArray,
        entry: Column,
        tail: tuple[int, ...],
        dtype: str,
    ) -> None:
        self.entry, self.tail, self.dtype = entry, tail, np.dtype(dtype)
        self._make = make
        self._array: Growing | None = None
        self._buffer: NDArray[Any] | None = None
        self._filled = 0
        self.n_rows = 0
        self.chunk, self.block, self.sharded = NARROW_CHUNK_ROWS, NARROW_CHUNK_ROWS, False

    @property
    def row_bytes(self) -> int:
        """Return the size of one row in bytes."""
        return int(np.prod(self.tail, dtype=np.int64)) * self.dtype.itemsize

    def append(self, values: NDArray[Any]) -> None:
        """Add rows of shape (row, *tail), writing every block that fills up."""
        self.n_rows += len(values)
        start = 0
        while start < len(values):
            if not self._filled and len(values) - start >= self.block:
                self._flush(values[start : start + self.block])
                start += self.block
                continue
            if self._buffer is None:
                self._buffer = np.empty((self.block, *self.tail), dtype=self.dtype)
            take = min(self.block - self._filled, len(values) - start)
            self._buffer[self._filled : self._filled + take] = values[start : start + take]
            self._filled += take
            start += take
            if self._filled == self.block:
                self._flush(self._buffer)
                self._filled = 0

    def close(self) -> None:
        """Write the rows that are still in memory."""
        if self._array is None:
            # Small tables get chunks of their own size: no padding to encode and to decode.
            self.chunk = max(1, min(self.chunk, self._filled or self.chunk))
            self.block = self.chunk * max(1, math.ceil(self._filled / self.chunk))
        rest = np.empty((0, *self.tail), self.dtype)
        array = self._flush(rest if self._buffer is None else self._buffer[: self._filled])
        array.close()
        self._buffer, self._filled = None, 0

    def _flush(self, rows: NDArray[Any]) -> Growing:
        if self._array is None:
            self._array = self._make(self.chunk, self.block if self.sharded else None)
        if len(rows):
            self._array.append(np.ascontiguousarray(rows, dtype=self.dtype))
        return self._array


class TableWriter:
    """Rows of one table, appended in any portion and written in whole shards.

    Make it with `StoreWriter.table`. It is to be used by one thread at a time.
    """

    def __init__(
        self, path: str, columns: dict[str, ColumnWriter], rows_per_chunk: int, guard: Guard
    ) -> None:
        self.path = path
        self._columns = columns
        self._guard = guard  # a context for all writing
        self._closed = False
        wide = [entry for entry in columns.values() if "pixel" in entry.entry.dims]
        if wide:
            chunk, block = _layout(max(entry.row_bytes for entry in wide), rows_per_chunk)
            for entry in wide:  # one layout for all, so that a shard is the same rows in each
                entry.chunk, entry.block, entry.sharded = chunk, block, True

    @property
    def n_rows(self) -> int:
        """Return the number of rows appended so far."""
        return next(iter(self._columns.values())).n_rows

    def append(self, rows: Mapping[str, Any]) -> None:
        """Add rows: for every column an array of (row, ...), all of one length.

        Raises
        ------
        AstriError
            When a column is missing or unknown, has the wrong shape or type, or the disk is full.
        """
        if rows.keys() != self._columns.keys():
            missing = sorted(self._columns.keys() - rows.keys())
            unknown = sorted(rows.keys() - self._columns.keys())
            raise AstriError(
                f"Rows for {self.path} do not fit: missing columns {missing}, unknown {unknown}."
            )
        arrays = {name: np.asarray(values) for name, values in rows.items()}
        n_rows = len(next(iter(arrays.values())))
        for name, values in arrays.items():
            target = self._columns[name]
            if values.shape != (n_rows, *target.tail):
                raise AstriError(
                    f"{self.path}/{name} takes rows of shape {(n_rows, *target.tail)}, "
                    f"not {values.shape}."
                )
            if target.dtype.kind in "iub" and values.dtype.kind not in "iub":
                raise AstriError(
                    f"{self.path}/{name} holds {target.dtype}, not {values.dtype} values."
                )
        if self._closed:
            raise AstriError(f"The table {self.path} is closed and takes no more rows.")
        with self._guard():
            for name, values in arrays.items():
                self._columns[name].append(values)

    def close(self) -> None:
        """Write what is still in memory; `StoreWriter` does it for all its tables."""
        if self._closed:
            return
        self._closed = True
        with self._guard():
            for entry in self._columns.values():
                entry.close()
