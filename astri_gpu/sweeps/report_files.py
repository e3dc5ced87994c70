"""What a report of a sweep says in text: table, page, and the best configuration ready to use."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from astri_gpu.sweeps.records import DONE, best_of, is_scored
from astri_gpu.sweeps.upstream import PROCESS, TRAIN

__all__ = ["CAPTIONS", "EXPERIMENT", "PAGE", "command", "write_best", "write_page", "write_table"]

Record = Mapping[str, Any]

PAGE = "sweep.html"
EXPERIMENT = "experiment/best.yaml"  # in a folder of this name Hydra finds it as experiment=best
SECTIONS = ("calibration", "cleaning", "parameters", "stereo", "features", "forest", "sample")
N_ROWS = 20  # of the best jobs on the page
CAPTIONS = {
    "score.png": ("Score by job", "Every job, and the best score up to it. Crosses: failed jobs."),
    "sensitivity.png": (
        "Sensitivity",
        "Differential sensitivity of all jobs (grey) and of the best ones in bins of reconstructed "
        "energy, each for its exposure, and the curve "
        "that ASTRI has published for 50 h; below, the ratio of the two. A lower curve may have a "
        "worse score: cuts that leave hardly any simulated background are judged with more of it.",
    ),
    "options.png": (
        "Options and score",
        "One line per job through the values of what was swept, to its score.",
    ),
}
"""Title and caption of each picture, in the order of the page."""


def command(place: str) -> str:
    """Return how the best configuration is used, from the folder of the report."""
    return (
        f"astri-gpu optimize 'hydra.searchpath=[file://{place}]' experiment=best output=best.fits"
    )


def write_best(folder: Path, record: Record) -> None:
    """Write the options of a job as an experiment (`EXPERIMENT`) that Hydra can find.

    Every option that decides the result is in it; `output` is not. Those of earlier stages are
    left out where the inputs had them behind.
    """
    import yaml

    options = dict(record["options"])
    left_out = {"output", "overwrite", "progress", "debug", "execution"}
    if not options.get("train") and not record.get("n_run") and not record.get("n_reused"):
        left_out |= {*PROCESS, *TRAIN, "cache"}
    kept = {
        name: value
        for name, value in options.items()
        if name not in left_out and not (name in ("train", "model") and value is None)
    }
    if isinstance(kept.get("backend"), dict):
        kept["backend"] = {**kept["backend"], "threads": 0}  # of one job among others
    swept = ", ".join(f"{name}={value}" for name, value in record["swept"].items())
    head = (
        "# @package _global_\n"
        f"# best of a sweep: job {record['job']}, score {record['score']:.6g} ({swept})\n"
    )
    path = folder / EXPERIMENT
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")


def write_table(path: Path, records: Sequence[Record]) -> None:
    """Write the jobs as ECSV, the best first, those that failed last."""
    from astropy.table import Column, Table

    rows = _ranked(records)
    columns = [
        Column([int(row["job"]) for row in rows], name="job"),
        Column([str(row["state"]) for row in rows], name="state"),
        Column(
            [float(row["score"]) if is_scored(row) else float("nan") for row in rows],
            name="score",
            description="small is good",
        ),
    ]
    for name in _swept_names(records):
        values = [row["swept"].get(name) for row in rows]
        columns.append(Column([str(value) for value in values], name=name, description="swept"))
    columns += [
        Column([float(row["seconds"] or 0) for row in rows], name="seconds", unit="s"),
        Column([sum((row.get("n_run") or {}).values()) for row in rows], name="stages_run"),
        Column([sum((row.get("n_reused") or {}).values()) for row in rows], name="stages_reused"),
        Column([str(row["reason"]) for row in rows], name="reason"),
        Column([str(row["key"]) for row in rows], name="key"),
    ]
    models = sorted({str(row["simulation_model"]) for row in rows if row.get("simulation_model")})
    Table(columns, meta={"simulation_model": models}).write(path, format="ascii.ecsv")


def write_page(
    path: Path, records: Sequence[Record], pictures: Sequence[str], place: str, source: str
) -> None:
    """Write the page: numbers, the best jobs, those that failed, pictures with captions.

    Parameters
    ----------
    path
        The file.
    records
        All jobs.
    pictures
        Names of the PNG files beside it, keys of `CAPTIONS`.
    place
        Folder in which the report will be, for the command that uses its best configuration.
    source
        What the report was made from.
    """
    from astri_gpu.report.page import STYLE

    title = f"Sweep {source}"
    best = best_of(records)
    done = [record for record in records if record["state"] == DONE]
    failed = [record for record in records if record["state"] != DONE]
    models = sorted(
        {str(row["simulation_model"]) for row in records if row.get("simulation_model")}
    )
    seconds = sum(float(record["seconds"] or 0) for record in records)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>\n{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="note">{escape(model)}</p>' for model in models),
        f"<p>{len(done)} jobs done, {len(failed)} failed, {seconds:,.1f} s of work.</p>",
    ]
    if best is not None:
        parts += [
            "<h2>Best configuration</h2>",
            f'<p>Job {best["job"]}, score {best["score"]:.4g}: <a href="{EXPERIMENT}">'
            f"{EXPERIMENT}</a>, used by</p><pre>{escape(command(place))}</pre>",
        ]
    parts += ["<h2>Best jobs</h2>", _jobs([row for row in _ranked(records) if is_scored(row)])]
    if failed:
        parts += ["<h2>Failed jobs</h2>", _failed(failed)]
    for name in pictures:
        heading, caption = CAPTIONS[name]
        parts += [
            f"<h2>{escape(heading)}</h2>",
            f'<p><img src="{escape(name)}" alt="{escape(heading)}"></p>',
            f'<p class="caption">{escape(caption)}</p>',
        ]
    parts += [
        '<footer><p>All jobs are in <a href="jobs.ecsv">jobs.ecsv</a>. Made by astri-gpu '
        "sweep-report.</p></footer>",
        "</body></html>",
        "",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _ranked(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=lambda row: row["score"] if is_scored(row) else float("inf"))


def _swept_names(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for row in records for name in row["swept"]))


def _jobs(rows: Sequence[Record]) -> str:
    names = _swept_names(rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in ["job", *names, "score", "s"])
    lines = [f"<tr>{head}</tr>"]
    for row in rows[:N_ROWS]:
        cells = [str(row["job"]), *(_short(row["swept"].get(name)) for name in names)]
        cells += [f"{row['score']:.4g}", f"{row['seconds']:.1f}"]
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    more = f"<p>and {len(rows) - N_ROWS} more</p>" if len(rows) > N_ROWS else ""
    return f"<table>{''.join(lines)}</table>{more}"


def _failed(rows: Sequence[Record]) -> str:
    lines = ["<tr><th>job</th><th>swept</th><th>reason</th></tr>"]
    for row in rows:
        swept = ", ".join(f"{name}={_short(value)}" for name, value in row["swept"].items())
        cells = [str(row["job"]), swept, str(row["reason"])]
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
