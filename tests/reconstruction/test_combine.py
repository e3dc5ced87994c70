"""Images combined to events: against a loop over events, and against known sources."""

import numpy as np
import pytest

from astri_gpu.kernels.coordinates import altaz_to_telescope, telescope_to_altaz
from astri_gpu.reconstruction.combine import (
    COMBINED,
    IMAGE_COLUMNS,
    array_columns,
    merge_directions,
    sort_images,
)

ALT, AZ = 70.0, 359.5


def made(n_images, seed=1, off_deg=0.0, noise=0.0):
    """Return images, events, and the sources, of events with so many images each.

    Every displacement points from the centroid to the source, give or take `noise` errors, or just
    as far to the other side. Telescopes point `off_deg` away from where the array points.
    """
    rng = np.random.default_rng(seed)
    n_events, event = len(n_images), np.repeat(np.arange(len(n_images)), n_images)
    n = len(event)
    source_lon, source_lat = rng.normal(0, 1.5, (2, n_events))
    alt, az = telescope_to_altaz(source_lon, source_lat, np.full(n_events, ALT), AZ)
    shift = rng.uniform(-off_deg, off_deg, (2, n))
    pointing_alt, pointing_az = ALT + shift[0], (AZ + shift[1]) % 360
    own = altaz_to_telescope(alt[event], az[event], pointing_alt, pointing_az)
    length, angle = rng.uniform(0.5, 3, n), rng.uniform(0, 2 * np.pi, n)
    error = rng.uniform(0.02, 0.3, n)
    lon, lat = length * np.cos(angle), length * np.sin(angle)
    side = np.where(rng.random(n) < 0.5, 1, -1)
    scale = side * (1 + noise * error * rng.normal(size=n) / length)
    images = {
        "event": event,
        "hillas_intensity": rng.uniform(50, 5000, n).astype(np.float32),
        "hillas_fov_lon": own.fov_lon - lon,
        "hillas_fov_lat": own.fov_lat - lat,
        "pointing_alt": pointing_alt,
        "pointing_az": pointing_az,
        "stereo_impact_distance": rng.uniform(10, 500, n).astype(np.float32),
        "tel_log_energy": rng.normal(0.5, 0.5, n),
        "tel_energy_error": rng.uniform(0.05, 0.4, n),
        "tel_gammaness": rng.random(n),
        "tel_gammaness_error": rng.uniform(0.05, 0.5, n),
        "disp_dlon": scale * lon,
        "disp_dlat": scale * lat,
        "tel_disp_sign": 0.5 + 0.3 * side,
        "tel_disp_error": error,
    }
    stereo = telescope_to_altaz(source_lon + 0.1, source_lat, np.full(n_events, ALT), AZ)
    events = {
        "stereo_alt": stereo.alt,
        "stereo_az": stereo.az,
        "stereo_is_valid": n_images >= 2,
        "array_alt": np.full(n_events, ALT),
        "array_az": np.full(n_events, AZ),
        "source_alt": alt,
        "source_az": az,
    }
    return images, events, (source_lon, source_lat)


def combined(images, events):
    return array_columns(
        images, len(events["array_alt"]), events["array_alt"], events["array_az"], events
    )


@pytest.fixture(params=[0.0, 3.0], ids=["parallel", "divergent"])
def sample(request):
    """Return images, events and sources; telescopes point alike, or up to 3 deg apart."""
    n_images = np.random.default_rng(2).integers(0, 10, 200)
    n_images[:3] = 0
    return made(n_images, off_deg=request.param)


def test_sources_are_found_again(sample):
    images, events, (lon, lat) = sample
    found = combined(images, events)
    several = found["n_images"] >= 2
    np.testing.assert_allclose(found["disp_fov_lon"][several], lon[several], atol=1e-9)
    np.testing.assert_allclose(found["disp_fov_lat"][several], lat[several], atol=1e-9)
    np.testing.assert_allclose(found["disp_alt"][several], events["source_alt"][several], atol=1e-9)
    np.testing.assert_allclose(found["disp_az"][several], events["source_az"][several], atol=1e-9)
    np.testing.assert_allclose(found["disp_spread"][several], 0, atol=1e-7)


