"""Sums of selected events: cell by cell those of pyirf, and what happens at their ends."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.config_response import FluxConfig
from astri_gpu.errors import AstriError
from astri_gpu.kernels.bootstrap import replica_histograms
from astri_gpu.kernels.coordinates import altaz_to_telescope
from astri_gpu.responses.counting import _place, _sums, count
from astri_gpu.responses.edges import coarse_edges, fine_edges
from astri_gpu.responses.normalise import to_irf
from astri_gpu.responses.regroup import regroup
from astri_gpu.selection.events import read_sample
from astri_gpu.selection.sample import Sample
from astri_gpu.selection.weights import rates
from tests.drawn_events import SCATTER_M, acceptance, drawn_store

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # pyirf's 0 / 0


def table(events, **more):
    """Return events as the tables of pyirf."""
    import astropy.units as u
    from astropy.table import QTable

    columns = events.columns
    return QTable(
        {
            "true_energy": columns["true_energy"] * u.TeV,
            "reco_energy": columns["reco_energy"] * u.TeV,
            "theta": columns["theta"] * u.deg,
            "true_source_fov_offset": columns["true_offset"] * u.deg,
            "reco_source_fov_offset": columns["reco_offset"] * u.deg,
            **more,
        }
    )


def thrown_info(table):
    """Return the run header of a table as pyirf has it."""
    import astropy.units as u
    from pyirf.simulations import SimulatedEventsInfo

    (thrown,) = table.thrown
    return SimulatedEventsInfo(
        n_showers=int(thrown.n_showers),
        energy_min=thrown.energy_min_tev * u.TeV,
        energy_max=thrown.energy_max_tev * u.TeV,
        max_impact=thrown.max_impact_m * u.m,
        spectral_index=thrown.spectral_index,
        viewcone_min=thrown.cone_min_deg * u.deg,
        viewcone_max=thrown.cone_max_deg * u.deg,
    )


def diffuse(sample):
    return next(part for part in sample.of("gamma") if not part.point_like)


def point(sample):
    return next(part for part in sample.of("gamma") if part.point_like)


@pytest.mark.parametrize("point_like", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_gammas_are_counted_as_pyirf_does(sample, cuts, binning, point_like, grouped):
    import astropy.units as u
    from pyirf.irf import effective_area_per_energy_and_fov, energy_dispersion, psf_table

    found = count(sample, cuts, fine_edges(binning), FluxConfig(), point_like=point_like)
    irf = to_irf(regroup(found, binning) if grouped else found)
    edges = coarse_edges(binning) if grouped else fine_edges(binning)
    gammas = diffuse(sample)
    gammas = gammas.rows(cuts.select(gammas.columns))
    inside = gammas.rows(cuts.inside(gammas.columns)) if point_like else gammas
    assert 1000 < len(inside) < len(diffuse(sample))
    energy, offset = edges.true_energy * u.TeV, edges.offset * u.deg
    area = effective_area_per_energy_and_fov(table(inside), thrown_info(gammas), energy, offset)
    # Where nothing was thrown, pyirf has 0 / 0.
    wanted = np.nan_to_num(area.to_value(u.m**2))
    np.testing.assert_allclose(irf.effective_area, wanted, rtol=1e-9)
    matrix = energy_dispersion(table(inside), energy, offset, edges.migra)
    np.testing.assert_allclose(irf.energy_dispersion, matrix, rtol=1e-12)
    psf = psf_table(table(gammas), energy, edges.rad * u.deg, offset).to_value(1 / u.sr)
    np.testing.assert_allclose(np.swapaxes(irf.psf, 1, 2), psf, rtol=1e-9)
    assert irf.n_events.sum() == len(
        [e for e in inside.columns["true_energy"] if edges.true_energy[0] <= e < 500.0]
    )
    assert (irf.rad_max is not None) == point_like


def test_background_is_counted_as_pyirf_does(sample, cuts, binning, counts):
    import astropy.units as u
    from pyirf.irf import background_2d

    irf = to_irf(counts)
    edges = fine_edges(binning)
    total = 0
    for kind in ("proton", "electron"):
        (events,) = sample.of(kind)
        weight = rates(events, FluxConfig())
        use = cuts.select(events.columns)
        rows = table(events.rows(use), weight=weight[use])
        total = total + background_2d(
            rows, edges.reco_energy * u.TeV, edges.offset * u.deg, 1 * u.s
        )
    wanted = total.to_value("s-1 MeV-1 sr-1")
    assert (wanted > 0).sum() > 50
    np.testing.assert_allclose(irf.background_2d, wanted, rtol=1e-9)
    assert counts.meta["selected_events"].keys() == {"gamma", "proton", "electron"}


def test_effective_area_is_that_of_the_draw(counts, binning):
    """Not pyirf's word for it: acceptance times area, within its errors."""
    irf = to_irf(regroup(counts, binning))
    edges = irf.edges
    energy = np.sqrt(edges.true_energy[1:] * edges.true_energy[:-1])
    offset = (edges.offset[1:] + edges.offset[:-1]) / 2
    most = np.pi * SCATTER_M**2 * acceptance(energy[:, None], offset[None, :])
    inner = (energy > 2) & (energy < 50)
    share = irf.effective_area[inner] / most[inner]
    # The cut on gammaness (0.3 to 0.6) keeps nearly all of beta(5, 1.5).
    assert 0.75 < share.mean() < 1.0
    pull = irf.effective_area_error[inner] / irf.effective_area[inner]
    spread = (share - share.mean(axis=1, keepdims=True)) / share / pull
    assert 0.5 < spread.std() < 1.6


