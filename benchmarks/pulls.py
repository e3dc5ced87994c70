"""A simulated Crab through `select` and Gammapy: do amplitude and index come back?

``python -m benchmarks.pulls --help``. Every seed is an observation of its own: events drawn from
the simulated stores by `astri-gpu select`, with the responses that `astri-gpu irf` made. Gammapy
reduces them to on and off counts with reflected regions, corrects for the containment, and fits a
power law; a pull is (fitted - true) / error. The seeds share their simulated events, so what these
lack all pulls have in common: the fit of all seeds together shows it.
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .machine import describe, slug

__all__ = ["fit_runs", "main", "pulls_of"]

Table = dict[str, Any]

AMPLITUDE, INDEX = 2.83e-11, 2.62  # Crab of HEGRA (ApJ 614, 897): TeV-1 cm-2 s-1 at 1 TeV
REFERENCE_TEV = 3.0  # where amplitude and index of the fit have little in common
TARGET_DEG = 83.6287, 22.0147
PARAMETERS = ("amplitude", "index")
WITHIN = 2.0  # sigma


def main(arguments: list[str] | None = None) -> None:
    """Select, reduce, fit, and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pulls", description=__doc__)
    parser.add_argument("stores", nargs="+", help="DL2b stores of simulated gammas and protons")
    parser.add_argument("--cuts", type=Path, help="file of cuts; made for cc02 if left out")
    parser.add_argument("--irf2", type=Path, help="their response; made if left out")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1, help="number of the first one")
    parser.add_argument("--runs", type=int, default=4, help="of half an hour, for each seed")
    parser.add_argument("--part", default="all", help="showers that stand in: all, even or odd")
    parser.add_argument("--radius", type=float, default=0.2, help="of the on region, deg")
    parser.add_argument("--energies", type=float, nargs=2, default=(1.58489, 100.0), help="TeV")
    parser.add_argument("--folder", type=Path, help="keeps event lists and responses here")
    parser.add_argument("--name", default="pulls", help="end of the names of the results")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="astri-gpu-pulls-") as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        results = {"machine": describe(), **_measure(folder, options)}
    stem = options.output / f"{slug(results['machine'])}-{options.name}"
    options.output.mkdir(parents=True, exist_ok=True)
    stem.with_name(stem.name + ".json").write_text(json.dumps(results, indent=1) + "\n")
    text = _markdown(results)
    stem.with_name(stem.name + ".md").write_text(text)
    _draw(results, stem.with_name(stem.name + ".png"))
    print(text)


def _measure(folder: Path, options: argparse.Namespace) -> Table:
    """Return the fits of all seeds, one by one and together."""
    from astri_gpu.config import compose
    from astri_gpu.stages import irf, optimize, select

    # Both cuts and responses are those of the events that stand in: what is tested is the way from
    # counts to fluxes, and independent events would add their own statistical error to every pull.
    given = "input=[" + ",".join(options.stores) + "]"
    cuts, response = options.cuts, options.irf2
    if cuts is None:
        cuts = folder / "cc02.fits"
        if not cuts.exists():
            optimize.run(compose("optimize", [given, "cuts=cc02", f"output={cuts}"]))
    if response is None:
        made = folder / "irf"
        if not made.exists():
            words = [given, f"cut_files={cuts}", f"output={made}", "n_bootstrap=0"]
            irf.run(compose("irf", words))
        (response,) = made.glob("*.irf2.fits.gz")
    rows, seen, datasets = [], [], []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        output = folder / f"seed{seed}"
        words = [
            given,
            f"cut_file={cuts}",
            f"response={response}",
            f"output={output}",
            f"part={options.part}",
            f"observation.n_runs={options.runs}",
            f"observation.seed={seed}",
            "overwrite=true",
            "progress=false",
        ]
        summary = select.run(compose("select", words))
        seen.append(summary.line.replace(f"{folder}/", ""))
        found = reduce_runs(output, options.radius, tuple(options.energies))
        rows.append({"seed": seed, **fit_runs([found])})
        datasets.append(found)
        print(seed, {name: round(rows[-1][name]["pull"], 2) for name in PARAMETERS}, flush=True)
    return {
        "stores": [Path(path).name for path in options.stores],
        "part": options.part,
        "radius_deg": options.radius,
        "energies_tev": list(options.energies),
        "n_runs": options.runs,
        "select": seen[0],
        "seeds": rows,
        "pulls": {name: pulls_of([row[name]["pull"] for row in rows]) for name in PARAMETERS},
        "together": fit_runs(datasets),
        "response": _against_response(options, cuts, datasets[0]),
    }


