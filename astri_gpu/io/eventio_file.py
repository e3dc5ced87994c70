"""Events of a sim_telarray file: eventio's rules, with our decoders for what comes with each event.

What belongs to which event, what is skipped and what a file starts and ends with is the business of
`eventio.SimTelFile`. Of all the objects only those that come again and again are decoded here; the
others, and those that the decoders do not know, are eventio's as well.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventio import SimTelFile

from astri_gpu.io.eventio_objects import (
    ARRAY_EVENT,
    CALIBRATION_EVENT,
    TELESCOPE_DATA,
    Decoder,
)
from astri_gpu.io.eventio_shower import (
    MC_EVENT,
    MC_SHOWER,
    PHOTOELECTRON_SUM,
    mc_event,
    mc_shower,
    photoelectron_sum,
)
from astri_gpu.io.eventio_stream import Head, ObjectStream

__all__ = ["EventFile"]

Event = dict[str, Any]

LEFT: Any = object()
"""Answer of a reader that leaves the object to eventio."""


class EventFile(SimTelFile):
    """The events of one file, an iterator of dictionaries with eventio's keys.

    Left out of an event is what only eventio's own parsers give: headers and trigger times of the
    telescope events, image parameters, timing, auxiliary traces, stereo reconstruction, times of
    photo-electrons, photon bunches, longitudinal profiles.

    Parameters
    ----------
    path
        The file, plain or packed with gzip or zstd.
    allowed_telescopes
        Telescope numbers to decode, None = all.
    skip_calibration
        Leave out calibration events.
    """

    # Of eventio, which says nothing about their types.
    _file: Any
    current_event: Any
    current_mc_shower: Any
    _current_calib_pe: Any

    def __init__(
        self,
        path: Path,
        allowed_telescopes: tuple[int, ...] | None = None,
        skip_calibration: bool = False,
    ) -> None:
        allowed = set(allowed_telescopes) if allowed_telescopes else None
        self._decoder = Decoder(allowed)
        self._stream: ObjectStream | None = None
        self._readers: dict[int, Callable[[Head], Event | None]] = {
            MC_EVENT: self._read_mc_event,
            PHOTOELECTRON_SUM: self._read_photoelectron_sum,
            ARRAY_EVENT: self._read_array_event,
            TELESCOPE_DATA: self._read_telescope_data,
            MC_SHOWER: self._read_mc_shower,
            CALIBRATION_EVENT: self._read_calibration_event,
        }
        try:
            # Reads on to the first event, by `_parse_next_object`.
            super().__init__(
                path, allowed_telescopes=allowed, skip_calibration=skip_calibration, zcat=False
            )
        except BaseException:
            if self._stream is not None:
                self._stream.close()
            raise

    def drain(self) -> int:
        """Return the number of bytes behind the last object; see `ObjectStream.drain`."""
        return 0 if self._stream is None else self._stream.drain()

    def _parse_next_object(self) -> Event | None:
        """Read one object and return the event that it completes, if it does."""
        stream = self._stream
        if stream is None:
            self._file.close()  # opened by eventio, which has read nothing but the first bytes
            self._file = self._stream = stream = ObjectStream(self.path)
        head = stream.peek(self._readers)
        if head is not None:
            event = self._readers[head.type](head)
            if event is not LEFT:
                stream.skip(head)
                return event
        return super()._parse_next_object()

    @property
    def _data(self) -> Any:
        assert self._stream is not None
        return self._stream.data

    def _read_mc_shower(self, head: Head) -> Event | None:
        shower = mc_shower(self._data, head)
        if shower is None:
            return LEFT
        self.current_mc_shower = shower
        return None

    def _read_mc_event(self, head: Head) -> Event | None:
        found = mc_event(self._data, head)
        if found is None:
            return LEFT
        event = self.current_event
        self.current_event = {
            "type": "data",
            "event_id": head.ident,
            "mc_shower": self.current_mc_shower,
            "mc_event": found,
        }
        return event

    def _read_photoelectron_sum(self, head: Head) -> Event | None:
        sums = None if self.current_event is None else photoelectron_sum(self._data, head)
        if sums is None:
            return LEFT
        self.current_event["photoelectron_sums"] = sums
        return None

    def _read_telescope_data(self, head: Head) -> Event | None:
        if self.current_event is None:
            return LEFT
        found = self._decoder.telescope_data(self._data, head)
        if found is None:
            return LEFT
        self.current_event.update(found)
        return None

    def _read_array_event(self, head: Head) -> Event | None:
        # Without any shower it is a calibration event that has been unpacked.
        calibration = self.current_mc_shower is None
        if self.current_event is None and not calibration:
            return LEFT
        found = self._decoder.array_event(self._data, head)
        if found is None:
            return LEFT
        event = None
        if calibration:
            event, self.current_event = self.current_event, {"type": "calibration"}
        self.current_event.update(found)
        self._add_monitoring(self.current_event)
        return event

    def _read_calibration_event(self, head: Head) -> Event | None:
        found = self._decoder.calibration_event(self._data, head)
        if found is None:
            return LEFT
        number, content = found
        event = self.current_event
        self.current_event = {"type": "calibration", "event_id": -number}
        self.current_event["calibration_type"] = head.ident
        self.current_event.update(content)
        self._add_monitoring(self.current_event)
        if self._current_calib_pe is not None:
            self.current_event["photoelectrons"] = self._current_calib_pe
            self._current_calib_pe = None
        return event
