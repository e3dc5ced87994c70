"""Performance curves of event classes: everything that one draws of an array, with errors."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.config_response import IrfConfig
from astri_gpu.responses.curve_case import Case, Draws
from astri_gpu.responses.curve_measures import (
    areas,
    backgrounds,
    resolutions,
    sensitivities,
)
from astri_gpu.responses.curve_offsets import across_field
from astri_gpu.responses.curve_points import KINDS, Curve, Curves, Estimate
from astri_gpu.responses.references import PUBLISHED_DECADES, PUBLISHED_HOURS, published_sensitivity
from astri_gpu.selection.cuts import Cuts
from astri_gpu.selection.sample import Sample

if TYPE_CHECKING:
    from astri_gpu.backend import Backend

__all__ = ["make_curves", "ratio_curve", "ratio_lines"]

MEASURES = (sensitivities, resolutions, areas, backgrounds, across_field)
META = ("simulation_model", "models", "cameras", "array", "part", "filter")


def make_curves(
    sample: Sample, cuts: Sequence[Cuts], config: IrfConfig, backend: "Backend | None" = None
) -> Curves:
    """Return the performance of every class at every pointing.

    Parameters
    ----------
    sample
        Gammas, and background if there is any.
    cuts
        One or several classes. Of several cuts with the same name of class those made for the
        nearest zenith angle are applied.
    config
        Observing times, spectra, number of replicas, seed.
    backend
        Has no part in it yet: the work is sorting and adding what the cuts leave.

    Returns
    -------
    Curves
        See `curve_points.KINDS`. Sensitivities are for `config.exposures_h` and for the time that
        the class is best for; those of 50 h have the ratio to the published one. Errors are central
        68.27 % intervals of a bootstrap over showers. Where no event is left, they end at what one
        would expect at most with a chance of 15.9 % to see none.
    """
    del backend
    made: list[Curve] = []
    for pointing in sample.pointings():
        here, classes = sample.at(pointing), _cuts_at(cuts, pointing[0])
        draws = Draws(classes, n_replicas=config.n_bootstrap, seed=config.seed)
        for chosen in classes:
            case = Case(chosen, here, config, draws)
            made += [curve for measure in MEASURES for curve in measure(case)]
    made = [_with_ratio(curve) if curve.kind == "sensitivity" else curve for curve in made]
    order = list(KINDS)
    meta = {name: sample.meta[name] for name in META if name in sample.meta}
    meta |= {
        "flux": asdict(config.flux),
        "n_bootstrap": config.n_bootstrap,
        "seed": config.seed,
        "background": sorted({table.kind for table in sample.background()}),
    }
    return Curves(tuple(sorted(made, key=lambda curve: order.index(curve.kind))), meta)


def _cuts_at(cuts: Sequence[Cuts], zenith_deg: float) -> list[Cuts]:
    """Return one set of cuts of each class, in the order given."""
    chosen: dict[str, Cuts] = {}

    def distance(entry: Cuts) -> float:
        return abs(float(entry.meta.get("zenith_deg", zenith_deg)) - zenith_deg)

    for entry in cuts:
        other = chosen.get(entry.event_class)
        if other is None or distance(entry) < distance(other):
            chosen[entry.event_class] = entry
    return list(chosen.values())


def _with_ratio(curve: Curve) -> Curve:
    """Return a sensitivity with its ratio to the published one: NaN but for the same time."""
    published = published_sensitivity(curve.edges)
    if curve.labels["exposure_h"] != PUBLISHED_HOURS:
        published = np.full_like(published, np.nan)
    flux = curve.values["flux_e2"]
    ratio: Estimate = flux.times(1 / published)
    return replace(curve, values={**curve.values, "ratio": ratio})


def ratio_curve(curves: Curves) -> Curve | None:
    """Return the sensitivity that is to be compared with the published one.

    That of 50 h of the class whose cuts are best for 50 h, else of the first class; None if no
    observing time is 50 h.
    """
    found = curves.of("sensitivity", exposure_h=PUBLISHED_HOURS)
    found.sort(key=lambda curve: curve.labels["optimised_for_h"] != PUBLISHED_HOURS)
    return found[0] if found else None


def ratio_lines(curves: Curves) -> list[str]:
    """Return lines that tell the ratio to the published sensitivity bin by bin; [] without one."""
    curve = ratio_curve(curves)
    if curve is None:
        return []
    labels, counts = curve.labels, curve.counts
    lines = [
        f"sensitivity of {labels['event_class']} at a zenith angle of {labels['zenith_deg']:g} deg "
        f"over the published one of ASTRI ({PUBLISHED_HOURS:g} h):",
        f"{'TeV':>8} {'erg/(s cm2)':>12} {'ratio':>7} {'68 % interval':>15} "
        f"{'gammas':>8} {'background':>10}",
    ]
    ratio, flux = curve.values["ratio"], curve.values["flux_e2"]
    for k, energy in enumerate(curve.centres):
        if np.isnan(ratio.value[k]):
            continue
        few = "  few simulated events" if counts["few_events"][k] else ""
        lines.append(
            f"{energy:8.3g} {_number(flux.value[k], '.2e'):>12} {_number(ratio.value[k]):>7} "
            f"{_number(ratio.low[k]) + ' - ' + _number(ratio.high[k]):>15} "
            f"{counts['n_signal_events'][k]:8d} {counts['n_background_events'][k]:10d}{few}"
        )
    width = float(np.median(np.diff(np.log10(curve.edges))))
    if abs(width - PUBLISHED_DECADES) > 0.1 * PUBLISHED_DECADES:
        lines[0] += (
            f" (in bins of {width:.2g} decades, not {PUBLISHED_DECADES:g}: no fair comparison)"
        )
    if len(lines) == 2:
        return [f"{lines[0]} no bin of energy has both"]
    return lines


def _number(value: Any, form: str = ".2f") -> str:
    return "?" if np.isnan(value) else format(value, form)
