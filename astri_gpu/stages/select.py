"""The stage `select`: reconstructed events to event lists, responses and index files (GADF)."""

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.progress import progress
from astri_gpu.stages.units import counted, find_inputs

if TYPE_CHECKING:
    from astri_gpu.config import SelectConfig
    from astri_gpu.dl3.run import Run
    from astri_gpu.responses.irf2_file import Irf2
    from astri_gpu.selection.cuts import Cuts

__all__ = ["Summary", "run"]

logger = logging.getLogger(__name__)

RECORD = "select.json"
OURS = re.compile(
    r"\d{8}_MA_.+_(0201|0502)_.+\.lv3\.fits\.gz|(hdu|obs)-index\.fits\.gz|select\.json"
)
EVENTS, RESPONSE = "0201", "0502"
KEPT = ("reco_energy", "time")  # columns of a run that the index files ask for


@dataclass(frozen=True)
class Summary:
    """What was selected; `line` is the summary for the terminal.

    `counts` are events: `read`, `outside_gti`, `outside_energy` (no bin of the cuts or the
    response), `selected`; `runs` the same for each run, with its number and files.
    """

    path: Path
    event_class: str
    target: str
    n_runs: int
    livetime_s: float
    stand_in: bool
    counts: Mapping[str, int]
    runs: tuple[Mapping[str, Any], ...]
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Return runs, time, events and seconds in one line."""
        counts = self.counts
        left = ", ".join(
            f"{counts[name]:,} outside the {what}"
            for name, what in (("outside_gti", "good time"), ("outside_energy", "energies"))
            if counts[name]
        )
        drawn = " (simulated events stand in)" if self.stand_in else ""
        return (
            f"select: {self.path} has {counted(self.n_runs, 'run')} of {self.target}{drawn}, "
            f"{self.livetime_s / 3600:.3g} h, {counts['selected']:,} of {counts['read']:,} events "
            f"in class {self.event_class}{f' ({left})' if left else ''} ({self.seconds:.1f} s)"
        )

    @property
    def facts(self) -> dict[str, str]:
        """Return the key numbers in words."""
        counts = self.counts
        return {
            "livetime": f"{self.livetime_s:,.1f} s",
            "events selected": f"{counts['selected']:,} of {counts['read']:,}",
            "events outside good time": f"{counts['outside_gti']:,}",
        }


def run(config: "SelectConfig") -> Summary:
    """Write event lists, responses and index files; the folder appears whole or not at all.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced, inputs are of both kinds, or times do not
        fit.
    AstriError
        When cuts, response and events do not belong together, a zenith angle is too far from those
        of the response, an input is no DL2b store, or the disk takes no more.
    """
    from astri_gpu.dl3.events_file import file_stem
    from astri_gpu.dl3.gti import check_used, parse_intervals
    from astri_gpu.dl3.index_files import write_indices
    from astri_gpu.output_folder import whole_folder
    from astri_gpu.provenance import now, provenance
    from astri_gpu.responses.edges import coarse_edges
    from astri_gpu.responses.irf2_file import read_irf2
    from astri_gpu.selection.cut_file import read_cuts
    from astri_gpu.store_disk import json_ready

    started, clock = now(), time.perf_counter()
    paths = find_inputs(config.inputs())
    cuts, irf2 = read_cuts(config.cut_file), read_irf2(config.response)
    _check_together(cuts, irf2, config)
    edges = coarse_edges(irf2.binning).reco_energy
    energies = float(edges[0]), float(edges[-1])
    record = provenance(
        "select", asdict(config), [*paths, config.cut_file, config.response], started
    )
    meta = {"provenance": record}
    warnings: list[str] = []
    rows: list[dict[str, Any]] = []
    written: list[tuple[Run, list[str]]] = []
    with (
        whole_folder(config.output, _is_ours, overwrite=config.overwrite) as folder,
        progress(None, "select", "runs", config.progress) as shown,
    ):
        for each in _runs(paths, cuts, energies, config, warnings):
            _check_models(cuts, each)
            warnings += _of_run(each, irf2)
            stems = [file_stem(each, kind, cuts.event_class) for kind in (EVENTS, RESPONSE)]
            names = [f"{stem}.fits.gz" for stem in stems]
            if (folder / names[0]).exists():
                raise AstriError(
                    f"Two of the inputs hold run {each.obs_id}: give one of them, or the runs "
                    "other numbers."
                )
            files = [folder / name for name in names]
            chosen, counts = _write(each, cuts, irf2, energies, config, files, meta)
            slim = {name: chosen.columns[name] for name in KEPT}
            written.append((replace(chosen, columns=slim), names))
            rows.append(
                {"obs_id": each.obs_id, **counts, "livetime_s": each.livetime, "files": names}
            )
            if counts["outside_gti"] and not (each.stand_in or config.observation.gti):
                warnings.append(
                    f"{counts['outside_gti']:,} of {counts['read']:,} events of run {each.obs_id} "
                    "are outside its good time and were left out"
                )
            if not len(chosen):
                warnings.append(f"No event of run {each.obs_id} passes the cuts")
            shown.advance()
        check_used(
            parse_intervals(config.observation.gti),
            [(each.start, each.stop) for each, _ in written],
        )
        write_indices(folder, written, cuts.event_class)
        first = written[0][0]
        summary = Summary(
            path=Path(config.output),
            event_class=cuts.event_class,
            target=first.target.name,
            n_runs=len(written),
            livetime_s=sum(each.livetime for each, _ in written),
            stand_in=first.stand_in,
            counts={
                name: sum(row[name] for row in rows)
                for name in ("read", "outside_gti", "outside_energy", "selected")
            },
            runs=tuple(rows),
            seconds=time.perf_counter() - clock,
            warnings=tuple(warnings),
        )
        text = json_ready(
            {
                **asdict(summary),
                "simulation_model": first.simulation_model,
                "models": first.models,
                "notes": sorted({note for each, _ in written for note in each.notes}),
                "provenance": record,
            }
        )
        (folder / RECORD).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    for warning in warnings:
        logger.warning("%s", warning)
    return summary


def _is_ours(name: str) -> bool:
    return OURS.fullmatch(name) is not None


def _runs(
    paths: list[Path],
    cuts: "Cuts",
    energies: tuple[float, float],
    config: "SelectConfig",
    warnings: list[str],
) -> "Iterator[Run]":
    """Yield the runs of observations, or those that simulated events stand in for."""
    from astri_gpu.dl3.observation import is_observation, observed_runs
    from astri_gpu.store import open_store

    stores = [open_store(path) for path in paths]
    observed = [is_observation(store) for store in stores]
    if all(observed):
        for path in paths:
            yield from observed_runs(path, config.observation, filter=cuts.filter)
        return
    if any(observed):
        two = paths[observed.index(True)], paths[observed.index(False)]
        raise UsageError(
            f"{two[0]} is an observation and {two[1]} is not: give observations, or simulated "
            "gammas and background that stand in for one."
        )
    from astri_gpu.dl3.run import passes
    from astri_gpu.dl3.standing_in import Plan, standing_in
    from astri_gpu.selection.events import read_sample

    sample = read_sample(paths, filter=cuts.filter, part=config.part, need=("gamma",))
    if not sample.background():
        warnings.append("No background among the inputs: the event lists hold gammas only")
    tel_ids = stores[0].read("instrument/telescope/tel_id")
    plan = Plan(
        sample,
        config.observation,
        config.flux,
        farthest=config.max_zenith_distance_deg,
        tel_ids=tel_ids.tolist(),
        judge=lambda columns: passes(columns, cuts, energies),
    )
    for number in range(len(plan)):
        yield standing_in(plan, number)


def _write(
    each: "Run",
    cuts: "Cuts",
    irf2: "Irf2",
    energies: tuple[float, float],
    config: "SelectConfig",
    files: list[Path],
    meta: Mapping[str, Any],
) -> "tuple[Run, Mapping[str, int]]":
    """Write the event list and the response of a run; return it selected, and the counts."""
    from astri_gpu.dl3.events_file import write_events
    from astri_gpu.dl3.run import track_of
    from astri_gpu.responses.gadf_write import write_irf
    from astri_gpu.responses.marginalise import Track, marginalise

    irf = marginalise(
        irf2, Track(*track_of(each)), max_zenith_distance_deg=config.max_zenith_distance_deg
    )
    # GADF counts background per ONTIME, so the dead time is in it.
    share = 1.0 - each.dead_time
    irf = replace(
        irf,
        background_2d=share * irf.background_2d,
        background_2d_error=share * irf.background_2d_error,
        background_3d=share * irf.background_3d,
        background_3d_error=share * irf.background_3d_error,
        meta={**irf.meta, **meta},
    )
    chosen, counts = each.selected(cuts, energies)
    write_events(files[0], chosen, cuts, provenance=meta["provenance"])
    keywords: dict[str, tuple[Any, str]] = {"OBS_ID": (each.obs_id, "number of the run")}
    if tel_ids := _simulated_telescopes(irf2):
        keywords["N_TELSIM"] = (len(tel_ids), "telescopes of the simulated array")
    write_irf(files[1], irf, keywords=keywords)
    return chosen, counts


def _check_together(cuts: "Cuts", irf2: "Irf2", config: "SelectConfig") -> None:
    """Refuse cuts and a response that are not of one event class and one set of forests."""
    for counts in irf2.counts:
        if counts.event_class != cuts.event_class:
            raise AstriError(
                f"The response {config.response} is of event class {counts.event_class}, the cuts "
                f"{config.cut_file} are of {cuts.event_class}: give those of one class."
            )
    theirs, ours = irf2.counts[0].meta.get("models"), cuts.meta.get("models")
    if theirs != ours:
        raise AstriError(
            f"The response {config.response} was made with the forests {str(theirs)[:19]}, the "
            f"cuts {config.cut_file} with {str(ours)[:19]}: give those of one file of models."
        )


def _simulated_telescopes(irf2: "Irf2") -> tuple[int, ...]:
    """Return the telescopes that a response is for; none where it does not say."""
    return tuple(irf2.counts[0].meta.get("tel_ids") or ())


def _of_run(each: "Run", irf2: "Irf2") -> list[str]:
    """Return what is to be told of a run before its events are selected."""
    found = []
    missing = sorted(set(_simulated_telescopes(irf2)) - set(each.tel_ids))
    if missing and not each.stand_in:
        found.append(
            f"The response is for {len(_simulated_telescopes(irf2))} telescopes, and run "
            f"{each.obs_id} has {len(each.tel_ids)} (without {', '.join(map(str, missing))}): "
            "areas and backgrounds are too large for it"
        )
    if lost := each.dropped.get("without_pointing"):
        found.append(f"{lost:,} events of run {each.obs_id} have no pointing and were left out")
    return found


def _check_models(cuts: "Cuts", each: "Run") -> None:
    ours = cuts.meta.get("models")
    if each.models != ours:
        raise AstriError(
            f"The events of {', '.join(each.sources)} were reconstructed with the forests "
            f"{str(each.models)[:19]}, cuts and response were made with {str(ours)[:19]}: "
            "reconstruct them with the same file of models."
        )
