"""Telescope events (hits) of a run: their times from DL0 files, and the way of light.

Of the files only the columns TIME_S, TIME_NS and EVT_CTR are read. Times become integer nanoseconds
since a whole second before the run.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.dl0.files import Dl0File
from astri_gpu.dl3.sky import Site, to_altaz
from astri_gpu.errors import AstriError
from astri_gpu.kernels.coordinates import altaz_to_cartesian

__all__ = [
    "COLUMNS",
    "NS",
    "Hits",
    "Track",
    "flight_time",
    "read_hits",
    "track_of",
    "usable_hits",
]

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

COLUMNS = ("TIME_S", "TIME_NS", "EVT_CTR")
NS = 1_000_000_000
SPEED_OF_LIGHT = 0.299_792_458  # m/ns
OUTSIDE_S = 60  # a clock so far from the run says nothing
TRACK_STEP_S = 10.0  # the way of light of 1 km changes by 0.24 ns/s
TRUNCATED = 2**24  # ns; clocks that lose the upper bits of TIME_NS never reach it
MANY = 100  # hits; by chance so many never lie below it (1.7 % of a second)
BAD_NS, OUTSIDE = 1, 2  # see seb0_file.REASONS


@dataclass(frozen=True)
class Hits:
    """The hits of one telescope in the order of its file, those with a usable time."""

    tel_id: int
    time_ns: Ints
    """By the clock of the telescope, since `Track.origin_s`; (hit,)."""
    counter: Ints
    """EVT_CTR"""
    row: Ints
    """In the file."""
    rejected_row: Ints
    rejected_reason: Ints
    """See `astri_gpu.event_building.seb0_file.REASONS`; (rejected,)."""


@dataclass(frozen=True)
class Track:
    """Where the array looked at during the run."""

    origin_s: int
    """Times are counted from here; UTC s since 2020-01-01."""
    start_s: float
    stop_s: float
    ra_deg: float
    dec_deg: float
    site: Site

    @property
    def duration_ns(self) -> int:
        """Return the time from the origin to the end of the run."""
        return max(1, round((self.stop_s - self.origin_s) * 1e9))


def track_of(file: Dl0File) -> Track:
    """Return the track that the header of a file describes."""
    run = file.run
    if not run.stop_s > run.start_s:
        raise AstriError(
            f"The run of {file.path} ends at {run.stop_s} s (TSTOP) and starts at {run.start_s} s "
            "(TSTART): the header is wrong, make the file again from the packets."
        )
    return Track(
        math.floor(run.start_s),
        run.start_s,
        run.stop_s,
        run.ra_pnt_deg,
        run.dec_pnt_deg,
        run.site,
    )


def read_hits(file: Dl0File, track: Track) -> Hits:
    """Return the hits of a file of events.

    Parameters
    ----------
    file
        DL0 file of kind SCI.
    track
        Of its run; times more than a minute outside are not usable.
    """
    seconds, nanoseconds, counter = (file.table.read(name) for name in COLUMNS)
    hits = usable_hits(file.tel_id, seconds, nanoseconds, counter, track)
    if len(hits.row) >= MANY and int(nanoseconds.max()) < TRUNCATED:
        logger.warning(
            "TIME_NS of telescope %d never exceeds 2^24 ns in its %d events: it is truncated, and "
            "coincidences of this telescope are not found (%s)",
            file.tel_id,
            len(nanoseconds),
            file.path.name,
        )
    return hits


def usable_hits(
    tel_id: int, seconds: ArrayLike, nanoseconds: ArrayLike, counter: ArrayLike, track: Track
) -> Hits:
    """Return hits with times as integers, without those that have no usable time."""
    seconds = np.asarray(seconds).astype(np.int64)
    nanoseconds = np.asarray(nanoseconds).astype(np.int64)
    reason = np.zeros(len(seconds), np.int64)
    early, late = math.floor(track.start_s) - OUTSIDE_S, math.ceil(track.stop_s) + OUTSIDE_S
    reason[(seconds < early) | (seconds > late)] = OUTSIDE
    reason[(nanoseconds < 0) | (nanoseconds >= NS)] = BAD_NS
    (row,) = np.nonzero(reason == 0)
    (bad,) = np.nonzero(reason)
    return Hits(
        tel_id=tel_id,
        time_ns=(seconds[row] - track.origin_s) * NS + nanoseconds[row],
        counter=np.asarray(counter)[row].astype(np.int64),
        row=row.astype(np.int64),
        rejected_row=bad.astype(np.int64),
        rejected_reason=reason[bad],
    )


def flight_time(position: Sequence[float], time_ns: Ints, track: Track) -> Ints:
    """Return what is added to the times of a telescope, ns, as if all stood at one place.

    A plane front from the direction n reaches the telescope at r earlier by r.n / c than the
    reference point: the telescope nearer to the source fires first. In 5 s the Earth turns by too
    little to see, so it is computed for every 10 s.

    Parameters
    ----------
    position
        x North, y West, z up; m.
    time_ns
        Since `Track.origin_s`; the clock's error does not matter.
    track
        Of the run.
    """
    n_steps = max(1, math.ceil((track.stop_s - track.origin_s) / TRACK_STEP_S))
    at = np.linspace(0.0, track.stop_s - track.origin_s, n_steps + 1)
    alt, az = to_altaz(track.ra_deg, track.dec_deg, track.origin_s + at, track.site)
    x, y, z = altaz_to_cartesian(alt, az)
    delay = (position[0] * x + position[1] * y + position[2] * z) / SPEED_OF_LIGHT
    return np.rint(np.interp(time_ns, 1e9 * at, delay)).astype(np.int64)
