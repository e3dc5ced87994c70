"""The pictures of a report, each a matplotlib figure; none of them opens a window."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.display import style
from astri_gpu.display.array import draw_field_of_view
from astri_gpu.display.camera import draw_camera
from astri_gpu.display.figure import event_figure
from astri_gpu.display.scene import SHOWER, EventScene, read_event
from astri_gpu.report.collect import PARAMETERS, Sample
from astri_gpu.report.drawing import empty_figure, pointed
from astri_gpu.report.panels import (
    draw_area,
    draw_core,
    draw_direction,
    draw_parameter,
    draw_theta2,
)
from astri_gpu.store import Store, open_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "area_figure",
    "brightest_event",
    "error_figure",
    "overview_figure",
    "parameter_figure",
    "picture_of_event",
    "save",
]

CAMERAS_IN_OVERVIEW = 4


def brightest_event(samples: Sequence[Sample]) -> EventScene | None:
    """Return the event to show, of gammas where there are any; None where there are no events.

    It is the brightest of the reconstructed events with most images, in the first store that has
    one. Events in which one telescope has more than half of the light come after the others:
    that telescope is flooded, and the others show little. Pixel values are read where the store
    has them.
    """
    for sample in [*pointed(samples), *samples]:
        for path in sample.stores:
            store = open_store(path)
            row = _brightest_row(store)
            if row is not None:
                has_pixels = all(
                    f"dl1/image/{camera}/charge" in store for camera in store.cameras("dl1")
                )
                return read_event(store, row, pixels=has_pixels)
    return None


def _brightest_row(store: Store) -> int | None:
    """Return the row of the event that `brightest_event` describes, None without such events."""
    shower = store.read("dl0/event/event_type") == SHOWER
    n_images, light, brightest = (np.zeros(len(shower)) for _ in range(3))
    for camera in store.cameras("dl1"):
        table = f"dl1/image/{camera}"
        for start, stop in store.blocks(f"{table}/hillas_intensity"):
            rows = store.read(f"{table}/event_index", start, stop)
            intensity = store.read(f"{table}/hillas_intensity", start, stop).astype(np.float64)
            use = np.isfinite(intensity) & (intensity > 0)
            n_images += np.bincount(rows[use], minlength=len(shower))
            light += np.bincount(rows[use], intensity[use], minlength=len(shower))
            np.maximum.at(brightest, rows[use], intensity[use])
    candidate = shower & (n_images > 0)
    if not candidate.any():
        return None
    valid = store.read("dl2/event/stereo_is_valid")
    balanced = brightest <= 0.5 * light
    # lexsort sorts by its last key first and puts the largest last.
    return int(np.lexsort((light, balanced, n_images, valid, candidate))[-1])


def _has_pixels(event: EventScene) -> bool:
    return all(image.values is not None for image in event.images)


def picture_of_event(event: EventScene, dpi: int) -> "Figure":
    """Return images, ground and field of view of an event; without charges only the last two."""
    return event_figure(event, "event" if _has_pixels(event) else "array", dpi)


def parameter_figure(samples: Sequence[Sample], dpi: int) -> "Figure":
    """Return the distributions of the image parameters by particle."""
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = empty_figure(10, 6.6, dpi, "Image parameters after cleaning", samples)
        panels: Any = figure.subplots(2, 2)
        for axes, name in zip(np.ravel(panels), PARAMETERS, strict=True):
            draw_parameter(axes, samples, name)
    return figure


def area_figure(samples: Sequence[Sample], per_decade: int, dpi: int) -> "Figure":
    """Return the effective area before cuts against energy."""
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = empty_figure(7.5, 5, dpi, "", samples)
        draw_area(figure.subplots(), samples, per_decade)
    return figure


def error_figure(samples: Sequence[Sample], per_decade: int, dpi: int) -> "Figure":
    """Return the errors of the stereo reconstruction: direction, squared angle, core."""
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = empty_figure(12, 4.4, dpi, "Stereo geometry against the truth", samples)
        direction, theta2, core = figure.subplots(1, 3)
        draw_direction(direction, pointed(samples), samples, per_decade)
        draw_theta2(theta2, pointed(samples), samples)
        draw_core(core, pointed(samples), samples, per_decade)
    return figure


def overview_figure(
    samples: Sequence[Sample], event: EventScene | None, per_decade: int, dpi: int
) -> "Figure":
    """Return the essence: one event, a distribution, the effective area, the direction error."""
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = empty_figure(11, 6.8, dpi, "", samples)
        if event is None:
            diagrams: Any = figure
        else:
            parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.35], hspace=0.03)
            top, diagrams = parts
            _draw_event(top, event)
        width, area, direction = diagrams.subplots(1, 3)
        draw_parameter(width, samples, "hillas_width")
        draw_area(area, samples, per_decade)
        draw_direction(direction, pointed(samples), samples, per_decade)
    return figure


def _draw_event(part: Any, event: EventScene) -> None:
    """Draw the brightest images of an event in a row; its ellipses if there are no charges."""
    n_images = len(event.images)
    energy = "" if event.true_energy_tev is None else f" of {event.true_energy_tev:.3g} TeV"
    title = f"One {event.kind}{energy}, seen by {n_images} telescope{'' if n_images == 1 else 's'}"
    if not _has_pixels(event):
        part.suptitle(title, fontsize=style.FONTS["panel"] + 1)
        draw_field_of_view(part.subplots(), event)
        return
    shown = event.images[:CAMERAS_IN_OVERVIEW]
    if len(shown) < n_images:
        title += f"; the {len(shown)} brightest images"
    part.suptitle(title, fontsize=style.FONTS["panel"] + 1)
    names = [camera.name for camera in event.layout.cameras]
    panels = np.ravel(part.subplots(1, len(shown), squeeze=False))
    for axes, image in zip(panels, shown, strict=True):
        draw_camera(axes, event, image, style.camera_colour(names, image.camera.name))


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG (OSError if that is not possible)."""
    from matplotlib import rc_context

    # Fonts and colours are looked up when the text is drawn.
    with rc_context(style.STYLE):
        figure.savefig(path, format="png", dpi="figure", metadata={"Software": "astri_gpu"})
