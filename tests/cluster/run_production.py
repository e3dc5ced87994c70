"""A production of many files through Dask and a real Slurm, compared with a run without either.

    tests/cluster/one_host_slurm.sh start
    python -m tests.cluster.run_production --output benchmarks/results
    tests/cluster/one_host_slurm.sh stop

Simulates a production in parts, processes it in one process, in a pool, with a LocalCluster of
Dask, with Dask workers in Slurm jobs and, one part for two cleanings, as a sweep through
`submitit_slurm`; compares every array; and measures the parallel efficiency over files: the rate of
several one-thread workers on as many cores against one on one core, beside as many commands started
by hand, which shows what cores and disk can give. The files are links to the production, so that
the start of workers does not count for much. Where `sbatch` is missing the Slurm runs are left out,
and the results say so. Exit code 1 when an array differs or a run fails.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe, slug

CLI = [sys.executable, "-m", "astri_gpu.cli"]
GAMMAS = ["shower=draft", "spectrum.energy_min_tev=2", "view.scatter_radius_m=250", "seed=11"]
ONE_THREAD = "execution.threads_per_worker=1"
SWEPT = ("5.0", "7.0")  # cleaning.picture_pe


def main() -> int:
    """Run everything and return 1 if something is not as it should be, otherwise 0."""
    options = _options()
    results: dict[str, Any] = {"machine": describe(), "parts": options.parts}
    with tempfile.TemporaryDirectory(dir=options.work, prefix="production-") as name:
        work = Path(name)
        production = work / "dl0"
        made = [f"n_parts={options.parts}", f"n_showers={options.showers}", *GAMMAS]
        seconds = _run(["simulate", f"output={production}", *made, "backend=cpu"])
        results["simulate"] = {"s": seconds, "showers": options.showers}
        results["images"] = sum(_attributes(path)["n_images"] for path in production.iterdir())
        print(f"{results['images']} images in {options.parts} parts, {seconds:.0f} s", flush=True)
        slurm = shutil.which("sbatch") is not None
        results["runs"] = _runs(production, work, options.workers, slurm)
        results["sweep"] = _sweep(production, work) if slurm else "not run: there is no sbatch"
        results["efficiency"] = _efficiency(
            _links(production, work / "links", options.copies),
            work,
            options.workers,
            options.rounds,
            results["images"] * options.copies,
        )
    text = _markdown(results)
    print(text)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        stem = options.output / f"{slug(results['machine'])}-cluster"
        stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        stem.with_suffix(".md").write_text(text)
    equal = all(run["equal"] for run in results["runs"]) and results["sweep"] is not False
    return 0 if equal else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, default=20, help="files of the production")
    parser.add_argument("--showers", type=int, default=20_000, help="showers of all parts together")
    parser.add_argument("--copies", type=int, default=8, help="times the files are timed with")
    parser.add_argument("--workers", type=int, default=2, help="workers of the parallel runs")
    parser.add_argument("--rounds", type=int, default=3, help="of the efficiency, alternating")
    parser.add_argument("--work", type=Path, help="folder for the stores (5 kB an image, twice)")
    parser.add_argument("--output", type=Path, help="folder for the results")
    return parser.parse_args()


def _run(words: list[str], **options: Any) -> float:
    """Run `astri-gpu` and return the seconds that it took, its start included."""
    started = time.perf_counter()
    done = subprocess.run(
        [*CLI, *words, "progress=false"], capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"astri-gpu {' '.join(words)}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def _process(production: Path, output: Path, *words: str) -> float:
    return _run(["process", f"{production}/*.zarr", f"output={output}", "backend=cpu", *words])


def _runs(production: Path, work: Path, workers: int, slurm: bool) -> list[dict[str, Any]]:
    """Process the production in every way and compare with one process."""
    reference = work / "reference"
    runs = [{"way": "one process, all cores", "s": _process(production, reference), "equal": True}]
    number = f"execution.n_workers={workers}"
    ways = {
        f"pool of {workers} processes": [number],
        f"Dask, {workers} local workers": ["execution=dask", number],
    }
    if slurm:
        ways[f"Dask, {workers} Slurm jobs"] = [
            *("execution=slurm", number, ONE_THREAD, "execution.memory_per_worker_gib=1"),
            f"execution.log_directory={work / 'logs'}",
        ]
    for place, (way, words) in enumerate(ways.items()):
        output = work / f"dl2_{place}"
        seconds = _process(production, output, *words)
        names = sorted(path.name for path in reference.iterdir())
        equal = names == sorted(path.name for path in output.iterdir()) and all(
            _equal(reference / name, output / name) for name in names
        )
        runs.append({"way": way, "s": seconds, "equal": equal})
        print(f"{way}: {seconds:.1f} s, {'equal' if equal else 'NOT EQUAL'}", flush=True)
        shutil.rmtree(output)
    shutil.rmtree(reference)
    return runs


def _sweep(production: Path, work: Path) -> bool:
    """Return whether a sweep through Slurm makes what single runs make."""
    part = min(production.iterdir())
    words = ["process", str(part), "backend=cpu"]
    _run(
        [
            *(*words, f"output={work}/sweep_${{cleaning.picture_pe}}.zarr"),
            *(f"cleaning.picture_pe={','.join(SWEPT)}", "--multirun"),
            *("hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10"),
            f"hydra.sweep.dir={work}/sweep",
        ],
        cwd=work,
    )
    for value in SWEPT:
        _run([*words, f"output={work}/single_{value}.zarr", f"cleaning.picture_pe={value}"])
    return all(
        _equal(work / f"single_{value}.zarr", work / f"sweep_{value}.zarr") for value in SWEPT
    )


def _links(production: Path, folder: Path, copies: int) -> Path:
    """Return a folder with links to the parts, each under several names."""
    folder.mkdir()
    for path in production.iterdir():
        for copy in range(copies):
            (folder / f"{path.stem}_{copy}.zarr").symlink_to(path)
    return folder


def _efficiency(inputs: Path, work: Path, workers: int, rounds: int, images: int) -> dict[str, Any]:
    """Return the rate of several one-thread workers over that of one, for every engine."""
    engines = {
        "pool": lambda number: _timed(inputs, work, number),
        "dask": lambda number: _timed(inputs, work, number, "execution=dask"),
        "by hand": lambda number: _by_hand(inputs, work, number),
    }
    found: dict[str, Any] = {"workers": workers, "images": images}
    times: dict[str, dict[int, list[float]]] = {name: {1: [], workers: []} for name in engines}
    for _ in range(rounds):
        for name, measure in engines.items():
            for number in (1, workers):
                with _on_cores(number):
                    times[name][number].append(measure(number))
    for name, seconds in times.items():
        ratios = [
            one / (workers * several)
            for one, several in zip(seconds[1], seconds[workers], strict=True)
        ]
        found[name] = {
            "images_per_s": {number: images / min(each) for number, each in seconds.items()},
            "s": seconds,
            "efficiency": statistics.median(ratios),
            "efficiencies": ratios,
        }
        print(f"{name}: efficiency {found[name]['efficiency']:.2f}", flush=True)
    return found


@contextlib.contextmanager
def _on_cores(number: int) -> Iterator[None]:
    """Confine commands to as many cores as they have workers.

    A worker with one thread for its loops reads and writes in others, and would take a free core.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _timed(inputs: Path, work: Path, workers: int, *words: str) -> float:
    """Return the seconds of one command with one-thread workers."""
    output = work / "timed"
    seconds = _process(inputs, output, f"execution.n_workers={workers}", ONE_THREAD, *words)
    shutil.rmtree(output)
    return seconds


