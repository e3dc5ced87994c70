"""The stage `build-events` on DL0 files with known showers, and the file that it writes."""

import contextlib
import logging
from dataclasses import replace

import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.dl0.header import run_of_header
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.event_building.seb0_file import read_seb0, write_seb0
from astri_gpu.event_building.truth import score
from astri_gpu.lineage.cards import record_of_header
from astri_gpu.stages import build_events
from tests.event_building.made_dl0 import START_S, describe, write_dl0, write_run

SECONDS = 20.0


def stage(*words):
    return build_events.run(compose("build-events", [*words, "progress=false", "dpi=30"]))


@pytest.fixture(scope="module")
def made(make_hits):
    return make_hits(duration_s=SECONDS, rate_hz=16, shower_hz=20, share=0.4, spread_ns=50, seed=3)


@pytest.fixture(scope="module")
def dl0(tmp_path_factory, made):
    """Folder of the files of nine telescopes."""
    return write_run(tmp_path_factory.mktemp("run") / "dl0", made, describe(duration_s=SECONDS))


@pytest.fixture(scope="module")
def truth_file(tmp_path_factory, made):
    """The truth as `simulate observation` writes it."""
    from astropy.io import fits

    path = tmp_path_factory.mktemp("truth") / "run_truth.fits"
    truth, tel_id = made.truth, np.arange(1, 10)
    rows = {
        "TRUTH": [("TEL", "I", truth.tel_id), ("EVT_CTR", "K", truth.event_counter),
                  ("EVENT", "K", truth.shower), ("TRUE_NS", "K", truth.true_ns)],
        "CLOCKS": [("TEL", "I", tel_id), ("OFFSET", "D", made.offset_ns),
                   ("DRIFT", "D", made.drift), ("JUMP", "D", 0.0 * tel_id),
                   ("JUMP_S", "D", 0.0 * tel_id)],
    }  # fmt: skip
    hdus = [fits.PrimaryHDU()]
    for name, columns in rows.items():
        columns = [fits.Column(column, form, array=values) for column, form, values in columns]
        hdus.append(fits.BinTableHDU.from_columns(columns, name=name))
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory, dl0, truth_file):
    """The summary and the file of the run."""
    output = tmp_path_factory.mktemp("seb") / "seb0.fits"
    return stage(f"input={dl0}", f"output={output}", f"truth={truth_file.parent}"), output


def test_events_are_those_of_the_showers(built, made):
    summary, output = built
    seb0 = read_seb0(output)
    assert summary.efficiency == score(seb0.members, made.truth).efficiency > 0.999
    assert summary.purity > 0.998
    assert summary.n_hits == sum(len(hits.row) for hits in made.hits) == len(seb0.members.row)
    assert summary.n_events == len(seb0.events.number)
    assert summary.n_stereo == seb0.n_stereo > 200
    assert summary.warnings == ()
    for text in (f"{summary.n_stereo:,} stereo", "efficiency 100.000 %", "pairs by chance"):
        assert text in summary.line
    assert "stereo efficiency" in summary.facts


def test_times_are_those_of_the_showers(built, made):
    """The time of an event is that at the reference point, but for what is common to all clocks."""
    seb0 = read_seb0(built[1])
    origin = int(START_S)
    time = (seb0.events.time_s - origin) * 10**9 + seb0.events.time_ns
    truth = made.truth
    true = {
        (tel, counter): ns
        for tel, counter, ns in zip(
            truth.tel_id.tolist(), truth.event_counter.tolist(), truth.true_ns.tolist(), strict=True
        )
    }
    members = seb0.members
    off = [
        time[event] + dt - true[tel, counter] - 250_000_000
        for event, tel, counter, dt in zip(
            members.event, members.tel_id.tolist(), members.event_counter.tolist(), members.dt_ns,
            strict=True,
        )
    ]  # fmt: skip
    assert np.std(off) < 30
    assert abs(np.median(off) - np.median(made.offset_ns)) < 5_000
    assert (np.diff(time) >= 0).all()


def test_header_and_picture(built, dl0):
    summary, output = built
    seb0 = read_seb0(output)
    run = run_of_header(seb0.header, "it")
    assert (run.obs_id, run.kind, run.tel_id) == (1_000_002, "SEB0", None)
    assert seb0.obs_id == 1_000_002
    assert seb0.tel_ids == run.tel_ids == tuple(range(1, 10))
    assert seb0.header["SIMMODEL"] == "made-up hits"
    assert (seb0.window_us, seb0.tof_corrected) == (0.3, True)
    assert seb0.header["NSTEREO"] == summary.n_stereo
    record = record_of_header(seb0.header)
    assert record["stage"] == "build-events"
    assert len(record["inputs"]) == 10
    picture = build_events.picture_name(output)
    assert picture.name == "seb0_offsets.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in output.parent.iterdir()) == ["seb0.fits", picture.name]


def test_other_programs_read_the_file(built):
    import fitsio

    _, output = built
    seb0 = read_seb0(output)
    with fitsio.FITS(str(output)) as file:
        names = [hdu.get_extname() for hdu in file[1:]]
        assert names == ["EVENTS", "MEMBERS", "OFFSETS", "PROFILE", "REJECTED"]
        rows = file["EVENTS"].read()
        assert rows.dtype["TRIGTEL"].newbyteorder("=") == np.int32
        assert np.array_equal(rows["NTRIGTEL"], seb0.events.n_tels)
        lags = file["PROFILE"].read()
    middle = np.abs(lags["LAG"]) <= 300
    assert lags["COUNTS"][middle].sum() > 50 * lags["COUNTS"][~middle].sum()


