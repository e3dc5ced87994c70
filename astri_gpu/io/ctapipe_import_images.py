"""Telescope-wise tables of a ctapipe file: images, parameters, triggers, truth, impacts."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.instrument import CameraDescription
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io import ctapipe_model_dl2 as dl2
from astri_gpu.io.ctapipe_import_dl2 import NO_RESULTS, Results, image_results
from astri_gpu.io.ctapipe_import_events import Events
from astri_gpu.io.ctapipe_import_file import HDF5File, TableReader
from astri_gpu.io.ctapipe_import_instrument import TelescopeOrder
from astri_gpu.io.ctapipe_import_pointing import Pointing, unix_times
from astri_gpu.io.ctapipe_import_rows import Cursor, EventKeys, Taken, lookup
from astri_gpu.io.ctapipe_model import Field
from astri_gpu.io.simtel import IngestOptions
from astri_gpu.io.simtel_truth import SUBARRAY
from astri_gpu.kernels.image_types import (
    COLUMNS,
    COUNT_COLUMNS,
    FLAG_EMPTY,
    FLAG_NO_SHOWER,
    FLAG_TOO_SMALL,
)

__all__ = ["CameraImages", "Rows", "TakenTables", "TelescopeTables"]

Rows = dict[str, NDArray[Any]]
NS = 1_000_000_000
PIXEL_FIELDS = tuple(field for field in model.IMAGE_COLUMNS[3:] if field.ours)
PARAMETER_FIELDS = {field.ours: field for field in model.PARAMETER_COLUMNS[3:] if field.ours}
TRUE_SUM, TRUE_IMAGE = model.TRUE_IMAGE_COLUMNS[3:5]
TRUE_IMPACT = model.TRUE_IMPACT_COLUMNS[3]


class TakenTables(NamedTuple):
    """The rows of a block of events: by kind and telescope, and of the common trigger table."""

    rows: dict[str, dict[int, Taken]]
    trigger: Taken | None


class TelescopeTables:
    """All tables with one row for each event of a telescope.

    Attributes
    ----------
    has_images, has_parameters
        Whether the file has charges, and image parameters in the telescope frame.
    results
        The reconstructed showers that are taken; none without the parameters that belong to them.

    Raises
    ------
    AstriError
        When the file has neither images nor parameters.
    """

    def __init__(
        self,
        file: HDF5File,
        telescopes: TelescopeOrder,
        results: Results,
        options: IngestOptions,
    ) -> None:
        self._file, self._telescopes = file, telescopes
        groups = {
            "images": model.DL1_IMAGES,
            "parameters": model.DL1_PARAMETERS,
            "true_images": model.SIMULATION_IMAGES,
            "true_impact": model.SIMULATION_IMPACT,
        }
        if results.geometry is not None:
            groups["impact"] = f"{dl2.DL2_IMPACT}/{results.geometry}"
        groups |= {key: table.group for key, table in results.telescopes.items()}
        self._cursors = {kind: self._open(group) for kind, group in groups.items()}
        # Parameters in the camera frame (m) are of no use here.
        in_sky = any(
            "hillas_fov_lon" in cursor.table for cursor in self._cursors["parameters"].values()
        )
        self.results = results if in_sky else NO_RESULTS
        if not in_sky:
            self._cursors["parameters"] = {}
        self._true_images = options.true_images
        self.has_images = bool(self._cursors["images"])
        self.has_parameters = in_sky
        if not (self.has_images or self.has_parameters):
            raise AstriError(
                f"{file.path} has neither DL1 images nor image parameters in degrees: make it with "
                "DataWriter.write_dl1_images or write_dl1_parameters."
            )
        trigger = file.table(model.TELESCOPE_TRIGGER)
        self._trigger = None if trigger is None else Cursor(trigger, of_telescopes=True)

    def _open(self, group: str) -> dict[int, Cursor]:
        """Return the tables of the wanted telescopes in a group, by tel_id."""
        names = self._file.names(group)
        strange = [name for name in names if not (name[:4] == "tel_" and name[4:].isdigit())]
        if strange:
            raise AstriError(
                f"{self._file.path} has the table {group}/{strange[0]}, which is not of one "
                "telescope (tel_001 ...): process the data again with ctapipe 0.17 or later."
            )
        found = {int(name[4:]): name for name in names}
        unknown = sorted(found.keys() - set(self._telescopes.tel_id.tolist()))
        if unknown:
            raise AstriError(
                f"{self._file.path} has data of telescope {unknown[0]} in {group}, which its "
                f"{model.INSTRUMENT_LAYOUT} does not have."
            )
        wanted = set(self._telescopes.tel_id[self._telescopes.wanted].tolist())
        return {
            tel_id: Cursor(self._file.require(f"{group}/{name}"), of_telescopes=True)
            for tel_id, name in found.items()
            if tel_id in wanted
        }

    def table(self, kind: str, tel_id: int) -> TableReader:
        """Return the table of a kind ("images" ...) and telescope."""
        return self._cursors[kind][tel_id].table

    def has_column(self, kind: str, tel_ids: Iterable[int], column: str) -> bool:
        """Return whether the table of a kind has a column for any of these telescopes."""
        found = (self._cursors[kind].get(tel_id) for tel_id in tel_ids)
        return any(cursor is not None and column in cursor.table for cursor in found)

    def has_true_images(self, tel_ids: Iterable[int]) -> bool:
        """Return whether true images are there and wanted; our export fills in -1 for unknown."""
        if not self._true_images:
            return False
        found = (self._cursors["true_images"].get(tel_id) for tel_id in tel_ids)
        tables = [cursor.table for cursor in found if cursor is not None and cursor.table.n_rows]
        first = [table.read(0, 1) for table in tables if TRUE_IMAGE.column in table]
        return any(np.any(row[TRUE_IMAGE.column] != TRUE_IMAGE.unknown) for row in first)

    def take(self, keys: EventKeys, mask: NDArray[np.bool_]) -> TakenTables:
        """Return the next rows of all tables; `mask` (event, tel of the file) says who triggered.

        Raises
        ------
        AstriError
            When rows are out of order or damaged.
        """
        expected = dict(zip(self._telescopes.tel_id.tolist(), mask.sum(axis=0), strict=True))
        parts: dict[str, dict[int, Taken]] = {}
        for kind, cursors in self._cursors.items():
            parts[kind] = {}
            for tel_id, cursor in cursors.items():
                taken = cursor.take(keys, int(expected[tel_id]))
                if np.any(taken.tel_id != tel_id):
                    raise AstriError(
                        f"{cursor.table.path} in {self._file.path} has rows of other telescopes."
                    )
                parts[kind][tel_id] = taken
        trigger = None
        if self._trigger is not None:
            trigger = self._trigger.take(keys, int(mask.sum()))
        return TakenTables(parts, trigger)

    def trigger_times(self, taken: Taken) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the times of telescope triggers, see `unix_times`."""
        assert self._trigger is not None
        return unix_times(self._trigger.table, taken.rows)

    def check_end(self) -> None:
        """Refuse files with rows of events that the trigger table does not have."""
        for cursors in self._cursors.values():
            for cursor in cursors.values():
                cursor.check_end()
        if self._trigger is not None:
            self._trigger.check_end()

    def other_kinds(self) -> list[str]:
        """Return the kinds of DL1 tables of single telescopes that are not read."""
        known = {"images", "parameters", "trigger"}
        parent = model.DL1_IMAGES.rpartition("/")[0]
        return [kind for kind in self._file.names(parent) if kind not in known]


