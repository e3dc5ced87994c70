"""The ASTRI Mini-Array data processing as an array program."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("astri_gpu")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0+unknown"
