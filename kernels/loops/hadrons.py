"""Loop text of `kernels/hadrons.py`, one shower at a time, and its CPU launch."""

import numba
import numpy as np

from .. import hadron_physics as model
from ..hadron_physics import air_of
from ..hadrons import check_primary, muon_reach, nucleons_of
from ..random import key_of
from ..simulation_types import (
    ELECTRON,
    GAMMA,
    MUON,
    EmRows,
    MuonRows,
    Primaries,
    ProductionSettings,
    ShowerRows,
    StepGrid,
    Stream,
    Telescopes,
)
from ._compile import compiled
from .hadron_cascade import (
    FULL_EM,
    FULL_MUON,
    FULL_QUEUE,
    N_STATE,
    CascadeSettings,
    CascadeWork,
    develop_nuclei,
)
from .hadron_physics import axis_depth, em_start, own_line
from .random import exponential, philox

__all__ = ["develop_cpu", "develop_shower"]

FIRST = Stream.FIRST << 24
N_EM, N_MUON = len(EmRows._fields), len(MuonRows._fields)


@compiled
def develop_shower(shower, energy, q_lon, q_lat, air, settings, work):
    """Fill `work` with the rows of a shower.

    Returns
    -------
    n_em, n_muon, first interaction (g/cm2), flags (FULL_..., the rows are then not complete)
    """
    primary = settings.primary
    if primary in (GAMMA, ELECTRON):
        w0, w1, _, _ = philox(shower, FIRST, 0, 0, settings.k0, settings.k1)
        length = model.CONVERSION_LENGTH if primary == GAMMA else model.ELECTRON_LENGTH
        if work.em.shape[1] == 0:
            return 1, 0, 0.0, FULL_EM
        for column in range(N_EM):
            work.em[column, 0] = 0.0
        work.em[0, 0] = energy
        work.em[1, 0] = em_start(0.0, length, w0, w1)
        work.em[4, 0] = q_lon
        work.em[5, 0] = q_lat
        work.em[6, 0] = 1.0
        return 1, 0, length * exponential(w0), 0
    if primary == MUON:
        if work.muon.shape[1] == 0:
            return 0, 1, 0.0, FULL_MUON
        work.muon[0, 0] = energy
        work.muon[1, 0] = 0.0
        work.muon[2, 0] = 0.0
        work.muon[3, 0] = q_lon
        work.muon[4, 0] = q_lat
        work.muon[5, 0] = model.MUON_PRIMARY_HEIGHT
        path, growth = own_line(q_lon, q_lat, air)
        first = axis_depth(model.MUON_PRIMARY_HEIGHT * growth, air) * (path / growth)
        return 0, 1, first, 0
    return develop_nuclei(shower, energy, q_lon, q_lat, air, settings, work)


@compiled(parallel=True, counted=True)
def _run(shower, energy, q_lon, q_lat, air, settings, work, n_em, n_muon, first, flags):
    """Develop shower after shower, workers taking turns; the rows of each worker lie together."""
    n_workers = work.em.shape[0]
    for worker in numba.prange(n_workers):
        used_em, used_muon = 0, 0
        for i in range(worker, shower.shape[0], n_workers):
            own = CascadeWork(
                work.state[worker],
                work.name[worker],
                work.em[worker, :, used_em:],
                work.muon[worker, :, used_muon:],
            )
            found = develop_shower(shower[i], energy[i], q_lon[i], q_lat[i], air, settings, own)
            n_em[i], n_muon[i], first[i] = found[0], found[1], found[2]
            flags[worker] |= found[3]
            if found[3]:
                break
            used_em += found[0]
            used_muon += found[1]


@compiled(parallel=True, counted=True)
def _collect(rows, start, collected):
    """Copy the rows (worker, column, row) of `_run` into the order of showers (column, row)."""
    n_workers, n_columns = rows.shape[0], rows.shape[1]
    for worker in numba.prange(n_workers):
        used = 0
        for i in range(worker, start.shape[0] - 1, n_workers):
            n = start[i + 1] - start[i]
            for column in range(n_columns):
                for row in range(n):
                    collected[column, start[i] + row] = rows[worker, column, used + row]
            used += n


def _capacities(energy, settings: ProductionSettings, n_workers: int) -> list[int]:
    """Return places for the queue, rows and muons of a worker that are nearly always enough.

    Memory that is not written to costs nothing, so these are generous.
    """
    if not nucleons_of(settings.primary):
        n = -(-len(energy) // n_workers)
        return [1, n, n]
    energy = np.where((energy > 0) & (energy <= model.MAX_ENERGY), energy, 0.0)
    thin = np.maximum(model.MIN_THIN, settings.thinning * energy)
    rows = 40 + 0.3 * energy / thin
    muons = 30 + 40 * (energy / 1000) ** 0.8
    queue = 256 + energy.max(initial=0) / 20

    def share(n):
        return int(1.2 * n.sum() / n_workers + 4 * n.max(initial=0))

    return [1 << int(queue).bit_length(), share(rows), share(muons)]


def develop_cpu(
    primaries: Primaries,
    settings: ProductionSettings,
    grid: StepGrid,
    telescopes: Telescopes,
    n_threads: int = 0,
) -> ShowerRows:
    """Return the rows of showers, as `hadrons.develop_arrays` does, shared out over threads.

    Parameters
    ----------
    primaries, grid, telescopes : NumPy arrays
    n_threads : 0 = all that Numba has

    Raises
    ------
    ValueError
        For a primary that the model does not have.
    """
    check_primary(settings.primary)
    limit: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    n_threads = max(1, min(n_threads or limit, limit))
    shower, energy, q_lon, q_lat = (
        np.ascontiguousarray(column, dtype=kind)
        for column, kind in zip(primaries, (np.uint32, *3 * (np.float64,)), strict=True)
    )
    scalars = CascadeSettings(
        int(settings.primary),
        nucleons_of(settings.primary),
        float(settings.thinning),
        muon_reach(settings, telescopes) ** 2,
        *key_of(settings.seed),
    )
    air = air_of(grid)
    n_showers = len(shower)
    n_em, n_muon = np.zeros((2, n_showers + 1), dtype=np.int64)
    first = np.empty(n_showers)
    queue, rows, muons = _capacities(energy, settings, n_threads)
    numba.set_num_threads(n_threads)
    while True:
        work = CascadeWork(
            np.empty((n_threads, queue, N_STATE)),
            np.empty((n_threads, queue, 3), dtype=np.uint32),
            np.empty((n_threads, N_EM, rows)),
            np.empty((n_threads, N_MUON, muons)),
        )
        flags = np.zeros(n_threads, dtype=np.int64)
        _run(shower, energy, q_lon, q_lat, air, scalars, work, n_em[1:], n_muon[1:], first, flags)
        full = int(np.bitwise_or.reduce(flags))
        if not full:
            break
        queue *= 2 if full & FULL_QUEUE else 1
        rows *= 2 if full & FULL_EM else 1
        muons *= 2 if full & FULL_MUON else 1
    em_start, muon_start = np.cumsum(n_em), np.cumsum(n_muon)
    em = np.empty((N_EM, em_start[-1]))
    muon = np.empty((N_MUON, muon_start[-1]))
    _collect(work.em, em_start, em)
    _collect(work.muon, muon_start, muon)
    return ShowerRows(EmRows(*em), em_start, MuonRows(*muon), muon_start, first)
