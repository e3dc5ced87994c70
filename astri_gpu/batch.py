"""Batches of images from a store, read ahead and all of one size."""

import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.store import Store

__all__ = [
    "Batch",
    "ColumnReader",
    "ImageSource",
    "WriteBehind",
    "cut",
    "first_rows",
    "has_charges",
    "image_source",
    "read_ahead",
    "read_batches",
    "read_blocks",
]

T = TypeVar("T")

KEYS = ("event_index", "tel_id", "calibration_index")


class Batch(NamedTuple):
    """Rows `start` to ``start + n_valid`` of an image table; the rest is padding."""

    start: int
    n_valid: int
    adc: NDArray[Any]  # (image, gain, pixel) or (image, gain, pixel, sample)
    event_index: NDArray[np.int64]
    tel_id: NDArray[np.uint16]
    calibration_index: NDArray[np.int32]


class ColumnReader:
    """Narrow columns of a table, read in order and each of their chunks only once.

    A chunk of them has the rows of many shards of counts. At most one chunk of each column is in
    memory.

    Parameters
    ----------
    store
        Where the table is.
    path
        Its group, such as "dl0/event".
    names
        Columns, all of them with one element per row.
    """

    def __init__(self, store: Store, path: str, names: Sequence[str]) -> None:
        self._store, self._path, self._names = store, path, tuple(names)
        array = store.array(f"{path}/{self._names[0]}")
        self.n_rows = int(array.shape[0])
        self._step = int(array.chunks[0])
        self._first = self._last = 0
        self._columns: dict[str, NDArray[Any]] = {}

    def read(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return the rows from `start` to `stop`.

        Raises
        ------
        AstriError
            When a column is missing or cannot be decoded.
        """
        if not self._columns or not self._first <= start <= stop <= self._last:
            self._first = start // self._step * self._step
            self._last = -(-stop // self._step) * self._step
            self._columns = self._store.read_table(self._path, self._names, self._first, self._last)
        rows = slice(start - self._first, stop - self._first)
        return {name: values[rows] for name, values in self._columns.items()}

    def take(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return single rows, given in ascending order; chunks between them are not read.

        Raises
        ------
        AstriError
            As `read`, and when there are no such rows.
        """
        if len(rows) and not 0 <= rows[0] <= rows[-1] < self.n_rows:
            raise AstriError(
                f"{self._path} in the store {self._store.path} has {self.n_rows} rows, but its "
                f"images refer to rows {rows[0]} to {rows[-1]}: the store is damaged, make it "
                "again."
            )
        chunk = rows // self._step
        places = np.flatnonzero(np.diff(chunk)) + 1
        parts = []
        for part in np.split(rows, places):
            first = int(part[0]) if len(part) else 0
            block = self.read(first, int(part[-1]) + 1 if len(part) else 0)
            parts.append({name: values[part - first] for name, values in block.items()})
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._names}


class _Buffers:
    """Memory for decoded shards, used again when nobody has a view of it any more."""

    def __init__(self) -> None:
        self._made: list[NDArray[Any]] = []

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array with anything in it; it is nobody else's as long as it is referred to."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        for k in range(len(self._made)):
            # Views of it refer to it: left are this list and the argument of getrefcount.
            if sys.getrefcount(self._made[k]) == 2 and self._made[k].nbytes >= n_bytes:
                break
        else:
            k = len(self._made)
            self._made.append(np.empty(n_bytes, dtype=np.uint8))
        return self._made[k][:n_bytes].view(dtype).reshape(shape)


class ImageSource(NamedTuple):
    """What the images of a camera are made from, and how to read it."""

    path: str  # of the array whose chunks and shards the reading follows
    shape: tuple[int, ...]  # of one image
    dtype: np.dtype[Any]
    n_samples: int  # of a waveform; 0 for one number per pixel
    chunk: int  # rows
    shard: int  # rows, as many as in a chunk where there are no shards
    read: Callable[[int, int], NDArray[Any]]  # rows from start to stop

    @property
    def image_bytes(self) -> int:
        """Return the size of one image in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def image_source(store: Store, camera: str) -> ImageSource:
    """Return where the images of a camera are: sums or waveforms of ADC counts, or charges.

    Raises
    ------
    AstriError
        When the store has neither counts nor charges of this camera.
    """
    path = f"dl0/image/{camera}"
    if has_charges(store, camera):
        return _charge_source(store, camera)
    name = f"{path}/waveform" if f"{path}/waveform" in store else f"{path}/adc"
    array = store.array(name)
    buffers = _Buffers()

    def read(start: int, stop: int) -> NDArray[Any]:
        out = buffers.take((stop - start, *array.shape[1:]), array.dtype)
        return store.read(name, start, stop, out=out)

    return ImageSource(
        path=name,
        shape=array.shape[1:],
        dtype=array.dtype,
        n_samples=array.shape[3] if array.ndim == 4 else 0,
        chunk=int(array.chunks[0]),
        shard=int((array.shards or array.chunks)[0]),
        read=read,
    )


def has_charges(store: Store, camera: str) -> bool:
    """Return whether the images of a camera are charges, without the counts behind them."""
    counts = (f"dl0/image/{camera}/{name}" for name in ("adc", "waveform"))
    return f"dl1/image/{camera}/charge" in store and not any(name in store for name in counts)


def _charge_source(store: Store, camera: str) -> ImageSource:
    """Return the charges of a camera, with peak times where it has samples: float32 (part, pixel).

    Numbers that are not finite (no measurement) count as no charge.
    """
    path = f"dl1/image/{camera}"
    array, n_keys = store.array(f"{path}/charge"), store.n_rows(f"dl0/image/{camera}")
    if array.shape[0] != n_keys:
        raise AstriError(
            f"The store {store.path} has {array.shape[0]} charges but {n_keys} images of {camera}: "
            "it is damaged, make it again."
        )
    has_samples = store.group_attrs(f"instrument/camera/{camera}").get("n_samples", 1) > 1
    names = ["charge"]
    if has_samples and f"{path}/peak_time" in store:
        names.append("peak_time")

    def read(start: int, stop: int) -> NDArray[Any]:
        given = np.empty((stop - start, len(names), array.shape[1]), dtype=np.float32)
        for part, name in enumerate(names):
            given[:, part] = store.read(f"{path}/{name}", start, stop)
        if not np.isfinite(given.sum(dtype=np.float64)):
            given[~np.isfinite(given)] = 0
        return given

    return ImageSource(
        path=f"{path}/charge",
        shape=(len(names), array.shape[1]),
        dtype=np.dtype(np.float32),
        n_samples=0,
        chunk=int(array.chunks[0]),
        shard=int((array.shards or array.chunks)[0]),
        read=read,
    )


def first_rows(store: Store, camera: str, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of the first image of each block of events; images are in their order.

    Parameters
    ----------
    store
        Where the images are.
    camera
        Name of the group of images.
    edges
        (block,), the first event of each block.

    Raises
    ------
    AstriError
        When the index of events is missing or cannot be decoded.
    """
    path = f"dl0/image/{camera}/event_index"
    first = np.zeros(len(edges), dtype=np.int64)
    for start, stop in store.blocks(path):
        first += np.searchsorted(store.read(path, start, stop), edges)
    return first


