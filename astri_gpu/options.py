"""Options that describe themselves: default, unit, allowed values and help, declared once.

`config.py` declares the options of every stage with `option`; `--help`, the checks and the
sentences of refused values are all made from the same declaration.
"""

import copy
import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar

from astri_gpu.errors import UsageError

__all__ = [
    "REQUIRED",
    "FilesConfig",
    "Section",
    "Spec",
    "did_you_mean",
    "option",
    "path_list",
    "specs",
]

REQUIRED = "???"  # OmegaConf's mark for a value that the user has to give


@dataclass(frozen=True)
class Spec:
    """Everything that is known about one option."""

    key: str  # dotted, as typed on the command line
    default: Any
    help: str
    unit: str = ""
    low: float | None = None  # smallest allowed value
    above: float | None = None  # the value must be larger than this
    high: float | None = None  # largest allowed value
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """Return the allowed values in words, empty when everything goes."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.above is not None:
            upper = "" if self.high is None else f" and at most {self.high:.10g}"
            return f"above {self.above:.10g}{upper}"
        if self.low is not None and self.high is not None:
            return f"{self.low:.10g} to {self.high:.10g}"
        if self.low is not None:
            return f"{self.low:.10g} or more"
        return "" if self.high is None else f"at most {self.high:.10g}"

    def check(self, value: Any) -> None:
        """Raise a `UsageError` when `value` is outside the allowed values."""
        if self.choices:
            if value not in self.choices:
                hint = did_you_mean(str(value), self.choices)
                raise UsageError(f"{self.key} is '{value}': it must be {self.range}{hint}")
            return
        if value is None or (self.low is self.above is self.high is None):
            return
        unit = f" ({self.unit})" if self.unit else ""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"{self.key} is '{value}': it must be a number{unit}")
        inside = (
            value == value  # NaN is never a setting
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
        )
        if not inside:
            raise UsageError(f"{self.key} is {value:.10g}: it must be {self.range}{unit}")


def option(
    default: Any,
    *,
    help: str,
    unit: str = "",
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Return a dataclass field with its documentation and its allowed values.

    Parameters
    ----------
    default
        Value when nothing is said; `REQUIRED` when there is none; lists and dicts are copied
        per instance.
    help : str
        One sentence for `--help`.
    unit : str
        Shown in help and errors.
    low, high : float
        Smallest and largest allowed value.
    above : float
        The value must be larger than this.
    choices : sequence of str
        The only allowed texts.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "low": low,
        "above": above,
        "high": high,
        "choices": tuple(choices),
    }
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Section:
    """Base of all configurations: checks its values when it is made."""

    section: ClassVar[str] = ""  # prefix of the keys, the name of the group

    def __post_init__(self) -> None:
        """Check the values; OmegaConf.to_object ends here too."""
        self.validate()

    def validate(self) -> None:
        """Raise a `UsageError` sentence for the first value that cannot be used."""
        for item, spec in _own_specs(type(self)):
            value = getattr(self, item.name)
            if isinstance(value, str) and value == REQUIRED:
                raise UsageError(f"{spec.key} is missing: give {spec.key}=... ({spec.help})")
            spec.check(value)


@dataclass
class FilesConfig(Section):
    """A stage from one or several inputs to an output."""

    if TYPE_CHECKING:  # each stage says what they are
        input: Any
        output: str

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or paths that are none."""
        super().validate()
        path_list(self.input)
        path_list(self.output, "output")

    def inputs(self) -> list[str]:
        """Return `input` as a list of paths or patterns."""
        return path_list(self.input)


def _own_specs(cls: type[Section]) -> Iterator[tuple[dataclasses.Field, Spec]]:
    for item in dataclasses.fields(cls):
        if "help" not in item.metadata:
            continue  # a nested section
        key = f"{cls.section}.{item.name}" if cls.section else item.name
        default = (
            item.default_factory()
            if item.default_factory is not dataclasses.MISSING
            else item.default
        )
        yield item, Spec(key=key, default=default, **item.metadata)


def specs(cls: type[Section]) -> list[Spec]:
    """Return the options of a configuration class, those of its nested sections last."""
    own = [spec for _, spec in _own_specs(cls)]
    nested = [
        specs(item.type)
        for item in dataclasses.fields(cls)
        if isinstance(item.type, type) and issubclass(item.type, Section)
    ]
    return own + [spec for section in nested for spec in section]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the known word nearest to `word`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def path_list(value: Any, key: str = "input") -> list[str]:
    """Return one path or a list of paths as a list of str.

    Raises
    ------
    UsageError
        The list is empty, or holds something that is not a path.
    """
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not items:
        raise UsageError(f"{key} is an empty list: give at least one path")
    for item in items:
        if not isinstance(item, str | PathLike) or not fspath(item):
            raise UsageError(f"{key} is '{item}': it must be a path or a list of paths")
    return [str(fspath(item)) for item in items]
