"""Directions and positions: camera, telescope frame, horizon, ICRS, ground and tilted ground.

All angles that go in or come out are in degrees, all arrays float64 and of one shape (or one that
broadcasts), unless a docstring says otherwise. The frames are those of ctapipe:

* camera: x, y in the focal plane, in the unit of the focal length;
* telescope: `fov_lat` = x / f along altitude, `fov_lon` = y / f along azimuth, a spherical
  coordinate system centred on the pointing direction;
* horizon: altitude and azimuth (from North through East), without refraction;
* ground: x North, y West, z up; tilted: the same, turned so that z points to the source.

ICRS needs the Earth: `altaz_to_icrs` and `icrs_to_altaz` come from the module `sky`.
"""

from typing import Any, NamedTuple

from ._spherical import DEG, EquatorialPoint, HorizonPoint, latitude, longitude, positive, to_unit
from ._types import Array, array_namespace
from .sky import SkyContext, altaz_to_icrs, icrs_to_altaz

__all__ = [
    "CameraPoint",
    "EquatorialPoint",
    "GroundPoint",
    "HorizonPoint",
    "SkyContext",
    "TelescopePoint",
    "altaz_to_cartesian",
    "altaz_to_icrs",
    "altaz_to_telescope",
    "angular_separation",
    "camera_to_telescope",
    "cartesian_to_altaz",
    "ground_to_tilted",
    "icrs_to_altaz",
    "project_to_ground",
    "telescope_to_altaz",
    "telescope_to_camera",
    "tilted_to_ground",
]


class CameraPoint(NamedTuple):
    """Positions in the focal plane, in the unit of the focal length."""

    x: Array
    y: Array


class TelescopePoint(NamedTuple):
    """Directions in the field of view, deg; `fov_lon` in (-180, 180]."""

    fov_lon: Array
    fov_lat: Array


class GroundPoint(NamedTuple):
    """Positions or directions x (North), y (West), z (up), or the same in a tilted frame."""

    x: Array
    y: Array
    z: Array


def _turn(xp: Any, x: Array, y: Array, angle: Array | float) -> tuple[Array, Array]:
    """Return a vector turned by `angle` (deg), counter-clockwise."""
    angle = xp.asarray(angle, dtype=x.dtype) * DEG
    cos, sin = xp.cos(angle), xp.sin(angle)
    return x * cos - y * sin, x * sin + y * cos


def camera_to_telescope(
    x: Array, y: Array, focal_length: Array | float, *, rotation: Array | float = 0.0
) -> TelescopePoint:
    """Return directions in the telescope frame of positions in the camera.

    The camera is turned by `rotation` (deg), then fov_lat = x / f and fov_lon = y / f rad
    (equidistant projection, ctapipe's ``CameraFrame`` -> ``TelescopeFrame``).

    Parameters
    ----------
    x, y
        (...,), m
    focal_length
        (...,) or scalar, m
    rotation
        (...,) or scalar, deg
    """
    xp = array_namespace(x, y)
    x, y = _turn(xp, x, y, rotation)
    return TelescopePoint(fov_lon=y / focal_length / DEG, fov_lat=x / focal_length / DEG)


def telescope_to_camera(
    fov_lon: Array, fov_lat: Array, focal_length: Array | float, *, rotation: Array | float = 0.0
) -> CameraPoint:
    """Return positions in the camera of directions in the telescope frame.

    Inverse of `camera_to_telescope`.

    Parameters
    ----------
    fov_lon, fov_lat
        (...,), deg
    focal_length
        (...,) or scalar, m
    rotation
        (...,) or scalar, deg
    """
    xp = array_namespace(fov_lon, fov_lat)
    x, y = _turn(xp, fov_lat * DEG * focal_length, fov_lon * DEG * focal_length, -rotation)
    return CameraPoint(x=x, y=y)


def telescope_to_altaz(
    fov_lon: Array, fov_lat: Array, pointing_alt: Array, pointing_az: Array
) -> HorizonPoint:
    """Return horizontal directions of directions in the telescope frame.

    The telescope frame is turned about its y axis by the altitude, then about the vertical by the
    azimuth of the pointing (ctapipe's ``TelescopeFrame``, astropy's ``SkyOffsetFrame``).

    Parameters
    ----------
    fov_lon, fov_lat, pointing_alt, pointing_az
        (...,), deg, broadcast against each other
    """
    xp = array_namespace(fov_lon, fov_lat, pointing_alt, pointing_az)
    x, y, z = to_unit(xp, fov_lon, fov_lat)
    cos, sin = xp.cos(pointing_alt * DEG), xp.sin(pointing_alt * DEG)
    x, z = cos * x - sin * z, sin * x + cos * z
    x, y = _turn(xp, x, y, pointing_az)
    return HorizonPoint(alt=latitude(xp, x, y, z), az=positive(xp, longitude(xp, x, y)))


