"""CUDA launch of the shower simulation: light and images on a GPU, cascades on the CPU.

What the threads of the GPU do:

* Profiles of electromagnetic rows are the same for all telescopes and uses: one thread a row fills
  them once, and they stay on the device from `expected` to the last call of `images`.
* Expected light: one thread an event and telescope, which sums over rows and steps in the order of
  the CPU. Neighbouring threads have the telescopes and uses of one shower, so that a warp goes
  through the same rows and steps together and reads the same numbers.
* Images: one block an image, because images differ a thousandfold in light. A thread for each would
  wait for the brightest of its warp, and would need the work space of an image to itself. Blocks
  take images from a queue, the most expensive ones first. In a block the threads share out the
  cells (rows x steps), then the photo-electrons, then the pixels: each photo-electron and pixel has
  its own random counter, so that any split draws the same. The group search of the trigger, which
  is sequential, has one thread for each module, because groups end at the edges of modules.
* Photo-electrons are added up with atomic operations in global memory: three sums for each pixel
  would take 57 kB of the shared memory of a block, and leave room for few blocks. Counts and
  avalanches of photo-electrons without weights are exact; other sums differ from those of the CPU
  in their last places, and so may their order from run to run.

Primaries, cores and hadronic cascades stay on the CPU, the cascades over threads: their stacks of
particles grow and shrink too unevenly for the loop text to keep a GPU busy.
"""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._types import Array
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
from .cuda_device import device_view, load_cupy, load_kernels, stream
from .shower_block import (
    MAX_THREADS,
    BlockScratch,
    RowsOnDevice,
    block_bytes,
    make_block_scratch,
)
from .shower_cpu import SECONDS_PER_IMAGE, SECONDS_PER_PE, SECONDS_PER_ROW, ShowerLoops

__all__ = ["LaunchShape", "ShowerCuda"]

THREADS = 128
BLOCKS_PER_PROCESSOR = 4  # about as many as the registers of 150 a thread leave room for
MEMORY_SHARE = 0.25  # of the free memory, for profiles and again for the work space of blocks
PROFILE_BYTES = 8 + 4 + 8  # of a row and step


class LaunchShape(NamedTuple):
    """How much of a device is used."""

    n_blocks: int  # images worked on at a time, if their work space fits
    n_threads: int  # of a block
    memory_bytes: int  # for profiles, and again for work space


def _shape_of_device(xp) -> LaunchShape:
    device = xp.cuda.Device()
    free = xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes()
    return LaunchShape(
        device.attributes["MultiProcessorCount"] * BLOCKS_PER_PROCESSOR,
        THREADS,
        int(free * MEMORY_SHARE),
    )


