"""Loop text of the light of one shower at one telescope: expected, and photo-electron by
photo-electron into the camera.
"""

from typing import NamedTuple

import numpy as np

from .._types import Array
from ._compile import compiled
from .camera import deposit
from .muon_light import muon_light
from .photons import (
    N_LINE,
    arrival_words,
    em_photon,
    find_cell,
    guide_cells,
    muon_photon,
    photon_words,
    write_line,
)
from .random import uniform
from .shower import light, profile, radius_place

__all__ = [
    "MEAN",
    "N_MUON",
    "LightScratch",
    "draw_light",
    "emitted",
    "expected_light",
    "list_cells",
    "make_light_scratch",
    "muon_at",
    "row_at",
    "write_profiles",
]

# What muons at a telescope need, columns of `LightScratch.muon`.
MEAN, THETA, LOW, HIGH, AZIMUTH, HALF = range(6)
N_MUON = 6


class LightScratch(NamedTuple):
    """Work space for the light of one shower, first axis of every array: worker."""

    amount: Array  # (worker, row, step) float64, see `shower.profile`
    age_index: Array  # (worker, row, step) int32
    age_fraction: Array  # (worker, row, step) float64
    span: Array  # (worker, row, 2) int64, first and last step with light
    line: Array  # (worker, row, N_LINE) float64, see `photons.write_line`
    muon: Array  # (worker, muon, N_MUON) float64
    step: Array  # (worker, step) float64
    running: Array  # (worker, cell) float64, running sum of the light of rows x steps and muons
    guide: Array  # (worker, cell) int32, see `photons.guide_cells`


def make_light_scratch(n_workers: int, n_rows: int, n_muons: int, n_steps: int) -> LightScratch:
    """Return work space for showers of up to so many rows and muons."""
    n_cells = n_rows * n_steps + n_muons
    per_step = (n_workers, n_rows, n_steps)
    return LightScratch(
        amount=np.empty(per_step),
        age_index=np.empty(per_step, dtype=np.int32),
        age_fraction=np.empty(per_step),
        span=np.empty((n_workers, n_rows, 2), dtype=np.int64),
        line=np.empty((n_workers, n_rows, N_LINE)),
        muon=np.empty((n_workers, n_muons, N_MUON)),
        step=np.empty((n_workers, n_steps)),
        running=np.empty((n_workers, n_cells)),
        guide=np.empty((n_workers, n_cells), dtype=np.int32),
    )


@compiled
def write_profiles(shower, em, em_start, grid, tables, own, w):
    """Fill what the rows of a shower have in common for all telescopes."""
    for row in range(em_start[shower], em_start[shower + 1]):
        r = row - em_start[shower]
        first, last = profile(
            em.energy[row], em.start[row], em.q_lon[row], em.q_lat[row], em.weight[row], grid,
            tables, own.amount[w, r], own.age_index[w, r], own.age_fraction[w, r],
        )  # fmt: skip
        own.span[w, r, 0], own.span[w, r, 1] = first, last


@compiled
def row_at(row, x, y, tel, telescopes, em, grid, tables, line):
    """Write the line of a row at a telescope; return its place among the radii of the tables."""
    radius_g = write_line(
        line, x + em.x[row], y + em.y[row], em.q_lon[row], em.q_lat[row], telescopes.x[tel],
        telescopes.y[tel], telescopes.z[tel], grid, tables,
    )  # fmt: skip
    return radius_place(radius_g, tables)


@compiled
def _row_light(row, r, x, y, tel, telescopes, em, grid, tables, own, w):
    """Fill the light of the steps of a row at a telescope; return the steps that have some."""
    index, fraction = row_at(row, x, y, tel, telescopes, em, grid, tables, own.line[w, r])
    if index < 0:
        return 0, 0, 0.0
    first, last = own.span[w, r, 0], own.span[w, r, 1]
    total = light(
        own.amount[w, r], own.age_index[w, r], own.age_fraction[w, r], first, last, index, fraction,
        tables, own.step[w],
    )  # fmt: skip
    return first, last, total


@compiled
def muon_at(m, x, y, tel, telescopes, muon, grid, optics):
    """Return the light of a muon at a telescope, see `muon_light`."""
    return muon_light(
        muon.energy[m], x + muon.x[m], y + muon.y[m], muon.q_lon[m], muon.q_lat[m], muon.height[m],
        telescopes.x[tel], telescopes.y[tel], telescopes.z[tel], grid, optics,
    )  # fmt: skip


