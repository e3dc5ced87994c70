"""`reconstruct` from store to store: stores of any length, and forests of full size."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cases import peak_memory_mib
from .timing import first_call

__all__ = ["make_models", "make_store", "reconstruct_case", "repeated"]

SHOWERS = ["view.scatter_radius_m=500", "spectrum.energy_min_tev=3", "n_uses=2"]
"""Every second shower has images."""
NUMBERS = ("event_index", "event_id", "shower_id")


def make_store(folder: Path, n_showers: int) -> Path:
    """Simulate and process gammas with draft showers; return the DL2a store."""
    from astri_gpu.config import compose
    from astri_gpu.stages import process, simulate

    raw, path = folder / "dl0.zarr", folder / "dl2.zarr"
    words = [f"n_showers={n_showers}", "shower=draft", "seed=1", "view=diffuse", *SHOWERS]
    same = ["backend=cpu", "progress=false"]
    simulate.run(compose("simulate", [*words, *same, f"output='{raw}'"]))
    process.run(compose("process", [f"input='{raw}'", f"output='{path}'", *same]))
    return path


def repeated(source: Path, path: Path, factor: int) -> int:
    """Write a store that is `factor` times a DL2a store; return its number of images."""
    from astri_gpu.store import copy_group, create, open_store

    store = open_store(source)
    (camera,) = store.cameras("dl1")
    n_events = store.n_rows("dl0/event")
    n_images = factor * store.n_rows(f"dl1/image/{camera}")
    tables = [f"{level}/{kind}" for level in ("dl0", "dl1", "dl2", "simulation")
              for kind in ("event", f"image/{camera}")]  # fmt: skip
    attrs = store.attrs | {"n_images": n_images, "n_events": factor * n_events}
    with create(path, attrs=attrs) as writer:
        copy_group(store, writer, "instrument")
        for name in tables:
            if name not in store:
                continue
            columns = {
                column: values
                for column, values in store.read_table(name).items()
                if values.ndim == 1
            }
            table = writer.table(name, list(columns), sizes={})
            for k in range(factor):
                shift = {column: k * n_events for column in columns if column in NUMBERS}
                table.append({column: v + shift.get(column, 0) for column, v in columns.items()})
    return n_images


def make_models(path: Path, source: Path, *, n_trees: int, depth: int, n_rows: int) -> None:
    """Write models with the default features whose trees are as deep and wide as they may be.

    They are fitted to noise, on the features of the images and events of a store: what they say is
    wrong, and takes as long as what is right.
    """
    from astri_gpu.backend import make_backend
    from astri_gpu.config_reconstruction import FeaturesConfig
    from astri_gpu.reconstruction.apply import Reconstructor
    from astri_gpu.reconstruction.blocks import read_event_blocks
    from astri_gpu.reconstruction.expressions import parse
    from astri_gpu.reconstruction.feature_lists import array_lists, image_lists
    from astri_gpu.reconstruction.model_file import save_models
    from astri_gpu.reconstruction.models import CameraModels, ModelSet
    from astri_gpu.store import open_store

    store, features = open_store(source), FeaturesConfig()
    (camera,) = store.cameras("dl1")
    models = ModelSet(
        cameras={camera: CameraModels({}, {})},
        array={},
        filter=features.filter,
        disp="norm_sign",
        quality_energy=np.array([0.1, 10.0, 1000.0]),
        quality_error=np.array([[0.1, 0.2, 0.4], [0.1, 0.15, 0.2]]),
    )
    image, stereo = (image_lists(features, name, models.disp) for name in ("image", "stereo"))
    array = array_lists(features)
    texts = {text for found in (image, stereo) for task in found.values() for text in task}
    wanted = {name for text in texts for name in parse(text).names} - {"tel_log_energy"}
    wanted |= {*parse(models.filter, condition=True).names}
    grow = functools.partial(_grow, n_trees=n_trees, depth=depth, n_rows=n_rows)

    def blocks() -> Any:
        apply = Reconstructor(models, make_backend("numpy"))
        events = {name for task in array.values() for text in task for name in parse(text).names}
        stored = [name for name in events if f"dl2/event/{name}" in store]
        return apply, next(
            read_event_blocks(
                store,
                sorted(wanted | apply.image_names(camera)),
                sorted({*stored, *apply.event_names}),
            )
        )

    _, block = blocks()
    columns = block.images[camera]
    passed = parse(models.filter, condition=True)(columns)
    rows = {name: values[passed] for name, values in columns.items()}
    rows["tel_log_energy"] = np.random.default_rng(1).normal(0.5, 0.5, int(passed.sum()))
    made = CameraModels(grow(image, rows), grow(stereo, rows))
    models = replace(models, cameras={camera: made})
    apply, block = blocks()
    events, _ = apply.combine(block)
    valid = events["stereo_is_valid"] & (events["n_images"] > 0)
    models = replace(models, array=grow(array, {name: v[valid] for name, v in events.items()}))
    save_models(path, models)


def _grow(
    lists: Mapping[str, Sequence[str]],
    columns: Mapping[str, NDArray[Any]],
    *,
    n_trees: int,
    depth: int,
    n_rows: int,
) -> dict[str, Any]:
    """Return a forest for each list of features, fitted to noise on (some of) these rows."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    from astri_gpu.reconstruction.expressions import parse
    from astri_gpu.reconstruction.models import SpreadCalibration, TaskModel
    from astri_gpu.reconstruction.predict import FeatureTable

    rng, made = np.random.default_rng(1), {}
    for task, texts in lists.items():
        matrix = FeatureTable(columns).matrix(map(parse, texts))
        matrix = matrix[np.isfinite(matrix).all(axis=1)]
        matrix = matrix[rng.integers(0, len(matrix), n_rows)]
        target: NDArray[Any] = rng.uniform(0.1, 1.0, n_rows)
        kind = RandomForestRegressor
        if task in ("sign", "gammaness"):
            kind, target = RandomForestClassifier, (target > np.median(target)).astype(int)
        elif task in ("direction", "quality"):
            target = np.stack([-target, rng.uniform(-1.0, -0.1, n_rows)], axis=1)
        estimator = kind(
            n_trees, max_depth=depth, min_samples_split=5, max_features="sqrt", n_jobs=-1,
            random_state=1,
        )  # fmt: skip
        calibration = SpreadCalibration(np.array([0.0, 1.0]), np.array([0.1, 0.3]))
        made[task] = TaskModel(task, tuple(texts), estimator.fit(matrix, target), calibration)
    return made


