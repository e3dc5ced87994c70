"""What a production will be, checked before any work starts."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from astri_gpu.config_simulation import SimulateConfig
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.kernels.simulation_types import (
    ELECTRON,
    GAMMA,
    HELIUM,
    MUON,
    PROTON,
    ProductionSettings,
)
from astri_gpu.simulation.frame import ShowerFrame
from astri_gpu.simulation.layout import BUILT_IN, array_of

__all__ = ["PARTICLES", "Particle", "ProductionPlan", "observation_number", "plan_production"]

GEV_PER_TEV = 1000.0
LOWEST_TEV, HIGHEST_TEV = 0.001, 1000.0
GOLDEN_64 = 0x9E3779B97F4A7C15  # steps of the golden ratio keep multiples apart
LAST_SHOWER = 1 << 32  # shower numbers are one word of a random counter
LONGEST_S = 1e9  # 31 years: event times in ns fit into 64 bits
HIGHEST_FLASH_PE = 1e5
IMAGE_BYTES = 5500  # of a stored ASTRI image, after compression
TRUE_IMAGE_BYTES = 1000
IMAGES_PER_SHOWER = 0.06  # of nine telescopes with the default spectra
IMAGES_PER_MUON = 0.5
PARTS = 10_000  # room for the parts of a production between two observation numbers


class Particle(NamedTuple):
    """Defaults of a primary particle, where the configuration says null."""

    number: int  # see simulation_types
    place: int  # tells productions of one seed apart
    energy_min_tev: float
    energy_max_tev: float
    cone_max_deg: float
    scatter_radius_m: float  # muons: around one of the telescopes


PARTICLES = {
    "gamma": Particle(GAMMA, 0, 0.1, 330.0, 0.0, 2000.0),
    "electron": Particle(ELECTRON, 1, 0.1, 100.0, 6.0, 2000.0),
    "proton": Particle(PROTON, 2, 0.5, 300.0, 6.0, 2000.0),
    "helium": Particle(HELIUM, 3, 1.0, 600.0, 6.0, 2000.0),
    "muon": Particle(MUON, 4, 0.01, 1.0, 3.0, 3.0),
}


@dataclass(frozen=True)
class ProductionPlan:
    """A production with all defaults filled in."""

    settings: ProductionSettings
    layout: ArrayLayout
    frame: ShowerFrame
    obs_id: int
    inputs: tuple[Path, ...]  # files that it was made from

    @property
    def reach_m(self) -> float:
        """Return the largest distance of a core from the array reference point, m."""
        radius = self.settings.scatter_radius_m
        if self.settings.primary != MUON:
            return radius
        telescopes = self.frame.telescopes(self.layout)
        return radius + float(np.max(np.hypot(telescopes.x, telescopes.y)))

    def header(self, config: SimulateConfig) -> dict[str, Any]:
        """Return the attributes of the group `simulation`, named as `ingest` names them.

        Energies in TeV, angles in deg, lengths in m; what only a CORSIKA run has is None.
        """
        settings = self.settings
        flat = {
            "run_number": self.obs_id,
            "energy_range_min": settings.energy_min_gev / GEV_PER_TEV,
            "energy_range_max": settings.energy_max_gev / GEV_PER_TEV,
            "spectral_index": settings.spectral_index,
            "prod_site_B_total": config.atmosphere.magnetic_field_ut,
            "prod_site_B_declination": None,
            "prod_site_B_inclination": None,
            "prod_site_alt": config.atmosphere.observation_level_m,
            "n_showers": config.n_showers,
            "shower_reuse": settings.n_uses,
            "max_alt": self.frame.alt,
            "min_alt": self.frame.alt,
            "max_az": self.frame.az,
            "min_az": self.frame.az,
            "diffuse": int(settings.cone_max_rad > 0),
            "max_viewcone_radius": float(np.rad2deg(settings.cone_max_rad)),
            "min_viewcone_radius": float(np.rad2deg(settings.cone_min_rad)),
            "core_pos_mode": 1,  # a disc
            "max_scatter_range": settings.scatter_radius_m,
            "min_scatter_range": 0.0,
            "first_shower": config.first_shower,
            "seed": config.seed,
        }
        return {**flat, "mc_run_headers": [flat]}


def observation_number(config: SimulateConfig, part: int | None = None) -> int:
    """Return the obs_id of a production, or of one of its parts.

    Parameters
    ----------
    config
        Of the whole production. Without `obs_id` the number is ten times the seed plus one per
        particle, and that of a part ten thousand times this plus one plus `part`: no two
        productions of different seed or particle share a number, and 32 bits suffice up to a seed
        of 21 000.
    part
        Counted from 0; None for a production in one piece.
    """
    if config.obs_id is not None:
        return config.obs_id + (part or 0)
    whole = 10 * config.seed + PARTICLES[config.production].place
    return whole if part is None else PARTS * whole + 1 + part


def _stream_seed(seed: int, particle: Particle) -> int:
    """Return the seed of the random numbers: particles of one seed have nothing in common."""
    return (seed + particle.place * GOLDEN_64) % 2**64


def plan_production(config: SimulateConfig) -> ProductionPlan:
    """Return what a configuration asks for.

    Raises
    ------
    UsageError
        For limits in the wrong order or beyond the model, a bad layout, or too many showers.
    AstriError
        When the disk is too small.
    """
    particle = PARTICLES[config.production]
    layout = array_of(config)
    energy = _limits(
        "spectrum.energy_{}_tev",
        config.spectrum.energy_min_tev,
        config.spectrum.energy_max_tev,
        (particle.energy_min_tev, particle.energy_max_tev),
        "TeV",
        config.production,
    )
    for name, value in zip(("min", "max"), energy, strict=True):
        if not LOWEST_TEV <= value <= HIGHEST_TEV:
            raise UsageError(
                f"spectrum.energy_{name}_tev is {value:g} TeV: the shower model covers "
                f"{LOWEST_TEV:g} to {HIGHEST_TEV:g} TeV."
            )
    cone = _limits(
        "view.cone_{}_deg",
        config.view.cone_min_deg,
        config.view.cone_max_deg,
        (0.0, particle.cone_max_deg),
        "deg",
        config.production,
    )
    _check_numbers(config)
    radius = config.view.scatter_radius_m
    settings = ProductionSettings(
        primary=particle.number,
        seed=_stream_seed(config.seed, particle),
        energy_min_gev=energy[0] * GEV_PER_TEV,
        energy_max_gev=energy[1] * GEV_PER_TEV,
        spectral_index=config.spectrum.index,
        scatter_radius_m=particle.scatter_radius_m if radius is None else radius,
        cone_min_rad=float(np.deg2rad(cone[0])),
        cone_max_rad=float(np.deg2rad(cone[1])),
        n_uses=config.n_uses,
        zenith_rad=float(np.deg2rad(config.view.zenith_deg)),
        thinning=config.shower.thinning,
    )
    plan = ProductionPlan(
        settings=settings,
        layout=layout,
        frame=ShowerFrame(90.0 - config.view.zenith_deg, config.view.azimuth_deg % 360.0),
        obs_id=observation_number(config),
        inputs=tuple(
            Path(name)
            for name, built_in in (
                (config.array.layout, BUILT_IN),
                (config.atmosphere.profile, ("teide",)),
            )
            if name not in built_in
        ),
    )
    _check_disk(config, plan)
    return plan


def _limits(
    key: str,
    low: float | None,
    high: float | None,
    defaults: tuple[float, float],
    unit: str,
    production: str,
) -> tuple[float, float]:
    """Return two limits in the right order."""
    lower, upper = defaults[0] if low is None else low, defaults[1] if high is None else high
    if lower > upper:
        made = " (its default for " + production + ")" if high is None or low is None else ""
        of_low, of_high = (made, "") if low is None else ("", made)
        raise UsageError(
            f"{key.format('min')} is {lower:g} {unit}{of_low} and {key.format('max')} is "
            f"{upper:g} {unit}{of_high}: the smaller one comes first."
        )
    return lower, upper


def _check_numbers(config: SimulateConfig) -> None:
    wanted = config.calibration_events
    n_calibration = wanted.n_pedestal + wanted.n_flatfield + wanted.n_dark
    if config.first_shower + max(config.n_showers, n_calibration) > LAST_SHOWER:
        raise UsageError(
            f"first_shower={config.first_shower} and n_showers={config.n_showers} go beyond "
            f"shower {LAST_SHOWER - 1}: take another seed for more."
        )
    n_events = (config.first_shower + config.n_showers) * config.n_uses
    if n_events / config.event_rate_hz > LONGEST_S:
        raise UsageError(
            f"event_rate_hz is {config.event_rate_hz:g} Hz, which spreads {n_events} thrown "
            f"showers over {n_events / config.event_rate_hz / 3.156e7:.0f} years: choose a higher "
            "rate."
        )
    levels = wanted.flatfield_pe
    if wanted.n_flatfield and not (
        levels and all(0 < level < HIGHEST_FLASH_PE for level in levels)
    ):
        raise UsageError(
            f"calibration_events.flatfield_pe is {list(levels)}: give signals above 0 and below "
            f"{HIGHEST_FLASH_PE:g} p.e. for the {wanted.n_flatfield} flashes."
        )


def _check_disk(config: SimulateConfig, plan: ProductionPlan) -> None:
    """Refuse a production that is larger than the disk.

    The estimate is that of the default spectra; it is no promise that the disk is large enough.
    """
    wanted = config.calibration_events
    n_tel = plan.layout.n_telescopes
    n_calibration = wanted.n_pedestal + wanted.n_flatfield + wanted.n_dark + wanted.n_variance
    per_shower = (
        IMAGES_PER_MUON if plan.settings.primary == MUON else IMAGES_PER_SHOWER * min(n_tel, 9) / 9
    )
    n_images = config.n_showers * config.n_uses * per_shower + n_calibration * n_tel
    size = n_images * (IMAGE_BYTES + TRUE_IMAGE_BYTES * config.true_images)
    folder = Path(config.output).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size > free:
        raise AstriError(
            f"About {n_images:.3g} images of {config.n_showers} showers take {size / 1e9:.3g} GB, "
            f"and the disk of {config.output} has {free / 1e9:.3g} GB free: choose another output "
            "or fewer showers."
        )
