"""DL0 files of a made-up run, through the packets' own encoder and writer."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from astri_gpu.calibration.good_time import NominalTrack
from astri_gpu.dl0.files import Dl0Writer
from astri_gpu.dl0.run_description import RunDescription, Telescope
from astri_gpu.dl3.sky import Site
from astri_gpu.packets.descriptor import Descriptor, read_descriptor
from astri_gpu.packets.encode import encode

START = 190_605_663
"""2026-01-15T01:41:03 UTC, s since 2020."""
SITE = Site(28.3, -16.51, 2390.0)
TRACK = NominalTrack(83.633, 22.014, SITE)
SMALL = 128
"""Pixels of the small camera."""
GAIN = np.array([20.0, 1.0])
"""Counts per photo-electron of the small camera."""
BASELINE, NOISE = 1000.0, 12.0


def description(n_telescopes: int = 2, seconds: float = 600.0) -> RunDescription:
    return RunDescription(
        date="20260114",
        observation=1,
        run=2,
        target="Crab",
        ra_deg=83.633,
        dec_deg=22.014,
        wobble_offset_deg=0.5,
        wobble_angle_deg=90.0,
        ra_pnt_deg=84.172,
        dec_pnt_deg=22.012,
        start_s=float(START),
        stop_s=START + seconds,
        descriptor="astri_gpu_v1",
        camera="ASTRICam",
        array="made",
        latitude_deg=28.3,
        longitude_deg=-16.51,
        altitude_m=2390.0,
        telescopes=tuple(Telescope(k + 1, 100.0 * k, 0.0, 0.0) for k in range(n_telescopes)),
        files=(),
        simulation_model="made up",
    )


@cache
def small_format() -> Descriptor:
    """Return the packet format with `SMALL` pixels."""
    text = files("astri_gpu.packets").joinpath("astri_gpu_v1.yaml").read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.yaml"
        path.write_text(text.replace("pixel: 2368", f"pixel: {SMALL}"), encoding="utf-8")
        return read_descriptor(path)


def write_dl0(
    folder: Path,
    run: RunDescription,
    tel_id: int,
    kind: str,
    columns: dict[str, Any],
    *,
    small: bool = True,
) -> Path:
    """Write one DL0 file; columns that are not given are 0."""
    packet_type = (small_format() if small else read_descriptor(run.descriptor)).types[kind]
    n_rows = len(columns["time_s"])
    full = {
        field.name: np.broadcast_to(
            columns.get(field.name, np.zeros((), bool if field.code == "bits" else field.code)),
            (n_rows, *field.shape),
        )
        for field in packet_type.fields
    }
    full["tel_id"] = np.full(n_rows, tel_id)
    rows = encode(packet_type, full).reshape(-1).view(packet_type.dtype)
    path = folder / run.name.dl0(tel_id, kind)
    folder.mkdir(parents=True, exist_ok=True)
    with Dl0Writer(path, run, tel_id, packet_type) as writer:
        writer.append(rows)
    return path


def times(seconds: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns time_s and time_ns of times in seconds since `START`."""
    ns = np.rint(np.asarray(seconds) * 1e9).astype(np.int64)
    return {"time_s": START + ns // 1_000_000_000, "time_ns": ns % 1_000_000_000}


def calibration_columns(
    n_pedestal: int, n_flatfield: int, levels=(40.0, 80.0), *, seconds=600.0, seed=1, shift=0.0
) -> dict[str, np.ndarray]:
    """Return pedestals and flashes of the small camera, in order of time.

    Photo-electrons are Poissonian without crosstalk, so the excess noise factor is 1. Pixel 3 is
    dead, pixel 5 noisy; the efficiency of the others rises from 0.9 to 1.1.
    """
    random = np.random.default_rng(seed)
    n_events = n_pedestal + n_flatfield
    kind = np.zeros(n_events, dtype=np.int64)
    kind[random.permutation(n_events)[:n_pedestal]] = 2
    light = np.zeros(n_events)
    light[kind == 0] = np.resize(levels, n_flatfield)
    noise = np.full(SMALL, NOISE)
    noise[5] *= 6
    photons = random.poisson(light[:, None] * efficiency())
    adc = BASELINE + shift + photons[:, None] * GAIN[:, None]
    adc = adc + np.stack([noise, np.full(SMALL, 3.0)]) * random.normal(size=adc.shape)
    adc = np.clip(np.rint(adc), 0, 4095).astype(np.uint16)
    moment = (np.arange(n_events) + 0.5) / n_events * seconds
    return {**times(moment), "event_type": kind, "adc": adc}


def efficiency() -> np.ndarray:
    relative = np.linspace(0.9, 1.1, SMALL)
    relative[3] = 0.0
    return relative
