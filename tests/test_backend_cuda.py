"""Batches on their way to a GPU and back: order, memory that is used again, errors.

A fake of CuPy puts off all work on its streams as long as CUDA may (`fake_cupy`).
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from astri_gpu.backend_cuda import StagedChain
from astri_gpu.kernels.image_types import COLUMNS, COUNT_COLUMNS
from astri_gpu.kernels.loops.launch import make_outputs

FAKE = Path(__file__).with_name("fake_cupy.py")


def make_cupy(**options):
    spec = importlib.util.spec_from_file_location("fake_cupy", FAKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make(**options)


class FakeLoops:
    """Write the sum of the counts of an image into every column, when its stream gets there."""

    def __init__(self, cupy, dense=True):
        self.cupy, self.dense = cupy, dense

    def queue(self, adc, calibration_index, is_shower):
        outputs = make_outputs(len(adc), adc.shape[2], self.dense, self.cupy.empty)

        def launch():
            total = adc.sum(axis=(1, 2)) + calibration_index
            outputs[0][:, : len(adc)] = np.where(is_shower, total, -1)
            if self.dense:
                outputs[1][...] = adc[:, 0]
                outputs[2][...] = 0
                outputs[3][...] = adc[:, 0] > 5

        self.cupy.cuda.get_current_stream().add(launch)
        return outputs


def batch(seed, n_images=6):
    rng = np.random.default_rng(seed)
    adc = rng.integers(0, 10, (n_images, 2, 8)).astype(np.uint16)
    index = rng.integers(0, 3, n_images).astype(np.int32)
    return adc, index, rng.random(n_images) < 0.8


def check(result, arrays, dense=True):
    adc, index, is_shower = arrays
    expected = np.where(is_shower, adc.sum(axis=(1, 2)) + index, -1)
    assert list(result.columns) == list(COLUMNS)
    for name, values in result.columns.items():
        assert values.dtype == (np.int32 if name in COUNT_COLUMNS else np.float32)
        np.testing.assert_array_equal(values, expected, err_msg=name)
    if dense:
        np.testing.assert_array_equal(result.charge, adc[:, 0])
        np.testing.assert_array_equal(result.mask, adc[:, 0] > 5)
    assert not result.retry.any()


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("in_flight", [1, 2, 3, 7])
def test_batches_in_flight_do_not_touch_each_other(eager, dense, in_flight):
    cupy = make_cupy(eager=eager)
    run = StagedChain(cupy, FakeLoops(cupy, dense), depth=3, threads=2)
    arrays = [batch(seed, n_images) for seed, n_images in enumerate((6, 6, 9, 2, 6, 1, 9, 4))]
    waiting, results = [], []
    for part in arrays:
        waiting.append(run.start(*part))
        if len(waiting) == in_flight:
            results.append(waiting.pop(0)())
    results += [finish() for finish in waiting]
    for part, result in zip(arrays, results, strict=True):  # after all: results are no views
        check(result, part, dense)


def test_a_result_can_be_asked_for_twice_and_out_of_order():
    cupy = make_cupy()
    run = StagedChain(cupy, FakeLoops(cupy), depth=2, threads=1)
    arrays = [batch(seed) for seed in range(4)]
    waiting = [run.start(*part) for part in arrays]
    for k in (2, 0, 3, 1, 0):
        check(waiting[k](), arrays[k])


def test_device_memory_is_bounded_by_batch_and_depth():
    cupy = make_cupy()
    run = StagedChain(cupy, FakeLoops(cupy), depth=3, threads=1)
    used = []
    for seed in range(12):
        finish = run.start(*batch(seed, 50))
        if seed % 2:
            finish()
        used.append(cupy.used[0])
    assert max(used) <= 3 * used[0]
    assert max(used[6:]) <= max(used[:6])


def test_too_large_a_batch_loses_nothing_and_smaller_ones_go_on():
    small = batch(0, 4)
    cupy = make_cupy(memory=40_000)
    run = StagedChain(cupy, FakeLoops(cupy), depth=3, threads=1)
    before = run.start(*small)
    used = cupy.used[0]
    with pytest.raises(MemoryError):
        run.start(*batch(1, 200))
    assert cupy.used[0] == used
    halves = [tuple(a[k : k + 20] for a in batch(2, 40)) for k in (0, 20)]
    waiting = [run.start(*half) for half in halves]
    check(before(), small)
    for half, finish in zip(halves, waiting, strict=True):
        check(finish(), half)


SIMULATED = """
import json, sys, warnings
# numba-cuda 0.30 makes such constants when it is imported with NumPy 2.5.
warnings.filterwarnings("ignore", message="The 'generic' unit for NumPy timedelta")
sys.path.insert(0, sys.argv[1])
import fake_cupy
sys.modules["cupy"] = fake_cupy.make(eager=True)
import numpy as np
from numba import cuda
from astri_gpu.backend import make_backend
from astri_gpu.kernels.image_types import CalibrationArrays, CameraArrays, ImageSettings

cuda.external_stream = lambda pointer: 0  # which the simulator does not have
rng = np.random.default_rng(1)
edge = np.arange(16)
neighbours = np.stack([np.where(edge > 0, edge - 1, -1), np.where(edge < 15, edge + 1, -1)], 1)
one = np.ones(16)
camera = CameraArrays(edge * 0.2, 0 * one, 0.04 * one, 0.2 * one, edge < 1, edge < 2,
                      neighbours, neighbours)
shape = (1, 2, 16)
calibration = CalibrationArrays(np.full(shape, 10.0), np.full(shape, 1.0), np.ones(shape),
                                np.zeros(shape), np.ones(shape, bool), np.ones(2))
settings = ImageSettings(min_core_pixels=2)
arguments = dict(n_samples=0, adc_dtype=np.dtype(np.uint16), dense=False)
gpu = make_backend("cupy")
assert gpu.name == "cupy" and gpu.pipeline_depth > 1
assert gpu.is_out_of_memory(sys.modules["cupy"].cuda.memory.OutOfMemoryError())
assert 0 < gpu.batch_for(100) < 10**9 / 100
run = gpu.image_chain(camera, calibration, settings, **arguments)
assert run._loops.form == "block"
reference = make_backend("numpy").image_chain(camera, calibration, settings, **arguments)
parts = []
for n_images in (3, 5):
    bright = rng.integers(12, 100, (n_images, 2, 16))
    adc = (10 + bright * (rng.random(bright.shape) < 0.4)).astype(np.uint16)
    parts.append((adc, np.zeros(n_images, np.int32), np.ones(n_images, bool)))
waiting = [run.start(*part) for part in parts]
for part, finish in zip(parts, waiting):
    found, expected = finish(), reference(*part)
    assert (expected.columns["morphology_n_pixels"] > 0).any()
    for name, values in expected.columns.items():
        np.testing.assert_allclose(found.columns[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
"""


def test_the_backend_runs_in_the_simulator():
    pytest.importorskip("numba.cuda")
    run = subprocess.run(
        [sys.executable, "-c", SIMULATED, str(FAKE.parent)],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
