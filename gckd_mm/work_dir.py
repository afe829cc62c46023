"""What a work dir holds: checkpoints, and which of them was written last."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from gckd_mm.errors import CheckpointError

#: file in a work dir that holds the path of the checkpoint written last
POINTER = 'last_checkpoint'
#: file in the work dir of a run that has written no checkpoint yet
BEGUN = '.begun_without_checkpoint'
_SUFFIX = '.pth'
_LONGEST_POINTER = 2**16
_SHOWN = 10


def checkpoint_to_resume(work_dir: str | os.PathLike[str]) -> str | None:
    """Return the checkpoint from which a run in a work dir continues.

    Raises:
        CheckpointError: If ``last_checkpoint`` does not name a checkpoint of the work
            dir, or is missing although there are checkpoints; lists those.
    """
    path, flaw = _read_pointer(work_dir)
    if path is not None:
        return path
    found = checkpoints_in(work_dir)
    if flaw is None and (not found or os.path.isfile(os.path.join(work_dir, BEGUN))):
        return None
    pointer = os.path.join(work_dir, POINTER)
    what = f'{pointer} {flaw or "is missing"}: nothing says where to resume'
    if not found:
        raise CheckpointError(
            f'{what}, and no checkpoint (*{_SUFFIX}) lies beside it. Name one with '
            f'--resume PATH, or train from the beginning without --resume'
        )
    raise CheckpointError(
        f'{what}. Name one of the checkpoints there with --resume PATH (newest first): '
        f'{_listed(found)}'
    )


def find_last_checkpoint(work_dir: str | os.PathLike[str]) -> str | None:
    """Return the checkpoint that ``last_checkpoint`` in a work dir names, if any.

    The file may have been written under another path: a work dir can be moved. A
    ``last_checkpoint`` that cannot be read names none.
    """
    return _read_pointer(work_dir)[0]


def checkpoints_in(work_dir: str | os.PathLike[str]) -> list[str]:
    """Return the paths of the checkpoints in a work dir, the newest first."""
    found = []
    try:
        with os.scandir(work_dir) as entries:
            for entry in entries:
                hidden = entry.name.startswith('.')
                if entry.name.endswith(_SUFFIX) and not hidden and entry.is_file():
                    found.append((entry.stat().st_mtime_ns, entry.name))
    except OSError:
        return []
    found.sort(key=lambda item: (item[0], _numbers(item[1])), reverse=True)
    return [os.path.join(work_dir, name) for _, name in found]


def other_checkpoints(path: str | os.PathLike[str]) -> str:
    """Return a list, for a message, of the checkpoints beside one; '' if none."""
    folder, name = os.path.split(os.fspath(path))
    others = [p for p in checkpoints_in(folder or '.') if os.path.basename(p) != name]
    return _listed(others) if others else ''


def _read_pointer(work_dir: str | os.PathLike[str]) -> tuple[str | None, str | None]:
    """Return the checkpoint named, or what is wrong with the file; neither if absent.

    Nothing but a small regular file is opened: a FIFO would never end.
    """
    pointer = Path(work_dir, POINTER)
    try:
        status = pointer.stat()
        if not stat.S_ISREG(status.st_mode):
            return None, 'is not a regular file'
        if status.st_size > _LONGEST_POINTER:
            return None, f'holds {status.st_size} bytes instead of a path'
        content = pointer.read_bytes().decode().strip()
    except UnicodeDecodeError:
        return None, 'holds no text in UTF-8'
    except NotADirectoryError:
        return None, None
    except FileNotFoundError:
        return None, 'is a link to nothing' if pointer.is_symlink() else None
    except OSError as error:
        return None, f'cannot be read ({error.strerror})'
    if not content:
        return None, 'is empty'
    if '\0' in content or len(content.splitlines()) > 1:
        return None, f'holds more than a path: {content!r:.120}'
    path = os.path.join(work_dir, os.path.basename(content))
    if not os.path.isfile(path):
        return None, f'names {content!r:.120}, which is not in the folder'
    return path, None


def _numbers(name: str) -> list[int]:
    return [int(digits[:18]) for digits in re.findall(r'[0-9]+', name)]


def _listed(paths: list[str]) -> str:
    more = f' and {len(paths) - _SHOWN} more' if len(paths) > _SHOWN else ''
    return ', '.join(paths[:_SHOWN]) + more
