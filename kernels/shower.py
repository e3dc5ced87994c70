"""Showers in closed form: what is thrown, how it develops, how much light it sends.

An electromagnetic shower is a number of electrons per step of depth (Greisen 1956, Prog. Cosmic Ray
Phys. 3, times the share above 20 MeV), and the light of a slice depends on its height, its age and
the distance of the telescope from its axis, which is a table. So the expected photo-electrons of
all telescopes need no random number, and the showers that no telescope can see cost next to
nothing. `loops/shower.py` is the same text for single showers.

Left out: the height of the core plane over the ground (the plane of the cores is perpendicular to
the pointing axis, and the air of a shower is that of a core in the middle of the array), and the
fluctuations of an electromagnetic profile beyond the place where it starts: late showers are also
longer, their rms length by 0.4 (1 TeV) to 0.5 (10 GeV) of the delay of their centroid.
"""

from math import expm1, log, pi, sin
from typing import NamedTuple

from jaxtyping import Bool, Float, Int, Integer

from ._electron_share import (
    FIRST_DEPTH,
    GREISEN_NORM,
    LAST_AGE,
    LOWEST_SHARE_Y,
    LOWEST_Y,
    SHARE_AGE,
    SHARE_LEVEL,
    SHARE_SLOPE,
)
from ._types import Array, array_namespace
from .random import key_of, philox, uniform
from .simulation_types import (
    CRITICAL_ENERGY_GEV,
    MUON,
    RADIATION_LENGTH,
    EmRows,
    Events,
    LightTables,
    Primaries,
    ProductionSettings,
    StepGrid,
    Stream,
    Telescopes,
)

__all__ = [
    "Profile",
    "candidates",
    "cores",
    "depth_of_maximum",
    "electrons",
    "em_light",
    "events",
    "height_of_depth",
    "is_candidate",
    "place",
    "primaries",
    "profile",
    "radius_place",
    "stretch",
]

CANDIDATE_PE_PER_GEV = 0.6
CANDIDATE_RADIUS_M = 130.0
CANDIDATE_SLOPE = 2.2
"""Upper bound of the light of a shower: flat to the rim of the light pool, then a power law; above
what 1-50 TeV gammas give (0.24-0.36 p.e. per GeV at 100-150 m)."""


class Profile(NamedTuple):
    """Electromagnetic showers along the steps; place of their age among the nodes of the table."""

    amount: Float[Array, "row step"]  # p.e. m^2: light density is amount x table density
    age_index: Int[Array, "row step"]  # lower age node
    age_fraction: Float[Array, "row step"]  # linear weight of the upper one


def primaries(shower: Integer[Array, " shower"], *, settings: ProductionSettings) -> Primaries:
    """Return energies and directions of primary particles.

    Energies follow the power law between its limits, by inversion; directions are uniform in solid
    angle in a cone or ring about the pointing axis.

    Parameters
    ----------
    shower : (shower,), uint32, numbers in the production
    """
    xp = array_namespace(shower)
    words = philox(shower, Stream.PRIMARY << 24, 0, 0, key=key_of(settings.seed))
    u_energy, u_cone, u_angle = (uniform(word) for word in words[:3])

    power = settings.spectral_index + 1.0
    span = log(settings.energy_max_gev / settings.energy_min_gev)
    # expm1 and log1p keep their digits where the power is next to 0.
    rise = xp.log1p(u_energy * expm1(power * span)) / power if power else span * u_energy
    energy = settings.energy_min_gev * xp.exp(rise)

    # 1 - cos(angle) instead of the cosine, which has no digits left at small angles.
    low = _versine(settings.cone_min_rad)
    versine = low + u_cone * (_versine(settings.cone_max_rad) - low)
    slope = xp.sqrt(versine * (2.0 - versine)) / (1.0 - versine)
    angle = (2.0 * pi) * u_angle
    return Primaries(shower, energy, slope * xp.cos(angle), slope * xp.sin(angle))


