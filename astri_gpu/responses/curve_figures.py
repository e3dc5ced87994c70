"""The pictures of performance curves: one for each kind, and an overview; no window is opened."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from astri_gpu.display import style
from astri_gpu.report.drawing import CHARACTERS_PER_INCH
from astri_gpu.report.figures import save
from astri_gpu.responses.curve_panels import (
    draw_area,
    draw_bias,
    draw_containment,
    draw_offset_angle,
    draw_offset_flux,
    draw_rate,
    draw_ratio,
    draw_resolution,
    draw_sensitivity,
)
from astri_gpu.responses.curve_points import KINDS, Curves
from astri_gpu.responses.curve_scene import RECO, TRUE, Scene
from astri_gpu.responses.curve_tables import CURVES_FILE, REFERENCE_FILE, table_names
from astri_gpu.responses.references import Reference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OVERVIEW", "draw_curves", "is_curve_file"]

OVERVIEW = "curves"
DPI = 130
MARKS = "hollow: few simulated events; triangle: none, one-sigma limit"


def is_curve_file(name: str) -> bool:
    """Return whether a file of this name is written by `write_curves` or `draw_curves`."""
    if name in (CURVES_FILE, REFERENCE_FILE, *table_names()):
        return True
    stem, dot, end = name.rpartition(".")
    known = (OVERVIEW, *KINDS)
    return dot == "." and end == "png" and stem.split("_zd")[0] in known


def draw_curves(
    folder: Path, curves: Curves, reference: Reference | None = None, *, dpi: int = DPI
) -> list[str]:
    """Write a picture of every kind of curve and an overview; return the names of the files.

    Of several pointings each has its own pictures, whose names end in _zd20_az180 and the like.

    Parameters
    ----------
    folder
        Where to write, an existing directory.
    curves
        See `astri_gpu.responses.curves.make_curves`.
    reference
        Another array to draw beside them.
    dpi
        Dots per inch.
    """
    from matplotlib import rc_context

    pointings = sorted({(c.labels["zenith_deg"], c.labels["azimuth_deg"]) for c in curves})
    written = []
    for zenith, azimuth in pointings:
        here = Curves(
            tuple(
                c
                for c in curves
                if (c.labels["zenith_deg"], c.labels["azimuth_deg"]) == (zenith, azimuth)
            ),
            curves.meta,
        )
        scene = Scene(here, reference)
        where = f"zenith {zenith:g}°, azimuth {azimuth:g}°"
        ending = f"_zd{zenith:02.0f}_az{azimuth:03.0f}" if len(pointings) > 1 else ""
        for kind, draw in FIGURES.items():
            if kind != OVERVIEW and not here.of(kind):
                continue
            with rc_context(style.STYLE):
                figure = draw(scene, dpi, where)
            name = f"{kind}{ending}.png"
            save(figure, folder / name)
            written.append(name)
    return written


def _figure(scene: Scene, width: float, height: float, dpi: int, title: str) -> "Figure":
    """Return an empty figure with a title, and at its foot how the data were simulated."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    figure.suptitle(title, fontsize=style.FONTS["title"], x=0.01, ha="left")
    meta, notes = scene.curves.meta, []
    if meta.get("simulation_model"):
        notes.append(str(meta["simulation_model"]))
    if scene.reference is not None:
        notes.append(f"{scene.reference.name}: {scene.reference.note}.")
    notes.append(f"Errors: 68 % of {meta.get('n_bootstrap', 0)} bootstrap replicas; {MARKS}.")
    figure.supxlabel(
        "\n".join(fill(note, int(1.15 * CHARACTERS_PER_INCH * width)) for note in notes),
        fontsize=style.FONTS["note"] - 0.5,
        color="#6d7484",
        x=0.99,
        ha="right",
    )
    return figure