class ShowerCuda(ShowerLoops):
    """The simulation of one array on the current CUDA device; arrays in and out are NumPy.

    Tables and constants of the cameras are copied to the device once.

    Parameters
    ----------
    settings, grid, tables, telescopes, optics, camera, camera_settings : as for `ShowerLoops`
    n_threads : of the CPU, for the cascades
    shape : of the launch; None: as suits the device
    xp : array namespace of the device, CuPy if None; NumPy for numba-cuda's simulator

    Raises
    ------
    RuntimeError
        Without numba-cuda, CuPy or a GPU; one sentence that says what to do.
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
        *,
        shape: LaunchShape | None = None,
        xp: Any = None,
    ) -> None:
        self._kernels = load_kernels("shower_cuda_kernels")
        self._xp = xp = load_cupy() if xp is None else xp
        super().__init__(
            settings, grid, tables, telescopes, optics, camera, camera_settings, n_threads
        )
        shape = _shape_of_device(xp) if shape is None else shape
        self._shape = shape._replace(n_threads=min(shape.n_threads, MAX_THREADS))
        self._places = self._put(np.stack(self._telescopes))
        self._grid_there, self._tables_there, self._optics_there, self._camera_there = (
            type(tree)(*(self._put(v) if np.ndim(v) else v for v in tree))
            for tree in (self._grid, self._tables, self._optics, self._camera)
        )
        # Not read by any kernel: launches on older systems take 4 KiB of arguments.
        self._camera_there = self._camera_there._replace(module=0)
        self._loaded: tuple[ShowerRows, int, int, RowsOnDevice] | None = None
        self._scratch: BlockScratch | None = None

    def expected(self, primaries: Primaries, rows: ShowerRows, events: Events) -> Array:
        """Return the expected photo-electrons, float64 (event, telescope)."""
        del primaries
        n_tel, n_steps = len(self._telescopes.x), len(self._grid.depth)
        out = np.zeros((len(events.x), n_tel))
        for first, last, chosen in self._parts(rows, events.shower):
            there = self._load(rows, first, last)
            n_pairs = len(chosen) * n_tel
            found = self._xp.empty((len(chosen), n_tel))
            # Nobody reads what the thread writes here: all of its steps share one place.
            step = self._xp.lib.stride_tricks.as_strided(
                self._xp.empty(n_pairs), (n_pairs, n_steps), (8, 0)
            )
            core = np.stack([events.x[chosen], events.y[chosen]], axis=1)
            self._run(
                self._kernels.run_expected, -(-n_pairs // THREADS), min(n_pairs, THREADS),
                self._put(events.shower[chosen].astype(np.int64) - first), self._put(core),
                self._places, there, self._grid_there, self._tables_there, self._optics_there,
                self._view(step), self._view(found),
            )  # fmt: skip
            out[chosen] = self._back(found)
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
        """Return images of showers; see `ShowerLoops.images`."""
        out = self._empty_images(len(image_event))
        image_shower = events.shower[image_event]
        for first, last, chosen in self._parts(rows, image_shower):
            there = self._load(rows, first, last)
            event, tel, mean = image_event[chosen], image_tel[chosen], mean_pe[chosen]
            shower = image_shower[chosen]
            n_rows, n_muons = (np.diff(start)[shower] for start in (rows.em_start, rows.muon_start))
            request = np.stack(
                [
                    shower - first,
                    primaries.shower[shower].astype(np.int64),
                    events.use[event].astype(np.int64) << 8 | tel,
                    tel,
                    np.arange(len(chosen)),
                ],
                axis=1,
                dtype=np.int64,
            )
            place = np.stack(
                [
                    *(events.x[event], events.y[event]),
                    *(primaries.q_lon[shower], primaries.q_lat[shower]),
                    mean,
                ],
                axis=1,
            )
            order = _expensive_first(
                np.minimum(mean, self._settings.max_image_pe), n_rows + n_muons
            )
            found = self._run_images(
                self._kernels.run_images, len(chosen), (n_rows.max(), n_muons.max()),
                self._put(request[order]), self._put(place[order]), self._places, there,
                self._grid_there, self._tables_there, self._optics_there, self._camera_there,
                self._camera_settings, self._settings.max_image_pe, *self._key,
            )  # fmt: skip
            if len(chosen) == len(image_event):
                return found
            for whole, part in zip(out, found, strict=True):
                whole[chosen] = part
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
        """Return images of light that is given photon by photon; see `ShowerLoops`."""
        if len(tel) == 0:
            return self._empty_images(0)
        order = _expensive_first(np.diff(photon_start), np.zeros(len(tel)))
        photon = np.zeros((4, max(len(time), 1)))
        for row, values in zip(photon, (sky_lon, sky_lat, time, weight), strict=True):
            row[: len(time)] = values
        return self._run_images(
            self._kernels.run_light, len(tel), (0, 0),
            self._put(_requests(numbers, tel)[order]), self._put(photon_start.astype(np.int64)),
            self._put(photon), forced, self._optics_there, self._camera_there,
            self._camera_settings, *self._key,
        )  # fmt: skip

    def images_of_pixels(self, numbers: Array, tel: Array, mean_pe: Array, *, dark: bool) -> Images:
        """Return images of flashes at time 0, which force the trigger; see `ShowerLoops`."""
        if len(tel) == 0:
            return self._empty_images(0)
        return self._run_images(
            self._kernels.run_pixels, len(tel), (0, 0), self._put(_requests(numbers, tel)),
            self._put(np.asarray(mean_pe, dtype=np.float64)), dark, self._camera_there,
            self._camera_settings, *self._key,
        )  # fmt: skip

    def _parts(self, rows: ShowerRows, shower: Array) -> Iterator[tuple[int, int, Array]]:
        """Yield ranges of showers whose profiles fit, and the items of a list that are of them."""
        em_start = rows.em_start
        limit = self._shape.memory_bytes // (PROFILE_BYTES * len(self._grid.depth))
        first = 0
        while first < len(em_start) - 1:
            fitting = int(np.searchsorted(em_start, em_start[first] + limit, side="right")) - 1
            last = max(fitting, first + 1)
            chosen = np.nonzero((shower >= first) & (shower < last))[0]
            if len(chosen):
                yield first, last, chosen
            first = last

    def _load(self, rows: ShowerRows, first: int, last: int) -> RowsOnDevice:
        """Return the rows of showers on the device, with their profiles."""
        if self._loaded and self._loaded[0] is rows and self._loaded[1:3] == (first, last):
            return self._loaded[3]
        self._loaded = None
        em, em_start = _cut(rows.em, rows.em_start, first, last)
        muon, muon_start = _cut(rows.muon, rows.muon_start, first, last)
        n_rows, n_steps = int(em_start[-1]), len(self._grid.depth)
        empty = self._xp.empty
        there = RowsOnDevice(
            em=self._put(em),
            em_start=self._put(em_start),
            muon=self._put(muon),
            muon_start=self._put(muon_start),
            amount=self._view(empty((max(n_rows, 1), n_steps), dtype=np.float64)),
            age_index=self._view(empty((max(n_rows, 1), n_steps), dtype=np.int32)),
            age_fraction=self._view(empty((max(n_rows, 1), n_steps), dtype=np.float64)),
            span=self._view(empty((max(n_rows, 1), 2), dtype=np.int32)),
        )
        if n_rows:
            self._run(
                self._kernels.run_profiles, -(-n_rows // THREADS), min(n_rows, THREADS), there,
                self._grid_there, self._tables_there,
            )  # fmt: skip
        self._loaded = (rows, first, last, there)
        return there

    def _scratch_for(self, n_rows: int, n_muons: int) -> BlockScratch:
        """Return work space for images of showers of up to so many rows and muons."""
        if self._scratch is not None:
            most_rows, most_muons = self._scratch.line.shape[1], self._scratch.muon.shape[1]
            if n_rows <= most_rows and n_muons <= most_muons:
                return self._scratch
            n_rows, n_muons = max(n_rows, most_rows), max(n_muons, most_muons)
            self._scratch = None
        sizes = self._n_pixels, max(n_rows, 1), max(n_muons, 1), len(self._grid.depth)
        fitting = self._shape.memory_bytes // block_bytes(*sizes)
        n_blocks = max(1, min(self._shape.n_blocks, fitting))
        made = make_block_scratch(n_blocks, *sizes, self._xp.empty, self._xp.zeros)
        self._scratch = BlockScratch(*map(self._view, made))
        return self._scratch

    def _run_images(
        self, kernel: Any, n_images: int, largest: tuple[int, int], *arguments: Any
    ) -> Images:
        """Return what a kernel makes of images, `largest` being the most rows and muons of one."""
        xp, pixels = self._xp, (n_images, self._n_pixels)
        scratch = self._scratch_for(*map(int, largest))
        images = Images(
            triggered=xp.zeros(n_images, dtype=np.bool_),
            adc=xp.zeros((n_images, 2, self._n_pixels), dtype=np.uint16),
            true_image=xp.zeros(pixels, dtype=np.uint16),
            true_sum=xp.zeros(n_images, dtype=np.int64),
            trigger_time=xp.zeros(n_images, dtype=np.float64),
            trigger_pixel=xp.zeros(pixels, dtype=np.bool_),
        )
        queue = self._view(xp.zeros(1, dtype=np.int32))
        n_blocks = min(n_images, scratch.count.shape[0])
        self._run(
            kernel, n_blocks, self._shape.n_threads, *arguments, queue, scratch,
            Images(*map(self._view, images)),
        )  # fmt: skip
        return Images(*map(self._back, images))

    def _run(self, kernel: Any, n_blocks: int, n_threads: int, *arguments: Any) -> None:
        with warnings.catch_warnings():  # the last batch of a run may be small
            warnings.filterwarnings("ignore", message="Grid size .* under-utilization")
            configured = kernel[n_blocks, n_threads, stream(self._kernels.cuda, self._xp)]
        configured(*arguments)

    def _view(self, array: Array) -> Any:
        return device_view(self._kernels.cuda, array)

    def _put(self, array: Array) -> Any:
        return self._view(self._xp.asarray(np.ascontiguousarray(array)))

    def _back(self, array: Array) -> Array:
        return array.get() if hasattr(array, "get") else array


def _expensive_first(n_photons: Array, n_rows: Array) -> Array:
    cost = SECONDS_PER_IMAGE + SECONDS_PER_PE * n_photons + SECONDS_PER_ROW * n_rows
    return np.argsort(-cost, kind="stable")


def _requests(numbers: Array, tel: Array) -> Array:
    columns = (*np.asarray(numbers).T, tel, np.arange(len(tel)))
    return np.stack([np.asarray(column, dtype=np.int64) for column in columns], axis=1)


def _cut(columns, start: Array, first: int, last: int) -> tuple[Array, Array]:
    """Return the rows of showers first ... last - 1, one array of at least one row, and starts."""
    begin, end = int(start[first]), int(start[last])
    cut = np.zeros((len(columns), max(end - begin, 1)))
    for row, column in zip(cut, columns, strict=True):
        row[: end - begin] = column[begin:end]
    return cut, (start[first : last + 1] - begin).astype(np.int64)
