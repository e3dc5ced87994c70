"""The event seen by the whole array: image axes on the ground, ellipses in one field of view."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display import style
from astri_gpu.display.scene import EventScene, ImageScene
from astri_gpu.kernels.coordinates import (
    altaz_to_cartesian,
    altaz_to_telescope,
    telescope_to_altaz,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["axis_on_ground", "draw_field_of_view", "draw_ground"]

Floats = NDArray[np.float64]
# A core farther than this many radii of the array would shrink everything else to a dot.
FARTHEST_CORE = 3.0
SMALLEST_GROUND_M = 60.0
SMALLEST_FIELD_DEG = 0.5
AXIS_STEP_DEG = 0.1


def axis_on_ground(
    image: ImageScene, position: tuple[float, float, float]
) -> tuple[Floats, Floats] | None:
    """Return a point and a unit direction, both (2,) as x North and y West in m.

    They are the line where the plane through telescope and image axis meets the ground z = 0: the
    shower axis lies in that plane, so the core lies on that line. The point is the one nearest to
    the telescope. None for images without parameters, or a plane that is the ground itself.

    Parameters
    ----------
    image
        The image.
    position
        x, y, z of its telescope in m, ground frame.
    """
    if image.ellipse is None:
        return None
    lon, lat = image.ellipse.axis(AXIS_STEP_DEG)
    sky = telescope_to_altaz(lon, lat, *map(np.float64, image.pointing))
    toward = altaz_to_cartesian(sky.alt, sky.az)
    first, second = np.stack([toward.x, toward.y, toward.z], axis=-1)
    normal = np.cross(first, second)
    horizontal = normal[:2]
    size = float(np.hypot(*horizontal))
    if size < 1e-9:
        return None
    x, y, z = position
    # On the ground: normal . ((X, Y, 0) - (x, y, z)) = 0
    point = np.array([x, y]) + horizontal * normal[2] * z / size**2
    return point, np.array([-horizontal[1], horizontal[0]]) / size


def _square(axes: "Axes", x: Sequence[float], y: Sequence[float], smallest: float) -> None:
    """Set square limits around some points."""
    low, high = np.array([min(x), min(y)]), np.array([max(x), max(y)])
    centre, half = (low + high) / 2, 1.12 * max(smallest, float((high - low).max()) / 2)
    axes.set_xlim(centre[0] - half, centre[0] + half)
    axes.set_ylim(centre[1] - half, centre[1] + half)
    axes.set_aspect("equal")
    axes.locator_params(nbins=6, steps=[1, 2, 5, 10])
    axes.grid(color=style.GRID, lw=0.6)
    axes.set_axisbelow(True)


def draw_ground(axes: "Axes", event: EventScene) -> None:
    """Draw the telescopes, the image axes and the cores, with East to the right and North up.

    Parameters
    ----------
    axes
        Where to draw.
    event
        The event.
    """
    layout = event.layout
    names = [camera.name for camera in layout.cameras]
    east, north = -layout.y, layout.x
    radius = max(float(np.hypot(east - east.mean(), north - north.mean()).max()), SMALLEST_GROUND_M)
    inside = [
        core
        for core in (event.core, event.true_core)
        if core is not None
        and np.hypot(-core[1] - east.mean(), core[0] - north.mean()) < FARTHEST_CORE * radius
    ]
    _square(
        axes,
        [*east, *(-core[1] for core in inside)],
        [*north, *(core[0] for core in inside)],
        SMALLEST_GROUND_M,
    )
    axes.scatter(east, north, s=12, facecolors="white", edgecolors=style.FAINT, lw=0.8, zorder=2)
    brightest = max((image.brightness for image in event.images), default=float("nan"))
    row_of = {int(number): row for row, number in enumerate(layout.tel_id)}
    for image in event.images:
        row = row_of[image.tel_id]
        colour = style.camera_colour(names, image.camera.name)
        position = (float(layout.x[row]), float(layout.y[row]), float(layout.z[row]))
        line = axis_on_ground(image, position)
        if line is not None:
            (x, y), (to_x, to_y) = line
            axes.axline((-y, x), (-y - to_y, x + to_x), color=colour, lw=0.8, alpha=0.55, zorder=1)
        share = image.brightness / brightest if brightest > 0 else 0.0
        axes.scatter(
            east[row],
            north[row],
            s=14 + 150 * float(np.nan_to_num(share)),
            color=colour,
            edgecolors="white",
            lw=0.6,
            zorder=3,
        )
        axes.annotate(
            str(image.tel_id),
            (east[row], north[row]),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=style.FONTS["tick"],
            path_effects=style.halo(),
            zorder=5,
        )
    for core, mark in ((event.true_core, style.cross), (event.core, style.star)):
        if core is not None and core in inside:
            axes.plot(-core[1], core[0], **mark())
    axes.set_xlabel("East  [m]")
    axes.set_ylabel("North  [m]")
    axes.set_title("On the ground", fontsize=style.FONTS["panel"] + 1, pad=5)


def draw_field_of_view(axes: "Axes", event: EventScene) -> None:
    """Draw all ellipses, their axes and the directions around the pointing of the array.

    Parameters
    ----------
    axes
        Where to draw.
    event
        The event.
    """
    names = [camera.name for camera in event.layout.cameras]
    lons, lats = [0.0], [0.0]
    for image in event.images:
        if image.ellipse is None:
            continue
        colour = style.camera_colour(names, image.camera.name)
        lon, lat = _to_array(event, image, *image.ellipse.contour(2))
        axes.fill(lon, lat, facecolor=colour, alpha=0.12, lw=0)
        axes.plot(lon, lat, color=colour, lw=1.0)
        ends = _to_array(event, image, *image.ellipse.axis(1.0))
        axes.axline(
            (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1]), color=colour, lw=0.6, alpha=0.45
        )
        lons.extend(lon)
        lats.extend(lat)
    for direction, mark in ((event.true_direction, style.cross), (event.direction, style.star)):
        if direction is None:
            continue
        point = altaz_to_telescope(*map(np.float64, (*direction, *event.pointing)))
        if abs(float(point.fov_lon)) < 90 and abs(float(point.fov_lat)) < 90:
            axes.plot(float(point.fov_lon), float(point.fov_lat), **mark())
            lons.append(float(point.fov_lon))
            lats.append(float(point.fov_lat))
    _square(axes, lons, lats, SMALLEST_FIELD_DEG)
    if len(lons) == 1:
        axes.text(
            *(0.5, 0.6),
            "no image parameters" if event.calibrated else "not processed",
            transform=axes.transAxes,
            ha="center",
            color=style.FAINT,
        )
    axes.plot(0, 0, marker="o", ms=4, mfc="none", mec=style.FAINT, ls="", zorder=2)
    axes.set_xlabel("fov_lon, along azimuth  [deg]")
    axes.set_ylabel("fov_lat, along altitude  [deg]")
    axes.set_title("In the field of view", fontsize=style.FONTS["panel"] + 1, pad=5)


def _to_array(
    event: EventScene, image: ImageScene, lon: Floats, lat: Floats
) -> tuple[Floats, Floats]:
    """Return directions of one telescope's field of view in that of the array."""
    sky = telescope_to_altaz(lon, lat, *map(np.float64, image.pointing))
    point = altaz_to_telescope(sky.alt, sky.az, *map(np.float64, event.pointing))
    return np.asarray(point.fov_lon), np.asarray(point.fov_lat)
