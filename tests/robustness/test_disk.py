"""Trouble with disks: one sentence, exit code 1, nothing left behind, inputs as they were."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.errors import AstriError
from astri_gpu.progress import Progress
from astri_gpu.stages import process
from astri_gpu.store import copy_group, create, open_store
from astri_gpu.store_disk import disk_errors

CLI = [sys.executable, "-m", "astri_gpu.cli"]
MUONS = "gct_checs_muons.simtel.zst"
SIMULATE = ["simulate", "shower=draft", "n_showers=500", "seed=3", "progress=false"]
COUNTS = "dl0/image/ASTRICam/adc"


@pytest.fixture(scope="module")
def production(tmp_path_factory):
    """Return a small DL0 store."""
    path = tmp_path_factory.mktemp("production") / "dl0.zarr"
    subprocess.run([*CLI, *SIMULATE, f"output={path}"], check=True, capture_output=True)
    return path


@pytest.fixture
def commands(production, request):
    """Return a function from a stage to the words of its command, without the output."""

    def words(stage):
        if stage == "simulate":
            return SIMULATE
        if stage == "ingest":
            return ["ingest", str(request.getfixturevalue("simtel")(MUONS)), "progress=false"]
        return ["process", str(production), "images=true", "progress=false"]

    return words


def size_of(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def contents(path):
    return {str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def in_small_disk(folder, size, words, options=""):
    """Run a command with a small file system mounted on `folder`, seen by nobody else."""
    script = f"mount -t tmpfs -o size={size}{options} none '{folder}' && \"$@\"; code=$?\n"
    script += f"ls -A '{folder}' >&2; exit $code"
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def mounts(tmp_path):
    """Skip where an ordinary user may not mount anything."""
    done = None
    if shutil.which("unshare"):
        done = in_small_disk(tmp_path, "64k", ["true"])
    if done is None or done.returncode:
        pytest.skip("no mounts in a user namespace here (unshare --user --mount)")


@pytest.fixture(scope="module")
def sizes():
    """What the outputs of stages take on a disk, once it is known."""
    return {}


@pytest.mark.parametrize(
    ("stage", "share"),
    [("simulate", 0.6), ("ingest", 0.6), ("process", 0.1), ("process", 0.5), ("process", 0.97)],
)
def test_full_disk(stage, share, commands, tmp_path, mounts, sizes):
    words = commands(stage)
    if stage not in sizes:
        subprocess.run([*CLI, *words, f"output={tmp_path / 'whole'}"], check=True)
        # A file takes whole pages there.
        files = [file for file in (tmp_path / "whole").rglob("*") if file.is_file()]
        sizes[stage] = sum(-(-file.stat().st_size // 4096) * 4096 for file in files)
    disk = tmp_path / "disk"
    disk.mkdir()
    done = in_small_disk(disk, int(share * sizes[stage]), [*CLI, *words, f"output={disk / 'out'}"])
    assert done.returncode == 1, done.stderr
    said = [line for line in done.stderr.splitlines() if "WARNING" not in line]
    assert len(said) == 1, done.stderr  # and no file listed after it
    full = f"The disk holding {disk / 'out'} is full (No space left on device)"
    # A simulation that can never fit is refused before it begins.
    early = f"and the disk of {disk / 'out'} has" if stage == "simulate" else full
    assert full in said[0] or early in said[0]


@pytest.mark.parametrize("stage", ["simulate", "ingest", "process"])
def test_read_only_disk(stage, commands, tmp_path, mounts):
    disk = tmp_path / "disk"
    disk.mkdir()
    words = [*CLI, *commands(stage), f"output={disk / 'out'}"]
    done = in_small_disk(disk, "1m", words, ",ro")
    assert done.returncode == 1, done.stderr
    said = [line for line in done.stderr.splitlines() if "WARNING" not in line]
    assert len(said) == 1, done.stderr
    assert "is read-only (Read-only file system)" in said[0]


@pytest.fixture
def open_folder():
    """Return a folder that every user can reach; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_forbidden_place(open_folder):
    """As an ordinary user, who must not write here."""
    place = open_folder / "place"
    place.mkdir()
    place.chmod(0o555)
    code = (
        "import os, sys, zarr\n"
        "from astri_gpu.store import create\n"
        "if os.geteuid() == 0:\n"
        "    os.seteuid(65534)\n"
        "with create(sys.argv[1], attrs={}):\n"
        "    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(place / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "must not be written (Permission denied): change the permissions" in done.stderr
    assert not list(place.iterdir())


class Then(Progress):
    """Does something when the first images are done."""

    def __init__(self, act):
        super().__init__(None, "process", "images")
        self._act = act

    def advance(self, n=1):
        super().advance(n)
        if self._act:
            act, self._act = self._act, None
            act()


def run_with(act, source, output, *options):
    made = compose("process", [f"input={source}", f"output={output}", "backend=cpu", *options])
    return process.process_store(source, output, made, Then(act))


@pytest.mark.parametrize("how", ["removed", "renamed", "parent", "one array"])
def test_output_taken_away_while_it_is_written(how, production, tmp_path):
    output = tmp_path / "place" / "out.zarr"
    partial = tmp_path / "place" / "out.zarr.partial"

    def take():
        if how == "removed":  # out of the way first: threads are writing into it
            shutil.rmtree(partial.rename(tmp_path / "gone"), ignore_errors=True)
        elif how == "renamed":
            partial.rename(tmp_path / "elsewhere")
        elif how == "parent":
            (tmp_path / "place").rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(partial / "instrument" / "telescope" / "x")

    with pytest.raises(
        AstriError, match=r"^What was written for .*out\.zarr has gone \(.*run again"
    ):
        run_with(take, production, output, "images=true", "batch_size=8")
    assert not list(tmp_path.glob("place/out*"))
    # What is no longer under its name is not ours to remove.
    assert (tmp_path / "elsewhere").exists() == (how in ("renamed", "parent"))


@pytest.mark.parametrize("how", ["chunk", "truncated", "all", "moved", "copied"])
def test_input_taken_away_while_it_is_read(how, tmp_path, small_store):
    """Of a store with several shards; the first images are read when it happens."""
    source, output = tmp_path / "dl0.zarr", tmp_path / "out.zarr"
    small_store(source)
    last = source / COUNTS / "c" / "9" / "0" / "0"

    def take():
        if how == "chunk":
            last.unlink()
        elif how == "truncated":
            os.truncate(last, last.stat().st_size // 2)
        elif how == "all":
            shutil.rmtree(source)
        elif how == "moved":
            source.rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(source / "dl0" / "event" / "array_alt")

    problem = {
        "chunk": r"adc in the store .* has lost its file c/9/0/0",
        "truncated": r"adc in the store .* the store is damaged",
        "copied": "has no 'dl0/event/array_alt'|array_alt in the store .* has lost its file",
    }
    with pytest.raises(AstriError, match=problem.get(how, "has gone|has lost")) as caught:
        run_with(take, source, output, "batch_size=1")
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out.zarr*"))


def test_chunk_that_is_missing_is_not_read_as_zeros(tmp_path, small_store):
    path = tmp_path / "a.zarr"
    small_store(path)
    before = open_store(path).read(COUNTS)
    assert before.all()
    (path / COUNTS / "c" / "1" / "0" / "0").unlink()
    store = open_store(path)
    np.testing.assert_array_equal(store.read(COUNTS, 0, 4), before[:4])
    np.testing.assert_array_equal(store.read(COUNTS, 8, 40), before[8:])
    with pytest.raises(AstriError, match=r"adc in the store .*a\.zarr has lost its file c/1/0/0"):
        store.read(COUNTS)


def test_chunks_of_zeros_are_written_and_not_missed(tmp_path):
    path = tmp_path / "a.zarr"
    with create(path, attrs={}) as writer:
        table = writer.table(
            "dl0/image/Toy", ["tel_id", "trigger_pixel"], sizes={"pixel": 5}, rows_per_chunk=2
        )
        for n in (16, 3):
            table.append({"tel_id": np.zeros(n, "u2"), "trigger_pixel": np.zeros((n, 5), bool)})
    store = open_store(path)
    assert not store.read("dl0/image/Toy/trigger_pixel").any()
    assert len(list((path / "dl0/image/Toy/trigger_pixel/c").iterdir())) == 2
    for chunk in (path / "dl0/image/Toy").rglob("c/1/0"):
        chunk.unlink()
    with pytest.raises(AstriError, match="has lost its file c/1/0"):
        store.read("dl0/image/Toy/trigger_pixel")


def test_copy_of_a_store_that_goes(production, tmp_path):
    copy = tmp_path / "dl0.zarr"
    shutil.copytree(production, copy)
    source = open_store(copy)
    source.group("simulation")
    (copy / "simulation" / "event" / "obs_id" / "c" / "0").unlink()
    (copy / "simulation" / "event" / "obs_id" / "c" / "0").symlink_to("nowhere")
    with (
        pytest.raises(AstriError, match=r"dl0\.zarr has lost .*obs_id/c/0 while it was read"),
        create(tmp_path / "out.zarr", attrs={}) as writer,
    ):
        copy_group(source, writer, "simulation")
    assert os.listdir(tmp_path) == ["dl0.zarr"]


def test_copied_array_without_a_chunk_is_that_of_the_input(production, tmp_path):
    copy = tmp_path / "dl0.zarr"
    shutil.copytree(production, copy)
    (copy / "simulation" / "event" / "true_energy" / "c" / "0").unlink()
    with pytest.raises(
        AstriError,
        match=r"^simulation/event/true_energy in the store .*dl0\.zarr has lost its file",
    ):
        run_with(None, copy, tmp_path / "out.zarr")
    assert os.listdir(tmp_path) == ["dl0.zarr"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is full"),
        (errno.EROFS, "is read-only"),
        (errno.EACCES, "must not be written"),
        (errno.ESTALE, "has gone"),
        (errno.EIO, "does not answer as it should"),
    ],
)
@pytest.mark.parametrize("kind", ["system", "rust"])
def test_sentences(number, text, kind, tmp_path):
    path = tmp_path / "out.zarr"
    error = OSError(number, os.strerror(number))
    if kind == "rust":  # the codecs of zarrs have the number in a text
        error = RuntimeError(f"filesystem error: {os.strerror(number)} (os error {number})")
    with pytest.raises(AstriError, match=text) as caught, disk_errors(path):
        raise error
    assert str(path) in str(caught.value)


def test_missing_input_is_not_taken_for_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "out.zarr"):
        Path(tmp_path / "input").read_bytes()


def test_input_that_changes_while_it_is_read(tmp_path, small_store):
    small_store(tmp_path / "dl0.zarr")

    def change():  # what is read already
        chunk = tmp_path / "dl0.zarr" / COUNTS / "c" / "0" / "0" / "0"
        chunk.write_bytes(chunk.read_bytes() + b"x")

    with pytest.raises(AstriError, match=r"dl0\.zarr has changed while it was read: run again"):
        run_with(change, tmp_path / "dl0.zarr", tmp_path / "out.zarr")
    assert os.listdir(tmp_path) == ["dl0.zarr"]


def test_inputs_are_not_touched(production, tmp_path):
    before = contents(production)
    run_with(None, production, tmp_path / "out.zarr")
    assert contents(production) == before
    assert size_of(tmp_path / "out.zarr")
