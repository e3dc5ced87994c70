"""Cuts, a response and stores of drawn events, and a folder of event lists made from them."""

import numpy as np
import pytest

from astri_gpu.config_response import BinningConfig, FluxConfig, ObservationConfig, SelectConfig
from astri_gpu.selection.cut_file import write_cuts
from astri_gpu.selection.cuts import Cuts
from astri_gpu.selection.events import read_sample
from tests.drawn_events import drawn_stores

EDGES = np.geomspace(0.5, 250.0, 9)
EVENT_CLASS = "cc02"
BINNING = BinningConfig(
    energy_min_tev=0.1,
    n_energies=36,
    n_offsets=20,
    offset_max_deg=5.0,
    group_true=2,
    group_reco=4,
    group_offset=4,
    n_migra=30,
    n_rad=50,
    rad_max_deg=0.5,
    n_detector=20,
    group_detector=4,
)


def make_cuts(sample, **changes):
    """Return loose cuts in eight bins, the same in all."""
    ones = np.ones(len(EDGES) - 1)
    values = {
        "event_class": EVENT_CLASS,
        "mode": "efficiency",
        "exposure_h": None,
        "gamma_efficiency": 0.9,
        "filter": "reco_n_tels >= 1",
        "energy_edges": EDGES,
        "gammaness": 0.4 * ones,
        "theta_deg": 0.15 * ones,
        "n_tels": (2 * ones).astype(int),
        "quality": (4 * ones).astype(int),
        "gammaness_efficiency": 0.9 * ones,
        "theta_efficiency": 0.9 * ones,
        "flags": np.zeros(len(ones), dtype=int),
        "meta": {**sample.meta, "zenith_deg": 20.0, "azimuth_deg": 0.0},
    }
    return Cuts(**(values | changes))


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """Return the paths of DL2b stores: gamma (diffuse), point (gammas), proton."""
    return drawn_stores(tmp_path_factory.mktemp("drawn"), kinds=("gamma", "proton"))


@pytest.fixture(scope="session")
def sample(stores):
    """Return the events of the drawn stores."""
    return read_sample(stores.values())


@pytest.fixture(scope="session")
def cuts(sample):
    """Return loose cuts."""
    return make_cuts(sample)


@pytest.fixture(scope="session")
def products(stores, sample, cuts, tmp_path_factory):
    """Return options of `select`: drawn stores, a file of cuts and its response."""
    from astri_gpu.responses.counting import count
    from astri_gpu.responses.edges import fine_edges
    from astri_gpu.responses.irf2_file import write_irf2

    folder = tmp_path_factory.mktemp("products")
    write_cuts(folder / "cuts.fits", cuts)
    pointing = sample.pointings()[0]
    counts = count(sample.at(pointing), cuts, fine_edges(BINNING), FluxConfig(), point_like=False)
    write_irf2(folder / "irf2.fits.gz", [counts], BINNING, cuts)
    return {
        "input": [str(path) for path in stores.values()],
        "cut_file": str(folder / "cuts.fits"),
        "response": str(folder / "irf2.fits.gz"),
        "progress": False,
    }


@pytest.fixture(scope="session")
def dl3(products, tmp_path_factory):
    """Return the folder of two runs of a stand-in, and what `select` said."""
    from astri_gpu.stages.select import run

    folder = tmp_path_factory.mktemp("dl3") / "runs"
    observation = ObservationConfig(n_runs=2, duration_s=300.0, dead_time=0.1)
    summary = run(SelectConfig(**products, output=str(folder), observation=observation))
    return folder, summary


@pytest.fixture
def horizon():
    """Return a function (site, times) -> the frame of astropy, with the tables that we use."""
    from contextlib import ExitStack

    from astropy import units as u
    from astropy.coordinates import AltAz, EarthLocation
    from astropy.time import Time
    from astropy.utils import iers

    from astri_gpu.dl3.sky import REFERENCE_UNIX_S

    def frame(site, times):
        location = EarthLocation.from_geodetic(
            site.longitude_deg * u.deg, site.latitude_deg * u.deg, site.altitude_m * u.m
        )
        return AltAz(
            obstime=Time(REFERENCE_UNIX_S, times, format="unix", scale="utc"), location=location
        )

    table = iers.IERS_A.open(iers.IERS_A_FILE)
    with ExitStack() as stack:
        stack.enter_context(iers.conf.set_temp("auto_download", False))
        stack.enter_context(iers.earth_orientation_table.set(table))
        yield frame
