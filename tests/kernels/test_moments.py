"""Hillas parameters: against covariance matrices and error propagation, pixel by pixel."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import moments as mom

# Angles are differences of large numbers where an image is nearly round.
ANGLE_TOLERANCE = 1e-6


def images(camera, n_images=6, seed=1, dtype=np.float32):
    """Return ellipses of light with noise, and a mask about them."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-0.4, 0.4, (2, n_images, 1))
    psi = rng.uniform(-1.5, 1.5, (n_images, 1))
    x, y = camera.lon - centre[0], camera.lat - centre[1]
    along, across = x * np.cos(psi) + y * np.sin(psi), y * np.cos(psi) - x * np.sin(psi)
    charge = 60 * np.exp(-(along**2) / 0.2 - across**2 / 0.05) + rng.uniform(0.1, 1, x.shape)
    return charge.astype(dtype), charge > 3


def slow_hillas(charge, lon, lat, area):
    """Return the parameters of one image from the pixels in use, by their definitions."""
    q = np.asarray(charge, dtype=float)
    size = math.fsum(q)
    cog = np.array([math.fsum(q * lon), math.fsum(q * lat)]) / size
    covariance = np.cov(np.stack([lon, lat]), aweights=q, ddof=0)
    variance, axes = np.linalg.eigh(covariance)
    axis = axes[:, 1] * (1 if axes[0, 1] >= 0 else -1)
    psi = math.atan2(axis[1], axis[0])
    delta = np.stack([lon, lat]) - cog[:, None]
    along, across = axis @ delta, np.array([-axis[1], axis[0]]) @ delta
    length, width = math.sqrt(variance[1]), math.sqrt(max(variance[0], 0.0))
    # Line across = slope * along + offset, by the inverse of the normal matrix.
    w = q / area
    design = np.stack([along, np.ones_like(along)], axis=1)
    inverse = np.linalg.inv(design.T @ (w[:, None] * design))
    slope, _ = inverse @ design.T @ (w * across)
    psi_error = math.sqrt(inverse[0, 0] + slope**2) * (
        1 + math.tan(width / length * math.pi / 2) ** 2
    )
    # Poisson errors: d(eigenvalue) / dq of each pixel, squared, times its charge.
    length_error = sum(
        c * ((a**2 - variance[1]) / (2 * length * size)) ** 2 for c, a in zip(q, along, strict=True)
    )
    width_error = sum(
        c * ((t**2 - variance[0]) / (2 * width * size)) ** 2 for c, t in zip(q, across, strict=True)
    )
    return mom.Hillas(
        intensity=size,
        skewness=math.fsum(q * along**3) / size / length**3,
        kurtosis=math.fsum(q * along**4) / size / length**4,
        fov_lon=cog[0],
        fov_lat=cog[1],
        r=math.hypot(*cog),
        phi=math.degrees(math.atan2(cog[1], cog[0])),
        length=length,
        length_uncertainty=math.sqrt(length_error),
        width=width,
        width_uncertainty=math.sqrt(width_error),
        psi=math.degrees(psi),
        psi_uncertainty=math.degrees(psi_error),
        transverse_cog_uncertainty=math.sqrt(inverse[1, 1] * (1 + math.sin(slope) ** 2)),
    )


def test_hillas_equals_the_definitions(call, camera):
    charge, mask = images(camera)
    found = call(mom.hillas, charge, mask, camera.lon, camera.lat, camera.area)
    for image, used in enumerate(mask):
        expected = slow_hillas(
            charge[image, used], camera.lon[used], camera.lat[used], camera.area[used]
        )
        for name, values in found._asdict().items():
            assert values.dtype == np.float64
            np.testing.assert_allclose(
                values[image], getattr(expected, name), rtol=1e-8, atol=1e-10, err_msg=name
            )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masked_is_selected(call, camera, assert_same, dtype):
    charge, mask = images(camera, dtype=dtype)
    spoilt = np.where(mask, charge, dtype(np.nan))
    found = call(mom.hillas, spoilt, mask, camera.lon, camera.lat, camera.area)
    for image, used in enumerate(mask[:2]):
        selected = call(
            mom.hillas, charge[image : image + 1, used], np.ones((1, used.sum()), dtype=bool),
            *(column[used] for column in (camera.lon, camera.lat, camera.area)),
        )  # fmt: skip
        one = mom.Hillas(*(column[image : image + 1] for column in found))
        assert_same(one, selected, atol=1e-9)


def test_padding_is_inert(call, camera, assert_same):
    charge, mask = images(camera)
    found = call(mom.hillas, charge, mask, camera.lon, camera.lat, camera.area)
    pad = ((0, 2), (0, 4))
    lon, lat, area = (
        np.pad(v, (0, 4), constant_values=7.0) for v in (camera.lon, camera.lat, camera.area)
    )
    more = np.pad(charge, pad, constant_values=np.nan)
    padded = call(mom.hillas, more, np.pad(mask, pad), lon, lat, area)
    assert_same(mom.Hillas(*(column[:-2] for column in padded)), found, atol=1e-12)
    assert all(np.isnan(column[-2:]).all() for column in padded)


def test_positions_per_image_give_the_same(call, camera, assert_same):
    charge, mask = images(camera)
    shared = call(mom.hillas, charge, mask, camera.lon, camera.lat, camera.area)
    own = [np.tile(v, (len(charge), 1)) for v in (camera.lon, camera.lat, camera.area)]
    assert_same(call(mom.hillas, charge, mask, *own), shared)


