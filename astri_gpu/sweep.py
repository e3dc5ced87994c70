"""Sweeps: one job of a stage per combination of values, by Hydra's sweepers and launchers.

Jobs run in this process, or with ``hydra/launcher=joblib``, ``submitit_local`` and
``submitit_slurm`` in others, on other machines even: each leaves `RECORD` in its own folder, and
the sweep counts them at the end. Those of `astri-gpu optimize` are kept by what they depend on
too (`astri_gpu.sweeps.records`): the same sweep in the same folder does not repeat them.
"""

import contextlib
import functools
import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
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
from astri_gpu.overrides import hydra_error, is_hydra, split
from astri_gpu.stages.outcome import counted
from astri_gpu.sweeps.records import RECORDED, told

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["RECORD", "SweepFolder", "run_stage", "run_sweep"]

RECORD = "astri_gpu_job.json"
JOBS_VARIABLE = (
    "ASTRI_GPU_SWEEP_JOBS"  # how many there are, where it is known; launchers hand it on
)
LAUNCHERS = ("joblib", "submitit")
PLUGINS = {"hydra/launcher": LAUNCHERS, "hydra/sweeper": ("optuna",)}
INSTALL = "pip install 'astri_gpu[%s]'"

_folders: list[Path] = []  # of the sweep that this process has started


class SweepFolder(Callback):
    """Notes in the starting process where the jobs of a sweep write, and removes old records.

    Parameters
    ----------
    swept
        Keys that the command line gives several values; the jobs find them in the configuration
        of this callback.
    """

    def __init__(self, swept: Sequence[str] = ()) -> None:
        self.swept = tuple(swept)

    def on_multirun_start(self, config: "DictConfig", **kwargs: Any) -> None:
        """Remember the folder; called by Hydra before the first job."""
        folder = Path(str(config.hydra.sweep.dir))
        for record in folder.rglob(RECORD):
            record.unlink()
        _folders.append(folder)


def run_stage(stage: str, config: Any) -> Any:
    """Run a stage, print its summary line and return its summary."""
    result = import_module(f"astri_gpu.stages.{stage.replace('-', '_')}").run(config)
    line = getattr(result, "line", None)
    if line:
        print(line, flush=True)
    return result


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

    n_jobs, swept = _check(stage, overrides)
    if stage == RECORDED:
        _check_effect(overrides, swept)
    register_schemas()
    _folders.clear()
    # With HYDRA_FULL_ERROR errors are raised instead of printed with a traceback.
    before = sys.argv  # which Hydra reads
    variables = {"HYDRA_FULL_ERROR": "1", JOBS_VARIABLE: str(n_jobs)}
    with _environment(**variables), _root_logger_kept():
        callback = "+hydra.callbacks.astri_gpu"
        words = [
            f"{callback}._target_={__name__}.{SweepFolder.__name__}",
            f"{callback}.swept=[{','.join(swept)}]",
            f"hydra.job.name=astri-gpu-{stage}",  # of log files and Slurm jobs
        ]
        if any(re.match(r"hydra/sweeper=['\"]?optuna\b", word) for word in overrides):
            words.append("hydra.sweeper.max_failure_rate=1.0")  # failed jobs do not end it
        sys.argv = [f"astri-gpu-{stage}", "--multirun", *words, *overrides]
        try:
            hydra.main(
                config_path="pkg://astri_gpu.configs", config_name=stage, version_base="1.3"
            )(_job)()
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(_plugin_missing(overrides, error) or hydra_error(error)) from error
        except Exception as error:
            raise _result(error) from error
        finally:
            sys.argv = before
            _dismiss_workers(overrides)
            if stage == RECORDED:
                _write_tables()
    records = _records()
    if any(not record["done"] for record in records):
        raise _result(AstriError("some failed"))  # of a sweeper that goes on in spite of it
    text = f"{stage}: sweep of {counted(len(records), 'job')} done{told(records)}, records in "
    print(text + ", ".join(map(str, _folders)), flush=True)


def _records() -> list[dict[str, Any]]:
    """Return what the jobs of the sweep have left."""
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for folder in _folders
        for path in folder.rglob(RECORD)
    ]


