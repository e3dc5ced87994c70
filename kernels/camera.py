"""From light in the focal plane to the counts of a SiPM camera with a peak detector.

A peak detector holds the highest value of the slow shaper within a gate around the trigger, signal
and noise together: the maximum of the noise where there is no light, little more than the noise at
the time of the peak where there is much (`camera_noise.peak_excess`). Coupling is DC unless the
noise tables say otherwise, so that night sky and dark counts lift all pixels by their mean.

The model is ours where ASTRI has not published its own, and a simple one. Left out: after-pulses,
saturation of the cells of a SiPM, the width in time of the light within one pixel (a pixel shines
at the mean time of its photo-electrons), where in the gate its peak lies (noise is added as to one
in the middle), and any change of the noise with time.
`loops/camera.py` is the same text for one photo-electron and one image at a time.
"""

from typing import NamedTuple

from jaxtyping import Float, Int, Integer

from ._types import Array, array_namespace
from .camera_noise import (
    NOISE_FAST,
    NOISE_MAXIMUM,
    byte_normal,
    noise_quantile,
    peak_excess,
    words_of_pixels,
)
from .random import normal_pair, uniform
from .simulation_types import CameraModel, CameraSettings, Images, OpticsModel, Stream
from .trigger import Trigger, topological_trigger

__all__ = ["PixelSums", "avalanches", "deposit", "find_pixel", "pulse_share", "respond"]

COUNT_MAX = 65535
HALF_UP = 0.5 + 1e-6
"""Added before rounding down: sums of weights may end in a half, and a sum that the order of its
terms has made a little too small is rounded up all the same."""


class PixelSums(NamedTuple):
    """Light that the pixels of a batch of images have collected."""

    count: Float[Array, "image pixel"]  # accepted photo-electrons
    amplitude: Float[Array, "image pixel"]  # avalanches
    moment: Float[Array, "image pixel"]  # avalanches x ns


def _nearest(xp, position, centre, cell_of, start, step):
    """Return the number of the nearest of sorted centres; see `CameraModel.column_of`."""
    cell = xp.floor((position - start) / step)
    last = cell_of.shape[0] - 1.0
    cell = xp.where(cell > 0.0, cell, xp.zeros_like(cell))
    cell = xp.where(cell < last, cell, xp.full_like(cell, last))
    k = xp.astype(xp.take(cell_of, xp.astype(cell, xp.int64)), xp.int64)
    top = xp.full_like(k, centre.shape[0] - 1)
    above = xp.where(k < top, k + 1, top)
    distance = xp.abs(xp.take(centre, k) - position)
    distance_above = xp.abs(xp.take(centre, above) - position)
    return xp.where(distance_above < distance, above, k)


def find_pixel(
    pix_x: Float[Array, " pe"], pix_y: Float[Array, " pe"], camera: CameraModel
) -> Int[Array, " pe"]:
    """Return the pixel that a point of the focal plane lies in, or -1 in gaps and outside.

    Parameters
    ----------
    pix_x, pix_y : (pe,), m, camera frame
    camera : see `simulation_types`
    """
    xp = array_namespace(pix_x, pix_y)
    start, step = camera.lookup_start, camera.lookup_step
    column = _nearest(xp, pix_x, camera.column_centre, camera.column_of, start, step)
    row = _nearest(xp, pix_y, camera.row_centre, camera.row_of, start, step)
    inside = (xp.abs(pix_x - xp.take(camera.column_centre, column)) <= camera.half_side) & (
        xp.abs(pix_y - xp.take(camera.row_centre, row)) <= camera.half_side
    )
    place = row * camera.pixel_of.shape[1] + column
    pixel = xp.astype(xp.take(xp.reshape(camera.pixel_of, (-1,)), place), xp.int64)
    return xp.where(inside, pixel, xp.full_like(pixel, -1))


def avalanches(word: Array, *, crosstalk: float) -> Array:
    """Return the number of avalanches of a photo-electron, as float64.

    Each avalanche starts another one with probability `crosstalk`, so that the number is geometric
    (Vinogradov et al. 2009, IEEE NSS, doi:10.1109/NSSMIC.2009.5402300), with mean 1 / (1 - p).
    """
    xp = array_namespace(word)
    u = uniform(word)
    if crosstalk == 0:
        return xp.ones_like(u)
    more = 1.0 + xp.floor(xp.log(u) / xp.log(xp.full_like(u, crosstalk)))
    return xp.where(u > crosstalk, xp.ones_like(u), more)


def _by_angle(xp, table, place):
    """Return a column of the optics at places in units of its step, linear between entries."""
    k = xp.astype(xp.floor(place), xp.int64)
    last = xp.full_like(k, table.shape[0] - 2)
    k = xp.where(k < last, k, last)
    f = place - xp.astype(k, xp.float64)
    f = xp.where(f < 1.0, f, xp.ones_like(f))
    lower = xp.take(table, k)
    return lower + f * (xp.take(table, k + 1) - lower)


