"""Choosing among the rows of showers, which lie one shower after the other."""

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.simulation_types import EmRows, MuonRows, ShowerRows

__all__ = ["ranges", "select_showers"]

Ints = NDArray[np.int64]


def ranges(start: Ints, which: Ints) -> tuple[Ints, Ints]:
    """Return the entries of some ranges, one after the other, and where each begins among them.

    Parameters
    ----------
    start
        (range + 1,): range i has the entries start[i] to start[i + 1].
    which
        (chosen,), ranges in any order, also more than once.

    Returns
    -------
    entry, begin
        (entry,) and (chosen + 1,).
    """
    length = start[which + 1] - start[which]
    begin = np.concatenate([np.zeros(1, np.int64), np.cumsum(length)])
    return np.arange(begin[-1]) + np.repeat(start[which] - begin[:-1], length), begin


def select_showers(rows: ShowerRows, shower: Ints) -> ShowerRows:
    """Return the rows of some showers, given by their place in `rows`."""
    em, em_start = ranges(rows.em_start, shower)
    muon, muon_start = ranges(rows.muon_start, shower)
    return ShowerRows(
        EmRows(*(column[em] for column in rows.em)),
        em_start,
        MuonRows(*(column[muon] for column in rows.muon)),
        muon_start,
        rows.first_interaction[shower],
    )
