"""Decoders of the sim_telarray objects that come with every event.

Each gives what eventio's parser of that object gives, as far as the ingest needs it, and None for
every version, flag or size that it does not know: such an object is left to eventio, which reads it
or says what is wrong. Formats: see `astri_gpu.kernels.loops.eventio`.
"""

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.io.eventio_stream import Head
from astri_gpu.kernels.loops import eventio as loops

__all__ = [
    "ARRAY_EVENT",
    "CALIBRATION_EVENT",
    "TELESCOPE_DATA",
    "Decoder",
]

TELESCOPE_DATA, PHOTO_ELECTRONS = 1204, 1208
TRIGGER, ARRAY_EVENT, TELESCOPE_HEADER, ADC_SUMS, ADC_SAMPLES = 2009, 2010, 2011, 2012, 2013
PIXEL_LIST, CALIBRATION_EVENT = 2027, 2028
TRACKING, TELESCOPE_EVENT = 2100, 2200  # plus number % 100 + 1000 * (number // 100)
N_TELESCOPES = 1000

ADC_VERSION = 3
# Bits of the ident of ADC objects: zero suppression, data reduction, and a list of pixels that
# came with another object. Sums do not use the last one.
SUPPRESSED, REDUCED, LIST_KNOWN = 0x1F, 0x1F << 5, 1 << 10
TRACKING_RAW, TRACKING_CORRECTED = 0x100, 0x200
AMPLITUDES, PHOTON_COUNTS = 1, 4
# Until version 3, three bits of a telescope's trigger type were written one hexadecimal place low.
SHIFTED_TRIGGER_BITS = 0x70
TYPED_TRIGGERS = 0x0F

INT, SHORT = struct.Struct("<i"), struct.Struct("<h")
TRIGGER_START = struct.Struct("<iiiiiih")
SAMPLES_START, SUMS_START = struct.Struct("<ihh"), struct.Struct("<ih")
PAIR = struct.Struct("<ff")
ELECTRONS_START = {1: struct.Struct("<iii"), 2: struct.Struct("<iihi"), 3: struct.Struct("<iihi")}

MAX_PIXELS = 1 << 20  # no camera has more; a damaged number must not ask for all the memory


class Inside(NamedTuple):
    """The objects inside another one: the columns of `loops.sub_objects`.

    Columns and not rows, because hundreds of small lists for every event are work for Python's
    garbage collector.
    """

    kind: list[int]
    version: list[int]
    ident: list[int]
    container: list[int]
    start: list[int]
    stop: list[int]
    first: list[int]
    n_inside: list[int]

    @property
    def n_outer(self) -> int:
        """Return how many are at the first level: those before the first one at the second."""
        places = zip(self.first, self.n_inside, strict=True)
        return min((first for first, n in places if n), default=len(self.kind))

    def place(self, i: int) -> tuple[int, int, int, int]:
        """Return (version, ident, start, stop) of one of them."""
        return self.version[i], self.ident[i], self.start[i], self.stop[i]


Place = tuple[int, int, int, int]


