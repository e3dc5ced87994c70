"""What the diagrams of a report have in common: looks of particles, axes, curves with errors."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display import style
from astri_gpu.report.collect import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ARCMIN",
    "LINE",
    "empty_figure",
    "log_axes",
    "log_scale",
    "look_of",
    "middle_of",
    "no_data",
    "pointed",
    "tidy",
]

Floats = NDArray[np.float64]
# Okabe and Ito's palette; the dashes say the same without colours.
LOOKS: dict[str, tuple[str, str]] = {
    "gamma": ("#0072b2", "-"),
    "proton": ("#d55e00", "--"),
    "helium": ("#009e73", "-."),
    "electron": ("#cc79a7", ":"),
    "muon": ("#56b4e9", (0, (5, 1, 1, 1, 1, 1))),  # type: ignore[dict-item]
}
LINE: dict[str, Any] = {"lw": 1.1, "elinewidth": 0.8, "marker": "o", "ms": 2.6}
"""How a curve of measured points is drawn (`Axes.errorbar`)."""
ARCMIN = 60.0
SHORT_RANGE = 2.2  # decades
CHARACTERS_PER_INCH = 15


def pointed(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples whose direction matters: gammas, or all where there are none."""
    return [sample for sample in samples if sample.kind == "gamma"] or list(samples)


def look_of(sample: Sample, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return colour, dashes and label of a sample; later ones of a particle are lighter."""
    colour, dashes = LOOKS.get(sample.kind, (style.INK, "-"))
    same = [other for other in samples if other.kind == sample.kind]
    return {
        "color": colour,
        "ls": dashes,
        "alpha": max(0.4, 1 - 0.3 * same.index(sample)),
        "label": sample.label,
    }


def empty_figure(
    width: float, height: float, dpi: int, title: str, samples: Sequence[Sample]
) -> "Figure":
    """Return an empty figure with a title, and at its foot how the data were simulated."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=style.FONTS["title"], x=0.01, ha="left")
    models = sorted({model for sample in samples for model in sample.models})
    if models:
        figure.supxlabel(
            fill("; ".join(models), int(CHARACTERS_PER_INCH * width)),
            fontsize=style.FONTS["note"],
            color=style.FAINT,
            x=0.99,
            ha="right",
        )
    return figure


def no_data(axes: "Axes", text: str) -> None:
    """Say in the middle of empty axes why they are empty."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=style.FAINT)


def tidy(axes: "Axes", title: str, *, legend: bool = True) -> None:
    """Give axes their grid, title and legend."""
    axes.grid(color=style.GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=style.FONTS["panel"] + 1, pad=5)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=style.FONTS["note"])


def log_scale(axis: Any, low: float, high: float, *, plain: bool = True) -> None:
    """Set the ticks of a logarithmic axis: at decades, in short ranges at 1, 2 and 5.

    Numbers are written as people do, or as powers of ten unless `plain`.
    """
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    short = high / low < 10**SHORT_RANGE
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,)))
    axis.set_major_formatter("{x:g}" if plain else LogFormatterSciNotation())
    axis.set_minor_formatter(NullFormatter())


def log_axes(axes: "Axes", *, plain: bool = True) -> None:
    """Make both axes logarithmic, the first one for energies; see `log_scale`."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    log_scale(axes.xaxis, *axes.get_xlim())
    log_scale(axes.yaxis, *axes.get_ylim(), plain=plain)
    axes.set_xlabel("true energy  [TeV]")


def middle_of(sample: Sample, per_decade: int) -> tuple[Floats, Floats]:
    """Return the middle of the bins of energy and their reach to both sides, (2, bin)."""
    edges = sample.merged_edges(per_decade)
    middle = np.sqrt(edges[:-1] * edges[1:])
    return middle, np.stack([middle - edges[:-1], edges[1:] - middle])
