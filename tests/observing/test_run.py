"""A simulated run against its truth, astropy and the numbers that it was asked for."""

import hashlib

import numpy as np
import pytest

from astri_gpu.config_observation import InterleavedConfig
from astri_gpu.config_response import ObservationConfig
from astri_gpu.config_sections import BackendConfig
from astri_gpu.config_simulation import CameraConfig
from astri_gpu.dl0.run_description import read_description
from astri_gpu.observing import sky_events
from astri_gpu.simulation.writer import SIMULATION_MODEL
from tests.made_run import SECONDS, made_run

NS = 10**9
LIGHT_M_PER_NS = 0.299792458


def read_ns(columns, description):
    """Return clock readings from the start of the run."""
    whole = columns["time_s"].astype(np.int64) - int(description.start_s)
    return whole * NS + columns["time_ns"].astype(np.int64)


def test_files_are_as_described(observed):
    described = observed.description
    assert len(described.files) == len(described.telescopes) == 9
    for file in described.files:
        content = (observed.summary.output / file.name).read_bytes()
        assert len(content) == file.n_bytes
        assert hashlib.sha256(content).hexdigest() == file.sha256
    assert described.simulation_model == SIMULATION_MODEL
    assert described.simulation["seed"] == 5
    assert described.stop_s - described.start_s == SECONDS
    assert observed.summary.n_bytes == sum(file.n_bytes for file in described.files)
    names = {entry.name for entry in observed.summary.output.iterdir()}
    truth = described.name.truth()
    assert names == {
        *(file.name for file in described.files),
        observed.summary.description.name,
        truth,
    }


@pytest.mark.parametrize("place", [0, 4])
def test_packets_are_counted_and_in_the_order_of_time(observed, place):
    columns, order = observed.packets(place)
    numbers = [columns[kind]["packet_number"][row] for kind, row in order]
    assert numbers == list(range(len(order)))
    times = {kind: read_ns(part, observed.description) for kind, part in columns.items()}
    assert np.all(np.diff([times[kind][row] for kind, row in order]) > -100)  # jitter
    for kind, part in columns.items():
        np.testing.assert_array_equal(part["sequence"], np.arange(len(part["sequence"])))
        assert set(part["tel_id"]) == {observed.description.telescopes[place].tel_id}, kind
    events = np.concatenate([columns[kind]["event_number"] for kind in ("SCI", "CAL")])
    np.testing.assert_array_equal(np.sort(events), np.arange(len(events)))


@pytest.mark.parametrize("place", [0, 8])
def test_clocks_are_off_by_what_the_truth_says(observed, place):
    columns, _ = observed.packets(place)
    tel_id = observed.description.telescopes[place].tel_id
    truth = observed.truth["TRUTH"]
    truth = truth[truth["TEL"] == tel_id]
    clock = observed.truth["CLOCKS"][place]
    science = columns["SCI"]
    np.testing.assert_array_equal(science["event_number"], truth["EVT_CTR"])
    seconds = truth["TRUE_NS"] / NS
    off = read_ns(science, observed.description) - truth["TRUE_NS"]
    rest = off - clock["OFFSET"] - clock["DRIFT"] * seconds
    assert abs(rest.mean()) < 5 * 5 / np.sqrt(len(rest))
    assert rest.std() == pytest.approx(5, rel=0.3)
    assert abs(clock["OFFSET"]) < 5 * 5000
    assert clock["TEL"] == tel_id


def test_truth_numbers_showers_in_the_order_of_time(observed):
    showers, truth = observed.truth["SHOWERS"], observed.truth["TRUTH"]
    np.testing.assert_array_equal(showers["EVENT"], np.arange(len(showers)))
    assert np.all(np.diff(showers["TIME_NS"]) >= 0)
    assert len(truth) == observed.summary.n_images
    assert len(showers) == observed.summary.n_showers
    delay = truth["TRUE_NS"] - showers["TIME_NS"][truth["EVENT"]]
    assert np.abs(delay).max() < 3000
    for tel in np.unique(truth["TEL"]):
        events = truth["EVENT"][truth["TEL"] == tel]
        assert len(np.unique(events)) == len(events)


def test_gammas_come_from_the_target(observed, horizon):
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    described, showers = observed.description, observed.truth["SHOWERS"]
    gamma = showers[showers["KIND"] == 0]
    assert len(gamma) > 100
    frame = horizon(described.start_s + gamma["TIME_NS"] / NS, described)
    seen = SkyCoord(az=gamma["AZ"] * u.deg, alt=gamma["ALT"] * u.deg, frame=frame)
    target = SkyCoord(described.ra_deg * u.deg, described.dec_deg * u.deg)
    assert target.transform_to(frame).separation(seen).arcsec.max() < 1
    pointing = SkyCoord(described.ra_pnt_deg * u.deg, described.dec_pnt_deg * u.deg)
    assert pointing.separation(target).deg == pytest.approx(described.wobble_offset_deg)
    angle = target.position_angle(pointing).deg
    assert angle == pytest.approx(described.wobble_angle_deg, abs=1e-6)


