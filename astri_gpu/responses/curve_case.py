"""One class at one pointing: its events, their random numbers, and where it is judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_response import CutsConfig, IrfConfig
from astri_gpu.responses.curve_values import ONE_SIGMA, Counted, draw
from astri_gpu.selection.cuts import Cuts
from astri_gpu.selection.sample import EventTable, Sample, solid_angle
from astri_gpu.selection.weights import cone_share, inside_offsets, rates

__all__ = ["NOTHING_SEEN", "Case", "Draws"]

Floats = NDArray[np.float64]

NOTHING_SEEN = -np.log(ONE_SIGMA[0])
"""Events that may be expected where none is seen: none comes in 15.9 % of the cases."""


class Draws:
    """Poisson numbers of the events of a pointing, drawn once for all its classes.

    Parameters
    ----------
    cuts
        All classes: of the background only what one of them lets through is needed.
    n_replicas, seed
        See `curve_values.draw`.
    """

    def __init__(self, cuts: Sequence[Cuts], *, n_replicas: int, seed: int) -> None:
        self._cuts = tuple(cuts)
        self._options = {"n_replicas": n_replicas, "seed": seed}
        self._drawn: dict[int, tuple[EventTable, Counted]] = {}

    def of(self, table: EventTable) -> Counted:
        """Return a table (its gammas, or the background that any class keeps) with numbers."""
        # The table is kept too, so that no other one can get its id.
        if id(table) not in self._drawn:
            part = table
            if table.kind != "gamma":
                passed = [entry.select(table.columns) for entry in self._cuts]
                part = table.rows(np.any(passed, axis=0))
            self._drawn[id(table)] = table, draw(part, **self._options)
        return self._drawn[id(table)][1]


@dataclass(frozen=True)
class Case:
    """One class at one pointing.

    Attributes
    ----------
    cuts
        Of the class.
    sample
        What was simulated for the pointing.
    config
        Options of the stage.
    draws
        Shared by the cases of a pointing, so that numbers are drawn once.
    """

    cuts: Cuts
    sample: Sample
    config: IrfConfig
    draws: "Draws"

    @property
    def labels(self) -> dict[str, Any]:
        """Return what all curves of the case are labelled with."""
        table = self.sample.of("gamma")[0]
        return {
            "event_class": self.cuts.event_class,
            "zenith_deg": table.zenith_deg,
            "azimuth_deg": table.azimuth_deg,
        }

    @property
    def options(self) -> CutsConfig:
        """Return the options that the cuts were made with, as far as they are known."""
        known = (self.cuts.meta.get("options") or {}).get("cuts") or {}
        names = CutsConfig.__dataclass_fields__
        return CutsConfig(**{name: value for name, value in known.items() if name in names})

    @property
    def offsets(self) -> tuple[float, float]:
        """Return the offsets of the source in deg: from the first, below the last."""
        options = self.options
        return options.offset_min_deg, options.offset_max_deg

    @property
    def ring(self) -> tuple[float, float]:
        """Return the offsets in deg whose background is counted: from the first, below the last."""
        options = self.options
        return options.background_offset_min_deg, options.background_offset_max_deg

    def gammas(self) -> Counted | None:
        """Return the gammas of a source at `offsets`: point-like ones where there are."""
        tables = sorted(self.sample.of("gamma"), key=lambda table: not table.point_like)
        low, high = self.offsets
        for table in tables:
            if table.point_like and not inside_offsets(table, self.offsets).any():
                continue
            if not table.point_like and not cone_share(table.thrown[0], low, high) > 0:
                continue
            return self.draws.of(table).rows(inside_offsets(table, self.offsets))
        return None

    def kept(self, table: EventTable) -> Counted:
        """Return the background that passes the cuts and is found in the ring."""
        counted = self.draws.of(table)
        return counted.rows(self._found(counted.table) & self.cuts.select(counted.columns))

    def kinds(self) -> dict[str, list[EventTable]]:
        """Return the tables of every kind of background."""
        kinds: dict[str, list[EventTable]] = {}
        for table in self.sample.background():
            kinds.setdefault(table.kind, []).append(table)
        return kinds

    def missed(self, tables: Sequence[EventTable]) -> Floats:
        """Return the rate (bin,) that background in the ring may have where no event is left.

        One-sigma limit of no event, times the mean weight before the cuts; 0 where events are left,
        NaN where there was none before the cuts either, or where there is no cut.

        Parameters
        ----------
        tables
            Of one kind of particle.
        """
        n_bins = len(self.cuts.gammaness)
        total, number, left = np.zeros(n_bins), np.zeros(n_bins), np.zeros(n_bins)
        for table in tables:
            found = table.rows(self._found(table))
            place = self.cuts.bins(found.columns["reco_energy"])
            total += np.bincount(place, rates(found, self.config.flux), minlength=n_bins)
            number += np.bincount(place, minlength=n_bins)
            left += np.bincount(place[self.cuts.select(found.columns)], minlength=n_bins)
        mean = np.divide(total, number, out=np.full(n_bins, np.nan), where=number > 0)
        limit = np.where(left > 0, 0.0, NOTHING_SEEN * mean)
        return np.where(self.cuts.valid, limit, np.nan)

    def _found(self, table: EventTable) -> NDArray[np.bool_]:
        offset = table.columns["reco_offset"]
        use = (offset >= self.ring[0]) & (offset < self.ring[1])
        return np.asarray(use & (self.cuts.bins(table.columns["reco_energy"]) >= 0))

    def on_over_ring(self, ring: tuple[float, float]) -> Floats:
        """Return the solid angle of the theta cut over that of a ring, (bin,)."""
        return np.asarray(solid_angle(0.0, self.cuts.theta_deg) / solid_angle(*ring))
