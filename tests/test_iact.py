"""CORSIKA IACT files: reading, bad files in one sentence, their light in our telescopes."""

import gzip
import importlib
import math
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astri_gpu.config import compose
from astri_gpu.config_simulation import CameraConfig, OpticsConfig, SimulateConfig, ViewConfig
from astri_gpu.errors import AstriError
from astri_gpu.io.iact import IactReader, primary_id
from astri_gpu.kernels.simulation_types import SPEED_OF_LIGHT
from astri_gpu.simulation.corsika import simulate_corsika
from astri_gpu.simulation.corsika_light import MeanEfficiency, collect_light
from astri_gpu.simulation.frame import ShowerFrame
from astri_gpu.stages import simulate
from astri_gpu.store import open_store

REUSED = "3_gammas_reuse_5.dat"
INCLINED = "5_gamma_2_telescopes_reuse_2_split_always.zst"
PROTON = "proton_500GeV_iactext.eventio.gz"
SENSITIVE = CameraConfig(trigger_pixels=2, trigger_threshold_pe=3.0)


@pytest.fixture(scope="module")
def iact(shared_data):
    """Return a function from a file name to the path of a real CORSIKA file."""
    return lambda name: shared_data / "corsika" / name


@pytest.fixture(scope="module")
def events(iact):
    """Return the run and the events of each file."""
    found = {}
    for name in (REUSED, INCLINED, PROTON):
        with IactReader(iact(name)) as reader:
            found[name] = reader.run, list(reader)
    return found


def test_run_headers(events):
    run, _ = events[REUSED]
    assert (run.observation_level_m, run.n_showers, run.scatter_m) == (2200, 3, 200)
    assert (run.energy_min_tev, run.energy_max_tev, run.spectral_index) == (0.1, 0.2, 0)
    assert run.position.tolist() == [[0, 0, 5]]
    assert run.radius.tolist() == [5]
    assert "MAGNET 30.3 24.1" in run.input_card
    run, _ = events[INCLINED]
    assert run.position.tolist() == [[0, 0, 4], [100, 0, 4]]
    assert run.corsika_version == pytest.approx(7.741)


def test_event_headers(events):
    run, found = events[REUSED]
    assert [(event.shower, event.use) for event in found] == [
        (shower, use) for shower in (1, 2, 3) for use in (1, 2, 3, 4, 5)
    ]
    first = found[0]
    assert first.true_energy == pytest.approx(0.1657419)
    assert (first.true_primary_id, first.n_uses, first.true_alt) == (0, 5, 90)
    assert first.first_interaction_height == pytest.approx(27259.28)
    assert (first.core_x, first.core_y) == pytest.approx((4.0558, 31.0116), abs=1e-3)
    assert max(math.hypot(event.core_x, event.core_y) for event in found) < run.scatter_m
    assert (first.wavelength_min_nm, first.wavelength_max_nm) == (290, 700)
    _, found = events[PROTON]
    assert len(found) == 1
    assert (found[0].true_primary_id, found[0].true_energy) == (101, 0.5)
    assert len(found[0].bunches[0].x) == 4270  # without the emitters between them


def test_primary_numbers():
    assert [primary_id(number) for number in (1, 3, 2, 6, 14, 402, 5626, 9)] == [
        0, 1, -1, 2, 101, 402, 5626, -1,
    ]  # fmt: skip


def test_bunches_hit_the_sphere_of_their_telescope(events):
    for run, found in events.values():
        for event in found:
            for radius, bunches in zip(run.radius, event.bunches, strict=True):
                place = np.stack([bunches.x, bunches.y, np.zeros_like(bunches.x)])
                across = np.hypot(bunches.flight_x, bunches.flight_y)
                flight = np.stack([bunches.flight_x, bunches.flight_y, -np.sqrt(1 - across**2)])
                along = (place * flight).sum(axis=0)
                distance = np.sqrt((place**2).sum(axis=0) - along**2)
                assert distance.max() < radius * 1.001
                assert distance.max() > 0.9 * radius


