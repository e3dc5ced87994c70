"""Tables of the GADF format, version 0.3: what headers and columns have to be."""

from dataclasses import dataclass

__all__ = [
    "AXIS_UNITS",
    "DRIFT",
    "ENCLOSURES",
    "HDU_CLASSES",
    "OBSERVATION_COLUMNS",
    "RESPONSES",
    "TABLES",
    "VERSION",
    "Column",
    "Keyword",
    "Response",
    "Table",
]

VERSION = "0.3"
ENCLOSURES = ("FULL-ENCLOSURE", "POINT-LIKE")
NUMBER, WHOLE, TEXT, BITS = "number", "whole number", "text", "bits"


@dataclass(frozen=True)
class Keyword:
    """A keyword of a header."""

    name: str
    kind: str
    values: tuple[str, ...] = ()
    """Allowed texts, large letters (readers do not look at the case); empty = any."""
    low: float | None = None
    high: float | None = None
    mandatory: bool = True


@dataclass(frozen=True)
class Column:
    """A column with one number (or text) per row."""

    name: str
    kind: str
    unit: str = ""
    mandatory: bool = True
    wide: bool = False
    """Whether it needs 64 bits."""


@dataclass(frozen=True)
class Table:
    """A kind of table that has rows."""

    chain: tuple[str, ...]
    """HDUCLAS1 and so on."""
    keywords: tuple[Keyword, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Response:
    """A kind of response, a table of one row."""

    clas2: str
    axes: tuple[str, ...]
    """In the recommended order: the first varies fastest in the file."""
    values: dict[str, str]
    """Column to unit."""
    hdu_type: str


TIME_SCALES = ("TT", "TAI", "UTC", "TDB", "TDT", "ET", "TCB", "TCG", "UT1", "GPS", "UT", "IAT")
TIME_FRAMES = (
    "LOCAL",
    "TOPOCENTER",
    "GEOCENTER",
    "GEOCENTRIC",
    "BARYCENTER",
    "SOLARSYSTEM",
    "HELIOCENTER",
    "HELIOCENTRIC",
)
TIME_KEYWORDS = (
    Keyword("MJDREFI", WHOLE, low=0),
    Keyword("MJDREFF", NUMBER, low=0, high=1),
    Keyword("TIMEUNIT", TEXT, ("S",)),
    Keyword("TIMESYS", TEXT, TIME_SCALES),
    Keyword("TIMEREF", TEXT, TIME_FRAMES),
)
LOCATION_KEYWORDS = (
    Keyword("GEOLON", NUMBER, low=-180, high=360),
    Keyword("GEOLAT", NUMBER, low=-90, high=90),
    Keyword("ALTITUDE", NUMBER, low=-500, high=10000),
)
DRIFT = (
    Keyword("ALT_PNT", NUMBER, low=-90, high=90),
    Keyword("AZ_PNT", NUMBER, low=0, high=360),
)
"""Mandatory only where OBS_MODE is DRIFT."""
OBSERVATION_MODES = ("POINTING", "RASTER", "SLEW", "SCAN", "DRIFT")

EVENT_KEYWORDS = (
    Keyword("OBS_ID", WHOLE, low=0),
    Keyword("TSTART", NUMBER),
    Keyword("TSTOP", NUMBER),
    Keyword("ONTIME", NUMBER, low=0),
    Keyword("LIVETIME", NUMBER, low=0),
    Keyword("DEADC", NUMBER, low=0, high=1),
    Keyword("OBS_MODE", TEXT, OBSERVATION_MODES),
    Keyword("RA_PNT", NUMBER, low=0, high=360),
    Keyword("DEC_PNT", NUMBER, low=-90, high=90),
    Keyword("EQUINOX", NUMBER, low=1900, high=2100),
    Keyword("RADECSYS", TEXT, ("ICRS", "FK5")),
    Keyword("ORIGIN", TEXT),
    Keyword("TELESCOP", TEXT),
    Keyword("INSTRUME", TEXT),
    Keyword("CREATOR", TEXT),
    *TIME_KEYWORDS,
    *LOCATION_KEYWORDS,
    Keyword("RA_OBJ", NUMBER, low=0, high=360, mandatory=False),
    Keyword("DEC_OBJ", NUMBER, low=-90, high=90, mandatory=False),
    Keyword("OBJECT", TEXT, mandatory=False),
    Keyword("OBSERVER", TEXT, mandatory=False),
    Keyword("EV_CLASS", TEXT, mandatory=False),
    Keyword("N_TELS", WHOLE, low=1, mandatory=False),
    Keyword("TELLIST", TEXT, mandatory=False),
    Keyword("TELAPSE", NUMBER, low=0, mandatory=False),
)


def _optional(unit: str, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, NUMBER, unit, mandatory=False) for name in names)


