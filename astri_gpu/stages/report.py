"""The stage `report`: numbers and pictures of simulated and processed events, in one folder."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.progress import progress
from astri_gpu.stages.units import counted, find_inputs

if TYPE_CHECKING:
    from astri_gpu.config import ReportConfig
    from astri_gpu.report.collect import Sample
    from astri_gpu.report.separation import Separation

__all__ = ["Summary", "run"]

PAGE = "report.html"
NUMBERS = "summary.json"
OVERVIEW = "overview.png"


@dataclass(frozen=True)
class Summary:
    """What the report is about, and where it is; `numbers` are the contents of summary.json."""

    path: Path
    n_stores: int
    n_events: int
    n_images: int
    seconds: float
    numbers: dict[str, Any]

    @property
    def line(self) -> str:
        """Return file, stores, events, images and seconds in one line."""
        return (
            f"report: {self.path / PAGE} shows {counted(self.n_events, 'event')} and "
            f"{counted(self.n_images, 'image')} of {counted(self.n_stores, 'store')} "
            f"({self.seconds:.1f} s)"
        )


def run(config: "ReportConfig") -> Summary:
    """Write the report; its folder appears whole or not at all.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced, or no file matches the input.
    AstriError
        When an input is no processed store of simulated events, or the disk takes no more.
    """
    from astri_gpu.provenance import now, provenance
    from astri_gpu.report.collect import collect
    from astri_gpu.report.numbers import summary
    from astri_gpu.report.page import page
    from astri_gpu.report.separation import separation_numbers, separations
    from astri_gpu.report.tables import NOTE, write_tables
    from astri_gpu.store import open_store
    from astri_gpu.store_disk import json_ready

    started, clock = now(), time.perf_counter()
    output = Path(config.output)
    paths = find_inputs(config.inputs())
    _check_output(output, config.overwrite)
    total = sum(int(open_store(path).attrs.get("n_images") or 0) for path in paths)
    with progress(total or None, "report", "images", config.progress) as shown:
        samples = collect(paths, shown)
    numbers = summary(samples, config.bins_per_decade)
    found = separations(samples, config.bins_per_decade)
    comparisons = separation_numbers(found)
    title = "Simulated events: " + ", ".join(sample.label for sample in samples)
    with _folder(output) as folder:
        pictures = _draw(samples, found, config, folder)
        tables = write_tables(folder, samples, found, config.bins_per_decade)
        record = json_ready(
            {
                "title": title,
                "note": NOTE,
                "samples": numbers,
                "separation": comparisons,
                "tables": tables,
                "provenance": provenance("report", asdict(config), paths, started),
            }
        )
        (folder / NUMBERS).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        text = page(title, numbers, pictures, _notes(samples), comparisons, tables)
        (folder / PAGE).write_text(text, encoding="utf-8")
    return Summary(
        path=output,
        n_stores=len(paths),
        n_events=sum(sample.n_events for sample in samples),
        n_images=sum(sample.n_images for sample in samples),
        seconds=time.perf_counter() - clock,
        numbers=numbers,
    )


def _draw(
    samples: "Sequence[Sample]",
    found: "Sequence[Separation]",
    config: "ReportConfig",
    folder: Path,
) -> list[str]:
    """Draw the pictures into the folder; return those of the page."""
    from astri_gpu.report import figures, reco_figures

    event = figures.brightest_event(samples)
    per_decade, dpi = config.bins_per_decade, config.dpi
    made = {
        "parameters.png": figures.parameter_figure(samples, dpi),
        "effective_area.png": figures.area_figure(samples, per_decade, dpi),
        "errors.png": figures.error_figure(samples, per_decade, dpi),
        **reco_figures.reconstruction_figures(samples, found, per_decade, dpi),
    }
    if event is not None:
        made = {"event.png": figures.picture_of_event(event, dpi), **made}
    for name, figure in made.items():
        figures.save(figure, folder / name)
    figures.save(figures.overview_figure(samples, event, per_decade, dpi), folder / OVERVIEW)
    return list(made)


def _notes(samples: "Sequence[Sample]") -> list[str]:
    """Return what the reader must not miss: the model, and numbers that cannot be given."""
    from astri_gpu.report.trained import trained_files

    notes = sorted({model for sample in samples for model in sample.models})
    for sample in samples:
        if sample.thrown is None:
            notes.append(
                f"{sample.label}: the stores do not say how many showers were thrown (or were cut "
                "off), so there is no effective area and no rate."
            )
    notes += [trained.sentence for trained in trained_files(samples)]
    seen = [name for sample in samples for name in sample.seen]
    if seen:
        notes.append(
            f"The models were trained on these very events ({', '.join(seen)}), so the numbers are "
            "better than those of new events: train and test on different stores."
        )
    return notes


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output that exists, unless it is a report that may be replaced, or empty."""
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"The output {output} is a file: a report is a folder, name another one.")
    if not any(output.iterdir()):
        return
    if not (output / PAGE).is_file():
        raise UsageError(
            f"The output {output} holds other files and no report, so it will not be replaced: "
            "choose another output."
        )
    if not overwrite:
        raise UsageError(
            f"The report {output} exists already: choose another output or set overwrite=true."
        )


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """Give a folder to fill; its files go to `output` when all of them are complete.

    Files of others in `output` stay as they are; the page comes last.
    """
    from astri_gpu.report.page import CAPTIONS
    from astri_gpu.report.tables import TABLES
    from astri_gpu.store_disk import disk_errors

    target = Path(os.path.abspath(output))
    partial = target.with_name(target.name + ".partial")
    try:
        with disk_errors(output):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
            partial.mkdir()
            yield partial
            if not target.exists():
                os.replace(partial, target)
                return
            for name in {*CAPTIONS, *TABLES, OVERVIEW, NUMBERS, PAGE} - set(os.listdir(partial)):
                (target / name).unlink(missing_ok=True)  # an earlier report had it
            for name in sorted(os.listdir(partial), key=lambda name: name == PAGE):
                os.replace(partial / name, target / name)
    except OSError as error:
        raise AstriError(
            f"The report {output} cannot be written ({error.strerror or error}): choose another "
            "output or change its permissions."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
