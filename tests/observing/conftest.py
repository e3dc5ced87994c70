"""One small run for all tests here, its packets decoded."""

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from astropy.io import fits

from astri_gpu.dl0.run_description import RunDescription, read_description
from astri_gpu.packets.decode import columns_of
from astri_gpu.packets.descriptor import read_descriptor
from tests.made_run import made_run


class Run(NamedTuple):
    """A run and what its files hold."""

    summary: object
    description: RunDescription
    truth: dict

    def packets(self, place: int) -> tuple[dict, list]:
        """Return the columns by type of a telescope, and (type, row) in the order of the file."""
        return packets_of(self.summary.output / self.description.files[place].name)


def packets_of(path: Path) -> tuple[dict, list]:
    """Decode a packet file one packet after the other."""
    types = read_descriptor("astri_gpu_v1").types
    by_id = {entry.packet_id: entry for entry in types.values()}
    content, at = path.read_bytes(), 0
    found: dict[str, list] = {kind: [] for kind in types}
    order = []
    while at < len(content):
        entry = by_id[int.from_bytes(content[at : at + 2], "big")]
        order.append((entry.kind, len(found[entry.kind])))
        found[entry.kind].append(content[at : at + entry.n_bytes])
        at += entry.n_bytes
    columns = {}
    for kind, parts in found.items():
        rows = np.frombuffer(b"".join(parts), types[kind].dtype)
        columns[kind] = columns_of(types[kind], rows) | {
            "sequence": rows["sequence"].astype(int) & 0x3FFF
        }
    return columns, order


def read_run(summary) -> Run:
    """Return the contents of a run."""
    with fits.open(summary.truth) as hdus:
        truth = {hdu.name: np.array(hdu.data) for hdu in hdus[1:]}
    return Run(summary, read_description(summary.description), truth)


@pytest.fixture(scope="session")
def observed(tmp_path_factory):
    """Nine telescopes, four seconds."""
    return read_run(made_run(tmp_path_factory.mktemp("observed") / "raw"))


@pytest.fixture(scope="session")
def read():
    """Return `read_run`."""
    return read_run


@pytest.fixture
def horizon():
    """Return a function to astropy's frame of horizontal directions at some times and a site."""
    from astropy import units as u
    from astropy.coordinates import AltAz, EarthLocation
    from astropy.time import Time
    from astropy.utils import iers

    def frame(seconds, description):
        place = EarthLocation.from_geodetic(
            description.longitude_deg * u.deg,
            description.latitude_deg * u.deg,
            description.altitude_m * u.m,
        )
        zero = Time("2020-01-01T00:00:00", scale="utc")
        return AltAz(obstime=zero + np.asarray(seconds) * u.s, location=place)

    table = iers.IERS_A.open(iers.IERS_A_FILE)
    with ExitStack() as stack:
        stack.enter_context(iers.conf.set_temp("auto_download", False))
        stack.enter_context(iers.earth_orientation_table.set(table))
        yield frame
