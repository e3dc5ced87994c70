"""Checksums at the end of packets, of everything before them."""

import binascii
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["CHECKSUMS", "Checksum", "checksums"]


class Checksum(NamedTuple):
    """A way to sum bytes up."""

    n_bytes: int
    of: Callable[[Any], int]


def _crc16(data: Any) -> int:
    return binascii.crc_hqx(data, 0xFFFF)


# By name in the descriptor. Both are C; one call a packet costs less than its bytes do.
CHECKSUMS = {
    "crc32": Checksum(4, zlib.crc32),  # IEEE 802.3
    "crc16": Checksum(2, _crc16),  # CCITT from 0xFFFF: packet error control of CCSDS 132.0-B
}


def checksums(
    data: Any, starts: npt.NDArray[np.int64], n_bytes: int, checksum: str
) -> npt.NDArray[np.uint32]:
    """Return the checksum that each packet should have.

    Parameters
    ----------
    data
        Contiguous bytes (anything with the buffer protocol).
    starts : (packet,)
        Where packets of `n_bytes` begin in `data`; all must end within it.
    n_bytes
        Length of a packet with its checksum.
    checksum
        Name of the kind of checksum.

    Returns
    -------
    (packet,)
    """
    size, of = CHECKSUMS[checksum]
    view = memoryview(data).cast("B")
    length = n_bytes - size
    return np.fromiter(
        (of(view[start : start + length]) for start in starts.tolist()),
        dtype=np.uint32,
        count=len(starts),
    )
