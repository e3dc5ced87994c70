"""Forward folding: a spectral model fitted to the counts of all runs, and flux points of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.science.extraction import RunCounts, counts_of, safe_between

if TYPE_CHECKING:
    from astri_gpu.config_science import ScienceConfig

__all__ = [
    "Parameter",
    "SpectrumFit",
    "fit_spectrum",
    "flux_points",
    "stacked",
]

CUTOFF_PER_TEV = 0.05  # where the fit of an exponential cutoff starts
CURVATURE = 0.05  # of a log parabola, likewise


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model; `error` is 0 where it was not fitted."""

    name: str
    value: float
    error: float
    unit: str
    fitted: bool


@dataclass(frozen=True)
class SpectrumFit:
    """A fitted spectrum.

    `model` is Gammapy's `SkyModel` with its covariance, `statistic` the value of W at the minimum
    (Poisson counts, measured background) and `n_bins` the bins it sums over. `converged` says
    whether minimum and covariance were found, `message` what the minimiser says otherwise. With
    `faint` only the amplitude was fitted. `improvement` is the fall of the statistic from a power
    law to the model, None where it is one. `shape` is the model that flux points and light curves
    are multiples of: `model`, or with a deficit of events one as bright as the upper limit.
    `amplitude_limit` is that limit (2 sigma, of the counts of all energies), None for a source that
    is not faint.
    """

    model: Any
    form: str
    parameters: tuple[Parameter, ...]
    energy_range_tev: tuple[float, float]
    statistic: float
    n_bins: int
    converged: bool
    message: str
    faint: bool
    improvement: float | None
    shape: Any
    amplitude_limit: float | None

    @property
    def degrees_of_freedom(self) -> int:
        """Return the bins less the fitted parameters."""
        return self.n_bins - sum(parameter.fitted for parameter in self.parameters)

    @property
    def slope(self) -> Parameter:
        """Return the parameter that is the spectral index (of a log parabola at its reference)."""
        return self.parameter("alpha" if self.form == "log_parabola" else "index")

    def parameter(self, name: str) -> Parameter:
        """Return the parameter of a name."""
        return next(entry for entry in self.parameters if entry.name == name)


def _spectral_model(form: str, reference_tev: float, index: float) -> Any:
    from astropy import units as u
    from gammapy.modeling.models import (
        ExpCutoffPowerLawSpectralModel,
        LogParabolaSpectralModel,
        PowerLawSpectralModel,
    )

    common = {"amplitude": 1e-12 * u.Unit("TeV-1 cm-2 s-1"), "reference": reference_tev * u.TeV}
    makers: dict[str, Callable[[], Any]] = {
        "power_law": lambda: PowerLawSpectralModel(index=index, **common),
        "log_parabola": lambda: LogParabolaSpectralModel(alpha=index, beta=CURVATURE, **common),
        "exp_cutoff": lambda: ExpCutoffPowerLawSpectralModel(
            index=index, lambda_=CUTOFF_PER_TEV / u.TeV, **common
        ),
    }
    return makers[form]()


def fit_spectrum(
    datasets: Sequence[Any], counts: RunCounts, name: str, config: "ScienceConfig"
) -> SpectrumFit:
    """Return the model fitted to all datasets together; they keep it as their model.

    A source whose significance is below ``sed.min_significance`` gets a power law of
    ``sed.faint_index`` whose amplitude is fitted.

    Raises
    ------
    AstriError
        When nothing is expected in any energy.
    """
    from gammapy.datasets import Datasets

    sed = config.sed
    faint = counts.significance < sed.min_significance or counts.excess <= 0
    joint = Datasets(list(datasets))
    plain = _fit(
        joint, _spectral_model("power_law", sed.reference_tev, sed.faint_index), faint, name
    )
    best, improvement = plain, None
    if sed.model != "power_law" and not faint:
        index = plain[0].spectral_model.index.value
        curved = _spectral_model(sed.model, sed.reference_tev, index)
        curved.amplitude.quantity = plain[0].spectral_model.amplitude.quantity
        best = _fit(joint, curved, False, name, start=False)
        improvement = plain[1] - best[1]
    model, statistic, message = best
    spectral = model.spectral_model
    parameters = tuple(
        Parameter(
            entry.name,
            float(entry.value),
            0.0 if entry.frozen else float(entry.error),
            str(entry.unit),
            not entry.frozen,
        )
        for entry in spectral.parameters
    )
    bad = [
        entry.name
        for entry in parameters
        if entry.fitted and not (np.isfinite(entry.value) and entry.error > 0)
    ]
    if bad and not message:
        message = f"no error was found for {' and '.join(bad)}"
    shape, limit = model, None
    if faint:
        bright = model.copy(name=name)
        bright.spectral_model.amplitude.value = 1e-12
        joint.models = [bright]
        limit = 1e-12 * counts.upper_limit() / _expected(joint)
        joint.models = [model]
        if not spectral.amplitude.value > 0:
            shape = bright
            shape.spectral_model.amplitude.value = limit
    return SpectrumFit(
        model=model,
        form="power_law" if faint else sed.model,
        parameters=parameters,
        energy_range_tev=_range_of(datasets),
        statistic=statistic,
        n_bins=sum(int(dataset.mask_safe.data.sum()) for dataset in datasets),
        converged=not message,
        message=message,
        faint=faint,
        improvement=improvement,
        shape=shape,
        amplitude_limit=limit,
    )


