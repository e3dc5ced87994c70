"""Counts in the on region and in reflected off regions of every run, as spectrum datasets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.science.runs import Chosen, Faults

if TYPE_CHECKING:
    from astri_gpu.config_science import ScienceConfig

__all__ = ["Extractor", "RunCounts", "circle_regions", "counts_of", "energy_edges", "safe_between"]

Floats = NDArray[np.float64]
GRID_TOLERANCE = 1e-6  # of a bin: limits written with single precision


@dataclass(frozen=True)
class RunCounts:
    """Counts of a run, or of several, in the safe energies; Li & Ma's significance with its sign.

    `alpha` is the exposure of the on region in that of the off regions; NaN without off regions.
    """

    n_on: int
    n_off: int
    alpha: float
    livetime_s: float

    @property
    def background(self) -> float:
        """Return the background expected in the on region."""
        return self.alpha * self.n_off if self.n_off else 0.0

    @property
    def excess(self) -> float:
        """Return the counts above the background."""
        return self.n_on - self.background

    @property
    def significance(self) -> float:
        """Return Li & Ma's significance (equation 17), negative for a deficit."""
        from gammapy.stats import WStatCountsStatistic

        value = float(np.squeeze(WStatCountsStatistic(self.n_on, self.n_off, self.alpha).sqrt_ts))
        return value if np.isfinite(value) else 0.0

    def upper_limit(self, n_sigma: float = 2.0) -> float:
        """Return the upper limit of the excess, of a source that cannot be negative.

        It is where W (the statistic of Li & Ma) is `n_sigma`^2 above its least value for any
        signal from zero on, so a deficit does not make it zero.
        """
        from gammapy.stats import wstat
        from scipy.optimize import brentq

        best = max(self.excess, 0.0)

        def rise(signal: float) -> float:
            both = [
                float(wstat(self.n_on, self.n_off, self.alpha, value)) for value in (signal, best)
            ]
            return both[0] - both[1] - n_sigma**2

        return float(brentq(rise, best, best + 20 * n_sigma * (np.sqrt(self.n_on + best) + 2)))


def energy_edges(low: float, high: float, per_decade: int) -> Floats:
    """Return edges (TeV) at 10^(k / per_decade) between two limits, which are the ends.

    Limits that are on the grid but for rounding count as on it, so no bin is a sliver.
    """
    first, last = per_decade * np.log10(low), per_decade * np.log10(high)
    inside = np.arange(np.floor(first + GRID_TOLERANCE) + 1, np.ceil(last - GRID_TOLERANCE))
    return np.concatenate([[low], 10 ** (inside / per_decade), [high]])


def _snapped(value: float, per_decade: int, up: bool) -> float:
    steps = per_decade * np.log10(value)
    whole = np.ceil(steps - GRID_TOLERANCE) if up else np.floor(steps + GRID_TOLERANCE)
    return float(10 ** (whole / per_decade))


def _limits(chosen: Chosen, config: "ScienceConfig") -> tuple[float, float, float, float]:
    """Return the ends (TeV) of reconstructed and of true energy.

    Without options the first begins where the effective area of a run reaches the share of its
    maximum that is asked for, or where its response says that its cuts begin (LO_THRES).

    Raises
    ------
    UsageError
        When the energies of the options are outside those of the responses.
    """
    sed = config.sed
    true_low, true_high, low, high = np.inf, 0.0, np.inf, 0.0
    for head, observation in zip(chosen.heads, chosen.observations, strict=True):
        axis = observation.aeff.axes["energy_true"]
        edges = axis.edges.to_value("TeV")
        offset = _offset_of(observation, chosen)
        area = observation.aeff.evaluate(energy_true=axis.center, offset=offset).to_value("m2")
        area = np.nan_to_num(np.ravel(area))
        if not area.max(initial=0.0) > 0:
            raise AstriError(
                f"The effective area of run {head.obs_id} is zero at {offset.to_value('deg'):.2f} "
                f"deg from its pointing, where {chosen.target.name} is: leave the run out."
            )
        enough = np.flatnonzero(area >= max(sed.safe_aeff_percent / 100 * area.max(), 1e-30))
        meta = {str(key).upper(): value for key, value in observation.aeff.meta.items()}
        starts = float(meta.get("LO_THRES") or 0.0)
        true_low, true_high = min(true_low, edges[0]), max(true_high, edges[-1])
        low = min(low, max(edges[enough[0]], starts))
        high = max(high, min(edges[enough[-1] + 1], float(meta.get("HI_THRES") or np.inf)))
    low = _snapped(low, sed.bins_per_decade, up=False)
    high = _snapped(high, sed.bins_per_decade, up=True)
    asked = sed.energy_min_tev or low, sed.energy_max_tev or high
    if asked[0] >= asked[1] or asked[0] >= true_high or asked[1] <= true_low:
        raise UsageError(
            f"The energies {asked[0]:g} to {asked[1]:g} TeV are outside those of the responses "
            f"({max(low, true_low):.3g} to {min(high, true_high):.3g} TeV): change "
            "sed.energy_min_tev or sed.energy_max_tev."
        )
    return asked[0], asked[1], float(true_low), float(true_high)


