"""Image parameters of simulated productions beside published histograms of real Monte Carlo."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["GOALS", "QUANTILES", "Histogram", "compare", "draw", "read_reference"]

QUANTILES = (0.10, 0.25, 0.50, 0.75, 0.90)
COLUMNS = {"LENGTH": "hillas_length", "WIDTH": "hillas_width", "CONC": "astri_conc"}
GOALS = {"gamma": 0.10, "proton": 0.20}
MAX_LEAKAGE = 0.1
TAIL = 0.01
"""The published histograms cover the 1st to 99th percentile."""

Tables = Mapping[str, Mapping[str, NDArray[Any]]]


class Histogram(NamedTuple):
    """Shares of the images in bins; they add up to 1."""

    edges: NDArray[np.float64]
    share: NDArray[np.float64]

    def quantile(self, level: float) -> float:
        """Return a quantile of all images, by linear interpolation in the bins."""
        below = TAIL + (1 - 2 * TAIL) * np.concatenate([[0.0], np.cumsum(self.share)])
        return float(np.interp(level, below, self.edges))


Reference = dict[str, dict[str, Histogram]]


def read_reference(path: Path) -> Reference:
    """Return the histograms of a reference file, by parameter and particle."""
    content = json.loads(path.read_text())["parameters"]
    reference: Reference = {}
    for parameter, entry in content.items():
        edges = np.asarray(entry["edges"], dtype=np.float64)
        reference[parameter] = {}
        for particle in GOALS:
            share = np.asarray(entry[particle], dtype=np.float64)
            reference[parameter][particle] = Histogram(edges, share / share.sum())
    return reference


def compare(tables: Tables, real: Reference) -> dict[str, Any]:
    """Return the quantiles side by side, and whether the goal of the particle is reached."""
    rows = []
    for parameter in COLUMNS:
        for particle in GOALS:
            if particle not in tables:
                continue
            values = _selected(tables[particle], parameter)
            model = [float(value) for value in np.quantile(values, QUANTILES)]
            expected = [real[parameter][particle].quantile(level) for level in QUANTILES]
            worst = max(abs(a / b - 1) for a, b in zip(model, expected, strict=True))
            rows.append(
                {
                    "parameter": parameter,
                    "particle": particle,
                    "n_images": len(values),
                    "model": model,
                    "real": expected,
                    "worst": worst,
                    "goal": GOALS[particle],
                    "reached": worst <= GOALS[particle],
                }
            )
    return {"selection": f"LEAKAGE < {MAX_LEAKAGE}", "levels": list(QUANTILES), "table": rows}


def _selected(table: Mapping[str, NDArray[Any]], parameter: str) -> NDArray[Any]:
    values = table[COLUMNS[parameter]]
    return values[(table["astri_leakage"] < MAX_LEAKAGE) & np.isfinite(values)]


def draw(tables: Tables, real: Reference, path: Path) -> None:
    """Draw the distributions into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from astri_gpu.display.style import CAMERA_COLOURS, STYLE

    units = {"LENGTH": " (deg)", "WIDTH": " (deg)", "CONC": ""}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.2), layout="constrained")
        for row, particle in enumerate(GOALS):
            for panel, parameter in zip(axes[row], COLUMNS, strict=True):
                edges, share = real[parameter][particle]
                width = np.diff(edges)
                panel.stairs(
                    share / width,
                    edges,
                    fill=True,
                    color=CAMERA_COLOURS[4],
                    alpha=0.45,
                    label="real ASTRI Monte Carlo (published)",
                )
                if particle in tables:
                    values = _selected(tables[particle], parameter)
                    counts, _ = np.histogram(values, edges)
                    panel.stairs(
                        counts / max(1, counts.sum()) / width,
                        edges,
                        color=CAMERA_COLOURS[1],
                        linewidth=1.4,
                        label="astri_gpu, fast model",
                    )
                panel.set_xlabel(parameter + units[parameter])
                panel.set_ylabel("density")
                panel.set_title(particle, loc="left")
        axes[0, 1].legend(frameon=False)
        figure.suptitle("Triggered and cleaned images, LEAKAGE < 0.1, default options", fontsize=10)
        figure.savefig(path, dpi=120)
        plt.close(figure)
