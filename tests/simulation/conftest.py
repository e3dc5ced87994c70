"""Small productions: bright gammas near the array, draft tables, loops unless said otherwise."""

import pytest

from astri_gpu.config_sections import BackendConfig
from astri_gpu.config_simulation import (
    CalibrationEventsConfig,
    ShowerConfig,
    SimulateConfig,
    SpectrumConfig,
    ViewConfig,
)
from astri_gpu.stages.simulate import run
from astri_gpu.store import open_store


def _config(output, **options):
    options = {
        "n_showers": 60,
        "spectrum": SpectrumConfig(energy_min_tev=1.0, energy_max_tev=30.0),
        "view": ViewConfig(scatter_radius_m=250.0),
        "shower": ShowerConfig(tables="draft"),
        "backend": BackendConfig(name="cpu"),
        **options,
    }
    return SimulateConfig(output=str(output), progress=False, **options)


def _made(output, **options):
    run(_config(output, **options))
    return open_store(output)


@pytest.fixture(scope="session")
def simulate_config():
    """Return a function from an output and options to a configuration."""
    return _config


@pytest.fixture(scope="session")
def made():
    """Return a function that runs a configuration, to the store."""
    return _made


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Few gammas without anything else, to compare with."""
    return _made(tmp_path_factory.mktemp("small") / "small.zarr")


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Gammas with calibration events before them."""
    return _made(
        tmp_path_factory.mktemp("gamma") / "gamma.zarr",
        n_showers=300,
        true_images=True,
        calibration_events=CalibrationEventsConfig(
            n_pedestal=20, n_flatfield=10, n_dark=5, n_variance=3, flatfield_pe=[15.0, 30.0]
        ),
    )
