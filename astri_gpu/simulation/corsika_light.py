"""From photon bunches of CORSIKA to photo-electrons in the focal plane.

A bunch counts when it passes the aperture, a disc of radius a about the centre of the telescope's
sphere, perpendicular to the pointing. Its photons become photo-electrons with the probability

    throughput x transmission x optics.throughput x mirror area / (pi a^2),

as in the model of our own showers: losses of mirrors, window and detector, of the air from the
height of emission to the array, and the share of the aperture that is left after obscuration.
Bunches without a wavelength hold photons from 1/l^2 (Frank and Tamm 1937) between the limits of the
file, and the probability is the mean over that spectrum: every photon has a wavelength of its own,
so this is what drawing them one by one gives.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_simulation import SimulateConfig
from astri_gpu.io.iact import Bunches
from astri_gpu.kernels.random import key_of, philox, poisson, uniform
from astri_gpu.kernels.simulation_types import EFFICIENCY_HEADROOM, SPEED_OF_LIGHT, Stream
from astri_gpu.simulation.atmosphere import atmosphere_profile, transmission
from astri_gpu.simulation.frame import ShowerFrame
from astri_gpu.simulation.throughput import throughput

__all__ = ["Light", "MeanEfficiency", "collect_light"]

BUNCH = 1 << 16
"""Index of the counters of bunches; flashes use small ones of the same stream."""
HEIGHT_NODES, WAVELENGTH_NODES = 128, 256
TOP_M = 120_000.0

Floats = NDArray[np.float64]


class Light(NamedTuple):
    """Photo-electrons of one image before the acceptance of its pixels, (photon,) each."""

    sky_lon: Floats  # tangent-plane direction
    sky_lat: Floats
    time: Floats  # ns after the front of the primary at H = 0


class MeanEfficiency:
    """Photo-electrons per photon that passes the aperture.

    Parameters
    ----------
    config
        Its atmosphere and optics.
    cos_zenith
        Of the pointing.
    wavelength_nm
        Limits of the spectrum of bunches without a wavelength.
    """

    def __init__(
        self, config: SimulateConfig, cos_zenith: float, wavelength_nm: tuple[float, float]
    ) -> None:
        self._profile = atmosphere_profile(config.atmosphere)
        self._config, self._cos_zenith = config, cos_zenith
        aperture = math.pi * config.optics.mirror_radius_m**2
        self._factor = (
            EFFICIENCY_HEADROOM * config.optics.throughput * config.optics.mirror_area_m2 / aperture
        )
        low = config.atmosphere.observation_level_m
        self._height = np.geomspace(1.0, TOP_M - low, HEIGHT_NODES) + low
        # Equal steps of 1/l hold equal numbers of photons.
        ends = 1.0 / np.asarray(wavelength_nm)
        step = (np.arange(WAVELENGTH_NODES) + 0.5) / WAVELENGTH_NODES
        wave = 1.0 / (ends[0] + (ends[1] - ends[0]) * step)
        self._mean = self._at(wave[None, :], self._height[:, None]).mean(axis=1)

    def _at(self, wavelength_nm: Floats, height_m: Floats) -> Floats:
        arriving = transmission(
            wavelength_nm, height_m, self._profile, self._config.atmosphere, self._cos_zenith
        )
        return throughput(wavelength_nm) * arriving * self._factor

    def __call__(self, wavelength_nm: Floats, height_m: Floats) -> Floats:
        """Return the probability of photons, by wavelength (0 = not drawn) and emission height."""
        drawn = wavelength_nm > 0
        one_by_one = self._at(np.where(drawn, wavelength_nm, 400.0), height_m)
        return np.where(drawn, one_by_one, np.interp(height_m, self._height, self._mean))


def collect_light(
    bunches: Bunches,
    efficiency: MeanEfficiency,
    frame: ShowerFrame,
    mirror_radius_m: float,
    *,
    counter: tuple[int, int],
    seed: int,
    time_offset_ns: float = 0.0,
) -> Light:
    """Return the photo-electrons that the bunches of one telescope make.

    A bunch of at most one photon makes one or none, larger ones a Poisson number. Random numbers
    are named by (shower, image) and the number of the bunch in the file.

    Parameters
    ----------
    bunches, efficiency
        What arrives, and how much of it is seen.
    frame
        Of the pointing.
    mirror_radius_m
        Radius of the aperture.
    counter
        Words (shower, use << 8 | telescope) of the random counters.
    seed
        Of the production.
    time_offset_ns
        Added to the times.
    """
    flight = np.stack([bunches.flight_x, bunches.flight_y])
    down = np.sqrt(np.maximum(1.0 - (flight**2).sum(axis=0), 0.0))
    flight = np.concatenate([flight, -down[None]])
    place = np.stack([bunches.x, bunches.y, np.zeros_like(bunches.x)])
    e_lon, e_lat, n = frame.axes
    towards = -(n @ flight)  # cosine between light and pointing
    # On to the plane of the aperture, along the flight.
    way = (n @ place) / np.where(towards > 0, towards, 1.0)
    landing = place + way * flight
    inside = (towards > 0) & ((landing**2).sum(axis=0) <= mirror_radius_m**2)

    mean = bunches.photons * efficiency(bunches.wavelength, bunches.emission_height)
    shower, image = counter
    words = philox(
        shower,
        Stream.LIGHT << 24 | BUNCH,
        np.arange(len(bunches.x), dtype=np.uint32),
        image,
        key=key_of(seed),
    )
    single = (uniform(words[0]) < mean).astype(np.int64)
    several = poisson(np.maximum(mean, 0.0), words[0], words[1])
    electrons = np.where(bunches.photons <= 1.0, single, several)
    row = np.repeat(np.arange(len(bunches.x)), np.where(inside, electrons, 0))
    source, along = -flight[:, row], towards[row]
    return Light(
        sky_lon=(e_lon @ source) / along,
        sky_lat=(e_lat @ source) / along,
        time=bunches.time[row] + way[row] / SPEED_OF_LIGHT + time_offset_ns,
    )
