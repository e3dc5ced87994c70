"""The curves of one class at one pointing: which events are counted where, and what follows.

Definitions: resolutions as `pyirf.benchmarks` (events of the thrown spectrum, without weights),
areas as `pyirf.irf.effective_area`, sensitivities as `pyirf.sensitivity` with the background of
`estimate_background`: all of it that is found in a ring of offsets about the pointing, scaled to
the solid angle of the theta cut.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_response import CutsConfig
from astri_gpu.responses.curve_case import NOTHING_SEEN, Case
from astri_gpu.responses.curve_points import FEW_EVENTS, Curve, Estimate
from astri_gpu.responses.curve_values import (
    ONE_SIGMA,
    Counted,
    Ordered,
    binned_sums,
    bootstrap,
    place_in,
)
from astri_gpu.selection.sample import solid_angle
from astri_gpu.selection.spectra import flux_density
from astri_gpu.selection.weights import rates, thrown_counts

__all__ = [
    "HOUR_S",
    "SELECTIONS",
    "SHARES",
    "areas",
    "backgrounds",
    "flux_of",
    "resolutions",
    "sensitivities",
    "sensitivity_values",
]

Floats = NDArray[np.float64]

HOUR_S = 3600.0
ERG_PER_TEV = 1.602176634
SQUARE_CM_PER_SQUARE_M = 1e4
SHARES = (ONE_SIGMA[1] - ONE_SIGMA[0], 0.95)
SELECTIONS = {
    "reconstructed": "reconstructed",
    "cuts": "after the cuts but theta",
    "cuts and theta": "after all cuts",
}


def flux_of(edges: Floats, name: str) -> tuple[Floats, Floats]:
    """Return a spectrum of gammas in the middle of bins, (bin,) each.

    It is dN/dE in TeV-1 s-1 cm-2, and E^2 dN/dE in erg s-1 cm-2.
    """
    energy = np.sqrt(edges[:-1] * edges[1:])
    flux = flux_density(name, "gamma", energy) / SQUARE_CM_PER_SQUARE_M
    return flux, flux * energy**2 * ERG_PER_TEV


def sensitivity_values(
    signal_rate: Floats, off_rate: Floats, hours: float, options: CutsConfig
) -> Floats:
    """Return the weakest source over the one that signals are of; rates in 1/s, same shape."""
    from astri_gpu.kernels.sensitivity import relative_sensitivity

    seconds = hours * HOUR_S
    n_off = np.asarray(off_rate, dtype=np.float64) * seconds
    n_on = np.asarray(signal_rate, dtype=np.float64) * seconds + options.alpha * n_off
    return np.asarray(
        relative_sensitivity(
            n_on,
            n_off,
            options.alpha,
            min_significance=options.min_significance,
            min_signal_events=options.min_signal_events,
            min_excess=options.min_excess,
        )
    )


def _exposures(case: Case) -> list[float]:
    """Return the observing times, the one that the cuts are for among them."""
    own = case.cuts.exposure_h if case.cuts.mode == "sensitivity" else None
    return sorted({*map(float, case.config.exposures_h), *([float(own)] if own else [])})


def sensitivities(case: Case) -> list[Curve]:
    """Return the differential sensitivity for every observing time."""
    gammas = case.gammas()
    if gammas is None:
        return []
    cuts, flux = case.cuts, case.config.flux
    n_bins, hours = len(cuts.gammaness), _exposures(case)
    source = gammas.rows(cuts.select(gammas.columns) & cuts.inside(gammas.columns))
    found = case.sample.background()
    kept = [case.kept(table) for table in found]
    places = [cuts.bins(events.columns["reco_energy"]) for events in (source, *kept)]
    weights = [rates(source.table, flux, offsets_deg=case.offsets)]
    weights += [rates(events.table, flux) for events in kept]
    on_share = case.on_over_ring(case.ring)

    def measure(times: Sequence[Any]) -> dict[str, Floats]:
        sums = [
            binned_sums(place, weight, row, n_bins)
            for place, weight, row in zip(places, weights, times, strict=True)
        ]
        background = np.sum(sums[1:], axis=0) * on_share if kept else np.zeros_like(sums[0])
        return _weakest(sums[0], background, hours, case) | {
            "signal": sums[0],
            "background": background,
        }

    measured = bootstrap(measure, [source, *kept])
    n_signal, *others = (np.bincount(place, minlength=n_bins) for place in places)
    n_background = np.sum(others, axis=0) if others else np.zeros(n_bins, dtype=np.int64)
    # Of kinds of which no simulated event is left, what may have been missed makes the upper end.
    missed = [case.missed(tables) for tables in case.kinds().values()]
    unseen = np.sum(missed, axis=0) * on_share if missed else np.full(n_bins, np.nan)
    signal, background = (measured[name].value for name in ("signal", "background"))
    worst = _weakest(signal[None], (background + unseen)[None], hours, case)
    squares = [
        np.bincount(place, weight**2, minlength=n_bins)
        for place, weight in zip(places[1:], weights[1:], strict=True)
    ]
    variance = np.sum(squares, axis=0) * on_share**2 + np.nansum(missed, axis=0) ** 2 * on_share**2
    worth = np.divide(background**2, variance, out=np.zeros(n_bins), where=variance > 0)
    few = (np.minimum(n_signal, n_background) < FEW_EVENTS) | (worth < FEW_EVENTS / 2)
    flux_ev, flux_e2 = flux_of(cuts.energy_edges, flux.gamma)
    curves = []
    for hour in hours:
        estimate = measured[f"{hour:g}"]
        high = np.where(unseen == 0, estimate.high, worst[f"{hour:g}"][0])
        high = np.where(high < estimate.high, estimate.high, high)
        relative = Estimate(estimate.value, estimate.low, high)
        seconds = np.where(cuts.valid, hour * HOUR_S, np.nan)
        curves.append(
            Curve(
                kind="sensitivity",
                labels={
                    **case.labels,
                    "exposure_h": hour,
                    "optimised_for_h": cuts.exposure_h if cuts.mode == "sensitivity" else np.nan,
                },
                axis="reco_energy",
                edges=cuts.energy_edges,
                values={
                    "flux_e2": relative.times(flux_e2),
                    "flux": relative.times(flux_ev),
                    "relative": relative,
                },
                counts={
                    "n_signal": measured["signal"].value * seconds,
                    "n_background": measured["background"].value * seconds,
                    "n_signal_events": n_signal,
                    "n_background_events": n_background,
                    "cut_flags": np.asarray(cuts.flags),
                    "n_background_worth": worth,
                    "few_events": few.astype(int),
                },
            )
        )
    return curves


def _weakest(
    signal: Floats, background: Floats, hours: Sequence[float], case: Case
) -> dict[str, Floats]:
    """Return the weakest source by observing time, NaN in bins without a cut."""
    valid, options = case.cuts.valid, case.options
    # Bins without a theta cut have a background of NaN, which is masked here.
    off = np.where(valid, background, 0.0) / options.alpha
    return {
        f"{hour:g}": np.where(valid, sensitivity_values(signal, off, hour, options), np.nan)
        for hour in hours
    }


def resolutions(case: Case) -> list[Curve]:
    """Return angular and energy resolution against true and reconstructed energy."""
    gammas = case.gammas()
    if gammas is None:
        return []
    chosen = gammas.rows(case.cuts.select(gammas.columns))
    edges = case.cuts.energy_edges
    curves = []
    for axis in ("true_energy", "reco_energy"):
        place = place_in(edges, chosen.columns[axis])
        events = chosen.rows(place >= 0)
        measured = _resolution(events, place[place >= 0], len(edges) - 1)
        counts = {"n_events": np.bincount(place[place >= 0], minlength=len(edges) - 1)}
        labels = {**case.labels, "selection": SELECTIONS["cuts"]}
        for kind, names in (
            ("angular_resolution", ("radius_68", "radius_95")),
            ("energy_resolution", ("bias", "resolution")),
        ):
            values = {name: measured[name] for name in names}
            curves.append(Curve(kind, labels, axis, edges, values, counts))
    return curves


def _resolution(events: Counted, place: NDArray[np.int64], n_bins: int) -> dict[str, Estimate]:
    """Return containment radii, bias and resolution of the energy in bins."""
    columns = events.columns
    theta = Ordered(place, columns["theta"], n_bins)
    error = Ordered(place, columns["reco_energy"] / columns["true_energy"] - 1, n_bins)

    def measure(times: Sequence[Any]) -> dict[str, Floats]:
        radius = theta.quantiles(times[0], SHARES)
        energy = error.quantiles(times[0], (ONE_SIGMA[0], 0.5, ONE_SIGMA[1]))
        return {
            "radius_68": radius[:, 0],
            "radius_95": radius[:, 1],
            "bias": energy[:, 1],
            "resolution": (energy[:, 2] - energy[:, 0]) / 2,
        }

    return bootstrap(measure, [events])


def areas(case: Case) -> list[Curve]:
    """Return the effective area before cuts, after gammaness and after all cuts."""
    gammas = case.gammas()
    if gammas is None:
        return []
    edges = case.cuts.energy_edges
    n_bins = len(edges) - 1
    thrown = thrown_counts(gammas.table, edges, np.array(case.offsets))[:, 0]
    unit = np.full(n_bins, np.nan)
    np.divide(gammas.table.thrown[0].area_m2, thrown, out=unit, where=thrown > 0)
    use = np.ones(len(gammas.table), dtype=bool)
    curves = []
    for name, passed in (
        ("reconstructed", use),
        ("cuts", case.cuts.select(gammas.columns)),
        ("cuts and theta", case.cuts.inside(gammas.columns)),
    ):
        use = use & passed
        place = place_in(edges, gammas.columns["true_energy"])
        events, place = gammas.rows(use & (place >= 0)), place[use & (place >= 0)]
        one = np.ones(len(place))

        def measure(times: Sequence[Any], place: Any = place, one: Any = one) -> dict[str, Floats]:
            return {"area": binned_sums(place, one, times[0], n_bins) * unit}

        area = bootstrap(measure, [events])["area"]
        number = np.bincount(place, minlength=n_bins)
        high = np.where(number == 0, NOTHING_SEEN * unit, area.high)
        labels = {**case.labels, "selection": SELECTIONS[name]}
        values = {"area": Estimate(area.value, area.low, high)}
        curves.append(
            Curve("effective_area", labels, "true_energy", edges, values, {"n_events": number})
        )
    return curves


def backgrounds(case: Case) -> list[Curve]:
    """Return the rate of every particle and of all, inside the theta cut and per solid angle."""
    cuts = case.cuts
    edges = cuts.energy_edges
    n_bins = len(edges) - 1
    kinds = case.kinds()
    missed = {name: case.missed(tables) for name, tables in kinds.items()}
    missed["all"] = np.sum(list(missed.values()), axis=0) if kinds else np.full(n_bins, np.nan)
    every = {"all": [table for tables in kinds.values() for table in tables]} if kinds else {}
    on_share = case.on_over_ring(case.ring)
    intensity = 1 / (solid_angle(*case.ring) * np.diff(edges))
    curves = []
    for name, found in {**kinds, **every}.items():
        kept = [case.kept(table) for table in found]
        places = [cuts.bins(events.columns["reco_energy"]) for events in kept]
        weights = [rates(events.table, case.config.flux) for events in kept]

        def measure(
            times: Sequence[Any], places: Any = places, weights: Any = weights
        ) -> dict[str, Floats]:
            rows = zip(places, weights, times, strict=True)
            total = np.sum([binned_sums(*row, n_bins) for row in rows], axis=0)
            return {"ring": np.where(cuts.valid, total, np.nan)}

        ring = bootstrap(measure, kept)["ring"]
        number = np.sum([np.bincount(place, minlength=n_bins) for place in places], axis=0)
        # What may be there of kinds of which no event is left comes on top.
        high = np.where(missed[name] == 0, ring.high, ring.value + missed[name])
        high = np.where(high < ring.high, ring.high, high)
        ring = Estimate(ring.value, ring.low, high)
        values = {"rate": ring.times(on_share), "intensity": ring.times(intensity)}
        labels = {**case.labels, "particle": name}
        curves.append(
            Curve("background_rate", labels, "reco_energy", edges, values, {"n_events": number})
        )
    return curves
