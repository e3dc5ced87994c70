"""What the store says about the true development of a shower."""

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.shower import depth_of_maximum, height_of_depth, stretch
from astri_gpu.kernels.simulation_types import Primaries, ShowerRows, StepGrid

__all__ = ["shower_maximum", "starting_height"]


def starting_height(rows: ShowerRows, primaries: Primaries, grid: StepGrid) -> NDArray[np.float64]:
    """Return the vertical height of the first interaction above the array, m, (shower,)."""
    length, gain = stretch(primaries.q_lon, primaries.q_lat, grid)
    along_axis = rows.first_interaction * gain / length
    return height_of_depth(along_axis, grid) * grid.cos_zenith


def shower_maximum(rows: ShowerRows, primaries: Primaries, grid: StepGrid) -> NDArray[np.float64]:
    """Return the depth of the maximum along the line of the primary, g/cm2, (shower,).

    NaN for a shower without electromagnetic rows (a single muon).
    """
    length, gain = stretch(primaries.q_lon, primaries.q_lat, grid)
    return depth_of_maximum(rows.em, rows.em_start, grid) * length / gain
