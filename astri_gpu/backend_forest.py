"""Forests on the backends: any number of rows on the host in, predictions on the host out."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.kernels.forest import (
    Forest,
    ForestPrediction,
    descend,
    enter_trees,
    leave_trees,
)

if TYPE_CHECKING:
    from astri_gpu.backend import Backend
    from astri_gpu.reconstruction.flatten import FlatForest

__all__ = ["ArrayForest", "ForestCall", "cpu_forest", "cuda_forest"]

ForestCall = Callable[[NDArray[Any]], ForestPrediction]
ROWS = 4096
"""Rows that the array text takes at a time: it holds several arrays of rows x trees."""
FEWEST_ROWS = 256


def checked(features: NDArray[Any], n_features: int) -> NDArray[np.float32]:
    """Return features as the loops take them, float32 and without gaps.

    Raises
    ------
    AstriError
        When they are not (row, feature) of a forest with so many features.
    """
    if features.ndim != 2 or features.shape[1] != n_features:
        raise AstriError(
            f"The features are an array of shape {features.shape}: this forest needs (row, "
            f"{n_features}), the features in the order of its training."
        )
    with np.errstate(over="ignore"):  # becomes infinite, and the row is not predicted
        return np.ascontiguousarray(features, dtype=np.float32)


def cpu_forest(flat: "FlatForest", threads: int) -> ForestCall:
    """Return the compiled loops on so many threads of the CPU."""
    from astri_gpu.kernels.loops.forest_cpu import ForestLoops

    loops = ForestLoops(flat.forest, flat.depths, link=flat.link, n_threads=threads)
    return lambda features: loops(checked(features, flat.n_features))


def cuda_forest(flat: "FlatForest") -> ForestCall:
    """Return the compiled loops on the current CUDA device.

    Raises
    ------
    AstriError
        When numba-cuda, CuPy or a GPU is missing.
    """
    from astri_gpu.kernels.loops.forest_cuda import ForestCuda

    try:
        loops = ForestCuda(flat.forest, flat.depths, link=flat.link)
    except RuntimeError as error:  # the text says what is missing
        raise AstriError(f"backend=cupy: {error}") from error
    return lambda features: loops(checked(features, flat.n_features))


class ArrayForest:
    """The array text on the arrays of a backend.

    Rows go in pieces of few different sizes, the last one padded, so that little is compiled. Each
    level is a call: as one function, 100 trees of depth 12 took XLA 4 s to compile and ran at
    11 000 rows/s on two cores, level by level 2 s and 180 000 rows/s (NumPy: 40 000).
    """

    def __init__(self, backend: "Backend", flat: "FlatForest") -> None:
        self._backend = backend
        self._flat = flat
        self._forest = Forest(*map(backend.asconstant, flat.forest))
        self._enter = backend.compile(enter_trees)
        self._descend = backend.compile(descend)
        self._leave = backend.compile(leave_trees, static=("link",))

    def __call__(self, features: NDArray[Any]) -> ForestPrediction:
        """Return the prediction for each row, NumPy arrays."""
        features = checked(features, self._flat.n_features)
        shape = (len(features), self._flat.n_outputs)
        result = ForestPrediction(np.empty(shape), np.empty(shape))
        for start in range(0, len(features), ROWS):
            piece = features[start : start + ROWS]
            found = self._piece(piece)
            for whole, part in zip(result, found, strict=True):
                whole[start : start + ROWS] = self._backend.to_host(part)[: len(piece)]
        return result

    def _piece(self, piece: NDArray[np.float32]) -> ForestPrediction:
        if self._backend.fixed_shape:
            n_rows = FEWEST_ROWS
            while n_rows < len(piece):
                n_rows *= 2
            padding = np.zeros((n_rows - len(piece), piece.shape[1]), dtype=np.float32)
            piece = np.concatenate([piece, padding])
        (there,) = self._backend.asbatch(piece)
        node = self._enter(there, self._forest)
        for _ in range(self._flat.depth):
            node = self._descend(there, node, self._forest)
        found: ForestPrediction = self._leave(there, node, self._forest, link=self._flat.link)
        return found
