"""Loop text of `kernels/random.py`: the same numbers, one counter at a time."""

import math

import numpy as np

from ..random import (
    MULTIPLIER_0,
    MULTIPLIER_1,
    POISSON_SEARCH_BELOW,
    POISSON_STEPS,
    ROUNDS,
    WEYL_0,
    WEYL_1,
)
from ._compile import compiled

__all__ = ["exponential", "normal_pair", "philox", "poisson", "uniform"]

_M0, _M1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1)
_W0, _W1 = np.uint64(WEYL_0), np.uint64(WEYL_1)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@compiled
def philox(c0, c1, c2, c3, k0, k1):
    """Return four words (uint64 below 2**32) of the counter (c0, c1, c2, c3) and key (k0, k1)."""
    x0, x1, x2, x3 = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    for _ in range(ROUNDS):
        p0 = _M0 * x0
        p1 = _M1 * x2
        x0, x1, x2, x3 = (
            (p1 >> _HALF) ^ x1 ^ k0,
            p1 & _LOW,
            (p0 >> _HALF) ^ x3 ^ k1,
            p0 & _LOW,
        )
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return x0, x1, x2, x3


@compiled
def uniform(word):
    """Return a number in (0, 1) from a word."""
    return (np.float64(word) + 0.5) * 2.0**-32


@compiled
def exponential(word):
    """Return a number of an exponential distribution with mean 1."""
    return -math.log(uniform(word))


@compiled
def normal_pair(word_0, word_1):
    """Return two independent standard normal numbers."""
    radius = math.sqrt(-2.0 * math.log(uniform(word_0)))
    angle = (2.0 * math.pi) * uniform(word_1)
    return radius * math.cos(angle), radius * math.sin(angle)


@compiled
def poisson(mean, word_0, word_1):
    """Return a Poisson number (int64)."""
    if mean < POISSON_SEARCH_BELOW:
        u = uniform(word_0)
        term = math.exp(-mean)
        below = term
        n = np.int64(0)
        for k in range(1, POISSON_STEPS + 1):
            if not u > below:
                break
            n = np.int64(k)
            term = term * (mean / k)
            below = below + term
        return n
    z, _ = normal_pair(word_0, word_1)
    wide = math.floor(mean + z * math.sqrt(mean) + (z * z - 1.0) / 6.0 + 0.5)
    return max(np.int64(wide), np.int64(0))
