"""Reading of binary tables from mapped FITS files; see `fits_bulk`."""

import contextlib
import math
import mmap
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.io.fits_bulk_parts import check_end, find_part, opened, table_size, whole_number

__all__ = ["MappedColumn", "MappedTable"]

Rows = slice | NDArray[Any]
PIECE_BYTES = 1 << 19
"""Numbers are turned in pieces that stay in the cache of a core."""
TOUCHED_BYTES = 16 << 20
"""After so many bytes of the file the mapped pages are given back: they would count as memory."""
FORM = re.compile(r"(\d{0,18})([LXBIJKAEDCMPQ])(.*)")
TYPES = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
SIZES = {"X": 0, "A": 1, "C": 8, "M": 16, "P": 8, "Q": 16} | {
    letter: np.dtype(code).itemsize for letter, code in TYPES.items()
}
UNSIGNED = {"I": 2**15, "J": 2**31, "K": 2**63}


class MappedColumn(NamedTuple):
    """A column as the header describes it."""

    name: str
    letter: str
    """Of TFORM: B, I, J, K, E, D, L, X (bits), A (text)."""
    shape: tuple[int, ...]
    """Of an entry."""
    unit: str
    dtype: np.dtype | None
    """Of the numbers that are read; None = cannot be read."""
    offset: int
    n_bytes: int
    zero: int | float
    scale: int | float
    null: int | None


