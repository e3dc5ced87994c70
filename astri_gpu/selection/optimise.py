"""Cuts of an event class from simulated events: best sensitivity, or a fixed share of gammas.

The definition of sensitivity is that of CTA as pyirf has it: the flux at which an excess has 5
sigma (Li and Ma 1983, ApJ 272, 317), 10 events and 5 % of the background. All cuts of a grid are
evaluated at once (`astri_gpu.selection.grid`); which of them is taken is decided here.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_response import CutsConfig, FluxConfig
from astri_gpu.errors import AstriError
from astri_gpu.selection.cuts import FEW_BACKGROUND, FEW_SIGNAL, NOT_SENSITIVE, Cuts
from astri_gpu.selection.grid import GridEvents, GridResult, PlacedEvents
from astri_gpu.selection.sample import EventTable, Sample
from astri_gpu.selection.spectra import flux_density
from astri_gpu.selection.weights import inside_offsets, rates

if TYPE_CHECKING:
    from astri_gpu.backend import Backend

__all__ = ["Prepared", "energy_edges", "optimise", "prepare"]

Floats = NDArray[np.float64]

TEV_M2_TO_ERG_CM2 = 1.602176634 * 1e-4  # TeV / m2 in erg / cm2


@dataclass
class Prepared:
    """Weighted events, ready for grids of cuts; made by `prepare`.

    Attributes
    ----------
    signal
        Gammas in the ring of offsets, weighted to the point source.
    background
        Everything else.
    pointing
        Zenith and azimuth angle, deg.
    meta
        Of the sample.
    """

    signal: GridEvents
    background: GridEvents
    pointing: tuple[float, float]
    meta: dict[str, Any]
    _placed: tuple[bytes, "Backend", PlacedEvents] | None = None

    def placed(self, edges: Floats, backend: "Backend") -> PlacedEvents:
        """Return the events where the backend computes; they stay there for the next grid."""
        key = edges.tobytes()
        if self._placed is None or self._placed[:2] != (key, backend):
            placed = PlacedEvents(self.signal, self.background, edges, backend=backend)
            self._placed = key, backend, placed
        return self._placed[2]


class _Choice(NamedTuple):
    """The grid point of each bin (quality, multiplicity, gammaness, theta), and its flags."""

    point: NDArray[np.int64]  # (bin, 4)
    flags: NDArray[np.int64]  # (bin,)


def prepare(sample: Sample, cuts: CutsConfig, flux: FluxConfig) -> Prepared:
    """Return the events that cuts are optimised on.

    Gammas are those of a point-like production whose offset is in the range of the options, or if
    there is none, the diffuse ones in it.

    Raises
    ------
    AstriError
        When there are several pointings, no gammas or no background at one, or no gammas at the
        offsets.
    """
    pointing = _one_pointing(sample)
    offsets = cuts.offset_min_deg, cuts.offset_max_deg
    gammas = _gammas(sample, offsets)
    background = sample.background()
    if not background:
        raise AstriError(
            "There is no background to cut against: give stores of simulated protons too."
        )
    weight = rates(gammas, flux, offsets_deg=offsets)
    inside = np.flatnonzero(inside_offsets(gammas, offsets))
    return Prepared(
        signal=_events([gammas.rows(inside)], "theta", [weight[inside]]),
        background=_events(background, "reco_offset", [rates(t, flux) for t in background]),
        pointing=pointing,
        meta=sample.meta,
    )


def _one_pointing(sample: Sample) -> tuple[float, float]:
    found: dict[tuple[float, float], EventTable] = {}
    for table in sample:
        found.setdefault((table.zenith_deg, table.azimuth_deg), table)
    if len(found) > 1:
        shown = [
            f"{table.paths[0]} at zenith {zenith:g} deg, azimuth {azimuth:g} deg"
            for (zenith, azimuth), table in sorted(found.items())
        ]
        raise AstriError(
            f"The stores are of {len(found)} pointings ({'; '.join(shown)}), but cuts are made for "
            "one: give the gammas and the background of one pointing."
        )
    return next(iter(found))


def _gammas(sample: Sample, offsets: tuple[float, float]) -> EventTable:
    """Return the table of gammas that has events in a range of offsets, point-like first."""
    tables = sorted(sample.of("gamma"), key=lambda table: not table.point_like)
    if not tables:
        raise AstriError("There are no gammas: give stores of simulated gammas too.")
    for table in tables:
        if inside_offsets(table, offsets).any():
            return table
    raise AstriError(
        f"No reconstructed gamma of {tables[0].paths[0]} came from {offsets[0]:g} to "
        f"{offsets[1]:g} deg off the pointing: change cuts.offset_min_deg or "
        "cuts.offset_max_deg, or give other stores."
    )


def _events(tables: list[EventTable], angle: str, weights: list[Floats]) -> GridEvents:
    def joined(name: str) -> NDArray[Any]:
        parts = [table.columns[name] for table in tables]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return GridEvents(
        reco_energy=joined("reco_energy"),
        gammaness=joined("gammaness"),
        theta_or_offset=joined(angle),
        n_tels=joined("n_tels"),
        quality=joined("quality"),
        weight=np.concatenate(weights),
    )


def energy_edges(cuts: CutsConfig) -> Floats:
    """Return the edges (bin + 1,) of reconstructed energy in TeV, of equal ratio.

    Both limits are edges; the number of bins is the one nearest to `bins_per_decade`.
    """
    decades = np.log10(cuts.energy_max_tev / cuts.energy_min_tev)
    n_bins = max(1, round(decades * cuts.bins_per_decade))
    return np.geomspace(cuts.energy_min_tev, cuts.energy_max_tev, n_bins + 1)


def optimise(
    sample: Sample | Prepared, cuts: CutsConfig, flux: FluxConfig, backend: "Backend"
) -> Cuts:
    """Return the cuts of an event class.

    With ``mode=sensitivity`` every bin of energy gets the point of the grid with the best
    sensitivity, among those that leave simulated background worth `min_background_events` events
    in the ring (many light electrons do not stand for few heavy protons), and `min_gamma_events`
    simulated gammas. Where none leaves enough background it is the
    loosest cut in gammaness, images and event type, flagged `FEW_BACKGROUND`; where none reaches a
    detection the point with most gammas, flagged `NOT_SENSITIVE`; with too few gammas there is no
    cut, flagged `FEW_SIGNAL`. With ``mode=efficiency`` there is nothing to choose, and the flags
    say the same things.

    Parameters
    ----------
    sample
        Of one pointing; or what `prepare` made of it with the same options, once for many grids.
    cuts, flux
        Options.
    backend
        What computes.

    Raises
    ------
    AstriError
        When the sample does not do (see `prepare`).
    """
    events = sample if isinstance(sample, Prepared) else prepare(sample, cuts, flux)
    edges = energy_edges(cuts)
    efficient = cuts.mode == "efficiency"
    gammaness = [cuts.gamma_efficiency] if efficient else cuts.gammaness_efficiencies
    theta = [cuts.theta_efficiency] if efficient else cuts.theta_efficiencies
    n_tels = cuts.multiplicities[:1] if efficient else cuts.multiplicities
    quality = cuts.qualities[-1:] if efficient else cuts.qualities
    grid = events.placed(edges, backend).evaluate(
        gammaness_efficiencies=gammaness,
        theta_efficiencies=theta,
        multiplicities=n_tels,
        qualities=quality,
        min_theta=cuts.min_theta_deg,
        max_theta=cuts.max_theta_deg,
        ring_deg=(cuts.background_offset_min_deg, cuts.background_offset_max_deg),
        alpha=cuts.alpha,
    )
    exposure_s = 3600.0 * cuts.exposure_h
    relative = grid.relative_sensitivity(
        exposure_s,
        min_significance=cuts.min_significance,
        min_signal_events=cuts.min_signal_events,
        min_excess=cuts.min_excess,
    )
    chosen = _choose(grid, relative, cuts)
    q, m, i, j = chosen.point.T
    bins = np.arange(len(edges) - 1)
    valid = (chosen.flags & FEW_SIGNAL) == 0

    def at(values: NDArray[Any], *index: NDArray[np.int64]) -> Floats:
        return np.where(valid, values[index].astype(np.float64), np.nan)

    point = (q, m, bins, i, j)
    rel = at(relative, *point)
    n_off = at(grid.n_off, *point) * exposure_s
    return Cuts(
        event_class=cuts.event_class,
        mode=cuts.mode,
        exposure_h=None if efficient else cuts.exposure_h,
        gamma_efficiency=cuts.gamma_efficiency if efficient else None,
        filter=cuts.filter,
        energy_edges=edges,
        gammaness=at(grid.gammaness_cuts, q, m, bins, i),
        theta_deg=at(grid.theta_cuts, q, m, bins, j),
        n_tels=np.array(n_tels)[m],
        quality=np.array(quality)[q],
        gammaness_efficiency=at(np.array(gammaness), i),
        theta_efficiency=at(np.array(theta), j),
        flags=chosen.flags,
        curve={
            "n_signal": at(grid.n_signal, *point) * exposure_s,
            "n_background": cuts.alpha * n_off,
            "relative_sensitivity": rel,
            "sensitivity": rel * _energy_flux(flux, edges),
            "n_signal_events": grid.n_signal_events[point].astype(np.float64),
            "n_background_events": at(grid.n_ring_events, q, m, bins, i),
            "n_background_worth": at(grid.n_ring_worth, q, m, bins, i),
        },
        meta={
            **events.meta,
            "zenith_deg": events.pointing[0],
            "azimuth_deg": events.pointing[1],
            "options": {"cuts": asdict(cuts), "flux": asdict(flux)},
        },
    )


def _choose(grid: GridResult, relative: Floats, cuts: CutsConfig) -> _Choice:
    """Return the point of the grid for every bin: the first of equally good ones, as pyirf."""
    n_bins = relative.shape[2]
    shape = relative.shape[:2] + relative.shape[3:]
    enough_gammas = grid.n_signal_events >= max(cuts.min_gamma_events, 1)
    ring = np.broadcast_to(grid.n_ring_worth[..., None], relative.shape)
    point, flags = np.zeros((n_bins, 4), dtype=np.int64), np.zeros(n_bins, dtype=np.int64)
    loosest = np.zeros(shape, dtype=bool)
    loosest[-1, 0, -1, :] = True  # all event types, fewest images, most gammas
    for k in range(n_bins):
        use = enough_gammas[:, :, k]
        if not use.any():
            flags[k] = FEW_SIGNAL
            continue
        trusted = use & (ring[:, :, k] >= cuts.min_background_events)
        if not trusted.any():
            flags[k] |= FEW_BACKGROUND
            trusted = use & loosest if (use & loosest).any() else use
        value = np.where(trusted, relative[:, :, k], np.inf)
        if np.isfinite(value).any():
            best = int(np.nanargmin(value))
        else:
            flags[k] |= NOT_SENSITIVE
            best = int(np.argmax(np.where(trusted, grid.n_signal[:, :, k], -1.0)))
        point[k] = np.unravel_index(best, shape)
    return _Choice(point, flags)


def _energy_flux(flux: FluxConfig, edges: Floats) -> Floats:
    """Return E2 dN/dE of the source at the geometric centres of the bins, erg / (cm2 s)."""
    centre = np.sqrt(edges[:-1] * edges[1:])
    return centre**2 * flux_density(flux.gamma, "gamma", centre) * TEV_M2_TO_ERG_CM2
