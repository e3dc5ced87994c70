"""The files of the analysis besides pictures and page: tables, maps, models, datasets."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.lineage.cards import step_cards
from astri_gpu.science.extraction import RunCounts
from astri_gpu.science.fitting import SpectrumFit
from astri_gpu.science.light_curve import LightCurve
from astri_gpu.science.maps import SkyMaps
from astri_gpu.science.runs import Chosen
from astri_gpu.science.theta2 import Theta2

__all__ = ["is_ours", "run_rows", "stamp", "write_products"]

FILES = (
    "theta2.ecsv",
    "theta2.png",
    "maps.fits",
    "maps.png",
    "spectrum.yaml",
    "spectrum_covariance.dat",
    "spectrum.ecsv",
    "flux_points.fits",
    "flux_points.ecsv",
    "flux_points.png",
    "light_curve.fits",
    "light_curve.ecsv",
    "light_curve.png",
    "runs.ecsv",
    "datasets",
    "science.json",
    "report.html",
)
CUBE = "map_dataset.fits"
STACKED = "pha_stacked.fits"

RUN_COLUMNS = {
    "obs_id": ("", "Number of the run"),
    "start": ("", "UTC"),
    "zenith_deg": ("deg", "Of the pointing; NaN where the event list does not say"),
    "offset_deg": ("deg", "Of the target from the pointing"),
    "livetime_s": ("s", "Good time less dead time"),
    "energy_min_tev": ("TeV", "Safe energies, from"),
    "energy_max_tev": ("TeV", "Safe energies, to"),
    "n_on": ("", "Events in the on region"),
    "n_off": ("", "Events in all off regions"),
    "n_regions": ("", "Off regions"),
    "alpha": ("", "Exposure of the on region / that of the off regions"),
    "excess": ("", "n_on - alpha n_off"),
    "significance": ("", "Li and Ma, equation 17; negative for a deficit"),
    "event_class": ("", "EV_CLASS of the event list"),
}


def is_ours(name: str) -> bool:
    """Return whether a file of the output folder is one that the stage writes."""
    return name in FILES


def run_rows(
    chosen: Chosen, datasets: Sequence[Any], counts: Sequence[RunCounts]
) -> list[dict[str, Any]]:
    """Return the rows of the table of runs, see `RUN_COLUMNS`."""
    rows = []
    for head, observation, dataset, found in zip(
        chosen.heads, chosen.observations, datasets, counts, strict=True
    ):
        pointing = observation.get_pointing_icrs(observation.tmid)
        edges = dataset.counts.geom.axes["energy"].edges.to_value("TeV")
        safe = np.flatnonzero(np.ravel(dataset.mask_safe.data))
        geom = dataset.counts_off.geom
        region = getattr(geom, "region", None)
        values = (
            head.obs_id,
            observation.tstart.utc.isot[:19],
            head.zenith_deg,
            float(pointing.separation(chosen.target.position).deg),
            found.livetime_s,
            float(edges[safe[0]]),
            float(edges[safe[-1] + 1]),
            found.n_on,
            found.n_off,
            _n_regions(region),
            found.alpha,
            found.excess,
            found.significance,
            head.event_class,
        )
        rows.append(dict(zip(RUN_COLUMNS, values, strict=True)))
    return rows


def _n_regions(region: Any) -> int:
    from gammapy.utils.regions import compound_region_to_regions

    return 0 if region is None else len(compound_region_to_regions(region))


def _table(columns: Mapping[str, tuple[str, str]], rows: Sequence[Sequence[Any]]) -> Any:
    from astropy.table import Table

    table = Table(rows=[tuple(row) for row in rows], names=list(columns))
    for name, (unit, text) in columns.items():
        table[name].unit = unit or None
        table[name].description = text
    return table


def _plain(table: Any, meta: Mapping[str, Any], path: Path) -> None:
    """Write a table as ECSV with the meta data that it needs, not those of headers."""
    from astropy.table import Table

    bare = Table(table, copy=True)
    bare.meta = dict(meta)
    bare.write(path, format="ascii.ecsv")


def write_products(
    folder: Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    datasets: Sequence[Any],
    stacked: Any,
    fit: SpectrumFit,
    points: Any,
    curve: LightCurve | None,
    angles: Theta2 | None,
    maps: SkyMaps | None,
    meta: Mapping[str, Any],
) -> None:
    """Write everything that there is into the folder.

    Parameters
    ----------
    rows
        Of the table of runs.
    meta
        Of the tables: target, creator, and how data were simulated.
    """
    meta = {name: value for name, value in meta.items() if value}
    runs = _table(RUN_COLUMNS, [list(row.values()) for row in rows])
    _plain(runs, meta, folder / "runs.ecsv")
    _write_spectrum(folder, fit, meta)
    points.write(folder / "flux_points.fits", sed_type="dnde", format="gadf-sed")
    table = points.to_table(sed_type="dnde", format="gadf-sed")
    _plain(table, meta | {"SED_TYPE": "dnde"}, folder / "flux_points.ecsv")
    if curve is not None:
        curve.points.write(folder / "light_curve.fits", sed_type="flux", format="lightcurve")
        table = curve.points.to_table(sed_type="flux", format="lightcurve")
        _plain(_scalar_columns(table), meta | _times(table), folder / "light_curve.ecsv")
    if angles is not None:
        _write_theta2(folder / "theta2.ecsv", angles, meta)
    if maps is not None:
        _write_maps(folder / "maps.fits", maps)
    _write_datasets(folder / "datasets", datasets, stacked, maps)


def _times(table: Any) -> dict[str, Any]:
    """Return what the times of a light curve count from."""
    return {
        name: table.meta[name]
        for name in ("MJDREFI", "MJDREFF", "TIMEUNIT", "TIMESYS", "TIMEREF", "TIMEFORMAT")
        if name in table.meta
    } or {"time": "MJD, TT"}


def _scalar_columns(table: Any) -> Any:
    """Return the table with columns of one energy as plain columns."""
    for name in table.colnames:
        if table[name].ndim == 2 and table[name].shape[1] == 1:
            table.replace_column(name, table[name][:, 0])
    return table


def _write_spectrum(folder: Path, fit: SpectrumFit, meta: Mapping[str, Any]) -> None:
    from gammapy.modeling.models import Models

    Models([fit.model]).write(folder / "spectrum.yaml", write_covariance=True)
    columns = {
        "parameter": ("", "Name in the model"),
        "value": ("", "In the unit of its row"),
        "error": ("", "One sigma, 0 where it was not fitted"),
        "unit": ("", "Of value and error"),
        "fitted": ("", "Whether it was free"),
    }
    table = _table(columns, [(e.name, e.value, e.error, e.unit, e.fitted) for e in fit.parameters])
    low, high = fit.energy_range_tev
    words = {
        "model": fit.form,
        "energy_min_tev": low,
        "energy_max_tev": high,
        "statistic": "wstat",
        "value_at_minimum": fit.statistic,
        "degrees_of_freedom": fit.degrees_of_freedom,
        "converged": fit.converged,
        "message": fit.message,
        "only_amplitude_fitted": fit.faint,
    }
    if fit.amplitude_limit is not None:
        words["amplitude_upper_limit"] = fit.amplitude_limit
    if fit.improvement is not None:
        words["improvement_over_power_law"] = fit.improvement
    table.meta = {**meta, **words}
    table.write(folder / "spectrum.ecsv", format="ascii.ecsv")


def _write_theta2(path: Path, found: Theta2, meta: Mapping[str, Any]) -> None:
    columns = {
        "theta2_min": ("deg2", "Squared angle, from"),
        "theta2_max": ("deg2", "Squared angle, to"),
        "on": ("", "Events about the target"),
        "off": ("", "Events about the off positions"),
        "alpha": ("", "background / off; NaN without off events"),
        "background": ("", "Events expected in on; NaN where no off position says"),
        "background_error": ("", "One sigma"),
        "excess": ("", "on - background"),
    }
    parts = (
        found.edges[:-1],
        found.edges[1:],
        found.on,
        found.off,
        found.alpha,
        found.background,
        found.error,
        found.on - found.background,
    )
    table = _table(columns, list(zip(*parts, strict=True)))
    total = found.total
    _plain(
        table,
        {
            **meta,
            "cut_deg2": float(found.cut_deg2),
            "n_on": total.n_on,
            "n_off": total.n_off,
            "alpha": total.alpha,
            "excess": total.excess,
            "significance": total.significance,
        },
        path,
    )


def _write_maps(path: Path, maps: SkyMaps) -> None:
    """Write the maps as images, one HDU each."""
    from astropy.io import fits

    hdus: list[Any] = [fits.PrimaryHDU()]
    for name, layer in maps.layers.items():
        header = layer.geom.to_image().wcs.to_header()
        image = fits.ImageHDU(layer.data[0].astype(np.float32), header, name=name.upper())
        image.header["BUNIT"] = ("sigma" if name == "significance" else "count", "unit of pixels")
        hdus.append(image)
    fits.HDUList(hdus).writeto(path)


def _write_datasets(
    folder: Path, datasets: Sequence[Any], stacked: Any, maps: SkyMaps | None
) -> None:
    """Write spectra with their responses (OGIP), one per run and all together, and the cube."""
    folder.mkdir()
    for dataset in datasets:
        dataset.write(folder / f"pha_obs{dataset.name}.fits", format="ogip")
    stacked.write(folder / STACKED, format="ogip")
    if maps is not None:
        maps.cube.write(folder / CUBE)


def stamp(paths: Iterable[Path], record: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Give FITS files the keywords of the step that made them, and how data were simulated."""
    from astropy.io import fits

    cards = step_cards(record)
    for path in paths:
        with fits.open(path, mode="update") as file:
            header = file[0].header
            header["CREATOR"] = (f"astri_gpu {record['version']}", "software")
            for name, card in cards.items():
                header[name] = card
            for note in notes:
                header.add_comment(note.encode("ascii", "replace").decode())
