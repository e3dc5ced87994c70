"""Event list, good time intervals and pointing of a run as one FITS file (GADF v0.3).

Beyond GADF there are MC_ID, MC_ENERG and MC_PRIM where simulated events stand in for observed ones,
and the keywords WOBBLE, WOBBLEPA, VALIDLO, VALIDHI, MODELSUM, SIMMODEL and STANDIN.
"""

import gzip
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3 import keywords as key
from astri_gpu.dl3.gti import check_intervals
from astri_gpu.dl3.run import Run
from astri_gpu.dl3.sky import to_icrs, utc_text
from astri_gpu.kernels.coordinates import altaz_to_telescope
from astri_gpu.lineage.cards import step_cards
from astri_gpu.output_file import whole_file
from astri_gpu.selection.cuts import Cuts

__all__ = ["file_stem", "table_of", "write_events", "write_fits"]

Field = tuple[str, str, str | None, Any, str]  # name, form, unit, values, comment
TYPE_BITS = 32
POINTING_STEP_S = 10.0
LONG_TEXT = 40  # characters


def file_stem(run: Run, kind: str, event_class: str) -> str:
    """Return the name of a file of a run as ASTRI forms it, without its ending.

    Parameters
    ----------
    run
        Names date, target, wobble and number: the last six digits number the run, what stands
        before them the observation.
    kind
        "0201" for event lists, "0502" for responses.
    event_class
        Such as cc03.
    """
    distance, angle = run.wobble
    target = "".join(c for c in run.target.name if c.isalnum() or c in "+-") or "target"
    observation, number = divmod(run.obs_id, 10**6)
    date = utc_text(run.start)[:10].replace("-", "")
    return (
        f"{date}_MA_{target}_W{distance:.2f}p{round(angle) % 360:03d}_{observation:08d}_R_"
        f"{number:06d}_{kind}_{event_class}.lv3"
    )


