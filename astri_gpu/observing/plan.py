"""What a simulated run will be, checked before any work starts."""

import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from astri_gpu.dl0.run_description import RawFile, RunDescription, Telescope
from astri_gpu.dl3.schedule import run_starts
from astri_gpu.dl3.sky import REFERENCE_UNIX_S, Site, from_centre
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.instrument.astri import mini_array
from astri_gpu.kernels.simulation_types import GAMMA, ProductionSettings
from astri_gpu.observing.particles import Stratum, seed_of, strata
from astri_gpu.observing.track import Track
from astri_gpu.packets.descriptor import Descriptor, read_descriptor
from astri_gpu.simulation.layout import BUILT_IN, array_of
from astri_gpu.simulation.tables import LARGEST_ZENITH_DEG
from astri_gpu.simulation.writer import SIMULATION_MODEL

if TYPE_CHECKING:
    from astri_gpu.config_observation import SimulateObservationConfig

__all__ = ["RunPlan", "plan_run"]

KINDS = ("SCI", "CAL", "HK", "VAR")
NEAR_DEG, FAR_DEG = 1.0, 3.0
"""The middle of a run is so near to the wanted zenith angle; the latter where there is no other."""
DEG_PER_S = 15 / 3600
HALF_DAY_S = 43_200
LAST_TELESCOPE = 99  # file names have two digits for it
SHOWERS_HZ, GAMMAS_HZ = 115.0, 0.5
"""Rough rates of a telescope, background and a source of five Crab nebulae, for the disk."""


@dataclass(frozen=True)
class RunPlan:
    """A run with all defaults filled in."""

    layout: ArrayLayout
    track: Track
    duration_s: float
    strata: tuple[Stratum, ...]
    calibration_settings: ProductionSettings
    """Of the engine of calibration events: only its seed matters."""
    descriptor: Descriptor
    description: RunDescription
    """Without the files."""
    inputs: tuple[Path, ...]
    """Files that it was made from."""

    @property
    def start_s(self) -> int:
        """Return the start, UTC seconds since 2020-01-01."""
        return self.track.start_s

    def described(self, files: tuple[RawFile, ...]) -> RunDescription:
        """Return the description of the run with its packet files."""
        return replace(self.description, files=files)


def plan_run(config: "SimulateObservationConfig", options: dict) -> RunPlan:
    """Return what a configuration asks for.

    Parameters
    ----------
    config
        Of the stage.
    options
        All of them as plain values, for the description.

    Raises
    ------
    UsageError
        For a start that is no time, a target too low, telescopes that file names cannot tell,
        unknown spectra.
    AstriError
        When the packet format cannot be used or the disk is too small.
    """
    descriptor = read_descriptor(config.descriptor)
    lacking = [kind for kind in KINDS if kind not in descriptor.types]
    if lacking:
        raise AstriError(
            f"The packet format {config.descriptor} has no packets of the type "
            f"{', '.join(lacking)}: add them, or use astri_gpu_v1."
        )
    layout = _layout(config)
    site = Site(layout.latitude_deg, layout.longitude_deg, layout.altitude_m)
    seen, duration = config.observation, config.observation.duration_s
    if not seen.wobble_angles_deg:
        raise UsageError("observation.wobble_angles_deg is empty: give at least one angle.")
    target, ra, dec = seen.place()
    angle = seen.wobble_angles_deg[(config.run - 1) % len(seen.wobble_angles_deg)] % 360.0
    ra_pnt, dec_pnt = (
        float(value) for value in from_centre(seen.wobble_offset_deg, angle, ra, dec)
    )
    start_s = _start(config, site)
    track = Track(ra, dec, ra_pnt % 360.0, dec_pnt, site, start_s)
    alt, _ = track.pointing(np.linspace(0, duration, 25))
    if alt.min() < 90 - LARGEST_ZENITH_DEG:
        raise UsageError(
            f"{target} is {alt.min():.1f} deg high in the run, and the simulation reaches "
            f"down to {90 - LARGEST_ZENITH_DEG:g} deg: choose another start, target or duration."
        )
    evening = start_s + REFERENCE_UNIX_S - HALF_DAY_S + site.longitude_deg / DEG_PER_S
    description = RunDescription(
        date=f"{datetime.fromtimestamp(evening, UTC):%Y%m%d}",
        observation=seen.first_obs_id,
        run=config.run,
        target=target,
        ra_deg=ra,
        dec_deg=dec,
        wobble_offset_deg=seen.wobble_offset_deg,
        wobble_angle_deg=angle,
        ra_pnt_deg=track.ra_pnt_deg,
        dec_pnt_deg=track.dec_pnt_deg,
        start_s=float(start_s),
        stop_s=start_s + duration,
        descriptor=descriptor.name,
        camera=layout.cameras[0].geometry.name,
        array=layout.name,
        latitude_deg=site.latitude_deg,
        longitude_deg=site.longitude_deg,
        altitude_m=site.altitude_m,
        telescopes=tuple(
            Telescope(int(tel), float(x), float(y), float(z))
            for tel, x, y, z in zip(layout.tel_id, layout.x, layout.y, layout.z, strict=True)
        ),
        files=(),
        simulation_model=SIMULATION_MODEL,
        simulation=options,
    )
    _check_disk(config, layout, descriptor)
    return RunPlan(
        layout=layout,
        track=track,
        duration_s=duration,
        strata=tuple(strata(config, layout, 90 - float(alt.min()))),
        calibration_settings=ProductionSettings(
            primary=GAMMA,
            seed=seed_of(config.seed, "calibration"),
            energy_min_gev=1e3,
            energy_max_gev=1e3,
            spectral_index=0.0,
            scatter_radius_m=1.0,
            cone_min_rad=0.0,
            cone_max_rad=0.0,
            n_uses=1,
            zenith_rad=0.0,
        ),
        descriptor=descriptor,
        description=description,
        inputs=tuple(
            Path(name)
            for name, built_in in (
                (config.array.layout, BUILT_IN),
                (config.atmosphere.profile, ("teide",)),
                (config.descriptor, (descriptor.name,)),
            )
            if name not in built_in
        ),
    )


