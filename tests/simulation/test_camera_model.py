"""Models of camera and optics: constants, what pixels read with them, bad options."""

import math

import numpy as np
import pytest

from astri_gpu.config_simulation import CameraConfig, OpticsConfig
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument.astri import FOCAL_LENGTH_M, astri_camera
from astri_gpu.instrument.camera import CameraDescription, CameraGeometry
from astri_gpu.kernels.camera import respond
from astri_gpu.kernels.camera_noise import peak_excess
from astri_gpu.kernels.flash import flash
from astri_gpu.kernels.random import key_of
from astri_gpu.kernels.simulation_types import EFFICIENCY_HEADROOM
from astri_gpu.simulation.camera_model import (
    camera_model,
    camera_settings,
    optics_model,
    true_constants,
)
from astri_gpu.simulation.electronics import QUANTILE_STEP

TEL_IDS = np.arange(1, 10)


def model_of(**options):
    return camera_model(CameraConfig(**options), OpticsConfig(), astri_camera(), TEL_IDS, 1)


def expected_excess(model, signal):
    """Return the mean of what pixels read beyond a signal, (tel, pixel), avalanches."""
    words = np.arange(2**10, dtype=np.uint32)[:, None] * 2**22 + 2**21
    rows = []
    for node, fraction in zip(model.noise_node, model.noise_fraction, strict=True):
        shape = (len(words), len(node))
        readings = peak_excess(
            model.noise, np.broadcast_to(node, shape), fraction, np.full(shape, float(signal)),
            np.broadcast_to(words, shape), step=QUANTILE_STEP,
        )  # fmt: skip
        rows.append(readings.mean(axis=0))
    return np.stack(rows)


def read_flashes(model, settings, mean_pe, n, seed, dark=False):
    """Return the counts of n flashes seen by the first telescope."""
    shower, image, tel = np.arange(n, dtype=np.uint32), np.zeros(n, np.uint32), np.zeros(n, int)
    level = np.full((n, model.module.shape[0]), float(mean_pe))
    sums = flash(level, shower, image, tel, model, settings=settings, key=key_of(seed))
    return respond(
        sums, shower, image, tel, model, settings=settings, key=key_of(seed), forced=True, dark=dark
    ).adc.astype(float)


def check_pedestals(adc, constants, gain):
    n, _, n_pixels = adc.shape
    valid = constants.pixel_valid[0, gain] & (constants.pedestal_std[0, gain] > 0)
    mean, std = constants.pedestal[0, gain], constants.pedestal_std[0, gain]
    pull = ((adc[:, gain].mean(axis=0) - mean) * math.sqrt(n))[valid] / std[valid]
    assert pull.mean() == pytest.approx(0, abs=4 / math.sqrt(n_pixels))
    assert pull.std() == pytest.approx(1, abs=4 / math.sqrt(2 * n_pixels))
    spread = adc[:, gain].std(axis=0, ddof=1)[valid] / std[valid]
    assert spread.mean() == pytest.approx(1, abs=0.02)


def test_signal_free_pixels_are_of_the_size_of_the_real_ones():
    """The prod3 file has +2.8 p.e. and 1.67 p.e. rms, of other and unpublished electronics.

    With our night sky and DC coupling the mean level alone, 47 MHz of photo-electrons of 1.11
    avalanches, 69 ns wide, is 3.62; the gate adds 0.74.
    """
    model = model_of()
    constants = true_constants(model, camera_settings(CameraConfig()))
    bias = (constants.pedestal - constants.baseline).mean(axis=(0, 2)) / [62.5, 1.5625]
    assert bias == pytest.approx([3.62 + 0.74] * 2, abs=0.03)
    rms = constants.pedestal_std.mean(axis=(0, 2)) / [62.5, 1.5625]
    assert rms == pytest.approx([1.67, 1.67], rel=0.2)
    # AC coupling leaves what the gate adds.
    coupled = true_constants(model_of(ac_coupling=True), camera_settings(CameraConfig()))
    bias = (coupled.pedestal - coupled.baseline).mean(axis=(0, 2)) / [62.5, 1.5625]
    assert bias == pytest.approx([0.74] * 2, abs=0.02)
    np.testing.assert_allclose(coupled.pedestal_std, constants.pedestal_std, rtol=1e-9)


def test_pedestals_and_flat_fields_give_back_the_constants():
    """Forced triggers on the sky have the true pedestals; flashes give p.e. of a mean pixel."""
    config = CameraConfig(dead_fraction=0.01, noisy_fraction=0.01)
    settings = camera_settings(config)
    model = camera_model(config, OpticsConfig(), astri_camera(), TEL_IDS[:1], 8)
    n, n_pixels = 300, model.module.shape[0]
    for dark in (True, False):
        constants = true_constants(model, settings, dark=dark)
        adc = read_flashes(model, settings, 0.0, n, 4, dark)
        for gain in range(2):
            check_pedestals(adc, constants, gain)
            dead = ~constants.pixel_valid[0, gain]
            np.testing.assert_array_equal(adc[:, gain, dead], config.baseline_adu[gain])
    adc = read_flashes(model, settings, 200.0, n, 5)[:, 1]
    valid = constants.pixel_valid[0, 1]
    factor = constants.dc_to_pe[0, 1]
    # Beyond the light is what the peak detector reads there: the mean level, and 0.005.
    excess = expected_excess(model, 200 / 0.9)[0]
    light = adc - constants.baseline[0, 1] - constants.gain[0, 1] * excess
    pe = (light * factor).mean(axis=0)[valid]
    assert pe.mean() == pytest.approx(200, rel=4 * math.sqrt(1.4 / 200 / n / n_pixels) + 1e-4)
    assert pe.std() == pytest.approx(math.sqrt(200 * 1.12 / n), rel=0.1)
    # Less the pedestal, bright pixels are too low by the 0.74 avalanches that the gate adds.
    quiet = valid & (constants.noise_rate_mhz[0] < 100)
    short = ((adc - constants.pedestal[0, 1]) * factor).mean(axis=0)[quiet] - 200
    error = math.sqrt(200 * 1.12 / n / quiet.sum())
    assert short.mean() == pytest.approx(-0.9 * (0.74 - 0.005), abs=4 * error + 0.01)


