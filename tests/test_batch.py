"""Reading ahead and writing behind: order, errors, and threads that end."""

import threading

import numpy as np
import pytest

from astri_gpu.backend import Backend
from astri_gpu.batch import (
    ColumnReader,
    WriteBehind,
    _Buffers,
    read_ahead,
    read_batches,
    read_blocks,
)
from astri_gpu.batch_flow import BatchFlow
from astri_gpu.errors import AstriError
from astri_gpu.stages.images import batch_rows
from astri_gpu.store import create, open_store


@pytest.fixture
def store(tmp_path):
    """Return a store with 10 images of 4 pixels in chunks of 8, image number as count."""
    with create(tmp_path / "dl0.zarr", attrs={"data_level": "DL0"}) as writer:
        columns = ["event_index", "tel_id", "calibration_index", "adc"]
        table = writer.table(
            "dl0/image/Toy", columns, sizes={"gain": 1, "pixel": 4}, rows_per_chunk=8
        )
        number = np.arange(10)
        table.append(
            {
                "event_index": number // 2,
                "tel_id": number.astype("u2") % 2 + 1,
                "calibration_index": np.zeros(10, "i4"),
                "adc": np.broadcast_to(number.astype("u2")[:, None, None], (10, 1, 4)),
            }
        )
    return open_store(tmp_path / "dl0.zarr")


@pytest.mark.parametrize("fixed_shape", [False, True])
@pytest.mark.parametrize("batch_size", [3, 8, 100])
def test_batches_hold_every_image_once(store, batch_size, fixed_shape):
    batches = list(read_batches(store, "Toy", batch_size, fixed_shape=fixed_shape))
    counts = np.concatenate([batch.adc[: batch.n_valid, 0, 0] for batch in batches])
    np.testing.assert_array_equal(counts, np.arange(10))
    assert [batch.start for batch in batches] == list(
        np.cumsum([0, *(batch.n_valid for batch in batches)])[:-1]
    )
    sizes = {len(batch.adc) for batch in batches}
    if fixed_shape:
        assert len(sizes) == 1
        for batch in batches:
            assert not batch.adc[batch.n_valid :].any()
    else:
        assert all(len(batch.adc) == batch.n_valid for batch in batches)


def test_read_ahead_keeps_the_order():
    assert list(read_ahead(iter(range(100)), depth=3)) == list(range(100))


