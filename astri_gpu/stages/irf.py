"""The stage `irf`: stores of simulated events and cuts to responses, sensitivity, other curves."""

import json
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.errors import UsageError
from astri_gpu.options import path_list
from astri_gpu.progress import Progress, progress
from astri_gpu.stages.units import counted, find_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from astri_gpu.config import IrfConfig
    from astri_gpu.responses.counts import Counts
    from astri_gpu.responses.curve_points import Curves
    from astri_gpu.selection.cuts import Cuts
    from astri_gpu.selection.sample import Sample

__all__ = ["Summary", "run"]

logger = logging.getLogger(__name__)

NUMBERS = "summary.json"
ALIGNED = 0.05  # of a bin: edges of cuts and responses that are as good as the same
RESPONSE = re.compile(r".+\.irf2\.fits\.gz|.+_zd\d\d_az\d\d\d\.irf3\.fits")


@dataclass(frozen=True)
class Summary:
    """What was made; `numbers` are the contents of summary.json.

    `ratio_lines` compare the sensitivity with the published one, bin by bin.
    """

    path: Path
    classes: tuple[str, ...]
    n_pointings: int
    n_events: int
    n_curves: int
    seconds: float
    loading_seconds: float
    warnings: tuple[str, ...]
    ratio_lines: tuple[str, ...]
    numbers: dict[str, Any]

    @property
    def line(self) -> str:
        """Return classes, pointings, events and seconds in one line, after those of the ratio."""
        text = (
            f"irf: {self.path} has the responses of {', '.join(self.classes)} to "
            f"{counted(self.n_pointings, 'pointing')} and {counted(self.n_curves, 'curve')}, from "
            f"{self.n_events:,} events, in {self.seconds:.1f} s ({self.loading_seconds:.1f} s to "
            "read them)"
        )
        return "\n".join([*self.ratio_lines, text])


def run(config: "IrfConfig") -> Summary:
    """Write responses and curves of every class; the folder appears whole or not at all.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced, no file matches the input, or the cuts
        cannot be used together.
    AstriError
        When stores and cuts do not belong together, a class is left without events, or the disk
        takes no more.
    """
    from astri_gpu.output_folder import whole_folder
    from astri_gpu.provenance import now, provenance
    from astri_gpu.responses.counting import check_origin
    from astri_gpu.selection.events import read_sample
    from astri_gpu.selection.spectra import spectrum
    from astri_gpu.store_disk import json_ready

    started, clock = now(), time.perf_counter()
    for kind, name in asdict(config.flux).items():
        spectrum(name, kind)  # refused now, not after all the reading
    paths = find_inputs(config.inputs())
    cut_paths = find_inputs(path_list(config.cut_files, "cut_files"))
    cuts = _read_cuts(cut_paths)
    warnings: list[str] = []
    with whole_folder(config.output, _is_ours, overwrite=config.overwrite) as folder:
        record = provenance("irf", asdict(config), [*paths, *cut_paths], started)
        reading = time.perf_counter()
        with progress(None, "irf", "events", config.progress) as shown:
            sample = read_sample(
                paths, filter=cuts[0].filter, part=config.part, need=("gamma",), shown=shown
            )
        loading = time.perf_counter() - reading
        for entry in cuts:
            check_origin(entry, sample)
        warnings += _about_sample(sample)
        warnings += _about_tuning(cuts, record, config.part)
        total = len(cuts) * len(sample.pointings()) + 1
        with progress(total, "irf", "responses", config.progress) as shown:
            numbers = [
                _write_class(folder, sample, entry, config, record, warnings, shown)
                for entry in cuts
            ]
            curves, lines = _write_curves(folder, sample, cuts, config, record)
            shown.advance()
        summary = Summary(
            path=Path(config.output),
            classes=tuple(entry.event_class for entry in cuts),
            n_pointings=len(sample.pointings()),
            n_events=sum(len(table) for table in sample),
            n_curves=len(curves.curves),
            seconds=time.perf_counter() - clock,
            loading_seconds=loading,
            warnings=tuple(warnings),
            ratio_lines=tuple(lines),
            numbers=json_ready(
                {
                    "simulation_model": sample.meta.get("simulation_model"),
                    "models": sample.meta.get("models"),
                    "part": config.part,
                    "point_like": config.point_like,
                    "events": {
                        f"{table.kind} zd {table.zenith_deg:.1f} az {table.azimuth_deg:.1f}"
                        f"{' point-like' if table.point_like else ''}": len(table)
                        for table in sample
                    },
                    "classes": numbers,
                    "warnings": warnings,
                    "provenance": record,
                }
            ),
        )
        text = json.dumps(summary.numbers, indent=1) + "\n"
        (folder / NUMBERS).write_text(text, encoding="utf-8")
    for warning in warnings:
        logger.warning("%s", warning)
    return summary


