"""The cache of stages: made once, whole, again when broken, by one of several that want it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from astri_gpu.errors import AstriError
from astri_gpu.sweeps.cache import Cache, checksum
from astri_gpu.sweeps.waiting import held


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "input").write_text("events")
    return Cache(tmp_path / "cache")


def fetch(cache, make=None, *, option=1, stage="train"):
    made = make or (lambda path: path.write_text(f"product of {option}"))
    return cache.get(stage, {"option": option}, [cache.folder.parent / "input"], ".skops", made)


def test_product_is_made_once_per_options_and_inputs(cache):
    first = fetch(cache)
    assert fetch(cache, lambda path: pytest.fail("made again")) == first
    other = fetch(cache, option=2)
    (cache.folder.parent / "input").write_text("other events")
    third = fetch(cache)
    assert len({first, other, third, fetch(cache, stage="process")}) == 4
    assert cache.n_run == {"train": 3, "process": 1}
    assert cache.n_reused == {"train": 1}
    assert cache.n_bytes == 4 * len("product of 1")


def test_entry_that_is_not_as_written_is_made_again(cache, caplog):
    path = fetch(cache)
    path.write_text("product")
    os.utime(path, ns=(1, 1))
    assert fetch(cache).read_text() == "product of 1"
    path.with_name(path.name + ".json").write_text("{")
    fetch(cache)
    assert cache.n_run == {"train": 3}
    assert "is not as it was written" in caplog.text


def test_store_with_a_missing_piece_is_made_again(cache):
    def make(path):
        path.mkdir(parents=True)
        (path / "zarr.json").write_text("{}")
        (path / "chunk").write_text("numbers")

    path = fetch(cache, make)
    (path / "chunk").unlink()
    assert (fetch(cache, make) / "chunk").exists()
    assert cache.n_run == {"train": 2}


def test_failure_leaves_no_entry(cache):
    def make(path):
        path.write_text("half")
        raise AstriError("the disk is full")

    with pytest.raises(AstriError, match="disk is full"):
        fetch(cache, make)
    assert fetch(cache).read_text() == "product of 1"
    assert not list((cache.folder / "locks").iterdir())


def test_of_several_at_once_one_makes_it_and_the_others_wait(cache):
    made = []

    def make(path):
        time.sleep(0.05)
        made.append(path)
        path.write_text("product")

    threads = [threading.Thread(target=fetch, args=(cache, make)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_killed_holder_releases_the_lock(tmp_path):
    code = (
        "import sys, time, pathlib; from astri_gpu.sweeps.waiting import held\n"
        "with held(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)"
    )
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    entered = threading.Event()

    def wait():
        with held(lock):
            entered.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not entered.wait(0.1)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    waiting.join(30)
    assert entered.is_set()
    assert not lock.exists()


def test_checksum_follows_a_file_that_changes(tmp_path):
    path = tmp_path / "file"
    path.write_text("one")
    first = checksum(path)
    path.write_text("another")
    assert checksum(path) != first
    with pytest.raises(AstriError, match="does not exist"):
        checksum(tmp_path / "nothing")


def test_lock_in_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(AstriError, match=r"lock .* cannot be made"),
        held(tmp_path / "file" / "lock"),
    ):
        pass
