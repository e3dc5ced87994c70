"""What a performance curve is: bins, estimates with errors, and how many events are behind them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AXES", "FEW_EVENTS", "KINDS", "Column", "Curve", "Curves", "Estimate", "Kind"]

Floats = NDArray[np.float64]
FEW_EVENTS = 10
"""Bins with fewer simulated events are flagged."""


class Column(NamedTuple):
    """Unit and meaning of a number of a curve."""

    unit: str
    text: str


class Kind(NamedTuple):
    """What the curves of a kind hold."""

    title: str
    labels: dict[str, Column]
    values: dict[str, Column]
    counts: dict[str, Column]


AXES = {
    "true_energy": Column("TeV", "True energy"),
    "reco_energy": Column("TeV", "Reconstructed energy"),
    "true_offset": Column("deg", "True angle between gamma and pointing"),
}
"""What bins may be of."""

_CLASS = {
    "event_class": Column("", "Class of the cuts, or what a reference is"),
    "zenith_deg": Column("deg", "Zenith angle of the pointing"),
    "azimuth_deg": Column("deg", "Azimuth angle of the pointing"),
}
_GAMMAS = {"n_events": Column("", "Simulated gammas in the bin")}
_SELECTION = Column("", "Which cuts the gammas passed")

KINDS = {
    "sensitivity": Kind(
        "Differential sensitivity",
        {
            **_CLASS,
            "exposure_h": Column("h", "Observing time"),
            "optimised_for_h": Column("h", "Observing time that the cuts are best for, if any"),
        },
        {
            "flux_e2": Column("erg s-1 cm-2", "E^2 dN/dE of the weakest source detected"),
            "flux": Column("TeV-1 s-1 cm-2", "dN/dE of the weakest source detected"),
            "relative": Column("", "The same over the spectrum of flux.gamma"),
            "ratio": Column("", "flux_e2 over the published 50 h sensitivity of ASTRI; 50 h only"),
        },
        {
            "n_signal": Column("", "Gammas expected from a source of the spectrum of flux.gamma"),
            "n_background": Column("", "Background expected in the on region"),
            "n_signal_events": Column("", "Simulated gammas behind n_signal"),
            "n_background_events": Column("", "Simulated background events behind n_background"),
            "cut_flags": Column("", "Of the cuts: 1 few gammas, 2 few background, 4 no detection"),
            "n_background_worth": Column(
                "", "Events of equal weight that give the error of n_background, missed kinds too"
            ),
            "few_events": Column(
                "", "1: fewer than 10 gammas or background events, or background worth fewer than 5"
            ),
        },
    ),
    "angular_resolution": Kind(
        "Angular resolution",
        {**_CLASS, "selection": _SELECTION},
        {
            "radius_68": Column("deg", "68.27 % of the gammas are found within this angle"),
            "radius_95": Column("deg", "95 % of the gammas are found within this angle"),
        },
        _GAMMAS,
    ),
    "energy_resolution": Kind(
        "Energy resolution",
        {**_CLASS, "selection": _SELECTION},
        {
            "bias": Column("", "Median of E_reco / E_true - 1"),
            "resolution": Column("", "Half of the central 68.27 % of E_reco / E_true - 1"),
        },
        _GAMMAS,
    ),
    "effective_area": Kind(
        "Effective area",
        {**_CLASS, "selection": _SELECTION},
        {"area": Column("m2", "Area of the cores times the share of thrown gammas selected")},
        _GAMMAS,
    ),
    "background_rate": Kind(
        "Background rate",
        {**_CLASS, "particle": Column("", "Particle, or all of them")},
        {
            "rate": Column("s-1", "In the bin of energy, inside the theta cut"),
            "intensity": Column("TeV-1 s-1 sr-1", "Before the theta cut"),
        },
        {"n_events": Column("", "Simulated events in the ring of offsets")},
    ),
    "offset": Kind(
        "Performance across the field of view",
        {
            **_CLASS,
            "energy_low": Column("TeV", "Energies, from (true ones, reconstructed ones of rates)"),
            "energy_high": Column("TeV", "Energies, to"),
            "exposure_h": Column("h", "Observing time"),
        },
        {
            "radius_68": Column("deg", "68.27 % of the gammas are found within this angle"),
            "relative": Column("", "Weakest source detected in these energies, over flux.gamma"),
        },
        {
            **_GAMMAS,
            "n_signal_events": Column("", "Simulated gammas inside the theta cut"),
            "n_background_events": Column("", "Simulated background events in the ring"),
        },
    ),
}
"""All curves; the names are those of the tables too."""


@dataclass(frozen=True)
class Estimate:
    """Values with the ends of their one-sigma intervals, (bin,) each; NaN where not known."""

    value: Floats
    low: Floats
    high: Floats

    def times(self, factor: Floats | float) -> "Estimate":
        """Return the estimate in other units."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    @classmethod
    def exact(cls, value: Floats) -> "Estimate":
        """Return values whose errors are not known."""
        nothing = np.full(len(value), np.nan)
        return cls(np.asarray(value, dtype=np.float64), nothing, nothing)


@dataclass(frozen=True)
class Curve:
    """One line in a diagram.

    Attributes
    ----------
    kind
        One of `KINDS`, which has names, units and meaning of all below.
    labels
        What the curve is of.
    axis
        One of `AXES`.
    edges
        (bin + 1,)
    values, counts
        (bin,) each. NaN: there is no cut, or there are no events. inf: no source is bright enough.
    """

    kind: str
    labels: dict[str, Any]
    axis: str
    edges: Floats
    values: dict[str, Estimate]
    counts: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def centres(self) -> Floats:
        """Return the middle of the bins: geometric ones of energies."""
        if self.axis == "true_offset":
            return (self.edges[:-1] + self.edges[1:]) / 2
        return np.sqrt(self.edges[:-1] * self.edges[1:])


@dataclass(frozen=True)
class Curves:
    """All curves of a set of classes and pointings, and where they come from.

    Attributes
    ----------
    curves
        Ordered by kind, class, pointing.
    meta
        `simulation_model`, `models`, `cameras`, `part`, `flux`, `n_bootstrap`.
    """

    curves: tuple[Curve, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str, **labels: Any) -> list[Curve]:
        """Return the curves of a kind whose labels (or `axis`) have these values."""
        return [
            curve
            for curve in self.curves
            if curve.kind == kind
            and all(
                (curve.axis if name == "axis" else curve.labels.get(name)) == value
                for name, value in labels.items()
            )
        ]

    def __iter__(self) -> Iterator[Curve]:
        return iter(self.curves)
