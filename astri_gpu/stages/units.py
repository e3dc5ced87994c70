"""What stages over several inputs share: which files, which outputs, what is left to do, and how.

The unit of work is one input; its output appears whole or not at all. A run that was killed is
continued by the same command: units that are finished are left as they are.
"""

import glob
import logging
import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from astri_gpu.errors import AstriError, PartialFailure, UsageError
from astri_gpu.progress import Progress, progress

__all__ = ["Outcome", "counted", "find_inputs", "output_names", "run_units"]

logger = logging.getLogger(__name__)

SUFFIXES = (".gz", ".zst", ".simtel", ".zarr")
Todo = Sequence[tuple[Path, Path]]
Work = Callable[[Path, Path, Any, Progress | None], Any]
S = TypeVar("S")


@dataclass(frozen=True)
class Outcome:
    """What became of the units: results of those done now, how many were done before, failures."""

    stage: str
    done: list[Any]
    n_before: int
    failed: list[str]
    outputs: tuple[Path, ...]

    def finish(self, summary: S) -> S:
        """Return `summary`, or raise if units failed.

        Raises
        ------
        AstriError
            When all failed.
        PartialFailure
            When some failed and the others are done.
        """
        if not self.failed:
            return summary
        n_units = len(self.done) + self.n_before + len(self.failed)
        text = f"{len(self.failed)} of {n_units} inputs failed, the first because: {self.failed[0]}"
        if len(self.failed) == n_units:
            raise AstriError(text)
        raise PartialFailure(f"{text} The others are done; {getattr(summary, 'line', '')}.")


def counted(number: int, what: str) -> str:
    """Return a number with its noun, "1 event" or "2 events"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


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


def output_names(inputs: Sequence[Path], output: Path) -> list[Path]:
    """Return the store of each input: `output` itself for one, ``output/<stem>.zarr`` for several.

    Raises
    ------
    UsageError
        When two inputs would get the same store, or `output` cannot be a directory of stores.
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
        for suffix in SUFFIXES:
            stem = stem.removesuffix(suffix)
        if stem in names:
            raise UsageError(
                f"The inputs {names[stem]} and {path} would both become {output / stem}.zarr: "
                "give them two outputs."
            )
        names[stem] = path
    return [output / f"{stem}.zarr" for stem in names]


def run_units(
    stage: str,
    inputs: Sequence[Path],
    output: Path,
    work: Work,
    config: Any,
    *,
    n_workers: int,
    unit: str,
    total: int | None = None,
) -> Outcome:
    """Do `work` for every input and return what became of it.

    Parameters
    ----------
    stage
        Name of the stage, for messages and provenance.
    inputs, output
        See `output_names`.
    work
        Function (input, output, config, progress or None) -> summary with an attribute
        `warnings`; importable, because it may run in another process.
    config
        Of the stage; its `overwrite`, `on_error` and `progress` are looked at.
    n_workers
        Processes over the inputs, 0 = all cores.
    unit, total
        What the progress display of a single process counts, and how many there are.

    Raises
    ------
    UsageError
        When an output exists that was made from something else.
    AstriError
        From the first unit that fails, unless ``on_error`` is "skip" and there are several.
    """
    outputs = output_names(inputs, output)
    todo = list(zip(inputs, outputs, strict=True))
    if len(inputs) > 1 and not config.overwrite:
        todo = [(path, store) for path, store in todo if not _finished(stage, path, store)]
    n_before = len(inputs) - len(todo)
    if n_before:
        logger.info("%d of %d inputs are done already", n_before, len(inputs))
    done: list[Any] = []
    failed: list[str] = []
    n_workers = min(n_workers or os.cpu_count() or 1, len(todo))
    results = (
        _here(stage, todo, work, config, unit, total)
        if n_workers <= 1
        else _in_processes(stage, todo, work, config, n_workers)
    )
    with closing(results):
        for result in results:
            if isinstance(result, AstriError):
                if config.on_error != "skip" or len(inputs) == 1:
                    raise result
                logger.warning("%s", result)
                failed.append(str(result))
            else:
                done.append(result)
                for text in result.warnings:
                    logger.warning("%s", text)
    return Outcome(stage, done, n_before, failed, tuple(outputs))


def _finished(stage: str, path: Path, store: Path) -> bool:
    """Return whether an earlier run of this stage made this store from this input."""
    from astri_gpu.store import open_store

    if not store.exists():
        return False
    record = open_store(store).attrs.get("provenance") or {}
    made_from = [Path(entry["path"]).name for entry in record.get("inputs", [])]
    if record.get("stage") != stage or made_from != [path.name]:
        raise UsageError(
            f"The store {store} was made by {record.get('stage')} from "
            f"{', '.join(made_from) or 'something else'}, not by {stage} from {path.name}: choose "
            "another output or set overwrite=true."
        )
    return True


Results = Generator[Any, None, None]


def _here(stage: str, todo: Todo, work: Work, config: Any, unit: str, total: int | None) -> Results:
    """Work on one input after the other in this process."""
    with progress(total, stage, unit, config.progress) as shown:
        for path, store in todo:
            shown.note(path.name)
            try:
                yield work(path, store, config, shown)
            except AstriError as error:
                yield error


def _in_processes(stage: str, todo: Todo, work: Work, config: Any, n_workers: int) -> Results:
    """Work on several inputs at a time, each in a process of its own."""
    with (
        progress(len(todo), stage, "inputs", config.progress) as shown,
        _pool(n_workers) as pool,
    ):
        futures: dict[Future[Any], Path] = {
            pool.submit(work, path, store, config, None): path for path, store in todo
        }
        for future in as_completed(futures):
            path = futures[future]
            shown.note(path.name)
            try:
                result = future.result()
            except AstriError as error:
                result = error
            except BrokenProcessPool as error:
                raise AstriError(
                    f"A worker process died while {path} was read (is the memory used up?): set "
                    "n_workers to a smaller number and run again, finished inputs are skipped."
                ) from error
            shown.advance(1)
            yield result


@contextmanager
def _pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Return a pool of fresh processes (forked ones inherit threads that no longer run)."""
    pool = ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        # After an error the inputs that were not begun are left for the next run.
        pool.shutdown(wait=True, cancel_futures=True)