class CameraImages:
    """The images of one camera, brought into the order of events, then telescopes."""

    def __init__(
        self,
        camera: CameraDescription,
        tel_id: NDArray[np.int64],
        tables: TelescopeTables,
        pointing: Pointing,
        *,
        simulated: bool,
    ) -> None:
        self.name, self.n_pixels = camera.name, camera.geometry.n_pixels
        self._tel_id, self._tables, self._pointing = tel_id, tables, pointing
        self._simulated = simulated
        tel_ids = tel_id.tolist()
        self._pixel_fields = [
            field for field in PIXEL_FIELDS if tables.has_column("images", tel_ids, field.column)
        ]
        self._true_images = tables.has_true_images(tel_ids)

    def rows(self, taken: TakenTables, events: Events, index: NDArray[np.int64]) -> dict[str, Rows]:
        """Return the rows of all tables of this camera; empty where it has no image.

        Parameters
        ----------
        taken
            The rows of the file.
        events
            The block of events.
        index
            Row of each event in dl0/event, -1 = left out.
        """
        keys, time_s = events.keys, events.time_s
        parts: dict[int, NDArray[np.int64]] = {}
        for tel_id in self._tel_id.tolist():
            event = self._events(taken, tel_id)
            if event is not None and (index[event] >= 0).any():
                parts[tel_id] = event
        if not parts:
            return {}
        event = np.concatenate(list(parts.values()))
        tel_id = np.repeat(list(parts), [len(part) for part in parts.values()]).astype(np.int64)
        order = np.lexsort((tel_id, event))
        order = order[index[event[order]] >= 0]
        images = _Images(self._tables, taken, parts, event, tel_id, order)

        keys_of: Rows = {
            "event_index": index[event[order]],
            "tel_id": tel_id[order].astype(np.uint16),
        }
        dl0 = images.of_trigger(time_s, events.time_ns)
        alt, az = np.empty(len(event)), np.empty(len(event))
        for number in parts:
            own = tel_id == number
            alt[own], az[own] = self._pointing.telescope(
                number, keys.obs_id[event[own]], time_s[event[own]].astype(np.float64)
            )
        dl0 |= {"pointing_alt": alt[order], "pointing_az": az[order]}
        found: dict[str, Rows] = {f"dl0/image/{self.name}": {**keys_of, **dl0}}
        dl1: Rows = {
            str(field.ours): images.joined("images", field, (self.n_pixels,))
            for field in self._pixel_fields
        }
        if self._tables.has_parameters:
            dl1 |= images.parameters(events.event_type, dl1.get("mask"))
        found[f"dl1/image/{self.name}"] = {**keys_of, **dl1}
        if self._simulated:
            truth: Rows = {
                "true_image_sum": images.joined("true_images", TRUE_SUM),
                "true_impact_distance": images.joined("true_impact", TRUE_IMPACT),
            }
            if self._true_images:
                truth["true_image"] = images.joined("true_images", TRUE_IMAGE, (self.n_pixels,))
            found[f"simulation/image/{self.name}"] = {**keys_of, **truth}
        results = self._tables.results
        if results != NO_RESULTS:
            dl2_rows: Rows = image_results(results.telescopes, images.joined, alt[order], az[order])
            if results.geometry is not None:
                impact = self._impact_field(results.geometry)
                dl2_rows["stereo_impact_distance"] = images.joined("impact", impact)
            found[f"dl2/image/{self.name}"] = {**keys_of, **dl2_rows}
        return found

    def _events(self, taken: TakenTables, tel_id: int) -> NDArray[np.int64] | None:
        """Return the events with an image of a telescope; images and parameters have to agree."""
        images, parameters = (taken.rows[kind].get(tel_id) for kind in ("images", "parameters"))
        if images is None or parameters is None:
            one = images or parameters
            if one is None or not len(one.event):
                return None
            both = self._tables.has_images and self._tables.has_parameters
            if both:
                raise AstriError(self._differ(tel_id))
            return one.event
        if not np.array_equal(images.event, parameters.event):
            raise AstriError(self._differ(tel_id))
        return images.event if len(images.event) else None

    def _impact_field(self, algorithm: str) -> Field:
        before = f"{algorithm}_tel_distance"  # its name in v4.0.0
        if self._tables.has_column("impact", self._tel_id.tolist(), before):
            return Field(before, "f8", "m", "stereo_impact_distance")
        return dl2.impact_columns(algorithm)[3]

    def _differ(self, tel_id: int) -> str:
        return (
            f"The images and the parameters of telescope {tel_id} are not of the same events "
            f"({model.DL1_IMAGES} and {model.DL1_PARAMETERS}): make the file again."
        )


