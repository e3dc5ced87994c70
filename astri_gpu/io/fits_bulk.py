"""Binary tables of FITS files in bulk: rows are written and read as bytes, each moved once.

A row of a FITS table is a row of a packet file without some of its fields: both are big-endian and
packed. So nothing is converted: `BulkWriter` copies the bytes of the fields that lie side by side
together, and turns the top bit of unsigned numbers, which is what TZERO means. `MappedTable` reads
the columns of such a table (or of any other) from the mapped file.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.io.fits_bulk_cards import (
    BLOCK,
    CARD,
    ZEROS,
    BulkColumn,
    Keywords,
    header_bytes,
    table_cards,
)
from astri_gpu.io.fits_bulk_parts import read_header
from astri_gpu.io.fits_bulk_read import MappedTable
from astri_gpu.output_file import whole_file

__all__ = ["BulkColumn", "BulkWriter", "Keywords", "MappedTable", "read_header"]

BUFFER_BYTES = 1 << 20
"""Rows are put together in a buffer of this size, which fits into the cache of a core."""
ROWS_CARD = 4  # place of NAXIS2 among the cards of a table


class BulkWriter:
    """A FITS file with one table that takes rows at its end, a context manager.

    The file appears under its name at the end, whole or not at all.

    Parameters
    ----------
    path
        The file to make.
    name
        EXTNAME of the table.
    columns
        Of the table, in order.
    cards
        Of the primary header, name -> (value, comment); see `fits_bulk_cards.header_bytes`.
    table_keywords
        More of the table.
    overwrite
        Replace an existing file (at the very end).

    Raises
    ------
    UsageError
        When the file exists and may not be replaced.
    AstriError
        When the place cannot be written, or the disk takes no more.
    """

    def __init__(
        self,
        path: str | Path,
        name: str,
        columns: Sequence[BulkColumn],
        cards: Keywords | None = None,
        *,
        table_keywords: Keywords | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.name = name
        self.columns = tuple(columns)
        self.n_rows = 0
        self._cards = dict(cards or {})
        self._table_keywords = dict(table_keywords or {})
        self._overwrite = overwrite
        self._stack = contextlib.ExitStack()
        self._descriptor = -1
        self._rows_place = 0
        self._row = np.dtype([(column.name, column.dtype) for column in self.columns])
        self._plans: dict[np.dtype, _Plan] = {}
        n_buffered = max(1, BUFFER_BYTES // max(1, self._row.itemsize))
        self._buffer = np.empty(n_buffered, self._row)
        self._n_buffered = 0

    def __enter__(self) -> "BulkWriter":
        primary = {
            "SIMPLE": (True, "FITS"),
            "BITPIX": (8, "bytes"),
            "NAXIS": (0, "no data here"),
            "EXTEND": (True, "a table follows"),
        }
        first = header_bytes(primary | self._cards)
        table = header_bytes(table_cards(self.name, self.columns, self._table_keywords))
        self._rows_place = len(first) + ROWS_CARD * CARD
        with contextlib.ExitStack() as stack:
            unfinished = stack.enter_context(whole_file(self.path, overwrite=self._overwrite))
            self._descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            stack.callback(self._close)
            self._write(first + table)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            # What goes wrong now must reach the context of the file like what went wrong before.
            with self._stack:
                self._finish()
        else:
            self._stack.__exit__(kind, error, trace)

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows at the end.

        Parameters
        ----------
        rows
            (row,) structured, big-endian; may have more fields than the table and lie anywhere.
            They are not changed.

        Raises
        ------
        ValueError
            When a field is not there or has another type than its column.
        """
        if rows.dtype not in self._plans:
            self._plans[rows.dtype] = _Plan(rows.dtype, self._row, self.columns)
        plan, start = self._plans[rows.dtype], 0
        while start < len(rows):
            stop = min(len(rows), start + len(self._buffer) - self._n_buffered)
            end = self._n_buffered + stop - start
            plan.copy(rows[start:stop], self._buffer[self._n_buffered : end])
            self._n_buffered, start = end, stop
            if end == len(self._buffer):
                self._flush()
        self.n_rows += len(rows)

    def _flush(self) -> None:
        self._write(self._buffer[: self._n_buffered].view(np.uint8).data)
        self._n_buffered = 0

    def _finish(self) -> None:
        if self._n_buffered:
            self._flush()
        self._write(bytes(-self.n_rows * self._row.itemsize % BLOCK))
        os.pwrite(self._descriptor, f"NAXIS2  = {self.n_rows:>20d}".encode(), self._rows_place)

    def _write(self, data: Any) -> None:
        view = memoryview(data)
        while view:  # the system may take less than it is given
            view = view[os.write(self._descriptor, view) :]

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


