"""Written response files: what gammapy and pyirf make of them, and the words of GADF."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.dl3.check import check_file
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.lineage.cards import record_of_header
from astri_gpu.responses.gadf_read import read_irf
from astri_gpu.responses.gadf_write import write_irf
from tests.made_responses import gammapy_part, made_edges, made_irf

MODEL = "Fast model, made: " + "longer than a card " * 5
ORDER = ["EFFECTIVE AREA", "POINT SPREAD FUNCTION", "ENERGY DISPERSION", "BACKGROUND"]


@pytest.fixture(scope="module")
def irf():
    """Return a full-enclosure response in few bins."""
    meta = {
        "provenance": {"stage": "irf", "config": {"x": "é" * 99}, "inputs": []},
        "simulation_model": MODEL,
    }
    return made_irf(20.0, 180.0, edges=made_edges(12, 5), **meta)


@pytest.fixture(scope="module", params=["gauss", "table"])
def written(request, irf, tmp_path_factory):
    """Return a written response, and the form of its point spread function."""
    path = tmp_path_factory.mktemp("irf") / f"{request.param}.fits.gz"
    write_irf(path, irf, psf=request.param, keywords={"OBS_ID": (7, "run"), "TELESCOP": "OTHER"})
    return path, request.param


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """Return a response file of little more than headers."""
    path = tmp_path_factory.mktemp("small") / "small.fits"
    write_irf(path, made_irf(20.0, edges=made_edges(4, 2), point_like=True))
    return path


def centres(edges):
    return (edges[1:] + edges[:-1]) / 2


def middle(edges):
    return np.sqrt(edges[1:] * edges[:-1])


def test_gammapy_reads_our_numbers(written, irf):
    path, form = written
    found = gammapy_part("gammapy.irf").load_irf_dict_from_file(path)
    assert set(found) == {"aeff", "psf", "edisp", "bkg"}
    np.testing.assert_allclose(found["aeff"].quantity.to_value("m2"), irf.effective_area, rtol=1e-6)
    np.testing.assert_allclose(found["edisp"].data, irf.energy_dispersion, rtol=1e-6, atol=1e-30)
    rate = found["bkg"].quantity.to_value("s-1 MeV-1 sr-1")
    np.testing.assert_allclose(rate, irf.background_3d, rtol=1e-6)
    assert found["bkg"].fov_alignment == "ALTAZ"
    assert not found["aeff"].is_pointlike
    energy, offset = middle(irf.edges.true_energy)[:, None], centres(irf.edges.offset)
    places = {"energy_true": energy * u.TeV, "offset": offset * u.deg}
    np.testing.assert_allclose(
        found["aeff"].evaluate(**places).to_value("m2"), irf.effective_area, rtol=1e-5
    )
    if form == "table":
        np.testing.assert_allclose(
            found["psf"].data, np.swapaxes(irf.psf, 1, 2), rtol=1e-6, atol=1e-30
        )
    there = irf.n_events > 0
    whole = np.asarray(found["psf"].containment(rad=0.99 * u.deg, **places))
    np.testing.assert_allclose(whole[there], 1, atol=5e-3)
    total = (found["edisp"].data * np.diff(irf.edges.migra)[:, None]).sum(axis=1)
    np.testing.assert_allclose(total, there, atol=1e-5)


def test_our_reader_reads_our_numbers(written, irf):
    path, form = written
    found = read_irf(path)
    np.testing.assert_allclose(found.aeff.values, irf.effective_area, rtol=1e-6)
    np.testing.assert_allclose(found.background.values, irf.background_3d, rtol=1e-6)
    assert found.psf.name == {"gauss": "PSF_3GAUSS", "table": "PSF_TABLE"}[form]
    # Gaussians of a width that is known: 39.3 % are within one sigma.
    energy, offset = middle(irf.edges.true_energy)[6], centres(irf.edges.offset)[1]
    sigma = 0.1 / np.cos(np.radians(20)) * (1 + 0.05 * offset) * energy**-0.1
    radius = found.containment_radius(1 - np.exp(-0.5), energy, offset)
    assert radius == pytest.approx(sigma, rel=0.02)


def test_the_words_of_gadf(written, irf):
    path, form = written
    with fits.open(path, checksum=True) as file:
        assert [hdu.name for hdu in file[1:]] == ORDER
        kinds = ["AEFF_2D", {"gauss": "PSF_3GAUSS", "table": "PSF_TABLE"}[form], "EDISP_2D"]
        assert [hdu.header["HDUCLAS4"] for hdu in file[1:]] == [*kinds, "BKG_3D"]
        assert [hdu.header["HDUCLAS2"] for hdu in file[1:]] == ["EFF_AREA", "RPSF", "EDISP", "BKG"]
        for hdu in file[1:]:
            header = hdu.header
            assert (header["HDUCLASS"], header["HDUVERS"]) == ("GADF", "0.3")
            assert (header["HDUCLAS1"], header["HDUCLAS3"]) == ("RESPONSE", "FULL-ENCLOSURE")
            assert (header["EV_CLASS"], header["MODELSUM"]) == ("cc03", "abc")
            assert (header["ZEN_PNT"], header["AZ_PNT"]) == (20.0, 180.0)
            assert header["SIMMODEL"].strip() == MODEL.strip()
            assert (header["LO_THRES"], header["HI_THRES"]) == (0.3, 100.0)
            assert (header["OBS_ID"], header["TELESCOP"]) == (7, "OTHER")
            assert len(hdu.data) == 1
        assert record_of_header(file[0].header) == irf.meta["provenance"]
        errors = file["EFFECTIVE AREA"].data["EFFAREA_ERR"][0].T
        np.testing.assert_allclose(errors, irf.effective_area_error, rtol=1e-6)
        np.testing.assert_allclose(file["EFFECTIVE AREA"].data["N_EVENTS"][0].T, irf.n_events)


def test_tables_are_those_that_pyirf_writes(irf, tmp_path):
    from pyirf.io import gadf

    path = tmp_path / "irf.fits"
    write_irf(path, irf, psf="table", background="2d")
    energy, offset = irf.edges.true_energy * u.TeV, irf.edges.offset * u.deg
    reco, rad = irf.edges.reco_energy * u.TeV, irf.edges.rad * u.deg
    rate = irf.background_2d * gadf.GADF_BACKGROUND_UNIT
    psf = np.swapaxes(irf.psf, 1, 2) / u.sr
    wanted = [
        gadf.create_aeff2d_hdu(irf.effective_area * u.m**2, energy, offset, point_like=False),
        gadf.create_psf_table_hdu(psf, energy, rad, offset),
        gadf.create_energy_dispersion_hdu(
            irf.energy_dispersion, energy, irf.edges.migra, offset, point_like=False
        ),
        gadf.create_background_2d_hdu(rate, reco, offset),
    ]
    with fits.open(path) as file:
        for ours, theirs in zip(file[1:], wanted, strict=True):
            for column in theirs.columns:
                mine = ours.columns[column.name]
                assert u.Unit(mine.unit or "") == u.Unit(column.unit or "")
                if "," in (column.dim or ""):
                    assert mine.dim == column.dim
                np.testing.assert_allclose(
                    ours.data[column.name], theirs.data[column.name], rtol=1e-6, atol=1e-30
                )
            for word in ("HDUCLASS", "HDUCLAS1", "HDUCLAS3", "HDUCLAS4"):
                assert ours.header[word] == theirs.header[word]
            order = {name: theirs.header[name] for name in theirs.header if name[:4] == "CREF"}
            assert order == {name: ours.header[name] for name in order}


def test_point_like(tmp_path):
    edges = made_edges(12, 2)
    irf = made_irf(20.0, edges=edges, point_like=True)
    radius = irf.rad_max.copy()
    radius[0] = np.nan  # no cut there
    path = tmp_path / "point.fits"
    write_irf(path, replace(irf, rad_max=radius))
    found = gammapy_part("gammapy.irf").load_irf_dict_from_file(path)
    assert set(found) == {"aeff", "edisp", "rad_max"}
    assert found["aeff"].is_pointlike
    np.testing.assert_allclose(found["rad_max"].data, np.nan_to_num(radius), rtol=1e-6)
    ours = read_irf(path)
    assert ours.point_like
    assert ours.psf is None
    np.testing.assert_allclose(ours.rad_max.values[1:], radius[1:], rtol=1e-6)


def test_from_events_files_finds_the_names(irf, tmp_path):
    """Gammapy hard-codes EXTNAMEs and classes for files that come without an index."""
    path = tmp_path / "irf.fits"
    write_irf(path, irf)
    events = fits.BinTableHDU.from_columns([fits.Column("TIME", "D", unit="s")], name="EVENTS")
    keywords = {"OBS_ID": 7, "HDUCLAS1": "EVENTS", "TELESCOP": "ASTRI-MA", "OBS_MODE": "POINTING"}
    keywords |= {"RA_PNT": 83.6, "DEC_PNT": 22.0, "MJDREFI": 58849, "MJDREFF": 0.0}
    keywords |= {"TIMEUNIT": "s", "TIMESYS": "UTC", "TIMEREF": "LOCAL", "TSTART": 0.0, "TSTOP": 1.0}
    keywords |= {"ONTIME": 1.0, "LIVETIME": 1.0, "DEADC": 1.0, "OBJECT": "", "ALT_PNT": 70.0}
    keywords |= {"AZ_PNT": 180.0}
    events.header.update(keywords)
    file = tmp_path / "events.fits"
    fits.HDUList([fits.PrimaryHDU(), events]).writeto(file)
    store = gammapy_part("gammapy.data").DataStore.from_events_files([file], [path])
    rows = store.hdu_table[store.hdu_table["OBS_ID"] == 7]
    for name in ("aeff", "edisp", "psf", "bkg"):
        row = rows[rows["HDU_TYPE"] == name]
        assert len(row) == 1
        found = store.hdu_table.hdu_location(obs_id=7, hdu_type=name).load()
        assert found.axes[0].name.startswith("energy")


def test_no_background_is_no_background_of_zero(irf, tmp_path, caplog):
    none = replace(irf, background_3d=0 * irf.background_3d)
    write_irf(tmp_path / "irf.fits", none, psf="table")
    assert "No background event passed the cuts of class cc03" in caplog.text
    found = read_irf(tmp_path / "irf.fits")
    with pytest.raises(AstriError, match="has no table BKG"):
        found.background_rate(1.0, 0.5)


def test_our_validator_finds_nothing(written):
    findings = check_file(written[0])
    assert findings == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_get_a_sentence_or_are_read(small_file, tmp_path_factory, data):
    """Bytes changed and ends cut off: never anything but an `AstriError`."""
    content = bytearray(small_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.sampled_from(list(b" '0123456789ABE=,()\x00\xff")))
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path_factory.getbasetemp() / "damaged.fits"
    path.write_bytes(content[:length])
    with contextlib.suppress(AstriError):
        found = read_irf(path)
        assert any([found.aeff, found.edisp, found.psf, found.background, found.rad_max])


def test_what_is_refused(irf, tmp_path):
    path = tmp_path / "irf.fits"
    with pytest.raises(UsageError, match="point spread functions 'king' is unknown"):
        write_irf(path, irf, psf="king")
    with pytest.raises(UsageError, match="backgrounds '4d' is unknown"):
        write_irf(path, irf, psf="table", background="4d")
    empty = replace(irf, effective_area=0 * irf.effective_area)
    with pytest.raises(AstriError, match=r"class cc03 at zenith angle 20\.0 deg is empty"):
        write_irf(path, empty)
    assert not path.exists()
    path.write_text("something")
    with pytest.raises(UsageError, match="exists already"):
        write_irf(path, irf, psf="table")
    assert path.read_text() == "something"
    write_irf(path, irf, psf="table", overwrite=True)
    assert read_irf(path).aeff is not None
