"""The index files of a folder of runs: hdu-index.fits.gz and obs-index.fits.gz (GADF v0.3)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.dl3 import keywords as key
from astri_gpu.dl3.events_file import table_of, write_fits
from astri_gpu.dl3.run import Run
from astri_gpu.dl3.sky import utc_text

__all__ = ["HDU_INDEX", "OBS_INDEX", "write_indices"]

HDU_INDEX, OBS_INDEX = "hdu-index.fits.gz", "obs-index.fits.gz"

TYPES = {"EFF_AREA": "aeff", "EDISP": "edisp", "RPSF": "psf", "BKG": "bkg", "RAD_MAX": "rad_max"}
"""HDU_TYPE of a response by HDUCLAS2."""


def write_indices(
    folder: Path,
    runs: Sequence[tuple[Run, Sequence[str]]],
    event_class: str,
    *,
    overwrite: bool = False,
) -> None:
    """Write both index files of the files in a folder.

    Parameters
    ----------
    folder
        Holds the files; their names in the index are relative to it.
    runs
        Runs (after the selection) with the names of their files.
    event_class
        Of all runs.
    overwrite
        Replace existing index files.

    Raises
    ------
    UsageError
        When a file exists and may not be replaced.
    AstriError
        When the disk takes no more.
    """
    from astropy.io import fits

    hdus = [
        (run.obs_id, *row) for run, names in runs for name in names for row in _rows(folder, name)
    ]
    texts = zip(*hdus, strict=True)
    numbers = np.asarray(next(texts), dtype=np.int64)
    names = ("HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME")
    fields: list[Any] = [("OBS_ID", "K", None, numbers, "number of the run")]
    for name in names:
        fields.append(_text(name, next(texts)))
    fields.append(("SIZE", "K", None, np.asarray(next(texts), dtype=np.int64), "bytes of the file"))
    fields.append(_text("MD5", next(texts)))
    common = key.place_of(runs[0][0].site) | key.origin_of(runs[0][0], event_class)
    index = table_of("HDU_INDEX", fields, key.hdu_class("INDEX", "HDU") | common)
    write_fits(folder / HDU_INDEX, [fits.PrimaryHDU(), index], overwrite=overwrite)
    observations = table_of(
        "OBS_INDEX",
        _observations([run for run, _ in runs]),
        key.hdu_class("INDEX", "OBS") | key.time_system() | common,
    )
    write_fits(folder / OBS_INDEX, [fits.PrimaryHDU(), observations], overwrite=overwrite)


def _rows(folder: Path, name: str) -> list[tuple[str, str, str, str, str, int, str]]:
    """Return type, class, folder, file, table, size and checksum of every table of a file."""
    from astropy.io import fits

    data = (folder / name).read_bytes()
    rows = []
    with fits.open(folder / name) as file:
        for hdu in file[1:]:
            words = [str(hdu.header.get(f"HDUCLAS{number}", "")) for number in (1, 2, 4)]
            if words[0] == "RESPONSE":
                kind, form = TYPES.get(words[1], ""), words[2].lower()
            else:
                kind = form = words[0].lower()
            if kind:
                checksum = hashlib.md5(data, usedforsecurity=False).hexdigest()
                rows.append((kind, form, ".", name, hdu.name, len(data), checksum))
    return rows


def _text(name: str, values: Sequence[str], comment: str = "") -> Any:
    width = max(1, *(len(value) for value in values))
    return name, f"{width}A", None, np.asarray(values), comment


def _observations(runs: Sequence[Run]) -> list[Any]:
    """Return the columns of the table of runs."""

    def numbers(name: str, unit: str | None, values: Sequence[Any], text: str = "") -> Any:
        form = "K" if isinstance(values[0], int) else "D"
        return name, form, unit, np.asarray(values), text

    medians = [_medians(run) for run in runs]
    points = [run.pointing for run in runs]
    return [
        numbers("OBS_ID", None, [run.obs_id for run in runs], "number of the run"),
        _text("OBS_MODE", [point.mode for point in points]),
        numbers("RA_PNT", "deg", [point.ra_deg for point in points], "pointing, ICRS"),
        numbers("DEC_PNT", "deg", [point.dec_deg for point in points], "pointing, ICRS"),
        numbers("ALT_PNT", "deg", [point.alt_deg for point in points], "middle of the run"),
        numbers("AZ_PNT", "deg", [point.az_deg for point in points], "middle of the run"),
        numbers("ZEN_PNT", "deg", [90.0 - point.alt_deg for point in points]),
        numbers("TSTART", "s", [run.start for run in runs], "start"),
        numbers("TSTOP", "s", [run.stop for run in runs], "end"),
        numbers("ONTIME", "s", [run.ontime for run in runs], "sum of good time intervals"),
        numbers("LIVETIME", "s", [run.livetime for run in runs], "without dead time"),
        numbers("DEADC", None, [1.0 - run.dead_time for run in runs], "LIVETIME / ONTIME"),
        _text("DATE-OBS", [utc_text(run.start)[:10] for run in runs]),
        _text("TIME-OBS", [utc_text(run.start)[11:] for run in runs]),
        _text("DATE-END", [utc_text(run.stop)[:10] for run in runs]),
        _text("TIME-END", [utc_text(run.stop)[11:] for run in runs]),
        numbers("N_TELS", None, [len(run.tel_ids) for run in runs], "telescopes"),
        _text("TELLIST", [",".join(map(str, run.tel_ids)) for run in runs]),
        _text("OBJECT", [run.target.name for run in runs], "target"),
        numbers("RA_OBJ", "deg", [run.target.ra_deg for run in runs], "target, ICRS"),
        numbers("DEC_OBJ", "deg", [run.target.dec_deg for run in runs], "target, ICRS"),
        numbers("EVENT_COUNT", None, [len(run) for run in runs], "events selected"),
        numbers("EVENT_ENERGY_MEDIAN", "TeV", [row[0] for row in medians]),
        numbers("EVENT_TIME_MIN", "s", [row[1] for row in medians]),
        numbers("EVENT_TIME_MAX", "s", [row[2] for row in medians]),
    ]


def _medians(run: Run) -> tuple[float, float, float]:
    """Return the median energy, and first and last time; NaN without events."""
    if not len(run):
        return float("nan"), float("nan"), float("nan")
    times = run.columns["time"]
    return float(np.median(run.columns["reco_energy"])), float(times.min()), float(times.max())
