"""Reads packet files of any size, and loses no good packet to the bytes around it.

A good packet has the right header and checksum, and is of this run and telescope. One follows the
other in a good file; where none does, the next one is looked for at every byte. Everything else is
handed out too, with its place and the reason, so that it can be kept apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from astri_gpu.errors import AstriError
from astri_gpu.packets.account import (
    CHECKSUM,
    HEADER,
    OTHER_RUN,
    OTHER_TELESCOPE,
    TRUNCATED,
    UNKNOWN,
    UNREADABLE,
    Account,
    Numbers,
    Sequence,
)
from astri_gpu.packets.checksum import CHECKSUMS
from astri_gpu.packets.decode import sequence_counts
from astri_gpu.packets.descriptor import HEADER_BYTES, Descriptor, PacketType
from astri_gpu.packets.search import UNSEGMENTED, Headers
from astri_gpu.packets.times import Times

__all__ = ["Bad", "Block", "RawReader"]

BLOCK_BYTES = 4 << 20
EVENTS = "SCI"


@dataclass(frozen=True)
class Bad:
    """A stretch of a packet file that is no good packet of its run and telescope."""

    place: int
    """Of its first byte in the file."""
    data: memoryview
    """Its bytes; valid until the next block is asked for."""
    reason: str
    """See `account.REASONS`."""
    kind: str = ""
    """Of the packet, where it can be told."""
    joined: bool = False
    """Whether it goes on the stretch before."""


@dataclass(frozen=True)
class Block:
    """What a piece of a packet file holds; arrays are valid until the next block is asked for."""

    rows: dict[str, npt.NDArray[Any]]
    """Good packets by kind: (packet,) structured, big-endian, in the order of the file."""
    bad: list[Bad]
    """All the rest, in the order of the file."""
    n_bytes: int


class RawReader:
    """A packet file, a context manager.

    Parameters
    ----------
    path
        The file.
    descriptor
        Its format.
    tel_id, run_id
        Numbers that its packets should have.
    block_bytes
        How much is read at once; what comes out does not depend on it but for its division.
    max_gap_s
        A larger step of time is counted.
    start_s, stop_s
        Times that belong to the run, in the seconds of the packets; others are counted.

    Raises
    ------
    AstriError
        When the file cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        descriptor: Descriptor,
        *,
        tel_id: int,
        run_id: int,
        block_bytes: int = BLOCK_BYTES,
        max_gap_s: float = 10.0,
        start_s: float = -np.inf,
        stop_s: float = np.inf,
    ) -> None:
        self.path = Path(path)
        self.account = Account()
        self._descriptor = descriptor
        self._tel_id, self._run_id = tel_id, run_id
        self._block_bytes = max(1, int(block_bytes))
        self._kinds = list(descriptor.types)
        self._types = list(descriptor.types.values())
        self._sizes = [each.n_bytes for each in self._types]
        self._largest = max(self._sizes)
        self._headers = Headers(descriptor.types)
        # Six bytes of a good header, without the two of the count, give the type.
        self._known = {
            (each.packet_id, each.length): number for number, each in enumerate(self._types)
        }
        self._check = CHECKSUMS[self._types[0].checksum]
        self._common = _common(self._types[0], descriptor)
        self._numbers = Numbers()
        self._sequences = {kind: Sequence() for kind in self._kinds}
        self._times = Times(max_gap_s, start_s, stop_s)
        self._open = False  # whether a stretch without packets may go on

    def __enter__(self) -> "RawReader":
        try:
            self._stream = self.path.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def blocks(self) -> Iterator[Block]:
        """Yield the contents of the file piece by piece; at the end, `account` is complete.

        Raises
        ------
        AstriError
            When the file cannot be read to its end.
        """
        data = np.empty(self._block_bytes + 2 * self._largest, np.uint8)
        have = place = 0  # bytes in `data`, and where they begin in the file
        wanted, ended = self._block_bytes, False
        while not ended or have:
            while have < wanted and not ended:
                if wanted > len(data):
                    data = np.concatenate([data, np.empty(wanted, np.uint8)])
                n_read = self._read(data.data[have : max(wanted, self._block_bytes)])
                have += n_read
                ended = n_read == 0
            block, need = self._scan(data[:have], place, ended)
            done = block.n_bytes
            self.account.n_bytes += done
            if done:
                yield block
            data[: have - done] = data[done:have].copy()  # the two may overlap
            have, place = have - done, place + done
            wanted = max(need, self._block_bytes)
        account = self.account
        account.n_missing = self._numbers.n_missing
        for kind, sequence in self._sequences.items():
            account.missing[kind] = sequence.n_missing
        self._times.settle(account)
        account.check(str(self.path))

    def _read(self, into: memoryview) -> int:
        try:
            return self._stream.readinto(into) or 0
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> AstriError:
        return AstriError(
            f"The packet file {self.path} cannot be read ({error.strerror or error}): look at its "
            "disk, or get the file again."
        )

    def _scan(self, data: npt.NDArray[np.uint8], base: int, ended: bool) -> tuple[Block, int]:
        """Return what the bytes hold as far as that can be told, and how many it needs to go on."""
        view, n_data = data.data, len(data)
        good: list[tuple[int, int, int]] = []  # place, number of the type, checksum
        bad: list[Bad] = []
        place = need = 0
        while place < n_data:
            found = self._good(view, place)
            if found is not None:
                good.append((place, *found))
                place += self._sizes[found[0]]
                self._open = False
                continue
            if n_data - place < self._largest and not ended:
                need = self._largest
                break
            length, reason, kind, need, stays_open = self._stretch(data, place, ended)
            if length:
                joined = self._open and reason == UNREADABLE
                bad.append(Bad(base + place, view[place : place + length], reason, kind, joined))
                self._open = stays_open
                place += length
            if need:
                break
        rows, refused = self._sort(data, base, np.array(good, np.int64).reshape(-1, 3))
        bad = sorted((*bad, *refused), key=lambda piece: piece.place)
        for piece in bad:
            self.account.add_bad(piece.reason, piece.kind, len(piece.data), joined=piece.joined)
        return Block(rows, bad, place), need

    def _good(self, view: memoryview, place: int) -> tuple[int, int] | None:
        """Return number of the type and checksum of the packet at a place, if it is good."""
        head = view[place : place + HEADER_BYTES]
        if len(head) < HEADER_BYTES or head[2] < UNSEGMENTED:
            return None
        number = self._known.get((head[0] << 8 | head[1], head[4] << 8 | head[5]))
        if number is None:
            return None
        stop = place + self._sizes[number]
        if stop > len(view):
            return None
        end = stop - self._check.n_bytes
        check = int.from_bytes(view[end:stop], "big")
        return (number, check) if self._check.of(view[place:end]) == check else None

    def _stretch(
        self, data: npt.NDArray[np.uint8], place: int, ended: bool
    ) -> tuple[int, str, str, int, bool]:
        """Say how far what is bad at a place goes.

        Returns
        -------
        length, reason, kind
            Of the stretch; 0 bytes if it takes more to tell.
        need
            Bytes from the end of the stretch on that are needed to go on; 0 = none.
        open
            Whether the stretch may go on there.
        """
        n_left = len(data) - place
        if n_left < HEADER_BYTES:
            return n_left, UNREADABLE if self._open else TRUNCATED, "", 0, False
        header = self._headers.read(data, place)
        # Within a stretch of which nothing is known, a header counts only if all of it is right.
        if header.claim is not None and (header.right or not self._open):
            claim, kind = header.claim, header.known.kind if header.known is not None else ""
            if n_left < claim + self._largest and not ended:
                return 0, "", "", claim + self._largest, self._open
            inside = self._headers.places(data, place + 1, place + claim)
            for other in inside.tolist():
                if self._good(data.data, other) is not None:
                    reason = TRUNCATED if header.right else HEADER if kind else UNREADABLE
                    return other - place, reason, kind, 0, False
            if kind:
                reason = CHECKSUM if header.right else HEADER
                return min(claim, n_left), reason if claim <= n_left else TRUNCATED, kind, 0, False
            if n_left == claim or (
                n_left >= claim + HEADER_BYTES
                and self._headers.read(data, place + claim).claim is not None
            ):
                return claim, UNKNOWN, "", 0, False
        following = self._headers.first(data, place + 1)
        if following is not None:
            return following - place, UNREADABLE, "", 0, False
        if ended:
            return n_left, UNREADABLE, "", 0, False
        return n_left - HEADER_BYTES + 1, UNREADABLE, "", self._largest, True

    def _sort(
        self, data: npt.NDArray[np.uint8], base: int, good: npt.NDArray[np.int64]
    ) -> tuple[dict[str, npt.NDArray[Any]], list[Bad]]:
        """Return the packets that are kept, by kind, and those that are whole but not wanted."""
        if not len(good):
            return {}, []
        places, types, checks = good.T
        head = data[places[:, None] + np.arange(self._common.itemsize)].view(self._common)[:, 0]
        reasons = np.full(len(good), "", object)
        reasons[head["telescope"] != self._tel_id] = OTHER_TELESCOPE
        reasons[head["run"] != self._run_id] = OTHER_RUN
        highest = self._numbers.highest
        self._judge_numbers(head["counter"].astype(np.int64), checks.astype(np.uint32), reasons)
        keep = reasons == ""
        refused = [
            Bad(
                base + int(places[k]),
                data.data[places[k] : places[k] + self._sizes[types[k]]],
                reasons[k],
                self._kinds[types[k]],
            )
            for k in np.flatnonzero(~keep)
        ]
        head, places, types = head[keep], places[keep], types[keep]
        if not len(head):
            return {}, refused
        numbers = head["counter"].astype(np.int64)
        before = np.maximum.accumulate(np.concatenate(([highest], numbers[:-1])))
        in_order = numbers > before
        usable = self._times.add(
            head["seconds"],
            head["nanoseconds"],
            in_order,
            types == (self._kinds.index(EVENTS) if EVENTS in self._kinds else -1),
        )
        account, rows = self.account, {}
        for number, (kind, each) in enumerate(self._descriptor.types.items()):
            of_type = types == number
            n_packets = int(np.sum(of_type))
            if not n_packets:
                continue
            account.kept[kind] += n_packets
            account.kept_bytes[kind] += n_packets * each.n_bytes
            account.out_of_order[kind] += int(np.sum(of_type & ~in_order))
            account.bad_nanoseconds[kind] += int(np.sum(of_type & ~usable))
            rows[kind] = _gather(data, places[of_type], each)
            self._sequences[kind].extend(sequence_counts(rows[kind]))
        return rows, refused

    def _judge_numbers(
        self,
        numbers: npt.NDArray[np.int64],
        checks: npt.NDArray[np.uint32],
        reasons: npt.NDArray[Any],
    ) -> None:
        """Write the reason for packets whose number has occurred already into `reasons`."""
        wanted = reasons == ""
        found, sums = numbers[wanted], checks[wanted]
        if not len(found):
            return
        if found[0] > self._numbers.highest and np.all(np.diff(found) == 1):
            self._numbers.extend(int(found[0]), sums)
            return
        reasons[wanted] = [
            self._numbers.add(number, check) or ""
            for number, check in zip(found.tolist(), sums.tolist(), strict=True)
        ]


