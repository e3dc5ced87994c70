"""The panels of performance curves: one function draws one diagram."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.display import style
from astri_gpu.report.drawing import ARCMIN, LOOKS
from astri_gpu.responses.curve_measures import SELECTIONS
from astri_gpu.responses.curve_points import Curve
from astri_gpu.responses.curve_scene import (
    PUBLISHED_LOOK,
    RECO,
    REFERENCE_LOOK,
    TRUE,
    Scene,
    energy_label,
    fewest_events,
    finish,
    plot_headline,
    plot_points,
)
from astri_gpu.responses.references import (
    HEADLINE_ARCMIN,
    HEADLINE_RESOLUTION,
    HEADLINE_SOURCE,
    PUBLISHED_HOURS,
    PUBLISHED_SOURCE,
    published_table,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "draw_area",
    "draw_bias",
    "draw_containment",
    "draw_offset_angle",
    "draw_offset_flux",
    "draw_rate",
    "draw_ratio",
    "draw_resolution",
    "draw_sensitivity",
]

PARTICLES = {"all": (style.INK, "-"), **LOOKS}
LARGEST_BIAS = 50.0  # percent
MOST_CLASSES = 2  # whose particles are drawn apart; of more, those of the last one
EDGE_LOSS = 2.0  # the ASTRI project: half the sensitivity at the edge of the field


def draw_sensitivity(
    axes: "Axes", scene: Scene, *, title: str = "Differential sensitivity"
) -> None:
    """Draw the weakest source detected, E^2 dN/dE, with the published one and the reference."""
    drawn = False
    for curve, look in scene.sensitivities():
        drawn |= plot_points(axes, curve, curve.values["flux_e2"], fewest_events(curve), look)
    energy, flux = published_table()
    axes.plot(energy, flux, marker="s", ms=3, ls="--", label=PUBLISHED_SOURCE, **PUBLISHED_LOOK)
    other = scene.of_reference("sensitivity", exposure_h=PUBLISHED_HOURS)
    if other is not None:
        label = scene.label(other.labels["event_class"], f"{PUBLISHED_HOURS:g} h")
        axes.plot(other.centres, other.values["flux_e2"].value, label=label, **REFERENCE_LOOK)
    finish(axes, drawn, title, energy_label(RECO), "$E^2$ d$N$/d$E$  [erg cm$^{-2}$ s$^{-1}$]")


def draw_ratio(axes: "Axes", scene: Scene) -> None:
    """Draw the ratio of the 50 h sensitivities to the published one."""
    drawn = False
    for curve, look in scene.sensitivities():
        if curve.labels["exposure_h"] == PUBLISHED_HOURS:
            drawn |= plot_points(axes, curve, curve.values["ratio"], fewest_events(curve), look)
    axes.axhline(1, ls="--", **PUBLISHED_LOOK)
    finish(axes, drawn, "", energy_label(RECO), "ratio to ASTRI, 50 h")


def draw_containment(axes: "Axes", scene: Scene, axis: str, *, outer: bool = True) -> None:
    """Draw the angular resolution in arc minutes against an axis; 95 % too if `outer`."""
    drawn = False
    for curve in scene.curves.of("angular_resolution", axis=axis):
        name, events = curve.labels["event_class"], curve.counts["n_events"]
        look = {"color": scene.colour(name)}
        for part, more in (
            ("radius_68", {"label": scene.label(name, "68 %")}),
            ("radius_95", {"label": scene.label(name, "95 %"), "ls": ":", "lw": 0.9, "marker": ""}),
        ):
            if part == "radius_68" or outer:
                angle = curve.values[part].times(ARCMIN)
                drawn |= plot_points(axes, curve, angle, events, {**look, **more})
    other = scene.of_reference("angular_resolution") if axis == TRUE else None
    if other is not None:
        theirs = other.values["radius_68"].times(ARCMIN)
        axes.plot(
            other.centres,
            theirs.value,
            label=scene.label(other.labels["event_class"], "68 %"),
            **REFERENCE_LOOK,
        )
    if drawn:
        plot_headline(axes, scene, HEADLINE_ARCMIN, f"~{HEADLINE_ARCMIN:g}′")
    finish(axes, drawn, "Angular resolution", energy_label(axis), "containment radius  [′]")


def draw_resolution(axes: "Axes", scene: Scene, axis: str) -> None:
    """Draw the energy resolution in percent against an axis."""
    drawn = False
    for curve in scene.curves.of("energy_resolution", axis=axis):
        name = curve.labels["event_class"]
        look = {"color": scene.colour(name), "label": name}
        width = curve.values["resolution"].times(100)
        drawn |= plot_points(axes, curve, width, curve.counts["n_events"], look)
    other = scene.of_reference("energy_resolution") if axis == TRUE else None
    if other is not None:
        theirs = other.values["resolution"].times(100)
        label = str(other.labels["event_class"])
        axes.plot(other.centres, theirs.value, label=label, **REFERENCE_LOOK)
    if drawn:
        plot_headline(axes, scene, 100 * HEADLINE_RESOLUTION, f"~{100 * HEADLINE_RESOLUTION:g} %")
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    finish(
        axes,
        drawn,
        "Energy resolution",
        energy_label(axis),
        "half of the central 68 %  [%]",
        log_y=False,
    )


def draw_bias(axes: "Axes", scene: Scene, axis: str) -> None:
    """Draw the median of the relative error of the energy in percent against an axis."""
    drawn = False
    for curve in scene.curves.of("energy_resolution", axis=axis):
        name = curve.labels["event_class"]
        look = {"color": scene.colour(name)}
        bias = curve.values["bias"].times(100)
        drawn |= plot_points(axes, curve, bias, curve.counts["n_events"], look, positive=False)
    other = scene.of_reference("energy_resolution") if axis == TRUE else None
    if other is not None:
        axes.plot(other.centres, other.values["bias"].times(100).value, **REFERENCE_LOOK)
    if drawn:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -LARGEST_BIAS), min(high, LARGEST_BIAS))
        axes.axhline(0, color=style.INK, lw=0.7)
    finish(axes, drawn, "Energy bias", energy_label(axis), "median error  [%]", log_y=False)


def draw_area(axes: "Axes", scene: Scene, *, chosen: Sequence[str] = tuple(SELECTIONS)) -> None:
    """Draw the effective area after each of the chosen selections."""
    dashes = {"reconstructed": ":", "cuts": "-", "cuts and theta": "--"}
    drawn = False
    for name in chosen:
        found = scene.curves.of("effective_area", selection=SELECTIONS[name])
        # Before the cuts all classes are the same.
        for curve in found[:1] if name == "reconstructed" else found:
            event_class = str(curve.labels["event_class"])
            look: dict[str, Any] = {
                "color": scene.colour(event_class),
                "ls": dashes[name],
                "label": scene.label(event_class, SELECTIONS[name]),
            }
            if name == "reconstructed":
                look |= {"color": style.FAINT, "label": "all reconstructed", "marker": ""}
            drawn |= plot_points(axes, curve, curve.values["area"], curve.counts["n_events"], look)
    other = scene.of_reference("effective_area")
    if other is not None:
        label = str(other.labels["event_class"])
        axes.plot(other.centres, other.values["area"].value, label=label, **REFERENCE_LOOK)
    title = "Effective area" + (" (dashed: inside the theta cut)" if scene.brief else "")
    finish(axes, drawn, title, energy_label(TRUE), "area  [m$^2$]")


def draw_rate(axes: "Axes", scene: Scene, name: str, *, particles: bool = True) -> None:
    """Draw the background: `rate` inside the theta cut, or `intensity` per TeV and sr."""
    drawn = False
    found = scene.curves.of("background_rate")
    kinds = {str(curve.labels["particle"]) for curve in found}
    for curve in found:
        event_class, particle = (str(curve.labels[key]) for key in ("event_class", "particle"))
        # With one kind of particle it is the same as all of them.
        crowded = len(scene.classes) > MOST_CLASSES and event_class != scene.classes[-1]
        if particle != "all" and (not particles or len(kinds) <= 2 or crowded):
            continue
        dashes = PARTICLES[particle][1]
        look = {"color": scene.colour(event_class), "ls": dashes}
        what = "all background" if particle == "all" else particle
        look["label"] = scene.label(event_class, what)
        if particle != "all":
            look |= {"lw": 0.9, "marker": ""}
        drawn |= plot_points(axes, curve, curve.values[name], curve.counts["n_events"], look)
    other = scene.of_reference("background_rate")
    if other is not None:
        more = "in its 68 % radius" if name == "rate" else ""
        label = scene.label(other.labels["event_class"], more)
        axes.plot(other.centres, other.values[name].value, label=label, **REFERENCE_LOOK)
    words = {
        "rate": ("Background in the theta cut", "rate in the bin of energy  [Hz]"),
        "intensity": ("Background after cuts", "intensity  [TeV$^{-1}$ s$^{-1}$ sr$^{-1}$]"),
    }
    finish(axes, drawn, words[name][0], energy_label(RECO), words[name][1])


def _bands(scene: Scene) -> list[tuple[Curve, dict[str, Any]]]:
    found = scene.curves.of("offset")
    lows = sorted({curve.labels["energy_low"] for curve in found})
    looks = []
    for curve in found:
        labels = curve.labels
        look = {
            "color": scene.colour(str(labels["event_class"])),
            "ls": ("-", "--", ":")[lows.index(labels["energy_low"]) % 3],
            "label": scene.label(
                labels["event_class"],
                f"{labels['energy_low']:.2g} – {labels['energy_high']:.2g} TeV",
            ),
        }
        looks.append((curve, look))
    return looks


def draw_offset_angle(axes: "Axes", scene: Scene) -> None:
    """Draw the angular resolution against the offset."""
    drawn = False
    for curve, look in _bands(scene):
        angle = curve.values["radius_68"].times(ARCMIN)
        drawn |= plot_points(axes, curve, angle, curve.counts["n_events"], look)
    if drawn:
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    finish(
        axes,
        drawn,
        "Angular resolution across the field",
        "offset from the pointing  [deg]",
        "68 % containment radius  [′]",
        log_y=False,
    )


def draw_offset_flux(axes: "Axes", scene: Scene) -> None:
    """Draw the weakest source detected against the offset, over that in the innermost ring."""
    drawn = False
    for curve, look in _bands(scene):
        first = curve.values["relative"].value[0]
        if not np.isfinite(first) or first <= 0:
            continue
        relative = curve.values["relative"].times(1 / first)
        drawn |= plot_points(axes, curve, relative, fewest_events(curve), look)
    if drawn:
        axes.axhline(
            EDGE_LOSS,
            ls=(0, (6, 3)),
            lw=1.3,
            color=style.INK,
            label=HEADLINE_SOURCE
            if scene.brief
            else f"half the sensitivity, at the edge of the field: {HEADLINE_SOURCE}",
        )
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    title = "Sensitivity across the field"
    if scene.brief and len(scene.curves.of("offset")) > len(scene.classes):
        title += " (dashed: above 8 TeV)"
    finish(
        axes,
        drawn,
        title,
        "offset from the pointing  [deg]",
        "weakest flux over that in the innermost ring",
        log_y=False,
    )
