"""Arrays, scalars and random streams that the kernels of the simulation share.

The shower frame has its axes along the telescope frame of the array pointing: `lon` towards
growing azimuth, `lat` towards growing altitude, and H along the pointing axis, upwards from the
array reference point. A particle flies along a line x(H) = (x, y) + q H, where q = (lon, lat) is
the tangent-plane direction that it comes from. Everything here is float64: the simulation counts
photo-electrons one by one, and the two texts of a kernel have to draw the same ones.

The model is a fast one: the docstring of each kernel says what it leaves out.
"""

from enum import IntEnum
from typing import NamedTuple

from jaxtyping import Bool, Float, Integer

from ._types import Array

__all__ = [
    "CameraModel",
    "CameraSettings",
    "EmRows",
    "Events",
    "Images",
    "LightTables",
    "MuonRows",
    "OpticsModel",
    "Primaries",
    "ProductionSettings",
    "ShowerRows",
    "StepGrid",
    "Stream",
    "Telescopes",
]

CRITICAL_ENERGY_GEV = 0.081
RADIATION_LENGTH = 36.66
"""Electromagnetic units of air: critical energy in GeV and radiation length in g/cm2."""
SPEED_OF_LIGHT = 0.299792458
"""In m/ns."""
EFFICIENCY_HEADROOM = 1.1
"""`StepGrid.light` and `light_yield` hold this factor, and `CameraModel.efficiency` its inverse, so
that pixels up to 10 % better than the mean are probabilities too."""

GAMMA, ELECTRON, MUON, PROTON, HELIUM = 0, 1, 2, 101, 402
"""Primaries by their number in sim_telarray (and in true_primary_id)."""


class Stream(IntEnum):
    """What a random number is for: the upper 8 bits of the second word of a Philox counter.

    Counters are (shower, stream << 24 | index, a, b). `shower` is the number of the shower in the
    production, so that no draw depends on batches, backends or processes. `image` below stands for
    use << 8 | telescope, telescope being the row in the layout; `photon` counts the
    photo-electrons of an image.
    """

    PRIMARY = 1  # a = b = 0: energy and direction of a shower
    CORE = 2  # a = use: place of the core
    FIRST = 3  # a = b = 0: start of an electromagnetic primary
    HADRON = 4  # a, b = name of the particle in its cascade: everything it does
    NAME = 5  # a, b = name of the parent, index = child: name of the child
    COUNT = 6  # a = image: number of photo-electrons
    PHOTON = 7  # a = photon, b = image, index 0: where it was emitted
    ARRIVAL = 8  # a = photon, b = image, index 0: optics, acceptance, crosstalk
    SIGNAL = 9  # a = pixel, b = image: noise of a pixel that saw light
    NOISE = 10  # a = pixel // 2, b = image: noise of two pixels
    CAMERA = 11  # shower = telescope row, a = pixel: constants of a camera
    TIME = 12  # a = use: event time
    LIGHT = 13  # a = pixel or bunch, b = image: light that comes from no simulated shower


class ProductionSettings(NamedTuple):
    """What is thrown; hashable, static under jit."""

    primary: int  # number of the particle, see GAMMA ...
    seed: int  # key of the random numbers, 0 <= seed < 2**64
    energy_min_gev: float
    energy_max_gev: float
    spectral_index: float  # dN/dE ~ E**index, negative
    scatter_radius_m: float  # of the disc of cores, perpendicular to the pointing axis
    cone_min_rad: float
    cone_max_rad: float
    n_uses: int
    zenith_rad: float
    thinning: float = 0.004  # share of the primary energy below which sub-showers are thinned
    min_image_pe: float = 12.0  # expected photo-electrons below which an image is not drawn
    max_image_pe: int = 300_000  # photo-electrons drawn one by one; brighter images are weighted
    reject_pe: float = 25.0  # bound of `is_candidate`


class Primaries(NamedTuple):
    """Primary particles, one per shower."""

    shower: Integer[Array, " shower"]  # uint32, number in the production
    energy: Float[Array, " shower"]  # GeV, of the whole nucleus
    q_lon: Float[Array, " shower"]  # tangent-plane direction
    q_lat: Float[Array, " shower"]


class Events(NamedTuple):
    """Uses of showers."""

    shower: Integer[Array, " event"]  # row in Primaries / ShowerRows, int64
    use: Integer[Array, " event"]  # uint32
    x: Float[Array, " event"]  # m, axis of the primary at H = 0 along lon
    y: Float[Array, " event"]  # m, along lat


class EmRows(NamedTuple):
    """Electromagnetic (sub-)showers; positions relative to the axis of the primary at H = 0."""

    energy: Float[Array, " row"]  # GeV
    start: Float[Array, " row"]  # g/cm2 along its own line, where its profile starts
    x: Float[Array, " row"]  # m at H = 0, relative to the core
    y: Float[Array, " row"]
    q_lon: Float[Array, " row"]
    q_lat: Float[Array, " row"]
    weight: Float[Array, " row"]  # of thinning


class MuonRows(NamedTuple):
    """Muons that reach the ground; positions as in EmRows."""

    energy: Float[Array, " muon"]  # GeV, total, half-way down
    x: Float[Array, " muon"]
    y: Float[Array, " muon"]
    q_lon: Float[Array, " muon"]
    q_lat: Float[Array, " muon"]
    height: Float[Array, " muon"]  # H of production, m


