"""Simulated events that stand in for an observation: drawn by their rates, put on the sky.

The number of events of every table is Poisson(rate x livetime), events are drawn with replacement
in proportion to their rates, and their times are even over the good time. Gammas are those that
were thrown about as far from the pointing as the target lies; each is turned about the pointing,
and moved along the line to it, so that its true direction falls on the target, while its
reconstructed one keeps its distance and its angle to that line. Background is turned about the
pointing by a random angle. Nothing else of an event is changed, so the draws cannot know more than
the simulated events: a thousand draws of a hundred simulated gammas have the error of a hundred.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3.gti import check_used, intervals_of_run, parse_intervals, uniform_times
from astri_gpu.dl3.run import POINTING, Columns, Pointing, Run, Target
from astri_gpu.dl3.schedule import run_starts
from astri_gpu.dl3.sky import Site, from_centre, to_altaz, to_centre
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.selection.sample import EventTable, Sample
from astri_gpu.selection.weights import rates

if TYPE_CHECKING:
    from astri_gpu.config_response import FluxConfig, ObservationConfig

__all__ = ["WINDOW_DEG", "Plan", "standing_in"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Judge = Callable[[Columns], tuple[Bools, Bools]]

WINDOW_DEG = 0.25
"""Diffuse gammas thrown this far from the target's offset stand in, on both sides."""
RING_DEG = 0.05  # how far the offset of a point-like production may be from the target's
CENTRE_DEG = 1e-6  # nearer to the pointing than this there is no direction to it
PRIMARIES = {"gamma": 0, "electron": 1, "proton": 101, "helium": 402}
"""Numbers of sim_telarray, as in the column true_primary_id."""


class Plan:
    """What all stand-in runs share: tables with their rates, and when the runs begin.

    Parameters
    ----------
    sample
        Simulated gammas and background, of one zenith angle or several.
    config
        Target, times, seed.
    flux
        Spectra.
    farthest
        Largest distance of the pointing from a simulated zenith angle, deg.
    tel_ids
        Of the telescopes.
    judge
        Function of a table's columns -> events in the range of energies, events that pass the cuts
        (see `run.passes`). Events that do not pass are drawn and counted, but given no place.

    Raises
    ------
    UsageError
        When the times, intervals or offsets do not fit.
    AstriError
        When there are no gammas or no place of the array.
    """

    def __init__(
        self,
        sample: Sample,
        config: "ObservationConfig",
        flux: "FluxConfig",
        *,
        farthest: float,
        tel_ids: Sequence[int] = (),
        judge: Judge | None = None,
    ) -> None:
        self.judge = judge
        self.sample, self.config, self.flux, self.farthest = sample, config, flux, farthest
        self.tel_ids = tuple(map(int, tel_ids))
        self.site = _site(sample)
        self.target = Target(*config.place())
        if not config.wobble_angles_deg:
            raise UsageError("observation.wobble_angles_deg is empty: give at least one angle")
        zeniths = [zenith for zenith, _ in sample.pointings()]
        if not zeniths:
            raise AstriError(
                "There are no gammas among the stores that are to stand in for an observation: "
                "give a store of simulated gammas too."
            )
        margin = max(0.0, farthest - config.wobble_offset_deg)
        self.intervals = parse_intervals(config.gti)
        self.starts = run_starts(config, self.site, zeniths, margin)
        check_used(self.intervals, [(start, start + config.duration_s) for start in self.starts])
        self._weighted: dict[tuple[float, float], list[tuple[EventTable, Floats]]] = {}
        self._judged: dict[int, tuple[Bools, Bools]] = {}

    def __len__(self) -> int:
        return len(self.starts)

    def tables(self, pointing: tuple[float, float]) -> list[tuple[EventTable, Floats]]:
        """Return the tables simulated for a pointing with the rate (1/s) of every event."""
        if pointing not in self._weighted:
            here = self.sample.at(pointing)
            kinds = {table.kind for table in self.sample} - {table.kind for table in here}
            if kinds:
                raise AstriError(
                    f"There are no simulated {' and '.join(sorted(kinds))} events at zenith angle "
                    f"{pointing[0]:g} deg, azimuth {pointing[1]:g} deg, but elsewhere: give stores "
                    "of the same kinds for every pointing."
                )
            gammas, window = _gammas(here.of("gamma"), self.config.wobble_offset_deg)
            found = [(gammas, rates(gammas, self.flux, offsets_deg=window))]
            if not (found[0][1] > 0).any():
                raise AstriError(
                    f"No simulated gamma of {', '.join(gammas.paths)} lies {window[0]:.3g} to "
                    f"{window[1]:.3g} deg from the pointing, where the target is to be seen: "
                    "choose another observation.wobble_offset_deg."
                )
            found += [(table, rates(table, self.flux)) for table in here.background()]
            self._weighted[pointing] = found
        return self._weighted[pointing]

    def judged(self, table: EventTable) -> tuple[Bools, Bools]:
        """Return which events of a table have an energy in range, and which pass the cuts."""
        if self.judge is None:
            all_of_them = np.ones(len(table), dtype=bool)
            return all_of_them, all_of_them
        if id(table) not in self._judged:
            self._judged[id(table)] = self.judge(table.columns)
        return self._judged[id(table)]


