"""Calibration constants of a store: those that came with it, or measured from its own events.

Pedestal events (CTAO types 2 and 5) give pedestals and their spread, flat-field flashes of two or
more levels of light (type 0) photo-electrons per count. Formulas:
`astri_gpu.kernels.camera_constants`.

The high gain of such a camera saturates at light that the low gain measures well. The photon
transfer is done in the high gain where two levels stay below saturation, else in the low gain, and
the other gain follows by intercalibration.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.instrument import CameraDescription
from astri_gpu.kernels import camera_constants as kernel
from astri_gpu.store import Store, StoreWriter

if TYPE_CHECKING:
    from astri_gpu.config import ProcessConfig

__all__ = ["TelescopeConstants", "constants_table", "measure_constants", "write_constants"]

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
NOISY_FACTOR, RESPONSE_MIN = 2.0, 0.3
"""Limits of good pixels: pedestal spread and response to light over those of the median pixel."""
HIGH = 0

Floats = NDArray[np.float64]


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


def constants_table(
    store: Store, name: str, camera: CameraDescription, config: "ProcessConfig"
) -> dict[str, NDArray[Any]]:
    """Return the table monitoring/camera of a camera, with measured constants where asked for.

    The rows stay those of the store, because its images refer to them: all rows of a telescope get
    its constants. Telescopes that are excluded keep what they have.

    Raises
    ------
    AstriError
        When the store has no constants for this camera, or too few calibration events for new ones.
    """
    path = f"monitoring/camera/{name}"
    if path not in store:
        raise AstriError(
            f"{store.path} has images of {name} but no calibration of it: ingest the file again, "
            "or calibrate it."
        )
    table = store.read_table(path)
    if config.calibration.constants == "store":
        return table
    wanted = sorted({int(tel) for tel in table["tel_id"]} - set(config.exclude_telescopes))
    found = {
        entry.tel_id: entry for entry in measure_constants(store, name, camera, config, wanted)
    }
    for row, tel_id in enumerate(table["tel_id"]):
        if int(tel_id) in found:
            constants = found[int(tel_id)]
            table["pedestal"][row] = constants.pedestal.mean
            table["pedestal_std"][row] = constants.pedestal.std
            table["dc_to_pe"][row] = constants.dc_to_pe
            table["pixel_valid"][row] = constants.pixel_valid
    return table


def write_constants(writer: StoreWriter, name: str, table: dict[str, NDArray[Any]]) -> None:
    """Write a table of `constants_table` as monitoring/camera of a new store."""
    n_gains, n_pixels = table["pedestal"].shape[1:]
    columns = writer.table(
        f"monitoring/camera/{name}", list(table), sizes={"gain": n_gains, "pixel": n_pixels}
    )
    columns.append(table)
    columns.close()


class _Rows(NamedTuple):
    """Images of calibration events of a camera."""

    row: NDArray[np.int64]
    event_type: NDArray[np.uint8]
    tel_id: NDArray[np.uint16]


def measure_constants(
    store: Store,
    name: str,
    camera: CameraDescription,
    config: "ProcessConfig",
    tel_ids: Sequence[int],
) -> list[TelescopeConstants]:
    """Return constants of telescopes from the calibration events of a DL0 store.

    Raises
    ------
    AstriError
        When the camera records waveforms, or there are too few events or levels of light.
    """
    adc = f"dl0/image/{name}/adc"
    if adc not in store:
        raise AstriError(
            f"{store.path} has waveforms of {name}: calibration.constants=events needs one value "
            "per gain and pixel; use calibration.constants=store."
        )
    images = _calibration_rows(store, name)
    _check_pedestals(store, images, tel_ids)
    limits = _limits(camera, config)
    level = _light_levels(store, adc, images, tel_ids)
    sums = _Sums(store.path, limits)
    for tel_id, kind, step, counts in _blocks(store, adc, images, level, tel_ids):
        sums.add(tel_id, kind, step, counts)
    return [sums.constants(tel_id, config) for tel_id in tel_ids]


def _calibration_rows(store: Store, name: str) -> _Rows:
    path = f"dl0/image/{name}"
    event_type = store.read("dl0/event/event_type")[store.read(f"{path}/event_index")]
    row = np.flatnonzero(np.isin(event_type, (FLATFIELD, *PEDESTALS)))
    return _Rows(row, event_type[row], store.read(f"{path}/tel_id")[row])


def _check_pedestals(store: Store, images: _Rows, tel_ids: Sequence[int]) -> None:
    is_pedestal = np.isin(images.event_type, PEDESTALS)
    for tel_id in tel_ids:
        for what, selected in (
            ("pedestal", is_pedestal),
            ("flat-field", images.event_type == FLATFIELD),
        ):
            n = int((selected & (images.tel_id == tel_id)).sum())
            if n < MIN_EVENTS:
                raise AstriError(
                    f"{store.path} has {n} {what} events of telescope {tel_id}, and "
                    f"calibration.constants=events needs {MIN_EVENTS}: simulate or record more, or "
                    "use calibration.constants=store."
                )


def _limits(camera: CameraDescription, config: "ProcessConfig") -> Floats:
    """Return the counts from which each gain counts as saturated."""
    saturation = camera.readout.saturation_adc
    limits = np.full(camera.readout.n_gains, np.inf if saturation is None else saturation)
    if len(limits) > 1:
        limits[HIGH] = min(limits[HIGH], config.calibration.gain_threshold_adc)
    return limits


def _read(store: Store, adc: str, row: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield (part of `row`, counts) shard by shard: a shard is decoded as a whole anyway."""
    for start, stop in store.blocks(adc):
        first, last = np.searchsorted(row, (start, stop))
        if first < last:
            begin = int(row[first])
            counts = store.read(adc, begin, int(row[last - 1]) + 1)
            yield slice(first, last), counts[row[first:last] - begin]


