"""Good time intervals: from text, checked, never merged in silence.

Times are seconds since 2020-01-01T00:00:00 UTC (see `sky`).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.dl3.sky import REFERENCE_UNIX_S, utc_text
from astri_gpu.errors import AstriError, UsageError

__all__ = [
    "check_intervals",
    "check_used",
    "inside",
    "intervals_of_run",
    "parse_intervals",
    "uniform_times",
]

Floats = NDArray[np.float64]
OPTION = "observation.gti"


def parse_intervals(texts: Sequence[str]) -> Floats:
    """Return the intervals of START/STOP texts in UTC as seconds since 2020-01-01, (interval, 2).

    Raises
    ------
    UsageError
        For text that is no pair of times, an interval without length, and intervals that are not
        in order of time or overlap.
    """
    found = []
    for text in texts:
        try:
            start, stop = (_seconds(part) for part in text.split("/"))
        except ValueError:
            raise UsageError(
                f"{OPTION} has '{text}', which is no pair of times: write START/STOP in UTC, such "
                "as 2026-01-15T22:00:00/2026-01-15T22:20:00."
            ) from None
        found.append((start, stop))
    intervals = np.asarray(found, dtype=np.float64).reshape(-1, 2)
    check_intervals(intervals, OPTION, kind=UsageError)
    return intervals


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() - REFERENCE_UNIX_S


def check_intervals(
    intervals: ArrayLike, what: str, *, kind: type[AstriError] = AstriError
) -> None:
    """Raise an error of a `kind` for intervals that have no length, no order, or overlap.

    Parameters
    ----------
    intervals
        Seconds since 2020-01-01 UTC, (interval, 2).
    what
        Where they stand, which begins the sentence.
    kind
        Of the error.
    """
    last_start, last_stop = -np.inf, -np.inf
    for start, stop in np.asarray(intervals, dtype=np.float64).reshape(-1, 2):
        name = f"{utc_text(start)} to {utc_text(stop)}"
        if not stop > start:
            raise kind(f"{what} has the interval {name}, which has no length: remove it.")
        if start < last_start:
            raise kind(
                f"{what} has the interval {name} behind one that begins at "
                f"{utc_text(last_start)}: give them in order of time."
            )
        if start < last_stop:
            raise kind(
                f"{what} has the interval {name}, which begins before the one in front of it ends "
                f"({utc_text(last_stop)}): intervals must not overlap."
            )
        last_start, last_stop = start, stop


def intervals_of_run(intervals: Floats, start: float, stop: float, name: str) -> Floats:
    """Return the intervals of one run: those that touch it, or the whole run if none are given.

    Parameters
    ----------
    intervals
        Of the option, as `parse_intervals` returns them; empty = the whole run.
    start, stop
        Of the run.
    name
        Of the run, for the message.

    Raises
    ------
    UsageError
        When no interval lies in the run, or one reaches beyond its ends.
    """
    if not len(intervals):
        return np.array([[start, stop]])
    chosen = intervals[(intervals[:, 1] > start) & (intervals[:, 0] < stop)]
    where = f"{name} ({utc_text(start)} to {utc_text(stop)})"
    if not len(chosen):
        raise UsageError(
            f"{OPTION} has no interval in {where}, so nothing would be left of it: give one, or "
            "leave the option out for the whole run."
        )
    if chosen[0, 0] < start or chosen[-1, 1] > stop:
        raise UsageError(f"{OPTION} has an interval that reaches beyond the ends of {where}.")
    return chosen


def check_used(intervals: Floats, runs: Sequence[tuple[float, float]]) -> None:
    """Raise a `UsageError` for an interval that lies in none of the runs (start, stop)."""
    for begin, end in intervals:
        if not any(begin < stop and start < end for start, stop in runs):
            known = ", ".join(f"{utc_text(start)} to {utc_text(stop)}" for start, stop in runs[:3])
            more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
            raise UsageError(
                f"{OPTION} has the interval {utc_text(begin)} to {utc_text(end)}, which lies in no "
                f"run; there are runs from {known}{more}: remove the interval or correct it."
            )


def inside(time: Floats, intervals: Floats) -> NDArray[np.bool_]:
    """Return the events (event,) whose time lies in an interval, its end not included."""
    place = np.searchsorted(intervals[:, 0], time, side="right") - 1
    return (place >= 0) & (time < intervals[np.maximum(place, 0), 1])


def uniform_times(share: Floats, intervals: Floats) -> Floats:
    """Return times at given shares, 0 to 1, of the summed length of the intervals, (event,)."""
    lengths = np.diff(intervals, axis=1)[:, 0]
    before = np.concatenate([[0.0], np.cumsum(lengths)])
    since = share * before[-1]
    place = np.clip(np.searchsorted(before, since, side="right") - 1, 0, len(lengths) - 1)
    times = intervals[place, 0] + since - before[place]
    # Rounding must not put an event at the end of its interval, which is not in it.
    return np.minimum(times, np.nextafter(intervals[place, 1], -np.inf))
