"""Camera constants from the calibration events in a DL0 file (0101), for parts of the run.

The file is read twice in blocks of rows: for the light of every event, which sorts flashes into
levels, and for sums of powers. So neither its length nor the number of parts counts in memory.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.calibration.cal1_file import ConstantsSet
from astri_gpu.calibration.measure import (
    FLATFIELD,
    PEDESTALS,
    ConstantsSums,
    MeasureSettings,
    check_counts,
    light_levels,
)
from astri_gpu.errors import AstriError

if TYPE_CHECKING:
    from astri_gpu.dl0.files import Dl0File

__all__ = ["Measured", "measure_file"]

BLOCK_ROWS = 128  # 1.2 MB of counts; their powers stay in the cache
BAD_SHARE = 0.1
"""With more bad pixels than this a camera is worth a warning."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Measured(NamedTuple):
    """Constants of a telescope, and what was said about them."""

    sets: tuple[ConstantsSet, ...]
    """One for each part of the run, in order."""
    warnings: tuple[str, ...]


class _Events(NamedTuple):
    """Calibration events of a file by row, (row,)."""

    is_flash: NDArray[np.bool_]
    used: NDArray[np.bool_]
    """Pedestals and flashes; False for other types."""
    part: Integers
    """Part of the run, from 0."""


