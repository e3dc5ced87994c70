"""The built-in ASTRI camera, and camera geometry against ctapipe's for seven real cameras."""

import dataclasses
import logging

import numpy as np
import pytest

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import CameraGeometry, Readout, pixel_neighbours, rotate
from astri_gpu.instrument import astri as builtin
from astri_gpu.instrument.frames import sky_context, sky_grid

CAMERAS = ("LSTCam", "NectarCam", "FlashCam", "ASTRICam", "CHEC", "DigiCam", "SCTCam")
# The same float64 arithmetic up to the order of a few operations.
RTOL = 1e-12
SITE = {"latitude_deg": 28.3, "longitude_deg": -16.5, "altitude_m": 2370.0}


@pytest.fixture(scope="module")
def astri():
    return builtin.astri_camera()


@pytest.fixture(scope="module")
def telescopes(simtel):
    """Telescope descriptions of a real file with seven cameras, by telescope id 1 to 7."""
    from eventio import SimTelFile

    with SimTelFile(simtel("calib_events.simtel.gz")) as file:
        yield dict(zip(CAMERAS, map(file.telescope_descriptions.get, range(1, 8)), strict=True))


@pytest.fixture(scope="module")
def subarray(simtel):
    pytest.importorskip("ctapipe")
    import warnings

    from ctapipe.io import SimTelEventSource

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ctapipe warns of optics that it has to guess
        path = simtel("calib_events.simtel.gz")
        with SimTelEventSource(path, focal_length_choice="EQUIVALENT") as source:
            return source.subarray


def degree(table):
    return np.count_nonzero(table >= 0, axis=1)


def dense(table):
    matrix = np.zeros((len(table), len(table)), dtype=bool)
    pixel, column = np.nonzero(table >= 0)
    matrix[pixel, table[pixel, column]] = True
    return matrix


def geometry_of(telescope):
    """Build our geometry from the camera block of a file, as the ingest does."""
    camera = telescope["camera_settings"]
    shape = {0: "circle", 1: "hexagon", 2: "square", 3: "hexagon"}[int(camera["pixel_shape"][0])]
    x, y = rotate(camera["pixel_x"], camera["pixel_y"], -camera["cam_rot"])
    return CameraGeometry.from_pixels("camera", x, y, camera["pixel_area"], shape)


def test_astri_camera_counts(astri):
    geometry = astri.geometry
    assert geometry.n_pixels == 2368
    assert geometry.border(1).sum() == 212
    assert geometry.border(2).sum() == 408
    assert np.abs(geometry.pix_x).max() == pytest.approx(0.2012, abs=5e-5)
    assert np.abs(geometry.pix_y).max() == pytest.approx(0.2012, abs=5e-5)
    assert np.bincount(geometry.module).tolist() == [64] * 37
    assert astri.focal_length() == 2.150


def test_astri_neighbours_bridge_the_modules(astri):
    edge, both = astri.geometry.neighbours, astri.geometry.neighbours_diagonal
    # 212 border pixels: the 12 corners of the staircase have two edge neighbours.
    assert np.bincount(degree(edge)).tolist() == [0, 0, 12, 200, 2156]
    assert degree(both).max() == 8
    for table in (edge, both):
        assert table.dtype == np.int32
        matrix = dense(table)
        assert (matrix == matrix.T).all()
        assert not matrix.diagonal().any()
        # ascending, then padding
        filled = np.where(table < 0, 2368 + np.arange(table.shape[1]), table)
        assert (np.diff(filled, axis=1) > 0).all()
    assert (dense(both) >= dense(edge)).all()
    pixel, column = np.nonzero(edge >= 0)
    module = astri.geometry.module
    n_module_pairs = 60  # modules that touch each other, along 8 pixels each
    bridges = module[pixel] != module[edge[pixel, column]]
    assert bridges.sum() == 2 * n_module_pairs * 8


def test_astri_camera_is_the_real_one(astri, telescopes):
    camera = telescopes["ASTRICam"]["camera_settings"]
    geometry = astri.geometry
    tolerance_m = 1e-6  # the file has positions to 1 micrometre; the aim was 0.1 mm
    for ours, theirs in (("pix_x", "pixel_x"), ("pix_y", "pixel_y"), ("pix_z", "pixel_z")):
        np.testing.assert_allclose(getattr(geometry, ours), camera[theirs], atol=tolerance_m)
    np.testing.assert_allclose(geometry.pix_area, camera["pixel_area"], rtol=1e-6)
    assert camera["focal_length"] == pytest.approx(astri.optics.focal_length_m)
    assert camera["mirror_area"] == pytest.approx(astri.optics.mirror_area_m2, rel=1e-5)
    assert camera["n_mirrors"] == astri.optics.n_mirrors
    found = geometry_of(telescopes["ASTRICam"])
    np.testing.assert_array_equal(geometry.neighbours, found.neighbours)
    np.testing.assert_array_equal(geometry.neighbours_diagonal, found.neighbours_diagonal)


