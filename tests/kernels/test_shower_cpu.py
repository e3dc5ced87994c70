"""CPU launch of the shower simulation: same images as the array text, whatever the batch."""

import math

import numpy as np
import pytest

from astri_gpu.backend import make_backend
from astri_gpu.config_simulation import CameraConfig, OpticsConfig
from astri_gpu.instrument.astri import astri_camera
from astri_gpu.kernels.loops.shower_cpu import ShowerLoops, share_out
from astri_gpu.kernels.simulation_types import (
    GAMMA,
    MUON,
    PROTON,
    Events,
    Primaries,
    ProductionSettings,
    Telescopes,
)
from astri_gpu.simulation.array_engine import ArrayEngine
from astri_gpu.simulation.camera_model import camera_model, camera_settings, optics_model

N_TEL = 3
ZENITH_DEG = 30.0
N_PIXELS = 2368


@pytest.fixture(scope="module")
def parts(air):
    """Grid, tables, telescopes, optics, camera and its settings."""
    grid = air.grid(ZENITH_DEG)
    rng = np.random.default_rng(1)
    camera, optics = CameraConfig(dead_fraction=0.01), OpticsConfig()
    return (
        grid,
        air.pools(grid),
        Telescopes(*(80 * rng.standard_normal((2, N_TEL))), 15 * rng.standard_normal(N_TEL)),
        optics_model(optics, 2.15),
        camera_model(camera, optics, astri_camera(), np.arange(1, N_TEL + 1), 1),
        camera_settings(camera),
    )


def settings_of(primary, **changed):
    values = {
        "primary": primary,
        "seed": 2**40 + 5,
        "energy_min_gev": 20.0 if primary == MUON else 500.0,
        "energy_max_gev": 100.0 if primary == MUON else 2e4,
        "spectral_index": -1.7,
        "scatter_radius_m": 5.0 if primary == MUON else 250.0,
        "cone_min_rad": 0.0,
        "cone_max_rad": 0.0 if primary == GAMMA else 0.04,
        "n_uses": 2,
        "zenith_rad": math.radians(ZENITH_DEG),
        "thinning": 0.02,
    }
    return ProductionSettings(**(values | changed))


def throw(engine, n=16, n_uses=2):
    """Return primaries, rows, events and mean light of some showers."""
    shower = np.arange(100, 100 + n, dtype=np.uint32)
    primaries, events = engine.primaries(shower), engine.events(shower, n_uses)
    rows = engine.develop(primaries)
    return primaries, rows, events, engine.expected(primaries, rows, events)


def bright(mean, least=12.0):
    event, tel = np.nonzero(mean >= least)
    return event, tel, mean[event, tel]


