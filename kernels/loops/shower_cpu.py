"""CPU launch of the shower simulation: showers and images shared out over threads."""

import heapq
from typing import NamedTuple

import numba
import numpy as np

from .. import shower as text
from .._types import Array
from ..photons import light_factor
from ..random import key_of
from ..simulation_types import (
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
from ._compile import compiled
from .camera import deposit, finish_image, flash_image, make_camera_scratch
from .hadrons import develop_cpu
from .photons import arrival_words, count, front_of
from .shower_image import (
    LightScratch,
    draw_light,
    expected_light,
    list_cells,
    make_light_scratch,
    write_profiles,
)

__all__ = ["ShowerLoops", "share_out"]

SECONDS_PER_PE, SECONDS_PER_IMAGE, SECONDS_PER_ROW = 70e-9, 15e-6, 1e-6
"""Rough times, by which work is shared out."""


class Work(NamedTuple):
    """How the items of a launch are shared out: worker w does item[start[w] : start[w + 1]]."""

    item: Array  # int64
    start: Array  # (worker + 1,) int64


def share_out(group: Array, cost: Array, n_workers: int) -> Work:
    """Return which worker does which items: whole groups, about the same cost for each worker.

    Groups are given out from the most expensive one down, each to the worker with the least to do
    (Graham 1969, doi:10.1137/0117039). The items of a group follow each other.

    Parameters
    ----------
    group : (item,), number of the group, from 0
    cost : (item,), any unit
    """
    total = np.bincount(group, weights=cost)
    loads = [(0.0, w) for w in range(n_workers)]
    worker_of = np.zeros(len(total), dtype=np.int64)
    for g in np.argsort(-total, kind="stable"):
        load, w = heapq.heappop(loads)
        worker_of[g] = w
        heapq.heappush(loads, (load + float(total[g]), w))
    worker = worker_of[group]
    item = np.lexsort((group, worker))
    start = np.searchsorted(worker[item], np.arange(n_workers + 1))
    return Work(item.astype(np.int64), start.astype(np.int64))


# Outputs are arguments of their own: Numba drops what a parallel loop writes to arrays of a tuple.


@compiled(parallel=True, counted=True)
def _run_expected(
    work, events, telescopes, em, em_start, muon, muon_start, grid, tables, optics, own, out
):  # fmt: skip
    for w in numba.prange(work.start.shape[0] - 1):
        known = -1
        for i in range(work.start[w], work.start[w + 1]):
            event = work.item[i]
            shower = events.shower[event]
            if shower != known:
                write_profiles(shower, em, em_start, grid, tables, own, w)
                known = shower
            for tel in range(telescopes.x.shape[0]):
                out[event, tel] = expected_light(
                    shower, events.x[event], events.y[event], tel, telescopes, em, em_start, muon,
                    muon_start, grid, tables, optics, own, w,
                )  # fmt: skip


@compiled(parallel=True, counted=True)
def _run_images(
    work, image_event, image_tel, mean_pe, primaries, events, telescopes, em, em_start, muon,
    muon_start, grid, tables, optics, camera, camera_settings, max_image_pe, k0, k1, own, scratch,
    triggered, adc, true_image, true_sum, trigger_time, trigger_pixel,
):  # fmt: skip
    for w in numba.prange(work.start.shape[0] - 1):
        known = -1
        for i in range(work.start[w], work.start[w + 1]):
            item = work.item[i]
            event, tel = image_event[item], image_tel[item]
            shower = events.shower[event]
            number = primaries.shower[shower]
            image = (np.int64(events.use[event]) << 8) | tel
            x, y = events.x[event], events.y[event]
            drawn, weight = count(mean_pe[item], number, image, k0, k1, max_image_pe)
            if shower != known:
                write_profiles(shower, em, em_start, grid, tables, own, w)
                known = shower
            n_em, n_cells = list_cells(
                shower, x, y, tel, telescopes, em, em_start, muon, muon_start, grid, tables, optics,
                own, w,
            )  # fmt: skip
            # Without cells there is nothing to draw from, whatever mean was asked for.
            if drawn > 0 and n_cells > 0 and own.running[w, n_cells - 1] > 0.0:
                front = front_of(primaries.q_lon[shower], primaries.q_lat[shower])
                draw_light(
                    number, image, drawn, weight, n_em, n_cells, x, y, tel, telescopes, front, muon,
                    muon_start[shower], grid, tables, optics, camera, camera_settings, k0, k1, own,
                    scratch, w,
                )  # fmt: skip
            found = finish_image(
                number, image, tel, k0, k1, False, camera, camera_settings, scratch, w,
                adc[item], true_image[item], trigger_pixel[item],
            )  # fmt: skip
            triggered[item], trigger_time[item], true_sum[item] = found


@compiled(parallel=True, counted=True)
def _run_light(
    work, numbers, image_tel, photon_start, sky_lon, sky_lat, time, weight, forced, optics, camera,
    camera_settings, k0, k1, scratch, triggered, adc, true_image, true_sum, trigger_time,
    trigger_pixel,
):  # fmt: skip
    for w in numba.prange(work.start.shape[0] - 1):
        for i in range(work.start[w], work.start[w + 1]):
            item = work.item[i]
            number, image, tel = numbers[item, 0], numbers[item, 1], image_tel[item]
            for p in range(photon_start[item], photon_start[item + 1]):
                a0, a1, a2, a3 = arrival_words(number, p - photon_start[item], image, k0, k1)
                deposit(
                    sky_lon[p], sky_lat[p], time[p], weight[p], a0, a1, a2, a3, tel, optics, camera,
                    camera_settings, scratch, w,
                )  # fmt: skip
            found = finish_image(
                number, image, tel, k0, k1, forced, camera, camera_settings, scratch, w,
                adc[item], true_image[item], trigger_pixel[item],
            )  # fmt: skip
            triggered[item], trigger_time[item], true_sum[item] = found


@compiled(parallel=True, counted=True)
def _run_pixels(
    work, numbers, image_tel, mean_pe, dark, camera, camera_settings, k0, k1, scratch, triggered,
    adc, true_image, true_sum, trigger_time, trigger_pixel,
):  # fmt: skip
    for w in numba.prange(work.start.shape[0] - 1):
        for i in range(work.start[w], work.start[w + 1]):
            item = work.item[i]
            found = flash_image(
                numbers[item, 0], numbers[item, 1], image_tel[item], k0, k1, mean_pe[item], dark,
                camera, camera_settings, scratch, w, adc[item], true_image[item],
                trigger_pixel[item],
            )  # fmt: skip
            triggered[item], trigger_time[item], true_sum[item] = found


def _plain(tree):
    """Return a named tuple as compiled code wants it: contiguous NumPy arrays, plain numbers."""
    return type(tree)(*(np.ascontiguousarray(v) if np.ndim(v) else float(v) for v in tree))


def _sizes(rows: ShowerRows, shower: Array) -> tuple[Array, Array]:
    """Return the numbers of rows and of muons of showers."""
    n_rows, n_muons = np.diff(rows.em_start), np.diff(rows.muon_start)
    return n_rows[shower], n_muons[shower]


class ShowerLoops:
    """The simulation of one array, ready to run on the CPU: all that `backend=cpu` needs.

    Arrays are NumPy. What is drawn depends on the numbers of shower, use and telescope only, never
    on the images of a call or on the number of threads.

    Parameters
    ----------
    settings : what is thrown
    grid, tables : of site and zenith angle
    telescopes, optics, camera, camera_settings : of the array
    n_threads : to share the work over
    """

    def __init__(
        self,
        settings: ProductionSettings,
        grid: StepGrid,
        tables: LightTables,
        telescopes: Telescopes,
        optics: OpticsModel,
        camera: CameraModel,
        camera_settings: CameraSettings,
        n_threads: int,
    ) -> None:
        limit: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        self._n_threads = max(1, min(n_threads, limit))
        self._settings, self._camera_settings = settings, camera_settings
        self._grid, self._tables, self._telescopes = (
            _plain(grid),
            _plain(tables),
            _plain(telescopes),
        )
        self._optics, self._camera = _plain(optics), _plain(camera)
        self._light_factor = float(light_factor(self._grid, self._optics))
        self._key = key_of(settings.seed)
        self._n_pixels = camera.efficiency.shape[1]
        self._camera_scratch = make_camera_scratch(
            self._n_threads, self._n_pixels, np.empty, np.zeros
        )
        self._light_scratch = self._make_light_scratch(1, 1)

    def primaries(self, shower: Array) -> Primaries:
        """Return the primaries of showers, by their numbers (uint32)."""
        return text.primaries(shower, settings=self._settings)

    def events(self, shower: Array, n_uses: int) -> Events:
        """Return all uses of showers, those of a shower one after the other."""
        row = np.repeat(np.arange(len(shower)), n_uses)
        use = np.tile(np.arange(n_uses, dtype=np.uint32), len(shower))
        x, y = text.cores(shower[row], use, self._telescopes, settings=self._settings)
        return Events(row, use, x, y)

    def candidates(self, primaries: Primaries, events: Events) -> Array:
        """Return whether any telescope may see an event, bool (event,)."""
        return text.candidates(
            primaries,
            events,
            self._telescopes,
            settings=self._settings,
            light_factor=self._light_factor,
        )

    def develop(self, primaries: Primaries) -> ShowerRows:
        """Return what becomes of primaries."""
        self._use_threads()
        return develop_cpu(
            primaries, self._settings, self._grid, self._telescopes, n_threads=self._n_threads
        )

    def expected(self, primaries: Primaries, rows: ShowerRows, events: Events) -> Array:
        """Return the expected photo-electrons, float64 (event, telescope)."""
        out = np.zeros((len(events.x), len(self._telescopes.x)))
        n_rows, n_muons = _sizes(rows, events.shower)
        work = share_out(events.shower, n_rows + n_muons + 1.0, self._n_threads)
        self._use_threads()
        _run_expected(
            work, _plain(events), self._telescopes, *self._light(rows), self._grid, self._tables,
            self._optics, self._light_scratch, out,
        )  # fmt: skip
        return out

    def images(
        self,
        primaries: Primaries,
        rows: ShowerRows,
        events: Events,
        image_event: Array,
        image_tel: Array,
        mean_pe: Array,
    ) -> Images:
        """Return images of showers.

        Parameters
        ----------
        primaries, rows, events : see there
        image_event, image_tel : (image,), rows of `events` and of the telescopes
        mean_pe : (image,), from `expected`
        """
        out = self._empty_images(len(image_event))
        image_shower = events.shower[image_event]
        n_rows, n_muons = _sizes(rows, image_shower)
        drawn = np.minimum(mean_pe, self._settings.max_image_pe)
        cost = SECONDS_PER_IMAGE + SECONDS_PER_PE * drawn + SECONDS_PER_ROW * (n_rows + n_muons)
        work = share_out(image_shower, cost, self._n_threads)
        self._use_threads()
        _run_images(
            work, _integers(image_event), _integers(image_tel), _floats(mean_pe),
            _plain(primaries), _plain(events), self._telescopes, *self._light(rows), self._grid,
            self._tables, self._optics, self._camera, self._camera_settings,
            self._settings.max_image_pe, *self._key, self._light_scratch, self._camera_scratch,
            *out,
        )  # fmt: skip
        return out

    def images_of_light(
        self,
        numbers: Array,
        tel: Array,
        photon_start: Array,
        sky_lon: Array,
        sky_lat: Array,
        time: Array,
        weight: Array,
        *,
        forced: bool,
    ) -> Images:
        """Return images of light that is given photon by photon.

        Parameters
        ----------
        numbers : (image, 2), words of the random counters: shower, and use << 8 | telescope
        tel : (image,), rows of the telescopes
        photon_start : (image + 1,), photons of image i are photon_start[i] : photon_start[i + 1]
        sky_lon, sky_lat : (photon,), tangent-plane direction that it comes from
        time : (photon,), ns
        weight : (photon,), photo-electrons that it stands for
        forced : read out without a trigger, at time 0
        """
        out = self._empty_images(len(tel))
        cost = SECONDS_PER_IMAGE + SECONDS_PER_PE * np.diff(photon_start)
        work = share_out(np.arange(len(tel)), cost, self._n_threads)
        self._use_threads()
        _run_light(
            work, _integers(numbers), _integers(tel), _integers(photon_start), _floats(sky_lon),
            _floats(sky_lat), _floats(time), _floats(weight), forced, self._optics, self._camera,
            self._camera_settings, *self._key, self._camera_scratch, *out,
        )  # fmt: skip
        return out

    def images_of_pixels(self, numbers: Array, tel: Array, mean_pe: Array, *, dark: bool) -> Images:
        """Return images of flashes at time 0, which force the trigger.

        Parameters
        ----------
        numbers, tel : as for `images_of_light`
        mean_pe : (image, pixel), expected photo-electrons of a pixel of mean efficiency
        dark : the lid is closed: no night sky
        """
        out = self._empty_images(len(tel))
        work = share_out(np.arange(len(tel)), np.ones(len(tel)), self._n_threads)
        self._use_threads()
        _run_pixels(
            work, _integers(numbers), _integers(tel), _floats(mean_pe), dark, self._camera,
            self._camera_settings, *self._key, self._camera_scratch, *out,
        )  # fmt: skip
        return out

    def _use_threads(self) -> None:
        # Numba keeps one number for all: it is set where it is used.
        numba.set_num_threads(self._n_threads)

    def _light(self, rows: ShowerRows) -> tuple:
        """Return the rows for compiled code, and see that they fit into the work space."""
        n_rows, n_muons = self._light_scratch.span.shape[1], self._light_scratch.muon.shape[1]
        most_rows = int(np.max(np.diff(rows.em_start), initial=0))
        most_muons = int(np.max(np.diff(rows.muon_start), initial=0))
        if most_rows > n_rows or most_muons > n_muons:
            self._light_scratch = self._make_light_scratch(
                max(most_rows, n_rows), max(most_muons, n_muons)
            )
        return (
            _plain(rows.em),
            _integers(rows.em_start),
            _plain(rows.muon),
            _integers(rows.muon_start),
        )

    def _make_light_scratch(self, n_rows: int, n_muons: int) -> LightScratch:
        return make_light_scratch(self._n_threads, n_rows, n_muons, len(self._grid.depth))

    def _empty_images(self, n: int) -> Images:
        return Images(
            triggered=np.zeros(n, dtype=np.bool_),
            adc=np.zeros((n, 2, self._n_pixels), dtype=np.uint16),
            true_image=np.zeros((n, self._n_pixels), dtype=np.uint16),
            true_sum=np.zeros(n, dtype=np.int64),
            trigger_time=np.full(n, np.nan),
            trigger_pixel=np.zeros((n, self._n_pixels), dtype=np.bool_),
        )


def _integers(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype=np.int64)


def _floats(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype=np.float64)
