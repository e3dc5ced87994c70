"""The point spread function as Gaussians: containments of the table, and what Gammapy reads."""

from dataclasses import replace

import numpy as np
import pytest

from astri_gpu.responses.gaussians import fit_psf
from astri_gpu.responses.normalise import to_irf
from astri_gpu.responses.regroup import regroup
from astri_gpu.selection.sample import solid_angle
from tests.drawn_events import SIGMA_DEG


@pytest.fixture(scope="module")
def irf(counts, binning):
    return to_irf(regroup(counts, binning))


@pytest.fixture(scope="module")
def fit(irf):
    return fit_psf(irf)


def table_containment(irf):
    """Return the share of events within the upper end of each ring, (E, T, O)."""
    ring = solid_angle(irf.edges.rad[:-1], irf.edges.rad[1:])
    return np.cumsum(irf.psf * ring[None, :, None], axis=1)


def test_containment_is_that_of_the_table(irf, fit):
    """Within the error of a share of so many events, at the radii of 68 and 95 %."""
    table = table_containment(irf)
    for share in (0.68, 0.95):
        for place in np.argwhere(irf.n_events > 150):
            energy, offset = place
            ring = int(np.searchsorted(table[energy, :, offset], share))
            known = table[energy, ring, offset]
            found = fit.containment(irf.edges.rad[ring + 1])[energy, offset]
            error = np.sqrt(known * (1 - known) / irf.n_events[energy, offset])
            assert abs(found - known) < 4 * error + 0.003


def test_drawn_gaussian_comes_back(irf, fit):
    """One Gaussian was drawn: 68.27 % of events within 1.5150 of its widths."""
    many = irf.n_events > 100
    assert many.sum() > 10
    found = fit.containment(1.5152 * SIGMA_DEG)[many]
    error = np.sqrt(0.68 * 0.32 / irf.n_events[many])
    assert np.abs((found - 0.6827) / error).max() < 4
    assert abs(np.mean((found - 0.6827) / error)) < 0.6


def test_scale_is_normalised(irf, fit):
    radius = np.linspace(0, 3, 6001)[:, None, None]
    density = sum(
        ampl * np.exp(-(radius**2) / (2 * sigma**2))
        for ampl, sigma in (
            (1, fit.sigma_1),
            (fit.ampl_2, fit.sigma_2),
            (fit.ampl_3, fit.sigma_3),
        )
    )
    inside = np.trapezoid(fit.scale / np.pi * density * 2 * np.pi * radius, radius, axis=0)
    there = irf.n_events > 0
    np.testing.assert_allclose(inside[there] * np.deg2rad(1) ** 2, 1, rtol=1e-4)


def test_cells_without_gammas_have_scale_0_and_the_shape_of_a_neighbour(irf, fit):
    empty = irf.n_events == 0
    assert empty.any()
    assert not fit.scale[empty].any()
    assert np.isnan(fit.containment(0.1)[empty]).all()
    filled = replace(fit, scale=np.ones_like(fit.scale)).containment(SIGMA_DEG)
    assert (np.abs(filled[empty] - 0.393) < 0.15).all()  # 1 - exp(-1/2)


def test_few_events_borrow_from_neighbours(irf):
    """A single event far out does not make a point spread function."""
    few = irf.psf.copy()
    cell = np.argwhere(irf.n_events > 150)[0]
    few[cell[0], :, cell[1]] = 0.0
    ring = solid_angle(irf.edges.rad[:-1], irf.edges.rad[1:])
    few[cell[0], 40, cell[1]] = 1 / ring[40]
    n_events = irf.n_events.copy()
    n_events[tuple(cell)] = 1.0
    found = fit_psf(replace(irf, psf=few, n_events=n_events))
    assert found.containment(2 * SIGMA_DEG)[tuple(cell)] > 0.7


def test_nothing_selected_gives_zeros(irf):
    found = fit_psf(replace(irf, psf=0 * irf.psf, n_events=0 * irf.n_events))
    assert not found.scale.any()


def test_gammapy_reads_the_same_containment(irf, fit, tmp_path):
    u = pytest.importorskip("astropy.units")
    psf_class = pytest.importorskip("gammapy.irf").EnergyDependentMultiGaussPSF
    from astri_gpu.responses.gadf_write import write_irf

    write_irf(tmp_path / "irf.fits", irf, psf="gauss")
    theirs = psf_class.read(tmp_path / "irf.fits", hdu="POINT SPREAD FUNCTION")
    middle = (theirs.axes["energy_true"].center, theirs.axes["offset"].center)
    found = theirs.containment(
        rad=0.1 * u.deg, energy_true=middle[0][:, None], offset=middle[1][None, :]
    )
    there = irf.n_events > 0
    ours = fit.containment(0.1)
    np.testing.assert_allclose(np.asarray(found)[there], ours[there], atol=2e-4)


def test_widths_are_those_of_the_energy(irf, fit):
    """Readers interpolate between offsets: between Gaussians of the same widths only."""
    for sigma in (fit.sigma_1, fit.sigma_2, fit.sigma_3):
        np.testing.assert_allclose(sigma, np.broadcast_to(sigma[:, 2:3], sigma.shape), rtol=1e-12)


def test_between_offsets_gammapy_finds_the_width_of_both(irf, fit, tmp_path):
    u = pytest.importorskip("astropy.units")
    psf_class = pytest.importorskip("gammapy.irf").EnergyDependentMultiGaussPSF
    from astri_gpu.responses.gadf_write import write_irf

    write_irf(tmp_path / "irf.fits", irf, psf="gauss")
    theirs = psf_class.read(tmp_path / "irf.fits", hdu="POINT SPREAD FUNCTION")
    energy = theirs.axes["energy_true"].center[2:6]
    found = theirs.containment(
        rad=1.5152 * SIGMA_DEG * u.deg, energy_true=energy[:, None], offset=[1, 2, 3] * u.deg
    )
    np.testing.assert_allclose(np.asarray(found), 0.6827, atol=0.08)
