"""Loop text of `kernels/hadron_cascade.py`: all generations of one shower, from a queue.

The same names, draws and formulas as the array text. A queue (first in, first out) goes through a
cascade generation by generation, so that rows come out in the order of the array text.
"""

import math
from typing import NamedTuple

import numpy as np

from .. import hadron_physics as model
from .._types import Array
from ..hadron_physics import (
    CHARGED_PION,
    DRAW_FATE,
    DRAW_KICK,
    DRAW_PIECES,
    DRAW_START,
    MAX_PIECES,
    NEUTRAL_PION,
    NOTHING,
    NUCLEON,
)
from ..simulation_types import Stream
from ._compile import compiled
from .hadron_physics import (
    axis_depth,
    axis_height,
    em_start,
    interaction_length,
    is_followed,
    kick,
    own_line,
    survival_weight,
)
from .random import exponential, philox, uniform

__all__ = [
    "FULL_EM",
    "FULL_MUON",
    "FULL_QUEUE",
    "N_STATE",
    "CascadeSettings",
    "CascadeWork",
    "develop_nuclei",
]

HADRON, NAME = Stream.HADRON << 24, Stream.NAME << 24
TWO_PI = 2.0 * math.pi
N_STATE = 6

FULL_QUEUE, FULL_EM, FULL_MUON = 1, 2, 4
"""Bits of what was too small for a shower."""


class CascadeSettings(NamedTuple):
    """Scalars of a cascade."""

    primary: int
    n_nucleons: int
    thinning: float
    muon_reach: float  # m, squared
    k0: int
    k1: int


class CascadeWork(NamedTuple):
    """Arrays that one shower is developed in; those of a launch have a leading worker axis."""

    state: Array  # (queue, 6) energy, height, x, y, q_lon, q_lat; queue is a power of two
    name: Array  # (queue, 3) uint32 name (two words) and kind
    em: Array  # (column, row) as EmRows
    muon: Array  # (column, muon) as MuonRows


@compiled
def _write_photon(
    shower, a, b, photon, energy, weight, slope, azimuth, height, x, y, q_lon, q_lat, air,
    settings, em, n_em,
):  # fmt: skip
    """Write the row of a photon that leaves a neutral pion on its line; return the rows."""
    to_lon = q_lon - slope * math.cos(azimuth)
    to_lat = q_lat - slope * math.sin(azimuth)
    if not is_followed(to_lon, to_lat, air):
        return n_em
    path, growth = own_line(to_lon, to_lat, air)
    made = axis_depth(height * growth, air) * (path / growth)
    w0, w1, _, _ = philox(shower, HADRON | (DRAW_START + photon), a, b, settings.k0, settings.k1)
    if n_em < em.shape[1]:
        em[0, n_em] = energy
        em[1, n_em] = em_start(made, model.CONVERSION_LENGTH, w0, w1)
        em[2, n_em] = x + (q_lon - to_lon) * height
        em[3, n_em] = y + (q_lat - to_lat) * height
        em[4, n_em] = to_lon
        em[5, n_em] = to_lat
        em[6, n_em] = weight
    return n_em + 1


@compiled
def _neutral_pion(
    shower, a, b, energy, thin_energy, height, x, y, q_lon, q_lat, air, settings, em, n_em
):
    """Let a neutral pion, made at `height` on the line of its parent, decay; return the rows."""
    w0, w1, w2, w3 = philox(shower, HADRON | DRAW_FATE, a, b, settings.k0, settings.k1)
    share = uniform(w0)
    first, second = energy * share, energy * (1.0 - share)
    weight_1 = survival_weight(first, thin_energy, w1)
    weight_2 = survival_weight(second, thin_energy, w2)
    if weight_1 == 0.0 and weight_2 == 0.0:
        return n_em
    k0, k1, k2, _ = philox(shower, HADRON | DRAW_KICK, a, b, settings.k0, settings.k1)
    to_lon, to_lat = kick(q_lon, q_lat, energy, k0, k1, k2)
    x, y = x + (q_lon - to_lon) * height, y + (q_lat - to_lat) * height
    transverse = model.NEUTRAL_PION_MASS * math.sqrt(share * (1.0 - share))
    azimuth = TWO_PI * uniform(w3)
    if weight_1 > 0.0:
        n_em = _write_photon(
            shower, a, b, 0, first, weight_1, transverse / first, azimuth, height, x, y, to_lon,
            to_lat, air, settings, em, n_em,
        )  # fmt: skip
    if weight_2 > 0.0:
        n_em = _write_photon(
            shower, a, b, 1, second, weight_2, -transverse / second, azimuth, height, x, y, to_lon,
            to_lat, air, settings, em, n_em,
        )  # fmt: skip
    return n_em


@compiled
def _write_muon(energy, height, x, y, q_lon, q_lat, w1, w2, air, settings, muon, n_muon):
    """Write the muon of a charged pion that decays at `height`; return the number of muons."""
    path, growth = own_line(q_lon, q_lat, air)
    least = model.MUON_LEAST_SHARE
    start = energy * (least + (1.0 - least) * uniform(w1))
    if not start >= model.MIN_MUON or x * x + y * y > settings.muon_reach:
        return n_muon
    loss = model.MUON_LOSS * (air.ground - axis_depth(height * growth, air)) * (path / growth)
    half_way = start - 0.5 * loss
    if not start - loss >= model.MIN_MUON:
        return n_muon
    survival = math.exp(-height * path * model.MUON_MASS / (half_way * model.MUON_CTAU))
    if not uniform(w2) < survival:
        return n_muon
    if n_muon < muon.shape[1]:
        muon[0, n_muon] = half_way
        muon[1, n_muon] = x
        muon[2, n_muon] = y
        muon[3, n_muon] = q_lon
        muon[4, n_muon] = q_lat
        muon[5, n_muon] = height
    return n_muon + 1


