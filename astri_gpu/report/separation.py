"""How well scores separate gammas from others: ROC, the area under it, the best quality factor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.report.binned import group_starts
from astri_gpu.report.collect import Sample
from astri_gpu.report.reconstructed import RECO_ENERGY, SCORE

__all__ = ["Separation", "area_under", "roc", "separation_numbers", "separations"]

Floats = NDArray[np.float64]
FEWEST_BACKGROUND = 10  # left after a cut, for a quality factor
FEWEST_PER_BIN = 20  # of either class, for the area under the ROC of a bin of energy


@dataclass(frozen=True)
class Separation:
    """Gammas of one sample against another sample, by the score of events or of images."""

    signal: Sample
    background: Sample
    level: str  # "event" or "image"
    n_signal: int
    n_background: int
    thresholds: Floats  # gammaness, falling from 1 to 0
    signal_share: Floats  # share of the signal at or above each threshold
    background_share: Floats
    auc: float
    auc_error: float
    by_energy: tuple[tuple[float, float, int, int, float, float], ...]  # see `_by_energy`

    @property
    def best_quality(self) -> tuple[float, float] | None:
        """Return the largest signal share / sqrt(background share), and the cut that gives it.

        Only cuts that leave some background count; None where there are none.
        """
        use = self.background_share * self.n_background >= FEWEST_BACKGROUND
        if not use.any():
            return None
        quality = self.signal_share[use] / np.sqrt(self.background_share[use])
        best = int(np.argmax(quality))
        return float(quality[best]), float(self.thresholds[use][best])


def roc(signal: Floats, background: Floats) -> tuple[Floats, Floats]:
    """Return the shares of signal and of background above each edge of the bins of a score.

    Parameters
    ----------
    signal, background
        (bin,), counts by rising score, not all zero

    Returns
    -------
    tuple
        Two arrays (bin + 1,) that rise from 0 (above the highest edge) to 1.
    """
    above = [np.append(0.0, np.cumsum(counts[::-1])) for counts in (signal, background)]
    return above[0] / above[0][-1], above[1] / above[1][-1]


def area_under(signal: Floats, background: Floats) -> tuple[float, float]:
    """Return the area under the ROC and its standard error; NaN where a class is empty.

    The area is the probability that a gamma has a higher score than another event, ties half
    (Mann and Whitney). Error: Hanley and McNeil 1982, Radiology 143, 29.

    Parameters
    ----------
    signal, background
        (bin,), counts by rising score
    """
    n, m = float(signal.sum()), float(background.sum())
    if not (n and m):
        return np.nan, np.nan
    below = np.cumsum(background) - background / 2
    area = float(signal @ below / (n * m))
    both_above, both_below = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n - 1) * (both_above - area**2)
    variance += (m - 1) * (both_below - area**2)
    return area, float(np.sqrt(max(variance, 0.0) / (n * m)))


def separations(samples: Sequence[Sample], per_decade: int) -> list[Separation]:
    """Return each gamma sample against each other particle whose scores the same models gave."""
    found = []
    reconstructed = [sample for sample in samples if sample.reco is not None]
    for signal in (sample for sample in reconstructed if sample.kind == "gamma"):
        for background in (sample for sample in reconstructed if sample.kind != "gamma"):
            if signal.trained != background.trained:
                continue
            for level in ("event", "image"):
                entry = _separation(signal, background, level, per_decade)
                if entry is not None:
                    found.append(entry)
    return found


def _separation(
    signal: Sample, background: Sample, level: str, per_decade: int
) -> Separation | None:
    """Return one comparison, None where a class has no scores."""
    assert signal.reco is not None  # `separations` chose them
    assert background.reco is not None
    scores = [
        reco.score if level == "event" else reco.image_score
        for reco in (signal.reco, background.reco)
    ]
    if not all(counts.any() for counts in scores):
        return None
    signal_share, background_share = roc(*scores)
    auc, error = area_under(*scores)
    return Separation(
        signal=signal,
        background=background,
        level=level,
        n_signal=int(scores[0].sum()),
        n_background=int(scores[1].sum()),
        thresholds=SCORE.edges[::-1],
        signal_share=signal_share,
        background_share=background_share,
        auc=auc,
        auc_error=error,
        by_energy=_by_energy(
            signal.reco.score_by_energy, background.reco.score_by_energy, per_decade
        )
        if level == "event"
        else (),
    )


def _by_energy(
    signal: Floats, background: Floats, per_decade: int
) -> tuple[tuple[float, float, int, int, float, float], ...]:
    """Return (low, high, signal, background, area, error) for bins of reconstructed energy."""
    edges = RECO_ENERGY.edges
    starts = group_starts(edges, per_decade)
    ends = np.append(starts[1:], RECO_ENERGY.n_bins)
    table = []
    for start, stop in zip(starts, ends, strict=True):
        ours, theirs = signal[start:stop].sum(axis=0), background[start:stop].sum(axis=0)
        n, m = int(ours.sum()), int(theirs.sum())
        if min(n, m) >= FEWEST_PER_BIN:
            low, high = float(edges[start]), float(edges[stop])
            table.append((low, high, n, m, *area_under(ours, theirs)))
    return tuple(table)


def separation_numbers(found: Sequence[Separation]) -> list[dict[str, Any]]:
    """Return the numbers of the comparisons for summary.json."""
    numbers = []
    for entry in found:
        best = entry.best_quality
        numbers.append(
            {
                "signal": entry.signal.label,
                "background": entry.background.label,
                "level": entry.level,
                "n_signal": entry.n_signal,
                "n_background": entry.n_background,
                "auc": entry.auc,
                "auc_error": entry.auc_error,
                "best_quality_factor": None if best is None else best[0],
                "best_quality_cut": None if best is None else best[1],
                "by_reco_energy": [
                    {
                        "energy_tev": [low, high],
                        "n_signal": n,
                        "n_background": m,
                        "auc": area,
                        "auc_error": error,
                    }
                    for low, high, n, m, area, error in entry.by_energy
                ],
            }
        )
    return numbers