def test_mini_array_is_a_marked_stand_in():
    array = builtin.mini_array()
    assert array.n_telescopes == 9
    assert "not public" in array.note
    assert "stand-in" in array.name
    baseline = np.hypot(array.x[:, None] - array.x, array.y[:, None] - array.y)
    assert baseline.max() <= 700
    assert np.ptp(array.y) == 650
    assert np.ptp(array.x) == 270
    nearest = np.sort(baseline, axis=1)[:, 1]
    assert nearest.min() > 180
    assert array.camera(9).name == "ASTRICam"
    with pytest.raises(AstriError, match="has no telescope 12; it has 1, 2"):
        array.camera(12)
    with pytest.raises(AstriError, match="camera_index goes from 3 to 3"):
        dataclasses.replace(array, camera_index=np.full(9, 3))
    with pytest.raises(AstriError, match=r"x is \(2,\) for 9 telescopes"):
        dataclasses.replace(array, x=np.zeros(2))


@pytest.mark.peers
@pytest.mark.parametrize("name", CAMERAS)
def test_geometry_is_ctapipes(telescopes, subarray, name):
    from ctapipe.coordinates import TelescopeFrame

    ours = geometry_of(telescopes[name])
    telescope = subarray.tel[CAMERAS.index(name) + 1]
    theirs = telescope.camera.geometry
    assert theirs.name == name
    assert ours.shape == theirs.pix_type.value
    np.testing.assert_allclose(ours.pix_x, theirs.pix_x.value, rtol=RTOL, atol=1e-15)
    np.testing.assert_allclose(ours.pix_y, theirs.pix_y.value, rtol=RTOL, atol=1e-15)
    np.testing.assert_array_equal(dense(ours.neighbours), theirs.neighbor_matrix)
    diagonal = theirs.calc_pixel_neighbors(diagonal=True).toarray()
    np.testing.assert_array_equal(dense(ours.neighbours_diagonal), diagonal)
    assert (dense(ours.neighbours) == dense(ours.neighbours).T).all()
    for width in (1, 2, 3):
        np.testing.assert_array_equal(ours.border(width), theirs.get_border_pixel_mask(width))
    assert ours.radius == pytest.approx(theirs.guess_radius().value, rel=RTOL)
    np.testing.assert_allclose(ours.pixel_width, theirs.pixel_width.value, rtol=RTOL)

    sky = theirs.transform_to(TelescopeFrame())
    seen = ours.telescope_frame(telescope.optics.equivalent_focal_length.value)
    np.testing.assert_allclose(seen.fov_lon, sky.pix_x.to_value("deg"), rtol=RTOL, atol=1e-13)
    np.testing.assert_allclose(seen.fov_lat, sky.pix_y.to_value("deg"), rtol=RTOL, atol=1e-13)
    np.testing.assert_allclose(seen.pix_area, sky.pix_area.to_value("deg2"), rtol=RTOL)
    np.testing.assert_allclose(seen.pixel_width, sky.pixel_width.to_value("deg"), rtol=RTOL)
    np.testing.assert_array_equal(seen.border_1, sky.get_border_pixel_mask(1))
    np.testing.assert_array_equal(seen.border_2, sky.get_border_pixel_mask(2))
    assert seen.radius_deg == pytest.approx(sky.guess_radius().to_value("deg"), rel=RTOL)


@pytest.mark.peers
@pytest.mark.parametrize("name", CAMERAS)
def test_integration_correction_is_ctapipes(subarray, name):
    from ctapipe.image.extractor import integration_correction

    theirs = subarray.tel[CAMERAS.index(name) + 1].camera.readout
    step_ns = theirs.reference_pulse_sample_width.to_value("ns")
    ours = Readout(
        n_gains=theirs.n_channels,
        n_samples=theirs.n_samples,
        sampling_rate_ghz=theirs.sampling_rate.to_value("GHz"),
        reference_pulse=theirs.reference_pulse_shape,
        reference_pulse_step_ns=step_ns,
    )
    for width, shift in ((7, 3), (5, 2), (8, 3), (3, 1), (1, 0), (200, 0), (4, -500)):
        expected = integration_correction(
            theirs.reference_pulse_shape,
            step_ns,
            (1 / theirs.sampling_rate).to_value("ns"),
            width,
            shift,
        )
        found = ours.integration_correction(width, shift)
        np.testing.assert_allclose(found, expected, rtol=RTOL)


def test_integration_correction_without_a_pulse_is_1(astri):
    assert astri.readout.integration_correction(7, 3).tolist() == [1, 1]
    empty = dataclasses.replace(astri.readout, reference_pulse=np.zeros((2, 50)))
    assert empty.integration_correction(7, 3).tolist() == [1, 1]


def test_telescope_frame_of_one_axis_pixel(astri):
    seen = astri.geometry.telescope_frame(2.15)
    highest = np.argmax(astri.geometry.pix_x)
    expected = np.rad2deg(astri.geometry.pix_x[highest] / 2.15)
    assert seen.fov_lat[highest] == pytest.approx(expected)
    assert seen.pixel_width[0] * 60 == pytest.approx(11.2, abs=0.1)  # arcmin; the ASTRI pixel: ~11
    with pytest.raises(AstriError, match="has to be a positive number"):
        astri.geometry.telescope_frame(float("nan"))


