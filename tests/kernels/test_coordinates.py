"""Coordinates: round trips, symmetries, and the same directions as astropy and ctapipe."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.instrument.frames import sky_context, sky_grid
from astri_gpu.kernels import coordinates as c

SITE = {"latitude_deg": 28.3, "longitude_deg": -16.505831, "altitude_m": 2370.0}
ARCSEC = 1 / 3600
# float64: 1e-13 of a turn is 1e-7 arcsec; what the inverse iteration leaves is far below.
ROUND_TRIP_DEG = 1e-10
NIGHT = 1704067200  # 2024-01-01 00:00 UTC, inside the tables


def host(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)


def on(xp, *arrays):
    out = tuple(xp.asarray(np.atleast_1d(array)) for array in arrays)
    return out[0] if len(out) == 1 else out


def context_on(xp, context):
    return c.SkyContext(*(xp.asarray(field) for field in context))


def directions(n, seed=1, lowest=5.0):
    """Return random horizontal directions, denser near the zenith and North."""
    rng = np.random.default_rng(seed)
    alt = np.rad2deg(np.arcsin(rng.uniform(np.sin(np.deg2rad(lowest)), 1, n)))
    az = rng.uniform(0, 360, n)
    alt[:3], az[3:6] = [89.9999, 90.0, 45.0], [0.0, 1e-9, 359.999999]
    return alt, az


def separation(lon_1, lat_1, lon_2, lat_2):
    return c.angular_separation(*map(np.asarray, (lon_1, lat_1, lon_2, lat_2)))


@pytest.fixture(scope="module")
def orientation():
    """Let astropy use the bundled Earth orientation table, and never the network."""
    from astropy.utils import iers

    table = iers.IERS_A.open(iers.IERS_A_FILE)
    with (
        iers.conf.set_temp("auto_download", False),
        iers.earth_orientation_table.set(table),
    ):
        yield table


def astropy_frame(time_s, time_ns):
    from astropy import units as u
    from astropy.coordinates import AltAz, EarthLocation
    from astropy.time import Time

    location = EarthLocation.from_geodetic(
        SITE["longitude_deg"] * u.deg, SITE["latitude_deg"] * u.deg, SITE["altitude_m"] * u.m
    )
    time = Time(np.asarray(time_s, dtype=float), np.asarray(time_ns) * 1e-9, format="unix")
    return AltAz(obstime=time, location=location)


def kernel_arguments(xp, time_s, time_ns, **options):
    grid = sky_grid(time_s, **SITE, **options)
    epoch, seconds = grid.locate(time_s, time_ns)
    return context_on(xp, grid.context), xp.asarray(epoch), xp.asarray(seconds)


def test_camera_to_telescope_is_position_over_focal_length(xp):
    x, y = on(xp, np.array([0.2, 0.0, -0.1]), np.array([0.0, 0.1, 0.05]))
    point = c.camera_to_telescope(x, y, 2.15)
    np.testing.assert_allclose(host(point.fov_lat), np.rad2deg([0.2, 0, -0.1]) / 2.15, rtol=1e-14)
    np.testing.assert_allclose(host(point.fov_lon), np.rad2deg([0, 0.1, 0.05]) / 2.15, rtol=1e-14)
    turned = c.camera_to_telescope(x, y, 2.15, rotation=90.0)
    np.testing.assert_allclose(host(turned.fov_lon), host(point.fov_lat), atol=1e-14)
    back = c.telescope_to_camera(*turned, 2.15, rotation=90.0)
    np.testing.assert_allclose(host(back.x), host(x), atol=1e-16)
    np.testing.assert_allclose(host(back.y), host(y), atol=1e-16)


def test_telescope_frame_axes_follow_altitude_and_azimuth(xp):
    zero, one = on(xp, 0.0, 1.0)
    alt, az = on(xp, 60.0, 359.9)
    up = c.telescope_to_altaz(zero, one, alt, az)
    np.testing.assert_allclose(host(up.alt), 61, rtol=1e-13)
    np.testing.assert_allclose(host(up.az), 359.9, rtol=1e-13)
    right = c.telescope_to_altaz(one, zero, alt, az)
    assert 0 < float(right.az[0]) < 3
    assert right.alt.dtype == alt.dtype


def test_horizon_and_telescope_round_trip(xp):
    alt, az = directions(500)
    pointing_alt, pointing_az = directions(500, seed=2)
    point = c.altaz_to_telescope(*on(xp, alt, az, pointing_alt, pointing_az))
    back = c.telescope_to_altaz(*point, *on(xp, pointing_alt, pointing_az))
    assert separation(host(back.az), host(back.alt), az, alt).max() < ROUND_TRIP_DEG
    assert host(back.az).min() >= 0
    assert host(back.az).max() < 360


def test_cartesian_is_north_west_up(xp):
    alt, az = on(xp, np.array([0.0, 0.0, 90.0, 0.0]), np.array([0.0, 90.0, 0.0, 270.0]))
    xyz = np.stack([host(v) for v in c.altaz_to_cartesian(alt, az)], axis=1)
    expected = [[1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 1, 0]]
    np.testing.assert_allclose(xyz, expected, atol=1e-15)
    alt, az = directions(300)
    back = c.cartesian_to_altaz(*c.altaz_to_cartesian(*on(xp, alt, az)))
    assert separation(host(back.az), host(back.alt), az, alt).max() < ROUND_TRIP_DEG


def test_ground_and_tilted_round_trip(xp):
    rng = np.random.default_rng(3)
    position = rng.uniform(-700, 700, (3, 200))
    alt, az = directions(200)
    tilted = c.ground_to_tilted(*on(xp, *position, alt, az))
    back = c.tilted_to_ground(*tilted, *on(xp, alt, az))
    for found, expected in zip(back, position, strict=True):
        np.testing.assert_allclose(host(found), expected, atol=1e-9)
    np.testing.assert_allclose(
        sum(host(v) ** 2 for v in tilted), (position**2).sum(axis=0), rtol=1e-12
    )


def test_projection_meets_the_ground_along_the_direction(xp):
    rng = np.random.default_rng(4)
    x, y = rng.uniform(-700, 700, (2, 100))
    alt, az = directions(100, lowest=20)
    ground = c.project_to_ground(*on(xp, x, y, alt, az))
    # The projection has the same tilted x and y: only the distance along the direction changes.
    tilted = c.ground_to_tilted(*ground, *on(xp, alt, az))
    np.testing.assert_allclose(host(tilted.x), x, atol=1e-9)
    np.testing.assert_allclose(host(tilted.y), y, atol=1e-9)
    assert not host(ground.z).any()


def test_separation_is_exact_near_0_and_180_degrees(xp):
    zero, tiny = on(xp, 0.0, 1e-9)
    np.testing.assert_allclose(host(c.angular_separation(zero, zero, tiny, zero)), 1e-9)
    opposite = on(xp, 180.0 - 1e-9)
    np.testing.assert_allclose(host(c.angular_separation(zero, zero, opposite, zero)), 180 - 1e-9)


def test_icrs_matches_astropy_over_a_night(xp, orientation):
    n = 300
    rng = np.random.default_rng(5)
    time_s = NIGHT + np.sort(rng.integers(-5 * 3600, 6 * 3600, n))
    time_ns = rng.integers(0, 10**9, n)
    alt, az = directions(n)
    arguments = kernel_arguments(xp, time_s, time_ns)
    compare_with_astropy(xp, alt, az, time_s, time_ns, arguments, limit=0.01 * ARCSEC)


def test_icrs_matches_astropy_over_thirty_years(orientation):
    """One epoch for each time: all seasons, leap seconds and the whole table."""
    time_s = np.arange(1000000000, 1790000000, 2000003)
    time_ns = np.full(time_s.shape, 123456789)
    alt, az = directions(len(time_s))
    context = sky_context(time_s, **SITE)
    arguments = (context, np.arange(len(time_s)), time_ns * 1e-9)
    # Only on a day with a leap second, UTC and unix days differ in length; none is in this grid.
    compare_with_astropy(np, alt, az, time_s, time_ns, arguments, limit=0.001 * ARCSEC)


def compare_with_astropy(xp, alt, az, time_s, time_ns, arguments, limit):
    from astropy import units as u
    from astropy.coordinates import ICRS, SkyCoord

    frame = astropy_frame(time_s, time_ns)
    expected = SkyCoord(alt=alt * u.deg, az=az * u.deg, frame=frame).icrs
    found = c.altaz_to_icrs(*on(xp, alt, az), *arguments)
    off = separation(host(found.ra), host(found.dec), expected.ra.deg, expected.dec.deg)
    assert off.max() < limit

    horizon = ICRS(expected.ra, expected.dec).transform_to(frame)
    found = c.icrs_to_altaz(*on(xp, expected.ra.deg, expected.dec.deg), *arguments)
    off = separation(host(found.az), host(found.alt), horizon.az.deg, horizon.alt.deg)
    assert off.max() < limit


def test_icrs_round_trip_closes(xp):
    alt, az = directions(400)
    time_s = NIGHT + np.arange(400)
    arguments = kernel_arguments(xp, time_s, np.zeros(400, dtype=np.int64))
    back = c.icrs_to_altaz(*c.altaz_to_icrs(*on(xp, alt, az), *arguments), *arguments)
    assert separation(host(back.az), host(back.alt), az, alt).max() < ROUND_TRIP_DEG


def test_coarser_grids_stay_below_a_tenth_of_an_arcsecond():
    time_s = NIGHT + np.arange(0, 3600, 7)
    alt, az = directions(len(time_s))
    zero = np.zeros(len(time_s), dtype=np.int64)
    fine = c.altaz_to_icrs(alt, az, *kernel_arguments(np, time_s, zero, step_s=1))
    coarse = c.altaz_to_icrs(alt, az, *kernel_arguments(np, time_s, zero, step_s=600))
    assert separation(fine.ra, fine.dec, coarse.ra, coarse.dec).max() < 0.1 * ARCSEC
    minute = c.altaz_to_icrs(alt, az, *kernel_arguments(np, time_s, zero))
    assert separation(fine.ra, fine.dec, minute.ra, minute.dec).max() < 0.002 * ARCSEC


def test_jax_traces_once_for_two_batches():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    traces = []

    @jax.jit
    def to_sky(fov_lon, fov_lat, alt, az, context, epoch, seconds):
        traces.append(1)
        horizon = c.telescope_to_altaz(fov_lon, fov_lat, alt, az)
        return c.altaz_to_icrs(*horizon, context, epoch, seconds)

    alt, az = directions(64)
    for start in (NIGHT, NIGHT + 30):
        time_s = start + np.arange(64)
        arguments = kernel_arguments(jax.numpy, time_s, np.zeros(64, dtype=np.int64))
        fov = jax.numpy.asarray(np.linspace(-5, 5, 64))
        found = to_sky(fov, fov, *on(jax.numpy, alt, az), *arguments)
        horizon = c.telescope_to_altaz(host(fov), host(fov), alt, az)
        expected = c.altaz_to_icrs(
            *horizon, *kernel_arguments(np, time_s, np.zeros(64, dtype=np.int64))
        )
        off = separation(host(found.ra), host(found.dec), expected.ra, expected.dec)
        assert off.max() < 1e-9
    assert len(traces) == 1


ALTITUDE = st.floats(-90, 90)
AZIMUTH = st.floats(0, 360, exclude_max=True)


@settings(max_examples=200, deadline=None)
@given(alt=ALTITUDE, az=AZIMUTH, pointing_alt=ALTITUDE, pointing_az=AZIMUTH)
def test_any_direction_returns_from_the_telescope_frame(alt, az, pointing_alt, pointing_az):
    pointing = on(np, pointing_alt, pointing_az)
    point = c.altaz_to_telescope(*on(np, alt, az), *pointing)
    back = c.telescope_to_altaz(*point, *pointing)
    assert separation(back.az, back.alt, az, alt)[0] < ROUND_TRIP_DEG
    # The angle to the pointing direction is the same in both frames.
    inside = separation(point.fov_lon, point.fov_lat, 0.0, 0.0)[0]
    outside = separation(az, alt, pointing_az, pointing_alt)
    assert abs(inside - outside) < ROUND_TRIP_DEG


@settings(max_examples=100, deadline=None)
@given(alt=ALTITUDE, az=AZIMUTH, offset=st.integers(0, 3600 * 10), ns=st.integers(0, 10**9 - 1))
def test_any_direction_returns_from_the_sky(alt, az, offset, ns):
    grid = sky_grid([NIGHT, NIGHT + 36000], **SITE, step_s=600)
    epoch, seconds = grid.locate([NIGHT + offset], [ns])
    arguments = (grid.context, epoch, seconds)
    back = c.icrs_to_altaz(*c.altaz_to_icrs(*on(np, alt, az), *arguments), *arguments)
    assert separation(back.az, back.alt, az, alt)[0] < ROUND_TRIP_DEG


@pytest.mark.peers
def test_ground_frames_match_ctapipe(peers):
    from astropy import units as u
    from astropy.coordinates import AltAz, SkyCoord
    from ctapipe.coordinates import (
        GroundFrame,
        TiltedGroundFrame,
        altaz_to_righthanded_cartesian,
        project_to_ground,
    )

    rng = np.random.default_rng(6)
    position = rng.uniform(-700, 700, (3, 50))
    for alt, az in [(90, 0), (70, 180), (52.3, 33), (20, 301.5)]:
        pointing = AltAz(alt=alt * u.deg, az=az * u.deg)
        ground = SkyCoord(*position * u.m, frame=GroundFrame())
        theirs = ground.transform_to(TiltedGroundFrame(pointing_direction=pointing))
        ours = c.ground_to_tilted(*position, *map(np.float64, (alt, az)))
        for axis in "xyz":
            expected = getattr(theirs.cartesian, axis).to_value(u.m)
            np.testing.assert_allclose(getattr(ours, axis), expected, atol=1e-9)
        plane = SkyCoord(
            *(position * np.array([[1], [1], [0]]) * u.m),
            frame=TiltedGroundFrame(pointing_direction=pointing),
        )
        core = project_to_ground(plane)
        found = c.project_to_ground(*position[:2], *map(np.float64, (alt, az)))
        np.testing.assert_allclose(found.x, core.x.to_value(u.m), atol=1e-6)
        np.testing.assert_allclose(found.y, core.y.to_value(u.m), atol=1e-6)
        np.testing.assert_allclose(
            np.array(c.altaz_to_cartesian(*map(np.float64, (alt, az)))),
            altaz_to_righthanded_cartesian(alt=alt * u.deg, az=az * u.deg),
            atol=1e-15,
        )


@pytest.mark.peers
def test_telescope_frame_matches_ctapipe(peers):
    from astropy import units as u
    from astropy.coordinates import AltAz, SkyCoord
    from ctapipe.coordinates import CameraFrame, TelescopeFrame

    rng = np.random.default_rng(7)
    x, y = rng.uniform(-0.2, 0.2, (2, 100))
    for alt, az, rotation in [(70, 180, 0), (89.5, 12, 30), (25, 359.9, -100.9)]:
        pointing = AltAz(alt=alt * u.deg, az=az * u.deg)
        frame = CameraFrame(
            focal_length=2.15 * u.m, rotation=rotation * u.deg, telescope_pointing=pointing
        )
        theirs = SkyCoord(x=x * u.m, y=y * u.m, frame=frame).transform_to(
            TelescopeFrame(telescope_pointing=pointing)
        )
        ours = c.camera_to_telescope(x, y, 2.15, rotation=rotation)
        np.testing.assert_allclose(ours.fov_lon, theirs.fov_lon.deg, atol=1e-12)
        np.testing.assert_allclose(ours.fov_lat, theirs.fov_lat.deg, atol=1e-12)
        horizon = theirs.transform_to(pointing)
        found = c.telescope_to_altaz(*ours, *map(np.float64, (alt, az)))
        off = separation(found.az, found.alt, horizon.az.deg, horizon.alt.deg)
        assert off.max() < 1e-6 * ARCSEC
