"""The picture of a run's stereo events: clock offsets over time, sum of the correlograms."""

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.display import style
from astri_gpu.event_building.clock import JUMP
from astri_gpu.event_building.profile import Accidentals
from astri_gpu.event_building.seb0_file import Offsets, Profile
from astri_gpu.event_building.truth import Truth
from astri_gpu.report.drawing import CHARACTERS_PER_INCH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["offsets_figure"]

WIDTH, HEIGHT = 11.0, 7.2


def offsets_figure(
    offsets: Offsets,
    profile: Profile,
    accidental: Accidentals,
    *,
    window_us: float,
    start_s: float,
    title: str,
    notes: str = "",
    truth: Truth | None = None,
    dpi: int = 130,
) -> "Figure":
    """Return the picture.

    Parameters
    ----------
    offsets, profile
        As in the file of stereo events.
    accidental
        Rates of accidental pairs.
    window_us
        Half width of the window.
    start_s
        Of the run.
    title, notes
        At the top and the foot.
    truth
        Of a simulated run: its clocks are drawn too.
    dpi
        Dots per inch.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(style.STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=dpi, layout="constrained")
        figure.suptitle(title, fontsize=style.FONTS["title"], x=0.01, ha="left")
        top, bottom = figure.subplots(2, 1, height_ratios=[1.25, 1])
        _draw_offsets(top, offsets, start_s, truth)
        _draw_lags(bottom, profile, accidental, window_us)
        for axes in (top, bottom):
            axes.grid(color=style.GRID, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        if notes:
            figure.supxlabel(
                fill(notes, int(1.15 * CHARACTERS_PER_INCH * WIDTH)),
                fontsize=style.FONTS["note"] - 0.5,
                color="#6d7484",
                x=0.99,
                ha="right",
            )
    return figure


def _draw_offsets(axes: Any, offsets: Offsets, start_s: float, truth: Truth | None) -> None:
    """Draw how offsets drift; their first values are in the legend, and jumps are marked.

    Offsets are microseconds apart, jump by milliseconds and drift by nanoseconds, which no one axis
    can show.
    """
    tel_ids = np.unique(offsets.tel_id).tolist()
    true = {} if truth is None else _true_drifts(offsets, truth, start_s)
    for number, tel_id in enumerate(tel_ids):
        colour = style.CAMERA_COLOURS[number % len(style.CAMERA_COLOURS)]
        dashes: Any = "-" if number < len(style.CAMERA_COLOURS) else (0, (4, 1.5))
        use = (offsets.tel_id == tel_id) & np.isfinite(offsets.offset_ns)
        if not use.any():
            axes.plot([], [], color=colour, linestyle=dashes, label=f"{tel_id}: no peak")
            continue
        time = (offsets.start_s[use] + offsets.stop_s[use]) / 2 - start_s
        jumps = _jumps(offsets, use)
        drift = offsets.offset_ns[use] - np.cumsum(jumps)
        axes.plot(
            time,
            drift - drift[0],
            color=colour,
            linestyle=dashes,
            linewidth=1.3,
            marker=".",
            markersize=4,
            label=f"{tel_id}: {drift[0] / 1e3:+.2f} µs",
        )
        if tel_id in true:
            axes.plot(time, true[tel_id] - drift[0], color=style.INK, linewidth=0.7, linestyle=":")
        for k in np.nonzero(jumps)[0]:
            at = float(offsets.start_s[use][k]) - start_s
            axes.axvline(at, color=colour, linewidth=1.0, linestyle=(0, (2, 2)))
            axes.annotate(
                f" {jumps[k] / 1e3:+.4g} µs",
                (at, 1.0),
                xycoords=("data", "axes fraction"),
                va="top",
                color=colour,
                fontsize=style.FONTS["note"],
            )
    if true:
        axes.plot([], [], color=style.INK, linewidth=0.7, linestyle=":", label="truth")
    if len(offsets.start_s):
        axes.set_xlim(offsets.start_s.min() - start_s, offsets.stop_s.max() - start_s)
    axes.set_xlabel("time since the start of the run [s]")
    axes.set_ylabel("drift of the clock [ns]")
    axes.legend(
        title="telescope: first offset",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.02),
        frameon=False,
        fontsize=style.FONTS["note"],
        title_fontsize=style.FONTS["note"],
    )


def _jumps(offsets: Offsets, use: Any) -> Any:
    """Return by how much the clock jumped at the beginning of each stretch of a telescope."""
    steps = np.diff(offsets.offset_ns[use], prepend=offsets.offset_ns[use][0])
    return np.where((offsets.flag[use] & JUMP) > 0, steps, 0.0)


def _true_drifts(offsets: Offsets, truth: Truth, start_s: float) -> dict[int, Any]:
    """Return the true offsets without jumps, by telescope.

    Only differences between telescopes can be measured, so the median of all is taken from what was
    found, at each time.
    """
    true, moved, at = {}, [], []
    for tel_id in np.unique(offsets.tel_id).tolist():
        use = (offsets.tel_id == tel_id) & np.isfinite(offsets.offset_ns)
        if tel_id in truth.clocks and use.any():
            at_start, drift, *_ = truth.clocks[tel_id]
            time = (offsets.start_s[use] + offsets.stop_s[use]) / 2
            true[tel_id] = time, at_start + drift * (time - start_s)
            found = offsets.offset_ns[use] - np.cumsum(_jumps(offsets, use))
            moved.append(found - true[tel_id][1])
            at.append(time)
    if not true:
        return {}
    time, place = np.unique(np.concatenate(at), return_inverse=True)
    shifts = np.concatenate(moved)
    common = np.array([np.median(shifts[place == k]) for k in range(len(time))])
    whole = np.bincount(place) > len(true) / 2  # the stretches at a jump are of one telescope
    if not whole.any():
        whole[:] = True
    return {
        tel_id: values + np.interp(when, time[whole], common[whole])
        for tel_id, (when, values) in true.items()
    }


def _draw_lags(axes: Any, profile: Profile, accidental: Accidentals, window_us: float) -> None:
    lag, place = np.unique(profile.lag_ns, return_inverse=True)
    counts = np.bincount(place, profile.counts, minlength=len(lag))
    axes.axvspan(-window_us, window_us, color=style.GRID, linewidth=0, label="window")
    if len(lag):
        axes.step(lag / 1e3, counts, where="mid", color=style.CAMERA_COLOURS[0], linewidth=1.1)
        axes.set_xlim(lag[0] / 1e3, lag[-1] / 1e3)
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("difference of corrected times, all pairs of telescopes [µs]")
    axes.set_ylabel("pairs per bin")
    measured = f"{accidental.measured:.3f} ± {accidental.error:.3f}"
    axes.set_title(
        f"within the window: {accidental.pair_rate:.3g} Hz of pairs, by chance {measured} Hz "
        f"(calculated {accidental.expected:.3f} Hz)",
        fontsize=style.FONTS["panel"],
        loc="left",
    )
    axes.legend(frameon=False, loc="upper right", fontsize=style.FONTS["note"])
