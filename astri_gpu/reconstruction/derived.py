"""Columns that no store holds, made from those that it holds: where images lie to their shower."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.coordinates import altaz_to_telescope
from astri_gpu.kernels.stereo import impact_distance

__all__ = ["EVENT_DERIVED", "IMAGE_DERIVED", "Columns", "Derived", "derive_events", "derive_images"]

Columns = dict[str, NDArray[Any]]

SHOWER = 32  # event type of CTAO

_POINTING = ("pointing_alt", "pointing_az")
_CENTROID = ("hillas_fov_lon", "hillas_fov_lat")
_STEREO = ("stereo_alt", "stereo_az", "stereo_is_valid")
_SOURCE = ("true_alt", "true_az")


@dataclass(frozen=True)
class Derived:
    """What a derived column is made from."""

    events: tuple[str, ...]  # columns of events
    images: tuple[str, ...] = ()  # columns of images; none = the column is that of the event
    text: str = ""


EVENT_DERIVED = {
    "shower": Derived(("event_type",), text="True = no calibration event"),
    "stereo_core_distance": Derived(
        (*_STEREO, "stereo_core_x", "stereo_core_y"),
        text="Distance of the reconstructed axis from the centre of the array, m",
    ),
    **dict.fromkeys(
        ("source_fov_lon", "source_fov_lat"),
        Derived((*_SOURCE, "array_alt", "array_az"), text="True source, array pointing, deg"),
    ),
}
"""Derived columns of events."""

IMAGE_DERIVED = {
    "shower": EVENT_DERIVED["shower"],
    "stereo_core_distance": EVENT_DERIVED["stereo_core_distance"],
    **dict.fromkeys(
        ("source_fov_lon", "source_fov_lat"),
        Derived(_SOURCE, _POINTING, "True source in the telescope frame of the image, deg"),
    ),
    "stereo_disp": Derived(
        _STEREO, (*_POINTING, *_CENTROID), "Distance of centroid and stereo direction, deg"
    ),
    "stereo_disp_along": Derived(
        _STEREO,
        (*_POINTING, *_CENTROID, "hillas_psi"),
        "Stereo direction from the centroid, along the axis (cos psi, sin psi), deg",
    ),
    "stereo_miss": Derived(
        _STEREO,
        (*_POINTING, *_CENTROID, "hillas_psi"),
        "Stereo direction from the centroid, across the axis: along (-sin psi, cos psi), deg",
    ),
}
"""Derived columns of images."""


def derive_events(wanted: Collection[str], events: Columns, centre: NDArray[np.float64]) -> Columns:
    """Return derived columns of events, one value per event.

    Parameters
    ----------
    wanted
        Which of `EVENT_DERIVED`.
    events
        (event,) columns that they are made from.
    centre
        x, y, z of the centre of the array, m.
    """
    made: Columns = {}
    if "shower" in wanted:
        made["shower"] = events["event_type"] == SHOWER
    if "stereo_core_distance" in wanted:
        names = ("stereo_core_x", "stereo_core_y", "stereo_alt", "stereo_az")
        n_events = len(events["stereo_alt"])
        position = np.broadcast_to(centre[:, None, None], (3, n_events, 1))
        distance = impact_distance(*(events[name] for name in names), *position)[:, 0]
        made["stereo_core_distance"] = _where_valid(events["stereo_is_valid"], distance)
    if not made.keys() >= set(wanted):
        direction = (events["true_alt"], events["true_az"])
        lon, lat = altaz_to_telescope(*direction, events["array_alt"], events["array_az"])
        made |= {"source_fov_lon": lon.astype(np.float32), "source_fov_lat": lat.astype(np.float32)}
    return {name: made[name] for name in wanted}


def derive_images(
    wanted: Collection[str], images: Columns, events: Columns, event: NDArray[np.int64]
) -> Columns:
    """Return derived columns of images, float32 (image,).

    Parameters
    ----------
    wanted
        Which of `IMAGE_DERIVED`, those that are not in `EVENT_DERIVED` without columns of images.
    images
        (image,) columns that they are made from.
    events
        (event,) columns that they are made from.
    event
        (image,) row of `events` of each image.
    """
    made: Columns = {}

    def in_telescope(alt: str, az: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        pointing = (images["pointing_alt"], images["pointing_az"])
        return altaz_to_telescope(events[alt][event], events[az][event], *pointing)

    if "source_fov_lon" in wanted or "source_fov_lat" in wanted:
        lon, lat = in_telescope("true_alt", "true_az")
        made |= {"source_fov_lon": lon.astype(np.float32), "source_fov_lat": lat.astype(np.float32)}
    if any(name in wanted for name in ("stereo_disp", "stereo_disp_along", "stereo_miss")):
        lon, lat = in_telescope("stereo_alt", "stereo_az")
        # Near the centre of the field of view lengths of its plane do: 0.4 % at 5 deg.
        is_valid = events["stereo_is_valid"][event]
        d_lon = _where_valid(is_valid, lon - images["hillas_fov_lon"])
        d_lat = _where_valid(is_valid, lat - images["hillas_fov_lat"])
        if "stereo_disp" in wanted:
            made["stereo_disp"] = np.hypot(d_lon, d_lat)
        if "stereo_disp_along" in wanted or "stereo_miss" in wanted:
            psi = np.deg2rad(images["hillas_psi"])
            cos, sin = np.cos(psi), np.sin(psi)
            made["stereo_disp_along"] = d_lon * cos + d_lat * sin
            made["stereo_miss"] = d_lat * cos - d_lon * sin
    return {name: made[name] for name in wanted}


def _where_valid(is_valid: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[np.float32]:
    return np.where(is_valid, values, np.nan).astype(np.float32)
