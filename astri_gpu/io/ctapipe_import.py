"""From an HDF5 file of ctapipe (DL1, DL2) to a store, in blocks of events and with flat memory.

Files with images become DL1a stores, from whose charges `process` starts; those with image
parameters DL1b, with a stereo geometry beside them DL2a, as `process` writes them, and with energy,
score and direction DL2b, as `reconstruct` does. What our stores have and ctapipe does not (counts,
trigger patterns, ASTRI's own parameters) is left out or unknown.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.batch import WriteBehind
from astri_gpu.errors import AstriError
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io.ctapipe_import_dl2 import NO_RESULTS, ResultTables, choose_results
from astri_gpu.io.ctapipe_import_events import Events, EventTables
from astri_gpu.io.ctapipe_import_file import HDF5File
from astri_gpu.io.ctapipe_import_images import CameraImages, Rows, TelescopeTables
from astri_gpu.io.ctapipe_import_instrument import (
    read_layout,
    simulation_header,
    thrown_showers,
)
from astri_gpu.io.ctapipe_import_pointing import Pointing
from astri_gpu.io.simtel import Counter, IngestOptions, IngestSummary
from astri_gpu.io.simtel_instrument import particle_kind
from astri_gpu.io.simtel_truth import SUBARRAY
from astri_gpu.provenance import now, provenance
from astri_gpu.store import StoreWriter, TableWriter, create
from astri_gpu.store_layout import write_layout

__all__ = ["ingest_ctapipe"]


def ingest_ctapipe(
    path: str | Path,
    output: str | Path,
    options: IngestOptions | None = None,
    progress: Counter | None = None,
    config: Mapping[str, Any] | None = None,
    geometry: str | None = None,
) -> IngestSummary:
    """Write the store of one HDF5 file of ctapipe and return what is in it.

    Parameters
    ----------
    path
        The file, of data model v4.0.0 to v7.1.0.
    output
        The store to make.
    options
        What to read, everything if left out; `true_images`, `allowed_telescopes`,
        `calibration_events`, `max_events`, `obs_id` and `on_error` mean what they do for
        sim_telarray files.
    progress
        Is told about every block's images.
    config
        Recorded in the store instead of `options`.
    geometry
        Name of the stereo algorithm to take, such as "HillasReconstructor"; None takes that one,
        or the only one there is.

    Raises
    ------
    UsageError
        When the output exists (and `overwrite` is not set), an allowed telescope is unknown, or
        there are several stereo algorithms and none was chosen.
    AstriError
        When the file is damaged, unfinished, of another data model, or without images.
    """
    path, output, options = Path(path), Path(output), options or IngestOptions()
    started, clock = now(), time.perf_counter()
    config = asdict(options) if config is None else config
    attrs = {"source": path.name, "config": config}
    with HDF5File(path) as file:
        check_version(file)
        with create(output, overwrite=options.overwrite, attrs=attrs) as writer:
            work = _Import(file, writer, options, geometry)
            with WriteBehind(work.write) as behind:
                for rows, n_images in work.blocks():
                    behind(rows)
                    if progress is not None:
                        progress.advance(n_images)
            work.finish()
            writer.attrs["provenance"] = provenance("ingest", config, [path], started)
    return IngestSummary(
        path=path,
        output=output,
        n_events=work.n_events,
        n_images=work.n_images,
        seconds=time.perf_counter() - clock,
        truncated=work.truncated,
        warnings=work.notes,
    )


def check_version(file: HDF5File) -> None:
    """Raise an `AstriError` unless the file is of a data model whose columns are known."""
    version = file.attrs.get(model.VERSION_ATTR)
    if version is None:
        raise AstriError(
            f"{file.path} is an HDF5 file, but none of ctapipe: it lacks '{model.VERSION_ATTR}'."
        )
    if version not in model.READABLE_VERSIONS:
        raise AstriError(
            f"{file.path} has version {version} of ctapipe's data model; "
            f"{model.READABLE_VERSIONS[0]} to {model.READABLE_VERSIONS[-1]} are read here: make it "
            "again with ctapipe 0.17 to 0.28."
        )


class _Import:
    """The state of one import: tables, counters, and what was left out."""

    def __init__(
        self, file: HDF5File, writer: StoreWriter, options: IngestOptions, geometry: str | None
    ) -> None:
        self.file, self.writer, self.options = file, writer, options
        self.n_events = self.n_images = 0
        self.truncated = self._stopped = False
        self.notes: list[str] = []
        self.layout, self._telescopes = read_layout(file, options.allowed_telescopes)
        pointing = Pointing(file)
        chosen = choose_results(file, geometry)
        self._tables = TelescopeTables(file, self._telescopes, chosen, options)
        self._events = EventTables(file, self._telescopes, pointing)
        self._results = ResultTables(file, self._tables.results)
        self._cameras = [
            CameraImages(
                camera,
                self.layout.tel_id[self.layout.camera_index == k].astype(np.int64),
                self._tables,
                pointing,
                simulated=self._events.is_simulated,
            )
            for k, camera in enumerate(self.layout.cameras)
        ]
        self._out: dict[str, TableWriter] = {}
        self._primaries: set[int] = set()

    def blocks(self) -> Iterator[tuple[dict[str, Rows], int]]:
        """Yield the rows of every table, block of events by block, and the number of images."""
        n_events = self._events.n_events
        limit = min(self.options.max_events or n_events, n_events)
        self._stopped = limit < n_events
        try:
            for events in self._events.blocks(limit):
                block, n_images = self._block(events)
                self.n_images += n_images
                self.n_events += len(block["dl0/event"]["event_id"])
                yield block, n_images
            if not self._stopped:
                self._events.check_end()
                self._results.check_end()
                self._tables.check_end()
        except AstriError as error:
            if self.options.on_error != "keep":
                raise
            self.truncated = self._stopped = True
            self.notes.append(f"{error} Its {self.n_events} complete events were kept.")

    def _block(self, events: Events) -> tuple[dict[str, Rows], int]:
        keys = events.keys
        kept = (events.event_type == SUBARRAY) | self.options.calibration_events
        index = np.where(kept, self.n_events + np.cumsum(kept) - 1, -1)
        taken = self._tables.take(keys, events.mask)

        block: dict[str, Rows] = {}
        n_images = 0
        for camera in self._cameras:
            tables = camera.rows(taken, events, index)
            block |= tables
            if tables:
                n_images += len(tables[f"dl0/image/{camera.name}"]["tel_id"])
        chosen = self.options.obs_id
        obs_id = keys.obs_id if chosen is None else np.full_like(keys.obs_id, chosen)
        ids = {"obs_id": obs_id[kept], "event_id": keys.event_id[kept]}
        alt, az = self._events.array_pointing(events)
        block["dl0/event"] = {
            **ids,
            "time_s": events.time_s[kept],
            "time_ns": events.time_ns[kept].astype(np.int32),
            "event_type": events.event_type[kept].astype(np.uint8),
            "array_alt": alt[kept],
            "array_az": az[kept],
            "tel_mask": events.mask[kept][:, self._telescopes.wanted],
        }
        if self._events.is_simulated:
            truth, primaries = self._events.truth(keys)
            self._primaries |= primaries
            block["simulation/event"] = {**ids, **{name: v[kept] for name, v in truth.items()}}
        if results := self._results.columns(keys, alt, az):
            block["dl2/event"] = {**ids, **{name: v[kept] for name, v in results.items()}}
        return block, n_images

    def write(self, block: Mapping[str, Rows]) -> None:
        """Append rows to the tables of the store; runs in the thread of the writer."""
        for path, rows in block.items():
            if path not in self._out:
                name = path.rpartition("/")[2]
                pixels = [camera.n_pixels for camera in self._cameras if camera.name == name]
                sizes = {"tel": self.layout.n_telescopes, "pixel": pixels[0] if pixels else 0}
                self._out[path] = self.writer.table(
                    path, list(rows), sizes=sizes, rows_per_chunk=self.options.images_per_chunk
                )
            self._out[path].append(rows)

    def finish(self) -> None:
        """Write instrument, run header and root attributes."""
        if not self.n_images:
            raise AstriError(
                f"{self.file.path} holds no image of the wanted telescopes and events: there is "
                "nothing to write."
            )
        write_layout(self.writer, self.layout)
        if self._events.is_simulated:
            header = simulation_header(self.file)
            self.writer.set_attrs("simulation", {**header, "partial": self._stopped})
            thrown = thrown_showers(self.file)
            if thrown is not None:
                arrays, n_entries, note = thrown
                group = "simulation/thrown"
                for name, values in arrays.items():
                    self.writer.write(group, name, values)
                self.writer.set_attrs(group, {"n_entries": n_entries, "note": note})
        self._note_left_out()
        runs = sorted(self._events.runs)
        if self.options.obs_id is not None:
            runs = [self.options.obs_id]
        level, results = "DL1a", self._tables.results
        if self._tables.has_parameters:
            level = "DL1b" if results == NO_RESULTS else "DL2a"
            if results.is_complete:
                level = "DL2b"
        # Our own export says there where the showers come from.
        description = str(self.file.attrs.get("CTA PRODUCT DESCRIPTION", ""))
        if description.startswith("Exported by astri_gpu") and ". " in description:
            self.writer.attrs["simulation_model"] = description.partition(". ")[2]
        self.writer.attrs.update(
            data_level=level,
            kind=particle_kind(self._primaries) if self._events.is_simulated else "observation",
            obs_id=runs[0] if len(runs) == 1 else None,
            obs_ids=runs,
            truncated=self.truncated,
            n_events=self.n_events,
            n_images=self.n_images,
            stereo_algorithm=results.geometry,
            ctapipe={
                **{n: value for n, value in self.file.attrs.items() if n.startswith("CTA ")},
                "algorithms": results.names(),
            },
        )

    def _note_left_out(self) -> None:
        """Add one sentence for what the file has and the store has not."""
        others = self._tables.results.others(self.file)
        others += [f"{kind} of single telescopes" for kind in self._tables.other_kinds()]
        if others:
            self.notes.append(f"{self.file.path}: not taken over: {', '.join(others)}.")
        n_bad = self._results.n_bad_geometry
        if n_bad:
            self.notes.append(
                f"{self.file.path}: {n_bad} events called valid have no direction or core; they "
                "count as not reconstructed."
            )
