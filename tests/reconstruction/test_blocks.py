"""Blocks of whole events: every image once with the columns of its event, whatever the sizes."""

import shutil
import threading

import numpy as np
import pytest
import zarr

from astri_gpu import store_table
from astri_gpu.errors import AstriError
from astri_gpu.reconstruction import blocks
from astri_gpu.reconstruction.blocks import read_event_blocks
from astri_gpu.reconstruction.catalogue import stored_event_columns, stored_image_columns
from astri_gpu.reconstruction.derived import EVENT_DERIVED, IMAGE_DERIVED
from astri_gpu.store import copy_group, create, open_store

CAMERA = "ASTRICam"
LEVELS = ("dl0", "dl1", "dl2", "simulation")


def rewritten(store, path, cameras, chunk=64):
    """Write a copy whose images go to several cameras, or get lost; return it opened.

    `cameras` gives the mask of the images of each.
    """
    attrs = {"data_level": "DL2a", "kind": store.attrs["kind"]}
    with pytest.MonkeyPatch.context() as small, create(path, attrs=attrs) as writer:
        small.setattr(store_table, "NARROW_CHUNK_ROWS", chunk)
        copy_group(store, writer, "instrument")
        for level in LEVELS:
            group = f"{level}/event"
            if group in store:
                columns = store.read_table(group)
                sizes = {"tel": columns["tel_mask"].shape[1]} if "tel_mask" in columns else {}
                writer.table(group, list(columns), sizes=sizes).append(columns)
            columns = {
                name: values
                for name, values in store.read_table(f"{level}/image/{CAMERA}").items()
                if values.ndim == 1
            }
            for camera, mask in cameras.items():
                table = writer.table(f"{level}/image/{camera}", list(columns), sizes={})
                table.append({name: values[mask] for name, values in columns.items()})
    return open_store(path)


@pytest.fixture(scope="module")
def three_cameras(gamma_store, tmp_path_factory):
    """Return a store with the images of gammas in two cameras, a third without any, and the masks.

    A quarter of the images is in neither, so that some events have none.
    """
    tel_id = gamma_store.read(f"dl1/image/{CAMERA}/tel_id")
    lost = np.random.default_rng(5).random(len(tel_id)) < 0.25
    lost |= gamma_store.read(f"dl1/image/{CAMERA}/event_index") < 9
    cameras = {"A": (tel_id < 4) & ~lost, "B": (tel_id >= 4) & ~lost, "None": tel_id > 99}
    path = tmp_path_factory.mktemp("cameras") / "three.zarr"
    return rewritten(gamma_store, path, cameras), cameras


def together(found, names):
    """Return the columns of images by camera, with the row of the event in the store."""
    return {
        camera: {
            name: np.concatenate([block.images[camera][name] for block in found]) for name in names
        }
        | {
            "event": np.concatenate(
                [block.images[camera]["event"] + block.first for block in found]
            )
        }
        for camera in found[0].images
    }


@pytest.mark.parametrize(("images", "events"), [(90, 70), (333, 10**6), (10**6, 10**6), (10**6, 1)])
def test_every_image_and_event_comes_once(images, events, three_cameras, gamma_store, monkeypatch):
    store, cameras = three_cameras
    monkeypatch.setattr(blocks, "IMAGES_PER_BLOCK", images)
    monkeypatch.setattr(blocks, "EVENTS_PER_BLOCK", events)
    stored = stored_image_columns(gamma_store, CAMERA)
    of_events = {
        name: path for name, path in stored_event_columns(gamma_store).items() if name not in stored
    }
    found = list(read_event_blocks(store, [*stored, *of_events, "shower"], [*of_events, "shower"]))

    n_events = gamma_store.n_rows("dl0/event")
    assert [block.first for block in found] == [0, *(block.stop for block in found[:-1])]
    assert found[-1].stop == n_events
    assert max(block.stop - block.first for block in found) <= events
    assert max(block.n_images for block in found) <= images
    assert all(block.images["None"]["event"].shape == (0,) for block in found)

    images = together(found, [*stored, *of_events, "shower"])
    for camera, mask in cameras.items():
        event = images[camera]["event"]
        np.testing.assert_array_equal(event, gamma_store.read(stored["event_index"])[mask])
        for name, path in stored.items():
            expected = gamma_store.read(path)
            assert images[camera][name].dtype == expected.dtype, name
            np.testing.assert_array_equal(images[camera][name], expected[mask], err_msg=name)
        for name, path in of_events.items():
            expected = gamma_store.read(path)
            np.testing.assert_array_equal(images[camera][name], expected[event], err_msg=name)
            found_here = np.concatenate([block.events[name] for block in found])
            np.testing.assert_array_equal(found_here, expected, err_msg=name)
        shower = gamma_store.read("dl0/event/event_type") == 32
        np.testing.assert_array_equal(images[camera]["shower"], shower[event])
    assert 0 < np.count_nonzero(~shower) < n_events


