"""When a target can be observed at a zenith angle: runs that simulated events can stand in for."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3.sky import REFERENCE_UNIX_S, Site, to_altaz
from astri_gpu.errors import UsageError

if TYPE_CHECKING:
    from astri_gpu.config_response import ObservationConfig

__all__ = ["run_starts"]

Floats = NDArray[np.float64]
STEP_S = 300.0
DARK_DEG = -18.0  # altitude of the Sun at the end of astronomical twilight
NIGHTS = 366
COARSE_S = 600  # seconds between epochs: an arcsecond does not matter here
HALF_DAY_S = 43200.0
DEG_PER_S = 15.0 / 3600


def run_starts(
    config: "ObservationConfig", site: Site, zeniths: Sequence[float], farthest: float
) -> list[float]:
    """Return the times (s since 2020-01-01 UTC) at which the runs begin, rising.

    Runs lie in the dark, do not overlap, and keep the target within `farthest` of one of the
    `zeniths` (deg) all the time. Of a night those that are closest to it are taken first; what does
    not fit goes into the following nights. The first runs are the same whatever their number.

    Parameters
    ----------
    config
        Target, night, length and number of the runs.
    site
        Of the array.
    zeniths
        Of the simulated events, deg.
    farthest
        deg

    Raises
    ------
    UsageError
        When the night is no date, or a year has not enough such times.
    """
    try:
        night = date.fromisoformat(config.night)
    except ValueError:
        raise UsageError(
            f"observation.night is '{config.night}', which is no date: write it as 2026-01-15."
        ) from None
    closest = [np.inf]
    starts = list(
        islice(_starts(config, night, site, np.asarray(zeniths), farthest, closest), config.n_runs)
    )
    if len(starts) < config.n_runs:
        angles = ", ".join(f"{zenith:.4g}" for zenith in sorted(set(zeniths)))
        found = (
            f"{len(starts)} of {config.n_runs} runs fit"
            if starts
            else "it never does"
            + (f" (at best {closest[0]:.3g} deg)" if np.isfinite(closest[0]) else " in the dark")
        )
        raise UsageError(
            f"{config.target} has to stay within {farthest:.3g} deg of the zenith angle of the "
            f"simulated events ({angles} deg) for {config.duration_s:g} s, and in {NIGHTS} nights "
            f"from {night} on {found}: simulate another zenith angle, or change the target, "
            "observation.duration_s or max_zenith_distance_deg."
        )
    return starts


def _starts(
    config: "ObservationConfig",
    first: date,
    site: Site,
    zeniths: Floats,
    farthest: float,
    closest: list[float],
) -> Iterator[float]:
    """Yield the starts night after night; `closest` keeps the best distance that was seen."""
    n_samples = int(np.ceil(config.duration_s / STEP_S)) + 1
    for night in range(NIGHTS):
        evening = datetime.combine(first + timedelta(days=night), datetime.min.time(), UTC)
        noon = evening.timestamp() + HALF_DAY_S - site.longitude_deg / DEG_PER_S - REFERENCE_UNIX_S
        times = np.floor(noon) + STEP_S * np.arange(2 * HALF_DAY_S / STEP_S + n_samples)
        zenith = 90 - to_altaz(*config.place()[1:], times, site, step_s=COARSE_S).alt
        distance = np.abs(zenith[:, None] - zeniths).min(axis=1)
        window = np.lib.stride_tricks.sliding_window_view(distance, n_samples)
        if not night and window.max(axis=1).min() > farthest:
            closest[0] = float(window.max(axis=1).min())
            return  # by day neither: the target passes the same angles every day of the year
        distance[_sun_altitude(times, site) > DARK_DEG] = np.inf
        worst = window.max(axis=1)
        closest[0] = min(closest[0], float(worst.min()))
        free = worst <= farthest
        chosen = []
        cost = np.where(free, worst, np.inf)
        for start in np.argsort(cost, kind="stable")[: np.count_nonzero(free)]:
            if free[start]:
                chosen.append(start)
                free[max(0, start - n_samples + 1) : start + n_samples] = False
        yield from times[np.sort(np.asarray(chosen, dtype=np.int64))].tolist()


def _sun_altitude(times: Floats, site: Site) -> Floats:
    from astri_gpu.instrument.frames import sky_context

    middle = np.array([REFERENCE_UNIX_S + times.mean()])
    x, y, z = -sky_context(middle, **site._asdict()).sun[0]
    ra, dec = np.rad2deg(np.arctan2(y, x)) % 360, np.rad2deg(np.arctan2(z, np.hypot(x, y)))
    return to_altaz(ra, dec, times, site, step_s=COARSE_S).alt
