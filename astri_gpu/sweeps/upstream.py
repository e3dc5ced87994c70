"""What comes before the cuts: inputs are processed and reconstructed, or taken from the cache."""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import AstriError, UsageError

if TYPE_CHECKING:
    from astri_gpu.config import OptimizeConfig
    from astri_gpu.sweeps.cache import Cache

__all__ = ["PROCESS", "TRAIN", "Ready", "check_effect", "ready_stores", "relevant"]

PROCESS = ("calibration", "cleaning", "parameters", "stereo")
"""Sections of `OptimizeConfig` that inputs below DL2a are processed with."""
TRAIN = ("features", "forest", "sample")
"""Sections that forests are trained with."""
BELOW = ("DL0", "DL1a")  # levels that are processed
LEVELS = (*BELOW, "DL2a", "DL2b")


@dataclass(frozen=True)
class Ready:
    """DL2b stores for the cuts, and what was done for them.

    Attributes
    ----------
    paths
        One DL2b store per input.
    n_run, n_reused
        Products of the stages process, train and reconstruct that were made, or taken from the
        cache; empty where all inputs were DL2b.
    seconds
        Time that it took.
    """

    paths: list[Path]
    n_run: dict[str, int] = field(default_factory=dict)
    n_reused: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def ready_stores(config: "OptimizeConfig") -> Ready:
    """Return the inputs of `astri-gpu optimize` as DL2b stores.

    DL2b stores are taken as they are. Others are processed (DL0, DL1a) and reconstructed (DL2a)
    with the file `model`, or with forests trained on the stores `train`. Each product is made
    once for its options and the checksums of its inputs, in the folder `cache`.

    Raises
    ------
    UsageError
        When no file matches, options were changed that have no effect on these inputs, or neither
        `model` nor `train` says what to reconstruct with.
    AstriError
        When an input is no store, or a stage fails.
    """
    from astri_gpu.options import path_list
    from astri_gpu.stages.units import find_inputs
    from astri_gpu.sweeps.cache import Cache

    started = time.perf_counter()
    inputs = find_inputs(config.inputs())
    training = find_inputs(path_list(config.train, "train")) if config.train is not None else []
    check_effect(inputs, training, config.model, _changed(config))
    levels = [_level(path) for path in inputs]
    if all(level == "DL2b" for level in levels):
        return Ready(inputs, seconds=time.perf_counter() - started)
    cache = Cache(Path(config.cache))
    model = Path(config.model) if config.model else _trained(cache, training, config)
    ready = [
        path if level == "DL2b" else _reconstructed(cache, path, model, config)
        for path, level in zip(inputs, levels, strict=True)
    ]
    seconds = time.perf_counter() - started
    return Ready(ready, dict(cache.n_run), dict(cache.n_reused), seconds)


def check_effect(
    inputs: Sequence[Path], training: Sequence[Path], model: str | None, changed: Iterable[str]
) -> None:
    """Refuse options of earlier stages that would have no effect on these inputs.

    Parameters
    ----------
    inputs, training
        Stores of the options `input` and `train`.
    model
        File of the option `model`.
    changed
        Sections that are not as by default, or that a sweep changes.

    Raises
    ------
    UsageError
        With the first of them, or when there is nothing to reconstruct with.
    AstriError
        When an input is no store.
    """
    changed = list(changed)
    levels = [_level(path) for path in inputs]
    if all(level == "DL2b" for level in levels):
        given = [("train", bool(training)), ("model", model is not None)]
        useless = [name for name, there in given if there] + changed
        if useless:
            raise UsageError(
                f"{useless[0]} was given, which has no effect: all inputs are reconstructed "
                f"already (DL2b, such as {inputs[0]}). Give the DL0 stores, or leave "
                f"{useless[0]} out."
            )
        return
    unready = next(path for path, level in zip(inputs, levels, strict=True) if level != "DL2b")
    if model is not None and training:
        raise UsageError("model and train both say what to reconstruct with: keep one of them")
    if model is None and not training:
        raise UsageError(
            f"{unready} is a {_level(unready)} store, not reconstructed yet: give model=FILE, or "
            "train=STORES to train forests on, or the DL2b store that `astri-gpu reconstruct` wrote"
        )
    for name in changed:
        if name in TRAIN and model is not None:
            raise UsageError(
                f"{name} was changed, which has no effect: the forests of {model} are trained "
                f"already. Give train=STORES instead of model, or leave {name} out."
            )
    below = [path for path in (*inputs, *training) if _level(path) in BELOW]
    for name in changed:
        if name in PROCESS and not below:
            raise UsageError(
                f"{name} was changed, which has no effect: no input is below DL2a (such as "
                f"{unready}, which is processed already). Give DL0 stores, or leave {name} out."
            )


