"""Shower geometry from several images of one event: direction, core, height of maximum.

Events are rows, their images are slots: (event, slot) arrays, with `used` True where a slot holds
an image that may take part. Everything is float64; angles are in degrees, lengths in metres, the
ground frame has x North, y West, z up.
"""

import math
from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ._types import Array, array_namespace, masked, safe_divide
from .coordinates import (
    altaz_to_cartesian,
    altaz_to_telescope,
    cartesian_to_altaz,
    ground_to_tilted,
    project_to_ground,
    telescope_to_altaz,
)

__all__ = [
    "METHODS",
    "StereoGeometry",
    "StereoImages",
    "impact_distance",
    "reconstruct",
    "select_images",
]

METHODS = ("planes", "lines")
AXIS_STEP = 0.1  # of the camera radius: second point on the image axis, as in ctapipe


class StereoImages(NamedTuple):
    """The images of each event."""

    intensity: Float[Array, "event slot"]  # p.e.
    fov_lon: Float[Array, "event slot"]  # centre of gravity, telescope frame
    fov_lat: Float[Array, "event slot"]
    length: Float[Array, "event slot"]
    width: Float[Array, "event slot"]
    psi: Float[Array, "event slot"]
    pointing_alt: Float[Array, "event slot"]
    pointing_az: Float[Array, "event slot"]
    camera_radius: Float[Array, "event slot"]
    tel_x: Float[Array, "event slot"]  # m
    tel_y: Float[Array, "event slot"]
    tel_z: Float[Array, "event slot"]


class StereoGeometry(NamedTuple):
    """Reconstructed shower geometry, one per event; NaN where not valid."""

    alt: Float[Array, " event"]
    az: Float[Array, " event"]  # 0 to 360
    core_x: Float[Array, " event"]
    core_y: Float[Array, " event"]
    core_tilted_x: Float[Array, " event"]
    core_tilted_y: Float[Array, " event"]
    h_max: Float[Array, " event"]  # m above sea level
    ang_distance_uncert: Float[Array, " event"]  # spread of the single intersections
    average_intensity: Float[Array, " event"]  # p.e.
    n_tels: Int[Array, " event"]
    is_valid: Bool[Array, " event"]


def select_images(
    intensity: Array,
    width: Array,
    n_pixels: Array,
    leakage: Array,
    *,
    min_intensity_pe: float,
    min_width_deg: float,
    min_pixels: int,
    max_leakage: float,
) -> Bool[Array, "..."]:
    """Return which images are good enough for stereo reconstruction; all arrays of one shape.

    Intensity and width have to be above their limits, the number of pixels at least, and the
    leakage (``leakage_intensity_width_2``) at most its limit. NaN is never good enough.
    """
    return (
        (intensity > min_intensity_pe)
        & (width > min_width_deg)
        & (n_pixels >= min_pixels)
        & (leakage <= max_leakage)
    )


def _vector_sum(xp, used, values):
    return xp.sum(xp.where(used, values, 0.0), axis=-1)


def _intersect_lines_2d(xp, used, weight, direction_x, direction_y, x, y):
    """Return the point closest to weighted lines through (x, y), and whether there is one.

    Minimises sum w d^2, with d the distance to each line: with unit normals n the solution is
    (sum w n n^T) S = sum w n (n . c), a closed-form 2 x 2 system.
    """
    normal_x, normal_y = -direction_y, direction_x
    offset = normal_x * x + normal_y * y
    a_xx = _vector_sum(xp, used, weight * normal_x * normal_x)
    a_xy = _vector_sum(xp, used, weight * normal_x * normal_y)
    a_yy = _vector_sum(xp, used, weight * normal_y * normal_y)
    b_x = _vector_sum(xp, used, weight * normal_x * offset)
    b_y = _vector_sum(xp, used, weight * normal_y * offset)
    determinant = a_xx * a_yy - a_xy * a_xy
    # The determinant is (trace/2)^2 at best; far below that the lines are parallel.
    solvable = determinant > 1e-12 * (a_xx + a_yy) ** 2
    determinant = xp.where(solvable, determinant, 1.0)
    return (
        (a_yy * b_x - a_xy * b_y) / determinant,
        (a_xx * b_y - a_xy * b_x) / determinant,
        solvable,
    )


