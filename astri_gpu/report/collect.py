"""What a report needs from DL2 stores of simulated events, read block by block.

Stores of one particle thrown in one way (spectrum, view cone, scatter radius, pointing) and
reconstructed with one file of models are one sample, whatever the number of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.display.scene import SHOWER
from astri_gpu.errors import AstriError
from astri_gpu.kernels.coordinates import angular_separation
from astri_gpu.progress import Progress
from astri_gpu.report.binned import Axis, group_starts
from astri_gpu.report.reconstructed import (
    DIRECTION,
    MANY_IMAGES,
    NEAR_M,
    Reconstructed,
    is_reconstructed,
)
from astri_gpu.report.trained import Trained, trained_models, was_trained_on
from astri_gpu.store import Store, open_store

__all__ = [
    "CORE",
    "PARAMETERS",
    "THETA2",
    "Sample",
    "collect",
]

Floats = NDArray[np.float64]

PARAMETERS: dict[str, Axis] = {
    "hillas_intensity": Axis("SIZE", "p.e.", 10.0, 1e7, 1200, log=True),
    "hillas_length": Axis("LENGTH", "deg", 0.0, 3.0, 1500),
    "hillas_width": Axis("WIDTH", "deg", 0.0, 1.0, 2000),
    "astri_conc": Axis("CONC", "", 0.0, 1.0, 1000),
}
"""Image parameters of the report; fine bins, so that quantiles can be read off them."""

CORE = Axis("core error", "m", 1e-2, 1e4, 1200, log=True)
THETA2 = Axis("squared direction error", "deg2", 0.0, 0.1, 50)
DEFAULT_ENERGY_EDGES = np.geomspace(1e-3, 1e3, 121)  # TeV, where a store has no thrown showers

# What has to agree for stores to be one sample.
THROWN_IN_ONE_WAY = (
    "energy_range_min",
    "energy_range_max",
    "spectral_index",
    "max_scatter_range",
    "min_scatter_range",
    "max_viewcone_radius",
    "min_viewcone_radius",
    "min_alt",
    "max_alt",
    "min_az",
    "max_az",
)


@dataclass
class Sample:
    """Counts of one particle; arrays over energy have one entry per bin of `energy_edges` (TeV)."""

    label: str
    kind: str
    stores: list[Path]
    models: set[str]
    header: dict[str, Any]
    energy_edges: Floats
    n_telescopes: int
    n_showers: int = 0
    thrown: Floats | None = None  # uses of showers; None = the store does not say
    triggered: Floats = field(default_factory=lambda: np.zeros(0))  # events
    reconstructed: Floats = field(default_factory=lambda: np.zeros(0))  # events
    telescopes: Floats = field(default_factory=lambda: np.zeros(0))  # triggered telescopes
    n_events: int = 0
    n_telescope_triggers: int = 0
    n_reconstructed: int = 0
    multiplicity: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    parameters: dict[str, Floats] = field(default_factory=dict)
    direction: Floats = field(default_factory=lambda: np.zeros((0, 0)))  # (energy, DIRECTION)
    direction_well: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    core: Floats = field(default_factory=lambda: np.zeros((0, 0)))  # (energy, CORE)
    theta2: Floats = field(default_factory=lambda: np.zeros(THETA2.n_bins))
    reco: Reconstructed | None = None  # of DL2b stores
    trained: Trained | None = None  # the models behind `reco`
    seen: list[str] = field(default_factory=list)  # stores that the models were trained on

    def __post_init__(self) -> None:
        """Make the empty histograms."""
        n_bins = len(self.energy_edges) - 1
        self.triggered, self.reconstructed = np.zeros(n_bins), np.zeros(n_bins)
        self.telescopes = np.zeros(n_bins)
        self.multiplicity = np.zeros(self.n_telescopes + 1, np.int64)
        self.parameters = {name: np.zeros(axis.n_bins) for name, axis in PARAMETERS.items()}
        self.direction = np.zeros((n_bins, DIRECTION.n_bins))
        self.direction_well = np.zeros((n_bins, DIRECTION.n_bins))
        self.core = np.zeros((n_bins, CORE.n_bins))

    @property
    def n_images(self) -> int:
        """Return the number of images with parameters."""
        return int(self.multiplicity @ np.arange(len(self.multiplicity)))

    def merged(self, per_decade: int) -> NDArray[np.int64]:
        """Return the first energy bin of each group of bins; about `per_decade` groups a decade.

        Groups are made of whole bins, so sums over them are exact (`numpy.add.reduceat`).
        """
        return group_starts(self.energy_edges, per_decade)

    def merged_edges(self, per_decade: int) -> Floats:
        """Return the edges of the groups of `merged`, TeV."""
        first = self.merged(per_decade)
        return np.append(self.energy_edges[first], self.energy_edges[-1])


def collect(paths: Sequence[Path], shown: Progress) -> list[Sample]:
    """Return the samples of some stores, in the order in which their particles appear.

    Parameters
    ----------
    paths
        DL2a or DL2b stores.
    shown
        Counts the images that were read.

    Raises
    ------
    AstriError
        When one of them is no store, not processed, or not simulated.
    """
    stores = [open_store(path) for path in paths]
    for store in stores:
        _check(store)
    samples: dict[tuple[Any, ...], Sample] = {}
    for store in stores:
        shown.note(store.path.name)
        thrown, edges = _thrown(store)
        header = store.group_attrs("simulation")
        kind = str(store.attrs.get("kind", "unknown"))
        reconstructed = is_reconstructed(store)
        trained = trained_models(store) if reconstructed else None
        key = (
            kind,
            reconstructed,
            trained and trained.checksum,
            thrown is None,
            edges.tobytes(),
            *(repr(header.get(name)) for name in THROWN_IN_ONE_WAY),
        )
        n_telescopes = store.n_rows("instrument/telescope")
        sample = samples.get(key)
        if sample is None:
            sample = Sample(kind, kind, [], set(), header, edges, n_telescopes)
            if reconstructed:
                sample.reco, sample.trained = Reconstructed(edges), trained
            samples[key] = sample
        elif sample.n_telescopes != n_telescopes:
            raise AstriError(
                f"{store.path} has {n_telescopes} telescopes, but {sample.stores[0]} has "
                f"{sample.n_telescopes}: make a report for each array."
            )
        _add(sample, store, thrown, shown)
    found = list(samples.values())
    for sample in found:
        if sum(other.kind == sample.kind for other in found) > 1:
            sample.label = f"{sample.kind} ({sample.stores[0].stem})"
    return found


def _check(store: Store) -> None:
    """Refuse stores that a report cannot be made from."""
    level = store.attrs.get("data_level")
    if not store.cameras("dl1") or "dl2/event" not in store:
        raise AstriError(
            f"{store.path} is a {level} store without image parameters: run `astri-gpu process` "
            "on it and give its output."
        )
    if "simulation/event" not in store:
        raise AstriError(
            f"{store.path} holds no simulated truth ({store.attrs.get('kind')} data): the report "
            "compares events with what was simulated, so give stores of simulated events."
        )


def _thrown(store: Store) -> tuple[Floats | None, Floats]:
    """Return how many showers were thrown per bin of energy, None if unknown, and the edges."""
    if "simulation/thrown" not in store:
        return None, DEFAULT_ENERGY_EDGES
    edges = store.read("simulation/thrown/energy_edges").astype(np.float64)
    # Of a file that was cut off nobody knows how many of the thrown showers are missing.
    if store.group_attrs("simulation").get("partial"):
        return None, edges
    return store.read("simulation/thrown/histogram").astype(np.float64).sum(axis=0), edges


def _add(sample: Sample, store: Store, thrown: Floats | None, shown: Progress) -> None:
    """Add one store to its sample."""
    sample.stores.append(store.path)
    if store.attrs.get("simulation_model"):
        sample.models.add(str(store.attrs["simulation_model"]))
    sample.n_showers += int(store.group_attrs("simulation").get("n_showers") or 0)
    if thrown is not None:
        sample.thrown = thrown if sample.thrown is None else sample.thrown + thrown
    n_events = store.n_rows("dl0/event")
    shower = store.read("dl0/event/event_type") == SHOWER
    n_triggers = np.zeros(n_events, np.int32)
    for camera in store.cameras():
        table = f"dl0/image/{camera}/event_index"
        for start, stop in store.blocks(table):
            n_triggers += np.bincount(store.read(table, start, stop), minlength=n_events).astype(
                np.int32
            )
    n_images = np.zeros(n_events, np.int32)
    for camera in store.cameras("dl1"):
        n_images += _add_images(sample, store, f"dl1/image/{camera}", shower, shown)
    place = store.read_table("instrument/telescope", ["x", "y"])
    centre = (float(place["x"].mean()), float(place["y"].mean()))
    if sample.reco is not None:
        sample.reco.add(store, shower, centre)
        if was_trained_on(store):
            sample.seen.append(store.path.name)
    for start, stop in store.blocks("simulation/event/true_energy"):
        rows = slice(start, stop)
        _add_events(
            sample, store, centre, start, stop, shower[rows], n_triggers[rows], n_images[rows]
        )


def _add_images(
    sample: Sample, store: Store, table: str, shower: NDArray[np.bool_], shown: Progress
) -> NDArray[np.int32]:
    """Add the parameters of the images of a camera; return the images of each event."""
    n_images = np.zeros(len(shower), np.int32)
    for start, stop in store.blocks(f"{table}/hillas_intensity"):
        columns = store.read_table(table, ["event_index", *PARAMETERS], start, stop)
        rows = columns.pop("event_index")
        intensity = columns["hillas_intensity"]
        use = np.isfinite(intensity) & (intensity > 0) & shower[rows]
        n_images += np.bincount(rows[use], minlength=len(shower)).astype(np.int32)
        for name, axis in PARAMETERS.items():
            values = columns[name][use]
            sample.parameters[name] += axis.count(values[np.isfinite(values)])
        shown.advance(stop - start)
    return n_images


def _add_events(
    sample: Sample,
    store: Store,
    centre: tuple[float, float],
    start: int,
    stop: int,
    shower: NDArray[np.bool_],
    n_triggers: NDArray[np.int32],
    n_images: NDArray[np.int32],
) -> None:
    """Add the events of a block of rows; `centre` is that of the array, x and y in m."""
    truth = store.read_table(
        "simulation/event",
        ["true_energy", "true_alt", "true_az", "true_core_x", "true_core_y"],
        start,
        stop,
    )
    reco = store.read_table(
        "dl2/event",
        ["stereo_is_valid", "stereo_alt", "stereo_az", "stereo_core_x", "stereo_core_y"],
        start,
        stop,
    )
    use = shower & np.isfinite(truth["true_energy"]) & (n_triggers > 0)
    valid = use & reco["stereo_is_valid"].astype(bool)
    sample.n_events += int(use.sum())
    sample.n_telescope_triggers += int(n_triggers[use].sum())
    sample.n_reconstructed += int(valid.sum())
    sample.multiplicity += np.bincount(n_images[use], minlength=len(sample.multiplicity))

    n_bins = len(sample.energy_edges) - 1
    bins = np.searchsorted(sample.energy_edges, truth["true_energy"], side="right") - 1
    inside = (bins >= 0) & (bins < n_bins)

    def per_energy(rows: NDArray[np.bool_], weights: Any = None) -> Floats:
        chosen = rows & inside
        return np.bincount(
            bins[chosen], None if weights is None else weights[chosen], minlength=n_bins
        ).astype(np.float64)

    sample.triggered += per_energy(use)
    sample.telescopes += per_energy(use, n_triggers)
    sample.reconstructed += per_energy(valid)

    error = np.full(stop - start, np.nan)
    error[valid] = angular_separation(
        reco["stereo_az"][valid],
        reco["stereo_alt"][valid],
        truth["true_az"][valid],
        truth["true_alt"][valid],
    )
    distance = np.hypot(
        reco["stereo_core_x"] - truth["true_core_x"], reco["stereo_core_y"] - truth["true_core_y"]
    )

    def per_error(target: Floats, axis: Axis, values: Floats, rows: NDArray[np.bool_]) -> None:
        chosen = rows & inside & np.isfinite(values)
        np.add.at(target, (bins[chosen], axis.index(values[chosen])), 1.0)

    per_error(sample.direction, DIRECTION, error, valid)
    near = np.hypot(truth["true_core_x"] - centre[0], truth["true_core_y"] - centre[1]) < NEAR_M
    per_error(sample.direction_well, DIRECTION, error, valid & near & (n_images >= MANY_IMAGES))
    per_error(sample.core, CORE, distance, valid)
    known = error[valid & np.isfinite(error)]
    sample.theta2 += np.histogram(known**2, THETA2.edges)[0]
