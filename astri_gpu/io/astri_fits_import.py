"""From A-SciSoft-like FITS files (lv1b, lv1c, lv2a, lv2b) to stores, in blocks of events.

lv1b becomes a DL1b store, lv1c DL1c, lv2a DL2a and lv2b DL2b. What the format does not have is left
out; what follows from its columns (angles in deg, polar coordinates of centroids) is filled in.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.batch import WriteBehind
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io import astri_fits_model as model
from astri_gpu.io.astri_fits_events import ImageTables, array_events
from astri_gpu.io.astri_fits_instrument import read_telescopes
from astri_gpu.io.astri_fits_reader import FitsFile, fits_paths
from astri_gpu.io.astri_fits_sources import EventList, observation, telescope_number
from astri_gpu.io.astri_fits_truth import THROWN, Truth
from astri_gpu.io.simtel import Counter, IngestOptions, IngestSummary
from astri_gpu.io.simtel_instrument import particle_kind
from astri_gpu.provenance import now, provenance
from astri_gpu.store import StoreWriter, TableWriter, create
from astri_gpu.store_layout import write_layout

__all__ = ["ingest_astri"]

MINI_ARRAY = 9  # telescopes of a file of the array that does not list them
DATA_LEVELS = {"lv1b": "DL1b", "lv1c": "DL1c", "lv2a": "DL2a", "lv2b": "DL2b"}


def ingest_astri(
    path: str | Path,
    output: str | Path,
    options: IngestOptions | None = None,
    progress: Counter | None = None,
    config: Mapping[str, Any] | None = None,
) -> IngestSummary:
    """Write the store of one A-SciSoft-like FITS file and return what is in it.

    Parameters
    ----------
    path
        The file, plain or packed with gzip; or a folder with the lv1b or lv1c files of the
        telescopes of one observation.
    output
        The store to make.
    options
        What to read, everything if left out; `allowed_telescopes`, `max_events`, `obs_id` and
        `on_error` mean what they do for sim_telarray files.
    progress
        Is told about every block's images (lv2b: events).
    config
        Recorded in the store instead of `options`.

    Raises
    ------
    UsageError
        When the output exists (and `overwrite` is not set), an allowed telescope is unknown, or
        files of several telescopes cannot be joined.
    AstriError
        When a file is damaged, lacks columns, or has columns of other types or impossible values.
    """
    path, output, options = Path(path), Path(output), options or IngestOptions()
    started, clock = now(), time.perf_counter()
    config = asdict(options) if config is None else config
    paths = fits_paths(path) if path.is_dir() else [path]
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(FitsFile(each)) for each in paths]
        work = _Import(path, files, options)
        attrs = {"source": path.name, "config": config}
        with create(output, overwrite=options.overwrite, attrs=attrs) as writer:
            work.write(writer, progress)
            writer.attrs["provenance"] = {
                **provenance("ingest", config, [path], started),
                "previous": files[0].extra().get("provenance"),
            }
    return IngestSummary(
        path=path,
        output=output,
        n_events=work.n_events,
        n_images=work.n_images,
        seconds=time.perf_counter() - clock,
        truncated=False,
        warnings=work.notes,
    )


class _Import:
    """The files of one store, opened and looked at; then written by `write`."""

    def __init__(self, path: Path, files: list[FitsFile], options: IngestOptions) -> None:
        self._files, self._options = files, options
        self.notes: list[str] = []
        self.n_events = self.n_images = 0
        self._out: dict[str, TableWriter] = {}
        self._primaries, self._runs = set[int](), set[int]()
        levels = {file.level() for file in files}
        self.level = levels.pop()
        if levels or (len(files) > 1 and self.level not in model.TEL_LEVELS):
            raise UsageError(
                f"The folder {path} holds files that do not make one store (a folder is read as "
                "the lv1b or the lv1c files of the telescopes of one observation): give its files "
                "one by one, or as a pattern."
            )
        numbers = {telescope_number(file) for file in files} - {None}
        if self.level in model.ARRAY_LEVELS:
            numbers = set(range(1, MINI_ARRAY + 1))
        full = read_telescopes(files[0], sorted(int(number) for number in numbers if number))
        self._truth = Truth(files[0]) if model.SIMULATED in files[0] else None
        if self._truth is not None:
            self.notes += self._truth.notes
        if np.isnan(full.x).any():
            self.notes.append(f"{path}: {full.note}")
        self._list: EventList | None = None
        if self.level != "lv2b":
            self._list = EventList(files, self.level, full, keep_others=options.on_error == "keep")
            self.notes += self._list.notes
        self._full, self.layout, self._place = full, *_allowed(full, options, path)

    def write(self, writer: StoreWriter, progress: Counter | None) -> None:
        """Write all tables of the store."""
        self._writer = writer
        with WriteBehind(self._append) as behind:
            blocks = self._image_blocks() if self._list is not None else self._event_blocks()
            for tables, n_rows in blocks:
                behind(tables)
                if progress is not None:
                    progress.advance(n_rows)
        if not self.n_events:
            raise AstriError(
                f"{self._files[0].path} holds no image of the wanted telescopes and events: there "
                "is nothing to write."
            )
        self._finish()

    def _image_blocks(self) -> Any:
        rows_of, limit = self._list, self._options.max_events
        assert rows_of is not None
        with_stereo = self.level == "lv2a"
        predicted = self.level == "lv1c" or rows_of.predicted
        tables = ImageTables(self._full, self.layout, self._place, with_stereo, predicted)
        wanted = ~rows_of.left_out
        done = 0
        for rows in rows_of.blocks(rows_of.n_events):
            n_block = len(rows.run)
            use = wanted[done : done + n_block]
            done += n_block
            block = tables.block(rows, use, self.n_events, limit)
            if block is None:
                continue
            events = block["dl0/event"]
            self._add_keys(block, events)
            n_images = tables.n_images
            self.n_events += len(events["event_id"])
            self.n_images += n_images
            yield block, n_images
            if limit is not None and self.n_events >= limit:
                return

    def _event_blocks(self) -> Any:
        table = self._files[0].table(model.EVENTS, model.fields("lv2b", simulated=True))
        run = observation(self._files[0])
        limit = self._options.max_events or table.n_rows
        for block in array_events(table, self._full, self._place, run, min(limit, table.n_rows)):
            events = block["dl0/event"]
            self._add_keys(block, events)
            self.n_events += len(events["event_id"])
            yield block, len(events["event_id"])

    def _add_keys(self, block: dict[str, Any], events: dict[str, NDArray[Any]]) -> None:
        """Add the truth, and the keys of events to every table of events."""
        run, number = events["obs_id"], events["event_id"]
        if self._truth is not None:
            block["simulation/event"] = self._truth.take(run, number)
            self._primaries |= set(np.unique(block["simulation/event"]["true_primary_id"]).tolist())
        if self._options.obs_id is not None:
            events["obs_id"] = np.full_like(run, self._options.obs_id)
        self._runs |= set(np.unique(events["obs_id"]).tolist())
        for name in ("dl2/event", "simulation/event"):
            if name in block:
                block[name] |= {key: events[key] for key in ("obs_id", "event_id")}

    def _append(self, block: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Append rows to the tables of the store; runs in the thread of the writer."""
        for path, rows in block.items():
            if path not in self._out:
                sizes = {"tel": self.layout.n_telescopes}
                self._out[path] = self._writer.table(path, list(rows), sizes=sizes)
            self._out[path].append(rows)

    def _finish(self) -> None:
        writer, file = self._writer, self._files[0]
        write_layout(writer, self.layout)
        meta = file.extra()
        stored = meta.get("store")
        stored = stored if isinstance(stored, Mapping) else {}
        partial = self._options.max_events is not None
        if self._truth is not None:
            header = meta.get("simulation")
            known = dict(header) if isinstance(header, Mapping) else {}
            # A file of A-SciSoft has all showers in SIM_EVTS, triggered or not.
            known.setdefault("n_showers", self._truth.n_rows)
            known["partial"] = partial or bool(known.get("partial"))
            writer.set_attrs("simulation", known)
            self._write_thrown(meta)
        runs = sorted(self._runs)
        text = stored.get("simulation_model") or file.header().get(model.MODEL_KEY)
        if text:
            writer.attrs["simulation_model"] = str(text)
        writer.attrs.update(
            data_level=DATA_LEVELS[self.level],
            kind=particle_kind(self._primaries) if self._truth is not None else "observation",
            obs_id=runs[0] if len(runs) == 1 else None,
            obs_ids=runs,
            truncated=bool(stored.get("truncated", False)),
            n_events=self.n_events,
            n_images=self.n_images,
            fits_level=self.level,
        )

    def _write_thrown(self, meta: Mapping[str, Any]) -> None:
        arrays = self._files[0].arrays(model.EXTRA)
        if not set(THROWN) <= set(arrays):
            return
        shape = tuple(len(arrays[name]) - 1 for name in ("R_EDGES", "E_EDGES"))
        if arrays["THROWN"].shape != shape:
            raise AstriError(
                f"The thrown showers in {model.EXTRA} of {self._files[0].path} are "
                f"{arrays['THROWN'].shape} for {shape} bins: copy the file again."
            )
        for name, column in THROWN.items():
            self._writer.write("simulation/thrown", column, arrays[name])
        about = meta.get("thrown")
        if isinstance(about, Mapping):
            self._writer.set_attrs("simulation/thrown", about)


def _allowed(
    full: ArrayLayout, options: IngestOptions, path: Path
) -> tuple[ArrayLayout, NDArray[np.int64]]:
    """Return the wanted telescopes, and the place of each of all telescopes among them, or -1."""
    allowed = options.allowed_telescopes
    missing = sorted(set(allowed) - {int(number) for number in full.tel_id})
    if missing:
        raise UsageError(
            f"allowed_telescopes asks for {missing}, but {path} has the telescopes "
            f"{full.tel_id.tolist()}."
        )
    wanted = np.isin(full.tel_id, allowed) if allowed else np.ones(full.n_telescopes, bool)
    place = np.where(wanted, np.cumsum(wanted) - 1, -1)
    layout = replace(
        full,
        tel_id=full.tel_id[wanted],
        x=full.x[wanted],
        y=full.y[wanted],
        z=full.z[wanted],
        camera_index=full.camera_index[wanted],
    )
    return layout, place
