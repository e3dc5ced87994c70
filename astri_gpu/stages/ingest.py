"""The stage `ingest`: sim_telarray files to DL0 stores, several files at a time."""

import glob
import logging
import multiprocessing
import os
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import AstriError, PartialFailure, UsageError
from astri_gpu.progress import Progress, progress

if TYPE_CHECKING:
    from astri_gpu.config import IngestConfig
    from astri_gpu.io.simtel import IngestOptions, IngestSummary

__all__ = ["Summary", "find_inputs", "output_names", "run"]

logger = logging.getLogger(__name__)

SUFFIXES = (".gz", ".zst", ".simtel")


@dataclass(frozen=True)
class Summary:
    """What an ingest did; `line` is the summary for the terminal.

    `n_done` files were read now, `n_before` had been finished by an earlier run.
    """

    n_done: int
    n_before: int
    n_events: int
    n_images: int
    seconds: float
    outputs: tuple[Path, ...]
    warnings: tuple[str, ...]

    @property
    def line(self) -> str:
        """Return files, events, images, seconds and images/s in one line."""
        rate = self.n_images / self.seconds if self.seconds > 0 else 0.0
        before = f" ({self.n_before} more were done before)" if self.n_before else ""
        return (
            f"ingest: {self.n_done} {'file' if self.n_done == 1 else 'files'}{before}, "
            f"{self.n_events} events, {self.n_images} images in {self.seconds:.1f} s "
            f"({rate:,.0f} images/s)"
        )


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
                "ingest them into two outputs."
            )
        names[stem] = path
    return [output / f"{stem}.zarr" for stem in names]


def run(config: "IngestConfig") -> Summary:
    """Ingest every input and return what was done.

    One input is written to `output`; several are written into the directory `output`, in parallel,
    and those whose store is complete already are left as they are.

    Raises
    ------
    UsageError
        For options that do not fit, or an existing output of a single input.
    AstriError
        For the first bad file with on_error "stop" or "keep", or when no file could be read.
    PartialFailure
        With on_error "skip", at the end, when some files failed and the others are done.
    """
    started = time.perf_counter()
    inputs = find_inputs(config.inputs())
    outputs = output_names(inputs, Path(config.output))
    if len(inputs) > 1 and config.obs_id is not None:
        raise UsageError(
            f"obs_id={config.obs_id} would be given to {len(inputs)} files, so that event numbers "
            "repeat: ingest them one by one or leave obs_id out."
        )
    todo = list(zip(inputs, outputs, strict=True))
    if len(inputs) > 1 and not config.overwrite:
        todo = [(path, store) for path, store in todo if not _finished(path, store)]
    n_before = len(inputs) - len(todo)
    if n_before:
        logger.info("%d of %d files are ingested already", n_before, len(inputs))

    done: list[IngestSummary] = []
    failed: list[str] = []
    n_workers = min(config.n_workers or os.cpu_count() or 1, len(todo))
    work = _here if n_workers <= 1 else _in_processes
    with closing(work(todo, config, n_workers)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, AstriError):
                if config.on_error != "skip" or len(inputs) == 1:
                    raise outcome
                logger.warning("%s", outcome)
                failed.append(str(outcome))
            else:
                done.append(outcome)
                for text in outcome.warnings:
                    logger.warning("%s", text)
    summary = Summary(
        n_done=len(done),
        n_before=n_before,
        n_events=sum(part.n_events for part in done),
        n_images=sum(part.n_images for part in done),
        seconds=time.perf_counter() - started,
        outputs=tuple(outputs),
        warnings=tuple(text for part in done for text in part.warnings),
    )
    if failed:
        text = f"{len(failed)} of {len(inputs)} files failed, the first because: {failed[0]}"
        if len(failed) == len(inputs):
            raise AstriError(text)
        raise PartialFailure(f"{text} The others are done; {summary.line}.")
    return summary


def _finished(path: Path, store: Path) -> bool:
    """Return whether an earlier run made this store from this file."""
    from astri_gpu.store import open_store

    if not store.exists():
        return False
    source = open_store(store).attrs.get("source")
    if source != path.name:
        raise UsageError(
            f"The store {store} was made from {source}, not from {path.name}: choose another "
            "output or set overwrite=true."
        )
    return True


def _options(config: "IngestConfig") -> "IngestOptions":
    from astri_gpu.io.simtel import IngestOptions

    return IngestOptions(
        calibration_events=config.calibration_events,
        true_images=config.true_images,
        on_error="keep" if config.on_error == "keep" else "stop",
        allowed_telescopes=tuple(config.allowed_telescopes),
        max_events=config.max_events,
        images_per_chunk=config.images_per_chunk,
        overwrite=config.overwrite,
        obs_id=config.obs_id,
    )


Todo = Sequence[tuple[Path, Path]]
Outcomes = Generator["IngestSummary | AstriError", None, None]


def _here(todo: Todo, config: "IngestConfig", n_workers: int) -> Outcomes:
    """Ingest one file after the other in this process."""
    from astri_gpu.io.simtel import ingest_file

    options, recorded = _options(config), asdict(config)
    with progress(None, "ingest", "images", config.progress) as shown:
        for path, store in todo:
            shown.note(path.name)
            try:
                yield ingest_file(path, store, options, shown, recorded)
            except AstriError as error:
                yield error


def _in_processes(todo: Todo, config: "IngestConfig", n_workers: int) -> Outcomes:
    """Ingest several files at a time, each in a process of its own."""
    from astri_gpu.io.simtel import ingest_file

    options, recorded = _options(config), asdict(config)
    with progress(len(todo), "ingest", "files", config.progress) as shown, _pool(n_workers) as pool:
        futures: dict[Future[Any], Path] = {
            pool.submit(ingest_file, path, store, options, None, recorded): path
            for path, store in todo
        }
        for future in as_completed(futures):
            shown.note(futures[future].name)
            yield _outcome(future, futures[future], shown)


def _outcome(future: "Future[Any]", path: Path, shown: Progress) -> "IngestSummary | AstriError":
    try:
        result: IngestSummary = future.result()
    except AstriError as error:
        return error
    except BrokenProcessPool as error:
        raise AstriError(
            f"A worker process died while {path} was read (is the memory used up?): set n_workers "
            "to a smaller number and run again, finished files are skipped."
        ) from error
    shown.advance(1)
    return result


@contextmanager
def _pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Return a pool of fresh processes (forked ones inherit threads that no longer run)."""
    pool = ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        # After an error the files that were not begun are left for the next run.
        pool.shutdown(wait=True, cancel_futures=True)
