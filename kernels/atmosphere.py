"""Air: interpolation in a profile, refraction, and how much light survives its way down.

A plane-parallel atmosphere: along a line of zenith angle z depths and optical depths grow by
1 / cos z, which is good to 1 % up to 60 degrees. Light scattered out of its direction is lost: what
molecules and aerosols scatter into a telescope arrives too late and too far from the image to
matter.
"""

from typing import NamedTuple

from jaxtyping import Float

from ._types import Array, array_namespace

__all__ = [
    "AtmosphereProfile",
    "aerosol_depth",
    "air_at",
    "altitude_of_thickness",
    "cherenkov_threshold",
    "interpolate",
    "ozone_depth",
    "rayleigh_depth",
    "refractivity_of_density",
    "transmission",
]

ELECTRON_MASS_MEV = 0.51099895
FINE_STRUCTURE = 1 / 137.035999

STANDARD_DENSITY = 1.2250e-3
"""Dry air at 15 deg C and 1013.25 hPa, g/cm3."""

RAYLEIGH_DEPTH_400 = 2970.0
"""Mean free path of light of 400 nm between scatterings off molecules, g/cm2."""
AEROSOL_EXPONENT = 1.2
"""Of the falling optical depth with wavelength (Angstrom 1929; 1.0 to 1.4 for clean air)."""

OZONE_CROSS_SECTION_300 = 4.0e-19
OZONE_FOLDING_NM = 7.6
"""Absorption by ozone at 300 nm (cm2) and the wavelength over which it falls by e."""
OZONE_TROPOSPHERE = 6.0e11
OZONE_TOP_M = 15_000.0
"""Ozone molecules per cm3 below the tropopause, which most light of showers stays below."""


class AtmosphereProfile(NamedTuple):
    """Air by altitude above the sea."""

    altitude: Float[Array, " *level"]  # m, rising
    density: Float[Array, " *level"]  # g/cm3
    thickness: Float[Array, " *level"]  # g/cm2 of air above, vertical
    refractivity: Float[Array, " *level"]  # n - 1 at 400 nm


def interpolate(
    x: Float[Array, " *shape"], nodes: Float[Array, " node"], values: Float[Array, " node"]
) -> Float[Array, " *shape"]:
    """Return `values` at `x`, linear between rising `nodes` and constant beyond their ends."""
    xp = array_namespace(x, nodes, values)
    last = nodes.shape[0] - 1
    flat = xp.reshape(x, (-1,))
    upper = xp.clip(xp.searchsorted(nodes, flat, side="right"), 1, last)
    left, right = xp.take(nodes, upper - 1), xp.take(nodes, upper)
    fraction = xp.clip((flat - left) / (right - left), 0.0, 1.0)
    found = (1.0 - fraction) * xp.take(values, upper - 1) + fraction * xp.take(values, upper)
    return xp.reshape(found, x.shape)


def air_at(altitude_m: Float[Array, " *shape"], profile: AtmosphereProfile) -> AtmosphereProfile:
    """Return density, thickness and refractivity at altitudes, log-linear between levels."""
    xp = array_namespace(altitude_m)

    def at(values):
        return xp.exp(interpolate(altitude_m, profile.altitude, xp.log(values)))

    return AtmosphereProfile(
        altitude_m, at(profile.density), at(profile.thickness), at(profile.refractivity)
    )


def altitude_of_thickness(
    thickness: Float[Array, " *shape"], profile: AtmosphereProfile
) -> Float[Array, " *shape"]:
    """Return the altitude (m) below a vertical thickness of air (g/cm2); inverse of `air_at`."""
    xp = array_namespace(thickness)
    rising = xp.flip(xp.log(profile.thickness))
    return interpolate(xp.log(thickness), rising, xp.flip(profile.altitude))


def refractivity_of_density(
    density: Float[Array, " *shape"], *, wavelength_nm: float = 400.0
) -> Float[Array, " *shape"]:
    """Return n - 1 of dry air.

    Dispersion of standard air by Edlen (1966, Metrologia 2, 71), proportional to the density
    (g/cm3): 2.828e-4 at 400 nm and 2.765e-4 at 633 nm in standard air. Water vapour is left out (it
    changes n - 1 by less than 0.2 %).
    """
    wave_number = (1e3 / wavelength_nm) ** 2  # of 1/um, squared
    standard = 1e-8 * (8342.13 + 2406030.0 / (130.0 - wave_number) + 15997.0 / (38.9 - wave_number))
    return density * (standard / STANDARD_DENSITY)


