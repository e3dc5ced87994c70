"""Files of cuts: everything comes back, ctapipe reads its part, damage is told of."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.selection.cut_file import BINS, read_cuts, stored_cuts_provenance, write_cuts
from astri_gpu.selection.cuts import FEW_BACKGROUND, FEW_SIGNAL, Cuts

NAN = np.nan


@pytest.fixture
def cuts():
    """Return cuts of four bins, the first without."""
    return Cuts(
        event_class="cc03",
        mode="sensitivity",
        exposure_h=50.0,
        gamma_efficiency=None,
        filter="reco_n_tels >= 2 and gammaness > 0.1",
        energy_edges=np.geomspace(0.3, 30, 5),
        gammaness=np.array([NAN, 0.71, 0.8, 0.123456789012345]),
        theta_deg=np.array([NAN, 0.2, 0.1, 0.05]),
        n_tels=np.array([2, 2, 3, 4]),
        quality=np.array([4, 4, 3, 4]),
        gammaness_efficiency=np.array([NAN, 0.8, 0.7, 0.9]),
        theta_efficiency=np.array([NAN, 0.8, 0.7, 0.6]),
        flags=np.array([FEW_SIGNAL, 0, 0, FEW_BACKGROUND]),
        curve={"n_signal": np.array([NAN, 3.0, 2.0, 1.0]), "sensitivity": np.full(4, 1e-13)},
        meta={
            "zenith_deg": 20.0,
            "azimuth_deg": 0.0,
            "models": "sha256:abc",
            "simulation_model": "Fast model",
            "options": {"cuts": {"offset_min_deg": 0.2, "offset_max_deg": 1.5}},
            "provenance": {"stage": "optimize", "inputs": []},
        },
    )


def test_everything_comes_back(cuts, tmp_path):
    write_cuts(tmp_path / "cuts.fits", cuts)
    found = read_cuts(tmp_path / "cuts.fits")
    for each in fields(Cuts):
        want, got = getattr(cuts, each.name), getattr(found, each.name)
        if isinstance(want, np.ndarray):
            np.testing.assert_array_equal(got, want, strict=True)
        elif each.name == "curve":
            assert got.keys() == want.keys()
            for name in want:
                np.testing.assert_array_equal(got[name], want[name])
        else:
            assert got == want
    assert found.valid_range_tev == pytest.approx((0.3 * 10**0.5, 30))
    assert stored_cuts_provenance(tmp_path / "cuts.fits") == cuts.meta["provenance"]


def test_efficiency_and_no_valid_bin(cuts, tmp_path):
    none = replace(
        cuts,
        mode="efficiency",
        exposure_h=None,
        gamma_efficiency=0.7,
        gammaness=np.full(4, NAN),
        filter="reco_n_tels >= 1 and " * 20 + "gammaness > 0",
    )
    write_cuts(tmp_path / "cuts.fits", none)
    found = read_cuts(tmp_path / "cuts.fits")
    assert (found.exposure_h, found.gamma_efficiency) == (None, 0.7)
    assert found.valid_range_tev is None
    assert found.filter == none.filter


def test_header_says_units_and_meanings(cuts, tmp_path):
    from astropy.io import fits

    write_cuts(tmp_path / "cuts.fits", cuts)
    with fits.open(tmp_path / "cuts.fits") as hdus:
        header, columns = hdus["CLASS CUTS"].header, hdus["CLASS CUTS"].columns
        assert (header["EV_CLASS"], header["EXPOSURE"]) == ("cc03", 50.0)
        assert header["VALIDLO"] == pytest.approx(0.3 * 10**0.5)
        assert header["ZENITH"] == 20.0
        assert "Fast model" in str(header["COMMENT"])
        assert columns["THETA_CUT"].unit == "deg"
        for number, _ in enumerate(columns.names, start=1):
            assert header.comments[f"TTYPE{number}"]
        assert {column for column, *_ in BINS.values()} <= set(columns.names)


@pytest.mark.peers
def test_ctapipe_reads_it(cuts, tmp_path, peers):
    from ctapipe.irf import OptimizationResult

    write_cuts(tmp_path / "cuts.fits", cuts)
    found = OptimizationResult.read(tmp_path / "cuts.fits")
    np.testing.assert_array_equal(found.gh_cuts["cut"], cuts.gammaness)
    np.testing.assert_allclose(found.gh_cuts["low"].to_value("TeV"), cuts.energy_edges[:-1])
    np.testing.assert_array_equal(
        found.spatial_selection_table["cut"].to_value("deg"), cuts.theta_deg
    )
    assert found.valid_energy.max.to_value("TeV") == pytest.approx(30)
    assert found.valid_offset.min.to_value("deg") == pytest.approx(0.2)
    assert found.clf_prefix == "RandomForestClassifier"
    (criterion,) = found.quality_query.quality_criteria
    assert criterion[1] == "RandomForestRegressor_telescopes.sum(axis=1) >= 2"


def test_files_that_are_none(cuts, tmp_path):
    from astropy.io import fits

    with pytest.raises(AstriError, match="There is no file of cuts"):
        read_cuts(tmp_path / "none.fits")
    other = tmp_path / "other.fits"
    other.write_text("not a FITS file")
    with pytest.raises(AstriError, match="cannot be read as a file of cuts"):
        read_cuts(other)
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "empty.fits")
    with pytest.raises(AstriError, match=r"no file of cuts .it has no CLASS CUTS table"):
        read_cuts(tmp_path / "empty.fits")
    path = tmp_path / "cuts.fits"
    write_cuts(path, cuts)
    with pytest.raises(UsageError, match="exists already"):
        write_cuts(path, cuts)
    whole = path.read_bytes()
    for place in (len(whole) - 2870, whole.index(b"EV_CLASS") + 12):
        path.write_bytes(whole[:place] + b"9" + whole[place + 1 :])
        with pytest.raises(AstriError, match="damaged or of another kind"):
            read_cuts(path)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(AstriError, match=r"damaged|no file of cuts"):
        read_cuts(path)


@settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_any_byte_may_be_wrong(cuts, tmp_path, place, value):
    """It is told of, or (in blanks that nobody reads) does not matter; nothing else happens."""
    path = tmp_path / "cuts.fits"
    write_cuts(path, cuts, overwrite=True)
    whole = bytearray(path.read_bytes())
    whole[int(place * len(whole))] = value
    path.write_bytes(whole)
    try:
        found = read_cuts(path)
    except AstriError:
        return
    np.testing.assert_array_equal(found.gammaness, cuts.gammaness)
    np.testing.assert_array_equal(found.theta_deg, cuts.theta_deg)
    assert found.filter == cuts.filter
    assert found.meta == cuts.meta


def test_another_version(cuts, tmp_path):
    from astropy.io import fits

    write_cuts(tmp_path / "cuts.fits", cuts)
    with fits.open(tmp_path / "cuts.fits") as hdus:
        hdus["CLASS CUTS"].header["CUTSVERS"] = 99
        hdus.writeto(tmp_path / "later.fits", checksum=True)
    with pytest.raises(AstriError, match="version 99"):
        read_cuts(tmp_path / "later.fits")
