"""Memory of `process` does not grow with its input, and stays small for odd inputs."""

import tracemalloc

import numpy as np
import pytest

from astri_gpu import store_table, store_writer
from astri_gpu.config import compose
from astri_gpu.errors import AstriError
from astri_gpu.stages import process, stereo
from astri_gpu.store import open_store

MIB = 2**20
ROWS = 64


@pytest.fixture
def small_chunks(monkeypatch):
    """Let everything that is buffered be smaller than the stores of this test."""
    monkeypatch.setattr(store_table, "NARROW_CHUNK_ROWS", 256)
    monkeypatch.setattr(store_table, "MAX_CHUNKS_PER_SHARD", 1)
    monkeypatch.setattr(store_writer, "ROWS_PER_CHUNK", ROWS)
    monkeypatch.setattr(stereo, "EVENTS_PER_STEP", 64)


def peak_mib(source, output, *options):
    made = compose("process", [f"input={source}", f"output={output}", "backend=cpu", *options])
    tracemalloc.start()
    try:
        process.process_store(source, output, made)
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("options", [(), ("images=true", "batch_size=16")])
def test_memory_is_that_of_a_few_chunks(options, small_store, small_chunks, tmp_path):
    small_store(tmp_path / "warm.zarr", 2 * ROWS, ROWS)
    peak_mib(tmp_path / "warm.zarr", tmp_path / "warm_out.zarr", *options)
    small_store(tmp_path / "dl0.zarr", 5120, ROWS)
    peak = peak_mib(tmp_path / "dl0.zarr", tmp_path / "out.zarr", *options)
    assert open_store(tmp_path / "out.zarr").n_rows("dl1/image/ASTRICam") == 5120
    # The counts are 46 MiB, the charges, times and masks 104 MiB.
    assert peak < 20


def test_event_with_more_images_than_telescopes(small_store, tmp_path):
    import zarr

    small_store(tmp_path / "dl0.zarr", 40, 8)
    index = zarr.open_array(tmp_path / "dl0.zarr/dl0/image/ASTRICam/event_index", mode="r+")
    index[...] = np.full(40, 3)
    for batch_size in (4, 40):
        with pytest.raises(
            AstriError, match=r"Event 3 has more images in .* than the array has telescopes \(9\)"
        ):
            peak_mib(tmp_path / "dl0.zarr", tmp_path / "out.zarr", f"batch_size={batch_size}")
    assert not list(tmp_path.glob("out.zarr*"))


def test_many_telescopes_take_fewer_events_at_a_time(small_store, tmp_path, monkeypatch):
    shapes = []
    small_store(tmp_path / "dl0.zarr", 40, 8)
    solve = stereo._Stereo._solve

    def counted(self, images, *arguments):
        shapes.append(len(arguments[0]))
        return solve(self, images, *arguments)

    monkeypatch.setattr(stereo._Stereo, "_solve", counted)
    results = []
    for most in (stereo.MAX_PAIRS, 4 * 3):  # of the two slots that these events need
        monkeypatch.setattr(stereo, "MAX_PAIRS", most)
        output = tmp_path / f"out_{most}.zarr"
        peak_mib(tmp_path / "dl0.zarr", output)
        store = open_store(output)
        results.append(store.read_table("dl2/event") | store.read_table("dl2/image/ASTRICam"))
    assert shapes == [20, *[3] * 6, 2]
    for name, values in results[0].items():
        np.testing.assert_array_equal(values, results[1][name], err_msg=name)
