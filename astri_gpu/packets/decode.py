"""Columns from packets."""

from typing import Any

import numpy as np
import numpy.typing as npt

from astri_gpu.errors import AstriError
from astri_gpu.packets.descriptor import BITS, PacketType
from astri_gpu.packets.encode import SEQUENCE_MODULUS

__all__ = ["column", "columns_of", "rows_of", "sequence_counts"]


def rows_of(packet_type: PacketType, packets: Any) -> npt.NDArray[Any]:
    """Return whole packets of one type that follow each other as structured rows, without a copy.

    Parameters
    ----------
    packet_type
        Layout of the packets.
    packets
        Their bytes: an array (packet, n_bytes) of uint8, or anything with contiguous bytes.

    Raises
    ------
    AstriError
        When the bytes are no whole number of packets.
    """
    view = memoryview(packets).cast("B") if memoryview(packets).nbytes else memoryview(b"")
    if len(view) % packet_type.n_bytes:
        raise AstriError(
            f"{len(view)} bytes are no whole number of {packet_type.kind} packets of "
            f"{packet_type.n_bytes} bytes: give whole packets."
        )
    return np.frombuffer(view, packet_type.dtype)


def column(packet_type: PacketType, rows: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return a field of packets: (packet, ...), native byte order, bits as booleans."""
    entry = packet_type.field(name)
    stored = rows[name]
    if entry.code == BITS:
        bits = np.unpackbits(
            np.ascontiguousarray(stored), axis=-1, count=entry.n_values, bitorder="big"
        )
        return bits.view(np.bool_).reshape(len(rows), *entry.shape)
    return np.asarray(stored.astype(entry.native))


def columns_of(packet_type: PacketType, rows: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Return every field of packets by name: (packet, ...), native, bits as booleans.

    Parameters
    ----------
    packet_type
        Layout of the packets.
    rows : (packet,)
        Structured rows of the dtype of the type, or of one with its fields.
    """
    return {entry.name: column(packet_type, rows, entry.name) for entry in packet_type.fields}


def sequence_counts(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return the count per APID in the headers of packets, which goes on modulo 2^14."""
    return (rows["sequence"] % SEQUENCE_MODULUS).astype(np.uint16)
