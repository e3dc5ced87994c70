"""One camera image: pixels in their true shape, cleaned pixels outlined, ellipse, directions."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display import style
from astri_gpu.display.scene import EventScene, ImageScene
from astri_gpu.instrument import CameraGeometry
from astri_gpu.instrument.camera import TelescopeGeometry
from astri_gpu.kernels.coordinates import altaz_to_telescope

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_camera", "mask_outline", "pixel_polygons"]

Floats = NDArray[np.float64]
CIRCLE_CORNERS = 20


def pixel_polygons(geometry: CameraGeometry, sky: TelescopeGeometry) -> Floats:
    """Return the corners of all pixels on the sky, (pixel, corner, 2) as fov_lon, fov_lat in deg.

    Sides of squares and hexagons face the nearest pixels, whatever the camera is rotated by.
    """
    centre = np.stack([sky.fov_lon, sky.fov_lat], axis=-1)
    if geometry.shape == "circle":
        corners, radius, first = CIRCLE_CORNERS, sky.pixel_width / 2, 0.0
    else:
        corners = 6 if geometry.shape == "hexagon" else 4
        radius = sky.pixel_width / (2 * np.cos(np.pi / corners))
        first = _side_angle(centre, corners) + np.pi / corners
    angle = first + 2 * np.pi * np.arange(corners) / corners
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return centre[:, None, :] + radius[:, None, None] * unit


def _side_angle(centre: Floats, corners: int) -> float:
    """Return the direction of the nearest pixels (rad), modulo the symmetry of the shape."""
    from scipy.spatial import cKDTree

    if len(centre) < 2:
        return 0.0
    _, nearest = cKDTree(centre).query(centre, k=2)
    step = centre[nearest[:, 1]] - centre
    phase = corners * np.arctan2(step[:, 1], step[:, 0])
    return float(np.arctan2(np.sin(phase).mean(), np.cos(phase).mean()) / corners)


def mask_outline(polygons: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Return the sides that separate pixels in the mask from others, (side, 2, 2) in deg.

    A side is inside when another pixel of the mask lies right behind it.
    """
    inside = polygons[mask]
    if not len(inside):
        return np.empty((0, 2, 2))
    centre = inside.mean(axis=1)
    ends = np.roll(inside, -1, axis=1)
    middle = (inside + ends) / 2
    behind = 2 * middle - centre[:, None, :]
    if polygons.shape[1] == CIRCLE_CORNERS:
        shared = np.zeros(behind.shape[:2], dtype=bool)
    else:
        from scipy.spatial import cKDTree

        apart = np.linalg.norm(behind - centre[:, None, :], axis=-1)
        distance, _ = cKDTree(centre).query(behind)
        shared = distance < 0.4 * apart
    return np.stack([inside, ends], axis=2)[~shared]


def draw_camera(axes: "Axes", event: EventScene, image: ImageScene, colour: str) -> None:
    """Draw one image with everything that is known about it.

    Parameters
    ----------
    axes
        Where to draw.
    event
        The event, for its directions.
    image
        The image; its `values` have to be there.
    colour
        Colour of this kind of camera.
    """
    from matplotlib.collections import LineCollection, PolyCollection

    geometry = image.camera.geometry
    sky = geometry.telescope_frame(image.focal_length_m)
    polygons = pixel_polygons(geometry, sky)
    values = np.ma.masked_invalid(np.asarray(image.values))
    pixels = PolyCollection(
        list(polygons),
        array=values,
        cmap=style.charge_map(),
        edgecolors="face",
        linewidths=0.6,
    )
    pixels.set_clim(*_limits(values, image.calibrated))
    # Gaps between modules are about as wide as the sides: without a ground of their own some
    # would shine through and others would not.
    ground = style.charge_map()(0.0)
    axes.add_collection(
        PolyCollection(list(polygons), facecolors=ground, edgecolors=ground, linewidths=1.5)
    )
    axes.add_collection(pixels)
    if image.mask is not None and image.mask.any():
        axes.add_collection(
            LineCollection(
                list(mask_outline(polygons, image.mask)), colors=style.CONTOUR, linewidths=0.7
            )
        )
    reach = 1.04 * float(np.abs(polygons).max())
    if image.ellipse is not None:
        _draw_ellipse(axes, image, reach)
    _draw_directions(axes, event, image, reach)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.locator_params(nbins=5, steps=[1, 2, 5, 10])
    axes.tick_params(length=0)
    axes.set_title(_title(image), fontsize=style.FONTS["panel"], color=colour, pad=3)
    for side in axes.spines.values():
        side.set_visible(False)
    _colour_bar(axes, pixels, image)


def _limits(values: Any, calibrated: bool) -> tuple[float, float]:
    """Return the ends of the colour scale: zero (or the baseline) and the brightest pixel."""
    known = np.asarray(values.compressed(), dtype=np.float64)
    if not known.size:
        return 0.0, 1.0
    low = 0.0 if calibrated else float(np.percentile(known, 5))
    return low, max(float(known.max()), low + 1.0)


def _title(image: ImageScene) -> str:
    light = f"{image.brightness:,.0f} p.e." if np.isfinite(image.brightness) else "no shower image"
    return f"{image.tel_id}  {image.camera.name}" + (f"   {light}" if image.calibrated else "")


def _draw_ellipse(axes: "Axes", image: ImageScene, reach: float) -> None:
    ellipse = image.ellipse
    assert ellipse is not None
    axes.plot(*ellipse.axis(4 * reach), color=style.ELLIPSE, lw=0.5, ls=(0, (7, 5)), alpha=0.7)
    axes.plot(*ellipse.contour(1), color=style.ELLIPSE, lw=0.5, alpha=0.8)
    axes.plot(*ellipse.contour(2), color=style.ELLIPSE, lw=0.9)
    axes.plot(ellipse.fov_lon, ellipse.fov_lat, marker=".", ms=3, color=style.ELLIPSE, ls="", mew=0)


def _draw_directions(axes: "Axes", event: EventScene, image: ImageScene, reach: float) -> None:
    for direction, mark in ((event.direction, style.star), (event.true_direction, style.cross)):
        if direction is None:
            continue
        point = altaz_to_telescope(*map(np.float64, (*direction, *image.pointing)))
        if max(abs(float(point.fov_lon)), abs(float(point.fov_lat))) < reach:
            axes.plot(float(point.fov_lon), float(point.fov_lat), **mark())


def _colour_bar(axes: "Axes", pixels: Any, image: ImageScene) -> None:
    """Draw a slim bar beside the image."""
    bar = axes.inset_axes((1.02, 0.08, 0.035, 0.84))
    axes.figure.colorbar(pixels, cax=bar)
    bar.locator_params(axis="y", nbins=4)
    bar.tick_params(labelsize=style.FONTS["tick"] - 0.5, length=1.5, pad=1.5)
    bar.set_title("p.e." if image.calibrated else "ADC", fontsize=style.FONTS["tick"], pad=3)
    for side in bar.spines.values():
        side.set_visible(False)