def _against_response(options: argparse.Namespace, cuts: Path, dataset: Any) -> list[Table]:
    """Return the gammas in the on region by their rates and by Gammapy, without any drawing.

    The rates are those of the simulated events that stand in, with the errors of their number;
    Gammapy folds the true spectrum with the response and corrects for the containment.
    """
    from astri_gpu.config import compose
    from astri_gpu.dl3.standing_in import Plan
    from astri_gpu.selection.cut_file import read_cuts
    from astri_gpu.selection.events import read_sample

    chosen = read_cuts(cuts)
    sample = read_sample(options.stores, filter=chosen.filter, part=options.part)
    config = compose("select", ["input=x", "cut_file=x", "response=x", "output=x"])
    plan = Plan(sample, config.observation, config.flux, farthest=config.max_zenith_distance_deg)
    table, rate = plan.tables(sample.pointings()[0])[0]
    use = chosen.select(table.columns) & (table.columns["theta"] < options.radius)
    dataset.models = [_crab()]
    expected = dataset.npred_signal().data.ravel()
    edges = dataset.counts.geom.axes["energy"].edges.to_value("TeV")
    time = float(dataset.gti.time_sum.to_value("s"))
    place = np.digitize(table.columns["reco_energy"], edges) - 1
    rows = []
    for k, wanted in enumerate(expected):
        inside = rate[use & (place == k)]
        rows.append(
            {
                "energy_low_tev": float(edges[k]),
                "energy_high_tev": float(edges[k + 1]),
                "n_events": len(inside),
                "simulated": float(inside.sum() * time),
                "error": float(np.sqrt((inside**2).sum()) * time),
                "gammapy": float(wanted),
            }
        )
    return rows


