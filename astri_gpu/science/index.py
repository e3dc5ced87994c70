"""The tables of a data set by run: from index files (GADF), or from the headers of its files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from astri_gpu.dl3.index_files import HDU_INDEX, TYPES
from astri_gpu.errors import AstriError, UsageError

__all__ = ["Entry", "hdu_index"]

Entry = tuple[int, str, str, str, str]
"""Number of the run, type and class of the table, file, name of the table."""

COLUMNS = ("OBS_ID", "HDU_TYPE", "HDU_CLASS", "FILE_NAME", "HDU_NAME")
# Tables of files that do not say what they are, by the names that Gammapy looks for.
NAMES = {
    "EVENTS": ("events", "events"),
    "GTI": ("gti", "gti"),
    "EFFECTIVE AREA": ("aeff", "aeff_2d"),
    "ENERGY DISPERSION": ("edisp", "edisp_2d"),
    "POINT SPREAD FUNCTION": ("psf", "psf_3gauss"),
    "BACKGROUND": ("bkg", "bkg_3d"),
    "RAD_MAX": ("rad_max", "rad_max_2d"),
}


def hdu_index(inputs: Sequence[Path], responses: Sequence[Path]) -> tuple[Any, list[Path]]:
    """Return Gammapy's index table of all runs, and the index files or event lists it is from.

    Parameters
    ----------
    inputs
        Folders with an index file, or event lists.
    responses
        Of the event lists: one for each, told by OBS_ID or by order, or one for all; none where
        the responses are in the files of the events.

    Raises
    ------
    UsageError
        When a folder has no index file, or the number of responses does not fit.
    AstriError
        When a file cannot be read, or one run is there twice.
    """
    from gammapy.data import HDUIndexTable

    folders = [path for path in inputs if path.is_dir()]
    files = [path for path in inputs if not path.is_dir()]
    if folders and responses:
        raise UsageError(
            f"response= belongs to event lists, but {folders[0]} is a folder whose index file "
            "names the responses: leave it out."
        )
    entries: list[Entry] = []
    sources: list[Path] = []
    runs: dict[int, Path] = {}
    for folder in folders:
        source = _index_file(folder)
        rows = list(_of_index(source, folder))
        sources.append(source)
        _no_run_twice(rows, source, runs)
        entries += rows
    named = _of_responses(files, responses)
    for place, file in enumerate(files):
        obs_id, rows = _of_events(file)
        rows += named(place, obs_id)
        sources.append(file)
        _no_run_twice(rows, file, runs)
        entries += rows
    if not entries:
        raise AstriError(f"{sources[0]} names no table of any run: there is nothing to analyse.")
    table = HDUIndexTable(
        rows=[(row[0], row[1], row[2], "", row[3], row[4]) for row in entries],
        names=("OBS_ID", "HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME"),
    )
    table.meta["BASE_DIR"] = ""
    return table, sources


def _no_run_twice(rows: Sequence[Entry], source: Path, runs: dict[int, Path]) -> None:
    for obs_id in {row[0] for row in rows}:
        if obs_id in runs:
            raise AstriError(
                f"Run {obs_id} is in {runs[obs_id]} and in {source}: give it once, or other "
                "numbers (OBS_ID) to the runs."
            )
        runs[obs_id] = source


def _index_file(folder: Path) -> Path:
    for name in (HDU_INDEX, HDU_INDEX.removesuffix(".gz")):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(
        f"The folder {folder} has no index file ({HDU_INDEX}): give a folder with one, or its "
        "event lists as input= and their responses as response=."
    )


def _of_index(source: Path, folder: Path) -> Iterator[Entry]:
    """Yield the rows of an index file with the whole paths of the files."""
    from astropy.table import Table

    try:
        table = Table.read(source, format="fits", hdu=1)
    except Exception as error:
        raise _unreadable(source, error) from error
    missing = [name for name in COLUMNS if name not in table.colnames]
    if missing:
        raise AstriError(
            f"The index file {source} has no column {missing[0]} in its first table: is it the "
            "index of tables (HDU_INDEX) of GADF?"
        )
    base = folder / str(table.meta.get("BASE_DIR", "") or "")
    for row in table:
        where = str(row["FILE_DIR"]).strip() if "FILE_DIR" in table.colnames else ""
        path = base / where / str(row["FILE_NAME"]).strip()
        kind, form, name = (str(row[key]).strip() for key in ("HDU_TYPE", "HDU_CLASS", "HDU_NAME"))
        yield int(row["OBS_ID"]), kind.lower(), form.lower(), str(path), name


def _tables(path: Path) -> list[tuple[str, str, str, Any]]:
    """Return type, class, name and OBS_ID of the tables of a file that have a meaning here."""
    from astropy.io import fits

    found = []
    try:
        with fits.open(path) as file:
            everywhere = file[0].header.get("OBS_ID")
            for hdu in file[1:]:
                words = [str(hdu.header.get(f"HDUCLAS{place}", "")) for place in (1, 2, 4)]
                kind = TYPES.get(words[1], "") if words[0] == "RESPONSE" else words[0].lower()
                form = words[2].lower() if words[0] == "RESPONSE" else kind
                if not kind or not form:
                    kind, form = NAMES.get(hdu.name, ("", ""))
                if kind:
                    found.append((kind, form, hdu.name, hdu.header.get("OBS_ID", everywhere)))
    except Exception as error:
        raise _unreadable(path, error) from error
    return found


def _of_events(path: Path) -> tuple[int, list[Entry]]:
    """Return the number of the run of an event list, and the tables of its file."""
    tables = _tables(path)
    numbers = [number for kind, _, _, number in tables if kind == "events"]
    if not numbers:
        raise AstriError(
            f"{path} has no table of events (HDUCLAS1 or EXTNAME 'EVENTS'): give event lists as "
            "input= and responses as response=."
        )
    try:
        obs_id = int(numbers[0])
    except (TypeError, ValueError):
        raise AstriError(
            f"The events of {path} have OBS_ID={numbers[0]!r}: it has to be a whole number."
        ) from None
    return obs_id, [(obs_id, kind, form, str(path), name) for kind, form, name, _ in tables]


def _of_responses(files: Sequence[Path], responses: Sequence[Path]) -> Any:
    """Return a function (place, run) -> entries of its response."""
    if len(responses) not in (0, 1, len(files)):
        raise UsageError(
            f"There are {len(files)} event lists and {len(responses)} responses: give one response "
            "for each event list, or one for all."
        )
    tables = [(path, _tables(path)) for path in responses]
    by_run = {
        str(number): place
        for place, (_, rows) in enumerate(tables)
        for _, _, _, number in rows
        if number is not None
    }

    def entries(place: int, obs_id: int) -> list[Entry]:
        if not tables:
            return []
        given = place if len(tables) > 1 else 0
        path, rows = tables[by_run.get(str(obs_id), given) if len(tables) > 1 else given]
        return [
            (obs_id, kind, form, str(path), name)
            for kind, form, name, _ in rows
            if kind not in ("events", "gti", "pointing")
        ]

    return entries


def _unreadable(path: Path, error: BaseException) -> AstriError:
    words = " ".join(str(error).split())[:200]
    return AstriError(
        f"{path} cannot be read as FITS ({words or type(error).__name__}): is it complete?"
    )