@compiled
def _push(slot, energy, height, x, y, q_lon, q_lat, a, b, kind, work):
    work.state[slot, 0] = energy
    work.state[slot, 1] = height
    work.state[slot, 2] = x
    work.state[slot, 3] = y
    work.state[slot, 4] = q_lon
    work.state[slot, 5] = q_lat
    work.name[slot, 0] = a
    work.name[slot, 1] = b
    work.name[slot, 2] = kind


@compiled
def develop_nuclei(shower, energy, q_lon, q_lat, air, settings, work):
    """Fill `work` with the rows of nucleons that share `energy`; see `develop_shower`."""
    k0, k1 = settings.k0, settings.k1
    thin_energy = max(model.MIN_THIN, settings.thinning * energy)
    capacity = work.state.shape[0]
    wrap = capacity - 1
    n_em, n_muon, flags = 0, 0, 0
    first = math.inf
    head, tail = 0, 0
    each = energy / settings.n_nucleons
    if each >= model.MIN_HADRON and energy <= model.MAX_ENERGY:
        for nucleon in range(settings.n_nucleons):
            # Above all air: infinitely high is depth 0, on whatever line.
            _push(
                nucleon, each, math.inf, 0.0, 0.0, q_lon, q_lat,
                np.uint64(nucleon), np.uint64(0), NUCLEON, work,
            )  # fmt: skip
        tail = settings.n_nucleons
    while head < tail:
        slot = head & wrap
        head += 1
        own, height = work.state[slot, 0], work.state[slot, 1]
        x, y = work.state[slot, 2], work.state[slot, 3]
        lon, lat = work.state[slot, 4], work.state[slot, 5]
        a, b = np.uint64(work.name[slot, 0]), np.uint64(work.name[slot, 1])
        kind = work.name[slot, 2]
        is_pion = kind == CHARGED_PION

        # Where it ends.
        path, growth = own_line(lon, lat, air)
        stretch = path / growth
        made = axis_depth(height * growth, air) * stretch
        f0, f1, f2, _ = philox(shower, HADRON | DRAW_FATE, a, b, k0, k1)
        depth = made + interaction_length(own, is_pion) * exponential(f0)
        on_axis = depth / stretch
        reaches_ground = not on_axis < air.ground
        end = 0.0 if reaches_ground else axis_height(on_axis, air) / growth
        if height == math.inf:
            first = min(first, depth)
        if is_pion:
            _, _, _, d3 = philox(shower, HADRON | DRAW_KICK, a, b, k0, k1)
            flight = model.PION_CTAU / model.PION_MASS * own * exponential(d3)
            decay = height - flight / path
            if decay > end:
                n_muon = _write_muon(
                    own, decay, x, y, lon, lat, f1, f2, air, settings, work.muon, n_muon
                )
                continue
        if reaches_ground:
            continue

        # What it becomes: child 0 is the leading particle.
        if is_pion:
            child = own * (model.PION_LEADING * uniform(f1) ** model.PION_LEADING_POWER)
            becomes = NEUTRAL_PION if uniform(f2) < model.PION_EXCHANGE else CHARGED_PION
        else:
            low, high = model.NUCLEON_LEADING
            child = own * (low + (high - low) * uniform(f1))
            becomes = NUCLEON
        remaining = own - child
        n_children = 0
        p2, p3 = np.uint64(0), np.uint64(0)
        while True:
            if becomes == NEUTRAL_PION:
                is_needed = child >= model.MIN_GAMMA
            else:
                is_needed = becomes != NOTHING and child >= model.MIN_HADRON
            if is_needed:
                c0, c1, _, _ = philox(shower, NAME | n_children, a, b, k0, k1)
                if becomes == NEUTRAL_PION:
                    n_em = _neutral_pion(
                        shower, c0, c1, child, thin_energy, end, x, y, lon, lat, air, settings,
                        work.em, n_em,
                    )  # fmt: skip
                else:
                    w0, w1, w2, _ = philox(shower, HADRON | DRAW_KICK, c0, c1, k0, k1)
                    to_lon, to_lat = kick(lon, lat, child, w0, w1, w2)
                    if is_followed(to_lon, to_lat, air):
                        if tail - head == capacity:
                            return n_em, n_muon, first, FULL_QUEUE
                        _push(
                            tail & wrap, child, end, x + (lon - to_lon) * end,
                            y + (lat - to_lat) * end, to_lon, to_lat, c0, c1, becomes, work,
                        )  # fmt: skip
                        tail += 1
            if not remaining >= model.MIN_PIECE or n_children == MAX_PIECES:
                break
            if n_children & 1 == 0:
                w0, w1, p2, p3 = philox(
                    shower, HADRON | (DRAW_PIECES + (n_children >> 1)), a, b, k0, k1
                )
            else:
                w0, w1 = p2, p3
            kept = math.sqrt(math.sqrt(uniform(w0)))
            child = remaining * (1.0 - kept)
            remaining = remaining * kept
            u = uniform(w1)
            if u < model.NEUTRAL_SHARE:
                becomes = NEUTRAL_PION
            else:
                becomes = NOTHING if u < model.LOST_SHARE else CHARGED_PION
            n_children += 1
    if n_em > work.em.shape[1]:
        flags |= FULL_EM
    if n_muon > work.muon.shape[1]:
        flags |= FULL_MUON
    return n_em, n_muon, first, flags
