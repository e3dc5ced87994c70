"""Directions on the sky of events with times: between the horizon of the array and ICRS.

Times are seconds since 2020-01-01T00:00:00 UTC, as ASTRI counts them; no leap second has been
added since then.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.errors import AstriError
from astri_gpu.kernels.coordinates import (
    EquatorialPoint,
    HorizonPoint,
    SkyContext,
    altaz_to_icrs,
    altaz_to_telescope,
    icrs_to_altaz,
    telescope_to_altaz,
)

__all__ = [
    "REFERENCE_UNIX_S",
    "Site",
    "from_centre",
    "to_altaz",
    "to_centre",
    "to_icrs",
    "utc_text",
]

Floats = NDArray[np.float64]
REFERENCE_UNIX_S = 1_577_836_800
"""2020-01-01T00:00:00 UTC."""
STEP_S = 60


class Site(NamedTuple):
    """Where the array stands: geodetic, longitude to the East."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float


def to_icrs(alt: ArrayLike, az: ArrayLike, time: ArrayLike, site: Site) -> EquatorialPoint:
    """Return ICRS directions of horizontal ones (deg, without refraction), (event,).

    Parameters
    ----------
    alt, az
        deg, (event,)
    time
        s since 2020-01-01 UTC, (event,)
    site
        Of the observer.

    Raises
    ------
    AstriError
        When the times are not finite or span more than a month.
    """
    return EquatorialPoint(*_turned(altaz_to_icrs, alt, az, time, site))


def to_altaz(
    ra: ArrayLike, dec: ArrayLike, time: ArrayLike, site: Site, *, step_s: int = STEP_S
) -> HorizonPoint:
    """Return horizontal directions of ICRS ones, (event,); see `to_icrs`.

    `step_s` seconds lie between the epochs at which the Earth is computed; with 600, which takes a
    tenth of the time, directions are off by up to an arcsecond.
    """
    return HorizonPoint(*_turned(icrs_to_altaz, ra, dec, time, site, step_s))


def _turned(
    transform: Callable[..., tuple[Floats, Floats]],
    lon: ArrayLike,
    lat: ArrayLike,
    time: ArrayLike,
    site: Site,
    step_s: int = STEP_S,
) -> tuple[Floats, Floats]:
    from astri_gpu.instrument.frames import sky_grid

    lon, lat, time = np.broadcast_arrays(*(np.asarray(part, float) for part in (lon, lat, time)))
    if not time.size:
        return np.empty(0), np.empty(0)
    if not np.isfinite(time).all():
        raise AstriError("An event time is not a finite number, so it has no place on the sky.")
    whole = np.floor(time)
    unix = REFERENCE_UNIX_S + whole.astype(np.int64)
    grid = sky_grid(unix, **site._asdict(), step_s=step_s)
    epoch, seconds = grid.locate(unix, np.rint(1e9 * (time - whole)).astype(np.int64))
    context: SkyContext = grid.context
    first, second = transform(lon, lat, context, epoch, seconds)
    return first, second


def to_centre(
    lon: ArrayLike, lat: ArrayLike, centre_lon: ArrayLike, centre_lat: ArrayLike
) -> tuple:
    """Return distance and position angle (deg) of directions seen from a centre.

    The angle grows from the direction of rising latitude to that of rising longitude.
    """
    lon, lat, centre_lon, centre_lat = (
        np.asarray(part, float) for part in (lon, lat, centre_lon, centre_lat)
    )
    point = altaz_to_telescope(lat, lon, centre_lat, centre_lon)
    across, along = np.deg2rad(point.fov_lon), np.deg2rad(point.fov_lat)
    x = np.cos(along) * np.cos(across)
    y, z = np.cos(along) * np.sin(across), np.sin(along)
    return np.rad2deg(np.arctan2(np.hypot(y, z), x)), np.rad2deg(np.arctan2(y, z))


def from_centre(
    distance: ArrayLike, angle: ArrayLike, centre_lon: ArrayLike, centre_lat: ArrayLike
) -> tuple[Floats, Floats]:
    """Return longitude and latitude (deg) of directions given as `to_centre` returns them."""
    distance, angle = np.deg2rad(np.asarray(distance, float)), np.deg2rad(np.asarray(angle, float))
    y, z = np.sin(distance) * np.sin(angle), np.sin(distance) * np.cos(angle)
    across, along = np.arctan2(y, np.cos(distance)), np.arcsin(np.clip(z, -1, 1))
    point = telescope_to_altaz(
        np.rad2deg(across),
        np.rad2deg(along),
        np.asarray(centre_lat, float),
        np.asarray(centre_lon, float),
    )
    return point.az, point.alt


def utc_text(time: float) -> str:
    """Return a time (s since 2020-01-01 UTC) such as "2026-01-15T22:00:00.000"."""
    moment = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=float(time))
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
