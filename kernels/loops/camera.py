"""Loop text of `kernels/camera.py` and `kernels/flash.py`: one photo-electron, then one image.

A worker collects the light of one image in its part of the scratch arrays. `deposit` adds to it;
`finish_image` reads it out and leaves the scratch empty for the next image.
"""

import math
from typing import NamedTuple

import numpy as np

from .._types import Array
from ..camera import COUNT_MAX, HALF_UP
from ..camera_noise import NOISE_MAXIMUM
from ..flash import SEARCH_BELOW, SEARCH_STEPS
from ..simulation_types import EFFICIENCY_HEADROOM, Stream
from ._compile import compiled
from .camera_noise import byte_normal, noise_quantile, peak_excess
from .random import normal_pair, philox, poisson, uniform
from .trigger import MAX_TRIGGER_PIXELS, find_trigger

__all__ = [
    "CameraScratch",
    "accepted_pixel",
    "avalanches",
    "deposit",
    "find_pixel",
    "finish_image",
    "flash_image",
    "flash_pixel",
    "make_camera_scratch",
    "negative_binomial",
    "read_pair",
]

_LIGHT = np.uint64(Stream.LIGHT << 24)
_NOISE = np.uint64(Stream.NOISE << 24)
_SIGNAL = np.uint64(Stream.SIGNAL << 24)
_APART = 16  # counters of two workers do not share a cache line


class CameraScratch(NamedTuple):
    """Work space of the camera, one row for each worker; all zero between images."""

    count: Array  # (worker, pixel) float64, accepted photo-electrons
    amplitude: Array  # (worker, pixel) float64, avalanches
    moment: Array  # (worker, pixel) float64, avalanches x ns
    lit: Array  # (worker, pixel) int32, pixels with light in order of arrival
    n_lit: Array  # (worker, 16) int64, the first is used
    state: Array  # (worker, pixel) int8, marks of the trigger
    fired: Array  # (worker, pixel) int32
    group: Array  # (worker, pixel) int32
    earliest: Array  # (worker, trigger pixels) float64


def make_camera_scratch(n_workers: int, n_pixels: int, empty, zeros) -> CameraScratch:
    """Return the work space of a launch.

    Parameters
    ----------
    n_workers, n_pixels : sizes
    empty, zeros : functions of a shape and a `dtype` that make arrays (`numpy.empty`, ...)
    """
    shape = (n_workers, n_pixels)
    return CameraScratch(
        count=zeros(shape, dtype=np.float64),
        amplitude=zeros(shape, dtype=np.float64),
        moment=zeros(shape, dtype=np.float64),
        lit=empty(shape, dtype=np.int32),
        n_lit=zeros((n_workers, _APART), dtype=np.int64),
        state=zeros(shape, dtype=np.int8),
        fired=empty(shape, dtype=np.int32),
        group=empty(shape, dtype=np.int32),
        earliest=empty((n_workers, MAX_TRIGGER_PIXELS), dtype=np.float64),
    )


@compiled
def _nearest(position, centre, cell_of, start, step):
    """Return the number of the nearest of sorted centres."""
    cell = math.floor((position - start) / step)
    cell = int(min(max(cell, 0.0), cell_of.shape[0] - 1.0))
    k = int(cell_of[cell])
    above = min(k + 1, centre.shape[0] - 1)
    if abs(centre[above] - position) < abs(centre[k] - position):
        k = above
    return k


@compiled
def find_pixel(pix_x, pix_y, camera):
    """Return the pixel that a point of the focal plane (m) lies in, or -1."""
    column = _nearest(
        pix_x, camera.column_centre, camera.column_of, camera.lookup_start, camera.lookup_step
    )
    row = _nearest(pix_y, camera.row_centre, camera.row_of, camera.lookup_start, camera.lookup_step)
    if (
        abs(pix_x - camera.column_centre[column]) <= camera.half_side
        and abs(pix_y - camera.row_centre[row]) <= camera.half_side
    ):
        return int(camera.pixel_of[row, column])
    return -1


@compiled
def avalanches(word, crosstalk):
    """Return the number of avalanches of a photo-electron, as a float."""
    u = uniform(word)
    if u > crosstalk:
        return 1.0
    return 1.0 + math.floor(math.log(u) / math.log(crosstalk))


@compiled
def _by_angle(table, place):
    """Return a column of the optics at a place in units of its step, linear between entries."""
    k = min(int(place), table.shape[0] - 2)
    f = min(place - k, 1.0)
    return table[k] + f * (table[k + 1] - table[k])


