"""Batches of images from a store, read ahead and all of one size."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from astri_gpu.store import Store

__all__ = ["Batch", "WriteBehind", "read_ahead", "read_batches"]

T = TypeVar("T")


class Batch(NamedTuple):
    """Rows `start` to ``start + n_valid`` of an image table; the rest is padding."""

    start: int
    n_valid: int
    adc: NDArray[Any]  # (image, gain, pixel) or (image, gain, pixel, sample)
    event_index: NDArray[np.int64]
    tel_id: NDArray[np.uint16]
    calibration_index: NDArray[np.int32]


def _padded(values: NDArray[Any], size: int) -> NDArray[Any]:
    if len(values) == size:
        return values
    full = np.zeros((size, *values.shape[1:]), dtype=values.dtype)
    full[: len(values)] = values
    return full


class _KeyColumns:
    """The narrow columns of an image table, read in order and each of their chunks only once.

    A chunk of them has the rows of many shards of counts.
    """

    names = ("event_index", "tel_id", "calibration_index")

    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path
        self._step = int(store.array(f"{path}/{self.names[0]}").chunks[0])
        self._first = self._last = 0
        self._columns: dict[str, NDArray[Any]] = {}

    def read(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return the rows from `start` to `stop`."""
        if not self._first <= start <= stop <= self._last:
            self._first = start // self._step * self._step
            self._last = -(-stop // self._step) * self._step
            self._columns = self._store.read_table(self._path, self.names, self._first, self._last)
        rows = slice(start - self._first, stop - self._first)
        return {name: values[rows] for name, values in self._columns.items()}


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
        Most images in a batch. A chunk of the store is the other limit (waveforms fill it with
        few images), and the last batch of a shard is shorter.
    fixed_shape
        Whether short batches are padded, so that all have one size.

    Raises
    ------
    AstriError
        When the store has no ADC counts for this camera, or they cannot be decoded.
    """
    path = f"dl0/image/{camera}"
    name = "waveform" if f"{path}/waveform" in store else "adc"
    array = store.array(f"{path}/{name}")
    batch_size = min(batch_size, array.chunks[0])
    keys = _KeyColumns(store, path)
    for start, stop in store.blocks(f"{path}/{name}"):
        columns = keys.read(start, stop)
        adc = store.read(f"{path}/{name}", start, stop)
        for first in range(0, stop - start, batch_size):
            rows = slice(first, min(first + batch_size, stop - start))
            n_valid = rows.stop - rows.start
            size = batch_size if fixed_shape else n_valid
            yield Batch(
                start + first,
                n_valid,
                _padded(adc[rows], size),
                *(_padded(columns[c][rows], size) for c in columns),
            )


def read_ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
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
