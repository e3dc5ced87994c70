"""Camera, trigger and readout: both texts beside each other and beside slow references."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import erf

from astri_gpu.config_simulation import CameraConfig, OpticsConfig
from astri_gpu.instrument.astri import FOCAL_LENGTH_M, astri_camera
from astri_gpu.kernels.camera import PixelSums, deposit, find_pixel, respond
from astri_gpu.kernels.flash import flash
from astri_gpu.kernels.loops import camera as loops
from astri_gpu.kernels.random import key_of, philox
from astri_gpu.kernels.simulation_types import EFFICIENCY_HEADROOM, Stream
from astri_gpu.kernels.trigger import topological_trigger
from astri_gpu.simulation.camera_model import (
    camera_model,
    camera_settings,
    optics_model,
    true_constants,
)

KEY = key_of(20_260)
TEL_IDS = np.array([3, 7, 12])


@pytest.fixture(scope="module")
def telescope():
    """The ASTRI camera on three telescopes, with dead and noisy pixels."""
    camera, optics = CameraConfig(dead_fraction=0.02, noisy_fraction=0.02), OpticsConfig()
    description = astri_camera()
    return SimpleNamespace(
        geometry=description.geometry,
        camera=camera_model(camera, optics, description, TEL_IDS, 5),
        settings=camera_settings(camera),
        optics=optics_model(optics, FOCAL_LENGTH_M),
    )


def words_of(n, stream, seed=0):
    return philox(np.arange(n, dtype=np.uint32), int(stream) << 24, np.uint32(seed), 0, key=KEY)


def photo_electrons(n, n_images, rng):
    """Return image, directions, times and weights of compact showers, sorted by image."""
    image = np.sort(rng.integers(0, n_images, n))
    centre = rng.uniform(-0.07, 0.07, (n_images, 2))
    width = np.where(np.arange(n_images) % 2, 0.02, 0.004)[image]
    lon, lat = centre[image].T + width * rng.standard_normal((2, n))
    time = 2e3 * (lon - centre[image, 0]) + rng.normal(0, 3, n)
    weight = np.where(rng.random(n) < 0.02, 0.0, 1.0 + (image == n_images - 1) * 1.5)
    return image, lon, lat, time, weight


def loop_sums(light, words, tel, t, n_images):
    """Return the scratch of the loop text, a worker for each image."""
    scratch = loops.make_camera_scratch(n_images, t.geometry.n_pixels, np.zeros, np.zeros)
    image, *numbers = light
    for i in range(len(image)):
        loops.deposit(
            *(float(a[i]) for a in numbers), *(int(w[i]) for w in words), int(tel[image[i]]),
            t.optics, t.camera, t.settings, scratch, int(image[i]),
        )  # fmt: skip
    return scratch


def loop_images(sums, shower, image, tel, t, forced):
    """Return what the loop text makes of sums of light, as a tuple like `Images`."""
    n_images, n_pixels = sums.count.shape
    scratch = loops.make_camera_scratch(1, n_pixels, np.empty, np.zeros)
    adc = np.zeros((n_images, 2, n_pixels), np.uint16)
    true_image, trigger_pixel = np.zeros((2, n_images, n_pixels), np.uint16)
    trigger_pixel = trigger_pixel.astype(bool)
    found = []
    for i in range(n_images):
        lit = np.flatnonzero(sums.count[i])
        scratch.lit[0, : len(lit)] = lit
        scratch.n_lit[0, 0] = len(lit)
        for name in ("count", "amplitude", "moment"):
            getattr(scratch, name)[0] = getattr(sums, name)[i]
        found.append(
            loops.finish_image(
                int(shower[i]), int(image[i]), int(tel[i]), *KEY, forced, t.camera, t.settings,
                scratch, 0, adc[i], true_image[i], trigger_pixel[i],
            )
        )  # fmt: skip
    for name in ("count", "amplitude", "moment", "n_lit", "state"):
        assert not getattr(scratch, name).any(), name
    triggered, time, true_sum = (np.array(part) for part in zip(*found, strict=True))
    return triggered, adc, true_image, true_sum, time, trigger_pixel


def random_sums(t, n_images, rng, p_lit=0.05, scale=30.0):
    """Return light in blobs: counts, avalanches and times of pixels near each other alike."""
    x, y = t.geometry.pix_x, t.geometry.pix_y
    shape = (n_images, len(x))
    centre = rng.uniform(-0.12, 0.12, (2, n_images, 1))
    near = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 2 / 0.015**2)
    count = rng.poisson(scale * near * np.resize([0.02, 1, 30], (n_images, 1)) + p_lit)
    amplitude = count + rng.poisson(0.1 * count)
    time = 400 * (x - centre[0]) + rng.normal(0, 8, shape) + rng.uniform(-40, 120, (n_images, 1))
    return PixelSums(count.astype(float), amplitude.astype(float), amplitude * time)


def counters(n_images):
    shower = (np.arange(n_images) * 977 + 4_000_000_000).astype(np.uint32)
    tel = np.arange(n_images) % len(TEL_IDS)
    return shower, (tel + (np.arange(n_images) % 2 << 8)).astype(np.uint32), tel


def test_pixel_lookup(call, telescope):
    rng = np.random.default_rng(1)
    geometry, camera = telescope.geometry, telescope.camera
    x, y, half = geometry.pix_x, geometry.pix_y, camera.half_side
    assert half == pytest.approx(6.975e-3 / 2)
    own = np.arange(geometry.n_pixels)
    for dx, dy in ((0, 0), (0.9999, 0.9999), (-0.9999, 0.9999), (0.5, -0.9999)):
        np.testing.assert_array_equal(call(find_pixel, x + dx * half, y + dy * half, camera), own)
    # Half a gap further there is nothing: within a module 0.1 mm at least, 1.6 mm between modules.
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        step = half + 0.04e-3
        assert np.all(call(find_pixel, x + dx * step, y + dy * step, camera) == -1)
    x_try, y_try = rng.uniform(-0.25, 0.25, (2, 4000))
    x_try[:4], y_try[:4] = [1e3, -1e3, 0, 0], [0, 0, 1e3, -1e3]
    inside = (np.abs(x_try[:, None] - x) <= half) & (np.abs(y_try[:, None] - y) <= half)
    expected = np.where(inside.any(axis=1), inside.argmax(axis=1), -1)
    np.testing.assert_array_equal(call(find_pixel, x_try, y_try, camera), expected)
    looped = [loops.find_pixel(*place, camera) for place in zip(x_try, y_try, strict=True)]
    np.testing.assert_array_equal(looped, expected)


def test_deposit_is_the_same_in_both_texts(call, telescope, assert_same):
    rng = np.random.default_rng(2)
    n, n_images = 3000, 4
    light = photo_electrons(n, n_images, rng)
    words, tel = words_of(n, Stream.ARRIVAL), np.array([0, 2, 1, 0])
    t = telescope
    found = call(
        deposit, *light, words, tel, t.optics, t.camera, settings=t.settings, n_images=n_images
    )
    scratch = loop_sums(light, words, tel, t, n_images)
    expected = PixelSums(scratch.count, scratch.amplitude, scratch.moment)
    assert_same(found, expected, atol=1e-8)
    np.testing.assert_array_equal(found.count[:3], expected.count[:3])
    assert (found.count > 0).sum() == scratch.n_lit[:, 0].sum()
    lost = 1 - found.count[0].sum() / light[4][light[0] == 0].sum()
    assert 0.1 < lost < 0.3  # 1 / 1.1 in the headroom, 10 % of the area between pixels


def test_directions_and_point_spread(telescope):
    """Light without PSF falls where its direction says; with it, it is spread by sigma."""
    t = telescope
    n = 40_000
    lon, lat = np.full(n, 0.06), np.full(n, -0.05)
    image, weight = np.zeros(n, int), np.ones(n)
    words, tel = words_of(n, Stream.ARRIVAL, 3), np.array([0])
    alike = t.camera._replace(efficiency=np.full_like(t.camera.efficiency, 1 / EFFICIENCY_HEADROOM))
    x, y = t.geometry.pix_x, t.geometry.pix_y

    def image_of(optics):
        return deposit(
            image, lon, lat, np.zeros(n), weight, words, tel, optics, alike, settings=t.settings,
            n_images=1,
        )  # fmt: skip

    sharp = image_of(t.optics._replace(psf_sigma_rad=np.zeros_like(t.optics.psf_sigma_rad)))
    assert (sharp.count > 0).sum() == 1
    q = math.sqrt(1 + 0.06**2 + 0.05**2)
    true_lon, true_lat = math.atan(0.06), math.asin(-0.05 / q)
    pixel = int(np.argmax(sharp.count[0]))
    assert abs(x[pixel] - FOCAL_LENGTH_M * true_lat) < alike.half_side + 1e-5
    assert abs(y[pixel] - FOCAL_LENGTH_M * true_lon) < alike.half_side + 1e-5
    # Accepted: transmission at the angle from the axis, and 1 / headroom.
    angle = math.degrees(math.acos(1 / q))
    expected = (1 - 0.15 * (angle / 5) ** 2) / EFFICIENCY_HEADROOM
    error = math.sqrt(expected * (1 - expected) / n)
    assert sharp.count.sum() / n == pytest.approx(expected, abs=4 * error + 1e-3)

    blurred = image_of(t.optics).count[0]
    sigma = math.radians(0.065 + 0.010 * (angle / 5) ** 2) * FOCAL_LENGTH_M
    share = 1.0
    for position, centre in ((x, true_lat), (y, true_lon)):
        edges = [position + side * alike.half_side - FOCAL_LENGTH_M * centre for side in (-1, 1)]
        below, above = (erf(edge / sigma / math.sqrt(2)) for edge in edges)
        share = share * (above - below) / 2
    mean = n * expected * share
    # Poisson errors, and 0.5 % for the angles, which turn and shrink by third-order terms.
    assert np.all(np.abs(blurred - mean) < 4.5 * np.sqrt(mean + 1) + 5e-3 * mean.max())
    assert (mean > 50).sum() >= 4


def reference_trigger(fired, time, neighbours, n_needed, coincidence):
    """Return the trigger of one image by walking from pixel to pixel."""
    start, members, seen = math.inf, np.zeros(len(fired), bool), set()
    for first in np.flatnonzero(fired):
        if first in seen:
            continue
        group, waiting = {first}, [first]
        while waiting:
            pixel = waiting.pop()
            for other in neighbours[pixel]:
                if (
                    other >= 0
                    and fired[other]
                    and other not in group
                    and abs(time[other] - time[pixel]) <= coincidence
                ):
                    group.add(other)
                    waiting.append(other)
        seen |= group
        if len(group) >= n_needed:
            members[list(group)] = True
            start = min(start, sorted(time[list(group)])[n_needed - 1])
    return start < math.inf, start, members


@pytest.mark.parametrize("trigger_pixels", [1, 5, 20])
def test_trigger(call, telescope, trigger_pixels):
    t = telescope
    rng = np.random.default_rng(trigger_pixels)
    settings = t.settings._replace(trigger_pixels=trigger_pixels, coincidence_ns=12.0)
    n_images, n_pixels = 8, t.geometry.n_pixels
    # From a few pixels to nearly all of them: long snakes are near the percolation threshold.
    share = np.array([0, 0.01, 0.2, 0.5, 0.6, 0.65, 0.8, 1.0])[:, None]
    fired = rng.random((n_images, n_pixels)) < share
    lit = fired | (rng.random(fired.shape) < 0.1)
    amplitude, time = np.where(fired, 30.0, 1.0), rng.normal(0, 5, fired.shape)
    time[:, ::7] = 1.0  # equal times
    found = call(
        topological_trigger, amplitude, time, lit, np.zeros(fired.shape), t.camera,
        settings=settings,
    )  # fmt: skip
    silent = t.camera._replace(noise=np.zeros_like(t.camera.noise))
    sums = PixelSums(lit.astype(float), amplitude, np.where(lit, amplitude * time, 0))
    quiet = SimpleNamespace(camera=silent, settings=settings)
    triggered, _, _, _, start, member = loop_images(sums, *counters(n_images), quiet, False)
    time = sums.moment / amplitude
    for i in range(n_images):
        expected = reference_trigger(
            fired[i], time[i], t.camera.trigger_neighbours, trigger_pixels, 12.0
        )
        for text in ((found.triggered[i], found.time[i], found.pixel[i]),
                     (triggered[i], start[i], member[i])):  # fmt: skip
            assert text[0] == expected[0]
            np.testing.assert_array_equal(text[2], expected[2])
            if expected[0]:
                assert text[1] == pytest.approx(expected[1], rel=1e-12)
            else:
                assert math.isnan(text[1])
    assert not triggered[0]
    assert triggered[-1]


def test_trigger_stays_within_modules(telescope):
    """Five pixels in a row fire within a module, and not across the gap of two modules."""
    t = telescope
    row = np.flatnonzero(np.abs(t.geometry.pix_y - t.geometry.pix_y[64 * 18 + 8]) < 1e-4)
    row = row[np.argsort(t.geometry.pix_x[row])]
    assert len(row) == 56
    for start in range(52):
        amplitude = np.zeros((1, t.geometry.n_pixels))
        amplitude[0, row[start : start + 5]] = 9.0
        zero = np.zeros_like(amplitude)
        found = topological_trigger(
            amplitude, zero, amplitude > 0, zero, t.camera, settings=t.settings
        )
        assert found.triggered[0] == (start % 8 < 4)


def test_response_is_the_same_in_both_texts(call, telescope):
    t = telescope
    n_images = 9
    sums = random_sums(t, n_images, np.random.default_rng(6))
    numbers = counters(n_images)
    for forced in (False, True):
        found = call(respond, sums, *numbers, t.camera, settings=t.settings, key=KEY, forced=forced)
        expected = loop_images(sums, *numbers, t, forced)
        for name, left, right in zip(found._fields, found, expected, strict=True):
            if name == "trigger_time":
                np.testing.assert_allclose(left, right, rtol=1e-12, equal_nan=True)
            else:
                np.testing.assert_array_equal(left, right, err_msg=name)
        assert found.adc.dtype == found.true_image.dtype == np.uint16
        if not forced:
            assert 0 < found.triggered.sum() < n_images
            assert not found.adc[~found.triggered].any()
        else:
            assert found.triggered.all()
            assert not found.trigger_pixel.any()


@pytest.mark.parametrize("dark", [False, True])
def test_flashes_are_the_same_in_both_texts(call, telescope, dark):
    t = telescope
    n_images, n_pixels = 3, t.geometry.n_pixels
    shower, image, tel = counters(n_images)
    mean = np.array([0.0, 3.0, 80.0])[:, None] * np.ones(n_pixels)
    sums = call(flash, mean, shower, image, tel, t.camera, settings=t.settings, key=KEY)
    found = call(
        respond, sums, shower, image, tel, t.camera, settings=t.settings, key=KEY, forced=True,
        dark=dark,
    )  # fmt: skip
    scratch = loops.make_camera_scratch(2, n_pixels, np.empty, np.zeros)
    for i in range(n_images):
        adc, true_image = np.zeros((2, n_pixels), np.uint16), np.zeros(n_pixels, np.uint16)
        trigger_pixel = np.ones(n_pixels, bool)
        triggered, time, true_sum = loops.flash_image(
            int(shower[i]), int(image[i]), int(tel[i]), *KEY, mean[i], dark, t.camera, t.settings,
            scratch, 1, adc, true_image, trigger_pixel,
        )  # fmt: skip
        assert (triggered, time) == (True, 0.0)
        assert not trigger_pixel.any()
        assert true_sum == found.true_sum[i]
        np.testing.assert_array_equal(true_image, found.true_image[i])
        np.testing.assert_array_equal(adc, found.adc[i])
    dead = t.camera.efficiency[tel] == 0
    assert dead.any()
    assert not found.true_image[dead].any()
    baseline = t.camera.baseline[tel].transpose(0, 2, 1)[dead]
    np.testing.assert_array_equal(found.adc.transpose(0, 2, 1)[dead], baseline)
    # The first flash has no light: pixels read their pedestals, which are darker under the lid.
    constants = true_constants(t.camera, t.settings, dark=dark)
    for gain in range(2):
        error = 5 * math.sqrt(np.sum(constants.pedestal_std[tel[0], gain] ** 2)) / n_pixels
        expected = constants.pedestal[tel[0], gain].mean()
        assert found.adc[0, gain].mean() == pytest.approx(expected, abs=error)


def test_halves_are_rounded_up_in_both_texts(telescope):
    """Weighted photo-electrons whose sum, in one order of its terms, is just below a half."""
    t = telescope
    count = np.zeros((1, t.geometry.n_pixels))
    count[0, :3] = 10.5 - 1e-9, 11.5, 0.5
    sums = PixelSums(count, count, 0 * count)
    found = respond(sums, *counters(1), t.camera, settings=t.settings, key=KEY, forced=True)
    _, _, true_image, true_sum, _, _ = loop_images(sums, *counters(1), t, True)
    for image, total in ((found.true_image, found.true_sum), (true_image, true_sum)):
        assert image[0, :4].tolist() == [11, 12, 1, 0]
        assert total.tolist() == [23]


def test_images_do_not_depend_on_their_batch(telescope):
    t = telescope
    n, n_images = 4000, 5
    rng = np.random.default_rng(9)
    light = photo_electrons(n, n_images, rng)
    words = words_of(n, Stream.ARRIVAL, 9)
    numbers = counters(n_images)

    def run(pick):
        here = np.isin(light[0], pick)
        index = np.searchsorted(pick, light[0][here])
        shower, image, tel = (a[pick] for a in numbers)
        sums = deposit(
            index, *(a[here] for a in light[1:]), tuple(w[here] for w in words), tel, t.optics,
            t.camera, settings=t.settings, n_images=len(pick),
        )  # fmt: skip
        return respond(
            sums, shower, image, tel, t.camera, settings=t.settings, key=KEY, forced=False
        )

    together, alone = run(np.arange(n_images)), [run(np.array([i])) for i in range(n_images)]
    assert together.triggered.any()
    for i, image in enumerate(alone):
        np.testing.assert_array_equal(image.adc[0], together.adc[i])
        np.testing.assert_array_equal(image.trigger_pixel[0], together.trigger_pixel[i])


def test_one_trace(one_trace, telescope):
    t = telescope
    batches = []
    for seed in (1, 2):
        light = photo_electrons(500, 2, np.random.default_rng(seed))
        words = words_of(500, Stream.ARRIVAL, seed)
        batches.append((*light, words, np.array([0, 1]), t.optics, t.camera))
    one_trace(deposit, *batches, settings=t.settings, n_images=2, atol=1e-8)
