"""How rates, seconds and memory grow: with the batch, with cores, with files, with the input."""

import contextlib
import functools
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .astri_images import make_events
from .chains import charges, ctapipe_chain, our_chain, setup
from .row import Settings, one_line
from .runs import (
    POOL_IMAGES,
    lengthened,
    linked,
    make_stores,
    process_run,
    simulate_run,
)
from .timing import rates

__all__ = [
    "MEMORY_FACTORS",
    "fit_line",
    "measure_batches",
    "measure_cores",
    "measure_files",
    "measure_memory",
    "measure_scaling",
    "thread_counts",
]

PREFIX = "astri-gpu-benchmark-"
MEMORY_FACTORS = (1, 3, 10)
MEMORY_RUNS = 3
FILE_COUNTS = (1, 2, 5, 10, 20)


def measure_scaling(settings: Settings) -> dict[str, Any]:
    """Return all four curves, ready for JSON and for `scaling_figures.draw`.

    One that fails has the reason instead of its numbers, under ``failed``.
    """
    parts: dict[str, Callable[[Settings], dict[str, Any]]] = {
        "batch": measure_batches,
        "cores": measure_cores,
        "files": measure_files,
        "memory": functools.partial(measure_memory, factors=MEMORY_FACTORS[:: settings.size(1, 2)]),
    }
    found = {}
    for name, measure in parts.items():
        print(f"scaling: {name} ...", file=sys.stderr, flush=True)
        try:
            found[name] = measure(settings)
        except Exception as error:  # whatever it is, the other curves are worth having
            found[name] = {"failed": one_line(f"{type(error).__name__}: {error}")}
    return found


def thread_counts(n_cores: int) -> list[int]:
    """Return 1, 2, 4 ... and the number of cores itself."""
    powers = itertools.takewhile(lambda n: n < n_cores, (2**k for k in itertools.count()))
    return [*powers, n_cores]


def measure_batches(settings: Settings) -> dict[str, Any]:
    """Return images/s of the chain in memory against the number of images in a batch."""
    sizes = [2**k for k in range(4, 14)] if not settings.quick else [16, 32]
    curves = {
        "cpu": ("cpu", settings.threads, sizes),
        "cpu, one thread": ("cpu", 1, sizes),
        "numpy": ("numpy", 0, [size for size in sizes if size <= 256]),
        "jax": ("jax", 0, [size for size in sizes[2::2] if size <= 4096] or sizes[:1]),
    }
    made = setup(make_events(max(sizes)))
    contestants: dict[str, tuple[int, Callable[[], Any]]] = {}
    for name, (backend, threads, batches) in curves.items():
        _, run = our_chain(made, backend, threads=threads)
        for batch in batches:
            # The loops are fast: a round of them is all images, whatever the batch.
            n = made.events.n_images if backend == "cpu" else batch
            contestants[f"{name} {batch}"] = (n, _batches_of(run, n, batch))
    n_peer = settings.size(512, 16)
    with contextlib.suppress(ImportError):  # without ctapipe there is no line to compare with
        contestants["ctapipe"] = (n_peer, ctapipe_chain(made, charges(made, 0, n_peer)))
    found = rates(contestants, n_rounds=settings.size(5, 1))
    peer = found.get("ctapipe")
    return {
        "curves": {
            name: [
                {"batch": batch, "images_per_s": found[f"{name} {batch}"].median}
                for batch in batches
            ]
            for name, (_, _, batches) in curves.items()
        },
        "ctapipe_images_per_s": peer.median if peer else None,
    }


def _batches_of(run: Callable[[int, int], Any], n_images: int, batch: int) -> Callable[[], None]:
    def call() -> None:
        for first in range(0, n_images, batch):
            run(first, min(first + batch, n_images))

    return call


def measure_cores(settings: Settings) -> dict[str, Any]:
    """Return images/s against cores: threads in memory, threads of one `process`, and processes.

    Processes have one thread each for the loops and share out the stores; what they import and
    load is in the clock, as for users. Runs from store to store may use no more cores than said.
    """
    cores = thread_counts(len(os.sched_getaffinity(0)))
    n_rounds, warm = settings.size(3, 1), not settings.quick
    made = setup(make_events(settings.size(8192, 64)))
    chain = rates(
        {
            str(n): (
                made.events.n_images,
                _batches_of(our_chain(made, "cpu", threads=n)[1], made.events.n_images, 1024),
            )
            for n in cores
        },
        n_rounds=settings.size(15, 1),
    )
    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix=PREFIX) as name:
        folder = Path(name)
        n_stores = 4 * cores[-1]
        [(store, n_images)] = make_stores(folder, [settings.size(32768, 64)])
        stores = linked(store, folder, n_stores)
        one: dict[int, list[float]] = {n: [] for n in cores}
        many: dict[int, list[float]] = {n: [] for n in cores}
        for _, n in itertools.product(range(n_rounds), cores):
            done = process_run(stores, threads=n, cores=n, warm=warm)
            one[n].append(n_stores * n_images / done["seconds"])
            if n > 1:  # otherwise it is the same run
                done = process_run(stores, threads=1, workers=n, cores=n, warm=warm)
            many[n].append(n_stores * n_images / done["seconds"])
    curves = {
        "in memory, threads": {n: chain[str(n)].rounds for n in cores},
        "store to store, threads of one process": one,
        "store to store, processes of one thread": many,
    }
    return {
        "n_stores": n_stores,
        "n_images": n_images,
        "curves": {
            name: [
                {
                    "cores": n,
                    "images_per_s": median(found[n]),
                    # Neighbouring measurements, as in all ratios.
                    "efficiency": median(
                        b / (n * a) for a, b in zip(found[1], found[n], strict=True)
                    ),
                }
                for n in cores
            ]
            for name, found in curves.items()
        },
    }


