"""Predictions of the images of an event, combined: from sorted images to one row per event."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.combination import (
    combine_directions,
    count,
    expected_error,
    highest,
    total,
    weighted_mean,
)
from astri_gpu.kernels.coordinates import (
    altaz_to_telescope,
    angular_separation,
    telescope_to_altaz,
)
from astri_gpu.kernels.disp import resolve_head_tail

__all__ = ["COMBINED", "IMAGE_COLUMNS", "array_columns", "merge_directions", "sort_images"]

Columns = dict[str, NDArray[Any]]

SIGN_WEIGHT = 2.0
"""Distances count as chi-square, the sides as -2 log P: together a likelihood."""
GROUP_SLOTS = 1 << 17
"""(event, slot) at a time: a dozen arrays of them stay in the cache."""

IMAGE_COLUMNS = (
    "event",
    "hillas_intensity",
    "hillas_fov_lon",
    "hillas_fov_lat",
    "pointing_alt",
    "pointing_az",
    "stereo_impact_distance",
    "tel_log_energy",
    "tel_energy_error",
    "tel_gammaness",
    "tel_gammaness_error",
    "disp_dlon",
    "disp_dlat",
    "tel_disp_sign",
    "tel_disp_error",
)
COMBINED = (
    "n_images",
    "sum_intensity",
    "max_intensity",
    "mean_impact",
    "mean_log_energy",
    "spread_log_energy",
    "mean_energy_error",
    "mean_gammaness",
    "spread_gammaness",
    "disp_fov_lon",
    "disp_fov_lat",
    "disp_spread",
    "disp_error",
    "disp_stereo_distance",
    "disp_alt",
    "disp_az",
    "stereo_fov_lon",
    "stereo_fov_lat",
)


class _Group(NamedTuple):
    """Events with about as many images, as rows of an (event, slot) table."""

    events: NDArray[np.int64]
    place: NDArray[np.int64]  # (event, slot), row of the image; that of another where not used
    used: NDArray[np.bool_]


def sort_images(parts: list[Columns]) -> Columns:
    """Return the images of all cameras together, in the order of their events.

    Parameters
    ----------
    parts
        Columns of each camera, with `event` in rising order; all have the same names.
    """
    if len(parts) == 1:
        return parts[0]
    together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(together["event"], kind="stable")
    return {name: values[order] for name, values in together.items()}


def array_columns(
    images: Mapping[str, NDArray[Any]],
    n_events: int,
    array_alt: NDArray[np.float64],
    array_az: NDArray[np.float64],
    events: Mapping[str, NDArray[Any]],
) -> Columns:
    """Return what the images of each event say together.

    Parameters
    ----------
    images
        The valid images of all cameras, in the order of their events, with the columns
        `IMAGE_COLUMNS`; `event` counts from 0.
    n_events
        Number of events, those without images as well.
    array_alt, array_az
        (event,), pointing of the array, deg.
    events
        (event,) `stereo_alt`, `stereo_az` (deg) and `stereo_is_valid`.

    Returns
    -------
    Arrays (event,) with the names `COMBINED`. `n_images` (int32) and `sum_intensity` (p.e.)
    are 0 for events without images, everything else is float64 and NaN. Means have weights
    1/error^2; energies are log10 TeV, directions deg in the telescope frame of the array pointing
    (``_fov_``) or horizontal. `disp_error` (deg) is 1/sqrt of the sum of weights and, for a single
    image, also has the chance of the wrong side. `disp_stereo_distance` (deg), `stereo_fov_lon` and
    `stereo_fov_lat` are NaN without geometry.
    """
    out: Columns = {name: np.full(n_events, np.nan) for name in COMBINED}
    out["n_images"] = np.zeros(n_events, dtype=np.int32)
    out["sum_intensity"] = np.zeros(n_events)
    numbers: Columns = {
        name: np.asarray(images[name], dtype=np.float64)
        for name in IMAGE_COLUMNS
        if name not in ("event", "pointing_alt", "pointing_az")
    }
    event = np.asarray(images["event"])
    numbers |= _in_array_frame(images, numbers, array_alt[event], array_az[event])
    for group in _groups(event, n_events):
        for name, values in _combined(numbers, group).items():
            out[name][group.events] = values
    out["disp_alt"], out["disp_az"] = telescope_to_altaz(
        out["disp_fov_lon"], out["disp_fov_lat"], array_alt, array_az
    )
    valid = np.asarray(events["stereo_is_valid"], dtype=bool)
    alt, az = (np.where(valid, events[name], np.nan) for name in ("stereo_alt", "stereo_az"))
    out["stereo_fov_lon"], out["stereo_fov_lat"] = altaz_to_telescope(alt, az, array_alt, array_az)
    out["disp_stereo_distance"] = angular_separation(
        out["disp_fov_lon"], out["disp_fov_lat"], out["stereo_fov_lon"], out["stereo_fov_lat"]
    )
    return out


def merge_directions(
    columns: Mapping[str, NDArray[Any]],
    log_error_disp: NDArray[np.float64],
    log_error_stereo: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of the directions from displacements and from geometry.

    Parameters
    ----------
    columns
        (event,) `disp_fov_lon`, `disp_fov_lat`, `stereo_fov_lon`, `stereo_fov_lat`, deg.
    log_error_disp, log_error_stereo
        (event,), log10 of their expected errors (deg); the weights are 1/error^2.

    Returns
    -------
    fov_lon, fov_lat (event,), deg; that of the displacements where there is no geometry.
    """

    def direction(kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lon, lat = columns[f"{kind}_fov_lon"], columns[f"{kind}_fov_lat"]
        return np.asarray(lon, np.float64), np.asarray(lat, np.float64)

    disp, stereo = direction("disp"), direction("stereo")
    return combine_directions(
        disp,
        stereo,
        10.0 ** np.asarray(log_error_disp, np.float64),
        10.0 ** np.asarray(log_error_stereo, np.float64),
        np.isfinite(stereo[0]) & np.isfinite(stereo[1]),
    )


def _in_array_frame(
    images: Mapping[str, NDArray[Any]],
    numbers: Columns,
    array_alt: NDArray[np.float64],
    array_az: NDArray[np.float64],
) -> Columns:
    """Return centroid and displacement (image,) for a telescope that points as the array does.

    The points on both sides are turned, and the centroid is taken halfway between them.
    """
    names = ("hillas_fov_lon", "hillas_fov_lat", "disp_dlon", "disp_dlat")
    found = {name: numbers[name] for name in names}
    alt, az = images["pointing_alt"], images["pointing_az"]
    rows = np.flatnonzero((alt != array_alt) | (az != array_az))
    if not len(rows):
        return found
    lon, lat, dlon, dlat = (found[name][rows] for name in names)
    ends = []
    for side in (1, -1):
        horizon = telescope_to_altaz(lon + side * dlon, lat + side * dlat, alt[rows], az[rows])
        ends.append(altaz_to_telescope(*horizon, array_alt[rows], array_az[rows]))
    turned = [(plus + minus) / 2 for plus, minus in zip(*ends, strict=True)]
    turned += [(plus - minus) / 2 for plus, minus in zip(*ends, strict=True)]
    found = {name: found[name].copy() for name in names}
    for name, values in zip(names, turned, strict=True):
        found[name][rows] = values
    return found


def _groups(event: NDArray[np.int64], n_events: int) -> Iterator[_Group]:
    """Yield all events with images, by the next power of two of their number."""
    n_images = np.bincount(event, minlength=n_events)
    start = np.cumsum(n_images) - n_images
    n_slots, most = 1, int(n_images.max(initial=0))
    while n_slots < 2 * most:
        chosen = np.flatnonzero((n_images > n_slots // 2) & (n_images <= n_slots))
        slot = np.arange(min(n_slots, most))
        step = max(1, GROUP_SLOTS // n_slots)
        for first in range(0, len(chosen), step):
            rows = chosen[first : first + step]
            used = slot < n_images[rows, None]
            yield _Group(rows, np.where(used, start[rows, None] + slot, start[rows, None]), used)
        n_slots *= 2


def _combined(numbers: Columns, group: _Group) -> Columns:
    """Return the columns of a group of events that come from their images alone."""
    used = group.used
    slots = {name: values[group.place] for name, values in numbers.items()}
    energy = weighted_mean(slots["tel_log_energy"], slots["tel_energy_error"], used)
    gammaness = weighted_mean(slots["tel_gammaness"], slots["tel_gammaness_error"], used)
    probability, error = slots["tel_disp_sign"], slots["tel_disp_error"]
    direction = resolve_head_tail(
        slots["hillas_fov_lon"],
        slots["hillas_fov_lat"],
        slots["disp_dlon"],
        slots["disp_dlat"],
        error**-2,
        probability,
        used,
        sign_weight=SIGN_WEIGHT,
    )
    disp_error = expected_error(error, used)
    n_images = count(used)
    if used.shape[-1] == 1:
        wrong = np.minimum(probability, 1 - probability)[:, 0]
        length_2 = slots["disp_dlon"][:, 0] ** 2 + slots["disp_dlat"][:, 0] ** 2
        disp_error = np.sqrt(disp_error**2 + 4 * wrong * length_2)
    return {
        "n_images": n_images,
        "sum_intensity": total(slots["hillas_intensity"], used),
        "max_intensity": highest(slots["hillas_intensity"], used),
        "mean_impact": total(slots["stereo_impact_distance"], used) / n_images,
        "mean_log_energy": energy.mean,
        "spread_log_energy": energy.spread,
        "mean_energy_error": energy.error,
        "mean_gammaness": gammaness.mean,
        "spread_gammaness": gammaness.spread,
        "disp_fov_lon": direction.fov_lon,
        "disp_fov_lat": direction.fov_lat,
        "disp_spread": direction.spread,
        "disp_error": disp_error,
    }
