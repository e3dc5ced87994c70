"""Stereo: known showers are found again, and both methods equal explicit geometry in space."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import coordinates as co
from astri_gpu.kernels import stereo as ste

METHODS = pytest.mark.parametrize("method", ste.METHODS)
LEVEL = 2000.0


def unit(alt, az):
    """Return the direction in the ground frame: x North, y West, z up."""
    alt, az = math.radians(alt), math.radians(az)
    return np.array([math.cos(alt) * math.cos(az), -math.cos(alt) * math.sin(az), math.sin(alt)])


def altaz(vector):
    x, y, z = vector / np.linalg.norm(vector)
    return math.degrees(math.asin(z)), math.degrees(math.atan2(-y, x)) % 360


def camera_axes(alt, az):
    """Return the directions of the optical axis, of growing fov_lon, and of growing fov_lat."""
    alt, az = math.radians(alt), math.radians(az)
    lon = np.array([-math.sin(az), -math.cos(az), 0.0])
    lat = np.array([-math.sin(alt) * math.cos(az), math.sin(alt) * math.sin(az), math.cos(alt)])
    return unit(*np.degrees([alt, az])), lon, lat


def to_fov(vector, alt, az):
    axis, lon, lat = camera_axes(alt, az)
    v = vector / np.linalg.norm(vector)
    return math.degrees(math.atan2(v @ lon, v @ axis)), math.degrees(math.asin(v @ lat))


def from_fov(fov_lon, fov_lat, alt, az):
    axis, lon, lat = camera_axes(alt, az)
    fov_lon, fov_lat = math.radians(fov_lon), math.radians(fov_lat)
    cos = math.cos(fov_lat)
    return cos * math.cos(fov_lon) * axis + cos * math.sin(fov_lon) * lon + math.sin(fov_lat) * lat


def showers(n_events=12, n_slots=5, seed=1, noise=0.0):
    """Return the images that telescopes see of straight showers, and the true showers.

    Each shower is a line in space; a telescope sees two of its points, whose middle is the centre
    of the image and whose direction is its axis.
    """
    rng = np.random.default_rng(seed)
    columns = np.empty((len(ste.StereoImages._fields), n_events, n_slots))
    truth, pointings = [], []
    for event in range(n_events):
        pointing = (rng.uniform(50, 85), rng.uniform(0, 360))
        direction = from_fov(*rng.uniform(-2, 2, 2), *pointing)
        core = np.array([*rng.uniform(-150, 150, 2), 0.0])
        height = rng.uniform(6000, 9000)
        for slot in range(n_slots):
            tel = np.array([*rng.uniform(-300, 300, 2), rng.uniform(-10, 10)])
            middle = core + direction * height / direction[2] - tel
            above = middle + direction * 100
            lon, lat = to_fov(middle, *pointing)
            lon_above, lat_above = to_fov(above, *pointing)
            psi = math.degrees(math.atan2(lat_above - lat, lon_above - lon))
            psi = (psi + 90) % 180 - 90 + noise * rng.normal()
            columns[:, event, slot] = (
                rng.uniform(50, 500), lon + 0.01 * noise * rng.normal(), lat,
                rng.uniform(0.2, 0.4), rng.uniform(0.05, 0.15), psi, *pointing, 4.0, *tel,
            )  # fmt: skip
        truth.append((*altaz(direction), *core[:2], height + LEVEL))
        pointings.append(pointing)
    used = rng.random((n_events, n_slots)) < 0.8
    used[:, :2] = True
    alt, az = np.array(pointings).T.copy()
    return (ste.StereoImages(*columns), used, alt, az), np.array(truth)


def run(call, arguments, method):
    return call(ste.reconstruct, *arguments, method=method, observation_level_m=LEVEL)


def events_of(arguments, selection):
    images, *others = arguments
    return (
        ste.StereoImages(*(column[selection] for column in images)),
        *(array[selection] for array in others),
    )


def slow_geometry(images, used, array_alt, array_az, method):
    """Return one event by explicit vectors, pairs of planes, and numpy's least squares."""
    slots = np.nonzero(used)[0]
    im = [ste.StereoImages(*(float(column[s]) for column in images)) for s in slots]
    weight = [i.intensity * i.length / i.width for i in im]
    cog, second, tels, tilted, axes = [], [], [], [], []
    _, east, up = camera_axes(array_alt, array_az)
    for i in im:
        pointing = (i.pointing_alt, i.pointing_az)
        psi, step = math.radians(i.psi), 0.1 * i.camera_radius
        cog.append(from_fov(i.fov_lon, i.fov_lat, *pointing))
        second.append(
            from_fov(i.fov_lon + step * math.cos(psi), i.fov_lat + step * math.sin(psi), *pointing)
        )
        tels.append(np.array([i.tel_x, i.tel_y, i.tel_z]))
        tilted.append(np.array([tels[-1] @ -up, tels[-1] @ -east]))
        a, b = to_fov(cog[-1], array_alt, array_az), to_fov(second[-1], array_alt, array_az)
        axes.append((np.array(b) - a) / math.dist(a, b))

    def closest(points, directions, weights):
        """Return the point with the least weighted squares of distances from lines in a plane."""
        normals = np.stack([np.array([-d[1], d[0]]) for d in directions])
        root = np.sqrt(np.array(weights))
        right = np.sum(normals * np.stack(points), axis=1)
        return np.linalg.lstsq(root[:, None] * normals, root * right, rcond=None)[0]

    if method == "planes":
        crossings, weights = [], []
        for i, j in itertools.combinations(range(len(im)), 2):
            line = np.cross(np.cross(cog[i], second[i]), np.cross(cog[j], second[j]))
            crossings.append(line * (1 if line[2] >= 0 else -1))
            weights.append(weight[i] * weight[j])
        total = np.sum([w * c for w, c in zip(weights, crossings, strict=True)], axis=0)
        total = total / np.linalg.norm(total)
        alt, az = altaz(total)
        angles = [math.acos(min(1.0, total @ c / np.linalg.norm(c))) for c in crossings]
        spread = math.degrees(np.mean(angles))
        core_weight = [1.0] * len(im)
    else:
        points = [np.array(to_fov(c, array_alt, array_az)) for c in cog]
        found = closest(points, axes, weight)
        alt, az = altaz(from_fov(*found, array_alt, array_az))
        squares = [
            w * np.cross(np.append(a, 0), np.append(found - p, 0))[2] ** 2
            for w, a, p in zip(weight, axes, points, strict=True)
        ]
        spread = math.sqrt(sum(squares) / sum(weight))
        core_weight = weight
    core = closest(tilted, [a[::-1] for a in axes], core_weight)
    # From the tilted plane down to the ground, along the pointing of the array.
    position = -up * core[0] - east * core[1]
    axis = unit(array_alt, array_az)
    position = position - axis * position[2] / axis[2]
    # The point closest to the lines of sight: projectors across them, stacked.
    across = [np.eye(3) - np.outer(c, c) for c in cog]
    right = np.concatenate([p @ t for p, t in zip(across, tels, strict=True)])
    height = np.linalg.lstsq(np.concatenate(across), right, rcond=None)[0][2]
    intensity = np.mean([i.intensity for i in im])
    return (alt, az, *position[:2], *core, height + LEVEL, spread, intensity, len(im), True)


