"""Profiles of the air: the built-in one, those of files, and what of the light they let through."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.config_simulation import AtmosphereConfig
from astri_gpu.errors import AstriError
from astri_gpu.kernels import atmosphere as air
from astri_gpu.kernels.atmosphere import FINE_STRUCTURE, AtmosphereProfile
from astri_gpu.simulation.throughput import throughput

__all__ = [
    "AtmosphereProfile",
    "atmosphere_profile",
    "light_yield",
    "read_profile",
    "teide_profile",
    "transmission",
]

SURFACE_PRESSURE_HPA = 1019.0
TEMPERATURE_KM = (0.0, 2.4, 15.0, 18.0, 30.0, 47.0, 52.0, 80.0, 95.0, 120.0)
TEMPERATURE_K = (294.5, 283.5, 201.5, 204.0, 230.0, 268.0, 268.0, 200.0, 190.0, 360.0)
"""The built-in profile, ours: near the annual means of Tenerife (at 2400 m 283 K and 770 hPa), a
tropopause as high and cold as the subtropics have it, and a standard upper atmosphere."""
GRAVITY_SURFACE, EARTH_RADIUS_M = 9.79, 6.371e6
GAS_CONSTANT, MOLAR_MASS = 8.314463, 28.9647e-3

LOWEST_TOP_M = 40_000.0
LARGEST_ALTITUDE_KM, LARGEST_THICKNESS = 1000.0, 2000.0
LARGEST_GAP_M, GAPS_BELOW_M = 6_000.0, 50_000.0
WAVELENGTH_NM = np.arange(280.0, 701.0, 2.0)


@cache
def teide_profile() -> AtmosphereProfile:
    """Return mean subtropical air at 28 degrees North, 0 to 120 km, in hydrostatic balance."""
    altitude = np.concatenate([np.arange(0, 30_000, 250.0), np.arange(30_000, 120_001, 1000.0)])
    fine = np.arange(0, 120_001, 25.0)
    temperature = np.interp(fine, 1e3 * np.array(TEMPERATURE_KM), TEMPERATURE_K)
    gravity = GRAVITY_SURFACE * (EARTH_RADIUS_M / (EARTH_RADIUS_M + fine)) ** 2
    slope = gravity * MOLAR_MASS / (GAS_CONSTANT * temperature)
    depth = np.concatenate([[0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(fine))])
    pressure = 100 * SURFACE_PRESSURE_HPA * np.exp(-depth)
    density = 1e-3 * pressure * MOLAR_MASS / (GAS_CONSTANT * temperature)  # g/cm3
    pieces = 100 * np.diff(fine) * np.diff(density) / np.diff(np.log(density))
    above = 0.1 * pressure[-1] / gravity[-1]
    thickness = above + np.concatenate([np.cumsum(pieces[::-1])[::-1], [0]])
    keep = np.searchsorted(fine, altitude)
    return AtmosphereProfile(
        altitude, density[keep], thickness[keep], air.refractivity_of_density(density[keep])
    )


def read_profile(path: str | Path) -> AtmosphereProfile:
    """Return the profile of a file: altitude (km), density (g/cm3), thickness (g/cm2), n - 1.

    Such files go with CORSIKA (``atmprof*.dat``) and sim_telarray. Lines after ``#`` and columns
    after the fourth are left out.

    Raises
    ------
    AstriError
        If the file cannot be read, or is no atmosphere; with the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise AstriError(
            f"the atmosphere file {path} cannot be read ({error.strerror}): give a file with the "
            "columns altitude, density, thickness, n - 1, or atmosphere.profile=teide."
        ) from error
    lines, rows = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        rows.append(_row(path, number, words))
        lines.append(number)
    if len(rows) < 3:
        raise AstriError(
            f"the atmosphere file {path} has {len(rows)} rows of numbers: it takes at least 3."
        )
    if rows[-1][2] == 0:  # the top of the atmosphere, which has no logarithm
        rows, lines = rows[:-1], lines[:-1]
    altitude, density, thickness, refractivity = np.array(rows).T
    profile = AtmosphereProfile(1e3 * altitude, density, thickness, refractivity)
    _check(profile, path, lines)
    return profile


def _row(path, number, words):
    """Return the four numbers of a line."""
    if len(words) < 4:
        raise AstriError(
            f"{path}, line {number} has {len(words)} columns: an atmosphere takes altitude (km), "
            "density (g/cm3), thickness (g/cm2) and n - 1."
        )
    try:
        row = [float(word) for word in words[:4]]
    except ValueError as error:
        raise AstriError(
            f"{path}, line {number}: {' '.join(words[:4])!r} is not four numbers."
        ) from error
    if not np.all(np.isfinite(row)):
        raise AstriError(f"{path}, line {number}: {' '.join(words[:4])!r} is not finite.")
    if row[1] <= 0 or row[2] < 0 or row[3] <= 0:
        raise AstriError(
            f"{path}, line {number}: density, thickness and n - 1 have to be positive, and are "
            f"{row[1]:g}, {row[2]:g} and {row[3]:g}."
        )
    if abs(row[0]) > LARGEST_ALTITUDE_KM or row[2] > LARGEST_THICKNESS:
        raise AstriError(
            f"{path}, line {number}: altitude and thickness are {row[0]:g} and {row[2]:g}: they "
            f"may be {LARGEST_ALTITUDE_KM:g} km and {LARGEST_THICKNESS:g} g/cm2 at most."
        )
    return row


