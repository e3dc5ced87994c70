"""Rows of features of the images of one camera, and the scores of what forests say about them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.kernels.disp import DispComponents, disp_target
from astri_gpu.reconstruction.expressions import parse
from astri_gpu.reconstruction.predict import FeatureTable

__all__ = ["Rows", "balanced", "check_folds", "displacement", "finite_rows"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """Rows of one table, such as the images of a camera, that a set of forests is trained on."""

    index: NDArray[np.int64]  # in the table
    table: FeatureTable  # of these rows
    fold: NDArray[np.int8]
    weight: NDArray[np.float64]

    def matrix(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (row, feature) float32."""
        return self.table.matrix([parse(text) for text in texts])


def finite_rows(
    columns: Mapping[str, NDArray[Any]],
    index: NDArray[np.int64],
    lists: Mapping[str, Sequence[str]],
    what: str,
) -> NDArray[np.int64]:
    """Return the rows whose features are all finite; the others are counted in a warning.

    Parameters
    ----------
    columns
        Arrays (row,) by name.
    index
        Rows to look at.
    lists
        Features by task; those that ask for what is not in `columns` yet are not looked at.
    what
        What the rows are, for messages: "gamma images of ASTRICam".

    Raises
    ------
    AstriError
        When no row is left.
    """
    texts = dict.fromkeys(text for list_ in lists.values() for text in list_)
    found = {text: parse(text) for text in texts}
    found = {text: item for text, item in found.items() if set(item.names) <= columns.keys()}
    wanted = {name for item in found.values() for name in item.names}
    if not found or not len(index):
        return index
    table = FeatureTable({name: columns[name][index] for name in wanted})
    bad = ~np.isfinite(table.matrix(found.values()))
    if not bad.any():
        return index
    good = ~bad.any(axis=1)
    worst = int(np.argmax(bad.sum(axis=0)))
    told = f"'{list(found)[worst]}' is not a finite number for {int(bad[:, worst].sum())}"
    if not good.any():
        raise AstriError(
            f"None of the {len(index)} {what} has finite features: {told} of them. Leave it out, "
            "or choose another filter."
        )
    logger.warning("%d of %d %s are not trained on: %s", int(np.sum(~good)), len(index), what, told)
    return index[good]


def check_folds(fold: NDArray[np.int8], n_folds: int, what: str) -> None:
    """Refuse rows that leave a fold without any: `what` they are is for the message.

    Raises
    ------
    AstriError
        When there are too few rows.
    """
    if len(np.unique(fold)) < n_folds:
        raise AstriError(
            f"There are too few {what} ({len(fold)}) for sample.n_folds={n_folds}: give more "
            "events, or set fewer folds."
        )


def displacement(columns: Mapping[str, NDArray[Any]], index: NDArray[np.int64]) -> DispComponents:
    """Return the true displacements of images from centroid to source, deg, float64."""
    names = ("hillas_fov_lon", "hillas_fov_lat", "hillas_psi", "source_fov_lon", "source_fov_lat")
    return disp_target(*(columns[name][index].astype(np.float64) for name in names))


def balanced(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    used: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> NDArray[np.float64]:
    """Return the weights of two classes in turn, scaled so that both have the same sum.

    So a score of one half means that both classes are equally likely, however many there were.

    Parameters
    ----------
    first, second
        Weights of the rows of each class.
    used
        Rows that count in the sums; None = all.
    """
    parts = [first, second]
    sums = [
        float(part.sum() if used is None else part[mask].sum())
        for part, mask in zip(parts, used or (None, None), strict=True)
    ]
    half = sum(sums) / 2
    return np.concatenate([part * half / total for part, total in zip(parts, sums, strict=True)])
