"""What became of the units of a run: states, the table at the end, and the exit."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from astri_gpu.errors import AstriError, PartialFailure

__all__ = ["Outcome", "UnitResult", "counted", "print_table"]

ROWS = 40  # of the table; more units that went well are counted only
DONE, BEFORE, BUSY, FAILED = "done", "finished before", "busy", "failed"

S = TypeVar("S")


@dataclass(frozen=True)
class UnitResult:
    """What became of one unit: `state` is "done", "finished before", "busy" or "failed"."""

    name: str
    state: str
    seconds: float = 0.0
    summary: Any = None
    """What the work returned, for "done"."""
    error: AstriError | None = None
    """Why not, for "busy" (another run is writing it) and "failed"."""

    @property
    def n_images(self) -> int | None:
        """Return the images of the unit where its summary counts them."""
        return getattr(self.summary, "n_images", None)


@dataclass(frozen=True)
class Outcome:
    """What became of all units, in their order."""

    stage: str
    results: tuple[UnitResult, ...]
    outputs: tuple[Path, ...]
    noun: str = "input"

    @property
    def done(self) -> list[Any]:
        """Return the summaries of the units that were done now."""
        return [result.summary for result in self.results if result.state == DONE]

    @property
    def n_before(self) -> int:
        """Return the number of units that an earlier run had finished."""
        return sum(result.state == BEFORE for result in self.results)

    def finish(self, summary: S) -> S:
        """Return `summary`, or raise if units are missing.

        Raises
        ------
        AstriError
            When all failed.
        PartialFailure
            When some failed, or are being written by another run, and the others are done.
        """
        failed = [result for result in self.results if result.state == FAILED]
        busy = [result for result in self.results if result.state == BUSY]
        if not failed and not busy:
            return summary
        n_units = len(self.results)
        texts = []
        if failed:
            texts.append(
                f"{len(failed)} of {n_units} {self.noun}s failed, the first because: "
                f"{failed[0].error}"
            )
        if len(failed) == n_units:
            raise AstriError(texts[0])
        if busy:
            texts.append(
                f"{counted(len(busy), self.noun)} of {n_units} left to another run that is "
                f"writing {'it' if len(busy) == 1 else 'them'}."
            )
        raise PartialFailure(
            f"{' '.join(texts)} The others are done; {getattr(summary, 'line', '')}."
        )


def counted(number: int, what: str) -> str:
    """Return a number with its noun, "1 event" or "2 events"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def print_table(stage: str, results: Sequence[UnitResult], noun: str, n_units: int) -> None:
    """Print what became of several units on stderr, those that went wrong last.

    Parameters
    ----------
    stage, noun
        What was done, and what one unit is called.
    results
        Of the units that were begun.
    n_units
        All units.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    wrong = [result for result in results if result.state in (FAILED, BUSY)]
    well = [result for result in results if result.state in (DONE, BEFORE)]
    states = [result.state for result in results]
    numbers = {state: states.count(state) for state in (DONE, BEFORE, BUSY, FAILED)}
    numbers["not begun"] = n_units - len(results)
    counts = ", ".join(f"{number} {state}" for state, number in numbers.items() if number)
    table = Table(title=Text(f"{stage}: {counted(n_units, noun)}, {counts}"))
    for column, side in (("", "left"), ("state", "left"), ("images", "right"), ("s", "right")):
        table.add_column(column or noun, justify=side)  # type: ignore[arg-type]
    table.add_column("reason", overflow="fold")
    shown = well if len(well) <= ROWS else well[: ROWS - 1]
    for result in (*shown, *wrong):
        images = "" if result.n_images is None else f"{result.n_images:,}"
        seconds = f"{result.seconds:.1f}" if result.state != BEFORE else ""
        reason = str(result.error or "")
        table.add_row(*map(Text, (result.name, result.state, images, seconds, reason)))
    if len(shown) < len(well):
        table.add_row(Text(f"({len(well) - len(shown)} more units that are done)"))
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    console.print(table)
