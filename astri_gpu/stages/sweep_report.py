"""The stage `sweep-report`: the jobs of a sweep as pictures, table, page, best configuration."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import AstriError
from astri_gpu.stages.outcome import counted

if TYPE_CHECKING:
    from astri_gpu.config import SweepReportConfig

__all__ = ["Summary", "run"]

TABLE = "jobs.ecsv"


@dataclass(frozen=True)
class Summary:
    """What was reported; `line` is the summary for the terminal."""

    path: Path
    n_jobs: int
    n_failed: int
    best: dict[str, Any]
    seconds: float

    @property
    def line(self) -> str:
        """Return jobs, best job and how to use it, in two lines."""
        from astri_gpu.sweeps.report_files import PAGE, command

        failed = f" ({self.n_failed} failed)" if self.n_failed else ""
        swept = ", ".join(f"{name}={value}" for name, value in self.best["swept"].items())
        return (
            f"sweep-report: {self.path / PAGE} shows {counted(self.n_jobs, 'job')}{failed}; best "
            f"score {self.best['score']:.4g} of job {self.best['job']} ({swept}), used by\n    "
            f"{command(str(self.path.absolute()))}"
        )


def run(config: "SweepReportConfig") -> Summary:
    """Write the report of a sweep; its folder appears whole or not at all.

    Raises
    ------
    UsageError
        When the input is no sweep, or the output exists and may not be replaced.
    AstriError
        When no job of the sweep is done, or the table cannot be read.
    """
    from astri_gpu.output_folder import whole_folder
    from astri_gpu.report.figures import save
    from astri_gpu.sweeps import figures, report_files
    from astri_gpu.sweeps.records import DONE, best_of, read_records

    started = time.perf_counter()
    source, output = Path(config.input), Path(config.output)
    records = read_records(source)
    best = best_of(records)
    if best is None:
        reasons = "; ".join(sorted({str(record["reason"]) for record in records})[:3])
        raise AstriError(
            f"None of the {counted(len(records), 'job')} of {source} is done ({reasons}): there is "
            "nothing to compare."
        )
    made = {
        "score.png": figures.score_figure(records, config.dpi),
        "sensitivity.png": figures.curve_figure(records, config.dpi),
        "options.png": figures.option_figure(records, config.dpi),
    }
    ours = {*made, TABLE, report_files.PAGE, Path(report_files.EXPERIMENT).parts[0]}
    with whole_folder(output, ours.__contains__, overwrite=config.overwrite) as folder:
        for name, figure in made.items():
            save(figure, folder / name)
        report_files.write_table(folder / TABLE, records)
        report_files.write_best(folder, best)
        page, place = folder / report_files.PAGE, str(output.absolute())
        report_files.write_page(page, records, list(made), place, source.name)
    return Summary(
        path=output,
        n_jobs=len(records),
        n_failed=sum(record["state"] != DONE for record in records),
        best=dict(best),
        seconds=time.perf_counter() - started,
    )