def _check(profile: AtmosphereProfile, path: Path, lines: list[int]) -> None:
    """Raise an error for a profile that jumps or turns back."""
    step = np.diff(profile.altitude)
    for k in np.flatnonzero(step <= 0)[:1]:
        raise AstriError(
            f"{path}, line {lines[k + 1]}: the altitude {profile.altitude[k + 1] / 1e3:g} km is "
            f"not above {profile.altitude[k] / 1e3:g} km of the line before; sort the file."
        )
    gap = (step > LARGEST_GAP_M) & (profile.altitude[:-1] < GAPS_BELOW_M)
    for k in np.flatnonzero(gap)[:1]:
        raise AstriError(
            f"{path}, line {lines[k + 1]}: nothing between {profile.altitude[k] / 1e3:g} and "
            f"{profile.altitude[k + 1] / 1e3:g} km; below {GAPS_BELOW_M / 1e3:g} km levels may be "
            f"{LARGEST_GAP_M / 1e3:g} km apart at most."
        )
    for name in ("density", "thickness", "refractivity"):
        values = getattr(profile, name)
        for k in np.flatnonzero(np.diff(values) >= 0)[:1]:
            raise AstriError(
                f"{path}, line {lines[k + 1]}: the {name} does not fall with altitude "
                f"({values[k]:g} and then {values[k + 1]:g})."
            )


def atmosphere_profile(config: AtmosphereConfig) -> AtmosphereProfile:
    """Return the profile that a configuration asks for.

    Raises
    ------
    AstriError
        If its file is no atmosphere, or does not hold the air between the observation level and
        40 km.
    """
    profile = teide_profile() if config.profile == "teide" else read_profile(config.profile)
    lowest, highest = profile.altitude[0], profile.altitude[-1]
    if lowest > config.observation_level_m:
        raise AstriError(
            f"the atmosphere {config.profile} begins at {lowest:g} m, above the array at "
            f"{config.observation_level_m:g} m: add lower levels, or raise "
            "atmosphere.observation_level_m."
        )
    if highest < LOWEST_TOP_M:
        raise AstriError(
            f"the atmosphere {config.profile} ends at {highest / 1e3:g} km: it takes levels up to "
            f"{LOWEST_TOP_M / 1e3:g} km, where showers begin."
        )
    return profile


def transmission(
    wavelength_nm: ArrayLike,
    height_m: ArrayLike,
    profile: AtmosphereProfile,
    config: AtmosphereConfig,
    cos_zenith: float,
) -> NDArray[np.float64]:
    """Return the share of light that reaches the array; one without extinction.

    Parameters
    ----------
    wavelength_nm, height_m : shapes that broadcast; nm, and m above the sea
    profile : see `atmosphere_profile`
    config : extinction, aerosols, observation level
    cos_zenith : of the way of the light
    """
    wavelength, height = np.broadcast_arrays(
        np.asarray(wavelength_nm, dtype=np.float64), np.asarray(height_m, dtype=np.float64)
    )
    if not config.extinction:
        return np.ones(wavelength.shape)
    return air.transmission(
        wavelength,
        height,
        profile,
        observation_m=config.observation_level_m,
        aerosol_optical_depth=config.aerosol_optical_depth,
        aerosol_scale_height_m=config.aerosol_scale_height_m,
        cos_zenith=cos_zenith,
    )


def light_yield(
    height_m: ArrayLike, profile: AtmosphereProfile, config: AtmosphereConfig, cos_zenith: float
) -> NDArray[np.float64]:
    """Return the photo-electrons per m of track and unit of sin^2(theta), light all collected.

    2 pi alpha times the integral of transmission and throughput over dl / l^2 (Frank and Tamm
    1937), from 280 to 700 nm.

    Parameters
    ----------
    height_m : (height,), m above the sea
    """
    height = np.asarray(height_m, dtype=np.float64)
    arriving = transmission(WAVELENGTH_NM, height[:, None], profile, config, cos_zenith)
    photons = 1e9 / WAVELENGTH_NM**2  # per m and nm
    integral = np.trapezoid(arriving * throughput(WAVELENGTH_NM) * photons, WAVELENGTH_NM, axis=-1)
    return 2 * np.pi * FINE_STRUCTURE * integral
