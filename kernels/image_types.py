"""What goes into the image chain and what comes out: settings, tables, columns and flags.

Both texts of the chain share it: `image_chain` (array text) and `loops` (loop text).
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ._types import Array
from .astri import AstriParameters
from .moments import Hillas
from .parameters import Concentration, Leakage, Morphology, Statistics
from .timing import Timing

__all__ = [
    "CLEANING_METHODS",
    "COLUMNS",
    "COUNT_COLUMNS",
    "FLAG_EMPTY",
    "FLAG_EXCLUDED",
    "FLAG_NO_SHOWER",
    "FLAG_SATURATED",
    "FLAG_TOO_SMALL",
    "RETRY_ISLANDS",
    "RETRY_SLOTS",
    "CalibratedImages",
    "CalibrationArrays",
    "CameraArrays",
    "ImageResult",
    "ImageSettings",
]

CLEANING_METHODS = ("tailcuts", "mars", "nsb", "time_constrained")

# Bits of the column `image_flags`.
FLAG_EMPTY = 1  # no pixel survived cleaning
FLAG_TOO_SMALL = 2  # fewer pixels than asked for, or no charge: no parameters
FLAG_NO_SHOWER = 4  # a calibration event: not cleaned, no parameters
FLAG_SATURATED = 8  # at least one saturated pixel in the cleaned image
FLAG_EXCLUDED = 16  # the telescope was left out on request (set by the stage)

# Bits of `ImageResult.retry`: the caller has to run the batch again.
RETRY_SLOTS = 1  # with more slots
RETRY_ISLANDS = 2  # with more island steps

_GROUPS = (
    ("hillas", Hillas),
    ("leakage", Leakage),
    ("concentration", Concentration),
    ("morphology", Morphology),
    ("intensity", Statistics),
    ("timing", Timing),
    ("peak_time", Statistics),
    ("astri", AstriParameters),
)
COLUMNS = (
    *(f"{name}_{field}" for name, group in _GROUPS for field in group._fields),
    "n_saturated_pixels",
    "image_flags",
)
"""Names of the parameter columns, in the order of the loop text's output matrix."""

COUNT_COLUMNS = frozenset(
    [f"morphology_{field}" for field in Morphology._fields]
    + ["astri_num_island", "astri_num_core", "astri_num_boundary"]
    + ["n_saturated_pixels", "image_flags"]
)
"""Columns of whole numbers; -1 where an image has no parameters (`image_flags` never)."""


class ImageSettings(NamedTuple):
    """Everything about the chain that is fixed for a run; hashable, so static under jit."""

    gain_threshold_adc: float = 4000.0
    extractor: str = "neighbour_peak"
    window_width: int = 7
    window_shift: int = 3
    peak_index: int = 0
    local_weight: int = 0
    sampling_rate_ghz: float = 1.0
    interpolate_invalid: bool = True
    saturation_adc: float = float("inf")
    cleaning: str = "tailcuts"
    picture_pe: float = 6.0
    boundary_pe: float = 3.0
    second_boundary_pe: float = 3.0
    min_picture_neighbours: int = 1
    keep_isolated: bool = False
    min_core_pixels: int = 3
    pedestal_factor: float = 2.5
    time_limit_ns: float = 0.0  # 0: no time-delta cleaning
    time_min_neighbours: int = 1
    time_limit_core_ns: float = 4.5
    time_limit_boundary_ns: float = 1.5
    dilate_rows: int = 0
    largest_island_only: bool = False
    min_pixels: int = 2
    source_fov_lon: float = 0.0
    source_fov_lat: float = 0.0
    n_slots: int = 128
    island_steps: int = 9
    timing_starts: int = 20
    timing_steps: int = 10


class CameraArrays(NamedTuple):
    """Geometry of one camera in the telescope frame (deg), and its neighbour tables."""

    fov_lon: Float[Array, " pixel"]
    fov_lat: Float[Array, " pixel"]
    pixel_area: Float[Array, " pixel"]  # deg^2
    pixel_width: Float[Array, " pixel"]
    border_1: Bool[Array, " pixel"]
    border_2: Bool[Array, " pixel"]
    neighbours: Int[Array, "pixel neighbour"]  # sharing an edge, -1 = none
    cleaning_neighbours: Int[Array, "pixel cleaning_neighbour"]  # for cleaning and islands


class CalibrationArrays(NamedTuple):
    """Calibration constants; an image refers to one row of them."""

    pedestal: Float[Array, "calibration gain pixel"]  # ADC counts per sample
    dc_to_pe: Float[Array, "calibration gain pixel"]  # p.e. per ADC count
    pedestal_std: Float[Array, "calibration gain pixel"]  # p.e., of an extracted charge
    time_shift: Float[Array, "calibration gain pixel"]  # ns
    pixel_valid: Bool[Array, "calibration gain pixel"]
    charge_correction: Float[Array, " gain"]  # of the integration window


class CalibratedImages(NamedTuple):
    """DL1a: what calibration makes of a batch."""

    charge: Float[Array, "image pixel"]  # p.e.
    peak_time: Float[Array, "image pixel"]  # ns; zeros where the camera has no samples
    pedestal_std: Float[Array, "image pixel"]  # p.e.
    saturated: Bool[Array, "image pixel"]


class ImageResult(NamedTuple):
    """DL1b of a batch."""

    columns: dict[str, Array]  # `COLUMNS`, each (image,)
    charge: Float[Array, "image pixel"]
    peak_time: Float[Array, "image pixel"]
    mask: Bool[Array, "image pixel"]
    retry: Int[Array, " image"]  # RETRY_* bits; results of such an image are incomplete