def test_photons_fly_with_the_primary_and_away_from_the_core(events):
    for name, (run, found) in events.items():
        for event in found:
            frame = ShowerFrame(event.true_alt, event.true_az)
            for place, bunches in zip(run.position, event.bunches, strict=True):
                flight = np.array([bunches.flight_x.mean(), bunches.flight_y.mean()])
                away = flight + frame.axes[2][:2]
                assert np.hypot(*away) < 0.04, name  # rad: twice the Cherenkov angle
                offset = place[:2] - (event.core_x, event.core_y)
                if np.hypot(*offset) > 40 and name != REUSED:
                    assert away @ offset > 0
                    # On the line to the core, as well as a single shower shows it.
                    assert abs(away[0] * offset[1] - away[1] * offset[0]) < 0.3 * (away @ offset)


def test_times_follow_the_front_of_the_primary(events):
    run, found = events[INCLINED]
    for event in found:
        n = ShowerFrame(event.true_alt, event.true_az).axes[2]
        for place, bunches in zip(run.position, event.bunches, strict=True):
            offset = place - (event.core_x, event.core_y, 0)
            late = np.median(bunches.time) + (offset @ n) / SPEED_OF_LIGHT
            assert -1 < late < 12  # ns: what air and way add


def test_wavelengths_are_those_of_cherenkov_light(events):
    _, found = events[REUSED]
    wavelength = np.concatenate([event.bunches[0].wavelength for event in found])
    share = (1 / 290 - 1 / wavelength) / (1 / 290 - 1 / 700)
    assert abs(share.mean() - 0.5) < 4 / math.sqrt(12 * len(share))
    assert all((event.bunches[0].wavelength == 0).all() for event in events[INCLINED][1])


def refused(path, match):
    """Check that `simulate` refuses a file in one sentence and leaves nothing behind."""
    output = path.parent / "refused.zarr"
    config = SimulateConfig(source="corsika", input=str(path), output=str(output))
    with pytest.raises(AstriError, match=match) as caught:
        simulate_corsika(config)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert text.endswith(".")
    assert not output.exists()
    assert not output.with_name("refused.zarr.partial").exists()


@pytest.mark.parametrize(
    ("part", "match"),
    [
        (0.0, "is empty"),
        (1e-5, "not an EventIO file"),
        (0.002, "truncated before its first event"),
        (0.01, "truncated after 0 complete events"),
        (0.5, "truncated after 5 complete events"),
        (0.99, "truncated after 10 complete events"),
        (0.99998, "truncated after 15 complete events"),
    ],
)
def test_truncated_files(part, match, iact, tmp_path):
    data = iact(REUSED).read_bytes()
    path = tmp_path / "cut.dat"
    path.write_bytes(data[: int(part * len(data))])
    refused(path, match)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch") / "odd.dat"


@given(part=st.floats(0, 1, exclude_max=True))
@settings(max_examples=100, deadline=None)
def test_a_cut_at_any_byte_is_one_sentence(iact, events, scratch, part):
    data = iact(REUSED).read_bytes()
    scratch.write_bytes(data[: int(part * len(data))])
    found = []
    with (
        pytest.raises(AstriError, match=r"odd\.dat .*\.$") as caught,
        IactReader(scratch) as reader,
    ):
        found.extend(reader)
    assert "\n" not in str(caught.value)
    complete = [event.core_x for event in events[REUSED][1]][: len(found)]
    assert [event.core_x for event in found] == complete


@given(place=st.integers(0, 3000) | st.integers(0, 376_023), flip=st.integers(1, 255))
@example(place=64, flip=255)
@settings(max_examples=150, deadline=None)
def test_an_odd_byte_is_read_or_one_sentence(iact, scratch, place, flip):
    data, sentence = bytearray(iact(REUSED).read_bytes()), "."
    data[place] ^= flip
    scratch.write_bytes(data)
    try:
        with IactReader(scratch) as reader:
            assert all(np.isfinite(event.bunches[0].x).all() for event in reader)
    except AstriError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize("name", [INCLINED, PROTON])
def test_truncated_packed_files(name, iact, tmp_path):
    data = iact(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) // 2])
    refused(path, "is (truncated|damaged)|cannot be unpacked")


def test_damaged_block_in_a_packed_file(iact, tmp_path):
    data = bytearray(iact(PROTON).read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / PROTON
    path.write_bytes(data)
    refused(path, "is (truncated|damaged)|cannot be unpacked")


def test_files_that_are_no_iact_files(simtel, iact, tmp_path):
    path = tmp_path / "text.dat"
    path.write_text("TELFIL")
    refused(path, "not an EventIO file")
    path = tmp_path / "missing.dat"
    refused(path, "cannot be read")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "is a directory")
    path = tmp_path / "simtel.zst"
    path.write_bytes(simtel("gct_checs_muons.simtel.zst").read_bytes())
    refused(path, "no CORSIKA IACT file")


