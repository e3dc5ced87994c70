"""Times of packets: what is wrong with them, counted."""

from typing import Any

import numpy as np
import numpy.typing as npt

from astri_gpu.packets.account import Account

__all__ = ["NS_PER_S", "Times"]

NS_PER_S = 1_000_000_000
BACKWARDS_NS = 1000  # clocks jitter by less; a clock that is set back jumps by more
CUT = 1 << 24  # nanoseconds that somebody has stored in 24 bits stay below
ENOUGH = 100  # events of which one would have more nanoseconds than that (chance: 1e-177)


class Times:
    """Looks at the times of the packets of one file, in their order.

    Parameters
    ----------
    max_gap_s
        A larger step is counted.
    start_s, stop_s
        Times before or after are counted.
    """

    def __init__(self, max_gap_s: float, start_s: float, stop_s: float) -> None:
        self._max_gap_ns = round(max_gap_s * NS_PER_S)
        self._start_s, self._stop_s = start_s, stop_s
        self._last: int | None = None
        self._backwards = self._gaps = self._outside = self._n_events = 0
        self._most_ns = -1

    def add(
        self,
        seconds: npt.NDArray[Any],
        nanoseconds: npt.NDArray[Any],
        in_order: npt.NDArray[np.bool_],
        event: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """Count what is wrong with the times of further packets.

        Parameters
        ----------
        seconds, nanoseconds : (packet,)
            As they are in the packets.
        in_order : (packet,)
            Whether the packet has a higher number than all before it; only such are compared with
            the one before.
        event : (packet,)
            Whether it is a triggered event.

        Returns
        -------
        (packet,)
            Whether the nanoseconds are less than a second.
        """
        seconds, nanoseconds = seconds.astype(np.int64), nanoseconds.astype(np.int64)
        usable = (nanoseconds >= 0) & (nanoseconds < NS_PER_S)
        self._outside += int(
            np.sum(usable & ((seconds < self._start_s) | (seconds > self._stop_s)))
        )
        times = (seconds * NS_PER_S + nanoseconds)[usable & in_order]
        if len(times):
            steps = np.diff(times, prepend=times[0] if self._last is None else self._last)
            self._backwards += int(np.sum(steps < -BACKWARDS_NS))
            self._gaps += int(np.sum(steps > self._max_gap_ns))
            self._last = int(times[-1])
        events = nanoseconds[usable & event]
        if len(events):
            self._n_events += len(events)
            self._most_ns = max(self._most_ns, int(events.max()))
        return usable

    def settle(self, account: Account) -> None:
        """Write the counts into the account of the file."""
        account.backwards = self._backwards
        account.gaps = self._gaps
        account.outside = self._outside
        account.truncated_nanoseconds = self._n_events >= ENOUGH and self._most_ns < CUT
