"""Checkpoints as safetensors, against the package itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.checkpoint.safetensors_files import safetensors_bytes
from gckd_mm.checkpoint.unverifiable import say_not_verifiable
from gckd_mm.errors import CheckpointError

TENSORS = {'a': torch.randn(2, 3), 'b': torch.arange(4, dtype=torch.uint8)}


def test_the_package_reads_what_is_written() -> None:
    shared = {**TENSORS, 'view': TENSORS['a'].t(), 'same': TENSORS['a']}

    found = load(safetensors_bytes(shared, {'seed': 3}))

    assert found.keys() == shared.keys()
    assert all(torch.equal(found[key], value) for key, value in shared.items())


def test_a_checkpoint_is_read_with_and_without_meta(tmp_path: Path) -> None:
    ours, others = tmp_path / 'ours.safetensors', tmp_path / 'others.safetensors'
    ours.write_bytes(safetensors_bytes(TENSORS, {'seed': 3, 'cfg': 'a = 1'}))
    save_file(TENSORS, others)

    assert read_checkpoint(ours)['meta'] == {'seed': 3, 'cfg': 'a = 1'}
    assert read_checkpoint(others)['meta'] == {}
    for path in (ours, others):
        found = read_checkpoint(path)['state_dict']
        assert all(torch.equal(found[key], value) for key, value in TENSORS.items())


@pytest.mark.parametrize('share', [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    data = safetensors_bytes(TENSORS)
    path = tmp_path / 'cut.safetensors'
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(CheckpointError, match=f'{path}: truncated'):
        read_checkpoint(path)


def _file(path: Path, **metadata: str) -> Path:
    save_file(TENSORS, path, metadata=metadata or None)
    return path


@pytest.mark.parametrize('count', [1, 8, 64])
def test_flipped_bytes_are_refused(tmp_path: Path, count: int) -> None:
    tensors = {f'layer{n}': torch.randn(20, 20) for n in range(4)}
    data = safetensors_bytes(tensors, {'seed': 3, 'cfg': 'a = 1'})
    path = tmp_path / 'it.safetensors'
    random_ = random.Random(count)
    for _ in range(100):
        damaged = bytearray(data)
        start = random_.randrange(len(data) - count)
        for position in range(start, start + count):
            damaged[position] ^= random_.randrange(1, 256)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_a_damaged_name_of_the_digest_is_no_file_of_others(tmp_path: Path) -> None:
    data = safetensors_bytes(TENSORS, {'seed': 3})
    path = tmp_path / 'it.safetensors'
    path.write_bytes(data.replace(b'sha256', b'sha257'))
    with pytest.raises(CheckpointError, match='damaged'):
        read_checkpoint(path)


def test_files_of_others_are_said_to_be_not_verifiable_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say_not_verifiable.cache_clear()
    path = _file(tmp_path / 'it.safetensors')
    ours = tmp_path / 'ours.safetensors'
    ours.write_bytes(safetensors_bytes(TENSORS))
    for _ in range(2):
        read_checkpoint(path)
        read_checkpoint(ours)
    said = [record for record in caplog.records if 'not verifiable' in record.message]
    assert len(said) == 1
    assert str(path) in said[0].message


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[1]', 'must be a JSON object, got list'),
        ('3', 'must be a JSON object, got int'),
        ('null', 'must be a JSON object'),
        ('{', 'not a file of safetensors'),
        ('[' * 100_000, 'not a file of safetensors'),
        ('{"cfg": [1]}', r"meta\['cfg'\] must be of type str"),
        ('{"iter": "x"}', r"meta\['iter'\] must be of type int"),
        ('{"a": ' + '[' * 200 + ']' * 200 + '}', 'nested deeper'),
    ],
)
def test_metadata_of_other_kinds_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = _file(tmp_path / 'it.safetensors', gckd_mm=text)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)
