"""DL0 -> DL1b for a batch of telescope images: the array text of the main road.

Dense images are calibrated and cleaned; the survivors are then gathered into a fixed number of
slots (`compaction`), on which every parameter is computed. `kernels.loops` holds the same chain as
compiled per-image loops; tests tie the two together.
"""

from typing import Any

from jaxtyping import Bool, Float, Int

from . import calibration as cal
from . import cleaning as clean
from ._types import Array, array_namespace
from .astri import astri_parameters
from .compaction import Survivors, compact, gather, neighbour_slots
from .image_types import (
    CLEANING_METHODS,
    COLUMNS,
    COUNT_COLUMNS,
    FLAG_EMPTY,
    FLAG_NO_SHOWER,
    FLAG_SATURATED,
    FLAG_TOO_SMALL,
    RETRY_ISLANDS,
    RETRY_SLOTS,
    CalibratedImages,
    CalibrationArrays,
    CameraArrays,
    ImageResult,
    ImageSettings,
)
from .islands import count_islands, island_sum, label_islands
from .moments import ellipse_coordinates, hillas
from .parameters import (
    Statistics,
    concentration,
    leakage,
    morphology,
    statistics,
)
from .timing import Timing, timing

__all__ = ["calibrated_images", "clean_images", "given_images", "image_chain", "image_parameters"]


def calibrated_images(
    adc: Array,
    calibration_index: Int[Array, " image"],
    camera: CameraArrays,
    calibration: CalibrationArrays,
    *,
    settings: ImageSettings,
) -> CalibratedImages:
    """Return calibrated charges and peak times.

    Parameters
    ----------
    adc : (image, gain, pixel), or (image, gain, pixel, sample), ADC counts
    calibration_index : (image,), rows of `calibration`
    """
    xp = array_namespace(adc, calibration_index)

    def constants(table):
        return cal.take_gain(xp.take(table, calibration_index, axis=0), channel)

    channel = cal.select_gain(adc, threshold_adc=settings.gain_threshold_adc)
    valid = constants(calibration.pixel_valid)
    signal = cal.calibrate(
        adc,
        channel,
        xp.take(calibration.pedestal, calibration_index, axis=0),
        xp.take(calibration.dc_to_pe, calibration_index, axis=0),
    )
    counts = xp.astype(cal.take_gain(adc, channel), xp.float32)
    saturated = counts >= settings.saturation_adc
    if adc.ndim == 3:
        charge, peak_time = signal, xp.zeros_like(signal)
    else:
        saturated = xp.any(saturated, axis=-1)
        extracted = cal.extract(
            signal,
            valid,
            camera.neighbours,
            extractor=settings.extractor,
            width=settings.window_width,
            shift=settings.window_shift,
            peak_index=settings.peak_index,
            local_weight=settings.local_weight,
            sampling_rate_ghz=settings.sampling_rate_ghz,
        )
        correction = calibration.charge_correction
        last = correction.shape[0] - 1
        gain_correction = xp.where(channel == 1, correction[last], correction[0])
        charge = xp.astype(extracted.charge * gain_correction, xp.float32)
        peak_time = extracted.peak_time - constants(calibration.time_shift)
    if settings.interpolate_invalid:
        charge = cal.interpolate_invalid(charge, valid, camera.neighbours)
        peak_time = cal.interpolate_invalid(peak_time, valid, camera.neighbours)
    return CalibratedImages(charge, peak_time, constants(calibration.pedestal_std), saturated)


def given_images(given: Float[Array, "image part pixel"]) -> CalibratedImages:
    """Return images whose charges are known already, as `calibrated_images` does.

    Parameters
    ----------
    given : (image, part, pixel) float32; part 0 are charges in p.e., part 1, where there is one,
        peak times in ns

    Returns
    -------
    The pedestal spread is NaN, which no cleaning with it survives, and no pixel is saturated.
    """
    xp = array_namespace(given)
    charge = given[:, 0, :]
    peak_time = given[:, 1, :] if given.shape[1] > 1 else xp.zeros_like(charge)
    unknown = xp.full_like(charge, float("nan"))
    saturated = xp.zeros(charge.shape, dtype=xp.bool)
    return CalibratedImages(charge, peak_time, unknown, saturated)