def _light_levels(
    store: Store, adc: str, images: _Rows, tel_ids: Sequence[int]
) -> NDArray[np.int64]:
    """Return the level of light of each image, from 0 = faint upwards; -1 where there was none.

    Levels are gaps in the ordered camera means of the gain that saturates last.
    """
    light = np.full(len(images.row), np.nan)
    chosen = np.flatnonzero(np.isin(images.tel_id, tel_ids))
    for part, counts in _read(store, adc, images.row[chosen]):
        light[chosen[part]] = counts[:, -1].mean(axis=1)
    level = np.full(len(images.row), -1)
    for tel_id in tel_ids:
        of_tel = images.tel_id == tel_id
        dark = float(np.mean(light[of_tel & (images.event_type != FLATFIELD)]))
        flashes = np.flatnonzero(of_tel & (images.event_type == FLATFIELD))
        order = flashes[np.argsort(light[flashes], kind="stable")]
        signal = np.maximum(light[order] - dark, 1e-9)
        level[order] = np.cumsum(np.diff(signal, prepend=signal[0]) > (LEVEL_STEP - 1) * signal)
        sizes = np.bincount(level[order])
        if np.count_nonzero(sizes >= MIN_EVENTS) < 2:
            raise AstriError(
                f"{store.path} has flat-field events of {len(sizes)} levels of light for telescope "
                f"{tel_id} ({', '.join(map(str, sizes[:8]))} events): "
                f"calibration.constants=events needs two or more levels of {MIN_EVENTS} events."
            )
        level[order] = np.where(sizes[level[order]] >= MIN_EVENTS, level[order], -1)
    return level


def _blocks(
    store: Store, adc: str, images: _Rows, level: NDArray[np.int64], tel_ids: Sequence[int]
) -> Iterator[tuple[int, int, int, NDArray[Any]]]:
    """Yield (telescope, event type, level, counts) for groups of images of each shard."""
    for part, counts in _read(store, adc, images.row):
        kind = np.where(images.event_type[part] == FLATFIELD, FLATFIELD, PEDESTALS[0])
        keys = np.stack([images.tel_id[part], kind, level[part]], axis=1)
        for tel_id, event_type, step in np.unique(keys, axis=0):
            if tel_id in tel_ids and (event_type != FLATFIELD or step >= 0):
                same = (keys == (tel_id, event_type, step)).all(axis=1)
                yield int(tel_id), int(event_type), int(step), counts[same]


