"""Random numbers: against published vectors, and against the distributions they stand for."""

import math

import numba
import numpy as np
import pytest
from scipy import stats

from astri_gpu.kernels import random as rnd
from astri_gpu.kernels.loops import random as loops

KEY = rnd.key_of(0x0123456789ABCDEF)
N = 200_000
SMALLEST_P = 1e-3
"""The numbers are fixed: a test that passes once passes always."""

# Known answers of philox4x32-10 in the Random123 distribution (kat_vectors).
ONES = 0xFFFFFFFF
KNOWN_ANSWERS = [
    pytest.param((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8", id="zeros"),
    pytest.param((ONES,) * 4, (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd", id="ones"),
    pytest.param(
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
        id="pi",
    ),
]


@numba.njit
def loop_numbers(counters, means, k0, k1, words, numbers, counts):
    """Fill words, uniform, exponential, two normal numbers, and Poisson counts."""
    for i in range(len(counters)):
        w = loops.philox(counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3], k0, k1)
        for j in range(4):
            words[i, j] = w[j]
        numbers[i, 0] = loops.uniform(w[0])
        numbers[i, 1] = loops.exponential(w[0])
        numbers[i, 2], numbers[i, 3] = loops.normal_pair(w[0], w[1])
        counts[i] = loops.poisson(means[i], w[0], w[1])


@pytest.fixture(scope="module")
def words():
    """Four random words of N counters."""
    return rnd.philox(np.arange(N, dtype=np.uint32), 7, 0, 3, key=KEY)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(call, counter, key, answer):
    expected = [int(word, 16) for word in answer.split()]
    found = call(rnd.philox, *(np.array([c], dtype=np.uint32) for c in counter), key=key)
    assert all(word.dtype == np.uint32 for word in found)
    assert [int(word[0]) for word in found] == expected
    assert [int(word) for word in loops.philox(*counter, *key)] == expected


def test_philox_broadcasts_and_takes_numbers(call):
    shower = np.arange(5, dtype=np.uint32)
    wide = call(rnd.philox, shower[:, None], 9, np.arange(3, dtype=np.int64)[None, :], 2, key=KEY)
    assert wide[0].shape == (5, 3)
    single = rnd.philox(shower, 9, 1, 2, key=KEY)
    for left, right in zip(wide, single, strict=True):
        np.testing.assert_array_equal(left[:, 1], right)


def test_both_texts_draw_the_same(call, assert_same):
    rng = np.random.default_rng(1)
    counters = rng.integers(0, 2**32, (2000, 4), dtype=np.uint32)
    means = np.concatenate([[0.0, 1e-300, 31.999999, 32.0, 1e9], 10 ** rng.uniform(-3, 5, 1995)])
    expected = np.empty((2000, 4), np.uint32), np.empty((2000, 4)), np.empty(2000, np.int64)
    loop_numbers(counters, means, *KEY, *expected)
    found = call(rnd.philox, *(counters[:, i] for i in range(4)), key=KEY)
    assert_same(found, tuple(expected[0].T))
    numbers = [call(rnd.uniform, found[0]), call(rnd.exponential, found[0])]
    numbers += call(rnd.normal_pair, *found[:2])
    for left, right in zip(numbers, expected[1].T, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-15)
    assert_same(call(rnd.poisson, means, *found[:2]), expected[2])


def test_seed_makes_the_key():
    assert rnd.key_of(1) == (1, 0)
    assert rnd.key_of(2**63 + 5) == (5, 2**31)
    counter = np.arange(8, dtype=np.uint32)
    one, other = (rnd.philox(counter, 0, 0, 0, key=rnd.key_of(seed)) for seed in (1, 1 + 2**32))
    assert not np.any(one[0] == other[0])


def test_words_are_uniform_and_independent(words):
    for word in words:
        u = rnd.uniform(word)
        assert u.min() > 0
        assert u.max() < 1
        assert stats.kstest(u, "uniform").pvalue > SMALLEST_P
        for shift in range(0, 32, 8):  # every byte of a word
            counts = np.bincount((word >> shift) & 255, minlength=256)
            assert stats.chisquare(counts).pvalue > SMALLEST_P
    # Neighbouring words and neighbouring counters: pairs fill the square evenly.
    for first, second in [(words[0], words[1]), (words[0][:-1], words[0][1:])]:
        counts = np.bincount(first >> 28 << 4 | second >> 28, minlength=256)
        assert stats.chisquare(counts).pvalue > SMALLEST_P


def test_ends_of_the_uniform_numbers_are_open():
    ends = rnd.uniform(np.array([0, ONES], dtype=np.uint32))
    np.testing.assert_array_equal(ends, [2.0**-33, 1 - 2.0**-33])
    assert np.all(np.isfinite(rnd.exponential(np.array([0, ONES], dtype=np.uint32))))


def test_exponential_and_normal_numbers(words):
    assert stats.kstest(rnd.exponential(words[0]), "expon").pvalue > SMALLEST_P
    one, other = rnd.normal_pair(words[0], words[1])
    assert stats.kstest(one, "norm").pvalue > SMALLEST_P
    assert stats.kstest(other, "norm").pvalue > SMALLEST_P
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(N)
    assert abs(np.corrcoef(one**2, other**2)[0, 1]) < 4 / math.sqrt(N)


@pytest.mark.parametrize("mean", [0.03, 1.7, 12.0, 31.9])
def test_small_poisson_numbers_follow_their_law(words, mean):
    n = rnd.poisson(np.full(N, mean), words[2], words[3])
    k = np.arange(n.max() + 1)
    expected = N * stats.poisson.pmf(k, mean)
    observed = np.bincount(n).astype(float)
    tail = expected < 10  # bins of few counts go together
    expected = np.append(expected[~tail], N - expected[~tail].sum())
    observed = np.append(observed[~tail], observed[tail].sum())
    assert stats.chisquare(observed, expected).pvalue > SMALLEST_P


@pytest.mark.parametrize("mean", [32.0, 60.0, 1000.0, 1e6])
def test_large_poisson_numbers_are_as_close_as_promised(words, mean):
    n = rnd.poisson(np.full(N, mean), words[2], words[3])
    error = math.sqrt(mean / N)
    assert n.mean() == pytest.approx(mean, abs=4 * error + 1e-3 * math.sqrt(mean))
    assert n.var() == pytest.approx(mean, rel=4 * math.sqrt(2 / N) + 1e-3)
    assert stats.skew(n) == pytest.approx(mean**-0.5, abs=4 * math.sqrt(6 / N) + 0.01)
    k = np.arange(n.min(), n.max() + 1, max(1, int(math.sqrt(mean) / 8)))
    share = np.searchsorted(np.sort(n), k, side="right") / N
    assert np.abs(share - stats.poisson.cdf(k, mean)).max() < 1e-3 + 1.95 / math.sqrt(N)


def test_no_light_is_no_photo_electron(words):
    assert not np.any(rnd.poisson(np.zeros(N), words[0], words[1]))
