"""Pictures of a sweep: scores job by job, the best curves, and the options against the score."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display import style
from astri_gpu.sweeps.records import DONE, best_of, is_scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curve_figure", "option_figure", "score_figure"]

Record = Mapping[str, Any]
Floats = NDArray[np.float64]

BEST = "#d55e00"
MAP = "viridis_r"
N_CURVES = 5  # the best jobs whose sensitivity is drawn


def score_figure(records: Sequence[Record], dpi: int) -> "Figure":
    """Return the score of every job in the order in which they ran, and the best so far."""
    from astri_gpu.report.drawing import tidy

    figure = _figure(8.0, 3.6, dpi, "Score by job", records)
    axes = figure.subplots()
    place = np.arange(len(records))
    score = np.array([record["score"] if is_scored(record) else np.nan for record in records])
    failed = np.array([record["state"] != DONE for record in records])
    axes.plot(place, score, "o", ms=3.5, color="#0072b2", label="job")
    so_far = np.fmin.accumulate(score) if len(score) else score
    axes.step(place, so_far, where="post", lw=1.4, color=BEST, label="best so far")
    if failed.any():
        axes.plot(
            place[failed],
            np.full(failed.sum(), 0.05),
            "x",
            ms=6,
            mew=1.5,
            color=style.INK,
            transform=axes.get_xaxis_transform(),
            label="failed (no score)",
        )
    axes.set_xlabel("job, in the order of their start")
    axes.set_ylabel("score (small is good)")
    tidy(axes, "")
    return figure


def curve_figure(records: Sequence[Record], dpi: int) -> "Figure":
    """Return the sensitivity of all jobs, the best in colour, with ASTRI's published curve."""
    from astri_gpu.report.drawing import log_axes, log_scale, tidy
    from astri_gpu.responses.references import (
        PUBLISHED_SOURCE,
        published_sensitivity,
        published_table,
    )

    done = sorted(filter(is_scored, records), key=lambda record: record["score"])
    # Jobs that chose the same cuts have the same curve: one of them stands for all.
    different = {str(record["sensitivity"]): record for record in reversed(done)}
    best = sorted(different.values(), key=lambda record: record["score"])[:N_CURVES]
    figure = _figure(7.2, 6.4, dpi, f"Sensitivity: the {len(best)} best, different jobs", records)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    looks = [(record, {"color": style.FAINT, "lw": 0.6, "alpha": 0.5}) for record in done]
    for record, colour in reversed(list(zip(best, _colours(len(best)), strict=True))):
        label = f"job {record['job']}, score {record['score']:.4g}"
        looks.append((record, {"color": colour, "marker": "o", "ms": 3, "lw": 1.2, "label": label}))
    known = False
    for record, look in looks:
        edges = np.array(record["energy_edges"])
        middle = np.sqrt(edges[:-1] * edges[1:])
        found = np.array(record["sensitivity"], dtype=float)
        found[~np.isfinite(found)] = np.nan
        upper.plot(middle, found, **look)
        ratio = found / published_sensitivity(edges)
        known = known or bool(np.isfinite(ratio).any())
        lower.plot(middle, ratio, **look)
    upper.plot(*published_table(), "k--", lw=1.2, marker="s", ms=2.5, label=PUBLISHED_SOURCE)
    log_axes(upper, plain=False)
    upper.set_xlabel("")
    upper.set_ylabel("E² dN/dE  [erg cm⁻² s⁻¹]")
    tidy(upper, "")
    handles, labels = upper.get_legend_handles_labels()
    upper.legend(
        [*handles[-2::-1], handles[-1]],
        [*labels[-2::-1], labels[-1]],
        frameon=False,
        fontsize=style.FONTS["note"],
    )
    lower.axhline(1.0, color="k", ls="--", lw=1)
    if known:
        lower.set_yscale("log")
        log_scale(lower.yaxis, *lower.get_ylim())
    lower.set_ylabel("over published")
    lower.set_xlabel("reconstructed energy  [TeV]")
    tidy(lower, "", legend=False)
    return figure


