"""Horizon and ICRS: aberration, precession, nutation and Earth rotation on arrays.

What depends on the time and the place alone is a `SkyContext`, made on the host
(`astri_gpu.instrument.frames`) at a few epochs; the kernels apply it to any number of events. They
repeat ERFA's ``atciqz``, ``atioq`` and their inverses without refraction, for distant sources.
Angles that go in or come out are in degrees, arrays float64.
"""

from typing import Any, NamedTuple

from ._spherical import (
    EquatorialPoint,
    HorizonPoint,
    latitude,
    longitude,
    normalise,
    positive,
    to_unit,
)
from ._types import Array, array_namespace

__all__ = ["SkyContext", "altaz_to_icrs", "icrs_to_altaz"]

SCHWARZSCHILD_AU = 1.97412574336e-8  # Schwarzschild radius of the Sun in au (IAU SOFA)
INVERSE_STEPS = 3  # every step gains a factor 1e-4, the size of the aberration


class SkyContext(NamedTuple):
    """Earth and observer at some epochs, as ERFA's ``apco13`` gives them (``eraASTROM``).

    Float64 arrays with a leading epoch axis: `bpn` (epoch, 3, 3) bias-precession-nutation matrix
    from GCRS to CIRS; `velocity` (epoch, 3) barycentric velocity of the observer / c;
    `inverse_lorentz` (epoch,) sqrt(1 - v2); `sun` (epoch, 3) unit vector from the Sun to the
    observer; `sun_distance` (epoch,) au; `rotation` (epoch,) local Earth rotation angle, rad;
    `rotation_rate` (epoch,) rad per second of UTC; `polar_x`, `polar_y` (epoch,) polar motion
    turned into the local meridian, rad; `sin_latitude`, `cos_latitude` (epoch,) of the geodetic
    latitude.
    """

    bpn: Array
    velocity: Array
    inverse_lorentz: Array
    sun: Array
    sun_distance: Array
    rotation: Array
    rotation_rate: Array
    polar_x: Array
    polar_y: Array
    sin_latitude: Array
    cos_latitude: Array


def _components(vector: Array) -> tuple[Array, Array, Array]:
    return vector[..., 0], vector[..., 1], vector[..., 2]


def _to_proper(
    xp: Any, vector: tuple[Array, Array, Array], context: SkyContext
) -> tuple[Array, Array, Array]:
    """Return the proper direction of an ICRS unit vector: light deflection, then aberration.

    ERFA ``ldsun`` and ``ab``; `context` is gathered to one row per event.
    """
    x, y, z = vector
    sun_x, sun_y, sun_z = _components(context.sun)
    distance = context.sun_distance
    cos_sun = x * sun_x + y * sun_y + z * sun_z
    far = xp.where(distance > 1.0, distance * distance, xp.ones_like(distance))
    weight = SCHWARZSCHILD_AU / distance / xp.maximum(1.0 + cos_sun, 1e-6 / far)
    # p x (e x p) = e - (e.p) p for a unit vector
    x, y, z = (
        x + weight * (sun_x - cos_sun * x),
        y + weight * (sun_y - cos_sun * y),
        z + weight * (sun_z - cos_sun * z),
    )

    v_x, v_y, v_z = _components(context.velocity)
    lorentz = context.inverse_lorentz
    along = x * v_x + y * v_y + z * v_z
    potential = SCHWARZSCHILD_AU / distance
    of_p, of_v = lorentz - potential * along, 1.0 + along / (1.0 + lorentz) + potential
    return normalise(xp, of_p * x + of_v * v_x, of_p * y + of_v * v_y, of_p * z + of_v * v_z)


def _gather(xp: Any, context: SkyContext, epoch: Array) -> SkyContext:
    """Return the context with one row per event."""
    return SkyContext(*(xp.take(field, epoch, axis=0) for field in context))