def _offset_of(observation: Any, chosen: Chosen) -> Any:
    pointing = observation.get_pointing_icrs(observation.tmid)
    return pointing.separation(chosen.target.position)


class Extractor:
    """Makes the spectrum datasets of runs, or of pieces of runs.

    Parameters
    ----------
    chosen
        Runs and target.
    config
        Of the stage.

    Raises
    ------
    UsageError
        When the energies of the options are outside those of the responses.
    """

    def __init__(self, chosen: Chosen, config: "ScienceConfig") -> None:
        from gammapy.makers import SafeMaskMaker
        from gammapy.maps import MapAxis

        sed = config.sed
        self._chosen = chosen
        self._n_off = config.detection.n_off
        self._radius = config.detection.on_radius_deg
        low, high, true_low, true_high = _limits(chosen, config)
        self.axis = MapAxis.from_energy_edges(
            energy_edges(low, high, sed.bins_per_decade), unit="TeV", name="energy"
        )
        self.true_axis = MapAxis.from_energy_edges(
            energy_edges(true_low, true_high, sed.true_bins_per_decade),
            unit="TeV",
            name="energy_true",
        )
        methods = ["aeff-max"]
        if all("LO_THRES" in {str(k).upper() for k in o.aeff.meta} for o in chosen.observations):
            methods.insert(0, "aeff-default")
        self._safe = SafeMaskMaker(methods=methods, aeff_percent=sed.safe_aeff_percent)
        self._circles = config.circles()

    @property
    def limits(self) -> tuple[float, float]:
        """Return the ends of reconstructed energy, TeV."""
        edges = self.axis.edges.to_value("TeV")
        return float(edges[0]), float(edges[-1])

    def region(self, observation: Any) -> Any:
        """Return the on region: a circle, or a point where each energy has its own radius."""
        from astropy import units as u
        from regions import CircleSkyRegion, PointSkyRegion

        position = self._chosen.target.position
        if not self._chosen.point_like:
            return CircleSkyRegion(position, self._radius * u.deg)
        if observation.rad_max.is_fixed_rad_max:
            return CircleSkyRegion(position, observation.rad_max.quantity.squeeze())
        return PointSkyRegion(position)

    def radius_deg(self, observation: Any) -> float:
        """Return the (largest) radius of the on region, deg."""
        if not self._chosen.point_like:
            return self._radius
        axis = observation.rad_max.axes["energy"]
        edges = axis.edges.to_value("TeV")
        used = (edges[1:] > self.limits[0]) & (edges[:-1] < self.limits[1])
        offset = _offset_of(observation, self._chosen)
        radii = np.ravel(
            observation.rad_max.evaluate(energy=axis.center, offset=offset).to_value("deg")
        )
        radii = radii[used] if used.any() else radii
        return float(np.nanmax(radii))

    def _off_maker(self, observation: Any) -> Any:
        from gammapy.makers import (
            ReflectedRegionsBackgroundMaker,
            ReflectedRegionsFinder,
            WobbleRegionsFinder,
        )
        from regions import PointSkyRegion

        exclusion = self._exclusion(observation)
        if not isinstance(self.region(observation), PointSkyRegion):
            return ReflectedRegionsBackgroundMaker(
                exclusion_mask=exclusion, region_finder=ReflectedRegionsFinder()
            )
        distance = _offset_of(observation, self._chosen).to_value("deg")
        share = self.radius_deg(observation) / max(distance, 1e-6)
        most = int(np.pi / np.arcsin(share) + GRID_TOLERANCE) - 1 if share < 1 else 0
        if most < 1:
            return None
        return ReflectedRegionsBackgroundMaker(
            exclusion_mask=exclusion, region_finder=WobbleRegionsFinder(min(self._n_off, most))
        )

    def _exclusion(self, observation: Any) -> Any:
        """Return the map of what may be background around a pointing; None where all may."""
        from gammapy.maps import WcsGeom

        if not self._circles:
            return None
        pointing = observation.get_pointing_icrs(observation.tmid)
        reach = _offset_of(observation, self._chosen).to_value("deg") + self.radius_deg(observation)
        geom = WcsGeom.create(skydir=pointing, width=2 * reach + 0.2, binsz=0.02, proj="TAN")
        return geom.region_mask(circle_regions(self._circles), inside=False)

    def dataset(self, observation: Any, name: str) -> Any | None:
        """Return the counts and responses of a run; None where no reflected region fits."""
        from gammapy.datasets import SpectrumDataset
        from gammapy.makers import SpectrumDatasetMaker
        from gammapy.maps import RegionGeom

        off = self._off_maker(observation)
        if off is None:
            return None
        geom = RegionGeom.create(self.region(observation), axes=[self.axis])
        empty = SpectrumDataset.create(geom=geom, energy_axis_true=self.true_axis, name=name)
        maker = SpectrumDatasetMaker(
            selection=["counts", "exposure", "edisp"],
            containment_correction=not self._chosen.point_like,
            use_region_center=True,
        )
        dataset = off.run(maker.run(empty, observation), observation)
        if dataset.counts_off is None or not np.any(dataset.acceptance_off.data > 0):
            return None
        return self._safe.run(dataset, observation)

    @property
    def largest_radius_deg(self) -> float:
        """Return the largest radius of the on region in any run, deg."""
        return max(self.radius_deg(observation) for observation in self._chosen.observations)

    def datasets(self, faults: Faults) -> tuple[Chosen, list[Any]]:
        """Return the runs that have off regions and safe energies, and their datasets.

        Raises
        ------
        AstriError
            When a run has none and bad runs are not to be skipped, or no run is left.
        """
        chosen = self._chosen
        kept, made = [], []
        for place, (head, observation) in enumerate(
            zip(chosen.heads, chosen.observations, strict=True)
        ):
            dataset = self.dataset(observation, str(head.obs_id))
            if dataset is None:
                distance = _offset_of(observation, chosen).to_value("deg")
                faults.bad_run(
                    head.obs_id,
                    f"no reflected off region fits: it points {distance:.2f} deg from "
                    f"{chosen.target.name} and the on region has a radius of "
                    f"{self.radius_deg(observation):.3f} deg",
                )
            elif not dataset.mask_safe.data.any():
                faults.bad_run(
                    head.obs_id,
                    f"none of the energies {self.limits[0]:g} to {self.limits[1]:g} TeV is safe, "
                    "the effective area is too small there (sed.safe_aeff_percent)",
                )
            else:
                kept.append(place)
                made.append(dataset)
        if not made:
            raise AstriError(f"No run is left to analyse: {faults.reasons()}.")
        return chosen.only(kept), made


