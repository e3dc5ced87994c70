"""Single steps of a cascade: kinematics, kinds, decays, and the air that they happen in."""

import numpy as np
import pytest

from astri_gpu.kernels import hadron_cascade as cascade
from astri_gpu.kernels import hadron_physics as model
from astri_gpu.kernels.random import key_of
from astri_gpu.kernels.simulation_types import StepGrid

OBSERVATORY, SCALE, SURFACE = 2370.0, 8000.0, 1030.0  # m, m, g/cm2: an exponential atmosphere
ZENITH = 0.35


def make_air():
    """Return the air of steps of 15 g/cm2 in the exponential atmosphere."""
    ground = SURFACE * np.exp(-OBSERVATORY / SCALE) / np.cos(ZENITH)
    edge = np.append(np.arange(1.0, ground - 0.1, 15.0), ground)
    altitude = SCALE * np.log(SURFACE / (edge * np.cos(ZENITH)))
    height = (altitude - OBSERVATORY) / np.cos(ZENITH)
    none = np.zeros(len(edge) - 1)
    depth = (edge[1:] + edge[:-1]) / 2
    return model.air_of(StepGrid(depth, height, *6 * (none,), np.cos(ZENITH), np.sin(ZENITH)))


def particles(n, energy, height=8000.0, is_pion=True, seed=0):
    name = np.random.default_rng(seed).integers(0, 2**32, (3, n), dtype=np.uint32)
    full = [np.full(n, float(v)) for v in (energy, 0.0, height, 30.0, -20.0, 0.02, -0.03)]
    return cascade.Hadrons(*name, *full, np.full(n, is_pion))


def test_depth_and_height_are_inverse_and_exponential():
    air = make_air()
    height = np.linspace(0.0, 60_000.0, 200)
    depth = model.axis_depth(height, air)
    np.testing.assert_allclose(model.axis_height(depth, air), height, atol=1e-6)
    cos_zenith = np.cos(ZENITH)
    exact = SURFACE * np.exp(-(height * cos_zenith + OBSERVATORY) / SCALE) / cos_zenith
    np.testing.assert_allclose(depth, exact, rtol=1e-9)
    assert model.axis_depth(np.array([np.inf]), air)[0] == 0
    assert air.ground == pytest.approx(exact[0])
    assert np.exp(air.log_depth[0]) == pytest.approx(1.0)


def test_children_leave_from_where_their_parent_ends():
    n, end = 2000, 7000.0
    parents = particles(n, 100.0)
    energy = np.full(n, 10.0)
    made, is_followed = cascade.kicked(
        parents, np.arange(n) % 5, energy, np.full(n, end), parents.is_pion,
        make_air(), key=key_of(1),
    )  # fmt: skip
    np.testing.assert_allclose(made.x + made.q_lon * end, parents.x + parents.q_lon * end)
    np.testing.assert_allclose(made.y + made.q_lat * end, parents.y + parents.q_lat * end)
    kick = np.stack([made.q_lon - parents.q_lon, made.q_lat - parents.q_lat])
    # Gamma of shape 2 and scale 0.18 GeV: mean 0.36, rms sqrt(6) 0.18, no preferred direction.
    transverse = np.hypot(*kick) * energy
    assert np.mean(transverse) == pytest.approx(0.36, rel=4 * 0.71 / np.sqrt(n))
    assert np.sqrt(np.mean(transverse**2)) == pytest.approx(np.sqrt(6) * 0.18, rel=0.1)
    assert np.all(np.abs(np.mean(kick, axis=1)) < 4 * 0.031 / np.sqrt(n))
    assert np.all(is_followed)


def test_names_of_children_differ():
    parents = particles(3000, 100.0)
    made, _ = cascade.kicked(
        parents, np.arange(3000) % 2, parents.energy, parents.height, parents.is_pion,
        make_air(), key=key_of(1),
    )  # fmt: skip
    assert len({*zip(made.a.tolist(), made.b.tolist(), strict=True)}) == 3000


