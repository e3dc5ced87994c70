"""Check of event lists, good time intervals and pointings, and of what they say of each other."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3.check_formats import DRIFT, TABLES
from astri_gpu.dl3.check_header import (
    check_chain,
    check_columns,
    check_keywords,
    number,
    read_column,
    rows,
)
from astri_gpu.dl3.check_rules import Notes

__all__ = ["check_observation", "check_table"]

SECOND = 1e-3  # s, times that differ by less are the same
SHARE = 1e-3  # by which LIVETIME may differ from ONTIME x DEADC
DATES = 70.0  # s: a date may be written in UTC, 69 s behind TT
TIME_KEYS = ("MJDREFI", "MJDREFF", "TIMEUNIT", "TIMESYS", "TIMEREF")

Floats = NDArray[np.float64]


def check_table(notes: Notes, kind: str, table: Any) -> dict[str, Floats]:
    """Note what is wrong in header and columns of a table that has rows.

    Parameters
    ----------
    notes
        Of the table.
    kind
        A key of `TABLES`.
    table
        HDU of astropy.

    Returns
    -------
    dict
        Columns of the format that can be used, in its units, (row,) float64.
    """
    format_ = TABLES[kind]
    header = table.header
    check_chain(notes, header, format_.chain)
    check_keywords(notes, header, format_.keywords)
    usable = check_columns(notes, table, format_.columns)
    values = {
        column.name: read_column(table, column.name, column.unit)
        for column in format_.columns
        if column.name in usable and column.kind in ("number", "whole number")
    }
    _check_angles(notes, values)
    return values


def _check_angles(notes: Notes, values: Mapping[str, Floats]) -> None:
    for names, rule, low, high in (
        (("RA", "RA_PNT", "RA_OBJ"), "ra-range", 0.0, 360.0),
        (("DEC", "DEC_PNT", "DEC_OBJ"), "dec-range", -90.0, 90.0),
    ):
        for name in names:
            if name in values:
                # A direction that is no number is told of where it is asked for.
                bad = (values[name] < low) | (values[name] > high)
                if bad.any():
                    text = rows(bad, values[name])
                    notes(rule, name, f"{name} is outside {low:g} to {high:g} deg in {text}.")


def check_observation(tables: Mapping[str, Sequence[tuple[Notes, Any, dict[str, Floats]]]]) -> None:
    """Note what is wrong in the values of the event lists of a file, and of what lies beside.

    Parameters
    ----------
    tables
        Kind ("EVENTS", "GTI", "POINTING") to notes, HDU and columns of the tables of that kind.
    """
    intervals = tables.get("GTI", ())
    for notes, table, values in intervals:
        _check_intervals(notes, table.header, values)
    for notes, table, values in tables.get("POINTING", ()):
        _check_order(notes, "pointing-order", "Pointings", values.get("TIME"))
        _check_finite(notes, values, ("TIME", "RA_PNT", "DEC_PNT"))
        del table
    for notes, table, values in tables.get("EVENTS", ()):
        _check_events(notes, table.header, values)
        # GTI of several observations in one file cannot be told apart.
        beside = intervals[0] if len(intervals) == 1 else None
        if not intervals:
            notes("gti-missing", "", "The file has an event list without good time intervals.")
        elif beside is not None:
            _check_beside(notes, table.header, values, beside[1].header, beside[2])
    _check_reference([entry for entries in tables.values() for entry in entries])


def _check_events(notes: Notes, header: Any, values: Mapping[str, Floats]) -> None:
    if str(header.get("OBS_MODE", "")).strip().upper() == "DRIFT":
        check_keywords(notes, header, DRIFT)
    if ("RA_OBJ" in header) != ("DEC_OBJ" in header):
        notes("keyword-pair", "RA_OBJ", "Only one of RA_OBJ and DEC_OBJ is given.")
    start, stop = number(header, "TSTART"), number(header, "TSTOP")
    if start is not None and stop is not None and not start < stop:
        notes("tstart-tstop", "TSTART", f"TSTART is {start:.10g} and TSTOP {stop:.10g}, no later.")
    ontime, livetime, share = (number(header, key) for key in ("ONTIME", "LIVETIME", "DEADC"))
    if ontime is not None and livetime is not None and share is not None:
        expected = ontime * share
        if not math.isclose(livetime, expected, rel_tol=SHARE, abs_tol=SECOND):
            notes(
                "livetime",
                "LIVETIME",
                f"LIVETIME is {livetime:.10g} s, but ONTIME ({ontime:.10g} s) times DEADC "
                f"({share:.10g}) is {expected:.10g} s.",
            )
    _check_date(notes, header, "DATE-OBS", start)
    _check_date(notes, header, "DATE-END", stop)
    lengths = [len(column) for column in values.values()]
    if lengths and not lengths[0]:
        notes("events-empty", "", "The event list has no events.")
        return
    _check_finite(notes, values, ("TIME", "RA", "DEC", "ENERGY"))
    energy = values.get("ENERGY")
    if energy is not None and (energy <= 0).any():
        notes("event-value", "ENERGY", f"ENERGY is not above 0 in {rows(energy <= 0, energy)}.")
    number_of = values.get("EVENT_ID")
    if number_of is not None:
        _, first, counts = np.unique(number_of, return_index=True, return_counts=True)
        if (counts > 1).any():
            place = first[counts > 1][0]
            notes(
                "event-id-twice",
                "EVENT_ID",
                f"{int((counts > 1).sum())} values of EVENT_ID occur more than once, the first at "
                f"row {place + 1} ({number_of[place]:.0f}).",
            )
    time = values.get("TIME")
    _check_order(notes, "event-time-order", "Events", time)
    if time is not None and start is not None and stop is not None:
        bad = (time < start - SECOND) | (time > stop + SECOND)
        if bad.any():
            notes(
                "event-time-range",
                "TIME",
                f"TIME is outside TSTART ({start:.10g}) to TSTOP ({stop:.10g}) in "
                f"{rows(bad, time)}.",
            )


def _check_finite(notes: Notes, values: Mapping[str, Floats], names: Sequence[str]) -> None:
    for name in names:
        if name in values:
            bad = ~np.isfinite(values[name])
            if bad.any():
                notes("event-value", name, f"{name} is no finite number in {rows(bad)}.")


def _check_order(notes: Notes, rule: str, what: str, time: Floats | None) -> None:
    if time is not None and len(time) > 1:
        bad = np.concatenate([[False], time[1:] < time[:-1]])
        if bad.any():
            notes(rule, "TIME", f"{what} are not in order of time in {rows(bad, time)}.")


def _check_date(notes: Notes, header: Any, key: str, time: float | None) -> None:
    """Note a date that is not the moment of `time`."""
    import warnings

    from astropy.time import Time

    text = header.get(key)
    reference = number(header, "MJDREFI"), number(header, "MJDREFF")
    if not isinstance(text, str) or None in reference or time is None:
        return
    clock = header.get(key.replace("DATE", "TIME"))
    if "T" not in text:
        if not isinstance(clock, str):
            return
        text = f"{text}T{clock}"  # as it was written before the format had both in one
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Time(text.strip().removesuffix("Z"), format="isot", scale="utc").mjd
    except ValueError:
        notes("keyword-value", key, f"{key} is '{text}': it has to be an ISO 8601 date.")
        return
    apart = 86400 * (found - sum(part for part in reference if part is not None)) - time
    if abs(apart) > DATES:
        name = "TSTART" if key == "DATE-OBS" else "TSTOP"
        notes("date-obs", key, f"{key} is {text}, which is {apart:.0f} s from {name}.")


def _check_intervals(notes: Notes, header: Any, values: Mapping[str, Floats]) -> None:
    start, stop = values.get("START"), values.get("STOP")
    if start is None or stop is None:
        return
    if not len(start):
        notes("gti-empty", "", "There is no good time interval: at least one row is needed.")
        return
    _check_finite(notes, values, ("START", "STOP"))
    bad = ~(start < stop)
    if bad.any():
        notes("gti-length", "STOP", f"STOP is not behind START in {rows(bad, stop)}.")
    bad = np.concatenate([[False], start[1:] < start[:-1]])
    if bad.any():
        notes("gti-order", "START", f"Intervals are not in order of time in {rows(bad, start)}.")
    order = np.argsort(start, kind="stable")
    begins, ends = start[order], np.maximum.accumulate(stop[order])
    bad = np.zeros(len(start), dtype=bool)
    bad[order[1:]] = begins[1:] < ends[:-1] - SECOND
    if bad.any():
        notes("gti-overlap", "START", f"Intervals overlap others in {rows(bad, start)}.")
    _check_gti_range(notes, header, start, stop, "its header")


def _check_gti_range(notes: Notes, header: Any, start: Floats, stop: Floats, whose: str) -> None:
    first, last = number(header, "TSTART"), number(header, "TSTOP")
    if first is None or last is None:
        return
    bad = (start < first - SECOND) | (stop > last + SECOND)
    if bad.any():
        notes(
            "gti-range",
            "START",
            f"Intervals reach beyond TSTART ({first:.10g}) and TSTOP ({last:.10g}) of {whose} in "
            f"{rows(bad, start)}.",
        )


def _check_beside(
    notes: Notes,
    header: Any,
    values: Mapping[str, Floats],
    gti_header: Any,
    gti: Mapping[str, Floats],
) -> None:
    """Note where events and intervals of one file contradict each other."""
    start, stop = gti.get("START"), gti.get("STOP")
    if start is None or stop is None or not len(start):
        return
    if number(gti_header, "TSTART") is None:
        _check_gti_range(notes, header, start, stop, "the event list")
    ontime, length = number(header, "ONTIME"), float(np.sum(stop - start))
    if ontime is not None and not abs(ontime - length) <= max(SECOND, 1e-6 * abs(length)):
        notes(
            "ontime",
            "ONTIME",
            f"ONTIME is {ontime:.10g} s, but the good time intervals have {length:.10g} s.",
        )
    time = values.get("TIME")
    if time is not None and len(time):
        order = np.argsort(start, kind="stable")
        # A later interval may lie within an earlier one, so what counts is the latest end so far.
        ends = np.maximum.accumulate(stop[order])
        place = np.searchsorted(start[order] - SECOND, time, side="right") - 1
        bad = (place < 0) | (time > ends[np.maximum(place, 0)] + SECOND)
        if bad.any():
            notes(
                "event-outside-gti",
                "TIME",
                f"Events are outside the good time intervals in {rows(bad, time)}.",
            )


def _check_reference(tables: Sequence[tuple[Notes, Any, Any]]) -> None:
    """Note tables of a file that count time from another moment than the first one does."""
    if not tables:
        return
    first = tables[0][1].header
    for notes, table, _ in tables[1:]:
        for key in TIME_KEYS:
            ours, theirs = table.header.get(key), first.get(key)
            if isinstance(ours, str) and isinstance(theirs, str):
                same = ours.strip().upper() == theirs.strip().upper()
            else:
                same = ours == theirs
            if not same and ours is not None and theirs is not None:
                notes(
                    "time-reference",
                    key,
                    f"{key} is {ours!r} here and {theirs!r} in the table {tables[0][0].hdu}.",
                )
