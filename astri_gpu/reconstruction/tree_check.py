"""Trees from files: whether their nodes are those of trees, before anything walks down them.

scikit-learn, and skops that loads its ensembles, do not look at the indices in nodes. A file that
somebody made up could send whoever follows them anywhere in memory, or in circles.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_trees"]


def check_trees(estimator: Any, n_features: int) -> None:
    """Refuse an ensemble with nodes that do not form trees.

    Children come after their parents and have one parent each, and splits look at features that
    there are.

    Parameters
    ----------
    estimator
        A fitted ensemble of scikit-learn (see `astri_gpu.reconstruction.flatten`).
    n_features
        Features that it is given.

    Raises
    ------
    ValueError
        When a tree is none, or was fitted to another number of features.
    """
    if estimator.n_features_in_ != n_features:
        raise ValueError(
            f"a forest of {estimator.n_features_in_} features has names of {n_features}"
        )
    empty = True
    for k, (left, right, feature) in enumerate(_trees(estimator)):
        empty = False
        node = np.arange(len(left))
        inner = left >= 0
        children = np.concatenate([left[inner], right[inner]])
        parents = np.concatenate([node[inner], node[inner]])
        good = (
            len(left) > 0
            and np.all((children > parents) & (children < len(left)))
            and len(np.unique(children)) == len(children)
            and np.all((feature[inner] >= 0) & (feature[inner] < n_features))
        )
        if not good:
            raise ValueError(f"the nodes of tree {k} of a {type(estimator).__name__} form no tree")
    if empty:
        raise ValueError(f"a {type(estimator).__name__} has no trees")


def _trees(estimator: Any) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Yield left and right children (-1 in leaves) and features of the nodes of each tree."""
    if hasattr(estimator, "_predictors"):
        for predictors in estimator._predictors:
            for predictor in predictors:
                nodes = predictor.nodes
                leaf = nodes["is_leaf"].astype(bool)
                yield (
                    np.where(leaf, -1, nodes["left"].astype(np.int64)),
                    np.where(leaf, -1, nodes["right"].astype(np.int64)),
                    nodes["feature_idx"],
                )
        return
    for member in estimator.estimators_:
        tree = member.tree_
        yield tree.children_left, tree.children_right, tree.feature
