"""Readout of the telescopes: dead time, counters, clocks, and packets of what is left."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from astri_gpu.observing.clocks import Clocks
from astri_gpu.observing.interleaved import Interleaved
from astri_gpu.observing.plan import RunPlan
from astri_gpu.observing.raw_file import PacketFile
from astri_gpu.observing.triggers import SHOWER, Triggers, joined
from astri_gpu.simulation.production import DeadTime
from astri_gpu.simulation.writer import NS

__all__ = ["Readout"]

LATEST_NS = 100_000
"""Light of a shower is at all telescopes so long after its front passes the core, and not before
it by more either: what a block triggers later may belong behind triggers of the next block."""
TOPOLOGICAL, FORCED = 1, 2
Ints = NDArray[np.int64]


@dataclass
class _Counters:
    """Of a telescope, since the start of the run."""

    n_triggers: int = 0
    n_events: int = 0
    last_ns: int = -(1 << 62)
    """Of the last event that was read out."""
    truth: list[tuple[Ints, Ints, Ints]] = field(default_factory=list)
    """(EVT_CTR, EVENT, TRUE_NS) of the science packets."""


class Readout:
    """Takes triggers block by block and writes packets.

    A trigger while a telescope is dead is lost, and counted; it does not prolong the dead time.

    Parameters
    ----------
    plan
        Of the run.
    clocks
        Of the telescopes.
    interleaved
        Housekeeping and variance images.
    files
        Of the telescopes, open.
    dead_time_us
        After every event.
    """

    def __init__(
        self,
        plan: RunPlan,
        clocks: Clocks,
        interleaved: Interleaved,
        files: Sequence[PacketFile],
        dead_time_us: float,
    ) -> None:
        self._plan, self._clocks, self._interleaved = plan, clocks, interleaved
        self._files = files
        self._dead_time_ns = round(dead_time_us * 1e3)
        self._dead_time = DeadTime(len(files), dead_time_us)
        self._counters = [_Counters() for _ in files]
        self._packets = [0] * len(files)
        self._waiting: list[Triggers] = []
        self._done_ns = 0
        self.n_sci = self.n_cal = self.n_lost = 0

    def add(self, triggers: Sequence[Triggers], until_s: float, last: bool) -> None:
        """Write the packets up to some time.

        Parameters
        ----------
        triggers
            New ones, in any order; none of them before the time of the last call.
        until_s
            Everything before it has been given, but for light on its way.
        last
            The run ends there.
        """
        until_ns = round(until_s * NS)
        # Housekeeping at the end of the run closes the last interval.
        stop_ns = until_ns + 1 if last else max(self._done_ns, until_ns - LATEST_NS)
        waiting = [*self._waiting, *triggers]
        self._waiting = []
        ready: Triggers | None = None
        if waiting:
            found = joined(waiting)
            late = found.time_ns >= stop_ns
            if late.any() and not last:
                self._waiting = [found.take(late)]
            # Light that is there before the start or after the end of the run is not read out.
            rows = np.flatnonzero(~late & (found.time_ns >= 0))
            rows = rows[np.lexsort((found.time_ns[rows], found.tel[rows]))]
            ready = found.take(rows)
        for tel in range(len(self._files)):
            self._write(tel, ready, self._done_ns, stop_ns)
        self._done_ns = stop_ns

    def truth(self) -> tuple[Ints, ...]:
        """Return the rows TEL, EVT_CTR, EVENT, TRUE_NS of the science packets."""
        tel_id = self._plan.layout.tel_id.astype(np.int64)
        rows = [
            (np.full(len(part[0]), tel), *part)
            for tel, own in zip(tel_id, self._counters, strict=True)
            for part in own.truth
        ]
        if not rows:
            return tuple(np.empty(0, np.int64) for _ in range(4))
        return tuple(np.concatenate(column) for column in zip(*rows, strict=True))

    def _write(self, tel: int, ready: Triggers | None, start_ns: int, stop_ns: int) -> None:
        """Write the packets of a telescope; triggers are in the order of telescope and time."""
        own, parts = self._counters[tel], {}
        number = np.empty(0, np.int64)
        triggered = taken = number
        if ready is not None:
            low, high = np.searchsorted(ready.tel, [tel, tel + 1])
            triggered = ready.time_ns[low:high]
            awake = self._dead_time.awake(ready.tel[low:high], triggered.astype(np.float64))
            events = np.flatnonzero(awake) + low
            taken = ready.time_ns[events]
            number = own.n_events + np.arange(len(events))
            science = ready.event_type[events] == SHOWER
            for kind, chosen, trigger_type in (
                ("SCI", science, TOPOLOGICAL),
                ("CAL", ~science, FORCED),
            ):
                parts[kind] = self._event_columns(ready, events[chosen], number[chosen])
                parts[kind][1]["trigger_type"] = trigger_type
            rows = events[science]
            own.truth.append((number[science], ready.event[rows], ready.time_ns[rows]))
            self.n_sci += len(rows)
            self.n_cal += len(events) - len(rows)
            self.n_lost += len(triggered) - len(events)
        parts["HK"] = self._housekeeping(tel, triggered, taken, start_ns, stop_ns)
        parts["VAR"] = self._interleaved.variances(tel, start_ns, stop_ns)
        for time_ns, columns in parts.values():
            columns.update(self._read(tel, time_ns))
        own.n_triggers += len(triggered)
        own.n_events += len(taken)
        own.last_ns = int(taken[-1]) if len(taken) else own.last_ns
        self._files[tel].append(parts)

    def _event_columns(self, ready: Triggers, rows: Ints, number: Ints) -> tuple[Ints, dict]:
        pixels = ready.pixels[rows]
        return ready.time_ns[rows], {
            "event_number": number,
            "event_type": ready.event_type[rows],
            "n_trigger_pixels": pixels.sum(axis=1),
            "trigger_pixel": pixels,
            "adc": ready.adc[rows],
        }

    def _housekeeping(
        self, tel: int, triggered: Ints, taken: Ints, start_ns: int, stop_ns: int
    ) -> tuple[Ints, dict]:
        own = self._counters[tel]
        time_ns = self._interleaved.housekeeping_times(start_ns, stop_ns)
        n_new = np.searchsorted(taken, time_ns, side="right")
        last = np.concatenate([[own.last_ns], taken])[n_new]
        n_events = own.n_events + n_new
        # The dead time of the last event may not be over.
        still = np.clip(last + self._dead_time_ns - time_ns, 0, None)
        return time_ns, {
            **self._interleaved.housekeeping(tel, time_ns),
            "n_triggers": own.n_triggers + np.searchsorted(triggered, time_ns, side="right"),
            "n_events": n_events,
            "dead_time_ns": n_events * self._dead_time_ns - still,
        }

    def _read(self, tel: int, time_ns: Ints) -> dict[str, Ints]:
        """Return the time fields: UTC by the clock of the telescope."""
        number = self._packets[tel] + np.arange(len(time_ns))
        self._packets[tel] += len(time_ns)
        reading = self._plan.start_s * NS + self._clocks.read(tel, time_ns, number)
        seconds, rest = np.divmod(reading, NS)
        descriptor = self._plan.descriptor
        return {descriptor.seconds: seconds, descriptor.nanoseconds: rest}
