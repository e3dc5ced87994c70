"""Ensembles of scikit-learn as the flat arrays that the forest kernel reads."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.kernels.forest import Forest

__all__ = ["FlatForest", "flatten"]


@dataclass(frozen=True)
class FlatForest:
    """An ensemble of trees, as `astri_gpu.kernels.forest.predict_forest` takes it.

    `forest` holds NumPy arrays, trees in the order of the estimator; `depths` (tree,) says how many
    levels each has, and `link` how their values become a prediction.
    """

    forest: Forest
    depths: NDArray[np.int32]
    n_features: int
    link: str

    @property
    def depth(self) -> int:
        """Levels of the deepest tree, 0 if all are single leaves."""
        return int(self.depths.max())

    @property
    def n_outputs(self) -> int:
        """Numbers that are predicted for each row."""
        return int(self.forest.value.shape[1])


class _Tree(NamedTuple):
    """One tree as its library stores it; `left` is -1 in leaves."""

    feature: NDArray[Any]
    threshold: NDArray[np.float64]
    left: NDArray[Any]
    right: NDArray[Any]
    value: NDArray[np.float64]  # (node, output)


def flatten(estimator: Any) -> FlatForest:
    """Return the trees of a fitted estimator of scikit-learn as flat arrays.

    Parameters
    ----------
    estimator
        RandomForestClassifier, ExtraTreesClassifier or HistGradientBoostingClassifier of the
        classes 0 and 1 (one output, the probability of class 1); RandomForestRegressor or
        ExtraTreesRegressor of one or several outputs; HistGradientBoostingRegressor with a loss
        that predicts the value itself.

    Returns
    -------
    The flat forest. Its predictions are those of ``predict_proba(rows)[:, 1]`` or ``predict(rows)``
    for float32 rows of finite numbers. Rows with NaN are not predicted (they give NaN), also where
    the estimator has learnt what to do with them.

    Raises
    ------
    AstriError
        For another kind of estimator, one that is not fitted, other classes, splits by category, or
        a loss with another link; one sentence.
    """
    from sklearn import ensemble

    name = type(estimator).__name__
    forests = (
        ensemble.RandomForestClassifier,
        ensemble.ExtraTreesClassifier,
        ensemble.RandomForestRegressor,
        ensemble.ExtraTreesRegressor,
    )
    boosted = (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor)
    if type(estimator) not in (*forests, *boosted):
        known = ", ".join(kind.__name__ for kind in (*forests, *boosted))
        raise AstriError(f"A {name} cannot be applied by the forest kernel: use one of {known}.")
    if not hasattr(estimator, "n_features_in_") or not (
        hasattr(estimator, "estimators_") or hasattr(estimator, "_predictors")
    ):
        raise AstriError(f"The {name} is not fitted: call its fit method first.")
    if hasattr(estimator, "classes_"):
        _check_classes(estimator, name)
    if isinstance(estimator, forests):
        trees = [
            _forest_tree(tree.tree_, hasattr(estimator, "classes_"))
            for tree in estimator.estimators_
        ]
        return _joined(trees, np.zeros(trees[0].value.shape[1]), estimator.n_features_in_, "mean")
    return _boosted(estimator, name)


def _check_classes(estimator: Any, name: str) -> None:
    classes = estimator.classes_
    if isinstance(classes, list):
        raise AstriError(
            f"The {name} predicts {len(classes)} outputs of classes: the forest kernel takes "
            "classifiers of one output, fit one for each."
        )
    if list(classes) != [0, 1]:
        shown = ", ".join(map(repr, np.asarray(classes).tolist()[:10]))
        raise AstriError(
            f"The {name} was fitted for the classes {shown}: the forest kernel takes classifiers "
            "of the two classes 0 and 1."
        )


def _forest_tree(tree: Any, is_classifier: bool) -> _Tree:
    value = tree.value[:, 0, 1:2] if is_classifier else tree.value[:, :, 0]
    return _Tree(tree.feature, tree.threshold, tree.children_left, tree.children_right, value)


def _boosted(estimator: Any, name: str) -> FlatForest:
    """Return the trees of HistGradientBoosting, whose values are summed."""
    # scikit-learn has no public way to the trees; the names are those of 1.0 and later.
    link = type(estimator._loss.link).__name__
    links = {"IdentityLink": "sum", "LogitLink": "logistic"}
    if link not in links:
        raise AstriError(
            f"The {name} was fitted with the loss {estimator.loss}, whose {link} the forest kernel "
            "does not know: use a loss that predicts the value itself, such as squared_error."
        )
    trees = []
    for (predictor,) in estimator._predictors:
        nodes = predictor.nodes
        if np.any(nodes["is_categorical"]):
            raise AstriError(
                f"The {name} splits by category, which the forest kernel does not know: fit it "
                "with categorical_features=None."
            )
        left = np.where(nodes["is_leaf"], -1, nodes["left"].astype(np.int64))
        threshold, value = nodes["num_threshold"], nodes["value"][:, None]
        trees.append(_Tree(nodes["feature_idx"], threshold, left, nodes["right"], value))
    baseline = np.ravel(estimator._baseline_prediction).astype(np.float64)
    return _joined(trees, baseline, estimator.n_features_in_, links[link])


def _joined(
    trees: list[_Tree], baseline: NDArray[np.float64], n_features: int, link: str
) -> FlatForest:
    """Return trees one after the other, nodes level by level."""
    parts: list[Forest] = []
    depths = np.zeros(len(trees), dtype=np.int32)
    first = 0
    for k, tree in enumerate(trees):
        order, depths[k] = _by_level(tree)
        is_leaf = tree.left[order] < 0
        place = np.empty(len(tree.left), dtype=np.int64)
        place[order] = first + np.arange(len(order))
        parts.append(
            Forest(
                feature=np.where(is_leaf, 0, tree.feature[order]).astype(np.int32),
                threshold=np.where(is_leaf, np.inf, _rounded_down(tree.threshold[order])).astype(
                    np.float32
                ),
                child=np.where(is_leaf, place[order], place[tree.left[order]]).astype(np.int32),
                value=np.ascontiguousarray(tree.value[order], dtype=np.float64),
                root=np.array([first], dtype=np.int32),
                baseline=baseline,
            )
        )
        first += len(order)
    forest = Forest(
        feature=np.concatenate([part.feature for part in parts]),
        threshold=np.concatenate([part.threshold for part in parts]),
        child=np.concatenate([part.child for part in parts]),
        value=np.concatenate([part.value for part in parts]),
        root=np.concatenate([part.root for part in parts]),
        baseline=baseline,
    )
    return FlatForest(forest, depths, int(n_features), link)


def _by_level(tree: _Tree) -> tuple[NDArray[np.int64], int]:
    """Return the nodes level by level from the root, children side by side, and the last level."""
    level = np.zeros(1, dtype=np.int64)
    levels = []
    while len(level):
        levels.append(level)
        inner = level[tree.left[level] >= 0]
        level = np.stack([tree.left[inner], tree.right[inner]], axis=1).ravel().astype(np.int64)
    return np.concatenate(levels), len(levels) - 1


def _rounded_down(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest finite float32 that is not above each threshold."""
    with np.errstate(over="ignore"):  # beyond float32
        near = threshold.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    # Infinity is for leaves; all finite numbers lie below the largest one as well.
    return np.minimum(np.where(near > threshold, below, near), np.finfo(np.float32).max)
