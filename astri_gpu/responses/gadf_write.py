"""Writing the responses of an observation (IRF3) exactly as GADF v0.3 asks.

Tables follow each other as in files of ASTRI: effective area, point spread function, energy
dispersion, background, under the names that `gammapy.data.DataStore.from_events_files` expects of
them (with PSF_3GAUSS and BKG_3D). A point-like response has effective area, energy dispersion and
RAD_MAX only. Statistical errors are further columns (``..._ERR``), which readers that do not know
them leave alone. The background against the offset (BKG_2D) is in the file instead of BKG_3D if it
is asked for: of two tables of a kind gammapy takes the first and complains.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu import __version__
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.lineage.cards import step_cards
from astri_gpu.output_file import whole_file
from astri_gpu.responses.irf import Irf

__all__ = ["gadf_keywords", "irf_tables", "write_irf"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

GADF = {
    "HDUCLASS": ("GADF", "format"),
    "HDUDOC": (
        "https://github.com/open-gamma-ray-astro/gamma-astro-data-formats",
        "its specification",
    ),
    "HDUVERS": ("0.3", "its version"),
}
CARD_LENGTH = 64  # characters of a text and its comment
RATE_UNIT = "s-1 MeV-1 sr-1"


class Column(NamedTuple):
    """A column with one cell, whose dimensions are those of the axes in their order."""

    name: str
    unit: str
    values: Floats


class IrfTable(NamedTuple):
    """A response as a table: EXTNAME, HDUCLAS2, HDUCLAS4, axes (name -> unit, edges), columns."""

    name: str
    part: str
    kind: str
    axes: dict[str, tuple[str, Floats]]
    columns: tuple[Column, ...]


def write_irf(
    path: str | Path,
    irf: Irf,
    *,
    psf: str = "gauss",
    background: str = "3d",
    keywords: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a response as one FITS file, whole or not at all; ``.gz`` compresses it.

    Parameters
    ----------
    path
        The file.
    irf
        The response.
    psf
        "gauss" = PSF_3GAUSS, which is fitted here; "table" = PSF_TABLE.
    background
        "3d" = BKG_3D, "2d" = BKG_2D.
    keywords
        Further keywords of all headers, name -> value or (value, comment); they replace ours.
    overwrite
        Replace a file that is there already.

    Raises
    ------
    UsageError
        When the file exists and may not be replaced, or `psf` or `background` is unknown.
    AstriError
        When the response is empty (no gamma was selected in any bin), or the disk takes no more.
    """
    from astropy.io import fits

    if not (irf.effective_area > 0).any():
        raise AstriError(
            f"The response of class {irf.event_class} at zenith angle {irf.zenith_deg:.1f} deg is "
            f"empty, no simulated gamma passed the cuts: {path} is not written. Loosen the cuts or "
            "simulate more."
        )
    tables = irf_tables(irf, psf=psf, background=background)
    common = gadf_keywords(irf.event_class, irf.meta)
    common |= {
        "ZEN_PNT": (float(irf.zenith_deg), "[deg] zenith angle of the pointing, mean"),
        "AZ_PNT": (float(irf.azimuth_deg), "[deg] azimuth angle, North 0, East 90, mean"),
        "LO_THRES": (float(irf.valid_tev[0]), "[TeV] reconstructed energies below: no cuts"),
        "HI_THRES": (float(irf.valid_tev[1]), "[TeV] reconstructed energies above: no cuts"),
    }
    for name, given in (keywords or {}).items():
        common[name] = given if isinstance(given, tuple) else (given, "")
    primary = fits.PrimaryHDU()
    _write_keywords(primary.header, common | step_cards(irf.meta.get("provenance")))
    hdus = [primary, *(_hdu(table, irf.point_like, common) for table in tables)]
    with whole_file(path, overwrite=overwrite) as unfinished:
        fits.HDUList(hdus).writeto(unfinished, checksum=True)


def irf_tables(irf: Irf, *, psf: str = "gauss", background: str = "3d") -> list[IrfTable]:
    """Return the tables of a response in the order of the file.

    A background without any event has no table: the log says so.

    Raises
    ------
    UsageError
        When `psf` or `background` is unknown.
    """
    edges = irf.edges
    energy, reco = ("TeV", edges.true_energy), ("TeV", edges.reco_energy)
    theta = ("deg", edges.offset)
    area = IrfTable(
        "EFFECTIVE AREA",
        "EFF_AREA",
        "AEFF_2D",
        {"ENERG": energy, "THETA": theta},
        (
            Column("EFFAREA", "m2", irf.effective_area),
            Column("EFFAREA_ERR", "m2", irf.effective_area_error),
            Column("N_EVENTS", "", irf.n_events),
        ),
    )
    dispersion = IrfTable(
        "ENERGY DISPERSION",
        "EDISP",
        "EDISP_2D",
        {"ENERG": energy, "MIGRA": ("", edges.migra), "THETA": theta},
        (
            Column("MATRIX", "", irf.energy_dispersion),
            Column("MATRIX_ERR", "", irf.energy_dispersion_error),
        ),
    )
    if irf.point_like:
        # A radius of 0 says that nothing is selected where there is no cut.
        radius = np.nan_to_num(irf.rad_max if irf.rad_max is not None else np.nan)
        axes = {"ENERG": reco, "THETA": theta}
        cut = IrfTable(
            "RAD_MAX", "RAD_MAX", "RAD_MAX_2D", axes, (Column("RAD_MAX", "deg", radius),)
        )
        return [area, dispersion, cut]
    rate = _background_table(irf, background)
    if not (rate.columns[0].values > 0).any():
        logger.warning(
            "No background event passed the cuts of class %s: the response has no table of it, "
            "since a rate of 0 would be wrong.",
            irf.event_class,
        )
        return [area, _psf_table(irf, psf), dispersion]
    return [area, _psf_table(irf, psf), dispersion, rate]


