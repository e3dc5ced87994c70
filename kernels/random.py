"""Counter-based random numbers: what is drawn depends on names, never on the order of drawing.

Philox4x32-10 (Salmon et al. 2011, SC11, doi:10.1145/2063384.2063405): ten rounds of multiplications
turn a counter of four 32-bit words and a key of two into four random words. `loops/random.py` is
the same text for single numbers.
"""

from math import pi

from ._types import Array, array_namespace

__all__ = ["exponential", "key_of", "normal_pair", "philox", "poisson", "uniform"]

MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = 0xFFFFFFFF

POISSON_SEARCH_BELOW = 32.0
POISSON_STEPS = 96
"""The inversion of a mean below 32 ends after 96 steps: P(n > 96) < 1e-18."""


def key_of(seed: int) -> tuple[int, int]:
    """Return the key words of a seed, 0 <= seed < 2**64."""
    return seed & LOW, (seed >> 32) & LOW


def philox(c0: Array, c1: Array, c2: Array, c3: Array, *, key: tuple[int, int]) -> tuple:
    """Return four uint32 words for each counter (c0, c1, c2, c3).

    Parameters
    ----------
    c0, c1, c2, c3 : unsigned or non-negative integers below 2**32, shapes that broadcast; at least
        one is an array
    key : see `key_of`

    Returns
    -------
    words : four uint32 arrays of the common shape
    """
    arrays = [c for c in (c0, c1, c2, c3) if not isinstance(c, int)]
    xp = array_namespace(*arrays)
    wide = xp.uint64
    counters = [
        xp.asarray(c, dtype=wide) if isinstance(c, int) else xp.astype(c, wide)
        for c in (c0, c1, c2, c3)
    ]
    x0, x1, x2, x3 = xp.broadcast_arrays(*counters)
    low, half = xp.asarray(LOW, dtype=wide), xp.asarray(32, dtype=wide)
    m0, m1 = xp.asarray(MULTIPLIER_0, dtype=wide), xp.asarray(MULTIPLIER_1, dtype=wide)
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = m0 * x0, m1 * x2
        x0, x1, x2, x3 = (
            (p1 >> half) ^ x1 ^ xp.asarray(k0, dtype=wide),
            p1 & low,
            (p0 >> half) ^ x3 ^ xp.asarray(k1, dtype=wide),
            p0 & low,
        )
        k0, k1 = (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW
    return tuple(xp.astype(x, xp.uint32) for x in (x0, x1, x2, x3))


def uniform(word: Array) -> Array:
    """Return float64 numbers in (0, 1), centres of 2**32 equal cells, from uint32 words."""
    xp = array_namespace(word)
    return (xp.astype(word, xp.float64) + 0.5) * 2.0**-32


def exponential(word: Array) -> Array:
    """Return float64 numbers of an exponential distribution with mean 1."""
    xp = array_namespace(word)
    return -xp.log(uniform(word))


def normal_pair(word_0: Array, word_1: Array) -> tuple[Array, Array]:
    """Return two independent standard normal numbers (Box and Muller 1958), float64."""
    xp = array_namespace(word_0)
    radius = xp.sqrt(-2.0 * xp.log(uniform(word_0)))
    angle = (2.0 * pi) * uniform(word_1)
    return radius * xp.cos(angle), radius * xp.sin(angle)


def poisson(mean: Array, word_0: Array, word_1: Array) -> Array:
    """Return Poisson numbers, two random words each.

    Below a mean of 32 by inversion of `word_0`. Above it from a normal number z with the skewness
    term of Cornish and Fisher (1938), n = floor(mean + z sqrt(mean) + (z^2 - 1) / 6 + 1/2): mean
    and variance are exact to 1e-3, the distribution function differs by less than 1e-3.

    Parameters
    ----------
    mean : float64, >= 0
    word_0, word_1 : uint32, of the same shape

    Returns
    -------
    n : int64
    """
    xp = array_namespace(mean, word_0)
    u = uniform(word_0)
    small = xp.where(mean < POISSON_SEARCH_BELOW, mean, xp.zeros_like(mean))
    term = xp.exp(-small)
    below, n = term, xp.zeros_like(u)
    for k in range(1, POISSON_STEPS + 1):
        n = xp.where(u > below, xp.full_like(u, float(k)), n)
        term = term * (small / k)
        below = below + term
    z, _ = normal_pair(word_0, word_1)
    wide = xp.floor(mean + z * xp.sqrt(mean) + (z * z - 1.0) / 6.0 + 0.5)
    wide = xp.where(wide > 0.0, wide, xp.zeros_like(wide))
    return xp.astype(xp.where(mean < POISSON_SEARCH_BELOW, n, wide), xp.int64)
