"""Progress of long work: a bar on a terminal, a plain line every ten seconds elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Progress", "progress"]

LINE_EVERY_S = 10.0


class Progress:
    """Counts the work done and shows nothing; the base of the two that show something."""

    def __init__(self, total: int | None, description: str, unit: str) -> None:
        self.total = total
        self.description = description
        self.unit = unit
        self.done = 0
        self._lock = threading.Lock()

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        with self._lock:
            self.done += n

    def note(self, text: str) -> None:
        """Show `text` beside the count, for example the name of the current file."""


class _Lines(Progress):
    """One line on stderr every `LINE_EVERY_S` seconds, for log files."""

    def __init__(self, total: int | None, description: str, unit: str) -> None:
        super().__init__(total, description, unit)
        self._text = ""
        self._start = self._last = time.monotonic()

    def advance(self, n: int = 1) -> None:
        super().advance(n)
        with self._lock:
            now = time.monotonic()
            if now - self._last < LINE_EVERY_S:
                return
            self._last = now
        print(self._line(now), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        self._text = text

    def _line(self, now: float) -> str:
        rate = self.done / max(now - self._start, 1e-9)
        line = f"{self.description}: {self.done}"
        if self.total:
            line += f" of {self.total} {self.unit} ({100 * self.done / self.total:.0f} %)"
        else:
            line += f" {self.unit}"
        line += f", {rate:.4g} {self.unit}/s"
        if self.total and rate > 0:
            line += f", {max(self.total - self.done, 0) / rate:.0f} s left"
        return f"{line}, {self._text}" if self._text else line


class _Bar(Progress):
    """A bar of rich with rate and time left."""

    def __init__(
        self, total: int | None, description: str, unit: str, bar: "RichProgress", task: "TaskID"
    ) -> None:
        super().__init__(total, description, unit)
        self._bar = bar
        self._task = task

    def advance(self, n: int = 1) -> None:
        super().advance(n)
        elapsed = self._bar.tasks[0].elapsed or 0.0
        rate = f"{self.done / elapsed:,.0f} {self.unit}/s" if elapsed > 0 else ""
        self._bar.update(self._task, advance=n, rate=rate)

    def note(self, text: str) -> None:
        self._bar.update(self._task, note=text)


@contextmanager
def progress(
    total: int | None, description: str, unit: str, enabled: bool | None = None
) -> Iterator[Progress]:
    """Return a context that shows how far the work is, on stderr.

    Parameters
    ----------
    total : int or None
        Units of work, None when nobody knows.
    description : str
        What is being done ("ingest").
    unit : str
        What is counted, plural ("images").
    enabled : bool or None
        False shows nothing; None and True show a bar on a terminal and a plain line every ten
        seconds elsewhere.
    """
    if enabled is False:
        yield Progress(total, description, unit)
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(description, total=total, rate="", note="")
            yield _Bar(total, description, unit, bar, task)
    else:
        yield _Lines(total, description, unit)
