"""The stage `irf`: from stores and cuts to a folder, at one zenith and at two."""

import json
from dataclasses import replace

import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.responses.gadf_read import read_irf
from astri_gpu.responses.irf2_file import read_irf2
from astri_gpu.selection.cut_file import write_cuts
from astri_gpu.stages import irf
from tests.drawn_events import drawn_store, drawn_stores

from .conftest import hand_cuts

SMALL = (
    "binning.energy_min_tev=0.5",
    "binning.n_energies=30",
    "binning.n_offsets=10",
    "binning.group_offset=2",
    "binning.n_migra=20",
    "binning.n_rad=50",
    "binning.n_detector=20",
    "binning.group_detector=2",
    "n_bootstrap=5",
    "dpi=40",
    "progress=false",
)


def configured(paths, cut_files, output, *more):
    stores, cuts = (",".join(f"'{path}'" for path in names) for names in (paths, cut_files))
    words = [f"input=[{stores}]", f"cut_files=[{cuts}]", f"output='{output}'", *SMALL, *more]
    return compose("irf", words)


@pytest.fixture(scope="module")
def cut_files(tmp_path_factory):
    """Return files of cuts of two classes."""
    folder = tmp_path_factory.mktemp("cuts")
    for name in ("cc02", "cc03"):
        write_cuts(folder / f"{name}.fits", hand_cuts(event_class=name))
    return sorted(folder.iterdir())


@pytest.fixture(autouse=True, scope="module")
def pictures():
    """Leave out the pictures, which take longer than all the rest; return how to have them."""
    from astri_gpu.responses import curve_figures

    with pytest.MonkeyPatch.context() as patch:
        drawn = curve_figures.draw_curves
        patch.setattr(curve_figures, "draw_curves", lambda *_, **__: [])
        yield drawn


@pytest.fixture(scope="module")
def made(tmp_path_factory, stores, cut_files):
    """Return the summary of a run over two classes and two zenith angles."""
    folder = tmp_path_factory.mktemp("made")
    other = drawn_stores(folder, zenith_deg=40.0, seed=11, kinds=("gamma", "proton"))
    paths = [*stores.values(), *other.values()]
    return irf.run(configured(paths, cut_files, folder / "irf"))


def test_folder_is_complete(made):
    names = {path.name for path in made.path.iterdir()}
    responses = {
        f"{name}{end}"
        for name in ("cc02", "cc03")
        for end in (".irf2.fits.gz", "_zd20_az000.irf3.fits", "_zd40_az000.irf3.fits")
    }
    assert responses <= names
    assert {"summary.json", "curves.json", "sensitivity.ecsv"} <= names
    assert all(irf._is_ours(name) for name in names)
    assert not irf._is_ours("notes.txt")


def test_summary_tells(made):
    assert made.line.splitlines()[-1].startswith(
        f"irf: {made.path} has the responses of cc02, cc03"
    )
    assert "2 pointings" in made.line
    record = json.loads((made.path / "summary.json").read_text())
    assert record["provenance"]["stage"] == "irf"
    assert len(record["provenance"]["inputs"]) == 9
    (one, two) = record["classes"]
    assert (one["event_class"], two["event_class"]) == ("cc02", "cc03")
    assert [row["zenith_deg"] for row in one["pointings"]] == pytest.approx([20.0, 40.0])
    assert all(row["selected_events"]["gamma"] > 1000 for row in one["pointings"])
    assert all(row["background_hz"] > 0 for row in one["pointings"])
    warnings = "\n".join(record["warnings"])
    assert "No electrons at zenith 40.0 deg" in warnings
    assert "cc03 has no cut in 1 bin of 10" in warnings
    assert "optimised at zenith 20.0 deg and is applied at 40.0 deg" in warnings


def test_responses_are_those_of_the_sums(made):
    irf2 = read_irf2(made.path / "cc03.irf2.fits.gz")
    assert [item.zenith_deg for item in irf2.counts] == pytest.approx([20.0, 40.0])
    assert irf2.meta["provenance"]["stage"] == "irf"
    found = read_irf(made.path / "cc03_zd40_az000.irf3.fits")
    coarse = irf2.counts[1].selected.reshape(10, 3, 5, 2).sum(axis=(1, 3))
    thrown = irf2.counts[1].thrown.reshape(10, 3, 5, 2).sum(axis=(1, 3))
    energy = np.geomspace(0.5, 500.0, 11)
    middle = np.sqrt(energy[1:] * energy[:-1])[:, None]
    area = found.effective_area(middle, np.arange(0.5, 5.0)[None, :])
    wanted = coarse / thrown * irf2.counts[1].area_m2
    inner = wanted > 0
    np.testing.assert_allclose(area[inner], wanted[inner], rtol=1e-3)


