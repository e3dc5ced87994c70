"""Real sim_telarray files to DL0 stores, beside `SimTelEventSource`."""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from ..cases import peak_memory_mib, run_case
from ..row import Measured, NotMeasured, Row, Settings

__all__ = ["ROW", "ingest_case"]

GOAL = 5
PEER = "SimTelEventSource"


def measure(settings: Settings) -> Measured:
    """Return the rate on one core of the file with the lowest ratio; the others are in the notes.

    Test files are short, so that their events are repeated (ingest_rates.py).
    """
    if not settings.simtel:
        raise NotMeasured("no sim_telarray file: give --simtel FILE")
    if importlib.util.find_spec("ctapipe") is None:
        raise NotMeasured(f"{PEER} is the peer, and ctapipe is not installed")
    from ..ingest_rates import long_file, measure_ingest

    n_images = settings.size(500, 20)
    found = measure_ingest(
        settings.simtel,
        rounds=settings.size(3, 1),
        n_images=n_images,
        folder=settings.scratch,
    )
    number = min(range(len(settings.simtel)), key=lambda k: found["files"][k]["ratio"])
    entry, path = found["files"][number], Path(settings.simtel[number])
    with tempfile.TemporaryDirectory(dir=settings.scratch) as folder:
        longer = Path(folder) / path.name
        long_file(path, longer, n_images)
        case = run_case("ingest", fresh=False, path=str(longer))
    rate = entry["images_per_s"]
    several = found["processes"]
    notes = [f"{entry['file']}, {entry['n_images']} images, the slowest of {len(found['files'])}"]
    notes.append(
        f"reading alone, which is all that {PEER} does: {rate['reading']:,.0f} images/s, "
        f"{entry['ratio_reading']:.1f} ×"
    )
    notes += [
        f"{other['file']}: {other['images_per_s']['ingest']:,.0f} images/s, {other['ratio']:.1f} ×"
        f" (reading alone {other['ratio_reading']:.1f} ×)"
        for other in found["files"]
        if other is not entry
    ]
    if several["efficiency"] is not None:
        notes.append(f"two processes on two cores: {several['efficiency']:.0%} efficient")
    return Measured(
        rate=rate["ingest"],
        peer=f"{PEER}, same core",
        peer_rate=rate[PEER],
        ratio=entry["ratio"],
        ceiling="unpacking the file alone",
        ceiling_rate=rate["unpacking"],
        reached=entry["ratio"] >= GOAL,
        peak_memory_mib=case["peak_memory_mib"],
        notes=tuple(notes),
        details=found,
    )


def ingest_case(path: str) -> dict[str, Any]:
    """Return the peak memory of a process that ingests one file."""
    from astri_gpu.io.simtel import IngestOptions, ingest_file

    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        ingest_file(Path(path), Path(folder) / "dl0.zarr", IngestOptions(on_error="keep"))
    return {"peak_memory_mib": peak_memory_mib()}


ROW = Row(
    "ingest",
    "sim_telarray file → DL0 store, one core",
    f"≥ {GOAL} × {PEER}",
    measure,
)
