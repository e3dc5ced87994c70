"""Rows of telescopes' files put together to events of the array, block by block."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.calibration.cal1_file import set_at
from astri_gpu.calibration.pointing import pointing_at
from astri_gpu.dl0.files import Dl0File
from astri_gpu.dl3.sky import REFERENCE_UNIX_S
from astri_gpu.errors import AstriError
from astri_gpu.io.dl0_fits_run import TRIGGER_PIXEL, RunFiles
from astri_gpu.kernels.coordinates import altaz_to_cartesian, cartesian_to_altaz

__all__ = [
    "PacketNumbers",
    "Plan",
    "blocks",
    "calibration_plan",
    "shower_plan",
]

BLOCK_IMAGES = 2048
NS = 1_000_000_000
OPTIONAL = {
    "n_trigger_pixels": ("NTRIGPIX", -1),
    "trigger_type": ("TRIGTYPE", 0),
}
"""Column of dl0/image: that of the files, and what stands where they do not have it."""
PACKET_NUMBER = "PKT_NUM"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Plan(NamedTuple):
    """Events in the order of the store and the rows that make their images.

    Images are in the order of events, those of an event in the order of telescopes.
    """

    event_id: Ints  # (event,)
    time_s: Ints  # (event,), UTC s since 2020-01-01
    time_ns: Ints
    first: Ints  # (event + 1,), first image of each event, and the number of images
    tel_id: Ints  # (image,)
    row: Ints  # (image,), in the file of the telescope
    counter: Ints | None  # (image,), EVT_CTR that the row must have; None = not known
    delay_ns: Ints  # (image,), after the time of the event
    alt: Floats  # (image,), pointing, deg; NaN = not known
    az: Floats
    array_alt: Floats  # (event,), mean of the telescopes; NaN = of none
    array_az: Floats
    calibration: NDArray[np.int32]  # (image,), row of the constants

    @property
    def n_images(self) -> int:
        """Return the number of images."""
        return len(self.row)

    @property
    def n_events(self) -> int:
        """Return the number of events."""
        return len(self.event_id)


class PacketNumbers:
    """Numbers and times of packets that went by, in pieces; it reads like a table of DL0.

    Going through the files of events once more, for a few bytes of every row, would take as long
    as reading them.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[Ints]] = {"PKT_NUM": [], "TIME_S": [], "TIME_NS": []}

    @property
    def table(self) -> "PacketNumbers":
        """Return itself, as a file has its table."""
        return self

    def add(self, number: Ints, time_s: Ints, time_ns: Ints) -> None:
        """Remember packets."""
        for part, values in zip(self._parts.values(), (number, time_s, time_ns), strict=True):
            part.append(values.astype(np.int64))

    def read(self, name: str) -> Ints:
        """Return a column, (packet,)."""
        return np.concatenate([np.empty(0, np.int64), *self._parts[name]])


def shower_plan(run: RunFiles, max_events: int | None = None) -> Plan:
    """Return what the stereo events of a run ask for.

    Events keep their numbers, those of telescopes that are not used lose images, and those without
    any image are left out. Clocks are compared there already, so times are those of the events.

    Parameters
    ----------
    run
        Its files.
    max_events
        How many events, from the first; None = all.

    Raises
    ------
    AstriError
        When the file of a telescope has fewer rows than are asked for.
    """
    events, members = run.seb0.events, run.seb0.members
    use = np.isin(members.tel_id, run.tel_ids)
    counts = np.bincount(members.event[use], minlength=len(events.number))
    chosen = np.flatnonzero(counts)[:max_events]
    if len(chosen) < len(counts):
        use &= np.isin(members.event, chosen)
    order = np.flatnonzero(use)
    order = order[np.lexsort([members.tel_id[order], members.event[order]])]
    for tel_id, file in run.events.items():
        rows = members.row[order][members.tel_id[order] == tel_id]
        if len(rows) and not (rows.min() >= 0 and rows.max() < file.table.n_rows):
            wrong = rows[(rows < 0) | (rows >= file.table.n_rows)][0]
            raise _other_files(run, f"row {wrong} of {file.path}, which has {file.table.n_rows}")
    return _plan(
        run,
        event_id=events.number[chosen],
        time_s=events.time_s[chosen],
        time_ns=events.time_ns[chosen],
        n_images=counts[chosen],
        tel_id=members.tel_id[order],
        row=members.row[order],
        counter=members.event_counter[order],
        delay_ns=members.dt_ns[order],
    )


