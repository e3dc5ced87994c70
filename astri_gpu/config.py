"""Configuration of every stage, and how Hydra composes it.

The classes are plain (not frozen) dataclasses because Hydra writes into them while it composes.
They work without Hydra too: ``ProcessConfig(input="a.zarr", output="b.zarr")``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from astri_gpu.config_pipeline import RunConfig, SweepReportConfig
from astri_gpu.config_reconstruction import ReconstructConfig, TrainConfig
from astri_gpu.config_response import CheckConfig, IrfConfig, OptimizeConfig, SelectConfig
from astri_gpu.config_sections import (
    BackendConfig,
    CalibrationConfig,
    CleaningConfig,
    ExecutionConfig,
    ParameterConfig,
    StereoConfig,
)
from astri_gpu.config_simulation import SimulateConfig
from astri_gpu.errors import UsageError
from astri_gpu.options import REQUIRED, FilesConfig, Section, did_you_mean, option, specs
from astri_gpu.overrides import check_overrides, hydra_error, is_entry, split

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = [
    "STAGES",
    "BackendConfig",
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
    "ProcessConfig",
    "ReconstructConfig",
    "ReportConfig",
    "RunConfig",
    "SelectConfig",
    "SimulateConfig",
    "Stage",
    "StereoConfig",
    "SweepReportConfig",
    "TrainConfig",
    "compose",
    "compose_tree",
    "register_schemas",
    "to_config",
]


@dataclass
class IngestConfig(FilesConfig):
    """Options of `astri-gpu ingest`."""

    input: Any = option(
        REQUIRED,
        help="file of sim_telarray, ctapipe or A-SciSoft (FITS, lv1b to lv2b), list, or pattern",
    )
    output: str = option(REQUIRED, help="store to write (a directory)")
    overwrite: bool = option(False, help="replace an existing output")
    on_error: str = option(
        "stop",
        choices=["stop", "keep", "skip"],
        help="what a damaged file does: stop, keep its complete events, or skip the file",
    )
    keep_calibration_events: bool = option(True, help="store flat-field and pedestal events too")
    true_images: bool = option(True, help="store true photo-electrons where the file has them")
    allowed_telescopes: list[int] = option([], help="telescope numbers to read; [] = all")
    max_events: int | None = option(
        None, low=1, unit="events", help="stop after this many events; null = all"
    )
    images_per_chunk: int = option(1024, low=1, high=65536, unit="images", help="Zarr chunk length")
    obs_id: int | None = option(None, low=0, help="observation number; null = from the file")
    geometry: str | None = option(
        None,
        help="stereo algorithm to take from a file of ctapipe; null = HillasReconstructor, or the "
        "only one",
    )
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


@dataclass
class ProcessConfig(FilesConfig):
    """Options of `astri-gpu process`."""

    input: Any = option(REQUIRED, help="DL0 store (or DL1a), list of stores, or pattern")
    output: str = option(REQUIRED, help="store to write (a directory)")
    overwrite: bool = option(False, help="replace an existing output")
    on_error: str = option(
        "stop", choices=["stop", "skip"], help="what a bad store does among several: stop, or skip"
    )
    images: bool = option(False, help="store charge, peak time and mask of every pixel too")
    batch_size: int | None = option(
        None,
        low=1,
        high=1048576,
        unit="images",
        help="images in one batch; null = as many as fit (a shard of the store at most)",
    )
    exclude_telescopes: list[int] = option([], help="telescope numbers to leave out")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    backend: BackendConfig = field(default_factory=BackendConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    parameters: ParameterConfig = field(default_factory=ParameterConfig)
    stereo: StereoConfig = field(default_factory=StereoConfig)


@dataclass
class ExportConfig(FilesConfig):
    """Options of `astri-gpu export`."""

    input: Any = option(REQUIRED, help="processed store, list of stores, or pattern")
    output: str = option(REQUIRED, help="file to write; a directory for several stores")
    format: str = option(
        "ctapipe",
        choices=["ctapipe", "astri"],
        help="whose files: ctapipe's HDF5 (data model v7.1.0), or A-SciSoft-like FITS",
    )
    level: str = option(
        "highest",
        choices=["highest", "lv1b", "lv1c", "lv2a", "lv2b"],
        help="of format=astri (lv1b, lv1c: a folder, one file per telescope); highest = what the "
        "store has",
    )
    images: bool | None = option(
        None, help="write charge, peak time and mask of every pixel; null = if the store has them"
    )
    overwrite: bool = option(False, help="replace an existing output")
    on_error: str = option(
        "stop", choices=["stop", "skip"], help="what a bad store does among several: stop, or skip"
    )
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


@dataclass
class InfoConfig(Section):
    """Options of `astri-gpu info`."""

    input: str = option(REQUIRED, help="store to describe")
    debug: bool = option(False, help="show the traceback of an error")


@dataclass
class DisplayConfig(Section):
    """Options of `astri-gpu display`."""

    input: str = option(REQUIRED, help="DL0 or DL2a store")
    output: str = option(REQUIRED, help="PNG file, or a directory")
    what: str = option(
        "event",
        choices=["event", "images", "array"],
        help="camera images and array together, or one of them",
    )
    event_id: int | None = option(None, help="event; null = the brightest stereo event")
    obs_id: int | None = option(None, low=0, help="observation of the event; null = any")
    dpi: int = option(120, low=20, high=1200, unit="dots per inch", help="resolution of the PNG")
    overwrite: bool = option(False, help="replace an existing picture")
    debug: bool = option(False, help="show the traceback of an error")


@dataclass
class ReportConfig(FilesConfig):
    """Options of `astri-gpu report`."""

    input: Any = option(
        REQUIRED, help="DL2a or DL2b stores of simulated events: one, a list, or a pattern"
    )
    output: str = option(REQUIRED, help="folder to write: page, numbers, tables, pictures")
    bins_per_decade: int = option(
        5, low=1, high=20, unit="bins", help="energy bins in a factor of ten"
    )
    dpi: int = option(130, low=20, high=600, unit="dots per inch", help="resolution of pictures")
    overwrite: bool = option(False, help="replace an existing report")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")


# Sections with a folder of alternatives, in the order in which `--help` shows them.
GROUPS = (
    "backend",
    "execution",
    "array",
    "atmosphere",
    "spectrum",
    "view",
    "shower",
    "optics",
    "camera",
    "calibration_events",
    "calibration",
    "cleaning",
    "stereo",
    "features",
    "forest",
    "sample",
    "cuts",
    "flux",
    "binning",
    "observation",
    "pipeline",
)


@dataclass(frozen=True)
class Stage:
    """One stage of the command line."""

    config: type[Section]
    line: str
    examples: tuple[str, ...]
    experiments: bool = False  # whether the files of configs/experiment are written for it
    sweeps: bool = False  # whether the search spaces of configs/sweep are

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the names of the config groups of the stage, `experiment` and `sweep` last."""
        nested = {spec.key.split(".")[0] for spec in specs(self.config) if "." in spec.key}
        order = [name for name in GROUPS if name in nested]
        more = {"experiment": self.experiments, "sweep": self.sweeps}
        return (*order, *(name for name, there in more.items() if there))


