"""The closed form of electromagnetic showers against the cascades that it stands for."""

import numpy as np
import pytest
from scipy import stats

from astri_gpu.kernels import hadron_physics
from astri_gpu.kernels.loops import cascade
from astri_gpu.kernels.shower import electrons
from astri_gpu.kernels.simulation_types import CRITICAL_ENERGY_GEV, RADIATION_LENGTH
from astri_gpu.simulation.atmosphere import teide_profile
from astri_gpu.simulation.light_build import FIELD_ACROSS, make_medium

GROUND = 60.0  # radiation lengths: deep enough for 1 TeV
DEPTH = cascade.PLANE_STEP * np.arange(cascade.N_PLANES)  # radiation lengths from the conversion
NUMBER = {10.0: 2500, 100.0: 800, 1000.0: 150}


def deep_air():
    """Return the air over Teide, going on below the sea as dense as there."""
    medium = make_medium(
        teide_profile(), observation_m=0.0, field_ut=FIELD_ACROSS * 38.7, cos_zenith=1.0
    )
    more = int(GROUND / cascade.AIR_STEP) + 3 - len(medium.air)
    return medium._replace(air=np.append(medium.air, np.full(more, medium.air[-1])), ground=GROUND)


@pytest.fixture(scope="module")
def profiles():
    """Return the electrons of cascades of gammas on the planes, by energy in GeV."""
    found = {}
    for energy, n in NUMBER.items():
        u = (np.arange(n) + 0.5) / n
        none = np.zeros(n, np.int64)
        given = cascade.Cascades(
            np.full(n, 1e3 * energy), np.maximum(-9 / 7 * np.log(u), 0.03), none, none, 2_000_000
        )
        found[energy] = np.zeros((n, cascade.N_PLANES), np.float32)
        cascade.run_cascades(
            given,
            deep_air(),
            cascade.physics_table(),
            np.full((n, cascade.N_PLANES), -1, np.int32),
            7,
            8,
            np.empty((2, cascade.STACK_SIZE, cascade.STACK_COLUMNS)),
            np.zeros((1, 1, cascade.ELECTRON_COLUMNS), np.float32),
            np.zeros((n, 1), np.int64),
            found[energy],
        )
    return {energy: tracks.astype(np.float64) for energy, tracks in found.items()}


def centroids(tracks):
    return tracks @ DEPTH / tracks.sum(axis=1)


@pytest.mark.parametrize("energy", NUMBER)
def test_profile_is_the_mean_of_cascades_at_the_same_centroid(profiles, energy):
    tracks = profiles[energy]
    shift = centroids(tracks) - centroids(tracks).mean()
    moved = np.stack(
        [np.interp(DEPTH + s, DEPTH, t, right=0.0) for s, t in zip(shift, tracks, strict=True)]
    )
    mean, error = moved.mean(axis=0), moved.std(axis=0) / np.sqrt(len(moved))
    # The centroid that they are moved to is only known so well.
    error = np.hypot(error, np.abs(np.gradient(mean, DEPTH)) * shift.std() / np.sqrt(len(moved)))
    number, _ = electrons(np.asarray(energy), np.asarray(0.0), RADIATION_LENGTH * DEPTH)
    for part, spread in ((0.2, 0.015), (0.03, 0.03)):
        seen = (mean > part * mean.max()) & (DEPTH >= cascade.PLANE_STEP)
        assert np.all(np.abs(number - mean)[seen] < 4 * error[seen] + spread * mean[seen])
    assert number.sum() == pytest.approx(mean.sum(), rel=0.015)
    assert number @ DEPTH / number.sum() == pytest.approx(
        centroids(tracks).mean(), abs=0.08 + 3 * shift.std() / np.sqrt(len(shift))
    )
    track = tracks.sum(axis=1).mean() * cascade.PLANE_STEP
    assert track / (energy / CRITICAL_ENERGY_GEV) == pytest.approx(0.506, rel=0.006)


@pytest.mark.parametrize("energy", NUMBER)
def test_centroids_fluctuate_as_drawn(profiles, energy):
    shift = RADIATION_LENGTH * centroids(profiles[energy])
    shift -= shift.mean()
    n = len(shift)
    # With the kurtosis of Gumbel's distribution (5.4) a spread is known to 1.05 / sqrt(n).
    assert shift.std() == pytest.approx(hadron_physics.SHIFT, rel=0.02 + 4 / np.sqrt(n))
    scale = hadron_physics.SHIFT_SCALE
    drawn = stats.gumbel_r(-hadron_physics.SHIFT_MEAN * scale, scale)
    assert stats.kstest(shift, drawn.cdf).statistic < 0.03 + 1.5 / np.sqrt(n)
