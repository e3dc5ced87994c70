"""`process` beside `ctapipe-process`: differences are counted rightly, and the whole runs small."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tables", reason="PyTables (the extra `exchange`) is not installed")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def compare_columns(monkeypatch):
    """The benchmarks are no part of the package: they are found from the root of the tree."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.ctapipe_differences").compare_columns


def test_what_counts_as_equal(compare_columns):
    nan = np.nan
    expected = np.array([1.0, 2.0, nan, 0.0, nan])
    found, equal = compare_columns(
        "hillas_length", np.array([1.0005, 2.1, nan, 5e-6, 1.0]), expected
    )
    assert equal.tolist() == [True, False, True, True, False]
    assert found["share_equal"] == pytest.approx(0.6)
    assert found["largest_difference"] == pytest.approx(0.1)
    assert found["relative_to_spread"] == pytest.approx(0.1 / np.std([1.0, 2.0, 0.0]))


def test_axes_have_no_sign(compare_columns):
    found, equal = compare_columns("hillas_psi", np.array([89.999]), np.array([-89.9995]))
    assert equal.all()
    assert found["largest_difference"] < 0.002
    found, equal = compare_columns("hillas_skewness", np.array([0.5]), np.array([-0.5]))
    assert equal.all()
    assert compare_columns("hillas_phi", np.array([179.999]), np.array([-179.999]))[1].all()


@pytest.mark.peers
def test_a_small_run_has_all_figures(peers, tmp_path):
    del peers
    arguments = ["--output", str(tmp_path / "results"), "--gammas", "8000", "--images", "60"]
    arguments += ["--rounds", "1", "--scratch", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.ctapipe_process", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (path,) = (tmp_path / "results").glob("*-ctapipe-process.json")
    found = json.loads(path.read_text())
    assert found["ratio"] > 0
    assert set(found["images_per_s"]) == set(found["peak_memory_mib"]) == {"ctapipe", "astri_gpu"}
    assert all(value > 0 for value in found["peak_memory_mib"].values())
    differences = found["differences"]
    assert differences["n_images"] > 30
    assert differences["share_of_images_equal"] == 1
    assert differences["geometry"]["share_same_validity"] == 1
    assert differences["geometry"]["direction_arcsec"]["largest"] < 1
    assert "hillas_length" in differences["columns"]
    assert not any(name.startswith("timing") for name in differences["columns"])
    text = path.with_suffix(".md").read_text()
    assert text in run.stdout
    assert "images/s | ratio" in text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["results"]
