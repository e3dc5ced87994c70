"""Check of headers and columns of one table against the tables of the format."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3.check_formats import BITS, NUMBER, TEXT, VERSION, WHOLE, Column, Keyword
from astri_gpu.dl3.check_rules import Notes

__all__ = [
    "check_chain",
    "check_columns",
    "check_keywords",
    "check_unit",
    "column_names",
    "number",
    "read_column",
    "rows",
]

SHOWN = 3  # rows in a sentence
LETTERS = {NUMBER: "ED", WHOLE: "BIJK", TEXT: "A", BITS: "XL"}
NUMBERS = "BIJKED"


def number(header: Any, name: str) -> float | None:
    """Return a keyword as a finite number, None if it is none."""
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def rows(bad: NDArray[np.bool_], values: NDArray[Any] | None = None) -> str:
    """Return how many rows are bad and the first ones, counted from 1, in words."""
    places = np.flatnonzero(bad)
    shown = [
        f"row {place + 1}" + ("" if values is None else f" ({values[place]})")
        for place in places[:SHOWN]
    ]
    more = ", ..." if len(places) > SHOWN else ""
    return f"{len(places)} of {len(bad)}: {', '.join(shown)}{more}"


def check_chain(notes: Notes, header: Any, chain: tuple[str, ...]) -> None:
    """Note what is missing or wrong in HDUCLASS, HDUDOC, HDUVERS and HDUCLAS1 and so on."""
    wanted = {"HDUCLASS": "GADF"}
    wanted |= {f"HDUCLAS{place}": value for place, value in enumerate(chain, start=1)}
    for key, value in wanted.items():
        found = header.get(key)
        if found is None or found == "":
            notes("hduclas-missing", key, f"{key} is missing: it has to be '{value}'.")
        elif str(found).strip().upper() == value:
            continue
        elif value == "RPSF" and str(found).strip().upper() == "PSF":
            notes("hduclas2-psf", key, f"{key} is '{found}': the class table says 'RPSF'.")
        else:
            notes("hduclas-value", key, f"{key} is '{found}': it has to be '{value}'.")
    check_keywords(notes, header, (Keyword("HDUDOC", TEXT), Keyword("HDUVERS", TEXT)))
    version = header.get("HDUVERS")
    if isinstance(version, str) and version.strip() != VERSION:
        notes("hduvers", "HDUVERS", f"HDUVERS is '{version}': this check is for {VERSION}.")


def check_keywords(notes: Notes, header: Any, keywords: Iterable[Keyword]) -> None:
    """Note keywords that are missing, of another type, or have a value that cannot be."""
    for keyword in keywords:
        name = keyword.name
        value = header.get(name)
        if value is None or type(value).__name__ == "Undefined":
            if keyword.mandatory:
                notes("keyword-missing", name, f"{name} is missing: it is a mandatory keyword.")
            continue
        kind = keyword.kind
        # A number without a decimal point is a floating-point number too (FITS 4.0, 4.2.4).
        right = {
            NUMBER: isinstance(value, int | float) and not isinstance(value, bool),
            WHOLE: isinstance(value, int) and not isinstance(value, bool),
            TEXT: isinstance(value, str),
        }[kind]
        if not right:
            notes("keyword-type", name, f"{name} is {value!r}: it has to be a {kind}.")
        elif isinstance(value, str):
            if not value.strip() and keyword.mandatory:
                notes("keyword-value", name, f"{name} is empty.")
            elif keyword.values and value.strip().upper() not in keyword.values:
                allowed = ", ".join(keyword.values)
                notes("keyword-value", name, f"{name} is '{value}': it has to be one of {allowed}.")
        else:
            low = -math.inf if keyword.low is None else keyword.low
            high = math.inf if keyword.high is None else keyword.high
            if not low <= value <= high or not math.isfinite(value):
                span = f"{low:g} to {high:g}"
                notes("keyword-value", name, f"{name} is {value:.10g}: it has to be {span}.")


def column_names(table: Any) -> dict[str, str]:
    """Return the columns of a table: name in large letters to the name that it has."""
    return {str(name).upper(): name for name in table.columns.names}


def check_columns(notes: Notes, table: Any, columns: Iterable[Column]) -> set[str]:
    """Note columns that are missing or of another type or unit; return those that can be used."""
    names = column_names(table)
    usable = set()
    for column in columns:
        if column.name not in names:
            if column.mandatory:
                notes(
                    "column-missing",
                    column.name,
                    f"The column {column.name} is missing: it is mandatory.",
                )
            continue
        found = table.columns[names[column.name]]
        if not _check_type(notes, column, str(found.format)):
            continue
        if column.kind in (TEXT, BITS) or check_unit(notes, column.name, found.unit, column.unit):
            usable.add(column.name)
    return usable


def _check_type(notes: Notes, column: Column, form: str) -> bool:
    """Note another type than that of the format; return whether the column can be used."""
    length, letter = form[:-1] if form[-1:].isalpha() else "?", form[-1:]
    if column.kind == TEXT:
        length, letter = "1", form.lstrip("0123456789")[:1]
    if column.kind == BITS:
        length = "1"
    name = column.name
    if letter not in LETTERS[column.kind] or length not in ("", "1"):
        notes(
            "column-type",
            name,
            f"The column {name} has the format '{form}': it has to be one {column.kind} per row.",
        )
        return letter in NUMBERS and length in ("", "1") and column.kind in (NUMBER, WHOLE)
    if column.wide and column.kind == NUMBER and letter != "D":
        notes(
            "column-type",
            name,
            f"The column {name} has 32 bits ('{form}'), which is seconds too coarse: it has to "
            "have 64 ('D').",
        )
    elif column.wide and column.kind == WHOLE and letter != "K":
        notes("column-width", name, f"The column {name} has the format '{form}', not 'K'.")
    return True


def check_unit(notes: Notes, name: str, unit: str | None, wanted: str) -> bool:
    """Note a unit that is missing, cannot be converted, or is spelt otherwise.

    Returns
    -------
    bool
        Whether values can be converted to the unit that is wanted.
    """
    from astropy import units

    target = units.Unit(wanted, format="fits") if wanted else units.dimensionless_unscaled
    text = (unit or "").strip()
    if not text:
        if wanted:
            notes("column-unit", name, f"The column {name} has no unit: it has to be {wanted}.")
        return not wanted
    parsed = _parse_unit(text)
    if parsed is None:
        notes("column-unit", name, f"The column {name} has the unit '{text}', which is unknown.")
        return False
    found, standard = parsed
    if not standard:
        notes(
            "unit-spelling",
            name,
            f"The column {name} has the unit '{text}', which the FITS standard spells otherwise.",
        )
    if not found.is_equivalent(target):
        notes(
            "column-unit",
            name,
            f"The column {name} has the unit '{text}', which cannot be converted to "
            f"{wanted or 'a pure number'}.",
        )
        return False
    if not math.isclose(found.to(target), 1.0, rel_tol=1e-9):
        notes("column-unit-other", name, f"The column {name} is in '{text}', not in {wanted}.")
    return True


def _parse_unit(text: str) -> tuple[Any, bool] | None:
    """Return the unit and whether it is spelt as the FITS standard says; None if unknown."""
    from astropy import units

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return units.Unit(text, format="fits"), True
        except (ValueError, TypeError, Warning):
            pass
        warnings.simplefilter("ignore")
        try:
            return units.Unit(text), False
        except (ValueError, TypeError):
            return None


def read_column(table: Any, name: str, unit: str = "") -> NDArray[np.float64]:
    """Return a column of numbers in `unit`, float64; the unit has passed `check_unit`."""
    from astropy import units

    names = column_names(table)
    values = np.asarray(table.data[names[name]], dtype=np.float64)
    text = (table.columns[names[name]].unit or "").strip()
    parsed = _parse_unit(text) if unit and text else None
    if parsed is None:
        return values
    return values * parsed[0].to(units.Unit(unit, format="fits"))
