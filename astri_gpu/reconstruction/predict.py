"""Forests applied to the columns of images and events; training and `reconstruct` share this."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.disp import disp_vector
from astri_gpu.reconstruction.combine import merge_directions
from astri_gpu.reconstruction.expressions import Expression, parse
from astri_gpu.reconstruction.flatten import flatten
from astri_gpu.reconstruction.models import IMAGE_TASKS, CameraModels, ModelSet, TaskModel

if TYPE_CHECKING:
    from astri_gpu.backend import Backend
    from astri_gpu.kernels.forest import ForestPrediction

__all__ = ["ArrayPredictor", "FeatureTable", "ImagePredictor", "event_quality", "total_spread"]

Columns = dict[str, NDArray[Any]]

SIGN_LIMIT = 1e-3
"""No forest has seen so many images that a side is out of the question."""
ERROR_LIMIT = 1e-4
"""Smallest expected error (of log10 E, of gammaness, deg): weights are 1/error^2."""


class FeatureTable:
    """Values of expressions for the same rows, each evaluated once.

    Parameters
    ----------
    columns
        Arrays (row,) by name.
    """

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        self._columns = dict(columns)
        self._values: dict[str, NDArray[Any]] = {}

    def __setitem__(self, name: str, values: NDArray[Any]) -> None:
        """Add a column that was found meanwhile."""
        self._columns[name] = values

    def matrix(self, features: Iterable[Expression]) -> NDArray[np.float32]:
        """Return (row, feature) float32; not finite where an expression is not."""
        features = tuple(features)
        n_rows = len(next(iter(self._columns.values())))
        found = np.empty((n_rows, len(features)), dtype=np.float32)
        for k, feature in enumerate(features):
            if feature.text not in self._values:
                with np.errstate(all="ignore"):  # what is not finite is not predicted
                    self._values[feature.text] = np.asarray(feature(self._columns), np.float32)
            found[:, k] = self._values[feature.text]
        return found


class _Task:
    """One ensemble, ready to be applied."""

    def __init__(self, model: TaskModel, backend: "Backend") -> None:
        self.features = tuple(parse(text) for text in model.features)
        self.names = {name for feature in self.features for name in feature.names}
        self._forest: Callable[[NDArray[np.float32]], ForestPrediction] = backend.forest(
            flatten(model.estimator)
        )
        self._calibration = model.calibration

    def __call__(self, table: FeatureTable) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """Return the predictions (row, output) and their expected errors (row,)."""
        found = self._forest(table.matrix(self.features))
        spread = total_spread(found.spread)
        error = spread if self._calibration is None else self._calibration(spread)
        return found.mean, np.maximum(error, ERROR_LIMIT)


def total_spread(spread: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the spread of the trees over all outputs, (row, output) -> (row,).

    It is what a `SpreadCalibration` takes: the root of the sum of squares.
    """
    return np.sqrt(np.sum(np.asarray(spread, np.float64) ** 2, axis=1))


