"""The `astri-gpu` command: stages, options through Hydra, exit codes, one-sentence errors.

Only `config.py` and `sweep.py` import Hydra, and only when a stage runs: `--help` has to answer
within a second.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from astri_gpu import __version__
from astri_gpu.config import STAGES, compose_tree, to_config
from astri_gpu.errors import AstriError, UsageError, sentence
from astri_gpu.log import quiet_libraries
from astri_gpu.options import did_you_mean, specs
from astri_gpu.overrides import check_overrides, is_hydra, quote_path, split

__all__ = ["main"]


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
    words = _joined(words)
    stage, rest = words[0], words[1:]
    if stage not in STAGES:
        hint = did_you_mean(stage, STAGES) or f": the stages are {', '.join(STAGES)}"
        return _complain("", f"unknown stage '{stage}'{hint}", UsageError.exit_code)
    if "-h" in rest or "--help" in rest:
        print(cli_help.stage_help(stage))
        return 0
    debug = any(word.lower() in ("debug=true", "debug=1", "debug=yes") for word in rest)
    with quiet_libraries(debug):
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


def _joined(words: list[str]) -> list[str]:
    """Return the words, a stage that is typed as two of them joined: simulate observation."""
    name = "-".join(words[:2])
    return [name, *words[2:]] if len(words) > 1 and name in STAGES else words


def _stage(stage: str, words: list[str]) -> None:
    """Compose the configuration and run the stage."""
    overrides, multirun, show = _parse(stage, words)
    if multirun:
        from astri_gpu.sweep import run_sweep

        run_sweep(stage, overrides)
        return
    if any(split(word)[0] == "sweep" for word in overrides):
        raise UsageError("sweep=... is a search space: add --multirun to run its jobs")
    tree = compose_tree(stage, overrides)
    if show:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(tree), end="")
        return
    from astri_gpu.sweep import run_stage

    run_stage(stage, to_config(tree))


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
            if value is not None and key in ("input", "output", "train"):
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
    return sentence(error, debug), AstriError.exit_code


if __name__ == "__main__":
    sys.exit(main())
