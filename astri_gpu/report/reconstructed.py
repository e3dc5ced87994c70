"""What a report counts in DL2b stores: scores, energies and directions against the truth."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.coordinates import angular_separation
from astri_gpu.report.binned import Axis
from astri_gpu.store import Store

__all__ = [
    "DIRECTION",
    "ENERGETIC_TEV",
    "ESTIMATES",
    "GROUPS",
    "MANY_IMAGES",
    "NEAR_M",
    "OFFSET",
    "QUARTERS",
    "RATIO",
    "RECO_ENERGY",
    "SCORE",
    "WELL_SEEN",
    "Reconstructed",
    "is_reconstructed",
]

Floats = NDArray[np.float64]

DIRECTION = Axis("direction error", "deg", 1e-4, 180.0, 1250, log=True)
# Fine enough that pairs of equal bins hardly count in the area under a ROC.
SCORE = Axis("gammaness", "", 0.0, 1.0, 5000)
RATIO = Axis("reconstructed / true energy", "", 1e-2, 1e2, 2000, log=True)
RECO_ENERGY = Axis("reconstructed energy", "TeV", 1e-3, 1e3, 120, log=True)
OFFSET = Axis("offset from the pointing", "deg", 0.0, 8.0, 16)
ENERGETIC_TEV = 10.0  # from here on the ASTRI project states its resolutions
# Well seen events are shown by themselves: so many images, true core so near to the array centre.
MANY_IMAGES = 3
NEAR_M = 400.0
QUARTERS = (1, 2, 3, 4)
"""Values of event_quality, best first."""
GROUPS = {
    0: "all events",
    1: "quarter 1 (best)",
    2: "quarter 2",
    3: "quarter 3",
    4: "quarter 4",
    5: f"{MANY_IMAGES} images or more, core < {NEAR_M:g} m",
}
"""Events whose resolution is kept apart: all, by event_quality, and the well seen ones."""
WELL_SEEN = 5

ESTIMATES: dict[str, tuple[str, str]] = {
    "merged": ("reco_alt", "reco_az"),
    "geometry": ("stereo_alt", "stereo_az"),
    "displacement": ("disp_alt", "disp_az"),
}
"""Directions that are compared on the same events, those with stereo geometry: columns."""

_RECO = (
    "stereo_is_valid",
    "reco_energy",
    "reco_energy_uncert",
    "gammaness",
    "reco_direction_uncert",
    "reco_n_tels",
    "event_quality",
    "reco_is_valid",
    *(name for pair in ESTIMATES.values() for name in pair),
)


def is_reconstructed(store: Store) -> bool:
    """Return whether a store has the energies, scores and directions of `astri-gpu reconstruct`."""
    return "dl2/event/reco_is_valid" in store


class Reconstructed:
    """Counts of the reconstructed events of one particle; they grow block by block.

    Only showers with a true energy count, and of them events with ``reco_is_valid`` and images
    with ``tel_is_valid``. Rows "true energy" are the fine bins of the sample.

    Attributes
    ----------
    n_events, n_images
        What was counted.
    score, image_score
        (SCORE,) gammaness of events and of images.
    score_by_energy
        (RECO_ENERGY, SCORE).
    migration
        (true energy, RECO_ENERGY).
    ratio
        (group, true energy, RATIO), a row for each of `GROUPS`.
    direction
        (group, true energy, DIRECTION), error of the merged direction.
    compared
        By name of `ESTIMATES`, (true energy, DIRECTION): events with stereo geometry.
    offset
        (OFFSET, DIRECTION) all events, merged direction.
    offset_energetic
        The same from `ENERGETIC_TEV` on.
    offset_compared
        By name of `ESTIMATES`, (OFFSET, DIRECTION): events with stereo geometry.
    within
        Events whose error is below the expected one, by "direction" and "energy".
    """

    def __init__(self, energy_edges: Floats) -> None:
        self.energy_edges = energy_edges
        n_true, n_groups = len(energy_edges) - 1, len(GROUPS)
        self.n_events = 0
        self.n_images = 0
        self.score = np.zeros(SCORE.n_bins)
        self.image_score = np.zeros(SCORE.n_bins)
        self.score_by_energy = np.zeros((RECO_ENERGY.n_bins, SCORE.n_bins))
        self.migration = np.zeros((n_true, RECO_ENERGY.n_bins))
        self.ratio = np.zeros((n_groups, n_true, RATIO.n_bins))
        self.direction = np.zeros((n_groups, n_true, DIRECTION.n_bins))
        self.compared = {name: np.zeros((n_true, DIRECTION.n_bins)) for name in ESTIMATES}
        self.offset = np.zeros((OFFSET.n_bins, DIRECTION.n_bins))
        self.offset_energetic = np.zeros((OFFSET.n_bins, DIRECTION.n_bins))
        self.offset_compared = {name: np.zeros_like(self.offset) for name in ESTIMATES}
        self.within = {"direction": 0, "energy": 0}

    def add(self, store: Store, shower: NDArray[np.bool_], centre: tuple[float, float]) -> None:
        """Add the events and the images of a DL2b store.

        Parameters
        ----------
        store
            Where to read.
        shower
            (event,), True for events of showers.
        centre
            Of the array, x and y in m.

        Raises
        ------
        AstriError
            When a column is missing or cannot be read.
        """
        for start, stop in store.blocks("dl2/event/reco_is_valid"):
            self._add_events(store, start, stop, shower[start:stop], centre)
        for camera in store.cameras("dl2"):
            table = f"dl2/image/{camera}"
            for start, stop in store.blocks(f"{table}/tel_gammaness"):
                names = ["event_index", "tel_gammaness", "tel_is_valid"]
                columns = store.read_table(table, names, start, stop)
                score = columns["tel_gammaness"]
                use = columns["tel_is_valid"] & np.isfinite(score) & shower[columns["event_index"]]
                self.n_images += int(use.sum())
                self.image_score += SCORE.count(score[use])

    def _add_events(
        self,
        store: Store,
        start: int,
        stop: int,
        shower: NDArray[np.bool_],
        centre: tuple[float, float],
    ) -> None:
        truth = store.read_table(
            "simulation/event",
            ["true_energy", "true_alt", "true_az", "true_core_x", "true_core_y"],
            start,
            stop,
        )
        pointing = store.read_table("dl0/event", ["array_alt", "array_az"], start, stop)
        reco = store.read_table("dl2/event", _RECO, start, stop)
        energy = truth["true_energy"]
        use = shower & np.isfinite(energy) & reco["reco_is_valid"].astype(bool)
        use &= np.isfinite(reco["gammaness"]) & (reco["reco_energy"] > 0)
        rows = np.flatnonzero(use)
        truth, pointing, reco = (
            {name: values[rows] for name, values in columns.items()}
            for columns in (truth, pointing, reco)
        )
        energy = truth["true_energy"]
        bins = np.searchsorted(self.energy_edges, energy, side="right") - 1
        inside = (bins >= 0) & (bins < len(self.energy_edges) - 1)
        score = SCORE.index(reco["gammaness"])
        reco_bins = RECO_ENERGY.index(reco["reco_energy"])
        ratio = reco["reco_energy"].astype(np.float64) / energy
        quality = reco["event_quality"]
        errors = {
            name: angular_separation(reco[az], reco[alt], truth["true_az"], truth["true_alt"])
            for name, (alt, az) in ESTIMATES.items()
        }
        offset = angular_separation(
            pointing["array_az"], pointing["array_alt"], truth["true_az"], truth["true_alt"]
        )

        self.n_events += len(rows)
        self.score += np.bincount(score, minlength=SCORE.n_bins)
        np.add.at(self.score_by_energy, (reco_bins, score), 1.0)
        _count(self.migration, bins, reco_bins, inside)
        ratio_bins = RATIO.index(ratio)
        merged = errors["merged"]
        known = inside & np.isfinite(merged)
        error_bins = DIRECTION.index(np.where(known, merged, 0.0))
        distance = np.hypot(truth["true_core_x"] - centre[0], truth["true_core_y"] - centre[1])
        groups = {group: quality == group for group in QUARTERS}
        groups[WELL_SEEN] = (reco["reco_n_tels"] >= MANY_IMAGES) & (distance < NEAR_M)
        for group in GROUPS:
            chosen = inside & groups.get(group, True)
            _count(self.ratio[group], bins, ratio_bins, chosen)
            _count(self.direction[group], bins, error_bins, chosen & known)
        self._add_offsets(errors, offset, energy, reco["stereo_is_valid"].astype(bool), bins)
        # NaN errors and expectations compare as False, which is what is wanted.
        self.within["direction"] += int((merged <= reco["reco_direction_uncert"]).sum())
        deviation = np.abs(reco["reco_energy"] - energy)
        self.within["energy"] += int((deviation <= reco["reco_energy_uncert"]).sum())

    def _add_offsets(
        self,
        errors: Mapping[str, Floats],
        offset: Floats,
        energy: Floats,
        stereo: NDArray[np.bool_],
        bins: NDArray[np.int64],
    ) -> None:
        """Add the errors by offset, and those of the estimates on events that have all of them."""
        inside = (bins >= 0) & (bins < len(self.energy_edges) - 1)
        near = offset < OFFSET.high  # False for NaN
        places = OFFSET.index(np.where(near, offset, 0.0))
        all_known = stereo & np.all([np.isfinite(values) for values in errors.values()], axis=0)
        for name, values in errors.items():
            error_bins = DIRECTION.index(np.where(np.isfinite(values), values, 0.0))
            _count(self.compared[name], bins, error_bins, inside & all_known)
            _count(self.offset_compared[name], places, error_bins, near & all_known)
            if name == "merged":
                known = near & np.isfinite(values)
                _count(self.offset, places, error_bins, known)
                energetic = known & (energy >= ENERGETIC_TEV)
                _count(self.offset_energetic, places, error_bins, energetic)


def _count(
    target: Floats, rows: NDArray[np.int64], columns: NDArray[np.int64], use: NDArray[np.bool_]
) -> None:
    """Count pairs of bins where `use` is True."""
    np.add.at(target, (rows[use], columns[use]), 1.0)
