"""Images that start from charges: the same parameters, bit for bit, as from the counts behind."""

import os
import subprocess
import sys

import numpy as np
import pytest

from astri_gpu.kernels import image_chain as chain
from astri_gpu.kernels.image_types import CalibrationArrays
from astri_gpu.kernels.loops import cpu

BASE = chain.ImageSettings(
    gain_threshold_adc=3500.0,
    saturation_adc=4000.0,
    sampling_rate_ghz=0.5,
    window_width=5,
    window_shift=2,
    timing_starts=5,
    timing_steps=3,
)
CLEANINGS = {
    "tailcuts": {},
    "isolated pixels kept": {"keep_isolated": True, "min_core_pixels": 0},
    "mars": {"cleaning": "mars", "second_boundary_pe": 1.5},
    "time constrained": {"cleaning": "time_constrained", "min_core_pixels": 0},
    "time differences": {"time_limit_ns": 1.7},
    "one more row": {"dilate_rows": 1},
    "largest island": {"largest_island_only": True, "min_core_pixels": 0},
    "thresholds below zero": {"picture_pe": 2.0, "boundary_pe": -1.0},
}
ABOUT_SATURATION = ("n_saturated_pixels", "image_flags")


def no_calibration(n_pixels):
    table = np.zeros((1, 1, n_pixels), dtype=np.float32)
    return CalibrationArrays(table, table, table, table, table == 0, np.ones(1))


def given(result, has_time):
    """Return the charges of a result as the chain takes them, with peak times where there are."""
    parts = [result.charge, result.peak_time] if has_time else [result.charge]
    return np.stack([np.asarray(part, dtype=np.float32) for part in parts], axis=1)


def loops(adc, camera, calibration, options, *, dense, n_threads=1):
    return cpu.prepare(
        camera,
        calibration,
        options,
        n_samples=adc.shape[3] if adc.ndim == 4 else 0,
        adc_dtype=adc.dtype,
        dense=dense,
        n_threads=n_threads,
    )


def assert_equal(found, expected, exact=True):
    for name in chain.COLUMNS:
        if name in ABOUT_SATURATION:
            continue
        left, right = np.asarray(found.columns[name]), np.asarray(expected.columns[name])
        assert left.dtype == right.dtype, name
        if exact or name in chain.COUNT_COLUMNS:
            np.testing.assert_array_equal(left, right, err_msg=name)
        else:
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5, err_msg=name)
    flags = np.asarray(expected.columns["image_flags"]) & ~chain.FLAG_SATURATED
    np.testing.assert_array_equal(found.columns["image_flags"], flags)
    assert np.all(np.asarray(found.columns["n_saturated_pixels"]) == -1)


