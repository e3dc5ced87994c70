"""From options to the models of optics and camera that the simulation runs on."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_simulation import CameraConfig, OpticsConfig
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument.camera import CameraDescription, CameraGeometry
from astri_gpu.kernels.camera_noise import NOISE_MAXIMUM
from astri_gpu.kernels.random import key_of, normal_pair, philox, uniform
from astri_gpu.kernels.simulation_types import (
    EFFICIENCY_HEADROOM,
    CameraModel,
    CameraSettings,
    OpticsModel,
    Stream,
)
from astri_gpu.kernels.trigger import MODULE_PIXELS
from astri_gpu.simulation.electronics import (
    NOISE_RATES_MHZ,
    QUANTILE_STEP,
    Electronics,
    cut_moments,
    noise_levels,
    noise_place,
    noise_rate,
)

__all__ = ["TrueConstants", "camera_model", "camera_settings", "optics_model", "true_constants"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NOISY_FACTOR = 10.0  # night sky of a noisy pixel over that of the others
LOWEST_GAIN = 0.1  # of the mean; a live pixel does not get closer to a dead one
REFERENCE_ANGLE_DEG = 5.0
ANGLE_STEP_DEG, LARGEST_ANGLE_DEG = 0.25, 10.0
SAME_PLACE_M = 1e-5  # pixels of one column differ by less


class TrueConstants(NamedTuple):
    """What a calibration of the simulated cameras has to find."""

    pedestal: Floats  # (tel, gain, pixel), adu: mean counts of a pixel without a flash or shower
    pedestal_std: Floats  # (tel, gain, pixel), adu
    dc_to_pe: Floats  # (tel, gain, pixel), p.e. of a mean pixel per adu; 0 = dead
    pixel_valid: Bools  # (tel, gain, pixel), False = dead
    gain: Floats  # (tel, gain, pixel), adu per avalanche
    baseline: Floats  # (tel, gain, pixel), adu without light and noise
    relative_efficiency: Floats  # (tel, pixel), 1 = mean pixel
    noise_rate_mhz: Floats  # (tel, pixel), p.e. of night sky and dark counts


def _pair(values: list[float], name: str, low: float) -> Floats:
    """Return an option that has a value for the high and one for the low gain."""
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (2,) or not np.all(np.isfinite(found)) or np.any(found < low):
        raise UsageError(
            f"camera.{name}={list(values)}: give two numbers not below {low:g}, for the high and "
            "the low gain."
        )
    return found


def _electronics(camera: CameraConfig) -> Electronics:
    gain = _pair(camera.gain_adu, "gain_adu", 1e-3)
    noise = _pair(camera.noise_adu, "noise_adu", 0.0)
    return Electronics(
        camera.peaking_time_ns,
        camera.fast_peaking_time_ns,
        camera.gate_ns,
        camera.crosstalk,
        camera.gain_spread,
        float(noise[0] / gain[0]),
        camera.ac_coupling,
    )


def camera_settings(camera: CameraConfig) -> CameraSettings:
    """Return the scalars of the camera.

    Raises
    ------
    UsageError
        For lists that do not have a value for each of the two gains.
    """
    return CameraSettings(
        crosstalk=camera.crosstalk,
        gain_spread=camera.gain_spread,
        peaking_time_ns=camera.peaking_time_ns,
        gate_ns=camera.gate_ns,
        trigger_threshold_pe=camera.trigger_threshold_pe,
        trigger_pixels=camera.trigger_pixels,
        coincidence_ns=camera.coincidence_ns,
        low_gain_noise_adu=float(_pair(camera.noise_adu, "noise_adu", 0.0)[1]),
        adc_max=camera.adc_max,
        noise_step=QUANTILE_STEP,
    )


def optics_model(optics: OpticsConfig, focal_length_m: float) -> OpticsModel:
    """Return the optics: width of the PSF and transmission by the angle from the axis.

    Both change with the square of the angle, through the values on axis and at 5 degrees: the
    shape of a two-mirror telescope's aberrations is not public, the parabola is our choice.
    """
    angle = np.arange(0, LARGEST_ANGLE_DEG + ANGLE_STEP_DEG / 2, ANGLE_STEP_DEG)
    square = (angle / REFERENCE_ANGLE_DEG) ** 2
    change = optics.psf_edge_sigma_deg - optics.psf_sigma_deg
    return OpticsModel(
        angle_step_rad=float(np.deg2rad(ANGLE_STEP_DEG)),
        psf_sigma_rad=np.deg2rad(np.maximum(optics.psf_sigma_deg + change * square, 0)),
        transmission=np.maximum(1 - (1 - optics.edge_transmission) * square, 0),
        focal_length_m=float(focal_length_m),
        mirror_radius_m=optics.mirror_radius_m,
        mirror_area_m2=optics.mirror_area_m2,
    )


def _lines(position: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the centres of columns (or rows) in rising order, and the one of each pixel."""
    order = np.argsort(position, kind="stable")
    new = np.diff(position[order], prepend=-np.inf) > SAME_PLACE_M
    line = np.empty(len(position), dtype=np.int64)
    line[order] = np.cumsum(new) - 1
    return np.bincount(line, position) / np.bincount(line), line


