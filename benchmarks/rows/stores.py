"""`process` from store to store, beside `ctapipe-process` on the same images."""

import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path

from ..row import Measured, Row, Settings, per_two_cores
from ..store_rates import measure_stores

__all__ = ["ROW"]

GOAL = 500
OURS, PEER = "astri_gpu", "ctapipe"


def measure(settings: Settings) -> Measured:
    """Return the rate of `process` with all cores on a simulated production, and its parts.

    Without ctapipe there is no peer, and the rate is that on synthetic images.
    """
    pipeline = "zarrs" if importlib.util.find_spec("zarrs") else "zarr-python"
    stores = measure_stores(
        settings.size(200_000, 64),
        backend="cpu",
        threads=settings.threads,
        pipelines=[pipeline],
        folder=settings.scratch,
        fresh=False,
    )
    (case,) = stores["cases"]
    parts = case["images_per_s"]
    synthetic = (
        f"{stores['n_images']} synthetic images, codecs of {pipeline}: whole "
        f"{parts['whole']:,.0f}, reading alone {parts['reading']:,.0f}, computing alone "
        f"{parts['computing']:,.0f}, writing alone {parts['writing']:,.0f} images/s"
    )
    figures = Measured(
        rate=parts["whole"],
        ceiling="reading and decoding alone",
        ceiling_rate=parts["reading"],
        peak_memory_mib=case["peak_memory_mib"],
        notes=(synthetic,),
        details={"synthetic": stores},
    )
    if importlib.util.find_spec("ctapipe") is None:
        return replace(figures, notes=(synthetic, "peer not measured: ctapipe is not installed"))
    return _beside_peer(figures, settings)


def _beside_peer(figures: Measured, settings: Settings) -> Measured:
    """Return the figures of a simulated production of which ctapipe has the first images."""
    from ..ctapipe_process import N_GAMMAS, N_IMAGES, N_ROUNDS, measure_ctapipe_process

    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="astri-gpu-benchmark-") as name:
        found = measure_ctapipe_process(
            Path(name),
            n_gammas=settings.size(N_GAMMAS, 4000),
            n_images=settings.size(N_IMAGES, 60),
            rounds=settings.size(N_ROUNDS, 1),
            threads=settings.threads,
        )
    rate, peak = found["images_per_s"], found["peak_memory_mib"]
    differences = found["differences"]
    columns = {
        column: entry["relative_to_spread"] for column, entry in differences["columns"].items()
    }
    worst = max(columns, key=lambda column: columns[column])
    n_images = found["rounds"][OURS][0]["n_images"]
    notes = (
        f"{n_images} images of a simulated production, the first "
        f"{differences['n_images']} through ctapipe",
        f"{100 * differences['share_of_images_equal']:.2f} % of those have all parameters equal",
        f"peak memory of ctapipe-process: {peak[PEER]:.0f} MiB",
    )
    return replace(
        figures,
        rate=rate[OURS],
        peer="ctapipe-process, one process",
        peer_rate=rate[PEER],
        ratio=found["ratio"],
        reached=per_two_cores(found["ratio"], settings.threads) >= GOAL,
        error=columns[worst],
        error_from=f"ctapipe ({worst}, relative to its spread)",
        peak_memory_mib=peak[OURS],
        notes=(*notes, *figures.notes),
        details={**figures.details, "production": found},
    )


ROW = Row(
    "stores",
    "DL0 store → DL1b and DL2a store, cpu backend, all cores",
    f"≥ {GOAL} × ctapipe-process on two cores",
    measure,
)
