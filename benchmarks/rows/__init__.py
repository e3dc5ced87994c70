"""The rows of the table, one file for each kind of work; a later stage adds a file and an entry."""

from dataclasses import asdict
from typing import Any

from ..cases import run_case
from ..row import Measured, NotMeasured, Row, Settings, one_line, outcome
from . import (
    chain,
    cuts,
    device,
    files,
    forest,
    ingest,
    memory,
    raw,
    reconstruct,
    simulation,
    stores,
    waveforms,
)

__all__ = ["ROWS", "Measured", "NotMeasured", "Row", "Settings", "measure_row", "row_case"]

ROWS: tuple[Row, ...] = (
    chain.ROW,
    waveforms.ROW,
    device.ROW,
    stores.ROW,
    ingest.ROW,
    simulation.GAMMAS,
    simulation.PROTONS,
    forest.ROW,
    reconstruct.ROW,
    cuts.ROW,
    files.ROW,
    memory.ROW,
    raw.WRITE,
    raw.READ,
    raw.PREPROCESS,
)


def measure_row(row: Row, settings: Settings) -> dict[str, Any]:
    """Return what became of a row (see `outcome`), measured in a process of its own.

    Neither threads nor memory nor a crash of one row reach the next.
    """
    try:
        return run_case("row", fresh=False, name=row.name, settings=asdict(settings))
    except RuntimeError as error:
        entry = {"name": row.name, "what": row.what, "goal": row.goal}
        return entry | {"status": "failed", "reason": one_line(str(error))}


def row_case(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of the row of this name; runs in the process that `measure_row` made."""
    (row,) = (row for row in ROWS if row.name == name)
    return outcome(row, Settings(**settings | {"simtel": tuple(settings["simtel"])}))
