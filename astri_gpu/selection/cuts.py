"""Cuts of an event class, in bins of reconstructed energy, and how they are applied."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEW_BACKGROUND", "FEW_SIGNAL", "NOT_SENSITIVE", "Cuts"]

Floats = NDArray[np.float64]

FEW_SIGNAL = 1  # too few simulated gammas: no cut
FEW_BACKGROUND = 2  # no cut leaves enough simulated background: the loosest one is taken
NOT_SENSITIVE = 4  # no cut reaches a detection: the one with most gammas is taken


@dataclass(frozen=True)
class Cuts:
    """Cuts of an event class; arrays have one value per energy bin.

    Attributes
    ----------
    event_class, mode, exposure_h, gamma_efficiency
        As in `CutsConfig`; what does not matter for the mode is None.
    filter
        Condition on columns of dl2/event that comes first.
    energy_edges
        TeV, (bin + 1,), rising.
    gammaness, theta_deg
        Least gammaness, largest angle from the source; NaN where there is no valid cut.
    n_tels, quality
        Fewest images, worst event type.
    gammaness_efficiency, theta_efficiency
        Shares of gammas from which the cuts were taken.
    flags
        `FEW_SIGNAL`, `FEW_BACKGROUND`, `NOT_SENSITIVE`; 0 = none.
    curve
        What the optimisation saw, per bin: n_signal and n_background (weighted, in the on region),
        relative_sensitivity, sensitivity (E2 flux at the geometric centre of the bin,
        erg / (cm2 s)), n_signal_events and n_background_events (simulated, the latter in the ring).
    meta
        Origin: zenith_deg, azimuth_deg, models, simulation_model, cameras, options, provenance.
    """

    event_class: str
    mode: str
    exposure_h: float | None
    gamma_efficiency: float | None
    filter: str
    energy_edges: Floats
    gammaness: Floats
    theta_deg: Floats
    n_tels: NDArray[np.int64]
    quality: NDArray[np.int64]
    gammaness_efficiency: Floats
    theta_efficiency: Floats
    flags: NDArray[np.int64]
    curve: dict[str, Floats] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Return the bins that have a cut."""
        return np.isfinite(self.gammaness)

    @property
    def valid_range_tev(self) -> tuple[float, float] | None:
        """Return the energies between which every bin has a cut; None if no bin has one.

        Of several such stretches it is the longest one.
        """
        edges = np.flatnonzero(np.diff(np.concatenate([[0], self.valid.astype(int), [0]])))
        if not len(edges):
            return None
        starts, stops = edges[::2], edges[1::2]
        longest = int(np.argmax(stops - starts))
        return float(self.energy_edges[starts[longest]]), float(self.energy_edges[stops[longest]])

    @property
    def offsets_deg(self) -> tuple[float, float]:
        """Return the offsets of gammas that the cuts were made for."""
        options = (self.meta.get("options") or {}).get("cuts") or {}
        return float(options.get("offset_min_deg", 0.0)), float(options.get("offset_max_deg", 1.0))

    def bins(self, reco_energy: Floats) -> NDArray[np.int64]:
        """Return the bin of each energy (TeV), -1 outside the edges and for NaN."""
        index = np.searchsorted(self.energy_edges, reco_energy, side="right") - 1
        inside = (reco_energy >= self.energy_edges[0]) & (reco_energy < self.energy_edges[-1])
        return np.where(inside, index, -1)

    def select(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return the events (event,) that pass all cuts but theta.

        Parameters
        ----------
        columns
            `reco_energy` (TeV), `gammaness`, `n_tels`, `quality`, as in `EventTable`. The filter
            has been applied when the events were read.
        """
        place = self.bins(columns["reco_energy"])
        known = place >= 0
        place = np.where(known, place, 0)
        return (
            known
            & self.valid[place]
            & (columns["gammaness"] >= self.gammaness[place])
            & (columns["n_tels"] >= self.n_tels[place])
            & (columns["quality"] <= self.quality[place])
        )

    def inside(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return the events (event,) whose `theta` (deg) passes the cut of their energy."""
        place = self.bins(columns["reco_energy"])
        limit = np.where(place >= 0, self.theta_deg[np.maximum(place, 0)], np.nan)
        return columns["theta"] <= limit
