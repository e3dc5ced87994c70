"""One job of a sweep of `astri-gpu optimize`: done once, then answered from its record."""

import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import AstriError, sentence
from astri_gpu.sweeps import records
from astri_gpu.sweeps.cache import REUSED, RUN, digest
from astri_gpu.sweeps.waiting import held

if TYPE_CHECKING:
    from astri_gpu.config import OptimizeConfig

__all__ = ["refused", "run_once"]


def run_once(
    config: "OptimizeConfig",
    sweep: Path,
    about: Mapping[str, Any],
    run: Callable[["OptimizeConfig"], Any],
    *,
    own_output: bool,
) -> tuple[dict[str, Any], Exception | None]:
    """Return the record of a job, which runs unless it was done before, and why it failed.

    Two jobs with the same key at the same time do it once. What a killed job left is removed.

    Parameters
    ----------
    config
        Options of the job; `output` is set where the sweep gives none.
    sweep
        Folder of the sweep.
    about
        What the record says besides: number of the job, swept options, choices.
    run
        The stage; it returns its summary (`astri_gpu.stages.optimize.Summary`).
    own_output
        Whether the output is to be in the folder of the job.
    """
    key = records.job_key(config)
    folder = records.job_folder(sweep, key)
    # An earlier attempt, which got no further than its options.
    shutil.rmtree(records.job_folder(sweep, _key_of(about)), ignore_errors=True)
    if own_output:
        config.output = str(folder / records.CUTS)
    with held(folder.with_name(f"{key}.lock")):
        before = records.read_record(folder)
        output = Path(config.output)
        there = output.is_file() and before.get("output") == str(output)
        if before.get("state") == records.DONE and there:
            record = {**before, **about}
            records.write_record(folder, record)  # its number may be another one now
            return {**record, "reused": True}, None
        if own_output:
            output.unlink(missing_ok=True)  # of a job that was killed before it was recorded
        record = {
            **about,
            "key": key,
            "state": records.DONE,
            "reason": "",
            "output": str(output),
            "options": asdict(config),
            "host": platform.node(),
            "process": os.getpid(),
            "started": _now(),
        }
        started = time.perf_counter()
        made, found = RUN.copy(), REUSED.copy()
        failure: Exception | None = None
        try:
            record |= _found(run(config))
        except Exception as error:
            failure = error
            record |= {"state": records.FAILED, "reason": sentence(error, bool(config.debug))}
        # Of jobs that failed behind the earlier stages too.
        record |= {"n_run": dict(RUN - made), "n_reused": dict(REUSED - found)}
        record["seconds"] = round(time.perf_counter() - started, 3)
        records.write_record(folder, record)
        return {**record, "reused": False}, failure


def refused(
    sweep: Path, about: Mapping[str, Any], error: Exception, *, debug: bool = False
) -> dict[str, Any]:
    """Return the record of a job whose options or inputs cannot be used, and leave it.

    It has no key of what it depends on, so that of its swept options stands in.
    """
    key = _key_of(about)
    record = {
        **about,
        "key": key,
        "state": records.FAILED,
        "reason": sentence(error, debug),
        "host": platform.node(),
        "started": _now(),
        "seconds": 0.0,
    }
    records.write_record(records.job_folder(sweep, key), record)
    return record


def _key_of(about: Mapping[str, Any]) -> str:
    return digest({"swept": about["swept"], "choices": about["choices"]})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _found(summary: Any) -> dict[str, Any]:
    """Return what a record keeps of the summary of the stage."""
    score = float(summary.score)
    if math.isnan(score):
        raise AstriError("the job has no score: no cut of it could be judged")
    table = dict(summary.table)
    return {
        "score": score,
        "relative_sensitivity": table["relative_sensitivity"],
        "sensitivity": table["sensitivity"],
        "energy_edges": [*table["energy_min_tev"], *table["energy_max_tev"][-1:]],
        "simulation_model": summary.cuts.meta.get("simulation_model"),
    }
