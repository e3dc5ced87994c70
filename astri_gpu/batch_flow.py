"""Batches through the image chain: several in flight, and smaller ones when the memory is full."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import Backend, ImageChain
from astri_gpu.batch import Batch, cut
from astri_gpu.errors import AstriError
from astri_gpu.kernels.image_types import ImageResult

__all__ = ["BatchFlow"]

Flight = tuple[Batch, Callable[[], ImageResult]]

logger = logging.getLogger(__name__)


class BatchFlow:
    """Blocks of images in, results of batches out, in order, every image once.

    Batches are started before the results of the earlier ones are waited for
    (`Backend.pipeline_depth` of them). The first time that one finds too little memory, it and all
    that are in flight are started again at half the size, which then stays.

    Parameters
    ----------
    chain
        From `Backend.image_chain`.
    backend
        Which says how many batches are in flight, and whether an error is one of memory.
    size
        Most images in a batch.
    is_shower
        Function from a batch to the images that are cleaned (image,).
    name
        Of the images, for messages.
    """

    def __init__(
        self,
        chain: ImageChain,
        backend: Backend,
        *,
        size: int,
        is_shower: Callable[[Batch], NDArray[np.bool_]],
        name: str,
    ) -> None:
        self._chain, self._backend, self._name = chain, backend, name
        self._is_shower = is_shower
        self._size = size
        self._halved = False
        self._depth = max(1, backend.pipeline_depth)

    def __call__(self, blocks: Iterable[Batch]) -> Iterator[tuple[Batch, ImageResult]]:
        """Yield each batch with its result (NumPy arrays, padding included).

        Raises
        ------
        AstriError
            When the memory is too small for half the size, too.
        """
        waiting: deque[Batch] = deque()
        flying: deque[Flight] = deque()
        n_between = self._depth - 1  # in flight while the next block is waited for
        for block in blocks:
            waiting.extend(self._cut(block))
            del block  # its memory is wanted for the next one
            while waiting or len(flying) > n_between:
                yield from self._step(waiting, flying)
        while waiting or flying:
            yield from self._step(waiting, flying)

    def _cut(self, block: Batch) -> Iterator[Batch]:
        return cut(block, self._size, fixed_shape=self._backend.fixed_shape)

    def _step(
        self, waiting: deque[Batch], flying: deque[Flight]
    ) -> Iterator[tuple[Batch, ImageResult]]:
        """Start a batch, or yield the oldest in flight; with too little memory all go back."""
        try:
            if waiting and len(flying) < self._depth:
                batch = waiting[0]
                finish = self._chain.start(
                    batch.adc, batch.calibration_index, self._is_shower(batch)
                )
                flying.append((waiting.popleft(), finish))
                return
            result = flying[0][1]()
        except Exception as error:
            self._make_smaller(error, waiting, flying)
            return
        yield flying.popleft()[0], result

    def _make_smaller(self, error: Exception, waiting: deque[Batch], flying: deque[Flight]) -> None:
        if not self._backend.is_out_of_memory(error):
            raise error
        if self._halved or self._size == 1:
            raise AstriError(
                f"{self._name}: the memory of backend {self._backend.name} is too small for a "
                f"batch of {self._size} images ({' '.join(str(error).split())}): set a smaller "
                "batch_size or give the device to this run alone."
            ) from error
        self._halved = True
        before, self._size = self._size, -(-self._size // 2)
        logger.warning(
            "%s: not enough memory for batches of %d images, going on with %d",
            self._name,
            before,
            self._size,
        )
        again = [batch for batch, _ in flying] + list(waiting)
        flying.clear()  # and with it what the device holds
        waiting.clear()
        for batch in again:
            waiting.extend(self._cut(batch))
