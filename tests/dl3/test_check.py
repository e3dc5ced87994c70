"""The check of GADF files: a correct file by hand, broken copies, real and damaged files."""

import gzip
import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.cli import main
from astri_gpu.config import CheckConfig
from astri_gpu.dl3.check import RULES, check_file
from astri_gpu.errors import UsageError
from astri_gpu.stages import check

CLASS = {
    "HDUCLASS": "GADF",
    "HDUDOC": "https://github.com/open-gamma-ray-astro/gamma-astro-data-formats",
    "HDUVERS": "0.3",
}
TIME = {
    "MJDREFI": 58849,
    "MJDREFF": 0.00080074,
    "TIMEUNIT": "s",
    "TIMESYS": "TT",
    "TIMEREF": "LOCAL",
}
PLACE = {"GEOLON": -16.5, "GEOLAT": 28.3, "ALTITUDE": 2390.0}
START, STOP = 190605663.0, 190607463.0
OBSERVATION = {
    "OBS_ID": 7,
    "TSTART": START,
    "TSTOP": STOP,
    "ONTIME": 1700.0,
    "LIVETIME": 1615.0,
    "DEADC": 0.95,
    "OBS_MODE": "POINTING",
    "RA_PNT": 83.6,
    "DEC_PNT": 22.5,
    "EQUINOX": 2000.0,
    "RADECSYS": "ICRS",
    "ORIGIN": "test",
    "TELESCOP": "ASTRI-MA",
    "INSTRUME": "CAMERA",
    "CREATOR": "test",
    "OBJECT": "Crab",
    "RA_OBJ": 83.6287,
    "DEC_OBJ": 22.0147,
    "DATE-OBS": "2026-01-15T02:01:03",
}


def _table(name, columns, *headers):
    """A table of (name, format, unit, values)."""
    made = [
        fits.Column(name=column, format=form, unit=unit, array=values, dim=dim)
        for column, form, unit, values, dim in ((*entry, None)[:5] for entry in columns)
    ]
    hdu = fits.BinTableHDU.from_columns(made, name=name)
    for header in headers:
        hdu.header.update(header)
    return hdu


def _response(name, kind, clas2, axes, values, **more):
    """A response with `values` (name, unit, array in the order of `axes`)."""
    columns = []
    for axis, unit, edges in axes:
        for side, part in (("LO", edges[:-1]), ("HI", edges[1:])):
            columns.append((f"{axis}_{side}", f"{len(part)}E", unit, part[None]))
    for column, unit, array in values:
        dim = "(" + ",".join(str(length) for length in array.shape) + ")"
        columns.append((column, f"{array.size}E", unit, array.T[None], dim))
    chain = {"HDUCLAS1": "RESPONSE", "HDUCLAS2": clas2, "HDUCLAS3": "FULL-ENCLOSURE"}
    return _table(name, columns, CLASS, chain, {"HDUCLAS4": kind}, more)


ENERGY = ("ENERG", "TeV", np.geomspace(0.1, 100, 7))
THETA = ("THETA", "deg", np.array([0.0, 1, 2, 4]))
MIGRA = ("MIGRA", None, np.linspace(0.2, 5, 13))
RAD = ("RAD", "deg", np.linspace(0, 1, 21))
DETX, DETY = (("DET" + axis, "deg", np.linspace(-4, 4, 9)) for axis in "XY")


def _psf_table():
    sigma = np.deg2rad(0.1)
    low, high = np.deg2rad(RAD[2][:-1]), np.deg2rad(RAD[2][1:])
    share = np.exp(-(low**2) / 2 / sigma**2) - np.exp(-(high**2) / 2 / sigma**2)
    return np.broadcast_to(share / (2 * np.pi * (np.cos(low) - np.cos(high))), (6, 3, 20))


