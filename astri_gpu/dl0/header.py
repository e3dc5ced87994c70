"""The run in the primary header of its files: which run, where, when, and at what it looked.

Times are UTC here, as the clocks of the telescopes give them; event lists (DL3) have TT.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from astri_gpu import __version__
from astri_gpu.dl0.names import RunName, run_name
from astri_gpu.dl0.run_description import RunDescription
from astri_gpu.dl3.keywords import MJDREFI, Keywords, place_of
from astri_gpu.dl3.sky import Site, utc_text
from astri_gpu.errors import AstriError

__all__ = ["RunHeader", "array_cards", "run_cards", "run_of_header"]

LEVELS = {"CAL1": "DL1a"}
"""Data level of kinds of files that are not DL0."""
TELESCOP = "ASTRI-MA"


def run_cards(description: RunDescription, tel_id: int | None, kind: str) -> Keywords:
    """Return the cards of the primary header of a file of a run, name -> (value, comment).

    Parameters
    ----------
    description
        Of the run.
    tel_id
        Telescope of the file; None for files of the array.
    kind
        SCI, CAL, HK, VAR, SEB0 or CAL1.

    Raises
    ------
    AstriError
        When the description does not have the telescope.
    """
    tel_ids = tuple(telescope.tel_id for telescope in description.telescopes)
    telescope = {} if tel_id is None else _telescope(description, tel_id)
    return _cards(description, tel_ids, kind) | telescope


def array_cards(header: Mapping[str, Any], kind: str) -> Keywords:
    """Return the cards of a file of the array, from the header of a file of one telescope.

    Parameters
    ----------
    header
        Primary header, keyword -> value.
    kind
        SEB0 or CAL1.

    Raises
    ------
    AstriError
        When the header is none of a file of a run.
    """
    run = run_of_header(header, f"a DL0 file of observation {header.get('OBSNUM')}")
    return _cards(run, run.tel_ids, kind)


def _cards(run: "RunDescription | RunHeader", tel_ids: tuple[int, ...], kind: str) -> Keywords:
    cards: Keywords = {
        "ORIGIN": ("ASTRI", "who observed"),
        "TELESCOP": (TELESCOP, "array of telescopes"),
        "INSTRUME": (run.camera, "camera"),
        "CREATOR": (f"astri_gpu {__version__}", "what made this file"),
        "DATE": (datetime.now(UTC).isoformat(timespec="seconds")[:19], "UTC, made"),
        "LEVEL": (LEVELS.get(kind, "DL0"), "data level"),
        "DATATYPE": (kind, "kind of data"),
        "OBS_ID": (run.name.obs_id, "OBSNUM x 1 000 000 + RUNNUM"),
        "OBSNUM": (run.observation, "number of the observation"),
        "RUNNUM": (run.run, "number of the run in the observation"),
        "NIGHT": (run.date, "date of the evening"),
        "ARRAY": (run.array, "telescopes of the array"),
        "TELLIST": (",".join(map(str, tel_ids)), "of the run"),
        "N_TELS": (len(tel_ids), "telescopes of the run"),
        "OBJECT": (run.target, "target"),
        "RA_OBJ": (run.ra_deg, "[deg] target, ICRS"),
        "DEC_OBJ": (run.dec_deg, "[deg] target, ICRS"),
        "RA_PNT": (run.ra_pnt_deg, "[deg] pointing, ICRS"),
        "DEC_PNT": (run.dec_pnt_deg, "[deg] pointing, ICRS"),
        "EQUINOX": (2000.0, "[yr]"),
        "RADECSYS": ("ICRS", "frame of right ascensions and declinations"),
        "WOBBLE": (run.wobble_offset_deg, "[deg] pointing from the target"),
        "WOBBLEPA": (run.wobble_angle_deg, "[deg] its position angle, North over East"),
        "TSTART": (run.start_s, "[s] start of the run"),
        "TSTOP": (run.stop_s, "[s] end of the run"),
        "DATE-OBS": (utc_text(run.start_s), "UTC, start"),
        "DATE-END": (utc_text(run.stop_s), "UTC, end"),
        "MJDREFI": (MJDREFI, "[d] times are counted from here, whole days"),
        "MJDREFF": (0.0, "[d] rest: zero is 2020-01-01T00:00:00 UTC"),
        "TIMEUNIT": ("s", "unit of times"),
        "TIMESYS": ("UTC", "time system; no leap second came since 2020"),
        "TIMEREF": ("LOCAL", "where times are taken"),
    }
    cards |= place_of(Site(run.latitude_deg, run.longitude_deg, run.altitude_m))
    cards["PKTDESC"] = (run.descriptor, "packet format")
    if run.simulation_model is not None:
        cards["SIMMODEL"] = (run.simulation_model, "the run is simulated by this")
    return cards


def _telescope(description: RunDescription, tel_id: int) -> Keywords:
    for telescope in description.telescopes:
        if telescope.tel_id == tel_id:
            return {
                "TELID": (tel_id, "number of the telescope"),
                "TELX": (telescope.x_north_m, "[m] position, towards North"),
                "TELY": (telescope.y_west_m, "[m] position, towards West"),
                "TELZ": (telescope.z_m, "[m] position, upwards"),
            }
    known = ", ".join(str(telescope.tel_id) for telescope in description.telescopes)
    raise AstriError(
        f"The description of run {description.run} of observation {description.observation} has no "
        f"telescope {tel_id} (it has {known}): give the description of this run."
    )


@dataclass(frozen=True)
class RunHeader:
    """What a primary header says of its run; see `RunDescription` for the meaning."""

    kind: str
    observation: int
    run: int
    date: str
    target: str
    ra_deg: float
    dec_deg: float
    wobble_offset_deg: float
    wobble_angle_deg: float
    ra_pnt_deg: float
    dec_pnt_deg: float
    start_s: float
    stop_s: float
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    camera: str
    array: str
    descriptor: str
    tel_ids: tuple[int, ...]
    """All telescopes of the run."""
    tel_id: int | None = None
    """Of the file; None for files of the array."""
    position: tuple[float, float, float] | None = None
    """Of its telescope: towards North, towards West, upwards, m."""
    simulation_model: str | None = None

    @property
    def name(self) -> RunName:
        """Return the name of the run's files."""
        return run_name(
            self.date,
            self.target,
            (self.wobble_offset_deg, self.wobble_angle_deg),
            self.observation,
            self.run,
        )

    @property
    def obs_id(self) -> int:
        """Return observation x 1 000 000 + run."""
        return self.name.obs_id

    @property
    def site(self) -> Site:
        """Return where the array stands."""
        return Site(self.latitude_deg, self.longitude_deg, self.altitude_m)


