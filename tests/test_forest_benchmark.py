"""The row of the forests in the table of benchmarks."""

import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_row_agrees_with_scikit_learn(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))  # benchmarks are no installed package
    rows, row = (importlib.import_module(f"benchmarks.{name}") for name in ("rows", "row"))
    (chosen,) = (entry for entry in rows.ROWS if entry.name == "forest")
    entry = row.outcome(chosen, row.Settings(quick=True))
    assert entry["status"] == "measured", entry
    assert entry["unit"] == "rows/s"
    assert entry["rate"] > 0
    assert entry["error"] < 1e-12
    assert "spread" in entry["notes"][0]
    assert set(entry["details"]) == {"classifier", "regressor"}
