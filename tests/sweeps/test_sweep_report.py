"""The report of a sweep: pictures, table, page, and a best configuration that can be used."""

import math

import pytest
import yaml
from astropy.table import Table
from matplotlib.image import imread

from astri_gpu.cli import main
from astri_gpu.config import compose
from astri_gpu.sweeps import figures, records

EDGES = [1.0, 3.0, 10.0, 30.0]
MODEL = "Fast model of nothing"


def record(number, score, **swept):
    """Return what a job leaves; without score it failed."""
    config = compose("optimize", ["input=[a.zarr,b.zarr]", "output=cuts.fits"])
    config.cuts.max_theta_deg = swept.get("cuts.max_theta_deg", 0.3)
    failed = score is None
    return {
        "key": f"{number:032d}",
        "job": number,
        "state": records.FAILED if failed else records.DONE,
        "reason": "no gammas <in> the store" if failed else "",
        "score": score,
        "swept": swept,
        "choices": {"cuts": "cc03"},
        "options": records.asdict(config),
        "started": f"2026-01-01T00:00:{number:02d}Z",
        "seconds": 1.5,
        "host": "here",
        "output": "cuts.fits",
        "simulation_model": MODEL,
        **({} if failed else {"n_run": {"process": 2}, "n_reused": {"train": 1}}),
        **({} if failed else {"energy_edges": EDGES, "relative_sensitivity": [1.0, 0.5, math.inf]}),
        **({} if failed else {"sensitivity": [1e-12 * (1 + score), 1e-12, math.inf]}),
    }


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a sweep of five jobs, one of which failed; job 3 is the best."""
    made = [
        record(number, score, **{"cuts.max_theta_deg": 0.1 + 0.05 * number, "cleaning": name})
        for number, (score, name) in enumerate(
            [(0.3, "astri"), (0.2, "mars"), (None, "mars"), (0.1, "astri"), (0.25, "nsb")]
        )
    ]
    for entry in made:
        records.write_record(records.job_folder(tmp_path / "sweep", entry["key"]), entry)
    records.write_table(tmp_path / "sweep", made)
    return tmp_path / "sweep"


@pytest.mark.parametrize("table", [False, True])
def test_report_shows_all_jobs_and_the_best_can_be_used(folder, tmp_path, table, capsys):
    source, output = (folder / records.TABLE if table else folder), tmp_path / "a report"
    words = [str(source), f"output={output}", "dpi=40"]
    assert main(["sweep-report", *words]) == 0
    said = capsys.readouterr().out
    assert "5 jobs (1 failed); best score 0.1 of job 3" in said
    for name in ("score.png", "sensitivity.png", "options.png"):
        assert imread(output / name).std() > 0
    rows = Table.read(output / "jobs.ecsv")
    assert rows["job"].tolist() == [3, 1, 4, 0, 2]
    assert rows["state"].tolist()[-1] == "failed"
    assert rows.meta["simulation_model"] == [MODEL]
    page = (output / "sweep.html").read_text()
    assert "no gammas &lt;in&gt; the store" in page
    best = yaml.safe_load((output / "experiment" / "best.yaml").read_text())
    assert best["cuts"]["max_theta_deg"] == pytest.approx(0.25)
    search = f"hydra.searchpath=['file://{output}']"
    assert main(["optimize", search, "experiment=best", "output=best.fits", "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["input"] == ["a.zarr", "b.zarr"]
    assert shown["cuts"]["max_theta_deg"] == pytest.approx(0.25)
    assert main(["sweep-report", *words]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["sweep-report", *words, "overwrite=true"]) == 0


def test_best_of_jobs_leaves_out_failed_and_infinite_ones():
    made = [record(0, math.inf), record(1, None), record(2, 0.4), record(3, 0.5)]
    assert records.best_of(made)["job"] == 2
    assert records.best_of(made[:2]) is None


def test_sweep_in_which_nothing_is_done_has_no_report(tmp_path, capsys):
    entry = record(0, None, cleaning="mars")
    records.write_record(records.job_folder(tmp_path, entry["key"]), entry)
    assert main(["sweep-report", str(tmp_path), f"output={tmp_path}/report"]) == 1
    assert "None of the 1 job of" in capsys.readouterr().err


def test_input_that_is_no_sweep(tmp_path, capsys):
    (tmp_path / "x.parquet").write_text("no table")
    for name, text in (
        ("nothing", "does not exist: give the folder of a sweep"),
        ("x.parquet", "is no table of a sweep"),
        (".", "holds no records of a sweep"),
    ):
        assert main(["sweep-report", str(tmp_path / name), f"output={tmp_path}/r"]) != 0
        assert text in capsys.readouterr().err


def test_options_of_any_kind_have_a_place_on_their_axis():
    made = [record(n, 0.1 * n, **{"a": 1, "b": [1, 2][: 1 + n % 2], "c": n}) for n in range(9)]
    axes = figures.option_figure(made, 40).axes[0]
    heights = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 4]
    assert len(heights) == 9
    assert all(-0.05 < value < 1.05 for line in heights for value in line)
