"""Descriptions of telescopes, cameras and arrays, and the edge to astropy's frames."""

from astri_gpu.instrument.camera import (
    ArrayLayout,
    CameraDescription,
    CameraGeometry,
    Optics,
    Readout,
    TelescopeGeometry,
    pixel_neighbours,
    rotate,
)

__all__ = [
    "ArrayLayout",
    "CameraDescription",
    "CameraGeometry",
    "Optics",
    "Readout",
    "TelescopeGeometry",
    "pixel_neighbours",
    "rotate",
]
