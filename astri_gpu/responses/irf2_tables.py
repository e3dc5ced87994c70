"""Tables of an IRF2 file: the responses against zenith and azimuth as A-SciSoft lays them out.

A-SciSoft's axes are 100 bins of cos(zenith) from 0 to 1 and 36 bins of the azimuth (Donnarumma &
Lombardi, DL3 meeting Paris 2016). Over all of them the energy dispersion alone would have 1.6e9
cells, so the axes ZD and AZ of our tables hold only those bins that a simulated pointing falls
into; a table is the product of both, and combinations that were not simulated are 0.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_response import BinningConfig
from astri_gpu.errors import AstriError
from astri_gpu.responses.counts import Counts
from astri_gpu.responses.irf import Irf
from astri_gpu.responses.normalise import effective_area_reco, to_irf
from astri_gpu.responses.regroup import regroup
from astri_gpu.selection.cut_file import BINS
from astri_gpu.selection.cuts import Cuts
from astri_gpu.store_disk import json_ready

__all__ = ["SUMS", "Column", "Table", "class_cuts", "responses", "sums_columns"]

Floats = NDArray[np.float64]
Grid = tuple[list[int], list[int]]

COSINE_BINS = 100
AZIMUTH_BINS = 36
RATE_UNIT = "1/(s MeV sr)"

SUMS = {
    "thrown": ("THROWN", "gammas thrown (ENERG, THETA)"),
    "selected": ("SELECTED", "gammas selected (ENERG, THETA)"),
    "selected_reco": ("SEL_RECO", "the same by reconstructed energy"),
    "migration": ("MIGRATED", "gammas selected (ENERG, MIGRA, THETA)"),
    "radial": ("RADIAL", "gammas selected (ENERG, RAD, THETA)"),
    "ring_rate": ("RINGRATE", "[1/s] background (ENERG, THETA)"),
    "ring_variance": ("RINGVAR", "[1/s2] sum of squared weights"),
    "ring_events": ("RINGN", "simulated background events"),
    "field_rate": ("FIELRATE", "[1/s] background (ENERG, DETX, DETY)"),
    "field_variance": ("FIELVAR", "[1/s2] sum of squared weights"),
    "rad_max": ("RAD_MAX", "[deg] theta cut (ENERG, THETA)"),
}
"""Attribute of `Counts`: column, meaning; dimensions are named from the slowest."""


class Column(NamedTuple):
    """One cell of a table; `values` has the axes of the table in their order."""

    name: str
    unit: str
    values: NDArray[Any]


class Table(NamedTuple):
    """A table with one row: EXTNAME, kind, axes (name, unit, lower and upper ends), cells."""

    name: str
    kind: str
    axes: tuple[tuple[str, str, Floats, Floats], ...]
    columns: tuple[Column, ...]


def class_cuts(cuts: Cuts) -> Table:
    """Return the cuts of the class. A-SciSoft's 10 columns are not published: these are ours."""
    energy = _axis("ENERG", "TeV", cuts.energy_edges)
    columns = [
        Column(name, unit, getattr(cuts, attribute))
        for attribute, (name, _, unit, _) in BINS.items()
    ]
    n_events = cuts.curve.get("n_signal_events", np.zeros(len(cuts.flags)))
    columns.append(Column("N_SIGSIM", "", n_events))
    return Table("CLASS CUTS", "CUTS", (energy,), tuple(columns))


