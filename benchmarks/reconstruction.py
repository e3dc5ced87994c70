"""Energy, class and direction on a simulated production: what the forests reach, and how fast.

``python -m benchmarks.reconstruction --help``. Four productions are made by the documented commands
(train and test have their own seeds), a set of forests is trained on the first two and applied to
the others. Errors are judged with pyirf's functions, the score of single images with
scikit-learn's forest, so that neither depends on our own.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .machine import describe, slug

__all__ = ["SINGLE_IMAGE", "error_table", "main", "scores", "single_image_score"]

SINGLE_IMAGE = (
    "hillas_intensity",
    "hillas_length",
    "hillas_width",
    "astri_conc",
    "astri_m3long",
    "astri_asym",
    "astri_mdist",
)
"""SIZE, LENGTH, WIDTH, CONC, M3LONG, ASYM, MDIST: 0.908 on real ASTRI Monte Carlo (200 trees)."""
REAL_AUC = 0.908
N_TREES = 200
HEADLINE = "about 10 % and 3 arcmin above 10 TeV (ASTRI web pages; after cuts)"
CUTS = {
    "all": (0.0, 1),
    "gammaness > 0.5": (0.5, 1),
    "gammaness > 0.8": (0.8, 1),
    "gammaness > 0.8, three images and more": (0.8, 3),
}
"""Least gammaness, and fewest images."""
EDGES = np.geomspace(0.63095734, 251.188643, 14)  # TeV, five bins a decade
MIN_EVENTS = 30

Table = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Simulate, train, reconstruct, and write what came out."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reconstruction", description=__doc__
    )
    parser.add_argument("--gammas", type=int, default=6_000_000, help="thrown, train and test each")
    parser.add_argument("--protons", type=int, default=4_000_000, help="the same for protons")
    parser.add_argument("--point", type=int, default=2_000_000, help="on-axis gammas for the test")
    parser.add_argument("--train", nargs="*", default=[], help="key=value of train")
    parser.add_argument("--folder", type=Path, help="keeps (and uses again) stores and models here")
    parser.add_argument("--name", default="reconstruction", help="end of the names of the results")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="astri-gpu-reconstruction-") as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        results = {"machine": describe(), **_measure(folder, options)}
    stem = options.output / f"{slug(results['machine'])}-{options.name}"
    options.output.mkdir(parents=True, exist_ok=True)
    stem.with_name(stem.name + ".json").write_text(json.dumps(results, indent=1) + "\n")
    text = _markdown(results)
    stem.with_name(stem.name + ".md").write_text(text)
    print(text)


def _measure(folder: Path, options: argparse.Namespace) -> Table:
    """Return commands, seconds and figures."""
    made = {
        "train_gamma": f"production=gamma view=diffuse seed=11 n_showers={options.gammas}",
        "train_proton": f"production=proton seed=12 n_showers={options.protons}",
        "test_gamma": f"production=gamma view=diffuse seed=21 n_showers={options.gammas}",
        "test_proton": f"production=proton seed=22 n_showers={options.protons}",
        "test_point": f"production=gamma view=on_axis seed=31 n_showers={options.point}",
    }
    steps: list[Table] = []

    def run(stage: str, words: str, output: Path) -> None:
        shown = f"astri-gpu {stage} {words} output={output.name}".replace(f"{folder}{os.sep}", "")
        step: Table = {"command": shown, "seconds": None, "summary": "made before"}
        if not output.exists():
            given = [*words.split(), f"output={output}", "progress=false"]
            step["summary"], step["seconds"] = _stage(stage, given)
            step["summary"] = step["summary"].replace(f"{folder}{os.sep}", "")
        steps.append(step)

    for name, words in made.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        run("simulate", words, folder / f"{name}_dl0.zarr")
        run("process", f"{folder / name}_dl0.zarr", folder / f"{name}_dl2.zarr")
    dl2 = {name: folder / f"{name}_dl2.zarr" for name in made}
    print("single images ...", file=sys.stderr, flush=True)
    single = {
        chosen: single_image_score(*(dl2[name] for name in list(made)[:4]), filtered=filtered)
        for chosen, filtered in (("all images", False), ("images that pass the filter", True))
    }
    print("train ...", file=sys.stderr, flush=True)
    model = folder / "forests.skops"
    words = [f"{dl2['train_gamma']} {dl2['train_proton']}", *options.train]
    run("train", " ".join(words), model)
    dl2b = {}
    for name in ("test_gamma", "test_proton", "test_point"):
        dl2b[name] = folder / f"{name}_dl2b.zarr"
        run("reconstruct", f"{dl2[name]} model={model}", dl2b[name])
    return {
        "steps": steps,
        "images": {name: int(_attrs(path)["n_images"]) for name, path in dl2.items()},
        "single_image_auc": single,
        "auc": scores(dl2b["test_gamma"], dl2b["test_proton"]),
        "errors": {
            f"{view}, {cut}": error_table(dl2b[name], *limits)
            for view, name in (("on axis", "test_point"), ("within 6 deg", "test_gamma"))
            for cut, limits in CUTS.items()
        },
    }


def _stage(stage: str, overrides: list[str]) -> tuple[str, float]:
    """Run a stage; return its summary line and the seconds that it took."""
    from importlib import import_module

    from astri_gpu.config import compose

    # As on the command line, words without a key are inputs.
    inputs = [word for word in overrides if "=" not in word]
    rest = [word for word in overrides if "=" in word]
    config = compose(stage, [f"input=[{','.join(inputs)}]", *rest] if inputs else rest)
    run: Callable[[Any], Any] = import_module(f"astri_gpu.stages.{stage}").run
    started = time.perf_counter()
    summary = run(config)
    return str(summary.line), time.perf_counter() - started


def _attrs(path: Path) -> dict[str, Any]:
    from astri_gpu.store import open_store

    return dict(open_store(path).attrs)


def _images(path: Path, filtered: bool) -> Any:
    """Return the seven parameters of the images of a store (row, parameter)."""
    from astri_gpu.config import TrainConfig
    from astri_gpu.reconstruction.expressions import parse
    from astri_gpu.store import open_store

    store = open_store(path)
    condition = parse(TrainConfig(input="-", output="-").features.filter, condition=True)
    (camera,) = store.cameras()
    table = store.read_table(
        f"dl1/image/{camera}", sorted({*SINGLE_IMAGE, *(condition.names if filtered else ())})
    )
    values = np.stack([table[name] for name in SINGLE_IMAGE], axis=1)
    use = np.isfinite(values).all(axis=1)
    if filtered:
        use &= np.asarray(condition(table), dtype=bool)
    return values[use]


def single_image_score(
    train_gamma: Path, train_proton: Path, test_gamma: Path, test_proton: Path, *, filtered: bool
) -> Table:
    """Return the area under the ROC of a forest on the seven parameters of single images.

    As many gammas as protons; 200 trees with leaves of at least five images, scikit-learn alone.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score

    def sample(gamma: Path, proton: Path) -> tuple[Any, Any]:
        rows = [_images(proton, filtered), _images(gamma, filtered)]
        n = min(map(len, rows))
        values = np.concatenate([part[:n] for part in rows])
        return values, np.repeat([0, 1], n)

    values, labels = sample(train_gamma, train_proton)
    forest = RandomForestClassifier(N_TREES, min_samples_leaf=5, n_jobs=-1, random_state=1)
    forest.fit(values, labels)
    test, truth = sample(test_gamma, test_proton)
    importances = zip(SINGLE_IMAGE, map(float, forest.feature_importances_), strict=True)
    return {
        "n_train": len(labels),
        "n_test": len(truth),
        "auc": float(roc_auc_score(truth, forest.predict_proba(test)[:, 1])),
        "importances": dict(importances),
    }


