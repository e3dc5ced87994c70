"""The stage `select`: files that other tools read, and inputs that do not belong together."""

import json
from dataclasses import replace

import numpy as np
import pytest

from astri_gpu.config_response import ObservationConfig, SelectConfig
from astri_gpu.dl3.index_files import HDU_INDEX, OBS_INDEX
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.selection.cut_file import read_cuts, write_cuts
from astri_gpu.stages.select import run
from tests.drawn_events import drawn_store

OBSERVATION = {"n_runs": 1, "duration_s": 60.0}


def select(products, output, *, observation=None, **changes):
    given = ObservationConfig(**(OBSERVATION | (observation or {})))
    return run(SelectConfig(**(products | changes), output=str(output), observation=given))


@pytest.fixture
def gammapy():
    return pytest.importorskip("gammapy.data")


def open_events(folder):
    from astropy.io import fits

    return [fits.open(path) for path in sorted(folder.glob("*_0201_*"))]


def test_files_have_the_names_of_astri(dl3):
    folder, summary = dl3
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            "20260115_MA_Crab_W0.50p000_00000000_R_000001_0201_cc02.lv3.fits.gz",
            "20260115_MA_Crab_W0.50p000_00000000_R_000001_0502_cc02.lv3.fits.gz",
            "20260115_MA_Crab_W0.50p180_00000000_R_000002_0201_cc02.lv3.fits.gz",
            "20260115_MA_Crab_W0.50p180_00000000_R_000002_0502_cc02.lv3.fits.gz",
            HDU_INDEX,
            OBS_INDEX,
            "select.json",
        ]
    )
    record = json.loads((folder / "select.json").read_text())
    assert record["counts"] == dict(summary.counts)
    assert record["provenance"]["stage"] == "select"
    assert len(record["provenance"]["inputs"]) == 5
    assert "2 runs of Crab (simulated events stand in)" in summary.line


def test_headers_say_what_gadf_asks_for(dl3):
    folder, _ = dl3
    for number, file in enumerate(open_events(folder), start=1):
        head = file["EVENTS"].header
        assert head["OBS_ID"] == number
        assert isinstance(head["OBS_ID"], int)
        assert head["EQUINOX"] == 2000.0
        assert isinstance(head["EQUINOX"], float)
        assert head["ONTIME"] == pytest.approx(300)
        assert head["LIVETIME"] == pytest.approx(270)
        assert head["DEADC"] == pytest.approx(0.9)
        assert (head["OBS_MODE"], head["RADECSYS"]) == ("POINTING", "ICRS")
        assert (head["EV_CLASS"], head["N_TELS"]) == ("cc02", 9)
        assert head["TELLIST"] == "1,2,3,4,5,6,7,8,9"
        assert head["STANDIN"] is True
        assert "of no physical meaning" in head["SIMMODEL"]
        assert "STANDIN" in str(file[0].header["COMMENT"])
        assert file["EVENTS"].columns["EVENT_TYPE"].format == "32X"
        file.close()


def test_zero_of_times_is_the_beginning_of_2020(dl3):
    from astropy.time import Time, TimeDelta

    folder, _ = dl3
    file = open_events(folder)[0]
    head = file["EVENTS"].header
    zero = Time(head["MJDREFI"], head["MJDREFF"], format="mjd", scale="tt")
    assert abs((zero - Time("2020-01-01T00:00:00", scale="utc").tt).sec) < 1e-6
    stop = zero + TimeDelta(head["TSTOP"], format="sec")
    assert abs((stop - Time(head["DATE-END"], scale="utc").tt).sec) < 1e-3
    times = file["EVENTS"].data["TIME"]
    assert (np.diff(times) >= 0).all()
    assert head["TSTART"] <= times[0] < times[-1] < head["TSTOP"]