def test_file_without_telescopes(iact, tmp_path):
    from eventio import EventIOFile

    parts, start = [], 0
    data = iact(REUSED).read_bytes()
    with EventIOFile(iact(REUSED)) as file:
        for item in file:
            stop = file._next_header_pos
            parts.append([item.header.type, data[start:stop]])
            start = stop
    definition = next(part for part in parts if part[0] == 1201)
    header = bytearray(definition[1][:16])
    header[12:16] = struct.pack("<I", 4)  # what follows is the number of telescopes
    definition[1] = bytes(header) + struct.pack("<i", 0)
    path = tmp_path / "none.dat"
    path.write_bytes(b"".join(part[1] for part in parts))
    refused(path, "no telescopes")


def test_light_that_corsika_thinned_already(iact, tmp_path):
    data = iact(REUSED).read_bytes()
    assert data.count(b"CWAVLG 290 700") == 1
    path = tmp_path / "thinned.dat"
    path.write_bytes(data.replace(b"CWAVLG 290 700", b"CERQEF T T F  "))
    refused(path, "holds photo-electrons")


def test_mirror_larger_than_the_sphere(iact, tmp_path):
    path = tmp_path / REUSED
    path.write_bytes(iact(REUSED).read_bytes())
    output = str(tmp_path / "out.zarr")
    config = SimulateConfig(
        source="corsika", input=str(path), output=output, optics=OpticsConfig(mirror_radius_m=6.0)
    )
    with pytest.raises(AstriError, match="light is missing"):
        simulate_corsika(config)
    assert not Path(output).exists()


@pytest.fixture(scope="module")
def store(iact, tmp_path_factory):
    """Return the store of the inclined showers, with a sensitive trigger."""
    output = tmp_path_factory.mktemp("corsika") / "inclined.zarr"
    config = SimulateConfig(
        source="corsika", input=str(iact(INCLINED)), output=str(output), camera=SENSITIVE
    )
    summary = simulate_corsika(config)
    assert (summary.n_showers, summary.n_thrown) == (5, 10)
    return open_store(output)


def test_store_of_corsika_light(store, events):
    assert store.attrs["kind"] == "gamma"
    assert store.attrs["source"] == INCLINED
    assert store.attrs["truncated"] is False
    assert "CORSIKA 7.741" in store.attrs["simulation_model"]
    assert store.attrs["provenance"]["inputs"][0]["checksum"].startswith("sha256:")
    header = store.group_attrs("simulation")
    assert (header["n_showers"], header["shower_reuse"], header["prod_site_alt"]) == (5, 2, 4400)
    assert header["energy_range_max"] == pytest.approx(0.08)
    assert store.read("simulation/thrown/histogram").sum() == 10
    assert store.read("instrument/telescope/x").tolist() == [0, 100]
    alt, az = (store.read(f"dl0/event/array_{name}") for name in ("alt", "az"))
    np.testing.assert_allclose(alt, 70, atol=1e-4)
    np.testing.assert_allclose((az + 180) % 360, 180, atol=1e-3)
    truth = store.read_table("simulation/event")
    of_event = {(event.shower, event.use): event for event in events[INCLINED][1]}
    for row, event_id in enumerate(store.read("dl0/event/event_id")):
        shower, use = divmod(int(event_id) - 1, 2)
        event = of_event[shower, use + 1]
        assert truth["shower_id"][row] == event.shower
        assert truth["true_core_x"][row] == pytest.approx(event.core_x)
        assert truth["true_energy"][row] == pytest.approx(0.08)
        assert truth["true_h_first_int"][row] == pytest.approx(event.first_interaction_height)
    distance = store.read("simulation/image/ASTRICam/true_impact_distance")
    second = store.read("simulation/image/ASTRICam/tel_id") == 2
    np.testing.assert_allclose(distance[second], 93, atol=2)
    assert distance[~second].max() < 3


