"""Runs of an observation: reconstructed events of a DL2b store, with their times and pointing."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display.scene import SHOWER
from astri_gpu.dl3.gti import check_intervals, inside, intervals_of_run, parse_intervals
from astri_gpu.dl3.run import DRIFT, POINTING, Pointing, Run, Target
from astri_gpu.dl3.sky import REFERENCE_UNIX_S, Site, to_altaz, to_centre, to_icrs
from astri_gpu.errors import AstriError, UsageError
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

    What the options leave open (null) is that of the store: target, good time and dead time, as
    `astri-gpu ingest format=dl0_fits` leaves them there. Start and end are those of its run. A
    store that does not know them has runs from their first to their last event, all of them good
    time. The pointing is that of the events in good time.

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
        When intervals or filter cannot be used, or neither options nor store name the target.
    AstriError
        When the store is not DL2b or says not where the array stands, has no good time, times or
        pointing are no numbers, or the pointing moves both in the sky and over the horizon.
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
    target = _target(store, config)
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
        yield _run(store, obs_id, events, reco, rows, use[rows], site, intervals, target, config)


def _run(
    store: Store,
    obs_id: int,
    events: Columns,
    reco: Columns,
    rows: NDArray[np.int64],
    use: NDArray[np.bool_],
    site: Site,
    intervals: Floats,
    target: Target,
    config: "ObservationConfig",
) -> Run:
    name = f"run {obs_id} of {store.path}"
    monitored = "monitoring/pointing" in store
    whole = events["time_s"][rows].astype(np.int64) - REFERENCE_UNIX_S
    time = whole + 1e-9 * events["time_ns"][rows]
    alt, az = (events[name][rows].astype(np.float64) for name in ("array_alt", "array_az"))
    known = np.isfinite(alt) & np.isfinite(az)
    for values, what in ((time, "time"), (alt, "array_alt"), (az, "array_az")):
        finite = np.isfinite(values)
        if not finite.all() and not (monitored and what != "time" and known.any()):
            row = int(rows[np.argmin(finite)])
            raise AstriError(
                f"Event {events['event_id'][row]} of run {obs_id} in {store.path} has no {what} "
                "(it is not a finite number), so it has no place on the sky: process it again."
            )
    start, stop = _ends(store, obs_id, time)
    gti, note = _good_time(store, intervals, start, stop, name)
    steady = known & inside(time, gti)
    if not steady.any():
        raise AstriError(
            f"No event of {name} lies in its good time, so nobody knows where it pointed: give "
            "other intervals (observation.gti)."
        )
    pointing = _pointing(alt[steady], az[steady], time[steady], site, name)
    lost = int(np.count_nonzero(use & ~known))
    use = use & known
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
    return Run(
        obs_id=obs_id,
        target=target,
        pointing=pointing,
        start=start,
        stop=stop,
        gti=gti,
        dead_time=_dead_time(store, config),
        site=site,
        columns=columns,
        tel_ids=tuple(map(int, store.read("instrument/telescope/tel_id"))),
        cameras=tuple(sorted(store.cameras("dl0"))),
        array=store.group_attrs("instrument").get("name"),
        models=(store.attrs.get("models") or {}).get("checksum"),
        simulation_model=store.attrs.get("simulation_model"),
        sources=(str(store.path),),
        notes=(note,) if note else (),
        dropped={"without_pointing": lost} if lost else {},
    )


def _target(store: Store, config: "ObservationConfig") -> Target:
    """Return the target of the options, what they leave open that of the store."""
    given = (config.target, config.ra_deg, config.dec_deg)
    attrs = store.attrs
    name, ra_deg, dec_deg = (
        attrs.get(key) if value is None else value
        for key, value in zip(("target", "ra_deg", "dec_deg"), given, strict=True)
    )
    if name is None or ra_deg is None or dec_deg is None:
        raise UsageError(
            f"{store.path} does not say what was observed: give observation.target, "
            "observation.ra_deg and observation.dec_deg."
        )
    return Target(str(name), float(ra_deg), float(dec_deg))


def _ends(store: Store, obs_id: int, time: Floats) -> tuple[float, float]:
    """Return start and end of a run, as the store says or those of its events."""
    attrs = store.attrs
    if attrs.get("obs_id") == obs_id and "start_s" in attrs and "stop_s" in attrs:
        return float(attrs["start_s"]), float(attrs["stop_s"])
    return float(time.min()), float(time.max()) + LAST_S


def _good_time(
    store: Store, intervals: Floats, start: float, stop: float, name: str
) -> tuple[Floats, str]:
    """Return the good time intervals of a run, (interval, 2), and a note where nobody knows them.

    Those of the options come first, then those of the monitoring, as far as they lie in the run.
    """
    if len(intervals):
        return intervals_of_run(intervals, start, stop, name), ""
    if "monitoring/good_time" not in store:
        whole = "goes from the first to the last event"
        if "start_s" in store.attrs:
            whole = "is the whole run: nothing was monitored"
        note = f"good time {whole}"
        return intervals_of_run(intervals, start, stop, name), note
    table = store.read_table("monitoring/good_time")
    ends = [
        table[f"{end}_s"].astype(np.int64) - REFERENCE_UNIX_S + 1e-9 * table[f"{end}_ns"]
        for end in ("start", "stop")
    ]
    found = np.clip(np.stack(ends, axis=1), start, stop)
    found = found[found[:, 1] > found[:, 0]]
    if not len(found):
        raise AstriError(
            f"The monitoring of {name} has no good time: see what `astri-gpu ingest` said of it, "
            "or give intervals (observation.gti) to use it all the same."
        )
    check_intervals(found, f"monitoring/good_time of {store.path}")
    return found, ""


def _dead_time(store: Store, config: "ObservationConfig") -> float:
    """Return the share of the time in which the array is blind: of the options, else of the data.

    The mean of the telescopes' shares, for the reasons in `astri_gpu.calibration.live_time`.
    """
    if config.dead_time is not None:
        return config.dead_time
    share = None
    if "monitoring" in store:
        share = store.group_attrs("monitoring").get("array_dead_time_share")
    return 0.0 if share is None else float(share)


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