@compiled
def accepted_pixel(sky_lon, sky_lat, w0, w1, w2, tel, optics, camera):
    """Return the pixel that a photo-electron is accepted in, or -1; arguments as in `deposit`."""
    radius = math.sqrt(sky_lon * sky_lon + sky_lat * sky_lat)
    place = radius * (1.0 - radius * radius / 3.0) / optics.angle_step_rad
    place = max(place, 0.0)
    sigma = _by_angle(optics.psf_sigma_rad, place)
    d_lon, d_lat = normal_pair(w0, w1)
    q_lon = sky_lon + sigma * d_lon
    q_lat = sky_lat + sigma * d_lat
    fov_lon = q_lon * (1.0 - q_lon * q_lon / 3.0)
    fov_lat = q_lat * (1.0 - q_lon * q_lon / 2.0 - q_lat * q_lat / 3.0)
    pixel = find_pixel(optics.focal_length_m * fov_lat, optics.focal_length_m * fov_lon, camera)
    if pixel < 0:
        return -1
    transmission = _by_angle(optics.transmission, place)
    if not uniform(w2) < transmission * camera.efficiency[tel, pixel]:
        return -1
    return pixel


@compiled
def deposit(
    sky_lon, sky_lat, time, weight, w0, w1, w2, w3, tel, optics, camera, settings, scratch, w
):
    """Let one photo-electron through optics and camera; return its pixel, or -1 if it is lost.

    Parameters
    ----------
    sky_lon, sky_lat : where it comes from, in the tangent plane
    time : ns
    weight : photo-electrons that it stands for; 0 = none
    w0, w1, w2, w3 : its words of `Stream.ARRIVAL`
    tel : row of the telescope
    optics, camera, settings : see `simulation_types`
    scratch, w : work space, and the worker's row in it
    """
    if not weight > 0.0:
        return -1
    pixel = accepted_pixel(sky_lon, sky_lat, w0, w1, w2, tel, optics, camera)
    if pixel < 0:
        return -1
    if scratch.count[w, pixel] == 0.0:
        n = scratch.n_lit[w, 0]
        scratch.lit[w, n] = pixel
        scratch.n_lit[w, 0] = n + 1
    charge = weight * avalanches(w3, settings.crosstalk)
    scratch.count[w, pixel] += weight
    scratch.amplitude[w, pixel] += charge
    scratch.moment[w, pixel] += charge * time
    return pixel


@compiled
def _pulse_share(time, start, settings):
    """Return the share of a pulse of light at `time` that the gate of a trigger at `start` sees."""
    tau = settings.peaking_time_ns
    opened = start + (tau - 0.5 * settings.gate_ns)
    closed = start + (tau + 0.5 * settings.gate_ns)
    peak = time + tau
    if opened <= peak and peak <= closed:
        return 1.0
    edge = closed if peak > closed else opened
    x = (edge - time) / tau
    if not x > 0.0:
        return 0.0
    return x * x * math.exp(2.0 * (1.0 - x))


@compiled
def _counts(value, adc_max):
    """Return the nearest count on the scale."""
    return np.uint16(min(max(value, 0.0), float(adc_max)) + HALF_UP)


@compiled
def _read_pixel(
    pixel, shower, image, tel, k0, k1, start, w_max, w_low, dark, camera, settings, scratch, w, adc
):
    """Write the counts of one pixel; return its true photo-electrons."""
    node = camera.noise.shape[0] - 1 if dark else int(camera.noise_node[tel, pixel])
    fraction = 0.0 if dark else camera.noise_fraction[tel, pixel]
    count = scratch.count[w, pixel]
    if count > 0.0:
        s0, _, s2, s3 = philox(shower, _SIGNAL, pixel, image, k0, k1)
        amplitude = scratch.amplitude[w, pixel]
        spread, _ = normal_pair(s2, s3)
        share = _pulse_share(scratch.moment[w, pixel] / amplitude, start, settings)
        signal = share * (amplitude + settings.gain_spread * math.sqrt(amplitude) * spread)
        signal = max(signal, 0.0)
        peak = signal + peak_excess(camera.noise, node, fraction, signal, s0, settings.noise_step)
    else:
        peak = noise_quantile(
            camera.noise, node, fraction, NOISE_MAXIMUM, w_max, settings.noise_step
        )
    high, low = camera.gain[tel, 0, pixel], camera.gain[tel, 1, pixel]
    rough = settings.low_gain_noise_adu * byte_normal(w_low) if low > 0.0 else 0.0
    adc[0, pixel] = _counts(camera.baseline[tel, 0, pixel] + high * peak, settings.adc_max)
    adc[1, pixel] = _counts(camera.baseline[tel, 1, pixel] + low * peak + rough, settings.adc_max)
    return count


@compiled
def read_pair(
    pair, shower, image, tel, k0, k1, start, dark, camera, settings, scratch, w, adc, true_image
):
    """Write the counts of two pixels, which share random words, and their true photo-electrons.

    Parameters
    ----------
    pair : pixels 2 pair and 2 pair + 1
    start : time of the trigger, ns
    dark : see `flash_image`; all others as in `finish_image`
    """
    n0, n1, n2, n3 = philox(shower, _NOISE, pair, image, k0, k1)
    for odd in range(2):
        pixel = 2 * pair + odd
        if pixel < adc.shape[1]:
            w_max = n2 if odd == 1 else n0
            w_low = n3 if odd == 1 else n1
            count = _read_pixel(
                pixel, shower, image, tel, k0, k1, start, w_max, w_low, dark, camera, settings,
                scratch, w, adc,
            )  # fmt: skip
            true_image[pixel] = np.uint16(min(count, float(COUNT_MAX)) + HALF_UP)


