"""Leakage, concentration, morphology and statistics against loops over the pixels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import islands as isl
from astri_gpu.kernels import moments as mom
from astri_gpu.kernels import parameters as par


def images(camera, n_images=6, seed=1):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-0.8, 0.8, (2, n_images, 1))
    r2 = (camera.lon - centre[0]) ** 2 + 3 * (camera.lat - centre[1]) ** 2
    charge = (40 * np.exp(-r2 / 0.15) + rng.uniform(0, 2, r2.shape)).astype(np.float32)
    return charge, charge > 4


def all_parameters(run, charge, mask, camera):
    """Return every group of parameters, computed by `run` (a function like `call`)."""
    moments = run(mom.hillas, charge, mask, camera.lon, camera.lat, camera.area)
    position = (camera.lon, camera.lat, camera.width)
    return {
        "leakage": run(par.leakage, charge, mask, camera.border_1, camera.border_2),
        "concentration": run(par.concentration, charge, mask, *position, moments),
        "statistics": run(par.statistics, charge, mask),
    }


def directly(kernel, *arguments):
    return kernel(*arguments)


def slow_parameters(charge, camera, used):
    """Return the parameters of one image by name."""
    q = [float(charge[p]) for p in used]
    size, n = math.fsum(q), len(q)
    lon = math.fsum(a * camera.lon[p] for a, p in zip(q, used, strict=True)) / size
    lat = math.fsum(a * camera.lat[p] for a, p in zip(q, used, strict=True)) / size
    covariance = np.cov(np.stack([camera.lon[used], camera.lat[used]]), aweights=q, ddof=0)
    inverse = np.linalg.inv(covariance)
    near = core = 0.0
    for charge_of_pixel, p in zip(q, used, strict=True):
        delta = np.array([camera.lon[p] - lon, camera.lat[p] - lat])
        near += charge_of_pixel * (math.hypot(*delta) < camera.width[p])
        # The Hillas ellipse is where the Mahalanobis distance is 1.
        core += charge_of_pixel * (delta @ inverse @ delta <= 1)
    mean = size / n
    moment = [math.fsum((a - mean) ** k for a in q) / n for k in range(5)]
    found = {
        "cog": near / size, "core": core / size, "pixel": max(q) / size,
        "max": max(q), "min": min(q), "mean": mean, "std": math.sqrt(moment[2]),
        "skewness": moment[3] / moment[2] ** 1.5, "kurtosis": moment[4] / moment[2] ** 2 - 3,
    }  # fmt: skip
    for row, border in (("1", camera.border_1), ("2", camera.border_2)):
        inside = [a for a, p in zip(q, used, strict=True) if border[p]]
        found[f"pixels_width_{row}"] = len(inside) / n
        found[f"intensity_width_{row}"] = math.fsum(inside) / size
    return found


def test_parameters_equal_the_loop(call, camera):
    charge, mask = images(camera)
    groups = all_parameters(call, charge, mask, camera)
    some_leak = False
    for image in range(len(mask)):
        expected = slow_parameters(charge[image], camera, np.nonzero(mask[image])[0])
        some_leak |= expected["pixels_width_1"] > 0
        for group in groups.values():
            for name, values in group._asdict().items():
                assert values.dtype == np.float64
                np.testing.assert_allclose(
                    values[image], expected[name], rtol=1e-9, atol=1e-12, err_msg=name
                )
    assert some_leak


def test_masked_is_selected(call, camera, assert_same):
    charge, mask = images(camera)
    spoilt = np.where(mask, charge, np.float32(np.nan))
    groups = all_parameters(call, spoilt, mask, camera)
    used = mask[0]
    small = camera._replace(**{name: getattr(camera, name)[used] for name in camera._fields[:6]})
    selected = all_parameters(call, charge[:1, used], np.ones((1, used.sum()), bool), small)
    for name, group in groups.items():
        assert_same(type(group)(*(column[:1] for column in group)), selected[name], atol=1e-12)


def test_padding_is_inert(call, camera, assert_same):
    charge, mask = images(camera)
    groups = all_parameters(call, charge, mask, camera)
    padded_camera = camera._replace(
        **{
            name: np.pad(getattr(camera, name), (0, 3), constant_values=1)
            for name in camera._fields[:6]
        }
    )
    pad = ((0, 2), (0, 3))
    more = np.pad(charge, pad, constant_values=np.nan)
    padded = all_parameters(call, more, np.pad(mask, pad), padded_camera)
    for name, group in padded.items():
        assert_same(type(group)(*(c[:-2] for c in group)), groups[name], atol=1e-12)
        assert all(np.isnan(column[-2:]).all() for column in group)


def test_one_pixel_and_one_row(call, squares):
    charge = np.full((2, 100), 3, dtype=np.float32)
    mask = np.zeros(charge.shape, dtype=bool)
    mask[0, 0], mask[1, 40:45] = True, True
    groups = all_parameters(call, charge, mask, squares)
    assert groups["leakage"].pixels_width_1[0] == groups["leakage"].intensity_width_2[0] == 1
    concentration = groups["concentration"]
    assert concentration.cog[0] == concentration.pixel[0] == 1
    # Without an ellipse no pixel is inside (ctapipe gives 0, too).
    assert not concentration.core.any()
    np.testing.assert_allclose(concentration.pixel[1], 0.2)
    statistics = groups["statistics"]
    assert statistics.max[0] == statistics.min[0] == statistics.mean[0] == 3
    assert not statistics.std.any()
    assert np.isnan(statistics.skewness).all()
    assert np.isnan(statistics.kurtosis).all()


def test_no_image(call, squares):
    charge, mask = images(squares)
    for group in all_parameters(call, charge[:0], mask[:0], squares).values():
        assert all(column.shape == (0,) for column in group)


def test_morphology_adds_the_number_of_pixels(call, squares):
    _, mask = images(squares)
    numbers = np.arange(6, dtype=np.int32)
    islands = isl.Islands(numbers, numbers + 1, numbers + 2, numbers + 3)
    found = call(par.morphology, mask, islands)
    np.testing.assert_array_equal(found.n_pixels, mask.sum(axis=1))
    assert found.n_pixels.dtype == np.int32
    np.testing.assert_array_equal(found[1:], islands)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics_of_negative_times(call, dtype):
    values = np.array([[-5, -3, -1, 99]], dtype=dtype)
    mask = np.array([[True, True, True, False]])
    found = call(par.statistics, values, mask)
    np.testing.assert_allclose(np.ravel(found)[:5], [-1, -5, -3, math.sqrt(8 / 3), 0], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 1000), angle=st.floats(0, 360))
def test_scaled_and_turned_images(hexagons, seed, scale, angle):
    charge, mask = images(hexagons, 4, seed)
    charge = charge.astype(np.float64)
    one = all_parameters(directly, charge, mask, hexagons)
    phase = complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    position = (hexagons.lon + 1j * hexagons.lat) * phase
    turned = hexagons._replace(lon=position.real, lat=position.imag)
    other = all_parameters(directly, scale * charge, mask, turned)
    np.testing.assert_allclose(other["leakage"], one["leakage"], rtol=1e-10)
    np.testing.assert_allclose(other["concentration"], one["concentration"], rtol=1e-9)
    factor = np.array([scale] * 4 + [1, 1])[:, None]
    found, expected = np.stack(other["statistics"]), factor * np.stack(one["statistics"])
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


def test_one_trace_for_two_batches(one_trace, squares):
    batches = [images(squares, seed=seed) for seed in (2, 3)]
    one_trace(par.statistics, *batches, atol=1e-12)
    one_trace(par.leakage, *[(*b, squares.border_1, squares.border_2) for b in batches])
    position = (squares.lon, squares.lat)
    one_trace(
        par.concentration,
        *[(*b, *position, squares.width, mom.hillas(*b, *position, squares.area)) for b in batches],
    )
