"""Forests applied to rows of features in memory, beside scikit-learn on the same rows."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import make_backend
from astri_gpu.reconstruction.flatten import FlatForest, flatten

from ..row import Measured, Row, Settings
from ..timing import Rate, rates
from .device import devices

__all__ = ["ROW", "made_rows"]

N_FEATURES = 12
DEPTH = 12
GOAL = 10
OURS, ONE, PEER, PEER_ONE = "cpu", "cpu, one thread", "scikit-learn", "scikit-learn, one thread"


def made_rows(n_rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]:
    """Return rows of features, and a class and a number that depend on all of them.

    The two classes overlap, so that trees grow until they are stopped.
    """
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, N_FEATURES)).astype(np.float32)
    signal = np.sin(rows[:, ::2]).sum(axis=1) + rows[:, 1] * rows[:, 3]
    number = signal + rng.normal(0, 1, n_rows)
    return rows, (number > 0).astype(np.int64), number


def measure(settings: Settings) -> Measured:
    """Return the rate of the cpu backend for a classifier; a regressor stands in the notes."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    n_cores = make_backend("cpu", settings.threads).threads
    options = {
        "n_estimators": settings.size(100, 4), "max_depth": DEPTH, "min_samples_split": 5,
        "max_features": "sqrt", "random_state": 1, "n_jobs": n_cores,
    }  # fmt: skip
    rows, labels, numbers = made_rows(settings.size(60_000, 500), seed=1)
    applied, _, _ = made_rows(settings.size(200_000, 2000), seed=2)
    classifier = RandomForestClassifier(**options).fit(rows, labels)
    regressor = RandomForestRegressor(**options).fit(rows, numbers)
    found = {
        "classifier": _compared(classifier, classifier.predict_proba, applied, settings, n_cores),
        "regressor": _compared(regressor, regressor.predict, applied, settings, n_cores),
    }
    (speed, error), (other, other_error) = found.values()
    ratio = speed[OURS].ratio(speed[PEER])
    flat = flatten(classifier)
    n_trees = len(flat.depths)
    notes = [
        f"{n_trees} trees of depth {flat.depth}, {len(flat.forest.child) // n_trees} nodes each, "
        f"{N_FEATURES} features; the spread of the trees is computed too",
        f"one thread: {speed[ONE].median:,.0f} rows/s, "
        f"{speed[ONE].ratio(speed[PEER_ONE]):.1f} × scikit-learn with one thread",
        f"all threads: {speed[OURS].ratio(speed[PEER_ONE]):.1f} × scikit-learn with one thread",
        f"regressor: {other[OURS].median:,.0f} rows/s, {other[OURS].ratio(other[PEER]):.1f} × "
        f"scikit-learn, error {other_error:.0e}",
        *_on_devices(flat, applied, settings),
    ]
    return Measured(
        rate=speed[OURS].median,
        unit="rows/s",
        peer=f"scikit-learn, n_jobs={n_cores}",
        peer_rate=speed[PEER].median,
        ratio=ratio,
        # Both use all cores: the ratio is that of any number of them.
        reached=ratio >= GOAL,
        error=error,
        error_from="scikit-learn's probability, absolute",
        notes=tuple(notes),
        details={
            kind: {name: rate.rounds for name, rate in speeds.items()}
            for kind, (speeds, _) in found.items()
        },
    )


def _compared(
    estimator: Any,
    predict: Callable[[Any], Any],
    rows: NDArray[np.float32],
    settings: Settings,
    n_cores: int,
) -> tuple[dict[str, Rate], float]:
    """Return the rates of both on one thread and on all, and the largest difference."""
    flat = flatten(estimator)
    ours = {
        OURS: make_backend("cpu", n_cores).forest(flat),
        ONE: make_backend("cpu", 1).forest(flat),
    }
    few = rows[: max(1, len(rows) // 4)]

    def theirs(n_jobs: int) -> Any:
        estimator.n_jobs = n_jobs
        return predict(few)

    contestants: dict[str, tuple[int, Callable[[], Any]]] = {
        PEER: (len(few), functools.partial(theirs, n_cores)),
        OURS: (len(rows), functools.partial(ours[OURS], rows)),
        PEER_ONE: (len(few), functools.partial(theirs, 1)),
        ONE: (len(rows), functools.partial(ours[ONE], rows)),
    }
    speed = rates(contestants, n_rounds=settings.size(7, 1))
    expected = theirs(n_cores)
    expected = expected[:, 1] if expected.ndim == 2 else expected
    found = ours[OURS](few).mean[:, 0]
    return speed, float(np.max(np.abs(found - expected)))


def _on_devices(flat: FlatForest, rows: NDArray[np.float32], settings: Settings) -> list[str]:
    """Return the rates of the backends that compute on a GPU, in words."""
    notes = []
    for name in devices():
        call = functools.partial(make_backend(name).forest(flat), rows)
        rate = rates({name: (len(rows), call)}, n_rounds=settings.size(7, 1))[name].median
        notes.append(f"backend {name}: {rate:,.0f} rows/s, features and results on the host")
    return notes


ROW = Row(
    "forest",
    "predictions of a forest in memory, cpu backend, all cores",
    f"≥ {GOAL} × scikit-learn",
    measure,
)
