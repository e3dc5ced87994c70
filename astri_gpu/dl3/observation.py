"""Runs of an observation: reconstructed events of a DL2b store, with their times and pointing."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display.scene import SHOWER
from astri_gpu.dl3.gti import intervals_of_run, parse_intervals
from astri_gpu.dl3.run import DRIFT, POINTING, Pointing, Run, Target
from astri_gpu.dl3.sky import REFERENCE_UNIX_S, Site, to_altaz, to_centre, to_icrs
from astri_gpu.errors import AstriError
from astri_gpu.reconstruction.expressions import parse
from astri_gpu.store import Store, open_store

if TYPE_CHECKING:
    from astri_gpu.config_response import ObservationConfig

__all__ = ["is_observation", "observed_runs"]

Columns = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]

STEADY_DEG = 0.1
"""A pointing that moves less than this has not moved."""
LAST_S = 1e-6  # the run ends so much behind its last event, which is in it
RECO = {
    "reco_alt": "alt",
    "reco_az": "az",
    "reco_energy": "reco_energy",
    "gammaness": "gammaness",
    "reco_n_tels": "n_tels",
    "event_quality": "quality",
}
OPTIONAL = {
    "reco_energy_uncert": "energy_error",
    "reco_direction_uncert": "direction_error",
    "stereo_core_x": "core_x",
    "stereo_core_y": "core_y",
}


def is_observation(store: Store) -> bool:
    """Return whether a store holds observed events (and not simulated ones)."""
    return "simulation/event" not in store and store.attrs.get("kind") == "observation"


def observed_runs(path: str | Path, config: "ObservationConfig", *, filter: str) -> Iterator[Run]:
    """Yield the runs of a store, one for each observation number, before the selection.

    The target is the one of the options; pointing and times are those of the events. A run goes
    from its first to its last event; without `observation.gti` all of it is good time.

    Parameters
    ----------
    path
        DL2b store of an observation.
    config
        Name and place of the target, dead time, good time intervals.
    filter
        Condition on columns of dl2/event, that of the cuts.

    Raises
    ------
    UsageError
        When intervals or filter cannot be used.
    AstriError
        When the store is not DL2b or says not where the array stands, times or pointing are no
        numbers, or the pointing moves both in the sky and over the horizon.
    """
    store = open_store(path)
    lacking = [f"dl2/event/{name}" for name in (*RECO, "reco_is_valid")]
    lacking = [name for name in lacking if name not in store]
    if store.attrs.get("data_level") != "DL2b" or lacking:
        raise AstriError(
            f"{store.path} is a {store.attrs.get('data_level')} store, without energies, scores "
            "and directions of events: run `astri-gpu reconstruct` on it and give the output."
        )
    place = store.group_attrs("instrument")
    try:
        names = ("latitude_deg", "longitude_deg", "altitude_m")
        site = Site(*(float(place[name]) for name in names))
    except (KeyError, TypeError, ValueError):
        raise AstriError(
            f"{store.path} does not say where on Earth the array stands, so its events have no "
            "place on the sky: ingest it again with its array."
        ) from None
    intervals = parse_intervals(config.gti)
    events = store.read_table(
        "dl0/event",
        ["obs_id", "event_id", "time_s", "time_ns", "event_type", "array_alt", "array_az"],
    )
    condition = parse(filter, condition=True)
    wanted = {*RECO, "reco_is_valid", *condition.names}
    wanted |= {name for name in OPTIONAL if f"dl2/event/{name}" in store}
    reco = store.read_table("dl2/event", sorted(wanted))
    use = reco["reco_is_valid"].astype(bool) & (events["event_type"] == SHOWER) & condition(reco)
    obs_ids = np.unique(events["obs_id"])
    if not len(obs_ids):
        raise AstriError(f"{store.path} has no events: there is no run to write.")
    for obs_id in map(int, obs_ids):
        rows = np.flatnonzero(events["obs_id"] == obs_id)
        yield _run(store, obs_id, events, reco, rows, use[rows], site, intervals, config)


def _run(
    store: Store,
    obs_id: int,
    events: Columns,
    reco: Columns,
    rows: NDArray[np.int64],
    use: NDArray[np.bool_],
    site: Site,
    intervals: Floats,
    config: "ObservationConfig",
) -> Run:
    whole = events["time_s"][rows].astype(np.int64) - REFERENCE_UNIX_S
    time = whole + 1e-9 * events["time_ns"][rows]
    alt, az = (events[name][rows].astype(np.float64) for name in ("array_alt", "array_az"))
    for values, what in ((time, "time"), (alt, "array_alt"), (az, "array_az")):
        if not np.isfinite(values).all():
            row = int(rows[np.argmin(np.isfinite(values))])
            raise AstriError(
                f"Event {events['event_id'][row]} of run {obs_id} in {store.path} has no {what} "
                "(it is not a finite number), so it has no place on the sky: process it again."
            )
    start, stop = float(time.min()), float(time.max()) + LAST_S
    name = f"run {obs_id} of {store.path}"
    gti = intervals_of_run(intervals, start, stop, name)
    pointing = _pointing(alt, az, time, site, name)
    columns: Columns = {
        "event_id": events["event_id"][rows][use],
        "time": time[use],
        "pointing_alt": alt[use],
        "pointing_az": az[use],
    }
    chosen = rows[use]
    for stored, ours in (RECO | OPTIONAL).items():
        if stored in reco:
            columns[ours] = reco[stored][chosen]
    whole_run = "" if len(intervals) else "good time goes from the first to the last event"
    return Run(
        obs_id=obs_id,
        target=Target(config.target, config.ra_deg, config.dec_deg),
        pointing=pointing,
        start=start,
        stop=stop,
        gti=gti,
        dead_time=config.dead_time,
        site=site,
        columns=columns,
        tel_ids=tuple(map(int, store.read("instrument/telescope/tel_id"))),
        cameras=tuple(sorted(store.cameras("dl0"))),
        array=store.group_attrs("instrument").get("name"),
        models=(store.attrs.get("models") or {}).get("checksum"),
        simulation_model=store.attrs.get("simulation_model"),
        sources=(str(store.path),),
        notes=(whole_run,) if whole_run else (),
    )


def _pointing(alt: Floats, az: Floats, time: Floats, site: Site, name: str) -> Pointing:
    """Return the mean direction; a drift scan if it stays over the horizon and not in the sky."""
    sky = to_icrs(alt, az, time, site)
    ra, dec, moved = _mean(np.asarray(sky.ra), np.asarray(sky.dec))
    mean_az, mean_alt, turned = _mean(az, alt)
    middle = np.array([(time.min() + time.max()) / 2])
    if moved <= STEADY_DEG:
        there = to_altaz(ra, dec, middle, site)
        return Pointing(POINTING, ra, dec, float(there.alt[0]), float(there.az[0]))
    if turned <= STEADY_DEG:
        there_sky = to_icrs(mean_alt, mean_az, middle, site)
        return Pointing(DRIFT, float(there_sky.ra[0]), float(there_sky.dec[0]), mean_alt, mean_az)
    raise AstriError(
        f"The pointing of {name} moves by {moved:.2f} deg in the sky and by {turned:.2f} deg over "
        f"the horizon; a run has to keep one of them within {STEADY_DEG} deg: split the run."
    )


def _mean(lon: Floats, lat: Floats) -> tuple[float, float, float]:
    """Return mean longitude and latitude, and the largest distance from there, deg."""
    lon_rad, lat_rad = np.deg2rad(lon), np.deg2rad(lat)
    x, y, z = (
        part.mean()
        for part in (
            np.cos(lat_rad) * np.cos(lon_rad),
            np.cos(lat_rad) * np.sin(lon_rad),
            np.sin(lat_rad),
        )
    )
    mean_lon = float(np.rad2deg(np.arctan2(y, x)) % 360.0)
    mean_lat = float(np.rad2deg(np.arctan2(z, np.hypot(x, y))))
    return mean_lon, mean_lat, float(to_centre(lon, lat, mean_lon, mean_lat)[0].max())
