"""Checkpoints as safetensors, against the package itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.errors import CheckpointError
from gckd_mm.safetensors_files import safetensors_bytes

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