def test_rotate_turns_clockwise():
    x, y = rotate([1.0, 0.0], [0.0, 2.0], np.pi / 2)
    np.testing.assert_allclose(x, [0, 2], atol=1e-15)
    np.testing.assert_allclose(y, [-1, 0], atol=1e-15)


def test_neighbours_of_small_cameras():
    assert pixel_neighbours([0.0], [0.0], "square").tolist() == [[-1]]
    assert pixel_neighbours([], [], "hexagon").shape == (0, 1)
    two = pixel_neighbours([0.0, 1.0], [0.0, 0.0], "hexagon", diagonal=True)
    assert two.tolist() == [[1], [0]]
    grid = np.meshgrid(np.arange(3.0), np.arange(3.0))
    x, y = grid[0].ravel(), grid[1].ravel()
    assert pixel_neighbours(x, y, "square")[4].tolist() == [1, 3, 5, 7]
    assert pixel_neighbours(x, y, "square", diagonal=True)[4].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    lonely = CameraGeometry.from_pixels("one", [0.0], [0.0], [1e-4], "square")
    assert not lonely.border(1).any()
    assert np.isnan(lonely.radius)


def test_irregular_positions_are_reported(caplog):
    with caplog.at_level(logging.WARNING):
        table = pixel_neighbours([0.0, 1.0, 2.6], [0.0, 0.0, 0.0], "hexagon")
    assert table.tolist() == [[1], [0], [1]]
    assert "1 of 3 neighbour pairs hold in one direction only" in caplog.text


def test_wrong_cameras_are_refused(astri):
    with pytest.raises(AstriError, match="pixel shape is 'triangle'"):
        pixel_neighbours([0.0, 1.0], [0.0, 1.0], "triangle")
    with pytest.raises(AstriError, match=r"pix_x is \(2,\) and pix_y is \(3,\)"):
        pixel_neighbours([0.0, 1.0], [0.0, 1.0, 2.0], "square")
    with pytest.raises(AstriError, match=r"pix_area is \(3,\), but pix_x has 2368 pixels"):
        dataclasses.replace(astri.geometry, pix_area=np.ones(3))
    with pytest.raises(AstriError, match=r"neighbours is \(5, 4\), but must be \(2368, n\)"):
        dataclasses.replace(astri.geometry, neighbours=np.zeros((5, 4), dtype=np.int32))
    with pytest.raises(AstriError, match="border of 0 rows"):
        astri.geometry.border(0)


def test_focal_length_choice(astri):
    optics = dataclasses.replace(astri.optics, effective_focal_length_m=2.152)
    known = dataclasses.replace(astri, optics=optics)
    assert known.focal_length("auto") == known.focal_length("effective") == 2.152
    assert known.focal_length("equivalent") == astri.focal_length("auto") == 2.150
    with pytest.raises(AstriError, match="effective focal length of ASTRI with ASTRICam is not in"):
        astri.focal_length("effective")
    with pytest.raises(UsageError, match="'nominal' was asked for"):
        astri.focal_length("nominal")


def test_same_as_compares_the_arrays(astri):
    assert astri.same_as(builtin.astri_camera())
    moved = dataclasses.replace(astri.geometry, pix_x=astri.geometry.pix_x + 1e-6)
    assert not astri.same_as(dataclasses.replace(astri, geometry=moved))
    louder = dataclasses.replace(astri.readout, saturation_adc=4095.0)
    assert not astri.same_as(dataclasses.replace(astri, readout=louder))


def test_sky_grid_finds_the_nearest_epoch():
    grid = sky_grid([1704067300, 1704067200], **SITE)
    assert grid.n_epochs == 3
    epoch, seconds = grid.locate([1704067200, 1704067229, 1704067300], [1, 999_999_999, 0])
    assert epoch.tolist() == [0, 0, 2]
    np.testing.assert_allclose(seconds, [1e-9, 29.999999999, -20], rtol=1e-15)
    with pytest.raises(AstriError, match="do not fit the sky grid"):
        grid.locate([1704067200 + 500], [0])


def test_sky_grid_refuses_broken_requests():
    with pytest.raises(AstriError, match="no event times"):
        sky_grid([], **SITE)
    with pytest.raises(AstriError, match="step of the sky grid is 3600 s"):
        sky_grid([0, 1], **SITE, step_s=3600)
    with pytest.raises(AstriError, match="more than 31 days"):
        sky_grid([0, 1704067200], **SITE)
    with pytest.raises(AstriError, match="not a finite number"):
        sky_context([np.nan], **SITE)
    with pytest.raises(AstriError, match=r"latitude 91.0 deg.* is not a place on the Earth"):
        sky_context([0.0], latitude_deg=91.0, longitude_deg=0.0, altitude_m=0.0)


def test_times_outside_the_earth_orientation_table_are_reported(caplog):
    with caplog.at_level(logging.WARNING):
        context = sky_context([0.0, 4e9], **SITE)
    assert "2 of 2 epochs" in caplog.text
    assert "dubious year" in caplog.text
    assert np.isfinite(context.rotation).all()
