"""Tools of the kernel tests: a kernel on every namespace, two small cameras, and simple air."""

import math
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest

from astri_gpu.instrument.camera import CameraGeometry
from astri_gpu.kernels.image_types import CalibrationArrays, CameraArrays
from astri_gpu.kernels.simulation_types import LightTables, StepGrid

# Relative tolerances by dtype: what the order of a sum over a few hundred terms may change, with
# room for the few ulp that the functions of the backends (atan2, hypot, exp) differ by.
TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 2e-5}


def convert(tree, function):
    """Apply `function` to every array of a tree of tuples, named tuples and dicts."""
    if isinstance(tree, dict):
        return {name: convert(item, function) for name, item in tree.items()}
    if isinstance(tree, tuple):
        items = [convert(item, function) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    return function(tree)


def leaves(tree, name=""):
    """Return (name, array) of every array of a tree."""
    if isinstance(tree, dict):
        return [
            leaf for key, item in sorted(tree.items()) for leaf in leaves(item, f"{name}.{key}")
        ]
    if isinstance(tree, tuple):
        names = getattr(tree, "_fields", range(len(tree)))
        pairs = zip(names, tree, strict=True)
        return [leaf for key, item in pairs for leaf in leaves(item, f"{name}.{key}")]
    return [(name, tree)]


def to_host(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)


def assert_same(found, expected, *, atol=0.0, scale=1.0):
    """Compare two trees: dtype and NaN alike, numbers within `TOLERANCE` times `scale`."""
    found, expected = leaves(found), leaves(expected)
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (name, left), (_, right) in zip(found, expected, strict=True):
        assert left.shape == right.shape, name
        if left.dtype.kind == "f":
            rtol = scale * max(TOLERANCE[left.dtype], TOLERANCE.get(right.dtype, 0))
            np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(left, right, err_msg=name)


@cache
def _jitted(kernel, static):
    import jax

    return jax.jit(partial(kernel, **dict(static)))


@pytest.fixture
def call(xp):
    """Return a function that runs a kernel on `xp` (compiled, on JAX), NumPy in and NumPy out.

    Arrays are given positionally, what is static by keyword.
    """

    def on_device(value):
        return xp.asarray(value) if isinstance(value, np.ndarray) else value

    def run(kernel, *arguments, **static):
        arguments = convert(arguments, on_device)
        if xp.__name__.startswith("jax"):
            import jax

            with jax.numpy_rank_promotion("raise"):
                found = _jitted(kernel, tuple(static.items()))(*arguments)
        else:
            found = kernel(*arguments, **static)
        return convert(found, to_host)

    return run


@pytest.fixture
def one_trace():
    """Return a function that checks that JAX compiles a kernel once for all `batches`."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)

    def check(kernel, *batches, scale=1.0, atol=0.0, **static):
        traces = []

        @jax.jit
        def compiled(*arguments):
            traces.append(1)
            return kernel(*arguments, **static)

        for batch in batches:
            on_device = convert(
                batch, lambda v: jax.numpy.asarray(v) if isinstance(v, np.ndarray) else v
            )
            found = convert(compiled(*on_device), to_host)
            expected = convert(kernel(*batch, **static), np.asarray)
            assert_same(found, expected, scale=scale, atol=atol)
        assert len(traces) == 1

    return check


@pytest.fixture(name="assert_same")
def _assert_same():
    return assert_same


class SmallCamera(NamedTuple):
    """A camera of about a hundred pixels in the telescope frame, deg."""

    lon: np.ndarray
    lat: np.ndarray
    area: np.ndarray
    width: np.ndarray
    border_1: np.ndarray
    border_2: np.ndarray
    edge: np.ndarray  # neighbours that share an edge, -1 = none
    corner: np.ndarray  # neighbours that share an edge or a corner


def _small_camera(x, y, shape, area):
    geometry = CameraGeometry.from_pixels("small", x, y, np.full(len(x), area), shape)
    sky = geometry.telescope_frame(180 / np.pi)  # 1 m is 1 deg
    return SmallCamera(*sky[:6], edge=geometry.neighbours, corner=geometry.neighbours_diagonal)


@pytest.fixture(scope="session")
def hexagons():
    """91 hexagonal pixels, 0.2 deg apart, in a ring of rings."""
    rings, pitch = 5, 0.2
    q, r = np.mgrid[-rings : rings + 1, -rings : rings + 1].reshape(2, -1)
    inside = np.abs(q + r) <= rings
    q, r = q[inside], r[inside]
    x, y = pitch * (q + r / 2), pitch * np.sqrt(3) / 2 * r
    return _small_camera(x, y, "hexagon", np.sqrt(3) / 2 * pitch**2)


@pytest.fixture(scope="session")
def squares():
    """100 square pixels, 0.19 deg apart."""
    y, x = 0.19 * (np.mgrid[:10, :10].reshape(2, -1) - 4.5)
    return _small_camera(x, y, "square", 0.19**2)


@pytest.fixture(scope="session", params=["hexagons", "squares"])
def camera(request):
    """Both small cameras, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def shower_images():
    """Return a function that makes ADC counts of showers, with the arrays that the chain takes."""

    def make(small, n_samples=0, n_gains=2, n_images=12, dtype=np.uint16, seed=1):
        """Return adc, calibration_index, is_shower, `CameraArrays`, `CalibrationArrays`.

        The last four images are empty, of two pixels, of two showers, and a calibration event;
        image 0 saturates the readout. Some pixels are invalid, in one gain or in both.
        """
        rng = np.random.default_rng(seed)
        n_pixels = len(small.lon)
        shape = (3, n_gains, n_pixels)
        gain = np.array([1.0, 20.0])[:n_gains, None]
        valid = rng.random(shape) > 0.03
        valid[1, :, n_pixels // 2 : n_pixels // 2 + 3] = False
        calibration = CalibrationArrays(
            pedestal=rng.normal(100, 3, shape).astype(np.float32),
            dc_to_pe=(0.05 * gain * rng.normal(1, 0.02, shape)).astype(np.float32),
            pedestal_std=rng.uniform(1, 4, shape).astype(np.float32),
            time_shift=rng.normal(0, 0.3, shape).astype(np.float32),
            pixel_valid=valid,
            charge_correction=np.array([1.1, 1.2])[:n_gains],
        )
        reach = 0.6 * np.max(np.abs(small.lon))

        def shower():
            psi, size, (lon, lat) = (
                rng.uniform(-1.5, 1.5),
                rng.uniform(1, 2),
                rng.uniform(-reach, reach, 2),
            )
            x, y = small.lon - lon, small.lat - lat
            along, across = x * np.cos(psi) + y * np.sin(psi), y * np.cos(psi) - x * np.sin(psi)
            return 10**size * np.exp(-(along**2) / 0.15 - across**2 / 0.04), along

        showers = [shower() for _ in range(n_images)]
        signal, along = (np.array(part) for part in zip(*showers, strict=True))
        signal[0] *= 6000 / np.max(signal[0])
        signal[-4] = signal[-3] = 0
        signal[-3, n_pixels // 3 : n_pixels // 3 + 2] = 30
        signal[-2] += shower()[0]
        signal += rng.normal(0, 1.0, signal.shape)
        if n_samples:
            peak = n_samples / 2 + 4 * along[:, :, None]
            pulse = np.exp(-((np.arange(n_samples) - peak) ** 2) / 4) / np.sqrt(4 * np.pi)
            signal = signal[:, :, None] * pulse + rng.normal(0, 0.3, pulse.shape)
        index = rng.integers(0, len(valid), n_images).astype(np.int32)
        tail = (None,) * bool(n_samples)
        factor, pedestal = (
            table[index][(..., *tail)] for table in (calibration.dc_to_pe, calibration.pedestal)
        )
        adc = np.clip(np.round(signal[:, None] / factor + pedestal), 0, 4095).astype(dtype)
        is_shower = np.arange(n_images) < n_images - 1
        camera = CameraArrays(*small[:6], small.edge, small.corner)
        return adc, index, is_shower, camera, calibration

    return make


class ExponentialAir:
    """Air that thins by e every 8 km, above an array under 780 g/cm2; altitudes are above it."""

    ground = 780.0
    scale_height = 8000.0
    mirror_area = 9.0
    node_height = np.array([0.0, 2e3, 5e3, 1e4, 2e4, 7e4])

    def thickness(self, altitude):
        return self.ground * np.exp(-altitude / self.scale_height)

    def refractivity(self, altitude):
        return 2.2e-4 * np.exp(-altitude / self.scale_height)

    def light_yield(self, altitude):
        return 22_000 * np.exp(-altitude / 4e4)

    def delay(self, height, cos_zenith):
        """Return the integral of n - 1 along the axis, m."""
        altitude = height * cos_zenith
        return self.scale_height / cos_zenith * (self.refractivity(0) - self.refractivity(altitude))

    def depth_edge(self, zenith_deg=20.0, step=15.0, ground=ground):
        """Return the edges of steps along the axis, g/cm2; the last step is shorter."""
        end = ground / math.cos(math.radians(zenith_deg))
        return np.append(np.arange(1.0, end - step / 15, step), end)

    def grid(self, zenith_deg=20.0, step=15.0, ground=ground):
        cos, sin = math.cos(math.radians(zenith_deg)), math.sin(math.radians(zenith_deg))
        edge = self.depth_edge(zenith_deg, step, ground)
        height_edge = self.scale_height / cos * np.log(edge[-1] / edge)
        height = (height_edge[1:] + height_edge[:-1]) / 2
        light_yield = self.light_yield(height * cos)
        node = np.searchsorted(self.node_height[1:-1], height)
        below, above = self.node_height[node], self.node_height[node + 1]
        return StepGrid(
            depth=(edge[1:] + edge[:-1]) / 2,
            height_edge=height_edge,
            light=-np.diff(height_edge) * light_yield * self.mirror_area,
            node=node.astype(np.int32),
            node_fraction=np.minimum((height - below) / (above - below), 1.0),
            refractivity=self.refractivity(height * cos),
            light_yield=light_yield,
            delay=self.delay(height, cos),
            cos_zenith=cos,
            sin_zenith=sin,
        )

    def pools(self, grid, *, lateral=12.0, n_samples=32, seed=7):
        """Return light that makes showers about as bright as real ones.

        It is emitted within `lateral` m of the axis.
        """
        rng = np.random.default_rng(seed)
        age = np.array([0.3, 0.6, 0.9, 1.2, 1.6, 1.95])
        radius_edge = np.array([0.0, 20, 40, 70, 100, 130, 170, 250, 400, 700, 1200])
        radius = (radius_edge[1:] + radius_edge[:-1]) / 2
        width = 50 + 8e-3 * grid.height_edge[:-1][:, None, None]
        density = np.exp(-((radius / width) ** 1.5)) / width**2 * (1 + 0.1 * age[:, None]) * 1.5e-4
        shape = (2, len(self.node_height), len(age), len(radius), n_samples)
        radial, tangential = (lateral * rng.standard_normal(shape)).astype(np.float32)
        # Density in the type of real tables, for which the loops are compiled anyway.
        return LightTables(
            age, radius, density.astype(np.float32), radius_edge, radial, np.abs(tangential)
        )


@pytest.fixture(scope="session")
def air():
    return ExponentialAir()


def pytest_collection_modifyitems(config, items):
    """Leave out JAX on the second camera: each of its shapes is compiled for seconds."""

    def is_second(item):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        return (params.get("xp"), params.get("camera")) == ("jax", "squares")

    dropped = [item for item in items if is_second(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if not is_second(item)]
