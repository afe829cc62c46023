"""Locks between processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gckd_mm.process_lock import LockedError, is_locked, process_lock

_HOLDER = """
import sys, time
from gckd_mm.process_lock import process_lock
with process_lock(sys.argv[1], 'the folder'):
    print('held', flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen:
    """A process that holds ``tmp_path / 'lock'``."""
    process = subprocess.Popen(
        [sys.executable, '-c', _HOLDER, str(tmp_path / 'lock')], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b'held\n'
    yield process
    process.kill()
    process.wait()


def test_another_process_is_refused_and_named(
    holder: subprocess.Popen, tmp_path: Path
) -> None:
    assert is_locked(tmp_path / 'lock')
    with (
        pytest.raises(LockedError, match=f'the folder: in use by process {holder.pid}'),
        process_lock(tmp_path / 'lock', 'the folder'),
    ):
        pass


def test_a_killed_process_holds_nothing(
    holder: subprocess.Popen, tmp_path: Path
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_locked(tmp_path / 'lock')
    with process_lock(tmp_path / 'lock', 'the folder'):
        assert is_locked(tmp_path / 'lock')


def test_waiting_for_a_process_that_ends(
    holder: subprocess.Popen, tmp_path: Path
) -> None:
    began = time.monotonic()
    holder.terminate()
    with process_lock(tmp_path / 'lock', 'the folder', wait_seconds=30):
        assert time.monotonic() - began < 30


def test_it_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), process_lock(tmp_path / 'lock', 'the folder'):
        raise KeyError
    with process_lock(tmp_path / 'lock', 'the folder'):
        assert str(os.getpid()) in (tmp_path / 'lock.owner').read_text()


def test_a_file_that_is_not_there_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / 'lock')
    assert not any(tmp_path.iterdir())


def test_a_record_that_is_damaged_is_passed_over(
    holder: subprocess.Popen, tmp_path: Path
) -> None:
    (tmp_path / 'lock.owner').write_text('[1')
    with (
        pytest.raises(LockedError, match='in use by another process'),
        process_lock(tmp_path / 'lock', 'the folder'),
    ):
        pass


def test_a_pipe_in_the_place_of_the_record(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'lock.owner')
    with process_lock(tmp_path / 'lock', 'the folder'):
        assert str(os.getpid()) in (tmp_path / 'lock.owner').read_text()