def cores(
    shower: Integer[Array, " event"],
    use: Integer[Array, " event"],
    telescopes: Telescopes,
    *,
    settings: ProductionSettings,
) -> tuple[Float[Array, " event"], Float[Array, " event"]]:
    """Return where the axes of the primaries cross the plane H = 0, m along lon and lat.

    Cores are uniform on a disc about the array reference point. Muons are thrown at a telescope,
    each with the same probability: their disc is about the line that runs through its mirror.

    Parameters
    ----------
    shower, use : (event,), uint32
        Number of the shower in the production, and which of its uses this is.
    """
    xp = array_namespace(shower, telescopes.x)
    words = philox(shower, Stream.CORE << 24, use, 0, key=key_of(settings.seed))
    radius = settings.scatter_radius_m * xp.sqrt(uniform(words[0]))
    angle = (2.0 * pi) * uniform(words[1])
    x, y = radius * xp.cos(angle), radius * xp.sin(angle)
    if settings.primary == MUON:
        _, _, q_lon, q_lat = primaries(shower, settings=settings)
        tel = xp.astype(xp.floor(uniform(words[2]) * telescopes.x.shape[0]), xp.int64)
        height = xp.take(telescopes.z, tel)
        x = x + (xp.take(telescopes.x, tel) - q_lon * height)
        y = y + (xp.take(telescopes.y, tel) - q_lat * height)
    return x, y


def events(thrown: Primaries, telescopes: Telescopes, *, settings: ProductionSettings) -> Events:
    """Return all uses of showers, (shower x n_uses,), the uses of a shower one after the other."""
    xp = array_namespace(thrown.shower, telescopes.x)
    n_showers, n_uses = thrown.shower.shape[0], settings.n_uses
    number = xp.arange(n_showers * n_uses, dtype=xp.int64)
    row = number // n_uses
    use = xp.astype(number - row * n_uses, xp.uint32)
    x, y = cores(xp.take(thrown.shower, row), use, telescopes, settings=settings)
    return Events(row, use, x, y)


def is_candidate(
    energy: Float[Array, " event"],
    q_lon: Float[Array, " event"],
    q_lat: Float[Array, " event"],
    x: Float[Array, " event"],
    y: Float[Array, " event"],
    telescopes: Telescopes,
    *,
    settings: ProductionSettings,
    light_factor: float,
) -> Bool[Array, " event"]:
    """Return whether a telescope may see a shower at all.

    The bound is 0.6 p.e. per GeV out to 130 m from the axis and falls as distance^-2.2 beyond. A
    muon is always a candidate.

    Parameters
    ----------
    energy : (event,), GeV, of the primary
    q_lon, q_lat : (event,), its direction
    x, y : (event,), m, its core
    light_factor : light of the telescopes over that of a 9 m2 mirror with the standard camera
    """
    xp = array_namespace(energy, telescopes.x)
    if settings.primary == MUON:
        return xp.ones(energy.shape, dtype=xp.bool)
    d_x, d_y = _offset(
        x[:, None], y[:, None], q_lon[:, None], q_lat[:, None],
        telescopes.x[None, :], telescopes.y[None, :], telescopes.z[None, :],
    )  # fmt: skip
    distance = xp.sqrt(xp.min(d_x * d_x + d_y * d_y, axis=-1))
    ratio = CANDIDATE_RADIUS_M / xp.where(
        distance > CANDIDATE_RADIUS_M, distance, CANDIDATE_RADIUS_M
    )
    light = CANDIDATE_PE_PER_GEV * energy * ratio**CANDIDATE_SLOPE * light_factor
    return light >= settings.reject_pe


def candidates(
    thrown: Primaries,
    uses: Events,
    telescopes: Telescopes,
    *,
    settings: ProductionSettings,
    light_factor: float,
) -> Bool[Array, " event"]:
    """Return `is_candidate` of each use of the showers."""
    xp = array_namespace(thrown.energy, uses.x)
    energy, q_lon, q_lat = (xp.take(value, uses.shower) for value in thrown[1:])
    return is_candidate(
        energy, q_lon, q_lat, uses.x, uses.y, telescopes,
        settings=settings, light_factor=light_factor,
    )  # fmt: skip


def stretch(q_lon: Array, q_lat: Array, grid: StepGrid) -> tuple[Array, Array]:
    """Return (p, g) of lines: their length, and the height that they gain, per metre of H.

    Both are relative to the pointing axis: a line of slope q meets the air of height H on the axis
    at H / g, and a depth X there is X p / g along the line.
    """
    xp = array_namespace(q_lon, q_lat)
    length = xp.sqrt(1.0 + (q_lon * q_lon + q_lat * q_lat))
    gain = (grid.cos_zenith + q_lat * grid.sin_zenith) / grid.cos_zenith
    return length, gain


