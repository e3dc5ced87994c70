"""CUDA launch of the shower simulation: same images as the CPU's, in the simulator and on a GPU.

The simulator runs in a process of its own, because it has to be chosen before Numba is imported.
There the loop text is plain Python: showers are few, dim, and made by hand.
"""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from astri_gpu.backend import make_backend
from astri_gpu.config_simulation import CameraConfig, OpticsConfig
from astri_gpu.instrument.astri import astri_camera
from astri_gpu.kernels.loops import shower_block, shower_cuda
from astri_gpu.kernels.loops.shower_cpu import ShowerLoops
from astri_gpu.kernels.simulation_types import (
    MUON,
    PROTON,
    CameraModel,
    CameraSettings,
    EmRows,
    Events,
    LightTables,
    MuonRows,
    OpticsModel,
    Primaries,
    ProductionSettings,
    ShowerRows,
    StepGrid,
    Telescopes,
)
from astri_gpu.simulation.array_engine import ArrayEngine
from astri_gpu.simulation.camera_model import camera_model, camera_settings, optics_model
from astri_gpu.simulation.engine import make_engine

N_TEL, N_PIXELS = 4, 2368
ZENITH = math.radians(20)
PARTS = (StepGrid, LightTables, Telescopes, OpticsModel, CameraModel, CameraSettings)
THROWN = (Primaries, Events, EmRows, MuonRows)


