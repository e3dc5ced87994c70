"""The stage `science`: real and drawn sources, against Gammapy's own words and known fluxes."""

import json
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import QTable, Table

from astri_gpu.science.extraction import Extractor, counts_of
from astri_gpu.science.fitting import fit_spectrum, flux_points
from astri_gpu.science.gammapy_calls import collected
from astri_gpu.science.light_curve import light_curve
from astri_gpu.science.numbers import collect, detection_sentence, spectrum_sentence
from astri_gpu.science.products import is_ours
from astri_gpu.science.runs import Chosen, Faults, Target, choose_runs
from tests.science.conftest import CRAB, RUNS, quick


def value(summary, name):
    """Return value and error of a fitted parameter."""
    parameters = {entry["name"]: entry for entry in summary.numbers["spectrum"]["parameters"]}
    return parameters[name]["value"], parameters[name]["error"]


@pytest.fixture(scope="module")
def plain(hess):
    """Return index, amplitude and significance as a plain script of Gammapy finds them."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from gammapy.data import DataStore
    from gammapy.datasets import Datasets, SpectrumDataset
    from gammapy.makers import ReflectedRegionsBackgroundMaker, SafeMaskMaker, SpectrumDatasetMaker
    from gammapy.maps import MapAxis, RegionGeom
    from gammapy.modeling import Fit
    from gammapy.modeling.models import PowerLawSpectralModel, SkyModel
    from regions import CircleSkyRegion

    region = CircleSkyRegion(SkyCoord(83.633, 22.014, unit="deg"), 0.11 * u.deg)
    reco = MapAxis.from_energy_bounds(0.1, 40, nbin=10, per_decade=True, unit="TeV", name="energy")
    true = MapAxis.from_energy_bounds(
        0.05, 100, nbin=20, per_decade=True, unit="TeV", name="energy_true"
    )
    empty = SpectrumDataset.create(RegionGeom.create(region, axes=[reco]), energy_axis_true=true)
    make = SpectrumDatasetMaker(
        containment_correction=True, selection=["counts", "exposure", "edisp"]
    )
    off = ReflectedRegionsBackgroundMaker()
    safe = SafeMaskMaker(methods=["aeff-max"], aeff_percent=10)
    datasets = Datasets()
    for observation in DataStore.from_dir(hess).get_observations(RUNS):
        dataset = make.run(empty.copy(name=str(observation.obs_id)), observation)
        datasets.append(safe.run(off.run(dataset, observation), observation))
    law = PowerLawSpectralModel(index=2, amplitude="2e-11 cm-2 s-1 TeV-1", reference="1 TeV")
    datasets.models = [SkyModel(law, name="crab")]
    Fit().run(datasets)
    return law.index.value, law.amplitude.value, datasets.stack_reduce().info_dict()["sqrt_ts"]


def test_the_crab_nebula_as_a_plain_script_finds_it(crab, plain):
    index, amplitude, significance = plain
    assert value(crab, "index")[0] == pytest.approx(index, rel=0.1)
    assert value(crab, "amplitude")[0] == pytest.approx(amplitude, rel=0.1)
    # The script has lower energies and a larger region.
    assert crab.significance == pytest.approx(significance, rel=0.2)
    assert crab.converged
    assert crab.n_runs == len(RUNS)


def test_the_crab_nebula_of_the_literature(crab):
    # H.E.S.S., A&A 457, 899 (2006): a power law of 2.63, 3.45e-11 /(cm2 s TeV) at 1 TeV
    assert value(crab, "index")[0] == pytest.approx(2.63, abs=0.2)
    assert value(crab, "amplitude")[0] == pytest.approx(3.45e-11, rel=0.35)


def test_maps_of_the_crab_nebula(crab):
    from astropy.io import fits

    maps = crab.numbers["maps"]
    assert maps["distance_deg"] < 0.06
    assert maps["peak_significance"] > 30
    assert abs(maps["mean"]) < 0.3
    assert maps["width"] == pytest.approx(1.0, abs=0.25)
    with fits.open(crab.path / "maps.fits") as file:
        names = [hdu.name for hdu in file[1:]]
        assert names == ["COUNTS", "BACKGROUND", "EXCESS", "SIGNIFICANCE"]
        counts, background, excess, _ = (hdu.data for hdu in file[1:])
        assert file[0].header["PROVSTEP"] == "science"
        np.testing.assert_allclose(excess, counts - background, atol=1e-3)
        from astropy.wcs import WCS

        row, column = np.unravel_index(np.nanargmax(excess), excess.shape)
        ra, dec = WCS(file["EXCESS"].header).pixel_to_world_values(column, row)
    assert abs(ra - CRAB["ra_deg"]) < 0.1
    assert abs(dec - CRAB["dec_deg"]) < 0.1


def test_theta_squared_by_hand(crab, hess):
    """Count the events of the four runs about the nebula and opposite to it, with astropy alone."""
    from astropy.coordinates import SkyCoord

    target = SkyCoord(83.633333, 22.014444, unit="deg")
    low, high = crab.numbers["energy_range_tev"]
    n_on = n_opposite = 0
    for number in RUNS:
        table = QTable.read(hess / "data" / f"hess_dl3_dr1_obs_id_{number:06d}.fits.gz", hdu=1)
        energy = table["ENERGY"].to_value("TeV")
        used = table[(energy >= low) & (energy < high)]
        place = SkyCoord(used["RA"], used["DEC"])
        pointing = SkyCoord(table.meta["RA_PNT"], table.meta["DEC_PNT"], unit="deg")
        angle = pointing.position_angle(target)
        opposite = pointing.directional_offset_by(
            angle.wrap_at("360d") + np.pi * angle.unit, pointing.separation(target)
        )
        n_on += int(np.sum(place.separation(target).deg < 0.1))
        n_opposite += int(np.sum(place.separation(opposite).deg < 0.1))
    found = crab.numbers["theta2"]
    assert found["n_on"] == n_on
    assert found["alpha"] == pytest.approx(1 / 5)
    # One of the five off positions is the opposite one, and all have the same expectation.
    assert abs(found["background"] - n_opposite) < 4 * np.sqrt(n_opposite)
    table = Table.read(crab.path / "theta2.ecsv")
    assert table["on"].sum() > n_on
    assert table.meta["n_on"] == n_on
    assert table["theta2_max"].unit == "deg2"


def test_the_table_of_runs(crab):
    from gammapy.stats import WStatCountsStatistic

    table = Table.read(crab.path / "runs.ecsv")
    assert table["obs_id"].tolist() == RUNS
    for row in table:
        statistic = WStatCountsStatistic(row["n_on"], row["n_off"], row["alpha"])
        assert row["significance"] == pytest.approx(float(statistic.sqrt_ts))
        assert row["alpha"] == pytest.approx(1 / row["n_regions"])
    assert table["zenith_deg"][0] == pytest.approx(90 - 41.3897890380338)
    assert table["livetime_s"][0] == pytest.approx(1581.73681640625)
    assert table["n_on"].sum() == crab.numbers["detection"]["n_on"]


def test_spectra_are_read_back(crab):
    from astropy.io import fits
    from gammapy.datasets import SpectrumDatasetOnOff

    for row in crab.numbers["runs"]:
        path = crab.path / "datasets" / f"pha_obs{row['obs_id']}.fits"
        dataset = SpectrumDatasetOnOff.read(path)
        info = dataset.info_dict()
        assert info["counts"] == row["n_on"]
        assert info["counts_off"] == row["n_off"]
        with fits.open(path) as file:
            header = file["SPECTRUM"].header
            assert (header["HDUCLASS"], header["HDUCLAS1"]) == ("OGIP", "SPECTRUM")
            assert header["EXPOSURE"] == pytest.approx(row["livetime_s"])
            assert {"CHANNEL", "COUNTS", "QUALITY"} <= set(file["SPECTRUM"].columns.names)
            assert file["EBOUNDS"].columns.names == ["CHANNEL", "E_MIN", "E_MAX"]
            for key, hdu, form in (
                ("ANCRFILE", "SPECRESP", "SPECRESP"),
                ("RESPFILE", "MATRIX", "RSP_MATRIX"),
            ):
                with fits.open(path.parent / header[key]) as response:
                    assert response[hdu].header["HDUCLAS1"] == "RESPONSE"
                    assert response[hdu].header["HDUCLAS2"] == form
            assert (path.parent / header["BACKFILE"]).is_file()
    stacked = SpectrumDatasetOnOff.read(crab.path / "datasets" / "pha_stacked.fits")
    assert stacked.info_dict()["counts"] == crab.numbers["detection"]["n_on"]


def test_models_points_and_cube_are_read_back(crab):
    from gammapy.datasets import MapDataset
    from gammapy.estimators import FluxPoints
    from gammapy.modeling.models import Models

    model = Models.read(crab.path / "spectrum.yaml")[0]
    index, error = value(crab, "index")
    assert model.spectral_model.index.value == pytest.approx(index)
    assert model.spectral_model.index.error == pytest.approx(error)
    points = FluxPoints.read(
        crab.path / "flux_points.fits", format="gadf-sed", reference_model=model
    )
    table = Table.read(crab.path / "flux_points.ecsv")
    np.testing.assert_allclose(np.ravel(points.dnde.data), table["dnde"], rtol=1e-5)
    energy = table["e_ref"].to("TeV").value
    strong = np.asarray(table["sqrt_ts"]) > 5
    expected = model.spectral_model(table["e_ref"].quantity).to_value(table["dnde"].unit)
    assert strong.sum() >= 2
    np.testing.assert_allclose(table["dnde"][strong], expected[strong], rtol=0.35)
    assert np.all(np.diff(energy) > 0)
    curve = FluxPoints.read(
        crab.path / "light_curve.fits", format="lightcurve", reference_model=model
    )
    assert curve.geom.axes["time"].nbin == len(RUNS)
    assert crab.numbers["light_curve"]["n_times"] == len(RUNS)
    assert crab.numbers["light_curve"]["p_value"] > 0.001
    cube = MapDataset.read(crab.path / "datasets" / "map_dataset.fits")
    assert cube.counts.data.sum() > crab.numbers["detection"]["n_on"]
    assert cube.psf is not None


class _Parts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [text for name, text in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_needs_nothing_else(crab):
    parts = _Parts()
    parts.feed((crab.path / "report.html").read_text(encoding="utf-8"))
    assert parts.tags.count("img") == 4
    assert all(source.startswith("data:image/png;base64,") for source in parts.sources)
    assert not {"script", "link", "iframe"} & set(parts.tags)
    text = " ".join(parts.text)
    assert "is detected with" in text
    assert "Simulated" not in text
    assert all(str(number) in text for number in RUNS)
    assert all(is_ours(entry.name) for entry in crab.path.iterdir())


def test_numbers_and_record(crab):
    numbers = json.loads((crab.path / "science.json").read_text(encoding="utf-8"))
    assert numbers == crab.numbers
    assert numbers["provenance"]["stage"] == "science"
    assert len(numbers["provenance"]["inputs"]) == 1 + len(RUNS)  # index and event lists
    assert numbers["simulation_model"] is None
    assert numbers["target"]["name"] == "Crab Nebula"
    assert "gammapy" in numbers["versions"]
    assert "sigma in 4 runs" in crab.line


def test_a_drawn_source_comes_back(ours):
    # What is drawn has the spectrum of HEGRA: 2.83e-11 /(cm2 s TeV) at 1 TeV, index 2.62.
    index, index_error = value(ours, "index")
    amplitude, amplitude_error = value(ours, "amplitude")
    assert abs(index - 2.62) < 3 * index_error
    assert abs(amplitude - 2.83e-11) < 3 * amplitude_error
    assert index_error < 0.3
    assert ours.numbers["maps"]["distance_deg"] < 0.1


def test_simulated_data_say_so_everywhere(ours):
    from astropy.io import fits

    assert ours.numbers["stand_in"]
    assert "Drawn events" in ours.numbers["simulation_model"]
    page = (ours.path / "report.html").read_text(encoding="utf-8")
    assert page.count("Simulated data: Drawn events, of no physical meaning") >= 2
    assert "(simulated)" in ours.line
    for name in ("runs", "theta2", "spectrum", "flux_points", "light_curve"):
        assert "Drawn events" in Table.read(ours.path / f"{name}.ecsv").meta["simulated"]
    files = sorted(ours.path.rglob("*.fits"))
    assert len(files) > 10
    for path in files:
        assert "Drawn events" in str(fits.getheader(path)["COMMENT"])


def test_a_light_curve_in_bins_of_time(ours):

    table = Table.read(ours.path / "light_curve.ecsv")
    lengths = 86400 * (table["time_max"] - table["time_min"])
    np.testing.assert_allclose(lengths, 450, atol=0.1)
    assert len(table) == 4
    flux, error = np.asarray(table["flux"]), np.asarray(table["flux_err"])
    true = 2.83e-11 / 1.62  # integral above 1 TeV
    assert np.all(np.abs(flux - true) < 4 * error)


def test_nothing_where_nothing_is(hess):
    """A place beside the nebula: upper limits, and words that say so."""
    config = quick(
        input=str(hess),
        output="unused",
        runs=RUNS[:2],
        target="nothing",
        ra_deg=84.25,
        dec_deg=21.9,
        exclude=["83.633,22.014,0.3"],
        sed={"energy_min_tev": 1.0, "energy_max_tev": 30.0},
    )
    faults = Faults(skip=False)
    extractor = Extractor(choose_runs([hess], [], config, faults), config)
    chosen, datasets = extractor.datasets(faults)
    total = counts_of(datasets)
    assert abs(total.significance) < 3
    assert total.upper_limit() > max(total.excess, 0)
    fit = fit_spectrum(datasets, total, "nothing", config)
    assert fit.faint
    assert not fit.slope.fitted
    assert fit.slope.value == 2.5
    assert fit.degrees_of_freedom == fit.n_bins - 1
    parts = {"rows": [], "fit": fit, "curve": None, "angles": None, "maps": None}
    numbers = collect(
        chosen,
        faults,
        Counter(),
        limits=extractor.limits,
        on_radius_deg=extractor.largest_radius_deg,
        total=total,
        **parts,
    )
    assert numbers["detection"]["excess_upper_limit"] == total.upper_limit()
    assert "nothing is not detected" in detection_sentence(numbers)
    assert "For an assumed index of 2.5" in spectrum_sentence(numbers)
    assert fit.amplitude_limit > max(fit.parameter("amplitude").value, 0)
    # As bright as the limit, the source would give as many events.
    fit.model.spectral_model.amplitude.value = fit.amplitude_limit
    expected = sum(each.npred_signal().data[each.mask_safe.data].sum() for each in datasets)
    assert expected == pytest.approx(total.upper_limit(), rel=1e-3)


@pytest.mark.parametrize("n_events", [0, 1])
def test_upper_limits_where_there_is_a_deficit(crab, n_events):
    """With hardly any event in the on region the flux points are limits, none of them zero."""
    from gammapy.datasets import SpectrumDatasetOnOff

    config = quick(input="a", output="b")
    with collected(Counter()):
        dataset = SpectrumDatasetOnOff.read(crab.path / "datasets" / "pha_stacked.fits")
        dataset.counts.data[...] = 0
        dataset.counts.data[3] = n_events
        counts = counts_of([dataset])
        assert counts.excess < 0
        fit = fit_spectrum([dataset], counts, "nothing", config)
        table = flux_points(dataset, fit, config).to_table(sed_type="dnde")
        chosen = Chosen(Target("nothing", 0.0, 0.0), (), (), False, ())
        axes = SimpleNamespace(axis=dataset.counts.geom.axes["energy"])
        curve = light_curve(chosen, [dataset], axes, fit, config, Faults(False))
    assert fit.faint
    assert np.ravel(curve.points.flux_ul.quantity.value)[0] > 0
    limits = np.asarray(table["dnde_ul"])
    assert np.all(limits > 0)
    assert np.all(np.asarray(table["is_ul"]))
    crab_points = Table.read(crab.path / "flux_points.ecsv")
    assert np.all(limits[:2] < crab_points["dnde"][:2])
