"""Parts of a FITS file: their headers, and where their data lie; see `fits_bulk`.

Files come from anywhere, so nothing that a header says is believed before it is checked.
"""

import contextlib
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from astri_gpu.errors import AstriError
from astri_gpu.io.fits_bulk_cards import BLOCK, CARD, header_values

__all__ = ["Part", "check_end", "find_part", "opened", "read_header", "table_size", "whole_number"]

HEADER_BLOCKS = 4096
"""A header is no longer than this (11 MB); what looks longer is no header."""


class Part(NamedTuple):
    """A header and its data."""

    header: dict[str, Any]
    start: int  # of the data
    n_bytes: int


def read_header(path: str | Path, hdu: int | str = 0) -> dict[str, Any]:
    """Return the values of a header, name -> value; HISTORY and COMMENT are lists of lines.

    Parameters
    ----------
    path
        A FITS file, not compressed.
    hdu
        Number (0 = the primary header) or EXTNAME.

    Raises
    ------
    AstriError
        When the file cannot be read, is no FITS file, or has no such part.
    """
    with opened(path) as file:
        return find_part(file, path, hdu).header


def opened(path: str | Path) -> Any:
    """Return a FITS file, open for reading; the caller closes it.

    Raises
    ------
    AstriError
        When it cannot be read, is compressed, or is no FITS file.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise AstriError(
            f"The FITS file {path} cannot be read ({error.strerror}): check its name and "
            "permissions."
        ) from error
    start = b""
    with contextlib.suppress(OSError):  # what cannot be read does not begin with SIMPLE either
        start = file.read(10)
    reason = None
    if start[:2] in (b"\x1f\x8b", b"BZ", b"\x1f\x9d"):
        reason = "is compressed, and its rows cannot be mapped: unpack it (gunzip) and give that"
    elif start[:9] != b"SIMPLE  =":
        reason = "is no FITS file (it does not begin with SIMPLE): give another file"
    if reason:
        file.close()
        raise AstriError(f"{path} {reason}.")
    file.seek(0)
    return file


def find_part(file: Any, path: str | Path, hdu: int | str) -> Part:
    """Return a part of a file, by number or EXTNAME."""
    size = os.fstat(file.fileno()).st_size
    place, number, names = 0, 0, []
    while place < size:
        found = _next(file, path, place, number)
        name = str(found.header.get("EXTNAME", "")).strip()
        if hdu == number or (isinstance(hdu, str) and name.upper() == hdu.upper()):
            return found
        names.append(name or str(number))
        place = found.start + -(-found.n_bytes // BLOCK) * BLOCK
        number += 1
    if place > size:
        raise _cut_off(path, names[-1], size, place)
    raise AstriError(
        f"{path} has no part {hdu} (it has {', '.join(names)}): is it another kind of file?"
    )


def _next(file: Any, path: str | Path, place: int, number: int) -> Part:
    """Return the part whose header begins at `place`."""
    file.seek(place)
    header = bytearray()
    while True:
        block = file.read(BLOCK)
        if len(block) < BLOCK or len(header) > HEADER_BLOCKS * BLOCK:
            raise AstriError(
                f"Header {number} of {path}, from byte {place}, has no end: the file is cut off or "
                "damaged, get it or make it again."
            )
        header += block
        if any(block[at : at + 8] == b"END     " for at in range(0, BLOCK, CARD)):
            break
    if number and not header.startswith(b"XTENSION="):
        raise AstriError(
            f"Part {number} of {path}, from byte {place}, does not begin with XTENSION: the file "
            "is damaged, or a size in the header before is wrong; get it or make it again."
        )
    values = header_values(bytes(header))
    where = f"header {number} of {path}"
    axes = [
        whole_number(values, f"NAXIS{i + 1}", where)
        for i in range(whole_number(values, "NAXIS", where, 999))
    ]
    n_bytes = abs(whole_number(values, "BITPIX", where, 64, -64)) // 8
    if axes:
        n_bytes *= whole_number(values, "GCOUNT", where, default=1) * (
            whole_number(values, "PCOUNT", where, default=0) + math.prod(axes)
        )
    return Part(values, place + len(header), n_bytes if axes else 0)


def whole_number(
    values: dict[str, Any],
    name: str,
    where: str,
    high: int = 2**62,
    low: int = 0,
    default: int | None = None,
) -> int:
    """Return a whole number of a header."""
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        said = "is missing" if value is None else f"is {value!r}"
        raise AstriError(f"{name} of {where} {said}: the file is damaged, get it or make it again.")
    return value


def table_size(found: Part, path: str | Path, name: str, size: int) -> tuple[int, int]:
    """Return bytes of a row and rows of a table that is all there."""
    header = found.header
    if str(header.get("XTENSION", "")).strip() != "BINTABLE":
        raise AstriError(f"{name} of {path} is no binary table: is it another kind of file?")
    if header.get("NAXIS") != 2 or header.get("BITPIX") != 8:
        raise AstriError(
            f"{name} of {path} has NAXIS = {header.get('NAXIS')} and BITPIX = "
            f"{header.get('BITPIX')}, not 2 and 8 as tables have: get or make the file again."
        )
    row_bytes, n_rows = header["NAXIS1"], header["NAXIS2"]
    if n_rows and not row_bytes:
        raise AstriError(
            f"{name} of {path} has {n_rows} rows without bytes: the file is damaged, get it or "
            "make it again."
        )
    end = found.start + row_bytes * n_rows
    if end > size:
        raise _cut_off(path, name, size, end)
    return row_bytes, n_rows


def check_end(file: Any, path: str | Path, name: str, found: Part) -> None:
    """Refuse bytes behind a table that are no part of the file: rows that NAXIS2 leaves out.

    A writer that was killed leaves such files.

    Raises
    ------
    AstriError
        How many bytes there are.
    """
    end = found.start + -(-found.n_bytes // BLOCK) * BLOCK
    file.seek(end)
    n_left = os.fstat(file.fileno()).st_size - end
    if n_left > 0 and file.read(9) != b"XTENSION=":
        raise AstriError(
            f"{path} has {n_left} bytes behind {name} that belong to nothing: NAXIS2 is smaller "
            "than the rows, so the file is not complete. Get it or make it again."
        )


def _cut_off(path: str | Path, name: str, size: int, end: int) -> AstriError:
    return AstriError(
        f"{path} is cut off: {name} should end at byte {end} by its header, and the file has "
        f"{size} bytes. Get it or make it again."
    )
