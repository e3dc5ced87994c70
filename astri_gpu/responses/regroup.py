"""From the fine bins that are counted in to the coarse ones that responses are given in."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_response import BinningConfig
from astri_gpu.errors import AstriError
from astri_gpu.responses.counting import POINT_LIKE
from astri_gpu.responses.counts import Counts
from astri_gpu.responses.edges import coarse_edges, fine_edges
from astri_gpu.responses.irf import Edges

__all__ = ["regroup"]

Floats = NDArray[np.float64]

SAME = 1e-9  # relative; edges come back from files as they were written


def regroup(counts: Counts, binning: BinningConfig) -> Counts:
    """Return the same sums in coarse bins.

    Point-like gammas are all at one offset. Their coarse response has two bins of the offset, the
    one that they are in and a neighbour, both with the same gammas: Gammapy interpolates between
    bins, and a neighbour without events would halve the effective area between the two
    (gammapy issue 3269). `meta["offset_note"]` says so.

    Parameters
    ----------
    counts
        In the fine bins of `binning`.
    binning
        Fine bins and how many make a coarse one.

    Raises
    ------
    AstriError
        When the counts have other bins.
    """
    _check(counts.edges, fine_edges(binning))
    edges = coarse_edges(binning)
    true, reco = binning.group_true, binning.group_reco
    offset, side = binning.group_offset, binning.group_detector
    grouped = replace(
        counts,
        edges=edges,
        thrown=_grouped(counts.thrown, true, offset),
        selected=_grouped(counts.selected, true, offset),
        selected_reco=_grouped(counts.selected_reco, reco, offset),
        migration=_grouped(counts.migration, true, 1, offset),
        radial=_grouped(counts.radial, true, 1, offset),
        ring_rate=_grouped(counts.ring_rate, reco, offset),
        ring_variance=_grouped(counts.ring_variance, reco, offset),
        ring_events=_grouped(counts.ring_events, reco, offset),
        field_rate=_grouped(counts.field_rate, reco, side, side),
        field_variance=_grouped(counts.field_variance, reco, side, side),
        # A cut is not a sum: that of the middle of the coarse bin.
        rad_max=counts.rad_max[reco // 2 :: reco, offset // 2 :: offset],
    )
    return _at_one_offset(grouped) if counts.meta.get("gammas") == POINT_LIKE else grouped


def _grouped(values: Floats, *groups: int) -> Floats:
    """Return sums over `groups` neighbours on each axis."""
    shape = [
        part for length, n in zip(values.shape, groups, strict=True) for part in (length // n, n)
    ]
    return values.reshape(shape).sum(axis=tuple(range(1, 2 * len(groups), 2)))


def _at_one_offset(counts: Counts) -> Counts:
    """Return counts with two bins of the offset that have the same gammas."""
    n_offset = len(counts.edges.offset) - 1
    there = counts.thrown.sum(axis=0)
    if n_offset < 2 or not there.any():
        return counts
    place = int(np.argmax(there))
    first = min(place, n_offset - 2)
    gammas = [place, place]
    near = slice(first, first + 2)
    low, high = counts.edges.offset[first], counts.edges.offset[first + 2]
    return replace(
        counts,
        edges=replace(counts.edges, offset=counts.edges.offset[first : first + 3]),
        thrown=counts.thrown[:, gammas],
        selected=counts.selected[:, gammas],
        selected_reco=counts.selected_reco[:, gammas],
        migration=counts.migration[:, :, gammas],
        radial=counts.radial[:, :, gammas],
        ring_rate=counts.ring_rate[:, near],
        ring_variance=counts.ring_variance[:, near],
        ring_events=counts.ring_events[:, near],
        rad_max=counts.rad_max[:, near],
        meta={
            **counts.meta,
            "offset_note": (
                f"Gammas were simulated at an offset of {counts.meta.get('gamma_offset', 0):g} deg "
                f"only; both bins of the offset, {low:g} to {high:g} deg, hold the same events."
            ),
        },
    )


def _check(edges: Edges, fine: Edges) -> None:
    for name in ("true_energy", "reco_energy", "offset", "migra", "rad", "detector"):
        found, wanted = getattr(edges, name), getattr(fine, name)
        if len(found) != len(wanted) or not np.allclose(found, wanted, rtol=SAME, atol=SAME):
            raise AstriError(
                f"The counts have {len(found) - 1} bins of {name} from {found[0]:g} to "
                f"{found[-1]:g}, and the binning {len(wanted) - 1} from {wanted[0]:g} to "
                f"{wanted[-1]:g}: give the binning that they were counted with."
            )
