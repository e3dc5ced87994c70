"""Showers in closed form: against their definitions, and against textbook numbers."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import _electron_share as electron_share
from astri_gpu.kernels import shower as shw
from astri_gpu.kernels import simulation_types as sim
from astri_gpu.kernels.loops import shower as loops

EXACT = {"rtol": 1e-12, "atol": 1e-300}


def make_tables(grid, dtype=np.float64, seed=5):
    """Return a light table of numbers without any order, on uneven nodes."""
    rng = np.random.default_rng(seed)
    edge = np.concatenate([np.arange(0, 60, 6.0), np.arange(60, 200, 20.0), [250, 400, 700, 1100]])
    age = np.array([0.3, 0.45, 0.6, 0.9, 1.0, 1.2, 1.5, 1.95])
    density = 10 ** rng.uniform(-9, -5, (len(grid.depth), len(age), len(edge) - 1))
    samples = np.zeros((1, len(age), len(edge) - 1, 2), dtype=np.float32)
    return sim.LightTables(
        age, (edge[1:] + edge[:-1]) / 2, density.astype(dtype), edge, samples, samples
    )


def make_rows(n=60, seed=3):
    """Return sub-showers of 1 GeV to 300 TeV within 6 degrees."""
    rng = np.random.default_rng(seed)
    return sim.EmRows(
        energy=10 ** rng.uniform(0, 5.5, n),
        start=np.where(rng.random(n) < 0.1, 900.0, rng.exponential(60, n) + 1),
        x=rng.normal(0, 30, n),
        y=rng.normal(0, 30, n),
        q_lon=rng.uniform(-0.07, 0.07, n),
        q_lat=rng.uniform(-0.07, 0.07, n),
        weight=rng.choice([1.0, 7.5], n),
    )


@pytest.fixture(scope="module")
def grid(air):
    return air.grid()


@pytest.fixture(scope="module")
def tables(grid):
    return make_tables(grid)


def vertical_rows(energy, start=0.0):
    """Return showers down the axis, with the first conversion at `start`."""
    zero = np.zeros(len(energy))
    return sim.EmRows(np.asarray(energy), zero + start, zero, zero, zero, zero, zero + 1)


@numba.njit
def loop_light(em, x, y, tel_x, tel_y, tel_z, grid, tables, profiles, ages, found, totals):
    n_steps = len(grid.depth)
    amount, fraction, out = np.zeros(n_steps), np.zeros(n_steps), np.zeros(n_steps)
    index = np.zeros(n_steps, np.int32)
    for i in range(len(em.energy)):
        first, last = loops.profile(
            em.energy[i], em.start[i], em.q_lon[i], em.q_lat[i], em.weight[i],
            grid, tables, amount, index, fraction,
        )  # fmt: skip
        profiles[i, first:last] = amount[first:last]
        ages[i, first:last] = index[first:last] + fraction[first:last]
        d_x = tel_x[i] - (x[i] + em.q_lon[i] * tel_z[i])
        d_y = tel_y[i] - (y[i] + em.q_lat[i] * tel_z[i])
        _, gain = loops.stretch(em.q_lon[i], em.q_lat[i], grid)
        node, weight = loops.radius_place(math.sqrt(d_x * d_x + d_y * d_y) * gain, tables)
        if node >= 0:
            totals[i] = loops.light(
                amount, index, fraction, first, last, node, weight, tables, out
            )  # fmt: skip
            found[i, first:last] = out[first:last]


def pairs(n=60, seed=4):
    """Return rows, cores and telescopes; some at the axis, some beyond the table."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-600, 600, (2, n))
    tel = rng.uniform(-300, 300, (3, n))
    em = make_rows(n)
    x[:5] = tel[0, :5] - em.q_lon[:5] * tel[2, :5]
    y[:5] = tel[1, :5] - em.q_lat[:5] * tel[2, :5]
    return em, x, y, *tel


E25 = math.exp(2.5)
"""Critical energies below which the share above 20 MeV stays as it is."""


def slow_electrons(energy, start, depth):
    """Return electrons above 20 MeV and the age, from the definitions."""
    y = max(math.log(energy / 0.081), 0.5)
    t = (depth - start) / 36.66 + 9 / 7
    age = 3 * t / (t + 2 * y)
    if depth < start or age > 2.1:
        return 0.0, age
    greisen = 0.31 / math.sqrt(y) * math.exp(t * (1 - 1.5 * math.log(age)))
    far, near, here = (1 / math.log(e / 0.081) for e in (10.0, 1000.0, max(energy, 0.081 * E25)))
    part = (here - near) / (far - near)
    low, high = (
        np.interp(age, electron_share.SHARE_AGE, np.log(row)) for row in electron_share.SHARE
    )
    return greisen * math.exp(part * low + (1 - part) * high), age