@pytest.mark.parametrize("change", CLEANINGS.values(), ids=CLEANINGS)
@pytest.mark.parametrize("n_samples", [0, 30], ids=["no times", "times"])
def test_both_texts_give_what_they_give_from_counts(camera, shower_images, n_samples, change):
    options = BASE._replace(**change)
    adc, index, is_shower, arrays, calibration = shower_images(camera, n_samples)
    unknown = no_calibration(adc.shape[2])
    row = np.zeros_like(index)

    expected = chain.image_chain(adc, index, is_shower, arrays, calibration, settings=options)
    images = given(expected, n_samples > 0)
    found = chain.image_chain(images, row, is_shower, arrays, unknown, settings=options)
    assert not np.any(found.retry)
    assert_equal(found, expected)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.charge, expected.charge)
    assert np.sum(found.columns["morphology_n_pixels"] > 0) >= 3

    expected = loops(adc, arrays, calibration, options, dense=True)(adc, index, is_shower)
    images = given(expected, n_samples > 0)
    for dense, n_threads in ((True, 1), (False, 2)):
        prepared = loops(images, arrays, unknown, options, dense=dense, n_threads=n_threads)
        found = prepared(images, row, is_shower)
        assert not np.any(prepared.scratch.state)
        assert_equal(found, expected)
        if dense:
            for name in ("charge", "peak_time", "mask"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("n_samples", [0, 30], ids=["no times", "times"])
def test_jax_gives_the_same(squares, shower_images, n_samples):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    adc, index, is_shower, arrays, calibration = shower_images(squares, n_samples)
    expected = chain.image_chain(adc, index, is_shower, arrays, calibration, settings=BASE)
    batch = (given(expected, n_samples > 0), np.zeros_like(index), is_shower)
    tables = (arrays, no_calibration(adc.shape[2]))
    on_device = [jax.numpy.asarray(part) for part in batch]
    on_device += [type(table)(*map(jax.numpy.asarray, table)) for table in tables]
    run = jax.jit(chain.image_chain, static_argnames=("settings",))
    assert_equal(run(*on_device, settings=BASE), expected, exact=False)


def test_pixels_without_a_number_are_never_kept(squares, shower_images):
    """NaN fails every comparison, in both texts."""
    adc, index, is_shower, arrays, calibration = shower_images(squares)
    expected = chain.image_chain(adc, index, is_shower, arrays, calibration, settings=BASE)
    images = given(expected, has_time=False)
    brightest = np.argmax(images[1, 0])
    images[1, 0, brightest] = np.nan
    unknown = no_calibration(adc.shape[2])
    found = chain.image_chain(
        images, np.zeros_like(index), is_shower, arrays, unknown, settings=BASE
    )
    again = loops(images, arrays, unknown, BASE, dense=True)(
        images, np.zeros_like(index), is_shower
    )
    assert expected.mask[1, brightest]
    assert not found.mask[1, brightest]
    assert np.isfinite(found.columns["hillas_intensity"][1])
    np.testing.assert_array_equal(again.mask, found.mask)


SIMULATED = """
import sys, warnings
warnings.simplefilter("error")
# numba-cuda 0.30 makes such constants when it is imported with NumPy 2.5.
warnings.filterwarnings("ignore", message="The 'generic' unit for NumPy timedelta")
import numpy as np
from astri_gpu.kernels import image_chain as chain
from astri_gpu.kernels.loops import cuda

data = np.load(sys.argv[1])
camera = chain.CameraArrays(*(data["camera_" + name] for name in chain.CameraArrays._fields))
names = chain.CalibrationArrays._fields
calibration = chain.CalibrationArrays(*(data["calibration_" + name] for name in names))
settings = chain.ImageSettings(timing_starts=5, timing_steps=3)
given = data["given"]
for dense in (False, True):
    loops = cuda.prepare(
        camera, calibration, settings, n_samples=0, adc_dtype=given.dtype, dense=dense,
        n_workers=4, xp=np,
    )
    result = loops(given, np.zeros(len(given), dtype=np.int32), data["is_shower"])
    assert not np.any(loops.scratch.state)
    pixels = {name: getattr(result, name) for name in ("charge", "peak_time", "mask")}
    np.savez(f"{sys.argv[2]}/{dense}.npz", **(pixels if dense else {}), **result.columns)
"""


@pytest.mark.parametrize("n_samples", [0, 30], ids=["no times", "times"])
def test_the_simulated_cuda_launch_gives_the_same(tmp_path, squares, shower_images, n_samples):
    """In a process of its own, because the simulator is chosen before Numba is imported."""
    pytest.importorskip("numba.cuda")
    adc, index, is_shower, arrays, calibration = shower_images(squares, n_samples, n_images=6)
    options = chain.ImageSettings(timing_starts=5, timing_steps=3)
    images = given(
        chain.image_chain(adc, index, is_shower, arrays, calibration, settings=options),
        n_samples > 0,
    )
    unknown = no_calibration(adc.shape[2])
    expected = loops(images, arrays, unknown, options, dense=True)(
        images, np.zeros_like(index), is_shower
    )
    stored = {f"camera_{name}": values for name, values in arrays._asdict().items()}
    stored |= {f"calibration_{name}": values for name, values in unknown._asdict().items()}
    np.savez(tmp_path / "in.npz", given=images, is_shower=is_shower, **stored)
    run = subprocess.run(
        [sys.executable, "-c", SIMULATED, str(tmp_path / "in.npz"), str(tmp_path)],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for dense in (False, True):
        with np.load(tmp_path / f"{dense}.npz") as found:
            names = ("charge", "peak_time", "mask") if dense else ()
            for name in names:
                np.testing.assert_array_equal(found[name], getattr(expected, name))
            for name, values in expected.columns.items():
                # Mathematical functions may differ in their last place.
                np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=2e-6, err_msg=name)
    assert np.sum(expected.columns["morphology_n_pixels"] > 0) >= 2
