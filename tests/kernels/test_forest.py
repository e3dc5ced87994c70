"""Forests against a tree that is walked down node by node, on all namespaces and in all loops."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from astri_gpu.kernels.forest import Forest, ForestPrediction, predict_forest
from astri_gpu.kernels.loops import forest_cuda
from astri_gpu.kernels.loops.forest import CHUNK, TOP
from astri_gpu.kernels.loops.forest_cpu import ForestLoops

N_FEATURES = 5


def make_forest(*, n_trees=7, depth=6, n_outputs=2, branching=0.8, n_features=N_FEATURES, seed=1):
    """Return a forest of random trees, and the levels of each.

    The first tree is a single leaf; the second always branches on its right, down to `depth`.
    """
    rng = np.random.default_rng(seed)
    feature, threshold, child, root, depths = [], [], [], [], []
    for tree in range(n_trees):
        root.append(len(child))
        level, deepest = [root[-1]], 0
        feature.append(0), threshold.append(np.inf), child.append(root[-1])
        while level and deepest < depth and tree > 0:
            below = []
            for k in level:
                if (k != level[-1]) if tree == 1 else (rng.random() > branching and k != root[-1]):
                    continue
                feature[k] = int(rng.integers(n_features))
                threshold[k] = np.float32(np.round(rng.normal(), 1))
                child[k] = len(child)
                for _ in range(2):
                    below.append(len(child))
                    feature.append(0), threshold.append(np.inf), child.append(below[-1])
            deepest += bool(below)
            level = below
        depths.append(deepest)
    forest = Forest(
        np.array(feature, dtype=np.int32),
        np.array(threshold, dtype=np.float32),
        np.array(child, dtype=np.int32),
        rng.normal(10, 1, (len(child), n_outputs)),
        np.array(root, dtype=np.int32),
        rng.normal(size=n_outputs),
    )
    return forest, np.array(depths, dtype=np.int32)


def make_rows(n_rows=50, n_features=N_FEATURES, seed=2):
    """Return rows of which many lie on thresholds; some have a feature that is not finite."""
    rows = np.round(np.random.default_rng(seed).normal(size=(n_rows, n_features)), 1)
    rows = rows.astype(np.float32)
    odd = np.float32([np.nan, np.inf, -np.inf])
    for row, value in zip(range(3, n_rows, 7), np.resize(odd, n_rows), strict=False):
        rows[row, row % n_features] = value
    return rows


def walked(rows, forest, link):
    """Return the prediction of `predict_forest`, one row and tree at a time."""
    n_outputs = forest.value.shape[1]
    mean, spread = np.full((2, len(rows), n_outputs), np.nan)
    for i, row in enumerate(rows):
        if not np.isfinite(row).all():
            continue
        leaves = []
        for root in forest.root:
            k = root
            while forest.child[k] != k:
                k = forest.child[k] + (row[forest.feature[k]] > forest.threshold[k])
            leaves.append(forest.value[k])
        for o in range(n_outputs):
            values = [leaf[o] for leaf in leaves]
            if link == "mean":
                mean[i, o] = math.fsum(values) / len(values)
                spread[i, o] = np.std(values)
            else:
                mean[i, o] = forest.baseline[o] + math.fsum(values)
                spread[i, o] = 0.0
                if link == "logistic":
                    mean[i, o] = 1 / (1 + math.exp(-mean[i, o]))
    return ForestPrediction(mean, spread)


def assert_close(found, expected):
    for name, left, right in zip(found._fields, found, expected, strict=True):
        assert left.dtype == np.float64
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("link", ["mean", "sum", "logistic"])
def test_equals_a_walk_from_root_to_leaf(call, link):
    forest, depths = make_forest(seed=3, depth=4, n_trees=5)
    if link == "logistic":
        forest = forest._replace(value=forest.value - 10)
    rows = make_rows()
    expected = walked(rows, forest, link)
    assert_close(call(predict_forest, rows, forest, depth=int(depths.max()), link=link), expected)
    more = predict_forest(rows, forest, depth=int(depths.max()) + 3, link=link)
    assert_close(more, expected)


def test_single_leaves_and_no_rows(call):
    forest, _ = make_forest(n_trees=1)
    rows = make_rows(4)
    found = call(predict_forest, rows[:3], forest, depth=0, link="sum")
    assert_close(found, walked(rows[:3], forest, "sum"))
    none = call(predict_forest, rows[:0], forest, depth=0, link="mean")
    assert none.mean.shape == none.spread.shape == (0, 2)


def test_trees_that_agree_have_no_spread_however_large_their_values(call):
    forest, _ = make_forest(n_trees=1)
    forest = forest._replace(root=np.zeros(9, dtype=np.int32), value=np.full((1, 2), 1e9 / 3))
    found = call(predict_forest, make_rows(3), forest, depth=1, link="mean")
    np.testing.assert_array_equal(found.spread, 0.0)
    np.testing.assert_array_equal(found.mean, 1e9 / 3)


def test_extreme_sums_are_probabilities_without_a_warning(call):
    forest, _ = make_forest(n_trees=1)
    forest = forest._replace(value=np.array([[-2000.0, 2000.0]]))
    found = call(predict_forest, make_rows(2), forest, depth=0, link="logistic")
    np.testing.assert_array_equal(found.mean, [[0.0, 1.0]] * 2)


def test_renamed_features_change_nothing(call):
    forest, depths = make_forest(seed=4, depth=3)
    rows, order = make_rows(), np.array([3, 0, 4, 1, 2])
    options = {"depth": int(depths.max()), "link": "mean"}
    moved = forest._replace(feature=np.argsort(order).astype(np.int32)[forest.feature])
    # Leaves look at any feature, and find none above infinity.
    assert_close(
        call(predict_forest, rows[:, order], moved, **options),
        call(predict_forest, rows, forest, **options),
    )


def test_one_trace(one_trace):
    forest, depths = make_forest(depth=3)
    batches = [(make_rows(seed=seed), forest) for seed in (5, 6)]
    one_trace(predict_forest, *batches, depth=int(depths.max()), link="mean", scale=1e-3)


def test_unknown_link_is_refused():
    forest, _ = make_forest()
    with pytest.raises(ValueError, match="link is 'probit': expected one of mean, sum, logistic"):
        predict_forest(make_rows(), forest, depth=6, link="probit")


FORESTS = {
    "shallower than the vector levels": {"depth": TOP - 2},
    "as deep as a crown": {"depth": 12, "branching": 0.9, "n_trees": 4},
    "far below the crown": {"depth": 40, "branching": 0.55, "n_trees": 20},
    "one output, many features": {"n_outputs": 1, "n_features": 300, "depth": 5},
}


@pytest.mark.parametrize("options", FORESTS.values(), ids=FORESTS)
def test_cpu_loops_equal_the_walk(options):
    forest, depths = make_forest(**options, seed=7)
    assert depths.max() == options["depth"]
    rows = make_rows(200, options.get("n_features", N_FEATURES))
    before = rows.copy()
    for link in ("mean", "sum"):
        loops = ForestLoops(forest, depths, link=link, n_threads=2)
        assert_close(loops(rows), walked(rows, forest, link))
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("n_rows", [0, 1, CHUNK, CHUNK + 1, 9 * CHUNK + 5])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_cpu_loops_leave_no_row_out(n_rows, n_threads):
    forest, depths = make_forest(seed=8)
    rows = make_rows(n_rows)
    loops = ForestLoops(forest, depths, link="logistic", n_threads=n_threads)
    found = loops(rows)
    expected = predict_forest(rows, forest, depth=int(depths.max()), link="logistic")
    assert_close(found, expected)


SIMULATED = """
import sys, warnings
warnings.simplefilter("error")
# numba-cuda 0.30 makes such constants when it is imported with NumPy 2.5.
warnings.filterwarnings("ignore", message="The 'generic' unit for NumPy timedelta")
import numpy as np
from astri_gpu.kernels.forest import Forest
from astri_gpu.kernels.loops import forest_cuda

