"""What the stage `science` says of inputs that it cannot use."""

import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from astri_gpu.config_science import ScienceConfig
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.options import path_list
from astri_gpu.science.extraction import Extractor, RunCounts, energy_edges
from astri_gpu.science.maps import sky_maps
from astri_gpu.science.runs import Faults, choose_runs
from astri_gpu.stages.science import run
from tests.science.conftest import CRAB, RUNS, quick


def chosen(folder, **options):
    """Return the runs of a folder, or of files, and what was told."""
    config = quick(input=str(folder), output="unused", **options)
    faults = Faults(config.on_error == "skip")
    inputs = [Path(path) for path in path_list(folder)]
    responses = [Path(path) for path in config.response or ()]
    return choose_runs(inputs, responses, config, faults), faults, config


@pytest.fixture
def copy(drawn, tmp_path):
    """Return a copy of the drawn runs."""
    return Path(shutil.copytree(drawn, tmp_path / "copy"))


def without(folder, kind, obs_id):
    """Take the rows of a kind of table of a run out of the index."""
    from astropy.io import fits

    path = folder / "hdu-index.fits.gz"
    with fits.open(path, mode="update") as file:
        rows = file[1].data
        out = (rows["HDU_TYPE"] == kind) & (rows["OBS_ID"] == obs_id)
        assert out.sum() == 1
        file[1].data = rows[~out]


def test_a_folder_without_index(tmp_path):
    with pytest.raises(UsageError, match=r"has no index file \(hdu-index.fits.gz\): give"):
        chosen(tmp_path)


def test_a_file_that_is_no_fits(tmp_path):
    (tmp_path / "events.fits").write_text("nothing")
    with pytest.raises(AstriError, match="cannot be read as FITS"):
        chosen(tmp_path / "events.fits")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("events", "no event list"),
        ("gti", "no good time intervals"),
        ("aeff", "no effective area"),
        ("edisp", "no energy dispersion"),
        ("psf", "no point spread function"),
    ],
)
def test_a_run_without_a_part(copy, kind, words):
    without(copy, kind, 1)
    with pytest.raises(AstriError, match=rf"Run 1: .*{words}.*on_error=skip"):
        chosen(copy)  # which stops before it reads anything of run 2
    if kind == "aeff":
        found, faults, _ = chosen(copy, on_error="skip")
        assert [head.obs_id for head in found.heads] == [2]
        assert words in faults.left_out[1]


def test_a_response_that_is_cut_short(copy):
    path = sorted(copy.glob("*_0502_*"))[1]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(AstriError, match=r"Run 2: it has no effective area: the table .* is cut"):
        chosen(copy)


def test_a_place_that_no_header_names(copy):
    from astropy.io import fits

    path = min(copy.glob("*_0201_*"))
    with fits.open(path, mode="update") as file:
        for name in ("GEOLON", "GEOLAT", "ALTITUDE"):
            del file["EVENTS"].header[name]
    with pytest.raises(AstriError, match="Run 1: its header does not say where the telescopes"):
        chosen(copy, runs=[1])


def test_no_run_is_left(copy):
    for path in copy.glob("*_0502_*"):
        path.unlink()
    with pytest.raises(AstriError, match="No run is left to analyse: run 1"):
        chosen(copy, on_error="skip")


def test_without_background_there_are_no_maps_of_the_run(copy):
    for obs_id in (1, 2):
        without(copy, "bkg", obs_id)
    found, faults, config = chosen(copy)
    assert sky_maps(found, Extractor(found, config), config, faults) is None
    assert any("no background model" in text for text in faults.warnings)


def test_targets(hess):
    with pytest.raises(UsageError, match=r"Run 23523 is of Crab.*and run .* name the target"):
        chosen(hess, runs=[RUNS[0], 33787])
    with pytest.raises(UsageError, match=r"No event list says where the target M 31 is \(they"):
        chosen(hess, runs=RUNS, target="M 31")
    found, _, _ = chosen(hess, runs=[RUNS[0], 33787], target="crab nebula")
    assert [head.obs_id for head in found.heads] == [RUNS[0]]
    with pytest.raises(AstriError, match=r"is in the field of no run: the nearest, run 235\d\d"):
        chosen(hess, runs=RUNS, ra_deg=10.0, dec_deg=41.0)


def test_runs_that_are_not_there(drawn):
    with pytest.raises(UsageError, match=r"runs names 7, which .* does not have: it has 1, 2"):
        chosen(drawn, runs=[1, 7])


