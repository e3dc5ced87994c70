"""A simulated observation from packets to the spectrum: does what was injected come back?

``python -m benchmarks.night --help``. Reads what `astri-gpu run pipeline=night` (and, of the same
run, `pipeline=long_term`) left in their folders: seconds of the steps, key numbers, and the fitted
spectrum beside the one that the description of the run says was simulated. The amplitude is
compared at the energy where it has least to do with the index.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from .machine import describe, slug

__all__ = ["compared", "main"]

Table = dict[str, Any]

PER_CM2 = 1e-4  # of what is given per m2
LIMIT_MINUTES = 20.0


def main(arguments: list[str] | None = None) -> None:
    """Compare, draw, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.night", description=__doc__)
    parser.add_argument("night", type=Path, help="folder of pipeline=night")
    parser.add_argument("others", type=Path, nargs="*", help="folders of pipeline=long_term of it")
    parser.add_argument("--name", default="night", help="end of the names of the results")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    injected = _injected(options.night)
    results: Table = {
        "machine": describe(),
        "injected": {"amplitude_cm2_s_tev": injected[0], "index": injected[1]},
        "runs": [_run(folder, injected) for folder in (options.night, *options.others)],
    }
    stem = options.output / f"{slug(results['machine'])}-{options.name}"
    options.output.mkdir(parents=True, exist_ok=True)
    stem.with_name(stem.name + ".json").write_text(json.dumps(results, indent=1) + "\n")
    text = _markdown(results)
    stem.with_name(stem.name + ".md").write_text(text)
    _draw(options.night, results, stem.with_name(stem.name + ".png"))
    print(text)


def compared(
    amplitude: float, index: float, covariance: np.ndarray, true: tuple[float, float]
) -> Table:
    """Return pulls of a power law A (E / TeV)^-index.

    Parameters
    ----------
    amplitude, index
        Fitted, at 1 TeV.
    covariance
        (2, 2), of amplitude and index.
    true
        Amplitude at 1 TeV and index that were injected.

    Returns
    -------
    dict
        `energy_tev` at which amplitude and index are independent, `ratio` of the fitted to the true
        flux there with its `error`, `pull` of it, and `index_pull`.
    """
    log_e = covariance[0, 1] / (amplitude * covariance[1, 1])
    energy = float(np.exp(log_e))
    variance = covariance[0, 0] / amplitude**2 - covariance[0, 1] ** 2 / (
        amplitude**2 * covariance[1, 1]
    )
    ratio = amplitude * energy**-index / (true[0] * energy ** -true[1])
    error = ratio * float(np.sqrt(variance))
    return {
        "energy_tev": energy,
        "ratio": ratio,
        "ratio_error": error,
        "pull": (ratio - 1) / error,
        "index": index,
        "index_error": float(np.sqrt(covariance[1, 1])),
        "index_pull": (index - true[1]) / float(np.sqrt(covariance[1, 1])),
    }


def _injected(folder: Path) -> tuple[float, float]:
    """Return amplitude (TeV-1 cm-2 s-1 at 1 TeV) and index of the source of a simulated run."""
    import yaml

    (path,) = (folder / "raw").glob("*.run.yaml")
    options = yaml.safe_load(path.read_text())["simulation"]
    form, norm, index = options["flux"]["gamma"].split(":")
    if form != "powerlaw":
        raise SystemExit(f"{path}: the source is {form}, not a power law")
    return PER_CM2 * float(norm) * options["gamma_factor"], -float(index)


def _run(folder: Path, injected: tuple[float, float]) -> Table:
    import yaml

    record = json.loads((folder / "run.json").read_text())
    numbers = json.loads((folder / "science" / "science.json").read_text())
    (model,) = yaml.safe_load((folder / "science" / "spectrum.yaml").read_text())["components"]
    values = {each["name"]: each["value"] for each in model["spectral"]["parameters"]}
    _, *lines = (folder / "science" / "spectrum_covariance.dat").read_text().splitlines()
    cells = [line.strip(" |").split("|") for line in lines]
    names = [name.strip().rpartition(".")[2] for name, *_ in cells]
    rows = [names.index("amplitude"), names.index("index")]
    covariance = np.array([row for _, *row in cells], dtype=float)[np.ix_(rows, rows)]
    steps = [
        {"stage": step["stage"], "seconds": step["seconds"], "summary": step["summary"]}
        for step in record["steps"]
    ]
    return {
        "title": record["title"],
        "steps": steps,
        "analysis_seconds": sum(
            step["seconds"] for step in steps if step["stage"] != "simulate-observation"
        ),
        "facts": {key: text for step in record["steps"] for key, text in step["facts"].items()},
        "detection": numbers["detection"],
        "spectrum": compared(values["amplitude"], values["index"], covariance, injected),
    }


