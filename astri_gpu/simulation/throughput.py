"""How many photo-electrons a photon makes: detectors, window and mirrors by wavelength.

ASTRI has not published these curves in a usable form. The values are our choice: the shape of the
silicon photomultipliers of the camera with their peak of about 50 % near 450 nm, a window with a
filter against the red night sky, and two aluminium mirrors with a protective coating.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["throughput"]

DETECTION_NM = (280.0, 300.0, 350.0, 450.0, 550.0, 600.0, 700.0)
DETECTION = (0.10, 0.25, 0.40, 0.50, 0.43, 0.37, 0.25)
WINDOW_NM = (280.0, 290.0, 310.0, 330.0, 560.0, 600.0, 700.0)
WINDOW = (0.0, 0.3, 0.90, 0.92, 0.92, 0.80, 0.10)
MIRROR_NM = (280.0, 300.0, 350.0, 500.0, 700.0)
MIRROR = (0.68, 0.75, 0.87, 0.87, 0.82)
"""Reflectivity of one mirror."""


def throughput(wavelength_nm: ArrayLike) -> NDArray[np.float64]:
    """Return photo-electrons per photon on the mirror; zero outside 280 to 700 nm.

    Parameters
    ----------
    wavelength_nm : any shape, nm
    """
    wavelength = np.asarray(wavelength_nm, dtype=np.float64)
    detected = np.interp(wavelength, DETECTION_NM, DETECTION, left=0.0, right=0.0)
    passed = np.interp(wavelength, WINDOW_NM, WINDOW, left=0.0, right=0.0)
    return detected * passed * np.interp(wavelength, MIRROR_NM, MIRROR) ** 2
