"""The parameters of A-SciSoft against a loop over the pixels of each image."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import compaction as co
from astri_gpu.kernels import islands as isl
from astri_gpu.kernels import moments as mom
from astri_gpu.kernels.astri import AstriParameters, astri_parameters

SOURCE = {"source_fov_lon": 0.3, "source_fov_lat": -0.2}


def images(camera, n_images=6, seed=1):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-0.7, 0.7, (2, n_images, 1))
    psi = rng.uniform(-1.5, 1.5, (n_images, 1))
    x, y = camera.lon - centre[0], camera.lat - centre[1]
    along, across = x * np.cos(psi) + y * np.sin(psi), y * np.cos(psi) - x * np.sin(psi)
    charge = 60 * np.exp(-(along**2) / 0.2 - across**2 / 0.05) + rng.uniform(0, 4, x.shape)
    return charge.astype(np.float32), charge > 3.5


def arguments(charge, mask, camera, n_slots=None):
    """Return the arguments of the kernel: the survivors in slots, with islands and moments."""
    survivors = co.compact(mask, n_slots=n_slots or mask.shape[1])
    used = survivors.used
    label, resolved = isl.label_islands(
        used, co.neighbour_slots(mask, survivors, camera.edge), steps=9
    )
    assert resolved.all()
    values, lon, lat, area, border = (
        co.gather(v, survivors)
        for v in (charge, camera.lon, camera.lat, camera.area, camera.border_1)
    )
    size = isl.island_sum(np.ones(used.shape, dtype=np.float32), used, label)
    return (
        values, used, values > 8, lon, lat, border, label,
        isl.count_islands(used, label, size).n_islands, mom.hillas(values, used, lon, lat, area),
    )  # fmt: skip


def islands_of(pixels, neighbours):
    left, found = set(pixels), []
    while left:
        island, front = set(), [left.pop()]
        while front:
            island.add(pixel := front.pop())
            new = {int(n) for n in neighbours[pixel]} & left
            left -= new
            front += new
        found.append(island)
    return found


def slow_astri(charge, camera, pixels):
    q = {int(p): float(charge[p]) for p in pixels}
    size = math.fsum(q.values())
    lon = math.fsum(c * camera.lon[p] for p, c in q.items()) / size
    lat = math.fsum(c * camera.lat[p] for p, c in q.items()) / size
    covariance = np.cov(
        np.stack([camera.lon[list(q)], camera.lat[list(q)]]), aweights=list(q.values()), ddof=0
    )
    axis = np.linalg.eigh(covariance)[1][:, 1]
    axis = axis * (1 if axis[0] >= 0 else -1)
    along = {p: axis @ (camera.lon[p] - lon, camera.lat[p] - lat) for p in q}
    third = math.fsum(c * along[p] ** 3 for p, c in q.items()) / size
    brightest = max(q, key=q.get)
    to_source = np.array([lon - SOURCE["source_fov_lon"], lat - SOURCE["source_fov_lat"]])
    dist = math.hypot(*to_source)
    miss = axis[0] * to_source[1] - axis[1] * to_source[0]
    islands = islands_of(q, camera.edge)
    core = [p for p in q if charge[p] > 8]
    return AstriParameters(
        conc=sum(sorted(q.values())[-2:]) / size,
        asym=along[brightest],
        mdist=math.hypot(camera.lon[brightest] - lon, camera.lat[brightest] - lat),
        m3long=math.copysign(abs(third) ** (1 / 3), third),
        leakage=math.fsum(c for p, c in q.items() if camera.border_1[p]) / size,
        delta=math.atan2(axis[1], axis[0]),
        dist=dist,
        miss=miss,
        alpha=math.degrees(math.asin(miss / dist)),
        cos_delta_alpha=axis @ to_source / dist,
        num_island=len(islands),
        size_main_island=max(math.fsum(q[p] for p in island) for island in islands),
        num_core=len(core),
        num_boundary=len(q) - len(core),
    )


def test_parameters_equal_the_loop(call, camera):
    charge, mask = images(camera)
    found = call(astri_parameters, *arguments(charge, mask, camera), **SOURCE)
    for image in range(len(mask)):
        expected = slow_astri(charge[image], camera, np.nonzero(mask[image])[0])
        for name, values in found._asdict().items():
            counts = name.startswith("num")
            assert values.dtype == (np.int32 if counts else np.float64)
            np.testing.assert_allclose(
                values[image], getattr(expected, name), rtol=1e-7, atol=1e-9, err_msg=name
            )
    assert (found.num_island > 1).any()


def test_slots_pixels_and_images_more_are_inert(call, camera, assert_same):
    charge, mask = images(camera)
    found = call(astri_parameters, *arguments(charge, mask, camera), **SOURCE)
    n_slots = int(mask.sum(axis=1).max())
    assert n_slots < mask.shape[1]
    exact = call(astri_parameters, *arguments(charge, mask, camera, n_slots), **SOURCE)
    assert_same(exact, found, atol=1e-12)
    more = np.concatenate([np.where(mask, charge, np.float32(np.nan)), charge[:1]])
    used = np.concatenate([mask, np.zeros_like(mask[:1])])
    padded = call(astri_parameters, *arguments(more, used, camera), **SOURCE)
    assert_same(AstriParameters(*(column[:-1] for column in padded)), found, atol=1e-12)
    empty = [column[-1] for column in padded]
    assert np.isnan(empty[:10]).all()
    assert empty[10] == empty[12] == empty[13] == 0
    assert np.isnan(empty[11])


def test_one_pixel_and_no_image(call, squares):
    charge, mask = images(squares)
    mask[:] = np.arange(100) == 37
    charge[:, 37] = 9
    found = call(astri_parameters, *arguments(charge, mask, squares), **SOURCE)
    np.testing.assert_array_equal(found.conc, 1)
    np.testing.assert_allclose(found.mdist, 0, atol=1e-15)
    np.testing.assert_array_equal(found.num_core, 1)
    np.testing.assert_array_equal(found.size_main_island, 9)
    for name in ("asym", "m3long", "delta", "miss", "alpha", "cos_delta_alpha"):
        assert np.isnan(getattr(found, name)).all(), name
    none = call(astri_parameters, *arguments(charge[:0], mask[:0], squares), **SOURCE)
    assert none.conc.shape == (0,)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), angle=st.floats(0, 360), scale=st.floats(0.01, 100))
def test_turned_about_the_source(hexagons, seed, angle, scale):
    """Where the axis comes out reversed, signed parameters change their sign, all together."""
    charge, mask = images(hexagons, 3, seed)
    charge = charge.astype(np.float64)
    one = astri_parameters(*arguments(charge, mask, hexagons), **SOURCE)
    source = complex(*SOURCE.values())
    phase = complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    position = (hexagons.lon + 1j * hexagons.lat - source) * phase + source
    turned = hexagons._replace(lon=position.real, lat=position.imag)
    found = arguments(scale * charge, mask, turned)
    core = arguments(charge, mask, hexagons)[2]
    other = astri_parameters(*found[:2], core, *found[3:], **SOURCE)
    turn = np.rad2deg(other.delta - one.delta) - angle
    sign = np.where(np.abs((turn + 90) % 360 - 90) < 1e-3, 1, -1)
    for name in ("conc", "mdist", "leakage", "dist", "num_island", "num_core", "num_boundary"):
        np.testing.assert_allclose(
            getattr(other, name), getattr(one, name), rtol=1e-9, err_msg=name
        )
    np.testing.assert_allclose(other.size_main_island, scale * one.size_main_island, rtol=1e-12)
    for name in ("asym", "miss", "cos_delta_alpha"):
        expected = sign * getattr(one, name)
        np.testing.assert_allclose(getattr(other, name), expected, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(other.m3long**3, sign * one.m3long**3, atol=1e-7)
    # The arc sine is steep at 90 deg.
    np.testing.assert_allclose(other.alpha, sign * one.alpha, atol=1e-2)


def test_one_trace_for_two_batches(one_trace, squares):
    batches = [arguments(*images(squares, seed=seed), squares) for seed in (2, 3)]
    one_trace(astri_parameters, *batches, atol=1e-9, **SOURCE)
