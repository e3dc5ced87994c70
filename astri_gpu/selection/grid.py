"""All cuts of a grid at once: rates of gammas and background behind every one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend_cuts import EventColumns, GridCuts, cut_grid
from astri_gpu.errors import UsageError
from astri_gpu.kernels.sensitivity import relative_sensitivity
from astri_gpu.selection.sample import solid_angle

if TYPE_CHECKING:
    from astri_gpu.backend import Backend

__all__ = ["GridEvents", "GridResult", "PlacedEvents", "evaluate_grid"]

Floats = NDArray[np.float64]


class GridEvents(NamedTuple):
    """What cuts look at, NumPy arrays (event,)."""

    reco_energy: NDArray[Any]  # TeV
    gammaness: NDArray[Any]
    theta_or_offset: NDArray[Any]  # deg: gammas, from the source; background, from the pointing
    n_tels: NDArray[Any]
    quality: NDArray[Any]  # event type, 1 best
    weight: NDArray[Any]  # 1/s


@dataclass(frozen=True)
class GridResult:
    """Rates behind every point of a grid.

    Axes: q event types, m numbers of telescopes, bin of reconstructed energy, i gammaness cuts, j
    theta cuts; in the order in which the options were given.

    Attributes
    ----------
    gammaness_cuts
        [q, m, bin, i], least gammaness.
    theta_cuts
        deg, [q, m, bin, j], largest angle from the source.
    n_signal
        1/s, [q, m, bin, i, j], gammas in the on region.
    n_off
        1/s, [q, m, bin, i, j], background in the off regions, which are 1 / alpha of the on
        region: scaled from the ring by solid angle (`pyirf.sensitivity.estimate_background`).
    n_signal_events
        [q, m, bin, i, j], simulated gammas behind `n_signal`.
    n_ring_events
        [q, m, bin, i], simulated background events in the ring.
    n_ring_worth
        [q, m, bin, i], as many events of equal weight as have the same relative error: the square
        of the sum of weights over the sum of squares.
    alpha
        On region over off regions.
    """

    gammaness_cuts: Floats
    theta_cuts: Floats
    n_signal: Floats
    n_off: Floats
    n_signal_events: Floats
    n_ring_events: Floats
    n_ring_worth: Floats
    alpha: float

    def relative_sensitivity(
        self,
        exposure_s: float,
        *,
        min_significance: float = 5.0,
        min_signal_events: float = 10.0,
        min_excess: float = 0.05,
    ) -> Floats:
        """Return the share of the flux that is just detected, [q, m, bin, i, j].

        +inf where no gamma is left. See `kernels.sensitivity.relative_sensitivity`.
        """
        n_off = self.n_off * exposure_s
        n_on = self.n_signal * exposure_s + self.alpha * n_off
        found = relative_sensitivity(
            n_on,
            n_off,
            self.alpha,
            min_significance=min_significance,
            min_signal_events=min_signal_events,
            min_excess=min_excess,
        )
        return np.asarray(found)


class PlacedEvents:
    """Events where the backend computes, for many grids in the same bins of energy.

    Parameters
    ----------
    signal, background
        NumPy arrays; of any precision, computed with in float64.
    energy_edges
        TeV, (bin + 1,), rising. Events below the first, at or above the last are left out.
    backend
        Where to compute.

    Raises
    ------
    UsageError
        When columns differ in length, or edges do not rise.
    """

    def __init__(
        self,
        signal: GridEvents,
        background: GridEvents,
        energy_edges: Any,
        *,
        backend: "Backend",
    ) -> None:
        edges = np.ascontiguousarray(energy_edges, dtype=np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
            raise UsageError(f"The energy edges {edges.tolist()} do not rise: give at least two.")
        here = _columns(signal, "signal"), _columns(background, "background")
        self.n_bins = len(edges) - 1
        scores = here[0].gammaness[~np.isnan(here[0].gammaness)]
        # No event passes where there is none, and the largest score of all is pyirf's choice.
        self._fill = float(scores.max()) if len(scores) else 1.0
        self._evaluate = cut_grid(backend, *here, edges)

    def evaluate(
        self,
        *,
        gammaness_efficiencies: Sequence[float],
        theta_efficiencies: Sequence[float],
        multiplicities: Sequence[int],
        qualities: Sequence[int],
        min_theta: float,
        max_theta: float,
        ring_deg: tuple[float, float],
        alpha: float,
    ) -> GridResult:
        """Return the rates behind every point of a grid; see `evaluate_grid`."""
        gammaness = _rising(gammaness_efficiencies, "gammaness")
        theta = _rising(theta_efficiencies, "theta")
        if not 0 <= ring_deg[0] < ring_deg[1]:
            raise UsageError(f"The ring from {ring_deg[0]:g} to {ring_deg[1]:g} deg has no area.")
        cuts = GridCuts(
            # By way of per cent, as pyirf does, so that the last digit is the same.
            gammaness_shares=100 * (1 - gammaness) / 100,
            theta_shares=100 * theta / 100,
            selections=tuple((int(q), int(m)) for q in qualities for m in multiplicities),
            theta_range=(float(min_theta), float(max_theta)),
            ring=(float(ring_deg[0]), float(ring_deg[1])),
            gammaness_fill=self._fill,
        )
        counts = self._evaluate(cuts)
        shape = (len(qualities), len(multiplicities))
        columns = (np.reshape(column, shape + column.shape[1:]) for column in counts)
        gammaness_cuts, theta_cuts, n_signal, n_signal_events, n_ring, squares, number = columns
        on_over_ring = solid_angle(0.0, theta_cuts) / solid_angle(*cuts.ring)
        return GridResult(
            gammaness_cuts=gammaness_cuts,
            theta_cuts=theta_cuts,
            n_signal=n_signal,
            n_off=n_ring[..., :, None] * on_over_ring[..., None, :] / alpha,
            n_signal_events=n_signal_events,
            n_ring_events=number,
            n_ring_worth=np.divide(
                n_ring**2, squares, out=np.zeros_like(n_ring), where=squares > 0
            ),
            alpha=float(alpha),
        )


def evaluate_grid(
    signal: GridEvents,
    background: GridEvents,
    energy_edges: Any,
    *,
    gammaness_efficiencies: Sequence[float],
    theta_efficiencies: Sequence[float],
    multiplicities: Sequence[int],
    qualities: Sequence[int],
    min_theta: float,
    max_theta: float,
    ring_deg: tuple[float, float],
    alpha: float,
    backend: "Backend",
) -> GridResult:
    """Return the rates of gammas and background behind every point of a grid of cuts.

    The cuts and counts of `pyirf.cut_optimization.optimize_cuts`, all at once and without an
    exposure; see `GridResult`. For many grids on the same events make `PlacedEvents` once.

    Parameters
    ----------
    signal, background
        NumPy arrays; no cut on gammaness or direction applied.
    energy_edges
        TeV, (bin + 1,), rising; the last one is outside.
    gammaness_efficiencies, theta_efficiencies
        Rising shares of gammas, 0 to 1, per bin, event type and number of telescopes.
    multiplicities
        Fewest telescopes.
    qualities
        Worst event types.
    min_theta, max_theta
        deg, limits of the theta cuts. Bins with fewer than 10 gammas get `max_theta` and the
        largest gammaness of all gammas.
    ring_deg
        Offsets between which background is counted; the second one is outside.
    alpha
        On region over off regions.
    backend
        Where to compute.

    Raises
    ------
    UsageError
        When columns differ in length, edges or efficiencies do not rise, or the ring is empty.
    """
    placed = PlacedEvents(signal, background, energy_edges, backend=backend)
    return placed.evaluate(
        gammaness_efficiencies=gammaness_efficiencies,
        theta_efficiencies=theta_efficiencies,
        multiplicities=multiplicities,
        qualities=qualities,
        min_theta=min_theta,
        max_theta=max_theta,
        ring_deg=ring_deg,
        alpha=alpha,
    )


def _columns(events: GridEvents, name: str) -> EventColumns:
    """Return the columns as the backends take them."""
    shapes = {column: np.shape(values) for column, values in events._asdict().items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise UsageError(f"The columns of the {name} have shapes {shapes}: give one per event.")
    kinds = (np.float64, np.float64, np.float64, np.int32, np.int32, np.float64)
    pairs = zip(events, kinds, strict=True)
    return EventColumns(*(np.ascontiguousarray(values, dtype=kind) for values, kind in pairs))


def _rising(efficiencies: Sequence[float], name: str) -> Floats:
    """Return efficiencies as an array."""
    values = np.asarray(efficiencies, dtype=np.float64)
    good = values.ndim == 1 and len(values) and np.all(np.diff(values) > 0)
    if not (good and values[0] >= 0 and values[-1] <= 1):
        raise UsageError(
            f"The {name} efficiencies are {values.tolist()}: give rising shares from 0 to 1."
        )
    return values