def make_grid(n_steps):
    """An exponential atmosphere in equal steps of depth."""
    scale, ground = 8000 / math.cos(ZENITH), 780 / math.cos(ZENITH)
    edge = np.linspace(1, ground, n_steps + 1)
    height = scale * np.log(ground / edge)
    middle = 0.5 * (height[1:] + height[:-1])
    light_yield = 22_000 * np.exp(-middle / 6e4)
    return StepGrid(
        depth=0.5 * (edge[1:] + edge[:-1]),
        height_edge=height,
        light=-np.diff(height) * light_yield * 9.0,
        node=np.minimum(2, middle // 5000).astype(np.int32),
        node_fraction=np.clip(middle / 5000 % 1, 0, 1),
        refractivity=2.2e-4 * np.exp(-middle / scale),
        light_yield=light_yield,
        delay=2.2e-4 * scale * (1 - np.exp(-middle / scale)),
        cos_zenith=math.cos(ZENITH),
        sin_zenith=math.sin(ZENITH),
    )


def make_tables(grid):
    """Light pools about as wide and bright as real ones."""
    rng = np.random.default_rng(7)
    age = np.linspace(0.3, 1.95, 4)
    radius_edge = np.array([0.0, 50, 100, 170, 400])
    radius = 0.5 * (radius_edge[1:] + radius_edge[:-1])
    width = 50 + 8e-3 * grid.height_edge[:-1][:, None, None]
    density = np.exp(-((radius / width) ** 1.5)) / width**2 * (1 + 0.1 * age[:, None]) * 1.5e-4
    offset = 12 * rng.standard_normal((2, 4, len(age), len(radius), 8)).astype(np.float32)
    return LightTables(age, radius, density, radius_edge, offset[0], np.abs(offset[1]))


@pytest.fixture(scope="module")
def parts():
    grid = make_grid(n_steps=14)
    telescopes = Telescopes(
        np.array([-60.0, 55.0, -50.0, 70.0]),
        np.array([-50.0, -45.0, 65.0, 60.0]),
        np.array([3.0, -2.0, 5.0, 0.0]),
    )
    camera, optics = CameraConfig(dead_fraction=0.01), OpticsConfig()
    return (
        grid,
        make_tables(grid),
        telescopes,
        optics_model(optics, 2.15),
        camera_model(camera, optics, astri_camera(), np.arange(1, N_TEL + 1), 1),
        camera_settings(camera),
    )


SETTINGS = ProductionSettings(
    primary=PROTON,
    seed=2**40 + 5,
    energy_min_gev=500.0,
    energy_max_gev=2e4,
    spectral_index=-1.7,
    scatter_radius_m=250.0,
    cone_min_rad=0.0,
    cone_max_rad=0.04,
    n_uses=2,
    zenith_rad=ZENITH,
    max_image_pe=400,
)


@pytest.fixture(scope="module")
def thrown():
    """Four showers: of rows and muons, of nothing, of one row, and of one muon near a telescope."""
    primaries = Primaries(
        np.array([7, 8, 9, 10], dtype=np.uint32),
        np.array([2e3, 1e3, 1.5e3, 30.0]),
        np.array([0.004, 0.0, -0.006, 0.0]),
        np.array([-0.003, 0.0, 0.002, 0.01]),
    )
    events = Events(
        np.array([0, 0, 1, 2, 3], dtype=np.int64),
        np.array([0, 1, 0, 0, 0], dtype=np.uint32),
        np.array([10.0, 90.0, 0.0, -30.0, 54.0]),
        np.array([-20.0, 60.0, 0.0, 40.0, -44.0]),
    )
    q_lon = np.array([0.004, 0.007, 0.002, -0.006])
    em = EmRows(
        energy=np.array([9.0, 30.0, 12.0, 22.0]),
        start=np.array([20.0, 60.0, 150.0, 30.0]),
        x=np.array([0.0, 5.0, -8.0, 0.0]),
        y=np.array([0.0, -4.0, 3.0, 0.0]),
        q_lon=q_lon,
        q_lat=np.array([-0.003, 0.001, -0.004, 0.002]),
        weight=np.array([1.0, 1.0, 2.5, 1.0]),
    )
    muon = MuonRows(
        energy=np.array([40.0, 15.0, 25.0]),
        x=np.array([50.0, 300.0, 0.3]),
        y=np.array([40.0, 0.0, -0.5]),
        q_lon=np.array([0.003, 0.0, 0.0]),
        q_lat=np.array([0.002, 0.0, 0.01]),
        height=np.array([9000.0, 7000.0, 6000.0]),
    )
    starts = np.array([0, 3, 3, 4, 4]), np.array([0, 2, 2, 2, 3])
    rows = ShowerRows(em, starts[0], muon, starts[1], np.array([20.0, 0.0, 30.0, 0.0]))
    return primaries, rows, events


def flashes():
    """Return numbers, telescopes and means of two flashes."""
    mean = np.zeros((2, N_PIXELS))
    mean[0, ::7], mean[1, 100:200] = 6.0, 80.0
    return np.array([[1, 0], [2, 3]], dtype=np.uint32), np.array([0, 3]), mean


def light():
    """Return the arguments of `images_of_light`: a compact flash, nothing, and a dim spot."""
    rng = np.random.default_rng(2)
    spread = 0.004 * rng.standard_normal((2, 200))
    numbers = np.array([[3, 0], [3, 1], [4, 2]], dtype=np.uint32)
    start = np.array([0, 170, 170, 200])
    weight = np.where(np.arange(200) % 9 == 0, 0.0, np.where(np.arange(200) < 50, 2.0, 1.0))
    return (numbers, np.array([0, 1, 2]), start, *spread, rng.normal(12, 1, 200), weight)


def all_images(engine, primaries, rows, events):
    """Return the expected light of an engine, and all kinds of images that it can make."""
    mean = engine.expected(primaries, rows, events)
    event, tel = np.nonzero(mean > 30)
    found = {
        "showers": engine.images(primaries, rows, events, event, tel, mean[event, tel]),
        # Whatever mean is asked for, there is no light to draw it from.
        "nothing": engine.images(
            primaries, rows, events, np.array([2]), np.array([1]), np.array([50.0])
        ),
        "none": engine.images(primaries, rows, events, event[:0], tel[:0], mean[event, tel][:0]),
        "light": engine.images_of_light(*light(), forced=False),
        "forced": engine.images_of_light(*light(), forced=True),
        "flashes": engine.images_of_pixels(*flashes(), dark=False),
        "dark": engine.images_of_pixels(*flashes(), dark=True),
    }
    return mean, found


def flat(mean, images):
    columns = {f"{kind}.{n}": v for kind, i in images.items() for n, v in i._asdict().items()}
    return {"mean": mean, **columns}


def assert_same(found, expected):
    """Compare what `flat` made; sums may differ in their last places."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        if values.dtype == np.float64:
            np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-9, err_msg=name)
        elif name == "showers.true_sum":
            # A sum of weights that ends in a half may be rounded either way.
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1)
        else:
            np.testing.assert_array_equal(found[name], values, name)


@pytest.fixture(scope="module")
def expected(parts, thrown):
    result = flat(*all_images(ShowerLoops(SETTINGS, *parts, n_threads=1), *thrown))
    assert 3 <= result["showers.triggered"].sum() < len(result["showers.triggered"]) <= 16
    assert np.any(result["mean"] > SETTINGS.max_image_pe)
    assert np.all(result["mean"][2] == 0)
    np.testing.assert_array_equal(result["light.triggered"], [True, False, False])
    return result


SIMULATED = """
import sys, warnings
warnings.simplefilter("error")
# numba-cuda 0.30 makes such constants when it is imported with NumPy 2.5.
warnings.filterwarnings("ignore", message="The 'generic' unit for NumPy timedelta")
import importlib.util
import numpy as np

spec = importlib.util.spec_from_file_location("test_shower_cuda", sys.argv[1])
test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test)
data = np.load(sys.argv[2])

