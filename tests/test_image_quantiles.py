"""Quantiles of image parameters beside published histograms (benchmarks/image_quantiles.py)."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

# The benchmarks are no installed package.
SOURCE = Path(__file__).resolve().parents[1] / "benchmarks" / "image_quantiles.py"
SPEC = importlib.util.spec_from_file_location("image_quantiles", SOURCE)
quantiles = sys.modules["image_quantiles"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(quantiles)
GOALS, compare, draw = quantiles.GOALS, quantiles.compare, quantiles.draw
read_reference = quantiles.read_reference

COLUMNS = ("hillas_length", "hillas_width", "astri_conc")


@pytest.fixture
def reference(tmp_path):
    """Histograms of an exponential between its 1 % and 99 % quantiles, as published ones are."""
    edges = np.linspace(-np.log(0.99), -np.log(0.01), 400)
    share = np.diff(1 - np.exp(-edges)) / 0.98
    entry = {"edges": list(edges), **{particle: list(share) for particle in GOALS}}
    path = tmp_path / "reference.json"
    path.write_text(json.dumps({"parameters": dict.fromkeys(("LENGTH", "WIDTH", "CONC"), entry)}))
    return read_reference(path)


def images(scale, n_images=400_000):
    values = np.random.default_rng(1).exponential(scale, n_images)
    leakage = np.zeros(n_images)
    leakage[: n_images // 2] = 0.5
    values[: n_images // 2] = 100.0  # images at the edge do not count
    return {"astri_leakage": leakage, **dict.fromkeys(COLUMNS, values)}


def test_quantiles_of_one_distribution_agree(reference):
    found = compare({"gamma": images(1.0), "proton": images(1.0)}, reference)["table"]
    assert len(found) == 6
    for entry in found:
        assert entry["reached"]
        assert entry["worst"] < 0.02
        assert entry["n_images"] == 200_000
        np.testing.assert_allclose(
            entry["real"], -np.log1p(-np.array([0.10, 0.25, 0.5, 0.75, 0.9])), rtol=2e-3
        )


def test_a_deviation_is_told(reference):
    (entry,) = [
        entry
        for entry in compare({"gamma": images(1.2)}, reference)["table"]
        if entry["parameter"] == "WIDTH"
    ]
    assert not entry["reached"]
    assert entry["worst"] == pytest.approx(0.2, abs=0.02)


def test_the_picture_is_written(reference, tmp_path):
    path = tmp_path / "quantiles.png"
    draw({"gamma": images(1.0, 2000)}, reference, path)
    assert path.stat().st_size > 10_000
