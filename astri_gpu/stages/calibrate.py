"""The stage `calibrate`: interleaved calibration events of a run to camera constants (CAL1).

Beside them goes a picture of the run: the constants, and what housekeeping says, where it is there.
"""

import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.progress import Progress, progress
from astri_gpu.stages.units import counted, find_inputs

if TYPE_CHECKING:
    from astri_gpu.calibration.cal1_file import ConstantsSet
    from astri_gpu.config import CalibrateConfig
    from astri_gpu.dl0.files import Dl0File

__all__ = ["Summary", "picture_name", "run"]

logger = logging.getLogger(__name__)

KIND = "CAL"
ENDINGS = (".lv1a.fits", ".fits")
PASSES = 2


@dataclass(frozen=True)
class Summary:
    """What was calibrated; `line` is the summary for the terminal."""

    path: Path
    tel_ids: tuple[int, ...]
    n_sets: int
    n_pedestal: int
    n_flatfield: int
    bad_pixels: Mapping[int, int]
    """Telescope -> pixels that are dead or noisy in any of its sets."""
    gain: float
    """Counts per photo-electron of the high gain, median."""
    scale_error: float
    """Largest relative error that all pixels of a set have in common."""
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Return telescopes, events, pixels and seconds in one line."""
        return (
            f"calibrate: {self.path} has {counted(self.n_sets, 'set')} of constants of "
            f"{counted(len(self.tel_ids), 'telescope')} from {self.n_pedestal:,} pedestals and "
            f"{self.n_flatfield:,} flashes, {self.gain:.3g} counts per p.e., "
            f"{counted(sum(self.bad_pixels.values()), 'bad pixel')} ({self.seconds:.1f} s)"
        )

    @property
    def facts(self) -> dict[str, str]:
        """Return key numbers in words."""
        return {
            "calibration events": f"{self.n_pedestal:,} pedestals, {self.n_flatfield:,} flashes",
            "counts per p.e.": f"{self.gain:.4g} (scale ± {100 * self.scale_error:.2g} %)",
            "bad pixels": ", ".join(f"{n} of {tel}" for tel, n in self.bad_pixels.items() if n)
            or "none",
        }


def run(config: "CalibrateConfig") -> Summary:
    """Measure the constants of all telescopes of a run; the file appears whole or not at all.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced, or no file matches the input.
    AstriError
        When there are no files of calibration events, they are of different runs, a telescope has
        too few events or levels of light (with on_error "skip": all of them), or the disk takes no
        more.
    """
    from astri_gpu.calibration.cal1_file import write_cal1
    from astri_gpu.dl0.files import find_dl0
    from astri_gpu.dl0.header import array_cards
    from astri_gpu.lineage.cards import step_cards
    from astri_gpu.provenance import now, provenance

    started, clock = now(), time.perf_counter()
    if Path(config.output).exists() and not config.overwrite:  # before the work, not behind it
        raise UsageError(
            f"The output {config.output} exists already: choose another output or set "
            "overwrite=true."
        )
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(f) for f in find_dl0(find_inputs(config.inputs()), KIND)]
        warnings = _absent(files)
        n_events = sum(file.table.n_rows for file in files)
        shown = stack.enter_context(
            progress(PASSES * n_events, "calibrate", "events", config.progress)
        )
        sets, used = _measure(files, config, shown, warnings)
        record = provenance("calibrate", asdict(config), [file.path for file in used], started)
        cards = {**array_cards(files[0].header, "CAL1"), **step_cards(record)}
        write_cal1(config.output, sets, cards, overwrite=config.overwrite)
        _draw(Path(config.output), sets, files[0], config)
    for warning in warnings:
        logger.warning("%s", warning)
    gain = [1 / np.median(each.dc_to_pe[0][each.pixel_valid[0]]) for each in sets]
    return Summary(
        path=Path(config.output),
        tel_ids=tuple(file.tel_id for file in used),
        n_sets=len(sets),
        n_pedestal=sum(each.n_pedestal for each in sets),
        n_flatfield=sum(each.n_flatfield for each in sets),
        bad_pixels={file.tel_id: _bad_pixels(sets, file.tel_id) for file in used},
        gain=float(np.median(gain)),
        scale_error=max(each.scale_error for each in sets),
        seconds=time.perf_counter() - clock,
        warnings=tuple(warnings),
    )


def picture_name(output: Path) -> Path:
    """Return the name of the picture that goes beside a file of constants."""
    name = output.name
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return output.with_name(f"{name}_monitoring.png")


def _draw(
    output: Path, sets: "list[ConstantsSet]", file: "Dl0File", config: "CalibrateConfig"
) -> None:
    """Write the picture; housekeeping is that of the run in the same inputs."""
    from astri_gpu.calibration.figure import monitoring_figure
    from astri_gpu.calibration.good_time import NominalTrack, good_intervals
    from astri_gpu.calibration.housekeeping import read_housekeeping
    from astri_gpu.output_file import whole_file
    from astri_gpu.report.figures import save

    run = file.run
    samples = []
    for hk in _housekeeping(config):
        with hk:
            if hk.run.obs_id == run.obs_id:
                samples.append(read_housekeeping(hk))
    track = NominalTrack(run.ra_pnt_deg, run.dec_pnt_deg, run.site)
    figure = monitoring_figure(
        samples,
        sets,
        good_intervals(samples, run.start_s, run.stop_s, track=track),
        track,
        start_s=run.start_s,
        title=f"Telescopes of run {run.run} of observation {run.observation}: {run.target}",
        notes=run.simulation_model or "",
        dpi=config.dpi,
    )
    with whole_file(picture_name(output), overwrite=True) as unfinished:
        save(figure, unfinished)


def _housekeeping(config: "CalibrateConfig") -> "tuple[Dl0File, ...]":
    """Return the housekeeping among the inputs; there need not be any for constants."""
    from astri_gpu.dl0.files import find_dl0

    try:
        return find_dl0(find_inputs(config.inputs()), "HK")
    except AstriError as error:
        logger.info("The picture has no housekeeping: %s", error)
        return ()


def _absent(files: "list[Dl0File]") -> list[str]:
    """Return a warning where telescopes of the run have no file of calibration events."""
    absent = sorted(set(files[0].run.tel_ids) - {file.tel_id for file in files})
    if not absent:
        return []
    return [
        f"No calibration events (0101) of {counted(len(absent), 'telescope')} of the run "
        f"({', '.join(map(str, absent))}): there are no constants of "
        f"{'them' if len(absent) > 1 else 'it'}"
    ]


def _measure(
    files: "list[Dl0File]", config: "CalibrateConfig", shown: Progress, warnings: list[str]
) -> "tuple[list[ConstantsSet], list[Dl0File]]":
    """Return the constants, and the files that they came from; warnings are added."""
    from astri_gpu.calibration.dl0_events import measure_file
    from astri_gpu.calibration.measure import MeasureSettings

    settings = MeasureSettings(
        limits=np.array([config.saturation_adc]),
        crosstalk=config.crosstalk,
        gain_spread=config.gain_spread,
        needed_by="calibrate",
        remedy="lower min_events, or set on_error=skip to go on without this telescope",
        min_events=config.min_events,
        noisy_factor=config.noisy_factor,
        response_min=config.response_min,
    )
    sets: list[ConstantsSet] = []
    used: list[Dl0File] = []
    errors: list[AstriError] = []
    for file in files:
        shown.note(f"telescope {file.tel_id}")
        try:
            found = measure_file(
                file, settings, interval_s=config.interval_s, advance=shown.advance
            )
        except AstriError as error:
            if config.on_error == "stop":
                raise
            errors.append(error)
            warnings.append(f"Telescope {file.tel_id} was left out: {error}")
            continue
        sets += found.sets
        warnings += found.warnings
        used.append(file)
    if not used:
        raise errors[0]
    return sets, used


def _bad_pixels(sets: "list[ConstantsSet]", tel_id: int) -> int:
    valid = [each.pixel_valid[0] for each in sets if each.tel_id == tel_id]
    return int((~np.all(valid, axis=0)).sum())
