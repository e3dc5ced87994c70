"""Event-wise tables of a ctapipe file: triggers and true showers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io.ctapipe_import_file import HDF5File
from astri_gpu.io.ctapipe_import_instrument import TelescopeOrder
from astri_gpu.io.ctapipe_import_pointing import Pointing, unix_times
from astri_gpu.io.ctapipe_import_rows import Cursor, EventKeys, whole_numbers
from astri_gpu.io.simtel_truth import UNKNOWN_TRUTH

__all__ = ["EventTables", "Events"]

EVENTS_PER_READ = 2048
IMAGES_PER_BLOCK = 512
NS = 1_000_000_000


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
    runs
        Observations so far, and the largest event number of each.
    """

    def __init__(
        self,
        file: HDF5File,
        telescopes: TelescopeOrder,
        pointing: Pointing,
    ) -> None:
        self._file, self._telescopes, self._pointing = file, telescopes, pointing
        self._trigger = file.require(model.TRIGGER)
        self._trigger.require(("obs_id", "event_id", "time", "tels_with_trigger", "event_type"))
        shower = file.table(model.SIMULATION_SHOWER)
        self._shower = None if shower is None else Cursor(shower, of_telescopes=False)
        self.is_simulated = self._shower is not None
        self.runs: dict[int, int] = {}
        self._ascending = True

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

    def check_end(self) -> None:
        """Refuse files with rows of events that the trigger table does not have, or has twice."""
        if self._shower is not None:
            self._shower.check_end()
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