@compiled
def _read_out(
    shower, image, tel, k0, k1, start, dark, camera, settings, scratch, w, adc, true_image
):
    """Write the counts of all pixels, and their true photo-electrons."""
    for pair in range((adc.shape[1] + 1) // 2):
        read_pair(
            pair, shower, image, tel, k0, k1, start, dark, camera, settings, scratch, w, adc,
            true_image,
        )  # fmt: skip


@compiled
def _clear(scratch, w):
    """Forget the light of an image; return how many photo-electrons it had."""
    total = 0.0
    for i in range(scratch.n_lit[w, 0]):
        pixel = scratch.lit[w, i]
        total += scratch.count[w, pixel]
        scratch.count[w, pixel] = 0.0
        scratch.amplitude[w, pixel] = 0.0
        scratch.moment[w, pixel] = 0.0
    scratch.n_lit[w, 0] = 0
    return math.floor(total + HALF_UP)


@compiled
def finish_image(
    shower, image, tel, k0, k1, forced, camera, settings, scratch, w, adc, true_image, trigger_pixel
):
    """Decide on the trigger, read the image out if there is one, and empty the scratch.

    Parameters
    ----------
    shower, image : words of the counters, `image` = use << 8 | telescope
    tel : row of the telescope
    k0, k1 : key of the random numbers
    forced : read out at time 0, whatever the light
    camera, settings : see `simulation_types`
    scratch, w : work space that `deposit` filled, and the worker's row in it
    adc : uint16 (gain, pixel), filled if triggered, else left alone
    true_image : uint16 (pixel), likewise
    trigger_pixel : bool (pixel), likewise; all False for a forced trigger

    Returns
    -------
    triggered : bool
    trigger_time : ns, NaN without a trigger
    true_sum : accepted photo-electrons, whether or not there is a trigger
    """
    triggered, start = True, 0.0
    if forced:
        for pixel in range(trigger_pixel.shape[0]):
            trigger_pixel[pixel] = False
    else:
        triggered, start = find_trigger(
            shower, image, tel, k0, k1, camera, settings, scratch, w, trigger_pixel
        )
    if triggered:
        _read_out(
            shower, image, tel, k0, k1, start, False, camera, settings, scratch, w, adc, true_image
        )
    return triggered, start, _clear(scratch, w)


@compiled
def negative_binomial(n, crosstalk, word_0, word_1):
    """Return the extra avalanches of `n` photo-electrons, as a float."""
    mean = n * (crosstalk / (1.0 - crosstalk))
    if mean < SEARCH_BELOW:
        u = uniform(word_0)
        term = math.exp(n * math.log(1.0 - crosstalk))
        below = term
        k = 0.0
        for step in range(1, SEARCH_STEPS + 1):
            if not u > below:
                break
            k = float(step)
            term = term * (crosstalk * (n + (step - 1)) / step)
            below = below + term
        return k
    z, _ = normal_pair(word_0, word_1)
    sigma = math.sqrt(mean / (1.0 - crosstalk))
    skew = (z * z - 1.0) / 6.0 * ((1.0 + crosstalk) / (1.0 - crosstalk))
    return max(math.floor(mean + z * sigma + skew + 0.5), 0.0)


@compiled
def flash_pixel(pixel, shower, image, tel, k0, k1, mean_pe, camera, settings, scratch, w):
    """Fill a pixel with its share of a flash; return its photo-electrons, as a float."""
    mean = mean_pe[pixel] * camera.efficiency[tel, pixel] * EFFICIENCY_HEADROOM
    if not mean > 0.0:
        return 0.0
    w0, w1, w2, w3 = philox(shower, _LIGHT, pixel, image, k0, k1)
    n = float(poisson(mean, w0, w1))
    if n > 0.0:
        scratch.count[w, pixel] = n
        scratch.amplitude[w, pixel] = n + negative_binomial(n, settings.crosstalk, w2, w3)
    return n


@compiled
def flash_image(
    shower, image, tel, k0, k1, mean_pe, dark, camera, settings, scratch, w, adc, true_image,
    trigger_pixel,
):  # fmt: skip
    """Read out a flash of light at time 0, which forces the trigger; as `finish_image`.

    Parameters
    ----------
    mean_pe : (pixel,) photo-electrons expected in a pixel of relative efficiency 1
    dark : the lid is closed, so that dark counts are the only noise
    """
    n_lit = 0
    for pixel in range(mean_pe.shape[0]):
        n = flash_pixel(pixel, shower, image, tel, k0, k1, mean_pe, camera, settings, scratch, w)
        if n > 0.0:
            scratch.lit[w, n_lit] = pixel
            n_lit += 1
        trigger_pixel[pixel] = False
    scratch.n_lit[w, 0] = n_lit
    _read_out(shower, image, tel, k0, k1, 0.0, dark, camera, settings, scratch, w, adc, true_image)
    return True, 0.0, _clear(scratch, w)
