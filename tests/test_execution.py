"""Productions in parts, through every engine and launcher: the same numbers, and honest ends."""

import json
import logging
import os
import shutil
import sys

import numpy as np
import pytest

from astri_gpu.cli import main
from astri_gpu.config import ExecutionConfig, compose
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.stages import process, simulate
from astri_gpu.store import open_store

N_PARTS = 3
SHOWERS = ["n_showers=90", "shower=draft", "spectrum.energy_min_tev=3", "backend=cpu"]
SHOWERS += ["view.scatter_radius_m=300", "progress=false", "seed=5", "first_shower=1000"]


def simulated(output, *words):
    return simulate.run(compose("simulate", [f"output='{output}'", *SHOWERS, *words]))


def processed(inputs, output, *words):
    words = (f"output='{output}'", "backend=cpu", "progress=false", *words)
    return process.run(compose("process", [f"input='{inputs}'", *words]))


@pytest.fixture(scope="module")
def production(tmp_path_factory):
    """Three parts of a production, made by two processes."""
    folder = tmp_path_factory.mktemp("production") / "parts"
    summary = simulated(folder, f"n_parts={N_PARTS}", "execution.n_workers=2")
    assert (summary.n_done, summary.n_showers) == (N_PARTS, 90)
    assert summary.line.startswith("simulate: 90 showers in 3 parts, ")
    return folder


@pytest.fixture(scope="module")
def serial(production, tmp_path_factory):
    """The production, processed one part after the other in this process."""
    folder = tmp_path_factory.mktemp("serial") / "dl2"
    assert processed(production / "*.zarr", folder).n_done == N_PARTS
    return folder


def arrays(path):
    """Return all arrays of a store by name."""
    import zarr

    group = zarr.open_group(path, mode="r")
    return {
        name: np.asarray(item[...])
        for name, item in group.members(max_depth=None)
        if isinstance(item, zarr.Array)
    }


def assert_equal_folders(left, right):
    names = sorted(path.name for path in left.iterdir())
    assert names == sorted(path.name for path in right.iterdir())
    assert len(names) == N_PARTS
    for name in names:
        expected, found = arrays(left / name), arrays(right / name)
        assert expected.keys() == found.keys()
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=f"{name}/{key}")


class TestParts:
    def test_parts_together_are_the_undivided_production(self, production, tmp_path):
        simulated(tmp_path / "whole.zarr")
        whole = arrays(tmp_path / "whole.zarr")
        parts = [arrays(path) for path in sorted(production.iterdir())]
        assert [len(part["dl0/event/event_id"]) for part in parts].count(0) == 0
        offset = np.cumsum([0, *(len(part["dl0/event/event_id"]) for part in parts)])
        for key, expected in whole.items():
            pieces = [part[key] for part in parts]
            if key.endswith("event_index"):
                pieces = [piece + start for piece, start in zip(pieces, offset, strict=False)]
            table = key.startswith(("dl0/", "simulation/event", "simulation/image"))
            if key.endswith("thrown/histogram"):
                found = sum(piece.astype(np.int64) for piece in pieces)
            elif table:
                found = np.concatenate(pieces)
            else:
                found = pieces[0]
            if key.endswith("/obs_id"):
                assert set(found) == {500001, 500002, 500003}
                assert set(expected) == {50}
            else:
                np.testing.assert_array_equal(found, expected, err_msg=key)

    def test_every_part_says_which_showers_it_has(self, production):
        headers = [
            open_store(path).group_attrs("simulation") for path in sorted(production.iterdir())
        ]
        assert [header["first_shower"] for header in headers] == [1000, 1030, 1060]
        assert [header["n_showers"] for header in headers] == [30, 30, 30]

    def test_lost_parts_are_made_again(self, production, tmp_path, monkeypatch):
        copy = tmp_path / "parts"
        shutil.copytree(production, copy)
        shutil.rmtree(copy / "part_0001.zarr")
        summary = simulated(copy, f"n_parts={N_PARTS}")
        assert (summary.n_done, summary.n_before, summary.n_showers) == (1, 2, 30)
        assert "in 1 part (2 parts done before)" in summary.line
        assert_equal_folders(production, copy)
        with pytest.raises(
            UsageError, match=r"part_0000.zarr was made with other options \(n_show"
        ):
            simulated(copy, "n_parts=2")

    def test_uneven_parts_and_given_numbers(self, tmp_path):
        words = ["n_showers=7", "n_parts=3", "obs_id=40", f"output={tmp_path / 'p'}"]
        units = simulate.production_units(compose("simulate", [*SHOWERS, *words]))
        ranges = [(unit.config.first_shower, unit.config.n_showers) for unit in units]
        assert ranges == [(1000, 2), (1002, 2), (1004, 3)]
        assert [unit.config.obs_id for unit in units] == [40, 41, 42]
        assert all(unit.config.output == str(unit.output) for unit in units)

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["n_parts=91"], "n_parts is 91: there are only 90 showers"),
            (["n_parts=2", "source=corsika", "input=a"], "a CORSIKA file is one part"),
        ],
    )
    def test_parts_that_cannot_be(self, words, sentence, tmp_path):
        with pytest.raises(UsageError, match=sentence):
            simulated(tmp_path / "p", *words)

    def test_parts_do_not_go_into_a_store(self, production):
        with pytest.raises(UsageError, match="of 2 parts has to be a directory for stores"):
            simulated(production / "part_0000.zarr", "n_parts=2")


