"""Rows that come one by one, given to a table of a store in blocks.

A table takes some hundred microseconds for a call, whatever the number of rows, which is as long as
reading an image; a block is filled in place and stays in the cache.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astri_gpu.errors import AstriError
from astri_gpu.schema import column
from astri_gpu.store import StoreWriter, TableWriter

__all__ = ["RowBlock"]

BLOCK_BYTES = 4 << 20
MAX_ROWS = 512


class RowBlock:
    """A table of a store under construction that takes single rows.

    Parameters
    ----------
    writer, path, columns, sizes, rows_per_chunk, dtypes
        Those of `StoreWriter.table`.
    """

    def __init__(
        self,
        writer: StoreWriter,
        path: str,
        columns: Sequence[str],
        *,
        sizes: Mapping[str, int],
        rows_per_chunk: int | None = None,
        dtypes: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self._table: TableWriter = writer.table(
            path, columns, sizes=sizes, rows_per_chunk=rows_per_chunk, dtypes=dtypes
        )
        layout = {}
        for name in columns:
            entry = column(path, name)
            dtype = np.dtype((dtypes or {}).get(name, entry.dtype))
            layout[name] = (tuple(int(sizes[axis]) for axis in entry.dims[1:]), dtype)
        row_bytes = sum(int(np.prod(tail)) * dtype.itemsize for tail, dtype in layout.values())
        self._n_rows = max(1, min(MAX_ROWS, BLOCK_BYTES // row_bytes))
        self._arrays = {
            name: np.empty((self._n_rows, *tail), dtype) for name, (tail, dtype) in layout.items()
        }
        self._wide = {name: layout[name] for name in columns if layout[name][0]}
        self._filled = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one row: a number for every column, an array for those with pixels or telescopes.

        Raises
        ------
        AstriError
            When an array has another shape than the column, or is not of whole numbers where the
            column is; or what the table says to a block.
        """
        for name, (tail, dtype) in self._wide.items():
            values = row[name]
            if values.shape != tail:
                raise AstriError(f"{self.path}/{name} takes rows of {tail}, not {values.shape}.")
            if dtype.kind in "iub" and values.dtype.kind not in "iub":
                raise AstriError(f"{self.path}/{name} holds {dtype}, not {values.dtype} values.")
        for name, array in self._arrays.items():
            array[self._filled] = row[name]
        self._filled += 1
        if self._filled == self._n_rows:
            self.flush()

    def flush(self) -> None:
        """Give the rows that are still here to the table."""
        if self._filled:
            self._table.append({name: rows[: self._filled] for name, rows in self._arrays.items()})
            self._filled = 0
