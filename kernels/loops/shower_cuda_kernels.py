"""The kernels of `shower_cuda`, which says how the work is shared out.

Importing this module needs numba-cuda or its simulator. Functions that the threads of a block go
through together have no CUDA decorator of their own: `compiled` pastes them into the kernels.
"""

import math
from typing import Any

import numpy as np
from numba import cuda as numba_cuda
from numba import float64, int32

from ..simulation_types import Telescopes
from ..trigger import MODULE_PIXELS
from ._compile import compiled
from .camera import accepted_pixel, avalanches, flash_pixel, read_pair
from .photons import N_LINE, arrival_words, count, front_of, photon_words
from .random import uniform
from .shower import light, profile
from .shower_block import (
    MAX_THREADS,
    RADIUS_FRACTION,
    RADIUS_INDEX,
    em_rows,
    muon_rows,
    search,
    stretch_of,
)
from .shower_image import MEAN, N_MUON, emitted, muon_at, row_at
from .trigger import FIRED, MEMBER, find_groups, fires

__all__ = ["cuda", "run_expected", "run_images", "run_light", "run_pixels", "run_profiles"]

cuda: Any = numba_cuda  # its annotations are those of functions that compile kernels


@cuda.jit
def run_profiles(rows, grid, tables):
    """Fill amount, age and span of every row, one thread a row."""
    row = cuda.grid(1)
    em = em_rows(rows)
    if row < rows.em_start[rows.em_start.shape[0] - 1]:
        first, last = profile(
            em.energy[row], em.start[row], em.q_lon[row], em.q_lat[row], em.weight[row], grid,
            tables, rows.amount[row], rows.age_index[row], rows.age_fraction[row],
        )  # fmt: skip
        rows.span[row, 0], rows.span[row, 1] = first, last


@cuda.jit
def run_expected(event_shower, event_core, telescopes, rows, grid, tables, optics, step, expected):
    """Fill the expected photo-electrons, one thread an event and telescope.

    Parameters
    ----------
    event_shower : (event,), rows of `rows.em_start`
    event_core : (event, 2), m
    telescopes : (3, tel)
    rows : profiles are filled
    step : (event x telescope, step), written to and never read
    expected : (event, telescope), output
    """
    pair = cuda.grid(1)
    n_tel = telescopes.shape[1]
    if pair < expected.shape[0] * n_tel:
        event = pair // n_tel
        tel = pair - event * n_tel
        where = Telescopes(telescopes[0], telescopes[1], telescopes[2])
        em, muon = em_rows(rows), muon_rows(rows)
        shower = event_shower[event]
        x, y = event_core[event, 0], event_core[event, 1]
        line = cuda.local.array(N_LINE, float64)
        total = 0.0
        for row in range(rows.em_start[shower], rows.em_start[shower + 1]):
            index, fraction = row_at(row, x, y, tel, where, em, grid, tables, line)
            if index >= 0:
                total += light(
                    rows.amount[row], rows.age_index[row], rows.age_fraction[row],
                    int(rows.span[row, 0]), int(rows.span[row, 1]), index, fraction, tables,
                    step[pair],
                )  # fmt: skip
        for m in range(rows.muon_start[shower], rows.muon_start[shower + 1]):
            total += muon_at(m, x, y, tel, where, muon, grid, optics)[MEAN]
        expected[event, tel] = total


@compiled
def _next_image(queue, ticket):
    """Return the number of an image that no block has taken yet, the same for all threads."""
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        ticket[0] = cuda.atomic.add(queue, 0, 1)
    cuda.syncthreads()
    return int(ticket[0])


