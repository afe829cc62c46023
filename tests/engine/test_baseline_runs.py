"""Whole runs of baselines: resumed, branched off, and known as adapted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from gckd_mm.checkpoint import find_last_checkpoint, read_checkpoint
from gckd_mm.errors import InputError
from tests.training import in_process, small_gckd_config, train

MAX_ITERS = 8
OURS = (
    *('memory_size', 'teacher_momentum', 'graph', 'labels', 'distill', 'consistency'),
    'loss_weights',
)
#: one with weights of its own, one whose state is memories and classes
HEADS: dict[str, dict[str, Any]] = {
    'dann': dict(type='DomainAdversarialHead', hidden=8),
    'spcl': dict(
        type='ClusterContrastHead', memory_size=64, k1=4, refresh=2, warmup=1, margin=0
    ),
}


def _config(data: Path, work_dir: Path, name: str, **options: Any) -> Config:
    cfg = small_gckd_config(data, work_dir, experiment_name=str(work_dir), **options)
    size = cfg.model.pop('embedding_size')
    for part in OURS:
        cfg.model.pop(part, None)
    cfg.model.type = 'AdaptedDualEncoder'
    cfg.model.adaptation = {**HEADS[name], 'embedding_size': size}
    return cfg


def _train_until(data: Path, work_dir: Path, name: str, at: int | None) -> None:
    """Go on from the last checkpoint, if any, and be killed in iteration ``at``."""
    checkpoint = find_last_checkpoint(work_dir)
    options = {} if checkpoint is None else {'load_from': checkpoint, 'resume': True}
    cfg = _config(data, work_dir, name, **options)
    if at is not None:
        cfg.custom_hooks.append(dict(type='mmengine.KillHook', at=at))
    train(cfg)


def _train_and_branch(data: Path, folder: Path, name: str) -> None:
    train(_config(data, folder / 'whole', name))
    key = 'default_hooks__adaptation__source_checkpoint'
    start = str(folder / 'whole/source.pth')
    train(_config(data, folder / 'branch', name, **{key: start}))
    adapted = str(folder / f'whole/iter_{MAX_ITERS}.pth')
    with pytest.raises(InputError, match='has been adapted already'):
        train(_config(data, folder / 'again', name, **{key: adapted}))


def _end(work_dir: Path) -> dict[str, Any]:
    return read_checkpoint(work_dir / f'iter_{MAX_ITERS}.pth')


@pytest.mark.parametrize('name', HEADS)
def test_a_baseline_resumes_and_branches_off_bit_for_bit(
    miniature: Path, tmp_path: Path, name: str
) -> None:
    assert in_process(_train_and_branch, miniature, tmp_path, name) == 0
    killed = tmp_path / 'killed'
    assert in_process(_train_until, miniature, killed, name, 6) != 0
    assert find_last_checkpoint(killed) is not None
    assert in_process(_train_until, miniature, killed, name, None) == 0

    expected = _end(tmp_path / 'whole')
    assert expected['meta']['adaptation_steps'] == 5
    source = read_checkpoint(tmp_path / 'whole/source.pth')
    assert source['meta']['adaptation_steps'] == 0
    for other in ('branch', 'killed'):
        found = _end(tmp_path / other)['state_dict']
        assert found.keys() == expected['state_dict'].keys()
        for key, value in expected['state_dict'].items():
            # NaN: no clusters yet
            torch.testing.assert_close(
                found[key], value, rtol=0, atol=0, equal_nan=True, msg=f'{other} {key}'
            )