def test_point_like_has_rad_max_and_pictures(stores, cut_files, tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("astri_gpu.responses.curve_figures.draw_curves", pictures)
    paths = [stores["point"], stores["proton"], stores["electron"]]
    summary = irf.run(configured(paths, cut_files[:1], tmp_path / "irf", "point_like=true"))
    # The first edge of the cuts above 1 TeV is at 1.58, in a bin from 0.5 to 1.99 TeV.
    assert any("changes within bins of the response (at 1.58, " in w for w in summary.warnings)
    from astropy.io import fits

    with fits.open(tmp_path / "irf" / "cc02_zd20_az000.irf3.fits") as hdus:
        assert "RAD_MAX" in hdus
        assert hdus["EFFECTIVE AREA"].header["HDUCLAS3"] == "POINT-LIKE"
    names = {path.name for path in (tmp_path / "irf").iterdir()}
    assert {"curves.png", "sensitivity.png"} <= names
    assert all(irf._is_ours(name) for name in names)


def test_no_background_is_said(stores, cut_files, tmp_path):
    summary = irf.run(configured([stores["gamma"]], cut_files[:1], tmp_path / "irf"))
    assert any("No background at zenith 20.0 deg" in text for text in summary.warnings)


def test_bins_without_background_are_named(stores, tmp_path):
    """Cuts that leave gammas and no protons in one bin of energy."""
    gammaness = hand_cuts().gammaness
    gammaness[5] = 0.93
    write_cuts(tmp_path / "hard.fits", hand_cuts(gammaness=gammaness))
    paths = [stores["gamma"], stores["proton"]]
    summary = irf.run(configured(paths, [tmp_path / "hard.fits"], tmp_path / "irf", *ALIGNED))
    (text,) = (text for text in summary.warnings if "No simulated background passes" in text)
    assert "1 bin of energy (10 to 15.8 TeV)" in text


ALIGNED = (
    "binning.energy_min_tev=1",
    "binning.energy_max_tev=100",
    "binning.group_reco=3",
)


@pytest.fixture
def one(stores):
    return [stores["gamma"], stores["proton"]]


def test_an_existing_output_is_kept(made, one, cut_files):
    before = sorted(path.name for path in made.path.iterdir())
    with pytest.raises(UsageError, match="exists already"):
        irf.run(configured(one, cut_files, made.path))
    assert sorted(path.name for path in made.path.iterdir()) == before


def test_a_folder_of_others_is_not_replaced(one, cut_files, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        irf.run(configured(one, cut_files, tmp_path, "overwrite=true"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_cuts_have_to_belong_together(one, cut_files, tmp_path):
    write_cuts(tmp_path / "again.fits", hand_cuts())
    with pytest.raises(UsageError, match=r"both cuts of class cc03"):
        irf.run(configured(one, [*cut_files, tmp_path / "again.fits"], tmp_path / "irf"))
    write_cuts(tmp_path / "other.fits", hand_cuts(event_class="x", filter="reco_n_tels >= 3"))
    with pytest.raises(UsageError, match=r"begin with 'reco_n_tels >= 1'.*'reco_n_tels >= 3'"):
        irf.run(configured(one, [*cut_files, tmp_path / "other.fits"], tmp_path / "irf"))
    assert not (tmp_path / "irf").exists()


def test_cuts_of_other_forests_are_refused(one, cut_files, tmp_path):
    cuts = hand_cuts()
    other = replace(cuts, meta=cuts.meta | {"models": "sha256:2"})
    write_cuts(tmp_path / "other.fits", other)
    with pytest.raises(AstriError, match="other forests"):
        irf.run(configured(one, [tmp_path / "other.fits"], tmp_path / "irf"))
    assert not list(tmp_path.glob("irf*"))


def test_cuts_that_remove_everything_are_refused(one, tmp_path):
    write_cuts(tmp_path / "none.fits", hand_cuts(gammaness=np.full(10, 1.1)))
    with pytest.raises(AstriError, match="passes the cuts of class cc03"):
        irf.run(configured(one, [tmp_path / "none.fits"], tmp_path / "irf"))
    assert not list(tmp_path.glob("irf*"))


def test_background_without_gammas_is_said(stores, cut_files, tmp_path):
    drawn_store(tmp_path / "p.zarr", "proton", n_thrown=3000, seed=50, zenith_deg=40.0)
    paths = [stores["gamma"], stores["proton"], tmp_path / "p.zarr"]
    summary = irf.run(configured(paths, cut_files[:1], tmp_path / "irf"))
    assert any("no gammas at zenith 40.0 deg" in text for text in summary.warnings)


def test_cuts_tuned_on_the_same_events_are_said():
    """Not so where they were tuned on the other half of the showers, or on other stores."""
    cuts, record = hand_cuts(), {"inputs": [{"checksum": "a"}, {"checksum": "b"}]}
    for tuned, checksum, part, said in (
        ("all", "a", "odd", True),
        ("odd", "b", "all", True),
        ("odd", "b", "odd", True),
        ("even", "a", "odd", False),
        ("all", "c", "all", False),
    ):
        meta = {"part": tuned, "provenance": {"inputs": [{"checksum": checksum}]}}
        texts = irf._about_tuning([replace(cuts, meta=cuts.meta | meta)], record, part)
        assert [text[:31] for text in texts] == ["The cuts of cc03 were tuned on "] * said
