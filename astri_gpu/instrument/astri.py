"""The ASTRI camera and a stand-in for the ASTRI Mini-Array, built in.

The camera is the one of the sim_telarray telescope "ASTRI" (2368 pixels, ctapipe's
``SST_2M_ASTRI_ASTRICam``). Its 56 x 56 pixel positions, read from the prod3 file
``calib_events.simtel.gz``, follow to better than 1 micrometre from four numbers: modules on a flat
grid of 58.8 mm, pixels 7.175 mm apart within a module, modules tilted by 3.2 degrees for each
module from the centre (so that the projected pitch shrinks from 7.175 to 7.075 mm), and a sphere
of 1.06 m. The gaps between modules are 8.6 mm in the centre and 9.1 mm at the rim. Pixels are
numbered as in that file. A test compares every pixel.

Nothing here says how the real cameras on Teide number their pixels, and the coordinates of the
real telescopes are not public.
"""

import numpy as np

from astri_gpu.instrument.camera import (
    ArrayLayout,
    CameraDescription,
    CameraGeometry,
    Optics,
    Readout,
)

__all__ = ["astri_camera", "astri_geometry", "mini_array"]

MODULES_PER_ROW = (3, 5, 7, 7, 7, 5, 3)
PIXELS_PER_SIDE = 8
MODULE_PITCH_M = 58.8e-3
PIXEL_PITCH_M = 7.175e-3
PIXEL_SIDE_M = 6.975e-3
TILT_PER_MODULE_DEG = 3.2
FOCAL_SURFACE_RADIUS_M = 1.06

FOCAL_LENGTH_M = 2.150
MIRROR_AREA_M2 = 14.5626
SAMPLE_NS = 2.0  # time slice in the prod3 file; the peak detector gives one value whatever it is

# astri.inaf.it and gammapy's observatory_locations["astri"]: 28d18m00s N, 16d30m20.99s W, 2370 m.
LATITUDE_DEG = 28.3
LONGITUDE_DEG = -(16 + 30 / 60 + 20.99 / 3600)
ALTITUDE_M = 2370.0

# Columns of 2 and 1 telescopes in turn, 130 m apart: (east, north) in m.
STAND_IN_EAST_NORTH = (
    (-325.0, 135.0),
    (-325.0, -135.0),
    (-195.0, 0.0),
    (-65.0, 135.0),
    (-65.0, -135.0),
    (65.0, 0.0),
    (195.0, 135.0),
    (195.0, -135.0),
    (325.0, 0.0),
)
STAND_IN_NOTE = (
    "The true telescope coordinates of the ASTRI Mini-Array are not public. This layout is a "
    "stand-in: nine telescopes in a strip of 650 m (east) by 270 m (north), neighbours 190 to "
    "270 m apart, longest baseline 664 m, all at one height."
)


def astri_geometry() -> CameraGeometry:
    """Return the ASTRI camera: 37 modules of 8 x 8 square pixels on a sphere.

    Modules are numbered by rows from low to high y and by x within a row, pixels by module, then
    by rows from low to high y, then by x. `pix_z` is 0 in the centre and negative outside, as in
    sim_telarray.

    Returns
    -------
    geometry
        2368 pixels; positions in m, areas in m2.
    """
    # Centres of the pixels of a module along one axis, in units of the pitch: -3.5 ... 3.5
    offset = np.arange(PIXELS_PER_SIDE) - (PIXELS_PER_SIDE - 1) / 2
    x, y = [], []
    half = (len(MODULES_PER_ROW) - 1) // 2
    for row, n_modules in enumerate(MODULES_PER_ROW):
        for column in range(n_modules):
            steps = np.array([column - (n_modules - 1) // 2, row - half])
            pitch = PIXEL_PITCH_M * np.cos(np.deg2rad(TILT_PER_MODULE_DEG * steps))
            centre = MODULE_PITCH_M * steps
            x.append(np.tile(centre[0] + pitch[0] * offset, PIXELS_PER_SIDE))
            y.append(np.repeat(centre[1] + pitch[1] * offset, PIXELS_PER_SIDE))
    pix_x, pix_y = np.concatenate(x), np.concatenate(y)
    n_pixels = len(pix_x)
    r2 = pix_x**2 + pix_y**2
    return CameraGeometry.from_pixels(
        "ASTRICam",
        pix_x,
        pix_y,
        np.full(n_pixels, PIXEL_SIDE_M**2),
        "square",
        pix_z=np.sqrt(FOCAL_SURFACE_RADIUS_M**2 - r2) - FOCAL_SURFACE_RADIUS_M,
        module=np.arange(n_pixels) // PIXELS_PER_SIDE**2,
    )


def astri_camera() -> CameraDescription:
    """Return the ASTRI camera with its readout and optics.

    Two gains (high, low), one value per gain and pixel: the peak detector leaves no waveform, so
    the reference pulse is a single 1 and needs no integration correction. The effective focal
    length and the ADC value of saturation are not public and stay None.
    """
    return CameraDescription(
        geometry=astri_geometry(),
        readout=Readout(
            n_gains=2,
            n_samples=1,
            sampling_rate_ghz=1 / SAMPLE_NS,
            reference_pulse=np.ones((2, 1)),
            reference_pulse_step_ns=SAMPLE_NS,
        ),
        optics=Optics(
            name="ASTRI",
            focal_length_m=FOCAL_LENGTH_M,
            effective_focal_length_m=None,
            mirror_area_m2=MIRROR_AREA_M2,
            n_mirrors=2,
        ),
    )


def mini_array() -> ArrayLayout:
    """Return nine ASTRI telescopes at the Teide site, at made-up positions (see its `note`)."""
    east, north = np.array(STAND_IN_EAST_NORTH).T
    n_telescopes = len(east)
    return ArrayLayout(
        name="ASTRI Mini-Array (stand-in layout)",
        tel_id=np.arange(1, n_telescopes + 1, dtype=np.uint16),
        x=north,
        y=-east,
        z=np.zeros(n_telescopes),
        camera_index=np.zeros(n_telescopes, dtype=np.int32),
        cameras=(astri_camera(),),
        latitude_deg=LATITUDE_DEG,
        longitude_deg=LONGITUDE_DEG,
        altitude_m=ALTITUDE_M,
        note=STAND_IN_NOTE,
    )
