"""Synthetic test images for the ASTRI camera. No physics: nothing may be learnt from them.

Each image is an elliptical Gaussian with Poisson photo-electrons on noisy pedestals, in two gains.
The ellipses of an event point at one direction and one core, so that stereo reconstruction has
something to find; sizes, shapes and heights are drawn from made-up distributions whose medians are
near those of real ASTRI images (length 0.4 deg, width 0.13 deg, 10 to 30 pixels after cleaning).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.instrument import ArrayLayout
from astri_gpu.instrument.astri import mini_array
from astri_gpu.kernels.coordinates import (
    ground_to_tilted,
    project_to_ground,
    telescope_to_altaz,
)
from astri_gpu.kernels.image_types import (
    CalibrationArrays,
)
from astri_gpu.store import StoreWriter, create
from astri_gpu.store_layout import write_layout

__all__ = ["AstriEvents", "make_constants", "make_events", "write_store"]

POINTING_ALT_DEG, POINTING_AZ_DEG = 70.0, 180.0
SHOWER_DISTANCE_M = 9000.0  # from the telescopes to the made-up shower maximum
MAX_SOURCE_DEG, MAX_CORE_M = 3.0, 350.0
NOISE_PE = 0.9  # night sky and electronics together
PEDESTAL_ADC, ADC_PER_PE = (1500.0, 1400.0), (17.0, 0.9)  # high gain, low gain
LOW_GAIN_NOISE_ADC = 1.5
MAX_ADC = 4095
IMAGES_AT_ONCE = 256
SHOWER_EVENT = 32  # CTAO event type
FIRST_TIME_S = 1_700_000_000
NOTE = "synthetic test images (elliptical Gaussians with Poisson noise), no physics"


@dataclass(frozen=True)
class AstriEvents:
    """Events and their images; images are ordered by event."""

    layout: ArrayLayout
    calibration: CalibrationArrays  # one row per telescope
    columns: dict[str, NDArray[Any]]  # (event,): true_alt, true_az, true_core_x, true_core_y
    tel_mask: NDArray[np.bool_]  # (event, tel)
    event_index: NDArray[np.int64]  # (image,)
    tel_index: NDArray[np.int32]  # (image,), also the row of the calibration
    adc: NDArray[np.uint16]  # (image, gain, pixel)

    @property
    def n_images(self) -> int:
        return len(self.adc)


def make_constants(n_tels: int, n_pixels: int, rng: np.random.Generator) -> CalibrationArrays:
    """Return calibration constants, one row per telescope, all pixels valid."""
    shape = (n_tels, 2, n_pixels)
    per_gain = np.array(PEDESTAL_ADC)[:, None], np.array(ADC_PER_PE)[:, None]
    pedestal = per_gain[0] + rng.normal(0, 15, shape)
    return CalibrationArrays(
        pedestal=pedestal.astype(np.float32),
        dc_to_pe=(1 / (per_gain[1] * rng.normal(1, 0.03, shape))).astype(np.float32),
        pedestal_std=np.full(shape, NOISE_PE, dtype=np.float32),
        time_shift=np.zeros(shape, dtype=np.float32),
        pixel_valid=np.ones(shape, dtype=np.bool_),
        charge_correction=np.ones(2),
    )


def make_events(n_images: int, seed: int = 1) -> AstriEvents:
    """Return events of one to nine telescopes with `n_images` images altogether."""
    rng = np.random.default_rng(seed)
    layout = mini_array()
    n_tels = layout.n_telescopes
    multiplicity = rng.integers(1, n_tels + 1, size=n_images)
    n_events = int(np.searchsorted(np.cumsum(multiplicity), n_images)) + 1
    multiplicity = multiplicity[:n_events]
    multiplicity[-1] -= multiplicity.sum() - n_images

    radius = MAX_SOURCE_DEG * np.sqrt(rng.uniform(size=n_events))
    angle = rng.uniform(0, 2 * np.pi, n_events)
    source_lon, source_lat = radius * np.cos(angle), radius * np.sin(angle)
    pointing = np.full(n_events, POINTING_ALT_DEG), np.full(n_events, POINTING_AZ_DEG)
    alt, az = telescope_to_altaz(source_lon, source_lat, *pointing)
    radius = MAX_CORE_M * np.sqrt(rng.uniform(size=n_events))
    angle = rng.uniform(0, 2 * np.pi, n_events)
    core_x, core_y = radius * np.cos(angle), radius * np.sin(angle)  # tilted frame
    ground_x, ground_y = project_to_ground(core_x, core_y, *pointing)[:2]
    positions = (layout.x, layout.y, layout.z)
    tel_x, tel_y, _ = ground_to_tilted(
        *positions, np.full(n_tels, POINTING_ALT_DEG), np.full(n_tels, POINTING_AZ_DEG)
    )
    distance = np.hypot(tel_x - core_x[:, None], tel_y - core_y[:, None])
    rank = np.argsort(np.argsort(distance, axis=1), axis=1)
    tel_mask = rank < multiplicity[:, None]
    event_index, tel_index = np.nonzero(tel_mask)

    # Light comes from a point above the core, along the shower's direction.
    step_lat = np.rad2deg((core_x[event_index] - tel_x[tel_index]) / SHOWER_DISTANCE_M)
    step_lon = np.rad2deg((core_y[event_index] - tel_y[tel_index]) / SHOWER_DISTANCE_M)
    size = 10 ** rng.uniform(2.3, 4.0, n_events)[event_index]
    ellipse = {
        "lon": source_lon[event_index] + step_lon,
        "lat": source_lat[event_index] + step_lat,
        "psi": np.arctan2(step_lat, step_lon),
        "length": rng.uniform(0.15, 0.8, n_images),
        "width": np.exp(rng.normal(np.log(0.11), 0.3, n_images)),
        "size": np.maximum(60.0, size * np.exp(-distance[event_index, tel_index] / 200.0)),
    }
    calibration = make_constants(n_tels, layout.cameras[0].geometry.n_pixels, rng)
    return AstriEvents(
        layout,
        calibration,
        {"true_alt": alt, "true_az": az, "true_core_x": ground_x, "true_core_y": ground_y},
        tel_mask,
        event_index,
        tel_index.astype(np.int32),
        _counts(layout, calibration, tel_index, ellipse, rng),
    )


def _counts(
    layout: ArrayLayout,
    calibration: CalibrationArrays,
    tel_index: NDArray[Any],
    ellipse: dict[str, NDArray[np.float64]],
    rng: np.random.Generator,
) -> NDArray[np.uint16]:
    camera = layout.cameras[0]
    frame = camera.geometry.telescope_frame(camera.focal_length("equivalent"))
    adc = np.empty((len(tel_index), 2, len(frame.fov_lon)), dtype=np.uint16)
    within_pixel = frame.pix_area.mean() / 12  # variance of a square pixel
    for first in range(0, len(adc), IMAGES_AT_ONCE):
        rows = slice(first, first + IMAGES_AT_ONCE)
        part = {name: values[rows, None] for name, values in ellipse.items()}
        d_lon, d_lat = frame.fov_lon - part["lon"], frame.fov_lat - part["lat"]
        cos, sin = np.cos(part["psi"]), np.sin(part["psi"])
        length, width = (np.sqrt(part[name] ** 2 + within_pixel) for name in ("length", "width"))
        along, across = d_lon * cos + d_lat * sin, d_lat * cos - d_lon * sin
        shape = np.exp(-0.5 * ((along / length) ** 2 + (across / width) ** 2))
        mean = part["size"] * shape * frame.pix_area / (2 * np.pi * length * width)
        charge = rng.poisson(mean).astype(np.float32)
        charge += NOISE_PE * rng.standard_normal(charge.shape, dtype=np.float32)
        tels = tel_index[rows]
        for gain in range(2):
            counts = calibration.pedestal[tels, gain] + charge / calibration.dc_to_pe[tels, gain]
            if gain == 1:
                noise = rng.standard_normal(charge.shape, dtype=np.float32)
                counts += LOW_GAIN_NOISE_ADC * noise
            adc[rows, gain] = np.clip(np.rint(counts), 0, MAX_ADC)
    return adc


def write_store(path: Path, n_images: int, *, pool: AstriEvents) -> int:
    """Write a DL0 store with at least `n_images` images and return their number.

    The events of `pool` are repeated, every time in another order and with other numbers. Chunks
    are compressed one by one, far shorter than a repetition, so that sizes and speeds are those of
    a store without any.
    """
    rng = np.random.default_rng(len(pool.adc))
    layout, name = pool.layout, pool.layout.cameras[0].name
    repeats = -(-n_images // pool.n_images)
    n_events = len(pool.tel_mask)
    attrs = {"data_level": "DL0", "kind": "gamma", "obs_id": 1, "source": NOTE, "truncated": False}
    attrs |= {"n_events": repeats * n_events, "n_images": repeats * pool.n_images, "config": {}}
    with create(path, attrs=attrs) as writer:
        write_layout(writer, layout)
        _write_constants(writer, name, layout, pool.calibration)
        writer.set_attrs("simulation", {"note": NOTE})
        tables = _tables(writer, name, layout)
        first_image = np.searchsorted(pool.event_index, np.arange(n_events + 1))
        for repeat in range(repeats):
            order = rng.permutation(n_events)
            lengths = np.diff(first_image)[order]
            images = np.repeat(first_image[order], lengths) + _within(lengths)
            first = repeat * n_events
            _append_events(tables, pool, order, first)
            keys = {
                "event_index": first + np.repeat(np.arange(n_events), lengths),
                "tel_id": layout.tel_id[pool.tel_index[images]],
            }
            _append_images(tables, pool, images, keys)
    return repeats * pool.n_images


def _within(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Return 0, 1, ... counted anew for every length."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _write_constants(
    writer: StoreWriter, name: str, layout: ArrayLayout, calibration: CalibrationArrays
) -> None:
    path = f"monitoring/camera/{name}"
    writer.write(path, "tel_id", layout.tel_id)
    for column in ("pedestal", "pedestal_std", "dc_to_pe", "time_shift", "pixel_valid"):
        values = getattr(calibration, column)
        if column == "pedestal_std":
            values = values / calibration.dc_to_pe  # p.e. to ADC counts
        writer.write(path, column, values)


def _tables(writer: StoreWriter, name: str, layout: ArrayLayout) -> dict[str, Any]:
    n_pixels = layout.cameras[0].geometry.n_pixels
    wanted = {
        "dl0/event": "obs_id event_id time_s time_ns event_type array_alt array_az tel_mask",
        "simulation/event": "obs_id event_id shower_id true_energy true_alt true_az true_core_x "
        "true_core_y true_h_first_int true_x_max true_starting_grammage true_primary_id",
        f"dl0/image/{name}": "event_index tel_id calibration_index pointing_alt pointing_az "
        "trigger_time_ns n_trigger_pixels trigger_type trigger_pixel adc",
        f"simulation/image/{name}": "event_index tel_id true_image_sum true_impact_distance",
    }
    sizes = {"tel": layout.n_telescopes, "gain": 2, "pixel": n_pixels}
    return {
        "/".join(path.split("/")[:2]): writer.table(path, columns.split(), sizes=sizes)
        for path, columns in wanted.items()
    }


def _append_events(
    tables: dict[str, Any], pool: AstriEvents, order: NDArray[Any], first: int
) -> None:
    n_events = len(order)
    number = first + np.arange(n_events)
    keys = {"obs_id": np.ones(n_events, np.int64), "event_id": number + 1}

    def unknown(columns: str) -> dict[str, Any]:
        return dict.fromkeys(columns.split(), np.full(n_events, np.nan))

    tables["dl0/event"].append(
        keys
        | {
            "time_s": FIRST_TIME_S + number // 100,
            "time_ns": (number % 100 * 10_000_000).astype(np.int32),
            "event_type": np.full(n_events, SHOWER_EVENT, np.uint8),
            "array_alt": np.full(n_events, POINTING_ALT_DEG),
            "array_az": np.full(n_events, POINTING_AZ_DEG),
            "tel_mask": pool.tel_mask[order],
        }
    )
    tables["simulation/event"].append(
        keys
        | {"shower_id": number, "true_primary_id": np.zeros(n_events, np.int32)}
        | {name: values[order] for name, values in pool.columns.items()}
        | unknown("true_energy true_h_first_int true_x_max true_starting_grammage")
    )


def _append_images(
    tables: dict[str, Any], pool: AstriEvents, images: NDArray[Any], keys: dict[str, Any]
) -> None:
    n_images = len(images)
    tables["simulation/image"].append(
        keys
        | {
            "true_image_sum": np.full(n_images, -1),
            "true_impact_distance": np.full(n_images, np.nan, np.float32),
        }
    )
    for first in range(0, n_images, IMAGES_AT_ONCE):
        rows = slice(first, first + IMAGES_AT_ONCE)
        part = images[rows]
        n = len(part)
        adc = pool.adc[part]
        tables["dl0/image"].append(
            {name: values[rows] for name, values in keys.items()}
            | {
                "calibration_index": pool.tel_index[part],
                "pointing_alt": np.full(n, POINTING_ALT_DEG),
                "pointing_az": np.full(n, POINTING_AZ_DEG),
                "trigger_time_ns": np.zeros(n, np.float32),
                "n_trigger_pixels": np.full(n, -1, np.int32),
                "trigger_type": np.zeros(n, np.uint16),
                "trigger_pixel": np.zeros((n, adc.shape[2]), np.bool_),
                "adc": adc,
            }
        )