def test_images_without_charge_without_axis_and_without_pixels(call, squares):
    charge = np.zeros((4, 100), dtype=np.float32)
    mask = np.zeros(charge.shape, dtype=bool)
    charge[1, 42], mask[1, 42] = 5, True  # one pixel
    charge[2, 40:50], mask[2, 40:50] = 3, True  # one row of pixels
    mask[3] = True  # pixels, no charge
    found = call(mom.hillas, charge, mask, squares.lon, squares.lat, squares.area)
    empty = np.isnan(np.stack(found))
    assert empty[:, [0, 3]].all()
    named = dict(zip(mom.Hillas._fields, empty.T[1], strict=True))
    assert {name for name, nan in named.items() if not nan} == {
        "intensity", "fov_lon", "fov_lat", "r", "phi", "length", "width",
    }  # fmt: skip
    assert found.length[1] == found.width[1] == found.width[2] == 0
    assert found.fov_lon[1] == squares.lon[42]
    assert found.intensity[2] == 30
    # The row runs along camera x, which is fov_lat.
    np.testing.assert_allclose(found.psi[2], 90, atol=1e-9)
    np.testing.assert_allclose(found.length[2], np.std(squares.lat[40:50]), rtol=1e-12)
    none = call(mom.hillas, charge[:0], mask[:0], squares.lon, squares.lat, squares.area)
    assert none.psi.shape == (0,)


def test_an_upright_image_is_at_plus_90_degrees(call, squares):
    """Whatever the last digit of the covariance is, the axis points up, not down."""
    rng = np.random.default_rng(3)
    symmetric = np.exp(-(squares.lon**2) / 0.05 - squares.lat**2 / 0.5)
    scale = rng.uniform(1, 100, (6, 1))
    mask = np.ones((6, 100), dtype=bool)
    found = call(mom.hillas, scale * symmetric, mask, squares.lon, squares.lat, squares.area)
    np.testing.assert_allclose(found.psi, 90, atol=1e-7)


def test_ellipse_coordinates_are_a_rotation(call, camera):
    charge, mask = images(camera)
    parameters = mom.hillas(charge, mask, camera.lon, camera.lat, camera.area)
    found = call(mom.ellipse_coordinates, camera.lon, camera.lat, parameters)
    for image, pixel in np.ndindex(charge.shape):
        psi = math.radians(parameters.psi[image])
        offset = complex(
            camera.lon[pixel] - parameters.fov_lon[image],
            camera.lat[pixel] - parameters.fov_lat[image],
        ) * complex(math.cos(psi), -math.sin(psi))
        assert abs(found.longitudinal[image, pixel] - offset.real) < 1e-12
        assert abs(found.transverse[image, pixel] - offset.imag) < 1e-12


def turned(camera, angle):
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return camera.lon * cos - camera.lat * sin, camera.lon * sin + camera.lat * cos


def assert_axis(found, expected):
    off = (found - expected + 90) % 180 - 90
    np.testing.assert_allclose(off, 0, atol=ANGLE_TOLERANCE)


# Parameters that do not depend on where the axes point.
INVARIANT = (
    "intensity", "kurtosis", "r", "length", "length_uncertainty", "width", "width_uncertainty",
    "psi_uncertainty", "transverse_cog_uncertainty",
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(angle=st.floats(-180, 180), seed=st.integers(0, 10**6))
def test_turning_the_camera_turns_the_axis(hexagons, angle, seed):
    charge, mask = images(hexagons, 3, seed)
    one = mom.hillas(charge, mask, hexagons.lon, hexagons.lat, hexagons.area)
    other = mom.hillas(charge, mask, *turned(hexagons, angle), hexagons.area)
    assert_axis(other.psi, one.psi + angle)
    np.testing.assert_allclose(np.abs(other.skewness), np.abs(one.skewness), atol=1e-7)
    for name in INVARIANT:
        np.testing.assert_allclose(
            getattr(other, name), getattr(one, name), rtol=1e-7, err_msg=name
        )
    assert (other.psi > -90).all()
    assert (other.psi <= 90 + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 1000))
def test_mirror_and_scale(squares, seed, scale):
    charge, mask = images(squares, 3, seed, np.float64)
    one = mom.hillas(charge, mask, squares.lon, squares.lat, squares.area)
    mirrored = mom.hillas(charge, mask, squares.lon, -squares.lat, squares.area)
    assert_axis(mirrored.psi, -one.psi)
    for name in INVARIANT:
        expected = getattr(one, name)
        np.testing.assert_allclose(getattr(mirrored, name), expected, rtol=1e-7, err_msg=name)
    brighter = mom.hillas(scale * charge, mask, squares.lon, squares.lat, squares.area)
    np.testing.assert_allclose(brighter.intensity, scale * one.intensity, rtol=1e-12)
    assert_axis(brighter.psi, one.psi)
    for name in ("length", "width", "fov_lon", "fov_lat", "skewness", "kurtosis"):
        np.testing.assert_allclose(
            getattr(brighter, name), getattr(one, name), rtol=1e-8, atol=1e-10, err_msg=name
        )
    # Poisson errors fall with the square root of the charge.
    for name in ("length_uncertainty", "width_uncertainty", "transverse_cog_uncertainty"):
        expected = getattr(one, name) / math.sqrt(scale)
        np.testing.assert_allclose(getattr(brighter, name), expected, rtol=1e-8, err_msg=name)


def test_one_trace_for_two_batches(one_trace, hexagons):
    batches = [
        (*images(hexagons, seed=seed), hexagons.lon, hexagons.lat, hexagons.area) for seed in (4, 5)
    ]
    one_trace(mom.hillas, *batches, atol=1e-9)
    one_trace(
        mom.ellipse_coordinates,
        *[(hexagons.lon, hexagons.lat, mom.hillas(*batch)) for batch in batches],
        atol=1e-9,
    )