def measure_file(
    file: "Dl0File",
    settings: MeasureSettings,
    *,
    interval_s: float | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Measured:
    """Return the constants of the telescope of a DL0 file of calibration events.

    Parameters
    ----------
    file
        Of kind CAL.
    settings
        How constants are measured.
    interval_s
        Length of the parts of the run that get constants of their own, about: the run is cut into
        equal parts. A part with too few events is joined with the one behind it, the last one with
        the one before. None = one set for the whole run.
    advance
        Is told how many events were read (twice all of them).

    Raises
    ------
    AstriError
        When there are too few events or levels of light even in the whole run.
    """
    where, tel_id = file.path, file.tel_id
    edges = _edges(file.run.start_s, file.run.stop_s, interval_s)
    events, warnings = _read_events(file, edges)
    n_flash = int((events.is_flash & events.used).sum())
    n_dark = int(events.used.sum()) - n_flash
    check_counts(where, tel_id, n_dark, n_flash, settings)
    n_gains = file.table.columns["ADC"].shape[0]
    settings = settings._replace(limits=np.broadcast_to(settings.limits, n_gains))

    light = np.full(len(events.used), np.nan)
    for rows, counts in _blocks(file, advance):
        light[rows] = counts[:, -1].mean(axis=1)
    level = np.full(len(events.used), -1)
    level[events.used] = light_levels(
        where, tel_id, light[events.used], events.is_flash[events.used], settings
    )
    use = events.used & (~events.is_flash | (level >= 0))
    group, said = _joined(events, level, use, len(edges) - 1, settings.min_events)
    use &= _plenty(group[events.part], level, use, settings.min_events)
    sums = [ConstantsSums(where, tel_id, settings) for _ in range(group[-1] + 1)]
    for rows, counts in _blocks(file, advance):
        keys = np.stack([group[events.part[rows]], level[rows]], axis=1)[use[rows]]
        for number, step in np.unique(keys, axis=0):
            same = (keys == (number, step)).all(axis=1)
            sums[number].add(bool(step >= 0), int(step), counts[use[rows]][same])
    warnings += [f"Telescope {tel_id}: {text}" for text in said]
    sets = []
    for number, each in enumerate(sums):
        parts = np.flatnonzero(group == number)
        sets.append(_constants_set(each, float(edges[parts[0]]), float(edges[parts[-1] + 1])))
        bad = 1.0 - float(sets[-1].pixel_valid[0].mean())
        if bad > BAD_SHARE:
            warnings.append(f"Telescope {tel_id} has {100 * bad:.0f} % bad pixels")
    return Measured(tuple(sets), tuple(dict.fromkeys(warnings)))


def _edges(start: float, stop: float, interval_s: float | None) -> Floats:
    """Return the edges of the parts of the run, s."""
    if not stop > start:
        raise AstriError(
            f"The run goes from {start} to {stop} s by its header (TSTART, TSTOP), which is no "
            "time: make the DL0 files again with `astri-gpu preprocess`."
        )
    n_parts = 1 if interval_s is None else max(1, round((stop - start) / interval_s))
    return np.linspace(start, stop, n_parts + 1)


def _read_events(file: "Dl0File", edges: Floats) -> tuple[_Events, list[str]]:
    """Return what the events are; those before and behind the run belong to its ends."""
    kind = file.table.read("EVT_TYPE")
    time = file.table.read("TIME_S") + 1e-9 * np.minimum(file.table.read("TIME_NS"), 999_999_999)
    part = np.clip(np.searchsorted(edges, time, side="right") - 1, 0, len(edges) - 2)
    used = np.isin(kind, (FLATFIELD, *PEDESTALS))
    warnings = []
    if not used.all():
        types = ", ".join(str(number) for number in np.unique(kind[~used])[:5])
        warnings.append(
            f"Telescope {file.tel_id}: {int((~used).sum())} of its calibration events are of other "
            f"types ({types}) than flashes ({FLATFIELD}) and pedestals "
            f"({', '.join(map(str, PEDESTALS))}) and were left out"
        )
    return _Events(kind == FLATFIELD, used, part), warnings


def _blocks(
    file: "Dl0File", advance: Callable[[int], None]
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield (rows, counts (row, gain, pixel)) of a file from its start to its end."""
    for start in range(0, file.table.n_rows, BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, file.table.n_rows))
        yield rows, file.table.read("ADC", rows)
        advance(rows.stop - rows.start)


def _joined(
    events: _Events, level: Integers, use: NDArray[np.bool_], n_parts: int, min_events: int
) -> tuple[Integers, list[str]]:
    """Return the set of constants that each part of the run goes into, (part,), and sentences."""
    kinds = np.unique(level[use])  # -1 = pedestals, others flashes
    counts = np.stack(
        [np.bincount(events.part[use & (level == kind)], minlength=n_parts) for kind in kinds]
    )
    group = np.zeros(n_parts, dtype=np.int64)
    held, number = np.zeros(len(kinds), dtype=np.int64), 0
    for part in range(n_parts):
        group[part] = number
        held = held + counts[:, part]
        if _enough(held, min_events):
            held, number = np.zeros_like(held), number + 1
    # What is left at the end goes to the last set that is complete.
    group = np.minimum(group, max(number - 1, 0))
    n_sets = int(group[-1]) + 1
    if n_sets == n_parts:
        return group, []
    few = int(sum(not _enough(counts[:, part], min_events) for part in range(n_parts)))
    return group, [
        f"{few} of {n_parts} parts of the run have fewer than {min_events} pedestals, or flashes "
        f"of two levels of light: joined with their neighbours, constants left: {n_sets} sets"
    ]


def _plenty(
    group: Integers, level: Integers, use: NDArray[np.bool_], min_events: int
) -> NDArray[np.bool_]:
    """Return the events of levels that have enough of them in their set of constants, (row,)."""
    key = group * (level.max() + 2) + level + 1
    return (np.bincount(key[use], minlength=int(key.max()) + 1) >= min_events)[key]


def _enough(counts: Integers, min_events: int) -> bool:
    return bool(counts[0] >= min_events and np.count_nonzero(counts[1:] >= min_events) >= 2)


def _constants_set(sums: ConstantsSums, start: float, stop: float) -> ConstantsSet:
    found = sums.constants()
    return ConstantsSet(
        tel_id=found.tel_id,
        start_s=start,
        stop_s=stop,
        pedestal=found.pedestal.mean,
        pedestal_std=found.pedestal.std,
        dc_to_pe=found.dc_to_pe,
        pixel_valid=found.pixel_valid,
        n_pedestal=found.n_pedestal,
        n_flatfield=sum(found.n_flatfield),
        pedestal_error=found.pedestal.mean_error,
        dc_to_pe_error=found.dc_to_pe_error,
        gain=found.gain,
        scale_error=found.scale_error,
    )
