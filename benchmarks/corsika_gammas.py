"""Gammas of CORSIKA files, and our own options for the places where they fell."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from astri_gpu.config_simulation import AtmosphereConfig, SimulateConfig, ViewConfig
from astri_gpu.io.iact import IactEvent, IactReader, IactRun
from astri_gpu.kernels.atmosphere import air_at
from astri_gpu.kernels.simulation_types import GAMMA, Telescopes
from astri_gpu.simulation.atmosphere import atmosphere_profile
from astri_gpu.simulation.frame import ShowerFrame
from astri_gpu.simulation.layout import telescopes_at

__all__ = ["GEV_PER_TEV", "Site", "axis_line", "gammas", "start_depth"]

GEV_PER_TEV = 1000.0


@dataclass(frozen=True)
class Site:
    """Air, pointing and telescopes of a file."""

    config: SimulateConfig
    frame: ShowerFrame
    telescopes: Telescopes
    run: IactRun


def _configuration(run: IactRun, first: IactEvent, tables: str, profile: str) -> SimulateConfig:
    """Return our options for a file: its height, zenith angle and magnetic field."""
    return SimulateConfig(
        output="none",
        view=ViewConfig(
            zenith_deg=float(90.0 - first.view_alt),
            azimuth_deg=first.view_az,
            scatter_radius_m=1.0,
        ),
        atmosphere=AtmosphereConfig(
            profile=profile,
            observation_level_m=run.observation_level_m,
            magnetic_field_ut=_field(run),
        ),
        shower=replace(SimulateConfig(output="none").shower, tables=tables),
    )


def _field(run: IactRun) -> float:
    """Return the strength of the magnetic field of the input card (MAGNET), uT."""
    for line in run.input_card.splitlines():
        words = line.split()
        if words and words[0] == "MAGNET":
            return math.hypot(*map(float, words[1:3]))
    return AtmosphereConfig().magnetic_field_ut


def _site(reader: IactReader, first: IactEvent, tables: str, profile: str) -> Site:
    config = _configuration(reader.run, first, tables, profile)
    frame = ShowerFrame(first.view_alt, first.view_az)
    places = [(row + 1, *place) for row, place in enumerate(reader.run.position.tolist())]
    layout = telescopes_at(places, config, reader.path.name)
    return Site(config, frame, frame.telescopes(layout), reader.run)


def gammas(path: Path, tables: str, profile: str) -> Iterator[tuple[Site, IactEvent]]:
    """Yield the events of a file whose primary is a gamma; nothing for other files."""
    with IactReader(path) as reader:
        site = None
        for event in reader:
            if event.true_primary_id != GAMMA:
                continue
            if site is None:
                site = _site(reader, event, tables, profile)
            yield site, event


def start_depth(site: Site, event: IactEvent) -> float:
    """Return the depth of the first interaction along the axis, g/cm2."""
    profile = atmosphere_profile(site.config.atmosphere)
    thickness = air_at(np.array([event.first_interaction_height]), profile).thickness[0]
    return float(thickness) / math.sin(math.radians(event.true_alt))


def axis_line(site: Site, event: IactEvent) -> tuple[float, float, float, float]:
    """Return x, y at H = 0 and the direction of the axis in the shower frame."""
    q_lon, q_lat = site.frame.tangent(np.array([event.true_alt]), np.array([event.true_az]))
    core = np.array([event.core_x]), np.array([event.core_y])
    x, y = site.frame.place(*core, q_lon, q_lat)
    return float(x[0]), float(y[0]), float(q_lon[0]), float(q_lat[0])
