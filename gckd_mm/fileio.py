"""Write files whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file so that a reader, or a kill at any moment, never meets half of it.

    The data go to a hidden file beside it, to the disk, and then under the name. What a
    kill leaves behind is overwritten by the next write of the same name.

    Raises:
        OSError: If it cannot be written; names the file, and leaves what was there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    try:
        with open(partial, 'wb') as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        # On a full disk, half of a file is what the others lack.
        with contextlib.suppress(OSError):
            partial.unlink()
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == 'nt':  # folders cannot be opened there; the rename is journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, with ``put`` made atomic: mmengine's writes in place."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write bytes to a file."""
        write_atomically(filepath, bytes(obj))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file."""
        write_atomically(filepath, obj.encode(encoding))


register_backend('atomic', AtomicLocalBackend, force=True)
