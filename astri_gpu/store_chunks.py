"""Growing arrays of a store under construction, written chunk by chunk.

Chunks and shards are written here, file by file as Zarr v3 has them: zarr-python needs some three
milliseconds to create, resize and fill an array (each a round trip through its event loop), and an
image table has sixty columns, which took a third of `process`; zarrs takes three times as long to
write a shard as its codec does. Here a chunk is one call of the codec, a shard is one file, and the
metadata are those that zarr-python itself makes for an array of the same kind.

Chunks of zeros are written as well, so that a chunk without a file is a chunk that was lost.
"""

import functools
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.schema import Column

__all__ = ["ChunkedArray", "consolidate", "missing_chunks"]

# Bitshuffle packs the few noisy bits of ADC counts; LZ4 then decodes fastest of all that reach the
# same ratio (zstd gains 10 % in size and halves the rate).
CODEC: dict[str, Any] = {"cname": "lz4", "clevel": 5}
NO_CHUNK = np.iinfo(np.uint64).max
"""Offset and length, in the index of a shard, of a chunk that is not there."""


def _array_options(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return what `create_array` needs for an array of this type: codec, fill value."""
    from zarr.codecs import BloscCodec

    return {
        "dtype": dtype.newbyteorder("="),
        "compressors": BloscCodec(**CODEC, shuffle="bitshuffle", typesize=dtype.itemsize),
        "fill_value": np.zeros((), dtype)[()],
        "config": {"write_empty_chunks": True},
    }


def _described(entry: Column) -> dict[str, str]:
    """Return the attributes of the array of a column."""
    attrs = {"units": entry.unit, "description": entry.description}
    if entry.astri:
        attrs["astri_name"] = entry.astri
    return attrs


class ChunkedArray:
    """One array of a store under construction, growing along its first axis.

    Parameters
    ----------
    folder
        Of the array; its parent exists.
    entry
        Its description in the schema.
    tail
        Shape of a row.
    dtype
        Of the elements.
    chunk
        Rows in a chunk.
    shard
        Rows in a shard, a file of several chunks; None = every chunk is a file.
    """

    def __init__(
        self,
        folder: Path,
        entry: Column,
        tail: tuple[int, ...],
        dtype: np.dtype[Any],
        chunk: int,
        shard: int | None = None,
    ) -> None:
        self._folder, self._entry, self._tail, self._dtype = folder, entry, tail, dtype
        self._chunk, self._shard = chunk, shard
        self._n_rows = 0
        folder.mkdir()

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows of shape (row, *tail): whole files, in the last call also a part of one."""
        step = self._shard or self._chunk
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            index = self._n_rows // step
            self._n_rows += len(part)
            if part.size:
                self._write(index, part)

    def close(self) -> None:
        """Write the metadata; only then is it an array."""
        chunks = tuple(max(1, n) for n in (self._chunk, *self._tail))
        shards = None if self._shard is None else (self._shard, *chunks[1:])
        meta = json.loads(_metadata(self._dtype.str, chunks, shards))
        meta["shape"] = [self._n_rows, *self._tail]
        meta["attributes"] = _described(self._entry)
        meta["dimension_names"] = list(self._entry.dims)
        (self._folder / "zarr.json").write_text(json.dumps(meta, indent=2))

    def _write(self, index: int, rows: NDArray[Any]) -> None:
        path = self._folder.joinpath("c", str(index), *("0" for _ in self._tail))
        if index == 0 or self._tail:
            path.parent.mkdir(parents=True, exist_ok=True)
        if self._shard is None:
            path.write_bytes(self._encode(rows))
            return
        parts = [rows[first : first + self._chunk] for first in range(0, len(rows), self._chunk)]
        with path.open("wb") as file:
            place = 0
            table = np.full((self._shard // self._chunk, 2), NO_CHUNK, dtype="<u8")
            for number, encoded in enumerate(_encoders().map(self._encode, parts)):
                file.write(encoded)
                table[number] = place, len(encoded)
                place += len(encoded)
            file.write(_shard_index(table))

    def _encode(self, rows: NDArray[Any]) -> bytes:
        if len(rows) < self._chunk:  # a chunk on the disk has its full size
            padding = np.zeros((self._chunk - len(rows), *self._tail), self._dtype)
            rows = np.concatenate([rows, padding])
        encoded: bytes = _codec().encode(
            np.ascontiguousarray(rows, dtype=self._dtype.newbyteorder("<"))
        )
        return encoded


def _shard_index(table: NDArray[np.uint64]) -> bytes:
    """Return the end of a shard: offset and length of its chunks, and their checksum."""
    import google_crc32c

    data = table.tobytes()
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


@functools.cache
def _encoders() -> ThreadPoolExecutor:
    """Return the threads that encode the chunks of a shard, as many as Zarr may use."""
    import zarr

    return ThreadPoolExecutor(zarr.config.get("threading.max_workers") or os.cpu_count() or 1)


@functools.cache
def _codec() -> Any:
    import numcodecs

    return numcodecs.Blosc(**CODEC, shuffle=numcodecs.Blosc.BITSHUFFLE)


@functools.cache
def _metadata(dtype: str, chunks: tuple[int, ...], shards: tuple[int, ...] | None) -> str:
    """Return the metadata that zarr-python writes for an array of this kind."""
    import zarr

    memory: dict[str, Any] = {}
    zarr.create_array(
        memory,
        shape=(0, *chunks[1:]),
        chunks=chunks,
        shards=shards,
        dimension_names=[None] * len(chunks),
        zarr_format=3,
        **_array_options(np.dtype(dtype)),
    )
    text: str = memory["zarr.json"].to_bytes().decode()
    return text


def missing_chunks(folder: Path) -> list[str]:
    """Return the chunks of an array that have no file, such as ["c/3/0"].

    Raises
    ------
    OSError
        When the metadata cannot be read.
    ValueError
        When they are not those of an array.
    """
    meta = json.loads((folder / "zarr.json").read_bytes())
    try:
        shape, size = meta["shape"], meta["chunk_grid"]["configuration"]["chunk_shape"]
    except (KeyError, TypeError):
        raise ValueError(f"{folder} is not a Zarr array") from None
    counts = [math.ceil(length / step) for length, step in zip(shape, size, strict=True)]
    names = ("/".join(("c", *map(str, index))) for index in np.ndindex(*counts))
    return [name for name in names if not (folder / name).is_file()]


def consolidate(folder: Path) -> None:
    """Put a copy of all metadata of a store into its root: xarray then opens it in one read.

    The same as `zarr.consolidate_metadata`, which opens every array for it. The copy is not in the
    Zarr v3 specification yet; readers that do not know it skip it.

    Raises
    ------
    OSError
        When the metadata cannot be read or written.
    """
    found: dict[str, Any] = {}
    for where, folders, files in os.walk(folder):
        folders.sort()
        if "zarr.json" in files:
            meta = json.loads((Path(where) / "zarr.json").read_bytes())
            found[Path(where).relative_to(folder).as_posix()] = meta
            if meta["node_type"] == "array":
                folders.clear()  # chunks
    root = found.pop(".")
    for meta in found.values():
        if meta["node_type"] == "group":
            meta["consolidated_metadata"] = _inline({})
    root["consolidated_metadata"] = _inline(found)
    # Without indent, which would leave the work to Python: a third of the time of a small store.
    (folder / "zarr.json").write_text(json.dumps(root))


def _inline(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": metadata}
