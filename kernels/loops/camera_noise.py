"""Loop text of `kernels/camera_noise.py`: one draw at a time."""

import numpy as np

from ..camera_noise import BYTES_MEAN, BYTES_SCALE, SIGNAL_LEVELS
from ._compile import compiled
from .random import exponential

__all__ = ["byte_normal", "noise_quantile", "peak_excess"]

_LEVELS = np.array(SIGNAL_LEVELS)
_BYTE, _EIGHT = np.uint64(255), np.uint64(8)


@compiled
def byte_normal(word):
    """Return a nearly normal number from the four bytes of a word."""
    word = np.uint64(word)
    total = word & _BYTE
    word = word >> _EIGHT
    total += word & _BYTE
    word = word >> _EIGHT
    total += word & _BYTE
    total += word >> _EIGHT
    return (float(total) - BYTES_MEAN) * BYTES_SCALE


@compiled
def noise_quantile(noise, node, fraction, kind, word, step):
    """Return noise in avalanches, linear between quantiles and between levels of night sky."""
    n_nodes, n_quantiles = noise.shape[0], noise.shape[2]
    place = exponential(word) / step
    k = min(int(place), n_quantiles - 2)
    f = min(place - k, 1.0)
    above = min(node + 1, n_nodes - 1)
    lower = noise[node, kind, k] + f * (noise[node, kind, k + 1] - noise[node, kind, k])
    upper = noise[above, kind, k] + f * (noise[above, kind, k + 1] - noise[above, kind, k])
    return lower + fraction * (upper - lower)


@compiled
def peak_excess(noise, node, fraction, signal, word, step):
    """Return what the peak detector reads beyond a signal, in avalanches."""
    level, top = 0, _LEVELS.shape[0] - 1
    while level < top and signal >= _LEVELS[level + 1]:
        level += 1
    if level < top:
        share = (signal - _LEVELS[level]) / (_LEVELS[level + 1] - _LEVELS[level])
    else:
        share = 1.0 - _LEVELS[level] / signal
    lower = noise_quantile(noise, node, fraction, level, word, step)
    upper = noise_quantile(noise, node, fraction, level + 1, word, step)
    return lower + share * (upper - lower)
