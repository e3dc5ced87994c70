"""The first half of `process`: images of one camera from ADC counts to parameters (DL1b)."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import Backend
from astri_gpu.batch import (
    Batch,
    ColumnReader,
    ImageSource,
    WriteBehind,
    image_source,
    read_ahead,
    read_blocks,
)
from astri_gpu.batch_flow import BatchFlow
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

__all__ = [
    "PIXEL_COLUMNS",
    "batch_rows",
    "calibration_arrays",
    "camera_arrays",
    "image_settings",
    "no_calibration",
    "process_images",
]

Rows = dict[str, NDArray[Any]]

SHOWER_EVENT = 32  # CTAO event type SUBARRAY
BLOCKS_AHEAD = 1  # decoded shards that wait, besides the one in use and the one in the making
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


def no_calibration(camera: CameraDescription) -> CalibrationArrays:
    """Return what stands for the constants of a camera whose charges are known: one empty row."""
    table = np.zeros((1, 1, camera.geometry.n_pixels), dtype=np.float32)
    return CalibrationArrays(table, table, table, table, table == 0, np.ones(1))


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
    constants: dict[str, NDArray[Any]] | None,
    also: Callable[[Rows], None] | None = None,
) -> int:
    """Write ``dl1/image/<camera>`` of one camera; return the number of images.

    Reading, computing and writing overlap: each has a thread, and as many batches are in flight as
    the backend asks for.

    Parameters
    ----------
    store, writer
        Where the images come from and where their parameters go.
    name, camera
        Group of the images, and its camera.
    backend, config
        What computes, and how.
    shown
        Counts the images.
    constants
        The table monitoring/camera that the images refer to; None where charges are known.
    also
        Is given the rows too, all columns by name, in order, in a thread of its own.

    Raises
    ------
    AstriError
        With a dead telescope, damaged images, or when the memory is too small for half a batch.
    """
    if constants is None:
        calibration = no_calibration(camera)
    else:
        calibration, tel_of_row = calibration_arrays(constants, camera, config)
        _check_telescopes(store, name, calibration, tel_of_row, config)
    source = image_source(store, name)
    chain = backend.image_chain(
        camera_arrays(camera, config),
        calibration,
        image_settings(camera, config),
        n_samples=source.n_samples,
        adc_dtype=source.dtype,
        dense=config.images,
    )
    flow = BatchFlow(
        chain,
        backend,
        size=batch_rows(config.batch_size, backend, source),
        is_shower=_ShowerImages(store, config.exclude_telescopes),
        name=f"{source.path} of {store.path}",
    )
    columns = ["event_index", "tel_id", *COLUMNS, *(PIXEL_COLUMNS if config.images else ())]
    table = writer.table(f"dl1/image/{name}", columns, sizes={"pixel": camera.geometry.n_pixels})
    # All columns reach the end of a chunk with the same batch: a queue of rows (small without
    # pixels) keeps the loops busy while that chunk is compressed.
    depth = 2 if config.images else ROWS_WAITING
    excluded = np.asarray(config.exclude_telescopes, dtype=np.uint16)
    blocks = read_ahead(read_blocks(store, name), depth=BLOCKS_AHEAD)
    with (
        contextlib.closing(blocks),
        WriteBehind(table.append, depth) as write,
        WriteBehind(also or _ignore, ROWS_WAITING) as hand_over,
    ):
        for batch, result in flow(blocks):
            rows = _rows(batch, result, excluded, config.images)
            write(rows)
            if also:
                hand_over(rows)
            shown.advance(batch.n_valid)
    table.close()
    return table.n_rows


def batch_rows(wanted: int | None, backend: Backend, source: ImageSource) -> int:
    """Return the images in one batch: what is wanted, or what the device and the store suggest.

    Devices get whole shards, because every call to them costs some time; loops on the CPU are
    happy with a chunk.
    """
    fits = backend.batch_for(source.image_bytes)
    automatic = source.shard if fits else source.chunk
    limits = [source.shard, wanted or automatic, backend.batch_limit, None if wanted else fits]
    return max(1, min(limit for limit in limits if limit))


class _ShowerImages:
    """Which images of a batch are of showers and to be cleaned."""

    def __init__(self, store: Store, exclude: Sequence[int]) -> None:
        self._events = ColumnReader(store, "dl0/event", ["event_type"])
        self._excluded = np.asarray(exclude, dtype=np.uint16)

    def __call__(self, batch: Batch) -> NDArray[np.bool_]:
        valid = slice(0, batch.n_valid)
        event_type = self._events.take(batch.event_index[valid])["event_type"]
        wanted = np.zeros(len(batch.tel_id), dtype=np.bool_)  # padding is no shower
        wanted[valid] = event_type == SHOWER_EVENT
        if len(self._excluded):
            wanted &= ~np.isin(batch.tel_id, self._excluded)
        return wanted


def _rows(batch: Batch, result: ImageResult, excluded: NDArray[np.uint16], images: bool) -> Rows:
    """Return the finished rows of a batch by the names of their columns."""
    valid = slice(0, batch.n_valid)
    rows: Rows = {"event_index": batch.event_index[valid], "tel_id": batch.tel_id[valid]}
    for name in COLUMNS:
        dtype = np.int32 if name in COUNT_COLUMNS else np.float32
        rows[name] = result.columns[name][valid].astype(dtype, copy=False)
    flags = rows["image_flags"].astype(np.uint32)
    if len(excluded):
        flags[np.isin(rows["tel_id"], excluded)] = FLAG_EXCLUDED
    rows["image_flags"] = flags
    if images:
        for name in PIXEL_COLUMNS:
            rows[name] = getattr(result, name)[valid]
    return rows


def _ignore(rows: Rows) -> None:
    """Take rows that nobody wants."""