def clean_images(
    images: CalibratedImages,
    is_shower: Bool[Array, " image"],
    neighbours: Int[Array, "pixel neighbour"],
    *,
    settings: ImageSettings,
) -> tuple[clean.Cleaned, Int[Array, " image"]]:
    """Return the cleaning masks of a batch, and its RETRY_* bits.

    Raises
    ------
    ValueError
        For an unknown ``settings.cleaning``.
    """
    xp = array_namespace(images.charge, is_shower)
    retry = xp.zeros(is_shower.shape, dtype=xp.int32)
    shared: dict[str, Any] = {
        "min_picture_neighbours": settings.min_picture_neighbours,
        "keep_isolated": settings.keep_isolated,
    }
    charge, picture, boundary = images.charge, settings.picture_pe, settings.boundary_pe
    if settings.cleaning == "tailcuts":
        cleaned = clean.tailcuts_clean(charge, picture, boundary, neighbours, **shared)
    elif settings.cleaning == "nsb":
        adaptive = xp.maximum(
            settings.pedestal_factor * images.pedestal_std,
            xp.asarray(picture, dtype=images.pedestal_std.dtype),
        )
        cleaned = clean.tailcuts_clean(charge, adaptive, boundary, neighbours, **shared)
    elif settings.cleaning == "mars":
        cleaned = clean.mars_clean(
            charge, picture, boundary, settings.second_boundary_pe, neighbours, **shared
        )
    elif settings.cleaning == "time_constrained":
        cleaned, overflow, resolved = clean.time_constrained_clean(
            charge,
            images.peak_time,
            picture,
            boundary,
            neighbours,
            min_picture_neighbours=settings.min_picture_neighbours,
            limit_core_ns=settings.time_limit_core_ns,
            limit_boundary_ns=settings.time_limit_boundary_ns,
            n_slots=settings.n_slots,
            island_steps=settings.island_steps,
        )
        retry = _bit(xp, overflow, RETRY_SLOTS) | _bit(xp, ~resolved, RETRY_ISLANDS)
    else:
        raise ValueError(
            f"cleaning is {settings.cleaning!r}: expected one of {', '.join(CLEANING_METHODS)}"
        )
    mask, core = cleaned
    if settings.min_core_pixels > 0:
        n_core = xp.sum(xp.astype(core, xp.int32), axis=-1)
        mask = mask & (n_core >= settings.min_core_pixels)[:, None]
    if settings.time_limit_ns > 0:
        mask = clean.time_delta_clean(
            mask,
            images.peak_time,
            neighbours,
            limit_ns=settings.time_limit_ns,
            min_neighbours=settings.time_min_neighbours,
        )
    for _ in range(settings.dilate_rows):
        mask = clean.dilate(mask, neighbours)
    mask = mask & is_shower[:, None]
    retry = xp.where(is_shower, retry, xp.zeros_like(retry))
    return clean.Cleaned(mask=mask, core=core & mask), retry


def image_parameters(
    images: CalibratedImages,
    survivors: Survivors,
    core: Bool[Array, "image slot"],
    label: Int[Array, "image slot"],
    camera: CameraArrays,
    *,
    has_time: bool,
    settings: ImageSettings,
) -> dict[str, Array]:
    """Return all parameter columns but the flags, from the surviving pixels.

    Parameters
    ----------
    survivors, core, label : (image, slot), see `compact` and `label_islands`
    has_time : False for cameras without samples: timing columns are NaN
    """
    xp = array_namespace(images.charge)
    used = survivors.used
    charge = gather(images.charge, survivors)
    lon, lat = gather(camera.fov_lon, survivors), gather(camera.fov_lat, survivors)
    area, width = gather(camera.pixel_area, survivors), gather(camera.pixel_width, survivors)
    border_1, border_2 = gather(camera.border_1, survivors), gather(camera.border_2, survivors)

    size = island_sum(xp.ones(used.shape, dtype=xp.float32), used, label)
    islands = count_islands(used, label, size)
    moments = hillas(charge, used, lon, lat, area)
    groups: dict[str, Any] = {
        "hillas": moments,
        "leakage": leakage(charge, used, border_1, border_2),
        "concentration": concentration(charge, used, lon, lat, width, moments),
        "morphology": morphology(used, islands),
        "intensity": statistics(charge, used),
        "astri": astri_parameters(
            charge,
            used,
            core,
            lon,
            lat,
            border_1,
            label,
            islands.n_islands,
            moments,
            source_fov_lon=settings.source_fov_lon,
            source_fov_lat=settings.source_fov_lat,
        ),
    }
    if has_time:
        peak_time = gather(images.peak_time, survivors)
        along = ellipse_coordinates(lon, lat, moments).longitudinal
        groups["timing"] = timing(
            peak_time, used, along, n_starts=settings.timing_starts, n_steps=settings.timing_steps
        )
        groups["peak_time"] = statistics(peak_time, used)
    else:
        nan = xp.full(used.shape[:1], float("nan"), dtype=xp.float64)
        groups["timing"] = Timing(*[nan] * len(Timing._fields))
        groups["peak_time"] = Statistics(*[nan] * len(Statistics._fields))
    columns = {
        f"{name}_{field}": values
        for name, group in groups.items()
        for field, values in group._asdict().items()
    }
    saturated = gather(images.saturated, survivors) & used
    columns["n_saturated_pixels"] = xp.sum(xp.astype(saturated, xp.int32), axis=-1)
    return columns


