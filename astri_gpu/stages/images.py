"""The first half of `process`: images of one camera from ADC counts to parameters (DL1b)."""

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import Backend
from astri_gpu.batch import Batch, WriteBehind, read_ahead, read_batches
from astri_gpu.errors import AstriError
from astri_gpu.instrument import CameraDescription
from astri_gpu.kernels.image_types import (
    COLUMNS,
    COUNT_COLUMNS,
    FLAG_EXCLUDED,
    CalibrationArrays,
    CameraArrays,
    ImageResult,
    ImageSettings,
)
from astri_gpu.progress import Progress
from astri_gpu.store import Store, StoreWriter

if TYPE_CHECKING:
    from astri_gpu.config import ProcessConfig

__all__ = ["calibration_arrays", "camera_arrays", "image_settings", "process_images"]

SHOWER_EVENT = 32  # CTAO event type SUBARRAY
ROWS_WAITING = 64  # batches of parameters between computing and writing
PIXEL_COLUMNS = ("charge", "peak_time", "mask")


def camera_arrays(camera: CameraDescription, config: "ProcessConfig") -> CameraArrays:
    """Return the geometry of a camera as the kernels take it, NumPy arrays."""
    geometry = camera.geometry
    frame = geometry.telescope_frame(camera.focal_length(config.calibration.focal_length))
    diagonal = config.cleaning.diagonal_neighbours
    return CameraArrays(
        fov_lon=frame.fov_lon,
        fov_lat=frame.fov_lat,
        pixel_area=frame.pix_area,
        pixel_width=frame.pixel_width,
        border_1=frame.border_1,
        border_2=frame.border_2,
        neighbours=geometry.neighbours,
        cleaning_neighbours=geometry.neighbours_diagonal if diagonal else geometry.neighbours,
    )


def image_settings(camera: CameraDescription, config: "ProcessConfig") -> ImageSettings:
    """Return the settings of the image chain for one camera."""
    calibration, cleaning = config.calibration, dataclasses.asdict(config.cleaning)
    saturation = camera.readout.saturation_adc
    shared = {name: cleaning[name] for name in ImageSettings._fields if name in cleaning}
    return ImageSettings(
        gain_threshold_adc=calibration.gain_threshold_adc,
        extractor=calibration.extractor,
        window_width=calibration.window_width,
        window_shift=calibration.window_shift,
        peak_index=calibration.peak_index,
        local_weight=calibration.local_weight,
        sampling_rate_ghz=camera.readout.sampling_rate_ghz,
        interpolate_invalid=calibration.interpolate_invalid,
        saturation_adc=math.inf if saturation is None else float(saturation),
        cleaning=config.cleaning.method,
        min_pixels=config.parameters.min_pixels,
        source_fov_lon=config.parameters.source_fov_lon_deg,
        source_fov_lat=config.parameters.source_fov_lat_deg,
        **shared,
    )


def calibration_arrays(
    table: dict[str, NDArray[Any]], camera: CameraDescription, config: "ProcessConfig"
) -> tuple[CalibrationArrays, NDArray[np.uint16]]:
    """Return the constants of a camera (`constants_table`) and the telescope of each row."""
    settings = config.calibration
    has_samples = camera.readout.n_samples > 1
    window = settings.extractor != "full_sum" and has_samples
    correction = np.ones(camera.readout.n_gains)
    if window and settings.integration_correction:
        correction = camera.readout.integration_correction(
            settings.window_width, settings.window_shift
        )
    n_summed = settings.window_width if window else camera.readout.n_samples
    pedestal_std = table["pedestal_std"] * table["dc_to_pe"] * math.sqrt(max(n_summed, 1))
    finite = np.isfinite(table["pedestal"]) & np.isfinite(table["dc_to_pe"])
    valid = table["pixel_valid"] & finite
    return (
        CalibrationArrays(
            pedestal=np.where(finite, table["pedestal"], 0).astype(np.float32),
            dc_to_pe=np.where(finite, table["dc_to_pe"], 0).astype(np.float32),
            pedestal_std=(pedestal_std * correction[None, :, None]).astype(np.float32),
            time_shift=np.nan_to_num(table["time_shift"]).astype(np.float32),
            pixel_valid=valid,
            charge_correction=correction,
        ),
        table["tel_id"],
    )


