"""The engine of the backends numpy, jax and cupy: the array text of the simulation.

The text works on flat lists: pairs of a shower row and a telescope, and photo-electrons. The host
makes these lists, cuts them into pieces that fit into memory, and pads them to powers of two, so
that a compiler sees few shapes.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import Backend
from astri_gpu.kernels import shower as text
from astri_gpu.kernels.hadrons import develop_arrays
from astri_gpu.kernels.photons import ImageList, count, light_factor
from astri_gpu.kernels.random import key_of
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
from astri_gpu.simulation.array_programs import (
    camera_images,
    em_total,
    flash_images,
    light_at_telescopes,
    muon_total,
)
from astri_gpu.simulation.rows import ranges

__all__ = ["ArrayEngine"]

MAX_PAIRS = 8192  # each has an array of steps
MAX_PHOTONS = 1 << 18
MAX_IMAGES = 64  # each has arrays of pixels
SMALLEST = 64  # of a padded list

Ints = NDArray[np.int64]


class ArrayEngine:
    """The simulation of one array as array programs; see `engine.ShowerEngine`.

    Parameters
    ----------
    backend
        Where the arrays are.
    settings, grid, tables, telescopes, optics, camera, camera_settings
        Described in `kernels/simulation_types.py`; NumPy arrays.
    """

    def __init__(
        self,
        backend: Backend,
        settings: ProductionSettings,
        grid: StepGrid,
        tables: LightTables,
        telescopes: Telescopes,
        optics: OpticsModel,
        camera: CameraModel,
        camera_settings: CameraSettings,
    ) -> None:
        self._backend, self._settings, self._camera_settings = backend, settings, camera_settings
        self._host_grid, self._host_telescopes = grid, telescopes
        self._grid, self._tables, self._telescopes, self._optics, self._camera = (
            self._to_device(tree) for tree in (grid, tables, telescopes, optics, camera)
        )
        self._light_factor = float(light_factor(grid, optics))
        self._key = key_of(settings.seed)
        self._n_pixels = camera.efficiency.shape[1]

    def primaries(self, shower: NDArray[np.uint32]) -> Primaries:
        """Return the primaries of showers."""
        found = self._call(text.primaries, [shower], settings=self._settings)
        return found._replace(shower=shower)

    def events(self, shower: NDArray[np.uint32], n_uses: int) -> Events:
        """Return all uses of showers."""
        row = np.repeat(np.arange(len(shower)), n_uses)
        use = np.tile(np.arange(n_uses, dtype=np.uint32), len(shower))
        x, y = self._call(text.cores, [shower[row], use], self._telescopes, settings=self._settings)
        return Events(row, use, x, y)

    def candidates(self, primaries: Primaries, events: Events) -> NDArray[np.bool_]:
        """Return whether any telescope may see an event."""
        shower = events.shower
        return self._call(
            text.is_candidate,
            [
                primaries.energy[shower],
                primaries.q_lon[shower],
                primaries.q_lat[shower],
                events.x,
                events.y,
            ],
            self._telescopes,
            settings=self._settings,
            light_factor=self._light_factor,
        )

    def develop(self, primaries: Primaries) -> ShowerRows:
        """Return what becomes of primaries."""
        return develop_arrays(
            self._backend, primaries, self._settings, self._host_grid, self._host_telescopes
        )

    def expected(
        self, primaries: Primaries, rows: ShowerRows, events: Events
    ) -> NDArray[np.float64]:
        """Return the expected photo-electrons, (event, tel)."""
        del primaries  # the rows know their directions
        n_tel = len(self._host_telescopes.x)
        event, tel = (index.ravel() for index in np.indices((len(events.x), n_tel)))
        mean = np.zeros(len(event))
        for light, start, kernel, table in (
            (rows.em, rows.em_start, em_total, self._tables),
            (rows.muon, rows.muon_start, muon_total, self._optics),
        ):
            for part in _pieces((np.diff(start)[events.shower[event]], MAX_PAIRS)):
                columns, begin = self._beside(light, start, events, event[part], tel[part])
                if begin[-1]:
                    found = self._call(kernel, columns, self._grid, table)
                    image = np.repeat(np.arange(part.stop - part.start), np.diff(begin))
                    mean[part] += np.bincount(image, weights=found, minlength=len(begin) - 1)
        return mean.reshape(-1, n_tel)

    def images(
        self,
        primaries: Primaries,
        rows: ShowerRows,
        events: Events,
        image_event: Ints,
        image_tel: Ints,
        mean_pe: NDArray[np.float64],
    ) -> Images:
        """Return images of some (event, telescope)."""
        shower = events.shower[image_event]
        number = primaries.shower[shower].astype(np.int64)
        image = events.use[image_event].astype(np.int64) << 8 | image_tel
        drawn, weight = self._call(
            count,
            [mean_pe, number, image],
            key=self._key,
            max_image_pe=self._settings.max_image_pe,
        )
        n_pairs = np.diff(rows.em_start)[shower] + np.diff(rows.muon_start)[shower]
        done = [
            self._draw(
                primaries, rows, events, image_event[part], image_tel[part],
                np.stack([number[part], image[part]], axis=1), drawn[part], weight[part],
            )
            for part in _pieces(
                (n_pairs, MAX_PAIRS), (drawn, MAX_PHOTONS), (np.ones_like(drawn), MAX_IMAGES)
            )
        ]  # fmt: skip
        return self._joined(done)

    def images_of_light(
        self,
        numbers: NDArray[np.uint32],
        tel: Ints,
        photon_start: Ints,
        sky_lon: NDArray[np.float64],
        sky_lat: NDArray[np.float64],
        time: NDArray[np.float64],
        weight: NDArray[np.float64],
        *,
        forced: bool,
    ) -> Images:
        """Return images of light that is given photo-electron by photo-electron."""
        n_photons = np.diff(photon_start)
        done = []
        for part in _pieces((n_photons, MAX_PHOTONS), (np.ones_like(n_photons), MAX_IMAGES)):
            light = slice(photon_start[part.start], photon_start[part.stop])
            columns = [sky_lon[light], sky_lat[light], time[light], weight[light]]
            done.append(
                self._collect(numbers[part], tel[part], n_photons[part], columns, forced=forced)
            )
        return self._joined(done)

    def images_of_pixels(
        self, numbers: NDArray[np.uint32], tel: Ints, mean_pe: NDArray[np.float64], *, dark: bool
    ) -> Images:
        """Return images of flashes at time 0."""
        done = []
        for start in range(0, len(tel), MAX_IMAGES):
            part = slice(start, min(start + MAX_IMAGES, len(tel)))
            shower, image = numbers[part].astype(np.int64).T
            columns = [mean_pe[part], shower, image, tel[part]]
            found = self._call(
                flash_images, columns, self._camera,
                settings=self._camera_settings, key=self._key, dark=dark,
            )  # fmt: skip
            done.append(found)
        return self._joined(done)

    def _draw(
        self,
        primaries: Primaries,
        rows: ShowerRows,
        events: Events,
        event: Ints,
        tel: Ints,
        numbers: Ints,
        drawn: Ints,
        weight: NDArray[np.float64],
    ) -> Images:
        """Return images whose pairs and photo-electrons fit into memory together."""
        shower = events.shower[event]
        em, em_start = self._beside(rows.em, rows.em_start, events, event, tel)
        muon, muon_start = self._beside(rows.muon, rows.muon_start, events, event, tel)
        n_pairs, n_muons = em_start[-1], muon_start[-1]
        if n_pairs + n_muons == 0:  # nothing to draw from, whatever mean was asked for
            drawn = np.zeros_like(drawn)
        image, photon = _photons(drawn)
        light = [np.zeros(len(image)) for _ in range(4)]
        if len(image):
            size, n_photons = self._size(len(event)), self._size(len(image))
            columns = [*numbers.T, events.x[event], events.y[event]]
            columns += [primaries.q_lon[shower], primaries.q_lat[shower]]
            columns += [column[tel] for column in self._host_telescopes]
            columns = [_pad(column, size) for column in columns]
            images = ImageList(*columns, *(_pad(s, size + 1) for s in (em_start, muon_start)))
            found = self._run(
                light_at_telescopes,
                _pad(photon, n_photons),
                _pad(image, n_photons),
                images,
                tuple(_pad(column, self._size(n_pairs) * (n_pairs > 0)) for column in em),
                tuple(_pad(column, self._size(n_muons) * (n_muons > 0)) for column in muon),
                self._grid,
                self._tables,
                self._optics,
                key=self._key,
            )
            light = [column[: len(image)] for column in found]
            light[3] = np.where(light[3], weight[image], 0.0)
        return self._collect(numbers, tel, drawn, light, forced=False)

    def _collect(
        self,
        numbers: NDArray[Any],
        tel: Ints,
        n_photons: Ints,
        light: list[NDArray[np.float64]],
        *,
        forced: bool,
    ) -> Images:
        """Return the images of light at the telescopes: sky_lon, sky_lat, time, weight."""
        image, photon = _photons(n_photons)
        n_images, size = self._size(len(tel)), self._size(len(image))
        weight = np.zeros(size)  # the padding has none
        weight[: len(image)] = light[3]
        found = self._run(
            camera_images,
            _pad(image, size),
            _pad(photon, size),
            *(_pad(column, size) for column in light[:3]),
            weight,
            *(_pad(column, n_images) for column in numbers.astype(np.int64).T),
            _pad(tel.astype(np.int64), n_images),
            self._optics,
            self._camera,
            settings=self._camera_settings,
            key=self._key,
            forced=forced,
        )
        return Images(*(column[: len(tel)] for column in found))

    def _beside(
        self, light: Any, start: Ints, events: Events, event: Ints, tel: Ints
    ) -> tuple[list[NDArray[Any]], Ints]:
        """Return the columns of all pairs of a row and a telescope, and where images begin.

        The columns are those of the rows, x and y of the line at H = 0, and x, y, z of the
        telescope.
        """
        row, begin = ranges(start, events.shower[event])
        image = np.repeat(np.arange(len(event)), np.diff(begin))
        x = events.x[event][image] + light.x[row]
        y = events.y[event][image] + light.y[row]
        place = (column[tel][image] for column in self._host_telescopes)
        return [*(column[row] for column in light), x, y, *place], begin

    def _joined(self, parts: list[Images]) -> Images:
        if parts:
            return Images(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        shape = (0, self._n_pixels)
        return Images(
            triggered=np.zeros(0, dtype=np.bool_),
            adc=np.zeros((0, 2, self._n_pixels), dtype=np.uint16),
            true_image=np.zeros(shape, dtype=np.uint16),
            true_sum=np.zeros(0, dtype=np.int64),
            trigger_time=np.zeros(0),
            trigger_pixel=np.zeros(shape, dtype=np.bool_),
        )

    def _size(self, n: int) -> int:
        """Return the length that a list of `n` entries is padded to."""
        if not self._backend.fixed_shape:
            return int(n)
        return max(SMALLEST, 1 << (int(n) - 1).bit_length())

    def _call(self, kernel: Any, columns: list[NDArray[Any]], *world: Any, **static: Any) -> Any:
        """Return kernel(*columns, *world) for lists of one length."""
        n = len(columns[0])
        size = self._size(n)
        found = self._run(kernel, *(_pad(column, size) for column in columns), *world, **static)
        return _convert(found, lambda values: values[:n])

    def _run(self, kernel: Any, *arguments: Any, **static: Any) -> Any:
        """Return what a kernel makes of its arguments, NumPy in and out."""
        compiled = self._backend.compile(kernel, static=tuple(static))
        found = compiled(*(self._to_device(value) for value in arguments), **static)
        return _convert(found, self._backend.to_host)

    def _to_device(self, tree: Any) -> Any:
        def moved(value: Any) -> Any:
            return self._backend.asarray(value) if isinstance(value, np.ndarray) else value

        return _convert(tree, moved)


def _convert(tree: Any, function: Callable[[Any], Any]) -> Any:
    """Return nested tuples with `function` applied to what is in them."""
    if not isinstance(tree, tuple):
        return function(tree)
    items = [_convert(item, function) for item in tree]
    return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)


def _pad(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Return `values` with the last entry repeated (zeros where there is none)."""
    missing = [(0, size - len(values)), *((0, 0) for _ in values.shape[1:])]
    return np.pad(values, missing, mode="edge" if len(values) else "constant")


def _pieces(*costs: tuple[NDArray[Any], int]) -> Iterator[slice]:
    """Yield slices of a list whose costs stay below their limits, of one entry at least.

    Parameters
    ----------
    costs
        Pairs of an array (entry,) and its limit.
    """
    running = [(np.cumsum(cost), limit) for cost, limit in costs]
    start, n = 0, len(costs[0][0])
    while start < n:
        stop = n
        for total, limit in running:
            before = total[start - 1] if start else 0
            stop = min(stop, int(np.searchsorted(total, before + limit, side="right")))
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def _photons(n_photons: Ints) -> tuple[Ints, Ints]:
    """Return the image of each photo-electron and its number in the image."""
    image = np.repeat(np.arange(len(n_photons)), n_photons)
    begin = np.cumsum(n_photons) - n_photons
    return image, np.arange(len(image)) - begin[image]
