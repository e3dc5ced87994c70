"""Which photo-electrons are drawn: counts, their cells, and their random words, by both texts."""

import math

import numpy as np
import pytest

from astri_gpu.config_simulation import OpticsConfig
from astri_gpu.instrument.astri import FOCAL_LENGTH_M
from astri_gpu.kernels.loops import photons as loops
from astri_gpu.kernels.loops._compile import compiled
from astri_gpu.kernels.photons import arrival_words, count, light_factor
from astri_gpu.kernels.random import key_of
from astri_gpu.simulation.camera_model import optics_model

KEY = key_of(11)
OPTICS = optics_model(OpticsConfig(), FOCAL_LENGTH_M)


def test_loop_draws_the_same_words_of_arrivals(call):
    photon, image = np.array([0, 1, 2, 0, 1]), np.array([0, 0, 0, 2, 2])
    shower, number = (np.array(v, np.uint32) for v in ([7, 8, 2**32 - 1], [256, 0, 259]))
    found = call(arrival_words, photon, image, shower, number, key=KEY)
    words = [
        loops.arrival_words(int(shower[i]), int(j), int(number[i]), *KEY)
        for j, i in zip(photon, image, strict=True)
    ]
    np.testing.assert_array_equal(np.stack(found, axis=1), words)


def test_light_of_a_telescope_grows_with_its_mirror_and_with_the_air(call, air):
    grid = air.grid(step=20.0)
    one = call(light_factor, grid, OPTICS)
    assert 0.5 < one < 2  # near the telescopes that candidates were tuned for
    twice = OPTICS._replace(mirror_area_m2=2 * OPTICS.mirror_area_m2)
    assert call(light_factor, grid, twice) == pytest.approx(2 * one)
    dim = grid._replace(light_yield=0.3 * grid.light_yield)
    assert call(light_factor, dim, OPTICS) == pytest.approx(0.3 * one)


@compiled(counted=True)
def _count(mean, shower, number, k0, k1, max_image_pe):
    return loops.count(mean, shower, number, k0, k1, max_image_pe)


def test_loop_counts_the_same(call):
    mean = np.array([0.0, 0.3, 12.0, 31.9, 32.1, 900.0, 5e4])
    shower, number = np.arange(7).astype(np.uint32), np.full(7, 257, dtype=np.uint32)
    n, weight = call(count, mean, shower, number, key=KEY, max_image_pe=1000)
    pairs = [_count(mean[i], shower[i], number[i], *KEY, 1000) for i in range(len(mean))]
    np.testing.assert_array_equal(n, [pair[0] for pair in pairs])
    np.testing.assert_array_equal(weight, [pair[1] for pair in pairs])
    assert n[0] == 0
    assert n[-1] == 1000
    np.testing.assert_array_equal(weight[:-1], 1.0)
    # The drawn ones stand for all: five standard deviations.
    assert abs(n[-1] * weight[-1] - 5e4) < 5 * math.sqrt(5e4)


@compiled(counted=True)
def _find(shares, running, n_guide):
    guide = np.zeros(len(running), np.int32)
    loops.guide_cells(running, len(running), guide, n_guide)
    found = np.zeros(len(shares), np.int64)
    for i in range(len(shares)):
        found[i] = loops.find_cell(shares[i], running, len(running), guide, n_guide)
    return found


@pytest.mark.parametrize("n_guide", [1, 7, 200])
def test_cells_are_those_of_a_binary_search(n_guide):
    rng = np.random.default_rng(2)
    light_of_cell = rng.exponential(size=200) ** 4 * (rng.random(200) < 0.6)
    running = np.cumsum(light_of_cell)
    # Shares on the edges of cells and of guides are the hard ones.
    edges = np.concatenate([running[:-1] / running[-1], np.arange(1, 7) / 7])
    shares = np.concatenate([rng.random(2000), edges, [2.0**-33, 1 - 2.0**-33]])
    shares = shares[(shares > 0) & (shares < 1)]
    found = _find(shares, running, n_guide)
    expected = np.searchsorted(running, shares * running[-1], side="right")
    np.testing.assert_array_equal(found, expected)
    assert np.all(light_of_cell[found] > 0)