def responses(counts: Sequence[Counts], binning: BinningConfig) -> Iterator[Table]:
    """Yield the four responses in A-SciSoft's order, then ours with statistical errors.

    The point spread function is fitted in the coarse bins, as one fine bin has few events, and the
    same within each of them.
    """
    irfs = [to_irf(item) for item in counts]
    grid = _grid(counts)
    edges = counts[0].edges
    energy = _axis("ENERG", "TeV", edges.true_energy)
    reco = _axis("ENERG", "TeV", edges.reco_energy)
    theta = _axis("THETA", "deg", edges.offset)
    migra = _axis("MIGRA", "", edges.migra)
    sides = tuple(_axis(name, "deg", edges.detector) for name in ("DETX", "DETY"))
    zenith, azimuth = _pointing_axes(grid)
    sky = (energy, zenith, azimuth, theta)

    def spread(values: Sequence[Floats], first: int = 1) -> NDArray[np.float32]:
        return _spread(values, counts, grid, first)

    yield Table(
        "EFFECTIVE AREA",
        "AEFF_4D",
        sky,
        (
            Column("EFFAREA", "m2", spread([irf.effective_area for irf in irfs])),
            Column("EFFAREA_RECO", "m2", spread([effective_area_reco(item) for item in counts])),
        ),
    )
    shapes = [_psf_columns(item, binning) for item in counts]
    yield Table(
        "POINT SPREAD FUNCTION",
        "PSF_4D_3GAUSS",
        sky,
        tuple(
            Column(name, unit, spread([shape[name] for shape in shapes]))
            for name, unit in PSF_UNITS.items()
        ),
    )
    # Their axes are energy, migra, offset; in the table migra comes last.
    yield Table(
        "ENERGY DISPERSION",
        "EDISP_4D",
        (*sky, migra),
        (Column("MATRIX", "", spread([np.swapaxes(i.energy_dispersion, 1, 2) for i in irfs])),),
    )
    field = (*sides, reco, zenith, azimuth)
    yield Table(
        "BACKGROUND",
        "BKG_5D",
        field,
        (Column("BGD", RATE_UNIT, spread([_energy_last(irf.background_3d) for irf in irfs], 3)),),
    )
    yield from _errors(irfs, spread, sky, (reco, *sky[1:]), migra, field)


def _errors(
    irfs: Sequence[Irf], spread: Any, sky: Any, sky_reco: Any, migra: Any, field: Any
) -> Iterator[Table]:
    """Yield our tables: the background by offset, and statistical errors."""
    yield Table(
        "BACKGROUND RING",
        "BKG_4D",
        sky_reco,
        (
            Column("BGD", RATE_UNIT, spread([irf.background_2d for irf in irfs])),
            Column("BGD_ERR", RATE_UNIT, spread([irf.background_2d_error for irf in irfs])),
        ),
    )
    area = spread([irf.effective_area_error for irf in irfs])
    yield Table("EFFECTIVE AREA ERROR", "ERROR", sky, (Column("EFFAREA_ERR", "m2", area),))
    matrix = spread([np.swapaxes(irf.energy_dispersion_error, 1, 2) for irf in irfs])
    yield Table(
        "ENERGY DISPERSION ERROR", "ERROR", (*sky, migra), (Column("MATRIX_ERR", "", matrix),)
    )
    rate = spread([_energy_last(irf.background_3d_error) for irf in irfs], 3)
    yield Table("BACKGROUND ERROR", "ERROR", field, (Column("BGD_ERR", RATE_UNIT, rate),))