def deposit(
    image_index: Integer[Array, " pe"],
    sky_lon: Float[Array, " pe"],
    sky_lat: Float[Array, " pe"],
    time: Float[Array, " pe"],
    weight: Float[Array, " pe"],
    words: tuple,
    tel: Integer[Array, " image"],
    optics: OpticsModel,
    camera: CameraModel,
    *,
    settings: CameraSettings,
    n_images: int,
) -> PixelSums:
    """Return the light in every pixel, from photo-electrons on their way to the mirror.

    A photo-electron is moved by the PSF, whose width depends on its angle from the optical axis,
    turned from the tangent plane to the angles of the telescope frame, to third order, and put
    into the pixel that it falls on, where it is accepted with the probability transmission times
    efficiency; then it makes its avalanches. What falls between pixels is lost.

    Parameters
    ----------
    image_index : (pe,) image that it belongs to, 0 to n_images - 1
    sky_lon, sky_lat : (pe,) where it comes from, in the tangent plane
    time : (pe,) ns
    weight : (pe,) photo-electrons that it stands for; 0 = padding
    words : four uint32 (pe,), its words of `Stream.ARRIVAL`
    tel : (image,) row of the telescope
    optics, camera, settings : see `simulation_types`
    n_images : number of images
    """
    xp = array_namespace(sky_lon, sky_lat, time, weight)
    n_pixels = camera.efficiency.shape[1]
    radius = xp.sqrt(sky_lon * sky_lon + sky_lat * sky_lat)
    place = radius * (1.0 - radius * radius / 3.0) / optics.angle_step_rad
    place = xp.where(place > 0.0, place, xp.zeros_like(place))
    sigma = _by_angle(xp, optics.psf_sigma_rad, place)
    d_lon, d_lat = normal_pair(words[0], words[1])
    q_lon = sky_lon + sigma * d_lon
    q_lat = sky_lat + sigma * d_lat
    fov_lon = q_lon * (1.0 - q_lon * q_lon / 3.0)
    fov_lat = q_lat * (1.0 - q_lon * q_lon / 2.0 - q_lat * q_lat / 3.0)
    focal = optics.focal_length_m
    pixel = find_pixel(focal * fov_lat, focal * fov_lon, camera)
    hit = (pixel >= 0) & (weight > 0.0)
    safe = xp.where(hit, pixel, xp.zeros_like(pixel))

    image_index = xp.astype(image_index, xp.int64)
    of_tel = xp.take(xp.astype(tel, xp.int64), image_index)
    efficiency = xp.take(xp.reshape(camera.efficiency, (-1,)), of_tel * n_pixels + safe)
    transmission = _by_angle(xp, optics.transmission, place)
    accepted = hit & (uniform(words[2]) < transmission * efficiency)
    charge = weight * avalanches(words[3], crosstalk=settings.crosstalk)

    n_slots = n_images * n_pixels
    slot = xp.where(accepted, image_index * n_pixels + safe, xp.full_like(safe, n_slots))
    order = xp.argsort(slot)
    edges = xp.arange(n_slots + 1, dtype=xp.int64)
    bounds = xp.searchsorted(xp.take(slot, order), edges)

    def collect(values):
        running = xp.cumulative_sum(xp.take(values, order), include_initial=True)
        total = xp.take(running, bounds[1:]) - xp.take(running, bounds[:-1])
        return xp.reshape(total, (n_images, n_pixels))

    return PixelSums(collect(weight), collect(charge), collect(charge * time))


def pulse_share(time: Array, start: Array, *, settings: CameraSettings) -> Array:
    """Return the share of a pulse of light that the peak detector sees.

    The slow shaper answers with f(x) = (x / tau)^2 exp(2 (1 - x / tau)) at the time x after the
    light (CR-RC^2). The gate is centred on the peak, at x = tau, of light that comes at `start`. If
    the peak lies within the gate, the share is 1, else it is f at the beginning or end of the gate.

    Parameters
    ----------
    time : of the light, ns
    start : moment of the trigger, ns, shape of `time`
    settings : `peaking_time_ns`, `gate_ns`
    """
    xp = array_namespace(time, start)
    tau = settings.peaking_time_ns
    opened = start + (tau - 0.5 * settings.gate_ns)
    closed = start + (tau + 0.5 * settings.gate_ns)
    peak = time + tau
    edge = xp.where(peak > closed, closed, opened)
    x = (edge - time) / tau
    safe = xp.where(x > 0.0, x, xp.zeros_like(x))
    share = safe * safe * xp.exp(2.0 * (1.0 - safe))
    return xp.where((opened <= peak) & (peak <= closed), xp.ones_like(share), share)


