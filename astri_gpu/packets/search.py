"""Where packets may begin in bytes that nobody knows anything about."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from astri_gpu.packets.descriptor import HEADER_BYTES, PacketType

__all__ = ["UNSEGMENTED", "Headers"]

UNSEGMENTED = 0xC0  # both top bits of the third byte
WINDOW = 1 << 14
VERSION_AND_TYPE = 0xF0  # bits of the first byte that are 0 in telemetry of version 0


class Header(NamedTuple):
    """What six bytes say when they are taken for a header."""

    known: PacketType | None
    """The type whose APID it has."""
    right: bool
    """Whether all of it is as in good packets of that type."""
    claim: int | None
    """Bytes that the packet should have; None where nothing sensible can be said."""


class Headers:
    """The headers of a packet format.

    Parameters
    ----------
    types
        Of the format.
    """

    def __init__(self, types: Mapping[str, PacketType]) -> None:
        self._types = {each.packet_id: each for each in types.values()}
        self._starts = sorted({each.packet_id >> 8 for each in types.values()})

    def read(self, data: npt.NDArray[np.uint8], place: int) -> Header:
        """Return what the header at a place says; six bytes have to be there."""
        packet_id, sequence, length = (
            int(data[place + k]) << 8 | int(data[place + k + 1]) for k in (0, 2, 4)
        )
        known = self._types.get(packet_id)
        if known is not None:
            right = length == known.length and sequence >> 8 & UNSEGMENTED == UNSEGMENTED
            return Header(known, right, known.n_bytes)
        if packet_id >> 8 & VERSION_AND_TYPE == 0 and sequence >> 8 & UNSEGMENTED == UNSEGMENTED:
            return Header(None, False, length + 1 + HEADER_BYTES)
        return Header(None, False, None)

    def places(self, data: npt.NDArray[np.uint8], start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return where right headers of known types begin, start <= place < stop, in order.

        Every byte is looked at; a header has to lie within `data`.
        """
        stop = min(stop, len(data) - HEADER_BYTES + 1)
        if stop <= start:
            return np.empty(0, np.int64)
        first = data[start:stop]
        # The first byte leaves one place in 256 of random bytes, so the rest is cheap.
        maybe = np.zeros(len(first), bool)
        for value in self._starts:
            maybe |= first == value
        places = np.flatnonzero(maybe) + start
        words = [data[places + k].astype(np.int32) << 8 | data[places + k + 1] for k in (0, 2, 4)]
        right = np.zeros(len(places), bool)
        for packet_id, each in self._types.items():
            right |= (words[0] == packet_id) & (words[2] == each.length)
        right &= words[1] >> 8 & UNSEGMENTED == UNSEGMENTED
        return places[right]

    def first(self, data: npt.NDArray[np.uint8], start: int) -> int | None:
        """Return the first place from `start` on where a right header begins; None if none does."""
        size = WINDOW
        while start < len(data):
            found = self.places(data, start, start + size)
            if len(found):
                return int(found[0])
            # Damage is short as a rule, so the search begins small.
            start, size = start + size, 2 * size
        return None
