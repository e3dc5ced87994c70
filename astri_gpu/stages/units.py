"""What stages over several units share: which inputs, which outputs, what is left to do, and how.

The unit of work is one input, or one part of a production; its output appears whole or not at all.
A run that was killed is continued by the same command: units that are finished are left as they
are. Who works on them, `config.execution` says: this process, several, or workers of Dask.
"""

import glob
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from astri_gpu.errors import AstriError, OutputBusy, UsageError, sentence
from astri_gpu.execution import Results, WorkerDied, plan_workers, run_in_processes
from astri_gpu.progress import Progress, progress
from astri_gpu.stages.finished import is_finished, stored_provenance
from astri_gpu.stages.outcome import (
    BEFORE,
    BUSY,
    DONE,
    FAILED,
    Outcome,
    UnitResult,
    counted,
    print_table,
)

__all__ = [
    "Outcome",
    "Unit",
    "counted",
    "file_units",
    "find_inputs",
    "image_total",
    "output_names",
    "run_units",
]

logger = logging.getLogger(__name__)

FITS_LEVELS = (".lv1b", ".lv1c", ".lv2a", ".lv2b")  # of A-SciSoft
SUFFIXES = (".gz", ".zst", ".simtel", ".zarr", ".h5", ".fits", *FITS_LEVELS)
Work = Callable[[Any, Path, Any, Progress | None], Any]
Recorded = Callable[[Path], Mapping[str, Any]]


@dataclass(frozen=True)
class Unit:
    """One piece of work: what it reads (None: nothing), what it writes, and its configuration."""

    input: Path | None
    output: Path
    config: Any

    @property
    def name(self) -> str:
        """Return the name of its input, or of its output where it has none."""
        return (self.input or self.output).name


def find_inputs(patterns: Sequence[str]) -> list[Path]:
    """Return the files that names and patterns stand for, patterns sorted, no file twice.

    Raises
    ------
    UsageError
        When a name or pattern matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if Path(pattern).exists():
            found[Path(pattern)] = None
            continue
        matches = sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise UsageError(f"No file matches the input '{pattern}': check the name.")
        found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def image_total(inputs: Sequence[Path]) -> int | None:
    """Return the images of a single input store, for the progress bar; None if nobody knows.

    Raises
    ------
    AstriError
        When it is no store.
    """
    from astri_gpu.store import open_store

    if len(inputs) > 1:
        return None
    total: int | None = open_store(inputs[0]).attrs.get("n_images")
    return total


def output_names(inputs: Sequence[Path], output: Path, suffix: str = ".zarr") -> list[Path]:
    """Return the output of each input: `output` itself for one, ``output/<stem>.zarr`` for several.

    Raises
    ------
    UsageError
        When two inputs would get the same output, or `output` cannot be a directory for them.
    """
    if len(inputs) == 1:
        return [output]
    if (output / "zarr.json").exists() or output.is_file():
        raise UsageError(
            f"The output {output} of {len(inputs)} inputs has to be a directory for stores, but "
            "it is a store or a file: choose another output."
        )
    names: dict[str, Path] = {}
    for path in inputs:
        stem = path.name
        for ending in SUFFIXES:
            stem = stem.removesuffix(ending)
        if stem in names:
            raise UsageError(
                f"The inputs {names[stem]} and {path} would both become {output / stem}{suffix}: "
                "give them two outputs."
            )
        names[stem] = path
    return [output / f"{stem}{suffix}" for stem in names]


def file_units(
    inputs: Sequence[Path], output: Path, config: Any, suffix: str = ".zarr"
) -> list[Unit]:
    """Return one unit per input, all with the same configuration (see `output_names`)."""
    return [
        Unit(path, store, config)
        for path, store in zip(inputs, output_names(inputs, output, suffix), strict=True)
    ]


@dataclass(frozen=True)
class _Task:
    """A unit with everything that a worker has to know."""

    stage: str
    unit: Unit
    work: Work
    recorded: Recorded
    ignored: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Return whether an earlier run has finished the unit (see `is_finished`)."""
        unit = self.unit
        return not unit.config.overwrite and is_finished(
            self.stage, unit.input, unit.output, unit.config, self.recorded, self.ignored
        )


