"""The topological trigger: contiguous pixels of one module above threshold, close in time.

Groups are found with sets of pixels kept as the 64 bits of a word. `loops/trigger.py` is the same
trigger for one image at a time.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float

from ._types import Array, array_namespace
from .simulation_types import CameraModel, CameraSettings

__all__ = ["MODULE_PIXELS", "Trigger", "topological_trigger"]

MODULE_PIXELS = 64
"""Pixels of a module, numbered one after the other."""


class Trigger(NamedTuple):
    """What the trigger says about each image."""

    triggered: Bool[Array, " image"]
    time: Float[Array, " image"]  # ns, NaN without a trigger
    pixel: Bool[Array, "image pixel"]  # members of the groups that fire


def _reachable(xp, fired, time, camera, coincidence_ns):
    """Return for each pixel the pixels of its group, uint64 (image, module, slot)."""
    n_images, n_pixels = fired.shape
    number = xp.arange(n_pixels, dtype=xp.int64)
    one, none = xp.asarray(1, dtype=xp.uint64), xp.zeros(fired.shape, dtype=xp.uint64)

    def bit(pixel):
        return one << xp.astype(pixel % MODULE_PIXELS, xp.uint64)

    reach = xp.where(fired, bit(number)[None, :], none)
    for k in range(camera.trigger_neighbours.shape[1]):
        other = xp.astype(camera.trigger_neighbours[:, k], xp.int64)
        exists = other >= 0
        other = xp.where(exists, other, number)
        both = fired & xp.take(fired, other, axis=1) & exists[None, :]
        close = xp.abs(time - xp.take(time, other, axis=1)) <= coincidence_ns
        reach = reach | xp.where(both & close, bit(other)[None, :], none)
    reach = xp.reshape(reach, (n_images, n_pixels // MODULE_PIXELS, MODULE_PIXELS))
    # Warshall (1962): after step k, all paths through pixels up to k have been followed.
    nobody = xp.zeros_like(reach)
    for k in range(MODULE_PIXELS):
        through = (reach >> xp.asarray(k, dtype=xp.uint64)) & one
        reach = reach | xp.where(through == one, reach[:, :, k : k + 1], nobody)
    return reach


def topological_trigger(
    amplitude: Float[Array, "image pixel"],
    time: Float[Array, "image pixel"],
    lit: Bool[Array, "image pixel"],
    noise: Float[Array, "image pixel"],
    camera: CameraModel,
    *,
    settings: CameraSettings,
) -> Trigger:
    """Return which images trigger, and when.

    A pixel with light fires if its avalanches and the noise of the fast shaper are together above
    the threshold, which is given in photo-electrons of mean crosstalk. Pixels of one module that
    share an edge, fire, and whose times differ by no more than `coincidence_ns` belong together. A
    group of `trigger_pixels` or more fires, at the time when its `trigger_pixels`-th pixel did; the
    earliest group gives the time of the trigger. The published trigger of ASTRI is of this kind;
    its numbers, and the part that time plays in it, are our choice. Pixels without light never
    fire: five of them at once are too rare to matter.

    Parameters
    ----------
    amplitude : (image, pixel), avalanches
    time : (image, pixel), ns; any number where there is no light
    lit : (image, pixel), True where there is light
    noise : (image, pixel), avalanches, of the fast shaper
    camera, settings : see `simulation_types`; modules are `MODULE_PIXELS` consecutive pixels
    """
    xp = array_namespace(amplitude, time, lit, noise)
    n_images, n_pixels = amplitude.shape
    threshold = settings.trigger_threshold_pe / (1.0 - settings.crosstalk)
    fired = lit & (amplitude + noise > threshold)
    reach = _reachable(xp, fired, time, camera, settings.coincidence_ns)
    time = xp.reshape(time, reach.shape)
    slot = xp.arange(MODULE_PIXELS, dtype=xp.int64)[None, None, :]
    one = xp.asarray(1, dtype=xp.uint64)
    size = xp.zeros(reach.shape, dtype=xp.int32)
    earlier = xp.zeros(reach.shape, dtype=xp.int32)
    for k in range(MODULE_PIXELS):
        member = ((reach >> xp.asarray(k, dtype=xp.uint64)) & one) == one
        other = time[:, :, k : k + 1]
        before = (other < time) | ((other == time) & (slot > k))
        size = size + xp.astype(member, xp.int32)
        earlier = earlier + xp.astype(member & before, xp.int32)
    fires = size >= settings.trigger_pixels
    # The pixel that completes its group: exactly trigger_pixels - 1 members were before it.
    completes = fires & (earlier == settings.trigger_pixels - 1)
    late = xp.full_like(time, float("inf"))
    start = xp.min(xp.reshape(xp.where(completes, time, late), (n_images, n_pixels)), axis=1)
    triggered = start < float("inf")
    return Trigger(
        triggered,
        xp.where(triggered, start, xp.full_like(start, float("nan"))),
        xp.reshape(fires, (n_images, n_pixels)),
    )