def test_several_corsika_files(shared_data, tmp_path):
    for name in ("a.zst", "b.zst"):
        source = shared_data / "corsika" / "5_gamma_2_telescopes_reuse_2_split_always.zst"
        shutil.copy(source, tmp_path / name)
    words = ["source=corsika", f"input='{tmp_path}/*.zst'", f"output='{tmp_path}/dl0'"]
    words += ["backend=cpu", "progress=false"]
    summary = simulate.run(compose("simulate", words))
    assert [path.name for path in summary.outputs] == ["a.zarr", "b.zarr"]
    assert (summary.n_done, summary.n_showers) == (2, 10)
    again = simulate.run(compose("simulate", words))
    assert again.line == "simulate: nothing to do, 2 parts done before"
    with pytest.raises(UsageError, match=r"obs_id=3 would be given to 2 files"):
        simulate.run(compose("simulate", [*words, "obs_id=3"]))


@pytest.mark.parametrize("execution", ["local", "dask"])
def test_every_engine_processes_to_the_same_numbers(production, serial, tmp_path, execution):
    output = tmp_path / "dl2"
    words = [f"execution={execution}", "execution.n_workers=2", "execution.threads_per_worker=1"]
    summary = processed(production / "*.zarr", output, *words)
    assert summary.n_done == N_PARTS
    assert_equal_folders(serial, output)
    assert processed(production / "*.zarr", output).n_before == N_PARTS


def test_one_bad_store_among_several(production, serial, tmp_path, capsys):
    folder = tmp_path / "dl0"
    shutil.copytree(production, folder)
    shutil.rmtree(folder / "part_0001.zarr" / "instrument")
    words = [str(folder / "*.zarr"), f"output={tmp_path / 'dl2'}", "backend=cpu", "progress=false"]
    assert main(["process", *words, "on_error=skip", "execution.n_workers=2"]) == 3
    text = capsys.readouterr().err
    assert "process: 3 inputs, 2 done, 1 failed" in text
    assert "1 of 3 inputs failed, the first because:" in text
    assert "Traceback" not in text
    assert sorted(os.listdir(tmp_path / "dl2")) == ["part_0000.zarr", "part_0002.zarr"]


