"""The DL0 files of a run become a store: every count, time and direction is that of the packets."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astri_gpu.calibration.cal1_file import write_cal1
from astri_gpu.config import IngestConfig
from astri_gpu.dl3.sky import REFERENCE_UNIX_S
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.event_building.seb0_file import write_seb0
from astri_gpu.io.dl0_fits import Dl0Options, ingest_dl0
from astri_gpu.io.simtel import IngestOptions
from astri_gpu.stages.ingest import run as run_stage
from astri_gpu.store import open_store
from astri_gpu.store_layout import read_layout
from tests.calibration.made_dl0 import times, write_dl0
from tests.dl0_ingest.made import (
    N_CALIBRATION,
    N_EVENTS,
    N_VARIANCES,
    SECONDS,
    SPLIT,
    START,
    make_run,
)

CAMERA = "ASTRICam"
TEL_IDS = (2, 3, 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "dl0")


@pytest.fixture(scope="module")
def ingested(made, tmp_path_factory):
    """The store of all telescopes with the interleaved events, and the summary."""
    output = tmp_path_factory.mktemp("store") / "run.zarr"
    summary = run_stage(IngestConfig(str(made.folder), str(output), format="dl0_fits"))
    return open_store(output), summary


@pytest.fixture
def copied(made, tmp_path):
    """A folder of links to the files of the run, of which some can be removed."""
    folder = tmp_path / "dl0"
    folder.mkdir()
    for path in made.folder.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def _ingest(folder, output, *, options=None, **given):
    options = options or IngestOptions(calibration_events=False)
    summary = ingest_dl0(folder, output, options, run_options=Dl0Options(**given))
    return open_store(output), summary


def _check_images(store, made, tel_ids=TEL_IDS):
    """Compare every image of a shower with the packet that it came from."""
    events = store.read_table("dl0/event")
    images = store.read_table(f"dl0/image/{CAMERA}")
    members = made.events.members
    showers = events["event_type"] == 32
    wanted = [
        (number, tel_id)
        for number, tel_id in zip(members.event, members.tel_id, strict=True)
        if tel_id in tel_ids
    ]
    of_showers = showers[images["event_index"]]
    number = events["event_id"][images["event_index"]]
    found = list(zip(number[of_showers], images["tel_id"][of_showers], strict=True))
    assert found == wanted
    for row, (event, tel_id) in enumerate(wanted):
        (at,) = np.flatnonzero((members.event == event) & (members.tel_id == tel_id))
        packet = members.row[at]
        columns = made.columns[tel_id, "SCI"]
        np.testing.assert_array_equal(images["adc"][row], columns["adc"][packet])
        np.testing.assert_array_equal(
            images["trigger_pixel"][row], columns["trigger_pixel"][packet]
        )
        assert images["n_trigger_pixels"][row] == columns["n_trigger_pixels"][packet]
        assert images["trigger_time_ns"][row] == members.dt_ns[at]
    assert (np.diff(images["event_index"]) >= 0).all()
    mask = np.zeros((len(showers), len(tel_ids)), dtype=bool)
    mask[images["event_index"], np.searchsorted(tel_ids, images["tel_id"])] = True
    np.testing.assert_array_equal(events["tel_mask"], mask)


def test_every_image_is_that_of_its_packet(ingested, made):
    store, summary = ingested
    _check_images(store, made)
    assert store.attrs["kind"] == "observation"
    assert store.attrs["source"] == "dl0_fits"
    assert store.attrs["data_level"] == "DL0"
    assert store.attrs["obs_id"] == made.run.name.obs_id == 1_000_002
    assert store.attrs["simulation_model"] == "made up"
    assert store.attrs["target"] == "Crab"
    assert (store.attrs["start_s"], store.attrs["stop_s"]) == (START, START + SECONDS)
    assert summary.n_events == N_EVENTS + len(TEL_IDS) * N_CALIBRATION
    assert summary.warnings == ()
    assert summary.facts["good time"] == "40.0 of 40.0 s"
    assert summary.facts["dead time"] == "0.200% of the array"


def test_times_are_exact_to_the_nanosecond(ingested, made):
    store, _ = ingested
    events = store.read_table("dl0/event")
    ours = made.events.events
    first = slice(0, N_EVENTS)
    np.testing.assert_array_equal(events["event_id"][first], np.arange(N_EVENTS))
    np.testing.assert_array_equal(events["time_s"][first], ours.time_s + REFERENCE_UNIX_S)
    np.testing.assert_array_equal(events["time_ns"][first], ours.time_ns)
    assert (events["obs_id"] == 1_000_002).all()


def test_pointing_is_that_of_astropy(ingested, made, horizon):
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    store, _ = ingested
    layout = read_layout(store)
    events = store.read_table("dl0/event")
    seconds = events["time_s"] - REFERENCE_UNIX_S + 1e-9 * events["time_ns"]
    site = (layout.latitude_deg, layout.longitude_deg, layout.altitude_m)
    pointing = SkyCoord(made.run.ra_pnt_deg * u.deg, made.run.dec_pnt_deg * u.deg)
    from astri_gpu.dl3.sky import Site

    looked = pointing.transform_to(horizon(Site(*site), seconds))
    found = SkyCoord(events["array_az"] * u.deg, events["array_alt"] * u.deg)
    there = SkyCoord(looked.az.deg * u.deg, looked.alt.deg * u.deg)
    # The chord of a second of the sky's way, and our own sky.
    assert found.separation(there).arcsec.max() < 0.05
    images = store.read_table(f"dl0/image/{CAMERA}", ["event_index", "pointing_alt"])
    np.testing.assert_allclose(
        images["pointing_alt"], events["array_alt"][images["event_index"]], atol=1e-9
    )


def test_interleaved_events_follow_with_negative_numbers(ingested, made):
    store, _ = ingested
    events = store.read_table("dl0/event")
    images = store.read_table(f"dl0/image/{CAMERA}", ["event_index", "tel_id", "adc"])
    extra = np.flatnonzero(events["event_id"] < 0)
    assert (events["event_id"][extra] == -1 - np.arange(len(extra))).all()
    seconds = events["time_s"][extra] + 1e-9 * events["time_ns"][extra]
    assert (np.diff(seconds) >= 0).all()
    assert sorted(events["event_type"][extra]) == [0] * 6 + [2] * 6
    assert (events["tel_mask"][extra].sum(axis=1) == 1).all()
    for tel_id in TEL_IDS:
        mine = (images["tel_id"] == tel_id) & (events["event_id"][images["event_index"]] < 0)
        # By the telescope's own order of time, which is that of its rows.
        np.testing.assert_array_equal(images["adc"][mine], made.columns[tel_id, "CAL"]["adc"])


def test_constants_are_those_of_telescope_and_time(ingested, made):
    store, _ = ingested
    table = store.read_table(f"monitoring/camera/{CAMERA}")
    images = store.read_table(f"dl0/image/{CAMERA}", ["event_index", "tel_id", "calibration_index"])
    events = store.read_table("dl0/event", ["time_s"])
    index = images["calibration_index"]
    np.testing.assert_array_equal(table["tel_id"][index], images["tel_id"])
    late = events["time_s"][images["event_index"]] - REFERENCE_UNIX_S - START >= SPLIT
    pedestal = table["pedestal"][index, 0, 0]
    np.testing.assert_array_equal(pedestal, 1000 * images["tel_id"] + np.where(late, SPLIT, 0))
    np.testing.assert_array_equal(
        table["pixel_valid"], np.stack([entry.pixel_valid for entry in made.sets])
    )
    assert 0 < late.sum() < len(late)


def test_monitoring_has_what_housekeeping_says(ingested, made):
    store, _ = ingested
    live = store.read_table("monitoring/live_time")
    pointing = store.read_table("monitoring/pointing")
    assert len(live["tel_id"]) == len(pointing["tel_id"]) == 3 * (SECONDS + 1)
    mine = live["tel_id"] == 3
    sent = made.columns[3, "HK"]
    np.testing.assert_array_equal(live["n_events"][mine], sent["n_events"])
    np.testing.assert_allclose(live["dead_time"][mine], 1e-9 * sent["dead_time_ns"])
    np.testing.assert_array_equal(pointing["alt"][mine], sent["pointing_alt_deg"])
    np.testing.assert_array_equal(
        live["time_s"][mine] - REFERENCE_UNIX_S, START + np.arange(SECONDS + 1)
    )
    variance = store.read_table(f"monitoring/variance/{CAMERA}")
    np.testing.assert_array_equal(
        variance["variance"], np.concatenate([made.columns[t, "VAR"]["variance"] for t in TEL_IDS])
    )
    assert len(variance["tel_id"]) == 3 * N_VARIANCES
    assert store.group_attrs(f"monitoring/variance/{CAMERA}")["n_samples"] == 1000
    attrs = store.group_attrs("monitoring")
    assert attrs["dead_time_share"] == pytest.approx(dict.fromkeys("234", 0.002))
    assert attrs["array_dead_time_share"] == pytest.approx(0.002)
    good = store.read_table("monitoring/good_time")
    assert good["start_s"].tolist() == [START + REFERENCE_UNIX_S]
    assert good["stop_s"].tolist() == [START + SECONDS + REFERENCE_UNIX_S]


def test_the_layout_is_that_of_the_headers(ingested):
    store, _ = ingested
    layout = read_layout(store)
    assert layout.tel_id.tolist() == list(TEL_IDS)
    assert layout.x.tolist() == [0.0, 100.0, 200.0]
    assert layout.y.tolist() == [0.0, -50.0, -100.0]
    assert layout.cameras[0].readout.saturation_adc == 4095
    assert layout.latitude_deg == 28.3


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chosen=st.sets(st.sampled_from(TEL_IDS), min_size=1), limit=st.integers(1, 50))
def test_any_telescopes_and_any_number_of_events(made, tmp_path, chosen, limit):
    output = tmp_path / "part.zarr"
    shutil.rmtree(output, ignore_errors=True)
    options = IngestOptions(allowed_telescopes=tuple(sorted(chosen)), max_events=limit)
    store, summary = _ingest(made.folder, output, options=options)
    members = made.events.members
    use = np.isin(members.tel_id, sorted(chosen))
    numbers = np.unique(members.event[use])
    events = store.read_table("dl0/event")
    n_showers = min(limit, len(numbers))
    assert events["event_id"][:n_showers].tolist() == numbers[:n_showers].tolist()
    assert len(events["event_id"]) == min(limit, len(numbers) + len(chosen) * N_CALIBRATION)
    assert (events["event_id"][n_showers:] < 0).all()
    images = store.read_table(f"dl0/image/{CAMERA}", ["event_index", "tel_id", "adc"])
    for row in np.flatnonzero(images["event_index"] < n_showers):
        event = events["event_id"][images["event_index"][row]]
        np.testing.assert_array_equal(images["adc"][row], made.adc(event, images["tel_id"][row]))
    assert summary.n_images == len(images["tel_id"])
    if limit <= len(numbers):
        last = made.events.events.time_s[numbers[limit - 1]]
        assert last <= store.attrs["stop_s"] <= last + 1.1


def test_blocks_do_not_matter(made, ingested, tmp_path, monkeypatch):
    monkeypatch.setattr("astri_gpu.io.dl0_fits_images.BLOCK_IMAGES", 5)
    options = IngestOptions(images_per_chunk=7)
    store, _ = _ingest(made.folder, tmp_path / "small.zarr", options=options, saturation_adc=4095)
    whole = ingested[0]
    for table in ("dl0/event", f"dl0/image/{CAMERA}"):
        for name, values in whole.read_table(table).items():
            np.testing.assert_array_equal(store.read_table(table, [name])[name], values)


@pytest.mark.parametrize(
    ("pattern", "kind", "words"),
    [
        ("*_MA03_*_0201*", AstriError, "has events of the telescopes 3, whose files"),
        ("*_MA03_*_0601*", AstriError, "Telescope 3 .* no housekeeping"),
        ("*_0202*", UsageError, "no file of stereo events .* give events=FILE"),
        ("*_0102*", UsageError, "no file of camera constants .* give constants=FILE"),
        ("*_0201*", AstriError, "There is no DL0 file of kind SCI"),
    ],
)
def test_what_is_missing_is_told(copied, tmp_path, pattern, kind, words):
    for path in copied.glob(pattern):
        path.unlink()
    with pytest.raises(kind, match=words):
        _ingest(copied, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_a_telescope_without_housekeeping_can_be_left_out(copied, made, tmp_path):
    for path in copied.glob("*_MA03_*_0601*"):
        path.unlink()
    options = IngestOptions(on_error="keep", calibration_events=False)
    store, summary = _ingest(copied, tmp_path / "out.zarr", options=options)
    _check_images(store, made, (2, 4))
    assert any("Telescope 3 has no housekeeping" in text for text in summary.warnings)


def test_a_run_without_one_of_its_telescopes_goes_on(copied, made, tmp_path):
    """Its events never came, so the stereo events know nothing of it either."""
    for path in copied.glob("*_MA04_*"):
        path.unlink()
    members = made.events.members
    use = members.tel_id != 4
    kept = np.unique(members.event[use])
    n_tels = np.bincount(members.event[use], minlength=N_EVENTS)[kept]
    parts = {"event": np.searchsorted(kept, members.event[use])}
    fewer = type(members)(*(column[use] for column in members))._replace(**parts)
    events = type(made.events.events)(*(column[kept] for column in made.events.events))._replace(
        number=np.arange(len(kept)), n_tels=n_tels, first=np.cumsum(n_tels) - n_tels
    )
    rejected = type(made.events.rejected)(
        *(column[made.events.rejected.tel_id != 4] for column in made.events.rejected)
    )
    seb0 = tmp_path / "seb0.fits"
    write_seb0(seb0, replace(made.events, events=events, members=fewer, rejected=rejected), {})
    store, summary = _ingest(copied, tmp_path / "out.zarr", events=str(seb0))
    assert read_layout(store).tel_id.tolist() == [2, 3]
    assert summary.n_images == use.sum()
    assert any("there are no events of 4" in text for text in summary.warnings)


@pytest.mark.parametrize("how", ["another event", "beyond the end"])
def test_stereo_events_of_other_files_are_refused(made, tmp_path, how):
    members = made.events.members
    row, counter = members.row.copy(), members.event_counter.copy()
    if how == "another event":
        counter[7] += 1
        words = f"event {counter[7]} in row {row[7]} of .*made from other files"
    else:
        row[7] = 10_000
        words = "row 10000 of .* made from other files"
    path = tmp_path / "seb0.fits"
    wrong = replace(made.events, members=members._replace(row=row, event_counter=counter))
    write_seb0(path, wrong, {})
    with pytest.raises(AstriError, match=words):
        _ingest(made.folder, tmp_path / "out.zarr", events=str(path))
    assert not (tmp_path / "out.zarr").exists()


def test_a_file_of_another_camera_is_refused(copied, made, tmp_path):
    (path,) = copied.glob("*_MA03_*_0201*")
    path.unlink()
    columns = {**times(np.arange(3.0)), "event_type": 32}
    write_dl0(copied, made.run, 3, "SCI", columns)
    with pytest.raises(AstriError, match=r"ADC of .*_MA03_.* has the shape \(2, 128\)"):
        _ingest(copied, tmp_path / "out.zarr")


def test_a_file_without_its_counts_is_refused(copied, tmp_path):
    (path,) = copied.glob("*_MA03_*_0201*")
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data.replace(b"'ADC     '", b"'NOTHING '"))
    with pytest.raises(AstriError, match=r"_MA03_.*ADC"):
        _ingest(copied, tmp_path / "out.zarr")


def test_a_telescope_without_constants_is_refused(made, tmp_path):
    path = tmp_path / "cal1.fits"
    write_cal1(path, [entry for entry in made.sets if entry.tel_id != 3], {})
    given = {"constants": (str(path),)}
    with pytest.raises(AstriError, match=r"Telescope 3 .* has no camera constants .*on_error=keep"):
        _ingest(made.folder, tmp_path / "out.zarr", **given)
    options = IngestOptions(on_error="keep", calibration_events=False)
    store, _ = _ingest(made.folder, tmp_path / "out.zarr", options=options, **given)
    _check_images(store, made, (2, 4))


def test_files_of_another_run_are_refused(made, tmp_path):
    path = tmp_path / "seb0.fits"
    write_seb0(path, made.events, {"OBS_ID": (7_000_001, "another")})
    with pytest.raises(AstriError, match=r"of the run 7000001 .* give files of one run"):
        _ingest(made.folder, tmp_path / "out.zarr", events=str(path))


def test_events_without_pointing_are_kept_and_told(tmp_path):
    """Telescope 3 says nothing for ten seconds, telescope 2 says nonsense for a while."""
    from tests.dl0_ingest.made import described, housekeeping

    full = housekeeping(described())
    silent = {name: np.delete(full[name], np.s_[10:20]) for name in full}
    alt = full["pointing_alt_deg"].copy()
    alt[30:33] = np.nan
    made = make_run(tmp_path / "dl0", hk={3: silent, 2: {"pointing_alt_deg": alt}})
    store, summary = _ingest(made.folder, tmp_path / "out.zarr")
    images = store.read_table(f"dl0/image/{CAMERA}")
    events = store.read_table("dl0/event")
    lost = np.isnan(images["pointing_alt"])
    assert set(images["tel_id"][lost]) == {2, 3}
    only = np.isnan(events["array_alt"])
    assert 0 < only.sum() < lost.sum()
    for event in np.flatnonzero(only):
        assert lost[images["event_index"] == event].all()
    text = " ".join(summary.warnings)
    assert f"{lost.sum()} images have no pointing" in text
    assert f"{only.sum()} of {N_EVENTS} events have none at all" in text
    assert "telescope 3: no housekeeping for 11.0 s" in text
    assert "events are outside the good time" in text
    good = store.read_table("monitoring/good_time")
    assert good["start_s"].tolist() == [START + REFERENCE_UNIX_S + s for s in (0, 20, 33)]


def test_a_telescope_without_any_pointing_is_refused(tmp_path):
    made = make_run(tmp_path / "dl0", hk={3: {"pointing_alt_deg": np.nan}})
    with pytest.raises(AstriError, match=r"Telescope 3 .* no pointing in all of its housekeeping"):
        _ingest(made.folder, tmp_path / "out.zarr")


def test_lost_packets_are_no_good_time(tmp_path):
    broken = make_run(tmp_path / "dl0", lost={4: 50})
    store, summary = _ingest(broken.folder, tmp_path / "out.zarr")
    good = store.read_table("monitoring/good_time")
    assert len(good["start_s"]) == 2
    assert any("packets lost" in text for text in summary.warnings)


def test_options_of_a_run_are_not_for_several(made, tmp_path):
    given = {"format": "dl0_fits", "output": str(tmp_path / "out")}
    with pytest.raises(UsageError, match="events belongs to one run and there are 2 inputs"):
        run_stage(IngestConfig([str(made.folder), str(tmp_path)], events=str(made.seb0), **given))
    with pytest.raises(UsageError, match=r"constants=nowhere\.fits is no file"):
        run_stage(IngestConfig(str(made.folder), constants="nowhere.fits", **given))


def test_info_tells_of_the_run(ingested, capsys):
    from astri_gpu.config import InfoConfig
    from astri_gpu.stages.info import run

    run(InfoConfig(str(ingested[0].path)))
    text = " ".join(capsys.readouterr().out.split())
    assert "target Crab its place RA 83.6330 deg, Dec 22.0140 deg (ICRS)" in text
    assert "good time 40.0 of 40.0 s dead time 0.200%" in text
    assert "made up" in text