def write_events(
    path: str | Path,
    run: Run,
    cuts: Cuts,
    *,
    keywords: Mapping[str, tuple[Any, str]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the selected events of a run with GTI and POINTING.

    Parameters
    ----------
    path
        A name that ends in .gz is compressed.
    run
        After `Run.selected`.
    cuts
        Name the class and the energies for which there are cuts.
    keywords
        More of the event list, name -> (value, comment).
    provenance
        Record of the step that makes it, for keywords of the primary header.
    overwrite
        Replace an existing file.

    Raises
    ------
    UsageError
        When the file exists and may not be replaced.
    AstriError
        When the good time intervals are not in order, overlap or have no length, times cannot be
        put on the sky, or the disk takes no more.
    """
    from astropy.io import fits

    check_intervals(run.gti, f"Run {run.obs_id}")
    events = table_of(
        "EVENTS", _event_fields(run), _event_keywords(run, cuts) | dict(keywords or {})
    )
    good = table_of(
        "GTI",
        [
            ("START", "D", "s", run.gti[:, 0], "start of the interval"),
            ("STOP", "D", "s", run.gti[:, 1], "end of the interval"),
        ],
        key.hdu_class("GTI") | {"OBS_ID": (run.obs_id, "number of the run")} | key.time_system(),
    )
    primary = fits.PrimaryHDU()
    primary.header["OBS_ID"] = (run.obs_id, "number of the run")
    for text in _origin(run):
        primary.header.add_comment(text.encode("ascii", "replace").decode())
    for word, card in step_cards(provenance).items():
        primary.header[word] = card
    write_fits(path, [primary, events, good, _pointing(run)], overwrite=overwrite)


def write_fits(path: str | Path, hdus: list[Any], *, overwrite: bool = False) -> None:
    """Write HDUs as one file, which appears whole or not at all; ending .gz compresses it.

    The compressed file does not hold its name and the time, so equal tables make equal files.
    """
    from astropy.io import fits

    memory = BytesIO()
    fits.HDUList(hdus).writeto(memory, checksum=True)
    data = memory.getvalue()
    if Path(path).suffix == ".gz":
        data = gzip.compress(data, compresslevel=6, mtime=0)
    with whole_file(path, overwrite=overwrite) as unfinished:
        unfinished.write_bytes(data)


def table_of(name: str, fields: list[Field], keywords: Mapping[str, tuple[Any, str]]) -> Any:
    """Return a table for a FITS file.

    Parameters
    ----------
    name
        EXTNAME.
    fields
        Columns: name, form, unit, values (row,), comment.
    keywords
        name -> (value, comment); values that are None are left out.
    """
    from astropy.io import fits

    columns = [
        fits.Column(name=field, format=form, unit=unit, array=values)
        for field, form, unit, values, _ in fields
    ]
    hdu = fits.BinTableHDU.from_columns(columns, name=name)
    for number, (*_, text) in enumerate(fields, 1):
        hdu.header.comments[f"TTYPE{number}"] = text
    for word, (value, text) in keywords.items():
        if value is not None:
            # A long text goes over several cards, which leaves no place for a comment.
            hdu.header[word] = (value, "" if len(str(value)) > LONG_TEXT else text)
    return hdu


def _event_fields(run: Run) -> list[Field]:
    columns = run.columns
    sky = to_icrs(columns["alt"], columns["az"], columns["time"], run.site)
    place = altaz_to_telescope(
        columns["alt"], columns["az"], columns["pointing_alt"], columns["pointing_az"]
    )
    quality = np.asarray(columns["quality"], dtype=np.int64)
    bits = quality[:, None] == np.arange(1, TYPE_BITS + 1)
    fields: list[Field] = [
        ("EVENT_ID", "K", None, columns["event_id"], "number of the event"),
        ("TIME", "D", "s", columns["time"], "time"),
        ("RA", "D", "deg", sky.ra, "reconstructed, ICRS"),
        ("DEC", "D", "deg", sky.dec, "reconstructed, ICRS"),
        ("ENERGY", "E", "TeV", columns["reco_energy"], "reconstructed"),
        ("EVENT_TYPE", f"{TYPE_BITS}X", None, bits, "bit 1 = best quality to bit 4 = worst"),
        ("MULTIP", "J", None, columns["n_tels"], "images that were used"),
        ("GAMMANESS", "E", None, columns["gammaness"], "score, 1 = gamma"),
        ("ALT", "D", "deg", columns["alt"], "reconstructed, no refraction"),
        ("AZ", "D", "deg", columns["az"], "reconstructed, North over East"),
        # GADF counts the longitude of the field against azimuth.
        ("DETX", "E", "deg", -np.asarray(place.fov_lon), "in the field, against azimuth"),
        ("DETY", "E", "deg", place.fov_lat, "in the field, along altitude"),
    ]
    known: dict[str, tuple[str, str, str | None, str]] = {
        "direction_error": ("DIR_ERR", "E", "deg", "expected error of the direction"),
        "energy_error": ("ENERGY_ERR", "E", "TeV", "expected error of the energy"),
        "core_x": ("COREX", "E", "m", "core on the ground, towards North"),
        "core_y": ("COREY", "E", "m", "core on the ground, towards West"),
        "shower_key": ("MC_ID", "K", None, "simulated shower (astri_gpu)"),
        "true_energy": ("MC_ENERG", "E", "TeV", "true energy (astri_gpu)"),
        "primary": ("MC_PRIM", "J", None, "0 gamma, 1 electron, 101 proton, 402 helium"),
    }
    fields += [
        (name, form, unit, columns[column], text)
        for column, (name, form, unit, text) in known.items()
        if column in columns
    ]
    return fields


def _event_keywords(run: Run, cuts: Cuts) -> key.Keywords:
    valid = cuts.valid_range_tev or (None, None)
    return (
        key.hdu_class("EVENTS")
        | key.run_of(run)
        | key.pointing_of(run)
        | key.origin_of(run, cuts.event_class)
        | key.time_system()
        | key.place_of(run.site)
        | {
            "EUNIT": ("TeV", "unit of energies"),
            "FOVALIGN": ("ALTAZ", "alignment of DETX and DETY"),
            "VALIDLO": (valid[0], "[TeV] there are cuts from here"),
            "VALIDHI": (valid[1], "[TeV] to here"),
            "N_TELS": (len(run.tel_ids) or None, "telescopes"),
            "TELLIST": (",".join(map(str, run.tel_ids)) or None, "their numbers"),
            "STANDIN": (run.stand_in, "simulated events stand in for an observation"),
        }
    )


def _origin(run: Run) -> tuple[str, ...]:
    words = [run.simulation_model or "", *run.notes]
    return tuple(text for text in words if text)


def _pointing(run: Run) -> Any:
    n_steps = max(1, int(np.ceil((run.stop - run.start) / POINTING_STEP_S)))
    times: NDArray[np.float64] = np.linspace(run.start, run.stop, n_steps + 1)
    alt, az = run.pointing.altaz(times, run.site)
    if run.pointing.mode == "DRIFT":
        ra, dec = to_icrs(alt, az, times, run.site)
    else:
        ra, dec = (np.full(times.shape, value) for value in run.pointing[1:3])
    return table_of(
        "POINTING",
        [
            ("TIME", "D", "s", times, "time"),
            ("RA_PNT", "D", "deg", ra, "pointing, ICRS"),
            ("DEC_PNT", "D", "deg", dec, "pointing, ICRS"),
            ("ALT_PNT", "D", "deg", alt, "pointing, no refraction"),
            ("AZ_PNT", "D", "deg", az, "pointing, North over East"),
        ],
        key.hdu_class("POINTING")
        | {"OBS_ID": (run.obs_id, "number of the run")}
        | key.time_system()
        | key.place_of(run.site),
    )
