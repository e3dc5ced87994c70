"""CPU launch of the forest loops: rows shared out over threads."""

import numba
import numpy as np

from ..forest import Forest, ForestPrediction
from ._compile import compiled
from .forest import (
    CHUNK,
    LoopForest,
    add_trees,
    linked,
    loop_forest,
    moments,
    transpose_rows,
)

__all__ = ["ForestLoops"]

BLOCK = 8  # chunks that see a tree before the next one: it stays in the L2 cache, and so do they


@compiled(parallel=True, counted=True)
def _run(features, forest, n_workers, mean, spread):
    n_rows, n_features = features.shape
    n_outputs = forest.value.shape[0]
    n_trees = forest.n_levels.shape[0]
    n_chunks = (n_rows + CHUNK - 1) // CHUNK
    for worker in numba.prange(n_workers):
        flat = np.empty((BLOCK, n_features * CHUNK), np.float32)
        columns = flat.reshape((BLOCK, n_features, CHUNK))
        is_finite = np.empty(BLOCK * CHUNK, np.bool_)
        node, waiting = np.empty(CHUNK, np.uint32), np.empty(CHUNK, np.uint32)
        first = np.empty((n_outputs, BLOCK * CHUNK))
        total = np.empty((n_outputs, BLOCK * CHUNK))
        squares = np.empty((n_outputs, BLOCK * CHUNK))
        last = (worker + 1) * n_chunks // n_workers
        for chunk in range(worker * n_chunks // n_workers, last, BLOCK):
            start, stop = chunk * CHUNK, min(n_rows, min(chunk + BLOCK, last) * CHUNK)
            transpose_rows(features, start, stop - start, columns, is_finite)
            used = (stop - start + CHUNK - 1) // CHUNK
            add_trees(columns, flat, used, forest, node, waiting, first, total, squares)
            for output in range(n_outputs):
                for r in range(stop - start):
                    mean[start + r, output], spread[start + r, output] = moments(
                        first[output, r], total[output, r], squares[output, r], n_trees,
                        is_finite[r],
                    )  # fmt: skip


class ForestLoops:
    """An ensemble of trees, ready to run on the CPU.

    Parameters
    ----------
    forest : NumPy arrays
    depths : (tree,), levels of each tree
    link : see `predict_forest`
    n_threads : that share the rows
    """

    def __init__(self, forest: Forest, depths, *, link: str, n_threads: int) -> None:
        self._forest: LoopForest = loop_forest(forest, depths)
        self._baseline, self._link = forest.baseline, link
        limit: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        self._n_threads = max(1, min(n_threads, limit))

    def __call__(self, features) -> ForestPrediction:
        """Return the prediction for float32 rows of features, NumPy in and out."""
        shape = (len(features), len(self._baseline))
        mean, spread = np.empty(shape), np.empty(shape)
        # Numba keeps one number for all: it is set where it is used.
        numba.set_num_threads(self._n_threads)
        _run(features, self._forest, self._n_threads, mean, spread)
        n_trees = len(self._forest.n_levels)
        return linked(ForestPrediction(mean, spread), self._baseline, n_trees, self._link)