def measure_files(settings: Settings) -> dict[str, Any]:
    """Return the seconds of `process` over 1 to 20 stores, long and short, and a line through them.

    A linear cost is one whose points lie on a line: seconds = per_file_s · files + per_image_s ·
    images, found by least squares over all points; ``worst`` is the largest deviation relative to
    the seconds measured.
    """
    counts = FILE_COUNTS if not settings.quick else (1,)
    lengths = (settings.size(16384, 64), settings.size(2048, 32))
    points = []
    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix=PREFIX) as name:
        folder = Path(name)
        for number, (store, n_images) in enumerate(make_stores(folder, lengths)):
            copies = folder / str(number)
            copies.mkdir()
            paths = linked(store, copies, max(counts))
            seconds: dict[int, list[float]] = {count: [] for count in counts}
            for _, count in itertools.product(range(settings.size(2, 1)), counts):
                done = process_run(
                    paths[:count],
                    threads=settings.threads,
                    warm=not settings.quick,
                    folder=folder,
                )
                seconds[count].append(done["seconds"])
            points += [
                {"files": count, "images": count * n_images, "seconds": median(found)}
                for count, found in seconds.items()
            ]
    return {"points": points, **fit_line(points)}


def fit_line(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return seconds per file and per image, fitted to relative deviations."""
    seconds = np.array([point["seconds"] for point in points])
    columns = np.array([[point["files"], point["images"]] for point in points], dtype=float)
    (per_file, per_image), *_ = np.linalg.lstsq(
        columns / seconds[:, None], np.ones(len(points)), rcond=None
    )
    fitted = columns @ np.array([per_file, per_image])
    return {
        "per_file_s": float(per_file),
        "per_image_s": float(per_image),
        "worst": float(np.max(np.abs(fitted / seconds - 1))),
    }


def measure_memory(
    settings: Settings, factors: Sequence[int] = MEMORY_FACTORS, *, simulated: bool = True
) -> dict[str, Any]:
    """Return the peak memory of `process` (and `simulate`) on inputs of growing size, MiB.

    That of `process` is the median of three runs.

    Parameters
    ----------
    settings
        Of the run.
    factors
        Sizes in units of the smallest.
    simulated
        Whether productions of gammas are measured too.
    """
    n_images, n_showers = settings.size(131_072, 64), settings.size(100_000, 200)
    options = ["shower=draft"] if settings.quick else []
    curves: dict[str, list[dict[str, Any]]] = {"process": []}
    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix=PREFIX) as name:
        folder = Path(name)
        for (store, size), factor in zip(_inputs(folder, n_images, factors), factors, strict=True):
            # How far the threads run ahead of each other differs by some per cent from run to run.
            runs = [
                process_run([store], threads=settings.threads, warm=False)
                for _ in range(settings.size(MEMORY_RUNS, 1))
            ]
            done = sorted(runs, key=lambda run: run["peak_memory_mib"])[len(runs) // 2]
            curves["process"].append({"factor": factor, "n": size, **done})
        if simulated:
            curves["simulate"] = [
                {
                    "factor": factor,
                    "n": factor * n_showers,
                    **simulate_run(factor * n_showers, folder, options=options),
                }
                for factor in factors
            ]
    growth = {
        name: points[-1]["peak_memory_mib"] / points[0]["peak_memory_mib"]
        for name, points in curves.items()
    }
    return {"curves": curves, "growth": growth}


def _inputs(folder: Path, n_images: int, factors: Sequence[int]) -> list[tuple[Path, int]]:
    """Return stores of growing size with their numbers of images."""
    if n_images < POOL_IMAGES:  # less than a shard of pixels, which cannot be linked
        return make_stores(folder, [factor * n_images for factor in factors])
    [(store, size)] = make_stores(folder, [n_images])
    return [
        (lengthened(store, folder / f"times_{factor}.zarr", factor), factor * size)
        for factor in factors
    ]