def _intersect_lines_height(xp, used, direction, position):
    """Return z of the point closest to lines in space, by Cramer's rule (event,)."""
    matrix = [[None] * 3 for _ in range(3)]
    right = [0.0, 0.0, 0.0]
    for i in range(3):
        for j in range(3):
            projector = (1.0 if i == j else 0.0) - direction[i] * direction[j]
            matrix[i][j] = _vector_sum(xp, used, projector)
            right[i] = right[i] + _vector_sum(xp, used, projector * position[j])

    def determinant(m):
        return (
            m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
        )

    replaced = [[matrix[i][0], matrix[i][1], right[i]] for i in range(3)]
    return safe_divide(xp, determinant(replaced), determinant(matrix))


def _cross(a, b):
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


def _norm(xp, v):
    return xp.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])


def _direction_by_planes(xp, used, weight, cog, second):
    """Return the weighted mean of the intersections of all pairs of planes, and their spread."""
    normal = _cross(cog, second)
    n_slots = used.shape[-1]
    pairs = [(i, j) for i in range(n_slots) for j in range(i + 1, n_slots)]
    first_slot = xp.asarray([i for i, _ in pairs], dtype=xp.int64)
    second_slot = xp.asarray([j for _, j in pairs], dtype=xp.int64)

    def of(values, slots):
        return xp.take(values, slots, axis=1)

    crossing = _cross(
        tuple(of(c, first_slot) for c in normal), tuple(of(c, second_slot) for c in normal)
    )
    upwards = xp.where(crossing[2] < 0, xp.asarray(-1.0, dtype=xp.float64), 1.0)
    crossing = tuple(c * upwards for c in crossing)
    both = of(used, first_slot) & of(used, second_slot)
    pair_weight = masked(xp, both, of(weight, first_slot) * of(weight, second_slot))
    total = tuple(_vector_sum(xp, both, pair_weight * c) for c in crossing)
    length = _norm(xp, total)
    direction = tuple(safe_divide(xp, c, length) for c in total)

    cosine = sum(c * d[:, None] for c, d in zip(crossing, direction, strict=True))
    angle = xp.acos(xp.clip(safe_divide(xp, cosine, _norm(xp, crossing)), -1.0, 1.0))
    n_pairs = xp.sum(xp.astype(both, xp.float64), axis=-1)
    spread = safe_divide(xp, _vector_sum(xp, both, angle), n_pairs) * (180 / math.pi)
    return direction, spread, length > 0


