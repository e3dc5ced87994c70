"""Grids of cuts against pyirf's optimiser, which takes them one after the other."""

import logging
import operator
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from pyirf.cut_optimization import optimize_cuts, optimize_gh_cut
from pyirf.cuts import calculate_percentile_cut

from astri_gpu.backend import make_backend
from astri_gpu.errors import UsageError
from astri_gpu.selection.grid import GridEvents, PlacedEvents, evaluate_grid

EDGES = np.geomspace(0.5, 100, 8)
EXPOSURE_S = 50 * 3600.0
OPTIONS = {
    "gammaness_efficiencies": [0.2, 0.5, 0.7, 0.9],
    "theta_efficiencies": [0.4, 0.68, 0.9],
    "multiplicities": [2, 3, 4],
    "qualities": [4],
    "min_theta": 0.05,
    "max_theta": 0.3,
    "ring_deg": (0.1, 1.0),
    "alpha": 0.2,
}


@pytest.fixture(scope="module")
def events():
    """Return gammas and background: enough at low energies, a handful at the highest."""
    rng = np.random.default_rng(5)

    def made(n_events, a, b, angle, rate):
        energy = 0.3 * rng.pareto(0.9, n_events) + 0.4
        return GridEvents(
            reco_energy=energy,
            gammaness=rng.beta(a, b, n_events),
            theta_or_offset=angle(energy),
            n_tels=rng.integers(2, 8, n_events),
            quality=rng.integers(1, 5, n_events),
            weight=rate * energy**-0.6,
        )

    def theta(energy):
        return (0.05 + 0.08 / energy) * np.sqrt(rng.exponential(1, len(energy)))

    return (
        made(4000, 4, 2, theta, 1e-5),
        made(6000, 2, 4, lambda energy: 2 * np.sqrt(rng.random(len(energy))), 1e-4),
    )


@pytest.fixture(scope="module")
def tables(events):
    """Return the events as pyirf takes them."""
    gammas, background = (
        QTable(
            {
                "reco_energy": part.reco_energy * u.TeV,
                "gh_score": part.gammaness,
                angle: part.theta_or_offset * u.deg,
                "multiplicity": part.n_tels,
                "weight": part.weight * EXPOSURE_S,
            }
        )
        for part, angle in zip(events, ("theta", "reco_source_fov_offset"), strict=True)
    )
    return gammas, background


def pyirf_options():
    """Return the options that both of pyirf's optimisers have."""
    ring = OPTIONS["ring_deg"] * u.deg
    return {
        "alpha": OPTIONS["alpha"],
        "fov_offset_min": ring[0],
        "fov_offset_max": ring[1],
        "progress": False,
    }


def pyirf_call(function, *arguments, **options):
    """Return what pyirf finds, without what it has to say of empty bins."""
    logging.getLogger("pyirf").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def best(grid, score):
    """Return the indices of the best point of each bin, in pyirf's order."""
    by_bin = np.moveaxis(score, 2, 0)
    place = np.nanargmin(by_bin.reshape(len(by_bin), -1), axis=1)
    return np.unravel_index(place, by_bin.shape[1:])


@pytest.mark.parametrize("name", ["numpy", "cpu"])
def test_cuts_are_those_of_optimize_cuts(events, tables, name):
    sensitivity, n_tels, theta, gammaness = pyirf_call(
        optimize_cuts,
        *tables,
        EDGES * u.TeV,
        OPTIONS["multiplicities"],
        np.array(OPTIONS["gammaness_efficiencies"]),
        np.array(OPTIONS["theta_efficiencies"]),
        theta_min_value=OPTIONS["min_theta"] * u.deg,
        theta_max_value=OPTIONS["max_theta"] * u.deg,
        **pyirf_options(),
    )
    grid = evaluate_grid(*events, EDGES, **OPTIONS, backend=make_backend(name, threads=1))
    score = grid.relative_sensitivity(EXPOSURE_S)
    expected = np.asarray(sensitivity["relative_sensitivity"])
    assert np.isfinite(expected[:6]).all()
    q, m, i, j = best(grid, score)
    bins = np.arange(len(EDGES) - 1)
    # pyirf finds no root far from the flux of the source, and then no cut.
    known = np.isfinite(expected)
    np.testing.assert_array_equal(
        grid.gammaness_cuts[q, m, bins, i][known], gammaness["cut"][known]
    )
    np.testing.assert_array_equal(
        grid.theta_cuts[q, m, bins, j][known], theta["cut"].to_value("deg")[known]
    )
    np.testing.assert_array_equal(np.array([2, 3, 4])[m][known], n_tels["cut"][known])
    assert len({*zip(m[known], i[known], j[known], strict=True)}) > 2
    # Its cosines lose 4e-10 of the solid angle of the smallest theta cut.
    np.testing.assert_allclose(score[q, m, bins, i, j][known], expected[known], rtol=1e-9)