def run_of_header(header: Mapping[str, Any], where: str) -> RunHeader:
    """Return what the primary header of a file of a run says.

    Parameters
    ----------
    header
        keyword -> value, as `io.fits_bulk.read_header` or astropy gives it.
    where
        Name of the file, for errors.

    Raises
    ------
    AstriError
        Which keyword of which file is missing or has a wrong value.
    """
    read = _Reader(header, where)
    tel_id = read.whole("TELID") if "TELID" in header else None
    position = None
    if tel_id is not None:
        position = (read.number("TELX"), read.number("TELY"), read.number("TELZ"))
    telescopes = read.text("TELLIST")
    try:
        tel_ids = tuple(int(number) for number in telescopes.split(","))
    except ValueError:
        raise read.wrong("TELLIST", telescopes) from None
    date = read.text("NIGHT")
    if len(date) != 8 or not date.isdigit():
        raise read.wrong("NIGHT", date)
    if read.text("TIMESYS") != "UTC":
        raise read.wrong("TIMESYS", header["TIMESYS"])
    return RunHeader(
        kind=read.text("DATATYPE"),
        observation=read.whole("OBSNUM"),
        run=read.whole("RUNNUM"),
        date=date,
        target=read.text("OBJECT"),
        ra_deg=read.number("RA_OBJ"),
        dec_deg=read.number("DEC_OBJ"),
        wobble_offset_deg=read.number("WOBBLE"),
        wobble_angle_deg=read.number("WOBBLEPA"),
        ra_pnt_deg=read.number("RA_PNT"),
        dec_pnt_deg=read.number("DEC_PNT"),
        start_s=read.number("TSTART"),
        stop_s=read.number("TSTOP"),
        latitude_deg=read.number("GEOLAT"),
        longitude_deg=read.number("GEOLON"),
        altitude_m=read.number("ALTITUDE"),
        camera=read.text("INSTRUME"),
        array=read.text("ARRAY"),
        descriptor=read.text("PKTDESC"),
        tel_ids=tel_ids,
        tel_id=tel_id,
        position=position,
        simulation_model=read.text("SIMMODEL") if "SIMMODEL" in header else None,
    )


class _Reader:
    """Values of a header, each checked."""

    def __init__(self, header: Mapping[str, Any], where: str) -> None:
        self._header = header
        self._where = where

    def wrong(self, name: str, value: Any) -> AstriError:
        said = "has no" if value is None else f"has {value!r} as"
        return AstriError(
            f"The primary header of {self._where} {said} {name}: it is no file of a run, or was "
            "made by other software. Make it from the packets with `astri-gpu preprocess`."
        )

    def text(self, name: str) -> str:
        value = self._header.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, value)
        return value

    def number(self, name: str) -> float:
        value = self._header.get(name)
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not real or not math.isfinite(value):  # type: ignore[arg-type]
            raise self.wrong(name, value)
        return float(value)  # type: ignore[arg-type]

    def whole(self, name: str) -> int:
        value = self._header.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(name, value)
        return value
