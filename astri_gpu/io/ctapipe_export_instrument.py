"""The instrument as ctapipe keeps it: subarray, optics, camera geometries and readouts."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.instrument import ArrayLayout, CameraDescription, Optics
from astri_gpu.io.ctapipe_export_file import CtapipeFile
from astri_gpu.io.ctapipe_model import INSTRUMENT_CAMERA, INSTRUMENT_LAYOUT, INSTRUMENT_OPTICS

__all__ = ["write_instrument"]

SST_AREA_M2, MST_AREA_M2 = 50.0, 200.0  # ctapipe: mirror diameters below 8 m and 16 m


def write_instrument(file: CtapipeFile, layout: ArrayLayout) -> None:
    """Write subarray, optics, camera geometries and readouts."""
    cameras = [layout.cameras[index] for index in layout.camera_index]
    optics = list(dict.fromkeys(camera.optics for camera in layout.cameras))
    names = _text(camera.optics.name for camera in cameras)
    types = [_size_type(camera.optics) for camera in cameras]
    about = {"ORIGIN": "ctapipe.instrument.SubarrayDescription", "SUBARRAY": layout.name}
    file.write(
        INSTRUMENT_LAYOUT,
        {
            "tel_id": layout.tel_id.astype(np.uint16),
            "name": names,
            "type": _text(types),
            "pos_x": layout.x,
            "pos_y": layout.y,
            "pos_z": layout.z,
            "camera_name": _text(camera.name for camera in cameras),
            "optics_name": names,
            "camera_index": layout.camera_index.astype(np.int64),
            "optics_index": np.array([optics.index(camera.optics) for camera in cameras]),
            "tel_description": _text(
                f"{kind}_{camera.optics.name}_{camera.name}"
                for kind, camera in zip(types, cameras, strict=True)
            ),
        },
        units={"pos_x": "m", "pos_y": "m", "pos_z": "m"},
        attrs={
            **about,
            "TAB_TYPE": "subarray",
            "TAB_VER": "2.0",
            "name": layout.name,
            **_reference_position(layout),
        },
    )
    file.write(
        INSTRUMENT_OPTICS,
        {
            "optics_name": _text(each.name for each in optics),
            "size_type": _text(map(_size_type, optics)),
            "reflector_shape": _text(map(_reflector_shape, optics)),
            "mirror_area": np.array([each.mirror_area_m2 for each in optics]),
            "n_mirrors": np.array([each.n_mirrors for each in optics]),
            "n_mirror_tiles": np.full(len(optics), -1),
            "equivalent_focal_length": np.array([each.focal_length_m for each in optics]),
            "effective_focal_length": np.array(
                [math.nan if (f := each.effective_focal_length_m) is None else f for each in optics]
            ),
        },
        units={
            "mirror_area": "m**2",
            "equivalent_focal_length": "m",
            "effective_focal_length": "m",
        },
        attrs={**about, "TAB_TYPE": "optics", "TAB_VER": "4.0"},
    )
    for index, camera in enumerate(layout.cameras):
        _write_camera(file, index, camera)


def _write_camera(file: CtapipeFile, index: int, camera: CameraDescription) -> None:
    geometry, readout = camera.geometry, camera.readout
    file.write(
        f"{INSTRUMENT_CAMERA}/geometry_{index}",
        {
            "pix_id": np.arange(geometry.n_pixels),
            "pix_x": geometry.pix_x,
            "pix_y": geometry.pix_y,
            "pix_area": geometry.pix_area,
        },
        units={"pix_x": "m", "pix_y": "m", "pix_area": "m**2"},
        attrs={
            "TAB_TYPE": "ctapipe.instrument.CameraGeometry",
            "TAB_VER": "2.0",
            "PIX_TYPE": geometry.shape,
            "CAM_ID": camera.name,
            "PIX_ROT": 0.0,  # positions are derotated
            "CAM_ROT": 0.0,
        },
    )
    pulse = readout.reference_pulse
    step = readout.reference_pulse_step_ns
    file.write(
        f"{INSTRUMENT_CAMERA}/readout_{index}",
        {
            **{f"reference_pulse_shape_channel{gain}": row for gain, row in enumerate(pulse)},
            "reference_pulse_sample_time": step * np.arange(pulse.shape[1]),
        },
        units={"reference_pulse_sample_time": "ns"},
        attrs={
            "TAB_TYPE": "ctapipe.instrument.CameraReadout",
            "TAB_VER": "3.0",
            "CAM_ID": camera.name,
            "NCHAN": readout.n_gains,
            "NPIXELS": geometry.n_pixels,
            "NSAMPLES": readout.n_samples,
            "SAMPFREQ": float(readout.sampling_rate_ghz),
            "REFWIDTH": float(step),
        },
    )


def _text(values: Any) -> NDArray[np.bytes_]:
    return np.array([value.encode() for value in values])


def _size_type(optics: Optics) -> str:
    """Return ctapipe's size of a telescope by the area of its mirror."""
    if not optics.mirror_area_m2 > 0:
        return "UNKNOWN"
    small, medium = optics.mirror_area_m2 < SST_AREA_M2, optics.mirror_area_m2 < MST_AREA_M2
    return "SST" if small else "MST" if medium else "LST"


def _reflector_shape(optics: Optics) -> str:
    return "SCHWARZSCHILD_COUDER" if optics.n_mirrors == 2 else "UNKNOWN"


def _reference_position(layout: ArrayLayout) -> dict[str, float]:
    """Return the geocentric position of the array, m.

    An unknown place becomes latitude and longitude 0, as in ctapipe: the height is what counts.
    """
    import erfa

    known = math.isfinite(layout.latitude_deg) and math.isfinite(layout.longitude_deg)
    latitude, longitude = (layout.latitude_deg, layout.longitude_deg) if known else (0.0, 0.0)
    height = layout.altitude_m if math.isfinite(layout.altitude_m) else 0.0
    x, y, z = erfa.gd2gc(1, math.radians(longitude), math.radians(latitude), height)  # 1: WGS84
    return {
        "reference_itrs_x": float(x),
        "reference_itrs_y": float(y),
        "reference_itrs_z": float(z),
    }
