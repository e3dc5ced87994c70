"""Cameras as plain arrays: pixel geometry, neighbours, readout, optics and the array layout.

Pixel positions are in ctapipe's ``CameraFrame`` after derotation: x and y in metres in the focal
plane, x pointing up in altitude and y along azimuth once divided by the focal length.
Where ctapipe has the same quantity, the definition here is ctapipe's (0.28), so that images of the
same file give the same numbers in both; the tests compare the two.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument.neighbours import (
    NO_NEIGHBOUR,
    PixelShape,
    check_shape,
    pixel_neighbours,
    rotate,
)
from astri_gpu.instrument.readout import Optics, Readout

__all__ = [
    "NO_NEIGHBOUR",
    "ArrayLayout",
    "CameraDescription",
    "CameraGeometry",
    "Optics",
    "PixelShape",
    "Readout",
    "TelescopeGeometry",
    "pixel_neighbours",
    "rotate",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def _pixel_width(area: Floats, shape: PixelShape) -> Floats:
    if shape == "hexagon":
        return 2 * np.sqrt(area / (2 * np.sqrt(3)))
    if shape == "square":
        return np.sqrt(area)
    return 2 * np.sqrt(area / np.pi)


def _mean_border_distance(x: Floats, y: Floats, border: Bools) -> float:
    if not border.any():
        return float("nan")
    return float(np.sqrt((x[border] - x.mean()) ** 2 + (y[border] - y.mean()) ** 2).mean())


class TelescopeGeometry(NamedTuple):
    """A camera seen on the sky: what the image kernels need, in degrees.

    All arrays are (pixel,): `fov_lon`, `fov_lat` and `pixel_width` in deg, `pix_area` in deg2,
    `border_1` and `border_2` bool (True = in the outermost one or two rows). `radius_deg` is the
    mean distance of the border pixels from the camera centre.
    """

    fov_lon: Floats
    fov_lat: Floats
    pix_area: Floats
    pixel_width: Floats
    border_1: Bools
    border_2: Bools
    radius_deg: float


@dataclass(frozen=True, eq=False)
class CameraGeometry:
    """Pixels of one camera.

    `pix_x`, `pix_y`, `pix_z` (m) and `pix_area` (m2) are float64 (pixel,); `neighbours` and
    `neighbours_diagonal` int32 (pixel, neighbour) padded with -1; `module` int32 (pixel,), the
    number of the module that a pixel belongs to, -1 where it is not known.
    """

    name: str
    pix_x: Floats
    pix_y: Floats
    pix_z: Floats
    pix_area: Floats
    shape: PixelShape
    neighbours: NDArray[np.int32]
    neighbours_diagonal: NDArray[np.int32]
    module: NDArray[np.int32]

    def __post_init__(self) -> None:
        check_shape(self.shape)
        expected = (len(self.pix_x),)
        for column in ("pix_x", "pix_y", "pix_z", "pix_area", "module"):
            found = getattr(self, column).shape
            if found != expected:
                raise AstriError(
                    f"Camera {self.name}: {column} is {found}, but pix_x has {expected[0]} pixels."
                )
        for column in ("neighbours", "neighbours_diagonal"):
            found = getattr(self, column).shape
            if len(found) != 2 or found[0] != expected[0]:
                raise AstriError(
                    f"Camera {self.name}: {column} is {found}, but must be ({expected[0]}, n)."
                )

    @classmethod
    def from_pixels(
        cls,
        name: str,
        pix_x: ArrayLike,
        pix_y: ArrayLike,
        pix_area: ArrayLike,
        shape: PixelShape,
        pix_z: ArrayLike | None = None,
        module: ArrayLike | None = None,
    ) -> "CameraGeometry":
        """Return a geometry with neighbours computed from (already derotated) positions.

        Parameters
        ----------
        name
            Camera name.
        pix_x, pix_y, pix_z
            Pixel centres in m, (pixel,); without `pix_z` the camera is flat (zeros).
        pix_area
            Sensitive areas in m2, (pixel,).
        shape
            Pixel shape.
        module
            Module numbers, (pixel,); -1 everywhere when left out.

        Raises
        ------
        AstriError
            When the lengths differ or the shape is unknown.
        """
        x = np.array(pix_x, dtype=np.float64)
        y = np.array(pix_y, dtype=np.float64)
        return cls(
            name=name,
            pix_x=x,
            pix_y=y,
            pix_z=np.zeros(x.shape) if pix_z is None else np.array(pix_z, dtype=np.float64),
            pix_area=np.array(pix_area, dtype=np.float64),
            shape=shape,
            neighbours=pixel_neighbours(x, y, shape, diagonal=False),
            neighbours_diagonal=pixel_neighbours(x, y, shape, diagonal=True),
            module=np.full(x.shape, -1, dtype=np.int32)
            if module is None
            else np.array(module, dtype=np.int32),
        )

    @property
    def n_pixels(self) -> int:
        """Return the number of pixels."""
        return len(self.pix_x)

    @property
    def pixel_width(self) -> Floats:
        """Return the in-circle diameter, edge or diameter of each pixel in m, (pixel,)."""
        return _pixel_width(self.pix_area, self.shape)

    @property
    def radius(self) -> float:
        """Return the mean distance of the border pixels from the mean pixel position in m."""
        return _mean_border_distance(self.pix_x, self.pix_y, self.border(1))

    def border(self, width: int = 1) -> Bools:
        """Return which pixels lie in the outermost `width` rows, bool (pixel,).

        Row 1 are the pixels with fewer edge neighbours than the best connected pixel of the
        camera, every further row adds the neighbours (ctapipe's ``get_border_pixel_mask``).

        Raises
        ------
        AstriError
            When `width` is smaller than 1.
        """
        if width < 1:
            raise AstriError(f"A border of {width} rows was asked for; it has at least one row.")
        valid = self.neighbours != NO_NEIGHBOUR
        counts = np.bincount(self.neighbours[valid], minlength=self.n_pixels)
        mask = counts < counts.max(initial=0)
        for _ in range(width - 1):
            mask = (mask[self.neighbours] & valid).any(axis=1)
        return mask

    def telescope_frame(self, focal_length_m: float) -> TelescopeGeometry:
        """Return the camera on the sky, fov_lat = x / f and fov_lon = y / f in degrees.

        The mapping and the scaling of the areas (by the squared ratio of the distance of two
        points after and before) are those of ctapipe's ``CameraGeometry.transform_to``.

        Raises
        ------
        AstriError
            When the focal length is not a positive number.
        """
        if not (np.isfinite(focal_length_m) and focal_length_m > 0):
            raise AstriError(
                f"The focal length of camera {self.name} is {focal_length_m} m, but it has to be "
                "a positive number."
            )
        fov_lon = np.rad2deg(self.pix_y / focal_length_m)
        fov_lat = np.rad2deg(self.pix_x / focal_length_m)
        width = self.pixel_width[0] if self.n_pixels else 1.0
        scale = np.rad2deg(width / focal_length_m) / width
        pix_area = self.pix_area * scale**2
        border = self.border(1)
        return TelescopeGeometry(
            fov_lon=fov_lon,
            fov_lat=fov_lat,
            pix_area=pix_area,
            pixel_width=_pixel_width(pix_area, self.shape),
            border_1=border,
            border_2=self.border(2),
            radius_deg=_mean_border_distance(fov_lon, fov_lat, border),
        )


@dataclass(frozen=True, eq=False)
class CameraDescription:
    """A camera with its readout and the optics in front of it."""

    geometry: CameraGeometry
    readout: Readout
    optics: Optics

    @property
    def name(self) -> str:
        """Return the name of the camera."""
        return self.geometry.name

    def focal_length(self, choice: str = "auto") -> float:
        """Return the focal length in m that turns camera positions into angles.

        `choice` "auto" takes the effective focal length where it is known, else the equivalent.

        Raises
        ------
        AstriError
            When "effective" is asked for and unknown.
        UsageError
            When the choice is none of the three.
        """
        effective = self.optics.effective_focal_length_m
        if choice == "equivalent" or (choice == "auto" and effective is None):
            return self.optics.focal_length_m
        if choice not in ("auto", "effective"):
            raise UsageError(
                f"The focal length '{choice}' was asked for; choose 'auto', 'effective' or "
                "'equivalent'."
            )
        if effective is None:
            raise AstriError(
                f"The effective focal length of {self.optics.name} with {self.name} is not in "
                "the data; choose focal_length 'auto' or 'equivalent'."
            )
        return effective

    def same_as(self, other: "CameraDescription") -> bool:
        """Return whether both have equal names, pixels, readout and optics."""
        mine, theirs = self.readout, other.readout
        return (
            self.optics == other.optics
            and self.name == other.name
            and self.geometry.shape == other.geometry.shape
            and all(
                np.array_equal(getattr(self.geometry, column), getattr(other.geometry, column))
                for column in ("pix_x", "pix_y", "pix_z", "pix_area", "module")
            )
            and (mine.n_gains, mine.n_samples, mine.sampling_rate_ghz, mine.saturation_adc)
            == (theirs.n_gains, theirs.n_samples, theirs.sampling_rate_ghz, theirs.saturation_adc)
            and mine.reference_pulse_step_ns == theirs.reference_pulse_step_ns
            and np.array_equal(mine.reference_pulse, theirs.reference_pulse)
        )


@dataclass(frozen=True, eq=False)
class ArrayLayout:
    """Telescopes of an array on the ground.

    `tel_id` (tel,); `x` North, `y` West, `z` up in m (tel,), relative to the array reference
    position; `camera_index` (tel,) counts in `cameras`. `altitude_m` is the observation level.
    """

    name: str
    tel_id: NDArray[np.uint16]
    x: Floats
    y: Floats
    z: Floats
    camera_index: NDArray[np.int32]
    cameras: tuple[CameraDescription, ...]
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    note: str = ""

    def __post_init__(self) -> None:
        expected = (len(self.tel_id),)
        for column in ("x", "y", "z", "camera_index"):
            found = getattr(self, column).shape
            if found != expected:
                raise AstriError(
                    f"Array {self.name}: {column} is {found} for {expected[0]} telescopes."
                )
        if expected[0] and not (
            0 <= int(self.camera_index.min()) <= int(self.camera_index.max()) < len(self.cameras)
        ):
            raise AstriError(
                f"Array {self.name}: camera_index goes from {self.camera_index.min()} to "
                f"{self.camera_index.max()}, but there are {len(self.cameras)} cameras."
            )

    @property
    def n_telescopes(self) -> int:
        """Return the number of telescopes."""
        return len(self.tel_id)

    def camera(self, tel_id: int) -> CameraDescription:
        """Return the camera of a telescope.

        Raises
        ------
        AstriError
            When the array has no such telescope.
        """
        rows = np.nonzero(self.tel_id == tel_id)[0]
        if not rows.size:
            raise AstriError(
                f"The array {self.name} has no telescope {tel_id}; it has "
                f"{', '.join(str(number) for number in self.tel_id)}."
            )
        return self.cameras[int(self.camera_index[rows[0]])]
