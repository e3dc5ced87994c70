"""Check of index files: whether files and tables are there, and are what the index says."""

import hashlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3.check_formats import DRIFT, HDU_CLASSES, OBSERVATION_COLUMNS
from astri_gpu.dl3.check_header import column_names, number
from astri_gpu.dl3.check_rules import Notes

__all__ = ["check_index"]

OBSERVATIONS = ("obs-index.fits.gz", "obs-index.fits")
TABLES = ("hdu-index.fits.gz", "hdu-index.fits")
SHOWN = 5  # numbers of observations in a sentence
AGREE = 2e-6  # of a value: columns of index files may have 32 bits

Headers = dict[str, Any]  # of the HDUs of a file, by name in large letters


def check_index(
    notes: Notes, kind: str, table: Any, values: Mapping[str, NDArray[np.float64]], folder: Path
) -> None:
    """Note what is wrong in an index and in what it refers to.

    Parameters
    ----------
    notes
        Of the table.
    kind
        "OBS_INDEX" or "HDU_INDEX".
    table
        HDU of astropy, whose header and columns have been checked.
    values
        Columns of numbers that can be used.
    folder
        In which the index file lies; the other index is looked for there.
    """
    ids = values.get("OBS_ID")
    if ids is None:
        return
    if kind == "OBS_INDEX":
        _check_observations(notes, table, values, ids)
        beside = _beside(folder, TABLES, kind="HDU_INDEX")
        if beside is not None:
            where = "the index of tables beside it"
            _note_lost(notes, ids, {entry["OBS_ID"] for entry in beside}, where)
            _compare(notes, values, _event_headers(beside, folder))
        return
    beside = _beside(folder, OBSERVATIONS, kind="OBS_INDEX")
    if beside is not None:
        where = "the index of observations beside it"
        _note_lost(notes, ids, {entry["OBS_ID"] for entry in beside}, where)
    entries = _entries(notes, table, ids)
    if entries:
        _check_entries(notes, entries, table, folder)


def _check_observations(
    notes: Notes, table: Any, values: Mapping[str, NDArray[np.float64]], ids: NDArray[np.float64]
) -> None:
    names, counts = np.unique(ids, return_counts=True)
    for name in names[counts > 1][:SHOWN]:
        notes("index-obs-id", "OBS_ID", f"OBS_ID {name:.0f} occurs more than once.")
    start, stop = values.get("TSTART"), values.get("TSTOP")
    if start is not None and stop is not None:
        for row in np.flatnonzero(~(start < stop))[:SHOWN]:
            notes("tstart-tstop", f"TSTART, row {row + 1}", "TSTART is not before TSTOP.")
    columns = column_names(table)
    if "OBS_MODE" in columns:
        modes = {str(mode).strip().upper() for mode in table.data[columns["OBS_MODE"]]}
        if "DRIFT" in modes:
            for keyword in DRIFT:
                if keyword.name not in columns:
                    text = f"{keyword.name} is missing: it is mandatory for OBS_MODE DRIFT."
                    notes("column-missing", keyword.name, text)


def _note_lost(notes: Notes, ours: NDArray[np.float64], theirs: set[int], where: str) -> None:
    lost = [str(int(name)) for name in np.unique(ours) if int(name) not in theirs]
    if lost:
        more = ", ..." if len(lost) > SHOWN else ""
        notes(
            "index-obs-id",
            "OBS_ID",
            f"{len(lost)} observations are not in {where}: {', '.join(lost[:SHOWN])}{more}.",
        )


def _beside(folder: Path, names: tuple[str, ...], *, kind: str) -> list[dict[str, Any]] | None:
    """Return the rows of the other index in the folder; None if it is not there or damaged."""
    from astropy.io import fits

    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path) as hdus:
                table = hdus[kind if kind in hdus else 1]
                data, columns = table.data, column_names(table)
                base = str(table.header.get("BASE_DIR", "") or "").strip()
                return [
                    {name: row[column] for name, column in columns.items()}
                    | {"OBS_ID": int(row[columns["OBS_ID"]]), "BASE_DIR": base}
                    for row in data
                ]
    except Exception:  # the other file's own check says what is wrong with it
        return None


def _event_headers(entries: list[dict[str, Any]], folder: Path) -> dict[int, Any]:
    """Return the headers of the event lists that an index of tables names and that are there."""
    found = {}
    for entry in entries:
        words = {
            key: str(entry.get(key, "")).strip()
            for key in ("BASE_DIR", "FILE_DIR", "FILE_NAME", "HDU_NAME", "HDU_CLASS")
        }
        if words["HDU_CLASS"] != "events":
            continue
        path = folder / words["BASE_DIR"] / words["FILE_DIR"] / words["FILE_NAME"]
        try:
            found[entry["OBS_ID"]] = _read_headers(path)[words["HDU_NAME"].upper()]
        except Exception:  # told of by the check of the index of tables
            continue
    return found


def _read_headers(path: Path) -> Headers:
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as hdus:
            return {hdu.name.upper(): hdu.header for hdu in hdus if hdu.name != "PRIMARY"}


