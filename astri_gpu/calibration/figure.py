"""The picture of a run's telescopes: rates, pointing and temperatures over time, constants."""

from collections.abc import Callable, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.calibration.cal1_file import ConstantsSet
from astri_gpu.calibration.good_time import GoodTime, NominalTrack
from astri_gpu.calibration.housekeeping import Housekeeping
from astri_gpu.display import style
from astri_gpu.report.drawing import CHARACTERS_PER_INCH, no_data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["monitoring_figure"]

WIDTH, HEIGHT = 12.0, 7.6
RATE_BIN_S = 10.0
N_BINS = 60
NOTED = 4  # reasons that are told at the foot
ARCSEC = 3600.0
LEAST_ARCSEC = 1.0  # of the axis; below is rounding

Look = dict[str, Any]


def monitoring_figure(
    samples: Sequence[Housekeeping],
    sets: Sequence[ConstantsSet],
    good: GoodTime,
    track: NominalTrack,
    *,
    start_s: float,
    title: str,
    notes: str = "",
    dpi: int = 130,
) -> "Figure":
    """Return the picture.

    Parameters
    ----------
    samples
        Housekeeping of each telescope; may be empty.
    sets
        Camera constants.
    good
        Good time; the rest is shaded.
    track
        Where the array was told to point.
    start_s
        Of the run, UTC seconds since 2020-01-01.
    title, notes
        At the top and the foot.
    dpi
        Dots per inch.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    looks = _looks(sorted({e.tel_id for e in samples} | {e.tel_id for e in sets}))
    with rc_context(style.STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=dpi, layout="constrained")
        figure.suptitle(title, fontsize=style.FONTS["title"], x=0.01, ha="left")
        halves: Any = figure.subfigures(1, 2, width_ratios=[1.7, 1])
        left, right = halves
        over_time = left.subplots(3, 1, sharex=True)
        for each in samples:
            time = each.time_s + 1e-9 * each.time_ns - start_s
            look = looks[each.tel_id]
            over_time[0].plot(*_rates(time, each.n_events), **look)
            over_time[1].plot(time, ARCSEC * track.offset_deg(each), **look)
            over_time[2].plot(time, each.temperature, **look)
        for axes, label in zip(
            over_time,
            ("events read out [Hz]", "pointing off its track [arcsec]", "focal plane [°C]"),
            strict=True,
        ):
            axes.set_ylabel(label)
            _shade(axes, good, start_s)
            if not samples:
                no_data(axes, "no housekeeping")
        over_time[0].set_ylim(bottom=0)
        over_time[1].set_ylim(0, max(LEAST_ARCSEC, over_time[1].get_ylim()[1]))
        over_time[2].set_xlabel("time since the start of the run [s]")
        constants = right.subplots(2, 1)
        counts = _good(sets, looks, lambda each: 1 / each.dc_to_pe[0][each.pixel_valid[0]])
        _histograms(constants[0], counts, "counts per p.e., high gain", looks)
        spread = _good(sets, looks, lambda each: each.pedestal_std[0][each.pixel_valid[0]])
        _histograms(constants[1], spread, "pedestal spread, high gain [counts]", looks)
        for axes in (*over_time, *constants):
            axes.grid(color=style.GRID, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        constants[0].legend(
            title="telescope",
            frameon=False,
            fontsize=style.FONTS["note"],
            title_fontsize=style.FONTS["note"],
            ncols=2,
        )
        figure.supxlabel(
            fill(_foot(good, notes), int(1.15 * CHARACTERS_PER_INCH * WIDTH)),
            fontsize=style.FONTS["note"] - 0.5,
            color="#6d7484",
            x=0.99,
            ha="right",
        )
    return figure


def _looks(tel_ids: Sequence[int]) -> dict[int, Look]:
    """Return colour and dashes of each telescope."""
    n_colours = len(style.CAMERA_COLOURS)
    return {
        tel_id: {
            "color": style.CAMERA_COLOURS[number % n_colours],
            "linestyle": "-" if number < n_colours else (0, (4, 1.5)),
            "linewidth": 1.0,
            "label": str(tel_id),
        }
        for number, tel_id in enumerate(tel_ids)
    }


def _rates(
    time: NDArray[np.float64], counter: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return times and rates from a counter, over some ten seconds each; NaN at its restarts."""
    if len(time) < 2:
        return np.empty(0), np.empty(0)
    usual = float(np.median(np.diff(time)))
    step = max(1, min(round(RATE_BIN_S / usual), (len(time) - 1) // 2))
    at, count = time[::step], counter[::step]
    counts = np.diff(count).astype(np.float64)
    rate = np.where(counts >= 0, counts, np.nan) / np.diff(at)
    return (at[1:] + at[:-1]) / 2, rate


def _shade(axes: Any, good: GoodTime, start_s: float) -> None:
    """Shade the time of the run that is not good."""
    edges = np.concatenate([[0.0], (good.intervals - start_s).ravel(), [good.run_s]]).reshape(-1, 2)
    for first, last in edges:
        if last > first:
            axes.axvspan(first, last, color=style.INK, alpha=0.12, linewidth=0)
    axes.set_xlim(0, good.run_s)


def _good(
    sets: Sequence[ConstantsSet],
    looks: dict[int, Look],
    values: Callable[[ConstantsSet], NDArray[np.float64]],
) -> dict[int, NDArray[np.float64]]:
    """Return the values of good pixels by telescope, all of its sets in one."""
    return {
        tel_id: np.concatenate(
            [values(each) for each in sets if each.tel_id == tel_id] or [np.empty(0)]
        )
        for tel_id in looks
    }


def _histograms(
    axes: Any, values: dict[int, NDArray[np.float64]], label: str, looks: dict[int, Look]
) -> None:
    """Draw the distribution of each telescope."""
    every = np.concatenate(list(values.values()) or [np.empty(0)])
    axes.set_xlabel(label)
    axes.set_ylabel("good pixels")
    if not len(every):
        no_data(axes, "no constants")
        return
    low, high = (float(np.quantile(every, share)) for share in (0.001, 0.999))
    margin = 0.0 if high > low else 0.5
    edges = np.linspace(low - margin, high + margin, N_BINS + 1)
    for tel_id, part in values.items():
        counts = np.histogram(part, edges)[0]
        look = {key: looks[tel_id][key] for key in ("color", "linestyle", "linewidth", "label")}
        axes.stairs(counts, edges, **look)


def _foot(good: GoodTime, notes: str) -> str:
    told = "; ".join(map(str, good.reasons[:NOTED]))
    more = len(good.reasons) - NOTED
    text = f"Good by housekeeping: {good.seconds:.0f} of {good.run_s:.0f} s"
    text += f" ({told}{f'; {more} more' if more > 0 else ''})" if told else ""
    return f"{text}. {notes}" if notes else text
