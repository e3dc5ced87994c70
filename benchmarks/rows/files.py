"""Many stores: two processes beside one."""

import itertools
import os
import tempfile
from pathlib import Path
from statistics import median

from ..row import Measured, NotMeasured, Row, Settings
from ..runs import linked, make_stores, process_run

__all__ = ["ROW"]

GOAL = 0.9


def measure(settings: Settings) -> Measured:
    """Return the rate of one process per core beside that of one process on one core."""
    n_cores = len(os.sched_getaffinity(0))
    if n_cores < 2:
        raise NotMeasured("one core only")
    workers = {"one": 1, "all": n_cores}
    rates: dict[str, list[float]] = {name: [] for name in workers}
    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="astri-gpu-benchmark-") as name:
        folder = Path(name)
        [(store, n_images)] = make_stores(folder, [settings.size(65536, 64)])
        stores = linked(store, folder, settings.size(10, 1) * n_cores)
        total = len(stores) * n_images
        for _, (who, number) in itertools.product(range(settings.size(2, 1)), workers.items()):
            done = process_run(stores, threads=1, workers=number, cores=number)
            rates[who].append(total / done["seconds"])
    speedup = median(b / a for a, b in zip(rates["one"], rates["all"], strict=True))
    efficiency = speedup / n_cores
    return Measured(
        rate=median(rates["all"]),
        peer="one process on one core",
        peer_rate=median(rates["one"]),
        ratio=speedup,
        ceiling=f"{n_cores} times one process",
        ceiling_rate=n_cores * median(rates["one"]),
        reached=efficiency >= GOAL,
        notes=(
            f"parallel efficiency {100 * efficiency:.0f} % over {len(stores)} stores of "
            f"{n_images} images; starting the processes is in the clock",
        ),
        details={"rounds": rates, "efficiency": efficiency, "n_stores": len(stores)},
    )


ROW = Row(
    "files",
    "`process` over many stores, one process per core",
    f"≥ {100 * GOAL:.0f} % of a core's rate per core",
    measure,
)