def _counts(xp, value, adc_max):
    """Return the nearest counts on the scale."""
    value = xp.where(value > 0.0, value, xp.zeros_like(value))
    value = xp.where(value < adc_max, value, xp.full_like(value, float(adc_max)))
    return xp.astype(value + HALF_UP, xp.uint16)


def respond(
    sums: PixelSums,
    shower: Integer[Array, " image"],
    image: Integer[Array, " image"],
    tel: Integer[Array, " image"],
    camera: CameraModel,
    *,
    settings: CameraSettings,
    key: tuple[int, int],
    forced: bool,
    dark: bool = False,
) -> Images:
    """Return what the camera makes of the light in its pixels: trigger, then counts.

    The peak detector is open for `gate_ns` around the peak of light that comes with the trigger. A
    pixel without light gives the maximum of the noise within the gate. One with light gives the
    maximum of noise and signal together, `peak_excess` beyond the signal S, which is the amplitude,
    with the spread of the gain over its avalanches, times the share of the pulse that the gate sees
    (`pulse_share`). Counts are baseline + gain x peak, the low gain with noise of its own, rounded
    and cut to the scale. Pixels with gain 0 are dead and read their baseline.

    Parameters
    ----------
    sums : light of the pixels
    shower, image : (image,) words of the counters (`Stream.SIGNAL`, `Stream.NOISE`)
    tel : (image,) row of the telescope
    camera, settings : see `simulation_types`
    key : of the random numbers
    forced : read out at time 0 whatever the light; no pixel counts as part of the trigger
    dark : the lid is closed: noise of the last row of `CameraModel.noise` in every pixel

    Returns
    -------
    images
        Counts and true images are 0 where there is no trigger.
    """
    xp = array_namespace(sums.count, shower, image)
    n_images, n_pixels = sums.count.shape
    tel = xp.astype(tel, xp.int64)
    node = xp.take(xp.astype(camera.noise_node, xp.int64), tel, axis=0)
    fraction = xp.take(camera.noise_fraction, tel, axis=0)
    if dark:
        node = xp.full_like(node, camera.noise.shape[0] - 1)
        fraction = xp.zeros_like(fraction)

    def noise(kind, word):
        return noise_quantile(
            camera.noise, node, fraction, word, kind=kind, step=settings.noise_step
        )

    lit = sums.count > 0.0
    safe = xp.where(lit, sums.amplitude, xp.ones_like(sums.amplitude))
    time = sums.moment / safe
    number = xp.arange(n_pixels, dtype=xp.int64)
    slow_word, fast_word, *spread_words = words_of_pixels(
        shower, Stream.SIGNAL, number, image, key=key
    )
    if forced:
        start = xp.zeros_like(sums.count[:, 0])
        trigger = Trigger(start == 0.0, start, xp.zeros_like(lit))
    else:
        trigger = topological_trigger(
            sums.amplitude, time, lit, noise(NOISE_FAST, fast_word), camera, settings=settings
        )
    triggered = trigger.triggered
    start = xp.where(triggered, trigger.time, xp.zeros_like(trigger.time))

    pair = xp.arange((n_pixels + 1) // 2, dtype=xp.int64)
    n0, n1, n2, n3 = words_of_pixels(shower, Stream.NOISE, pair, image, key=key)

    def alternate(even, odd):
        both = xp.reshape(xp.stack([even, odd], axis=-1), (n_images, 2 * even.shape[1]))
        return both[:, :n_pixels]

    spread, _ = normal_pair(*spread_words)
    share = pulse_share(time, xp.broadcast_to(start[:, None], time.shape), settings=settings)
    signal = share * (safe + settings.gain_spread * xp.sqrt(safe) * spread)
    signal = xp.where(signal > 0.0, signal, xp.zeros_like(signal))
    excess = peak_excess(camera.noise, node, fraction, signal, slow_word, step=settings.noise_step)
    peak = xp.where(lit, signal + excess, noise(NOISE_MAXIMUM, alternate(n0, n2)))
    gain, baseline = xp.take(camera.gain, tel, axis=0), xp.take(camera.baseline, tel, axis=0)
    low = settings.low_gain_noise_adu * byte_normal(alternate(n1, n3))
    low = xp.where(gain[:, 1, :] > 0.0, low, xp.zeros_like(low))
    adc = xp.stack(
        [
            _counts(xp, baseline[:, 0, :] + gain[:, 0, :] * peak, settings.adc_max),
            _counts(xp, baseline[:, 1, :] + gain[:, 1, :] * peak + low, settings.adc_max),
        ],
        axis=1,
    )
    true_image = _counts(xp, sums.count, COUNT_MAX)
    true_sum = xp.astype(xp.floor(xp.sum(sums.count, axis=1) + HALF_UP), xp.int64)
    return Images(
        triggered,
        xp.where(triggered[:, None, None], adc, xp.zeros_like(adc)),
        xp.where(triggered[:, None], true_image, xp.zeros_like(true_image)),
        true_sum,
        trigger.time,
        trigger.pixel,
    )
