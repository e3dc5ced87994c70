"""Sums of round two-dimensional Gaussians, fitted to events counted in rings.

The radius of a round Gaussian of width s follows r / s^2 exp(-r^2 / 2 s^2); of its events
exp(-a^2 / 2 s^2) - exp(-b^2 / 2 s^2) lie in a ring from a to b. Both fits are expectation
maximisation for events in rings (McLachlan & Jones 1988, Biometrics 44, 571), as if there were no
events beyond the last ring; the likelihood falls in none of their steps.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float

from ._types import Array, array_namespace, safe_divide

__all__ = ["RadialGaussians", "fit_radial_gaussians", "fit_shares"]

START_SHARE = (0.6, 0.3, 0.1)
START_WIDTH = (0.7, 1.3, 3.0)  # in units of the width of one Gaussian with the same median
MEDIAN = 1.1774100225154747  # of the radius of a Gaussian of width 1: sqrt(2 ln 2)
NARROWEST = 0.25  # widths of the first ring: narrower ones cannot be told apart
LARGEST_EXPONENT = 600.0  # expm1 of it is finite in double precision


class RadialGaussians(NamedTuple):
    """Three Gaussians per cell, the narrowest first; NaN where `valid` is False."""

    share: Float[Array, "cell gaussian"]  # of the events, sum 1
    sigma: Float[Array, "cell gaussian"]  # unit of the rings
    valid: Bool[Array, " cell"]  # there are events


def fit_radial_gaussians(
    counts: Float[Array, "cell ring"], edges: Float[Array, " edge"], *, n_steps: int = 100
) -> RadialGaussians:
    """Return the shares and widths of three Gaussians of (nearly) maximum likelihood.

    All cells begin with the same shape, scaled to their median, and take the same number of steps.

    Parameters
    ----------
    counts
        Events, not below 0, weighted or not.
    edges
        Rising, ring + 1 of them, the first at 0.
    n_steps
        Steps of the iteration.
    """
    xp = array_namespace(counts, edges)
    part, valid = _parts(xp, counts)
    narrowest = NARROWEST * (edges[1] - edges[0])
    unit = _median(xp, part, edges) / MEDIAN
    sigma = xp.maximum(unit[:, None] * xp.asarray(START_WIDTH, dtype=counts.dtype), narrowest)
    share = xp.broadcast_to(xp.asarray(START_SHARE, dtype=counts.dtype), sigma.shape)
    tiny = xp.asarray(1e-300, dtype=counts.dtype)
    for _ in range(n_steps):
        start, step = _exponents(edges, sigma)
        owner = part[:, :, None] * _owners(xp, share, _expected(xp, start, step))
        # Mean squared radius of a Gaussian's events in a ring.
        short = xp.clip(step, 0.0, LARGEST_EXPONENT)
        square = 2 * (sigma * sigma)[:, None, :] * (start + 1 - short / xp.expm1(short))
        share = xp.sum(owner, axis=1)
        width = xp.sum(owner * square, axis=1) / (2 * xp.maximum(share, tiny))
        sigma = xp.where(share > 0, xp.maximum(xp.sqrt(width), narrowest), sigma)
    order = xp.argsort(sigma, axis=1)
    share, sigma = (xp.take_along_axis(values, order, axis=1) for values in (share, sigma))
    nan = xp.asarray(float("nan"), dtype=counts.dtype)
    return RadialGaussians(
        share=_normalised(xp, share, valid),
        sigma=xp.where(valid[:, None], sigma, nan),
        valid=valid,
    )


def fit_shares(
    counts: Float[Array, "cell ring"],
    edges: Float[Array, " edge"],
    sigma: Float[Array, "cell gaussian"],
    *,
    n_steps: int = 200,
) -> Float[Array, "cell gaussian"]:
    """Return the shares of events that Gaussians of known widths have; NaN without events.

    There is one maximum only, so similar events give similar shares.

    Parameters
    ----------
    counts, edges, n_steps
        As in `fit_radial_gaussians`.
    sigma
        Widths, in the unit of the rings.
    """
    xp = array_namespace(counts, edges, sigma)
    part, valid = _parts(xp, counts)
    expected = _expected(xp, *_exponents(edges, sigma))
    share = xp.broadcast_to(xp.asarray(START_SHARE, dtype=counts.dtype), sigma.shape)
    for _ in range(n_steps):
        share = xp.sum(part[:, :, None] * _owners(xp, share, expected), axis=1)
    return _normalised(xp, share, valid)


def _parts(xp, counts):
    """Return the share of events in each ring, and in which cells there are events."""
    total = xp.sum(counts, axis=1)
    valid = total > 0
    return counts / xp.where(valid, total, xp.ones_like(total))[:, None], valid


def _median(xp, part, edges):
    """Return the median radius of each cell, interpolated in its ring."""
    below = xp.cumulative_sum(part, axis=1) - part
    missing = 0.5 - below
    inside = missing / xp.where(part > 0, part, xp.ones_like(part))
    # Empty rings count as a whole below the median, not at all above it.
    inside = xp.where(part > 0, inside, xp.astype(missing > 0, part.dtype))
    return xp.sum(xp.clip(inside, 0.0, 1.0) * (edges[1:] - edges[:-1]), axis=1)


def _exponents(edges, sigma):
    """Return r^2 / 2 s^2 at the inner end of each ring, and its growth in the ring."""
    scale = 2 * (sigma * sigma)[:, None, :]  # (cell, ring, gaussian)
    squares = edges * edges
    return squares[None, :-1, None] / scale, (squares[1:] - squares[:-1])[None, :, None] / scale


def _expected(xp, start, step):
    """Return each Gaussian's events in each ring, in units of the largest of them."""
    log = xp.log(-xp.expm1(-step)) - start
    return xp.exp(log - xp.max(log, axis=2, keepdims=True))


def _owners(xp, share, expected):
    """Return which share of the events of a ring belongs to each Gaussian."""
    product = share[:, None, :] * expected
    total = xp.sum(product, axis=2, keepdims=True)
    # Where the Gaussians that reach a ring have no share left, its events are nobody's.
    return xp.where(total > 0, product / xp.where(total > 0, total, 1.0), 0.0)


def _normalised(xp, share, valid):
    """Return shares of sum 1, NaN where not valid."""
    total = xp.sum(share, axis=1)[:, None] + xp.zeros_like(share)
    nan = xp.asarray(float("nan"), dtype=share.dtype)
    return xp.where(valid[:, None], safe_divide(xp, share, total), nan)
