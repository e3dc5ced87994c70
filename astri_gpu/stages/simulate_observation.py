"""The stage `simulate-observation`: a night's run of the array as camera packets."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.progress import progress
from astri_gpu.stages.units import counted

if TYPE_CHECKING:
    from astri_gpu.config_observation import SimulateObservationConfig

__all__ = ["Summary", "run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What was simulated; `line` is the summary for the terminal.

    `n_showers` triggered at least one telescope; `n_images` and `n_calibration` are packets of
    events, `n_lost` triggers in the dead time, `seconds` the time it took.
    """

    output: Path
    description: Path
    truth: Path
    backend: str
    duration_s: float
    n_telescopes: int
    n_thrown: int
    n_showers: int
    n_images: int
    n_calibration: int
    n_lost: int
    n_bytes: int
    seconds: float

    @property
    def line(self) -> str:
        """Return events, images, rates, size and seconds in one line."""
        rate = self.n_images / self.duration_s / self.n_telescopes
        thrown = self.n_thrown / self.seconds if self.seconds > 0 else 0.0
        return (
            f"simulate-observation: {self.output} has {self.duration_s:g} s of "
            f"{counted(self.n_telescopes, 'telescope')}: {counted(self.n_showers, 'shower')} that "
            f"triggered ({self.n_thrown:,} thrown, {thrown:,.0f} a second), "
            f"{counted(self.n_images, 'image')} ({rate:.1f} Hz a telescope), "
            f"{counted(self.n_calibration, 'calibration event')}, {self.n_lost:,} lost in the "
            f"dead time, {self.n_bytes / 1e6:,.0f} MB in {self.seconds:.1f} s "
            f"(backend {self.backend})"
        )


def run(config: "SimulateObservationConfig") -> Summary:
    """Simulate a run into the folder `output`, which appears whole or not at all.

    Raises
    ------
    UsageError
        For a run that cannot be, or an output that exists.
    AstriError
        When the disk is too small, or atmosphere, packet format or backend cannot be used.
    """
    from astri_gpu.observing.run import make_run

    total = int(config.observation.duration_s)
    with progress(total, "simulate-observation", "s", config.progress) as shown:
        made = make_run(config, shown)
    if not made.n_sci:
        logger.warning(
            "%s holds no shower: none of %d particles triggered a telescope",
            made.output,
            made.n_thrown,
        )
    return Summary(
        output=made.output,
        description=made.description,
        truth=made.truth,
        backend=made.backend,
        duration_s=made.duration_s,
        n_telescopes=made.n_telescopes,
        n_thrown=made.n_thrown,
        n_showers=made.n_showers,
        n_images=made.n_sci,
        n_calibration=made.n_cal,
        n_lost=made.n_lost,
        n_bytes=made.n_bytes,
        seconds=made.seconds,
    )
