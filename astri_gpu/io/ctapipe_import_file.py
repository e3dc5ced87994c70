"""HDF5 files of ctapipe, read with PyTables and without ever unpickling anything.

PyTables unpickles every attribute that looks like a pickle as soon as a node is looked at, and
ctapipe keeps its enumerations as pickled classes: a file from elsewhere could run any code. While
a file is read here, the thread that reads it refuses every pickle, and such attributes stay the
bytes that they are; other threads of the process are left alone.
"""

import functools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.io.ctapipe_model import MAGIC, Field, attribute

__all__ = ["HDF5File", "TableReader", "is_hdf5", "no_pickles"]

CHUNK_CACHE_BYTES = 1 << 20
"""Of every table: tables are read in order, and there may be hundreds of them."""
COLUMN_KEYS = (
    "TRANSFORM",
    "UNIT",
    "TIME_FORMAT",
    "TIME_SCALE",
    "TRANSFORM_SCALE",
    "TRANSFORM_OFFSET",
    "TRANSFORM_DTYPE",
)

_reading = threading.local()


def is_hdf5(path: str | Path) -> bool:
    """Return whether a file begins as HDF5 does, whatever its name is.

    Raises
    ------
    AstriError
        When the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise AstriError(
            f"The file {path} cannot be read ({error.strerror or error}): check its name."
        ) from error


class _NoPickles:
    """What PyTables finds in place of the module pickle."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def loads(self, *arguments: Any, **keywords: Any) -> Any:
        """Refuse in a thread that reads a file here; elsewhere do what was asked for."""
        if getattr(_reading, "depth", 0):
            # PyTables catches it and hands over the bytes.
            raise ValueError("attributes of files from elsewhere are never unpickled")
        return self._module.loads(*arguments, **keywords)


@contextmanager
def no_pickles() -> Iterator[None]:
    """Return a context in which PyTables unpickles nothing in this thread.

    Raises
    ------
    AstriError
        When PyTables is not installed, or is a version whose reader works in another way.
    """
    try:
        from tables import attributeset
    except ImportError:
        raise AstriError(
            "Files of ctapipe are read with PyTables, which is not installed: "
            "pip install 'astri_gpu[exchange]'."
        ) from None
    found: Any = getattr(attributeset, "pickle", None)
    if found is None:
        raise AstriError(
            "This version of PyTables reads attributes in a way that is not known here, so that "
            "nothing keeps it from running code out of a file: install tables 3.9 to 3.11."
        )
    if not isinstance(found, _NoPickles):
        attributeset.pickle = _NoPickles(found)  # type: ignore[attr-defined]
    _reading.depth = getattr(_reading, "depth", 0) + 1
    try:
        yield
    finally:
        _reading.depth -= 1


def _reason(error: BaseException) -> str:
    """Return one line of an error; those of the HDF5 library bring a back trace along."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


@functools.cache
def _scale(unit: str, wanted: str) -> float:
    """Return the factor from one unit to another, both in astropy's words."""
    from astropy import units

    return float(units.Unit(unit).to(units.Unit(wanted)))


