"""Configuration of every stage, and how Hydra composes it.

The classes are plain (not frozen) dataclasses because Hydra writes into them while it composes.
They work without Hydra too: ``ProcessConfig(input="a.zarr", output="b.zarr")``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from astri_gpu.errors import UsageError
from astri_gpu.options import REQUIRED, Section, option, path_list, specs
from astri_gpu.overrides import check_overrides, hydra_error

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = [
    "STAGES",
    "BackendConfig",
    "CalibrationConfig",
    "CleaningConfig",
    "DisplayConfig",
    "InfoConfig",
    "IngestConfig",
    "ParameterConfig",
    "ProcessConfig",
    "Stage",
    "StereoConfig",
    "compose",
    "compose_tree",
    "register_schemas",
    "to_config",
]


@dataclass
class BackendConfig(Section):
    """What computes."""

    section: ClassVar[str] = "backend"

    name: str = option(
        "auto",
        choices=["auto", "numpy", "cpu", "jax", "cupy"],
        help="what computes; auto takes the fastest one that is installed",
    )
    threads: int = option(0, low=0, help="CPU threads of the compiled loops; 0 = all cores")


@dataclass
class CalibrationConfig(Section):
    """From ADC counts to photo-electrons."""

    section: ClassVar[str] = "calibration"

    gain_threshold_adc: float = option(
        4000.0,
        above=0,
        unit="ADC counts",
        help="pixels with a high-gain sample above this use the low gain",
    )
    extractor: str = option(
        "neighbour_peak",
        choices=["neighbour_peak", "local_peak", "global_peak", "fixed_window", "full_sum"],
        help="where the integration window of a waveform is put",
    )
    window_width: int = option(7, low=1, unit="samples", help="length of the integration window")
    window_shift: int = option(
        3, low=0, unit="samples", help="the window starts this long before the peak"
    )
    peak_index: int = option(
        0, low=0, unit="samples", help="peak position of extractor=fixed_window"
    )
    local_weight: int = option(
        0, low=0, help="weight of the pixel itself beside its neighbours (neighbour_peak)"
    )
    integration_correction: bool = option(
        True, help="correct for the part of the reference pulse outside the window"
    )
    interpolate_invalid: bool = option(
        True, help="give disabled pixels the mean charge and time of their neighbours"
    )
    focal_length: str = option(
        "auto",
        choices=["auto", "effective", "equivalent"],
        help="focal length of the sky coordinates; auto: effective where it is known",
    )


@dataclass
class CleaningConfig(Section):
    """Which pixels belong to the shower."""

    section: ClassVar[str] = "cleaning"

    method: str = option(
        "tailcuts",
        choices=["tailcuts", "mars", "nsb", "time_constrained"],
        help="two thresholds; three thresholds; two thresholds that follow the pedestal noise; "
        "two thresholds with arrival times",
    )
    picture_pe: float = option(6.0, above=0, unit="p.e.", help="threshold of core pixels")
    boundary_pe: float = option(
        3.0, low=0, unit="p.e.", help="threshold of pixels beside a core pixel"
    )
    second_boundary_pe: float = option(
        3.0, low=0, unit="p.e.", help="threshold of the second row of boundary pixels (mars)"
    )
    min_picture_neighbours: int = option(
        1, low=0, high=8, help="core pixels need this many neighbours above picture_pe"
    )
    keep_isolated: bool = option(False, help="keep core pixels without any surviving neighbour")
    diagonal_neighbours: bool = option(True, help="pixels that touch at a corner are neighbours")
    min_core_pixels: int = option(3, low=0, help="drop images with fewer core pixels")
    pedestal_factor: float = option(
        2.5, low=0, help="a core pixel exceeds this many pedestal standard deviations (nsb)"
    )
    time_limit_ns: float = option(
        0.0,
        low=0,
        unit="ns",
        help="drop pixels without neighbours within this time; 0 = no such step",
    )
    time_min_neighbours: int = option(
        1, low=1, high=8, help="neighbours that have to be within time_limit_ns"
    )
    time_limit_core_ns: float = option(
        4.5,
        above=0,
        unit="ns",
        help="core pixels lie this near to the mean arrival time (time_constrained)",
    )
    time_limit_boundary_ns: float = option(
        1.5,
        above=0,
        unit="ns",
        help="boundary pixels lie this near to a core neighbour (time_constrained)",
    )
    dilate_rows: int = option(0, low=0, high=20, help="rows of neighbours added in the end")
    largest_island_only: bool = option(False, help="keep only the island with the most pixels")

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or thresholds in the wrong order."""
        super().validate()
        steps = ["picture_pe", "boundary_pe"]
        if self.method == "mars":
            steps.append("second_boundary_pe")
        for upper, lower in pairwise(steps):
            high, low = getattr(self, upper), getattr(self, lower)
            if low > high:
                raise UsageError(
                    f"cleaning.{lower} is {low:g}: it must be at most cleaning.{upper} "
                    f"({high:g} p.e.)"
                )


