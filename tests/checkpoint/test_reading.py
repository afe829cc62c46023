"""Checkpoints are read without running anything, and refused if they do not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, load_from_local

from gckd_mm.checkpoint import (
    read_checkpoint,
    use_strict_loading,
)
from gckd_mm.errors import CheckpointError
from tests.training import in_process, last_checkpoint


class _Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


class _AttributePayload:
    def __reduce__(self) -> tuple[Any, tuple[Any, str]]:
        return getattr, (HistoryBuffer, '__init__')


def test_reads_a_checkpoint_of_mmengine(trained: Path) -> None:
    checkpoint = read_checkpoint(last_checkpoint(trained))
    assert checkpoint['meta']['iter'] == 4
    assert checkpoint['meta']['selection'] == 'last'
    assert all(
        isinstance(value, torch.Tensor) for value in checkpoint['state_dict'].values()
    )
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert history.current() > 0


def test_refuses_pickled_objects_and_executes_nothing(tmp_path: Path) -> None:
    marker, path = tmp_path / 'executed', tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'payload': _Payload(f'touch {marker}')}, path)
    with pytest.raises(CheckpointError, match=rf'{path}: refused.*\.system') as error:
        read_checkpoint(path)
    assert 'Nothing was executed' in str(error.value)
    assert not marker.exists()


def test_getattr_reaches_nothing_but_the_statistics_of_log_histories(
    tmp_path: Path,
) -> None:
    path = tmp_path / 'evil.pth'
    torch.save({'payload': _AttributePayload()}, path)
    with pytest.raises(CheckpointError, match='getattr'):
        read_checkpoint(path)


def test_does_not_hand_mmengine_a_config_that_it_would_execute(tmp_path: Path) -> None:
    path = tmp_path / 'old.pth'
    torch.save({'meta': {'config': 'import os', 'epoch': 1}}, path)
    assert read_checkpoint(path)['meta'] == {'epoch': 1}


@pytest.mark.parametrize('share', [0.0, 0.3, 0.99])
def test_truncated_checkpoint(trained: Path, tmp_path: Path, share: float) -> None:
    data = last_checkpoint(trained).read_bytes()
    path = tmp_path / 'cut.pth'
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=f'{path}: truncated'):
        read_checkpoint(path)


def test_missing_checkpoint_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'nowhere\.pth does not exist'):
        read_checkpoint(tmp_path / 'nowhere.pth')
    text = tmp_path / 'text.pth'
    text.write_text('not a checkpoint')
    with pytest.raises(CheckpointError, match='not a checkpoint'):
        read_checkpoint(text)
    torch.save([1, 2], text)
    with pytest.raises(CheckpointError, match='must hold a dict, got list'):
        read_checkpoint(text)


def _expect_mmengines_loader() -> None:
    assert CheckpointLoader._schemes[''] is load_from_local


def test_importing_the_package_leaves_mmengines_loader_alone() -> None:
    # in a process of its own: tests of the tools change this one's
    assert in_process(_expect_mmengines_loader) == 0


def _load_from_an_address(address: str) -> None:
    use_strict_loading()
    with pytest.raises(CheckpointError, match='only files are read'):
        CheckpointLoader.load_checkpoint(address)


@pytest.mark.parametrize('scheme', ['https', 's3', 'openmmlab', 'torchvision'])
def test_strict_loading_fetches_nothing(scheme: str) -> None:
    assert in_process(_load_from_an_address, f'{scheme}://some/where.pth') == 0


def test_numpy_scalars_of_message_hubs_load(tmp_path: Path) -> None:
    path = tmp_path / 'numpy.pth'
    torch.save({'value': np.float64(0.5), 'array': np.arange(3)}, path)
    assert read_checkpoint(path)['value'] == 0.5


def test_strict_loading_leaves_shipped_weights_readable(tmp_path: Path) -> None:
    assert in_process(_load_shipped, tmp_path / 'keys.txt') == 0
    assert 'state_dict' in (tmp_path / 'keys.txt').read_text()


def _load_shipped(out: Path) -> None:
    use_strict_loading()
    checkpoint = CheckpointLoader.load_checkpoint('gckd_mm://synthclip_tiny_web', 'cpu')
    out.write_text(' '.join(checkpoint))


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    ('content', 'what'),
    [
        (
            'version https://git-lfs.github.com/spec/v1\noid sha256:4d7\nsize 12345\n',
            'a pointer of git LFS.*git lfs pull',
        ),
        ('\n<!DOCTYPE html>\n<title>Sign in</title>', 'a web page'),
        ('<html lang="en">', 'a web page'),
    ],
)
def test_what_was_not_fetched_is_named(
    tmp_path: Path, content: str, what: str, suffix: str
) -> None:
    path = tmp_path / f'weights{suffix}'
    path.write_text(content)
    with pytest.raises(CheckpointError, match=f'is {what}'):
        read_checkpoint(path)