def _write_tables() -> None:
    """Write the table of results of every folder of the sweep, from all records in it."""
    from astri_gpu.sweeps.records import INSTALL, RESULTS, read_records, write_table

    for folder in _folders:
        if not (folder / RESULTS).is_dir():
            continue  # no job has begun
        try:
            if write_table(folder, read_records(folder)) is None:
                text = f"no table of results, only records in {folder / RESULTS}: {INSTALL}"
                print(f"astri-gpu {RECORDED}: {text}", file=sys.stderr, flush=True)
        except AstriError as error:  # the jobs are done nevertheless
            print(f"astri-gpu {RECORDED}: {error}", file=sys.stderr, flush=True)


def _result(error: Exception) -> AstriError:
    """Return the error of a sweep in which something went wrong."""
    records = _records()
    failed = sum(not record["done"] for record in records)
    if not failed and not isinstance(error, AstriError):
        return AstriError(f"the launcher of the sweep lost its jobs ({sentence(error, True)})")
    text = f"{failed} job(s) of the sweep failed, see above{told(records)}"
    return AstriError(text) if failed == len(records) > 1 else PartialFailure(text)


def _plugin_missing(overrides: list[str], error: BaseException) -> str:
    """Return a sentence when Hydra's error is that of a plugin that is not installed."""
    text = str(error)
    for word in overrides:
        key, value = split(word)
        plugins = PLUGINS.get(key, ())
        if key in text and value and any(name in value for name in plugins):
            extra = "optuna" if "optuna" in value else "sweeps"
            return f"{word} needs a plugin of Hydra that is not installed: {INSTALL % extra}"
    if "hydra/sweeper" in text and any(split(word)[0] == "sweep" for word in overrides):
        return f"sweep=... needs a plugin of Hydra that is not installed: {INSTALL % 'optuna'}"
    return ""


def _check(stage: str, overrides: list[str]) -> tuple[int, list[str]]:
    """Return the number of combinations and what varies; refuse any value out of range.

    The number is right for Hydra's basic sweeper.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import IntervalSweep
    from hydra.errors import HydraException

    described = {spec.key: spec for spec in specs(STAGES[stage].config)}
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UsageError(hydra_error(error)) from error
    number, swept = 1, []
    for override in parsed:
        if not override.is_sweep_override():
            continue
        swept.append(override.key_or_group)
        value = override.value()
        if isinstance(value, IntervalSweep):
            values: list[Any] = [value.start, value.end]
        elif override.is_discrete_sweep():
            values = list(override.sweep_iterator())
            number *= max(1, len(values))
        else:
            continue
        spec = described.get(override.key_or_group)
        for item in values:
            if spec is not None and isinstance(item, int | float | str):
                spec.check(item)
    return number, swept


def _check_effect(overrides: list[str], swept: list[str]) -> None:
    """Refuse a sweep over options of earlier stages that its inputs have behind them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from astri_gpu.options import path_list
    from astri_gpu.stages.units import find_inputs
    from astri_gpu.sweeps.upstream import PROCESS, TRAIN, check_effect

    if {"input", "train", "model"} & set(swept):
        return  # it depends on the job, which will say so
    given = {
        item.key_or_group: item for item in OverridesParser.create().parse_overrides(overrides)
    }
    values = {name: given[name].value() for name in ("input", "train", "model") if name in given}
    if "input" not in values or any("${" in str(value) for value in values.values()):
        return  # said later, for a job
    stores = {
        name: find_inputs(path_list(_plain(value), name))
        for name, value in values.items()
        if name != "model" and value is not None
    }
    changed = [key.split(".")[0] for key in given]
    check_effect(
        stores["input"],
        stores.get("train", []),
        str(values["model"]) if values.get("model") is not None else None,
        [name for name in dict.fromkeys(changed) if name in (*PROCESS, *TRAIN)],
    )