@METHODS
def test_straight_showers_are_found_again(call, method):
    arguments, truth = showers()
    found = run(call, arguments, method)
    assert found.is_valid.all()
    np.testing.assert_array_equal(found.n_tels, arguments[1].sum(axis=1))
    off = co.angular_separation(found.az, found.alt, truth[:, 1], truth[:, 0])
    # Image axes are taken as straight in the flat field of view, which great circles are not.
    assert off.max() < (1e-3 if method == "planes" else 5e-3)
    # The core is projected along the pointing, and image axes are not quite straight there.
    np.testing.assert_allclose(found.core_x, truth[:, 2], atol=15)
    np.testing.assert_allclose(found.core_y, truth[:, 3], atol=15)
    np.testing.assert_allclose(found.h_max, truth[:, 4], rtol=1e-6)


@METHODS
def test_reconstruction_equals_explicit_geometry(call, method):
    arguments, _ = showers(seed=2, noise=3.0)
    found = run(call, arguments, method)
    for event in range(len(arguments[1])):
        images, used, alt, az = events_of(arguments, event)
        expected = slow_geometry(images, used, alt, az, method)
        for name, value in zip(ste.StereoGeometry._fields, expected, strict=True):
            np.testing.assert_allclose(
                getattr(found, name)[event], value, rtol=1e-7, atol=1e-7, err_msg=name
            )


@METHODS
def test_unused_slots_and_events_are_inert(call, method, assert_same):
    arguments, _ = showers(noise=3.0)
    found = run(call, arguments, method)
    images, used, alt, az = arguments
    spoilt = ste.StereoImages(
        *(np.pad(np.where(used, c, np.nan), ((0, 1), (0, 2)), constant_values=np.nan)
          for c in images)
    )  # fmt: skip
    padded = run(
        call,
        (spoilt, np.pad(used, ((0, 1), (0, 2))), np.append(alt, 70.0), np.append(az, 0.0)),
        method,
    )
    assert_same(ste.StereoGeometry(*(c[:-1] for c in padded)), found, atol=1e-9)
    assert not padded.is_valid[-1]
    assert padded.n_tels[-1] == 0
    assert all(np.isnan(column[-1]) for column in padded[:9])
    order = np.array([4, 2, 0, 3, 1])
    shuffled = (
        ste.StereoImages(*(column[:, order] for column in images)), used[:, order], alt, az
    )  # fmt: skip
    # Sums in another order: heights of kilometres and azimuths near 360 deg keep 1e-7.
    assert_same(run(call, shuffled, method), found, atol=1e-6)


