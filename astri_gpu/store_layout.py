"""The groups `instrument/telescope` and `instrument/camera/<camera>` of a store."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout, CameraDescription, CameraGeometry, Optics, Readout
from astri_gpu.store import Store, StoreWriter

__all__ = ["read_layout", "write_layout"]


def write_layout(writer: StoreWriter, layout: ArrayLayout) -> None:
    """Write an array layout with its cameras into a store under construction.

    Raises
    ------
    AstriError
        When the disk is full.
    """
    for name in ("tel_id", "x", "y", "z", "camera_index"):
        writer.write("instrument/telescope", name, getattr(layout, name))
    cameras = layout.cameras
    writer.set_attrs(
        "instrument/telescope",
        {
            "cameras": [camera.name for camera in cameras],
            "optics_names": [cameras[index].optics.name for index in layout.camera_index],
        },
    )
    writer.set_attrs(
        "instrument",
        {
            "name": layout.name,
            "latitude_deg": layout.latitude_deg,
            "longitude_deg": layout.longitude_deg,
            "altitude_m": layout.altitude_m,
            "note": layout.note,
        },
    )
    for camera in cameras:
        _write_camera(writer, camera)


def _write_camera(writer: StoreWriter, camera: CameraDescription) -> None:
    path = f"instrument/camera/{camera.name}"
    for name in ("pix_x", "pix_y", "pix_z", "pix_area", "neighbours", "neighbours_diagonal"):
        writer.write(path, name, getattr(camera.geometry, name))
    writer.write(path, "module", camera.geometry.module)
    writer.write(path, "reference_pulse", camera.readout.reference_pulse)
    readout, optics = camera.readout, camera.optics
    writer.set_attrs(
        path,
        {
            "pixel_shape": camera.geometry.shape,
            "n_gains": readout.n_gains,
            "n_samples": readout.n_samples,
            "sampling_rate_ghz": readout.sampling_rate_ghz,
            "reference_pulse_step_ns": readout.reference_pulse_step_ns,
            "saturation_adc": readout.saturation_adc,
            "optics_name": optics.name,
            "focal_length_m": optics.focal_length_m,
            "effective_focal_length_m": optics.effective_focal_length_m,
            "mirror_area_m2": optics.mirror_area_m2,
            "n_mirrors": optics.n_mirrors,
        },
    )


def read_layout(store: Store) -> ArrayLayout:
    """Return the array layout of a store.

    Raises
    ------
    AstriError
        When the store has no instrument or a part of its description is missing.
    """
    telescopes = store.read_table("instrument/telescope", ["tel_id", "x", "y", "z", "camera_index"])
    attrs = store.group_attrs("instrument")
    names = store.group_attrs("instrument/telescope").get("cameras", [])
    try:
        return ArrayLayout(
            name=attrs["name"],
            tel_id=telescopes["tel_id"],
            x=telescopes["x"],
            y=telescopes["y"],
            z=telescopes["z"],
            camera_index=telescopes["camera_index"].astype(np.int32),
            cameras=tuple(_read_camera(store, name) for name in names),
            latitude_deg=_number(attrs, "latitude_deg"),
            longitude_deg=_number(attrs, "longitude_deg"),
            altitude_m=_number(attrs, "altitude_m"),
            note=attrs.get("note", ""),
        )
    except KeyError as error:
        raise AstriError(
            f"The description of the instrument in {store.path} lacks {error}: make it again."
        ) from error


def _number(attrs: Mapping[str, Any], name: str) -> float:
    value = attrs[name]
    return float("nan") if value is None else float(value)


def _read_camera(store: Store, name: str) -> CameraDescription:
    path = f"instrument/camera/{name}"
    columns = store.read_table(path)
    attrs = store.group_attrs(path)
    reference_pulse = columns.pop("reference_pulse")
    return CameraDescription(
        geometry=CameraGeometry(name=name, shape=attrs["pixel_shape"], **columns),
        readout=Readout(
            n_gains=attrs["n_gains"],
            n_samples=attrs["n_samples"],
            sampling_rate_ghz=attrs["sampling_rate_ghz"],
            reference_pulse=reference_pulse,
            reference_pulse_step_ns=attrs["reference_pulse_step_ns"],
            saturation_adc=attrs["saturation_adc"],
        ),
        optics=Optics(
            name=attrs["optics_name"],
            focal_length_m=attrs["focal_length_m"],
            effective_focal_length_m=attrs["effective_focal_length_m"],
            mirror_area_m2=attrs["mirror_area_m2"],
            n_mirrors=attrs["n_mirrors"],
        ),
    )