def _check_telescopes(
    store: Store,
    name: str,
    calibration: CalibrationArrays,
    tel_id: NDArray[np.uint16],
    config: "ProcessConfig",
) -> None:
    """Refuse telescopes without a single usable pixel."""
    dead = ~calibration.pixel_valid.any(axis=(1, 2))
    bad = sorted({int(t) for t in tel_id[dead]} - set(config.exclude_telescopes))
    if bad:
        raise AstriError(
            f"{store.path}: telescope {', '.join(map(str, bad))} ({name}) has no usable pixel in "
            f"its calibration: leave it out with exclude_telescopes={bad}."
        )


def process_images(
    store: Store,
    writer: StoreWriter,
    name: str,
    camera: CameraDescription,
    backend: Backend,
    config: "ProcessConfig",
    shown: Progress,
    constants: dict[str, NDArray[Any]],
) -> int:
    """Write ``dl1/image/<camera>`` of one camera; return the number of images.

    `constants` is the table monitoring/camera that the images refer to. Reading, computing and
    writing overlap: each has a thread.

    Raises
    ------
    AstriError
        With a dead telescope, or when a batch holds NaN.
    """
    calibration, tel_of_row = calibration_arrays(constants, camera, config)
    _check_telescopes(store, name, calibration, tel_of_row, config)
    path = f"dl0/image/{name}"
    has_samples = f"{path}/waveform" in store
    counts = store.array(f"{path}/{'waveform' if has_samples else 'adc'}")
    chain = backend.image_chain(
        camera_arrays(camera, config),
        calibration,
        image_settings(camera, config),
        n_samples=counts.shape[3] if has_samples else 0,
        adc_dtype=counts.dtype,
        dense=config.images,
    )
    event_type = store.read("dl0/event/event_type")
    excluded = np.asarray(config.exclude_telescopes, dtype=np.uint16)
    columns = ["event_index", "tel_id", *COLUMNS, *(PIXEL_COLUMNS if config.images else ())]
    table = writer.table(f"dl1/image/{name}", columns, sizes={"pixel": camera.geometry.n_pixels})

    def write(rows: dict[str, NDArray[Any]]) -> None:
        table.append(rows)

    batch_size = min(config.batch_size, backend.batch_limit or config.batch_size)
    batches = read_batches(store, name, batch_size, fixed_shape=backend.fixed_shape)
    # All columns reach the end of a chunk with the same batch: a queue of rows (small without
    # pixels) keeps the loops busy while that chunk is compressed.
    depth = 2 if config.images else ROWS_WAITING
    with WriteBehind(write, depth) as write_behind:
        for rows in _rows(read_ahead(batches), chain, event_type, excluded, backend, config.images):
            write_behind(rows)
            shown.advance(len(rows["tel_id"]))
    table.close()
    return table.n_rows


def _rows(
    batches: Iterator[Batch],
    chain: Any,
    event_type: NDArray[np.uint8],
    excluded: NDArray[np.uint16],
    backend: Backend,
    images: bool,
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the finished rows of each batch."""
    for batch in batches:
        is_excluded = np.isin(batch.tel_id, excluded)
        is_shower = (event_type[batch.event_index] == SHOWER_EVENT) & ~is_excluded
        is_shower[batch.n_valid :] = False
        result: ImageResult = chain(batch.adc, batch.calibration_index, is_shower)
        valid = slice(0, batch.n_valid)
        rows: dict[str, NDArray[Any]] = {
            "event_index": batch.event_index[valid],
            "tel_id": batch.tel_id[valid],
        }
        for name in COLUMNS:
            dtype = np.int32 if name in COUNT_COLUMNS else np.float32
            rows[name] = backend.to_host(result.columns[name])[valid].astype(dtype, copy=False)
        flags = rows["image_flags"].astype(np.uint32)
        flags[is_excluded[valid]] = FLAG_EXCLUDED
        rows["image_flags"] = flags
        if images:
            for name in PIXEL_COLUMNS:
                rows[name] = backend.to_host(getattr(result, name))[valid]
        yield rows
