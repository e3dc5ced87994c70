"""Dead time of telescopes and of the array, from counters and from the times of events.

A telescope that reads out an event is blind for a dead time tau, and triggers in it do not prolong
it. Its housekeeping counts triggers, events and the blind time itself. Three measures of the share
of time that is lost, which have to agree:

* the blind time over the time (`share`), exact: the one that is used;
* triggers without event over triggers (`share_of_triggers`): triggers of showers are a Poisson
  process, which samples the time evenly, so they see the same share; the error is binomial, plus
  that of regular calibration triggers, whose share may differ;
* events times the shortest interval between two of them over the time (`interval_share`): an upper
  limit that comes close, for of n intervals at random times with the rate R the shortest exceeds
  tau by 1/(n R) on average.

**The array.** An array event with images in m of the telescopes is lost when all, or all but one,
of the m are blind. If they were blind independently, each for the share d, events of two images
would lose 2 d and those of three or more some 3 d^2 of their number. They are not independent: the
telescopes that saw one shower are blind together for the same tau (light reaches them within 3 us),
and a shower within that time loses all of its images, which makes d for events of any multiplicity.
Both limits lie around the mean share of the telescopes, which stands for the array here; at 100 Hz
and 10 us d is 0.1 %, and the choice between them is one of less than that. GADF takes the result as
LIVETIME = ONTIME (1 - d).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.calibration.housekeeping import Housekeeping, read_housekeeping

if TYPE_CHECKING:
    from astri_gpu.dl0.files import Dl0File

__all__ = ["DeadTime", "array_dead_time", "dead_time_share", "disagreements", "interval_share"]

SIGMAS = 5.0
TOLERANCE = 0.1
"""Relative, of the two shares that are exact."""
NS = 1_000_000_000


class DeadTime(NamedTuple):
    """Dead time of one telescope between its first and last sample; NaN where unknown."""

    tel_id: int
    share: float
    """Of the time, from the counter of blind time."""
    share_of_triggers: float
    share_error: float
    """Statistical, of `share_of_triggers`."""
    seconds: float
    """That the counters tell of: without those in which a counter was reset."""
    n_triggers: int
    n_events: int
    n_resets: int
    """Intervals of samples in which a counter went back, or blind time exceeded the time."""

    @property
    def livetime_s(self) -> float:
        """Return the time in which the telescope could see."""
        return self.seconds * (1.0 - self.share)


def dead_time_share(
    hk: "Dl0File | Housekeeping", intervals: NDArray[np.float64] | None = None
) -> DeadTime:
    """Return the dead time of a telescope from the counters of its housekeeping.

    Counters run since the start of the run. Where one goes back (the camera was started again), or
    the blind time grows by more than the time, the interval between the two samples tells nothing:
    it is left out and counted.

    Parameters
    ----------
    hk
        DL0 file of housekeeping, or what `read_housekeeping` made of it.
    intervals
        (interval, 2), UTC seconds since 2020-01-01: only what lies between two samples in the same
        one counts. None for everything.

    Raises
    ------
    AstriError
        When a column is missing or cannot be read.
    """
    samples = read_housekeeping(hk)
    time = samples.seconds
    width = np.diff(time)
    triggers, events = np.diff(samples.n_triggers), np.diff(samples.n_events)
    dead = np.diff(samples.dead_time_s)
    # The counter of blind time and the clock may be read some time apart.
    sound = (triggers >= 0) & (events >= 0) & (dead >= 0) & (dead <= 1.01 * width)
    chosen = np.ones(len(width), dtype=bool)
    if intervals is not None:
        start = samples.time_s[:1].astype(np.float64)
        chosen[:] = False
        for first, last in np.asarray(intervals, dtype=np.float64).reshape(-1, 2):
            chosen |= (time[:-1] >= first - start) & (time[1:] <= last - start)
    use = sound & chosen
    seconds, lost = float(width[use].sum()), float(dead[use].sum())
    n_triggers, n_events = int(triggers[use].sum()), int(events[use].sum())
    of_triggers = error = float("nan")
    if n_triggers > 0:
        of_triggers = 1.0 - n_events / n_triggers
        error = float(np.sqrt(max(n_triggers - n_events, 1) * n_events / n_triggers) / n_triggers)
    return DeadTime(
        tel_id=samples.tel_id,
        share=min(lost / seconds, 1.0) if seconds > 0 else float("nan"),
        share_of_triggers=of_triggers,
        share_error=error,
        seconds=seconds,
        n_triggers=n_triggers,
        n_events=n_events,
        n_resets=int((~sound & chosen).sum()),
    )


def interval_share(time_s: NDArray[np.integer], time_ns: NDArray[np.integer]) -> float:
    """Return the share of time lost as the shortest interval between events says, or NaN.

    Parameters
    ----------
    time_s, time_ns
        Of all events of a telescope, calibration events with the others, (event,); times of
        1e9 ns and more are left out.
    """
    ns = np.asarray(time_ns, dtype=np.int64)
    time = np.sort(np.asarray(time_s, dtype=np.int64)[ns < NS] * NS + ns[ns < NS])
    if len(time) < 3 or time[-1] == time[0]:
        return float("nan")
    shortest = int(np.diff(time).min())
    return (len(time) - 1) * shortest / int(time[-1] - time[0])


def disagreements(found: DeadTime, of_intervals: float = float("nan")) -> list[str]:
    """Return a sentence for each measure of the dead time that speaks against the others.

    Parameters
    ----------
    found
        From the counters.
    of_intervals
        Of `interval_share`; NaN leaves it out.
    """
    said = []
    if found.n_resets:
        said.append(
            f"The counters of telescope {found.tel_id} went back in {found.n_resets} intervals of "
            f"housekeeping: its dead time is that of the other {found.seconds:.0f} s."
        )
    far = abs(found.share_of_triggers - found.share)
    if far > SIGMAS * found.share_error + TOLERANCE * found.share:
        said.append(
            f"Telescope {found.tel_id} lost {100 * found.share_of_triggers:.3g} % of its triggers "
            f"and was blind for {100 * found.share:.3g} % of the time by its counters, which "
            "should be the same: one of them is wrong."
        )
    if found.share > (1 + TOLERANCE) * of_intervals:
        said.append(
            f"Telescope {found.tel_id} was blind for {100 * found.share:.3g} % of the time by its "
            f"counter, and events follow each other as if it were {100 * of_intervals:.3g} % at "
            "most: the counter is wrong, or the dead time is not always the same."
        )
    return said


def array_dead_time(found: Iterable[DeadTime]) -> float:
    """Return the share of time lost by the array: the mean of its telescopes (see the module).

    Telescopes without a share are left out; NaN if none has one.
    """
    shares = [each.share for each in found if np.isfinite(each.share)]
    return float(np.mean(shares)) if shares else float("nan")
