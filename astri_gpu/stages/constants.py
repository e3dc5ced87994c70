"""Calibration constants of a store: those that came with it, or measured from its own events.

How they are measured: `astri_gpu.calibration.measure`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.calibration.measure import (
    FLATFIELD,
    PEDESTALS,
    ConstantsSums,
    MeasureSettings,
    TelescopeConstants,
    check_counts,
    light_levels,
)
from astri_gpu.errors import AstriError
from astri_gpu.instrument import CameraDescription
from astri_gpu.store import Store, StoreWriter

if TYPE_CHECKING:
    from astri_gpu.config import ProcessConfig

__all__ = ["constants_table", "measure_constants", "write_constants"]

HIGH = 0


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
    settings = MeasureSettings(
        limits=_limits(camera, config),
        crosstalk=config.calibration.crosstalk,
        gain_spread=config.calibration.gain_spread,
        needed_by="calibration.constants=events",
        remedy="simulate or record more, or use calibration.constants=store",
    )
    is_flash = images.event_type == FLATFIELD
    for tel_id in tel_ids:
        mine = images.tel_id == tel_id
        check_counts(
            store.path,
            tel_id,
            int((mine & ~is_flash).sum()),
            int((mine & is_flash).sum()),
            settings,
        )
    level = _light_levels(store, adc, images, tel_ids, settings)
    sums = {tel_id: ConstantsSums(store.path, tel_id, settings) for tel_id in tel_ids}
    for tel_id, flash, step, counts in _blocks(store, adc, images, level, tel_ids):
        sums[tel_id].add(flash, step, counts)
    return [sums[tel_id].constants() for tel_id in tel_ids]


def _calibration_rows(store: Store, name: str) -> _Rows:
    path = f"dl0/image/{name}"
    event_type = store.read("dl0/event/event_type")[store.read(f"{path}/event_index")]
    row = np.flatnonzero(np.isin(event_type, (FLATFIELD, *PEDESTALS)))
    return _Rows(row, event_type[row], store.read(f"{path}/tel_id")[row])


def _limits(camera: CameraDescription, config: "ProcessConfig") -> NDArray[np.float64]:
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
    store: Store, adc: str, images: _Rows, tel_ids: Sequence[int], settings: MeasureSettings
) -> NDArray[np.int64]:
    """Return the level of light of each image, see `light_levels`; -1 where there was none."""
    light = np.full(len(images.row), np.nan)
    chosen = np.flatnonzero(np.isin(images.tel_id, tel_ids))
    for part, counts in _read(store, adc, images.row[chosen]):
        light[chosen[part]] = counts[:, -1].mean(axis=1)
    level = np.full(len(images.row), -1)
    for tel_id in tel_ids:
        mine = images.tel_id == tel_id
        is_flash = images.event_type[mine] == FLATFIELD
        level[mine] = light_levels(store.path, tel_id, light[mine], is_flash, settings)
    return level


def _blocks(
    store: Store, adc: str, images: _Rows, level: NDArray[np.int64], tel_ids: Sequence[int]
) -> Iterator[tuple[int, bool, int, NDArray[Any]]]:
    """Yield (telescope, flash or not, level, counts) for groups of images of each shard."""
    for part, counts in _read(store, adc, images.row):
        kind = np.where(images.event_type[part] == FLATFIELD, FLATFIELD, PEDESTALS[0])
        keys = np.stack([images.tel_id[part], kind, level[part]], axis=1)
        for tel_id, event_type, step in np.unique(keys, axis=0):
            if tel_id in tel_ids and (event_type != FLATFIELD or step >= 0):
                same = (keys == (tel_id, event_type, step)).all(axis=1)
                yield int(tel_id), event_type == FLATFIELD, int(step), counts[same]