class ImagePredictor:
    """The forests of one camera type, applied to its images (LUT1).

    Parameters
    ----------
    models
        Forests by task. A forest of `CameraModels.stereo` takes the images of events with stereo
        geometry, the one of the same task in `CameraModels.image` all others.
    filter
        Condition for images that have part; "" = all.
    disp
        "norm_sign" or "components" (see `ForestConfig.disp`).
    backend
        What computes.

    Attributes
    ----------
    names
        Columns that the images need.
    """

    def __init__(self, models: CameraModels, filter: str, disp: str, backend: "Backend") -> None:
        self._filter = parse(filter, condition=True) if filter.strip() else None
        self._components = disp == "components"
        self._image = {task: _Task(model, backend) for task, model in models.image.items()}
        self._stereo = self._image | {
            task: _Task(model, backend) for task, model in models.stereo.items()
        }
        self._has_stereo = bool(models.stereo)
        tasks = [*self._image.values(), *self._stereo.values()]
        self.names = {name for task in tasks for name in task.names} - {"tel_log_energy"}
        self.names |= {"hillas_psi"}
        if self._filter is not None:
            self.names |= set(self._filter.names)
        if self._has_stereo:
            self.names |= {"stereo_is_valid"}

    def __call__(self, columns: Mapping[str, NDArray[Any]]) -> Columns:
        """Return what the forests say about each image.

        Parameters
        ----------
        columns
            Arrays (image,) of all `names`.

        Returns
        -------
        Float64 arrays (image,), NaN where an image did not pass the filter or has features that are
        not finite: `tel_log_energy` (log10 TeV) and `tel_energy_error` of it; `tel_gammaness` and
        `tel_gammaness_error`; `disp_dlon`, `disp_dlat` (deg), the displacement if the source lies
        along +psi, its length `tel_disp`, the probability `tel_disp_sign` of that side (1 with
        components, whose displacement has a side) and `tel_disp_error` (deg); and `tel_is_valid`
        (bool). Tasks without a forest give no columns.
        """
        n_rows = len(columns["hillas_psi"])
        with np.errstate(all="ignore"):
            passed = np.ones(n_rows, dtype=bool) if self._filter is None else self._filter(columns)
        parts = [(passed, self._image)]
        if self._has_stereo:
            stereo = np.asarray(columns["stereo_is_valid"], dtype=bool)
            parts = [(passed & ~stereo, self._image), (passed & stereo, self._stereo)]
        found: Columns = {}
        valid = np.zeros(n_rows, dtype=bool)
        for mask, tasks in parts:
            rows = np.flatnonzero(mask)
            part = self._predict({name: columns[name][rows] for name in self.names}, tasks)
            good = np.all([np.isfinite(values) for values in part.values()], axis=0)
            rows = rows[good]
            valid[rows] = True
            for name, values in part.items():
                found.setdefault(name, np.full(n_rows, np.nan))[rows] = values[good]
        return found | {"tel_is_valid": valid}

    def _predict(self, columns: Columns, tasks: Mapping[str, _Task]) -> Columns:
        """Return the predictions for images that have all passed; NaN where a feature is."""
        table = FeatureTable(columns)
        found: Columns = {}
        results = {}
        for name in (name for name in IMAGE_TASKS if name in tasks):
            mean, error = results[name] = tasks[name](table)
            if name == "energy":
                table["tel_log_energy"] = mean[:, 0]
                found |= {"tel_log_energy": mean[:, 0], "tel_energy_error": error}
            elif name == "gammaness":
                found |= {"tel_gammaness": mean[:, 0], "tel_gammaness_error": error}
        if "disp" in results:
            found |= self._displacement(columns["hillas_psi"], *results["disp"])
            if "sign" in results:
                found["tel_disp_sign"] = np.clip(
                    results["sign"][0][:, 0], SIGN_LIMIT, 1 - SIGN_LIMIT
                )
        return found

    def _displacement(
        self, psi: NDArray[Any], mean: NDArray[np.float64], error: NDArray[np.float64]
    ) -> Columns:
        if self._components:
            along, across = mean[:, 0], mean[:, 1]
        else:
            along = np.maximum(mean[:, 0], 0.0)  # boosted trees may go below
            across = np.zeros_like(along)
        lon, lat = disp_vector(along, across, psi.astype(np.float64))
        return {
            "disp_dlon": lon,
            "disp_dlat": lat,
            "tel_disp": np.hypot(along, across),
            "tel_disp_sign": np.where(np.isfinite(along), 1.0, np.nan),
            "tel_disp_error": error,
        }


