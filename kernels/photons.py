"""Photo-electrons drawn one by one from the expected light of showers.

The expected light of an image is a list of cells: the steps of its electromagnetic rows, one row
after the other, and then its muons. A photo-electron picks a cell in proportion to the light, a
place in the cell, and from the light tables a place of emission relative to the axis; direction and
time at the telescope follow from geometry. The formulas are those of `StepGrid` and `LightTables`;
`loops/photons.py` is the same text for single photo-electrons.

Off the pointing axis (slope q of a line) the tables are stretched: with
g = (cos zd + q_lat sin zd) / cos zd, the height gained per H relative to the axis, a line that
crosses H = 0 at y meets the air of H on the axis at (H - y tan zd) / g, because the plane H = 0 is
not horizontal; light that lands at R from it is found in the tables at R g (the tables know nothing
of y: 2 km change their scale by 7 % at 20 degrees).

Left out: light emitted below the level of a telescope, and the change of the delay by the
refractive index between lines of different slope (0.3 ns at 6 degrees).
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Integer

from ._types import Array, array_namespace
from .muon_light import MuonLight
from .random import philox, poisson, uniform
from .shower import stretch
from .simulation_types import (
    EFFICIENCY_HEADROOM,
    SPEED_OF_LIGHT,
    EmRows,
    LightTables,
    MuonRows,
    OpticsModel,
    StepGrid,
    Stream,
)

__all__ = [
    "ImageList",
    "PhotoElectrons",
    "arrival_words",
    "count",
    "light_factor",
    "photo_electrons",
]

STANDARD_AREA_M2, STANDARD_YIELD = 9.0, 22_100 * EFFICIENCY_HEADROOM
"""Mirror area and light yield at the ground of the telescopes that `shower.is_candidate` means."""

HALF_WORD = 16
HALF_MASK = 0xFFFF


class ImageList(NamedTuple):
    """Images to draw, and the lists of light that they are drawn from.

    The light of image i comes from the pairs (image, electromagnetic row) from em_start[i] to
    em_start[i + 1], and from the pairs (image, muon) from muon_start[i] to muon_start[i + 1].
    """

    shower: Integer[Array, " image"]  # number of the shower, word of the counters
    number: Integer[Array, " image"]  # use << 8 | telescope, word of the counters
    x: Float[Array, " image"]  # m, axis of the primary at H = 0
    y: Float[Array, " image"]
    q_lon: Float[Array, " image"]  # tangent-plane direction of the primary
    q_lat: Float[Array, " image"]
    tel_x: Float[Array, " image"]  # m
    tel_y: Float[Array, " image"]
    tel_z: Float[Array, " image"]
    em_start: Integer[Array, " image_edge"]  # int64
    muon_start: Integer[Array, " image_edge"]  # int64


class PhotoElectrons(NamedTuple):
    """Light at the telescopes, one entry per photo-electron."""

    sky_lon: Float[Array, " pe"]  # tangent-plane direction that the light comes from
    sky_lat: Float[Array, " pe"]
    time: Float[Array, " pe"]  # ns after the primary would reach H = 0
    landed: Bool[Array, " pe"]  # False: light of a muon that misses the mirror, or from below


def light_factor(grid: StepGrid, optics: OpticsModel) -> Float[Array, ""]:
    """Return the light of telescopes over that of the standard one, for `shower.is_candidate`."""
    xp = array_namespace(grid.light_yield)
    light = xp.max(grid.light_yield) * optics.mirror_area_m2
    return light / (STANDARD_AREA_M2 * STANDARD_YIELD)


def count(
    mean: Float[Array, " image"],
    shower: Integer[Array, " image"],
    number: Integer[Array, " image"],
    *,
    key: tuple[int, int],
    max_image_pe: int,
) -> tuple[Integer[Array, " image"], Float[Array, " image"]]:
    """Return how many photo-electrons to draw for each image (int64), and the weight of each.

    A Poisson number; if it exceeds `max_image_pe`, that many are drawn and share it.

    Parameters
    ----------
    mean : (image,), expected photo-electrons
    shower, number : (image,), see `ImageList`
    key : see `random.key_of`
    max_image_pe : largest number to draw
    """
    xp = array_namespace(mean, shower)
    words = philox(shower, Stream.COUNT << 24, number, 0, key=key)
    n = poisson(mean, words[0], words[1])
    limit = xp.full_like(n, max_image_pe)
    drawn = xp.where(n > limit, limit, n)
    some = xp.where(drawn > 0, drawn, xp.ones_like(drawn))
    weight = xp.astype(n, xp.float64) / xp.astype(some, xp.float64)
    return drawn, xp.where(drawn > 0, weight, xp.ones_like(weight))


def arrival_words(
    photon: Integer[Array, " pe"],
    image: Integer[Array, " pe"],
    shower: Integer[Array, " image"],
    number: Integer[Array, " image"],
    *,
    key: tuple[int, int],
) -> tuple[Array, Array, Array, Array]:
    """Return the four random words that optics and camera use for each photo-electron.

    Parameters
    ----------
    photon : (pe,), count within its image, from 0
    image : (pe,), its image
    shower, number : (image,), see `ImageList`
    key : see `random.key_of`
    """
    xp = array_namespace(photon, image, shower)
    return philox(
        xp.take(shower, image), Stream.ARRIVAL << 24, photon, xp.take(number, image), key=key
    )


def _half(xp, half_word):
    """Return uniform numbers from 16-bit words."""
    return (xp.astype(half_word, xp.float64) + 0.5) * 2.0**-HALF_WORD


def _between(xp, value, low, high):
    return xp.where(value < low, low, xp.where(value > high, high, value))


def _arrival_time(xp, above, height, sky_lon, sky_lat, front, axis_height, step, grid):
    """Return arrival times, ns: way of the light minus way of the primary.

    t = ((H - z) sqrt(1 + |sky|^2) + delay - H sqrt(1 + |q|^2)) / c; within a step the delay grows
    with the refractivity at its centre.
    """
    upper, lower = xp.take(grid.height_edge, step), xp.take(grid.height_edge, step + 1)
    off_centre = axis_height - 0.5 * (upper + lower)
    delay = xp.take(grid.delay, step) + xp.take(grid.refractivity, step) * off_centre
    way = above * xp.sqrt(1.0 + (sky_lon * sky_lon + sky_lat * sky_lat))
    return (way + delay - height * front) / SPEED_OF_LIGHT


def _rise(y, grid):
    """Return how much higher the air is where a line crosses H = 0, as a difference of H, m."""
    return y * (grid.sin_zenith / grid.cos_zenith)


def _from_rows(xp, words, cell, place, em, age_index, age_fraction, grid, tables):
    """Return (sky_lon, sky_lat, time, landed) of light of electromagnetic rows."""
    n_steps = age_index.shape[1]
    core_x, core_y, tel_x, tel_y, tel_z, front = place
    row, step = cell // n_steps, cell % n_steps
    q_lon, q_lat = xp.take(em.q_lon, row), xp.take(em.q_lat, row)
    x, y = core_x + xp.take(em.x, row), core_y + xp.take(em.y, row)
    _, gain = stretch(q_lon, q_lat, grid)

    d_x, d_y = tel_x - (x + q_lon * tel_z), tel_y - (y + q_lat * tel_z)
    radius = xp.sqrt(d_x * d_x + d_y * d_y)
    on_axis = radius == 0.0
    safe = xp.where(on_axis, xp.ones_like(radius), radius)
    r_lon = xp.where(on_axis, xp.ones_like(radius), d_x / safe)
    r_lat = xp.where(on_axis, xp.zeros_like(radius), d_y / safe)

    upper, lower = xp.take(grid.height_edge, step), xp.take(grid.height_edge, step + 1)
    axis_height = upper + uniform(words[1]) * (lower - upper)
    height = (axis_height - _rise(y, grid)) / gain
    above = height - tel_z
    landed = above > 0.0
    above = xp.where(landed, above, xp.ones_like(above))

    n_nodes, n_ages, n_bins, n_samples = tables.radial.shape
    low_half, high_half = words[2] & HALF_MASK, words[2] >> HALF_WORD
    up = xp.astype(_half(xp, low_half) < xp.take(grid.node_fraction, step), xp.int64)
    node = xp.astype(xp.take(grid.node, step), xp.int64) + up
    older = _half(xp, high_half) < xp.take(xp.reshape(age_fraction, (-1,)), cell)
    age = xp.astype(xp.take(xp.reshape(age_index, (-1,)), cell), xp.int64)
    age = age + xp.astype(older, xp.int64)
    ring = xp.searchsorted(tables.radius_edge, radius * gain, side="right")
    ring = xp.astype(ring, xp.int64) - 1
    node = _between(xp, node, xp.zeros_like(node), xp.full_like(node, n_nodes - 1))
    age = _between(xp, age, xp.zeros_like(age), xp.full_like(age, n_ages - 1))
    ring = _between(xp, ring, xp.zeros_like(ring), xp.full_like(ring, n_bins - 1))
    sample = xp.astype(words[3] % n_samples, xp.int64)
    flat = ((node * n_ages + age) * n_bins + ring) * n_samples + sample
    radial = xp.astype(xp.take(xp.reshape(tables.radial, (-1,)), flat), xp.float64)
    tangential = xp.astype(xp.take(xp.reshape(tables.tangential, (-1,)), flat), xp.float64)
    tangential = xp.where((words[3] >> 31) == 0, tangential, -tangential)

    inwards = radial - radius
    sky_lon = q_lon + (inwards * r_lon - tangential * r_lat) / above
    sky_lat = q_lat + (inwards * r_lat + tangential * r_lon) / above
    time = _arrival_time(xp, above, height, sky_lon, sky_lat, front, axis_height, step, grid)
    return sky_lon, sky_lat, time, landed


def _from_muons(xp, words, pair, place, muon, light, grid, optics):
    """Return (sky_lon, sky_lat, time, landed) of light of muons."""
    core_x, core_y, tel_x, tel_y, tel_z, front = place
    q_lon, q_lat = xp.take(muon.q_lon, pair), xp.take(muon.q_lat, pair)
    x, y = core_x + xp.take(muon.x, pair), core_y + xp.take(muon.y, pair)
    theta, low = xp.take(light.theta, pair), xp.take(light.height_low, pair)
    high = xp.take(light.height_high, pair)
    above = low + uniform(words[1]) * (high - low)
    angle = xp.take(light.azimuth, pair)
    angle = angle + (2.0 * uniform(words[2]) - 1.0) * xp.take(light.azimuth_half, pair)
    turn_lon, turn_lat = theta * xp.cos(angle), theta * xp.sin(angle)
    d_x = x + q_lon * tel_z + turn_lon * above - tel_x
    d_y = y + q_lat * tel_z + turn_lat * above - tel_y
    landed = d_x * d_x + d_y * d_y <= optics.mirror_radius_m * optics.mirror_radius_m
    sky_lon, sky_lat = q_lon - turn_lon, q_lat - turn_lat

    _, gain = stretch(q_lon, q_lat, grid)
    height = tel_z + above
    axis_height = height * gain + _rise(y, grid)
    step = xp.searchsorted(-grid.height_edge, -axis_height, side="right")
    step = xp.astype(step, xp.int64) - 1
    last = xp.full_like(step, grid.delay.shape[0] - 1)
    step = _between(xp, step, xp.zeros_like(step), last)
    time = _arrival_time(xp, above, height, sky_lon, sky_lat, front, axis_height, step, grid)
    return sky_lon, sky_lat, time, landed


def photo_electrons(
    photon: Integer[Array, " pe"],
    image: Integer[Array, " pe"],
    images: ImageList,
    em: EmRows,
    light: Float[Array, "pair step"],
    age_index: Integer[Array, "pair step"],
    age_fraction: Float[Array, "pair step"],
    muon: MuonRows,
    muon_light: MuonLight,
    grid: StepGrid,
    tables: LightTables,
    optics: OpticsModel,
    *,
    key: tuple[int, int],
) -> PhotoElectrons:
    """Return direction and time of photo-electrons.

    Parameters
    ----------
    photon : (pe,), count within its image, from 0
    image : (pe,), int64, its image in `images`; any for padding, whose results mean nothing
    images : see `ImageList`; an image that photo-electrons are asked of has to have light
    em : rows of the pairs (image, row), positions relative to the core as in `EmRows`
    light : (pair, step), expected photo-electrons of each step, `shower.em_light`
    age_index, age_fraction : (pair, step), see `shower.profile`
    muon : of the pairs (image, muon); may be empty, as may be `em`, but not both
    muon_light : of the same pairs
    grid, tables, optics : see there
    key : see `random.key_of`
    """
    xp = array_namespace(photon, image, light)
    words = philox(
        xp.take(images.shower, image),
        Stream.PHOTON << 24,
        photon,
        xp.take(images.number, image),
        key=key,
    )
    q_lon, q_lat = xp.take(images.q_lon, image), xp.take(images.q_lat, image)
    place = (
        xp.take(images.x, image),
        xp.take(images.y, image),
        xp.take(images.tel_x, image),
        xp.take(images.tel_y, image),
        xp.take(images.tel_z, image),
        xp.sqrt(1.0 + (q_lon * q_lon + q_lat * q_lat)),
    )

    def ends(start, per_pair):
        low = xp.astype(xp.take(start, image), xp.int64) * per_pair
        return low, xp.astype(xp.take(start, image + 1), xp.int64) * per_pair

    n_pairs, n_steps = light.shape
    n_muons = muon_light.mean.shape[0]
    em_running = xp.cumulative_sum(xp.reshape(light, (-1,)), include_initial=True)
    muon_running = xp.cumulative_sum(muon_light.mean, include_initial=True)
    em_low, em_high = ends(images.em_start, n_steps)
    muon_low, muon_high = ends(images.muon_start, 1)
    em_base, muon_base = xp.take(em_running, em_low), xp.take(muon_running, muon_low)
    em_total = xp.take(em_running, em_high) - em_base
    total = em_total + (xp.take(muon_running, muon_high) - muon_base)
    target = uniform(words[0]) * total

    def cell_of(running, low, high, wanted, n_cells):
        cell = xp.astype(xp.searchsorted(running, wanted, side="right"), xp.int64) - 1
        cell = _between(xp, cell, low, high - 1)
        # Images without such cells have an empty range, which may lie outside the list.
        return _between(xp, cell, xp.zeros_like(cell), xp.full_like(cell, n_cells - 1))

    if n_pairs > 0:
        cell = cell_of(em_running, em_low, em_high, em_base + target, n_pairs * n_steps)
        of_rows = _from_rows(xp, words, cell, place, em, age_index, age_fraction, grid, tables)
        if n_muons == 0:
            return PhotoElectrons(*of_rows)
    wanted = muon_base + (target - em_total)
    pair = cell_of(muon_running, muon_low, muon_high, wanted, n_muons)
    of_muons = _from_muons(xp, words, pair, place, muon, muon_light, grid, optics)
    if n_pairs == 0:
        return PhotoElectrons(*of_muons)
    is_muon = target >= em_total
    return PhotoElectrons(
        *(xp.where(is_muon, left, right) for left, right in zip(of_muons, of_rows, strict=True))
    )
