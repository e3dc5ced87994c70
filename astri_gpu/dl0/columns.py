"""Columns of DL0 files: the fields of a packet that have a name for FITS, and the sequence count.

The file says the rest of a packet (telescope, run, type, lengths), so packets can be made again.
"""

from collections.abc import Sequence
from typing import NamedTuple

from astri_gpu.errors import AstriError
from astri_gpu.io.fits_bulk import BulkColumn, MappedTable
from astri_gpu.packets.descriptor import PacketType

__all__ = ["SEQUENCE", "TABLES", "check_columns", "dl0_columns", "needed_columns"]

SEQUENCE = "SEQCNT"
"""Column of the sequence count of CCSDS, which has the lowest 14 bits of its field."""
COUNT_BITS = 14
TABLES = {"SCI": "EVENTS", "CAL": "EVENTS", "HK": "HOUSEKEEPING", "VAR": "VARIANCE"}
"""Name of the table in a file of each kind."""


class Needed(NamedTuple):
    """What the stages need to find in a column."""

    kinds: str
    """Letters of `numpy.dtype.kind` that will do."""
    n_axes: int
    """Of an entry."""


WHOLE, NUMBER = "iu", "iuf"
TIMES = {"TIME_S": Needed(WHOLE, 0), "TIME_NS": Needed(WHOLE, 0)}
EVENTS = TIMES | {
    "EVT_CTR": Needed(WHOLE, 0),
    "EVT_TYPE": Needed(WHOLE, 0),
    "ADC": Needed(WHOLE, 2),
}
NEEDED = {
    "SCI": EVENTS,
    "CAL": EVENTS,
    "HK": TIMES
    | {
        "ALT": Needed(NUMBER, 0),
        "AZ": Needed(NUMBER, 0),
        "NTRIG": Needed(WHOLE, 0),
        "NEVENTS": Needed(WHOLE, 0),
        "DEADTIME": Needed(WHOLE, 0),
        "STATUS": Needed(WHOLE, 0),
    },
    "VAR": TIMES | {"NSAMPLES": Needed(WHOLE, 0), "VARIANCE": Needed(NUMBER, 1)},
}


def dl0_columns(packet_type: PacketType) -> tuple[BulkColumn, ...]:
    """Return the columns of a DL0 file, filled from whole packets as rows.

    Parameters
    ----------
    packet_type
        Of the packets; its fields with a name for FITS become columns, in order, behind SEQCNT.
    """
    count = BulkColumn(
        SEQUENCE,
        "u2",
        description="counts the packets of this type, 14 bits",
        source="sequence",
        low_bits=COUNT_BITS,
    )
    fields = [field for field in packet_type.fields if field.fits is not None]
    return count, *(
        BulkColumn(
            str(field.fits),
            field.code,
            field.shape,
            field.unit or None,
            field.description,
            source=field.name,
        )
        for field in fields
    )


def needed_columns(kind: str) -> tuple[str, ...]:
    """Return the columns that the stages need of a kind of DL0 file."""
    return tuple(NEEDED[kind])


def check_columns(table: MappedTable, kind: str, names: Sequence[str] | None = None) -> None:
    """Refuse a DL0 file without the columns that are needed, or with others of their names.

    Parameters
    ----------
    table
        Of the file.
    kind
        SCI, CAL, HK or VAR.
    names
        Those that are needed; None = all that the stages need.

    Raises
    ------
    AstriError
        Which column of which file is missing or has another form.
    """
    needed = NEEDED[kind]
    names = tuple(needed) if names is None else tuple(names)
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise AstriError(
            f"{table.path} has no column {', '.join(missing)} in {table.name}, as a DL0 file of "
            f"kind {kind} should: it is another kind of file, or was made by other software. Make "
            "it from the packets with `astri-gpu preprocess`."
        )
    for name in names:
        column, wanted = table.columns[name], needed.get(name)
        if wanted is None:
            continue
        kinds = "" if column.dtype is None else column.dtype.kind
        if kinds not in wanted.kinds or not kinds or len(column.shape) != wanted.n_axes:
            raise AstriError(
                f"The column {name} of {table.path}[{table.name}] has entries {column.dtype} of "
                f"shape {column.shape}, where {_said(wanted)} are needed: it is another kind of "
                "file. Make it from the packets with `astri-gpu preprocess`."
            )


def _said(wanted: Needed) -> str:
    what = {WHOLE: "whole numbers", NUMBER: "numbers"}[wanted.kinds]
    return what if not wanted.n_axes else f"{what} on {wanted.n_axes} axes"
