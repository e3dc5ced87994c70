"""From packets to image parameters: a simulated run goes all the way."""

import numpy as np
import pytest

from astri_gpu.config import (
    BackendConfig,
    BuildEventsConfig,
    CalibrateConfig,
    IngestConfig,
    PreprocessConfig,
    ProcessConfig,
)
from astri_gpu.dl3.sky import REFERENCE_UNIX_S
from astri_gpu.io.fits_bulk import MappedTable
from astri_gpu.packets.decode import columns_of, rows_of
from astri_gpu.packets.descriptor import read_descriptor
from astri_gpu.stages import build_events, calibrate, ingest, preprocess, process
from astri_gpu.store import open_store
from tests.made_run import made_run

CAMERA = "ASTRICam"
NS = 1_000_000_000


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """The folder of raw files, the DL0 store and the processed store of one run."""
    top = tmp_path_factory.mktemp("road")
    raw, dl0 = top / "raw", top / "dl0"
    made_run(raw)
    quiet = {"progress": False}
    preprocess.run(PreprocessConfig(str(raw), str(dl0), **quiet))
    build_events.run(BuildEventsConfig(str(dl0), str(top / "seb0.fits"), **quiet))
    calibrate.run(CalibrateConfig(str(dl0), str(top / "cal1.fits"), min_events=10, **quiet))
    given = {"events": str(top / "seb0.fits"), "constants": str(top / "cal1.fits")}
    store = str(top / "run.zarr")
    ingest.run(IngestConfig(str(dl0), store, format="dl0_fits", **given, **quiet))
    backend = BackendConfig(name="cpu")
    process.run(ProcessConfig(store, str(top / "dl2.zarr"), backend=backend, **quiet))
    return raw, open_store(store), open_store(top / "dl2.zarr")


def test_every_packet_becomes_its_image(road):
    raw, store, _ = road
    science = read_descriptor("astri_gpu_v1").types["SCI"]
    images = store.read_table(f"dl0/image/{CAMERA}")
    events = store.read_table("dl0/event")
    shower = (events["event_type"] == 32)[images["event_index"]]
    for number, path in enumerate(sorted(raw.glob("*.raw")), start=1):
        data = np.fromfile(path, np.uint8)
        adc = []
        at = 0
        while at < len(data):
            size = 7 + int.from_bytes(data[at + 4 : at + 6].tobytes())
            if size == science.n_bytes:
                packet = rows_of(science, data[at : at + size][None])
                if packet["packet_id"][0] & 0x7FF == science.apid:
                    adc.append(columns_of(science, packet)["adc"][0])
            at += size
        mine = shower & (images["tel_id"] == number)
        np.testing.assert_array_equal(images["adc"][mine], np.stack(adc))


def test_times_are_those_of_the_showers(road):
    """The mean of clocks is off by some microseconds, and the same for all events."""
    raw, store, _ = road
    (path,) = raw.glob("*_truth.fits")
    with MappedTable(path, "TRUTH") as truth:
        names = ("TEL", "EVT_CTR", "EVENT", "TRUE_NS")
        tel_id, counter, shower, true_ns = (truth.read(name).astype(np.int64) for name in names)
    events = store.read_table("dl0/event")
    images = store.read_table(f"dl0/image/{CAMERA}", ["event_index", "tel_id"])
    since = events["time_s"] - REFERENCE_UNIX_S - int(store.attrs["start_s"])
    ns = since * NS + events["time_ns"]
    late, of_event = [], {}
    for number in np.unique(tel_id):
        mine = np.flatnonzero(tel_id == number)
        mine = mine[np.argsort(counter[mine])]
        event = images["event_index"][images["tel_id"] == number]
        event = event[events["event_type"][event] == 32]
        late.append(ns[event] - true_ns[mine])
        for found, true in zip(event.tolist(), shower[mine].tolist(), strict=True):
            of_event.setdefault(found, set()).add(true)
    assert np.ptp(np.concatenate(late)) < 5_000
    assert np.mean([len(true) == 1 for true in of_event.values()]) > 0.99


def test_monitoring_travels_along(road):
    _, store, processed = road
    assert processed.attrs["target"] == store.attrs["target"] == "Crab"
    for table in ("pointing", "live_time", "good_time", f"variance/{CAMERA}"):
        before = store.read_table(f"monitoring/{table}")
        after = processed.read_table(f"monitoring/{table}")
        for name, values in before.items():
            np.testing.assert_array_equal(after[name], values)
    attrs = store.group_attrs("monitoring")
    assert processed.group_attrs("monitoring") == attrs
    assert attrs["good_time_s"] == pytest.approx(attrs["run_time_s"])
    assert 0 < attrs["array_dead_time_share"] < 0.01
    assert "dl2/event" in processed
    assert f"dl0/image/{CAMERA}/adc" not in processed
