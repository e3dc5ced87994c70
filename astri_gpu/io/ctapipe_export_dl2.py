"""Reconstructed showers in ctapipe's files: tables of events, and columns for those of images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.instrument import ArrayLayout
from astri_gpu.io import ctapipe_model_dl2 as dl2
from astri_gpu.io.ctapipe_export_file import CtapipeFile
from astri_gpu.io.ctapipe_model_dl2 import ResultTable
from astri_gpu.kernels.coordinates import telescope_to_altaz
from astri_gpu.kernels.stereo import select_images
from astri_gpu.store import Store

__all__ = ["RESTATED", "Columns", "ResultTables", "image_results", "tables_of"]

SELECTION = {  # columns of dl1/image that decide which images a geometry uses
    "intensity": "hillas_intensity",
    "width": "hillas_width",
    "n_pixels": "morphology_n_pixels",
    "leakage": "leakage_intensity_width_2",
}
RESTATED = ("tel_disp", "tel_disp_sign", "tel_disp_fov_lon", "tel_disp_fov_lat")
USED = "tel_is_valid"  # of dl2/image: the images that the forests used
Columns = dict[str, NDArray[Any]]


def tables_of(tables: tuple[ResultTable, ...], columns: set[str]) -> list[ResultTable]:
    """Return those of the tables for which a store with these columns has something."""
    return [table for table in tables if table.key in columns]


class ResultTables:
    """The tables of reconstructed showers with one row per event.

    Attributes
    ----------
    image_columns
        Columns of dl1/image, and of dl2/image, that have to be known of the images of each event.
    n_unsure
        Events so far of which nobody knows which telescopes the stereo geometry used.
    """

    def __init__(
        self, store: Store, file: CtapipeFile, layout: ArrayLayout, n_events: int, parameters: bool
    ) -> None:
        self._n_tels = layout.n_telescopes
        self._tables = [
            (
                table,
                file.table(
                    table.path,
                    table.columns,
                    shapes={f"{table.algorithm}_telescopes": (layout.n_telescopes,)},
                    expected_rows=n_events,
                ),
            )
            for table in tables_of(dl2.OF_EVENTS, set(store.columns("dl2/event")))
        ]
        cameras = store.cameras("dl1")
        used = all(f"dl2/image/{camera}/{USED}" in store for camera in cameras)
        self.image_columns = {
            "dl1": list(SELECTION.values()) if parameters else [],
            "dl2": [USED] if used else [],
        }
        self._stereo = _stereo_options(store)
        self.n_unsure = 0

    def append(
        self,
        rows: Columns,
        keep: NDArray[np.bool_],
        images: Columns,
        event: NDArray[np.int64],
        tel: NDArray[np.int64],
    ) -> None:
        """Add a block of events.

        Parameters
        ----------
        rows
            Columns of dl2/event, (event,).
        keep
            (event,), True for those that have a place in the file.
        images
            The `image_columns` of the images of these events, (image,).
        event, tel
            Row of each image's event in the block, and index of its telescope, (image,).
        """
        n_kept = int(np.count_nonzero(keep))
        kept = {name: values[keep] for name, values in rows.items()}
        stereo = self._of_geometry(rows, images, event, tel)[keep]
        used = np.zeros((len(keep), self._n_tels), dtype=bool)
        if USED in images:
            good = images[USED].astype(bool)
            used[event[good], tel[good]] = True
        for table, out in self._tables:
            name = table.algorithm
            own: Columns = {f"{name}_telescopes": stereo if name == dl2.ALGORITHM else used[keep]}
            if name != dl2.ALGORITHM:
                finite = [np.isfinite(kept[value]) for value in table.values]
                own[f"{name}_is_valid"] = np.logical_and.reduce(finite)
            if name == dl2.MERGED and "event_quality" in kept:
                quality = kept["event_quality"]
                # A criterion such as "goodness_of_fit <= 2" must not take events without quality.
                own[f"{name}_goodness_of_fit"] = np.where(quality > 0, quality, np.nan)
            out.append(n_kept, {**kept, **own})

    def _of_geometry(
        self, rows: Columns, images: Columns, event: NDArray[np.int64], tel: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return which telescopes each stereo geometry used, (event, tel).

        The store has their number. They are those whose images passed the selection of `process`,
        or, where it was another program that reconstructed, all with parameters; where the number
        says otherwise, nobody knows.
        """
        valid = rows["stereo_is_valid"].astype(bool)
        used = np.zeros((len(valid), self._n_tels), dtype=bool)
        if "hillas_intensity" in images:
            if self._stereo:
                given: dict[str, Any] = {name: images[col] for name, col in SELECTION.items()}
                given |= {name: value for name, value in self._stereo.items() if name != "method"}
                good = select_images(**given)
            else:
                good = np.isfinite(images["hillas_intensity"])
            used[event[good], tel[good]] = True
        unsure = valid & (used.sum(axis=1) != rows["stereo_n_tels"])
        self.n_unsure += int(np.count_nonzero(unsure))
        used[unsure | ~valid] = False
        return used


def _stereo_options(store: Store) -> Mapping[str, Any] | None:
    """Return the options of the stereo geometry, None where another program made it.

    They are those of `process`; later stages have options of their own.
    """
    record: Any = {"config": store.attrs.get("config"), "previous": store.attrs.get("provenance")}
    while record:
        options = (record.get("config") or {}).get("stereo")
        if options:
            return dict(options)
        record = record.get("previous")
    return None


def image_results(rows: Columns, *, components: bool = False) -> Columns:
    """Return the columns of ctapipe that our columns of images tell in another way.

    Parameters
    ----------
    rows
        Columns of dl0/image, dl1/image and dl2/image, (image,), among them those of `RESTATED`.
    components
        Whether the forests gave the displacement along the axis and across it; then no forest
        chose a side, and the place itself tells on which one it is.

    Returns
    -------
    columns
        By the name in the file, (image,): the displacement with the sign of its more probable
        side along the axis, how certain that side is (0 = either, 1 = certain), and altitude and
        azimuth of the place; only those whose columns are there.
    """
    columns: Columns = {}
    prefix = f"{dl2.DISP}_tel"
    if {"tel_disp", "tel_disp_sign"} <= rows.keys():
        plus = rows["tel_disp_sign"].astype(np.float64)
        side = np.where(plus < 0.5, -1.0, 1.0)
        if components and "hillas_psi" in rows:
            psi = np.deg2rad(rows["hillas_psi"])
            along = np.zeros(len(psi))
            for name, of_axis in (("lon", np.cos(psi)), ("lat", np.sin(psi))):
                along += (rows[f"tel_disp_fov_{name}"] - rows[f"hillas_fov_{name}"]) * of_axis
            side = np.where(along < 0, -1.0, 1.0)
        columns[f"{prefix}_parameter"] = np.copysign(rows["tel_disp"].astype(np.float64), side)
        columns[f"{prefix}_sign_score"] = np.abs(2 * plus - 1)
    if {"tel_disp_fov_lon", "tel_disp_fov_lat"} <= rows.keys():
        lon, lat = (rows[f"tel_disp_fov_{name}"].astype(np.float64) for name in ("lon", "lat"))
        place = telescope_to_altaz(lon, lat, rows["pointing_alt"], rows["pointing_az"])
        columns |= {f"{prefix}_alt": place.alt, f"{prefix}_az": place.az}
    return columns
