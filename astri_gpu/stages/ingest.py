"""The stage `ingest`: files of sim_telarray, ctapipe, A-SciSoft and runs (DL0 FITS) to stores."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.errors import UsageError
from astri_gpu.options import path_list
from astri_gpu.progress import Progress
from astri_gpu.stages.units import counted, file_units, find_inputs, run_units

if TYPE_CHECKING:
    from astri_gpu.config import IngestConfig
    from astri_gpu.io.simtel import IngestSummary

__all__ = ["Summary", "run"]

DL0_FITS = "dl0_fits"


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
    facts: Mapping[str, str] = field(default_factory=dict)
    """Of the only run that was read."""

    @property
    def line(self) -> str:
        """Return files, events, images, seconds and images/s in one line."""
        if not self.n_done:
            return f"ingest: nothing to do, {counted(self.n_before, 'file')} done before"
        rate = self.n_images / self.seconds if self.seconds > 0 else 0.0
        before = f" ({self.n_before} more were done before)" if self.n_before else ""
        return (
            f"ingest: {counted(self.n_done, 'file')}{before}, {counted(self.n_events, 'event')}, "
            f"{counted(self.n_images, 'image')} in {self.seconds:.1f} s "
            f"({rate:,.0f} images/s)"
        )


def run(config: "IngestConfig") -> Summary:
    """Ingest every input and return what was done.

    One input is written to `output`; several are written into the directory `output`, as
    `config.execution` says. Stores that are complete already are left as they are.

    Raises
    ------
    UsageError
        For options that do not fit, or an existing output that was made from something else or
        with other options.
    AstriError
        For the first bad file with on_error "stop" or "keep", or when no file could be read.
    PartialFailure
        With on_error "skip", at the end, when some files failed and the others are done.
    """
    started = time.perf_counter()
    inputs = find_inputs(config.inputs())
    if len(inputs) > 1 and config.obs_id is not None:
        raise UsageError(
            f"obs_id={config.obs_id} would be given to {len(inputs)} files, so that event numbers "
            "repeat: ingest them one by one or leave obs_id out."
        )
    if config.format == DL0_FITS:
        _check_run_options(config, len(inputs))
    outcome = run_units(
        "ingest",
        file_units(inputs, Path(config.output), config),
        _ingest,
        config,
        per_core=True,
    )
    done: list[IngestSummary] = outcome.done
    return outcome.finish(
        Summary(
            n_done=len(done),
            n_before=outcome.n_before,
            n_events=sum(part.n_events for part in done),
            n_images=sum(part.n_images for part in done),
            seconds=time.perf_counter() - started,
            outputs=outcome.outputs,
            warnings=tuple(text for part in done for text in part.warnings),
            facts=done[0].facts if len(done) == 1 else {},
        )
    )


def _check_run_options(config: "IngestConfig", n_inputs: int) -> None:
    """Refuse files of one run for several, and those that are not there."""
    given = {"events": config.events, "constants": config.constants}
    for name, value in given.items():
        if value is None:
            continue
        if n_inputs > 1:
            raise UsageError(
                f"{name} belongs to one run and there are {n_inputs} inputs: ingest them one by "
                "one, or put the files of each run into its folder and leave the option out."
            )
        for path in path_list(value, name):
            if not Path(path).is_file():
                raise UsageError(f"{name}={path} is no file: check the name.")


def _ingest(
    path: Path, output: Path, config: "IngestConfig", shown: Progress | None
) -> "IngestSummary":
    """Ingest one file, of sim_telarray or, known by its first bytes, of ctapipe or A-SciSoft.

    With format=dl0_fits the input is the folder of a run.
    """
    from astri_gpu.io.astri_fits_reader import is_fits
    from astri_gpu.io.ctapipe_import_file import is_hdf5
    from astri_gpu.io.simtel import IngestOptions, ingest_file

    options = IngestOptions(
        calibration_events=config.keep_calibration_events,
        true_images=config.true_images,
        on_error="keep" if config.on_error == "keep" else "stop",
        allowed_telescopes=tuple(config.allowed_telescopes),
        max_events=config.max_events,
        images_per_chunk=config.images_per_chunk,
        overwrite=config.overwrite,
        obs_id=config.obs_id,
    )
    if config.format == DL0_FITS:
        from astri_gpu.io.dl0_fits import Dl0Options, ingest_dl0

        given = Dl0Options(
            events=config.events,
            constants=() if config.constants is None else tuple(path_list(config.constants)),
            saturation_adc=config.saturation_adc,
            min_telescopes=config.min_telescopes,
        )
        return ingest_dl0(path, output, options, shown, asdict(config), given)
    if is_hdf5(path):
        from astri_gpu.io.ctapipe_import import ingest_ctapipe

        return ingest_ctapipe(path, output, options, shown, asdict(config), config.geometry)
    if is_fits(path):
        from astri_gpu.io.astri_fits_import import ingest_astri

        return ingest_astri(path, output, options, shown, asdict(config))
    return ingest_file(path, output, options, shown, asdict(config))
