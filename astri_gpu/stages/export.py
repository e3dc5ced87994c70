"""The stage `export`: processed stores to files that other packages read."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import UsageError
from astri_gpu.progress import Progress
from astri_gpu.stages.units import counted, file_units, find_inputs, image_total, run_units

if TYPE_CHECKING:
    from astri_gpu.config import ExportConfig
    from astri_gpu.io.ctapipe_export import ExportSummary

__all__ = ["Summary", "run"]

SUFFIX = ".h5"
HIGHEST = "highest"
Recorded = Callable[[Path], Mapping[str, Any]]


@dataclass(frozen=True)
class Summary:
    """What an export did; `line` is the summary for the terminal.

    `n_done` stores were written now, `n_before` had been finished by an earlier run.
    """

    n_done: int
    n_before: int
    n_events: int
    n_images: int
    n_left_out: int
    seconds: float
    outputs: tuple[Path, ...]
    warnings: tuple[str, ...]

    @property
    def line(self) -> str:
        """Return stores, events, images, seconds and images/s in one line."""
        if not self.n_done:
            return f"export: nothing to do, {counted(self.n_before, 'store')} done before"
        rate = self.n_images / self.seconds if self.seconds > 0 else 0.0
        before = f" ({self.n_before} more were done before)" if self.n_before else ""
        left = (
            f" ({counted(self.n_left_out, 'calibration event')} left out)"
            if self.n_left_out
            else ""
        )
        return (
            f"export: {counted(self.n_done, 'store')}{before}, "
            f"{counted(self.n_events, 'event')}{left}, {counted(self.n_images, 'image')} in "
            f"{self.seconds:.1f} s ({rate:,.0f} images/s)"
        )


def run(config: "ExportConfig") -> Summary:
    """Export every input and return what was done.

    One input is written to the file `output`; several are written into the directory `output`, as
    `config.execution` says. Files that are complete already are left as they are.

    Raises
    ------
    UsageError
        For options that do not fit, or an existing output that was made from something else or
        with other options.
    AstriError
        When PyTables is not installed, for the first bad store with on_error "stop", or when no
        store could be exported.
    PartialFailure
        With on_error "skip", at the end, when some stores failed and the others are done.
    """
    started = time.perf_counter()
    inputs = find_inputs(config.inputs())
    suffix, recorded = _format(config, inputs)
    outcome = run_units(
        "export",
        file_units(inputs, Path(config.output), config, suffix=suffix),
        _export,
        config,
        total=image_total(inputs),
        per_core=True,
        recorded=recorded,
    )
    done: list[ExportSummary] = outcome.done
    return outcome.finish(
        Summary(
            n_done=len(done),
            n_before=outcome.n_before,
            n_events=sum(part.n_events for part in done),
            n_images=sum(part.n_images for part in done),
            n_left_out=sum(part.n_left_out for part in done),
            seconds=time.perf_counter() - started,
            outputs=outcome.outputs,
            warnings=tuple(text for part in done for text in part.warnings),
        )
    )


def _format(config: "ExportConfig", inputs: Sequence[Path]) -> tuple[str, Recorded]:
    """Return how the names of outputs end, and what finds their provenance; check the options."""
    if config.format == "ctapipe":
        from astri_gpu.io.ctapipe_export_file import import_tables, recorded_provenance

        import_tables()  # its absence is one sentence, not one for every input
        if config.level != HIGHEST:
            raise UsageError(f"level={config.level} belongs to format=astri: leave it out.")
        return SUFFIX, recorded_provenance
    from astri_gpu.io import astri_fits_export, astri_fits_reader
    from astri_gpu.store import open_store

    if config.images:
        raise UsageError("FITS files of these levels have no pixels: leave out images=true.")
    levels = {config.level}
    if config.level == HIGHEST:
        levels = {astri_fits_export.highest_level(open_store(path)) for path in inputs}
    if len(levels) > 1:
        raise UsageError(
            f"The inputs have different highest levels ({', '.join(sorted(levels))}): "
            "choose one by level=."
        )
    return astri_fits_export.suffix(levels.pop()), astri_fits_reader.recorded_provenance


def _export(
    path: Path | None, output: Path, config: "ExportConfig", shown: Progress | None
) -> "ExportSummary":
    """Export one store."""
    assert path is not None  # every unit of this stage has an input
    if config.format == "astri":
        from astri_gpu.io.astri_fits_export import export_astri

        return export_astri(
            path,
            output,
            level=None if config.level == HIGHEST else config.level,
            overwrite=config.overwrite,
            config=asdict(config),
            shown=shown,
        )
    from astri_gpu.io.ctapipe_export import export_store

    return export_store(
        path,
        output,
        images=config.images,
        overwrite=config.overwrite,
        config=asdict(config),
        shown=shown,
    )
