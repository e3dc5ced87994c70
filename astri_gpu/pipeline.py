"""A chain of stages in one folder: steps from the configuration, and the record of what is done.

A step is a command as typed, without `astri-gpu`: ``process gamma_dl0.zarr output=gamma_dl2.zarr``.
Relative paths in it are inside the folder of the run; `{name}` stands for a value of the pipeline.
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.options import did_you_mean, path_list
from astri_gpu.overrides import quote_path, split

__all__ = [
    "DONE",
    "FAILED",
    "PATHS",
    "RECORD",
    "STALE",
    "Entry",
    "Step",
    "make_steps",
    "read_record",
    "write_record",
]

RECORD = "run.json"
PATHS = (
    "input",
    "output",
    "model",
    "train",
    "cut_file",
    "cut_files",
    "response",
    "cache",
    "events",
    "constants",
    "truth",
    "search",
)
"""Options that name files of the run."""
# Options that say how the work is done, not what comes out.
INDIFFERENT = (
    "backend.threads",
    "batch_size",
    "block_mb",
    "debug",
    "execution",
    "overwrite",
    "progress",
    "wait_s",
)
LEFT_OUT = ("run", "info", "display")  # stages that make nothing that a later step could need
RUNNING, DONE, FAILED = "running", "done", "failed"
STALE = "to do again"  # done, but of something that is made again


@dataclass(frozen=True)
class Step:
    """One command of a chain, composed."""

    number: int
    stage: str
    command: str
    """As typed, values put in."""
    config: Any
    """Of the stage; its paths lead into the folder of the run."""
    digest: str
    """Of the options that decide what comes out, the same wherever the folder lies."""

    @property
    def output(self) -> Path | None:
        """Return what the step writes; None if nothing."""
        output = getattr(self.config, "output", None)
        return None if output is None else Path(output)


@dataclass
class Entry:
    """What the record says of a step."""

    command: str
    stage: str
    digest: str
    state: str = RUNNING
    seconds: float = 0.0
    summary: str = ""
    outputs: list[str] = field(default_factory=list)
    """Relative to the folder of the run."""
    replaces: bool = False
    """Whether the step, not done yet, is to replace an output of other content."""
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    """Key numbers in words, of stages whose summary has them."""

    @property
    def done(self) -> bool:
        """Return whether the step was finished."""
        return self.state == DONE


def make_steps(
    steps: Sequence[str],
    values: Mapping[str, Any],
    folder: Path,
    files: Mapping[str, Any] | None = None,
) -> list[Step]:
    """Return the steps of a chain, all options checked before anything is done.

    Parameters
    ----------
    steps
        Commands, with `{name}` for values.
    values
        Name to value.
    folder
        Of the run.
    files
        Name to path outside the folder, relative to where the command is typed, for `{name}` too;
        a path that is not absolute decides by where it is seen from the folder, so that both can
        move together.

    Raises
    ------
    UsageError
        For a step that cannot be, with its number, a chain without steps, or a path not given.
    """
    if not steps:
        raise UsageError("pipeline.steps is empty: choose a pipeline that has steps.")
    outside = _outside(files or {}, folder)
    if both := sorted(set(outside) & set(values)):
        raise UsageError(f"pipeline.files and pipeline.values both have {both[0]}: rename one.")
    words = {**values, **{name: _word(paths) for name, paths in outside.items()}}
    made = []
    for number, text in enumerate(steps, start=1):
        try:
            made.append(_step(number, str(text), words, folder))
        except UsageError as error:
            raise UsageError(f"Step {number} of the pipeline ({text}): {error}") from error
    outputs: dict[Path, int] = {}
    for step in made:
        if step.output is not None and outputs.setdefault(step.output, step.number) != step.number:
            raise UsageError(
                f"steps {outputs[step.output]} and {step.number} of the pipeline both write "
                f"{step.output.name}: give them two outputs."
            )
    return made


def _outside(files: Mapping[str, Any], folder: Path) -> dict[str, list[str]]:
    """Return the paths outside the folder as they are seen from it, by name."""
    found = {}
    for name, given in files.items():
        paths = path_list(given, f"pipeline.files.{name}") if given else []
        if not paths:
            raise UsageError(
                f"pipeline.files.{name} is not given: write pipeline.files.{name}=PATH (the "
                "comment in the file of the pipeline says of what)."
            )
        found[name] = [
            path if os.path.isabs(path) else os.path.relpath(path, folder) for path in paths
        ]
    return found


def _word(paths: Sequence[str]) -> str:
    """Return paths as a part of a word of a command."""
    return shlex.quote(paths[0] if len(paths) == 1 else "[" + ",".join(paths) + "]")


def _step(number: int, text: str, values: Mapping[str, Any], folder: Path) -> Step:
    from astri_gpu.config import STAGES, compose

    command = _filled(text, values)
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the quotes cannot be read ({error})") from error
    if not words:
        raise UsageError("it is empty")
    stage, *rest = words
    if stage not in STAGES or stage in LEFT_OUT:
        known = [name for name in STAGES if name not in LEFT_OUT]
        hint = did_you_mean(stage, known) or f": the stages are {', '.join(known)}"
        raise UsageError(f"'{stage}' is no stage of a chain{hint}")
    places = _Places(folder)
    config = compose(stage, list(_overrides(rest, places)))
    return Step(number, stage, command, config, _digest(stage, config, places))


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """Return a command with its `{name}` replaced; `${...}` is left to Hydra."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            hint = did_you_mean(name, values) or f": there are {', '.join(values) or 'none'}"
            raise UsageError(f"{{{name}}} is no value of the pipeline{hint}")
        found = values[name]
        if isinstance(found, bool) or found is None:
            return {True: "true", False: "false", None: "null"}[found]
        return str(found)

    return re.sub(r"(?<!\$)\{(\w+)\}", value, text)


