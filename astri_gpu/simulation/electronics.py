"""Noise of a SiPM pixel behind its shapers, as tables of quantiles.

Photo-electrons of the night sky and dark counts come at random times; each makes a number of
avalanches (geometric, for crosstalk) of slightly different charge. A shaper turns each avalanche
into a pulse f(t) = (t/tau)^2 exp(2 (1 - t/tau)) (CR-RC^2, peak 1 at tau). Gaussian noise of the
electronics, coloured by the same shaper, is added. The mean of the slow shaper stays in the signal
unless the coupling is AC; thresholds of the fast shaper are always counted from its mean.

At one time the sum has the characteristic function of shot noise (Campbell 1909; Rice 1944,
Bell Syst. Tech. J. 23, 282), from which the distribution follows exactly by a Fourier transform.
The maximum within the gate of the peak detector, without and with a pulse of light in its middle,
has no closed form: it is simulated, and its tail, beyond one in fifty, is that of a single time
moved by a constant on the scale of -ln P.

ASTRI has published neither these shapers nor the noise; both are our choice.
"""

from functools import lru_cache
from math import e, pi
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.camera_noise import (
    N_KINDS,
    NOISE_FAST,
    NOISE_MAXIMUM,
    NOISE_SLOW,
    SIGNAL_LEVELS,
)

__all__ = [
    "NOISE_RATES_MHZ",
    "QUANTILE_STEP",
    "Electronics",
    "cut_moments",
    "mean_level",
    "noise_levels",
    "noise_moments",
    "noise_place",
    "noise_quantiles",
    "noise_rate",
    "shot_noise_variance",
]

Floats = NDArray[np.float64]

NOISE_RATES_MHZ: Floats = np.concatenate([[0.0], 10.0 ** (np.arange(41) / 8)])
"""Rates of photo-electrons of the rows of the noise table: close enough that the mean level, which
goes with the rate and not with its root as `noise_place` has it, is at most 0.6 % too high."""
QUANTILE_STEP = 1 / 64
N_QUANTILES = 16 * 64 + 1
"""Quantiles reach one in e^16 = 9e6."""

PULSE_END = 10.0  # in peaking times; the pulse is down to 2e-6
PULSE_STEPS = 400
SMALLEST_NOISE = 0.05  # avalanches; less would only make the Fourier transform ring
SAMPLES = 2**19
SAMPLES_PER_TAU = 10
SEED = 20_260
PIXELS_AT_ONCE = 2000
TAIL_FROM, TAIL_FIT = 4.0, 1.0  # the tail is matched between 4 - 1 and 4 + 0.5 on the axis -ln P


class Electronics(NamedTuple):
    """What the noise depends on, beside the rate; times in ns, charges in avalanches."""

    peaking_time_ns: float
    fast_peaking_time_ns: float
    gate_ns: float
    crosstalk: float
    gain_spread: float
    noise: float  # standard deviation of the electronics' own noise
    ac_coupling: bool = False


def _pulse(x: Floats) -> Floats:
    """Return the shaped pulse at x = t / tau >= 0."""
    return x**2 * np.exp(2 * (1 - x))


def shot_noise_variance(rate_mhz: float, tau_ns: float, electronics: Electronics) -> float:
    """Return the variance of the noise at one time in avalanches^2, by Campbell's theorem.

    It is rate x <a^2> x integral of f^2, where the integral is 24 e^4 / 4^5 tau, and the charge of
    a photo-electron has <a^2> = (1 + p + s^2 (1 - p)) / (1 - p)^2 for crosstalk p and spread s.
    """
    p, s = electronics.crosstalk, electronics.gain_spread
    square = (1 + p + s**2 * (1 - p)) / (1 - p) ** 2
    shot = rate_mhz * 1e-3 * square * tau_ns * 24 * e**4 / 4**5
    return shot + max(electronics.noise, SMALLEST_NOISE) ** 2


def mean_level(rate_mhz: float, electronics: Electronics) -> float:
    """Return the mean of the slow shaper in avalanches: rate x <a> x integral of f, e^2 tau / 4."""
    tau = electronics.peaking_time_ns
    return rate_mhz * 1e-3 / (1 - electronics.crosstalk) * tau * e**2 / 4


