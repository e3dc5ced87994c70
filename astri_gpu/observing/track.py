"""Where the array points while the sky turns: a direction of the sky, seen from the site."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3.sky import Site, to_altaz
from astri_gpu.simulation.frame import axes_of, tangent_of

__all__ = ["Track"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Track:
    """Target and pointing of a run; directions of the sky in ICRS, deg."""

    ra_deg: float
    dec_deg: float
    ra_pnt_deg: float
    dec_pnt_deg: float
    site: Site
    start_s: int
    """UTC seconds since 2020-01-01."""

    def pointing(self, seconds: Floats) -> tuple[Floats, Floats]:
        """Return altitude and azimuth (deg) of the pointing, `seconds` after the start."""
        return self._seen(self.ra_pnt_deg, self.dec_pnt_deg, seconds)

    def source(self, seconds: Floats) -> tuple[Floats, Floats]:
        """Return the target in the tangent plane of the pointing, (lon, lat).

        The telescopes stand on altitude-azimuth mounts: the field turns in their cameras.
        """
        axes = axes_of(*self.pointing(seconds))
        return tangent_of(axes, *self._seen(self.ra_deg, self.dec_deg, seconds))

    def _seen(self, ra: float, dec: float, seconds: Floats) -> tuple[Floats, Floats]:
        place = to_altaz(ra, dec, self.start_s + np.asarray(seconds, np.float64), self.site)
        return np.asarray(place.alt), np.asarray(place.az)
