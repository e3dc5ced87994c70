"""The second half of `process`: events from their image parameters (DL2a)."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import Backend
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

__all__ = ["process_events"]

EVENTS_PER_STEP = 8192
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
EVENT_COLUMNS = ("obs_id", "event_id", *(f"stereo_{name}" for name in StereoGeometry._fields))


class _Camera(NamedTuple):
    """Images of one camera: where they are, and where each event's begin."""

    name: str
    parameters: Any  # the group dl1/image/<camera> under construction
    event_index: NDArray[np.int64]
    tel_index: NDArray[np.int64]
    radius_deg: float


class _Images(NamedTuple):
    """All images of a range of events, of all cameras, sorted by event."""

    event: NDArray[np.int64]  # counted from the first event of the range
    slot: NDArray[np.int64]
    tel_index: NDArray[np.int64]
    columns: dict[str, NDArray[np.float64]]
    camera_of: NDArray[np.int64]


def process_events(
    store: Store,
    writer: StoreWriter,
    layout: ArrayLayout,
    backend: Backend,
    config: "ProcessConfig",
) -> int:
    """Write ``dl2/event`` and ``dl2/image/<camera>``; return the number of valid events.

    The tables ``dl1/image`` have to be complete. Memory does not grow with the number of events
    but for the row numbers of the images.
    """
    cameras = _cameras(store, writer, layout, config)
    n_events = store.n_rows("dl0/event")
    events = writer.table("dl2/event", EVENT_COLUMNS, sizes={})
    impacts = [
        writer.table(
            f"dl2/image/{camera.name}",
            ["event_index", "tel_id", "stereo_impact_distance"],
            sizes={},
        )
        for camera in cameras
    ]
    stereo = _Stereo(backend, layout, config)
    n_valid = 0
    for first in range(0, n_events, EVENTS_PER_STEP):
        last = min(first + EVENTS_PER_STEP, n_events)
        images = _collect(store, cameras, first, last)
        pointing = store.read_table("dl0/event", ["array_alt", "array_az"], first, last)
        geometry, impact = stereo(images, pointing["array_alt"], pointing["array_az"])
        rows = {
            f"stereo_{name}": values
            for name, values in zip(geometry._fields, geometry, strict=True)
        }
        rows |= store.read_table("dl0/event", ["obs_id", "event_id"], first, last)
        events.append(rows)
        n_valid += int(np.count_nonzero(geometry.is_valid))
        for k, table in enumerate(impacts):
            of_camera = images.camera_of == k
            tel_id = layout.tel_id[images.tel_index[of_camera]]
            table.append(
                {
                    "event_index": images.event[of_camera] + first,
                    "tel_id": tel_id.astype(np.uint16),
                    "stereo_impact_distance": impact[of_camera].astype(np.float32),
                }
            )
    return n_valid


def _cameras(
    store: Store, writer: StoreWriter, layout: ArrayLayout, config: "ProcessConfig"
) -> list[_Camera]:
    index_of = np.full(int(layout.tel_id.max()) + 1, -1, dtype=np.int64)
    index_of[layout.tel_id] = np.arange(len(layout.tel_id))
    by_name = {camera.name: camera for camera in layout.cameras}
    cameras = []
    for name in store.cameras():
        focal_length = by_name[name].focal_length(config.calibration.focal_length)
        cameras.append(
            _Camera(
                name,
                writer.require_group(f"dl1/image/{name}"),
                store.read(f"dl0/image/{name}/event_index"),
                index_of[store.read(f"dl0/image/{name}/tel_id")],
                by_name[name].geometry.telescope_frame(focal_length).radius_deg,
            )
        )
    return cameras


def _collect(store: Store, cameras: list[_Camera], first: int, last: int) -> _Images:
    """Return the images of the events from `first` to `last`."""
    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in (*PARAMETERS, *POINTING, "camera_radius")
    }
    event, tel_index, camera_of = [], [], []
    for k, camera in enumerate(cameras):
        start, stop = np.searchsorted(camera.event_index, [first, last])
        for name in PARAMETERS:
            parts[name].append(np.asarray(camera.parameters[name][start:stop], dtype=np.float64))
        for name in POINTING:
            parts[name].append(store.read(f"dl0/image/{camera.name}/{name}", start, stop))
        n_images = stop - start
        parts["camera_radius"].append(np.full(n_images, camera.radius_deg))
        event.append(camera.event_index[start:stop] - first)
        tel_index.append(camera.tel_index[start:stop])
        camera_of.append(np.full(n_images, k))
    all_events = np.concatenate(event)
    # Camera by camera the rows are in order already; a stable sort brings the cameras together.
    order = np.argsort(all_events, kind="stable")
    all_events = all_events[order]
    slot = np.arange(len(order)) - np.searchsorted(all_events, all_events, side="left")
    return _Images(
        event=all_events,
        slot=slot,
        tel_index=np.concatenate(tel_index)[order],
        columns={name: np.concatenate(values)[order] for name, values in parts.items()},
        camera_of=np.concatenate(camera_of)[order],
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
        size = EVENTS_PER_STEP if self._backend.fixed_shape else n_events
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


_HILLAS = ("intensity", "fov_lon", "fov_lat", "length", "width", "psi")
