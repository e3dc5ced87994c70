"""The stage `preprocess`: packet files to DL0 FITS files and back, with what may go wrong."""

import json
from dataclasses import replace

import fitsio
import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.dl0.run_description import read_description
from astri_gpu.errors import AstriError, PartialFailure, UsageError
from astri_gpu.packets.descriptor import read_descriptor
from astri_gpu.packets.rebuild import rebuild_packets
from astri_gpu.packets.run_files import find_run
from astri_gpu.stages.preprocess import run
from tests.packets.made_packets import SMALL, made_packets, made_run_files

KINDS = ["SCI", "HK", "SCI", "VAR", "CAL", "SCI"]


def configured(folder, output, **options):
    words = [f"{name}={value}" for name, value in options.items()]
    return compose(
        "preprocess",
        [f"input={folder}", f"output={output}", "execution.n_workers=1", "progress=false", *words],
    )


@pytest.fixture(scope="module")
def made(astri):
    """Return packets of three telescopes."""
    return {k: made_packets(astri, KINDS, seed=k, tel_id=k) for k in (1, 2, 5)}


@pytest.fixture
def raw(tmp_path, made):
    """Return the folder of a run of three telescopes."""
    made_run_files(tmp_path / "raw", {k: each.data for k, each in made.items()})
    return tmp_path / "raw"


def raw_file(raw, tel_id):
    return next(raw.glob(f"*_MA{tel_id:02d}_*.raw"))


def record(output):
    return json.loads((output / "preprocess.json").read_text())


def test_packets_come_back_byte_by_byte(tmp_path, raw, made):
    summary = run(configured(raw, tmp_path / "dl0"))
    assert summary.line.startswith("preprocess: 3 telescopes, 18 packets, ")
    for tel_id, each in made.items():
        for kind, code in (("SCI", "0201"), ("CAL", "0101"), ("HK", "0601"), ("VAR", "0602")):
            (path,) = (tmp_path / "dl0").glob(f"20260115_MA{tel_id:02d}_*_{code}.lv0.fits")
            whole = [p for p, k in zip(each.packets, each.kinds, strict=True) if k == kind]
            assert b"".join(p.tobytes() for p in rebuild_packets(path)) == b"".join(whole)
            table = fitsio.read(path, ext=1)
            columns = each.columns[kind]
            np.testing.assert_array_equal(table["TIME_NS"], columns["time_ns"])
            if kind == "SCI":
                np.testing.assert_array_equal(table["ADC"], columns["adc"])
    (copy,) = (tmp_path / "dl0").glob("*.run.yaml")
    assert read_description(copy) == read_description(next(raw.glob("*.run.yaml")))
    assert not list((tmp_path / "dl0").glob("*quarantine*"))


def test_the_record_says_what_was_done(tmp_path, raw):
    run(configured(raw, tmp_path / "dl0"))
    contents = record(tmp_path / "dl0")
    assert contents["run"]["obs_id"] == 3_000_017
    assert contents["warnings"] == []
    assert contents["telescopes"]["5"]["counts"]["types"]["SCI"]["packets"] == 3
    inputs = contents["provenance"]["inputs"]
    assert len(inputs) == 4
    assert inputs[0]["checksum"].startswith("sha256:")
    (path,) = (tmp_path / "dl0").glob("*_MA05_*_0201.lv0.fits")
    header = fitsio.read_header(path, ext=0)
    assert header["PROVSTEP"].strip() == "preprocess"
    assert header["TELID"] == 5
    assert header["PROVIN1"].endswith(raw_file(raw, 5).name)


def test_damage_is_reported_and_the_rest_is_kept(tmp_path, raw, made, caplog):
    path = raw_file(raw, 2)
    packets = list(made[2].packets)
    damaged = bytearray(packets[2])
    damaged[5000] ^= 1
    data = packets[0] + packets[1] + bytes(damaged) + b"garbage" + b"".join(packets[3:])
    path.write_bytes(data)
    summary = run(configured(raw, tmp_path / "dl0"))
    assert (summary.n_packets, summary.n_missing, summary.n_quarantined) == (17, 1, 2)
    assert "2 pieces of 9,811 bytes quarantined; 1 packet missing" in summary.line
    text = " ".join(summary.warnings)
    assert "(telescope 2)" in text
    assert "1 packet with a wrong checksum (9804 bytes)" in text
    assert f"{len(data)} bytes instead of the" in text
    assert "wrong checksum" in caplog.text

    kept = tmp_path / "dl0" / (path.stem + ".quarantine")
    assert kept.read_bytes() == bytes(damaged) + b"garbage"
    pieces = json.loads(kept.with_name(kept.name + ".json").read_text())["pieces"]
    start = len(packets[0] + packets[1])
    assert pieces == [
        {"offset": start, "at": 0, "length": 9804, "reason": "checksum", "kind": "SCI"},
        {"offset": start + 9804, "at": 9804, "length": 7, "reason": "unreadable", "kind": None},
    ]
    # Made again from the right file, nothing is left of it.
    path.write_bytes(made[2].data)
    run(configured(raw, tmp_path / "dl0", overwrite=True))
    assert not list((tmp_path / "dl0").glob("*quarantine*"))


