"""Pictures: pixel shapes, outlines, the geometry behind the lines, and the stage on real files."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from astri_gpu.config import CleaningConfig, DisplayConfig, IngestConfig, ProcessConfig
from astri_gpu.display import figure
from astri_gpu.display.array import axis_on_ground
from astri_gpu.display.camera import mask_outline, pixel_polygons
from astri_gpu.display.scene import Ellipse, ImageScene, choose_event, find_event, read_event
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import CameraDescription, CameraGeometry, Optics, Readout
from astri_gpu.kernels.coordinates import (
    altaz_to_cartesian,
    altaz_to_telescope,
    cartesian_to_altaz,
)
from astri_gpu.stages import display, ingest, process
from astri_gpu.store import open_store

PNG = b"\x89PNG\r\n\x1a\n"
FOCAL_LENGTH = 10.0


def camera(shape, turned_deg=0.0):
    """Return a camera of 61 hexagons or circles, or 49 squares, without gaps."""
    if shape == "square":
        column, row = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4))
        x, y, area = column.ravel() * 0.05, row.ravel() * 0.05, 0.05**2
    else:
        column, row = np.meshgrid(np.arange(-4, 5), np.arange(-4, 5))
        inside = np.abs(column + row) <= 4
        x = (column + 0.5 * row)[inside] * 0.05
        y = (row * np.sqrt(3) / 2)[inside] * 0.05
        area = np.sqrt(3) / 2 * 0.05**2 if shape == "hexagon" else np.pi / 4 * 0.05**2
    angle = np.deg2rad(turned_deg)
    return CameraGeometry.from_pixels(
        "TestCam",
        x * np.cos(angle) - y * np.sin(angle),
        x * np.sin(angle) + y * np.cos(angle),
        np.full(len(x), area),
        shape,
    )


def area(polygons):
    x, y = polygons[..., 0], polygons[..., 1]
    return 0.5 * np.abs((x * np.roll(y, -1, -1) - y * np.roll(x, -1, -1)).sum(-1))


@pytest.mark.parametrize("turned_deg", [0.0, 10.9, -19.1, 40.0])
@pytest.mark.parametrize(("shape", "corners"), [("hexagon", 6), ("square", 4)])
def test_pixels_tile_the_camera(shape, corners, turned_deg):
    geometry = camera(shape, turned_deg)
    sky = geometry.telescope_frame(FOCAL_LENGTH)
    polygons = pixel_polygons(geometry, sky)
    assert polygons.shape == (geometry.n_pixels, corners, 2)
    np.testing.assert_allclose(polygons.mean(axis=1)[:, 0], sky.fov_lon, atol=1e-12)
    np.testing.assert_allclose(polygons.mean(axis=1)[:, 1], sky.fov_lat, atol=1e-12)
    np.testing.assert_allclose(area(polygons), sky.pix_area, rtol=1e-12)
    # Without gaps, every side lies half-way to the neighbour, so neighbours share two corners.
    middle = np.hypot(sky.fov_lon, sky.fov_lat).argmin()
    apart = np.linalg.norm(polygons[:, :, None] - polygons[middle], axis=-1)
    assert ((apart < 1e-9).sum(axis=(1, 2)) == 2).sum() == corners


def test_circles_are_round():
    geometry = camera("circle")
    sky = geometry.telescope_frame(FOCAL_LENGTH)
    polygons = pixel_polygons(geometry, sky)
    centre = np.stack([sky.fov_lon, sky.fov_lat], axis=-1)
    radius = np.linalg.norm(polygons - centre[:, None], axis=-1)
    np.testing.assert_allclose(radius, np.broadcast_to(sky.pixel_width[:, None] / 2, radius.shape))


@pytest.mark.parametrize(("shape", "corners"), [("hexagon", 6), ("square", 4), ("circle", 20)])
def test_outline_leaves_out_inner_sides(shape, corners):
    geometry = camera(shape)
    polygons = pixel_polygons(geometry, geometry.telescope_frame(FOCAL_LENGTH))
    mask = np.zeros(geometry.n_pixels, dtype=bool)
    assert mask_outline(polygons, mask).shape == (0, 2, 2)
    middle = geometry.n_pixels // 2
    mask[middle] = True
    assert mask_outline(polygons, mask).shape == (corners, 2, 2)
    mask[geometry.neighbours[middle].max()] = True
    shared = 0 if shape == "circle" else 2  # circles only touch
    assert mask_outline(polygons, mask).shape == (2 * corners - shared, 2, 2)


def test_outline_of_a_full_camera_is_its_border():
    geometry = camera("square")
    polygons = pixel_polygons(geometry, geometry.telescope_frame(FOCAL_LENGTH))
    outline = mask_outline(polygons, np.ones(geometry.n_pixels, dtype=bool))
    edge = np.abs(polygons).max()
    assert len(outline) == 4 * 7
    assert np.isclose(np.abs(outline).max(axis=(1, 2)), edge).all()


def test_ellipse_contour_and_axis():
    ellipse = Ellipse(fov_lon=1.0, fov_lat=-0.5, length=0.3, width=0.1, psi=90.0)
    lon, lat = ellipse.contour(2)
    np.testing.assert_allclose([lon.min(), lon.max()], [0.8, 1.2])
    np.testing.assert_allclose([lat.min(), lat.max()], [-1.1, 0.1])
    lon, lat = ellipse.axis(1.0)
    np.testing.assert_allclose(lon, [1, 1])
    np.testing.assert_allclose(lat, [-1.5, 0.5])


def scene_of(geometry, pointing, ellipse):
    readout = Readout(
        n_gains=1,
        n_samples=1,
        sampling_rate_ghz=1.0,
        reference_pulse=np.ones((1, 1)),
        reference_pulse_step_ns=1.0,
        saturation_adc=None,
    )
    optics = Optics(
        name="TEST",
        focal_length_m=FOCAL_LENGTH,
        effective_focal_length_m=None,
        mirror_area_m2=1.0,
        n_mirrors=1,
    )
    return ImageScene(
        tel_id=1,
        camera=CameraDescription(geometry, readout, optics),
        focal_length_m=FOCAL_LENGTH,
        pointing=pointing,
        values=None,
        mask=None,
        ellipse=ellipse,
        brightness=1.0,
        calibrated=True,
    )


@pytest.mark.parametrize(
    "position", [(120.0, -80.0, 0.0), (-40.0, 15.0, 35.0), (0.0, 200.0, -12.0)]
)
def test_image_axis_on_the_ground_goes_through_the_core(position):
    pointing = (68.0, 35.0)
    core = np.array([30.0, -45.0, 0.0])
    toward = np.array(altaz_to_cartesian(*map(np.float64, (68.4, 34.0))))
    seen = []
    for distance in (9000.0, 9300.0):  # two points of the shower, near each other on the sky
        ray = core + distance * toward - np.array(position)
        sky = cartesian_to_altaz(*map(np.float64, ray))
        seen.append(altaz_to_telescope(sky.alt, sky.az, *map(np.float64, pointing)))
    (lon, lat), (to_lon, to_lat) = seen
    psi = float(np.rad2deg(np.arctan2(to_lat - lat, to_lon - lon)))
    ellipse = Ellipse(float(lon), float(lat), 0.2, 0.1, psi)
    line = axis_on_ground(scene_of(camera("hexagon"), pointing, ellipse), position)
    assert line is not None
    point, direction = line
    along = core[:2] - point
    across = along[0] * direction[1] - along[1] * direction[0]
    assert abs(across) < 0.1
    # The line passes the telescope itself when it stands on the ground z = 0.
    if position[2] == 0:
        np.testing.assert_allclose(point, position[:2])


def test_image_without_parameters_has_no_line():
    assert axis_on_ground(scene_of(camera("square"), (70.0, 0.0), None), (0.0, 0.0, 0.0)) is None


def processed(path, folder, images):
    """Return DL0 and DL2a stores of a real file, with ctapipe's cleaning."""
    dl0, dl2 = folder / "dl0.zarr", folder / "dl2.zarr"
    ingest.run(IngestConfig(input=str(path), output=str(dl0), progress=False))
    process.run(
        ProcessConfig(
            input=str(dl0),
            output=str(dl2),
            images=images,
            progress=False,
            cleaning=CleaningConfig(
                picture_pe=10, boundary_pe=5, min_picture_neighbours=2, min_core_pixels=0
            ),
        )
    )
    return dl0, dl2


