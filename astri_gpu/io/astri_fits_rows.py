"""Rows of EVENTS from a store: its columns by A-SciSoft's names, in blocks of whole events."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.batch import first_rows
from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io import astri_fits_model as model
from astri_gpu.io.astri_fits_truth import SHOWER, narrow
from astri_gpu.kernels.coordinates import altaz_to_telescope
from astri_gpu.kernels.stereo import impact_distance
from astri_gpu.store import Store

__all__ = ["Columns", "ImageBlock", "event_blocks", "image_blocks", "source_position"]

EVENTS_PER_STEP = 32_768
SECOND_NS = 1_000_000_000
TELESCOPES = 31  # bits of TRIGTEL that leave it positive
Columns = dict[str, NDArray[Any]]


class ImageBlock(NamedTuple):
    """Rows of EVENTS of some events; `tel` is the place of each row's telescope in the layout."""

    columns: Columns
    tel: NDArray[np.int64]
    n_events: int


def source_position(store: Store) -> tuple[float, float] | None:
    """Return the source position (fov_lon, fov_lat in deg) that `process` assumed, if known."""
    record: Any = {"config": store.attrs.get("config"), "previous": store.attrs.get("provenance")}
    while isinstance(record, Mapping):
        config = record.get("config")
        parameters = config.get("parameters") if isinstance(config, Mapping) else None
        if isinstance(parameters, Mapping):
            try:
                lon, lat = (parameters[f"source_fov_{axis}_deg"] for axis in ("lon", "lat"))
                return float(lon), float(lat)
            except (KeyError, TypeError, ValueError):
                return None
        record = record.get("previous")
    return None


def image_blocks(
    store: Store, layout: ArrayLayout, level: str, missing: set[str]
) -> Iterator[ImageBlock]:
    """Yield the images of shower events, sorted by event and telescope, as rows of EVENTS.

    Parameters
    ----------
    store
        DL1b store or higher.
    layout
        Its telescopes.
    level
        "lv1b", "lv1c" or "lv2a".
    missing
        Takes the names of columns that the store does not have; they are NaN or 0.

    Raises
    ------
    AstriError
        When tables do not fit together, or numbers do not fit into the columns.
    """
    rows = _ImageRows(store, layout, level, missing)
    edges = _edges(store, EVENTS_PER_STEP)
    first = {camera: first_rows(store, camera, edges) for camera in store.cameras("dl1")}
    for block, (start, stop) in enumerate(pairwise(edges)):
        spans = {camera: found[block : block + 2] for camera, found in first.items()}
        yield rows.block(int(start), int(stop), spans)


