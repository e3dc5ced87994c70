"""Clocks of telescopes: what they read, a little off the time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import UsageError
from astri_gpu.kernels.random import key_of, normal_pair, philox
from astri_gpu.kernels.simulation_types import Stream
from astri_gpu.simulation.writer import NS

if TYPE_CHECKING:
    from astri_gpu.config_observation import ClockConfig

__all__ = ["Clocks"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

START, JITTER = 0, 1
"""Index of the random stream `TIME`: constants of a clock, errors of its times."""


@dataclass(frozen=True)
class Clocks:
    """Clocks of all telescopes, (tel,) each; times are counted from the start of the run."""

    tel_id: Ints
    offset_ns: Floats
    """At the start."""
    drift_ns_per_s: Floats
    jump_ns: Floats
    jump_s: Floats
    """When the jump comes."""
    jitter_ns: float
    seed: int

    @classmethod
    def drawn(
        cls, config: "ClockConfig", tel_id: NDArray[np.integer], duration_s: float, seed: int
    ) -> "Clocks":
        """Return clocks as the options say; what is drawn depends on seed and telescope number.

        Raises
        ------
        UsageError
            When the telescope whose clock jumps is not there.
        """
        number = np.asarray(tel_id, np.int64)
        jumps = number == config.jump_telescope
        if config.jump_ms and not jumps.any():
            raise UsageError(
                f"clock.jump_telescope is {config.jump_telescope}, which is not in the array "
                f"({', '.join(map(str, number))}): give one of these, or clock.jump_ms=0."
            )
        words = philox(number, Stream.TIME << 24 | START, 0, 0, key=key_of(seed))
        z_offset, z_drift = normal_pair(words[0], words[1])
        return cls(
            tel_id=number,
            offset_ns=config.offset_us * 1e3 * z_offset,
            drift_ns_per_s=config.drift_ns_per_s * z_drift,
            jump_ns=np.where(jumps, config.jump_ms * 1e6, 0.0),
            jump_s=np.full(len(number), duration_s / 2),
            jitter_ns=config.jitter_ns,
            seed=seed,
        )

    def read(self, tel: int, time_ns: Ints, number: Ints) -> Ints:
        """Return what a clock says at some moments, ns after the start of the run.

        Parameters
        ----------
        tel
            Row of the telescope.
        time_ns
            (moment,), true time.
        number
            (moment,), of the packets, which name the random errors.
        """
        words = philox(
            number.astype(np.uint32),
            Stream.TIME << 24 | JITTER,
            int(self.tel_id[tel]),
            0,
            key=key_of(self.seed),
        )
        error, _ = normal_pair(words[0], words[1])
        seconds = time_ns / NS
        off = self.offset_ns[tel] + self.drift_ns_per_s[tel] * seconds + self.jitter_ns * error
        off = off + np.where(seconds >= self.jump_s[tel], self.jump_ns[tel], 0.0)
        return time_ns + np.rint(off).astype(np.int64)
