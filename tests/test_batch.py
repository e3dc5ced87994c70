"""Reading ahead and writing behind: order, errors, and threads that end."""

import threading

import numpy as np
import pytest

from astri_gpu.batch import WriteBehind, read_ahead, read_batches
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
