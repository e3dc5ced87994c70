"""Options of `astri-gpu optimize`, `irf`, `select` and `check`; `config.py` registers the stages.

Grids, ranges and classes that ASTRI has not published are our choices, and say so in `configs/`.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from astri_gpu.config_reconstruction import FeaturesConfig, ForestConfig, SampleConfig
from astri_gpu.config_sections import (
    BackendConfig,
    CalibrationConfig,
    CleaningConfig,
    ExecutionConfig,
    ParameterConfig,
    StereoConfig,
)
from astri_gpu.errors import UsageError
from astri_gpu.options import REQUIRED, FilesConfig, Section, option, path_list

__all__ = [
    "BinningConfig",
    "CheckConfig",
    "CutsConfig",
    "FluxConfig",
    "IrfConfig",
    "ObservationConfig",
    "OptimizeConfig",
    "SelectConfig",
]

CRAB = ("Crab", 83.6287, 22.0147)
"""Name and place (ICRS, deg) of the target that simulated events stand in for."""

PARTS = ("all", "even", "odd")
PART_HELP = (
    "which showers are used: all, or only those of even or odd number, so that cuts are not judged "
    "on the events that they were tuned on"
)


@dataclass
class CutsConfig(Section):
    """How events are selected, in bins of reconstructed energy."""

    section: ClassVar[str] = "cuts"

    event_class: str = option("cc03", help="name of the class, written into every product")
    mode: str = option(
        "sensitivity",
        choices=["sensitivity", "efficiency"],
        help="best sensitivity for an exposure, or a fixed share of gammas kept",
    )
    exposure_h: float = option(
        50.0, above=0, high=100000, unit="h", help="observing time that sensitivities are for"
    )
    gamma_efficiency: float = option(
        0.7, above=0, high=1, help="share of gammas that mode=efficiency keeps, per energy bin"
    )
    theta_efficiency: float = option(
        0.68, above=0, high=1, help="share of gammas inside the theta cut, of mode=efficiency"
    )
    filter: str = option(
        "reco_n_tels >= 1", help="condition on columns of dl2/event, before anything else"
    )
    energy_min_tev: float = option(
        0.316227766, above=0, unit="TeV", help="lower edge of the first bin of reconstructed energy"
    )
    energy_max_tev: float = option(
        316.227766, above=0, unit="TeV", help="upper edge of the last bin of reconstructed energy"
    )
    bins_per_decade: int = option(5, low=1, high=50, unit="bins", help="in a factor of ten")
    gammaness_efficiencies: list[float] = option(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95],
        help="shares of gammas kept by the gammaness cuts to be tried",
    )
    theta_efficiencies: list[float] = option(
        [0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9],
        help="shares of gammas kept by the theta cuts to be tried",
    )
    multiplicities: list[int] = option(
        [2, 3, 4], help="least numbers of telescopes to be tried (reco_n_tels)"
    )
    qualities: list[int] = option(
        [4], help="worst event types to be tried (event_quality: 1 best to 4 worst)"
    )
    min_theta_deg: float = option(0.02, low=0, unit="deg", help="smallest theta cut")
    max_theta_deg: float = option(0.3, above=0, high=10, unit="deg", help="largest theta cut")
    offset_min_deg: float = option(
        0.0, low=0, high=10, unit="deg", help="smallest offset of gammas"
    )
    offset_max_deg: float = option(
        1.0, above=0, high=10, unit="deg", help="largest offset of gammas"
    )
    background_offset_min_deg: float = option(
        0.0, low=0, high=10, unit="deg", help="smallest offset of background"
    )
    background_offset_max_deg: float = option(
        2.5,
        above=0,
        high=10,
        unit="deg",
        help="largest offset of background, which is taken as even over the ring",
    )
    alpha: float = option(0.2, above=0, high=10, help="on region over off regions")
    min_significance: float = option(5.0, above=0, help="Li and Ma, of a detection")
    min_signal_events: float = option(10.0, low=0, unit="events", help="of a detection")
    min_excess: float = option(0.05, low=0, help="least excess over background of a detection")
    min_gamma_events: int = option(
        10, low=0, unit="events", help="simulated gammas that a cut has to leave"
    )
    min_background_events: int = option(
        10,
        low=0,
        unit="events",
        help="simulated background events in the ring that a cut has to leave to be trusted; "
        "where none does, the loosest cut is taken and flagged",
    )

    def validate(self) -> None:
        """Raise a `UsageError` for values that do not fit together."""
        super().validate()
        for low, high in (
            ("energy_min_tev", "energy_max_tev"),
            ("min_theta_deg", "max_theta_deg"),
            ("offset_min_deg", "offset_max_deg"),
            ("background_offset_min_deg", "background_offset_max_deg"),
        ):
            if getattr(self, low) >= getattr(self, high):
                raise UsageError(
                    f"cuts.{low} is {getattr(self, low):g} and cuts.{high} "
                    f"{getattr(self, high):g}: the second has to be larger"
                )
        for name, smallest, largest in (
            ("gammaness_efficiencies", 0.0, 1.0),
            ("theta_efficiencies", 0.0, 1.0),
            ("multiplicities", 0, 1000),
            ("qualities", 1, 4),
        ):
            values = getattr(self, name)
            if not values:
                raise UsageError(f"cuts.{name} is empty: give at least one value")
            if sorted(set(values)) != list(values):
                raise UsageError(f"cuts.{name} is {values}: give rising values, none twice")
            if not all(smallest <= value <= largest for value in values):
                raise UsageError(f"cuts.{name} is {values}: give {smallest:g} to {largest:g}")


@dataclass
class FluxConfig(Section):
    """Spectra that simulated particles are weighted to.

    A name of `astri_gpu.selection.spectra`, or powerlaw:NORM:INDEX with NORM per TeV s m2 (and sr
    but for gammas) at 1 TeV.
    """

    section: ClassVar[str] = "flux"

    gamma: str = option("crab_hegra", help="of the point source")
    proton: str = option("irfdoc_proton", help="of protons")
    electron: str = option("irfdoc_electron", help="of electrons and positrons")
    helium: str = option("horandel_helium", help="of helium nuclei")


@dataclass
class OptimizeConfig(FilesConfig):
    """Options of `astri-gpu optimize`.

    Inputs below DL2b are brought there first (process, train, reconstruct), with the options of
    those stages; what has been made before is taken from the cache.
    """

    input: Any = option(
        REQUIRED,
        help="stores of simulated gammas and background: DL2b, or DL0 and DL2a together with train",
    )
    output: str = option(REQUIRED, help="file of cuts to write (.fits)")
    train: Any = option(
        None, help="DL0 or DL2a stores to train forests on, for inputs that are not DL2b yet"
    )
    model: str | None = option(
        None, help="file of models for inputs that are not DL2b yet, instead of train"
    )
    cache: str = option(
        "astri_gpu_cache", help="folder for what is made of inputs that are not DL2b yet"
    )
    part: str = option("all", choices=PARTS, help=PART_HELP)
    score: str = option(
        "sensitivity",
        choices=["sensitivity", "energy_min"],
        help="what a sweep makes small: the mean log10 of the sensitivity over that of the "
        "published curve, or log10 of the lowest energy that reaches twice the best",
    )
    overwrite: bool = option(False, help="replace an existing output")
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
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    forest: ForestConfig = field(default_factory=ForestConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    cuts: CutsConfig = field(default_factory=CutsConfig)
    flux: FluxConfig = field(default_factory=FluxConfig)


@dataclass
class BinningConfig(Section):
    """Bins of instrument response functions."""

    section: ClassVar[str] = "binning"

    energy_min_tev: float = option(0.005, above=0, unit="TeV", help="lower edge of all energies")
    energy_max_tev: float = option(500.0, above=0, unit="TeV", help="upper edge of all energies")
    n_energies: int = option(
        150, low=1, high=1000, unit="bins", help="fine bins of energy, of equal ratio"
    )
    offset_max_deg: float = option(5.0, above=0, high=15, unit="deg", help="largest offset")
    n_offsets: int = option(50, low=1, high=200, unit="bins", help="fine bins of the offset")
    group_true: int = option(3, low=1, high=100, help="fine bins in one of true energy")
    group_reco: int = option(6, low=1, high=100, help="fine bins in one of reconstructed energy")
    group_offset: int = option(5, low=1, high=100, help="fine bins in one of the offset")
    migra_min: float = option(0.2, above=0, help="smallest reconstructed over true energy")
    migra_max: float = option(5.0, above=0, help="largest reconstructed over true energy")
    n_migra: int = option(60, low=2, high=1000, unit="bins", help="of that ratio, equal in log")
    rad_max_deg: float = option(
        1.0, above=0, high=10, unit="deg", help="largest distance of the point spread function"
    )
    n_rad: int = option(100, low=2, high=2000, unit="bins", help="of the point spread function")
    n_detector: int = option(
        50, low=2, high=200, unit="bins", help="fine bins of each side of the background's field"
    )
    group_detector: int = option(5, low=1, high=100, help="fine bins in one of the field")

    def validate(self) -> None:
        """Raise a `UsageError` for bins that do not fit together."""
        super().validate()
        if self.energy_min_tev >= self.energy_max_tev:
            raise UsageError("binning.energy_min_tev is not below binning.energy_max_tev")
        if not self.migra_min < 1 < self.migra_max:
            raise UsageError("binning.migra_min to binning.migra_max does not hold 1")
        for group, number in (
            ("group_true", "n_energies"),
            ("group_reco", "n_energies"),
            ("group_offset", "n_offsets"),
            ("group_detector", "n_detector"),
        ):
            if getattr(self, number) % getattr(self, group):
                raise UsageError(
                    f"binning.{number} is {getattr(self, number)}, which is not a multiple of "
                    f"binning.{group} ({getattr(self, group)}): change one of them"
                )


@dataclass
class IrfConfig(FilesConfig):
    """Options of `astri-gpu irf`."""

    input: Any = option(
        REQUIRED, help="DL2b stores of simulated gammas and background, one or several zeniths"
    )
    cut_files: Any = option(
        REQUIRED, help="files of cuts that `astri-gpu optimize` wrote: one, a list, or a pattern"
    )
    output: str = option(
        REQUIRED, help="folder to write: response files of every class, curves, pictures"
    )
    point_like: bool = option(
        False, help="apply the theta cut and write RAD_MAX; false = full enclosure"
    )
    psf: str = option(
        "gauss", choices=["gauss", "table"], help="form of the point spread function in DL3 files"
    )
    n_bootstrap: int = option(
        100, low=0, high=10000, help="drawn samples for statistical errors; 0 = none"
    )
    seed: int = option(1, low=0, help="of the drawn samples")
    exposures_h: list[float] = option(
        [0.5, 5.0, 50.0], unit="h", help="observing times of the sensitivity curves"
    )
    reference: str | None = option(
        None, help="response file (GADF) of another array, drawn beside the curves"
    )
    part: str = option("all", choices=PARTS, help=PART_HELP)
    dpi: int = option(130, low=20, high=600, unit="dots per inch", help="resolution of pictures")
    overwrite: bool = option(False, help="replace an existing output")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    backend: BackendConfig = field(default_factory=BackendConfig)
    binning: BinningConfig = field(default_factory=BinningConfig)
    flux: FluxConfig = field(default_factory=FluxConfig)

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or paths that are none."""
        super().validate()
        path_list(self.cut_files, "cut_files")
        if not all(exposure > 0 for exposure in self.exposures_h):
            raise UsageError(f"exposures_h is {self.exposures_h}: give times above 0 h")


