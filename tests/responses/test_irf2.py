"""IRF2 files: tables as A-SciSoft lays them out, sums that come back, files that are refused."""

import warnings
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from astropy.io import fits

from astri_gpu.config_response import FluxConfig
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.responses.counting import count
from astri_gpu.responses.counts import Counts
from astri_gpu.responses.edges import fine_edges
from astri_gpu.responses.irf2_file import read_irf2, write_irf2
from astri_gpu.responses.normalise import to_irf
from astri_gpu.selection.sample import Sample
from tests.drawn_events import MODEL, MODELS


@pytest.fixture(scope="module")
def path(tmp_path_factory, counts, cuts, binning):
    """Return a file of two pointings."""
    path = tmp_path_factory.mktemp("irf2") / "cc03.irf2.fits.gz"
    other = replace(counts, zenith_deg=40.0, azimuth_deg=185.0, selected=counts.selected / 2)
    meta = {"provenance": {"stage": "irf", "seed": 1}}
    write_irf2(path, [other, counts], binning, cuts, meta=meta)
    return path


def test_layout_is_that_of_a_scisoft(path, cuts):
    """Names, order and numbers of columns, one row each (Lombardi 2016)."""
    with fits.open(path) as hdus:
        expected = {
            "CLASS CUTS": 10,
            "EFFECTIVE AREA": 10,
            "POINT SPREAD FUNCTION": 14,
            "ENERGY DISPERSION": 11,
            "BACKGROUND": 11,
        }
        assert [hdu.name for hdu in hdus[1:6]] == list(expected)
        for hdu in hdus[1:6]:
            assert (len(hdu.data), len(hdu.columns)) == (1, expected[hdu.name])
            assert hdu.header["EV_CLASS"] == "cc03"
            assert hdu.header["MODELSUM"] == MODELS
            assert hdu.header["SIMMODEL"] == MODEL
        area = hdus["EFFECTIVE AREA"]
        axes = [f"{axis}_{end}" for axis in ("ENERG", "ZD", "AZ", "THETA") for end in ("LO", "HI")]
        assert area.columns.names == [*axes, "EFFAREA", "EFFAREA_RECO"]
        names = ["SCALE", "SIGMA_1", "AMPL_2", "SIGMA_2", "AMPL_3", "SIGMA_3"]
        assert hdus["POINT SPREAD FUNCTION"].columns.names == [*axes, *names]
        names = hdus["BACKGROUND"].columns.names
        assert names[:6] == ["DETX_LO", "DETX_HI", "DETY_LO", "DETY_HI", "ENERG_LO", "ENERG_HI"]
        assert names[6:] == ["ZD_LO", "ZD_HI", "AZ_LO", "AZ_HI", "BGD"]
        assert hdus["BACKGROUND"].columns["BGD"].unit == "1/(s MeV sr)"
        np.testing.assert_array_equal(hdus["CLASS CUTS"].data["GH_CUT"][0], cuts.gammaness)


def test_pointings_are_in_bins_of_the_grid(path, counts, binning):
    """Cosines in steps of 0.01, azimuths in steps of 10 deg; the values are those of `to_irf`."""
    irf = to_irf(counts)
    with fits.open(path) as hdus:
        row = hdus["EFFECTIVE AREA"].data[0]
        # (theta, az, zd, energy): the first axis of FITS is the last of NumPy.
        assert row["EFFAREA"].shape == (10, 2, 2, 30)
        low, high = row["ZD_LO"], row["ZD_HI"]
        assert low[0] < 20 < high[0]
        assert low[1] < 40 < high[1]
        np.testing.assert_allclose(np.cos(np.deg2rad(low)) - np.cos(np.deg2rad(high)), 0.01)
        assert row["AZ_LO"].tolist() == [0.0, 180.0]
        np.testing.assert_allclose(row["EFFAREA"][:, 0, 0, :].T, irf.effective_area, rtol=1e-6)
        np.testing.assert_allclose(row["EFFAREA"][:, 1, 1, :].T, irf.effective_area / 2, rtol=1e-6)
        assert not row["EFFAREA"][:, 0, 1].any()
        share = counts.selected_reco / np.where(counts.thrown > 0, counts.thrown, np.inf)
        np.testing.assert_allclose(
            row["EFFAREA_RECO"][:, 0, 0].T, share * counts.area_m2, rtol=1e-6
        )
        matrix = hdus["ENERGY DISPERSION"].data["MATRIX"][0]  # migra, theta, az, zd, energy
        found = np.transpose(matrix[:, :, 0, 0], (2, 0, 1))
        np.testing.assert_allclose(found, irf.energy_dispersion, rtol=1e-6)
        rate = hdus["BACKGROUND"].data["BGD"][0]  # az, zd, energy, dety, detx
        found = np.transpose(rate[0, 0], (0, 2, 1))
        np.testing.assert_allclose(found, irf.background_3d, rtol=1e-6)
        ring = hdus["BACKGROUND RING"].data["BGD"][0]
        np.testing.assert_allclose(ring[:, 0, 0].T, irf.background_2d, rtol=1e-6)