@compiled
def expected_light(
    shower, x, y, tel, telescopes, em, em_start, muon, muon_start, grid, tables, optics, own, w
):
    """Return the expected photo-electrons of a telescope; needs what `write_profiles` fills."""
    total = 0.0
    for row in range(em_start[shower], em_start[shower + 1]):
        r = row - em_start[shower]
        total += _row_light(row, r, x, y, tel, telescopes, em, grid, tables, own, w)[2]
    for m in range(muon_start[shower], muon_start[shower + 1]):
        total += muon_at(m, x, y, tel, telescopes, muon, grid, optics)[MEAN]
    return total


@compiled
def list_cells(
    shower, x, y, tel, telescopes, em, em_start, muon, muon_start, grid, tables, optics, own, w
):
    """Fill the running sum of the light at a telescope; return the numbers of cells.

    Returns
    -------
    n_em : rows x steps
    n_cells : and muons
    """
    n_steps = grid.depth.shape[0]
    total = 0.0
    cell = 0
    for row in range(em_start[shower], em_start[shower + 1]):
        r = row - em_start[shower]
        first, last, _ = _row_light(row, r, x, y, tel, telescopes, em, grid, tables, own, w)
        for k in range(n_steps):
            if first <= k and k < last:
                total += own.step[w, k]
            own.running[w, cell + k] = total
        cell += n_steps
    n_em = cell
    for m in range(muon_start[shower], muon_start[shower + 1]):
        found = muon_at(m, x, y, tel, telescopes, muon, grid, optics)
        for k in range(N_MUON):
            own.muon[w, m - muon_start[shower], k] = found[k]
        total += found[MEAN]
        own.running[w, cell] = total
        cell += 1
    return n_em, cell


@compiled
def emitted(
    cell, w1, w2, w3, n_em, x, y, tel, telescopes, front, muon, first_muon, age_index, age_fraction,
    line, muon_columns, grid, tables, optics,
):  # fmt: skip
    """Return (sky_lon, sky_lat, time, landed) of a photo-electron of a cell of the running sum.

    Parameters
    ----------
    cell : number; the first `n_em` are the steps of rows, the others muons
    w1, w2, w3 : random words
    age_index, age_fraction : (row, step), of the shower
    line : (row, N_LINE or more), see `row_at`
    muon_columns : (muon, N_MUON), what `muon_at` gave
    """
    tel_x, tel_y, tel_z = telescopes.x[tel], telescopes.y[tel], telescopes.z[tel]
    if cell < n_em:
        n_steps = grid.depth.shape[0]
        r = cell // n_steps
        k = cell - r * n_steps
        return em_photon(
            w1, w2, w3, k, age_index[r, k], age_fraction[r, k], line[r], tel_z, front, grid, tables
        )
    i = cell - n_em
    m = first_muon + i
    return muon_photon(
        w1, w2, x + muon.x[m], y + muon.y[m], muon.q_lon[m], muon.q_lat[m],
        muon_columns[i, THETA], muon_columns[i, LOW], muon_columns[i, HIGH],
        muon_columns[i, AZIMUTH], muon_columns[i, HALF], tel_x, tel_y, tel_z, front, grid,
        optics.mirror_radius_m,
    )  # fmt: skip


@compiled
def draw_light(
    number, image, drawn, weight, n_em, n_cells, x, y, tel, telescopes, front, muon, first_muon,
    grid, tables, optics, camera, camera_settings, k0, k1, own, scratch, w,
):  # fmt: skip
    """Draw the photo-electrons of an image and collect them in the camera."""
    running, guide = own.running[w], own.guide[w]
    n_guide = min(drawn, n_cells)
    guide_cells(running, n_cells, guide, n_guide)
    for j in range(drawn):
        w0, w1, w2, w3 = photon_words(number, j, image, k0, k1)
        cell = find_cell(uniform(w0), running, n_cells, guide, n_guide)
        sky_lon, sky_lat, time, landed = emitted(
            cell, w1, w2, w3, n_em, x, y, tel, telescopes, front, muon, first_muon,
            own.age_index[w], own.age_fraction[w], own.line[w], own.muon[w], grid, tables, optics,
        )  # fmt: skip
        if landed:
            a0, a1, a2, a3 = arrival_words(number, j, image, k0, k1)
            deposit(
                sky_lon, sky_lat, time, weight, a0, a1, a2, a3, tel, optics, camera,
                camera_settings, scratch, w,
            )  # fmt: skip
