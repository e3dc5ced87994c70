"""The panels of gammaness and of what the forests look at: one function draws one diagram."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from astri_gpu.display import style
from astri_gpu.report.collect import Sample
from astri_gpu.report.drawing import LINE, log_scale, look_of, no_data, tidy
from astri_gpu.report.reconstructed import SCORE
from astri_gpu.report.separation import Separation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_area_under", "draw_importances", "draw_roc", "draw_score"]

SCORE_BINS = 50
MOST_FEATURES = 12
BAR = "#9ecae9"


def draw_roc(axes: "Axes", found: Sequence[Separation], samples: Sequence[Sample]) -> None:
    """Draw the ROC of events and of images for every pair of particles.

    Parameters
    ----------
    axes
        Where to draw.
    found
        The pairs.
    samples
        All particles of the report, for their looks.
    """
    for entry in found:
        look = look_of(entry.background, samples)
        look["ls"] = "-" if entry.level == "event" else "--"
        look["label"] = (
            f"{entry.signal.label} / {entry.background.label}, {entry.level}s: "
            f"AUC {entry.auc:.4f} ± {entry.auc_error:.4f}"
        )
        axes.plot(entry.background_share, entry.signal_share, lw=1.5, **look)
    if found:
        axes.plot([0, 1], [0, 1], color=style.FAINT, lw=0.8, ls=":")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.01)
    else:
        no_data(axes, "needs gammas and another particle\nreconstructed with the same models")
    axes.set_xlabel("share of the background kept")
    axes.set_ylabel("share of the gammas kept")
    tidy(axes, "Receiver operating characteristic")
    if found:
        axes.legend(frameon=False, fontsize=style.FONTS["note"], loc="lower right")


def draw_score(axes: "Axes", samples: Sequence[Sample], level: str) -> None:
    """Draw the distribution of gammaness, each particle normalised to 1.

    Parameters
    ----------
    axes
        Where to draw.
    samples
        The particles; those without scores are left out.
    level
        "event" or "image".
    """
    size = SCORE.n_bins // SCORE_BINS
    edges = SCORE.edges[::size]
    drawn = False
    for sample in samples:
        if sample.reco is None:
            continue
        counts = sample.reco.score if level == "event" else sample.reco.image_score
        if counts.any():
            drawn = True
            share = counts.reshape(-1, size).sum(axis=1) / counts.sum()
            look = look_of(sample, samples)
            axes.stairs(share, edges, lw=1.4, **look)
            axes.stairs(share, edges, fill=True, color=look["color"], alpha=0.08)
    name = "gammaness" if level == "event" else "tel_gammaness"
    if drawn:
        axes.set_yscale("log")
        axes.set_xlim(0, 1)
    else:
        no_data(axes, f"no {level}s with a score")
    axes.set_xlabel(name)
    axes.set_ylabel(f"share of {level}s per bin")
    tidy(axes, f"Scores of {level}s  ({name})")


def draw_area_under(axes: "Axes", found: Sequence[Separation], samples: Sequence[Sample]) -> None:
    """Draw the area under the ROC of events against their reconstructed energy."""
    drawn = False
    for entry in found:
        if not entry.by_energy:
            continue
        drawn = True
        low, high, _, _, area, error = np.array(entry.by_energy).T
        middle = np.sqrt(low * high)
        look = look_of(entry.background, samples)
        look["label"] = f"{entry.signal.label} / {entry.background.label}"
        axes.errorbar(middle, area, xerr=[middle - low, high - middle], yerr=error, **LINE, **look)
    if drawn:
        axes.set_xscale("log")
        log_scale(axes.xaxis, *axes.get_xlim())
        axes.set_ylim(top=1.0)
    else:
        no_data(axes, "too few events of two particles")
    axes.set_xlabel("reconstructed energy  [TeV]")
    axes.set_ylabel("area under the ROC")
    tidy(axes, "Separation against energy (events)")


def draw_importances(axes: "Axes", importances: Mapping[str, float], title: str) -> None:
    """Draw the permutation importances of one ensemble, the largest at the top."""
    ranked = sorted(importances.items(), key=lambda item: -item[1])[:MOST_FEATURES][::-1]
    values = [value for _, value in ranked]
    axes.barh(range(len(ranked)), values, color=BAR, height=0.8)
    for row, (name, _) in enumerate(ranked):
        axes.annotate(name, (0, row), (3, 0), textcoords="offset points", va="center")
    axes.set_yticks([])
    # Room for the names, which are often longer than their bars.
    axes.set_xlim(min(0.0, *values), max(*values, 1e-9) * 1.05)
    axes.set_xlabel("loss of score")
    if len(importances) > len(ranked):
        title += f", {len(ranked)} of {len(importances)}"
    tidy(axes, title, legend=False)
    axes.grid(visible=False, axis="y")
