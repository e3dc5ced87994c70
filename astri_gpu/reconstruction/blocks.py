"""Whole events with all their images, read from a store block by block."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.batch import ColumnReader, read_ahead
from astri_gpu.errors import AstriError
from astri_gpu.reconstruction.catalogue import stored_event_columns, stored_image_columns
from astri_gpu.reconstruction.derived import (
    EVENT_DERIVED,
    IMAGE_DERIVED,
    Columns,
    derive_events,
    derive_images,
)
from astri_gpu.store import Store

__all__ = ["Columns", "EventBlock", "read_event_blocks"]

IMAGES_PER_BLOCK = 32_768
EVENTS_PER_BLOCK = 65_536
"""Most events in a block: where few have images a block ends here."""


class EventBlock(NamedTuple):
    """The events `first` to `stop` of a store, with all their images."""

    first: int
    stop: int
    images: dict[str, Columns]  # by camera; each with `event`, counted from `first`, and `tel_id`
    events: Columns

    @property
    def n_images(self) -> int:
        """Return the number of images of all cameras."""
        return sum(len(columns["event"]) for columns in self.images.values())


def read_event_blocks(
    store: Store,
    image_names: Collection[str],
    event_names: Collection[str],
    *,
    cameras: Sequence[str] | None = None,
) -> Iterator[EventBlock]:
    """Yield all events of a store in order, and every image once, read ahead by a thread.

    Blocks hold about 32 768 images; memory does not depend on the size of the store.

    Parameters
    ----------
    store
        A store with image parameters.
    image_names
        Columns of images: stored ones, derived ones (`astri_gpu.reconstruction.derived`), and
        columns of events, of which each image gets that of its event. Stored columns keep their
        type, derived ones are float32.
    event_names
        Columns of events, stored or derived.
    cameras
        Whose images are read; all that have parameters if left out.

    Raises
    ------
    AstriError
        When the store has no image parameters, lacks a column, or its images and events do not
        fit together.
    """
    known = store.cameras("dl1")
    if not known:
        raise AstriError(
            f"The store {store.path} has no image parameters: make them with `astri-gpu process`."
        )
    chosen = known if cameras is None else list(cameras)
    missing = [name for name in chosen if name not in known]
    if missing:
        raise AstriError(
            f"The store {store.path} has no images of {missing[0]}; it has {', '.join(known)}."
        )
    reader = _Reader(store, image_names, event_names, chosen)
    return read_ahead(reader.blocks())


class _Table:
    """Columns of tables with the same rows; each chunk is read once while the rows go on."""

    def __init__(self, store: Store, paths: Collection[str]) -> None:
        by_group: dict[str, list[str]] = {}
        for path in paths:
            group, _, name = path.rpartition("/")
            by_group.setdefault(group, []).append(name)
        self._readers = {group: ColumnReader(store, group, by_group[group]) for group in by_group}
        arrays = {path: store.array(path) for path in paths}
        self._steps = {path.rpartition("/")[0]: array.chunks[0] for path, array in arrays.items()}
        counts = {group: reader.n_rows for group, reader in self._readers.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{group} {count}" for group, count in counts.items())
            raise AstriError(
                f"Tables of the store {store.path} do not have the same number of rows ({told}): "
                "it is damaged, make it again."
            )
        self.n_rows = next(iter(counts.values()), 0)

    def read(self, start: int, stop: int) -> Columns:
        """Return the rows from `start` to `stop`."""
        columns: Columns = {}
        for group, reader in self._readers.items():
            step = self._steps[group]
            # Cut where chunks end: a reader that is asked for two chunks reads the first again.
            edges = [start, *range((start // step + 1) * step, stop, step), stop]
            parts = [reader.read(*pair) for pair in itertools.pairwise(edges)]
            for name, values in parts[0].items():
                whole = [part[name] for part in parts]
                columns[name] = np.concatenate(whole) if len(whole) > 1 else values
        return columns


class _Plan(NamedTuple):
    """What has to be read and made for the wanted columns of a camera or of the events."""

    stored: dict[str, str]  # paths of columns to read
    derived: list[str]
    of_events: list[str]  # columns of events that images get
    needs: list[str]  # columns of events, stored or derived


def _image_plan(store: Store, camera: str, names: Collection[str]) -> _Plan:
    images, events = stored_image_columns(store, camera), stored_event_columns(store)
    plan = _Plan({"tel_id": images["tel_id"]}, [], [], [])
    for name in dict.fromkeys(names):
        if name in images:
            plan.stored[name] = images[name]
        elif name in events or (name in IMAGE_DERIVED and not IMAGE_DERIVED[name].images):
            plan.of_events.append(name)
            plan.needs.append(name)
        elif name in IMAGE_DERIVED:
            entry = IMAGE_DERIVED[name]
            _require(store, name, entry.images, images)
            _require(store, name, entry.events, events)
            plan.derived.append(name)
            plan.stored.update({part: images[part] for part in entry.images})
            plan.needs.extend(entry.events)
        else:
            raise _no_column(store, name, f"images of {camera}")
    return plan


def _event_plan(store: Store, names: Collection[str]) -> _Plan:
    events = stored_event_columns(store)
    plan = _Plan({}, [], [], [])
    for name in dict.fromkeys(names):
        if name in events:
            plan.stored[name] = events[name]
        elif name in EVENT_DERIVED:
            _require(store, name, EVENT_DERIVED[name].events, events)
            plan.derived.append(name)
            plan.stored.update({part: events[part] for part in EVENT_DERIVED[name].events})
        else:
            raise _no_column(store, name, "events")
    return plan


def _require(store: Store, name: str, parts: Iterable[str], known: Collection[str]) -> None:
    for part in parts:
        if part not in known:
            raise AstriError(
                f"The store {store.path} has no column {part}, which {name} is made from: "
                f"{_maker(part)}."
            )


def _no_column(store: Store, name: str, of: str) -> AstriError:
    return AstriError(f"The store {store.path} has no column {name} of {of}: {_maker(name)}.")


def _maker(name: str) -> str:
    if name.startswith(("true_", "shower_id")):
        return "only simulated stores have it"
    return "make the store again with `astri-gpu process`"


class _Images:
    """The images of one camera; which of them a block takes depends on the other cameras too."""

    def __init__(self, store: Store, camera: str, names: Collection[str], n_events: int) -> None:
        self.plan = _image_plan(store, camera, names)
        self._names = ("tel_id", *names)
        group = self.plan.stored["tel_id"].rpartition("/")[0]
        self._where = f"{group} of the store {store.path}"
        self._n_events = n_events
        self._table = _Table(store, self.plan.stored.values())
        self._index = _Table(store, [f"{group}/event_index"])
        self._read = self._taken = 0  # rows, of `event_index` and of the others
        self._event = np.empty(0, dtype=np.int64)  # of the rows in between

    def known(self, n_images: int) -> int:
        """Return the event below which all events are complete within the next `n_images` rows."""
        while len(self._event) < n_images and self._read < self._index.n_rows:
            stop = min(self._read + n_images, self._index.n_rows)
            event = self._index.read(self._read, stop)["event_index"]
            last = self._event[-1] if len(self._event) else 0
            self._check(event, last)
            self._event = np.concatenate([self._event, event])
            self._read = stop
        return self._n_events if self._read == self._index.n_rows else int(self._event[-1])

    def take(self, first: int, stop: int, events: Columns) -> Columns:
        """Return the images of the events `first` to `stop`, whose columns are `events`."""
        n_images = int(np.searchsorted(self._event, stop))
        event, self._event = self._event[:n_images] - first, self._event[n_images:]
        stored = self._table.read(self._taken, self._taken + n_images)
        self._taken += n_images
        columns = stored | {name: events[name][event] for name in self.plan.of_events}
        columns |= derive_images(self.plan.derived, stored, events, event)
        return {"event": event, **{name: columns[name] for name in self._names}}

    def _check(self, event: NDArray[np.int64], last: int) -> None:
        """Refuse images that are not in order or belong to no event."""
        if np.any(np.diff(event, prepend=last) < 0):
            raise AstriError(
                f"The images in {self._where} are not in the order of their events: make the store "
                "again."
            )
        if event[-1] >= self._n_events:
            raise AstriError(
                f"Images in {self._where} refer to event {event[-1]}, but there are "
                f"{self._n_events} events: the store is damaged, make it again."
            )


class _Reader:
    """The blocks of one store."""

    def __init__(
        self,
        store: Store,
        image_names: Collection[str],
        event_names: Collection[str],
        cameras: Sequence[str],
    ) -> None:
        self._path = store.path
        self._n_events = store.n_rows("dl0/event")
        self._images = {name: _Images(store, name, image_names, self._n_events) for name in cameras}
        self._wanted = list(dict.fromkeys(event_names))
        needs = [name for images in self._images.values() for name in images.plan.needs]
        self._plan = _event_plan(store, [*self._wanted, *needs])
        self._events = _Table(store, self._plan.stored.values())
        if self._plan.stored and self._events.n_rows != self._n_events:
            raise AstriError(
                f"The store {store.path} has {self._events.n_rows} reconstructed or simulated "
                f"events, but dl0/event has {self._n_events}: it is damaged, make it again."
            )
        telescopes = store.read_table("instrument/telescope", ["x", "y", "z"])
        self._centre = np.array([telescopes[axis].mean() for axis in "xyz"])

    def blocks(self) -> Iterator[EventBlock]:
        """Yield one block after the other."""
        size = max(1, IMAGES_PER_BLOCK // max(1, len(self._images)))
        first = 0
        while first < self._n_events:
            known = [images.known(size) for images in self._images.values()]
            stop = min(first + EVENTS_PER_BLOCK, self._n_events, *known)
            if stop == first:
                raise AstriError(
                    f"Event {first} of the store {self._path} has more than {size} images of one "
                    "camera: the store is damaged, make it again."
                )
            yield self._block(first, stop)
            first = stop

    def _block(self, first: int, stop: int) -> EventBlock:
        columns = self._events.read(first, stop)
        columns |= derive_events(self._plan.derived, columns, self._centre)
        images = {name: reader.take(first, stop, columns) for name, reader in self._images.items()}
        return EventBlock(first, stop, images, {name: columns[name] for name in self._wanted})