def test_each_chunk_is_decoded_once(three_cameras, monkeypatch):
    """Blocks end anywhere in a chunk: no reader goes back."""
    store, _ = three_cameras
    monkeypatch.setattr(blocks, "IMAGES_PER_BLOCK", 150)
    read = []

    def read_table(path, columns, start=0, stop=0):
        read.extend((f"{path}/{name}", row) for name in columns for row in range(start, stop, 64))
        return type(store).read_table(store, path, columns, start, stop or None)

    monkeypatch.setattr(store, "read_table", read_table)
    wanted = ["hillas_width", "pointing_alt", "stereo_h_max", "event_index"]
    assert len(list(read_event_blocks(store, wanted, ["true_energy"]))) > 5
    of_images = [entry for entry in read if "/image/" in entry[0] and "event_index" not in entry[0]]
    assert len(of_images) > 20
    assert len(set(of_images)) == len(of_images)


def reference(store, alt, az):
    """Return a direction of each event in the telescope frame of each image, by astropy."""
    from astropy import units as u
    from astropy.coordinates import AltAz, SkyCoord

    path = f"dl0/image/{CAMERA}"
    event = store.read(f"{path}/event_index")
    pointing = SkyCoord(
        alt=store.read(f"{path}/pointing_alt") * u.deg,
        az=store.read(f"{path}/pointing_az") * u.deg,
        frame=AltAz(),
    )
    target = SkyCoord(alt=alt[event] * u.deg, az=az[event] * u.deg, frame=AltAz())
    lon, lat = pointing.spherical_offsets_to(target)
    return lon.deg, lat.deg


@pytest.fixture(scope="module")
def derived(gamma_store):
    """Return all derived columns of images and events, and the stored ones they are made from."""
    (block,) = read_event_blocks(
        gamma_store,
        [*IMAGE_DERIVED, "hillas_psi", "hillas_fov_lon", "hillas_fov_lat"],
        [*EVENT_DERIVED, *stored_event_columns(gamma_store)],
    )
    return block.images[CAMERA], block.events


def test_stereo_columns_are_those_of_astropy(gamma_store, derived):
    images, events = derived
    valid = events["stereo_is_valid"][images["event"]]
    assert 0 < np.count_nonzero(~valid) < len(valid)
    lon, lat = reference(
        gamma_store, np.nan_to_num(events["stereo_alt"], nan=60), np.nan_to_num(events["stereo_az"])
    )
    lon, lat = lon - images["hillas_fov_lon"], lat - images["hillas_fov_lat"]
    # Turned so that the axis of the image lies along the real axis.
    turned = (lon + 1j * lat) * np.exp(-1j * np.deg2rad(images["hillas_psi"]))
    for name, expected in (
        ("stereo_disp", abs(turned)),
        ("stereo_disp_along", turned.real),
        ("stereo_miss", turned.imag),
    ):
        assert images[name].dtype == np.float32
        np.testing.assert_allclose(images[name], np.where(valid, expected, np.nan), atol=1e-5)


def test_source_is_that_of_astropy(gamma_store, derived):
    images, events = derived
    alt, az = gamma_store.read("simulation/event/true_alt"), events["true_az"]
    shower = images["shower"]
    lon, lat = reference(gamma_store, np.nan_to_num(alt, nan=60), np.nan_to_num(az))
    np.testing.assert_allclose(images["source_fov_lon"][shower], lon[shower], atol=1e-5)
    np.testing.assert_allclose(images["source_fov_lat"][shower], lat[shower], atol=1e-5)
    assert np.ptp(lon[shower]) > 6  # a diffuse source
    # These telescopes point where the array points.
    for name in ("source_fov_lon", "source_fov_lat"):
        of_event = events[name][images["event"]]
        np.testing.assert_allclose(of_event[shower], images[name][shower], atol=1e-6)


