"""Pointing between samples: against astropy's arcs, across the zenith and the step of azimuth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astri_gpu.calibration.housekeeping import read_housekeeping
from astri_gpu.calibration.pointing import between, pointing_at
from astri_gpu.dl0.files import find_dl0
from astri_gpu.dl3.sky import to_altaz
from astri_gpu.kernels.coordinates import angular_separation
from tests.calibration.made_dl0 import SITE, START, description, times, write_dl0

DIRECTIONS = st.tuples(st.floats(-89.9, 90), st.floats(-360, 720))


@given(DIRECTIONS, DIRECTIONS, st.floats(0, 1))
def test_points_lie_on_the_great_circle_of_their_samples(first, second, share):
    coordinates = pytest.importorskip("astropy.coordinates")
    alt, az = (np.array(pair) for pair in zip(first, second, strict=True))
    length = angular_separation(az[0], alt[0], az[1], alt[1])
    found = between(np.array([0.0, 1.0]), alt, az, np.array([share]), spacing_s=1.0)
    if length >= 90:  # no movement of a telescope within a sampling time
        assert np.isnan(found.alt[0])
        assert np.isnan(found.az[0])
        return
    a, b = coordinates.SkyCoord(az, alt, unit="deg")
    expected = a.directional_offset_by(a.position_angle(b), a.separation(b) * share)
    off = angular_separation(found.az[0], found.alt[0], expected.ra.deg, expected.dec.deg)
    assert off < 1e-6
    assert 0 <= found.az[0] < 360


def test_a_track_comes_back_between_its_samples(tracking):
    random = np.random.default_rng(1)
    ns = np.sort(random.integers(0, 600 * 10**9, 500))
    found = pointing_at(tracking(), START + ns // 10**9, ns % 10**9)
    true = to_altaz(83.633, 22.014, START + ns * 1e-9, SITE)
    off = angular_separation(found.az, found.alt, true.az, true.alt)
    assert off.max() * 3600 < 0.01  # arcsec


def test_the_azimuth_may_pass_360_and_the_track_the_zenith():
    time = np.array([0.0, 1.0, 2.0])
    north = between(time, np.full(3, 30.0), np.array([359.0, 1.0, 3.0]), [0.5], spacing_s=1)
    assert min(north.az[0], 360 - north.az[0]) < 1e-9
    over = between(
        time, np.array([88.0, 89.0, 89.0]), np.array([10.0, 10.0, 190.0]), [1.5], spacing_s=1
    )
    assert over.alt[0] == pytest.approx(90)


def test_gaps_and_times_outside_have_no_direction():
    time = np.array([0.0, 1, 2, 3, 20, 21, 22, 23])
    wanted = np.array([-1.5, -0.5, 2.5, 3.9, 10, 19.2, 20.5, 23.9, 24.5])
    found = between(time, np.full(8, 45.0), time.copy(), wanted, spacing_s=1)
    known = np.array([False, True, True, True, False, True, True, True, False])
    np.testing.assert_array_equal(np.isfinite(found.alt), known)
    np.testing.assert_allclose(found.az[known], wanted[known] % 360, atol=0.01)


def test_one_sample_stands_for_its_second_and_none_for_nothing():
    lone = between(np.array([5.0]), np.array([70.0]), np.array([-10.0]), [4.5, 7], spacing_s=np.nan)
    np.testing.assert_allclose(lone.az, [350, np.nan])
    empty = between(np.empty(0), np.empty(0), np.empty(0), [4.5], spacing_s=np.nan)
    assert np.isnan(empty.alt).all()


def test_housekeeping_of_a_file_is_put_in_order_and_rid_of_absurd_samples(tmp_path):
    seconds = np.array([0.0, 1, 3, 2, 4, 5, 5, 6, 7, 8])
    columns = {
        **times(seconds),
        "pointing_alt_deg": np.array([60, 60, np.nan, 60, 60, 60, 61, 20, 60, 60.0]),
        "pointing_az_deg": np.full(10, 100.0),
        "status": np.full(10, 15),
    }
    columns["time_ns"][9] = 1_500_000_000
    columns["time_s"][0] = 4_000_000_000
    write_dl0(tmp_path, description(), 2, "HK", columns)
    (file,) = find_dl0([tmp_path], "HK")
    with file:
        found = read_housekeeping(file)
        place = pointing_at(file, START + np.array([3, 6]), np.array([0, 0]))
    assert found.tel_id == 2
    np.testing.assert_array_equal(found.time_s - START, np.arange(1, 8))
    np.testing.assert_array_equal(np.isnan(found.alt), [0, 0, 1, 0, 0, 1, 0])
    assert (found.n_bad_times, found.n_bad_pointings) == (3, 2)
    np.testing.assert_allclose(place.alt, 60, atol=1e-3)
