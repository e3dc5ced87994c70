"""Analyses that several tests look at: each is done once."""

import pytest

from astri_gpu.config_response import ObservationConfig, SelectConfig
from astri_gpu.config_science import DetectionConfig, ScienceConfig, SedConfig
from tests.conftest import missing
from tests.dl3.conftest import cuts, products, sample, stores
from tests.made_responses import gammapy_part

__all__ = ["cuts", "products", "sample", "stores"]  # fixtures of drawn events

CRAB = {"ra_deg": 83.633, "dec_deg": 22.014}
RUNS = [23523, 23526, 23559, 23592]  # of the Crab nebula


def quick(**changes):
    """Return options for coarse maps, few flux points and small pictures."""
    detection = {
        "map_width_deg": 2.4,
        "map_bin_deg": 0.04,
        "map_bins_per_decade": 2,
        "n_theta2": 15,
    }
    sed = {"points_per_decade": 1, "true_bins_per_decade": 10}
    return ScienceConfig(
        **{
            "progress": False,
            "dpi": 40,
            "detection": DetectionConfig(**(detection | changes.pop("detection", {}))),
            "sed": SedConfig(**(sed | changes.pop("sed", {}))),
            **changes,
        }
    )


@pytest.fixture(scope="session")
def hess(shared_data):
    """Return the folder of H.E.S.S.'s data release, or skip."""
    gammapy_part("gammapy")
    folder = shared_data / "dl3" / "hess-dl3-dr1"
    if not folder.is_dir():
        missing("data", "the H.E.S.S. data release is not on this machine")
    return folder


@pytest.fixture(scope="session")
def crab(hess, tmp_path_factory):
    """Return what the stage says of four runs of the Crab nebula."""
    from astri_gpu.stages.science import run

    output = tmp_path_factory.mktemp("science") / "crab"
    return run(quick(input=str(hess), output=str(output), runs=RUNS))


@pytest.fixture(scope="session")
def drawn(products, tmp_path_factory):
    """Return the folder of two runs of a drawn source as bright as the Crab nebula."""
    from astri_gpu.stages.select import run

    gammapy_part("gammapy")
    folder = tmp_path_factory.mktemp("dl3") / "runs"
    observation = ObservationConfig(n_runs=2, duration_s=900.0, dead_time=0.1)
    run(SelectConfig(**products, output=str(folder), observation=observation))
    return folder


@pytest.fixture(scope="session")
def ours(drawn, tmp_path_factory):
    """Return what the stage says of the drawn source."""
    from astri_gpu.config_science import LightCurveConfig
    from astri_gpu.stages.science import run

    output = tmp_path_factory.mktemp("science") / "ours"
    options = {
        "light_curve": LightCurveConfig(bin_s=450.0),
        "detection": {"map_bin_deg": 0.1, "map_width_deg": 2.0},
    }
    return run(quick(input=str(drawn), output=str(output), **options))
