"""What pictures of performance curves show, and how their lines and axes look."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display import style
from astri_gpu.report.drawing import LINE, log_scale, no_data, tidy
from astri_gpu.responses.curve_points import FEW_EVENTS, Curve, Curves, Estimate
from astri_gpu.responses.references import (
    HEADLINE_SOURCE,
    HEADLINE_TEV,
    Reference,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "PUBLISHED_LOOK",
    "RECO",
    "REFERENCE_LOOK",
    "TRUE",
    "Scene",
    "energy_label",
    "fewest_events",
    "finish",
    "plot_headline",
    "plot_points",
]

REFERENCE_LOOK: dict[str, Any] = {"color": "#7a7f8c", "ls": "-", "lw": 1.6, "zorder": 1}
PUBLISHED_LOOK: dict[str, Any] = {"color": style.INK, "lw": 1.3, "zorder": 5}
TRUE, RECO = "true_energy", "reco_energy"


@dataclass(frozen=True)
class Scene:
    """What a set of pictures shows: the curves of one pointing, and others to compare with.

    Attributes
    ----------
    curves
        Of one pointing.
    reference
        Another array, or None.
    brief
        Whether all panels share one legend, in which each class, and each other array, has one
        entry.
    """

    curves: Curves
    reference: Reference | None
    brief: bool = False

    @property
    def classes(self) -> list[str]:
        """Return the names of the classes, in order."""
        return list(dict.fromkeys(str(curve.labels["event_class"]) for curve in self.curves))

    def colour(self, event_class: str) -> Any:
        """Return the colour of a class."""
        names = self.classes
        if len(names) <= len(style.CAMERA_COLOURS):
            return style.camera_colour(names, event_class)
        import matplotlib

        # The lightest colours would not be seen on white.
        return matplotlib.colormaps["viridis"](0.9 * names.index(event_class) / (len(names) - 1))

    def label(self, name: Any, more: str = "") -> str:
        """Return what a line is called in the legend: a name, and unless it is brief, more."""
        return str(name) if self.brief or not more else f"{name}, {more}"

    def sensitivities(self) -> list[tuple[Curve, dict[str, Any]]]:
        """Return the sensitivities to be drawn with their looks.

        Of a single class those of all observing times; of several each for the time that its cuts
        are best for, else for the longest.
        """
        found = self.curves.of("sensitivity")
        if len(self.classes) == 1:
            colours = style.CAMERA_COLOURS
            return [
                (
                    curve,
                    {"color": colours[k % len(colours)], "label": _sensitivity_label(curve)},
                )
                for k, curve in reversed(list(enumerate(found)))
            ]
        chosen = []
        for name in self.classes:
            own = [curve for curve in found if curve.labels["event_class"] == name]
            best = [c for c in own if c.labels["exposure_h"] == c.labels["optimised_for_h"]]
            chosen += best or own[-1:]
        return [
            (
                curve,
                {
                    "color": self.colour(curve.labels["event_class"]),
                    "label": curve.labels["event_class"]
                    if self.brief
                    else _sensitivity_label(curve),
                },
            )
            for curve in chosen
        ]

    def of_reference(self, kind: str, **labels: Any) -> Curve | None:
        """Return a curve of the reference, None where it has none."""
        found = self.reference.of(kind, **labels) if self.reference else []
        return found[0] if found else None


def _sensitivity_label(curve: Curve) -> str:
    return f"{curve.labels['event_class']}, {curve.labels['exposure_h']:g} h"


def plot_points(
    axes: "Axes",
    curve: Curve,
    estimate: Estimate,
    n_events: NDArray[Any],
    look: dict[str, Any],
    *,
    positive: bool = True,
) -> bool:
    """Draw values with errors, those of few events hollow; return whether there was any.

    A value of zero on a logarithmic axis is drawn as a limit at the upper end of its interval.
    """
    middle = curve.centres
    value, low, high = estimate.value, estimate.low, estimate.high
    use = np.isfinite(value) & ((value > 0) if positive else True)
    line = {**LINE, **look}
    if use.any():
        # Ends that are infinite or not known are left out.
        down = np.where(np.isfinite(low), np.clip(value - low, 0, None), 0.0)
        up = np.where(np.isfinite(high), np.clip(high - value, 0, None), 0.0)
        if positive:
            down = np.minimum(down, 0.999 * np.abs(value))
        # Bins in between that have no value interrupt the line.
        shown = np.where(use, value, np.nan)
        axes.errorbar(middle, shown, yerr=np.where(use, [down, up], 0.0), **line)
        few = use & (n_events < FEW_EVENTS)
        axes.plot(
            middle[few],
            value[few],
            ls="",
            marker="o",
            ms=4.2,
            mfc="white",
            mec=line["color"],
            zorder=4,
        )
    limit = (value == 0) & np.isfinite(high) & (high > 0) if positive else np.zeros_like(use)
    if limit.any():
        axes.plot(
            middle[limit], high[limit], ls="", marker="v", ms=4, mfc="white", mec=line["color"]
        )
    return bool(use.any() or limit.any())


def fewest_events(curve: Curve) -> NDArray[Any]:
    """Return the smaller number of simulated gammas and background events, 0 if not trusted."""
    few = curve.counts.get("few_events", 0)
    fewest = np.minimum(curve.counts["n_signal_events"], curve.counts["n_background_events"])
    return np.where(few, 0, fewest)


def finish(axes: "Axes", drawn: bool, title: str, x: str, y: str, *, log_y: bool = True) -> None:
    """Give axes their scales and words."""
    if drawn:
        if axes.get_xscale() != "log" and "TeV" in x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
            # Errors that reach down to nothing would flatten the rest.
            low, high = axes.get_ylim()
            values = np.concatenate([np.asarray(line.get_ydata()) for line in axes.get_lines()])
            low = max(low, 0.4 * values[values > 0].min())
            axes.set_ylim(low, high)
            log_scale(axes.yaxis, low, high, plain=low > 1e-2 and high < 1e4)
        if "TeV" in x:
            log_scale(axes.xaxis, *axes.get_xlim())
    else:
        no_data(axes, "no events, or no cuts")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    tidy(axes, title, legend=False)


def energy_label(axis: str) -> str:
    """Return the words for an axis of energies."""
    return f"{'true' if axis == TRUE else 'reconstructed'} energy  [TeV]"


def plot_headline(axes: "Axes", scene: Scene, value: float, text: str) -> None:
    """Draw a horizontal line at what the ASTRI project states."""
    axes.plot(
        HEADLINE_TEV,
        [value, value],
        ls=(0, (6, 3)),
        lw=1.3,
        color=style.INK,
        label=HEADLINE_SOURCE if scene.brief else f"{text}: {HEADLINE_SOURCE}",
    )
