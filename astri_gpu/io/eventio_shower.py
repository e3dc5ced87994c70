"""Decoders of the sim_telarray objects of a simulated shower and of each of its uses.

They come for every shower that was thrown, triggered or not. The rules are those of
`astri_gpu.io.eventio_objects`: what eventio's parsers give, as far as it is needed, or None.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.io.eventio_stream import Head

__all__ = [
    "MC_EVENT",
    "MC_SHOWER",
    "PHOTOELECTRON_SUM",
    "mc_event",
    "mc_shower",
    "photoelectron_sum",
]

MC_SHOWER, MC_EVENT, PHOTOELECTRON_SUM = 2020, 2021, 2026

INT, SHORT = struct.Struct("<i"), struct.Struct("<h")
MC_EVENT_START, WEIGHT = struct.Struct("<iff"), struct.Struct("<f")
SHOWER_0, SHOWER_1 = struct.Struct("<ifffff"), struct.Struct("<ifffffffff")
SHOWER_NAMES_0 = ("primary_id", "energy", "azimuth", "altitude", "h_first_int", "xmax")
SHOWER_NAMES_1 = (
    *("primary_id", "energy", "azimuth", "altitude", "depth_start", "h_first_int", "xmax"),
    *("hmax", "emax", "cmax"),
)


def mc_event(data: NDArray[np.uint8], head: Head) -> dict[str, Any] | None:
    """Return the use of a shower: its core in m (x North, y West) and weight."""
    start, n_bytes = head.start, head.stop - head.start
    weighted = head.version >= 2
    if head.version > 2 or n_bytes < MC_EVENT_START.size + (WEIGHT.size if weighted else 0):
        return None
    shower, x, y = MC_EVENT_START.unpack_from(data.data, start)
    weight = WEIGHT.unpack_from(data.data, start + MC_EVENT_START.size)[0] if weighted else 1.0
    return {
        "shower_num": shower,
        "xcore": x,
        "ycore": y,
        "aweight": weight,
        "event_id": head.ident,
    }


def mc_shower(data: NDArray[np.uint8], head: Head) -> dict[str, Any] | None:
    """Return the primary particle: TeV, rad, m, g/cm2; without longitudinal profiles."""
    layout = SHOWER_0 if head.version == 0 else SHOWER_1
    if head.version > 2 or head.start + layout.size + SHORT.size > head.stop:
        return None
    names = SHOWER_NAMES_0 if head.version == 0 else SHOWER_NAMES_1
    values = layout.unpack_from(data.data, head.start)
    return {"shower": head.ident, **dict(zip(names, values, strict=True))}


def photoelectron_sum(data: NDArray[np.uint8], head: Head) -> dict[str, Any] | None:
    """Return the true photo-electrons of each telescope, `n_pe` (tel,)."""
    start = head.start
    if head.version > 2 or start + 8 > head.stop:
        return None
    (shower,) = INT.unpack_from(data.data, start)
    (n,) = INT.unpack_from(data.data, start + 4)
    n_columns = (2, 6, 7)[head.version]
    if n < 0 or start + 8 + 4 * n_columns * n > head.stop:
        return None
    sums, n_pixels = np.frombuffer(data, "<i4", 2 * n, start + 8).reshape(2, n)
    if n_pixels.any():  # values per pixel, which no program is known to have written
        return None
    return {"event": head.ident, "shower_num": shower, "n_tel": n, "n_pe": sums.copy()}