def test_columns_equal_a_loop_over_events(sample):
    images, events, _ = sample
    found = combined(images, events)
    assert found.keys() == set(COMBINED)
    for k in range(len(events["array_alt"])):
        own = {name: values[images["event"] == k] for name, values in images.items()}
        n_images = len(own["event"])
        assert (found["n_images"][k], found["sum_intensity"][k]) == (
            n_images,
            pytest.approx(own["hillas_intensity"].sum(dtype=np.float64)),
        )
        if not n_images:
            stereo = {"n_images", "sum_intensity", "stereo_fov_lon", "stereo_fov_lat"}
            assert np.isnan([found[name][k] for name in found.keys() - stereo]).all()
            continue
        expected = {
            "max_intensity": own["hillas_intensity"].max(),
            "mean_impact": own["stereo_impact_distance"].mean(dtype=np.float64),
        }
        for column, error in (("log_energy", "energy_error"), ("gammaness", "gammaness_error")):
            weight = own[f"tel_{error}"] ** -2
            mean = np.average(own[f"tel_{column}"], weights=weight)
            square = np.average((own[f"tel_{column}"] - mean) ** 2, weights=weight)
            expected |= {f"mean_{column}": mean, f"spread_{column}": np.sqrt(square)}
        expected["mean_energy_error"] = np.sum(own["tel_energy_error"] ** -2) ** -0.5
        if n_images > 1:
            expected["disp_error"] = np.sum(own["tel_disp_error"] ** -2) ** -0.5
        for name, value in expected.items():
            assert found[name][k] == pytest.approx(value, abs=1e-12), name


def test_one_image_may_lie_on_the_wrong_side():
    images, events, _ = made(np.ones(50, dtype=int))
    found = combined(images, events)
    length = np.hypot(images["disp_dlon"], images["disp_dlat"])
    expected = np.sqrt(images["tel_disp_error"] ** 2 + 0.2 * (2 * length) ** 2)
    np.testing.assert_allclose(found["disp_error"], expected)
    np.testing.assert_allclose(found["disp_spread"], 0, atol=1e-12)
    side = np.where(images["tel_disp_sign"] > 0.5, 1, -1)
    np.testing.assert_allclose(
        found["disp_fov_lon"], images["hillas_fov_lon"] + side * images["disp_dlon"]
    )


def test_geometry_is_compared_where_there_is_one(sample):
    images, events, (lon, lat) = sample
    found = combined(images, events)
    valid = events["stereo_is_valid"]
    for name in ("stereo_fov_lon", "stereo_fov_lat", "disp_stereo_distance"):
        np.testing.assert_array_equal(np.isfinite(found[name]), valid)
    np.testing.assert_allclose(found["stereo_fov_lon"][valid], lon[valid] + 0.1, atol=1e-9)
    distance = 0.1 * np.cos(np.radians(lat[valid]))
    np.testing.assert_allclose(found["disp_stereo_distance"][valid], distance, rtol=1e-4)


def test_order_and_cameras_do_not_matter():
    images, events, _ = made(np.array([3, 0, 1, 5, 2]), noise=1.0)
    expected = combined(images, events)
    rng = np.random.default_rng(3)
    half = rng.random(len(images["event"])) < 0.5
    parts = [{name: v[rows] for name, v in images.items()} for rows in (half, ~half)]
    found = combined(sort_images(parts), events)
    for name in COMBINED:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-9, err_msg=name)


def test_no_images_and_no_events():
    for n_images in (np.zeros(3, dtype=int), np.zeros(0, dtype=int)):
        images, events, _ = made(n_images)
        found = combined(images, events)
        assert all(len(values) == len(n_images) for values in found.values())
        assert not found["n_images"].any()
        assert np.isnan(found["disp_alt"]).all()
    assert set(images) == set(IMAGE_COLUMNS)


def test_merged_direction_has_the_smaller_error():
    rng = np.random.default_rng(4)
    n, errors = 4000, np.array([0.1, 0.2])
    columns = {
        f"{kind}_fov_{axis}": rng.normal(0, error, n)
        for kind, error in zip(("disp", "stereo"), errors, strict=True)
        for axis in ("lon", "lat")
    }
    columns["stereo_fov_lon"][:10] = np.nan
    lon, lat = merge_directions(columns, *np.log10(np.tile(errors[:, None], n)))
    np.testing.assert_array_equal(lon[:10], columns["disp_fov_lon"][:10])
    np.testing.assert_array_equal(lat[:10], columns["disp_fov_lat"][:10])
    expected = np.sum(errors**-2.0) ** -0.5
    assert np.std(lon[10:]) == pytest.approx(expected, rel=0.05)
    assert np.std(lat[10:]) == pytest.approx(expected, rel=0.05)
