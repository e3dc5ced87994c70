"""Performance curves as tables (ECSV) and as one JSON file."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.responses.curve_points import AXES, KINDS, Column, Curve, Curves
from astri_gpu.responses.references import (
    PUBLISHED_HOURS,
    PUBLISHED_SOURCE,
    Reference,
    published_table,
)
from astri_gpu.store_disk import json_ready

__all__ = ["CURVES_FILE", "REFERENCE_FILE", "table_names", "write_curves"]

CURVES_FILE = "curves.json"
REFERENCE_FILE = "reference.json"
NOTE = (
    "NaN: no cut or no events in the bin; inf: no source is bright enough. _low and _high are the "
    "ends of central 68.27 % intervals (bootstrap over showers); where no event is left, _high is "
    "what one would expect at most with a chance of 15.9 % to see none."
)


def table_names() -> list[str]:
    """Return the names of all tables that `write_curves` may write."""
    return [f"{kind}.ecsv" for kind in KINDS]


def write_curves(
    folder: Path,
    curves: Curves,
    reference: Reference | None = None,
    *,
    provenance: dict[str, Any] | None = None,
) -> list[str]:
    """Write every kind of curve as a table, and all of them as JSON; return the names of the files.

    In JSON, NaN is null and infinite values are the text "inf".

    Parameters
    ----------
    folder
        Where to write, an existing directory.
    curves
        See `astri_gpu.responses.curves.make_curves`.
    reference
        Another array, written into a JSON file of its own.
    provenance
        See `astri_gpu.provenance.provenance`.
    """
    meta = {**curves.meta, **({"provenance": provenance} if provenance else {})}
    written = []
    for kind in KINDS:
        found = curves.of(kind)
        if found:
            name = f"{kind}.ecsv"
            _write_table(folder / name, kind, found, meta)
            written.append(name)
    energy, flux = published_table()
    record = {
        **meta,
        "note": NOTE,
        "curves": [_record(curve) for curve in curves],
        "published": {
            "source": PUBLISHED_SOURCE,
            "exposure_h": PUBLISHED_HOURS,
            "energy_tev": energy,
            "flux_e2_erg_s_cm2": flux,
        },
    }
    _write_json(folder / CURVES_FILE, record)
    written.append(CURVES_FILE)
    if reference is not None:
        record = {
            "name": reference.name,
            "path": reference.path,
            "note": reference.note,
            "curves": [_record(curve) for curve in reference.curves],
        }
        _write_json(folder / REFERENCE_FILE, record)
        written.append(REFERENCE_FILE)
    return written


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(_plain(record), indent=1) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return a record with infinite numbers as text, and all else as `json_ready` has it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)) and np.isinf(value):
        return "inf" if value > 0 else "-inf"
    return json_ready(value)


def _record(curve: Curve) -> dict[str, Any]:
    kind = KINDS[curve.kind]
    return {
        "kind": curve.kind,
        "labels": curve.labels,
        "axis": curve.axis,
        "unit": AXES[curve.axis].unit,
        "edges": curve.edges,
        "values": {
            name: {
                "unit": kind.values[name].unit,
                "value": part.value,
                "low": part.low,
                "high": part.high,
            }
            for name, part in curve.values.items()
        },
        "counts": curve.counts,
    }


def _columns(kind: str, curves: Sequence[Curve]) -> Iterator[tuple[str, Column, Any]]:
    """Yield name, meaning and values of the columns of a table, a row for each bin of a curve."""
    what, n_bins = KINDS[kind], [len(curve.edges) - 1 for curve in curves]

    def joined(parts: Sequence[Any]) -> Any:
        return np.concatenate([np.asarray(part) for part in parts])

    for name, column in what.labels.items():
        yield (
            name,
            column,
            joined(
                [np.repeat(curve.labels[name], n) for curve, n in zip(curves, n_bins, strict=True)]
            ),
        )
    axes = sorted({curve.axis for curve in curves})
    unit = AXES[axes[0]].unit
    if len(axes) > 1:
        names = [np.repeat(curve.axis, n) for curve, n in zip(curves, n_bins, strict=True)]
        yield "axis", Column("", "What the bins are of"), joined(names)
        head, text = "bin", "Bin"
    else:
        # The bands of energy have such names too.
        head, text = axes[0], AXES[axes[0]].text
    yield f"{head}_low", Column(unit, f"{text}, from"), joined([c.edges[:-1] for c in curves])
    yield f"{head}_high", Column(unit, f"{text}, to"), joined([c.edges[1:] for c in curves])
    for name, column in what.values.items():
        parts = [curve.values[name] for curve in curves]
        yield name, column, joined([part.value for part in parts])
        for end, which in (("low", "Lower"), ("high", "Upper")):
            text = f"{which} end of the one-sigma interval of {name}"
            values = joined([getattr(part, end) for part in parts])
            yield f"{name}_{end}", Column(column.unit, text), values
    for name, column in what.counts.items():
        yield name, column, joined([curve.counts[name] for curve in curves])


def _write_table(path: Path, kind: str, curves: Sequence[Curve], meta: dict[str, Any]) -> None:
    from astropy.table import Column as TableColumn
    from astropy.table import Table

    table = Table(
        [
            TableColumn(values, name=name, unit=column.unit or None, description=column.text)
            for name, column, values in _columns(kind, curves)
        ],
        meta={"title": KINDS[kind].title, "comments": [NOTE], **json_ready(meta)},
    )
    table.write(path, format="ascii.ecsv")
