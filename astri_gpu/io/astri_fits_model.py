"""Columns of A-SciSoft-like FITS files, by level: names, types and units in the order of the files.

The columns of lv1b, lv1c and lv2a and the layout of SIM_EVTS and TELCONF are those of published
ASTRI files. Not public, and therefore ours, are: the columns of lv2b, the names in TELCONF and all
names in SIM_EVTS but MCEVTNUM, MCRUNNUM and E0, and the HDUs ASTRIGPU and SIM_MORE.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from astri_gpu.schema import TABLES

__all__ = [
    "ARRAY_LEVELS",
    "EVENTS",
    "EXTRA",
    "EXTRA_TRUTH",
    "FIRST_SECOND",
    "IMAGE_LEVELS",
    "LARGEST_CAMERA",
    "LEVELS",
    "MODEL_KEY",
    "PREDICTIONS",
    "SIMULATED",
    "SIM_FIELDS",
    "STEREO",
    "TELCONF",
    "TEL_LEVELS",
    "TRUTH",
    "Field",
    "fields",
    "numpy_type",
    "telescope_fields",
]

LEVELS = ("lv1b", "lv1c", "lv2a", "lv2b")
TEL_LEVELS = ("lv1b", "lv1c")
"""One file per telescope."""
IMAGE_LEVELS = ("lv1b", "lv1c", "lv2a")
"""One row per image."""
ARRAY_LEVELS = ("lv2a", "lv2b")

EVENTS, SIMULATED, TELCONF = "EVENTS", "SIM_EVTS", "TELCONF"
EXTRA = "ASTRIGPU"
"""HDU of ours, one row: what the format has no place for (run headers, thrown showers, JSON)."""
EXTRA_TRUTH = "SIM_MORE"
"""HDU of ours, one row for every row of SIM_EVTS."""
MODEL_KEY = "SIMMODEL"
"""Keyword that says which program made simulated showers, where it is a fast model."""

FIRST_SECOND = 1_577_836_800
"""TIME_S = 0 in seconds since 1970: 2020-01-01T00:00:00 UTC."""

LARGEST_CAMERA = 100_000  # pixels


@dataclass(frozen=True)
class Field:
    """One column: name, NumPy type, unit as in TUNIT, and what it is.

    `table` and `column` name the place in the store that holds the same quantity, if there is one.
    """

    name: str
    dtype: str
    unit: str
    text: str
    table: str | None = None
    column: str | None = None
    shape: tuple[int, ...] = ()
    required: bool = True  # in a file that is read


def numpy_type(entries: Sequence[Field]) -> np.dtype[Any]:
    """Return the type of a row."""
    return np.dtype([(entry.name, entry.dtype, entry.shape) for entry in entries])


_UNITS = {"electron": "pe"}
_UNSIGNED = {"NUMISLAND": "u2", "NUMCORE": "u2", "NUMBOUNDARY": "u2"}


def _stored(name: str) -> Field:
    """Return the column of a quantity that the schema knows under its A-SciSoft name."""
    for table in ("dl1/image", "dl2/image"):
        for entry in TABLES[table].values():
            if entry.astri == name:
                return Field(
                    name,
                    _UNSIGNED.get(name, "f4"),
                    _UNITS.get(entry.unit, entry.unit),
                    entry.description,
                    table,
                    entry.name,
                )
    raise KeyError(name)


_TIME = (
    Field("VT", "?", "", "True = TIME_S and TIME_NS are valid"),
    Field("TIME_UTC", "S19", "", "Time, whole seconds (UTC)", required=False),
    Field("TIME_S", "i4", "s", "UTC seconds since 2020-01-01T00:00:00"),
    Field("TIME_NS", "i4", "ns", "Nanoseconds to add to TIME_S"),
)
_COUNTER = Field("EVT_CTR", "u4", "", "Event counter")
_PARAMETERS = (
    *("SIZE", "MEANX", "MEANY", "LENGTH", "WIDTH", "DELTA", "ASYM", "CONC", "MDIST", "M3LONG"),
    *("LEAKAGE", "DIST", "MISS", "ALPHA", "COSDELTAALPHA"),
    *("NUMISLAND", "SIZEMISL", "NUMCORE", "NUMBOUNDARY"),
)
_POINTING = (
    Field("ZD", "f4", "deg", "Zenith distance of the telescope pointing"),
    Field("AZ", "f4", "deg", "Azimuth of the telescope pointing"),
    Field("XSRCPOS", "f4", "deg", "Assumed source, on the axis of MEANX"),
    Field("YSRCPOS", "f4", "deg", "Assumed source, on the axis of MEANY"),
)
PREDICTIONS = ("GAMMANESS", "EST_EN", "DISP", "XDISP", "YDISP")
_IMAGE = (*_TIME, _COUNTER, *map(_stored, _PARAMETERS), *_POINTING)
_PREDICTED = tuple(map(_stored, PREDICTIONS))

STEREO = (
    Field("STVALID", "?", "", "True = the stereo reconstruction succeeded"),
    Field("STXDIR", "f4", "deg", "Stereo direction, on the axis of MEANX"),
    Field("STYDIR", "f4", "deg", "Stereo direction, on the axis of MEANY"),
    Field("STXCORE", "f4", "m", "Core on the ground towards North"),
    Field("STYCORE", "f4", "m", "Core on the ground towards West"),
    Field("STMAXH", "f4", "m", "Height of the shower maximum above sea level"),
    Field("STMINDIR", "f4", "deg", "Spread of the direction (ours: of the crossings)"),
    Field("STMINCORE", "f4", "", "Minimum of the core fit (not known here)"),
    Field("STMINMAXH", "f4", "", "Minimum of the height fit (not known here)"),
    Field("STIP", "f4", "m", "Distance of array centre and shower axis"),
    Field("TELIP", "f4", "m", "Distance of telescope and shower axis"),
)
_ARRAY_KEYS = (
    Field("EVTNUM", "i4", "", "Array event number"),
    Field("NTRIGTEL", "i4", "", "Telescopes with an image"),
    Field("TRIGTEL", "i4", "", "The same as bits: bit k = row k of TELCONF"),
)
_TEL_TYPE = Field("TELTYPE", "i4", "", "Telescope type, as in TELCONF")
_USED = Field("NUSEDTEL", "i4", "", "Telescopes used in the stereo reconstruction")
_RUN = Field("MCRUNNUM", "i4", "", "Run number of the simulation", required=False)
_NUMBER = Field("EVTNUM", "i4", "", "Array event number", required=False)


def _event(name: str, dtype: str, unit: str, column: str, text: str | None = None) -> Field:
    entry = TABLES["dl2/event"][column]
    return Field(name, dtype, unit, text or entry.description, "dl2/event", column)


_LV2B = (
    *_TIME,
    *_ARRAY_KEYS,
    Field("ZD", "f8", "deg", "Zenith distance of the array pointing"),
    Field("AZ", "f8", "deg", "Azimuth of the array pointing"),
    _event("EST_EN", "f4", "TeV", "reco_energy"),
    _event("EST_ENERR", "f4", "TeV", "reco_energy_uncert"),
    _event("GAMMANESS", "f4", "", "gammaness"),
    _event("XDIR", "f4", "deg", "reco_fov_lon"),
    _event("YDIR", "f4", "deg", "reco_fov_lat"),
    _event("DIRERR", "f4", "deg", "reco_direction_uncert"),
    _event("DIRALT", "f8", "deg", "reco_alt"),
    _event("DIRAZ", "f8", "deg", "reco_az"),
    _event("NUSEDTEL", "i4", "", "reco_n_tels"),
    _event("QUALITY", "i4", "", "event_quality"),
    _event("VALID", "?", "", "reco_is_valid"),
    _event("MEANEN", "f4", "TeV", "mean_energy"),
    _event("MEANGAMM", "f4", "", "mean_gammaness"),
    _event("DISPALT", "f8", "deg", "disp_alt"),
    _event("DISPAZ", "f8", "deg", "disp_az"),
    _event("STVALID", "?", "", "stereo_is_valid"),
    _event("STALT", "f8", "deg", "stereo_alt"),
    _event("STAZ", "f8", "deg", "stereo_az"),
    _event("STXCORE", "f8", "m", "stereo_core_x"),
    _event("STYCORE", "f8", "m", "stereo_core_y"),
    _event("STXTILT", "f8", "m", "stereo_core_tilted_x"),
    _event("STYTILT", "f8", "m", "stereo_core_tilted_y"),
    _event("STMAXH", "f8", "m", "stereo_h_max"),
    _event("STMINDIR", "f8", "deg", "stereo_ang_distance_uncert"),
    _event("STSIZE", "f8", "pe", "stereo_average_intensity"),
    _event("STNTEL", "i4", "", "stereo_n_tels"),
)


def fields(level: str, *, simulated: bool) -> tuple[Field, ...]:
    """Return the columns of EVENTS of a level, in the order of the file.

    lv2a of observations lacks MCRUNNUM; lv1b and lv1c of simulations have EVTNUM and MCRUNNUM at
    their end, by which A-SciSoft finds the true energy in SIM_EVTS.
    """
    run = (_RUN,) if simulated else ()
    if level == "lv2b":
        return (*_LV2B, *run)
    if level == "lv2a":
        return (*_IMAGE, *_PREDICTED, *STEREO, *_ARRAY_KEYS, _TEL_TYPE, _USED, *run)
    predicted = _PREDICTED if level == "lv1c" else ()
    return (*_IMAGE, *predicted, *((_NUMBER, *run) if simulated else ()))


TRUTH = {
    "MCPART": "true_primary_id",
    "MCEVTNUM": "event_id",
    "MCRUNNUM": "obs_id",
    "E0": "true_energy",
    "MCZD": "true_alt",  # 90 deg less it
    "MCAZ": "true_az",
    "MCXCORE": "true_core_x",
    "MCYCORE": "true_core_y",
    "MCHFIRST": "true_h_first_int",
    "MCXMAX": "true_x_max",
    "MCXSTART": "true_starting_grammage",
}
"""Columns of SIM_EVTS and of simulation/event."""

_TRUTH_UNITS = {
    "E0": "TeV",
    **dict.fromkeys(("MCZD", "MCAZ"), "deg"),
    **dict.fromkeys(("MCXCORE", "MCYCORE", "MCHFIRST"), "m"),
    **dict.fromkeys(("MCXMAX", "MCXSTART"), "g cm-2"),
}
_TRUTH_TYPES = {"MCPART": "i2", "MCEVTNUM": "i4", "MCRUNNUM": "i4"}

SIM_FIELDS = tuple(
    Field(
        name,
        _TRUTH_TYPES.get(name, "f4"),
        _TRUTH_UNITS.get(name, ""),
        "Zenith distance of the primary's direction"
        if name == "MCZD"
        else TABLES["simulation/event"][column].description,
        "simulation/event",
        column,
        # Of the others in a file of A-SciSoft nobody outside knows the names.
        required=name in ("MCEVTNUM", "MCRUNNUM", "E0"),
    )
    for name, column in TRUTH.items()
)

_TELCONF = (
    Field("TELID", "i4", "", "Telescope number"),
    Field("TELTYPE", "i4", "", "Number of the camera type, from 1"),
    Field("POSX", "f4", "m", "Position towards North"),
    Field("POSY", "f4", "m", "Position towards West"),
    Field("POSZ", "f4", "m", "Height above the observation level"),
    Field("FOCLEN", "f4", "m", "Equivalent focal length"),
    Field("EFFFOC", "f4", "m", "Effective focal length, NaN = unknown"),
    Field("NMIRROR", "i4", "", "Number of mirrors"),
    Field("MIRAREA", "f4", "m2", "Mirror area"),
    Field("PIXAREA", "f4", "m2", "Mean sensitive area of a pixel"),
    Field("CAMROT", "f4", "deg", "Rotation of the camera (0: derotated)"),
    Field("NPIX", "i4", "", "Pixels of the camera"),
    Field("XPIX", "f4", "m", "Pixel centres, x (up in altitude)"),
    Field("YPIX", "f4", "m", "Pixel centres, y (along azimuth)"),
    Field("PIXFLAG", "u1", "", "1 = pixel of the camera, 0 = padding"),
)


def telescope_fields(n_pixels: int) -> tuple[Field, ...]:
    """Return the columns of TELCONF for cameras of so many pixels (2368 for ASTRI)."""
    return tuple(
        replace(entry, shape=(n_pixels,)) if entry.name in ("XPIX", "YPIX", "PIXFLAG") else entry
        for entry in _TELCONF
    )
