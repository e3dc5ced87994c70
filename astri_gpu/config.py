"""Configuration of every stage, and how Hydra composes it.

The classes are plain (not frozen) dataclasses because Hydra writes into them while it composes.
They work without Hydra too: ``ProcessConfig(input="a.zarr", output="b.zarr")``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from astri_gpu.config_data import (
    DisplayConfig,
    ExportConfig,
    InfoConfig,
    IngestConfig,
    ProcessConfig,
    ReportConfig,
)
from astri_gpu.config_observation import (
    BuildEventsConfig,
    CalibrateConfig,
    PreprocessConfig,
    SimulateObservationConfig,
)
from astri_gpu.config_pipeline import RunConfig, SweepReportConfig
from astri_gpu.config_reconstruction import ReconstructConfig, TrainConfig
from astri_gpu.config_response import CheckConfig, IrfConfig, OptimizeConfig, SelectConfig
from astri_gpu.config_science import ProvenanceConfig, ScienceConfig
from astri_gpu.config_sections import (
    BackendConfig,
    CalibrationConfig,
    CleaningConfig,
    ExecutionConfig,
    ParameterConfig,
    StereoConfig,
)
from astri_gpu.config_simulation import SimulateConfig
from astri_gpu.config_stages import STAGES, Stage
from astri_gpu.errors import UsageError
from astri_gpu.options import Section, did_you_mean, specs
from astri_gpu.overrides import check_overrides, hydra_error, is_entry, split

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = [
    "STAGES",
    "BackendConfig",
    "BuildEventsConfig",
    "CalibrateConfig",
    "CalibrationConfig",
    "CheckConfig",
    "CleaningConfig",
    "DisplayConfig",
    "ExecutionConfig",
    "ExportConfig",
    "InfoConfig",
    "IngestConfig",
    "IrfConfig",
    "OptimizeConfig",
    "ParameterConfig",
    "PreprocessConfig",
    "ProcessConfig",
    "ProvenanceConfig",
    "ReconstructConfig",
    "ReportConfig",
    "RunConfig",
    "ScienceConfig",
    "SelectConfig",
    "SimulateConfig",
    "SimulateObservationConfig",
    "Stage",
    "StereoConfig",
    "SweepReportConfig",
    "TrainConfig",
    "compose",
    "compose_tree",
    "register_schemas",
    "to_config",
]


def register_schemas() -> None:
    """Tell Hydra the options and types of every stage, so that a misspelt key is refused."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for name, stage in STAGES.items():
        if f"{name}_schema.yaml" not in store.repo:  # it takes a third of a composition
            store.store(name=f"{name}_schema", node=stage.config)


def compose_tree(stage: str, overrides: Sequence[str] = ()) -> "DictConfig":
    """Return the composed OmegaConf tree of a stage (see `compose`)."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    keys = [spec.key for spec in specs(STAGES[stage].config)]
    check_overrides(overrides, keys, STAGES[stage].groups)
    register_schemas()
    try:
        with initialize_config_module("astri_gpu.configs", version_base="1.3"):
            return hydra_compose(config_name=stage, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        entries = [word for word in overrides if is_entry(split(word)[0], keys)]
        if entries and "is not in struct" in f"{error}{error.__cause__}":
            rest = [word for word in overrides if word not in entries]
            _refuse_entry(entries, compose_tree(stage, rest))
        raise UsageError(hydra_error(error)) from error


def _refuse_entry(words: Sequence[str], tree: "DictConfig") -> None:
    """Raise a `UsageError` for the first entry of a dictionary that the chosen one has not."""
    from omegaconf import OmegaConf

    for word in words:
        dictionary, _, name = split(word)[0].rpartition(".")
        known = list(OmegaConf.select(tree, dictionary) or ())
        if name not in known:
            hint = did_you_mean(name, known) or f": there are {', '.join(known) or 'none'}"
            raise UsageError(f"{dictionary} has no {name}{hint}")


def compose(stage: str, overrides: Sequence[str] = ()) -> Any:
    """Return the configuration object of a stage.

    Parameters
    ----------
    stage : str
        A key of `STAGES`.
    overrides : sequence of str
        As on the command line: ``["input=a.zarr", "output=b.zarr", "cleaning=mars"]``, in Hydra's
        grammar (a path with special characters needs quotes inside the string).

    Raises
    ------
    UsageError
        A key, a choice or a value is wrong, or a required one is missing.
    """
    return to_config(compose_tree(stage, overrides))


def to_config(tree: "DictConfig") -> Any:
    """Return the dataclass of a composed tree, all values checked (`UsageError`)."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    kind = OmegaConf.get_type(tree)
    if kind is None or not issubclass(kind, Section):
        raise TypeError("the configuration was not composed from the schema of a stage")
    help_of = {spec.key: spec.help for spec in specs(kind)}
    try:
        for key in sorted(OmegaConf.missing_keys(tree), key=list(help_of).index):
            raise UsageError(f"{key} is missing: give {key}=... ({help_of[key]})")
        return OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise UsageError(hydra_error(error)) from error
