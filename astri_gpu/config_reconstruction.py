"""Options of `astri-gpu train` and `astri-gpu reconstruct`; `config.py` registers the stages."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from astri_gpu.config_sections import BackendConfig, ExecutionConfig
from astri_gpu.errors import UsageError
from astri_gpu.options import REQUIRED, FilesConfig, Section, option

__all__ = [
    "FeaturesConfig",
    "ForestConfig",
    "ReconstructConfig",
    "SampleConfig",
    "TrainConfig",
]

_SHAPE = [
    "log10(hillas_intensity)",
    "hillas_width",
    "hillas_length",
    "log10(hillas_intensity / (hillas_width * hillas_length))",
    "astri_conc",
]
_ENERGY = [*_SHAPE, "astri_leakage", "hillas_r"]
_DISP = [
    "log10(hillas_intensity)",
    "hillas_width",
    "hillas_length",
    "hillas_length / hillas_width",
    "astri_leakage",
    "astri_asym",
    "astri_m3long",
    "hillas_skewness",
]
_GEOMETRY = ["log10(stereo_impact_distance)", "stereo_h_max", "stereo_n_tels"]
_EVENT = [
    "n_images",
    "log10(sum_intensity)",
    "log10(max_intensity)",
    "log10(mean_impact)",
    "stereo_h_max",
]
_SPREADS = [
    "mean_log_energy",
    "spread_log_energy",
    "log10(disp_spread + 1e-4)",
    "log10(disp_stereo_distance + 1e-4)",
]


@dataclass
class FeaturesConfig(Section):
    """What the forests look at: expressions of columns (`astri_gpu.reconstruction.expressions`).

    Images of events with stereo geometry use the stereo lists, others the image lists. Where a
    stereo list is empty all images use the image list.
    """

    section: ClassVar[str] = "features"

    filter: str = option(
        "hillas_intensity > 50 and astri_num_island < 2 and astri_num_core > 2 "
        "and astri_leakage < 0.1 and hillas_length > 0 and hillas_width > 0",
        help="condition for images that are trained on and reconstructed; others have no part",
    )
    image_energy: list[str] = option(_ENERGY, help="features of the energy of a single image")
    image_disp: list[str] = option(_DISP, help="features of the source displacement of an image")
    image_gammaness: list[str] = option(
        [*_SHAPE, "astri_m3long", "astri_asym", "astri_mdist", "tel_log_energy"],
        help="features of gamma/hadron of a single image",
    )
    stereo_energy: list[str] = option(
        [*_ENERGY, *_GEOMETRY, "stereo_disp"], help="same as image_energy, with stereo geometry"
    )
    stereo_disp: list[str] = option(
        [*_DISP, *_GEOMETRY, "stereo_disp_along"], help="same as image_disp, with stereo geometry"
    )
    stereo_gammaness: list[str] = option(
        [
            *_SHAPE,
            "abs(astri_m3long)",
            *_GEOMETRY,
            "stereo_disp",
            "abs(stereo_miss)",
            "tel_log_energy",
        ],
        help="same as image_gammaness, with stereo geometry",
    )
    array_energy: list[str] = option(
        ["mean_log_energy", "spread_log_energy", *_EVENT],
        help="features of the energy of an event; [] = weighted mean of its images",
    )
    array_gammaness: list[str] = option(
        ["mean_gammaness", "spread_gammaness", *_SPREADS, *_EVENT],
        help="features of gamma/hadron of an event; [] = weighted mean of its images",
    )
    array_direction: list[str] = option(
        [*_SPREADS, "log10(disp_error)", "log10(stereo_ang_distance_uncert + 1e-4)", *_EVENT],
        help="features of the errors of an event's direction and energy",
    )

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range, or a list that has to be there."""
        super().validate()
        for name in ("image_energy", "image_disp", "image_gammaness", "array_direction"):
            if not getattr(self, name):
                raise UsageError(
                    f"features.{name} is empty: choose features=standard or features=astri, or "
                    "give a list of expressions"
                )


@dataclass
class ForestConfig(Section):
    """How the ensembles of trees are grown (scikit-learn)."""

    section: ClassVar[str] = "forest"

    method: str = option(
        "random_forest",
        choices=["random_forest", "extra_trees", "gradient_boosting"],
        help="kind of ensemble",
    )
    n_trees: int = option(100, low=1, high=10000, help="trees, or boosting steps")
    max_depth: int | None = option(12, low=1, high=64, help="levels of a tree; null = no limit")
    min_samples_split: int = option(5, low=2, help="samples that a node needs to be split")
    min_samples_leaf: int = option(1, low=1, help="samples of every leaf")
    max_features: str = option(
        "sqrt",
        help="features that a split may choose from: sqrt, log2, all, or a share such as 0.5",
    )
    learning_rate: float = option(0.1, above=0, high=1, help="of gradient_boosting")
    disp: str = option(
        "norm_sign",
        choices=["norm_sign", "components"],
        help="displacement: its length and the side (two forests), or along and across the "
        "oriented axis (one forest)",
    )
    random_state: int = option(42, low=0, help="seed of trees, folds and random dropping")


@dataclass
class SampleConfig(Section):
    """Which images and events are trained on, and with which weight."""

    section: ClassVar[str] = "sample"

    levelling: list[str] = option(
        [],
        help="expression:bins:low:high; in every cell of these bins the same number of gammas and "
        "others is kept for the gamma/hadron forests; [] = all are kept",
    )
    target_index: float | None = option(
        None, low=-6, high=0, help="power of the energy to weight events to; null = as thrown"
    )
    max_images: int | None = option(
        None, low=1, unit="images", help="most images of each class; null = all"
    )
    n_folds: int = option(
        3, low=2, high=20, help="parts for predictions out of sample; showers are never divided"
    )
    n_importance: int = option(
        20000, low=0, unit="rows", help="rows for the permutation importances; 0 = none"
    )


@dataclass
class TrainConfig(FilesConfig):
    """Options of `astri-gpu train`."""

    input: Any = option(
        REQUIRED, help="DL2a stores of simulated gammas and of other particles: a list or pattern"
    )
    output: str = option(REQUIRED, help="file of models to write (.skops)")
    overwrite: bool = option(False, help="replace an existing output")
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    backend: BackendConfig = field(default_factory=BackendConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    forest: ForestConfig = field(default_factory=ForestConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


@dataclass
class ReconstructConfig(FilesConfig):
    """Options of `astri-gpu reconstruct`."""

    input: Any = option(REQUIRED, help="DL2a store, list of stores, or pattern")
    model: str = option(REQUIRED, help="file of models that `astri-gpu train` wrote")
    output: str = option(REQUIRED, help="store to write (a directory)")
    overwrite: bool = option(False, help="replace an existing output")
    on_error: str = option(
        "stop", choices=["stop", "skip"], help="what a bad store does among several: stop, or skip"
    )
    progress: bool | None = option(
        None, help="show a progress bar; null = a bar on a terminal, a line every 10 s elsewhere"
    )
    debug: bool = option(False, help="show the traceback of an error")
    backend: BackendConfig = field(default_factory=BackendConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