def _markdown(results: Table) -> str:
    true = results["injected"]
    lines = [
        "# A simulated observation, from packets to the spectrum",
        "",
        f"Machine: {results['machine']['processor']}, {results['machine']['cores']} cores, "
        f"revision {results['machine']['revision']}.",
        f"Injected: {true['amplitude_cm2_s_tev']:.3g} (E/TeV)^-{true['index']:g} per TeV cm2 s.",
        "",
        "| | significance | energy, TeV | flux over injected | pull | index | pull | minutes |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in results["runs"]:
        fit = run["spectrum"]
        lines.append(
            f"| {run['title']} | {run['detection']['significance']:.1f} | "
            f"{fit['energy_tev']:.2f} | {fit['ratio']:.3f} ± {fit['ratio_error']:.3f} | "
            f"{fit['pull']:+.2f} | "
            f"{fit['index']:.3f} ± {fit['index_error']:.3f} | {fit['index_pull']:+.2f} | "
            f"{run['analysis_seconds'] / 60:.1f} |"
        )
    lines += ["", f"Minutes are those of the analysis; the goal is {LIMIT_MINUTES:g}.", ""]
    for run in results["runs"]:
        lines += [f"## {run['title'].capitalize()}", "", "| step | s | |", "|---|---:|---|"]
        for step in run["steps"]:
            *_, last = step["summary"].splitlines() or [""]
            what = last.removeprefix(f"{step['stage']}: ")
            lines.append(f"| {step['stage']} | {step['seconds']:.1f} | {what} |")
        lines += ["", "| | |", "|---|---|"]
        lines += [f"| {key} | {text} |" for key, text in run["facts"].items()]
        lines.append("")
    return "\n".join(lines)


def _draw(folder: Path, results: Table, path: Path) -> None:
    """Draw clocks, theta squared, significance and spectrum of the night."""
    from astropy.io import fits
    from astropy.table import Table as Rows
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from astri_gpu.display.style import CAMERA_COLOURS, FAINT, INK, STYLE
    from astri_gpu.event_building.seb0_file import read_seb0

    science = folder / "science"
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 2.9), layout="constrained")
        clocks, theta, sky, sed = figure.subplots(1, 4)
        offsets = read_seb0(folder / "seb0.fits").offsets
        start = offsets.start_s.min()
        for place, tel_id in enumerate(np.unique(offsets.tel_id)):
            rows = offsets.tel_id == tel_id
            minutes = ((offsets.start_s + offsets.stop_s)[rows] / 2 - start) / 60
            colour = CAMERA_COLOURS[place % len(CAMERA_COLOURS)]
            clocks.plot(minutes, offsets.offset_ns[rows] / 1e3, ".-", ms=2, lw=0.8, color=colour)
        clocks.set(xlabel="minutes", ylabel="clock offset  [µs]", title="clocks, from the showers")
        bins = Rows.read(science / "theta2.ecsv")
        middle = (bins["theta2_min"] + bins["theta2_max"]) / 2
        theta.errorbar(middle, bins["on"], np.sqrt(bins["on"]), fmt=".", color=CAMERA_COLOURS[0])
        theta.step(middle, bins["background"], where="mid", color=FAINT)
        theta.set(xlabel="θ²  [deg²]", ylabel="events", title="around the source")
        with fits.open(science / "maps.fits") as file:
            significance = file["SIGNIFICANCE"].data
            width = abs(file["SIGNIFICANCE"].header["CDELT1"])
        half = significance.shape[0] * width / 2
        image = sky.imshow(
            np.squeeze(significance), origin="lower", extent=(half, -half, -half, half),
            cmap="RdBu_r", vmin=-8, vmax=8,
        )  # fmt: skip
        figure.colorbar(image, ax=sky, label="σ")
        sky.set(xlabel="east  [deg]", ylabel="north  [deg]", title="significance")
        points = Rows.read(science / "flux_points.ecsv")
        good = ~np.asarray(points["is_ul"], dtype=bool)
        energy = np.asarray(points["e_ref"])
        erg = 1.602176634 * energy**2
        sed.errorbar(
            energy[good], (erg * points["dnde"])[good], (erg * points["dnde_err"])[good],
            fmt=".", color=INK, label="flux points",
        )  # fmt: skip
        true = results["injected"]
        line = np.geomspace(energy[good].min(), energy[good].max(), 50)
        injected = 1.602176634 * true["amplitude_cm2_s_tev"] * line ** (2 - true["index"])
        sed.plot(line, injected, color=CAMERA_COLOURS[1], label="injected")
        sed.set(xscale="log", yscale="log", xlabel="energy  [TeV]", title="spectrum")
        sed.set_ylabel("E² dN/dE  [erg cm⁻² s⁻¹]")
        sed.set_ylim(0.2 * injected.min(), 5 * injected.max())  # an error may reach down to 0
        sed.legend(frameon=False)
        figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
