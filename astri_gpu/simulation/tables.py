"""Light tables of a site: steps of depth, light by height, age and distance, kept between runs."""

import hashlib
import logging
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_simulation import AtmosphereConfig, OpticsConfig, ShowerConfig
from astri_gpu.errors import UsageError
from astri_gpu.kernels import atmosphere as air
from astri_gpu.kernels import random
from astri_gpu.kernels.atmosphere import AtmosphereProfile, air_at, altitude_of_thickness
from astri_gpu.kernels.loops import cascade, light_table
from astri_gpu.kernels.loops import random as loop_random
from astri_gpu.kernels.simulation_types import EFFICIENCY_HEADROOM, LightTables, StepGrid
from astri_gpu.simulation import light_build
from astri_gpu.simulation.atmosphere import atmosphere_profile, light_yield
from astri_gpu.simulation.light_build import AGE, RADIUS_EDGE, NodeTables, build_nodes, fineness

__all__ = ["light_tables", "step_grid"]

FIRST_DEPTH = 1.0
"""Upper edge of the first step, g/cm2 along the axis."""
LARGEST_ZENITH_DEG = 60.0
SOURCES = (air, random, cascade, light_table, loop_random, light_build)
"""Modules whose text decides what the tables are."""

logger = logging.getLogger(__name__)


def light_tables(
    atmosphere: AtmosphereConfig,
    shower: ShowerConfig,
    optics: OpticsConfig,
    zenith_rad: float,
) -> tuple[StepGrid, LightTables]:
    """Return the steps of showers and their light, NumPy arrays.

    What takes long (see `light_build`) is kept in ``~/.cache/astri_gpu`` (or under
    XDG_CACHE_HOME) for the next run with the same air, array height, field, zenith and fineness.

    Parameters
    ----------
    atmosphere, shower, optics : options
    zenith_rad : of the axis, at most 60 degrees

    Raises
    ------
    AstriError
        For a zenith beyond the model, or a bad atmosphere.
    """
    if not 0 <= np.degrees(zenith_rad) <= LARGEST_ZENITH_DEG + 1e-6:
        raise UsageError(
            f"the zenith angle is {np.degrees(zenith_rad):g} deg: the atmosphere is modelled as "
            f"flat layers, which holds from 0 to {LARGEST_ZENITH_DEG:g} deg."
        )
    profile = atmosphere_profile(atmosphere)
    nodes = _nodes(profile, atmosphere, shower, zenith_rad)
    grid = step_grid(profile, atmosphere, shower, optics, zenith_rad, nodes.height)
    lower, upper = nodes.density[grid.node], nodes.density[grid.node + 1]
    share = grid.node_fraction[:, None, None]
    density = ((1 - share) * lower + share * upper).astype(np.float32)
    radius = (RADIUS_EDGE[1:] + RADIUS_EDGE[:-1]) / 2
    return grid, LightTables(AGE, radius, density, RADIUS_EDGE, nodes.radial, nodes.tangential)


def step_grid(
    profile: AtmosphereProfile,
    atmosphere: AtmosphereConfig,
    shower: ShowerConfig,
    optics: OpticsConfig,
    zenith_rad: float,
    node_height: NDArray[np.float64],
) -> StepGrid:
    """Return steps of equal depth from 1 g/cm2 to the array.

    Their size is the one nearest to ``shower.step_depth`` that ends at the array. The path length
    in `StepGrid.light` is the depth of a step over the density at its centre: in the high, long
    steps the yield follows the density, so that this counts the light of electrons evenly spread
    in depth.

    Parameters
    ----------
    profile : of the air
    atmosphere, shower, optics : options
    zenith_rad : of the axis
    node_height : (node,), H of the light tables, m
    """
    cos_zenith = float(np.cos(zenith_rad))
    observation_m = atmosphere.observation_level_m
    ground = air_at(np.array([observation_m]), profile).thickness[0] / cos_zenith
    top = max(FIRST_DEPTH, profile.thickness[-1] / cos_zenith)
    edge = np.linspace(top, ground, max(2, round((ground - top) / shower.step_depth)) + 1)
    centre = (edge[1:] + edge[:-1]) / 2
    altitude_edge = altitude_of_thickness(edge * cos_zenith, profile)
    altitude_edge[-1] = observation_m
    altitude = altitude_of_thickness(centre * cos_zenith, profile)
    local = air_at(altitude, profile)
    height = (altitude - observation_m) / cos_zenith
    place = np.interp(height, node_height, np.arange(len(node_height)))
    node = np.minimum(place.astype(np.int32), len(node_height) - 2)
    factor = EFFICIENCY_HEADROOM * optics.throughput
    yield_ = factor * light_yield(altitude, profile, atmosphere, cos_zenith)
    path_m = 0.01 * np.diff(edge) / local.density
    return StepGrid(
        depth=centre,
        height_edge=(altitude_edge - observation_m) / cos_zenith,
        light=path_m * yield_ * optics.mirror_area_m2,
        node=node,
        node_fraction=place - node,
        refractivity=local.refractivity,
        light_yield=yield_,
        delay=_delay(altitude, profile, observation_m) / cos_zenith,
        cos_zenith=cos_zenith,
        sin_zenith=float(np.sin(zenith_rad)),
    )


