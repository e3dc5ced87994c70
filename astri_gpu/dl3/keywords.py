"""Keywords of event lists and index files: class, times, place, run (GADF v0.3).

Each function returns name -> (value, comment).
"""

from typing import Any

from astri_gpu.dl3.run import DRIFT, Run
from astri_gpu.dl3.sky import Site, utc_text
from astri_gpu.responses.gadf_write import GADF, gadf_keywords

__all__ = [
    "hdu_class",
    "origin_of",
    "place_of",
    "pointing_of",
    "run_of",
    "time_system",
]

Keywords = dict[str, tuple[Any, str]]

# 2020-01-01T00:00:00 UTC is 69.184 s later in TT (37 leap seconds and 32.184 s).
MJDREFI = 58849
MJDREFF = 69.184 / 86400


def hdu_class(first: str, second: str | None = None) -> Keywords:
    """Return the HDUCLASn chain."""
    keys: Keywords = GADF | {"HDUCLAS1": (first, "class of this table")}
    return keys | ({"HDUCLAS2": (second, "second class")} if second else {})


def time_system() -> Keywords:
    """Return what times are counted from: TT seconds since 2020-01-01T00:00:00 UTC."""
    return {
        "MJDREFI": (MJDREFI, "[d] times are counted from here, whole days"),
        "MJDREFF": (MJDREFF, "[d] rest: zero is 2020-01-01T00:00:00 UTC"),
        "TIMEUNIT": ("s", "unit of times"),
        "TIMESYS": ("TT", "time system"),
        "TIMEREF": ("LOCAL", "where times are taken"),
    }


def place_of(site: Site) -> Keywords:
    """Return the place of the array."""
    return {
        "GEOLON": (site.longitude_deg, "[deg] longitude, East positive"),
        "GEOLAT": (site.latitude_deg, "[deg] geodetic latitude"),
        "ALTITUDE": (site.altitude_m, "[m] above sea level"),
    }


def pointing_of(run: Run) -> Keywords:
    """Return mode and direction of the pointing."""
    pointing = run.pointing
    keys: Keywords = {
        "OBS_MODE": (pointing.mode, "how the array followed the sky"),
        "RA_PNT": (pointing.ra_deg, "[deg] pointing, ICRS"),
        "DEC_PNT": (pointing.dec_deg, "[deg] pointing, ICRS"),
        "ALT_PNT": (pointing.alt_deg, "[deg] pointing in the middle of the run"),
        "AZ_PNT": (pointing.az_deg, "[deg] pointing in the middle of the run"),
        "EQUINOX": (2000.0, "[yr]"),
        "RADECSYS": ("ICRS", "frame of right ascensions and declinations"),
    }
    if pointing.mode == DRIFT:
        middle = "[deg] in the middle of the run, ICRS"
        keys |= {
            "RA_PNT": (pointing.ra_deg, middle),
            "DEC_PNT": (pointing.dec_deg, middle),
            "ALT_PNT": (pointing.alt_deg, "[deg] pointing"),
            "AZ_PNT": (pointing.az_deg, "[deg] pointing"),
        }
    return keys


def origin_of(run: Run, event_class: str) -> Keywords:
    """Return who made the data and with which forests, and the event class."""
    meta = {"models": run.models, "simulation_model": run.simulation_model}
    keys: Keywords = gadf_keywords(event_class, meta)
    if run.cameras:
        keys["INSTRUME"] = (",".join(run.cameras), "camera")
    return keys


def run_of(run: Run) -> Keywords:
    """Return number, target and times of a run."""
    distance, angle = run.wobble
    return {
        "OBS_ID": (run.obs_id, "number of the run"),
        "OBJECT": (run.target.name, "target"),
        "RA_OBJ": (run.target.ra_deg, "[deg] target, ICRS"),
        "DEC_OBJ": (run.target.dec_deg, "[deg] target, ICRS"),
        "WOBBLE": (round(distance, 4), "[deg] pointing from the target"),
        "WOBBLEPA": (round(angle, 3) % 360.0, "[deg] its position angle, North over East"),
        "TSTART": (run.start, "[s] start of the run"),
        "TSTOP": (run.stop, "[s] end of the run"),
        "DATE-OBS": (utc_text(run.start), "UTC, start"),
        "DATE-BEG": (utc_text(run.start), "UTC, start"),
        "DATE-AVG": (utc_text((run.start + run.stop) / 2), "UTC, middle"),
        "DATE-END": (utc_text(run.stop), "UTC, end"),
        "TELAPSE": (run.stop - run.start, "[s] TSTOP - TSTART"),
        "ONTIME": (run.ontime, "[s] sum of the good time intervals"),
        "LIVETIME": (run.livetime, "[s] of it, without dead time"),
        "DEADC": (1.0 - run.dead_time, "LIVETIME / ONTIME"),
    }