def _lookup(centre: Floats, start: float, step: float, n: int) -> NDArray[np.int32]:
    """Return for each cell the last centre that is nearest to some point before its start.

    Cells are narrower than the distance of two centres, so that the nearest centre of a point is
    that of its cell or the one above; the kernel compares the two.
    """
    middle = (centre[1:] + centre[:-1]) / 2
    return np.searchsorted(middle, start + step * np.arange(n)).astype(np.int32)


def _geometry(geometry: CameraGeometry) -> dict[str, object]:
    """Return the fields of `CameraModel` that describe where pixels are."""
    name, n_pixels = geometry.name, geometry.n_pixels
    if geometry.shape != "square":
        raise AstriError(
            f"Camera {name} has pixels of the shape '{geometry.shape}': only cameras of square "
            "pixels in columns and rows can be simulated."
        )
    column_centre, column = _lines(geometry.pix_x)
    row_centre, row = _lines(geometry.pix_y)
    pixel_of = np.full((len(row_centre), len(column_centre)), -1, dtype=np.int32)
    pixel_of[row, column] = np.arange(n_pixels)
    spread = max(
        np.abs(geometry.pix_x - column_centre[column]).max(),
        np.abs(geometry.pix_y - row_centre[row]).max(),
    )
    if (pixel_of >= 0).sum() != n_pixels or spread > SAME_PLACE_M:
        raise AstriError(
            f"The {n_pixels} pixels of camera {name} do not lie in columns and rows: it cannot be "
            "simulated."
        )
    module = geometry.module.astype(np.int32)
    block = np.arange(n_pixels) // MODULE_PIXELS
    mixed = n_pixels % MODULE_PIXELS != 0 or np.any(module != module[block * MODULE_PIXELS])
    if mixed or len(np.unique(module)) != block[-1] + 1:
        raise AstriError(
            f"Camera {name} is not made of modules of {MODULE_PIXELS} consecutive pixels, within "
            "which the trigger looks for neighbours: it cannot be simulated."
        )
    neighbours = geometry.neighbours
    inside = (neighbours >= 0) & (block[neighbours] == block[:, None])
    trigger_neighbours = np.full((n_pixels, 4), -1, dtype=np.int32)
    for pixel in range(n_pixels):
        found = neighbours[pixel, inside[pixel]]
        trigger_neighbours[pixel, : len(found)] = found
    step = float(min(np.diff(column_centre).min(), np.diff(row_centre).min()) / 2)
    start = float(min(column_centre[0], row_centre[0])) - step
    n_cells = int((max(column_centre[-1], row_centre[-1]) - start) / step) + 2
    return {
        "column_centre": column_centre,
        "row_centre": row_centre,
        "half_side": float(np.sqrt(geometry.pix_area.mean()) / 2),
        "lookup_start": start,
        "lookup_step": step,
        "column_of": _lookup(column_centre, start, step, n_cells),
        "row_of": _lookup(row_centre, start, step, n_cells),
        "pixel_of": pixel_of,
        "trigger_neighbours": trigger_neighbours,
        "module": module,
    }


