"""The texts of `astri-gpu --help` and `astri-gpu STAGE --help`, made from the declarations."""

import textwrap

from astri_gpu.config import STAGES
from astri_gpu.options import REQUIRED, Spec, specs
from astri_gpu.overrides import group_files

__all__ = ["overview", "stage_help"]

_WIDTH = 100


def overview() -> str:
    """Return the list of stages and the exit codes."""
    width = max(map(len, STAGES))
    stages = "\n".join(f"  {name:<{width}}  {stage.line}" for name, stage in STAGES.items())
    return f"""\
astri-gpu: the ASTRI Mini-Array data processing, on CPUs and GPUs

Usage: astri-gpu STAGE [PATH] key=value ... [--multirun]
       astri-gpu STAGE --help     options of a stage, with units and ranges
       astri-gpu --version

Stages:
{stages}

PATH stands for input=PATH. --multirun runs every combination of values written key=a,b,c.
--cfg job shows the configuration and does nothing.

Exit codes: 0 done, 1 failed, 2 wrong request, 3 some units failed and the rest is done,
130 interrupted."""


def stage_help(name: str) -> str:
    """Return the options, groups and examples of a stage."""
    stage = STAGES[name]
    described = specs(stage.config)
    required = [spec.key for spec in described if spec.default == REQUIRED]
    words = " ".join(f"{key}=..." for key in required)
    lines = [
        f"astri-gpu {name}: {stage.line}",
        "",
        f"Usage: astri-gpu {name} {words} key=value ... [--multirun]",
    ]
    if stage.groups:
        lines += ["", "Groups of settings (group=choice):"]
        for group in stage.groups:
            lines.append(f"  {group}={_default_choice(name, group)}")
            for choice, text in group_files(group).items():
                lines += _entry(f"    {choice}", text)
    section = None
    for spec in described:
        prefix = spec.key.rpartition(".")[0]
        if prefix != section:
            section = prefix
            title = f"Options of {prefix}" if prefix else "Options"
            note = (
                " (the defaults are those of the default choice)" if prefix in stage.groups else ""
            )
            lines += ["", f"{title}{note}:"]
        lines += _entry(f"  {spec.key}{_default(spec)}", _text(spec))
    lines += ["", "Examples:", *(textwrap.indent(example, "  ") for example in stage.examples)]
    return "\n".join(lines)


def _default(spec: Spec) -> str:
    if isinstance(spec.default, str) and spec.default == REQUIRED:
        return "=..."
    if spec.default is None:
        return "=null"
    if isinstance(spec.default, bool):
        return f"={str(spec.default).lower()}"
    return f"={spec.default}"


def _text(spec: Spec) -> str:
    facts = [fact for fact in (spec.unit, spec.range) if fact]
    if isinstance(spec.default, str) and spec.default == REQUIRED:
        facts.insert(0, "required")
    return spec.help + (f" [{'; '.join(facts)}]" if facts else "")


def _entry(head: str, text: str, column: int = 38) -> list[str]:
    """Return `head` and the wrapped `text` beside it in a column."""
    body = textwrap.wrap(text, _WIDTH - column) or [""]
    if len(head) >= column - 1:
        heads = textwrap.wrap(head, _WIDTH, subsequent_indent=" " * 6, drop_whitespace=True)
        return [*heads, *(" " * column + line for line in body)]
    first = f"{head:<{column}}{body[0]}".rstrip()
    return [first, *(" " * column + line for line in body[1:])]


def _default_choice(stage: str, group: str) -> str:
    """Return the choice of `group` in the defaults list of the stage's file."""
    from importlib.resources import files

    import yaml

    text = (files("astri_gpu.configs") / f"{stage}.yaml").read_text(encoding="utf-8")
    for item in yaml.safe_load(text)["defaults"]:
        if isinstance(item, dict) and group in item:
            return "null" if item[group] is None else str(item[group])
    return "null"
