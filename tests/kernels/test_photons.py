"""Photo-electrons: array text against loop text, expected light and plain geometry."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from astri_gpu.config_simulation import OpticsConfig
from astri_gpu.instrument.astri import FOCAL_LENGTH_M
from astri_gpu.kernels.loops import photons as loops
from astri_gpu.kernels.loops._compile import compiled
from astri_gpu.kernels.loops.random import uniform
from astri_gpu.kernels.loops.shower import light, profile, radius_place
from astri_gpu.kernels.muon_light import MuonLight, muon_light
from astri_gpu.kernels.photons import (
    ImageList,
    photo_electrons,
)
from astri_gpu.kernels.random import key_of
from astri_gpu.kernels.shower import em_light
from astri_gpu.kernels.shower import profile as profiles
from astri_gpu.kernels.simulation_types import (
    SPEED_OF_LIGHT,
    EmRows,
    MuonRows,
)
from astri_gpu.simulation.camera_model import optics_model

KEY = key_of(11)
OPTICS = optics_model(OpticsConfig(), FOCAL_LENGTH_M)
MIRROR_RADIUS = OPTICS.mirror_radius_m


class Sample(NamedTuple):
    """Images with the pairs that they see."""

    images: ImageList
    em: EmRows
    muon: MuonRows
    em_image: np.ndarray
    muon_image: np.ndarray


def make_sample(n_images=6, rows=(1, 4, 0, 7), muons=(0, 2, 3, 1), seed=5):
    """Images with different numbers of rows and muons; one telescope stands in the core."""
    rng = np.random.default_rng(seed)
    n_rows, n_muons = (np.resize(n, n_images) for n in (rows, muons))
    em_start, muon_start = (np.concatenate([[0], np.cumsum(n)]) for n in (n_rows, n_muons))
    n_em, n_mu = em_start[-1], muon_start[-1]

    def normal(scale, n):
        return scale * rng.standard_normal(n)

    images = ImageList(
        shower=np.arange(7, 7 + n_images).astype(np.uint32),
        number=(np.arange(n_images) % 3 + 256).astype(np.uint32),
        x=normal(60, n_images),
        y=normal(60, n_images),
        q_lon=normal(0.02, n_images),
        q_lat=normal(0.02, n_images),
        tel_x=normal(100, n_images),
        tel_y=normal(100, n_images),
        tel_z=normal(30, n_images),
        em_start=em_start.astype(np.int64),
        muon_start=muon_start.astype(np.int64),
    )
    em_image, muon_image = (np.repeat(np.arange(n_images), n) for n in (n_rows, n_muons))
    em = EmRows(
        energy=10 ** rng.uniform(0.5, 3, n_em),
        start=rng.uniform(10, 200, n_em),
        x=normal(20, n_em),
        y=normal(20, n_em),
        q_lon=images.q_lon[em_image] + normal(0.01, n_em),
        q_lat=images.q_lat[em_image] + normal(0.01, n_em),
        weight=rng.uniform(1, 3, n_em),
    )
    if n_em:  # the first row runs through its telescope
        images.tel_z[0] = 0.0
        em.x[0], em.y[0] = images.tel_x[0] - images.x[0], images.tel_y[0] - images.y[0]
    muon = MuonRows(
        energy=rng.uniform(8, 60, n_mu),
        x=(images.tel_x - images.x)[muon_image] + normal(10, n_mu),
        y=(images.tel_y - images.y)[muon_image] + normal(10, n_mu),
        q_lon=normal(0.01, n_mu),
        q_lat=normal(0.01, n_mu),
        height=rng.uniform(5000, 12000, n_mu),
    )
    return Sample(images, em, muon, em_image, muon_image)


def light_of(sample, grid, tables):
    """Return what `photo_electrons` takes besides: light, ages, muon light."""
    images, em, muon, i, m = sample

    def at(n):
        return images.tel_x[n], images.tel_y[n], images.tel_z[n]

    per_step = em_light(em, images.x[i] + em.x, images.y[i] + em.y, *at(i), grid, tables)
    ages = profiles(em, grid, tables)
    of_muons = muon_light(muon, images.x[m] + muon.x, images.y[m] + muon.y, *at(m), grid, OPTICS)
    return per_step, ages.age_index, ages.age_fraction, of_muons


def flat_photons(n_per_image):
    """Return count within the image, and image, of every photo-electron."""
    image = np.repeat(np.arange(len(n_per_image)), n_per_image)
    start = np.concatenate([[0], np.cumsum(n_per_image)])[:-1]
    return np.arange(len(image)) - start[image], image


@compiled(counted=True)
def _draw(n, images, i, em, muon, grid, tables, mirror_radius, per_muon, k0, k1):
    """Draw n photo-electrons of image i with the loop text."""
    n_steps = grid.depth.shape[0]
    first_row, n_rows = images.em_start[i], images.em_start[i + 1] - images.em_start[i]
    first_muon, n_muons = images.muon_start[i], images.muon_start[i + 1] - images.muon_start[i]
    tel_x, tel_y, tel_z = images.tel_x[i], images.tel_y[i], images.tel_z[i]
    n_cells = n_rows * n_steps + n_muons
    running, guide = np.zeros(n_cells), np.zeros(n_cells, np.int32)
    amount, age_fraction = np.zeros(n_steps), np.zeros((n_rows, n_steps))
    age_index, out = np.zeros((n_rows, n_steps), np.int32), np.zeros(n_steps)
    line = np.zeros((n_rows, loops.N_LINE))
    total = 0.0
    for r in range(n_rows):
        row = first_row + r
        first, last = profile(
            em.energy[row], em.start[row], em.q_lon[row], em.q_lat[row], em.weight[row], grid,
            tables, amount, age_index[r], age_fraction[r],
        )  # fmt: skip
        radius_g = loops.write_line(
            line[r], images.x[i] + em.x[row], images.y[i] + em.y[row], em.q_lon[row],
            em.q_lat[row], tel_x, tel_y, tel_z, grid, tables,
        )  # fmt: skip
        index, fraction = radius_place(radius_g, tables)
        out[:] = 0.0
        if index >= 0:
            light(amount, age_index[r], age_fraction[r], first, last, index, fraction, tables, out)
        for k in range(n_steps):
            total += out[k]
            running[r * n_steps + k] = total
    for m in range(n_muons):
        total += per_muon.mean[first_muon + m]
        running[n_rows * n_steps + m] = total
    n_guide = max(n_cells // 3, 1)
    loops.guide_cells(running, n_cells, guide, n_guide)
    front = loops.front_of(images.q_lon[i], images.q_lat[i])
    found, cells = np.zeros((n, 4)), np.zeros(n, np.int64)
    for j in range(n):
        w0, w1, w2, w3 = loops.photon_words(images.shower[i], j, images.number[i], k0, k1)
        cell = loops.find_cell(uniform(w0), running, n_cells, guide, n_guide)
        cells[j] = cell
        if cell < n_rows * n_steps:
            r, k = cell // n_steps, cell % n_steps
            lon, lat, time, landed = loops.em_photon(
                w1, w2, w3, k, age_index[r, k], age_fraction[r, k], line[r], tel_z, front, grid,
                tables,
            )  # fmt: skip
        else:
            m = first_muon + cell - n_rows * n_steps
            lon, lat, time, landed = loops.muon_photon(
                w1, w2, images.x[i] + muon.x[m], images.y[i] + muon.y[m], muon.q_lon[m],
                muon.q_lat[m], per_muon.theta[m], per_muon.height_low[m], per_muon.height_high[m],
                per_muon.azimuth[m], per_muon.azimuth_half[m], tel_x, tel_y, tel_z, front, grid,
                mirror_radius,
            )  # fmt: skip
        found[j, 0], found[j, 1], found[j, 2], found[j, 3] = lon, lat, time, landed
    return found, cells, running


def draw(n, sample, i, grid, tables, per_muon):
    return _draw(
        n, sample.images, i, sample.em, sample.muon, grid, tables, MIRROR_RADIUS, per_muon, *KEY
    )


@pytest.fixture(scope="module")
def grid(air):
    return air.grid(step=20.0)


@pytest.fixture(scope="module")
def tables(air, grid):
    return air.pools(grid)


@pytest.mark.parametrize(
    ("rows", "muons"), [((1, 4, 0, 7), (0, 2, 3, 1)), ((1, 5, 2), (0,)), ((0,), (1, 3))]
)
def test_loop_draws_the_same_light(call, grid, tables, rows, muons):
    sample = make_sample(rows=rows, muons=muons)
    arguments = light_of(sample, grid, tables)
    per_step, age_index, age_fraction, per_muon = arguments
    n = np.full(len(sample.images.x), 100)
    photon, image = flat_photons(n)
    found = call(
        photo_electrons, photon, image, sample.images, sample.em, per_step, age_index,
        age_fraction, sample.muon, per_muon, grid, tables, OPTICS, key=KEY,
    )  # fmt: skip
    for i in range(len(n)):
        expected, _, _ = draw(100, sample, i, grid, tables, per_muon)
        mine = image == i
        np.testing.assert_allclose(found.sky_lon[mine], expected[:, 0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.sky_lat[mine], expected[:, 1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.time[mine], expected[:, 2], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found.landed[mine], expected[:, 3])


def test_cells_are_drawn_in_proportion_to_their_light(grid, tables):
    sample = make_sample()
    per_step, _, _, per_muon = light_of(sample, grid, tables)
    n, i = 50_000, 1
    _, cells, running = draw(n, sample, i, grid, tables, per_muon)
    rows = slice(*sample.images.em_start[i : i + 2])
    muons = slice(*sample.images.muon_start[i : i + 2])
    expected = np.concatenate([per_step[rows].ravel(), per_muon.mean[muons]])
    np.testing.assert_allclose(running[-1], expected.sum(), rtol=1e-12)
    expected *= n / expected.sum()
    found = np.bincount(cells, minlength=len(expected))
    bright = expected > 20
    assert bright.sum() > 30
    chi2 = np.sum((found - expected)[bright] ** 2 / expected[bright])
    assert abs(chi2 - bright.sum()) < 5 * math.sqrt(2 * bright.sum())
    assert np.all(found[expected == 0] == 0)


def one_shower(tel_x=0.0, tel_y=0.0, tel_z=0.0, q_lon=0.0, q_lat=0.0):
    """An image of one gamma that comes down at the origin."""

    def one(value, dtype=np.float64):
        return np.array([value], dtype=dtype)

    edge = np.array([0, 1])
    images = ImageList(
        one(3, np.uint32), one(1, np.uint32), one(0), one(0), one(q_lon), one(q_lat), one(tel_x),
        one(tel_y), one(tel_z), edge, np.array([0, 0]),
    )  # fmt: skip
    em = EmRows(one(1000), one(50), one(0), one(0), one(q_lon), one(q_lat), one(1))
    muon = MuonRows(*6 * (np.zeros(0),))
    return Sample(images, em, muon, np.zeros(1, np.int64), np.zeros(0, np.int64))


def draw_array(sample, n, grid, tables):
    per_step, age_index, age_fraction, per_muon = light_of(sample, grid, tables)
    photon, image = flat_photons([n])
    return photo_electrons(
        photon, image, sample.images, sample.em, per_step, age_index, age_fraction, sample.muon,
        per_muon, grid, tables, OPTICS, key=KEY,
    )  # fmt: skip


def test_light_of_a_thin_shower_comes_from_its_axis(air, grid):
    thin = air.pools(grid, lateral=0.0)
    place = {"tel_x": 90.0, "tel_y": -120.0, "tel_z": 20.0}
    q = np.array([0.01, -0.02])
    found = draw_array(one_shower(**place, q_lon=q[0], q_lat=q[1]), 2000, grid, thin)
    assert np.all(found.landed)
    # Seen from the telescope, the top of the shower is at q and its tail towards the core.
    tel = np.array([place["tel_x"], place["tel_y"]])
    towards_tel = tel - q * place["tel_z"]
    distance = np.hypot(*towards_tel)
    shift = np.stack([found.sky_lon, found.sky_lat], axis=1) - q
    along = shift @ (towards_tel / distance)
    across = shift @ (np.array([-towards_tel[1], towards_tel[0]]) / distance)
    np.testing.assert_allclose(across, 0, atol=1e-15)
    assert np.all(along < 0)
    # Triangulated heights lie within the air, most light comes from 5 to 12 km above ground.
    height = place["tel_z"] + distance / -along
    gain = 1 + q[1] * math.tan(math.radians(20))
    assert np.all(height * gain <= grid.height_edge[0])
    assert 4000 < np.median(height) < 14000

    # Time of flight from the triangulated place, against the primary at the speed of light.
    emission = np.concatenate([q * height[:, None], height[:, None]], axis=1)
    way = np.linalg.norm(emission - [*tel, place["tel_z"]], axis=1)
    primary = np.linalg.norm(emission, axis=1)
    expected = (way + air.delay(height * gain, grid.cos_zenith) - primary) / SPEED_OF_LIGHT
    # Within a step the delay is linear with the refractivity of its centre.
    np.testing.assert_allclose(found.time, expected, atol=0.02)


def test_light_next_to_the_axis_comes_late(grid, tables):
    near = draw_array(one_shower(), 500, grid, tables)
    assert np.all(near.time > 0)
    assert np.all(near.time < 10)
    far = draw_array(one_shower(tel_x=400.0), 500, grid, tables)
    assert np.median(far.time) > np.median(near.time) + 10


def test_scattered_light_is_symmetric_about_the_image_axis(grid, tables):
    found = draw_array(one_shower(tel_x=100.0, tel_y=100.0), 20_000, grid, tables)
    across = (found.sky_lat - found.sky_lon) / math.sqrt(2)
    assert abs(np.mean(across)) < 5 * np.std(across) / math.sqrt(len(across))
    assert np.std(across) > 1e-4


def test_light_from_below_the_telescope_is_lost(grid, tables):
    high = draw_array(one_shower(tel_x=50.0, tel_z=6000.0), 2000, grid, tables)
    assert 0.2 < np.mean(high.landed) < 0.98
    for column in high[:3]:
        assert np.all(np.isfinite(column))


@pytest.mark.parametrize("distance", [0.0, 1.5, 30.0])
def test_muon_light_forms_a_ring(grid, tables, distance):
    sample = one_shower(tel_x=distance, tel_z=15.0)
    q = np.array([0.004, -0.006])
    muon = MuonRows(*(np.array([value]) for value in (30.0, *(-15.0 * q), *q, 9000.0)))
    images = sample.images._replace(em_start=np.array([0, 0]), muon_start=np.array([0, 1]))
    sample = Sample(
        images, EmRows(*(v[:0] for v in sample.em)), muon, np.zeros(0, np.int64), np.zeros(1, int)
    )
    found = draw_array(sample, 4000, grid, tables)
    ring = muon_light(muon, muon.x, muon.y, images.tel_x, images.tel_y, images.tel_z, grid, OPTICS)
    assert 0.015 < ring.theta[0] < 0.025
    lon, lat = found.sky_lon - q[0], found.sky_lat - q[1]
    np.testing.assert_allclose(np.hypot(lon, lat), ring.theta[0], rtol=1e-12)
    # Light that comes from a direction flies the other way: the muon's side of the sky.
    angle = np.arctan2(-lat, -lon)[found.landed]
    if distance == 0:
        assert np.all(found.landed)
        assert abs(np.mean(np.cos(angle))) < 5 / math.sqrt(2 * len(angle))
    elif distance > MIRROR_RADIUS:
        assert np.max(np.abs(angle)) <= math.asin(MIRROR_RADIUS / distance) + 0.01
        # A disc fills pi / 4 of the square that the proposed light fills.
        assert abs(np.mean(found.landed) - math.pi / 4) < 0.05
    assert np.all(np.isfinite(found.time))


def test_compiles_once_for_batches_of_one_size(one_trace, grid, tables):
    batches = []
    for seed in (5, 6):
        sample = make_sample(seed=seed)
        photon, image = flat_photons(np.roll([30, 10, 40, 0, 10, 10], seed))
        per_step, age_index, age_fraction, per_muon = light_of(sample, grid, tables)
        batches.append(
            (photon, image, sample.images, sample.em, per_step, age_index, age_fraction,
             sample.muon, MuonLight(*per_muon), grid, tables, OPTICS)
        )  # fmt: skip
    one_trace(photo_electrons, *batches, atol=1e-6, key=KEY)
