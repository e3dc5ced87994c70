"""The simulation on a device beside the CPU: showers per second without writing, and equality."""

import time
from typing import Any

import numpy as np

from astri_gpu.config_sections import BackendConfig
from astri_gpu.config_simulation import SimulateConfig
from astri_gpu.kernels.simulation_types import Events, Primaries
from astri_gpu.simulation.engine import ShowerEngine, simulator
from astri_gpu.simulation.plan import plan_production

__all__ = ["simulated"]

BATCH = 20_000  # showers
IMAGES = 4096  # of one launch
N_COMPARED = 200  # images


def simulated(device: str, n_showers: int) -> dict[str, Any]:
    """Return tables of rates and of equality, ready for JSON.

    Parameters
    ----------
    device
        Backend to measure beside cpu.
    n_showers
        Of each particle and backend.
    """
    rates, equal = [], []
    for production in ("gamma", "proton"):
        first: dict[str, Any] = {}
        for backend in ("cpu", device):
            config = SimulateConfig(
                output="none.zarr", production=production, n_showers=n_showers, seed=1,
                backend=BackendConfig(name=backend),
            )  # fmt: skip
            plan = plan_production(config)
            engine = simulator(config, plan).engine
            uses, least = plan.settings.n_uses, plan.settings.min_image_pe
            warm = time.perf_counter()
            first[backend] = _images(engine, 0, min(n_showers, 500), uses, least, N_COMPARED)
            started = time.perf_counter()
            n_triggered = 0
            for begin in range(0, n_showers, BATCH):
                end = min(begin + BATCH, n_showers)
                n_triggered += _images(engine, begin, end, uses, least, None)[0]
            took = time.perf_counter() - started
            rates.append(
                [production, backend, started - warm, n_showers / took, n_triggered / took]
            )
        equal.append([production, *_compare(first["cpu"], first[device])])
    columns = "showers, backend, first 500 s, showers/s, triggered images/s"
    same = "showers, images, same trigger, same counts of pixels, largest difference ADC"
    return {
        "tables": [
            {"title": "Rates", "columns": columns.split(", "), "rows": rates},
            {
                "title": f"{device} beside cpu, image by image",
                "columns": same.split(", "),
                "rows": equal,
            },
        ]
    }


def _images(
    engine: ShowerEngine, begin: int, end: int, n_uses: int, min_image_pe: float, limit: int | None
) -> tuple[int, Any]:
    """Return how many images of some showers trigger, and, with a `limit`, the first of them."""
    shower = np.arange(begin, end, dtype=np.uint32)
    primaries = engine.primaries(shower)
    events = engine.events(shower, n_uses)
    candidate = engine.candidates(primaries, events)
    if not candidate.any():
        return 0, None
    events = Events(*(column[candidate] for column in events))
    developed, row = np.unique(events.shower, return_inverse=True)
    events = events._replace(shower=row.astype(np.int64))
    primaries = Primaries(*(column[developed] for column in primaries))
    rows = engine.develop(primaries)
    mean = engine.expected(primaries, rows, events)
    event, tel = np.nonzero(mean >= min_image_pe)
    if limit is not None:
        event, tel = event[:limit], tel[:limit]
    n_triggered, images = 0, None
    for first in range(0, len(event), IMAGES):
        part = slice(first, first + IMAGES)
        images = engine.images(
            primaries, rows, events, event[part], tel[part], mean[event[part], tel[part]]
        )
        n_triggered += int(np.sum(images.triggered))
    return n_triggered, images if limit is not None else None


def _compare(cpu: tuple[int, Any], device: tuple[int, Any]) -> list[Any]:
    """Return images, shares of equal triggers and equal pixels, and the largest difference."""
    ours, theirs = cpu[1], device[1]
    if ours is None or theirs is None:
        return [0, None, None, None]
    both = ours.triggered & theirs.triggered
    difference = np.abs(ours.adc[both].astype(np.int64) - theirs.adc[both].astype(np.int64))
    return [
        len(ours.triggered),
        float(np.mean(ours.triggered == theirs.triggered)),
        float(np.mean(difference == 0)) if both.any() else None,
        int(difference.max(initial=0)),
    ]
