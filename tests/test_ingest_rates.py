"""The benchmark of the ingest: long files made from short ones, and all its figures."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from astri_gpu.io.simtel import IngestOptions, ingest_file
from astri_gpu.io.simtel_file import EventReader

FILES = [
    ("gct_checs_muons.simtel.zst", 20),
    ("prod4_pixelsettings_v3.gz", 10),
    ("calib_events.simtel.gz", 7),
    ("test_lasercal_v3.simtel.gz", 10),  # truncated: the long one ends between two objects
]


@pytest.fixture
def rates(monkeypatch):
    """Return the module; the benchmarks are no installed package."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).resolve().parents[1]), *sys.path])
    return importlib.import_module("benchmarks.ingest_rates")


@pytest.mark.parametrize(("name", "n_images"), FILES)
def test_long_file(simtel, rates, tmp_path, name, n_images):
    path = tmp_path / name
    rates.long_file(simtel(name), path, 3 * n_images - 1)
    with simtel(name).open("rb") as a, path.open("rb") as b:
        assert a.read(2) == b.read(2)  # packed in the same way
    with EventReader(path, (), True) as reader:
        times = [event["trigger_information"]["cpu_time"] for event in reader]
    n_events = len(times) // 3
    assert times == 3 * times[:n_events]
    summary = ingest_file(path, tmp_path / "a.zarr", IngestOptions(on_error="keep"))
    assert (summary.n_events, summary.n_images) == (3 * n_events, 3 * n_images)


@pytest.mark.peers
def test_figures(simtel, rates, peers):
    found = rates.measure_ingest([simtel(FILES[0][0])], rounds=1, n_images=0, n_copies=0)
    assert json.loads(json.dumps(found)) == found
    assert found["processes"] is None
    (entry,) = found["files"]
    assert (entry["file"], entry["n_images"]) == (FILES[0][0], 20)
    assert set(entry["images_per_s"]) == {"ingest", "reading", "eventio", "unpacking", rates.PEER}
    assert entry["ratio"] == entry["images_per_s"]["ingest"] / entry["images_per_s"][rates.PEER]
    # One sample takes a byte at least: 2048 pixels of 128 samples.
    assert entry["bytes_per_image"]["unpacked"] > 2048 * 128 > entry["bytes_per_image"]["packed"]
