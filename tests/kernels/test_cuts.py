"""Grids of cuts: every text against events that are counted one by one, and against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from astri_gpu.backend import make_backend
from astri_gpu.backend_cuts import EventColumns, GridCuts, cut_grid
from astri_gpu.kernels.cuts import MIN_EVENTS, BinnedEvents, CutLimits, count_grid, percentile_cuts
from astri_gpu.kernels.loops import cuts as loops
from astri_gpu.kernels.loops._compile import compiled

EDGES = np.array([1.0, 2.0, 4.0, 8.0])
GRID = GridCuts(
    gammaness_shares=np.array([0.8, 0.35, 0.1, 0.0]),
    theta_shares=np.array([0.25, 0.5, 1.0]),
    selections=((4, 2), (4, 3), (2, 2)),
    theta_range=(0.05, 0.6),
    ring=(0.2, 0.9),
    gammaness_fill=0.97,
)


def drawn(n_events, seed, *, steps=0):
    """Return events in, below and above the edges; scores of few `steps` have many ties."""
    rng = np.random.default_rng(seed)
    gammaness, theta = rng.random(n_events), rng.random(n_events)
    if steps:
        gammaness, theta = np.round(gammaness * steps) / steps, np.round(theta * steps) / steps
    return EventColumns(
        energy=rng.choice([0.5, 1.0, 1.5, 2.0, 3.99, 8.0], n_events),  # none from 4 to 8
        gammaness=gammaness,
        theta=theta,
        n_tels=rng.integers(1, 6, n_events).astype(np.int32),
        quality=rng.integers(1, 5, n_events).astype(np.int32),
        weight=10 ** rng.uniform(-6, 0, n_events),
    )


def counted(signal, background, cuts, edges):
    """Return what `cut_grid` gives, event by event and point by point."""
    shape = (len(cuts.selections), len(edges) - 1)
    n_i, n_j = len(cuts.gammaness_shares), len(cuts.theta_shares)
    result = [np.zeros((*shape, n)) for n in (n_i, n_j)]
    result += [np.zeros((*shape, n_i, n_j)) for _ in range(2)]
    result += [np.zeros((*shape, n_i)) for _ in range(3)]
    gammaness_cuts, theta_cuts, n_signal, n_signal_events, n_ring, squares, number = result

    def chosen(events, b, quality, n_tels):
        inside = (events.energy >= edges[b]) & (events.energy < edges[b + 1])
        inside &= (events.quality <= quality) & (events.n_tels >= n_tels)
        return EventColumns(*(column[inside] for column in events))

    def percentiles(values, shares, fill):
        values = values[~np.isnan(values)]
        return np.nanpercentile(values, 100 * shares) if len(values) >= MIN_EVENTS else fill

    for s, selection in enumerate(cuts.selections):
        for b in range(shape[1]):
            gammas, others = (chosen(events, b, *selection) for events in (signal, background))
            gammaness_cuts[s, b] = percentiles(
                gammas.gammaness, cuts.gammaness_shares, cuts.gammaness_fill
            )
            theta_cuts[s, b] = percentiles(gammas.theta, cuts.theta_shares, cuts.theta_range[1])
            theta_cuts[s, b] = np.clip(theta_cuts[s, b], *cuts.theta_range)
            for i, cut in enumerate(gammaness_cuts[s, b]):
                ring = (others.theta >= cuts.ring[0]) & (others.theta < cuts.ring[1])
                ring &= others.gammaness >= cut
                n_ring[s, b, i], number[s, b, i] = others.weight[ring].sum(), ring.sum()
                squares[s, b, i] = (others.weight[ring] ** 2).sum()
                for j, reach in enumerate(theta_cuts[s, b]):
                    passed = (gammas.gammaness >= cut) & (gammas.theta <= reach)
                    n_signal[s, b, i, j] = gammas.weight[passed].sum()
                    n_signal_events[s, b, i, j] = passed.sum()
    return result


def assert_counted(found, signal, background, cuts=GRID, edges=EDGES):
    """Compare with `counted`: thresholds and numbers exactly, sums of weights by rounding."""
    expected = counted(signal, background, cuts, edges)
    for name, left, right in zip(found._fields, found, expected, strict=True):
        tolerance = 1e-12 if name in ("n_signal", "n_ring", "n_ring_squares") else 0
        np.testing.assert_allclose(left, right, rtol=tolerance, err_msg=name)


def binned(events, edges):
    """Return events by bin as the array text takes them, padded with nonsense."""
    place = np.searchsorted(edges, events.energy, side="right") - 1
    rows = [np.flatnonzero(place == b) for b in range(len(edges) - 1)]
    size = max(map(len, rows)) + 3
    used = np.arange(size) < np.array([len(r) for r in rows])[:, None]
    columns = []
    for column in events[1:]:
        padded = np.full(used.shape, 3, dtype=column.dtype)
        for b, r in enumerate(rows):
            padded[b, : len(r)] = column[r]
        columns.append(padded)
    return BinnedEvents(*columns, used)


def limits(cuts, selection):
    """Return the limits of a selection as arrays without axes."""
    floats = (cuts.gammaness_fill, *cuts.theta_range, *cuts.ring)
    numbers = (np.array(value, dtype=np.int32) for value in selection[::-1])
    return CutLimits(*(np.array(value) for value in floats), *numbers)


@pytest.mark.parametrize("steps", [0, 6], ids=["distinct", "ties"])
def test_array_text_counts_events(call, steps):
    signal, background = drawn(260, 1, steps=steps), drawn(240, 2, steps=steps)
    signal.gammaness[::17], signal.theta[::13] = np.nan, np.nan
    background.gammaness[::11], background.theta[::19] = np.nan, np.nan
    parts = [
        call(
            count_grid,
            binned(signal, EDGES),
            binned(background, EDGES),
            GRID.gammaness_shares,
            GRID.theta_shares,
            limits(GRID, selection),
        )
        for selection in GRID.selections
    ]
    found = type(parts[0])(*map(np.stack, zip(*parts, strict=True)))
    expected = counted(signal, background, GRID, EDGES)
    for name, left, right in zip(found._fields, found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, err_msg=name)
    assert found.n_signal_events[0, 0].min() > 0
    assert not found.n_signal_events[:, 2].any()  # the empty bin


@pytest.mark.parametrize("n_events", [9, 10, 11, 250])
def test_percentiles_are_those_of_numpy(n_events):
    rng = np.random.default_rng(n_events)
    values, used = rng.normal(size=(4, n_events + 5)), np.ones((4, n_events + 5), dtype=bool)
    values[:, 1:3], used[:, 3:6] = np.nan, False
    shares = rng.random(20)
    found = percentile_cuts(values, used, shares, np.array(7.0))
    for row, chosen, cuts in zip(values, used, found, strict=True):
        expected = np.nanpercentile(row[chosen], 100 * shares) if n_events >= 10 else 7.0
        # To the last digit, but for the way by per cent.
        np.testing.assert_allclose(cuts, expected, rtol=1e-13)


def test_array_text_is_compiled_once(one_trace):
    batches = [
        (
            binned(drawn(100, 1), EDGES)._replace(used=np.ones((3, 43), bool)),
            binned(drawn(100, 1), EDGES),
            GRID.gammaness_shares,
            GRID.theta_shares,
            limits(GRID, selection),
        )
        for selection in GRID.selections
    ]
    size = batches[0][1].used.shape
    batches = [(batch[0]._replace(used=np.ones(size, bool)), *batch[1:]) for batch in batches]
    one_trace(count_grid, *batches)


@pytest.mark.parametrize("name", ["numpy", "cpu", "jax"])
def test_backends_count_events(name):
    signal, background = drawn(3000, 3), drawn(2500, 4)
    grid = cut_grid(make_backend(name, threads=2), signal, background, EDGES)
    if name == "jax":  # its compiler may round a threshold otherwise
        for left, right in zip(grid(GRID), counted(signal, background, GRID, EDGES), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-12)
        return
    assert_counted(grid(GRID), signal, background)
    # The same events, and another grid.
    other = GRID._replace(selections=((3, 1),), ring=(0.0, 0.5), theta_range=(0.0, 0.3))
    assert_counted(grid(other), signal, background, other)


def test_threads_make_no_difference():
    signal, background = drawn(2000, 5), drawn(2000, 6)
    one, two = (
        cut_grid(make_backend("cpu", threads=n), signal, background, EDGES)(GRID) for n in (1, 2)
    )
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left, right)


def columns(n_events, scores):
    """Return a strategy for events with hostile scores, angles and weights."""
    floats = st.one_of(st.sampled_from(scores), st.floats(0, 1))
    return st.tuples(
        arrays(float, n_events, elements=st.sampled_from([0.1, 1.0, 1.7, 2.0, 8.0, np.nan])),
        arrays(float, n_events, elements=floats),
        arrays(float, n_events, elements=floats),
        arrays(np.int32, n_events, elements=st.integers(0, 5)),
        arrays(np.int32, n_events, elements=st.integers(1, 5)),
        arrays(float, n_events, elements=st.sampled_from([0.0, 1e-9, 0.3, 4.0])),
    ).map(lambda given: EventColumns(*given))


SCORES = [0.0, 0.5, 0.5 + 2**-53, 1.0, np.nan]


@given(data=st.data(), sizes=st.tuples(st.integers(0, 60), st.integers(0, 30)))
@settings(deadline=None, max_examples=60)
def test_loops_count_hostile_events(data, sizes):
    signal, background = (data.draw(columns(size, SCORES)) for size in sizes)
    before = [column.copy() for column in (*signal, *background)]
    found = cut_grid(make_backend("cpu", threads=1), signal, background, EDGES)(GRID)
    assert_counted(found, signal, background)
    for left, right in zip(before, (*signal, *background), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(drawn(40, 1)._replace(energy=np.full(40, 3.0)), id="one-bin"),
        pytest.param(drawn(40, 1)._replace(gammaness=np.full(40, np.nan)), id="no-score"),
        pytest.param(drawn(40, 1)._replace(theta=np.full(40, 0.1)), id="one-angle"),
        pytest.param(drawn(40, 1)._replace(theta=np.full(40, 50.0)), id="far"),
        pytest.param(drawn(40, 1)._replace(weight=np.zeros(40)), id="no-weight"),
        pytest.param(drawn(1, 1), id="one-event"),
        pytest.param(drawn(0, 1), id="none"),
    ],
)
def test_odd_samples_are_counted(signal):
    for background in (drawn(50, 2), drawn(0, 2)):
        for name in ("numpy", "cpu"):
            found = cut_grid(make_backend(name, threads=1), signal, background, EDGES)(GRID)
            assert_counted(found, signal, background)


@compiled(counted=True)
def loop_percentiles(values, high, shares, fill):
    """Return the percentiles of the loop text."""
    n = len(values)
    count = np.empty(loops.BUCKETS + 1, np.int64)
    first, bucket, kept = np.empty_like(count), np.empty(n, np.uint16), np.empty(n)
    cuts = np.empty(len(shares))
    loops.percentiles(values, n, high, shares, fill, count, first, bucket, kept, cuts)
    return cuts


@given(
    values=arrays(
        float,
        st.integers(10, 80),
        elements=st.one_of(
            st.floats(-1e300, 1e300), st.sampled_from([0.0, 1.0, 1e-320, -5.0, np.nan])
        ),
    ),
    high=st.sampled_from([np.inf, 1.0, -1e9]),
)
@settings(deadline=None)
def test_loop_percentiles_of_any_values(values, high):
    # All but overflow: numbers far apart, denormal, tied, in one bucket, above the range.
    shares = np.array([0.0, 0.001, 0.3, 0.5, 0.99, 1.0])
    whole = values[~np.isnan(values)]
    expected = np.percentile(whole, 100 * shares) if len(whole) >= MIN_EVENTS else np.full(6, 7.0)
    found = loop_percentiles(values, high, shares, 7.0)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)


def test_loop_percentiles_of_many_values():
    rng = np.random.default_rng(1)
    shares = np.linspace(0, 1, 41)
    for values in (
        rng.normal(size=20_000),
        rng.lognormal(0, 4, 20_000),
        rng.integers(0, 4, 20_000).astype(float),
    ):
        for high in (np.inf, 0.5):
            found = loop_percentiles(values, high, shares, 7.0)
            np.testing.assert_allclose(found, np.percentile(values, 100 * shares), rtol=1e-14)
