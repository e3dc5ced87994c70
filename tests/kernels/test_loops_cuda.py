"""The CUDA launch of the loop text: in numba-cuda's simulator, and on a GPU where there is one.

The simulator has to be chosen before Numba is imported, so that it runs in a process of its own.
There the loop text is plain Python with warnings as errors, which shows that it divides by no zero.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from astri_gpu.kernels import image_chain as chain
from astri_gpu.kernels.loops import cpu, cuda

SETTINGS = chain.ImageSettings(
    gain_threshold_adc=3500.0,
    saturation_adc=4000.0,
    sampling_rate_ghz=0.5,
    window_width=5,
    window_shift=2,
    timing_starts=4,
    timing_steps=3,
)
CASES = {
    "sums": (0, {}),
    "sums, isolated pixels": (0, {"keep_isolated": True, "boundary_pe": 1.5, "min_pixels": 1}),
    "sums, many options": (
        0,
        {"cleaning": "mars", "second_boundary_pe": 1.5, "dilate_rows": 1, "time_limit_ns": 2.0},
    ),
    "waveforms": (12, {"cleaning": "nsb", "largest_island_only": True}),
    "waveforms, times": (
        12,
        {"cleaning": "time_constrained", "extractor": "global_peak", "min_core_pixels": 0},
    ),
}

SIMULATED = """
import json, sys, warnings
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
settings = chain.ImageSettings(**json.loads(sys.argv[3]))
adc = data["adc"]

def run(dense, n_workers, form, n_threads=None):
    loops = cuda.prepare(
        camera, calibration, settings, n_samples=adc.shape[3] if adc.ndim == 4 else 0,
        adc_dtype=adc.dtype, dense=dense, form=form, n_threads=n_threads, n_workers=n_workers,
        xp=np,
    )
    result = loops(adc, data["index"], data["is_shower"])
    assert not np.any(loops.scratch.state)
    return result

result = run(True, 100, None)
others = [run(False, 3, "thread")]
if adc.ndim == 3 and settings.dilate_rows == 0:
    # Several groups in one block, then several blocks of which the last is not full.
    others += [run(False, 3, "block", 4), run(False, 100, "block", 4), run(False, 40, None)]
for other in others:
    for name, values in other.columns.items():
        np.testing.assert_array_equal(result.columns[name], values, err_msg=name)
pixels = {name: getattr(result, name) for name in ("charge", "peak_time", "mask")}
np.savez(sys.argv[2], **pixels, **result.columns)
"""


def prepare(module, batch, options, **keywords):
    adc, _, _, camera, calibration = batch
    n_samples = adc.shape[3] if adc.ndim == 4 else 0
    return module.prepare(
        camera, calibration, options, n_samples=n_samples, adc_dtype=adc.dtype, dense=True,
        **keywords,
    )  # fmt: skip


def assert_same(found, batch, options):
    """Compare with the CPU; mathematical functions may differ in their last place."""
    expected = prepare(cpu, batch, options, n_threads=1)(*batch[:3])
    pixels = {name: getattr(expected, name) for name in ("charge", "peak_time", "mask")}
    for name, values in (expected.columns | pixels).items():
        assert found[name].dtype == values.dtype, name
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=2e-6, err_msg=name)
    assert np.sum(expected.columns["morphology_n_pixels"] > 0) >= 2


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_simulated_launch_equals_the_cpu(tmp_path, squares, shower_images, case):
    pytest.importorskip("numba.cuda")
    n_samples, change = case
    options = SETTINGS._replace(**change)
    batch = shower_images(squares, n_samples, n_images=6, seed=3)
    adc, index, is_shower, camera, calibration = batch
    arrays = {f"camera_{name}": values for name, values in camera._asdict().items()}
    arrays |= {f"calibration_{name}": values for name, values in calibration._asdict().items()}
    np.savez(tmp_path / "in.npz", adc=adc, index=index, is_shower=is_shower, **arrays)
    run = subprocess.run(
        [
            *(sys.executable, "-c", SIMULATED),
            *(tmp_path / "in.npz", tmp_path / "out.npz", json.dumps(options._asdict())),
        ],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "out.npz") as found:
        assert_same(found, batch, options)


WORDS = """
import warnings
warnings.filterwarnings("ignore", message="The 'generic' unit for NumPy timedelta")
import numpy as np
from astri_gpu.kernels.loops.cuda_kernels import _reaching

rng = np.random.default_rng(1)
edges = np.array([0, 1, 2, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF], dtype=np.uint16)
counts = rng.integers(0, 65536, (4000, 4)).astype(np.uint16)
limits = counts + rng.integers(-1, 2, counts.shape).astype(np.uint16)
counts[:2000] = rng.choice(edges, (2000, 4))
limits[:1000] = rng.choice(edges, (1000, 4))
for count, limit in zip(counts, limits):
    bits = int(_reaching(count.view(np.uint64)[0], limit.view(np.uint64)[0]))
    reaching = [bool(bits >> k & 1) for k in range(64)]
    assert reaching[15::16] == list(count >= limit), (count, limit)
    assert sum(reaching) == sum(reaching[15::16])
