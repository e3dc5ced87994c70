"""Sweeps: one job of a stage per combination of values, by Hydra's sweepers and launchers.

Jobs run in this process, or with ``hydra/launcher=joblib``, ``submitit_local`` and
``submitit_slurm`` in others, on other machines even: each leaves `RECORD` in its own folder, and
the sweep counts them at the end.
"""

import contextlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

from astri_gpu.config import STAGES, register_schemas, to_config
from astri_gpu.errors import AstriError, PartialFailure, UsageError, sentence
from astri_gpu.execution import Share, cores, devices_for
from astri_gpu.log import quiet_libraries
from astri_gpu.options import specs
from astri_gpu.overrides import hydra_error
from astri_gpu.stages.outcome import counted

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["RECORD", "SweepFolder", "run_stage", "run_sweep"]

RECORD = "astri_gpu_job.json"
JOBS_VARIABLE = (
    "ASTRI_GPU_SWEEP_JOBS"  # how many there are, where it is known; launchers hand it on
)
LAUNCHERS = ("joblib", "submitit")
INSTALL = "pip install 'astri_gpu[sweeps]'"

_folders: list[Path] = []  # of the sweep that this process has started


class SweepFolder(Callback):
    """Notes in the starting process where the jobs of a sweep write, and removes old records."""

    def on_multirun_start(self, config: "DictConfig", **kwargs: Any) -> None:
        """Remember the folder; called by Hydra before the first job."""
        folder = Path(str(config.hydra.sweep.dir))
        for record in folder.rglob(RECORD):
            record.unlink()
        _folders.append(folder)


def run_stage(stage: str, config: Any) -> None:
    """Run a stage and print its summary line."""
    result = import_module(f"astri_gpu.stages.{stage.replace('-', '_')}").run(config)
    line = getattr(result, "line", None)
    if line:
        print(line, flush=True)


def run_sweep(stage: str, overrides: list[str]) -> None:
    """Run every job of a sweep; one that fails is told of at once, and the others still run.

    Raises
    ------
    UsageError
        For a value that cannot be, before any job starts, or a launcher that is not installed.
    AstriError
        When all jobs failed, or the launcher lost some.
    PartialFailure
        When some jobs failed and the others are done.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    n_jobs = _check(stage, overrides)
    register_schemas()
    _folders.clear()
    # With HYDRA_FULL_ERROR errors are raised instead of printed with a traceback.
    before = sys.argv  # which Hydra reads
    variables = {"HYDRA_FULL_ERROR": "1", JOBS_VARIABLE: str(n_jobs)}
    with _environment(**variables), _root_logger_kept():
        callback = f"+hydra.callbacks.astri_gpu._target_={__name__}.{SweepFolder.__name__}"
        name = f"hydra.job.name=astri-gpu-{stage}"  # of log files and Slurm jobs
        sys.argv = [f"astri-gpu-{stage}", "--multirun", callback, name, *overrides]
        try:
            hydra.main(
                config_path="pkg://astri_gpu.configs", config_name=stage, version_base="1.3"
            )(_job)()
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(_launcher_missing(overrides, error) or hydra_error(error)) from error
        except Exception as error:
            raise _result(error) from error
        finally:
            sys.argv = before
    number = counted(len(_records()), "job")
    print(f"{stage}: sweep of {number} done, records in {', '.join(map(str, _folders))}")


def _records() -> list[dict[str, Any]]:
    """Return what the jobs of the sweep have left."""
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for folder in _folders
        for path in folder.rglob(RECORD)
    ]


def _result(error: Exception) -> AstriError:
    """Return the error of a sweep in which something went wrong."""
    records = _records()
    failed = sum(not record["done"] for record in records)
    if not failed and not isinstance(error, AstriError):
        return AstriError(f"the launcher of the sweep lost its jobs ({sentence(error, True)})")
    text = f"{failed} job(s) of the sweep failed, see above"
    return AstriError(text) if failed == len(records) > 1 else PartialFailure(text)


def _launcher_missing(overrides: list[str], error: BaseException) -> str:
    """Return a sentence when Hydra's error is that of a launcher that is not installed."""
    wanted = [word for word in overrides if word.startswith("hydra/launcher=")]
    if wanted and "hydra/launcher" in str(error) and any(name in wanted[0] for name in LAUNCHERS):
        return f"{wanted[0]} needs a plugin of Hydra that is not installed: {INSTALL}"
    return ""


