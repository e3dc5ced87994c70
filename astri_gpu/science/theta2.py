"""Squared angles of events from the target, and from off positions at the same field offset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.science.extraction import Extractor, RunCounts
from astri_gpu.science.runs import Chosen, Faults

if TYPE_CHECKING:
    from astri_gpu.config_science import ScienceConfig

__all__ = ["Theta2", "theta2"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Theta2:
    """Events by squared angle, all runs together.

    `on` are events about the target, `off` those about all off positions and `background` what
    these say is to be expected in `on`, with its `error`, each (bin,); `alpha` is
    background / off, NaN where there are no off events. `cut_deg2` ends the signal region;
    `total` are the counts within it.
    """

    edges: Floats
    on: Integers
    off: Integers
    background: Floats
    error: Floats
    cut_deg2: float
    total: RunCounts

    @property
    def alpha(self) -> Floats:
        """Return background / off."""
        return np.divide(
            self.background, self.off, out=np.full(len(self.on), np.nan), where=self.off > 0
        )


def theta2(
    chosen: Chosen, extractor: Extractor, config: "ScienceConfig", faults: Faults
) -> Theta2 | None:
    """Return the distributions, of events within the energies of the spectrum.

    None where no run has room for an off position.

    The off positions lie on a circle about the pointing through the target, at equal distances.
    Each counts for angles that do not reach the target's on region or a circle of ``exclude``,
    so the farther from its middle, the fewer positions say what the background is.
    """
    from astropy import units as u

    detection = config.detection
    edges = np.linspace(0, detection.theta2_max_deg2, detection.n_theta2 + 1)
    on, off = (np.zeros(len(edges) - 1, dtype=np.int64) for _ in range(2))
    background, variance = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    radii = [extractor.radius_deg(observation) for observation in chosen.observations]
    cut = max(radii)
    n_on = n_off = 0
    expected = livetime = weight = 0.0
    circles = config.circles()
    for head, observation in zip(chosen.heads, chosen.observations, strict=True):
        pointing = observation.get_pointing_icrs(observation.tmid)
        positions = list(_off_positions(pointing, chosen, detection.n_off, cut, circles))
        if not positions:
            faults.warn(f"Run {head.obs_id} is not in the theta-squared plot: no off position fits")
            continue
        events = observation.events.select_energy(extractor.limits * u.TeV)
        near = events.radec[
            events.radec.separation(pointing).deg
            < pointing.separation(chosen.target.position).deg + np.sqrt(edges[-1])
        ]
        angles = near.separation(chosen.target.position).deg
        on += np.histogram(angles**2, edges)[0]
        n_on += int(np.sum(angles < cut))
        reach = np.array([limit for _, limit in positions])
        counts, inside = np.zeros(len(edges) - 1, dtype=np.int64), 0
        for position, limit in positions:
            distance = near.separation(position).deg
            used = np.sqrt(edges[1:]) <= limit + 1e-9
            counts += np.where(used, np.histogram(distance**2, edges)[0], 0)
            inside += int(np.sum(distance < cut))
        live = float(observation.observation_live_time_duration.to_value("s"))
        livetime += live
        n_used = np.sum(np.sqrt(edges[1:, None]) <= reach + 1e-9, axis=1)
        share = np.divide(1.0, n_used, out=np.full(len(counts), np.nan), where=n_used > 0)
        off += counts
        background += share * counts
        variance += share**2 * counts
        n_off += inside
        expected += inside / len(positions)
        weight += live * len(positions)
    alpha = expected / n_off if n_off else livetime / weight
    if not weight:
        return None
    total = RunCounts(n_on, n_off, alpha, livetime)
    return Theta2(edges, on, off, background, np.sqrt(variance), cut**2, total)


def _off_positions(
    pointing: Any,
    chosen: Chosen,
    number: int,
    radius: float,
    circles: Sequence[tuple[float, float, float]],
) -> Any:
    """Yield off positions and how far from them (deg) events are background."""
    from astropy import units as u

    from astri_gpu.science.extraction import circle_regions

    target = chosen.target.position
    distance, angle = pointing.separation(target), pointing.position_angle(target)
    for place in range(1, number + 1):
        turned = angle + place * 2 * np.pi / (number + 1) * u.rad
        position = pointing.directional_offset_by(turned, distance)
        limit = float(position.separation(target).deg) - radius
        for region in circle_regions(circles):
            gap = position.separation(region.center).deg - region.radius.to_value("deg")
            limit = min(limit, float(gap))
        if limit >= radius:
            yield position, limit