class Decoder:
    """Decodes objects that lie complete in a buffer of bytes.

    Parameters
    ----------
    allowed : telescope numbers to decode, None = all
    """

    def __init__(self, allowed: set[int] | None) -> None:
        self._allowed = allowed
        self._table = np.empty((1024, len(loops.COLUMNS)), dtype=np.int64)

    def array_event(self, data: NDArray[np.uint8], head: Head) -> dict[str, Any] | None:
        """Return trigger, telescope events and pointings of one array event."""
        inside = self._inside(data, head)
        if inside is None or not inside.kind or inside.kind[0] != TRIGGER:
            return None
        view = data.data
        trigger = _trigger(data, view, inside.place(0))
        if trigger is None:
            return None
        allowed = self._allowed
        telescopes: dict[int, dict[str, Any]] = {}
        tracking: dict[int, dict[str, Any]] = {}
        event = {
            # The array event of an older file has a number of its own.
            "event_id": inside.ident[0] or head.ident,
            "trigger_information": trigger,
            "telescope_events": telescopes,
            "tracking_positions": tracking,
        }
        if allowed and allowed.isdisjoint(trigger["telescopes_with_data"]):
            return event
        for i in range(1, inside.n_outer):
            number = _telescope(inside.kind[i], TELESCOPE_EVENT)
            if number is not None:
                if allowed is None or number in allowed:
                    found = _telescope_event(data, view, inside, i)
                    if found is None:
                        return None
                    telescopes[number] = found
                continue
            number = _telescope(inside.kind[i], TRACKING)
            if number is not None:
                position = _tracking(view, inside.place(i), number)
                if position is None:
                    return None
                if allowed is None or number in allowed:
                    tracking[number] = position
        if telescopes.keys() - tracking.keys():
            return None
        return event

    def calibration_event(
        self, data: NDArray[np.uint8], head: Head
    ) -> tuple[int, dict[str, Any]] | None:
        """Return (number of the array event, its content) of a calibration event."""
        inside = self._inside(data, head)
        if inside is None or not inside.kind or inside.kind[0] != ARRAY_EVENT:
            return None
        version, ident, start, stop = inside.place(0)
        container = bool(inside.container[0])
        event = self.array_event(data, Head(ARRAY_EVENT, version, ident, container, start, stop))
        return None if event is None else (ident, event)

    def telescope_data(self, data: NDArray[np.uint8], head: Head) -> dict[str, Any] | None:
        """Return the true images, by the number that the object gives to a telescope."""
        inside = self._inside(data, head)
        if inside is None:
            return None
        view = data.data
        images = {}
        for i in range(inside.n_outer):
            if inside.kind[i] != PHOTO_ELECTRONS:
                continue
            image = _photo_electrons(data, view, inside.place(i))
            if image is None:
                return None
            images[inside.ident[i] % 1000] = {"photoelectrons": image}
        return {"photoelectrons": images} if images else {}

    def _inside(self, data: NDArray[np.uint8], head: Head) -> Inside | None:
        """Return the objects inside, in two levels, None where they do not tile the outer one."""
        if not head.container:
            return None
        while True:
            n = loops.sub_objects(data, head.start, head.stop, self._table)
            if n != loops.FULL:
                break
            self._table = np.empty((4 * len(self._table), len(loops.COLUMNS)), dtype=np.int64)
        return None if n < 0 else Inside(*self._table[:n].T.tolist())


def _telescope(kind: int, base: int) -> int | None:
    """Return the number of the telescope that a type stands for, None for other types."""
    hundreds, rest = divmod(kind - base, 1000)
    number = 100 * hundreds + rest
    return number if rest < 100 and 0 <= number < N_TELESCOPES else None


def _trigger(data: NDArray[np.uint8], view: memoryview, place: Place) -> dict[str, Any] | None:
    version, _, start, stop = place
    if version not in (2, 3) or start + TRIGGER_START.size > stop:
        return None
    *numbers, n = TRIGGER_START.unpack_from(view, start)
    at = start + TRIGGER_START.size
    if n < 0 or at + 6 * n + SHORT.size > stop:
        return None
    triggered = struct.unpack_from(f"<{n}h", view, at)
    times = struct.unpack_from(f"<{n}f", view, at + 2 * n)
    at += 6 * n
    (n_data,) = SHORT.unpack_from(view, at)
    at += SHORT.size
    if n_data < 0 or at + 2 * n_data > stop:
        return None
    with_data = struct.unpack_from(f"<{n_data}h", view, at)
    types = np.empty(n, dtype=np.int64)
    at = loops.unsigned_varints(data, at + 2 * n_data, stop, types)
    if at < 0:
        return None
    # Several kinds of trigger in a telescope: one time for each, which nobody asks for.
    several = [
        count for kind in types.tolist() if (count := (kind & TYPED_TRIGGERS).bit_count()) > 1
    ]
    if at + 4 * sum(several) + (12 if version == 3 else 0) > stop:
        return None
    types |= (types & SHIFTED_TRIGGER_BITS) << 4
    types &= ~SHIFTED_TRIGGER_BITS
    return {
        "cpu_time": tuple(numbers[0:2]),
        "gps_time": tuple(numbers[2:4]),
        "trigger_pattern": numbers[4],
        "data_pattern": numbers[5],
        "n_triggered_telescopes": n,
        "triggered_telescopes": triggered,
        "trigger_times": times,
        "n_telescopes_with_data": n_data,
        "telescopes_with_data": with_data,
        "teltrg_type_mask": types.tolist(),
    }


def _tracking(view: memoryview, place: Place, number: int) -> dict[str, Any] | None:
    version, ident, start, stop = place
    if version != 0 or (ident & 0xFF) | ((ident & 0x3F000000) >> 16) != number:
        return None
    position: dict[str, Any] = {}
    for flag, kind in ((TRACKING_RAW, "raw"), (TRACKING_CORRECTED, "cor")):
        if ident & flag:
            if start + PAIR.size > stop:
                return None
            azimuth, altitude = PAIR.unpack_from(view, start)
            position |= {f"azimuth_{kind}": azimuth, f"altitude_{kind}": altitude}
            start += PAIR.size
    return position | {"telescope_id": number} if position else None


