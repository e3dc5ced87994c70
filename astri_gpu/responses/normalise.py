"""From sums of selected events to responses: divided as pyirf divides, with statistical errors.

Errors are the limits that bootstrap samples tend to, so cells need none: when every shower is drawn
a Poisson(1) number of times, the variance of a weighted sum is the sum of squared weights. Gammas
that pass out of those thrown are binomial; shares of the gammas that passed are multinomial.
Showers that are used several times make all of these errors a little too small.
"""

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.responses.counts import Counts
from astri_gpu.responses.irf import Edges, Irf
from astri_gpu.selection.sample import solid_angle

__all__ = ["effective_area_reco", "field_solid_angle", "ring_solid_angle", "share", "to_irf"]

Floats = NDArray[np.float64]

TEV_PER_MEV = 1e-6


def to_irf(counts: Counts) -> Irf:
    """Return the response that the sums stand for, in their bins.

    Returns
    -------
    Irf
        Effective area (m2) = selected / thrown x area; energy dispersion per unit of migra, and
        point spread function per sr, over the events within their outermost edges; background per
        s, MeV and sr. Cells without events (or showers) are 0, with an error of 0: `n_events`
        tells. `rad_max` is there when the theta cut is in the numbers.
    """
    edges = counts.edges
    area, area_error = share(counts.selected, counts.thrown, counts.area_m2)
    migration, migration_error = _density(counts.migration, np.diff(edges.migra))
    psf, psf_error = _density(counts.radial, solid_angle(edges.rad[:-1], edges.rad[1:]))
    per_ring = np.diff(edges.reco_energy)[:, None] * ring_solid_angle(edges) / TEV_PER_MEV
    per_cell = np.diff(edges.reco_energy)[:, None, None] * field_solid_angle(edges) / TEV_PER_MEV
    return Irf(
        event_class=counts.event_class,
        zenith_deg=counts.zenith_deg,
        azimuth_deg=counts.azimuth_deg,
        edges=edges,
        point_like=counts.point_like,
        effective_area=area,
        effective_area_error=area_error,
        energy_dispersion=migration,
        energy_dispersion_error=migration_error,
        psf=psf,
        psf_error=psf_error,
        background_2d=counts.ring_rate / per_ring,
        background_2d_error=np.sqrt(counts.ring_variance) / per_ring,
        background_3d=counts.field_rate / per_cell,
        background_3d_error=np.sqrt(counts.field_variance) / per_cell,
        rad_max=counts.rad_max if counts.point_like else None,
        n_events=counts.selected,
        valid_tev=counts.valid_tev,
        meta=dict(counts.meta),
    )


def effective_area_reco(counts: Counts) -> Floats:
    """Return gammas selected in bins of reconstructed energy over those thrown there, m2, (R, O).

    Raises
    ------
    AstriError
        When true and reconstructed energy have different bins.
    """
    edges = counts.edges
    if not np.array_equal(edges.true_energy, edges.reco_energy):
        raise AstriError(
            "The effective area by reconstructed energy needs equal bins of true and reconstructed "
            f"energy, not {len(edges.true_energy) - 1} and {len(edges.reco_energy) - 1}: take "
            "the fine bins."
        )
    return share(counts.selected_reco, counts.thrown, counts.area_m2)[0]


def share(passed: Floats, total: Floats, scale: float) -> tuple[Floats, Floats]:
    """Return scale x passed / total and its binomial error; 0 where the total is 0.

    Where more passed than were thrown (energies migrate), the error is that of the number passed.
    """
    known = total > 0
    total = np.where(known, total, 1.0)
    part = np.where(known, passed / total, 0.0)
    variance = part * np.where(part <= 1, 1 - part, 1.0) / total
    # All passed, or all but a rounding: the error of one event less.
    variance = np.where((passed > 0) & (variance <= 0), part / total**2, variance)
    return scale * part, scale * np.sqrt(np.where(known, variance, 0.0))


def ring_solid_angle(edges: Edges) -> Floats:
    """Return the solid angle of each bin of the offset, (O,), sr."""
    return np.asarray(solid_angle(edges.offset[:-1], edges.offset[1:]))


def field_solid_angle(edges: Edges) -> Floats:
    """Return the solid angle of each bin of the field of view, (X, Y), sr.

    X is a longitude and Y a latitude of a sphere about the pointing.
    """
    side = np.deg2rad(edges.detector)
    return np.diff(side)[:, None] * np.diff(np.sin(side))[None, :]


def _density(counted: Floats, width: Floats) -> tuple[Floats, Floats]:
    """Return the density along the middle axis and its error; 0 where nothing was counted."""
    total = counted.sum(axis=1, keepdims=True)
    total = np.where(total > 0, total, 1.0)
    part = counted / total
    error = np.sqrt(part * (1 - part) / total)
    # A cell with all events is uncertain by about one of them.
    error = np.where(part >= 1, 1 / (total + 1), error)
    return part / width[None, :, None], error / width[None, :, None]
