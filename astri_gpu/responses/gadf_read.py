"""Reading response files in the format GADF, of any array, and what they say of its performance.

Tables are found by HDUCLAS4, and where that is missing or unknown by EXTNAME. The order of the
dimensions of a table is taken from CREFn, else from the order of the axis columns, else it is that
of GADF or its reverse, whichever fits the lengths of the axes. Units are converted to TeV, deg, m2,
sr-1 and s-1 MeV-1 sr-1. Numbers are interpolated as gammapy does it (see `gadf_model`), with one
exception: in files whose columns and dimensions begin with DETX, DETY (those of H.E.S.S.), gammapy
2.1 turns the dimensions about as a whole and so takes DETX for DETY.
"""

import gzip
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.errors import AstriError
from astri_gpu.responses.gadf_model import (
    Axis,
    GaussPsf,
    KingPsf,
    Psf,
    Table,
    TablePsf,
    quantiles,
)

__all__ = ["GadfIrf", "read_irf"]

Floats = NDArray[np.float64]

AXIS_UNITS = {
    "ENERG": "TeV",
    "THETA": "deg",
    "MIGRA": "",
    "RAD": "deg",
    "DETX": "deg",
    "DETY": "deg",
}
RATE_UNIT = "s-1 MeV-1 sr-1"
# One standard deviation on both sides, the definition of pyirf.benchmarks.
ONE_SIGMA = (0.15865525393145707, 0.5, 0.8413447460685429)
GZIP = b"\x1f\x8b"
DIRECTIONS_DEG = np.arange(0, 360, 15)


class Kind(NamedTuple):
    """What a table of one class holds: its axes, its columns with units, what it is part of."""

    part: str
    axes: tuple[str, ...]
    columns: dict[str, str]


KINDS = {
    "AEFF_2D": Kind("effective area", ("ENERG", "THETA"), {"EFFAREA": "m2"}),
    "EDISP_2D": Kind("energy dispersion", ("ENERG", "MIGRA", "THETA"), {"MATRIX": ""}),
    "PSF_TABLE": Kind("point spread function", ("ENERG", "THETA", "RAD"), {"RPSF": "sr-1"}),
    "PSF_3GAUSS": Kind(
        "point spread function",
        ("ENERG", "THETA"),
        {
            "SCALE": "sr-1",
            "SIGMA_1": "deg",
            "SIGMA_2": "deg",
            "SIGMA_3": "deg",
            "AMPL_2": "",
            "AMPL_3": "",
        },
    ),
    "PSF_KING": Kind("point spread function", ("ENERG", "THETA"), {"GAMMA": "", "SIGMA": "deg"}),
    "BKG_2D": Kind("background", ("ENERG", "THETA"), {"BKG": RATE_UNIT}),
    "BKG_3D": Kind("background", ("ENERG", "DETX", "DETY"), {"BKG": RATE_UNIT}),
    "RAD_MAX_2D": Kind("RAD_MAX", ("ENERG", "THETA"), {"RAD_MAX": "deg"}),
}
# Of files without HDUCLAS4, and of those of CTA's first data challenge, which write 2D, 3D, 3GAUSS.
EXTENSIONS = {
    "AEFF": ("AEFF_2D",),
    "EFFECTIVE AREA": ("AEFF_2D",),
    "EDISP": ("EDISP_2D",),
    "ENERGY DISPERSION": ("EDISP_2D",),
    "PSF": ("PSF_3GAUSS", "PSF_KING", "PSF_TABLE"),
    "POINT SPREAD FUNCTION": ("PSF_3GAUSS", "PSF_KING", "PSF_TABLE"),
    "BKG": ("BKG_3D", "BKG_2D"),
    "BACKGROUND": ("BKG_3D", "BKG_2D"),
    "RAD_MAX": ("RAD_MAX_2D",),
}
ALIASES = {"BKG": ("BKG", "BGD"), "ENERG": ("ENERG", "ETRUE")}


