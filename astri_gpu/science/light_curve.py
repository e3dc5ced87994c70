"""Integral flux against time: one value per run, or per so many seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.errors import UsageError
from astri_gpu.science.extraction import Extractor
from astri_gpu.science.fitting import SpectrumFit, limit_of_norm
from astri_gpu.science.runs import Chosen, Faults

if TYPE_CHECKING:
    from astri_gpu.config_science import ScienceConfig

__all__ = ["LightCurve", "light_curve"]


@dataclass(frozen=True)
class LightCurve:
    """Fluxes (Gammapy's `FluxPoints` with a time axis), and whether one flux explains them.

    `mean` and `error` (cm-2 s-1) are of the weighted mean, `chi2` with `n_times` - 1 degrees of
    freedom and its `p_value` judge it; NaN where fewer than two times have a flux.
    """

    points: Any
    energy_range_tev: tuple[float, float]
    mean: float
    error: float
    chi2: float
    n_times: int
    p_value: float


def light_curve(
    chosen: Chosen,
    datasets: Sequence[Any],
    extractor: Extractor,
    fit: SpectrumFit,
    config: "ScienceConfig",
    faults: Faults,
) -> LightCurve | None:
    """Return the light curve for the shape of the fitted spectrum; None if no time can be used.

    Raises
    ------
    UsageError
        When its energies are outside those of the spectrum.
    """
    from astropy import units as u
    from gammapy.datasets import Datasets
    from gammapy.estimators import LightCurveEstimator

    edges = extractor.axis.edges.to_value("TeV")
    asked = config.light_curve.energy_min_tev
    if asked >= edges[-1] * (1 - 1e-6):
        raise UsageError(
            f"light_curve.energy_min_tev={asked:g} is not below the highest energy of the spectrum "
            f"({edges[-1]:.3g} TeV): lower it."
        )
    low = float(edges[np.argmin(np.abs(np.log(edges[:-1] / asked)))])
    if config.light_curve.bin_s is not None:
        datasets = _pieces(chosen, extractor, config.light_curve.bin_s, faults)
    if not datasets:
        return None
    for dataset in datasets:
        dataset.models = [fit.shape]
    estimator = LightCurveEstimator(
        energy_edges=[low, edges[-1]] * u.TeV,
        source=fit.shape.name,
        selection_optional=["ul"],
        atol=1e-3 * u.s,
    )
    points = estimator.run(Datasets(list(datasets)))
    _hold_limits(points, datasets, low, float(edges[-1]))
    return LightCurve(points, (low, float(edges[-1])), *_constant(points))


def _hold_limits(points: Any, datasets: Sequence[Any], low: float, high: float) -> None:
    """Give times of negative flux the upper limit of a source that cannot be negative."""
    axis = points.geom.axes["time"]
    limits, norms = points.norm_ul.data, points.norm.data
    for place in np.ndindex(limits.shape):
        if norms[place] >= 0 and limits[place] > 0:
            continue
        start, stop = axis.time_min[place[0]], axis.time_max[place[0]]
        inside = [
            dataset
            for dataset in datasets
            if start <= dataset.gti.time_start[0] + 0.5 * dataset.gti.time_delta[0] <= stop
        ]
        limits[place] = limit_of_norm(inside, low, high)


def _pieces(chosen: Chosen, extractor: Extractor, bin_s: float, faults: Faults) -> list[Any]:
    """Return the datasets of equal pieces of the runs, about `bin_s` long."""
    from gammapy.data import Observations

    made = []
    for head, observation in zip(chosen.heads, chosen.observations, strict=True):
        start, stop = observation.tstart, observation.tstop
        number = max(1, round(float((stop - start).to_value("s")) / bin_s))
        times = start + (stop - start) * np.linspace(0, 1, number + 1)
        for place in range(number):
            pieces = Observations([observation]).select_time(times[place : place + 2])
            if not pieces or not pieces[0].gti.time_sum.value > 0:
                continue
            dataset = extractor.dataset(pieces[0], f"{head.obs_id}_{place}")
            if dataset is not None and dataset.mask_safe.data.any():
                made.append(dataset)
            else:
                faults.warn(f"Run {head.obs_id}: a part of it has no off regions or safe energies")
    return made


def _constant(points: Any) -> tuple[float, float, float, int, float]:
    """Return weighted mean, its error, chi2, number of times and p value."""
    from scipy.stats import chi2 as chi2_distribution

    flux = np.ravel(points.flux.quantity.to_value("cm-2 s-1"))
    error = np.ravel(points.flux_err.quantity.to_value("cm-2 s-1"))
    use = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    n_times = int(use.sum())
    if not n_times:
        return (np.nan, np.nan, np.nan, 0, np.nan)
    weight = error[use] ** -2
    mean = float(np.sum(weight * flux[use]) / weight.sum())
    if n_times < 2:
        return mean, float(weight.sum() ** -0.5), np.nan, n_times, np.nan
    chi2 = float(np.sum(weight * (flux[use] - mean) ** 2))
    p_value = float(chi2_distribution.sf(chi2, n_times - 1))
    return mean, float(weight.sum() ** -0.5), chi2, n_times, p_value
