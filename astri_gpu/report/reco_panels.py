"""The panels of reconstructed energies and directions: one function draws one diagram."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display import style
from astri_gpu.report.binned import CONTAINMENT, Quantile
from astri_gpu.report.collect import Sample
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
from astri_gpu.report.reconstructed import (
    ENERGETIC_TEV,
    GROUPS,
    OFFSET,
    RECO_ENERGY,
    WELL_SEEN,
)
from astri_gpu.report.resolution import containments, energy_spreads

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "draw_bias",
    "draw_compared",
    "draw_migration",
    "draw_offset",
    "draw_quarters",
    "draw_resolution",
]

Floats = NDArray[np.float64]
# What the ASTRI project states for the Mini-Array (astri.inaf.it): about 10 % and about 3' above
# about 10 TeV, energies up to 200 TeV.
HEADLINE_RESOLUTION = 0.10
HEADLINE_ARCMIN = 3.0
HEADLINE_TEV = (ENERGETIC_TEV, 200.0)
HEADLINE_SOURCE = "ASTRI project (astri.inaf.it)"

COMPARED = {
    "merged": ("merged", "#0072b2", "-"),
    "geometry": ("geometry alone", "#009e73", "--"),
    "displacement": ("displacement alone", "#d55e00", ":"),
}
QUARTER_COLOURS = ("#440154", "#31688e", "#35b779", "#b8a100")  # of viridis, the last one darker
WELL_SEEN_COLOUR = "#d55e00"
LARGEST_BIAS = 100.0  # percent
LEGEND_LINE = 0.06  # of the height of the axes
FEW = "too few reconstructed events"


def _headline(axes: "Axes", value: float, text: str) -> None:
    axes.plot(
        HEADLINE_TEV,
        [value, value],
        ls=(0, (6, 3)),
        lw=1.3,
        color=style.INK,
        label=f"{text}: {HEADLINE_SOURCE}",
    )


def _labelled(sample: Sample, chosen: Sequence[Sample], text: str) -> str:
    return text if len(chosen) == 1 else f"{sample.label}, {text}"


def _make_room(axes: "Axes") -> None:
    """Raise the top of a logarithmic axis, so that the legend lies above the curves."""
    low, high = axes.get_ylim()
    axes.set_ylim(
        low, high * (high / low) ** (LEGEND_LINE * len(axes.get_legend_handles_labels()[0]))
    )
    log_scale(axes.yaxis, *axes.get_ylim())


def draw_bias(
    axes: "Axes", chosen: Sequence[Sample], samples: Sequence[Sample], per_decade: int
) -> None:
    """Draw the median of the relative error of the energy against true energy.

    Parameters
    ----------
    axes
        Where to draw.
    chosen
        The particles to draw, all of them reconstructed.
    samples
        All particles of the report, for their looks.
    per_decade
        Bins per decade of energy.
    """
    drawn = False
    for sample in chosen:
        middle, reach = middle_of(sample, per_decade)
        spreads = energy_spreads(sample, per_decade)
        value = np.array([entry.median for entry in spreads])
        error = np.array([entry.median_error for entry in spreads])
        use = np.isfinite(value)
        if use.any():
            drawn = True
            axes.errorbar(
                middle[use],
                100 * value[use],
                xerr=reach[:, use],
                yerr=100 * error[use],
                **LINE,
                **look_of(sample, samples),
            )
    if drawn:
        axes.axhline(0, color=style.INK, lw=0.7)
        # At the threshold only showers that look bright are seen; they would flatten the rest.
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -LARGEST_BIAS), min(high, LARGEST_BIAS))
        axes.set_xscale("log")
        log_scale(axes.xaxis, *axes.get_xlim())
    else:
        no_data(axes, FEW)
    axes.set_xlabel("true energy  [TeV]")
    axes.set_ylabel("median of (E reco − E true) / E true  [%]")
    tidy(axes, "Energy bias")


def draw_resolution(axes: "Axes", chosen: Sequence[Sample], per_decade: int) -> None:
    """Draw the energy resolution against true energy, of each of `GROUPS`."""
    drawn = False
    for sample in chosen:
        middle, reach = middle_of(sample, per_decade)
        for group in GROUPS:
            spreads = energy_spreads(sample, per_decade, group)
            value = np.array([entry.half_width for entry in spreads])
            error = np.array([entry.half_width_error for entry in spreads])
            use = np.isfinite(value)
            if not use.any():
                continue
            drawn = True
            axes.errorbar(
                middle[use],
                100 * value[use],
                xerr=reach[:, use] if group == 0 else None,
                yerr=100 * error[use],
                **{**LINE, **_group_look(group)},
                label=_labelled(sample, chosen, GROUPS[group]),
            )
    if drawn:
        _headline(axes, 100 * HEADLINE_RESOLUTION, "~10 %")
        log_axes(axes)
        _make_room(axes)
    else:
        no_data(axes, FEW)
    axes.set_xlabel("true energy  [TeV]")
    axes.set_ylabel("half of the central 68 % of the relative error  [%]")
    tidy(axes, "Energy resolution")


def _group_look(group: int) -> dict[str, Any]:
    if group == 0:
        return {"color": style.INK, "lw": 1.5, "zorder": 4}
    if group == WELL_SEEN:
        return {"color": WELL_SEEN_COLOUR, "ls": ":", "lw": 1.3, "mfc": "white"}
    return {"color": QUARTER_COLOURS[group - 1], "ls": "--", "lw": 0.9, "ms": 2.0}


def draw_migration(axes: "Axes", sample: Sample) -> None:
    """Draw the distribution of reconstructed energy for each true energy."""
    assert sample.reco is not None  # those who call this choose reconstructed samples
    counts = sample.reco.migration
    if not counts.any():
        no_data(axes, FEW)
        tidy(axes, "Energy migration", legend=False)
        return
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    mesh = axes.pcolormesh(
        sample.energy_edges,
        RECO_ENERGY.edges,
        np.ma.masked_equal(share.T, 0),
        cmap="viridis",
        rasterized=True,
    )
    true, reco = (np.flatnonzero(counts.any(axis=axis)) for axis in (1, 0))
    low = min(sample.energy_edges[true[0]], RECO_ENERGY.edges[reco[0]])
    high = max(sample.energy_edges[true[-1] + 1], RECO_ENERGY.edges[reco[-1] + 1])
    axes.plot([low, high], [low, high], color=style.INK, lw=0.8, ls=":")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    log_axes(axes)
    axes.set_ylabel("reconstructed energy  [TeV]")
    axes.figure.colorbar(mesh, ax=axes, label="share of events of this true energy", pad=0.02)
    tidy(axes, f"Energy migration of {sample.label}", legend=False)


def _draw_angles(
    axes: "Axes", middle: Floats, reach: Floats | None, found: Sequence[Quantile], look: Any
) -> bool:
    """Draw containments in arc minutes; return whether there was enough for one point."""
    values = np.array([(entry.value, entry.low, entry.high) for entry in found]) * ARCMIN
    use = np.isfinite(values[:, 0])
    if not use.any():
        return False
    value, low, high = values[use].T
    axes.errorbar(
        middle[use],
        value,
        xerr=None if reach is None else reach[:, use],
        yerr=np.clip([value - low, high - value], 0, None),
        **{**LINE, **look},
    )
    return True


def _by_energy(counts: Floats, sample: Sample, per_decade: int) -> list[Quantile]:
    return containments(np.add.reduceat(counts, sample.merged(per_decade), axis=0))


def draw_compared(axes: "Axes", chosen: Sequence[Sample], per_decade: int) -> None:
    """Draw the angular resolution of each estimate of the direction against true energy."""
    drawn = False
    for sample in chosen:
        assert sample.reco is not None  # those who call this choose reconstructed samples
        middle, reach = middle_of(sample, per_decade)
        every: dict[str, Any] = {"color": style.INK, "ls": "-", "lw": 0.8, "mfc": "white"}
        every["label"] = _labelled(sample, chosen, "merged, all events (single images too)")
        found = _by_energy(sample.reco.direction[0], sample, per_decade)
        drawn |= _draw_angles(axes, middle, None, found, every)
        for name, (text, colour, dashes) in COMPARED.items():
            look = {"color": colour, "ls": dashes, "label": _labelled(sample, chosen, text)}
            found = _by_energy(sample.reco.compared[name], sample, per_decade)
            drawn |= _draw_angles(axes, middle, reach if name == "merged" else None, found, look)
    if drawn:
        _headline(axes, HEADLINE_ARCMIN, "~3′")
        log_axes(axes)
        _make_room(axes)
    else:
        no_data(axes, FEW)
    axes.set_xlabel("true energy  [TeV]")
    axes.set_ylabel(f"direction error, {CONTAINMENT:.0%} contained  [arcmin]")
    tidy(axes, "Angular resolution, events with stereo geometry")


def draw_quarters(axes: "Axes", chosen: Sequence[Sample], per_decade: int) -> None:
    """Draw the angular resolution of each of `GROUPS` against true energy."""
    drawn = False
    for sample in chosen:
        assert sample.reco is not None  # those who call this choose reconstructed samples
        middle, reach = middle_of(sample, per_decade)
        for group in GROUPS:
            look = _group_look(group)
            look["label"] = _labelled(sample, chosen, GROUPS[group])
            found = _by_energy(sample.reco.direction[group], sample, per_decade)
            drawn |= _draw_angles(axes, middle, reach if group == 0 else None, found, look)
    if drawn:
        _headline(axes, HEADLINE_ARCMIN, "~3′")
        log_axes(axes)
        _make_room(axes)
    else:
        no_data(axes, FEW)
    axes.set_xlabel("true energy  [TeV]")
    axes.set_ylabel(f"direction error, {CONTAINMENT:.0%} contained  [arcmin]")
    tidy(axes, "Angular resolution by event quality")


def draw_offset(axes: "Axes", chosen: Sequence[Sample]) -> None:
    """Draw the angular resolution against the true offset from the pointing."""
    middle = (OFFSET.edges[:-1] + OFFSET.edges[1:]) / 2
    reach = np.tile(np.diff(OFFSET.edges) / 2, (2, 1))
    drawn = False
    for sample in chosen:
        assert sample.reco is not None  # those who call this choose reconstructed samples
        for name, (text, colour, dashes) in COMPARED.items():
            look = {"color": colour, "ls": dashes, "label": _labelled(sample, chosen, text)}
            found = containments(sample.reco.offset_compared[name])
            drawn |= _draw_angles(axes, middle, reach if name == "merged" else None, found, look)
        text = f"merged, all events above {ENERGETIC_TEV:g} TeV"
        every: dict[str, Any] = {"color": style.INK, "ls": "-", "lw": 0.8, "mfc": "white"}
        every["label"] = _labelled(sample, chosen, text)
        drawn |= _draw_angles(axes, middle, None, containments(sample.reco.offset_energetic), every)
    if drawn:
        axes.set_yscale("log")
        log_scale(axes.yaxis, *axes.get_ylim())
        _make_room(axes)
        axes.set_xlim(left=0)
    else:
        no_data(axes, FEW)
    axes.set_xlabel("true offset from the pointing  [deg]")
    axes.set_ylabel(f"direction error, {CONTAINMENT:.0%} contained  [arcmin]")
    tidy(axes, "Against offset, all energies, with stereo geometry")
