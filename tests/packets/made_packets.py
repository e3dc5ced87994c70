"""Packet files for tests: a small format, and runs of it with all types mixed."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.dl0.run_description import (
    RawFile,
    RunDescription,
    Telescope,
    write_description,
)
from astri_gpu.packets.descriptor import Descriptor, read_descriptor
from astri_gpu.packets.encode import encode

TEL_ID, RUN_ID = 4, 17
START_S = 190_512_000  # seconds since 2020
SMALL = """
name: small
dims: {pixel: 11, gain: 2}
telescope: unit
run: run_number
counter: count
seconds: sec
nanoseconds: nanosec
common:
  - {name: run_number, type: u4}
  - {name: count, type: u4, fits: COUNT}
  - {name: sec, type: u4, unit: s, fits: SEC}
  - {name: unit, type: u1}
  - {name: nanosec, type: u4, unit: ns, fits: NANOSEC}
types:
  HK:
    apid: 0x7
    fields:
      - {name: voltage, type: f4, unit: V, fits: VOLT}
  SCI:
    apid: 0x234
    fields:
      - {name: event, type: u4, fits: EVT}
      - {name: hit, type: bits, shape: [pixel], fits: HIT}
      - {name: adc, type: u2, shape: [gain, pixel], unit: adu, fits: ADC}
      - {name: offset, type: i2, shape: [3], fits: OFFSET}
"""


@dataclass(frozen=True)
class Made:
    """Packets of a file in their order."""

    packets: tuple[bytes, ...]
    kinds: tuple[str, ...]
    columns: dict[str, dict[str, Any]]
    """By kind, as they went into `encode`."""

    @property
    def data(self) -> bytes:
        return b"".join(self.packets)


def small_descriptor(folder) -> Descriptor:
    path = folder / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return read_descriptor(path)


def made_packets(
    descriptor: Descriptor,
    kinds: list[str],
    seed: int = 1,
    *,
    tel_id: int = TEL_ID,
    run_id: int = RUN_ID,
    first: int = 0,
) -> Made:
    """Return packets of these kinds, one after the other, with random contents."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(first, first + len(kinds))
    packets: list[bytes] = [b""] * len(kinds)
    columns = {}
    for kind in dict.fromkeys(kinds):
        packet_type = descriptor.types[kind]
        places = np.flatnonzero(np.array(kinds) == kind)
        values: dict[str, Any] = {
            descriptor.telescope: np.full(len(places), tel_id),
            descriptor.run: np.full(len(places), run_id),
            descriptor.counter: numbers[places],
            descriptor.seconds: START_S + numbers[places] // 100,
            descriptor.nanoseconds: numbers[places] % 100 * 10_000_000 + 12_345,
        }
        for entry in packet_type.fields:
            if entry.name in values:
                continue
            shape = (len(places), *entry.shape)
            if entry.code == "bits":
                values[entry.name] = rng.random(shape) < 0.3
            elif entry.code.startswith("f"):
                values[entry.name] = rng.normal(size=shape).astype(entry.code)
            else:
                limits = np.iinfo(entry.code)
                values[entry.name] = rng.integers(
                    limits.min, limits.max, shape, entry.code, endpoint=True
                )
        whole = encode(packet_type, values, first_sequence=first)
        for place, packet in zip(places, whole, strict=True):
            packets[place] = packet.tobytes()
        columns[kind] = values
    return Made(tuple(packets), tuple(kinds), columns)


def mixed_kinds(descriptor: Descriptor, number: int, seed: int = 1) -> list[str]:
    """Return kinds in random order, half of them SCI."""
    rng = np.random.default_rng(seed)
    others = [kind for kind in descriptor.types if kind != "SCI"]
    return ["SCI" if rng.random() < 0.5 else str(rng.choice(others)) for _ in range(number)]


def packets_of_rows(descriptor: Descriptor, rows: dict[str, Any]) -> list[bytes]:
    """Return the bytes of each row of a block."""
    return [
        row.tobytes()
        for kind, found in rows.items()
        for row in found.view(np.uint8).reshape(len(found), descriptor.types[kind].n_bytes)
    ]


def description_of(tel_ids: Sequence[int], descriptor: str = "astri_gpu_v1") -> RunDescription:
    """Return the description of a run of these telescopes, without files."""
    return RunDescription(
        date="20260115",
        observation=3,
        run=RUN_ID,
        target="Crab",
        ra_deg=83.6,
        dec_deg=22.0,
        wobble_offset_deg=0.5,
        wobble_angle_deg=90.0,
        ra_pnt_deg=84.1,
        dec_pnt_deg=22.0,
        start_s=float(START_S),
        stop_s=START_S + 60.0,
        descriptor=descriptor,
        camera="ASTRICam",
        array="mini_array",
        latitude_deg=28.3,
        longitude_deg=-16.5,
        altitude_m=2390.0,
        telescopes=tuple(Telescope(tel_id, 100.0 * tel_id, 0.0, 0.0) for tel_id in tel_ids),
        files=(),
    )


def made_run_files(
    folder: Path, packets: Mapping[int, bytes], descriptor: str = "astri_gpu_v1"
) -> RunDescription:
    """Write packet files of telescopes (number -> bytes) and their description."""
    folder.mkdir(parents=True, exist_ok=True)
    description = description_of(list(packets), descriptor)
    files = []
    for tel_id, data in packets.items():
        name = description.name.raw(tel_id)
        (folder / name).write_bytes(data)
        files.append(RawFile(name, tel_id, len(data), hashlib.sha256(data).hexdigest()))
    description = replace(description, files=tuple(files))
    write_description(folder, description)
    return description


__all__ = [
    "RUN_ID",
    "START_S",
    "TEL_ID",
    "Made",
    "description_of",
    "made_packets",
    "made_run_files",
    "mixed_kinds",
    "packets_of_rows",
    "small_descriptor",
]
