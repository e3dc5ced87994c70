"""All numbers of the analysis as plain values, for science.json, and the sentences they make."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from astri_gpu.science.extraction import RunCounts
from astri_gpu.science.fitting import SpectrumFit
from astri_gpu.science.light_curve import LightCurve
from astri_gpu.science.maps import SkyMaps
from astri_gpu.science.runs import Chosen, Faults
from astri_gpu.science.theta2 import Theta2

__all__ = ["collect", "detection_sentence", "spectrum_sentence"]

Numbers = Mapping[str, Any]

CONFIDENT = 5.0  # sigma: what counts as a detection


def _counts(found: RunCounts, *, limit: bool = False) -> dict[str, Any]:
    return {
        "n_on": found.n_on,
        "n_off": found.n_off,
        "alpha": found.alpha,
        "background": found.background,
        "excess": found.excess,
        "significance": found.significance,
        "excess_upper_limit": found.upper_limit() if limit else None,
        "livetime_s": found.livetime_s,
    }


def collect(
    chosen: Chosen,
    faults: Faults,
    told: Counter[str],
    *,
    limits: tuple[float, float],
    on_radius_deg: float,
    rows: Sequence[Numbers],
    total: RunCounts,
    fit: SpectrumFit,
    curve: LightCurve | None,
    angles: Theta2 | None,
    maps: SkyMaps | None,
) -> dict[str, Any]:
    """Return the numbers; those of parts that could not be done are None."""
    spectrum = {
        "form": fit.form,
        "index": asdict(fit.slope),
        "parameters": [asdict(entry) for entry in fit.parameters],
        "energy_range_tev": fit.energy_range_tev,
        "statistic": fit.statistic,
        "degrees_of_freedom": fit.degrees_of_freedom,
        "converged": fit.converged,
        "message": fit.message,
        "only_amplitude_fitted": fit.faint,
        "improvement": fit.improvement,
        "amplitude_upper_limit": fit.amplitude_limit,
    }
    light_curve = None
    if curve is not None:
        light_curve = {
            "energy_range_tev": curve.energy_range_tev,
            "mean_flux_cm2_s": curve.mean,
            "mean_flux_error_cm2_s": curve.error,
            "chi2": curve.chi2,
            "n_times": curve.n_times,
            "p_value": curve.p_value,
        }
    sky = None
    if maps is not None:
        sky = {
            "mean": maps.mean,
            "width": maps.width,
            "peak_ra_deg": maps.peak_ra_deg,
            "peak_dec_deg": maps.peak_dec_deg,
            "peak_significance": maps.peak_significance,
            "distance_deg": maps.distance_deg,
        }
    models = dict.fromkeys(head.simulation_model for head in chosen.heads if head.simulation_model)
    return {
        "target": asdict(chosen.target),
        "notes": list(chosen.notes),
        "remarks": faults.notes,
        "simulation_model": "; ".join(models) or None,
        "stand_in": any(head.stand_in for head in chosen.heads),
        "point_like": chosen.point_like,
        "on_radius_deg": on_radius_deg,
        "energy_range_tev": limits,
        "detection": _counts(total, limit=fit.faint),
        "theta2": None if angles is None else _counts(angles.total),
        "spectrum": spectrum,
        "light_curve": light_curve,
        "maps": sky,
        "runs": list(rows),
        "left_out": faults.left_out,
        "warnings": faults.warnings,
        "library_warnings": dict(told),
    }


def detection_sentence(numbers: Numbers) -> str:
    """Return what was found, in a sentence."""
    found, name = numbers["detection"], numbers["target"]["name"]
    hours = f"{found['livetime_s'] / 3600:.3g} h"
    counts = (
        f"{found['n_on']:,} events where {found['background']:.1f} of the background are expected"
    )
    if found["significance"] >= CONFIDENT:
        return f"{name} is detected with {found['significance']:.1f} σ in {hours}: {counts}."
    words = f"{name} is not detected ({found['significance']:.1f} σ in {hours}): {counts}"
    if found["excess_upper_limit"] is not None:
        words += f", so it gives fewer than {found['excess_upper_limit']:.1f} (95 %)"
    return f"{words}."


def spectrum_sentence(numbers: Numbers) -> str:
    """Return the fitted flux in a sentence; the warning where the fit failed."""
    fit = numbers["spectrum"]
    values = {entry["name"]: entry for entry in fit["parameters"]}
    amplitude, reference, index = values["amplitude"], values["reference"], fit["index"]
    flux = (
        f"({1e12 * amplitude['value']:.3g} ± {1e12 * (amplitude['error'] or 0):.2g}) × 10⁻¹² "
        f"cm⁻² s⁻¹ TeV⁻¹ at {reference['value']:g} TeV"
    )
    if not fit["converged"]:
        return f"The fit of its spectrum did not converge; where it stopped the flux is {flux}."
    if fit["only_amplitude_fitted"]:
        limit = 1e12 * fit["amplitude_upper_limit"]
        return (
            f"For an assumed index of {index['value']:g} its flux is {flux}, less than {limit:.3g} "
            "(95 %)."
        )
    return f"Its flux is {flux}, its spectral index {index['value']:.2f} ± {index['error']:.2f}."
