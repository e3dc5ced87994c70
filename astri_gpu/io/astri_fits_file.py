"""Writing FITS files, whole or not at all, through fitsio in blocks of rows."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.io.astri_fits_model import Field, numpy_type
from astri_gpu.output_file import whole_file
from astri_gpu.store_disk import disk_errors

__all__ = ["FitsTable", "FitsWriter", "fits_file"]

HISTORY_LENGTH = 70  # characters of a card
COMMENT_LENGTH = 46  # behind a name of up to 18 characters
HDU_LIST = "HDUS"
_NUMBERS = itertools.count()


@contextlib.contextmanager
def fits_file(path: str | Path, *, overwrite: bool = False) -> Iterator["FitsWriter"]:
    """Give a writer for a FITS file that appears whole or not at all.

    A name that ends in ``.gz`` is compressed by CFITSIO, in memory.

    Raises
    ------
    UsageError
        When the file exists and may not be replaced.
    AstriError
        When the place cannot be written, or the disk takes no more.
    """
    with whole_file(path, overwrite=overwrite) as unfinished, FitsWriter(unfinished) as writer:
        yield writer


class FitsWriter:
    """A FITS file under construction, a context manager.

    Parameters
    ----------
    path
        The file, in a folder that exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables: list[FitsTable] = []
        # CFITSIO takes brackets and signs in names for filters: it is given a plain name, in a
        # folder that it finds by its descriptor.
        self._name = f"part{next(_NUMBERS)}.fits" + (".gz" if path.suffix == ".gz" else "")
        self._folder = -1
        self._file: Any = None

    def __enter__(self) -> "FitsWriter":
        import fitsio

        self._folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        with self._errors():
            self._file = fitsio.FITS(self._place, "rw", clobber=True)
            self._file.write(None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                with contextlib.suppress(Exception):  # the first error is the one to tell
                    self._file.close()
                return
            with self._errors():
                self._file.close()
                self._check()
            os.rename(self.path.parent / self._name, self.path)
        finally:
            os.close(self._folder)

    @property
    def _place(self) -> str:
        return f"/proc/self/fd/{self._folder}/{self._name}"

    def keywords(self, values: Mapping[str, tuple[Any, str]], hdu: str | int = 0) -> None:
        """Write keywords, name -> (value, comment), into the primary header or that of a table.

        Values that are None are left out.
        """
        with self._errors():
            for name, (value, comment) in values.items():
                if value is None or (isinstance(value, float) and not np.isfinite(value)):
                    continue
                if isinstance(value, np.generic):
                    value = value.item()
                self._file[hdu].write_key(name, value, comment)

    def history(self, lines: Sequence[str]) -> None:
        """Write HISTORY cards into the primary header, long lines in several."""
        with self._errors():
            for line in lines:
                text = line.encode("ascii", "replace").decode()
                for start in range(0, max(1, len(text)), HISTORY_LENGTH):
                    self._file[0].write_history(text[start : start + HISTORY_LENGTH])

    def table(self, name: str, entries: Sequence[Field]) -> "FitsTable":
        """Return a new table at the end of the file, which takes rows until the next one."""
        with self._errors():
            empty = np.empty(0, numpy_type(entries))
            units = [entry.unit for entry in entries]
            self._file.write(empty, extname=name, units=units)
            hdu = self._file[-1]
            header = hdu.read_header()
            for number, entry in enumerate(entries, 1):
                # fitsio leaves out the count 1, and calls every label a label.
                form = str(header[f"TFORM{number}"]).strip()
                if not form[0].isdigit():
                    hdu.write_key(f"TFORM{number}", f"1{form}")
                # A comment that does not fit would make CFITSIO divide the name.
                hdu.write_key(f"TTYPE{number}", entry.name, entry.text[:COMMENT_LENGTH])
        table = FitsTable(name, hdu, empty.dtype, self._errors)
        self._tables.append(table)
        return table

    def write_list(self) -> None:
        """Write the names of all tables into the primary header, by which a cut file is known."""
        names = " ".join(table.name for table in self._tables)
        self.keywords({HDU_LIST: (names, "tables of this file")})

    def _check(self) -> None:
        """Refuse a file whose end did not reach the disk."""
        import fitsio

        with fitsio.FITS(self._place) as file:
            for table in self._tables:
                found = int(file[table.name].get_nrows())
                if found != table.n_rows:
                    raise OSError(f"{table.name} has {found} rows, not {table.n_rows}")
                if found:
                    file[table.name][found - 1 : found]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        with disk_errors(self.path):
            try:
                yield
            except OSError as error:
                if error.errno is not None:
                    raise
                # CFITSIO knows only that it failed; on an existing folder that is a full disk.
                reason = " ".join(str(error).split())[:120]
                raise AstriError(
                    f"{self.path.name} cannot be written ({reason}): is the disk full, or a limit "
                    "of file sizes reached? Nothing was left behind."
                ) from error


class FitsTable:
    """A table that takes rows at its end; make it with `FitsWriter.table`."""

    def __init__(
        self,
        name: str,
        hdu: Any,
        dtype: np.dtype[Any],
        errors: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self.name, self.n_rows = name, 0
        self._hdu, self._dtype, self._errors = hdu, dtype, errors

    def append(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Add rows, (row, ...) of every column."""
        n_rows = len(next(iter(columns.values())))
        rows = np.empty(n_rows, self._dtype)
        for name in self._dtype.names or ():
            rows[name] = columns[name]
        if n_rows:
            with self._errors():
                self._hdu.append(rows)
            self.n_rows += n_rows
