"""Packets from DL0 files: the bytes that the camera sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astri_gpu.dl0.columns import SEQUENCE
from astri_gpu.dl0.files import Dl0File, read_dl0
from astri_gpu.errors import AstriError
from astri_gpu.packets.descriptor import BITS, Descriptor, read_descriptor
from astri_gpu.packets.encode import UNSEGMENTED, finish

__all__ = ["rebuild_packets"]

ROWS = 1000  # at once


def rebuild_packets(
    path: str | Path, descriptor: Descriptor | None = None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the packets that a DL0 file was made from, byte by byte the same, in its order.

    Parameters
    ----------
    path
        A DL0 file of SCI, CAL, HK or VAR.
    descriptor
        Format of the packets; None = the one that the header of the file names.

    Yields
    ------
    (packet, n_bytes) uint8
        Packets, some at a time.

    Raises
    ------
    AstriError
        When the file cannot be read, or does not hold all that a packet of this format needs.
    """
    with read_dl0(path) as file:
        if descriptor is None:
            descriptor = read_descriptor(str(file.header.get("PKTDESC", "")))
        packet_type = descriptor.types.get(file.kind)
        if packet_type is None:
            raise AstriError(
                f"The packet format {descriptor.name} has no type {file.kind}, of which {path} is: "
                "give the format that its packets had."
            )
        known = {descriptor.telescope: file.tel_id, descriptor.run: file.run.run}
        _check_complete(file, descriptor)
        for start in range(0, file.table.n_rows, ROWS):
            part = slice(start, min(start + ROWS, file.table.n_rows))
            rows = np.zeros(part.stop - part.start, packet_type.dtype)
            for entry in packet_type.fields:
                if entry.fits is None:
                    rows[entry.name] = known[entry.name]
                else:
                    values = file.table.read(entry.fits, rows=part)
                    rows[entry.name] = _packed(values) if entry.code == BITS else values
            rows["sequence"] = file.table.read(SEQUENCE, rows=part) | UNSEGMENTED
            yield finish(packet_type, rows)


def _packed(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.packbits(values.reshape(len(values), -1), axis=-1, bitorder="big")


def _check_complete(file: Dl0File, descriptor: Descriptor) -> None:
    """Refuse a file that lacks a field, or has it in another shape."""
    columns = file.table.columns
    for entry in descriptor.types[file.kind].fields:
        if entry.fits is None:
            if entry.name not in (descriptor.telescope, descriptor.run):
                raise AstriError(
                    f"The field '{entry.name}' of the packet format {descriptor.name} has no "
                    "column in FITS files (key 'fits'), so its packets cannot be made again."
                )
        elif entry.fits not in columns:
            raise AstriError(
                f"{file.path} has no column {entry.fits} for the field '{entry.name}' of the "
                f"packet format {descriptor.name}: give the format that its packets had."
            )
    if SEQUENCE not in columns:
        raise AstriError(
            f"{file.path} has no column {SEQUENCE}, so its packets cannot be made again: make the "
            "file with `astri-gpu preprocess`."
        )
