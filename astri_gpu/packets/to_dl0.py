"""One packet file to DL0 files, one per type of packets, and its bad bytes to a quarantine."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from astri_gpu.dl0.files import Dl0Writer
from astri_gpu.dl0.run_description import RunDescription
from astri_gpu.io.fits_bulk import Keywords
from astri_gpu.packets.account import Account
from astri_gpu.packets.descriptor import Descriptor
from astri_gpu.packets.quarantine import Quarantine, quarantine_files
from astri_gpu.packets.reader import BLOCK_BYTES, RawReader

__all__ = ["Converted", "packets_to_dl0"]

MARGIN_S = 60.0  # clocks that are off by more than this are not of this run


@dataclass(frozen=True)
class Converted:
    """What a packet file became."""

    account: Account
    files: tuple[Path, ...]
    """That were written: DL0 files, then those of the quarantine."""
    seconds: float


def packets_to_dl0(
    raw: str | Path,
    folder: str | Path,
    description: RunDescription,
    descriptor: Descriptor,
    tel_id: int,
    *,
    block_bytes: int = BLOCK_BYTES,
    max_gap_s: float = 10.0,
    cards: Keywords | None = None,
    advance: Callable[[int], None] | None = None,
) -> Converted:
    """Write the packets of a telescope into DL0 files, and return what was found.

    The files appear when the packet file has been read to its end; files of the same names are
    replaced.

    Parameters
    ----------
    raw
        The packet file.
    folder
        Where the files will be.
    description
        Of the run; its run number and `tel_id` have to be in the packets.
    descriptor
        Format of the packets.
    tel_id
        Number of the telescope.
    block_bytes, max_gap_s
        See `RawReader`.
    cards
        More of the primary headers, such as those of provenance.
    advance
        Called with the bytes of each block that is done.

    Raises
    ------
    AstriError
        When the packet file cannot be read, or the folder not be written.
    """
    raw, folder, started = Path(raw), Path(folder), time.perf_counter()
    files: dict[str, Path] = {
        kind: folder / description.name.dl0(tel_id, kind) for kind in descriptor.types
    }
    writers: dict[str, Dl0Writer] = {}
    reader = RawReader(
        raw,
        descriptor,
        tel_id=tel_id,
        run_id=description.run,
        block_bytes=block_bytes,
        max_gap_s=max_gap_s,
        start_s=description.start_s - MARGIN_S,
        stop_s=description.stop_s + MARGIN_S,
    )
    with reader, contextlib.ExitStack() as stack:
        quarantine = stack.enter_context(Quarantine(folder, raw.name))
        for block in reader.blocks():
            for kind, rows in block.rows.items():
                if kind not in writers:
                    writers[kind] = Dl0Writer(
                        files[kind],
                        description,
                        tel_id,
                        descriptor.types[kind],
                        cards=cards,
                        overwrite=True,
                    )
                    stack.enter_context(writers[kind])
                writers[kind].append(rows)
            quarantine.add(block.bad)
            if advance is not None:
                advance(block.n_bytes)
    for kind in files.keys() - writers.keys():
        files.pop(kind).unlink(missing_ok=True)  # of an earlier run with other packets
    kept = [path for path in quarantine_files(folder, raw.name) if path.exists()]
    return Converted(reader.account, (*files.values(), *kept), time.perf_counter() - started)
