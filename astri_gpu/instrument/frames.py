"""From times and places to the `SkyContext` of the coordinate kernels, with ERFA, offline.

Everything that is slow or needs tables (Earth orientation, precession, nutation, ephemeris) happens
here, on the host, once a minute of data; the events themselves go through array kernels only.
Earth orientation comes from the IERS A table that the package astropy-iers-data brings along, so
nothing is downloaded. There is no refraction.
"""

import logging
import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.errors import AstriError
from astri_gpu.kernels.coordinates import SkyContext

__all__ = ["SkyGrid", "sky_context", "sky_grid"]

logger = logging.getLogger(__name__)

UNIX_EPOCH_JD = 2440587.5
DAY_S = 86400
# d(Earth rotation angle)/dUT1 (IAU 2000); UT1 and UTC seconds differ by 1e-8 at most.
ROTATION_RATE = 2 * np.pi * 1.00273781191135448 / DAY_S
# Longest time between two epochs for which 0.1 arcsec holds with a wide margin: the aberration by
# the Earth's rotation, 0.3 arcsec, turns by 1.3 degrees in 5 minutes.
LONGEST_STEP_S = 600
LONGEST_RUN_DAYS = 31


@lru_cache(maxsize=1)
def _earth_orientation() -> Any:
    from astropy.utils import iers

    return iers.IERS_A.open(iers.IERS_A_FILE)


