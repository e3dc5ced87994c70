"""Which list of features belongs to which forest, and whether a store has what they ask for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from astri_gpu.reconstruction.catalogue import (
    COMBINED,
    PREDICTED,
    check_features,
    event_names,
    image_names,
)
from astri_gpu.reconstruction.expressions import parse
from astri_gpu.reconstruction.models import ARRAY_TASKS, IMAGE_TASKS

if TYPE_CHECKING:
    from astri_gpu.config_reconstruction import FeaturesConfig
    from astri_gpu.store import Store

__all__ = ["VARIANTS", "array_lists", "check_lists", "image_lists", "names_of"]

VARIANTS = ("image", "stereo")
Lists = dict[str, tuple[str, ...]]


def image_lists(features: "FeaturesConfig", variant: str, disp: str) -> Lists:
    """Return the features of each task of images; tasks with an empty list are left out.

    Parameters
    ----------
    features
        The options.
    variant
        "image", or "stereo" for images of events with stereo geometry.
    disp
        "norm_sign" or "components", which has no sign.
    """
    found = {}
    for task in IMAGE_TASKS:
        name = "disp" if task == "sign" else task
        texts: Sequence[str] = getattr(features, f"{variant}_{name}")
        if texts and not (task == "sign" and disp == "components"):
            found[task] = tuple(texts)
    return found


def array_lists(features: "FeaturesConfig") -> Lists:
    """Return the features of each task of events; tasks with an empty list are left out."""
    found = {}
    for task in ARRAY_TASKS:
        name = "direction" if task == "quality" else task
        if getattr(features, f"array_{name}"):
            found[task] = tuple(getattr(features, f"array_{name}"))
    return found


def check_lists(
    store: "Store",
    cameras: Mapping[str, Mapping[str, Lists]],
    array: Lists,
    filter: str,
) -> None:
    """Refuse a store that lacks columns which the features or the filter ask for.

    Parameters
    ----------
    store
        A DL2a store.
    cameras
        Features by camera, variant and task.
    array
        Features of events by task.
    filter
        Condition for images; "" = all.

    Raises
    ------
    UsageError
        When a feature may not be used, or does not exist.
    AstriError
        When this store lacks it.
    """
    for camera, variants in cameras.items():
        for variant, tasks in variants.items():
            for task, texts in tasks.items():
                known = image_names(store, camera, PREDICTED if task == "gammaness" else ())
                name = "disp" if task == "sign" else task
                check_features(texts, known, f"features.{variant}_{name}")
        if filter.strip():
            names = image_names(store, camera)
            check_features([filter], names, "features.filter", condition=True)
    known = event_names(store, COMBINED)
    for task, texts in array.items():
        name = "direction" if task == "quality" else task
        check_features(texts, known, f"features.array_{name}")


def names_of(lists: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the columns that features by task ask for."""
    return {name for texts in lists.values() for text in texts for name in parse(text).names}