def electrons(energy: Array, start: Array, depth: Array) -> tuple[Array, Array]:
    """Return the number of electrons above 20 MeV in electromagnetic showers, and their age.

    With y = ln(E / 81 MeV) and t = (depth - start) / X0 + 9/7 the age is s = 3 t / (t + 2 y) and
    the number is 0.31 / sqrt(y) exp(t (1 - 1.5 ln s)) (Greisen 1956) times the share above 20 MeV,
    whose logarithm is linear in 1 / y. It is zero before the start and beyond an age of 2.1.

    Parameters
    ----------
    energy : GeV
    start, depth : g/cm2 along the shower's own line: where it starts, which may be above the air,
        and to look at; all shapes broadcast
    """
    xp = array_namespace(energy, start, depth)
    y = xp.log(energy * (1.0 / CRITICAL_ENERGY_GEV))
    y = xp.where(y > LOWEST_Y, y, LOWEST_Y)
    behind = depth >= start
    t = xp.where(behind, (depth - start) * (1.0 / RADIATION_LENGTH), 0.0) + FIRST_DEPTH
    age = 3.0 * t / (t + 2.0 * y)
    index, fraction = place(xp.asarray(SHARE_AGE, dtype=xp.float64), age)
    level = _mix(xp.asarray(SHARE_LEVEL, dtype=xp.float64), index, fraction)
    slope = _mix(xp.asarray(SHARE_SLOPE, dtype=xp.float64), index, fraction)
    share = level + slope / xp.where(y > LOWEST_SHARE_Y, y, LOWEST_SHARE_Y)
    number = GREISEN_NORM / xp.sqrt(y) * xp.exp(t * (1.0 - 1.5 * xp.log(age)) + share)
    return xp.where(behind & (age <= LAST_AGE), number, 0.0), age


def profile(em: EmRows, grid: StepGrid, tables: LightTables) -> Profile:
    """Return the light of electromagnetic showers along the steps, and their age.

    The amount holds everything but the distance of the telescope: electrons x weight x light of the
    step x p g, for the length p / g of the path in a step and the density g^2 that light from
    nearer by has (see `stretch`).
    """
    length, gain = stretch(em.q_lon, em.q_lat, grid)
    depth = grid.depth[None, :] * (length / gain)[:, None]
    number, age = electrons(em.energy[:, None], em.start[:, None], depth)
    amount = number * (em.weight * (length * gain))[:, None] * grid.light[None, :]
    return Profile(amount, *place(tables.age, age))


def radius_place(radius_g: Array, tables: LightTables) -> tuple[Array, Array]:
    """Return the lower radius node and the linear weight of the next one.

    Parameters
    ----------
    radius_g : m, distance from the axis times g of the line

    Returns
    -------
    index : -1 beyond the last edge of the table
    fraction : from 0 to 1; 0 or 1 between a rim of the table and the node next to it
    """
    xp = array_namespace(radius_g, tables.radius)
    index, fraction = place(tables.radius, radius_g)
    return xp.where(radius_g < tables.radius_edge[-1], index, -1), fraction


def em_light(
    em: EmRows,
    x: Float[Array, " row"],
    y: Float[Array, " row"],
    tel_x: Float[Array, " row"],
    tel_y: Float[Array, " row"],
    tel_z: Float[Array, " row"],
    grid: StepGrid,
    tables: LightTables,
) -> Float[Array, "row step"]:
    """Return the expected photo-electrons of each step, for pairs of a shower and a telescope.

    Parameters
    ----------
    em : (pair,), rows gathered; their x and y are not looked at
    x, y : (pair,), m, where the line of the row crosses H = 0
    tel_x, tel_y, tel_z : (pair,), m, position of the telescope
    """
    xp = array_namespace(em.energy, x, tel_x, tables.density)
    amount, age_index, age_fraction = profile(em, grid, tables)
    _, gain = stretch(em.q_lon, em.q_lat, grid)
    d_x, d_y = _offset(x, y, em.q_lon, em.q_lat, tel_x, tel_y, tel_z)
    index, fraction = radius_place(xp.sqrt(d_x * d_x + d_y * d_y) * gain, tables)
    is_inside = index >= 0

    n_steps, n_ages, n_radii = tables.density.shape
    step = xp.arange(n_steps, dtype=xp.int64)[None, :]
    radius = xp.where(is_inside, index, 0)[:, None]
    cell = (step * n_ages + age_index) * n_radii + radius
    flat = xp.reshape(tables.density, (-1,))

    def density(shift):
        return xp.astype(_gather(flat, cell + shift), xp.float64)

    near, young = density(0), fraction[:, None]
    low = near + young * (density(1) - near)
    near = density(n_radii)
    high = near + young * (density(n_radii + 1) - near)
    light = amount * (low + age_fraction * (high - low))
    return xp.where(is_inside[:, None], light, 0.0)


