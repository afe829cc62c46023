"""One training a work dir: a second one is refused, a dead one holds nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.engine.training_lock import LOCK, hold_work_dir, release_work_dir
from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.process_lock import LockedError, is_locked
from tests.training import (
    in_process,
    last_checkpoint,
    on_ranks,
    small_config,
    small_gckd_config,
    train,
)
from tools import test as test_tool
from tools import train as train_tool


def _config_file(data: Path, work_dir: Path, path: Path, gckd: bool = False) -> str:
    if gckd:
        small_gckd_config(data, work_dir).dump(path)
    else:
        small_config(data, work_dir, train_cfg__max_iters=4).dump(path)
    return str(path)


def _expect_refusal(work_dir: Path, out: Path) -> None:
    try:
        hold_work_dir(work_dir)
    except LockedError as error:
        out.write_text(str(error))


def test_another_process_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    work_dir, out = tmp_path / 'work', tmp_path / 'error.txt'
    hold_work_dir(work_dir)
    try:
        hold_work_dir(tmp_path / '.' / 'work')  # the same process may
        (tmp_path / 'link').symlink_to(work_dir)
        assert in_process(_expect_refusal, tmp_path / 'link', out) == 0
        assert f'process {os.getpid()}' in out.read_text()
        assert 'in use by' in out.read_text()
    finally:
        release_work_dir(work_dir)
    assert not is_locked(work_dir / LOCK)
    release_work_dir(work_dir)  # twice does no harm


@pytest.mark.parametrize('gckd', [False, True])
def test_a_second_training_is_refused_whatever_its_config(
    miniature: Path, tmp_path: Path, gckd: bool
) -> None:
    work_dir, out = tmp_path / 'work', tmp_path / 'error.txt'
    config = _config_file(miniature, work_dir, tmp_path / 'config.py', gckd)
    hold_work_dir(work_dir)
    before = sorted(work_dir.iterdir())
    try:
        assert in_process(_train_tool, [config], out) == 0
        assert 'in use by process' in out.read_text()
        assert out.read_text().startswith('error: ')
        assert in_process(_train_with_a_runner, miniature, work_dir, out) == 0
        assert 'in use by process' in out.read_text()
    finally:
        release_work_dir(work_dir)
    assert not list(work_dir.glob('*.pth'))
    assert set(before) <= set(work_dir.iterdir())


def _train_tool(arguments: list[str], out: Path) -> None:
    try:
        train_tool.main(arguments)
    except SystemExit as stop:
        out.write_text(str(stop.code))


def _train_with_a_runner(data: Path, work_dir: Path, out: Path) -> None:
    try:
        train(small_config(data, work_dir))
    except InputError as error:
        out.write_text(f'runner: {error}')


def test_a_work_dir_is_free_for_tests_while_a_training_holds_it(
    miniature: Path, trained: Path, tmp_path: Path
) -> None:
    config = _config_file(miniature, tmp_path / 'work', tmp_path / 'config.py')
    hold_work_dir(tmp_path / 'work')
    try:
        arguments = [config, str(last_checkpoint(trained))]
        assert in_process(test_tool.main, arguments) == 0
    finally:
        release_work_dir(tmp_path / 'work')


def test_the_work_dir_is_released_at_the_end(miniature: Path, tmp_path: Path) -> None:
    assert in_process(_train_twice, miniature, tmp_path) == 0


def _train_twice(data: Path, work_dir: Path) -> None:
    train(small_config(data, work_dir, train_cfg__max_iters=2))
    assert not is_locked(work_dir / LOCK)
    failing = small_config(data, work_dir, train_cfg__max_iters=2, resume=True)
    (work_dir / 'last_checkpoint').write_text('')
    with pytest.raises(CheckpointError, match='is empty'):
        train(failing)
    # A notebook goes on after an error in the same process.
    train(small_config(data, work_dir, train_cfg__max_iters=2))


def _hang_with_workers(data: Path, work_dir: Path) -> None:
    cfg = small_config(data, work_dir, train_dataloader__num_workers=2)
    cfg.train_dataloader.persistent_workers = True
    cfg.custom_hooks.append(dict(type='mmengine.KillHook', at=5))
    train(cfg)


def test_a_killed_training_with_workers_is_resumed_at_once(
    miniature: Path, tmp_path: Path
) -> None:
    assert in_process(_hang_with_workers, miniature, tmp_path) == -signal.SIGKILL
    begin = time.monotonic()
    assert in_process(_resume, miniature, tmp_path) == 0
    assert time.monotonic() - begin < 60
    assert read_checkpoint(last_checkpoint(tmp_path))['meta']['iter'] == 8


def _resume(data: Path, work_dir: Path) -> None:
    train(small_config(data, work_dir, resume=True))


def _refused_on_each_rank(data: Path, work_dir: Path) -> None:
    cfg = small_config(
        data, work_dir, launcher='pytorch', train_dataloader__batch_size=4
    )
    with pytest.raises(LockedError, match='in use by process'):
        train(cfg)


def test_every_rank_of_a_second_training_is_refused(
    miniature: Path, tmp_path: Path
) -> None:
    hold_work_dir(tmp_path)
    try:
        on_ranks(_refused_on_each_rank, 2, miniature, tmp_path)
    finally:
        release_work_dir(tmp_path)


@pytest.mark.parametrize('name', ['a_file', 'a_file/below', 'x' * 300, 'a\0b'])
def test_a_work_dir_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / 'a_file').write_text('')
    with pytest.raises(InputError, match='work dir'):
        hold_work_dir(f'{tmp_path}/{name}')
