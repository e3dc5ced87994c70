"""The second half of `process`: events from their image parameters (DL2a)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import Backend
from astri_gpu.batch import ColumnReader
from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.kernels.stereo import (
    StereoGeometry,
    StereoImages,
    impact_distance,
    reconstruct,
    select_images,
)
from astri_gpu.store import Store, StoreWriter

if TYPE_CHECKING:
    from astri_gpu.config import ProcessConfig

__all__ = ["StereoEvents"]

EVENTS_PER_STEP = 8192
# (event, slot, slot) that are computed at a time: arrays of pairs stay in the cache of a CPU, and
# below half a gigabyte on a device.
MAX_PAIRS = 2048 * 9**2
DEVICE_PAIRS = 16 * MAX_PAIRS
# Columns of dl1/image that a reconstruction needs, and of dl0/image.
PARAMETERS = (
    "hillas_intensity",
    "hillas_fov_lon",
    "hillas_fov_lat",
    "hillas_length",
    "hillas_width",
    "hillas_psi",
    "morphology_n_pixels",
    "leakage_intensity_width_2",
)
POINTING = ("pointing_alt", "pointing_az")
KEPT = ("event_index", "tel_id", *PARAMETERS)
EVENTS = ("obs_id", "event_id", "array_alt", "array_az")
EVENT_COLUMNS = ("obs_id", "event_id", *(f"stereo_{name}" for name in StereoGeometry._fields))


class _Images(NamedTuple):
    """All images of a range of events, of all cameras, sorted by event."""

    event: NDArray[np.int64]  # counted from the first event of the range
    slot: NDArray[np.int64]
    tel_index: NDArray[np.int64]
    columns: dict[str, NDArray[np.float64]]
    camera_of: NDArray[np.int64]


class StereoEvents:
    """Writes ``dl2/event`` and ``dl2/image/<camera>`` while images come in.

    Images of each camera are added in the order of their events. As soon as all images of the next
    events are there these are reconstructed and written, so that memory holds the images of a few
    thousand events whatever the store has. It is to be used by one thread at a time.

    Parameters
    ----------
    store, writer
        Where the events come from, and where their geometry goes.
    layout
        Telescopes and cameras.
    names
        Of the cameras, as groups of images.
    backend, config
        What computes, and how.
    """

    def __init__(
        self,
        store: Store,
        writer: StoreWriter,
        layout: ArrayLayout,
        names: Sequence[str],
        backend: Backend,
        config: "ProcessConfig",
    ) -> None:
        self._cameras = [_Camera(store, writer, layout, name, config) for name in names]
        self._layout, self._path = layout, store.path
        self._events = ColumnReader(store, "dl0/event", EVENTS)
        self._table = writer.table("dl2/event", EVENT_COLUMNS, sizes={})
        self._stereo = _Stereo(backend, layout, config)
        self._first = 0  # the next event to be reconstructed
        self._n_valid = 0

    def add(self, name: str, rows: Mapping[str, NDArray[Any]]) -> None:
        """Take the next images of a camera, columns of ``dl1/image``.

        Raises
        ------
        AstriError
            When images and events do not fit together.
        """
        next(camera for camera in self._cameras if camera.name == name).add(rows)
        known = min(camera.known for camera in self._cameras)
        while self._first + EVENTS_PER_STEP <= known:
            self._write(self._first + EVENTS_PER_STEP)

    def read_back(self, writer: StoreWriter) -> None:
        """Take all images of all cameras from the finished tables ``dl1/image``.

        Where images of one event are in several tables nobody has them all at the same time: they
        are read again side by side, each chunk once.
        """
        blocks = {
            camera.name: _written(writer.require_group(f"dl1/image/{camera.name}"))
            for camera in self._cameras
        }
        while blocks:
            # The camera that is furthest behind: no other has to wait with many images.
            camera = min(
                (camera for camera in self._cameras if camera.name in blocks),
                key=lambda camera: camera.known,
            )
            rows = next(blocks[camera.name], None)
            if rows is None:
                del blocks[camera.name]
                camera.end()
            else:
                self.add(camera.name, rows)

    def finish(self) -> int:
        """Reconstruct the last events; return the number of valid ones of all.

        Raises
        ------
        AstriError
            When images are left over that belong to no event.
        """
        while self._first < self._events.n_rows:
            self._write(min(self._first + EVENTS_PER_STEP, self._events.n_rows))
        for camera in self._cameras:
            camera.check_empty(self._events.n_rows)
        return self._n_valid

    def _write(self, last: int) -> None:
        """Reconstruct the events up to `last`."""
        images = _sorted([camera.take(last) for camera in self._cameras], self._first)
        if images.slot.max(initial=0) >= self._layout.n_telescopes:
            event = images.event[np.argmax(images.slot)] + self._first
            raise _too_many(event, f"the store {self._path}", self._layout.n_telescopes)
        columns = self._events.read(self._first, last)
        geometry, impact = self._stereo(images, columns["array_alt"], columns["array_az"])
        rows = {
            f"stereo_{name}": values
            for name, values in zip(geometry._fields, geometry, strict=True)
        }
        self._table.append(rows | {name: columns[name] for name in ("obs_id", "event_id")})
        self._n_valid += int(np.count_nonzero(geometry.is_valid))
        for k, camera in enumerate(self._cameras):
            of_camera = images.camera_of == k
            tel_id = self._layout.tel_id[images.tel_index[of_camera]]
            camera.impacts.append(
                {
                    "event_index": images.event[of_camera] + self._first,
                    "tel_id": tel_id.astype(np.uint16),
                    "stereo_impact_distance": impact[of_camera].astype(np.float32),
                }
            )
        self._first = last


class _Camera:
    """Images of one camera whose events are not complete yet."""

    def __init__(
        self,
        store: Store,
        writer: StoreWriter,
        layout: ArrayLayout,
        name: str,
        config: "ProcessConfig",
    ) -> None:
        self.name = name
        self.known = 0  # images of all events below this one are there
        self.impacts = writer.table(
            f"dl2/image/{name}", ["event_index", "tel_id", "stereo_impact_distance"], sizes={}
        )
        camera = next(camera for camera in layout.cameras if camera.name == name)
        focal_length = camera.focal_length(config.calibration.focal_length)
        self._radius_deg = camera.geometry.telescope_frame(focal_length).radius_deg
        self._pointing = ColumnReader(store, f"dl0/image/{name}", POINTING)
        self._source = f"dl0/image/{name} of the store {store.path}"
        self._index_of = np.full(int(layout.tel_id.max()) + 1, -1, dtype=np.int64)
        self._index_of[layout.tel_id] = np.arange(len(layout.tel_id))
        self._n_telescopes = layout.n_telescopes
        self._rows: list[dict[str, NDArray[Any]]] = []
        self._taken = 0  # rows

    def add(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Take the next rows."""
        event = rows["event_index"]
        if not len(event):
            return
        n = self._n_telescopes
        again = np.flatnonzero(event[n:] == event[:-n])
        if len(again):
            raise _too_many(event[again[0]], self._source, n)
        self._rows.append({name: rows[name] for name in KEPT})
        self.known = int(event[-1])

    def end(self) -> None:
        """Take note that no rows come any more."""
        self.known = np.iinfo(np.int64).max

    def take(self, last: int) -> dict[str, NDArray[Any]]:
        """Return the rows of the events below `last`, with their pointing, and drop them."""
        done, left = [], []
        for rows in self._rows:
            n = int(np.searchsorted(rows["event_index"], last))
            if n:
                done.append({name: values[:n] for name, values in rows.items()})
            if n < len(rows["event_index"]):
                left.append({name: values[n:] for name, values in rows.items()})
        self._rows = left
        columns = {
            name: np.concatenate([rows[name] for rows in done]) if done else np.empty(0)
            for name in KEPT
        }
        n_rows = len(columns["event_index"])
        columns |= self._pointing.read(self._taken, self._taken + n_rows)
        self._taken += n_rows
        columns["camera_radius"] = np.full(n_rows, self._radius_deg)
        columns["tel_index"] = self._tel_index(columns["tel_id"].astype(np.int64))
        return columns

    def check_empty(self, n_events: int) -> None:
        """Refuse images that no event has asked for."""
        if self._rows:
            raise AstriError(
                f"Images in {self._source} refer to event {self._rows[-1]['event_index'][-1]}, "
                f"but there are {n_events} events: the store is damaged, make it again."
            )

    def _tel_index(self, tel_id: NDArray[np.int64]) -> NDArray[np.int64]:
        inside = tel_id < len(self._index_of)
        index = np.where(inside, self._index_of[np.where(inside, tel_id, 0)], -1)
        if np.any(index < 0):
            raise AstriError(
                f"Images in {self._source} are of telescope {tel_id[index < 0][0]}, which the "
                "array does not have: the store is damaged, make it again."
            )
        return index


