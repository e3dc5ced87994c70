"""Rates against pyirf, by hand for mixtures, and between ways of throwing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astri_gpu.config_response import FluxConfig
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.selection.events import read_sample
from astri_gpu.selection.sample import Thrown
from astri_gpu.selection.spectra import SPECTRA, flux_density, spectrum
from astri_gpu.selection.weights import rates, thrown_counts
from tests.drawn_events import acceptance, drawn_store

FLUX = FluxConfig()
OFFSETS = (0.2, 1.5)


def info(thrown):
    """Return what pyirf calls a run header."""
    from astropy import units as u
    from pyirf.simulations import SimulatedEventsInfo

    return SimulatedEventsInfo(
        n_showers=thrown.n_showers,
        energy_min=thrown.energy_min_tev * u.TeV,
        energy_max=thrown.energy_max_tev * u.TeV,
        max_impact=thrown.max_impact_m * u.m,
        spectral_index=thrown.spectral_index,
        viewcone_min=thrown.cone_min_deg * u.deg,
        viewcone_max=thrown.cone_max_deg * u.deg,
    )


@pytest.mark.parametrize(("kind", "point"), [("gamma", 0), ("gamma", 1), ("proton", 0)])
def test_rates_are_those_of_pyirf(drawn_sample, kind, point):
    from astropy import units as u
    from pyirf import spectral

    table = next(t for t in drawn_sample.of(kind) if t.point_like == bool(point))
    simulated = spectral.PowerLaw.from_simulation(info(table.thrown[0]), 1 * u.s)
    target = spectral.CRAB_HEGRA if kind == "gamma" else spectral.IRFDOC_PROTON_SPECTRUM
    use = np.ones(len(table), dtype=bool)
    if kind == "gamma" and not point:
        simulated = simulated.integrate_cone(*(OFFSETS * u.deg))
        offset = table.columns["true_offset"]
        use = (offset >= OFFSETS[0]) & (offset < OFFSETS[1])
    want = spectral.calculate_event_weights(table.columns["true_energy"] * u.TeV, target, simulated)
    found = rates(table, FLUX, offsets_deg=OFFSETS)
    assert use.sum() > 100
    np.testing.assert_allclose(found, np.where(use, want, 0), rtol=1e-11)


def test_thrown_counts_are_those_of_pyirf(drawn_sample):
    from astropy import units as u

    energy, offset = np.array([0.1, 1.0, 5.0, 50.0, 900.0]), np.array([0.0, 0.5, 2.0, 7.0])
    table = drawn_sample.of("proton")[0]
    want = info(table.thrown[0]).calculate_n_showers_per_energy_and_fov(
        energy * u.TeV, offset * u.deg
    )
    np.testing.assert_allclose(thrown_counts(table, energy, offset), want, rtol=1e-11)
    assert want.sum() == pytest.approx(100_000)


def test_thrown_counts_of_a_point_and_of_a_part(drawn_sample):
    table = next(t for t in drawn_sample.of("gamma") if t.point_like)
    edges = np.array([0.1, 500.0]), np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(thrown_counts(table, *edges), [[0, 40_000]])
    half = thrown_counts(replace(table, part=0.5), *edges)
    np.testing.assert_allclose(half, [[0, 20_000]])


def test_a_mixture_weighs_every_event_by_all_that_was_thrown(tmp_path):
    """Two productions of other energies and slopes: density by hand, and the same flux."""
    paths = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    drawn_store(paths[0], "proton", n_thrown=20_000, seed=1, index=-1.5)
    second = {"energies_tev": (5.0, 50.0), "index": -2.2}
    drawn_store(paths[1], "proton", n_thrown=10_000, seed=2, **second)
    one, both = read_sample(paths[:1]).tables[0], read_sample(paths).tables[0]
    energy = both.columns["true_energy"]
    density = np.zeros(len(energy))
    for n, low, high, index in ((20_000, 0.5, 300.0, -1.5), (10_000, 5.0, 50.0, -2.2)):
        norm = n * (index + 1) / (high ** (index + 1) - low ** (index + 1))
        density += np.where((energy >= low) & (energy <= high), norm * energy**index, 0)
    solid = 2 * np.pi * (1 - np.cos(np.deg2rad(5)))
    flux = 9.8e-2 * energy**-2.62  # per TeV s m2 sr
    want = flux * np.pi * 800**2 * solid / density
    np.testing.assert_allclose(rates(both, FLUX), want, rtol=1e-9)
    totals = [rates(table, FLUX) for table in (one, both)]
    errors = [np.sqrt((weight**2).sum()) for weight in totals]
    assert abs(totals[0].sum() - totals[1].sum()) < 3 * np.hypot(*errors)


def test_rates_follow_from_the_acceptance(drawn_sample):
    """The rate of a source at 0.5 deg is flux times area, from points and from a cone alike."""
    energy = np.geomspace(0.3, 300, 4000)
    area = np.pi * 800**2 * acceptance(energy, 0.5)
    want = np.trapezoid(area * flux_density("crab_hegra", "gamma", energy), energy)
    diffuse, point = sorted(drawn_sample.of("gamma"), key=lambda t: t.point_like)
    for table, offsets in ((point, None), (diffuse, (0.0, 0.8))):
        weight = rates(table, FLUX, offsets_deg=offsets)
        assert abs(weight.sum() - want) < 3.5 * np.sqrt((weight**2).sum())
        assert np.sqrt((weight**2).sum()) < 0.15 * want


def test_halves_stand_for_the_whole(drawn):
    whole, even = (
        rates(read_sample([drawn["point"]], part=part).tables[0], FLUX) for part in ("all", "even")
    )
    assert even.sum() == pytest.approx(whole.sum(), rel=0.1)
    assert len(even) < 0.6 * len(whole)


def test_ring_outside_the_cone(drawn_sample):
    table = drawn_sample.of("gamma")[0]
    with pytest.raises(AstriError, match="none of them at offsets of 6 to 7 deg"):
        rates(table, FLUX, offsets_deg=(6.0, 7.0))
    point = next(t for t in drawn_sample.of("gamma") if t.point_like)
    assert not rates(point, FLUX, offsets_deg=(0.0, 0.5)).any()
    assert rates(point, FLUX, offsets_deg=(0.5, 1.0)).all()


def test_energy_outside_the_header(drawn_sample):
    table = drawn_sample.of("proton")[0]
    thrown = (table.thrown[0]._replace(energy_max_tev=100.0),)
    with pytest.raises(AstriError, match=r"TeV in .* is outside the energies of the run headers"):
        rates(replace(table, thrown=thrown), FLUX)


energies = st.floats(1e-3, 1e3)


@given(
    low=energies,
    span=st.floats(1.01, 1e5),
    index=st.floats(-4, 0) | st.just(-1.0),
    cuts=st.lists(energies, min_size=1, max_size=5, unique=True),
)
def test_shares_add_up(low, span, index, cuts):
    """Whatever the bins, all showers are in them once."""
    thrown = Thrown(1000.0, low, low * span, index, 100.0, 0.0, 5.0)
    edges = np.array([1e-5, *sorted(cuts), 1e9])
    share = thrown.share(edges[:-1], edges[1:])
    assert (share >= 0).all()
    assert share.sum() == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("name", SPECTRA)
def test_spectra_have_units_of_their_kind(name):
    kind = "gamma" if name.startswith("crab") else "proton"
    values = flux_density(name, kind, np.array([1.0, 10.0]))
    assert (values > 0).all()
    assert 2 < -np.log10(values[1] / values[0]) < 4
    other = "proton" if kind == "gamma" else "gamma"
    with pytest.raises(UsageError, match=f"flux.{other} is '{name}', the spectrum of"):
        spectrum(name, other)


def test_values_of_spectra():
    """HEGRA 2004 and Hoerandel 2003 at 1 TeV, and a power law of one's own."""
    one = np.array([1.0])
    assert flux_density("crab_hegra", "gamma", one) == pytest.approx(2.83e-7)
    assert flux_density("horandel_helium", "helium", one) == pytest.approx(5.71e-2)
    ten = flux_density("powerlaw:1e-3:-2.5", "proton", np.array([10.0]))
    assert ten == pytest.approx(1e-3 * 10**-2.5)


@given(st.text() | st.from_regex(r"powerlaw:[0-9.e+-]{0,12}:[0-9.e+-]{0,8}", fullmatch=True))
def test_any_text_is_a_spectrum_or_told_of(name):
    try:
        found = spectrum(name, "gamma")
    except UsageError:
        return
    assert found(1 * found.e_ref).value > 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("crab_hegrra", "no known spectrum, did you mean 'crab_hegra'"),
        ("powerlaw", "no power law: write powerlaw:NORM:INDEX"),
        ("powerlaw:0:-2", "with a norm above 0"),
        ("powerlaw:1e-7:2", "an index from -10 to 0"),
        ("powerlaw:1e-7:-2:3", "no power law"),
        ("powerlaw:nan:-2", "no power law"),
    ],
)
def test_spectra_that_are_none(name, text):
    with pytest.raises(UsageError, match=text):
        spectrum(name, "gamma")
