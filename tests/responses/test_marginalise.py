"""Responses along a track and between zenith angles: exact at both ends, between elsewhere."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.responses.counts import Counts, Irf2
from astri_gpu.responses.edges import fine_edges
from astri_gpu.responses.interpolate import between, between_quantiles, bracket
from astri_gpu.responses.irf import Irf
from astri_gpu.responses.marginalise import Track, average, marginalise
from astri_gpu.responses.normalise import to_irf
from astri_gpu.responses.regroup import regroup
from tests.made_responses import made_edges, made_irf

NUMBERS = [
    field.name
    for field in fields(Irf)
    if isinstance(getattr(made_irf(20.0), field.name), np.ndarray)
]
EDGES = made_edges(12, 5)


@pytest.fixture(scope="module")
def irfs():
    """Return responses at 20, 40 and 60 deg."""
    return [made_irf(zenith, 0.0, edges=EDGES) for zenith in (20.0, 40.0, 60.0)]


def dispersion_moments(irf):
    """Return mean and width of migra, (E, O)."""
    migra = np.sqrt(irf.edges.migra[1:] * irf.edges.migra[:-1])[:, None]
    share = irf.energy_dispersion * np.diff(irf.edges.migra)[:, None]
    mean = (share * migra).sum(axis=1)
    return mean, np.sqrt((share * migra**2).sum(axis=1) - mean**2)


def test_one_pointing_is_unchanged(irfs):
    track = Track(np.full(30, 40.0), np.full(30, 12.0), np.linspace(0, 60, 30))
    found = average(irfs, track)
    for name in NUMBERS:
        np.testing.assert_array_equal(getattr(found, name), getattr(irfs[1], name))
    assert (found.zenith_deg, found.azimuth_deg) == (40.0, 12.0)
    assert found.meta["pointings"] == [{"zenith_deg": 40.0, "azimuth_deg": 0.0, "share": 1.0}]
    assert found.meta["models"] == "abc"


def test_a_simulation_nearby_stands_for_the_track(irfs):
    found = average(irfs[:1], Track.fixed(23.0, 100.0), max_zenith_distance_deg=5)
    np.testing.assert_array_equal(found.effective_area, irfs[0].effective_area)
    assert found.zenith_deg == 23.0
    with pytest.raises(AstriError, match=r"zenith angle of 26\.0 deg, the nearest .* 20\.0 deg"):
        average(irfs[:1], Track.fixed(26.0, 0.0), max_zenith_distance_deg=5)
    with pytest.raises(AstriError, match=r"zenith angle of 66\.0 deg, the nearest .* 60\.0 deg"):
        average(irfs, Track.fixed(66.0, 0.0), max_zenith_distance_deg=5)


def test_weights_are_times(irfs):
    """Half an hour at 20 deg and one and a half at 40 deg, in pieces of different length."""
    track = Track(np.repeat([20.0, 40.0], 3), np.zeros(6), np.array([1.0, 2, 3, 9, 3, 6]))
    found = average(irfs, track)
    low, high = irfs[0], irfs[1]
    for name in ("effective_area", "background_2d", "background_3d", "energy_dispersion"):
        wanted = 0.25 * getattr(low, name) + 0.75 * getattr(high, name)
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-12, atol=1e-30)
    exposure = [0.25 * low.effective_area, 0.75 * high.effective_area]
    total = exposure[0] + exposure[1]
    there = total > 0
    psf = (exposure[0][:, None] * low.psf + exposure[1][:, None] * high.psf) / np.where(
        there, total, 1
    )[:, None]
    np.testing.assert_allclose(found.psf, psf, rtol=1e-12, atol=1e-30)
    error = np.hypot(0.25 * low.effective_area_error, 0.75 * high.effective_area_error)
    np.testing.assert_allclose(found.effective_area_error, error)
    shares = [entry["share"] for entry in found.meta["pointings"]]
    assert shares == pytest.approx([0.25, 0.75])
    assert found.zenith_deg == pytest.approx(35.0)


def test_expected_counts_are_those_of_the_pieces(irfs):
    """With the dispersion weighted by exposure, area x dispersion is the mean of the products."""
    track = Track(np.array([20.0, 60.0]), np.zeros(2), np.array([1.0, 1.0]))
    found = average(irfs, track, dispersion_by="exposure")
    product = found.effective_area[:, None] * found.energy_dispersion
    wanted = sum(0.5 * irf.effective_area[:, None] * irf.energy_dispersion for irf in irfs[::2])
    np.testing.assert_allclose(product, wanted, rtol=1e-12, atol=1e-30)
    by_time = average(irfs, track).energy_dispersion
    assert not np.allclose(by_time, found.energy_dispersion, rtol=1e-3)


@pytest.mark.parametrize("zenith", [25.0, 33.0, 47.0, 59.9])
def test_between_pointings(irfs, zenith):
    found = average(irfs, Track.fixed(zenith, 0.0))
    truth = made_irf(zenith, edges=EDGES)
    low, high = (irfs[0], irfs[1]) if zenith < 40 else (irfs[1], irfs[2])
    there = truth.n_events > 0
    for name in ("effective_area", "background_2d", "background_3d"):
        ends = np.stack([getattr(low, name), getattr(high, name)])
        value = getattr(found, name)
        assert (value >= ends.min(axis=0) * (1 - 1e-9)).all()
        assert (value <= ends.max(axis=0) * (1 + 1e-9)).all()
        np.testing.assert_allclose(value, getattr(truth, name), rtol=0.12)
    content = (found.energy_dispersion * np.diff(EDGES.migra)[:, None]).sum(axis=1)
    np.testing.assert_allclose(content, there, atol=1e-12)
    _, width = dispersion_moments(found)
    _, wanted = dispersion_moments(truth)
    np.testing.assert_allclose(width[there], wanted[there], rtol=0.12)
    assert found.energy_dispersion.shape == truth.energy_dispersion.shape
    share = found.meta["pointings"][1]["share"]
    cosines = np.cos(np.radians([low.zenith_deg, zenith, high.zenith_deg]))
    assert share == pytest.approx((cosines[0] - cosines[1]) / (cosines[0] - cosines[2]))


def test_nodes_are_limits(irfs):
    """Close to a simulated zenith angle the response is close to the simulated one."""
    near = between(irfs[0], irfs[1], 1e-9, 20.0)
    for name in ("effective_area", "energy_dispersion", "psf", "background_3d"):
        np.testing.assert_allclose(
            getattr(near, name), getattr(irfs[0], name), rtol=1e-6, atol=1e-6
        )


def test_area_between_is_pyirfs(irfs):
    from astropy import units as u
    from pyirf.interpolation import EffectiveAreaEstimator

    found = between(irfs[0], irfs[1], 0.3, 30.0)
    grid = np.array([[0.0], [1.0]])
    areas = np.stack([irf.effective_area for irf in irfs[:2]]) * u.m**2
    wanted = EffectiveAreaEstimator(grid, areas)(np.array([[0.3]]))[0]
    # Of nothing on both sides pyirf makes 1 m2, its smallest value.
    wanted = np.where(found.n_events > 0, wanted.to_value("m2"), 0)
    np.testing.assert_allclose(found.effective_area, wanted, rtol=1e-12)


def test_dispersion_between_is_near_pyirfs(irfs):
    """pyirf samples the density at points and so is off by a part of a bin."""
    from pyirf.interpolation import EnergyDispersionEstimator

    tables = np.stack([irf.energy_dispersion for irf in irfs[:2]])
    estimate = EnergyDispersionEstimator(np.array([[0.0], [1.0]]), EDGES.migra, tables)
    theirs = replace(irfs[0], energy_dispersion=np.asarray(estimate(np.array([[0.5]])))[0])
    ours = between(irfs[0], irfs[1], 0.5, 30.0)
    there = ours.n_events > 0
    bin_width = 0.055
    for mine, other in zip(dispersion_moments(ours), dispersion_moments(theirs), strict=True):
        np.testing.assert_allclose(mine[there], other[there], atol=bin_width / 2)


def test_one_empty_neighbour(irfs):
    """A threshold that rises: where only one simulation has gammas, its distributions stand."""
    empty = irfs[1].n_events.copy()
    empty[:6] = 0
    gone = (empty > 0).astype(float)
    high = replace(
        irfs[1],
        effective_area=irfs[1].effective_area * gone,
        energy_dispersion=irfs[1].energy_dispersion * gone[:, None],
        psf=irfs[1].psf * gone[:, None],
        n_events=empty,
    )
    found = between(irfs[0], high, 0.5, 30.0)
    np.testing.assert_allclose(found.effective_area[:6], irfs[0].effective_area[:6] / 2)
    np.testing.assert_allclose(found.psf[:6], irfs[0].psf[:6], rtol=1e-12, atol=1e-30)
    mean = average([irfs[0], high], Track(np.array([20.0, 40.0]), np.zeros(2), np.ones(2)))
    np.testing.assert_allclose(mean.energy_dispersion[:6], irfs[0].energy_dispersion[:6])
    width = np.diff(EDGES.migra)[:, None]
    there = mean.effective_area > 0
    np.testing.assert_allclose((mean.energy_dispersion * width).sum(axis=1), there, atol=1e-12)


def test_nearest_azimuth():
    pointings = [(20.0, 0.0), (20.0, 180.0), (40.0, 0.0), (40.0, 180.0)]
    assert bracket(pointings, 20.0, 350.0, max_zenith_distance_deg=5).nodes == (0,)
    assert bracket(pointings, 20.0, 100.0, max_zenith_distance_deg=5).nodes == (1,)
    found = bracket(pointings, 30.0, -170.0, max_zenith_distance_deg=5)
    assert found.nodes == (1, 3)
    assert sum(found.shares) == pytest.approx(1.0)


def test_azimuths_are_averaged_on_the_circle(irfs):
    found = average(irfs, Track(np.full(2, 20.0), np.array([350.0, 30.0]), np.ones(2)))
    assert found.azimuth_deg == pytest.approx(10.0)


histograms = arrays(np.float64, 8, elements=st.sampled_from([0.0, 0.0, 1.0, 2.0, 7.5])).filter(
    lambda content: content.sum() > 0
)


@settings(max_examples=150, deadline=None)
@given(first=histograms, second=histograms, share=st.floats(0, 1))
def test_quantiles_between_histograms(first, second, share):
    """Contents add up; the mean is the mean of both; ends are the histograms themselves."""
    edges = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8])
    found = between_quantiles(first, second, share, edges)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    middle = (edges[1:] + edges[:-1]) / 2
    means = [np.average(middle, weights=content) for content in (first, second)]
    # Rebinning moves events to the middle of a bin, by half a bin at most.
    assert np.average(middle, weights=found) == pytest.approx(
        (1 - share) * means[0] + share * means[1], abs=0.5
    )
    for content, end in ((first, 0.0), (second, 1.0)):
        np.testing.assert_allclose(
            between_quantiles(first, second, end, edges), content / content.sum(), atol=1e-12
        )


@pytest.mark.parametrize(
    ("track", "sentence"),
    [
        (Track(np.array([]), np.array([]), np.array([])), "is empty"),
        (Track.fixed(20.0, 0.0, 0.0), "is empty"),
        (Track.fixed(np.nan, 0.0), "not finite"),
        (Track.fixed(20.0, 0.0, -1.0), "times below 0"),
        (Track.fixed(95.0, 0.0), "above the horizon"),
    ],
)
def test_tracks_that_are_none(irfs, track, sentence):
    with pytest.raises(AstriError, match=sentence):
        average(irfs, track)


def test_responses_that_do_not_fit(irfs):
    track = Track(np.array([20.0, 40.0]), np.zeros(2), np.ones(2))
    with pytest.raises(AstriError, match="have different bins of true_energy"):
        average([irfs[0], made_irf(40.0, edges=made_edges(8, 5))], track)
    with pytest.raises(AstriError, match="in no common range of energies"):
        average([irfs[0], replace(irfs[1], valid_tev=(150.0, 200.0))], track)
    with pytest.raises(UsageError, match="'sum' is unknown"):
        average(irfs, track, dispersion_by="sum")
    with pytest.raises(AstriError, match="no response to be averaged"):
        average([], track)
    narrow = average([irfs[0], replace(irfs[1], valid_tev=(1.0, 200.0))], track)
    assert narrow.valid_tev == (1.0, 100.0)


@pytest.mark.parametrize("point_like", [False, True])
def test_counts_of_one_pointing_give_its_coarse_response(binning, point_like):
    """Sums of events (Poisson numbers here) at the zenith angle of the track, and along it."""
    edges = fine_edges(binning)
    low, high = (made_counts(edges, zenith, point_like) for zenith in (20.0, 40.0))
    irf2 = Irf2((low, high), binning, {"simulation_model": "made"})
    found = marginalise(irf2, Track.fixed(20.0, 0.0))
    wanted = to_irf(regroup(low, binning))
    for name in NUMBERS:
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert (found.rad_max is not None) == point_like
    assert found.meta["simulation_model"] == "made"
    assert len(found.edges.true_energy) == binning.n_energies // binning.group_true + 1
    both = marginalise(irf2, Track(np.array([20.0, 40.0]), np.zeros(2), np.ones(2)))
    other = to_irf(regroup(high, binning))
    np.testing.assert_allclose(
        both.effective_area, (wanted.effective_area + other.effective_area) / 2
    )


def made_counts(edges, zenith_deg, point_like):
    """Return Poisson numbers in all bins."""
    rng = np.random.default_rng(int(zenith_deg))
    sizes = {name: len(part) - 1 for name, part in vars(edges).items()}
    n_true, n_reco, n_offset = sizes["true_energy"], sizes["reco_energy"], sizes["offset"]
    field = (n_reco, sizes["detector"], sizes["detector"])
    ring = rng.poisson(3.0, (n_reco, n_offset)).astype(float)
    return Counts(
        event_class="cc03",
        zenith_deg=zenith_deg,
        azimuth_deg=0.0,
        edges=edges,
        point_like=point_like,
        area_m2=1e6,
        thrown=np.full((n_true, n_offset), 100.0),
        selected=rng.poisson(20.0, (n_true, n_offset)).astype(float),
        selected_reco=rng.poisson(20.0, (n_reco, n_offset)).astype(float),
        migration=rng.poisson(1.0, (n_true, sizes["migra"], n_offset)).astype(float),
        radial=rng.poisson(1.0, (n_true, sizes["rad"], n_offset)).astype(float),
        ring_rate=ring * 0.1,
        ring_variance=ring * 0.01,
        ring_events=ring,
        field_rate=rng.poisson(3.0, field) * 0.1,
        field_variance=rng.poisson(3.0, field) * 0.01,
        rad_max=np.full((n_reco, n_offset), 0.2),
        valid_tev=(1.0, 50.0),
        meta={"models": "abc"},
    )
