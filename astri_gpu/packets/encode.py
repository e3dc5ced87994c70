"""Packets from columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from astri_gpu.errors import AstriError
from astri_gpu.packets.checksum import checksums
from astri_gpu.packets.descriptor import BITS, Field, PacketType

__all__ = ["SEQUENCE_MODULUS", "encode", "finish"]

SEQUENCE_MODULUS = 1 << 14
UNSEGMENTED = 3 << 14


def encode(
    packet_type: PacketType, columns: Mapping[str, Any], *, first_sequence: int = 0
) -> npt.NDArray[np.uint8]:
    """Return packets of one type.

    Parameters
    ----------
    packet_type
        Layout of the packets.
    columns
        Every field by name: (packet, ...) with the shape of the field, or one value for all packets
        where a field has no shape. Bits are given as booleans.
    first_sequence
        Sequence count of the first packet; the count goes on by one, modulo 2^14.

    Returns
    -------
    (packet, n_bytes) uint8
        Whole packets; their checksums are filled in.

    Raises
    ------
    AstriError
        When a column is missing or unknown, has another shape, or values that its field cannot
        hold.
    """
    names = {entry.name for entry in packet_type.fields}
    if wrong := sorted(names ^ set(columns)):
        raise AstriError(
            f"Columns of {packet_type.kind} packets are missing or unknown: {', '.join(wrong)}. "
            f"Give {', '.join(entry.name for entry in packet_type.fields)}."
        )
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    lengths = {len(values) for values in arrays.values() if values.ndim}
    if len(lengths) > 1:
        raise AstriError(
            f"The columns of {packet_type.kind} packets have different lengths "
            f"({', '.join(map(str, sorted(lengths)))}): give a value per packet in each."
        )
    rows = np.empty(lengths.pop() if lengths else 1, packet_type.dtype)
    for entry in packet_type.fields:
        rows[entry.name] = _stored(entry, arrays[entry.name], len(rows), packet_type.kind)
    rows["sequence"] = (first_sequence + np.arange(len(rows))) % SEQUENCE_MODULUS | UNSEGMENTED
    return finish(packet_type, rows)


def finish(packet_type: PacketType, rows: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Fill in `packet_id`, `length` and checksum of contiguous rows; return their bytes.

    Returns
    -------
    (packet, n_bytes) uint8
        The memory of `rows`.
    """
    rows["packet_id"] = packet_type.packet_id
    rows["length"] = packet_type.length
    packets = rows.view(np.uint8).reshape(len(rows), packet_type.n_bytes)
    starts = np.arange(len(rows), dtype=np.int64) * packet_type.n_bytes
    rows["checksum"] = checksums(
        packets.reshape(-1), starts, packet_type.n_bytes, packet_type.checksum
    )
    return packets


def _stored(entry: Field, values: npt.NDArray[Any], n_rows: int, kind: str) -> npt.NDArray[Any]:
    """Return values as they go into the packets, or say why they cannot."""
    if values.ndim == 0 and not entry.shape:
        values = np.broadcast_to(values, (n_rows,))
    if values.shape != (n_rows, *entry.shape):
        raise AstriError(
            f"The column '{entry.name}' of {kind} packets has the shape {values.shape}: give "
            f"{(n_rows, *entry.shape)}."
        )
    if entry.code == BITS:
        if values.dtype != np.bool_:
            raise AstriError(
                f"The column '{entry.name}' of {kind} packets has values of {values.dtype}: give "
                "booleans, one per bit."
            )
        return np.packbits(values.reshape(n_rows, -1), axis=-1, bitorder="big")
    if np.can_cast(values.dtype, entry.native):
        return values
    if entry.native.kind == "f" and values.dtype.kind in "iuf":
        return values
    if values.dtype.kind not in "iub":
        raise AstriError(
            f"The column '{entry.name}' of {kind} packets has values of {values.dtype}, which "
            f"{entry.code} cannot hold: give whole numbers."
        )
    limits = np.iinfo(entry.native)
    if values.size and not (
        int(limits.min) <= int(values.min()) and int(values.max()) <= int(limits.max)
    ):
        raise AstriError(
            f"The column '{entry.name}' of {kind} packets has values from {values.min()} to "
            f"{values.max()}, and {entry.code} holds {limits.min} to {limits.max}: give others."
        )
    return values