class ShowerRows(NamedTuple):
    """What becomes of showers; the rows of shower i are [em_start[i], em_start[i + 1])."""

    em: EmRows
    em_start: Integer[Array, " shower_edge"]  # int64
    muon: MuonRows
    muon_start: Integer[Array, " shower_edge"]  # int64
    first_interaction: Float[Array, " shower"]  # g/cm2 along its own line


class Telescopes(NamedTuple):
    """Telescope positions in the shower frame, m."""

    x: Float[Array, " tel"]
    y: Float[Array, " tel"]
    z: Float[Array, " tel"]


class StepGrid(NamedTuple):
    """Steps of equal depth along the pointing axis, from the top to the ground.

    Within step k depth and height are tied by a fraction f in [0, 1] from the upper to the lower
    edge: height = edge[k] + f (edge[k + 1] - edge[k]).
    """

    depth: Float[Array, " step"]  # g/cm2 along the pointing axis, at the centre
    height_edge: Float[Array, " step_edge"]  # H in m, falling
    light: Float[Array, " step"]  # p.e. m: path length x light yield x mirror area
    node: Integer[Array, " step"]  # lower height node of the samples, int32
    node_fraction: Float[Array, " step"]  # linear weight of the upper one
    refractivity: Float[Array, " step"]  # n - 1 at the centre
    light_yield: Float[Array, " step"]  # p.e. per m of path and unit of sin^2(theta), no area
    delay: Float[Array, " step"]  # integral of n - 1 from the ground along the axis, m
    cos_zenith: float
    sin_zenith: float


class LightTables(NamedTuple):
    """Cherenkov light of a slice of an electromagnetic shower, by the age of the shower.

    `density` times `StepGrid.light` and the number of electrons above 20 MeV is the density of
    photo-electrons at a distance from the axis; between nodes it is linear in age and radius.
    A sample (radial, tangential) is the place of emission, relative to the axis, of light that
    lands in a radius bin; radial points towards the landing place.
    """

    age: Float[Array, " age"]
    radius: Float[Array, " radius"]  # m, centres of the radius bins
    density: Float[Array, "step age radius"]  # 1/m^2
    radius_edge: Float[Array, " radius_edge"]
    radial: Float[Array, "node age radius sample"]  # m, float32
    tangential: Float[Array, "node age radius sample"]  # m, float32


class OpticsModel(NamedTuple):
    """Optics, by the angle from the optical axis at equal steps from 0."""

    angle_step_rad: float
    psf_sigma_rad: Float[Array, " angle"]  # per axis
    transmission: Float[Array, " angle"]  # vignetting, 1 on axis
    focal_length_m: float
    mirror_radius_m: float  # of the aperture
    mirror_area_m2: float  # what is left of it after obscuration


class CameraModel(NamedTuple):
    """A camera of square pixels in columns and rows, and the constants of every telescope."""

    column_centre: Float[Array, " column"]  # m, rising
    row_centre: Float[Array, " row_of_pixels"]
    half_side: float  # m
    lookup_start: float  # m, same for columns and rows
    lookup_step: float  # m
    column_of: Integer[Array, " lookup"]  # nearest column or the one below, int32
    row_of: Integer[Array, " lookup"]
    pixel_of: Integer[Array, "row_of_pixels column"]  # int32, -1 = no pixel
    trigger_neighbours: Integer[Array, "pixel 4"]  # sharing an edge in the same module, -1 = none
    module: Integer[Array, " pixel"]
    efficiency: Float[Array, "tel pixel"]  # probability to accept a photo-electron, 0 = dead
    gain: Float[Array, "tel gain pixel"]  # adu per avalanche
    baseline: Float[Array, "tel gain pixel"]  # adu without light and noise
    noise_node: Integer[Array, "tel pixel"]  # lower row of `noise` (night-sky level), int32
    noise_fraction: Float[Array, "tel pixel"]  # linear weight of the next row
    noise: Float[Array, "node kind quantile"]  # avalanches, see kernels/camera.py


class CameraSettings(NamedTuple):
    """Scalars of the camera; hashable, static under jit. Times in ns."""

    crosstalk: float  # probability of one more avalanche after each avalanche
    gain_spread: float  # relative standard deviation of one avalanche
    peaking_time_ns: float  # of the slow shaper
    gate_ns: float  # of the peak detector, around the peak of light that comes with the trigger
    trigger_threshold_pe: float
    trigger_pixels: int
    coincidence_ns: float
    low_gain_noise_adu: float
    adc_max: int
    noise_step: float  # step of the quantile axis of `noise`, in -ln(1 - u)


class Images(NamedTuple):
    """Images of a batch; only those with `triggered` have meaningful counts."""

    triggered: Bool[Array, " image"]
    adc: Integer[Array, "image gain pixel"]  # uint16
    true_image: Integer[Array, "image pixel"]  # uint16, accepted photo-electrons, cut at 65535
    true_sum: Integer[Array, " image"]  # int64
    trigger_time: Float[Array, " image"]  # ns after the front of the shower passes the core
    trigger_pixel: Bool[Array, "image pixel"]
