"""What a store knows of a run besides its images: constants, pointing, live time, good time."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from astri_gpu.calibration.good_time import (
    GoodTime,
    GoodTimeLimits,
    NominalTrack,
    good_intervals,
    packet_gaps,
)
from astri_gpu.calibration.live_time import DeadTime, array_dead_time, dead_time_share
from astri_gpu.dl3.sky import REFERENCE_UNIX_S
from astri_gpu.io.dl0_fits_images import NS, PACKET_NUMBER, PacketNumbers, Plan
from astri_gpu.io.dl0_fits_run import RunFiles
from astri_gpu.store import StoreWriter

if TYPE_CHECKING:
    from astri_gpu.dl0.files import Dl0File

__all__ = ["good_time", "write_constants", "write_housekeeping", "write_variances"]

HIGH_GAIN = 0
MOST_REASONS = 8  # in a sentence, the longest first


def write_constants(writer: StoreWriter, run: RunFiles) -> None:
    """Write monitoring/camera, a row for each of the sets of a run."""
    camera = run.camera
    sizes = {"gain": camera.readout.n_gains, "pixel": camera.geometry.n_pixels}
    rows = {
        name: np.stack([getattr(entry, name) for entry in run.sets])
        for name in ("pedestal", "pedestal_std", "dc_to_pe", "pixel_valid")
    }
    rows["time_shift"] = np.zeros_like(rows["pedestal"])
    rows["tel_id"] = np.array([entry.tel_id for entry in run.sets], dtype=np.uint16)
    writer.table(f"monitoring/camera/{camera.name}", list(rows), sizes=sizes).append(rows)


def write_variances(writer: StoreWriter, run: RunFiles) -> list[str]:
    """Write monitoring/variance where there are variance images; return what is to be told."""
    if not run.variances:
        return []
    path = f"monitoring/variance/{run.camera.name}"
    sizes = {"pixel": run.camera.geometry.n_pixels}
    table = writer.table(path, ["tel_id", "time_s", "time_ns", "variance"], sizes=sizes)
    n_samples: set[int] = set()
    n_lost = 0
    for tel_id, file in run.variances.items():
        time_ns = file.table.read("TIME_NS")
        rows = np.flatnonzero(time_ns < NS)
        n_lost += len(time_ns) - len(rows)
        n_samples |= set(map(int, np.unique(file.table.read("NSAMPLES", rows))))
        table.append(
            {
                "tel_id": np.full(len(rows), tel_id, dtype=np.uint16),
                "time_s": file.table.read("TIME_S", rows).astype(np.int64) + REFERENCE_UNIX_S,
                "time_ns": time_ns[rows].astype(np.int32),
                "variance": file.table.read("VARIANCE", rows),
            }
        )
    least = min(n_samples, default=0)
    writer.set_attrs(path, {"n_samples": least, "gain": HIGH_GAIN})
    notes = []
    if n_lost:
        notes.append(f"{n_lost} variance images have no time and were left out.")
    if len(n_samples) > 1:
        notes.append(
            f"Variance images have {least} to {max(n_samples)} samples of every pixel; the store "
            f"says {least} of all of them."
        )
    return notes


def write_housekeeping(writer: StoreWriter, run: RunFiles) -> None:
    """Write monitoring/pointing and monitoring/live_time, the telescopes one after the other."""
    keys = ["tel_id", "time_s", "time_ns"]
    names = ["n_triggers", "n_events", "dead_time", "temperature", "voltage", "status"]
    pointing = writer.table("monitoring/pointing", [*keys, "alt", "az"], sizes={})
    live_time = writer.table("monitoring/live_time", [*keys, *names], sizes={})
    for tel_id, samples in run.housekeeping.items():
        columns: dict[str, Any] = {
            "tel_id": np.full(len(samples.time_s), tel_id, dtype=np.uint16),
            "time_s": samples.time_s + REFERENCE_UNIX_S,
            "time_ns": samples.time_ns.astype(np.int32),
        }
        pointing.append({**columns, "alt": samples.alt, "az": samples.az})
        live_time.append(
            {
                **columns,
                "n_triggers": samples.n_triggers,
                "n_events": samples.n_events,
                "dead_time": samples.dead_time_s,
                "temperature": samples.temperature,
                "voltage": samples.voltage,
                "status": samples.status,
            }
        )


def good_time(
    writer: StoreWriter,
    run: RunFiles,
    plan: Plan,
    packets: Mapping[int, PacketNumbers],
    stop_s: float | None = None,
) -> tuple[GoodTime, float, list[str]]:
    """Write monitoring/good_time and the dead time; return them and what is to be told.

    Parameters
    ----------
    writer
        The store.
    run
        Its files.
    plan
        All shower events of the run, whose rates are looked at.
    packets
        telescope -> numbers of the packets of its showers.
    stop_s
        Where the events were cut off on demand (s since 2020-01-01): rates and packets are not
        looked at. None = the run is all there.

    Returns
    -------
    good_time
    dead_time : share of the time in which the array is blind, NaN = not known
    notes
    """
    header = run.header
    track = NominalTrack(header.ra_pnt_deg, header.dec_pnt_deg, header.site)
    found = good_intervals(
        list(run.housekeeping.values()),
        header.start_s,
        header.stop_s if stop_s is None else stop_s,
        track=track,
        event_times=_event_times(plan) if stop_s is None else None,
        gaps=_gaps(run, packets) if stop_s is None else None,
        limits=GoodTimeLimits(min_telescopes=run.options.min_telescopes),
    )
    columns = {
        "start_s": found.start_s,
        "start_ns": found.start_ns.astype(np.int32),
        "stop_s": found.stop_s,
        "stop_ns": found.stop_ns.astype(np.int32),
    }
    writer.table("monitoring/good_time", list(columns), sizes={}).append(columns)
    shares = [dead_time_share(hk, found.intervals) for hk in run.housekeeping.values()]
    dead_time = array_dead_time(shares)
    writer.set_attrs(
        "monitoring",
        {
            "run_time_s": found.run_s,
            "good_time_s": found.seconds,
            "good_time_reasons": [str(reason) for reason in found.reasons],
            "dead_time_share": {str(each.tel_id): _known(each.share) for each in shares},
            "array_dead_time_share": _known(dead_time),
            "trigger_rate_hz": {str(each.tel_id): _rate(each) for each in shares},
        },
    )
    notes = []
    if found.seconds < found.run_s - 1e-3:
        why = "; ".join(str(reason) for reason in found.reasons[:MOST_REASONS])
        if len(found.reasons) > MOST_REASONS:
            why += f"; and {len(found.reasons) - MOST_REASONS} shorter ones"
        notes.append(
            f"Good time is {found.seconds:.1f} of {found.run_s:.1f} s of the run"
            f"{f' ({why})' if why else ''}."
        )
    resets = {each.tel_id: each.n_resets for each in shares if each.n_resets}
    notes += [
        f"The counters of telescope {tel_id} went back {number} times: its dead time is that of "
        "the rest."
        for tel_id, number in resets.items()
    ]
    return found, dead_time, notes


def _event_times(plan: Plan) -> dict[int, tuple[Any, Any]]:
    event = np.repeat(np.arange(plan.n_events), np.diff(plan.first))
    found = {}
    for tel_id in np.unique(plan.tel_id):
        mine = event[plan.tel_id == tel_id]
        found[int(tel_id)] = plan.time_s[mine], plan.time_ns[mine]
    return found


def _gaps(run: RunFiles, packets: Mapping[int, PacketNumbers]) -> dict[int, Any]:
    """Return the stretches of lost packets of each telescope whose files number their packets."""
    rejected = run.seb0.rejected
    found = {}
    for tel_id, file in run.events.items():
        others = (run.calibration, run.housekeeping_files, run.variances)
        files = [kind[tel_id] for kind in others if tel_id in kind]
        if any(PACKET_NUMBER not in each.table.columns for each in (file, *files)):
            continue
        rows = rejected.row[rejected.tel_id == tel_id]
        rows = rows[(rows >= 0) & (rows < file.table.n_rows)]
        read = file.table.read
        packets[tel_id].add(*(read(name, rows) for name in (PACKET_NUMBER, "TIME_S", "TIME_NS")))
        seen = cast("Dl0File", packets[tel_id])  # all that is asked of it is to read columns
        found[tel_id] = packet_gaps([seen, *files])
    return found


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rate(found: DeadTime) -> float | None:
    return _known(found.n_events / found.seconds) if found.seconds > 0 else None
