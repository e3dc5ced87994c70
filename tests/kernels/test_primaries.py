"""What is thrown: against the distributions asked for, and both texts beside each other."""

import math

import numba
import numpy as np
import pytest
from scipy import stats

from astri_gpu.kernels import shower as shw
from astri_gpu.kernels import simulation_types as sim
from astri_gpu.kernels.loops import shower as loops
from astri_gpu.kernels.random import key_of

SMALLEST_P = 1e-3
PRODUCTION = sim.ProductionSettings(
    primary=sim.PROTON,
    seed=20_251,
    energy_min_gev=500.0,
    energy_max_gev=3e5,
    spectral_index=-1.7,
    scatter_radius_m=2000.0,
    cone_min_rad=0.0,
    cone_max_rad=math.radians(6),
    n_uses=1,
    zenith_rad=math.radians(20),
)
TELESCOPES = sim.Telescopes(
    x=np.array([-195.0, -65.0, 0.0, 130.0, 325.0]),
    y=np.array([0.0, 126.0, -130.0, 40.0, -20.0]),
    z=np.array([0.0, -45.0, 47.0, -15.0, 7.0]),
)


@numba.njit
def loop_primaries(shower, use, telescopes, k0, k1, settings, light_factor, out):
    for i in range(len(shower)):
        energy, q_lon, q_lat = loops.primary(shower[i], k0, k1, settings)
        x, y = loops.core(shower[i], use[i], telescopes, k0, k1, settings)
        seen = loops.is_candidate(energy, q_lon, q_lat, x, y, telescopes, settings, light_factor)
        out[i, 0], out[i, 1], out[i, 2], out[i, 3], out[i, 4] = energy, q_lon, q_lat, x, y
        out[i, 5] = seen


@pytest.mark.parametrize("index", [-1.7, -1.0, -1.0 - 1e-9, 0.0, -2.7])
def test_energies_follow_the_power_law(index):
    chosen = PRODUCTION._replace(spectral_index=index)
    energy = shw.primaries(np.arange(100_000, dtype=np.uint32), settings=chosen).energy
    low, high = chosen.energy_min_gev, chosen.energy_max_gev
    assert energy.min() >= low
    assert energy.max() <= high
    power = 0.0 if abs(index + 1) < 1e-6 else index + 1

    def distribution(e):
        if power == 0:
            return np.log(e / low) / np.log(high / low)
        return (e**power - low**power) / (high**power - low**power)

    assert stats.kstest(energy, distribution).pvalue > SMALLEST_P


def test_one_energy_is_thrown_as_it_is():
    chosen = PRODUCTION._replace(energy_min_gev=1234.5, energy_max_gev=1234.5)
    energy = shw.primaries(np.arange(9, dtype=np.uint32), settings=chosen).energy
    np.testing.assert_array_equal(energy, 1234.5)


@pytest.mark.parametrize("cone", [(0.0, 6.0), (4.0, 4.5), (0.0, 1e-5)])
def test_directions_fill_the_cone_evenly(cone):
    low, high = np.radians(cone)
    chosen = PRODUCTION._replace(cone_min_rad=low, cone_max_rad=high)
    _, _, q_lon, q_lat = shw.primaries(np.arange(100_000, dtype=np.uint32), settings=chosen)
    angle = np.arctan(np.hypot(q_lon, q_lat))
    solid_angle = (np.sin(angle / 2) ** 2 - np.sin(low / 2) ** 2) / (
        np.sin(high / 2) ** 2 - np.sin(low / 2) ** 2
    )
    assert stats.kstest(solid_angle, "uniform").pvalue > SMALLEST_P
    turn = np.arctan2(q_lat, q_lon) / (2 * np.pi) % 1
    assert stats.kstest(turn, "uniform").pvalue > SMALLEST_P
    assert abs(np.corrcoef(turn, solid_angle)[0, 1]) < 4 / math.sqrt(len(turn))


def test_no_cone_is_the_axis():
    chosen = PRODUCTION._replace(cone_max_rad=0.0)
    _, _, q_lon, q_lat = shw.primaries(np.arange(100, dtype=np.uint32), settings=chosen)
    assert not np.any(q_lon)
    assert not np.any(q_lat)


