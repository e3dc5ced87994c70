"""Spectra that simulated particles are weighted to, by name."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import UsageError
from astri_gpu.options import did_you_mean

__all__ = ["SPECTRA", "flux_density", "spectrum"]

Floats = NDArray[np.float64]

PYIRF = {
    "crab_hegra": "CRAB_HEGRA",
    "crab_magic": "CRAB_MAGIC_JHEAP2015",
    "irfdoc_proton": "IRFDOC_PROTON_SPECTRUM",
    "irfdoc_electron": "IRFDOC_ELECTRON_SPECTRUM",
}
"""Names of ours and of `pyirf.spectral`."""

POINT = {"crab_hegra", "crab_magic"}
# Hoerandel 2003 (Astropart. Phys. 19, 193), helium: flux of nuclei by their total energy in TeV.
HELIUM_NORM, HELIUM_INDEX = 5.71e-2, -2.64  # 1 / (TeV s m2 sr) at 1 TeV

SPECTRA = (*PYIRF, "horandel_helium")
"""Names of spectra; besides them there is powerlaw:NORM:INDEX."""

FORM = "powerlaw:NORM:INDEX, such as powerlaw:2.83e-7:-2.62"


def spectrum(name: str, kind: str) -> Callable[[Any], Any]:
    """Return a spectrum: a function of `pyirf.spectral` from energies to fluxes (quantities).

    Parameters
    ----------
    name
        One of `SPECTRA`, or powerlaw:NORM:INDEX with NORM at 1 TeV in 1 / (TeV s m2) for gammas,
        1 / (TeV s m2 sr) for others.
    kind
        gamma (point source) or another particle (from all sides).

    Raises
    ------
    UsageError
        For other names, and for a point source where a flux from all sides is needed, or the
        reverse.
    """
    from astropy import units as u
    from pyirf import spectral

    unit = spectral.POINT_SOURCE_FLUX_UNIT if kind == "gamma" else spectral.DIFFUSE_FLUX_UNIT
    if name.startswith("powerlaw"):
        norm, index = _power_law(name, kind)
        return spectral.PowerLaw(norm * unit, index, 1 * u.TeV)
    if name not in SPECTRA:
        near = did_you_mean(name, SPECTRA) or "."
        raise UsageError(
            f"flux.{kind} is '{name}', which is no known spectrum{near} Give one of "
            f"{', '.join(SPECTRA)}, or {FORM}."
        )
    if (name in POINT) != (kind == "gamma"):
        what = "a point source" if name in POINT else "particles from all sides"
        raise UsageError(
            f"flux.{kind} is '{name}', the spectrum of {what}: "
            + (
                f"give one of {', '.join(sorted(POINT))}, or {FORM}."
                if kind == "gamma"
                else f"give one of {', '.join(s for s in SPECTRA if s not in POINT)}, or {FORM}."
            )
        )
    if name in PYIRF:
        return getattr(spectral, PYIRF[name])
    return spectral.PowerLaw(HELIUM_NORM * unit, HELIUM_INDEX, 1 * u.TeV)


def _power_law(text: str, kind: str) -> tuple[float, float]:
    number = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
    found = re.fullmatch(rf"powerlaw:({number}):({number})", text)
    norm, index = map(float, found.groups()) if found else (np.nan, np.nan)
    if not (0 < norm < np.inf and -10 <= index <= 0):
        raise UsageError(
            f"flux.{kind} is '{text}', which is no power law: write {FORM}, with a norm above 0 "
            "and an index from -10 to 0."
        )
    return norm, index


def flux_density(name: str, kind: str, energy: Floats) -> Floats:
    """Return a spectrum at energies (TeV) in 1 / (TeV s m2), per sr but for gammas."""
    from astropy import units as u
    from pyirf import spectral

    unit = spectral.POINT_SOURCE_FLUX_UNIT if kind == "gamma" else spectral.DIFFUSE_FLUX_UNIT
    values = spectrum(name, kind)(u.Quantity(energy, u.TeV))
    return np.asarray(values.to_value(unit), dtype=np.float64)