class _Distribution(NamedTuple):
    """Upper tail of the noise at one time: -ln P(X > x), rising, at points x."""

    x: Floats
    depth: Floats
    lowest_mean: float  # of X within the first step of the table

    def quantile(self, depth: Floats) -> Floats:
        return np.interp(depth, self.depth, self.x)


def _single_time(rate_mhz: float, tau_ns: float, electronics: Electronics) -> _Distribution:
    """Return the distribution of the noise at one time, from its characteristic function."""
    p, s = electronics.crosstalk, electronics.gain_spread
    noise = max(electronics.noise, SMALLEST_NOISE)
    rate = rate_mhz * 1e-3
    width = 24 * shot_noise_variance(rate_mhz, tau_ns, electronics) ** 0.5 + 30 / (1 - p)
    n = int(min(2 ** np.ceil(np.log2(3 * width / noise)), 2**16))
    omega = 2 * pi / width * np.arange(n // 2 + 1)
    x = (np.arange(PULSE_STEPS, dtype=np.float64) + 0.5) * (PULSE_END / PULSE_STEPS)
    log_phi = -0.5 * (omega * noise) ** 2 + 0j
    for height in _pulse(x):
        single = np.exp(1j * omega * height - 0.5 * (s * omega * height) ** 2)
        charge = (1 - p) * single / (1 - p * single)
        centred = charge - 1 - 1j * omega * height / (1 - p)
        log_phi += rate * tau_ns * PULSE_END / PULSE_STEPS * centred
    # Conjugate: irfft has the sign of the inverse transform of exp(+i omega x).
    density = np.fft.fftshift(np.fft.irfft(np.conj(np.exp(log_phi)), n))
    density = np.maximum(density, 0) / np.maximum(density, 0).sum()
    points = (np.arange(n) - n // 2) * (width / n)
    above = np.cumsum(density[::-1])[::-1]
    inside = (above < 1 - 1e-9) & (above > 1e-11)
    depth = -np.log(above[inside])
    edges = points[inside] - 0.5 * width / n
    low = 1 - above < 1 - np.exp(-QUANTILE_STEP)
    lowest = float((density * points)[low].sum() / density[low].sum())
    return _Distribution(edges, depth, lowest)


def _shaped_noise(rate_mhz: float, electronics: Electronics, seed: int) -> Floats:
    """Return SAMPLES successive values of the slow shaper, its mean removed, avalanches."""
    rng = np.random.default_rng([SEED, seed])
    tau = electronics.peaking_time_ns
    p = electronics.crosstalk
    n = rng.poisson(rate_mhz * 1e-3 * tau / SAMPLES_PER_TAU, SAMPLES)
    hit = np.flatnonzero(n)
    charge = np.zeros(SAMPLES)
    count = n[hit] + (rng.negative_binomial(n[hit], 1 - p) if p > 0 else 0)
    charge[hit] = count + electronics.gain_spread * np.sqrt(count) * rng.standard_normal(len(hit))
    pulse = _pulse(np.arange(PULSE_END * SAMPLES_PER_TAU, dtype=np.float64) / SAMPLES_PER_TAU)
    shaper = np.fft.rfft(pulse, SAMPLES)

    def shape(values, variance):
        # Mean and variance are given, not left to chance, which would be in every maximum.
        shaped = np.fft.irfft(np.fft.rfft(values - values.mean()) * shaper, SAMPLES)
        return shaped * np.sqrt(variance / shaped.var())

    own = shot_noise_variance(0.0, tau, electronics)
    shaped = shape(rng.standard_normal(SAMPLES), own)
    if len(hit) > 0:
        shaped += shape(charge, shot_noise_variance(rate_mhz, tau, electronics) - own)
    return shaped


def _excess(shaped: Floats, signal: float, electronics: Electronics) -> Floats:
    """Return maxima within the gate of noise and a pulse in its middle, less the pulse, sorted."""
    half = 0.5 * electronics.gate_ns / electronics.peaking_time_ns * SAMPLES_PER_TAU
    # Linear between samples: a strong signal moves its peak by less than the distance of two.
    within = np.arange(np.ceil(-2 * half), np.floor(2 * half) + 1) / 2
    near = np.arange(-3, 4) / 4
    places = np.unique([-half, *within, *near[np.abs(near) < half], half])
    margin = int(np.ceil(half)) + 1
    ring = np.concatenate([shaped[-margin:], shaped, shaped[:margin]])
    slope = np.diff(ring)
    highest = np.full(len(shaped), -np.inf)
    for place in places:
        before = int(np.floor(place))
        window = slice(margin + before, margin + before + len(shaped))
        below_peak = signal * (_pulse(np.maximum(1 + place / SAMPLES_PER_TAU, 0)) - 1)
        noise = (place - before) * slope[window]
        noise += ring[window]
        np.maximum(highest, noise + below_peak, out=highest)
    return np.sort(highest)


def _maximum(distribution: _Distribution, maxima: Floats, depth: Floats) -> Floats:
    """Return quantiles of the maximum within the gate, its tail taken from that of one time."""
    n = len(maxima)
    own_depth = -np.log(1 - (np.arange(n) + 0.5) / n)
    quantile = np.interp(depth, own_depth, maxima)
    near = (depth >= TAIL_FROM - TAIL_FIT) & (depth <= TAIL_FROM + TAIL_FIT / 2)
    moved = np.interp(quantile[near], distribution.x, distribution.depth) - depth[near]
    tail = depth > TAIL_FROM
    quantile[tail] = distribution.quantile(depth[tail] + moved.mean())
    lowest = maxima[: max(1, round(n * (1 - np.exp(-QUANTILE_STEP))))].mean()
    quantile[0] = 2 * lowest - quantile[1]
    return np.maximum.accumulate(quantile)


@lru_cache(maxsize=256)
def noise_quantiles(rate_mhz: float, electronics: Electronics, seed: int) -> Floats:
    """Return the quantiles of the noise of one rate, avalanches.

    Parameters
    ----------
    rate_mhz : photo-electrons of night sky and dark counts
    electronics : shapers, gate and SiPM
    seed : of the simulated maxima

    Returns
    -------
    quantiles : (kind, quantile), kinds as in `astri_gpu.kernels.camera_noise`, at steps of
        `QUANTILE_STEP` in -ln(1 - u). The lowest ones are such that the mean within the first step
        is right. Not to be written to.
    """
    depth = QUANTILE_STEP * np.arange(N_QUANTILES, dtype=np.float64)
    table = np.empty((N_KINDS, N_QUANTILES))
    slow = _single_time(rate_mhz, electronics.peaking_time_ns, electronics)
    fast = _single_time(rate_mhz, electronics.fast_peaking_time_ns, electronics)
    for kind, distribution in ((NOISE_SLOW, slow), (NOISE_FAST, fast)):
        table[kind] = distribution.quantile(depth)
        table[kind, 0] = 2 * distribution.lowest_mean - table[kind, 1]
    shaped = _shaped_noise(rate_mhz, electronics, seed)
    for level, signal in enumerate(SIGNAL_LEVELS):
        table[NOISE_MAXIMUM + level] = _maximum(slow, _excess(shaped, signal, electronics), depth)
    if not electronics.ac_coupling:
        table[: NOISE_SLOW + 1] += mean_level(rate_mhz, electronics)
    table.flags.writeable = False
    return table


def noise_place(rate_mhz: Floats) -> tuple[NDArray[np.int32], Floats]:
    """Return the lower row of the noise table and the weight of the next one, for each rate.

    Noise grows with the root of the rate, in which the weight is therefore linear.
    """
    root, nodes = np.sqrt(np.asarray(rate_mhz, dtype=np.float64)), np.sqrt(NOISE_RATES_MHZ)
    root = np.minimum(root, nodes[-1])
    node = np.clip(np.searchsorted(nodes, root, side="right") - 1, 0, len(nodes) - 2)
    return node.astype(np.int32), (root - nodes[node]) / (nodes[node + 1] - nodes[node])


def noise_rate(node: NDArray[np.int32], fraction: Floats) -> Floats:
    """Return the rate in MHz that belongs to a place in the table; inverse of `noise_place`."""
    root = np.sqrt(NOISE_RATES_MHZ)
    return (root[node] + fraction * (root[node + 1] - root[node])) ** 2


def noise_levels(node: NDArray[np.int32], dark_rate_mhz: float, electronics: Electronics) -> Floats:
    """Return the noise table (node, kind, quantile); its last row is that of the dark counts.

    Only the rows that `node` (any shape) and the ones after them ask for are made, which takes
    0.2 s each; the others are NaN.
    """
    n_nodes = len(NOISE_RATES_MHZ)
    table = np.full((n_nodes + 1, N_KINDS, N_QUANTILES), np.nan)
    lower = np.unique(node)
    for k in np.union1d(lower, lower + 1):
        table[k] = noise_quantiles(float(NOISE_RATES_MHZ[k]), electronics, int(k))
    table[n_nodes] = noise_quantiles(dark_rate_mhz, electronics, n_nodes)
    return table


def _mean_product(a: Floats, b: Floats) -> Floats:
    """Return the mean of the product of two noises of one quantile, along the last axis.

    With u uniform, v = -ln(1 - u) has the density exp(-v); quantiles are linear in v within each
    step and constant beyond the last.
    """
    h = QUANTILE_STEP
    start = np.exp(-h * np.arange(N_QUANTILES - 1))
    # Integrals of exp(-h w) h dw, times w and w^2, over 0 < w < 1.
    i_0 = 1 - np.exp(-h)
    i_1 = i_0 / h - np.exp(-h)
    i_2 = 2 * i_1 / h - np.exp(-h)
    low, other_low = a[..., :-1], b[..., :-1]
    d, g = np.diff(a), np.diff(b)
    inner = low * other_low * i_0 + (low * g + other_low * d) * i_1 + d * g * i_2
    return inner @ start + a[..., -1] * b[..., -1] * start[-1] * (1 - i_0)


def noise_moments(
    table: Floats, kind: int, node: NDArray[np.int32], fraction: Floats
) -> tuple[Floats, Floats]:
    """Return mean and variance of what `noise_quantile` draws, exactly, in avalanches.

    Parameters
    ----------
    table : (node, kind, quantile)
    kind : of the noise
    node, fraction : any shape, see `noise_place`; `node` may be the last row, with fraction 0
    """
    above = np.minimum(node + 1, len(table) - 1)
    one = np.ones(N_QUANTILES)
    mean, variance = np.empty(node.shape), np.empty(node.shape)
    for row in np.unique(node):
        here = node == row
        low, high = table[row, kind], table[above[here].flat[0], kind]
        f = fraction[here]
        mean[here] = (1 - f) * _mean_product(low, one) + f * _mean_product(high, one)
        square = (1 - f) ** 2 * _mean_product(low, low) + f**2 * _mean_product(high, high)
        square += 2 * f * (1 - f) * _mean_product(low, high)
        variance[here] = square - mean[here] ** 2
    return mean, variance


def cut_moments(
    table: Floats, kind: int, node: NDArray[np.int32], fraction: Floats, highest: Floats
) -> tuple[Floats, Floats]:
    """Return mean and variance of the noise in avalanches where none is above `highest`.

    Parameters
    ----------
    table, kind, node, fraction : as in `noise_moments`
    highest : end of the scale, shape of `node`; infinity = none
    """
    mean, variance = noise_moments(table, kind, node, fraction)
    above = np.minimum(node + 1, len(table) - 1)
    end = (1 - fraction) * table[node, kind, -1] + fraction * table[above, kind, -1]
    reaching = np.flatnonzero(end > highest)
    for part in np.array_split(reaching, -(-len(reaching) // PIXELS_AT_ONCE) or 1):
        low, high = (table[k.flat[part], kind] for k in (node, above))
        f = fraction.flat[part][:, None]
        quantile = np.minimum(low + f * (high - low), highest.flat[part][:, None])
        mean.flat[part] = _mean_product(quantile, np.ones(N_QUANTILES))
        square = _mean_product(quantile, quantile)
        variance.flat[part] = np.maximum(square - mean.flat[part] ** 2, 0)
    return mean, variance
