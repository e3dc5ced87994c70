"""How many particles come, and which: real rates instead of weights.

Particles are thrown in strata of energy, each with a disc of cores as wide as is needed: what is
thrown beyond it would trigger nothing. Arrival times are a Poisson process, energies follow a power
law and are thinned to the spectrum.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, log, pi, radians
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from astri_gpu.instrument import ArrayLayout
from astri_gpu.instrument.astri import mini_array
from astri_gpu.kernels.random import key_of, philox, poisson, uniform
from astri_gpu.kernels.simulation_types import ProductionSettings, Stream
from astri_gpu.power_law import integral
from astri_gpu.selection.spectra import flux_density
from astri_gpu.simulation.plan import GEV_PER_TEV, PARTICLES
from astri_gpu.simulation.writer import NS

if TYPE_CHECKING:
    from astri_gpu.config_observation import SimulateObservationConfig

__all__ = ["Stratum", "seed_of", "strata"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HADRON_RADII = ((1.0, 720.0), (5.0, 780.0), (10.0, 850.0), (30.0, 1000.0), (np.inf, 1500.0))
"""Highest energy (TeV) and radius (m) within which 99.9 % of the triggering protons at 20 deg from
the zenith have their core (99 % above 30 TeV), from productions with a disc of 2000 m."""
GAMMA_RADII = ((1.0, 800.0), (10.0, 1600.0), (np.inf, 2000.0))
"""The same for electromagnetic showers: beyond these the bound of light that every production
begins with (`kernels.shower.is_candidate`) leaves nothing."""
RADII = {
    "gamma": GAMMA_RADII,
    "electron": GAMMA_RADII,
    "proton": HADRON_RADII,
    "helium": HADRON_RADII,
}
NEAR_ZENITH_DEG = 25.0  # up to which the radii above are used as they are
NODES = 400  # energies at which a spectrum is compared with the power law above it
STEEPEST, FLATTEST = -6.0, 0.0
MARGIN = 1.001  # of a power law above a spectrum that is curved between two nodes
LEAST_PE = {"gamma": 1.7, "electron": 1.7, "proton": 2.6, "helium": 2.6}
"""Expected photo-electrons of an image below which it is not drawn, in units of the least that can
make a trigger (5 pixels of 7 p.e.). In a dark night none of 6500 images of gammas and electrons
that triggered was expected to have less than 65, none of 6550 of protons less than 90."""
REJECT_PE = 1.7
"""Bound of light of a shower, in the same unit, below which it is not developed. It is a bound for
gammas; of the protons that trigger it loses 0.2 % (single far telescopes), no gamma of 5000."""


@dataclass(frozen=True)
class Stratum:
    """Particles of one kind and range of energies."""

    particle: str
    settings: ProductionSettings
    """What is thrown; zenith angle 0, to be replaced."""
    rate_hz: float
    """Of particles thrown, before thinning."""
    flux: str
    norm: float
    """Of the power law above the spectrum, in its unit at 1 TeV."""
    thinned: bool

    def count(self, block: int, seconds: float) -> int:
        """Return how many are thrown in a block of the run; random numbers are named by it."""
        word = philox(np.array([block], np.uint32), Stream.TIME << 24 | 1, 0, 0, key=self._key)
        return int(poisson(np.array([self.rate_hz * seconds]), word[0], word[1])[0])

    def times(self, number: NDArray[np.uint32], seconds: float) -> tuple[Ints, Floats]:
        """Return when particles come, ns after the begin of their block, and a number in (0, 1).

        The number decides whether the particle is kept (see `kept`).
        """
        words = philox(number, Stream.TIME << 24, 0, 0, key=self._key)
        # Two words: the cells of one are some ns wide.
        moment = (uniform(words[0]) + (uniform(words[1]) - 0.5) * 2.0**-32) * seconds * NS
        return moment.astype(np.int64), uniform(words[2])

    def kept(self, energy_gev: Floats, chance: Floats) -> NDArray[np.bool_]:
        """Return which particles belong to the spectrum and not only to the power law above it."""
        if not self.thinned:
            return np.ones(len(energy_gev), dtype=bool)
        energy = energy_gev / GEV_PER_TEV
        wanted = flux_density(self.flux, self.particle, energy)
        return chance * self.norm * energy**self.settings.spectral_index < wanted

    @property
    def _key(self) -> tuple[int, int]:
        return key_of(self.settings.seed)


def seed_of(seed: int, *names: object) -> int:
    """Return a seed of 64 bits that depends on all of its arguments."""
    text = repr((seed, *names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def strata(
    config: "SimulateObservationConfig", layout: ArrayLayout, zenith_deg: float
) -> Iterator[Stratum]:
    """Yield what is thrown, gammas first.

    Parameters
    ----------
    config
        Of the run.
    layout
        Telescopes.
    zenith_deg
        Largest zenith angle of the run: showers are farther away there, and their light reaches
        farther, in proportion to 1 / cos.

    Raises
    ------
    UsageError
        For a spectrum that is not known.
    """
    # The radii are those of the built-in array: what a larger one has beyond it is added.
    larger = max(0.0, _size(layout) - _size(mini_array()))
    farther = max(1.0, cos(radians(NEAR_ZENITH_DEG)) / cos(radians(zenith_deg)))
    factors = {"gamma": config.gamma_factor}
    factors |= dict.fromkeys(config.background, config.background_factor)
    trigger_pe = config.camera.trigger_pixels * config.camera.trigger_threshold_pe
    for particle, factor in factors.items():
        cone = 0.0 if particle == "gamma" else radians(config.cone_max_deg)
        solid = 1.0 if particle == "gamma" else 2 * pi * (1 - cos(cone))
        lower, highest = PARTICLES[particle].energy_min_tev, PARTICLES[particle].energy_max_tev
        flux = getattr(config.flux, particle)
        for place, (upper, radius) in enumerate(RADII[particle]):
            upper = min(upper, highest)
            if upper <= lower:
                continue
            radius = farther * radius + larger
            index, norm, thinned = _above(flux, particle, lower, upper)
            rate = factor * norm * integral(index, lower, upper) * pi * radius**2 * solid
            if rate > 0:
                settings = ProductionSettings(
                    primary=PARTICLES[particle].number,
                    seed=seed_of(config.seed, particle, place),
                    energy_min_gev=lower * GEV_PER_TEV,
                    energy_max_gev=upper * GEV_PER_TEV,
                    spectral_index=index,
                    scatter_radius_m=radius,
                    cone_min_rad=0.0,
                    cone_max_rad=cone,
                    n_uses=1,
                    zenith_rad=0.0,
                    thinning=config.shower.thinning,
                    min_image_pe=LEAST_PE[particle] * trigger_pe,
                    reject_pe=REJECT_PE * trigger_pe,
                )
                yield Stratum(particle, settings, float(rate), flux, norm, thinned)
            lower = upper


def _above(flux: str, particle: str, low: float, high: float) -> tuple[float, float, bool]:
    """Return index and norm of a power law that no part of a spectrum exceeds, and if any is less.

    The index is that of the spectrum between both ends.
    """
    energy = np.geomspace(low, high, NODES)
    density = flux_density(flux, particle, energy)
    index = FLATTEST
    if density[0] > 0 and density[-1] > 0:
        index = float(np.clip(log(density[-1] / density[0]) / log(high / low), STEEPEST, FLATTEST))
    ratio = density / energy**index
    norm = float(ratio.max())
    thinned = bool(ratio.min() < norm * (1 - 1e-6))
    return index, norm * (MARGIN if thinned else 1.0), thinned


def _size(layout: ArrayLayout) -> float:
    return float(np.max(np.hypot(layout.x, layout.y)))