def test_core_distance_is_that_of_a_point_and_a_line(gamma_store, derived):
    images, events = derived
    telescopes = gamma_store.read_table("instrument/telescope", ["x", "y", "z"])
    centre = np.array([telescopes[axis].mean() for axis in "xyz"])
    alt, az = np.deg2rad(events["stereo_alt"]), np.deg2rad(events["stereo_az"])
    axis = np.stack([np.cos(alt) * np.cos(az), -np.cos(alt) * np.sin(az), np.sin(alt)], axis=-1)
    core = np.stack([events["stereo_core_x"], events["stereo_core_y"], 0 * alt], axis=-1)
    away = centre - core
    expected = np.linalg.norm(away - np.sum(away * axis, axis=-1)[:, None] * axis, axis=-1)
    valid = events["stereo_is_valid"]
    np.testing.assert_allclose(
        events["stereo_core_distance"], np.where(valid, expected, np.nan), rtol=1e-5
    )
    np.testing.assert_array_equal(
        images["stereo_core_distance"], events["stereo_core_distance"][images["event"]]
    )


def test_geometry_that_is_not_valid_gives_nothing(gamma_store, tmp_path):
    """Whatever the columns hold."""

    def change(root):
        with zarr.config.set({"array.write_empty_chunks": True}):
            root["dl2/event/stereo_is_valid"][:] = False

    (block,) = read_event_blocks(
        changed(gamma_store, tmp_path, change), ["stereo_disp", "stereo_core_distance"], []
    )
    for name in ("stereo_disp", "stereo_core_distance"):
        assert np.all(np.isnan(block.images[CAMERA][name]))


def changed(store, tmp_path, change):
    """Return a copy of a store in which `change` has been at work on the Zarr group."""
    copy = tmp_path / "changed.zarr"
    shutil.copytree(store.path, copy)
    change(zarr.open_group(copy, mode="r+", use_consolidated=False))
    return open_store(copy)


def _swap(root):
    index = root[f"dl1/image/{CAMERA}/event_index"]
    index[:] = index[:][::-1]


def _beyond(root):
    root[f"dl1/image/{CAMERA}/event_index"][-1] = 10**6


def _shorter(root):
    root[f"dl2/image/{CAMERA}/stereo_impact_distance"].resize(7)


def _fewer_events(root):
    root["dl2/event/stereo_h_max"].resize(7)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_swap, "not in the order of their events: make the store again"),
        (_beyond, "refer to event 1000000, but there are .* events: the store is damaged"),
        (_shorter, r"do not have the same number of rows \(dl1/image/ASTRICam [0-9]+, dl2/.* 7\)"),
        (_fewer_events, "has 7 reconstructed or simulated events, but dl0/event has"),
    ],
)
def test_damaged_stores_are_refused(change, told, gamma_store, tmp_path):
    store = changed(gamma_store, tmp_path, change)
    with pytest.raises(AstriError, match=told):
        list(read_event_blocks(store, ["stereo_impact_distance", "stereo_h_max"], []))


def test_an_event_with_too_many_images_is_refused(gamma_store, monkeypatch):
    monkeypatch.setattr(blocks, "IMAGES_PER_BLOCK", 1)
    with pytest.raises(AstriError, match="has more than 1 images of one camera"):
        list(read_event_blocks(gamma_store, [], []))


@pytest.mark.parametrize(
    ("images", "events", "options", "told"),
    [
        (["hillas_girth"], [], {}, "no column hillas_girth of images of ASTRICam"),
        ([], ["hillas_width"], {}, "no column hillas_width of events"),
        ([], [], {"cameras": ["LSTCam"]}, "has no images of LSTCam; it has ASTRICam"),
    ],
)
def test_what_is_not_there_is_named_at_once(images, events, options, told, gamma_store):
    with pytest.raises(AstriError, match=told):
        read_event_blocks(gamma_store, images, events, **options)


def test_stores_without_truth_or_parameters_are_told(gamma_store, tmp_path):
    store = changed(gamma_store, tmp_path, lambda root: root.__delitem__("simulation"))
    with pytest.raises(AstriError, match="no column true_alt, which source_fov_lon is made from"):
        read_event_blocks(store, ["source_fov_lon"], [])
    with pytest.raises(AstriError, match="no column true_energy of events: only simulated"):
        read_event_blocks(store, [], ["true_energy"])
    with pytest.raises(AstriError, match="no image parameters: make them with `astri-gpu process`"):
        read_event_blocks(open_store(gamma_store.path.parent / "dl0.zarr"), [], [])


def test_a_reader_that_stops_leaves_no_thread(gamma_store, monkeypatch):
    monkeypatch.setattr(blocks, "IMAGES_PER_BLOCK", 50)
    before = threading.active_count()
    found = read_event_blocks(gamma_store, ["hillas_width"], [])
    next(found)
    found.close()
    assert threading.active_count() == before
