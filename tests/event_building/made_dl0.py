"""DL0 files of events from made-up hits, written as `preprocess` writes them."""

import numpy as np

from astri_gpu.dl0.files import Dl0Writer
from astri_gpu.dl0.run_description import RunDescription, Telescope
from astri_gpu.packets.descriptor import read_descriptor

START_S = 190_504_800.25  # 2026-01-13T22:00:00.25
POSITIONS = [
    (-90.0, -330.0, 12.0), (160.0, -280.0, 5.0), (-260.0, -20.0, 0.0), (10.0, 0.0, 3.0),
    (250.0, 40.0, -8.0), (-170.0, 240.0, -4.0), (90.0, 270.0, -10.0), (330.0, 220.0, -6.0),
    (-20.0, -160.0, 9.0),
]  # fmt: skip


def describe(tel_ids=range(1, 10), *, duration_s=20.0, run=2, simulation_model="made-up hits"):
    return RunDescription(
        date="20260113",
        observation=1,
        run=run,
        target="Crab",
        ra_deg=83.6331,
        dec_deg=22.0145,
        wobble_offset_deg=0.5,
        wobble_angle_deg=90.0,
        ra_pnt_deg=84.17,
        dec_pnt_deg=22.01,
        start_s=START_S,
        stop_s=START_S + duration_s,
        descriptor="astri_gpu_v1",
        camera="ASTRICam",
        array="astri_mini_array",
        latitude_deg=28.3,
        longitude_deg=-16.51,
        altitude_m=2390.0,
        telescopes=tuple(Telescope(tel, *POSITIONS[tel - 1]) for tel in tel_ids),
        files=(),
        simulation_model=simulation_model,
    )


def write_dl0(folder, description, tel_id, seconds, nanoseconds, counter=None):
    """Write the file of a telescope; pixels are zero."""
    packet = read_descriptor(description.descriptor).types["SCI"]
    rows = np.zeros(len(seconds), packet.dtype)
    rows["time_s"], rows["time_ns"] = seconds, nanoseconds
    rows["event_number"] = np.arange(len(rows)) if counter is None else counter
    rows["tel_id"], rows["run_id"] = tel_id, description.run
    path = folder / description.name.dl0(tel_id, "SCI")
    with Dl0Writer(path, description, tel_id, packet) as writer:
        writer.append(rows)
    return path


def write_run(folder, made, description):
    """Write `MadeHits`, whose times are those at the reference point, as telescopes have them."""
    from astri_gpu.dl3.sky import Site
    from astri_gpu.event_building.hits import Track, flight_time

    folder.mkdir(parents=True, exist_ok=True)
    site = Site(description.latitude_deg, description.longitude_deg, description.altitude_m)
    origin = int(START_S)
    track = Track(
        origin, START_S, description.stop_s, description.ra_pnt_deg, description.dec_pnt_deg, site
    )
    moved = round((START_S - origin) * 1e9)
    for hit, telescope in zip(made.hits, description.telescopes, strict=True):
        position = (telescope.x_north_m, telescope.y_west_m, telescope.z_m)
        time = hit.time_ns + moved
        time = time - flight_time(position, time, track)
        seconds, nanoseconds = np.divmod(time, 10**9)
        write_dl0(folder, description, telescope.tel_id, seconds + origin, nanoseconds)
    return folder
