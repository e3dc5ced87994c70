"""Bins of responses: the fine ones that are counted in, the coarse ones that are used."""

import numpy as np

from astri_gpu.config_response import BinningConfig
from astri_gpu.responses.irf import Edges

__all__ = ["coarse_edges", "fine_edges"]


def fine_edges(binning: BinningConfig) -> Edges:
    """Return the edges of the bins in which events are counted.

    True and reconstructed energies have the same bins, of equal ratio; migra has bins of equal
    ratio too, offsets, distances and the field of view have bins of equal width. The field of view
    reaches as far as the offset, on all four sides.

    Returns
    -------
    Edges
        TeV and deg; every end is exactly the option's value.
    """
    energy = np.geomspace(binning.energy_min_tev, binning.energy_max_tev, binning.n_energies + 1)
    reach = binning.offset_max_deg
    return Edges(
        true_energy=energy,
        reco_energy=energy,
        offset=np.linspace(0.0, reach, binning.n_offsets + 1),
        migra=np.geomspace(binning.migra_min, binning.migra_max, binning.n_migra + 1),
        rad=np.linspace(0.0, binning.rad_max_deg, binning.n_rad + 1),
        detector=np.linspace(-reach, reach, binning.n_detector + 1),
    )


def coarse_edges(binning: BinningConfig) -> Edges:
    """Return the edges of the bins in which responses are given: some of the fine ones.

    Migra and distance keep their fine bins.
    """
    fine = fine_edges(binning)
    return Edges(
        true_energy=fine.true_energy[:: binning.group_true],
        reco_energy=fine.reco_energy[:: binning.group_reco],
        offset=fine.offset[:: binning.group_offset],
        migra=fine.migra,
        rad=fine.rad,
        detector=fine.detector[:: binning.group_detector],
    )