class _Plan:
    """How rows of one type become rows of the table."""

    def __init__(self, source: np.dtype, target: np.dtype, columns: Sequence[BulkColumn]) -> None:
        pieces: list[list[int]] = []  # offset in the source, offset in the target, bytes
        turned: list[_Bytes] = []
        self._low: list[tuple[str, int]] = []
        place = 0
        for column in columns:
            size = column.dtype.itemsize
            start = _field(source, column)
            if pieces and pieces[-1][0] + pieces[-1][2] == start:
                pieces[-1][2] += size
            else:
                pieces.append([start, place, size])
            if column.low_bits is not None:
                self._low.append((column.name, (1 << column.low_bits) - 1))
            if column.code in ZEROS:
                turned.append(_Bytes(place, int(column.code[1:]), column.count))
            place += size
        self._source = _overlay(source.itemsize, [_Bytes(at, 1, n) for at, _, n in pieces])
        self._target = _overlay(target.itemsize, [_Bytes(at, 1, n) for _, at, n in pieces])
        self._turned = turned
        self._words = _overlay(target.itemsize, [entry.words(place) for entry in turned])

    def copy(self, rows: NDArray[Any], out: NDArray[Any]) -> None:
        """Fill rows of the table."""
        source, target = rows.view(self._source), out.view(self._target)
        for name in self._source.names or ():
            target[name][...] = source[name]
        for name, mask in self._low:
            out[name] &= mask
        words = out.view(self._words)
        for number, entry in enumerate(self._turned):
            # Turning the first bit of a big-endian number adds half of its range.
            field = words[f"{number}"]
            if field.dtype.itemsize == 1:
                field = field[:, :: entry.size]
            field ^= field.dtype.type(0x80)


class _Bytes(NamedTuple):
    """Numbers in a row."""

    offset: int
    size: int
    n_numbers: int

    def words(self, row_bytes: int) -> "_Bytes":
        """Return them as bytes where they do not lie at multiples of their size in memory."""
        if self.offset % self.size or row_bytes % self.size:
            return _Bytes(self.offset, 1, self.size * self.n_numbers)
        return self


def _field(source: np.dtype, column: BulkColumn) -> int:
    """Return where the field of a column begins in the rows."""
    if source.names is None or column.field not in source.names:
        raise ValueError(f"the rows have no field {column.field} for the column {column.name}")
    found, offset = source.fields[column.field][:2]  # type: ignore[index]
    if found != column.dtype:
        raise ValueError(
            f"the field {column.field} of the rows is {found}, and the column {column.name} takes "
            f"{column.dtype}"
        )
    return int(offset)


def _overlay(row_bytes: int, fields: Sequence[_Bytes]) -> np.dtype:
    """Return a type that views rows as these fields, named by their numbers."""
    return np.dtype(
        {
            "names": [f"{number}" for number in range(len(fields))],
            # Little-endian: the first byte of a number in the file is its lowest one.
            "formats": [(f"<u{entry.size}", (entry.n_numbers,)) for entry in fields],
            "offsets": [entry.offset for entry in fields],
            "itemsize": row_bytes,
        }
    )
