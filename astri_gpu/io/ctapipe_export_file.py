"""Writing HDF5 files in the way of ctapipe: PyTables with described columns, whole or not at all.

ctapipe itself is not needed; PyTables is (the extra `exchange`).
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.io.ctapipe_import_file import HDF5File, no_pickles
from astri_gpu.io.ctapipe_model import Field, attribute
from astri_gpu.output_file import whole_file
from astri_gpu.store_disk import disk_errors, json_ready

__all__ = [
    "CtapipeFile",
    "EventTable",
    "ctapipe_file",
    "import_tables",
    "recorded_provenance",
]

PROVENANCE = "CONTEXT ASTRI_GPU PROVENANCE"
"""Root attribute with our provenance as JSON; ctapipe's own tools put user metadata there too."""

# Of each table, of which there are some for every telescope; a chunk fits.
CHUNK_CACHE_BYTES = 1 << 20
ROWS_READ_BACK = 65_536
PROBE_BYTES = 8 << 20  # more than HDF5 writes at a time
LARGEST_ATTRIBUTE = 60_000  # bytes; HDF5 keeps attributes in headers of at most 64 KiB


def import_tables() -> Any:
    """Return the module `tables`.

    Raises
    ------
    AstriError
        When it is not installed.
    """
    try:
        import tables
    except ImportError as error:
        raise AstriError(
            "Files of ctapipe are read and written with PyTables, which is not installed: "
            "pip install 'astri_gpu[exchange]'"
        ) from error
    return tables


class EventTable:
    """A growing table of a `CtapipeFile`; make it with `CtapipeFile.table`."""

    def __init__(
        self, table: Any, fields: Sequence[Field], dtype: np.dtype[Any], rows: dict[str, int]
    ) -> None:
        self._table, self._fields, self._dtype, self._rows = table, fields, dtype, rows

    def append(self, n_rows: int, columns: Mapping[str, Any]) -> None:
        """Add rows.

        Parameters
        ----------
        n_rows
            How many.
        columns
            Values (row, ...) by the name in the file, as they are written; by the name in our
            schema, in our units, for the fields that have one; fields with neither are unknown.
        """
        rows = np.empty(n_rows, dtype=self._dtype)
        for field in self._fields:
            if field.column in columns:
                rows[field.column] = columns[field.column]
            elif field.ours is not None and field.ours in columns:
                values = columns[field.ours]
                rows[field.column] = values if field.factor == 1 else values * field.factor
            else:
                rows[field.column] = field.unknown
        if n_rows:
            self._table.append(rows)
            self._rows[self._table._v_pathname] += n_rows