def test_field_of_view_is_that_of_gadf(tmp_path, cuts, binning):
    """DETX grows with falling azimuth, DETY with the altitude."""
    drawn_store(tmp_path / "gamma.zarr", n_thrown=2000, seed=1)
    drawn_store(tmp_path / "proton.zarr", "proton", n_thrown=20_000, seed=2)
    sample = read_sample([tmp_path / "gamma.zarr", tmp_path / "proton.zarr"])
    (protons,) = sample.of("proton")
    # West of the pointing (azimuth 350 deg when it looks North), and above it.
    there = altaz_to_telescope(*(np.array([v]) for v in (72.0, 353.0, 70.0, 0.0)))
    columns = protons.columns
    near = np.hypot(columns["fov_lon"] - there.fov_lon, columns["fov_lat"] - there.fov_lat) < 1.5
    assert near.sum() > 100
    only = Sample((*sample.of("gamma"), protons.rows(near)), sample.meta)
    found = count(only, cuts, fine_edges(binning), FluxConfig(), point_like=False)
    by_field = found.field_rate.sum(axis=0)
    middle = (found.edges.detector[1:] + found.edges.detector[:-1]) / 2
    assert (by_field.sum(axis=1) @ middle) / by_field.sum() > 1.0
    assert (by_field.sum(axis=0) @ middle) / by_field.sum() > 1.0
    # The same events by offset: none is lost between the two, but for the corners.
    assert found.field_rate.sum() == pytest.approx(found.ring_rate.sum(), rel=0.02)


def test_regrouping_keeps_all_sums(counts, binning):
    coarse = regroup(counts, binning)
    names = ("thrown", "selected", "selected_reco", "migration", "radial", "ring_rate")
    names += ("ring_variance", "ring_events", "field_rate", "field_variance")
    for name in names:
        whole = getattr(counts, name).sum()
        assert getattr(coarse, name).sum() == pytest.approx(whole, rel=1e-12)
    assert coarse.migration.shape == (10, 20, 5)
    assert coarse.field_rate.shape == (5, 10, 10)
    assert coarse.rad_max.shape == (5, 5)


def test_other_bins_are_refused(counts, binning):
    with pytest.raises(AstriError, match=r"30 bins of true_energy .* binning 60"):
        regroup(counts, replace(binning, n_energies=60))


def test_point_like_gammas_fill_two_bins_of_the_offset(sample, cuts, binning):
    """Drawn at 0.5 deg, the upper edge of a fine bin: rounding must not spread them."""
    only = Sample((point(sample), *sample.background()), sample.meta)
    found = count(only, cuts, fine_edges(binning), FluxConfig(), point_like=True)
    assert np.flatnonzero(found.selected.sum(axis=0)).tolist() == [1]
    assert np.flatnonzero(found.thrown.sum(axis=0)).tolist() == [1]
    coarse = regroup(found, binning)
    assert coarse.edges.offset.tolist() == [0.0, 1.0, 2.0]
    irf = to_irf(coarse)
    np.testing.assert_array_equal(irf.effective_area[:, 0], irf.effective_area[:, 1])
    assert irf.effective_area.max() > 0
    assert "0.5 deg only" in irf.meta["offset_note"]
    # The background knows its offsets.
    assert (irf.background_2d[:, 0] != irf.background_2d[:, 1]).any()


def test_rad_max_is_the_theta_cut(sample, cuts, binning):
    irf = to_irf(count(sample, cuts, fine_edges(binning), FluxConfig(), point_like=True))
    energy = np.sqrt(irf.edges.reco_energy[1:] * irf.edges.reco_energy[:-1])
    for k, middle in enumerate(energy):
        place = int(np.searchsorted(cuts.energy_edges, middle)) - 1
        wanted = cuts.theta_deg[place] if 0 <= place < len(cuts.theta_deg) else np.nan
        np.testing.assert_array_equal(irf.rad_max[k], np.full(10, wanted))


