"""The store: complete or absent, readable by other tools, and honest about full disks."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor

import astropy.units as u
import numpy as np
import pytest
import zarr

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.store import copy_group, create, fingerprint, open_store

CAMERA = "dl0/image/ASTRICam"
SIZES = {"gain": 2, "pixel": 37}
COLUMNS = ["event_index", "tel_id", "adc", "trigger_pixel"]


def images(n, start=0):
    rng = np.random.default_rng(start)
    return {
        "event_index": np.arange(start, start + n),
        "tel_id": np.full(n, 3, np.uint16),
        "adc": rng.integers(0, 4096, (n, 2, 37)).astype(np.uint16),
        "trigger_pixel": rng.random((n, 37)) < 0.1,
    }


def make(path, portions=(5, 3), rows_per_chunk=None, **options):
    written = []
    with create(path, attrs={"data_level": "DL0", "obs_id": 7}, **options) as writer:
        table = writer.table(CAMERA, COLUMNS, sizes=SIZES, rows_per_chunk=rows_per_chunk)
        start = 0
        for n in portions:
            written.append(images(n, start))
            table.append(written[-1])
            start += n
        assert table.n_rows == start
        events = writer.table("dl0/event", ["event_id", "tel_mask"], sizes={"tel": 9})
        events.append({"event_id": np.arange(4), "tel_mask": np.ones((4, 9), bool)})
        writer.write("instrument/telescope", "x", [1.0, 2.0])
        writer.set_attrs("instrument/telescope", {"cameras": ["ASTRICam"]})
        writer.set_attrs("", {"n_images": table.n_rows})
    return {name: np.concatenate([part[name] for part in written]) for name in COLUMNS}


@pytest.mark.parametrize(
    ("portions", "rows_per_chunk"),
    [((5, 3), None), ((1,) * 21, 4), ((40, 3, 70), 4), ((32,), 4), ((), None)],
    ids=["small", "one-by-one", "blocks", "exact-shard", "empty"],
)
def test_round_trip(tmp_path, portions, rows_per_chunk):
    if not portions:
        with create(tmp_path / "a.zarr", attrs={}) as writer:
            writer.table(CAMERA, COLUMNS, sizes=SIZES)
        assert open_store(tmp_path / "a.zarr").read(f"{CAMERA}/adc").shape == (0, 2, 37)
        return
    written = make(tmp_path / "a.zarr", portions, rows_per_chunk)
    store = open_store(tmp_path / "a.zarr")
    assert store.cameras() == ["ASTRICam"]
    assert store.columns(CAMERA) == sorted(COLUMNS)
    assert store.n_rows(CAMERA) == sum(portions)
    for name, values in written.items():
        found = store.read(f"{CAMERA}/{name}")
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)
    rows = slice(2, 5)
    np.testing.assert_array_equal(store.read(f"{CAMERA}/adc", 2, 5), written["adc"][rows])
    assert sum(stop - start for start, stop in store.blocks(f"{CAMERA}/adc")) == sum(portions)
    assert store.attrs["n_images"] == sum(portions)
    assert store.attrs["schema_version"] == 1
    assert store.group_attrs("instrument/telescope") == {"cameras": ["ASTRICam"]}


def test_shards_hold_the_same_rows_in_all_image_columns(tmp_path):
    make(tmp_path / "a.zarr", (70,), rows_per_chunk=4)
    store = open_store(tmp_path / "a.zarr")
    adc, flags = store.array(f"{CAMERA}/adc"), store.array(f"{CAMERA}/trigger_pixel")
    assert adc.chunks == (4, 2, 37)
    assert adc.shards == (32, 2, 37)
    assert flags.shards == (32, 37)
    assert store.blocks(f"{CAMERA}/adc") == [(0, 32), (32, 64), (64, 70)]


def test_big_rows_get_chunks_of_bounded_size(tmp_path):
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        table = writer.table(
            "dl0/image/LSTCam", ["waveform"], sizes={"gain": 2, "pixel": 1855, "sample": 40}
        )
        table.append({"waveform": np.ones((200, 2, 1855, 40), np.uint16)})
    array = open_store(tmp_path / "a.zarr").array("dl0/image/LSTCam/waveform")
    assert array.chunks[0] == 32
    assert array.shards[0] == 128


def test_several_threads_read(tmp_path):
    written = make(tmp_path / "a.zarr", (400,), rows_per_chunk=4)
    store = open_store(tmp_path / "a.zarr")
    blocks = store.blocks(f"{CAMERA}/adc")
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda block: store.read(f"{CAMERA}/adc", *block), blocks))
    np.testing.assert_array_equal(np.concatenate(parts), written["adc"])


def test_every_array_is_described(tmp_path):
    make(tmp_path / "a.zarr")
    n_arrays = 0
    for file in (tmp_path / "a.zarr").rglob("zarr.json"):
        meta = json.loads(file.read_text())
        if meta["node_type"] == "array":
            n_arrays += 1
            assert len(meta["dimension_names"]) == len(meta["shape"])
            u.Unit(meta["attributes"]["units"])
            assert meta["attributes"]["description"]
    assert n_arrays == 7


def test_xarray_opens_it(tmp_path):
    xarray = pytest.importorskip("xarray")
    written = make(tmp_path / "a.zarr")
    with xarray.open_datatree(tmp_path / "a.zarr", engine="zarr") as tree:
        adc = tree[f"{CAMERA}/adc"]
        assert adc.dims == ("image", "gain", "pixel")
        assert adc.attrs["units"] == "adu"
        np.testing.assert_array_equal(adc.values, written["adc"])
        assert tree["dl0/event/tel_mask"].dtype == bool


def test_zarr_python_alone_reads_it(tmp_path):
    import zarr

    written = make(tmp_path / "a.zarr", (70,), rows_per_chunk=4)
    plain = zarr.open_group(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(plain[f"{CAMERA}/adc"][:], written["adc"])


def test_existing_output_is_refused_before_any_work(tmp_path):
    make(tmp_path / "a.zarr")
    before = fingerprint(tmp_path / "a.zarr")
    with (
        pytest.raises(UsageError, match=r"a\.zarr exists already: .*overwrite=true"),
        create(tmp_path / "a.zarr", attrs={}),
    ):
        pytest.fail("the body must not run")
    assert fingerprint(tmp_path / "a.zarr") == before
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_overwrite_replaces_at_the_end(tmp_path):
    make(tmp_path / "a.zarr")
    make(tmp_path / "a.zarr", (11,), overwrite=True)
    assert open_store(tmp_path / "a.zarr").n_rows(CAMERA) == 11
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_overwrite_spares_what_is_no_store(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("text")
    with (
        pytest.raises(UsageError, match="is not a store"),
        create(tmp_path / "thesis", overwrite=True, attrs={}),
    ):
        pytest.fail("the body must not run")
    assert (tmp_path / "thesis" / "chapter1").read_text() == "text"


def fail_half_way(path, **options):
    with create(path, attrs={}, **options) as writer:
        writer.write("instrument/telescope", "x", [1.0])
        assert writer.partial.is_dir()
        raise ZeroDivisionError


def test_failed_overwrite_keeps_the_old_store(tmp_path):
    make(tmp_path / "a.zarr")
    with pytest.raises(ZeroDivisionError):
        fail_half_way(tmp_path / "a.zarr", overwrite=True)
    assert open_store(tmp_path / "a.zarr").n_rows(CAMERA) == 8
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_half_way(tmp_path / "a.zarr")
    assert os.listdir(tmp_path) == []


def test_two_runs_do_not_write_one_output(tmp_path):
    with create(tmp_path / "a.zarr", attrs={}):
        with (
            pytest.raises(UsageError, match="Another run is writing"),
            create(tmp_path / "a.zarr", attrs={}),
        ):
            pytest.fail("the body must not run")
        assert (tmp_path / "a.zarr.partial").is_dir()
    assert os.listdir(tmp_path) == ["a.zarr"]


def run_python(code, path):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_killed_writer_leaves_only_partial(tmp_path, caplog):
    done = run_python(
        """
        import os, signal, sys
        from astri_gpu.store import create
        with create(sys.argv[1], attrs={}) as writer:
            writer.write("instrument/telescope", "x", [1.0])
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / "a.zarr",
    )
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["a.zarr.partial"]
    with pytest.raises(AstriError, match="unfinished"):
        open_store(tmp_path / "a.zarr")
    make(tmp_path / "a.zarr")
    assert [record.message for record in caplog.records] == [
        f"Removing {tmp_path / 'a.zarr.partial'}, left by a run that was killed"
    ]
    assert os.listdir(tmp_path) == ["a.zarr"]
    assert "x" in open_store(tmp_path / "a.zarr").columns("instrument/telescope")


