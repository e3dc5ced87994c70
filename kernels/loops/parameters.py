"""Loop text of the image parameters: one pass over the survivors for each order of moment.

Every number is defined by the array text (`moments`, `parameters`, `timing`, `astri`); the order of
the output follows `image_types.COLUMNS`.
"""

import math

import numpy as np

from ..image_types import (
    COLUMNS,
)
from ..islands import MEDIUM_ISLAND, SMALL_ISLAND
from ..moments import NO_VARIANCE, VERTICAL
from ._compile import compiled
from .cleaning import CORE
from .timing import fit_timing

__all__ = ["N_VALUES", "write_missing", "write_parameters"]

# Rows of the work space `values`.
LON, LAT, CHARGE, ALONG, ACROSS, TIME, RESIDUAL, ORDERED = range(8)
N_VALUES = 8

HILLAS = COLUMNS.index("hillas_intensity")
LEAKAGE = COLUMNS.index("leakage_pixels_width_1")
CONCENTRATION = COLUMNS.index("concentration_cog")
MORPHOLOGY = COLUMNS.index("morphology_n_pixels")
INTENSITY = COLUMNS.index("intensity_max")
TIMING = COLUMNS.index("timing_slope")
PEAK_TIME = COLUMNS.index("peak_time_max")
ASTRI = COLUMNS.index("astri_conc")
ASTRI_NUM_ISLAND = COLUMNS.index("astri_num_island")
ASTRI_NUM_CORE = COLUMNS.index("astri_num_core")
N_SATURATED = COLUMNS.index("n_saturated_pixels")
DEGREE = 180 / math.pi


@compiled
def write_missing(row):
    """Fill the row of an image without parameters: NaN, and -1 for counts."""
    for k in range(row.shape[0]):
        row[k] = math.nan
    for k in range(MORPHOLOGY, INTENSITY):
        row[k] = -1
    row[ASTRI_NUM_ISLAND] = -1
    row[ASTRI_NUM_CORE] = -1
    row[ASTRI_NUM_CORE + 1] = -1
    row[N_SATURATED] = -1


@compiled
def _ratio(numerator, denominator):
    return numerator / denominator if denominator != 0 else math.nan


@compiled
def _write_statistics(row, start, values, n):
    """Write maximum, minimum, mean, std, skewness and kurtosis of the first n values."""
    highest, lowest, total = values[0], values[0], 0.0
    for i in range(n):
        highest = max(highest, values[i])
        lowest = min(lowest, values[i])
        total += values[i]
    mean = total / n
    m_2, m_3, m_4 = 0.0, 0.0, 0.0
    for i in range(n):
        centred = values[i] - mean
        square = centred * centred
        m_2 += square
        m_3 += square * centred
        m_4 += square * square
    std = math.sqrt(m_2 / n)
    row[start] = highest
    row[start + 1] = lowest
    row[start + 2] = mean
    row[start + 3] = std
    row[start + 4] = _ratio(m_3 / n, std * std * std)
    row[start + 5] = _ratio(m_4 / n, std * std * std * std) - 3


