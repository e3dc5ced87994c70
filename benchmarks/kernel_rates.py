"""Every kernel of the array text by itself, on ASTRI images, for each array backend."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from astri_gpu.backend import make_backend
from astri_gpu.kernels import calibration as cal
from astri_gpu.kernels import cleaning as clean
from astri_gpu.kernels.astri import astri_parameters
from astri_gpu.kernels.compaction import compact, gather, neighbour_slots
from astri_gpu.kernels.image_chain import calibrated_images
from astri_gpu.kernels.islands import count_islands, island_sum, label_islands
from astri_gpu.kernels.moments import hillas
from astri_gpu.kernels.parameters import concentration, leakage, statistics
from astri_gpu.kernels.stereo import StereoImages, reconstruct

from .astri_images import POINTING_ALT_DEG, POINTING_AZ_DEG, make_events
from .chains import Setup, setup
from .timing import first_call, steady_seconds

__all__ = ["kernel_calls", "measure_kernels"]

N_TELS = 9
Kernel = tuple[Callable[..., Any], tuple[Any, ...]]


def measure_kernels(
    backends: Sequence[str], batches: Sequence[int], *, seconds: float
) -> list[dict[str, Any]]:
    """Return first call, median of the later calls and images (events) per second of each kernel.

    The numpy backend, whose text is dense and eager, is measured up to its `batch_limit`.
    """
    made = setup(make_events(max(batches)))
    entries = []
    for batch in batches:
        calls = kernel_calls(made, batch)
        for name in backends:
            backend = make_backend(name)
            if batch > (backend.batch_limit or batch):
                continue
            for kernel, (function, arguments) in calls.items():
                run = backend.compile(function)
                placed = _on(backend, arguments)
                call = functools.partial(_call, backend, run, placed)
                first = first_call(call)
                steady = steady_seconds(call, seconds=seconds)
                entries.append(
                    {
                        "kernel": kernel,
                        "backend": name,
                        "batch": batch,
                        "first_call_s": first,
                        "steady_s": steady,
                        "rows_per_s": batch / steady,
                    }
                )
    return entries


def _call(backend: Any, run: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    backend.synchronize(run(*arguments))


def _on(backend: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments where a backend computes; tuples (with names or not) stay tuples."""

    def place(value: Any) -> Any:
        if hasattr(value, "_fields"):
            return type(value)(*map(place, value))
        return backend.asarray(value)

    return tuple(map(place, arguments))


def kernel_calls(made: Setup, n_images: int) -> dict[str, Kernel]:
    """Return every kernel with NumPy arguments for `n_images` images (or events)."""
    adc, index, _ = made.rows(0, n_images)
    camera, constants, settings = made.camera, made.events.calibration, made.settings
    neighbours = camera.cleaning_neighbours
    step = 256
    charge = np.concatenate(
        [
            calibrated_images(
                adc[first : first + step],
                index[first : first + step],
                camera,
                constants,
                settings=settings,
            ).charge
            for first in range(0, n_images, step)
        ]
    )
    tailcuts = functools.partial(
        _tailcuts, settings.picture_pe, settings.boundary_pe, settings.min_picture_neighbours
    )
    mask, core = tailcuts(charge, neighbours)
    compaction = functools.partial(compact, n_slots=settings.n_slots)
    survivors = compaction(mask)
    used = survivors.used
    slots = neighbour_slots(mask, survivors, neighbours)
    islands = functools.partial(_islands, settings.island_steps)
    label, counted = islands(used, slots)
    left = gather(charge, survivors)
    lon, lat, area, width, border_1, border_2 = (gather(values, survivors) for values in camera[:6])
    with np.errstate(all="ignore"):  # images without a pixel are NaN
        moments = hillas(left, used, lon, lat, area)
    astri = functools.partial(_astri, settings.source_fov_lon, settings.source_fov_lat)
    return {
        "gain and calibration": (_calibrate, (adc, index, constants)),
        "tail-cuts": (tailcuts, (charge, neighbours)),
        "compaction": (compaction, (mask,)),
        "neighbours of survivors": (neighbour_slots, (mask, survivors, neighbours)),
        "islands": (islands, (used, slots)),
        "hillas": (hillas, (left, used, lon, lat, area)),
        "leakage": (leakage, (left, used, border_1, border_2)),
        "concentration": (concentration, (left, used, lon, lat, width, moments)),
        "statistics": (statistics, (left, used)),
        "astri parameters": (
            astri,
            (
                left, used, gather(core, survivors), lon, lat, border_1, label,
                counted.n_islands, moments,
            ),
        ),
    } | _stereo_calls(made, n_images)  # fmt: skip


def _tailcuts(picture: float, boundary: float, least: int, charge: Any, neighbours: Any) -> Any:
    return clean.tailcuts_clean(
        charge, picture, boundary, neighbours, min_picture_neighbours=least, keep_isolated=False
    )


def _calibrate(adc: Any, index: Any, constants: Any) -> Any:
    xp = cal.array_namespace(adc)
    channel = cal.select_gain(adc, threshold_adc=4000.0)
    pedestal = xp.take(constants.pedestal, index, axis=0)
    return cal.calibrate(adc, channel, pedestal, xp.take(constants.dc_to_pe, index, axis=0))


def _islands(steps: int, used: Any, slots: Any) -> Any:
    xp = cal.array_namespace(used)
    label, _ = label_islands(used, slots, steps=steps)
    size = island_sum(xp.ones(used.shape, dtype=xp.float32), used, label)
    return label, count_islands(used, label, size)


def _astri(source_lon: float, source_lat: float, *arrays: Any) -> Any:
    return astri_parameters(*arrays, source_fov_lon=source_lon, source_fov_lat=source_lat)


def _stereo(method: str, level_m: float, images: Any, used: Any, alt: Any, az: Any) -> Any:
    return reconstruct(images, used, alt, az, method=method, observation_level_m=level_m)


def _stereo_calls(made: Setup, n_events: int) -> dict[str, Kernel]:
    """Return the stereo kernels on events of nine images, parameters drawn at random."""
    rng = np.random.default_rng(n_events)
    layout, shape = made.events.layout, (n_events, N_TELS)

    def drawn(low: float, high: float) -> Any:
        return rng.uniform(low, high, shape)

    positions = (np.broadcast_to(axis[:N_TELS], shape) for axis in (layout.x, layout.y, layout.z))
    images = StereoImages(
        10 ** drawn(2, 4),
        drawn(-4, 4),
        drawn(-4, 4),
        drawn(0.3, 0.8),
        drawn(0.1, 0.2),
        drawn(-90, 90),
        np.full(shape, POINTING_ALT_DEG),
        np.full(shape, POINTING_AZ_DEG),
        np.full(shape, 4.6),
        *(np.ascontiguousarray(position) for position in positions),
    )
    pointing = np.full(n_events, POINTING_ALT_DEG), np.full(n_events, POINTING_AZ_DEG)
    used = drawn(0, 1) < 0.7
    return {
        f"stereo {method}": (
            functools.partial(_stereo, method, layout.altitude_m),
            (images, used, *pointing),
        )
        for method in ("planes", "lines")
    }
