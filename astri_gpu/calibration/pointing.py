"""Where a telescope pointed at the time of an event: interpolated between housekeeping samples."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.calibration.housekeeping import Housekeeping, read_housekeeping, seconds_since
from astri_gpu.kernels.coordinates import altaz_to_cartesian, cartesian_to_altaz

if TYPE_CHECKING:
    from astri_gpu.dl0.files import Dl0File

__all__ = ["Pointing", "between", "pointing_at"]

MAX_GAP = 3.5
"""Usual sampling times without a sample, beyond which nothing is said of the time between."""
MAX_BEYOND = 1.1
"""Sampling times for which a movement goes on beyond its samples; the clock may be a little off."""
LONE_SPACING_S = 1.0
"""Assumed of a single sample: housekeeping comes once a second."""
SMALL_RAD = 1e-6  # below, sin(x) = x to 1e-13
LARGEST_RAD = np.pi / 2
"""Between neighbouring samples; more is no movement that an arc describes."""

Floats = NDArray[np.float64]


class Pointing(NamedTuple):
    """Horizontal directions, deg, (event,); NaN where they are not known."""

    alt: Floats
    az: Floats


def pointing_at(
    hk: "Dl0File | Housekeeping", time_s: NDArray[np.integer], time_ns: NDArray[np.integer]
) -> Pointing:
    """Return where a telescope pointed at times, (event,), azimuth from 0 to 360 deg.

    Between two samples the direction moves along their great circle at constant speed, so that it
    neither minds the zenith nor the step of the azimuth from 360 to 0. Up to one sampling time
    before the first and behind the last sample (or one beside a gap) the movement goes on; a single
    sample stands for the second around it. Elsewhere, in gaps of more than 3.5 usual sampling
    times, the direction is NaN.

    Parameters
    ----------
    hk
        DL0 file of the telescope's housekeeping, or what `read_housekeeping` made of it.
    time_s, time_ns
        UTC seconds since 2020-01-01 and nanoseconds to add, (event,).

    Raises
    ------
    AstriError
        When a column is missing or cannot be read.
    """
    samples = read_housekeeping(hk)
    known = np.isfinite(samples.alt)
    origin = samples.time_s[:1]
    return between(
        samples.seconds[known],
        samples.alt[known],
        samples.az[known],
        seconds_since(time_s, time_ns, origin),
        spacing_s=samples.spacing_s,
    )


def between(
    sample_s: Floats, alt: Floats, az: Floats, time: ArrayLike, *, spacing_s: float
) -> Pointing:
    """Return directions at times from samples of them: see `pointing_at`.

    Parameters
    ----------
    sample_s
        Times of the samples, rising, (sample,), s.
    alt, az
        Of the samples, deg.
    time
        (event,), s since the same moment.
    spacing_s
        Usual time between samples; NaN where there is only one.
    """
    time = np.asarray(time, dtype=np.float64)
    if not len(sample_s):
        return Pointing(np.full(time.shape, np.nan), np.full(time.shape, np.nan))
    spacing = spacing_s if np.isfinite(spacing_s) else LONE_SPACING_S
    if len(sample_s) == 1:
        near = np.abs(time - sample_s[0]) <= MAX_BEYOND * spacing
        return Pointing(np.where(near, alt[0], np.nan), np.where(near, az[0] % 360.0, np.nan))
    vector = np.stack(altaz_to_cartesian(alt, az))
    inside = np.clip(np.searchsorted(sample_s, time, side="right") - 1, 0, len(sample_s) - 2)
    first, usable = _arc_for(sample_s, time, inside, spacing)
    second = first + 1
    width = sample_s[second] - sample_s[first]
    share = (time - sample_s[first]) / width
    a, b = vector[:, first], vector[:, second]
    angle = np.arctan2(np.linalg.norm(np.cross(a, b, axis=0), axis=0), np.sum(a * b, axis=0))
    usable &= angle < LARGEST_RAD
    small = angle < SMALL_RAD
    sine = np.where(small, 1.0, np.sin(angle))
    weight_a = np.where(small, 1.0 - share, np.sin((1.0 - share) * angle) / sine)
    weight_b = np.where(small, share, np.sin(share * angle) / sine)
    point = cartesian_to_altaz(*(weight_a * a + weight_b * b))
    return Pointing(
        np.where(usable, point.alt, np.nan), np.where(usable, np.mod(point.az, 360.0), np.nan)
    )


def _arc_for(
    sample_s: Floats, time: Floats, inside: NDArray[np.intp], spacing: float
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the first sample of the arc that tells of each time, and whether there is one.

    It is the arc around the time, or beside a gap the last one before or the first one behind it.
    """
    width = np.diff(sample_s)
    whole = width <= MAX_GAP * spacing
    since, until = time - sample_s[inside], sample_s[inside + 1] - time
    between_both = whole[inside] & (since >= 0) & (until >= 0)
    last = len(width) - 1
    before = np.where(until < 0, inside, np.maximum(inside - 1, 0))  # the arc that ended
    after = np.where(since < 0, inside, np.minimum(inside + 1, last))  # the arc that begins
    ended = time - sample_s[before + 1]
    begins = sample_s[after] - time
    goes_on = whole[before] & (ended >= 0) & (ended <= MAX_BEYOND * spacing)
    comes = whole[after] & (begins >= 0) & (begins <= MAX_BEYOND * spacing)
    arc = np.where(between_both, inside, np.where(goes_on, before, after))
    return arc, between_both | goes_on | comes
