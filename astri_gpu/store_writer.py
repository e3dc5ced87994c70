"""Writing a production store: a Zarr directory that appears under its name only when complete.

Everything goes into ``<path>.partial``, which is locked. A clean exit flushes, syncs and renames
it; an error removes it; a killed run leaves it for the next run to clear away. The finished store
is never touched again.
"""

import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.schema import SCHEMA_VERSION, Column, column
from astri_gpu.store_chunks import ChunkedArray, consolidate, missing_chunks
from astri_gpu.store_disk import disk_errors, json_ready, sync, sync_tree
from astri_gpu.store_lock import OutputLock
from astri_gpu.store_table import ROWS_PER_CHUNK, ColumnWriter, Growing, TableWriter

__all__ = ["COMPLETE", "StoreWriter", "TableWriter", "create"]

COMPLETE = "every_chunk_is_a_file"
"""Root attribute: a chunk without a file was lost (elsewhere it may have been all zero)."""


class StoreWriter:
    """A store under construction, a context manager; make it with `create`.

    Attributes
    ----------
    path
        Where the finished store will be.
    attrs
        Root attributes; they may be changed until the end and are written last.
    """

    def __init__(self, path: Path, overwrite: bool, attrs: Mapping[str, Any]) -> None:
        self.path = path
        self.attrs: dict[str, Any] = {"schema_version": SCHEMA_VERSION, COMPLETE: True, **attrs}
        self._lock = OutputLock(path)
        self.partial = self._lock.partial
        self._replaced = path.with_name(path.name + ".replaced")
        self._overwrite = overwrite
        self._tables: dict[str, TableWriter] = {}
        self._groups: set[str] = set()
        self._arrays: set[str] = set()
        self._root: Any = None

    def __enter__(self) -> "StoreWriter":
        import zarr

        self._check_target()
        try:
            with disk_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
                self._recover()
                self._check_target()  # a run that held the lock until now may have made it
                self._root = zarr.open_group(self.partial, mode="a", zarr_format=3)
        except OSError as error:
            self._lock.release()
            raise AstriError(
                f"The output {self.path} cannot be written ({error.strerror or error}): choose "
                "another place or change its permissions."
            ) from error
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                with disk_errors(self.path):
                    self._commit()
        finally:
            self._lock.release()

    def table(
        self,
        path: str,
        columns: Sequence[str],
        *,
        sizes: Mapping[str, int],
        rows_per_chunk: int | None = None,
        dtypes: Mapping[str, str] | None = None,
    ) -> TableWriter:
        """Return a writer for the table `path` with these columns of the schema.

        Parameters
        ----------
        path
            Group in the store, such as "dl0/image/ASTRICam".
        columns
            Names of the columns, all described in `astri_gpu.schema`.
        sizes
            Length of every dimension except the first one, such as {"gain": 2, "pixel": 2368}.
        rows_per_chunk
            Images per chunk (1024 if left out), lowered where a chunk would pass 32 MiB.
        dtypes
            Types that differ from the schema, such as {"adc": "u4"}.

        Raises
        ------
        AstriError
            When the schema does not know a column, a size is missing, or the table exists already.
        """
        if path in self._tables:
            raise AstriError(f"The table {path} of {self.path} was asked for twice.")
        made = {}
        for name in columns:
            entry = column(path, name)
            tail, dtype = self._tail(path, entry, sizes), (dtypes or {}).get(name, entry.dtype)
            make = functools.partial(self._grow, f"{path}/{name}", entry, tail, np.dtype(dtype))
            made[name] = ColumnWriter(make, entry, tail, dtype)
        rows = rows_per_chunk or ROWS_PER_CHUNK
        self._tables[path] = TableWriter(path, made, rows, lambda: disk_errors(self.path))
        return self._tables[path]

    def write(self, path: str, name: str, data: Any, *, dtype: str | None = None) -> None:
        """Write one complete array of the schema, such as pix_x of "instrument/camera/ASTRICam".

        Raises
        ------
        AstriError
            When the schema does not know it, its dimensions differ, or the disk is full.
        """
        entry = column(path, name)
        values = np.asarray(data, dtype=dtype or entry.dtype)
        if values.ndim != len(entry.dims):
            raise AstriError(
                f"{path}/{name} has the dimensions {entry.dims}, but its data are {values.shape}."
            )
        chunk = max(1, len(values))
        with disk_errors(self.path):
            array = self._grow(f"{path}/{name}", entry, values.shape[1:], values.dtype, chunk)
            array.append(values)
            array.close()

    def set_attrs(self, path: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to a group ("" = the root, written at the very end)."""
        if not path.strip("/"):
            self.attrs.update(attrs)
            return
        with disk_errors(self.path):
            self.require_group(path).update_attributes(json_ready(attrs))

    def require_group(self, path: str) -> Any:
        """Return the Zarr group `path` of the unfinished store, made where it is missing."""
        with disk_errors(self.path):
            return self._root.require_group(path)

    def expect(self, array: str) -> None:
        """Remember an array that came into the store by another way than this class."""
        self._arrays.add(array)

    def _grow(
        self,
        path: str,
        entry: Column,
        tail: tuple[int, ...],
        dtype: np.dtype[Any],
        chunk: int,
        shard: int | None = None,
    ) -> Growing:
        """Return a new array of no rows, with the codec, dimension names, unit and description."""
        group = path.rpartition("/")[0]
        if group not in self._groups:
            self.require_group(group)
            self._groups.add(group)
        self._arrays.add(path)
        return ChunkedArray(self.partial / path, entry, tail, dtype, chunk, shard)

    @staticmethod
    def _tail(path: str, entry: Column, sizes: Mapping[str, int]) -> tuple[int, ...]:
        missing = [name for name in entry.dims[1:] if name not in sizes]
        if missing:
            raise AstriError(f"{path}/{entry.name} needs the size of {', '.join(missing)}.")
        return tuple(int(sizes[name]) for name in entry.dims[1:])

    def _check_target(self) -> None:
        """Refuse an output that exists, unless it is a store that may be replaced."""
        if not self.path.exists():
            return
        if not self._overwrite:
            raise UsageError(
                f"The output {self.path} exists already: choose another output or set "
                "overwrite=true."
            )
        if not (self.path / "zarr.json").is_file():
            raise UsageError(
                f"The output {self.path} exists and is not a store, so overwrite=true will not "
                "replace it: choose another output."
            )

    def _recover(self) -> None:
        """Finish what a run left that was killed while it replaced the output."""
        if not self._replaced.exists():
            return
        if self.path.exists():
            shutil.rmtree(self._replaced)  # it was killed after its last rename
        else:
            self._replaced.rename(self.path)  # and between the two: the earlier store is good

    def _commit(self) -> None:
        for table in self._tables.values():
            table.close()
        self._root.update_attributes(json_ready(self.attrs))
        consolidate(self.partial)
        sync_tree(self.partial)
        self._check_complete()
        if self.path.exists():
            self.path.rename(self._replaced)
        self.partial.rename(self.path)
        sync(self.path.parent)
        if self._replaced.exists():
            shutil.rmtree(self._replaced)

    def _check_complete(self) -> None:
        """Refuse to finish a store from which somebody took something away."""
        lost = [] if self._lock.holds() else [str(self.partial)]
        for array in sorted(self._arrays) if self.attrs.get(COMPLETE) and not lost else ():
            try:
                lost += [f"{array}/{chunk}" for chunk in missing_chunks(self.partial / array)]
            except (OSError, ValueError):
                lost.append(array)
        if lost:
            raise AstriError(
                f"What was written for {self.path} has gone ({lost[0]}): its folder was removed "
                "or renamed while this run was writing it; run again."
            )


def create(path: str | Path, *, overwrite: bool = False, attrs: Mapping[str, Any]) -> StoreWriter:
    """Return a context manager that builds the store `path`.

    Parameters
    ----------
    path
        Where the finished store will be; it appears only when everything is written.
    overwrite
        Replace a store that is there already (at the very end).
    attrs
        Root attributes: data_level, kind, obs_id, config, provenance, source and so on.

    Raises
    ------
    UsageError
        On entering, when `path` exists and `overwrite` is False, or another run is writing it.
    AstriError
        On entering, when the place cannot be written.
    """
    return StoreWriter(Path(path), overwrite, attrs)
