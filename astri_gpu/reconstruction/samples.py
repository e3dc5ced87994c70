"""What is trained on: images and events of one class, with weights and folds."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.power_law import density
from astri_gpu.reconstruction.blocks import EventBlock, read_event_blocks
from astri_gpu.reconstruction.expressions import parse
from astri_gpu.reconstruction.folds import choose_groups, fold_numbers, group_keys

if TYPE_CHECKING:
    from astri_gpu.config_reconstruction import SampleConfig
    from astri_gpu.store import Store

__all__ = ["ClassSample", "Wanted", "is_gamma", "open_simulated", "read_class"]

logger = logging.getLogger(__name__)

Columns = dict[str, NDArray[Any]]

EVENTS = (
    "obs_id",
    "event_id",
    "shower_id",
    "true_energy",
    "true_alt",
    "true_az",
    "array_alt",
    "array_az",
    "stereo_alt",
    "stereo_az",
    "stereo_is_valid",
)
IMAGES = (
    "hillas_intensity",
    "hillas_fov_lon",
    "hillas_fov_lat",
    "hillas_psi",
    "pointing_alt",
    "pointing_az",
    "stereo_impact_distance",
    "stereo_is_valid",
    "source_fov_lon",
    "source_fov_lat",
)
WIDE = ("event", "tel_id", "pointing_alt", "pointing_az")
"""Columns of images that keep their type; the others become float32, as features are."""
NO_PARTICLES = ("observation", "calibration", "mixed")
"""Kinds of stores of which nobody knows one particle."""


@dataclass(frozen=True)
class Wanted:
    """Columns to read besides those that are always needed, and which images to keep."""

    images: frozenset[str]
    events: frozenset[str]
    filter: str


@dataclass
class ClassSample:
    """Images and events of one class.

    `images` holds columns by camera in the order of events, with `event`, the row in `events`.
    `events` holds only events with images that passed; `weight` has a mean of one.
    """

    label: str
    images: dict[str, Columns]
    events: Columns
    group: NDArray[np.uint64]  # (event,)
    fold: NDArray[np.int8]  # (event,)
    weight: NDArray[np.float64]  # (event,)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def n_events(self) -> int:
        """Return the number of events."""
        return len(self.group)

    @property
    def n_images(self) -> int:
        """Return the number of images of all cameras."""
        return sum(len(columns["event"]) for columns in self.images.values())


def is_gamma(store: "Store") -> bool:
    """Return whether a store holds signal."""
    return bool(store.attrs.get("kind") == "gamma")


def open_simulated(path: Path) -> "Store":
    """Return a store that can be trained on.

    Raises
    ------
    AstriError
        When it is not processed, or holds no simulated particles of one kind.
    """
    from astri_gpu.store import open_store

    store = open_store(path)
    level, kind = store.attrs.get("data_level"), store.attrs.get("kind")
    if "simulation/event" not in store or kind is None or kind in NO_PARTICLES:
        raise AstriError(
            f"{path} has no truth to train on (it is a store of {kind or 'unknown'} events): give "
            "stores of simulated gammas, and of simulated other particles."
        )
    if not store.cameras("dl1") or "dl2/event" not in store:
        raise AstriError(
            f"{path} is a {level} store without image parameters and geometry: run "
            "`astri-gpu process` on it and give its output."
        )
    return store


def read_class(
    label: str, stores: Sequence["Store"], wanted: Wanted, config: "SampleConfig", seed: int
) -> ClassSample:
    """Return the images of showers that pass the filter, of all stores of one class.

    Parameters
    ----------
    label
        Name of the class, for messages.
    stores
        At least one.
    wanted
        What to read.
    config
        How many images, which spectrum, how many folds.
    seed
        Of the choice of showers and folds.

    Raises
    ------
    AstriError
        When nothing is left, or the spectrum that was thrown is not known.
    """
    names = sorted({*IMAGES, *wanted.images, "shower"})
    event_names = sorted({*EVENTS, *wanted.events})
    passes = parse(wanted.filter, condition=True) if wanted.filter.strip() else None
    counts = {"images_of_showers": 0, "filtered": 0, "without_truth": 0}
    images: dict[str, list[Columns]] = {}
    events: list[Columns] = []
    density = _spectra(label, stores, config.target_index)
    n_before = 0
    read = sorted({*names, *(passes.names if passes else ())})
    for store in stores:
        for block in read_event_blocks(store, read, event_names):
            kept, used = _kept(block, passes, counts)
            place = n_before + np.cumsum(used) - 1
            part = {name: block.events[name][used] for name in event_names}
            part["kind"] = np.full(len(part["obs_id"]), _kind_index(stores, store), np.int16)
            events.append(part)
            for camera, rows in kept.items():
                columns = _narrow(block.images[camera], ("tel_id", *names), rows)
                columns["event"] = place[block.images[camera]["event"][rows]]
                images.setdefault(camera, []).append(columns)
            n_before += int(used.sum())
    if not n_before:
        raise AstriError(_nothing(label, stores, counts, wanted.filter))
    sample = ClassSample(
        label=label,
        images={camera: _joined(parts) for camera, parts in images.items()},
        events=_joined(events),
        group=np.zeros(0, np.uint64),
        fold=np.zeros(0, np.int8),
        weight=np.zeros(0),
        counts=counts,
    )
    sample.group = group_keys(
        *(sample.events[name] for name in ("obs_id", "shower_id", "event_id"))
    )
    _limit(sample, config.max_images, seed)
    n_groups = len(np.unique(sample.group))
    if n_groups < config.n_folds:
        raise AstriError(
            f"Of the {label} showers {n_groups} are left ({sample.n_images} images), fewer than "
            f"sample.n_folds={config.n_folds}: give more events, or set fewer folds."
        )
    sample.fold = fold_numbers(sample.group, config.n_folds, seed)
    sample.weight = _weights(sample.events, density, config.target_index)
    counts |= {"images": sample.n_images, "events": sample.n_events, "showers": n_groups}
    return sample


def _kept(
    block: EventBlock, passes: Any, counts: dict[str, int]
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.bool_]]:
    """Return the rows to keep of each camera's images, and which events have any of them."""
    n_events = block.stop - block.first
    used = np.zeros(n_events, dtype=bool)
    known = np.isfinite(block.events["true_energy"]) & (block.events["true_energy"] > 0)
    for name in ("true_alt", "true_az"):
        known &= np.isfinite(block.events[name])
    kept = {}
    for camera, columns in block.images.items():
        shower = np.asarray(columns["shower"], dtype=bool)
        truth = known[columns["event"]]
        with np.errstate(all="ignore"):  # what is no number does not pass
            passed = shower if passes is None else shower & np.asarray(passes(columns), dtype=bool)
        counts["images_of_showers"] += int(shower.sum())
        counts["filtered"] += int(np.sum(shower & ~passed))
        counts["without_truth"] += int(np.sum(passed & ~truth))
        rows = np.flatnonzero(passed & truth)
        kept[camera] = rows
        used[columns["event"][rows]] = True
    return kept, used


