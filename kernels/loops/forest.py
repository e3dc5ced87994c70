"""Loop text of `kernels/forest.py`, on trees whose upper levels need no pointers.

The `crown` of a tree is its upper levels, laid out like a heap and filled up to a perfect tree: the
children of place k are the places 2 k and 2 k + 1, so that a step is four loads (place, feature,
threshold, value), a comparison and an addition. Below the crown, in deep trees only, nodes point to
their children as in `Forest`.

On the CPU the rows of a chunk go down one level after the other, all together: a step of one row
waits for nothing but its own loads, so that the core works on many rows at a time. The first four
levels are vector instructions: all 15 comparisons of neighbouring rows are made, without looking
up anything, and their results choose.

Why so: million rows/s of one core, prototypes that only summed values, 100 trees of depth 12 and 12
features. Pointers row by row 0.7, pointers level by level 1.2, crown level by level 1.5, with the
top as vectors 1.9; scikit-learn 0.11. Features as ranks of 16 bits saved 80 ns a row and took 960
to be made.
"""

import math
from typing import NamedTuple

import numpy as np

from .._types import Array
from ..forest import Forest, ForestPrediction
from ._compile import compiled

__all__ = [
    "CHUNK",
    "TOP",
    "LoopForest",
    "add_trees",
    "linked",
    "loop_forest",
    "moments",
    "predict_row",
    "transpose_rows",
]

TOP = 4  # levels by vector instructions; written out in `_descend_top`
DEEPEST_CROWN = 12  # levels: 72 kB a tree of one output
CHUNK = 512  # rows that go down together; their features and their places fit into the L1 cache


class LoopForest(NamedTuple):
    """An ensemble as the loops take it; see the module."""

    crown_feature: Array  # unsigned (tree, place), place 0 is not used
    crown_threshold: Array  # float32 (tree, place)
    crown_value: Array  # float64 (tree, output, end of the crown), of trees that end there
    entry: Array  # int32 (tree, end of the crown), the node below
    n_levels: Array  # int64 (tree,), of the crown, at least `TOP`
    is_deep: Array  # bool (tree,), has levels below its crown
    feature: Array  # int32 (node,)
    threshold: Array  # float32 (node,)
    child: Array  # int32 (node,)
    value: Array  # float64 (output, node)


def loop_forest(forest: Forest, depths) -> LoopForest:
    """Return an ensemble in the form of the loops, NumPy arrays on the host.

    Parameters
    ----------
    forest : NumPy arrays
    depths : (tree,), levels of each tree
    """
    n_trees = len(forest.root)
    largest = np.diff(forest.root, append=len(forest.child)).max()
    # A crown of a tree with few branches would be mostly padding.
    most = max(TOP, min(DEEPEST_CROWN, int(largest).bit_length()))
    n_levels = np.clip(depths, TOP, most).astype(np.int64)
    places = 1 << int(n_levels.max())
    # Narrow, for the sake of the L1 cache; 8 bits would gain nothing more.
    index = np.min_scalar_type(max(256, int(forest.feature.max(initial=0))))
    crown_feature = np.zeros((n_trees, places), dtype=index)
    crown_threshold = np.full((n_trees, places), np.inf, dtype=np.float32)
    entry = np.zeros((n_trees, places), dtype=np.int32)
    nodes = forest.root[:, None]
    for level in range(int(n_levels.max()) + 1):
        ends = n_levels == level
        entry[ends, : nodes.shape[1]] = nodes[ends]
        first, last = 1 << level, min(2 << level, places)
        if first < places:
            crown_feature[:, first:last] = forest.feature[nodes]
            crown_threshold[:, first:last] = forest.threshold[nodes]
        left = forest.child[nodes]
        # Both children of a leaf, where it ends above the crown, are the leaf.
        right = np.where(left == nodes, nodes, left + 1)
        nodes = np.stack([left, right], axis=2).reshape(n_trees, -1)
    return LoopForest(
        crown_feature=crown_feature,
        crown_threshold=crown_threshold,
        crown_value=np.ascontiguousarray(forest.value[entry].transpose(0, 2, 1)),
        entry=entry,
        n_levels=n_levels,
        is_deep=np.asarray(depths) > n_levels,
        feature=np.ascontiguousarray(forest.feature),
        threshold=np.ascontiguousarray(forest.threshold),
        child=np.ascontiguousarray(forest.child),
        value=np.ascontiguousarray(forest.value.T),
    )