def reconstruct(
    images: StereoImages,
    used: Bool[Array, "event slot"],
    array_alt: Float[Array, " event"],
    array_az: Float[Array, " event"],
    *,
    method: str,
    observation_level_m: float,
) -> StereoGeometry:
    """Return direction, core and height of shower maximum of each event.

    Parameters
    ----------
    images : see `StereoImages`
    used : (event, slot), see `select_images`; fewer than two used images are not valid
    array_alt, array_az : (event,), pointing of the array, deg: defines the tilted frame
    method : ``planes``: mean of the pairwise intersections of the planes through telescope and
        image axis, weighted with intensity * length / width, and the unweighted point closest to
        the axes on the ground (ctapipe's ``HillasReconstructor``); ``lines``: the point closest to
        all image axes in the field of view, and on the ground, with the same weights
    observation_level_m : height of z = 0 above sea level

    Raises
    ------
    ValueError
        For an unknown `method`.
    """
    if method not in METHODS:
        raise ValueError(f"stereo method is {method!r}: expected one of {', '.join(METHODS)}")
    xp = array_namespace(images.intensity, used, array_alt)
    # Unused slots get a harmless image, so that no NaN meets the geometry.
    images = StereoImages(*(xp.where(used, column, 1.0) for column in images))
    weight = masked(xp, used, images.intensity * images.length / images.width)

    psi = images.psi * (math.pi / 180)
    step = AXIS_STEP * images.camera_radius
    pointing = (images.pointing_alt, images.pointing_az)
    cog_altaz = telescope_to_altaz(images.fov_lon, images.fov_lat, *pointing)
    second_altaz = telescope_to_altaz(
        images.fov_lon + step * xp.cos(psi), images.fov_lat + step * xp.sin(psi), *pointing
    )
    # The axis as seen by a telescope that points where the array points.
    array_pointing = (array_alt[:, None], array_az[:, None])
    cog_lon, cog_lat = altaz_to_telescope(*cog_altaz, *array_pointing)
    second_lon, second_lat = altaz_to_telescope(*second_altaz, *array_pointing)
    axis_lon, axis_lat = second_lon - cog_lon, second_lat - cog_lat
    axis_length = xp.hypot(axis_lon, axis_lat)
    axis_lon = safe_divide(xp, axis_lon, axis_length)
    axis_lat = safe_divide(xp, axis_lat, axis_length)

    cog = altaz_to_cartesian(*cog_altaz)
    if method == "planes":
        second = altaz_to_cartesian(*second_altaz)
        direction, spread, crossed = _direction_by_planes(xp, used, weight, cog, second)
        alt, az = cartesian_to_altaz(*direction)
        core_weight = xp.ones_like(weight)
    else:
        lon, lat, crossed = _intersect_lines_2d(
            xp, used, weight, axis_lon, axis_lat, cog_lon, cog_lat
        )
        alt, az = telescope_to_altaz(lon, lat, array_alt, array_az)
        distance = (lon[:, None] - cog_lon) * axis_lat - (lat[:, None] - cog_lat) * axis_lon
        spread = xp.sqrt(
            safe_divide(
                xp,
                _vector_sum(xp, used, weight * distance**2),
                xp.sum(weight, axis=-1),
            )
        )
        core_weight = weight

    # On the tilted plane x goes with fov_lat and y with fov_lon (ctapipe's CameraFrame).
    tilted_x, tilted_y, _ = ground_to_tilted(
        images.tel_x, images.tel_y, images.tel_z, *array_pointing
    )
    core_tilted_x, core_tilted_y, core_found = _intersect_lines_2d(
        xp, used, core_weight, axis_lat, axis_lon, tilted_x, tilted_y
    )
    core_x, core_y, _ = project_to_ground(core_tilted_x, core_tilted_y, array_alt, array_az)
    height = _intersect_lines_height(xp, used, cog, (images.tel_x, images.tel_y, images.tel_z))

    n_tels = xp.sum(xp.astype(used, xp.int32), axis=-1, dtype=xp.int32)
    is_valid = (n_tels >= 2) & crossed & core_found & xp.isfinite(alt) & xp.isfinite(height)
    nan = xp.asarray(float("nan"), dtype=xp.float64)
    average = safe_divide(
        xp, _vector_sum(xp, used, images.intensity), xp.astype(n_tels, xp.float64)
    )

    def if_valid(q):
        return xp.where(is_valid, q, nan)

    return StereoGeometry(
        alt=if_valid(alt),
        az=if_valid(az),
        core_x=if_valid(core_x),
        core_y=if_valid(core_y),
        core_tilted_x=if_valid(core_tilted_x),
        core_tilted_y=if_valid(core_tilted_y),
        h_max=if_valid(height + observation_level_m),
        ang_distance_uncert=if_valid(spread),
        average_intensity=if_valid(average),
        n_tels=n_tels,
        is_valid=is_valid,
    )


def impact_distance(
    core_x: Float[Array, " event"],
    core_y: Float[Array, " event"],
    alt: Float[Array, " event"],
    az: Float[Array, " event"],
    tel_x: Float[Array, "event slot"],
    tel_y: Float[Array, "event slot"],
    tel_z: Float[Array, "event slot"],
) -> Float[Array, "event slot"]:
    """Return the distance of each telescope from the shower axis, m.

    The axis runs through (core_x, core_y, 0) in the direction (alt, az).
    """
    xp = array_namespace(core_x, alt, tel_x)
    direction = tuple(c[:, None] for c in altaz_to_cartesian(alt, az))
    to_tel = (tel_x - core_x[:, None], tel_y - core_y[:, None], tel_z)
    return _norm(xp, _cross(to_tel, direction))