def icrs_to_altaz(
    ra: Array, dec: Array, context: SkyContext, epoch: Array, seconds: Array
) -> HorizonPoint:
    """Return horizontal directions, without refraction, of ICRS directions (of distant sources).

    ERFA ``atciqz`` and ``atioq``: light deflection by the Sun, aberration, bias-precession-nutation
    of the nearest epoch, Earth rotation at the exact time, polar motion.

    Parameters
    ----------
    ra, dec
        (event,), deg
    context
        Earth and observer at the epochs.
    epoch
        (event,) integer, the row of `context` nearest in time to each event
    seconds
        (event,), s, time of each event since that epoch
    """
    xp = array_namespace(ra, dec, epoch, seconds)
    at = _gather(xp, context, epoch)
    x, y, z = _to_proper(xp, to_unit(xp, ra, dec), at)

    # to the celestial intermediate frame
    m = at.bpn
    x, y, z = (
        m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2] * z,
        m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2] * z,
        m[:, 2, 0] * x + m[:, 2, 1] * y + m[:, 2, 2] * z,
    )
    # to the local meridian
    rotation = at.rotation + at.rotation_rate * seconds
    cos, sin = xp.cos(rotation), xp.sin(rotation)
    x, y = cos * x + sin * y, cos * y - sin * x
    # polar motion
    cos_x, sin_x = xp.cos(at.polar_x), xp.sin(at.polar_x)
    cos_y, sin_y = xp.cos(at.polar_y), xp.sin(at.polar_y)
    x, y, z = (
        cos_x * x + sin_x * z,
        sin_x * sin_y * x + cos_y * y - cos_x * sin_y * z,
        -sin_x * cos_y * x + sin_y * y + cos_x * cos_y * z,
    )
    # to the horizon: North, East, up
    north = at.cos_latitude * z - at.sin_latitude * x
    up = at.cos_latitude * x + at.sin_latitude * z
    return HorizonPoint(alt=latitude(xp, north, y, up), az=positive(xp, longitude(xp, north, y)))


def altaz_to_icrs(
    alt: Array, az: Array, context: SkyContext, epoch: Array, seconds: Array
) -> EquatorialPoint:
    """Return ICRS directions of horizontal directions without refraction.

    Inverse of `icrs_to_altaz`; aberration and deflection are undone by iteration as in ERFA
    ``aticq``.

    Parameters
    ----------
    alt, az
        (event,), deg
    context
        Earth and observer at the epochs.
    epoch
        (event,) integer, the row of `context` nearest in time to each event
    seconds
        (event,), s, time of each event since that epoch
    """
    xp = array_namespace(alt, az, epoch, seconds)
    at = _gather(xp, context, epoch)
    north, y, up = to_unit(xp, az, alt)
    x = at.cos_latitude * up - at.sin_latitude * north
    z = at.sin_latitude * up + at.cos_latitude * north
    # The matrix of the polar motion is orthogonal: its transpose is the way back.
    cos_x, sin_x = xp.cos(at.polar_x), xp.sin(at.polar_x)
    cos_y, sin_y = xp.cos(at.polar_y), xp.sin(at.polar_y)
    x, y, z = (
        cos_x * x + sin_x * sin_y * y - sin_x * cos_y * z,
        cos_y * y + sin_y * z,
        sin_x * x - cos_x * sin_y * y + cos_x * cos_y * z,
    )
    rotation = at.rotation + at.rotation_rate * seconds
    cos, sin = xp.cos(rotation), xp.sin(rotation)
    x, y = cos * x - sin * y, sin * x + cos * y
    m = at.bpn
    x, y, z = (
        m[:, 0, 0] * x + m[:, 1, 0] * y + m[:, 2, 0] * z,
        m[:, 0, 1] * x + m[:, 1, 1] * y + m[:, 2, 1] * z,
        m[:, 0, 2] * x + m[:, 1, 2] * y + m[:, 2, 2] * z,
    )
    source = (x, y, z)
    for _ in range(INVERSE_STEPS):
        proper = _to_proper(xp, source, at)
        source = normalise(
            xp,
            source[0] + x - proper[0],
            source[1] + y - proper[1],
            source[2] + z - proper[2],
        )
    x, y, z = source
    return EquatorialPoint(ra=positive(xp, longitude(xp, x, y)), dec=latitude(xp, x, y, z))
