"""The chains of the package at tiny statistics: showers to sensitivity, packets to a spectrum."""

import json
import shutil
from threading import Timer

import numpy as np
import pytest

from astri_gpu import pipeline
from astri_gpu.cli import main
from astri_gpu.stages import run as stage


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder of the whole chain of simulations, at tiny statistics."""
    folder = tmp_path_factory.mktemp("first") / "chain"
    assert main(["run", "pipeline=draft", f"output={folder}", "progress=false"]) == 0
    return folder


def test_from_nothing_to_sensitivity_and_an_observation(first, capsys):
    """The whole chain: the result of the package in small."""
    entries = pipeline.read_record(first)
    assert len(entries) == 16
    assert entries[-1].stage == "report"
    (check,) = (entry for entry in entries if entry.stage == "check")
    assert "nothing found (GADF v0.3)" in check.summary

    from astropy.table import QTable

    curves = {path.name: QTable.read(path) for path in (first / "irf").glob("*.ecsv")}
    flux = curves["sensitivity.ecsv"]["flux_e2"].to_value("erg s-1 cm-2")
    assert np.isfinite(flux).any()
    assert {"cc01.irf2.fits.gz", "cc02.irf2.fits.gz", "cc03.irf2.fits.gz"} <= {
        path.name for path in (first / "irf").iterdir()
    }
    assert (first / "report" / "report.html").exists()

    gammapy = pytest.importorskip("gammapy.data")
    store = gammapy.DataStore.from_dir(first / "dl3")
    (observation,) = store.get_observations()
    assert len(observation.events.table) > 0
    assert observation.available_irfs == ["aeff", "edisp", "psf", "bkg"]
    assert observation.aeff.quantity.max().to_value("m2") > 1e4

    assert main(["run", "pipeline=draft", f"output={first}", "progress=false"]) == 0
    assert "run: 0 steps, 16 done before" in capsys.readouterr().out


INTERRUPTED = 130  # exit code
NIGHT = [
    "pipeline.values.duration_s=11",
    "pipeline.values.shower=draft",
    "pipeline.values.gamma_factor=10",
    "pipeline.values.background_factor=0.02",
    "pipeline.values.min_events=10",
    "pipeline.values.n_workers=1",
    "progress=false",
]


@pytest.fixture(scope="module")
def night(first, tmp_path_factory):
    """A simulated observation and its analysis, killed in the middle and taken up again."""
    folder = tmp_path_factory.mktemp("night") / "night"
    words = ["run", "pipeline=night", f"output={folder}", f"pipeline.files.first={first}", *NIGHT]
    with pytest.MonkeyPatch.context() as patch:
        made = stage.import_module

        def killed(name):
            if name.endswith(".ingest"):
                raise KeyboardInterrupt
            return made(name)

        patch.setattr(stage, "import_module", killed)
        assert main(words) == INTERRUPTED
    states = [entry.state for entry in pipeline.read_record(folder)]
    assert states == ["done"] * 4 + ["running"]
    assert main(words) == 0
    return folder


def test_a_simulated_night_from_packets_to_a_spectrum(night, capsys):
    entries = {entry.stage: entry for entry in pipeline.read_record(night)}
    assert all(entry.done for entry in entries.values())
    assert "nothing found (GADF v0.3)" in entries["check"].summary
    page = (night / "run.html").read_text()
    assert "11 of 11 steps done" in page
    assert 'href="science/report.html"' in page
    assert 'src="seb0_offsets.png"' in page
    assert "stereo efficiency" in entries["build-events"].facts
    assert "detection" in entries["science"].facts
    n_problems = main(["provenance", str(night / "science"), "full=true"])
    told = capsys.readouterr().out
    assert n_problems == 0
    for name in ("simulate-observation", "preprocess", "calibrate", "train", "irf", "optimize"):
        assert f" {name} " in told
    assert told.count(".raw ") >= 9
    assert "missing" not in told
    assert "changed since" not in told
    document = json.loads((night / "chain.prov.json").read_text())
    assert len(document["activity"]) > 20


def test_the_short_term_analysis_begins_when_the_run_is_complete(night, first, tmp_path, capsys):
    """The description of the run, which is written last, comes while the chain waits for it."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in (night / "raw").glob("*.raw"):
        (raw / path.name).symlink_to(path)
    (description,) = (night / "raw").glob("*.run.yaml")
    words = ["run", "pipeline=short_term", f"output={tmp_path / 'quick'}", "until=preprocess"]
    words += [f"pipeline.files.raw={raw}", f"pipeline.files.first={first}", "progress=false"]
    words += ["pipeline.values.n_workers=1"]
    assert main([*words, "pipeline.values.wait_s=0"]) == 1
    assert "step 1 of 10 (preprocess) failed" in capsys.readouterr().err
    late = Timer(0.5, lambda: shutil.copy(description, raw))
    late.start()
    assert main([*words, "pipeline.values.wait_s=60"]) == 0
    late.join()
    (entry,) = pipeline.read_record(tmp_path / "quick")
    assert entry.done
    assert len(list((tmp_path / "quick/dl0").glob("*_0201.lv0.fits"))) == 9
