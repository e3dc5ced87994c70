"""Light of single muons: against the geometry of rings, and against the formula of the text."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.config_simulation import OpticsConfig
from astri_gpu.instrument.astri import FOCAL_LENGTH_M
from astri_gpu.kernels import muon_light as mul
from astri_gpu.kernels import simulation_types as sim
from astri_gpu.kernels.loops.muon_light import muon_light as loop_muon_light
from astri_gpu.simulation.camera_model import optics_model

OPTICS = optics_model(OpticsConfig(), FOCAL_LENGTH_M)


@pytest.fixture(scope="module")
def grid(air):
    """Fine steps towards the zenith."""
    return air.grid(0.0, step=3.0)


def muons(energy, height, q_lon=0.0, q_lat=0.0):
    """Return muons; what is given once holds for all."""
    energy, height, q_lon, q_lat = np.broadcast_arrays(
        *(np.asarray(v, dtype=float) for v in (energy, height, q_lon, q_lat))
    )
    zero = np.zeros(energy.shape)
    return sim.MuonRows(*(np.array(v) for v in (energy, zero, zero, q_lon, q_lat, height)))


def at_distance(grid, distance, energy=20.0, height=12_000.0):
    """Return the light of vertical muons at distances (n,) from a telescope at the origin."""
    distance = np.asarray(distance, dtype=float)
    zero = np.zeros(distance.shape)
    muon = muons(zero + energy, height)
    return mul.muon_light(muon, -distance, zero, zero, zero, zero, grid, OPTICS)


def many(n=400, seed=1):
    """Return muons of all energies at distances from 0 to beyond their light."""
    rng = np.random.default_rng(seed)
    muon = muons(10 ** rng.uniform(0.5, 3, n), 10 ** rng.uniform(2.5, 4.3, n))._replace(
        q_lon=rng.uniform(-0.1, 0.1, n), q_lat=rng.uniform(-0.1, 0.1, n)
    )
    tel_x, tel_y, tel_z = rng.uniform(-300, 300, (3, n))
    distance, angle = 10 ** rng.uniform(-1, 2.5, n), rng.uniform(0, 2 * np.pi, n)
    distance[:3] = 0.0, OPTICS.mirror_radius_m, np.nextafter(OPTICS.mirror_radius_m, 0)
    angle[:3] = 0.0
    x = tel_x - muon.q_lon * tel_z + distance * np.cos(angle)
    y = tel_y - muon.q_lat * tel_z + distance * np.sin(angle)
    return muon, x, y, tel_x, tel_y, tel_z


@numba.njit
def loop_all(muon, x, y, tel_x, tel_y, tel_z, grid, optics, out):
    for i in range(len(x)):
        found = loop_muon_light(
            muon.energy[i], x[i], y[i], muon.q_lon[i], muon.q_lat[i], muon.height[i],
            tel_x[i], tel_y[i], tel_z[i], grid, optics,
        )  # fmt: skip
        for j in range(6):
            out[i, j] = found[j]


def chords(distance, radius):
    """Return the mean length of mirror, over all azimuths, seen from a point in its plane."""
    phi = (np.arange(200_000) + 0.5) * np.pi / 200_000
    across = distance * np.sin(phi)
    half = np.sqrt(np.maximum(radius**2 - across**2, 0))
    middle = distance * np.cos(phi)
    return np.mean(np.maximum(middle + half, 0) - np.maximum(middle - half, 0))


def test_a_muon_through_the_centre_gives_the_ring_formula(air, grid):
    """Light yield x sin^2(theta) x the track a / tan(theta) that the mirror sees of the ring."""
    for energy in (8.0, 20.0, 500.0):
        light = at_distance(grid, [0.0], energy)
        gamma = energy / 0.1056583755
        # Light comes from the last hundred metres; half-way up it has the angle of the formula.
        altitude = light.height_high[0] / 2
        index, beta = 1 + air.refractivity(altitude), math.sqrt(1 - 1 / gamma**2)
        theta = math.acos(1 / (index * beta))
        track = OPTICS.mirror_radius_m / math.tan(theta)
        expected = air.light_yield(altitude) * math.sin(theta) ** 2 * track
        expected *= OPTICS.mirror_area_m2 / (math.pi * OPTICS.mirror_radius_m**2)
        assert light.theta[0] == pytest.approx(theta, rel=1e-3)
        assert light.mean[0] == pytest.approx(expected, rel=0.01)
        assert light.height_low[0] == 0
        assert light.height_high[0] == pytest.approx(track, rel=1e-3)
        assert light.azimuth_half[0] == math.pi
    # 250 to 650 photo-electrons for 14 m2 at 2200 m: what muon rings of such telescopes have.
    assert 300 < light.mean[0] < 800


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.1, 2.2, 5.0, 20.0, 60.0])
def test_light_that_hits_the_mirror_is_that_of_the_chords(air, grid, distance):
    """Proposed photo-electrons that land on the mirror: yield x theta x mean chord x area share."""
    light = at_distance(grid, [distance])
    rng = np.random.default_rng(3)
    n = 400_000
    height = rng.uniform(light.height_low[0], light.height_high[0], n)
    phi = light.azimuth[0] + light.azimuth_half[0] * rng.uniform(-1, 1, n)
    landing = light.theta[0] * height
    hits = np.hypot(landing * np.cos(phi) - distance, landing * np.sin(phi)) < 2.15
    assert hits.mean() > 0.3
    altitude = (light.height_low[0] + light.height_high[0]) / 2
    expected = air.light_yield(altitude) * light.theta[0] * chords(distance, 2.15)
    expected *= OPTICS.mirror_area_m2 / (math.pi * 2.15**2)
    error = math.sqrt((1 - hits.mean()) / hits.mean() / n)
    assert light.mean[0] * hits.mean() == pytest.approx(expected, rel=1e-3 + 4 * error)


def test_the_angle_is_that_of_the_height_of_emission(air, grid):
    distance = np.array([5.0, 20.0, 50.0, 80.0, 110.0])
    light = at_distance(grid, distance, 1000.0)
    altitude = distance / light.theta
    gamma = 1000.0 / 0.1056583755
    expected = np.sqrt(2 * air.refractivity(altitude) - 1 / gamma**2)
    np.testing.assert_allclose(light.theta[:4], expected[:4], rtol=2e-3)
    np.testing.assert_allclose(light.theta[4], expected[4], rtol=2e-2)
    assert np.all(np.diff(light.theta) < 0)
    np.testing.assert_allclose(light.azimuth, 0.0)
    np.testing.assert_allclose(light.azimuth_half, np.arcsin(2.15 / distance))


def test_light_falls_with_distance_and_ends(grid):
    # From the mirror outwards, where the range of azimuths is an arc.
    light = at_distance(grid, [2.5, 5.0, 20.0, 60.0, 110.0, 400.0], 1000.0)
    assert np.all(np.diff(light.mean) < 0)
    assert 2 < light.mean[4] < 20
    for value in light:
        assert value[5] == 0


def test_no_light_below_threshold_or_above_the_place_of_birth(air, grid):
    # Threshold at the ground: 0.1057 GeV / sqrt(2 (n - 1)) = 5.04 GeV.
    threshold = 0.1056583755 / math.sqrt(2 * air.refractivity(0.0))
    light = at_distance(grid, [0.0, 0.0], np.array([0.995, 1.1]) * threshold)
    assert light.mean[0] == 0
    assert light.mean[1] > 0
    born_low = at_distance(grid, [30.0, 0.0], height=60.0)
    assert born_low.mean[0] == 0
    assert born_low.height_high[1] == 60.0
    assert at_distance(grid, [0.0], height=-5.0).mean[0] == 0


def test_the_height_of_the_telescope_does_not_change_the_air_above_it(air):
    """Telescopes on flat ground lie at different H when the array points off the zenith."""
    grid = air.grid(30.0, step=3.0)
    muon = muons(20.0, [12_000.0] * 3, q_lon=0.02)
    tel_y = np.array([-300.0, 0.0, 300.0])
    tel_z = -tel_y * grid.sin_zenith / grid.cos_zenith
    zero = np.zeros(3)
    light = mul.muon_light(muon, -muon.q_lon * tel_z, tel_y, zero, tel_y, tel_z, grid, OPTICS)
    np.testing.assert_allclose(light.mean, light.mean[1], rtol=1e-9)
    np.testing.assert_allclose(light.theta, light.theta[1], rtol=1e-9)


@pytest.mark.parametrize("zenith", [0.0, 40.0])
def test_both_texts_give_the_same_light(call, air, zenith):
    grid = air.grid(zenith)
    arguments = many()
    found = call(mul.muon_light, *arguments, grid, OPTICS)
    expected = np.empty((len(found.mean), 6))
    loop_all(*arguments, grid, OPTICS, expected)
    for name, left, right in zip(found._fields, found, expected.T, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12, err_msg=name)
    assert 0.2 < np.mean(found.mean > 0) < 0.95


@given(
    energy=st.floats(0.11, 1e9),
    height=st.floats(-1e4, 1e6),
    distance=st.floats(0, 1e5),
    q=st.floats(-0.2, 0.2),
)
@settings(max_examples=100, deadline=None)
def test_odd_muons_give_numbers(grid, energy, height, distance, q):
    muon = muons([energy], height, q, -q)
    zero = np.zeros(1)
    light = mul.muon_light(muon, zero + distance, zero, zero, zero, zero, grid, OPTICS)
    assert all(np.all(np.isfinite(value)) for value in light)
    assert light.mean[0] >= 0
    assert light.height_low[0] <= light.height_high[0]


def test_jax_compiles_once(one_trace, air):
    grid = air.grid()
    one_trace(mul.muon_light, *[(*many(seed=seed), grid, OPTICS) for seed in (1, 2)], atol=1e-12)