def _is_ours(name: str) -> bool:
    from astri_gpu.responses.curve_figures import is_curve_file

    return name == NUMBERS or RESPONSE.fullmatch(name) is not None or is_curve_file(name)


def _read_cuts(paths: Sequence[Path]) -> "list[Cuts]":
    """Return the cuts of all classes, one of each."""
    from astri_gpu.selection.cut_file import read_cuts

    found: dict[str, tuple[Path, Cuts]] = {}
    for path in paths:
        cuts = read_cuts(path)
        if cuts.event_class in found:
            raise UsageError(
                f"{found[cuts.event_class][0]} and {path} are both cuts of class "
                f"{cuts.event_class}: give one of them, or another name to one "
                "(cuts.event_class of `astri-gpu optimize`)."
            )
        first_path, first = next(iter(found.values()), (path, cuts))
        if cuts.filter != first.filter:
            raise UsageError(
                f"The cuts of {first_path} begin with '{first.filter}', those of {path} with "
                f"'{cuts.filter}': make the responses of each in a run of its own."
            )
        found[cuts.event_class] = (path, cuts)
    return [cuts for _, cuts in found.values()]


def _about_sample(sample: "Sample") -> list[str]:
    """Return what the reader of responses has to know of the events."""
    found = []
    pointings = sample.pointings()
    for table in sample.background():
        if (table.zenith_deg, table.azimuth_deg) not in pointings:
            found.append(
                f"There are {table.kind} events but no gammas at zenith {table.zenith_deg:.1f} "
                f"deg, azimuth {table.azimuth_deg:.1f} deg: they are not used"
            )
    for zenith, azimuth in pointings:
        kinds = {table.kind for table in sample.at((zenith, azimuth)).background()}
        where = f"zenith {zenith:.1f} deg, azimuth {azimuth:.1f} deg"
        if not kinds:
            found.append(f"No background at {where}: the background rate is 0, and not known")
        elif "electron" not in kinds:
            found.append(f"No electrons at {where}: the background lacks them")
    return found


def _about_tuning(cuts: "Sequence[Cuts]", record: dict[str, Any], part: str) -> list[str]:
    """Say it if cuts were tuned on the very events that curves are made of."""
    here = {entry["checksum"] for entry in record["inputs"]}
    tuned = []
    for entry in cuts:
        inputs = (entry.meta.get("provenance") or {}).get("inputs") or []
        before = entry.meta.get("part", "all")
        overlap = before == part or "all" in (before, part)
        if overlap and here & {item.get("checksum") for item in inputs}:
            tuned.append(entry.event_class)
    if not tuned:
        return []
    return [
        f"The cuts of {', '.join(tuned)} were tuned on events that the curves are made of, so "
        "sensitivities look a little better than they are, most of all where few background "
        "events are left: part=even for `astri-gpu optimize` and part=odd here keeps them apart"
    ]


def _write_class(
    folder: Path,
    sample: "Sample",
    cuts: "Cuts",
    config: "IrfConfig",
    record: dict[str, Any],
    warnings: list[str],
    shown: Progress,
) -> dict[str, Any]:
    """Write the responses of one class; return the numbers that tell about them."""
    from astri_gpu.responses.counting import count
    from astri_gpu.responses.edges import coarse_edges, fine_edges
    from astri_gpu.responses.gadf_write import write_irf
    from astri_gpu.responses.irf2_file import Irf2, write_irf2
    from astri_gpu.responses.marginalise import Track, marginalise
    from astri_gpu.responses.regroup import regroup

    edges = fine_edges(config.binning)
    made: list[Counts] = []
    rows = []
    for pointing in sample.pointings():
        counts = count(sample.at(pointing), cuts, edges, config.flux, point_like=config.point_like)
        made.append(counts)
        warnings += _about_background(regroup(counts, config.binning), bool(sample.background()))
        rows.append(_numbers(counts))
        shown.advance()
    warnings += _about_cuts(cuts, made)
    if config.point_like:
        warnings += _about_rad_max(cuts, coarse_edges(config.binning).reco_energy)
    meta = {"provenance": record}
    name = f"{cuts.event_class}.irf2.fits.gz"
    write_irf2(folder / name, made, config.binning, cuts, meta=meta)
    whole = Irf2(tuple(made), config.binning, meta)
    for counts, row in zip(made, rows, strict=True):
        track = Track.fixed(counts.zenith_deg, counts.azimuth_deg)
        stem = (
            f"{cuts.event_class}_zd{round(counts.zenith_deg):02d}_"
            f"az{round(counts.azimuth_deg) % 360:03d}"
        )
        row["file"] = f"{stem}.irf3.fits"
        write_irf(folder / row["file"], marginalise(whole, track), psf=config.psf)
    return {
        "event_class": cuts.event_class,
        "valid_tev": list(made[0].valid_tev),
        "file": name,
        "pointings": rows,
    }


