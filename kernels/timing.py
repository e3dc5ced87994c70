"""The time gradient of an image along its major axis."""

from typing import NamedTuple

from jaxtyping import Bool, Float

from ._types import Array, array_namespace, masked, safe_divide

__all__ = ["Timing", "timing"]

KEPT_SHARE = 0.85  # of the pixels; the rest are outliers
SINGULAR = 4.440892098500626e-16  # determinant (deg^2) below which a line has no slope
EXACT = 1e-12  # sum of squares (ns^2) that counts as a perfect fit
# A compiler may compute a residual twice and round it differently (fused multiply-add): without
# this slack, relative and in ns^2, the pixel at the limit would not be within its own limit.
SLACK, TINY = 1e-9, 1e-18
# Steps of the two-dimensional R2 sequence (plastic number 1.3247...), which fills a square evenly.
R2_FIRST, R2_SECOND = 0.7548776662466927, 0.5698402909980532


class Timing(NamedTuple):
    """Robust straight line ``time = slope * longitudinal + intercept``, one per image."""

    slope: Float[Array, " image"]  # ns / deg
    intercept: Float[Array, " image"]  # ns
    deviation: Float[Array, " image"]  # rms of all pixels about the line, ns


def start_pair(xp, start: Array, n: Array) -> tuple[Array, Array]:
    """Return the two pixel ranks that fit number `start` begins with, both below `n`.

    The pairs follow a low-discrepancy sequence, so that a few starts cover all pairs evenly and
    every backend begins alike. The two ranks differ whenever n > 1.
    """
    first = xp.floor(n * ((start * R2_FIRST) % 1.0))
    step = 1 + xp.floor((n - 1) * ((start * R2_SECOND) % 1.0))
    second = first + step
    return first, xp.where(second >= n, second - n, second)


def timing(
    peak_time: Float[Array, "image slot"],
    used: Bool[Array, "image slot"],
    longitudinal: Float[Array, "image slot"],
    *,
    n_starts: int,
    n_steps: int,
) -> Timing:
    """Return the least-trimmed-squares line of peak time against the longitudinal coordinate.

    Parameters
    ----------
    peak_time : (image, slot), ns; the used slots come first, as `compact` returns them
    used : (image, slot)
    longitudinal : (image, slot), deg, see `ellipse_coordinates`
    n_starts, n_steps : how many lines are tried, and how often each is improved

    Notes
    -----
    As ctapipe's ``timing_parameters``: each start is improved by fitting again the 85 % of pixels
    with the smallest residuals (the C-step of Rousseeuw & Van Driessen 2006), and the line with the
    smallest trimmed sum of squares is kept. ctapipe draws its starting pairs at random; here they
    are fixed, and the ordinary fit of all pixels is one of them, so that a result can be repeated.
    With three pixels, where any two of them fit perfectly, the ordinary fit is the result. Fewer
    than three pixels give NaN.
    """
    xp = array_namespace(peak_time, used, longitudinal)
    x = masked(xp, used, xp.astype(longitudinal, xp.float64))[:, None, :]
    y = masked(xp, used, xp.astype(peak_time, xp.float64))[:, None, :]
    used = used[:, None, :]
    n = xp.sum(xp.astype(used, xp.float64), axis=-1)  # (image, 1)
    n_kept = xp.floor(KEPT_SHARE * n)
    n_kept = xp.where(n_kept < 3, n, n_kept)
    nan = xp.asarray(float("nan"), dtype=xp.float64)
    infinity = xp.asarray(float("inf"), dtype=xp.float64)

    def fit(selected):  # (image, start, slot) -> two (image, start)
        weight = xp.astype(selected, xp.float64)
        total = xp.sum(weight, axis=-1)
        mean_x = safe_divide(xp, xp.sum(weight * x, axis=-1), total)
        mean_y = safe_divide(xp, xp.sum(weight * y, axis=-1), total)
        dx, dy = x - mean_x[:, :, None], y - mean_y[:, :, None]
        s_xx = xp.sum(weight * dx * dx, axis=-1)
        slope = safe_divide(xp, xp.sum(weight * dx * dy, axis=-1), s_xx)
        slope = xp.where(total * s_xx < SINGULAR, nan, slope)
        return slope, mean_y - slope * mean_x

    def keep_best_pixels(slope, intercept):
        residual = (y - slope[:, :, None] * x - intercept[:, :, None]) ** 2
        residual = xp.where(used, residual, infinity)
        last = xp.astype(xp.where(n_kept > 0, n_kept - 1, 0.0), xp.int64)
        last = xp.broadcast_to(last[:, :, None], (*residual.shape[:2], 1))
        limit = xp.take_along_axis(xp.sort(residual, axis=-1), last, axis=-1)
        return used & (residual <= limit * (1 + SLACK) + TINY), residual

    start = xp.astype(xp.arange(n_starts)[None, :], xp.float64)
    rank = xp.astype(xp.arange(x.shape[-1])[None, None, :], xp.float64)
    first, second = start_pair(xp, start, n)
    selected = (rank == first[:, :, None]) | (rank == second[:, :, None])
    slope, intercept = fit(used & (selected | (start == 0)[:, :, None]))
    for _ in range(n_steps):
        kept, _ = keep_best_pixels(slope, intercept)
        slope, intercept = fit(kept)
    kept, residual = keep_best_pixels(slope, intercept)
    error = xp.sum(xp.where(kept, residual, 0.0), axis=-1)
    error = xp.where(error < EXACT, 0.0, error)
    error = xp.where(xp.isnan(error), infinity, error)
    best = xp.argmin(error, axis=-1)[:, None]

    enough = (n >= 3)[:, 0]
    slope = xp.take_along_axis(slope, best, axis=-1)
    intercept = xp.take_along_axis(intercept, best, axis=-1)
    residual = xp.where(used, (y - slope[:, :, None] * x - intercept[:, :, None]) ** 2, 0.0)
    deviation = xp.sqrt(safe_divide(xp, xp.sum(residual, axis=-1), n))
    return Timing(
        slope=xp.where(enough, slope[:, 0], nan),
        intercept=xp.where(enough, intercept[:, 0], nan),
        deviation=xp.where(enough, deviation[:, 0], nan),
    )
