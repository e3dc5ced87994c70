"""Options of `astri-gpu run` and `astri-gpu sweep-report`; `config.py` registers the stages."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from astri_gpu.options import REQUIRED, Section, option

__all__ = ["PipelineConfig", "RunConfig", "SweepReportConfig"]


@dataclass
class PipelineConfig(Section):
    """A chain of stages: each step is a command as it would be typed."""

    section: ClassVar[str] = "pipeline"

    title: str = option("", help="what the chain does, in one line")
    values: dict[str, Any] = option({}, help="numbers and names that steps use as {name}")
    files: dict[str, Any] = option(
        {},
        help="paths outside the folder of the run, as seen from where the command is typed, that "
        "steps use as {name}; an empty one has to be given",
    )
    steps: list[str] = option(
        [], help="commands, one after the other; paths are inside the folder of the run"
    )


@dataclass
class RunConfig(Section):
    """Options of `astri-gpu run`."""

    output: str = option(REQUIRED, help="folder for everything that the steps write")
    until: str | None = option(
        None, help="last step to do: its number, or the name of a stage; null = all"
    )
    dry_run: bool = option(False, help="print the commands and do nothing")
    overwrite: bool = option(
        False, help="do steps again that have changed since they were done, and all behind them"
    )
    progress: bool | None = option(
        None, help="show progress bars; null = bars on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)


@dataclass
class SweepReportConfig(Section):
    """Options of `astri-gpu sweep-report`."""

    input: str = option(REQUIRED, help="folder of a sweep, or its table of results (.parquet)")
    output: str = option(
        REQUIRED, help="folder to write: pictures, table, best configuration (YAML), page"
    )
    dpi: int = option(130, low=20, high=600, unit="dots per inch", help="resolution of pictures")
    overwrite: bool = option(False, help="replace an existing report")
    debug: bool = option(False, help="show the traceback of an error")