TABLES = {
    "EVENTS": Table(
        ("EVENTS",),
        EVENT_KEYWORDS,
        (
            Column("EVENT_ID", WHOLE, wide=True),
            Column("TIME", NUMBER, "s", wide=True),
            Column("RA", NUMBER, "deg"),
            Column("DEC", NUMBER, "deg"),
            Column("ENERGY", NUMBER, "TeV"),
            Column("EVENT_TYPE", BITS, mandatory=False),
            Column("MULTIP", WHOLE, mandatory=False),
            *_optional("deg", "GLON", "GLAT", "ALT", "AZ", "DETX", "DETY", "THETA", "PHI"),
            *_optional("deg", "DIR_ERR"),
            *_optional("", "GAMMANESS", "HIL_MSW", "HIL_MSL"),
            *_optional("TeV", "ENERGY_ERR"),
            *_optional("m", "COREX", "COREY", "CORE_ERR"),
        ),
    ),
    "GTI": Table(
        ("GTI",),
        TIME_KEYWORDS,
        (Column("START", NUMBER, "s", wide=True), Column("STOP", NUMBER, "s", wide=True)),
    ),
    "POINTING": Table(
        ("POINTING",),
        (*TIME_KEYWORDS, *LOCATION_KEYWORDS),
        (
            Column("TIME", NUMBER, "s", wide=True),
            Column("RA_PNT", NUMBER, "deg"),
            Column("DEC_PNT", NUMBER, "deg"),
            *_optional("deg", "ALT_PNT", "AZ_PNT"),
        ),
    ),
    "OBS_INDEX": Table(
        ("INDEX", "OBS"),
        (*TIME_KEYWORDS, *LOCATION_KEYWORDS),
        (
            Column("OBS_ID", WHOLE),
            Column("OBS_MODE", TEXT),
            Column("RA_PNT", NUMBER, "deg"),
            Column("DEC_PNT", NUMBER, "deg"),
            Column("TSTART", NUMBER, "s", wide=True),
            Column("TSTOP", NUMBER, "s", wide=True),
            *_optional("deg", "ZEN_PNT", "ALT_PNT", "AZ_PNT", "RA_OBJ", "DEC_OBJ"),
            *_optional("s", "ONTIME", "LIVETIME"),
            *_optional("", "DEADC"),
            Column("N_TELS", WHOLE, mandatory=False),
            Column("QUALITY", WHOLE, mandatory=False),
            Column("EVENT_COUNT", WHOLE, mandatory=False),
            Column("OBJECT", TEXT, mandatory=False),
        ),
    ),
    "HDU_INDEX": Table(
        ("INDEX", "HDU"),
        (),
        (
            Column("OBS_ID", WHOLE),
            *(Column(name, TEXT) for name in ("HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME")),
            Column("HDU_NAME", TEXT),
            Column("SIZE", WHOLE, mandatory=False),
            Column("MD5", TEXT, mandatory=False),
        ),
    ),
}
"""Tables that have rows, by the name that their HDU usually has."""

OBSERVATION_COLUMNS = ("RA_PNT", "DEC_PNT", "TSTART", "TSTOP", "ONTIME", "LIVETIME", "DEADC")
"""Columns of an index of observations that repeat keywords of event lists."""

AXIS_UNITS = {
    "ENERG": "TeV",
    "THETA": "deg",
    "MIGRA": "",
    "RAD": "deg",
    "DETX": "deg",
    "DETY": "deg",
}

_FIELD = ("ENERG", "THETA")
_GAUSSIANS = {"SCALE": "sr-1", "SIGMA_1": "deg"}
for _number in (2, 3):
    _GAUSSIANS |= {f"AMPL_{_number}": "", f"SIGMA_{_number}": "deg"}

RESPONSES = {
    "AEFF_2D": Response("EFF_AREA", _FIELD, {"EFFAREA": "m2"}, "aeff"),
    "EDISP_2D": Response("EDISP", ("ENERG", "MIGRA", "THETA"), {"MATRIX": ""}, "edisp"),
    "PSF_TABLE": Response("RPSF", (*_FIELD, "RAD"), {"RPSF": "sr-1"}, "psf"),
    "PSF_3GAUSS": Response("RPSF", _FIELD, _GAUSSIANS, "psf"),
    "PSF_KING": Response("RPSF", _FIELD, {"GAMMA": "", "SIGMA": "deg"}, "psf"),
    "BKG_2D": Response("BKG", _FIELD, {"BKG": "s-1 MeV-1 sr-1"}, "bkg"),
    "BKG_3D": Response("BKG", ("ENERG", "DETX", "DETY"), {"BKG": "s-1 MeV-1 sr-1"}, "bkg"),
    "RAD_MAX_2D": Response("RAD_MAX", _FIELD, {"RAD_MAX": "deg"}, "rad_max"),
}
"""Responses, by HDUCLAS4."""

HDU_CLASSES = {
    "events": "events",
    "gti": "gti",
    "pointing": "pointing",
    **{name.lower(): response.hdu_type for name, response in RESPONSES.items()},
}
"""HDU_TYPE of each HDU_CLASS of an index."""
