"""The stand-alone GPU benchmark, without a GPU: it goes through, and says when a part fails."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dry_run(tmp_path):
    pytest.importorskip("numba.cuda")
    parts = ["memory", "equality", "kernel", "tuning"]
    run = subprocess.run(
        [sys.executable, SCRIPT, "--cpu-dry-run", "--output", tmp_path, "--parts", *parts],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,  # it finds its packages from anywhere
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = tmp_path.glob("*-gpu-dry.json")
    found = json.loads(path.read_text())
    assert list(found["parts"]) == parts
    kernels, chains = found["parts"]["equality"]["tables"]
    assert len(kernels["rows"]) >= 12
    assert all(row[1] < 1e-5 for row in kernels["rows"])
    assert {row[0] for row in chains["rows"]} >= {
        "CUDA loops, thread form",
        "CUDA loops, block form",
        "jax backend",
    }
    assert all(row[1] < 1e-3 for row in chains["rows"])
    (rates,) = found["parts"]["kernel"]["tables"]
    assert all(row[3] > 0 for row in rates["rows"])
    text = path.with_suffix(".md").read_text()
    assert "Roofline" in text
    assert text in run.stdout


def test_a_part_that_fails_leaves_the_others_alone(gpu, tmp_path, monkeypatch, capsys):
    def result(name, size):
        return {"failed": "RuntimeError: no"} if name == "disk" else {"notes": ["fine"]}

    monkeypatch.setattr(gpu, "in_its_own_process", result)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert gpu.main(["--output", str(tmp_path), "--parts", "disk", "tuning"]) == 1
    shown = capsys.readouterr().out
    assert "**Failed:** RuntimeError: no" in shown
    assert "fine" in shown
    assert gpu.main(["--output", str(tmp_path), "--parts", "tuning"]) == 0


def test_a_process_that_ends_badly_is_a_failed_part(gpu, monkeypatch):
    monkeypatch.setattr(gpu.sys, "executable", "/bin/false")
    assert "failed" in gpu.in_its_own_process("memory", "dry")