def _layout(config: "SimulateObservationConfig") -> ArrayLayout:
    """Return the array; one that does not say where on Earth it is stands at ASTRI's site."""
    layout = array_of(config)
    if layout.tel_id.max() > LAST_TELESCOPE:
        raise UsageError(
            f"There is a telescope {layout.tel_id.max()} in {config.array.layout}, and names of "
            f"packet files have two digits for it: number telescopes from 1 to {LAST_TELESCOPE}."
        )
    if np.isfinite(layout.latitude_deg) and np.isfinite(layout.longitude_deg):
        return layout
    there = mini_array()
    return replace(layout, latitude_deg=there.latitude_deg, longitude_deg=there.longitude_deg)


def _start(config: "SimulateObservationConfig", site: Site) -> int:
    """Return the start of the run, a whole number of seconds since 2020-01-01 UTC."""
    if config.start is not None:
        try:
            moment = datetime.fromisoformat(str(config.start))
        except ValueError:
            raise UsageError(
                f"start is '{config.start}', which is no time: write it as 2026-01-15T22:00:00."
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime(2020, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
        if not 0 <= seconds < 2**32 - 86_400:
            raise UsageError(
                f"start is {config.start}: packets count seconds from 2020 on, up to 2156."
            )
        return seconds
    wanted = replace(config.observation, n_runs=config.run)
    # While a run lasts the target moves: by so much from the middle to either end at most.
    moves = DEG_PER_S * wanted.duration_s / 2
    for farthest in (moves + NEAR_DEG, moves + FAR_DEG):
        try:
            return int(run_starts(wanted, site, [config.zenith_deg], farthest)[-1])
        except UsageError as error:
            if "no date" in str(error):
                raise
    raise UsageError(
        f"{wanted.place()[0]} does not stay within {moves + FAR_DEG:.3g} deg of the zenith angle "
        f"{config.zenith_deg:g} deg for {wanted.duration_s:g} s in the dark, {config.run} time(s) "
        f"in the year from {wanted.night} on: give another zenith_deg, a smaller run, another "
        "target, or the start."
    )


def _check_disk(
    config: "SimulateObservationConfig", layout: ArrayLayout, descriptor: Descriptor
) -> None:
    """Refuse a run that is larger than the disk, by the rates of the default spectra."""
    between = config.interleaved
    rates = {
        "SCI": SHOWERS_HZ * config.background_factor + GAMMAS_HZ * config.gamma_factor,
        "CAL": between.pedestal_hz + between.flatfield_hz,
        "HK": 1 / between.housekeeping_s,
        "VAR": 1 / between.variance_s,
    }
    per_s = sum(rate * descriptor.types[kind].n_bytes for kind, rate in rates.items())
    size = per_s * config.observation.duration_s * layout.n_telescopes
    folder = Path(config.output).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size > free:
        raise AstriError(
            f"The packets of {layout.n_telescopes} telescopes in "
            f"{config.observation.duration_s:g} s take about {size / 1e9:.3g} GB, and the disk of "
            f"{config.output} has {free / 1e9:.3g} GB free: choose another output or a shorter run."
        )
