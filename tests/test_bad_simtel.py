"""Damaged sim_telarray files: one sentence each, nothing left behind, complete events kept on wish.

The files are made from a real one by cutting, dropping and rewriting its EventIO objects.
"""

import bz2
import gzip
import lzma
import os
import struct

import numpy as np
import pytest
import zstandard

from astri_gpu.errors import AstriError
from astri_gpu.io.simtel import IngestOptions, ingest_file
from astri_gpu.store import open_store

HISTOGRAMS, DISABLED, ARRAY_EVENT = 100, 2005, 2010
MC_EVENT, MONITORING, LASER, TRIGGER, SAMPLES = 2021, 2022, 2023, 2009, 2013
KEEP = IngestOptions(on_error="keep")


@pytest.fixture(scope="session")
def raw(simtel):
    """Return the unpacked bytes of a real file with 20 events of one telescope."""
    with simtel("gct_checs_muons.simtel.zst").open("rb") as stream:
        return zstandard.ZstdDecompressor().stream_reader(stream).read()


@pytest.fixture(scope="session")
def objects(raw, tmp_path_factory):
    """Return its top-level objects as (type, bytes)."""
    from eventio import EventIOFile

    path = tmp_path_factory.mktemp("raw") / "raw.simtel"
    path.write_bytes(raw)
    parts, start = [], 0
    with EventIOFile(path) as file:
        for item in file:
            stop = file._next_header_pos
            parts.append((item.header.type, raw[start:stop]))
            start = stop
    assert b"".join(data for _, data in parts) == raw
    return parts


@pytest.fixture
def write(tmp_path):
    """Return a function that writes bytes or objects to a file and returns its path."""

    def save(content, name="bad.simtel"):
        if not isinstance(content, bytes):
            content = b"".join(data for _, data in content)
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return save


def refused(path, match, options=KEEP):
    """Check that `path` is refused with one sentence that names it, and that nothing is left."""
    output = path.parent / "out.zarr"
    with pytest.raises(AstriError, match=match) as caught:
        ingest_file(path, output, options)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert text.endswith(".")
    assert not output.exists()
    assert not output.with_name("out.zarr.partial").exists()


def kept(path, options=KEEP):
    output = path.parent / "out.zarr"
    return ingest_file(path, output, options), open_store(output)


def replace_floats(data, old, new):
    """Return an object with one float32 array in it replaced by another."""
    old, new = np.ascontiguousarray(old, "<f4"), np.ascontiguousarray(new, "<f4")
    assert data.count(old.tobytes()) == 1
    return data.replace(old.tobytes(), new.tobytes())


def change(objects, kind, function):
    return [(item, function(data) if item == kind else data) for item, data in objects]


def without(objects, *kinds):
    return [(item, data) for item, data in objects if item not in kinds]


def constants(path):
    from eventio import SimTelFile

    with SimTelFile(path) as file:
        event = next(iter(file))
        return event["camera_monitorings"][1], event["laser_calibrations"][1]


def test_the_rewritten_file_is_good(objects, write):
    summary, store = kept(write(objects), IngestOptions())
    assert (summary.n_events, summary.warnings, summary.truncated) == (20, [], False)
    assert store.attrs["truncated"] is False


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty: copy it again"),
        (b"SIMPLE  =                    T", "is not an EventIO file"),
        (gzip.compress(b"some text"), "is not an EventIO file"),
        (bz2.compress(b"x" * 100), "compressed with bzip2, which cannot be read here"),
        (lzma.compress(b"x" * 100), "compressed with xz"),
        (b"PK\x03\x04" + bytes(20), "compressed with zip"),
        (b"\x1f\x8b" + bytes(20), "cannot be unpacked"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 20, "cannot be unpacked"),
    ],
    ids=["empty", "fits", "gzipped-text", "bz2", "xz", "zip", "bad-gzip", "bad-zstd"],
)
def test_what_is_no_simtel_file(write, content, match):
    refused(write(content), match)