class MappedTable:
    """A binary table of a FITS file, whose columns are read when they are asked for.

    Parameters
    ----------
    path
        The file, not compressed.
    hdu
        Number or EXTNAME of the table.

    Raises
    ------
    AstriError
        When the file cannot be read, is no FITS file, has no such table, is cut off, or its header
        does not fit its rows.
    """

    def __init__(self, path: str | Path, hdu: int | str = 1) -> None:
        self.path = Path(path)
        self._file = opened(path)
        try:
            found = find_part(self._file, path, hdu)
            self.header = found.header
            self.name = str(found.header.get("EXTNAME", hdu))
            size = os.fstat(self._file.fileno()).st_size
            self.row_bytes, self.n_rows = table_size(found, path, self.name, size)
            self.columns = _columns(found.header, self.row_bytes, f"{path}[{self.name}]")
            self._end = found.start + self.row_bytes * self.n_rows
            check_end(self._file, path, self.name, found)
            self._map = self._rows = None
            if self.n_rows and self.row_bytes:
                self._map = mmap.mmap(self._file.fileno(), self._end, access=mmap.ACCESS_READ)
                self._rows = np.ndarray(
                    (self.n_rows, self.row_bytes), np.uint8, self._map, found.start
                )
        except BaseException:
            self._file.close()
            raise
        self._touched = 0

    def __enter__(self) -> "MappedTable":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back; nothing can be read afterwards."""
        self._rows = None
        if self._map is not None:
            with contextlib.suppress(BufferError):  # an error's traceback may still hold rows
                self._map.close()
            self._map = None
        self._file.close()

    def __del__(self) -> None:
        if "_touched" in vars(self):  # else it was never opened
            self.close()

    def read(
        self, name: str, rows: Rows | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return a column in native byte order, with TZERO undone and bits unpacked.

        Parameters
        ----------
        name
            Of the column.
        rows
            Slice without step, or numbers of rows (not negative) in any order; None = all.
        out
            Array (row, ...) of the right shape and type to fill; None = a new one.

        Returns
        -------
        array (row, *shape of the column)
            bool for bits and logical columns, bytes for texts.

        Raises
        ------
        AstriError
            When there is no such column, it cannot be read (of variable length, complex), has no
            such row or empty values, or the file became shorter meanwhile.
        """
        column = self._column(name)
        index = self._index(rows)
        n_rows = len(range(*index.indices(self.n_rows))) if isinstance(index, slice) else len(index)
        shape = (n_rows, *column.shape)
        if out is None:
            out = np.empty(shape, column.dtype)
        elif out.shape != shape or out.dtype != column.dtype:
            raise ValueError(f"out is {out.dtype} {out.shape}, not {column.dtype} {shape}")
        if self._file.closed:
            raise ValueError(f"{self.path} is closed")
        if os.fstat(self._file.fileno()).st_size < self._end:
            raise AstriError(
                f"{self.path} became shorter while it was read: is another program writing it?"
            )
        if not out.size:
            return out
        # Narrow columns of wide rows touch every page all the same.
        step = max(1, PIECE_BYTES // max(1, column.n_bytes))
        step = min(step, max(1, TOUCHED_BYTES // max(1, self.row_bytes)))
        for start in range(0, n_rows, step):
            stop = min(start + step, n_rows)
            if isinstance(index, slice):
                part = self._part(column, slice(index.start + start, index.start + stop))
            else:
                part = self._part(column, index[start:stop])
            self._convert(column, part, out[start:stop])
            self._give_back((stop - start) * self.row_bytes)
        return out

    def _column(self, name: str) -> MappedColumn:
        if name not in self.columns:
            raise AstriError(
                f"{self.path} has no column {name} in {self.name} (it has "
                f"{', '.join(self.columns) or 'none'}): make the file again, or give another one."
            )
        column = self.columns[name]
        if column.dtype is None:
            raise AstriError(
                f"The column {name} of {self.path}[{self.name}] has the form {column.letter}, "
                "which astri_gpu does not read: give another file."
            )
        return column

    def _index(self, rows: Rows | None) -> slice | NDArray[np.int64]:
        if rows is None:
            return slice(0, self.n_rows)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.n_rows)
            if step != 1:
                raise ValueError("rows must be a slice without step")
            return slice(start, max(start, stop))
        index = np.asarray(rows)
        if index.dtype.kind not in "iu" or index.ndim != 1:
            raise ValueError(f"rows must be a slice or numbers (row,), not {index.dtype}")
        if index.size and not (index.min() >= 0 and index.max() < self.n_rows):
            wrong = index[(index < 0) | (index >= self.n_rows)][0]
            raise AstriError(
                f"{self.path} has no row {wrong} in {self.name}: it has {self.n_rows}. Were the "
                "row numbers made from another file?"
            )
        return index.astype(np.int64)

    def _part(self, column: MappedColumn, rows: Rows) -> NDArray[np.uint8]:
        assert self._rows is not None
        return self._rows[:, column.offset : column.offset + column.n_bytes][rows]

    def _convert(self, column: MappedColumn, part: NDArray[np.uint8], out: NDArray[Any]) -> None:
        letter = column.letter
        if letter == "X":
            bits = np.unpackbits(part, axis=1, count=math.prod(column.shape))
            out[...] = bits.reshape(out.shape)
            return
        if letter == "A":
            out[...] = np.ascontiguousarray(part).view(out.dtype).reshape(out.shape)
            return
        numbers = part.view(TYPES[letter]).reshape(out.shape)
        if letter == "L":
            np.equal(numbers, ord("T"), out=out)
            return
        if column.null is not None and (numbers == column.null).any():
            raise AstriError(
                f"The column {column.name} of {self.path}[{self.name}] has empty values "
                f"(TNULL = {column.null}), which a DL0 file never has: give another file."
            )
        if out.dtype.kind == "u" and letter in UNSIGNED:
            out[...] = part.view(TYPES[letter].replace("i", "u")).reshape(out.shape)
            out ^= out.dtype.type(column.zero)
        elif out.dtype == np.int8:
            np.subtract(numbers.astype(np.int16), 128, out=out, casting="unsafe")
        elif (column.scale, column.zero) == (1, 0):
            out[...] = numbers
        else:
            np.multiply(numbers, float(column.scale), out=out)
            out += float(column.zero)

    def _give_back(self, n_bytes: int) -> None:
        self._touched += n_bytes
        if self._touched >= TOUCHED_BYTES and self._map is not None:
            # The pages stay in the cache of the system, and come back when they are touched.
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


def _columns(header: dict[str, Any], row_bytes: int, where: str) -> dict[str, MappedColumn]:
    columns: dict[str, MappedColumn] = {}
    offset = 0
    for number in range(1, whole_number(header, "TFIELDS", where, 999) + 1):
        column = _column(header, number, offset, where, row_bytes)
        offset += column.n_bytes
        columns.setdefault(column.name, column)
    if offset != row_bytes:
        raise _misfit(where, offset, row_bytes)
    return columns


def _misfit(where: str, n_bytes: int, row_bytes: int) -> AstriError:
    return AstriError(
        f"The columns of {where} have {n_bytes} bytes and its rows {row_bytes} (NAXIS1): the "
        "header is damaged, get the file or make it again."
    )


def _column(
    header: dict[str, Any], number: int, offset: int, where: str, row_bytes: int
) -> MappedColumn:
    name = str(header.get(f"TTYPE{number}", f"col{number}")).strip()
    found = FORM.fullmatch(str(header.get(f"TFORM{number}", "")).strip().upper())
    if found is None:
        raise AstriError(
            f"The column {name} of {where} has TFORM{number} = "
            f"{header.get(f'TFORM{number}')!r}, which is no form of FITS: the header is damaged, "
            "get the file or make it again."
        )
    count, letter = int(found[1] or 1), found[2]
    n_bytes = -(-count // 8) if letter == "X" else count * SIZES[letter]
    if offset + n_bytes > row_bytes:
        raise _misfit(where, offset + n_bytes, row_bytes)
    scale = _number(header, f"TSCAL{number}", 1, where)
    zero = _number(header, f"TZERO{number}", 0, where)
    null = header.get(f"TNULL{number}")
    dtype: np.dtype | None = None
    if letter in "LX":
        dtype = np.dtype(bool)
    elif letter == "A":
        dtype = np.dtype(f"S{max(1, count)}") if count else None
    elif letter in TYPES:
        dtype = _native(letter, scale, zero)
    shape: tuple[int, ...] = (count,) if letter != "A" and (count != 1 or letter == "X") else ()
    return MappedColumn(
        name,
        letter,
        _shape(header.get(f"TDIM{number}"), shape, count, letter),
        str(header.get(f"TUNIT{number}", "")),
        dtype,
        offset,
        n_bytes,
        zero,
        scale,
        null if letter in "BIJK" and isinstance(null, int) else None,
    )


def _native(letter: str, scale: int | float, zero: int | float) -> np.dtype:
    own = np.dtype(TYPES[letter]).newbyteorder("=")
    if (scale, zero) == (1, 0):
        return own
    if scale == 1 and zero == UNSIGNED.get(letter):
        return np.dtype(f"u{own.itemsize}")
    if letter == "B" and (scale, zero) == (1, -128):
        return np.dtype(np.int8)
    return np.dtype(np.float64)


def _shape(text: Any, shape: tuple[int, ...], count: int, letter: str) -> tuple[int, ...]:
    """Return the shape that TDIM gives, where it fits the numbers of the column."""
    found = re.fullmatch(r"\(\s*\d{1,18}(\s*,\s*\d{1,18})*\s*\)", str(text or "").strip())
    if found is None or letter not in TYPES:
        return shape
    sizes = tuple(int(size) for size in re.findall(r"\d+", found[0]))[::-1]
    return sizes if math.prod(sizes) == count else shape


def _number(header: dict[str, Any], name: str, default: int, where: str) -> int | float:
    value = header.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise AstriError(
            f"{name} of {where} is {value!r}, not a number: the header is damaged, get the file or "
            "make it again."
        )
    return int(value) if float(value).is_integer() else value