class ArrayPredictor:
    """The forests of events, applied to the combination of their images (LUT2).

    Parameters
    ----------
    array
        Forests by task, any of `ARRAY_TASKS`.
    backend
        What computes.

    Attributes
    ----------
    names
        Columns that the events need, those of `array_columns` among them.
    """

    def __init__(self, array: Mapping[str, TaskModel], backend: "Backend") -> None:
        self._tasks = {task: _Task(model, backend) for task, model in array.items()}
        self.names = {name for task in self._tasks.values() for name in task.names}

    def __call__(self, columns: Mapping[str, NDArray[Any]]) -> Columns:
        """Return energy, gammaness, direction and their expected errors of each event.

        Events with stereo geometry and images that take part are seen by the forests. All others,
        and tasks without a forest, take the means of the images, the direction from displacements,
        and their errors. What a forest cannot predict, because a feature is not finite, is NaN.

        Parameters
        ----------
        columns
            Arrays (event,) of all `names`, those of `array_columns`, and `stereo_is_valid`.

        Returns
        -------
        Float64 arrays (event,): `log_energy` (log10 TeV), `energy_error` of it, `gammaness`,
        `fov_lon`, `fov_lat` (deg, telescope frame of the array pointing) and `direction_error`
        (deg).
        """
        found = {
            "log_energy": columns["mean_log_energy"].astype(np.float64),
            "energy_error": columns["mean_energy_error"].astype(np.float64),
            "gammaness": columns["mean_gammaness"].astype(np.float64),
            "fov_lon": columns["disp_fov_lon"].astype(np.float64),
            "fov_lat": columns["disp_fov_lat"].astype(np.float64),
            "direction_error": columns["disp_error"].astype(np.float64),
        }
        rows = np.flatnonzero(columns["stereo_is_valid"] & (columns["n_images"] > 0))
        if not self._tasks or not len(rows):
            return found
        wanted = {*self.names, "disp_fov_lon", "disp_fov_lat", "stereo_fov_lon", "stereo_fov_lat"}
        part = {name: np.asarray(columns[name])[rows] for name in wanted}
        results = self._predict(FeatureTable(part))
        if "direction" in results:
            errors = results["direction"]
            found["fov_lon"][rows], found["fov_lat"][rows] = merge_directions(
                part, errors[:, 0], errors[:, 1]
            )
            # Until `quality` says more: that of the mean with weights 1/error^2.
            found["direction_error"][rows] = np.sum(10.0 ** (-2 * errors), axis=1) ** -0.5
        if "energy" in results:
            found["log_energy"][rows] = results["energy"][:, 0]
        if "gammaness" in results:
            found["gammaness"][rows] = results["gammaness"][:, 0]
        if "quality" in results:
            errors = 10.0 ** results["quality"]
            found["direction_error"][rows], found["energy_error"][rows] = errors.T
        return found

    def _predict(self, table: FeatureTable) -> Columns:
        return {name: task(table)[0] for name, task in self._tasks.items()}


def event_quality(
    log_energy: NDArray[np.float64], direction_error: NDArray[np.float64], models: ModelSet
) -> NDArray[np.int32]:
    """Return the quarter of each event by its expected direction error: 1 best to 4 worst.

    Parameters
    ----------
    log_energy
        (event,), log10 TeV
    direction_error
        (event,), deg
    models
        Whose `quality_energy` and `quality_error` divide the events; energies beyond the edges
        belong to the first or last bin.

    Returns
    -------
    (event,) int32, 0 where energy or error are not finite, or the models have no quarters.
    """
    n_bins = len(models.quality_error)
    finite = np.isfinite(log_energy) & np.isfinite(direction_error)
    if not n_bins:
        return np.zeros(len(log_energy), dtype=np.int32)
    with np.errstate(divide="ignore"):
        edges = np.log10(np.asarray(models.quality_energy, dtype=np.float64))
    place = np.searchsorted(edges[1:-1], np.where(finite, log_energy, 0.0), side="right")
    limits = np.asarray(models.quality_error, dtype=np.float64)[np.minimum(place, n_bins - 1)]
    quarter = 1 + np.sum(direction_error[:, None] > limits, axis=1)
    return np.where(finite, quarter, 0).astype(np.int32)
