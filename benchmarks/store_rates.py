"""`process` from store to store, and its three parts alone; every case in a process of its own."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .astri_images import make_events, write_store
from .cases import peak_memory_mib, run_case
from .timing import first_call

__all__ = ["PIPELINES", "measure_stores", "store_case"]

PIPELINES = ("zarrs", "zarr-python")
N_RUNS = 5
POOL_IMAGES = 8192
MIB = 2**20


def measure_stores(
    n_images: int,
    *,
    backend: str,
    threads: int,
    pipelines: Sequence[str],
    folder: str | Path | None,
    fresh: bool,
) -> dict[str, Any]:
    """Return the rates of one synthetic DL0 store, written to a temporary folder for this.

    Parameters
    ----------
    n_images
        At least so many images.
    backend, threads
        As in `astri-gpu process`.
    pipelines
        Codec pipelines of Zarr, out of `PIPELINES`.
    folder
        Where temporary files go; the system's choice if None.
    fresh
        Whether the first run has to compile (an empty cache of compiled code).
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="astri-gpu-benchmark-") as name:
        path = Path(name) / "dl0.zarr"
        pool = make_events(min(n_images, POOL_IMAGES))
        n_images = write_store(path, n_images, pool=pool)
        stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        raw = pool.adc[0].nbytes * n_images
        del pool
        cases = [
            {
                "pipeline": pipeline,
                **run_case(
                    "store",
                    fresh=fresh,
                    path=str(path),
                    pipeline=pipeline,
                    backend=backend,
                    threads=threads,
                ),
            }
            for pipeline in pipelines
        ]
    return {
        "n_images": n_images,
        "raw_mib": raw / MIB,
        "stored_mib": stored / MIB,
        "backend": backend,
        "threads": threads,
        "cases": cases,
    }


def store_case(path: str, pipeline: str, backend: str, threads: int) -> dict[str, Any]:
    """Return rates in images/s of the whole and of reading, computing and writing alone."""
    import astri_gpu.store
    import astri_gpu.store_writer

    if pipeline == "zarr-python":
        # As if zarrs were not installed.
        for module in (astri_gpu.store, astri_gpu.store_writer):
            patched: Any = module
            patched.codec_pipeline = contextlib.nullcontext
    else:
        import zarrs  # noqa: F401  # a benchmark without it would not say so

    from astri_gpu.config import compose
    from astri_gpu.stages.process import process_store

    source = Path(path)
    overrides = [f"backend={backend}", f"backend.threads={threads}", "progress=false"]
    config = compose("process", ["input=none", "output=none", *overrides])
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        output = Path(folder) / "dl2.zarr"

        def whole() -> None:
            summary.append(process_store(source, output, config))

        summary: list[Any] = []
        first = first_call(whole)
        shutil.rmtree(output)
        memory = peak_memory_mib()
        reading, computing, writing = _parts(source, Path(folder), config)
        seconds: dict[str, list[float]] = {}
        parts = {"whole": whole, "reading": reading, "computing": computing, "writing": writing}
        for _ in range(N_RUNS):
            for part, call in parts.items():
                seconds.setdefault(part, []).append(first_call(call))
                for made in Path(folder).iterdir():  # outside the clock
                    shutil.rmtree(made)
    n_images = summary[0].n_images
    return {
        "first_call_s": first,
        "peak_memory_mib": memory,
        "n_events": summary[0].n_events,
        "n_stereo": summary[0].n_stereo,
        "seconds": seconds,
        "images_per_s": {part: n_images / float(np.median(t)) for part, t in seconds.items()},
        "best_images_per_s": n_images / min(seconds["whole"]),
    }


def _parts(source: Path, folder: Path, config: Any) -> tuple[Callable[[], None], ...]:
    """Return calls that only read and decode, only compute (in memory), and only write."""
    from astri_gpu.backend import make_backend
    from astri_gpu.batch import read_batches
    from astri_gpu.kernels.image_types import (
        COLUMNS,
    )
    from astri_gpu.stages.images import camera_arrays, image_settings
    from astri_gpu.store import create, open_store
    from astri_gpu.store_layout import read_layout

    from .astri_images import make_events

    store = open_store(source)
    name = store.cameras()[0]
    camera = read_layout(store).cameras[0]
    n_images = store.n_rows(f"dl0/image/{name}")
    backend = make_backend(config.backend.name, config.backend.threads)
    chunk = store.array(f"dl0/image/{name}/adc").chunks[0]
    batch = min(config.batch_size or chunk, backend.batch_limit or chunk, chunk, n_images)
    fixed = backend.fixed_shape

    def reading() -> None:
        for _ in read_batches(store, name, batch, fixed_shape=fixed):
            pass

    pool = make_events(min(n_images, POOL_IMAGES))
    chain = backend.image_chain(
        camera_arrays(camera, config),
        pool.calibration,
        image_settings(camera, config),
        n_samples=0,
        adc_dtype=pool.adc.dtype,
        dense=False,
    )
    is_shower = np.ones(batch, dtype=np.bool_)

    def computing() -> None:
        for first in range(0, n_images - batch + 1, batch):
            place = first % (len(pool.adc) - batch + 1)
            rows = slice(place, place + batch)
            result = chain(pool.adc[rows], pool.tel_index[rows], is_shower)
            for values in result.columns.values():
                backend.to_host(values)

    output = folder / "columns.zarr"
    result = chain(pool.adc[:batch], pool.tel_index[:batch], is_shower)
    rows = {column: backend.to_host(result.columns[column]) for column in COLUMNS}
    rows["image_flags"] = rows["image_flags"].astype(np.uint32)
    rows |= {"event_index": pool.event_index[:batch], "tel_id": np.ones(batch, np.uint16)}

    def writing() -> None:
        with create(output, attrs={}) as writer:
            table = writer.table(f"dl1/image/{name}", list(rows), sizes={})
            for _ in range(0, n_images, batch):
                table.append(rows)

    return reading, computing, writing