def _orientation(jd1: float, jd2: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
    """Return UT1 - UTC (s) and the polar motion x, y (rad); the nearest entry outside the table."""
    from astropy import units as u

    table = _earth_orientation()
    # The table starts in 1973 and ends with about a year of predictions. Half a day inside it
    # there is always an entry on both sides.
    first, last = table["MJD"][0].to_value(u.day), table["MJD"][-1].to_value(u.day)
    mjd = (jd1 - 2400000.5) + jd2
    inside = np.clip(mjd, first + 0.5, last - 0.5)
    n_outside = int(np.count_nonzero(inside != mjd))
    if n_outside:
        logger.warning(
            "%d of %d epochs (MJD %.1f to %.1f) lie outside the Earth orientation table (MJD %.0f "
            "to %.0f): directions on the sky can be off by up to 15 arcsec. Update the package "
            "astropy-iers-data, unless the data are simulated.",
            n_outside,
            mjd.size,
            mjd.min(),
            mjd.max(),
            first,
            last,
        )
    mjd_epoch = np.full(inside.shape, 2400000.5)
    dut1 = table.ut1_utc(mjd_epoch, inside).to_value(u.s)
    polar_x, polar_y = table.pm_xy(mjd_epoch, inside)
    return (
        np.asarray(dut1),
        np.asarray(polar_x.to_value(u.rad)),
        np.asarray(polar_y.to_value(u.rad)),
    )


def sky_context(
    unix_s: ArrayLike, *, latitude_deg: float, longitude_deg: float, altitude_m: float
) -> SkyContext:
    """Return Earth and observer at some epochs, as NumPy arrays.

    ERFA ``apco13`` (IAU 2006/2000A precession-nutation, analytic Earth ephemeris).

    Parameters
    ----------
    unix_s
        UTC seconds since 1970-01-01 of the epochs, (epoch,).
    latitude_deg, longitude_deg, altitude_m
        Geodetic position of the observer (WGS84), longitude positive to the East.

    Raises
    ------
    AstriError
        When a time or the position is not finite or the latitude is beyond a pole.
    """
    import erfa

    unix = np.atleast_1d(np.asarray(unix_s, dtype=np.float64))
    if not np.isfinite(unix).all():
        raise AstriError("An event time is not a finite number, so it has no place on the sky.")
    if not (np.isfinite([longitude_deg, altitude_m]).all() and abs(latitude_deg) <= 90):
        raise AstriError(
            f"The array position (latitude {latitude_deg} deg, longitude {longitude_deg} deg, "
            f"altitude {altitude_m} m) is not a place on the Earth."
        )
    jd2 = unix / DAY_S
    dut1, polar_x, polar_y = _orientation(UNIX_EPOCH_JD, jd2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", category=erfa.ErfaWarning)
        star, _ = erfa.apco13(
            UNIX_EPOCH_JD,
            jd2,
            dut1,
            np.deg2rad(longitude_deg),
            np.deg2rad(latitude_deg),
            altitude_m,
            polar_x,
            polar_y,
            0.0,  # no pressure: no refraction
            0.0,
            0.0,
            1.0,
        )
    for warning in caught:  # "dubious year": future leap seconds are not known
        logger.warning("ERFA: %s", warning.message)
    return SkyContext(
        bpn=np.ascontiguousarray(star["bpn"]),
        velocity=np.ascontiguousarray(star["v"]),
        inverse_lorentz=np.ascontiguousarray(star["bm1"]),
        sun=np.ascontiguousarray(star["eh"]),
        sun_distance=np.ascontiguousarray(star["em"]),
        rotation=np.ascontiguousarray(star["eral"]),
        rotation_rate=np.full(unix.shape, ROTATION_RATE),
        polar_x=np.ascontiguousarray(star["xpl"]),
        polar_y=np.ascontiguousarray(star["ypl"]),
        sin_latitude=np.ascontiguousarray(star["sphi"]),
        cos_latitude=np.ascontiguousarray(star["cphi"]),
    )


class SkyGrid(NamedTuple):
    """A `SkyContext` on a regular grid of epochs `start_s + i * step_s` (unix UTC seconds)."""

    start_s: int
    step_s: int
    context: SkyContext

    @property
    def n_epochs(self) -> int:
        """Return the number of epochs."""
        return len(self.context.rotation)

    def locate(
        self, time_s: ArrayLike, time_ns: ArrayLike
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Return the nearest epoch of each event and the seconds since it.

        Parameters
        ----------
        time_s, time_ns
            Integer UTC seconds since 1970 and nanoseconds, (event,).

        Returns
        -------
        epoch, seconds
            int32 and float64 (event,), as the kernels take them. The seconds come from integer
            differences, so they keep the nanosecond.

        Raises
        ------
        AstriError
            When an event lies more than one step outside the grid.
        """
        since = np.asarray(time_s, dtype=np.int64) - self.start_s
        epoch = np.clip((since + self.step_s // 2) // self.step_s, 0, self.n_epochs - 1)
        seconds = since - epoch * self.step_s
        if seconds.size and np.abs(seconds).max() > self.step_s:
            raise AstriError(
                f"Events from {since.min()} to {since.max()} s after {self.start_s} do not fit "
                f"the sky grid, which ends {(self.n_epochs - 1) * self.step_s} s after it; make "
                "the grid with the times of these events."
            )
        return epoch.astype(np.int32), seconds + 1e-9 * np.asarray(time_ns, dtype=np.int64)


def sky_grid(
    time_s: ArrayLike,
    *,
    latitude_deg: float,
    longitude_deg: float,
    altitude_m: float,
    step_s: int = 60,
) -> SkyGrid:
    """Return the sky context of a run: epochs that cover the given times.

    With one epoch a minute the transformation agrees with astropy to some milliarcseconds.

    Parameters
    ----------
    time_s
        UTC seconds since 1970 of the events (or of the first and the last), any order, not empty.
    latitude_deg, longitude_deg, altitude_m
        Geodetic position of the array, longitude positive to the East.
    step_s
        Seconds between the epochs.

    Raises
    ------
    AstriError
        When there are no times, the step is not between 1 and 600 s, or the times span more than
        31 days (a broken clock).
    """
    times = np.asarray(time_s, dtype=np.int64)
    if times.size == 0:
        raise AstriError("There are no event times to make a sky grid from.")
    if not 1 <= step_s <= LONGEST_STEP_S:
        raise AstriError(
            f"The step of the sky grid is {step_s} s; it has to be between 1 and {LONGEST_STEP_S}."
        )
    start, end = int(times.min()), int(times.max())
    if end - start > LONGEST_RUN_DAYS * DAY_S:
        raise AstriError(
            f"The event times go from {start} to {end} (unix seconds), which is more than "
            f"{LONGEST_RUN_DAYS} days: transform runs one by one, and look for broken time stamps."
        )
    epochs = start + step_s * np.arange((end - start) // step_s + 2)
    context = sky_context(
        epochs,
        latitude_deg=latitude_deg,
        longitude_deg=longitude_deg,
        altitude_m=altitude_m,
    )
    return SkyGrid(start_s=start, step_s=step_s, context=context)