def test_pedestals_at_the_end_of_the_scale():
    """The mean level of a bright sky: half of the noise, or all of it, is beyond the high gain."""
    for sky, stuck in ((600.0, False), (1200.0, True)):
        config = CameraConfig(night_sky_mhz=sky)
        settings = camera_settings(config)
        model = camera_model(config, OpticsConfig(), astri_camera(), TEL_IDS[:1], 8)
        constants = true_constants(model, settings)
        adc = read_flashes(model, settings, 0.0, 100, 6)
        check_pedestals(adc, constants, 1)
        if stuck:
            assert np.median(constants.pedestal[0, 0]) == pytest.approx(4095, abs=1e-6)
            assert constants.pedestal.max() <= 4095 * (1 + 1e-12)
        else:
            assert (adc[:, 0] == 4095).mean() > 0.2
            check_pedestals(adc, constants, 0)


def test_constants_of_cameras():
    model = model_of(dead_fraction=0.1, noisy_fraction=0.05, gain_dispersion=0.05)
    constants = true_constants(model, camera_settings(CameraConfig()))
    alive = constants.pixel_valid[:, 0]
    n = alive.size
    assert alive.mean() == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / n))
    np.testing.assert_array_equal(constants.pixel_valid[:, 1], alive)
    for k, mean in enumerate((62.5, 1.5625)):
        gain = constants.gain[:, k][alive]
        assert gain.mean() == pytest.approx(mean, rel=4 * 0.05 / math.sqrt(n))
        assert gain.std() / mean == pytest.approx(0.05, rel=0.03)
    relative = constants.relative_efficiency
    assert relative[alive].mean() == pytest.approx(1, abs=1e-3)
    assert relative[alive].std() == pytest.approx(0.03, rel=0.03)
    assert relative.max() <= EFFICIENCY_HEADROOM
    assert model.efficiency.max() <= 1
    sky = constants.noise_rate_mhz - 2
    noisy = sky > 200
    assert noisy.mean() == pytest.approx(0.9 * 0.05, abs=4 * math.sqrt(0.05 / n))
    np.testing.assert_allclose(sky[alive & ~noisy], 45 * relative[alive & ~noisy], rtol=1e-9)
    np.testing.assert_allclose(sky[noisy], 450 * relative[noisy], rtol=1e-9)
    assert not constants.dc_to_pe[:, 0][~alive].any()
    assert np.isfinite(constants.dc_to_pe).all()


def test_constants_belong_to_telescopes_and_seeds():
    def draw(tel_ids, seed):
        description = astri_camera()
        return camera_model(CameraConfig(), OpticsConfig(), description, np.array(tel_ids), seed)

    together, alone = draw([4, 9, 2], 1), draw([9], 1)
    for name in ("gain", "efficiency", "noise_node", "noise_fraction"):
        np.testing.assert_array_equal(getattr(together, name)[1], getattr(alone, name)[0])
    assert not np.array_equal(alone.gain, draw([9], 2).gain)
    assert not np.array_equal(together.gain[0], together.gain[1])


def test_optics_model():
    optics = optics_model(OpticsConfig(), FOCAL_LENGTH_M)
    at = {angle: round(math.radians(angle) / optics.angle_step_rad) for angle in (0, 5)}
    assert np.degrees(optics.psf_sigma_rad[[at[0], at[5]]]) == pytest.approx([0.065, 0.075])
    assert optics.transmission[[at[0], at[5]]] == pytest.approx([1, 0.85])
    assert optics.focal_length_m == FOCAL_LENGTH_M
    steep = optics_model(OpticsConfig(edge_transmission=0.1), FOCAL_LENGTH_M)
    assert steep.transmission.min() == 0


@pytest.mark.parametrize("name", ["gain_adu", "baseline_adu", "noise_adu"])
@pytest.mark.parametrize("values", [[1.0], [1.0, -1.0], [1.0, math.nan]])
def test_lists_have_two_numbers(name, values):
    config = CameraConfig(**{name: values})
    with pytest.raises(UsageError, match=f"camera.{name}=.*two numbers"):
        camera_model(config, OpticsConfig(), astri_camera(), TEL_IDS, 1)


def changed(**change):
    """Return the ASTRI camera with other pixels."""
    old = astri_camera()
    fields = {
        name: getattr(old.geometry, name)
        for name in ("pix_x", "pix_y", "pix_area", "shape", "module")
    } | change
    geometry = CameraGeometry.from_pixels("odd", **fields)
    return CameraDescription(geometry, old.readout, old.optics)


def test_cameras_that_cannot_be_simulated():
    geometry = astri_camera().geometry
    shaken = geometry.pix_x + 1e-3 * np.sin(np.arange(2368))
    cases = [
        ("shape 'hexagon'", changed(shape="hexagon")),
        ("do not lie in columns and rows", changed(pix_x=shaken)),
        ("modules of 64 consecutive pixels", changed(module=np.roll(geometry.module, 1))),
        ("modules of 64 consecutive pixels", changed(module=geometry.module // 2)),
    ]
    for text, description in cases:
        with pytest.raises(AstriError, match=f"odd.*{text}"):
            camera_model(CameraConfig(), OpticsConfig(), description, TEL_IDS, 1)