@dataclass
class ParameterConfig(Section):
    """Image parameters."""

    section: ClassVar[str] = "parameters"

    source_fov_lon_deg: float = option(
        0.0,
        low=-90,
        high=90,
        unit="deg",
        help="assumed source in the field of view, for dist, miss and alpha",
    )
    source_fov_lat_deg: float = option(
        0.0, low=-90, high=90, unit="deg", help="the other coordinate of the assumed source"
    )
    min_pixels: int = option(2, low=1, help="images with fewer pixels are not parametrised")


@dataclass
class StereoConfig(Section):
    """Shower direction, core and height from several images."""

    section: ClassVar[str] = "stereo"

    method: str = option(
        "planes",
        choices=["planes", "lines"],
        help="intersect shower-detector planes, or image axes with weights",
    )
    min_intensity_pe: float = option(
        50.0, low=0, unit="p.e.", help="images take part above this intensity"
    )
    min_pixels: int = option(4, low=1, help="images take part with at least this many pixels")
    min_width_deg: float = option(0.0, low=0, unit="deg", help="images take part above this width")
    max_leakage: float = option(
        1.0,
        low=0,
        high=1,
        help="images take part up to this leakage_intensity_width_2",
    )


@dataclass
class IngestConfig(Section):
    """Options of `astri-gpu ingest`."""

    input: Any = option(REQUIRED, help="sim_telarray file, list of files, or pattern")
    output: str = option(REQUIRED, help="store to write (a directory)")
    overwrite: bool = option(False, help="replace an existing output")
    on_error: str = option(
        "stop",
        choices=["stop", "keep", "skip"],
        help="what a damaged file does: stop, keep its complete events, or skip the file",
    )
    calibration_events: bool = option(True, help="store flat-field and pedestal events too")
    true_images: bool = option(True, help="store true photo-electrons where the file has them")
    allowed_telescopes: list[int] = option([], help="telescope numbers to read; [] = all")
    max_events: int | None = option(
        None, low=1, unit="events", help="stop after this many events; null = all"
    )
    images_per_chunk: int = option(1024, low=1, high=65536, unit="images", help="Zarr chunk length")
    n_workers: int = option(0, low=0, help="processes over the files; 0 = all cores")
    obs_id: int | None = option(None, low=0, help="observation number; null = from the file")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or paths that are none."""
        super().validate()
        path_list(self.input)
        path_list(self.output, "output")

    def inputs(self) -> list[str]:
        """Return `input` as a list of paths or patterns."""
        return path_list(self.input)


@dataclass
class ProcessConfig(Section):
    """Options of `astri-gpu process`."""

    input: Any = option(REQUIRED, help="DL0 store, list of stores, or pattern")
    output: str = option(REQUIRED, help="store to write (a directory)")
    overwrite: bool = option(False, help="replace an existing output")
    on_error: str = option(
        "stop", choices=["stop", "skip"], help="what a bad store does among several: stop, or skip"
    )
    images: bool = option(False, help="store charge, peak time and mask of every pixel too")
    batch_size: int = option(1024, low=1, high=1048576, unit="images", help="images in one batch")
    exclude_telescopes: list[int] = option([], help="telescope numbers to leave out")
    n_workers: int = option(1, low=0, help="processes over the stores; 0 = all cores")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    backend: BackendConfig = field(default_factory=BackendConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    parameters: ParameterConfig = field(default_factory=ParameterConfig)
    stereo: StereoConfig = field(default_factory=StereoConfig)

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or paths that are none."""
        super().validate()
        path_list(self.input)
        path_list(self.output, "output")

    def inputs(self) -> list[str]:
        """Return `input` as a list of paths or patterns."""
        return path_list(self.input)


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


@dataclass(frozen=True)
class Stage:
    """One stage of the command line."""

    config: type[Section]
    line: str
    examples: tuple[str, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the names of the config groups that the stage has, `experiment` last."""
        nested = {spec.key.split(".")[0] for spec in specs(self.config) if "." in spec.key}
        # A section without alternatives (parameters) has options but no folder of files.
        order = [
            name for name in ("backend", "calibration", "cleaning", "stereo") if name in nested
        ]
        return (*order, "experiment") if order else ()


STAGES: dict[str, Stage] = {
    "ingest": Stage(
        IngestConfig,
        "sim_telarray files -> DL0 store",
        (
            "astri-gpu ingest gamma.simtel.zst output=gamma_dl0.zarr",
            "astri-gpu ingest damaged.simtel.gz output=rest.zarr on_error=keep overwrite=true",
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

    for name, stage in STAGES.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=stage.config)


def compose_tree(stage: str, overrides: Sequence[str] = ()) -> "DictConfig":
    """Return the composed OmegaConf tree of a stage (see `compose`)."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    check_overrides(
        overrides, [spec.key for spec in specs(STAGES[stage].config)], STAGES[stage].groups
    )
    register_schemas()
    try:
        with initialize_config_module("astri_gpu.configs", version_base="1.3"):
            return hydra_compose(config_name=stage, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UsageError(hydra_error(error)) from error


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
