"""What a production asks of a backend, and how the pieces of a simulation come together.

| backend | engine |
|---|---|
| cpu | `astri_gpu.kernels.loops.shower_cpu.ShowerLoops`, the loop text over threads |
| cupy | `astri_gpu.kernels.loops.shower_cuda.ShowerCuda`, the loop text on CUDA |
| numpy, jax | `astri_gpu.simulation.array_engine.ArrayEngine`, the array text |

Where CuPy works but numba-cuda does not, cupy runs the array text too.
"""

import logging
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import Backend, make_backend
from astri_gpu.config_simulation import SimulateConfig
from astri_gpu.kernels.simulation_types import (
    CameraModel,
    CameraSettings,
    Events,
    Images,
    LightTables,
    OpticsModel,
    Primaries,
    ProductionSettings,
    ShowerRows,
    StepGrid,
    Telescopes,
)
from astri_gpu.simulation.camera_model import (
    TrueConstants,
    camera_model,
    camera_settings,
    optics_model,
    true_constants,
)
from astri_gpu.simulation.plan import ProductionPlan

__all__ = ["ShowerEngine", "Simulator", "make_engine", "simulator"]

logger = logging.getLogger(__name__)


class ShowerEngine(Protocol):
    """Showers and images of one array; arrays in and out are NumPy.

    What is drawn depends on the numbers of shower, use and telescope, never on what else is in a
    call.
    """

    def primaries(self, shower: NDArray[np.uint32]) -> Primaries:
        """Return the primaries of showers, given by their numbers in the production."""

    def events(self, shower: NDArray[np.uint32], n_uses: int) -> Events:
        """Return all uses of showers; `Events.shower` counts in `shower`."""

    def candidates(self, primaries: Primaries, events: Events) -> NDArray[np.bool_]:
        """Return whether any telescope may see an event, (event,)."""

    def develop(self, primaries: Primaries) -> ShowerRows:
        """Return what becomes of primaries."""

    def expected(
        self, primaries: Primaries, rows: ShowerRows, events: Events
    ) -> NDArray[np.float64]:
        """Return the expected photo-electrons, (event, tel)."""

    def images(
        self,
        primaries: Primaries,
        rows: ShowerRows,
        events: Events,
        image_event: NDArray[np.int64],
        image_tel: NDArray[np.int64],
        mean_pe: NDArray[np.float64],
    ) -> Images:
        """Return images of some (event, telescope), with the light that `expected` tells."""

    def images_of_light(
        self,
        numbers: NDArray[np.uint32],
        tel: NDArray[np.int64],
        photon_start: NDArray[np.int64],
        sky_lon: NDArray[np.float64],
        sky_lat: NDArray[np.float64],
        time: NDArray[np.float64],
        weight: NDArray[np.float64],
        *,
        forced: bool,
    ) -> Images:
        """Return images of light that is given photo-electron by photo-electron.

        Parameters
        ----------
        numbers
            (image, 2): words (shower, use << 8 | telescope) of the random counters.
        tel
            (image,), row of the telescope.
        photon_start
            (image + 1,): image i has the entries photon_start[i] to photon_start[i + 1].
        sky_lon, sky_lat, time, weight
            (photon,): tangent-plane direction, ns, and photo-electrons that it stands for.
        forced
            Read out at time 0 without a trigger.
        """

    def images_of_pixels(
        self,
        numbers: NDArray[np.uint32],
        tel: NDArray[np.int64],
        mean_pe: NDArray[np.float64],
        *,
        dark: bool,
    ) -> Images:
        """Return images of flashes at time 0, which force the trigger.

        Parameters
        ----------
        numbers, tel
            As for `images_of_light`.
        mean_pe
            (image, pixel), expected photo-electrons of a pixel of mean efficiency.
        dark
            The lid is closed: no night sky.
        """


class Simulator(NamedTuple):
    """Everything that a production runs on."""

    engine: ShowerEngine
    backend: str
    grid: StepGrid
    camera: CameraModel
    true: TrueConstants


def make_engine(
    backend: Backend,
    settings: ProductionSettings,
    grid: StepGrid,
    tables: LightTables,
    telescopes: Telescopes,
    optics: OpticsModel,
    camera: CameraModel,
    camera_settings: CameraSettings,
) -> ShowerEngine:
    """Return the engine of a backend; the arguments are described in `simulation_types`."""
    arguments = (settings, grid, tables, telescopes, optics, camera, camera_settings)
    if backend.name == "cpu":
        from astri_gpu.kernels.loops.shower_cpu import ShowerLoops

        return ShowerLoops(*arguments, n_threads=backend.threads)
    if backend.name == "cupy":
        from astri_gpu.kernels.loops.shower_cuda import ShowerCuda

        try:
            return ShowerCuda(*arguments, n_threads=backend.threads)
        except RuntimeError as error:  # numba-cuda is missing or finds no GPU: the text says which
            logger.warning("%s Until then the array text makes the images, on CuPy.", error)
    from astri_gpu.simulation.array_engine import ArrayEngine

    return ArrayEngine(backend, *arguments)


def simulator(
    config: SimulateConfig,
    plan: ProductionPlan,
    light: tuple[StepGrid, LightTables] | None = None,
) -> Simulator:
    """Return the engine of a production, with light tables and cameras made for it.

    Parameters
    ----------
    config, plan
        The options, and what they come to.
    light
        Steps and tables to use instead of those of the atmosphere.

    Raises
    ------
    AstriError
        When the atmosphere or the backend cannot be used.
    """
    backend = make_backend(config.backend.name, config.backend.threads, config.backend.devices)
    description = plan.layout.cameras[0]
    settings = camera_settings(config.camera)
    camera = camera_model(
        config.camera, config.optics, description, plan.layout.tel_id, config.camera.constants_seed
    )
    if light is None:
        from astri_gpu.simulation.tables import light_tables

        light = light_tables(
            config.atmosphere, config.shower, config.optics, plan.settings.zenith_rad
        )
    grid, tables = light
    engine = make_engine(
        backend,
        plan.settings,
        grid,
        tables,
        plan.frame.telescopes(plan.layout),
        optics_model(config.optics, description.optics.focal_length_m),
        camera,
        settings,
    )
    return Simulator(engine, backend.name, grid, camera, true_constants(camera, settings))
