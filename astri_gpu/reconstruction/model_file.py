"""Files of models: skops, which holds no code, with a description that is read by itself.

A file is a zip archive of skops with one more member, `DESCRIPTION`, in JSON: what was trained on,
with which options and versions, features, scores and importances. Only the types in `TRUSTED` are
built when a file is loaded.
"""

import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.errors import AstriError
from astri_gpu.output_file import whole_file
from astri_gpu.reconstruction.feature_lists import VARIANTS, check_lists
from astri_gpu.reconstruction.models import (
    ARRAY_TASKS,
    IMAGE_TASKS,
    CameraModels,
    ModelSet,
    SpreadCalibration,
    TaskModel,
)
from astri_gpu.reconstruction.tree_check import check_trees
from astri_gpu.store_disk import json_ready

if TYPE_CHECKING:
    from astri_gpu.store import Store

__all__ = [
    "DESCRIPTION",
    "FORMAT",
    "check_store",
    "describe_models",
    "load_models",
    "save_models",
    "write_models",
]

logger = logging.getLogger(__name__)

FORMAT = 1
DESCRIPTION = "astri_gpu.json"
LARGEST_DESCRIPTION = 64 * 1024**2
"""Bytes; a file says itself how long its members are."""
TRUSTED = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""Types besides those that skops trusts itself; `check_trees` looks at what they hold."""
PICKLES = (b"\x80", b"\x1f\x8b", b"\x78", b"BZ", b"\xfd7zXZ", b"\x04\x22\x4d\x18", b"(", b"c")
"""How pickles begin, and what joblib packs them into."""
_AGAIN = "make it again with `astri-gpu train`"


def save_models(path: str | Path, models: ModelSet, *, overwrite: bool = False) -> None:
    """Write models into one file, which appears whole or not at all.

    Parameters
    ----------
    path
        The file, by custom with the ending .skops.
    models
        What `train` made.
    overwrite
        Replace a file that is there.

    Raises
    ------
    UsageError
        When `path` exists and may not be replaced.
    AstriError
        When it cannot be written.
    """
    with whole_file(path, overwrite=overwrite) as unfinished:
        write_models(unfinished, models)


def write_models(path: Path, models: ModelSet) -> None:
    """Write models into a new file; see `save_models`, which cannot leave half of one."""
    import skops.io

    with path.open("wb") as stream:
        skops.io.dump(_plain(models), stream, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(DESCRIPTION, json.dumps(_description(models), indent=1))


def describe_models(path: str | Path) -> dict[str, Any]:
    """Return what a file of models says about itself; forests are not loaded.

    Returns
    -------
    The `meta` of the models with `format`, `cameras` (features by camera, variant and task),
    `array` (features of events by task), `filter`, `disp`, `quality_energy` and `quality_error`.

    Raises
    ------
    AstriError
        When the file cannot be read, is none of ours, or of another version.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(6)
        if not start.startswith(b"PK"):
            raise AstriError(_refusal(path, start))
        with zipfile.ZipFile(path) as archive:
            if DESCRIPTION not in archive.namelist():
                raise AstriError(
                    f"{path} is no file of models of this package (it has no {DESCRIPTION}): give "
                    "one that `astri-gpu train` wrote."
                )
            if archive.getinfo(DESCRIPTION).file_size > LARGEST_DESCRIPTION:
                raise AstriError(f"{path} has a description of an impossible size: {_AGAIN}.")
            found = json.loads(archive.read(DESCRIPTION))
    except FileNotFoundError as error:
        raise AstriError(f"There is no file of models {path}: check the name.") from error
    except OSError as error:
        raise AstriError(
            f"The file of models {path} cannot be read ({error.strerror or error})."
        ) from error
    except AstriError:
        raise
    except Exception as error:  # damaged bytes make the readers raise whatever they like
        raise AstriError(
            f"The file of models {path} is damaged or cut off ({error}): {_AGAIN}."
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        version = found.get("format") if isinstance(found, dict) else None
        raise AstriError(
            f"The file of models {path} has format {version}, this package reads format {FORMAT}: "
            f"{_AGAIN}."
        )
    return found


def load_models(path: str | Path) -> ModelSet:
    """Return the models of a file.

    Raises
    ------
    AstriError
        When the file cannot be read, is a pickle, damaged or cut off, holds anything but forests,
        or comes from another major version of scikit-learn.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    path = Path(path)
    description = describe_models(path)
    _check_versions(path, description)
    try:
        plain = skops.io.load(path, trusted=list(TRUSTED))
        return _from_plain(plain, description)
    except MemoryError:
        raise
    except UntrustedTypesFoundException as error:
        told = str(error).splitlines()[0]  # what follows is advice to trust them
        raise AstriError(
            f"The file of models {path} holds what is no part of a forest, so it is not loaded: "
            f"{told} {_AGAIN[0].upper()}{_AGAIN[1:]}."
        ) from error
    except Exception as error:  # damaged bytes make the readers raise whatever they like
        written = description["versions"]["scikit-learn"]
        raise AstriError(
            f"The file of models {path} cannot be loaded ({' '.join(str(error).split())}): it is "
            f"damaged, or this scikit-learn does not read what version {written} wrote; {_AGAIN}."
        ) from error


def check_store(models: ModelSet, store: "Store") -> None:
    """Refuse a store that the models cannot be applied to.

    Raises
    ------
    AstriError
        When there are no models for one of its cameras, or it lacks a column that features or the
        filter ask for.
    """
    for camera in store.cameras("dl1"):
        if camera not in models.cameras:
            raise AstriError(
                f"The models are for images of {', '.join(sorted(models.cameras))}, and the store "
                f"{store.path} has images of {camera}: train models with such images."
            )
    cameras = {camera: _features(models.cameras[camera]) for camera in store.cameras("dl1")}
    check_lists(store, cameras, _task_features(models.array), models.filter)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("astri_gpu", "scikit-learn", "numpy", "skops")
    return {name: version(name) for name in names}


def _description(models: ModelSet) -> dict[str, Any]:
    found: dict[str, Any] = json_ready(
        {
            **models.meta,
            "format": FORMAT,
            "versions": _versions(),
            "cameras": {name: _features(camera) for name, camera in models.cameras.items()},
            "array": _task_features(models.array),
            "filter": models.filter,
            "disp": models.disp,
            "quality_energy": models.quality_energy.tolist(),
            "quality_error": models.quality_error.tolist(),
        }
    )
    return found


def _task_features(models: Mapping[str, TaskModel]) -> dict[str, tuple[str, ...]]:
    return {task: model.features for task, model in models.items()}


def _features(camera: CameraModels) -> dict[str, dict[str, tuple[str, ...]]]:
    return {variant: _task_features(getattr(camera, variant)) for variant in VARIANTS}


def _plain(models: ModelSet) -> dict[str, Any]:
    """Return the models as dictionaries of arrays and estimators."""

    def tasks(found: Mapping[str, TaskModel]) -> dict[str, Any]:
        return {
            task: {
                "features": list(model.features),
                "estimator": model.estimator,
                "calibration": None if model.calibration is None else asdict(model.calibration),
                "importances": {name: float(lost) for name, lost in model.importances.items()},
            }
            for task, model in found.items()
        }

    return {
        "cameras": {
            name: {variant: tasks(getattr(camera, variant)) for variant in VARIANTS}
            for name, camera in models.cameras.items()
        },
        "array": tasks(models.array),
        "filter": models.filter,
        "disp": models.disp,
        "quality_energy": np.asarray(models.quality_energy, dtype=np.float64),
        "quality_error": np.asarray(models.quality_error, dtype=np.float64),
    }


def _from_plain(plain: Mapping[str, Any], meta: dict[str, Any]) -> ModelSet:
    def tasks(found: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, TaskModel]:
        models = {}
        for task, item in found.items():
            if task not in known:
                raise ValueError(f"there is no task {task}")
            calibration = item["calibration"]
            check_trees(item["estimator"], len(item["features"]))
            models[task] = TaskModel(
                task=task,
                features=tuple(item["features"]),
                estimator=item["estimator"],
                calibration=None if calibration is None else SpreadCalibration(**calibration),
                importances=dict(item["importances"]),
            )
        return models

    return ModelSet(
        cameras={
            name: CameraModels(
                **{variant: tasks(camera[variant], IMAGE_TASKS) for variant in VARIANTS}
            )
            for name, camera in plain["cameras"].items()
        },
        array=tasks(plain["array"], ARRAY_TASKS),
        filter=plain["filter"],
        disp=plain["disp"],
        quality_energy=np.asarray(plain["quality_energy"], dtype=np.float64),
        quality_error=np.asarray(plain["quality_error"], dtype=np.float64),
        meta=meta,
    )


def _refusal(path: Path, start: bytes) -> str:
    """Return why a file that is no archive is not read."""
    if not start:
        return f"The file of models {path} is empty: {_AGAIN}."
    if start.startswith(PICKLES):
        return (
            f"{path} is no file of models of this package; it looks like a pickle or a joblib "
            "file, which may run any program when it is loaded, so it is never opened: give a "
            "file that `astri-gpu train` wrote."
        )
    return f"{path} is no file of models: give one that `astri-gpu train` wrote."


def _check_versions(path: Path, description: Mapping[str, Any]) -> None:
    import sklearn

    written = str((description.get("versions") or {}).get("scikit-learn", ""))
    if written.split(".")[0] != sklearn.__version__.split(".")[0]:
        raise AstriError(
            f"The file of models {path} was written with scikit-learn {written or '(unknown)'}, "
            f"and {sklearn.__version__} is installed: install that version, or {_AGAIN}."
        )
    if written.split(".")[:2] != sklearn.__version__.split(".")[:2]:
        logger.warning(
            "%s was written with scikit-learn %s, and %s reads it: the forest kernel applies the "
            "trees either way, but they may not load.",
            path,
            written,
            sklearn.__version__,
        )
