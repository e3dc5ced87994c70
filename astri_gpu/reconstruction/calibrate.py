"""From what was found out of sample to expected errors: calibrations, quarters and scores."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.reconstruction.models import SpreadCalibration

__all__ = ["CONTAINMENT", "calibrate", "contained", "energy_score", "quarters"]

CONTAINMENT = 0.68
"""Share of the events with errors below the expected one."""
PER_BIN = 200
MOST_BINS = 20
BINS_PER_DECADE = 5
PER_ENERGY = 100
"""Fewest events of an energy bin that is divided into quarters."""


def contained(error: NDArray[np.floating]) -> float:
    """Return the value below which 68 % of the errors are, NaN without any."""
    return float(np.quantile(error, CONTAINMENT)) if len(error) else float("nan")


def calibrate(
    spread: NDArray[np.floating], error: NDArray[np.floating], *, rms: bool = False
) -> SpreadCalibration:
    """Return the expected error by the spread of the trees, from predictions out of sample.

    Images are divided into bins with equally many of them by their spread; in each the error is
    the 68 % quantile, or the root mean square. It is made to rise with the spread (isotonic
    regression).

    Parameters
    ----------
    spread
        (image,), of the trees.
    error
        (image,), absolute errors that these predictions had.
    rms
        Root mean square instead of the quantile, for errors of 0 and 1.
    """
    from sklearn.isotonic import isotonic_regression

    n_bins = int(np.clip(len(spread) // PER_BIN, 1, MOST_BINS))
    order = np.argsort(spread, kind="stable")
    if spread[order[0]] == spread[order[-1]]:
        n_bins = 1  # sums of trees have no spread
    parts = np.array_split(order, n_bins)
    middle = np.array([np.median(spread[part]) for part in parts], dtype=np.float64)
    found = [
        np.sqrt(np.mean(error[part] ** 2)) if rms else contained(error[part]) for part in parts
    ]
    weight = np.array([len(part) for part in parts], dtype=np.float64)
    rising = isotonic_regression(np.array(found, dtype=np.float64), sample_weight=weight)
    middle, place = np.unique(middle, return_index=True)
    return SpreadCalibration(spread=middle, error=np.asarray(rising, dtype=np.float64)[place])


def quarters(
    log_energy: NDArray[np.floating], error: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return energy bins and the limits that divide their events into quarters by error.

    Parameters
    ----------
    log_energy
        (event,), log10 of the estimated energies in TeV.
    error
        (event,), expected errors of the direction, deg.

    Returns
    -------
    edges (bin + 1,) in TeV, five bins per decade, joined where they hold few events; limits
    (bin, 3) in deg. Both are empty without events.
    """
    if not len(log_energy):
        return np.zeros(0), np.zeros((0, 3))
    steps = np.floor(np.asarray(log_energy, np.float64) * BINS_PER_DECADE).astype(np.int64)
    numbers = np.bincount(steps - steps.min())
    edges = [int(steps.min())]
    inside = 0
    for k, number in enumerate(numbers, start=int(steps.min()) + 1):
        inside += int(number)
        if inside >= PER_ENERGY:
            edges.append(k)
            inside = 0
    last = int(steps.max()) + 1
    if len(edges) > 1:
        edges[-1] = last  # the few events left over join the bin below
    else:
        edges.append(last)
    limits = [
        np.quantile(error[(steps >= low) & (steps < high)], (0.25, 0.5, 0.75))
        for low, high in itertools.pairwise(edges)
    ]
    return 10.0 ** (np.array(edges) / BINS_PER_DECADE), np.array(limits)


def energy_score(log_energy: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    """Return bias (median) and resolution (68 %) of the relative energy error of log10 energies."""
    if not len(log_energy):
        return {"bias": float("nan"), "resolution": float("nan")}
    relative = 10.0 ** (np.asarray(log_energy, np.float64) - true) - 1.0
    bias = float(np.median(relative))
    return {"bias": bias, "resolution": contained(np.abs(relative - bias))}