def standing_in(plan: Plan, number: int) -> Run:
    """Return a run of simulated events, before the selection.

    It depends on the seed and its `obs_id`, not on its place among the runs.

    Parameters
    ----------
    plan
        Of all runs.
    number
        From 0.

    Raises
    ------
    UsageError, AstriError
        See `Plan`.
    """
    config, site, target = plan.config, plan.site, plan.target
    start = plan.starts[number]
    stop = start + config.duration_s
    obs_id = config.first_obs_id + number
    angle = config.wobble_angles_deg[number % len(config.wobble_angles_deg)]
    ra, dec = from_centre(config.wobble_offset_deg, angle, target.ra_deg, target.dec_deg)
    middle = to_altaz(ra, dec, np.array([(start + stop) / 2]), site)
    pointing = Pointing(POINTING, float(ra), float(dec), float(middle.alt[0]), float(middle.az[0]))
    gti = intervals_of_run(plan.intervals, start, stop, f"run {obs_id}")
    simulated = _nearest(plan.sample.pointings(), 90 - pointing.alt_deg, pointing.az_deg)
    livetime = float(np.diff(gti, axis=1).sum()) * (1 - (config.dead_time or 0.0))
    parts = []
    dropped: Counter[str] = Counter()
    for table, weights in plan.tables(simulated):
        kind = PRIMARIES[table.kind]
        rng = np.random.default_rng([config.seed, obs_id, kind])
        rows, times = _draw(weights, livetime, gti, rng)
        in_range, passed = (mask[rows] for mask in plan.judged(table))
        dropped["outside_energy"] += int(np.count_nonzero(~in_range))
        dropped["cut"] += int(np.count_nonzero(in_range & ~passed))
        drawn = table.rows(rows[passed])
        parts.append(_placed(drawn, times[passed], rng, pointing, target, site))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["time"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    columns["event_id"] = np.arange(1, len(order) + 1)
    meta = plan.sample.meta
    return Run(
        obs_id=obs_id,
        target=target,
        pointing=pointing,
        start=start,
        stop=stop,
        gti=gti,
        dead_time=config.dead_time or 0.0,
        site=site,
        columns=columns,
        tel_ids=plan.tel_ids,
        cameras=tuple(meta.get("cameras") or ()),
        array=meta.get("array"),
        models=meta.get("models"),
        simulation_model=meta.get("simulation_model"),
        stand_in=True,
        sources=tuple(path for table, _ in plan.tables(simulated) for path in table.paths),
        dropped=dict(dropped),
        notes=(
            f"STANDIN: simulated events of zenith angle {simulated[0]:g} deg drawn by their rates "
            f"(seed {config.seed}) stand in for an observation",
        ),
    )


def _draw(
    weights: Floats, livetime: float, gti: Floats, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Floats]:
    """Return rows, each as often as its rate says, and their times."""
    total = np.cumsum(weights)
    count = int(rng.poisson(total[-1] * livetime)) if len(total) else 0
    if not count:
        return np.empty(0, dtype=np.int64), np.empty(0)
    times = uniform_times(rng.random(count), gti)
    rows = np.searchsorted(total, rng.random(count) * total[-1], side="right")
    return np.minimum(rows, len(total) - 1), times


def _placed(
    table: EventTable,
    times: Floats,
    rng: np.random.Generator,
    pointing: Pointing,
    target: Target,
    site: Site,
) -> Columns:
    """Return the drawn events of one table with their places on the sky."""
    drawn, count = table.columns, len(table)
    spin = rng.uniform(0.0, 360.0, count)
    looked_alt, looked_az = pointing.altaz(times, site)
    if table.kind == "gamma":
        seen = to_altaz(target.ra_deg, target.dec_deg, times, site)
        centre = seen.az, seen.alt
        distance, angle = to_centre(
            drawn["fov_lon"], drawn["fov_lat"], drawn["true_fov_lon"], drawn["true_fov_lat"]
        )
        zero = np.zeros(count)
        inward = to_centre(zero, zero, drawn["true_fov_lon"], drawn["true_fov_lat"])[1]
        off, outward = to_centre(looked_az, looked_alt, *centre)
        turn = np.where((drawn["true_offset"] < CENTRE_DEG) | (off < CENTRE_DEG), spin, outward)
        angle = angle - inward + turn
    else:
        centre = looked_az, looked_alt
        zero = np.zeros(count)
        distance, angle = to_centre(drawn["fov_lon"], drawn["fov_lat"], zero, zero)
        angle = angle + spin
    az, alt = from_centre(distance, angle, *centre)
    return {
        "time": times,
        "alt": alt,
        "az": az,
        "pointing_alt": looked_alt,
        "pointing_az": looked_az,
        "reco_energy": drawn["reco_energy"],
        "gammaness": drawn["gammaness"],
        "n_tels": drawn["n_tels"],
        "quality": drawn["quality"],
        "true_energy": drawn["true_energy"],
        "shower_key": drawn["shower_key"],
        "primary": np.full(count, PRIMARIES[table.kind], dtype=np.int32),
    }


def _gammas(tables: Sequence[EventTable], offset: float) -> tuple[EventTable, tuple[float, float]]:
    """Return the gammas that stand for a source at an offset, and from which offsets they come."""
    for table in tables:
        place = table.thrown[0].cone_min_deg
        if table.point_like and abs(place - offset) <= RING_DEG:
            return table, (max(0.0, place - RING_DEG), place + RING_DEG)
    window = max(0.0, offset - WINDOW_DEG), offset + WINDOW_DEG
    for table in tables:
        cone = table.thrown[0]
        if not table.point_like and cone.cone_min_deg < window[1] and offset <= cone.cone_max_deg:
            return table, window
    thrown = "; ".join(
        f"{table.thrown[0].cone_min_deg:g} to {table.thrown[0].cone_max_deg:g} deg"
        for table in tables
    )
    raise AstriError(
        f"The target is to be seen {offset:g} deg from the pointing, where no gammas were thrown "
        f"(only {thrown}): give diffuse gammas, gammas simulated with view=wobble, or another "
        "observation.wobble_offset_deg."
    )


def _nearest(
    pointings: Sequence[tuple[float, float]], zenith: float, azimuth: float
) -> tuple[float, float]:
    """Return the simulated pointing next to another: by zenith angle, then by azimuth."""

    def distance(pointing: tuple[float, float]) -> tuple[float, float]:
        turned = abs((pointing[1] - azimuth + 180) % 360 - 180)
        return round(abs(pointing[0] - zenith), 3), turned

    return min(pointings, key=distance)


def _site(sample: Sample) -> Site:
    place = [sample.meta.get(name) for name in ("latitude_deg", "longitude_deg", "altitude_m")]
    if any(value is None for value in place):
        raise AstriError(
            "The stores do not say where on Earth the array stands (attributes of instrument), so "
            "their events have no place on the sky."
        )
    return Site(*(float(value) for value in place))  # type: ignore[arg-type]
