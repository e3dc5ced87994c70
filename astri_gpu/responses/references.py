"""What others reach: ASTRI's published sensitivity, and the response file of any array."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_response import CutsConfig, IrfConfig
from astri_gpu.errors import AstriError
from astri_gpu.report.reco_panels import (
    HEADLINE_ARCMIN,
    HEADLINE_RESOLUTION,
    HEADLINE_SOURCE,
    HEADLINE_TEV,
)
from astri_gpu.responses.curve_measures import SHARES, flux_of, sensitivity_values
from astri_gpu.responses.curve_points import Curve, Estimate
from astri_gpu.selection.sample import solid_angle

if TYPE_CHECKING:
    from astri_gpu.responses.gadf_read import GadfIrf

__all__ = [
    "HEADLINE_ARCMIN",
    "HEADLINE_RESOLUTION",
    "HEADLINE_SOURCE",
    "HEADLINE_TEV",
    "PUBLISHED_DECADES",
    "PUBLISHED_HOURS",
    "PUBLISHED_SOURCE",
    "Reference",
    "published_sensitivity",
    "published_table",
    "read_reference",
]

Floats = NDArray[np.float64]

PUBLISHED_HOURS = 50.0
PUBLISHED_DECADES = 0.2  # width of its bins, log10
PUBLISHED_SOURCE = "ASTRI Mini-Array, 50 h (arXiv:2208.03177, digitised)"
# Nine telescopes, on axis, five bins a decade; read off the published figure.
PUBLISHED = {  # TeV: erg s-1 cm-2
    0.63: 3.8e-12,
    1.0: 1.9e-12,
    1.6: 1.0e-12,
    2.5: 7.8e-13,
    3.9: 7.3e-13,
    6.3: 6.9e-13,
    9.9: 7.5e-13,
    16.0: 8.6e-13,
    25.0: 1.05e-12,
    40.0: 1.3e-12,
    63.0: 1.8e-12,
    100.0: 2.3e-12,
    159.0: 3.4e-12,
}
OFFSET_DEG = 0.5
FINE_PER_BIN = 20
TEV_PER_MEV = 1e-6


def published_table() -> tuple[Floats, Floats]:
    """Return energies in TeV and E^2 dN/dE in erg s-1 cm-2 as published, (point,) each."""
    return np.array(list(PUBLISHED)), np.array(list(PUBLISHED.values()))


def published_sensitivity(edges: Floats) -> Floats:
    """Return the published 50 h sensitivity of ASTRI in the middle of bins, erg s-1 cm-2.

    Between the points both logarithms are interpolated linearly; NaN beyond half a bin (a tenth of
    a decade) from the outermost ones. A sensitivity in bins of other widths than a fifth of a
    decade is another one: the narrower the bins, the fewer events each has.

    Parameters
    ----------
    edges
        TeV, (bin + 1,).
    """
    energy, flux = (np.log10(part) for part in published_table())
    wanted = (np.log10(edges[:-1]) + np.log10(edges[1:])) / 2
    reach = PUBLISHED_DECADES / 2
    inside = (wanted > energy[0] - reach) & (wanted < energy[-1] + reach)
    return np.where(inside, 10 ** np.interp(wanted, energy, flux), np.nan)


@dataclass(frozen=True)
class Reference:
    """What the response file of another array says, as curves without errors.

    Attributes
    ----------
    name
        For legends.
    path
        The file.
    curves
        Kinds and labels as in `Curves`; `event_class` is the name.
    note
        How the sensitivity was made.
    """

    name: str
    path: str
    curves: tuple[Curve, ...]
    note: str

    def of(self, kind: str, **labels: Any) -> list[Curve]:
        """Return the curves of a kind whose labels have these values."""
        return [
            curve
            for curve in self.curves
            if curve.kind == kind
            and all(curve.labels.get(name) == value for name, value in labels.items())
        ]


def read_reference(path: str | Path, edges: Floats, config: IrfConfig) -> Reference:
    """Return the performance of another array from its response file (GADF).

    Its sensitivity is computed by our definition (`CutsConfig`: 5 sigma of Li and Ma, 10 events,
    5 % of the background, alpha 0.2) from the file alone, without cuts of our own: gammas of
    `flux.gamma` times effective area and energy dispersion, the 68.27 % of them that are within the
    containment radius, and the background in that radius. In files of point-like responses the cut
    is in the effective area, and the background is taken inside RAD_MAX. Everything is taken at an
    offset of 0.5 deg.

    Parameters
    ----------
    path
        The file.
    edges
        Of all energies, TeV, (bin + 1,).
    config
        Observing times and the spectrum of gammas.

    Raises
    ------
    AstriError
        When the file cannot be read or has no effective area.
    """
    from astri_gpu.responses.gadf_read import read_irf

    irf = read_irf(path)
    name = _name(Path(path), irf.meta)
    labels = {"event_class": name, "zenith_deg": np.nan, "azimuth_deg": np.nan}
    middle = np.sqrt(edges[:-1] * edges[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.asarray(irf.effective_area(middle, OFFSET_DEG))
        shown = np.where(area > 0, area, np.nan)
        curves = [_curve("effective_area", labels, "true_energy", edges, area=shown)]
        if irf.psf is not None:
            radii = [irf.containment_radius(share, middle, OFFSET_DEG) for share in SHARES]
            radii = [np.where(area > 0, radius, np.nan) for radius in radii]
            curves.append(
                _curve(
                    "angular_resolution",
                    labels,
                    "true_energy",
                    edges,
                    radius_68=radii[0],
                    radius_95=radii[1],
                )
            )
        if irf.edisp is not None:
            bias, width = (
                np.where(area > 0, part, np.nan)
                for part in (
                    irf.energy_bias(middle, OFFSET_DEG),
                    irf.energy_resolution(middle, OFFSET_DEG),
                )
            )
            curves.append(
                _curve(
                    "energy_resolution", labels, "true_energy", edges, bias=bias, resolution=width
                )
            )
        if irf.background is not None:
            curves += _with_background(irf, labels, edges, config)
    note = (
        "sensitivity computed here from the response file: "
        + ("inside RAD_MAX" if irf.point_like else "68 % containment radius")
        + f", offset {OFFSET_DEG:g} deg, no further cuts"
    )
    return Reference(name, str(path), tuple(curves), note)


def _name(path: Path, meta: dict[str, Any]) -> str:
    """Return how the array is called in legends."""
    parts = path.name.split(".")[0].split("-")
    if parts[0] == "Prod5" and len(parts) > 2:
        return f"CTAO {parts[1]} prod5 ({parts[-1]})"
    return str(meta.get("INSTRUME") or path.name.split(".")[0])


def _curve(kind: str, labels: dict[str, Any], axis: str, edges: Floats, **values: Floats) -> Curve:
    estimates = {name: Estimate.exact(value) for name, value in values.items()}
    return Curve(kind, labels, axis, edges, estimates)


def _fine(edges: Floats) -> tuple[Floats, Floats]:
    """Return middles and widths of finer bins, (bin x FINE_PER_BIN,) each."""
    steps = np.arange(len(edges) - 1).repeat(FINE_PER_BIN) + np.tile(
        np.arange(FINE_PER_BIN) / FINE_PER_BIN, len(edges) - 1
    )
    logs = np.interp(np.append(steps, len(edges) - 1), np.arange(len(edges)), np.log(edges))
    fine = np.exp(logs)
    return np.sqrt(fine[:-1] * fine[1:]), np.diff(fine)


def _per_bin(values: Floats) -> Floats:
    return values.reshape(-1, FINE_PER_BIN).sum(axis=1)


def _with_background(
    irf: "GadfIrf", labels: dict[str, Any], edges: Floats, config: IrfConfig
) -> list[Curve]:
    """Return the background rate, and the sensitivities if there is all that they need."""
    energy, width = _fine(edges)
    density = irf.background_rate(energy, OFFSET_DEG) / TEV_PER_MEV
    mean = _per_bin(density * width) / np.diff(edges)
    radius = _on_radius(irf, energy)
    rate = _per_bin(density * width * np.nan_to_num(solid_angle(0.0, radius)))
    shown = np.where(mean > 0, mean, np.nan)
    both = {**labels, "particle": "all"}
    curves = [
        _curve(
            "background_rate",
            both,
            "reco_energy",
            edges,
            rate=np.where(rate > 0, rate, np.nan),
            intensity=shown,
        )
    ]
    if irf.edisp is None or (irf.psf is None and not irf.point_like):
        return curves
    signal = _signal_rate(irf, edges, config)
    options = CutsConfig()
    flux, flux_e2 = flux_of(edges, config.flux.gamma)
    for hours in sorted({*map(float, config.exposures_h)}):
        off = rate / options.alpha
        relative = sensitivity_values(signal, off, hours, options)
        relative = np.where((rate > 0) & (signal > 0), relative, np.nan)
        curves.append(
            _curve(
                "sensitivity",
                {**labels, "exposure_h": hours, "optimised_for_h": np.nan},
                "reco_energy",
                edges,
                flux_e2=relative * flux_e2,
                flux=relative * flux,
                relative=relative,
            )
        )
    return curves


def _on_radius(irf: "GadfIrf", energy: Floats) -> Floats:
    """Return the radius of the on region in deg."""
    if irf.point_like and irf.rad_max is not None:
        return np.asarray(irf.rad_max.evaluate(energy, OFFSET_DEG))
    if irf.psf is None:
        raise AstriError(
            f"The response file {irf.path} has neither a point spread function nor RAD_MAX, so its "
            "on region is not known: choose a file with one of them."
        )
    return irf.containment_radius(SHARES[0], energy, OFFSET_DEG)


def _signal_rate(irf: "GadfIrf", edges: Floats, config: IrfConfig) -> Floats:
    """Return the rate of gammas of the source in bins of reconstructed energy, 1/s."""
    from astri_gpu.selection.spectra import flux_density

    # Those who call this have looked.
    assert irf.aeff is not None
    assert irf.edisp is not None
    limits = irf.aeff.axis("ENERG").edges
    per_decade = 100
    n_true = max(2, int(np.ceil(np.log10(limits[-1] / limits[0]) * per_decade)))
    fine = np.geomspace(limits[0], limits[-1], n_true + 1)
    energy, width = np.sqrt(fine[:-1] * fine[1:]), np.diff(fine)
    flux = flux_density(config.flux.gamma, "gamma", energy)
    rate = flux * irf.effective_area(energy, OFFSET_DEG) * width
    if not irf.point_like:
        rate = rate * SHARES[0]
    migra = irf.edisp.axis("MIGRA")
    density = irf.edisp.evaluate(energy[:, None], migra.centres, OFFSET_DEG)
    content = density * np.diff(migra.edges)
    upto = np.concatenate([np.zeros((n_true, 1)), np.cumsum(content, axis=1)], axis=1)
    total = upto[:, -1:]
    upto = np.divide(upto, total, out=np.zeros_like(upto), where=total > 0)
    below = np.stack(
        [np.interp(edges / one, migra.edges, line) for one, line in zip(energy, upto, strict=True)]
    )
    return np.asarray(rate @ np.diff(below, axis=1))
