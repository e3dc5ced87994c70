"""Options of the stages of an observation run: `simulate-observation`, `preprocess`,
`build-events`, `calibrate`; `config.py` registers them.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from astri_gpu.config_response import CRAB, FluxConfig, ObservationConfig
from astri_gpu.config_sections import BackendConfig, ExecutionConfig
from astri_gpu.config_simulation import (
    ArrayConfig,
    AtmosphereConfig,
    CameraConfig,
    OpticsConfig,
    ShowerConfig,
)
from astri_gpu.errors import UsageError
from astri_gpu.options import REQUIRED, FilesConfig, Section, option

__all__ = [
    "BuildEventsConfig",
    "CalibrateConfig",
    "ClockConfig",
    "InterleavedConfig",
    "PreprocessConfig",
    "SimulateObservationConfig",
]

BACKGROUND = ("proton", "electron", "helium")
HIGHEST_FLASH_PE = 1e5
DESCRIPTOR_HELP = "packet format: astri_gpu_v1, or a YAML file like it"


@dataclass
class ClockConfig(Section):
    """Clocks of the telescopes (our choice, of the order that other sites see)."""

    section: ClassVar[str] = "clock"

    offset_us: float = option(
        5.0, low=0, high=1e6, unit="us", help="standard deviation of the offsets at the start"
    )
    drift_ns_per_s: float = option(
        2.0, low=0, high=1e6, unit="ns/s", help="standard deviation of the drifts"
    )
    jitter_ns: float = option(
        5.0, low=0, high=1e6, unit="ns", help="standard deviation of the error of each time"
    )
    jump_ms: float = option(
        0.0, low=0, high=1e3, unit="ms", help="size of one jump in the middle of the run; 0 = none"
    )
    jump_telescope: int = option(1, low=1, help="number of the telescope whose clock jumps")


@dataclass
class InterleavedConfig(Section):
    """Packets between the showers, of every telescope by itself."""

    section: ClassVar[str] = "interleaved"

    pedestal_hz: float = option(2.0, low=0, high=1000, unit="Hz", help="pedestal events")
    flatfield_hz: float = option(2.0, low=0, high=1000, unit="Hz", help="flat-field flashes")
    flatfield_pe: list[float] = option(
        [40.0, 80.0], unit="p.e.", help="mean signals of the flashes, one after the other"
    )
    housekeeping_s: float = option(1.0, above=0, unit="s", help="time between housekeeping packets")
    variance_s: float = option(5.0, above=0, unit="s", help="time between variance images")


@dataclass
class SimulateObservationConfig(Section):
    """Options of `astri-gpu simulate-observation`."""

    output: str = option(
        REQUIRED, help="folder to write: packet files of the telescopes, run description, truth"
    )
    run: int = option(1, low=1, high=999_999, help="number of the run within its observation")
    start: str | None = option(
        None,
        help="UTC time at which the run starts (2026-01-15T22:00:00); null = the first (for run 2 "
        "the second ...) time from the night of `observation.night` on at which the target stays "
        "close to zenith_deg",
    )
    zenith_deg: float = option(
        20.0, low=0, high=60, unit="deg", help="zenith angle to look for where start is null"
    )
    slice_s: float = option(
        120.0,
        above=0,
        high=3600,
        unit="s",
        help="showers develop at the zenith angle of the middle of such a slice of the run",
    )
    cone_max_deg: float = option(
        6.0,
        above=0,
        high=10,
        unit="deg",
        help="largest angle of background particles from the pointing",
    )
    gamma_factor: float = option(1.0, low=0, help="factor on the flux of the source")
    background: list[str] = option(
        ["proton", "electron"], help="particles from all sides: proton, electron, helium"
    )
    background_factor: float = option(1.0, low=0, help="factor on the fluxes of the background")
    descriptor: str = option("astri_gpu_v1", help=DESCRIPTOR_HELP)
    seed: int = option(1, low=0, high=10**9, help="of all random numbers")
    overwrite: bool = option(False, help="replace an existing output")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    backend: BackendConfig = field(default_factory=BackendConfig)
    array: ArrayConfig = field(default_factory=ArrayConfig)
    atmosphere: AtmosphereConfig = field(default_factory=AtmosphereConfig)
    shower: ShowerConfig = field(default_factory=ShowerConfig)
    optics: OpticsConfig = field(default_factory=OpticsConfig)
    camera: CameraConfig = field(default_factory=lambda: CameraConfig(dead_time_us=20.0))
    flux: FluxConfig = field(default_factory=FluxConfig)
    observation: ObservationConfig = field(default_factory=lambda: ObservationConfig(*CRAB))
    clock: ClockConfig = field(default_factory=ClockConfig)
    interleaved: InterleavedConfig = field(default_factory=InterleavedConfig)

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or that do not fit together."""
        super().validate()
        unknown = sorted(set(self.background) - set(BACKGROUND))
        if unknown or len(set(self.background)) < len(self.background):
            what = f"'{unknown[0]}' in it is not known" if unknown else "one of them is there twice"
            raise UsageError(
                f"background is {list(self.background)}, and {what}: give some of "
                f"{', '.join(BACKGROUND)}."
            )
        between = self.interleaved
        levels = between.flatfield_pe
        if between.flatfield_hz and not (
            levels and all(0 < level < HIGHEST_FLASH_PE for level in levels)
        ):
            raise UsageError(
                f"interleaved.flatfield_pe is {list(levels)}: give signals above 0 and below "
                f"{HIGHEST_FLASH_PE:g} p.e. for the flashes."
            )


