"""The stage `simulate`: Monte Carlo productions from the built-in shower model or from CORSIKA."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.progress import progress
from astri_gpu.stages.units import counted

if TYPE_CHECKING:
    from astri_gpu.config_simulation import SimulateConfig

__all__ = ["Summary", "run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What was simulated; `line` is the summary for the terminal.

    `n_thrown` counts every use of a shower, `n_bytes` is the size of the store on the disk.
    """

    n_showers: int
    n_thrown: int
    n_events: int
    n_images: int
    seconds: float
    n_bytes: int
    backend: str
    output: Path

    @property
    def line(self) -> str:
        """Return showers, events, images, seconds, rates and size in one line."""
        uses = "" if self.n_thrown == self.n_showers else f" ({self.n_thrown} uses)"
        showers_rate, images_rate = (
            number / self.seconds if self.seconds > 0 else 0.0
            for number in (self.n_showers, self.n_images)
        )
        return (
            f"simulate: {counted(self.n_showers, 'shower')}{uses}, "
            f"{counted(self.n_events, 'triggered event')}, {counted(self.n_images, 'image')} in "
            f"{self.seconds:.1f} s ({showers_rate:,.0f} showers/s, {images_rate:,.0f} images/s, "
            f"{self.n_bytes / 1e6:.1f} MB, backend {self.backend})"
        )


def run(config: "SimulateConfig") -> Summary:
    """Simulate a production into the store `output` and return what was done.

    Raises
    ------
    UsageError
        For a production that cannot be, or an existing output.
    AstriError
        When an input file, the disk or the backend cannot be used.
    """
    from astri_gpu.simulation.production import ProductionSummary, simulate

    done: ProductionSummary
    if config.source == "corsika":
        from astri_gpu.simulation.corsika import simulate_corsika

        with progress(None, "simulate", "events", config.progress) as shown:
            done = simulate_corsika(config, shown)
    else:
        with progress(config.n_showers, "simulate", "showers", config.progress) as shown:
            done = simulate(config, shown)
    if not done.n_events:
        logger.warning(
            "%s holds no event: none of %d thrown showers triggered a telescope",
            done.output,
            done.n_thrown,
        )
    return Summary(
        n_showers=done.n_showers,
        n_thrown=done.n_thrown,
        n_events=done.n_events,
        n_images=done.n_images,
        seconds=done.seconds,
        n_bytes=done.n_bytes,
        backend=done.backend,
        output=done.output,
    )