def read(kind):
    columns = (data[f"{kind.__name__}.{name}"] for name in kind._fields)
    return kind(*(c if c.ndim else c.item() for c in columns))

primaries, events, em, muon = map(read, test.THROWN)
rows = test.ShowerRows(em, data["em_start"], muon, data["muon_start"], data["first"])
for n_blocks, n_threads, memory, path in ((2, 4, 1, None), (3, 3, 2**30, sys.argv[3])):
    shape = test.shower_cuda.LaunchShape(n_blocks, n_threads, memory)
    engine = test.shower_cuda.ShowerCuda(
        test.SETTINGS, *map(read, test.PARTS), n_threads=1, shape=shape, xp=np
    )
    if path is None:  # every shower in a part of its own
        mean = engine.expected(primaries, rows, events)
        event, tel = np.array([3, 0]), np.array([2, 1])
        some = engine.images(primaries, rows, events, event, tel, mean[event, tel])
        continue
    result = test.flat(*test.all_images(engine, primaries, rows, events))
    np.testing.assert_array_equal(mean, result["mean"])
    listed = list(zip(*np.nonzero(mean > 30)))
    for i, place in enumerate(zip(event, tel)):
        if place in listed:
            for name, values in some._asdict().items():
                whole = result["showers." + name][listed.index(place)]
                np.testing.assert_allclose(values[i], whole, rtol=1e-9, err_msg=name)
    for name in ("count", "amplitude", "moment"):
        assert not np.any(getattr(engine._scratch, name))
    np.savez(path, **result)