@dataclass(frozen=True)
class GadfIrf:
    """The responses of a file; those that it has not got are None.

    Attributes
    ----------
    path
        The file.
    aeff, edisp, background, rad_max
        Tables in m2, per migration, s-1 MeV-1 sr-1, deg.
    psf
        The point spread function, of any of its three forms.
    point_like
        Whether a cut on the angle from the source is in the numbers.
    meta
        Keywords of the header of the effective area, or of the first table.
    """

    path: Path
    aeff: Table | None = None
    edisp: Table | None = None
    psf: Psf | None = None
    background: Table | None = None
    rad_max: Table | None = None
    point_like: bool = False
    meta: dict[str, Any] = field(default_factory=dict)

    def effective_area(self, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the effective area in m2 at true energies (TeV) and offsets (deg).

        Raises
        ------
        AstriError
            When the file has no effective area; so do the other methods for their tables.
        """
        return self._need(self.aeff, "AEFF_2D").evaluate(energy, offset)

    def containment_radius(self, share: float, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the angle in deg that holds a share of gammas, NaN where none does."""
        return self._need(self.psf, "PSF").containment_radius(share, energy, offset)

    def energy_bias(self, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the median of reconstructed over true energy, minus 1; NaN without events."""
        return self._migrations(energy, offset)[1] - 1

    def energy_resolution(self, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return half the width of the middle 68.3 % of reconstructed over true energy.

        That is the definition of `pyirf.benchmarks.energy_bias_resolution`; NaN without events.
        """
        low, _, high = self._migrations(energy, offset)
        return (high - low) / 2

    def background_rate(
        self, energy: ArrayLike, offset: ArrayLike, direction_deg: float | None = None
    ) -> Floats:
        """Return the background rate in s-1 MeV-1 sr-1 at reconstructed energies and offsets.

        Parameters
        ----------
        energy, offset
            TeV and deg, broadcast together.
        direction_deg
            Of a background in two coordinates: the angle at which the offset is taken, from DETX
            to DETY; None = the mean over the circle.
        """
        table = self._need(self.background, "BKG")
        if len(table.axes) == 2:
            return table.evaluate(energy, offset)
        angles = np.radians(DIRECTIONS_DEG if direction_deg is None else [direction_deg])
        energy, offset = np.broadcast_arrays(
            np.asarray(energy, dtype=float), np.asarray(offset, dtype=float)
        )
        lon, lat = offset[..., None] * np.cos(angles), offset[..., None] * np.sin(angles)
        return table.evaluate(energy[..., None], lon, lat).mean(axis=-1)

    def _migrations(self, energy: ArrayLike, offset: ArrayLike) -> Floats:
        """Return the quantiles of migra that `ONE_SIGMA` names, (3, ...)."""
        table = self._need(self.edisp, "EDISP_2D")
        migra = table.axis("MIGRA")
        energy, offset = np.broadcast_arrays(
            np.asarray(energy, dtype=float), np.asarray(offset, dtype=float)
        )
        density = table.evaluate(energy[..., None], migra.centres, offset[..., None])
        return quantiles(density, migra.edges, ONE_SIGMA)

    def _need(self, part: Any, name: str) -> Any:
        if part is None:
            raise AstriError(
                f"The response file {self.path} has no table {name}: choose a file with one."
            )
        return part


def read_irf(path: str | Path) -> GadfIrf:
    """Read all responses of a file.

    Of several tables of the same kind the first counts, as in gammapy.

    Raises
    ------
    AstriError
        When the file is missing, is no FITS file, holds no response, or a table of it lacks a
        column, has a unit that cannot be converted, or dimensions that do not fit its axes.
    """
    from astropy.io import fits

    path = Path(path)
    if not path.is_file():
        raise AstriError(f"The response file {path} does not exist: check the path.")
    found: dict[str, tuple[str, Any]] = {}
    point_like = False
    try:
        # From memory, because astropy does not close damaged files.
        with path.open("rb") as stream:
            content = stream.read()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
        with fits.open(io.BytesIO(content)) as file:
            for hdu in file:
                if not isinstance(hdu, fits.BinTableHDU):
                    continue
                name = _kind(hdu)
                if name is None or KINDS[name].part in found:
                    continue
                found[KINDS[name].part] = name, _load(hdu, name, path)
                point_like |= hdu.header.get("HDUCLAS3") == "POINT-LIKE"
                if KINDS[name].part == "effective area" or "meta" not in found:
                    found["meta"] = name, _keywords(hdu.header)
    except AstriError:
        raise
    # astropy answers damaged files with many kinds of exceptions; all mean the same to the reader.
    except Exception as error:
        raise AstriError(
            f"The response file {path} cannot be read as FITS ({' '.join(str(error).split())}): "
            "it is damaged or of another format."
        ) from error
    if not set(found) - {"meta"}:
        raise AstriError(
            f"The file {path} holds no response in the format GADF (no table with HDUCLAS4 "
            f"{', '.join(KINDS)}): choose a response file."
        )

    def part(name: str) -> Any:
        return found.get(name, (None, None))[1]

    return GadfIrf(
        path=path,
        aeff=part("effective area"),
        edisp=part("energy dispersion"),
        psf=part("point spread function"),
        background=part("background"),
        rad_max=part("RAD_MAX"),
        point_like=point_like,
        meta=part("meta"),
    )


def _kind(hdu: Any) -> str | None:
    """Return the key of `KINDS` that a table is, None for tables that are no response."""
    name = str(hdu.header.get("HDUCLAS4", "")).strip().upper()
    if name in KINDS:
        return name
    for candidate in EXTENSIONS.get(str(hdu.header.get("EXTNAME", "")).strip().upper(), ()):
        kind = KINDS[candidate]
        if all(_column_name(hdu, column) for column in kind.columns) and all(
            _column_name(hdu, axis, "_LO") for axis in kind.axes
        ):
            return candidate
    return None


def _load(hdu: Any, name: str, path: Path) -> Any:
    """Return the table, or the point spread function, of an HDU."""
    kind = KINDS[name]
    where = f"the table {hdu.header.get('EXTNAME', name)} ({name}) of {path}"
    if len(hdu.data) == 0:
        raise AstriError(f"There is no row in {where}: a response has exactly one.")
    axes = tuple(_axis(hdu, axis, where) for axis in kind.axes)
    tables = []
    for column, unit in kind.columns.items():
        values, tiny = _values(hdu, column, unit, axes, where)
        if column.startswith("SIGMA"):
            values = np.where(values == 0, 1.0, values)  # absent Gaussians are written so
        tables.append(
            Table(
                axes,
                values,
                log=kind.part == "background",
                tiny=tiny,
                bounded=name not in ("PSF_3GAUSS", "PSF_KING"),
            )
        )
    if name == "PSF_TABLE":
        return TablePsf(tables[0])
    if name == "PSF_3GAUSS":
        scale, first, second, third, *heights = tables
        return GaussPsf(scale, (first, second, third), (heights[0], heights[1]))
    if name == "PSF_KING":
        return KingPsf(*tables)
    return tables[0]


def _column_name(hdu: Any, name: str, end: str = "") -> str | None:
    """Return how a file spells a column, None if it has not got it."""
    present = {column.upper(): column for column in hdu.columns.names}
    for alias in ALIASES.get(name, (name,)):
        if alias + end in present:
            return present[alias + end]
    return None


def _cell(hdu: Any, name: str, end: str, unit: str, where: str) -> NDArray[Any]:
    """Return the one cell of a column in a unit."""
    from astropy import units

    column = _column_name(hdu, name, end)
    if column is None:
        raise AstriError(f"There is no column {name}{end} in {where}: the file is incomplete.")
    cell = np.asarray(hdu.data[column][0])
    written = hdu.columns[column].unit
    if not written:
        return cell
    try:
        factor = units.Unit(written).to(units.Unit(unit))
    except (ValueError, TypeError, units.UnitConversionError) as error:
        raise AstriError(
            f"The unit '{written}' of column {column} in {where} is none of "
            f"'{unit or 'dimensionless'}': correct the file."
        ) from error
    return cell * factor if factor != 1 else cell


def _axis(hdu: Any, name: str, where: str) -> Axis:
    low, high = (
        np.atleast_1d(_cell(hdu, name, end, AXIS_UNITS[name], where)).astype(float)
        for end in ("_LO", "_HI")
    )
    if low.shape != high.shape or low.ndim != 1 or not np.isfinite([low, high]).all():
        raise AstriError(
            f"{name}_LO and {name}_HI of {where} are no edges of bins (shapes {low.shape} and "
            f"{high.shape}, or values that are not finite): correct the file."
        )
    if (np.diff(low) <= 0).any() or (high < low).any():
        raise AstriError(f"The bins of {name} in {where} do not rise: correct the file.")
    return Axis(name, low, high)


def _values(
    hdu: Any, name: str, unit: str, axes: tuple[Axis, ...], where: str
) -> tuple[Floats, float]:
    """Return a column with dimensions in the order of `axes`, and the smallest number of its type.

    FITS counts dimensions from the fastest, so a cell comes with its axes reversed.
    """
    cell = _cell(hdu, name, "", unit, where)
    tiny = float(np.finfo(cell.dtype).tiny) if cell.dtype.kind == "f" else 1e-38
    lengths = {axis.name: len(axis.low) for axis in axes}
    if cell.size != np.prod(list(lengths.values())):
        raise AstriError(
            f"{name} of {where} has {cell.size} values, which is not the product of the lengths "
            f"of its axes {lengths}: correct the file."
        )
    standard = tuple(lengths)
    for order in (_written_order(hdu, name, standard), standard, standard[::-1]):
        shape = tuple(lengths[axis] for axis in order)
        if cell.ndim == 1 or cell.shape[::-1] == shape:
            turned = cell.reshape(shape[::-1]).T
            places = [order.index(axis) for axis in standard]
            return np.ascontiguousarray(np.transpose(turned, places), dtype=float), tiny
    raise AstriError(
        f"{name} of {where} has dimensions {cell.shape[::-1]}, which fit its axes {lengths} in no "
        "known order: correct the file."
    )


def _written_order(hdu: Any, name: str, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the order of axes that CREFn tells, else the order of their columns."""
    number = hdu.columns.names.index(_column_name(hdu, name)) + 1
    told = re.findall(r"(\w+)_LO", str(hdu.header.get(f"CREF{number}", "")).upper())
    if not told:
        told = [c[:-3].upper() for c in hdu.columns.names if c.upper().endswith("_LO")]
    spelled = {alias: axis for axis in axes for alias in ALIASES.get(axis, (axis,))}
    order = tuple(spelled[axis] for axis in told if axis in spelled)
    return order if sorted(order) == sorted(axes) else axes


def _keywords(header: Any) -> dict[str, Any]:
    """Return the keywords of a header that say something of the responses."""
    dull = re.compile(r"(XTENSION|BITPIX|NAXIS|PCOUNT|GCOUNT|TFIELDS|TTYPE|TFORM|TUNIT|TDIM|$)")
    return {name: header[name] for name in header if name and not dull.match(name)}