def reconstruct_case(path: str, model: str, threads: int, rounds: int) -> dict[str, Any]:
    """Return seconds of every round, reading alone too, the peak memory, images and events.

    Models, imports and compiled code are there before the first round.
    """
    from astri_gpu.config import compose
    from astri_gpu.stages.reconstruct import reconstruct_store

    source = Path(path)
    seconds: dict[str, list[float]] = {"whole": [], "reading": []}
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        output = Path(folder) / "dl2b.zarr"
        words = [f"input='{path}'", f"output='{output}'", f"model='{model}'", "backend=cpu"]
        config = compose(
            "reconstruct",
            [*words, f"backend.threads={threads}", "overwrite=true", "progress=false"],
        )
        summary = reconstruct_store(source, output, config)
        memory = peak_memory_mib()
        for _ in range(rounds):
            seconds["whole"].append(first_call(lambda: reconstruct_store(source, output, config)))
            seconds["reading"].append(first_call(lambda: _read(source, Path(model))))
    return {
        "seconds": seconds,
        "peak_memory_mib": memory,
        "n_images": summary.n_images,
        "n_events": summary.n_events,
        "n_valid": summary.n_valid,
    }


def _read(source: Path, model: Path) -> None:
    """Read and decode the columns that features name, and do nothing with them."""
    from astri_gpu.reconstruction.blocks import read_event_blocks
    from astri_gpu.reconstruction.expressions import parse
    from astri_gpu.reconstruction.model_file import describe_models
    from astri_gpu.store import open_store

    store = open_store(source)
    cameras = describe_models(model)["cameras"]
    texts = {
        text
        for camera in cameras.values()
        for variant in camera.values()
        for task in variant.values()
        for text in task
    }
    names = {name for text in texts for name in parse(text).names} - {"tel_log_energy"}
    for _ in read_event_blocks(store, sorted(names), ["stereo_is_valid"]):
        pass