def assert_same_images(found, expected, *, time=0.0):
    """Compare images; counts only where there is a trigger."""
    for name in ("triggered", "true_sum"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    kept = expected.triggered
    for name in ("adc", "trigger_pixel"):
        left, right = getattr(found, name)[kept], getattr(expected, name)[kept]
        np.testing.assert_array_equal(left, right, name)
    # A sum of weights that ends in a half may be rounded either way, by the order of its terms.
    rounded = found.true_image[kept] != expected.true_image[kept]
    assert rounded.sum() <= (0 if time == 0 else 1e-5 * rounded.size)
    np.testing.assert_allclose(found.true_image[kept], expected.true_image[kept], rtol=0, atol=1)
    np.testing.assert_allclose(
        found.trigger_time[kept], expected.trigger_time[kept], rtol=0, atol=time
    )


@pytest.mark.parametrize("primary", [GAMMA, PROTON, MUON], ids=["gamma", "proton", "muon"])
def test_array_text_gives_the_same_images(parts, primary):
    settings = settings_of(primary, max_image_pe=1997)  # a prime: no weighted sum ends in .5
    loops = ShowerLoops(settings, *parts, n_threads=2)
    text = ArrayEngine(make_backend("numpy", 1), settings, *parts)
    primaries, rows, events, mean = throw(loops)
    shower = primaries.shower
    columns = zip(
        (*primaries, *events), (*text.primaries(shower), *text.events(shower, 2)), strict=True
    )
    for left, right in columns:
        np.testing.assert_allclose(left, right, rtol=1e-12)
    np.testing.assert_array_equal(
        loops.candidates(primaries, events), text.candidates(primaries, events)
    )
    np.testing.assert_allclose(mean, text.expected(primaries, rows, events), rtol=1e-11)
    where = bright(mean)
    assert len(where[0]) > 5
    found = loops.images(primaries, rows, events, *where)
    assert found.triggered.sum() >= 3
    expected = text.images(primaries, rows, events, *where)
    assert_same_images(found, expected, time=1e-6)


@pytest.fixture(scope="module")
def thrown(parts):
    """An engine, and showers of protons that it has thrown, with their images."""
    engine = ShowerLoops(settings_of(PROTON), *parts, n_threads=1)
    primaries, rows, events, mean = throw(engine, n=24)
    where = bright(mean)
    return engine, primaries, rows, events, mean, where, engine.images(
        primaries, rows, events, *where
    )  # fmt: skip


def test_images_depend_on_neither_threads_nor_batch(parts, thrown):
    _, primaries, rows, events, mean, where, expected = thrown
    # Another engine, so that its work space is fresh and of another size.
    other = ShowerLoops(settings_of(PROTON), *parts, n_threads=2)
    assert_same_images(other.images(primaries, rows, events, *where), expected)
    np.testing.assert_array_equal(other.expected(primaries, rows, events), mean)
    some = np.random.default_rng(3).permutation(len(where[0]))[:7]
    found = other.images(primaries, rows, events, *(column[some] for column in where))
    assert_same_images(found, type(expected)(*(column[some] for column in expected)))

    # A shower on its own: other rows of the same tables.
    shower = int(events.shower[where[0][-1]])
    alone = Primaries(*(column[shower : shower + 1] for column in primaries))
    uses = events.shower == shower
    own = Events(np.zeros(uses.sum(), dtype=np.int64), *(c[uses] for c in events[1:]))
    own_rows = other.develop(alone)
    own_mean = other.expected(alone, own_rows, own)
    np.testing.assert_array_equal(own_mean, mean[uses])
    mine = uses[where[0]]
    found = other.images(alone, own_rows, own, *bright(own_mean))
    assert_same_images(found, type(expected)(*(column[mine] for column in expected)))


def test_images_hold_the_light_that_was_expected(thrown):
    *_, where, images = thrown
    # Efficiencies, the gaps between modules and the edge of the camera take about a third.
    mean = where[2]
    near = mean > 200
    share = images.true_sum[near].sum() / mean[near].sum()
    assert 0.4 < share < 0.9
    kept = images.triggered
    cut = np.minimum(images.true_image[kept].sum(axis=1), images.true_sum[kept])
    np.testing.assert_array_equal(cut, images.true_sum[kept])


def test_bright_images_are_weighted_to_the_same_light(parts, thrown):
    _, primaries, rows, events, _, where, full = thrown
    engine = ShowerLoops(settings_of(PROTON, max_image_pe=300), *parts, n_threads=1)
    found = engine.images(primaries, rows, events, *where)
    weighted = where[2] > 2000
    assert weighted.sum() >= 3
    sums = full.true_sum[weighted]
    # 300 drawn ones of which a good half arrives: 5 standard deviations of about 8 %.
    np.testing.assert_allclose(found.true_sum[weighted], sums, rtol=0.4)
    assert abs(found.true_sum[weighted].sum() / sums.sum() - 1) < 0.2
    faint = where[2] < 150
    np.testing.assert_array_equal(found.true_sum[faint], full.true_sum[faint])


def test_given_light_is_seen_where_it_comes_from(parts):
    engine = ShowerLoops(settings_of(GAMMA), *parts, n_threads=2)
    text = ArrayEngine(make_backend("numpy", 1), settings_of(GAMMA), *parts)
    numbers = np.array([[4, 256], [4, 258], [9, 1]], dtype=np.uint32)
    tel, start = np.array([0, 2, 1]), np.array([0, 400, 400, 1000])
    rng, is_first = np.random.default_rng(2), np.arange(1000) < 400
    lon = np.where(is_first, 0.02, -0.03) + 0.004 * rng.standard_normal(1000)
    lat = np.where(is_first, -0.01, 0.04) + 0.004 * rng.standard_normal(1000)
    light = (lon, lat, np.full(1000, 12.0), np.ones(1000))
    for forced in (False, True):
        found = engine.images_of_light(numbers, tel, start, *light, forced=forced)
        assert_same_images(
            found, text.images_of_light(numbers, tel, start, *light, forced=forced), time=1e-9
        )
        np.testing.assert_array_equal(found.triggered, [True, forced, True])
    assert found.true_sum[1] == 0
    assert np.all(found.true_sum[[0, 2]] > 150)
    geometry = astri_camera().geometry
    for image, (x, y) in ((0, (-0.0215, 0.043)), (2, (0.086, -0.0645))):
        weight = found.true_image[image].astype(float)
        cog = [np.average(pix, weights=weight) for pix in (geometry.pix_x, geometry.pix_y)]
        np.testing.assert_allclose(cog, (x, y), atol=1.5e-3)


@pytest.mark.parametrize("dark", [False, True])
def test_flashes_are_those_of_the_array_text(parts, dark):
    engine = ShowerLoops(settings_of(GAMMA), *parts, n_threads=2)
    text = ArrayEngine(make_backend("numpy", 1), settings_of(GAMMA), *parts)
    numbers = np.array([[1, 0], [1, 1], [1, 2], [2, 0]], dtype=np.uint32)
    tel = np.array([0, 1, 2, 0])
    mean = np.broadcast_to(np.array([30.0, 0.0, 5.0, 200.0])[:, None], (4, N_PIXELS))
    found = engine.images_of_pixels(numbers, tel, mean, dark=dark)
    assert_same_images(found, text.images_of_pixels(numbers, tel, mean, dark=dark))
    assert np.all(found.triggered)
    assert found.true_sum[1] == 0
    # 1 % of the pixels is dead; efficiencies differ by 3 %.
    np.testing.assert_allclose(found.true_sum / N_PIXELS, [29.7, 0, 4.95, 198], rtol=0.02)


def test_no_showers_and_no_images(parts):
    engine = ShowerLoops(settings_of(PROTON), *parts, n_threads=2)
    nothing = np.zeros(0, dtype=np.uint32)
    primaries, events = engine.primaries(nothing), engine.events(nothing, 2)
    rows = engine.develop(primaries)
    assert engine.expected(primaries, rows, events).shape == (0, N_TEL)
    none = np.zeros(0, dtype=np.int64)
    images = engine.images(primaries, rows, events, none, none, np.zeros(0))
    assert images.adc.shape == (0, 2, N_PIXELS)


def test_work_is_shared_out_evenly_and_groups_stay_together():
    rng = np.random.default_rng(4)
    group = np.sort(rng.integers(0, 300, 1000))
    cost = rng.exponential(size=1000) ** 3
    work = share_out(group, cost, 4)
    np.testing.assert_array_equal(np.sort(work.item), np.arange(1000))
    lists = [work.item[a:b] for a, b in zip(work.start[:-1], work.start[1:], strict=True)]
    for i, left in enumerate(lists):
        assert np.all(np.diff(left) > 0)
        for right in lists[:i]:
            assert not np.intersect1d(group[left], group[right]).size
    load = [cost[items].sum() for items in lists]
    assert max(load) < 1.02 * np.mean(load)
    assert len(share_out(group[:0], cost[:0], 3).item) == 0
