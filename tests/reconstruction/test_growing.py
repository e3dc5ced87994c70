"""Out of sample means out of sample: shown by targets that can only be known by heart."""

import numpy as np
import pytest

from astri_gpu.backend import make_backend
from astri_gpu.config_reconstruction import ForestConfig
from astri_gpu.errors import UsageError
from astri_gpu.progress import Progress
from astri_gpu.reconstruction.growing import Grower, auc, feature_share, make_estimator

METHODS = ("random_forest", "extra_trees", "gradient_boosting")


def _grower(n_importance=0, **options):
    config = ForestConfig(n_trees=10, max_depth=None, max_features="all", **options)
    return Grower(config, 3, n_importance, make_backend("cpu", 1), Progress(None, "", ""))


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.random((900, 3)).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_what_only_memory_can_know_is_not_known(rows, method):
    """Noise is learnt by heart by deep trees; a fold that had seen its rows would show it."""
    noise = np.random.default_rng(1).random(900) > 0.5
    ones, fold = np.ones(900), np.arange(900) % 3
    grown = _grower(method=method).grow("sign", "abc", rows, noise, ones, fold, classifier=True)
    assert auc(noise, grown.mean[:, 0]) < 0.6
    assert auc(noise, grown.model.estimator.predict_proba(rows)[:, 1]) > 0.8
    for k, model in enumerate(grown.folds):
        seen = model.estimator.predict_proba(rows[fold == k])[:, 1]
        np.testing.assert_allclose(grown.mean[fold == k, 0], seen, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_several_outputs_and_importances(rows, method):
    target = np.stack([rows[:, 0], -2 * rows[:, 0] + 0.01 * rows[:, 1]], axis=1)
    grown = _grower(500, method=method).grow(
        "disp", ["first", "second", "third"], rows, target, np.ones(900), np.arange(900) % 3
    )
    assert grown.mean.shape == grown.spread.shape == (900, 2)
    assert np.abs(grown.mean - target).mean() < 0.1
    lost = grown.model.importances
    assert lost["first"] > 10 * max(abs(lost["second"]), abs(lost["third"]), 0.05)


def test_rows_that_are_not_trained_on_are_predicted(rows):
    target, used = rows[:, 0] > 0.5, rows[:, 0] < 0.9
    target = target & used  # wrong for those that are left out
    grown = _grower().grow(
        "gammaness",
        "abc",
        rows,
        target,
        np.ones(900),
        np.arange(900) % 3,
        classifier=True,
        trained_on=used,
    )
    assert np.all(grown.mean[~used] > 0.5)


def test_a_shift_moves_predictions_and_the_last_fit(rows):
    target = rows[:, 0].astype(np.float64)
    plain, moved = (
        _grower().grow("energy", "abc", rows, target, np.ones(900), np.arange(900) % 3, shift=by)
        for by in (None, lambda mean: np.full(mean.shape[1], 2.0))
    )
    np.testing.assert_allclose(moved.mean, plain.mean + 2)
    predicted = [item.model.estimator.predict(rows) for item in (plain, moved)]
    np.testing.assert_allclose(predicted[1], predicted[0] + 2, atol=0.01)


@pytest.mark.parametrize(
    ("text", "n_features", "chosen"),
    [("sqrt", 9, 3), ("sqrt", 12, 3), ("log2", 8, 3), ("all", 7, 7), ("0.5", 8, 4), ("sqrt", 1, 1)],
)
def test_max_features_is_the_number_that_scikit_learn_takes(text, n_features, chosen):
    config = ForestConfig(n_trees=1, max_features=text)
    estimator = make_estimator(
        config, classifier=True, n_features=n_features, n_outputs=1, threads=1
    )
    rng = np.random.default_rng(0)
    estimator.fit(rng.random((30, n_features)), rng.random(30) > 0.5)
    assert estimator.estimators_[0].max_features_ == chosen


@pytest.mark.parametrize("text", ["", "many", "0", "1.5", "nan"])
def test_other_max_features_are_refused(text):
    with pytest.raises(UsageError, match=r"forest.max_features is .* sqrt, log2, all"):
        feature_share(text, 5)


def test_criteria_are_those_of_a_scisoft():
    made = make_estimator(ForestConfig(), classifier=True, n_features=9, n_outputs=1, threads=2)
    options = made.get_params()
    assert options["criterion"] == "entropy"
    assert options["n_estimators"] == 100
    assert options["min_samples_split"] == 5
    assert options["random_state"] == 42
    assert options["n_jobs"] == 2
