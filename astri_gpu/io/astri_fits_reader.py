"""Reading FITS tables in blocks of rows, with their columns, types and units checked first."""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.io.astri_fits_file import HDU_LIST
from astri_gpu.io.astri_fits_model import EVENTS, EXTRA, LEVELS, Field, fields

__all__ = ["FitsFile", "TableReader", "fits_paths", "is_fits", "recorded_provenance"]

LEAST_LIKENESS = 1 / 3
MAGIC = b"SIMPLE  ="
GZIP = b"\x1f\x8b"
SUFFIXES = (".fits", ".fits.gz", *LEVELS, *(f"{level}.gz" for level in LEVELS))
KINDS = {"?": "b", "S": "SU", "i": "iu", "u": "iu", "f": "f"}
WORDS = {"b": "logical", "S": "text", "U": "text", "i": "integer", "u": "integer", "f": "real"}
# Units that would give wrong numbers if they were others than expected, by their usual spellings.
SPELLINGS = {"degree": "deg", "degrees": "deg", "radian": "rad", "tev": "tev", "sec": "s"}
CHECKED_UNITS = ("deg", "rad", "TeV", "m", "s", "ns")


def is_fits(path: str | Path) -> bool:
    """Return whether a file, plain or packed with gzip, is FITS, or a folder holds such files."""
    path = Path(path)
    if path.is_dir():
        return not (path / "zarr.json").exists() and bool(fits_paths(path))
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
        if start.startswith(GZIP):
            start = zlib.decompressobj(wbits=31).decompress(start, len(MAGIC))
    except (OSError, zlib.error):
        return False
    return start.startswith(MAGIC)


def fits_paths(folder: Path) -> list[Path]:
    """Return the FITS files in a folder, by name, sorted."""
    found = [entry for entry in folder.iterdir() if entry.name.endswith(SUFFIXES)]
    return sorted(entry for entry in found if entry.is_file())


def recorded_provenance(path: Path) -> Mapping[str, Any]:
    """Return the provenance of an exported file, or of a folder of them.

    Raises
    ------
    AstriError
        When it is not an export of this package.
    """
    if path.is_dir():
        inside = fits_paths(path)
        if not inside:
            raise AstriError(f"{path} holds no FITS files")
        path = inside[0]
    with FitsFile(path) as file:
        record = file.extra().get("provenance")
    if not isinstance(record, Mapping):
        raise AstriError(f"{path} has no provenance of this package")
    return record


class FitsFile:
    """A FITS file with event tables, open for reading; a context manager.

    Raises
    ------
    AstriError
        When it is no FITS file, or cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._descriptor = -1
        self._file: Any = None
        self._tables: dict[str, Any] = {}

    def __enter__(self) -> "FitsFile":
        import fitsio

        try:
            self._descriptor = os.open(self.path, os.O_RDONLY)
            # CFITSIO takes brackets and signs in names for filters: it is given a descriptor.
            self._file = fitsio.FITS(f"/proc/self/fd/{self._descriptor}")
            self._tables = {
                hdu.get_extname(): hdu for hdu in self._file if hasattr(hdu, "get_colnames")
            }
            for name, hdu in self._tables.items():
                _check_width(name, hdu)
            listed = str(self._file[0].read_header().get(HDU_LIST, "")).split()
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._close()
            raise AstriError(
                f"{self.path} cannot be read ({_reason(error)}): it is no FITS file, or cut short."
            ) from error
        # Others may have been taken out on purpose; without the last one the file was cut.
        if listed and listed[-1] not in self._tables:
            lost = [name for name in listed if name not in self._tables]
            self._close()
            raise AstriError(
                f"{self.path} is cut short: it lacks the table {lost[0]}. Copy it again."
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __contains__(self, name: str) -> bool:
        return name in self._tables

    def header(self, name: str | None = None) -> Mapping[str, Any]:
        """Return keywords of the primary header or that of a table."""
        with self.errors():
            header = (self._file[0] if name is None else self._tables[name]).read_header()
            found: dict[str, Any] = {key: header[key] for key in header if key}
            return found

    def level(self) -> str:
        """Return the level of the file, known by the columns of EVENTS.

        Raises
        ------
        AstriError
            When it has no table EVENTS, or one of none of the levels.
        """
        if EVENTS not in self:
            raise AstriError(
                f"{self.path} has no table {EVENTS}, but {', '.join(filter(None, self._tables))}: "
                f"files of the levels {', '.join(LEVELS)} are read here."
            )
        names = set(self._tables[EVENTS].get_colnames())

        def likeness(level: str) -> float:
            expected = {entry.name for entry in fields(level, simulated=True)}
            return len(expected & names) / len(expected | names)

        level = max(LEVELS, key=likeness)  # a column may be missing, which is told by its name
        if likeness(level) < LEAST_LIKENESS:
            raise AstriError(
                f"The table {EVENTS} of {self.path} has the columns of none of the levels "
                f"{', '.join(LEVELS)}: is it an event list of another level?"
            )
        return level

    def table(self, name: str, entries: Sequence[Field]) -> "TableReader":
        """Return a table whose columns have been checked.

        Raises
        ------
        AstriError
            When the file has no such table, or a column is missing, of another type or unit.
        """
        if name not in self:
            raise AstriError(f"{self.path} has no table {name}: it is incomplete.")
        return TableReader(self, name, self._tables[name], entries)

    def extra(self) -> dict[str, Any]:
        """Return what only files of this package have: a dictionary, empty for others.

        Raises
        ------
        AstriError
            When it is damaged.
        """
        if EXTRA not in self or "META" not in self._tables[EXTRA].get_colnames():
            return {}
        with self.errors():
            text = self._tables[EXTRA].read(columns="META", rows=[0])[0]
        try:
            meta = json.loads(text)
            if not isinstance(meta, dict):
                raise ValueError("no dictionary")
        except ValueError as error:
            raise AstriError(
                f"The table {EXTRA} of {self.path} is damaged ({error}): copy the file again."
            ) from error
        return meta

    def first_column(self, name: str) -> tuple[int, NDArray[Any] | None]:
        """Return the rows of a table, and its first column if that holds whole numbers."""
        with self.errors():
            hdu = self._tables[name]
            column = hdu.get_colnames()[0]
            values = hdu.read(columns=column)
        whole = values.ndim == 1 and values.dtype.kind in "iu"
        return len(values), values.astype(np.int64) if whole else None

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the numbers of a table with a single row, by column; empty without the table."""
        if name not in self:
            return {}
        with self.errors():
            row = self._tables[name][0:1]
        return {
            column: row[column][0].astype(np.float64)
            for column in row.dtype.names
            if row[column].dtype.kind == "f"
        }

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Give a context in which CFITSIO's errors become a sentence."""
        try:
            yield
        except (OSError, ValueError, IndexError, MemoryError) as error:
            raise AstriError(
                f"{self.path} cannot be read to its end ({_reason(error)}): it is damaged or cut "
                "short; copy it again."
            ) from error


