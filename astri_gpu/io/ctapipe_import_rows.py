"""Rows of many tables brought together event by event, in one pass and with flat memory.

Every table of a ctapipe file has its rows in the order of the trigger table, so that a block of
events takes the next rows of each of them. Rows are matched by their keys, never by position; a
row that finds no event in its turn is reported.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.io.ctapipe_import_file import TableReader

__all__ = ["Cursor", "EventKeys", "Taken", "lookup", "whole_numbers"]

NARROW_ROW_BYTES, NARROW_ROWS = 2048, 2048
"""Rows up to this size are read this many at a time: a call costs more than they do."""
LARGEST_ID = np.iinfo(np.int64).max


def whole_numbers(values: NDArray[np.generic], place: str) -> NDArray[np.int64]:
    """Return identifiers as int64.

    Raises
    ------
    AstriError
        When they are no whole numbers, or too large.
    """
    if values.dtype.kind not in "iu":
        raise AstriError(f"{place} holds {values.dtype}, not whole numbers.")
    if values.dtype.kind == "u" and values.size and int(values.max()) > LARGEST_ID:
        raise AstriError(f"{place} goes up to {int(values.max())}, which is more than 63 bits.")
    return values.astype(np.int64)


class EventKeys:
    """The events of a block, to be found by (obs_id, event_id)."""

    def __init__(self, obs_id: NDArray[np.int64], event_id: NDArray[np.int64]) -> None:
        self.obs_id, self.event_id = obs_id, event_id
        self._parts = []
        for run in np.unique(obs_id):
            row = np.flatnonzero(obs_id == run)
            row = row[np.argsort(event_id[row], kind="stable")]
            self._parts.append((int(run), row, event_id[row]))

    def __len__(self) -> int:
        return len(self.obs_id)

    def find(self, obs_id: NDArray[np.int64], event_id: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each event in the block, -1 where it is not there."""
        found = np.full(len(obs_id), -1, dtype=np.int64)
        for run, row, ids in self._parts:
            place = np.minimum(np.searchsorted(ids, event_id), len(ids) - 1)
            here = (obs_id == run) & (ids[place] == event_id)
            found[here] = row[place[here]]
        return found

    def twice(self) -> tuple[int, int] | None:
        """Return (obs_id, event_id) of an event that is there twice, or None."""
        for run, _, ids in self._parts:
            same = np.flatnonzero(ids[1:] == ids[:-1])
            if same.size:
                return run, int(ids[same[0]])
        return None


class Taken(NamedTuple):
    """Rows of one table that belong to a block of events."""

    rows: NDArray[np.void]
    event: NDArray[np.int64]  # row of the event in the block
    tel_id: NDArray[np.int64]  # 0 in tables of events


class Cursor:
    """The rows of a table that were not taken yet."""

    def __init__(self, table: TableReader, *, of_telescopes: bool) -> None:
        keys = ("obs_id", "event_id", "tel_id") if of_telescopes else ("obs_id", "event_id")
        table.require(keys)
        self.table = table
        self._of_telescopes = of_telescopes
        self._read = 0
        self._waiting: NDArray[np.void] = np.empty(0, dtype=table.dtype)

    def take(self, keys: EventKeys, expected: int) -> Taken:
        """Return the next rows as long as their events are in the block.

        `expected` is about how many there should be; one more is read, so that the end is seen.

        Raises
        ------
        AstriError
            When they are not in the order of the events, or there twice.
        """
        while True:
            rows = self._waiting
            event = keys.find(*self._keys(rows))
            strange = np.flatnonzero(event < 0)
            n_taken = int(strange[0]) if strange.size else len(rows)
            if n_taken < len(rows) or self._read >= self.table.n_rows:
                break
            wanted = expected + 1 - len(rows)
            if self.table.dtype.itemsize <= NARROW_ROW_BYTES:
                wanted = max(wanted, NARROW_ROWS)
            stop = min(self._read + max(wanted, 1), self.table.n_rows)
            more = self.table.read(self._read, stop)
            self._read = stop
            self._waiting = np.concatenate([rows, more]) if len(rows) else more
        taken, self._waiting = rows[:n_taken], rows[n_taken:]
        tel_id = np.zeros(n_taken, dtype=np.int64)
        if self._of_telescopes:
            tel_id = whole_numbers(taken["tel_id"], f"{self.table.path}/tel_id")
        self._check(event[:n_taken], tel_id, taken)
        return Taken(taken, event[:n_taken], tel_id)

    def check_end(self) -> None:
        """Raise an `AstriError` unless all rows were taken."""
        n_left = len(self._waiting) + self.table.n_rows - self._read
        if n_left:
            first = self._waiting[:1] if len(self._waiting) else self.table.read(self._read)[:1]
            obs_id, event_id = (int(part[0]) for part in self._keys(first))
            raise AstriError(
                f"{n_left} of {self.table.n_rows} rows of {self.table.path} in "
                f"{self.table.file_path} are of no event of the trigger table or not in its order, "
                f"the first of event {event_id}, observation {obs_id}: merge the files again."
            )

    def _keys(self, rows: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        obs_id, event_id = (
            whole_numbers(rows[name], f"{self.table.path}/{name}")
            for name in ("obs_id", "event_id")
        )
        return obs_id, event_id

    def _check(
        self, event: NDArray[np.int64], tel_id: NDArray[np.int64], rows: NDArray[np.void]
    ) -> None:
        step = np.diff(event)
        bad = step < 0
        if self._of_telescopes:
            order = np.lexsort((tel_id, event))
            bad = bad | (np.diff(event[order]) == 0) & (np.diff(tel_id[order]) == 0)
        else:
            bad = bad | (step == 0)
        if np.any(bad):
            row = int(np.flatnonzero(bad)[0]) + 1
            obs_id, event_id = (int(part[row]) for part in self._keys(rows))
            raise AstriError(
                f"Rows of {self.table.path} in {self.table.file_path} are there twice or not in "
                f"the order of the trigger table, near event {event_id} of observation {obs_id}: "
                "was one file merged twice?"
            )


def lookup(
    event: NDArray[np.int64],
    tel_id: NDArray[np.int64],
    taken: Taken,
) -> NDArray[np.int64]:
    """Return the row in `taken` of each image (event, tel_id), -1 where it has none."""
    if not len(taken.event):
        return np.full(len(event), -1, dtype=np.int64)
    base = 1 + int(max(tel_id.max(initial=0), taken.tel_id.max(initial=0)))
    have = taken.event * base + taken.tel_id
    want = event * base + tel_id
    order = np.argsort(have, kind="stable")
    place = np.minimum(np.searchsorted(have, want, sorter=order), len(have) - 1)
    row = order[place]
    return np.where(have[row] == want, row, -1)