def test_cores_fill_the_disc_evenly():
    number = np.arange(100_000, dtype=np.uint32)
    x, y = shw.cores(number, number % 3, TELESCOPES, settings=PRODUCTION)
    assert stats.kstest((x**2 + y**2) / 2000.0**2, "uniform").pvalue > SMALLEST_P
    assert stats.kstest(np.arctan2(y, x) / (2 * np.pi) % 1, "uniform").pvalue > SMALLEST_P


def test_muons_are_thrown_at_telescopes():
    chosen = PRODUCTION._replace(primary=sim.MUON, scatter_radius_m=3.0)
    number = np.arange(20_000, dtype=np.uint32)
    thrown = shw.primaries(number, settings=chosen)
    x, y = shw.cores(number, number * 0, TELESCOPES, settings=chosen)
    d_x = x[:, None] + thrown.q_lon[:, None] * TELESCOPES.z - TELESCOPES.x
    d_y = y[:, None] + thrown.q_lat[:, None] * TELESCOPES.z - TELESCOPES.y
    square = d_x**2 + d_y**2
    assert stats.chisquare(np.bincount(square.argmin(axis=1))).pvalue > SMALLEST_P
    assert stats.kstest(square.min(axis=1) / 9.0, "uniform").pvalue > SMALLEST_P


def test_showers_are_used_again_at_other_cores():
    number = np.array([7, 3, 2**32 - 1], dtype=np.uint32)
    chosen = PRODUCTION._replace(n_uses=4)
    thrown = shw.primaries(number, settings=chosen)
    found = shw.events(thrown, TELESCOPES, settings=chosen)
    np.testing.assert_array_equal(found.shower, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(found.use, [0, 1, 2, 3] * 3)
    assert found.use.dtype == np.uint32
    assert len(set(found.x)) == 12
    # What a shower gets depends on its number alone: not on its batch, nor on how often it is used.
    alone = shw.primaries(number[1:2], settings=PRODUCTION)
    np.testing.assert_array_equal(alone.energy, thrown.energy[1:2])
    first = shw.events(alone, TELESCOPES, settings=PRODUCTION)
    np.testing.assert_array_equal(first.x, found.x[4:5])


@pytest.mark.parametrize("primary", [sim.PROTON, sim.MUON])
@pytest.mark.parametrize("index", [-1.7, -1.0])
def test_both_texts_throw_the_same(call, primary, index):
    chosen = PRODUCTION._replace(primary=primary, spectral_index=index, n_uses=2)
    number = np.append(np.arange(400), [2**31, 2**32 - 1]).astype(np.uint32)
    thrown = call(shw.primaries, number, settings=chosen)
    found = call(shw.events, thrown, TELESCOPES, settings=chosen)
    seen = call(shw.candidates, thrown, found, TELESCOPES, settings=chosen, light_factor=0.8)
    assert seen.dtype == bool
    expected = np.empty((len(found.x), 6))
    loop_primaries(
        number[found.shower], found.use, TELESCOPES, *key_of(chosen.seed), chosen, 0.8, expected
    )
    columns = [value[found.shower] for value in thrown[1:]] + [found.x, found.y]
    for left, right in zip(columns, expected.T[:5], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(seen, expected[:, 5])


def test_candidates_are_bright_enough_at_the_nearest_telescope(call):
    rng = np.random.default_rng(2)
    n = 300
    energy = 10 ** rng.uniform(1, 4, n)
    q_lon, q_lat = rng.uniform(-0.1, 0.1, (2, n))
    x, y = rng.uniform(-1500, 1500, (2, n))
    found = call(
        shw.is_candidate, energy, q_lon, q_lat, x, y, TELESCOPES,
        settings=PRODUCTION, light_factor=1.3,
    )  # fmt: skip
    for i in range(n):
        nearest = min(
            math.hypot(t_x - x[i] - q_lon[i] * t_z, t_y - y[i] - q_lat[i] * t_z)
            for t_x, t_y, t_z in zip(*TELESCOPES, strict=True)
        )
        light = 1.3 * 0.6 * energy[i] * (1 if nearest < 130 else (130 / nearest) ** 2.2)
        assert found[i] == (light >= PRODUCTION.reject_pe)
    assert 0.05 < found.mean() < 0.95
