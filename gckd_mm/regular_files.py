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
_PAGE = 65_536
# opening a pipe must not wait for who writes to it (Windows has neither)
_FLAGS = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)

_NO_LINK = getattr(os, 'O_NOFOLLOW', 0)


def stat_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Return the state of a regular file, links being followed."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise unreadable(path, error) from error
    _check_kind(path, found)
    return found


def open_regular(path: str | os.PathLike[str], follow_link: bool = True) -> BinaryIO:
    """Open a regular file for reading."""
    return os.fdopen(_opened(path, follow_link)[0], 'rb')


def read_regular(
    path: str | os.PathLike[str], max_bytes: int, follow_link: bool = True
) -> bytes:
    """Read a whole regular file.

    It calls the system directly: a buffer would be a tenth of reading a small image.
    """
    descriptor, size = _opened(path, follow_link)
    parts, count = [], 0
    try:
        while count <= max_bytes:
            # One byte more than it should have: a file may grow, and has 0 in /proc.
            wanted = size - count + 1 if count < size else _PAGE
            part = os.read(descriptor, min(wanted, max_bytes + 1 - count))
            if not part:
                break
            parts.append(part)
            count += len(part)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(descriptor)
    if count > max_bytes:
        raise InputError(
            f'{path}: is too large: at most {max_bytes / 1e6:.0f} MB are read'
        )
    return parts[0] if len(parts) == 1 else b''.join(parts)


def _opened(path: str | os.PathLike[str], follow_link: bool) -> tuple[int, int]:
    """Open a regular file; return its descriptor and size.

    It is looked at before it is opened, since opening alone can have an effect on a
    device, and again afterwards, since another may have taken its place.
    """
    stat_regular(path)
    try:
        descriptor = os.open(path, _FLAGS if follow_link else _FLAGS | _NO_LINK)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        found = os.fstat(descriptor)
        _check_kind(path, found)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found.st_size


def unreadable(path: str | os.PathLike[str], error: Exception) -> InputError:
    """Return the error to raise for a file that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) else error
    return InputError(f'{os.fspath(path)!s}: cannot be read ({reason})')


def _check_kind(path: str | os.PathLike[str], found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), 'something else')
        raise InputError(
            f'{os.fspath(path)!s}: cannot be read (not a regular file, but {kind})'
        )
