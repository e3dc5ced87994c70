"""Longitudes and latitudes in degrees to vectors and back: shared by the coordinate kernels."""

import math
from typing import Any, NamedTuple

from ._types import Array

DEG = math.pi / 180.0


class HorizonPoint(NamedTuple):
    """Horizontal directions, deg; `az` in [0, 360) from North through East."""

    alt: Array
    az: Array


class EquatorialPoint(NamedTuple):
    """ICRS directions, deg; `ra` in [0, 360)."""

    ra: Array
    dec: Array


def to_unit(xp: Any, lon: Array, lat: Array) -> tuple[Array, Array, Array]:
    """Return the unit vector of a longitude and latitude in deg."""
    lon, lat = lon * DEG, lat * DEG
    cos_lat = xp.cos(lat)
    return cos_lat * xp.cos(lon), cos_lat * xp.sin(lon), xp.sin(lat)


def longitude(xp: Any, x: Array, y: Array) -> Array:
    """Return the longitude of a vector in deg, in (-180, 180]."""
    return xp.atan2(y, x) / DEG


def latitude(xp: Any, x: Array, y: Array, z: Array) -> Array:
    """Return the latitude of a vector in deg; atan2 keeps its precision at the pole."""
    return xp.atan2(z, xp.sqrt(x * x + y * y)) / DEG


def positive(xp: Any, angle: Array) -> Array:
    """Return an angle of (-180, 180] in [0, 360); a rounding error below 0 becomes 0, not 360."""
    turned = xp.where(angle < 0, angle + 360.0, angle)
    return xp.where(turned >= 360.0, xp.zeros_like(turned), turned)


def normalise(xp: Any, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
    """Return a vector divided by its length."""
    norm = xp.sqrt(x * x + y * y + z * z)
    return x / norm, y / norm, z / norm
