"""The pictures of reconstructed events: scores, energies, directions, importances."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.display import style
from astri_gpu.report.collect import Sample
from astri_gpu.report.drawing import empty_figure, pointed
from astri_gpu.report.reco_panels import (
    draw_bias,
    draw_compared,
    draw_migration,
    draw_offset,
    draw_quarters,
    draw_resolution,
)
from astri_gpu.report.score_panels import (
    draw_area_under,
    draw_importances,
    draw_roc,
    draw_score,
)
from astri_gpu.report.separation import Separation
from astri_gpu.report.trained import importances_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "direction_figure",
    "energy_figure",
    "importance_figure",
    "reconstruction_figures",
    "score_figure",
]

PER_ROW = 4  # panels of importances


def reconstruction_figures(
    samples: Sequence[Sample], found: Sequence[Separation], per_decade: int, dpi: int
) -> dict[str, "Figure"]:
    """Return the pictures of DL2b samples by file name, {} where there are no such samples."""
    reconstructed = [sample for sample in samples if sample.reco is not None]
    if not reconstructed:
        return {}
    figures = {
        "scores.png": score_figure(samples, found, dpi),
        "energy.png": energy_figure(samples, per_decade, dpi),
        "direction.png": direction_figure(samples, per_decade, dpi),
    }
    if importances_of(samples):
        figures["importances.png"] = importance_figure(samples, dpi)
    return figures


def score_figure(samples: Sequence[Sample], found: Sequence[Separation], dpi: int) -> "Figure":
    """Return ROC, area under it against energy, and the distributions of gammaness."""
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = empty_figure(10, 7.6, dpi, "Gammas and others: scores of the forests", samples)
        panels: Any = figure.subplots(2, 2)
        (curve, energy), (events, images) = panels
        draw_roc(curve, found, samples)
        draw_area_under(energy, found, samples)
        draw_score(events, samples, "event")
        draw_score(images, samples, "image")
    return figure


def _drawn(samples: Sequence[Sample]) -> list[Sample]:
    return pointed([sample for sample in samples if sample.reco is not None])


def energy_figure(samples: Sequence[Sample], per_decade: int, dpi: int) -> "Figure":
    """Return bias, resolution and migration of the energy; the migration of the first sample."""
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = empty_figure(12.5, 5.2, dpi, "Reconstructed energy against the truth", samples)
        bias, resolution, migration = figure.subplots(1, 3)
        chosen = _drawn(samples)
        draw_bias(bias, chosen, samples, per_decade)
        draw_resolution(resolution, chosen, per_decade)
        draw_migration(migration, chosen[0])
    return figure


def direction_figure(samples: Sequence[Sample], per_decade: int, dpi: int) -> "Figure":
    """Return the angular resolution against energy, by quality and against offset."""
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = empty_figure(12.5, 5.2, dpi, "Reconstructed direction against the truth", samples)
        compared, quarters, offset = figure.subplots(1, 3)
        chosen = _drawn(samples)
        draw_compared(compared, chosen, per_decade)
        draw_quarters(quarters, chosen, per_decade)
        draw_offset(offset, chosen)
    return figure


def importance_figure(samples: Sequence[Sample], dpi: int) -> "Figure":
    """Return the permutation importances of every ensemble, one panel each."""
    from matplotlib import rc_context

    found = importances_of(samples)
    files = {file for file, _, _ in found}
    columns = min(PER_ROW, max(1, len(found)))
    rows = max(1, -(-len(found) // columns))
    with rc_context(style.STYLE):
        title = "What the forests look at: loss of score when a feature is shuffled"
        figure = empty_figure(3.6 * columns, 0.7 + 2.4 * rows, dpi, title, samples)
        panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for axes, (file, name, importances) in zip(panels, found, strict=False):
            draw_importances(axes, importances, name if len(files) == 1 else f"{file}: {name}")
        for axes in panels[len(found) :]:
            axes.set_visible(False)
    return figure
