"""The loop text on the CPU against the array text, image by image and column by column."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astri_gpu.instrument.astri import astri_geometry
from astri_gpu.kernels import image_chain as chain
from astri_gpu.kernels.calibration import EXTRACTORS
from astri_gpu.kernels.loops import cpu, launch

# Columns that are not listed are float32 values of float64 sums taken in another order.
RELATIVE = 1e-5
ABSOLUTE = {
    # Differences of larger numbers, near zero in a symmetric image.
    "hillas_skewness": 1e-6,
    "hillas_kurtosis": 1e-6,
    "hillas_psi": 1e-5,
    "hillas_fov_lon": 1e-7,
    "hillas_fov_lat": 1e-7,
    "intensity_skewness": 1e-6,
    "intensity_kurtosis": 1e-6,
    "peak_time_skewness": 1e-5,
    "peak_time_kurtosis": 1e-5,
    "astri_asym": 1e-7,
    "astri_m3long": 1e-6,  # cube root of such a difference
    "astri_miss": 1e-7,
    "astri_alpha": 1e-5,
    "astri_delta": 1e-5,
    "timing_slope": 1e-5,
    "timing_intercept": 1e-5,
    "timing_deviation": 1e-5,
}

BASE = chain.ImageSettings(
    gain_threshold_adc=3500.0,
    saturation_adc=4000.0,
    sampling_rate_ghz=0.5,
    window_width=5,
    window_shift=2,
    n_slots=128,
    island_steps=16,
    timing_starts=5,
    timing_steps=3,
)
CLEANINGS = {
    "tailcuts": {},
    "isolated pixels kept": {"keep_isolated": True, "min_core_pixels": 0},
    "no neighbour needed": {"min_picture_neighbours": 0},
    "two neighbours needed": {"min_picture_neighbours": 2, "min_core_pixels": 1},
    "boundary above picture": {"picture_pe": 4.0, "boundary_pe": 8.0, "min_core_pixels": 0},
    "mars": {"cleaning": "mars", "second_boundary_pe": 1.5},
    "mars with isolated": {"cleaning": "mars", "second_boundary_pe": 2.0, "keep_isolated": True},
    "nsb": {"cleaning": "nsb"},
    "nsb, low factor": {"cleaning": "nsb", "pedestal_factor": 1.3, "picture_pe": 3.0},
    "time constrained": {"cleaning": "time_constrained", "min_core_pixels": 0},
    "time constrained, tight": {
        "cleaning": "time_constrained",
        "time_limit_core_ns": 1.1,
        "time_limit_boundary_ns": 0.4,
        "min_picture_neighbours": 2,
    },
    "time differences": {"time_limit_ns": 1.7},
    "two close in time": {"time_limit_ns": 3.0, "time_min_neighbours": 2},
    "one more row": {"dilate_rows": 1},
    "two more rows": {"dilate_rows": 2, "cleaning": "mars"},
    "largest island": {"largest_island_only": True, "min_core_pixels": 0},
    "largest of isolated": {"largest_island_only": True, "keep_isolated": True},
    "many pixels needed": {"min_pixels": 7},
    "many core pixels needed": {"min_core_pixels": 8},
    "a source off the axis": {"source_fov_lon": 0.3, "source_fov_lat": -0.2},
    "invalid pixels as they are": {"interpolate_invalid": False},
    "low thresholds": {"picture_pe": 1.5, "boundary_pe": 0.5},
    "thresholds below zero": {"picture_pe": 2.0, "boundary_pe": -1.0},
}


def assert_columns(found, expected):
    assert list(found) == list(expected) == list(chain.COLUMNS)
    for name in chain.COLUMNS:
        left, right = found[name], expected[name]
        assert left.dtype == right.dtype, name
        if name in chain.COUNT_COLUMNS:
            np.testing.assert_array_equal(left, right, err_msg=name)
        else:
            np.testing.assert_allclose(
                left, right, rtol=RELATIVE, atol=ABSOLUTE.get(name, 0.0), err_msg=name
            )


def run_loops(batch, options, *, dense, n_threads=1, calls=1):
    adc, index, is_shower, camera, calibration = batch
    loops = cpu.prepare(
        camera,
        calibration,
        options,
        n_samples=adc.shape[3] if adc.ndim == 4 else 0,
        adc_dtype=adc.dtype,
        dense=dense,
        n_threads=n_threads,
    )
    for _ in range(calls):
        result = loops(adc, index, is_shower)
    assert not np.any(loops.scratch.state)
    return result


def check(batch, options, **keywords):
    """Compare both texts on a batch; return the columns."""
    expected = chain.image_chain(*batch, settings=options)
    assert not np.any(expected.retry)
    found = run_loops(batch, options, dense=True, **keywords)
    np.testing.assert_array_equal(found.charge, expected.charge)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.peak_time, expected.peak_time, rtol=1e-6, atol=1e-5)
    assert_columns(found.columns, expected.columns)
    sparse = run_loops(batch, options, dense=False, **keywords)
    for name in chain.COLUMNS:
        np.testing.assert_array_equal(sparse.columns[name], found.columns[name], err_msg=name)
    return found.columns


@pytest.mark.parametrize("change", CLEANINGS.values(), ids=CLEANINGS)
@pytest.mark.parametrize("n_samples", [0, 30], ids=["sums", "waveforms"])
def test_every_cleaning_equals_the_array_text(camera, shower_images, n_samples, change):
    columns = check(shower_images(camera, n_samples), BASE._replace(**change))
    assert np.sum(columns["morphology_n_pixels"] > 0) >= 3


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("n_gains", [1, 2])
def test_every_extractor_equals_the_array_text(hexagons, shower_images, extractor, n_gains):
    batch = shower_images(hexagons, 30, n_gains=n_gains, seed=4)
    check(batch, BASE._replace(extractor=extractor, peak_index=14))
    check(
        batch,
        BASE._replace(extractor=extractor, peak_index=29, local_weight=3, window_width=40),
    )


@pytest.mark.parametrize("n_gains", [1, 2])
def test_gains_saturation_and_flags_of_sums(squares, shower_images, n_gains):
    batch = shower_images(squares, n_gains=n_gains, seed=2)
    columns = check(batch, BASE)
    flags = columns["image_flags"]
    assert flags[0] & chain.FLAG_SATURATED
    assert columns["n_saturated_pixels"][0] > 0
    assert flags[-4] == chain.FLAG_EMPTY | chain.FLAG_TOO_SMALL
    assert flags[-1] == chain.FLAG_EMPTY | chain.FLAG_TOO_SMALL | chain.FLAG_NO_SHOWER
    assert columns["morphology_n_pixels"][-1] == -1
    assert np.isnan(columns["hillas_intensity"][-4])


def test_wide_counts_equal_narrow_ones(squares, shower_images):
    narrow = check(shower_images(squares), BASE)
    wide = check(shower_images(squares, dtype=np.uint32), BASE)
    for name in chain.COLUMNS:
        np.testing.assert_array_equal(wide[name], narrow[name], err_msg=name)


@pytest.mark.parametrize("n_samples", [0, 30], ids=["sums", "waveforms"])
def test_threads_and_calls_change_nothing(hexagons, shower_images, n_samples):
    batch = shower_images(hexagons, n_samples, n_images=9)
    once = run_loops(batch, BASE, dense=False)
    for n_threads, calls in ((1, 2), (2, 1), (2, 3)):
        again = run_loops(batch, BASE, dense=False, n_threads=n_threads, calls=calls)
        for name in chain.COLUMNS:
            np.testing.assert_array_equal(again.columns[name], once.columns[name], err_msg=name)


def test_a_batch_of_no_images(squares, shower_images):
    batch = shower_images(squares)
    none = (*(part[:0] for part in batch[:3]), *batch[3:])
    result = run_loops(none, BASE, dense=True, n_threads=2)
    assert {len(values) for values in result.columns.values()} == {0}
    assert result.charge.shape == (0, 100)


def test_the_astri_camera(shower_images):
    """2368 pixels: whole blocks of the candidate search, and no part of one left over."""
    geometry = astri_geometry()
    sky = geometry.telescope_frame(2.15)

    class Astri(tuple):
        lon, lat = sky.fov_lon, sky.fov_lat
        edge, corner = geometry.neighbours, geometry.neighbours_diagonal

    batch = shower_images(Astri(sky[:6]), n_images=8)
    columns = check(batch, BASE)
    assert np.sum(columns["morphology_n_pixels"] > 5) >= 3


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    picture=st.floats(0.5, 20, width=32),
    boundary=st.floats(0.5, 20, width=32),
    second=st.floats(0.5, 20, width=32),
    cleaning=st.sampled_from(chain.CLEANING_METHODS),
    needed=st.integers(0, 3),
    isolated=st.booleans(),
    core=st.integers(0, 6),
    rows=st.integers(0, 1),
    largest=st.booleans(),
    limit=st.sampled_from([0.0, 2.0]),
    n_samples=st.sampled_from([0, 30]),
    seed=st.integers(0, 5),
)
def test_any_thresholds(
    hexagons, shower_images, picture, boundary, second, cleaning, needed, isolated, core, rows,
    largest, limit, n_samples, seed,
):  # fmt: skip
    options = BASE._replace(
        picture_pe=picture,
        boundary_pe=boundary,
        second_boundary_pe=second,
        cleaning=cleaning,
        min_picture_neighbours=needed,
        keep_isolated=isolated,
        min_core_pixels=core,
        dilate_rows=rows,
        largest_island_only=largest,
        time_limit_ns=limit,
    )
    check(shower_images(hexagons, n_samples, n_images=6, seed=seed), options)


def test_the_threshold_of_candidates_never_hides_a_pixel(squares, shower_images):
    """Not even where a count that is not exact in float32 decides."""
    *_, camera, calibration = shower_images(squares)
    calibration = calibration._replace(
        pedestal=np.full_like(calibration.pedestal, 1.6e7), dc_to_pe=calibration.dc_to_pe * 0.37
    )
    inputs = launch.loop_inputs(camera, calibration, BASE, adc_dtype=np.uint32, dense=False)
    threshold = inputs.tables.threshold.astype(np.int64)
    usable = calibration.pixel_valid.any(axis=1)
    assert np.all(threshold[usable] <= BASE.gain_threshold_adc)
    options = BASE._replace(gain_threshold_adc=float("inf"))
    inputs = launch.loop_inputs(camera, calibration, options, adc_dtype=np.uint32, dense=False)
    below = inputs.tables.threshold - np.uint32(1)
    charge = (below.astype(np.float32) - calibration.pedestal[:, 0]) * calibration.dc_to_pe[:, 0]
    assert np.all(charge[usable] < BASE.boundary_pe)


@pytest.mark.parametrize(("name", "value"), [("extractor", "magic"), ("cleaning", "soap")])
def test_unknown_words_are_refused(squares, shower_images, name, value):
    *_, camera, calibration = shower_images(squares)
    with pytest.raises(ValueError, match=f"{name} is '{value}': expected one of"):
        launch.loop_inputs(
            camera, calibration, BASE._replace(**{name: value}), adc_dtype=np.uint16, dense=False
        )
