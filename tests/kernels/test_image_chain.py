"""The chain from ADC counts to parameters: each step by hand, and what the flags say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.kernels import cleaning as cl
from astri_gpu.kernels import image_chain as chain
from astri_gpu.kernels import timing as tim

PEAK_DETECTOR = chain.ImageSettings(
    cleaning="tailcuts", picture_pe=6.0, boundary_pe=3.0, min_core_pixels=3, n_slots=64,
    saturation_adc=4000.0, source_fov_lon=0.2, timing_starts=5, timing_steps=2,
)  # fmt: skip
SAMPLED = PEAK_DETECTOR._replace(
    extractor="neighbour_peak", sampling_rate_ghz=0.5, window_width=5, window_shift=2,
    min_picture_neighbours=1, min_core_pixels=0,
)  # fmt: skip
LAST_SHOWER = 4  # of `batch`: the images after it are empty, tiny, and no shower


def camera_arrays(camera, table="corner"):
    return chain.CameraArrays(*camera[:6], camera.edge, getattr(camera, table))


def calibration_arrays(n_pixels, n_samples, seed=1):
    rng = np.random.default_rng(seed)
    shape = (2, 2, n_pixels)
    gain = np.array([1.0, 20.0], dtype=np.float32)[:, None]
    valid = rng.random((2, 1, n_pixels)) > 0.05
    valid[0, 0, :3] = False
    return chain.CalibrationArrays(
        pedestal=rng.normal(100, 3, shape).astype(np.float32),
        dc_to_pe=(0.05 * rng.normal(1, 0.02, shape) * gain).astype(np.float32),
        pedestal_std=rng.uniform(1, 4, shape).astype(np.float32),
        time_shift=rng.normal(0, 0.3, shape).astype(np.float32),
        pixel_valid=np.broadcast_to(valid, shape).copy(),
        charge_correction=np.array([1.1, 1.2] if n_samples else [1.0, 1.0], dtype=np.float32),
    )


def batch(camera, n_samples=0, seed=1, n_images=8):
    """Return ADC counts of showers, then of an empty image, a tiny one, and a flat field."""
    rng = np.random.default_rng(seed)
    n_pixels = len(camera.lon)
    calibration = calibration_arrays(n_pixels, n_samples, seed)
    centre, psi = rng.uniform(-0.4, 0.4, (2, n_images, 1)), rng.uniform(-1.5, 1.5, (n_images, 1))
    x, y = camera.lon - centre[0], camera.lat - centre[1]
    along, across = x * np.cos(psi) + y * np.sin(psi), y * np.cos(psi) - x * np.sin(psi)
    size = rng.uniform(20, 50, (n_images, 1))
    size[0] = 6000  # saturates both gains
    signal = size * np.exp(-(along**2) / 0.15 - across**2 / 0.04) + rng.normal(0, 0.6, x.shape)
    signal[LAST_SHOWER + 1] = signal[LAST_SHOWER + 2] = 0
    signal[LAST_SHOWER + 2, 50:52] = 30
    index = (np.arange(n_images) % 2).astype(np.int32)
    if n_samples:
        peak = 8 + 4 * along[:, None, :, None]
        pulse = np.exp(-((np.arange(n_samples) - peak) ** 2) / 4) / math.sqrt(4 * math.pi)
        signal = signal[:, None, :, None] * pulse
    else:
        signal = signal[:, None, :]
    tail = (None,) * bool(n_samples)
    factor, pedestal = (
        v[index][(..., *tail)] for v in (calibration.dc_to_pe, calibration.pedestal)
    )
    adc = np.clip(np.round(signal / factor + pedestal), 0, 4095).astype(np.uint16)
    is_shower = np.arange(n_images) < LAST_SHOWER + 3
    return adc, index, is_shower, camera_arrays(camera), calibration


def slow_charges(adc, index, camera, calibration, options):
    """Return charge, time and saturation of one image, pixel by pixel."""
    n_pixels = adc.shape[1]
    charge, time, saturated = np.zeros(n_pixels), np.zeros(n_pixels), np.zeros(n_pixels, bool)
    constant = {name: getattr(calibration, name)[index] for name in calibration._fields[:5]}
    gain = [
        int(np.any(adc[0, p].astype(float) > options.gain_threshold_adc)) for p in range(n_pixels)
    ]
    valid = [bool(constant["pixel_valid"][g, p]) for p, g in enumerate(gain)]
    signal = [
        (adc[g, p].astype(float) - float(constant["pedestal"][g, p]))
        * float(constant["dc_to_pe"][g, p])
        for p, g in enumerate(gain)
    ]
    for p, g in enumerate(gain):
        saturated[p] = np.any(adc[g, p] >= options.saturation_adc)
        if adc.ndim == 2:
            charge[p] = signal[p]
            continue
        beside = [signal[n] for n in camera.neighbours[p] if n >= 0 and valid[n]]
        peak = int(np.argmax(np.sum(beside, axis=0))) if beside else 0
        window = range(
            max(0, peak - options.window_shift),
            min(adc.shape[2], peak - options.window_shift + options.window_width),
        )
        charge[p] = sum(signal[p][k] for k in window) * float(calibration.charge_correction[g])
        weight = {k: signal[p][k] for k in window if signal[p][k] > 0}
        mean = sum(k * w for k, w in weight.items()) / sum(weight.values()) if weight else peak
        time[p] = mean / options.sampling_rate_ghz - float(constant["time_shift"][g, p])
    raw_charge, raw_time = charge.copy(), time.copy()
    for p in range(n_pixels):
        if not valid[p]:
            beside = [n for n in camera.neighbours[p] if n >= 0 and valid[n]]
            charge[p] = np.mean(raw_charge[beside]) if beside else 0
            time[p] = np.mean(raw_time[beside]) if beside else 0
    return charge, time, saturated


def slow_mask(charge, neighbours, options):
    pixels = range(len(charge))
    beside = [{int(n) for n in neighbours[p] if n >= 0} for p in pixels]
    above = {p for p in pixels if charge[p] >= options.picture_pe}
    low = {p for p in pixels if charge[p] >= options.boundary_pe}
    core = {p for p in above if len(beside[p] & above) >= options.min_picture_neighbours}
    mask = {p for p in low if beside[p] & core} | {p for p in core if beside[p] & low}
    return sorted(mask) if len(core & mask) >= options.min_core_pixels else []


@pytest.mark.parametrize(("name", "n_samples"), [("squares", 0), ("hexagons", 16)])
def test_chain_equals_the_steps_by_hand(call, request, name, n_samples):
    camera = request.getfixturevalue(name)
    options = SAMPLED if n_samples else PEAK_DETECTOR
    arguments = adc, index, is_shower, arrays, calibration = batch(camera, n_samples)
    found = call(chain.image_chain, *arguments, settings=options)
    assert set(found.columns) == set(chain.COLUMNS)  # JAX sorts the keys
    assert not found.retry.any()
    for image in range(len(adc)):
        charge, time, saturated = slow_charges(
            adc[image], index[image], arrays, calibration, options
        )
        np.testing.assert_allclose(found.charge[image], charge, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found.peak_time[image], time, rtol=1e-4, atol=1e-2)
        pixels = slow_mask(found.charge[image], arrays.cleaning_neighbours, options)
        pixels = pixels if is_shower[image] else []
        np.testing.assert_array_equal(np.nonzero(found.mask[image])[0], pixels)
        row = {name: values[image] for name, values in found.columns.items()}
        check_row(
            row, charge, time, saturated, pixels, is_shower[image], arrays, options, n_samples
        )
    flags = found.columns["image_flags"]
    assert flags[0] == (0 if n_samples else chain.FLAG_SATURATED)
    assert (flags[1 : LAST_SHOWER + 1] == 0).all()
    empty = chain.FLAG_EMPTY | chain.FLAG_TOO_SMALL
    assert flags[LAST_SHOWER + 1] == empty
    assert flags[LAST_SHOWER + 3] == empty | chain.FLAG_NO_SHOWER


def check_row(row, charge, time, saturated, pixels, is_shower, camera, options, has_time):
    """Compare one image's parameters with a few that are quick to compute otherwise."""
    for name, value in row.items():
        assert value.dtype == (np.int32 if name in chain.COUNT_COLUMNS else np.float32)
        if not pixels and name != "image_flags":
            assert value == -1 if name in chain.COUNT_COLUMNS else np.isnan(value), name
    if not pixels:
        return
    q, lon, lat = charge[pixels], camera.fov_lon[pixels], camera.fov_lat[pixels]
    covariance = np.cov(np.stack([lon, lat]), aweights=q, ddof=0)
    expected = {
        "hillas_intensity": q.sum(), "hillas_fov_lon": np.average(lon, weights=q),
        "hillas_length": math.sqrt(np.linalg.eigvalsh(covariance)[1]),
        "leakage_intensity_width_1": q[camera.border_1[pixels]].sum() / q.sum(),
        "concentration_pixel": q.max() / q.sum(), "morphology_n_pixels": len(pixels),
        "intensity_std": q.std(), "n_saturated_pixels": saturated[pixels].sum(),
        "astri_dist": math.hypot(
            np.average(lon, weights=q) - options.source_fov_lon, np.average(lat, weights=q)
        ),
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(row[name], value, rtol=2e-3, atol=1e-4, err_msg=name)
    assert row["astri_num_island"] == row["morphology_n_islands"] >= 1
    if has_time:
        np.testing.assert_allclose(row["peak_time_mean"], time[pixels].mean(), rtol=1e-3)
        assert np.isfinite(row["timing_slope"])
    else:
        assert np.isnan(row["timing_slope"])
        assert np.isnan(row["peak_time_mean"])


def rows_of(result, selection):
    columns = {name: values[selection] for name, values in result.columns.items()}
    return chain.ImageResult(columns, *(array[selection] for array in result[1:]))


@pytest.mark.parametrize("n_samples", [0, 16])
def test_images_and_slots_more_are_inert(squares, assert_same, n_samples):
    options = SAMPLED if n_samples else PEAK_DETECTOR
    adc, index, is_shower, arrays, calibration = batch(squares, n_samples)
    found = chain.image_chain(adc, index, is_shower, arrays, calibration, settings=options)
    noise = np.random.default_rng(5).integers(0, 4096, (3, *adc.shape[1:])).astype(np.uint16)
    padded = chain.image_chain(
        np.concatenate([adc, noise]), np.append(index, index[:3]),
        np.append(is_shower, [False] * 3), arrays, calibration,
        settings=options._replace(n_slots=90),
    )  # fmt: skip
    assert_same(rows_of(padded, slice(0, len(adc))), found, atol=1e-6)
    rest = rows_of(padded, slice(len(adc), None))
    assert not rest.mask.any()
    assert not rest.retry.any()
    assert (rest.columns["image_flags"] & chain.FLAG_NO_SHOWER).all()


def test_no_image(squares):
    adc, index, is_shower, *rest = batch(squares)
    found = chain.image_chain(adc[:0], index[:0], is_shower[:0], *rest, settings=PEAK_DETECTOR)
    assert all(column.shape == (0,) for column in found.columns.values())


def test_images_that_do_not_fit_ask_for_more_slots(squares, assert_same):
    arguments = batch(squares)
    full = chain.image_chain(*arguments, settings=PEAK_DETECTOR)
    few = chain.image_chain(*arguments, settings=PEAK_DETECTOR._replace(n_slots=12))
    too_many = full.columns["morphology_n_pixels"] > 12
    assert too_many.any()
    assert not too_many.all()
    np.testing.assert_array_equal(few.retry, np.where(too_many, chain.RETRY_SLOTS, 0))
    assert_same(rows_of(few, ~too_many), rows_of(full, ~too_many), atol=1e-6)


def test_unfinished_islands_ask_for_more_steps(squares):
    arguments = batch(squares)
    found = chain.image_chain(*arguments, settings=PEAK_DETECTOR._replace(island_steps=0))
    several = found.columns["morphology_n_pixels"] > 1
    np.testing.assert_array_equal(found.retry, np.where(several, chain.RETRY_ISLANDS, 0))


CLEANINGS = [
    {"cleaning": "mars", "second_boundary_pe": 2.0},
    {"cleaning": "nsb", "pedestal_factor": 2.0},
    {"cleaning": "time_constrained"},
    {"time_limit_ns": 3.0},
    {"dilate_rows": 2, "min_core_pixels": 4},
]


@pytest.mark.parametrize("changes", CLEANINGS, ids=lambda changes: "-".join(changes))
def test_cleaning_options_reach_the_mask(call, squares, changes):
    options = SAMPLED._replace(**changes)
    adc, index, is_shower, arrays, calibration = batch(squares, 16)
    images = chain.calibrated_images(adc, index, arrays, calibration, settings=options)
    charge, time, table = images.charge, images.peak_time, arrays.cleaning_neighbours
    found, retry = call(chain.clean_images, images, is_shower, table, settings=options)
    assert retry.dtype == np.int32
    assert not retry.any()
    thresholds = (options.picture_pe, options.boundary_pe)
    flags = {"min_picture_neighbours": 1, "keep_isolated": False}
    if options.cleaning == "mars":
        expected = cl.mars_clean(charge, *thresholds, 2.0, table, **flags)
    elif options.cleaning == "nsb":
        picture = np.maximum(2 * images.pedestal_std, np.float32(options.picture_pe))
        expected = cl.tailcuts_clean(charge, picture, options.boundary_pe, table, **flags)
    elif options.cleaning == "time_constrained":
        expected, _, _ = cl.time_constrained_clean(
            charge, time, *thresholds, table, min_picture_neighbours=1, limit_core_ns=4.5,
            limit_boundary_ns=1.5, n_slots=64, island_steps=9,
        )  # fmt: skip
    else:
        expected = cl.tailcuts_clean(charge, *thresholds, table, **flags)
    mask, core = expected
    mask = mask & (core.sum(axis=1) >= options.min_core_pixels)[:, None]
    if options.time_limit_ns:
        mask = cl.time_delta_clean(mask, time, table, limit_ns=3.0, min_neighbours=1)
    for _ in range(options.dilate_rows):
        mask = cl.dilate(mask, table)
    mask = mask & is_shower[:, None]
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_array_equal(found.core, core & mask)
    assert mask.any()


def test_only_the_largest_island_is_left(squares):
    adc, index, is_shower, arrays, calibration = batch(squares)
    adc[:, 0, [8, 9, 90, 91, 92, 98, 99]] = 700  # 30 p.e. in three corners
    options = PEAK_DETECTOR._replace(n_slots=100)
    arrays = arrays._replace(cleaning_neighbours=squares.edge)
    arguments = (adc, index, is_shower, arrays, calibration)
    every = chain.image_chain(*arguments, settings=options)
    found = chain.image_chain(*arguments, settings=options._replace(largest_island_only=True))
    several = every.columns["morphology_n_islands"] > 1
    assert several.any()
    for image in np.nonzero(every.mask.any(axis=1))[0]:
        left, islands = {int(p) for p in np.nonzero(every.mask[image])[0]}, []
        while left:
            front = [min(left)]
            islands.append(set(front))
            while front:
                new = ({int(n) for n in squares.edge[front.pop()]} & left) - islands[-1]
                islands[-1] |= new
                front += new
            left -= islands[-1]
        kept = max(islands, key=len)
        np.testing.assert_array_equal(np.nonzero(found.mask[image])[0], sorted(kept))
        assert found.columns["morphology_n_pixels"][image] in (len(kept), -1)
    assert (found.columns["morphology_n_islands"] <= 1).all()


def test_negative_charges_about_a_shower_give_no_warning(squares):
    """Rows added by dilation hold negative charges, of which uncertainties may be no number."""
    options = PEAK_DETECTOR._replace(dilate_rows=4, n_slots=100)
    found = chain.image_chain(*batch(squares), settings=options)
    assert np.isfinite(found.columns["hillas_length"][:LAST_SHOWER]).all()


def test_unknown_cleaning_is_an_error(squares):
    with pytest.raises(ValueError, match="cleaning is 'wavelets': expected one of tailcuts, mars"):
        chain.image_chain(*batch(squares), settings=PEAK_DETECTOR._replace(cleaning="wavelets"))


def test_timing_is_that_of_the_surviving_pixels(squares):
    arguments = batch(squares, 16)
    found = chain.image_chain(*arguments, settings=SAMPLED)
    lon, lat = squares.lon, squares.lat
    for image in range(LAST_SHOWER):
        used = found.mask[image]
        psi = math.radians(found.columns["hillas_psi"][image])
        along = (lon - found.columns["hillas_fov_lon"][image]) * math.cos(psi)
        along = along + (lat - found.columns["hillas_fov_lat"][image]) * math.sin(psi)
        expected = tim.timing(
            found.peak_time[image : image + 1, used], np.ones((1, used.sum()), dtype=bool),
            along[None, used], n_starts=5, n_steps=2,
        )  # fmt: skip
        np.testing.assert_allclose(
            found.columns["timing_slope"][image], expected.slope[0], rtol=1e-3, atol=1e-3
        )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_mirrored_camera(squares, seed):
    """fov_lon -> -fov_lon: the axis is mirrored, everything without a sign stays."""
    adc, index, is_shower, arrays, calibration = batch(squares, 0, seed)
    mirrored = arrays._replace(fov_lon=-arrays.fov_lon)
    options = PEAK_DETECTOR._replace(source_fov_lon=0.0)
    one, other = (
        chain.image_chain(adc, index, is_shower, a, calibration, settings=options).columns
        for a in (arrays, mirrored)
    )
    off = (one["hillas_psi"] + other["hillas_psi"] + 90) % 180 - 90
    np.testing.assert_allclose(off[np.isfinite(off)], 0, atol=1e-3)
    for name in chain.COLUMNS:
        if not name.endswith(("psi", "phi", "fov_lon", "delta", "miss", "alpha", "asym", "m3long")):
            if name == "hillas_skewness":
                continue
            np.testing.assert_allclose(other[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("n_samples", [0, 16])
def test_one_trace_for_two_batches(one_trace, squares, n_samples):
    options = SAMPLED if n_samples else PEAK_DETECTOR
    batches = [batch(squares, n_samples, seed) for seed in (2, 3)]
    one_trace(chain.image_chain, *batches, settings=options, atol=1e-4, scale=10)


def test_settings_are_hashable():
    assert hash(chain.ImageSettings()) == hash(chain.ImageSettings())
    assert set(chain.COUNT_COLUMNS) <= set(chain.COLUMNS)
