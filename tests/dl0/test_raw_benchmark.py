"""What the benchmarks of the raw road compare is the same table."""

import importlib

import pytest

pytest.importorskip("fitsio")


@pytest.fixture
def fits_tables(monkeypatch):
    """Return the module of the benchmark; it lies beside the package."""
    from tests.conftest import ROOT

    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.fits_tables")


def test_all_contestants_write_the_same_and_read_it(fits_tables, tmp_path):
    block = fits_tables.event_rows(20)
    paths = []
    for number, write in enumerate(fits_tables.WRITERS.values()):
        paths.append(tmp_path / f"{number}.fits")
        write(paths[-1], iter([block, block[:3]]))
    assert [fits_tables.difference(paths[0], path) for path in paths] == [0] * len(paths)
    changed = block.copy()
    changed["event_number"][0] ^= 1
    fits_tables.WRITERS["fitsio"](paths[1], iter([changed, block[:3]]))
    assert fits_tables.difference(paths[0], paths[1]) == 1
    for read in fits_tables.READERS.values():
        read(paths[0])