def test_images_are_as_bright_as_the_light_says(events, iact, tmp_path):
    """The camera accepts what `collect_light` hands on, up to gaps, PSF and vignetting."""
    run, found = events[PROTON]
    output = tmp_path / "proton.zarr"
    config = SimulateConfig(
        source="corsika", input=str(iact(PROTON)), output=str(output), camera=SENSITIVE
    )
    config.atmosphere.observation_level_m = run.observation_level_m
    frame = ShowerFrame(found[0].true_alt, found[0].true_az)
    limits = found[0].wavelength_min_nm, found[0].wavelength_max_nm
    efficiency = MeanEfficiency(config, math.sin(math.radians(frame.alt)), limits)
    bunches = found[0].bunches[0]
    n = [
        len(collect_light(bunches, efficiency, frame, 2.15, counter=(1, 0), seed=seed).time)
        for seed in range(1, 41)
    ]
    inside = np.hypot(bunches.x, bunches.y) < 2.15
    mean = (bunches.photons * efficiency(bunches.wavelength, bunches.emission_height))[inside].sum()
    assert abs(np.mean(n) - mean) < 4 * math.sqrt(mean / len(n)) + 0.02 * mean
    simulate_corsika(config)
    (seen,) = open_store(output).read("simulation/image/ASTRICam/true_image_sum")
    lost = 1 / 1.1 * 0.75  # headroom of the efficiency, gaps between pixels and modules
    assert abs(seen - lost * mean) < 4 * math.sqrt(mean)


def test_backends_draw_the_same_images(store, iact, tmp_path):
    output = tmp_path / "numpy.zarr"
    options = ["source=corsika", f"input='{iact(INCLINED)}'", f"output='{output}'"]
    trigger = ["camera.trigger_pixels=2", "camera.trigger_threshold_pe=3", "progress=false"]
    summary = simulate.run(compose("simulate", [*options, *trigger, "backend=numpy"]))
    assert "5 showers (10 uses)" in summary.line
    found = open_store(output)
    for name in ("dl0/image/ASTRICam/adc", "dl0/image/ASTRICam/tel_id", "dl0/event/event_id"):
        np.testing.assert_array_equal(found.read(name), store.read(name))


def test_pointing_can_be_chosen(iact, tmp_path):
    output = tmp_path / "out.zarr"
    config = SimulateConfig(
        source="corsika",
        input=str(iact(INCLINED)),
        output=str(output),
        camera=SENSITIVE,
        view=ViewConfig(zenith_deg=20.5, azimuth_deg=0.0),
        true_images=True,
    )
    simulate_corsika(config)
    store = open_store(output)
    assert store.read("dl0/event/array_alt")[0] == 69.5
    x = store.read("instrument/camera/ASTRICam/pix_x")
    light = store.read("simulation/image/ASTRICam/true_image").astype(float)
    near = store.read("simulation/image/ASTRICam/true_impact_distance") < 5
    centre = np.rad2deg((light[near] @ x / light[near].sum(axis=1)) / 2.15)
    # A shower that is 0.5 deg higher than the pointing, seen from its axis.
    assert abs(np.median(centre) - 0.5) < 0.3


def test_gzip_of_a_plain_file_reads_the_same(iact, events, tmp_path):
    path = tmp_path / "packed.gz"
    path.write_bytes(gzip.compress(iact(REUSED).read_bytes()))
    with IactReader(path) as reader:
        again = list(reader)
    assert [event.true_energy for event in again] == [e.true_energy for e in events[REUSED][1]]


@pytest.fixture(scope="module")
def comparison():
    """Return the module of the benchmark that compares showers; it is not installed."""
    root = str(Path(__file__).resolve().parents[1])
    sys.path.insert(0, root)
    try:
        yield importlib.import_module("benchmarks.corsika")
    finally:
        sys.path.remove(root)


def test_light_on_the_ground_and_emission_depth(comparison, iact):
    """Averages of few showers, whose own scatter is 15 to 20 %, agree within 30 %."""
    reused = comparison.compare_light(iact(REUSED), tables="draft")
    inclined = comparison.compare_light(iact(INCLINED), tables="draft")
    near, far = ([p for p in inclined if (p.distance_m > 50) == is_far] for is_far in (False, True))
    for group, n_telescopes in ((reused, 15), (inclined, 20), (near, 10), (far, 10)):
        found = comparison.average(group)
        assert found.n_telescopes == n_telescopes
        for theirs, ours in (found.density, found.depth):
            assert 0.7 < ours / theirs < 1.3