def altaz_to_telescope(
    alt: Array, az: Array, pointing_alt: Array, pointing_az: Array
) -> TelescopePoint:
    """Return directions in the telescope frame of horizontal directions.

    Inverse of `telescope_to_altaz`.

    Parameters
    ----------
    alt, az, pointing_alt, pointing_az
        (...,), deg, broadcast against each other
    """
    xp = array_namespace(alt, az, pointing_alt, pointing_az)
    # The difference of the azimuths first: it is small, so no digits are lost in the turn.
    x, y, z = to_unit(xp, az - pointing_az, alt)
    cos, sin = xp.cos(pointing_alt * DEG), xp.sin(pointing_alt * DEG)
    x, z = cos * x + sin * z, cos * z - sin * x
    return TelescopePoint(fov_lon=longitude(xp, x, y), fov_lat=latitude(xp, x, y, z))


def altaz_to_cartesian(alt: Array, az: Array) -> GroundPoint:
    """Return unit vectors in the ground frame: x North, y West, z up.

    Azimuth grows towards East, the frame is right-handed, hence y = -cos(alt) sin(az)
    (ctapipe's ``altaz_to_righthanded_cartesian``).

    Parameters
    ----------
    alt, az
        (...,), deg
    """
    xp = array_namespace(alt, az)
    return GroundPoint(*to_unit(xp, -az, alt))


def cartesian_to_altaz(x: Array, y: Array, z: Array) -> HorizonPoint:
    """Return the horizontal direction of vectors of any length in the ground frame.

    Parameters
    ----------
    x, y, z
        (...,), any one unit
    """
    xp = array_namespace(x, y, z)
    return HorizonPoint(alt=latitude(xp, x, y, z), az=positive(xp, longitude(xp, x, -y)))


def ground_to_tilted(x: Array, y: Array, z: Array, alt: Array, az: Array) -> GroundPoint:
    """Return ground positions in the frame whose z axis points to (alt, az).

    x lies in the vertical plane of the direction, y is horizontal (ctapipe's
    ``TiltedGroundFrame``, from read_hess).

    Parameters
    ----------
    x, y, z
        (...,), m, ground frame
    alt, az
        (...,), deg, broadcast against the positions
    """
    xp = array_namespace(x, y, z, alt, az)
    sin_alt, cos_alt = xp.sin(alt * DEG), xp.cos(alt * DEG)
    along, across = _turn(xp, x, y, az)
    return GroundPoint(x=sin_alt * along - cos_alt * z, y=across, z=cos_alt * along + sin_alt * z)


def tilted_to_ground(x: Array, y: Array, z: Array, alt: Array, az: Array) -> GroundPoint:
    """Return positions of a tilted frame in the ground frame; inverse of `ground_to_tilted`.

    Parameters
    ----------
    x, y, z
        (...,), m, tilted frame
    alt, az
        (...,), deg, direction of the tilted z axis
    """
    xp = array_namespace(x, y, z, alt, az)
    sin_alt, cos_alt = xp.sin(alt * DEG), xp.cos(alt * DEG)
    along, up = sin_alt * x + cos_alt * z, sin_alt * z - cos_alt * x
    ground_x, ground_y = _turn(xp, along, y, -az)
    return GroundPoint(x=ground_x, y=ground_y, z=up)


def project_to_ground(x: Array, y: Array, alt: Array, az: Array) -> GroundPoint:
    """Return where lines along (alt, az) through points of the tilted plane meet the ground z = 0.

    It is the shower core on the ground (ctapipe's ``project_to_ground``).

    Parameters
    ----------
    x, y
        (...,), m, tilted frame at z = 0
    alt, az
        (...,), deg, direction of the tilted z axis; at the horizon the result is infinite
    """
    xp = array_namespace(x, y, alt, az)
    # Along the trace of the direction, x / sin(alt) is the hypotenuse of the tilt triangle.
    ground_x, ground_y = _turn(xp, x / xp.sin(alt * DEG), y, -az)
    return GroundPoint(x=ground_x, y=ground_y, z=xp.zeros_like(ground_x))


def angular_separation(lon_1: Array, lat_1: Array, lon_2: Array, lat_2: Array) -> Array:
    """Return the angle between two directions in deg, exact for small and for large ones.

    Vincenty's formula, as in ``astropy.coordinates.angular_separation``.

    Parameters
    ----------
    lon_1, lat_1, lon_2, lat_2
        (...,), deg; longitude first (azimuth, right ascension, fov_lon)
    """
    xp = array_namespace(lon_1, lat_1, lon_2, lat_2)
    cos_d, sin_d = xp.cos((lon_2 - lon_1) * DEG), xp.sin((lon_2 - lon_1) * DEG)
    cos_1, sin_1 = xp.cos(lat_1 * DEG), xp.sin(lat_1 * DEG)
    cos_2, sin_2 = xp.cos(lat_2 * DEG), xp.sin(lat_2 * DEG)
    across = cos_2 * sin_d
    along = cos_1 * sin_2 - sin_1 * cos_2 * cos_d
    return (
        xp.atan2(xp.sqrt(across * across + along * along), sin_1 * sin_2 + cos_1 * cos_2 * cos_d)
        / DEG
    )
