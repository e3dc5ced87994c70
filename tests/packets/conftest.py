"""Packet formats that the tests of packets share."""

import pytest

from astri_gpu.packets.descriptor import read_descriptor
from tests.packets.made_packets import small_descriptor


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return a format of our own making, with small packets."""
    return small_descriptor(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def astri():
    return read_descriptor("astri_gpu_v1")
