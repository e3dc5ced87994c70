"""Monte Carlo of electromagnetic cascades in air: where electrons are at a given shower age.

Photons, electrons and positrons above 20 MeV, which is below the Cherenkov threshold at every
height, in three dimensions and in the real atmosphere: early electrons spread, and are turned by
the field, in thinner air than late ones, which makes showers 1.1 to 1.8 times wider than the air
around them would. Lengths along the axis are in radiation lengths (36.66 g/cm2), lateral positions
in metres. This text has no array twin: it runs once for a site, on the CPU, and its result is kept.

Physics
-------
* Pair production: 7/9 per radiation length times the fall towards low energies of the measured
  cross section of air (NIST XCOM), energy split 1 - 4/3 v (1 - v) (Rossi 1952, complete screening).
* Compton scattering: Klein and Nishina (1929), leading terms above 20 MeV.
* Bremsstrahlung: (4/3 (1 - y) + y^2) / y (Rossi 1952) times the fall towards low energies of the
  tables of Berger and Seltzer; photons above 20 MeV one by one, the others as a steady loss.
* Ionisation: 2.21 + 0.155 ln(E / 20 MeV) MeV cm2/g (Berger and Seltzer, air).
* Scattering: Rutherford with Moliere's screening angle (Bethe 1953, Phys. Rev. 89, 1256). What is
  below 6 MeV/E is taken together as a Gaussian, larger angles one by one, so that the distribution
  has its tail and no free parameter. Mean and correlation of the lateral displacement come from
  the random hinge of PENELOPE (Fernandez-Varea et al. 1993, NIM B 73, 447).
* The Earth's field turns electrons and positrons in one plane.

Left out: annihilation, knock-on electrons, opening angles (m/E), photonuclear reactions, and the
Landau-Pomeranchuk-Migdal effect, which in air begins above 10 PeV.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import prange

from ..atmosphere import ELECTRON_MASS_MEV, FINE_STRUCTURE
from ..simulation_types import CRITICAL_ENERGY_GEV, RADIATION_LENGTH
from ._compile import compiled
from .random import exponential, philox, uniform

__all__ = ["CUT_MEV", "Cascades", "Medium", "age_of", "physics_table", "run_cascades"]

CUT_MEV = 20.0
"""Electrons and photons below this energy are dropped."""
PLANE_STEP = 0.25
"""Electrons are recorded where they cross planes this far apart."""
N_PLANES = 176
AIR_STEP = 0.25
"""Depths at which the density of the air is given."""

MAX_STEP, MAX_SHARE = 0.1, 0.2
"""Largest step, also as a share of the depth below the top of the atmosphere."""
MAX_LOSS = 0.1
"""Largest share of its energy that an electron loses steadily in a step."""
MAX_BEND = 0.1
"""Largest angle by which the field turns an electron in a step, rad."""
STOP_COSINE = 0.05
"""Electrons that fly sideways are dropped: their light goes nowhere near."""

SCATTERING = 0.157 * RADIATION_LENGTH * 7.3 * (7.3 + 1.0) / 14.6
"""Moliere's chi_c^2 times E^2 in one radiation length of air (Z = 7.3, A = 14.6), MeV^2."""
SCREENING_MEV = 1.0667 * ELECTRON_MASS_MEV * FINE_STRUCTURE * 7.3 ** (1 / 3) / 0.885
"""Moliere's screening angle times E: sqrt(1.13 + 3.76 (Z/137)^2) m Z^(1/3) / (137 x 0.885)."""
HARD_MEV, NUCLEUS_MEV = 6.0, 59.0
"""Angles times E: from where scatterings count one by one, and where the nucleus (280 m A^(-1/3),
Rossi 1952) ends them."""
SOFT = SCATTERING * (2 * math.log(HARD_MEV / SCREENING_MEV) - 1)
"""Mean square angle of the others in one radiation length, times E^2."""
HARD_RATE = SCATTERING * (HARD_MEV**-2 - NUCLEUS_MEV**-2)
"""Of larger scatterings per radiation length, at any energy."""

BEND_MEV = 299.79
"""Angle of a track of 1 m in a field of 1 T, times the energy in MeV."""
KLEIN_NISHINA = RADIATION_LENGTH * 0.4994 * 6.02214e23 * 6.65246e-25 * 3 / 8
"""3/8 of the Thomson cross section for the electrons in a radiation length of air."""

