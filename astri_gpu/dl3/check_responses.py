"""Check of instrument response functions: axes, shapes, values and normalisation."""

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3.check_formats import AXIS_UNITS, ENCLOSURES, RESPONSES, Keyword, Response
from astri_gpu.dl3.check_header import (
    check_chain,
    check_keywords,
    check_unit,
    column_names,
    number,
    read_column,
    rows,
)
from astri_gpu.dl3.check_rules import Notes

__all__ = ["check_response", "check_response_set"]

Floats = NDArray[np.float64]
Axis = tuple[Floats, Floats]  # lower and upper edges

NORM = 0.05  # by which an integral may differ from one
GAP = 1e-3  # between bins, of their width
SIGNED = ("AMPL_2", "AMPL_3")  # a narrow part may be taken away from a wide one


def check_response(notes: Notes, kind: str, table: Any) -> None:
    """Note what is wrong in a response.

    Parameters
    ----------
    notes
        Of the table.
    kind
        A key of `RESPONSES`.
    table
        HDU of astropy.
    """
    response = RESPONSES[kind]
    header = table.header
    enclosure = str(header.get("HDUCLAS3", "")).strip().upper()
    if enclosure and enclosure not in ENCLOSURES:
        notes(
            "hduclas-value",
            "HDUCLAS3",
            f"HDUCLAS3 is '{enclosure}': it has to be one of {', '.join(ENCLOSURES)}.",
        )
    third = enclosure if enclosure in ENCLOSURES else ENCLOSURES[0]
    if enclosure and enclosure not in ENCLOSURES:
        header = header.copy()
        header["HDUCLAS3"] = third
    check_chain(notes, header, ("RESPONSE", response.clas2, third, kind))
    if kind == "BKG_3D":
        check_keywords(
            notes, header, (Keyword("FOVALIGN", "text", ("ALTAZ", "RADEC"), mandatory=False),)
        )
    low, high = number(header, "LO_THRES"), number(header, "HI_THRES")
    if low is not None and high is not None and not low < high:
        notes("thresholds", "LO_THRES", f"LO_THRES is {low:g} TeV and HI_THRES {high:g} TeV.")
    n_rows = len(table.data)
    if n_rows != 1:
        notes("row-count", "", f"The table has {n_rows} rows: a response has one.")
        if not n_rows:
            return
    axes = {name: _check_axis(notes, name, table) for name in response.axes}
    values = _check_values(notes, table, response, axes)
    complete = {name: axis for name, axis in axes.items() if axis is not None}
    if len(values) == len(response.values) and len(complete) == len(axes):
        _check_norm(notes, kind, complete, values)


def _edges(notes: Notes, name: str, unit: str, table: Any) -> Floats | None:
    names = column_names(table)
    if name not in names:
        notes("column-missing", name, f"The column {name} is missing: it is an axis.")
        return None
    if not check_unit(notes, name, table.columns[names[name]].unit, unit):
        return None
    values = _numbers(notes, name, unit, table)
    return None if values is None else values.reshape(-1)


def _numbers(notes: Notes, name: str, unit: str, table: Any) -> Floats | None:
    """Return the first row of a column of numbers, None where it has others."""
    found = table.columns[column_names(table)[name]]
    form = str(found.format)
    if form.lstrip("0123456789")[:1] not in "BIJKED":
        notes("column-type", name, f"The column {name} has the format '{form}', not numbers.")
        return None
    return np.asarray(read_column(table, name, unit)[0], dtype=np.float64)


def _check_axis(notes: Notes, name: str, table: Any) -> Axis | None:
    unit = AXIS_UNITS[name]
    low = _edges(notes, f"{name}_LO", unit, table)
    high = _edges(notes, f"{name}_HI", unit, table)
    if low is None or high is None:
        return None
    if len(low) != len(high) or not len(low):
        notes(
            "column-shape",
            f"{name}_LO",
            f"{name}_LO has {len(low)} values and {name}_HI {len(high)}: as many as bins, please.",
        )
        return None
    least = 0.0 if name in ("ENERG", "THETA", "MIGRA", "RAD") else -math.inf
    good = True
    for column, values in ((f"{name}_LO", low), (f"{name}_HI", high)):
        bad = ~np.isfinite(values) | (values < least)
        if name == "ENERG" and column == "ENERG_HI":
            bad |= values <= 0
        if bad.any():
            good = False
            notes("axis-value", column, f"{column} cannot be in bins {rows(bad, values)}.")
    if not good:
        return None
    bad = low > high
    # A single angle is written as a bin without width, by some; for energies it has no meaning.
    bad |= (low == high) & (name != "THETA")
    if bad.any():
        good = False
        notes("axis-bounds", f"{name}_LO", f"{name}_LO is not below {name}_HI in {rows(bad, low)}.")
    bad = np.concatenate([[False], low[1:] <= low[:-1]])
    if bad.any():
        good = False
        notes("axis-rising", f"{name}_LO", f"{name}_LO does not rise in {rows(bad, low)}.")
    elif (low < high).all():
        bad = np.concatenate([[False], abs(low[1:] - high[:-1]) > GAP * (high - low)[1:]])
        if bad.any():
            notes("axis-gap", f"{name}_LO", f"Bins of {name} do not adjoin in {rows(bad, low)}.")
    return (low, high) if good else None


