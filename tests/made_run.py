"""A small simulated run of camera packets, for tests of what is made of it.

The source is far stronger than any: a few seconds hold gammas. The run begins when the Crab nebula
is 20 deg from the zenith, for which the other tests need light tables too.
"""

from pathlib import Path

from astri_gpu.config_observation import (
    ClockConfig,
    InterleavedConfig,
    SimulateObservationConfig,
)
from astri_gpu.config_response import FluxConfig, ObservationConfig
from astri_gpu.config_sections import BackendConfig
from astri_gpu.config_simulation import ArrayConfig, CameraConfig, ShowerConfig
from astri_gpu.stages.simulate_observation import Summary, run

START = "2026-01-15T21:35:50"
SECONDS = 4.0


def run_config(
    folder, *, seconds=SECONDS, array="mini_array", **options
) -> SimulateObservationConfig:
    """Return the options of a run in a folder; `options` are those of the stage."""
    options = {
        "start": START,
        "gamma_factor": 60.0,
        "background_factor": 0.06,
        "seed": 5,
        "backend": BackendConfig(name="cpu"),
        "array": ArrayConfig(layout=array),
        "shower": ShowerConfig(tables="draft"),
        "camera": CameraConfig(dead_time_us=20.0),
        "flux": FluxConfig(gamma="powerlaw:1.5e-6:-2.3"),
        "observation": ObservationConfig(duration_s=seconds),
        "clock": ClockConfig(),
        "interleaved": InterleavedConfig(
            pedestal_hz=8.0, flatfield_hz=8.0, housekeeping_s=0.5, variance_s=1.0
        ),
        **options,
    }
    return SimulateObservationConfig(output=str(folder), progress=False, **options)


def made_run(folder: Path, **options) -> Summary:
    """Make a run in a folder; see `run_config`. Its summary names description and truth."""
    return run(run_config(folder, **options))
