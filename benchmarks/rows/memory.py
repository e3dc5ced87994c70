"""Peak memory against the size of the input."""

from ..row import Measured, Row, Settings
from ..scaling import measure_memory

__all__ = ["ROW"]

FACTOR = 10
GROWTH = 1.1
LIMIT_MIB = 2048.0


def measure(settings: Settings) -> Measured:
    """Return the peak memory of `process` on ten times the input."""
    found = measure_memory(settings, (1, FACTOR), simulated=False)
    small, large = found["curves"]["process"]
    peak, growth = large["peak_memory_mib"], found["growth"]["process"]
    return Measured(
        rate=peak,
        unit="MiB",
        peer=f"the same on {small['n']} images",
        peer_rate=small["peak_memory_mib"],
        ratio=growth,
        reached=growth <= GROWTH and peak <= LIMIT_MIB,
        peak_memory_mib=peak,
        notes=(f"{large['n']} images; imports and compiled code are in it",),
        details=found,
    )


ROW = Row(
    "memory",
    f"peak memory of `process`, {FACTOR} × the input",
    f"≤ {GROWTH:g} × that of the input, and ≤ {LIMIT_MIB:.0f} MiB",
    measure,
)
