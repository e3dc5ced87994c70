"""Killed runs: the same command completes the work, and nothing is lost, repeated or left over."""

import errno
import fcntl
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from astri_gpu import store_lock
from astri_gpu.errors import OutputBusy, UsageError
from astri_gpu.store import create, open_store

HERE = Path(__file__).parent
X = "instrument/telescope/x"


@pytest.mark.parametrize("stage", ["simulate", "ingest", "process"])
def test_stage_killed_at_random(stage, tmp_path, request):
    if stage == "ingest":
        request.getfixturevalue("shared_data")
    done = subprocess.run(
        [
            sys.executable,
            str(HERE / "kill_runs.py"),
            f"--stage={stage}",
            "--kills=2",
            f"--work={tmp_path}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{stage}: 2 kills" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def kill_runs():
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("kill_runs", HERE / "kill_runs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_runs"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kill_runs"]


@pytest.mark.parametrize(
    ("value", "attrs", "extra", "message"),
    [
        (1.0, {"provenance": {"started": "later"}}, None, None),
        (1.5, {}, None, "array instrument/telescope/x differs"),
        (1.0, {"kind": "proton"}, None, "attributes of . differ"),
        (1.0, {}, "y", "groups or arrays differ: .'instrument/telescope/y'"),
    ],
)
def test_the_script_sees_differences(value, attrs, extra, message, kill_runs, tmp_path):
    for name, x, more in (("a", 1.0, {}), ("b", value, attrs)):
        given = {"kind": "gamma", "provenance": {"started": "now"}} | more
        with create(tmp_path / name, attrs=given) as writer:
            writer.write("instrument/telescope", "x", [x])
            if extra and name == "b":
                writer.write("instrument/telescope", extra, [x])
    if message is None:
        kill_runs.compare(tmp_path / "b", tmp_path / "a")
        return
    with pytest.raises(kill_runs.Broken, match=message):
        kill_runs.compare(tmp_path / "b", tmp_path / "a")


# Forks a child for every step of the file system that writing a store takes, and kills it there.
STEPS = """
import os, signal, sys
from pathlib import Path
import numcodecs, zarr, zarr.codecs  # once, not in every child
from astri_gpu.store import create, open_store

STEPS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir")

def write(path, value, overwrite):
    with create(path, overwrite=overwrite, attrs={}) as writer:
        writer.write("instrument/telescope", "x", [value])

def child(work):
    pid = os.fork()
    if not pid:
        os._exit(work() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def killed_at(step, path):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in STEPS and arguments and str(path) in str(arguments[0]):
            seen += 1
            if seen > step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    write(path, 2.0, overwrite)

def value(path):
    return float(open_store(path).read("instrument/telescope/x")[0])

def check(path):
    earlier = path.with_name(path.name + ".replaced")
    if path.exists():
        assert value(path) in (1.0, 2.0)  # complete, whichever it is
    elif overwrite:
        assert value(earlier) == 1.0
    if path.exists() and not overwrite:
        assert value(path) == 2.0
    else:
        write(path, 2.0, overwrite)

def last(path):
    assert value(path) == 2.0
    assert os.listdir(path.parent) == [path.name], os.listdir(path.parent)

overwrite = sys.argv[2] == "overwrite"
for step in range(1000):
    path = Path(sys.argv[1]) / str(step) / "a.zarr"
    if overwrite:
        assert child(lambda: write(path, 1.0, False)) == 0
    code = child(lambda: killed_at(step, path))
    if code == 0:
        break
    assert code == -signal.SIGKILL, (step, code)
    assert child(lambda: check(path)) == 0, step
    assert child(lambda: last(path)) == 0, step
print(step, "steps")
"""


@pytest.mark.parametrize("kind", ["new", "overwrite"])
def test_killed_at_every_step_of_the_file_system(kind, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STEPS, str(tmp_path), kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    n_steps = int(done.stdout.split()[0])
    # A folder each, the renames, and with overwrite the removal of what was there before.
    assert n_steps > (10 if kind == "overwrite" else 5)


def test_leftovers_of_a_kill_while_replacing(tmp_path):
    for value in (1.0, 2.0):
        with create(tmp_path / "a.zarr", overwrite=value > 1, attrs={}) as writer:
            writer.write("instrument/telescope", "x", [value])
    (tmp_path / "a.zarr.replaced" / "instrument").mkdir(parents=True)  # half removed
    with create(tmp_path / "a.zarr", overwrite=True, attrs={}) as writer:
        writer.write("instrument/telescope", "x", [3.0])
    assert os.listdir(tmp_path) == ["a.zarr"]
    assert open_store(tmp_path / "a.zarr").read(X)[0] == 3.0


def test_killed_holder_frees_the_lock(tmp_path):
    code = (
        "import sys, time\n"
        "from astri_gpu.store import create\n"
        "with create(sys.argv[1], attrs={}):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(600)\n"
    )
    path = tmp_path / "a.zarr"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "writing\n"
        with pytest.raises(OutputBusy, match=r"Another run is writing .*a\.zarr at this moment"):
            create(path, attrs={}).__enter__()
        holder.send_signal(signal.SIGKILL)
    with create(path, attrs={}):
        pass
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_two_commands_for_one_output(tmp_path):
    output = tmp_path / "a.zarr"
    command = [sys.executable, "-m", "astri_gpu.cli", "simulate", "n_showers=10", "shower=draft"]
    with create(output, attrs={}):
        done = subprocess.run(
            [*command, f"output={output}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "Another run is writing" in done.stderr
        assert (tmp_path / "a.zarr.partial").is_dir()
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_output_finished_by_another_run_meanwhile(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    acquire = store_lock.OutputLock.acquire

    def late(self):
        monkeypatch.undo()
        with create(path, attrs={}) as other:
            other.write("instrument/telescope", "x", [1.0])
        acquire(self)

    monkeypatch.setattr(store_lock.OutputLock, "acquire", late)
    with pytest.raises(UsageError, match="exists already"):
        create(path, attrs={}).__enter__()
    assert os.listdir(tmp_path) == ["a.zarr"]
    assert open_store(path).read(X)[0] == 1.0


def test_lock_whose_holder_ends_at_that_moment(tmp_path, monkeypatch):
    """The folder that was opened is renamed by its run before the lock is had."""
    path, calls = tmp_path / "a.zarr", []

    def late(descriptor, flags, flock=fcntl.flock):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / "a.zarr.partial").rename(tmp_path / "finished")
        flock(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = store_lock.OutputLock(path)
    lock.acquire()
    assert len(calls) == 2
    assert lock.holds()
    lock.release()
    assert os.listdir(tmp_path) == ["finished"]


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK])
def test_file_system_without_locks_on_folders(number, tmp_path, monkeypatch):
    def only_files(descriptor, flags, flock=fcntl.flock):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        flock(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", only_files)
    with create(tmp_path / "a.zarr", attrs={}):
        with pytest.raises(OutputBusy, match="Another run is writing"):
            create(tmp_path / "a.zarr", attrs={}).__enter__()
        assert sorted(os.listdir(tmp_path)) == ["a.zarr.lock", "a.zarr.partial"]
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_file_system_without_any_locks(tmp_path, monkeypatch, caplog):
    def none(descriptor, flags):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", none)
    with caplog.at_level(logging.WARNING), create(tmp_path / "a.zarr", attrs={}) as writer:
        writer.write("instrument/telescope", "x", [1.0])
    assert [record.message for record in caplog.records] == [
        f"The file system of {tmp_path / 'a.zarr'} has no locks: two runs that write it at the "
        "same time would not notice each other"
    ]
    assert os.listdir(tmp_path) == ["a.zarr"]
    np.testing.assert_array_equal(open_store(tmp_path / "a.zarr").read(X), [1.0])


def test_terminated_run_is_repeated(tmp_path):
    """SIGTERM, as batch systems send it before SIGKILL."""
    output = tmp_path / "out"
    command = [sys.executable, "-m", "astri_gpu.cli", "simulate", "shower=draft", "n_parts=2"]
    command += ["n_showers=400", f"output={output}", "progress=false"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        while not list(output.glob("*")) and running.poll() is None:
            time.sleep(0.005)
        running.terminate()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert sorted(os.listdir(output)) == ["part_0000.zarr", "part_0001.zarr"]