class TableReader:
    """Columns of one table; make it with `FitsFile.table`.

    Attributes
    ----------
    names
        Of the asked columns, those that the table has.
    n_rows
        Of the table.
    """

    def __init__(self, file: FitsFile, name: str, hdu: Any, entries: Sequence[Field]) -> None:
        self._file, self._hdu = file, hdu
        self.where = f"the table {name} of {file.path}"
        with file.errors():
            self.n_rows = int(hdu.get_nrows())
            there = set(hdu.get_colnames())
            dtype = np.dtype(hdu.get_rec_dtype()[0])
        missing = [entry.name for entry in entries if entry.required and entry.name not in there]
        if missing:
            raise AstriError(
                f"{self.where[0].upper()}{self.where[1:]} lacks {_several('column', missing)}."
            )
        self.names = [entry.name for entry in entries if entry.name in there]
        for entry in entries:
            if entry.name in there:
                self._check(entry, dtype[entry.name])
        header = file.header(name)
        units = {
            str(header.get(f"TTYPE{k}")): str(header.get(f"TUNIT{k}", ""))
            for k in range(1, len(dtype.names or ()) + 1)
        }
        for entry in entries:
            unit = units.get(entry.name, "").strip()
            spelt = SPELLINGS.get(unit.lower(), unit.lower())
            if (
                entry.unit in CHECKED_UNITS
                and unit not in ("", "-")
                and spelt != entry.unit.lower()
            ):
                raise AstriError(
                    f"{entry.name} in {self.where} has the unit '{unit}', but {entry.unit} is "
                    "expected."
                )

    def _check(self, entry: Field, found: np.dtype[Any]) -> None:
        """Refuse a column of another kind or shape."""
        kind = "?" if entry.dtype == "?" else str(np.dtype(entry.dtype).kind)
        shape = found.shape
        base = found.base.kind
        if base not in KINDS[kind] or (shape not in ((), (1,)) and not entry.shape):
            many = f"{shape[0]} values a row of " if shape else ""
            expected = WORDS[np.dtype(entry.dtype).kind]
            raise AstriError(
                f"{entry.name} in {self.where} holds {many}type {WORDS.get(base, base)}, but "
                f"single {expected} values are expected."
                if not entry.shape
                else f"{entry.name} in {self.where} holds type {WORDS.get(base, base)}, but "
                f"{expected} values are expected."
            )

    def read(self, start: int = 0, stop: int | None = None) -> dict[str, NDArray[Any]]:
        """Return rows of the columns, of the byte order of this machine."""
        stop = self.n_rows if stop is None else stop
        with self._file.errors():
            rows = self._hdu[start:stop] if stop > start else self._hdu.read()[:0]
        columns = {}
        for name in self.names:
            values = rows[name]
            if values.shape[1:] == (1,):
                values = values[:, 0]
            columns[name] = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        return columns


def _check_width(name: str, hdu: Any) -> None:
    """Refuse a table whose columns are not as wide as its rows: fitsio would write past memory."""
    width = int(np.dtype(hdu.get_rec_dtype()[0]).itemsize)
    if int(hdu.read_header()["NAXIS1"]) != width:
        raise ValueError(f"rows of the table {name} are not as wide as their columns")


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _several(word: str, names: Sequence[str]) -> str:
    return f"the {word} {names[0]}" if len(names) == 1 else f"the {word}s {', '.join(names)}"