def scores(gamma: Path, proton: Path) -> Table:
    """Return areas under the ROC of the full set of features, of images and of events."""
    from sklearn.metrics import roc_auc_score

    from astri_gpu.store import open_store

    stores = [open_store(proton), open_store(gamma)]

    def area(table: str, name: str, choose: Callable[[Any], Any]) -> Table:
        parts = []
        for store in stores:
            columns = store.read_table(table, None)
            use = choose(columns) & np.isfinite(columns[name])
            parts.append(columns[name][use])
        truth = np.repeat([0, 1], [len(part) for part in parts])
        auc = roc_auc_score(truth, np.concatenate(parts))
        return {"auc": float(auc), "n_proton": len(parts[0]), "n_gamma": len(parts[1])}

    (camera,) = stores[0].cameras("dl1")
    return {
        "images": area(f"dl2/image/{camera}", "tel_gammaness", lambda c: c["tel_is_valid"]),
        "events": area("dl2/event", "gammaness", lambda c: c["reco_is_valid"]),
        "events with stereo geometry": area(
            "dl2/event", "gammaness", lambda c: c["reco_is_valid"] & c["stereo_is_valid"]
        ),
        "events of three images and more": area(
            "dl2/event", "gammaness", lambda c: c["reco_is_valid"] & (c["reco_n_tels"] >= 3)
        ),
    }


