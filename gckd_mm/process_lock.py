"""Locks that at most one process holds, and that end with it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gckd_mm.errors import InputError
from gckd_mm.regular_files import read_regular

#: for the children of a killed process, which still hold what it held
_SECONDS_FOR_A_DEAD_OWNER = 15.0
_MOST_BYTES = 10_000


class LockedError(InputError):
    """Another process holds a lock; the message names it."""


@contextmanager
def process_lock(
    path: str | os.PathLike[str], what: str, wait_seconds: float = 0.0
) -> Iterator[None]:
    """Hold a lock while the body runs.

    The operating system releases it when the process ends, however it ends. The file
    stays: deleting it would let two processes hold a lock each. A second file,
    ``<path>.owner``, names the process for the message of others.

    Args:
        path: Of the lock file; its folder must exist.
        what: That is locked, for the message, such as ``'work_dirs/demo'``.
        wait_seconds: For another process to release it.

    Raises:
        LockedError: If another process holds it.
        OSError: If the file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        if not _is_dead(_read_owner(path)):
            raise _locked(path, what) from None
        try:
            lock.acquire(timeout=_SECONDS_FOR_A_DEAD_OWNER)
        except Timeout:
            raise _locked(path, what) from None
    try:
        _write_owner(path)
        yield
    finally:
        lock.release()


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Return whether a process holds the lock of a file, which need not exist."""
    if not os.path.exists(path):
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _owner_file(path: str | os.PathLike[str]) -> Path:
    return Path(f'{os.fspath(path)}.owner')


def _write_owner(path: str | os.PathLike[str]) -> None:
    owner = {
        'process': os.getpid(),
        'host': socket.gethostname(),
        'since': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
        'command': ' '.join(sys.argv)[:500],
    }
    record = _owner_file(path)
    record.unlink(missing_ok=True)  # a pipe in its place would be waited for
    record.write_text(json.dumps(owner), encoding='utf-8')


def _read_owner(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        owner = json.loads(read_regular(_owner_file(path), _MOST_BYTES))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Return whether the process that a record names is known to have ended."""
    process = owner.get('process')
    if not isinstance(process, int) or owner.get('host') != socket.gethostname():
        return False
    if os.name == 'nt':  # there a signal of 0 is Ctrl+C
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _locked(path: str | os.PathLike[str], what: str) -> LockedError:
    owner = _read_owner(path)
    by = 'another process'
    if owner:
        by = (
            f'process {owner.get("process")} on {owner.get("host")} since '
            f'{owner.get("since")} ({owner.get("command")})'
        )
    return LockedError(
        f'{what}: in use by {by}. Wait until it ends, stop it, or name another folder'
    )
