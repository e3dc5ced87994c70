"""Instrument response functions as arrays, in the axes and units of GADF."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Edges", "Irf"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Edges:
    """Edges of the bins: energies in TeV, angles in deg, each rising, (bin + 1,)."""

    true_energy: Floats
    reco_energy: Floats
    offset: Floats
    migra: Floats
    rad: Floats
    detector: Floats
    """Of both sides of the field of view, for the background."""


@dataclass(frozen=True)
class Irf:
    """The response of one event class to one pointing, or to one observation.

    Axes: E true energy, R reconstructed energy, O offset, M migra, T rad, X and Y field of view.
    Cells without simulated events hold 0, as pyirf leaves them; `n_events` tells.

    Attributes
    ----------
    event_class
        Of the cuts.
    zenith_deg, azimuth_deg
        Of the pointing, or the time-weighted mean.
    edges
        Of all axes.
    point_like
        Whether the theta cut is in the numbers; then `rad_max` is there.
    effective_area, effective_area_error
        m2, (E, O).
    energy_dispersion, energy_dispersion_error
        Probability density of migra, (E, M, O).
    psf, psf_error
        Probability density in sr-1, (E, T, O).
    background_2d, background_2d_error
        s-1 MeV-1 sr-1, (R, O).
    background_3d, background_3d_error
        s-1 MeV-1 sr-1, (R, X, Y).
    rad_max
        deg, (R, O), or None.
    n_events
        Simulated gammas that were selected, (E, O).
    valid_tev
        Reconstructed energies for which there are cuts.
    meta
        Origin: models, simulation_model, options, provenance, zeniths that went in.
    """

    event_class: str
    zenith_deg: float
    azimuth_deg: float
    edges: Edges
    point_like: bool
    effective_area: Floats
    effective_area_error: Floats
    energy_dispersion: Floats
    energy_dispersion_error: Floats
    psf: Floats
    psf_error: Floats
    background_2d: Floats
    background_2d_error: Floats
    background_3d: Floats
    background_3d_error: Floats
    rad_max: Floats | None
    n_events: Floats
    valid_tev: tuple[float, float]
    meta: dict[str, Any] = field(default_factory=dict)