def test_background_fills_the_cone(observed, horizon):
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    described, showers = observed.description, observed.truth["SHOWERS"]
    proton = showers[showers["KIND"] == 101]
    frame = horizon(described.start_s + proton["TIME_NS"] / NS, described)
    seen = SkyCoord(az=proton["AZ"] * u.deg, alt=proton["ALT"] * u.deg, frame=frame)
    pointing = SkyCoord(described.ra_pnt_deg * u.deg, described.dec_pnt_deg * u.deg)
    angle = pointing.transform_to(frame).separation(seen).deg
    assert 5 < angle.max() < 6.001
    assert np.count_nonzero(angle < 1) < 0.25 * len(angle)


def test_light_comes_first_to_the_telescope_nearer_to_the_source(observed, horizon):
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    described, truth = observed.description, observed.truth["TRUTH"]
    front = observed.truth["SHOWERS"]["TIME_NS"][truth["EVENT"]]
    seen = SkyCoord(described.ra_pnt_deg * u.deg, described.dec_pnt_deg * u.deg).transform_to(
        horizon(described.start_s + SECONDS / 2, described)
    )
    alt, az = seen.alt.rad, seen.az.rad
    towards = np.array([np.cos(alt) * np.cos(az), -np.cos(alt) * np.sin(az), np.sin(alt)])
    place = {t.tel_id: (t.x_north_m, t.y_west_m, t.z_m) for t in described.telescopes}
    nearer_m = np.array([place[tel] for tel in truth["TEL"]]) @ towards
    delay = truth["TRUE_NS"] - front
    assert np.std(delay + nearer_m / LIGHT_M_PER_NS) < 30
    assert np.std(delay) > 100


def test_housekeeping_tells_the_pointing_and_counts_the_events(observed, horizon):
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    described = observed.description
    columns, _ = observed.packets(2)
    house = columns["HK"]
    moment = described.start_s + read_ns(house, described) / NS
    pointing = SkyCoord(described.ra_pnt_deg * u.deg, described.dec_pnt_deg * u.deg)
    frame = horizon(moment, described)
    seen = SkyCoord(
        az=house["pointing_az_deg"] * u.deg, alt=house["pointing_alt_deg"] * u.deg, frame=frame
    )
    assert pointing.transform_to(frame).separation(seen).arcsec.max() < 1
    events = np.sort(np.concatenate([read_ns(columns[kind], described) for kind in ("SCI", "CAL")]))
    np.testing.assert_array_equal(
        house["n_events"], np.searchsorted(events, read_ns(house, described))
    )
    np.testing.assert_array_equal(house["dead_time_ns"], house["n_events"] * 20_000)
    assert set(house["status"]) == {15}
    assert len(house["status"]) == round(SECONDS / 0.5) + 1
    assert set(columns["VAR"]["n_samples"]) == {10_000}


def test_calibration_events_are_regular_and_bright(observed):
    columns, _ = observed.packets(1)
    calibration = columns["CAL"]
    for kind, n in ((0, 8 * SECONDS), (2, 8 * SECONDS)):
        rows = calibration["event_type"] == kind
        assert abs(rows.sum() - n) <= 1
        step = np.diff(read_ns(calibration, observed.description)[rows]) / NS
        np.testing.assert_allclose(step, 1 / 8, atol=1e-6)
    low = calibration["adc"][:, 1].mean(axis=1)
    flash = calibration["event_type"] == 0
    assert low[flash].min() > low[~flash].max() + 40
    assert set(calibration["trigger_type"]) == {2}


def short(folder, **options):
    """Make a run of one telescope, half a second long."""
    return made_run(
        folder,
        array="single",
        seconds=0.5,
        background_factor=0.5,
        interleaved=InterleavedConfig(pedestal_hz=40.0, flatfield_hz=40.0, housekeeping_s=0.1),
        **options,
    )


def raw_bytes(summary):
    return [path.read_bytes() for path in sorted(summary.output.glob("*.raw"))]


def test_a_seed_makes_one_run_whatever_the_threads_and_batches(tmp_path, monkeypatch):
    first = short(tmp_path / "first")
    monkeypatch.setattr(sky_events, "BATCH", 500)
    again = short(tmp_path / "again", backend=BackendConfig(name="cpu", threads=1))
    other = short(tmp_path / "other", seed=6)
    assert raw_bytes(first) == raw_bytes(again)
    assert raw_bytes(first) != raw_bytes(other)