def run_units(
    stage: str,
    units: Sequence[Unit],
    work: Work,
    config: Any,
    *,
    unit: str = "images",
    total: int | None = None,
    per_core: bool = False,
    recorded: Recorded = stored_provenance,
    ignored: Sequence[str] = (),
) -> Outcome:
    """Do `work` for every unit and return what became of them.

    Parameters
    ----------
    stage
        Name of the stage, for messages and provenance.
    units
        What is to be done; those that an earlier run has finished are left as they are.
    work
        Function (input, output, config, progress or None) -> summary, importable because it may
        run in another process. The summary may have `n_images` and `warnings`.
    config
        Of the stage; its `execution`, `overwrite`, `on_error`, `progress` and `debug` are looked
        at.
    unit, total
        What the progress display of a single process counts, and how many there are.
    per_core
        Whether the work keeps one core busy and no more (see `plan_workers`).
    recorded
        Function from a finished output to its provenance.
    ignored
        Dotted names of options that may differ from those of a finished output.

    Raises
    ------
    UsageError
        When an output exists that was made from something else or with other options.
    AstriError
        From the first unit that fails, unless ``on_error`` is "skip" and there are several. Units
        that were running then are finished, further ones are not started.
    """
    tasks = [_Task(stage, item, work, recorded, tuple(ignored)) for item in units]
    results = {
        index: UnitResult(task.unit.name, BEFORE)
        for index, task in enumerate(tasks)
        if task.finished
    }
    todo = [index for index in range(len(tasks)) if index not in results]
    if results:
        logger.info("%d of %d units are done already", len(results), len(tasks))
    noun = "part" if units[0].input is None else "input"
    if todo:
        run = _Run(stage, config, noun, len(tasks), unit, total, per_core)
        for place, result in run.results([tasks[index] for index in todo]):
            index = todo[place]
            if result.state == BUSY and tasks[index].finished:
                result = replace(result, state=BEFORE, error=None)  # by the other run, meanwhile
            results[index] = result
    ordered = tuple(results[index] for index in sorted(results))
    if len(tasks) > 1 and todo:
        print_table(stage, ordered, noun, len(tasks))
    failed = [result for result in results.values() if result.state == FAILED]
    if failed and getattr(config, "on_error", "stop") != "skip":
        assert failed[0].error is not None
        raise failed[0].error
    return Outcome(stage, ordered, tuple(item.output for item in units), noun)


