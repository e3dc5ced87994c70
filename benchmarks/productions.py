"""Productions of the built-in simulation: rates, memory, and image parameters beside real ones.

``python -m benchmarks.productions --help``. Every production runs in a process of its own.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .cases import peak_memory_mib, run_case
from .image_quantiles import compare, draw, read_reference
from .machine import describe, slug
from .timing import first_call

__all__ = ["main", "production_case"]

REFERENCE = Path("reference") / "astri_mc_parameters.json"
WARM_UP_SHOWERS = 2_000
MIB = 2**20


def main(arguments: list[str] | None = None) -> None:
    """Simulate and process gammas and protons, and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.productions", description=__doc__)
    parser.add_argument("--showers", type=int, default=1_000_000, help="of each particle")
    parser.add_argument("--particles", nargs="+", default=["gamma", "proton"])
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--overrides", nargs="*", default=[], help="key=value of simulate")
    parser.add_argument(
        "--reference",
        type=Path,
        help="JSON with histograms of real parameters (default: reference/ beside the real data)",
    )
    parser.add_argument("--scratch", type=Path, help="folder for the temporary stores")
    parser.add_argument("--name", default="productions", help="end of the names of the results")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"machine": describe(), "showers": options.showers, "cases": {}}
    results["overrides"] = options.overrides
    reference = options.reference or _reference()
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="astri-gpu-productions-") as name:
        tables = {}
        for seed, particle in enumerate(options.particles, start=1):
            case: dict[str, Any] = {}
            # A smaller one first: a flat memory is one that does not grow with the production.
            for n_showers in (options.showers // 5, options.showers):
                print(f"{n_showers} {particle}s ...", file=sys.stderr, flush=True)
                found = run_case(
                    "production",
                    fresh=False,
                    particle=particle,
                    n_showers=n_showers,
                    seed=seed,
                    backend=options.backend,
                    folder=name,
                    overrides=options.overrides,
                )
                case["small" if n_showers < options.showers else "full"] = found
            results["cases"][particle] = case
            with np.load(case["full"].pop("parameters")) as arrays:
                tables[particle] = dict(arrays)
        stem = options.output / f"{slug(results['machine'])}-{options.name}"
        options.output.mkdir(parents=True, exist_ok=True)
        if reference.is_file():
            real = read_reference(reference)
            results["quantiles"] = compare(tables, real)
            draw(tables, real, stem.with_name(stem.name + ".png"))
    stem.with_name(stem.name + ".json").write_text(json.dumps(results, indent=1) + "\n")
    text = _markdown(results)
    stem.with_name(stem.name + ".md").write_text(text)
    print(text)


def _reference() -> Path:
    data = os.environ.get("ASTRI_GPU_SHARED_DATA")
    folder = Path(data).parent if data else Path(__file__).resolve().parents[2] / "shared"
    return folder / REFERENCE


def production_case(
    particle: str, n_showers: int, seed: int, backend: str, folder: str, overrides: list[str]
) -> dict[str, Any]:
    """Return seconds, memory and statistics of one production; parameters go to a file."""
    from astri_gpu.config import compose
    from astri_gpu.stages import process, simulate

    base = Path(folder)
    dl0, dl2 = base / f"{particle}_dl0.zarr", base / f"{particle}_dl2.zarr"
    common = [
        f"production={particle}",
        f"seed={seed}",
        f"backend={backend}",
        "progress=false",
        "overwrite=true",
        *overrides,
    ]

    def produce(n: int) -> None:
        simulate.run(compose("simulate", [*common, f"n_showers={n}", f"output={dl0}"]))

    first = first_call(lambda: produce(min(WARM_UP_SHOWERS, n_showers)))
    before = peak_memory_mib()
    seconds = first_call(lambda: produce(n_showers))
    memory = peak_memory_mib()
    size = sum(file.stat().st_size for file in dl0.rglob("*") if file.is_file())
    made = process.run(
        compose("process", [f"input={dl0}", f"output={dl2}", "progress=false", "overwrite=true"])
    )
    shutil.rmtree(dl0)
    parameters = base / f"{particle}.npz"
    return {
        "n_showers": n_showers,
        "first_call_s": first,
        "seconds": seconds,
        "showers_per_s": n_showers / seconds,
        "memory_before_mib": before,
        "peak_memory_mib": memory,
        "stored_mib": size / MIB,
        "process_seconds": made.seconds,
        **_statistics(dl2, n_showers, parameters),
        "parameters": str(parameters),
    }


def _statistics(dl2: Path, n_showers: int, parameters: Path) -> dict[str, Any]:
    """Return shares of triggered showers and of mono images, and keep the image parameters."""
    from astri_gpu.store import open_store

    store = open_store(dl2)
    camera = store.cameras()[0]
    columns = ["hillas_length", "hillas_width", "astri_conc", "astri_leakage", "hillas_intensity"]
    table = store.read_table(f"dl1/image/{camera}", [*columns, "event_index"])
    events = store.read_table("dl0/event", ["event_id", "event_type"])
    truth = store.read_table(
        "simulation/event", ["true_energy", "true_alt", "true_az", "shower_id"]
    )
    stereo = store.read_table("dl2/event", ["stereo_alt", "stereo_az", "stereo_is_valid"])
    shower = events["event_type"] == 32
    usable = np.isfinite(table["hillas_length"]) & shower[table["event_index"]]
    per_event = np.bincount(table["event_index"][usable], minlength=len(shower))
    n_images = int(usable.sum())
    np.savez(parameters, **{name: table[name][usable] for name in columns})
    valid = stereo["stereo_is_valid"] & shower
    error = _separation_deg(
        truth["true_alt"][valid],
        truth["true_az"][valid],
        stereo["stereo_alt"][valid],
        stereo["stereo_az"][valid],
    )
    energy = truth["true_energy"][valid]
    resolution = {}
    for low, high in ((0.5, 1), (1, 2), (2, 5), (5, 10), (10, 30), (30, 100)):
        inside = (energy >= low) & (energy < high)
        if inside.sum() >= 20:
            resolution[f"{low:g}-{high:g} TeV"] = float(60 * np.quantile(error[inside], 0.68))
    return {
        "n_triggered_images": len(table["event_index"]),
        "n_images": n_images,
        "triggered_share": len(np.unique(truth["shower_id"][shower])) / n_showers,
        "images_per_event": n_images / max(1, int((per_event > 0).sum())),
        "mono_share": int((per_event == 1).sum()) / max(1, n_images),
        "direction_error_68_arcmin": resolution,
    }


def _separation_deg(alt_1: Any, az_1: Any, alt_2: Any, az_2: Any) -> Any:
    from astri_gpu.kernels.coordinates import angular_separation

    return angular_separation(az_1, alt_1, az_2, alt_2)


def _markdown(results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = [
        "# Productions of the fast model",
        "",
        f"{machine['date']}, revision {machine['revision']}, {machine['processor']}, "
        f"{machine['cores']} cores. Default options"
        + (f" and {' '.join(results['overrides'])}" if results["overrides"] else "")
        + "; camera and DL0 writing included, compiling and light tables not (first call).",
        "",
        "| particle | showers | seconds | showers/s | first call, s | peak memory, MiB "
        "| (a fifth of it) | DL0, MiB | process, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for particle, case in results["cases"].items():
        full, small = case["full"], case["small"]
        lines.append(
            f"| {particle} | {full['n_showers']} | {full['seconds']:.1f} "
            f"| {full['showers_per_s']:.0f} | {full['first_call_s']:.1f} "
            f"| {full['peak_memory_mib']:.0f} | {small['peak_memory_mib']:.0f} "
            f"| {full['stored_mib']:.0f} | {full['process_seconds']:.1f} |"
        )
    lines += [
        "",
        "| particle | triggered showers | triggered images | cleaned images | images per event "
        "| mono images |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for particle, case in results["cases"].items():
        full = case["full"]
        lines.append(
            f"| {particle} | {100 * full['triggered_share']:.2f} % "
            f"| {full['n_triggered_images']} | {full['n_images']} "
            f"| {full['images_per_event']:.2f} | {100 * full['mono_share']:.1f} % |"
        )
    lines += ["", "Direction error of the stereo geometry, 68 % containment, arcmin:", ""]
    for particle, case in results["cases"].items():
        errors = case["full"]["direction_error_68_arcmin"]
        lines.append(
            f"* {particle}: " + ", ".join(f"{key} {value:.1f}′" for key, value in errors.items())
        )
    if "quantiles" in results:
        lines += ["", *_quantile_lines(results["quantiles"])]
    return "\n".join(lines) + "\n"


def _quantile_lines(found: dict[str, Any]) -> list[str]:
    lines = [
        "Image parameters of triggered, cleaned images with LEAKAGE < 0.1 beside real ASTRI Monte "
        "Carlo (whose spectrum, cleaning and selection are not known), quantiles:",
        "",
        "| parameter | particle | | 10 % | 25 % | 50 % | 75 % | 90 % | largest deviation | goal |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for entry in found["table"]:
        for kind in ("model", "real"):
            numbers = " | ".join(f"{value:.3f}" for value in entry[kind])
            last = (
                f"{100 * entry['worst']:.1f} % | {'yes' if entry['reached'] else 'no'} "
                f"({100 * entry['goal']:.0f} %)"
                if kind == "model"
                else " | "
            )
            lines.append(
                f"| {entry['parameter']} | {entry['particle']} | {kind} | {numbers} | {last} |"
            )
    return lines


if __name__ == "__main__":
    main()
