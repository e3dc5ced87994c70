"""Loop text of `kernels/trigger.py`: the topological trigger of one image."""

import math

import numpy as np

from ..camera_noise import NOISE_FAST
from ..simulation_types import Stream
from ._compile import compiled
from .camera_noise import noise_quantile
from .random import philox

__all__ = ["FIRED", "MAX_TRIGGER_PIXELS", "MEMBER", "find_groups", "find_trigger", "fires"]

MAX_TRIGGER_PIXELS = 64
FIRED, REACHED, MEMBER = 1, 2, 3

_SIGNAL = np.uint64(Stream.SIGNAL << 24)


@compiled
def fires(pixel, shower, image, tel, k0, k1, camera, settings, scratch, w):
    """Return whether a pixel with light is above threshold."""
    threshold = settings.trigger_threshold_pe / (1.0 - settings.crosstalk)
    _, word, _, _ = philox(shower, _SIGNAL, pixel, image, k0, k1)
    noise = noise_quantile(
        camera.noise, int(camera.noise_node[tel, pixel]), camera.noise_fraction[tel, pixel],
        NOISE_FAST, word, settings.noise_step,
    )  # fmt: skip
    return scratch.amplitude[w, pixel] + noise > threshold


@compiled
def _list_fired(shower, image, tel, k0, k1, camera, settings, scratch, w):
    """List and mark the pixels above threshold; return how many."""
    n_fired = 0
    for i in range(scratch.n_lit[w, 0]):
        pixel = int(scratch.lit[w, i])
        if fires(pixel, shower, image, tel, k0, k1, camera, settings, scratch, w):
            scratch.fired[w, n_fired] = pixel
            scratch.state[w, pixel] = FIRED
            n_fired += 1
    return n_fired


@compiled
def _keep_earliest(time, earliest, n):
    """Insert a time into the n earliest ones, in rising order."""
    if time < earliest[n - 1]:
        k = n - 1
        while k > 0 and earliest[k - 1] > time:
            earliest[k] = earliest[k - 1]
            k -= 1
        earliest[k] = time


@compiled
def _collect(first, group, earliest, camera, settings, scratch, w):
    """List the group of a pixel; return its size and the time when enough of it had fired."""
    n_needed = settings.trigger_pixels
    for k in range(n_needed):
        earliest[k] = math.inf
    group[0] = first
    scratch.state[w, first] = REACHED
    done, size = 0, 1
    while done < size:
        pixel = int(group[done])
        done += 1
        time = scratch.moment[w, pixel] / scratch.amplitude[w, pixel]
        _keep_earliest(time, earliest, n_needed)
        for k in range(camera.trigger_neighbours.shape[1]):
            other = int(camera.trigger_neighbours[pixel, k])
            if other >= 0 and scratch.state[w, other] == FIRED:
                other_time = scratch.moment[w, other] / scratch.amplitude[w, other]
                if abs(other_time - time) <= settings.coincidence_ns:
                    scratch.state[w, other] = REACHED
                    group[size] = other
                    size += 1
    return size, earliest[n_needed - 1]


@compiled
def find_groups(fired, n_fired, group, earliest, camera, settings, scratch, w):
    """Mark the members of all groups that fire; return when the earliest did, ns, inf for none.

    Parameters
    ----------
    fired : (pixel,), the first `n_fired` are all pixels above threshold, of a camera or of some
        of its modules; their state is `FIRED`
    group, earliest : work space for that many pixels, and for `MAX_TRIGGER_PIXELS` times
    camera, settings, scratch, w : as in `loops.camera.finish_image`
    """
    start = math.inf
    if n_fired >= settings.trigger_pixels:
        for i in range(n_fired):
            first = int(fired[i])
            if scratch.state[w, first] == FIRED:
                size, time = _collect(first, group, earliest, camera, settings, scratch, w)
                if size >= settings.trigger_pixels:
                    start = min(start, time)
                    for k in range(size):
                        scratch.state[w, group[k]] = MEMBER
    return start


@compiled
def find_trigger(shower, image, tel, k0, k1, camera, settings, scratch, w, trigger_pixel):
    """Return whether the light in the scratch triggers, and when (ns, NaN without a trigger).

    Parameters
    ----------
    shower, image, tel, k0, k1, camera, settings, scratch, w : as in `loops.camera.finish_image`
    trigger_pixel : bool (pixel), filled if it triggers: members of all groups that do
    """
    n_fired = _list_fired(shower, image, tel, k0, k1, camera, settings, scratch, w)
    start = find_groups(
        scratch.fired[w], n_fired, scratch.group[w], scratch.earliest[w], camera, settings, scratch,
        w,
    )  # fmt: skip
    triggered = start < math.inf
    if triggered:
        for pixel in range(trigger_pixel.shape[0]):
            trigger_pixel[pixel] = scratch.state[w, pixel] == MEMBER
    for i in range(n_fired):
        scratch.state[w, scratch.fired[w, i]] = 0
    return triggered, start if triggered else math.nan