class _Run:
    """The units that are left to do, on the way."""

    def __init__(
        self,
        stage: str,
        config: Any,
        noun: str,
        n_units: int,
        unit: str,
        total: int | None,
        per_core: bool,
    ) -> None:
        self._stage, self._config, self._noun = stage, config, noun
        self._alone = n_units == 1
        self._unit, self._total, self._per_core = unit, total, per_core
        self._skip = getattr(config, "on_error", "stop") == "skip"
        self._stopped = False

    def results(self, tasks: Sequence[_Task]) -> Iterable[tuple[int, UnitResult]]:
        """Yield the number and the result of each task as they come, and tell of failures."""
        execution = self._config.execution
        backend = getattr(self._config, "backend", None)
        workers = plan_workers(
            execution,
            len(tasks),
            backend=backend.name if backend else None,
            per_core=self._per_core,
        )
        if execution.engine == "local" and workers.number == 1 and not workers.threads:
            yield from self._here(tasks)
            return
        with progress(len(tasks), self._stage, f"{self._noun}s", self._config.progress) as shown:
            outcomes: Results[UnitResult]
            if execution.engine == "dask":
                from astri_gpu.execution_dask import run_on_dask

                outcomes = run_on_dask(
                    _attempt_with_threads,
                    tasks,
                    execution,
                    workers,
                    stopped=lambda: self._stopped,
                    tell=self._tell,
                )
            else:
                tasks = [_with_threads(task, workers.threads) for task in tasks]
                outcomes = run_in_processes(
                    _attempt,
                    tasks,
                    workers,
                    retries=execution.retries,
                    stopped=lambda: self._stopped,
                    debug=self._config.debug,
                )
            started, n_images = time.monotonic(), 0
            for place, outcome in outcomes:
                result = (
                    outcome
                    if isinstance(outcome, UnitResult)
                    else _failure(tasks[place].unit, outcome, self._config.debug)
                )
                n_images += result.n_images or 0
                rate = n_images / max(time.monotonic() - started, 1e-9)
                shown.note(f"{rate:,.0f} images/s" if n_images else tasks[place].unit.name)
                shown.advance(1)
                self._report(result)
                yield place, result

    def _here(self, tasks: Sequence[_Task]) -> Iterable[tuple[int, UnitResult]]:
        """Work on one unit after the other in this process."""
        with progress(self._total, self._stage, self._unit, self._config.progress) as shown:
            for place, task in enumerate(tasks):
                if self._stopped:
                    return
                shown.note(task.unit.name)
                if self._alone:
                    # Its exceptions are those of the run.
                    summary = task.work(task.unit.input, task.unit.output, task.unit.config, shown)
                    result = UnitResult(task.unit.name, DONE, summary=summary)
                else:
                    try:
                        result = _attempt(task, shown)
                    except MemoryError as error:
                        result = _failure(task.unit, error, self._config.debug)
                self._report(result)
                yield place, result

    def _report(self, result: UnitResult) -> None:
        """Log warnings and failures when they happen; stop at a failure if so wished."""
        for text in getattr(result.summary, "warnings", ()):
            logger.warning("%s", text)
        if result.state == FAILED:
            self._stopped = not self._skip
            if self._skip and not self._alone:
                logger.warning("%s", result.error)
        elif result.state == BUSY:
            logger.warning("%s", result.error)

    def _tell(self, text: str) -> None:
        if self._config.progress is not False:
            print(f"astri-gpu {self._stage}: {text}", file=sys.stderr, flush=True)


def _with_threads(task: _Task, threads: int) -> _Task:
    """Return the task with the threads of its worker in the options of its backend."""
    config: Any = task.unit.config
    backend: Any = getattr(config, "backend", None)
    if not threads or backend is None or backend.threads:
        return task
    config = replace(config, backend=replace(backend, threads=threads))
    return replace(task, unit=replace(task.unit, config=config))


def _attempt_with_threads(task: _Task, threads: int) -> UnitResult:
    """Return what became of a task in a worker that has found out what it may use."""
    return _attempt(_with_threads(task, threads))


def _attempt(task: _Task, shown: Progress | None = None) -> UnitResult:
    """Return what became of a task; only a lack of memory is left to the caller, who may wait."""
    unit, started = task.unit, time.perf_counter()
    try:
        # Another run over the same units may have finished it since this one began.
        if task.finished:
            return UnitResult(unit.name, BEFORE)
        summary = task.work(unit.input, unit.output, unit.config, shown)
    except MemoryError:
        raise
    except OutputBusy as error:
        return UnitResult(unit.name, BUSY, time.perf_counter() - started, error=error)
    except Exception as error:
        if isinstance(error, UsageError) and _finished_meanwhile(task):
            return UnitResult(unit.name, BEFORE)
        if unit.config.debug:
            traceback.print_exc()
        return replace(
            _failure(unit, error, unit.config.debug), seconds=time.perf_counter() - started
        )
    return UnitResult(unit.name, DONE, time.perf_counter() - started, summary)


def _finished_meanwhile(task: _Task) -> bool:
    try:
        return task.finished
    except AstriError:
        return False


def _failure(unit: Unit, error: Exception, debug: bool) -> UnitResult:
    """Return the result of a unit that failed, with an error that can go between processes."""
    if not isinstance(error, AstriError) or isinstance(error, WorkerDied):
        error = AstriError(f"{unit.name}: {sentence(error, debug)}")
    return UnitResult(unit.name, FAILED, error=error)
