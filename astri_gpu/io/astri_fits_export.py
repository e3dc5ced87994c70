"""Processed stores to A-SciSoft-like FITS files: lv1b and lv1c per telescope, lv2a and lv2b."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu import __version__
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io import astri_fits_model as model
from astri_gpu.io.astri_fits_file import FitsTable, FitsWriter, fits_file
from astri_gpu.io.astri_fits_instrument import write_telescopes
from astri_gpu.io.astri_fits_rows import event_blocks, image_blocks
from astri_gpu.io.astri_fits_truth import SHOWER, write_extra, write_truth
from astri_gpu.io.ctapipe_export import ExportSummary
from astri_gpu.lineage.cards import step_cards
from astri_gpu.output_folder import whole_folder
from astri_gpu.progress import Progress
from astri_gpu.provenance import now, provenance
from astri_gpu.store import Store, open_store
from astri_gpu.store_layout import read_layout

__all__ = ["check_level", "export_astri", "highest_level", "suffix"]

TELESCOPE_FILE = re.compile(r".*_MA\d+\.lv1[bc]\.fits")


def suffix(level: str) -> str:
    """Return how names of exported files end; lv1b and lv1c are folders of files."""
    return f".{level}" if level in model.TEL_LEVELS else f".{level}.fits"


def highest_level(store: Store) -> str:
    """Return the highest level for which a store has all.

    Raises
    ------
    AstriError
        When the store has no image parameters.
    """
    cameras = store.cameras("dl1")
    if not cameras or any(f"dl1/image/{name}/hillas_intensity" not in store for name in cameras):
        if "dl2/event/reco_energy" in store:
            return "lv2b"
        raise AstriError(
            f"{store.path} is a {store.attrs.get('data_level')} store without image parameters: "
            "run `astri-gpu process` on it and export the output."
        )
    if "dl2/event/reco_energy" in store:
        return "lv2b"
    if "dl2/event/stereo_is_valid" in store:
        return "lv2a"
    predicted = all(f"dl2/image/{name}/tel_energy" in store for name in cameras)
    return "lv1c" if predicted else "lv1b"


def check_level(store: Store, level: str) -> None:
    """Raise an `AstriError` or `UsageError` unless a store can be written as this level."""
    highest = highest_level(store)
    cameras = store.cameras("dl1")
    lacks = None
    if level == "lv2b" and highest != "lv2b":
        lacks = "energy, gammaness and direction of events: run `astri-gpu reconstruct` on it"
    elif level != "lv2b" and not cameras:
        lacks = "images: write level=lv2b"
    elif level == "lv2a" and "dl2/event/stereo_is_valid" not in store:
        lacks = "stereo geometry: run `astri-gpu process`, or write level=lv1b"
    elif level == "lv1c" and any(f"dl2/image/{name}/tel_energy" not in store for name in cameras):
        lacks = "predictions for images: run `astri-gpu reconstruct`, or write level=lv1b"
    if lacks:
        raise UsageError(f"{store.path} cannot be written as {level}, it has no {lacks}.")


def export_astri(
    path: str | Path,
    output: str | Path,
    *,
    level: str | None = None,
    overwrite: bool = False,
    config: Mapping[str, Any] | None = None,
    shown: Progress | None = None,
) -> ExportSummary:
    """Write one processed store as A-SciSoft-like FITS, which appears whole or not at all.

    Parameters
    ----------
    path
        DL1b store or higher.
    output
        The file to make; for lv1b and lv1c the folder, with one file per telescope.
    level
        "lv1b", "lv1c", "lv2a" or "lv2b"; None = the highest that the store has.
    overwrite
        Replace an existing output.
    config
        Recorded in the provenance.
    shown
        Is told about every image (lv2b: event).

    Raises
    ------
    UsageError
        When the output exists and may not be replaced, or the store lacks what the level needs.
    AstriError
        When the store is not processed or damaged, numbers do not fit into the columns, or the
        disk takes no more.
    """
    started = now()
    store = open_store(path)
    level = level or highest_level(store)
    check_level(store, level)
    layout = read_layout(store)
    record = provenance("export", config or {}, [path], started)
    record["previous"] = store.attrs.get("provenance")
    export = _Export(store, layout, level, record, shown)
    return (
        export.to_folder(Path(output), overwrite)
        if level in model.TEL_LEVELS
        else (export.to_file(Path(output), overwrite))
    )


class _Export:
    """One store on its way to one level."""

    def __init__(
        self,
        store: Store,
        layout: ArrayLayout,
        level: str,
        record: Mapping[str, Any],
        shown: Progress | None,
    ) -> None:
        self._store, self._layout, self._level = store, layout, level
        self._record, self._shown = record, shown
        self._simulated = "simulation/event" in store
        self._entries = model.fields(level, simulated=self._simulated)
        self._missing: set[str] = set()
        types, obs = store.read("dl0/event/event_type"), store.read("dl0/event/obs_id")
        self._n_events = int(np.count_nonzero(types == SHOWER))
        self._n_left_out = len(types) - self._n_events
        self._obs_ids = sorted({int(each) for each in np.unique(obs)})
        self._n_images = 0
        if not self._simulated and len(self._obs_ids) > 1:
            raise AstriError(
                f"{store.path} has {len(self._obs_ids)} observations ({self._obs_ids[0]} to "
                f"{self._obs_ids[-1]}), and a FITS file holds one: export them one by one."
            )

    def to_file(self, output: Path, overwrite: bool) -> ExportSummary:
        """Write lv2a or lv2b."""
        n_written = 0
        with fits_file(output, overwrite=overwrite) as writer:
            table = writer.table(model.EVENTS, self._entries)
            if self._level == "lv2a":
                for block in image_blocks(self._store, self._layout, self._level, self._missing):
                    table.append(block.columns)
                    n_written += block.n_events
                    self._count(len(block.tel))
            else:
                for columns in event_blocks(self._store, self._layout, self._missing):
                    table.append(columns)
                    n_written += len(columns["EVTNUM"])
                    if self._shown is not None:
                        self._shown.advance(len(columns["EVTNUM"]))
                self._n_images = int(self._store.attrs.get("n_images") or 0)
            self._check_any(n_written)
            self._finish(writer, table)
        return self._summary(output, n_written)

    def to_folder(self, output: Path, overwrite: bool) -> ExportSummary:
        """Write lv1b or lv1c: one file for each telescope that has images."""

        def is_ours(name: str) -> bool:
            return TELESCOPE_FILE.fullmatch(name) is not None

        n_written = 0
        stem = output.name.removesuffix(f".{self._level}")
        with whole_folder(output, is_ours, overwrite=overwrite) as folder:
            with contextlib.ExitStack() as files:
                open_files: dict[int, tuple[FitsWriter, FitsTable]] = {}
                for block in image_blocks(self._store, self._layout, self._level, self._missing):
                    for place in np.unique(block.tel):
                        tel_id = int(self._layout.tel_id[place])
                        if tel_id not in open_files:
                            name = f"{stem}_MA{tel_id:02d}.{self._level}.fits"
                            writer = files.enter_context(FitsWriter(folder / name))
                            table = writer.table(model.EVENTS, self._entries)
                            open_files[tel_id] = writer, table
                        rows = block.tel == place
                        open_files[tel_id][1].append(
                            {name: values[rows] for name, values in block.columns.items()}
                        )
                    n_written += block.n_events
                    self._count(len(block.tel))
                for tel_id, (writer, table) in open_files.items():
                    self._finish(writer, table, tel_id)
            self._check_any(n_written)
        return self._summary(output, n_written)

    def _check_any(self, n_written: int) -> None:
        if not n_written:
            raise AstriError(
                f"{self._store.path} has no shower with an image ({self._n_left_out} calibration "
                f"events): there is nothing to write as {self._level}."
            )

    def _count(self, n_images: int) -> None:
        self._n_images += n_images
        if self._shown is not None:
            self._shown.advance(n_images)

    def _finish(self, writer: FitsWriter, table: FitsTable, tel_id: int | None = None) -> None:
        """Write everything that comes after the events."""
        if self._simulated:
            write_truth(writer, self._store)
        write_telescopes(writer, self._layout)
        more = {"obs_ids": self._obs_ids, "n_events": self._n_events}
        if tel_id is not None:
            more["tel_id"] = tel_id
        write_extra(writer, self._store, self._layout, self._level, self._record, more)
        writer.write_list()
        keywords = self._keywords(table, tel_id)
        writer.keywords(keywords | step_cards(self._record))
        writer.keywords(keywords, model.EVENTS)
        writer.history(self._history())

    def _keywords(self, table: FitsTable, tel_id: int | None) -> dict[str, tuple[Any, str]]:
        store, layout = self._store, self._layout
        header = store.group_attrs("simulation") if self._simulated else {}
        thrown = store.group_attrs("simulation/thrown") if "simulation/thrown" in store else {}
        model_text = store.attrs.get("simulation_model")
        obs_id = self._obs_ids[0] if len(self._obs_ids) == 1 else None
        return {
            "CREATOR": (f"astri_gpu {__version__}", "A-SciSoft-like, not made by A-SciSoft"),
            "LEVEL": (self._level, "data level"),
            "DATE": (str(self._record["stopped"]).removesuffix("+00:00"), "file creation (UTC)"),
            "ARRAY": (layout.name, "telescopes"),
            "TELNUM": (tel_id, "telescope of this file"),
            "OBS_ID": (obs_id, "observation or run number"),
            "PARTICLE": (store.attrs.get("kind"), "primary particle, or observation"),
            model.MODEL_KEY: (model_text, "what simulated it"),
            "NSHOWERS": (header.get("n_showers"), "showers simulated"),
            "NTHROWN": (thrown.get("n_entries"), "showers thrown, every use counts"),
            "GEOLAT": (layout.latitude_deg, "[deg] latitude of the array"),
            "GEOLON": (layout.longitude_deg, "[deg] longitude, East positive"),
            "ALTITUDE": (layout.altitude_m, "[m] height above sea level"),
            "NROWS": (table.n_rows, "rows of EVENTS"),
            "TIMESYS": ("UTC", "TIME_S = 0 is 2020-01-01T00:00:00"),
        }

    def _history(self) -> list[str]:
        """Return the provenance as lines: what was done, from what, with which options."""
        record: Any = self._record
        lines = []
        while isinstance(record, Mapping):
            lines.append(
                f"{record.get('stage')} (astri_gpu {record.get('version')}) "
                f"{record.get('started')} to {record.get('stopped')}"
            )
            lines += [
                f"  input {entry.get('path')} {entry.get('checksum')}"
                for entry in record.get("inputs") or ()
            ]
            lines += [f"  {key} = {value}" for key, value in _flat(record.get("config") or {})]
            record = record.get("previous")
        model_text = self._store.attrs.get("simulation_model")
        return [*([str(model_text)] if model_text else []), *lines]

    def _summary(self, output: Path, n_written: int) -> ExportSummary:
        path, notes = self._store.path, []
        if self._n_left_out:
            notes.append(
                f"{path}: {self._n_left_out} calibration events were left out; the levels "
                "lv1b to lv2b hold showers."
            )
        if n_written < self._n_events:
            notes.append(
                f"{path}: {self._n_events - n_written} events have no image and so no row in "
                f"{model.EVENTS}."
            )
        missing = self._missing
        if missing >= set(model.PREDICTIONS):  # of a store that was not reconstructed: as expected
            missing = missing - set(model.PREDICTIONS)
        if missing:
            notes.append(f"{path} does not have {', '.join(sorted(missing))}: NaN or 0.")
        return ExportSummary(output, n_written, self._n_images, self._n_left_out, tuple(notes))


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found
