"""Whole runs of a stage, each in a process of its own: seconds and peak memory (see cases.py)."""

import itertools
import os
import resource
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .astri_images import AstriEvents, make_events, write_store
from .cases import peak_memory_mib, run_case
from .timing import first_call

__all__ = [
    "lengthened",
    "linked",
    "make_stores",
    "process_case",
    "process_run",
    "simulate_case",
    "simulate_run",
]

POOL_IMAGES = 8192
WARM_UP = "warm_up.zarr"
WIDE = ("adc", "trigger_pixel")
"""Columns of pixels, whose shards hold whole images and say nothing about events."""


def make_stores(folder: Path, n_images: Sequence[int]) -> list[tuple[Path, int]]:
    """Write synthetic DL0 stores, and a tiny one to warm up with; return paths and images."""
    pool = make_events(min(POOL_IMAGES, *n_images))
    found = []
    for number, wanted in enumerate(n_images):
        path = folder / f"dl0_{number}.zarr"
        found.append((path, write_store(path, wanted, pool=pool)))
    _warm_up_store(folder, pool)
    return found


def _warm_up_store(folder: Path, pool: AstriEvents) -> None:
    few = pool if pool.n_images <= 256 else make_events(256)
    write_store(folder / WARM_UP, few.n_images, pool=few)


def linked(store: Path, folder: Path, count: int) -> list[Path]:
    """Return `count` stores of other names in `folder` whose files are those of `store`."""
    paths = [folder / f"copy_{number:03d}.zarr" for number in range(count)]
    for path in paths:
        shutil.copytree(store, path, copy_function=os.link)
    return paths


def lengthened(store: Path, path: Path, factor: int) -> Path:
    """Write a store that is `factor` times a synthetic one, and return its path.

    Shards of pixels are linked, so that a store of a hundred gigabytes takes the disk and the time
    of a small one; events and their keys are new.

    Raises
    ------
    ValueError
        When the last shard of pixels is not full.
    """
    import zarr

    def copied(source: str, target: str) -> None:
        is_shard = any(f"/{name}/c/" in source for name in WIDE)
        (os.link if is_shard else shutil.copyfile)(source, target)

    shutil.copytree(store, path, copy_function=copied)
    # Stores of ours leave no chunk out, and readers count on that.
    with zarr.config.set({"array.write_empty_chunks": True}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that consolidated metadata is not in the specification
        _repeat_rows(path, factor)
    return path


def _repeat_rows(path: Path, factor: int) -> None:
    import zarr

    root: Any = zarr.open_group(path, mode="r+", use_consolidated=False)
    n_events = root["dl0/event/event_id"].shape[0]
    steps = {"event_index": n_events, "event_id": n_events, "time_s": n_events}
    camera = next(iter(root["dl0/image"].group_keys()))
    for name in (
        "dl0/event",
        "simulation/event",
        f"dl0/image/{camera}",
        f"simulation/image/{camera}",
    ):
        for column, array in root[name].arrays():
            n_rows = array.shape[0]
            if column in WIDE:
                _link_shards(path / name / column, n_rows, array.shards[0], factor)
                array.resize((factor * n_rows, *array.shape[1:]))
                continue
            values = array[:]
            array.resize((factor * n_rows, *array.shape[1:]))
            array[:] = np.concatenate(
                [values + k * steps[column] if column in steps else values for k in range(factor)]
            )
    root.attrs.update({name: factor * root.attrs[name] for name in ("n_events", "n_images")})
    zarr.consolidate_metadata(path)


def _link_shards(folder: Path, n_rows: int, n_shard: int, factor: int) -> None:
    if n_rows % n_shard:
        raise ValueError(f"{n_rows} rows do not fill shards of {n_shard}")
    n_shards = n_rows // n_shard
    for k, shard in itertools.product(range(1, factor), range(n_shards)):
        if (folder / "c" / str(shard)).exists():  # shards of nothing but zeros are not stored
            shutil.copytree(
                folder / "c" / str(shard),
                folder / "c" / str(k * n_shards + shard),
                copy_function=os.link,
            )


def process_run(
    inputs: Sequence[Path],
    *,
    threads: int = 0,
    workers: int = 1,
    cores: int = 0,
    warm: bool = True,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Return ``seconds`` and ``peak_memory_mib`` of `process` over stores, from a fresh process.

    Parameters
    ----------
    inputs
        DL0 stores; outputs are temporary and beside the first of them.
    threads
        Of each worker, 0 = cores over workers.
    workers
        Processes over the stores; the memory is that of the largest process.
    cores
        Cores that all of them share, 0 = those of this process. A worker of one thread for the
        loops still reads and writes in other threads, so that only this makes it one of one core.
    warm
        Whether a tiny store (`make_stores`) is processed first, outside the clock, so that
        imports and compiled code are there.
    folder
        Of the warm-up store, that of the first input if None.
    """
    where = folder or inputs[0].parent
    return run_case(
        "process",
        fresh=False,
        inputs=[str(path) for path in inputs],
        threads=threads,
        workers=workers,
        cores=cores,
        warm_up=str(where / WARM_UP) if warm else "",
    )


def process_case(
    inputs: list[str], threads: int, workers: int, cores: int = 0, warm_up: str = ""
) -> dict[str, Any]:
    """Do what `process_run` says, in this process."""
    if cores:  # before anything counts them
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from astri_gpu.config import compose
    from astri_gpu.stages import process

    with tempfile.TemporaryDirectory(dir=Path(inputs[0]).parent) as folder:
        places = (Path(folder) / f"run_{number}" for number in itertools.count())

        def run(stores: list[str]) -> None:
            names = ",".join(f"'{name}'" for name in stores)
            options = [
                f"input=[{names}]" if len(stores) > 1 else f"input={names}",
                f"output='{next(places)}'",
                "backend=cpu",
                f"execution.n_workers={workers}",
                f"execution.threads_per_worker={threads}",
                "progress=false",
            ]
            process.run(compose("process", options))

        if warm_up:
            run([warm_up])
        seconds = first_call(lambda: run(inputs))
        memory = max(peak_memory_mib(), _workers_peak_mib())
    return {"seconds": seconds, "peak_memory_mib": memory}


def _workers_peak_mib() -> float:
    """Return the peak memory of the largest process that this one started and outlived."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def simulate_run(n_showers: int, folder: Path, *, options: Sequence[str] = ()) -> dict[str, Any]:
    """Return ``seconds`` and ``peak_memory_mib`` of a production of gammas, from a fresh process.

    Light tables and compiled code are loaded in the clock.
    """
    return run_case(
        "simulate",
        fresh=False,
        n_showers=n_showers,
        folder=str(folder),
        options=list(options),
    )


def simulate_case(n_showers: int, folder: str, options: list[str]) -> dict[str, Any]:
    """Do what `simulate_run` says, in this process."""
    from astri_gpu.config import compose
    from astri_gpu.stages import simulate

    with tempfile.TemporaryDirectory(dir=folder) as name:
        output = Path(name) / "dl0.zarr"
        config = compose(
            "simulate",
            [
                "production=gamma",
                f"n_showers={n_showers}",
                f"output='{output}'",
                "backend=cpu",
                "progress=false",
                *options,
            ],
        )
        seconds = first_call(lambda: simulate.run(config))
        memory = peak_memory_mib()
    return {"seconds": seconds, "peak_memory_mib": memory}
