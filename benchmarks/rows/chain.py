"""Counts to image parameters in memory, on the CPU, beside ctapipe's functions."""

from ..ceilings import read_bytes_per_s
from ..chain_rates import measure_chain
from ..row import Measured, Row, Settings, per_two_cores, reference

__all__ = ["ROW"]

BATCH = 1024
GOAL = 200
BYTES = 2368 * 2
"""Counts that have to be looked at, per image: the low gain only where the high gain saturates."""


def measure(settings: Settings) -> Measured:
    """Return the rate of the cpu backend with all cores; ctapipe has one process."""
    batch = settings.size(BATCH, 32)
    found = measure_chain(
        ["numpy", "cpu"],  # numpy is the reference; its rate is in the part `chain`
        [batch],
        n_images=settings.size(8192, 64),
        n_peer=settings.size(1024, 32),
        n_rounds=settings.size(7, 1),
        fresh=False,
        threads=settings.threads,
    )
    cases = {case["backend"]: case for case in found["cases"]}
    ours, peer = cases["cpu"], found["peer"]
    bandwidth = read_bytes_per_s()
    ratio = ours["ratio_to_ctapipe"]
    error = found["errors"]["cpu from numpy"]
    notes = [f"ASTRI images in two gains, {batch} a batch, all parameters"]
    if "cpu, one thread" in cases:
        one = cases["cpu, one thread"]
        alone = "" if ratio is None else f", {one['ratio_to_ctapipe']:.0f} × ctapipe"
        notes.append(f"one thread: {one['images_per_s']:,.0f} images/s{alone}")
    if peer is None:
        notes.append("the peer is not measured: ctapipe is not installed")
    else:
        off = found["errors"]["cpu from ctapipe"]
        notes.append(f"from ctapipe: {off['worst']:.1e} at most ({off['column']})")
    return Measured(
        rate=ours["images_per_s"],
        peer="ctapipe's functions",
        peer_rate=peer and peer["images_per_s"],
        ratio=ratio,
        ceiling=f"reading {BYTES} bytes an image from memory, {bandwidth / 1e9:.0f} GB/s",
        ceiling_rate=bandwidth / BYTES,
        reached=None if ratio is None else per_two_cores(ratio, settings.threads) >= GOAL,
        error=error["worst"],
        error_from=reference(error["worst"], error["column"]),
        peak_memory_mib=ours["peak_memory_mib"],
        notes=tuple(notes),
        details=found,
    )


ROW = Row(
    "chain",
    "DL0 → DL1b in memory, cpu backend, all cores",
    f"≥ {GOAL} × ctapipe's functions on two cores",
    measure,
)