TABLE_START, TABLE_STEP, TABLE_SIZE = math.log(10.0), 0.125, 160
PHOTON_RATE, COMPTON_SHARE, RADIATION_RATE, STEADY_LOSS = range(4)
ELECTRON_COLUMNS = 5
"""Columns of a recorded electron: energy (MeV), x, y (in the m that a radiation length has there),
and its direction cosines."""
PHOTON = 0
STACK_SIZE, STACK_COLUMNS = 4096, 8


class Cascades(NamedTuple):
    """Cascades to follow: each starts with a photon that turns into a pair."""

    energy: np.ndarray  # (cascade,), MeV
    start: np.ndarray  # (cascade,), radiation lengths from the top to the pair, above 0
    quota: np.ndarray  # (cascade,), electrons kept for each age
    slot: np.ndarray  # (cascade,), first row in the pools
    first_number: int  # of the cascades, for their random numbers


class Medium(NamedTuple):
    """What cascades develop in."""

    air: np.ndarray  # (depth,), radiation lengths per m at steps of AIR_STEP from the top
    ground: float  # radiation lengths from the top, where cascades end
    field: float  # T, across the axis


def age_of(depth, energy_mev):
    """Return the age of a cascade, s = 3 t' / (t' + 2 y), t' = t + 9/7, y = ln(E / 81 MeV).

    Greisen (1956, Prog. Cosmic Ray Phys. 3); t in radiation lengths from the first conversion.
    """
    y = np.log(energy_mev / (1e3 * CRITICAL_ENERGY_GEV))
    t = depth + 9 / 7
    return 3 * t / (t + 2 * y)


def physics_table() -> np.ndarray:
    """Return rates per radiation length by energy, (4, `TABLE_SIZE`), at equal steps of ln E/MeV.

    Rows: photon interactions, share of Compton scattering among them, emission of photons above the
    cut, and steady energy loss (MeV).
    """
    energy = np.exp(TABLE_START + TABLE_STEP * np.arange(TABLE_SIZE))
    pair = np.interp(
        np.log(energy),
        np.log([20, 50, 100, 316, 1e3, 1e4]),
        [0.385, 0.55, 0.65, 0.80, 0.92, 1.0],
    )
    pair *= 7 / 9
    k = energy / ELECTRON_MASS_MEV
    compton = KLEIN_NISHINA * (np.log(2 * k) + 0.5) / k
    low = np.interp(np.log(energy), np.log([20, 100, 1e3, 1e4]), [0.74, 0.87, 0.96, 1.0])
    cut = np.minimum(CUT_MEV / energy, 1.0)
    emission = low * (4 / 3 * (-np.log(cut) - (1 - cut)) + (1 - cut**2) / 2)
    soft = low * energy * (4 / 3 * cut - 2 / 3 * cut**2 + cut**3 / 3)
    ionisation = RADIATION_LENGTH * (2.21 + 0.155 * np.log(energy / 20))
    return np.stack([pair + compton, compton / (pair + compton), emission, soft + ionisation])


@compiled
def _metres(depth, air):
    """Return the metres in a radiation length at a depth below the top."""
    place = max(depth, 1e-3) / AIR_STEP
    i = min(np.int64(place), air.shape[0] - 2)
    return 1.0 / (air[i] + (place - i) * (air[i + 1] - air[i]))


@compiled
def _turn(ux, uy, uz, angle, azimuth):
    """Return a direction turned by a polar angle and an azimuth about itself."""
    sine, cosine = math.sin(angle), math.cos(angle)
    a, b = sine * math.cos(azimuth), sine * math.sin(azimuth)
    across = math.sqrt(ux * ux + uy * uy)
    if across < 1e-9:
        return a, b, math.copysign(cosine, uz)
    return (
        ux * cosine + (ux * uz * a - uy * b) / across,
        uy * cosine + (uy * uz * a + ux * b) / across,
        uz * cosine - across * a,
    )


@compiled
def _push(stack, n, kind, energy, depth, x, y, ux, uy, uz):
    """Put a particle on the stack if it is above the cut; return the new height."""
    if energy < CUT_MEV or n >= stack.shape[0]:
        return n
    stack[n, 0] = kind
    stack[n, 1] = energy
    stack[n, 2] = depth
    stack[n, 3] = x
    stack[n, 4] = y
    stack[n, 5] = ux
    stack[n, 6] = uy
    stack[n, 7] = uz
    return n + 1