@compiled
def _write_hillas(row, values, pixels, n, camera):
    """Write the Hillas columns; leave the coordinates along and across the axis in `values`.

    Returns
    -------
    intensity, cog_lon, cog_lat, length, width, psi (rad), cos_psi, sin_psi, third moment along
    """
    intensity, cog_lon, cog_lat = 0.0, 0.0, 0.0
    for i in range(n):
        charge = values[CHARGE, i]
        intensity += charge
        cog_lon += charge * values[LON, i]
        cog_lat += charge * values[LAT, i]
    cog_lon /= intensity
    cog_lat /= intensity
    var_lon, var_lat, covariance = 0.0, 0.0, 0.0
    for i in range(n):
        d_lon, d_lat = values[LON, i] - cog_lon, values[LAT, i] - cog_lat
        var_lon += values[CHARGE, i] * d_lon * d_lon
        var_lat += values[CHARGE, i] * d_lat * d_lat
        covariance += values[CHARGE, i] * d_lon * d_lat
    var_lon /= intensity
    var_lat /= intensity
    covariance /= intensity

    psi = 0.5 * math.atan2(2 * covariance, var_lon - var_lat)
    if psi < VERTICAL - math.pi / 2:
        psi += math.pi
    cos_psi, sin_psi = math.cos(psi), math.sin(psi)
    along_share, across_share, sin_2psi = cos_psi**2, sin_psi**2, 2 * cos_psi * sin_psi
    l_2, l_3, l_4, t_2 = 0.0, 0.0, 0.0, 0.0
    s_0, s_l, s_ll, s_t, s_lt = 0.0, 0.0, 0.0, 0.0, 0.0
    long_error, trans_error = 0.0, 0.0
    for i in range(n):
        charge = values[CHARGE, i]
        d_lon, d_lat = values[LON, i] - cog_lon, values[LAT, i] - cog_lat
        along = d_lon * cos_psi + d_lat * sin_psi
        across = d_lat * cos_psi - d_lon * sin_psi
        values[ALONG, i] = along
        values[ACROSS, i] = across
        square = along * along
        l_2 += charge * square
        l_3 += charge * square * along
        l_4 += charge * square * square
        t_2 += charge * across * across
        density = charge / camera.pixel_area[pixels[i]]
        s_0 += density
        s_l += density * along
        s_ll += density * square
        s_t += density * across
        s_lt += density * along * across
        excess_lon = d_lon * d_lon - var_lon
        excess_lat = d_lat * d_lat - var_lat
        excess_mix = d_lon * d_lat - covariance
        long_term = along_share * excess_lon + across_share * excess_lat + sin_2psi * excess_mix
        trans_term = across_share * excess_lon + along_share * excess_lat - sin_2psi * excess_mix
        long_error += charge * long_term * long_term
        trans_error += charge * trans_term * trans_term
    l_2 /= intensity
    t_2 /= intensity
    length = 0.0 if l_2 < NO_VARIANCE else math.sqrt(l_2)
    width = 0.0 if t_2 < NO_VARIANCE else math.sqrt(t_2)

    row[HILLAS] = intensity
    row[HILLAS + 3] = cog_lon
    row[HILLAS + 4] = cog_lat
    row[HILLAS + 5] = math.sqrt(cog_lon**2 + cog_lat**2)
    row[HILLAS + 6] = math.atan2(cog_lat, cog_lon) * DEGREE
    row[HILLAS + 7] = length
    row[HILLAS + 9] = width
    if length > 0:
        determinant = s_0 * s_ll - s_l * s_l
        slope = _ratio(s_0 * s_lt - s_l * s_t, determinant)
        tangent = math.tan(width / length * (math.pi / 2))
        psi_error = math.sqrt(_ratio(s_0, determinant) + slope * slope) * (1 + tangent * tangent)
        sine = math.sin(slope)
        row[HILLAS + 1] = l_3 / intensity / (length * length * length)
        row[HILLAS + 2] = l_4 / intensity / (length * length * length * length)
        row[HILLAS + 8] = math.sqrt(long_error) / intensity / (2 * length)
        row[HILLAS + 11] = psi * DEGREE
        row[HILLAS + 12] = psi_error * DEGREE
        row[HILLAS + 13] = math.sqrt(_ratio(s_ll, determinant) * (1 + sine * sine))
        if width > 0:
            row[HILLAS + 10] = math.sqrt(trans_error) / intensity / (2 * width)
    return intensity, cog_lon, cog_lat, length, width, psi, cos_psi, sin_psi, l_3 / intensity


@compiled
def _write_shares(row, values, pixels, n, camera, intensity, cog_lon, cog_lat, length, width):
    """Write leakage and concentration."""
    n_1, n_2, charge_1, charge_2 = 0, 0, 0.0, 0.0
    near_cog, within, highest = 0.0, 0.0, 0.0
    has_ellipse = length > 0 and width > 0
    for i in range(n):
        pixel, charge = pixels[i], values[CHARGE, i]
        if camera.border_1[pixel]:
            n_1 += 1
            charge_1 += charge
        if camera.border_2[pixel]:
            n_2 += 1
            charge_2 += charge
        d_lon, d_lat = values[LON, i] - cog_lon, values[LAT, i] - cog_lat
        pixel_width = camera.pixel_width[pixel]
        if d_lon * d_lon + d_lat * d_lat < pixel_width * pixel_width:
            near_cog += charge
        if has_ellipse:
            along, across = values[ALONG, i] / length, values[ACROSS, i] / width
            if along * along + across * across <= 1:
                within += charge
        highest = max(highest, charge)
    row[LEAKAGE] = n_1 / n
    row[LEAKAGE + 1] = n_2 / n
    row[LEAKAGE + 2] = charge_1 / intensity
    row[LEAKAGE + 3] = charge_2 / intensity
    row[CONCENTRATION] = near_cog / intensity
    row[CONCENTRATION + 1] = within / intensity
    row[CONCENTRATION + 2] = highest / intensity


