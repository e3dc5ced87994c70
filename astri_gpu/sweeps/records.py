"""Records of the jobs of a sweep, one folder per job, and the table that is made of them."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.output_file import write_json

if TYPE_CHECKING:
    from astri_gpu.config import OptimizeConfig

__all__ = [
    "CUTS",
    "DONE",
    "FAILED",
    "RECORDED",
    "RESULTS",
    "TABLE",
    "best_of",
    "is_scored",
    "job_folder",
    "job_key",
    "read_record",
    "read_records",
    "told",
    "write_record",
    "write_table",
]

RECORDED = "optimize"
"""The stage whose jobs are recorded, and answered from their records."""
STAGES_BEFORE = ("process", "train", "reconstruct")
RESULTS = "results"  # folder of a sweep, with one folder per job, by key
JOB = "job.json"
CUTS = "cuts.fits"  # output of a job for which none was given
TABLE = "results.parquet"
DONE, FAILED = "done", "failed"
INSTALL = "pip install 'astri_gpu[sweeps]'"
# Where things are, and how the work is done: they do not decide the result.
NOT_IN_KEY = ("cache", "input", "model", "train")


def job_key(config: "OptimizeConfig") -> str:
    """Return what tells a job from all others: a checksum of its options and inputs.

    The number of a job changes with the search space, and the place of its files may; the key
    does not.

    Raises
    ------
    UsageError
        When an input is missing.
    AstriError
        When it cannot be read.
    """
    from astri_gpu import __version__
    from astri_gpu.options import path_list
    from astri_gpu.stages.units import find_inputs
    from astri_gpu.sweeps.cache import checksum, digest
    from astri_gpu.sweeps.upstream import relevant

    options = relevant(asdict(config))
    given = {
        "input": config.inputs(),
        "train": path_list(config.train, "train") if config.train is not None else [],
        "model": [config.model] if config.model else [],
    }
    inputs = {
        name: sorted(checksum(path) for path in find_inputs(words)) if words else []
        for name, words in given.items()
    }
    for name in NOT_IN_KEY:
        options.pop(name, None)
    return digest({"stage": RECORDED, "version": __version__, "options": options, "inputs": inputs})


def job_folder(sweep: Path, key: str) -> Path:
    """Return the folder of a job in that of its sweep."""
    return sweep / RESULTS / key


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record in the folder of a job; nothing where it is missing or cut off."""
    try:
        record = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and "state" in record else {}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a job, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JOB, record)


def read_records(place: Path) -> list[dict[str, Any]]:
    """Return the records of a sweep, from its folder or its table, in the order of their jobs.

    A folder has them even when the sweep was killed.

    Raises
    ------
    UsageError
        When there are none.
    AstriError
        When the table cannot be read.
    """
    if place.is_dir():
        found = [read_record(path.parent) for path in place.glob(f"{RESULTS}/*/{JOB}")]
        records = [record for record in found if record]
        if not records:
            raise UsageError(
                f"{place} holds no records of a sweep: give the folder (hydra.sweep.dir) of a "
                f"sweep of `astri-gpu {RECORDED}`, or its {TABLE}."
            )
    elif place.is_file():
        records = _from_table(place)
    else:
        raise UsageError(f"{place} does not exist: give the folder of a sweep, or its {TABLE}.")
    return sorted(records, key=lambda record: (record.get("started", ""), record.get("job") or 0))


def best_of(records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the done job with the smallest score; None where no job is done."""
    scored = [record for record in records if is_scored(record)]
    return min(scored, key=lambda record: record["score"], default=None)


def told(records: Sequence[Mapping[str, Any]]) -> str:
    """Return what the jobs have done, for the last line of their sweep."""
    texts = []
    n_before = sum(bool(record.get("reused")) for record in records)
    if n_before:
        texts.append(f" ({n_before} of them before)")
    fresh = [record for record in records if not record.get("reused")]
    for stage in STAGES_BEFORE:
        n_run, n_reused = (
            sum((record.get(part) or {}).get(stage, 0) for record in fresh)
            for part in ("n_run", "n_reused")
        )
        if n_run or n_reused:
            texts.append(f", {stage} {n_run} run / {n_reused} reused")
    best = best_of(records)
    if best is not None:
        texts.append(f", best score {best['score']:.4g} of job {best['job']}")
    return "".join(texts)


def is_scored(record: Mapping[str, Any]) -> bool:
    """Return whether a job is done and has a score that can be compared."""
    score = record.get("score")
    return record.get("state") == DONE and score is not None and math.isfinite(score)


# Columns of the table besides the swept options: name, and what it is of a record.
Column = Callable[[Mapping[str, Any]], Any]
_PLAIN = (
    "key",
    "job",
    "state",
    "reason",
    "score",
    "seconds",
    "started",
    "host",
    "output",
    "simulation_model",
)
_ARRAYS = ("relative_sensitivity", "sensitivity", "energy_edges")
_MAPPINGS = ("options", "choices", "n_run", "n_reused")


def write_table(folder: Path, records: Iterable[Mapping[str, Any]]) -> Path | None:
    """Write the table of results of a sweep (Parquet), one row per job; return its path.

    Columns: every swept option by its name (`swept.` in front), options as JSON, state, reason,
    score, per bin of energy the sensitivity relative to the flux assumed and as a flux
    (erg / (cm2 s)), the edges of the bins (TeV), seconds, products of earlier stages that were
    made and used again, host. None when pyarrow is not installed.

    Raises
    ------
    AstriError
        When the table cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return None
    from astri_gpu.output_file import whole_file

    rows = list(records)
    columns: dict[str, Any] = {}
    for name in sorted({name for row in rows for name in row.get("swept", {})}):
        columns[f"swept.{name}"] = _typed([row.get("swept", {}).get(name) for row in rows])
    for name in _PLAIN:
        columns[name] = [row.get(name) for row in rows]
    for name in _ARRAYS:
        values = [row.get(name) or [] for row in rows]
        columns[name] = pyarrow.array(values, pyarrow.list_(pyarrow.float64()))
    for name in ("n_run", "n_reused"):
        columns[f"stages_{name[2:]}"] = [sum(row.get(name, {}).values()) for row in rows]
    for name in _MAPPINGS:
        columns[name] = [json.dumps(row.get(name) or {}, default=str) for row in rows]
    path = folder / TABLE
    with whole_file(path, overwrite=True) as unfinished:
        parquet.write_table(pyarrow.table(columns), unfinished)
    return path


def _typed(values: list[Any]) -> list[Any]:
    """Return values of one type: numbers as floats where all are, otherwise text."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]


def _from_table(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise AstriError(
            f"{path} needs pyarrow to be read: {INSTALL}, or give the folder of the sweep."
        ) from error
    try:
        rows = parquet.read_table(path).to_pylist()
        for row in rows:
            names = [name for name in row if name.startswith("swept.")]
            row["swept"] = {name.removeprefix("swept."): row.pop(name) for name in names}
            row |= {name: json.loads(row[name]) for name in _MAPPINGS}
            row["state"], row["score"] = str(row["state"]), row["score"]
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors
        raise AstriError(
            f"{path} is no table of a sweep ({' '.join(str(error).split())}): give the folder of a "
            f"sweep, or the {TABLE} in it."
        ) from error
    return rows