def reduce_runs(folder: Path, radius_deg: float, energies_tev: tuple[float, float]) -> Any:
    """Return on and off counts of all runs in a folder, stacked, with their response."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from gammapy.data import DataStore
    from gammapy.datasets import Datasets, SpectrumDataset
    from gammapy.makers import ReflectedRegionsBackgroundMaker, SpectrumDatasetMaker
    from gammapy.maps import MapAxis, RegionGeom
    from regions import CircleSkyRegion

    low, high = energies_tev
    n_bins = max(1, round(5 * np.log10(high / low)))
    axis = MapAxis.from_energy_bounds(low * u.TeV, high * u.TeV, n_bins, name="energy")
    true = MapAxis.from_energy_bounds("0.1 TeV", "330 TeV", 70, name="energy_true")
    target = SkyCoord(*TARGET_DEG, unit="deg")
    region = CircleSkyRegion(target, radius_deg * u.deg)
    empty = SpectrumDataset.create(RegionGeom.create(region, axes=[axis]), energy_axis_true=true)
    maker = SpectrumDatasetMaker(
        selection=["counts", "exposure", "edisp"], containment_correction=True
    )
    background = ReflectedRegionsBackgroundMaker()
    runs = Datasets()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of units in files of others, and of empty bins
        for observation in DataStore.from_dir(folder).get_observations():
            dataset = maker.run(empty.copy(name=str(observation.obs_id)), observation)
            runs.append(background.run(dataset, observation))
        return runs.stack_reduce(name=folder.name)


def fit_runs(datasets: list[Any]) -> Table:
    """Return amplitude and index with errors and pulls, from on and off counts fitted jointly."""
    from gammapy.datasets import Datasets
    from gammapy.modeling import Fit

    crab = _crab()
    model = crab.spectral_model
    amplitude = float(model.amplitude.value)
    chosen = Datasets(datasets)
    chosen.models = [crab]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = Fit().run(chosen)
    true = {"amplitude": amplitude, "index": INDEX}
    counts = [float(np.sum(part.counts.data)) for part in chosen]
    excess = [float(np.sum(part.excess.data)) for part in chosen]
    return {
        "converged": bool(result.success),
        "on": sum(counts),
        "excess": sum(excess),
        **{
            name: {
                "value": float(model.parameters[name].value),
                "error": float(model.parameters[name].error),
                "true": true[name],
                "pull": float(
                    (model.parameters[name].value - true[name]) / model.parameters[name].error
                ),
            }
            for name in PARAMETERS
        },
    }


def _crab() -> Any:
    """Return the true power law, with its reference where amplitude and index are independent."""
    from astropy import units as u
    from gammapy.modeling.models import PowerLawSpectralModel, SkyModel

    amplitude = AMPLITUDE * REFERENCE_TEV**-INDEX * u.Unit("TeV-1 cm-2 s-1")
    model = PowerLawSpectralModel(index=INDEX, amplitude=amplitude, reference=REFERENCE_TEV * u.TeV)
    return SkyModel(spectral_model=model, name="crab")


def pulls_of(pulls: list[float]) -> Table:
    """Return mean with its error, standard deviation and number within two sigma."""
    values = np.asarray(pulls)
    return {
        "mean": float(values.mean()),
        "error_of_mean": float(1 / np.sqrt(len(values))),
        "standard_deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
        "within_2_sigma": int(np.count_nonzero(np.abs(values) <= WITHIN)),
        "n": len(values),
    }


def _markdown(results: Table) -> str:
    machine, low_high = results["machine"], results["energies_tev"]
    lines = [
        "# A simulated Crab through select and Gammapy",
        "",
        f"{machine['date']}, revision {machine['revision']}. Events of the built-in **fast model** "
        f"({', '.join(results['stores'])}), {results['n_runs']} runs of half an hour for each of "
        f"{len(results['seeds'])} seeds, on region {results['radius_deg']} deg, reflected regions, "
        f"{low_high[0]:g} to {low_high[1]:g} TeV. Truth: {AMPLITUDE:g} TeV-1 cm-2 s-1 at 1 TeV, "
        f"index {INDEX} (HEGRA); amplitudes are compared at {REFERENCE_TEV:g} TeV.",
        "",
        f"First seed: {results['select']}",
        "",
        "| | mean pull | standard deviation | within 2 sigma | all seeds together: fitted / true, "
        "pull |",
        "|---|---:|---:|---:|---|",
    ]
    for name, row in results["pulls"].items():
        one = results["together"][name]
        spread = "" if row["standard_deviation"] is None else f"{row['standard_deviation']:.2f}"
        lines.append(
            f"| {name} | {row['mean']:+.2f} ± {row['error_of_mean']:.2f} | "
            f"{spread} | {row['within_2_sigma']} of {row['n']} | "
            f"{one['value'] / one['true']:.4f} ± {one['error'] / one['true']:.4f}, "
            f"{one['pull']:+.2f} |"
        )
    lines += [
        "",
        "| seed | excess | amplitude / true | pull | index | pull |",
        "|---|" + "---:|" * 5,
    ]
    for row in results["seeds"]:
        amplitude, index = row["amplitude"], row["index"]
        lines.append(
            f"| {row['seed']} | {row['excess']:.0f} | {amplitude['value'] / amplitude['true']:.3f} "
            f"± {amplitude['error'] / amplitude['true']:.3f} | {amplitude['pull']:+.2f} | "
            f"{index['value']:.3f} ± {index['error']:.3f} | {index['pull']:+.2f} |"
        )
    lines += [
        "",
        "Gammas in the on region of one seed as the rates of the simulated events say, and as "
        "Gammapy expects them from the response and the true spectrum (nothing is drawn here):",
        "",
        "| energy / TeV | simulated events | by rates | by response | ratio |",
        "|---|" + "---:|" * 4,
    ]
    bins = results["response"]
    for row in bins:
        ratio = row["simulated"] / row["gammapy"]
        lines.append(
            f"| {row['energy_low_tev']:.3g} to {row['energy_high_tev']:.3g} | {row['n_events']} | "
            f"{row['simulated']:.1f} | {row['gammapy']:.1f} | {ratio:.3f} ± "
            f"{row['error'] / row['gammapy']:.3f} |"
        )
    simulated, gammapy = (sum(row[name] for row in bins) for name in ("simulated", "gammapy"))
    error = np.sqrt(sum(row["error"] ** 2 for row in bins))
    lines.append(
        f"| all | {sum(row['n_events'] for row in bins)} | {simulated:.1f} | {gammapy:.1f} | "
        f"{simulated / gammapy:.3f} ± {error / gammapy:.3f} |"
    )
    return "\n".join(lines) + "\n"


def _draw(results: Table, path: Path) -> None:
    """Draw the pulls of both parameters with the normal distribution."""
    from matplotlib.figure import Figure

    from astri_gpu.display.style import CAMERA_COLOURS, GRID, INK

    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    edges = np.arange(-4, 4.5, 0.5)
    x = np.linspace(-4, 4, 200)
    for axes, name, colour in zip(
        figure.subplots(1, 2, sharey=True), PARAMETERS, CAMERA_COLOURS, strict=False
    ):
        pulls = np.array([row[name]["pull"] for row in results["seeds"]])
        found = results["pulls"][name]
        axes.axvspan(-WITHIN, WITHIN, color=GRID, alpha=0.5, linewidth=0)
        axes.hist(np.clip(pulls, -3.99, 3.99), edges, color=colour, alpha=0.75, label="seeds")
        normal = len(pulls) * 0.5 * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
        axes.plot(x, normal, color=INK, linewidth=1.2, label="normal distribution")
        axes.set_xlabel(f"({name} - true) / error")
        axes.set_title(
            f"{name}: mean {found['mean']:+.2f} ± {found['error_of_mean']:.2f}, "
            f"{found['within_2_sigma']} of {found['n']} within 2",
            fontsize=9,
            loc="left",
        )
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("seeds")
    figure.axes[0].legend(fontsize=7, frameon=False, loc="upper left")
    figure.supxlabel("Simulated Crab (HEGRA) of the fast model, fitted by Gammapy", fontsize=7)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
