"""Times of ctapipe's files: seconds and quarter nanoseconds since 1970-01-01T00:00:00 TAI.

Our stores count UTC seconds since 1970 (unix time), which has no leap seconds; the difference comes
from ERFA's table of them.
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.errors import AstriError

__all__ = ["from_high_res", "to_high_res"]

NS = 1_000_000_000
QUARTERS_PER_NS = 4
DAY_S = 86400
MJD_1970 = 40587
LAST_S = 2**32 - 1  # 2106


def _tai_minus_utc_ns(unix_s: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return TAI - UTC at these unix times in ns; whole seconds since 1972."""
    import erfa

    day, row = np.unique(unix_s // DAY_S, return_inverse=True)
    with warnings.catch_warnings():
        # "dubious year": whether there will be leap seconds is not known; none is the best guess.
        warnings.simplefilter("ignore", category=erfa.ErfaWarning)
        year, month, of_month, _ = erfa.jd2cal(2400000.5, (day + MJD_1970).astype(np.float64))
        offset = erfa.dat(year, month, of_month, 0.0)
    return np.rint(offset * NS).astype(np.int64)[row.reshape(np.shape(unix_s))]


def to_high_res(time_s: ArrayLike, time_ns: ArrayLike) -> NDArray[np.uint32]:
    """Return times as ctapipe stores them.

    Parameters
    ----------
    time_s, time_ns
        UTC seconds since 1970, int (event,), and nanoseconds to add, int or float (event,), of any
        size and sign.

    Returns
    -------
    high_res
        uint32 (event, 2): TAI seconds and quarter nanoseconds.

    Raises
    ------
    AstriError
        When a time lies before 1970 or after 2106, which this form does not reach.
    """
    unix_s = np.asarray(time_s, dtype=np.int64)
    quarters = np.rint(np.asarray(time_ns, dtype=np.float64) * QUARTERS_PER_NS).astype(np.int64)
    quarters += QUARTERS_PER_NS * _tai_minus_utc_ns(unix_s)
    more, quarters = np.divmod(quarters, QUARTERS_PER_NS * NS)
    seconds = unix_s + more
    if seconds.size and not (seconds.min() >= 0 and seconds.max() <= LAST_S):
        raise AstriError(
            f"Event times go from {seconds.min()} to {seconds.max()} s after 1970, but ctapipe's "
            f"files hold 0 to {LAST_S}: look for broken time stamps."
        )
    return np.stack([seconds, quarters], axis=-1).astype(np.uint32)


def from_high_res(high_res: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return unix times, the inverse of `to_high_res`.

    Parameters
    ----------
    high_res
        uint32 (event, 2).

    Returns
    -------
    time_s, time_ns
        UTC seconds since 1970, int64 (event,), and nanoseconds, float64 (event,), 0 to 1e9 in steps
        of a quarter.
    """
    pair = np.asarray(high_res, dtype=np.int64)
    tai_ns = NS * pair[..., 0] + pair[..., 1] // QUARTERS_PER_NS
    # The table goes by UTC; half a minute matters only beside a leap second, hence the second step.
    offset = _tai_minus_utc_ns(pair[..., 0])
    offset = _tai_minus_utc_ns((tai_ns - offset) // NS)
    seconds, ns = np.divmod(tai_ns - offset, NS)
    return seconds, ns + (pair[..., 1] % QUARTERS_PER_NS) / QUARTERS_PER_NS
