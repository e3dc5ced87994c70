"""Sums over selected events from which responses are made; they add up and can be regrouped."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_response import BinningConfig
from astri_gpu.responses.irf import Edges

__all__ = ["Counts", "Irf2"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Selected events of one class and one pointing, in fine bins (axes as in `Irf`).

    Attributes
    ----------
    area_m2
        Of the disc of cores.
    thrown
        Expected number of thrown gammas, (E, O).
    selected
        Selected gammas, (E, O).
    selected_reco
        The same by reconstructed energy, (R, O).
    migration
        Selected gammas, (E, M, O).
    radial
        Selected gammas by theta, (E, T, O); of all thetas, where `point_like` cuts them elsewhere.
    ring_rate, ring_variance, ring_events
        Background per second, the sum of squared weights, and simulated events, (R, O).
    field_rate, field_variance
        Background per second and sum of squared weights, (R, X, Y).
    rad_max
        Theta cut in deg, (R, O), where the class has a cut (else NaN).
    """

    event_class: str
    zenith_deg: float
    azimuth_deg: float
    edges: Edges
    point_like: bool
    area_m2: float
    thrown: Floats
    selected: Floats
    selected_reco: Floats
    migration: Floats
    radial: Floats
    ring_rate: Floats
    ring_variance: Floats
    ring_events: Floats
    field_rate: Floats
    field_variance: Floats
    rad_max: Floats
    valid_tev: tuple[float, float]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Irf2:
    """The responses of one event class to all pointings that were simulated, in fine bins.

    Attributes
    ----------
    counts
        One per pointing, by zenith and azimuth.
    binning
        Of the fine bins, and how many make a coarse one.
    meta
        What the file says of its origin, such as `provenance`.
    """

    counts: tuple[Counts, ...]
    binning: BinningConfig
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def event_class(self) -> str:
        """Return the class of the cuts."""
        return self.counts[0].event_class
