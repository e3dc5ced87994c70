"""Telescopes, cameras, pointing and run headers of a ctapipe file, in our own terms."""

import logging
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import (
    ArrayLayout,
    CameraDescription,
    CameraGeometry,
    Optics,
    Readout,
    rotate,
)
from astri_gpu.instrument.neighbours import PixelShape
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io.ctapipe_import_file import HDF5File, TableReader
from astri_gpu.io.ctapipe_import_rows import whole_numbers
from astri_gpu.io.ctapipe_model import Field
from astri_gpu.io.ctapipe_model_run import RUN_COLUMNS

__all__ = ["TelescopeOrder", "read_layout", "simulation_header", "thrown_showers"]

logger = logging.getLogger(__name__)

SHAPES: dict[str, PixelShape] = {
    "hex": "hexagon",
    "rect": "square",
    "square": "square",
    "circ": "circle",
}
LARGEST_CAMERA = 100_000  # pixels


class TelescopeOrder:
    """The telescopes of the file, in the order of its masks, and which of them are wanted.

    Attributes
    ----------
    tel_id
        All telescopes of the file, int64 (tel of the file,).
    wanted
        Which of them are kept, bool.
    camera
        Of each kept telescope: its camera's place in the layout, by tel_id.
    """

    def __init__(self, tel_id: NDArray[np.int64], wanted: NDArray[np.bool_]) -> None:
        self.tel_id, self.wanted = tel_id, wanted
        self.camera: dict[int, int] = {}
        self._place = {int(number): k for k, number in enumerate(tel_id[wanted])}

    def place(self, tel_id: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of telescopes among those that are kept, -1 for others."""
        return np.array([self._place.get(int(number), -1) for number in tel_id], dtype=np.int64)


def read_layout(
    file: HDF5File, allowed_telescopes: Sequence[int] = ()
) -> tuple[ArrayLayout, TelescopeOrder]:
    """Return the array of a file and the order of its telescopes.

    Ground frame and camera frame are those of ctapipe: x North, y West, z up, m; pixels are
    derotated by the angle CAM_ROT. What ctapipe does not keep (the curvature of the focal surface,
    modules, saturation) is unknown.

    Raises
    ------
    UsageError
        When an allowed telescope is not in the file.
    AstriError
        When the description of the instrument is incomplete.
    """
    table = file.require(model.INSTRUMENT_LAYOUT)
    rows = table.read()
    tel_id = whole_numbers(_column(table, rows, "tel_id"), f"{table.path}/tel_id")
    if not len(tel_id) or len(np.unique(tel_id)) < len(tel_id):
        raise AstriError(f"{file.path}: {table.path} has no telescopes, or one of them twice.")
    missing = sorted(set(allowed_telescopes) - {int(number) for number in tel_id})
    if missing:
        raise UsageError(
            f"allowed_telescopes asks for {missing}, but {file.path} has the telescopes "
            f"{tel_id.tolist()}."
        )
    wanted = np.isin(tel_id, allowed_telescopes) if allowed_telescopes else tel_id > 0
    order = TelescopeOrder(tel_id, wanted)
    cameras, camera_index = _cameras(file, table, rows[wanted])
    order.camera = dict(zip(tel_id[wanted].tolist(), camera_index, strict=True))
    position = [
        np.asarray(table.values(rows[wanted], Field(f"pos_{axis}", "f8", "m")), np.float64)
        for axis in "xyz"
    ]
    latitude, longitude, altitude = _location(table)
    layout = ArrayLayout(
        name=str(table.attrs.get("SUBARRAY", "unknown")),
        tel_id=tel_id[wanted].astype(np.uint16),
        x=position[0],
        y=position[1],
        z=position[2],
        camera_index=np.array(camera_index, dtype=np.int32),
        cameras=tuple(cameras),
        latitude_deg=latitude,
        longitude_deg=longitude,
        altitude_m=altitude,
        note="from ctapipe"
        + ("; the file does not say where it is" if math.isnan(latitude) else ""),
    )
    return layout, order


def _column(table: TableReader, rows: NDArray[Any], name: str) -> NDArray[Any]:
    return table.values(rows, Field(name, "i8"))


def _location(table: TableReader) -> tuple[float, float, float]:
    """Return latitude, longitude (deg) and height (m) of the array; NaN where it is unknown.

    ctapipe puts arrays of unknown place at latitude and longitude 0.
    """
    from astropy.coordinates import EarthLocation

    itrs = [table.attrs.get(f"reference_itrs_{axis}", math.nan) for axis in "xyz"]
    if not np.isfinite(itrs).all():
        return math.nan, math.nan, math.nan
    place = EarthLocation.from_geocentric(*itrs, unit="m")
    # A micrometre is more than the way over geocentric coordinates adds.
    latitude, longitude = round(float(place.lat.deg), 11), round(float(place.lon.deg), 11)
    if latitude == longitude == 0:
        latitude = longitude = math.nan
    return latitude, longitude, round(float(place.height.to_value("m")), 6)


def _cameras(
    file: HDF5File, layout: TableReader, rows: NDArray[Any]
) -> tuple[list[CameraDescription], list[int]]:
    """Return the cameras of these telescopes, and which of them each telescope has."""
    optics = file.require(model.INSTRUMENT_OPTICS)
    all_optics = optics.read()
    cameras: list[CameraDescription] = []
    known: dict[tuple[int, int], int] = {}
    index = []
    pairs = zip(
        _column(layout, rows, "camera_index"), _column(layout, rows, "optics_index"), strict=True
    )
    for camera, mirror in pairs:
        key = int(camera), int(mirror)
        if key not in known:
            if not 0 <= key[1] < len(all_optics):
                raise AstriError(f"{file.path}: {optics.path} has no row {key[1]}.")
            known[key] = len(cameras)
            own = _optics(optics, all_optics[key[1] : key[1] + 1])
            cameras.append(_camera(file, key[0], own, [entry.name for entry in cameras]))
        index.append(known[key])
    return cameras, index


def _optics(table: TableReader, row: NDArray[Any]) -> Optics:
    def number(name: str, unit: str = "") -> float:
        return float(table.values(row, Field(name, "f8", unit))[0])

    effective = number("effective_focal_length", "m")
    return Optics(
        name=table.text(row, "optics_name" if "optics_name" in table else "name")[0],
        focal_length_m=number("equivalent_focal_length", "m"),
        effective_focal_length_m=effective if np.isfinite(effective) and effective > 0 else None,
        mirror_area_m2=number("mirror_area", "m**2"),
        n_mirrors=int(number("n_mirrors")),
    )


def _group_name(name: str, taken: list[str]) -> str:
    """Return a name for the folder of a camera that is safe, and not taken yet."""
    name = re.sub(r"[^\w.+-]", "-", name).strip(".-") or "camera"
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def _camera(file: HDF5File, index: int, optics: Optics, taken: list[str]) -> CameraDescription:
    geometry = file.require(f"{model.INSTRUMENT_CAMERA}/geometry_{index}")
    readout = file.require(f"{model.INSTRUMENT_CAMERA}/readout_{index}")
    rows = geometry.read()
    if not 0 < len(rows) <= LARGEST_CAMERA:
        raise AstriError(f"{file.path}: {geometry.path} has {len(rows)} pixels.")
    x, y = (
        np.asarray(geometry.values(rows, Field(name, "f8", "m")), np.float64)
        for name in ("pix_x", "pix_y")
    )
    pix_x, pix_y = rotate(x, y, math.radians(float(geometry.attrs.get("CAM_ROT", 0.0))))
    word = str(geometry.attrs.get("PIX_TYPE", "")).lower()
    shape = next((shape for start, shape in SHAPES.items() if word.startswith(start)), None)
    if shape is None:
        raise AstriError(f"{file.path}: {geometry.path} has pixels of the unknown shape '{word}'.")
    pulses = readout.read()
    try:
        n_gains = int(readout.attrs["NCHAN"])
        attrs = [float(readout.attrs[name]) for name in ("NSAMPLES", "SAMPFREQ", "REFWIDTH")]
    except (KeyError, TypeError, ValueError) as error:
        raise AstriError(f"{file.path}: {readout.path} lacks a number ({error}).") from error
    pulse = [
        readout.values(pulses, Field(f"reference_pulse_shape_channel{gain}", "f8"))
        for gain in range(n_gains)
    ]
    return CameraDescription(
        geometry=CameraGeometry.from_pixels(
            _group_name(str(geometry.attrs.get("CAM_ID", "camera")), taken),
            pix_x,
            pix_y,
            geometry.values(rows, Field("pix_area", "f8", "m**2")),
            shape,
        ),
        readout=Readout(
            n_gains=n_gains,
            n_samples=int(attrs[0]),
            sampling_rate_ghz=attrs[1],
            reference_pulse=np.asarray(pulse, dtype=np.float64),
            reference_pulse_step_ns=attrs[2],
        ),
        optics=optics,
    )


def simulation_header(file: HDF5File) -> dict[str, Any]:
    """Return the attributes of the group `simulation`, named as for sim_telarray files.

    Merged files have several runs: the last one is given by name, except `n_showers`, which is the
    sum; all of them are in the list `mc_run_headers`. Empty where the file has no run header.
    """
    table = file.table(model.SIMULATION_RUN)
    if table is None or not table.n_rows:
        return {}
    rows = table.read()
    columns = {}
    for field in RUN_COLUMNS:
        if field.ours in (None, "obs_id") or field.column not in table:
            continue
        values = table.values(rows, field)
        if field.factor != 1:
            values = np.asarray(values, dtype=np.float64) / field.factor
        columns[str(field.ours)] = values
    headers = [
        {name: _known(values[k]) for name, values in columns.items()} for k in range(len(rows))
    ]
    counts = [header["n_showers"] for header in headers if header.get("n_showers") is not None]
    return {**headers[-1], "n_showers": sum(counts) or None, "mc_run_headers": headers}


def _known(value: Any) -> Any:
    """Return a number of a run header, None where ctapipe writes its mark for unknown."""
    number = value.item() if isinstance(value, np.generic) else value
    return None if number == -1 or number != number else number


def thrown_showers(file: HDF5File) -> tuple[dict[str, NDArray[np.float64]], int, str] | None:
    """Return the arrays of simulation/thrown, their number of entries, and a note.

    Histograms of several runs are added; None where there is none.

    Raises
    ------
    AstriError
        When the histograms of the runs have different bins.
    """
    table = file.table(model.SHOWER_DISTRIBUTION)
    if table is None or not table.n_rows:
        return None
    rows = table.read()
    energy = table.values(rows, Field("bins_energy", "f8", "TeV"))
    distance = table.values(rows, Field("bins_core_dist", "f8", "m"))
    counts = table.values(rows, Field("histogram", "f8"))
    if counts.shape[1:] != (energy.shape[1] - 1, distance.shape[1] - 1):
        raise AstriError(
            f"{file.path}: the histogram of {table.path} is {counts.shape[1:]}, but its edges are "
            f"{energy.shape[1]} energies and {distance.shape[1]} distances."
        )
    if not (np.allclose(energy, energy[0], rtol=1e-6) and np.allclose(distance, distance[0])):
        raise AstriError(
            f"{file.path}: the {len(rows)} histograms of {table.path} have different bins, so that "
            "they cannot be added: ingest the files one by one, before they are merged."
        )
    arrays = {
        "histogram": counts.astype(np.float64).sum(axis=0).T.copy(),
        "core_distance_edges": distance[0].astype(np.float64),
        "energy_edges": energy[0].astype(np.float64),
    }
    n_entries = int(table.values(rows, Field("n_entries", "i8")).sum())
    return arrays, n_entries, f"From ctapipe, {len(rows)} run(s)."