def error_table(path: Path, gammaness: float, n_images: int) -> list[Table]:
    """Return bias and resolution of energy and direction per bin of true energy, by pyirf.

    Events with stereo geometry, at least this gammaness and so many images that pass the filter.
    The bias is the median of E_reco / E_true - 1, the resolution half of the central 68 % of it;
    angles contain 68 %.
    """
    from astropy import units
    from astropy.table import QTable
    from pyirf.benchmarks import angular_resolution, energy_bias_resolution

    from astri_gpu.kernels.coordinates import angular_separation
    from astri_gpu.store import open_store

    store = open_store(path)
    truth = store.read_table("simulation/event", ["true_energy", "true_alt", "true_az"])
    reco = store.read_table("dl2/event", None)
    use = reco["reco_is_valid"] & reco["stereo_is_valid"]
    use &= (reco["gammaness"] >= gammaness) & (reco["reco_n_tels"] >= n_images)

    def theta(name: str) -> Any:
        return angular_separation(
            reco[f"{name}_az"][use],
            reco[f"{name}_alt"][use],
            truth["true_az"][use],
            truth["true_alt"][use],
        )

    events = QTable(
        {
            "true_energy": truth["true_energy"][use] * units.TeV,
            "reco_energy": reco["reco_energy"][use].astype(np.float64) * units.TeV,
        }
    )
    edges = EDGES * units.TeV
    energy = energy_bias_resolution(events, edges)
    angles = {}
    for name in ("reco", "stereo", "disp"):
        events["theta"] = theta(name) * units.deg
        found = angular_resolution(events, edges)
        (column,) = [c for c in found.colnames if c.startswith("angular_resolution")]
        angles[name] = found[column].to_value("arcmin")
    rows = []
    for k, n_events in enumerate(energy["n_events"]):
        if n_events < MIN_EVENTS:
            continue
        rows.append(
            {
                "energy_low_tev": float(EDGES[k]),
                "energy_high_tev": float(EDGES[k + 1]),
                "n_events": int(n_events),
                "energy_bias": float(energy["bias"][k]),
                "energy_resolution": float(energy["resolution"][k]),
                **{f"{name}_68_arcmin": float(values[k]) for name, values in angles.items()},
            }
        )
    return rows


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _markdown(results: Table) -> str:
    machine = results["machine"]
    lines = [
        "# Energy, class and direction on simulated events",
        "",
        f"{machine['date']}, revision {machine['revision']}, {machine['processor']}, "
        f"{machine['cores']} cores. The events are those of the built-in **fast model**, with the "
        "thrown spectrum (E^-1.7).",
        "",
        "| command | seconds | |",
        "|---|---:|---|",
        *(
            f"| `{step['command']}` | {_seconds(step['seconds'])} | {step['summary']} |"
            for step in results["steps"]
        ),
        "",
        "Images: " + ", ".join(f"{name} {n}" for name, n in results["images"].items()) + ".",
        "",
        "## Gammas against protons, area under the ROC",
        "",
        f"| features | events | area |\n|---|---|---:|\n| real ASTRI Monte Carlo, seven parameters "
        f"of single images | | {REAL_AUC} |",
    ]
    for chosen, entry in results["single_image_auc"].items():
        lines.append(
            f"| seven parameters of single images | {chosen}: {entry['n_test']} | "
            f"{entry['auc']:.3f} |"
        )
    for chosen, entry in results["auc"].items():
        n = f"{entry['n_gamma']} gamma, {entry['n_proton']} proton"
        lines.append(f"| full set | {chosen}: {n} | {entry['auc']:.3f} |")
    first = next(iter(results["single_image_auc"].values()))
    lines += [
        "",
        "Importances of the seven: "
        + ", ".join(f"{name} {value:.3f}" for name, value in first["importances"].items())
        + ".",
        "",
        "## Energy and direction",
        "",
        f"ASTRI headline: {HEADLINE}. Angles contain 68 % of the events.",
    ]
    for chosen, rows in results["errors"].items():
        lines += [
            "",
            f"### {chosen}",
            "",
            "| true energy, TeV | events | bias | resolution | merged, ′ | geometry, ′ | DISP, ′ |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {row['energy_low_tev']:.3g} – {row['energy_high_tev']:.3g} | {row['n_events']} "
            f"| {100 * row['energy_bias']:+.1f} % | {100 * row['energy_resolution']:.1f} % "
            f"| {row['reco_68_arcmin']:.1f} | {row['stereo_68_arcmin']:.1f} "
            f"| {row['disp_68_arcmin']:.1f} |"
            for row in rows
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
