"""Loop text of the time gradient; see `astri_gpu.kernels.timing` for what it computes."""

import math

from ..timing import EXACT, KEPT_SHARE, R2_FIRST, R2_SECOND, SINGULAR
from ._compile import compiled

__all__ = ["fit_timing"]


@compiled
def _select(values, n, k):
    """Return the k-th smallest (from 0) of the first n values, reordering them (quickselect)."""
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@compiled
def _fit(x, y, residual, limit, n):
    """Return slope and intercept of the points whose squared residual is within the limit."""
    total, sum_x, sum_y = 0.0, 0.0, 0.0
    for i in range(n):
        if residual[i] <= limit:
            total += 1.0
            sum_x += x[i]
            sum_y += y[i]
    if total == 0.0:
        return math.nan, math.nan
    mean_x, mean_y = sum_x / total, sum_y / total
    s_xx, s_xy = 0.0, 0.0
    for i in range(n):
        if residual[i] <= limit:
            s_xx += (x[i] - mean_x) * (x[i] - mean_x)
            s_xy += (x[i] - mean_x) * (y[i] - mean_y)
    if total * s_xx < SINGULAR:
        return math.nan, math.nan
    slope = s_xy / s_xx
    return slope, mean_y - slope * mean_x


@compiled
def _trim(x, y, slope, intercept, n, n_kept, residual, ordered):
    """Fill the squared residuals; return the largest of the n_kept smallest."""
    for i in range(n):
        difference = y[i] - slope * x[i] - intercept
        residual[i] = difference * difference
        ordered[i] = residual[i]
    return _select(ordered, n, n_kept - 1)


@compiled
def fit_timing(x, y, n, settings, residual, ordered):
    """Return slope, intercept and deviation of the least-trimmed-squares line.

    Parameters
    ----------
    x, y : longitudinal coordinate (deg) and peak time (ns) of `n` pixels
    residual, ordered : work space of the same length
    """
    if n < 3:
        return math.nan, math.nan, math.nan
    n_kept = int(KEPT_SHARE * n)
    if n_kept < 3:
        n_kept = n
    best_error, best_slope, best_intercept = math.inf, math.nan, math.nan
    for start in range(settings.timing_starts):
        for i in range(n):
            residual[i] = 0.0
        if start > 0:
            first = int(n * ((start * R2_FIRST) % 1.0))
            step = 1 + int((n - 1) * ((start * R2_SECOND) % 1.0))
            second = (first + step) % n
            for i in range(n):
                residual[i] = 0.0 if i in (first, second) else 1.0
        slope, intercept = _fit(x, y, residual, 0.0, n)
        limit = 0.0
        for _ in range(settings.timing_steps):
            if math.isnan(slope):
                break
            limit = _trim(x, y, slope, intercept, n, n_kept, residual, ordered)
            new_slope, new_intercept = _fit(x, y, residual, limit, n)
            done = new_slope == slope and new_intercept == intercept
            slope, intercept = new_slope, new_intercept
            if done:
                break
        if math.isnan(slope):
            continue
        limit = _trim(x, y, slope, intercept, n, n_kept, residual, ordered)
        error = 0.0
        for i in range(n):
            if residual[i] <= limit:
                error += residual[i]
        if error < EXACT:
            error = 0.0
        if error < best_error:
            best_error, best_slope, best_intercept = error, slope, intercept
    total = 0.0
    for i in range(n):
        difference = y[i] - best_slope * x[i] - best_intercept
        total += difference * difference
    return best_slope, best_intercept, math.sqrt(total / n)
