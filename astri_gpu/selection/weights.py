"""Rates that simulated events stand for, and how many showers were thrown.

The definitions are those of pyirf (`SimulatedEventsInfo`, `PowerLaw.from_simulation`,
`integrate_cone`, `calculate_event_weights`), here for several run headers at once: the density of
a mixture is the sum of those of its parts.
"""

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_response import FluxConfig
from astri_gpu.errors import AstriError
from astri_gpu.selection.sample import EventTable, Thrown, solid_angle
from astri_gpu.selection.spectra import flux_density

__all__ = ["cone_share", "inside_offsets", "rates", "thrown_counts"]

Floats = NDArray[np.float64]

SAME_DEG = 1e-4  # point-like showers lie at one angle but for so much


def rates(
    table: EventTable, flux: FluxConfig, *, offsets_deg: tuple[float, float] | None = None
) -> Floats:
    """Return the rate (event,) in 1/s that each event stands for.

    Parameters
    ----------
    table
        Of one kind of particle.
    flux
        Spectra by kind.
    offsets_deg
        For gammas, which are those of a point source: its smallest offset and the one that it
        stays below. Diffuse gammas in this ring are weighted to a source that is anywhere in it;
        events elsewhere get 0. None takes the whole cone. Other particles come from all sides, and
        it has no part in their rates.

    Returns
    -------
    (event,), 1/s. Even or odd showers alone stand for all of them: their weights are doubled.

    Raises
    ------
    UsageError
        When there is no such spectrum.
    AstriError
        When the energy of an event is in no run header, or the ring lies outside the cone.
    """
    energy = table.columns["true_energy"]
    wanted = flux_density(getattr(flux, table.kind), table.kind, energy)
    thrown = np.zeros(len(energy))
    for entry in table.thrown:
        thrown += entry.density(energy) / entry.area_m2 * table.part
    if len(energy) and not (thrown > 0).all():
        row = int(np.argmin(thrown > 0))
        raise AstriError(
            f"A {table.kind} of {energy[row]:.4g} TeV in {table.paths[0]} is outside the energies "
            "of the run headers, so it has no weight: make the store again."
        )
    if table.kind == "gamma":
        wanted = wanted * _of_point_source(table, offsets_deg)
    else:
        thrown /= table.thrown[0].solid_angle_sr
    return wanted / thrown


def _of_point_source(table: EventTable, offsets_deg: tuple[float, float] | None) -> Floats:
    """Return by how much the weight of each gamma of a cone grows for a source in a ring."""
    use = inside_offsets(table, offsets_deg)
    if table.point_like:
        return use.astype(np.float64)
    low, high = offsets_deg or (0.0, 180.0)
    share = float(cone_share(table.thrown[0], low, high))
    if share <= 0:
        cone = table.thrown[0]
        raise AstriError(
            f"The gammas of {table.paths[0]} were thrown {cone.cone_min_deg:g} to "
            f"{cone.cone_max_deg:g} deg from the pointing, none of them at offsets of {low:g} to "
            f"{high:g} deg: choose other offsets."
        )
    return use / share


def inside_offsets(table: EventTable, offsets_deg: tuple[float, float] | None) -> NDArray[np.bool_]:
    """Return the events (event,) whose true offset is in a ring: from the first, below the last."""
    offset = table.columns["true_offset"]
    if offsets_deg is None:
        return np.ones(len(offset), dtype=bool)
    slack = SAME_DEG if table.point_like else 0.0
    return (offset >= offsets_deg[0] - slack) & (offset < offsets_deg[1] - slack)


def cone_share(thrown: Thrown, low_deg: Floats | float, high_deg: Floats | float) -> Floats:
    """Return the share of diffuse showers between offsets in deg."""
    ends = (np.clip(ends, thrown.cone_min_deg, thrown.cone_max_deg) for ends in (low_deg, high_deg))
    return np.asarray(solid_angle(*ends) / thrown.solid_angle_sr)


def thrown_counts(table: EventTable, energy_edges: Floats, offset_edges: Floats) -> Floats:
    """Return the expected number of thrown showers, (energy, offset).

    Parameters
    ----------
    table
        Its headers are added; of even or odd showers it is half their number.
    energy_edges, offset_edges
        TeV and deg, (bin + 1,).

    Returns
    -------
    (energy, offset). Point-like showers are all in the bin of their offset.
    """
    by_energy = sum(
        (entry.n_showers * entry.share(energy_edges[:-1], energy_edges[1:]))
        for entry in table.thrown
    )
    if table.point_like:
        offset = table.columns["true_offset"]
        place = float(np.median(offset)) if len(offset) else table.thrown[0].cone_min_deg
        inside = (place >= offset_edges[:-1] - SAME_DEG) & (place < offset_edges[1:] - SAME_DEG)
        by_offset = inside.astype(np.float64)
    else:
        by_offset = cone_share(table.thrown[0], offset_edges[:-1], offset_edges[1:])
    return np.asarray(by_energy)[:, None] * by_offset[None, :] * table.part
