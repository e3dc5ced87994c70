"""The curves of a report as ECSV tables (astropy), with units and a description of each column."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.report.collect import Sample
from astri_gpu.report.reconstructed import GROUPS, OFFSET, RECO_ENERGY, SCORE
from astri_gpu.report.resolution import containments, energy_spreads
from astri_gpu.report.separation import Separation
from astri_gpu.report.trained import importances_of

__all__ = ["NOTE", "TABLES", "write_tables"]

Row = tuple[Any, ...]
Columns = tuple[tuple[str, str, str], ...]  # name, unit, description
SCORE_GROUP = 50  # bins of SCORE in a row of the tables

_PARTICLE = ("sample", "", "Label of the stores in the report")
_TRUE = (("energy_low", "TeV", "True energy, from"), ("energy_high", "TeV", "True energy, to"))
_ANGLE = (
    ("containment_68", "deg", "68 % of the direction errors are below this"),
    ("containment_low", "deg", "Lower end of its one-sigma interval"),
    ("containment_high", "deg", "Upper end of its one-sigma interval"),
)
_EVENTS = ("events", "", "Events in the bin")


def _roc_rows(found: Sequence[Separation]) -> Iterator[Row]:
    for entry in found:
        curves = zip(entry.thresholds, entry.signal_share, entry.background_share, strict=True)
        for row, (cut, ours, theirs) in enumerate(curves):
            if row % SCORE_GROUP == 0:
                yield entry.signal.label, entry.background.label, entry.level, cut, ours, theirs


def _separation_rows(found: Sequence[Separation]) -> Iterator[Row]:
    for entry in found:
        for row in entry.by_energy:
            yield entry.signal.label, entry.background.label, *row


def _score_rows(samples: Sequence[Sample]) -> Iterator[Row]:
    edges = SCORE.edges[::SCORE_GROUP]
    for sample in samples:
        if sample.reco is None:
            continue
        for level, counts in (("event", sample.reco.score), ("image", sample.reco.image_score)):
            grouped = counts.reshape(-1, SCORE_GROUP).sum(axis=1).astype(np.int64)
            for low, high, count in zip(edges[:-1], edges[1:], grouped, strict=True):
                yield sample.label, level, low, high, count


def _energy_rows(samples: Sequence[Sample], per_decade: int) -> Iterator[Row]:
    for sample in samples:
        if sample.reco is None:
            continue
        edges = sample.merged_edges(per_decade)
        for group, text in GROUPS.items():
            for row, entry in enumerate(energy_spreads(sample, per_decade, group)):
                if entry.entries:
                    yield (
                        sample.label,
                        text,
                        edges[row],
                        edges[row + 1],
                        entry.entries,
                        entry.median,
                        entry.median_error,
                        entry.half_width,
                        entry.half_width_error,
                    )


def _direction_rows(samples: Sequence[Sample], per_decade: int) -> Iterator[Row]:
    for sample in samples:
        if sample.reco is None:
            continue
        first, edges = sample.merged(per_decade), sample.merged_edges(per_decade)
        curves = [("merged", text, sample.reco.direction[group]) for group, text in GROUPS.items()]
        curves += [(name, "with geometry", counts) for name, counts in sample.reco.compared.items()]
        for estimate, events, counts in curves:
            merged = np.add.reduceat(counts, first, axis=0)
            yield from _containment_rows((sample.label, estimate, events), edges, merged)


def _offset_rows(samples: Sequence[Sample]) -> Iterator[Row]:
    edges = OFFSET.edges
    for sample in samples:
        if sample.reco is None:
            continue
        curves = [
            ("merged", GROUPS[0], sample.reco.offset),
            ("merged", "above 10 TeV", sample.reco.offset_energetic),
        ]
        curves += [
            (name, "with geometry", counts) for name, counts in sample.reco.offset_compared.items()
        ]
        for estimate, events, counts in curves:
            yield from _containment_rows((sample.label, estimate, events), edges, counts)


def _containment_rows(head: Row, edges: Any, counts: Any) -> Iterator[Row]:
    """Yield `head`, bin, entries and containment of every bin (bin, error) that has entries."""
    for row, found in enumerate(containments(counts)):
        if found.entries:
            interval = (found.value, found.low, found.high)
            yield (*head, edges[row], edges[row + 1], found.entries, *interval)


def _migration_rows(samples: Sequence[Sample]) -> Iterator[Row]:
    reco_edges = RECO_ENERGY.edges
    for sample in samples:
        if sample.reco is None:
            continue
        edges = sample.energy_edges
        for true, reco in np.argwhere(sample.reco.migration):
            yield (
                sample.label,
                edges[true],
                edges[true + 1],
                reco_edges[reco],
                reco_edges[reco + 1],
                int(sample.reco.migration[true, reco]),
            )


def _importance_rows(samples: Sequence[Sample]) -> Iterator[Row]:
    for file, name, values in importances_of(samples):
        for feature, value in values.items():
            yield file, name, feature, value


_PAIR = (
    ("signal", "", "Sample of gammas"),
    ("background", "", "Sample of the other particle"),
)
_RECO = (
    ("reco_energy_low", "TeV", "Reconstructed energy, from"),
    ("reco_energy_high", "TeV", "Reconstructed energy, to"),
)
_COLUMNS: dict[str, Columns] = {
    "roc.ecsv": (
        *_PAIR,
        ("level", "", "Scores of events or of images"),
        ("threshold", "", "Smallest gammaness that is kept"),
        ("signal_share", "", "Share of the gammas kept"),
        ("background_share", "", "Share of the others kept"),
    ),
    "separation.ecsv": (
        *_PAIR,
        *_RECO,
        ("n_signal", "", "Gammas"),
        ("n_background", "", "Others"),
        ("auc", "", "Area under the ROC of events"),
        ("auc_error", "", "Its standard error"),
    ),
    "gammaness.ecsv": (
        _PARTICLE,
        ("level", "", "Scores of events or of images"),
        ("gammaness_low", "", "Score, from"),
        ("gammaness_high", "", "Score, to"),
        ("count", "", "Events or images"),
    ),
    "energy.ecsv": (
        _PARTICLE,
        ("selection", "", "Which events; quarters by expected error"),
        *_TRUE,
        _EVENTS,
        ("bias", "", "Median of (E_reco - E_true) / E_true"),
        ("bias_error", "", "Its standard error"),
        ("resolution", "", "Half of the central 68.27 % of (E_reco - E_true) / E_true"),
        ("resolution_error", "", "Its standard error"),
    ),
    "direction.ecsv": (
        _PARTICLE,
        ("estimate", "", "merged, geometry or displacement"),
        ("selection", "", "Which events"),
        *_TRUE,
        _EVENTS,
        *_ANGLE,
    ),
    "direction_offset.ecsv": (
        _PARTICLE,
        ("estimate", "", "merged, geometry or displacement"),
        ("selection", "", "Which events"),
        ("offset_low", "deg", "True offset from the pointing, from"),
        ("offset_high", "deg", "True offset from the pointing, to"),
        _EVENTS,
        *_ANGLE,
    ),
    "migration.ecsv": (_PARTICLE, *_TRUE, *_RECO, _EVENTS),
    "importances.ecsv": (
        ("models", "", "File of models"),
        ("ensemble", "", "Camera, variant and task"),
        ("feature", "", "Expression that the ensemble looks at"),
        ("importance", "", "Loss of score when the feature is shuffled"),
    ),
}
TABLES = tuple(_COLUMNS)
"""Names of the files."""

NOTE = "Simulated events without weights: the thrown spectrum is in all numbers."


def write_tables(
    folder: Path, samples: Sequence[Sample], found: Sequence[Separation], per_decade: int
) -> list[str]:
    """Write the tables of DL2b samples into a folder; return the names of the files.

    Tables that would have no rows are not written. Bins with too few events have NaN.

    Parameters
    ----------
    folder
        Where to write, an existing directory.
    samples
        The particles; those of DL2a stores have no part.
    found
        The comparisons of `separations`.
    per_decade
        Bins per decade of true energy.
    """
    rows: dict[str, Callable[[], Iterator[Row]]] = {
        "roc.ecsv": lambda: _roc_rows(found),
        "separation.ecsv": lambda: _separation_rows(found),
        "gammaness.ecsv": lambda: _score_rows(samples),
        "energy.ecsv": lambda: _energy_rows(samples, per_decade),
        "direction.ecsv": lambda: _direction_rows(samples, per_decade),
        "direction_offset.ecsv": lambda: _offset_rows(samples),
        "migration.ecsv": lambda: _migration_rows(samples),
        "importances.ecsv": lambda: _importance_rows(samples),
    }
    written = []
    for name in TABLES:
        content = list(rows[name]())
        if content:
            _write(folder / name, _COLUMNS[name], content)
            written.append(name)
    return written


def _write(path: Path, columns: Columns, rows: Sequence[Row]) -> None:
    from astropy.table import Column, Table

    table = Table(
        [
            Column(
                np.array([row[place] for row in rows]),
                name=name,
                unit=unit or None,
                description=text,
            )
            for place, (name, unit, text) in enumerate(columns)
        ],
        meta={"comments": [NOTE]},
    )
    table.write(path, format="ascii.ecsv")
