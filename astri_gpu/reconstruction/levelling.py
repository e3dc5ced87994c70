"""Levelling of populations: equally many gammas and others in every cell of some quantities.

The algorithm is that of A-SciSoft: in every cell images of the larger class are dropped at random,
and cells that hold one class only lose it. What the forests then learn is the difference between
the classes, and not how the productions were thrown.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import UsageError
from astri_gpu.reconstruction.expressions import Expression, parse

__all__ = ["Axis", "cell_numbers", "levelled", "parse_axes"]

MAX_CELLS = 10_000_000


class Axis(NamedTuple):
    """Bins of one quantity, closed on the right; values outside belong to no cell."""

    expression: Expression
    edges: NDArray[np.float64]


def parse_axes(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Return the axes of `sample.levelling`, each "expression:bins:low:high".

    Raises
    ------
    UsageError
        When a text is not of this form, or its expression cannot be read.
    """
    axes = []
    for text in texts:
        parts = str(text).rsplit(":", 3)
        try:
            bins, low, high = int(parts[1]), float(parts[2]), float(parts[3])
        except (ValueError, IndexError):
            bins, low, high = 0, 0.0, 0.0
        if not (1 <= bins <= MAX_CELLS and np.isfinite([low, high]).all() and low < high):
            raise UsageError(
                f"sample.levelling has '{text}': it must be expression:bins:low:high with at least "
                "one bin and low < high, such as log10(hillas_intensity):100:1:6"
            )
        axes.append(Axis(parse(parts[0]), np.linspace(low, high, bins + 1)))
    if np.prod([len(axis.edges) - 1.0 for axis in axes]) > MAX_CELLS:
        raise UsageError(
            f"sample.levelling has more than {MAX_CELLS:,} cells: take fewer bins or expressions"
        )
    return tuple(axes)


def cell_numbers(axes: Sequence[Axis], columns: Mapping[str, NDArray]) -> NDArray[np.int64]:
    """Return the cell of each image, -1 outside (also for values that are no number).

    Parameters
    ----------
    axes
        From `parse_axes`.
    columns
        Arrays (image,) of the columns that the expressions name.
    """
    cell: NDArray[np.int64] | None = None
    for expression, edges in axes:
        with np.errstate(all="ignore"):  # what is no number is outside
            values = np.asarray(expression(columns), dtype=np.float64)
        place = np.searchsorted(edges, values, side="left") - 1
        inside = (place >= 0) & (place < len(edges) - 1)
        before = np.zeros(len(place), np.int64) if cell is None else cell
        cell = np.where(inside & (before >= 0), before * (len(edges) - 1) + place, -1)
    if cell is None:
        return np.zeros(len(next(iter(columns.values()))), dtype=np.int64)
    return cell


def levelled(
    first: NDArray[np.int64], second: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images of two classes to keep so that every cell has equally many of both.

    Parameters
    ----------
    first, second
        (image,), cells of the images of each class, -1 for those that are dropped anyway.
    rng
        What chooses in cells.
    """
    n_cells = int(max(first.max(initial=-1), second.max(initial=-1))) + 1
    counts = [np.bincount(cells[cells >= 0], minlength=n_cells) for cells in (first, second)]
    wanted = np.minimum(*counts)
    return _drawn(first, wanted, rng), _drawn(second, wanted, rng)


def _drawn(
    cells: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return a random choice of `wanted` images of each cell."""
    order = rng.permutation(len(cells))
    order = order[cells[order] >= 0]
    order = order[np.argsort(cells[order], kind="stable")]
    n_here = np.bincount(cells[order], minlength=len(wanted))
    within = np.arange(len(order)) - np.repeat(np.cumsum(n_here) - n_here, n_here)
    kept = np.zeros(len(cells), dtype=bool)
    kept[order[within < wanted[cells[order]]]] = True
    return kept
