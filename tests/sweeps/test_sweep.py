"""Sweeps of optimize: records, resume, failures, a kill, Optuna, and the stages before."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from pyarrow import parquet

from astri_gpu.cli import main
from astri_gpu.errors import UsageError
from astri_gpu.stages import optimize
from astri_gpu.sweeps import records
from astri_gpu.sweeps.upstream import check_effect

SMALL = ["cuts.bins_per_decade=2", "backend=cpu", "progress=false"]


@pytest.fixture
def calls(monkeypatch):
    """Return the options of every job that is run, not answered from its record."""
    seen = []
    run = optimize.run
    monkeypatch.setattr(optimize, "run", lambda config: (seen.append(config), run(config))[1])
    return seen


def sweep(pair, folder, *words):
    given = [*pair, *SMALL, *words, f"hydra.sweep.dir={folder}", "--multirun"]
    return main(["optimize", *given])


def rows_of(folder):
    return parquet.read_table(folder / records.TABLE).to_pylist()


def test_jobs_are_recorded_and_not_repeated(drawn_pair, tmp_path, calls, capsys):
    folder = tmp_path / "sweep"
    # The middle one cannot be: the smallest theta cut is not below the largest.
    words = ["cuts.max_theta_deg=0.2,0.01,0.3"]
    assert sweep(drawn_pair, folder, *words) == 3
    told = capsys.readouterr()
    assert "job 1 (cuts.max_theta_deg=0.01): cuts.min_theta_deg is 0.02" in told.err
    assert "1 job(s) of the sweep failed" in told.err
    assert len(calls) == 2
    rows = rows_of(folder)
    assert {row["swept.cuts.max_theta_deg"]: row["state"] for row in rows} == {
        0.2: "done",
        0.01: "failed",
        0.3: "done",
    }
    for row in rows:
        if row["state"] == "done":
            assert len(row["energy_edges"]) == len(row["relative_sensitivity"]) + 1 == 7
            assert json.loads(row["options"])["cuts"]["max_theta_deg"] in (0.2, 0.3)
            assert row["score"] == row["score"]
        else:
            assert "the second has to be larger" in row["reason"]
    # A larger space, in which the jobs have other numbers.
    assert sweep(drawn_pair, folder, "cuts.max_theta_deg=0.25,0.2,0.3") == 0
    assert len(calls) == 3
    assert "sweep of 3 jobs done (2 of them before)" in capsys.readouterr().out
    numbers = {row["swept.cuts.max_theta_deg"]: row["job"] for row in rows_of(folder)}
    assert numbers == {0.25: 0, 0.2: 1, 0.3: 2, 0.01: 1}


def test_what_a_kill_left_is_done_again(drawn_pair, tmp_path, calls):
    folder = tmp_path / "sweep"
    words = ["cuts.max_theta_deg=0.2,0.3"]
    assert sweep(drawn_pair, folder, *words) == 0
    first, second = sorted((folder / records.RESULTS).iterdir())
    (first / "job.json").write_text('{"state": "do')  # cut off
    (second / records.CUTS).unlink()
    assert sweep(drawn_pair, folder, *words) == 0
    assert len(calls) == 4
    assert {row["state"] for row in rows_of(folder)} == {"done"}


def test_changed_input_is_another_job(drawn_pair, tmp_path, calls):
    from tests.drawn_events import drawn_store

    folder, other = tmp_path / "sweep", tmp_path / "gamma.zarr"
    assert sweep(drawn_pair, folder, "cuts.max_theta_deg=0.2") == 0
    drawn_store(other, "gamma", point_like=True, offset_deg=0.5, n_thrown=15_000, seed=3)
    assert sweep((str(other), drawn_pair[1]), folder, "cuts.max_theta_deg=0.2") == 0
    assert len(calls) == 2


def test_sweep_goes_on_after_sigkill(drawn_pair, tmp_path, calls):
    folder = tmp_path / "sweep"
    values = ",".join(f"{0.1 + 0.001 * step:.3f}" for step in range(9))
    words = ["optimize", *drawn_pair, *SMALL, f"cuts.max_theta_deg={values}"]
    command = [sys.executable, "-m", "astri_gpu.cli", *words, f"hydra.sweep.dir={folder}", "-m"]
    running = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while running.poll() is None:
        if len(list(folder.glob(f"{records.RESULTS}/*/job.json"))) >= 2:
            os.killpg(running.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert running.wait() == -signal.SIGKILL
    before = len(records.read_records(folder))
    assert 2 <= before < 9
    assert sweep(drawn_pair, folder, f"cuts.max_theta_deg={values}") == 0
    assert len(calls) == 9 - before
    assert len(rows_of(folder)) == 9


def test_optuna_survives_failed_jobs_and_asks_again_for_what_is_done(
    drawn_pair, tmp_path, calls, capsys
):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    folder = tmp_path / "study"
    # Below 0.02 deg the largest theta cut is smaller than the smallest: such jobs fail.
    words = ["hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=3"]
    words += ["cuts.max_theta_deg=interval(0.001,0.06)"]
    assert sweep(drawn_pair, folder, *words, "hydra.sweeper.n_trials=5") == 3
    rows = rows_of(folder)
    n_failed = sum(row["state"] == "failed" for row in rows)
    assert 0 < n_failed < len(rows) == 5
    assert "the second has to be larger" in capsys.readouterr().err
    assert sweep(drawn_pair, folder, *words, "hydra.sweeper.n_trials=6") == 3
    assert f"{5 - n_failed} of them before" in capsys.readouterr().err
    assert len(calls) <= 6


def test_search_space_of_ours_runs_with_joblib(drawn_pair, tmp_path, capsys):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["sweep=cuts", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert sweep(drawn_pair, tmp_path / "study", *words, "hydra.sweeper.n_trials=2") == 0
    assert "sweep of 2 jobs done, best score" in capsys.readouterr().out
    names = {name for row in rows_of(tmp_path / "study") for name in row if "swept" in name}
    assert names == {"swept.cuts.filter", "swept.cuts.max_theta_deg", "swept.cuts.min_theta_deg"}


def test_search_space_needs_multirun(drawn_pair, tmp_path, capsys):
    assert main(["optimize", *drawn_pair, f"output={tmp_path}/a.fits", "sweep=cuts"]) == 2
    assert "add --multirun" in capsys.readouterr().err


def test_values_of_an_interval_are_checked_before_any_job(drawn_pair, tmp_path, capsys):
    words = ["hydra/sweeper=optuna", "cuts.max_theta_deg=interval(-0.1,0.3)"]
    assert sweep(drawn_pair, tmp_path / "study", *words) == 2
    assert "cuts.max_theta_deg is -0.1: it must be above 0" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_stages_before_are_run_once_and_used_again(simulated_pair, tmp_path, capsys):
    words = [
        f"train=[{','.join(simulated_pair)}]",
        "forest=draft",
        "forest.n_trees=2",
        "forest.max_depth=3",
    ]
    words += [
        "sample.n_importance=0",
        "sample.n_folds=2",
        f"cache={tmp_path}/cache",
        "cuts.min_background_events=1",
    ]
    words += ["cleaning=astri,mars", "cuts.max_theta_deg=0.2,0.3"]
    assert sweep(simulated_pair, tmp_path / "sweep", *words) == 0
    # Two cleanings: two stores are processed and reconstructed for each, one file is trained.
    # The stores are test and training sample at once, and the second is found each time.
    assert (
        "process 4 run / 12 reused, train 2 run / 2 reused, reconstruct 4 run / 4 reused"
        in capsys.readouterr().out
    )
    rows = rows_of(tmp_path / "sweep")
    assert sum(row["stages_run"] for row in rows) == 10
    assert {row["swept.cleaning"] for row in rows} == {"astri", "mars"}
    assert len(list((tmp_path / "cache").glob("reconstruct/*.zarr"))) == 4


def test_options_without_effect_are_refused_before_any_job(
    drawn_pair, simulated_pair, tmp_path, capsys
):
    folder = tmp_path / "sweep"
    assert sweep(drawn_pair, folder, "cleaning=astri,mars") == 2
    assert "cleaning was given, which has no effect: all inputs" in capsys.readouterr().err
    assert sweep(simulated_pair, folder, "cuts.max_theta_deg=0.2,0.3") == 2
    assert "gamma.zarr is a DL0 store, not reconstructed yet" in capsys.readouterr().err
    assert not folder.exists()
    assert main(["optimize", *drawn_pair, f"output={tmp_path}/a.fits", "forest=draft"]) == 2
    assert "forest was given, which has no effect" in capsys.readouterr().err


def test_model_and_train_exclude_each_other(simulated_pair):
    with pytest.raises(UsageError, match="keep one of them"):
        check_effect(simulated_pair, simulated_pair, "forests.skops", [])
    with pytest.raises(UsageError, match=r"forest was changed.*trained already"):
        check_effect(simulated_pair, [], "forests.skops", ["cleaning", "forest"])


def test_table_without_pyarrow_is_left_out(drawn_pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert sweep(drawn_pair, tmp_path / "sweep", "cuts.max_theta_deg=0.2") == 0
    assert "no table of results, only records" in capsys.readouterr().err
    assert len(records.read_records(tmp_path / "sweep")) == 1