def _telescope_event(
    data: NDArray[np.uint8], view: memoryview, inside: Inside, outer: int
) -> dict[str, Any] | None:
    """Return counts and pixel lists; the event header and what sim_telarray reconstructs go."""
    first, n = inside.first[outer], inside.n_inside[outer]
    if n == 0 or inside.kind[first] != TELESCOPE_HEADER or inside.version[first] > 4:
        return None
    lists: dict[int, Any] = {}
    event: dict[str, Any] = {"pixel_lists": lists}
    for i in range(first + 1, first + n):
        kind = inside.kind[i]
        found: Any
        if kind == ADC_SAMPLES:
            event["adc_samples"] = found = _samples(data, view, inside.place(i))
        elif kind == ADC_SUMS:
            event["adc_sums"] = found = _sums(data, view, inside.place(i))
        elif kind == PIXEL_LIST:
            code = inside.ident[i] // 1_000_000
            lists[code] = found = _pixel_list(data, view, inside.place(i))
        else:
            continue
        if found is None:
            return None
    return event


def _samples(data: NDArray[np.uint8], view: memoryview, place: Place) -> NDArray[np.uint16] | None:
    """Return the counts (gain, pixel, sample), or (gain, pixel) where there is one sample."""
    version, ident, start, stop = place
    if version != ADC_VERSION or ident & (SUPPRESSED | REDUCED | LIST_KNOWN):
        return None
    if start + SAMPLES_START.size > stop:
        return None
    n_pixels, n_gains, n_samples = SAMPLES_START.unpack_from(view, start)
    start += SAMPLES_START.size
    shape = (n_gains, n_pixels, n_samples)
    # Every sample takes a byte at least.
    if min(shape) < 1 or n_gains * n_pixels * n_samples > stop - start:
        return None
    out = np.empty(shape, dtype=np.uint16)
    if loops.differences(data, start, stop, n_samples, out.reshape(-1)) < 0:
        return None
    return out if n_samples > 1 else out[:, :, 0]


def _sums(data: NDArray[np.uint8], view: memoryview, place: Place) -> NDArray[np.uint32] | None:
    """Return the sums (gain, pixel)."""
    version, ident, start, stop = place
    if version != ADC_VERSION or ident & (SUPPRESSED | REDUCED) or start + SUMS_START.size > stop:
        return None
    n_pixels, n_gains = SUMS_START.unpack_from(view, start)
    start += SUMS_START.size
    # eventio gives a camera of one pixel another shape.
    if n_pixels < 2 or n_gains < 1 or n_gains * n_pixels > stop - start:
        return None
    out = np.empty((n_gains, n_pixels), dtype=np.uint32)
    return None if loops.differences(data, start, stop, n_pixels, out.reshape(-1)) < 0 else out


def _pixel_list(data: NDArray[np.uint8], view: memoryview, place: Place) -> dict[str, Any] | None:
    version, ident, start, stop = place
    if version == 0:
        if start + SHORT.size > stop:
            return None
        (n,) = SHORT.unpack_from(view, start)
        start += SHORT.size
        if n < 0 or start + 2 * n > stop:
            return None
        pixels = np.frombuffer(data, dtype="<i2", count=n, offset=start).astype(np.int64)
    elif version == 1:
        count = np.empty(1, dtype=np.int64)
        start = loops.signed_varints(data, start, stop, count)
        n = int(count[0])
        if start < 0 or n < 0 or n > stop - start:
            return None
        pixels = np.empty(n, dtype=np.int64)
        if loops.signed_varints(data, start, stop, pixels) < 0:
            return None
    else:
        return None
    code, number = divmod(ident, 1_000_000)
    return {"code": code, "telescope_id": number, "pixels": n, "pixel_list": pixels}


def _photo_electrons(
    data: NDArray[np.uint8], view: memoryview, place: Place
) -> NDArray[np.int32] | None:
    """Return the true photo-electrons of each pixel, (pixel,)."""
    version, _, start, stop = place
    layout = ELECTRONS_START.get(version)
    if layout is None or start + layout.size > stop:
        return None
    n_total, n_pixels, *flags, n_listed = layout.unpack_from(view, start)
    flag = flags[0] if flags else 0
    if min(n_total, n_pixels, n_listed) < 0 or n_pixels > MAX_PIXELS:
        return None
    image = np.zeros(n_pixels, dtype=np.int32)
    at = loops.true_image(
        data, start + layout.size, stop, version, flag & AMPLITUDES, n_listed, n_total, image
    )
    if at < 0:
        return None
    if flag & PHOTON_COUNTS:  # a second list, of photons: pixel (int16) and their number (int32)
        if at + INT.size > stop:
            return None
        (n_listed,) = INT.unpack_from(view, at)
        if n_listed < 0 or at + INT.size + 6 * n_listed > stop:
            return None
    return image
