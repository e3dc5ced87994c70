"""Dask as the engine: its workers on this machine, in Slurm jobs, or of a cluster that runs.

The only module that imports dask; workers of `astri_gpu` need the same version of it installed.
"""

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, TypeVar

from astri_gpu.config_sections import ExecutionConfig
from astri_gpu.errors import AstriError
from astri_gpu.execution import Results, Share, WorkerDied, Workers, cores, visible_devices
from astri_gpu.log import quiet_libraries

__all__ = ["missing_package", "run_on_dask", "share_of", "slurm_options"]

PACKAGES = {
    "distributed": "pip install 'astri_gpu[dask]'",
    "dask_jobqueue": "pip install 'astri_gpu[dask]'",
    "dask_cuda": "pip install dask-cuda",
}
SETTINGS = {
    # A worker gets its next unit when it has finished one: units are long, and unequal.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.admin.log-format": "%(name)s: %(levelname)s: %(message)s",
}
SLURM_MEMORY_GIB = 4.0
JOIN_S = 60.0  # Dask's own limit of time for a worker that starts is 30 s: imports from a cold disk

T = TypeVar("T")
R = TypeVar("R")


def missing_package(name: str) -> AstriError:
    """Return the error for a package that `execution` needs and that is not installed."""
    return AstriError(
        f"execution=dask, slurm and cuda need the package {name.replace('_', '-')}, which is not "
        f"installed: {PACKAGES[name]}, or use execution=local."
    )


def run_on_dask(
    call: Callable[[T, int], R],
    items: Sequence[T],
    execution: ExecutionConfig,
    workers: Workers,
    *,
    stopped: Callable[[], bool],
    tell: Callable[[str], None],
) -> Results[R]:
    """Call a function with every item on workers of Dask and yield what became of each.

    Parameters
    ----------
    call
        Importable function of an item and the CPU threads of its worker.
    items
        What is worked on. Every item is one task; no more than one per worker is under way.
    execution
        Kind of cluster, retries and limits.
    workers
        Of this machine (`cluster=local`).
    stopped
        Once it returns True, nothing more is started.
    tell
        Is given the address of the dashboard.

    Raises
    ------
    AstriError
        When Dask is not installed, or the cluster cannot be had.
    """
    distributed = _import("distributed")
    import dask

    settings = {**SETTINGS, "distributed.scheduler.allowed-failures": execution.retries}
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        stack.enter_context(_quiet_dask())
        client = stack.enter_context(_client(distributed, execution, workers, len(items)))
        tell(f"Dask dashboard at {client.dashboard_link}")
        number = _n_workers(client, execution, workers, len(items))
        threads = _threads(client, execution, workers)
        _prepare(client, execution, workers, threads)
        waiting = iter(range(len(items)))
        under_way: dict[Any, int] = {}
        finished = distributed.as_completed()
        while True:
            while len(under_way) < number and not stopped():
                index = next(waiting, None)
                if index is None:
                    break
                future = client.submit(
                    call, items[index], threads, pure=False, retries=execution.retries
                )
                under_way[future] = index
                finished.add(future)
            if not under_way:
                return
            future = next(finished)
            index = under_way.pop(future)
            yield index, _outcome(distributed, future, execution.retries)
            future.release()
            if execution.address is not None:
                number = _n_workers(client, execution, workers, len(items))


def _outcome(distributed: Any, future: Any, retries: int) -> Any:
    """Return what a task returned or raised."""
    if future.status == "cancelled":
        return AstriError("Dask cancelled its task: run again, what is finished is kept")
    try:
        return future.result()
    except distributed.KilledWorker:
        return WorkerDied(retries + 1)
    except Exception as error:
        return error


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise missing_package(name) from error


