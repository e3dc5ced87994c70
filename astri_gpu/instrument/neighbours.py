"""Pixel centres: which pixels are neighbours, and turning a camera.

Both follow ctapipe's ``CameraGeometry`` (0.28), so that cleaning finds the same pixels.
"""

import logging
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.errors import AstriError

__all__ = ["NO_NEIGHBOUR", "PixelShape", "check_shape", "pixel_neighbours", "rotate"]

logger = logging.getLogger(__name__)

PixelShape = Literal["hexagon", "square", "circle"]

NO_NEIGHBOUR = -1
"""Padding of neighbour tables: this pixel has fewer neighbours than the table has columns."""


def check_shape(shape: str) -> None:
    """Raise an AstriError unless the pixel shape is one of the known three."""
    if shape not in ("hexagon", "square", "circle"):
        raise AstriError(
            f"The pixel shape is '{shape}', but only 'hexagon', 'square' and 'circle' are known."
        )


def pixel_neighbours(
    pix_x: ArrayLike, pix_y: ArrayLike, shape: PixelShape, diagonal: bool = False
) -> NDArray[np.int32]:
    """Return the neighbours of every pixel, found from the pixel centres.

    The rule is that of ctapipe's ``CameraGeometry.calc_pixel_neighbors``: of the nearest pixels
    (6 for hexagons and circles; 4 in L1 distance for squares, 8 in L2 distance with `diagonal`)
    those closer than 1.4 (1.5, 1.95) times the distance of the nearest one. It bridges the gaps
    between the modules of an ASTRI camera.

    Parameters
    ----------
    pix_x, pix_y
        Pixel centres, (pixel,), any one unit of length.
    shape
        Shape of the pixels; circles are taken to lie on a hexagonal grid.
    diagonal
        Count pixels that only share a corner; no effect unless the pixels are squares.

    Returns
    -------
    neighbours
        int32 (pixel, neighbour), ascending in every row, padded at the end with -1.

    Raises
    ------
    AstriError
        For an unknown shape, or when the coordinates are not two lists of equal length.
    """
    from scipy.spatial import cKDTree

    check_shape(shape)
    x, y = np.asarray(pix_x, dtype=np.float64), np.asarray(pix_y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise AstriError(
            f"pix_x is {x.shape} and pix_y is {y.shape}: both must be (pixel,) of one length."
        )
    n_pixels = x.shape[0]
    if n_pixels < 2:
        return np.full((n_pixels, 1), NO_NEIGHBOUR, dtype=np.int32)

    if shape != "square":
        n_nearest, norm, radius = 6, 2, 1.4
    elif diagonal:
        n_nearest, norm, radius = 8, 2, 1.95
    else:
        n_nearest, norm, radius = 4, 1, 1.5

    centres = np.column_stack([x, y])
    # Cameras with fewer pixels than candidates: the tree fills up with infinite distances.
    distance, candidate = cKDTree(centres).query(centres, k=n_nearest + 1, p=norm)
    distance, candidate = distance[:, 1:], candidate[:, 1:]
    near = distance < radius * distance.min(axis=1, keepdims=True)

    # Padding sorts behind every pixel number, then becomes -1.
    table = np.sort(np.where(near, candidate, n_pixels), axis=1)
    table = np.where(table == n_pixels, NO_NEIGHBOUR, table).astype(np.int32)
    table = np.ascontiguousarray(table[:, : max(1, int(near.sum(axis=1).max()))])

    pixel, column = np.nonzero(table != NO_NEIGHBOUR)
    pairs = pixel * n_pixels + table[pixel, column]
    mirrored = table[pixel, column].astype(np.int64) * n_pixels + pixel
    n_one_way = int(np.count_nonzero(~np.isin(mirrored, pairs)))
    if n_one_way:
        logger.warning(
            "%d of %d neighbour pairs hold in one direction only; are the pixel positions "
            "irregular?",
            n_one_way,
            len(pairs),
        )
    return table


def rotate(
    pix_x: ArrayLike, pix_y: ArrayLike, angle_rad: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return pixel positions turned by `-angle_rad` (clockwise for a positive angle).

    Same sense as ctapipe's ``CameraGeometry.rotate``. A sim_telarray camera is derotated with
    ``rotate(pix_x, pix_y, -cam_rot)``.

    Parameters
    ----------
    pix_x, pix_y
        Positions, (pixel,), any unit.
    angle_rad
        Angle in radians.

    Returns
    -------
    pix_x, pix_y
        float64 (pixel,), same unit.
    """
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    x, y = np.asarray(pix_x, dtype=np.float64), np.asarray(pix_y, dtype=np.float64)
    return cos * x + sin * y, -sin * x + cos * y
