"""The benchmark of the reconstruction, as small as it can be."""

import importlib.util
import json
from pathlib import Path

import pytest

from .conftest import missing

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def main(monkeypatch):
    """Return the benchmark, where pyirf is, which judges the errors."""
    if importlib.util.find_spec("pyirf") is None:
        missing("peers", "pyirf is not installed (pip install 'astri_gpu[peers]')")
    monkeypatch.syspath_prepend(str(ROOT))  # benchmarks are no installed package
    return importlib.import_module("benchmarks.reconstruction").main


def test_a_small_run_has_all_figures(main, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.reconstruction.N_TREES", 20)
    monkeypatch.setattr("benchmarks.reconstruction.MIN_EVENTS", 1)
    sizes = ["--gammas", "12000", "--protons", "5000", "--point", "2500"]
    words = [*sizes, "--folder", str(tmp_path / "stores"), "--output", str(tmp_path)]
    words += ["--train", "forest=draft", "sample.n_folds=2", "sample.n_importance=0"]
    main(words)
    assert "## Energy and direction" in capsys.readouterr().out
    (file,) = tmp_path.glob("*-reconstruction.json")
    found = json.loads(file.read_text())
    assert len(found["steps"]) == 14
    assert str(tmp_path) not in json.dumps(found)
    assert {entry["auc"] > 0.5 for entry in found["single_image_auc"].values()} == {True}
    assert 0.6 < found["auc"]["events"]["auc"] < 1
    rows = found["errors"]["within 6 deg, all"]
    assert sum(row["n_events"] for row in rows) > 20
    assert all(row["energy_resolution"] < 2 for row in rows if row["n_events"] > 9)
    # Once more: what is there is used again.
    main(words)
    again = json.loads(file.read_text())
    assert {step["summary"] for step in again["steps"]} == {"made before"}
    assert again["errors"] == found["errors"]
