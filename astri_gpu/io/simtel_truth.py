"""Event type, pointing and true shower of a sim_telarray event, as ctapipe 0.28 reads them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels import stereo

__all__ = [
    "SUBARRAY",
    "TRUTH_COLUMNS",
    "UNKNOWN_TRUTH",
    "clip_altitude",
    "cta_event_type",
    "impact_distance",
    "pointing",
    "shower_truth",
]

# CTAO event types, and sim_telarray's calibration types (dark, pedestal, in-lid LED, laser).
SUBARRAY, OTHER_CALIBRATION, UNKNOWN = 32, 15, 255
CALIBRATION_TYPES = {0: 3, 1: 5, 2: 1, 3: 0}

NAN = float("nan")
UNKNOWN_TRUTH: dict[str, float] = {
    "shower_id": -1,
    "true_energy": NAN,
    "true_alt": NAN,
    "true_az": NAN,
    "true_core_x": NAN,
    "true_core_y": NAN,
    "true_h_first_int": NAN,
    "true_x_max": NAN,
    "true_starting_grammage": NAN,
    "true_primary_id": -1,
}
"""What stands in simulation/event for calibration events."""

TRUTH_COLUMNS = tuple(UNKNOWN_TRUTH)


def clip_altitude(altitude_rad: float) -> float:
    """Return the altitude, with values just above the zenith (float32 rounding) put onto it."""
    limit = 0.5 * np.pi
    altitude_rad = float(altitude_rad)
    if limit < abs(altitude_rad) < limit * (1 + 1e-6):
        return float(np.copysign(limit, altitude_rad))
    return altitude_rad


def shower_truth(shower: Mapping[str, Any], mc_event: Mapping[str, Any]) -> dict[str, float]:
    """Return the columns of simulation/event for one shower: TeV, deg, m, g/cm2."""
    return {
        "shower_id": int(shower["shower"]),
        "true_energy": float(shower["energy"]),
        "true_alt": float(np.rad2deg(clip_altitude(shower["altitude"]))),
        "true_az": float(np.rad2deg(float(shower["azimuth"]))),
        "true_core_x": float(mc_event["xcore"]),
        "true_core_y": float(mc_event["ycore"]),
        "true_h_first_int": float(shower["h_first_int"]),
        "true_x_max": float(shower["xmax"]),
        "true_starting_grammage": float(shower.get("depth_start", NAN)),
        "true_primary_id": int(shower["primary_id"]),
    }


def impact_distance(
    truth: Mapping[str, float], position: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance of telescopes from the true shower axis.

    Parameters
    ----------
    truth
        Columns of `shower_truth`.
    position
        Telescope positions in the ground frame in m, (tel, 3).

    Returns
    -------
    distance
        float64 (tel,), m.
    """
    line = (truth["true_core_x"], truth["true_core_y"], truth["true_alt"], truth["true_az"])
    columns = (np.array([value], dtype=np.float64) for value in line)
    axis: Any = stereo.impact_distance(*columns, *position.T[:, np.newaxis])
    return np.asarray(axis[0], dtype=np.float64)


def cta_event_type(event: Mapping[str, Any]) -> int:
    """Return the CTAO event type of an event of eventio."""
    if event["type"] == "data":
        return SUBARRAY
    if event["type"] == "calibration":
        return CALIBRATION_TYPES.get(event.get("calibration_type", -1), OTHER_CALIBRATION)
    return UNKNOWN


def pointing(tracking: Mapping[str, Any]) -> tuple[float, float]:
    """Return (altitude, azimuth) in deg, with pointing corrections where the file has them."""
    altitude = float(tracking.get("altitude_cor", np.nan))
    azimuth = float(tracking.get("azimuth_cor", np.nan))
    if np.isnan(altitude):
        altitude = float(tracking["altitude_raw"])
    if np.isnan(azimuth):
        azimuth = float(tracking["azimuth_raw"])
    return float(np.rad2deg(clip_altitude(altitude))), float(np.rad2deg(azimuth))