class _Sums:
    """Sums over calibration events by telescope, event type and level of light."""

    def __init__(self, path: Path, limits: Floats) -> None:
        self._path, self._limits = path, limits
        self._powers: dict[tuple[int, int, int], tuple[Floats, kernel.PowerSums]] = {}
        self._pairs: dict[int, tuple[Floats, kernel.PairSums]] = {}
        self._saturated: dict[tuple[int, int, int], Floats] = {}

    def add(self, tel_id: int, kind: int, level: int, counts: NDArray[Any]) -> None:
        """Add images (event, gain, pixel) of one telescope."""
        n_events, n_gains, n_pixels = counts.shape
        key = (tel_id, kind, level)
        use = np.ones(n_events, dtype=bool)
        flat = counts.reshape(n_events, n_gains * n_pixels)
        origin, before = self._powers.get(key, (flat[0].astype(np.float64), None))
        sums = kernel.power_sums(flat, origin, use)
        self._powers[key] = origin, _added(before, sums)
        above = (counts >= self._limits[:, None]).mean(axis=2).sum(axis=0)
        self._saturated[key] = self._saturated.get(key, np.zeros(n_gains)) + above
        if n_gains > 1:
            centre, pairs = self._pairs.get(tel_id, (origin.reshape(n_gains, -1), None))
            pair = kernel.pair_sums(
                counts[:, 0],
                counts[:, 1],
                centre[0],
                centre[1],
                use,
                high_below=float(self._limits[HIGH]),
            )
            self._pairs[tel_id] = centre, _added(pairs, pair)

    def _moments(self, key: tuple[int, int, int]) -> kernel.Moments:
        """Return moments (gain, pixel)."""
        origin, sums = self._powers[key]
        found = kernel.moments(sums, origin)
        return kernel.Moments(*(part.reshape(len(self._limits), -1) for part in found))

    def constants(self, tel_id: int, config: "ProcessConfig") -> TelescopeConstants:
        """Return the constants of one telescope."""
        dark = self._moments((tel_id, PEDESTALS[0], -1))
        levels = sorted(key for key in self._powers if key[:2] == (tel_id, FLATFIELD))
        flashes = {key: self._moments(key) for key in levels}
        measured, used = self._transfer_gain(tel_id, dark, flashes)
        light = _of_gain([flashes[key] for key in used], measured)
        floor = kernel.Moments(*(part[measured] for part in dark))
        valid = kernel.good_pixels(
            np.sqrt(floor.variance),
            light.mean[0],
            light.mean[-1],
            noisy_factor=NOISY_FACTOR,
            response_min=RESPONSE_MIN,
        )
        pedestals = [
            kernel.pedestal(kernel.Moments(*(part[gain] for part in dark)), valid)
            for gain in range(len(self._limits))
        ]
        transfer = kernel.photon_transfer(
            light,
            floor.variance,
            valid,
            crosstalk=config.calibration.crosstalk,
            gain_spread=config.calibration.gain_spread,
        )
        dc_to_pe, dc_error, gain, gain_error = self._all_gains(tel_id, transfer, measured)
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
        self,
        tel_id: int,
        dark: kernel.Moments,
        flashes: Mapping[tuple[int, int, int], kernel.Moments],
    ) -> tuple[int, list[tuple[int, int, int]]]:
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
            f"{self._path}: of the {len(means)} levels of flat-field light of telescope {tel_id} "
            f"({', '.join(means)} counts, pedestal {dark.mean[HIGH].mean():.0f}) fewer than two "
            "lie well above the noise and below saturation, which calibration.constants=events "
            "needs: take flashes of 40 p.e. and more."
        )

    def _all_gains(
        self, tel_id: int, transfer: kernel.Transfer, measured: int
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Return dc_to_pe, its error, counts per p.e. and their error, (gain, pixel) each.

        The ratio r of low to high counts carries the constants over: dc_to_pe of the high gain is
        r times that of the low gain.
        """
        own = transfer.dc_to_pe, transfer.gain
        error = transfer.dc_to_pe_error, transfer.gain_error
        if len(self._limits) == 1:
            return own[0][None], error[0][None], own[1][None], error[1][None]
        ratio = kernel.intercalibration(self._pairs[tel_id][1])
        with np.errstate(divide="ignore", invalid="ignore"):
            to_other = ratio.ratio if measured else 1 / ratio.ratio
            relative = np.abs(ratio.ratio_error / ratio.ratio)
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