@contextlib.contextmanager
def _quiet_dask() -> Iterator[None]:
    """Keep Dask's log to what goes wrong with Dask itself; failed units are told of by us."""
    loggers = {name: logging.getLogger(name) for name in ("distributed", "dask_jobqueue")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a dashboard on another port, for example
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


@contextlib.contextmanager
def _client(
    distributed: Any, execution: ExecutionConfig, workers: Workers, n_items: int
) -> Iterator[Any]:
    """Return a client of the wanted cluster; a cluster that was started here is closed again."""
    with contextlib.ExitStack() as stack:
        try:
            if execution.address is not None:
                where: Any = execution.address
            else:
                where = stack.enter_context(_cluster(distributed, execution, workers, n_items))
            client = stack.enter_context(distributed.Client(where, timeout=JOIN_S))
            if execution.cluster != "slurm":  # jobs may wait in the queue for hours
                client.wait_for_workers(1, timeout=JOIN_S)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            what = execution.address or f"a {execution.cluster} cluster"
            text = " ".join(str(error).split())
            raise AstriError(
                f"Dask has no workers for this run at {what} ({text}): check execution.address "
                "and the options of execution, or use execution=local."
            ) from error
        yield client


def _cluster(
    distributed: Any, execution: ExecutionConfig, workers: Workers, n_items: int
) -> contextlib.AbstractContextManager[Any]:
    """Return a cluster that is closed when its context ends."""
    gib = execution.memory_per_worker_gib
    memory = f"{gib}GiB" if gib else 0
    if execution.cluster == "slurm":
        return _slurm_cluster(execution, n_items)
    if execution.cluster == "cuda":
        cuda = _import("dask_cuda")
        number = execution.n_workers or None
        cluster: contextlib.AbstractContextManager[Any] = cuda.LocalCUDACluster(
            n_workers=number, threads_per_worker=1, memory_limit=memory or None
        )
        return cluster
    local: contextlib.AbstractContextManager[Any] = distributed.LocalCluster(
        n_workers=workers.number,
        threads_per_worker=1,  # units at a time, not threads of the computation
        memory_limit=memory,
        silence_logs=logging.CRITICAL,
    )
    return local


@contextlib.contextmanager
def _slurm_cluster(execution: ExecutionConfig, n_items: int) -> Iterator[Any]:
    """Return workers in Slurm jobs, which are asked for at once and cancelled at the end."""
    jobqueue = _import("dask_jobqueue")
    with jobqueue.SLURMCluster(
        **slurm_options(execution), interface=execution.interface, silence_logs="critical"
    ) as cluster:
        n_workers = min(execution.n_workers, n_items)
        cluster.scale(jobs=math.ceil(n_workers / execution.workers_per_job))
        yield cluster


def slurm_options(execution: ExecutionConfig) -> dict[str, Any]:
    """Return the options of one Slurm job, as dask-jobqueue calls them."""
    per_job = execution.workers_per_job
    gib = execution.memory_per_worker_gib or SLURM_MEMORY_GIB
    directives = list(execution.job_directives)
    if execution.gpus_per_job:
        directives.append(f"--gres=gpu:{execution.gpus_per_job}")
    return {
        "queue": execution.queue,
        "account": execution.account,
        "walltime": execution.walltime,
        "processes": per_job,
        "cores": per_job,  # units at a time, one per worker
        "job_cpu": per_job * max(1, execution.threads_per_worker),
        "memory": f"{per_job * gib}GiB",
        "job_extra_directives": directives,
        "job_script_prologue": list(execution.job_prologue),
        "log_directory": execution.log_directory,
        "job_name": "astri-gpu",
    }


def _n_workers(client: Any, execution: ExecutionConfig, workers: Workers, n_items: int) -> int:
    """Return how many tasks may be under way."""
    if execution.cluster == "slurm" and execution.address is None:
        return min(execution.n_workers, n_items)
    if execution.address is not None or execution.cluster == "cuda":
        there = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        return min(there, execution.n_workers or there)
    return workers.number


def _threads(client: Any, execution: ExecutionConfig, workers: Workers) -> int:
    """Return the CPU threads that a worker may use."""
    if execution.threads_per_worker:
        return execution.threads_per_worker
    if execution.address is not None:
        found = client.scheduler_info(n_workers=-1)["workers"].values()
        return min((worker["nthreads"] for worker in found), default=1)
    if execution.cluster == "slurm":
        return 1
    if execution.cluster == "cuda":
        return max(1, cores() // _n_workers(client, execution, workers, 1))
    return workers.threads or cores()


def _prepare(client: Any, execution: ExecutionConfig, workers: Workers, threads: int) -> None:
    """Give every worker its share, those that start later or again too."""
    from distributed import WorkerPlugin

    shares: tuple[Share, ...] = (Share(threads),)
    if execution.address is None and execution.cluster == "local":
        limited = Workers(workers.number, threads, workers.devices)
        shares = tuple(limited.share(index) for index in range(workers.number))
    n_gpus = execution.gpus_per_job if execution.cluster == "slurm" else 0

    class Prepare(WorkerPlugin):
        """Runs in a worker before its first task; workers get it by value."""

        name = "astri-gpu"

        def setup(self, worker: Any) -> None:
            self.undo = prepare_worker(worker.name, shares, n_gpus, execution.workers_per_job)

        def teardown(self, worker: Any) -> None:
            self.undo.close()  # a worker may be a thread of a process that lives on

    client.register_plugin(Prepare())


def prepare_worker(
    name: Any, shares: Sequence[Share], n_gpus: int, workers_per_job: int
) -> contextlib.ExitStack:
    """Give this worker process its share of the machine (see `share_of`) and quiet libraries.

    Returns
    -------
    What makes libraries chatter again when it is closed.
    """
    share_of(name, shares, n_gpus, workers_per_job).take()
    undo = contextlib.ExitStack()
    undo.enter_context(quiet_libraries(debug=False))
    return undo


def share_of(name: Any, shares: Sequence[Share], n_gpus: int, workers_per_job: int) -> Share:
    """Return what a worker may use.

    Parameters
    ----------
    name
        What Dask calls the worker: its number; in a batch job ``cluster-job``, and with several
        workers in it ``cluster-job-number``.
    shares
        By number of the worker.
    n_gpus
        GPUs of the batch job, which Slurm has put into CUDA_VISIBLE_DEVICES; 0 = not one.
    workers_per_job
        Workers that share them.
    """
    last = str(name).rpartition("-")[2]
    index = int(last) if last.isdigit() else 0
    share = shares[index % len(shares)]
    if not n_gpus:
        return share
    of_job = Workers(workers_per_job, share.threads, visible_devices())
    return of_job.share(index if workers_per_job > 1 else 0)