data = np.load(sys.argv[1])
forest = Forest(*(data[name] for name in Forest._fields))
forest_cuda.ROWS, forest_cuda.THREADS = 25, 16  # several pieces and blocks, the last one not full
found = {}
for link in ("mean", "logistic"):
    loops = forest_cuda.ForestCuda(forest, data["depths"], link=link, xp=np)
    found[link] = loops(data["rows"])
    assert len(loops(data["rows"][:0]).mean) == 0
np.savez(sys.argv[2], **found)
"""


@pytest.mark.parametrize("options", [{}, {"depth": 20, "branching": 0.55, "n_trees": 9}])
def test_the_simulated_launch_equals_the_cpu(tmp_path, options):
    pytest.importorskip("numba.cuda")
    forest, depths = make_forest(**options, seed=9)
    forest = forest._replace(value=forest.value - 10)
    rows = make_rows(40)
    np.savez(tmp_path / "in.npz", rows=rows, depths=depths, **forest._asdict())
    run = subprocess.run(
        [sys.executable, "-c", SIMULATED, tmp_path / "in.npz", tmp_path / "out.npz"],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "out.npz") as found:
        for link in ("mean", "logistic"):
            expected = ForestLoops(forest, depths, link=link, n_threads=1)(rows)
            assert_close(ForestPrediction(*found[link]), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("xp", ["cupy"], indirect=True)
@pytest.mark.parametrize("options", FORESTS.values(), ids=FORESTS)
def test_the_gpu_equals_the_cpu(xp, options):
    forest, depths = make_forest(**options, seed=10)
    rows = make_rows(5000, options.get("n_features", N_FEATURES))
    for link in ("mean", "sum"):
        found = forest_cuda.ForestCuda(forest, depths, link=link, xp=xp)(rows)
        assert_close(found, ForestLoops(forest, depths, link=link, n_threads=2)(rows))


def test_without_a_gpu_one_sentence_says_what_to_do(monkeypatch):
    forest, depths = make_forest()
    monkeypatch.setitem(sys.modules, "astri_gpu.kernels.loops.forest_cuda_kernels", None)
    with pytest.raises(RuntimeError, match=r"need numba-cuda, .* choose the CPU\.$"):
        forest_cuda.ForestCuda(forest, depths, link="mean")
