"""Check of files against the GADF format, version 0.3: event lists, responses, index files.

`check_files` returns findings and raises nothing: a file that cannot be read is a finding too. It
needs no software of those who read the files.
"""

import gzip
import io
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from astri_gpu.dl3.check_events import check_observation, check_table
from astri_gpu.dl3.check_formats import RESPONSES, TABLES
from astri_gpu.dl3.check_header import column_names
from astri_gpu.dl3.check_index import check_index
from astri_gpu.dl3.check_responses import check_response, check_response_set
from astri_gpu.dl3.check_rules import RULES, Finding, Notes

__all__ = ["RULES", "Finding", "check_file", "check_files"]

GZIP = b"\x1f\x8b"
FITS = b"SIMPLE  ="
# Tables that do not say what they are, by a column that only they have.
COLUMNS = {
    "EVENT_ID": "EVENTS",
    "EFFAREA": "AEFF_2D",
    "MATRIX": "EDISP_2D",
    "RPSF": "PSF_TABLE",
    "AMPL_2": "PSF_3GAUSS",
    "GAMMA": "PSF_KING",
    "HDU_CLASS": "HDU_INDEX",
}


def check_files(paths: Iterable[str | Path]) -> list[Finding]:
    """Return the findings of all files, in their order (see `check_file`)."""
    return [finding for path in paths for finding in check_file(path)]


def check_file(path: str | Path) -> list[Finding]:
    """Return where a file does not keep to the format; an empty list if it does.

    Parameters
    ----------
    path
        FITS file, plain or compressed with gzip. Of an index the files that it names are opened
        too, to see whether the tables are there; what is in them is not checked.
    """
    found: list[Finding] = []
    notes = Notes(str(path), "", found)
    content = _content(notes, Path(path))
    if content is None:
        return found
    try:
        with _warnings_noted(notes), _opened(content) as hdus:
            # All are looked at first, so that a damaged one spares those before it.
            _check_tables(notes, list(_tables(notes, hdus, len(content))), Path(path))
    except Exception as error:  # whatever damage makes of the reader is no fault of the caller
        notes("file-unreadable", "", f"The file cannot be read ({_words(error)}).")
    return list(dict.fromkeys(found))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")


def _content(notes: Notes, path: Path) -> bytes | None:
    """Return the bytes of a file, uncompressed; None, with a finding, where there are none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        notes("file-unreadable", "", f"The file cannot be read ({error.strerror or error}).")
        return None
    if content.startswith(GZIP):
        stream = gzip.GzipFile(fileobj=io.BytesIO(content))
        parts = []
        try:
            while part := stream.read(1 << 20):
                parts.append(part)
        except EOFError:
            notes("file-truncated", "", "The compressed file ends before its end mark.")
        except (OSError, zlib.error) as error:
            notes("file-unreadable", "", f"The file is damaged ({_words(error)}).")
        content = b"".join(parts)
    if not content.startswith(FITS):
        if not notes.found:
            notes("file-unreadable", "", "The file is no FITS file (plain or gzip).")
        return None
    return content


@contextmanager
def _opened(content: bytes) -> Iterator[Any]:
    from astropy.io import fits

    with fits.open(io.BytesIO(content), memmap=False, character_as_bytes=False) as hdus:
        yield hdus


@contextmanager
def _warnings_noted(notes: Notes) -> Iterator[None]:
    """A context in which what astropy warns of becomes findings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    for warning in told:
        text = " ".join(str(warning.message).split())
        if "truncated" in text:
            notes("file-truncated", "", f"{text[:200].rstrip('.')}.")
        else:
            notes("fits-standard", "", f"{text[:200].rstrip('.')}.")


def _tables(notes: Notes, hdus: Any, length: int) -> Iterator[tuple[Notes, Any]]:
    """Yield notes and HDU of every table that lies in the file as a whole."""
    for place, hdu in enumerate(hdus):
        inside = notes.inside(f"{place} {hdu.name}".strip())
        with _warnings_noted(inside):
            hdu.verify("silentfix+warn")
            where = hdu.fileinfo() or {}
            end = int(where.get("datLoc") or 0) + int(hdu.size)
            if end > length:
                inside(
                    "file-truncated",
                    "",
                    f"The table ends at byte {end:,} but the file has {length:,} (uncompressed).",
                )
                continue
            for name, good in (
                ("DATASUM", hdu.verify_datasum),
                ("CHECKSUM", hdu.verify_checksum),
            ):
                if name in hdu.header and good() == 0:
                    inside("checksum", name, f"{name} is not that of the HDU: it was changed.")
            if place and hasattr(hdu, "columns"):
                yield inside, hdu


def _kind(notes: Notes, hdu: Any) -> str | None:
    """Return what a table is, a key of `TABLES` or `RESPONSES`; None for those of others."""
    header = hdu.header

    def word(key: str) -> str:
        return str(header.get(key, "")).strip().upper()

    first, second, fourth = word("HDUCLAS1"), word("HDUCLAS2"), word("HDUCLAS4")
    if first in ("EVENTS", "GTI", "POINTING"):
        return first
    if first == "INDEX" and f"{second}_INDEX" in TABLES:
        return f"{second}_INDEX"
    if fourth in RESPONSES:
        return fourth
    name = hdu.name.upper()
    if name in TABLES:
        return str(name)
    if word("HDUCLASS") not in ("", "GADF", "OGIP"):
        return None
    if fourth and word("HDUCLASS") != "GADF":
        return None  # such as our own responses with four axes, which no science tool reads
    names = column_names(hdu)
    guess = next((kind for column, kind in COLUMNS.items() if column in names), None)
    if guess is None and ("BKG" in names or "BGD" in names):
        guess = "BKG_3D" if "DETX_LO" in names else "BKG_2D"
    if guess is None and "RAD_MAX" in names:
        guess = "RAD_MAX_2D"
    if guess in RESPONSES and "ENERG_LO" not in names:
        guess = None
    if guess is None and word("HDUCLASS") == "GADF":
        key = "HDUCLAS4" if first == "RESPONSE" else "HDUCLAS1"
        notes("hduclas-value", key, f"{key} is '{header.get(key, '')}': no such table is known.")
    return guess


def _check_tables(notes: Notes, tables: list[tuple[Notes, Any]], path: Path) -> None:
    observations: dict[str, list[tuple[Notes, Any, Any]]] = {}
    responses: list[tuple[Notes, str, Any]] = []
    kinds: list[str] = []
    for inside, hdu in tables:
        try:
            with _warnings_noted(inside):
                kind = _kind(inside, hdu)
                if kind is None:
                    continue
                kinds.append(kind)
                if kinds.count(kind) == 2:
                    inside("hdu-twice", "", f"The file has a second table of the kind {kind}.")
                if kind in RESPONSES:
                    check_response(inside, kind, hdu)
                    responses.append((inside, kind, hdu))
                    continue
                values = check_table(inside, kind, hdu)
                if kind in ("EVENTS", "GTI", "POINTING"):
                    observations.setdefault(kind, []).append((inside, hdu, values))
                else:
                    check_index(inside, kind, hdu, values, path.parent)
        except Exception as error:
            inside("hdu-damaged", "", f"The table cannot be read ({_words(error)}).")
    if not kinds and not any(finding.severity == "error" for finding in notes.found):
        notes("no-gadf-hdu", "", "The file has no table of the format (GADF).")
    check_observation(observations)
    check_response_set(responses)
