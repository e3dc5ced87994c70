"""Power laws of energy: the integral, and how many showers were thrown at an energy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["density", "integral"]

Floats = NDArray[np.float64]


def integral(index: float, low: Any, high: Any) -> Any:
    """Return the integral of E^index over each interval, zero where `high` is not above `low`."""
    high = np.maximum(high, low)
    power = index + 1
    if abs(power) < 1e-9:
        return np.log(high / low)
    return (high**power - low**power) / power


def density(energy: Floats, number: float, index: float, low: float, high: float) -> Floats:
    """Return `number` showers of E^index from `low` to `high` (TeV) per TeV; 0 outside the range.

    Limits may have been rounded, and single precision energies at them count as inside.
    """
    inside = (energy >= low * (1 - 1e-6)) & (energy <= high * (1 + 1e-6))
    return np.where(inside, number / integral(index, low, high) * energy**index, 0.0)