STAGES: dict[str, Stage] = {
    "simulate": Stage(
        SimulateConfig,
        "fast simulation of showers and of the array -> DL0 store",
        (
            "astri-gpu simulate production=gamma n_showers=200000 seed=1 output=gamma_dl0.zarr",
            "astri-gpu simulate production=proton n_showers=100000 seed=2 output=proton.zarr \\\n"
            "    camera=moon array=single view.zenith_deg=40 calibration_events=standard",
        ),
    ),
    "ingest": Stage(
        IngestConfig,
        "files of sim_telarray -> DL0 store, or of ctapipe -> DL1a store",
        (
            "astri-gpu ingest gamma.simtel.zst output=gamma_dl0.zarr",
            "astri-gpu ingest damaged.simtel.gz output=rest.zarr on_error=keep overwrite=true",
            "astri-gpu ingest gamma.dl1.h5 output=gamma_dl1.zarr",
        ),
    ),
    "process": Stage(
        ProcessConfig,
        "DL0 store -> image parameters (DL1b) and stereo geometry (DL2a)",
        (
            "astri-gpu process gamma_dl0.zarr output=gamma_dl2.zarr backend=cpu",
            "astri-gpu process gamma_dl0.zarr 'output=scan_${cleaning.picture_pe}.zarr' \\\n"
            "    cleaning.picture_pe=5,6,8 --multirun",
        ),
        experiments=True,
    ),
    "train": Stage(
        TrainConfig,
        "DL2a stores of gammas and protons -> forests for energy, class and direction",
        (
            "astri-gpu train gamma_dl2.zarr proton_dl2.zarr output=forests.skops",
            "astri-gpu train input='train/*.zarr' output=trees.skops forest=extra_trees \\\n"
            "    features=astri sample=levelled",
        ),
    ),
    "reconstruct": Stage(
        ReconstructConfig,
        "DL2a store and forests -> energy, gammaness, direction (DL1c, DL2b)",
        (
            "astri-gpu reconstruct gamma_dl2.zarr model=forests.skops output=gamma_dl2b.zarr",
            "astri-gpu reconstruct 'dl2/*.zarr' model=forests.skops output=dl2b execution=dask",
        ),
    ),
    "optimize": Stage(
        OptimizeConfig,
        "DL2b stores of gammas and background -> cuts of an event class; what sweeps run",
        (
            "astri-gpu optimize gamma_dl2b.zarr proton_dl2b.zarr output=cc03.fits",
            "astri-gpu optimize input='dl2b/*.zarr' output=cc12.fits cuts=cc12",
            "astri-gpu optimize gamma_dl0.zarr proton_dl0.zarr train='train/*.zarr' \\\n"
            "    cleaning=astri,mars cuts.max_theta_deg=0.2,0.3 forest=draft,extra_trees \\\n"
            "    --multirun hydra.sweep.dir=sweep",
            "astri-gpu optimize input='dl2b/*.zarr' sweep=cuts --multirun hydra.sweep.dir=study",
        ),
        experiments=True,
        sweeps=True,
    ),
    "irf": Stage(
        IrfConfig,
        "DL2b stores and cuts -> instrument response (IRF2, IRF3), sensitivity and other curves",
        (
            "astri-gpu irf gamma_dl2b.zarr proton_dl2b.zarr cut_files=cc03.fits output=irf",
            "astri-gpu irf input='dl2b/*.zarr' cut_files='cuts/*.fits' output=irf point_like=true",
        ),
    ),
    "select": Stage(
        SelectConfig,
        "DL2b store of an observation (or simulated), cuts and response -> DL3 (GADF)",
        (
            "astri-gpu select run_dl2b.zarr cut_file=cc03.fits response=irf/cc03.irf2.fits.gz \\\n"
            "    output=dl3",
            "astri-gpu select gamma_dl2b.zarr proton_dl2b.zarr cut_file=cc03.fits \\\n"
            "    response=irf/cc03.irf2.fits.gz output=crab observation.n_runs=4",
        ),
    ),
    "check": Stage(
        CheckConfig,
        "event lists, response and index files: do they keep to the format (GADF)?",
        ("astri-gpu check dl3/*.fits", "astri-gpu check input='dl3/*' strict=true"),
    ),
    "run": Stage(
        RunConfig,
        "a whole chain of stages, from nothing to sensitivity and DL3",
        (
            "astri-gpu run pipeline=montecarlo output=first",
            "astri-gpu run pipeline=montecarlo output=first pipeline.values.n_gammas=200000",
        ),
    ),
    "sweep-report": Stage(
        SweepReportConfig,
        "results of a sweep -> pictures, table, best configuration",
        (
            "astri-gpu sweep-report sweep output=sweep_report",
            "astri-gpu sweep-report study/results.parquet output=study_report dpi=200",
        ),
    ),
    "export": Stage(
        ExportConfig,
        "processed store -> HDF5 file that ctapipe reads, or A-SciSoft-like FITS",
        (
            "astri-gpu export gamma_dl2.zarr output=gamma_dl2.h5",
            "astri-gpu export input='dl2/*.zarr' output=ctapipe images=false",
            "astri-gpu export gamma_dl2.zarr output=gamma.lv2a.fits format=astri level=lv2a",
        ),
    ),
    "report": Stage(
        ReportConfig,
        "DL2a or DL2b stores of simulated events -> an illustrated report",
        (
            "astri-gpu report gamma_dl2.zarr proton_dl2.zarr output=report",
            "astri-gpu report input='dl2/*.zarr' output=report overwrite=true bins_per_decade=4",
        ),
    ),
    "info": Stage(
        InfoConfig,
        "what a store holds: cameras, events, particle, provenance",
        ("astri-gpu info gamma_dl0.zarr", "astri-gpu info input=gamma_dl2.zarr"),
    ),
    "display": Stage(
        DisplayConfig,
        "pictures of an event: camera images, ground and field of view",
        (
            "astri-gpu display gamma_dl2.zarr output=event.png",
            "astri-gpu display gamma_dl2.zarr output=array.png what=array event_id=7",
        ),
    ),
}


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