def test_kill_between_the_last_renames_loses_nothing(tmp_path):
    make(tmp_path / "a.zarr")
    (tmp_path / "a.zarr").rename(tmp_path / "a.zarr.replaced")
    with (
        pytest.raises(UsageError, match="exists already"),
        create(tmp_path / "a.zarr", attrs={}),
    ):
        pytest.fail("the body must not run")
    assert open_store(tmp_path / "a.zarr").n_rows(CAMERA) == 8


@pytest.mark.parametrize("pipeline", ["zarrs", "python"])
def test_full_disk_is_one_sentence(tmp_path, pipeline):
    done = run_python(
        f"""
        import resource, sys, importlib.util
        import numpy as np
        from astri_gpu.errors import AstriError
        from astri_gpu.store import create
        if {pipeline!r} == "python":
            found = importlib.util.find_spec
            importlib.util.find_spec = lambda name, *a: None if name == "zarrs" else found(name, *a)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        rng = np.random.default_rng(1)
        try:
            with create(sys.argv[1], attrs={{}}) as writer:
                table = writer.table(
                    "dl0/image/ASTRICam", ["adc"], sizes={{"gain": 2, "pixel": 2368}}
                )
                table.append({{"adc": rng.integers(0, 60000, (200, 2, 2368)).astype("u2")}})
        except AstriError as error:
            print(error)
        """,
        tmp_path / "a.zarr",
    )
    assert done.returncode == 0, done.stderr
    assert "a.zarr is full (File too large): free space" in done.stdout
    assert "nothing was left behind." in done.stdout
    assert done.stderr == ""
    assert os.listdir(tmp_path) == []


