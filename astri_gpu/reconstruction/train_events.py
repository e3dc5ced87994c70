"""LUT2: the forests of events, trained on what the forests of images say out of sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.coordinates import altaz_to_telescope, angular_separation
from astri_gpu.reconstruction.calibrate import CONTAINMENT, contained, energy_score, quarters
from astri_gpu.reconstruction.combine import (
    IMAGE_COLUMNS,
    array_columns,
    merge_directions,
    sort_images,
)
from astri_gpu.reconstruction.feature_lists import array_lists
from astri_gpu.reconstruction.growing import Grower, Grown, auc
from astri_gpu.reconstruction.models import TaskModel
from astri_gpu.reconstruction.predict import FeatureTable
from astri_gpu.reconstruction.samples import ClassSample
from astri_gpu.reconstruction.train_images import TrainedCamera
from astri_gpu.reconstruction.training_rows import Rows, balanced, check_folds, finite_rows

if TYPE_CHECKING:
    from astri_gpu.config_reconstruction import TrainConfig

__all__ = ["EventTraining", "TrainedEvents", "combined"]

Columns = dict[str, NDArray[Any]]

SMALLEST_ERROR = 1e-4
"""Of a direction (deg) and of log10(energy), below which logarithms of errors do not go."""


@dataclass(frozen=True)
class TrainedEvents:
    """Models of events by task, quarters by expected error, and scores."""

    models: dict[str, TaskModel]
    quality_energy: NDArray[np.float64]
    quality_error: NDArray[np.float64]
    scores: dict[str, Any]


def combined(sample: ClassSample, predictions: dict[str, Columns]) -> Columns:
    """Return the columns of the events of a class, those of `array_columns` among them.

    Parameters
    ----------
    sample
        The class.
    predictions
        What is predicted of its images out of sample, by camera.
    """
    parts = []
    for camera, found in predictions.items():
        rows = np.flatnonzero(found["tel_is_valid"])
        columns = sample.images[camera] | found
        parts.append({name: columns[name][rows] for name in IMAGE_COLUMNS})
    pointing = (sample.events["array_alt"], sample.events["array_az"])
    made = array_columns(sort_images(parts), sample.n_events, *pointing, sample.events)
    return sample.events | made


class EventTraining:
    """Trains the forests of events.

    Parameters
    ----------
    gamma, other
        The two classes.
    cameras
        What was trained for each camera.
    config
        All options.
    grower
        Fits forests.
    """

    def __init__(
        self,
        gamma: ClassSample,
        other: ClassSample,
        cameras: dict[str, TrainedCamera],
        config: "TrainConfig",
        grower: Grower,
    ) -> None:
        self._samples = (gamma, other)
        self._events = (
            combined(gamma, {name: item.gamma for name, item in cameras.items()}),
            combined(other, {name: item.other for name, item in cameras.items()}),
        )
        self._config, self._grower = config, grower
        events = self._events[0]
        pointing = (events["array_alt"], events["array_az"])
        self._source = altaz_to_telescope(events["true_alt"], events["true_az"], *pointing)
        self._log_energy = np.log10(events["true_energy"].astype(np.float64))
        self.scores: dict[str, Any] = {}

    def run(self, has_stereo: bool) -> TrainedEvents:
        """Return the trained forests; none without events that have geometry."""
        lists = array_lists(self._config.features) if has_stereo else {}
        gamma, other = (self._rows(k, lists) for k in range(2))
        events = self._events[0]
        grown: dict[str, Grown] = {}
        # What an event without forests has: means of its images.
        log_energy = events["mean_log_energy"].copy()
        direction_error = events["disp_error"].copy()
        if "energy" in lists:
            grown["energy"] = self._grow("energy", lists, gamma, self._log_energy[gamma.index])
            log_energy[gamma.index] = grown["energy"].mean[:, 0]
        scores = [events["mean_gammaness"].copy() for events in self._events]
        if "gammaness" in lists:
            grown["gammaness"] = self._train_gammaness(lists, gamma, other)
            found = grown["gammaness"].mean[:, 0]
            for score, rows in zip(scores, (gamma, other), strict=True):
                score[rows.index], found = np.split(found, [len(rows.index)])
        if "direction" in lists:
            grown["direction"], error = self._train_direction(lists, gamma)
            grown["quality"], expected = self._train_quality(
                lists, gamma, error, log_energy[gamma.index]
            )
            direction_error[gamma.index] = expected
        self._score_energies(log_energy, gamma)
        self._score_gammaness(scores, (gamma, other))
        known = np.isfinite(log_energy) & np.isfinite(direction_error)
        edges, limits = quarters(log_energy[known], direction_error[known])
        models = {task: item.model for task, item in grown.items()}
        return TrainedEvents(models, edges, limits, self.scores)

    def _rows(self, k: int, lists: dict[str, tuple[str, ...]]) -> Rows:
        """Return the events of class `k` that the forests will see."""
        sample, events = self._samples[k], self._events[k]
        index = np.flatnonzero(events["stereo_is_valid"] & (events["n_images"] > 0))
        if lists:
            what = f"{sample.label} events with geometry"
            index = finite_rows(events, index, lists, what)
            check_folds(sample.fold[index], self._grower.n_folds, what)
        table = FeatureTable({name: values[index] for name, values in events.items()})
        return Rows(index, table, sample.fold[index], sample.weight[index])

    def _grow(
        self, task: str, lists: dict[str, tuple[str, ...]], rows: Rows, target: NDArray[Any]
    ) -> Grown:
        """Return a regression."""
        matrix = rows.matrix(lists[task])
        return self._grower.grow(task, lists[task], matrix, target, rows.weight, rows.fold)

    def _train_gammaness(
        self, lists: dict[str, tuple[str, ...]], gamma: Rows, other: Rows
    ) -> Grown:
        texts, classes = lists["gammaness"], (gamma, other)
        target = np.concatenate([np.full(len(rows.index), rows is gamma) for rows in classes])
        weight = balanced(gamma.weight, other.weight)
        return self._grower.grow(
            "gammaness",
            texts,
            np.concatenate([rows.matrix(texts) for rows in classes]),
            target,
            weight,
            np.concatenate([gamma.fold, other.fold]),
            classifier=True,
        )

    def _train_direction(
        self, lists: dict[str, tuple[str, ...]], rows: Rows
    ) -> tuple[Grown, NDArray[np.float64]]:
        """Return the forest and the errors of the merged directions, deg."""
        part = {name: values[rows.index] for name, values in self._events[0].items()}
        source = tuple(axis[rows.index] for axis in self._source)
        errors = [
            angular_separation(part[f"{kind}_fov_lon"], part[f"{kind}_fov_lat"], *source)
            for kind in ("disp", "stereo")
        ]
        target = np.stack([_log(error) for error in errors], axis=1)
        grown = self._grow("direction", lists, rows, target)
        merged = merge_directions(part, grown.mean[:, 0], grown.mean[:, 1])
        error = angular_separation(*merged, *source)
        self.scores["direction"] = {
            "error_deg": contained(error),
            "error_of_disp_deg": contained(errors[0]),
            "error_of_geometry_deg": contained(errors[1]),
        }
        return grown, error

    def _train_quality(
        self,
        lists: dict[str, tuple[str, ...]],
        rows: Rows,
        direction_error: NDArray[np.float64],
        log_energy: NDArray[np.float64],
    ) -> tuple[Grown, NDArray[np.float64]]:
        """Return the forest and what it expects of the errors of the directions, deg.

        A forest that is fitted to logarithms of errors predicts about their median. The last fit,
        to all events, has targets that are shifted to where 68 % of the errors are below what the
        forests of the folds say.
        """
        energy_error = np.abs(log_energy - self._log_energy[rows.index])
        target = np.stack([_log(direction_error), _log(energy_error)], axis=1)
        texts, matrix = lists["quality"], rows.matrix(lists["quality"])
        grown = self._grower.grow(
            "quality",
            texts,
            matrix,
            target,
            rows.weight,
            rows.fold,
            shift=lambda mean: np.quantile(target - mean, CONTAINMENT, axis=0),
        )
        expected = 10.0**grown.mean
        found = np.stack([direction_error, energy_error], axis=1)
        inside = np.mean(found <= expected, axis=0)
        self.scores["quality"] = {
            "direction_inside": float(inside[0]),
            "energy_inside": float(inside[1]),
        }
        return grown, expected[:, 0]

    def _score_energies(self, log_energy: NDArray[np.float64], rows: Rows) -> None:
        """Note how good energies are: of all events, and of those with geometry."""
        known = np.isfinite(log_energy)
        self.scores["energy"] = {
            **energy_score(log_energy[rows.index], self._log_energy[rows.index]),
            "all_events": energy_score(log_energy[known], self._log_energy[known]),
        }

    def _score_gammaness(
        self, scores: Sequence[NDArray[np.float64]], classes: tuple[Rows, Rows]
    ) -> None:
        """Note how well classes are told apart: of events with geometry, and of all."""
        means = [events["mean_gammaness"] for events in self._events]
        chosen = [rows.index for rows in classes]
        known = [np.flatnonzero(np.isfinite(score)) for score in scores]
        self.scores["gammaness"] = {
            "auc": self._auc(scores, chosen),
            "auc_of_mean": self._auc(means, chosen),
            "all_events": self._auc(scores, known),
        }

    def _auc(
        self, scores: Sequence[NDArray[np.float64]], rows: Sequence[NDArray[np.int64]]
    ) -> float:
        """Return the area under the ROC curve for some of the events of both classes."""
        parts = [score[index] for score, index in zip(scores, rows, strict=True)]
        if not all(len(part) for part in parts):
            return float("nan")
        gamma, other = (item.weight[index] for item, index in zip(self._samples, rows, strict=True))
        target = np.concatenate([np.full(len(part), k == 0) for k, part in enumerate(parts)])
        return auc(target, np.concatenate(parts), balanced(gamma, other))


def _log(error: NDArray[Any]) -> NDArray[np.float64]:
    return np.log10(np.maximum(error, SMALLEST_ERROR))
