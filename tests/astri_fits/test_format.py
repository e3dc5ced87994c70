"""What plain astropy code sees that expects the files of A-SciSoft."""

import numpy as np
import pytest
from astropy.io import fits

from astri_gpu.store import open_store

from .conftest import CAMERA, SOURCE

IMAGE = [
    "VT",
    "TIME_UTC",
    "TIME_S",
    "TIME_NS",
    "EVT_CTR",
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
]
PREDICTED = ["GAMMANESS", "EST_EN", "DISP", "XDISP", "YDISP"]
ARRAY = [
    "STVALID",
    "STXDIR",
    "STYDIR",
    "STXCORE",
    "STYCORE",
    "STMAXH",
    "STMINDIR",
    "STMINCORE",
    "STMINMAXH",
    "STIP",
    "TELIP",
    "EVTNUM",
    "NTRIGTEL",
    "TRIGTEL",
    "TELTYPE",
    "NUSEDTEL",
    "MCRUNNUM",
]
IMAGE_FORMS = ["1L", "19A", *["1J"] * 3, *["1E"] * 15, "1I", "1E", "1I", "1I", *["1E"] * 4]
ARRAY_FORMS = ["1L", *["1E"] * 10, *["1J"] * 6]


def forms(hdu):
    return [hdu.header[f"TFORM{k}"] for k in range(1, hdu.header["TFIELDS"] + 1)]


def test_lv2a_has_the_columns_of_a_scisoft_in_their_order(made):
    with fits.open(made.files["lv2a"]) as file:
        assert [hdu.name for hdu in file[:3]] == ["PRIMARY", "EVENTS", "SIM_EVTS"]
        events = file["EVENTS"]
        assert events.columns.names == [*IMAGE, *PREDICTED, *ARRAY]
        assert forms(events) == [*IMAGE_FORMS, *["1E"] * 5, *ARRAY_FORMS]
        assert len(events.columns) == 50
        simulated = file["SIM_EVTS"]
        assert forms(simulated) == ["1I", "1J", "1J", *["1E"] * 8]
        assert {"MCEVTNUM", "MCRUNNUM", "E0"} <= set(simulated.columns.names)
        telescopes = file["TELCONF"]
        pixels = ["2368E", "2368E", "2368B"]
        assert forms(telescopes) == ["1J", "1J", *["1E"] * 5, "1J", *["1E"] * 3, "1J", *pixels]
        assert len(telescopes.data) == 9
        units = {column.name: column.unit for column in events.columns}
        expected = {"SIZE": "pe", "DELTA": "rad", "ALPHA": "deg", "EST_EN": "TeV", "TIME_NS": "ns"}
        assert {name: units[name] for name in expected} == expected
        assert units["CONC"] is None


def test_lv1_is_one_file_for_each_telescope(made):
    rows = 0
    for level, predicted in (("lv1b", []), ("lv1c", PREDICTED)):
        paths = sorted(made.files[level].iterdir())
        assert [path.name for path in paths] == [
            f"gamma_MA{k:02d}.{level}.fits" for k in range(1, 10)
        ]
        for number, path in enumerate(paths, 1):
            with fits.open(path) as file:
                events = file["EVENTS"]
                assert events.columns.names == [*IMAGE, *predicted, "EVTNUM", "MCRUNNUM"]
                assert forms(events)[:28] == IMAGE_FORMS
                types = events.data.dtype
                assert events.data["EVT_CTR"].dtype.kind == "u"
                assert events.data["NUMCORE"].dtype.kind == "u"
                assert types["SIZE"].newbyteorder("=") == np.float32
                assert events.header["TELNUM"] == number
                rows += len(events.data) if level == "lv1b" else 0
    assert rows == len(shower_images(made.dl2b)["event_index"])


def shower_images(path):
    """Return the columns of all images of showers, in the order of the file."""
    store = open_store(path)
    columns = {}
    for table in ("dl0", "dl1", "dl2"):
        columns |= store.read_table(f"{table}/image/{CAMERA}")
    shower = store.read("dl0/event/event_type")[columns["event_index"]] == 32
    return {name: values[shower] for name, values in columns.items()}


