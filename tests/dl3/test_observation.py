"""Runs of observed events: pointing, times and tables of a DL2b store, drawn here."""

import numpy as np
import pytest

from astri_gpu.config_response import ObservationConfig, SelectConfig
from astri_gpu.dl3.observation import observed_runs
from astri_gpu.dl3.sky import REFERENCE_UNIX_S, Site, to_altaz, to_centre, utc_text
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.stages.select import run
from astri_gpu.store import create
from tests.drawn_events import MODELS

SITE = Site(28.3, -16.506, 2370.0)
START = 190_600_081.0  # 2026-01-15, the Crab is near its highest
N_EVENTS, N_TELS = 400, 9
CRAB = (83.6287, 22.0147)


def observation(
    output,
    *,
    mode="track",
    obs_id=(1_000_007,),
    damage=None,
    good_time=None,
    share=None,
    n_tels=N_TELS,
    run_obs_id=None,
    **attrs,
):
    """Return a DL2b store of events that lie around the Crab, seen 0.5 deg from the pointing.

    `good_time` are intervals of the monitoring in seconds since `START`, `share` the dead time of
    the array.
    """
    rng = np.random.default_rng(5)
    n = N_EVENTS
    time = np.sort(START + 600 * rng.random(n))
    if mode == "track":
        looked = to_altaz(CRAB[0], CRAB[1] + 0.5, time, SITE)
        alt, az = looked.alt, looked.az
    elif mode == "drift":
        alt, az = np.full(n, 70.0), np.full(n, 250.0)
    else:
        alt, az = np.linspace(70, 75, n), np.linspace(0, 50, n)
    crab = to_altaz(*CRAB, time, SITE)
    good = rng.random(n) < 0.9
    found_alt = crab.alt + rng.normal(0, 0.05, n)
    found_az = crab.az + rng.normal(0, 0.1, n)
    unix = time + REFERENCE_UNIX_S
    keys = {"obs_id": np.resize(np.sort(np.resize(obs_id, n)), n), "event_id": 10 + np.arange(n)}
    dl0 = {
        **keys,
        "time_s": np.floor(unix).astype(np.int64),
        "time_ns": np.rint(1e9 * (unix % 1)).astype(np.int32) % 10**9,
        "event_type": np.where(np.arange(n) % 50 == 0, 2, 32),
        "array_alt": alt,
        "array_az": az,
    }
    nan = np.where(good, 1.0, np.nan)
    dl2 = {
        **keys,
        "reco_energy": 2.0 * nan * (1 + rng.random(n)),
        "reco_energy_uncert": 0.2 * nan,
        "gammaness": 0.9 * nan,
        "reco_alt": found_alt * nan,
        "reco_az": found_az * nan,
        "reco_direction_uncert": 0.1 * nan,
        "reco_n_tels": np.where(good, 4, 0),
        "event_quality": np.where(good, 1 + np.arange(n) % 4, 0),
        "reco_is_valid": good,
        "stereo_core_x": 50.0 * nan,
        "stereo_core_y": -20.0 * nan,
    }
    if damage is not None:
        damage(dl0, dl2)
    root = {
        "data_level": "DL2b",
        "kind": "observation",
        "source": "drawn",
        "models": {"checksum": MODELS},
        "target": "Crab",
        "ra_deg": CRAB[0],
        "dec_deg": CRAB[1],
        "n_events": n,
        "n_images": 0,
        **({} if run_obs_id is None else {"obs_id": run_obs_id}),
        **attrs,
    }
    with create(output, attrs=root) as writer:
        for path, columns in (("dl0/event", dl0), ("dl2/event", dl2)):
            writer.table(path, list(columns), sizes={}).append(columns)
        tel = np.arange(n_tels)
        place = {"tel_id": tel + 1, "x": 0.0 * tel, "y": 100.0 * tel, "z": 0.0 * tel}
        writer.table("instrument/telescope", list(place), sizes={}).append(place)
        writer.set_attrs("instrument", SITE._asdict())
        if good_time is not None:
            _monitor(writer, np.reshape(good_time, (-1, 2)), share)
    return output


def _monitor(writer, intervals, share):
    """Write what `ingest format=dl0_fits` says of good time and dead time."""
    rows = {}
    for end, seconds in zip(("start", "stop"), intervals.T, strict=True):
        whole = np.floor(seconds).astype(np.int64)
        rows[f"{end}_s"] = whole + int(START) + REFERENCE_UNIX_S
        rows[f"{end}_ns"] = np.rint(1e9 * (seconds - whole)).astype(np.int32)
    writer.table("monitoring/good_time", list(rows), sizes={}).append(rows)
    sample = {"tel_id": [1], "time_s": [0], "time_ns": [0], "alt": [70.0], "az": [180.0]}
    writer.table("monitoring/pointing", list(sample), sizes={}).append(sample)
    writer.set_attrs("monitoring", {"array_dead_time_share": share})


def runs_of(path, *, filter="reco_n_tels >= 1", **changes):
    return list(observed_runs(path, ObservationConfig(**changes), filter=filter))


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    return observation(tmp_path_factory.mktemp("observed") / "track.zarr")


