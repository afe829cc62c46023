"""Reading a file that somebody else may have replaced."""

from __future__ import annotations

import os
import stat


def read_regular(path: str | os.PathLike[str], max_bytes: int) -> tuple[bytes, int]:
    """Read a regular file, and nothing else that may lie at its path.

    A symbolic link is not followed, and a FIFO or a device is never waited for: the
    kind of file is known before the first byte is read.

    Args:
        path: Of the file. Links in its folders are followed.
        max_bytes: That it may have.

    Returns:
        Its bytes, and its time of change in nanoseconds.

    Raises:
        OSError: If it is not there, not a regular file or too large.
        ValueError: If the path has a NUL.
    """
    # Windows has none of these, and neither FIFOs
    flags = sum(getattr(os, f'O_{x}', 0) for x in ('NOFOLLOW', 'NONBLOCK', 'CLOEXEC'))
    descriptor = os.open(path, os.O_RDONLY | flags | getattr(os, 'O_BINARY', 0))
    with open(descriptor, 'rb') as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f'{os.fspath(path)!r} is not a regular file')
        if found.st_size > max_bytes:
            raise OSError(f'{os.fspath(path)!r} has more than {max_bytes} bytes')
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(f'{os.fspath(path)!r} grows while it is read')
    return data, found.st_mtime_ns
