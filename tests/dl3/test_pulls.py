"""The benchmark of pulls on one small observation: the Crab comes back."""

import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pulls(monkeypatch):
    """Return the module, which is no part of the installed package."""
    pytest.importorskip("gammapy.data")
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.pulls")


def test_the_crab_comes_back_within_errors(dl3, pulls):
    dataset = pulls.reduce_runs(dl3[0], 0.15, (1.0, 100.0))
    found = pulls.fit_runs([dataset])
    assert found["converged"]
    assert found["excess"] > 20
    assert abs(found["amplitude"]["pull"]) < 4
    assert abs(found["index"]["pull"]) < 4
    assert 0 < found["index"]["error"] < 1
    assert found["index"]["true"] == pulls.INDEX


def test_pulls_are_summed_up(pulls):
    found = pulls.pulls_of([-3.0, -1.0, 0.0, 1.0, 2.0])
    assert found["mean"] == pytest.approx(-0.2)
    assert found["within_2_sigma"] == 4
    assert found["error_of_mean"] == pytest.approx(1 / np.sqrt(5))
