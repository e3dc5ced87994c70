"""The frame of astropy that pointings are compared with."""

from tests.dl3.conftest import horizon

__all__ = ["horizon"]