def _delay(
    altitude: NDArray[np.float64], profile: AtmosphereProfile, observation_m: float
) -> NDArray[np.float64]:
    """Return the integral of n - 1 from the array up to altitudes, vertical, m."""
    levels = np.linspace(observation_m, profile.altitude[-1], 8001)
    refractivity = air_at(levels, profile).refractivity
    pieces = 0.5 * (refractivity[1:] + refractivity[:-1]) * np.diff(levels)
    return np.interp(altitude, levels, np.concatenate([[0.0], np.cumsum(pieces)]))


def _nodes(
    profile: AtmosphereProfile,
    atmosphere: AtmosphereConfig,
    shower: ShowerConfig,
    zenith_rad: float,
) -> NodeTables:
    """Return the node tables from the cache, or build them (and keep them)."""
    fine = fineness(shower.tables)

    def build() -> NodeTables:
        logger.info(
            "building the %s light tables for zenith %g deg", shower.tables, np.degrees(zenith_rad)
        )
        start = time.perf_counter()
        nodes = build_nodes(
            profile,
            observation_m=atmosphere.observation_level_m,
            field_ut=atmosphere.magnetic_field_ut,
            zenith_rad=zenith_rad,
            fine=fine,
        )
        logger.debug("light tables built in %.1f s", time.perf_counter() - start)
        return nodes

    digest = hashlib.sha256()
    for module in SOURCES:
        digest.update(Path(str(module.__file__)).read_bytes())
    for values in profile:
        digest.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
    numbers = (atmosphere.observation_level_m, atmosphere.magnetic_field_ut, zenith_rad)
    digest.update(repr((*(float(n) for n in numbers), fine, numba.__version__)).encode())
    name = f"light-{digest.hexdigest()[:20]}.npz"

    folder = _cache_folder()
    if folder is None:
        return build()
    file = folder / name
    found = _load(file)
    if found is not None:
        return found
    with _locked(folder / f"{name}.lock"):
        found = _load(file)  # another process may have been faster
        if found is None:
            found = build()
            _save(file, found)
    return found


def _cache_folder() -> Path | None:
    """Return the folder for tables; None if it cannot be written."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "astri_gpu"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _load(file: Path) -> NodeTables | None:
    """Return the tables of a file; None if there is none, or it is damaged."""
    try:
        # NumPy leaves a file open whose end is missing.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            nodes = NodeTables(*(stored[name] for name in NodeTables._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    shape = (len(nodes.height), len(AGE), len(RADIUS_EDGE) - 1)
    fits = nodes.density.shape == shape and nodes.radial.shape[:3] == shape
    return nodes if fits and nodes.radial.shape == nodes.tangential.shape else None


def _save(file: Path, nodes: NodeTables) -> None:
    """Write tables in one move; tables that cannot be kept are no error."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            np.savez(stream, **nodes._asdict())
        part.replace(file)
    except OSError as error:
        logger.debug("the light tables are not kept: %s", error)
        part.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes where the system has flock; it ends with its process."""
    try:
        import fcntl

        stream = path.open("w")
    except (ImportError, OSError):
        yield
        return
    with stream:
        with suppress(OSError):  # some network file systems have none
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
