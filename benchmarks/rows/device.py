"""Counts in the host's memory to columns in the host's memory, computed on a GPU."""

import functools
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from astri_gpu.backend import make_backend
from astri_gpu.errors import AstriError

from ..astri_images import make_events
from ..cases import run_case
from ..chains import (
    Setup,
    charges,
    ctapipe_chain,
    our_chain,
    our_stream,
    setup,
    worst_difference,
)
from ..row import Measured, NotMeasured, Row, Settings, reference
from ..timing import rates

__all__ = ["ROW", "copy_rate", "measure_on"]

BATCH = 8192
PEER = "ctapipe's functions"


def measure(settings: Settings) -> Measured:
    """Return the rate of the fastest backend that computes on a GPU."""
    found = {name: measure_on(name, settings) for name in devices()}
    if not found:
        raise NotMeasured("no GPU here")
    best = max(found, key=lambda name: found[name].rate)
    others = tuple(
        f"backend {name}: {figures.rate:,.0f} images/s"
        for name, figures in found.items()
        if name != best
    )
    figures = found[best]
    notes = (f"backend {best}", *figures.notes, *others)
    return Measured(**{**vars(figures), "notes": notes})


def devices() -> list[str]:
    """Return the backends that compute on a GPU here."""
    found = []
    try:
        make_backend("cupy")
        found.append("cupy")
    except AstriError:
        pass
    import jax

    if any(device.platform == "gpu" for device in jax.devices()):
        found.append("jax")
    return found


def measure_on(name: str, settings: Settings) -> Measured:
    """Return the figures of one backend; its copies to and from the device are in the clock."""
    batch, n_images = settings.size(BATCH, 16), settings.size(8 * BATCH, 64)
    n_peer = settings.size(1024, 32)
    made = setup(make_events(n_images))
    contestants: dict[str, tuple[int, Callable[[], Any]]] = {
        name: (n_images, functools.partial(our_stream(made, name, batch), 0, n_images))
    }
    notes = [
        f"{batch} images a batch, as many in flight as `process` has",
        "`python benchmarks/gpu.py` measures kernels alone and disks too",
    ]
    try:
        contestants[PEER] = (n_peer, ctapipe_chain(made, charges(made, 0, n_peer)))
    except ImportError:
        notes.append("the peer is not measured: ctapipe is not installed")
    found = rates(contestants, n_rounds=settings.size(7, 1))
    peer = found.get(PEER)
    error, column = _difference(made, name, min(n_peer, 256))
    case = run_case("chain", fresh=False, backend=name, batch=batch, threads=0)
    return Measured(
        rate=found[name].median,
        peer=PEER,
        peer_rate=peer and peer.median,
        ratio=found[name].ratio(peer) if peer else None,
        ceiling="copying the counts to the device",
        ceiling_rate=copy_rate(name, made.events.adc[:batch]),
        error=error,
        error_from=reference(error, column),
        peak_memory_mib=case["peak_memory_mib"],
        notes=tuple(notes),
        details={"rounds": {who: rate.rounds for who, rate in found.items()}},
    )


def _difference(made: Setup, name: str, n_images: int) -> tuple[float, str]:
    """Return the largest relative difference from the numpy backend, and its column."""
    columns = []
    for backend, run in (our_chain(made, name), our_chain(made, "numpy")):
        found = run(0, n_images).columns
        columns.append({column: backend.to_host(values) for column, values in found.items()})
    return worst_difference(*columns)


def copy_rate(name: str, adc: NDArray[Any]) -> float:
    """Return how many images/s go to the device, their counts alone."""
    backend = make_backend(name)
    call = functools.partial(_copy, backend, adc)
    return rates({"copy": (len(adc), call)}, n_rounds=7)["copy"].median


def _copy(backend: Any, adc: Any) -> None:
    backend.synchronize(backend.asarray(adc))


ROW = Row(
    "device",
    "DL0 → DL1b on a GPU, counts and columns in the host's memory",
    "",
    measure,
)