def _common(packet_type: PacketType, descriptor: Descriptor) -> np.dtype[Any]:
    """Return a view on the first bytes of packets of any type: the common fields that matter."""
    fields = packet_type.dtype.fields
    assert fields is not None
    found = [
        (role, *fields[getattr(descriptor, role)][:2])
        for role in ("telescope", "run", "counter", "seconds", "nanoseconds")
    ]
    return np.dtype(
        {
            "names": [role for role, *_ in found],
            "formats": [dtype for _, dtype, _ in found],
            "offsets": [offset for *_, offset in found],
            "itemsize": max(offset + dtype.itemsize for _, dtype, offset in found),
        }
    )


def _gather(
    data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], packet_type: PacketType
) -> npt.NDArray[Any]:
    """Return the packets that begin at the places as rows: a view where they lie side by side."""
    n_bytes = packet_type.n_bytes
    breaks = np.flatnonzero(np.diff(places) != n_bytes) + 1
    firsts = [0, *breaks.tolist(), len(places)]
    if not len(breaks):
        return data[places[0] : places[0] + n_bytes * len(places)].view(packet_type.dtype)
    out = np.empty(n_bytes * len(places), np.uint8)
    for first, stop in pairwise(firsts):
        start = int(places[first])
        out[first * n_bytes : stop * n_bytes] = data[start : start + (stop - first) * n_bytes]
    return out.view(packet_type.dtype)