def test_places_are_those_of_astropy(dl3, horizon):
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    from astri_gpu.dl3.sky import Site

    folder, _ = dl3
    file = open_events(folder)[1]
    head, rows = file["EVENTS"].header, file["EVENTS"].data[::20]
    site = Site(head["GEOLAT"], head["GEOLON"], head["ALTITUDE"])
    frame = horizon(site, rows["TIME"].astype(float))
    found = SkyCoord(alt=rows["ALT"] * u.deg, az=rows["AZ"] * u.deg, frame=frame).icrs
    ours = SkyCoord(rows["RA"] * u.deg, rows["DEC"] * u.deg)
    assert len(rows) > 20
    assert found.separation(ours).arcsec.max() < 1
    looked = SkyCoord(head["RA_PNT"] * u.deg, head["DEC_PNT"] * u.deg)
    # The field of view is a frame about the pointing, its longitude against azimuth.
    there = SkyCoord(rows["AZ"] * u.deg, rows["ALT"] * u.deg)
    centre = looked.transform_to(frame)
    lon, lat = SkyCoord(centre.az, centre.alt).spherical_offsets_to(there)
    np.testing.assert_allclose(-lon.deg, rows["DETX"], atol=2e-3)
    np.testing.assert_allclose(lat.deg, rows["DETY"], atol=2e-3)


def test_gammapy_opens_the_folder_and_the_files(dl3, gammapy):
    folder, summary = dl3
    by_index = gammapy.DataStore.from_dir(folder).get_observations()
    by_files = gammapy.DataStore.from_events_files(
        sorted(folder.glob("*_0201_*")), sorted(folder.glob("*_0502_*"))
    ).get_observations()
    assert len(by_index) == len(by_files) == 2
    for first, second, row in zip(by_index, by_files, summary.runs, strict=True):
        assert set(first.available_irfs) == set(second.available_irfs)
        assert {"aeff", "edisp", "psf", "bkg"} <= set(first.available_irfs)
        assert len(first.events.table) == len(second.events.table) == row["selected"]
        assert first.observation_live_time_duration.to_value("s") == pytest.approx(270)
        assert first.pointing.fixed_icrs.separation(first.target_radec).deg == pytest.approx(0.5)


def test_gammapy_finds_as_many_events_as_the_response_says(dl3, gammapy):
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from gammapy.datasets import SpectrumDataset
    from gammapy.makers import SpectrumDatasetMaker
    from gammapy.maps import MapAxis, RegionGeom
    from gammapy.modeling.models import PowerLawSpectralModel, SkyModel
    from regions import CircleSkyRegion

    folder, _ = dl3
    axis = MapAxis.from_energy_bounds("1 TeV", "100 TeV", 4, name="energy")
    true = MapAxis.from_energy_bounds("0.3 TeV", "300 TeV", 30, name="energy_true")
    crab = SkyCoord(83.6287 * u.deg, 22.0147 * u.deg)
    maker = SpectrumDatasetMaker(
        selection=["counts", "background", "exposure", "edisp"],
        containment_correction=True,
    )
    geom = RegionGeom.create(CircleSkyRegion(crab, 0.15 * u.deg), axes=[axis])
    total = SpectrumDataset.create(geom, energy_axis_true=true, name="all")
    for observation in gammapy.DataStore.from_dir(folder).get_observations():
        total.stack(maker.run(SpectrumDataset.create(geom, energy_axis_true=true), observation))
    spectrum = PowerLawSpectralModel(
        index=2.62, amplitude="2.83e-11 cm-2 s-1 TeV-1", reference="1 TeV"
    )
    total.models = SkyModel(spectral_model=spectrum, name="crab", datasets_names=["all"])
    counts, wanted = total.counts.data.sum(), total.npred().data.sum()
    assert total.npred_signal().data.sum() > 20
    assert abs(counts - wanted) < 4 * np.sqrt(wanted) + 0.05 * wanted


def test_the_check_finds_nothing(dl3):
    from astri_gpu.dl3.check import check_file

    for path in sorted(dl3[0].glob("*.fits.gz")):
        assert check_file(path) == []


def test_dead_time_is_in_the_background_of_the_response(products, tmp_path):
    from astropy.io import fits

    rates = []
    for dead in (0.0, 0.5):
        folder = tmp_path / f"dead{dead}"
        select(products, folder, observation={"dead_time": dead})
        with fits.open(next(folder.glob("*_0502_*"))) as file:
            rates.append(file["BACKGROUND"].data["BKG"][0])
    assert rates[0].max() > 0
    np.testing.assert_allclose(rates[1], 0.5 * rates[0], rtol=1e-6)


