"""Counts of cameras that the real files do not have: sums over samples, and mixed images."""

import numpy as np
import pytest

from astri_gpu.errors import AstriError
from astri_gpu.instrument import CameraDescription, CameraGeometry, Optics, Readout
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
        ({"adc_sums": np.full((2, 9), 60_000, "u4")}, 1, "adc", "u2"),
        ({"adc_sums": np.full((2, 9), 100_000, "u4")}, 30, "adc", "u4"),
    ],
    ids=["waveform", "one-sample", "single-sum", "sum-of-30"],
)
def test_counts_are_stored_in_the_smallest_way(tmp_path, event, n_samples, name, dtype):
    with create(tmp_path / "a.zarr", attrs={}) as writer:
        made = tables(writer, n_samples)
        assert append(made, event)
        assert made.n_samples == (5 if name == "waveform" else 1)
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
    found = open_store(tmp_path / "a.zarr").read("simulation/image/Test/true_image")
    np.testing.assert_array_equal(found, [np.arange(9), np.full(9, -1)])


def test_no_counts():
    assert image_counts({"header": {}}) is None
