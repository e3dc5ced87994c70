"""The parts of `gpu`; each returns tables and notes that fit into JSON."""

import functools
import importlib.util
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from astri_gpu.backend import make_backend
from astri_gpu.config import ProcessConfig
from astri_gpu.kernels.image_chain import image_chain
from astri_gpu.kernels.image_types import COLUMNS
from astri_gpu.kernels.loops import cuda as cuda_loops
from astri_gpu.stages.images import camera_arrays, image_settings

from .astri_images import make_events
from .chains import Setup

__all__ = ["SIZES", "Size", "chain_of", "device_arrays", "loops_of", "made_images", "placed"]

HIGH_GAIN_BYTES = 2 * 2368  # the low gain is read only where a pixel needs it
ROW_BYTES = 4 * len(COLUMNS) + 5  # parameters written, calibration index and is_shower read


class Size(NamedTuple):
    """How much is measured."""

    is_dry: bool
    pool: int  # different images
    compared: int  # images of the comparison
    batches: tuple[int, ...]  # images, data on the device
    host_batches: tuple[int, ...]  # images, data on the host
    rounds: int
    copied: int  # bytes of the memory tests
    stored: int  # images on disk
    showers: int


SIZES = {
    "full": Size(
        False, 8192, 8192, (1024, 8192, 65536, 262144, 1048576), (1024, 8192, 65536), 7, 4 << 30,
        400_000, 200_000,
    ),
    "quick": Size(False, 2048, 2048, (8192, 262144), (8192,), 3, 1 << 30, 50_000, 20_000),
    "dry": Size(True, 8, 8, (8,), (4,), 1, 1 << 20, 64, 30),
}  # fmt: skip


def table(title: str, columns: str, rows: list[list[Any]]) -> dict[str, Any]:
    """Return a table; `columns` is their names, by commas."""
    return {"title": title, "columns": [name.strip() for name in columns.split(",")], "rows": rows}


def device_arrays(size: Size) -> Any:
    """Return CuPy, or NumPy in a dry run."""
    return np if size.is_dry else make_backend("cupy").cupy  # type: ignore[attr-defined]


def made_images(size: Size) -> Setup:
    """Return the pool of images, with the default configuration."""
    events = make_events(size.pool)
    config = ProcessConfig(input="none", output="none")
    camera = events.layout.cameras[0]
    return Setup(events, config, camera_arrays(camera, config), image_settings(camera, config))


