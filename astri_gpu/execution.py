"""Processes of this machine: how many, each with its share of cores and GPUs, and what if one dies.

A worker is one process and works on one item at a time. Dask's workers (`execution_dask`) get their
shares from here too.
"""

import contextlib
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from astri_gpu.config_sections import ExecutionConfig
from astri_gpu.errors import AstriError
from astri_gpu.log import quiet_libraries

__all__ = [
    "Results",
    "Share",
    "WorkerDied",
    "Workers",
    "cores",
    "devices_for",
    "plan_workers",
    "run_in_processes",
    "visible_devices",
]

# Each is looked at when its library starts: the loops, the codecs, BLAS, XLA on the CPU.
THREAD_VARIABLES = (
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "ZARR_THREADING__MAX_WORKERS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NPROC",
)

T = TypeVar("T")
R = TypeVar("R")
Results = Generator[tuple[int, R | Exception], None, None]
"""Number of the item, and what became of it: what the call returned, or why it returned nothing."""


class WorkerDied(AstriError):
    """The process that worked on an item ended without a word, as often as it was tried."""

    def __init__(self, times: int) -> None:
        super().__init__(times)
        self.times = times

    def __str__(self) -> str:
        often = "" if self.times == 1 else f" each of the {self.times} times it was tried"
        return (
            f"its worker process died{often} (is the memory used up?): lower batch_size or "
            "execution.n_workers and run again, what is finished is kept"
        )


@dataclass(frozen=True)
class Share:
    """What one worker may use of its machine."""

    threads: int = 0
    """CPU threads, 0 = all cores."""
    device: str | None = None
    """Value for CUDA_VISIBLE_DEVICES; None leaves it alone."""
    device_is_shared: bool = False
    """Whether other workers use the same GPU."""

    def take(self) -> None:
        """Set the environment of this process, before it imports what computes."""
        if self.threads:
            # Numba fails when its variable changes after its threads have begun.
            late = {"NUMBA_NUM_THREADS"} if "numba" in sys.modules else set()
            names = [name for name in THREAD_VARIABLES if name not in late]
            os.environ.update(dict.fromkeys(names, str(self.threads)))
        if self.device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.device
        if self.device_is_shared:
            # XLA otherwise takes three quarters of the memory of a GPU at once.
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@dataclass(frozen=True)
class Workers:
    """How many processes work, and with what."""

    number: int
    threads: int = 0
    """CPU threads of each, 0 = all cores."""
    devices: tuple[str, ...] = ()
    """GPUs that are given out one by one; empty where the workers find theirs themselves."""

    def share(self, index: int) -> Share:
        """Return what the worker of this number, counted from 0, may use."""
        if not self.devices:
            return Share(self.threads)
        device = self.devices[index % len(self.devices)]
        return Share(self.threads, device, self.number > len(self.devices))


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_devices() -> tuple[str, ...]:
    """Return the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Neither CUDA nor a library that holds a device is started.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        # CUDA ignores everything behind a name that is none.
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return tuple(names[:end])
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    n_devices = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return tuple(map(str, range(n_devices)))


def devices_for(backend: str | None) -> tuple[str, ...]:
    """Return the GPUs that a backend computes on: with "cupy", "jax", and "auto" if CuPy is there.

    Parameters
    ----------
    backend
        Name in the configuration; None for a stage without.
    """
    on_gpu = backend in ("cupy", "jax") or (
        backend == "auto" and importlib.util.find_spec("cupy") is not None
    )
    return visible_devices() if on_gpu else ()


def plan_workers(
    execution: ExecutionConfig, n_items: int, *, backend: str | None, per_core: bool
) -> Workers:
    """Return the workers of this machine for a number of items.

    Parameters
    ----------
    execution
        What the configuration asks for.
    n_items
        There are never more workers than items.
    backend
        Name of the backend of the stage; None if it has none. GPUs (see `devices_for`) are given
        out, one per worker.
    per_core
        Whether one worker keeps one core busy and no more. If not, one worker uses all cores or
        one GPU.
    """
    devices = devices_for(backend)
    suitable = cores() if per_core else max(1, len(devices))
    number = max(1, min(execution.n_workers or suitable, n_items))
    threads = execution.threads_per_worker or (max(1, cores() // number) if number > 1 else 0)
    return Workers(number, threads, devices if number > 1 else ())


def run_in_processes(
    call: Callable[[T], R],
    items: Sequence[T],
    workers: Workers,
    *,
    retries: int,
    stopped: Callable[[], bool],
    debug: bool = False,
) -> Results[R]:
    """Call a function with every item in fresh processes and yield what became of each.

    An item whose worker dies, or finds no memory, is tried again at the end, when no other worker
    is left to share the memory with.

    Parameters
    ----------
    call
        Importable function of one item; what it raises is yielded, except an interrupt.
    items
        What is worked on, in this order.
    workers
        From `plan_workers`.
    retries
        Times that an item is tried again.
    stopped
        Once it returns True, nothing more is started.
    debug
        Whether libraries may chatter in the workers.
    """
    waiting, lost = deque(range(len(items))), deque[int]()
    # One pool per worker: when a process dies, it is known which item it had.
    slots = [_pool(workers.share(index), debug) for index in range(workers.number)]
    idle = list(reversed(range(workers.number)))
    running: dict[Future[R], tuple[int, int]] = {}
    try:
        while True:
            while waiting and idle and not stopped():
                slot, index = idle.pop(), waiting.popleft()
                running[slots[slot].submit(call, items[index])] = slot, index
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, index = running.pop(future)
                idle.append(slot)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    slots[slot] = _pool(workers.share(slot), debug)
                if isinstance(error, (BrokenProcessPool, MemoryError)):
                    lost.append(index)
                else:
                    result: R | Exception = _outcome(future)
                    yield index, result
        for pool in slots:
            pool.shutdown()
        while lost and not stopped():
            index = lost.popleft()
            yield index, _alone(call, items[index], workers.share(0), retries, debug)
        for index in lost:
            yield index, WorkerDied(1)
    finally:
        for pool in slots:
            pool.shutdown(wait=True, cancel_futures=True)


def _alone(
    call: Callable[[T], R], item: T, share: Share, retries: int, debug: bool
) -> R | Exception:
    """Return what became of an item whose worker died, tried again with nothing beside it."""
    error: Exception = WorkerDied(1)
    for attempt in range(retries):
        with _pool(share, debug) as pool:
            future = pool.submit(call, item)
            failure = future.exception()
            if isinstance(failure, BrokenProcessPool):
                error = WorkerDied(attempt + 2)
            elif isinstance(failure, MemoryError):
                error = failure
            else:
                return _outcome(future)
    return error


def _outcome(future: Future[R]) -> R | Exception:
    """Return what a call returned or raised; an interrupt is raised here too."""
    try:
        return future.result()
    except Exception as error:
        return error


def _pool(share: Share, debug: bool) -> ProcessPoolExecutor:
    """Return a pool of one fresh process (a forked one inherits threads that no longer run)."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=_start_worker, initargs=(share, debug))


_KEPT = contextlib.ExitStack()


def _start_worker(share: Share, debug: bool) -> None:
    """Prepare a worker: its share of the machine, quiet libraries, and no life after its parent."""
    share.take()
    _KEPT.enter_context(quiet_libraries(debug))
    parent: Any = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)  # the run was killed; what is half done is cleared away by the next one

    threading.Thread(target=follow, daemon=True).start()
