"""A run of three telescopes with made-up packets, and its DL0 files."""

from dataclasses import replace

import numpy as np
import pytest

from astri_gpu.dl0.files import Dl0Writer
from astri_gpu.dl0.run_description import RunDescription, Telescope
from astri_gpu.packets.descriptor import read_descriptor

N_ROWS = {"SCI": 30, "CAL": 7, "HK": 12, "VAR": 3}
DESCRIPTION = RunDescription(
    date="20260115",
    observation=12,
    run=3,
    target="Crab Nebula",
    ra_deg=83.6333,
    dec_deg=22.0145,
    wobble_offset_deg=0.5,
    wobble_angle_deg=90.0,
    ra_pnt_deg=84.1726,
    dec_pnt_deg=22.0133,
    start_s=190_591_200.0,
    stop_s=190_592_400.0,
    descriptor="astri_gpu_v1",
    camera="ASTRICam",
    array="test",
    latitude_deg=28.3,
    longitude_deg=-16.51,
    altitude_m=2390.0,
    telescopes=(
        Telescope(1, -159.0, 91.5, 0.25),
        Telescope(4, 30.0, 0.0, -1.0),
        Telescope(11, 8.0, 120.0, 3.0),
    ),
    files=(),
    simulation_model="a model",
)


def drawn_packets(packet_type, n_rows, seed=0):
    """Return whole packets of random numbers, as rows."""
    generator = np.random.default_rng(seed)
    rows = np.frombuffer(generator.bytes(n_rows * packet_type.n_bytes), packet_type.dtype).copy()
    for name in rows.dtype.names:
        if rows.dtype[name].base.kind == "f":
            rows[name] = generator.normal(size=rows[name].shape)
    return rows


def write_run(folder, description=DESCRIPTION, kinds=tuple(N_ROWS), **options):
    """Write the DL0 files of all telescopes of a run."""
    types = read_descriptor("astri_gpu_v1").types
    for telescope in description.telescopes:
        for kind in kinds:
            path = folder / description.name.dl0(telescope.tel_id, kind)
            with Dl0Writer(path, description, telescope.tel_id, types[kind], **options) as writer:
                writer.append(drawn_packets(types[kind], N_ROWS[kind], telescope.tel_id))


@pytest.fixture(scope="session")
def dl0_folder(tmp_path_factory):
    """Folder of the DL0 files of the run."""
    folder = tmp_path_factory.mktemp("dl0")
    write_run(folder, cards={"PROVSTEP": ("preprocess", "stage")})
    return folder


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory):
    """Folder of the events of the run that follows."""
    folder = tmp_path_factory.mktemp("other")
    write_run(folder, replace(DESCRIPTION, run=4, simulation_model=None), kinds=("SCI",))
    return folder