def test_a_changed_byte_is_noticed_by_the_checksum_of_the_file(tmp_path, raw, astri):
    other = made_packets(astri, KINDS, seed=77, tel_id=1).data
    raw_file(raw, 1).write_bytes(other)
    summary = run(configured(raw, tmp_path / "dl0"))
    assert "its checksum is not the one of the description" in " ".join(summary.warnings)
    assert summary.n_packets == 18


def test_a_telescope_without_its_file(tmp_path, raw):
    raw_file(raw, 2).unlink()
    summary = run(configured(raw, tmp_path / "dl0"))
    assert summary.line.endswith("; without telescope 2")
    assert summary.n_telescopes == 2
    assert "Telescope 2 is missing" in summary.warnings[0]
    assert record(tmp_path / "dl0")["missing_telescopes"] == [2]


def test_a_file_with_another_run_in_it(tmp_path, raw, astri):
    other = made_packets(astri, KINDS, run_id=99, tel_id=2).data
    raw_file(raw, 2).write_bytes(other)
    summary = run(configured(raw, tmp_path / "dl0"))
    assert summary.n_telescopes == 2
    assert summary.missing_telescopes == (2,)
    assert "no packet of telescope 2 in run 17 in it" in " ".join(summary.warnings)
    assert "6 packets of another run" in " ".join(summary.warnings)
    assert not list((tmp_path / "dl0").glob("*_MA02_*.fits"))


def test_a_file_that_cannot_be_read(tmp_path, raw):
    path = raw_file(raw, 2)
    path.unlink()
    path.mkdir()
    with pytest.raises(AstriError, match=r"_MA02_.*\.raw"):
        run(configured(raw, tmp_path / "stopped"))
    with pytest.raises(PartialFailure, match=r"1 of 3 inputs failed.* preprocess: 2 telescopes"):
        run(configured(raw, tmp_path / "dl0", on_error="skip"))
    assert record(tmp_path / "dl0")["missing_telescopes"] == [2]


def test_no_packet_of_the_run_at_all(tmp_path, raw, astri):
    for tel_id in (1, 2, 5):
        raw_file(raw, tel_id).write_bytes(b"nothing")
    with pytest.raises(AstriError, match="No packet of run 17 is in the packet files that"):
        run(configured(raw, tmp_path / "dl0"))


def test_files_that_are_not_of_the_run(tmp_path, raw):
    stranger = raw / raw_file(raw, 1).name.replace("20260115", "20260116")
    stranger.write_bytes(b"x")
    summary = run(configured(raw, tmp_path / "dl0"))
    assert "is no packet file of run 17 of observation 3 (20260115)" in summary.warnings[0]
    assert summary.n_telescopes == 3
    both = f"[{raw_file(raw, 1)},{stranger}]"
    with pytest.raises(UsageError, match="leave it out, or set on_error=skip"):
        run(configured(both, tmp_path / "other"))
    summary = run(configured(both, tmp_path / "other", on_error="skip"))
    assert summary.n_telescopes == 1
    assert summary.missing_telescopes == ()


def test_a_killed_run_goes_on(tmp_path, raw, monkeypatch):
    import astri_gpu.packets.to_dl0 as module

    output, real = tmp_path / "dl0", module.packets_to_dl0

    def killed(path, *args, **options):
        if "_MA02_" in path.name:
            raise KeyboardInterrupt
        return real(path, *args, **options)

    monkeypatch.setattr(module, "packets_to_dl0", killed)
    with pytest.raises(KeyboardInterrupt):
        run(configured(raw, output))
    first = {path.name: path.stat().st_mtime_ns for path in output.glob("*_MA01_*.fits")}
    assert len(first) == 4
    assert not (output / "preprocess.json").exists()
    (output / "unrelated.fits").write_bytes(b"mine")
    monkeypatch.setattr(module, "packets_to_dl0", real)
    summary = run(configured(raw, output))
    assert summary.n_before == 1
    assert summary.n_packets == 18
    assert {path.name: path.stat().st_mtime_ns for path in output.glob("*_MA01_*.fits")} == first
    assert (output / "unrelated.fits").read_bytes() == b"mine"
    again = run(configured(raw, output))
    assert again.n_before == 3
    assert again.n_bytes == 0


