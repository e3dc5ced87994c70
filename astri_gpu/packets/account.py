"""What was in a packet file: counts per type, and bytes that add up."""

from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from astri_gpu.errors import AstriError
from astri_gpu.packets.encode import SEQUENCE_MODULUS

__all__ = ["REASONS", "Account", "Numbers", "Sequence"]

CHECKSUM = "checksum"
HEADER = "header"
UNKNOWN = "unknown type"
TRUNCATED = "truncated"
UNREADABLE = "unreadable"
IDENTICAL = "repeated"
DIFFERING = "number used twice"
OTHER_RUN = "another run"
OTHER_TELESCOPE = "another telescope"
# Why bytes are quarantined, with what it means.
REASONS = {
    CHECKSUM: "packet{s} with a wrong checksum",
    HEADER: "packet{s} with a damaged header",
    UNKNOWN: "packet{s} of an unknown type",
    TRUNCATED: "packet{s} without an end",
    UNREADABLE: "stretch{es} without packets",
    IDENTICAL: "packet{s} repeated",
    DIFFERING: "packet{s} with the number of an earlier one but other contents",
    OTHER_RUN: "packet{s} of another run",
    OTHER_TELESCOPE: "packet{s} of another telescope",
}


@dataclass
class Account:
    """Counts of one packet file.

    Everything that was found is either kept or quarantined, so `check` can prove that nothing was
    lost.
    """

    n_bytes: int = 0
    """Of the file, as far as it was read."""
    kept: Counter[str] = field(default_factory=Counter)
    """Packets by kind."""
    kept_bytes: Counter[str] = field(default_factory=Counter)
    quarantined: dict[str, Counter[str]] = field(default_factory=dict)
    """Pieces by reason and kind ("" where nobody can tell it)."""
    quarantined_bytes: Counter[str] = field(default_factory=Counter)
    """By reason."""
    missing: Counter[str] = field(default_factory=Counter)
    """By kind: gaps in the count of the headers, which begins at 0 again after 16383."""
    n_missing: int = 0
    """Numbers below the highest one that no packet has, of all types."""
    out_of_order: Counter[str] = field(default_factory=Counter)
    """By kind: packets behind one with a higher number; they are kept, where they are."""
    bad_nanoseconds: Counter[str] = field(default_factory=Counter)
    """By kind: nanoseconds of 1e9 or more; kept, but their time is of no use."""
    backwards: int = 0
    """Packets earlier than the one before them, though their numbers are in order."""
    gaps: int = 0
    """Steps of time that are larger than they may be."""
    outside: int = 0
    """Packets with a time outside the run."""
    truncated_nanoseconds: bool = False
    """Whether no event has more than 24 bits of nanoseconds."""

    @property
    def n_kept(self) -> int:
        """Return the packets that were kept."""
        return self.kept.total()

    @property
    def n_quarantined(self) -> int:
        """Return the pieces that were quarantined."""
        return sum(counter.total() for counter in self.quarantined.values())

    def add_bad(self, reason: str, kind: str, n_bytes: int, *, joined: bool = False) -> None:
        """Count a piece that is quarantined; `joined` if it goes on the piece before."""
        self.quarantined_bytes[reason] += n_bytes
        if not joined:
            self.quarantined.setdefault(reason, Counter())[kind] += 1

    def check(self, where: str) -> None:
        """Raise an `AstriError` if bytes were lost or counted twice."""
        total = self.kept_bytes.total() + self.quarantined_bytes.total()
        if total != self.n_bytes:
            raise AstriError(
                f"Of {where} {self.n_bytes} bytes were read and {total} are accounted for: this is "
                "an error of astri_gpu, tell its authors."
            )

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        kinds = {
            kind: {
                "packets": self.kept[kind],
                "bytes": self.kept_bytes[kind],
                "missing": self.missing[kind],
                "out_of_order": self.out_of_order[kind],
                "bad_nanoseconds": self.bad_nanoseconds[kind],
                **{
                    reason.replace(" ", "_"): counter[kind]
                    for reason, counter in self.quarantined.items()
                    if counter[kind]
                },
            }
            for kind in self.missing | self.kept | self._quarantined_kinds()
        }
        return {
            "bytes": self.n_bytes,
            "bytes_kept": self.kept_bytes.total(),
            "bytes_quarantined": self.quarantined_bytes.total(),
            "packets": self.n_kept,
            "packets_missing": self.n_missing,
            "pieces_quarantined": self.n_quarantined,
            "quarantined": {
                reason: {"pieces": counter.total(), "bytes": self.quarantined_bytes[reason]}
                for reason, counter in self.quarantined.items()
            },
            "types": kinds,
            "times_backwards": self.backwards,
            "time_gaps": self.gaps,
            "times_outside_run": self.outside,
            "truncated_nanoseconds": self.truncated_nanoseconds,
        }

    def _quarantined_kinds(self) -> Counter[str]:
        kinds: Counter[str] = Counter()
        for counter in self.quarantined.values():
            kinds.update({kind: number for kind, number in counter.items() if kind})
        return kinds

    def warnings(self, max_gap_s: float) -> list[str]:
        """Return what somebody should know, each a part of a sentence with its number.

        Parameters
        ----------
        max_gap_s
            The largest step of time that was no gap.
        """
        texts = [
            f"{_said(counter.total(), REASONS[reason])} ({self.quarantined_bytes[reason]} bytes)"
            for reason, counter in self.quarantined.items()
        ]
        for number, text in (
            (self.n_missing, "packet{s} missing, by the numbers of the others"),
            (self.out_of_order.total(), "packet{s} out of order (kept)"),
            (
                self.bad_nanoseconds.total(),
                "packet{s} with 1e9 nanoseconds or more (kept; the time is of no use)",
            ),
            (self.backwards, "time{s} before the one of the packet before"),
            (self.gaps, f"step{{s}} of time of more than {max_gap_s:g} s"),
            (self.outside, "packet{s} with a time outside the run"),
        ):
            if number:
                texts.append(_said(number, text))
        if self.truncated_nanoseconds:
            texts.append(
                "no event has more than 16777215 ns (24 bits): its nanoseconds look cut off, so "
                "its stereo events will be wrong"
            )
        return texts


