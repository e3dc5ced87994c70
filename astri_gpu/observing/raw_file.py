"""The packet file of a telescope while it is written."""

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl0.run_description import RawFile
from astri_gpu.packets.descriptor import Descriptor
from astri_gpu.packets.encode import encode

__all__ = ["PacketFile"]


class PacketFile:
    """Encodes packets of all types and appends them in the order of time; a context manager.

    Parameters
    ----------
    path
        Of the file.
    descriptor
        Packet format.
    tel_id, run_id
        Common fields of all packets.
    """

    def __init__(self, path: Path, descriptor: Descriptor, tel_id: int, run_id: int) -> None:
        self._descriptor, self._path = descriptor, path
        self._common = {descriptor.telescope: tel_id, descriptor.run: run_id}
        self._tel_id = tel_id
        self._n_packets = self._n_bytes = 0
        self._sequence = dict.fromkeys(descriptor.types, 0)
        self._digest = hashlib.sha256()

    def __enter__(self) -> "PacketFile":
        self._file = self._path.open("wb", buffering=1 << 20)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, parts: Mapping[str, tuple[NDArray[np.int64], Mapping[str, Any]]]) -> None:
        """Append packets.

        Parameters
        ----------
        parts
            For each type the true times (packet,), which nothing appended earlier comes after, and
            the columns but for telescope, run and packet number.
        """
        kinds = [kind for kind, (time, _) in parts.items() if len(time)]
        if not kinds:
            return
        time = np.concatenate([parts[kind][0] for kind in kinds])
        length = [len(parts[kind][0]) for kind in kinds]
        which = np.repeat(np.arange(len(kinds)), length)
        order = np.argsort(time, kind="stable")
        number = np.empty(len(order), dtype=np.int64)
        number[order] = self._n_packets + np.arange(len(order))
        self._n_packets += len(order)
        packets = []
        for place, kind in enumerate(kinds):
            columns = {
                **self._common,
                **parts[kind][1],
                self._descriptor.counter: number[which == place],
            }
            packets.append(
                encode(self._descriptor.types[kind], columns, first_sequence=self._sequence[kind])
            )
            self._sequence[kind] += length[place]
        # Runs of packets of one type lie together in memory already.
        ordered = which[order]
        edges = np.flatnonzero(np.diff(ordered, prepend=-1, append=-1))
        done = [0] * len(kinds)
        for start, stop in pairwise(edges.tolist()):
            place = int(ordered[start])
            until = done[place] + stop - start
            self._write(packets[place][done[place] : until])
            done[place] = until

    def _write(self, packets: NDArray[np.uint8]) -> None:
        content = packets.reshape(-1).data
        self._file.write(content)
        self._digest.update(content)
        self._n_bytes += len(content)

    @property
    def n_bytes(self) -> int:
        """Return how many bytes have been appended."""
        return self._n_bytes

    def described(self) -> RawFile:
        """Return the entry of the file in the description of the run."""
        return RawFile(self._path.name, self._tel_id, self._n_bytes, self._digest.hexdigest())