def _plain(value: Any) -> Any:
    """Return a value of Hydra's grammar without its quotes."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return getattr(value, "text", value)


def _swept(tree: "DictConfig", hydra_config: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return value or choice of everything that the sweep varies, and all choices of groups."""
    from omegaconf import OmegaConf

    choices = {
        name: str(choice)
        for name, choice in hydra_config.runtime.choices.items()
        if not name.startswith("hydra/") and choice is not None
    }
    keys = list(hydra_config.callbacks.astri_gpu.get("swept", []))
    keys += list(hydra_config.sweeper.get("params") or {})
    found: dict[str, Any] = {}
    for key in dict.fromkeys(keys):
        if key in choices:
            found[key] = choices[key]
        elif not is_hydra(key):
            value = OmegaConf.select(tree, key)
            found[key] = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    return found, choices


def _job(tree: "DictConfig") -> float | None:
    """Run one job of a sweep, in whatever process its launcher has chosen; return its score."""
    hydra_config = HydraConfig.get()
    job = hydra_config.job
    stage, debug = str(job.config_name), bool(tree.get("debug"))
    failure: BaseException | None = None
    found: dict[str, Any] = {}
    started = time.perf_counter()
    with quiet_libraries(debug):
        try:
            if stage == RECORDED:
                found, failure = _recorded(tree, hydra_config)
            else:
                config = to_config(tree)
                _take_share(config, hydra_config, int(job.num))
                run_stage(stage, config)
            if failure is not None:
                raise failure
        except Exception as error:
            if debug:
                traceback.print_exc()
            failure = error
    text = "" if failure is None else sentence(failure, debug)
    record = {
        **found,
        "stage": stage,
        "job": job.num,
        "overrides": str(job.override_dirname),
        "done": failure is None,
        "reason": text,
        "seconds": round(time.perf_counter() - started, 3),
    }
    path = Path(hydra_config.runtime.output_dir) / RECORD
    path.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
    if failure is not None:
        swept = ",".join(f"{name}={value}" for name, value in found.get("swept", {}).items())
        which = f"job {job.num} ({swept or job.override_dirname})"
        print(f"astri-gpu {stage}: {which}: {text}", file=sys.stderr, flush=True)
        # Launchers carry it to the sweep, from another process by its text.
        raise failure if isinstance(failure, AstriError) else AstriError(text)
    return found.get("score")


def _recorded(tree: "DictConfig", hydra_config: Any) -> tuple[dict[str, Any], BaseException | None]:
    """Run a job of `RECORDED` unless it was done before; return its record and why it failed."""
    from omegaconf import OmegaConf

    from astri_gpu.sweeps.job import refused, run_once
    from astri_gpu.sweeps.records import CUTS

    own_output = OmegaConf.is_missing(tree, "output")
    if own_output:
        tree.output = CUTS
    number = int(hydra_config.job.num)
    swept, choices = _swept(tree, hydra_config)
    about = {"stage": RECORDED, "job": number, "swept": swept, "choices": choices}
    sweep = Path(str(hydra_config.sweep.dir)).absolute()
    try:
        config = to_config(tree)
        _take_share(config, hydra_config, number)
        run = functools.partial(run_stage, RECORDED)
        return run_once(config, sweep, about, run, own_output=own_output)
    except Exception as error:
        return refused(sweep, about, error, debug=bool(tree.get("debug"))), error


def _take_share(config: Any, hydra_config: Any, number: int) -> None:
    """Let a job that runs beside others use its part of the machine only.

    Threads of the options stay as they are; a job of several inputs works on one after the other.
    """
    launcher = hydra_config.launcher
    kind = str(launcher.get("_target_", "")).lower()
    execution, backend = getattr(config, "execution", None), getattr(config, "backend", None)
    if not any(name in kind for name in LAUNCHERS) or execution is None:
        return
    n_jobs = int(os.environ.get(JOBS_VARIABLE, "0")) or cores()
    # Optuna asks for so many at once; Hydra's own sweeper for all.
    n_jobs = int(hydra_config.sweeper.get("n_jobs") or n_jobs)
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


def _dismiss_workers(overrides: list[str]) -> None:
    """End the processes that joblib would keep: another sweep has another environment."""
    if any("joblib" in word for word in overrides):
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)


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