def _said(number: int, text: str) -> str:
    """Return a number with what it counts."""
    return f"{number} {text.format(s='' if number == 1 else 's', es='' if number == 1 else 'es')}"


class Numbers:
    """Packet numbers that have occurred, with a checksum of each packet.

    Numbers that follow each other share an entry, so a good file costs four bytes a packet.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []  # of runs of numbers, sorted
        self._runs: list[tuple[int, int]] = []  # of each: length, place of its first checksum
        self._checks = array("I")
        self._last: int | None = None  # place of the run that grows, in the lists
        self.highest = -1

    @property
    def n_missing(self) -> int:
        """Return how many numbers from 0 to the highest one have not occurred."""
        return max(0, self.highest + 1 - len(self._checks))

    @property
    def next(self) -> int:
        """Return the number that would follow the last one."""
        return -1 if self._last is None else self._starts[self._last] + self._runs[self._last][0]

    def extend(self, first: int, checks: npt.NDArray[np.uint32]) -> None:
        """Add numbers from `first` on, all higher than any before."""
        if first == self.next and first > self.highest:
            assert self._last is not None
            length, place = self._runs[self._last]
            self._runs[self._last] = length + len(checks), place
        else:
            self._starts.append(first)
            self._runs.append((len(checks), len(self._checks)))
            self._last = len(self._starts) - 1
        self._checks.extend(checks.tolist())
        self.highest = first + len(checks) - 1

    def add(self, number: int, check: int) -> str | None:
        """Add a number; None if it is new, else whether its packet is the same as before.

        Returns
        -------
        str or None
            The reason to quarantine it.
        """
        if number > self.highest:
            self.extend(number, np.array([check], np.uint32))
            return None
        place = bisect_right(self._starts, number) - 1
        if place >= 0:
            length, first = self._runs[place]
            if number < self._starts[place] + length:
                same = self._checks[first + number - self._starts[place]] == check
                return IDENTICAL if same else DIFFERING
        self._starts.insert(place + 1, number)
        self._runs.insert(place + 1, (1, len(self._checks)))
        if self._last is not None and self._last > place:
            self._last += 1
        self._checks.append(check)
        # The run that grew cannot grow further: its checksums would not lie side by side.
        self._last = place + 1
        return None


class Sequence:
    """The count of one type in the headers of its packets, which has 14 bits."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._lowest = self._highest = 0
        self._n = 0

    @property
    def n_missing(self) -> int:
        """Return how many counts between the lowest and the highest one have not occurred."""
        return max(0, self._highest - self._lowest + 1 - self._n) if self._n else 0

    def extend(self, counts: npt.NDArray[Any]) -> None:
        """Add counts in the order of the file; steps are taken for less than 8192."""
        counts = counts.astype(np.int64)
        if not len(counts):
            return
        if self._last is None:
            self._last = self._lowest = self._highest = int(counts[0])
        half = SEQUENCE_MODULUS // 2
        steps = np.diff(counts, prepend=self._last % SEQUENCE_MODULUS)
        places = self._last + np.cumsum((steps + half) % SEQUENCE_MODULUS - half)
        self._last = int(places[-1])
        self._lowest = min(self._lowest, int(places.min()))
        self._highest = max(self._highest, int(places.max()))
        self._n += len(counts)
