"""Small stores for sweeps: drawn ones for cuts, and simulated ones for the stages before."""

import pytest

from astri_gpu.config import compose
from astri_gpu.stages import simulate
from tests.drawn_events import drawn_store


@pytest.fixture(scope="session")
def drawn_pair(tmp_path_factory):
    """Return the paths of two DL2b stores, gammas of a point source and protons."""
    folder = tmp_path_factory.mktemp("drawn_pair")
    gamma, proton = folder / "gamma.zarr", folder / "proton.zarr"
    drawn_store(gamma, "gamma", point_like=True, offset_deg=0.5, n_thrown=15_000, seed=1)
    drawn_store(proton, "proton", n_thrown=30_000, seed=2)
    return str(gamma), str(proton)


@pytest.fixture(scope="session")
def simulated_pair(tmp_path_factory):
    """Return the paths of two DL0 stores of some hundred events, gammas and protons."""
    folder = tmp_path_factory.mktemp("simulated_pair")
    paths = []
    for kind, number in (("gamma", 120), ("proton", 160)):
        output = str(folder / f"{kind}.zarr")
        words = [f"production={kind}", f"n_showers={number}", "n_uses=2", "seed=1"]
        words += ["shower=draft", "backend=cpu", "view=diffuse", "view.scatter_radius_m=500"]
        words += ["spectrum.energy_min_tev=3", "spectrum.index=-1.5", "progress=false"]
        simulate.run(compose("simulate", [*words, f"output='{output}'"]))
        paths.append(output)
    return tuple(paths)
