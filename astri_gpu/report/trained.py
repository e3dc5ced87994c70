"""What a DL2b store says of the models that were applied: the root attribute ``models``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.store import Store

if TYPE_CHECKING:
    from astri_gpu.report.collect import Sample

__all__ = ["Trained", "importances_of", "trained_files", "trained_models", "was_trained_on"]

SHOWN = 19  # characters of a checksum


@dataclass(frozen=True)
class Trained:
    """One file of models; two are equal when their checksums are.

    `ensembles` have the features and their importances by name, such as "ASTRICam/stereo/energy"
    or "array/gammaness". `counts` are the images and events of "gamma" and "other" that were
    trained on, `inputs` the checksums of their stores.
    """

    checksum: str
    name: str = field(compare=False)
    filter: str = field(compare=False)
    ensembles: Mapping[str, Mapping[str, float]] = field(compare=False)
    counts: Mapping[str, tuple[int, int]] = field(compare=False)
    inputs: frozenset[str] = field(compare=False)

    @property
    def sentence(self) -> str:
        """Return file, sample and filter in words."""
        parts = [
            f"{images:,} images of {events:,} events ({particle})"
            for particle, (images, events) in self.counts.items()
        ]
        trained = f", trained on {' and '.join(parts)}" if parts else ""
        condition = f" Images pass: {self.filter}." if self.filter else ""
        return f"Reconstructed with {self.name} ({self.checksum[:SHOWN]}…){trained}.{condition}"


def trained_models(store: Store) -> Trained | None:
    """Return the models of a DL2b store, None where it says nothing of them.

    Importances that are no finite numbers are left out, and so are ensembles without any.
    """
    found = store.attrs.get("models")
    if not isinstance(found, Mapping):
        return None
    ensembles = {}
    for name, entry in _ensembles(found):
        usable = {
            str(feature): float(value)
            for feature, value in _mapping(entry, "importances").items()
            if isinstance(value, (int, float)) and np.isfinite(value)
        }
        if usable:
            ensembles[name] = usable
    return Trained(
        checksum=str(found.get("checksum")),
        name=PurePath(str(found.get("path") or "models")).name,
        filter=str(found.get("filter") or ""),
        ensembles=ensembles,
        counts=_counts(_mapping(_mapping(found, "training"), "counts")),
        inputs=_checksums(_mapping(_mapping(found, "training"), "provenance")),
    )


def was_trained_on(store: Store) -> bool:
    """Return whether the models of a DL2b store saw the events of its DL2a store in training."""
    trained = trained_models(store)
    if trained is None:
        return False
    return bool(trained.inputs & _checksums(_mapping(store.attrs, "provenance")))


def _checksums(provenance: Mapping[str, Any]) -> frozenset[str]:
    """Return the checksums of the inputs of a stage."""
    inputs = provenance.get("inputs")
    entries = inputs if isinstance(inputs, (list, tuple)) else ()
    return frozenset(
        entry["checksum"]
        for entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("checksum"), str)
    )


def _counts(counts: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return images and events of each class, where both are numbers."""
    found = {}
    for particle, entry in counts.items():
        numbers = [_mapping(counts, particle).get(name) for name in ("images", "events")]
        if all(isinstance(number, int) for number in numbers):
            found[particle] = (int(entry["images"]), int(entry["events"]))
    return found


def _mapping(part: Any, key: str) -> Mapping[str, Any]:
    found = part.get(key) if isinstance(part, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _ensembles(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and description of every ensemble, those of events last."""
    cameras = _mapping(found, "cameras")
    for camera in cameras:
        for variant in ("image", "stereo"):
            for task, entry in _mapping(cameras[camera], variant).items():
                yield f"{camera}/{variant}/{task}", entry
    for task, entry in _mapping(found, "array").items():
        yield f"array/{task}", entry


def trained_files(samples: Sequence["Sample"]) -> list[Trained]:
    """Return the files of models of some samples, each once."""
    found = {sample.trained.checksum: sample.trained for sample in samples if sample.trained}
    return list(found.values())


def importances_of(
    samples: Sequence["Sample"],
) -> list[tuple[str, str, Mapping[str, float]]]:
    """Return file of models, name of the ensemble and importances of every ensemble."""
    return [
        (trained.name, name, importances)
        for trained in trained_files(samples)
        for name, importances in trained.ensembles.items()
    ]