@compiled
def _record(
    crossed, energy, x, y, ux, uy, uz, scale, number, draw, k0, k1, node_of_plane, quota, slot,
    seen, pool, profile,
):  # fmt: skip
    """Count an electron on a plane and offer it to the pool of its age (reservoir sampling)."""
    if crossed >= profile.shape[0]:
        return
    profile[crossed] += 1.0 / uz
    node = node_of_plane[crossed]
    if node < 0:
        return
    place = seen[node]
    seen[node] += 1
    if place >= quota:
        w0, _, _, _ = philox(number, draw, crossed, 1, k0, k1)
        place = np.int64(uniform(w0) * seen[node])
        if place >= quota:
            return
    row = pool[node, slot + place]
    row[0] = energy
    row[1] = x / scale
    row[2] = y / scale
    row[3] = ux
    row[4] = uy


@compiled
def _photon(n, stack, energy, depth, x, y, ux, uy, uz, start, air, table, number, draw, k0, k1):
    """Move a photon to its interaction; return the new height of the stack and counter."""
    place = (math.log(energy) - TABLE_START) / TABLE_STEP
    i = np.int64(place)
    f = place - i
    rate = (1 - f) * table[PHOTON_RATE, i] + f * table[PHOTON_RATE, i + 1]
    share = (1 - f) * table[COMPTON_SHARE, i] + f * table[COMPTON_SHARE, i + 1]
    w0, w1, w2, w3 = philox(number, draw, 0, 0, k0, k1)
    draw += 1
    path = exponential(w0) / rate
    along = path * uz
    scale = (
        _metres(start + depth, air)
        + 4.0 * _metres(start + depth + 0.5 * along, air)
        + _metres(start + depth + along, air)
    ) / 6.0
    depth += along
    x += ux * path * scale
    y += uy * path * scale
    if uniform(w1) < share:
        lowest = 1.0 / (1.0 + 2.0 * energy / ELECTRON_MASS_MEV)
        slow, fast = -math.log(lowest), 0.5 * (1.0 - lowest * lowest)
        if uniform(w2) * (slow + fast) < slow:
            kept = lowest ** uniform(w3)
        else:
            kept = math.sqrt(lowest * lowest + uniform(w3) * (1.0 - lowest * lowest))
        n = _push(stack, n, -1, (1 - kept) * energy, depth, x, y, ux, uy, uz)
        n = _push(stack, n, PHOTON, kept * energy, depth, x, y, ux, uy, uz)
    else:
        v, test = uniform(w2), uniform(w3)
        while test > 1.0 - 4.0 / 3.0 * v * (1.0 - v):
            w0, w1, w2, w3 = philox(number, draw, 0, 0, k0, k1)
            draw += 1
            v, test = uniform(w2), uniform(w3)
        n = _push(stack, n, -1, v * energy, depth, x, y, ux, uy, uz)
        n = _push(stack, n, 1, (1 - v) * energy, depth, x, y, ux, uy, uz)
    return n, draw