class TestDask:
    @pytest.mark.parametrize(
        ("name", "words", "remedy"),
        [
            ("distributed", ["execution=dask"], r"pip install 'astri_gpu\[dask\]'"),
            ("dask_jobqueue", ["execution=slurm"], r"pip install 'astri_gpu\[dask\]'"),
            ("dask_cuda", ["execution=cuda"], "pip install dask-cuda"),
        ],
    )
    def test_packages_that_are_missing(
        self, production, tmp_path, monkeypatch, name, words, remedy
    ):
        monkeypatch.setitem(sys.modules, name, None)
        package = name.replace("_", "-")
        with pytest.raises(AstriError, match=f"{package}, which is not installed: {remedy}"):
            processed(production / "*.zarr", tmp_path / "dl2", *words)
        assert not (tmp_path / "dl2").exists()

    def test_a_scheduler_that_is_not_there(self, production, tmp_path, monkeypatch):
        pytest.importorskip("distributed")
        from astri_gpu import execution_dask

        monkeypatch.setattr(execution_dask, "JOIN_S", 0.5)
        words = ["execution=dask", "execution.address='tcp://127.0.0.1:9'"]
        with pytest.raises(AstriError, match="Dask has no workers for this run at tcp://127"):
            processed(production / "*.zarr", tmp_path / "dl2", *words)

    def test_a_scheduler_that_runs_already(self, production, serial, tmp_path):
        distributed = pytest.importorskip("distributed")
        handlers = list(logging.getLogger("astri_gpu").handlers)
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", processes=False
        ) as cluster:
            words = ["execution=dask", f"execution.address='{cluster.scheduler_address}'"]
            assert processed(production / "*.zarr", tmp_path / "dl2", *words).n_done == N_PARTS
        assert_equal_folders(serial, tmp_path / "dl2")
        # The worker was a thread of this process, and has left nothing behind.
        assert logging.getLogger("astri_gpu").handlers == handlers

    def test_what_slurm_is_asked_for(self, monkeypatch):
        pytest.importorskip("dask_jobqueue")
        from astri_gpu.execution_dask import slurm_options

        script = slurm_options(
            ExecutionConfig(
                engine="dask", cluster="slurm", n_workers=8, threads_per_worker=3,
                memory_per_worker_gib=2.0, queue="gpu", account="astri", walltime="02:00:00",
                workers_per_job=2, gpus_per_job=2, job_directives=["--constraint=a100"],
                job_prologue=["module load cuda"], log_directory="logs",
            )
        )  # fmt: skip
        from dask_jobqueue.slurm import SLURMJob

        text = SLURMJob(scheduler="tcp://a:1", name="w", **script).job_script()
        for line in (
            "#SBATCH -p gpu", "#SBATCH -A astri", "#SBATCH --cpus-per-task=6", "#SBATCH --mem=4G",
            "#SBATCH -t 02:00:00", "#SBATCH --constraint=a100", "#SBATCH --gres=gpu:2",
            "module load cuda",
        ):  # fmt: skip
            assert line in text
        assert "--nworkers 2" in text
        assert "--nthreads 1" in text

    def test_workers_of_a_job_share_its_gpus(self, monkeypatch):
        pytest.importorskip("distributed")
        from astri_gpu.execution import Share
        from astri_gpu.execution_dask import share_of

        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        shares = (Share(2),)
        assert share_of("SLURMCluster-3-1", shares, 2, 2) == Share(2, "7")
        assert share_of("SLURMCluster-3", shares, 2, 1) == Share(2, "4")
        assert share_of("SLURMCluster-3", shares, 0, 1) == Share(2)
        assert share_of(1, (Share(1, "0"), Share(1, "1")), 0, 1) == Share(1, "1")
        assert share_of("SLURMCluster-0-2", shares, 2, 3) == Share(2, "4", device_is_shared=True)


LAUNCHERS = [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]]


class TestSweeps:
    def sweep(self, production, folder, launcher, *words):
        name, *options = launcher
        source = production / "part_0000.zarr"
        return main(
            [
                *("process", str(source), f"output={folder}/${{cleaning.picture_pe}}.zarr"),
                *("backend=cpu", "progress=false", f"hydra.sweep.dir={folder}/sweep", "-m"),
                *(f"hydra/launcher={name}", *options, *words),
            ]
        )

    @pytest.mark.parametrize("launcher", LAUNCHERS, ids=["joblib", "submitit"])
    def test_launchers(self, production, tmp_path, monkeypatch, capfd, launcher):
        pytest.importorskip(f"hydra_plugins.hydra_{launcher[0].split('_')[0]}_launcher")
        monkeypatch.chdir(tmp_path)
        # The last one is refused: the boundary threshold (3 p.e.) may not be the higher one.
        assert self.sweep(production, tmp_path, launcher, "cleaning.picture_pe=5,7,2") == 3
        assert sorted(path.name for path in tmp_path.glob("*.zarr")) == ["5.0.zarr", "7.0.zarr"]
        assert "1 job(s) of the sweep failed" in capfd.readouterr().err
        records = [json.loads(path.read_text()) for path in tmp_path.glob("sweep/*/*.json")]
        assert sorted(record["done"] for record in records) == [False, True, True]
        (reason,) = [record["reason"] for record in records if record["reason"]]
        assert reason.startswith("cleaning.boundary_pe is 3: it must be at most")
        threads = open_store(tmp_path / "5.0.zarr").attrs["config"]["backend"]["threads"]
        assert threads == max(1, len(os.sched_getaffinity(0)) // (2 if "joblib" in launcher else 3))
        # The same sweep again: what is done is left as it is.
        before = (tmp_path / "5.0.zarr").stat().st_ino
        assert self.sweep(production, tmp_path, launcher, "cleaning.picture_pe=5,7") == 0
        assert (tmp_path / "5.0.zarr").stat().st_ino == before
        assert "sweep of 2 jobs done" in capfd.readouterr().out

    def test_all_jobs_fail(self, production, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        assert self.sweep(production, tmp_path, ["basic"], "cleaning.picture_pe=1,2") == 1
        assert "2 job(s) of the sweep failed" in capsys.readouterr().err
        assert (root.handlers, root.level) == (handlers, level)  # Hydra sets up its own

    def test_a_launcher_that_is_not_installed(self, production, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert self.sweep(production, tmp_path, ["submitit_mars"], "images=true,false") == 2
        assert "pip install 'astri_gpu[sweeps]'" in capsys.readouterr().err