def test_photons_have_the_mass_of_their_pion():
    pions = particles(500, 50.0)._replace(thin_energy=np.zeros(500))
    rows = cascade.photons(pions, make_air(), key=key_of(2))
    np.testing.assert_allclose(np.sum(rows.energy, axis=1), 50.0)
    opening = np.hypot(np.diff(rows.q_lon), np.diff(rows.q_lat))[:, 0]
    mass = np.sqrt(np.prod(rows.energy, axis=1)) * opening
    np.testing.assert_allclose(mass, model.NEUTRAL_PION_MASS, rtol=1e-9)
    momentum = np.sum(rows.energy * (rows.q_lon - pions.q_lon[:, None]), axis=1)
    np.testing.assert_allclose(momentum, 0, atol=1e-9)
    height = pions.height[:, None]
    np.testing.assert_allclose(rows.x + rows.q_lon * height, 30 + 0.02 * 8000)
    np.testing.assert_allclose(rows.y + rows.q_lat * height, -20 - 0.03 * 8000)


def test_pions_decay_or_interact():
    """Shares of both, against the integral along the path of what is left of the pions."""
    n, height, energy = 40000, 12000.0, 60.0
    hadron = particles(n, energy, height)._replace(q_lon=np.zeros(n), q_lat=np.zeros(n))
    air = make_air()
    fate = cascade.fates(hadron, air, 1e9, key=key_of(4))
    flight = 7.804 / 0.13957 * energy
    length = model.interaction_length(np.array([energy]), np.array([True]))[0]
    z = np.linspace(height, 0.0, 4001)
    survives = np.exp(-(height - z) / flight - (model.axis_depth(z, air) -
                      model.axis_depth(z[:1], air)) / length)  # fmt: skip
    decays = np.trapezoid(survives, -z) / flight
    # Muons between 0.573 and 1 of 60 GeV lose 1.2 GeV at most; few decay.
    gamma = 0.78 * energy / 0.10566
    lost = 1 - np.exp(-height / (658.65 * gamma))
    found = np.mean(fate.has_muon)
    assert decays * (1 - 1.5 * lost) - 0.01 < found < decays + 0.01
    interacts = decays + np.mean(fate.interacts)
    assert interacts == pytest.approx(1 - survives[-1], abs=0.01)
    muon = fate.muon_energy[fate.has_muon]
    assert np.mean(muon) == pytest.approx(60 * (1 + model.MUON_LEAST_SHARE) / 2 - 0.5, abs=0.4)
    assert np.all(fate.end[fate.interacts] > 0)
    assert np.all(fate.muon_height[fate.has_muon] > fate.end[fate.has_muon])


def test_kinds_of_pieces():
    children = cascade.pieces(particles(4000, 1000.0), key=key_of(5), n_pieces=64)
    hard = children.energy[:, 1:] >= model.MIN_HADRON
    kind = children.kind[:, 1:][hard]
    n = len(kind)
    tolerance = 4 * 0.5 / np.sqrt(n)
    assert np.mean(kind == model.NEUTRAL_PION) == pytest.approx(0.345, abs=tolerance)
    assert np.mean(kind == model.CHARGED_PION) == pytest.approx(0.655 * 0.92, abs=tolerance)
    leading = children.kind[:, 0]
    is_soft = children.energy[:, 0] < model.MIN_HADRON
    assert np.mean(leading[~is_soft] == model.NEUTRAL_PION) == pytest.approx(0.27, abs=0.03)
    nucleons = cascade.pieces(particles(4000, 1000.0, is_pion=False), key=key_of(5), n_pieces=64)
    assert np.all(nucleons.kind[:, 0] == model.NUCLEON)
    share = nucleons.energy[:, 0] / 1000
    assert np.min(share) >= 0.05
    assert np.max(share) <= 0.80
    assert np.mean(share) == pytest.approx(0.425, abs=4 * 0.217 / np.sqrt(4000))
