"""Units of work: engines, failures, workers that die, what is finished, and shares of a machine."""

import importlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from astri_gpu.config import BackendConfig, CleaningConfig, ExecutionConfig, ProcessConfig
from astri_gpu.errors import AstriError, PartialFailure, UsageError
from astri_gpu.execution import Share, Workers, cores, plan_workers, visible_devices
from astri_gpu.stages.units import Unit, file_units, find_inputs, run_units

HERE = ExecutionConfig()
POOL = ExecutionConfig(n_workers=2)
DASK = ExecutionConfig(engine="dask", n_workers=2)
ENGINES = [pytest.param(HERE, id="here"), pytest.param(POOL, id="pool")]
ENGINES += [pytest.param(DASK, id="dask")]
PARALLEL = ENGINES[1:]


@pytest.fixture
def module(monkeypatch):
    """The functions that work on units, importable in other processes too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    return importlib.import_module("units_work")


@pytest.fixture
def run(module, tmp_path):
    """Return a function that works on inputs with these words in them."""

    def run(words, execution=HERE, output="out", on_error="skip", **options):
        for name, word in words.items():
            path = tmp_path / name
            if not path.exists() or path.read_text(encoding="utf-8") != word:
                path.write_text(word, encoding="utf-8")
        paths = [tmp_path / name for name in words]
        config = ProcessConfig(
            input=list(map(str, paths)),
            output=str(tmp_path / output),
            on_error=on_error,
            progress=False,
            execution=execution,
            **{"backend": BackendConfig(name="cpu"), **options},
        )
        units = file_units(paths, tmp_path / output, config, suffix=".json")
        outcome = run_units("process", units, module.work, config, recorded=module.recorded)
        return outcome

    return run


def states(outcome):
    return {result.name: result.state for result in outcome.results}


GOOD = dict.fromkeys("abcd", "ok")


@pytest.mark.parametrize("execution", ENGINES)
def test_every_engine_does_all_units_in_their_order(run, execution, tmp_path):
    outcome = run(GOOD, execution)
    assert states(outcome) == dict.fromkeys("abcd", "done")
    assert [path.name for path in outcome.outputs] == ["a.json", "b.json", "c.json", "d.json"]
    assert all(path.exists() for path in outcome.outputs)
    others = {made.pid for made in outcome.done} - {os.getpid()}
    assert len(others) == (0 if execution is HERE else 2)
    assert outcome.finish("all well") == "all well"


@pytest.mark.parametrize("execution", ENGINES)
def test_a_bad_unit_is_told_of_and_the_rest_goes_on(run, execution, caplog, capsys):
    words = {"a": "ok", "b": "bad", "c": "unexpected", "d": "warn"}
    outcome = run(words, execution)
    assert states(outcome) == {"a": "done", "b": "failed", "c": "failed", "d": "done"}
    messages = [record.message for record in caplog.records]
    assert any("b is bad: copy it again." in text for text in messages)
    assert "a pixel is odd" in messages
    assert any(
        text.startswith("c: unexpected ValueError: two lines (run again") for text in messages
    )
    table = capsys.readouterr().err
    assert "process: 4 inputs, 2 done, 2 failed" in table
    assert "copy it again" in table
    with pytest.raises(
        PartialFailure, match=r"2 of 4 inputs failed, the first because: .*b is bad"
    ):
        outcome.finish(None)


def test_all_units_bad(run):
    with pytest.raises(AstriError, match="2 of 2 inputs failed") as caught:
        run({"a": "bad", "b": "bad"}, POOL).finish(None)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("execution", ENGINES)
def test_stop_starts_nothing_new(run, execution, tmp_path, capsys):
    words = {"a": "bad", "b": "sleep 0.5", "c": "ok", "d": "ok", "e": "ok"}
    with pytest.raises(AstriError, match="a is bad") as caught:
        run(words, execution, on_error="stop")
    assert caught.value.exit_code == 1
    made = {path.name for path in (tmp_path / "out").glob("*")}
    # What was running beside the bad one is kept.
    assert made == (set() if execution is HERE else {"b.json"})
    begun = 1 if execution is HERE else 2
    assert f"1 failed, {5 - begun} not begun" in capsys.readouterr().err


def settled(outcome, execution):
    """Return the states of a run in which workers died.

    What a worker of Dask has finished is asked for again when it dies before it could tell; the
    second attempt then finds the output.
    """
    again = {"finished before": "done"} if execution.engine == "dask" else {}
    return {name: again.get(state, state) for name, state in states(outcome).items()}


@pytest.mark.parametrize("execution", PARALLEL)
def test_a_worker_that_dies_once_costs_nothing(run, execution):
    words = {"a": "die_once", "b": "ok", "c": "die_once", "d": "ok"}
    assert settled(run(words, execution), execution) == dict.fromkeys("abcd", "done")


@pytest.mark.parametrize("execution", PARALLEL)
def test_a_worker_that_always_dies_is_reported(run, execution, caplog):
    outcome = run({"a": "die", "b": "ok", "c": "ok"}, replace(execution, retries=1))
    assert settled(outcome, execution) == {"a": "failed", "b": "done", "c": "done"}
    assert "a: its worker process died each of the 2 times it was tried" in caplog.text
    with pytest.raises(PartialFailure, match="1 of 3 inputs failed"):
        outcome.finish(None)


@pytest.mark.parametrize("execution", PARALLEL)
def test_a_lack_of_memory_is_waited_out(run, execution):
    outcome = run({"a": "no_memory_once", "b": "ok", "c": "no_memory"}, execution)
    assert states(outcome) == {"a": "done", "b": "done", "c": "failed"}
    assert "c: not enough memory: lower batch_size" in str(outcome.results[2].error)


def test_a_lack_of_memory_in_this_process(run):
    outcome = run({"a": "no_memory", "b": "ok"})
    assert states(outcome) == {"a": "failed", "b": "done"}


def test_the_error_of_a_single_unit_is_that_of_the_run(run):
    with pytest.raises(ValueError, match="two"):
        run({"a": "unexpected"}, output="a.json")
    with pytest.raises(UsageError, match="Another run is writing") as caught:
        run({"b": "busy"}, output="b.json")
    assert caught.value.exit_code == 2


class TestFinished:
    def test_finished_units_are_left_alone(self, run, tmp_path):
        run(dict.fromkeys("abc", "ok"))
        (tmp_path / "out" / "b.json").unlink()
        before = (tmp_path / "out" / "a.json").stat()
        outcome = run(dict.fromkeys("abc", "ok"), POOL)
        assert states(outcome) == {"a": "finished before", "b": "done", "c": "finished before"}
        assert (outcome.n_before, len(outcome.done)) == (2, 1)
        after = (tmp_path / "out" / "a.json").stat()
        assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)

    def test_a_single_one_too(self, run, capsys):
        assert states(run({"a": "ok"}, output="a.json")) == {"a": "done"}
        assert states(run({"a": "ok"}, output="a.json")) == {"a": "finished before"}
        assert capsys.readouterr().err == ""  # no table of one

    def test_how_it_is_done_does_not_matter(self, run):
        run({"a": "ok"}, output="a.json")
        again = {"batch_size": 7, "debug": True, "backend": BackendConfig(name="cpu", threads=1)}
        assert run({"a": "ok"}, POOL, output="a.json", on_error="stop", **again).n_before == 1

    def test_other_options_are_refused(self, run):
        run(GOOD)
        with pytest.raises(UsageError) as caught:
            run(GOOD, cleaning=CleaningConfig(picture_pe=8.0), images=True)
        text = str(caught.value)
        assert "out/a.json was made with other options (" in text
        assert "cleaning.picture_pe 6.0 → 8.0" in text
        assert "images False → True" in text
        assert states(run(GOOD, images=True, overwrite=True)) == dict.fromkeys("abcd", "done")

    def test_an_input_that_has_changed_is_refused(self, run):
        run({"a": "ok"}, output="a.json")
        with pytest.raises(UsageError, match=r"made from another a, or .*a has changed since"):
            run({"a": "ok now"}, output="a.json")

    def test_the_same_name_elsewhere(self, run, module, tmp_path):
        run({"a": "ok"}, output="a.json")
        (tmp_path / "folder").mkdir()
        other = tmp_path / "folder" / "a"
        config = ProcessConfig(
            input=str(other), output=str(tmp_path / "a.json"), backend=BackendConfig(name="cpu")
        )
        units = [Unit(other, tmp_path / "a.json", config)]
        other.write_text("ok", encoding="utf-8")  # a copy is as good
        outcome = run_units("process", units, module.work, config, recorded=module.recorded)
        assert outcome.n_before == 1
        other.write_text("ok or not", encoding="utf-8")
        with pytest.raises(UsageError, match="made from another a"):
            run_units("process", units, module.work, config, recorded=module.recorded)

    def test_outputs_that_are_none_of_ours(self, run, tmp_path):
        (tmp_path / "a").write_text("ok", encoding="utf-8")
        config = ProcessConfig(input=str(tmp_path / "a"), output=str(tmp_path / "there"))
        (tmp_path / "there").mkdir()
        units = file_units(find_inputs([str(tmp_path / "a")]), tmp_path / "there", config)
        with pytest.raises(UsageError, match="there exists already, and not as an output of"):
            run_units("process", units, print, config)

    @pytest.mark.parametrize("execution", ENGINES)
    def test_two_runs_share_the_work(self, run, execution, caplog):
        words = {"a": "busy", "b": "other_run", "c": "ok"}
        outcome = run(words, execution, on_error="stop")
        assert states(outcome) == {"a": "busy", "b": "finished before", "c": "done"}
        assert "Another run is writing" in caplog.text
        with pytest.raises(PartialFailure, match=r"1 input of 3 left to another run that is"):
            outcome.finish(None)


class TestShares:
    def test_plan(self, monkeypatch):
        n = cores()

        def plan(execution, n_items=100, backend="cpu", per_core=False):
            return plan_workers(execution, n_items, backend=backend, per_core=per_core)

        assert plan(HERE) == Workers(1)
        assert plan(HERE, per_core=True) == (Workers(n, 1) if n > 1 else Workers(1))
        assert plan(ExecutionConfig(n_workers=4), 3) == Workers(3, max(1, n // 3))
        assert plan(ExecutionConfig(n_workers=1, threads_per_worker=1)) == Workers(1, 1)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5,-1,7")
        assert plan(HERE) == Workers(1)  # no use for GPUs
        gpus = plan(HERE, backend="cupy")
        assert gpus == Workers(2, max(1, n // 2), ("3", "GPU-5"))
        assert gpus.share(1) == Share(gpus.threads, "GPU-5", device_is_shared=False)
        three = plan(ExecutionConfig(n_workers=3), backend="jax")
        assert three.share(2) == Share(three.threads, "3", device_is_shared=True)
        assert plan(HERE, 1, backend="jax") == Workers(1)

    def test_devices_of_the_driver(self, monkeypatch, tmp_path):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert visible_devices() == ()
        command = tmp_path / "nvidia-smi"
        command.write_text("#!/bin/sh\necho 'GPU 0: one (UUID: x)'\necho 'GPU 1: two'\n")
        command.chmod(0o755)
        assert visible_devices() == ("0", "1")
        command.write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
        assert visible_devices() == ()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert visible_devices() == ()

    @pytest.mark.parametrize("execution", PARALLEL)
    def test_workers_keep_to_their_share(self, run, execution, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
        jax = BackendConfig(name="jax")
        done = run(GOOD, replace(execution, n_workers=0), backend=jax).done
        assert {made.environment["CUDA_VISIBLE_DEVICES"] for made in done} == {"5", "6"}
        assert {made.environment["XLA_PYTHON_CLIENT_PREALLOCATE"] for made in done} == {None}
        threads = max(1, cores() // 2)
        assert {made.threads for made in done} == {threads}
        assert {made.environment["RAYON_NUM_THREADS"] for made in done} == {str(threads)}
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,6"

    @pytest.mark.parametrize("execution", PARALLEL)
    def test_threads_as_asked_for(self, run, execution, module):
        done = run(GOOD, replace(execution, n_workers=1, threads_per_worker=3)).done
        assert {made.threads for made in done} == {3}
        for name in module.THREAD_VARIABLES:
            assert {made.environment[name] for made in done} == {"3"}
        given = BackendConfig(name="cpu", threads=2)
        done = run(GOOD, replace(execution, n_workers=1), backend=given, output="given").done
        assert {made.threads for made in done} == {2}


def test_workers_do_not_outlive_a_killed_run(tmp_path):
    (tmp_path / "a").write_text("sleep 60", encoding="utf-8")
    code = (
        "import sys, units_work\n"
        "from pathlib import Path\n"
        "from astri_gpu.config import ExecutionConfig, ProcessConfig\n"
        "from astri_gpu.stages.units import file_units, run_units\n"
        "if __name__ == '__main__':\n"
        "    execution = ExecutionConfig(threads_per_worker=1)\n"
        "    config = ProcessConfig(input='a', output='b', progress=False, execution=execution)\n"
        "    run_units('process', file_units([Path('a')], Path('b'), config), units_work.work,\n"
        "              config)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.DEVNULL,  # Python tells of semaphores that the killed process had
    ) as parent:
        note = tmp_path / "pid"
        while not (note.exists() and note.read_text()) and parent.poll() is None:
            time.sleep(0.02)
        parent.send_signal(signal.SIGKILL)
    worker = int(note.read_text())
    for _ in range(500):
        if not _alive(worker):
            break
        time.sleep(0.02)
    assert not _alive(worker)


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