def test_everything_comes_back(path, counts, binning):
    found = read_irf2(path)
    assert found.event_class == "cc03"
    assert asdict(found.binning) == asdict(binning)
    assert found.meta == {"provenance": {"stage": "irf", "seed": 1}}
    assert [item.zenith_deg for item in found.counts] == [20.0, 40.0]
    first = found.counts[0]
    for field in fields(Counts):
        one, two = getattr(counts, field.name), getattr(first, field.name)
        if field.name == "edges":
            assert all(
                np.array_equal(a, b)
                for a, b in zip(*(vars(e).values() for e in (one, two)), strict=True)
            )
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two)
        else:
            assert one == two, field.name


def test_one_gaussian_per_coarse_bin(path, binning):
    with fits.open(path) as hdus:
        sigma = hdus["POINT SPREAD FUNCTION"].data["SIGMA_1"][0][:, 0, 0].T
    groups = sigma.reshape(10, 3, 5, 2)
    np.testing.assert_array_equal(groups, np.broadcast_to(groups[:, :1, :, :1], groups.shape))


def test_point_like_gammas_have_one_offset(sample, cuts, binning, tmp_path):
    point = next(part for part in sample.of("gamma") if part.point_like)
    only = Sample((point, *sample.background()), sample.meta)
    counts = count(only, cuts, fine_edges(binning), FluxConfig(), point_like=True)
    write_irf2(tmp_path / "p.fits", [counts], binning, cuts)
    found = read_irf2(tmp_path / "p.fits").counts[0]
    assert found.point_like
    assert found.meta["gamma_offset"] == 0.5
    np.testing.assert_array_equal(found.rad_max, counts.rad_max)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"event_class": "cc01"}, "class cc01 and the cuts of class cc03"),
        ({"meta": {"models": "other"}}, "differ in"),
        ({"point_like": True, "zenith_deg": 50.0}, r"20\.0 deg and 50\.0 deg differ in point-like"),
        ({}, "are in one bin of the response"),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts, cuts, binning, tmp_path, change, sentence):
    other = replace(counts, **change)
    with pytest.raises(AstriError, match=sentence):
        write_irf2(tmp_path / "no.fits", [counts, other], binning, cuts)
    with pytest.raises(AstriError, match="no pointings"):
        write_irf2(tmp_path / "no.fits", [], binning, cuts)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(path, counts, cuts, binning):
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        write_irf2(path, [counts], binning, cuts)
    assert path.read_bytes() == before


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(AstriError, match="There is no response file"):
        read_irf2(tmp_path / "none.fits")
    fits.PrimaryHDU().writeto(tmp_path / "other.fits")
    with pytest.raises(AstriError, match="no response file of this package"):
        read_irf2(tmp_path / "other.fits")
    (tmp_path / "text.fits").write_text("no FITS at all")
    with pytest.raises(AstriError, match="cannot be read as a response file"):
        read_irf2(tmp_path / "text.fits")


def test_damaged_files_are_refused(path, tmp_path):
    """Cut off, a byte changed, another version, other bins than it says."""
    content = path.read_bytes()
    cut = tmp_path / "cut.fits.gz"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(AstriError, match=r"is cut off|cannot be read"):
        read_irf2(cut)
    with warnings.catch_warnings(), fits.open(path) as hdus:
        warnings.simplefilter("ignore")
        plain = tmp_path / "plain.fits"
        hdus.writeto(plain)
        start = hdus["SUMS"].fileinfo()["datLoc"]
        hdus["SUMS"].header["IRF2VERS"] = 99
        hdus.writeto(tmp_path / "version.fits", checksum=True)
        hdus["SUMS"].header["IRF2VERS"] = 1
        hdus["SUMS"].header["TTYPE6"] = "OTHER"
        hdus.writeto(tmp_path / "column.fits", checksum=True)
    read_irf2(plain)
    changed = bytearray(plain.read_bytes())
    changed[start + 5000] ^= 0xFF
    plain.write_bytes(bytes(changed))
    with pytest.raises(AstriError, match="Checksum verification failed"):
        read_irf2(plain)
    with pytest.raises(AstriError, match="version 99 of the format"):
        read_irf2(tmp_path / "version.fits")
    with pytest.raises(AstriError, match="is damaged"):
        read_irf2(tmp_path / "column.fits")