def camera_model(
    camera: CameraConfig,
    optics: OpticsConfig,
    description: CameraDescription,
    tel_ids: NDArray[np.integer],
    seed: int,
) -> CameraModel:
    """Return the camera with the constants of every telescope.

    Gains and efficiencies are normal around their means, independent of each other, of pixel and of
    telescope; dead and noisy pixels are drawn by their shares. Constants depend on the seed and the
    telescope's number only (`Stream.CAMERA`). The night sky of a pixel goes with its efficiency.

    Parameters
    ----------
    camera, optics : options
    description : geometry of the camera
    tel_ids : (tel,) numbers of the telescopes
    seed : of the constants

    Raises
    ------
    UsageError
        For lists that do not have a value for each of the two gains.
    AstriError
        For a camera whose pixels are not squares in columns, rows and modules of 64.
    """
    fields = _geometry(description.geometry)
    mean_gain = _pair(camera.gain_adu, "gain_adu", 1e-3)
    baseline = _pair(camera.baseline_adu, "baseline_adu", 0.0)
    electronics = _electronics(camera)
    n_tel, n_pixels = len(tel_ids), description.geometry.n_pixels
    tel = np.asarray(tel_ids, dtype=np.uint32)[:, None]
    pixel = np.arange(n_pixels, dtype=np.uint32)[None, :]
    first, second = Stream.CAMERA << 24, Stream.CAMERA << 24 | 1
    words = philox(tel, first, pixel, 0, key=key_of(seed))
    more = philox(tel, second, pixel, 0, key=key_of(seed))
    z_high, z_efficiency = normal_pair(words[0], words[1])
    z_low, _ = normal_pair(more[0], more[1])
    alive = uniform(words[2]) >= camera.dead_fraction
    noisy = uniform(words[3]) < camera.noisy_fraction
    z_gain = np.stack([z_high, z_low], axis=1)
    spread = np.maximum(1 + camera.gain_dispersion * z_gain, LOWEST_GAIN)
    gain = np.where(alive[:, None], mean_gain[:, None] * spread, 0.0)
    relative = 1 + camera.efficiency_dispersion * z_efficiency
    relative = np.where(alive, np.clip(relative, LOWEST_GAIN, EFFICIENCY_HEADROOM), 0.0)
    sky = camera.night_sky_mhz * np.where(noisy, NOISY_FACTOR, 1.0) * relative
    node, fraction = noise_place(sky + camera.dark_count_mhz)
    return CameraModel(
        **fields,  # type: ignore[arg-type]
        efficiency=relative / EFFICIENCY_HEADROOM,
        gain=gain,
        baseline=np.broadcast_to(baseline[:, None], (n_tel, 2, n_pixels)).copy(),
        noise_node=node,
        noise_fraction=fraction,
        noise=noise_levels(node, camera.dark_count_mhz, electronics),
    )


def true_constants(
    model: CameraModel, settings: CameraSettings, *, dark: bool = False
) -> TrueConstants:
    """Return what a perfect calibration of the simulated cameras would find.

    The pedestal of a peak detector is the baseline and the mean of what it reads without light: the
    maximum within the gate of the noise, which has the mean level of night sky and dark counts in
    it unless the coupling is AC. It and its standard deviation follow from the tables of noise,
    with the noise of the low gain, the variance of rounding, 1/12, and the end of the scale, which
    the noise of a bright night reaches (`cut_moments`). `dc_to_pe` turns counts into
    photo-electrons of a pixel of mean efficiency, mean crosstalk included. Bright pixels fall short
    of their light when the pedestal is subtracted: with the peak of their pulse comes the noise of
    one time, not the maximum within the gate (`astri_gpu.kernels.camera_noise.peak_excess`).

    Parameters
    ----------
    model : `camera_model`
    settings : `camera_settings`
    dark : for the lid closed, when dark counts are the only noise
    """
    node, fraction = model.noise_node, model.noise_fraction
    rate = noise_rate(node, fraction)
    if dark:
        node, fraction = np.full_like(node, len(NOISE_RATES_MHZ)), np.zeros_like(fraction)
    gain, baseline = model.gain, model.baseline
    alive = gain > 0
    scale = np.divide(
        settings.adc_max - baseline, gain, where=alive, out=np.full_like(gain, np.inf)
    )
    node, fraction = (np.broadcast_to(a[:, None], gain.shape) for a in (node, fraction))
    mean, variance = cut_moments(model.noise, NOISE_MAXIMUM, node, fraction, scale)
    rough = np.array([0.0, settings.low_gain_noise_adu])[:, None]
    std = np.sqrt(gain**2 * variance + rough**2 + 1 / 12)
    moving = alive & (mean < scale * (1 - 1e-9))  # not always at the end of the scale
    relative = model.efficiency * EFFICIENCY_HEADROOM
    counts_per_pe = gain * relative[:, None] / (1 - settings.crosstalk)
    valid = alive & (relative[:, None] > 0)
    dc_to_pe = np.divide(1.0, counts_per_pe, where=valid, out=np.zeros_like(gain))
    return TrueConstants(
        pedestal=baseline + gain * mean,
        pedestal_std=np.where(moving, std, 0.0),
        dc_to_pe=dc_to_pe,
        pixel_valid=valid,
        gain=gain,
        baseline=baseline,
        relative_efficiency=relative,
        noise_rate_mhz=rate,
    )
