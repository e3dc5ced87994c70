"""Triggers of the telescopes, as the simulation makes them and the readout takes them."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_SHOWER", "SHOWER", "Showers", "Triggers", "joined"]

SHOWER = 32
"""Event type of showers (CTAO's number)."""
NO_SHOWER = -1


class Triggers(NamedTuple):
    """Images that triggered, in any order, (trigger, ...) each."""

    tel: NDArray[np.int64]  # row of the telescope
    time_ns: NDArray[np.int64]  # true time, from the start of the run
    event: NDArray[np.int64]  # number of the shower, NO_SHOWER for calibration events
    event_type: NDArray[np.uint8]
    adc: NDArray[np.uint16]  # (trigger, gain, pixel)
    pixels: NDArray[np.bool_]  # (trigger, pixel), those that fired

    def take(self, rows: Any) -> "Triggers":
        """Return some of them."""
        return Triggers._make(column[rows] for column in self)


class Showers(NamedTuple):
    """Showers that triggered a telescope, in the order of their time, (shower,) each."""

    event: NDArray[np.int64]  # number, from 0
    kind: NDArray[np.int32]  # sim_telarray's number of the primary
    energy: NDArray[np.float64]  # TeV
    alt: NDArray[np.float64]  # deg
    az: NDArray[np.float64]
    core_x: NDArray[np.float64]  # m
    core_y: NDArray[np.float64]
    time_ns: NDArray[np.int64]  # at which the front passes the core, from the start of the run


Columns = TypeVar("Columns", Triggers, Showers)


def joined(parts: Sequence[Columns]) -> Columns:
    """Return several tables as one; at least one is given."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])._make(np.concatenate(column) for column in zip(*parts, strict=True))