class _ImageRows:
    """Makes rows of EVENTS of the levels with one row per image."""

    def __init__(self, store: Store, layout: ArrayLayout, level: str, missing: set[str]) -> None:
        self._store, self._layout, self._level = store, layout, level
        self._missing = missing
        self._simulated = "simulation/event" in store
        self._fields = model.fields(level, simulated=self._simulated)
        self._source = source_position(store)
        self._index_of = np.full(int(layout.tel_id.max()) + 1, -1, dtype=np.int64)
        self._index_of[layout.tel_id] = np.arange(layout.n_telescopes)
        self._centre = [float(axis.mean()) for axis in (layout.x, layout.y, layout.z)]
        if level == "lv2a" and layout.n_telescopes > TELESCOPES:
            raise AstriError(
                f"{store.path} has {layout.n_telescopes} telescopes, and TRIGTEL has bits for "
                f"{TELESCOPES}: write lv1b or lv2b."
            )

    def block(self, start: int, stop: int, spans: Mapping[str, NDArray[np.int64]]) -> ImageBlock:
        """Return the rows of the events from `start` to `stop`."""
        store = self._store
        names = ["obs_id", "event_id", "time_s", "time_ns", "event_type"]
        events = store.read_table("dl0/event", names, start, stop)
        images = self._images(start, spans)
        event, tel = images["event"], images["tel"]
        keep = (events["event_type"] == SHOWER)[event]
        order = np.lexsort((tel[keep], event[keep]))
        images = {name: values[keep][order] for name, values in images.items()}
        event, tel = images["event"], images["tel"]
        columns = self._times(events, event, images["trigger_time_ns"])
        columns["EVT_CTR"] = events["event_id"][event].astype(np.uint32)
        columns |= self._stored(images, len(event))
        columns["ZD"] = (90.0 - images["pointing_alt"]).astype(np.float32)
        columns["AZ"] = images["pointing_az"].astype(np.float32)
        columns |= self._source_columns(columns)
        path = store.path
        if self._simulated or self._level == "lv2a":
            columns["EVTNUM"] = narrow(events["event_id"], "EVTNUM", f"event_id of {path}")[event]
        if self._simulated:
            columns["MCRUNNUM"] = narrow(events["obs_id"], "MCRUNNUM", f"obs_id of {path}")[event]
        n_events = len(np.unique(event))
        if self._level == "lv2a":
            columns |= self._array_columns(start, stop, columns, images)
        return ImageBlock(
            {entry.name: columns[entry.name] for entry in self._fields}, tel, n_events
        )

    def _images(self, start: int, spans: Mapping[str, NDArray[np.int64]]) -> Columns:
        """Return the stored columns of all cameras' images, with `event` and `tel` as places."""
        wanted = [entry for entry in self._fields if entry.table in ("dl1/image", "dl2/image")]
        parts = []
        for camera, span in spans.items():
            first, last = map(int, span)
            narrow_names = [
                "event_index",
                "tel_id",
                "pointing_alt",
                "pointing_az",
                "trigger_time_ns",
            ]
            rows = self._store.read_table(f"dl0/image/{camera}", narrow_names, first, last)
            for entry in wanted:
                path = f"{entry.table}/{camera}/{entry.column}"
                if path in self._store:
                    rows[entry.name] = self._store.read(path, first, last)
                else:
                    self._missing.add(entry.name)
                    unknown = -1 if entry.dtype.startswith("u") else np.nan
                    rows[entry.name] = np.full(last - first, unknown)
            rows["TELIP"] = self._or_nan(f"dl2/image/{camera}/stereo_impact_distance", first, last)
            # Stores of the first versions have astri_delta in deg: then hillas_psi gives it.
            psi = np.deg2rad(self._or_nan(f"dl1/image/{camera}/hillas_psi", first, last))
            same = np.isclose(rows["DELTA"], psi, rtol=0, atol=1e-5) | ~np.isfinite(psi)
            rows["DELTA"] = np.where(same, rows["DELTA"], psi)
            self._check_same(camera, rows, first, last)
            parts.append(rows)
        images = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        images["event"] = images.pop("event_index") - start
        images["tel"] = self._index_of[images.pop("tel_id")]
        return images

    def _or_nan(self, path: str, first: int, last: int) -> NDArray[Any]:
        if path in self._store:
            return self._store.read(path, first, last)
        return np.full(last - first, np.nan)

    def _check_same(self, camera: str, rows: Columns, first: int, last: int) -> None:
        for table in (f"dl1/image/{camera}", f"dl2/image/{camera}"):
            if f"{table}/event_index" not in self._store:
                continue
            theirs = self._store.read(f"{table}/event_index", first, last)
            if not np.array_equal(theirs, rows["event_index"]):
                raise AstriError(
                    f"{table} of {self._store.path} does not have the images of dl0/image: the "
                    "store is damaged, make it again."
                )

    def _times(self, events: Columns, event: NDArray[np.int64], delay: NDArray[Any]) -> Columns:
        """Return the time at which each telescope triggered."""
        delay = np.where(np.isfinite(delay), delay, 0.0).astype(np.float64)
        nanoseconds = events["time_ns"][event] + np.rint(delay).astype(np.int64)
        seconds = events["time_s"][event] + nanoseconds // SECOND_NS
        return time_columns(seconds, nanoseconds % SECOND_NS, str(self._store.path))

    def _stored(self, images: Columns, n_rows: int) -> Columns:
        columns = {}
        for entry in self._fields:
            if entry.table is None:
                continue
            values = images[entry.name]
            if entry.dtype.startswith("u"):  # -1 in the store: no image survived cleaning
                values = np.clip(values, 0, np.iinfo(entry.dtype).max)
            columns[entry.name] = values.astype(entry.dtype)
        return columns

    def _source_columns(self, columns: Columns) -> Columns:
        """Return the assumed source, from the options of `process` or from what refers to it.

        d = (MEANX - XSRCPOS, MEANY - YSRCPOS) has the component COSDELTAALPHA * DIST along the
        axis a and MISS = a_x d_y - a_y d_x across it.
        """
        if self._source is not None:
            n_rows = len(columns["MEANX"])
            lon, lat = (np.full(n_rows, value, np.float32) for value in self._source)
            return {"XSRCPOS": lon, "YSRCPOS": lat}
        given = {
            name: columns[name].astype(np.float64)
            for name in ("DELTA", "COSDELTAALPHA", "DIST", "MISS", "MEANX", "MEANY")
        }
        cos, sin = np.cos(given["DELTA"]), np.sin(given["DELTA"])
        along, across = given["COSDELTAALPHA"] * given["DIST"], given["MISS"]
        return {
            "XSRCPOS": (given["MEANX"] - (along * cos - across * sin)).astype(np.float32),
            "YSRCPOS": (given["MEANY"] - (along * sin + across * cos)).astype(np.float32),
        }

    def _array_columns(self, start: int, stop: int, columns: Columns, images: Columns) -> Columns:
        """Return the columns of lv2a that tell of the event, for each of its images."""
        event, tel = images["event"], images["tel"]
        n_events = stop - start
        multiplicity = np.bincount(event, minlength=n_events)
        mask = np.zeros(n_events, np.int64)
        np.bitwise_or.at(mask, event, np.int64(1) << tel)
        stereo = self._stereo(start, stop)
        valid = stereo["is_valid"].astype(bool)
        found = {name: np.where(valid, values, np.nan) for name, values in stereo.items()}
        # In the frame of the row's own telescope, whose pointing is known as ZD and AZ have it.
        direction = altaz_to_telescope(
            found["alt"][event],
            found["az"][event],
            90.0 - columns["ZD"].astype(np.float64),
            columns["AZ"].astype(np.float64),
        )
        x, y, z = (np.full((n_events, 1), value) for value in self._centre)
        array_impact = impact_distance(
            found["core_x"], found["core_y"], found["alt"], found["az"], x, y, z
        )[:, 0]
        images["TELIP"] = np.where(valid[event], images["TELIP"], np.nan)
        unknown = np.full(len(event), np.nan, np.float32)
        telescope_type = self._layout.camera_index[tel].astype(np.int32) + 1
        made = {
            "STVALID": valid[event],
            "STXDIR": direction.fov_lon.astype(np.float32),
            "STYDIR": direction.fov_lat.astype(np.float32),
            "STXCORE": found["core_x"][event].astype(np.float32),
            "STYCORE": found["core_y"][event].astype(np.float32),
            "STMAXH": found["h_max"][event].astype(np.float32),
            "STMINDIR": found["ang_distance_uncert"][event].astype(np.float32),
            "STMINCORE": unknown,
            "STMINMAXH": unknown,
            "STIP": array_impact[event].astype(np.float32),
            "TELIP": images["TELIP"].astype(np.float32),
            "NTRIGTEL": multiplicity[event].astype(np.int32),
            "TRIGTEL": mask[event].astype(np.int32),
            "TELTYPE": telescope_type,
            "NUSEDTEL": stereo["n_tels"][event].astype(np.int32),
        }
        # The sign of a computed NaN depends on its place in a vector of the CPU; files must not.
        return {
            name: np.where(np.isnan(values), np.float32(np.nan), values)
            if values.dtype.kind == "f"
            else values
            for name, values in made.items()
        }

    def _stereo(self, start: int, stop: int) -> Columns:
        names = (
            "alt",
            "az",
            "core_x",
            "core_y",
            "h_max",
            "ang_distance_uncert",
            "n_tels",
            "is_valid",
        )
        rows = self._store.read_table(
            "dl2/event", [f"stereo_{name}" for name in names], start, stop
        )
        return {name: rows[f"stereo_{name}"] for name in names}