def _psf_table(irf: Irf, form: str) -> IrfTable:
    """Return the point spread function as three Gaussians or as a table."""
    axes = {"ENERG": ("TeV", irf.edges.true_energy), "THETA": ("deg", irf.edges.offset)}
    name = "POINT SPREAD FUNCTION"
    if form == "gauss":
        from astri_gpu.responses.gaussians import fit_psf

        fit = fit_psf(irf)
        columns = (
            Column("SCALE", "sr-1", fit.scale),
            Column("SIGMA_1", "deg", fit.sigma_1),
            Column("AMPL_2", "", fit.ampl_2),
            Column("SIGMA_2", "deg", fit.sigma_2),
            Column("AMPL_3", "", fit.ampl_3),
            Column("SIGMA_3", "deg", fit.sigma_3),
        )
        return IrfTable(name, "RPSF", "PSF_3GAUSS", axes, columns)
    if form != "table":
        raise UsageError(f"The form of point spread functions '{form}' is unknown: gauss or table.")
    # Our arrays are (E, T, O); GADF recommends energy, offset, angle.
    table = (
        Column("RPSF", "sr-1", np.swapaxes(irf.psf, 1, 2)),
        Column("RPSF_ERR", "sr-1", np.swapaxes(irf.psf_error, 1, 2)),
    )
    return IrfTable(name, "RPSF", "PSF_TABLE", axes | {"RAD": ("deg", irf.edges.rad)}, table)


def _background_table(irf: Irf, form: str) -> IrfTable:
    energy, side = ("TeV", irf.edges.reco_energy), ("deg", irf.edges.detector)
    if form == "3d":
        axes = {"ENERG": energy, "DETX": side, "DETY": side}
        values, errors = irf.background_3d, irf.background_3d_error
    elif form == "2d":
        axes = {"ENERG": energy, "THETA": ("deg", irf.edges.offset)}
        values, errors = irf.background_2d, irf.background_2d_error
    else:
        raise UsageError(f"The form of backgrounds '{form}' is unknown: 3d or 2d.")
    columns = (Column("BKG", RATE_UNIT, values), Column("BKG_ERR", RATE_UNIT, errors))
    return IrfTable("BACKGROUND", "BKG", f"BKG_{form.upper()}", axes, columns)


def _hdu(table: IrfTable, point_like: bool, common: Mapping[str, Any]) -> Any:
    """Return a table as an HDU with one row of single precision, as all files of ASTRI have it."""
    from astropy.io import fits

    columns = []
    for name, (unit, edges) in table.axes.items():
        for end, part in (("_LO", edges[:-1]), ("_HI", edges[1:])):
            row = np.asarray(part, dtype=np.float32)[None]
            columns.append(fits.Column(name + end, f"{row.size}E", unit=unit or None, array=row))
    shape = tuple(len(edges) - 1 for _, edges in table.axes.values())
    for column in table.columns:
        # FITS counts dimensions from the fastest: the first axis is the last of the array.
        row = np.ascontiguousarray(column.values.T, dtype=np.float32)[None]
        columns.append(
            fits.Column(
                column.name,
                f"{row.size}E",
                unit=column.unit or None,
                dim="(" + ",".join(map(str, shape)) + ")",
                array=row,
            )
        )
    hdu = fits.BinTableHDU.from_columns(columns, name=table.name)
    classes = {
        "HDUCLAS1": ("RESPONSE", "table of a response"),
        "HDUCLAS2": (table.part, "which response"),
        "HDUCLAS3": (
            "POINT-LIKE" if point_like else "FULL-ENCLOSURE",
            "cut on the angle from the source, or none",
        ),
        "HDUCLAS4": (table.kind, "its form"),
    }
    if table.kind == "BKG_3D":
        classes["FOVALIGN"] = ("ALTAZ", "DETX, DETY are horizontal coordinates")
    order = "(" + ",".join(f"{name}_LO:{name}_HI" for name in table.axes) + ")"
    first = 2 * len(table.axes) + 1
    for number in range(first, first + len(table.columns)):
        classes[f"CREF{number}"] = (order, "axes, the fastest first")
    _write_keywords(hdu.header, {**common, **GADF, **classes})
    return hdu


def gadf_keywords(event_class: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords that every product of an event class carries: name -> (value, comment).

    EV_CLASS, CREATOR, ORIGIN, TELESCOP, INSTRUME; MODELSUM (checksum of the forests) and SIMMODEL
    (which model simulated the events) if `meta` has `models` and `simulation_model`.
    """
    keywords: dict[str, Any] = {
        "ORIGIN": ("astri_gpu", "who made this file"),
        "TELESCOP": ("ASTRI-MA", "array"),
        "INSTRUME": ("CAMERA", "instrument"),
        "CREATOR": (f"astri_gpu {__version__}", "software"),
        "EV_CLASS": (event_class, "event class"),
    }
    if meta.get("models"):
        keywords["MODELSUM"] = (str(meta["models"]), "checksum of the forests")
    if meta.get("simulation_model"):
        keywords["SIMMODEL"] = (str(meta["simulation_model"]), "")
    return keywords


def _write_keywords(header: Any, keywords: Mapping[str, Any]) -> None:
    """Write keywords; values that are not finite are left out, as FITS has no word for them."""
    for name, (value, comment) in keywords.items():
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            continue
        if isinstance(value, str):
            value = value.encode("ascii", "replace").decode()
            if len(value) + len(comment) > CARD_LENGTH:
                comment = ""
        header[name] = (value, comment)