@dataclass
class ObservationConfig(Section):
    """What was observed, or what simulated events stand in for."""

    section: ClassVar[str] = "observation"

    target: str | None = option(
        None,
        help="name of the target, written as OBJECT; null = that of the run, the Crab where "
        "simulated events stand in",
    )
    ra_deg: float | None = option(
        None, low=0, high=360, unit="deg", help="target, ICRS; null = that of the run, as above"
    )
    dec_deg: float | None = option(
        None, low=-90, high=90, unit="deg", help="target, ICRS; null = that of the run, as above"
    )
    wobble_offset_deg: float = option(
        0.5, low=0, high=5, unit="deg", help="of the pointing from the target"
    )
    wobble_angles_deg: list[float] = option(
        [0.0, 180.0, 90.0, 270.0],
        unit="deg",
        help="position angles (North over East) of the pointing, for one run after the other",
    )
    n_runs: int = option(4, low=1, high=10000, unit="runs", help="observation runs to make")
    duration_s: float = option(1800.0, above=0, high=86400, unit="s", help="length of a run")
    dead_time: float | None = option(
        None,
        low=0,
        high=0.99,
        help="share of the time in which the array is blind; null = as the run says, else 0",
    )
    night: str = option(
        "2026-01-15", help="date of the evening (UTC); runs begin where the zenith angle fits"
    )
    gti: list[str] = option(
        [],
        help="good time intervals as START/STOP in UTC (2026-01-15T22:00:00/2026-01-15T22:20:00); "
        "[] = the whole run",
    )
    first_obs_id: int = option(1, low=0, high=2**31 - 1, help="number of the first run")
    seed: int = option(1, low=0, help="draws events where simulated ones stand in")

    def place(self) -> tuple[str, float, float]:
        """Return name, right ascension and declination (deg) of the target; where null, Crab's."""
        name, ra_deg, dec_deg = CRAB
        return (
            name if self.target is None else self.target,
            ra_deg if self.ra_deg is None else self.ra_deg,
            dec_deg if self.dec_deg is None else self.dec_deg,
        )


