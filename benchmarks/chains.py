"""Contestants of the comparison in memory: our chain on a backend, ctapipe's functions in a loop.

Ours starts from ADC counts and computes every column of DL1b. ctapipe's starts from calibrated
charges and makes fewer parameters: the ratio flatters it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import Backend, ImageChain, make_backend
from astri_gpu.config import ProcessConfig, compose
from astri_gpu.instrument import CameraDescription
from astri_gpu.kernels.image_chain import calibrated_images
from astri_gpu.kernels.image_types import (
    COUNT_COLUMNS,
    CameraArrays,
    ImageResult,
    ImageSettings,
)
from astri_gpu.stages.images import camera_arrays, image_settings

from .astri_images import AstriEvents

__all__ = [
    "Setup",
    "charges",
    "ctapipe_chain",
    "largest_difference",
    "our_chain",
    "our_stream",
    "setup",
    "worst_difference",
]

HALF_TURN = {"hillas_psi": 180.0, "astri_delta": np.pi}  # the same axis again
HILLAS = ("intensity", "fov_lon", "fov_lat", "length", "width", "psi", "skewness", "kurtosis")


@dataclass(frozen=True)
class Setup:
    """ASTRI images with the default configuration of `astri-gpu process`."""

    events: AstriEvents
    config: ProcessConfig
    camera: CameraArrays
    settings: ImageSettings

    @property
    def description(self) -> CameraDescription:
        return self.events.layout.cameras[0]

    def rows(self, first: int, last: int) -> tuple[NDArray[Any], ...]:
        """Return ADC counts, calibration index and is_shower of some images."""
        n_images = last - first
        return (
            self.events.adc[first:last],
            self.events.tel_index[first:last],
            np.ones(n_images, dtype=np.bool_),
        )


def setup(events: AstriEvents) -> Setup:
    """Return the chain's inputs for the default configuration."""
    config = compose("process", ["input=none", "output=none"])
    camera = events.layout.cameras[0]
    return Setup(events, config, camera_arrays(camera, config), image_settings(camera, config))


def our_chain(made: Setup, name: str, *, threads: int = 0) -> tuple[Backend, Callable[..., Any]]:
    """Return a backend and a function from (first, last) to the result of these images."""
    backend = make_backend(name, threads)
    chain = _chain(made, backend)

    def run(first: int, last: int) -> ImageResult:
        result = chain(*made.rows(first, last))
        backend.synchronize(result.columns)
        return result

    return backend, run


def our_stream(made: Setup, name: str, batch: int) -> Callable[[int, int], None]:
    """Return a function that takes the images from first to last to columns in host memory.

    As many batches are in flight as the stages would have.
    """
    backend = make_backend(name)
    chain = _chain(made, backend)

    def run(first: int, last: int) -> None:
        waiting: deque[Callable[[], ImageResult]] = deque()
        for start in range(first, last, batch):
            waiting.append(chain.start(*made.rows(start, min(start + batch, last))))
            if len(waiting) == backend.pipeline_depth:
                waiting.popleft()()
        for finish in waiting:
            finish()

    return run


def _chain(made: Setup, backend: Backend) -> ImageChain:
    return backend.image_chain(
        made.camera,
        made.events.calibration,
        made.settings,
        n_samples=0,
        adc_dtype=made.events.adc.dtype,
        dense=False,
    )


def largest_difference(
    columns: dict[str, NDArray[Any]], reference: dict[str, NDArray[Any]]
) -> dict[str, float]:
    """Return, per column, the largest difference from a reference, relative to its scale.

    The scale of a value is its size, and at least a hundredth of the column's median size, so that
    what passes through zero (angles, asymmetries) is compared with something; angles of the axis
    are compared modulo 180 degrees. NaN on one side only counts as infinite.
    """
    worst = {}
    for name, wanted in reference.items():
        found = np.asarray(columns[name], dtype=np.float64)
        wanted = np.asarray(wanted, dtype=np.float64)
        if (np.isnan(found) != np.isnan(wanted)).any():
            worst[name] = float("inf")
            continue
        known = ~np.isnan(wanted)
        if not known.any():
            continue
        difference = np.abs(found[known] - wanted[known])
        if name in HALF_TURN:
            difference = np.minimum(difference, np.abs(HALF_TURN[name] - difference))
        size = np.abs(wanted[known])
        scale = np.ones_like(size) if name in COUNT_COLUMNS else size
        scale = np.maximum(scale, max(0.01 * float(np.median(size)), 1e-12))
        worst[name] = float(np.max(difference / scale))
    return worst


