"""Sensitivity and resolutions of the simulated array beside the published ones of ASTRI.

``python -m benchmarks.sensitivity --folder FOLDER``, where FOLDER holds DL2b stores as
`benchmarks.reconstruction` leaves them: test_gamma, test_point, test_proton, and more of them
(test_electron, test_proton2) if they are there, with the ending _dl2b.zarr. Cuts are made by
`astri-gpu optimize` for
0.5, 5 and 50 h, curves by `astri-gpu irf`. What explains the ratios is measured on the same events:
how well gammas are told from protons, and how the ratio changes when cuts are made on one half of
the showers and judged on the other, when the background is taken from a wider field (and is more),
when cuts may leave no simulated background, and when electrons are added.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .machine import describe, slug
from .reconstruction import scores

__all__ = ["main", "ratio_table"]

CLASSES = ("cc01", "cc02", "cc03")
ENDING = "_dl2b.zarr"
LONGEST = "cc03"
VARIANTS = {
    "as configured": [],
    "no least background": ["cuts.min_background_events=0"],
    "background to 4 deg, 30 events": [
        "cuts.background_offset_max_deg=4",
        "cuts.min_background_events=30",
    ],
}

Table = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Make cuts and curves, and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sensitivity", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the DL2b stores")
    parser.add_argument("--reference", help="response file (GADF) of another array")
    parser.add_argument("--without", nargs="*", default=[], help="names of stores to leave out")
    parser.add_argument("--name", default="sensitivity", help="end of the names of the results")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    found = {
        path.name.removesuffix(ENDING): path for path in options.folder.glob(f"test_*{ENDING}")
    }
    stores = {name: found[name] for name in sorted(found) if name not in options.without}
    if not {"test_gamma", "test_proton"} <= set(stores):
        sys.exit(f"{options.folder} does not hold test_gamma_dl2b.zarr and test_proton_dl2b.zarr.")
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="astri-gpu-sensitivity-") as name:
        work = Path(name)
        results = {"machine": describe(), **_measure(stores, work, options.reference)}
        stem = options.output / f"{slug(results['machine'])}-{options.name}"
        shutil.copyfile(work / "all" / "curves.png", stem.with_name(stem.name + ".png"))
    stem.with_name(stem.name + ".json").write_text(json.dumps(results, indent=1) + "\n")
    text = _markdown(results)
    stem.with_name(stem.name + ".md").write_text(text)
    print(text)


def _measure(stores: dict[str, Path], work: Path, reference: str | None) -> Table:
    """Return ratios, resolutions and what explains them."""
    paths = list(stores.values())
    steps: list[Table] = []

    def run(stage: str, label: str, given: list[str]) -> None:
        from astri_gpu.config import compose

        started = time.perf_counter()
        summary = import_module(f"astri_gpu.stages.{stage}").run(
            compose(stage, [f"input=[{','.join(map(str, paths))}]", "progress=false", *given])
        )
        line = str(summary.line).splitlines()[-1].replace(str(work), "")
        seconds = time.perf_counter() - started
        steps.append({"stage": stage, "what": label, "seconds": seconds, "summary": line})

    def curves(label: str, classes: tuple[str, ...], made_on: str, judged_on: str) -> Table:
        files = [work / f"{name}_{made_on}.fits" for name in classes]
        for name, file in zip(classes, files, strict=True):
            if not file.exists():
                run("optimize", name, [f"cuts={name}", f"part={made_on}", f"output={file}"])
        given = [f"cut_files=[{','.join(map(str, files))}]", f"part={judged_on}"]
        folder = work / label.replace(" ", "_")
        given += [f"output={folder}", *([f"reference={reference}"] if reference else [])]
        run("irf", label, given)
        record: Table = json.loads((folder / "curves.json").read_text())
        return record

    whole = curves("all", CLASSES, "all", "all")
    halves = [
        curves(f"made on {one} showers and judged on {other} ones", (LONGEST,), one, other)
        for one, other in (("even", "odd"), ("odd", "even"))
    ]
    return {
        "stores": {name: int(_attrs(path)["n_events"]) for name, path in stores.items()},
        "simulation_model": whole["simulation_model"],
        "background": whole["background"],
        "steps": steps,
        "auc": scores(stores["test_gamma"], stores["test_proton"]),
        "ratio": ratio_table(whole),
        "ratio_on_other_half": [ratio_table(record) for record in halves],
        "resolution": _resolutions(whole),
        "variants": _variants(stores, work),
        "sensitivity": {
            name: [entry for entry in _sensitivity(whole, name) if entry["flux"] is not None]
            for name in CLASSES
        },
    }


def _variants(stores: dict[str, Path], work: Path) -> list[Table]:
    """Return the ratio for 50 h, and the background events behind it, for other ways to make cuts.

    Every way is tried with the protons alone and, if there are others, with all background.
    """
    from astri_gpu.config import compose
    from astri_gpu.responses.references import published_sensitivity
    from astri_gpu.selection.cut_file import read_cuts
    from astri_gpu.stages.optimize import run

    wanted = ("test_gamma", "test_point", "test_proton")
    alone = [path for name, path in stores.items() if name.startswith(wanted)]
    chosen = {"protons": alone}
    if len(alone) < len(stores):
        chosen["all background"] = list(stores.values())
    rows = []
    for background, paths in chosen.items():
        for number, (name, words) in enumerate(VARIANTS.items()):
            file = work / f"variant_{background.split()[0]}_{number}.fits"
            given = [f"input=[{','.join(map(str, paths))}]", f"output={file}", "progress=false"]
            run(compose("optimize", [*given, f"cuts={LONGEST}", *words]))
            cuts = read_cuts(file)
            ratio = cuts.curve["sensitivity"] / published_sensitivity(cuts.energy_edges)
            middle = np.sqrt(cuts.energy_edges[:-1] * cuts.energy_edges[1:])
            rows.append(
                {
                    "background": background,
                    "cuts": name,
                    "bins": [
                        {"energy_tev": float(e), "ratio": float(r), "background_events": int(n)}
                        for e, r, n in zip(
                            middle, ratio, cuts.curve["n_background_events"], strict=True
                        )
                        if np.isfinite(r)
                    ],
                }
            )
    return rows


def _attrs(path: Path) -> Table:
    from astri_gpu.store import open_store

    return dict(open_store(path).attrs)


def _chosen(record: Table, kind: str, event_class: str, **labels: Any) -> list[Table]:
    wanted = {"event_class": event_class, **labels}
    return [
        curve
        for curve in record["curves"]
        if curve["kind"] == kind
        and all(curve["labels"].get(name) == value for name, value in wanted.items())
    ]


def _middle(curve: Table) -> list[float]:
    edges = np.asarray(curve["edges"])
    return [float(value) for value in np.sqrt(edges[:-1] * edges[1:])]


def ratio_table(record: Table) -> list[Table]:
    """Return a row for each bin of the 50 h curve that has a published value.

    Parameters
    ----------
    record
        Contents of the file curves.json of `astri-gpu irf`.
    """
    (curve,) = _chosen(record, "sensitivity", LONGEST, exposure_h=50.0)
    rows = []
    for k, energy in enumerate(_middle(curve)):
        ratio = {end: curve["values"]["ratio"][end][k] for end in ("value", "low", "high")}
        if ratio["value"] is None:
            continue
        counts = {
            name: curve["counts"][name][k]
            for name in ("n_signal_events", "n_background_events", "few_events", "cut_flags")
        }
        flux = curve["values"]["flux_e2"]["value"][k]
        rows.append({"energy_tev": energy, "flux_e2": flux, **ratio, **counts})
    return rows


def _sensitivity(record: Table, name: str) -> list[Table]:
    """Return the sensitivity of a class for its own observing time."""
    curves = _chosen(record, "sensitivity", name)
    (curve,) = (
        curve
        for curve in curves
        if curve["labels"]["exposure_h"] == curve["labels"]["optimised_for_h"]
    )
    values = curve["values"]["flux_e2"]["value"]
    return [
        {"energy_tev": energy, "flux": flux, "exposure_h": curve["labels"]["exposure_h"]}
        for energy, flux in zip(_middle(curve), values, strict=True)
    ]


def _resolutions(record: Table) -> list[Table]:
    """Return angular and energy resolution after the cuts for 50 h, by true energy."""
    angle, energy = (
        next(c for c in _chosen(record, kind, LONGEST) if c["axis"] == "true_energy")
        for kind in ("angular_resolution", "energy_resolution")
    )
    return [
        {
            "energy_tev": middle,
            "n_events": angle["counts"]["n_events"][k],
            "radius_68_arcmin": _times(angle["values"]["radius_68"]["value"][k], 60),
            "radius_95_arcmin": _times(angle["values"]["radius_95"]["value"][k], 60),
            "bias": energy["values"]["bias"]["value"][k],
            "resolution": energy["values"]["resolution"]["value"][k],
        }
        for k, middle in enumerate(_middle(angle))
    ]


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _shown(value: Any, form: str) -> str:
    if value is None or value == "inf":
        return "∞" if value == "inf" else "–"
    return format(value, form)


def _other_half(results: Table, energy: float) -> str:
    """Return the geometric mean of the ratios of both halves at an energy."""
    found = [
        row["value"]
        for rows in results["ratio_on_other_half"]
        for row in rows
        if math.isclose(row["energy_tev"], energy, rel_tol=1e-6)
    ]
    if len(found) < 2 or "inf" in found:
        return "–"
    return f"{math.sqrt(found[0] * found[1]):.2f}"


def _markdown(results: Table) -> str:
    machine, auc = results["machine"], results["auc"]
    lines = [
        "# Sensitivity of the simulated array beside ASTRI's",
        "",
        f"{machine['date']}, revision {machine['revision']}, {machine['processor']}, "
        f"{machine['cores']} cores. {results['simulation_model']}",
        "",
        "Events: "
        + ", ".join(f"{name} {n}" for name, n in results["stores"].items())
        + f". Background: {', '.join(results['background'])}.",
        "",
        "| stage | what | seconds |",
        "|---|---|---:|",
        *(
            f"| {step['stage']} | {step['what']} | {step['seconds']:.1f} |"
            for step in results["steps"]
        ),
        "",
        "## 50 h, over the published sensitivity (arXiv:2208.03177, digitised)",
        "",
        "The interval is the central 68 % of a bootstrap over showers. Events are simulated ones "
        "behind the number. The last column has cuts made on one half of the showers and judged on "
        "the other (geometric mean of both ways), each with half the events.",
        "",
        "| TeV | erg s⁻¹ cm⁻² | ratio | interval | gammas | background events | other half |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['energy_tev']:.3g} | {_shown(row['flux_e2'], '.2e')} "
        f"| {_shown(row['value'], '.2f')} "
        f"| {_shown(row['low'], '.2f')} – {_shown(row['high'], '.2f')} "
        f"| {row['n_signal_events']} | {row['n_background_events']} "
        f"| {_other_half(results, row['energy_tev'])} |"
        for row in results["ratio"]
    ]
    lines += _variant_lines(results["variants"])
    lines += ["", "Area under the ROC of gammas against protons: "]
    lines[-1] += ", ".join(f"{name} {entry['auc']:.3f}" for name, entry in auc.items()) + "."
    lines += [
        "",
        "## E² dN/dE for other observing times, erg s⁻¹ cm⁻²",
        "",
        "| TeV | " + " | ".join(f"{rows[0]['exposure_h']:g} h" for rows in _lists(results)) + " |",
        "|---:|" + "---:|" * len(_lists(results)),
    ]
    energies = sorted({row["energy_tev"] for rows in _lists(results) for row in rows})
    for energy in energies:
        cells = [
            next((_shown(r["flux"], ".2e") for r in rows if r["energy_tev"] == energy), "–")
            for rows in _lists(results)
        ]
        lines.append(f"| {energy:.3g} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Resolutions after the cuts for 50 h",
        "",
        "| true energy, TeV | gammas | 68 %, ′ | 95 %, ′ | bias | energy resolution |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['energy_tev']:.3g} | {row['n_events']} | {_shown(row['radius_68_arcmin'], '.1f')} "
        f"| {_shown(row['radius_95_arcmin'], '.1f')} | {_shown(row['bias'], '+.1%')} "
        f"| {_shown(row['resolution'], '.1%')} |"
        for row in results["resolution"]
    ]
    return "\n".join(lines) + "\n"


def _variant_lines(rows: list[Table]) -> list[str]:
    """Return the table of the ratios for other ways to make cuts."""
    energies = sorted({entry["energy_tev"] for row in rows for entry in row["bins"]})
    lines = [
        "",
        "## The same ratio for other cuts and backgrounds",
        "",
        "In brackets the simulated background events that the cuts leave.",
        "",
        "| TeV | " + " | ".join(f"{row['background']}, {row['cuts']}" for row in rows) + " |",
        "|---:|" + "---:|" * len(rows),
    ]
    for energy in energies:
        cells = []
        for row in rows:
            found = [entry for entry in row["bins"] if entry["energy_tev"] == energy]
            cells += [f"{e['ratio']:.2f} ({e['background_events']})" for e in found] or ["–"]
        lines.append(f"| {energy:.3g} | " + " | ".join(cells) + " |")
    return lines


def _lists(results: Table) -> list[list[Table]]:
    return [rows for rows in results["sensitivity"].values() if rows]


if __name__ == "__main__":
    main()