def _expected(joint: Any) -> float:
    """Return the events that the model expects in the safe energies of all datasets."""
    return sum(float(np.nansum(each.npred_signal().data[each.mask_safe.data])) for each in joint)


def _fit(
    joint: Any, spectral: Any, faint: bool, name: str, *, start: bool = True
) -> tuple[Any, float, str]:
    """Return model, statistic, and what went wrong (nothing if nothing did)."""
    from gammapy.modeling import Fit
    from gammapy.modeling.models import SkyModel

    model = SkyModel(spectral_model=spectral, name=name)
    joint.models = [model]
    if start:
        expected = _expected(joint)
        excess = sum(float(np.nansum(d.excess.data[d.mask_safe.data])) for d in joint)
        if not expected > 0:
            raise AstriError(
                "Nothing is expected from any source in these energies: the effective area is zero "
                "there; change sed.energy_min_tev or sed.energy_max_tev."
            )
        # A minimiser that starts at the right number of events needs no luck.
        spectral.amplitude.value *= max(excess, 1.0) / expected
    if faint:
        spectral.index.frozen = True
    result = Fit().run(joint)
    words = []
    if not result.optimize_result.success:
        words.append(str(result.optimize_result.message).strip())
    covariance = result.covariance_result
    if covariance is None or not covariance.success:
        words.append("no covariance" if covariance is None else str(covariance.message).strip())
    return model, float(joint.stat_sum()), "; ".join(words)


def _range_of(datasets: Sequence[Any]) -> tuple[float, float]:
    """Return the ends (TeV) of the energies that are safe in any of the runs."""
    edges = datasets[0].counts.geom.axes["energy"].edges.to_value("TeV")
    safe = np.any([np.ravel(dataset.mask_safe.data) for dataset in datasets], axis=0)
    used = np.flatnonzero(safe)
    return float(edges[used[0]]), float(edges[used[-1] + 1])


def stacked(datasets: Sequence[Any]) -> Any:
    """Return all runs in one dataset, with the model of the first."""
    from gammapy.datasets import Datasets

    found = Datasets(list(datasets)).stack_reduce(name="stacked")
    found.models = datasets[0].models
    return found


def _point_edges(edges: NDArray[np.float64], low: float, high: float, per_decade: int) -> Any:
    """Return every so many of the edges, from one limit to the other."""
    used = edges[(edges >= low * (1 - 1e-6)) & (edges <= high * (1 + 1e-6))]
    wanted = 10 ** (np.arange(-60, 61) / per_decade)  # 1 TeV is an edge
    nearest = {int(np.argmin(np.abs(np.log(used / value)))) for value in wanted}
    return used[sorted(nearest | {0, len(used) - 1})]


def flux_points(dataset: Any, fit: SpectrumFit, config: "ScienceConfig") -> Any:
    """Return Gammapy's flux points of the stacked dataset, with upper limits (2 sigma)."""
    from astropy import units as u
    from gammapy.datasets import Datasets
    from gammapy.estimators import FluxPointsEstimator

    dataset.models = [fit.shape]
    edges = _point_edges(
        dataset.counts.geom.axes["energy"].edges.to_value("TeV"),
        *fit.energy_range_tev,
        config.sed.points_per_decade,
    )

    estimator = FluxPointsEstimator(
        energy_edges=edges * u.TeV, source=fit.shape.name, selection_optional=["errn-errp", "ul"]
    )
    points = estimator.run(Datasets([dataset]))
    limits = points.norm_ul.data
    for place in np.ndindex(limits.shape):
        row = place[0]
        if not (points.norm.data[place] >= 0 and limits[place] > 0):
            limits[place] = limit_of_norm([dataset], float(edges[row]), float(edges[row + 1]))
    return points


def limit_of_norm(datasets: Sequence[Any], low: float, high: float) -> float:
    """Return the upper limit (2 sigma) of a source in units of the datasets' model.

    Gammapy counts limits from the best flux, so that they are negative too where that is far below
    zero, or not found. This one is that of the counts from `low` to `high` (TeV), of a source that
    cannot be negative; NaN where the model expects nothing.
    """
    expected = sum(
        float(np.nansum(each.npred_signal().data[safe_between(each, low, high)]))
        for each in datasets
    )
    if not expected > 0:
        return float("nan")
    return counts_of(datasets, (low, high)).upper_limit() / expected
