"""Rows of float32 on disk, appended to and never changed in place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gckd_mm.errors import InputError

_DTYPE = np.dtype('<f4')


class VectorFile:
    """A matrix of which rows are added at the end, and read through the page cache.

    How many rows count is kept elsewhere, by whoever calls: what a kill left behind
    them is overwritten by the next.

    Args:
        path: The file; it need not be there.
        embedding_size: D, the length of a row.
    """

    def __init__(self, path: Path, embedding_size: int) -> None:
        self.path = path
        self.embedding_size = embedding_size
        self._bytes_of_row = _DTYPE.itemsize * embedding_size

    def write(self, start: int, feats: np.ndarray) -> None:
        """Write rows from the given one on, and to the disk.

        Args:
            start: Row, at most the number of rows there are.
            feats: Shape (N, D).
        """
        mode = 'r+b' if self.path.exists() else 'w+b'
        with open(self.path, mode) as file:
            file.seek(start * self._bytes_of_row)
            file.write(np.ascontiguousarray(feats, _DTYPE).tobytes())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())

    def read(self, count: int) -> np.ndarray:
        """Return the first rows, as a view of the file: shape (count, D), float32.

        Raises:
            InputError: If the file has fewer, as a copy of it that was broken off has.
        """
        if count == 0:
            return np.empty((0, self.embedding_size), np.float32)
        shape = (count, self.embedding_size)
        try:
            return np.memmap(self.path, _DTYPE, 'r', shape=shape)
        except (OSError, ValueError) as error:
            raise InputError(
                f'{self.path}: damaged: it does not hold the {count} vectors that it '
                f'should; index the pictures into a new gallery'
            ) from error
