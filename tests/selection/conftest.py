"""Stores of drawn events, shared by the tests of cuts."""

import pytest

from astri_gpu.selection.events import read_sample
from tests.drawn_events import drawn_stores


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Return the paths of DL2b stores: gamma (diffuse), point (gammas), proton, electron."""
    return drawn_stores(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def drawn_sample(drawn):
    """Return the events of all drawn stores."""
    return read_sample(drawn.values())
