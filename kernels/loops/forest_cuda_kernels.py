"""The kernel of `forest_cuda`; importing this module needs numba-cuda or its simulator."""

from typing import Any

from numba import cuda as numba_cuda

from .forest import predict_row

__all__ = ["cuda", "run_rows"]

cuda: Any = numba_cuda  # its annotations are those of functions that compile kernels


@cuda.jit
def run_rows(features, forest, first, mean, spread):
    """Write mean and standard deviation of the trees, one thread a row."""
    row = cuda.grid(1)
    if row < features.shape[0]:
        predict_row(features[row], forest, first[row], mean[row], spread[row])