def test_cuts_are_those_of_optimize_gh_cut(events, tables):
    theta = calculate_percentile_cut(
        tables[0]["theta"],
        tables[0]["reco_energy"],
        EDGES * u.TeV,
        fill_value=OPTIONS["max_theta"] * u.deg,
        min_value=OPTIONS["min_theta"] * u.deg,
        max_value=OPTIONS["max_theta"] * u.deg,
        percentile=68,
    )
    sensitivity, cuts = pyirf_call(
        optimize_gh_cut,
        *tables,
        EDGES * u.TeV,
        np.array(OPTIONS["gammaness_efficiencies"]),
        theta,
        op=operator.ge,
        **pyirf_options(),
    )
    one = OPTIONS | {"theta_efficiencies": [0.68], "multiplicities": [0]}
    grid = evaluate_grid(*events, EDGES, **one, backend=make_backend("cpu", threads=1))
    score = grid.relative_sensitivity(EXPOSURE_S)
    expected = np.asarray(sensitivity["relative_sensitivity"])
    known = np.isfinite(expected)
    assert known.sum() >= 6
    q, m, i, j = best(grid, score)
    bins = np.arange(len(EDGES) - 1)
    np.testing.assert_array_equal(grid.theta_cuts[0, 0, :, 0], theta["cut"].to_value("deg"))
    np.testing.assert_array_equal(grid.gammaness_cuts[q, m, bins, i][known], cuts["cut"][known])
    np.testing.assert_allclose(score[q, m, bins, i, j][known], expected[known], rtol=1e-9)


def test_worst_event_type_is_a_cut_like_any_other(events):
    backend = make_backend("cpu", threads=1)
    whole = evaluate_grid(*events, EDGES, **(OPTIONS | {"qualities": [2, 4]}), backend=backend)
    good = [GridEvents(*(c[part.quality <= 2] for c in part)) for part in events]
    alone = evaluate_grid(*good, EDGES, **(OPTIONS | {"qualities": [2]}), backend=backend)
    # Bins of few gammas get the best score of all gammas, which need not be of these types.
    filled = alone.theta_cuts[0, ..., :1] == OPTIONS["max_theta"]
    for name in ("n_signal", "n_off", "n_signal_events"):
        left, right = getattr(whole, name)[0], getattr(alone, name)[0]
        np.testing.assert_array_equal(np.where(filled[..., None], 0, left - right), 0)
    assert (whole.n_signal[1].sum(axis=(0, 1)) > whole.n_signal[0].sum(axis=(0, 1))).all()


def test_events_placed_once_serve_many_grids(events):
    backend = make_backend("numpy")
    placed = PlacedEvents(*events, EDGES, backend=backend)
    for changed in ({}, {"max_theta": 0.2, "ring_deg": (0.0, 0.5), "multiplicities": [3]}):
        options = OPTIONS | changed
        expected = evaluate_grid(*events, EDGES, **options, backend=backend)
        found = placed.evaluate(**options)
        np.testing.assert_array_equal(found.n_signal, expected.n_signal)
        np.testing.assert_array_equal(found.n_off, expected.n_off)


def test_cuts_that_leave_nothing_are_infinite_not_zero(events):
    none = GridEvents(*(column[:0] for column in events[0]))
    for gammas, background in ((none, events[1]), (none, none)):
        grid = evaluate_grid(
            gammas, background, EDGES, **OPTIONS, backend=make_backend("cpu", threads=1)
        )
        assert np.isinf(grid.relative_sensitivity(EXPOSURE_S)).all()
    grid = evaluate_grid(events[0], none, EDGES, **OPTIONS, backend=make_backend("cpu", threads=1))
    assert not grid.n_off.any()
    n_signal = grid.n_signal * EXPOSURE_S
    some = n_signal > 0
    score = grid.relative_sensitivity(EXPOSURE_S)
    np.testing.assert_allclose(score[some], 10 / n_signal[some], rtol=1e-12)
    assert np.isinf(score[~some]).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gammaness_efficiencies": [0.5, 0.4]}, r"gammaness efficiencies are \[0.5, 0.4\]"),
        ({"theta_efficiencies": []}, "theta efficiencies"),
        ({"theta_efficiencies": [0.5, 1.5]}, "theta efficiencies"),
        ({"ring_deg": (1.0, 1.0)}, "no area"),
    ],
)
def test_impossible_grids_are_refused(events, changed, words):
    with pytest.raises(UsageError, match=words):
        evaluate_grid(*events, EDGES, **(OPTIONS | changed), backend=make_backend("numpy"))


def test_unusable_events_are_refused(events):
    backend = make_backend("numpy")
    short = events[0]._replace(weight=events[0].weight[1:])
    with pytest.raises(UsageError, match="columns of the signal have shapes"):
        evaluate_grid(short, events[1], EDGES, **OPTIONS, backend=backend)
    for edges in ([1.0], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(UsageError, match="do not rise"):
            evaluate_grid(*events, edges, **OPTIONS, backend=backend)
