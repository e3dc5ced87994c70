"""Forests on the backends against scikit-learn's own predictions, row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import ensemble, tree

from astri_gpu import backend_forest
from astri_gpu.backend import make_backend
from astri_gpu.errors import AstriError
from astri_gpu.reconstruction.flatten import flatten

LARGEST = np.finfo(np.float32).max
TINIEST = np.finfo(np.float32).smallest_subnormal


def predicted(estimator, rows):
    """Return what scikit-learn says, (row, output)."""
    with np.errstate(all="ignore"):  # it looks for NaN in the sum of all features
        if hasattr(estimator, "classes_"):
            return estimator.predict_proba(rows)[:, 1:]
        return np.reshape(estimator.predict(rows), (len(rows), -1))


def hostile(flat, rows, n_rows=400, seed=1):
    """Return rows with values on thresholds, right above and below, and at the ends of float32."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(rows)[:n_rows].copy()
    inner = np.flatnonzero(np.isfinite(flat.forest.threshold))
    nodes = rng.choice(inner, n_rows)
    near = flat.forest.threshold[nodes]
    away = rng.choice(np.float32([-np.inf, np.inf]), n_rows)
    near = np.where(rng.random(n_rows) < 0.5, near, np.nextafter(near, away))
    odd = np.float32([0.0, -0.0, TINIEST, -TINIEST, LARGEST, -LARGEST])
    chosen = np.where(rng.random(n_rows) < 0.7, near, rng.choice(odd, n_rows))
    rows[np.arange(n_rows), flat.forest.feature[nodes]] = chosen
    return rows[np.isfinite(rows).all(axis=1)]