def _too_many(event: int, where: str, n_telescopes: int) -> AstriError:
    return AstriError(
        f"Event {event} has more images in {where} than the array has telescopes ({n_telescopes}): "
        "the store is damaged, make it again."
    )


def _written(group: Any) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the columns in KEPT of a finished table, a chunk at a time."""
    first = group[KEPT[0]]
    for start in range(0, first.shape[0], first.chunks[0]):
        yield {name: group[name][start : start + first.chunks[0]] for name in KEPT}


def _sorted(parts: list[dict[str, NDArray[Any]]], first: int) -> _Images:
    """Return the images of all cameras, `parts`, sorted by event."""

    def together(name: str) -> NDArray[Any]:
        return np.concatenate([part[name] for part in parts])

    event = together("event_index").astype(np.int64) - first
    camera_of = np.repeat(np.arange(len(parts)), [len(part["tel_id"]) for part in parts])
    # Camera by camera the rows are in order already; a stable sort brings the cameras together.
    order = np.argsort(event, kind="stable")
    event = event[order]
    slot = np.arange(len(order)) - np.searchsorted(event, event, side="left")
    return _Images(
        event=event,
        slot=slot,
        tel_index=together("tel_index")[order],
        columns={
            name: together(name).astype(np.float64)[order]
            for name in (*PARAMETERS, *POINTING, "camera_radius")
        },
        camera_of=camera_of[order],
    )


class _Stereo:
    """The stereo kernels on padded (event, slot) arrays."""

    def __init__(self, backend: Backend, layout: ArrayLayout, config: "ProcessConfig") -> None:
        self._backend, self._config = backend, config.stereo
        self._position = np.stack([layout.x, layout.y, layout.z], axis=-1)
        self._level = layout.altitude_m
        self._reconstruct = backend.compile(reconstruct, ("method", "observation_level_m"))
        self._impact = backend.compile(impact_distance)
        self._n_slots = 2

    def __call__(
        self, images: _Images, array_alt: NDArray[np.float64], array_az: NDArray[np.float64]
    ) -> tuple[StereoGeometry, NDArray[np.float64]]:
        """Return the geometry of each event (NumPy) and the impact distance of each image."""
        n_events = len(array_alt)
        needed = int(images.slot.max(initial=0)) + 1
        while self._n_slots < needed:
            # Pairs grow with the square of the slots: no more than there are telescopes.
            self._n_slots = min(2 * self._n_slots, max(needed, len(self._position)))
        most = DEVICE_PAIRS if self._backend.pipeline_depth > 1 else MAX_PAIRS
        size = max(1, min(EVENTS_PER_STEP, most // self._n_slots**2))
        parts = []
        for first in range(0, n_events, size):
            rows = slice(first, min(first + size, n_events))
            part = _between(images, rows)
            parts.append(self._solve(part, array_alt[rows], array_az[rows], size))
        if len(parts) == 1:
            return parts[0]
        geometry = StereoGeometry(
            *(np.concatenate(column) for column in zip(*(g for g, _ in parts), strict=True))
        )
        return geometry, np.concatenate([impact for _, impact in parts])

    def _solve(
        self,
        images: _Images,
        array_alt: NDArray[np.float64],
        array_az: NDArray[np.float64],
        most: int,
    ) -> tuple[StereoGeometry, NDArray[np.float64]]:
        """Return the same for at most `most` events."""
        n_events = len(array_alt)
        size = most if self._backend.fixed_shape else n_events
        shape = (size, self._n_slots)
        c = images.columns
        good = select_images(
            c["hillas_intensity"],
            c["hillas_width"],
            c["morphology_n_pixels"],
            c["leakage_intensity_width_2"],
            min_intensity_pe=self._config.min_intensity_pe,
            min_width_deg=self._config.min_width_deg,
            min_pixels=self._config.min_pixels,
            max_leakage=self._config.max_leakage,
        )

        def slots(values: NDArray[Any], dtype: Any = np.float64) -> Any:
            padded = np.zeros(shape, dtype=dtype)
            padded[images.event, images.slot] = values
            return self._backend.asarray(padded)

        def events(values: NDArray[np.float64]) -> Any:
            padded = np.zeros(size)
            padded[:n_events] = values
            return self._backend.asarray(padded)

        position = [slots(axis) for axis in self._position[images.tel_index].T]
        hillas = [c[f"hillas_{name}"] for name in _HILLAS]
        columns = StereoImages(
            *map(slots, hillas),
            *(slots(c[name]) for name in (*POINTING, "camera_radius")),
            *position,
        )
        geometry = self._reconstruct(
            columns,
            slots(good, np.bool_),
            events(array_alt),
            events(array_az),
            method=self._config.method,
            observation_level_m=self._level,
        )
        impact = self._impact(
            geometry.core_x, geometry.core_y, geometry.alt, geometry.az, *position
        )
        host = StereoGeometry(*(self._backend.to_host(q)[:n_events] for q in geometry))
        return host, self._backend.to_host(impact)[images.event, images.slot]


def _between(images: _Images, events: slice) -> _Images:
    """Return the images of some events, whose numbers then count from the first of them."""
    first, last = np.searchsorted(images.event, [events.start, events.stop])
    rows = slice(first, last)
    return _Images(
        event=images.event[rows] - events.start,
        slot=images.slot[rows],
        tel_index=images.tel_index[rows],
        columns={name: values[rows] for name, values in images.columns.items()},
        camera_of=images.camera_of[rows],
    )


_HILLAS = ("intensity", "fov_lon", "fov_lat", "length", "width", "psi")
