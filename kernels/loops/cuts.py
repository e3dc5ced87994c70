"""Loop text of `kernels/cuts.py`: an event is looked at a fixed number of times, for any grid.

Of an energy bin and a selection, the events that are selected come together first. Their values are
counted in narrow buckets; the counts say in which ones the percentiles lie, and only these few are
sorted. Then each event is counted once, at the tightest cuts that it passes, and sums over the grid
make all other points of these counts.

Comparisons with cuts go cut by cut over a short piece of events, as vector instructions.
"""

import math

from ..cuts import MIN_EVENTS
from ._compile import compiled

__all__ = [
    "BUCKETS",
    "PIECE",
    "add_up",
    "compress",
    "count_background",
    "count_signal",
    "percentiles",
]

BUCKETS = 2048
"""Of the values of an energy bin; their counts fit into the L1 cache."""

PIECE = 1024
"""Events that are compared with one cut after the other; they stay in the L1 cache."""


@compiled
def compress(events, start, stop, quality, n_tels, ring, values, others, weights):
    """Bring the selected events of an energy bin together, and return their number.

    Parameters
    ----------
    events : see `LoopEvents`; rows from `start` to `stop`
    quality, n_tels : the selection
    ring : theta from ring[0] to ring[1], the latter excluded; NaN fails where there is a ring
    values, others, weights : filled with gammaness, theta and weight
    """
    n = 0
    for row in range(start, stop):
        theta = events.theta[row]
        good = (events.n_tels[row] >= n_tels) & (events.quality[row] <= quality)
        good = good & ((ring[1] == math.inf) | ((theta >= ring[0]) & (theta < ring[1])))
        # Written in any case: the next one overwrites it where it is not selected.
        values[n], others[n], weights[n] = events.gammaness[row], theta, events.weight[row]
        n += 1 if good else 0
    return n


@compiled
def _bucket(value, low, per_unit):
    """Return the bucket of a value; those outside of the range go to the first and last one."""
    place = (value - low) * per_unit
    if not place > 0.0:
        return 0
    return BUCKETS - 1 if place >= BUCKETS - 1 else int(place)


@compiled
def percentiles(values, n, high, shares, fill, count, first, bucket, kept, cuts):
    """Fill `cuts` with the values below which shares of the events lie; see `percentile_cuts`.

    Parameters
    ----------
    values : (event,), the first `n` of them; NaN does not count
    high : values above are expected to be few, or not to matter
    shares, cuts : (cut,)
    fill : of fewer than MIN_EVENTS values
    count, first : int64 (bucket + 1,), work space
    bucket : uint16 (event,), work space
    kept : (event,), work space
    """
    low, top, number = math.inf, -math.inf, 0
    for e in range(n):
        value = values[e]
        number += 1 if value == value else 0
        low = value if (value < low) & (value > -math.inf) else low
        top = value if (value > top) & (value < math.inf) else top
    if number < MIN_EVENTS:
        for c in range(len(shares)):
            cuts[c] = fill
        return
    top = min(top, high)
    per_unit = BUCKETS / (top - low) if top > low else 0.0
    if not per_unit < math.inf:
        per_unit = 0.0

    for b in range(BUCKETS + 1):
        count[b] = 0
    for e in range(n):
        value = values[e]
        b = _bucket(value, low, per_unit) if value == value else BUCKETS
        bucket[e] = b
        count[b] += 1

    # `first` holds the rank of the first value of each bucket, then where wanted ones are kept.
    rank = 0
    for b in range(BUCKETS + 1):
        first[b] = rank
        rank += count[b]
    n_kept = 0
    for b in range(BUCKETS):
        wanted = False
        for c in range(len(shares)):
            below = math.floor((number - 1) * shares[c])
            above = min(below + 1, number - 1)
            wanted = wanted or (first[b] <= below < first[b] + count[b])
            wanted = wanted or (first[b] <= above < first[b] + count[b])
        start = n_kept if wanted else -1
        n_kept += count[b] if wanted else 0
        count[b] = start
    count[BUCKETS] = -1
    for e in range(n):
        b = bucket[e]
        if count[b] >= 0:
            kept[count[b]] = values[e]
            count[b] += 1
    # The kept buckets are in order: the rank of a value is its place and what was left out before.
    _sort_kept(kept, first, count)

    for c in range(len(shares)):
        place = (number - 1) * shares[c]
        below = math.floor(place)
        part = place - below
        a = _ranked(kept, first, count, int(below))
        z = _ranked(kept, first, count, min(int(below) + 1, number - 1))
        step = z - a
        cuts[c] = z - step * (1 - part) if part >= 0.5 else a + step * part


