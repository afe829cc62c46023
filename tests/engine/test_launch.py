"""Configs, options and work dirs that cannot be, in the words of who gave them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
from mmengine.config import Config

from gckd_mm.engine.launch import (
    add_run_options,
    apply_run_options,
    check_output,
    check_work_dir,
    make_loaders_fit,
    merge_options,
    read_config,
    whole_number,
)
from gckd_mm.errors import InputError


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'a = (\n', 'line 1: cannot be read (SyntaxError'),
        (b'a = "\xff"\n', 'UnicodeDecodeError'),
        (b'a = b\n', "NameError: name 'b' is not defined"),
        (b'import nothing_there\n', 'nothing_there'),
        (b"custom_imports = dict(imports=['nothing_there'])", 'nothing_there'),
        (b"_base_ = 'nowhere.py'\n", 'a base is missing'),
        (b"_base_ = 'config.py'\n", 'leads back to it'),
        (b'a\0', 'null bytes'),
        (b"a = 1\na.b = '{{ nothing }}'", 'cannot be read'),
        (b"_base_ = ['one.py', 'two.py']", 'Duplicate key'),
    ],
)
def test_a_config_that_cannot_be_read(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    for name in ('one.py', 'two.py'):
        (tmp_path / name).write_text('a = 1')
    path = tmp_path / 'config.py'
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_config(path)
    assert expected in str(error.value)
    assert str(error.value).startswith(f'config {path}')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('nowhere.py', 'does not exist'),
        ('.', 'is a folder'),
        ('config.txt', 'Only py/yml/yaml/json'),
        ('fifo.py', 'does not exist'),
        ('s3://bucket/config.py', 'only files are read'),
        ('a\0.py', 'does not exist'),
        ('x' * 300, 'does not exist'),
    ],
)
def test_what_is_no_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('config.txt').write_text('a = 1')
    os.mkfifo('fifo.py')
    with pytest.raises(InputError, match=expected):
        read_config(name)


@pytest.mark.parametrize('option', ['train_cfg.max_iters', '=3', 'a=[1,(2', ' ='])
def test_an_option_that_is_none(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    with pytest.raises(SystemExit, match='2'):
        parser.parse_args(['--cfg-options', 'b=1', option])
    shown = capsys.readouterr().err
    assert 'argument --cfg-options' in shown
    assert repr(option) in shown


def test_options_are_read_as_mmengine_reads_them() -> None:
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    options = ['a.b=1', 'c=[x,y]', 'd=k=v', 'e=']
    found = parser.parse_args(['--cfg-options', *options]).cfg_options
    assert found == {'a.b': 1, 'c': ['x', 'y'], 'd': 'k=v', 'e': ''}


@pytest.mark.parametrize('key', ['lists.5.a', 'word.b', 'word.b.c'])
def test_an_option_that_leads_through_nothing(key: str) -> None:
    cfg = Config({'lists': [{'a': 1}], 'word': 'abc'})
    with pytest.raises(InputError, match=f'--cfg-options {key}=1: does not fit'):
        merge_options(cfg, {key: 1})


def test_a_new_key_at_the_top_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = Config({'train_cfg': {'max_iters': 1}})
    merge_options(cfg, {'train_cfg.max_iters': 2, 'load_from': 'a', 'resume': True})
    assert capsys.readouterr().err == ''
    merge_options(cfg, {'trian_cfg.max_iters': 3})
    assert "no 'trian_cfg': did you mean 'train_cfg'?" in capsys.readouterr().err
    merge_options(cfg, {'env_cfg.cudnn_bench': True})
    assert "did you mean 'env_cfg.cudnn_benchmark'?" in capsys.readouterr().err
    assert cfg.train_cfg.max_iters == 2


def test_no_workers_need_no_further_settings() -> None:
    workers = {'persistent_workers': True, 'prefetch_factor': 2, 'timeout': 5}
    loader = {'dataset': {}, 'num_workers': 0, **workers}
    cfg = Config(
        {
            'train_dataloader': dict(loader),
            'val_dataloader': dict(loader, num_workers=1),
            'test_dataloader': {'mall': {'gallery': dict(loader)}},
            'custom_hooks': [{'type': 'A', 'dataloader': dict(loader)}],
        }
    )
    make_loaders_fit(cfg)
    left = {'dataset': {}, 'num_workers': 0}
    assert cfg.train_dataloader == left
    assert cfg.test_dataloader.mall.gallery == left
    assert cfg.custom_hooks[0].dataloader == left
    assert cfg.val_dataloader == dict(loader, num_workers=1)


@pytest.mark.parametrize(
    'name', ['file', 'file/below', 'x' * 300, 'a\0b', 's3://bucket/x', 'gs://x']
)
def test_a_work_dir_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('file').write_text('')
    with pytest.raises(InputError, match='work dir') as error:
        check_work_dir(name)
    assert '\n' not in str(error.value)
    assert os.listdir('.') == ['file']


@pytest.mark.parametrize('value', [5, None, ['a']])
def test_a_work_dir_that_is_no_path(value: object) -> None:
    with pytest.raises(InputError, match='must be a path'):
        check_work_dir(value)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_work_dir_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match='cannot be written to'):
        check_work_dir(tmp_path / 'new')


def test_a_work_dir_need_not_be_there(tmp_path: Path) -> None:
    check_work_dir(tmp_path / 'new' / 'one')
    check_work_dir('work_dirs/relative')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'name', ['.', 'file/a.json', 'x' * 300, 'fifo', 'a\0b', '/proc/y.json', 's3://b/a']
)
def test_an_output_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('file').write_text('')
    os.mkfifo('fifo')
    with pytest.raises(InputError) as error:
        check_output(name)
    assert '\n' not in str(error.value)
    assert sorted(os.listdir('.')) == ['fifo', 'file']


def test_an_output_that_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / 'old.json').write_text('old')
    for name in ('old.json', 'new.json', 'new/folder/a.json'):
        check_output(str(tmp_path / name))
    check_output(None)
    assert [path.name for path in tmp_path.iterdir()] == ['old.json']
    assert (tmp_path / 'old.json').read_text() == 'old'


def test_a_home_folder_as_work_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    arguments = parser.parse_args(['--work-dir', '~/x'])
    assert apply_run_options(Config(), arguments, 'a').work_dir == str(tmp_path / 'x')


@pytest.mark.parametrize('least', [0, 1])
@pytest.mark.parametrize('text', ['-1', '1.5', 'three', '²', '', '9' * 5000])
def test_an_option_that_counts(text: str, least: int) -> None:
    assert whole_number(least)('03') == 3
    for wrong in (text, str(least - 1)):
        with pytest.raises(argparse.ArgumentTypeError, match=f'at least {least}'):
            whole_number(least)(wrong)