def sums_columns(counts: Sequence[Counts], header: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Return name, meaning and values (pointing, ...) of the table of sums.

    Parameters
    ----------
    counts
        One per pointing.
    header
        What goes along as JSON with every row, besides the origin of the counts.
    """
    texts = [json.dumps(json_ready({"counts": item.meta, **header})) for item in counts]
    columns: list[tuple[str, str, Any]] = [
        ("ZD_PNT", "[deg] zenith angle", np.array([item.zenith_deg for item in counts])),
        ("AZ_PNT", "[deg] azimuth angle", np.array([item.azimuth_deg for item in counts])),
        ("AREA", "[m2] that cores were spread over", np.array([item.area_m2 for item in counts])),
    ]
    for attribute, (name, text) in SUMS.items():
        columns.append((name, text, np.stack([getattr(item, attribute) for item in counts])))
    columns.append(("META", "origin, as JSON", np.array([text.encode() for text in texts])))
    return columns


PSF_UNITS = {
    "SCALE": "1/sr",
    "SIGMA_1": "deg",
    "AMPL_2": "",
    "SIGMA_2": "deg",
    "AMPL_3": "",
    "SIGMA_3": "deg",
}


def _psf_columns(counts: Counts, binning: BinningConfig) -> dict[str, Floats]:
    """Return the parameters of the point spread function in fine bins."""
    from astri_gpu.responses.gaussians import fit_psf

    coarse = regroup(counts, binning)
    fit = fit_psf(to_irf(coarse))
    n_true, n_offset = (len(part) - 1 for part in (counts.edges.true_energy, counts.edges.offset))
    # Point-like gammas leave only some coarse bins of the offset.
    theta = (counts.edges.offset[:-1] + counts.edges.offset[1:]) / 2
    place = np.searchsorted(coarse.edges.offset, theta, side="right") - 1
    inside = (place >= 0) & (place < len(coarse.edges.offset) - 1)
    energy = np.arange(n_true) // binning.group_true
    columns = {}
    for name in PSF_UNITS:
        values = np.zeros((n_true, n_offset))
        values[:, inside] = getattr(fit, name.lower())[energy][:, place[inside]]
        columns[name] = values
    return columns


def _axis(name: str, unit: str, edges: Floats) -> tuple[str, str, Floats, Floats]:
    return name, unit, edges[:-1], edges[1:]


def _grid(counts: Sequence[Counts]) -> Grid:
    """Return the bins of zenith and azimuth angle that are needed."""
    cells = [_cell(item) for item in counts]
    for first, cell in enumerate(cells):
        if cell in cells[:first]:
            one, two = counts[cells.index(cell)], counts[first]
            raise AstriError(
                f"The pointings at zenith {one.zenith_deg:.2f} deg, azimuth {one.azimuth_deg:.1f} "
                f"deg and at {two.zenith_deg:.2f} deg, {two.azimuth_deg:.1f} deg are in one bin of "
                "the response (0.01 in the cosine of the zenith angle, 10 deg in azimuth): give "
                "the stores of one of them."
            )
    # Rising zenith angles are falling cosines.
    return sorted({zenith for zenith, _ in cells}, reverse=True), sorted({az for _, az in cells})


def _cell(counts: Counts) -> tuple[int, int]:
    cosine = np.cos(np.deg2rad(counts.zenith_deg))
    zenith = int(np.clip(cosine * COSINE_BINS, 0, COSINE_BINS - 1))
    return zenith, int(counts.azimuth_deg % 360.0 / 360.0 * AZIMUTH_BINS) % AZIMUTH_BINS


def _pointing_axes(grid: Grid) -> tuple[tuple[str, str, Floats, Floats], ...]:
    cosine, azimuth = (np.asarray(part, dtype=np.float64) for part in grid)
    width = 360.0 / AZIMUTH_BINS
    low = np.rad2deg(np.arccos((cosine + 1) / COSINE_BINS))
    high = np.rad2deg(np.arccos(cosine / COSINE_BINS))
    return (
        ("ZD", "deg", low, high),
        ("AZ", "deg", azimuth * width, (azimuth + 1) * width),
    )


def _spread(
    values: Sequence[Floats], counts: Sequence[Counts], grid: Grid, first: int
) -> NDArray[np.float32]:
    """Return arrays of all pointings as one, with the axes ZD and AZ at `first` and after it."""
    shape = values[0].shape
    whole = np.zeros((*shape[:first], len(grid[0]), len(grid[1]), *shape[first:]), np.float32)
    for item, part in zip(counts, values, strict=True):
        zenith, azimuth = _cell(item)
        place = (slice(None),) * first + (grid[0].index(zenith), grid[1].index(azimuth))
        whole[place] = part
    return whole


def _energy_last(values: Floats) -> Floats:
    """Return (energy, x, y) as (x, y, energy)."""
    return np.moveaxis(values, 0, -1)