@compiled
def _write_islands(row, island, n_islands, n):
    """Write the numbers of islands; return the charge of the brightest."""
    n_small, n_medium, n_large, brightest = 0, 0, 0, island[1, 1]
    for k in range(1, n_islands + 1):
        size = island[k, 0]
        if size <= SMALL_ISLAND:
            n_small += 1
        elif size <= MEDIUM_ISLAND:
            n_medium += 1
        else:
            n_large += 1
        brightest = max(brightest, island[k, 1])
    row[MORPHOLOGY] = n
    row[MORPHOLOGY + 1] = n_islands
    row[MORPHOLOGY + 2] = n_small
    row[MORPHOLOGY + 3] = n_medium
    row[MORPHOLOGY + 4] = n_large
    return brightest


@compiled
def _write_astri(row, values, pixels, n, state, settings, intensity, cog_lon, cog_lat, length, psi,
                 axis_lon, axis_lat, third, main_charge, n_islands):  # fmt: skip
    """Write the ASTRI parameters."""
    brightest, highest, second, n_core = 0, -1.0, 0.0, 0
    for i in range(n):
        charge = values[CHARGE, i]
        if charge > highest:
            second = max(highest, 0.0)
            highest = charge
            brightest = i
        elif charge > second:
            second = charge
        if state[pixels[i]] & CORE:
            n_core += 1
    d_lon, d_lat = values[LON, brightest] - cog_lon, values[LAT, brightest] - cog_lat
    row[ASTRI] = (highest + second) / intensity
    row[ASTRI + 2] = math.sqrt(d_lon**2 + d_lat**2)
    row[ASTRI + 4] = row[LEAKAGE + 2]
    s_lon, s_lat = cog_lon - settings.source_fov_lon, cog_lat - settings.source_fov_lat
    dist = math.sqrt(s_lon**2 + s_lat**2)
    row[ASTRI + 6] = dist
    if length > 0:
        miss = axis_lon * s_lat - axis_lat * s_lon
        row[ASTRI + 1] = values[ALONG, brightest]
        row[ASTRI + 3] = math.copysign(abs(third) ** (1 / 3), third)
        row[ASTRI + 5] = psi
        row[ASTRI + 7] = miss
        if dist > 0:
            row[ASTRI + 8] = math.asin(max(-1.0, min(1.0, miss / dist))) * DEGREE
            row[ASTRI + 9] = (axis_lon * s_lon + axis_lat * s_lat) / dist
    row[ASTRI + 10] = n_islands
    row[ASTRI + 11] = main_charge
    row[ASTRI + 12] = n_core
    row[ASTRI + 13] = n - n_core


@compiled
def write_parameters(
    row, pixels, n, charge, peak_time, has_time, camera, settings, state, island, n_islands, values
):
    """Write all parameters of one image but the flags and the saturated pixels.

    Parameters
    ----------
    row : (column,), holds what `write_missing` wrote
    pixels, n : the surviving pixels, ascending
    charge, peak_time, state : (pixel,)
    island, n_islands : see `cleaning.label_islands`
    values : (N_VALUES, pixel), work space
    """
    for i in range(n):
        pixel = pixels[i]
        values[LON, i] = camera.fov_lon[pixel]
        values[LAT, i] = camera.fov_lat[pixel]
        values[CHARGE, i] = charge[pixel]
        values[TIME, i] = peak_time[pixel]
    intensity, cog_lon, cog_lat, length, width, psi, cos_psi, sin_psi, third = _write_hillas(
        row, values, pixels, n, camera
    )
    _write_shares(row, values, pixels, n, camera, intensity, cog_lon, cog_lat, length, width)
    main_charge = _write_islands(row, island, n_islands, n)
    _write_statistics(row, INTENSITY, values[CHARGE], n)
    if has_time:
        if length > 0:
            slope, intercept, deviation = fit_timing(
                values[ALONG], values[TIME], n, settings, values[RESIDUAL], values[ORDERED]
            )
            row[TIMING] = np.float32(slope)
            row[TIMING + 1] = np.float32(intercept)
            row[TIMING + 2] = np.float32(deviation)
        _write_statistics(row, PEAK_TIME, values[TIME], n)
    _write_astri(
        row, values, pixels, n, state, settings, intensity, cog_lon, cog_lat, length, psi,
        cos_psi, sin_psi, third, main_charge, n_islands,
    )  # fmt: skip