def test_stored_columns_arrive_bit_by_bit(made):
    images = shower_images(made.dl2b)
    with fits.open(made.files["lv2a"]) as file:
        data = file["EVENTS"].data
        store = open_store(made.dl2b)
        checked = 0
        for table in ("dl1/image", "dl2/image"):
            for name in store.columns(f"{table}/{CAMERA}"):
                astri = store.array(f"{table}/{CAMERA}/{name}").attrs.get("astri_name")
                if astri in (None, "DELTA"):
                    continue
                expected = images[name]
                if expected.dtype.kind == "i":
                    expected = np.maximum(expected, 0)
                np.testing.assert_array_equal(np.array(data[astri]), expected, err_msg=astri)
                checked += 1
        assert checked == 23
        angle = np.deg2rad(images["hillas_psi"])
        np.testing.assert_allclose(data["DELTA"], angle, rtol=0, atol=1e-6)
        assert (np.abs(data["DELTA"]) <= np.pi / 2 + 1e-6).all()


def test_parameters_follow_the_published_definitions(made):
    """DIST, MISS, ALPHA and COSDELTAALPHA as real ASTRI files have them."""
    with fits.open(made.files["lv2a"]) as file:
        data = file["EVENTS"].data
        real = {name: np.array(data[name], float) for name in data.columns.names[5:33]}
    assert (real["XSRCPOS"] == np.float32(SOURCE[0])).all()
    assert (real["YSRCPOS"] == np.float32(SOURCE[1])).all()
    dx, dy = real["MEANX"] - real["XSRCPOS"], real["MEANY"] - real["YSRCPOS"]
    ax, ay = np.cos(real["DELTA"]), np.sin(real["DELTA"])
    close = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(real["DIST"], np.hypot(dx, dy), **close)
    np.testing.assert_allclose(real["MISS"], ax * dy - ay * dx, **close)
    sine = real["MISS"] / real["DIST"]
    np.testing.assert_allclose(real["ALPHA"], np.rad2deg(np.arcsin(sine)), rtol=0, atol=0.05)
    cosine = (ax * dx + ay * dy) / real["DIST"]
    np.testing.assert_allclose(real["COSDELTAALPHA"], cosine, rtol=0, atol=1e-3)