def test_profile_and_light_equal_the_definitions(call, grid, tables):
    em, x, y, tel_x, tel_y, tel_z = pairs()
    found = call(shw.profile, em, grid, tables)
    light = call(shw.em_light, em, x, y, tel_x, tel_y, tel_z, grid, tables)
    n_alive = 0
    for i in range(len(x)):
        q = np.array([em.q_lon[i], em.q_lat[i]])
        # Height gained per metre along the line, and the same of the axis, by their vectors.
        p = math.sqrt(1 + q @ q)
        cos_line = (grid.cos_zenith + q[1] * grid.sin_zenith) / p
        g = cos_line * p / grid.cos_zenith
        centre = np.array([x[i], y[i]]) + q * tel_z[i]
        radius = math.dist(centre, (tel_x[i], tel_y[i])) * g
        for k, depth in enumerate(grid.depth):
            own_depth = depth * grid.cos_zenith / cos_line
            number, age = slow_electrons(em.energy[i], em.start[i], own_depth)
            amount = number * em.weight[i] * grid.light[k] * (p / g) * g**2
            assert found.amount[i, k] == pytest.approx(amount, rel=1e-9, abs=1e-300)
            if number == 0:
                assert light[i, k] == 0
                continue
            place = found.age_index[i, k] + found.age_fraction[i, k]
            assert place == pytest.approx(np.interp(age, tables.age, np.arange(8)), abs=1e-9)
            young = np.interp(radius, tables.radius, tables.density[k, found.age_index[i, k]])
            old = np.interp(radius, tables.radius, tables.density[k, found.age_index[i, k] + 1])
            density = young + found.age_fraction[i, k] * (old - young)
            expected = amount * density if radius < tables.radius_edge[-1] else 0.0
            assert light[i, k] == pytest.approx(expected, rel=1e-9, abs=1e-300)
            n_alive += expected > 0
    assert n_alive > 500


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_both_texts_expect_the_same_light(call, grid, dtype):
    tables = make_tables(grid, dtype)
    em, *places = pairs(seed=6)
    amount, index, fraction = call(shw.profile, em, grid, tables)
    light = call(shw.em_light, em, *places, grid, tables)
    assert light.dtype == np.float64
    shape = len(em.energy), len(grid.depth)
    profiles, ages, found, totals = *(np.zeros(shape) for _ in range(3)), np.zeros(shape[0])
    loop_light(em, *places, grid, tables, profiles, ages, found, totals)
    np.testing.assert_allclose(amount, profiles, **EXACT)
    np.testing.assert_allclose((index + fraction)[amount > 0], ages[amount > 0], rtol=1e-12)
    np.testing.assert_allclose(light, found, **EXACT)
    np.testing.assert_allclose(light.sum(axis=1), totals, rtol=1e-12)
    assert np.any(totals == 0)
    assert np.mean(totals > 0) > 0.3


def test_light_ends_with_the_table(call, tables):
    end = tables.radius_edge[-1]
    radius = np.array([0.0, 3.0, 4.0, np.nextafter(end, 0), end, 1e6])
    index, fraction = call(shw.radius_place, radius, tables)
    last = len(tables.radius) - 2
    np.testing.assert_array_equal(index, [0, 0, 0, last, -1, -1])
    np.testing.assert_allclose(fraction[:4], [0, 0, 1 / 6, 1], rtol=1e-12)
    for i, r in enumerate(radius):
        assert loops.radius_place(r, tables) == (index[i], pytest.approx(fraction[i], rel=1e-12))


@given(
    nodes=st.lists(
        st.floats(-1e6, 1e6).map(lambda x: round(x, 6)), min_size=2, max_size=20, unique=True
    ),
    value=st.floats(-2e6, 2e6),
)
@settings(max_examples=200, deadline=None)
def test_place_is_linear_interpolation(nodes, value):
    nodes = np.sort(np.asarray(nodes))
    index, fraction = shw.place(nodes, np.asarray([value]))
    assert 0 <= index[0] <= len(nodes) - 2
    assert 0 <= fraction[0] <= 1
    lower, upper = nodes[index[0]], nodes[index[0] + 1]
    assert lower + fraction[0] * (upper - lower) == pytest.approx(
        np.clip(value, nodes[0], nodes[-1]), rel=1e-9, abs=1e-9
    )
    assert loops.place(nodes, value) == (index[0], fraction[0])