def _narrow(columns: Columns, names: Iterable[str], rows: NDArray[np.int64]) -> Columns:
    found = {}
    for name in names:
        values = columns[name][rows]
        is_float = np.issubdtype(values.dtype, np.floating)
        found[name] = values.astype(np.float32) if is_float and name not in WIDE else values
    return found


def _joined(parts: list[Columns]) -> Columns:
    """Return the parts of a table as one; each column of the parts is let go when it is done."""
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}


def _limit(sample: ClassSample, most: int | None, seed: int) -> None:
    """Drop whole showers so that at most so many images are left."""
    n_images = np.zeros(sample.n_events, dtype=np.int64)
    for columns in sample.images.values():
        n_images += np.bincount(columns["event"], minlength=sample.n_events)
    kept = choose_groups(sample.group, n_images, most, seed)
    sample.counts["over_max_images"] = int(n_images[~kept].sum())
    if kept.all():
        return
    place = np.cumsum(kept) - 1
    for camera, columns in sample.images.items():
        rows = np.flatnonzero(kept[columns["event"]])
        left = {name: values[rows] for name, values in columns.items()}
        sample.images[camera] = left | {"event": place[left["event"]]}
    sample.events = {name: values[kept] for name, values in sample.events.items()}
    sample.group = sample.group[kept]


def _kind_index(stores: Sequence["Store"], store: "Store") -> int:
    return sorted({str(other.attrs.get("kind")) for other in stores}).index(
        str(store.attrs.get("kind"))
    )


@dataclass(frozen=True)
class _Spectrum:
    """Showers that were thrown with a power law, of one particle."""

    kind: int
    number: float
    index: float
    low: float
    high: float

    def density(self, energy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the number of showers per TeV."""
        return density(energy, self.number, self.index, self.low, self.high)


def _spectra(label: str, stores: Sequence["Store"], target: float | None) -> list[_Spectrum]:
    """Return what was thrown into each store; nothing without a target spectrum."""
    if target is None:
        return []
    found = []
    for store in stores:
        header = store.group_attrs("simulation")
        if header.get("partial"):
            raise AstriError(
                f"{store.path} holds a part of its production, so nobody knows how many of the "
                f"{label} showers are missing at which energy: leave it out, or set "
                "sample.target_index=null."
            )
        names = ("n_showers", "spectral_index", "energy_range_min", "energy_range_max")
        values = [header.get(name) for name in names]
        known = [float(value) for value in values if isinstance(value, int | float)]
        if len(known) < len(names):
            raise AstriError(
                f"{store.path} does not say with which spectrum its {label} showers were thrown "
                f"({', '.join(f'{n} is {v}' for n, v in zip(names, values, strict=True))}): set "
                "sample.target_index=null."
            )
        number, index, low, high = known
        number *= float(header.get("shower_reuse") or 1)
        found.append(_Spectrum(_kind_index(stores, store), number, index, low, high))
    return found


def _weights(
    events: Columns, spectra: Sequence[_Spectrum], target: float | None
) -> NDArray[np.float64]:
    """Return the weight of each event: target spectrum over all that was thrown of its particle."""
    energy = events["true_energy"].astype(np.float64)
    if target is None:
        return np.ones(len(energy))
    thrown = np.zeros(len(energy))
    for spectrum in spectra:
        thrown += np.where(events["kind"] == spectrum.kind, spectrum.density(energy), 0.0)
    weight = np.where(thrown > 0, energy**target / np.where(thrown > 0, thrown, 1.0), 0.0)
    if not weight.any():
        raise AstriError(
            "No event has an energy that its store says was thrown, so there are no weights: set "
            "sample.target_index=null."
        )
    return weight / weight.mean()


def _nothing(label: str, stores: Sequence["Store"], counts: dict[str, int], filter: str) -> str:
    """Return why there is nothing to train on."""
    files = ", ".join(str(store.path) for store in stores[:3]) + (", ..." if stores[3:] else "")
    number = counts["images_of_showers"]
    if not number:
        return f"There are no images of {label} showers in {files}: give stores with events."
    reasons = []
    if counts["filtered"]:
        reasons.append(f"{counts['filtered']} do not pass features.filter ({filter})")
    if counts["without_truth"]:
        reasons.append(f"{counts['without_truth']} have no true energy or direction")
    return (
        f"None of the {number} images of {label} showers in {files} is left: {', '.join(reasons)}."
    )
