"""DL0 event tables written and read: in bulk, by fitsio, by astropy; one contestant per process.

All get the same packets, in blocks, and none waits for the disk. The others are spared the bits of
the trigger, which they get and give back as bytes. What collects whole columns before it writes, as
CCfits does, is called by columns.
"""

import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.packets.descriptor import PacketType, read_descriptor

__all__ = ["READERS", "WRITERS", "event_rows", "event_type", "fits_case", "made_description"]

IMPORTS = {
    "astri_gpu": ("astri_gpu.dl0.files", "astropy.io.fits"),
    "astropy": ("astropy.io.fits",),
    "fitsio": ("fitsio",),
}
"""What is imported before the clock starts."""
BLOCK_ROWS = 1000
SEED = 5
Blocks = Iterator[NDArray[Any]]


def event_type() -> PacketType:
    """Return the type of the packets of events."""
    return read_descriptor("astri_gpu_v1").types["SCI"]


def event_rows(n_rows: int) -> NDArray[Any]:
    """Return whole packets of random numbers; headers and checksums are random too."""
    packet_type = event_type()
    made = np.random.default_rng(SEED).bytes(n_rows * packet_type.n_bytes)
    return np.frombuffer(made, packet_type.dtype)


def fits_case(contestant: str, path: str, n_rows: int) -> dict[str, Any]:
    """Return seconds, bytes of the rows, and memory of one contestant that writes or reads."""
    from astri_gpu import output_file

    from .cases import peak_memory_mib

    output_file.sync = lambda path: None  # the disk is the same for all, and none waits for it
    block = event_rows(min(BLOCK_ROWS, n_rows))
    sizes = [len(block)] * (n_rows // len(block)) + [n_rows % len(block)]
    action, name = contestant.split(" ", 1)
    for module in IMPORTS[name.split(" ")[0]]:
        importlib.import_module(module)
    if action == "write":
        Path(path).unlink(missing_ok=True)
    before = peak_memory_mib()
    started = time.perf_counter()
    if action == "write":
        WRITERS[name](Path(path), (block[:size] for size in sizes if size))
    else:
        READERS[name](Path(path))
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "peak_memory_mib": peak_memory_mib(),
        "memory_before_mib": before,
    }


def _ours_writes(path: Path, blocks: Blocks) -> None:
    from astri_gpu.dl0.files import Dl0Writer

    description = made_description()
    with Dl0Writer(path, description, 1, event_type()) as writer:
        for block in blocks:
            writer.append(block)


def made_description(n_bytes: int = 0, name: str = "") -> Any:
    """Return the description of a run of one telescope."""
    from astri_gpu.dl0.run_description import RawFile, RunDescription, Telescope

    return RunDescription(
        date="20260115",
        observation=1,
        run=1,
        target="none",
        ra_deg=0.0,
        dec_deg=0.0,
        wobble_offset_deg=0.0,
        wobble_angle_deg=0.0,
        ra_pnt_deg=0.0,
        dec_pnt_deg=0.0,
        start_s=0.0,
        stop_s=1e4,
        descriptor="astri_gpu_v1",
        camera="ASTRICam",
        array="one",
        latitude_deg=0.0,
        longitude_deg=0.0,
        altitude_m=0.0,
        telescopes=(Telescope(1, 0.0, 0.0, 0.0),),
        files=(RawFile(name, 1, n_bytes),),
    )


def _native(block: NDArray[Any]) -> NDArray[Any]:
    """Return the columns of packets as NumPy has them; SEQCNT first, as in a DL0 file."""
    fields = [("SEQCNT", "u2", ())]
    sources = ["sequence"]
    for field in event_type().fields:
        if field.fits is not None:
            dtype, shape = field.stored
            fields.append((field.fits, dtype.newbyteorder("=").str, shape))
            sources.append(field.name)
    table = np.empty(len(block), fields)
    for (name, *_), source in zip(fields, sources, strict=True):
        table[name] = block[source]
    table["SEQCNT"] &= 0x3FFF
    return table


def _fitsio_writes(path: Path, blocks: Blocks) -> None:
    import fitsio

    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.write(_native(next(blocks)), extname="EVENTS")
        for block in blocks:
            file[1].append(_native(block))


def _fitsio_writes_columns(path: Path, blocks: Blocks) -> None:
    import fitsio

    columns = _columns(blocks)
    with fitsio.FITS(str(path), "rw", clobber=True) as file:
        file.write(list(columns.values()), names=list(columns), extname="EVENTS")


def _columns(blocks: Blocks) -> dict[str, NDArray[Any]]:
    """Return whole columns of all blocks."""
    parts = [_native(block) for block in blocks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0].dtype.names}


def _astropy_writes(path: Path, blocks: Blocks) -> None:
    from astropy.io import fits

    parts = [_native(block) for block in blocks]
    table = fits.BinTableHDU(np.concatenate(parts), name="EVENTS")
    table.writeto(path)


def _ours_reads(path: Path) -> None:
    from astri_gpu.io.fits_bulk import MappedTable

    with MappedTable(path) as table:
        held = {
            name: np.empty((min(BLOCK_ROWS, table.n_rows), *column.shape), column.dtype)
            for name, column in table.columns.items()
        }
        for start in range(0, table.n_rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, table.n_rows)
            for name, out in held.items():
                table.read(name, slice(start, stop), out=out[: stop - start])


def _fitsio_reads(path: Path) -> None:
    import fitsio

    with fitsio.FITS(str(path)) as file:
        n_rows = file[1].get_nrows()
        for start in range(0, n_rows, BLOCK_ROWS):
            file[1][start : min(n_rows, start + BLOCK_ROWS)]


def _fitsio_reads_columns(path: Path) -> None:
    import fitsio

    with fitsio.FITS(str(path)) as file:
        held = [file[1].read_column(name) for name in file[1].get_colnames()]
        assert held


def _astropy_reads(path: Path) -> None:
    from astropy.io import fits

    with fits.open(path, memmap=True) as file:
        held = [np.array(file[1].data[name]) for name in file[1].columns.names]
        assert held


WRITERS: dict[str, Callable[[Path, Blocks], None]] = {
    "astri_gpu": _ours_writes,
    "fitsio": _fitsio_writes,
    "fitsio by columns": _fitsio_writes_columns,
    "astropy": _astropy_writes,
}
READERS: dict[str, Callable[[Path], None]] = {
    "astri_gpu": _ours_reads,
    "fitsio": _fitsio_reads,
    "fitsio by columns": _fitsio_reads_columns,
    "astropy": _astropy_reads,
}


def difference(first: Path, second: Path) -> int:
    """Return the values of two tables of events that differ, as fitsio reads them."""
    import fitsio

    with fitsio.FITS(str(first)) as ours, fitsio.FITS(str(second)) as theirs:
        n_rows = ours[1].get_nrows()
        assert n_rows == theirs[1].get_nrows()
        total = 0
        for start, name in itertools.product(
            range(0, n_rows, 10 * BLOCK_ROWS), ours[1].get_colnames()
        ):
            rows = slice(start, min(n_rows, start + BLOCK_ROWS))
            if name != "TRIGPIX":
                total += int((ours[1][name][rows] != theirs[1][name][rows]).sum())
        return total