def test_the_same_seed_makes_the_same_files(products, dl3, tmp_path):
    again = tmp_path / "again"
    select(products, again, observation={"n_runs": 2, "duration_s": 300.0, "dead_time": 0.1})
    for first, second in zip(open_events(dl3[0]), open_events(again), strict=True):
        for table in ("EVENTS", "GTI", "POINTING"):
            assert first[table].data.tobytes() == second[table].data.tobytes()
            assert first[table].header["DATASUM"] == second[table].header["DATASUM"]


def test_energies_outside_are_counted(products, sample, cuts, tmp_path):
    narrow = replace(
        cuts,
        energy_edges=cuts.energy_edges[3:],
        **{
            name: getattr(cuts, name)[3:]
            for name in ("gammaness", "theta_deg", "n_tels", "quality", "flags")
        },
        gammaness_efficiency=cuts.gammaness_efficiency[3:],
        theta_efficiency=cuts.theta_efficiency[3:],
    )
    write_cuts(tmp_path / "narrow.fits", narrow)
    found = select(products, tmp_path / "out", cut_file=str(tmp_path / "narrow.fits"))
    assert found.counts["outside_energy"] > 0
    assert "outside the energies" in found.line
    file = open_events(tmp_path / "out")[0]
    assert file["EVENTS"].header["VALIDLO"] == pytest.approx(cuts.energy_edges[3])
    assert file["EVENTS"].data["ENERGY"].min() >= cuts.energy_edges[3]


def test_cuts_that_remove_everything_leave_empty_lists(products, cuts, tmp_path, gammapy):
    write_cuts(tmp_path / "none.fits", replace(cuts, gammaness=np.full(8, 1.5)))
    found = select(products, tmp_path / "out", cut_file=str(tmp_path / "none.fits"))
    assert found.counts["selected"] == 0
    assert any("No event of run 1 passes" in text for text in found.warnings)
    (observation,) = gammapy.DataStore.from_dir(tmp_path / "out").get_observations()
    assert len(observation.events.table) == 0


def test_another_class_is_refused(products, cuts, tmp_path):
    write_cuts(tmp_path / "other.fits", replace(cuts, event_class="cc03"))
    with pytest.raises(AstriError, match=r"of event class cc02, the cuts .* are of cc03"):
        select(products, tmp_path / "out", cut_file=str(tmp_path / "other.fits"))
    assert not (tmp_path / "out").exists()


def test_other_forests_are_refused(products, cuts, tmp_path):
    models = "sha256:" + "2" * 64
    write_cuts(tmp_path / "other.fits", replace(cuts, meta=cuts.meta | {"models": models}))
    with pytest.raises(AstriError, match="was made with the forests"):
        select(products, tmp_path / "out", cut_file=str(tmp_path / "other.fits"))
    stores = [
        drawn_store(tmp_path / f"{kind}.zarr", kind, n_thrown=2000, models=models).path
        for kind in ("gamma", "proton")
    ]
    with pytest.raises(AstriError, match="were reconstructed with the forests"):
        select(products, tmp_path / "out", input=[str(path) for path in stores])


def test_a_zenith_angle_far_from_the_response_is_refused(products, tmp_path):
    store = drawn_store(tmp_path / "far.zarr", zenith_deg=45.0, n_thrown=20_000).path
    with pytest.raises(AstriError, match="zenith"):
        select(products, tmp_path / "out", input=[str(store)])


def test_an_existing_folder_is_replaced_on_request_only(products, tmp_path):
    select(products, tmp_path / "out", observation={"n_runs": 2})
    with pytest.raises(UsageError, match="exists already"):
        select(products, tmp_path / "out")
    select(products, tmp_path / "out", overwrite=True)
    assert len(list((tmp_path / "out").glob("*_0201_*"))) == 1
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        select(products, tmp_path / "out", overwrite=True)


def test_cuts_are_no_response(products, tmp_path):
    with pytest.raises(AstriError, match="no response file"):
        select(products, tmp_path / "out", response=products["cut_file"])
    assert read_cuts(products["cut_file"]).event_class == "cc02"
