"""A checkpoint of the wrong shape is refused where it is read, in the user's words."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gckd_mm.checkpoint import check_state_dict, load_weights, read_checkpoint
from gckd_mm.checkpoint.structure import check_structure
from gckd_mm.errors import CheckpointError

GOOD = {'state_dict': {'a': torch.zeros(2)}, 'meta': {'iter': 3, 'cfg': 'a = 1'}}
BYTES = 1 << 20


def _cycle() -> list:
    loop: list = []
    loop.append(loop)
    return loop


def _unfolding() -> list:
    value: list = [0]
    for _ in range(40):
        value = [value, value]
    return value


def _deep() -> list:
    value: list = []
    for _ in range(500):
        value = [value]
    return value


def test_good_ones_pass() -> None:
    check_structure(GOOD, 'it', BYTES)
    check_structure({'a': torch.zeros(2)}, 'it', BYTES)
    check_structure({'state_dict': OrderedDict(a=nn.Parameter(torch.zeros(2)))}, 'i', 9)
    check_structure({**GOOD, 'optimizer': {'state': {0: {}}}}, 'it', BYTES)
    check_structure({'state_dict': {'a._extra_state': None}}, 'it', BYTES)
    check_structure({'meta': {'seed': None, 'other': np.float64(1)}}, 'it', BYTES)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'meta': [1]}, "'meta' must be of type dict"),
        ({'meta': 'text'}, "'meta' must be of type dict"),
        ({'state_dict': [torch.zeros(1)]}, "'state_dict' must be of type dict"),
        ({'state_dict': torch.zeros(1)}, "'state_dict' must be of type dict"),
        ({'state_dict': None}, "'state_dict' must be of type dict"),
        ({'state_dict': {1: torch.zeros(1)}}, 'names must be strings'),
        ({'meta': {'cfg': ['a']}}, r"meta\['cfg'\] must be of type str"),
        ({'meta': {'iter': 'three'}}, r"meta\['iter'\] must be of type int"),
        ({'meta': {'iter': True}}, r"meta\['iter'\] must be of type int"),
        ({'meta': {'seed': -1}}, r"meta\['seed'\] must be a number from 0"),
        ({'meta': {'iter': 1 << 80}}, r"meta\['iter'\] must be a number from 0"),
        ({'optimizer': [1]}, "'optimizer' must be of type dict"),
        ({'message_hub': 3}, "'message_hub' must be of type dict"),
        ({'param_schedulers': 'x'}, "'param_schedulers' must be of type list or dict"),
        ({3: 4}, 'names must be strings'),
        ({'state_dict': {'a': torch.eye(2).to_sparse()}}, "'a'.* sparse"),
        ({'state_dict': {'a': torch.eye(2).to_sparse_csr()}}, "'a'.* sparse"),
        ({'state_dict': {'a': torch.zeros(2, device='meta')}}, "'a'.* meta device"),
        ({'state_dict': {'a': torch.zeros(2, dtype=torch.complex64)}}, 'complex'),
        (
            {
                'state_dict': {
                    'a': torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.quint8)
                }
            },
            'quantised',
        ),
        (
            {'state_dict': {'a': torch.nested.nested_tensor([torch.zeros(2)])}},
            'nested',
        ),
        ({'state_dict': {'a': torch.zeros(1).expand(1 << 40)}}, 'enough numbers'),
        ({'optimizer': {'a': torch.zeros(1 << 20)}}, 'larger than the file'),
        ({'other': np.zeros(1 << 20)}, 'larger than the file'),
        ({'other': np.array([{}])}, 'array of objects'),
        ({'other': _cycle()}, 'nested deeper'),
        ({'other': _deep()}, 'nested deeper'),
        ({'other': _unfolding()}, 'unfolds to more'),
        ({'other': len}, 'which no checkpoint holds'),
    ],
)
def test_bad_ones_are_named(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf'^file\.pth: .*{message}'):
        check_structure({**GOOD, **change}, 'file.pth', BYTES)


@pytest.mark.parametrize('value', [None, 3, 'text', [1], {'b': torch.zeros(1)}])
def test_a_model_takes_tensors_alone(value: Any) -> None:
    weights = {**nn.Linear(1, 1).state_dict(), 'bias': value}
    for state_dict in (weights, {'module.' + key: v for key, v in weights.items()}):
        with pytest.raises(CheckpointError, match=r"bias' must be a tensor"):
            load_weights(nn.Linear(1, 1), {'state_dict': state_dict}, 'x')
        with pytest.raises(CheckpointError, match='another architecture'):
            check_state_dict(nn.Linear(1, 1), state_dict, 'x', partial=True)


@pytest.mark.parametrize('value', [None, 3, 'text', [1], torch.zeros(2)])
def test_only_dicts_are_checkpoints(tmp_path: Path, value: Any) -> None:
    path = tmp_path / 'it.pth'
    torch.save(value, path)
    with pytest.raises(CheckpointError, match='must hold a dict'):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ('name', 'data'),
    [
        ('empty.pth', b''),
        ('text.pth', b'hello'),
        ('it.json', b'{"a": 1}'),
        ('it.png', b'\x89PNG\r\n\x1a\n' + bytes(100)),
        ('pickle.pth', b'\x80\x02}q\x00.'),
        ('empty.safetensors', b''),
        ('text.safetensors', b'hello, this is some text'),
        ('bomb.safetensors', (1 << 40).to_bytes(8, 'little') + b'{}'),
    ],
)
def test_other_files_are_no_checkpoints(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=str(path)) as error:
        read_checkpoint(path)
    assert 'weights_only' not in str(error.value)
    assert error.value.__cause__ is None or 'weights_only' not in str(
        error.value.__cause__
    )


def test_arrays_of_numpy_are_no_checkpoint(tmp_path: Path) -> None:
    np.savez(tmp_path / 'it.npz', a=np.zeros(3))
    with pytest.raises(CheckpointError, match=r'it\.npz: truncated'):
        read_checkpoint(tmp_path / 'it.npz')


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'fifo.pth')
    (tmp_path / 'loop.pth').symlink_to('loop.pth')
    for name, message in {
        'fifo.pth': 'no regular file',
        'loop.pth': 'cannot be read',
        '': 'is a folder',
        'none.pth': 'does not exist',
        'a' * 300: 'cannot be read',
        'nul\0.pth': 'does not exist',
    }.items():
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(f'{tmp_path}/{name}')
    with pytest.raises(CheckpointError, match='no regular file'):
        read_checkpoint('/dev/zero')


def test_no_text_passes_on_the_advice_to_unpickle_everything(tmp_path: Path) -> None:
    path = tmp_path / 'evil.pth'
    for value in (os.system, Path('x'), {'a': object()}, slice(3)):
        torch.save({'state_dict': {}, 'x': value}, path)
        with pytest.raises(CheckpointError, match=r'refused|truncated') as error:
            read_checkpoint(path)
        chain: BaseException | None = error.value
        while chain is not None:
            assert 'weights_only' not in str(chain)
            assert 'safe_globals' not in str(chain)
            chain = chain.__cause__