class CtapipeFile:
    """An HDF5 file under construction; make it with `ctapipe_file`.

    `rows` is the number of rows of every table so far, by its path.
    """

    def __init__(self, tables: Any, file: Any) -> None:
        self._tables, self._file = tables, file
        self.rows: dict[str, int] = {}

    def table(
        self,
        path: str,
        fields: Sequence[Field],
        *,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        expected_rows: int = 10_000,
        noise: bool = False,
    ) -> EventTable:
        """Return a new table.

        Parameters
        ----------
        path
            In the file, such as "/dl1/event/subarray/trigger".
        fields
            Its columns.
        shapes
            Of the cells of those that hold arrays, by the name in the file.
        expected_rows
            About how many rows there will be; PyTables chooses the chunks by it.
        noise
            Whether most of the bytes are noise: these are packed with lz4, which takes a tenth of
            the time of ctapipe's zstd and a tenth more of the disk. PyTables reads both alike.
        """
        of = shapes or {}
        dtype = np.dtype(
            [(field.column, field.dtype, of.get(field.column, ())) for field in fields]
        )
        table = self._new(path, dtype, expected_rows, noise)
        for position, field in enumerate(fields):
            for key, value in field.attributes().items():
                table.attrs[attribute(position, key)] = value
        return EventTable(table, fields, dtype, self.rows)

    def write(
        self,
        path: str,
        columns: Mapping[str, NDArray[Any]],
        *,
        units: Mapping[str, str] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one complete table in the manner of ctapipe's instrument tables.

        Parameters
        ----------
        path
            In the file.
        columns
            Arrays (row, ...), bytes for text, all of one length.
        units
            Of the columns that have one.
        attrs
            Attributes of the table.
        """
        first = next(iter(columns.values()))
        dtype = np.dtype(
            [(name, v.dtype.newbyteorder("="), v.shape[1:]) for name, v in columns.items()]
        )
        rows = np.empty(len(first), dtype=dtype)
        for name, values in columns.items():
            rows[name] = values
        table = self._new(path, dtype, len(rows))
        table.append(rows)
        self.rows[path] = len(rows)
        for position, (name, values) in enumerate(columns.items()):
            described: dict[str, Any] = {}
            if unit := (units or {}).get(name):
                described = {"TRANSFORM": "quantity", "UNIT": unit}
            elif values.dtype.kind == "S":
                described = {"TRANSFORM": "string", "MAXLEN": values.dtype.itemsize}
            for key, value in described.items():
                table.attrs[attribute(position, key)] = value
        for key, value in (attrs or {}).items():
            table.attrs[key] = value

    def group(self, path: str) -> None:
        """Make a group, with those above it, unless it is there."""
        if path not in self._file:
            parent, _, name = path.rpartition("/")
            self._file.create_group(parent or "/", name, createparents=True)

    def root_attributes(self, attrs: Mapping[str, Any]) -> None:
        """Set attributes of the file."""
        with warnings.catch_warnings():
            # ctapipe's names have blanks in them.
            warnings.simplefilter("ignore", self._tables.NaturalNameWarning)
            for key, value in attrs.items():
                self._file.root._v_attrs[key] = value

    def provenance(self, record: Mapping[str, Any]) -> None:
        """Store our provenance; the steps before the last go first when it is too long."""
        record = dict(record)
        text = json.dumps(json_ready(record))
        while len(text.encode()) > LARGEST_ATTRIBUTE and "previous" in record:
            previous = dict(record["previous"] or {})
            if previous.pop("previous", None) is None:
                del record["previous"]
            else:
                record["previous"] = previous
            text = json.dumps(json_ready(record))
        self.root_attributes({PROVENANCE: text})

    def _new(self, path: str, dtype: np.dtype[Any], expected_rows: int, noise: bool = False) -> Any:
        parent, _, name = path.rpartition("/")
        codec = "blosc:lz4" if noise else "blosc:zstd"
        filters = self._tables.Filters(complevel=5, complib=codec, fletcher32=True)
        self.rows[path] = 0
        return self._file.create_table(
            parent,
            name,
            dtype,
            filters=filters,
            createparents=True,
            expectedrows=max(1, expected_rows),
        )


@contextmanager
def ctapipe_file(path: str | Path, *, overwrite: bool = False) -> Iterator[CtapipeFile]:
    """Give an HDF5 file to fill; it appears under its name when it is complete.

    Blosc at level 5 and checksums of every chunk, as ctapipe's own files have.

    Parameters
    ----------
    path
        Where the finished file will be.
    overwrite
        Replace a file that is there already (at the very end).

    Raises
    ------
    UsageError
        When `path` exists and may not be replaced.
    OutputBusy
        When another run is writing it.
    AstriError
        When PyTables is missing, the place cannot be written, or the disk takes no more.
    """
    tables = import_tables()
    with whole_file(path, overwrite=overwrite) as unfinished:
        try:
            file = tables.open_file(str(unfinished), mode="w", chunk_cache_size=CHUNK_CACHE_BYTES)
            written = CtapipeFile(tables, file)
            try:
                yield written
            except BaseException:
                _close_anyway(file)
                raise
            file.close()
            _read_back(tables, unfinished, written.rows)
        except tables.HDF5ExtError as error:
            # HDF5 does not tell what the system said, so ask the system.
            with disk_errors(Path(path)):
                _try_disk(unfinished)
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
            raise AstriError(
                f"The file {path} cannot be written by HDF5 ({reason.strip().rstrip('.')}): choose "
                "another output."
            ) from error


def _close_anyway(file: Any) -> None:
    """Close a file after an error, which is the one to tell."""
    try:
        file.close()
    except Exception:  # what could not be written the first time fails again
        return


def _read_back(tables: Any, path: Path, rows: Mapping[str, int]) -> None:
    """Read every chunk of a file again, which checks their checksums.

    What is still in memory when a file is closed, HDF5 writes then, and PyTables does not ask
    whether that worked: on a full disk a file without most of its tables would pass for complete.
    """
    try:
        # Without this PyTables would import ctapipe for its enumerations.
        with (
            no_pickles(),
            tables.open_file(str(path), "r", chunk_cache_size=CHUNK_CACHE_BYTES) as file,
        ):
            for name, n_rows in rows.items():
                table = file.get_node(name)
                if table.nrows != n_rows:
                    raise tables.HDF5ExtError(f"{name} has {table.nrows} rows, not {n_rows}")
                for start in range(0, n_rows, ROWS_READ_BACK):
                    table.read(start, start + ROWS_READ_BACK, field=table.colnames[0])
                table.close()  # with its buffers
    except (tables.NoSuchNodeError, OSError) as error:
        raise tables.HDF5ExtError(f"it cannot be read back: {error}") from error


def _try_disk(path: Path) -> None:
    """Lengthen a file that HDF5 could not write (`OSError` where the disk takes no more)."""
    with path.open("ab") as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def recorded_provenance(path: Path) -> dict[str, Any]:
    """Return our provenance of an exported file.

    Raises
    ------
    AstriError
        When the file is not one that `astri-gpu export` wrote.
    """
    with HDF5File(path) as file:
        text = file.attrs.get(PROVENANCE)
    try:
        record = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise AstriError(f"the file {path} was not written by `astri-gpu export`")
    return record
