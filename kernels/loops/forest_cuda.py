"""CUDA launch of the forest loops: one thread a row, which goes down one tree after the other.

Neighbouring threads go down the same tree, so that a warp shares the upper levels, and all warps at
work share the trees of a moment in the L2 cache.
"""

import warnings
from typing import Any

import numpy as np

from ..forest import Forest, ForestPrediction
from .cuda_device import device_view, load_cupy, load_kernels, stream
from .forest import LoopForest, linked, loop_forest

__all__ = ["ForestCuda"]

THREADS = 128
ROWS = 1 << 20
"""Rows on the device at a time: its memory is bounded, and its processors have enough to do."""


class ForestCuda:
    """An ensemble of trees on the current CUDA device; NumPy in and out.

    Parameters
    ----------
    forest : NumPy arrays
    depths : (tree,), levels of each tree
    link : see `predict_forest`
    xp : array namespace of the device, CuPy if None; NumPy for numba-cuda's simulator

    Raises
    ------
    RuntimeError
        Without numba-cuda, CuPy or a GPU; one sentence that says what to do.
    """

    def __init__(self, forest: Forest, depths, *, link: str, xp: Any = None) -> None:
        self._kernels = load_kernels("forest_cuda_kernels")
        self._xp = load_cupy() if xp is None else xp
        self._forest = LoopForest(*map(self._put, loop_forest(forest, depths)))
        self._baseline, self._link = forest.baseline, link

    def __call__(self, features) -> ForestPrediction:
        """Return the prediction for float32 rows of features."""
        shape = (len(features), len(self._baseline))
        result = ForestPrediction(np.empty(shape), np.empty(shape))
        for start in range(0, len(features), ROWS):
            piece = slice(start, start + ROWS)
            found = self._queue(features[piece])
            for whole, part in zip(result, found, strict=True):
                whole[piece] = part.get() if hasattr(part, "get") else part
        n_trees = self._forest.n_levels.shape[0]
        return linked(result, self._baseline, n_trees, self._link)

    def _queue(self, features) -> tuple[Any, Any]:
        """Queue rows on CuPy's current stream; return where mean and spread will be."""
        xp, cuda = self._xp, self._kernels.cuda
        n_rows = len(features)
        first, mean, spread = (xp.empty((n_rows, len(self._baseline))) for _ in range(3))
        there = self._put(features)
        n_threads = min(n_rows, THREADS)
        with warnings.catch_warnings():  # the last rows of a run may be few
            warnings.filterwarnings("ignore", message="Grid size .* under-utilization")
            configured = self._kernels.run_rows[
                -(-n_rows // n_threads), n_threads, stream(cuda, xp)
            ]
        views = (device_view(cuda, array) for array in (first, mean, spread))
        configured(there, self._forest, *views)
        return mean, spread

    def _put(self, array) -> Any:
        return device_view(self._kernels.cuda, self._xp.asarray(array))
