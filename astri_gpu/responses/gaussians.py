"""The point spread function as a sum of three Gaussians, as GADF's PSF_3GAUSS has it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.gaussians import fit_radial_gaussians, fit_shares
from astri_gpu.responses.irf import Irf
from astri_gpu.selection.sample import solid_angle

__all__ = ["PsfGauss", "fit_psf"]

Floats = NDArray[np.float64]

N_STEPS = 200
N_SMOOTHED = 2  # times that widths are averaged with those of neighbouring energies
ENOUGH_FOR_WIDTHS = 1000  # events, of all offsets
CELLS = 1024  # fitted at a time
ENOUGH = 200  # events; with fewer, those of neighbours help
# Neighbours in bins of energy and offset, each step with the ones before it.
WINDOWS = ((0, 1), (1, 1), (2, 1), (2, 2), (4, 2), (6, 4), (10, 10))
FAINTEST = 1e-6  # share of the first Gaussian, to which the others are relative


@dataclass(frozen=True)
class PsfGauss:
    """dP/dOmega = scale / pi (e^(-r^2/2 s1^2) + ampl_2 e^(-r^2/2 s2^2) + ampl_3 e^(-r^2/2 s3^2)).

    Attributes
    ----------
    scale
        sr-1, (E, O); 0 where no gamma was selected.
    sigma_1, sigma_2, sigma_3
        deg, (E, O), rising; the same for all offsets.
    ampl_2, ampl_3
        (E, O). Where `scale` is 0 shape and widths are those of the nearest cell with gammas, as
        readers interpolate between cells.
    """

    scale: Floats
    sigma_1: Floats
    ampl_2: Floats
    sigma_2: Floats
    ampl_3: Floats
    sigma_3: Floats

    def containment(self, radius_deg: Floats | float) -> Floats:
        """Return the share of events within a radius (deg), (E, O); NaN where there are none."""
        radius = np.asarray(radius_deg, dtype=np.float64)
        inside = whole = np.zeros_like(self.scale)
        for ampl, sigma in (
            (np.ones_like(self.scale), self.sigma_1),
            (self.ampl_2, self.sigma_2),
            (self.ampl_3, self.sigma_3),
        ):
            norm = ampl * sigma**2
            whole = whole + norm
            inside = inside - norm * np.expm1(-(radius**2) / (2 * sigma**2))
        return np.where(self.scale > 0, inside / np.where(whole > 0, whole, 1.0), np.nan)


def fit_psf(irf: Irf) -> PsfGauss:
    """Return the Gaussians that fit the point spread function of each energy and offset.

    Readers interpolate every parameter by itself between cells, which makes sense only between
    Gaussians of the same widths. So the three widths are fitted to all offsets of an energy
    together and made smooth in energy; the shares of the three are fitted in every cell. Cells with
    fewer than 200 gammas borrow from their neighbours, nearest first, as many as are missing.
    Events beyond the last bin of the distance are left out.

    Parameters
    ----------
    irf
        `psf` and `n_events` are used.

    Returns
    -------
    PsfGauss
        Normalised to 1 over all distances.
    """
    ring = solid_angle(irf.edges.rad[:-1], irf.edges.rad[1:])
    events = np.swapaxes(irf.psf, 1, 2) * ring * irf.n_events[:, :, None]
    there = events.sum(axis=2) > 0
    if not there.any():
        return PsfGauss(*np.zeros((6, *there.shape)))
    sigma = np.broadcast_to(_widths(events, irf.edges.rad), (*there.shape, 3))
    share = _shares(_borrowed(events, ENOUGH)[there], irf.edges.rad, sigma[there])
    density = share[_nearest(there)] / sigma**2
    density /= np.sum(density * sigma**2, axis=2, keepdims=True)
    return PsfGauss(
        scale=np.where(there, density[:, :, 0] / (2 * np.deg2rad(1.0) ** 2), 0.0),
        sigma_1=sigma[:, :, 0],
        ampl_2=density[:, :, 1] / density[:, :, 0],
        sigma_2=sigma[:, :, 1],
        ampl_3=density[:, :, 2] / density[:, :, 0],
        sigma_3=sigma[:, :, 2],
    )


def _widths(events: Floats, edges: Floats) -> Floats:
    """Return three widths (E, 1, gaussian) for all offsets of an energy, smooth in energy."""
    of_energy = _borrowed(events.sum(axis=1, keepdims=True), ENOUGH_FOR_WIDTHS)[:, 0]
    there = of_energy.sum(axis=1) > 0
    fit = fit_radial_gaussians(of_energy[there], edges, n_steps=N_STEPS)
    logs = np.log(fit.sigma)
    for _ in range(N_SMOOTHED):
        ends = np.pad(logs, ((1, 1), (0, 0)), mode="edge")
        logs = (ends[:-2] + 2 * logs + ends[2:]) / 4
    return np.exp(logs)[_nearest(there)][:, None, :]


def _shares(events: Floats, edges: Floats, sigma: Floats) -> Floats:
    """Return shares (cell, gaussian), some cells at a time for the sake of memory."""
    share = np.empty_like(sigma)
    for start in range(0, len(events), CELLS):
        part = slice(start, start + CELLS)
        share[part] = fit_shares(events[part], edges, sigma[part], n_steps=N_STEPS)
    return np.maximum(share, [FAINTEST, 0.0, 0.0])


def _borrowed(events: Floats, enough: float) -> Floats:
    """Return events (E, O, T) of each cell, with those of its neighbours where it has few."""
    found, seen = events.copy(), events
    for window in WINDOWS:
        wider = _window_sum(events, window)
        more = wider - seen
        there = more.sum(axis=2)
        missing = np.clip(enough - found.sum(axis=2), 0.0, None)
        taken = np.where(there > 0, np.minimum(1.0, missing / np.where(there > 0, there, 1.0)), 0.0)
        found += taken[:, :, None] * more
        seen = wider
    return np.maximum(found, 0.0)


def _window_sum(events: Floats, reach: tuple[int, int]) -> Floats:
    """Return sums over neighbours within `reach` bins of energy and offset."""
    for axis, n in enumerate(reach):
        padding = [(0, 0)] * events.ndim
        padding[axis] = (n + 1, n)
        total = np.cumsum(np.pad(events, padding), axis=axis)
        length = events.shape[axis]
        after = np.take(total, np.arange(2 * n + 1, 2 * n + 1 + length), axis=axis)
        events = after - np.take(total, np.arange(length), axis=axis)
    return events


def _nearest(there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each cell, on one axis or two, which of those that are there is the nearest."""
    from scipy.ndimage import distance_transform_edt

    place = distance_transform_edt(~there, return_distances=False, return_indices=True)
    number = np.cumsum(there).reshape(there.shape) - 1
    return np.asarray(number[tuple(place)])
