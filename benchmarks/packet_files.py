"""`preprocess` on one core: a packet file of events and housekeeping to DL0 files."""

import os
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .fits_tables import made_description

__all__ = ["packet_case", "write_packets"]

EVENTS_PER_BLOCK = 500
"""Behind so many events comes a packet of housekeeping."""
EVENT_NS = 10_000_000


def packet_case(folder: str, n_bytes: int) -> dict[str, Any]:
    """Return the rate (MB/s) of `preprocess`, that of the floor, and memory; on one core.

    The floor reads the same file, computes the same checksums and writes the same bytes. Neither
    waits for the disk.
    """
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from astri_gpu import output_file
    from astri_gpu.config_observation import PreprocessConfig
    from astri_gpu.config_sections import ExecutionConfig
    from astri_gpu.stages.preprocess import run

    from .cases import peak_memory_mib

    output_file.sync = lambda path: None
    place = Path(folder)
    raw, n_packets = write_packets(place / "raw", n_bytes)
    size = raw.stat().st_size / 1e6
    floor = size / _floor(raw, place / "copy")
    config = PreprocessConfig(
        input=str(raw.parent),
        output=str(place / "dl0"),
        overwrite=True,
        progress=False,
        execution=ExecutionConfig(n_workers=1),
    )
    for record in (place / "dl0").glob("*preprocess.json"):
        record.unlink()  # or it would be taken for done
    before = peak_memory_mib()
    started, computed = time.perf_counter(), time.process_time()
    summary = run(config)
    rate = size / (time.perf_counter() - started)
    computed = time.process_time() - computed
    assert summary.n_packets == n_packets
    assert not summary.warnings, summary.warnings
    return {
        "rate": rate,
        "rate_computing": size / computed,
        "floor": floor,
        "megabytes": size,
        "n_packets": n_packets,
        "peak_memory_mib": peak_memory_mib(),
        "memory_before_mib": before,
    }


def write_packets(folder: Path, n_bytes: int) -> tuple[Path, int]:
    """Write a packet file of about so many bytes and its description; return path and packets."""
    from astri_gpu.dl0.run_description import write_description
    from astri_gpu.packets.descriptor import read_descriptor
    from astri_gpu.packets.encode import encode

    descriptor = read_descriptor("astri_gpu_v1")
    events, housekeeping = descriptor.types["SCI"], descriptor.types["HK"]
    generator = np.random.default_rng(1)
    fixed = {
        field.name: generator.integers(
            0, 2 if field.code == "bits" else 4000, (EVENTS_PER_BLOCK, *field.shape)
        ).astype(field.native)
        for field in events.fields
        if field.shape
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / made_description().name.raw(1)
    n_blocks = max(1, n_bytes // (EVENTS_PER_BLOCK * events.n_bytes))
    with path.open("wb") as stream:
        for number in range(n_blocks):
            first = number * (EVENTS_PER_BLOCK + 1)
            count = number * EVENTS_PER_BLOCK + np.arange(EVENTS_PER_BLOCK)
            time_ns = count * EVENT_NS
            columns = {field.name: np.int64(0) for field in events.fields if not field.shape}
            columns |= fixed | {
                "tel_id": np.int64(1),
                "run_id": np.int64(1),
                "packet_number": first + np.arange(EVENTS_PER_BLOCK),
                "event_number": count,
                "time_s": time_ns // 10**9,
                "time_ns": time_ns % 10**9,
            }
            stream.write(encode(events, columns, first_sequence=number * EVENTS_PER_BLOCK))
            columns = {field.name: np.int64(0) for field in housekeeping.fields} | {
                "tel_id": np.int64(1),
                "run_id": np.int64(1),
                "packet_number": np.array([first + EVENTS_PER_BLOCK]),
                "time_s": time_ns[-1:] // 10**9,
                "time_ns": time_ns[-1:] % 10**9,
            }
            stream.write(encode(housekeeping, columns, first_sequence=number))
    write_description(folder, made_description(path.stat().st_size, path.name))
    return path, n_blocks * (EVENTS_PER_BLOCK + 1)


def _floor(raw: Path, copy: Path) -> float:
    """Return the seconds of reading, checksums and writing alone."""
    from astri_gpu.packets.descriptor import read_descriptor

    n_bytes = read_descriptor("astri_gpu_v1").types["SCI"].n_bytes
    started = time.perf_counter()
    with raw.open("rb", buffering=0) as source, copy.open("wb", buffering=0) as target:
        while block := source.read(100 * n_bytes):
            view = memoryview(block)
            for start in range(0, len(block), n_bytes):
                zlib.crc32(view[start : start + n_bytes])
            target.write(block)
    seconds = time.perf_counter() - started
    copy.unlink()
    return seconds
