"""Kill stages at random moments, run the same command again, and compare with a quiet run.

``python tests/robustness/kill_runs.py --stage all --kills 20 --seed 1 [--work DIR]``

Every stage of `STAGES` is run once undisturbed. Then the same command is killed again and again
(SIGKILL to its whole process group, workers included) and repeated until it completes. After that

* every array and every attribute equals the undisturbed run, but for times;
* stores that were finished before a kill are the same files: nothing was computed twice;
* the inputs are byte for byte what they were;
* nothing else is left: no ``.partial``, ``.replaced``, ``.lock``, no temporary file.

Half of the moments are drawn uniformly over the time of the undisturbed run, the other half while
something is being written (a ``.partial`` is there), which is the shorter and the harder part.
A new stage adds one entry to `STAGES`. The exit code is 0 when all of this held, 1 otherwise.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("ASTRI_GPU_SHARED_DATA", ROOT.parent / "shared" / "data"))
LIMIT_S = 300.0  # of one run
POLL_S = 0.001
# Attributes that say when a store was made; everything else has to be the same.
TIMES = {"started", "stopped", "seconds"}
OUTPUT = "out"


class Broken(Exception):
    """A promise that was not kept."""


@dataclass(frozen=True)
class Stage:
    """How a stage is run: the inputs it needs, and its words on the command line.

    `prepare` makes inputs in a folder and returns their paths; `words` turns them into the command,
    whose output is the relative path `OUTPUT`.
    """

    prepare: Callable[[Path], list[Path]]
    words: Callable[[list[Path]], list[str]]


def _nothing(folder: Path) -> list[Path]:
    del folder
    return []


def _simtel_files(folder: Path) -> list[Path]:
    """Return three links to a real file, which are three inputs."""
    source = DATA / "simtel" / "gct_checs_muons.simtel.zst"
    if not source.is_file():
        raise FileNotFoundError(f"{source} is not on this machine (ASTRI_GPU_SHARED_DATA)")
    links = [folder / f"run_{k}.simtel.zst" for k in range(3)]
    for link in links:
        link.symlink_to(source)
    return links


def _productions(folder: Path) -> list[Path]:
    """Return four small DL0 stores."""
    words = ["simulate", *SMALL, "n_showers=1200", "seed=5"]
    _finish(_start(words, folder), words)
    return sorted((folder / OUTPUT).iterdir())


def _processed_with_models(folder: Path) -> list[Path]:
    """Return four small DL2a stores and, last, a file of models of such images."""
    steps = {
        "gamma": ["simulate", *SMALL, "n_showers=1200", "seed=5"],
        "proton": ["simulate", *SMALL, "n_showers=2000", "seed=6", "production=proton"],
    }
    steps |= {
        f"{kind}_dl2": ["process", f"../{kind}/{OUTPUT}/*.zarr", *RUN] for kind in tuple(steps)
    }
    both = [f"../{kind}_dl2/{OUTPUT}/*.zarr" for kind in ("gamma", "proton")]
    steps["models"] = ["train", *both, *RUN, "forest=draft", "sample.n_importance=0"]
    for name, words in steps.items():
        _finish(_start(words, folder / name), words)
    return [*sorted((folder / "gamma_dl2" / OUTPUT).iterdir()), folder / "models" / OUTPUT]


RUN = [f"output={OUTPUT}", "progress=false"]
SMALL = ["shower=draft", "n_parts=4", f"output={OUTPUT}", "progress=false"]
STAGES = {
    "simulate": Stage(_nothing, lambda _: ["simulate", *SMALL, "n_showers=1600", "seed=7"]),
    "ingest": Stage(
        _simtel_files,
        lambda paths: [
            "ingest",
            *map(str, paths),
            f"output={OUTPUT}",
            "execution.n_workers=2",
            "progress=false",
        ],
    ),
    "process": Stage(
        _productions,
        lambda paths: [
            "process",
            *map(str, paths),
            f"output={OUTPUT}",
            "images=true",
            "progress=false",
        ],
    ),
    "reconstruct": Stage(
        _processed_with_models,
        lambda paths: ["reconstruct", *map(str, paths[:-1]), f"model={paths[-1]}", *RUN],
    ),
}


def _start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, with temporary files in ``folder/tmp``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "astri_gpu.cli", *words],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder / "tmp")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _finish(running: subprocess.Popen[str], words: list[str]) -> None:
    """Wait for a command that has to succeed."""
    try:
        said, _ = running.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        _kill(running)
        raise Broken(f"astri-gpu {' '.join(words)} does not end") from None
    if running.returncode:
        raise Broken(f"astri-gpu {' '.join(words)} ended with {running.returncode}:\n{said}")


def _kill(running: subprocess.Popen[str]) -> None:
    """Kill the process group and wait until none of it is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    while any(_group(pid) == running.pid for pid in _processes()):
        time.sleep(POLL_S)


def _processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _group(pid: str) -> int:
    """Return the process group of a living process, -1 for one that has ended."""
    try:
        state, _, group = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return -1
    return -1 if state == "Z" else int(group)


def _partials(folder: Path) -> set[Path]:
    """Return what is being written at this moment, for one output or a folder of them."""
    with contextlib.suppress(OSError):
        places = [*folder.glob(f"{OUTPUT}*.partial"), *(folder / OUTPUT).glob("*.partial")]
        return set(places)
    return set()


@dataclass
class Quiet:
    """The undisturbed run: its folder, how long it took, and for how long each unit was written."""

    folder: Path
    seconds: float
    writing: list[float]


