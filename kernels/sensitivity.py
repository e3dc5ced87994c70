"""Significance of an excess, and the share of a source's flux that is just detected.

Both have the definitions of `pyirf.statistics` and `pyirf.sensitivity`, for whole arrays at once.
"""

import math

from jaxtyping import Float

from ._types import Array, array_namespace

__all__ = ["excess_at_significance", "li_ma_significance", "relative_sensitivity"]

Ratio = float | Float[Array, ""]
"""A number, or an array without axes."""

STEPS = 12
"""Newton steps; six reach the last digits for 0 to 1e12 off events and 0.1 to 30 sigma."""


def _statistic(xp, excess, n_off, alpha):
    """Return half the test statistic of Li and Ma, and its derivative by the excess.

    With T = excess + (1 + alpha) n_off, the two ratios under the logarithms of formula 17 are
    1 + excess / (alpha T) and 1 - excess / T. Written so, few digits cancel where the background
    is large.
    """
    one, zero = xp.ones_like(n_off), xp.zeros_like(n_off)
    total = excess + (1 + alpha) * n_off
    safe = xp.where(total > 0, total, one)
    log_on = xp.log1p(excess / (alpha * safe))
    # Without off events the second ratio is 0, and 0 log 0 = 0.
    share = xp.where(n_off > 0, excess / safe, zero)
    most = share > 0.5
    rest = (1 + alpha) * n_off / safe
    # Some 1e-320 off events make a ratio of 0, and count for nothing.
    rest = xp.where(most & (rest > 0), rest, one)
    log_off = xp.where(most, xp.log(rest), xp.log1p(-xp.where(most, zero, share)))
    return (excess + alpha * n_off) * log_on + n_off * log_off, log_on


def li_ma_significance(
    n_on: Float[Array, "*shape"], n_off: Float[Array, "*shape"], alpha: Ratio
) -> Float[Array, "*shape"]:
    """Return the significance of an excess, Li and Ma (1983, ApJ 272, 317), formula 17.

    Parameters
    ----------
    n_on, n_off : any shape, float64; counts, weighted or not, >= 0
    alpha : on region over off regions, > 0

    Returns
    -------
    Standard deviations; 0 where n_on < alpha n_off, NaN where an argument is NaN.
    """
    xp = array_namespace(n_on, n_off)
    excess = n_on - alpha * n_off
    positive = xp.where(excess < 0, xp.zeros_like(excess), excess)
    half, _ = _statistic(xp, positive, n_off, alpha)
    return xp.sqrt(2.0 * xp.where(half < 0, xp.zeros_like(half), half))


def excess_at_significance(
    n_off: Float[Array, "*shape"], alpha: Ratio, *, min_significance: float
) -> Float[Array, "*shape"]:
    """Return the excess events that have a significance above `n_off` off events.

    The test statistic is convex in the excess, so that Newton's steps end up right of the root and
    come down to it, from any start. The start is the larger one of the limits of a large
    background, sigma sqrt(alpha (1 + alpha) n_off), and of none, sigma^2 / (2 ln(1 + 1/alpha)).

    Parameters
    ----------
    n_off : any shape, float64, >= 0
    alpha : on region over off regions, > 0
    min_significance : of Li and Ma, > 0

    Returns
    -------
    Excess in the on region; NaN where `n_off` is.
    """
    xp = array_namespace(n_off)
    wanted = 0.5 * min_significance**2
    excess = min_significance * xp.sqrt(alpha * (1 + alpha) * n_off)
    alone = wanted / xp.log1p(xp.ones_like(n_off) / alpha)
    excess = xp.where(excess < alone, alone, excess)
    for _ in range(STEPS):
        half, slope = _statistic(xp, excess, n_off, alpha)
        excess = excess - (half - wanted) / slope
    return excess


def relative_sensitivity(
    n_on: Float[Array, "*shape"],
    n_off: Float[Array, "*shape"],
    alpha: Ratio,
    *,
    min_significance: float,
    min_signal_events: float,
    min_excess: float,
) -> Float[Array, "*shape"]:
    """Return the share of the flux behind `n_on` that is just detected.

    The definition of `pyirf.sensitivity.relative_sensitivity`: the flux at which the excess has
    `min_significance`, is `min_signal_events` and is `min_excess` of the background. pyirf looks
    for it between brackets and gives NaN where it lies outside; here it is always found.

    Parameters
    ----------
    n_on : any shape, float64; on events at the full flux, background included
    n_off : off events, >= 0
    alpha : on region over off regions, > 0
    min_significance, min_signal_events, min_excess : of a detection

    Returns
    -------
    Multiples of the flux; +inf where there is no signal, NaN only where an argument is NaN.
    """
    xp = array_namespace(n_on, n_off)
    background = alpha * n_off
    signal = n_on - background
    needed = excess_at_significance(n_off, alpha, min_significance=min_significance)
    least = xp.where(
        min_excess * background > min_signal_events,
        min_excess * background,
        xp.full_like(background, min_signal_events),
    )
    needed = xp.where(needed < least, least, needed)
    nothing = signal <= 0
    share = needed / xp.where(nothing, xp.ones_like(signal), signal)
    nan_in = xp.isnan(n_on) | xp.isnan(n_off)
    infinite = xp.full_like(share, math.inf)
    return xp.where(nothing & ~nan_in, infinite, share)
