"""Good time intervals of a run, and why time is not good.

The time of a telescope is good between two housekeeping samples that are both good and close to
each other, where neither its rate of events nor a stretch of lost packets speaks against it; that
of the array where enough telescopes are good. Times are whole nanoseconds inside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.calibration.housekeeping import (
    CLOCK,
    LID,
    SENSORS,
    TRACKING,
    Housekeeping,
    read_housekeeping,
)

if TYPE_CHECKING:
    from astri_gpu.dl0.files import Dl0File
    from astri_gpu.dl3.sky import Site

__all__ = [
    "GoodTime",
    "GoodTimeLimits",
    "NominalTrack",
    "Reason",
    "good_intervals",
    "packet_gaps",
]

NS = 1_000_000_000
Integers = NDArray[np.int64]
Spans = NDArray[np.int64]
"""(span, 2): start and stop in ns since 2020."""

STATUS = {
    TRACKING: "mount does not track",
    SENSORS: "sensors are off",
    LID: "lid is closed",
    CLOCK: "clock is not locked",
}
NO_HOUSEKEEPING, OFF_TRACK = "no housekeeping", "pointing off its track"
RATE, PACKETS = "rate of events", "packets lost"
MIN_BINS = 5  # of the rate, for a median
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class GoodTimeLimits:
    """When time is good; defaults are our choice."""

    min_telescopes: int | None = None
    """That have to be good at the same time; None = all of them."""
    max_gap_s: float = 5.0
    """Between housekeeping samples."""
    max_offset_deg: float = 0.1
    """Of the pointing from the nominal track: half a pixel."""
    rate_bin_s: float = 10.0
    rate_sigma: float = 6.0
    """Robust standard deviations of the counts in such a time from their median."""
    rate_share: float = 0.2
    """Least deviation from the median that counts: rates follow the zenith angle and the sky."""
    max_lost_packets: int = 10
    """Packets lost in one stretch; fewer are single events, not a time without any."""


class NominalTrack(NamedTuple):
    """Where the array was told to point: a place on the sky, ICRS, deg, from a site."""

    ra_deg: float
    dec_deg: float
    site: "Site"

    def offset_deg(self, samples: Housekeeping) -> NDArray[np.float64]:
        """Return how far a telescope points from there at each sample, deg; NaN if unknown."""
        from astri_gpu.dl3.sky import to_altaz
        from astri_gpu.kernels.coordinates import angular_separation

        if not len(samples.time_s):
            return np.empty(0)
        time = samples.time_s + 1e-9 * samples.time_ns
        nominal = to_altaz(self.ra_deg, self.dec_deg, time, self.site)
        off: NDArray[np.float64] = angular_separation(
            nominal.az, nominal.alt, samples.az, samples.alt
        )
        return off


class Reason(NamedTuple):
    """Time of a telescope that is not good; reasons may overlap in time."""

    tel_id: int
    what: str
    seconds: float
    n_stretches: int

    def __str__(self) -> str:
        return f"telescope {self.tel_id}: {self.what} for {self.seconds:.1f} s"


@dataclass(frozen=True)
class GoodTime:
    """Good time of the array, intervals in order, (interval,) each."""

    start_s: Integers
    """Unix seconds."""
    start_ns: Integers
    """To add."""
    stop_s: Integers
    stop_ns: Integers
    reasons: tuple[Reason, ...]
    """Why time of telescopes is not good, the longest first."""
    run_s: float
    """Length of the run."""

    @property
    def intervals(self) -> NDArray[np.float64]:
        """Return the intervals as UTC seconds since 2020-01-01, (interval, 2)."""
        from astri_gpu.dl3.sky import REFERENCE_UNIX_S

        columns = (self.start_s, self.start_ns), (self.stop_s, self.stop_ns)
        return np.stack([s - REFERENCE_UNIX_S + 1e-9 * ns for s, ns in columns], axis=1)

    @property
    def seconds(self) -> float:
        """Return the summed length of the intervals."""
        whole, rest = self.stop_s - self.start_s, self.stop_ns - self.start_ns
        return float(whole.sum()) + 1e-9 * float(rest.sum())


def good_intervals(
    hks: "Sequence[Dl0File | Housekeeping]",
    start_s: float,
    stop_s: float,
    *,
    track: NominalTrack | None = None,
    event_times: Mapping[int, tuple[NDArray[Any], NDArray[Any]]] | None = None,
    gaps: Mapping[int, tuple[Spans, Integers]] | None = None,
    limits: GoodTimeLimits = GoodTimeLimits(),
) -> GoodTime:
    """Return the good time of a run and the reasons against the rest.

    Parameters
    ----------
    hks
        Housekeeping of each telescope of the run. A telescope without it has to be left out here,
        and said, by who calls.
    start_s, stop_s
        Of the run, UTC seconds since 2020-01-01; nothing outside is good.
    track
        What the pointing is compared with; None leaves this out.
    event_times
        Telescope -> TIME_S and TIME_NS of its events, (event,).
    gaps
        Telescope -> what `packet_gaps` found.
    limits
        When time is good.
    """
    from astri_gpu.dl3.sky import REFERENCE_UNIX_S

    run = np.rint(np.array([start_s, stop_s]) * NS).astype(np.int64)
    reasons: list[Reason] = []
    good: list[Spans] = []
    for hk in hks:
        samples = read_housekeeping(hk)
        tel_id = samples.tel_id
        bad = _bad_samples(samples, track, run, limits)
        if event_times and tel_id in event_times:
            bad[RATE] = _odd_rates(*event_times[tel_id], run, limits)
        if gaps and tel_id in gaps:
            spans, n_lost = gaps[tel_id]
            bad[PACKETS] = _clipped(spans[n_lost > limits.max_lost_packets], run)
        for what, spans in bad.items():
            joined = _joined(spans)
            if len(joined):
                length = float(np.diff(joined, axis=1).sum()) / NS
                reasons.append(Reason(tel_id, what, length, len(joined)))
        good.append(_complement(_joined(np.concatenate(list(bad.values()))), run))
    needed = len(good) if limits.min_telescopes is None else limits.min_telescopes
    found = _covered(good, max(needed, 1)) + REFERENCE_UNIX_S * NS
    return GoodTime(
        start_s=found[:, 0] // NS,
        start_ns=found[:, 0] % NS,
        stop_s=found[:, 1] // NS,
        stop_ns=found[:, 1] % NS,
        reasons=tuple(sorted(reasons, key=lambda entry: -entry.seconds)),
        run_s=float(run[1] - run[0]) / NS,
    )


def packet_gaps(files: "Iterable[Dl0File]") -> tuple[Spans, Integers]:
    """Return times around missing packets of a telescope, and how many are missing in each.

    Parameters
    ----------
    files
        All DL0 files of one telescope: the packets of all types are counted together.

    Returns
    -------
    spans : (gap, 2), ns since 2020-01-01 UTC: the packets before and behind the gap
    n_lost : (gap,)

    Raises
    ------
    AstriError
        When a column is missing or cannot be read.
    """
    columns: dict[str, list[NDArray[Any]]] = {"PKT_NUM": [], "TIME_S": [], "TIME_NS": []}
    for file in files:
        for name, parts in columns.items():
            parts.append(file.table.read(name).astype(np.int64))
    if not columns["PKT_NUM"]:
        return np.empty((0, 2), np.int64), np.empty(0, np.int64)
    number, time_s, time_ns = (np.concatenate(parts) for parts in columns.values())
    usable = np.flatnonzero(time_ns < NS)
    order = usable[np.argsort(number[usable], kind="stable")]
    time = time_s[order] * NS + time_ns[order]
    lost = np.diff(number[order]) - 1
    # A packet without a usable time is there all the same.
    for place in np.setdiff1d(np.arange(len(number)), usable):
        gap = np.searchsorted(number[order], number[place]) - 1
        if 0 <= gap < len(lost) and lost[gap] > 0:
            lost[gap] -= 1
    found = np.flatnonzero(lost > 0)
    spans = np.sort(np.stack([time[found], time[found + 1]], axis=1), axis=1)
    return spans, lost[found]


def _bad_samples(
    samples: Housekeeping, track: NominalTrack | None, run: Integers, limits: GoodTimeLimits
) -> dict[str, Spans]:
    """Return the spans (ns) that samples speak against: up to the good ones around them."""
    time = samples.time_s * NS + samples.time_ns
    inside = (time >= run[0]) & (time <= run[1])
    edges = np.concatenate([run[:1], time[inside], run[1:]])
    steps = np.stack([edges[:-1], edges[1:]], axis=1)
    found = {NO_HOUSEKEEPING: steps[np.diff(edges) > limits.max_gap_s * NS]}
    wrong = {text: (samples.status & bit) == 0 for bit, text in STATUS.items()}
    if track is not None:
        # No direction is off as well.
        wrong[OFF_TRACK] = ~(track.offset_deg(samples) <= limits.max_offset_deg)
    for text, flag in wrong.items():
        at_edge = np.concatenate([[False], flag[inside], [False]])
        found[text] = steps[at_edge[:-1] | at_edge[1:]]
    return found


def _odd_rates(
    time_s: NDArray[Any], time_ns: NDArray[Any], run: Integers, limits: GoodTimeLimits
) -> Spans:
    """Return the bins (ns) of the run whose counts are far from their median."""
    n_bins = int((run[1] - run[0]) / (limits.rate_bin_s * NS))
    if n_bins < MIN_BINS:
        return np.empty((0, 2), dtype=np.int64)
    edges = np.rint(np.linspace(run[0], run[1], n_bins + 1)).astype(np.int64)
    time = np.asarray(time_s, dtype=np.int64) * NS + np.asarray(time_ns, dtype=np.int64)
    counts = np.histogram(time, edges)[0].astype(np.float64)
    middle = float(np.median(counts))
    spread = max(MAD_TO_SIGMA * float(np.median(np.abs(counts - middle))), np.sqrt(middle))
    limit = max(limits.rate_sigma * spread, limits.rate_share * middle)
    odd = np.abs(counts - middle) > limit
    # A telescope with a low rate may well count nothing in a bin; one with a high rate may not.
    odd |= (counts == 0) & (middle > limits.rate_sigma**2)
    return np.stack([edges[:-1], edges[1:]], axis=1)[odd]


def _clipped(spans: Spans, run: Integers) -> Spans:
    inside = np.clip(spans, run[0], run[1])
    return inside[inside[:, 1] > inside[:, 0]]


def _joined(spans: Spans) -> Spans:
    """Return spans in order, those that touch or overlap made one."""
    return _covered([spans], 1)


def _complement(spans: Spans, run: Integers) -> Spans:
    """Return what joined spans leave of the run."""
    edges = np.concatenate([run[:1], spans.ravel(), run[1:]]).reshape(-1, 2)
    return edges[edges[:, 1] > edges[:, 0]]


def _covered(parts: Sequence[Spans], needed: int) -> Spans:
    """Return the times that at least `needed` spans cover, as spans in order, none touching."""
    if not parts or not sum(map(len, parts)):
        return np.empty((0, 2), dtype=np.int64)
    every = np.concatenate(parts)
    edges, place = np.unique(every, return_inverse=True)
    # Not np.add.at, which reads beyond a value that is broadcast (NumPy 2.4).
    begun, ended = place.reshape(every.shape).T
    change = np.bincount(begun, minlength=len(edges)) - np.bincount(ended, minlength=len(edges))
    enough = np.cumsum(change) >= needed
    turns = np.diff(enough.astype(np.int8), prepend=0)
    return np.stack([edges[turns > 0], edges[turns < 0]], axis=1)
