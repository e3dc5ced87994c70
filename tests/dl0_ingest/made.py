"""A tiny run whose every count is known: DL0 files, stereo events and constants."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.calibration.cal1_file import ConstantsSet, write_cal1
from astri_gpu.dl0.header import run_cards
from astri_gpu.dl0.run_description import RunDescription, Telescope
from astri_gpu.dl3.sky import Site, to_altaz
from astri_gpu.event_building.seb0_file import (
    Events,
    Members,
    Offsets,
    Profile,
    Rejected,
    Seb0,
    write_seb0,
)
from tests.calibration.made_dl0 import START, description, times, write_dl0

SECONDS, N_EVENTS, N_TELS = 40.0, 40, 3
N_CALIBRATION, N_VARIANCES = 4, 3
SHAPE = (2, 2368)
SPLIT = 25.0
"""Seconds of the run at which other constants begin."""
NS = 1_000_000_000


@dataclass
class MadeRun:
    """Where the files are, and what is in them."""

    folder: Path
    run: RunDescription
    seb0: Path
    cal1: Path
    columns: dict[tuple[int, str], dict[str, Any]]
    """(telescope, kind) -> columns of its packets"""
    events: Seb0
    sets: list[ConstantsSet]

    def adc(self, event: int, tel_id: int) -> np.ndarray:
        """Return the counts of an image."""
        members = self.events.members
        (at,) = np.flatnonzero((members.event == event) & (members.tel_id == tel_id))
        return self.columns[tel_id, "SCI"]["adc"][members.row[at]]


def described(n_telescopes: int = N_TELS) -> RunDescription:
    """Return the run: telescopes 2, 3, ... so that numbers are no rows."""
    telescopes = tuple(Telescope(k + 2, 100.0 * k, -50.0 * k, 1.0 * k) for k in range(n_telescopes))
    return replace(description(n_telescopes, SECONDS), telescopes=telescopes)


def housekeeping(run: RunDescription, **changes: Any) -> dict[str, Any]:
    """Return housekeeping of a telescope that follows the sky, blind for 0.2 % of the time."""
    seconds = np.arange(SECONDS + 1)
    site = Site(run.latitude_deg, run.longitude_deg, run.altitude_m)
    looked = to_altaz(run.ra_pnt_deg, run.dec_pnt_deg, START + seconds, site)
    return {
        **times(seconds),
        "pointing_alt_deg": looked.alt,
        "pointing_az_deg": looked.az,
        "n_triggers": 100 * np.arange(len(seconds)),
        "n_events": 99 * np.arange(len(seconds)),
        "dead_time_ns": 2_000_000 * np.arange(len(seconds)),
        "status": np.full(len(seconds), 15),
        **changes,
    }


def make_run(
    folder: Path,
    *,
    seed: int = 1,
    hk: dict[int, dict[str, Any]] | None = None,
    lost: dict[int, int] | None = None,
) -> MadeRun:
    """Write a run.

    `hk` are other columns of housekeeping of some telescopes; `lost` says how many packets of a
    telescope were lost in the middle of the run.
    """
    random = np.random.default_rng(seed)
    run = described()
    tel_ids = [telescope.tel_id for telescope in run.telescopes]
    moment = np.sort(random.integers(NS // 10, int(SECONDS - 0.1) * NS, N_EVENTS))
    member = random.random((N_EVENTS, N_TELS)) < 0.6
    member[np.arange(N_EVENTS), random.integers(0, N_TELS, N_EVENTS)] = True
    delay = random.integers(-900, 900, member.shape)
    columns: dict[tuple[int, str], dict[str, Any]] = {}
    rows = np.full(member.shape, -1)
    rejected = []
    for k, tel_id in enumerate(tel_ids):
        # One row in the middle has no time and is in no event.
        own = np.flatnonzero(member[:, k])
        bad = len(own) // 2
        rows[own, k] = np.arange(len(own)) + (np.arange(len(own)) >= bad)
        rejected.append((tel_id, bad, 1))
        ns = np.insert(moment[own] + delay[own, k], bad, 0)
        stamps = times(1e-9 * ns)
        stamps["time_s"], stamps["time_ns"] = START + ns // NS, ns % NS
        stamps["time_ns"][bad] = NS + 5
        n_rows = len(ns)
        columns[tel_id, "SCI"] = {**stamps, **_images(random, n_rows), "event_type": 32}
        seconds = np.sort(random.uniform(0, SECONDS, N_CALIBRATION))
        columns[tel_id, "CAL"] = {
            **times(seconds),
            **_images(random, N_CALIBRATION),
            "event_type": np.resize([2, 0], N_CALIBRATION),
        }
        columns[tel_id, "HK"] = housekeeping(run, **(hk or {}).get(tel_id, {}))
        columns[tel_id, "VAR"] = {
            **times(np.arange(N_VARIANCES) * 10.0),
            "n_samples": np.full(N_VARIANCES, 1000),
            "variance": random.normal(50, 1, (N_VARIANCES, SHAPE[1])).astype(np.float32),
        }
        _number(columns, tel_id, (lost or {}).get(tel_id, 0))
        for kind in ("SCI", "CAL", "HK", "VAR"):
            write_dl0(folder, run, tel_id, kind, columns[tel_id, kind], small=False)
    events = _seb0(moment, member, delay, rows, tel_ids, rejected)
    seb0, cal1 = folder / run.name.seb0(), folder / run.name.cal1()
    write_seb0(seb0, events, run_cards(run, None, "SEB0"))
    sets = [
        ConstantsSet(
            tel_id,
            START + start,
            START + stop,
            pedestal=1000.0 * tel_id + start + np.zeros(SHAPE, np.float32),
            pedestal_std=np.full(SHAPE, 10.0, np.float32),
            dc_to_pe=np.full(SHAPE, 0.02, np.float32),
            pixel_valid=random.random(SHAPE) < 0.99,
        )
        for tel_id in tel_ids
        for start, stop in ((0.0, SPLIT), (SPLIT, SECONDS))
    ]
    write_cal1(cal1, sets, run_cards(run, None, "CAL1"))
    return MadeRun(folder, run, seb0, cal1, columns, events, sets)


def _images(random: np.random.Generator, n_rows: int) -> dict[str, Any]:
    fired = random.random((n_rows, SHAPE[1])) < 0.01
    return {
        "event_number": np.arange(n_rows),
        "trigger_type": np.ones(n_rows, dtype=int),
        "trigger_pixel": fired,
        "n_trigger_pixels": fired.sum(axis=1),
        "adc": random.integers(0, 4096, (n_rows, *SHAPE)).astype(np.uint16),
    }


def _number(columns: dict[tuple[int, str], dict[str, Any]], tel_id: int, n_lost: int) -> None:
    """Number the packets of a telescope, of all kinds, in order of time; some never came."""
    kinds = ("SCI", "CAL", "HK", "VAR")
    parts = [columns[tel_id, kind] for kind in kinds]
    ns = np.concatenate([part["time_s"] * NS + np.minimum(part["time_ns"], NS) for part in parts])
    number = np.empty(len(ns), dtype=np.int64)
    number[np.argsort(ns, kind="stable")] = np.arange(len(ns))
    number[number >= len(ns) // 2] += n_lost
    for part in parts:
        part["packet_number"], number = np.split(number, [len(part["time_s"])])


def _seb0(moment, member, delay, rows, tel_ids, rejected) -> Seb0:
    event, k = np.nonzero(member)
    n_tels = member.sum(axis=1)
    numbers = np.array(tel_ids)
    empty = [np.empty(0)] * 7
    return Seb0(
        events=Events(
            np.arange(len(moment)),
            START + moment // NS,
            moment % NS,
            n_tels,
            (member << (numbers - 1)).sum(axis=1),
            np.cumsum(n_tels) - n_tels,
        ),
        members=Members(event, numbers[k], rows[event, k], rows[event, k], delay[event, k]),
        offsets=Offsets(*empty),
        profile=Profile(*empty[:4]),
        rejected=Rejected(*np.array(rejected).T),
        window_us=1.0,
        tof_corrected=True,
    )