def event_blocks(store: Store, layout: ArrayLayout, missing: set[str]) -> Iterator[Columns]:
    """Yield the rows of lv2b, one for each shower event; `missing` as for `image_blocks`.

    Raises
    ------
    AstriError
        When numbers do not fit into the columns, or there are more telescopes than bits.
    """
    if layout.n_telescopes > TELESCOPES:
        raise AstriError(
            f"{store.path} has {layout.n_telescopes} telescopes, and TRIGTEL has bits for "
            f"{TELESCOPES}: lv2b cannot be written."
        )
    simulated = "simulation/event" in store
    entries = model.fields("lv2b", simulated=simulated)
    bits = np.int64(1) << np.arange(layout.n_telescopes)
    for start, stop in pairwise(map(int, _edges(store, EVENTS_PER_STEP))):
        events = store.read_table("dl0/event", None, start, stop)
        keep = events["event_type"] == SHOWER
        events = {name: values[keep] for name, values in events.items()}
        columns = time_columns(events["time_s"], events["time_ns"], str(store.path))
        columns["EVTNUM"] = narrow(events["event_id"], "EVTNUM", f"event_id of {store.path}")
        columns["NTRIGTEL"] = events["tel_mask"].sum(axis=1).astype(np.int32)
        columns["TRIGTEL"] = (events["tel_mask"] @ bits).astype(np.int32)
        columns["ZD"], columns["AZ"] = 90.0 - events["array_alt"], events["array_az"]
        if simulated:
            columns["MCRUNNUM"] = narrow(events["obs_id"], "MCRUNNUM", f"obs_id of {store.path}")
        for entry in entries:
            if entry.column is None:
                continue
            path = f"{entry.table}/{entry.column}"
            if path in store:
                columns[entry.name] = store.read(path, start, stop)[keep]
            else:
                missing.add(entry.name)
                unknown = np.nan if entry.dtype.startswith("f") else 0
                columns[entry.name] = np.full(len(columns["EVTNUM"]), unknown)
        yield {entry.name: columns[entry.name] for entry in entries}


def time_columns(seconds: NDArray[Any], nanoseconds: NDArray[Any], where: str) -> Columns:
    """Return VT, TIME_UTC, TIME_S and TIME_NS of times since 1970 (UTC).

    Times before 2020, where TIME_S begins, are marked as not valid.
    """
    since = narrow(
        seconds - model.FIRST_SECOND, "TIME_S", f"The time of events of {where}, s since 2020,"
    )
    different, place = np.unique(seconds, return_inverse=True)
    text = np.datetime_as_string(different.astype("M8[s]")).astype("S19")
    return {
        "VT": since >= 0,
        "TIME_UTC": text[place],
        "TIME_S": since,
        "TIME_NS": nanoseconds.astype(np.int32),
    }


def _edges(store: Store, step: int) -> NDArray[np.int64]:
    n_events = store.n_rows("dl0/event")
    return np.array([*range(0, n_events, step), n_events], dtype=np.int64)
