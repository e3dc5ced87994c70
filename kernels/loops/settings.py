"""Settings and work space of the loop text, in the form that compiled code takes."""

from typing import NamedTuple

import numpy as np

from .._types import Array
from ..calibration import EXTRACTORS
from ..image_types import (
    CLEANING_METHODS,
    ImageSettings,
)

__all__ = ["LoopSettings", "Scratch", "loop_settings"]


class LoopSettings(NamedTuple):
    """`ImageSettings` with codes in place of words; passed to compiled code by value."""

    gain_threshold_adc: float
    extractor: int  # index in EXTRACTORS
    window_width: int
    window_shift: int
    peak_index: int
    local_weight: int
    sampling_rate_ghz: float
    interpolate_invalid: bool
    saturation_adc: float
    cleaning: int  # index in CLEANING_METHODS
    picture_pe: float
    boundary_pe: float
    second_boundary_pe: float
    lowest_pe: float  # no pixel below it can survive the thresholds
    min_picture_neighbours: int
    keep_isolated: bool
    min_core_pixels: int
    pedestal_factor: float
    time_limit_ns: float
    time_min_neighbours: int
    time_limit_core_ns: float
    time_limit_boundary_ns: float
    dilate_rows: int
    largest_island_only: bool
    min_pixels: int
    source_fov_lon: float
    source_fov_lat: float
    timing_starts: int
    timing_steps: int
    dense: bool  # the charge of every pixel is wanted


def loop_settings(settings: ImageSettings, *, dense: bool) -> LoopSettings:
    """Return `settings` for compiled code.

    Raises
    ------
    ValueError
        For an unknown extractor or cleaning method.
    """
    if settings.extractor not in EXTRACTORS:
        raise ValueError(
            f"extractor is {settings.extractor!r}: expected one of {', '.join(EXTRACTORS)}"
        )
    if settings.cleaning not in CLEANING_METHODS:
        raise ValueError(
            f"cleaning is {settings.cleaning!r}: expected one of {', '.join(CLEANING_METHODS)}"
        )
    # Counts, charges and times are float32, and the array text compares them with limits of the
    # same precision.
    thresholds = {
        name: float(np.float32(getattr(settings, name)))
        for name in (
            "gain_threshold_adc",
            "saturation_adc",
            "picture_pe",
            "boundary_pe",
            "second_boundary_pe",
            "time_limit_ns",
            "time_limit_boundary_ns",
        )
    }
    lowest = min(thresholds["picture_pe"], thresholds["boundary_pe"])
    if settings.cleaning == "mars":
        lowest = min(lowest, thresholds["second_boundary_pe"])
    values = (
        settings._asdict()
        | thresholds
        | {
            "extractor": EXTRACTORS.index(settings.extractor),
            "cleaning": CLEANING_METHODS.index(settings.cleaning),
            "lowest_pe": lowest,
            "dense": dense or settings.dilate_rows > 0,
        }
    )
    as_type = LoopSettings.__annotations__
    return LoopSettings(**{name: as_type[name](values[name]) for name in LoopSettings._fields})


class CandidateTables(NamedTuple):
    """What the loops prepare once per calibration."""

    threshold: Array  # (calibration, pixel), counts (`signal.candidate_threshold`) or charges
    invalid_pixels: Array  # int32 (calibration, invalid pixel), padded
    n_invalid: Array  # int32 (calibration,)


class Scratch(NamedTuple):
    """Work space of all workers, first axis of every array: worker; or of one, without that axis.

    No contents are assumed, but that `state` is zero before and after every image, and `peak_time`
    always where there are no samples.
    """

    charge: Array  # float32 (worker, pixel), p.e.
    peak_time: Array  # float32 (worker, pixel), ns
    state: Array  # uint8 (worker, pixel + 1), bits of `cleaning`; the last is for no neighbour
    channel: Array  # uint8 (worker, pixel)
    waveform: Array  # float32 (worker, pixel, sample)
    samples: Array  # float32 (worker, sample)
    listed: Array  # int32 (worker, pixel), candidates
    stack: Array  # int32 (worker, pixel)
    label: Array  # int32 (worker, pixel)
    island: Array  # float64 (worker, pixel + 1, 2), pixels and charge of each island
    survivors: Array  # int32 (worker, pixel)
    values: Array  # float64 (worker, N_VALUES, pixel), see `parameters`
    row: Array  # float32 (worker, column), the parameters of one image
