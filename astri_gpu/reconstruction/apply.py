"""Models applied to blocks of events: the columns that `reconstruct` writes."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.coordinates import telescope_to_altaz
from astri_gpu.reconstruction.combine import (
    COMBINED,
    IMAGE_COLUMNS,
    array_columns,
    sort_images,
)
from astri_gpu.reconstruction.models import ModelSet
from astri_gpu.reconstruction.predict import ArrayPredictor, ImagePredictor, event_quality

if TYPE_CHECKING:
    from astri_gpu.backend import Backend
    from astri_gpu.reconstruction.blocks import EventBlock

__all__ = ["EVENT_COLUMNS", "TELESCOPE_COLUMNS", "Reconstructor"]

Columns = dict[str, NDArray[Any]]

TELESCOPE_COLUMNS = (
    "tel_energy",
    "tel_energy_uncert",
    "tel_gammaness",
    "tel_disp",
    "tel_disp_sign",
    "tel_disp_uncert",
    "tel_disp_fov_lon",
    "tel_disp_fov_lat",
    "tel_is_valid",
)
"""Columns of ``dl2/image`` that come from the forests."""
EVENT_COLUMNS = (
    "mean_energy",
    "mean_gammaness",
    "disp_alt",
    "disp_az",
    "reco_energy",
    "reco_energy_uncert",
    "gammaness",
    "reco_alt",
    "reco_az",
    "reco_fov_lon",
    "reco_fov_lat",
    "reco_direction_uncert",
    "reco_n_tels",
    "event_quality",
    "reco_is_valid",
)
"""Columns of ``dl2/event`` that come from the forests."""
_IMAGES = (
    "hillas_intensity",
    "hillas_fov_lon",
    "hillas_fov_lat",
    "hillas_psi",
    "pointing_alt",
    "pointing_az",
    "stereo_impact_distance",
)
_EVENTS = ("array_alt", "array_az", "stereo_alt", "stereo_az", "stereo_is_valid")


class Reconstructor:
    """A set of models, ready to be applied to blocks of events.

    Parameters
    ----------
    models
        What `train` made.
    backend
        What computes.
    """

    def __init__(self, models: ModelSet, backend: "Backend") -> None:
        self._models = models
        self._images = {
            name: ImagePredictor(camera, models.filter, models.disp, backend)
            for name, camera in models.cameras.items()
        }
        self._array = ArrayPredictor(models.array, backend)

    @property
    def event_names(self) -> set[str]:
        """Return the columns that events need."""
        return {*_EVENTS, *self._array.names} - set(COMBINED)

    def image_names(self, camera: str) -> set[str]:
        """Return the columns that images of a camera need."""
        return {*_IMAGES, *self._images[camera].names}

    def __call__(self, block: "EventBlock") -> tuple[Columns, dict[str, Columns]]:
        """Return the columns `EVENT_COLUMNS` of the events, and by camera those of its images.

        Images and events without prediction have NaN, 0 and False.
        """
        events, predicted = self.combine(block)
        images = {
            name: _telescope_columns(block.images[name], found) for name, found in predicted.items()
        }
        return self._event_columns(events), images

    def combine(self, block: "EventBlock") -> tuple[Columns, dict[str, Columns]]:
        """Return what the array forests see, and by camera what `ImagePredictor` says.

        The first are the columns of the events of the block with those of `array_columns`.
        """
        predicted = {name: self._images[name](rows) for name, rows in block.images.items()}
        parts = []
        for name, columns in block.images.items():
            found = columns | predicted[name]
            rows = np.flatnonzero(found["tel_is_valid"])
            parts.append({key: found[key][rows] for key in IMAGE_COLUMNS})
        pointing = (block.events["array_alt"], block.events["array_az"])
        n_events = block.stop - block.first
        found = array_columns(sort_images(parts), n_events, *pointing, block.events)
        return block.events | found, predicted

    def _event_columns(self, events: Mapping[str, NDArray[Any]]) -> Columns:
        found = self._array(events)
        with np.errstate(over="ignore"):
            energy = 10.0 ** found["log_energy"]
            mean_energy = 10.0 ** events["mean_log_energy"]
        alt, az = telescope_to_altaz(
            found["fov_lon"], found["fov_lat"], events["array_alt"], events["array_az"]
        )
        columns = {
            "mean_energy": mean_energy,
            "mean_gammaness": events["mean_gammaness"],
            "disp_alt": events["disp_alt"],
            "disp_az": events["disp_az"],
            "reco_energy": energy,
            "reco_energy_uncert": energy * math.log(10) * found["energy_error"],
            "gammaness": found["gammaness"],
            "reco_alt": alt,
            "reco_az": az,
            "reco_fov_lon": found["fov_lon"],
            "reco_fov_lat": found["fov_lat"],
            "reco_direction_uncert": found["direction_error"],
        }
        valid = np.all([np.isfinite(values) for values in columns.values()], axis=0)
        quality = event_quality(found["log_energy"], found["direction_error"], self._models)
        return columns | {
            "reco_n_tels": events["n_images"],
            "event_quality": np.where(valid, quality, 0),
            "reco_is_valid": valid,
        }


def _telescope_columns(images: Columns, found: Columns) -> Columns:
    """Return the columns `TELESCOPE_COLUMNS` of the images of one camera."""
    with np.errstate(over="ignore"):
        energy = 10.0 ** found["tel_log_energy"]
    # An image alone has no other to ask: its more probable side.
    side = np.where(found["tel_disp_sign"] >= 0.5, 1.0, -1.0)
    return {
        "tel_energy": energy,
        "tel_energy_uncert": energy * math.log(10) * found["tel_energy_error"],
        "tel_gammaness": found["tel_gammaness"],
        "tel_disp": found["tel_disp"],
        "tel_disp_sign": found["tel_disp_sign"],
        "tel_disp_uncert": found["tel_disp_error"],
        "tel_disp_fov_lon": images["hillas_fov_lon"] + side * found["disp_dlon"],
        "tel_disp_fov_lat": images["hillas_fov_lat"] + side * found["disp_dlat"],
        "tel_is_valid": found["tel_is_valid"],
    }
