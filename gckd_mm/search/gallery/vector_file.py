"""Rows of float32 on disk, appended to and never changed in place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.regular_files import stat_regular
from gckd_mm.search.gallery.damage import (
    INDEX_AGAIN,
    DamagedGalleryError,
    UnreadableGalleryError,
)

_DTYPE = np.dtype('<f4')


class VectorFile:
    """A matrix of which rows are added at the end, and read through the page cache.

    How many rows count is kept elsewhere, by whoever calls: what a kill left behind
    them is overwritten by the next.
    """

    def __init__(self, path: Path, embedding_size: int) -> None:
        self.path = path
        self._name = os.fspath(path)
        self.embedding_size = embedding_size
        self.row_bytes = _DTYPE.itemsize * embedding_size

    @staticmethod
    def as_stored(feats: np.ndarray) -> np.ndarray:
        """Return rows as the file has them, byte for byte."""
        return np.ascontiguousarray(feats, _DTYPE)

    def write(self, start: int, feats: np.ndarray) -> None:
        """Write rows, shape (N, D), from the given one on, and to the disk."""
        mode = 'r+b' if self._is_there() else 'w+b'
        with open(self.path, mode) as file:
            file.seek(start * self.row_bytes)
            file.write(self.as_stored(feats).tobytes())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())

    def extend(self, count: int) -> None:
        """Fill up with zeros what a broken-off copy lacks of the first rows."""
        if not count:
            return
        self._is_there()
        with open(self.path, 'ab') as file:
            if file.tell() < count * self.row_bytes:
                file.truncate(count * self.row_bytes)

    def check_size(self, count: int) -> int:
        """Refuse a file of fewer rows, as a copy that was broken off has.

        Returns:
            When the file was last changed, in nanoseconds; 0 without rows.
        """
        if not count:
            return 0
        try:
            found = os.stat(self._name)  # every search asks, so once
        except FileNotFoundError:
            raise self._too_short(count) from None
        except OSError as error:
            raise self._unreadable(error) from error
        if not stat.S_ISREG(found.st_mode):
            self._check_kind()
        if found.st_size < count * self.row_bytes:
            raise self._too_short(count)
        return found.st_mtime_ns

    def read(self, count: int) -> np.ndarray:
        """Return the first rows, as a view of the file: shape (count, D), float32."""
        if count == 0:
            return np.empty((0, self.embedding_size), np.float32)
        self.check_size(count)
        shape = (count, self.embedding_size)
        try:
            # not the subclass, of which a slice takes ten microseconds
            return np.asarray(np.memmap(self.path, _DTYPE, 'r', shape=shape))
        except OSError as error:
            raise self._unreadable(error) from error
        except ValueError as error:
            raise self._too_short(count) from error

    def _is_there(self) -> bool:
        """Return whether there is a file; refuse a pipe, which would be waited for."""
        if not os.path.lexists(self.path):
            return False
        self._check_kind()
        return True

    def _check_kind(self) -> None:
        try:
            stat_regular(self.path)
        except InputError as error:
            raise UnreadableGalleryError(str(error)) from error

    def _unreadable(self, error: OSError) -> InputError:
        return UnreadableGalleryError(f'{self.path}: cannot be read ({error.strerror})')

    def _too_short(self, count: int) -> DamagedGalleryError:
        return DamagedGalleryError(
            f'{self.path}: damaged: it does not hold the {count} vectors that it '
            f'should: {INDEX_AGAIN}, which embeds their images again, or restore it '
            f'from a copy'
        )
