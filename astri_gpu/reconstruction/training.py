"""From stores of simulated gammas and other particles to a `ModelSet`."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.errors import AstriError
from astri_gpu.progress import progress
from astri_gpu.reconstruction.catalogue import (
    COMBINED,
    PREDICTED,
    advice,
    check_features,
    image_names,
)
from astri_gpu.reconstruction.expressions import parse
from astri_gpu.reconstruction.feature_lists import (
    VARIANTS,
    array_lists,
    check_lists,
    image_lists,
    names_of,
)
from astri_gpu.reconstruction.growing import Grower, feature_share
from astri_gpu.reconstruction.levelling import Axis, parse_axes
from astri_gpu.reconstruction.models import CameraModels, ModelSet
from astri_gpu.reconstruction.samples import (
    ClassSample,
    Wanted,
    is_gamma,
    open_simulated,
    read_class,
)
from astri_gpu.reconstruction.train_events import EventTraining
from astri_gpu.reconstruction.train_images import CameraTraining, n_image_forests

if TYPE_CHECKING:
    from astri_gpu.backend import Backend
    from astri_gpu.config_reconstruction import TrainConfig
    from astri_gpu.store import Store

__all__ = ["open_classes", "train"]

logger = logging.getLogger(__name__)


def open_classes(paths: Sequence[Path]) -> "tuple[list[Store], list[Store]]":
    """Return the stores of gammas and those of other particles, in an order of their own.

    Raises
    ------
    AstriError
        When a store cannot be trained on, or one of the classes is missing.
    """
    stores = [open_simulated(path) for path in paths]
    stores.sort(key=lambda store: (str(store.attrs.get("kind")), store.path.name, str(store.path)))
    classes = (
        [store for store in stores if is_gamma(store)],
        [store for store in stores if not is_gamma(store)],
    )
    for found, missing, what in zip(classes, classes[::-1], ("gammas", "others"), strict=True):
        if not found:
            kinds = ", ".join(sorted({str(store.attrs.get("kind")) for store in missing}))
            wanted = "simulated gammas" if what == "gammas" else "particles that are no gammas"
            raise AstriError(
                f"The input holds one class only ({kinds}): give stores of {wanted} as well."
            )
    return classes


def train(paths: Sequence[Path], config: "TrainConfig", backend: "Backend") -> ModelSet:
    """Return models that are trained on all stores; `meta` says how, without what `run` knows.

    Parameters
    ----------
    paths
        DL2a stores, both classes among them.
    config
        All options.
    backend
        What predicts; its threads grow trees.

    Raises
    ------
    UsageError
        For features that cannot be used.
    AstriError
        When the stores lack something, or too few images are left.
    """
    axes = parse_axes(config.sample.levelling)
    feature_share(config.forest.max_features, 1)  # refused now, not after the reading
    stores = open_classes(paths)
    lists = {name: image_lists(config.features, name, config.forest.disp) for name in VARIANTS}
    array = array_lists(config.features)
    for store in (*stores[0], *stores[1]):
        check_lists(
            store, dict.fromkeys(store.cameras("dl1"), lists), array, config.features.filter
        )
        _check_axes(store, axes)
    used = {text for tasks in lists.values() for texts in tasks.values() for text in texts}
    for text in advice([parse(feature) for feature in sorted(used)]):
        logger.warning("%s", text)
    samples = _read(stores, lists, array, axes, config)
    cameras = sorted({*samples[0].images, *samples[1].images})
    has_stereo = _has_stereo(samples, config)
    n_fits = 1 + config.sample.n_folds
    total = len(cameras) * n_image_forests(config, has_stereo) + len(array) * has_stereo
    with progress(total * n_fits, "train", "forests", config.progress) as shown:
        grower = Grower(
            config.forest, config.sample.n_folds, config.sample.n_importance, backend, shown
        )
        trained = {
            camera: CameraTraining(camera, *samples, config, axes, grower, backend).run(has_stereo)
            for camera in cameras
        }
        events = EventTraining(*samples, trained, config, grower).run(has_stereo)
    models = ModelSet(
        cameras={camera: item.models for camera, item in trained.items()},
        array=events.models,
        filter=config.features.filter,
        disp=config.forest.disp,
        quality_energy=events.quality_energy,
        quality_error=events.quality_error,
    )
    models.meta.update(
        counts={sample.label: sample.counts for sample in samples},
        scores={
            "cameras": {camera: item.scores for camera, item in trained.items()},
            "events": events.scores,
        },
        importances=_importances(models),
        n_forests=grower.n_grown,
    )
    return models


def _check_axes(store: "Store", axes: Sequence[Axis]) -> None:
    """Refuse a levelling that asks for columns which are not there."""
    for camera in store.cameras("dl1"):
        names = image_names(store, camera)
        for axis in axes:
            check_features([axis.expression.text], names, "sample.levelling")


def _read(
    stores: "tuple[list[Store], list[Store]]",
    lists: dict[str, dict[str, tuple[str, ...]]],
    array: dict[str, tuple[str, ...]],
    axes: Sequence[Axis],
    config: "TrainConfig",
) -> tuple[ClassSample, ClassSample]:
    """Return both classes, and say what is left of them."""
    images = set().union(*(names_of(tasks) for tasks in lists.values())) - {*PREDICTED}
    images |= {name for axis in axes for name in axis.expression.names}
    wanted = Wanted(
        images=frozenset(images),
        events=frozenset(names_of(array) - {*COMBINED}),
        filter=config.features.filter,
    )
    seed = config.forest.random_state
    gamma, other = (
        read_class(label, found, wanted, config.sample, seed)
        for label, found in zip(("gamma", "other"), stores, strict=True)
    )
    for sample in (gamma, other):
        logger.info(
            "%s: %d images of %d events and %d showers are trained on; %d of %d did not pass "
            "features.filter, %d had no true energy or direction, %d were above sample.max_images",
            sample.label,
            sample.n_images,
            sample.n_events,
            sample.counts["showers"],
            sample.counts["filtered"],
            sample.counts["images_of_showers"],
            sample.counts["without_truth"],
            sample.counts["over_max_images"],
        )
    return gamma, other


def _has_stereo(samples: tuple[ClassSample, ClassSample], config: "TrainConfig") -> bool:
    """Return whether both classes have geometry in every fold, so that forests can use it."""
    for sample in samples:
        folds = np.unique(sample.fold[sample.events["stereo_is_valid"].astype(bool)])
        if len(folds) < config.sample.n_folds:
            logger.warning(
                "Too few %s events have stereo geometry for forests of their own: all images take "
                "the features of single images, and events the means of their images.",
                sample.label,
            )
            return False
    return True


def _importances(models: ModelSet) -> dict[str, Any]:
    """Return the importances by camera, variant and task, and those of events by task."""

    def by_variant(camera: CameraModels) -> dict[str, Any]:
        return {
            variant: {task: model.importances for task, model in getattr(camera, variant).items()}
            for variant in VARIANTS
        }

    return {
        "cameras": {name: by_variant(camera) for name, camera in models.cameras.items()},
        "events": {task: model.importances for task, model in models.array.items()},
    }
