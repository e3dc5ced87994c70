"""From the hits of a run to its stereo events: way of light, clocks, coincidences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astri_gpu.event_building.clock import JUMP, Clock
from astri_gpu.event_building.hits import Hits, Track, flight_time
from astri_gpu.event_building.matching import match
from astri_gpu.event_building.offsets import find_offsets
from astri_gpu.event_building.profile import (
    Accidentals,
    accidentals,
    offsets_table,
    profile_of,
    profile_table,
)
from astri_gpu.event_building.seb0_file import Offsets, Rejected, Seb0

__all__ = ["Built", "build"]


@dataclass(frozen=True)
class Built:
    """Stereo events and how they came about."""

    seb0: Seb0
    accidentals: Accidentals
    clocks: tuple[Clock, ...]
    n_left_over: int
    """Second hits of a telescope in an event; they are events of their own."""
    warnings: tuple[str, ...]


def build(
    hits: Sequence[Hits],
    positions: Sequence[tuple[float, float, float]] | None,
    track: Track,
    *,
    window_us: float = 0.3,
    offset_range_us: float = 100.0,
    jump_range_ms: float = 20.0,
    interval_s: float = 30.0,
    profile_step_us: float = 0.1,
) -> Built:
    """Return the stereo events of a run.

    Parameters
    ----------
    hits
        Of each telescope, no two of one.
    positions
        Of the telescopes, x North, y West, z up, m; None = no correction for the way of light.
    track
        Times and pointing of the run.
    window_us, offset_range_us, jump_range_ms, interval_s, profile_step_us
        See the options of `astri-gpu build-events`.
    """
    window_ns = max(1, round(1e3 * window_us))
    tel_ids = [each.tel_id for each in hits]
    times = [each.time_ns for each in hits]
    if positions is not None:
        times = [
            time + flight_time(position, time, track)
            for time, position in zip(times, positions, strict=True)
        ]
    clocks, edges = find_offsets(
        times,
        duration_ns=track.duration_ns,
        interval_ns=max(1, round(1e9 * interval_s)),
        range_ns=round(1e3 * offset_range_us),
        wide_ns=round(1e6 * jump_range_ms),
        window_ns=window_ns,
    )
    corrected = [time - clock.offsets(time) for clock, time in zip(clocks, times, strict=True)]
    alone = [not clock.nodes for clock in clocks]
    matched = match(hits, corrected, alone, window_ns=window_ns, origin_s=track.origin_s)
    step_ns = max(1, round(1e3 * profile_step_us))
    spectrum = profile_of(corrected, alone, window_ns=window_ns, step_ns=step_ns)
    chance = accidentals(
        spectrum,
        [len(time) for time, single in zip(times, alone, strict=True) if not single],
        track.stop_s - track.start_s,
        window_ns=window_ns,
    )
    offsets = offsets_table(clocks, times, tel_ids, edges, track)
    number = [np.full(len(each.rejected_row), each.tel_id) for each in hits]
    empty = [np.empty(0, np.int64)]
    seb0 = Seb0(
        events=matched.events,
        members=matched.members,
        offsets=offsets,
        profile=profile_table(spectrum, tel_ids),
        rejected=Rejected(
            np.concatenate(empty + number),
            np.concatenate(empty + [each.rejected_row for each in hits]),
            np.concatenate(empty + [each.rejected_reason for each in hits]),
        ),
        window_us=window_us,
        tof_corrected=positions is not None,
    )
    return Built(
        seb0=seb0,
        accidentals=chance,
        clocks=tuple(clocks),
        n_left_over=matched.n_left_over,
        warnings=tuple(_warnings(hits, clocks, offsets, track)),
    )


def _warnings(
    hits: Sequence[Hits], clocks: Sequence[Clock], offsets: Offsets, track: Track
) -> list[str]:
    found = []
    for each, clock in zip(hits, clocks, strict=True):
        n_rejected, n_hits = len(each.rejected_row), len(each.row)
        if n_rejected:
            found.append(
                f"{n_rejected:,} of {n_rejected + n_hits:,} events of telescope {each.tel_id} have "
                "no usable time (TIME_NS beyond 1e9, or outside the run): they are in no event, "
                "and listed in the table REJECTED"
            )
        if n_hits and not clock.nodes and len(hits) > 1:
            found.append(
                f"Telescope {each.tel_id} has no coincidences with the others within the ranges "
                f"that are looked at: its {n_hits:,} events stay single"
            )
        begins = (offsets.tel_id == each.tel_id) & ((offsets.flag & JUMP) > 0)
        for k in np.nonzero(begins)[0]:
            step = offsets.offset_ns[k] - offsets.offset_ns[k - 1]
            found.append(
                f"The clock of telescope {each.tel_id} jumped by {step / 1e3:.3f} us, "
                f"{offsets.start_s[k] - track.start_s:.1f} s after the start of the run: corrected"
            )
    return found