def option_figure(records: Sequence[Record], dpi: int) -> "Figure":
    """Return swept options and score as parallel coordinates; the best job is drawn thick."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    done = sorted(filter(is_scored, records), key=lambda record: -record["score"])
    names = list(dict.fromkeys(name for record in records for name in record.get("swept", {})))
    score = np.array([record["score"] for record in done])
    figure = _figure(2.4 + 1.6 * (len(names) + 1), 4.6, dpi, "Options and score", records)
    axes = figure.subplots()
    columns = [_column([record["swept"].get(name) for record in done]) for name in names]
    columns.append(_numbers(score.tolist()))
    best = best_of(done)
    norm = Normalize(*(score.min(), score.max()) if len(score) else (0, 1))
    paint = matplotlib.colormaps[MAP]
    rng = np.random.default_rng(1)  # spreads lines that would cover each other
    for number, record in enumerate(done):
        spread = rng.uniform(-0.012, 0.012, len(columns))
        values = [column[0][number] for column in columns] + spread
        look: dict[str, Any] = {"color": paint(norm(record["score"])), "lw": 0.9, "alpha": 0.75}
        if record is best:
            look = {"color": BEST, "lw": 2.4, "alpha": 1.0, "label": f"best: job {record['job']}"}
        axes.plot(range(len(columns)), values, **look)
    for place, (_, ticks) in enumerate(columns):
        axes.axvline(place, color=style.INK, lw=0.8, zorder=0)
        for height, text in ticks:
            axes.annotate(
                text,
                (place, height),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=style.FONTS["tick"],
                va="center",
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
                zorder=5,
            )
    _frame(axes, [*names, "score"])
    if best is not None:
        axes.legend(frameon=False, fontsize=style.FONTS["note"], loc="upper left")
        bar = figure.colorbar(ScalarMappable(norm, paint), ax=axes, pad=0.02, shrink=0.8)
        bar.set_label("score (small is good)")
    return figure


def _frame(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n") for name in names])
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(names) - 0.6)
    axes.set_ylim(-0.06, 1.16)
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)


Ticks = list[tuple[float, str]]


def _column(values: Sequence[Any]) -> tuple[Floats, Ticks]:
    """Return heights (job,) between 0 and 1 on an axis, and its ticks."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return _numbers([float(value) for value in values])
    texts = ["default" if value is None else str(value) for value in values]
    known = list(dict.fromkeys(sorted(texts)))
    height = {text: (place + 0.5) / len(known) for place, text in enumerate(known)}
    ticks = [(height[text], text if len(text) < 25 else text[:22] + "...") for text in known]
    return np.array([height[text] for text in texts]), ticks


def _numbers(values: Sequence[float]) -> tuple[Floats, Ticks]:
    if not values:
        return np.empty(0), []
    low, high = min(values), max(values)
    if low == high:
        return np.full(len(values), 0.5), [(0.5, f"{low:.4g}")]
    different = sorted(set(values))
    marked = different if len(different) <= 6 else np.linspace(low, high, 5).tolist()
    scale = high - low
    return (np.array(values) - low) / scale, [
        ((value - low) / scale, f"{value:.4g}") for value in marked
    ]


def _colours(number: int) -> list[str]:
    return [BEST, *(colour for colour in style.CAMERA_COLOURS if colour != BEST)][:number]


def _figure(
    width: float, height: float, dpi: int, title: str, records: Sequence[Record]
) -> "Figure":
    """Return an empty figure; its foot says how the events were simulated."""
    from textwrap import fill

    from matplotlib.figure import Figure

    from astri_gpu.report.drawing import CHARACTERS_PER_INCH

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    figure.suptitle(title, fontsize=style.FONTS["title"], x=0.01, ha="left")
    models = sorted(
        {str(record["simulation_model"]) for record in records if record.get("simulation_model")}
    )
    if models:
        figure.supxlabel(
            fill("; ".join(models), int(CHARACTERS_PER_INCH * width)),
            fontsize=style.FONTS["note"],
            color=style.FAINT,
            x=0.99,
            ha="right",
        )
    return figure
