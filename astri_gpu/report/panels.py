"""The panels of a report: one function draws one diagram into given axes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.report.binned import CONTAINMENT, Axis
from astri_gpu.report.collect import (
    CORE,
    PARAMETERS,
    THETA2,
    Sample,
)
from astri_gpu.report.drawing import (
    ARCMIN,
    LINE,
    log_axes,
    log_scale,
    look_of,
    middle_of,
    no_data,
    tidy,
)
from astri_gpu.report.numbers import containment_by_energy, effective_area
from astri_gpu.report.reconstructed import DIRECTION, MANY_IMAGES, NEAR_M

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "draw_area",
    "draw_core",
    "draw_direction",
    "draw_parameter",
    "draw_theta2",
]

Floats = NDArray[np.float64]
SHOWN_BINS = 45
TAIL = 0.005  # of the entries left outside the drawn range, on either side


def draw_parameter(axes: "Axes", samples: Sequence[Sample], name: str) -> None:
    """Draw the distribution of an image parameter, each particle normalised to 1.

    Parameters
    ----------
    axes
        Where to draw.
    samples
        The particles.
    name
        A key of `PARAMETERS`.
    """
    quantity = PARAMETERS[name]
    counts = [sample.parameters[name] for sample in samples]
    known = [entry for entry in counts if entry.sum()]
    title = f"{quantity.label}  ({name})"
    if not known:
        no_data(axes, "no images")
        tidy(axes, title, legend=False)
        return
    first, last = _drawn_range(known)
    size = max(1, (last - first) // SHOWN_BINS)
    starts = np.arange(first, last, size)
    edges = quantity.edges[np.append(starts, min(starts[-1] + size, quantity.n_bins))]
    for sample, entry in zip(samples, counts, strict=True):
        if entry.sum():
            groups = np.add.reduceat(entry[: starts[-1] + size], starts) / entry.sum()
            look = look_of(sample, samples)
            axes.stairs(groups, edges, lw=1.4, **look)
            axes.stairs(groups, edges, fill=True, color=look["color"], alpha=0.08)
    axes.set_xlim(edges[0], edges[-1])
    if quantity.log:
        axes.set_xscale("log")
        log_scale(axes.xaxis, edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{quantity.label}  [{quantity.unit}]" if quantity.unit else quantity.label)
    axes.set_ylabel("share of images per bin")
    tidy(axes, title)


def _drawn_range(known: Sequence[Floats]) -> tuple[int, int]:
    """Return the bins between which all but the tails of every histogram lie."""
    first, last = [], []
    for counts in known:
        below = np.cumsum(counts) / counts.sum()
        first.append(int(np.searchsorted(below, TAIL)))
        last.append(int(np.searchsorted(below, 1 - TAIL)) + 1)
    return min(first), max(*last, min(first) + 1)


def draw_area(axes: "Axes", samples: Sequence[Sample], per_decade: int) -> None:
    """Draw the effective area before cuts against energy: triggered, and with stereo geometry.

    Parameters
    ----------
    axes
        Where to draw.
    samples
        The particles; those of unknown thrown showers are left out.
    per_decade
        Bins per decade of energy.
    """
    drawn = False
    for sample in samples:
        look = look_of(sample, samples)
        middle, _ = middle_of(sample, per_decade)
        for passed, faint in ((sample.triggered, False), (sample.reconstructed, True)):
            area = effective_area(sample, passed, per_decade)
            if area is None:
                break
            value, low, high = area
            use = value > 0
            if not use.any():
                break
            drawn = True
            looks = {**look, "alpha": look["alpha"] * (0.45 if faint else 1.0)}
            looks["label"] = f"{sample.label}, {'reconstructed' if faint else 'triggered'}"
            axes.errorbar(
                middle[use],
                value[use],
                # The Wilson interval of a full bin ends below 1, so its upper part can vanish.
                yerr=np.clip([value[use] - low[use], high[use] - value[use]], 0, None),
                **LINE,
                mfc="white" if faint else looks["color"],
                **looks,
            )
    if not drawn:
        no_data(axes, "the stores do not say what was thrown")
    else:
        log_axes(axes, plain=False)
    axes.set_ylabel("effective area before cuts  [m²]")
    tidy(axes, "Effective area")


def _draw_containment(
    axes: "Axes",
    counts: Floats,
    sample: Sample,
    quantity: Axis,
    per_decade: int,
    factor: float,
    looks: dict[str, Any],
) -> bool:
    """Draw a containment against energy; return whether there was enough for one point."""
    found = containment_by_energy(counts, sample, quantity, per_decade)
    middle, reach = middle_of(sample, per_decade)
    values = np.array([(entry.value, entry.low, entry.high) for entry in found]) * factor
    use = np.isfinite(values[:, 0])
    if not use.any():
        return False
    value, low, high = values[use].T
    axes.errorbar(
        middle[use],
        value,
        xerr=reach[:, use],
        yerr=np.clip([value - low, high - value], 0, None),
        **LINE,
        **looks,
    )
    return True


def draw_direction(
    axes: "Axes", chosen: Sequence[Sample], samples: Sequence[Sample], per_decade: int
) -> None:
    """Draw the 68 % containment of the direction error against energy, in arc minutes.

    Parameters
    ----------
    axes
        Where to draw.
    chosen
        The particles to draw.
    samples
        All particles of the report, for their looks.
    per_decade
        Bins per decade of energy.
    """
    drawn = False
    for sample in chosen:
        look = look_of(sample, samples)
        all_label = {**look, "label": f"{sample.label}, all reconstructed"}
        drawn |= _draw_containment(
            axes, sample.direction, sample, DIRECTION, per_decade, ARCMIN, all_label
        )
        well = {
            **look,
            "ls": ":",
            "mfc": "white",
            "label": f"{MANY_IMAGES} images or more, core < {NEAR_M:g} m",
        }
        drawn |= _draw_containment(
            axes, sample.direction_well, sample, DIRECTION, per_decade, ARCMIN, well
        )
    if drawn:
        log_axes(axes)
    else:
        no_data(axes, "too few reconstructed events")
    axes.set_ylabel(f"direction error, {CONTAINMENT:.0%} contained  [arcmin]")
    tidy(axes, "Direction error")


def draw_theta2(axes: "Axes", chosen: Sequence[Sample], samples: Sequence[Sample]) -> None:
    """Draw the distribution of the squared angle between true and reconstructed direction."""
    drawn = False
    for sample in chosen:
        total = sample.direction.sum()
        if sample.theta2.sum():
            drawn = True
            look = look_of(sample, samples)
            axes.stairs(sample.theta2 / max(total, 1), THETA2.edges, lw=1.4, **look)
            axes.stairs(
                sample.theta2 / max(total, 1),
                THETA2.edges,
                fill=True,
                color=look["color"],
                alpha=0.08,
            )
    if drawn:
        axes.set_yscale("log")
    else:
        no_data(axes, "no reconstructed events")
    axes.set_xlim(THETA2.low, THETA2.high)
    axes.set_xlabel("θ²  [deg²]")
    axes.set_ylabel("share of reconstructed events per bin")
    tidy(axes, "Angle to the true direction, squared")


def draw_core(
    axes: "Axes", chosen: Sequence[Sample], samples: Sequence[Sample], per_decade: int
) -> None:
    """Draw the 68 % containment of the core error against energy."""
    drawn = False
    for sample in chosen:
        drawn |= _draw_containment(
            axes, sample.core, sample, CORE, per_decade, 1.0, look_of(sample, samples)
        )
    if drawn:
        log_axes(axes)
    else:
        no_data(axes, "too few reconstructed events")
    axes.set_ylabel(f"core error, {CONTAINMENT:.0%} contained  [m]")
    tidy(axes, "Core error")