@given(
    energy=st.floats(1e-3, 1e9),
    start=st.floats(-300, 5000),
    q=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
)
@settings(max_examples=100, deadline=None)
def test_odd_showers_give_numbers(grid, tables, energy, start, q):
    em = sim.EmRows(*(np.array([v]) for v in (energy, start, 0.0, 0.0, *q, 1.0)))
    zero = np.zeros(1)
    light = shw.em_light(em, zero, zero, zero + 50, zero, zero, grid, tables)
    assert np.all(np.isfinite(light))
    assert np.all(light >= 0)


def test_a_slope_is_another_zenith(air):
    """A shower off the axis and one on the axis of a tilted pointing cross the same air."""
    grid, q_lat = air.grid(20.0, step=2.0), math.tan(math.radians(5))
    for slope, zenith in [(q_lat, 15.0), (-q_lat, 25.0)]:
        other = air.grid(zenith, step=2.0)
        em = vertical_rows([1000.0], 50.0)
        tilted = em._replace(q_lat=np.array([slope]))
        _, gain = shw.stretch(tilted.q_lon, tilted.q_lat, grid)
        found = shw.profile(tilted, grid, make_tables(grid)).amount.sum() / gain**2
        expected = shw.profile(em, other, make_tables(other)).amount.sum()
        assert found == pytest.approx(expected, rel=1e-3)


def test_maximum_moves_by_85_a_decade(call, air):
    """Greisen: ln(10) radiation lengths of 36.66 g/cm2 = 84.4 g/cm2 a decade of energy."""
    grid = air.grid(0.0, step=10.0, ground=1400.0)
    em = vertical_rows([1e2, 1e3, 1e4, 1e5], 0.0)
    depth = call(shw.depth_of_maximum, em, np.arange(5), grid)
    np.testing.assert_allclose(np.diff(depth), 84.4, atol=3)
    # 5 TeV gammas have their maximum near 400 g/cm2, of which 47 are the way to conversion.
    assert depth[1] + 47 == pytest.approx(330, abs=12)


def test_track_length_is_proportional_to_energy():
    """Cascades have 0.506 radiation lengths of track above 20 MeV per critical energy."""
    energy = np.array([10.0, 1e2, 1e3, 1e4])
    depth = np.arange(0.5, 2500, 1.0)
    number, _ = shw.electrons(energy[:, None], np.zeros((4, 1)), depth[None, :])
    track = number.sum(axis=1) / 36.66
    np.testing.assert_allclose(track / (energy / 0.081), 0.506, rtol=0.02)


def test_depth_of_maximum_of_summed_rows(call, air, grid):
    em = make_rows(50)
    # 900 g/cm2 lies below the ground: rows without a single step.
    em.start[10:12] = 900.0
    em_start = np.array([0, 1, 1, 10, 12, 50])
    depth = call(shw.depth_of_maximum, em, em_start, grid)
    assert np.isnan(depth[[1, 3]]).all()
    fine = air.grid(step=0.5)
    for shower in (0, 2, 4):
        rows = slice(em_start[shower], em_start[shower + 1])
        length, gain = shw.stretch(em.q_lon, em.q_lat, fine)
        number, _ = shw.electrons(
            em.energy[rows, None],
            em.start[rows, None],
            fine.depth * (length / gain)[rows, None],
        )
        total = (number * em.weight[rows, None]).sum(axis=0)
        assert depth[shower] == pytest.approx(fine.depth[np.argmax(total)], abs=2)


def test_height_of_depth_runs_along_the_steps(call, air, grid):
    edge = air.depth_edge()
    assert edge[-1] - edge[-2] < 14.9
    depth = np.concatenate([edge, grid.depth, [0.0, 2000.0]])
    expected = np.interp(depth, edge, grid.height_edge)
    np.testing.assert_allclose(
        call(shw.height_of_depth, depth, grid), expected, rtol=1e-9, atol=1e-6
    )


def test_jax_compiles_once(one_trace, grid, tables):
    batches = [(*pairs(seed=seed), grid, tables) for seed in (1, 2)]
    one_trace(shw.em_light, *batches, atol=1e-30)
