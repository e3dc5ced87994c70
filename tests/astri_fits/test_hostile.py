"""Files that are not as they should be: one sentence with names, and nothing written."""

import os
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.io.astri_fits_import import _Import
from astri_gpu.io.astri_fits_reader import FitsFile, is_fits
from astri_gpu.io.simtel import IngestOptions
from astri_gpu.store import open_store

from .conftest import CAMERA


@pytest.fixture
def changed(made, tmp_path):
    """Return a function that changes a copy of a file, by astropy, and gives its path."""

    def change(apply, level="lv2a", name=None):
        source = made.files[level]
        source = sorted(source.iterdir())[0] if source.is_dir() else source
        path = tmp_path / (name or f"changed.{level}.fits")
        with fits.open(source) as file:
            copy = fits.HDUList([hdu.copy() for hdu in file])
            apply(copy)
            copy.writeto(path)
        return path

    return change


def column(name, **new):
    """Return a change of a column of EVENTS: `form`, `unit` and `array` as astropy takes them."""

    def apply(file):
        events = file["EVENTS"]
        columns = []
        for old in events.columns:
            if old.name != name:
                columns.append(fits.Column(old.name, old.format, old.unit, array=old.array))
            elif new:
                array = new.get("array", old.array)
                form = new.get("form", old.format)
                columns.append(fits.Column(name, form, new.get("unit", old.unit), array=array))
        table = fits.BinTableHDU.from_columns(columns, name="EVENTS")
        file["EVENTS"] = table

    return apply


def value(table, name, row, number):
    """Return a change of one number."""

    def apply(file):
        file[table].data[name][row] = number

    return apply


def rows(table, chosen):
    """Return a change of the rows of a table."""

    def apply(file):
        file[table].data = file[table].data[chosen(len(file[table].data))]

    return apply