def depth_of_maximum(
    em: EmRows, em_start: Int[Array, " shower_edge"], grid: StepGrid
) -> Float[Array, " shower"]:
    """Return the depth where the summed profile of a shower is highest, g/cm2 along the axis.

    A parabola through the highest step and its neighbours places it between steps. NaN for a shower
    without electromagnetic rows; a shower that is still growing at the ground has its maximum in
    the last step.

    Parameters
    ----------
    em_start : rows of shower i are em_start[i] to em_start[i + 1]
    """
    xp = array_namespace(em.energy, em_start, grid.depth)
    length, gain = stretch(em.q_lon, em.q_lat, grid)
    depth = grid.depth[None, :] * (length / gain)[:, None]
    number, _ = electrons(em.energy[:, None], em.start[:, None], depth)
    running = xp.cumulative_sum(number * em.weight[:, None], axis=0, include_initial=True)
    edges = xp.take(running, em_start, axis=0)
    total = edges[1:, :] - edges[:-1, :]
    best = xp.argmax(total, axis=-1)

    n_steps = grid.depth.shape[0]
    inner = xp.clip(best, 1, n_steps - 2)
    step = xp.arange(n_steps, dtype=xp.int64)[None, :]

    def at(index):
        return xp.sum(xp.where(step == index[:, None], total, 0.0), axis=-1)

    before, here, after = at(inner - 1), at(inner), at(inner + 1)
    bend = before - 2.0 * here + after
    is_peak = (best == inner) & (bend < 0.0)
    shift = xp.where(is_peak, 0.5 * (before - after) / xp.where(is_peak, bend, 1.0), 0.0)
    spacing = grid.depth[1] - grid.depth[0]
    found = xp.take(grid.depth, best) + shift * spacing
    nan = xp.asarray(float("nan"), dtype=xp.float64)
    return xp.where(at(best) > 0.0, found, nan)


def height_of_depth(depth: Float[Array, " place"], grid: StepGrid) -> Float[Array, " place"]:
    """Return H in m of depths in g/cm2 along the pointing axis, straight lines within steps.

    Depths above the first step or below the ground give the ends of the grid.
    """
    xp = array_namespace(depth, grid.depth)
    spacing = grid.depth[1] - grid.depth[0]
    upper = grid.depth - 0.5 * spacing
    # The last step may be a shorter one: its centre is not half a spacing from its edge.
    last_upper = grid.depth[-2] + 0.5 * spacing
    upper = xp.concat([upper[:-1], xp.reshape(last_upper, (1,))])
    ground = xp.reshape(2.0 * grid.depth[-1] - last_upper, (1,))
    index, fraction = place(xp.concat([upper, ground]), depth)
    return _mix(grid.height_edge, index, fraction)


def place(nodes: Float[Array, " node"], value: Array) -> tuple[Array, Array]:
    """Return the lower node of values on a rising axis and the linear weight of the next node.

    Values outside are moved to the nearest end.
    """
    xp = array_namespace(nodes, value)
    flat = xp.reshape(value, (-1,))
    index = xp.searchsorted(nodes, flat, side="right") - 1
    index = xp.clip(xp.astype(index, xp.int64), 0, nodes.shape[0] - 2)
    lower = xp.take(nodes, index)
    fraction = xp.clip((flat - lower) / (xp.take(nodes, index + 1) - lower), 0.0, 1.0)
    return xp.reshape(index, value.shape), xp.reshape(fraction, value.shape)


def _gather(table, index):
    """Return table[index] for a flat table and an index of any shape."""
    xp = array_namespace(table, index)
    return xp.reshape(xp.take(table, xp.reshape(index, (-1,))), index.shape)


def _mix(values, index, fraction):
    lower = _gather(values, index)
    return lower + fraction * (_gather(values, index + 1) - lower)


def _offset(x, y, q_lon, q_lat, tel_x, tel_y, tel_z):
    """Return the position of telescopes relative to lines, at the height of the telescope."""
    return tel_x - (x + q_lon * tel_z), tel_y - (y + q_lat * tel_z)


def _versine(angle: float) -> float:
    """Return 1 - cos(angle)."""
    return 2.0 * sin(0.5 * angle) ** 2
