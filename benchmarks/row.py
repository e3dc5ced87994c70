"""What a row of the table is, and how one is measured so that the others never notice."""

import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "Measured",
    "NotMeasured",
    "Row",
    "Settings",
    "one_line",
    "outcome",
    "per_two_cores",
    "reference",
]

FOLDERS = re.compile(r"(?<![\w.])(?:/[^\s/'\":,]+)+/(?=[^\s/])")
"""The folders of an absolute path."""


class NotMeasured(Exception):
    """What a row needs and this machine has not: said in its line, and no failure."""


@dataclass(frozen=True)
class Settings:
    """What the command line says to every row; all of it fits into JSON."""

    quick: bool = False
    threads: int = 0  # of the cpu backend, 0 = all cores
    scratch: str | None = None  # folder for temporary stores, None = the system's choice
    simtel: tuple[str, ...] = ()  # real sim_telarray files

    def size(self, full: int, quick: int) -> int:
        """Return how much to measure: `full`, or `quick` in a smoke test."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Measured:
    """The figures of a row; what nobody knows is None.

    Rates are medians over rounds. The ratio is the median of the ratios of single rounds, in which
    a contestant and its peer are measured one after the other.
    """

    rate: float
    unit: str = "images/s"
    peer: str = ""
    peer_rate: float | None = None
    ratio: float | None = None
    ceiling: str = ""  # what limits from above, and cannot be passed
    ceiling_rate: float | None = None
    reached: bool | None = None  # the goal of the row
    error: float | None = None  # largest difference, relative to the scale of the column
    error_from: str = ""
    peak_memory_mib: float | None = None  # of a process that does only this
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)  # everything else, for the JSON file


@dataclass(frozen=True)
class Row:
    """One line of the table: a name, a sentence, a goal, and the function that measures."""

    name: str
    what: str
    goal: str
    measure: Callable[[Settings], Measured]


def per_two_cores(value: float, threads: int = 0) -> float:
    """Return a rate or ratio as two cores would have it, for the goals are those of two cores.

    In proportion where more are used; as it is on one or two.
    """
    return value * min(1.0, 2 / (threads or len(os.sched_getaffinity(0))))


def reference(error: float, column: str) -> str:
    """Return what an error from the numpy backend says: which column is worst, if one is."""
    return f"the numpy backend ({column})" if error else "the numpy backend (no column differs)"


def outcome(row: Row, settings: Settings) -> dict[str, Any]:
    """Return what became of a row, ready for JSON: its figures, or why there are none.

    ``status`` is "measured", "not measured" or "failed"; the last two come with a ``reason``.
    """
    entry: dict[str, Any] = {"name": row.name, "what": row.what, "goal": row.goal}
    try:
        figures = asdict(row.measure(settings))
    except NotMeasured as reason:
        return entry | {"status": "not measured", "reason": str(reason)}
    except Exception as error:  # whatever it is, the rest of the table goes on
        return entry | {"status": "failed", "reason": one_line(f"{type(error).__name__}: {error}")}
    if settings.quick:
        figures["reached"] = None  # rates of a smoke test mean nothing
    return entry | {"status": "measured", **figures}


def one_line(text: str) -> str:
    """Return the last line that says something, for a cell of a table, without folders.

    The report of another process ends with its error; before that come where and how. Folders of
    this machine mean nothing to others.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "no reason was given"
    return FOLDERS.sub("", re.sub(r"\s+", " ", lines[-1]))
