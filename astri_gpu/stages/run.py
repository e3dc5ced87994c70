"""The stage `run`: a chain of stages in one folder, that goes on where it was stopped."""

import fcntl
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.errors import AstriError, OutputBusy, UsageError, sentence
from astri_gpu.pipeline import (
    DONE,
    FAILED,
    RECORD,
    STALE,
    Entry,
    Step,
    make_steps,
    read_record,
    write_record,
)
from astri_gpu.pipeline_page import PAGE, write_page
from astri_gpu.stages.outcome import counted

if TYPE_CHECKING:
    from astri_gpu.config import RunConfig

__all__ = ["Summary", "run"]

# Stages that leave alone what is finished of their output, and do the rest.
RESUMING = ("simulate", "preprocess", "ingest", "process", "reconstruct")
# Stages whose output is for people, not for the next step.
PRODUCTS = ("optimize", "irf", "select", "science", "report", "sweep-report", "export")
PIPE_WIDTH = 120  # characters where there is no terminal
N_WARNINGS = 50  # of a step that are recorded


@dataclass(frozen=True)
class Summary:
    """What was done; `entries` are those of the record, one per step."""

    folder: Path
    entries: tuple[Entry, ...]
    n_done: int
    n_before: int
    n_left: int
    seconds: float

    @property
    def line(self) -> str:
        """Return steps and seconds in one line."""
        before = f", {self.n_before} done before" if self.n_before else ""
        left = f", {self.n_left} left" if self.n_left else ""
        return (
            f"run: {counted(self.n_done, 'step')}{before}{left}, in {self.seconds:.1f} s: "
            f"{self.folder}"
        )


def run(config: "RunConfig") -> Summary | None:
    """Do the steps of a pipeline that an earlier run of it has not done.

    After each step `run.json` says what it was, its options (as a checksum), seconds, summary line,
    warnings and outputs, and `run.html` shows it (of summaries that have `facts`, a mapping of
    names to texts, as key numbers). A step is left out when the record says that it is done, with
    the same options, and its outputs are there.

    Returns
    -------
    Summary or None
        None for a dry run, which only prints the steps.

    Raises
    ------
    UsageError
        For steps that cannot be; when steps that are done have changed, or have lost their
        outputs, and overwrite is not set; when the folder holds something else.
    AstriError
        When a step fails.
    """
    clock = time.perf_counter()
    folder = Path(config.output)
    chain = config.pipeline
    steps = make_steps(chain.steps, chain.values, folder, chain.files)
    entries = read_record(folder)
    n_wanted = _last(steps, config.until)
    first = _first_to_do(steps, entries, folder, config.overwrite)
    if config.dry_run:
        _announce(steps, first, n_wanted)
        return None
    with _alone(folder):
        if len(entries) > first and entries[first].done:
            for entry in entries[first:]:
                entry.state, entry.replaces = STALE, True
        for step in steps[first:n_wanted]:
            print(f"[{step.number}/{len(steps)}] astri-gpu {step.command}", flush=True)
            before = entries[step.number - 1] if len(entries) >= step.number else None
            entry = Entry(step.command, step.stage, step.digest)
            entry.replaces = before is not None and (
                before.replaces or before.digest != step.digest
            )
            entries[step.number - 1 : step.number] = [entry]
            write_record(folder, config.pipeline.title, entries)
            _set_up(step, config, begun=before is not None, replaces=entry.replaces)
            try:
                _do(step, entry, folder)
            except Exception as error:
                entry.state, entry.summary = FAILED, sentence(error, config.debug)
                raise AstriError(
                    f"step {step.number} of {len(steps)} ({step.stage}) failed: {entry.summary} "
                    f"[{counted(step.number - 1, 'step')} done; type the same command again to go "
                    "on with this one]"
                ) from error
            finally:
                _record(folder, config, entries, len(steps))
    done = entries[: max(n_wanted, first)]
    _show(steps, done, folder)
    return Summary(
        folder=folder,
        entries=tuple(done),
        n_done=max(0, n_wanted - first),
        n_before=min(first, n_wanted),
        n_left=len(steps) - max(n_wanted, first),
        seconds=time.perf_counter() - clock,
    )


def _record(folder: Path, config: "RunConfig", entries: Sequence[Entry], n_steps: int) -> None:
    """Write the record and the page of the run."""
    write_record(folder, config.pipeline.title, entries)
    write_page(folder, config.pipeline.title, entries, n_steps)


