"""When the events of a ctapipe file happened and where the telescopes looked."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io.ctapipe_import_file import HDF5File, TableReader
from astri_gpu.io.ctapipe_import_rows import whole_numbers
from astri_gpu.io.ctapipe_model import Field
from astri_gpu.io.ctapipe_time import from_high_res

__all__ = ["Pointing", "unix_times"]

# From v6.0.0 on, and before: tables of time, azimuth, altitude for every telescope.
MONITORING = ("/dl0/monitoring/telescope/pointing", "/dl1/monitoring/telescope/pointing")
ALTAZ = 0  # ctapipe's CoordinateFrameType
NS = 1_000_000_000
DAY_S, MJD_1970 = 86400, 40587

Floats = NDArray[np.float64]


def unix_times(
    table: TableReader, rows: NDArray[Any], column: str = "time"
) -> tuple[NDArray[np.int64], Floats]:
    """Return UTC seconds since 1970 and nanoseconds to add, (row,) each.

    High-resolution times come in quarter nanoseconds, those of files before v7.0.0 as modified
    Julian date in float64, which resolves a microsecond.

    Raises
    ------
    AstriError
        When the column is missing or in a form that is not known.
    """
    table.require((column,))
    values = rows[column]
    form, scale = table.time_format(column)
    if scale == "tai" and form == "ctao_high_res" and values.shape[1:] == (2,):
        return from_high_res(values)
    if scale == "tai" and form == "mjd" and values.ndim == 1 and np.isfinite(values).all():
        day = np.floor(values)
        ns = np.rint((values - day) * (DAY_S * NS)).astype(np.int64)
        whole, ns = np.divmod(ns, NS)
        seconds = (day.astype(np.int64) - MJD_1970) * DAY_S + whole
        return from_high_res(np.stack([seconds, 4 * ns], axis=-1))
    raise AstriError(
        f"The times {column} of {table.path} in {table.file_path} are of the form '{form}' on the "
        f"scale '{scale}', shape {values.shape}: only ctao_high_res and mjd on tai are known."
    )


class Pointing:
    """Directions of telescopes and array, deg.

    Simulations keep one direction for each telescope and observation, observations tables over
    time, between whose entries is interpolated.
    """

    def __init__(self, file: HDF5File) -> None:
        self._file = file
        self._fixed: dict[int, dict[int, tuple[float, float]] | None] = {}
        self._tracks: dict[int, tuple[Floats, Floats, Floats] | None] = {}
        self._array = _array_pointing(file)

    def array(self, obs_id: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return altitude and azimuth of the array, NaN where it is not given as such."""
        unknown = (np.nan, np.nan)
        pairs = np.array([self._array.get(int(run), unknown) for run in obs_id], dtype=np.float64)
        return pairs[:, 0], pairs[:, 1]

    def telescope(
        self, tel_id: int, obs_id: NDArray[np.int64], unix_s: Floats
    ) -> tuple[Floats, Floats]:
        """Return altitude and azimuth of a telescope at these times; that of the array for want.

        Raises
        ------
        AstriError
            When neither is known: every direction made with it would be NaN.
        """
        if tel_id not in self._fixed:
            self._fixed[tel_id] = self._read_fixed(tel_id)
        fixed = self._fixed[tel_id]
        if fixed is not None:
            unknown = (np.nan, np.nan)
            pairs = np.array([fixed.get(int(run), unknown) for run in obs_id]).reshape(-1, 2)
            alt, az = pairs[:, 0], pairs[:, 1]
        else:
            if tel_id not in self._tracks:
                self._tracks[tel_id] = self._read_track(tel_id)
            track = self._tracks[tel_id]
            alt = az = np.full(len(obs_id), np.nan)
            if track is not None:
                time, altitude, azimuth = track
                alt = np.interp(unix_s, time, altitude)
                az = np.interp(unix_s, time, azimuth) % 360
        missing = ~(np.isfinite(alt) & np.isfinite(az))
        if missing.any():
            of_array = self.array(obs_id)
            alt, az = np.where(missing, of_array[0], alt), np.where(missing, of_array[1], az)
            if not (np.isfinite(alt).all() and np.isfinite(az).all()):
                raise AstriError(
                    f"{self._file.path} does not say where telescope {tel_id} or the array looked "
                    f"in observation {int(obs_id[missing][0])}: merge it with its pointing."
                )
        return alt, az

    def _read_fixed(self, tel_id: int) -> dict[int, tuple[float, float]] | None:
        table = self._file.table(model.telescope_table(model.POINTING, tel_id))
        if table is None:
            return None
        rows = table.read()
        obs_id = whole_numbers(table.values(rows, Field("obs_id", "u8")), f"{table.path}/obs_id")
        alt, az = (
            np.rad2deg(np.asarray(table.values(rows, field), dtype=np.float64))
            for field in (
                Field("telescope_pointing_altitude", "f8", "rad"),
                Field("telescope_pointing_azimuth", "f8", "rad"),
            )
        )
        pairs = zip(alt.tolist(), az.tolist(), strict=True)
        return dict(zip(obs_id.tolist(), pairs, strict=True))

    def _read_track(self, tel_id: int) -> tuple[Floats, Floats, Floats] | None:
        for group in MONITORING:
            table = self._file.table(model.telescope_table(group, tel_id))
            if table is None or not table.n_rows:
                continue
            rows = table.read()
            prefix = "telescope_pointing_" if "telescope_pointing_azimuth" in table else ""
            seconds, ns = unix_times(table, rows)
            order = np.argsort(seconds + 1e-9 * ns, kind="stable")
            alt, az = (
                np.asarray(table.values(rows, Field(f"{prefix}{name}", "f8", "deg")), np.float64)
                for name in ("altitude", "azimuth")
            )
            turns = np.rad2deg(np.unwrap(np.deg2rad(az[order])))
            return (seconds + 1e-9 * ns)[order], alt[order], turns
        return None


def _array_pointing(file: HDF5File) -> dict[int, tuple[float, float]]:
    """Return (altitude, azimuth) in deg of observations that look at a fixed horizontal place."""
    table = file.table(model.OBSERVATION_BLOCK)
    if table is None:
        return {}
    table.require(("obs_id", "subarray_pointing_lat", "subarray_pointing_lon"))
    rows = table.read()
    obs_id = whole_numbers(table.values(rows, Field("obs_id", "u8")), f"{table.path}/obs_id")
    lat, lon = (
        np.asarray(table.values(rows, Field(f"subarray_pointing_{name}", "f8", "deg")), np.float64)
        for name in ("lat", "lon")
    )
    frame = rows["subarray_pointing_frame"] if "subarray_pointing_frame" in table else 0 * obs_id
    columns = zip(obs_id.tolist(), frame.tolist(), lat.tolist(), lon.tolist(), strict=True)
    return {run: (alt, az) for run, kind, alt, az in columns if kind == ALTAZ}
