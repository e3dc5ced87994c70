"""Loop text of the cleaning: from candidate pixels to survivors and their islands.

Pixels carry their marks in `state`, which is zero for every pixel that is not a candidate; what a
function marks is cleared again by `clear`. Neighbours have to be mutual. Same results as
`astri_gpu.kernels.cleaning`.
"""

import numpy as np

from ._compile import compiled

__all__ = ["clean", "clear", "keep_one_island", "label_islands"]

PICTURE, BOUNDARY, CORE, MASK, SECOND, NEW, WAITING, LISTED = 1, 2, 4, 8, 16, 32, 64, 128
ALL = 255
TAILCUTS, MARS, NSB, TIME_CONSTRAINED = range(4)


@compiled
def _count(state, neighbours, pixel, bit):
    """Count the neighbours of a pixel that carry a mark.

    A missing neighbour, -1, is the last entry of `state`, which never carries one.
    """
    n = 0
    for k in range(neighbours.shape[1]):
        n += (state[neighbours[pixel, k]] & bit) != 0
    return n


@compiled
def clear(state, listed, n_listed):
    """Remove all marks of the listed pixels."""
    for i in range(n_listed):
        state[listed[i]] = 0


@compiled
def _mark_thresholds(
    state, listed, n_listed, charge, channel, table, calibration, settings, bright
):
    """Mark PICTURE, BOUNDARY and SECOND; list the `bright` PICTURE pixels and return how many."""
    n_bright = 0
    for i in range(n_listed):
        pixel = listed[i]
        picture = settings.picture_pe
        if settings.cleaning == NSB:
            width = calibration.pedestal_std[table, channel[pixel], pixel]
            picture = max(picture, float(np.float32(settings.pedestal_factor) * width))
        marks = LISTED
        if charge[pixel] >= picture:
            marks |= PICTURE
        if charge[pixel] >= settings.boundary_pe:
            marks |= BOUNDARY
        if charge[pixel] >= settings.second_boundary_pe:
            marks |= SECOND
        state[pixel] = marks
        bright[n_bright] = pixel
        n_bright += marks & PICTURE
    return n_bright


