"""How far the parameters and the stereo geometry of ctapipe and of ours are apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ABSOLUTE", "RELATIVE", "compare", "compare_columns", "differences_text"]

RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""Two numbers within these count as equal: float32 sums in another order, and what cancels."""
PERIODS = {"hillas_psi": 180.0, "hillas_phi": 360.0}  # deg
# An axis at 90 deg has no sign, and these turn with it.
SIGNED = ("hillas_skewness",)

Floats = NDArray[np.float64]


def compare(ours: Path, theirs: Path, folder: Path) -> dict[str, Any]:
    """Return how much two results differ, column by column.

    Parameters
    ----------
    ours
        DL2a store.
    theirs
        HDF5 file of ctapipe, read with our importer (`folder` holds its store).
    """
    from astri_gpu.io.ctapipe_import import ingest_ctapipe
    from astri_gpu.store import open_store

    ingest_ctapipe(theirs, folder / "theirs.zarr")
    left, right = open_store(ours), open_store(folder / "theirs.zarr")
    (camera,) = left.cameras()
    event = left.read("dl0/event/event_id")
    np.testing.assert_array_equal(event, right.read("dl0/event/event_id"))
    path = f"dl1/image/{camera}"
    for key in ("event_index", "tel_id"):
        np.testing.assert_array_equal(left.read(f"{path}/{key}"), right.read(f"{path}/{key}"))
    columns, all_equal = {}, np.ones(left.n_rows(path), dtype=bool)
    for name in _shared_columns(left, path):
        a, b = (np.asarray(store.read(f"{path}/{name}"), np.float64) for store in (left, right))
        columns[name], equal = compare_columns(name, a, b)
        all_equal &= equal
    return {
        "n_images": len(all_equal),
        "share_of_images_equal": float(all_equal.mean()),
        "columns": columns,
        "geometry": _geometry(left, right),
    }


def _shared_columns(store: Any, path: str) -> Sequence[str]:
    """Return the columns that ctapipe has; a camera without samples has no times."""
    from astri_gpu.io.ctapipe_model import PARAMETER_COLUMNS

    names = [field.ours for field in PARAMETER_COLUMNS[3:] if field.ours]
    # Zeros instead of times would fit a line too.
    has_time = np.isfinite(store.read(f"{path}/timing_slope")).any()
    timed = ("timing", "peak_time")
    return [name for name in names if has_time or not name.startswith(timed)]


def compare_columns(name: str, a: Floats, b: Floats) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """Return the largest difference of two columns and which rows are equal."""
    if name in SIGNED:
        a = np.where(np.abs(a + b) < np.abs(a - b), -a, a)
    step = a - b
    if name in PERIODS:
        step = (step + PERIODS[name] / 2) % PERIODS[name] - PERIODS[name] / 2
    both_missing = np.isnan(a) & np.isnan(b)
    equal = both_missing | (np.abs(step) <= ABSOLUTE + RELATIVE * np.abs(b))
    known = np.isfinite(step)
    scale = float(np.std(b[known])) if known.any() else 0.0
    largest = float(np.abs(step[known]).max()) if known.any() else 0.0
    return {
        "largest_difference": largest,
        "relative_to_spread": largest / scale if scale > 0 else 0.0,
        "share_equal": float(equal.mean()),
    }, equal


def _geometry(left: Any, right: Any) -> dict[str, Any]:
    """Return how far two stereo geometries are apart."""
    from astri_gpu.kernels.coordinates import angular_separation

    names = ("alt", "az", "core_x", "core_y", "h_max", "is_valid")
    a, b = (
        {name: store.read(f"dl2/event/stereo_{name}") for name in names} for store in (left, right)
    )
    both = a["is_valid"] & b["is_valid"]
    apart = angular_separation(a["az"][both], a["alt"][both], b["az"][both], b["alt"][both])
    core = np.hypot(*(a[name][both] - b[name][both] for name in ("core_x", "core_y")))
    height = np.abs(a["h_max"][both] / b["h_max"][both] - 1)
    return {
        "n_events": len(both),
        "n_valid": int(np.count_nonzero(both)),
        "share_same_validity": float((a["is_valid"] == b["is_valid"]).mean()),
        "direction_arcsec": _quantiles(3600 * np.asarray(apart)),
        "core_m": _quantiles(core),
        "h_max_relative": _quantiles(height),
    }


def _quantiles(values: Floats) -> dict[str, float]:
    if not len(values):
        return {}
    share = np.quantile(values, [0.5, 0.99, 1.0])
    return dict(zip(("median", "p99", "largest"), map(float, share), strict=True))


def differences_text(found: dict[str, Any]) -> list[str]:
    """Return what `compare` found as parts of a Markdown text."""
    from .report_rows import table

    geometry = found["geometry"]
    kinds = (
        ("direction, arcsec", "direction_arcsec"),
        ("core, m", "core_m"),
        ("height of maximum, relative", "h_max_relative"),
    )
    apart = [
        [name, *(f"{geometry[key][which]:.2g}" for which in ("median", "p99", "largest"))]
        for name, key in kinds
        if geometry[key]
    ]
    columns = [
        [
            f"`{name}`",
            f"{entry['largest_difference']:.2g}",
            f"{entry['relative_to_spread']:.2g}",
            f"{100 * entry['share_equal']:.2f}",
        ]
        for name, entry in sorted(
            found["columns"].items(), key=lambda item: -item[1]["relative_to_spread"]
        )
    ]
    return [
        f"{100 * found['share_of_images_equal']:.2f} % of {found['n_images']} images are equal in "
        f"every parameter (to {RELATIVE:g}, or {ABSOLUTE:g} where a number crosses zero). Of "
        f"{geometry['n_events']} events {100 * geometry['share_same_validity']:.2f} % are valid "
        "for both or for none.",
        table("stereo geometry | median | 99 % | largest", apart),
        table("parameter | largest difference | relative to its spread | equal, %", columns),
    ]
