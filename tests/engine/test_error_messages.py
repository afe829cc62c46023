"""What a user can do something about is said in one line; the rest is raised."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import Registry
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gckd_mm.engine.error_messages import keys_of, message_of, nearest
from gckd_mm.engine.launch import user_errors
from gckd_mm.errors import InputError
from gckd_mm.fileio import write_atomically
from tests.training import small_config, train

PARTS = Registry('parts')


class Base:
    def __init__(self, stripes: int = 1) -> None: ...


@PARTS.register_module()
class Part(Base):
    def __init__(self, size: int, dropout: float = 0.0, **kwargs: Any) -> None:
        if size < 1:
            raise ZeroDivisionError
        super().__init__(**kwargs)


@PARTS.register_module()
class Strict(Base):
    def __init__(self, width: int = 1) -> None:
        self.width = width


def message(function: Callable[[], object]) -> str | None:
    try:
        function()
    except Exception as error:
        return message_of(error)
    raise AssertionError('no error')


def test_keys_are_those_of_the_bases_that_get_the_rest() -> None:
    assert keys_of(Part) == {'size', 'dropout', 'stripes'}
    assert keys_of(Strict) == {'width'}
    assert 'weight_decay' in keys_of(torch.optim.AdamW)


def test_the_nearest_name() -> None:
    assert nearest('stripe', ['stripes', 'size']) == ": did you mean 'stripes'?"
    assert nearest('qqq', ['stripes']) == ''
    assert nearest('same', ['same']) == ''


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        (
            dict(type='Part', size=1, drop_out=1),
            "Part has no 'drop_out': did you mean 'dropout'",
        ),
        (dict(type='Part', sizes=1), "no 'sizes': did you mean 'size'"),
        (dict(type='Part', size=0), 'Part cannot be built: ZeroDivisionError'),
        (dict(type='Part', size='a'), "Part cannot be built: TypeError: '<' not"),
        (dict(type='Prat', size=1), "Prat is not in .*: did you mean 'Part'"),
        (dict(size=1), "needs a 'type'"),
    ],
)
def test_what_a_config_gets_wrong(config: dict, expected: str) -> None:
    found = message(lambda: PARTS.build(config))
    assert found is not None
    assert re.search(expected, found), found
    assert '\n' not in found


def test_an_error_that_nobody_foresaw_keeps_its_traceback() -> None:
    assert message(lambda: {}['a']) is None
    assert message(lambda: torch.zeros(2) @ torch.zeros(3)) is None
    with pytest.raises(KeyError), user_errors():
        {}['a']


def raises(error: BaseException) -> Callable[[], object]:
    def function() -> object:
        raise error

    return function


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (OSError(errno.ENOSPC, 'No space left', 'a.pth'), 'a.pth: cannot be written'),
        (OSError(errno.ENOSPC, 'No space left'), 'the disk is full: make room'),
        (
            PermissionError(errno.EACCES, 'Denied', 'a'),
            'a: cannot be read (Denied): ask',
        ),
        (IsADirectoryError(errno.EISDIR, 'Is a directory', 'a'), 'name a file'),
        (FileNotFoundError(errno.ENOENT, 'No such file', b'a'), 'a: cannot be read'),
        (OSError(errno.EMFILE, 'Too many open files', 'a'), 'ulimit -n'),
        (OSError('no connection\n to the hub'), 'no connection to the hub'),
        (OSError(), 'OSError'),
        (MemoryError(), 'out of memory: MemoryError. Lower'),
        (torch.OutOfMemoryError('CUDA out of memory. x\ny'), 'out of memory: CUDA'),
        (RuntimeError("can't allocate memory: you tried to"), 'out of memory'),
        (
            RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.'),
            '(/dev/shm)',
        ),
        (
            RuntimeError('DataLoader worker (pid(s) 7) exited unexpectedly'),
            'num_workers',
        ),
    ],
)
def test_what_the_system_refuses(error: BaseException, expected: str) -> None:
    found = message(raises(error))
    assert found is not None
    assert expected in found
    assert '\n' not in found
    with pytest.raises(SystemExit) as stop, user_errors():
        raise error
    assert stop.value.code == f'error: {found}'


class _Failing(Dataset):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise self.error


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (InputError('imgs/a.png: not an image'), 'imgs/a.png: not an image'),
        (OSError('cut short'), 'cut short'),
    ],
)
def test_an_error_of_a_loaders_worker(error: Exception, expected: str) -> None:
    loader: DataLoader = DataLoader(_Failing(error), num_workers=1)
    assert message(lambda: list(loader)) == expected


def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'iter_2.pth'
    write_atomically(path, 'old')

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    found = message(lambda: write_atomically(path, 'new'))
    assert found is not None
    assert found.startswith(f'{path}: cannot be written (No space left on device)')
    assert path.read_text() == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['iter_2.pth']


@pytest.mark.parametrize('target', ['a folder', 'below a file', 'too long'])
def test_a_file_that_cannot_be_written(tmp_path: Path, target: str) -> None:
    (tmp_path / 'file').write_text('')
    path = {
        'a folder': tmp_path,
        'below a file': tmp_path / 'file' / 'a.json',
        'too long': tmp_path / ('x' * 300),
    }[target]
    found = message(lambda: write_atomically(path, 'text'))
    assert found is not None
    assert 'cannot be written' in found


def test_it_is_a_decorator_too() -> None:
    @user_errors()
    def main() -> None:
        raise InputError('wrong')

    for _ in range(2):
        with pytest.raises(SystemExit, match='error: wrong'):
            main()


def test_a_bug_of_a_model_is_no_mistake_of_a_config() -> None:
    assert message(lambda: nn.Linear(2, 2)(torch.zeros(3))) is None


@pytest.mark.parametrize('part', ['image_neck', 'text_neck'])
def test_a_first_step_that_fails_names_the_part(
    part: str, miniature: Path, tmp_path: Path
) -> None:
    overrides = {f'model__{part}__in_channels': 5}
    cfg = small_config(miniature, tmp_path, **overrides)
    kind = cfg.model[part].type

    found = message(lambda: train(cfg))

    assert found is not None
    assert found.startswith(f'{kind} (model.{part}) fails in its first step: Runtime')
    assert '\n' not in found
