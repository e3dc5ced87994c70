"""Reconstructed showers of a ctapipe file: which algorithms are taken, and our columns of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.io import ctapipe_model_dl2 as dl2
from astri_gpu.io.ctapipe_import_file import HDF5File
from astri_gpu.io.ctapipe_import_rows import Cursor, EventKeys, Taken
from astri_gpu.io.ctapipe_model import DL2_SUBARRAY, DL2_TELESCOPE, Field
from astri_gpu.io.ctapipe_model_dl2 import PARTICLE_GROUPS, ResultTable
from astri_gpu.kernels.coordinates import altaz_to_telescope

__all__ = ["NO_RESULTS", "ResultTables", "Results", "choose_results", "image_results"]

Columns = dict[str, NDArray[Any]]
GEOMETRY = (
    "alt",
    "az",
    "core_x",
    "core_y",
    "core_tilted_x",
    "core_tilted_y",
    "h_max",
    "ang_distance_uncert",
    "average_intensity",
)


class Results(NamedTuple):
    """The tables of a file that are taken.

    `geometry` is the algorithm of the stereo geometry; the others are found under the column of
    ours that they cannot do without, such as "reco_energy".
    """

    geometry: str | None
    events: dict[str, ResultTable]
    telescopes: dict[str, ResultTable]

    @property
    def is_complete(self) -> bool:
        """Return whether energy, score and a direction are there, which makes a store DL2b."""
        directions = self.geometry, self.events.get("reco_alt"), self.events.get("disp_alt")
        return {"reco_energy", "gammaness"} <= self.events.keys() and any(directions)

    def names(self) -> dict[str, str]:
        """Return the name of each algorithm by the column of ours."""
        return {key: table.algorithm for key, table in (self.telescopes | self.events).items()}

    def others(self, file: HDF5File) -> list[str]:
        """Return what the file has and we do not take, in words."""
        found = []
        for group, taken, words in (
            (DL2_SUBARRAY, self.events, ""),
            (DL2_TELESCOPE, self.telescopes, " of single telescopes"),
        ):
            known: set[tuple[str, str | None]]
            known = {(table.kind, table.algorithm) for table in taken.values()}
            known |= {(kind, self.geometry) for kind in ("geometry", "impact")}
            found += [
                f"{kind} of {name}{words}"
                for kind in file.names(group)
                for name in file.names(f"{group}/{kind}")
                if (kind, name) not in known
            ]
        return found


NO_RESULTS = Results(None, {}, {})


def choose_results(file: HDF5File, wanted: str | None) -> Results:
    """Return which reconstructed showers are taken.

    Of several energies, scores and displacements those under ctapipe's usual names, else the first.

    Parameters
    ----------
    file
        The file.
    wanted
        Name of the stereo geometry; None takes HillasReconstructor, or the only one there is.

    Raises
    ------
    UsageError
        When `wanted` is not there, or there are several and none is named.
    """
    events, telescopes = (
        {
            table.key: found
            for table in tables[1:]  # the first is the stereo geometry, or what belongs to it
            if (found := _find(file, group, table)) is not None
        }
        for group, tables in ((DL2_SUBARRAY, dl2.OF_EVENTS), (DL2_TELESCOPE, dl2.OF_TELESCOPES))
    )
    if not {"reco_energy", "gammaness"} <= events.keys():
        events.pop("reco_alt", None)  # is of no use alone
    return Results(_choose_geometry(file, wanted), events, telescopes)


def _displacements(file: HDF5File) -> set[str]:
    """Return the algorithms whose geometry comes from displacements and has no core."""
    return {dl2.DISP, *file.names(f"{DL2_TELESCOPE}/disp")}


def _choose_geometry(file: HDF5File, wanted: str | None) -> str | None:
    others = {dl2.MERGED} | _displacements(file)
    names = [name for name in file.names(dl2.DL2_GEOMETRY) if name not in others]
    if wanted is not None and wanted not in names:
        raise UsageError(
            f"geometry={wanted} is not in {file.path}; it has {', '.join(names) or 'none'}."
        )
    if wanted is not None or not names:
        return wanted
    if dl2.ALGORITHM in names:
        return dl2.ALGORITHM
    if len(names) > 1:
        raise UsageError(
            f"{file.path} has the stereo geometry of {', '.join(names)}: choose one with "
            f"geometry={names[0]}."
        )
    return names[0]


def _find(file: HDF5File, group: str, table: ResultTable) -> ResultTable | None:
    """Return a table of the model under the name that it has in a group of this file."""
    kinds = PARTICLE_GROUPS if table.kind in PARTICLE_GROUPS else (table.kind,)
    found = [(kind, name) for kind in kinds for name in file.names(f"{group}/{kind}")]
    own = {dl2.MERGED, dl2.IMAGE_MEAN}
    if table.algorithm in own:
        found = [place for place in found if place[1] == table.algorithm]
    elif table.algorithm == dl2.DISP:
        found = [place for place in found if place[1] in _displacements(file)]
    else:
        found = [place for place in found if place[1] not in own]
    if not found:
        return None
    usual = [place for place in found if place[1] == table.algorithm]
    return table.renamed(*(usual or found)[0])


class ResultTables:
    """The tables of reconstructed showers with one row per event, read block by block.

    Attributes
    ----------
    n_bad_geometry
        Events so far whose stereo geometry is called valid without a direction and a core.
    """

    def __init__(self, file: HDF5File, results: Results) -> None:
        self._results = results
        self._geometry: Cursor | None = None
        if results.geometry is not None:
            self._geometry = _cursor(file, f"{dl2.DL2_GEOMETRY}/{results.geometry}")
        self._others = {key: _cursor(file, table.path) for key, table in results.events.items()}
        for key, table in results.events.items():
            self._others[key].table.require((f"{table.algorithm}_is_valid",))
        self.n_bad_geometry = 0

    def columns(
        self, keys: EventKeys, array_alt: NDArray[np.float64], array_az: NDArray[np.float64]
    ) -> Columns:
        """Return the columns of dl2/event, (event,); nothing where the file has no such result.

        Parameters
        ----------
        keys
            The events of a block.
        array_alt, array_az
            Where the array points, deg (event,).
        """
        if self._geometry is None and not self._others:
            return {}
        columns, n_tels = self._stereo(keys), np.zeros(len(keys), dtype=np.int32)
        valid = {}
        for key, table in self._results.events.items():
            taken, own = self._read(key, table, keys)
            valid[key] = own.pop("is_valid")
            if key == "reco_energy" and (name := f"{table.algorithm}_telescopes") in (
                taken.rows.dtype.names or ()
            ):
                n_tels[taken.event] = (taken.rows[name] != 0).sum(axis=1)
            columns |= own
        if self._results.is_complete:
            direction = self._direction(columns, valid)
            columns |= direction
            place = altaz_to_telescope(columns["reco_alt"], columns["reco_az"], array_alt, array_az)
            good = valid["reco_energy"] & valid["gammaness"] & np.isfinite(columns["reco_alt"])
            columns |= {
                "reco_fov_lon": place.fov_lon,
                "reco_fov_lat": place.fov_lat,
                "reco_n_tels": n_tels,
                "reco_is_valid": good,
            }
            quality = np.nan_to_num(columns.get("event_quality", np.zeros(len(keys))))
            columns["event_quality"] = np.clip(quality, 0, 4).astype(np.int32)
        return columns

    def check_end(self) -> None:
        """Refuse files with rows of events that the trigger table does not have."""
        for cursor in (self._geometry, *self._others.values()):
            if cursor is not None:
                cursor.check_end()

    def _read(self, key: str, table: ResultTable, keys: EventKeys) -> tuple[Taken, Columns]:
        """Return the rows of one table, and our columns: NaN where it calls itself not valid."""
        cursor, name = self._others[key], f"{table.algorithm}_is_valid"
        taken = cursor.take(keys, len(keys))
        columns: Columns = {}
        is_valid = np.zeros(len(keys), dtype=bool)
        is_valid[taken.event] = taken.rows[name] != 0
        for field in table.columns:
            if field.ours is None or field in dl2.EVENT_KEYS:
                continue
            values = _numbers(cursor, taken, field, len(keys))
            values[~is_valid] = np.nan
            columns[field.ours] = values
        finite = np.isfinite([columns[value] for value in table.values]).all(axis=0)
        return taken, {**columns, "is_valid": is_valid & finite}

    def _direction(self, columns: Columns, valid: dict[str, NDArray[np.bool_]]) -> Columns:
        """Return the direction of each event: merged, or that of geometry, or of displacements."""
        if "reco_alt" in valid:
            return {}
        missing = np.full(len(columns["stereo_alt"]), np.nan)
        geometry = columns["stereo_is_valid"]
        return {
            f"reco_{name}": np.where(
                geometry, columns[f"stereo_{stereo}"], columns.get(f"disp_{name}", missing)
            )
            for name, stereo in (
                ("alt", "alt"),
                ("az", "az"),
                ("direction_uncert", "ang_distance_uncert"),
            )
        }

    def _stereo(self, keys: EventKeys) -> Columns:
        """Return the columns of the stereo geometry, (event,)."""
        cursor, prefix, n_events = self._geometry, self._results.geometry, len(keys)
        if cursor is None:
            columns = {f"stereo_{name}": np.full(n_events, np.nan) for name in GEOMETRY}
            nothing = np.zeros(n_events, dtype=np.int32)
            return {**columns, "stereo_is_valid": nothing != 0, "stereo_n_tels": nothing}
        taken, table = cursor.take(keys, n_events), cursor.table
        fields = {field.name: field for field in dl2.geometry_columns(str(prefix))}

        def values_of(name: str) -> NDArray[np.float64]:
            return _numbers(cursor, taken, fields[name], n_events)

        columns = {f"stereo_{name}": values_of(name) for name in GEOMETRY}
        # HillasReconstructor keeps the spread of its planes as uncertainty of altitude and azimuth.
        uncertainty = columns["stereo_ang_distance_uncert"]
        columns["stereo_ang_distance_uncert"] = np.where(
            np.isfinite(uncertainty), uncertainty, values_of("alt_uncert")
        )
        table.require((f"{prefix}_is_valid",))
        is_valid = np.zeros(n_events, dtype=bool)
        is_valid[taken.event] = taken.rows[f"{prefix}_is_valid"] != 0
        # ctapipe calls a result of unknown pointing valid, and all its numbers are NaN.
        places = [columns[f"stereo_{name}"] for name in ("alt", "az", "core_x", "core_y")]
        finite = np.isfinite(places).all(axis=0)
        self.n_bad_geometry += int(np.count_nonzero(is_valid & ~finite))
        n_tels = np.zeros(n_events, dtype=np.int32)
        if f"{prefix}_telescopes" in table:
            n_tels[taken.event] = (taken.rows[f"{prefix}_telescopes"] != 0).sum(axis=1)
        return {**columns, "stereo_is_valid": is_valid & finite, "stereo_n_tels": n_tels}


def _cursor(file: HDF5File, path: str) -> Cursor:
    return Cursor(file.require(path), of_telescopes=False)


def _numbers(cursor: Cursor, taken: Taken, field: Field, n_events: int) -> NDArray[np.float64]:
    """Return one column, (event,), NaN where the table has no row, or not this column."""
    filled, table = np.full(n_events, np.nan), cursor.table
    if field.column in table:
        values = table.values(taken.rows, field)
        if values.ndim != 1:
            raise AstriError(
                f"{field.column} of {table.path} in {table.file_path} holds {values.shape[1:]} "
                "values for an event, not one."
            )
        filled[taken.event] = values
    return filled


def image_results(
    tables: dict[str, ResultTable],
    joined: Callable[[str, Field], NDArray[Any]],
    pointing_alt: NDArray[np.float64],
    pointing_az: NDArray[np.float64],
) -> Columns:
    """Return the columns of dl2/image that telescope-wise results have, (image,).

    Parameters
    ----------
    tables
        Those of the file, by the column of ours that they cannot do without.
    joined
        Gives one column of a table, (image,), unknown where there is no row.
    pointing_alt, pointing_az
        Of the telescope, deg (image,).
    """
    columns: Columns = {}
    is_valid = np.ones(len(pointing_alt), dtype=bool)
    for key, table in tables.items():
        fields = {field.name: field for field in table.columns}
        for field in table.columns[3:]:
            if field.ours not in (None, "tel_is_valid"):
                columns[str(field.ours)] = joined(key, field)
        if "is_valid" in fields:
            is_valid &= joined(key, fields["is_valid"]) != 0
        if key == "tel_disp":
            parameter, certain = (joined(key, fields[n]) for n in ("parameter", "sign_score"))
            columns["tel_disp"] = np.abs(parameter)
            # The sign of a displacement of zero is kept by its bit.
            side = np.where(np.signbit(parameter), -1.0, 1.0)
            columns["tel_disp_sign"] = 0.5 * (1 + side * certain)
        if key == "tel_disp_fov_lon":
            alt, az = joined(key, fields["alt"]), joined(key, fields["az"])
            place = altaz_to_telescope(alt, az, pointing_alt, pointing_az)
            columns |= {"tel_disp_fov_lon": place.fov_lon, "tel_disp_fov_lat": place.fov_lat}
    if tables:
        columns["tel_is_valid"] = is_valid
    return columns
