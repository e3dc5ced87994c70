"""The histogram of all thrown showers, which event weights and effective areas divide by."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["ThrownHistogram"]

LOG_ENERGY_MIN, LOG_ENERGY_MAX = -3, 3  # of TeV: what the model covers
BINS_PER_DECADE = 20
DISTANCE_STEP_M = 50.0
NOTE = (
    "Core distance: perpendicular to the pointing axis, from the array reference point; every use "
    "of a shower counts."
)


class ThrownHistogram:
    """Counts of thrown showers by core distance and energy.

    The energy bins are the same for all productions, so that histograms of parts and of other
    energy ranges add up. What lies outside (rounding at the edges) counts in the outermost bin.

    Parameters
    ----------
    reach_m
        Largest core distance, m.

    Attributes
    ----------
    histogram
        float64 (core_distance_bin, energy_bin).
    core_distance_edges, energy_edges
        m and TeV.
    """

    note = NOTE

    def __init__(self, reach_m: float) -> None:
        n_distances = max(1, math.ceil(reach_m / DISTANCE_STEP_M - 1e-9))
        n_energies = (LOG_ENERGY_MAX - LOG_ENERGY_MIN) * BINS_PER_DECADE
        self.core_distance_edges = DISTANCE_STEP_M * np.arange(n_distances + 1)
        self.energy_edges = 10.0 ** np.linspace(LOG_ENERGY_MIN, LOG_ENERGY_MAX, n_energies + 1)
        self.histogram = np.zeros((n_distances, n_energies))

    @property
    def n_entries(self) -> int:
        """Return how many showers were counted, every use of them."""
        return int(self.histogram.sum())

    def fill(self, distance: NDArray[np.float64], energy: NDArray[np.float64]) -> None:
        """Count thrown showers at these core distances (m) and energies (TeV), (event,) each."""
        row = self._bin(self.core_distance_edges, distance)
        column = self._bin(self.energy_edges, energy)
        n_rows, n_columns = self.histogram.shape
        counts = np.bincount(row * n_columns + column, minlength=n_rows * n_columns)
        self.histogram += counts.reshape(self.histogram.shape)

    @staticmethod
    def _bin(edges: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.int64]:
        return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