def test_a_tracked_pointing_is_found(tracked):
    (found,) = runs_of(tracked, dead_time=0.25)
    assert found.obs_id == 1_000_007
    assert found.pointing.mode == "POINTING"
    assert to_centre(*found.pointing[1:3], CRAB[0], CRAB[1] + 0.5)[0] < 1e-5
    assert found.wobble == pytest.approx((0.5, 0.0), abs=1e-3)
    assert found.livetime == pytest.approx(0.75 * found.ontime)
    assert found.start == pytest.approx(START, abs=30)
    assert found.columns["time"][0] >= found.start
    assert found.columns["time"][-1] < found.stop
    assert "from the first to the last event" in found.notes[0]
    assert not found.stand_in
    # Only showers that are reconstructed.
    assert 0.8 * N_EVENTS < len(found) < 0.95 * N_EVENTS
    assert np.isfinite(found.columns["reco_energy"]).all()
    assert not (found.columns["event_id"] % 50 == 10).any()


def test_a_drift_scan_keeps_its_place_over_the_horizon(tmp_path):
    (found,) = runs_of(observation(tmp_path / "drift.zarr", mode="drift"))
    assert found.pointing.mode == "DRIFT"
    assert (found.pointing.alt_deg, found.pointing.az_deg) == pytest.approx((70.0, 250.0))


def test_a_pointing_that_wanders_is_refused(tmp_path):
    with pytest.raises(AstriError, match=r"moves by .* split the run"):
        runs_of(observation(tmp_path / "wander.zarr", mode="wander"))


@pytest.mark.parametrize("column", ["array_alt", "array_az"])
def test_an_event_without_pointing_is_named(tmp_path, column):
    def damage(dl0, _):
        dl0[column][17] = np.nan

    with pytest.raises(AstriError, match=f"Event 27 of run 1000007 .* has no {column}"):
        runs_of(observation(tmp_path / "nan.zarr", damage=damage))


def test_every_observation_number_is_a_run(tmp_path):
    found = runs_of(observation(tmp_path / "two.zarr", obs_id=(3, 4)))
    assert [each.obs_id for each in found] == [3, 4]
    assert found[0].stop < found[1].start + 10


def test_good_time_and_filter_are_those_of_the_options(tracked):
    gti = [f"{utc_text(START + 100)}/{utc_text(START + 200)}"]
    (found,) = runs_of(tracked, gti=gti, filter="event_quality <= 2")
    assert found.ontime == pytest.approx(100, abs=1e-3)
    assert found.columns["quality"].max() == 2
    with pytest.raises(UsageError, match="nothing would be left"):
        runs_of(tracked, gti=["2026-05-01T00:00:00/2026-05-01T01:00:00"])


def test_the_run_knows_its_good_time_and_dead_time(tmp_path):
    def damage(dl0, _):
        dl0["array_alt"][51:54] = dl0["array_az"][51:54] = np.nan  # nobody knows
        dl0["array_alt"][:5] = 40.0  # outside good time, before the mount was there

    good = [[20.25, 300.0], [400.0, 590.0]]
    path = observation(
        tmp_path / "known.zarr",
        damage=damage,
        good_time=good,
        share=0.002,
        target="Nebula",
        run_obs_id=1_000_007,
        start_s=START,
        stop_s=START + 600,
    )
    (found,) = runs_of(path)
    np.testing.assert_allclose(found.gti - START, good, atol=1e-6)
    assert found.dead_time == 0.002
    assert found.target == ("Nebula", *CRAB)
    assert to_centre(*found.pointing[1:3], CRAB[0], CRAB[1] + 0.5)[0] < 1e-5
    assert found.dropped == {"without_pointing": 3}
    assert np.isfinite(found.columns["pointing_alt"]).all()
    assert found.notes == ()


def test_start_and_end_are_those_of_the_run(tmp_path):
    path = tmp_path / "run.zarr"
    observation(path, run_obs_id=1_000_007, start_s=START - 5, stop_s=START + 605)
    (found,) = runs_of(path)
    assert (found.start, found.stop) == (START - 5, START + 605)
    assert found.ontime == pytest.approx(610)
    assert found.dead_time == 0.0


def test_options_come_before_what_the_run_knows(tmp_path):
    path = observation(tmp_path / "run.zarr", good_time=[[0, 600]], share=0.002)
    gti = [f"{utc_text(START + 100)}/{utc_text(START + 200)}"]
    (found,) = runs_of(path, gti=gti, dead_time=0.5, target="Other", ra_deg=83.0, dec_deg=22.0)
    assert found.ontime == pytest.approx(100, abs=1e-3)
    assert found.dead_time == 0.5
    assert found.target == ("Other", 83.0, 22.0)


def test_a_run_without_good_time_is_refused(tmp_path):
    path = observation(tmp_path / "run.zarr", good_time=np.empty((0, 2)))
    with pytest.raises(AstriError, match=r"has no good time: .*observation\.gti"):
        runs_of(path)