def image_chain(
    adc: Array,
    calibration_index: Int[Array, " image"],
    is_shower: Bool[Array, " image"],
    camera: CameraArrays,
    calibration: CalibrationArrays,
    *,
    settings: ImageSettings,
) -> ImageResult:
    """Return the parameters of a batch of images, from ADC counts or from charges.

    Parameters
    ----------
    adc : (image, gain, pixel), or (image, gain, pixel, sample), ADC counts; or, of a floating
        type, (image, part, pixel): charges that are calibrated already, see `given_images`
    calibration_index : (image,), rows of `calibration`
    is_shower : (image,), False for calibration events and padding: these are calibrated, and
        their parameters are NaN or -1
    """
    xp = array_namespace(adc, calibration_index, is_shower)
    is_given = xp.isdtype(adc.dtype, "real floating")
    if is_given:
        images = given_images(adc)
    else:
        images = calibrated_images(adc, calibration_index, camera, calibration, settings=settings)
    (mask, core), retry = clean_images(
        images, is_shower, camera.cleaning_neighbours, settings=settings
    )

    survivors = compact(mask, n_slots=settings.n_slots)
    slots = neighbour_slots(mask, survivors, camera.cleaning_neighbours)
    label, resolved = label_islands(survivors.used, slots, steps=settings.island_steps)
    if settings.largest_island_only:
        largest = clean.largest_island(survivors.used, label)
        mask = _scatter_mask(xp, mask, survivors, largest)
        survivors = compact(mask, n_slots=settings.n_slots)._replace(overflow=survivors.overflow)
        slots = neighbour_slots(mask, survivors, camera.cleaning_neighbours)
        label, _ = label_islands(survivors.used, slots, steps=settings.island_steps)
    retry = retry | _bit(xp, survivors.overflow, RETRY_SLOTS) | _bit(xp, ~resolved, RETRY_ISLANDS)

    n_pixels = xp.sum(xp.astype(mask, xp.int32), axis=-1)
    charge = gather(images.charge, survivors)
    positive = xp.sum(xp.where(survivors.used, charge, xp.zeros_like(charge)), axis=-1) > 0
    parametrised = (n_pixels >= settings.min_pixels) & (n_pixels > 0) & positive
    used = survivors.used & parametrised[:, None]
    columns = image_parameters(
        images,
        survivors._replace(used=used),
        gather(core, survivors) & used,
        label,
        camera,
        has_time=adc.shape[1] > 1 if is_given else adc.ndim == 4,
        settings=settings,
    )
    if is_given:  # charges do not tell
        columns["n_saturated_pixels"] = xp.full(n_pixels.shape, -1, dtype=xp.int32)
    columns["image_flags"] = (
        _bit(xp, n_pixels == 0, FLAG_EMPTY)
        | _bit(xp, ~parametrised, FLAG_TOO_SMALL)
        | _bit(xp, ~is_shower, FLAG_NO_SHOWER)
        | _bit(xp, columns["n_saturated_pixels"] > 0, FLAG_SATURATED)
    )
    finished = {}
    for name in COLUMNS:
        values = columns[name]
        if name in COUNT_COLUMNS:
            values = xp.astype(values, xp.int32)
            if name != "image_flags":
                values = xp.where(parametrised, values, xp.asarray(-1, dtype=xp.int32))
        else:
            values = xp.astype(values, xp.float32)
        finished[name] = values
    return ImageResult(finished, images.charge, images.peak_time, mask, retry)


def _bit(xp, condition, bit):
    """Return `bit` where `condition`, elsewhere 0, int32."""
    return xp.where(condition, xp.asarray(bit, dtype=xp.int32), 0)


def _scatter_mask(xp, mask, survivors, kept):
    """Return `mask` without the survivors that are not `kept`."""
    rank = xp.cumulative_sum(xp.astype(mask, xp.int32), axis=1) - 1
    rank = xp.clip(rank, 0, kept.shape[1] - 1)
    return mask & xp.take_along_axis(kept, rank, axis=1)
