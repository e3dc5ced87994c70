"""Directions and times of runs: against astropy, and what wrong ones are told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astri_gpu.config_response import ObservationConfig
from astri_gpu.dl3.gti import (
    check_intervals,
    inside,
    intervals_of_run,
    parse_intervals,
    uniform_times,
)
from astri_gpu.dl3.schedule import run_starts
from astri_gpu.dl3.sky import Site, from_centre, to_altaz, to_centre, to_icrs, utc_text
from astri_gpu.errors import AstriError, UsageError

SITE = Site(28.3, -16.506, 2370.0)
NIGHT = 190_600_000.0  # 2026-01-15


def test_distance_and_angle_are_those_of_astropy():
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(1)
    lon, centre_lon = rng.uniform(0, 360, (2, 50))
    lat, centre_lat = rng.uniform(-89, 89, (2, 50))
    there = SkyCoord(lon * u.deg, lat * u.deg)
    centre = SkyCoord(centre_lon * u.deg, centre_lat * u.deg)
    distance, angle = to_centre(lon, lat, centre_lon, centre_lat)
    np.testing.assert_allclose(distance, centre.separation(there).deg, atol=1e-9)
    np.testing.assert_allclose(angle % 360, centre.position_angle(there).deg, atol=1e-9)
    back = from_centre(distance, angle, centre_lon, centre_lat)
    np.testing.assert_allclose(back[0], lon, atol=1e-9)
    np.testing.assert_allclose(back[1], lat, atol=1e-9)


def test_sky_is_that_of_astropy(horizon):
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(2)
    times = NIGHT + rng.uniform(0, 7200, 40)
    alt, az = rng.uniform(30, 89, 40), rng.uniform(0, 360, 40)
    frame = horizon(SITE, times)
    theirs = SkyCoord(alt=alt * u.deg, az=az * u.deg, frame=frame).icrs
    ours = to_icrs(alt, az, times, SITE)
    assert theirs.separation(SkyCoord(ours.ra * u.deg, ours.dec * u.deg)).arcsec.max() < 0.1
    again = to_altaz(ours.ra, ours.dec, times, SITE)
    np.testing.assert_allclose(again.alt, alt, atol=1e-8)


def test_a_time_that_is_none_has_no_place():
    with pytest.raises(AstriError, match="not a finite number"):
        to_icrs([70.0], [0.0], [np.nan], SITE)
    assert len(to_icrs([], [], [], SITE).ra) == 0


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["2026-01-15T22:00:00"], "no pair of times"),
        (["yesterday/today"], "no pair of times"),
        (["2026-01-15T22:00:00/2026-01-15T22:00:00"], "no length"),
        (["2026-01-15T22:10:00/2026-01-15T22:00:00"], "no length"),
        (
            ["2026-01-15T22:00:00/2026-01-15T22:10:00", "2026-01-15T21:00:00/2026-01-15T21:10:00"],
            "in order of time",
        ),
        (
            ["2026-01-15T22:00:00/2026-01-15T22:10:00", "2026-01-15T22:09:59/2026-01-15T22:20:00"],
            "must not overlap",
        ),
    ],
)
def test_wrong_intervals_are_named(texts, words):
    with pytest.raises(UsageError, match=words):
        parse_intervals(texts)


def test_intervals_belong_to_the_run_that_they_lie_in():
    intervals = parse_intervals(
        ["2026-01-15T22:00:00/2026-01-15T22:10:00", "2026-01-15T22:10:00/2026-01-15T22:20:00"]
    )
    start = intervals[0, 0]
    assert utc_text(start) == "2026-01-15T22:00:00.000"
    chosen = intervals_of_run(intervals, start - 60, start + 1800, "run 1")
    np.testing.assert_array_equal(chosen, intervals)
    np.testing.assert_array_equal(
        intervals_of_run(np.empty((0, 2)), 1.0, 2.0, "run 1"), [[1.0, 2.0]]
    )
    with pytest.raises(UsageError, match="nothing would be left"):
        intervals_of_run(intervals, start + 7200, start + 9000, "run 2")
    with pytest.raises(UsageError, match="beyond the ends of run 1"):
        intervals_of_run(intervals, start + 60, start + 1800, "run 1")
    with pytest.raises(AstriError, match="Run 7 has the interval"):
        check_intervals(intervals[::-1], "Run 7")


@given(
    st.lists(st.floats(0.001, 1000.0), min_size=2, max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_times_fill_the_intervals_evenly(steps, seed):
    edges = NIGHT + np.cumsum(steps)[: len(steps) // 2 * 2]
    intervals = edges.reshape(-1, 2)
    shares = np.sort(np.random.default_rng(seed).random(200))
    times = uniform_times(np.concatenate([shares, [0.0, 1 - 1e-16]]), intervals)
    assert inside(times, intervals).all()
    before = np.array(
        [np.clip(t - intervals[:, 0], 0, np.diff(intervals)[:, 0]).sum() for t in times]
    )
    np.testing.assert_allclose(
        before[:200], shares * np.diff(intervals).sum(), atol=1e-6 * len(steps)
    )


def test_the_end_of_an_interval_is_outside():
    intervals = np.array([[0.0, 1.0], [1.0, 2.0], [5.0, 6.0]])
    times = np.array([-1.0, 0.0, 1.0, 2.0, 4.0, 5.5, 6.0])
    assert inside(times, intervals).tolist() == [False, True, True, False, False, True, False]


def test_runs_lie_in_the_dark_near_the_zenith_angle(horizon):
    from astropy import units as u
    from astropy.coordinates import SkyCoord, get_sun

    config = ObservationConfig(n_runs=5)
    starts = np.array(run_starts(config, SITE, [20.0], 4.5))
    assert (np.diff(starts) >= config.duration_s).all()
    assert utc_text(starts[0]).startswith("2026-01-15")
    times = (starts[:, None] + np.linspace(0, config.duration_s, 7)).ravel()
    frame = horizon(SITE, times)
    crab = SkyCoord(*config.place()[1:] * u.deg).transform_to(frame)
    assert np.abs(90 - crab.alt.deg - 20).max() < 4.5
    assert get_sun(frame.obstime).transform_to(frame).alt.deg.max() < -17.5
    fewer = run_starts(ObservationConfig(n_runs=2), SITE, [20.0], 4.5)
    assert fewer == starts[:2].tolist()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dec_deg": -60.0}, "it never does"),
        ({"duration_s": 40_000.0}, "it never does"),
        ({"night": "tonight"}, "is no date"),
    ],
)
def test_a_target_that_does_not_fit_is_told(changes, words):
    with pytest.raises(UsageError, match=words):
        run_starts(ObservationConfig(**changes), SITE, [20.0, 40.0], 4.5)