@compiled
def transpose_rows(features, start, n_rows, columns, is_finite):
    """Fill a block: features (row, feature) from row `start` to (chunk, feature, row of chunk).

    Rows with a feature that is not finite, and those behind the last one, become zeros.
    """
    n_features = features.shape[1]
    for chunk in range((n_rows + CHUNK - 1) // CHUNK):
        for r in range(CHUNK):
            row = chunk * CHUNK + r
            good = row < n_rows
            if good:
                for f in range(n_features):
                    good = good and np.isfinite(features[start + row, f])
            is_finite[row] = good
            for f in range(n_features):
                columns[chunk, f, r] = features[start + row, f] if good else np.float32(0.0)


@compiled
def _descend_top(columns, feature, threshold, place):
    """Write the places of the rows of a chunk below the first four levels."""
    x1, x2, x3 = columns[feature[1]], columns[feature[2]], columns[feature[3]]
    x4, x5 = columns[feature[4]], columns[feature[5]]
    x6, x7 = columns[feature[6]], columns[feature[7]]
    x8, x9 = columns[feature[8]], columns[feature[9]]
    x10, x11 = columns[feature[10]], columns[feature[11]]
    x12, x13 = columns[feature[12]], columns[feature[13]]
    x14, x15 = columns[feature[14]], columns[feature[15]]
    t1, t2, t3 = threshold[1], threshold[2], threshold[3]
    t4, t5, t6, t7 = threshold[4], threshold[5], threshold[6], threshold[7]
    t8, t9, t10, t11 = threshold[8], threshold[9], threshold[10], threshold[11]
    t12, t13, t14, t15 = threshold[12], threshold[13], threshold[14], threshold[15]
    for r in range(CHUNK):
        a = x1[r] > t1
        b2, b3 = x2[r] > t2, x3[r] > t3
        c4, c5, c6, c7 = x4[r] > t4, x5[r] > t5, x6[r] > t6, x7[r] > t7
        d8, d9, d10, d11 = x8[r] > t8, x9[r] > t9, x10[r] > t10, x11[r] > t11
        d12, d13, d14, d15 = x12[r] > t12, x13[r] > t13, x14[r] > t14, x15[r] > t15
        b = b3 if a else b2
        c = (c7 if b else c6) if a else (c5 if b else c4)
        left = (d11 if c else d10) if b else (d9 if c else d8)
        right = (d15 if c else d14) if b else (d13 if c else d12)
        d = right if a else left
        place[r] = np.uint32(16 + 8 * np.uint32(a) + 4 * np.uint32(b) + 2 * np.uint32(c) + d)


@compiled
def _descend_deep(values, forest, node, waiting):
    """Let the rows of a chunk go down to their leaves; those that have arrived wait no more."""
    for r in range(CHUNK):
        waiting[r] = r
    n_waiting = CHUNK
    while n_waiting:
        still = 0
        for i in range(n_waiting):
            r = waiting[i]
            k = node[r]
            threshold = forest.threshold[k]
            x = values[np.uint32(np.uint32(forest.feature[k]) * np.uint32(CHUNK) + r)]
            node[r] = np.uint32(np.uint32(forest.child[k]) + np.uint32(x > threshold))
            waiting[still] = r
            still += 1 if threshold < np.inf else 0  # not in a leaf
        n_waiting = still


@compiled
def add_trees(columns, flat, n_chunks, forest, node, waiting, first, total, squares):
    """Add up the values of all trees for a block of rows.

    Parameters
    ----------
    columns : float32 (chunk, feature, row of chunk)
    flat : the same memory as (chunk, feature x row of chunk)
    n_chunks : that are used
    forest : see `LoopForest`
    node, waiting : uint32 (row of chunk), work space
    first : (output, row), filled with the value of the first tree
    total, squares : (output, row), filled with the sums of the differences of all trees from the
        first one, and of their squares
    """
    n_outputs = forest.value.shape[0]
    for tree in range(forest.n_levels.shape[0]):
        feature, threshold = forest.crown_feature[tree], forest.crown_threshold[tree]
        entry = forest.entry[tree]
        n_levels = forest.n_levels[tree]
        ends = np.uint32(1 << n_levels)
        deep = forest.is_deep[tree]
        for chunk in range(n_chunks):
            values = flat[chunk]
            _descend_top(columns[chunk], feature, threshold, node)
            for _ in range(n_levels - TOP):
                for r in range(CHUNK):
                    k = node[r]
                    x = values[np.uint32(feature[k]) * np.uint32(CHUNK) + np.uint32(r)]
                    node[r] = np.uint32(k + k + np.uint32(x > threshold[k]))
            for r in range(CHUNK):
                node[r] = np.uint32(node[r] - ends)
            if deep:
                for r in range(CHUNK):
                    node[r] = entry[node[r]]
                _descend_deep(values, forest, node, waiting)
            start = chunk * CHUNK
            for output in range(n_outputs):
                value = forest.value[output] if deep else forest.crown_value[tree, output]
                if tree == 0:
                    for r in range(CHUNK):
                        first[output, start + r] = value[node[r]]
                        total[output, start + r] = 0.0
                        squares[output, start + r] = 0.0
                else:
                    for r in range(CHUNK):
                        d = value[node[r]] - first[output, start + r]
                        total[output, start + r] += d
                        squares[output, start + r] += d * d


@compiled
def predict_row(features, forest, first, mean, spread):
    """Write mean and standard deviation of the trees for one row; all but features (output,).

    Parameters
    ----------
    features : (feature,) float32
    forest : see `LoopForest`
    first : work space
    mean, spread : results, NaN where a feature is not finite
    """
    n_trees, n_outputs = forest.n_levels.shape[0], forest.value.shape[0]
    is_finite = True
    for f in range(features.shape[0]):
        is_finite = is_finite and math.isfinite(features[f])
    for tree in range(n_trees):
        k = 1
        for _ in range(forest.n_levels[tree]):
            x = features[forest.crown_feature[tree, k]]
            k = k + k + (1 if x > forest.crown_threshold[tree, k] else 0)
        k -= 1 << forest.n_levels[tree]
        node = forest.entry[tree, k]
        while forest.child[node] != node:
            x = features[forest.feature[node]]
            node = forest.child[node] + (1 if x > forest.threshold[node] else 0)
        for output in range(n_outputs):
            value = forest.value[output, node]
            if tree == 0:
                first[output] = value
                mean[output] = 0.0
                spread[output] = 0.0
            else:
                d = value - first[output]
                mean[output] += d
                spread[output] += d * d
    for output in range(n_outputs):
        mean[output], spread[output] = moments(
            first[output], mean[output], spread[output], n_trees, is_finite
        )


@compiled
def moments(first, total, squares, n_trees, is_finite):
    """Return mean and standard deviation from the sums that `add_trees` makes; NaN if not finite.

    Differences from one tree are summed, so that little cancels, and nothing if all trees agree.
    """
    mean = total / n_trees
    variance = max(0.0, squares / n_trees - mean * mean)
    if not is_finite:
        return math.nan, math.nan
    return first + mean, math.sqrt(variance)


def linked(prediction: ForestPrediction, baseline, n_trees: int, link: str) -> ForestPrediction:
    """Return what an ensemble predicts from mean and deviation of its trees; see `predict_forest`.

    NumPy arrays, which are used again.
    """
    mean, spread = prediction
    if link == "mean":
        return prediction
    mean *= n_trees
    mean += baseline
    if link == "logistic":
        mean = 0.5 + 0.5 * np.tanh(0.5 * mean)
    spread[:] = np.where(np.isnan(mean), np.nan, 0.0)
    return ForestPrediction(mean, spread)
