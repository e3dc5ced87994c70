"""The `key=value` words of the command line: checks, quotes, and sentences for what is refused.

Nothing here imports Hydra, so that a misspelt key is answered at once.
"""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from astri_gpu.errors import UsageError
from astri_gpu.options import did_you_mean

__all__ = [
    "DICTIONARIES",
    "check_overrides",
    "group_files",
    "hydra_error",
    "is_entry",
    "is_hydra",
    "quote_path",
    "split",
]

# Sweep functions of Hydra's grammar; quoting would turn them into file names.
_SWEEP_FUNCTION = re.compile(r"^(choice|range|glob|sort|shuffle|tag)\(.*\)$")


# Options whose values have names of their own (`pipeline.values.n_gammas`); Hydra knows which.
DICTIONARIES = ("pipeline.values", "pipeline.files")


def split(override: str) -> tuple[str, str | None]:
    """Return key and value of ``key=value``; the value is None where there is no ``=``."""
    key, equals, value = override.partition("=")
    return key, value if equals else None


def is_hydra(key: str) -> bool:
    """Return whether the key belongs to Hydra's own settings (``hydra.sweep.dir``)."""
    return re.match(r"^[+~]*hydra([./@]|$)", key) is not None


def is_entry(key: str, keys: Sequence[str]) -> bool:
    """Return whether the key belongs to a dictionary among the options `keys`."""
    return any(name in keys and key.startswith(f"{name}.") for name in DICTIONARIES)


def group_files(group: str) -> dict[str, str]:
    """Return the choices of a config group and the first comment line of each file."""
    folder = files("astri_gpu.configs") / group
    if not folder.is_dir():
        return {}
    choices = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            comments = (
                line[1:].strip()
                for line in entry.read_text(encoding="utf-8").splitlines()
                if line.startswith("#") and "@package" not in line
            )
            choices[entry.name.removesuffix(".yaml")] = next(comments, "")
    return choices


def check_overrides(overrides: Sequence[str], keys: Sequence[str], groups: Sequence[str]) -> None:
    """Raise a `UsageError` with a suggestion for an unknown key or group choice.

    Parameters
    ----------
    overrides : sequence of str
        ``key=value`` words.
    keys : sequence of str
        The options of the stage, dotted.
    groups : sequence of str
        The config groups of the stage.
    """
    outside = any(is_hydra(word) and "searchpath" in word for word in overrides)
    for word in overrides:
        key, value = split(word)
        if is_hydra(key):
            continue
        if key[:1] in "+~":
            raise UsageError(
                f"{key} is not possible here: options cannot be added or removed, "
                f"write {key.lstrip('+~')}=value"
            )
        if key not in keys and key not in groups and not is_entry(key, keys):
            sections = {name.split(".")[0] for name in keys if "." in name}
            if key in sections:
                raise UsageError(f"{key} is not a value: set one of its options, {key}.NAME=value")
            hint = _same_ending(key, keys) or did_you_mean(key, [*keys, *groups])
            raise UsageError(f"unknown option {key}{hint or ': see --help'}")
        if value is None or (key not in keys and value == ""):
            raise UsageError(f"{key} has no value: write {key}=value")
        if key in groups and not outside:
            _check_choice(key, value)


def _same_ending(key: str, keys: Sequence[str]) -> str:
    """Return a suggestion for a key that misses its section (`picture_pe`)."""
    found = [name for name in keys if name.split(".")[-1] == key.split(".")[-1]]
    return f", did you mean '{found[0]}'?" if found else ""


def _check_choice(group: str, value: str) -> None:
    if re.search(r"[^\w,.\s-]", value):
        return  # a sweep function or a list: Hydra's business
    known = group_files(group)
    for choice in (part.strip() for part in value.split(",")):
        if choice not in known:
            hint = did_you_mean(choice, known)
            raise UsageError(
                f"{group}={choice} does not exist: choose one of {', '.join(known)}{hint}"
            )


def quote_path(value: str, *, sweep: bool = False) -> str:
    """Return the value of a path option, quoted for Hydra's grammar.

    A value that is quoted already, a ``[list]`` and, in sweeps, ``a,b`` and ``choice(a,b)`` keep
    their meaning, unless a file has exactly that name. ``${...}`` stays an interpolation.
    """
    if not value:
        return value
    if Path(value).exists():
        return _quote(value)
    if len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]:
        return value
    if value.startswith("[") and value.endswith("]"):
        return "[" + ",".join(quote_path(part) for part in _parts(value[1:-1])) + "]"
    if sweep and _SWEEP_FUNCTION.match(value):
        return value
    if sweep and "," in value:
        return ",".join(quote_path(part) for part in _parts(value))
    return _quote(value)


def _quote(text: str) -> str:
    # Hydra reads a backslash as itself, except in front of a quote and at the end.
    body = re.sub(r"(\\*)'", r"\1\1\\'", text)
    body = re.sub(r"(\\+)$", r"\1\1", body)
    return f"'{body}'"


def _parts(text: str) -> list[str]:
    """Return the parts of ``text`` between the commas that are outside quotes and braces."""
    pattern = r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\$\{[^}]*\}|[^,])+"""
    return [part.strip() for part in re.findall(pattern, text) if part.strip()]


def hydra_error(error: BaseException) -> str:
    """Return one sentence for an exception of Hydra or OmegaConf."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(str(cause).strip())
        cause = cause.__cause__
    text = "\n".join(chain)
    place = re.search(r"full_key: (\S+)", text)
    key = place[1] if place else ""
    value = re.search(
        r"Value '(.*)' (?:of type '.*' could not be converted to|is not a valid) (\w+)", text
    )
    if value:
        kinds = {"float": "a number", "integer": "a whole number", "int": "a whole number"}
        kinds |= {"boolean": "true or false", "bool": "true or false"}
        expected = kinds.get(value[2].lower(), f"of type {value[2]}")
        return f"{key} is '{value[1]}': it must be {expected}"
    null = re.search(r"field '(.*)' is not Optional", text)
    if null:
        return f"{null[1]} is null: it needs a value"
    if "is not a ListConfig" in text:
        return f"{key} is not a list: write for example '{key}=[1,2]'"
    unknown = re.search(r"Key '(.*)' not in '(\w+)'", text)
    if unknown:
        return f"{key or unknown[1]} is not an option ({unknown[2]})"
    interpolation = re.search(r"Interpolation key '(.*)' not found", text)
    if interpolation:
        return f"{key} refers to ${{{interpolation[1]}}}, which is not an option"
    sweep = re.search(r"Ambiguous value for argument '(.*)'", text)
    if sweep:
        return f"{sweep[1]} has several values: add --multirun to run them all, or quote it"
    word = getattr(error, "override", None)  # of Hydra's OverrideParseException
    if word:
        return f"cannot read {word}: put quotes around special characters, KEY='a (b)'"
    # The last cause says most; its further lines are Hydra's search path and internals.
    return next((line for line in chain[-1].splitlines() if line.strip()), type(error).__name__)
