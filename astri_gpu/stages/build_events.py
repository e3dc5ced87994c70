"""The stage `build-events`: single-telescope events of a run to stereo events (SEB0)."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.progress import progress
from astri_gpu.stages.units import counted, find_inputs

if TYPE_CHECKING:
    from astri_gpu.config_observation import BuildEventsConfig
    from astri_gpu.dl0.files import Dl0File
    from astri_gpu.event_building.build import Built
    from astri_gpu.event_building.truth import Score, Truth

__all__ = ["Summary", "picture_name", "run"]

logger = logging.getLogger(__name__)

KIND = "SCI"
ENDING = ".fits"


@dataclass(frozen=True)
class Summary:
    """What was built; `line` is the summary for the terminal.

    `n_hits` are telescope events: those in events, and `n_rejected` without a usable time, of which
    `rejected` has the numbers by telescope. `n_left_over` hits were second ones of a telescope in
    an event, and are events of their own. With a truth, `efficiency` and `purity` are of pairs of
    telescopes.
    """

    path: Path
    tel_ids: tuple[int, ...]
    n_hits: int
    n_events: int
    n_stereo: int
    n_left_over: int
    n_rejected: int
    rejected: Mapping[int, int]
    accidental_hz: float
    accidental_error_hz: float
    expected_accidental_hz: float
    efficiency: float | None
    hit_efficiency: float | None
    purity: float | None
    true_accidental_hz: float | None
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Return events, coincidences, rates by chance and seconds in one line."""
        rejected = f", {self.n_rejected:,} without a usable time" if self.n_rejected else ""
        left = f", {self.n_left_over:,} multi-match(es)" if self.n_left_over else ""
        score = ""
        if self.efficiency is not None and self.purity is not None:
            score = f", efficiency {100 * self.efficiency:.3f} %, purity {100 * self.purity:.3f} %"
        return (
            f"build-events: {self.path} has {self.n_events:,} events, {self.n_stereo:,} stereo, of "
            f"{self.n_hits:,} of {counted(len(self.tel_ids), 'telescope')}{left}{rejected}; pairs "
            f"by chance {self.accidental_hz:.3f} ± {self.accidental_error_hz:.3f} Hz (calculated "
            f"{self.expected_accidental_hz:.3f}){score} ({self.seconds:.1f} s)"
        )

    @property
    def facts(self) -> dict[str, str]:
        """Return key numbers in words."""
        share = self.n_stereo / self.n_events if self.n_events else 0.0
        found = {
            "stereo events": f"{self.n_stereo:,} of {self.n_events:,} ({100 * share:.1f} %)",
            "accidental pairs": f"{self.accidental_hz:.3f} Hz "
            f"(calculated {self.expected_accidental_hz:.3f} Hz)",
            "events without usable time": f"{self.n_rejected:,} of {self.n_hits:,}",
        }
        if self.efficiency is not None and self.purity is not None:
            found["stereo efficiency"] = f"{100 * self.efficiency:.3f} %"
            found["stereo purity"] = f"{100 * self.purity:.3f} %"
        return found


def picture_name(output: str | Path) -> Path:
    """Return where the picture of a file of stereo events is."""
    output = Path(output)
    return output.with_name(output.name.removesuffix(ENDING) + "_offsets.png")


