"""What the launch and the kernels of `shower_cuda` share: arrays on the device, and the search."""

from typing import NamedTuple

import numpy as np

from .._types import Array
from ..simulation_types import EmRows, MuonRows
from ..trigger import MODULE_PIXELS
from ._compile import compiled
from .photons import N_LINE
from .shower_image import N_MUON
from .trigger import MAX_TRIGGER_PIXELS

__all__ = [
    "MAX_THREADS",
    "RADIUS_FRACTION",
    "RADIUS_INDEX",
    "BlockScratch",
    "RowsOnDevice",
    "block_bytes",
    "em_rows",
    "make_block_scratch",
    "muon_rows",
    "search",
    "stretch_of",
]

MAX_THREADS = 256  # of a block

# Columns of `BlockScratch.line`: those of `em_photon`, and where a row is among the radii.
RADIUS_INDEX, RADIUS_FRACTION = N_LINE, N_LINE + 1
N_COLUMNS = N_LINE + 2


class RowsOnDevice(NamedTuple):
    """Rows of some showers, and what each has in common for all telescopes.

    The columns of the rows are one array, because every array takes seven numbers or more of the
    4 KiB that a launch can pass on all devices.
    """

    em: Array  # (7, row), see EmRows
    em_start: Array  # (shower + 1,)
    muon: Array  # (6, muon), see MuonRows
    muon_start: Array  # (shower + 1,)
    amount: Array  # (row, step) float64, see `shower.profile`
    age_index: Array  # (row, step) int32
    age_fraction: Array  # (row, step) float64
    span: Array  # (row, 2) int32, first and last step with light


class BlockScratch(NamedTuple):
    """Work space, one row for each block; `count`, `amplitude`, `moment` are 0 between images."""

    count: Array  # (block, pixel) float64, see `camera.CameraScratch`
    amplitude: Array
    moment: Array
    state: Array  # (block, pixel) int8, marks of the trigger
    fired: Array  # (block, pixel) int32, pixels above threshold, each module has its own stretch
    group: Array  # (block, pixel) int32, likewise
    earliest: Array  # (block, module, trigger pixels) float64
    running: Array  # (block, cell) float64, running sum of the light of rows x steps and muons
    line: Array  # (block, row, N_COLUMNS) float64
    muon: Array  # (block, muon, N_MUON) float64


def make_block_scratch(
    n_blocks: int, n_pixels: int, n_rows: int, n_muons: int, n_steps: int, empty, zeros
) -> BlockScratch:
    """Return work space for showers of up to so many rows and muons.

    Parameters
    ----------
    empty, zeros : functions of a shape and a `dtype` that make arrays (`cupy.empty`, ...)
    """
    pixels = (n_blocks, n_pixels)
    modules = (n_blocks, -(-n_pixels // MODULE_PIXELS), MAX_TRIGGER_PIXELS)
    return BlockScratch(
        count=zeros(pixels, dtype=np.float64),
        amplitude=zeros(pixels, dtype=np.float64),
        moment=zeros(pixels, dtype=np.float64),
        state=zeros(pixels, dtype=np.int8),
        fired=empty(pixels, dtype=np.int32),
        group=empty(pixels, dtype=np.int32),
        earliest=empty(modules, dtype=np.float64),
        running=empty((n_blocks, n_rows * n_steps + n_muons), dtype=np.float64),
        line=empty((n_blocks, n_rows, N_COLUMNS), dtype=np.float64),
        muon=empty((n_blocks, n_muons, N_MUON), dtype=np.float64),
    )


def block_bytes(n_pixels: int, n_rows: int, n_muons: int, n_steps: int) -> int:
    """Return the size of the work space of one block."""
    arrays = make_block_scratch(1, n_pixels, n_rows, n_muons, n_steps, np.empty, np.empty)
    return sum(array.nbytes for array in arrays)


@compiled
def em_rows(rows):
    """Return the electromagnetic rows of a `RowsOnDevice` by their names."""
    em = rows.em
    return EmRows(em[0], em[1], em[2], em[3], em[4], em[5], em[6])


@compiled
def muon_rows(rows):
    """Return the muons of a `RowsOnDevice` by their names."""
    muon = rows.muon
    return MuonRows(muon[0], muon[1], muon[2], muon[3], muon[4], muon[5])


@compiled
def stretch_of(n_cells, n_threads):
    """Return how many cells a thread sums up."""
    return (n_cells + n_threads - 1) // n_threads


@compiled
def search(target, running, n_cells, before, n_threads):
    """Return the first cell whose running sum exceeds `target`, as `photons.find_cell` does.

    A binary search, first through the stretches of the threads, whose sums are near, then through
    one of them: a guide would take as many searches to fill as it saves.

    Parameters
    ----------
    target : below the last sum
    running : (cell,), running sum of `n_cells` cells
    before : (thread,), the sum up to the stretch of each of `n_threads` threads
    """
    low, high = 0, n_threads - 1
    while low < high:
        middle = (low + high + 1) // 2
        if before[middle] > target:
            high = middle - 1
        else:
            low = middle
    length = stretch_of(n_cells, n_threads)
    low = low * length
    high = min(low + length, n_cells) - 1
    while low < high:
        middle = (low + high) // 2
        if running[middle] > target:
            high = middle
        else:
            low = middle + 1
    return low
