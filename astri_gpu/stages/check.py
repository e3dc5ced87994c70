"""The stage `check`: event lists, responses and index files against the format."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.errors import AstriError
from astri_gpu.stages.outcome import counted
from astri_gpu.stages.units import find_inputs

if TYPE_CHECKING:
    from astri_gpu.config import CheckConfig
    from astri_gpu.dl3.check_rules import Finding

__all__ = ["Summary", "run"]

PIPE_WIDTH = 140  # characters where there is no terminal


@dataclass(frozen=True)
class Summary:
    """What was looked at and found."""

    files: tuple[Path, ...]
    findings: "tuple[Finding, ...]"

    @property
    def n_errors(self) -> int:
        """Return how often the files break what the format demands."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def n_warnings(self) -> int:
        """Return how often they do not follow what it recommends."""
        return len(self.findings) - self.n_errors

    @property
    def line(self) -> str:
        """Return files, errors and warnings in one line."""
        if not self.findings:
            return f"check: {counted(len(self.files), 'file')}, nothing found (GADF v0.3)"
        return (
            f"check: {counted(len(self.files), 'file')}, {counted(self.n_errors, 'error')} and "
            f"{counted(self.n_warnings, 'warning')} (GADF v0.3)"
        )


def run(config: "CheckConfig") -> Summary:
    """Check all files, print a table of what was found, and write it if asked for.

    Raises
    ------
    UsageError
        When the table exists and may not be replaced, or no file matches the input.
    AstriError
        When a file breaks what the format demands or, with strict, what it recommends.
    """
    from astri_gpu.dl3.check import check_files

    paths = find_inputs(config.inputs())
    if config.output is None:
        findings = check_files(paths)
    else:
        from astri_gpu.output_file import whole_file

        with whole_file(config.output, overwrite=config.overwrite) as unfinished:
            findings = check_files(paths)
            _write(unfinished, paths, findings)
    summary = Summary(tuple(paths), tuple(findings))
    if findings:
        _show(findings)
    if summary.n_errors or (config.strict and findings):
        raise AstriError(f"{summary.line.removeprefix('check: ')}, see the table")
    return summary


def _show(findings: "Sequence[Finding]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for file in dict.fromkeys(finding.file for finding in findings):
        table = Table(title=Text(file), title_justify="left", expand=False)
        for column in ("", "rule", "table", "where"):
            table.add_column(column)
        table.add_column("what", overflow="fold")
        for finding in findings:
            if finding.file == file:
                colour = "red" if finding.severity == "error" else "yellow"
                words = (finding.rule, finding.hdu, finding.where, finding.text)
                table.add_row(Text(finding.severity, colour), *map(Text, words))
        console.print(table)


def _write(path: Path, files: Sequence[Path], findings: "Sequence[Finding]") -> None:
    from astropy.table import Table

    from astri_gpu import __version__

    names = ("severity", "rule", "file", "hdu", "where", "text")
    rows = [tuple(getattr(finding, name) for name in names) for finding in findings]
    table = Table(rows=rows or None, names=names, dtype=[str] * len(names))
    table.meta = {
        "format": "GADF v0.3",
        "creator": f"astri_gpu {__version__}",
        "files": [file.name for file in files],
    }
    table.write(path, format="ascii.ecsv")