def read_blocks(store: Store, camera: str) -> Iterator[Batch]:
    """Yield the images of one camera in order, whole shards, which decode fastest.

    Raises
    ------
    AstriError
        When the store has no ADC counts for this camera, or they cannot be decoded, or its images
        are not in the order of their events.
    """
    path = f"dl0/image/{camera}"
    source = image_source(store, camera)
    # Charges are calibrated: which constants that took is of no interest.
    is_counted = source.dtype.kind != "f"
    keys = ColumnReader(store, path, KEYS if is_counted else KEYS[:2])
    last_event = -1
    for start, stop in store.blocks(source.path):
        columns = keys.read(start, stop)
        event_index = columns["event_index"]
        columns.setdefault("calibration_index", np.zeros(stop - start, dtype=np.int32))
        if event_index[0] < last_event or np.any(np.diff(event_index) < 0):
            raise AstriError(
                f"The images in {path} of the store {store.path} are not in the order of their "
                "events: make the store again."
            )
        last_event = event_index[-1]
        yield Batch(
            start, stop - start, source.read(start, stop), *(columns[name] for name in KEYS)
        )


def cut(block: Batch, size: int, *, fixed_shape: bool) -> Iterator[Batch]:
    """Yield the valid rows of a batch in batches of `size`, the last padded if `fixed_shape`."""
    for first in range(0, block.n_valid, size):
        rows = slice(first, min(first + size, block.n_valid))
        n_valid = rows.stop - rows.start
        padded = size if fixed_shape else n_valid
        yield Batch(
            block.start + first, n_valid, *(_padded(values[rows], padded) for values in block[2:])
        )


def _padded(values: NDArray[Any], size: int) -> NDArray[Any]:
    if len(values) == size:
        return values
    full = np.zeros((size, *values.shape[1:]), dtype=values.dtype)
    full[: len(values)] = values
    return full


def read_batches(
    store: Store, camera: str, batch_size: int, *, fixed_shape: bool
) -> Iterator[Batch]:
    """Yield the images of one camera in order, reading and decoding whole shards.

    Parameters
    ----------
    store
        A DL0 store.
    camera
        Name of the group of images.
    batch_size
        Most images in a batch. A shard of the store is the other limit, and the last batch of a
        shard is shorter.
    fixed_shape
        Whether short batches are padded, so that all have one size.

    Raises
    ------
    AstriError
        As `read_blocks`.
    """
    size = min(batch_size, image_source(store, camera).shard)
    for block in read_blocks(store, camera):
        yield from cut(block, size, fixed_shape=fixed_shape)


def read_ahead(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield `items` made by a thread of their own, up to `depth` of them in advance.

    An exception of the producer is raised in the consumer; a consumer that stops early stops the
    producer.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(kind: str, item: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, item), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
        except BaseException as error:  # handed over to the consumer, which raises it
            put("error", error)
        else:
            put("end", None)

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "error":
                raise item
            if kind == "end":
                return
            yield item
    finally:
        stopped.set()
        thread.join()


class WriteBehind:
    """Calls of one function in a thread of its own, in order; a context manager.

    The next call after a failed one, or the end of the context, raises its exception.
    """

    def __init__(self, function: Callable[..., None], depth: int = 2) -> None:
        self._function = function
        self._waiting: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="write-behind", daemon=True)

    def __enter__(self) -> "WriteBehind":
        self._thread.start()
        return self

    def __call__(self, *arguments: Any) -> None:
        """Queue one call."""
        if self._error:
            raise self._error
        self._waiting.put(arguments)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._waiting.put(None)
        self._thread.join()
        if error is None and self._error:
            raise self._error

    def _work(self) -> None:
        while (arguments := self._waiting.get()) is not None:
            if self._error:
                continue  # drain, so that nobody waits for a place in the queue
            try:
                self._function(*arguments)
            except BaseException as error:  # raised by the next call in the caller's thread
                self._error = error
