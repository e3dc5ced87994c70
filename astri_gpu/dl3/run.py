"""One observation run: its times, its pointing and its events, observed or standing in."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3.gti import inside
from astri_gpu.dl3.sky import Site, to_altaz, to_centre
from astri_gpu.selection.cuts import Cuts

__all__ = ["DRIFT", "POINTING", "Pointing", "Run", "Target", "passes", "track_of"]

Columns = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]

POINTING, DRIFT = "POINTING", "DRIFT"
TRACK_STEP_S = 30.0


class Target(NamedTuple):
    """What is observed, ICRS, deg."""

    name: str
    ra_deg: float
    dec_deg: float


class Pointing(NamedTuple):
    """Where the array looks: fixed in ICRS (POINTING), or fixed to the horizon (DRIFT)."""

    mode: str
    ra_deg: float
    dec_deg: float
    """ICRS; of a drift scan in the middle of the run."""
    alt_deg: float
    az_deg: float
    """In the middle of the run."""

    def altaz(self, time: Floats, site: Site) -> tuple[Floats, Floats]:
        """Return altitude and azimuth (deg) at times (s since 2020-01-01 UTC)."""
        if self.mode == DRIFT:
            return np.full(time.shape, self.alt_deg), np.full(time.shape, self.az_deg)
        point = to_altaz(self.ra_deg, self.dec_deg, time, site)
        return point.alt, point.az


@dataclass(frozen=True)
class Run:
    """A run before or after the selection.

    Times are seconds since 2020-01-01 UTC.

    Attributes
    ----------
    obs_id
        Its number.
    start, stop
        Of the run.
    gti
        Good time intervals, (interval, 2).
    dead_time
        Share of the time in which the array is blind.
    columns
        `event_id`, `time`, `alt`, `az`, `pointing_alt`, `pointing_az` (deg), `reco_energy` (TeV),
        `gammaness`, `n_tels`, `quality`; where known `energy_error`, `direction_error`, `core_x`,
        `core_y`; of stand-ins `true_energy`, `shower_key`, `primary`. (event,) each, by time.
    tel_ids
        Of the telescopes that took part.
    cameras
        Their names.
    models
        Checksum of the forests that made energies and scores.
    simulation_model
        What simulated the events, where they are simulated.
    stand_in
        Whether simulated events stand in for an observation.
    notes
        What is worth to know, one sentence each.
    dropped
        Numbers of events that are not in `columns`: of stand-in events those that do not pass the
        cuts and so were given no place on the sky (`outside_energy` and `cut`), of observed ones
        those `without_pointing`.
    """

    obs_id: int
    target: Target
    pointing: Pointing
    start: float
    stop: float
    gti: Floats
    dead_time: float
    site: Site
    columns: Columns
    tel_ids: tuple[int, ...] = ()
    cameras: tuple[str, ...] = ()
    array: str | None = None
    models: str | None = None
    simulation_model: str | None = None
    stand_in: bool = False
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["time"])

    @property
    def ontime(self) -> float:
        """Return the summed length of the good time intervals, s."""
        return float(np.diff(self.gti, axis=1).sum())

    @property
    def livetime(self) -> float:
        """Return the time without dead time, s."""
        return self.ontime * (1.0 - self.dead_time)

    @property
    def wobble(self) -> tuple[float, float]:
        """Return distance and position angle (deg, North over East) of the pointing from target."""
        distance, angle = to_centre(
            self.pointing.ra_deg, self.pointing.dec_deg, self.target.ra_deg, self.target.dec_deg
        )
        return float(distance), float(angle) % 360.0

    def rows(self, chosen: NDArray[Any]) -> "Run":
        """Return the run with chosen events (a mask or row numbers)."""
        return replace(self, columns={name: part[chosen] for name, part in self.columns.items()})

    def selected(
        self, cuts: Cuts, energies: tuple[float, float]
    ) -> tuple["Run", Mapping[str, int]]:
        """Return the run with the events that pass, and how many were lost where.

        Parameters
        ----------
        cuts
            Of the event class; that of theta is not applied.
        energies
            Reconstructed energies (TeV) that the response covers.

        Returns
        -------
        run, counts
            `read`, `outside_gti`, `outside_energy`, `selected`: numbers of events.
        """
        in_time = inside(self.columns["time"], self.gti)
        in_range, passed = passes(self.columns, cuts, energies)
        order = np.flatnonzero(in_time & passed)
        order = order[np.argsort(self.columns["time"][order], kind="stable")]
        counts = {
            "read": len(self) + sum(self.dropped.values()),
            "outside_gti": int(np.count_nonzero(~in_time)),
            "outside_energy": int(np.count_nonzero(in_time & ~in_range))
            + self.dropped.get("outside_energy", 0),
            "selected": len(order),
        }
        return self.rows(order), counts


def passes(
    columns: Mapping[str, NDArray[Any]], cuts: Cuts, energies: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which events (event,) have an energy that cuts and response cover, and which pass.

    Parameters
    ----------
    columns
        As `Cuts.select` asks for them.
    cuts
        Of the event class; that of theta is not applied.
    energies
        Reconstructed energies (TeV) that the response covers.
    """
    energy = columns["reco_energy"]
    low = max(energies[0], cuts.energy_edges[0])
    high = min(energies[1], cuts.energy_edges[-1])
    in_range = (energy >= low) & (energy < high)
    return in_range, in_range & cuts.select(columns)


def track_of(run: Run) -> tuple[Floats, Floats, Floats]:
    """Return zenith, azimuth (deg) and weight (s of livetime) along the good time of a run."""
    parts = []
    for start, stop in run.gti:
        n_steps = max(1, int(np.ceil((stop - start) / TRACK_STEP_S)))
        width = (stop - start) / n_steps
        times = start + width * (np.arange(n_steps) + 0.5)
        parts.append((times, np.full(n_steps, width * (1.0 - run.dead_time))))
    times, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    alt, az = run.pointing.altaz(times, run.site)
    return 90.0 - alt, az, weights
