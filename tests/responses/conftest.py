"""Drawn events, cuts of hand and counts of them, shared by the tests of responses."""

import numpy as np
import pytest

from astri_gpu.config_response import BinningConfig, FluxConfig
from astri_gpu.responses.counting import count
from astri_gpu.responses.edges import fine_edges
from astri_gpu.selection.cuts import Cuts
from astri_gpu.selection.events import read_sample
from tests.drawn_events import MODELS, drawn_stores


def hand_cuts(**changes):
    """Return cuts of ten bins from 1 to 100 TeV, the last one without a cut."""
    n_bins = 10
    gammaness = np.linspace(0.3, 0.6, n_bins)
    theta = np.linspace(0.2, 0.1, n_bins)
    gammaness[-1] = theta[-1] = np.nan
    values = {
        "event_class": "cc03",
        "mode": "sensitivity",
        "exposure_h": 50.0,
        "gamma_efficiency": None,
        "filter": "reco_n_tels >= 1",
        "energy_edges": np.geomspace(1.0, 100.0, n_bins + 1),
        "gammaness": gammaness,
        "theta_deg": theta,
        "n_tels": np.full(n_bins, 2),
        "quality": np.full(n_bins, 4),
        "gammaness_efficiency": np.full(n_bins, 0.8),
        "theta_efficiency": np.full(n_bins, 0.7),
        "flags": np.where(np.isnan(gammaness), 1, 0),
        "meta": {"zenith_deg": 20.0, "models": MODELS, "cameras": ["ASTRICam"]},
    }
    return Cuts(**(values | changes))


def small_binning(**changes):
    """Return few bins, from 0.5 to 500 TeV."""
    values = {
        "energy_min_tev": 0.5,
        "energy_max_tev": 500.0,
        "n_energies": 30,
        "n_offsets": 10,
        "n_migra": 20,
        "n_rad": 50,
        "n_detector": 20,
        "group_true": 3,
        "group_reco": 6,
        "group_offset": 2,
        "group_detector": 2,
    }
    return BinningConfig(**(values | changes))


@pytest.fixture(scope="session")
def binning():
    return small_binning()


@pytest.fixture(scope="session")
def cuts():
    return hand_cuts()


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """Return the paths of DL2b stores: gamma (diffuse), point (gammas), proton, electron."""
    return drawn_stores(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def sample(stores):
    """Return the events of all stores."""
    return read_sample(stores.values())


@pytest.fixture(scope="session")
def counts(sample, cuts, binning):
    """Return the sums over the events that pass the cuts."""
    return count(sample, cuts, fine_edges(binning), FluxConfig(), point_like=False)