def _entries(notes: Notes, table: Any, ids: NDArray[np.float64]) -> list[dict[str, Any]]:
    names = column_names(table)
    wanted = ("HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME")
    if not all(name in names for name in wanted):
        return []  # has been told of
    columns = {name: table.data[names[name]] for name in (*wanted, "SIZE", "MD5") if name in names}
    entries = []
    seen: set[tuple[int, str]] = set()
    for row, obs_id in enumerate(ids):
        entry: dict[str, Any] = {name: str(values[row]).strip() for name, values in columns.items()}
        entry |= {"row": row + 1, "OBS_ID": int(obs_id)}
        entries.append(entry)
        kind, class_ = entry["HDU_TYPE"], entry["HDU_CLASS"]
        place = f"row {row + 1}"
        if kind not in HDU_CLASSES.values():
            known = ", ".join(sorted(set(HDU_CLASSES.values())))
            notes("index-kind", f"HDU_TYPE, {place}", f"'{kind}' is none of {known}.")
        elif class_ not in HDU_CLASSES:
            known = ", ".join(HDU_CLASSES)
            notes("index-kind", f"HDU_CLASS, {place}", f"'{class_}' is none of {known}.")
        elif HDU_CLASSES[class_] != kind:
            text = f"HDU_CLASS '{class_}' is not of the HDU_TYPE '{kind}'."
            notes("index-kind", f"HDU_CLASS, {place}", text)
        if (int(obs_id), class_) in seen:
            text = f"Observation {obs_id:.0f} has a second table of the class {class_}."
            notes("index-twice", place, text)
        seen.add((int(obs_id), class_))
    return entries


def _check_entries(notes: Notes, entries: list[dict[str, Any]], table: Any, folder: Path) -> None:
    base = str(table.header.get("BASE_DIR", "") or "").strip()
    files: dict[str, Headers | None] = {}
    for entry in entries:
        place = f"row {entry['row']}"
        relative = PurePosixPath(base, entry["FILE_DIR"], entry["FILE_NAME"])
        name = str(relative)
        if relative.is_absolute():
            if name not in files:
                notes("index-path", f"FILE_DIR, {place}", f"{name} is not a relative path.")
            files[name] = None
            continue
        if name not in files:
            files[name] = _headers(notes, entry, folder / name, name)
        headers = files[name]
        if headers is None:
            continue
        header = headers.get(entry["HDU_NAME"].upper())
        if header is None:
            notes(
                "index-hdu",
                f"HDU_NAME, {place}",
                f"{name} has no table '{entry['HDU_NAME']}', only {', '.join(headers)}.",
            )
            continue
        _check_entry(notes, entry, header, name, place)


def _headers(notes: Notes, entry: dict[str, Any], path: Path, name: str) -> Headers | None:
    """Return the headers of a file that an entry names; None, with a finding, if there is none."""
    place = f"row {entry['row']}"
    if not path.is_file():
        notes("index-file", f"FILE_NAME, {place}", f"{name} is not there.")
        return None
    size = entry.get("SIZE", "")
    if size.lstrip("-").isdigit() and int(size) != path.stat().st_size:
        text = f"SIZE is {size}, but {name} has {path.stat().st_size} bytes."
        notes("index-size", f"SIZE, {place}", text)
    if entry.get("MD5"):
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if entry["MD5"].lower() != found:
            text = f"MD5 is {entry['MD5']}, but that of {name} is {found}."
            notes("index-md5", f"MD5, {place}", text)
    try:
        return _read_headers(path)
    except Exception as error:
        text = f"{name} cannot be read ({type(error).__name__}): check that file."
        notes("index-file", f"FILE_NAME, {place}", text)
        return None


def _check_entry(notes: Notes, entry: dict[str, Any], header: Any, name: str, place: str) -> None:
    class_ = entry["HDU_CLASS"]
    key = "HDUCLAS1" if class_ in ("events", "gti", "pointing") else "HDUCLAS4"
    found = str(header.get(key, "")).strip().lower()
    if found and class_ in HDU_CLASSES and found != class_:
        text = f"HDU_CLASS is '{class_}', but {name} says '{header[key]}' in {key}."
        notes("index-kind", f"HDU_CLASS, {place}", text)
    obs_id = header.get("OBS_ID")
    if class_ == "events" and obs_id is not None:
        # Text is an error of the event list, told of by its own check.
        text = str(obs_id).strip()
        if not text.isdigit() or int(text) != entry["OBS_ID"]:
            notes(
                "index-obs-id",
                f"OBS_ID, {place}",
                f"OBS_ID is {entry['OBS_ID']}, but {name} says {obs_id}.",
            )


def _compare(
    notes: Notes, values: Mapping[str, NDArray[np.float64]], headers: Mapping[int, Any]
) -> None:
    """Note observations whose index says other things than the header of their event list.

    Parameters
    ----------
    notes
        Of the index of observations.
    values
        Its columns of numbers.
    headers
        Number of the observation to the header of its event list.
    """
    for row, obs_id in enumerate(values["OBS_ID"]):
        header = headers.get(int(obs_id))
        if header is None:
            continue
        for key in OBSERVATION_COLUMNS:
            theirs = number(header, key)
            if key not in values or theirs is None:
                continue
            ours = float(values[key][row])
            if not math.isclose(ours, theirs, rel_tol=AGREE, abs_tol=1e-5):
                notes(
                    "index-value",
                    f"{key}, row {row + 1}",
                    f"{key} of observation {obs_id:.0f} is {ours:.10g}, but its event list says "
                    f"{theirs:.10g}.",
                )