@compiled
def _sort_kept(kept, first, count):
    """Sort the values of each kept bucket; `count` holds where each of them ends."""
    for b in range(BUCKETS):
        size = first[b + 1] - first[b]
        if count[b] > 0 and size > 1:
            _sort(kept, count[b] - size, size)


@compiled
def _sort(values, start, size):
    """Sort `size` values from `start` on: by a heap, so that ties and order do not matter."""
    heaped = size // 2
    last = size
    while last > 1:
        if heaped > 0:  # the heap is still built, from its end
            heaped -= 1
            value = values[start + heaped]
        else:  # the largest goes behind the heap
            last -= 1
            value = values[start + last]
            values[start + last] = values[start]
        place = heaped
        child = 2 * place + 1
        while child < last:
            if child + 1 < last and values[start + child + 1] > values[start + child]:
                child += 1
            if not values[start + child] > value:
                break
            values[start + place] = values[start + child]
            place = child
            child = 2 * place + 1
        values[start + place] = value


@compiled
def _ranked(kept, first, count, rank):
    """Return the value of a rank, which is in a kept bucket."""
    low, high = 0, BUCKETS
    while high - low > 1:
        middle = (low + high) >> 1
        if first[middle] <= rank:
            low = middle
        else:
            high = middle
    # Empty buckets share their first rank with the next one that has events: that one is found.
    return kept[count[low] - (first[low + 1] - rank)]


@compiled
def count_passed(values, start, size, cuts, below, passed):
    """Fill the number of cuts that events pass: value >= cut, or value <= cut if `below`.

    Numbers as wide as the values, so that the comparisons are vector instructions: with bytes they
    were not, and took five times as long.

    Parameters
    ----------
    values : (event,), those of `size` from `start` on are looked at
    passed : int64 (PIECE,), filled
    """
    part = values[start : start + size]
    for e in range(size):
        passed[e] = 0
    for c in range(len(cuts)):
        cut = cuts[c]
        if below:
            for e in range(size):
                passed[e] += 1 if part[e] <= cut else 0
        else:
            for e in range(size):
                passed[e] += 1 if part[e] >= cut else 0


@compiled
def count_signal(values, others, weights, n, cuts, other_cuts, passed, inside, total, number):
    """Count events at the tightest cuts that they pass, then sum up.

    Parameters
    ----------
    values, others, weights : gammaness, theta and weight of `n` events
    cuts, other_cuts : (i,) falling, (j,) rising
    passed, inside : int64 (PIECE,), work space
    total, number : (i, j), filled with the sum of weights and the number of events
    """
    n_cuts, n_others = len(cuts), len(other_cuts)
    total[:] = 0.0
    number[:] = 0.0
    for start in range(0, n, PIECE):
        size = min(PIECE, n - start)
        count_passed(values, start, size, cuts, False, passed)
        count_passed(others, start, size, other_cuts, True, inside)
        for e in range(size):
            if (passed[e] > 0) & (inside[e] > 0):
                i, j = n_cuts - passed[e], n_others - inside[e]
                total[i, j] += weights[start + e]
                number[i, j] += 1.0
    add_up(total)
    add_up(number)


@compiled
def add_up(grid):
    """Turn what passes just these cuts into what passes these and all tighter ones."""
    for i in range(grid.shape[0]):
        for j in range(1, grid.shape[1]):
            grid[i, j] += grid[i, j - 1]
    for i in range(1, grid.shape[0]):
        for j in range(grid.shape[1]):
            grid[i, j] += grid[i - 1, j]


@compiled
def count_background(values, weights, n, cuts, passed, total, squares, number):
    """Count events at the tightest gammaness cut that they pass, then sum up; see `count_signal`.

    Results are (i,): sums of weights, of their squares, and numbers of events.
    """
    n_cuts = len(cuts)
    total[:] = 0.0
    squares[:] = 0.0
    number[:] = 0.0
    for start in range(0, n, PIECE):
        size = min(PIECE, n - start)
        count_passed(values, start, size, cuts, False, passed)
        for e in range(size):
            if passed[e] > 0:
                weight = weights[start + e]
                total[n_cuts - passed[e]] += weight
                squares[n_cuts - passed[e]] += weight * weight
                number[n_cuts - passed[e]] += 1.0
    for i in range(1, n_cuts):
        total[i] += total[i - 1]
        squares[i] += squares[i - 1]
        number[i] += number[i - 1]
