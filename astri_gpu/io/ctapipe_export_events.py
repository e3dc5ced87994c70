"""The tables of ctapipe's files with one row per event, and the telescope triggers."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.batch import first_rows
from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io.ctapipe_export_dl2 import Columns, ResultTables
from astri_gpu.io.ctapipe_export_file import CtapipeFile, EventTable
from astri_gpu.io.ctapipe_time import to_high_res
from astri_gpu.store import Store

__all__ = ["Content", "EventTables"]

EVENTS_PER_STEP = 65_536


class Content(NamedTuple):
    """What of the store goes into the file."""

    pixels: bool  # charges, peak times, masks
    mask: bool
    parameters: bool
    geometry: bool
    simulated: bool
    true_images: bool

    @property
    def levels(self) -> list[str]:
        """Return ctapipe's names of the data levels."""
        named = {
            "DL1_IMAGES": self.pixels,
            "DL1_PARAMETERS": self.parameters,
            "DL2": self.geometry,
        }
        return [name for name, there in named.items() if there]


class EventTables:
    """The tables with one row per event, and the telescope triggers."""

    def __init__(
        self, store: Store, file: CtapipeFile, layout: ArrayLayout, content: Content, n_events: int
    ) -> None:
        self._store, self._content = store, content
        self._cameras = store.cameras("dl1")
        self._tel_id = layout.tel_id
        self._index_of = np.full(int(layout.tel_id.max()) + 1, -1, dtype=np.int64)
        self._index_of[layout.tel_id] = np.arange(layout.n_telescopes)
        tels = {"time": (2,), "tels_with_trigger": (layout.n_telescopes,)}
        self._trigger = file.table(
            model.TRIGGER, model.TRIGGER_COLUMNS, shapes=tels, expected_rows=n_events
        )
        self._telescopes = file.table(
            model.TELESCOPE_TRIGGER,
            model.TELESCOPE_TRIGGER_COLUMNS,
            shapes={"time": (2,)},
            expected_rows=4 * n_events,
        )
        self._shower: EventTable | None = None
        self._results: ResultTables | None = None
        if content.simulated:
            self._shower = file.table(
                model.SIMULATION_SHOWER, model.SHOWER_COLUMNS, expected_rows=n_events
            )
        if content.geometry:
            self._results = ResultTables(store, file, layout, n_events, content.parameters)
        self._n_silent = 0

    def write(self) -> list[str]:
        """Write all events; return sentences about what could not be said."""
        n_events = self._store.n_rows("dl0/event")
        edges = np.arange(0, n_events + EVENTS_PER_STEP, EVENTS_PER_STEP)
        edges[-1] = n_events
        first_image = {name: first_rows(self._store, name, edges) for name in self._cameras}
        for block, (start, stop) in enumerate(pairwise(edges)):
            spans = {name: rows[block : block + 2] for name, rows in first_image.items()}
            self._write_block(int(start), int(stop), spans)
        notes = []
        if self._n_silent:
            notes.append(
                f"{self._store.path}: {self._n_silent} telescope triggers have no image and are "
                "left out (ctapipe reads one row per triggered telescope)."
            )
        if self._results is not None and self._results.n_unsure:
            notes.append(
                f"{self._store.path}: for {self._results.n_unsure} events the store does not say "
                "which telescopes the reconstruction used; none is marked."
            )
        return notes

    def _write_block(self, start: int, stop: int, spans: Mapping[str, NDArray[np.int64]]) -> None:
        store = self._store
        events = store.read_table("dl0/event", None, start, stop)
        keep = events["event_id"] >= 0
        images = self._images(start, spans)
        event, tel = images.pop("event"), images.pop("tel")
        has_image = np.zeros(events["tel_mask"].shape, dtype=bool)
        has_image[event, tel] = True
        self._n_silent += int(np.count_nonzero((events["tel_mask"] & ~has_image)[keep]))
        time_s, time_ns = events["time_s"], events["time_ns"]
        n_kept = int(np.count_nonzero(keep))
        keys = {name: events[name][keep] for name in ("obs_id", "event_id")}
        self._trigger.append(
            n_kept,
            {
                **keys,
                "event_type": events["event_type"][keep],
                "time": to_high_res(time_s[keep], time_ns[keep]),
                "tels_with_trigger": has_image[keep],
            },
        )
        if self._shower is not None:
            rows = store.read_table("simulation/event", None, start, stop)
            self._same(events["event_id"], rows["event_id"], "simulation/event")
            self._shower.append(n_kept, {name: values[keep] for name, values in rows.items()})
        if self._results is not None:
            rows = store.read_table("dl2/event", None, start, stop)
            self._same(events["event_id"], rows["event_id"], "dl2/event")
            self._results.append(rows, keep, images, event, tel)

        kept = keep[event]
        event, tel = event[kept], tel[kept]
        delay = images["trigger_time_ns"][kept].astype(np.float64)
        delay[~np.isfinite(delay)] = 0.0
        self._telescopes.append(
            len(event),
            {
                **{name: events[name][event] for name in ("obs_id", "event_id", "event_type")},
                "tel_id": self._tel_id[tel],
                "time": to_high_res(time_s[event], time_ns[event] + delay),
                "n_trigger_pixels": images["n_trigger_pixels"][kept],
            },
        )

    def _images(self, start: int, spans: Mapping[str, NDArray[np.int64]]) -> Columns:
        """Return the images of a block of events, event by event, then telescope by telescope."""
        narrow = ["event_index", "tel_id", "trigger_time_ns", "n_trigger_pixels"]
        parts = []
        for name, (first, last) in spans.items():
            rows = self._store.read_table(f"dl0/image/{name}", narrow, int(first), int(last))
            more = {} if self._results is None else self._results.image_columns
            for level, names in more.items():
                group = f"{level}/image/{name}"
                if names:
                    rows |= self._store.read_table(group, names, int(first), int(last))
            parts.append(rows)
        images = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        images["event"] = images.pop("event_index") - start
        images["tel"] = self._index_of[images.pop("tel_id")]
        order = np.lexsort((images["tel"], images["event"]))
        return {name: values[order] for name, values in images.items()}

    def _same(self, ours: NDArray[Any], theirs: NDArray[Any], table: str) -> None:
        if not np.array_equal(ours, theirs):
            raise AstriError(
                f"{table} of {self._store.path} does not have the events of dl0/event: the store "
                "is damaged, make it again."
            )