@METHODS
def test_fewer_than_two_images_and_parallel_axes(call, method):
    (images, used, alt, az), _ = showers(n_events=4)
    used[:] = False
    used[1, 0] = used[2, :2] = used[3, :3] = True
    for column in images:  # event 2: twice the same image, from the same place
        column[2, 1] = column[2, 0]
    found = run(call, (images, used, alt, az), method)
    np.testing.assert_array_equal(found.n_tels, [0, 1, 2, 3])
    np.testing.assert_array_equal(found.is_valid[[0, 1, 3]], [False, False, True])
    assert not found.is_valid[2]
    for column in found[:9]:
        np.testing.assert_array_equal(np.isnan(column), [True, True, True, False])
    none = run(call, events_of((images, used, alt, az), slice(0, 0)), method)
    assert none.alt.shape == (0,)


def test_unknown_method_is_an_error():
    arguments, _ = showers(n_events=1)
    with pytest.raises(
        ValueError, match="stereo method is 'lookup': expected one of planes, lines"
    ):
        ste.reconstruct(*arguments, method="lookup", observation_level_m=0.0)


def test_selection_limits(call):
    nan = float("nan")
    columns = np.array([
        [50.0, 0.1, 4, 0.2], [50.1, 0.0, 4, 0.2], [50.1, 0.1, 2, 0.2], [50.1, 0.1, 4, 0.3],
        [nan, 0.1, 4, 0.2], [50.1, nan, 4, 0.2], [50.1, 0.1, 4, nan], [50.1, 0.1, 3, 0.2],
    ]).T  # fmt: skip
    found = call(
        ste.select_images, columns[0], columns[1], columns[2].astype(np.int32), columns[3],
        min_intensity_pe=50.0, min_width_deg=0.0, min_pixels=3, max_leakage=0.2,
    )  # fmt: skip
    np.testing.assert_array_equal(found, [False] * 7 + [True])


def test_impact_distance_equals_the_cross_product(call):
    rng = np.random.default_rng(3)
    core_x, core_y = rng.uniform(-200, 200, (2, 6))
    alt, az = rng.uniform(30, 90, 6), rng.uniform(0, 360, 6)
    tel = rng.uniform(-300, 300, (3, 6, 4))
    found = call(ste.impact_distance, core_x, core_y, alt, az, *tel)
    for event, slot in np.ndindex(6, 4):
        offset = tel[:, event, slot] - [core_x[event], core_y[event], 0]
        direction = unit(alt[event], az[event])
        expected = np.linalg.norm(offset - (offset @ direction) * direction)
        np.testing.assert_allclose(found[event, slot], expected, rtol=1e-12)
    found = call(ste.impact_distance, core_x * np.nan, core_y, alt, az, *tel)
    assert np.isnan(found).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), angle=st.floats(0, 360))
@METHODS
def test_turning_the_array_turns_the_shower(method, seed, angle):
    arguments, _ = showers(4, 4, seed, noise=2.0)
    images, used, alt, az = arguments
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # Azimuth runs from North to East, y points West.
    x, y = images.tel_x * cos + images.tel_y * sin, images.tel_y * cos - images.tel_x * sin
    turned = images._replace(tel_x=x, tel_y=y, pointing_az=images.pointing_az + angle)
    options = {"method": method, "observation_level_m": LEVEL}
    one = ste.reconstruct(images, used, alt, az, **options)
    other = ste.reconstruct(turned, used, alt, az + angle, **options)
    np.testing.assert_array_equal(other.is_valid, one.is_valid)
    assert np.nanmax(co.angular_separation(other.az, other.alt, one.az + angle, one.alt)) < 1e-5
    # Two nearly parallel axes amplify rounding; then core and height are far away, too.
    near = one.is_valid & (np.hypot(one.core_x, one.core_y) < 2000) & (np.abs(one.h_max) < 5e4)
    core = (one.core_x * cos + one.core_y * sin, one.core_y * cos - one.core_x * sin)
    np.testing.assert_allclose(other.core_x[near], core[0][near], atol=1e-3)
    np.testing.assert_allclose(other.core_y[near], core[1][near], atol=1e-3)
    np.testing.assert_allclose(other.h_max[near], one.h_max[near], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
@METHODS
def test_brighter_images_give_the_same_geometry(method, seed, scale):
    (images, used, alt, az), _ = showers(4, 4, seed, noise=2.0)
    options = {"method": method, "observation_level_m": LEVEL}
    one = ste.reconstruct(images, used, alt, az, **options)
    brighter = images._replace(intensity=scale * images.intensity)
    other = ste.reconstruct(brighter, used, alt, az, **options)
    np.testing.assert_allclose(other.average_intensity, scale * one.average_intensity, rtol=1e-9)
    for name in ("alt", "az", "h_max", "n_tels"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-6)


@METHODS
def test_one_trace_for_two_batches(one_trace, method):
    batches = [showers(seed=seed, noise=2.0)[0] for seed in (4, 5)]
    one_trace(
        ste.reconstruct, *batches, method=method, observation_level_m=LEVEL, atol=1e-5, scale=10
    )