@pytest.fixture(scope="module")
def stereo(simtel, tmp_path_factory):
    return processed(simtel("history_meta_75.simtel.zst"), tmp_path_factory.mktemp("s"), True)


@pytest.fixture(scope="module")
def muons(simtel, tmp_path_factory):
    return processed(simtel("gct_checs_muons.simtel.zst"), tmp_path_factory.mktemp("m"), False)


def config(store, output, **options):
    return DisplayConfig(input=str(store), output=str(output), **{"dpi": 40, **options})


@pytest.mark.parametrize("what", ["event", "images", "array"])
@pytest.mark.parametrize("level", [0, 1])
def test_pictures_of_a_stereo_event(stereo, tmp_path, what, level):
    summary = display.run(config(stereo[level], tmp_path, what=what))
    assert summary.path == tmp_path / f"{what}_4_100.png"
    assert summary.path.read_bytes().startswith(PNG)
    assert summary.n_images == 15
    assert ("12 of 15 images" in summary.line) == (what != "array")
    assert [entry.name for entry in tmp_path.iterdir()] == [summary.path.name]


def test_existing_picture_is_kept_unless_overwrite(stereo, tmp_path):
    path = tmp_path / "new folder" / "event.png"
    display.run(config(stereo[1], path, what="array"))
    before = path.read_bytes()
    with pytest.raises(UsageError, match="overwrite=true"):
        display.run(config(stereo[1], path, what="array", dpi=30))
    with pytest.raises(UsageError, match="overwrite=true"):
        display.run(config(stereo[1], display.run(config(stereo[1], tmp_path, what="array")).path))
    assert path.read_bytes() == before
    display.run(config(stereo[1], path, what="array", dpi=30, overwrite=True))
    assert path.read_bytes() != before