def test_read_ahead_hands_over_errors():
    def broken():
        yield 1
        raise ValueError("the second item is bad")

    items = read_ahead(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second item is bad"):
        next(items)


def test_read_ahead_stops_when_the_consumer_does():
    made = []

    def endless():
        while True:
            made.append(None)
            yield None

    items = read_ahead(endless(), depth=2)
    next(items)
    items.close()
    n_made = len(made)
    assert n_made <= 5
    assert not [t for t in threading.enumerate() if t.name == "read-ahead"]


def write_all(function, items):
    with WriteBehind(function) as write:
        for item in items:
            write(item)


def test_write_behind_keeps_the_order():
    written = []
    write_all(written.append, range(50))
    assert written == list(range(50))


@pytest.mark.parametrize("n_items", [1, 100])
def test_write_behind_raises_the_error_of_the_writer(n_items):
    def full(_):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_all(full, range(n_items))


def test_an_error_of_the_caller_wins():
    def items():
        yield 1
        raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        write_all(lambda _: None, items())


def test_columns_are_read_a_chunk_at_a_time(store, monkeypatch):
    read, read_table = [], type(store).read_table

    def counted(self, path, names, start, stop):
        read.append((start, stop))
        return read_table(self, path, names, start, stop)

    monkeypatch.setattr(type(store), "read_table", counted)
    columns = ColumnReader(store, "dl0/image/Toy", ["event_index", "tel_id"])
    assert columns.read(0, 0)["tel_id"].dtype == np.uint16  # no rows, but their columns
    read.clear()
    columns._step = 4  # as if the chunks were smaller
    parts = [columns.read(first, first + 2)["event_index"] for first in range(0, 10, 2)]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(10) // 2)
    assert read == [(0, 4), (4, 8), (8, 12)]
    read.clear()
    rows = np.array([0, 0, 1, 9])
    np.testing.assert_array_equal(columns.take(rows)["event_index"], rows // 2)
    assert read == [(0, 4), (8, 12)]  # and nothing of what lies between
    assert len(columns.take(rows[:0])["tel_id"]) == 0
    with pytest.raises(AstriError, match="has 10 rows, but its images refer to rows 3 to 10"):
        columns.take(np.array([3, 10]))


def test_memory_of_blocks_is_used_again_and_never_shared():
    buffers, dtype = _Buffers(), np.dtype("u2")
    first = buffers.take((4, 3), dtype)
    place = first.ctypes.data
    batch = first[1:2, 1]  # a view of a view keeps all of it
    del first
    second = buffers.take((4, 3), dtype)
    assert second.ctypes.data != place
    del batch
    assert buffers.take((2, 3), dtype).ctypes.data == place
    assert buffers.take((40, 3), dtype).shape == (40, 3)  # larger than those at hand
    assert len(buffers._made) == 3


def test_images_out_of_order_are_refused(tmp_path):
    with create(tmp_path / "dl0.zarr", attrs={}) as writer:
        table = writer.table(
            "dl0/image/Toy",
            ["event_index", "tel_id", "calibration_index", "adc"],
            sizes={"gain": 1, "pixel": 4},
        )
        table.append(
            {
                "event_index": np.array([0, 2, 1]),
                "tel_id": np.ones(3, "u2"),
                "calibration_index": np.zeros(3, "i4"),
                "adc": np.zeros((3, 1, 4), "u2"),
            }
        )
    with pytest.raises(AstriError, match="not in the order of their events"):
        list(read_blocks(open_store(tmp_path / "dl0.zarr"), "Toy"))


class Chain:
    """Returns the counts of the first pixel as result, and fails where it is told to."""

    def __init__(self, fail=(), when="start"):
        self.fail, self.when = list(fail), when
        self.sizes, self.calls, self.flying, self.most = [], 0, 0, 0

    def start(self, adc, calibration_index, is_shower):
        self.calls += 1
        failing = self.calls in self.fail
        if failing and self.when == "start":
            raise MemoryError("no room")
        self.flying += 1
        self.most = max(self.most, self.flying)

        def finish():
            self.flying -= 1
            if failing:
                raise MemoryError("no room")
            self.sizes.append(len(adc))
            return adc[:, 0, 0].copy()

        return finish


def flow_of(store, chain, *, depth, size, fixed_shape=False):
    backend = Backend()
    backend.pipeline_depth, backend.fixed_shape = depth, fixed_shape
    flow = BatchFlow(
        chain,
        backend,
        size=size,
        is_shower=lambda batch: np.ones(len(batch.adc), bool),
        name="counts",
    )
    parts = [result[: batch.n_valid] for batch, result in flow(read_blocks(store, "Toy"))]
    return np.concatenate(parts)


@pytest.mark.parametrize("fixed_shape", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3, 50])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_batches_in_flight_come_in_order(store, depth, size, fixed_shape):
    chain = Chain()
    counts = flow_of(store, chain, depth=depth, size=size, fixed_shape=fixed_shape)
    np.testing.assert_array_equal(counts, np.arange(10))
    assert chain.most == min(depth, len(chain.sizes))
    if fixed_shape:
        assert set(chain.sizes) == {size}


@pytest.mark.parametrize("when", ["start", "finish"])
@pytest.mark.parametrize("fail", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("fixed_shape", [False, True])
def test_too_little_memory_halves_the_batches_once(store, when, fail, depth, fixed_shape, caplog):
    chain = Chain(fail=[fail], when=when)
    counts = flow_of(store, chain, depth=depth, size=4, fixed_shape=fixed_shape)
    np.testing.assert_array_equal(counts, np.arange(10))  # no image lost, none twice
    assert [record.message for record in caplog.records] == [
        "counts: not enough memory for batches of 4 images, going on with 2"
    ]
    assert chain.sizes[-1] == 2


@pytest.mark.parametrize("when", ["start", "finish"])
def test_too_little_memory_twice_is_an_error(store, when):
    chain = Chain(fail=range(2, 100), when=when)
    with pytest.raises(
        AstriError,
        match=r"counts: the memory of backend numpy is too small for a batch of 2 images \(no "
        r"room\): set a smaller batch_size",
    ):
        flow_of(store, chain, depth=2, size=4)


def test_other_errors_are_not_taken_for_memory(store):
    chain = Chain()
    chain.start = lambda *_: (_ for _ in ()).throw(ValueError("of the chain"))
    with pytest.raises(ValueError, match="of the chain"):
        flow_of(store, chain, depth=2, size=4)


def test_batch_size(store):
    from astri_gpu.batch import image_source

    source = image_source(store, "Toy")._replace(chunk=8, shard=64)
    backend = Backend()
    assert batch_rows(None, backend, source) == 8
    assert batch_rows(100, backend, source) == 64
    assert batch_rows(5, backend, source) == 5
    backend.batch_limit = 4
    assert batch_rows(None, backend, source) == 4
    backend.batch_limit = None
    backend.batch_for = lambda bytes_per_image: 320 // bytes_per_image
    assert batch_rows(None, backend, source) == 40  # 8 bytes each
    assert batch_rows(50, backend, source) == 50