@pytest.fixture(scope="module")
def sample():
    """Return rows, labels and two numbers to predict; some columns have few different values."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(1500, 6)).astype(np.float32)
    rows[:, 1] = np.round(rows[:, 1])
    rows[:, 2] = np.round(rows[:, 2], 1)
    labels = (rows[:, 0] * rows[:, 1] + rng.normal(0, 0.3, 1500) > 0).astype(int)
    return rows, labels, np.stack([5 * rows[:, 0], rows[:, 1] ** 2 - rows[:, 2]], axis=1)


ESTIMATORS = {
    "forest classifier": ensemble.RandomForestClassifier(12, max_depth=7, random_state=1),
    "forest classifier, no limit": ensemble.RandomForestClassifier(8, random_state=1),
    "extra trees classifier": ensemble.ExtraTreesClassifier(8, random_state=1),
    "forest regressor": ensemble.RandomForestRegressor(8, max_depth=9, random_state=1),
    "extra trees regressor": ensemble.ExtraTreesRegressor(8, random_state=1),
    "boosted classifier": ensemble.HistGradientBoostingClassifier(max_iter=9, random_state=1),
    "boosted regressor": ensemble.HistGradientBoostingRegressor(max_iter=9, random_state=1),
    "boosted regressor, absolute error": ensemble.HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=5, random_state=1
    ),
}


@pytest.fixture(scope="module", params=ESTIMATORS.items(), ids=ESTIMATORS)
def fitted(request, sample):
    name, estimator = request.param
    rows, labels, targets = sample
    if "classifier" in name:
        return estimator.fit(rows, labels)
    return estimator.fit(rows, targets[:, 0] if "boosted" in name else targets)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_equals_scikit_learn_on_every_row(fitted, sample, backend):
    flat = flatten(fitted)
    call = make_backend(backend, 1).forest(flat)
    for rows in (sample[0], hostile(flat, sample[0])):
        found = call(rows)
        np.testing.assert_allclose(found.mean, predicted(fitted, rows), rtol=1e-12, atol=1e-12)
        assert found.mean.shape == found.spread.shape == (len(rows), flat.n_outputs)
        if flat.link == "mean":
            members = (fitted.estimators_[k] for k in range(len(fitted.estimators_)))
            single = np.stack([predicted(member, rows) for member in members])
            np.testing.assert_allclose(found.spread, single.std(axis=0), atol=1e-12)
        else:
            np.testing.assert_array_equal(found.spread, 0.0)


def test_jax_equals_scikit_learn(sample):
    rows, labels, _ = sample
    estimator = ESTIMATORS["forest classifier"].fit(rows, labels)
    flat = flatten(estimator)
    call = make_backend("jax").forest(flat)
    for some in (hostile(flat, rows), rows[:256], rows[:1]):
        np.testing.assert_allclose(call(some).mean, predicted(estimator, some), atol=1e-12)


def test_pieces_are_put_together(sample, monkeypatch):
    rows, labels, _ = sample
    flat = flatten(ESTIMATORS["forest classifier"].fit(rows, labels))
    whole = make_backend("numpy").forest(flat)(rows)
    monkeypatch.setattr(backend_forest, "ROWS", 256)
    for name in ("numpy", "jax"):
        found = make_backend(name).forest(flat)(rows[:700])
        np.testing.assert_allclose(found.mean, whole.mean[:700], atol=1e-12)
        np.testing.assert_allclose(found.spread, whole.spread[:700], atol=1e-12)


def test_thresholds_between_two_float32_divide_exactly(sample):
    rows, _, targets = sample
    estimator = ensemble.RandomForestRegressor(5, random_state=2).fit(rows, targets)
    shifts = np.float64([0, 1e-9, -1e-9, 1e-16, -1e-16])
    for k, member in enumerate(estimator.estimators_):
        threshold = member.tree_.threshold
        inner = member.tree_.children_left >= 0
        # On a value of a row, or as little beside it as only float64 can tell.
        values = rows[np.arange(inner.sum()) % len(rows), member.tree_.feature[inner]]
        threshold[inner] = values.astype(np.float64) * (1 + shifts[k])
    flat = flatten(estimator)
    for some in (rows, hostile(flat, rows)):
        found = make_backend("cpu", 1).forest(flat)(some).mean
        np.testing.assert_allclose(found, predicted(estimator, some), atol=1e-12)


ODD = st.sampled_from(
    [0.0, -0.0, TINIEST, -TINIEST, 1.0, np.nextafter(np.float32(1), np.float32(2)), 1e30, -LARGEST]
)
VALUES = st.one_of(ODD, st.floats(-3, 3, width=32))
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=4, max_size=40)
KINDS = (
    ensemble.RandomForestClassifier,
    ensemble.ExtraTreesRegressor,
    ensemble.HistGradientBoostingRegressor,
)


@settings(deadline=None, max_examples=40)
@given(train=ROWS, apply=ROWS, kind=st.sampled_from(KINDS), depth=st.sampled_from([1, 3, None]))
def test_equals_scikit_learn_whatever_the_values(train, apply, kind, depth):
    train, apply = np.array(train, dtype=np.float32), np.array(apply, dtype=np.float32)
    labels = np.arange(len(train)) % 2
    options = {"max_depth": depth, "random_state": 1}
    if kind is ensemble.HistGradientBoostingRegressor:
        options |= {"max_iter": 3, "min_samples_leaf": 1, "early_stopping": False}
    else:
        options |= {"n_estimators": 3}
    estimator = kind(**options).fit(train, labels)
    found = make_backend("cpu", 1).forest(flatten(estimator))
    for rows in (train, apply):
        np.testing.assert_allclose(found(rows).mean, predicted(estimator, rows), atol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "cpu", "jax"])
def test_rows_that_are_not_finite_are_not_predicted(sample, backend):
    rows = sample[0]
    call = make_backend(backend, 1).forest(flatten(ESTIMATORS["forest classifier"]))
    bad = rows[:6].astype(np.float64)  # rounded to float32, where 1e300 is infinite
    bad[[0, 1, 2, 3], [0, 1, 2, 3]] = [np.nan, np.inf, -np.inf, 1e300]
    found = call(bad)
    for values in found:
        np.testing.assert_array_equal(np.isnan(values[:, 0]), [True] * 4 + [False] * 2)
    np.testing.assert_allclose(found.mean[4:], call(rows[4:6]).mean, atol=1e-12)
    assert call(rows[:0]).mean.shape == (0, 1)


def test_labels_that_are_true_or_false(sample):
    rows, labels, _ = sample
    estimator = ensemble.ExtraTreesClassifier(3, random_state=1).fit(rows, labels == 1)
    found = make_backend("cpu", 1).forest(flatten(estimator))(rows)
    np.testing.assert_allclose(found.mean, predicted(estimator, rows), atol=1e-12)


def test_other_estimators_are_refused(sample):
    rows, _, targets = sample
    few, three = rows[:90], np.arange(90) % 3
    forest, boosted = ensemble.RandomForestClassifier, ensemble.HistGradientBoostingClassifier
    grouped = np.round(np.abs(few[:, [1]]))
    for estimator, message in (
        (forest(3), r"The RandomForestClassifier is not fitted"),
        (boosted(), r"The HistGradientBoostingClassifier is not fitted"),
        (tree.DecisionTreeRegressor(), r"A DecisionTreeRegressor cannot be applied .* use one of"),
        (None, r"A NoneType cannot be applied by the forest kernel"),
        (forest(2).fit(few, three), r"for the classes 0, 1, 2: .* the two classes 0 and 1"),
        (forest(2).fit(few, 0 * three), r"for the classes 0: "),
        (forest(2).fit(few, np.where(three > 1, "gamma", "proton")), r"classes 'gamma', 'proton'"),
        (forest(2).fit(few, np.stack([three > 1, three > 0], axis=1)), r"predicts 2 outputs"),
        (boosted(max_iter=2).fit(few, three), r"for the classes 0, 1, 2"),
        (
            boosted(max_iter=2, categorical_features=[0]).fit(
                np.tile(grouped, (5, 1)), np.tile(grouped[:, 0] == 1, 5)
            ),
            r"splits by category, .* categorical_features=None",
        ),
        (
            ensemble.HistGradientBoostingRegressor(loss="poisson", max_iter=2).fit(
                few, np.abs(targets[:90, 0])
            ),
            r"the loss poisson, whose LogLink .* such as squared_error",
        ),
    ):
        with pytest.raises(AstriError, match=message):
            flatten(estimator)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_features_of_another_shape_are_refused(sample, backend):
    call = make_backend(backend, 1).forest(flatten(ESTIMATORS["forest classifier"]))
    with pytest.raises(AstriError, match=r"shape \(3, 2\): this forest needs \(row, 6\)"):
        call(np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(AstriError, match=r"shape \(6,\)"):
        call(np.zeros(6, dtype=np.float32))


def test_cuda_says_what_is_missing(sample, monkeypatch):
    def missing(*arguments, **options):
        raise RuntimeError("The compiled GPU kernels need CuPy: install it.")

    monkeypatch.setattr("astri_gpu.kernels.loops.forest_cuda.ForestCuda", missing)
    flat = flatten(ESTIMATORS["forest classifier"])
    with pytest.raises(AstriError, match="backend=cupy: The compiled GPU kernels need CuPy"):
        backend_forest.cuda_forest(flat)