def test_an_output_of_something_else_is_left_alone(tmp_path, raw, made):
    output = tmp_path / "dl0"
    run(configured(raw, output))
    with pytest.raises(UsageError, match=r"max_gap_s 10.0 → 3.0"):
        run(configured(raw, output, max_gap_s=3))
    next(output.glob("*_MA05_*_0601.lv0.fits")).unlink()
    with pytest.raises(UsageError, match=r"0601.lv0.fits is gone"):
        run(configured(raw, output))
    assert run(configured(raw, output, overwrite=True)).n_packets == 18
    other = tmp_path / "raw2"
    other.mkdir()
    description = made_run_files(other, {1: made[1].data})
    for path in other.iterdir():
        path.unlink()
    name = replace(description, date="20260116").name
    (other / name.raw(1)).write_bytes(made[1].data)
    from astri_gpu.dl0.run_description import write_description

    files = (replace(description.files[0], name=name.raw(1)),)
    write_description(other, replace(description, date="20260116", files=files))
    with pytest.raises(UsageError, match=r"holds run 17 of observation 3 \(20260115\)"):
        run(configured(other, output, overwrite=True))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        run(configured(raw, tmp_path / "file"))


def test_another_format_needs_no_other_code(tmp_path, small):
    path = tmp_path / "theirs.yaml"
    path.write_text(SMALL)
    each = made_packets(small, ["SCI", "HK", "SCI"])
    made_run_files(tmp_path / "raw", {4: each.data})
    summary = run(configured(tmp_path / "raw", tmp_path / "dl0", descriptor=path))
    assert summary.n_packets == 3
    assert not summary.warnings
    (file,) = (tmp_path / "dl0").glob("*_0201.lv0.fits")
    table = fitsio.read(file, ext=1)
    np.testing.assert_array_equal(table["OFFSET"], each.columns["SCI"]["offset"])
    np.testing.assert_array_equal(table["ADC"], each.columns["SCI"]["adc"])
    assert fitsio.read_header(file, ext=1)["APID"] == 0x234


def test_the_run_is_waited_for(tmp_path, raw, made):
    """The description comes last, and a file is still being copied."""
    description, path = next(raw.glob("*.run.yaml")), raw_file(raw, 5)
    text, data = description.read_text(), path.read_bytes()
    description.unlink()
    path.write_bytes(data[:-10])
    steps = [lambda: description.write_text(text[:200]), lambda: description.write_text(text)]
    steps += [lambda: None, lambda: path.write_bytes(data)]
    told = []

    def sleep(seconds):
        assert 0 < seconds <= 1
        steps.pop(0)()

    files = find_run([str(raw)], wait_s=1000, tell=told.append, sleep=sleep)
    assert not steps
    assert len(files.present) == 3
    assert not files.missing
    assert len(told) == 1
    assert "waiting up to 1000 s" in told[0]


def test_waiting_has_an_end(tmp_path, raw):
    with pytest.raises(UsageError, match=r"no description of a run \(\*.run.yaml\) at .*nowhere"):
        find_run([str(tmp_path / "nowhere")], wait_s=0.01)
    raw_file(raw, 5).unlink()
    assert find_run([str(raw)], wait_s=0.01).missing == (5,)
    for path in raw.glob("*.raw"):
        path.unlink()
    with pytest.raises(AstriError, match="None of the packet files that"):
        find_run([str(raw)])


def test_two_runs_are_not_mixed(raw):
    path = next(raw.glob("*.run.yaml"))
    path.with_name(path.name.replace("000017", "000018")).write_text(path.read_text())
    with pytest.raises(UsageError, match="There are 2 descriptions of runs"):
        find_run([str(raw)])
    assert len(find_run([str(path)]).present) == 3


def test_a_telescope_that_is_named_twice(raw, made):
    path = next(raw.glob("*.run.yaml"))
    path.write_text(path.read_text().replace("  tel_id: 5\n  n_bytes", "  tel_id: 2\n  n_bytes"))
    with pytest.raises(AstriError, match="names a telescope or a file twice"):
        find_run([str(raw)])


def test_files_that_cannot_be_made_into_packets(tmp_path, raw, small):
    run(configured(raw, tmp_path / "dl0"))
    (path,) = (tmp_path / "dl0").glob("*_MA01_*_0101.lv0.fits")
    with pytest.raises(AstriError, match="small has no type CAL"):
        list(rebuild_packets(path, small))
    (path,) = (tmp_path / "dl0").glob("*_MA01_*_0601.lv0.fits")
    with pytest.raises(AstriError, match="has no column COUNT for the field 'count'"):
        list(rebuild_packets(path, small))
    (tmp_path / "x.yaml").write_text(SMALL.replace(", fits: COUNT", ""))
    with pytest.raises(AstriError, match="'count' of the packet format small has no column in"):
        list(rebuild_packets(path, read_descriptor(tmp_path / "x.yaml")))
