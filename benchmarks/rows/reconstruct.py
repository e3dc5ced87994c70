"""`reconstruct` from store to store, and its memory on four times the input."""

import statistics
import tempfile
from pathlib import Path

from ..cases import run_case
from ..row import Measured, Row, Settings, per_two_cores

__all__ = ["ROW"]

GOAL = 200_000
FACTOR = 4
GROWTH = 1.1


def measure(settings: Settings) -> Measured:
    """Return the rate on a simulated production, and how the memory grows with the input."""
    from ..reconstruct_rates import make_models, make_store, repeated

    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="astri-gpu-benchmark-") as name:
        folder = Path(name)
        source, model = make_store(folder, settings.size(20_000, 200)), folder / "models.skops"
        make_models(
            model,
            source,
            n_trees=settings.size(100, 3),
            depth=12,
            n_rows=settings.size(20_000, 200),
        )
        found = []
        for number, rounds in ((1, settings.size(7, 1)), (FACTOR, 0)):
            path = folder / f"times_{number}.zarr"
            repeated(source, path, number * settings.size(4, 1))
            found.append(
                run_case(
                    "reconstruct",
                    fresh=False,
                    path=str(path),
                    model=str(model),
                    threads=settings.threads,
                    rounds=rounds,
                )
            )
    short, long = found
    seconds = {part: statistics.median(values) for part, values in short["seconds"].items()}
    rate = short["n_images"] / seconds["whole"]
    growth = long["peak_memory_mib"] / short["peak_memory_mib"]
    reached = per_two_cores(rate, settings.threads) >= GOAL and growth <= GROWTH
    return Measured(
        rate=rate,
        ceiling="reading and decoding the features alone",
        ceiling_rate=short["n_images"] / seconds["reading"],
        reached=reached,
        peak_memory_mib=short["peak_memory_mib"],
        notes=(
            f"{short['n_images']} images, {short['n_events']} events; the default features, "
            "100 trees of depth 12 in every forest, with and without stereo geometry",
            f"peak memory on {FACTOR} times the input: {growth:.2f} times that",
        ),
        details={"short": short, "long": long},
    )


ROW = Row(
    "reconstruct",
    "DL2a store and forests → DL2b store, cpu backend, all cores",
    f"≥ {GOAL:,} images/s on two cores, memory ≤ {GROWTH:g} × on {FACTOR} × the input",
    measure,
)
