"""Exported files in the hands of ctapipe's readers."""

import warnings

import numpy as np
import pytest

from astri_gpu.io import ctapipe_model_dl2 as dl2
from astri_gpu.io.ctapipe_export import export_store
from astri_gpu.store import open_store
from astri_gpu.store_layout import read_layout

pytestmark = [
    pytest.mark.peers,
    # Warnings of ctapipe, scikit-learn and astropy are theirs; what ours would cause is asked for.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def _peers(peers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # ctapipe's tools write their provenance log here


@pytest.fixture(scope="module")
def gamma(exported):
    return exported["gamma"].file


@pytest.fixture(scope="module")
def store(exported):
    return open_store(exported["gamma"].dl2)


def test_table_loader_reads_all_events(gamma, store):
    from ctapipe.io import TableLoader

    keep = store.read("dl0/event/event_id") >= 0
    with TableLoader(gamma) as loader:
        events = loader.read_subarray_events(dl2=True, simulated=True, observation_info=True)
        parts = [part.data for part in loader.read_subarray_events_chunked(50)]
        assert loader.read_shower_distribution()["n_entries"].sum() == 150
        assert loader.read_simulation_configuration()["n_showers"][0] == 150
    assert len(events) == sum(map(len, parts)) == np.count_nonzero(keep)
    for theirs, ours in (
        ("event_id", "dl0/event/event_id"),
        ("true_energy", "simulation/event/true_energy"),
        ("HillasReconstructor_alt", "dl2/event/stereo_alt"),
        ("HillasReconstructor_core_x", "dl2/event/stereo_core_x"),
        ("HillasReconstructor_is_valid", "dl2/event/stereo_is_valid"),
        ("subarray_pointing_lat", "dl0/event/array_alt"),
    ):
        np.testing.assert_array_equal(np.asarray(events[theirs]), store.read(ours)[keep])
    assert events["true_energy"].unit == "TeV"
    assert events["HillasReconstructor_alt"].unit == "deg"
    assert set(events["subarray_pointing_frame"].tolist()) == {0}
    time_s, time_ns = (store.read(f"dl0/event/{name}")[keep] for name in ("time_s", "time_ns"))
    np.testing.assert_allclose(events["time"].utc.unix, time_s + 1e-9 * time_ns, rtol=0, atol=1e-6)


def test_table_loader_reads_all_telescopes(gamma, store):
    from ctapipe.io import TableLoader
    from ctapipe.io.tableloader import IndexNotMatching

    everything = dict.fromkeys(
        (
            "dl1_images",
            "dl1_parameters",
            "dl2",
            "simulated",
            "true_images",
            "true_parameters",
            "instrument",
            "observation_info",
            "pointing",
        ),
        True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", IndexNotMatching)
        with TableLoader(gamma) as loader:
            rows = loader.read_telescope_events(**everything)
            part = loader.read_telescope_events(start=20, stop=40, **everything)
            assert loader.subarray.tel[1].camera.geometry.n_pixels == 2368
    event_id = store.read("dl0/event/event_id")
    n_images = 0
    for camera in store.cameras():
        path = f"dl1/image/{camera}"
        events = event_id[store.read(f"{path}/event_index")]
        keys = {
            key: row
            for row, key in enumerate(zip(events, store.read(f"{path}/tel_id"), strict=True))
            if key[0] >= 0
        }
        n_images += len(keys)
        order = [keys[key] for key in zip(rows["event_id"], rows["tel_id"], strict=True)]
        for theirs, ours in (
            ("image", "charge"),
            ("image_mask", "mask"),
            ("hillas_length", "hillas_length"),
            ("morphology_n_islands", "morphology_n_islands"),
        ):
            np.testing.assert_array_equal(
                np.asarray(rows[theirs]), store.read(f"{path}/{ours}")[order]
            )
        truth = store.read(f"simulation/image/{camera}/true_image")[order]
        np.testing.assert_array_equal(rows["true_image"], truth)
        impact = store.read(f"dl2/image/{camera}/stereo_impact_distance")[order]
        np.testing.assert_array_equal(
            np.asarray(rows[f"{dl2.ALGORITHM}_tel_impact_distance"]), impact
        )
    assert len(rows) == n_images
    assert 0 < len(part) < len(rows)
    assert np.allclose(np.rad2deg(np.asarray(rows["telescope_pointing_altitude"])), 70)


def test_the_instrument_is_the_same(gamma, store):
    from ctapipe.instrument import SubarrayDescription

    theirs, ours = SubarrayDescription.from_hdf(gamma), read_layout(store)
    assert theirs.name == ours.name
    np.testing.assert_array_equal(theirs.tel_ids, ours.tel_id)
    position = theirs.tel_coords.cartesian.xyz.to_value("m")
    np.testing.assert_array_equal(position, [ours.x, ours.y, ours.z])
    place = theirs.reference_location.geodetic
    assert place.lat.deg == pytest.approx(ours.latitude_deg, abs=1e-9)
    assert place.lon.deg == pytest.approx(ours.longitude_deg, abs=1e-9)
    assert place.height.to_value("m") == pytest.approx(ours.altitude_m, abs=1e-3)
    telescope, camera = theirs.tel[1], ours.cameras[0]
    assert str(telescope) == "SST_ASTRI_ASTRICam"
    assert telescope.optics.reflector_shape.name == "SCHWARZSCHILD_COUDER"
    assert telescope.optics.effective_focal_length.to_value("m") == pytest.approx(
        camera.optics.effective_focal_length_m
    )
    pixels = telescope.camera.geometry
    np.testing.assert_array_equal(pixels.pix_x.to_value("m"), camera.geometry.pix_x)
    listed = [row[row >= 0] for row in camera.geometry.neighbours]
    for pixel, neighbours in enumerate(listed):
        assert set(pixels.neighbors[pixel]) == set(neighbours.tolist())
    readout = telescope.camera.readout
    assert (readout.n_channels, readout.n_samples) == (2, 1)
    np.testing.assert_array_equal(readout.reference_pulse_shape, camera.readout.reference_pulse)


def test_event_source(gamma, store):
    from ctapipe.containers import EventType
    from ctapipe.io import EventSource

    with EventSource(gamma) as source:
        assert type(source).__name__ == "HDF5EventSource"
        assert {level.name for level in source.datalevels} == {
            "DL1_IMAGES",
            "DL1_PARAMETERS",
            "DL2",
        }
        assert source.is_simulation
        n_images = 0
        for event in source:
            assert event.trigger.event_type is EventType.SUBARRAY
            assert event.simulation.shower.energy.to_value("TeV") > 0
            assert dl2.ALGORITHM in event.dl2.stereo.geometry
            assert set(event.dl1.tel) == set(event.trigger.tels_with_trigger)
            n_images += len(event.dl1.tel)
            for tel_id, dl1 in event.dl1.tel.items():
                assert dl1.image.shape == (2368,)
                assert event.simulation.tel[tel_id].true_image.sum() >= 0
                assert event.monitoring.tel[tel_id].pointing.altitude.to_value("deg") == 70
    kept = store.read("dl0/event/event_id")[store.read("dl0/image/ASTRICam/event_index")] >= 0
    assert n_images == np.count_nonzero(kept)


@pytest.mark.parametrize("level", ["images", "parameters"])
def test_files_without_part_of_the_data_are_read(exported, level, tmp_path):
    """No true images, or no images at all: ctapipe's event source wants every table it opens."""
    from ctapipe.io import EventSource

    path = tmp_path / "a.h5"
    store = exported["gamma"].dl2 if level == "images" else exported["bare"].dl2
    if level == "images":
        store = without(store, tmp_path / "without.zarr", "true_image")
    export_store(store, path)
    with EventSource(path) as source:
        found = {item.name for item in source.datalevels}
        assert found == {"DL1_PARAMETERS", "DL2"} | ({"DL1_IMAGES"} if level == "images" else set())
        for event in source:
            for simulated in event.simulation.tel.values():
                image = simulated.true_image
                assert image is None if level != "images" else (image == -1).all()
        assert event.count > 0


def without(store, copy, name):
    """Return a copy of a store that lacks one array of simulation/image."""
    import shutil

    shutil.copytree(store, copy)
    shutil.rmtree(copy / "simulation" / "image" / "ASTRICam" / name)
    return copy


def test_a_store_without_simulation_is_an_observation(exported, tmp_path):
    import shutil

    from ctapipe.io import EventSource

    copy = tmp_path / "observed.zarr"
    shutil.copytree(exported["bare"].dl2, copy)
    shutil.rmtree(copy / "simulation")
    export_store(copy, tmp_path / "a.h5")
    with EventSource(tmp_path / "a.h5") as source:
        assert not source.is_simulation
        assert sum(1 for _ in source) == 10
