"""Calibration events before the showers: pedestals, flat-field flashes, dark counts, variances.

They come at 100 Hz, all telescopes in each event, and end where the showers begin. Their random
numbers are named by the number of the event, which goes on from `first_shower`, and a use that no
shower has, so that parts of a production have calibration events of their own.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_simulation import SimulateConfig
from astri_gpu.kernels.camera_noise import NOISE_SLOW
from astri_gpu.kernels.random import key_of, normal_pair, philox
from astri_gpu.kernels.simulation_types import CameraModel, Images, Stream
from astri_gpu.simulation.electronics import noise_moments
from astri_gpu.simulation.engine import ShowerEngine, Simulator
from astri_gpu.simulation.plan import ProductionPlan
from astri_gpu.simulation.writer import NS, EventBlock, ProductionWriter

__all__ = [
    "DARK_PEDESTAL",
    "FLATFIELD",
    "SKY_PEDESTAL",
    "VARIANCE_SAMPLES",
    "calibration_blocks",
    "calibration_images",
    "drawn_variances",
    "variance_images",
]

FLATFIELD, DARK_PEDESTAL, SKY_PEDESTAL = 0, 3, 5
"""CTAO event types (ctapipe 0.28): light flashes, lid closed, lid open."""
CALIBRATION_USE = 1 << 20
"""Added to the event type it makes a number of uses that no shower reaches."""
VARIANCE_USE = CALIBRATION_USE + 255

RATE_HZ = 100.0
IMAGES_PER_BLOCK = 2048
VARIANCE_SAMPLES = 10_000
VARIANCE_EVERY_S = 1
HIGH_GAIN = 0


def calibration_blocks(
    config: SimulateConfig, plan: ProductionPlan, tools: Simulator, start_s: int
) -> Iterator[EventBlock]:
    """Yield the calibration events in the order of their time.

    Pixels see a flash by their own efficiency; the flashes go through the levels of
    `flatfield_pe` one after the other.

    Parameters
    ----------
    config
        Its section `calibration_events` says how many.
    plan, tools
        Array and simulator.
    start_s
        Unix time at which the showers begin.
    """
    wanted = config.calibration_events
    kinds = (
        (SKY_PEDESTAL, wanted.n_pedestal),
        (FLATFIELD, wanted.n_flatfield),
        (DARK_PEDESTAL, wanted.n_dark),
    )
    n_events = sum(number for _, number in kinds)
    n_before = 0
    levels = np.asarray(wanted.flatfield_pe, dtype=np.float64)
    per_block = max(1, IMAGES_PER_BLOCK // plan.layout.n_telescopes)
    for kind, number in kinds:
        for start in range(0, number, per_block):
            event = np.arange(start, min(start + per_block, number))
            light = np.zeros(len(event))
            if kind == FLATFIELD:
                light = levels[event % len(levels)]
            before_ns = ((n_events - (n_before + event)) * (NS / RATE_HZ)).astype(np.int64)
            numbers = config.first_shower + n_before + event
            yield _block(plan, tools, kind, numbers, light, start_s * NS - before_ns)
        n_before += number


def _block(
    plan: ProductionPlan,
    tools: Simulator,
    kind: int,
    number: NDArray[np.int64],
    light: NDArray[np.float64],
    time_ns: NDArray[np.int64],
) -> EventBlock:
    """Return events of one kind with the images of all telescopes."""
    n_events, n_tel = len(number), plan.layout.n_telescopes
    event, tel = (index.ravel() for index in np.indices((n_events, n_tel)))
    n_pixels = tools.camera.efficiency.shape[1]
    images = calibration_images(tools.engine, n_pixels, kind, number[event], tel, light[event])
    return EventBlock(
        event_id=-(number + 1),
        unix_ns=time_ns,
        event_type=np.full(n_events, kind, dtype=np.uint8),
        truth={},
        image_event=event,
        image_tel=tel,
        impact_distance=np.full(len(event), np.nan),
        images=images,
    )


def calibration_images(
    engine: ShowerEngine,
    n_pixels: int,
    kind: int,
    number: NDArray[np.integer],
    tel: NDArray[np.int64],
    light: NDArray[np.float64],
) -> Images:
    """Return calibration images, (image,).

    Parameters
    ----------
    engine
        Of the cameras.
    n_pixels
        Of a camera.
    kind
        FLATFIELD, DARK_PEDESTAL or SKY_PEDESTAL.
    number
        (image,), words that name the random numbers; no two of a telescope and kind are the same.
    tel
        (image,), row of the telescope.
    light
        (image,), mean photo-electrons of a pixel.
    """
    counters = np.stack([number, (CALIBRATION_USE + kind) << 8 | tel], axis=1)
    return engine.images_of_pixels(
        counters.astype(np.uint32),
        tel,
        np.repeat(light[:, None], n_pixels, axis=1),
        dark=kind == DARK_PEDESTAL,
    )


def drawn_variances(camera: CameraModel, number: int, seed: int) -> NDArray[np.float64]:
    """Return the variance image of every telescope, (tel, pixel), squared ADC counts.

    A camera of this kind adds up the counts and their squares at times that nothing triggers
    (Segreto et al. 2019, arXiv:1909.08750). Here the variance of 10 000 independent samples is
    drawn from the normal distribution that it tends to: expectation s^2 (gain times the slow
    signal, and the rounding to whole counts), variance 2 s^4 / (n - 1), as for a normal signal.

    Parameters
    ----------
    camera
        Of all telescopes.
    number, seed
        Name the random numbers.
    """
    _, signal = noise_moments(camera.noise, NOISE_SLOW, camera.noise_node, camera.noise_fraction)
    gain = camera.gain[:, HIGH_GAIN]
    expected = gain**2 * signal + 1 / 12
    spread = expected * np.sqrt(2 / (VARIANCE_SAMPLES - 1))
    n_tel, n_pixels = gain.shape
    words = philox(
        np.full((1, 1), number, dtype=np.uint32),
        Stream.NOISE << 24,
        np.arange(n_pixels, dtype=np.uint32)[None, :],
        (VARIANCE_USE << 8 | np.arange(n_tel)[:, None]).astype(np.uint32),
        key=key_of(seed),
    )
    z, _ = normal_pair(words[0], words[1])
    return np.maximum(expected + spread * z, 0.0)


def variance_images(
    config: SimulateConfig,
    plan: ProductionPlan,
    tools: Simulator,
    writer: ProductionWriter,
    start_s: int,
) -> None:
    """Write variance images of every telescope, one a second, the last one at `start_s`."""
    n_images = config.calibration_events.n_variance
    for image in range(n_images):
        variance = drawn_variances(tools.camera, config.first_shower + image, plan.settings.seed)
        time_s = start_s - (n_images - 1 - image) * VARIANCE_EVERY_S
        writer.variance(time_s, variance, VARIANCE_SAMPLES)