@dataclass
class SelectConfig(FilesConfig):
    """Options of `astri-gpu select`."""

    input: Any = option(
        REQUIRED,
        help="DL2b store of an observation, or stores of simulated gammas and background that "
        "stand in for one",
    )
    cut_file: str = option(REQUIRED, help="file of cuts that `astri-gpu optimize` wrote")
    response: str = option(
        REQUIRED, help="response file (IRF2) of the same class that `astri-gpu irf` wrote"
    )
    output: str = option(
        REQUIRED, help="folder to write: event lists, response files, index files (GADF)"
    )
    part: str = option("all", choices=PARTS, help=PART_HELP)
    max_zenith_distance_deg: float = option(
        5.0,
        above=0,
        high=90,
        unit="deg",
        help="farthest zenith angle from those of the response (and of standing-in events)",
    )
    overwrite: bool = option(False, help="replace an existing output")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    flux: FluxConfig = field(default_factory=FluxConfig)
    observation: ObservationConfig = field(default_factory=ObservationConfig)


@dataclass
class CheckConfig(Section):
    """Options of `astri-gpu check`."""

    input: Any = option(
        REQUIRED, help="event lists, response files or index files (GADF v0.3): one, list, pattern"
    )
    strict: bool = option(False, help="whether recommendations that are not followed fail too")
    output: str | None = option(None, help="table of findings to write (.ecsv); null = none")
    overwrite: bool = option(False, help="replace an existing output")
    debug: bool = option(False, help="show the traceback of an error")

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or paths that are none."""
        super().validate()
        path_list(self.input)

    def inputs(self) -> list[str]:
        """Return `input` as a list of paths or patterns."""
        return path_list(self.input)
