"""The stage `science`: detection, maps, spectrum and light curve of event lists, with Gammapy."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.options import path_list
from astri_gpu.progress import Progress, progress
from astri_gpu.stages.units import counted, find_inputs

if TYPE_CHECKING:
    from astri_gpu.config import ScienceConfig

__all__ = ["Summary", "run"]

logger = logging.getLogger(__name__)

PAGE, NUMBERS = "report.html", "science.json"
STEPS = (
    "reading the runs",
    "spectra of the runs",
    "fit",
    "flux points",
    "light curve",
    "theta-squared",
    "maps",
    "pictures",
    "files",
)


@dataclass(frozen=True)
class Summary:
    """What was found; `numbers` are the contents of science.json."""

    path: Path
    target: str
    n_runs: int
    livetime_s: float
    significance: float
    converged: bool
    numbers: dict[str, Any]
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Return target, significance, spectrum and seconds in one line."""
        values = {entry["name"]: entry for entry in self.numbers["spectrum"]["parameters"]}
        amplitude = values["amplitude"]
        fit = "" if self.converged else ", FIT NOT CONVERGED"
        drawn = " (simulated)" if self.numbers["simulation_model"] else ""
        return (
            f"science: {self.path / PAGE} shows {self.target}{drawn} with {self.significance:.1f} "
            f"sigma in {counted(self.n_runs, 'run')}, {self.livetime_s / 3600:.3g} h, "
            f"{amplitude['value']:.3g} +- {amplitude['error']:.2g} /(TeV cm2 s) at "
            f"{values['reference']['value']:g} TeV{fit} ({self.seconds:.1f} s)"
        )

    @property
    def facts(self) -> dict[str, str]:
        """Return key numbers in words."""
        drawn = ", simulated events" if self.numbers["simulation_model"] else ""
        found = {"detection": f"{self.significance:.1f} sigma of {self.target}{drawn}"}
        for entry in self.numbers["spectrum"]["parameters"]:
            if entry["fitted"]:
                error = "" if entry["error"] is None else f" ± {entry['error']:.2g}"
                found[entry["name"]] = f"{entry['value']:.3g}{error} {entry['unit']}".rstrip()
        return found


def run(config: "ScienceConfig") -> Summary:
    """Analyse the runs of a target; the folder appears whole or not at all.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced, there is no index file, the target is not
        known, or energies are outside those of the responses.
    AstriError
        When Gammapy is not installed, a run lacks a part or has no room for off regions (unless
        such runs are skipped), the target is in no field, or the disk takes no more.
    """
    from astri_gpu.output_folder import whole_folder
    from astri_gpu.science.gammapy_calls import check_gammapy, collected
    from astri_gpu.science.products import is_ours
    from astri_gpu.science.runs import Faults

    clock = time.perf_counter()
    inputs = find_inputs(config.inputs())
    responses = find_inputs(path_list(config.response, "response")) if config.response else []
    check_gammapy()
    faults = Faults(config.on_error == "skip")
    told: Counter[str] = Counter()
    with (
        whole_folder(config.output, is_ours, overwrite=config.overwrite) as folder,
        progress(len(STEPS), "science", "steps", config.progress) as shown,
        collected(told),
    ):
        numbers = _analyse(inputs, responses, config, folder, faults, told, shown)
    if told:
        logger.info("The libraries warned of %d things, see %s", len(told), PAGE)
    found = numbers["detection"]
    return Summary(
        path=Path(config.output),
        target=numbers["target"]["name"],
        n_runs=len(numbers["runs"]),
        livetime_s=found["livetime_s"],
        significance=found["significance"],
        converged=numbers["spectrum"]["converged"],
        numbers=numbers,
        seconds=time.perf_counter() - clock,
        warnings=tuple(faults.warnings),
    )


@contextmanager
def _step(shown: Progress, name: str, seconds: dict[str, float]) -> Iterator[None]:
    """A context that shows the name of a step and keeps how long it took."""
    shown.note(name)
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 2)
    shown.advance()


