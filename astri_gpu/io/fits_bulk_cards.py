"""Cards of FITS headers, and columns of binary tables as bytes; see `fits_bulk`."""

import math
import textwrap
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "BLOCK",
    "CARD",
    "BulkColumn",
    "Keywords",
    "header_bytes",
    "header_values",
    "table_cards",
]

Keywords = Mapping[str, tuple[Any, str]]
BLOCK = 2880
CARD = 80
LETTERS = {
    "u1": "B",
    "i1": "B",
    "i2": "I",
    "u2": "I",
    "i4": "J",
    "u4": "J",
    "i8": "K",
    "u8": "K",
    "f4": "E",
    "f8": "D",
    "bits": "X",
}
"""TFORM of the types of columns; FITS has no unsigned ones beyond a byte, and TZERO moves them."""
ZEROS = {"i1": -(2**7), "u2": 2**15, "u4": 2**31, "u8": 2**63}
LISTS = ("HISTORY", "COMMENT")


@dataclass(frozen=True)
class BulkColumn:
    """A column of a table that is written in bulk."""

    name: str
    """TTYPE."""
    code: str
    """u1, i1, u2, i2, u4, i4, u8, i8, f4, f8, or bits."""
    shape: tuple[int, ...] = ()
    """Of one entry; the number of bits for bits."""
    unit: str | None = None
    description: str = ""
    source: str | None = None
    """Field of the rows that are appended; None = the name."""
    low_bits: int | None = None
    """Only so many of the lowest bits are kept; None = all. For integers."""

    @property
    def field(self) -> str:
        """Return the field of the rows that are appended."""
        return self.name if self.source is None else self.source

    @property
    def count(self) -> int:
        """Return the numbers (or bits) of an entry."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Return the bytes of an entry as the rows must have them: big-endian, bits packed."""
        if self.code == "bits":
            return np.dtype(("u1", (-(-self.count // 8),)))
        return np.dtype((f">{self.code}", self.shape))


def table_cards(name: str, columns: Iterable[BulkColumn], extra: Keywords) -> Keywords:
    """Return the cards of a binary table without rows: NAXIS2, the fifth, is 0."""
    columns = tuple(columns)
    width = sum(column.dtype.itemsize for column in columns)
    cards: dict[str, tuple[Any, str]] = {
        "XTENSION": ("BINTABLE", "binary table"),
        "BITPIX": (8, "bytes"),
        "NAXIS": (2, "a table"),
        "NAXIS1": (width, "bytes of a row"),
        "NAXIS2": (0, "rows"),
        "PCOUNT": (0, "nothing behind the rows"),
        "GCOUNT": (1, "one table"),
        "TFIELDS": (len(columns), "columns"),
    }
    for number, column in enumerate(columns, 1):
        cards[f"TTYPE{number}"] = (column.name, column.description)
        cards[f"TFORM{number}"] = (f"{column.count}{LETTERS[column.code]}", "")
        if len(column.shape) > 1 and column.code != "bits":
            sizes = ",".join(map(str, reversed(column.shape)))
            cards[f"TDIM{number}"] = (f"({sizes})", "")
        if column.code in ZEROS:
            cards[f"TSCAL{number}"] = (1, "")
            cards[f"TZERO{number}"] = (ZEROS[column.code], "")
        if column.unit:
            cards[f"TUNIT{number}"] = (column.unit, "")
    cards["EXTNAME"] = (name, "name of the table")
    return cards | dict(extra)


def header_bytes(cards: Keywords) -> bytes:
    """Return a header, filled up to whole blocks.

    Parameters
    ----------
    cards
        name -> (value, comment). Values that are None or not finite are left out; comments that do
        not fit are cut behind a word; long texts go over several cards (CONTINUE). The value of
        HISTORY and COMMENT is a text or several.
    """
    from astropy.io import fits

    header = fits.Header()
    for name, (value, comment) in cards.items():
        if isinstance(value, np.generic):
            value = value.item()
        if name in LISTS:
            add = header.add_history if name == "HISTORY" else header.add_comment
            for line in [value] if isinstance(value, str) else value or ():
                add(_plain(line))
        elif value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        else:
            value = _plain(value) if isinstance(value, str) else value
            room = _room(value)
            comment = textwrap.shorten(_plain(comment), room, placeholder="") if room else ""
            header.append((name, value, comment), end=True)
    return header.tostring(sep="", endcard=True, padding=True).encode("ascii")


def header_values(block: bytes) -> dict[str, Any]:
    """Return the values of a header, as far as they can be read; HISTORY and COMMENT as lists."""
    from astropy.io import fits

    values: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = fits.Header.fromstring(block.decode("ascii", "replace"))
        for card in header.cards:
            try:
                name, value = card.keyword, card.value
            except Exception:  # whatever astropy says of a card that is none, it has no value
                continue
            if name in LISTS:
                values.setdefault(name, []).append(str(value))
            elif not isinstance(value, fits.card.Undefined):
                values.setdefault(name, value)
    return values


def _plain(text: str) -> str:
    """Return a text as a card takes it: printable ASCII."""
    plain = str(text).encode("ascii", "replace").decode()
    return "".join(letter if letter.isprintable() else " " for letter in plain)


def _room(value: Any) -> int:
    """Return the letters that a card has for its comment."""
    length = len(value.replace("'", "''")) + 2 if isinstance(value, str) else 20
    return max(0, CARD - 10 - max(20, length) - 3)