@compiled
def _mark_tailcuts(state, listed, n_listed, bright, n_bright, neighbours, settings):
    """Mark CORE and MASK by two thresholds, then by a third if asked for."""
    needed = 0 if settings.keep_isolated else settings.min_picture_neighbours
    n_core = 0
    for i in range(n_bright):
        pixel = bright[i]
        core = needed == 0 or _count(state, neighbours, pixel, PICTURE) >= needed
        state[pixel] |= CORE * core
        bright[n_core] = pixel
        n_core += core
    for i in range(n_core):
        pixel = bright[i]
        beside = 0
        for k in range(neighbours.shape[1]):
            other = neighbours[pixel, k]
            boundary = state[other] & BOUNDARY
            state[other] |= boundary * (MASK // BOUNDARY)
            beside |= boundary
        if beside or settings.keep_isolated:
            state[pixel] |= MASK
        else:
            state[pixel] &= ALL - CORE
    if settings.cleaning == MARS:
        _add_row(state, listed, n_listed, neighbours, SECOND)


@compiled
def _add_row(state, listed, n_listed, neighbours, needed):
    """Add to the mask all neighbours that carry the `needed` mark; 0: any neighbour.

    Returns
    -------
    The number of listed pixels, which grows by neighbours that were not listed.
    """
    n = n_listed
    for i in range(n_listed):
        if not state[listed[i]] & MASK:
            continue
        for k in range(neighbours.shape[1]):
            other = neighbours[listed[i], k]
            if other < 0 or state[other] & (MASK | NEW) or state[other] & needed != needed:
                continue
            if not state[other] & LISTED:
                listed[n] = other
                n += 1
            state[other] |= NEW | LISTED  # NEW until the whole row is known
    for i in range(n):
        if state[listed[i]] & NEW:
            state[listed[i]] ^= NEW | MASK
    return n


@compiled
def _close_neighbours(state, neighbours, pixel, bit, peak_time, limit_ns):
    n = 0
    for k in range(neighbours.shape[1]):
        other = neighbours[pixel, k]
        if state[other] & bit and abs(peak_time[other] - peak_time[pixel]) < limit_ns:
            n += 1
    return n


@compiled
def _mark_time_constrained(
    state, listed, n_listed, charge, peak_time, neighbours, settings, stack, label, island
):
    """Mark CORE and MASK by thresholds and times, after MAGIC."""
    needed = settings.min_picture_neighbours
    for i in range(n_listed):
        pixel = listed[i]
        if state[pixel] & PICTURE and _count(state, neighbours, pixel, PICTURE) >= needed:
            state[pixel] |= CORE
    n_islands = label_islands(
        state, listed, n_listed, CORE, charge, neighbours, stack, label, island
    )
    main = 1
    for k in range(2, n_islands + 1):
        if island[k, 1] > island[main, 1]:
            main = k
    total, moment = 0.0, 0.0
    for i in range(n_listed):
        pixel = listed[i]
        if state[pixel] & CORE and label[pixel] == main:
            weight = float(charge[pixel]) * float(charge[pixel])
            total += weight
            moment += weight * peak_time[pixel]
    mean = moment / total if total > 0 else 0.0
    for i in range(n_listed):
        pixel = listed[i]
        if state[pixel] & CORE:
            limit = settings.time_limit_core_ns
            if charge[pixel] >= 2 * settings.picture_pe:
                limit *= 2
            if not abs(peak_time[pixel] - mean) < limit:
                state[pixel] &= ALL - CORE
    for i in range(n_listed):
        pixel = listed[i]
        marks = state[pixel]
        if marks & CORE:
            state[pixel] |= MASK
        elif marks & BOUNDARY and _count(state, neighbours, pixel, CORE) > 0:
            close = _close_neighbours(
                state, neighbours, pixel, CORE, peak_time, settings.time_limit_boundary_ns
            )
            if close >= needed:
                state[pixel] |= MASK


@compiled
def _sort_survivors(state, listed, n_listed, survivors):
    """Write the pixels of the mask in ascending order; return how many."""
    n = 0
    for i in range(n_listed):
        pixel = listed[i]
        if state[pixel] & MASK:
            j = n
            while j > 0 and survivors[j - 1] > pixel:
                survivors[j] = survivors[j - 1]
                j -= 1
            survivors[j] = pixel
            n += 1
    return n


@compiled
def clean(
    listed, n_listed, charge, peak_time, channel, table, calibration, neighbours, settings,
    state, stack, label, island, survivors,
):  # fmt: skip
    """Mark the surviving pixels of an image and list them in ascending order.

    Returns
    -------
    n_listed, n_survivors
        `listed` grows when the mask is dilated; all listed pixels carry marks in `state`.
    """
    n_bright = _mark_thresholds(
        state, listed, n_listed, charge, channel, table, calibration, settings, stack
    )
    if settings.cleaning == TIME_CONSTRAINED:
        _mark_time_constrained(
            state, listed, n_listed, charge, peak_time, neighbours, settings, stack, label, island
        )
    else:
        _mark_tailcuts(state, listed, n_listed, stack, n_bright, neighbours, settings)
    if settings.min_core_pixels > 0:
        n_core = 0
        for i in range(n_listed):
            if state[listed[i]] & CORE:
                n_core += 1
        if n_core < settings.min_core_pixels:
            return n_listed, 0
    if settings.time_limit_ns > 0:
        for i in range(n_listed):
            pixel = listed[i]
            if state[pixel] & MASK:
                close = _close_neighbours(
                    state, neighbours, pixel, MASK, peak_time, settings.time_limit_ns
                )
                if close >= settings.time_min_neighbours:
                    state[pixel] |= NEW
        for i in range(n_listed):
            pixel = listed[i]
            if state[pixel] & NEW:
                state[pixel] ^= NEW
            else:
                state[pixel] &= ALL - MASK
    for _ in range(settings.dilate_rows):
        n_listed = _add_row(state, listed, n_listed, neighbours, 0)
    return n_listed, _sort_survivors(state, listed, n_listed, survivors)


@compiled
def label_islands(state, pixels, n_pixels, bit, charge, neighbours, stack, label, island):
    """Number the islands of pixels with a mark from 1, by their lowest pixel; return how many.

    Parameters
    ----------
    pixels, n_pixels : pixels to look at, ascending
    label : (pixel,), filled for pixels with the mark
    island : (pixel, 2), filled from row 1 with the number of pixels and the charge of each island
    """
    for i in range(n_pixels):
        if state[pixels[i]] & bit:
            state[pixels[i]] |= WAITING
    n_islands = 0
    for i in range(n_pixels):
        if not state[pixels[i]] & WAITING:
            continue
        n_islands += 1
        size, brightness = 0, 0.0
        stack[0] = pixels[i]
        state[pixels[i]] &= ALL - WAITING
        depth = 1
        while depth > 0:
            depth -= 1
            pixel = stack[depth]
            label[pixel] = n_islands
            size += 1
            brightness += charge[pixel]
            for k in range(neighbours.shape[1]):  # without a branch, as in `_list_above`
                other = neighbours[pixel, k]
                stack[depth] = other
                depth += (state[other] & WAITING) != 0
                state[other] &= ALL - WAITING
        # An image has at most as many islands as pixels; row 0 is not used.
        island[n_islands, 0] = size
        island[n_islands, 1] = brightness
    return n_islands


@compiled
def keep_one_island(survivors, n_survivors, label, kept, state):
    """Drop all survivors but those of one island; return how many are left."""
    n = 0
    for i in range(n_survivors):
        pixel = survivors[i]
        if label[pixel] == kept:
            survivors[n] = pixel
            n += 1
        else:
            state[pixel] &= ALL - MASK
    return n