def _analyse(
    inputs: list[Path],
    responses: list[Path],
    config: "ScienceConfig",
    folder: Path,
    faults: Any,
    told: Counter[str],
    shown: Progress,
) -> dict[str, Any]:
    """Do everything and fill the folder; return the numbers."""
    from astri_gpu.provenance import now, provenance
    from astri_gpu.report.figures import save
    from astri_gpu.science import pictures
    from astri_gpu.science.extraction import Extractor, counts_of
    from astri_gpu.science.fitting import fit_spectrum, flux_points, stacked
    from astri_gpu.science.gammapy_calls import versions
    from astri_gpu.science.light_curve import light_curve
    from astri_gpu.science.maps import sky_maps
    from astri_gpu.science.numbers import collect
    from astri_gpu.science.page import page
    from astri_gpu.science.products import run_rows, stamp, write_products
    from astri_gpu.science.runs import choose_runs
    from astri_gpu.science.theta2 import theta2
    from astri_gpu.store_disk import json_ready

    started = now()
    seconds: dict[str, float] = {}
    with _step(shown, STEPS[0], seconds):
        chosen = choose_runs(inputs, responses, config, faults)
    with _step(shown, STEPS[1], seconds):
        extractor = Extractor(chosen, config)
        chosen, datasets = extractor.datasets(faults)
        each = [counts_of([dataset]) for dataset in datasets]
        total = counts_of(datasets)
        rows = run_rows(chosen, datasets, each)
    with _step(shown, STEPS[2], seconds):
        name = chosen.target.name
        fit = fit_spectrum(datasets, total, name, config)
        if not fit.converged:
            faults.warn(f"The fit of the spectrum did not converge ({fit.message})")
        if fit.faint:
            faults.warn(
                f"{name} has {total.significance:.1f} sigma, less than sed.min_significance="
                f"{config.sed.min_significance:g}: only the amplitude is fitted, for an index of "
                f"{config.sed.faint_index:g}"
            )
    with _step(shown, STEPS[3], seconds):
        together = stacked(datasets)
        points = flux_points(together, fit, config)
    with _step(shown, STEPS[4], seconds):
        curve = light_curve(chosen, datasets, extractor, fit, config, faults)
    with _step(shown, STEPS[5], seconds):
        angles = theta2(chosen, extractor, config, faults)
    with _step(shown, STEPS[6], seconds):
        maps = sky_maps(chosen, extractor, config, faults)
    notes = chosen.notes
    with _step(shown, STEPS[7], seconds):
        target, dpi = chosen.target, config.dpi
        circles = config.circles()
        if config.detection.exclude_target_deg:
            circles.append((target.ra_deg, target.dec_deg, config.detection.exclude_target_deg))
        made = {
            "theta2.png": pictures.theta2_figure(angles, target, dpi, notes),
            "flux_points.png": pictures.spectrum_figure(fit, points, target, dpi, notes),
            "light_curve.png": pictures.light_curve_figure(curve, fit, target, dpi, notes),
        }
        if maps is not None:
            made["maps.png"] = pictures.map_figure(maps, target, circles, dpi, notes)
        for picture, figure in made.items():
            save(figure, folder / picture)
    with _step(shown, STEPS[8], seconds):
        record = provenance("science", asdict(config), [*chosen.files, *responses], started)
        meta = {
            "target": chosen.target.name,
            "creator": f"astri_gpu {record['version']}",
            "simulated": " ".join(notes),
        }
        write_products(
            folder,
            rows=rows,
            datasets=datasets,
            stacked=together,
            fit=fit,
            points=points,
            curve=curve,
            angles=angles,
            maps=maps,
            meta=meta,
        )
        stamp(sorted(folder.rglob("*.fits*")), record, notes)
    numbers = collect(
        chosen,
        faults,
        told,
        limits=extractor.limits,
        on_radius_deg=extractor.largest_radius_deg,
        rows=rows,
        total=total,
        fit=fit,
        curve=curve,
        angles=angles,
        maps=maps,
    )
    numbers |= {"step_seconds": seconds, "versions": versions(), "provenance": record}
    numbers = json_ready(numbers)
    (folder / NUMBERS).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(numbers, folder), encoding="utf-8")
    return numbers