def _legend(figure: "Figure", panels: Any) -> None:
    """Put one legend for all panels to the right of them, each entry once."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        labels = [fill(label, 30) for label in found]
        figure.legend(
            list(found.values()),
            labels,
            loc="outside right upper",
            frameon=False,
            fontsize=style.FONTS["note"],
        )


def _sensitivity(scene: Scene, dpi: int, where: str) -> "Figure":
    figure = _figure(scene, 9.0, 6.6, dpi, f"Differential sensitivity, {where}")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    draw_sensitivity(top, scene, title="")
    draw_ratio(bottom, scene)
    top.set_xlabel("")
    _legend(figure, [top])
    return figure


def _sensitivity_title(scene: Scene) -> str:
    """Return a title that tells the observing times, which a brief legend does not."""
    times = [f"{curve.labels['exposure_h']:g}" for curve, _ in scene.sensitivities()]
    hours = ", ".join(dict.fromkeys(times))
    return f"Differential sensitivity, {hours} h" if times else "Differential sensitivity"


def _angular(scene: Scene, dpi: int, where: str) -> "Figure":
    figure = _figure(scene, 12.0, 4.8, dpi, f"Angular resolution after the cuts, {where}")
    panels = figure.subplots(1, 2, sharey=True)
    limits = []
    for axes, axis in zip(panels, (TRUE, RECO), strict=True):
        draw_containment(axes, scene, axis)
        axes.set_title("")
        limits.append(axes.get_ylim())
    # The panels share their axis, and each has set it for itself.
    panels[0].set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    panels[1].set_ylabel("")
    _legend(figure, panels)
    return figure


def _energy(scene: Scene, dpi: int, where: str) -> "Figure":
    figure = _figure(scene, 12.0, 6.4, dpi, f"Energy resolution and bias after the cuts, {where}")
    panels = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=[1.3, 1])
    for column, axis in enumerate((TRUE, RECO)):
        draw_resolution(panels[0, column], scene, axis)
        draw_bias(panels[1, column], scene, axis)
        panels[0, column].set_xlabel("")
    for axes in panels.ravel():
        axes.set_title("")
    for axes in panels[:, 1]:
        axes.set_ylabel("")
    _legend(figure, panels[0])
    return figure


def _area(scene: Scene, dpi: int, where: str) -> "Figure":
    figure = _figure(scene, 9.0, 5.2, dpi, f"Effective area, {where}")
    axes = figure.subplots()
    draw_area(axes, scene)
    axes.set_title("")
    _legend(figure, [axes])
    return figure


def _rate(scene: Scene, dpi: int, where: str) -> "Figure":
    figure = _figure(scene, 12.0, 5.0, dpi, f"Background, {where}")
    panels = figure.subplots(1, 2)
    draw_rate(panels[0], scene, "rate")
    draw_rate(panels[1], scene, "intensity")
    _legend(figure, panels)
    return figure


def _offset(scene: Scene, dpi: int, where: str) -> "Figure":
    figure = _figure(scene, 12.0, 4.8, dpi, f"Across the field of view, {where}")
    panels = figure.subplots(1, 2)
    draw_offset_angle(panels[0], scene)
    draw_offset_flux(panels[1], scene)
    _legend(figure, panels)
    return figure


def _overview(scene: Scene, dpi: int, where: str) -> "Figure":
    figure = _figure(scene, 14.5, 8.2, dpi, f"Performance of the simulated array, {where}")
    scene = replace(scene, brief=True)
    panels = figure.subplots(2, 3)
    draw_sensitivity(panels[0, 0], scene, title=_sensitivity_title(scene))
    draw_containment(panels[0, 1], scene, TRUE, outer=False)
    draw_resolution(panels[0, 2], scene, TRUE)
    draw_area(panels[1, 0], scene, chosen=("cuts", "cuts and theta"))
    draw_rate(panels[1, 1], scene, "intensity", particles=False)
    if scene.curves.of("offset"):
        draw_offset_flux(panels[1, 2], scene)
    else:
        draw_ratio(panels[1, 2], scene)
        panels[1, 2].set_title("Sensitivity over the published one", fontsize=9.5, pad=5)
    _legend(figure, panels.ravel())
    return figure


FIGURES: dict[str, Callable[[Scene, int, str], "Figure"]] = {
    "sensitivity": _sensitivity,
    "angular_resolution": _angular,
    "energy_resolution": _energy,
    "effective_area": _area,
    "background_rate": _rate,
    "offset": _offset,
    OVERVIEW: _overview,
}
