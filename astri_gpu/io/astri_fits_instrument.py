"""TELCONF, the table of telescopes, and the array layout."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout, CameraDescription, CameraGeometry, Optics, Readout
from astri_gpu.instrument.astri import astri_camera
from astri_gpu.io import astri_fits_model as model
from astri_gpu.io.astri_fits_file import FitsWriter
from astri_gpu.io.astri_fits_reader import FitsFile
from astri_gpu.store_disk import json_ready

__all__ = ["describe_array", "read_telescopes", "write_telescopes"]

SHAPES = ("hexagon", "square", "circle")
UNKNOWN_PLACE = (
    "The file does not say where its telescopes stand (in a way that is known here): positions are "
    "NaN."
)


def write_telescopes(writer: FitsWriter, layout: ArrayLayout) -> None:
    """Write TELCONF, one row per telescope; pixels of smaller cameras are padded with NaN."""
    width = max(camera.geometry.n_pixels for camera in layout.cameras)
    entries = model.telescope_fields(width)
    rows = np.zeros(layout.n_telescopes, model.numpy_type(entries))
    rows["XPIX"] = rows["YPIX"] = np.nan
    for row, k in enumerate(layout.camera_index):
        camera = layout.cameras[int(k)]
        optics, n_pixels = camera.optics, camera.geometry.n_pixels
        effective = optics.effective_focal_length_m
        rows["TELTYPE"][row] = k + 1
        rows["FOCLEN"][row] = optics.focal_length_m
        rows["EFFFOC"][row] = np.nan if effective is None else effective
        rows["NMIRROR"][row], rows["MIRAREA"][row] = optics.n_mirrors, optics.mirror_area_m2
        rows["PIXAREA"][row], rows["NPIX"][row] = camera.geometry.pix_area.mean(), n_pixels
        rows["XPIX"][row, :n_pixels] = camera.geometry.pix_x
        rows["YPIX"][row, :n_pixels] = camera.geometry.pix_y
        rows["PIXFLAG"][row, :n_pixels] = 1
    for name, values in (("TELID", layout.tel_id), ("POSX", layout.x), ("POSY", layout.y)):
        rows[name] = values
    rows["POSZ"] = layout.z
    writer.table(model.TELCONF, entries).append({name: rows[name] for name in rows.dtype.names})


def describe_array(layout: ArrayLayout) -> dict[str, Any]:
    """Return what TELCONF has no place for, as plain JSON."""
    cameras = [
        {
            "name": camera.name,
            "optics": camera.optics.name,
            "pixel_shape": camera.geometry.shape,
            "n_gains": camera.readout.n_gains,
            "n_samples": camera.readout.n_samples,
            "sampling_rate_ghz": camera.readout.sampling_rate_ghz,
            "saturation_adc": camera.readout.saturation_adc,
            "reference_pulse": camera.readout.reference_pulse,
            "reference_pulse_step_ns": camera.readout.reference_pulse_step_ns,
        }
        for camera in layout.cameras
    ]
    described: dict[str, Any] = json_ready(
        {
            "name": layout.name,
            "note": layout.note,
            "latitude_deg": layout.latitude_deg,
            "longitude_deg": layout.longitude_deg,
            "altitude_m": layout.altitude_m,
            "cameras": cameras,
        }
    )
    return described


def read_telescopes(file: FitsFile, tel_id: Sequence[int] = ()) -> ArrayLayout:
    """Return the array of a file, telescopes in the order of TELCONF.

    Files without TELCONF, or with one whose columns have other names, get the built-in ASTRI
    camera and telescopes of unknown place.

    Parameters
    ----------
    file
        The file.
    tel_id
        Telescopes of a file without TELCONF.

    Raises
    ------
    AstriError
        When TELCONF is damaged, or has no telescopes.
    """
    meta = file.extra().get("instrument")
    meta = meta if isinstance(meta, Mapping) else {}
    if model.TELCONF not in file or not _is_ours(file):
        return _unknown(_numbers(file, tel_id), meta)
    table = file.table(model.TELCONF, model.telescope_fields(model.LARGEST_CAMERA))
    rows = table.read()
    if not table.n_rows or len(np.unique(rows["TELID"])) < table.n_rows:
        raise AstriError(f"{table.where} has no telescopes, or one of them twice.")
    if rows["TELID"].min() < 0 or rows["TELID"].max() > np.iinfo(np.uint16).max:
        raise AstriError(f"TELID in {table.where} is not a number of a telescope.")
    kinds = sorted({int(kind) for kind in rows["TELTYPE"]})
    described = meta.get("cameras")
    described = described if isinstance(described, list) else []
    cameras = []
    for kind in kinds:
        k = int(np.argmax(rows["TELTYPE"] == kind))
        known = described[kind - 1] if 0 < kind <= len(described) else {}
        row = {name: values[k] for name, values in rows.items()}
        cameras.append(_camera(row, known if isinstance(known, Mapping) else {}, kind, table.where))
    positions = [rows[name].astype(np.float64) for name in ("POSX", "POSY", "POSZ")]
    return ArrayLayout(
        name=str(meta.get("name", "ASTRI")),
        tel_id=rows["TELID"].astype(np.uint16),
        x=positions[0],
        y=positions[1],
        z=positions[2],
        camera_index=np.searchsorted(kinds, rows["TELTYPE"]).astype(np.int32),
        cameras=tuple(cameras),
        latitude_deg=_number(meta.get("latitude_deg")),
        longitude_deg=_number(meta.get("longitude_deg")),
        altitude_m=_number(meta.get("altitude_m")),
        note=str(meta.get("note", "")),
    )


def _is_ours(file: FitsFile) -> bool:
    try:
        file.table(model.TELCONF, model.telescope_fields(model.LARGEST_CAMERA))
    except AstriError:
        if file.extra():  # of this package, and yet not as it writes them
            raise
        return False
    return True


def _numbers(file: FitsFile, tel_id: Sequence[int]) -> NDArray[np.uint16]:
    """Return the numbers of the telescopes of a foreign file: the first whole numbers of TELCONF.

    Its first two columns are whole numbers of four bytes; that the first is the telescope is
    believed only if they are distinct.
    """
    if model.TELCONF not in file:
        return np.array(list(tel_id) or [1], dtype=np.uint16)
    n_rows, numbers = file.first_column(model.TELCONF)
    distinct = numbers is not None and len(np.unique(numbers)) == n_rows
    if numbers is None or not distinct or numbers.min() < 0 or numbers.max() > 65535:
        numbers = np.arange(1, n_rows + 1)
    return numbers.astype(np.uint16)


def _unknown(tel_id: NDArray[np.uint16], meta: Mapping[str, Any]) -> ArrayLayout:
    nowhere = np.full(len(tel_id), np.nan)
    return ArrayLayout(
        name=str(meta.get("name", "ASTRI")),
        tel_id=tel_id,
        x=nowhere,
        y=nowhere.copy(),
        z=nowhere.copy(),
        camera_index=np.zeros(len(tel_id), np.int32),
        cameras=(astri_camera(),),
        latitude_deg=_number(meta.get("latitude_deg")),
        longitude_deg=_number(meta.get("longitude_deg")),
        altitude_m=_number(meta.get("altitude_m")),
        note=UNKNOWN_PLACE,
    )


def _camera(
    row: Mapping[str, Any], meta: Mapping[str, Any], kind: int, where: str
) -> CameraDescription:
    """Return a camera; that of ASTRI is known by its pixels, and then complete."""
    n_pixels = int(row["NPIX"])
    x, y = (np.atleast_1d(row[name]) for name in ("XPIX", "YPIX"))
    if not 0 < n_pixels <= len(x):
        raise AstriError(f"NPIX in {where} is {n_pixels}, but there are {len(x)} pixel positions.")
    x, y = x[:n_pixels], y[:n_pixels]
    area = float(row["PIXAREA"])
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(area) and area > 0):
        raise AstriError(f"Camera type {kind} in {where} has pixels without place or area.")
    effective = float(row["EFFFOC"])
    optics = Optics(
        name=str(meta.get("optics", "ASTRI")),
        focal_length_m=_rounded(row["FOCLEN"]),
        effective_focal_length_m=_rounded(effective) if effective > 0 else None,
        mirror_area_m2=_rounded(row["MIRAREA"]),
        n_mirrors=int(row["NMIRROR"]),
    )
    known = astri_camera()
    geometry = known.geometry
    is_astri = np.array_equal(geometry.pix_x.astype(np.float32), x) and np.array_equal(
        geometry.pix_y.astype(np.float32), y
    )
    name = str(meta.get("name") or (geometry.name if is_astri else f"camera_{kind}"))
    shape = meta.get("pixel_shape")
    if is_astri:
        geometry = replace(geometry, name=name)
    else:
        geometry = CameraGeometry.from_pixels(
            name, x, y, np.full(n_pixels, area), shape if shape in SHAPES else "square"
        )
    return CameraDescription(geometry, _readout(meta, known.readout, where), optics)


def _readout(meta: Mapping[str, Any], known: Readout, where: str) -> Readout:
    if not meta:
        return known
    try:
        saturation = meta["saturation_adc"]
        return Readout(
            n_gains=int(meta["n_gains"]),
            n_samples=int(meta["n_samples"]),
            sampling_rate_ghz=float(meta["sampling_rate_ghz"]),
            reference_pulse=np.array(meta["reference_pulse"], dtype=np.float64, ndmin=2),
            reference_pulse_step_ns=float(meta["reference_pulse_step_ns"]),
            saturation_adc=None if saturation is None else float(saturation),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AstriError(
            f"The description of the cameras that belongs to {where} is damaged ({error})."
        ) from error


def _rounded(value: Any) -> float:
    """Return a float32 as the shortest number that it stands for: 2.15, not 2.1500000953."""
    return float(str(np.float32(value)))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
