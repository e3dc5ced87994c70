"""What `train` makes and `reconstruct` applies: LUT1 per image, LUT2 per event (A-SciSoft).

Order of use. For every image that passes `ModelSet.filter`: energy, displacement (and its sign),
then gammaness, which may use ``tel_log_energy``. Images of events with stereo geometry use the
stereo variant where there is one. Predictions of the images of an event are combined
(`astri_gpu.reconstruction.combine`), and the array forests see the combination: the errors of the
two directions, which weigh their mean, and energy, gammaness and the expected errors at last.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ARRAY_TASKS",
    "IMAGE_TASKS",
    "CameraModels",
    "ModelSet",
    "SpreadCalibration",
    "TaskModel",
]

IMAGE_TASKS = ("energy", "disp", "sign", "gammaness")
"""Forests of one camera type. energy: log10(TeV). disp: displacement from the centroid to the
source in the telescope frame, deg: its length (norm_sign), or the components along the oriented
axis and across it. sign: probability that the source lies along +psi (norm_sign only). gammaness:
probability of a gamma."""

ARRAY_TASKS = ("energy", "gammaness", "direction", "quality")
"""Forests of events with stereo geometry. energy and gammaness as above. direction: log10 of the
errors (deg) of the direction from displacements and of that from geometry. quality: log10 of the
error (deg) of the merged direction, log10 of the error of log10(energy)."""


@dataclass(frozen=True)
class SpreadCalibration:
    """Expected error of a prediction, by the spread of the trees that made it.

    `spread` rises, `error` is what was found out of sample (68 % of absolute errors) and does not
    fall. Between the points the error is interpolated, beyond them it is constant.
    """

    spread: NDArray[np.float64]
    error: NDArray[np.float64]

    def __call__(self, spread: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the expected error for each spread; NaN for NaN."""
        return np.interp(spread, self.spread, self.error)


@dataclass(frozen=True)
class TaskModel:
    """One ensemble of trees and what it looks at."""

    task: str
    features: tuple[str, ...]  # expressions, in the order of the columns of the ensemble
    estimator: Any  # of scikit-learn, fitted
    calibration: SpreadCalibration | None = None
    importances: dict[str, float] = field(default_factory=dict)  # feature -> loss of score


@dataclass(frozen=True)
class CameraModels:
    """Forests of the images of one camera type, by task; `stereo` may be empty."""

    image: dict[str, TaskModel]
    stereo: dict[str, TaskModel]


@dataclass(frozen=True)
class ModelSet:
    """Everything in one file of models.

    `quality_energy` (TeV, edges) and `quality_error` (bin, 3) (deg) divide events by expected
    direction error into quarters; `meta` says what was trained on (stores and checksums), with
    which options and versions, and how many images and events there were.
    """

    cameras: dict[str, CameraModels]
    array: dict[str, TaskModel]
    filter: str
    disp: str  # norm_sign or components
    quality_energy: NDArray[np.float64]
    quality_error: NDArray[np.float64]
    meta: dict[str, Any] = field(default_factory=dict)