def cherenkov_threshold(refractivity: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
    """Return the total energy (MeV) above which an electron is faster than light in air.

    E = m / sqrt(1 - 1/n^2), m / sqrt(2 (n - 1)) to first order in n - 1.
    """
    xp = array_namespace(refractivity)
    n = 1.0 + refractivity
    return ELECTRON_MASS_MEV * n / xp.sqrt(refractivity * (2.0 + refractivity))


def rayleigh_depth(
    wavelength_nm: Float[Array, " *#shape"], thickness: Float[Array, " *#shape"]
) -> Float[Array, " *shape"]:
    """Return the optical depth of scattering off molecules, thickness / (2970 (l/400 nm)^4).

    Rayleigh (1899); a mean free path of 2970 g/cm2 at 400 nm is the usual value in air-fluorescence
    and Cherenkov work.

    Parameters
    ----------
    wavelength_nm : nm
    thickness : g/cm2 of air on the way
    """
    return thickness / (RAYLEIGH_DEPTH_400 * (wavelength_nm / 400.0) ** 4)


def aerosol_depth(
    wavelength_nm: Float[Array, " *#shape"],
    altitude_m: Float[Array, " *#shape"],
    *,
    observation_m: float,
    optical_depth: float,
    scale_height_m: float,
) -> Float[Array, " *shape"]:
    """Return the vertical optical depth of aerosols between an altitude and the observer.

    Exponential in altitude; wavelength dependence of Angstrom (1929).

    Parameters
    ----------
    wavelength_nm : nm
    altitude_m : m above the sea
    observation_m : m above the sea
    optical_depth : of the whole atmosphere above the sea at 400 nm
    scale_height_m : m
    """
    xp = array_namespace(wavelength_nm, altitude_m)
    below = xp.exp(xp.zeros_like(altitude_m) - observation_m / scale_height_m)
    column = below - xp.exp(-altitude_m / scale_height_m)
    return optical_depth * (400.0 / wavelength_nm) ** AEROSOL_EXPONENT * column


def ozone_depth(
    wavelength_nm: Float[Array, " *#shape"],
    altitude_m: Float[Array, " *#shape"],
    *,
    observation_m: float,
) -> Float[Array, " *shape"]:
    """Return the vertical optical depth of ozone between an altitude and the observer.

    Huggins bands, whose cross section falls by e every 7.6 nm from 4e-19 cm2 at 300 nm (within 20 %
    of the measurements of Molina and Molina 1986, J. Geophys. Res. 91, 14501, between 285 and
    330 nm); a constant 6e11 molecules/cm3 below 15 km. The ozone layer above, where showers hardly
    shine, is left out.
    """
    xp = array_namespace(wavelength_nm, altitude_m)
    section = OZONE_CROSS_SECTION_300 * xp.exp((300.0 - wavelength_nm) / OZONE_FOLDING_NM)
    path_cm = 100.0 * (xp.clip(altitude_m, 0.0, OZONE_TOP_M) - observation_m)
    return section * OZONE_TROPOSPHERE * path_cm


def transmission(
    wavelength_nm: Float[Array, " *#shape"],
    altitude_m: Float[Array, " *#shape"],
    profile: AtmosphereProfile,
    *,
    observation_m: float,
    aerosol_optical_depth: float,
    aerosol_scale_height_m: float,
    cos_zenith: float,
) -> Float[Array, " *shape"]:
    """Return the share of light that comes down from an altitude to the observer.

    Parameters
    ----------
    wavelength_nm : nm
    altitude_m : m above the sea, where the light is emitted
    profile : of the air
    observation_m : m above the sea
    aerosol_optical_depth, aerosol_scale_height_m : see `aerosol_depth`
    cos_zenith : of the way of the light
    """
    xp = array_namespace(wavelength_nm, altitude_m)
    ground = air_at(xp.full_like(altitude_m, observation_m), profile).thickness
    thickness = ground - air_at(altitude_m, profile).thickness
    depth = (
        rayleigh_depth(wavelength_nm, thickness)
        + aerosol_depth(
            wavelength_nm,
            altitude_m,
            observation_m=observation_m,
            optical_depth=aerosol_optical_depth,
            scale_height_m=aerosol_scale_height_m,
        )
        + ozone_depth(wavelength_nm, altitude_m, observation_m=observation_m)
    )
    return xp.exp(-depth / cos_zenith)
