"""Cherenkov light of the electrons of a given age at a given height: where it lands and comes from.

Electrons of one age (`cascade`) shine on their cones, every photon is followed to the ground
along a straight line, and the landing places are sorted by their distance R from the axis. Two
things are kept for each R: how much light lands there, and a sample of emission places relative to
the axis. The samples keep the tie between place and direction of the electrons, which makes the
width of the images, and which published distributions of angle and distance leave out.

Like `cascade`, this text has no array twin: it runs once for a site.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import prange

from ..atmosphere import ELECTRON_MASS_MEV
from ._compile import compiled
from .random import philox, uniform

__all__ = ["RadiusBins", "Slices", "Work", "build_light_table", "make_work"]

N_AZIMUTH = 4
"""Photons followed for each electron, at equal steps of the azimuth on its cone."""
SIDEWAYS = 0.2
"""Cosine to the axis below which photons are dropped."""


class Slices(NamedTuple):
    """Where slices of a shower are put, and which electrons shine there."""

    electrons: np.ndarray  # (age, slot, 5), float32, see `cascade.run_cascades`
    first: np.ndarray  # (node, age), int64: the first electron that shines at a node
    above: np.ndarray  # (node,), H, m along the axis above the ground
    refractivity: np.ndarray  # (node,), n - 1
    metres: np.ndarray  # (node,), m in a radiation length


class RadiusBins(NamedTuple):
    """Bins of the distance from the axis, whose edges are whole metres."""

    edge: np.ndarray  # (radius_edge,), m
    of_metre: np.ndarray  # (metre,), int64, bin of a distance rounded down to metres


class Work(NamedTuple):
    """Work space of one worker: its photons, and the state of the bins."""

    bin: np.ndarray  # (worker, photon), int16
    weight: np.ndarray  # (worker, photon), float32
    radial: np.ndarray  # (worker, photon), float32, m
    tangential: np.ndarray  # (worker, photon), float32, m
    total: np.ndarray  # (worker, radius), float64
    running: np.ndarray  # (worker, radius), float64
    filled: np.ndarray  # (worker, radius), int64


def make_work(n_workers: int, n_electrons: int, n_radii: int) -> Work:
    """Return work space for `build_light_table`."""
    photons = (n_workers, n_electrons * N_AZIMUTH)
    return Work(
        np.empty(photons, np.int16),
        np.empty(photons, np.float32),
        np.empty(photons, np.float32),
        np.empty(photons, np.float32),
        np.empty((n_workers, n_radii)),
        np.empty((n_workers, n_radii)),
        np.empty((n_workers, n_radii), np.int64),
    )


@compiled
def _shine(node, age, n_electrons, slices, bins, key, work, worker):
    """Follow the light of a slice; return the number of photons on the ground and the track."""
    above, scale = slices.above[node], slices.metres[node]
    index = 1.0 + slices.refractivity[node]
    n_photons = 0
    track = 0.0
    work.total[worker, :] = 0.0
    for i in range(n_electrons):
        electron = slices.electrons[age, slices.first[node, age] + i]
        energy = np.float64(electron[0])
        x, y = scale * electron[1], scale * electron[2]
        ux, uy = np.float64(electron[3]), np.float64(electron[4])
        uz = math.sqrt(max(1.0 - ux * ux - uy * uy, 1e-4))
        track += 1.0 / uz
        beta2 = 1.0 - (ELECTRON_MASS_MEV / energy) ** 2
        sine2 = 1.0 - 1.0 / (index * index * beta2)
        if sine2 <= 0.0:
            continue
        sine, cosine = math.sqrt(sine2), math.sqrt(1.0 - sine2)
        across = math.sqrt(ux * ux + uy * uy)
        cx, cy = (ux / across, uy / across) if across > 1e-9 else (1.0, 0.0)
        w0, _, _, _ = philox(i, node, age, 0, key[0], key[1])
        turn = 0.5 * math.pi * uniform(w0)
        a, b = sine * math.cos(turn), sine * math.sin(turn)
        for _ in range(N_AZIMUTH):
            vx = ux * cosine + cx * uz * a - cy * b
            vy = uy * cosine + cy * uz * a + cx * b
            vz = uz * cosine - across * a
            a, b = -b, a
            if vz < SIDEWAYS:
                continue
            landing_x, landing_y = x + vx / vz * above, y + vy / vz * above
            radius = math.sqrt(landing_x * landing_x + landing_y * landing_y)
            metre = np.int64(min(radius, 1e9))
            if metre >= bins.of_metre.shape[0]:
                continue
            rx, ry = (landing_x / radius, landing_y / radius) if radius > 0 else (1.0, 0.0)
            place = bins.of_metre[metre]
            weight = np.float32(sine2 / uz)
            work.bin[worker, n_photons] = place
            work.weight[worker, n_photons] = weight
            work.radial[worker, n_photons] = x * rx + y * ry
            work.tangential[worker, n_photons] = y * rx - x * ry
            work.total[worker, place] += weight
            n_photons += 1
    return n_photons, track


@compiled
def _sample(node, age, n_photons, key, work, worker, radial, tangential):
    """Fill the samples of every bin by systematic sampling of its photons in their weight."""
    n_radii, n_samples = radial.shape[2], radial.shape[3]
    for k in range(n_radii):
        w0, _, _, _ = philox(k, node, age, 1, key[0], key[1])
        work.running[worker, k] = -uniform(w0) * work.total[worker, k] / n_samples
        work.filled[worker, k] = 0
    for i in range(n_photons):
        k = work.bin[worker, i]
        work.running[worker, k] += work.weight[worker, i]
        step = work.total[worker, k] / n_samples
        while (
            work.filled[worker, k] < n_samples
            and work.running[worker, k] > work.filled[worker, k] * step
        ):
            radial[node, age, k, work.filled[worker, k]] = work.radial[worker, i]
            tangential[node, age, k, work.filled[worker, k]] = work.tangential[worker, i]
            work.filled[worker, k] += 1
    for k in range(n_radii):
        n_have = work.filled[worker, k]
        if n_have > 0:  # the last one may be missing by rounding
            for j in range(n_have, n_samples):
                radial[node, age, k, j] = radial[node, age, k, j - n_have]
                tangential[node, age, k, j] = tangential[node, age, k, j - n_have]
    for k in range(n_radii):
        if work.filled[worker, k] > 0:
            continue
        # Between the centres of bins the light falls to that of a dark bin: what is left comes
        # from where the light of the nearest bright one does.
        source = -1
        for apart in range(1, n_radii):
            for other in (k + apart, k - apart):
                if 0 <= other < n_radii and work.filled[worker, other] > 0:
                    source = other
            if source >= 0:
                break
        for j in range(n_samples):
            radial[node, age, k, j] = radial[node, age, source, j] if source >= 0 else 0.0
            tangential[node, age, k, j] = tangential[node, age, source, j] if source >= 0 else 0.0


@compiled(parallel=True, counted=True)
def build_light_table(n_electrons, slices, bins, key, work, density, radial, tangential):
    """Fill density and samples of every height and age; nothing depends on the number of threads.

    Parameters
    ----------
    n_electrons : (age,), int64, electrons that shine in a slice, at most the space in `work`
    slices, bins : see the named tuples
    key : two words, of the random numbers
    work : see `make_work`
    density : (node, age, radius), float64: light landing per m2, for 1 m of track of an electron
        above the cut along the axis and a yield of 1 per m and unit of sin^2(theta)
    radial, tangential : (node, age, radius, sample), float32, m: emission relative to the axis
    """
    n_workers = work.bin.shape[0]
    n_nodes, n_ages, n_radii = density.shape
    for worker in prange(n_workers):
        for job in range(worker, n_nodes * n_ages, n_workers):
            node, age = job // n_ages, job % n_ages
            n_photons, track = _shine(node, age, n_electrons[age], slices, bins, key, work, worker)
            _sample(node, age, n_photons, key, work, worker, radial, tangential)
            for k in range(n_radii):
                ring = math.pi * (bins.edge[k + 1] ** 2 - bins.edge[k] ** 2)
                light = work.total[worker, k] / (N_AZIMUTH * max(track, 1e-9))
                density[node, age, k] = light / ring
