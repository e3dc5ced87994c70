"""Made-up hits with known showers; they are those of the benchmark, which is not installed."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def make_hits():
    """Return the function `make_hits` of `benchmarks/seb_hits.py`."""
    spec = importlib.util.spec_from_file_location("seb_hits", ROOT / "benchmarks" / "seb_hits.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module.make_hits
