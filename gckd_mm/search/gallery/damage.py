"""Stored data that is not what was written."""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

from gckd_mm.errors import InputError
from gckd_mm.regular_files import open_regular

#: what to do where a gallery itself cannot be repaired
NEW_GALLERY = (
    'restore it from a copy, or index the images into a new gallery '
    '(gckd-search index FOLDER --gallery NEW)'
)
#: what to do where ``index`` repairs it
INDEX_AGAIN = 'run gckd-search index on this gallery again'
_CHUNK = 1 << 24


class UnreadableGalleryError(InputError):
    """A gallery cannot be read, whatever is asked of it; the message says why."""


class DamagedGalleryError(UnreadableGalleryError):
    """A file of a gallery is not as it was written; the message says what to run."""


class DamagedGalleryWarning(UserWarning):
    """A file of a gallery is damaged, and results are right without it."""


class Checked(NamedTuple):
    """A file, what was verified (``'12 images'``), and what is wrong with it."""

    name: str
    found: str
    problem: str = ''


def crc_of_file(path: str | os.PathLike[str]) -> int:
    """Return the CRC-32 of a regular file."""
    crc = 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
