"""Ingest of real sim_telarray files, on one core, beside ctapipe's `SimTelEventSource` and eventio.

``python -m benchmarks.ingest_rates FILE... [--rounds 5] [--images 800] [--json results.json]``.
Test files are short, so their events are repeated to `--images` images (0: the files as they are,
where opening a file and making a store decide). All contestants take turns on the same core, with
whatever processes they start: `ingest` writes a store, `reading` gives the same events without
writing them, `SimTelEventSource` gives its containers with R1 calibration, writing nothing.
"""

import argparse
import gzip
import itertools
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from .timing import rates

__all__ = ["long_file", "main", "measure_ingest"]

N_IMAGES = 800
N_ROUNDS = 5
N_COPIES = 6  # of a file, for several processes
PEER = "SimTelEventSource"

# Objects of a file: what begins and ends its events, and what comes only once.
SHOWER, CALIBRATION_EVENT, CALIBRATION_PHOTONS, ARRAY_EVENT = 2020, 2028, 2034, 2010
CONSTANTS = (2022, 2023)
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest_rates", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="sim_telarray files")
    parser.add_argument("--rounds", type=int, default=N_ROUNDS)
    parser.add_argument("--images", type=int, default=N_IMAGES, help="0 = files as they are")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    found = measure_ingest(options.files, rounds=options.rounds, n_images=options.images)
    print(_markdown(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measure_ingest(
    files: Sequence[str | Path],
    *,
    rounds: int = N_ROUNDS,
    n_images: int = N_IMAGES,
    n_copies: int = N_COPIES,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """Return rates, ratios and bytes per image of every file, ready for JSON.

    Parameters
    ----------
    files
        sim_telarray files, plain or packed.
    rounds
        How often all contestants take turns.
    n_images
        Repeat the events of a file to at least as many images, 0 = take the file as it is.
    n_copies
        Copies of the first file that one and two processes read, 0 = leave this out.
    folder
        For the files and stores made on the way, None = the system's choice.

    Returns
    -------
    dict
        `files`, one entry for each: `images_per_s` of every contestant (median over rounds),
        `ratio` of ingest to `SimTelEventSource` and `ratio_reading` of reading alone (medians of
        the ratios of single rounds), `n_images`, `bytes_per_image` packed and unpacked; and
        `processes` (None if left out): rates of one and of two processes over copies of the first
        file, their parallel `efficiency`.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        work = Path(scratch)
        inputs = []
        for number, path in enumerate(map(Path, files)):
            used = path
            if n_images:
                used = work / f"{number}_{path.name}"
                long_file(path, used, n_images)
            inputs.append(used)
        with _one_core():
            found = [
                {"file": Path(path).name, **_measure_file(used, work / "out.zarr", rounds)}
                for path, used in zip(files, inputs, strict=True)
            ]
        several = _measure_processes(inputs[0], work, rounds, n_copies) if n_copies else None
        return {"files": found, "processes": several}


def long_file(path: Path, output: Path, n_images: int) -> None:
    """Write a file with the events of another one, repeated to at least `n_images` images."""
    from astri_gpu.io.eventio_stream import ObjectStream

    unread = _count(path)
    stream = ObjectStream(path)
    objects = []
    while (head := stream.peek(range(1 << 16))) is not None:
        # From the sync marker on: 16 bytes, 20 with an extended length.
        begin = head.start - 16 if stream.data[head.start - 16] == 0x37 else head.start - 20
        objects.append((head.type, bytes(stream.data[begin : head.stop])))
        stream.skip(head)
    stream.close()
    kinds = [kind for kind, _ in objects]
    first = min(
        kinds.index(kind)
        for kind in (SHOWER, CALIBRATION_PHOTONS, CALIBRATION_EVENT)
        if kind in kinds
    )
    last = len(kinds) - min(
        kinds[::-1].index(kind) for kind in (ARRAY_EVENT, CALIBRATION_EVENT) if kind in kinds
    )
    events = b"".join(data for kind, data in objects[first:last] if kind not in CONSTANTS)
    parts = itertools.chain(
        (data for _, data in objects[:last]),
        itertools.repeat(events, max(0, -(-n_images // unread) - 1)),
        (data for _, data in objects[last:]),
    )
    with path.open("rb") as packed:
        start = packed.read(4)
    with _packed(output, start) as target:
        for part in parts:
            target.write(part)


@contextmanager
def _packed(path: Path, start: bytes) -> Iterator[Any]:
    """Give a file to write to that is packed as the one that begins with these bytes."""
    if start.startswith(GZIP):
        with gzip.open(path, "wb", compresslevel=6) as target:
            yield target
    elif start == ZSTD:
        import zstandard

        with path.open("wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as target:
            yield target
    else:
        with path.open("wb") as target:
            yield target


def _measure_file(path: Path, output: Path, rounds: int) -> dict[str, Any]:
    n = _count(path)
    contestants = {
        "ingest": (n, lambda: _ingest(path, output)),
        PEER: (n, lambda: _their_events(path)),
        "reading": (n, lambda: _count(path)),
        "eventio": (n, lambda: _eventio(path)),
        "unpacking": (n, lambda: _unpack(path)),
    }
    found = rates(contestants, n_rounds=rounds)
    return {
        "n_images": n,
        "bytes_per_image": {"packed": path.stat().st_size / n, "unpacked": _unpack(path) / n},
        "images_per_s": {name: rate.median for name, rate in found.items()},
        "rounds": {name: rate.rounds for name, rate in found.items()},
        "ratio": found["ingest"].ratio(found[PEER]),
        "ratio_reading": found["reading"].ratio(found[PEER]),
    }


def _ingest(path: Path, output: Path) -> int:
    from astri_gpu.io.simtel import IngestOptions, ingest_file

    return ingest_file(path, output, IngestOptions(on_error="keep", overwrite=True)).n_images


def _count(path: Path) -> int:
    """Return the number of images of a file, all of them read."""
    from astri_gpu.io.simtel_file import EventReader

    with EventReader(path, (), True) as reader:
        return sum(len(event["telescope_events"]) for event in reader)


def _unpack(path: Path) -> int:
    """Return the unpacked size of a file, unpacked but not looked at."""
    from astri_gpu.io.eventio_stream import ObjectStream

    stream = ObjectStream(path)
    try:
        return stream.drain()
    except EOFError:  # a truncated file
        return 0
    finally:
        stream.close()


def _their_events(path: Path) -> int:
    from ctapipe.io import SimTelEventSource

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about truncated files and its own dependencies
        with SimTelEventSource(
            path, focal_length_choice="EQUIVALENT", skip_calibration_events=False
        ) as source:
            return sum(len(event.r1.tel) for event in source)


def _eventio(path: Path) -> int:
    from eventio import SimTelFile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with SimTelFile(path) as file:
            return sum(len(event["telescope_events"]) for event in file)


def _measure_processes(path: Path, work: Path, rounds: int, n_copies: int) -> dict[str, Any]:
    """Return the rates of one and of two processes of one core each over copies of a file."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    copies = []
    for number in range(n_copies):
        copies.append(work / f"copy_{number}_{path.name}")
        copies[-1].symlink_to(path.resolve())
    outputs = [work / f"copy_{number}.zarr" for number in range(n_copies)]
    n = _count(path) * n_copies

    def run(pool: ProcessPoolExecutor) -> None:
        if sum(pool.map(_ingest, copies, outputs)) != n:
            raise RuntimeError(f"a copy of {path.name} gave another number of images")

    with _pool(cores[:1]) as one, _pool(cores) as two:
        found = rates({"1": (n, lambda: run(one)), "2": (n, lambda: run(two))}, n_rounds=rounds)
    efficiency = found["2"].ratio(found["1"]) / 2 if len(cores) == 2 else None
    return {
        "file": path.name,
        "n_copies": n_copies,
        "images_per_s": {name: rate.median for name, rate in found.items()},
        "efficiency": efficiency,
    }


@contextmanager
def _pool(cores: Sequence[int]) -> Iterator[ProcessPoolExecutor]:
    """Give processes of their own, one for each core and bound to it."""
    context = get_context("spawn")
    free = context.Queue()
    for core in cores:
        free.put(core)
    with ProcessPoolExecutor(len(cores), context, initializer=_bind, initargs=(free,)) as pool:
        yield pool


def _bind(free: Any) -> None:
    os.sched_setaffinity(0, {free.get()})


@contextmanager
def _one_core() -> Iterator[None]:
    """Bind this process, and those that it starts, to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _markdown(found: dict[str, Any]) -> str:
    names = ("ingest", "reading", PEER, "eventio", "unpacking")
    lines = [
        "| file | images | kB/image packed / unpacked | "
        + " | ".join(f"{name}, images/s" for name in names)
        + f" | ingest / {PEER} | reading / {PEER} |",
        "|---|" + "---:|" * (len(names) + 4),
    ]
    for entry in found["files"]:
        size, speed = entry["bytes_per_image"], entry["images_per_s"]
        lines.append(
            f"| {entry['file']} | {entry['n_images']} "
            f"| {size['packed'] / 1e3:.0f} / {size['unpacked'] / 1e3:.0f} | "
            + " | ".join(f"{speed[name]:,.0f}" for name in names)
            + f" | {entry['ratio']:.2f} | {entry['ratio_reading']:.2f} |"
        )
    several = found["processes"]
    if several is None:
        return "\n".join(lines)
    text = f"{several['n_copies']} copies of {several['file']}: " + ", ".join(
        f"{rate:,.0f} images/s with {name} process{'es' if name != '1' else ''}"
        for name, rate in several["images_per_s"].items()
    )
    if several["efficiency"] is not None:
        text += f", parallel efficiency {several['efficiency']:.0%}"
    return "\n".join([*lines, "", text])


if __name__ == "__main__":
    main()
