"""One number for cuts, which a sweep makes small."""

import numpy as np
from numpy.typing import NDArray

from astri_gpu.selection.cuts import FEW_BACKGROUND, NOT_SENSITIVE, Cuts

__all__ = ["WORST_RATIO", "cautious_sensitivity", "score"]

Floats = NDArray[np.float64]

WORST_RATIO = 100.0
"""What a bin without cut counts, and at most any: sensitivity over the published one (50 h).

For a shorter exposure it is larger by the ratio of the exposures, the most by which a sensitivity
that is limited by the number of gammas gets worse.
"""


def cautious_sensitivity(cuts: Cuts) -> Floats:
    """Return the sensitivity (bin,) in erg / (cm2 s) with no less background than can be trusted.

    Where fewer simulated background events than `min_background_events` are left, the background
    is scaled up to so many: cuts must not look good because they left none of a small sample. NaN
    where there is no cut, and where not one background event is left.
    """
    options = cuts.meta["options"]["cuts"]
    seen = cuts.curve["n_background_worth"]
    least = options["min_background_events"]
    scale = np.where(seen > 0, np.maximum(1.0, least / np.maximum(seen, 1.0)), np.nan)
    scale = np.where((scale == 1.0) | (least == 0), 1.0, scale)
    relative = cuts.curve["relative_sensitivity"]
    if (scale == 1.0).all():
        return cuts.curve["sensitivity"]
    from astri_gpu.kernels.sensitivity import relative_sensitivity

    alpha = options["alpha"]
    n_off = np.nan_to_num(cuts.curve["n_background"] * scale) / alpha
    n_on = np.nan_to_num(cuts.curve["n_signal"]) + alpha * n_off
    found = relative_sensitivity(
        n_on,
        n_off,
        alpha,
        min_significance=options["min_significance"],
        min_signal_events=options["min_signal_events"],
        min_excess=options["min_excess"],
    )
    with np.errstate(invalid="ignore"):  # infinite where there is no detection
        unit = cuts.curve["sensitivity"] / relative
    cautious: Floats = np.where(np.isnan(scale), np.nan, found * unit)
    return np.where((cuts.flags & NOT_SENSITIVE) > 0, np.inf, cautious)


def score(cuts: Cuts, which: str = "sensitivity") -> float:
    """Return the score of cuts, always finite; smaller is better.

    Parameters
    ----------
    cuts
        Of `astri_gpu.selection.optimise.optimise`.
    which
        "sensitivity": the mean, over the bins in the range of ASTRI's published curve, of log10 of
        `cautious_sensitivity` over that curve (50 h; for other exposures a scale is the same for
        all). Larger ratios than `WORST_RATIO` and bins without cut count as `WORST_RATIO`.
        "energy_min": log10 of the energy (TeV) of the lowest bin whose `cautious_sensitivity` is
        within a factor of two of the best; one decade above the last edge where there is none.
    """
    from astri_gpu.responses.references import PUBLISHED_HOURS, published_sensitivity

    centre = np.sqrt(cuts.energy_edges[:-1] * cuts.energy_edges[1:])
    found = cautious_sensitivity(cuts)
    if which == "energy_min":
        reached = np.isfinite(found)
        if not reached.any():
            return float(np.log10(cuts.energy_edges[-1]) + 1)
        near = reached & (found <= 2 * found[reached].min())
        return float(np.log10(centre[near][0]))
    published = published_sensitivity(cuts.energy_edges)
    known = np.isfinite(published)
    exposure_h = cuts.meta["options"]["cuts"]["exposure_h"]
    worst = WORST_RATIO * max(1.0, PUBLISHED_HOURS / exposure_h)
    if not known.any():
        return float(np.log10(worst))
    ratio = np.where(np.isfinite(found), found, np.inf)[known] / published[known]
    return float(np.log10(np.minimum(ratio, worst)).mean())


def counts_of_flags(cuts: Cuts) -> dict[str, int]:
    """Return how many bins have no cut, and how many a cut that is flagged."""
    return {
        "without cut": int((~cuts.valid).sum()),
        "few background": int((cuts.flags & FEW_BACKGROUND > 0).sum()),
        "no detection": int((cuts.flags & NOT_SENSITIVE > 0).sum()),
    }