def repeated(xp: Any, made: Setup, n_images: int) -> list[Any]:
    """Return counts, calibration index and is_shower of so many images, the pool repeated."""
    times = -(-n_images // made.events.n_images)
    arrays = []
    for values in made.rows(0, made.events.n_images):
        there = xp.asarray(values)
        shape = (times * len(there), *there.shape[1:])
        whole = xp.broadcast_to(there, (times, *there.shape)).reshape(shape)
        arrays.append(whole[:n_images].copy())
    return arrays


def seconds(xp: Any, call: Callable[[], Any], size: Size) -> tuple[float, float]:
    """Return the seconds of the first call and the median of later ones, synchronised."""

    def wait() -> None:
        if xp is not np:
            xp.cuda.Device().synchronize()

    def timed(n: int) -> float:
        wait()
        started = time.perf_counter()
        for _ in range(n):
            call()
        wait()
        return (time.perf_counter() - started) / n

    first = timed(1)
    if size.is_dry:
        return first, first
    n_calls = max(1, min(50, int(0.2 / max(timed(1), 1e-6))))
    return first, statistics.median(timed(n_calls) for _ in range(size.rounds))


def copy_bytes_per_s(xp: Any, size: Size) -> float:
    """Return bytes read and written per second by copies on the device."""
    source = xp.ones(size.copied // 8, dtype=np.float64)
    target = xp.empty_like(source)
    return 2 * source.nbytes / seconds(xp, functools.partial(xp.copyto, target, source), size)[1]


def memory_part(size: Size) -> dict[str, Any]:
    """Return what the device is, and how fast its memory and its bus are."""
    xp = device_arrays(size)
    rows = [["copy on the device, read and written", copy_bytes_per_s(xp, size) / 1e9]]
    device = "dry run"
    if xp is not np:
        properties = xp.cuda.runtime.getDeviceProperties(0)
        runtime = xp.cuda.runtime
        device = (
            f"{properties['name'].decode()}, {properties['multiProcessorCount']} processors, "
            f"{properties['totalGlobalMem'] / 2**30:.0f} GiB (driver {runtime.driverGetVersion()},"
            f" CUDA {runtime.runtimeGetVersion()})"
        )
        n_bytes = min(size.copied, 1 << 30)
        there = xp.empty(n_bytes, dtype=np.uint8)
        pinned = np.frombuffer(xp.cuda.alloc_pinned_memory(n_bytes), np.uint8, n_bytes)
        pageable = np.zeros(n_bytes, dtype=np.uint8)
        for name, host in (("pinned", pinned), ("pageable", pageable)):
            took = seconds(xp, functools.partial(there.set, host), size)[1]
            rows.append([f"host to device, {name}", n_bytes / took / 1e9])
            took = seconds(xp, functools.partial(there.get, out=host), size)[1]
            rows.append([f"device to host, {name}", n_bytes / took / 1e9])
    return {"device": device, "tables": [table("Bandwidth", "what, GB/s", rows)]}


def equality_part(size: Size) -> dict[str, Any]:
    """Return how far every kernel and every chain is from the NumPy reference."""
    from .gpu_equality import compared

    return compared(size)


def placed(backend: Any, arguments: Any) -> Any:
    """Return arrays in nested tuples where a backend computes."""
    if isinstance(arguments, tuple):
        parts = [placed(backend, part) for part in arguments]
        return type(arguments)(*parts) if hasattr(arguments, "_fields") else tuple(parts)
    return backend.asarray(arguments)


def chain_of(name: str, made: Setup) -> Any:
    """Return the chain of a backend."""
    return make_backend(name).image_chain(
        made.camera, made.events.calibration, made.settings,
        n_samples=0, adc_dtype=np.dtype(np.uint16), dense=False,
    )  # fmt: skip


def loops_of(made: Setup, xp: Any, size: Size, **shape: Any) -> cuda_loops.CudaImageLoops:
    """Return the CUDA loops in a shape of the launch; see `cuda.prepare`."""
    if size.is_dry:
        shape |= {"n_workers": 4, "n_threads": 4}
    return cuda_loops.prepare(
        made.camera, made.events.calibration, made.settings,
        n_samples=0, adc_dtype=np.dtype(np.uint16), dense=False, xp=xp, **shape,
    )  # fmt: skip


def kernel_part(size: Size) -> dict[str, Any]:
    """Return the rates of the chain with its data on the device, roofline beside."""
    made, xp = made_images(size), device_arrays(size)
    bandwidth = copy_bytes_per_s(xp, size)
    roofline = bandwidth / (HIGH_GAIN_BYTES + ROW_BYTES)
    rows = []
    for form in cuda_loops.FORMS:
        loops = loops_of(made, xp, size, form=form)
        for batch in size.batches:
            first, steady = seconds(
                xp, functools.partial(loops.queue, *repeated(xp, made, batch)), size
            )
            rows.append(_kernel_row(f"CUDA loops, {form} form", batch, first, steady, roofline))
    dense_batches = [b for b in size.batches if b <= 65536]
    backend = make_backend("jax")
    chain = backend.image_chain(
        made.camera, made.events.calibration, made.settings,
        n_samples=0, adc_dtype=np.dtype(np.uint16), dense=False,
    )  # fmt: skip
    for batch in dense_batches:
        there = backend.asbatch(*repeated(np, made, batch))
        call = functools.partial(_jax_call, backend, chain, there)
        rows.append(_kernel_row("array text, jax", batch, *seconds(np, call, size), roofline))
    if xp is not np:
        on_device = [placed(make_backend("cupy"), tuple(a)) for a in (made.camera, _cal(made))]
        for batch in dense_batches[:2]:
            there = repeated(xp, made, batch)
            call = functools.partial(image_chain, *there, *on_device, settings=made.settings)
            rows.append(_kernel_row("array text, cupy", batch, *seconds(xp, call, size), roofline))
    notes = [
        f"Roofline {roofline:.3g} images/s: {HIGH_GAIN_BYTES} bytes of the high gain and "
        f"{ROW_BYTES} of keys and parameters an image at {bandwidth / 1e12:.2f} TB/s, the copy "
        f"rate measured beside. One read of both gains would allow "
        f"{bandwidth / (2 * HIGH_GAIN_BYTES):.3g} images/s."
    ]
    columns = "what, batch, first call s, images/s, share of roofline, share of two-gain roofline"
    return {"tables": [table("Rates", columns, rows)], "notes": notes}


def _cal(made: Setup) -> Any:
    return type(made.events.calibration)(*map(np.asarray, made.events.calibration))


def _kernel_row(name: str, batch: int, first: float, steady: float, roofline: float) -> list[Any]:
    rate = batch / steady
    both = roofline * (HIGH_GAIN_BYTES + ROW_BYTES) / (2 * HIGH_GAIN_BYTES)
    return [name, batch, first, rate, rate / roofline, rate / both]


def _jax_call(backend: Any, chain: Any, there: tuple[Any, ...]) -> None:
    backend.synchronize(chain.run(*there))


def device_chain_part(size: Size) -> dict[str, Any]:
    """Return the rates from counts on the host to columns on the host."""
    made = made_images(size)
    rows = []
    n_batches = 2 if size.is_dry else 24
    for name in ("jax",) if size.is_dry else ("cupy", "jax", "cpu"):
        chain, backend = chain_of(name, made), make_backend(name)
        for batch in size.host_batches:
            host = repeated(np, made, batch)
            for depth in sorted({1, backend.pipeline_depth}):
                call = functools.partial(_stream, chain, host, n_batches, depth)
                first, steady = seconds(np, call, size)
                rate = n_batches * batch / steady
                gigabytes = rate * host[0][0].nbytes / 1e9
                rows.append([name, batch, depth, first, rate, gigabytes])
    columns = "backend, batch, batches in flight, first call s, images/s, GB/s of counts"
    notes = ["Beside it stands the pinned copy from host to device, above."]
    return {"tables": [table("Rates", columns, rows)], "notes": notes}


def _stream(chain: Any, host: list[Any], n_batches: int, depth: int) -> None:
    waiting: list[Any] = []
    for _ in range(n_batches):
        waiting.append(chain.start(*host))
        if len(waiting) == depth:
            waiting.pop(0)()
    for finish in waiting:
        finish()


def disk_part(size: Size) -> dict[str, Any]:
    """Return the rates of decoding a store, and of `process` from store to store."""
    if importlib.util.find_spec("zarr") is None:
        return {"notes": ["Not measured: zarr is not installed."]}
    from astri_gpu.config_sections import BackendConfig
    from astri_gpu.store import open_store

    from .astri_images import write_store

    rows = []
    with tempfile.TemporaryDirectory(prefix="astri-gpu-benchmark-") as folder:
        path = Path(folder) / "dl0.zarr"
        n_images = write_store(path, size.stored, pool=make_events(size.pool))

        def decode() -> None:
            store = open_store(path)
            counts = f"dl0/image/{store.cameras()[0]}/adc"
            for start, stop in store.blocks(counts):
                store.read(counts, start, stop)

        first, steady = seconds(np, decode, size._replace(rounds=min(3, size.rounds)))
        rows.append(["decoding alone", first, n_images / steady])
        try:
            from astri_gpu.stages import process
        except ImportError as error:
            note = f"`process` not measured: {error}."
            return {"tables": [table("Rates", "what, first s, images/s", rows)], "notes": [note]}
        for name in ("cpu",) if size.is_dry else ("cpu", "cupy", "jax"):
            config = ProcessConfig(
                input=str(path), output=str(Path(folder) / f"{name}.zarr"), overwrite=True,
                progress=False, backend=BackendConfig(name=name),
            )  # fmt: skip
            call = functools.partial(process.run, config)
            first, steady = seconds(np, call, size._replace(rounds=min(3, size.rounds)))
            rows.append([f"process, {name}", first, n_images / steady])
    return {"tables": [table("Rates", "what, first s, images/s", rows)]}


def simulation_part(size: Size) -> dict[str, Any]:
    """Return the rates of the simulation without its writing, and that images are equal."""
    from .gpu_simulation import simulated

    return simulated("numpy" if size.is_dry else "cupy", size.showers)


def tuning_part(size: Size) -> dict[str, Any]:
    """Return the rates of the loops for several shapes of the launch."""
    made, xp = made_images(size), device_arrays(size)
    batch = size.batches[-1] if size.is_dry else min(262144, max(size.batches))
    there = repeated(xp, made, batch)
    processors = 1 if xp is np else xp.cuda.Device().attributes["MultiProcessorCount"]
    rows: list[list[Any]] = []
    threads = (4,) if size.is_dry else (32, 64, 128)
    registers = (None,) if size.is_dry else (None, 128, 96, 64)
    shapes = [
        *itertools.product(("thread",), threads, (None,)),
        *itertools.product(("block",), threads, registers),
    ]
    for form, n_threads, most in shapes:
        for per_processor in (4,) if size.is_dry else (128, 256, 384, 512, 1024):
            try:
                loops = cuda_loops.prepare(
                    made.camera, made.events.calibration, made.settings, n_samples=0,
                    adc_dtype=np.dtype(np.uint16), dense=False, form=form, n_threads=n_threads,
                    n_workers=processors * per_processor, xp=xp,
                )  # fmt: skip
            except MemoryError:  # a smaller device
                continue
            if most:
                loops = loops._replace(kernels=_limited(loops.kernels, most))
            _, steady = seconds(xp, functools.partial(loops.queue, *there), size)
            rows.append([form, n_threads, most, per_processor, batch / steady])
            del loops  # before the next one takes its memory
    rows.sort(key=lambda row: -row[-1])
    columns = "form, threads of a block, registers at most, images per processor, images/s"
    return {"tables": [table(f"{batch} images", columns, rows)]}


@functools.cache
def _limited(kernels: Any, registers: int) -> SimpleNamespace:
    """Return the kernels compiled for at most so many registers a thread."""
    names = ("run_sums", "run_sums_together")
    limited = {
        name: kernels.cuda.jit(getattr(kernels, name).py_func, max_registers=registers)
        for name in names
    }
    return SimpleNamespace(**vars(kernels) | limited)