def _check_values(
    notes: Notes, table: Any, response: Response, axes: dict[str, Axis | None]
) -> dict[str, Floats]:
    """Return the columns of values with axes in the recommended order, noting what is wrong."""
    names = column_names(table)
    values: dict[str, Floats] = {}
    for name, unit in response.values.items():
        column = name
        if name == "BKG" and "BKG" not in names and "BGD" in names:
            notes(
                "column-missing", name, "The column BKG is missing; BGD is the name of old files."
            )
            column = "BGD"
        elif name not in names:
            notes("column-missing", name, f"The column {name} is missing: it is mandatory.")
            continue
        usable = check_unit(notes, column, table.columns[names[column]].unit, unit)
        found = _numbers(notes, column, unit if usable else "", table)
        if found is None:
            continue
        arranged = _arranged(notes, column, found, table, response, axes)
        flat = found.reshape(-1)
        bad = ~np.isfinite(flat)
        if bad.any():
            notes(
                "value-nan",
                column,
                f"{column} is no finite number in {int(bad.sum())} of {len(flat)} cells.",
            )
        bad = flat < 0
        if bad.any() and name not in SIGNED:
            notes(
                "value-negative",
                column,
                f"{column} is negative in {int(bad.sum())} of {len(flat)} cells, down to "
                f"{np.nanmin(flat):g}.",
            )
        if arranged is not None:
            values[name] = arranged
    return values


def _arranged(
    notes: Notes,
    column: str,
    found: Floats,
    table: Any,
    response: Response,
    axes: dict[str, Axis | None],
) -> Floats | None:
    """Return values as (axes...) in the recommended order; None if shapes do not fit."""
    lengths = []
    for name in response.axes:
        axis = axes[name]
        if axis is None:
            return None
        lengths.append(len(axis[0]))
    if found.ndim == 1 and found.size == math.prod(lengths):
        # Without TDIM: two-dimensional tables of some writers.
        found = found.reshape(lengths[::-1])
        notes("column-shape", column, f"The column {column} has no TDIM: {lengths} is meant.")
    shape = found.shape[::-1]  # as in TDIM, the fastest first
    if shape == tuple(lengths):
        return found.transpose()
    for order in permutations(range(len(lengths))):
        if shape == tuple(lengths[place] for place in order):
            notes(
                "axis-order",
                column,
                f"The axes of {column} are {', '.join(response.axes[place] for place in order)}: "
                f"{', '.join(response.axes)} is recommended.",
            )
            return found.transpose().transpose([order.index(i) for i in range(len(order))])
    notes(
        "column-shape",
        column,
        f"{column} has the shape {list(shape)}, but its axes ({', '.join(response.axes)}) have "
        f"{lengths} bins.",
    )
    return None


def _check_norm(notes: Notes, kind: str, axes: dict[str, Axis], values: dict[str, Floats]) -> None:
    """Note integrals that are not one; cells without any content may stay empty."""
    if kind == "EDISP_2D":
        low, high = axes["MIGRA"]
        integral = (values["MATRIX"] * (high - low)[None, :, None]).sum(axis=1)
        _note_norm(notes, "edisp-norm", "MATRIX", "over MIGRA", integral)
    elif kind == "PSF_TABLE":
        low, high = (np.deg2rad(edge) for edge in axes["RAD"])
        rings = 2 * np.pi * (np.cos(low) - np.cos(high))
        _note_norm(notes, "psf-norm", "RPSF", "over the sphere", values["RPSF"] @ rings)
    elif kind == "PSF_3GAUSS":
        total = np.deg2rad(values["SIGMA_1"]) ** 2
        for place in (2, 3):
            part = values[f"AMPL_{place}"] * np.deg2rad(values[f"SIGMA_{place}"]) ** 2
            total = total + np.nan_to_num(part)
        integral = 2 * values["SCALE"] * total
        _note_norm(notes, "psf-norm", "SCALE", "over the sphere", integral)
    elif kind == "PSF_KING":
        bad = (values["GAMMA"] <= 1) & (values["SIGMA"] > 0)
        if bad.any():
            notes(
                "psf-norm",
                "GAMMA",
                f"GAMMA is not above 1, where the profile has no integral, in {int(bad.sum())} of "
                f"{bad.size} cells.",
            )


def _note_norm(notes: Notes, rule: str, column: str, where: str, integral: Floats) -> None:
    filled = np.isfinite(integral) & (integral != 0)
    bad = filled & (abs(integral - 1) > NORM)
    if bad.any():
        worst = integral[bad][np.argmax(abs(integral[bad] - 1))]
        notes(
            rule,
            column,
            f"The integral of {column} {where} is not 1 (to {NORM:g}) in {int(bad.sum())} of "
            f"{int(filled.sum())} cells, in the worst {worst:.3g}.",
        )


def check_response_set(responses: Sequence[tuple[Notes, str, Any]]) -> None:
    """Note responses of one file that do not go together.

    Parameters
    ----------
    responses
        Notes, kind and HDU of each.
    """
    kinds = {kind for _, kind, _ in responses}
    enclosures = {
        str(table.header.get("HDUCLAS3", "")).strip().upper(): notes
        for notes, kind, table in responses
        if kind != "RAD_MAX_2D"
    }
    if len({*ENCLOSURES} & enclosures.keys()) > 1:
        enclosures["POINT-LIKE"](
            "enclosure-mixed", "HDUCLAS3", "Other responses of the file are FULL-ENCLOSURE."
        )
    for notes, kind, table in responses:
        point_like = str(table.header.get("HDUCLAS3", "")).strip().upper() == "POINT-LIKE"
        given = "RAD_MAX_2D" in kinds or number(table.header, "RAD_MAX") is not None
        if kind == "AEFF_2D" and point_like and not given:
            notes(
                "rad-max-missing",
                "RAD_MAX",
                "The effective area is POINT-LIKE, but the file has neither a table RAD_MAX_2D "
                "nor the keyword RAD_MAX.",
            )
