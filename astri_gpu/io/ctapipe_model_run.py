"""Columns of ctapipe's tables of observations, pointing and simulation runs (data model v7.1.0)."""

from typing import Any

import numpy as np

from astri_gpu.io.ctapipe_model import EVENT_KEYS, Field

__all__ = [
    "DISTRIBUTION_COLUMNS",
    "HISTOGRAM_ID",
    "OBSERVATION_COLUMNS",
    "POINTING_COLUMNS",
    "RUN_COLUMNS",
    "SCHEDULING_COLUMNS",
]

HISTOGRAM_ID = 6  # sim_telarray's number of the histogram of thrown showers

_OBS_ID = EVENT_KEYS[0]
_RAD = float(np.pi / 180)
POINTING_COLUMNS = (
    _OBS_ID,
    Field("tel_id", "u2", ours="tel_id"),
    Field(
        "telescope_pointing_azimuth",
        "f8",
        "rad",
        "pointing_az",
        factor=_RAD,
        prefix="telescope_pointing",
    ),
    Field(
        "telescope_pointing_altitude",
        "f8",
        "rad",
        "pointing_alt",
        factor=_RAD,
        prefix="telescope_pointing",
    ),
)
SCHEDULING_COLUMNS = (
    Field("sb_id", "u8"),
    Field("sb_type", "i8", enum="SchedulingBlockType"),
    Field("producer_id", "S16"),
    Field("observing_mode", "i8", enum="ObservingMode"),
    Field("pointing_mode", "i8", enum="PointingMode"),
)
OBSERVATION_COLUMNS = (
    _OBS_ID,
    Field("sb_id", "u8"),
    Field("producer_id", "S16"),
    Field("state", "i8", enum="ObservationBlockState"),
    Field("subarray_pointing_lat", "f8", "deg", "array_alt"),
    Field("subarray_pointing_lon", "f8", "deg", "array_az"),
    Field("subarray_pointing_frame", "i8", enum="CoordinateFrameType"),
    Field("scheduled_duration", "f8", "min"),
    Field("scheduled_start_time", "f8", time="mjd"),
    Field("actual_start_time", "f8", time="mjd"),
    Field("actual_duration", "f8", "min"),
)


def _run_columns() -> tuple[Field, ...]:
    """Return the columns of the simulation header; `ours` are keys of our group `simulation`."""
    unknown = ("i8", -1)
    rows: tuple[tuple[str, str, Any, str, float], ...] = (
        ("run_number", "i8", -1, "", 1.0),
        ("corsika_version", *unknown, "", 1.0),
        ("simtel_version", *unknown, "", 1.0),
        ("energy_range_min", "f8", np.nan, "TeV", 1.0),
        ("energy_range_max", "f8", np.nan, "TeV", 1.0),
        ("prod_site_B_total", "f8", np.nan, "uT", 1.0),
        ("prod_site_B_declination", "f8", np.nan, "rad", _RAD),
        ("prod_site_B_inclination", "f8", np.nan, "rad", _RAD),
        ("prod_site_alt", "f8", np.nan, "m", 1.0),
        ("spectral_index", "f8", np.nan, "", 1.0),
        ("shower_prog_start", *unknown, "", 1.0),
        ("shower_prog_id", *unknown, "", 1.0),
        ("detector_prog_start", *unknown, "", 1.0),
        ("detector_prog_id", *unknown, "", 1.0),
        ("n_showers", "i8", -1, "", 1.0),
        ("shower_reuse", "i8", 1, "", 1.0),
        ("max_alt", "f8", np.nan, "rad", _RAD),
        ("min_alt", "f8", np.nan, "rad", _RAD),
        ("max_az", "f8", np.nan, "rad", _RAD),
        ("min_az", "f8", np.nan, "rad", _RAD),
        ("diffuse", "i8", 0, "", 1.0),
        ("max_viewcone_radius", "f8", np.nan, "deg", 1.0),
        ("min_viewcone_radius", "f8", np.nan, "deg", 1.0),
        ("max_scatter_range", "f8", np.nan, "m", 1.0),
        ("min_scatter_range", "f8", np.nan, "m", 1.0),
        ("core_pos_mode", *unknown, "", 1.0),
        ("atmosphere", *unknown, "", 1.0),
        ("corsika_iact_options", *unknown, "", 1.0),
        ("corsika_low_E_model", *unknown, "", 1.0),
        ("corsika_high_E_model", *unknown, "", 1.0),
        ("corsika_bunchsize", "f8", np.nan, "", 1.0),
        ("corsika_wlen_min", "f8", np.nan, "nm", 1.0),
        ("corsika_wlen_max", "f8", np.nan, "nm", 1.0),
        ("corsika_low_E_detail", *unknown, "", 1.0),
        ("corsika_high_E_detail", *unknown, "", 1.0),
    )
    return tuple(
        Field(name, dtype, unit, name, value, factor) for name, dtype, value, unit, factor in rows
    )


RUN_COLUMNS = (_OBS_ID, *_run_columns())
DISTRIBUTION_COLUMNS = (  # ours: simulation/thrown, whose histogram has the axes exchanged
    _OBS_ID,
    Field("hist_id", "i8", unknown=HISTOGRAM_ID),
    Field("n_entries", "i8", unknown=-1),
    Field("bins_energy", "f8", "TeV", "energy_edges"),  # (energy_edge,)
    Field("bins_core_dist", "f8", "m", "core_distance_edges"),  # (core_distance_edge,)
    Field("histogram", "f8"),  # (energy_bin, core_distance_bin)
)
