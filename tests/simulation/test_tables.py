"""Cascades and light tables against published distributions, textbook numbers and themselves."""

import numpy as np
import pytest

from astri_gpu.config_simulation import AtmosphereConfig, OpticsConfig, ShowerConfig
from astri_gpu.errors import AstriError
from astri_gpu.kernels.atmosphere import air_at, altitude_of_thickness, cherenkov_threshold
from astri_gpu.kernels.loops import cascade
from astri_gpu.kernels.simulation_types import EFFICIENCY_HEADROOM, RADIATION_LENGTH
from astri_gpu.simulation import light_build, tables
from astri_gpu.simulation.atmosphere import light_yield, teide_profile
from astri_gpu.simulation.light_build import (
    AGE,
    RADIUS_EDGE,
    Fineness,
    build_nodes,
    fineness,
    make_medium,
    simulate_pools,
)
from astri_gpu.simulation.tables import light_tables

ARRAY_M = 2370.0
TINY = Fineness(((1e4, 40, 8), (1e5, 4, 36)), 300, 16)
PHOTONS = 2 * np.pi / 137.036 * (1 / 290e-9 - 1 / 700e-9)
"""Per m and unit of sin^2(theta), 290 to 700 nm, nothing lost."""
RING = np.pi * np.diff(RADIUS_EDGE**2)


@pytest.fixture(scope="session")
def draft():
    return light_tables(
        AtmosphereConfig(), ShowerConfig(tables="draft"), OpticsConfig(), np.radians(20.0)
    )


@pytest.fixture(scope="session")
def vertical():
    """Node tables of vertical showers."""
    return build_nodes(
        teide_profile(),
        observation_m=ARRAY_M,
        field_ut=38.7,
        zenith_rad=0.0,
        fine=fineness("draft"),
    )


@pytest.fixture(scope="session")
def pools():
    """Electrons of cascades in thick air, without a field."""
    medium = make_medium(teide_profile(), observation_m=0.0, field_ut=0.0, cos_zenith=1.0)
    return simulate_pools(fineness("draft"), medium)


def electrons_of(pools, age):
    """Energy (MeV), angle to the axis (deg) and track per depth of the electrons of an age."""
    k = int(np.argmin(np.abs(AGE - age)))
    found = pools.electrons[k, : pools.recorded[k]].astype(np.float64)
    cosine = np.sqrt(1 - found[:, 3] ** 2 - found[:, 4] ** 2)
    return found[:, 0], np.degrees(np.arccos(cosine)), 1 / cosine