"""


def test_four_counts_are_compared_as_one_word():
    pytest.importorskip("numba.cuda")
    run = subprocess.run(
        [sys.executable, "-c", WORDS],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("xp", ["cupy"], indirect=True)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_gpu_equals_the_cpu(xp, hexagons, shower_images, case):
    n_samples, change = case
    options = SETTINGS._replace(**change)
    batch = shower_images(hexagons, n_samples, n_images=200, seed=5)
    loops = prepare(cuda, batch, options)
    for arrays in (batch[:3], [xp.asarray(part) for part in batch[:3]]):
        result = loops(*arrays)
        pixels = {name: getattr(result, name) for name in ("charge", "peak_time", "mask")}
        columns = {name: xp.asnumpy(a) for name, a in (result.columns | pixels).items()}
        assert_same(columns, batch, options)
    assert not bool(loops.scratch.state.copy_to_host().any())


@pytest.mark.gpu
@pytest.mark.parametrize("xp", ["cupy"], indirect=True)
def test_the_gpu_reads_images_together(xp, squares, shower_images):
    batch = shower_images(squares, n_images=203, seed=6)
    expected = prepare(cpu, batch, SETTINGS, n_threads=1)(*batch[:3])
    arguments = {"n_samples": 0, "adc_dtype": batch[0].dtype, "dense": False}
    for shape in ({"form": "thread"}, {}, {"n_threads": 64, "n_workers": 100}):
        loops = cuda.prepare(*batch[3:], SETTINGS, **arguments, **shape)
        assert loops.form == shape.get("form", "block")
        found = loops(*batch[:3])
        for name, values in expected.columns.items():
            np.testing.assert_allclose(
                xp.asnumpy(found.columns[name]), values, rtol=1e-5, atol=2e-6, err_msg=name
            )
        assert not bool(loops.scratch.state.copy_to_host().any())


REFUSED = """
import warnings
warnings.filterwarnings("ignore", message="The 'generic' unit for NumPy timedelta")
import numpy as np
from astri_gpu.kernels.image_types import CalibrationArrays, CameraArrays, ImageSettings
from astri_gpu.kernels.loops import cuda

def form(n_pixels=8, change={}, **options):
    pixels, table = np.zeros(n_pixels), np.ones((1, 2, n_pixels))
    neighbours = np.full((n_pixels, 2), -1)
    camera = CameraArrays(*[pixels] * 4, *[pixels > 0] * 2, neighbours, neighbours)
    calibration = CalibrationArrays(*[table] * 4, table > 0, np.ones(2))
    arguments = dict(n_samples=0, adc_dtype=np.uint16, dense=False, n_workers=5) | options
    loops = cuda.prepare(camera, calibration, ImageSettings(**change), xp=np, **arguments)
    assert loops.form == "thread" or loops.scratch.charge.shape[0] == 32
    return loops.form

assert form() == "block"
assert form(form="thread") == "thread"
others = (
    dict(n_pixels=9), dict(dense=True), dict(adc_dtype=np.uint8), dict(n_samples=4),
    dict(change={"dilate_rows": 1}),
)
for options in others:
    assert form(**options) == "thread", options
    try:
        form(**options, form="block")
    except ValueError as error:
        assert "needs one 16-bit count" in str(error)
    else:
        raise AssertionError(options)
try:
    form(form="grid")
except ValueError as error:
    print(error)
"""


def test_which_form_is_taken():
    pytest.importorskip("numba.cuda")
    run = subprocess.run(
        [sys.executable, "-c", REFUSED],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "form is 'grid': expected one of thread, block\n"


def test_without_a_gpu_one_sentence_says_what_to_do(monkeypatch, squares, shower_images):
    batch = shower_images(squares)
    monkeypatch.setitem(sys.modules, "astri_gpu.kernels.loops.cuda_kernels", None)
    with pytest.raises(RuntimeError, match=r"need numba-cuda, .* choose the CPU\.$"):
        prepare(cuda, batch, SETTINGS)
    monkeypatch.undo()
    monkeypatch.setattr(cuda, "load_kernels", lambda name: None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"need CuPy, .* choose the CPU\.$"):
        prepare(cuda, batch, SETTINGS)


def test_importing_the_launch_imports_no_cuda():
    code = (
        "import sys, astri_gpu.kernels.loops.cuda\n"
        "sys.exit(any(name in sys.modules for name in ('cupy', 'numba_cuda', 'numba.cuda')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