def test_the_source_is_found_again_where_no_option_tells(made, tmp_path):
    from astri_gpu.io.astri_fits_export import export_astri
    from astri_gpu.store import copy_group, create

    store = open_store(made.dl2a)
    attrs = {**store.attrs, "config": {}, "provenance": {}}
    with create(tmp_path / "a.zarr", attrs=attrs) as writer:
        for group in ("instrument", "simulation", "dl0", "dl1", "dl2"):
            copy_group(store, writer, group)
    export_astri(tmp_path / "a.zarr", tmp_path / "a.fits", level="lv2a")
    with fits.open(tmp_path / "a.fits") as file:
        data = file["EVENTS"].data
        use = np.isfinite(data["SIZE"])
        np.testing.assert_allclose(data["XSRCPOS"][use], SOURCE[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(data["YSRCPOS"][use], SOURCE[1], rtol=0, atol=1e-4)


def test_truth_is_joined_as_the_notebooks_do(made):
    """EVTNUM and MCRUNNUM of EVENTS find E0 in SIM_EVTS."""
    truth = open_store(made.dl2b).read_table("simulation/event")
    true_energy = dict(zip(truth["event_id"].tolist(), truth["true_energy"], strict=True))
    with fits.open(made.files["lv2a"]) as file:
        simulated, events = file["SIM_EVTS"].data, file["EVENTS"].data
        assert (simulated["MCEVTNUM"] > 0).all()  # no calibration events
        energy = {
            (int(row["MCRUNNUM"]), int(row["MCEVTNUM"])): float(row["E0"]) for row in simulated
        }
        assert len(energy) == len(simulated)
        for row in events:
            found = energy[int(row["MCRUNNUM"]), int(row["EVTNUM"])]
            assert found == np.float32(true_energy[int(row["EVTNUM"])])


def test_stereo_columns_are_nan_where_there_is_no_stereo(made):
    store = open_store(made.dl2b)
    stereo = store.read_table("dl2/event")
    places = {int(number): k for k, number in enumerate(stereo["event_id"])}
    with fits.open(made.files["lv2a"]) as file:
        data = file["EVENTS"].data
        event = np.array([places[int(number)] for number in data["EVTNUM"]])
        valid = np.array(data["STVALID"])
        np.testing.assert_array_equal(valid, stereo["stereo_is_valid"][event])
        assert 0 < valid.sum() < len(valid)
        for name in ("STXDIR", "STYDIR", "STXCORE", "STYCORE", "STMAXH", "STIP", "TELIP"):
            np.testing.assert_array_equal(np.isfinite(data[name]), valid, err_msg=name)
        assert np.isnan(data["STMINCORE"]).all()
        core = stereo["stereo_core_x"][event].astype(np.float32)
        np.testing.assert_array_equal(data["STXCORE"], core)
        # One row for each telescope of the mask, in the order of its bits.
        mask = np.array([bin(each).count("1") for each in data["TRIGTEL"]])
        np.testing.assert_array_equal(mask, data["NTRIGTEL"])
        numbers, counts = np.unique(data["EVTNUM"], return_counts=True)
        for number, count in zip(numbers, counts, strict=True):
            assert (data["NTRIGTEL"][data["EVTNUM"] == number] == count).all()


def test_directions_agree_with_astropy(made):
    """STXDIR and STYDIR are offsets from the pointing on the sky."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    stereo = open_store(made.dl2b).read_table("dl2/event")
    places = {int(number): k for k, number in enumerate(stereo["event_id"])}
    with fits.open(made.files["lv2a"]) as file:
        data = file["EVENTS"].data
        data = data[np.array(data["STVALID"])]
        event = np.array([places[int(number)] for number in data["EVTNUM"]])
        pointing = SkyCoord(data["AZ"] * u.deg, (90 - data["ZD"]) * u.deg)
        found = SkyCoord(stereo["stereo_az"][event] * u.deg, stereo["stereo_alt"][event] * u.deg)
        lon, lat = pointing.spherical_offsets_to(found)
        np.testing.assert_allclose(data["STXDIR"], lon.deg, rtol=0, atol=1e-5)
        np.testing.assert_allclose(data["STYDIR"], lat.deg, rtol=0, atol=1e-5)


def test_times_are_utc_seconds_since_2020(made):
    from astropy.time import Time, TimeDelta

    with fits.open(made.files["lv2a"]) as file:
        data = file["EVENTS"].data
        assert np.array(data["VT"]).all()
        zero = Time("2020-01-01T00:00:00", scale="utc")
        text = Time(list(data["TIME_UTC"][:3]), scale="utc")
        assert np.allclose((text - zero).sec, data["TIME_S"][:3], rtol=0, atol=1e-3)
    real = zero + TimeDelta(160441028, format="sec")  # of a real file
    assert real.isot == "2025-01-30T22:57:08.000"


@pytest.mark.parametrize("level", ["lv1b", "lv1c", "lv2a", "lv2b"])
def test_every_file_says_that_it_is_a_fast_simulation(made, level):
    path = made.files[level]
    path = next(iter(path.iterdir())) if path.is_dir() else path
    with fits.open(path) as file:
        file.verify("exception")
        for hdu in ("PRIMARY", "EVENTS"):
            header = file[hdu].header
            assert "no substitute for CORSIKA" in header["SIMMODEL"]
            assert "not made by A-SciSoft" in header.comments["CREATOR"]
            assert header["LEVEL"] == level
            assert header["PARTICLE"] == "gamma"
            assert header["NTHROWN"] == 150
        history = "\n".join(file[0].header["HISTORY"])
        assert "spectrum.energy_min_tev = 2" in history
        assert "sha256:" in history


def test_predictions_of_a_dl2a_store_are_nan(made, tmp_path):
    from astri_gpu.io.astri_fits_export import export_astri

    summary = export_astri(made.dl2a, tmp_path / "a.fits")
    assert [text for text in summary.warnings if "calibration" not in text] == []
    with fits.open(tmp_path / "a.fits") as file:
        for name in PREDICTED:
            assert np.isnan(file["EVENTS"].data[name]).all()
