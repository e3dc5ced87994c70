"""Rates, energies and times of what is thrown."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from astri_gpu.config_response import FluxConfig
from astri_gpu.instrument.astri import mini_array
from astri_gpu.observing.particles import seed_of, strata
from astri_gpu.observing.sky_events import blocks
from tests.made_run import run_config


def all_strata(tmp_path, zenith_deg=20.0, **options):
    return list(strata(run_config(tmp_path / "x", **options), mini_array(), zenith_deg))


def test_as_many_gammas_are_thrown_as_the_flux_says(tmp_path):
    factor, seconds = 7.0, 50.0
    n, expected = 0, 0.0
    for stratum in all_strata(tmp_path, gamma_factor=factor):
        if stratum.particle == "gamma":
            low, high = stratum.settings.energy_min_gev / 1e3, stratum.settings.energy_max_gev / 1e3
            flux, _ = quad(lambda e: 1.5e-6 * e**-2.3, low, high)
            expected += factor * flux * np.pi * stratum.settings.scatter_radius_m**2 * seconds
            n += sum(stratum.count(block, seconds / 100) for block in range(100))
    assert expected > 1000
    assert abs(n - expected) < 4 * np.sqrt(expected)


def test_protons_come_from_the_whole_cone_at_their_rate(tmp_path):
    kinds = [s for s in all_strata(tmp_path, background_factor=1.0) if s.particle == "proton"]
    for stratum in kinds:
        low, high = stratum.settings.energy_min_gev / 1e3, stratum.settings.energy_max_gev / 1e3
        # CTA's IRF document: 9.8e-6 (E / TeV)^-2.62 per cm2 s TeV sr.
        flux, _ = quad(lambda e: 9.8e-2 * e**-2.62, low, high)
        solid = 2 * np.pi * (1 - np.cos(np.deg2rad(6)))
        area = np.pi * stratum.settings.scatter_radius_m**2
        assert stratum.rate_hz == pytest.approx(flux * area * solid, rel=1e-3)
        assert not stratum.thinned
    edges = [(s.settings.energy_min_gev, s.settings.energy_max_gev) for s in kinds]
    assert edges[0][0] == 500
    assert edges[-1][1] == 300_000
    assert [high for _, high in edges[:-1]] == [low for low, _ in edges[1:]]


def test_light_reaches_farther_at_large_zenith_angles(tmp_path):
    near, far = all_strata(tmp_path), all_strata(tmp_path, zenith_deg=60.0)
    for one, other in zip(near, far, strict=True):
        ratio = other.settings.scatter_radius_m / one.settings.scatter_radius_m
        assert ratio == pytest.approx(np.cos(np.deg2rad(25)) / 0.5)
        assert other.rate_hz == pytest.approx(one.rate_hz * ratio**2)


@pytest.mark.parametrize("flux", ["crab_magic", "powerlaw:1e-6:-2.9"])
def test_energies_follow_the_spectrum(tmp_path, flux):
    from astropy import units as u
    from pyirf.spectral import CRAB_MAGIC_JHEAP2015

    from astri_gpu.kernels.shower import primaries

    chosen = all_strata(tmp_path, gamma_factor=1.0, background=[], flux=FluxConfig(gamma=flux))
    for stratum in chosen[:2]:
        number = np.arange(40_000, dtype=np.uint32)
        energy = primaries(number, settings=stratum.settings).energy
        kept = stratum.kept(energy, stratum.times(number, 1.0)[1])
        low, high = stratum.settings.energy_min_gev / 1e3, stratum.settings.energy_max_gev / 1e3
        edges = np.geomspace(low, high, 9)

        def density(e):
            if flux != "crab_magic":
                return 1e-6 * e**-2.9
            return CRAB_MAGIC_JHEAP2015(e * u.TeV).to_value("TeV-1 s-1 m-2")

        whole = [quad(density, a, b)[0] for a, b in pairwise(edges)]
        per_thrown = stratum.rate_hz / (np.pi * stratum.settings.scatter_radius_m**2)
        expected = np.array(whole) / per_thrown * len(number)
        found, _ = np.histogram(energy[kept] / 1e3, edges)
        assert np.sum((found - expected) ** 2 / expected) < 30  # 8 bins: 1e-4
        assert stratum.thinned == (flux == "crab_magic")


def test_times_are_uniform_to_the_nanosecond(tmp_path):
    stratum = all_strata(tmp_path)[0]
    time_ns, chance = stratum.times(np.arange(20_000, dtype=np.uint32), 10.0)
    assert 0 <= time_ns.min() < time_ns.max() < 10 * 10**9
    for values, end in ((time_ns, 1e10), (chance, 1.0)):
        counts, _ = np.histogram(values, 10, (0, end))
        assert np.sum((counts - 2000) ** 2 / 2000) < 35
    assert len(np.unique(time_ns % 1000)) == 1000


def test_seeds_differ_by_all_their_names():
    seeds = {seed_of(seed, kind, k) for seed in (1, 2) for kind in ("a", "b") for k in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**64 for seed in seeds)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 2000), st.floats(20, 3600))
def test_blocks_cover_the_run_once(duration, slice_s):
    parts = list(blocks(duration, slice_s))
    assert parts[0].start_s == 0
    assert parts[-1].stop_s == pytest.approx(duration, rel=1e-9)
    for number, (one, other) in enumerate(pairwise(parts)):
        assert one.stop_s == pytest.approx(other.start_s, rel=1e-12)
        assert (one.number, other.number) == (number, number + 1)
        assert one.slice in (other.slice, other.slice - 1)
    for part in parts:
        assert 0 <= part.stop_s - part.start_s <= 10 + 1e-6
        middle = (part.start_s + part.stop_s) / 2
        assert part.slice == min(int(middle / slice_s), parts[-1].slice)