def test_a_missing_telescope_is_told_and_the_others_are_matched(tmp_path, dl0, caplog):
    files = sorted(dl0.iterdir())
    given = ",".join(str(path) for path in files if "_MA05_" not in path.name)
    summary = stage(f"input=[{given}]", f"output={tmp_path / 'seb0.fits'}")
    assert summary.tel_ids == (1, 2, 3, 4, 6, 7, 8, 9)
    assert "No events (0201) of 1 telescope of the run (5)" in caplog.text
    assert summary.n_stereo > 200


def test_one_telescope_alone_has_single_events(tmp_path, dl0):
    (path,) = dl0.glob("*_MA05_*")
    summary = stage(f"input={path}", f"output={tmp_path / 'seb0.fits'}")
    assert summary.n_stereo == 0
    assert summary.n_events == summary.n_hits > 0


def test_events_without_a_time_are_listed_and_a_truncated_clock_is_told(tmp_path, caplog):
    rng = np.random.default_rng(5)
    description = describe((1, 2), duration_s=SECONDS)
    seconds = int(START_S) + np.sort(rng.integers(1, 20, 150))
    nanoseconds = rng.integers(0, 10**9, 150)
    bad = nanoseconds.copy()
    bad[[3, 70]] = 10**9, 2**32 - 1
    write_dl0(tmp_path, description, 1, seconds, bad)
    seconds[-1] += 3600
    write_dl0(tmp_path, description, 2, seconds, nanoseconds % 2**24, np.arange(150) + 7)
    with caplog.at_level(logging.WARNING):
        summary = stage(f"input={tmp_path}", f"output={tmp_path / 'seb0.fits'}")
    assert "TIME_NS of telescope 2 never exceeds 2^24" in caplog.text
    assert "2 of 150 events of telescope 1 have no usable time" in caplog.text
    assert (summary.n_hits, summary.n_rejected, summary.rejected) == (300, 3, {1: 2, 2: 1})
    seb0 = read_seb0(tmp_path / "seb0.fits")
    rejected = zip(*(part.tolist() for part in seb0.rejected), strict=True)
    assert list(rejected) == [(1, 3, 1), (1, 70, 1), (2, 149, 2)]
    assert len(seb0.members.row) == 297
    counters = seb0.members.event_counter[seb0.members.tel_id == 2]
    assert sorted(counters) == list(range(7, 156))


def test_files_of_two_runs_are_refused(tmp_path, dl0):
    description = describe((1,), run=3)
    write_dl0(tmp_path, description, 1, np.array([int(START_S) + 1]), np.array([5]))
    with pytest.raises(AstriError, match="give the files of one run"):
        stage(f"input=[{dl0},{tmp_path}]", f"output={tmp_path / 'seb0.fits'}")
    assert not (tmp_path / "seb0.fits").exists()


def test_requests_that_cannot_be(tmp_path, built, dl0, truth_file):
    _, output = built
    with pytest.raises(UsageError, match="exists already"):
        stage(f"input={dl0}", f"output={output}")
    with pytest.raises(UsageError, match="not named like a FITS file"):
        stage(f"input={dl0}", f"output={tmp_path / 'seb0.zarr'}")
    with pytest.raises(AstriError, match="no DL0 file of kind SCI"):
        stage(f"input={tmp_path}", f"output={tmp_path / 'seb0.fits'}")
    with pytest.raises(AstriError, match="has no part TRUTH"):
        stage(f"input={dl0}", f"output={tmp_path / 'seb0.fits'}", f"truth={output}")
    description = describe((1,), duration_s=SECONDS)
    write_dl0(tmp_path, description, 1, [int(START_S) + 1], [5], [10**6])
    with pytest.raises(AstriError, match="Event 1000000 of telescope 1 is not in the truth"):
        stage(f"input={tmp_path}", f"output={tmp_path / 'seb0.fits'}", f"truth={truth_file}")


def test_a_written_file_is_read_as_it_was(tmp_path, built):
    _, output = built
    seb0 = read_seb0(output)
    write_seb0(tmp_path / "again.fits", seb0, {"OBS_ID": (1_000_002, "")})
    again = read_seb0(tmp_path / "again.fits")
    for name in ("events", "members", "offsets", "profile", "rejected"):
        for left, right in zip(getattr(seb0, name), getattr(again, name), strict=True):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype
    members = seb0.members._replace(tel_id=seb0.members.tel_id + 31)
    with pytest.raises(AstriError, match="Telescope 40 cannot be in a file"):
        write_seb0(tmp_path / "wide.fits", replace(seb0, members=members))


def test_other_files_are_refused_in_words(tmp_path, built, dl0):
    _, output = built
    with pytest.raises(AstriError, match="There is no file of stereo events"):
        read_seb0(tmp_path / "none.fits")
    with pytest.raises(AstriError, match="SEB0VERS is None"):
        read_seb0(next(dl0.glob("*_MA01_*")))
    whole, n_stereo = output.read_bytes(), read_seb0(output).n_stereo
    rng = np.random.default_rng(8)
    bad = tmp_path / "bad.fits"
    for number, at in enumerate(rng.integers(0, len(whole), 12).tolist()):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << number % 8
        bad.write_bytes(damaged if number % 2 else whole[:at])
        with contextlib.suppress(AstriError):
            # What is flipped may lie where nobody reads, such as in a comment.
            assert read_seb0(bad).n_stereo == n_stereo