def follow(energy_mev, n, start_g_cm2, *, quota=1, every=None):
    """Cascades in the air over Teide: track by plane, and electrons of every `every`-th plane."""
    medium = make_medium(
        teide_profile(),
        observation_m=ARRAY_M,
        field_ut=light_build.FIELD_ACROSS * 38.7,
        cos_zenith=1.0,
    )
    plane = np.arange(cascade.N_PLANES)
    node = np.where(plane % every == 0, plane // every, -1) if every else np.full(len(plane), -1)
    slot = quota * np.arange(n)
    given = cascade.Cascades(
        np.full(n, energy_mev),
        np.full(n, start_g_cm2 / RADIATION_LENGTH),
        np.full(n, quota),
        slot,
        1_000_000,
    )
    n_nodes = cascade.N_PLANES // every if every else 1
    pool = np.zeros((n_nodes, n * quota, cascade.ELECTRON_COLUMNS), np.float32)
    seen = np.zeros((n, n_nodes), np.int64)
    tracks = np.zeros((n, cascade.N_PLANES), np.float32)
    stack = np.empty((2, cascade.STACK_SIZE, cascade.STACK_COLUMNS))
    nodes = np.broadcast_to(node.astype(np.int32), (n, len(node))).copy()
    cascade.run_cascades(
        given, medium, cascade.physics_table(), nodes, 11, 12, stack, pool, seen, tracks
    )
    assert np.all(seen <= quota) or not every
    return tracks, pool, seen


DEPTH = cascade.PLANE_STEP * np.arange(cascade.N_PLANES)  # radiation lengths from the start


def light_of(nodes, tracks, energy_mev, start_g_cm2):
    """Light of vertical cascades by the tables: (plane, radius), 1/m2 for a yield of 1, heights."""
    profile = teide_profile()
    altitude = altitude_of_thickness(start_g_cm2 + DEPTH * RADIATION_LENGTH, profile)
    above = altitude - ARRAY_M
    path = 0.01 * cascade.PLANE_STEP * RADIATION_LENGTH / air_at(altitude, profile).density
    age = np.clip(cascade.age_of(DEPTH, energy_mev), AGE[0], AGE[-1])
    place = np.interp(above, nodes.height, np.arange(len(nodes.height)))
    i = np.minimum(place.astype(int), len(nodes.height) - 2)
    young = np.interp(age, AGE, np.arange(len(AGE)))
    j = np.minimum(young.astype(int), len(AGE) - 2)
    f, g = (place - i)[:, None], (young - j)[:, None]
    low = (1 - g) * nodes.density[i, j] + g * nodes.density[i, j + 1]
    high = (1 - g) * nodes.density[i + 1, j] + g * nodes.density[i + 1, j + 1]
    light = (tracks.mean(axis=0) * path)[:, None] * ((1 - f) * low + f * high)
    return np.where(above[:, None] > 30, light, 0.0), altitude


def nerling(energy, s):
    """dN/dlnE of electrons (Nerling et al. 2006, Astropart. Phys. 24, 421), MeV."""
    a1, a2 = 6.42522 - 1.53183 * s, 168.168 - 42.1368 * s
    return energy / ((energy + a1) * (energy + a2) ** s)


def hillas(energy, s):
    """Share of electrons above an energy (Hillas 1982, J. Phys. G 8, 1461), MeV."""
    e0 = 44 - 17 * (s - 1.46) ** 2
    return ((0.89 * e0 - 1.2) / (e0 + energy)) ** s / (1 + 1e-4 * s * energy) ** 2


def lafebre(energy, t):
    """dN/dlnE (Lafebre et al. 2009, Astropart. Phys. 31, 243), t from the maximum in X0."""
    return energy / ((energy + 5.64 - 0.0663 * t) * (energy + 123 - 0.70 * t) ** (1 + 0.0374 * t))


def lafebre_angle(energy, share):
    """Quantile of the angle to the axis (deg), same paper, momentum angles of electrons."""
    theta = np.linspace(0.01, 85, 8000)
    near = np.exp(-3.73 + 0.92 * energy**0.210) * theta**-0.399
    far = np.exp(32.9 - 4.84 * np.log(energy)) * theta ** (-8.36 + 0.440 * np.log(energy))
    density = (near ** (-1 / 3) + far ** (-1 / 3)) ** -3 * np.sin(np.radians(theta))
    return np.interp(share, np.cumsum(density) / density.sum(), theta)


@pytest.mark.parametrize(("age", "threshold"), [(1.0, 40.0), (1.0, 100.0), (1.5, 40.0)])
def test_energy_spectrum_of_electrons(pools, age, threshold):
    energy, _, track = electrons_of(pools, age)
    found = np.average(energy > threshold, weights=track)
    grid = np.geomspace(20, 1e6, 3000)
    spectrum = nerling(grid, age)
    # Statistics: 0.005 for 1e4 electrons; the published forms, for 1e15 eV and more, differ by
    # 0.02 among themselves. Behind the maximum small showers are softer: 0.02 from 1 TeV to 3 GeV.
    error = 0.03 if age == 1 else 0.045
    assert found == pytest.approx(spectrum[grid > threshold].sum() / spectrum.sum(), abs=error)
    if threshold == 40:
        assert found == pytest.approx(hillas(40, age) / hillas(20, age), abs=error)
    if age == 1:
        spectrum = lafebre(grid, 0.0)
        expected = spectrum[grid > threshold].sum() / spectrum.sum()
        assert found == pytest.approx(expected, abs=0.035)


@pytest.mark.parametrize("energy_mev", [40.0, 80.0, 180.0, 420.0])
def test_angles_of_electrons(pools, energy_mev):
    # Nothing in the scattering is tuned. 500 electrons give 5 %; ours are 3 to 12 % wider. (At
    # 420 MeV the first quartile is 25 % wider, where the paper has few electrons and a fit.)
    energy, angle, _ = electrons_of(pools, 1.0)
    near = np.abs(np.log(energy / energy_mev)) < 0.2
    for share in (0.5, 0.75):
        found = np.quantile(angle[near], share)
        assert found == pytest.approx(lafebre_angle(energy_mev, share), rel=0.15), share


def test_development():
    middle = []
    for energy, n in ((1e4, 600), (1e6, 40)):
        tracks, _, _ = follow(energy, n, 20.0)
        # Track length above 20 MeV: half of E / critical energy, a little below the ground.
        whole = tracks.sum(axis=1).mean() * cascade.PLANE_STEP * 81 / energy
        assert whole == pytest.approx(0.505, abs=0.012)
        mean = tracks.mean(axis=0)
        top = mean > 0.7 * mean.max()
        a, b, _ = np.polyfit(DEPTH[top], np.log(mean[top]), 2)
        middle.append(-b / (2 * a) * RADIATION_LENGTH)
    # Greisen: ln(10) radiation lengths a decade. Depths of single showers scatter by 30 g/cm2.
    assert (middle[1] - middle[0]) / 2 == pytest.approx(84.4, abs=9)


def test_nothing_depends_on_the_number_of_threads(monkeypatch):
    def build():
        return build_nodes(
            teide_profile(), observation_m=ARRAY_M, field_ut=38.7, zenith_rad=0.3, fine=TINY
        )

    both = build()
    monkeypatch.setattr(light_build, "_threads", lambda: 3)
    for left, right in zip(both, build(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_light_of_an_electron(vertical):
    # All the light of a slice, against the published spectrum: 2 delta (1 - E_th^2 / E^2).
    node, age = int(np.argmin(np.abs(vertical.height - 8000))), int(np.flatnonzero(AGE == 1.0)[0])
    refractivity = air_at(vertical.height[node : node + 1] + ARRAY_M, teide_profile()).refractivity
    threshold = cherenkov_threshold(refractivity)[0]
    grid = np.geomspace(20, 1e6, 3000)
    shining = np.maximum(1 - (threshold / grid) ** 2, 0)
    spectrum = nerling(grid, 1.0)
    expected = 2 * refractivity[0] * (shining * spectrum).sum() / spectrum.sum()
    # 4 % of it lands beyond the last radius, 2 % are between the two spectra.
    assert (vertical.density[node, age] * RING).sum() == pytest.approx(expected, rel=0.08)


def test_light_pool(vertical):
    radius = (RADIUS_EDGE[1:] + RADIUS_EDGE[:-1]) / 2
    for energy, n in ((1e5, 300), (1e6, 30)):
        tracks, _, _ = follow(energy, n, 47.1)
        light, altitude = light_of(vertical, tracks, energy, 47.1)
        density = PHOTONS * light.sum(axis=0)
        at = {r: np.interp(r, radius, density) for r in (30, 60, 110, 200, 400)}
        # Flat to about 120 m (less so for the deeper showers of TeV), then falling steeply.
        assert at[30] / at[110] < (1.3 if energy == 1e5 else 1.6)
        assert 0.8 < at[60] / at[110] < 1.3
        assert 2 < at[110] / at[200] < 3.5
        assert 2.5 < at[200] / at[400] < 5
        # Photons per m2 and GeV: 0.1 to 0.3 in every published table at this height.
        assert 0.1 < at[110] * 1e3 / energy < 0.3
        within = radius < 150
        height = np.average(altitude, weights=(light * RING)[:, within].sum(axis=1))
        expected = {1e5: 10_300, 1e6: 8_300}[energy]  # maximum: 10.0 and 8.3 km for these starts
        assert height == pytest.approx(expected, abs=900)


def test_tables_against_cascades_themselves(vertical):
    """Electrons on their planes shine directly, without ages, nodes and samples."""
    profile, rng = teide_profile(), np.random.default_rng(5)
    energy_mev, start, n, every = 2e5, 47.1, 60, 2
    tracks, pool, seen = follow(energy_mev, n, start, quota=900, every=every)
    photons = []
    place = np.tile(np.arange(900), n)
    for k in range(1, pool.shape[0]):
        depth = np.array([start + k * every * cascade.PLANE_STEP * RADIATION_LENGTH])
        local = air_at(altitude_of_thickness(depth, profile), profile)
        above = local.altitude[0] - ARRAY_M
        used = pool[k, place < np.repeat(seen[:, k], 900)].astype(np.float64)
        threshold = cherenkov_threshold(local.refractivity)[0]
        used = used[used[:, 0] > threshold]
        if above < 30 or not len(used):
            continue
        metres = 0.01 * RADIATION_LENGTH / local.density[0]
        x = metres * used[:, 1:3]
        axis = np.column_stack([used[:, 3:], np.sqrt(1 - used[:, 3] ** 2 - used[:, 4] ** 2)])
        sine2 = 2 * local.refractivity[0] * (1 - (threshold / used[:, 0]) ** 2)
        across = np.cross(axis, [1.0, 0.0, 0.0])
        across /= np.linalg.norm(across, axis=1)[:, None]
        turn = rng.uniform(0, 2 * np.pi, len(used))[:, None]
        side = across * np.cos(turn) + np.cross(axis, across) * np.sin(turn)
        ray = axis * np.sqrt(1 - sine2)[:, None] + side * np.sqrt(sine2)[:, None]
        landing = x + ray[:, :2] / ray[:, 2:] * above
        radius = np.hypot(*landing.T)
        radial = (x * landing).sum(axis=1) / radius
        weight = sine2 / axis[:, 2] * every * cascade.PLANE_STEP * metres / n
        photons.append(np.stack([radius, (radius - radial) / above, weight]))
    radius, angle, weight = np.concatenate(photons, axis=1)
    light, altitude = light_of(vertical, tracks, energy_mev, start)
    above = altitude - ARRAY_M
    ages = np.clip(cascade.age_of(DEPTH, energy_mev), AGE[0], AGE[-1])
    for low, high in ((24, 60), (90, 126), (160, 250), (290, 500)):
        inside = (radius > low) & (radius < high)
        bins = np.flatnonzero((RADIUS_EDGE[:-1] >= low) & (RADIUS_EDGE[1:] <= high))
        expected = weight[inside].sum()
        found = (light[:, bins] * RING[bins]).sum()
        # 60 showers: 3 % between their lateral distributions; interpolation near the axis 4 %.
        assert found == pytest.approx(expected, rel=0.09), (low, high)
        # Directions: the nearest node and age to each plane.
        by_table, shares = [], []
        for k in np.flatnonzero(above > 100):
            i, j = np.argmin(np.abs(vertical.height - above[k])), np.argmin(np.abs(AGE - ages[k]))
            centre = (RADIUS_EDGE[bins] + RADIUS_EDGE[bins + 1])[:, None] / 2
            by_table.append(((centre - vertical.radial[i, j, bins]) / above[k]).ravel())
            shares.append(np.repeat(light[k, bins] * RING[bins], vertical.radial.shape[3]))
        by_table, shares = np.concatenate(by_table), np.concatenate(shares)
        for share in (0.25, 0.5, 0.75):
            expected = _quantile(angle[inside], weight[inside], share)
            assert _quantile(by_table, shares, share) == pytest.approx(expected, rel=0.12)


def _quantile(values, weights, share):
    order = np.argsort(values)
    return np.interp(share, np.cumsum(weights[order]) / weights.sum(), values[order])


def test_steps(draft):
    grid, light = draft
    profile, optics = teide_profile(), OpticsConfig()
    cosine = np.cos(np.radians(20))
    ground = air_at(np.array([ARRAY_M]), profile).thickness[0] / cosine
    size = np.diff(grid.depth)
    np.testing.assert_allclose(size, size[0])
    assert size[0] == pytest.approx(15, rel=0.01)
    assert grid.depth[0] - size[0] / 2 == pytest.approx(1.0)
    assert grid.depth[-1] + size[0] / 2 == pytest.approx(ground)
    assert grid.height_edge[-1] == 0
    assert np.all(np.diff(grid.height_edge) < 0)
    altitude = ARRAY_M + grid.height_edge[1:] * cosine
    depth = air_at(altitude, profile).thickness / cosine
    np.testing.assert_allclose(depth, grid.depth + size[0] / 2, rtol=1e-6)
    # Where the air hardly changes within a step, its path is its length.
    path = grid.light / grid.light_yield / optics.mirror_area_m2
    np.testing.assert_allclose(path[10:], -np.diff(grid.height_edge)[10:], rtol=2e-3)
    centre = ARRAY_M + cosine * (grid.height_edge[1:] + grid.height_edge[:-1]) / 2
    expected = EFFICIENCY_HEADROOM * light_yield(centre, profile, AtmosphereConfig(), cosine)
    np.testing.assert_allclose(grid.light_yield[10:], expected[10:], rtol=2e-3)
    # n - 1 is proportional to the density here, and its integral to the depth.
    np.testing.assert_allclose(
        grid.delay, 0.01 * (ground - grid.depth) * 2.8275e-4 / 1.225e-3, rtol=2e-3
    )
    for values in (*grid[:-2], *light):
        assert np.all(np.isfinite(values))
    assert np.all((grid.node_fraction >= 0) & (grid.node_fraction <= 1))
    assert light.density.shape == (len(grid.depth), len(AGE), len(light.radius))
    assert light.radial.shape[0] > grid.node.max() + 1
    assert light.radial.dtype == light.tangential.dtype == np.float32


def test_throughput_and_fineness_of_steps():
    def grid(throughput, step):
        optics = OpticsConfig(throughput=throughput)
        shower = ShowerConfig(tables="draft", step_depth=step)
        return light_tables(AtmosphereConfig(), shower, optics, np.radians(20.0))[0]

    np.testing.assert_allclose(grid(0.5, 30.0).light, 0.5 * grid(1.0, 30.0).light)
    assert len(grid(1.0, 30.0).depth) == pytest.approx(len(grid(1.0, 15.0).depth) / 2, abs=1)


def test_zenith_beyond_the_model():
    with pytest.raises(AstriError, match="61 deg: the atmosphere is modelled as flat layers"):
        light_tables(AtmosphereConfig(), ShowerConfig(), OpticsConfig(), np.radians(61.0))


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Tiny tables in a fresh cache, and the number of times they were built."""
    built = []

    def build(*args, **options):
        built.append(options)
        return build_nodes(*args, **{**options, "fine": TINY})

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tables, "build_nodes", build)

    def get(zenith=0.0, **options):
        config = AtmosphereConfig(**options)
        return light_tables(config, ShowerConfig(), OpticsConfig(), zenith)[1]

    get.built, get.folder = built, tmp_path / "astri_gpu"
    return get


def test_tables_are_kept(counted):
    first, again = counted(), counted()
    assert len(counted.built) == 1
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    counted(aerosol_optical_depth=0.5)  # changes the yield only
    assert len(counted.built) == 1
    counted(magnetic_field_ut=10.0)
    counted(observation_level_m=1000.0)
    counted(zenith=0.2)
    assert len(counted.built) == 4
    assert len(list(counted.folder.glob("light-*.npz"))) == 4
    assert not list(counted.folder.glob("*.part"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_made_again(counted, damage):
    first = counted()
    (file,) = counted.folder.glob("light-*.npz")
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    file.write_bytes(
        {"cut": content[:-5000], "flipped": content, "empty": b"", "other": b"a" * 500}[damage]
    )
    again = counted()
    assert len(counted.built) == 2
    np.testing.assert_array_equal(first.density, again.density)
    counted()
    assert len(counted.built) == 2


def test_a_cache_that_cannot_be_written_is_no_error(counted, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    counted()
    counted()
    assert len(counted.built) == 2
