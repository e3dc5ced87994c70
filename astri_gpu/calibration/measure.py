"""Camera constants from blocks of calibration events of one telescope, wherever they come from.

Pedestal events (CTAO types 2 and 5) give pedestals and their spread, flat-field flashes of two or
more levels of light (type 0) photo-electrons per count. Formulas:
`astri_gpu.kernels.camera_constants`.

The high gain of such a camera saturates at light that the low gain measures well. The photon
transfer is done in the high gain where two levels stay below saturation, else in the low gain, and
the other gain follows by intercalibration.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.kernels import camera_constants as kernel

__all__ = [
    "FLATFIELD",
    "MIN_EVENTS",
    "PEDESTALS",
    "ConstantsSums",
    "MeasureSettings",
    "TelescopeConstants",
    "check_counts",
    "light_levels",
]

logger = logging.getLogger(__name__)

FLATFIELD, PEDESTALS = 0, (2, 5)
"""CTAO event types: flashes of light, and triggers by a clock on the open sky."""
MIN_EVENTS = 50
"""Fewer give variances to no better than 20 %."""
LEVEL_STEP = 1.1
"""Flashes whose camera mean differs by more than this factor are of different levels: the mean of
2368 pixels at 20 p.e. varies by 0.5 %."""
SATURATED_SHARE = 1e-3
"""A level with more saturated counts is of no use in that gain: its variance is cut off."""
MAX_RATIO_ERROR = 0.1
"""Relative error of the ratio of the gains (median pixel), beyond which no light was in it."""
HIGH = 0

Floats = NDArray[np.float64]
Key = tuple[int, int]
"""Event type (one of pedestals) and level of light."""
DARK: Key = (PEDESTALS[0], -1)


class TelescopeConstants(NamedTuple):
    """Constants of one telescope with their statistical errors, (gain, pixel) if not said else."""

    tel_id: int
    n_pedestal: int
    n_flatfield: tuple[int, ...]  # of each level, from faint to bright
    pedestal: kernel.Pedestal
    dc_to_pe: Floats  # photo-electrons per count
    dc_to_pe_error: Floats  # of a pixel against the camera
    scale_error: float  # relative, common to all pixels
    gain: Floats  # counts per photo-electron, crosstalk included
    gain_error: Floats
    pixel_valid: NDArray[np.bool_]


class MeasureSettings(NamedTuple):
    """How constants are measured, and what is said where they cannot be."""

    limits: Floats
    """Counts from which each gain counts as saturated, (gain,)."""
    crosstalk: float
    gain_spread: float
    needed_by: str
    """What needs the events, for sentences: an option or a stage."""
    remedy: str
    """What to do where there are too few."""
    min_events: int = MIN_EVENTS
    noisy_factor: float = 2.0
    response_min: float = 0.3
    """Limits of good pixels: see `kernels.camera_constants.good_pixels`."""


def check_counts(
    where: object, tel_id: int, n_pedestal: int, n_flatfield: int, settings: MeasureSettings
) -> None:
    """Raise an `AstriError` where there are too few events, `where` being the file."""
    for what, n in (("pedestal", n_pedestal), ("flat-field", n_flatfield)):
        if n < settings.min_events:
            raise AstriError(
                f"{where} has {n} {what} events of telescope {tel_id}, and {settings.needed_by} "
                f"needs {settings.min_events}: {settings.remedy}."
            )


def light_levels(
    where: object,
    tel_id: int,
    light: Floats,
    is_flash: NDArray[np.bool_],
    settings: MeasureSettings,
) -> NDArray[np.int64]:
    """Return the level of light of each event of a telescope, from 0 = faint upwards, (event,).

    Levels are gaps in the ordered camera means of flashes. Pedestals have -1, as flashes of a level
    with too few of them.

    Parameters
    ----------
    where
        The file, for sentences.
    tel_id
        Of the telescope.
    light
        Mean counts of the camera in the gain that saturates last, (event,).
    is_flash
        Flat-field events; all others are pedestals.
    settings
        Its `min_events`.

    Raises
    ------
    AstriError
        When there are fewer than two levels with enough flashes.
    """
    level = np.full(len(light), -1)
    dark = float(np.mean(light[~is_flash]))
    flashes = np.flatnonzero(is_flash)
    order = flashes[np.argsort(light[flashes], kind="stable")]
    signal = np.maximum(light[order] - dark, 1e-9)
    level[order] = np.cumsum(np.diff(signal, prepend=signal[0]) > (LEVEL_STEP - 1) * signal)
    sizes = np.bincount(level[order])
    if np.count_nonzero(sizes >= settings.min_events) < 2:
        raise AstriError(
            f"{where} has flat-field events of {len(sizes)} levels of light for telescope "
            f"{tel_id} ({', '.join(map(str, sizes[:8]))} events): {settings.needed_by} needs two "
            f"or more levels of {settings.min_events} events."
        )
    level[order] = np.where(sizes[level[order]] >= settings.min_events, level[order], -1)
    return level


class ConstantsSums:
    """Sums over calibration events of one telescope by event type and level of light.

    Parameters
    ----------
    where
        The file, for sentences.
    tel_id
        Of the telescope.
    settings
        How constants are measured.
    """

    def __init__(self, where: object, tel_id: int, settings: MeasureSettings) -> None:
        self._where, self._tel_id, self._settings = where, tel_id, settings
        self._limits = settings.limits
        self._powers: dict[Key, tuple[Floats, kernel.PowerSums]] = {}
        self._pairs: tuple[Floats, kernel.PairSums] | None = None
        self._saturated: dict[Key, Floats] = {}

    def add(self, is_flash: bool, level: int, counts: NDArray[Any]) -> None:
        """Add images (event, gain, pixel): pedestals, or flashes of a level of `light_levels`."""
        n_events, n_gains, n_pixels = counts.shape
        key = (FLATFIELD, level) if is_flash else DARK
        use = np.ones(n_events, dtype=bool)
        flat = counts.reshape(n_events, n_gains * n_pixels)
        origin, before = self._powers.get(key, (flat[0].astype(np.float64), None))
        sums = kernel.power_sums(flat, origin, use)
        self._powers[key] = origin, _added(before, sums)
        above = (counts >= self._limits[:, None]).mean(axis=2).sum(axis=0)
        self._saturated[key] = self._saturated.get(key, np.zeros(n_gains)) + above
        if n_gains > 1:
            centre, pairs = self._pairs or (origin.reshape(n_gains, -1), None)
            pair = kernel.pair_sums(
                counts[:, 0],
                counts[:, 1],
                centre[0],
                centre[1],
                use,
                high_below=float(self._limits[HIGH]),
            )
            self._pairs = centre, _added(pairs, pair)

    def _moments(self, key: Key) -> kernel.Moments:
        """Return moments (gain, pixel)."""
        origin, sums = self._powers[key]
        found = kernel.moments(sums, origin)
        return kernel.Moments(*(part.reshape(len(self._limits), -1) for part in found))

    def constants(self) -> TelescopeConstants:
        """Return the constants.

        Raises
        ------
        AstriError
            When fewer than two levels of light lie between noise and saturation.
        """
        tel_id, settings = self._tel_id, self._settings
        dark = self._moments(DARK)
        levels = sorted(key for key in self._powers if key[0] == FLATFIELD)
        flashes = {key: self._moments(key) for key in levels}
        measured, used = self._transfer_gain(dark, flashes)
        light = _of_gain([flashes[key] for key in used], measured)
        floor = kernel.Moments(*(part[measured] for part in dark))
        valid = kernel.good_pixels(
            np.sqrt(floor.variance),
            light.mean[0],
            light.mean[-1],
            noisy_factor=settings.noisy_factor,
            response_min=settings.response_min,
        )
        # A pixel may be noisy in a gain that does not measure the light.
        spread = np.sqrt(dark.variance)
        middle = np.median(spread, axis=1, keepdims=True)
        valid &= (spread <= settings.noisy_factor * middle).all(axis=0)
        pedestals = [
            kernel.pedestal(kernel.Moments(*(part[gain] for part in dark)), valid)
            for gain in range(len(self._limits))
        ]
        transfer = kernel.photon_transfer(
            light,
            floor.variance,
            valid,
            crosstalk=settings.crosstalk,
            gain_spread=settings.gain_spread,
        )
        dc_to_pe, dc_error, gain, gain_error = self._all_gains(transfer, measured)
        valid = valid & np.isfinite(dc_to_pe).all(axis=0) & np.isfinite(dark.mean).all(axis=0)
        logger.info(
            "Telescope %d: %d pedestals, %s flashes, %.4g counts per p.e. (scale +- %.2g %%), "
            "%d bad pixels",
            tel_id,
            int(dark.n[0, 0]),
            "/".join(str(int(moments.n[0, 0])) for moments in flashes.values()),
            float(transfer.camera_gain),
            100 * float(transfer.scale_error),
            int((~valid).sum()),
        )
        return TelescopeConstants(
            tel_id=tel_id,
            n_pedestal=int(dark.n[0, 0]),
            n_flatfield=tuple(int(moments.n[0, 0]) for moments in flashes.values()),
            pedestal=kernel.Pedestal(*(np.stack(part) for part in zip(*pedestals, strict=True))),
            dc_to_pe=np.where(valid, dc_to_pe, 0.0),
            dc_to_pe_error=np.where(valid, dc_error, 0.0),
            scale_error=float(transfer.scale_error),
            gain=np.where(valid, gain, 0.0),
            gain_error=np.where(valid, gain_error, 0.0),
            pixel_valid=np.broadcast_to(valid, dc_to_pe.shape).copy(),
        )

    def _transfer_gain(
        self, dark: kernel.Moments, flashes: Mapping[Key, kernel.Moments]
    ) -> tuple[int, list[Key]]:
        """Return the gain of the photon transfer and the levels that it measures."""
        for gain in range(len(self._limits)):
            floor = kernel.Moments(*(part[gain] for part in dark))
            everywhere = np.ones(floor.mean.shape, dtype=bool)
            bright = kernel.above_noise(_of_gain(flashes.values(), gain), floor, everywhere)
            used = [
                key
                for key, is_bright in zip(flashes, bright, strict=True)
                if is_bright
                and self._saturated[key][gain] <= SATURATED_SHARE * flashes[key].n[gain, 0]
            ]
            if len(used) > 1:
                return gain, used
        means = [f"{moments.mean[HIGH].mean():.0f}" for moments in flashes.values()]
        raise AstriError(
            f"{self._where}: of the {len(means)} levels of flat-field light of telescope "
            f"{self._tel_id} ({', '.join(means)} counts, pedestal {dark.mean[HIGH].mean():.0f}) "
            "fewer than two lie well above the noise and below saturation, which "
            f"{self._settings.needed_by} needs: take flashes of 40 p.e. and more."
        )

    def _all_gains(
        self, transfer: kernel.Transfer, measured: int
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Return dc_to_pe, its error, counts per p.e. and their error, (gain, pixel) each.

        The ratio r of low to high counts carries the constants over: dc_to_pe of the high gain is
        r times that of the low gain.
        """
        own = transfer.dc_to_pe, transfer.gain
        error = transfer.dc_to_pe_error, transfer.gain_error
        if len(self._limits) == 1:
            return own[0][None], error[0][None], own[1][None], error[1][None]
        assert self._pairs is not None
        ratio = kernel.intercalibration(self._pairs[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            to_other = ratio.ratio if measured else 1 / ratio.ratio
            relative = np.abs(ratio.ratio_error / ratio.ratio)
            if not np.nanmedian(relative) < MAX_RATIO_ERROR:
                raise AstriError(
                    f"{self._where}: all flashes of telescope {self._tel_id} are above the "
                    f"saturation of the high gain ({self._limits[HIGH]:.0f} counts), so the gains "
                    "cannot be compared: take a level of fainter flashes too."
                )
            other = own[0] * to_other, own[1] / to_other
            other_error = tuple(
                np.abs(value) * np.hypot(mine / of, relative)
                for value, mine, of in zip(other, error, own, strict=True)
            )
        order = slice(None, None, -1) if measured else slice(None)
        dc_to_pe, gain = (np.stack(pair[order]) for pair in zip(own, other, strict=True))
        errors = (np.stack(pair[order]) for pair in zip(error, other_error, strict=True))
        dc_error, gain_error = errors
        return dc_to_pe, dc_error, gain, gain_error


def _of_gain(parts: Iterable[kernel.Moments], gain: int) -> kernel.Moments:
    """Return moments (level, pixel) of one gain from those of each level, (gain, pixel)."""
    return kernel.Moments(
        *(np.stack([part[gain] for part in column]) for column in zip(*parts, strict=True))
    )


def _added(before: Any, sums: Any) -> Any:
    """Return the sums of two blocks of events."""
    if before is None:
        return sums
    return type(sums)(*(a + b for a, b in zip(before, sums, strict=True)))
