"""The production store: one Zarr v3 directory per run, read here, written by `create`.

``xarray.open_datatree(path, engine="zarr")`` opens it as well: every array carries
``dimension_names``, ``units`` and ``description`` (see `astri_gpu.schema`).
"""

import hashlib
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.schema import SCHEMA_VERSION
from astri_gpu.store_chunks import missing_chunks
from astri_gpu.store_disk import codec_pipeline, disk_errors
from astri_gpu.store_writer import COMPLETE, StoreWriter, TableWriter, create

if TYPE_CHECKING:
    import zarr

__all__ = [
    "Store",
    "StoreWriter",
    "TableWriter",
    "copy_group",
    "create",
    "fingerprint",
    "open_store",
]

LARGE_BYTES = 16 * 1024**2
SETTLED_S = 5.0
_FILE_SUMS: dict[tuple[int, ...], str] = {}

_LOST = (
    "{path} in the store {store} has lost its file {file} (it was removed, or the disk was taken "
    "away): make the store again or bring it back."
)


class Store:
    """A finished store, read-only; make it with `open_store`.

    Reading is safe from several threads. It is fastest in whole shards: see `blocks`.

    Attributes
    ----------
    path
        The directory.
    attrs
        Root attributes (data_level, kind, obs_id, provenance and so on).
    """

    def __init__(self, path: Path, root: "zarr.Group") -> None:
        self.path = path
        self.attrs: dict[str, Any] = dict(root.attrs)
        self._root = root
        self._arrays: dict[str, zarr.Array] = {}

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def __contains__(self, path: str) -> bool:
        """Return whether the store has a group or an array `path`."""
        return (self.path / path.strip("/") / "zarr.json").is_file()

    def cameras(self, level: str = "dl0") -> list[str]:
        """Return the names of the cameras that have images at this level, sorted."""
        folder = self.path / level / "image"
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if (entry / "zarr.json").is_file())

    def group(self, path: str) -> "zarr.Group":
        """Return a Zarr group.

        Raises
        ------
        AstriError
            When the store has no such group.
        """
        import zarr

        found = self._item(path)
        if not isinstance(found, zarr.Group):
            raise AstriError(f"{path} in the store {self.path} is an array, not a group.")
        return found

    def array(self, path: str) -> "zarr.Array":
        """Return a Zarr array, such as "dl0/image/ASTRICam/adc".

        Raises
        ------
        AstriError
            When the store has no such array.
        """
        import zarr

        path = path.strip("/")
        if path not in self._arrays:
            found = self._item(path)
            if not isinstance(found, zarr.Array):
                raise AstriError(f"{path} in the store {self.path} is a group, not an array.")
            self._arrays[path] = found
        return self._arrays[path]

    def read(
        self,
        path: str,
        start: int | None = None,
        stop: int | None = None,
        *,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return the rows from `start` to `stop` of an array (all of them if left out).

        They are put into `out` where it is given, an array of just their shape and type: new
        memory for every shard costs a tenth of the decoding.

        Raises
        ------
        AstriError
            When the store has no such array or its chunks cannot be decoded.
        """
        array = self.array(path)
        try:
            values = _into(array, slice(start, stop), out)
        except Exception as error:  # the codecs raise whatever they like on damaged bytes
            self._check_chunks(path, array, start, stop)
            raise AstriError(
                f"{path} in the store {self.path} cannot be read ({error}): the store is damaged, "
                "make it again."
            ) from error
        self._check_chunks(path, array, start, stop)
        return values

    def _check_chunks(
        self, path: str, array: "zarr.Array", start: int | None, stop: int | None
    ) -> None:
        """Refuse rows whose file has gone, because Zarr reads a missing chunk as zeros.

        To be called after the reading: a file that is there then was there before.
        """
        folder = self.path / path.strip("/")
        first, last, _ = slice(start, stop).indices(array.shape[0])
        step = (array.shards or array.chunks)[0]
        lost = [] if (folder / "zarr.json").is_file() else ["zarr.json"]
        if self.attrs.get(COMPLETE) and first < last and 0 not in array.shape:
            tail = [
                range(math.ceil(length / size))
                for length, size in zip(
                    array.shape[1:], (array.shards or array.chunks)[1:], strict=True
                )
            ]
            rows = range(first // step, (last - 1) // step + 1)
            names = ("/".join(map(str, ("c", *index))) for index in itertools.product(rows, *tail))
            lost += [name for name in names if not (folder / name).is_file()]
        if lost:
            raise AstriError(_LOST.format(path=path, store=self.path, file=lost[0]))

    def read_table(
        self,
        path: str,
        columns: Sequence[str] | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Return columns of a table as arrays, all of them and all rows if left out."""
        names = self.columns(path) if columns is None else columns
        return {name: self.read(f"{path}/{name}", start, stop) for name in names}

    def columns(self, path: str) -> list[str]:
        """Return the names of the arrays in a group, sorted."""
        return sorted(self.group(path).array_keys())

    def n_rows(self, path: str) -> int:
        """Return the number of rows of a table.

        Raises
        ------
        AstriError
            When the group holds no arrays.
        """
        names = self.columns(path)
        if not names:
            raise AstriError(f"{path} in the store {self.path} holds no arrays.")
        return int(self.array(f"{path}/{names[0]}").shape[0])

    def blocks(self, path: str) -> list[tuple[int, int]]:
        """Return the (start, stop) rows of each shard of an array (each chunk if unsharded)."""
        array = self.array(path)
        step = (array.shards or array.chunks)[0]
        n_rows = int(array.shape[0])
        return [(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]

    def group_attrs(self, path: str) -> dict[str, Any]:
        """Return the attributes of a group."""
        return dict(self.group(path).attrs)

    def _item(self, path: str) -> Any:
        try:
            with codec_pipeline():
                return self._root[path.strip("/")]
        except KeyError:
            if not (self.path / "zarr.json").is_file():
                raise AstriError(
                    f"The store {self.path} has gone (it was removed or renamed, or its disk taken "
                    "away): bring it back and run again."
                ) from None
            raise AstriError(
                f"The store {self.path} has no '{path}'; its top groups are "
                f"{', '.join(sorted(self._root.group_keys())) or 'missing'}."
            ) from None


def _into(array: "zarr.Array", rows: slice, out: NDArray[Any] | None) -> NDArray[Any]:
    if out is None:
        return np.asarray(array[rows])
    from zarr.buffer.cpu import NDBuffer

    array.get_basic_selection((rows,), out=NDBuffer.from_numpy_array(out))
    return out


def open_store(path: str | Path) -> Store:
    """Return a finished store, read-only.

    Raises
    ------
    AstriError
        When `path` is missing, unfinished, not a store, or of another schema version.
    """
    import zarr

    path = Path(path)
    if path.suffix == ".partial" or not path.exists():
        partial = path.with_name(path.name + ".partial")
        if path.with_name(path.name + ".replaced").exists():
            raise AstriError(
                f"The store {path} was being replaced when its run was killed: run that stage "
                f"again (until then the earlier store is {path}.replaced)."
            )
        if path.suffix == ".partial" or partial.exists():
            raise AstriError(
                f"The store {path} is unfinished (its run was killed or is still going on): "
                "run that stage again."
            )
        raise AstriError(f"There is no store {path}: check the name, or ingest the data first.")
    if not (path / "zarr.json").is_file():
        raise AstriError(
            f"{path} is not a store of this package (it has no zarr.json): give a directory "
            "that `astri-gpu ingest` or `astri-gpu process` wrote."
        )
    try:
        root = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        version = root.attrs.get("schema_version")
    except (OSError, ValueError, KeyError, TypeError, zarr.errors.BaseZarrError) as error:
        raise AstriError(f"The store {path} cannot be opened ({error}).") from error
    if version is None:
        raise AstriError(
            f"{path} is a Zarr directory, but not a finished store of this package (it has no "
            "schema_version): give one that `astri-gpu ingest` or `astri-gpu process` wrote."
        )
    if version != SCHEMA_VERSION:
        raise AstriError(
            f"The store {path} has schema version {version}, this package reads version "
            f"{SCHEMA_VERSION}: make the store again or use the release that wrote it."
        )
    return Store(path, root)


def copy_group(
    source: Store, writer: StoreWriter, path: str, exclude: Collection[str] = ()
) -> None:
    """Copy a group with everything in it into a store under construction, byte for byte.

    Parameters
    ----------
    source
        Where to copy from.
    writer
        Where to copy to, under the same path.
    path
        The group, such as "simulation" or "dl0/image/ASTRICam".
    exclude
        Names of arrays or groups that are left out, at any depth, such as "adc".

    Raises
    ------
    AstriError
        When the source has no such group or the disk is full.
    """
    path = path.strip("/")
    source.group(path)
    parent = path.rpartition("/")[0]
    if parent:
        writer.require_group(parent)
    if not source.attrs.get(COMPLETE):
        writer.attrs[COMPLETE] = False
    top = source.path / path
    arrays: list[str] = []
    with disk_errors(writer.path):
        for folder, folders, files in os.walk(top, onerror=_lost(source)):
            folders[:] = [name for name in folders if name not in exclude]
            inside = Path(path) / Path(folder).relative_to(top)
            target = writer.partial / inside
            target.mkdir(exist_ok=True)
            for name in files:
                try:
                    shutil.copyfile(Path(folder) / name, target / name)
                except FileNotFoundError as error:
                    if not (Path(folder) / name).exists():
                        _lost(source)(error)
                    raise
            if "zarr.json" in files and _is_array(target):
                arrays.append(inside.as_posix())
    for array in arrays:
        writer.expect(array)
        lost = missing_chunks(source.path / array) if source.attrs.get(COMPLETE) else []
        if lost:
            raise AstriError(_LOST.format(path=array, store=source.path, file=lost[0]))


def _lost(store: Store) -> Callable[[OSError], None]:
    """Return a function that says what was not found in a store."""

    def complain(error: OSError) -> None:
        raise AstriError(
            f"The store {store.path} has lost {error.filename or 'files'} while it was read "
            f"({error.strerror}): bring it back and run again."
        ) from error

    return complain


def _is_array(folder: Path) -> bool:
    return bool(json.loads((folder / "zarr.json").read_bytes()).get("node_type") == "array")


def fingerprint(path: str | Path) -> str:
    """Return a checksum for provenance, "sha256:...".

    For a file it covers the content; for a store the names and sizes of all files and the content
    of all metadata, which is enough to tell two stores apart without reading terabytes.

    Raises
    ------
    AstriError
        When `path` cannot be read.
    """
    path = Path(path)
    try:
        if path.is_file():
            return _file_sum(path)
        digest = hashlib.sha256()
        files = sorted(entry for entry in path.rglob("*") if entry.is_file())
        for entry in files:
            digest.update(
                f"{entry.relative_to(path).as_posix()}\0{entry.stat().st_size}\n".encode()
            )
            if entry.name == "zarr.json":
                digest.update(entry.read_bytes())
    except OSError as error:
        raise AstriError(f"{path} cannot be read ({error.strerror or error}).") from error
    if not files:
        raise AstriError(f"{path} does not exist or is empty: check the name of the input.")
    return "sha256:" + digest.hexdigest()


def _file_sum(path: Path) -> str:
    """Return the checksum of a file; of a large one it is kept, as steps of a chain share inputs.

    Not of one written a moment ago, which may change again within one tick of its time stamp.
    """
    state = path.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if key in _FILE_SUMS:
        return _FILE_SUMS[key]
    began = time.time()
    with path.open("rb") as stream:
        found = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    settled = began - state.st_mtime > SETTLED_S
    if settled and state.st_size > LARGE_BYTES and path.stat().st_mtime_ns == state.st_mtime_ns:
        _FILE_SUMS[key] = found
    return found