def circle_regions(circles: Iterable[tuple[float, float, float]]) -> list[Any]:
    """Return regions of circles given as right ascension, declination and radius, deg."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from regions import CircleSkyRegion

    return [
        CircleSkyRegion(SkyCoord(ra, dec, unit="deg", frame="icrs"), radius * u.deg)
        for ra, dec, radius in circles
    ]


def safe_between(dataset: Any, low: float, high: float) -> NDArray[np.bool_]:
    """Return the safe bins of a dataset from one energy (TeV) to another."""
    edges = dataset.counts.geom.axes["energy"].edges.to_value("TeV")[:, None, None]
    inside = (edges[:-1] > low * (1 - 1e-6)) & (edges[1:] < high * (1 + 1e-6))
    found: NDArray[np.bool_] = dataset.mask_safe.data & inside
    return found


def counts_of(datasets: Sequence[Any], energies: tuple[float, float] = (0.0, np.inf)) -> RunCounts:
    """Return the counts of one or more datasets together, in their safe energies.

    `energies` (TeV) are the ends of what is counted.

    `alpha` is the mean weighted with the off counts, so that the background is the sum of those of
    the runs; without off counts, with the exposures of the off regions.
    """
    n_on = n_off = 0
    background = livetime = acceptance = acceptance_off = 0.0
    for dataset in datasets:
        safe = safe_between(dataset, *energies)
        n_on += int(dataset.counts.data[safe].sum())
        n_off += int(dataset.counts_off.data[safe].sum())
        background += float(np.nansum((dataset.alpha.data * dataset.counts_off.data)[safe]))
        acceptance += float(dataset.acceptance.data[safe].sum())
        acceptance_off += float(dataset.acceptance_off.data[safe].sum())
        livetime += float(dataset.gti.time_sum.to_value("s")) * _live_share(dataset)
    alpha = background / n_off if n_off else acceptance / max(acceptance_off, 1e-30)
    return RunCounts(n_on, n_off, alpha, livetime)


def _live_share(dataset: Any) -> float:
    """Return the live time in the time of a dataset, 1 where it does not say."""
    livetime = dataset.exposure.meta.get("livetime") if dataset.exposure is not None else None
    total = float(dataset.gti.time_sum.to_value("s"))
    return float(livetime.to_value("s")) / total if livetime is not None and total > 0 else 1.0
