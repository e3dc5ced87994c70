"""The stage `calibrate`: files of a run to one file of constants."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from astri_gpu.calibration.cal1_file import cal1_header, read_cal1
from astri_gpu.config import compose
from astri_gpu.dl0.header import run_of_header
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.lineage.cards import record_of_header
from astri_gpu.stages import calibrate
from tests.calibration.made_dl0 import calibration_columns, description, write_dl0


def config(folder, output, *overrides):
    return compose(
        "calibrate",
        [
            f"input='{folder}'",
            f"output='{output}'",
            "crosstalk=0",
            "gain_spread=0",
            "dpi=30",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return DL0 files of telescopes 1 to 3; 3 has too few flashes, 4 has no file."""
    folder = tmp_path_factory.mktemp("dl0")
    run = description(4)
    for tel_id, n_flatfield in ((1, 400), (2, 400), (3, 30)):
        columns = calibration_columns(200, n_flatfield, seed=tel_id, shift=10.0 * tel_id)
        write_dl0(folder, run, tel_id, "CAL", columns)
    return folder


def test_a_run_becomes_one_file(folder, tmp_path):
    output = tmp_path / "cal1.fits"
    summary = calibrate.run(config(folder, output, "on_error=skip"))
    sets = read_cal1(output)
    assert [each.tel_id for each in sets] == [1, 2]
    assert np.median(sets[1].pedestal - sets[0].pedestal) == pytest.approx(10, abs=1)
    assert "2 sets of constants of 2 telescopes from 400 pedestals and 800 flashes" in summary.line
    assert "4 bad pixels" in summary.line
    assert summary.facts["bad pixels"] == "2 of 1, 2 of 2"
    absent, few = summary.warnings
    assert "No calibration events (0101) of 1 telescope of the run (4)" in absent
    assert few.startswith("Telescope 3 was left out: ")
    header = cal1_header(output)
    run = run_of_header(header, str(output))
    assert (run.kind, run.obs_id, run.tel_ids, run.tel_id) == (
        "CAL1",
        1_000_002,
        (1, 2, 3, 4),
        None,
    )
    assert header["SIMMODEL"] == "made up"
    record = record_of_header(header)
    assert record["stage"] == "calibrate"
    assert len(record["inputs"]) == 2
    assert record["config"]["min_events"] == 50


def test_a_picture_goes_beside_it(folder, tmp_path, tracking):
    image = pytest.importorskip("matplotlib.image")
    shutil.copytree(folder, tmp_path / "dl0")
    hk = tracking()
    hk.status[100:200] = 0
    columns = {
        "time_s": hk.time_s,
        "time_ns": hk.time_ns,
        "pointing_alt_deg": hk.alt,
        "pointing_az_deg": hk.az,
        "n_events": hk.n_events,
        "camera_temperature_c": hk.temperature,
        "status": hk.status,
    }
    write_dl0(tmp_path / "dl0", description(4), 1, "HK", columns)
    shown = []
    for number, source in enumerate((folder, tmp_path / "dl0")):
        output = tmp_path / f"{number}.lv1a.fits"
        calibrate.run(config(source, output, "on_error=skip"))
        assert calibrate.picture_name(output) == tmp_path / f"{number}_monitoring.png"
        shown.append(image.imread(calibrate.picture_name(output)))
    assert shown[0].shape == shown[1].shape
    # Curves and shade of the telescope with housekeeping are on the left side only.
    changed = (shown[0] != shown[1]).any(axis=(0, 2))
    assert changed[: len(changed) // 2].mean() > 0.5


def test_a_bad_telescope_stops_if_not_told_otherwise(folder, tmp_path):
    with pytest.raises(AstriError, match="30 flat-field events of telescope 3"):
        calibrate.run(config(folder, tmp_path / "cal1.fits"))
    assert not list(tmp_path.iterdir())


def test_no_telescope_at_all_is_an_error_even_so(folder, tmp_path):
    with pytest.raises(AstriError, match="has 200 pedestal events of telescope 1"):
        calibrate.run(config(folder, tmp_path / "cal1.fits", "on_error=skip", "min_events=500"))


def test_files_may_be_given_one_by_one_and_an_output_is_kept(folder, tmp_path):
    output = tmp_path / "cal1.fits"
    pattern = folder / "*_MA02_*_0101.lv0.fits"
    assert calibrate.run(config(pattern, output, "interval_s=200")).n_sets == 3
    with pytest.raises(UsageError, match="exists already"):
        calibrate.run(config(pattern, output))
    assert calibrate.run(config(pattern, output, "overwrite=true")).n_sets == 1


def test_files_of_two_runs_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "both")
    other = replace(description(4), run=3)
    write_dl0(tmp_path / "both", other, 4, "CAL", calibration_columns(100, 200))
    with pytest.raises(AstriError, match="give the files of one run"):
        calibrate.run(config(tmp_path / "both", tmp_path / "cal1.fits"))
    with pytest.raises(AstriError, match="no DL0 file of kind CAL"):
        calibrate.run(config(tmp_path, tmp_path / "cal1.fits"))