def run(config: "BuildEventsConfig") -> Summary:
    """Match the events of all telescopes of a run; the file appears whole or not at all.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced or is not named like a FITS file, or no file
        matches the input.
    AstriError
        When there are no files of events, they are of different runs, lack columns, or the truth
        is of another run, or the disk takes no more.
    """
    from astri_gpu.dl0.files import find_dl0
    from astri_gpu.dl0.header import array_cards
    from astri_gpu.event_building.build import build
    from astri_gpu.event_building.hits import COLUMNS, read_hits, track_of
    from astri_gpu.event_building.seb0_file import write_seb0
    from astri_gpu.event_building.truth import read_truth, truth_file
    from astri_gpu.lineage.cards import step_cards
    from astri_gpu.provenance import now, provenance

    started, clock = now(), time.perf_counter()
    inputs, output = find_inputs(config.inputs()), Path(config.output)
    if output.suffix != ENDING:
        raise UsageError(f"The output {output} is not named like a FITS file: let it end in .fits.")
    if output.exists() and not config.overwrite:  # before the work, not behind it
        raise UsageError(
            f"The output {output} exists already: choose another output or set overwrite=true."
        )
    path = None if config.truth is None else truth_file(config.truth)
    truth = None if path is None else read_truth(path)
    with contextlib.ExitStack() as stack:
        found = find_dl0(inputs, KIND, columns=COLUMNS)
        files = [stack.enter_context(file) for file in found]
        shown = stack.enter_context(
            progress(len(files) + 1, "build-events", "telescopes", config.progress)
        )
        track, header = track_of(files[0]), files[0].header
        hits = []
        for file in files:
            shown.note(file.path.name)
            hits.append(read_hits(file, track))
            shown.advance()
        shown.note("coincidences")
        built = build(
            hits,
            [_position(file) for file in files] if config.time_of_flight else None,
            track,
            window_us=config.window_half_width_us,
            offset_range_us=config.offset_range_us,
            jump_range_ms=config.jump_range_ms,
            interval_s=config.interval_s,
            profile_step_us=config.profile_step_us,
        )
        warnings = [*_absent(files), *built.warnings]
        found_score = _score(built, truth)
        read = [file.path for file in files]
        record = provenance(
            "build-events",
            asdict(config),
            [*read, *([] if path is None else [path])],
            started,
        )
        cards = {**array_cards(header, "SEB0"), **step_cards(record)}
        _draw(output, built, truth, files[0], config.dpi)
        write_seb0(output, built.seb0, cards, overwrite=config.overwrite)
        shown.advance()
    for warning in warnings:
        logger.warning("%s", warning)
    seb0, chance = built.seb0, built.accidentals
    rejected = {each.tel_id: len(each.rejected_row) for each in hits}
    return Summary(
        path=output,
        tel_ids=tuple(each.tel_id for each in hits),
        n_hits=len(seb0.members.row) + len(seb0.rejected.row),
        n_events=len(seb0.events.number),
        n_stereo=seb0.n_stereo,
        n_left_over=built.n_left_over,
        n_rejected=len(seb0.rejected.row),
        rejected=rejected,
        accidental_hz=chance.measured,
        accidental_error_hz=chance.error,
        expected_accidental_hz=chance.expected,
        efficiency=None if found_score is None else found_score.efficiency,
        hit_efficiency=None if found_score is None else found_score.hit_efficiency,
        purity=None if found_score is None else found_score.purity,
        true_accidental_hz=None
        if found_score is None
        else found_score.n_accidental / (track.stop_s - track.start_s),
        seconds=time.perf_counter() - clock,
        warnings=tuple(warnings),
    )


def _position(file: "Dl0File") -> tuple[float, float, float]:
    if file.run.position is None:
        raise AstriError(
            f"{file.path} has no position of its telescope (TELX, TELY, TELZ): make it again from "
            "the packets, or set time_of_flight=false."
        )
    return file.run.position


def _absent(files: "Sequence[Dl0File]") -> list[str]:
    """Return a warning where telescopes of the run have no file of events."""
    absent = sorted(set(files[0].run.tel_ids) - {file.tel_id for file in files})
    if not absent:
        return []
    return [
        f"No events (0201) of {counted(len(absent), 'telescope')} of the run "
        f"({', '.join(map(str, absent))}): the stereo events are those of the others"
    ]


def _score(built: "Built", truth: "Truth | None") -> "Score | None":
    from astri_gpu.event_building.truth import score

    return None if truth is None else score(built.seb0.members, truth)


def _draw(output: Path, built: "Built", truth: "Truth | None", file: "Dl0File", dpi: int) -> None:
    from astri_gpu.event_building.figure import offsets_figure
    from astri_gpu.output_file import whole_file
    from astri_gpu.report.figures import save

    figure = offsets_figure(
        built.seb0.offsets,
        built.seb0.profile,
        built.accidentals,
        window_us=built.seb0.window_us,
        start_s=file.run.start_s,
        title=f"Clocks and coincidences, run {file.run.run} of observation {file.run.observation}",
        notes=file.run.simulation_model or "",
        truth=truth,
        dpi=dpi,
    )
    with whole_file(picture_name(output), overwrite=True) as unfinished:
        save(figure, unfinished)