def test_a_run_given_twice(drawn, copy):
    with pytest.raises(AstriError, match=r"Run 1 is in .* and in .*: give it once"):
        choose_runs([drawn, copy], [], quick(input="x", output="y"), Faults(False))


def test_no_off_region_fits(drawn):
    found, faults, config = chosen(drawn, detection={"on_radius_deg": 0.6})
    with pytest.raises(AstriError, match=r"Run 1: no reflected off region fits: it points 0.50 "):
        Extractor(found, config).datasets(faults)


def test_energies_outside(drawn):
    found, _, config = chosen(drawn, sed={"energy_min_tev": 1e5})
    with pytest.raises(UsageError, match="outside those of the responses"):
        Extractor(found, config)


def test_classes_that_differ(copy):
    from astropy.io import fits

    path = min(copy.glob("*_0201_*"))
    with fits.open(path, mode="update") as file:
        file["EVENTS"].header["EV_CLASS"] = "cc01"
    _, faults, _ = chosen(copy)
    assert any("different event classes (cc01, cc02)" in text for text in faults.warnings)


def test_without_gammapy(drawn, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "gammapy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gammapy", None)
    with pytest.raises(AstriError, match=r"'astri_gpu\[science\]'"):
        run(quick(input=str(drawn), output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_an_output_with_other_files(drawn, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files too"):
        run(quick(input=str(drawn), output=str(tmp_path), overwrite=True))


@pytest.mark.parametrize("text", ["83.6,22", "a,b,c", "83.6,22,0", "400,22,1", "nan,1,1"])
def test_circles_that_are_none(text):
    with pytest.raises(UsageError, match="which is no circle"):
        ScienceConfig(input="a", output="b", exclude=[text]).validate()


def test_half_a_target_and_energies_in_disorder():
    with pytest.raises(UsageError, match="give both or neither"):
        ScienceConfig(input="a", output="b", ra_deg=1.0).validate()
    with pytest.raises(UsageError, match="is not below"):
        quick(input="a", output="b", sed={"energy_min_tev": 2.0, "energy_max_tev": 1.0}).validate()


def test_event_lists_with_their_responses(drawn, ours):
    """Files instead of a folder, the responses told by OBS_ID, give the same counts."""
    files = sorted(map(str, drawn.glob("*_0201_*")))
    responses = sorted(map(str, drawn.glob("*_0502_*")))
    found, faults, config = chosen(files, response=responses[::-1])
    _, datasets = Extractor(found, config).datasets(faults)
    counts = [int(dataset.counts.data[dataset.mask_safe.data].sum()) for dataset in datasets]
    assert counts == [row["n_on"] for row in ours.numbers["runs"]]
    with pytest.raises(UsageError, match="2 event lists and 3 responses"):
        chosen(files, response=[*responses, responses[0]])
    with pytest.raises(AstriError, match="Run 1: it has no effective area"):
        chosen(files)
    with pytest.raises(AstriError, match="has no table of events"):
        chosen(responses[:1])


def test_responses_for_a_cut_on_the_angle(drawn, tmp_path):
    """RAD_MAX: the on region has the radius of the response, the area is taken as it is."""
    from astri_gpu.responses.gadf_write import write_irf
    from tests.made_responses import made_irf

    files = sorted(map(str, drawn.glob("*_0201_*")))
    response = tmp_path / "0502.fits"
    write_irf(response, made_irf(20.0, point_like=True))
    found, faults, config = chosen(files, response=[str(response)], **CRAB)
    assert found.point_like
    extractor = Extractor(found, config)
    radius = 0.1 / np.cos(np.radians(20.0))
    assert extractor.largest_radius_deg == pytest.approx(radius, rel=1e-3)
    _, datasets = extractor.datasets(faults)
    for dataset in datasets:
        assert np.ravel(dataset.acceptance_off.data).max() == config.detection.n_off
    one = datasets[0]
    middle = int(np.argmin(np.abs(one.exposure.geom.axes["energy_true"].center.value - 10)))
    energy = one.exposure.geom.axes["energy_true"].center[middle]
    area = found.observations[0].aeff.evaluate(energy_true=energy, offset="0.5 deg")
    live = found.observations[0].observation_live_time_duration
    exposure = one.exposure.quantity.ravel()[middle]
    assert exposure.to_value("m2 s") == pytest.approx((area * live).to_value("m2 s"), rel=0.01)


def test_a_fit_that_does_not_converge(crab, monkeypatch):
    """It is flagged in numbers, table, page, picture and summary line."""
    from types import SimpleNamespace

    from gammapy.datasets import Datasets, SpectrumDatasetOnOff
    from gammapy.estimators import FluxPoints
    from gammapy.modeling import Fit

    from astri_gpu.science.fitting import fit_spectrum
    from astri_gpu.science.gammapy_calls import collected
    from astri_gpu.science.numbers import spectrum_sentence
    from astri_gpu.science.page import page
    from astri_gpu.science.pictures import spectrum_figure
    from astri_gpu.science.runs import Target

    path = crab.path / "datasets" / "pha_stacked.fits"
    with collected(Counter()):
        dataset = SpectrumDatasetOnOff.read(path)
    stopped = SimpleNamespace(
        optimize_result=SimpleNamespace(success=False, message="call limit reached"),
        covariance_result=None,
    )
    monkeypatch.setattr(Fit, "run", lambda self, datasets: stopped)
    config = quick(input="a", output="b")
    fit = fit_spectrum(Datasets([dataset]), RunCounts(363, 545, 0.037, 6300.0), "Crab", config)
    assert not fit.converged
    assert "call limit reached" in fit.message
    points = FluxPoints.read(
        crab.path / "flux_points.fits", format="gadf-sed", reference_model=fit.model
    )
    title = spectrum_figure(fit, points, Target("Crab", 83.6, 22.0), 40, ()).axes[0].get_title()
    assert "did not converge" in title
    numbers = {**crab.numbers, "spectrum": {**crab.numbers["spectrum"], "converged": False}}
    assert "did not converge" in spectrum_sentence(numbers)
    assert "do not trust it" in page(numbers, crab.path)


def test_a_model_with_curvature(crab):
    """A log parabola is fitted from the power law; the page names its index at the reference."""
    from gammapy.datasets import SpectrumDatasetOnOff

    from astri_gpu.science.fitting import fit_spectrum
    from astri_gpu.science.gammapy_calls import collected

    with collected(Counter()):
        dataset = SpectrumDatasetOnOff.read(crab.path / "datasets" / "pha_stacked.fits")
        counts = RunCounts(363, 545, 0.037, 6300.0)
        power_law = fit_spectrum([dataset], counts, "Crab", quick(input="a", output="b"))
        config = quick(input="a", output="b", sed={"model": "log_parabola"})
        curved = fit_spectrum([dataset], counts, "Crab", config)
    assert (power_law.slope.name, curved.slope.name) == ("index", "alpha")
    assert curved.improvement == pytest.approx(power_law.statistic - curved.statistic)
    assert curved.improvement > -1e-3
    assert curved.degrees_of_freedom == power_law.degrees_of_freedom - 1


@pytest.mark.parametrize(
    ("low", "high", "per_decade", "number"),
    [(0.1, 100.0, 10, 30), (0.316227766, 316.227766, 10, 30), (0.5, 2.0, 5, 4), (0.5, 0.6, 5, 1)],
)
def test_edges_of_energy(low, high, per_decade, number):
    edges = energy_edges(low, high, per_decade)
    assert len(edges) == number + 1
    assert (edges[0], edges[-1]) == (low, high)
    steps = np.diff(np.log10(edges))
    assert np.all(steps > 0)
    assert steps.max() <= 1 / per_decade + 1e-6


def test_significance_as_li_and_ma_give_it():
    n_on, n_off, alpha = 120, 160, 0.5
    total = n_on + n_off
    expected = np.sqrt(
        2
        * (
            n_on * np.log((1 + alpha) / alpha * n_on / total)
            + n_off * np.log((1 + alpha) * n_off / total)
        )
    )
    assert RunCounts(n_on, n_off, alpha, 1.0).significance == pytest.approx(expected)
    assert RunCounts(10, 160, alpha, 1.0).significance < 0
    assert RunCounts(0, 0, alpha, 1.0).significance == 0


def test_upper_limits_of_counts():
    # Without any background the probability of no event is exp(-s), which W counts as 2 s.
    assert RunCounts(0, 0, 0.5, 1.0).upper_limit() == pytest.approx(2.0, rel=1e-3)
    assert RunCounts(3, 20, 0.5, 1.0).upper_limit() > 1
    from gammapy.stats import WStatCountsStatistic

    theirs = WStatCountsStatistic(120, 160, 0.5).compute_upper_limit(2.0)
    assert RunCounts(120, 160, 0.5, 1.0).upper_limit() == pytest.approx(float(theirs), rel=1e-3)