"""


def test_the_simulated_launch_equals_the_cpu(tmp_path, parts, thrown, expected):
    pytest.importorskip("numba.cuda")
    primaries, rows, events = thrown
    trees = (*parts, primaries, events, rows.em, rows.muon)
    columns = {f"{type(t).__name__}.{n}": v for t in trees for n, v in t._asdict().items()}
    starts = {
        "em_start": rows.em_start,
        "muon_start": rows.muon_start,
        "first": rows.first_interaction,
    }
    np.savez(tmp_path / "in.npz", **columns, **starts)
    run = subprocess.run(
        [sys.executable, "-c", SIMULATED, __file__, tmp_path / "in.npz", tmp_path / "out.npz"],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "out.npz") as found:
        assert_same(dict(found), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("xp", ["cupy"], indirect=True)
def test_the_gpu_equals_the_cpu(xp, parts, thrown, expected):
    engine = shower_cuda.ShowerCuda(SETTINGS, *parts, n_threads=2)
    for _ in range(2):  # the second time with used buffers
        assert_same(flat(*all_images(engine, *thrown)), expected)
    small = shower_cuda.LaunchShape(3, 40, 10_000_000)
    assert_same(
        flat(*all_images(shower_cuda.ShowerCuda(SETTINGS, *parts, 2, shape=small), *thrown)),
        expected,
    )
    for name in ("count", "amplitude", "moment"):
        assert not bool(xp.any(xp.asarray(getattr(engine._scratch, name))))


@pytest.mark.gpu
@pytest.mark.parametrize("xp", ["cupy"], indirect=True)
@pytest.mark.parametrize("primary", [PROTON, MUON], ids=["proton", "muon"])
def test_the_gpu_equals_the_cpu_for_whole_showers(xp, parts, primary):
    assert xp.cuda.runtime.getDeviceCount() > 0
    settings = SETTINGS._replace(primary=primary)
    if primary == MUON:
        settings = settings._replace(
            energy_min_gev=20.0, energy_max_gev=100.0, scatter_radius_m=5.0
        )
    cpu = ShowerLoops(settings, *parts, n_threads=2)
    primaries = cpu.primaries(np.arange(100, 150, dtype=np.uint32))
    events, rows = cpu.events(primaries.shower, 2), cpu.develop(primaries)
    images = flat(*all_images(cpu, primaries, rows, events))
    assert images["showers.triggered"].sum() > 20
    cuda = shower_cuda.ShowerCuda(settings, *parts, n_threads=2)
    assert_same(flat(*all_images(cuda, primaries, rows, events)), images)


@pytest.mark.parametrize("n_threads", [1, 3, 8, 64])
def test_the_search_in_two_steps_finds_the_cell_of_a_plain_one(n_threads):
    rng = np.random.default_rng(n_threads)
    for n_cells in (1, 2, 7, 64, 65):
        light = rng.exponential(size=n_cells) * (rng.random(n_cells) < 0.6)
        light[rng.integers(n_cells)] = 1.0
        length = shower_block.stretch_of(n_cells, n_threads)
        begin = np.minimum(np.arange(n_threads) * length, n_cells)
        running = np.cumsum(light)
        before = np.append(0.0, running)[begin]
        for target in (*(running[-1] * rng.random(50)), 0.0, *running[:-1]):
            if target < running[-1]:
                cell = shower_block.search(target, running, n_cells, before, n_threads)
                assert cell == np.searchsorted(running, target, side="right")
                assert light[cell] > 0


@pytest.mark.parametrize("missing", ["astri_gpu.kernels.loops.shower_cuda_kernels", "cupy"])
def test_without_numba_cuda_the_array_text_takes_over(monkeypatch, caplog, parts, missing):
    if missing == "cupy":  # kernels, but no arrays for them
        monkeypatch.setattr(shower_cuda, "load_kernels", lambda name: None)
    monkeypatch.setitem(sys.modules, missing, None)
    backend = make_backend("numpy", 1)
    backend.name = "cupy"
    engine = make_engine(backend, SETTINGS, *parts)
    assert isinstance(engine, ArrayEngine)
    assert "cannot be imported" in caplog.text
    assert "Until then the array text makes the images" in caplog.text


def test_a_gpu_engine_is_made_where_there_is_one(monkeypatch, parts):
    made = []
    monkeypatch.setattr(shower_cuda, "ShowerCuda", lambda *a, **k: made.append((a, k)) or "engine")
    backend = make_backend("numpy", 3)
    backend.name = "cupy"
    assert make_engine(backend, SETTINGS, *parts) == "engine"
    assert made == [((SETTINGS, *parts), {"n_threads": 3})]


def test_importing_the_launch_imports_no_cuda():
    code = (
        "import sys, astri_gpu.kernels.loops.shower_cuda\n"
        "sys.exit(any(name in sys.modules for name in ('cupy', 'numba_cuda', 'numba.cuda')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
