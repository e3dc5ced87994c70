"""Mean images of CORSIKA's photons and of ours in the same camera."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.io.iact import Bunches, IactEvent
from astri_gpu.kernels.simulation_types import (
    EmRows,
    Events,
    Images,
    MuonRows,
    Primaries,
    ShowerRows,
)
from astri_gpu.simulation.corsika_light import MeanEfficiency, collect_light
from astri_gpu.simulation.engine import Simulator, simulator
from astri_gpu.simulation.layout import telescopes_at
from astri_gpu.simulation.plan import ProductionPlan, plan_production

from .corsika_gammas import GEV_PER_TEV, Site, axis_line, gammas, start_depth

__all__ = ["ImagePair", "ImageShape", "compare_images", "image_table"]

N_IMAGES = 100  # drawn of each shower
LEVELS = (0.16, 0.50, 0.84)


class ImageShape(NamedTuple):
    """Mean image at one telescope; angles in deg, along the line to the core and across it."""

    electrons: float  # mean number of accepted photo-electrons
    radial_median: float  # angle of the light from the direction of the shower
    radial_spread: float  # half the width that holds the middle 68 %
    transverse_spread: float


class ImagePair(NamedTuple):
    """Mean images at one telescope."""

    name: str  # shower, use, telescope
    distance_m: float
    corsika: ImageShape
    model: ImageShape


def compare_images(
    path: Path, *, tables: str = "standard", profile: str = "teide", n_images: int = N_IMAGES
) -> list[ImagePair]:
    """Return the mean images of the gammas of a file, CORSIKA's light and ours in one camera.

    The photons of CORSIKA are the same ones in all `n_images` drawings, ours differ.
    """
    found = []
    tools = plan = None
    for site, event in gammas(path, tables, profile):
        if tools is None or plan is None:
            plan, tools = _camera(site, path)
        limits = event.wavelength_min_nm, event.wavelength_max_nm
        efficiency = MeanEfficiency(site.config, math.sin(math.radians(site.frame.alt)), limits)
        x, y, q_lon, q_lat = axis_line(site, event)
        for tel, bunches in enumerate(event.bunches):
            towards = site.telescopes.x[tel] - x, site.telescopes.y[tel] - y
            theirs = _images_of_bunches(site, tools, bunches, efficiency, tel, event, n_images)
            ours = _images_of_model(site, tools, event, tel, n_images)
            shapes = (_shape(images, plan, towards, (q_lon, q_lat)) for images in (theirs, ours))
            name = f"{event.shower}, {event.use}, {tel + 1}"
            found.append(ImagePair(name, math.hypot(*towards), *shapes))
    return found


def _camera(site: Site, path: Path) -> tuple[ProductionPlan, Simulator]:
    """Return a simulator whose telescopes read out whatever they see."""
    config = replace(
        site.config,
        camera=replace(site.config.camera, trigger_pixels=1, trigger_threshold_pe=0.01),
    )
    places = [(row + 1, *place) for row, place in enumerate(site.run.position.tolist())]
    plan = replace(plan_production(config), layout=telescopes_at(places, config, path.name))
    return plan, simulator(config, plan)


def _images_of_bunches(
    site: Site,
    tools: Simulator,
    bunches: Bunches,
    efficiency: MeanEfficiency,
    tel: int,
    event: IactEvent,
    n_images: int,
) -> Images:
    image = (event.use - 1) << 8 | tel
    drawn = [
        collect_light(
            bunches,
            efficiency,
            site.frame,
            site.config.optics.mirror_radius_m,
            counter=(event.shower, image),
            seed=seed,
        )
        for seed in range(n_images)
    ]
    lon, lat, moment = (np.concatenate(part) for part in zip(*drawn, strict=True))
    # Numbers of showers of their own, so that the camera draws each image anew.
    numbers = np.stack([np.arange(n_images), np.full(n_images, image)], axis=1).astype(np.uint32)
    return tools.engine.images_of_light(
        numbers,
        np.full(n_images, tel),
        np.cumsum([0, *(len(light.time) for light in drawn)]),
        lon,
        lat,
        moment,
        np.ones(len(moment)),
        forced=True,
    )


def _images_of_model(
    site: Site, tools: Simulator, event: IactEvent, tel: int, n_images: int
) -> Images:
    x, y, q_lon, q_lat = axis_line(site, event)
    number = np.arange(n_images)

    def constant(value: float) -> NDArray[np.float64]:
        return np.full(n_images, value)

    energy = event.true_energy * GEV_PER_TEV
    primaries = Primaries(
        number.astype(np.uint32), constant(energy), constant(q_lon), constant(q_lat)
    )
    start = constant(start_depth(site, event))
    zero = np.zeros(n_images)
    rows = ShowerRows(
        EmRows(
            constant(energy), start, zero, zero, constant(q_lon), constant(q_lat), constant(1.0)
        ),
        np.arange(n_images + 1),
        MuonRows(*(np.zeros(0) for _ in MuonRows._fields)),
        np.zeros(n_images + 1, dtype=np.int64),
        start,
    )
    events = Events(number, np.zeros(n_images, dtype=np.uint32), constant(x), constant(y))
    mean = tools.engine.expected(primaries, rows, events)[:, tel]
    return tools.engine.images(primaries, rows, events, number, np.full(n_images, tel), mean)


def _shape(
    images: Images, plan: ProductionPlan, towards: Sequence[float], axis: tuple[float, float]
) -> ImageShape:
    """Return the mean image of accepted photo-electrons."""
    camera = plan.layout.cameras[0]
    focal_length = camera.optics.focal_length_m
    lon = np.rad2deg(camera.geometry.pix_y / focal_length - axis[0])
    lat = np.rad2deg(camera.geometry.pix_x / focal_length - axis[1])
    distance = math.hypot(*towards)
    # Light of a shower beside the telescope is displaced towards the core.
    radial = -(lon * towards[0] + lat * towards[1]) / distance
    transverse = (lat * towards[0] - lon * towards[1]) / distance
    light = images.true_image.sum(axis=0).astype(np.float64)
    low, middle, high = _quantiles(radial, light)
    left, _, right = _quantiles(transverse, light)
    return ImageShape(
        electrons=float(light.sum() / len(images.true_image)),
        radial_median=middle,
        radial_spread=(high - low) / 2,
        transverse_spread=(right - left) / 2,
    )


def _quantiles(place: NDArray[np.float64], light: NDArray[np.float64]) -> list[float]:
    """Return where 16, 50 and 84 % of the light is passed, interpolated between pixels."""
    order = np.argsort(place)
    share = np.cumsum(light[order]) - light[order] / 2
    return [float(np.interp(level * light.sum(), share, place[order])) for level in LEVELS]


def image_table(found: Sequence[ImagePair]) -> str:
    """Return the images as a table in Markdown, with the median of their ratios."""
    lines = [
        "| shower, use, telescope | distance m | p.e.: CORSIKA | model "
        "| radial median deg: CORSIKA | model | radial spread: CORSIKA | model "
        "| transverse spread: CORSIKA | model |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, distance, theirs, ours in found:
        cells = " | ".join(
            f"{a:.1f} | {b:.1f}" if field == "electrons" else f"{a:.3f} | {b:.3f}"
            for field, a, b in zip(ImageShape._fields, theirs, ours, strict=True)
        )
        lines.append(f"| {name} | {distance:.0f} | {cells} |")
    ratios = np.array([np.divide(ours, theirs) for *_, theirs, ours in found])
    cells = " | ".join(f"| **{value:.2f}**" for value in np.median(ratios, axis=0))
    return "\n".join([*lines, f"| median of model / CORSIKA | | {cells} |"])
