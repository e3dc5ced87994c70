"""Options of `astri-gpu simulate`; `config.py` registers them as a stage.

Values that ASTRI has not published are our choices, and say so.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from astri_gpu.config_sections import BackendConfig, ExecutionConfig
from astri_gpu.errors import UsageError
from astri_gpu.options import REQUIRED, Section, option, path_list

__all__ = [
    "ArrayConfig",
    "AtmosphereConfig",
    "CalibrationEventsConfig",
    "CameraConfig",
    "OpticsConfig",
    "ShowerConfig",
    "SimulateConfig",
    "SpectrumConfig",
    "ViewConfig",
]

PRODUCTIONS = ("gamma", "electron", "proton", "helium", "muon")


@dataclass
class ArrayConfig(Section):
    """Where telescopes stand."""

    section: ClassVar[str] = "array"

    layout: str = option(
        "mini_array",
        help="mini_array (nine telescopes at made-up places), single, or a YAML file: "
        "telescopes: [{id, x_north_m, y_west_m, z_m}]",
    )


@dataclass
class AtmosphereConfig(Section):
    """Air above the array."""

    section: ClassVar[str] = "atmosphere"

    profile: str = option(
        "teide",
        help="teide (built in, mean subtropical air), or a file with the columns altitude (km), "
        "density (g/cm3), thickness (g/cm2), n - 1",
    )
    observation_level_m: float = option(
        2370.0, low=0, high=5000, unit="m", help="height of the array above the sea"
    )
    aerosol_optical_depth: float = option(
        0.06, low=0, high=2, help="vertical, above the sea, at 400 nm"
    )
    aerosol_scale_height_m: float = option(
        1200.0, above=0, high=10000, unit="m", help="scale height of the aerosols"
    )
    magnetic_field_ut: float = option(
        38.7,
        low=0,
        high=70,
        unit="uT",
        help="strength of the Earth's field; its direction is averaged",
    )
    extinction: bool = option(True, help="whether light is absorbed and scattered on its way")


@dataclass
class SpectrumConfig(Section):
    """Energies thrown; null takes the default of the particle."""

    section: ClassVar[str] = "spectrum"

    index: float = option(-1.7, low=-4, high=0, help="of dN/dE ~ E^index")
    energy_min_tev: float | None = option(None, above=0, unit="TeV", help="lowest energy")
    energy_max_tev: float | None = option(None, above=0, high=1000, unit="TeV", help="highest")


@dataclass
class ViewConfig(Section):
    """Pointing, directions and cores; null takes the default of the particle."""

    section: ClassVar[str] = "view"

    zenith_deg: float = option(20.0, low=0, high=60, unit="deg", help="zenith of the pointing")
    azimuth_deg: float = option(
        0.0, low=0, high=360, unit="deg", help="azimuth of the pointing, North over East"
    )
    cone_min_deg: float = option(
        0.0, low=0, high=10, unit="deg", help="smallest angle from the pointing"
    )
    cone_max_deg: float | None = option(
        None, low=0, high=10, unit="deg", help="largest angle from the pointing"
    )
    scatter_radius_m: float | None = option(
        None, above=0, high=2500, unit="m", help="radius of the disc of cores"
    )


@dataclass
class ShowerConfig(Section):
    """The shower model: how fine it is."""

    section: ClassVar[str] = "shower"

    step_depth: float = option(
        15.0, low=2, high=60, unit="g/cm2", help="steps along the shower, of slant depth"
    )
    thinning: float = option(
        0.004, low=0, high=0.1, help="share of the energy below which sub-showers are thinned"
    )
    tables: str = option(
        "standard",
        choices=["standard", "draft"],
        help="light tables from many simulated cascades, or from few (tests)",
    )


@dataclass
class OpticsConfig(Section):
    """From light on the mirror to light in the focal plane (values not published: our choice)."""

    section: ClassVar[str] = "optics"

    mirror_area_m2: float = option(9.0, above=0, high=100, unit="m2", help="area after obscuration")
    mirror_radius_m: float = option(2.15, above=0, high=10, unit="m", help="radius of the aperture")
    throughput: float = option(
        1.0, above=0, high=1.5, help="factor on the light of every telescope (ageing, dirt)"
    )
    psf_sigma_deg: float = option(
        0.065, low=0, high=1, unit="deg", help="standard deviation of the image of a point per axis"
    )
    psf_edge_sigma_deg: float = option(
        0.075, low=0, high=1, unit="deg", help="the same 5 degrees off axis"
    )
    edge_transmission: float = option(
        0.85, above=0, high=1, help="light 5 degrees off axis over light on axis (vignetting)"
    )


@dataclass
class CameraConfig(Section):
    """SiPM, CITIROC, trigger (values not published: our choice; gains from a prod3 file)."""

    section: ClassVar[str] = "camera"

    night_sky_mhz: float = option(
        45.0, low=0, high=5000, unit="MHz", help="p.e. of the night sky per pixel"
    )
    dark_count_mhz: float = option(2.0, low=0, high=100, unit="MHz", help="dark counts per pixel")
    crosstalk: float = option(
        0.10, low=0, high=0.5, help="probability that an avalanche starts another one"
    )
    gain_spread: float = option(
        0.06, low=0, high=1, help="relative standard deviation of the charge of an avalanche"
    )
    gain_adu: list[float] = option(
        [62.5, 1.5625], unit="ADC counts", help="counts per avalanche, high and low gain"
    )
    baseline_adu: list[float] = option(
        [971.0, 961.0], unit="ADC counts", help="counts without light and noise, high and low gain"
    )
    noise_adu: list[float] = option(
        [12.0, 1.0], unit="ADC counts", help="electronic noise, high and low gain"
    )
    gain_dispersion: float = option(
        0.02, low=0, high=0.5, help="relative spread of the gains over pixels"
    )
    efficiency_dispersion: float = option(
        0.03, low=0, high=0.5, help="relative spread of the efficiency over pixels"
    )
    constants_seed: int = option(
        1, low=0, high=2**63 - 1, help="draws gains and efficiencies: the same in all productions"
    )
    dead_fraction: float = option(0.0, low=0, high=0.5, help="share of pixels that see nothing")
    noisy_fraction: float = option(
        0.0, low=0, high=0.5, help="share of pixels with ten times the night sky"
    )
    peaking_time_ns: float = option(
        37.5, above=0, high=200, unit="ns", help="of the slow shaper, which the peak detector sees"
    )
    fast_peaking_time_ns: float = option(
        15.0, above=0, high=200, unit="ns", help="of the fast shaper, which the trigger sees"
    )
    gate_ns: float = option(
        40.0,
        above=0,
        high=1000,
        unit="ns",
        help="the peak detector is open this long, around the peak of light that triggers",
    )
    ac_coupling: bool = option(
        False, help="whether the mean of night sky and dark counts is removed from the signal"
    )
    adc_max: int = option(4095, low=255, high=65535, unit="ADC counts", help="end of the scale")
    trigger_threshold_pe: float = option(
        7.0, above=0, unit="p.e.", help="of one pixel in the trigger"
    )
    trigger_pixels: int = option(
        5, low=1, high=64, unit="pixels", help="contiguous pixels of one module above threshold"
    )
    coincidence_ns: float = option(
        30.0, above=0, unit="ns", help="adjacent pixels of a trigger are this close in time"
    )
    dead_time_us: float = option(
        0.0, low=0, unit="us", help="a telescope is blind this long after a trigger"
    )


@dataclass
class CalibrationEventsConfig(Section):
    """Events of every telescope before the showers, for its constants."""

    section: ClassVar[str] = "calibration_events"

    n_pedestal: int = option(0, low=0, unit="events", help="forced triggers on the night sky")
    n_flatfield: int = option(0, low=0, unit="events", help="uniform light flashes")
    n_dark: int = option(0, low=0, unit="events", help="forced triggers with the lid closed")
    n_variance: int = option(0, low=0, unit="images", help="variance images")
    flatfield_pe: list[float] = option(
        [40.0, 80.0], unit="p.e.", help="mean signals of the flashes, one after the other"
    )


@dataclass
class SimulateConfig(Section):
    """Options of `astri-gpu simulate`."""

    production: str = option("gamma", choices=PRODUCTIONS, help="primary particle")
    source: str = option(
        "model",
        choices=["model", "corsika"],
        help="light of the built-in shower model, or of CORSIKA IACT files",
    )
    input: Any = option(None, help="CORSIKA IACT file, list or pattern (source=corsika)")
    output: str = option(REQUIRED, help="store to write (a directory), or a directory of parts")
    n_showers: int = option(
        100_000, low=1, high=4_000_000_000, unit="showers", help="showers to throw"
    )
    n_uses: int = option(1, low=1, high=1000, help="times each shower is used, at other cores")
    first_shower: int = option(
        0, low=0, high=4_000_000_000, help="number of the first shower (parts of a production)"
    )
    seed: int = option(1, low=0, high=10**17, help="of all random numbers")
    obs_id: int | None = option(
        None,
        low=0,
        help="observation number; null = ten times the seed, plus one per particle; parts count on "
        "from it, from ten thousand times it plus one where it is null",
    )
    event_rate_hz: float = option(
        1000.0, above=0, unit="Hz", help="thrown showers per second (event times)"
    )
    true_images: bool = option(False, help="store true photo-electrons of every pixel")
    n_parts: int = option(
        1,
        low=1,
        high=9999,
        unit="stores",
        help="parts of the production; several are written to output/part_0000.zarr and so on",
    )
    on_error: str = option(
        "stop", choices=["stop", "skip"], help="what a bad part does among several: stop, or skip"
    )
    overwrite: bool = option(False, help="replace an existing output")
    batch_size: int = option(
        16384, low=1, high=1_048_576, unit="showers", help="showers in one batch"
    )
    images_per_chunk: int = option(1024, low=1, high=65536, unit="images", help="Zarr chunk length")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    backend: BackendConfig = field(default_factory=BackendConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    array: ArrayConfig = field(default_factory=ArrayConfig)
    atmosphere: AtmosphereConfig = field(default_factory=AtmosphereConfig)
    spectrum: SpectrumConfig = field(default_factory=SpectrumConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    shower: ShowerConfig = field(default_factory=ShowerConfig)
    optics: OpticsConfig = field(default_factory=OpticsConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    calibration_events: CalibrationEventsConfig = field(default_factory=CalibrationEventsConfig)

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or that do not fit together."""
        super().validate()
        if (self.source == "corsika") != (self.input is not None):
            raise UsageError(
                "input=... belongs to source=corsika: give both, or neither for the built-in model."
            )
        if self.n_parts > 1 and self.source == "corsika":
            raise UsageError(
                f"n_parts is {self.n_parts}: a CORSIKA file is one part; give several files."
            )
        if self.n_parts > self.n_showers:
            raise UsageError(
                f"n_parts is {self.n_parts}: there are only {self.n_showers} showers (n_showers)."
            )

    def inputs(self) -> list[str]:
        """Return `input` as a list of paths or patterns."""
        return path_list(self.input)
