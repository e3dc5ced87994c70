"""The `astri-gpu` command: stages, options through Hydra, exit codes, one-sentence errors.

Only `config.py` and this file import Hydra, and only when a stage runs: `--help` has to answer
within a second.
"""

import contextlib
import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu import __version__
from astri_gpu.config import STAGES, compose_tree, register_schemas, to_config
from astri_gpu.errors import AstriError, PartialFailure, UsageError
from astri_gpu.options import did_you_mean, specs
from astri_gpu.overrides import check_overrides, hydra_error, is_hydra, quote_path, split

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["main"]

_FAILED: list[str] = []  # jobs of the sweep that failed in this process


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Words after the program's name; those of the process when left out.

    Returns
    -------
    int
        0 done, 1 failed, 2 wrong request, 3 some units failed, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    from astri_gpu import cli_help

    if not words:
        print(cli_help.overview(), file=sys.stderr)
        return UsageError.exit_code
    if words[0] in ("-h", "--help", "help"):
        print(cli_help.overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"astri-gpu {__version__}")
        return 0
    stage, rest = words[0], words[1:]
    if stage not in STAGES:
        hint = did_you_mean(stage, STAGES) or f": the stages are {', '.join(STAGES)}"
        return _complain("", f"unknown stage '{stage}'{hint}", UsageError.exit_code)
    if "-h" in rest or "--help" in rest:
        print(cli_help.stage_help(stage))
        return 0
    debug = any(word.lower() in ("debug=true", "debug=1", "debug=yes") for word in rest)
    with _quiet_libraries(debug):
        try:
            _stage(stage, rest)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader (`| head`) has seen enough; nothing may be written at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            text, code = _sentence(error, debug)
            return _complain(stage, text, code)
    return 0


def _stage(stage: str, words: list[str]) -> None:
    """Compose the configuration and run the stage."""
    overrides, multirun, show = _parse(stage, words)
    if multirun:
        _sweep(stage, overrides)
        return
    tree = compose_tree(stage, overrides)
    if show:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(tree), end="")
        return
    _run(stage, to_config(tree))


def _run(stage: str, config: Any) -> None:
    """Run a stage and print its summary line."""
    result = import_module(f"astri_gpu.stages.{stage.replace('-', '_')}").run(config)
    line = getattr(result, "line", None)
    if line:
        print(line)


def _parse(stage: str, words: Sequence[str]) -> tuple[list[str], bool, bool]:
    """Return the overrides in Hydra's grammar, whether to sweep, whether to show only."""
    config = STAGES[stage]
    keys = [spec.key for spec in specs(config.config)]
    known = {*keys, *config.groups}
    sweep = "--multirun" in words or "-m" in words
    show = False
    paths: list[str] = []
    overrides: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        key, value = split(word)
        if word in ("--multirun", "-m"):
            continue
        if key in ("--cfg", "-c"):
            value = value if value is not None else (queue.pop(0) if queue else "")
            if value != "job":
                raise UsageError(f"--cfg {value} is not possible: write --cfg job")
            show = True
        elif word.startswith("-"):
            name = key.lstrip("-").replace("-", "_")
            example = f"{name}={value or 'true'}" if name in known else "debug=true"
            raise UsageError(
                f"unknown option {word}: options are written key=value, for example {example}"
            )
        elif is_hydra(key) or (key in known and (value is not None or not Path(word).exists())):
            if value is not None and key in ("input", "output"):
                word = f"{key}={quote_path(value, sweep=sweep)}"
            overrides.append(word)
        elif value is None or Path(word).exists():
            paths.append(word)
        else:
            overrides.append(word)  # misspelt: refused below, with a suggestion
    if paths:
        if any(split(word)[0] == "input" for word in overrides):
            raise UsageError(f"'{paths[0]}' and input=... both name the input: keep one of them")
        quoted = [quote_path(path) for path in paths]
        value = quoted[0] if len(quoted) == 1 else "[" + ",".join(quoted) + "]"
        overrides.insert(0, f"input={value}")
    check_overrides(overrides, keys, config.groups)
    return overrides, sweep, show


def _sweep(stage: str, overrides: list[str]) -> None:
    """Run every job of a sweep with Hydra's own machinery (sweepers and launchers included)."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    _check_sweep(stage, overrides)
    register_schemas()
    _FAILED.clear()
    before_argv, before_full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    # Hydra reads sys.argv; with this variable it raises errors instead of printing tracebacks.
    sys.argv = [f"astri-gpu-{stage}", "--multirun", *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(config_path="pkg://astri_gpu.configs", config_name=stage, version_base="1.3")(
            _job
        )()
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(hydra_error(error)) from error
    except AstriError as error:
        raise PartialFailure(
            f"{len(_FAILED) or 'some'} job(s) of the sweep failed, see above"
        ) from error
    finally:
        sys.argv = before_argv
        if before_full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before_full


def _check_sweep(stage: str, overrides: list[str]) -> None:
    """Raise a `UsageError` for a value out of range in any job, before the first job starts."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    described = {spec.key: spec for spec in specs(STAGES[stage].config)}
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UsageError(hydra_error(error)) from error
    for override in parsed:
        spec = described.get(override.key_or_group)
        if spec is not None and override.is_discrete_sweep():
            for value in override.sweep_iterator():
                if isinstance(value, int | float | str):
                    spec.check(value)


def _job(tree: "DictConfig") -> None:
    """Run one job of a sweep; a failure is told at once, and the other jobs still run."""
    from hydra.core.hydra_config import HydraConfig

    job = HydraConfig.get().job
    stage = str(job.config_name)
    try:
        _run(stage, to_config(tree))
    except Exception as error:
        debug = bool(tree.get("debug"))
        if debug:
            traceback.print_exc()
        text, _ = _sentence(error, debug)
        _complain(stage, f"job {job.num} ({job.override_dirname}): {text}", 1)
        _FAILED.append(str(job.num))
        if isinstance(error, AstriError):
            raise
        raise AstriError(text) from error


def _complain(stage: str, text: str, code: int) -> int:
    """Print one sentence on stderr and return the exit code."""
    name = f"astri-gpu {stage}".rstrip()
    print(f"{name}: {text}", file=sys.stderr, flush=True)
    return code


def _sentence(error: BaseException, debug: bool) -> tuple[str, int]:
    """Return the sentence and the exit code for an exception."""
    if isinstance(error, AstriError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; unfinished output was removed", 130
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        return f"not enough memory{detail}: lower batch_size, images_per_chunk or n_workers", 1
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk is full{where}: free space or choose another output", 1
        return f"{error.strerror}{where}", 1
    detail = " ".join(str(error).split())
    hint = "" if debug else " (run again with debug=true for the traceback)"
    return f"unexpected {type(error).__name__}: {detail}{hint}", 1


@contextlib.contextmanager
def _quiet_libraries(debug: bool) -> Iterator[None]:
    """Log our own warnings to stderr and keep the chatter of libraries out, unless debugging."""
    logger = logging.getLogger("astri_gpu")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("astri-gpu: %(levelname)s: %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    logger.propagate = False
    jax_logger = logging.getLogger("jax")
    jax_level = jax_logger.level
    with warnings.catch_warnings():
        if not debug:
            jax_logger.setLevel(logging.ERROR)
            warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
            jax_logger.setLevel(jax_level)


if __name__ == "__main__":
    sys.exit(main())