TEXT = np.array(["x"] * 1000)
REFUSED = {
    "missing": (column("SIZE"), "EVENTS of .* lacks the column SIZE"),
    "two missing": (
        lambda file: (column("WIDTH")(file), column("STMAXH")(file)),
        "lacks the columns WIDTH, STMAXH",
    ),
    "text": (column("WIDTH", form="1A", array=TEXT), "WIDTH .* type text, but single real values"),
    "real": (column("TIME_S", form="1D"), "TIME_S .* holds type real, but single integer"),
    "whole": (column("STVALID", form="1J"), "STVALID .* type integer, but single logical"),
    "many": (
        column("EVTNUM", form="2J", array=np.ones((1000, 2))),
        "EVTNUM .* holds 2 values a row of type integer",
    ),
    "unit": (column("DELTA", unit="deg"), "DELTA .* has the unit 'deg', but rad is expected"),
    "nanoseconds": (value("EVENTS", "TIME_NS", 3, 10**9), "TIME_NS .* is 1000000000 in row 3"),
    "mask": (
        value("EVENTS", "TRIGTEL", 0, 1 << 9),
        r"1 of \d+ events .* do not say which telescope an image is of, such as event \d+",
    ),
    "count": (value("EVENTS", "NTRIGTEL", 0, 99), "NTRIGTEL 99"),
    "no events": (rows("EVENTS", lambda n: slice(0, 0)), "has no rows: there is nothing to read"),
    "apart": (rows("EVENTS", lambda n: np.r_[np.arange(n), 0]), "in two places"),
    "no table": (lambda file: file.pop("EVENTS"), "has no table EVENTS, but SIM_EVTS"),
    "no end": (lambda file: file.pop("ASTRIGPU"), "is cut short: it lacks the table ASTRIGPU"),
    "no truth": (
        rows("SIM_EVTS", lambda n: slice(0, n - 5)),
        "SIM_MORE .* has .* rows, but SIM_EVTS has",
    ),
    "truth twice": (rows("SIM_EVTS", lambda n: np.r_[0, np.arange(n - 1)]), "event .* twice"),
    "other truth": (
        lambda file: file["SIM_EVTS"].data["MCEVTNUM"].__iadd__(1_000_000),
        r"lacks \d+ of the events of EVENTS, such as event \d+ of run",
    ),
    "pixels": (value("TELCONF", "NPIX", 0, 99_999), "NPIX in .* is 99999, but there are 2368"),
    "places": (value("TELCONF", "XPIX", 0, np.nan), "pixels without place or area"),
    "telescope twice": (value("TELCONF", "TELID", 0, 2), "or one of them twice"),
    "JSON": (value("ASTRIGPU", "META", 0, "{"), "ASTRIGPU .* is damaged"),
    "thrown": (
        lambda file: file.__setitem__(
            "ASTRIGPU",
            fits.BinTableHDU.from_columns(
                [
                    fits.Column(name, "2D", array=np.ones((1, 2)))
                    for name in ("THROWN", "E_EDGES", "R_EDGES")
                ],
                name="ASTRIGPU",
            ),
        ),
        r"thrown showers .* are \(2,\) for \(1, 1\) bins",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(what, changed, back, tmp_path):
    change, text = REFUSED[what]
    path = changed(change)
    with pytest.raises(AstriError, match=text) as error:
        back(path)
    assert "\n" not in str(error.value)
    assert str(error.value)[-1] in ".?"
    assert os.listdir(tmp_path) == [path.name]


def test_events_whose_telescopes_are_unknown_can_be_left_out(changed, back):
    path = changed(value("EVENTS", "NTRIGTEL", 0, 99))
    with fits.open(path) as file:
        numbers = np.unique(file["EVENTS"].data["EVTNUM"])
    part = back(path, on_error="keep")
    assert "were left out" in back.summary.warnings[0]
    np.testing.assert_array_equal(part.read("dl0/event/event_id"), numbers[1:])


def real_lv1c(path, n_rows=1200, cut=False):
    """Write an event list as published for the real telescope: no EVTNUM, no TELCONF, u2, u4."""
    rng = np.random.default_rng(3)
    names = [
        "SIZE",
        "MEANX",
        "MEANY",
        "LENGTH",
        "WIDTH",
        "DELTA",
        "ASYM",
        "CONC",
        "MDIST",
        "M3LONG",
        "LEAKAGE",
        "DIST",
        "MISS",
        "ALPHA",
        "COSDELTAALPHA",
        "NUMISLAND",
        "SIZEMISL",
        "NUMCORE",
        "NUMBOUNDARY",
        "ZD",
        "AZ",
        "XSRCPOS",
        "YSRCPOS",
        "GAMMANESS",
        "EST_EN",
        "DISP",
        "XDISP",
        "YDISP",
    ]
    units = dict.fromkeys(("MEANX", "MEANY", "LENGTH", "ZD", "AZ"), "deg") | {"DELTA": "rad"}
    seconds = 160441028 + np.arange(n_rows) // 40
    nanoseconds = rng.integers(0, 1 << 24 if cut else 10**9, n_rows)
    columns = [
        fits.Column("VT", "L", array=np.ones(n_rows, bool)),
        fits.Column("TIME_UTC", "19A", array=np.full(n_rows, "2025-01-30T22:57:08")),
        fits.Column("TIME_S", "J", "s", array=seconds),
        fits.Column("TIME_NS", "J", "ns", array=nanoseconds),
        fits.Column("EVT_CTR", "J", bzero=2**31, array=np.arange(n_rows, dtype=np.uint32) + 7),
    ]
    for name in names:
        if name.startswith("NUM"):
            counts = rng.integers(1, 9, n_rows).astype(np.uint16)
            columns.append(fits.Column(name, "I", bzero=2**15, array=counts))
        else:
            columns.append(fits.Column(name, "E", units.get(name), array=rng.random(n_rows)))
    fits.BinTableHDU.from_columns(columns, name="EVENTS").writeto(path)
    return path


def test_a_file_of_the_real_telescope(back, tmp_path):
    name = "20250130_MA03_Crab_W0.50p090_00000123_R_000456_0201.lv1c.fits"
    path = real_lv1c(tmp_path / name)
    store = back(path)
    assert store.attrs["data_level"] == "DL1c"
    assert store.attrs["kind"] == "observation"
    assert store.attrs["obs_id"] == 123
    assert set(store.read(f"dl0/image/{CAMERA}/tel_id")) == {3}
    np.testing.assert_array_equal(store.read("dl0/event/event_id"), np.arange(1200) + 7)
    assert store.read("dl0/event/time_s")[0] == 1738277828  # 2025-01-30T22:57:08 UTC
    assert np.isnan(store.read("instrument/telescope/x")).all()
    assert "does not say where its telescopes stand" in back.summary.warnings[0]
    with fits.open(path) as file:
        for astri, name in (("SIZE", "hillas_intensity"), ("NUMCORE", "astri_num_core")):
            expected = np.array(file["EVENTS"].data[astri])
            np.testing.assert_array_equal(store.read(f"dl1/image/{CAMERA}/{name}"), expected)
        energy = np.array(file["EVENTS"].data["EST_EN"])
    np.testing.assert_array_equal(store.read(f"dl2/image/{CAMERA}/tel_energy"), energy)


def test_times_of_24_bits_are_noticed(back, tmp_path):
    path = real_lv1c(tmp_path / "a_MA01_b.lv1c.fits", cut=True)
    with pytest.raises(AstriError, match=r"TIME_NS .* never exceeds \d+ in 1200 .* 24 bits"):
        back(path)
    assert os.listdir(tmp_path) == [path.name]
    assert back(path, on_error="keep").attrs["n_events"] == 1200
    assert "cut to 24 bits" in " ".join(back.summary.warnings)


def test_telescopes_of_a_real_observation_are_not_joined(back, tmp_path):
    folder = tmp_path / "night"
    folder.mkdir()
    for number in (1, 2):
        real_lv1c(folder / f"a_MA0{number}_b.lv1c.fits", n_rows=20)
    with pytest.raises(UsageError, match="has no EVTNUM"):
        back(folder)
    real_lv1c(folder / "a_MA02_c.lv1c.fits", n_rows=20)
    assert sorted(os.listdir(tmp_path)) == ["night"]


def test_a_monte_carlo_file_with_other_names(returned, back, changed):
    """SIM_EVTS and TELCONF as their types are known, with names that are not ours."""

    def foreign(file):
        for table, kept in (("SIM_EVTS", ("MCEVTNUM", "MCRUNNUM", "E0")), ("TELCONF", ())):
            columns = [
                fits.Column(old.name if old.name in kept else f"C{k}", old.format, array=old.array)
                for k, old in enumerate(file[table].columns)
            ]
            file[table] = fits.BinTableHDU.from_columns(columns, name=table)
        del file["ASTRIGPU"], file["SIM_MORE"]
        file[0] = fits.PrimaryHDU()

    whole = open_store(returned["lv2a"].output)
    energy = whole.read("simulation/event/true_energy")
    primary = whole.read("simulation/event/true_primary_id")
    stereo = whole.read("dl2/event/stereo_alt")
    store = back(changed(foreign, name="MA_012_gamma_00000001-00000100_R_zd20-20_az000.lv2a"))
    assert store.attrs["kind"] == "gamma"
    assert any("gamma is taken from the name" in text for text in back.summary.warnings)
    np.testing.assert_array_equal(store.read("simulation/event/true_energy"), energy)
    np.testing.assert_array_equal(store.read("simulation/event/true_primary_id"), primary)
    assert np.isnan(store.read("simulation/event/true_alt")).all()
    np.testing.assert_array_equal(store.read("dl2/event/stereo_alt"), stereo)
    np.testing.assert_array_equal(store.read("instrument/telescope/tel_id"), np.arange(1, 10))
    assert "simulation/thrown" not in store


@pytest.mark.parametrize("level", ["lv1b", "lv2a", "lv2b"])
def test_files_cut_short(made, back, tmp_path, level):
    source = made.files[level]
    source = sorted(source.iterdir())[0] if source.is_dir() else source
    data = source.read_bytes()
    path = tmp_path / f"cut_MA01_.{level}.fits"
    for size in (0, 100, 2880, 5760, len(data) // 2, len(data) - 2880, len(data) - 300_000):
        path.write_bytes(data[: max(size, 0)])
        with pytest.raises(AstriError, match=r"cut short|no EventIO|incomplete") as error:
            back(path)
        assert "\n" not in str(error.value)
        assert os.listdir(tmp_path) == [path.name]


def test_other_files_are_told_from_fits(made, tmp_path):
    assert is_fits(made.files["lv2a"])
    assert is_fits(made.files["lv1b"])
    assert not is_fits(made.dl2a)
    (tmp_path / "a.fits").write_text("SIMPLE text")
    (tmp_path / "b.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    for name in ("a.fits", "b.gz", "missing.fits"):
        assert not is_fits(tmp_path / name)
    with pytest.raises(AstriError, match="no FITS file"), FitsFile(tmp_path / "a.fits"):
        pytest.fail("the body must not run")


@pytest.fixture(scope="module")
def small(made, tmp_path_factory):
    """Return the bytes of a file without pixels' places, and a path to write changes of it to."""
    path = tmp_path_factory.mktemp("fuzzed") / "small.lv2a.fits"
    with fits.open(made.files["lv2a"]) as file:
        events = file["EVENTS"]
        events.data = events.data[np.isin(events.data["EVTNUM"], events.data["EVTNUM"][:1])]
        del file[0].header["HDUS"]
        fits.HDUList([file[0], events, file["SIM_EVTS"]]).writeto(path)
    return path.read_bytes(), path


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_bytes_raise_nothing_but_sentences(small, data):
    original, path = small
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.sampled_from([len(damaged), 20_000, 2880 * 3]))])
    text = ""
    try:
        with FitsFile(path) as file:
            _Import(path, [file], IngestOptions())
    except AstriError as error:
        text = str(error)
    assert "\n" not in text


def test_full_disk_is_one_sentence(made, tmp_path):
    sizes = [4096, 60_000, made.files["lv2a"].stat().st_size - 2880]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, resource, sys\n"
            "from astri_gpu.errors import AstriError\n"
            "from astri_gpu.io.astri_fits_export import export_astri\n"
            "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
            "for level in ('lv2a', 'lv1b'):\n"
            "  for limit in sys.argv[3:]:\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))\n"
            "    try:\n"
            "        export_astri(sys.argv[1], sys.argv[2], level=level)\n"
            "    except AstriError as error:\n"
            "        print(error, os.listdir(os.path.dirname(sys.argv[2])))\n",
            made.dl2b,
            tmp_path / "a.fits",
            *map(str, sizes),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines
    for line in lines:
        assert "disk" in line
        assert line.endswith("[]")


def test_existing_outputs_are_replaced_only_on_request(made, tmp_path):
    from astri_gpu.io.astri_fits_export import export_astri

    file, folder = tmp_path / "a.fits", tmp_path / "a.lv1b"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    for output, level in ((file, "lv2a"), (folder, "lv1b")):
        with pytest.raises(UsageError, match="exists already"):
            export_astri(made.dl2a, output, level=level)
    with pytest.raises(UsageError, match="holds other files too"):
        export_astri(made.dl2a, folder, level="lv1b", overwrite=True)
    with pytest.raises(UsageError, match="is a file, not a folder"):
        export_astri(made.dl2a, file, level="lv1b", overwrite=True)
    (folder / "mine.txt").unlink()
    (folder / "old_MA01.lv1b.fits").write_text("an earlier run")
    export_astri(made.dl2a, file, level="lv2a", overwrite=True)
    export_astri(made.dl2a, folder, level="lv1b", overwrite=True)
    assert is_fits(file)
    assert sorted(os.listdir(tmp_path)) == ["a.fits", "a.lv1b"]
    assert sorted(os.listdir(folder)) == [f"a_MA{k:02d}.lv1b.fits" for k in range(1, 10)]