def worst_difference(
    columns: dict[str, NDArray[Any]], reference: dict[str, NDArray[Any]]
) -> tuple[float, str]:
    """Return the largest of all differences (see `largest_difference`) and its column."""
    differences = largest_difference(columns, reference)
    worst = max(differences, key=lambda name: differences[name])
    return differences[worst], worst


def charges(made: Setup, first: int, last: int) -> NDArray[np.float32]:
    """Return calibrated charges in p.e., (image, pixel)."""
    adc, index, _ = made.rows(first, last)
    images = calibrated_images(
        adc, index, made.camera, made.events.calibration, settings=made.settings
    )
    return np.asarray(images.charge)


def ctapipe_chain(made: Setup, charge: NDArray[np.float32]) -> Callable[[], dict[str, Any]]:
    """Return a function that runs ctapipe image by image and returns columns by our names.

    ``tailcuts_clean``, ``hillas_parameters``, ``leakage_parameters``, ``concentration_parameters``
    and ``number_of_islands`` as ctapipe's ``ImageProcessor`` calls them, with the thresholds and
    the neighbours of our default. What it refuses is NaN.
    """
    import astropy.units as u
    from ctapipe.coordinates import TelescopeFrame
    from ctapipe.image import (
        concentration_parameters,
        hillas_parameters,
        leakage_parameters,
        number_of_islands,
        tailcuts_clean,
    )
    from ctapipe.image.hillas import HillasParameterizationError
    from ctapipe.instrument import CameraGeometry

    camera, cleaning = made.camera, made.config.cleaning
    n_pixels = len(camera.fov_lon)
    neighbours = np.zeros((n_pixels, n_pixels), dtype=np.bool_)
    pixel, column = np.nonzero(camera.cleaning_neighbours >= 0)
    neighbours[pixel, camera.cleaning_neighbours[pixel, column]] = True
    geometry = CameraGeometry(
        name=made.description.name,
        pix_id=np.arange(n_pixels),
        pix_x=camera.fov_lon * u.deg,
        pix_y=camera.fov_lat * u.deg,
        pix_area=camera.pixel_area * u.deg**2,
        pix_type="square",
        frame=TelescopeFrame(),
        neighbors=neighbours,
    )

    def run() -> dict[str, Any]:
        hillas = np.full((len(HILLAS), len(charge)), np.nan)
        n_left = np.zeros(len(charge), dtype=np.int32)
        for k, image in enumerate(charge):
            mask = tailcuts_clean(
                geometry,
                image,
                picture_thresh=cleaning.picture_pe,
                boundary_thresh=cleaning.boundary_pe,
                min_number_picture_neighbors=cleaning.min_picture_neighbours,
                keep_isolated_pixels=cleaning.keep_isolated,
            )
            n_left[k] = np.count_nonzero(mask)
            if n_left[k] < made.config.parameters.min_pixels:
                continue
            selected, values = geometry[mask], image[mask]
            try:
                found = hillas_parameters(selected, values)
            except HillasParameterizationError:
                continue
            leakage_parameters(geometry, image, mask)
            concentration_parameters(selected, values, found)
            number_of_islands(geometry, mask)
            for row, name in enumerate(HILLAS):
                value = getattr(found, name)
                hillas[row, k] = value.to_value("deg") if hasattr(value, "unit") else value
        columns = {f"hillas_{name}": hillas[row] for row, name in enumerate(HILLAS)}
        return columns | {"morphology_n_pixels": n_left}

    return run
