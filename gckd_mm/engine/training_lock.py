"""A work dir belongs to one training at a time."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log

from gckd_mm.errors import InputError
from gckd_mm.process_lock import process_lock

#: file in a work dir that its training holds
LOCK = '.training.lock'
_CANNOT_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)

#: (process, real path of a work dir) -> its lock; a forked process has its parent's
_held: dict[tuple[int, str], ExitStack] = {}


def hold_work_dir(work_dir: str | os.PathLike[str]) -> None:
    """Keep other processes from training in a work dir until this process ends.

    A process that holds it already keeps it: a training that failed can be started
    again in the same notebook.
    """
    key = _key(work_dir)
    if key in _held:
        return
    lock = ExitStack()
    try:
        os.makedirs(work_dir, exist_ok=True)
        lock.enter_context(
            process_lock(os.path.join(work_dir, LOCK), f'work dir {work_dir}')
        )
    except (OSError, NotImplementedError) as error:
        number = getattr(error, 'errno', errno.ENOSYS)
        if number not in _CANNOT_LOCK:
            raise InputError(
                f'work dir {work_dir}: cannot be written to '
                f'({os.strerror(number) if number else error}). Name another with '
                f'--work-dir'
            ) from error
        print_log(
            f'{work_dir}: its file system has no locks: start no second training there',
            'current',
        )
        return
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'work dir {os.fspath(work_dir)!r}: {error}') from error
    _held[key] = lock


def hold_work_dir_on_all_ranks(work_dir: str | os.PathLike[str]) -> None:
    """Hold a work dir on the main process; fail on every rank if it cannot."""
    failed: list[InputError | None] = [None]
    if is_main_process():
        try:
            hold_work_dir(work_dir)
        except InputError as error:
            failed = [error]
    broadcast_object_list(failed)
    if failed[0] is not None:
        raise failed[0]


def release_work_dir(work_dir: str | os.PathLike[str]) -> None:
    """Let others train in a work dir, if this process holds it."""
    lock = _held.pop(_key(work_dir), None)
    if lock is not None:
        lock.close()


def _key(work_dir: str | os.PathLike[str]) -> tuple[int, str]:
    try:
        return os.getpid(), os.path.realpath(work_dir)
    except ValueError:  # a null byte, which making the folder refuses with a message
        return os.getpid(), os.fspath(work_dir)