@dataclass
class PreprocessConfig(FilesConfig):
    """Options of `astri-gpu preprocess`."""

    input: Any = option(
        REQUIRED,
        help="folder of a run's packet files, its description (.run.yaml), or packet files",
    )
    output: str = option(REQUIRED, help="folder to write: DL0 files, quarantine files, record")
    descriptor: str | None = option(
        None, help=f"{DESCRIPTOR_HELP}; null = the one that the description names"
    )
    wait_s: float = option(
        0.0,
        low=0,
        high=86400,
        unit="s",
        help="how long to wait for the run to be complete (its description is written last)",
    )
    block_mb: float = option(
        8.0, above=0, high=4096, unit="MB", help="bytes of a packet file that are handled at once"
    )
    max_gap_s: float = option(
        10.0, above=0, high=86400, unit="s", help="larger steps of time between packets are counted"
    )
    on_error: str = option(
        "stop",
        choices=["stop", "skip"],
        help="what a file that cannot be read, or is of another run, does: stop, or skip",
    )
    overwrite: bool = option(False, help="replace an existing output")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


@dataclass
class BuildEventsConfig(FilesConfig):
    """Options of `astri-gpu build-events`."""

    input: Any = option(
        REQUIRED, help="folder of the DL0 files of one run, or its DL0 files of events (0201)"
    )
    output: str = option(REQUIRED, help="file of stereo events to write (SEB0, .fits)")
    window_half_width_us: float = option(
        0.3, above=0, high=1000, unit="us", help="events closer than this belong together"
    )
    time_of_flight: bool = option(
        True, help="whether times are corrected for the way of light along the pointing"
    )
    offset_range_us: float = option(
        100.0,
        low=0,
        high=1e6,
        unit="us",
        help="largest difference of clocks that is looked for first; 0 = clocks are taken as right",
    )
    jump_range_ms: float = option(
        20.0, low=0, high=1e3, unit="ms", help="looked for where nothing is found within that range"
    )
    profile_step_us: float = option(
        0.1,
        low=0.001,
        high=100,
        unit="us",
        help="bins of the correlograms that are written and drawn",
    )
    interval_s: float = option(
        30.0, above=0, high=3600, unit="s", help="clock offsets are found for such parts of the run"
    )
    truth: str | None = option(
        None,
        help="truth file of a simulated run, or its folder: efficiency and purity are measured",
    )
    dpi: int = option(130, low=20, high=600, unit="dots per inch", help="resolution of pictures")
    overwrite: bool = option(False, help="replace an existing output")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")


@dataclass
class CalibrateConfig(FilesConfig):
    """Options of `astri-gpu calibrate`."""

    input: Any = option(
        REQUIRED,
        help="folder of the DL0 files of one run, or its files of calibration events (0101)",
    )
    output: str = option(REQUIRED, help="file of camera constants to write (CAL1, .fits)")
    interval_s: float | None = option(
        None,
        above=0,
        unit="s",
        help="constants for such parts of the run; null = one set for all of it",
    )
    crosstalk: float = option(
        0.10, low=0, high=0.5, help="probability that an avalanche starts another one"
    )
    gain_spread: float = option(
        0.06, low=0, high=1, help="relative standard deviation of the charge of an avalanche"
    )
    saturation_adc: float = option(
        4000.0, above=0, unit="ADC counts", help="counts from which a gain counts as saturated"
    )
    min_events: int = option(
        50,
        low=10,
        unit="events",
        help="least pedestals, and flashes of each of two levels of light; parts of the run with "
        "fewer are joined",
    )
    noisy_factor: float = option(
        2.0,
        above=1,
        help="a pixel is noisy with a pedestal that spreads so many times that of the median pixel",
    )
    response_min: float = option(
        0.3,
        low=0,
        high=1,
        help="a pixel is dead that answers light with less than this share of the median pixel",
    )
    on_error: str = option(
        "stop",
        choices=["stop", "skip"],
        help="what a telescope does that cannot be calibrated: stop, or be left out",
    )
    dpi: int = option(130, low=20, high=600, unit="dots per inch", help="resolution of the picture")
    overwrite: bool = option(False, help="replace an existing output")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