def _check(stage: str, overrides: list[str]) -> int:
    """Return the number of combinations; refuse a value out of range in any of them.

    The number is right for Hydra's basic sweeper.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    described = {spec.key: spec for spec in specs(STAGES[stage].config)}
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UsageError(hydra_error(error)) from error
    number = 1
    for override in parsed:
        if not override.is_discrete_sweep():
            continue
        values = list(override.sweep_iterator())
        number *= max(1, len(values))
        spec = described.get(override.key_or_group)
        for value in values:
            if spec is not None and isinstance(value, int | float | str):
                spec.check(value)
    return number


def _job(tree: "DictConfig") -> None:
    """Run one job of a sweep, in whatever process its launcher has chosen."""
    hydra_config = HydraConfig.get()
    job = hydra_config.job
    stage, debug = str(job.config_name), bool(tree.get("debug"))
    failure: BaseException | None = None
    started = time.perf_counter()
    with quiet_libraries(debug):
        try:
            config = to_config(tree)
            _take_share(config, hydra_config.launcher, int(job.num))
            run_stage(stage, config)
        except Exception as error:
            if debug:
                traceback.print_exc()
            failure = error
    text = "" if failure is None else sentence(failure, debug)
    record = {
        "stage": stage,
        "job": job.num,
        "overrides": str(job.override_dirname),
        "done": failure is None,
        "reason": text,
        "seconds": round(time.perf_counter() - started, 3),
    }
    path = Path(hydra_config.runtime.output_dir) / RECORD
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if failure is not None:
        told = f"astri-gpu {stage}: job {job.num} ({job.override_dirname}): {text}"
        print(told, file=sys.stderr, flush=True)
        # Launchers carry it to the sweep, from another process by its text.
        raise failure if isinstance(failure, AstriError) else AstriError(text)


def _take_share(config: Any, launcher: Any, number: int) -> None:
    """Let a job that runs beside others use its part of the machine only.

    Threads of the options stay as they are; a job of several inputs works on one after the other.
    """
    kind = str(launcher.get("_target_", "")).lower()
    execution, backend = getattr(config, "execution", None), getattr(config, "backend", None)
    if not any(name in kind for name in LAUNCHERS) or execution is None:
        return
    n_jobs = int(os.environ.get(JOBS_VARIABLE, "0")) or cores()
    devices: tuple[str, ...] = ()
    if "joblib" in kind:
        wanted = int(launcher.get("n_jobs") or 1)
        at_once = min(n_jobs, wanted if wanted > 0 else max(1, cores() + 1 + wanted))
        threads = max(1, cores() // at_once)
        devices = devices_for(backend.name if backend else None)
    else:
        at_once = n_jobs if "local" in kind else 1
        # Slurm gives one core to a job that does not ask for more.
        threads = launcher.get("cpus_per_task") or (
            max(1, cores() // at_once) if "local" in kind else 1
        )
    threads = execution.threads_per_worker or threads
    device = devices[number % len(devices)] if devices else None
    Share(threads, device, 0 < len(devices) < at_once).take()
    if execution.engine == "local":
        execution.n_workers = execution.n_workers or 1
        execution.threads_per_worker = 0  # this process has them
    if backend is not None:
        backend.threads = backend.threads or threads


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """A context after which the root logger is as before; Hydra gives it handlers for the jobs."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """A context with other environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