def test_blind_telescopes_lose_triggers_across_parts_of_the_run(tmp_path, monkeypatch, read):
    monkeypatch.setattr(sky_events, "BLOCK_S", 0.1)
    dead_us = 8000.0
    run = read(short(tmp_path / "run", camera=CameraConfig(dead_time_us=dead_us)))
    columns, order = run.packets(0)
    times = {kind: read_ns(part, run.description) for kind, part in columns.items()}
    ordered = np.array([times[kind][row] for kind, row in order])
    assert np.all(np.diff(ordered) > -100)
    events = np.sort(np.concatenate([times["SCI"], times["CAL"]]))
    assert np.diff(events).min() > dead_us * 1e3 - 100
    assert run.summary.n_lost > 5
    house = columns["HK"]
    assert house["n_triggers"][-1] - house["n_events"][-1] == run.summary.n_lost
    off = times["HK"] - np.rint(0.1 * NS * np.arange(len(times["HK"]))).astype(np.int64)
    true_events, true_ns = events - off.mean(), times["HK"] - off.mean()
    for row, moment in enumerate(true_ns):
        dead = np.clip(moment - true_events[true_events <= moment], 0, dead_us * 1e3).sum()
        assert house["dead_time_ns"][row] == pytest.approx(dead, abs=2000)


def test_field_turns_in_the_cameras(observed, horizon):
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    from astri_gpu.dl3.sky import Site
    from astri_gpu.observing.track import Track

    described = observed.description
    site = Site(described.latitude_deg, described.longitude_deg, described.altitude_m)
    track = Track(
        described.ra_deg, described.dec_deg, described.ra_pnt_deg, described.dec_pnt_deg, site,
        int(described.start_s),
    )  # fmt: skip
    seconds = np.linspace(0, 7200, 5)
    lon, lat = track.source(seconds)
    frame = horizon(described.start_s + seconds, described)
    target = SkyCoord(described.ra_deg * u.deg, described.dec_deg * u.deg).transform_to(frame)
    pointing = SkyCoord(described.ra_pnt_deg * u.deg, described.dec_pnt_deg * u.deg)
    pointing = pointing.transform_to(frame)
    np.testing.assert_allclose(np.hypot(lon, lat), np.tan(pointing.separation(target).rad), 1e-5)
    angle = pointing.position_angle(target).rad
    np.testing.assert_allclose(np.sin(angle), lon / np.hypot(lon, lat), atol=1e-4)
    assert np.ptp(np.unwrap(angle)) > 0.5


def test_the_run_found_is_near_the_zenith_angle(tmp_path):
    from astri_gpu.observing.plan import plan_run
    from tests.made_run import run_config

    plans = [
        plan_run(
            run_config(
                tmp_path / "x",
                start=None,
                run=run,
                zenith_deg=30.0,
                observation=ObservationConfig(duration_s=900.0),
            ),
            {},
        )
        for run in (1, 2)
    ]
    for plan in plans:
        alt, _ = plan.track.pointing(np.array([450.0]))
        assert 90 - alt[0] == pytest.approx(30, abs=3)
    assert plans[1].start_s > plans[0].start_s
    angles = [plan.description.wobble_angle_deg for plan in plans]
    assert angles == [0.0, 180.0]
    assert plans[1].description.name.obs_id == 1_000_002


def test_description_is_the_one_that_is_read(observed):
    described = read_description(observed.summary.description)
    assert described.descriptor == "astri_gpu_v1"
    assert described.name.mode == "W0.50p000"


def test_times_are_those_of_the_pointing_of_their_moment(tmp_path):
    from astri_gpu.observing.plan import plan_run
    from tests.made_run import run_config

    # The air is that of the middle of the slice, 30 minutes and 6 degrees later.
    config = run_config(
        tmp_path / "x",
        start="2026-01-15T21:05:50",
        seconds=3600.0,
        slice_s=3600.0,
        background_factor=0.0,
    )
    plan = plan_run(config, {})
    sky = sky_events.SkyEvents(config, plan)
    triggers, showers = sky.make(sky_events.Block(0, 0, 0.0, 1.0))
    assert len(triggers.tel) > 50
    alt, az = (np.deg2rad(value[0]) for value in plan.track.pointing(np.zeros(1)))
    towards = np.array([np.cos(alt) * np.cos(az), -np.cos(alt) * np.sin(az), np.sin(alt)])
    layout = plan.layout
    nearer_m = np.stack([layout.x, layout.y, layout.z], axis=1)[triggers.tel] @ towards
    delay = triggers.time_ns - showers.time_ns[triggers.event]
    assert np.std(delay + nearer_m / LIGHT_M_PER_NS) < 30
