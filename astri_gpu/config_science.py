"""Options of `astri-gpu science` and `astri-gpu provenance`; `config.py` registers the stages."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from astri_gpu.errors import UsageError
from astri_gpu.options import REQUIRED, FilesConfig, Section, option, path_list

__all__ = ["DetectionConfig", "LightCurveConfig", "ProvenanceConfig", "ScienceConfig", "SedConfig"]


@dataclass
class DetectionConfig(Section):
    """Counts around the target, and maps."""

    section: ClassVar[str] = "detection"

    on_radius_deg: float = option(
        0.1, above=0, high=5, unit="deg", help="of the on region (full-enclosure responses)"
    )
    n_off: int = option(
        5,
        low=1,
        high=100,
        unit="regions",
        help="off regions of the theta-squared plot, and of responses with RAD_MAX",
    )
    theta2_max_deg2: float = option(0.3, above=0, high=10, unit="deg2", help="end of that plot")
    n_theta2: int = option(30, low=2, high=1000, unit="bins", help="of that plot")
    map_width_deg: float = option(3.0, above=0, high=20, unit="deg", help="side of the maps")
    map_bin_deg: float = option(0.02, above=0, high=1, unit="deg", help="side of a pixel")
    map_bins_per_decade: int = option(
        5, low=1, high=100, unit="bins", help="of energy in the stored map dataset"
    )
    ring_radius_deg: float = option(
        0.5, above=0, high=5, unit="deg", help="inner radius of the ring of the background"
    )
    ring_width_deg: float = option(0.3, above=0, high=5, unit="deg", help="width of the ring")
    exclude_target_deg: float = option(
        0.3, low=0, high=5, unit="deg", help="around the target is no background of the maps"
    )
    correlation_deg: float = option(
        0.1, above=0, high=5, unit="deg", help="radius within which counts are summed up"
    )


@dataclass
class SedConfig(Section):
    """Spectrum: energies, model, flux points."""

    section: ClassVar[str] = "sed"

    energy_min_tev: float | None = option(
        None,
        above=0,
        unit="TeV",
        help="lowest reconstructed energy; null = where the effective area gets large enough",
    )
    energy_max_tev: float | None = option(
        None, above=0, unit="TeV", help="highest reconstructed energy; null = where they end"
    )
    bins_per_decade: int = option(
        10, low=1, high=100, unit="bins", help="of reconstructed energy in the fit"
    )
    true_bins_per_decade: int = option(20, low=1, high=200, unit="bins", help="of true energy")
    model: str = option(
        "power_law", choices=["power_law", "log_parabola", "exp_cutoff"], help="that is fitted"
    )
    reference_tev: float = option(1.0, above=0, unit="TeV", help="energy of the amplitude")
    points_per_decade: int = option(5, low=1, high=50, unit="points", help="flux points")
    min_significance: float = option(
        3.0,
        low=0,
        help="below it only the amplitude is fitted, and the flux points are upper limits",
    )
    faint_index: float = option(
        2.5, above=0, high=10, help="spectral index that is assumed for a source as faint as that"
    )
    safe_aeff_percent: float = option(
        5.0,
        low=0,
        high=100,
        unit="%",
        help="energies with less than this share of the largest effective area are left out",
    )


@dataclass
class LightCurveConfig(Section):
    """Flux against time."""

    section: ClassVar[str] = "light_curve"

    energy_min_tev: float = option(1.0, above=0, unit="TeV", help="lower end of the integral flux")
    bin_s: float | None = option(
        None, above=0, unit="s", help="length of a time bin; null = one per run"
    )


@dataclass
class ScienceConfig(FilesConfig):
    """Options of `astri-gpu science`."""

    input: Any = option(
        REQUIRED, help="folder with index files (GADF), or event lists with their responses"
    )
    output: str = option(
        REQUIRED, help="folder to write: report.html, pictures, tables, maps, datasets, models"
    )
    target: str | None = option(None, help="name of the target; null = from the event lists")
    ra_deg: float | None = option(
        None, low=0, high=360, unit="deg", help="target, ICRS; null = from the event lists"
    )
    dec_deg: float | None = option(
        None, low=-90, high=90, unit="deg", help="target, ICRS; null = from the event lists"
    )
    runs: list[int] = option([], help="numbers of the runs (OBS_ID) to use; [] = all")
    exclude: list[str] = option(
        [], help="circles that are no background, as RA,DEC,RADIUS in deg (83.63,22.01,0.3)"
    )
    max_offset_deg: float = option(
        5.0,
        above=0,
        high=20,
        unit="deg",
        help="runs pointed farther from the target are left out, in maps events too",
    )
    response: Any = option(
        None, help="response files where the input is event lists without index files"
    )
    on_error: str = option(
        "stop", choices=["stop", "skip"], help="what a bad run does among several: stop, or skip"
    )
    dpi: int = option(130, low=20, high=600, unit="dots per inch", help="resolution of pictures")
    overwrite: bool = option(False, help="replace an existing output")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    sed: SedConfig = field(default_factory=SedConfig)
    light_curve: LightCurveConfig = field(default_factory=LightCurveConfig)

    def validate(self) -> None:
        """Raise a `UsageError` for a target that is half given, or a circle that is none."""
        super().validate()
        self.circles()
        if self.response is not None:
            path_list(self.response, "response")
        if (self.ra_deg is None) != (self.dec_deg is None):
            raise UsageError("ra_deg and dec_deg are the place of the target: give both or neither")
        low, high = self.sed.energy_min_tev, self.sed.energy_max_tev
        if low is not None and high is not None and low >= high:
            raise UsageError(
                f"sed.energy_min_tev={low:g} is not below sed.energy_max_tev={high:g}: change one."
            )

    def circles(self) -> list[tuple[float, float, float]]:
        """Return `exclude` as right ascension, declination and radius, deg.

        Raises
        ------
        UsageError
            When one is not written as three numbers within their ranges.
        """
        found = []
        for text in self.exclude:
            try:
                ra, dec, radius = (float(word) for word in str(text).split(","))
            except ValueError:
                ra = dec = radius = math.nan
            if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 20):
                raise UsageError(
                    f"exclude has '{text}', which is no circle: write RA,DEC,RADIUS in deg, "
                    "such as 83.63,22.01,0.3."
                )
            found.append((ra, dec, radius))
        return found


@dataclass
class ProvenanceConfig(Section):
    """Options of `astri-gpu provenance`."""

    input: str = option(REQUIRED, help="product: store, FITS file, models, folder of products")
    search: Any = option(
        None, help="folders in which inputs that have moved are looked for, by their checksums"
    )
    output: str | None = option(
        None, help="file to write the chain into: W3C PROV (.json, .provn, .xml); null = none"
    )
    check: bool = option(
        True, help="compare checksums of all files, which reads every byte of them"
    )
    full: bool = option(False, help="show every input, however many of a kind a step has")
    overwrite: bool = option(False, help="replace an existing file")
    debug: bool = option(False, help="show the traceback of an error")
