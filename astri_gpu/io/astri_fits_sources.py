"""Which rows of A-SciSoft-like event lists are of which event and telescope, block by block.

All rows are looked at once before anything is written: numbers, times and masks that cannot be
right are found then. What is kept of that is some 16 bytes a row.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io import astri_fits_model as model
from astri_gpu.io.astri_fits_reader import FitsFile, TableReader
from astri_gpu.io.astri_fits_truth import pack_keys

__all__ = ["Columns", "EventList", "Rows", "observation", "telescope_number"]

ROWS_PER_STEP = 65_536
SECOND_NS = 1_000_000_000
TRUNCATED_NS, ENOUGH_ROWS, ENOUGH_S = 1 << 24, 1000, 10
Columns = dict[str, NDArray[Any]]


class Rows(NamedTuple):
    """Rows of whole events; `event` counts from 0 in the block, `tel` in the layout."""

    columns: Columns
    event: NDArray[np.int64]
    tel: NDArray[np.int64]
    run: NDArray[np.int64]  # (event,)
    number: NDArray[np.int64]


class _Part(NamedTuple):
    """One file: its table, and the event and telescope of each of its rows (-1 = left out)."""

    table: TableReader
    event: NDArray[np.int64]
    tel: NDArray[np.int64]


def telescope_number(file: FitsFile) -> int | None:
    """Return the telescope of a file of lv1b or lv1c, by its header or its name."""
    value = file.header(model.EVENTS).get("TELNUM")
    if isinstance(value, int) and value >= 0:
        return value
    found = re.search(r"_MA(\d+)[_.]", file.path.name)
    return int(found.group(1)) if found else None


def observation(file: FitsFile) -> int:
    """Return the observation of a file, by its header or its name; 0 if neither tells."""
    value = file.header(model.EVENTS).get("OBS_ID")
    try:
        return int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = re.search(r"_(\d{8})_[RS]_\d+", file.path.name)
        return int(found.group(1)) if found else 0


class EventList:
    """All rows of the files of one store, by event.

    Parameters
    ----------
    files
        One file, or those of the telescopes of one observation (lv1b, lv1c).
    level
        Of the files, one of `IMAGE_LEVELS`.
    layout
        All telescopes.
    keep_others
        Leave out what does not fit (and say so) instead of refusing the file.

    Attributes
    ----------
    n_events, n_rows
        Numbers of events, and of rows of them.
    predicted
        Whether some row has a predicted energy.
    left_out
        Which events are not to be used, (event,).
    notes
        Sentences about what was left out or guessed.

    Raises
    ------
    UsageError
        For files of several telescopes that do not say which rows belong together.
    AstriError
        When columns are missing, or rows cannot be told apart.
    """

    def __init__(
        self,
        files: Sequence[FitsFile],
        level: str,
        layout: ArrayLayout,
        *,
        keep_others: bool = False,
    ) -> None:
        self._layout, self._keep = layout, keep_others
        self.notes: list[str] = []
        self.predicted = False
        tables = [file.table(model.EVENTS, model.fields(level, simulated=True)) for file in files]
        keys = [self._keys(file, table) for file, table in zip(files, tables, strict=True)]
        if level == "lv2a":
            self._parts = [self._array_part(tables[0], keys[0])]
        else:
            self._parts = self._telescope_parts(files, tables, keys)
        self.n_rows = sum(int(np.count_nonzero(part.event >= 0)) for part in self._parts)

    @property
    def n_events(self) -> int:
        """Return the number of events."""
        return len(self._run)

    def blocks(self, n_events: int) -> Iterator[Rows]:
        """Yield the rows of the first `n_events`, whole events at a time, sorted by event."""
        per_step = max(1, ROWS_PER_STEP * max(1, self.n_events) // max(1, self.n_rows))
        edges = [*range(0, n_events, per_step), n_events]
        places = [np.searchsorted(part.event, edges) for part in self._parts]
        for block, (start, stop) in enumerate(pairwise(edges)):
            columns, events, tels = [], [], []
            for part, place in zip(self._parts, places, strict=True):
                first, last = int(place[block]), int(place[block + 1])
                columns.append(part.table.read(first, last))
                events.append(part.event[first:last] - start)
                tels.append(part.tel[first:last])
            event, tel = np.concatenate(events), np.concatenate(tels)
            order = np.lexsort((tel, event))
            names = columns[0]
            yield Rows(
                {name: np.concatenate([c[name] for c in columns])[order] for name in names},
                event[order],
                tel[order],
                self._run[start:stop],
                self._number[start:stop],
            )

    def _keys(self, file: FitsFile, table: TableReader) -> Columns:
        """Return number, run, time and mask of every row, all rows checked."""
        if not table.n_rows:
            raise AstriError(f"{table.where} has no rows: there is nothing to read.")
        names = ("EVTNUM", "MCRUNNUM", "EVT_CTR", "TRIGTEL", "NTRIGTEL", "TIME_S", "TIME_NS")
        kept = [name for name in names if name in table.names]
        parts: list[Columns] = []
        highest_ns = 0
        for start in range(0, table.n_rows, ROWS_PER_STEP):
            rows = table.read(start, min(start + ROWS_PER_STEP, table.n_rows))
            time_ns = rows["TIME_NS"]
            bad = (time_ns < 0) | (time_ns >= SECOND_NS)
            if bad.any():
                k = int(np.argmax(bad))
                raise AstriError(
                    f"TIME_NS in {table.where} is {time_ns[k]} in row {start + k}; it has to be "
                    f"from 0 to {SECOND_NS - 1}."
                )
            highest_ns = max(highest_ns, int(time_ns.max()))
            if "EST_EN" in rows:
                self.predicted |= bool(np.isfinite(rows["EST_EN"]).any())
            parts.append({name: rows[name] for name in kept})
        keys = {name: np.concatenate([part[name] for part in parts]) for name in kept}
        self._check_truncated(table, keys["TIME_S"], highest_ns)
        if "MCRUNNUM" in keys:
            keys["run"] = keys["MCRUNNUM"].astype(np.int64)
        else:
            keys["run"] = np.full(table.n_rows, observation(file), np.int64)
        keys["time"] = keys["TIME_S"].astype(np.int64) * SECOND_NS + keys.pop("TIME_NS")
        return keys

    def _check_truncated(self, table: TableReader, seconds: NDArray[Any], highest: int) -> None:
        """Refuse nanoseconds of which only the lowest 24 bits are there."""
        span = int(seconds.max()) - int(seconds.min())
        if highest >= TRUNCATED_NS or len(seconds) < ENOUGH_ROWS or span < ENOUGH_S:
            return
        text = (
            f"TIME_NS in {table.where} never exceeds {highest} in {len(seconds)} rows over {span} "
            "s: it was cut to 24 bits, and the times within a second are lost."
        )
        if not self._keep:
            raise AstriError(f"{text} Set on_error=keep to read it all the same.")
        self.notes.append(text)

    def _array_part(self, table: TableReader, keys: Columns) -> _Part:
        """Return events and telescopes of lv2a: rows of an event in the order of TRIGTEL's bits."""
        packed = pack_keys(keys["run"], keys["EVTNUM"])
        starts = np.concatenate([[0], np.flatnonzero(np.diff(packed)) + 1])
        counts = np.diff([*starts, len(packed)])
        self._set_events(keys["run"][starts], keys["EVTNUM"][starts].astype(np.int64), table.where)
        event = np.repeat(np.arange(len(starts)), counts)
        mask = keys["TRIGTEL"].astype(np.int64)
        bits = (mask[:, None] >> np.arange(self._layout.n_telescopes)) & 1
        good = (
            (mask == mask[starts][event])
            & (bits.sum(axis=1) == counts[event])
            & (mask >> self._layout.n_telescopes == 0)
            & (keys["NTRIGTEL"] == counts[event])
        )
        if not good.all():
            event = self._without_bad(table, event, good, keys, counts)
        rank = np.arange(len(packed)) - np.repeat(starts, counts)
        tel = np.argmax(np.cumsum(bits, axis=1) == rank[:, None] + 1, axis=1)
        return _Part(table, event, tel)

    def _without_bad(
        self,
        table: TableReader,
        event: NDArray[np.int64],
        good: NDArray[np.bool_],
        keys: Columns,
        counts: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Refuse, or leave out, events whose rows and telescopes do not fit together."""
        bad = np.unique(event[~good])
        k = int(np.argmin(good))
        text = (
            f"{len(bad)} of {len(counts)} events in {table.where} do not say which telescope an "
            f"image is of, such as event {keys['EVTNUM'][k]} with {counts[event[k]]} rows, "
            f"NTRIGTEL {keys['NTRIGTEL'][k]} and TRIGTEL {keys['TRIGTEL'][k]} for "
            f"{self._layout.n_telescopes} telescopes"
        )
        if not self._keep or len(bad) == len(counts):
            raise AstriError(
                f"{text}: rows of an event have to be as many as TRIGTEL has bits, in their order."
            )
        self.notes.append(f"{text}; they were left out.")
        wanted = np.ones(len(counts), bool)
        wanted[bad] = False
        self.left_out = ~wanted
        return event

    def _telescope_parts(
        self, files: Sequence[FitsFile], tables: Sequence[TableReader], keys: Sequence[Columns]
    ) -> list[_Part]:
        """Return events and telescopes of lv1b and lv1c: one file for each telescope."""
        numbers = [
            self._numbers(file, own, len(files)) for file, own in zip(files, keys, strict=True)
        ]
        packed = [pack_keys(own["run"], number) for own, number in zip(keys, numbers, strict=True)]
        for table, own in zip(tables, packed, strict=True):
            if len(np.unique(own)) < len(own):
                raise AstriError(f"{table.where} has an event twice: was one file merged twice?")
        if len(files) == 1:
            self._set_events(keys[0]["run"], numbers[0], tables[0].where)
            order: list[NDArray[np.int64]] = [np.arange(len(packed[0]))]
        else:
            order = self._merged(tables, keys, packed, np.concatenate(numbers))
        places = {int(number): k for k, number in enumerate(self._layout.tel_id)}
        parts, seen = [], set[int]()
        for file, table, event in zip(files, tables, order, strict=True):
            number = telescope_number(file)
            if number is None and self._layout.n_telescopes == 1:
                number = int(self._layout.tel_id[0])
            if number not in places or number in seen:
                raise AstriError(
                    f"{file.path} is of telescope {number}, which "
                    + ("another file is of too" if number in seen else f"{model.TELCONF} lacks")
                    + ": the telescope is taken from TELNUM in the header or from _MA<number>_ in "
                    "the name."
                )
            seen.add(number)
            tel = np.full(len(event), places[number], np.int64)
            parts.append(_Part(table, event, tel))
        return parts

    def _numbers(self, file: FitsFile, keys: Columns, n_files: int) -> NDArray[np.int64]:
        """Return the event number of each row: EVTNUM, or the telescope's own counter."""
        if "EVTNUM" in keys:
            return keys["EVTNUM"].astype(np.int64)
        counter = keys["EVT_CTR"].astype(np.int64)
        if n_files > 1 and not file.extra():
            raise UsageError(
                f"{file.path} has no EVTNUM, so that nobody knows which of its events are those of "
                f"the other {n_files - 1} telescopes: give one file."
            )
        if len(np.unique(counter)) < len(counter):
            self.notes.append(f"{file.path}: EVT_CTR repeats; events are numbered by their rows.")
            return np.arange(1, len(counter) + 1)
        return counter

    def _merged(
        self,
        tables: Sequence[TableReader],
        keys: Sequence[Columns],
        packed: Sequence[NDArray[np.int64]],
        numbers: NDArray[np.int64],
    ) -> list[NDArray[np.int64]]:
        """Return the event of each row of each file, events in the order of all the files."""
        everything, first = np.unique(np.concatenate(packed), return_index=True)
        if not all((np.diff(own) > 0).all() for own in packed):
            time = np.full(len(everything), np.iinfo(np.int64).max)
            for own, rows in zip(packed, keys, strict=True):
                place = np.searchsorted(everything, own)
                time[place] = np.minimum(time[place], rows["time"])
            in_time = np.argsort(time, kind="stable")
        else:
            in_time = np.arange(len(everything))
        rank = np.empty_like(in_time)
        rank[in_time] = np.arange(len(in_time))
        events = [rank[np.searchsorted(everything, own)] for own in packed]
        for table, event in zip(tables, events, strict=True):
            if (np.diff(event) < 0).any():
                raise AstriError(
                    f"{table.where} is neither in the order of its event numbers nor in that of "
                    "its times: sort it."
                )
        run = np.concatenate([rows["run"] for rows in keys])[first][in_time]
        self._set_events(run, numbers[first][in_time], tables[0].where)
        return events

    def _set_events(self, run: NDArray[Any], number: NDArray[Any], where: str) -> None:
        self._run, self._number = run.astype(np.int64), number.astype(np.int64)
        self.left_out = np.zeros(len(run), bool)
        packed = np.sort(pack_keys(self._run, self._number))
        twice = np.flatnonzero(packed[1:] == packed[:-1])
        if twice.size:
            found_run, found = divmod(int(packed[twice[0]]), 1 << 32)
            raise AstriError(
                f"{where[0].upper()}{where[1:]} has event {found} of run {found_run} in two "
                "places: rows of an event have to stand together."
            )
