"""The benchmarks run and write what they measured; nothing here says how fast."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("numpy", "cpu")


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_quick_run_writes_both_files(tmp_path):
    done = run("--quick", "--backends", *BACKENDS, "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (json_file,) = tmp_path.glob("*-quick.json")
    (text_file,) = tmp_path.glob("*-quick.md")
    text = text_file.read_text()
    assert str(tmp_path) not in text + json_file.read_text()
    assert re.match(r"# Benchmark", text)
    results = json.loads(json_file.read_text())
    assert results["machine"]["cores"] >= 1
    measured = {case["backend"] for case in results["chain"]["cases"]}
    assert measured == {*BACKENDS, "cpu, one thread"}
    for case in results["chain"]["cases"]:
        assert case["images_per_s"] > 0
        assert case["peak_memory_mib"] >= case["memory_before_mib"] > 0
    assert results["chain"]["errors"]["cpu from numpy"]["worst"] < 1e-4
    for case in results["stores"]["cases"]:
        assert set(case["images_per_s"]) == {"whole", "reading", "computing", "writing"}
        assert case["n_stereo"] > 0
    kernels = {entry["kernel"] for entry in results["kernels"]}
    assert {"tail-cuts", "islands", "hillas", "stereo planes", "stereo lines"} <= kernels


def test_unknown_part_is_refused():
    done = run("everything")
    assert done.returncode == 2
    assert "there is no part everything" in done.stderr