def test_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(AstriError, match="cannot be written"),
        create(tmp_path / "file" / "a.zarr", attrs={}),
    ):
        pytest.fail("the body must not run")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"event_index": np.arange(2)}, r"missing columns \['adc', .*'tel_id'"),
        ({**images(2), "extra": np.arange(2)}, r"unknown \['extra'\]"),
        ({**images(2), "adc": np.zeros((2, 2, 36), "u2")}, r"takes rows of shape \(2, 2, 37\)"),
        ({**images(2), "tel_id": np.arange(3)}, r"takes rows of shape \(2,\), not \(3,\)"),
        ({**images(2), "adc": np.zeros((2, 2, 37))}, "holds uint16, not float64"),
    ],
    ids=["missing", "unknown", "shape", "length", "type"],
)
def test_rows_that_do_not_fit(tmp_path, rows, message):
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        table = writer.table(CAMERA, COLUMNS, sizes=SIZES)
        with pytest.raises(AstriError, match=message):
            table.append(rows)
        assert table.n_rows == 0


def test_misuse_of_the_writer(tmp_path):
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        with pytest.raises(AstriError, match="needs the size of gain"):
            writer.table(CAMERA, ["adc"], sizes={"pixel": 3})
        with pytest.raises(AstriError, match="no column 'nonsense'"):
            writer.table(CAMERA, ["nonsense"], sizes={})
        writer.table(CAMERA, ["tel_id"], sizes={})
        with pytest.raises(AstriError, match="asked for twice"):
            writer.table(CAMERA, ["tel_id"], sizes={})
        with pytest.raises(AstriError, match="has the dimensions"):
            writer.write("instrument/telescope", "x", [[1.0]])


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(AstriError, match="There is no store"):
        open_store(tmp_path / "nowhere.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(AstriError, match=r"has no zarr\.json"):
        open_store(tmp_path / "folder")
    import zarr

    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(AstriError, match="not a finished store"):
        open_store(tmp_path / "other.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="a").attrs["schema_version"] = 99
    with pytest.raises(AstriError, match="schema version 99"):
        open_store(tmp_path / "other.zarr")
    (tmp_path / "other.zarr" / "zarr.json").write_text("{broken")
    with pytest.raises(AstriError, match="cannot be opened"):
        open_store(tmp_path / "other.zarr")


def test_what_cannot_be_read(tmp_path):
    make(tmp_path / "a.zarr", (70,), rows_per_chunk=4)
    store = open_store(tmp_path / "a.zarr")
    assert CAMERA in store
    assert "dl2" not in store
    assert store.cameras("dl1") == []
    with pytest.raises(AstriError, match="has no 'dl2/event'; its top groups are dl0, instrument"):
        store.read("dl2/event")
    with pytest.raises(AstriError, match="is a group, not an array"):
        store.array(CAMERA)
    with pytest.raises(AstriError, match="is an array, not a group"):
        store.group(f"{CAMERA}/adc")
    shard = next((tmp_path / "a.zarr" / CAMERA / "adc" / "c").rglob("0"))
    while shard.is_dir():
        shard = shard / "0"
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(AstriError, match=r"adc in the store .* cannot be read"):
        store.read(f"{CAMERA}/adc", 0, 4)


def test_copy_group(tmp_path):
    written = make(tmp_path / "a.zarr", (70,), rows_per_chunk=4)
    source = open_store(tmp_path / "a.zarr")
    with create(tmp_path / "b.zarr", attrs={"data_level": "DL2a"}) as writer:
        copy_group(source, writer, CAMERA, exclude=("adc",))
        copy_group(source, writer, "instrument")
        with pytest.raises(AstriError, match="has no 'dl3'"):
            copy_group(source, writer, "dl3")
    copy = open_store(tmp_path / "b.zarr")
    assert copy.columns(CAMERA) == ["event_index", "tel_id", "trigger_pixel"]
    np.testing.assert_array_equal(copy.read(f"{CAMERA}/trigger_pixel"), written["trigger_pixel"])
    assert copy.group_attrs("instrument/telescope") == {"cameras": ["ASTRICam"]}
    assert copy.attrs["data_level"] == "DL2a"


def test_fingerprint(tmp_path):
    make(tmp_path / "a.zarr")
    first = fingerprint(tmp_path / "a.zarr")
    make(tmp_path / "a.zarr", (9,), overwrite=True)
    assert first.startswith("sha256:")
    assert fingerprint(tmp_path / "a.zarr") != first
    (tmp_path / "file").write_bytes(b"abc")
    assert fingerprint(tmp_path / "file") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(AstriError, match="does not exist or is empty"):
        fingerprint(tmp_path / "nowhere")


def test_attributes_are_plain_json(tmp_path):
    with create(tmp_path / "a.zarr", attrs={"source": tmp_path, "nan": float("nan")}) as writer:
        writer.attrs["counts"] = np.arange(3)
        writer.attrs["number"] = np.float32(0.5)
    attrs = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["attributes"]
    assert attrs["source"] == str(tmp_path)
    assert attrs["nan"] is None
    assert attrs["counts"] == [0, 1, 2]
    assert attrs["number"] == 0.5


def test_metadata_in_the_root_are_those_of_zarr(tmp_path):
    make(tmp_path / "a.zarr")
    ours = json.loads((tmp_path / "a.zarr" / "zarr.json").read_bytes())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(str(tmp_path / "a.zarr"), zarr_format=3)
    assert ours == json.loads((tmp_path / "a.zarr" / "zarr.json").read_bytes())
    assert f"{CAMERA}/adc" in ours["consolidated_metadata"]["metadata"]


def test_shards_are_those_of_zarr(tmp_path):
    written = make(tmp_path / "a.zarr", (37,), rows_per_chunk=4)
    array = zarr.open_array(str(tmp_path / "a.zarr" / CAMERA / "adc"), mode="r")
    copy = zarr.create_array(
        str(tmp_path / "b.zarr"), shape=array.shape, dtype=array.dtype, chunks=array.chunks,
        shards=array.shards, compressors=array.compressors, fill_value=0,
    )  # fmt: skip
    copy[...] = written["adc"]
    assert array.shards is not None
    assert array.shape[0] % array.chunks[0]
    for file in sorted((tmp_path / "a.zarr" / CAMERA / "adc" / "c").rglob("0")):
        if file.is_file():
            inside = file.relative_to(tmp_path / "a.zarr" / CAMERA / "adc")
            # Their order in a shard is free; bytes in all and index are of one size.
            assert file.stat().st_size == (tmp_path / "b.zarr" / inside).stat().st_size
    np.testing.assert_array_equal(array[...], written["adc"])


def test_the_checksum_of_a_large_file_is_kept_until_it_changes(tmp_path):
    path = tmp_path / "large.raw"
    sums = []
    for text in (b"one", b"two", b"two"):
        with path.open("wb") as stream:
            stream.write(text)
            stream.truncate(17 * 1024**2)
        os.utime(path, (1, 1))  # as if it had been there for long
        sums += [fingerprint(path), fingerprint(path)]
    assert sums[0] == sums[1] != sums[2] == sums[3] == sums[4] == sums[5]


def test_a_folder_that_is_written_while_it_is_removed_goes_too(tmp_path, monkeypatch):
    import shutil

    from astri_gpu.store_lock import OutputLock

    remove, late = shutil.rmtree, [True, True]

    def rmtree(path, **options):
        remove(path, **options)
        if late:  # a write that was on its way
            late.pop()
            (path / "dl1").mkdir(parents=True)

    lock = OutputLock(tmp_path / "out.zarr")
    lock.acquire()
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    lock.release()
    assert not late
    assert list(tmp_path.iterdir()) == []
