"""Light of electromagnetic showers by height, age and distance: made from simulated cascades."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.atmosphere import AtmosphereProfile, air_at, altitude_of_thickness
from astri_gpu.kernels.loops import cascade, light_table
from astri_gpu.kernels.random import key_of
from astri_gpu.kernels.simulation_types import CRITICAL_ENERGY_GEV, RADIATION_LENGTH

__all__ = [
    "AGE",
    "RADIUS_EDGE",
    "Fineness",
    "NodeTables",
    "build_nodes",
    "fineness",
    "make_medium",
    "simulate_pools",
]

SEED = 20_250_101
"""Of the cascades: tables are the same for every production."""

AGE = np.array([0.3, 0.45, 0.6, 0.75, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.7, 1.95])
AGE_HALF = np.array([0.05, 0.05, 0.05, 0.05, 0.04, 0.04, 0.04, 0.04, 0.05, 0.05, 0.06, 0.08])
"""Ages of the pools, and how far from them electrons are taken."""

RADIUS_EDGE = np.concatenate(
    [
        np.arange(0, 150, 6.0),
        np.arange(150, 260, 10.0),
        np.arange(260, 500, 30.0),
        np.arange(500, 1000, 60.0),
        np.arange(1120, 2801, 140.0),
    ]
)

HEIGHT_M = np.concatenate(
    [
        [60.0, 180.0, 400.0, 700.0],
        np.arange(1000, 8000, 500.0),
        np.arange(8000, 13_001, 1000.0),
        [14.5e3, 16e3, 18e3, 20.5e3, 24e3, 28e3, 34e3, 42e3],
    ]
)
"""Heights of the tables above the array, vertical."""

FIELD_ACROSS = np.pi / 4
"""Mean share of the Earth's field across the axis, over all directions between them."""

CONVERSION_DEPTH = 9 / 7
HIGH_SHARE = 0.5
"""Half of the cascades start as gamma rays from space do, half anywhere in the air, as those in
hadronic showers may. Radiation lengths."""
HIGHEST_START = 0.03


class Fineness(NamedTuple):
    """How many cascades and photons make the tables."""

    cascades: tuple[tuple[float, int, int], ...]  # MeV, number, electrons kept of each by age
    n_electrons: int  # that shine in a slice
    n_samples: int  # places of emission in a cell


FINENESS = {
    "standard": Fineness(
        ((3e3, 6000, 4), (1e4, 15_000, 8), (1e5, 2500, 32), (3e5, 1000, 60), (1e6, 300, 150)),
        36_000,
        192,
    ),
    "draft": Fineness(((3e3, 600, 4), (1e4, 1200, 8), (1e5, 180, 36), (3e5, 60, 72)), 4_800, 96),
}


def fineness(tables: str) -> Fineness:
    """Return the numbers behind ``shower.tables``: standard or draft."""
    return FINENESS[tables]


class NodeTables(NamedTuple):
    """Light tables at the nodes in height; see `LightTables` for the cells."""

    height: NDArray[np.float64]  # (node,), H, m along the axis above the array
    density: NDArray[np.float64]  # (node, age, radius)
    radial: NDArray[np.float32]  # (node, age, radius, sample)
    tangential: NDArray[np.float32]


class Pools(NamedTuple):
    """Recorded electrons of each age, by rising depth."""

    electrons: NDArray[np.float32]  # (age, slot, 5), see `cascade.run_cascades`
    depth: NDArray[np.float32]  # (age, slot), radiation lengths below the top; inf = no electron
    recorded: NDArray[np.int64]  # (age,), how many


def make_medium(
    profile: AtmosphereProfile, *, observation_m: float, field_ut: float, cos_zenith: float
) -> cascade.Medium:
    """Return the air along an axis as `cascade.run_cascades` takes it.

    Parameters
    ----------
    profile : of the air
    observation_m : m above the sea
    field_ut : strength of the Earth's field across the axis, uT
    cos_zenith : of the axis
    """
    ground = air_at(np.array([observation_m]), profile).thickness[0]
    ground /= cos_zenith * RADIATION_LENGTH
    depth = cascade.AIR_STEP * np.arange(int(ground / cascade.AIR_STEP) + 3)
    vertical = np.maximum(depth * RADIATION_LENGTH * cos_zenith, profile.thickness[-1])
    density = air_at(altitude_of_thickness(vertical, profile), profile).density
    return cascade.Medium(100 * density / RADIATION_LENGTH, float(ground), 1e-6 * field_ut)


