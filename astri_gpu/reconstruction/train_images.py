"""LUT1: the forests of the images of one camera type, and what they say out of sample."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.reconstruction.calibrate import calibrate, contained, energy_score
from astri_gpu.reconstruction.feature_lists import VARIANTS, image_lists
from astri_gpu.reconstruction.growing import Grower, Grown, auc
from astri_gpu.reconstruction.levelling import Axis, cell_numbers, levelled
from astri_gpu.reconstruction.models import CameraModels, TaskModel
from astri_gpu.reconstruction.predict import FeatureTable, ImagePredictor, total_spread
from astri_gpu.reconstruction.samples import ClassSample
from astri_gpu.reconstruction.training_rows import (
    Rows,
    balanced,
    check_folds,
    displacement,
    finite_rows,
)

if TYPE_CHECKING:
    from astri_gpu.backend import Backend
    from astri_gpu.config_reconstruction import TrainConfig

__all__ = ["CameraTraining", "TrainedCamera", "n_image_forests"]

Columns = dict[str, NDArray[Any]]

FEWEST_ASKED = 500
"""Images that a calibration of their own is worth."""


@dataclass(frozen=True)
class TrainedCamera:
    """Models of a camera, predictions of its images out of sample, and scores by variant."""

    models: CameraModels
    gamma: Columns  # what `ImagePredictor` returns, for every image of the class
    other: Columns
    scores: dict[str, dict[str, Any]]


def n_image_forests(config: "TrainConfig", has_stereo: bool) -> int:
    """Return how many forests one camera has, without those of folds."""
    variants = VARIANTS if has_stereo else VARIANTS[:1]
    return sum(len(image_lists(config.features, name, config.forest.disp)) for name in variants)


class CameraTraining:
    """Trains the forests of one camera type.

    Parameters
    ----------
    camera
        Its name.
    gamma, other
        The two classes.
    config
        All options.
    axes
        Of the levelling.
    grower
        Fits forests.
    backend
        What predicts.

    Raises
    ------
    AstriError
        When one of the classes has no images of this camera.
    """

    def __init__(
        self,
        camera: str,
        gamma: ClassSample,
        other: ClassSample,
        config: "TrainConfig",
        axes: tuple[Axis, ...],
        grower: Grower,
        backend: "Backend",
    ) -> None:
        self._camera, self._config, self._axes = camera, config, axes
        self._samples = (gamma, other)
        self._grower, self._backend = grower, backend
        for sample in self._samples:
            if not len(sample.images.get(camera, {}).get("event", ())):
                raise AstriError(
                    f"The {sample.label} sample has no images of {camera} that pass "
                    "features.filter, and the other one has: both classes are needed."
                )
        self._columns = tuple(sample.images[camera] for sample in self._samples)
        # log10 energies for the gamma/hadron forests, as the image or the stereo forest gives them.
        self._energy = {
            name: [np.full(len(columns["event"]), np.nan) for columns in self._columns]
            for name in VARIANTS
        }
        self.scores: dict[str, dict[str, Any]] = {}

    def run(self, has_stereo: bool) -> TrainedCamera:
        """Return the trained forests.

        Parameters
        ----------
        has_stereo
            Whether the samples have enough events with geometry for forests of their own.
        """
        lists = {
            name: image_lists(self._config.features, name, self._config.forest.disp)
            for name in VARIANTS
        }
        if not (has_stereo and self._has_geometry()):
            lists["stereo"] = {}
        grown: dict[str, dict[str, Grown]] = {name: {} for name in VARIANTS}
        rows = {name: self._classes(name, tasks) for name, tasks in lists.items() if tasks}
        # Energies of both variants come first: what is classified has one of them as a feature.
        for name, classes in rows.items():
            grown[name] |= self._regressions(name, lists[name], classes, lists["stereo"].keys())
        for name, classes in rows.items():
            if "gammaness" in lists[name]:
                grown[name]["gammaness"] = self._train_gammaness(
                    name, lists[name]["gammaness"], classes, "gammaness" in lists["stereo"]
                )
        gamma, other = (
            self._out_of_sample(k, _folded(grown, k == 0, self._grower.n_folds)) for k in range(2)
        )
        return TrainedCamera(_camera_models(grown, None), gamma, other, self.scores)

    def _has_geometry(self) -> bool:
        """Return whether images of this camera have geometry in every fold of both classes."""
        for sample, columns in zip(self._samples, self._columns, strict=True):
            event = columns["event"][columns["stereo_is_valid"].astype(bool)]
            if len(np.unique(sample.fold[event])) < self._grower.n_folds:
                return False
        return True

    def _regressions(
        self,
        variant: str,
        lists: dict[str, tuple[str, ...]],
        classes: tuple[Rows, Rows],
        stereo: Collection[str],
    ) -> dict[str, Grown]:
        """Train the forests that only gammas are shown to."""
        grown: dict[str, Grown] = {}
        asked = {task: self._asked(0, variant, classes[0].index, task in stereo) for task in lists}
        if "energy" in lists:
            grown["energy"] = self._train_energy(variant, lists["energy"], classes, asked["energy"])
        if "disp" in lists:
            grown["disp"] = self._train_disp(variant, lists["disp"], classes[0], asked["disp"])
        if "sign" in lists:
            grown["sign"] = self._train_sign(variant, lists["sign"], classes[0])
        return grown

    def _asked(
        self, k: int, variant: str, index: NDArray[np.int64], has_stereo: bool
    ) -> NDArray[np.bool_]:
        """Return the images of class `k` that a forest will be asked about: errors are theirs."""
        mono = ~self._columns[k]["stereo_is_valid"][index].astype(bool)
        if variant == "stereo" or not has_stereo or np.count_nonzero(mono) < FEWEST_ASKED:
            return np.ones(len(index), dtype=bool)
        return mono

    def _classes(self, variant: str, lists: dict[str, tuple[str, ...]]) -> tuple[Rows, Rows]:
        gamma, other = (self._rows(k, variant, lists) for k in range(2))
        self.scores[variant] = {"images": {"gamma": len(gamma.index), "other": len(other.index)}}
        return gamma, other

    def _rows(self, k: int, variant: str, lists: dict[str, tuple[str, ...]]) -> Rows:
        """Return the images of class `k` whose features are finite."""
        sample, columns = self._samples[k], self._columns[k]
        index = np.arange(len(columns["event"]))
        if variant == "stereo":
            index = np.flatnonzero(columns["stereo_is_valid"])
        what = f"{sample.label} images of {self._camera}"
        if variant == "stereo":
            what += " with geometry"
        index = finite_rows(columns, index, lists, what)
        event = columns["event"][index]
        table = FeatureTable({name: values[index] for name, values in columns.items()})
        fold = sample.fold[event]
        check_folds(fold, self._grower.n_folds, what)
        return Rows(index, table, fold, sample.weight[event])

    def _train_energy(
        self,
        variant: str,
        texts: tuple[str, ...],
        classes: tuple[Rows, Rows],
        asked: NDArray[np.bool_],
    ) -> Grown:
        gamma, other = classes
        sample = self._samples[0]
        event = self._columns[0]["event"][gamma.index]
        true = np.log10(sample.events["true_energy"][event].astype(np.float64))
        rows = gamma.matrix(texts)
        grown = self._grower.grow("energy", texts, rows, true, gamma.weight, gamma.fold)
        mean = grown.mean[:, 0]
        error = np.abs(mean - true)
        self._energy[variant][0][gamma.index] = mean
        self._energy[variant][1][other.index] = self._grower.predict(
            grown.model, other.matrix(texts)
        )[:, 0]
        self.scores[variant]["energy"] = energy_score(mean, true)
        return grown.calibrated(calibrate(total_spread(grown.spread)[asked], error[asked]))

    def _train_disp(
        self, variant: str, texts: tuple[str, ...], gamma: Rows, asked: NDArray[np.bool_]
    ) -> Grown:
        along, across = displacement(self._columns[0], gamma.index)
        components = self._config.forest.disp == "components"
        target = np.stack([along, across], axis=1) if components else np.hypot(along, across)
        rows = gamma.matrix(texts)
        grown = self._grower.grow("disp", texts, rows, target, gamma.weight, gamma.fold)
        if components:
            error = np.hypot(*(grown.mean - target).T)
        else:
            # The point on the axis that is nearer to the source: `sign` says which one it is.
            error = np.hypot(np.abs(along) - np.maximum(grown.mean[:, 0], 0.0), across)
        self.scores[variant]["disp"] = {"error_deg": contained(error)}
        return grown.calibrated(calibrate(total_spread(grown.spread)[asked], error[asked]))

    def _train_sign(self, variant: str, texts: tuple[str, ...], gamma: Rows) -> Grown:
        along, _ = displacement(self._columns[0], gamma.index)
        is_plus = along > 0
        grown = self._grower.grow(
            "sign", texts, gamma.matrix(texts), is_plus, gamma.weight, gamma.fold, classifier=True
        )
        score = grown.mean[:, 0]
        right = float(np.mean((score > 0.5) == is_plus))
        self.scores[variant]["sign"] = {"auc": auc(is_plus, score), "right": right}
        return grown

    def _train_gammaness(
        self, variant: str, texts: tuple[str, ...], classes: tuple[Rows, Rows], has_stereo: bool
    ) -> Grown:
        for k, rows in enumerate(classes):
            rows.table["tel_log_energy"] = self._energies(k, variant, has_stereo)[rows.index]
        used = self._levelled(classes)
        weight = balanced(classes[0].weight, classes[1].weight, used)
        asked = [self._asked(k, variant, part.index, has_stereo) for k, part in enumerate(classes)]
        is_gamma = [np.full(len(part.index), k == 0) for k, part in enumerate(classes)]
        target, fold = np.concatenate(is_gamma), np.concatenate([part.fold for part in classes])
        grown = self._grower.grow(
            "gammaness",
            texts,
            np.concatenate([part.matrix(texts) for part in classes]),
            target,
            weight,
            fold,
            classifier=True,
            trained_on=np.concatenate(used),
        )
        score = grown.mean[:, 0]
        self.scores[variant]["gammaness"] = {"auc": auc(target, score, weight)}
        if self._axes:
            self.scores[variant]["gammaness"]["levelled"] = int(used[0].sum())
        error, chosen = np.abs(score - target), np.concatenate(asked)
        spread = total_spread(grown.spread)
        return grown.calibrated(calibrate(spread[chosen], error[chosen], rms=True))

    def _levelled(self, classes: tuple[Rows, Rows]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which images of each class are trained on."""
        if not self._axes:
            return tuple(np.ones(len(rows.index), dtype=bool) for rows in classes)  # type: ignore[return-value]
        cells = []
        for k, rows in enumerate(classes):
            names = {name for axis in self._axes for name in axis.expression.names}
            part = {name: self._columns[k][name][rows.index] for name in names}
            cells.append(cell_numbers(self._axes, part))
        rng = np.random.default_rng(self._config.forest.random_state)
        used = levelled(cells[0], cells[1], rng)
        left = int(used[0].sum())
        folds = [set(rows.fold[mask].tolist()) for rows, mask in zip(classes, used, strict=True)]
        if any(len(found) < self._grower.n_folds for found in folds):
            raise AstriError(
                f"sample.levelling leaves {left} images of each class of {self._camera} (of "
                f"{len(used[0])} gamma and {len(used[1])} other ones), too few for sample.n_folds="
                f"{self._grower.n_folds}: use wider bins, or give more events."
            )
        return used

    def _energies(self, k: int, variant: str, has_stereo: bool) -> NDArray[np.float64]:
        """Return the energies that the images of class `k` have when they are classified.

        Where images with geometry have a gamma/hadron forest of their own, the other one is only
        asked about images that have their energy from the image forest.
        """
        image, stereo = self._energy["image"][k], self._energy["stereo"][k]
        if variant == "image" and has_stereo:
            return image
        return np.where(np.isfinite(stereo), stereo, image)

    def _out_of_sample(self, k: int, folds: list[CameraModels]) -> Columns:
        """Return the predictions of all images of class `k` by forests that have not seen them."""
        columns = self._columns[k]
        fold = self._samples[k].fold[columns["event"]]
        found: Columns = {}
        for number, models in enumerate(folds):
            rows = np.flatnonzero(fold == number)
            predict = ImagePredictor(models, "", self._config.forest.disp, self._backend)
            part = predict({name: columns[name][rows] for name in predict.names})
            for name, values in part.items():
                whole = found.setdefault(name, np.zeros(len(fold), dtype=values.dtype))
                whole[rows] = values
        return found


def _camera_models(grown: dict[str, dict[str, Grown]], fold: int | None) -> CameraModels:
    def chosen(item: Grown) -> TaskModel:
        return item.model if fold is None else item.folds[fold]

    return CameraModels(
        **{
            variant: {task: chosen(item) for task, item in tasks.items()}
            for variant, tasks in grown.items()
        }
    )


def _folded(grown: dict[str, dict[str, Grown]], is_gamma: bool, n_folds: int) -> list[CameraModels]:
    """Return the models that have not seen each fold of a class.

    Only gamma/hadron forests have seen the other particles.
    """
    found = []
    full = _camera_models(grown, None)
    for k in range(n_folds):
        models = _camera_models(grown, k)
        if not is_gamma:
            models = CameraModels(
                **{
                    variant: getattr(full, variant)
                    | {
                        task: model
                        for task, model in getattr(models, variant).items()
                        if task == "gammaness"
                    }
                    for variant in VARIANTS
                }
            )
        found.append(models)
    return found