def _last(steps: Sequence[Step], until: str | None) -> int:
    """Return how many steps are wanted."""
    if until is None:
        return len(steps)
    text = str(until).strip()
    if text.isdigit():
        if not 1 <= int(text) <= len(steps):
            raise UsageError(f"until is {text}: the pipeline has the steps 1 to {len(steps)}")
        return int(text)
    numbers = [step.number for step in steps if step.stage == text]
    if not numbers:
        names = ", ".join(dict.fromkeys(step.stage for step in steps))
        raise UsageError(f"until is '{text}': give the number of a step, or one of {names}")
    return numbers[-1]


def _first_to_do(
    steps: Sequence[Step], entries: Sequence[Entry], folder: Path, overwrite: bool
) -> int:
    """Return how many steps are done and can stay."""
    for place, (step, entry) in enumerate(zip(steps, entries, strict=False)):
        if not entry.done:
            return place
        name = f"step {step.number} ({step.stage})"
        gone = [output for output in entry.outputs if not (folder / output).exists()]
        if entry.digest != step.digest:
            what = f"{name} was done as '{entry.command}' and is now '{step.command}'"
            if entry.command == step.command:
                what = f"the defaults of {name} have changed since it was done"
        elif gone:
            what = f"the output {gone[0]} of {name} is gone"
            if not any(later.done for later in entries[place + 1 :]):
                return place
        else:
            continue
        if not overwrite:
            raise UsageError(
                f"{what}: choose another output, or set overwrite=true to do it and all steps "
                "behind it again."
            )
        return place
    return min(len(steps), len(entries))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A context in which no other run works in the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise AstriError(f"The output {folder} cannot be made ({error.strerror}).") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputBusy(
                f"Another run works in {folder} at this moment: wait for it or choose another "
                "output."
            ) from None
        yield
    finally:
        os.close(lock)


def _set_up(step: Step, config: "RunConfig", *, begun: bool, replaces: bool) -> None:
    """Give a step the options of the run, and leave to replace what was begun of it."""
    options = step.config
    for name in ("progress", "debug"):
        if hasattr(options, name) and f"{name}=" not in step.command:
            setattr(options, name, getattr(config, name))
    # A run that was killed between the output and its record has left the output behind.
    if hasattr(options, "overwrite") and (replaces or (begun and step.stage not in RESUMING)):
        options.overwrite = True


def _do(step: Step, entry: Entry, folder: Path) -> None:
    """Do a step and note what became of it."""
    started = time.perf_counter()
    module = import_module(f"astri_gpu.stages.{step.stage.replace('-', '_')}")
    with _heard() as heard:
        try:
            summary = module.run(step.config)
        finally:
            entry.seconds = round(time.perf_counter() - started, 3)
            entry.warnings = heard[:N_WARNINGS]
    told = [str(text) for text in getattr(summary, "warnings", None) or ()]
    entry.warnings = list(dict.fromkeys([*heard, *told]))[:N_WARNINGS]
    facts = getattr(summary, "facts", None) or {}
    entry.facts = {str(name): str(fact) for name, fact in facts.items()}
    line = getattr(summary, "line", None) or ""
    entry.summary = line.replace(f"{folder}/", "")
    if step.output is not None:
        try:
            entry.outputs = [str(step.output.relative_to(folder))]
        except ValueError:
            entry.outputs = [str(step.output)]
    entry.state, entry.replaces = DONE, False
    print(f"{entry.summary} [{entry.seconds:.1f} s]", flush=True)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """A context that gives the list of warnings that are logged in it."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("astri_gpu")
    logger.addHandler(handler)
    try:
        yield heard
    finally:
        logger.removeHandler(handler)


def _announce(steps: Sequence[Step], first: int, n_wanted: int) -> None:
    """Print the steps of a dry run."""
    for step in steps:
        state = "done" if step.number <= first else "to do"
        state = "left" if step.number > max(n_wanted, first) else state
        print(f"[{step.number}/{len(steps)}] {state:5}  astri-gpu {step.command}")


def _show(steps: Sequence[Step], entries: Sequence[Entry], folder: Path) -> None:
    """Print a table of the steps and what there is to look at."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{folder}: {len(entries)} of {counted(len(steps), 'step')} done"))
    table.add_column("", justify="right")
    table.add_column("step")
    table.add_column("s", justify="right")
    table.add_column("what came out", overflow="fold")
    for number, entry in enumerate(entries, start=1):
        *_, last = entry.summary.splitlines() or [""]  # the others have been seen
        what = last.removeprefix(f"{entry.stage}: ")
        words = (str(number), entry.stage, f"{entry.seconds:.1f}", what)
        table.add_row(*map(Text, words))
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(table)
    products = [
        str(folder / output)
        for entry in entries
        if entry.stage in PRODUCTS
        for output in entry.outputs
    ]
    if products:
        print("to look at: " + ", ".join(products))
    print(f"record: {folder / RECORD}, page: {folder / PAGE}", flush=True)
