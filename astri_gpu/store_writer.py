"""Writing a production store: a Zarr directory that appears under its name only when complete.

Everything goes into ``<path>.partial``. A clean exit flushes, syncs and renames it; an error
removes it; a killed run leaves it for the next run to clear away. The finished store is never
touched again.
"""

import fcntl
import logging
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.schema import SCHEMA_VERSION, Column, column
from astri_gpu.store_disk import codec_pipeline, disk_errors, json_ready, sync, sync_tree
from astri_gpu.store_table import ROWS_PER_CHUNK, ColumnWriter, TableWriter

__all__ = ["StoreWriter", "TableWriter", "create"]

logger = logging.getLogger(__name__)


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
        self.attrs: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **attrs}
        self.partial = path.with_name(path.name + ".partial")
        self._replaced = path.with_name(path.name + ".replaced")
        self._overwrite = overwrite
        self._tables: dict[str, TableWriter] = {}
        self._lock = -1
        self._root: Any = None

    def __enter__(self) -> "StoreWriter":
        import zarr

        self._check_target()
        try:
            with disk_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._take_partial()
                self._root = zarr.open_group(self.partial, mode="a", zarr_format=3)
        except OSError as error:
            self._discard()
            raise AstriError(
                f"The output {self.path} cannot be written ({error.strerror or error}): choose "
                "another place or change its permissions."
            ) from error
        except BaseException:
            self._discard()
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
            self._discard()

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
            tail = self._tail(path, entry, sizes)
            made[name] = ColumnWriter(
                self.new_array,
                lambda: disk_errors(self.path),
                f"{path}/{name}",
                entry,
                tail,
                (dtypes or {}).get(name, entry.dtype),
            )
        self._tables[path] = TableWriter(path, made, rows_per_chunk or ROWS_PER_CHUNK)
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
        shape = tuple(max(1, length) for length in values.shape)
        array = self.new_array(f"{path}/{name}", entry, values.shape, values.dtype, chunks=shape)
        if values.size:
            with disk_errors(self.path):
                array[...] = values

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

    def new_array(
        self,
        path: str,
        entry: Column,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        chunks: tuple[int, ...],
        shards: tuple[int, ...] | None = None,
    ) -> Any:
        """Return a new Zarr array with the codec, dimension names, unit and description set."""
        from zarr.codecs import BloscCodec

        group, _, name = path.rpartition("/")
        attrs = {"units": entry.unit, "description": entry.description}
        if entry.astri:
            attrs["astri_name"] = entry.astri
        # Bitshuffle packs the few noisy bits of ADC counts; LZ4 then decodes fastest of all that
        # reach the same ratio (zstd gains 10 % in size and halves the rate).
        blosc = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=dtype.itemsize)
        with disk_errors(self.path), codec_pipeline():
            return self.require_group(group).create_array(
                name,
                shape=shape,
                dtype=dtype.newbyteorder("="),
                chunks=chunks,
                shards=shards,
                compressors=blosc,
                fill_value=np.zeros((), dtype)[()],
                dimension_names=entry.dims,
                attributes=attrs,
            )

    @staticmethod
    def _tail(path: str, entry: Column, sizes: Mapping[str, int]) -> tuple[int, ...]:
        missing = [name for name in entry.dims[1:] if name not in sizes]
        if missing:
            raise AstriError(f"{path}/{entry.name} needs the size of {', '.join(missing)}.")
        return tuple(int(sizes[name]) for name in entry.dims[1:])

    def _check_target(self) -> None:
        if not self.path.exists() and self._replaced.exists():
            # A run was killed between its last two renames: the earlier store is still good.
            self._replaced.rename(self.path)
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

    def _take_partial(self) -> None:
        existed = self.partial.exists()
        self.partial.mkdir(exist_ok=True)
        self._lock = os.open(self.partial, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            raise UsageError(
                f"Another run is writing {self.path} at this moment: wait for it or choose "
                "another output."
            ) from None
        if existed:
            logger.warning("Removing %s, left by a run that was killed", self.partial)
            for entry in self.partial.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def _commit(self) -> None:
        for table in self._tables.values():
            table.close()
        self._root.update_attributes(json_ready(self.attrs))
        self._consolidate()
        sync_tree(self.partial)
        if self.path.exists():
            self.path.rename(self._replaced)
        self.partial.rename(self.path)
        sync(self.path.parent)
        if self._replaced.exists():
            shutil.rmtree(self._replaced)

    def _consolidate(self) -> None:
        """Put a copy of all metadata into the root: xarray then opens the store in one read."""
        import zarr

        with warnings.catch_warnings():
            # The copy is not in the Zarr v3 specification yet; readers that do not know it skip it.
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(self._root.store, zarr_format=3)

    def _discard(self) -> None:
        """Remove the unfinished store if it is ours (after a commit it has another name)."""
        if self._lock >= 0:
            shutil.rmtree(self.partial, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


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
