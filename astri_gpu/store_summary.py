"""Numbers about a store: images, multiplicities, sizes on disk, quality of the reconstruction."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.kernels.coordinates import angular_separation
from astri_gpu.store import Store

__all__ = [
    "ColumnSize",
    "ImageCounts",
    "StereoSummary",
    "changed_options",
    "column_sizes",
    "count_images",
    "stereo_summary",
    "tables",
]

CONTAINMENT = 68  # per cent


@dataclass(frozen=True)
class ImageCounts:
    """Images per camera, per telescope, and events per number of images."""

    per_camera: dict[str, int]
    per_telescope: dict[int, int]
    multiplicity: dict[int, int]

    @property
    def total(self) -> int:
        """Return the number of images."""
        return sum(self.per_camera.values())


@dataclass(frozen=True)
class ColumnSize:
    """One array: its dimensions with lengths, type, and bytes on disk."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    on_disk: int


@dataclass(frozen=True)
class StereoSummary:
    """How many events have a geometry; 68 % containment of the errors where truth is known."""

    n_events: int
    n_valid: int
    direction_error_deg: float | None
    core_error_m: float | None


def count_images(store: Store) -> ImageCounts:
    """Return how many images there are, read shard by shard."""
    n_events = store.n_rows("dl0/event")
    per_event = np.zeros(n_events, dtype=np.int64)
    per_camera: dict[str, int] = {}
    per_telescope: Counter[int] = Counter()
    for camera in store.cameras():
        table = f"dl0/image/{camera}"
        per_camera[camera] = store.n_rows(table)
        for start, stop in store.blocks(f"{table}/event_index"):
            rows = store.read(f"{table}/event_index", start, stop)
            per_event += np.bincount(rows, minlength=n_events)
            numbers, counts = np.unique(
                store.read(f"{table}/tel_id", start, stop), return_counts=True
            )
            per_telescope.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    numbers, counts = np.unique(per_event, return_counts=True)
    return ImageCounts(
        per_camera,
        dict(sorted(per_telescope.items())),
        dict(zip(numbers.tolist(), counts.tolist(), strict=True)),
    )


def tables(store: Store) -> list[str]:
    """Return the paths of all groups that hold arrays, sorted."""
    found = []
    for folder, folders, _ in os.walk(store.path):
        arrays = [name for name in folders if _is_array(Path(folder) / name)]
        if arrays:
            found.append(Path(folder).relative_to(store.path).as_posix())
        # Below an array there are only chunks.
        folders[:] = [name for name in folders if name not in arrays]
    return sorted(found)


def _is_array(folder: Path) -> bool:
    metadata = folder / "zarr.json"
    if not metadata.is_file():
        return False
    return bool(json.loads(metadata.read_text(encoding="utf-8")).get("node_type") == "array")


def column_sizes(store: Store, table: str) -> list[ColumnSize]:
    """Return the arrays of a table in alphabetical order."""
    sizes = []
    for name in store.columns(table):
        array = store.array(f"{table}/{name}")
        sizes.append(
            ColumnSize(
                name=name,
                dims=tuple(
                    str(dim) for dim in getattr(array.metadata, "dimension_names", None) or ()
                ),
                shape=tuple(int(length) for length in array.shape),
                dtype=_type_code(np.dtype(array.dtype)),
                on_disk=_bytes_below(store.path / table / name),
            )
        )
    return sizes


def _type_code(dtype: "np.dtype[Any]") -> str:
    return "bool" if dtype == np.bool_ else dtype.str.lstrip("<>|=")


def _bytes_below(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(parent, name)).st_size
        for parent, _, names in os.walk(folder)
        for name in names
    )


def stereo_summary(store: Store) -> StereoSummary | None:
    """Return how well the events were reconstructed, None for a store without stereo geometry.

    The errors are the angle between reconstructed and true direction and the distance of the cores
    on the ground; the containment is the 68th percentile over the valid events.
    """
    if "dl2/event" not in store:
        return None
    valid = store.read("dl2/event/stereo_is_valid").astype(bool)
    direction = core = None
    if valid.any() and "simulation/event" in store:
        reco = {
            name: store.read(f"dl2/event/stereo_{name}")[valid]
            for name in ("alt", "az", "core_x", "core_y")
        }
        true = {name: store.read(f"simulation/event/true_{name}")[valid] for name in reco}
        direction = _containment(
            angular_separation(reco["az"], reco["alt"], true["az"], true["alt"])
        )
        core = _containment(
            np.hypot(reco["core_x"] - true["core_x"], reco["core_y"] - true["core_y"])
        )
    return StereoSummary(len(valid), int(valid.sum()), direction, core)


def _containment(errors: Any) -> float | None:
    known = np.asarray(errors)[np.isfinite(errors)]
    return float(np.percentile(known, CONTAINMENT)) if known.size else None


def changed_options(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a recorded configuration that differ from the defaults.

    Parameters
    ----------
    config
        The recorded configuration, sections nested.
    defaults
        Default values by dotted key; keys of `config` that are not in it are left out.
    """
    changed = {}
    for key, value in _flat(config):
        if key in defaults and value != defaults[key]:
            changed[key] = value
    return changed


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found
