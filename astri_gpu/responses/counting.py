"""Count selected events in the fine bins of responses.

Definitions are those of pyirf (`effective_area_per_energy_and_fov`, `energy_dispersion`,
`psf_table`, `background_2d`): true energy and true offset for gammas, reconstructed ones for the
background. What is counted here are only sums, which add up over bins; `normalise` divides.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_response import FluxConfig
from astri_gpu.errors import AstriError
from astri_gpu.responses.counts import Counts
from astri_gpu.responses.irf import Edges
from astri_gpu.selection.cuts import Cuts
from astri_gpu.selection.sample import EventTable, Sample
from astri_gpu.selection.weights import rates, thrown_counts

__all__ = ["DIFFUSE", "POINT_LIKE", "check_origin", "count", "gammas_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DIFFUSE = "diffuse"
POINT_LIKE = "point-like"


def count(
    sample: Sample, cuts: Cuts, edges: Edges, flux: FluxConfig, *, point_like: bool
) -> Counts:
    """Return the sums over the events that pass the cuts of a class, at one pointing.

    Diffuse gammas are counted where there are any, over all offsets; else the point-like ones, all
    of which are in the bin of their one offset (`regroup` makes the most of that).

    Parameters
    ----------
    sample
        Of one pointing (`Sample.at`).
    cuts
        Of the class.
    edges
        Bins, usually `fine_edges`.
    flux
        Spectra of the background.
    point_like
        Count only gammas inside the theta cut. The point spread function and the background are
        those of all selected events all the same.

    Returns
    -------
    Counts
        Gammas unweighted; background in 1/s, with the sums of squared weights. Events outside the
        outermost edges are in no bin. `meta` says which gammas they are (`gammas`, `gamma_offset`
        in deg), and how many simulated events of every kind passed (`selected_events`).

    Raises
    ------
    AstriError
        When sample and cuts are of different forests or cameras, there are no gammas, the cuts
        have no valid bin, or no gamma passes them.
    """
    check_origin(cuts, sample)
    valid = cuts.valid_range_tev
    if valid is None:
        raise AstriError(
            f"The cuts of class {cuts.event_class} have no valid energy bin, so no event passes "
            "them: optimise them on more events."
        )
    gammas = gammas_of(sample)
    chosen = gammas.rows(cuts.select(gammas.columns))
    kept = chosen.rows(cuts.inside(chosen.columns)) if point_like else chosen
    if not len(kept):
        raise AstriError(
            f"None of the {len(gammas)} gammas at zenith {gammas.zenith_deg:.1f} deg passes the "
            f"cuts of class {cuts.event_class}: optimise the cuts on events like these."
        )
    thrown = thrown_counts(gammas, edges.true_energy, edges.offset)
    wide = _gamma_cells(chosen, edges, thrown)
    energy, offset = _gamma_cells(kept, edges, thrown)
    ratio = _place(edges.migra, kept.columns["reco_energy"] / kept.columns["true_energy"])
    reco = _place(edges.reco_energy, kept.columns["reco_energy"])
    distance = _place(edges.rad, chosen.columns["theta"])
    n_true, n_reco, n_offset, n_migra, n_rad, _ = _lengths(edges)
    background = _background(sample.background(), cuts, edges, flux)
    return Counts(
        event_class=cuts.event_class,
        zenith_deg=gammas.zenith_deg,
        azimuth_deg=gammas.azimuth_deg,
        edges=edges,
        point_like=point_like,
        area_m2=gammas.thrown[0].area_m2,
        thrown=thrown,
        selected=_sums((n_true, n_offset), energy, offset),
        selected_reco=_sums((n_reco, n_offset), reco, offset),
        migration=_sums((n_true, n_migra, n_offset), energy, ratio, offset),
        radial=_sums((n_true, n_rad, n_offset), wide[0], distance, wide[1]),
        **background.sums,
        rad_max=_rad_max(cuts, edges),
        valid_tev=valid,
        meta={
            **_origin(sample, cuts),
            "gammas": POINT_LIKE if gammas.point_like else DIFFUSE,
            "gamma_offset": _gamma_offset(gammas),
            "selected_events": {"gamma": len(kept), **background.selected},
        },
    )


def check_origin(cuts: Cuts, sample: Sample) -> None:
    """Refuse cuts that were made from events of other forests or cameras than those of a sample.

    Raises
    ------
    AstriError
        Naming the class and both origins.
    """
    for name, what in (("models", "forests"), ("cameras", "cameras")):
        made, here = cuts.meta.get(name), sample.meta.get(name)
        if made is None or here is None:
            continue
        if made != here and list(made) != list(here):
            first, second = (
                value[:19] if isinstance(value, str) else ", ".join(value) for value in (made, here)
            )
            raise AstriError(
                f"The cuts of class {cuts.event_class} were made from events of other {what} "
                f"({first}) than those of the stores ({second}): run `astri-gpu optimize` on "
                "stores of these, or give the stores that belong to the cuts."
            )


def gammas_of(sample: Sample) -> EventTable:
    """Return the gammas that responses are made of: the diffuse ones where there are any.

    Raises
    ------
    AstriError
        When there are none, or point-like ones of several offsets.
    """
    found = sample.of("gamma")
    diffuse = [table for table in found if not table.point_like]
    tables = diffuse or found
    if not tables:
        where = ", ".join(f"{table.zenith_deg:.1f}" for table in sample.tables[:1])
        raise AstriError(
            f"There are no gammas at zenith {where or 'of any angle'} deg: responses need a store "
            "of simulated gammas for every pointing."
        )
    if len(tables) > 1:
        raise AstriError(
            f"The gammas of {tables[0].paths[0]} and {tables[1].paths[0]} were thrown in different "
            "ways: give one store, or diffuse gammas."
        )
    return tables[0]


class _Background(NamedTuple):
    """Sums over the background, and simulated events by kind."""

    sums: dict[str, Floats]
    selected: dict[str, int]


def _background(
    tables: Sequence[EventTable], cuts: Cuts, edges: Edges, flux: FluxConfig
) -> _Background:
    _, n_reco, n_offset, _, _, n_side = _lengths(edges)
    ring, field = (n_reco, n_offset), (n_reco, n_side, n_side)
    shapes = {
        "ring_rate": ring,
        "ring_variance": ring,
        "ring_events": ring,
        "field_rate": field,
        "field_variance": field,
    }
    sums = {name: np.zeros(shape) for name, shape in shapes.items()}
    selected: dict[str, int] = {}
    for table in tables:
        use = cuts.select(table.columns)
        weight = rates(table, flux)[use]
        columns = {name: values[use] for name, values in table.columns.items()}
        energy = _place(edges.reco_energy, columns["reco_energy"])
        offset = _place(edges.offset, columns["reco_offset"])
        # Ours grows with the azimuth, that of GADF with falling azimuth.
        lon = _place(edges.detector, -columns["fov_lon"])
        lat = _place(edges.detector, columns["fov_lat"])
        sums["ring_rate"] += _sums(ring, energy, offset, weight=weight)
        sums["ring_variance"] += _sums(ring, energy, offset, weight=weight**2)
        sums["ring_events"] += _sums(ring, energy, offset)
        sums["field_rate"] += _sums(field, energy, lon, lat, weight=weight)
        sums["field_variance"] += _sums(field, energy, lon, lat, weight=weight**2)
        selected[table.kind] = selected.get(table.kind, 0) + len(weight)
    return _Background(sums, selected)


def _gamma_cells(table: EventTable, edges: Edges, thrown: Floats) -> tuple[Ints, Ints]:
    """Return the bins of true energy and offset of each event, -1 outside."""
    offset = _place(edges.offset, table.columns["true_offset"])
    if table.point_like:
        # All in the bin in which they are thrown: rounding must not spread one offset over two.
        by_offset = thrown.sum(axis=0)
        offset[:] = np.argmax(by_offset) if by_offset.any() else -1
    return _place(edges.true_energy, table.columns["true_energy"]), offset


def _gamma_offset(table: EventTable) -> float | None:
    """Return the offset of point-like gammas in deg, None for diffuse ones."""
    if not table.point_like:
        return None
    return float(table.thrown[0].cone_min_deg)


def _place(edges: Floats, values: Floats) -> Ints:
    """Return the bin of each value, -1 outside; the last edge is inside, as in NumPy."""
    index = np.searchsorted(edges, values, side="right") - 1
    index = np.where(values == edges[-1], len(edges) - 2, index)
    return np.where((index < 0) | (index > len(edges) - 2), -1, index)


def _sums(shape: tuple[int, ...], *place: Ints, weight: Floats | None = None) -> Floats:
    """Return the histogram of events over bins; one outside (-1) on any axis is in no bin."""
    inside = np.all([index >= 0 for index in place], axis=0)
    cell = np.ravel_multi_index(tuple(index[inside] for index in place), shape)
    weight = None if weight is None else weight[inside]
    counted = np.bincount(cell, weights=weight, minlength=int(np.prod(shape)))
    return counted.astype(np.float64).reshape(shape)


def _rad_max(cuts: Cuts, edges: Edges) -> Floats:
    """Return the theta cut at the middle of each bin of energy, for all offsets, deg."""
    middle = np.sqrt(edges.reco_energy[:-1] * edges.reco_energy[1:])
    place = cuts.bins(middle)
    limit = np.where(place >= 0, cuts.theta_deg[np.maximum(place, 0)], np.nan)
    return np.repeat(limit[:, None], len(edges.offset) - 1, axis=1)


def _lengths(edges: Edges) -> tuple[int, int, int, int, int, int]:
    """Return the numbers of bins: true and reconstructed energy, offset, migra, rad, field."""
    axes = (edges.true_energy, edges.reco_energy, edges.offset, edges.migra, edges.rad)
    n_true, n_reco, n_offset, n_migra, n_rad = (len(axis) - 1 for axis in axes)
    return n_true, n_reco, n_offset, n_migra, n_rad, len(edges.detector) - 1


def _origin(sample: Sample, cuts: Cuts) -> dict[str, object]:
    """Return what products say of events and cuts."""
    return {
        **sample.meta,
        "mode": cuts.mode,
        "exposure_h": cuts.exposure_h,
        "gamma_efficiency": cuts.gamma_efficiency,
        "kinds": sorted({table.kind for table in sample.tables}),
    }