def test_a_store_that_does_not_name_its_target_asks_for_it(tmp_path):
    path = observation(tmp_path / "nameless.zarr", target=None)
    with pytest.raises(UsageError, match=r"does not say what was observed: give observation\."):
        runs_of(path)
    assert runs_of(path, target="Crab")[0].target == ("Crab", *CRAB)


def test_select_tells_what_the_run_lacks(products, tmp_path):
    """A response for nine telescopes, a run of eight; events without pointing, bad time."""

    def damage(dl0, _):
        dl0["array_alt"][100:103] = np.nan

    path = observation(
        tmp_path / "eight.zarr",
        damage=damage,
        good_time=[[0, 300]],
        share=0.001,
        n_tels=8,
        simulation_model="A model of the sky",
    )
    summary = run(SelectConfig(**products | {"input": str(path)}, output=str(tmp_path / "out")))
    text = " ".join(summary.warnings)
    assert "The response is for 9 telescopes, and run 1000007 has 8 (without 9)" in text
    assert "events of run 1000007 have no pointing" in text
    assert "are outside its good time" in text
    assert summary.counts["outside_gti"] > 100
    assert summary.livetime_s == pytest.approx(0.999 * 300, rel=0.02)
    from astropy.io import fits

    (events,) = (tmp_path / "out").glob("*_0201_*")
    head = fits.getheader(events, "EVENTS")
    assert head["SIMMODEL"].startswith("A model")
    assert head["STANDIN"] is False
    assert head["DEADC"] == pytest.approx(0.999)
    assert head["N_TELS"] == 8
    (response,) = (tmp_path / "out").glob("*_0502_*")
    assert fits.getheader(response, 1)["N_TELSIM"] == 9


def test_another_level_is_refused(tmp_path):
    with pytest.raises(AstriError, match="run `astri-gpu reconstruct`"):
        runs_of(observation(tmp_path / "low.zarr", data_level="DL2a"))


def test_select_writes_what_was_observed(tracked, products, tmp_path):
    data = pytest.importorskip("gammapy.data")
    from astropy.io import fits

    given = products | {"input": str(tracked)}
    summary = run(SelectConfig(**given, output=str(tmp_path / "out")))
    assert summary.n_runs == 1
    assert not summary.stand_in
    (path,) = (tmp_path / "out").glob("*_0201_*")
    assert path.name == "20260115_MA_Crab_W0.50p000_00000001_R_000007_0201_cc02.lv3.fits.gz"
    with fits.open(path) as file:
        rows, head = file["EVENTS"].data, file["EVENTS"].header
        assert head["OBS_ID"] == 1_000_007
        assert head["STANDIN"] is False
        assert "SIMMODEL" not in head
        assert "MC_ID" not in rows.names
        assert rows["COREX"][0] == 50.0
        assert rows["DIR_ERR"][0] == pytest.approx(0.1)
        # Types are bits: one for each event, of four.
        assert (rows["EVENT_TYPE"].sum(axis=1) == 1).all()
        assert not rows["EVENT_TYPE"][:, 4:].any()
        distance, _ = to_centre(rows["RA"], rows["DEC"], *CRAB)
        assert np.median(distance) < 0.12
    (found,) = data.DataStore.from_dir(tmp_path / "out").get_observations()
    assert len(found.events.table) == summary.counts["selected"] == len(rows)


def test_gammapy_opens_a_drift_scan(products, tmp_path):
    data = pytest.importorskip("gammapy.data")
    store = observation(tmp_path / "drift.zarr", mode="drift")
    given = products | {"input": str(store)}
    run(SelectConfig(**given, output=str(tmp_path / "out")))
    (found,) = data.DataStore.from_dir(tmp_path / "out").get_observations()
    assert found.pointing.mode.name == "DRIFT"
    assert found.pointing.fixed_altaz.alt.deg == pytest.approx(70.0)


def test_an_interval_outside_all_runs_is_told(tracked, products, tmp_path):
    gti = [
        f"{utc_text(START + 100)}/{utc_text(START + 200)}",
        "2026-05-01T00:00:00/2026-05-01T01:00:00",
    ]
    given = products | {"input": str(tracked)}
    with pytest.raises(UsageError, match=r"2026-05-01T00:00:00\.000 .* lies in no run"):
        run(
            SelectConfig(
                **given, output=str(tmp_path / "out"), observation=ObservationConfig(gti=gti)
            )
        )
    assert not (tmp_path / "out").exists()


def test_observed_and_simulated_events_are_not_mixed(tracked, products, tmp_path):
    given = products | {"input": [str(tracked), products["input"][0]]}
    with pytest.raises(UsageError, match="is an observation and"):
        run(SelectConfig(**given, output=str(tmp_path / "out")))


def test_a_run_is_not_given_twice(tracked, products, tmp_path):
    again = observation(tmp_path / "again.zarr")
    given = products | {"input": [str(tracked), str(again)]}
    with pytest.raises(AstriError, match="Two of the inputs hold run 1000007"):
        run(SelectConfig(**given, output=str(tmp_path / "out")))
