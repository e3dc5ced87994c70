"""Reconstructed events read from DL2b stores into tables, as cuts and responses need them."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display.scene import SHOWER
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.kernels.coordinates import altaz_to_telescope, angular_separation
from astri_gpu.options import did_you_mean
from astri_gpu.progress import Progress
from astri_gpu.reconstruction.expressions import Expression, parse
from astri_gpu.reconstruction.folds import group_keys
from astri_gpu.schema import TABLES
from astri_gpu.selection.sample import COLUMNS, EventTable, Sample, empty_columns
from astri_gpu.selection.stores import Production, check_together, open_productions

__all__ = ["PARTS", "read_sample"]

Columns = dict[str, NDArray[Any]]

PARTS = {"all": 1.0, "even": 0.5, "odd": 0.5}
SLAB_ROWS = 1 << 18  # rows read at a time: some chunks, so that columns are decoded side by side
N_THREADS = 2
OUTSIDE_DEG = 0.5  # how far directions may lie outside the cone of the run header

RECO = ("reco_is_valid", "reco_energy", "gammaness", "reco_alt", "reco_az", "reco_n_tels")
TRUTH = ("true_energy", "true_alt", "true_az", "shower_id", "obs_id", "event_id")
POINTING = ("array_alt", "array_az", "event_type")


def read_sample(
    paths: Iterable[str | Path],
    *,
    filter: str = "reco_n_tels >= 1",
    part: str = "all",
    need: Sequence[str] = (),
    shown: Progress | None = None,
) -> Sample:
    """Return the reconstructed showers of DL2b stores.

    Stores of one kind and pointing that were thrown alike in angle and area become one table.

    Parameters
    ----------
    paths
        Stores of simulated gammas, protons, electrons, helium nuclei.
    filter
        Condition on columns of dl2/event (see `astri_gpu.reconstruction.expressions`).
    part
        "all" showers, or those with an "even" or "odd" number.
    need
        What has to be there: "gamma", "background", or a kind of particle.
    shown
        Where events that were read are counted.

    Returns
    -------
    Sample
        Tables of events that are reconstructed and pass the filter; see `COLUMNS`.

    Raises
    ------
    UsageError
        When the filter cannot be used, or asks for what was simulated.
    AstriError
        When a store is not DL2b, not simulated or incomplete, when the stores do not fit together,
        an observation is given twice, or something that is needed is missing.
    """
    productions = open_productions(paths)
    if not productions:
        raise UsageError("There are no stores to read: give at least one.")
    condition = _condition(filter)
    meta = check_together(productions)
    _check_needed(productions, need)
    groups: dict[tuple[Any, ...], list[Production]] = defaultdict(list)
    for item in productions:
        groups[(item.kind, *item.pointing, *item.way)].append(item)
    tables = tuple(
        _read_table(key, items, condition, part, shown or Progress(None, "read", "events"))
        for key, items in groups.items()
    )
    return Sample(tables, meta | {"part": part, "filter": filter})


def _condition(text: str) -> Expression:
    """Return the filter, if it asks only for what was reconstructed."""
    try:
        condition = parse(text, condition=True)
    except UsageError as error:
        raise UsageError(f"cuts.filter: {error}") from None
    known = TABLES["dl2/event"]
    for name in condition.names:
        if name.startswith("true_") or name == "shower_id":
            raise UsageError(
                f"cuts.filter must not use {name}: real events do not have it. Leave it out."
            )
        if name not in known:
            near = did_you_mean(name, known) or "."
            raise UsageError(f"cuts.filter asks for {name}, which is no column of dl2/event{near}")
    return condition


def _check_needed(productions: Sequence[Production], need: Sequence[str]) -> None:
    kinds = {item.kind for item in productions}
    for what in need:
        if not (kinds - {"gamma"} if what == "background" else kinds & {what}):
            given = ", ".join(sorted(kinds))
            raise AstriError(
                f"There is no {what} among the {len(productions)} stores (only {given}): give "
                f"stores of simulated {'protons' if what == 'background' else what + 's'} too."
            )


def _read_table(
    key: tuple[Any, ...],
    items: Sequence[Production],
    condition: Expression,
    part: str,
    shown: Progress,
) -> EventTable:
    """Return all events of stores that were thrown alike."""
    _check_observations(items)
    # Observation numbers of different ways of throwing may be the same.
    salt = np.uint64(zlib.crc32(repr(key).encode()) << 32)
    slabs: list[Columns] = []
    with ThreadPoolExecutor(N_THREADS) as pool:
        work = [
            pool.submit(_read_slab, item, start, stop, condition, part, salt)
            for item in items
            for start, stop in _slabs(item)
        ]
        try:
            for slab in work:
                n_rows, columns = slab.result()
                slabs.append(columns)
                shown.advance(n_rows)
        finally:
            for slab in work:
                slab.cancel()
    columns = empty_columns()
    if slabs:
        columns = {name: np.concatenate([slab[name] for slab in slabs]) for name in COLUMNS}
    first = items[0]
    table = EventTable(
        kind=first.kind,
        zenith_deg=first.pointing[0],
        azimuth_deg=first.pointing[1],
        thrown=tuple(thrown for item in items for thrown in item.thrown),
        columns=columns,
        paths=tuple(str(item.path) for item in items),
        part=PARTS[part],
    )
    _check_cone(table)
    return table


def _slabs(item: Production) -> list[tuple[int, int]]:
    """Return rows to be read at once, whole chunks."""
    blocks = item.store.blocks("dl2/event/reco_is_valid")
    if not blocks:
        return []
    n_together = max(1, SLAB_ROWS // max(1, blocks[0][1] - blocks[0][0]))
    groups = [blocks[k : k + n_together] for k in range(0, len(blocks), n_together)]
    return [(group[0][0], group[-1][1]) for group in groups]


def _read_slab(
    item: Production,
    start: int,
    stop: int,
    condition: Expression,
    part: str,
    salt: np.uint64,
) -> tuple[int, Columns]:
    """Return the number of rows read, and the columns of those that are wanted."""
    store = item.store
    lacking = [name for name in condition.names if f"dl2/event/{name}" not in store]
    if lacking:
        raise AstriError(
            f"cuts.filter asks for {', '.join(lacking)}, which {store.path} does not have: "
            "reconstruct it again or leave it out."
        )
    reco = store.read_table(
        "dl2/event", list({*RECO, *condition.names, "event_quality"}), start, stop
    )
    truth = store.read_table("simulation/event", TRUTH, start, stop)
    sky = store.read_table("dl0/event", POINTING, start, stop)
    use = reco["reco_is_valid"].astype(bool) & (sky["event_type"] == SHOWER)
    use &= condition(reco)
    use &= (reco["reco_energy"] > 0) & np.isfinite(reco["gammaness"])
    for values in (truth["true_energy"], truth["true_alt"], reco["reco_alt"], reco["reco_energy"]):
        use &= np.isfinite(values)
    if part != "all":
        name = np.where(truth["shower_id"] >= 0, truth["shower_id"], truth["event_id"])
        use &= name % 2 == (part == "odd")
    rows = np.flatnonzero(use)
    reco, truth, sky = (
        {name: values[rows] for name, values in columns.items()} for columns in (reco, truth, sky)
    )
    return stop - start, _columns(reco, truth, sky, salt)


def _columns(reco: Columns, truth: Columns, sky: Columns, salt: np.uint64) -> Columns:
    alt, az = (sky[name].astype(np.float64) for name in ("array_alt", "array_az"))
    found = altaz_to_telescope(reco["reco_alt"], reco["reco_az"], alt, az)
    true = altaz_to_telescope(truth["true_alt"], truth["true_az"], alt, az)
    zero = np.zeros(len(alt))
    keys = group_keys(truth["obs_id"], truth["shower_id"], truth["event_id"])
    columns = {
        "reco_energy": reco["reco_energy"],
        "true_energy": truth["true_energy"],
        "gammaness": reco["gammaness"],
        "theta": angular_separation(found.fov_lon, found.fov_lat, true.fov_lon, true.fov_lat),
        "reco_offset": angular_separation(zero, zero, found.fov_lon, found.fov_lat),
        "true_offset": angular_separation(zero, zero, true.fov_lon, true.fov_lat),
        "fov_lon": found.fov_lon,
        "fov_lat": found.fov_lat,
        "true_fov_lon": true.fov_lon,
        "true_fov_lat": true.fov_lat,
        "n_tels": reco["reco_n_tels"],
        "quality": reco["event_quality"],
        "shower_key": (keys ^ salt).view(np.int64),
    }
    return {name: columns[name].astype(kind) for name, (kind, _, _) in COLUMNS.items()}


def _check_observations(items: Sequence[Production]) -> None:
    """Refuse stores with events of one observation: the same showers would count twice."""
    seen: dict[int, Production] = {}
    for item in items:
        obs_id = item.store.read("simulation/event/obs_id")
        numbers = np.unique(obs_id) if len(obs_id) else [item.store.attrs.get("obs_id") or 0]
        for number in map(int, numbers):
            first = seen.setdefault(number, item)
            if first is not item:
                raise AstriError(
                    f"Both {first.path} and {item.path} hold observation {number}: the same "
                    "showers would count twice, so give one of them."
                )


def _check_cone(table: EventTable) -> None:
    """Refuse diffuse showers that lie elsewhere than the run header says."""
    if table.point_like or not len(table):
        return
    low, high = table.thrown[0].cone_min_deg, table.thrown[0].cone_max_deg
    offset = table.columns["true_offset"]
    reach = float(offset.min()), float(offset.max())
    if reach[0] < low - OUTSIDE_DEG or reach[1] > high + OUTSIDE_DEG:
        raise AstriError(
            f"The showers of {table.paths[0]} lie {reach[0]:.2f} to {reach[1]:.2f} deg from the "
            f"pointing, but its run header says {low:g} to {high:g} deg: the cone was thrown about "
            "another direction, which cannot be weighted."
        )