def good_hdus():
    """Event list, intervals, pointing and every kind of response, all correct."""
    rng = np.random.default_rng(1)
    n = 40
    time = np.sort(
        np.concatenate(
            [rng.uniform(START, START + 900, n // 2), rng.uniform(STOP - 800, STOP, n // 2)]
        )
    )
    events = _table(
        "EVENTS",
        [
            ("EVENT_ID", "K", None, np.arange(n) + 1),
            ("TIME", "D", "s", time),
            ("RA", "E", "deg", rng.uniform(82, 85, n)),
            ("DEC", "E", "deg", rng.uniform(21, 23, n)),
            ("ENERGY", "E", "TeV", rng.uniform(0.5, 50, n)),
            ("EVENT_TYPE", "32X", None, np.ones((n, 32), dtype=bool)),
            ("MULTIP", "I", None, rng.integers(2, 9, n)),
        ],
        CLASS,
        {"HDUCLAS1": "EVENTS"},
        OBSERVATION,
        TIME,
        PLACE,
    )
    intervals = [("START", "D", "s", np.array([START, STOP - 800]))]
    intervals.append(("STOP", "D", "s", np.array([START + 900, STOP])))
    gti = _table("GTI", intervals, CLASS, {"HDUCLAS1": "GTI"}, TIME)
    pointing = _table(
        "POINTING",
        [
            ("TIME", "D", "s", np.array([START, STOP])),
            ("RA_PNT", "D", "deg", np.array([83.6, 83.6])),
            ("DEC_PNT", "D", "deg", np.array([22.5, 22.5])),
        ],
        CLASS,
        {"HDUCLAS1": "POINTING"},
        TIME,
        PLACE,
    )
    field = (6, 3)
    migra = np.exp(-((0.5 * (MIGRA[2][1:] + MIGRA[2][:-1]) - 1) ** 2))
    migra = migra / (migra * np.diff(MIGRA[2])).sum()
    matrix = np.broadcast_to(migra[None, :, None], (6, 12, 3))
    sigma = np.deg2rad(0.1)
    gauss = [("SCALE", "sr-1", np.full(field, 1 / (2 * sigma**2)))]
    gauss += [("SIGMA_1", "deg", np.full(field, 0.1))]
    for number in (2, 3):
        gauss += [(f"AMPL_{number}", None, np.zeros(field))]
        gauss += [(f"SIGMA_{number}", "deg", np.full(field, 0.2))]
    area = [("EFFAREA", "m2", np.full(field, 1e5))]
    field_background = [("BKG", "s-1 MeV-1 sr-1", np.full((6, 8, 8), 1e-6))]
    background = [("BKG", "s-1 MeV-1 sr-1", np.full(field, 1e-6))]
    king = [("GAMMA", None, np.full(field, 2.0)), ("SIGMA", "deg", np.full(field, 0.1))]
    name = "POINT SPREAD FUNCTION"
    both = [ENERGY, THETA]
    return [
        fits.PrimaryHDU(),
        events,
        gti,
        pointing,
        _response("EFFECTIVE AREA", "AEFF_2D", "EFF_AREA", both, area),
        _response(
            "ENERGY DISPERSION",
            "EDISP_2D",
            "EDISP",
            [ENERGY, MIGRA, THETA],
            [("MATRIX", None, matrix)],
        ),
        _response(name, "PSF_3GAUSS", "RPSF", both, gauss),
        _response("PSF TABLE", "PSF_TABLE", "RPSF", [*both, RAD], [("RPSF", "sr-1", _psf_table())]),
        _response("PSF KING", "PSF_KING", "RPSF", both, king),
        _response(
            "BACKGROUND", "BKG_3D", "BKG", [ENERGY, DETX, DETY], field_background, FOVALIGN="ALTAZ"
        ),
        _response("BACKGROUND 2D", "BKG_2D", "BKG", both, background),
        _response(
            "RAD_MAX", "RAD_MAX_2D", "RAD_MAX", both, [("RAD_MAX", "deg", np.full(field, 0.2))]
        ),
    ]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A correct file."""
    path = tmp_path_factory.mktemp("good") / "good.fits"
    fits.HDUList(good_hdus()).writeto(path, checksum=True)
    return path


@pytest.fixture
def copy(good, tmp_path):
    """Return a function that writes a copy after `change` (a function of the HDU list)."""

    def made(change, name="bad.fits"):
        hdus = fits.HDUList(good_hdus())
        change(hdus)
        path = tmp_path / name
        hdus.writeto(path)
        return path

    return made


def test_nothing_is_found_in_a_correct_file(good, tmp_path):
    assert check_file(good) == []
    packed = tmp_path / "good.fits.gz"
    packed.write_bytes(gzip.compress(good.read_bytes()))
    assert check_file(packed) == []


def _key(hdu, key, value):
    """A change of one keyword; None removes it."""

    def change(hdus):
        if value is None:
            del hdus[hdu].header[key]
        else:
            hdus[hdu].header[key] = value

    return change


def _value(hdu, column, row, value):
    """A change of one number of a table."""

    def change(hdus):
        hdus[hdu].data[column][row] = value

    return change


def _unit(hdu, column, unit):
    def change(hdus):
        hdus[hdu].columns[column].unit = unit

    return change


def _without(hdu, column):
    def change(hdus):
        old = hdus[hdu]
        old.columns.del_col(column)

    return change


def _recast(hdu, column, form):
    """A change of the format of a column."""

    def change(hdus):
        old = hdus[hdu]
        columns = [
            fits.Column(
                name=found.name,
                unit=found.unit,
                format=form if found.name == column else found.format,
                array=old.data[found.name].astype(str if form.endswith("A") else None)
                if found.name == column and form.endswith("A")
                else old.data[found.name],
            )
            for found in old.columns
        ]
        header = {key: old.header[key] for key in old.header if key[:5] not in ("TFORM", "TTYPE")}
        new = fits.BinTableHDU.from_columns(columns, name=old.name)
        for key, value in header.items():
            if key not in new.header:
                new.header[key] = value
        hdus[hdus.index_of(old.name)] = new

    return change


def _transposed(hdus):
    old = hdus["EDISP"] if "EDISP" in hdus else hdus["ENERGY DISPERSION"]
    matrix = old.data["MATRIX"][0].T
    new = _response(
        "ENERGY DISPERSION",
        "EDISP_2D",
        "EDISP",
        [ENERGY, MIGRA, THETA],
        [("MATRIX", None, matrix.T)],
    )
    new.columns["MATRIX"].dim = "(3,12,6)"
    hdus[hdus.index_of(old.name)] = new


def _shape(hdus):
    hdus["RAD_MAX"].columns["RAD_MAX"].dim = "(9,2)"


def _twice(hdus):
    hdus.append(hdus["EVENTS"].copy())


def _two_rows(hdus):
    old = hdus["RAD_MAX"]
    new = fits.BinTableHDU(np.concatenate([old.data, old.data]), old.header, name="RAD_MAX")
    hdus[hdus.index_of("RAD_MAX")] = new


def _no_rows(hdu):
    def change(hdus):
        hdus[hdu].data = hdus[hdu].data[:0]

    return change


def _gti(*intervals):
    def change(hdus):
        hdus["GTI"].data["START"][:] = [START + begin for begin, _ in intervals]
        hdus["GTI"].data["STOP"][:] = [START + end for _, end in intervals]

    return change


def _remove(hdu):
    def change(hdus):
        del hdus[hdu]

    return change


AREA, BACKGROUND, DISPERSION = "EFFECTIVE AREA", "BACKGROUND", "ENERGY DISPERSION"

BROKEN = [
    # what the real DL3 files of the prototype do otherwise
    ("keyword-type", "OBS_ID", _key("EVENTS", "OBS_ID", "00001506003540")),
    ("keyword-type", "EQUINOX", _key("EVENTS", "EQUINOX", "J2000")),
    ("hduclas-missing", "HDUCLAS1", _key("EVENTS", "HDUCLAS1", None)),
    ("keyword-value", "OBS_MODE", _key("EVENTS", "OBS_MODE", "W0.50p000")),
    ("hduvers", "HDUVERS", _key("GTI", "HDUVERS", "0.2")),
    # headers
    ("keyword-missing", "LIVETIME", _key("EVENTS", "LIVETIME", None)),
    ("keyword-missing", "MJDREFF", _key("GTI", "MJDREFF", None)),
    ("keyword-missing", "GEOLAT", _key("POINTING", "GEOLAT", None)),
    ("keyword-missing", "ALT_PNT", _key("EVENTS", "OBS_MODE", "DRIFT")),
    ("keyword-type", "MJDREFI", _key("EVENTS", "MJDREFI", 58849.0)),
    ("keyword-value", "RA_PNT", _key("EVENTS", "RA_PNT", -83.6)),
    ("keyword-value", "DEC_PNT", _key("EVENTS", "DEC_PNT", 122.5)),
    ("keyword-value", "TIMEUNIT", _key("EVENTS", "TIMEUNIT", "d")),
    ("keyword-value", "TIMESYS", _key("EVENTS", "TIMESYS", "CET")),
    ("keyword-value", "RADECSYS", _key("EVENTS", "RADECSYS", "GALACTIC")),
    ("keyword-value", "DEADC", _key("EVENTS", "DEADC", 1.95)),
    ("keyword-value", "TELESCOP", _key("EVENTS", "TELESCOP", "")),
    ("keyword-pair", "RA_OBJ", _key("EVENTS", "DEC_OBJ", None)),
    ("hduclas-value", "HDUCLASS", _key("EVENTS", "HDUCLASS", "OGIP")),
    ("hduclas-value", "HDUCLAS2", _key(AREA, "HDUCLAS2", "EFFAREA")),
    ("hduclas-value", "HDUCLAS3", _key(AREA, "HDUCLAS3", "FULL")),
    ("hduclas2-psf", "HDUCLAS2", _key("PSF TABLE", "HDUCLAS2", "PSF")),
    ("keyword-value", "FOVALIGN", _key(BACKGROUND, "FOVALIGN", "GALACTIC")),
    ("time-reference", "MJDREFI", _key("GTI", "MJDREFI", 51910)),
    ("date-obs", "DATE-OBS", _key("EVENTS", "DATE-OBS", "2026-01-15T03:01:03")),
    ("keyword-value", "DATE-OBS", _key("EVENTS", "DATE-OBS", "15T01")),
    # columns
    ("column-missing", "ENERGY", _without("EVENTS", "ENERGY")),
    ("column-missing", "THETA_HI", _without(AREA, "THETA_HI")),
    ("column-missing", "SIGMA_2", _without("POINT SPREAD FUNCTION", "SIGMA_2")),
    ("column-type", "TIME", _recast("EVENTS", "TIME", "E")),
    ("column-type", "EVENT_ID", _recast("EVENTS", "EVENT_ID", "10A")),
    ("column-width", "EVENT_ID", _recast("EVENTS", "EVENT_ID", "J")),
    ("column-unit", "ENERGY", _unit("EVENTS", "ENERGY", "deg")),
    ("column-unit", "TIME", _unit("EVENTS", "TIME", None)),
    ("column-unit", "EFFAREA", _unit(AREA, "EFFAREA", "m")),
    ("column-unit", "RA", _unit("EVENTS", "RA", "furlong")),
    ("column-unit-other", "ENERG_LO", _unit(AREA, "ENERG_LO", "GeV")),
    ("unit-spelling", "EFFAREA", _unit(AREA, "EFFAREA", "meter2")),
    ("column-shape", "RAD_MAX", _shape),
    ("axis-order", "MATRIX", _transposed),
    ("row-count", "", _two_rows),
    # values
    ("axis-rising", "THETA_LO", _value(AREA, "THETA_LO", (0, 1), 2.5)),
    ("axis-bounds", "ENERG_LO", _value(AREA, "ENERG_HI", (0, 0), 0.05)),
    ("axis-gap", "ENERG_LO", _value(AREA, "ENERG_HI", (0, 0), 0.2)),
    ("axis-value", "ENERG_LO", _value(AREA, "ENERG_LO", (0, 0), np.nan)),
    ("value-nan", "EFFAREA", _value(AREA, "EFFAREA", (0, 1, 1), np.nan)),
    ("value-negative", "BKG", _value(BACKGROUND, "BKG", (0, 1, 1, 1), -1e-9)),
    ("edisp-norm", "MATRIX", _value(DISPERSION, "MATRIX", (0, 1), 7.0)),
    ("psf-norm", "RPSF", _value("PSF TABLE", "RPSF", (0, 3), 1e6)),
    ("psf-norm", "SCALE", _value("POINT SPREAD FUNCTION", "SCALE", (0, 1), 1.0)),
    ("psf-norm", "GAMMA", _value("PSF KING", "GAMMA", (0, 1), 0.9)),
    ("thresholds", "LO_THRES", lambda h: h[AREA].header.update(LO_THRES=9.0, HI_THRES=1.0)),
    ("enclosure-mixed", "HDUCLAS3", _key(AREA, "HDUCLAS3", "POINT-LIKE")),
    ("hdu-twice", "", _twice),
    ("events-empty", "", _no_rows("EVENTS")),
    ("event-id-twice", "EVENT_ID", _value("EVENTS", "EVENT_ID", 5, 1)),
    ("event-time-order", "TIME", _value("EVENTS", "TIME", 5, START + 899)),
    ("event-time-range", "TIME", _value("EVENTS", "TIME", 39, STOP + 9)),
    ("event-outside-gti", "TIME", _value("EVENTS", "TIME", 20, START + 950)),
    ("event-value", "ENERGY", _value("EVENTS", "ENERGY", 3, 0.0)),
    ("event-value", "DEC", _value("EVENTS", "DEC", 3, np.nan)),
    ("ra-range", "RA", _value("EVENTS", "RA", 3, -1.0)),
    ("dec-range", "DEC", _value("EVENTS", "DEC", 3, 91.0)),
    ("tstart-tstop", "TSTART", _key("EVENTS", "TSTART", STOP + 1)),
    ("ontime", "ONTIME", _key("EVENTS", "ONTIME", 1800.0)),
    ("livetime", "LIVETIME", _key("EVENTS", "LIVETIME", 1700.0)),
    ("gti-missing", "", _remove("GTI")),
    ("gti-empty", "", _no_rows("GTI")),
    ("gti-length", "STOP", _gti((0, 900), (1000, 1000))),
    ("gti-order", "START", _gti((1000, 1800), (0, 900))),
    ("gti-overlap", "START", _gti((0, 1001), (1000, 1800))),
    ("gti-range", "START", _gti((-5, 900), (1000, 1800))),
    ("pointing-order", "TIME", _value("POINTING", "TIME", 0, STOP + 1)),
    ("ra-range", "RA_PNT", _value("POINTING", "RA_PNT", 0, 400.0)),
]


@pytest.mark.parametrize(
    ("rule", "where", "change"), BROKEN, ids=[f"{rule} {where}" for rule, where, _ in BROKEN]
)
def test_a_broken_copy_is_found(rule, where, change, copy):
    found = check_file(copy(change))
    mine = [finding for finding in found if finding.rule == rule and finding.where == where]
    assert mine, found
    assert mine[0].severity == RULES[rule][0]
    assert mine[0].text.endswith(".")
    assert len({finding.rule for finding in found}) <= 4  # one fault has few consequences


def test_a_response_without_rad_max(copy):
    def change(hdus):
        for name in [hdu.name for hdu in hdus[1:] if hdu.name != AREA]:
            del hdus[name]
        hdus[AREA].header["HDUCLAS3"] = "POINT-LIKE"

    assert [finding.rule for finding in check_file(copy(change))] == ["rad-max-missing"]


def test_a_file_as_fits(good, tmp_path):
    content = good.read_bytes()

    def rules(data):
        path = tmp_path / "file.fits"
        path.write_bytes(data)
        return {finding.rule for finding in check_file(path)}

    assert rules(content[: len(content) - 2880]) == {"file-truncated"}
    assert "file-truncated" in rules(gzip.compress(content)[:-100])
    assert rules(b"") == {"file-unreadable"}
    assert rules(b"hello" * 1000) == {"file-unreadable"}
    place = content.index(b"EVENTS  ")  # the data of the first table begin behind its header
    start = content.index(b"END" + b" " * 77, place)
    start += 2880 - start % 2880 + 3
    assert "checksum" in rules(content[:start] + b"\x01" + content[start + 1 :])
    with fits.open(good) as hdus:
        fits.HDUList([hdus[0]]).writeto(tmp_path / "empty.fits")
    assert {finding.rule for finding in check_file(tmp_path / "empty.fits")} == {"no-gadf-hdu"}
    assert {finding.rule for finding in check_file(tmp_path)} == {"file-unreadable"}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_damage_is_never_a_crash(good, tmp_path_factory, flips, kept):
    content = bytearray(good.read_bytes())
    for place, value in flips:
        content[min(int(place * len(content)), len(content) - 1)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.fits"
    path.write_bytes(content[: int(len(content) * max(kept, 0.5))])
    for finding in check_file(path):
        assert finding.rule in RULES
        assert finding.text


# --- index files -------------------------------------------------------------------------------


def write_index(folder: Path):
    """Two observations with both index files."""
    (folder / "data").mkdir(parents=True)
    rows = []
    for obs_id in (7, 8):
        hdus = fits.HDUList(good_hdus())
        hdus["EVENTS"].header["OBS_ID"] = obs_id
        path = folder / "data" / f"run_{obs_id}.fits"
        hdus.writeto(path)
        size, md5 = path.stat().st_size, hashlib.md5(path.read_bytes()).hexdigest()
        for kind, class_, name in (
            ("events", "events", "EVENTS"),
            ("gti", "gti", "GTI"),
            ("aeff", "aeff_2d", "EFFECTIVE AREA"),
        ):
            rows.append((obs_id, kind, class_, "data", path.name, name, size, md5))
    names = ("OBS_ID", "HDU_TYPE", "HDU_CLASS", "FILE_DIR", "FILE_NAME", "HDU_NAME", "SIZE", "MD5")
    table = Table(rows=rows, names=names)
    table.meta |= {"HDUCLAS1": "INDEX", "HDUCLAS2": "HDU", "EXTNAME": "HDU_INDEX", **CLASS}
    observations = Table(
        {
            "OBS_ID": [7, 8],
            "OBS_MODE": ["POINTING", "POINTING"],
            "RA_PNT": [83.6, 83.6] * u.deg,
            "DEC_PNT": [22.5, 22.5] * u.deg,
            "TSTART": [START, START] * u.s,
            "TSTOP": [STOP, STOP] * u.s,
        }
    )
    observations.meta |= {"HDUCLAS1": "INDEX", "HDUCLAS2": "OBS", "EXTNAME": "OBS_INDEX"}
    observations.meta |= {**CLASS, **TIME, **PLACE}
    table.write(folder / "hdu-index.fits.gz")
    observations.write(folder / "obs-index.fits.gz")


INDICES = ("hdu-index.fits.gz", "obs-index.fits.gz")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "dl3"
    write_index(folder)
    return folder


def test_a_correct_index(index):
    assert [check_file(index / name) for name in INDICES] == [[], []]


def _row(name, column, row, value):
    def change(folder):
        table = Table.read(folder / name)
        if table[column].dtype.kind in "US":
            table[column] = table[column].astype("U200")
        table[column][row] = value
        table.write(folder / name, overwrite=True)

    return change


def _lost(folder):
    (folder / "data" / "run_8.fits").unlink()


def _cut(name, rows):
    def change(folder):
        Table.read(folder / name)[rows].write(folder / name, overwrite=True)

    return change


HDU, OBS = INDICES
BROKEN_INDEX = [
    ("index-file", HDU, _lost),
    ("index-file", HDU, _row(HDU, "FILE_NAME", 0, "run_9.fits")),
    ("index-path", HDU, _row(HDU, "FILE_DIR", 0, "/data")),
    ("index-hdu", HDU, _row(HDU, "HDU_NAME", 0, "EVENT")),
    ("index-kind", HDU, _row(HDU, "HDU_TYPE", 0, "event")),
    ("index-kind", HDU, _row(HDU, "HDU_CLASS", 2, "aeff_3d")),
    ("index-kind", HDU, _row(HDU, "HDU_CLASS", 2, "edisp_2d")),
    ("index-kind", HDU, _row(HDU, "HDU_NAME", 0, "GTI")),
    ("index-obs-id", HDU, _row(HDU, "OBS_ID", 0, 9)),
    ("index-obs-id", HDU, _row(OBS, "OBS_ID", 0, 9)),
    ("index-obs-id", OBS, _row(OBS, "OBS_ID", 0, 8)),
    ("index-obs-id", OBS, _cut(HDU, slice(0, 3))),
    ("index-obs-id", HDU, _cut(OBS, slice(0, 1))),
    ("index-twice", HDU, _row(HDU, "HDU_CLASS", 1, "events")),
    ("index-size", HDU, _row(HDU, "SIZE", 0, 12)),
    ("index-md5", HDU, _row(HDU, "MD5", 0, "0" * 32)),
    ("index-value", OBS, _row(OBS, "RA_PNT", 1, 84.0)),
    ("tstart-tstop", OBS, _row(OBS, "TSTOP", 1, START)),
    ("dec-range", OBS, _row(OBS, "DEC_PNT", 1, 95.0)),
]


@pytest.mark.parametrize(
    ("rule", "name", "change"),
    BROKEN_INDEX,
    ids=[f"{place} {rule}" for place, (rule, _, _) in enumerate(BROKEN_INDEX)],
)
def test_a_broken_index_is_found(rule, name, change, index, tmp_path):
    folder = tmp_path / "dl3"
    shutil.copytree(index, folder)
    change(folder)
    assert rule in {finding.rule for finding in check_file(folder / name)}


# --- files of others ---------------------------------------------------------------------------


def test_what_the_hess_files_do_otherwise(shared_data):
    folder = shared_data / "dl3" / "hess-dl3-dr1"
    found = check_file(folder / "data" / "hess_dl3_dr1_obs_id_020136.fits.gz")
    errors = {finding.rule: finding.where for finding in found if finding.severity == "error"}
    # WOBBLE is no mode of the format; three events are up to half a second behind TSTOP.
    assert errors == {
        "keyword-value": "OBS_MODE",
        "event-time-range": "TIME",
        "event-outside-gti": "TIME",
    }
    counts = Counter(finding.rule for finding in found if finding.severity == "warning")
    assert counts == {"hduvers": 6, "edisp-norm": 1, "psf-norm": 1, "axis-order": 1}
    found = check_file(folder / "obs-index.fits.gz")
    errors = [(finding.rule, finding.where) for finding in found if finding.severity == "error"]
    assert errors == [
        ("keyword-type", "GEOLON"),
        ("keyword-type", "GEOLAT"),
        ("keyword-type", "ALTITUDE"),
        ("column-missing", "OBS_MODE"),
    ]


def test_what_the_ctao_responses_do_otherwise(shared_data):
    name = "Prod5-South-20deg-AverageAz-14MSTs37SSTs.180000s-v0.1.fits.gz"
    found = check_file(shared_data / "irf" / name)
    # Both are relative: readers have to normalise them.
    counts = Counter(finding.rule for finding in found)
    assert counts == {"hduvers": 4, "hduclas2-psf": 1, "edisp-norm": 1, "psf-norm": 1}


def test_gammapy_misses_the_same_keywords(copy):
    gammapy = pytest.importorskip("gammapy.data")

    def change(hdus):
        for key in ("LIVETIME", "RA_PNT", "CREATOR", "TIMESYS", "ALTITUDE", "HDUCLAS1"):
            del hdus["EVENTS"].header[key]

    path = copy(change)
    events = gammapy.EventList.read(path, checksum=False)
    told = next(
        record["msg"]
        for record in gammapy.event_list.EventListChecker(events).check_meta()
        if "Missing meta keys" in record["msg"]
    )
    ours = {
        finding.where
        for finding in check_file(path)
        if finding.hdu == "1 EVENTS" and finding.rule in ("keyword-missing", "hduclas-missing")
    }
    theirs = set(told.split(":")[1].replace(",", " ").replace("'", " ").strip(" []{}").split())
    assert ours == {name.strip("[]{}") for name in theirs}


# --- the stage ---------------------------------------------------------------------------------


def test_the_stage(good, copy, tmp_path, capsys):
    assert main(["check", str(good)]) == 0
    assert "nothing found" in capsys.readouterr().out
    odd = copy(_key("GTI", "HDUVERS", "0.2"), "odd.fits")
    assert main(["check", str(odd)]) == 0
    assert main(["check", str(odd), "strict=true"]) == 1
    broken = copy(_key("EVENTS", "ONTIME", 1.0))
    table = tmp_path / "found.ecsv"
    capsys.readouterr()
    assert main(["check", str(good), str(broken), f"output={table}"]) == 1
    told = capsys.readouterr()
    assert "ontime" in told.out
    assert "2 files, 2 errors and 0 warnings" in told.err
    rows = Table.read(table)
    assert set(rows["rule"]) == {"ontime", "livetime"}
    assert set(rows["severity"]) == {"error"}


def test_the_stage_refuses(good, tmp_path):
    with pytest.raises(UsageError, match="match"):
        check.run(CheckConfig(input=str(tmp_path / "*.fits")))
    with pytest.raises(UsageError, match="exists already"):
        check.run(CheckConfig(input=str(good), output=str(good)))
    table = tmp_path / "found.ecsv"
    assert check.run(CheckConfig(input=str(good), output=str(table))).n_errors == 0
    assert len(Table.read(table)) == 0


def test_our_own_four_axes_are_no_gadf(copy):
    """Responses against zenith and azimuth are named as those of the format, and are none."""

    def change(hdus):
        del hdus[1:4]
        for hdu in hdus[1:]:
            for key in ("HDUCLASS", "HDUCLAS1", "HDUCLAS2", "HDUCLAS3"):
                del hdu.header[key]
            hdu.header["HDUCLAS4"] = "AEFF_4D"

    assert [finding.rule for finding in check_file(copy(change))] == ["no-gadf-hdu"]


def test_a_table_that_does_not_say_what_it_is(copy):
    def change(hdus):
        for key in ("HDUCLASS", "HDUCLAS1", "HDUCLAS2", "HDUCLAS3", "HDUCLAS4"):
            del hdus["RAD_MAX"].header[key]

    found = check_file(copy(change))
    assert {finding.rule for finding in found} == {"hduclas-missing"}
    assert len(found) == 5
