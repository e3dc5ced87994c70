"""Energy and direction of reconstructed events against the truth: curves and their numbers."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.report.binned import (
    CONTAINMENT,
    FEWEST,
    Quantile,
    Spread,
    quantile_of_counts,
    share_interval,
    spread_of_counts,
)
from astri_gpu.report.collect import Sample
from astri_gpu.report.reconstructed import (
    DIRECTION,
    ENERGETIC_TEV,
    GROUPS,
    OFFSET,
    RATIO,
    Reconstructed,
)

__all__ = [
    "containments",
    "energy_spreads",
    "reconstruction_numbers",
]

Floats = NDArray[np.float64]


def energy_spreads(sample: Sample, per_decade: int, group: int = 0) -> list[Spread]:
    """Return bias and resolution in each bin of true energy, NaN where there are few events.

    They are the median and half of the central 68 % of (E_reco - E_true) / E_true, as pyirf has
    them (`pyirf.benchmarks.energy_bias_resolution`).

    Parameters
    ----------
    sample
        One particle of DL2b stores.
    per_decade
        Bins of the result per decade of energy.
    group
        A key of `GROUPS`, 0 = all events.
    """
    reco = _reco(sample)
    merged = np.add.reduceat(reco.ratio[group], sample.merged(per_decade), axis=0)
    return [_spread(row) for row in merged]


def _spread(counts: Floats) -> Spread:
    found = spread_of_counts(counts, RATIO, FEWEST)
    return Spread(
        found.median - 1,
        found.median_error,
        found.half_width,
        found.half_width_error,
        found.entries,
    )


def containments(counts: Floats) -> list[Quantile]:
    """Return the 68 % containment of each row of a histogram (row, DIRECTION), deg."""
    return [quantile_of_counts(row, DIRECTION, CONTAINMENT, FEWEST) for row in counts]


def _reco(sample: Sample) -> Reconstructed:
    if sample.reco is None:
        raise ValueError(f"the sample {sample.label} has no reconstructed events")
    return sample.reco


def _direction(counts: Floats) -> float:
    return containments(counts.sum(axis=0)[None])[0].value


def reconstruction_numbers(sample: Sample, per_decade: int) -> dict[str, Any] | None:
    """Return the numbers of a DL2b sample, None of a DL2a one; angles deg, energies TeV.

    Parameters
    ----------
    sample
        One particle.
    per_decade
        Bins per decade of true energy.
    """
    if sample.reco is None:
        return None
    reco = sample.reco
    # Edges come from files, where 10 TeV may be 9.9999.
    energetic = sample.energy_edges[:-1] >= ENERGETIC_TEV * (1 - 1e-6)
    spread = asdict(_spread(reco.ratio[0].sum(axis=0)))
    spread_energetic = asdict(_spread(reco.ratio[0][energetic].sum(axis=0)))
    return {
        "events": reco.n_events,
        "images": reco.n_images,
        "models": None if sample.trained is None else sample.trained.name,
        "trained_on": sample.seen,
        "energy_bias": spread["median"],
        "energy_resolution": spread["half_width"],
        "energy_bias_above_10_tev": spread_energetic["median"],
        "energy_resolution_above_10_tev": spread_energetic["half_width"],
        "direction_68_deg": _direction(reco.direction[0]),
        "direction_68_deg_above_10_tev": _direction(reco.direction[0][energetic]),
        "events_with_geometry": int(reco.compared["merged"].sum()),
        "direction_68_deg_with_geometry": {
            name: _direction(counts) for name, counts in reco.compared.items()
        },
        "direction_68_deg_with_geometry_above_10_tev": {
            name: _direction(counts[energetic]) for name, counts in reco.compared.items()
        },
        "share_within_expected_error": {
            name: _within(count, reco.n_events) for name, count in reco.within.items()
        },
        "by_group": [
            {
                "events_of": text,
                "events": int(reco.ratio[group].sum()),
                "direction_68_deg": _direction(reco.direction[group]),
                "direction_68_deg_above_10_tev": _direction(reco.direction[group][energetic]),
                "energy_resolution": _spread(reco.ratio[group].sum(axis=0)).half_width,
                "energy_resolution_above_10_tev": _spread(
                    reco.ratio[group][energetic].sum(axis=0)
                ).half_width,
            }
            for group, text in GROUPS.items()
        ],
        "by_energy": _by_energy(sample, reco, per_decade),
        "by_offset": _by_offset(reco),
    }


def _within(count: int, total: int) -> dict[str, Any] | None:
    if not total:
        return None
    share, low, high = share_interval(np.array([float(count)]), np.array([float(total)]))
    return {"share": share[0], "interval": [low[0], high[0]]}


def _by_energy(sample: Sample, reco: Reconstructed, per_decade: int) -> list[dict[str, Any]]:
    """Return one entry per bin of true energy that has events."""
    first, edges = sample.merged(per_decade), sample.merged_edges(per_decade)
    spreads = energy_spreads(sample, per_decade)
    direction = containments(np.add.reduceat(reco.direction[0], first, axis=0))
    compared = {
        name: containments(np.add.reduceat(counts, first, axis=0))
        for name, counts in reco.compared.items()
    }
    return [
        {
            "energy_tev": [edges[row], edges[row + 1]],
            "events": spread.entries,
            "energy_bias": spread.median,
            "energy_bias_error": spread.median_error,
            "energy_resolution": spread.half_width,
            "energy_resolution_error": spread.half_width_error,
            "direction_68_deg": direction[row].value,
            "direction_interval_deg": [direction[row].low, direction[row].high],
            "with_geometry": compared["merged"][row].entries,
            "direction_68_deg_with_geometry": {
                name: entries[row].value for name, entries in compared.items()
            },
        }
        for row, spread in enumerate(spreads)
        if spread.entries
    ]


def _by_offset(reco: Reconstructed) -> list[dict[str, Any]]:
    """Return one entry per bin of the true offset that has events."""
    edges = OFFSET.edges
    every, energetic = containments(reco.offset), containments(reco.offset_energetic)
    compared = {name: containments(counts) for name, counts in reco.offset_compared.items()}
    return [
        {
            "offset_deg": [edges[row], edges[row + 1]],
            "events": found.entries,
            "direction_68_deg": found.value,
            "direction_interval_deg": [found.low, found.high],
            "direction_68_deg_above_10_tev": energetic[row].value,
            "direction_68_deg_with_geometry": {
                name: entries[row].value for name, entries in compared.items()
            },
        }
        for row, found in enumerate(every)
        if found.entries
    ]
