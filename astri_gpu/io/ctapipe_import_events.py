"""Event-wise tables of a ctapipe file: triggers, true showers and the stereo geometry."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io.ctapipe_import_file import HDF5File
from astri_gpu.io.ctapipe_import_instrument import TelescopeOrder
from astri_gpu.io.ctapipe_import_pointing import Pointing, unix_times
from astri_gpu.io.ctapipe_import_rows import Cursor, EventKeys, whole_numbers
from astri_gpu.io.ctapipe_model import Field
from astri_gpu.io.simtel_truth import UNKNOWN_TRUTH

__all__ = ["EventTables", "Events", "choose_geometry"]

EVENTS_PER_READ = 2048
IMAGES_PER_BLOCK = 512
NS = 1_000_000_000
GEOMETRY = (
    "alt",
    "az",
    "core_x",
    "core_y",
    "core_tilted_x",
    "core_tilted_y",
    "h_max",
    "ang_distance_uncert",
    "average_intensity",
)


def choose_geometry(file: HDF5File, wanted: str | None) -> str | None:
    """Return the name of the stereo algorithm whose results are taken, None without any.

    Raises
    ------
    UsageError
        When `wanted` is not there, or there are several and none is named.
    """
    names = file.names(model.DL2_GEOMETRY)
    if wanted is not None and wanted not in names:
        raise UsageError(
            f"geometry={wanted} is not in {file.path}; it has {', '.join(names) or 'none'}."
        )
    if wanted is not None or not names:
        return wanted
    if model.ALGORITHM in names:
        return model.ALGORITHM
    if len(names) > 1:
        raise UsageError(
            f"{file.path} has the stereo geometry of {', '.join(names)}: choose one with "
            f"geometry={names[0]}."
        )
    return names[0]


class Events(NamedTuple):
    """A block of events."""

    keys: EventKeys
    event_type: NDArray[np.int64]
    time_s: NDArray[np.int64]  # UTC seconds since 1970
    time_ns: NDArray[np.int64]
    mask: NDArray[np.bool_]  # (event, tel of the file), True = in the trigger


class EventTables:
    """The tables with one row for each event, read block by block.

    Attributes
    ----------
    is_simulated
        Whether the file has true showers.
    n_bad_geometry
        Events so far that are called valid without having a direction and a core.
    runs
        Observations so far, and the largest event number of each.
    """

    def __init__(
        self,
        file: HDF5File,
        telescopes: TelescopeOrder,
        pointing: Pointing,
        algorithm: str | None,
    ) -> None:
        self._file, self._telescopes, self._pointing = file, telescopes, pointing
        self._trigger = file.require(model.TRIGGER)
        self._trigger.require(("obs_id", "event_id", "time", "tels_with_trigger", "event_type"))
        self._algorithm = algorithm
        self._shower = self._cursor(model.SIMULATION_SHOWER)
        geometry = None if algorithm is None else f"{model.DL2_GEOMETRY}/{algorithm}"
        self._geometry = None if geometry is None else self._cursor(geometry)
        self.is_simulated = self._shower is not None
        self.n_bad_geometry = 0
        self.runs: dict[int, int] = {}
        self._ascending = True

    def _cursor(self, path: str) -> Cursor | None:
        table = self._file.table(path)
        return None if table is None else Cursor(table, of_telescopes=False)

    @property
    def n_events(self) -> int:
        """Return the number of events of the file."""
        return self._trigger.n_rows

    def blocks(self, limit: int) -> Iterator[Events]:
        """Yield the first `limit` events, few at a time, so that their images fit into memory."""
        for start in range(0, limit, EVENTS_PER_READ):
            rows = self._trigger.read(start, min(start + EVENTS_PER_READ, limit))
            images = np.cumsum(self._mask(rows).sum(axis=1))
            first = 0
            while first < len(rows):
                before = images[first - 1] if first else 0
                last = int(np.searchsorted(images, before + IMAGES_PER_BLOCK, side="right"))
                last = max(last, first + 1)
                yield self._events(rows[first:last])
                first = last

    def _events(self, rows: NDArray[np.void]) -> Events:
        obs_id, event_id = (
            whole_numbers(rows[name], f"{self._trigger.path}/{name}")
            for name in ("obs_id", "event_id")
        )
        keys = EventKeys(obs_id, event_id)
        self._note_order(keys)
        seconds, ns = unix_times(self._trigger, rows)
        more, time_ns = np.divmod(np.rint(ns).astype(np.int64), NS)
        event_type = np.asarray(rows["event_type"]).astype(np.int64)
        return Events(keys, event_type, seconds + more, time_ns, self._mask(rows))

    def _mask(self, rows: NDArray[np.void]) -> NDArray[np.bool_]:
        """Return which telescopes of the file are in the trigger, (event, tel of the file)."""
        mask = rows["tels_with_trigger"]
        if mask.ndim != 2 or mask.shape[1] != len(self._telescopes.tel_id):
            raise AstriError(
                f"{self._file.path}: tels_with_trigger of {self._trigger.path} is {mask.shape[1:]} "
                f"for {len(self._telescopes.tel_id)} telescopes."
            )
        flags: NDArray[np.bool_] = mask != 0
        return flags

    def _note_order(self, keys: EventKeys) -> None:
        """Refuse events that are there twice; whether all are is seen from ascending numbers."""
        twice = keys.twice()
        if twice is not None:
            self._refuse_twice(*twice)
        for run in np.unique(keys.obs_id):
            ids = keys.event_id[keys.obs_id == run]
            before = self.runs.get(int(run))
            first_is_new = before is None or int(ids[0]) > before
            self._ascending &= first_is_new and bool(np.all(np.diff(ids) > 0))
            self.runs[int(run)] = int(ids.max()) if before is None else max(before, int(ids.max()))

    def _refuse_twice(self, obs_id: int, event_id: int) -> None:
        raise AstriError(
            f"{self._file.path} has event {event_id} of observation {obs_id} twice: was one file "
            "merged twice?"
        )

    def array_pointing(self, events: Events) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where the array looked; where only its sky place is known, as a telescope does."""
        obs_id, mask, time_s = events.keys.obs_id, events.mask, events.time_s
        alt, az = self._pointing.array(obs_id)
        for row in np.flatnonzero(~(np.isfinite(alt) & np.isfinite(az))):
            looking = self._telescopes.tel_id[mask[row]]
            if looking.size:
                one = slice(row, row + 1)
                alt[one], az[one] = self._pointing.telescope(
                    int(looking[0]), obs_id[one], time_s[one].astype(np.float64)
                )
        return alt, az

    def truth(self, keys: EventKeys) -> tuple[dict[str, NDArray[Any]], set[int]]:
        """Return the columns of simulation/event, (event,), and the particles among them."""
        cursor = self._shower
        assert cursor is not None
        taken = cursor.take(keys, len(keys))
        columns: dict[str, NDArray[Any]] = {
            name: np.full(len(keys), value) for name, value in UNKNOWN_TRUTH.items()
        }
        for field in model.SHOWER_COLUMNS:
            if field.ours in columns and field.column in cursor.table:
                columns[field.ours][taken.event] = cursor.table.values(taken.rows, field)
        return columns, set(np.unique(columns["true_primary_id"][taken.event]).tolist())

    def stereo(self, keys: EventKeys) -> dict[str, NDArray[Any]]:
        """Return the columns of dl2/event, (event,)."""
        cursor, prefix, n_events = self._geometry, self._algorithm, len(keys)
        assert cursor is not None
        taken, table = cursor.take(keys, n_events), cursor.table

        def column(name: str, unit: str = "") -> NDArray[np.float64]:
            values = np.full(n_events, np.nan)
            if f"{prefix}_{name}" in table:
                field = Field(f"{prefix}_{name}", "f8", unit)
                values[taken.event] = table.values(taken.rows, field)
            return values

        fields = {field.name: field for field in model.geometry_columns(str(prefix))}
        columns: dict[str, NDArray[Any]] = {
            f"stereo_{name}": column(name, fields[name].unit) for name in GEOMETRY
        }
        # HillasReconstructor keeps the spread of its planes as uncertainty of altitude and azimuth.
        uncertainty = columns["stereo_ang_distance_uncert"]
        columns["stereo_ang_distance_uncert"] = np.where(
            np.isfinite(uncertainty), uncertainty, column("alt_uncert", "deg")
        )
        table.require((f"{prefix}_is_valid",))
        is_valid = np.zeros(n_events, dtype=bool)
        is_valid[taken.event] = taken.rows[f"{prefix}_is_valid"] != 0
        # ctapipe calls a result of unknown pointing valid, and all its numbers are NaN.
        places = [columns[f"stereo_{name}"] for name in ("alt", "az", "core_x", "core_y")]
        finite = np.isfinite(places).all(axis=0)
        self.n_bad_geometry += int(np.count_nonzero(is_valid & ~finite))
        columns["stereo_is_valid"] = is_valid & finite
        n_tels = np.zeros(n_events, dtype=np.int32)
        if f"{prefix}_telescopes" in table:
            n_tels[taken.event] = (taken.rows[f"{prefix}_telescopes"] != 0).sum(axis=1)
        columns["stereo_n_tels"] = n_tels
        return columns

    def check_end(self) -> None:
        """Refuse files with rows of events that the trigger table does not have, or has twice."""
        for cursor in (self._shower, self._geometry):
            if cursor is not None:
                cursor.check_end()
        if self._ascending:
            return
        # Numbers that do not ascend are no mistake in themselves: all of them have to be looked at.
        rows = [
            self._trigger.read(start, min(start + EVENTS_PER_READ, self.n_events))
            for start in range(0, self.n_events, EVENTS_PER_READ)
        ]
        parts = ([part[name].astype(np.int64) for part in rows] for name in ("obs_id", "event_id"))
        twice = EventKeys(*map(np.concatenate, parts)).twice()
        if twice is not None:
            self._refuse_twice(*twice)
