"""Runs that cannot be are told in a sentence; clocks do what they are asked for."""

import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from astri_gpu.config_observation import ClockConfig, InterleavedConfig
from astri_gpu.config_response import FluxConfig, ObservationConfig
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.observing.clocks import Clocks
from astri_gpu.observing.plan import plan_run
from tests.made_run import made_run, run_config

TELESCOPES = np.arange(1, 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": "tomorrow"}, "which is no time"),
        ({"start": "2019-01-01T00:00:00"}, "count seconds from 2020 on"),
        ({"start": "2026-01-15T12:00:00"}, "deg high in the run"),
        ({"start": None, "zenith_deg": 0.0}, "does not stay within"),
        ({"start": None, "observation": ObservationConfig(night="monday")}, "no date"),
        ({"observation": ObservationConfig(wobble_angles_deg=[])}, "wobble_angles_deg is empty"),
        ({"flux": FluxConfig(gamma="sun")}, "no known spectrum"),
        ({"descriptor": "nowhere"}, "nowhere"),
        ({"array": "nowhere"}, "which is no file"),
    ],
)
def test_what_cannot_be_is_told(tmp_path, options, words):
    with pytest.raises(AstriError, match=words):
        plan_run(run_config(tmp_path / "x", **options), {})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"background": ["iron"]}, "'iron' in it is not known"),
        ({"background": ["proton", "proton"]}, "there twice"),
        ({"interleaved": InterleavedConfig(flatfield_pe=[])}, "give signals above 0"),
    ],
)
def test_options_that_do_not_fit_are_told(tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        run_config(tmp_path / "x", **options).validate()


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(AstriError, match=r"about 1\.\d+ GB, and the disk"):
        made_run(tmp_path / "x", seconds=300.0)
    assert not (tmp_path / "x").exists()


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="other files too"):
        made_run(tmp_path / "x", overwrite=True)
    with pytest.raises(UsageError, match="exists already"):
        made_run(tmp_path / "x")


def test_telescopes_that_names_cannot_tell_are_refused(tmp_path):
    layout = tmp_path / "far.yaml"
    layout.write_text("telescopes: [{id: 100, x_north_m: 0, y_west_m: 0, z_m: 0}]")
    with pytest.raises(UsageError, match="two digits"):
        plan_run(run_config(tmp_path / "x", array=str(layout)), {})
    layout.write_text("telescopes: [{id: 7, x_north_m: 0, y_west_m: 0, z_m: 0}]")
    plan = plan_run(run_config(tmp_path / "x", array=str(layout)), {})
    assert plan.track.site.latitude_deg == pytest.approx(28.3)
    assert plan.inputs == (layout,)


def test_a_formatless_packet_file_is_told(tmp_path):
    from importlib.resources import files

    text = (files("astri_gpu.packets") / "astri_gpu_v1.yaml").read_text(encoding="utf-8")
    other = tmp_path / "other.yaml"
    other.write_text(text[: text.index("  VAR:")])
    with pytest.raises(AstriError, match="no packets of the type VAR"):
        plan_run(run_config(tmp_path / "x", descriptor=str(other)), {})


def test_clocks_drift_and_jump():
    config = ClockConfig(offset_us=3.0, drift_ns_per_s=10.0, jitter_ns=0.0, jump_ms=2.0)
    clocks = Clocks.drawn(replace(config, jump_telescope=4), TELESCOPES, 100.0, seed=1)
    moment = np.array([0, 40, 60]) * 10**9
    off = clocks.read(3, moment, np.arange(3)) - moment
    drift = clocks.drift_ns_per_s[3]
    expected = clocks.offset_ns[3] + drift * np.array([0, 40, 60]) + np.array([0, 0, 2e6])
    np.testing.assert_allclose(off, expected, atol=0.51)
    np.testing.assert_array_equal(clocks.jump_ns > 0, TELESCOPES == 4)
    assert np.std(clocks.offset_ns) == pytest.approx(3000, rel=0.6)
    jitter = replace(clocks, jitter_ns=20.0)
    number = np.arange(4000)
    read = jitter.read(0, np.zeros(4000, np.int64), number)
    assert read.std() == pytest.approx(20, rel=0.1)
    np.testing.assert_array_equal(read[5:9], jitter.read(0, np.zeros(4, np.int64), number[5:9]))
    assert not np.array_equal(read, jitter.read(1, np.zeros(4000, np.int64), number))


def test_the_clock_of_no_telescope_cannot_jump():
    with pytest.raises(UsageError, match="which is not in the array"):
        Clocks.drawn(ClockConfig(jump_ms=1.0, jump_telescope=12), TELESCOPES, 100.0, seed=1)