class _Images:
    """Columns of the images of a block, in the wanted order."""

    def __init__(
        self,
        tables: TelescopeTables,
        taken: TakenTables,
        parts: dict[int, NDArray[np.int64]],
        event: NDArray[np.int64],
        tel_id: NDArray[np.int64],
        order: NDArray[np.int64],
    ) -> None:
        self._tables, self._taken, self._parts = tables, taken, parts
        self._event, self._tel_id, self._order = event, tel_id, order

    def joined(self, kind: str, field: Field, shape: tuple[int, ...] = ()) -> NDArray[Any]:
        """Return one column for all images, unknown where a telescope or event has no row."""
        columns = []
        for tel_id, event in self._parts.items():
            own = self._taken.rows[kind].get(tel_id)
            filled = np.full((len(event), *shape), field.unknown, dtype=np.dtype(field.dtype))
            columns.append(filled)
            if own is None or field.column not in self._tables.table(kind, tel_id):
                continue
            table = self._tables.table(kind, tel_id)
            values = table.values(own.rows, field)
            if values.shape[1:] != shape:
                raise AstriError(
                    f"{field.column} of {table.path} in {table.file_path} is {values.shape[1:]}, "
                    f"but its telescope asks for {shape}."
                )
            if np.array_equal(own.event, event):
                columns[-1] = values
                continue
            row = lookup(event, np.full_like(event, tel_id), own)
            filled[row >= 0] = values[row[row >= 0]]
        joined = np.concatenate(columns) if len(columns) > 1 else columns[0]
        return joined[self._order]

    def of_trigger(self, time_s: NDArray[np.int64], time_ns: NDArray[np.int64]) -> Rows:
        """Return the columns of dl0/image that telescope triggers fill."""
        event, tel_id = self._event[self._order], self._tel_id[self._order]
        delay = np.full(len(event), np.nan)
        n_pixels = np.full(len(event), -1, dtype=np.int64)
        trigger = self._taken.trigger
        if trigger is not None:
            row = lookup(event, tel_id, trigger)
            has = row >= 0
            seconds, ns = self._tables.trigger_times(trigger)
            own, of = row[has], event[has]
            delay[has] = (seconds[own] - time_s[of]) * float(NS) + (ns[own] - time_ns[of])
            if "n_trigger_pixels" in (trigger.rows.dtype.names or ()):
                n_pixels[has] = trigger.rows["n_trigger_pixels"][own]
        return {
            "trigger_time_ns": delay.astype(np.float32),
            "n_trigger_pixels": n_pixels.astype(np.int32),
            "trigger_type": np.zeros(len(event), dtype=np.uint16),
        }

    def parameters(self, event_type: NDArray[np.int64], mask: NDArray[np.bool_] | None) -> Rows:
        """Return the columns of dl1/image; what ctapipe does not have is NaN or -1."""
        n_images = len(self._order)
        columns: Rows = {}
        for name in COLUMNS:
            if name in PARAMETER_FIELDS:
                columns[name] = self.joined("parameters", PARAMETER_FIELDS[name])
            elif name in COUNT_COLUMNS:
                columns[name] = np.full(n_images, -1, dtype=np.int32)
            else:
                columns[name] = np.full(n_images, np.nan, dtype=np.float32)
        flags = np.zeros(n_images, dtype=np.uint32)
        flags[~np.isfinite(columns["hillas_intensity"])] |= FLAG_TOO_SMALL
        if mask is not None:
            flags[~mask.any(axis=1)] |= FLAG_EMPTY
        flags[event_type[self._event[self._order]] != SUBARRAY] |= FLAG_NO_SHOWER
        columns["image_flags"] = flags
        return columns