def test_sentences_of_wrong_requests(stereo, tmp_path):
    with pytest.raises(UsageError, match=r"has no event 7; it has 1 events, 100 to 100"):
        display.run(config(stereo[1], tmp_path, event_id=7))
    with pytest.raises(UsageError, match=r"in observation 9"):
        display.run(config(stereo[1], tmp_path, event_id=100, obs_id=9))
    with pytest.raises(UsageError, match=r"no observation 9; it has 4"):
        display.run(config(stereo[1], tmp_path, obs_id=9))
    with pytest.raises(UsageError, match=r"ends in '\.pdf'"):
        display.run(config(stereo[1], tmp_path / "event.pdf"))
    with pytest.raises(UsageError, match="is a store"):
        display.run(config(stereo[1], stereo[0]))
    with pytest.raises(AstriError, match="not a store"):
        display.run(config(tmp_path, tmp_path))


def test_unwritable_folder_is_one_sentence(stereo, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(AstriError, match="cannot be written"):
        display.run(config(stereo[1], blocked / "event.png", what="array"))


def test_a_store_without_charges_says_what_to_do(muons, tmp_path):
    with pytest.raises(AstriError, match="images=true, or draw what=array"):
        display.run(config(muons[1], tmp_path))
    assert display.run(config(muons[1], tmp_path, what="array")).n_images == 1


def test_chosen_event_is_the_brightest(muons):
    store = open_store(muons[1])
    intensity = store.read("dl1/image/CHEC/hillas_intensity")
    row = choose_event(store, None)
    assert row == store.read("dl1/image/CHEC/event_index")[np.nanargmax(intensity)]
    event = read_event(store, row, pixels=False)
    assert event.images[0].brightness == np.nanmax(intensity)
    assert event.direction is None
    assert find_event(store, event.event_id, None) == row
    assert find_event(store, event.event_id, event.obs_id) == row


def test_scene_of_a_stereo_event(stereo):
    event = read_event(open_store(stereo[1]), 0, pixels=True)
    brightness = [image.brightness for image in event.images if np.isfinite(image.brightness)]
    assert brightness == sorted(brightness, reverse=True)
    assert {image.camera.name for image in event.images[:4]} == {"LSTCam"}
    image = event.images[0]
    assert image.focal_length_m == pytest.approx(29.306, abs=1e-3)  # the effective one
    # The charge in the outlined pixels is the intensity, and its centre is that of the ellipse.
    charge = image.values[image.mask]
    assert charge.sum() == pytest.approx(image.brightness, rel=1e-4)
    sky = image.camera.geometry.telescope_frame(image.focal_length_m)
    assert np.average(sky.fov_lon[image.mask], weights=charge) == pytest.approx(
        image.ellipse.fov_lon, abs=1e-4
    )
    assert np.average(sky.fov_lat[image.mask], weights=charge) == pytest.approx(
        image.ellipse.fov_lat, abs=1e-4
    )
    title = figure.headline(event)
    assert title.startswith("Event 100, observation 4,  gamma of 1.3 TeV,  direction off by 0.1")


def test_fast_model_is_named_in_the_picture(stereo):
    event = read_event(open_store(stereo[1]), 0, pixels=False)
    event = dataclasses.replace(event, model="built-in fast shower model")
    drawn = figure.event_figure(event, "array", 40)
    assert drawn.legends[0].get_title().get_text() == "built-in fast shower model"


def test_far_core_does_not_shrink_the_array(stereo):
    event = read_event(open_store(stereo[1]), 0, pixels=False)
    event = dataclasses.replace(event, core=(5e5, 0.0))
    ground = figure.event_figure(event, "array", 40).axes[0]
    assert ground.get_ylim()[1] < 1000


def test_calibration_event_of_seven_cameras(simtel, tmp_path):
    dl0 = tmp_path / "dl0.zarr"
    ingest.run(
        IngestConfig(input=str(simtel("calib_events.simtel.gz")), output=str(dl0), progress=False)
    )
    summary = display.run(config(dl0, tmp_path / "pictures"))
    assert summary.path.name == "event_6_-1.png"
    assert summary.line.endswith("7 images")


def test_pyplot_stays_out(stereo, tmp_path):
    code = (
        "import sys; from astri_gpu.cli import main; "
        f"code = main(['display', {str(stereo[1])!r}, 'output=' + {str(tmp_path)!r}, 'dpi=30']); "
        "sys.exit(code or 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
