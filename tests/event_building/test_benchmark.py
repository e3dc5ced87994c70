"""The benchmark of stereo events on a short run: it measures what it says."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def seb(monkeypatch):
    """Return the module, which is no part of the installed package."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.seb")


def test_a_short_run_is_measured_and_written(seb, tmp_path, capsys):
    seb.main(["--seconds", "30", "--sizes", "9000", "--repeats", "1", "--output", str(tmp_path)])
    (json_file,) = tmp_path.glob("*-seb.json")
    (text_file,) = tmp_path.glob("*-seb.md")
    assert text_file.read_text() in capsys.readouterr().out
    results = json.loads(json_file.read_text())
    assert [len(row["warnings"]) for row in results["cases"]] == [0, 1]
    for row in results["cases"]:
        assert row["efficiency"] > 0.999
        assert row["purity"] > 0.998
        assert row["expected_accidental_hz"] == pytest.approx(0.2, rel=0.2)
        assert row["hits_per_s"] > 0
    chance = results["by_chance"]
    assert chance["accidental_hz"] == pytest.approx(
        chance["expected_accidental_hz"], abs=4 * chance["accidental_error_hz"]
    )
    # Another algorithm finds the same pairs.
    assert results["pairwise"]["efficiency"] == pytest.approx(1, abs=0.002)
    assert results["pairwise"]["n_hits"] == results["cases"][0]["n_hits"]
    assert [row["n_hits"] for row in results["sizes"]] == pytest.approx([9000], rel=0.1)
