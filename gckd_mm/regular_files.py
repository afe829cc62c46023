"""Open files that hold data, and neither pipes nor devices, which may never end."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from gckd_mm.errors import InputError

_KINDS = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}
# opening a pipe must not wait for who writes to it (Windows has neither)
_FLAGS = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)


def stat_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Return the state of a regular file, links being followed.

    Raises:
        InputError: If it is not there, or is another kind of file.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise unreadable(path, error) from error
    _check_kind(path, found)
    return found


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, links being followed.

    It is looked at before it is opened, since opening alone can have an effect on a
    device, and again afterwards, since another may have taken its place.

    Raises:
        InputError: If it cannot be read, or is another kind of file.
    """
    stat_regular(path)
    try:
        file = os.fdopen(os.open(path, _FLAGS), 'rb')
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        _check_kind(path, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Read a whole regular file.

    Raises:
        InputError: If it cannot be read, is another kind of file, or is larger than
            ``max_bytes``.
    """
    with open_regular(path) as file:
        try:
            # None: nothing yet, from files of /proc that wait
            data = file.read(_size_of(file, max_bytes) + 1) or b''
            if len(data) <= max_bytes:
                data += file.read(max_bytes + 1 - len(data)) or b''
        except OSError as error:
            raise unreadable(path, error) from error
    if len(data) > max_bytes:
        raise InputError(
            f'{path}: is too large: at most {max_bytes / 1e6:.0f} MB are read'
        )
    return data


def unreadable(path: str | os.PathLike[str], error: Exception) -> InputError:
    """Return the error to raise for a file that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) else error
    return InputError(f'{os.fspath(path)!s}: cannot be read ({reason})')


def _size_of(file: BinaryIO, max_bytes: int) -> int:
    """Return how much to ask for: a buffer of that size is made at once."""
    return min(os.fstat(file.fileno()).st_size, max_bytes)


def _check_kind(path: str | os.PathLike[str], found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), 'something else')
        raise InputError(
            f'{os.fspath(path)!s}: cannot be read (not a regular file, but {kind})'
        )