def calibration_plan(run: RunFiles, max_events: int | None = None) -> tuple[Plan, int]:
    """Return the interleaved events of all telescopes, and how many have no usable time.

    Each is an event of one telescope, numbered -1, -2, ... in order of time, by the clock of its
    telescope as it is: nothing depends on its offset.
    """
    parts, n_lost = [], 0
    for number, file in run.calibration.items():
        whole = file.table.read("TIME_S").astype(np.int64)
        rest = file.table.read("TIME_NS").astype(np.int64)
        rows = np.flatnonzero(rest < NS)
        n_lost += len(rest) - len(rows)
        parts.append((whole[rows], rest[rows], np.full(len(rows), number), rows))
    columns = [np.concatenate(part) for part in zip(*parts, strict=True)] or [np.empty(0, int)] * 4
    order = np.lexsort(columns[1::-1])[:max_events]
    time_s, time_ns, tel_id, row = (column[order].astype(np.int64) for column in columns)
    plan = _plan(
        run,
        event_id=-1 - np.arange(len(row)),
        time_s=time_s,
        time_ns=time_ns,
        n_images=np.ones(len(row), dtype=np.int64),
        tel_id=tel_id,
        row=row,
        counter=None,
        delay_ns=np.zeros(len(row), dtype=np.int64),
    )
    return plan, n_lost


def _plan(
    run: RunFiles,
    *,
    time_s: Ints,
    time_ns: Ints,
    n_images: Ints,
    tel_id: Ints,
    **columns: Any,
) -> Plan:
    """Return a plan with pointing and constants for the time of each event."""
    event = np.repeat(np.arange(len(n_images)), n_images)
    alt, az = np.full(len(event), np.nan), np.full(len(event), np.nan)
    calibration = np.zeros(len(event), dtype=np.int32)
    seconds = time_s + 1e-9 * time_ns
    for number in run.tel_ids:
        mine = np.flatnonzero(tel_id == number)
        at = event[mine]
        alt[mine], az[mine] = pointing_at(run.housekeeping[number], time_s[at], time_ns[at])
        calibration[mine] = set_at(run.sets, number, seconds[at])
    array_alt, array_az = _mean_pointing(alt, az, event, len(n_images))
    return Plan(
        time_s=time_s,
        time_ns=time_ns,
        first=np.concatenate([[0], np.cumsum(n_images)]),
        tel_id=tel_id,
        alt=alt,
        az=az,
        array_alt=array_alt,
        array_az=array_az,
        calibration=calibration,
        **columns,
    )


def _mean_pointing(alt: Floats, az: Floats, event: Ints, n_events: int) -> tuple[Floats, Floats]:
    """Return the mean direction of the telescopes of each event, (event,); NaN of none."""
    known = np.isfinite(alt)
    vectors = altaz_to_cartesian(alt[known], az[known])
    sums = [np.bincount(event[known], part, minlength=n_events) for part in vectors]
    mean = cartesian_to_altaz(*sums)
    some = np.bincount(event[known], minlength=n_events) > 0
    return np.where(some, mean.alt, np.nan), np.where(some, np.mod(mean.az, 360.0), np.nan)


