"""Tiny productions, simulated and processed: diffuse gammas and protons with calibration events."""

import pytest

from astri_gpu.config import compose
from astri_gpu.stages import process, simulate
from astri_gpu.store import open_store


def _made(folder, particle, n_showers):
    """Return a DL2a store; each shower is used twice, three events come from the lamp or none."""
    words = [
        f"production={particle}",
        f"n_showers={n_showers}",
        "n_uses=2",
        "seed=1",
        "shower=draft",
        "backend=cpu",
        "view=diffuse",
        "view.scatter_radius_m=500",
        "spectrum.energy_min_tev=3",
        "spectrum.index=-1.5",
        "calibration_events.n_pedestal=2",
        "calibration_events.n_flatfield=1",
        f"output='{folder / 'dl0.zarr'}'",
        "progress=false",
    ]
    simulate.run(compose("simulate", words))
    output = folder / f"{particle}.zarr"
    words = [f"input='{folder / 'dl0.zarr'}'", f"output='{output}'", "progress=false"]
    process.run(compose("process", [*words, "backend=cpu"]))
    return open_store(output)


@pytest.fixture(scope="session")
def gamma_store(tmp_path_factory):
    """Return a DL2a store of about a thousand images of diffuse gammas; not to be changed."""
    return _made(tmp_path_factory.mktemp("gamma"), "gamma", 250)


@pytest.fixture(scope="session")
def proton_store(tmp_path_factory):
    """Return a DL2a store of about a thousand images of protons; not to be changed."""
    return _made(tmp_path_factory.mktemp("proton"), "proton", 300)
