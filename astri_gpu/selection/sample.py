"""Reconstructed events of simulated particles, as cuts and responses need them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.power_law import density, integral

__all__ = ["COLUMNS", "KINDS", "EventTable", "Sample", "Thrown", "empty_columns", "solid_angle"]

Columns = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]

KINDS = ("gamma", "proton", "electron", "helium")
"""Particles that there are spectra for."""

COLUMNS = {
    "reco_energy": ("f8", "TeV", "Reconstructed energy"),
    "true_energy": ("f8", "TeV", "True energy"),
    "gammaness": ("f4", "", "Score, 1 = gamma"),
    "theta": ("f8", "deg", "Angle between reconstructed and true direction"),
    "reco_offset": ("f8", "deg", "Angle between reconstructed direction and pointing"),
    "true_offset": ("f8", "deg", "Angle between true direction and pointing"),
    "fov_lon": ("f8", "deg", "Reconstructed direction in the telescope frame, longitude"),
    "fov_lat": ("f8", "deg", "Reconstructed direction in the telescope frame, latitude"),
    "true_fov_lon": ("f8", "deg", "True direction in the telescope frame, longitude"),
    "true_fov_lat": ("f8", "deg", "True direction in the telescope frame, latitude"),
    "n_tels": ("i4", "", "Images that the reconstruction used"),
    "quality": ("i4", "", "Event type, 1 best to 4 worst"),
    "shower_key": ("i8", "", "The same for all uses of a shower, different for all others"),
}
"""Every column of an `EventTable`: type, unit, meaning. Rows are reconstructed events only."""


class Thrown(NamedTuple):
    """What one run header says of the showers thrown, every use counted."""

    n_showers: float
    energy_min_tev: float
    energy_max_tev: float
    spectral_index: float
    max_impact_m: float
    cone_min_deg: float
    cone_max_deg: float

    @property
    def point_like(self) -> bool:
        """Return whether all showers came from one angle to the pointing."""
        return self.cone_max_deg - self.cone_min_deg < 1e-6

    @property
    def area_m2(self) -> float:
        """Return the area that cores were spread over."""
        return float(np.pi * self.max_impact_m**2)

    @property
    def solid_angle_sr(self) -> float:
        """Return the solid angle of the cone; 0 for point-like showers."""
        return 0.0 if self.point_like else solid_angle(self.cone_min_deg, self.cone_max_deg)

    def share(self, low_tev: Floats, high_tev: Floats) -> Floats:
        """Return the share of the showers between energies."""
        ends = (
            np.clip(ends, self.energy_min_tev, self.energy_max_tev) for ends in (low_tev, high_tev)
        )
        whole = integral(self.spectral_index, self.energy_min_tev, self.energy_max_tev)
        return np.asarray(integral(self.spectral_index, *ends) / whole)

    def density(self, energy: Floats) -> Floats:
        """Return the number of showers per TeV, 0 outside the range of energies."""
        limits = self.energy_min_tev, self.energy_max_tev
        return density(energy, self.n_showers, self.spectral_index, *limits)


@dataclass(frozen=True)
class EventTable:
    """Events of one kind of particle from one pointing, thrown alike in angle and area.

    Attributes
    ----------
    kind
        gamma, proton, electron or helium.
    zenith_deg, azimuth_deg
        Of the pointing.
    thrown
        One entry per run header. Angles and area are the same in all; ranges and indices of the
        energy may differ.
    columns
        See `COLUMNS`; (event,) each.
    paths
        The stores.
    part
        Share of the showers that the table stands for: 1, or 0.5 for even or odd ones.
    """

    kind: str
    zenith_deg: float
    azimuth_deg: float
    thrown: tuple[Thrown, ...]
    columns: Columns
    paths: tuple[str, ...] = ()
    part: float = 1.0

    def __len__(self) -> int:
        return len(self.columns["reco_energy"])

    @property
    def point_like(self) -> bool:
        """Return whether all showers came from one angle to the pointing."""
        return self.thrown[0].point_like

    def rows(self, chosen: NDArray[Any]) -> "EventTable":
        """Return the table with chosen rows (a mask or row numbers)."""
        return replace(self, columns={name: part[chosen] for name, part in self.columns.items()})


@dataclass(frozen=True)
class Sample:
    """All tables of a set of stores, and what products made from them record.

    Attributes
    ----------
    tables
        One per kind, pointing, and way of throwing (point-like or diffuse).
    meta
        `simulation_model`, `models` (checksum of the forests), `cameras`, `array`, `part`, and what
        else the products say of their origin.
    """

    tables: tuple[EventTable, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str) -> list[EventTable]:
        """Return the tables of a kind."""
        return [table for table in self.tables if table.kind == kind]

    def background(self) -> list[EventTable]:
        """Return the tables of everything that is no gamma."""
        return [table for table in self.tables if table.kind != "gamma"]

    def pointings(self) -> list[tuple[float, float]]:
        """Return zenith and azimuth angles of the gammas, sorted."""
        return sorted({(table.zenith_deg, table.azimuth_deg) for table in self.of("gamma")})

    def at(self, pointing: tuple[float, float]) -> "Sample":
        """Return what was simulated for one pointing."""
        chosen = (t for t in self.tables if (t.zenith_deg, t.azimuth_deg) == pointing)
        return Sample(tuple(chosen), self.meta)

    def __iter__(self) -> Iterator[EventTable]:
        return iter(self.tables)


def solid_angle(low_deg: Any, high_deg: Any) -> Any:
    """Return the solid angle between two angles from an axis, sr."""
    # cos a - cos b, without the loss of digits at small angles.
    low, high = np.deg2rad(low_deg), np.deg2rad(high_deg)
    return 4 * np.pi * np.sin((low + high) / 2) * np.sin((high - low) / 2)


def empty_columns() -> Columns:
    """Return the columns of a table without events."""
    return {name: np.empty(0, dtype=kind) for name, (kind, _, _) in COLUMNS.items()}
