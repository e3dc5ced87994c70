"""CAL1 files: the camera constants of a run, per telescope and part of the run (FITS).

The table CONSTANTS has a row for each telescope and interval; times are UTC seconds since
2020-01-01T00:00:00, as in DL0 files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.io.fits_bulk import BulkColumn, BulkWriter, Keywords, MappedTable, read_header

__all__ = ["ConstantsSet", "cal1_header", "read_cal1", "set_at", "write_cal1"]

HDU = "CONSTANTS"
VERSION = 1
REMEDY = "make it with `astri-gpu calibrate`"

Floats = NDArray[np.float64]


class _Column(NamedTuple):
    name: str
    code: str
    unit: str | None
    text: str
    per_pixel: bool = False
    needed: bool = True


COLUMNS: dict[str, _Column] = {
    "tel_id": _Column("TEL", "i4", None, "telescope"),
    "start_s": _Column("TSTART", "f8", "s", "constants hold from, UTC since 2020-01-01"),
    "stop_s": _Column("TSTOP", "f8", "s", "constants hold until"),
    "n_pedestal": _Column("NPED", "i4", None, "pedestal events"),
    "n_flatfield": _Column("NFLASH", "i4", None, "flat-field events"),
    "scale_error": _Column("SCALERR", "f8", None, "relative error of all DCTOPE", needed=False),
    "pedestal": _Column("PEDESTAL", "f4", "adu", "mean counts without signal", True),
    "pedestal_std": _Column("PEDSTD", "f4", "adu", "their standard deviation", True),
    "pedestal_error": _Column("PEDERR", "f4", "adu", "error of PEDESTAL", True, False),
    "dc_to_pe": _Column("DCTOPE", "f4", None, "photo-electrons per count, 0 = bad", True),
    "dc_to_pe_error": _Column("DCTOPERR", "f4", None, "error of DCTOPE, pixel", True, False),
    "gain": _Column("GAIN", "f4", "adu", "counts per photo-electron", True, False),
    "pixel_valid": _Column("VALID", "u1", None, "1 = neither dead nor noisy", True),
}
"""Field of `ConstantsSet`: column."""


@dataclass(frozen=True, eq=False)
class ConstantsSet:
    """Constants of one telescope for a part of the run; arrays are (gain, pixel)."""

    tel_id: int
    start_s: float
    stop_s: float
    """UTC seconds since 2020-01-01, between which the events were taken that made them."""
    pedestal: Floats
    """Mean counts without signal."""
    pedestal_std: Floats
    dc_to_pe: Floats
    """Photo-electrons per count; 0 where `pixel_valid` is False."""
    pixel_valid: NDArray[np.bool_]
    n_pedestal: int = 0
    n_flatfield: int = 0
    pedestal_error: Floats | None = None
    dc_to_pe_error: Floats | None = None
    """Statistical, of a pixel against its camera."""
    gain: Floats | None = None
    """Counts per photo-electron, crosstalk included."""
    scale_error: float = float("nan")
    """Relative, common to all pixels of the camera."""


def write_cal1(
    path: str | Path, sets: Sequence[ConstantsSet], cards: Keywords, *, overwrite: bool = False
) -> None:
    """Write constants into a new file, which appears whole or not at all.

    Parameters
    ----------
    path
        Of the file (.fits).
    sets
        At least one; all of cameras with the same gains and pixels. Errors and gains that are None
        are written as NaN.
    cards
        Keywords of the primary header, name -> (value, comment).
    overwrite
        Replace a file that is there already.

    Raises
    ------
    UsageError
        When the file exists and may not be replaced.
    AstriError
        When there are no constants or cameras differ in shape, or the file cannot be written.
    """
    shapes = {entry.pedestal.shape for entry in sets}
    if len(shapes) != 1:
        found = ", ".join(map(str, sorted(shapes))) or "no constants"
        raise AstriError(
            f"{path} takes constants of cameras of one shape (gain, pixel), and there are {found}: "
            "give the telescopes of one kind of camera."
        )
    (shape,) = shapes
    columns = [
        BulkColumn(c.name, c.code, shape if c.per_pixel else (), c.unit, c.text)
        for c in COLUMNS.values()
    ]
    rows = np.empty(len(sets), [(column.name, column.dtype) for column in columns])
    for name, column in COLUMNS.items():
        for row, entry in enumerate(sets):
            value = getattr(entry, name)
            rows[column.name][row] = np.nan if value is None else value
    extra = {"CAL1VERS": (VERSION, "version of this format")}
    with BulkWriter(path, HDU, columns, cards, table_keywords=extra, overwrite=overwrite) as writer:
        writer.append(rows)


def read_cal1(path: str | Path) -> tuple[ConstantsSet, ...]:
    """Return the constants of a file, in order of telescope and time.

    Raises
    ------
    AstriError
        When it cannot be read, is no such file, lacks a column or has a wrong one, or constants of
        good pixels are no numbers.
    """
    with MappedTable(path, HDU) as table:
        if not table.n_rows:
            raise AstriError(f"{path} has no constants in {HDU}: {REMEDY}.")
        values = {
            name: table.read(column.name)
            for name, column in COLUMNS.items()
            if column.needed or column.name in table.columns
        }
    shape = values["pedestal"].shape[1:]
    for name, part in values.items():
        column = COLUMNS[name]
        fits = part.shape[1:] == (shape if column.per_pixel else ()) and len(shape) == 2
        if not fits or part.dtype.kind not in ("iuf" if column.code[0] == "f" else "iu"):
            raise AstriError(
                f"{path} has entries of {column.name} of the shape {part.shape[1:]} and type "
                f"{part.dtype} beside PEDESTAL of {shape}, which has to be (gain, pixel): {REMEDY}."
            )
    sets = []
    for row in range(len(values["tel_id"])):
        entry: dict[str, Any] = {
            name: part[row] if COLUMNS[name].per_pixel else part[row].item()
            for name, part in values.items()
        }
        entry["pixel_valid"] = entry["pixel_valid"] != 0
        sets.append(ConstantsSet(**entry))
        _check(path, sets[-1])
    return tuple(sorted(sets, key=lambda found: (found.tel_id, found.start_s)))


def cal1_header(path: str | Path) -> dict[str, Any]:
    """Return the keywords of the primary header: of the run, and of the step that made the file.

    Raises
    ------
    AstriError
        When it cannot be read.
    """
    return read_header(path)


def set_at(sets: Sequence[ConstantsSet], tel_id: int, time_s: NDArray[Any]) -> NDArray[np.int32]:
    """Return the index in `sets` of the constants of a telescope that hold at times, (event,).

    Before the first and behind the last interval of the telescope the nearest one holds, between
    two of them the earlier one.

    Parameters
    ----------
    sets
        As `read_cal1` returns them.
    tel_id
        Of the telescope.
    time_s
        UTC seconds since 2020-01-01, (event,).

    Raises
    ------
    AstriError
        When there are no constants of this telescope.
    """
    mine = np.array([k for k, entry in enumerate(sets) if entry.tel_id == tel_id], dtype=np.int32)
    if not len(mine):
        raise AstriError(
            f"There are no camera constants of telescope {tel_id}: leave the telescope out, or "
            "give constants that have it."
        )
    start = np.array([sets[k].start_s for k in mine])
    order = np.argsort(start, kind="stable")
    place = np.searchsorted(start[order], time_s, side="right") - 1
    return mine[order][np.maximum(place, 0)]


def _check(path: str | Path, found: ConstantsSet) -> None:
    """Refuse constants of good pixels that calibrate nothing."""
    if not (np.isfinite(found.start_s) and found.stop_s >= found.start_s):
        raise AstriError(
            f"{path} has constants of telescope {found.tel_id} from {found.start_s} to "
            f"{found.stop_s} s, which is no interval: {REMEDY}."
        )
    for name in ("pedestal", "pedestal_std", "dc_to_pe"):
        wrong = found.pixel_valid & ~np.isfinite(getattr(found, name))
        if wrong.any():
            gain, pixel = (int(index[0]) for index in np.nonzero(wrong))
            raise AstriError(
                f"{path} has {COLUMNS[name].name} that is no number in {int(wrong.sum())} good "
                f"pixels of telescope {found.tel_id} (gain {gain}, pixel {pixel} first): {REMEDY}."
            )