def simulate_pools(fine: Fineness, medium: cascade.Medium) -> Pools:
    """Follow cascades through the air, and return their electrons by age.

    Parameters
    ----------
    fine : cascades to follow
    medium : see `make_medium`
    """
    energy = np.concatenate([np.full(n, e) for e, n, _ in fine.cascades])
    quota = np.concatenate([np.full(n, q, np.int64) for _, n, q in fine.cascades])
    # Evenly spread whatever the number of cascades (golden ratio).
    u = np.concatenate([(np.arange(n) + 0.5) * 0.6180339887498949 % 1 for _, n, _ in fine.cascades])
    high = -CONVERSION_DEPTH * np.log1p(-np.minimum(u / HIGH_SHARE, 1 - 1e-6))
    low = medium.ground * (u - HIGH_SHARE) / (1 - HIGH_SHARE)
    start = np.clip(np.where(u < HIGH_SHARE, high, low), HIGHEST_START, medium.ground)

    plane = cascade.PLANE_STEP * np.arange(cascade.N_PLANES)
    apart = np.abs(cascade.age_of(plane[None, :], energy[:, None])[:, :, None] - AGE) / AGE_HALF
    node = np.where(apart.min(axis=-1) <= 1, apart.argmin(axis=-1), -1).astype(np.int32)
    slot = np.cumsum(quota) - quota
    n_slots = int(quota.sum())
    electrons = np.zeros((len(AGE), n_slots, cascade.ELECTRON_COLUMNS), np.float32)
    seen = np.zeros((len(energy), len(AGE)), np.int64)
    tracks = np.zeros((len(energy), cascade.N_PLANES), np.float32)
    stack = np.empty((_threads(), cascade.STACK_SIZE, cascade.STACK_COLUMNS))
    cascade.run_cascades(
        cascade.Cascades(energy, start, quota, slot, 0),
        medium,
        cascade.physics_table(),
        node,
        *key_of(SEED),
        stack,
        electrons,
        seen,
        tracks,
    )
    y = np.log(energy / (1e3 * CRITICAL_ENERGY_GEV))
    owner = np.repeat(np.arange(len(energy)), quota)
    place = np.arange(n_slots) - slot[owner]
    depths = np.full((len(AGE), n_slots), np.inf, np.float32)
    for k, age in enumerate(AGE):
        depth = start + 2 * y * age / (3 - age) - 9 / 7
        used = _even_share(seen[:, k], quota, energy, depth < medium.ground)[owner]
        held = np.maximum(np.minimum(seen[:, k], quota), 1)[owner]
        taken = (place + 1) * used // held > place * used // held
        depth = np.where(taken & (place < held), depth[owner], np.inf)
        order = np.argsort(depth, kind="stable")
        electrons[k], depths[k] = electrons[k, order], depth[order]
    return Pools(electrons, depths, np.sum(np.isfinite(depths), axis=1))


def _even_share(seen, quota, energy, reached):
    """Return how many electrons of each cascade to use: as many as it has, in proportion.

    Cascades of one energy differ in their number of electrons and, with it, in their spectra. Only
    those with more than twice the mean are cut to their quota.

    Parameters
    ----------
    seen, quota, energy : (cascade,), electrons recorded, electrons held at most, MeV
    reached : (cascade,), bool, whether it had this age above the ground
    """
    used = np.minimum(seen, quota)
    for e in np.unique(energy):
        some = energy == e
        mean = seen[some & reached].mean() if np.any(some & reached) else 0.0
        share = np.minimum(quota[some] / max(2 * mean, 1e-9), 1.0) * seen[some]
        dither = (np.arange(len(share)) + 0.5) * 0.7548776662466927 % 1
        used[some] = np.minimum(np.floor(share + dither).astype(np.int64), used[some])
    return used


def _threads() -> int:
    """Return the number of threads of Numba, after setting it back to all of them."""
    threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(threads)
    return threads


def build_nodes(
    profile: AtmosphereProfile,
    *,
    observation_m: float,
    field_ut: float,
    zenith_rad: float,
    fine: Fineness,
) -> NodeTables:
    """Simulate cascades and follow their light to the ground.

    Parameters
    ----------
    profile : of the air
    observation_m : m above the sea
    field_ut : strength of the Earth's field, uT
    zenith_rad : of the axis
    fine : how many
    """
    cos_zenith = float(np.cos(zenith_rad))
    medium = make_medium(
        profile,
        observation_m=observation_m,
        field_ut=FIELD_ACROSS * field_ut,
        cos_zenith=cos_zenith,
    )
    pools = simulate_pools(fine, medium)
    altitude = observation_m + HEIGHT_M
    altitude = altitude[altitude <= profile.altitude[-1]]
    local = air_at(altitude, profile)
    # The electrons recorded nearest in depth shine at a node.
    n_electrons = np.minimum(pools.recorded, fine.n_electrons)
    depth = local.thickness / (cos_zenith * RADIATION_LENGTH)
    first = np.stack([np.searchsorted(d, depth) for d in pools.depth], axis=1) - n_electrons // 2
    slices = light_table.Slices(
        pools.electrons,
        np.clip(first, 0, pools.recorded - n_electrons),
        (altitude - observation_m) / cos_zenith,
        local.refractivity,
        0.01 * RADIATION_LENGTH / local.density,
    )
    metre = np.arange(int(RADIUS_EDGE[-1]))
    bins = light_table.RadiusBins(
        RADIUS_EDGE, np.searchsorted(RADIUS_EDGE, metre, side="right").astype(np.int64) - 1
    )
    shape = (len(altitude), len(AGE), len(RADIUS_EDGE) - 1)
    tables = NodeTables(
        slices.above,
        np.empty(shape),
        np.empty((*shape, fine.n_samples), np.float32),
        np.empty((*shape, fine.n_samples), np.float32),
    )
    work = light_table.make_work(_threads(), int(n_electrons.max()), shape[2])
    light_table.build_light_table(n_electrons, slices, bins, key_of(SEED), work, *tables[1:])
    return tables
