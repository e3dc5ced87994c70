"""The raw road: DL0 event tables beside astropy and fitsio, and packets to DL0 files."""

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from ..row import Measured, Row, Settings

__all__ = ["PREPROCESS", "READ", "WRITE"]

N_BYTES = 500_000_000
FASTER, LIGHTER = 7.0, 0.5
PREPROCESS_BYTES = 300_000_000
PREPROCESS_GOAL = 100.0  # MB/s
OURS, SLOW = "astri_gpu", "astropy"


def measure_writing(settings: Settings) -> Measured:
    """Return the rate at which packets become a table of events, and that of the others."""
    from ..fits_tables import WRITERS, difference

    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="astri-gpu-benchmark-") as name:
        folder = Path(name)
        places = {who: folder / f"{number}.fits" for number, who in enumerate(WRITERS)}
        found = _compare("write", places, settings)
        different = sum(difference(places[OURS], place) for place in places.values())
    return _measured(found, different, "all tables, read by fitsio (different values)")


def measure_reading(settings: Settings) -> Measured:
    """Return the rate at which all columns of a table of events are read, and of the others."""
    from ..fits_tables import READERS, event_rows, event_type, made_description

    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="astri-gpu-benchmark-") as name:
        from astri_gpu.dl0.files import Dl0Writer

        path = Path(name) / "events.fits"
        n_rows = _n_rows(settings)
        block = event_rows(min(n_rows, 1000))
        with Dl0Writer(path, made_description(), 1, event_type()) as writer:
            for _ in range(-(-n_rows // len(block))):
                writer.append(block)
        return _measured(_compare("read", dict.fromkeys(READERS, path), settings), None, "")


def _n_rows(settings: Settings) -> int:
    from ..fits_tables import event_type

    return settings.size(N_BYTES, 1_000_000) // event_type().n_bytes


def _compare(action: str, places: dict[str, Path], settings: Settings) -> dict[str, Any]:
    """Return rates (MB/s, one per round) and peak memory of every contestant, in turn."""
    from ..cases import run_case

    found: dict[str, Any] = {who: {"rates": [], "peak_memory_mib": 0.0} for who in places}
    n_rows = _n_rows(settings)
    for _ in range(settings.size(3, 1)):
        for who, path in places.items():
            done = run_case(
                "fits", fresh=False, contestant=f"{action} {who}", path=str(path), n_rows=n_rows
            )
            size = path.stat().st_size / 1e6
            entry = found[who]
            entry["rates"].append(size / done["seconds"])
            entry["peak_memory_mib"] = max(entry["peak_memory_mib"], done["peak_memory_mib"])
            entry["memory_before_mib"] = done["memory_before_mib"]
    return found


def _measured(found: dict[str, Any], different: int | None, error_from: str) -> Measured:
    ours, slow = found[OURS], found[SLOW]
    ratios = {
        who: median(a / b for a, b in zip(ours["rates"], entry["rates"], strict=True))
        for who, entry in found.items()
    }
    share = ours["peak_memory_mib"] / slow["peak_memory_mib"]
    others = "; ".join(
        f"{who}: {median(entry['rates']):.0f} MB/s, {entry['peak_memory_mib']:.0f} MiB "
        f"(ours {ratios[who]:.1f} × as fast)"
        for who, entry in found.items()
        if who not in (OURS, SLOW)
    )
    return Measured(
        rate=median(ours["rates"]),
        unit="MB/s",
        peer="astropy",
        peer_rate=median(slow["rates"]),
        ratio=ratios[SLOW],
        reached=ratios[SLOW] >= FASTER and share <= LIGHTER and not different,
        error=None if different is None else float(different),
        error_from=error_from,
        peak_memory_mib=ours["peak_memory_mib"],
        notes=(
            f"{slow['peak_memory_mib']:.0f} MiB of astropy: ours needs {100 * share:.0f} %; "
            f"{ours['memory_before_mib']:.0f} MiB are there before",
            others,
        ),
        details={"contestants": found, "ratios": ratios, "memory_share": share},
    )


def measure_preprocess(settings: Settings) -> Measured:
    """Return the rate of one core from a packet file to DL0 files, and checksum and copy alone."""
    from ..cases import run_case

    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="astri-gpu-benchmark-") as name:
        for _ in range(settings.size(3, 1)):
            n_bytes = settings.size(PREPROCESS_BYTES, 1_000_000)
            rounds.append(run_case("packets", fresh=False, folder=name, n_bytes=n_bytes))
    computing = median(entry["rate_computing"] for entry in rounds)
    rate, floor = (median(entry[key] for entry in rounds) for key in ("rate", "floor"))
    return Measured(
        rate=rate,
        unit="MB/s",
        ceiling="reading, checksums and copy alone",
        ceiling_rate=floor,
        reached=rate >= PREPROCESS_GOAL,
        peak_memory_mib=max(entry["peak_memory_mib"] for entry in rounds),
        notes=(
            f"{rounds[0]['n_packets']} packets of events and housekeeping, one worker on one core, "
            "without waiting for the disk",
            f"{computing:.0f} MB per second of computing, waiting and other programs not counted",
        ),
        details={"rounds": rounds},
    )


_GOAL = f"≥ {FASTER:g} × astropy, ≤ {LIGHTER:g} × its memory"
WRITE = Row("fits-write", "packets of events in memory to a DL0 FITS file", _GOAL, measure_writing)
READ = Row("fits-read", "all columns of a DL0 FITS file, in blocks of rows", _GOAL, measure_reading)
PREPROCESS = Row(
    "preprocess",
    "packet file to DL0 FITS files, one core",
    f"≥ {PREPROCESS_GOAL:.0f} MB/s a core",
    measure_preprocess,
)
