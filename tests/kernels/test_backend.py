"""Backends: batches in flight, wider settings, memory, devices."""

import os
import subprocess
import sys

import numpy as np
import pytest

from astri_gpu import backend as backends
from astri_gpu.backend import Backend, make_backend, visible_devices
from astri_gpu.backend_arrays import packed_chain
from astri_gpu.errors import AstriError
from astri_gpu.kernels import image_chain as chain
from astri_gpu.kernels.image_types import COLUMNS, COUNT_COLUMNS

SETTINGS = chain.ImageSettings(gain_threshold_adc=3500.0, saturation_adc=4000.0, n_slots=64)


@pytest.fixture(scope="module")
def batches(squares, shower_images):
    """Return five batches of eight images, and what they share."""
    made = shower_images(squares, n_images=40, seed=11)
    order = np.random.default_rng(2).permutation(40)  # the odd images are at the end
    rows = [array[order] for array in made[:3]]
    return [tuple(a[k : k + 8] for a in rows) for k in range(0, 40, 8)], made[3:]


def chain_of(backend, shared, settings=SETTINGS, dense=False):
    return backend.image_chain(
        *shared, settings, n_samples=0, adc_dtype=np.dtype(np.uint16), dense=dense
    )


def same(found, expected):
    assert set(found.columns) == set(expected.columns) == set(COLUMNS)
    for name, values in expected.columns.items():
        assert type(found.columns[name]) is np.ndarray
        assert found.columns[name].dtype == (np.int32 if name in COUNT_COLUMNS else np.float32)
        np.testing.assert_allclose(found.columns[name], values, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("name", ["numpy", "cpu", "jax"])
@pytest.mark.parametrize("dense", [False, True])
def test_results_of_batches_in_flight_are_those_of_one_after_the_other(batches, name, dense):
    parts, shared = batches
    reference = chain_of(make_backend("numpy"), shared, dense=True)
    run = chain_of(make_backend(name, 1), shared, dense=dense)
    before = [[array.copy() for array in part] for part in parts]
    waiting = [run.start(*part) for part in parts]
    for part, finish in zip(parts, waiting, strict=True):
        found, expected = finish(), reference(*part)
        same(found, expected)
        if dense:
            for pixels in ("charge", "peak_time", "mask"):
                np.testing.assert_allclose(
                    getattr(found, pixels), getattr(expected, pixels), rtol=1e-5, atol=1e-5
                )
    for part, kept in zip(parts, before, strict=True):  # inputs are never modified
        for array, copy in zip(part, kept, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_batches_that_need_more_slots_run_again_and_nothing_is_lost(batches, monkeypatch):
    parts, shared = batches
    reference = chain_of(make_backend("cpu", 1), shared)
    run = chain_of(make_backend("numpy"), shared, SETTINGS._replace(n_slots=3, island_steps=1))
    runs = []

    def counted(*arguments, settings, dense):
        runs.append((settings.n_slots, settings.island_steps))
        return packed_chain(*arguments, settings=settings, dense=dense)

    monkeypatch.setattr(run, "_run", counted)
    waiting = [run.start(*part) for part in parts]
    assert set(runs) == {(3, 1)}  # all were queued before the first was looked at
    for part, finish in zip(parts, waiting, strict=True):
        same(finish(), reference(*part))
    again = runs[len(parts) :]
    assert again[0] > (3, 1)
    widest = max(runs)
    assert again[-1] == widest  # it never shrinks ...
    # ... and later batches start with what former ones have found, instead of doubling once more.
    assert len(again) <= len(parts) + 8
    n_runs = len(runs)
    same(run(*parts[0]), reference(*parts[0]))
    assert runs[n_runs:] == [widest]


def test_jax_compiles_once_and_keeps_no_batch(batches):
    jax = pytest.importorskip("jax")
    parts, shared = batches
    run = chain_of(make_backend("jax"), shared, SETTINGS._replace(min_pixels=3))
    compiled = make_backend("jax").compile(packed_chain, ("settings", "dense"))
    n_before = compiled._cache_size()
    run(*parts[0])
    n_first = compiled._cache_size()
    assert n_first <= n_before + 1
    n_arrays = len(jax.live_arrays())
    for finish in [run.start(*part) for part in parts]:
        finish()
    del finish
    assert compiled._cache_size() == n_first
    assert len(jax.live_arrays()) == n_arrays


def test_jax_starts_without_looking_at_results(batches, monkeypatch):
    parts, shared = batches
    backend = make_backend("jax")
    run = chain_of(backend, shared)
    run(*parts[0])
    monkeypatch.setattr(backend, "to_host", lambda values: pytest.fail("waited for a device"))
    finish = run.start(*parts[1])
    monkeypatch.undo()
    same(finish(), chain_of(make_backend("numpy"), shared)(*parts[1]))


SHARDED = """
import sys
import numpy as np
from astri_gpu.backend import make_backend
from astri_gpu.errors import AstriError
from astri_gpu.kernels import image_chain as chain

data = np.load(sys.argv[1])
camera = chain.CameraArrays(*(data["camera_" + name] for name in chain.CameraArrays._fields))
names = chain.CalibrationArrays._fields
calibration = chain.CalibrationArrays(*(data["calibration_" + name] for name in names))
settings = chain.ImageSettings(gain_threshold_adc=3500.0, saturation_adc=4000.0, n_slots=64)
batch = [data[name] for name in ("adc", "index", "is_shower")]

def run(devices, rows):
    backend = make_backend("jax", devices=devices)
    chained = backend.image_chain(
        camera, calibration, settings, n_samples=0, adc_dtype=np.uint16, dense=True
    )
    arrays = backend.asbatch(*(array[:rows] for array in batch))
    assert len(arrays[0].sharding.device_set) == devices, arrays[0].sharding
    return chained(*(array[:rows] for array in batch))

for rows in (7,):  # one image of zeros follows
    one, two = run(1, rows), run(2, rows)
    assert len(two.charge) == rows
    for name, values in one.columns.items():
        np.testing.assert_allclose(two.columns[name], values, rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(one.mask, two.mask)
try:
    make_backend("jax", devices=3)
except AstriError as error:
    print(error)
"""


def test_jax_shares_a_batch_over_devices(tmp_path, batches):
    parts, (camera, calibration) = batches
    arrays = {f"camera_{name}": values for name, values in camera._asdict().items()}
    arrays |= {f"calibration_{name}": values for name, values in calibration._asdict().items()}
    adc, index, is_shower = parts[0]
    np.savez(tmp_path / "in.npz", adc=adc, index=index, is_shower=is_shower, **arrays)
    flags = "--xla_force_host_platform_device_count=2"
    run = subprocess.run(
        [sys.executable, "-c", SHARDED, tmp_path / "in.npz"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("backend.devices=3, and JAX finds 2 (cpu): ask for fewer")


def test_only_jax_shares_a_batch():
    with pytest.raises(AstriError, match=r"backend\.devices=2 is for backend=jax: with backend=cp"):
        make_backend("cpu", devices=2)


def test_what_counts_as_out_of_memory():
    jax = pytest.importorskip("jax")
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
    other = jax.errors.JaxRuntimeError("INTERNAL: something else")
    backend = make_backend("jax")
    assert backend.is_out_of_memory(full)
    assert backend.is_out_of_memory(MemoryError())
    assert not backend.is_out_of_memory(other)
    assert not make_backend("cpu").is_out_of_memory(full)


def test_batches_fit_into_free_memory(monkeypatch):
    assert make_backend("cpu").batch_for(9472) is None
    backend = make_backend("numpy")
    monkeypatch.setattr(backend, "_free_bytes", lambda: 10**9)
    monkeypatch.setattr(backend, "pipeline_depth", 2)
    n_images = backend.batch_for(9472)
    assert 10**9 / 8 < 2 * 9472 * n_images < 10**9
    assert backend.batch_for(10**12) == 1


def test_visible_devices(monkeypatch):
    class Driver:
        def __init__(self, count):
            self.count = count

        def cuInit(self, flags):
            return 0 if self.count >= 0 else 100

        def cuDeviceGetCount(self, pointer):
            pointer._obj.value = self.count
            return 0

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for count, expected in ((3, ["0", "1", "2"]), (0, []), (-1, [])):
        monkeypatch.setattr(backends.ctypes, "CDLL", lambda name, n=count: Driver(n))
        assert visible_devices() == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f, 5")
    monkeypatch.setattr(backends.ctypes, "CDLL", lambda name: Driver(2))
    assert visible_devices() == ["GPU-8f", "5"]

    def missing(name):
        raise OSError("no driver")

    monkeypatch.setattr(backends.ctypes, "CDLL", missing)
    assert visible_devices() == []


def test_every_backend_says_how_many_batches_should_be_in_flight():
    assert Backend.pipeline_depth == make_backend("cpu").pipeline_depth == 1
    assert make_backend("jax").pipeline_depth >= 2
