"""Counts of cameras that the real files do not have: sums over samples, and mixed images."""

import numpy as np
import pytest

from astri_gpu.errors import AstriError
from astri_gpu.instrument import CameraDescription, CameraGeometry, Optics, Readout
from astri_gpu.io.row_block import MAX_ROWS
from astri_gpu.io.simtel_images import CameraTables, Image, image_counts
from astri_gpu.store import create, open_store

N_PIXELS = 9


def camera(n_samples):
    grid = np.arange(N_PIXELS)
    return CameraDescription(
        geometry=CameraGeometry.from_pixels(
            "Test", grid % 3, grid // 3, np.ones(N_PIXELS), "square"
        ),
        readout=Readout(2, n_samples, 1.0, np.ones((2, 4)), 1.0),
        optics=Optics("T", 2.0, None, 1.0, 1),
    )


def tables(writer, n_samples, keep=False):
    made = CameraTables(
        writer, camera(n_samples), "file", keep=keep, true_images=False, images_per_chunk=8
    )
    made.place = "event 7"
    return made


def image(true_image=None):
    return Image(0, 1, 70.0, 180.0, 0.0, 1, -1, float("nan"), true_image)


def append(made, event, **options):
    return made.append(image(**options), image_counts(event), 0, event)


@pytest.mark.parametrize(
    ("event", "n_samples", "name", "dtype"),
    [
        ({"adc_samples": np.full((2, 9, 5), 60_000, "u2")}, 5, "waveform", "u2"),
        ({"adc_samples": np.full((2, 9, 1), 60_000, "u2")}, 1, "adc", "u2"),
        ({"adc_samples": np.full((2, 9), 60_000, "u2")}, 1, "adc", "u2"),
        ({"adc_sums": np.full((2, 9), 60_000, "u4")}, 1, "adc", "u2"),
        ({"adc_sums": np.full((2, 9), 100_000, "u4")}, 30, "adc", "u4"),
    ],
    ids=["waveform", "one-sample", "one-sample-of-eventio", "single-sum", "sum-of-30"],
)
def test_counts_are_stored_in_the_smallest_way(tmp_path, event, n_samples, name, dtype):
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        made = tables(writer, n_samples)
        assert append(made, event)
        assert made.n_samples == (5 if name == "waveform" else 1)
        made.flush()
    found = open_store(tmp_path / "a.zarr").read(f"dl0/image/Test/{name}")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[0], np.squeeze(next(iter(event.values()))))


@pytest.mark.parametrize(
    "second",
    [
        {"adc_samples": np.zeros((2, 9, 6), "u2")},
        {"adc_samples": np.zeros((1, 9, 5), "u2")},
        {"adc_sums": np.zeros((2, 9), "u4")},
    ],
    ids=["more-samples", "fewer-gains", "sums"],
)
def test_images_that_differ(tmp_path, second):
    first = {"adc_samples": np.zeros((2, 9, 5), "u2")}
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        made = tables(writer, 5)
        append(made, first)
        with pytest.raises(AstriError, match=r"telescope 1 in file, event 7, differ: .*apart\."):
            append(made, second)
    with create(tmp_path / "b.zarr", attrs={}) as writer:
        made = tables(writer, 5, keep=True)
        assert append(made, first)
        assert not append(made, second)
        assert made.n_images == 1
        assert len(made.notes) == 1


def test_single_sample_never_overflows(tmp_path):
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        made = tables(writer, 1)
        with pytest.raises(AstriError, match="up to 70000"):
            append(made, {"adc_sums": np.full((2, 9), 70_000, "u4")})


def test_true_image_without_history(tmp_path):
    event = {"adc_samples": np.zeros((2, 9, 5), "u2")}
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        made = tables(writer, 5)
        append(made, event, true_image=np.arange(9))
        append(made, event)
        made.flush()
    found = open_store(tmp_path / "a.zarr").read("simulation/image/Test/true_image")
    np.testing.assert_array_equal(found, [np.arange(9), np.full(9, -1)])


def test_more_images_than_a_block(tmp_path):
    """Rows wait in a block; none is lost, whatever their number."""
    n = 2 * MAX_ROWS + 5
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        made = tables(writer, 5)
        for number in range(n):
            counts = np.full((2, 9, 5), number, "u2")
            lists = {0: {"pixels": 1, "pixel_list": np.array([number % 9])}}
            assert append(made, {"adc_samples": counts, "pixel_lists": lists})
        made.flush()
        made.flush()
    store = open_store(tmp_path / "a.zarr")
    found = store.read("dl0/image/Test/waveform")
    np.testing.assert_array_equal(found[:, 1, 8, 4], np.arange(n))
    fired = store.read("dl0/image/Test/trigger_pixel")
    np.testing.assert_array_equal(np.nonzero(fired)[1], np.arange(n) % 9)


@pytest.mark.parametrize("pixel", [-1, 9, 1 << 40])
def test_trigger_pixels_that_the_camera_does_not_have(tmp_path, pixel):
    lists = {0: {"pixels": 2, "pixel_list": np.array([4, pixel])}}
    event = {"adc_samples": np.zeros((2, 9, 5), "u2"), "pixel_lists": lists}
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        made = tables(writer, 5)
        with pytest.raises(AstriError, match=r"telescope 1 in file, event 7, names pixels that"):
            append(made, event)
    with create(tmp_path / "b.zarr", attrs={}) as writer:
        made = tables(writer, 5, keep=True)
        assert append(made, event)
        made.flush()
        assert len(made.notes) == 1
    fired = open_store(tmp_path / "b.zarr").read("dl0/image/Test/trigger_pixel")
    assert np.nonzero(fired[0])[0].tolist() == [4]


@pytest.mark.parametrize(
    ("true_image", "match"),
    [
        (np.zeros(8, np.int32), r"true_image takes rows of \(9,\), not \(8,\)"),
        (np.zeros(1, np.int32), r"true_image takes rows of \(9,\), not \(1,\)"),
        (np.zeros(9), r"true_image holds int32, not float64"),
    ],
)
def test_true_images_of_another_camera(tmp_path, true_image, match):
    """A row that does not fit is never broadcast or rounded into place."""
    event = {"adc_samples": np.zeros((2, 9, 5), "u2")}
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        made = tables(writer, 5)
        with pytest.raises(AstriError, match=match):
            append(made, event, true_image=true_image)


def test_no_counts():
    assert image_counts({"header": {}}) is None