def test_missing_file_and_directory(tmp_path):
    refused(tmp_path / "nowhere.simtel", r"cannot be read \(No such file")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "is a directory")


@pytest.mark.parametrize("pack", ["plain", "gzip", "zstd"])
def test_truncated_in_the_middle_of_an_event(raw, objects, write, pack):
    starts = np.cumsum([0, *(len(data) for _, data in objects)])
    events = [
        int(start) for start, (item, _) in zip(starts, objects, strict=False) if item == ARRAY_EVENT
    ]
    cut = events[5] + 1000
    if pack == "plain":
        path = write(raw[:cut])
    elif pack == "gzip":
        whole = gzip.compress(raw, compresslevel=1)
        path = write(whole[: len(whole) // 2], "bad.simtel.gz")
    else:
        whole = zstandard.ZstdCompressor(level=1).compress(raw)
        path = write(whole[: len(whole) // 2], "bad.simtel.zst")
    refused(path, r"after event \d+: copy it again, or set on_error=keep", IngestOptions())
    summary, store = kept(path)
    assert summary.truncated
    assert store.attrs["truncated"] is True
    assert store.group_attrs("simulation")["partial"] is True
    assert 0 < summary.n_events < 20
    if pack == "plain":
        assert summary.n_events == 5
    assert len(summary.warnings) == 1
    assert f"its {summary.n_events} complete events were kept" in summary.warnings[0]
    assert store.n_rows("dl0/image/CHEC") == summary.n_images == summary.n_events


def test_truncated_between_two_objects(objects, write):
    last = max(index for index, (item, _) in enumerate(objects) if item == ARRAY_EVENT)
    path = write(objects[:last])
    refused(path, "ends without the closing histograms", IngestOptions())
    summary, _ = kept(path)
    assert (summary.n_events, summary.truncated) == (19, True)


def test_truncated_in_the_header(raw, write):
    refused(write(raw[: len(raw) // 1000]), "is truncated before its first event")


def test_kept_events_are_those_of_the_whole_file(raw, write):
    whole = kept(write(raw, "whole.simtel"))[1].read("dl0/image/CHEC/waveform")
    path = write(raw[: len(raw) // 2])
    (path.parent / "out.zarr").rename(path.parent / "whole.zarr")
    part = kept(path)[1].read("dl0/image/CHEC/waveform")
    np.testing.assert_array_equal(part, whole[: len(part)])


def test_wrong_gzip_checksum(raw, write):
    packed = bytearray(gzip.compress(raw, compresslevel=1))
    packed[-8] ^= 0xFF  # the last 8 bytes are the CRC and the length
    path = write(bytes(packed), "bad.simtel.gz")
    refused(path, r"is damaged \(CRC check failed.*after event", IngestOptions())
    summary, _ = kept(path)
    assert (summary.n_events, summary.truncated) == (20, True)
    assert "CRC check failed" in summary.warnings[0]


def test_wrong_zstd_checksum(raw, write):
    packed = bytearray(zstandard.ZstdCompressor(level=1, write_checksum=True).compress(raw))
    packed[-1] ^= 0xFF
    path = write(bytes(packed), "bad.simtel.zst")
    refused(path, "is damaged .*checksum", IngestOptions())
    assert kept(path)[0].n_events == 20


@pytest.mark.parametrize("pack", ["gzip", "plain"])
def test_flipped_bytes_in_the_middle(raw, objects, write, pack):
    if pack == "gzip":
        data = bytearray(gzip.compress(raw, compresslevel=1))
        data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    else:
        data = bytearray(raw)
        starts = np.cumsum([0, *(len(part) for _, part in objects)])
        place = int(starts[len(objects) // 2])
        data[place : place + 16] = b"\xaa" * 16
    path = write(bytes(data))
    refused(path, "is (damaged|truncated).* after event", IngestOptions())
    summary, _ = kept(path)
    assert 0 < summary.n_events < 20


def test_no_triggered_event(objects, write):
    refused(write(without(objects, ARRAY_EVENT)), "holds no triggered event")


def test_no_event_at_all(objects, write):
    first = next(index for index, (item, _) in enumerate(objects) if item == MC_EVENT)
    refused(write(objects[:first] + objects[-1:]), "holds no triggered event")


@pytest.mark.parametrize(
    ("kind", "what"), [(MONITORING, "camera monitoring"), (LASER, "laser calibration")]
)
def test_no_calibration(objects, write, kind, what):
    path = write(without(objects, kind))
    refused(
        path,
        f"Telescope 1 .* has data in event 100 but no calibration .{what} is missing",
        IngestOptions(),
    )
    refused(path, f"No image .* could be used: 20 images of telescope 1 without {what}")


def test_calibration_that_comes_late(objects, write):
    late = [part for part in objects if part[0] in (MONITORING, LASER)]
    rest = without(objects, MONITORING, LASER)
    middle = [index for index, (item, _) in enumerate(rest) if item == MC_EVENT][6]
    path = write([*rest[:middle], *late, *rest[middle:]])
    summary, store = kept(path)
    assert (summary.n_events, summary.n_images) == (20, 14)
    assert summary.warnings == [
        f"{path}: 6 images of telescope 1 without camera monitoring were left out."
    ]
    assert store.read("dl0/image/CHEC/event_index")[0] == 6


def test_calibration_that_changes(objects, write):
    laser = next(data for item, data in objects if item == LASER)
    calib = constants(write(objects))[1]["calib"]
    changed = (LASER, replace_floats(laser, calib, 2 * calib))
    events = [index for index, (item, _) in enumerate(objects) if item == MC_EVENT]
    path = write(
        [
            *objects[: events[5]],
            (LASER, laser),  # the same constants again: no new row
            *objects[events[5] : events[12]],
            changed,
            *objects[events[12] :],
        ]
    )
    _, store = kept(path, IngestOptions())
    factor = store.read("monitoring/camera/CHEC/dc_to_pe")
    assert factor.shape[0] == 2
    np.testing.assert_array_equal(factor[1], 2 * factor[0])
    expected = [0] * 12 + [1] * 8
    np.testing.assert_array_equal(store.read("dl0/image/CHEC/calibration_index"), expected)


@pytest.mark.parametrize("name", ["calib", "tm_calib", "pedestal"])
def test_constants_that_are_not_numbers(objects, write, name):
    monitoring, laser = constants(write(objects))
    values = (monitoring | laser)[name]
    bad = values.copy()
    bad[0, [3, 77, 500]] = np.nan
    kind = MONITORING if name == "pedestal" else LASER
    path = write(change(objects, kind, lambda data: replace_floats(data, values, bad)))
    refused(
        path,
        r"Telescope 1 .*, event 100, has 3 of 2048 pixel constants .* not finite",
        IngestOptions(),
    )
    summary, store = kept(path)
    valid = store.read("monitoring/camera/CHEC/pixel_valid")
    assert np.nonzero(~valid[0, 0])[0].tolist() == [3, 77, 500]
    assert len(summary.warnings) == 1
    assert "has 3 of 2048 pixel constants" in summary.warnings[0]
    assert summary.n_images == 20


def switch_off(data, pixels):
    """Return a DisabledPixels object with these pixels without high voltage."""
    payload = struct.pack("<ii", 0, len(pixels)) + np.asarray(pixels, "<i4").tobytes()
    return data[:12] + struct.pack("<I", len(payload)) + payload


def test_disabled_pixels(objects, write):
    pixels = [0, 5, 2047]
    path = write(change(objects, DISABLED, lambda data: switch_off(data, pixels)))
    _, store = kept(path, IngestOptions())
    valid = store.read("monitoring/camera/CHEC/pixel_valid")
    assert np.nonzero(~valid[0, 0])[0].tolist() == pixels


def test_disabled_pixels_may_lack_constants(objects, write):
    calib = constants(write(objects))[1]["calib"]
    bad = calib.copy()
    bad[0, 5] = np.nan
    parts = change(objects, DISABLED, lambda data: switch_off(data, [5]))
    path = write(change(parts, LASER, lambda data: replace_floats(data, calib, bad)))
    assert kept(path, IngestOptions())[0].warnings == []


def test_all_pixels_disabled(objects, write):
    path = write(change(objects, DISABLED, lambda data: switch_off(data, range(2048))))
    refused(path, "All 2048 pixels of telescope 1 .* are switched off", IngestOptions())
    summary, store = kept(path)
    assert summary.n_images == 20
    assert not store.read("monitoring/camera/CHEC/pixel_valid").any()


def test_telescope_outside_the_trigger(objects, write):
    """A telescope with data that the trigger does not name is skipped, as ctapipe does."""
    count = 0

    def rename(data):
        nonlocal count
        count += 1
        if count != 1:
            return data
        # triggered_telescopes of the first event: one telescope, number 1, made number 2.
        payload = data.index(struct.pack("<H", TRIGGER) + b"\x30\x00") + 12
        place = payload + 24  # after two times and two patterns
        assert data[place : place + 4] == struct.pack("<hh", 1, 1)
        return data[:place] + struct.pack("<hh", 1, 2) + data[place + 4 :]

    path = write(change(objects, ARRAY_EVENT, rename))
    summary, store = kept(path, IngestOptions())
    assert (summary.n_events, summary.n_images) == (20, 19)
    assert summary.warnings == [f"{path}: 1 images of telescopes outside the trigger were skipped."]
    assert not store.read("dl0/event/tel_mask")[0].any()


def test_two_files_in_one(objects, write):
    path = write([*objects, *objects])
    summary, _ = kept(path, IngestOptions())
    assert summary.n_events == 20
    assert "bytes after the closing histograms were not read" in summary.warnings[0]


def test_several_zstd_frames_are_one_file(raw, write):
    """As pzstd and cat make them; the second frame was not read by earlier versions."""
    half = len(raw) // 2
    pack = zstandard.ZstdCompressor(level=1).compress
    path = write(pack(raw[:half]) + pack(raw[half:]), "two.simtel.zst")
    summary, _ = kept(path, IngestOptions())
    assert (summary.n_events, summary.warnings, summary.truncated) == (20, [], False)


def test_samples_that_nobody_can_read(objects, write):
    """A way of packing samples that our decoder leaves to eventio, which does not know it."""

    def reduce_data(data):
        place = data.index(struct.pack("<I", SAMPLES | 3 << 20))
        (ident,) = struct.unpack_from("<I", data, place + 4)
        return data[: place + 4] + struct.pack("<I", ident | 1 << 5) + data[place + 8 :]

    last = max(index for index, (item, _) in enumerate(objects) if item == ARRAY_EVENT)
    parts = [*objects[:last], (ARRAY_EVENT, reduce_data(objects[last][1])), *objects[last + 1 :]]
    path = write(parts)
    refused(path, r"is damaged .Currently no support for data_red_mode 1", IngestOptions())
    assert kept(path)[0].n_events == 19


def test_merged_run_headers(objects, write):
    header = next(part for part in objects if part[0] == 2001)
    place = objects.index(header)
    _, store = kept(write([*objects[:place], header, *objects[place:]]), IngestOptions())
    attrs = store.group_attrs("simulation")
    assert len(attrs["mc_run_headers"]) == 2
    assert attrs["n_showers"] == 2 * attrs["mc_run_headers"][0]["n_showers"]


def test_existing_output_is_not_touched(objects, write):
    path = write(objects)
    kept(path)
    with pytest.raises(AstriError, match=r"out\.zarr exists already") as caught:
        ingest_file(path, path.parent / "out.zarr")
    assert caught.value.exit_code == 2
    assert sorted(os.listdir(path.parent)) == ["bad.simtel", "out.zarr"]