def blocks(
    run: RunFiles,
    plan: Plan,
    files: Mapping[int, Dl0File],
    n_before: int,
    obs_id: int,
    packets: Mapping[int, PacketNumbers] | None = None,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield rows of dl0/event and of dl0/image for the events of a plan, block by block.

    Parameters
    ----------
    run
        Files of the run.
    plan
        What to read.
    files
        telescope -> file that has the rows.
    n_before
        Events that the store has already.
    obs_id
        Number of the run.
    packets
        telescope -> what remembers the numbers of the packets.

    Raises
    ------
    AstriError
        When the row of a telescope is not the event that the plan means.
    """
    place = {tel_id: at for at, tel_id in enumerate(run.tel_ids)}
    start = 0
    while start < plan.n_events:
        target = plan.first[start] + BLOCK_IMAGES
        stop = max(start + 1, int(np.searchsorted(plan.first, target, side="right")) - 1)
        images = slice(int(plan.first[start]), int(plan.first[stop]))
        tel_id = plan.tel_id[images]
        event = np.repeat(np.arange(stop - start), np.diff(plan.first[start : stop + 1]))
        columns = _gather(run, plan, files, images)
        if packets is not None:
            for number, file in files.items():
                mine = np.flatnonzero(tel_id == number)
                if len(mine) and PACKET_NUMBER in file.table.columns:
                    at = start + event[mine]
                    numbers = file.table.read(PACKET_NUMBER, plan.row[images][mine])
                    packets[number].add(numbers, plan.time_s[at], plan.time_ns[at])
        mask = np.zeros((stop - start, len(place)), dtype=bool)
        mask[event, [place[int(number)] for number in tel_id]] = True
        event_type = columns.pop("event_type")
        yield (
            {
                "obs_id": np.full(stop - start, obs_id),
                "event_id": plan.event_id[start:stop],
                "time_s": plan.time_s[start:stop] + REFERENCE_UNIX_S,
                "time_ns": plan.time_ns[start:stop].astype(np.int32),
                "event_type": event_type[plan.first[start:stop] - images.start],
                "array_alt": plan.array_alt[start:stop],
                "array_az": plan.array_az[start:stop],
                "tel_mask": mask,
            },
            {
                "event_index": n_before + start + event,
                "tel_id": tel_id.astype(np.uint16),
                "calibration_index": plan.calibration[images],
                "pointing_alt": plan.alt[images],
                "pointing_az": plan.az[images],
                "trigger_time_ns": plan.delay_ns[images].astype(np.float32),
                **columns,
            },
        )
        start = stop


def _gather(
    run: RunFiles, plan: Plan, files: Mapping[int, Dl0File], images: slice
) -> dict[str, Any]:
    """Return the columns of the files for some images of a plan, in its order."""
    tel_id, row = plan.tel_id[images], plan.row[images]
    gains, pixels = run.camera.readout.n_gains, run.camera.geometry.n_pixels
    n_images = len(row)
    out: dict[str, NDArray[Any]] = {
        "event_type": np.zeros(n_images, dtype=np.uint8),
        "adc": np.empty((n_images, gains, pixels), dtype=np.uint16),
        "n_trigger_pixels": np.full(n_images, OPTIONAL["n_trigger_pixels"][1], dtype=np.int32),
        "trigger_type": np.full(n_images, OPTIONAL["trigger_type"][1], dtype=np.uint16),
    }
    if run.has_trigger_pixels:
        out["trigger_pixel"] = np.zeros((n_images, pixels), dtype=bool)
    for number in np.unique(tel_id):
        file = files[int(number)]
        read, there = file.table.read, file.table.columns
        mine = np.flatnonzero(tel_id == number)
        rows = row[mine]
        if plan.counter is not None:
            counter = read("EVT_CTR", rows).astype(np.int64)
            wrong = counter != plan.counter[images][mine]
            if wrong.any():
                at = int(np.argmax(wrong))
                raise _other_files(
                    run,
                    f"event {plan.counter[images][mine][at]} in row {rows[at]} of {file.path}, "
                    f"where event {counter[at]} is",
                )
        out["event_type"][mine] = read("EVT_TYPE", rows)
        out["adc"][mine] = read("ADC", rows)
        if run.has_trigger_pixels:
            out["trigger_pixel"][mine] = read(TRIGGER_PIXEL, rows)
        for name, (column, _) in OPTIONAL.items():
            if column in there:
                out[name][mine] = read(column, rows)
    return out


def _other_files(run: RunFiles, what: str) -> AstriError:
    return AstriError(
        f"{run.seb0.path} asks for {what}: it was made from other files. Build the events of these "
        "with `astri-gpu build-events`."
    )
