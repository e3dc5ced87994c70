"""Options of stages about stores and files: `ingest`, `process`, `export`, `report`, `info`,
`display`; `config_stages.py` registers them.
"""

from dataclasses import dataclass, field
from typing import Any

from astri_gpu.config_sections import (
    BackendConfig,
    CalibrationConfig,
    CleaningConfig,
    ExecutionConfig,
    ParameterConfig,
    StereoConfig,
)
from astri_gpu.options import REQUIRED, FilesConfig, Section, option

__all__ = [
    "DisplayConfig",
    "ExportConfig",
    "InfoConfig",
    "IngestConfig",
    "ProcessConfig",
    "ReportConfig",
]


@dataclass
class IngestConfig(FilesConfig):
    """Options of `astri-gpu ingest`."""

    input: Any = option(
        REQUIRED,
        help="file of sim_telarray, ctapipe or A-SciSoft (FITS, lv1b to lv2b), list, or pattern; "
        "folder of DL0 files (format=dl0_fits)",
    )
    output: str = option(REQUIRED, help="store to write (a directory)")
    format: str = option(
        "auto",
        choices=["auto", "dl0_fits"],
        help="auto = by the first bytes of a file; dl0_fits = the DL0 files of an observation run",
    )
    events: str | None = option(
        None,
        help="file of stereo events (SEB0) of the run (format=dl0_fits); null = *_0202.lv0.fits "
        "in the folder or beside it",
    )
    constants: Any = option(
        None,
        help="file of camera constants (CAL1), or several (format=dl0_fits); null = "
        "*_0102.lv1a.fits in the folder or beside it",
    )
    saturation_adc: float | None = option(
        4095.0,
        above=0,
        unit="ADC counts",
        help="counts at which a gain ends (our choice; format=dl0_fits); null = unknown",
    )
    min_telescopes: int | None = option(
        None,
        low=1,
        help="telescopes that must work for good time; null = all of the run (format=dl0_fits)",
    )
    overwrite: bool = option(False, help="replace an existing output")
    on_error: str = option(
        "stop",
        choices=["stop", "keep", "skip"],
        help="what a damaged file does: stop, keep its complete events (telescopes that have all "
        "they need), or skip the file",
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
