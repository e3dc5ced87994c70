"""Housekeeping of a telescope in a run: pointing, counters, status, in order of time."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from astri_gpu.dl0.files import Dl0File

__all__ = [
    "CLOCK",
    "LID",
    "SENSORS",
    "TRACKING",
    "Housekeeping",
    "read_housekeeping",
    "seconds_since",
]

TRACKING, SENSORS, LID, CLOCK = 1, 2, 4, 8
"""Bits of the status: the mount tracks, sensors have voltage, the lid is open, clock locked."""
MAX_SPEED_DEG_S = 10.0
"""Faster than any mount: a single sample off both of its neighbours by more is no direction."""
BEYOND_S = 3600.0
"""Samples so far before or behind the run have a wrong time."""
MAX_AZ_DEG = 720.0  # encoders count on beyond a turn
NS = 1_000_000_000

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Housekeeping(NamedTuple):
    """Samples of one telescope in rising order of time, (sample,) each."""

    tel_id: int
    time_s: Integers
    """UTC seconds since 2020-01-01 by the clock of the telescope."""
    time_ns: Integers
    """To add."""
    alt: Floats
    """deg; NaN where the mount gave no direction."""
    az: Floats
    n_triggers: Integers
    """Since the start of the run, as `n_events` and `dead_time_s`."""
    n_events: Integers
    dead_time_s: Floats
    temperature: Floats
    """degC, of the focal plane; NaN where the file has none, as `voltage`."""
    voltage: Floats
    status: NDArray[np.uint16]
    n_bad_times: int = 0
    """Rows that were left out: 1e9 ns and more, the time of another one, or far from the run."""
    n_bad_pointings: int = 0
    """Directions that are no numbers, beyond the zenith, or a jump there and back."""

    @property
    def seconds(self) -> Floats:
        """Return the times as seconds since the first one."""
        return seconds_since(self.time_s, self.time_ns, self.time_s[:1])

    @property
    def spacing_s(self) -> float:
        """Return the usual time between samples; NaN for fewer than two."""
        return float(np.median(np.diff(self.seconds))) if len(self.time_s) > 1 else float("nan")


def seconds_since(time_s: NDArray, time_ns: NDArray, origin_s: NDArray) -> Floats:
    """Return times as seconds since a whole second, exact to the ns for the length of a run."""
    whole = np.asarray(time_s, dtype=np.int64)
    first = origin_s[0] if len(origin_s) else 0
    return (whole - first).astype(np.float64) + 1e-9 * np.asarray(time_ns, dtype=np.int64)


def read_housekeeping(file: "Dl0File | Housekeeping") -> Housekeeping:
    """Return the housekeeping of a DL0 file (0601); what was read already comes back as it is.

    Rows without a time, an hour and more off the run, and repeated ones are left out; directions
    that cannot be are made NaN. Both are counted.

    Raises
    ------
    AstriError
        When a column is missing or cannot be read.
    """
    if isinstance(file, Housekeeping):
        return file
    read = file.table.read
    time_s = read("TIME_S").astype(np.int64)
    time_ns = read("TIME_NS").astype(np.int64)
    order = np.argsort(time_s * NS + time_ns, kind="stable")
    first = np.diff(time_s[order] * NS + time_ns[order], prepend=-1) != 0
    middle, reach = (
        (file.run.stop_s + file.run.start_s) / 2,
        (file.run.stop_s - file.run.start_s) / 2,
    )
    near = np.abs(time_s[order] - middle) <= reach + BEYOND_S
    keep = order[first & near & (time_ns[order] < NS)]
    time_s, time_ns = time_s[keep], time_ns[keep]
    alt = read("ALT").astype(np.float64)[keep]
    az = read("AZ").astype(np.float64)[keep]
    bad = _absurd(seconds_since(time_s, time_ns, time_s[:1]), alt, az)
    return Housekeeping(
        tel_id=int(file.tel_id),
        time_s=time_s,
        time_ns=time_ns,
        alt=np.where(bad, np.nan, alt),
        az=np.where(bad, np.nan, az),
        n_triggers=read("NTRIG").astype(np.int64)[keep],
        n_events=read("NEVENTS").astype(np.int64)[keep],
        dead_time_s=1e-9 * read("DEADTIME").astype(np.float64)[keep],
        temperature=_or_nan(file, "CAMTEMP")[keep],
        voltage=_or_nan(file, "HV")[keep],
        status=read("STATUS").astype(np.uint16)[keep],
        n_bad_times=len(order) - len(keep),
        n_bad_pointings=int(bad.sum()),
    )


def _or_nan(file: "Dl0File", name: str) -> Floats:
    """Return a column that only pictures need, NaN where the file does not have it."""
    if name in file.table.columns:
        return file.table.read(name).astype(np.float64)
    return np.full(file.table.n_rows, np.nan)


def _absurd(seconds: Floats, alt: Floats, az: Floats) -> NDArray[np.bool_]:
    """Return the samples whose direction cannot be."""
    from astri_gpu.kernels.coordinates import angular_separation

    bad = ~(np.isfinite(alt) & np.isfinite(az))
    with np.errstate(invalid="ignore"):
        bad |= (np.abs(alt) > 90.0) | (np.abs(az) > MAX_AZ_DEG)
    left = np.flatnonzero(~bad)
    if len(left) < 3:
        return bad
    time, lon, lat = seconds[left], az[left], alt[left]
    step = angular_separation(lon[:-1], lat[:-1], lon[1:], lat[1:])
    fast = step > MAX_SPEED_DEG_S * np.diff(time)
    across = angular_separation(lon[:-2], lat[:-2], lon[2:], lat[2:])
    spike = fast[:-1] & fast[1:] & (across <= MAX_SPEED_DEG_S * (time[2:] - time[:-2]))
    bad[left[1:-1][spike]] = True
    return bad
