"""The numbers of a report: efficiencies, areas, errors, rates; the contents of summary.json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.power_law import integral
from astri_gpu.report.binned import (
    CONTAINMENT,
    FEWEST,
    Quantile,
    quantile_of_counts,
    share_interval,
)
from astri_gpu.report.collect import CORE, PARAMETERS, Sample
from astri_gpu.report.reconstructed import DIRECTION
from astri_gpu.report.resolution import reconstruction_numbers

__all__ = [
    "PowerLaw",
    "Rate",
    "containment_by_energy",
    "effective_area",
    "rates",
    "scatter_area",
    "solid_angle",
    "summary",
]

Floats = NDArray[np.float64]
QUANTILES = (10, 25, 50, 75, 90)


@dataclass(frozen=True)
class PowerLaw:
    """norm (E / TeV)^index per m2, s, TeV, and sr unless it is a point source."""

    name: str
    norm: float
    index: float
    point: bool


# Crab nebula: Aharonian et al. 2004 (HEGRA). Protons: the common parametrisation of the measured
# spectrum about 1 TeV, 0.096 E^-2.70.
SPECTRA = {
    "gamma": PowerLaw("Crab nebula (HEGRA)", 2.83e-7, -2.62, point=True),
    "proton": PowerLaw("cosmic-ray protons", 0.096, -2.70, point=False),
}


@dataclass(frozen=True)
class Rate:
    """Trigger rates in Hz in the thrown range of energy, with the statistical error of `array`."""

    spectrum: str
    array: float  # events with any telescope
    array_error: float
    telescope: float  # mean over the telescopes
    reconstructed: float


def scatter_area(sample: Sample) -> float | None:
    """Return the area in m2 over which cores were scattered, None if the store does not say."""
    outer, inner = (sample.header.get(f"{end}_scatter_range") for end in ("max", "min"))
    if not outer:
        return None
    return float(np.pi * (outer**2 - (inner or 0.0) ** 2))


def solid_angle(sample: Sample) -> float:
    """Return the solid angle in sr from which showers came, 0 for one direction."""
    outer, inner = (sample.header.get(f"{end}_viewcone_radius") or 0.0 for end in ("max", "min"))
    return float(2 * np.pi * (np.cos(np.deg2rad(inner)) - np.cos(np.deg2rad(outer))))


def effective_area(
    sample: Sample, passed: Floats, per_decade: int
) -> tuple[Floats, Floats, Floats] | None:
    """Return the effective area in m2 and the ends of its one-sigma interval, each (energy_bin,).

    It is passed / thrown x scatter area, NaN where nothing was thrown; None where the store does
    not tell what was thrown. Uses of one shower count as independent.

    Parameters
    ----------
    sample
        One particle.
    passed
        Events per fine bin of energy, such as ``sample.triggered``.
    per_decade
        Bins of the result per decade of energy.
    """
    area = scatter_area(sample)
    if sample.thrown is None or area is None:
        return None
    first = sample.merged(per_decade)
    p, low, high = share_interval(
        np.add.reduceat(passed, first), np.add.reduceat(sample.thrown, first)
    )
    return p * area, low * area, high * area


def rates(sample: Sample) -> Rate | None:
    """Return the trigger rates for the spectrum of nature, None where one of its parts is missing.

    Sum over the bins of energy of (passed / thrown) x scatter area x solid angle x integrated
    flux. For a point source the solid angle is left out: if the sample has a view cone, the rate
    is its mean over the cone.
    """
    spectrum = SPECTRA.get(sample.kind)
    area, angle = scatter_area(sample), solid_angle(sample)
    if spectrum is None or sample.thrown is None or area is None:
        return None
    if not spectrum.point:
        if not angle:
            return None
        area *= angle
    low, high = sample.energy_edges[:-1], sample.energy_edges[1:]
    lowest, highest = (sample.header.get(f"energy_range_{end}") for end in ("min", "max"))
    if lowest is not None and highest is not None:
        low, high = np.maximum(low, lowest), np.minimum(high, highest)
    flux = spectrum.norm * integral(spectrum.index, low, high)
    weight = np.divide(flux * area, sample.thrown, out=np.zeros_like(flux), where=sample.thrown > 0)
    return Rate(
        spectrum=f"{spectrum.name}: {spectrum.norm:g} (E/TeV)^{spectrum.index:g} per m2, s, TeV"
        + ("" if spectrum.point else ", sr"),
        array=float(weight @ sample.triggered),
        array_error=float(np.sqrt(weight**2 @ sample.triggered)),
        telescope=float(weight @ sample.telescopes) / sample.n_telescopes,
        reconstructed=float(weight @ sample.reconstructed),
    )


def containment_by_energy(
    counts: Floats, sample: Sample, quantity: Any, per_decade: int
) -> list[Quantile]:
    """Return the 68 % containment in each bin of energy, NaN where there are few events.

    Parameters
    ----------
    counts
        Histogram (fine energy bin, bin of `quantity`).
    sample
        Where it comes from.
    quantity
        The `Axis` of the second dimension.
    per_decade
        Bins of the result per decade of energy.
    """
    merged = np.add.reduceat(counts, sample.merged(per_decade), axis=0)
    return [quantile_of_counts(row, quantity, CONTAINMENT, FEWEST) for row in merged]


def summary(samples: Sequence[Sample], per_decade: int) -> dict[str, Any]:
    """Return the numbers of all samples by label; lengths m, angles deg, energies TeV, rates Hz."""
    return {sample.label: _numbers(sample, per_decade) for sample in samples}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _numbers(sample: Sample, per_decade: int) -> dict[str, Any]:
    header = sample.header
    multiplicity = sample.multiplicity
    n_with_images = int(multiplicity[1:].sum())
    thrown = None if sample.thrown is None else int(sample.thrown.sum())
    rate = rates(sample)
    return {
        "particle": sample.kind,
        "stores": [path.name for path in sample.stores],
        "models": sorted(sample.models),
        "energy_range_tev": [header.get(f"energy_range_{end}") for end in ("min", "max")],
        "spectral_index": header.get("spectral_index"),
        "view_cone_deg": [header.get(f"{end}_viewcone_radius") for end in ("min", "max")],
        "scatter_radius_m": header.get("max_scatter_range"),
        "altitude_deg": header.get("min_alt"),
        "telescopes": sample.n_telescopes,
        "showers": sample.n_showers or None,
        "thrown": thrown,
        "events": sample.n_events,
        "fraction_triggered": None if thrown is None else _ratio(sample.n_events, thrown),
        "telescope_triggers": sample.n_telescope_triggers,
        "images": sample.n_images,
        "images_per_million_thrown": None if not thrown else 1e6 * sample.n_images / thrown,
        "events_with_images": n_with_images,
        "images_per_event": _ratio(sample.n_images, n_with_images),
        "mono_image_share": _ratio(int(multiplicity[1:2].sum()), sample.n_images),
        "mono_event_share": _ratio(int(multiplicity[1:2].sum()), n_with_images),
        "events_by_images": multiplicity.tolist(),
        "reconstructed": sample.n_reconstructed,
        "fraction_reconstructed": _ratio(sample.n_reconstructed, sample.n_events),
        "direction_error_68_deg": _all_energies(sample.direction, DIRECTION),
        "direction_error_68_deg_well_seen": _all_energies(sample.direction_well, DIRECTION),
        "core_error_68_m": _all_energies(sample.core, CORE),
        "rates_hz": None if rate is None else asdict(rate),
        "parameters": {
            axis.label: {
                f"q{share}": quantile_of_counts(sample.parameters[name], axis, share / 100).value
                for share in QUANTILES
            }
            for name, axis in PARAMETERS.items()
        },
        "by_energy": _by_energy(sample, per_decade),
        "reconstruction": reconstruction_numbers(sample, per_decade),
    }


def _all_energies(counts: Floats, quantity: Any) -> float:
    return quantile_of_counts(counts.sum(axis=0), quantity, CONTAINMENT, FEWEST).value


def _by_energy(sample: Sample, per_decade: int) -> list[dict[str, Any]]:
    """Return one entry per bin of energy in which anything was thrown or triggered."""
    first = sample.merged(per_decade)
    edges = sample.merged_edges(per_decade)
    triggered = np.add.reduceat(sample.triggered, first)
    thrown = None if sample.thrown is None else np.add.reduceat(sample.thrown, first)
    area = effective_area(sample, sample.triggered, per_decade)
    reconstructed = effective_area(sample, sample.reconstructed, per_decade)
    direction = containment_by_energy(sample.direction, sample, DIRECTION, per_decade)
    well = containment_by_energy(sample.direction_well, sample, DIRECTION, per_decade)
    core = containment_by_energy(sample.core, sample, CORE, per_decade)
    table = []
    for row in range(len(first)):
        if not (triggered[row] or (thrown is not None and thrown[row])):
            continue
        table.append(
            {
                "energy_tev": [edges[row], edges[row + 1]],
                "thrown": None if thrown is None else int(thrown[row]),
                "triggered": int(triggered[row]),
                "effective_area_m2": None if area is None else area[0][row],
                "effective_area_interval_m2": None
                if area is None
                else [area[1][row], area[2][row]],
                "effective_area_reconstructed_m2": None
                if reconstructed is None
                else reconstructed[0][row],
                "direction_error_68_deg": direction[row].value,
                "direction_error_interval_deg": [direction[row].low, direction[row].high],
                "direction_error_68_deg_well_seen": well[row].value,
                "core_error_68_m": core[row].value,
            }
        )
    return table