def _quiet_run(words: list[str], folder: Path) -> Quiet:
    started = time.monotonic()
    running = _start(words, folder)
    begun: dict[Path, float] = {}
    ended: dict[Path, float] = {}
    while running.poll() is None:
        now = time.monotonic()
        for path in _partials(folder):
            begun.setdefault(path, now)
            ended[path] = now
        if now - started > LIMIT_S:
            break
        time.sleep(POLL_S)
    _finish(running, words)
    return Quiet(
        folder,
        time.monotonic() - started,
        [ended[path] - begun[path] for path in begun] or [0.0],
    )


def _killed_run(words: list[str], folder: Path, quiet: Quiet, draw: random.Random) -> bool:
    """Run the command and kill it; return False if it was done before its moment came."""
    running = _start(words, folder)
    if draw.random() < 0.5:
        _wait(running, draw.uniform(0.0, quiet.seconds))
    else:
        # When so many units are done or begun; a little beyond the end of the next one, because
        # the moments of renaming are worth a try.
        begun = draw.randrange(len(quiet.writing))
        _wait(running, until=lambda: _partials(folder) and len(_finished(folder)) >= begun)
        _wait(running, draw.uniform(0.0, 1.2 * max(quiet.writing)))
    if running.poll() is not None:
        _finish(running, words)
        return False
    _kill(running)
    return True


def _wait(
    running: subprocess.Popen[str],
    seconds: float = LIMIT_S,
    until: Callable[[], Any] = lambda: False,
) -> None:
    """Wait so long, or until something is so, or until the process has ended."""
    started = time.monotonic()
    while running.poll() is None and time.monotonic() - started < seconds and not until():
        time.sleep(POLL_S)


def _finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the finished outputs of a run with what tells whether they were made again."""
    found = {}
    for place in (folder / OUTPUT, *(folder / OUTPUT).glob("*")):
        if place.suffix not in (".partial", ".replaced"):
            with contextlib.suppress(OSError):
                status = (place / "zarr.json").stat()
                found[place.relative_to(folder).as_posix()] = status.st_ino, status.st_mtime_ns
    return found


def _checksums(paths: list[Path]) -> dict[str, str]:
    files = [
        file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))
    ]
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()
    }


def _names(folder: Path) -> list[str]:
    """Return everything in a folder, chunks of arrays left out."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if "c" not in path.relative_to(folder).parts
    )


def _nodes(store: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(store.rglob("zarr.json")):
        meta = json.loads(file.read_text())
        meta.pop("consolidated_metadata", None)
        yield file.parent.relative_to(store).as_posix(), meta


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in TIMES}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def compare(store: Path, reference: Path) -> None:
    """Raise `Broken` where a store differs from another in more than the times of making it."""
    import zarr

    nodes, expected = dict(_nodes(store)), dict(_nodes(reference))
    if nodes.keys() != expected.keys():
        raise Broken(f"{store}: groups or arrays differ: {sorted(nodes.keys() ^ expected.keys())}")
    opened = [
        zarr.open_group(path, mode="r", use_consolidated=False) for path in (store, reference)
    ]
    for name, meta in nodes.items():
        if _without_times(meta) != _without_times(expected[name]):
            raise Broken(f"{store}: the attributes of {name} differ")
        if meta["node_type"] == "array":
            found, wanted = (np.asarray(group[name][...]) for group in opened)
            if found.tobytes() != wanted.tobytes():
                raise Broken(f"{store}: the array {name} differs")


def _check(folder: Path, quiet: Quiet) -> None:
    """Compare a run that was killed and repeated with the undisturbed one."""
    if (names := _names(folder)) != (expected := _names(quiet.folder)):
        raise Broken(f"{folder}: left over or missing: {sorted({*names} ^ {*expected})[:10]}")
    for name in _finished(quiet.folder):
        compare(folder / name, quiet.folder / name)


def kill_stage(name: str, *, kills: int, seed: int, work: Path) -> str:
    """Kill a stage so many times; return a line about it.

    Raises
    ------
    Broken
        When the result differs, work was repeated, an input has changed, or something is left.
    """
    stage, draw = STAGES[name], random.Random(f"{name} {seed}")
    (work / "inputs").mkdir(parents=True)
    inputs = stage.prepare(work / "inputs")
    words = stage.words(inputs)
    before = _checksums(inputs)
    quiet = _quiet_run(words, work / "quiet")
    done = series = writing = kept = 0
    while done < kills:
        folder = work / f"killed_{series}"
        series += 1
        finished: dict[str, tuple[int, int]] = {}
        # Some runs are killed several times in a row.
        while done < kills and _killed_run(words, folder, quiet, draw):
            done += 1
            writing += bool(_partials(folder))
            finished |= _finished(folder)
            if draw.random() < 0.5:
                break
        _finish(_start(words, folder), words)
        last = _finished(folder)
        again = [unit for unit, mark in finished.items() if last.get(unit) != mark]
        if again:
            raise Broken(f"{folder}: finished before a kill and made again: {again}")
        kept += len(finished)
        _check(folder, quiet)
        if _checksums(inputs) != before:
            raise Broken(f"{folder}: an input has changed")
        shutil.rmtree(folder)
    return (
        f"{name}: {done} kills in {series} series ({writing} while a store was written, "
        f"{kept} finished stores kept), results equal to an undisturbed run "
        f"of {quiet.seconds:.1f} s"
    )


def main() -> int:
    """Kill the stages that the options name and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all")
    parser.add_argument("--kills", type=int, default=20, help="of each stage")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="where to work; a temporary folder if left out")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(dir=options.work, prefix="kill-runs-") as folder:
        for name in STAGES if options.stage == "all" else [options.stage]:
            try:
                line = kill_stage(
                    name, kills=options.kills, seed=options.seed, work=Path(folder) / name
                )
            except (Broken, FileNotFoundError) as error:
                failed, line = True, f"{name}: {error}"
            print(line, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