def _plain(value: Any) -> Any:
    """Return an attribute as a Python value; text in either form as str."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value.item() if isinstance(value, np.generic) else value


class TableReader:
    """One table of a file, read in row order.

    Attributes
    ----------
    path, file_path
        Its place in the file, and the file.
    n_rows
        Number of rows.
    dtype
        Of a row, as stored.
    attrs
        Attributes of the table itself, not of its columns.
    """

    def __init__(self, file: "HDF5File", path: str, node: Any) -> None:
        self.path, self.file_path = path, file.path
        self._file, self._node = file, node
        with file.reading(path):
            self.n_rows = int(node.nrows)
            self.dtype: np.dtype[Any] = node.dtype
            stored = node._v_attrs
            values = {name: _plain(stored[name]) for name in stored._f_list("user")}
        self.attrs = {name: v for name, v in values.items() if not name.startswith("CTAFIELD_")}
        names = self.dtype.names or ()
        self._columns = {
            name: {
                key: values[attribute(position, key)]
                for key in COLUMN_KEYS
                if attribute(position, key) in values
            }
            for position, name in enumerate(names)
        }

    def __contains__(self, column: str) -> bool:
        return column in self._columns

    def require(self, columns: tuple[str, ...]) -> None:
        """Raise an `AstriError` unless all columns are there."""
        missing = [name for name in columns if name not in self]
        if missing:
            raise AstriError(
                f"The table {self.path} of {self.file_path} has no column "
                f"{', '.join(missing)}: it is not what ctapipe writes."
            )

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return rows as they are stored, a structured array."""
        with self._file.reading(self.path):
            return np.asarray(self._node.read(start, stop))

    def values(self, rows: NDArray[Any], field: Field) -> NDArray[Any]:
        """Return one column of `rows` in the unit of `field`, fixed-point numbers decoded.

        Raises
        ------
        AstriError
            When the column is missing, holds no numbers, or its unit does not fit.
        """
        self.require((field.column,))
        meta = self._columns[field.column]
        values: NDArray[Any] = rows[field.column]
        if values.dtype.kind not in "biuf":
            raise AstriError(
                f"{field.column} of {self.path} in {self.file_path} holds {values.dtype}, not "
                "numbers."
            )
        if meta.get("TRANSFORM") == "fixed_point":
            values = _from_fixed_point(values, meta)
        unit = meta.get("UNIT", field.unit)
        if field.unit and unit != field.unit:
            try:
                scale = _scale(str(unit), field.unit)
            except (ValueError, TypeError) as error:
                raise AstriError(
                    f"The column {field.column} of {self.path} in {self.file_path} has the unit "
                    f"'{unit}', which is no '{field.unit}'."
                ) from error
            if scale != 1.0:
                values = values * scale
        return values

    def text(self, rows: NDArray[Any], column: str) -> list[str]:
        """Return a column of text."""
        self.require((column,))
        return [_plain(value) for value in rows[column].tolist()]

    def time_format(self, column: str) -> tuple[str, str]:
        """Return format and scale of a column of times, such as ("ctao_high_res", "tai")."""
        meta = self._columns[column]
        return str(meta.get("TIME_FORMAT", "mjd")), str(meta.get("TIME_SCALE", "tai"))


def _from_fixed_point(values: NDArray[Any], meta: dict[str, Any]) -> NDArray[Any]:
    """Return what integers with scale and offset stand for, as ctapipe's FixedPointColumnTransform.

    Unsigned integers keep their highest three numbers for -inf, NaN and inf, signed ones the lowest
    two and the highest.
    """
    limits = np.iinfo(values.dtype)
    unsigned = values.dtype.kind == "u"
    low, nan = (limits.max - 2, limits.max - 1) if unsigned else (limits.min, limits.min + 1)
    dtype = np.dtype(str(meta.get("TRANSFORM_DTYPE", "float32")))
    decoded = (values.astype(dtype) - meta["TRANSFORM_OFFSET"]) / meta["TRANSFORM_SCALE"]
    decoded[values == low], decoded[values == nan] = -np.inf, np.nan
    decoded[values == limits.max] = np.inf
    return decoded.astype(dtype, copy=False)


class HDF5File:
    """An HDF5 file open for reading, a context manager; to be used by the thread that entered it.

    Raises
    ------
    AstriError
        On entering, when PyTables is missing or the file is damaged or unfinished.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._stack = ExitStack()
        self._file: Any = None

    def __enter__(self) -> "HDF5File":
        with self._stack:
            self._stack.enter_context(no_pickles())
            import tables

            with self.reading("the file itself"):
                self._file = tables.open_file(
                    str(self.path), mode="r", chunk_cache_size=CHUNK_CACHE_BYTES
                )
                self._stack.callback(self._file.close)
                stored = self._file.root._v_attrs
                self.attrs = {name: _plain(stored[name]) for name in stored._f_list("user")}
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Turn whatever PyTables raises into one sentence."""
        from tables.exceptions import HDF5ExtError

        try:
            yield
        except AstriError:
            raise
        except (HDF5ExtError, OSError, ValueError, TypeError, LookupError, Warning) as error:
            raise AstriError(
                f"{self.path} is damaged or unfinished ({what} cannot be read: {_reason(error)}); "
                "a ctapipe-process that was killed leaves such files: make it again."
            ) from error

    def names(self, group: str) -> list[str]:
        """Return the names in a group, sorted; none where it is missing."""
        import tables

        with self.reading(group):
            if group not in self._file:
                return []
            node = self._file.get_node(group)
            return sorted(node._v_children) if isinstance(node, tables.Group) else []

    def table(self, path: str) -> TableReader | None:
        """Return a table, None where it is missing."""
        import tables

        with self.reading(path):
            if path not in self._file:
                return None
            node = self._file.get_node(path)
            if not isinstance(node, tables.Table):
                raise ValueError("it is no table, or one that PyTables does not understand")
            return TableReader(self, path, node)

    def require(self, path: str) -> TableReader:
        """Return a table.

        Raises
        ------
        AstriError
            When the file has no such table.
        """
        found = self.table(path)
        if found is None:
            raise AstriError(
                f"{self.path} has no table {path}: it is not a whole DL1 or DL2 file of ctapipe."
            )
        return found
