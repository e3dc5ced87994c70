"""Angular resolution and sensitivity across the field of view, from diffuse gammas."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.responses.curve_case import Case
from astri_gpu.responses.curve_measures import SHARES, sensitivity_values
from astri_gpu.responses.curve_points import Curve, Estimate
from astri_gpu.responses.curve_values import Counted, Ordered, binned_sums, bootstrap, place_in
from astri_gpu.selection.sample import EventTable, solid_angle
from astri_gpu.selection.weights import cone_share, rates

__all__ = ["across_field"]

Floats = NDArray[np.float64]

BANDS_TEV = ((1.0, 10.0), (10.0, 100.0))
"""Bins whose middle is between these energies are taken together."""
RING_DEG = 1.0


def across_field(case: Case) -> list[Curve]:
    """Return the performance in rings of one degree, for each of `BANDS_TEV`.

    The source is anywhere in the ring, and so is the background that its on region has: both change
    with the offset. The cuts are those of the class, which were chosen for its own offsets. Rings
    end where the cone of the gammas or of any background ends. No curve without diffuse gammas or
    with fewer than two rings.
    """
    gammas = next((t for t in case.sample.of("gamma") if not t.point_like), None)
    background = case.sample.background()
    if gammas is None:
        return []
    cones = [table.thrown[0].cone_max_deg for table in (gammas, *background)]
    # Cones of run headers have been rounded.
    reach = min(*cones, case.config.binning.offset_max_deg) + 1e-3
    first = gammas.thrown[0].cone_min_deg
    rings = np.arange(np.ceil(first - 1e-3), np.floor(reach) + RING_DEG / 2, RING_DEG)
    if len(rings) < 3:
        return []
    return [
        curve
        for low, high in BANDS_TEV
        for curve in _band(case, gammas, background, rings, (low, high))
    ]


def _band(
    case: Case,
    gammas: EventTable,
    background: Sequence[EventTable],
    rings: Floats,
    limits: tuple[float, float],
) -> list[Curve]:
    """Return the curve of the bins of energy whose middle is between limits; none without cuts."""
    cuts, flux = case.cuts, case.config.flux
    edges = cuts.energy_edges
    middle = np.sqrt(edges[:-1] * edges[1:])
    band = (middle >= limits[0] * (1 - 1e-6)) & (middle < limits[1] * (1 - 1e-6)) & cuts.valid
    if not band.any():
        return []
    bins = np.flatnonzero(band)
    low, high = float(edges[bins[0]]), float(edges[bins[-1] + 1])
    n_rings, n_bins = len(rings) - 1, len(middle)

    def placed(events: Counted, name: str, chosen: Any) -> tuple[Counted, Any]:
        """Return the chosen events of the band, and ring and bin of energy as one number."""
        ring = place_in(rings, events.columns[name])
        energy = cuts.bins(events.columns["reco_energy"])
        use = chosen & (ring >= 0) & (energy >= 0) & band[np.maximum(energy, 0)]
        return events.rows(use), (ring * n_bins + energy)[use]

    drawn = case.draws.of(gammas)
    cut = cuts.select(gammas.columns)
    source, source_place = placed(drawn, "true_offset", cut & cuts.inside(gammas.columns))
    others = [case.draws.of(table) for table in background]
    parts = [placed(part, "reco_offset", cuts.select(part.columns)) for part in others]
    share = cone_share(gammas.thrown[0], rings[:-1], rings[1:])
    weights = [rates(source.table, flux) / share[source_place // n_bins]]
    weights += [rates(part.table, flux) for part, _ in parts]
    places = [source_place, *(place for _, place in parts)]
    on_over_ring = (
        solid_angle(0.0, np.where(band, cuts.theta_deg, 0.0))
        / solid_angle(rings[:-1], rings[1:])[:, None]
    )
    hours = _hours(case)

    def measure_rates(times: Sequence[Any]) -> dict[str, Floats]:
        sums = [
            binned_sums(place, weight, row, n_rings * n_bins).reshape(-1, n_rings, n_bins)
            for place, weight, row in zip(places, weights, times, strict=True)
        ]
        total = np.sum(sums[1:], axis=0) if parts else np.zeros_like(sums[0])
        n_off = (total * on_over_ring).sum(axis=-1) / case.options.alpha
        return {"relative": sensitivity_values(sums[0].sum(axis=-1), n_off, hours, case.options)}

    columns = gammas.columns
    ring = place_in(rings, columns["true_offset"])
    use = cut & (ring >= 0) & (columns["true_energy"] >= low) & (columns["true_energy"] < high)
    seen, theta = drawn.rows(use), Ordered(ring[use], columns["theta"][use], n_rings)
    measured: dict[str, Estimate] = {
        **bootstrap(
            lambda times: {"radius_68": theta.quantiles(times[0], SHARES[:1])[:, 0]}, [seen]
        ),
        **bootstrap(measure_rates, [source, *(part for part, _ in parts)]),
    }
    n_signal, *n_others = (np.bincount(place // n_bins, minlength=n_rings) for place in places)
    return [
        Curve(
            kind="offset",
            labels={**case.labels, "energy_low": low, "energy_high": high, "exposure_h": hours},
            axis="true_offset",
            edges=rings,
            values=measured,
            counts={
                "n_events": np.bincount(ring[use], minlength=n_rings),
                "n_signal_events": n_signal,
                "n_background_events": np.sum(n_others, axis=0)
                if n_others
                else np.zeros(n_rings, dtype=np.int64),
            },
        )
    ]


def _hours(case: Case) -> float:
    """Return the observing time: that of the class, else the longest."""
    if case.cuts.mode == "sensitivity" and case.cuts.exposure_h:
        return float(case.cuts.exposure_h)
    return float(max(case.config.exposures_h))
