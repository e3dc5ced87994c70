"""Pictures of what `scaling.measure_scaling` returns, in the style of the package's figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from astri_gpu.display import style

from .report_rows import rate_text

__all__ = ["draw"]

SIZE_INCH = (5.2, 3.6)
DPI = 150
MARKS = ("o", "s", "^", "D")
LIMIT_MIB = 2048
LEGENDS: dict[str, Any] = {"cores": "upper left", "memory": "center right"}


def draw(scaling: dict[str, Any], stem: Path) -> list[Path]:
    """Write ``<stem>-<curve>.png`` for every curve that was measured, and return the paths."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    paths = []
    for name, drawing in DRAWINGS.items():
        if "failed" in scaling.get(name, {"failed": ""}):
            continue
        with rc_context({**style.STYLE, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5}):
            figure = Figure(figsize=SIZE_INCH, dpi=DPI, layout="constrained")
            axes = figure.subplots()
            axes.set_axisbelow(True)
            axes.grid(color=style.GRID, lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            drawing(axes, scaling[name])
            axes.legend(frameon=False, fontsize=style.FONTS["note"], loc=LEGENDS.get(name, "best"))
            path = stem.with_name(f"{stem.name}-{name}.png")
            figure.savefig(path)
        paths.append(path)
    return paths


def _line(number: int, **changes: Any) -> dict[str, Any]:
    """Return colour and mark of the curve with this number."""
    colour = style.CAMERA_COLOURS[number % len(style.CAMERA_COLOURS)]
    return {"color": colour, "marker": MARKS[number % len(MARKS)], "ms": 4, "lw": 1.4} | changes


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, fontsize=style.FONTS["panel"], loc="left")


def _batch(axes: Any, found: dict[str, Any]) -> None:
    for number, (name, points) in enumerate(found["curves"].items()):
        axes.plot(
            [point["batch"] for point in points],
            [point["images_per_s"] for point in points],
            label=name,
            **_line(number),
        )
    peer = found["ctapipe_images_per_s"]
    if peer:
        axes.axhline(peer, color=style.INK, lw=1.2, ls="--", label="ctapipe's functions")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.set_xlabel("images in a batch")
    axes.set_ylabel("images/s")
    _title(axes, "DL0 → DL1b in memory")


def _cores(axes: Any, found: dict[str, Any]) -> None:
    for number, (name, points) in enumerate(found["curves"].items()):
        cores = [point["cores"] for point in points]
        last = points[-1]
        label = (
            f"{name}: {rate_text(last['images_per_s'])} images/s on {last['cores']} "
            f"({100 * last['efficiency']:.0f} %)"
        )
        speedup = [point["cores"] * point["efficiency"] for point in points]
        axes.plot(cores, speedup, label=label, **_line(number))
    axes.plot(cores, cores, color=style.INK, lw=1.2, ls="--", label="in proportion")
    axes.set_xticks(cores)
    axes.set_ylim(0, 1.4 * cores[-1])  # room for the legend
    axes.set_xlabel("cores")
    axes.set_ylabel("speed-up over one core")
    _title(axes, "DL0 → DL1b in memory, and `process` from store to store")


def _files(axes: Any, found: dict[str, Any]) -> None:
    lengths = sorted({point["images"] // point["files"] for point in found["points"]})
    for number, length in enumerate(lengths):
        points = [p for p in found["points"] if p["images"] == length * p["files"]]
        files = [point["files"] for point in points]
        axes.plot(
            files,
            [point["seconds"] for point in points],
            label=f"stores of {length} images",
            **_line(number, ls=""),
        )
        per_store = found["per_file_s"] + length * found["per_image_s"]
        ends = [0, max(files)]
        axes.plot(ends, [n * per_store for n in ends], **_line(number, marker="", lw=0.9))
    axes.set_xticks(range(0, max(files) + 1, max(1, max(files) // 4)))
    axes.set_xlabel("stores")
    axes.set_ylabel("seconds of `process`")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _title(
        axes,
        f"{found['per_file_s']:.2f} s a store + {1e6 * found['per_image_s']:.1f} µs an image "
        f"(within {100 * found['worst']:.0f} %)",
    )


def _memory(axes: Any, found: dict[str, Any]) -> None:
    units = {"process": "images", "simulate": "showers"}
    for number, (name, points) in enumerate(found["curves"].items()):
        label = f"{name}, smallest: {points[0]['n']} {units[name]}"
        axes.plot(
            [point["factor"] for point in points],
            [point["peak_memory_mib"] for point in points],
            label=label,
            **_line(number),
        )
    axes.axhline(LIMIT_MIB, color=style.INK, lw=1.2, ls="--", label="2 GiB, the goal")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("size of the input, in units of the smallest")
    axes.set_ylabel("peak memory, MiB")
    _title(axes, "Peak resident memory of one process")


DRAWINGS: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "batch": _batch,
    "cores": _cores,
    "files": _files,
    "memory": _memory,
}
