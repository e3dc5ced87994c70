"""What `ArrayEngine` runs on its backend: several kernels of the simulation in one program.

Pairs of a row and a telescope come as columns: those of `EmRows` or `MuonRows`, the position of
the line at H = 0 (x, y), and the position of the telescope (x, y, z), all (pair,).
"""

from typing import Any

from array_api_compat import array_namespace

from astri_gpu.kernels.camera import deposit, respond
from astri_gpu.kernels.flash import flash
from astri_gpu.kernels.muon_light import MuonLight, muon_light
from astri_gpu.kernels.photons import ImageList, arrival_words, photo_electrons
from astri_gpu.kernels.shower import em_light, profile
from astri_gpu.kernels.simulation_types import (
    CameraModel,
    CameraSettings,
    EmRows,
    Images,
    LightTables,
    MuonRows,
    OpticsModel,
    StepGrid,
)

__all__ = ["camera_images", "em_total", "flash_images", "light_at_telescopes", "muon_total"]


def _em_light(columns: Any, grid: StepGrid, tables: LightTables) -> tuple[EmRows, Any]:
    """Return the rows of pairs and their expected photo-electrons, (pair, step)."""
    *own, x, y, tel_x, tel_y, tel_z = columns
    em = EmRows(*own)
    return em, em_light(em, x, y, tel_x, tel_y, tel_z, grid, tables)


def _muon_light(columns: Any, grid: StepGrid, optics: OpticsModel) -> tuple[MuonRows, MuonLight]:
    """Return the muons of pairs and their light."""
    *own, x, y, tel_x, tel_y, tel_z = columns
    muon = MuonRows(*own)
    return muon, muon_light(muon, x, y, tel_x, tel_y, tel_z, grid, optics)


def em_total(*arguments: Any) -> Any:
    """Return the expected photo-electrons of pairs; takes columns, grid and light tables."""
    *columns, grid, tables = arguments
    _, light = _em_light(columns, grid, tables)
    return array_namespace(light).sum(light, axis=-1)


def muon_total(*arguments: Any) -> Any:
    """Return the expected photo-electrons of pairs; takes columns, grid and optics."""
    *columns, grid, optics = arguments
    return _muon_light(columns, grid, optics)[1].mean


def light_at_telescopes(
    photon: Any,
    image: Any,
    images: ImageList,
    em_columns: tuple,
    muon_columns: tuple,
    grid: StepGrid,
    tables: LightTables,
    optics: OpticsModel,
    *,
    key: tuple[int, int],
) -> tuple:
    """Return direction, time and arrival of photo-electrons, see `photons.photo_electrons`."""
    em, light = _em_light(em_columns, grid, tables)
    muon, of_muons = _muon_light(muon_columns, grid, optics)
    age = profile(em, grid, tables)
    return tuple(
        photo_electrons(
            photon, image, images, em, light, age.age_index, age.age_fraction, muon, of_muons,
            grid, tables, optics, key=key,
        )
    )  # fmt: skip


def camera_images(
    image: Any,
    photon: Any,
    sky_lon: Any,
    sky_lat: Any,
    time: Any,
    weight: Any,
    shower: Any,
    number: Any,
    tel: Any,
    optics: OpticsModel,
    camera: CameraModel,
    *,
    settings: CameraSettings,
    key: tuple[int, int],
    forced: bool,
) -> Images:
    """Return images of light at the telescopes."""
    words = arrival_words(photon, image, shower, number, key=key)
    sums = deposit(
        image, sky_lon, sky_lat, time, weight, words, tel, optics, camera,
        settings=settings, n_images=shower.shape[0],
    )  # fmt: skip
    return respond(sums, shower, number, tel, camera, settings=settings, key=key, forced=forced)


def flash_images(
    mean_pe: Any,
    shower: Any,
    number: Any,
    tel: Any,
    camera: CameraModel,
    *,
    settings: CameraSettings,
    key: tuple[int, int],
    dark: bool,
) -> Images:
    """Return images of calibration flashes."""
    sums = flash(mean_pe, shower, number, tel, camera, settings=settings, key=key)
    return respond(
        sums, shower, number, tel, camera, settings=settings, key=key, forced=True, dark=dark
    )
