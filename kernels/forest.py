"""Ensembles of decision trees applied to rows of features, equal to scikit-learn's predictions.

scikit-learn compares a feature with a threshold of float64. Features are float32 here, and a
threshold that is rounded down to float32 divides them in the same way: no float32 lies between the
two. Trees are flat arrays of nodes in which a leaf is its own child, so that all rows of a batch
can go down the same number of levels.
"""

from typing import NamedTuple

from jaxtyping import Float32, Float64, Int

from ._types import Array, array_namespace

__all__ = [
    "LINKS",
    "Forest",
    "ForestPrediction",
    "descend",
    "enter_trees",
    "leave_trees",
    "predict_forest",
]

LINKS = ("mean", "sum", "logistic")


class Forest(NamedTuple):
    """All trees of an ensemble, one after the other.

    The children of a node lie beside each other: the left one, for values up to the threshold, and
    then the right one. A leaf has a threshold of infinity and is its own left child.
    """

    feature: Int[Array, " node"]  # what is compared; 0 in leaves
    threshold: Float32[Array, " node"]
    child: Int[Array, " node"]  # the left one
    value: Float64[Array, "node output"]  # read in leaves
    root: Int[Array, " tree"]
    baseline: Float64[Array, " output"]  # added to sums over trees


class ForestPrediction(NamedTuple):
    """What an ensemble says about each row; NaN for rows with a feature that is not finite."""

    mean: Float64[Array, "row output"]  # the prediction
    spread: Float64[Array, "row output"]  # standard deviation of the trees; 0 for sums of trees


def predict_forest(
    features: Float32[Array, "row feature"], forest: Forest, *, depth: int, link: str
) -> ForestPrediction:
    """Return the prediction of an ensemble for each row, and how far its trees disagree.

    Parameters
    ----------
    features : (row, feature) float32, in the order in which the ensemble was fitted
    forest : see `Forest`
    depth : levels of the deepest tree; more do no harm
    link : ``mean``: mean and standard deviation (of the population) over trees; ``sum``: sum over
        trees and baseline, without a spread; ``logistic``: the probability 1 / (1 + exp(-sum))

    Raises
    ------
    ValueError
        For an unknown `link`.
    """
    node = enter_trees(features, forest)
    for _ in range(depth):
        node = descend(features, node, forest)
    return leave_trees(features, node, forest, link=link)


def enter_trees(features: Float32[Array, "row feature"], forest: Forest) -> Int[Array, "row tree"]:
    """Return the node of each row in each tree at the start: its root."""
    xp = array_namespace(features, forest.root)
    return xp.broadcast_to(forest.root[None, :], (features.shape[0], forest.root.shape[0]))


def descend(
    features: Float32[Array, "row feature"], node: Int[Array, "row tree"], forest: Forest
) -> Int[Array, "row tree"]:
    """Return the node of each row in each tree one level further down; leaves stay."""
    xp = array_namespace(features, node, forest.threshold)
    n_rows, n_features = features.shape
    # Rows lie one after the other, so that one index finds a feature of a row.
    row_start = xp.arange(n_rows, dtype=xp.int64)[:, None] * n_features
    found = _look_up(
        xp, xp.reshape(features, (-1,)), row_start + _look_up(xp, forest.feature, node)
    )
    is_right = found > _look_up(xp, forest.threshold, node)
    return _look_up(xp, forest.child, node) + xp.astype(is_right, forest.child.dtype)


def leave_trees(
    features: Float32[Array, "row feature"],
    node: Int[Array, "row tree"],
    forest: Forest,
    *,
    link: str,
) -> ForestPrediction:
    """Return the prediction for rows that have arrived in leaves; see `predict_forest`."""
    if link not in LINKS:
        raise ValueError(f"link is {link!r}: expected one of {', '.join(LINKS)}")
    xp = array_namespace(features, node, forest.value)
    shape = (*node.shape, forest.value.shape[1])
    value = xp.reshape(xp.take(forest.value, xp.reshape(node, (-1,)), axis=0), shape)
    if link == "mean":
        # Relative to one tree, so that trees that agree have no spread.
        first = value[:, :1, :]
        mean = first[:, 0, :] + xp.mean(value - first, axis=1)
        spread = xp.std(value - first, axis=1)
    else:
        mean = forest.baseline[None, :] + xp.sum(value, axis=1)
        if link == "logistic":
            mean = 0.5 + 0.5 * xp.tanh(0.5 * mean)  # the same function, which cannot overflow
        spread = xp.zeros_like(mean)
    is_finite = xp.all(xp.isfinite(features), axis=1)[:, None]
    nan = xp.asarray(float("nan"), dtype=xp.float64)
    return ForestPrediction(xp.where(is_finite, mean, nan), xp.where(is_finite, spread, nan))


def _look_up(xp, table, index):
    """Return entries of a table (node,) for indices of any shape."""
    return xp.reshape(xp.take(table, xp.reshape(index, (-1,))), index.shape)
