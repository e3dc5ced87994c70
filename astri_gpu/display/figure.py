"""The figures: camera images, the array, or both together, with title and legend."""

import math
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.display import style
from astri_gpu.display.array import draw_field_of_view, draw_ground
from astri_gpu.display.camera import draw_camera
from astri_gpu.display.scene import EventScene
from astri_gpu.kernels.coordinates import angular_separation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MOST_IMAGES", "event_figure", "headline", "notes"]

MOST_IMAGES = 12
IMAGE_INCH = 2.6
ARRAY_INCH = 4.0
LEGEND_INCH = 1.6  # one entry
CHARACTERS_PER_INCH = 16  # of the notes; the title is about 1.6 times as large
PARTICLES = {"observation": "", "calibration": "calibration", "mixed": "particle"}


def headline(event: EventScene) -> str:
    """Return what happened in one line: event, particle, energy, errors of the reconstruction."""
    parts = [f"Event {event.event_id}, observation {event.obs_id}"]
    particle = PARTICLES.get(event.kind, event.kind)
    if event.true_energy_tev is not None and particle:
        parts.append(f"{particle} of {event.true_energy_tev:.3g} TeV")
    elif particle:
        parts.append(particle)
    if event.direction is not None and event.true_direction is not None:
        (alt, az), (true_alt, true_az) = event.direction, event.true_direction
        off = angular_separation(*map(np.float64, (az, alt, true_az, true_alt)))
        parts.append(f"direction off by {float(off):.3f}°")
    if event.core is not None and event.true_core is not None:
        parts.append(f"core off by {math.dist(event.core, event.true_core):.1f} m")
    return ",  ".join(parts)


def event_figure(event: EventScene, what: str, dpi: int) -> "Figure":
    """Return the figure of an event.

    Parameters
    ----------
    event
        The event; its images need pixel values unless `what` is "array".
    what
        "event" for everything, "images" for the cameras, "array" for ground and field of view.
    dpi
        Dots per inch.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = event.images[:MOST_IMAGES] if what != "array" else ()
    columns, rows = _grid(len(shown), beside_array=what == "event")
    with rc_context(style.STYLE):
        figure = Figure(figsize=_size(what, columns, rows), dpi=dpi, layout="constrained")
        text = fill(headline(event), int(CHARACTERS_PER_INCH * figure.get_figwidth() * 0.65))
        figure.suptitle(text, fontsize=style.FONTS["title"], x=0.01, ha="left")
        left: Any = figure
        right: Any = figure
        if what == "event":
            widths = [figure.get_figwidth() - ARRAY_INCH, ARRAY_INCH]
            parts: Any = figure.subfigures(1, 2, width_ratios=widths, wspace=0.01)
            left, right = parts
        if what != "array":
            _draw_images(left, event, columns, rows)
        if what != "images":
            shape = (2, 1) if what == "event" else (1, 2)
            ground, field = right.subplots(*shape)
            draw_ground(ground, event)
            draw_field_of_view(field, event)
        _legend(figure, event, what, notes(event, len(shown)))
    return figure


def notes(event: EventScene, n_shown: int) -> str:
    """Return what the reader has to know: how many images are shown, how they were simulated."""
    parts = []
    if n_shown:
        if n_shown < len(event.images):
            parts.append(f"{n_shown} of {len(event.images)} images, the brightest")
        if not event.calibrated:
            parts.append("raw high-gain counts, not calibrated (largest sample of a waveform)")
    if event.model:
        parts.append(event.model)
    return ";  ".join(parts)


def _grid(n_images: int, beside_array: bool) -> tuple[int, int]:
    """Return columns and rows of the camera images."""
    columns = math.ceil(math.sqrt(n_images * (1.0 if beside_array else 1.5)))
    columns = max(1, min(columns, n_images, 4))
    return columns, max(1, math.ceil(n_images / columns))


def _size(what: str, columns: int, rows: int) -> tuple[float, float]:
    """Return width and height of the figure in inches."""
    if what == "array":
        return 2 * ARRAY_INCH + 1.0, ARRAY_INCH + 1.2
    scale = {1: 2.3, 2: 1.45}.get(columns, 1.0) if rows < 3 else 1.0
    width, height = columns * IMAGE_INCH * scale, rows * IMAGE_INCH * 0.93 * scale + 1.0
    if what == "event":
        return width + ARRAY_INCH, max(height, 1.75 * ARRAY_INCH + 1.0)
    return max(width, 6.5), height


def _draw_images(part: Any, event: EventScene, columns: int, rows: int) -> None:
    """Draw the brightest images, in the order of their brightness."""
    names = [camera.name for camera in event.layout.cameras]
    panels = np.ravel(part.subplots(rows, columns, squeeze=False))
    shown = event.images[:MOST_IMAGES]
    for number, (axes, image) in enumerate(zip(panels, shown, strict=False)):
        draw_camera(axes, event, image, style.camera_colour(names, image.camera.name))
        if number % columns == 0:
            axes.set_ylabel("fov_lat  [deg]")
        if number + columns >= len(shown):
            axes.set_xlabel("fov_lon  [deg]")
    for axes in panels[len(shown) :]:
        axes.set_visible(False)


def _legend(figure: "Figure", event: EventScene, what: str, text: str) -> None:
    """Draw one legend for all panels, headed by the notes that the picture must not lose."""
    from matplotlib.lines import Line2D

    names = [camera.name for camera in event.layout.cameras]
    handles: list[Any] = []
    if what != "images":
        seen = dict.fromkeys(image.camera.name for image in event.images)
        handles += [
            Line2D([], [], marker="o", ls="-", color=style.camera_colour(names, name), label=name)
            for name in seen
        ]
    if event.direction is not None or event.core is not None:
        handles.append(Line2D([], [], **style.star()))
    if event.true_direction is not None or event.true_core is not None:
        handles.append(Line2D([], [], **style.cross()))
    if what != "array" and event.calibrated:
        handles.append(Line2D([], [], color=style.CONTOUR, lw=1.6, label="edge of cleaned pixels"))
        handles.append(
            Line2D(
                [],
                [],
                color=style.ELLIPSE,
                lw=1.4,
                path_effects=style.halo(style.INK, 3.2),
                label="Hillas ellipse, 1 and 2 rms",
            )
        )
    width = figure.get_figwidth()
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(len(handles), int(width / LEGEND_INCH))),
        frameon=False,
        fontsize=style.FONTS["note"],
        title=fill(text, int(CHARACTERS_PER_INCH * width)),
        title_fontsize=style.FONTS["note"],
    )
