"""Everything that a picture of one event needs, read from a store of any level."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import ArrayLayout, CameraDescription
from astri_gpu.store import Store
from astri_gpu.store_layout import read_layout

__all__ = ["Ellipse", "EventScene", "ImageScene", "choose_event", "find_event", "read_event"]

SHOWER = 32  # CTAO event type
ELLIPSE_COLUMNS = (
    "hillas_intensity",
    "hillas_fov_lon",
    "hillas_fov_lat",
    "hillas_length",
    "hillas_width",
    "hillas_psi",
)


@dataclass(frozen=True)
class Ellipse:
    """Hillas ellipse of an image in the telescope frame; all in degrees, one rms long and wide."""

    fov_lon: float
    fov_lat: float
    length: float
    width: float
    psi: float

    def contour(self, n_rms: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return fov_lon and fov_lat (deg) of the ellipse at `n_rms` standard deviations."""
        phase = np.linspace(0, 2 * np.pi, 73)
        return self.place(n_rms * self.length * np.cos(phase), n_rms * self.width * np.sin(phase))

    def axis(self, reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return fov_lon and fov_lat (deg) of the two ends of the axis, `reach` deg each way."""
        return self.place(np.array([-reach, reach]), np.zeros(2))

    def place(
        self, along: NDArray[np.float64], across: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return fov_lon and fov_lat (deg) of points along and across the axis (deg)."""
        cos, sin = np.cos(np.deg2rad(self.psi)), np.sin(np.deg2rad(self.psi))
        return (
            self.fov_lon + along * cos - across * sin,
            self.fov_lat + along * sin + across * cos,
        )


@dataclass(frozen=True, eq=False)
class ImageScene:
    """One image of the event.

    `values` are (pixel,): charges in p.e. when `calibrated`, else high-gain ADC counts (the
    largest sample of each pixel); None where the store has neither. `mask` is (pixel,), True = the
    pixel survived cleaning. `ellipse` is None for images without parameters. `brightness` ranks
    the images: the intensity in p.e., or counts above the median.
    """

    tel_id: int
    camera: CameraDescription
    focal_length_m: float
    pointing: tuple[float, float]  # altitude, azimuth, deg
    values: NDArray[np.float64] | None
    mask: NDArray[np.bool_] | None
    ellipse: Ellipse | None
    brightness: float
    calibrated: bool


@dataclass(frozen=True, eq=False)
class EventScene:
    """One event: its images, the brightest first, and where it came from.

    Directions are (altitude, azimuth) in deg, cores (x North, y West) in m, None where unknown.
    """

    obs_id: int
    event_id: int
    kind: str
    level: str
    layout: ArrayLayout
    images: tuple[ImageScene, ...]
    pointing: tuple[float, float]
    direction: tuple[float, float] | None
    core: tuple[float, float] | None
    true_direction: tuple[float, float] | None
    true_core: tuple[float, float] | None
    true_energy_tev: float | None
    model: str | None  # attribute simulation_model: a simplified simulation has to say so

    @property
    def calibrated(self) -> bool:
        """Return whether the pixel values are in p.e."""
        return self.level != "DL0"


def find_event(store: Store, event_id: int, obs_id: int | None) -> int:
    """Return the row of an event in the event table.

    Raises
    ------
    UsageError
        When the store has no such event.
    """
    events = store.read("dl0/event/event_id")
    match = events == event_id
    if obs_id is not None:
        match &= store.read("dl0/event/obs_id") == obs_id
    rows = np.flatnonzero(match)
    if not rows.size:
        of_run = "" if obs_id is None else f" in observation {obs_id}"
        has = f"{len(events)} events, {events.min()} to {events.max()}" if len(events) else "none"
        raise UsageError(f"{store.path} has no event {event_id}{of_run}; it has {has}.")
    return int(rows[0])


def choose_event(store: Store, obs_id: int | None) -> int:
    """Return the row of the event that shows most.

    It is a reconstructed event before any other one, then the one with the most images that have
    parameters, then the one with the highest sum of intensities. Without parameters it is the
    shower event with the most telescopes, then with the most trigger pixels.

    Raises
    ------
    AstriError
        When the store has no events.
    UsageError
        When none of them belongs to the observation `obs_id`.
    """
    runs = store.read("dl0/event/obs_id")
    if not len(runs):
        raise AstriError(f"{store.path} has no events, so there is nothing to draw.")
    candidate = np.ones(len(runs), dtype=bool) if obs_id is None else runs == obs_id
    if not candidate.any():
        known = ", ".join(str(run) for run in np.unique(runs)[:10])
        raise UsageError(f"{store.path} has no observation {obs_id}; it has {known}.")
    parametrised = bool(store.cameras("dl1"))
    n_images = np.zeros(len(runs))
    light = np.zeros(len(runs))
    level = "dl1" if parametrised else "dl0"
    for camera in store.cameras(level):
        table = f"{level}/image/{camera}"
        weight = f"{table}/{'hillas_intensity' if parametrised else 'n_trigger_pixels'}"
        for start, stop in store.blocks(weight):
            rows = store.read(f"{table}/event_index", start, stop)
            values = store.read(weight, start, stop).astype(np.float64)
            counted = np.isfinite(values) & (values > 0) if parametrised else values >= -1
            n_images += np.bincount(rows, counted, len(runs))
            light += np.bincount(rows, np.where(counted, values, 0), len(runs))
    valid = store.read("dl2/event/stereo_is_valid") if "dl2/event" in store else np.zeros(len(runs))
    shower = store.read("dl0/event/event_type") == SHOWER
    # lexsort sorts by its last key first and puts the largest last.
    return int(np.lexsort((light, n_images, shower, valid, candidate))[-1])


def read_event(store: Store, row: int, *, pixels: bool) -> EventScene:
    """Return one event.

    Parameters
    ----------
    store
        A store of any level.
    row
        Row in the event table.
    pixels
        Whether to read pixel values; without them only parameters are needed.

    Raises
    ------
    AstriError
        When `pixels` are asked for and the store has neither charges nor ADC counts.
    """
    layout = read_layout(store)
    focal_choice = _focal_length_choice(store)
    images = [
        image
        for camera in store.cameras()
        for image in _read_images(store, layout, camera, row, pixels, focal_choice)
    ]
    images.sort(key=lambda image: (-np.nan_to_num(image.brightness, nan=-1.0), image.tel_id))
    event = {name: _cell(store, f"dl0/event/{name}", row) for name in ("obs_id", "event_id")}
    reco = truth = None
    if "dl2/event" in store and _cell(store, "dl2/event/stereo_is_valid", row):
        reco = ("dl2/event/stereo_alt", "stereo_az", "stereo_core_x", "stereo_core_y")
    if "simulation/event" in store:
        truth = ("simulation/event/true_alt", "true_az", "true_core_x", "true_core_y")
    direction, core = _place(store, reco, row)
    true_direction, true_core = _place(store, truth, row)
    energy = _cell(store, "simulation/event/true_energy", row) if truth else np.nan
    return EventScene(
        obs_id=int(event["obs_id"]),
        event_id=int(event["event_id"]),
        kind=str(store.attrs.get("kind", "")),
        level=str(store.attrs.get("data_level", "")),
        layout=layout,
        images=tuple(images),
        pointing=(
            float(_cell(store, "dl0/event/array_alt", row)),
            float(_cell(store, "dl0/event/array_az", row)),
        ),
        direction=direction,
        core=core,
        true_direction=true_direction,
        true_core=true_core,
        true_energy_tev=float(energy) if np.isfinite(energy) else None,
        model=store.attrs.get("simulation_model"),
    )


def _cell(store: Store, path: str, row: int) -> Any:
    return store.read(path, row, row + 1)[0]


Pair = tuple[float, float] | None


def _place(store: Store, columns: tuple[str, str, str, str] | None, row: int) -> tuple[Pair, Pair]:
    """Return direction and core from four columns of one table, None where not finite."""
    if columns is None:
        return None, None
    table = columns[0].rpartition("/")[0]
    names = [columns[0], *(f"{table}/{name}" for name in columns[1:])]
    alt, az, x, y = (float(_cell(store, name, row)) for name in names)
    return (
        (alt, az) if np.isfinite([alt, az]).all() else None,
        (x, y) if np.isfinite([x, y]).all() else None,
    )


def _focal_length_choice(store: Store) -> Any:
    """Return the focal length that the parameters were computed with."""
    config = store.attrs.get("config") or (store.attrs.get("provenance") or {}).get("config") or {}
    return (config.get("calibration") or {}).get("focal_length", "auto")


def _rows_of(store: Store, table: str, event_row: int) -> tuple[int, int]:
    """Return the image rows of an event; images are sorted by event."""
    index = store.read(f"{table}/event_index")
    start, stop = np.searchsorted(index, [event_row, event_row + 1])
    return int(start), int(stop)


def _read_images(
    store: Store,
    layout: ArrayLayout,
    camera: str,
    event_row: int,
    pixels: bool,
    focal_choice: Any,
) -> list[ImageScene]:
    """Return the images that one kind of camera took of an event."""
    source = f"dl0/image/{camera}"
    start, stop = _rows_of(store, source, event_row)
    raw = store.read_table(source, ["tel_id", "pointing_alt", "pointing_az"], start, stop)
    parameters: dict[int, tuple[Ellipse | None, float]] = {}
    values: dict[int, NDArray[np.float64]] = {}
    masks: dict[int, NDArray[np.bool_]] = {}
    table = f"dl1/image/{camera}"
    calibrated = table in store
    if calibrated:
        first, last = _rows_of(store, table, event_row)
        columns = store.read_table(table, ("tel_id", *ELLIPSE_COLUMNS), first, last)
        numbers = [int(number) for number in columns["tel_id"]]
        for slot, tel_id in enumerate(numbers):
            parameters[tel_id] = _ellipse({name: columns[name][slot] for name in ELLIPSE_COLUMNS})
        if pixels:
            values = dict(zip(numbers, _charges(store, table, first, last), strict=True))
            masks = dict(zip(numbers, store.read(f"{table}/mask", first, last), strict=True))
    elif pixels:
        numbers = [int(number) for number in raw["tel_id"]]
        values = dict(zip(numbers, _counts(store, source, start, stop), strict=True))
    described = {entry.name: entry for entry in layout.cameras}[camera]
    found = []
    for slot, tel_id in enumerate(int(number) for number in raw["tel_id"]):
        if calibrated and tel_id not in parameters:
            continue  # left out of the processing
        ellipse, brightness = parameters.get(tel_id, (None, float("nan")))
        image = values.get(tel_id)
        if not calibrated and image is not None:
            brightness = float(np.sum(image - np.median(image)))
        found.append(
            ImageScene(
                tel_id=tel_id,
                camera=described,
                focal_length_m=described.focal_length(focal_choice),
                pointing=(float(raw["pointing_alt"][slot]), float(raw["pointing_az"][slot])),
                values=image,
                mask=masks.get(tel_id),
                ellipse=ellipse,
                brightness=brightness,
                calibrated=calibrated,
            )
        )
    return found


def _ellipse(row: dict[str, Any]) -> tuple[Ellipse | None, float]:
    intensity, lon, lat, length, width, psi = (float(row[name]) for name in ELLIPSE_COLUMNS)
    # A straight row of pixels has width 0, and one pixel has no direction: both are drawn.
    if not np.isfinite([lon, lat, length]).all():
        return None, intensity
    return Ellipse(lon, lat, length, np.nan_to_num(width), np.nan_to_num(psi)), intensity


def _charges(store: Store, table: str, start: int, stop: int) -> NDArray[np.float64]:
    if f"{table}/charge" not in store:
        raise AstriError(
            f"{store.path} holds parameters but no charges of the pixels: run `astri-gpu process` "
            "with images=true, or draw what=array."
        )
    return store.read(f"{table}/charge", start, stop).astype(np.float64)


def _counts(store: Store, table: str, start: int, stop: int) -> NDArray[np.float64]:
    """Return the high-gain counts (image, pixel), of waveforms the largest sample."""
    if f"{table}/waveform" in store:
        return store.read(f"{table}/waveform", start, stop)[:, 0].max(axis=-1).astype(np.float64)
    if f"{table}/adc" not in store:
        raise AstriError(
            f"{store.path} holds no images of the pixels: give a DL0 store, or run `astri-gpu "
            "process` with images=true."
        )
    return store.read(f"{table}/adc", start, stop)[:, 0].astype(np.float64)
