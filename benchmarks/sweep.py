"""Sweeps of 50 jobs, as a grid and under Optuna: stages used again, failures, kill and resume.

``python -m benchmarks.sweep --help``. Everything is done by the commands of the documentation.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .machine import describe, slug

__all__ = ["main", "measure_sweep"]

N_JOBS = 50
# One of the pairs of theta is impossible, for each cleaning: these two jobs fail.
GRID = [
    "cleaning=astri,mars",
    "cuts.max_theta_deg=0.1,0.15,0.2,0.25,0.3",
    "cuts.min_theta_deg=0.01,0.02,0.03,0.04,0.12",
]
STUDY = [
    "hydra/sweeper=optuna",
    f"hydra.sweeper.n_trials={N_JOBS}",
    "hydra.sweeper.n_jobs=2",
    "hydra.sweeper.sampler.seed=1",
    "cleaning=choice(astri,mars)",
    "cuts.max_theta_deg=interval(0.05,0.3)",
    "cuts.min_theta_deg=interval(0.01,0.1)",
]
KILL_AFTER = 20  # jobs
LAUNCHER = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
SAME = ["forest=draft", "sample.n_importance=0", "progress=false", "cache=cache", "backend=cpu"]


def main(arguments: list[str] | None = None) -> int:
    """Run both sweeps on DL0 stores and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("inputs", nargs="+", type=Path, help="DL0 stores of gammas and protons")
    parser.add_argument("--train", nargs="+", type=Path, help="DL0 stores to train on")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    inputs = [str(path.resolve()) for path in options.inputs]
    train = [str(path.resolve()) for path in options.train or options.inputs]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        results: dict[str, Any] = {"machine": describe(), "stores": _counts(options.inputs)}
        words = [*inputs, f"train=[{','.join(train)}]", *SAME, *LAUNCHER]
        for name, space in (("grid", GRID), ("study", STUDY)):
            results[name] = measure_sweep(folder, name, [*words, *space], KILL_AFTER)
            results[name]["command"] = shlex.join(["astri-gpu", "optimize", "...", *space])
        said, seconds = _run(["sweep-report", "study", "output=report"], folder)
        results["report"] = {"seconds": seconds, "line": said.splitlines()[-2]}
    results["load_average_after"] = [round(value, 2) for value in os.getloadavg()]
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / f"{slug(results['machine'])}-sweep"
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(results))
    print(stem.with_suffix(".md"))
    return 0


def measure_sweep(folder: Path, name: str, words: list[str], kill_after: int) -> dict[str, Any]:
    """Run a sweep until it is killed, resume it, and run it once more; return what was found."""
    given = ["optimize", *words, f"hydra.sweep.dir={name}", "--multirun"]
    killed = _killed(given, folder, folder / name, kill_after)
    before = len(_records(folder / name))
    resumed, seconds = _run(given, folder)
    records = _records(folder / name)
    again, seconds_again = _run(given, folder)
    done = [record for record in records if record["state"] == "done"]
    first, later = _first_and_later(done)
    return {
        "seconds_until_killed": killed,
        "jobs_when_killed": before,
        "seconds_resumed": seconds,
        "jobs": len(records),
        "failed": len(records) - len(done),
        "stages_run": _summed(records, "n_run"),
        "stages_reused": _summed(records, "n_reused"),
        "seconds_first_job_of_a_worker": first,
        "seconds_later_jobs": later,
        "seconds_again": seconds_again,
        "last_line": resumed.splitlines()[-1],
        "last_line_again": again.splitlines()[-1],
        "best_score": min(record["score"] for record in done),
    }


def markdown(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    machine = results["machine"]
    load = " / ".join(f"{value:g}" for value in results["load_average_after"])
    stores = ", ".join(f"{name} {number:,}" for name, number in results["stores"].items())
    rows = [
        ("jobs (of which failed, as planned)", lambda s: f"{s['jobs']} ({s['failed']})"),
        ("killed (SIGKILL) after", lambda s: f"{s['seconds_until_killed']:.0f} s"),
        ("jobs recorded by then", lambda s: f"{s['jobs_when_killed']}"),
        ("resumed: the rest took", lambda s: f"{s['seconds_resumed']:.0f} s"),
        ("the same once more", lambda s: f"{s['seconds_again']:.0f} s"),
        ("stages run", lambda s: _words(s["stages_run"])),
        ("stages used again", lambda s: _words(s["stages_reused"])),
        ("first job of a worker, median", lambda s: f"{s['seconds_first_job_of_a_worker']:.2f} s"),
        ("later jobs, median", lambda s: f"{s['seconds_later_jobs']:.2f} s"),
    ]
    lines = [
        f"| {text} | {show(results['grid'])} | {show(results['study'])} |" for text, show in rows
    ]
    said = [f"`{results[name]['last_line']}`" for name in ("grid", "study")]
    return "\n".join(
        [
            "# Sweeps of 50 jobs on two cores",
            "",
            f"{machine['date']}, revision {machine['revision']}, {machine['processor']}, "
            f"{machine['cores']} cores; load average at the end {load}. Events: {stores}, of the "
            "built-in **fast model**; the work is what is measured.",
            "",
            "Both with the joblib launcher, two workers, DL0 stores as inputs, and the same cache; "
            "the study under Optuna comes second and finds in it what the grid has made.",
            "",
            f"* grid: `{results['grid']['command']}`",
            f"* study: `{results['study']['command']}`",
            "",
            "| | grid | Optuna |",
            "|---|---:|---:|",
            *lines,
            "",
            "Last lines of the resumed sweeps:",
            "",
            *(f"* {text}" for text in said),
            "",
        ]
    )


def _words(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items()) or "none"


def _counts(paths: list[Path]) -> dict[str, int]:
    from astri_gpu.store import open_store

    return {
        str(open_store(path).attrs["kind"]): open_store(path).n_rows("dl0/event") for path in paths
    }


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "astri_gpu.cli", *words]


def _run(words: list[str], folder: Path) -> tuple[str, float]:
    """Return what a command wrote and the seconds it took."""
    started = time.perf_counter()
    done = subprocess.run(
        _command(words), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode not in (0, 3):  # 3: some jobs failed
        raise RuntimeError(done.stdout[-4000:])
    return done.stdout.strip(), time.perf_counter() - started


def _killed(words: list[str], folder: Path, sweep: Path, after: int) -> float:
    """Start a sweep, kill it and all its workers after some jobs; return the seconds."""
    started = time.perf_counter()
    running = subprocess.Popen(
        _command(words),
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while running.poll() is None and len(list(sweep.glob("results/*/job.json"))) < after:
        time.sleep(0.05)
    if running.poll() is not None:
        raise RuntimeError("the sweep ended before it could be killed")
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return time.perf_counter() - started


def _records(sweep: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(sweep.glob("results/*/job.json"))]


def _summed(records: list[dict[str, Any]], part: str) -> dict[str, int]:
    names = dict.fromkeys(name for record in records for name in record.get(part, {}))
    return {name: sum(record.get(part, {}).get(name, 0) for record in records) for name in names}


def _first_and_later(records: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the median seconds of first jobs of workers, and of their later jobs."""
    first, later = [], []
    for process in {record["process"] for record in records}:
        of_it = [record for record in records if record["process"] == process]
        of_it.sort(key=lambda record: record["started"])
        first.append(of_it[0]["seconds"])
        later += [record["seconds"] for record in of_it[1:]]
    return statistics.median(first), statistics.median(later or first)


if __name__ == "__main__":
    sys.exit(main())