@compiled
def _shared_light(
    shower, x, y, tel, telescopes, em, muon, rows, grid, tables, optics, own, n_em, n_muons, scratch
):
    """Fill the light of all cells of an image, not yet summed."""
    thread, n_threads = cuda.threadIdx.x, cuda.blockDim.x
    n_steps = grid.depth.shape[0]
    first_row, first_muon = rows.em_start[shower], rows.muon_start[shower]
    running = scratch.running[own]
    for r in range(thread, n_em // n_steps, n_threads):
        line = scratch.line[own, r]
        index, fraction = row_at(first_row + r, x, y, tel, telescopes, em, grid, tables, line)
        line[RADIUS_INDEX], line[RADIUS_FRACTION] = index, fraction
    for m in range(thread, n_muons, n_threads):
        found = muon_at(first_muon + m, x, y, tel, telescopes, muon, grid, optics)
        for k in range(N_MUON):
            scratch.muon[own, m, k] = found[k]
        running[n_em + m] = found[MEAN]
    cuda.syncthreads()
    for cell in range(thread, n_em, n_threads):
        r = cell // n_steps
        k = cell - r * n_steps
        row = first_row + r
        index = int(scratch.line[own, r, RADIUS_INDEX])
        if index >= 0 and rows.span[row, 0] <= k and k < rows.span[row, 1]:
            light(
                rows.amount[row], rows.age_index[row], rows.age_fraction[row], k, k + 1, index,
                scratch.line[own, r, RADIUS_FRACTION], tables, running[r * n_steps : n_em],
            )  # fmt: skip
        else:
            running[cell] = 0.0
    cuda.syncthreads()


@compiled
def _sum_up(running, n_cells, before):
    """Turn values into their running sum: each thread has a stretch of cells of its own.

    The sum up to the stretch of each thread is left in `before`. A cell without light has the same
    sum as the cell before it, to the last bit, so that nothing is ever drawn from it.
    """
    thread = cuda.threadIdx.x
    length = stretch_of(n_cells, cuda.blockDim.x)
    begin, end = min(thread * length, n_cells), min((thread + 1) * length, n_cells)
    total = 0.0
    for cell in range(begin, end):
        total += running[cell]
        running[cell] = total
    before[thread] = total
    cuda.syncthreads()
    total = 0.0
    for other in range(thread):
        total += before[other]
    cuda.syncthreads()
    for cell in range(begin, end):
        running[cell] = total + running[cell]
    before[thread] = total
    cuda.syncthreads()


@compiled
def _add(
    sky_lon, sky_lat, time, weight, number, j, image, tel, k0, k1, optics, camera, settings,
    scratch, own,
):  # fmt: skip
    """As `camera.deposit`, while other threads add to the same image."""
    a0, a1, a2, a3 = arrival_words(number, j, image, k0, k1)
    pixel = accepted_pixel(sky_lon, sky_lat, a0, a1, a2, tel, optics, camera)
    if pixel >= 0:
        charge = weight * avalanches(a3, settings.crosstalk)
        cuda.atomic.add(scratch.count, (own, pixel), weight)
        cuda.atomic.add(scratch.amplitude, (own, pixel), charge)
        cuda.atomic.add(scratch.moment, (own, pixel), charge * time)


@compiled
def _trigger(number, image, tel, k0, k1, camera, settings, scratch, own, shared):
    """Mark the pixels that trigger; return when they do, ns, inf for no trigger."""
    thread, n_threads = cuda.threadIdx.x, cuda.blockDim.x
    n_pixels = scratch.count.shape[1]
    for pixel in range(thread, n_pixels, n_threads):
        above = scratch.count[own, pixel] > 0.0
        if above:
            above = fires(pixel, number, image, tel, k0, k1, camera, settings, scratch, own)
        scratch.state[own, pixel] = FIRED if above else 0
    cuda.syncthreads()
    # Groups stay within a module.
    start = math.inf
    for module in range(thread, scratch.earliest.shape[1], n_threads):
        first = module * MODULE_PIXELS
        end = min(first + MODULE_PIXELS, n_pixels)
        fired, group = scratch.fired[own, first:end], scratch.group[own, first:end]
        n_fired = 0
        for pixel in range(first, end):
            if scratch.state[own, pixel] == FIRED:
                fired[n_fired] = pixel
                n_fired += 1
        time = find_groups(
            fired, n_fired, group, scratch.earliest[own, module], camera, settings, scratch, own
        )
        start = min(start, time)
    shared[thread] = start
    cuda.syncthreads()
    for other in range(n_threads):
        start = min(start, shared[other])
    return start


@compiled
def _finish(
    item, number, image, tel, k0, k1, forced, dark, camera, settings, scratch, own, shared, images
):
    """As `camera.finish_image`, by all threads of a block; output `item` of `images` is filled."""
    thread, n_threads = cuda.threadIdx.x, cuda.blockDim.x
    n_pixels = scratch.count.shape[1]
    cuda.syncthreads()
    start = 0.0
    if not forced:
        start = _trigger(number, image, tel, k0, k1, camera, settings, scratch, own, shared)
    triggered = start < math.inf
    if triggered:
        for pair in range(thread, (n_pixels + 1) // 2, n_threads):
            read_pair(
                pair, number, image, tel, k0, k1, start, dark, camera, settings, scratch, own,
                images.adc[item], images.true_image[item],
            )  # fmt: skip
        if not forced:
            for pixel in range(thread, n_pixels, n_threads):
                images.trigger_pixel[item, pixel] = scratch.state[own, pixel] == MEMBER
    cuda.syncthreads()
    total = 0.0
    for pixel in range(thread, n_pixels, n_threads):
        total += scratch.count[own, pixel]
        scratch.count[own, pixel] = 0.0
        scratch.amplitude[own, pixel] = 0.0
        scratch.moment[own, pixel] = 0.0
    shared[thread] = total
    cuda.syncthreads()
    if thread == 0:
        for other in range(1, n_threads):
            total += shared[other]
        images.triggered[item] = triggered
        images.trigger_time[item] = start if triggered else math.nan
        images.true_sum[item] = np.int64(math.floor(total + 0.5))


@cuda.jit
def run_images(
    request, place, telescopes, rows, grid, tables, optics, camera, settings, max_image_pe, k0, k1,
    queue, scratch, images,
):  # fmt: skip
    """Make images of showers, one block an image at a time.

    Parameters
    ----------
    request : (image, 5) int64: row of the shower, words (shower, image) of the counters, telescope,
        row of the output
    place : (image, 5): core x and y (m), slope of the primary, expected photo-electrons
    telescopes : (3, tel)
    rows : profiles are filled
    queue : (1,) int32, 0
    scratch, images : see `BlockScratch` and `Images`
    """
    thread, n_threads, own = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x
    shared = cuda.shared.array(MAX_THREADS, float64)
    ticket = cuda.shared.array(1, int32)
    where = Telescopes(telescopes[0], telescopes[1], telescopes[2])
    em, muon = em_rows(rows), muon_rows(rows)
    n_images, n_steps = request.shape[0], grid.depth.shape[0]
    running = scratch.running[own]
    i = _next_image(queue, ticket)
    while i < n_images:
        shower, number, image, tel = request[i, 0], request[i, 1], request[i, 2], request[i, 3]
        x, y = place[i, 0], place[i, 1]
        drawn, weight = count(place[i, 4], number, image, k0, k1, max_image_pe)
        n_em = (rows.em_start[shower + 1] - rows.em_start[shower]) * n_steps
        n_muons = rows.muon_start[shower + 1] - rows.muon_start[shower]
        n_cells = n_em + n_muons
        # Without cells there is nothing to draw from, whatever mean was asked for.
        if drawn > 0 and n_cells > 0:
            _shared_light(
                shower, x, y, tel, where, em, muon, rows, grid, tables, optics, own, n_em, n_muons,
                scratch,
            )  # fmt: skip
            _sum_up(running, n_cells, shared)
            total = running[n_cells - 1]
            first_row, last_row = rows.em_start[shower], rows.em_start[shower + 1]
            front = front_of(place[i, 2], place[i, 3])
            if total > 0.0:
                for j in range(thread, drawn, n_threads):
                    w0, w1, w2, w3 = photon_words(number, j, image, k0, k1)
                    cell = search(uniform(w0) * total, running, n_cells, shared, n_threads)
                    sky_lon, sky_lat, time, landed = emitted(
                        cell, w1, w2, w3, n_em, x, y, tel, where, front, muon,
                        rows.muon_start[shower], rows.age_index[first_row:last_row],
                        rows.age_fraction[first_row:last_row], scratch.line[own],
                        scratch.muon[own], grid, tables, optics,
                    )  # fmt: skip
                    if landed:
                        _add(
                            sky_lon, sky_lat, time, weight, number, j, image, tel, k0, k1, optics,
                            camera, settings, scratch, own,
                        )  # fmt: skip
        _finish(
            request[i, 4], number, image, tel, k0, k1, False, False, camera, settings, scratch, own,
            shared, images,
        )  # fmt: skip
        i = _next_image(queue, ticket)


@cuda.jit
def run_light(
    request, photon_start, photon, forced, optics, camera, settings, k0, k1, queue, scratch, images
):
    """Make images of light that is given photon by photon, one block an image at a time.

    Parameters
    ----------
    request : (image, 4) int64: words (shower, image), telescope, row of the output and of
        `photon_start`
    photon_start : (image + 1,)
    photon : (4, photon): direction lon and lat, time, weight
    """
    thread, n_threads, own = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x
    shared = cuda.shared.array(MAX_THREADS, float64)
    ticket = cuda.shared.array(1, int32)
    i = _next_image(queue, ticket)
    while i < request.shape[0]:
        number, image, tel, item = request[i, 0], request[i, 1], request[i, 2], request[i, 3]
        first = photon_start[item]
        for j in range(thread, photon_start[item + 1] - first, n_threads):
            p = first + j
            if photon[3, p] > 0.0:
                _add(
                    photon[0, p], photon[1, p], photon[2, p], photon[3, p], number, j, image, tel,
                    k0, k1, optics, camera, settings, scratch, own,
                )  # fmt: skip
        _finish(
            item, number, image, tel, k0, k1, forced, False, camera, settings, scratch, own, shared,
            images,
        )  # fmt: skip
        i = _next_image(queue, ticket)


@cuda.jit
def run_pixels(request, mean_pe, dark, camera, settings, k0, k1, queue, scratch, images):
    """Make images of flashes, one block an image at a time; `request` as for `run_light`."""
    thread, n_threads, own = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x
    shared = cuda.shared.array(MAX_THREADS, float64)
    ticket = cuda.shared.array(1, int32)
    i = _next_image(queue, ticket)
    while i < request.shape[0]:
        number, image, tel, item = request[i, 0], request[i, 1], request[i, 2], request[i, 3]
        for pixel in range(thread, mean_pe.shape[1], n_threads):
            flash_pixel(
                pixel, number, image, tel, k0, k1, mean_pe[item], camera, settings, scratch, own
            )
        _finish(
            item, number, image, tel, k0, k1, True, dark, camera, settings, scratch, own, shared,
            images,
        )  # fmt: skip
        i = _next_image(queue, ticket)