class _Places:
    """Paths of a step as they are seen from where the command is typed, and from the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._words: dict[str, str] = {}

    def lead(self, word: str) -> str:
        """Return where a path of the step is."""
        # As text: `..` behind a folder that is a link would lead elsewhere.
        place = os.path.normpath(self._folder / word)
        self._words[place] = os.path.normpath(word)
        return place

    def word(self, value: str) -> str:
        """Return a value of an option with the path in it as the step has it."""
        return self._words.get(value, value.removeprefix(f"{self._folder}/"))


def _overrides(words: Sequence[str], places: _Places) -> Iterator[str]:
    """Yield the words of a command in Hydra's grammar, paths led into the folder."""
    paths = []
    for word in words:
        key, value = split(word)
        if word.startswith("-"):
            raise UsageError(f"{word} is not possible in a chain: options are written key=value")
        if value is None:
            paths.append(word)
        elif key in PATHS:
            yield f"{key}={_inside(value, places)}"
        else:
            yield word
    if paths:
        if any(split(word)[0] == "input" for word in words):
            raise UsageError(f"'{paths[0]}' and input=... both name the input: keep one of them")
        text = paths[0] if len(paths) == 1 else "[" + ",".join(paths) + "]"
        yield f"input={_inside(text, places)}"


def _inside(value: str, places: _Places) -> str:
    """Return a path or a [list] of paths, led into the folder, in Hydra's grammar."""
    if value in ("", "null"):
        return value
    if value.startswith("[") and value.endswith("]"):
        parts = [part.strip().strip("'\"") for part in value[1:-1].split(",")]
        return "[" + ",".join(quote_path(places.lead(part)) for part in parts if part) + "]"
    return quote_path(places.lead(value))


def _digest(stage: str, config: Any, places: _Places) -> str:
    """Return a checksum of what decides the result."""

    def plain(value: Any, key: str = "") -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if isinstance(value, Mapping):
            return {
                name: plain(item, f"{key}.{name}".lstrip("."))
                for name, item in sorted(value.items())
                if f"{key}.{name}".lstrip(".") not in INDIFFERENT
            }
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return places.word(value) if isinstance(value, str) else value

    text = json.dumps([stage, plain(config)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_record(folder: Path) -> list[Entry]:
    """Return what is recorded of the steps of an earlier run; an empty list for a new folder.

    Raises
    ------
    UsageError
        When the folder holds something else than a run.
    AstriError
        When the record cannot be read.
    """
    path = folder / RECORD
    if not path.exists():
        others = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        others = [name for name in others if name != f"{RECORD}.partial"]
        if others or folder.is_file():
            what = f"holds {others[0]}, but no {RECORD}" if others else "is a file"
            raise UsageError(f"The output {folder} {what}: choose an empty folder, or a new one.")
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return [Entry(**entry) for entry in record["steps"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AstriError(
            f"The record {path} cannot be read ({type(error).__name__}): restore it, or choose "
            "another output."
        ) from error


def write_record(folder: Path, title: str, entries: Sequence[Entry]) -> None:
    """Replace the record of a run, as a whole."""
    from astri_gpu import __version__
    from astri_gpu.output_file import whole_file

    record = {
        "software": "astri_gpu",
        "version": __version__,
        "title": title,
        "steps": [asdict(entry) for entry in entries],
    }
    with whole_file(folder / RECORD, overwrite=True) as unfinished:
        unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