def test_errors_are_those_of_the_bootstrap(sample, cuts, binning, counts):
    """Cells need no replicas: their sums of squared weights are what replicas tend to."""
    (protons,) = sample.of("proton")
    events = protons.rows(cuts.select(protons.columns))
    edges = fine_edges(binning)
    only = Sample((*sample.of("gamma"), protons), sample.meta)
    coarse = regroup(count(only, cuts, edges, FluxConfig(), point_like=False), binning)
    place = np.searchsorted(coarse.edges.reco_energy, events.columns["reco_energy"]) - 1
    ring = np.searchsorted(coarse.edges.offset, events.columns["reco_offset"]) - 1
    cell = np.where(ring < 5, place * 5 + ring, -1)
    replicas = replica_histograms(
        cell,
        rates(events, FluxConfig()),
        events.columns["shower_key"],
        n_cells=25,
        n_replicas=400,
        seed=3,
    )
    many = coarse.ring_events > 30
    assert many.sum() > 5
    found = replicas.std(axis=0).reshape(5, 5)[many]
    # The error of a standard deviation of 400 numbers is 3.5 %.
    np.testing.assert_allclose(found, np.sqrt(coarse.ring_variance[many]), rtol=0.15)

    gammas = diffuse(sample)
    events = gammas.rows(cuts.select(gammas.columns))
    place = np.searchsorted(coarse.edges.true_energy, events.columns["true_energy"]) - 1
    ring = np.searchsorted(coarse.edges.offset, events.columns["true_offset"]) - 1
    cell = place * 5 + ring
    ones = np.ones(len(cell))
    replicas = replica_histograms(
        cell, ones, events.columns["shower_key"], n_cells=50, n_replicas=400, seed=4
    )
    irf = to_irf(coarse)
    many = irf.n_events > 100
    found = replicas.std(axis=0).reshape(10, 5)[many] / irf.n_events[many]
    share = coarse.selected[many] / coarse.thrown[many]
    wanted = irf.effective_area_error[many] / irf.effective_area[many]
    # Drawn from the selected ones alone they lack the binomial's sqrt(1 - share).
    np.testing.assert_allclose(found * np.sqrt(1 - share), wanted, rtol=0.15)


def test_cuts_without_a_valid_bin_are_refused(sample, cuts, binning):
    nothing = replace(cuts, gammaness=np.full(10, np.nan))
    with pytest.raises(AstriError, match="cc03 have no valid energy bin"):
        count(sample, nothing, fine_edges(binning), FluxConfig(), point_like=False)


def test_cuts_that_no_gamma_passes_are_refused(sample, cuts, binning):
    hard = replace(cuts, gammaness=np.full(10, 1.1))
    with pytest.raises(AstriError, match=r"None of the \d+ gammas at zenith 20.0 deg passes"):
        count(sample, hard, fine_edges(binning), FluxConfig(), point_like=False)


def test_cuts_of_other_forests_or_cameras_are_refused(sample, cuts, binning):
    other = replace(cuts, meta=cuts.meta | {"models": "sha256:" + "2" * 64})
    with pytest.raises(AstriError, match=r"other forests \(sha256:2.*\) than those .*sha256:1"):
        count(sample, other, fine_edges(binning), FluxConfig(), point_like=False)
    other = replace(cuts, meta=cuts.meta | {"cameras": ["LSTCam"]})
    with pytest.raises(AstriError, match=r"other cameras \(LSTCam\) .*ASTRICam"):
        count(sample, other, fine_edges(binning), FluxConfig(), point_like=False)


def test_gammas_are_needed(sample, cuts, binning):
    lacking = Sample(tuple(sample.background()), sample.meta)
    with pytest.raises(AstriError, match=r"There are no gammas at zenith 20\.0 deg"):
        count(lacking, cuts, fine_edges(binning), FluxConfig(), point_like=False)


def test_no_background_is_a_rate_of_zero_and_no_error(sample, cuts, binning):
    alone = Sample(tuple(sample.of("gamma")), sample.meta)
    found = count(alone, cuts, fine_edges(binning), FluxConfig(), point_like=False)
    assert not found.ring_events.any()
    assert found.meta["kinds"] == ["gamma"]
    irf = to_irf(found)
    assert not irf.background_3d.any()
    assert np.isfinite(irf.background_2d_error).all()


@given(
    st.lists(st.floats(0, 6) | st.sampled_from([0.0, 1.0, 5.0, np.nan, np.inf]), max_size=40),
    st.lists(st.floats(0, 6) | st.sampled_from([0.0, 2.0, 5.0, np.nan, -1.0]), max_size=40),
)
@settings(max_examples=50, deadline=None)
def test_bins_are_those_of_numpy(first, second):
    """Edges included, and neither NaN nor what is outside counted anywhere."""
    n_events = min(len(first), len(second))
    values = np.array([first[:n_events], second[:n_events]]).reshape(2, n_events)
    edges = np.array([0.0, 1.0, 2.5, 5.0])
    found = _sums((3, 3), *(_place(edges, row) for row in values))
    good = np.isfinite(values).all(axis=0)
    wanted, _, _ = np.histogram2d(*values[:, good], bins=[edges, edges])
    np.testing.assert_array_equal(found, wanted)