def _by_hand(inputs: Path, work: Path, number: int) -> float:
    """Return the seconds of several commands side by side, each with its share of the files."""
    paths = sorted(map(str, inputs.iterdir()))
    outputs = [work / f"by_hand_{index}" for index in range(number)]
    started = time.perf_counter()
    commands = [
        subprocess.Popen(
            [
                *(*CLI, "process", *paths[index::number], f"output={output}", "backend=cpu"),
                *("execution.n_workers=1", ONE_THREAD, "progress=false"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for index, output in enumerate(outputs)
    ]
    codes = [command.wait() for command in commands]
    if any(codes):
        raise SystemExit("a command that was started by hand failed")
    seconds = time.perf_counter() - started
    for output in outputs:
        shutil.rmtree(output)
    return seconds


def _attributes(path: Path) -> dict[str, Any]:
    from astri_gpu.store import open_store

    return open_store(path).attrs


def _equal(left: Path, right: Path) -> bool:
    """Return whether two stores have the same arrays with the same values."""
    import zarr

    one, two = (zarr.open_group(path, mode="r") for path in (left, right))
    names, others = (
        sorted(name for name, item in group.members(max_depth=None) if isinstance(item, zarr.Array))
        for group in (one, two)
    )
    return names == others and all(
        np.array_equal(one[name][...], two[name][...], equal_nan=one[name].dtype.kind == "f")
        for name in names
    )


def _markdown(results: dict[str, Any]) -> str:
    machine, efficiency = results["machine"], results["efficiency"]
    load = " / ".join(f"{value:g}" for value in machine["load_average"])
    lines = [
        "# A production of many files through Dask and Slurm",
        "",
        f"{machine['date']}, revision {machine['revision']}, {machine['processor']}, "
        f"{machine['cores']} cores; load average before: {load}.",
        f"{results['parts']} stores with {results['images']} images together, simulated in "
        f"{results['simulate']['s']:.0f} s. Times are those of the whole command: its start, and "
        "that of its workers, included.",
        "",
        "| way | s | images/s | arrays equal to those of one process |",
        "|---|---|---|---|",
    ]
    for run in results["runs"]:
        rate = results["images"] / run["s"]
        equal = "yes" if run["equal"] else "NO"
        lines.append(f"| {run['way']} | {run['s']:.1f} | {rate:,.0f} | {equal} |")
    sweep = results["sweep"]
    told = sweep if isinstance(sweep, str) else {True: "yes", False: "NO"}[sweep]
    names = {"pool": "pool", "dask": "Dask", "by hand": "commands side by side, no engine"}
    lines += [
        "",
        f"Sweep of {len(SWEPT)} cleanings through `submitit_slurm` equal to single runs: {told}.",
        "",
        f"Parallel efficiency over files, {efficiency['workers']} one-thread workers against one, "
        f"the same files ({efficiency['images']} images), rounds alternating (median of ratios):",
        "",
        "| engine | images/s, 1 worker | images/s, all workers | efficiency |",
        "|---|---|---|---|",
    ]
    for engine, name in names.items():
        entry = efficiency[engine]
        one, several = (entry["images_per_s"][number] for number in (1, efficiency["workers"]))
        lines.append(f"| {name} | {one:,.0f} | {several:,.0f} | {entry['efficiency']:.0%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
