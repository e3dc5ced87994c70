"""Rows of A-SciSoft-like event lists as tables of a store, block of events by block."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io import astri_fits_model as model
from astri_gpu.io.astri_fits_reader import TableReader
from astri_gpu.io.astri_fits_sources import Columns, Rows
from astri_gpu.io.astri_fits_truth import SHOWER, pack_keys
from astri_gpu.kernels.coordinates import ground_to_tilted, telescope_to_altaz

__all__ = ["ImageTables", "array_events"]

EVENTS_PER_STEP = 65_536
SECOND_NS = 1_000_000_000
Tables = dict[str, Columns]


class ImageTables:
    """Makes the tables of images and events from rows of lv1b, lv1c or lv2a.

    Parameters
    ----------
    full, layout
        All telescopes of the file, and the wanted ones.
    place
        Of all telescopes among the wanted, -1 for others, (tel,).
    stereo
        Whether the rows have the columns of lv2a.
    predicted
        Whether predictions of images are stored.

    Attributes
    ----------
    n_images
        Of the last block.
    """

    def __init__(
        self,
        full: ArrayLayout,
        layout: ArrayLayout,
        place: NDArray[np.int64],
        stereo: bool,
        predicted: bool,
    ) -> None:
        self._full, self._layout, self._place = full, layout, place
        self._stereo, self._predicted = stereo, predicted
        self.n_images = 0

    def block(
        self, rows: Rows, use: NDArray[np.bool_], first: int, limit: int | None
    ) -> Tables | None:
        """Return the tables of a block of events; None if nothing in it is wanted.

        Parameters
        ----------
        rows
            Rows of whole events.
        use
            Which events are wanted, (event,).
        first
            Events before this block.
        limit
            Events wanted in all, None = all.
        """
        keep = use[rows.event] & (self._place[rows.tel] >= 0)
        kept, event = np.unique(rows.event[keep], return_inverse=True)
        if limit is not None:
            kept = kept[: limit - first]
            keep[keep] = event < len(kept)
            event = event[event < len(kept)]
        if not len(kept):
            return None
        columns = {name: values[keep] for name, values in rows.columns.items()}
        tel = self._place[rows.tel[keep]]
        self.n_images = len(event)
        head = np.concatenate([[0], np.flatnonzero(np.diff(event)) + 1])
        alt, az = 90.0 - columns["ZD"].astype(np.float64), columns["AZ"].astype(np.float64)
        moment = columns["TIME_S"].astype(np.int64) * SECOND_NS + columns["TIME_NS"]
        time_ns = np.minimum.reduceat(moment, head)
        mask = np.zeros((len(kept), self._layout.n_telescopes), bool)
        mask[event, tel] = True
        tables: Tables = {
            "dl0/event": {
                "obs_id": rows.run[kept],
                "event_id": rows.number[kept],
                "time_s": time_ns // SECOND_NS + model.FIRST_SECOND,
                "time_ns": (time_ns % SECOND_NS).astype(np.int32),
                "event_type": np.full(len(kept), SHOWER, np.uint8),
                "array_alt": alt[head],
                "array_az": az[head],
                "tel_mask": mask,
            }
        }
        if self._stereo:
            tables["dl2/event"] = _stereo(columns, head, alt[head], az[head])
        delay = (moment - time_ns[event]).astype(np.float32)
        for k, camera in enumerate(self._layout.cameras):
            own = self._layout.camera_index[tel] == k
            keys = {
                "event_index": event[own] + first,
                "tel_id": self._layout.tel_id[tel[own]],
            }
            ours = {name: values[own] for name, values in columns.items()}
            n_images = int(np.count_nonzero(own))
            tables[f"dl0/image/{camera.name}"] = {
                **keys,
                "pointing_alt": alt[own],
                "pointing_az": az[own],
                "trigger_time_ns": delay[own],
                "n_trigger_pixels": np.full(n_images, -1, np.int32),
            }
            tables[f"dl1/image/{camera.name}"] = {**keys, **_parameters(ours)}
            predicted = self._image_predictions(ours)
            if predicted:
                tables[f"dl2/image/{camera.name}"] = {**keys, **predicted}
        return tables

    def _image_predictions(self, columns: Columns) -> Columns:
        """Return what lv1c and lv2a have of dl2/image."""
        found: Columns = {}
        if self._stereo:
            found["stereo_impact_distance"] = columns["TELIP"]
        if self._predicted:
            for entry in PREDICTED:
                found[str(entry.column)] = columns[entry.name]
            finite = [np.isfinite(columns[name]) for name in ("EST_EN", "GAMMANESS", "DISP")]
            found["tel_is_valid"] = np.logical_and.reduce(finite)
        return found


PARAMETERS = tuple(
    entry for entry in model.fields("lv1b", simulated=False) if entry.table == "dl1/image"
)
PREDICTED = tuple(
    entry for entry in model.fields("lv1c", simulated=False) if entry.table == "dl2/image"
)


def _parameters(columns: Columns) -> Columns:
    """Return the columns of dl1/image that the format has, and what follows from them."""
    has_image = np.isfinite(columns["SIZE"])
    found: Columns = {}
    for entry in PARAMETERS:
        values = columns[entry.name]
        if entry.dtype.startswith("u"):
            values = np.where(has_image, values.astype(np.int32), np.int32(-1))
        found[str(entry.column)] = values
    lon, lat = (found[f"hillas_fov_{axis}"].astype(np.float64) for axis in ("lon", "lat"))
    found["hillas_r"] = np.hypot(lon, lat).astype(np.float32)
    found["hillas_phi"] = np.rad2deg(np.arctan2(lat, lon)).astype(np.float32)
    found["hillas_psi"] = np.rad2deg(found["astri_delta"].astype(np.float64)).astype(np.float32)
    found["morphology_n_islands"] = found["astri_num_island"]
    n_pixels = found["astri_num_core"] + found["astri_num_boundary"]
    found["morphology_n_pixels"] = np.where(has_image, n_pixels, 0).astype(np.int32)
    return found


def _stereo(
    columns: Columns, head: NDArray[np.int64], alt: NDArray[np.float64], az: NDArray[np.float64]
) -> Columns:
    """Return the columns of dl2/event, from the first row of each event."""
    given = {
        entry.name: columns[entry.name][head] for entry in model.STEREO if entry.name in columns
    }
    valid = given.pop("STVALID").astype(bool)
    wide = {
        name: np.where(valid, values.astype(np.float64), np.nan) for name, values in given.items()
    }
    finite = np.isfinite([wide[name] for name in ("STXDIR", "STYDIR", "STXCORE", "STYCORE")])
    direction = telescope_to_altaz(wide["STXDIR"], wide["STYDIR"], alt, az)
    height = np.where(valid, 0.0, np.nan)
    tilted = ground_to_tilted(wide["STXCORE"], wide["STYCORE"], height, alt, az)
    return {
        "stereo_alt": direction.alt,
        "stereo_az": direction.az,
        "stereo_core_x": wide["STXCORE"],
        "stereo_core_y": wide["STYCORE"],
        "stereo_core_tilted_x": tilted.x,
        "stereo_core_tilted_y": tilted.y,
        "stereo_h_max": wide["STMAXH"],
        "stereo_ang_distance_uncert": wide["STMINDIR"],
        "stereo_n_tels": columns["NUSEDTEL"][head].astype(np.int32),
        "stereo_is_valid": valid & finite.all(axis=0),
    }


def array_events(
    table: TableReader,
    full: ArrayLayout,
    place: NDArray[np.int64],
    run: int,
    n_events: int,
) -> Iterator[Tables]:
    """Yield the tables of events from lv2b.

    Parameters
    ----------
    table
        EVENTS.
    full
        All telescopes of the file.
    place
        Of all telescopes among the wanted, -1 for others, (tel,).
    run
        Observation of files without MCRUNNUM.
    n_events
        Rows to read.

    Raises
    ------
    AstriError
        When an event is there twice, TIME_NS is out of range, or TRIGTEL has more bits than there
        are telescopes.
    """
    seen: list[NDArray[np.int64]] = []
    wanted = np.flatnonzero(place >= 0)
    for start in range(0, n_events, EVENTS_PER_STEP):
        columns = table.read(start, min(start + EVENTS_PER_STEP, n_events))
        time_ns = columns["TIME_NS"]
        bad = (time_ns < 0) | (time_ns >= SECOND_NS)
        if bad.any():
            k = int(np.argmax(bad))
            raise AstriError(
                f"TIME_NS in {table.where} is {time_ns[k]} in row {start + k}; it has to be from 0 "
                f"to {SECOND_NS - 1}."
            )
        mask = columns["TRIGTEL"].astype(np.int64)
        if (mask >> full.n_telescopes != 0).any():
            raise AstriError(
                f"TRIGTEL in {table.where} is {mask.max()}, but there are {full.n_telescopes} "
                "telescopes."
            )
        number = columns["EVTNUM"].astype(np.int64)
        runs = columns.get("MCRUNNUM")
        runs = np.full(len(number), run, np.int64) if runs is None else runs.astype(np.int64)
        seen.append(pack_keys(runs, number))
        events = {
            "obs_id": runs,
            "event_id": number,
            "time_s": columns["TIME_S"].astype(np.int64) + model.FIRST_SECOND,
            "time_ns": time_ns.astype(np.int32),
            "event_type": np.full(len(number), SHOWER, np.uint8),
            "array_alt": 90.0 - columns["ZD"].astype(np.float64),
            "array_az": columns["AZ"].astype(np.float64),
            "tel_mask": ((mask[:, None] >> wanted) & 1).astype(bool),
        }
        yield {"dl0/event": events, "dl2/event": _reconstructed(columns)}
    keys = np.concatenate(seen) if seen else np.empty(0, np.int64)
    if len(np.unique(keys)) < len(keys):
        raise AstriError(f"{table.where} has an event twice: was one file merged twice?")


def _reconstructed(columns: Columns) -> Columns:
    found: dict[str, Any] = {}
    for entry in model.fields("lv2b", simulated=False):
        if entry.column is not None:
            values = columns[entry.name]
            found[entry.column] = values.astype(bool) if entry.dtype == "?" else values
    return found