def _numbers(counts: "Counts") -> dict[str, Any]:
    return {
        "zenith_deg": counts.zenith_deg,
        "azimuth_deg": counts.azimuth_deg,
        "gammas": counts.meta["gammas"],
        "selected_events": counts.meta["selected_events"],
        "background_hz": float(counts.ring_rate.sum()),
    }


def _about_cuts(cuts: "Cuts", made: "Sequence[Counts]") -> list[str]:
    """Return where the class has no cuts, and whether they were made for other zenith angles."""
    found = []
    lacking = int((~cuts.valid).sum())
    if lacking:
        low, high = made[0].valid_tev
        found.append(
            f"Class {cuts.event_class} has no cut in {counted(lacking, 'bin')} of "
            f"{len(cuts.valid)}, no event is selected there: it is valid from {low:.3g} to "
            f"{high:.3g} TeV"
        )
    zenith = cuts.meta.get("zenith_deg")
    for counts in made:
        if zenith is not None and abs(counts.zenith_deg - zenith) > 1.0:
            found.append(
                f"Class {cuts.event_class} was optimised at zenith {zenith:.1f} deg and is applied "
                f"at {counts.zenith_deg:.1f} deg"
            )
    return found


def _about_rad_max(cuts: "Cuts", edges: "NDArray[np.float64]") -> list[str]:
    """Say it if the theta cut changes within bins of the response, which have one RAD_MAX each."""
    inner = cuts.energy_edges[1:-1]
    inner = inner[np.diff(cuts.theta_deg) != 0]
    inner = inner[(inner > edges[0]) & (inner < edges[-1])]
    place = np.interp(np.log(inner), np.log(edges), np.arange(len(edges)))
    off = inner[np.abs(place - np.round(place)) > ALIGNED]
    if not len(off):
        return []
    return [
        f"The theta cut of class {cuts.event_class} changes within bins of the response (at "
        f"{', '.join(f'{energy:.3g}' for energy in off)} TeV), so RAD_MAX is not exact there: "
        "choose bins of cuts and responses with common edges"
    ]


def _about_background(counts: "Counts", expected: bool) -> list[str]:
    """Return the energies at which no simulated background was selected, as a sentence."""
    if not expected:
        return []  # said of the whole sample
    edges = counts.edges.reco_energy
    middle = np.sqrt(edges[:-1] * edges[1:])
    valid = (middle > counts.valid_tev[0]) & (middle < counts.valid_tev[1])
    empty = np.flatnonzero(valid & (counts.ring_events.sum(axis=1) == 0))
    if not len(empty):
        return []
    bins = ", ".join(f"{edges[k]:.3g} to {edges[k + 1]:.3g}" for k in empty)
    return [
        f"No simulated background passes the cuts of class {counts.event_class} at zenith "
        f"{counts.zenith_deg:.1f} deg in {counted(len(empty), 'bin')} of energy ({bins} TeV): the "
        "rate there is 0 in the response, and not known"
    ]


def _write_curves(
    folder: Path,
    sample: "Sample",
    cuts: "Sequence[Cuts]",
    config: "IrfConfig",
    record: dict[str, Any],
) -> "tuple[Curves, list[str]]":
    """Write tables and pictures of the performance; return it, and lines about its ratio."""
    from astri_gpu.responses.curve_figures import draw_curves
    from astri_gpu.responses.curve_tables import write_curves
    from astri_gpu.responses.curves import make_curves, ratio_lines
    from astri_gpu.responses.references import read_reference

    curves = make_curves(sample, cuts, config)
    reference = None
    if config.reference is not None:
        reference = read_reference(config.reference, cuts[0].energy_edges, config)
    write_curves(folder, curves, reference, provenance=record)
    draw_curves(folder, curves, reference, dpi=config.dpi)
    return curves, ratio_lines(curves)