def relevant(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested options without those that only say how the work is done."""
    from astri_gpu.stages.finished import INDIFFERENT

    def kept(part: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            name: kept(value, f"{prefix}{name}.") if isinstance(value, Mapping) else value
            for name, value in part.items()
            if prefix + name not in INDIFFERENT
        }

    return kept(options, "")


def _changed(config: "OptimizeConfig") -> list[str]:
    """Return the sections of earlier stages that are not as by default."""
    kinds = {item.name: item.type for item in dataclasses.fields(config)}
    return [
        name
        for name in (*PROCESS, *TRAIN)
        if getattr(config, name) != kinds[name]()  # type: ignore[operator]
    ]


def _level(path: Path) -> str:
    from astri_gpu.store import open_store

    level = str(open_store(path).attrs.get("data_level"))
    if level not in LEVELS:
        raise AstriError(
            f"{path} is a store of level {level}: give one of {', '.join(LEVELS)}, as the stages "
            "simulate, ingest, process and reconstruct write them."
        )
    return level


def _processed(cache: "Cache", path: Path, config: "OptimizeConfig") -> Path:
    """Return the DL2a store of an input."""
    from astri_gpu.config import ProcessConfig
    from astri_gpu.stages import process

    if _level(path) not in BELOW:
        return path
    sections = {name: getattr(config, name) for name in (*PROCESS, "backend", "execution")}

    def options(output: Path) -> ProcessConfig:
        return ProcessConfig(
            input=str(path), output=str(output), progress=config.progress, **sections
        )

    wanted = relevant(asdict(options(Path("cache"))))
    return cache.get("process", wanted, [path], ".zarr", lambda to: process.run(options(to)))


def _trained(cache: "Cache", paths: Sequence[Path], config: "OptimizeConfig") -> Path:
    """Return the file of forests that are trained on these stores."""
    from astri_gpu.config import TrainConfig
    from astri_gpu.stages import train

    stores = [_processed(cache, path, config) for path in paths]
    sections = {name: getattr(config, name) for name in (*TRAIN, "backend")}

    def options(output: Path) -> TrainConfig:
        return TrainConfig(
            input=[str(path) for path in stores],
            output=str(output),
            progress=config.progress,
            **sections,
        )

    wanted = relevant(asdict(options(Path("cache"))))
    return cache.get("train", wanted, stores, ".skops", lambda to: train.run(options(to)))


def _reconstructed(cache: "Cache", path: Path, model: Path, config: "OptimizeConfig") -> Path:
    """Return the DL2b store of an input."""
    from astri_gpu.config import ReconstructConfig
    from astri_gpu.stages import reconstruct

    store = _processed(cache, path, config)

    def options(output: Path) -> ReconstructConfig:
        return ReconstructConfig(
            input=str(store),
            model=str(model),
            output=str(output),
            progress=config.progress,
            backend=config.backend,
            execution=config.execution,
        )

    # The name of the file of models says nothing; its checksum does.
    wanted = relevant(asdict(options(Path("cache")))) | {"model": ""}
    return cache.get(
        "reconstruct", wanted, [store, model], ".zarr", lambda to: reconstruct.run(options(to))
    )