@compiled
def _electron(
    n, stack, charge, energy, depth, x, y, ux, uy, uz, start, medium, table, number, draw, k0, k1,
    node_of_plane, quota, slot, seen, pool, profile,
):  # fmt: skip
    """Follow an electron until it falls below the cut; return stack height and counter."""
    while energy > CUT_MEV and uz > STOP_COSINE and start + depth < medium.ground:
        place = (math.log(energy) - TABLE_START) / TABLE_STEP
        i = np.int64(place)
        f = place - i
        rate = (1 - f) * table[RADIATION_RATE, i] + f * table[RADIATION_RATE, i + 1]
        loss = (1 - f) * table[STEADY_LOSS, i] + f * table[STEADY_LOSS, i + 1]
        step = min(MAX_STEP, MAX_SHARE * (start + depth))
        scale = _metres(start + depth + 0.5 * step, medium.air)
        bend = charge * BEND_MEV * medium.field * scale / energy
        w0, w1, w2, w3 = philox(number, draw, 0, 0, k0, k1)
        draw += 1
        step = min(step, MAX_LOSS * energy / loss, (energy - CUT_MEV) / loss + 1e-9)
        step = min(step, MAX_BEND / (abs(bend) + 1e-9))
        path = exponential(w0) / (rate + 1e-12)
        radiates = path < step
        if radiates:
            step = path
        # One deflection at a random place of the step: see the module docstring.
        first = step * ((np.float64(w1 & np.uint64(0xFFFF)) + 0.5) / 65536.0)
        for leg in range(2):
            length = first if leg == 0 else step - first
            if leg == 1:
                middle = energy - 0.5 * loss * step
                angle = math.sqrt(exponential(w2) * SOFT * step) / middle
                ux, uy, uz = _turn(ux, uy, uz, angle, 2.0 * math.pi * uniform(w3))
                if (np.float64(w1 >> np.uint64(16)) + 0.5) / 65536.0 < HARD_RATE * step:
                    w0, w1, w2, w3 = philox(number, draw, 0, 0, k0, k1)
                    draw += 1
                    inverse = HARD_MEV**-2 - uniform(w0) * (HARD_MEV**-2 - NUCLEUS_MEV**-2)
                    angle = 1.0 / (middle * math.sqrt(inverse))
                    ux, uy, uz = _turn(ux, uy, uz, angle, 2.0 * math.pi * uniform(w1))
                sine, cosine = math.sin(bend * step), math.cos(bend * step)
                ux, uz = ux * cosine + uz * sine, uz * cosine - ux * sine
                if uz < STOP_COSINE:
                    break
            below = depth + length * uz
            crossed = np.int64(below / PLANE_STEP)
            if crossed != np.int64(depth / PLANE_STEP):
                part = (crossed * PLANE_STEP - depth) / uz
                travelled = part if leg == 0 else first + part
                _record(
                    crossed, energy - loss * travelled, x + ux * part * scale,
                    y + uy * part * scale, ux, uy, uz, scale, number, draw, k0, k1, node_of_plane,
                    quota, slot, seen, pool, profile,
                )  # fmt: skip
            depth = below
            x += ux * length * scale
            y += uy * length * scale
        energy -= loss * step
        if radiates and energy > CUT_MEV:
            lowest = CUT_MEV / energy
            while True:
                w0, w1, _, _ = philox(number, draw, 0, 0, k0, k1)
                draw += 1
                share = lowest ** uniform(w0)
                if uniform(w1) * 4.0 < 4.0 * (1.0 - share) + 3.0 * share * share:
                    break
            n = _push(stack, n, PHOTON, share * energy, depth, x, y, ux, uy, uz)
            energy *= 1.0 - share
    return n, draw


@compiled(parallel=True, counted=True)
def run_cascades(cascades, medium, table, node_of_plane, k0, k1, stack, pool, seen, profile):
    """Follow cascades, shared out over threads; the outcome does not depend on their number.

    Parameters
    ----------
    cascades : `Cascades`
    medium : `Medium`
    table : `physics_table`
    node_of_plane : (cascade, `N_PLANES`), int32, pool of the electrons on a plane, -1 = none
    k0, k1 : key of the random numbers
    stack : (worker, particle, `STACK_COLUMNS`), float64, work space
    pool : (age, slot, `ELECTRON_COLUMNS`), float32, filled: rows slot ... slot + quota - 1 belong
        to a cascade, of which the first min(seen, quota) are used
    seen : (cascade, age), int64, zero before; electrons offered
    profile : (cascade, `N_PLANES`), float32, zero before; track length of electrons per depth
    """
    n_workers = stack.shape[0]
    n_cascades = cascades.energy.shape[0]
    for worker in prange(n_workers):
        own = stack[worker]
        for c in range(worker, n_cascades, n_workers):
            number = cascades.first_number + c
            start = cascades.start[c]
            draw = 0
            while True:
                w0, w1, w2, _ = philox(number, draw, 0, 0, k0, k1)
                draw += 1
                v = uniform(w0)
                if uniform(w2) < 1.0 - 4.0 / 3.0 * v * (1.0 - v):
                    break
            charge = 1 if uniform(w1) < 0.5 else -1
            energy = cascades.energy[c]
            n = _push(own, 0, charge, v * energy, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
            n = _push(own, n, -charge, (1 - v) * energy, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
            while n > 0:
                n -= 1
                kind, energy, depth = own[n, 0], own[n, 1], own[n, 2]
                x, y, ux, uy, uz = own[n, 3], own[n, 4], own[n, 5], own[n, 6], own[n, 7]
                if kind == PHOTON:
                    n, draw = _photon(
                        n, own, energy, depth, x, y, ux, uy, uz, start, medium.air, table, number,
                        draw, k0, k1,
                    )  # fmt: skip
                else:
                    n, draw = _electron(
                        n, own, kind, energy, depth, x, y, ux, uy, uz, start, medium, table,
                        number, draw, k0, k1, node_of_plane[c], cascades.quota[c],
                        cascades.slot[c], seen[c], pool, profile[c],
                    )  # fmt: skip
